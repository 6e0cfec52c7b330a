/* SPDX-License-Identifier: MIT */
/*
 * void step_round(void) - one round of step_guest.c
 *
 * Every register holds a value of its own; whatever interrupts the round, at
 * whatever instruction, must leave all of them alone. step_bad gets the number
 * of the first check that failed.
 */
#include <keel/keel.h>
#include "step.h"

#define VALUE(n) 0x1011121314151600 + (n)
#define RED_ZONE 0x7265645a6f6e6520

/* Numbers in step_bad: 0x100 * (check within the round) + register. */
.macro check_reg reg n at
	movabsq	$VALUE(\n), %rax
	movl	$0x100 * \at + \n, %edx
	cmpq	%rax, %\reg
	jne	.Lbad
.endm

.macro check_kept at
	check_reg rbx, 3, \at
	check_reg rbp, 5, \at
	check_reg rsi, 6, \at
	check_reg r9, 9, \at
	check_reg r12, 12, \at
	check_reg r13, 13, \at
	check_reg r14, 14, \at
	check_reg r15, 15, \at
.endm

.macro fill reg n
	movabsq	$VALUE(\n), %\reg
.endm

	.text
	.globl	step_round
step_round:
	endbr64
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rsp, step_rsp(%rip)
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movaps	step_pattern + 32 * \n(%rip), %xmm\n
	.endr
	cmpl	$0, step_avx(%rip)
	je	1f
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vmovaps	step_pattern + 32 * \n(%rip), %ymm\n
	.endr
1:	ldmxcsr	step_mxcsr(%rip)
	fldcw	step_fcw(%rip)

	movabsq	$STEP_MAGIC, %rax
	leaq	step_state(%rip), %rdi
	int3

	fill	rbx, 3
	fill	rbp, 5
	fill	rsi, 6
	fill	r9, 9
	fill	r12, 12
	fill	r13, 13
	fill	r14, 14
	fill	r15, 15

	/* A call that is answered in place. Arguments are kept too. */
	xorl	%esi, %esi
	xorl	%edi, %edi
	xorl	%edx, %edx
	xorl	%r10d, %r10d
	xorl	%r8d, %r8d
	movl	$KEEL_CALL_BASE_NOP, %eax
	call	*%gs:KEEL_VCPU_GATE
	orq	%rdx, %rax
	orq	%rdi, %rax
	orq	%rsi, %rax
	orq	%r8, %rax
	orq	%r10, %rax
	movl	$0x101, %edx
	jnz	.Lbad
	cmpq	%rsp, step_rsp(%rip)
	jne	.Lbad
	fill	rsi, 6
	check_kept 2

	/* A trap, with DF set and a live red zone; the handler steps over the ud2. */
	fill	rax, 0
	fill	rcx, 1
	fill	rdx, 2
	fill	rdi, 7
	fill	r8, 8
	fill	r10, 10
	fill	r11, 11
	movq	%rax, -8(%rsp)
	movq	%rdi, -128(%rsp)
	std
	ud2
	cmpq	%rax, -8(%rsp)
	movl	$0x301, step_where(%rip)
	jne	.Lbad_where
	cmpq	%rdi, -128(%rsp)
	jne	.Lbad_where
	movl	$0x302, step_where(%rip)
	/* rcx, rdx, rdi, r8, r10 and r11 by what they hold, without a register to spare. */
	subq	%rax, %rcx
	subq	%rax, %rdx
	subq	%rax, %rdi
	subq	%rax, %r8
	subq	%rax, %r10
	subq	%rax, %r11
	cmpq	$1, %rcx
	jne	.Lbad_where
	cmpq	$2, %rdx
	jne	.Lbad_where
	cmpq	$7, %rdi
	jne	.Lbad_where
	cmpq	$8, %r8
	jne	.Lbad_where
	cmpq	$10, %r10
	jne	.Lbad_where
	cmpq	$11, %r11
	jne	.Lbad_where
	/* DF: a string load moves rsi down by 8, and up again once it is clear. */
	leaq	step_rsp(%rip), %rsi
	lodsq
	cld
	lodsq
	leaq	step_rsp(%rip), %rax
	movl	$0x303, step_where(%rip)
	cmpq	%rax, %rsi
	jne	.Lbad_where
	fill	rsi, 6
	check_kept 4

	/* A call that leads to an upcall on the way out. */
	movl	step_port(%rip), %edi
	xorl	%esi, %esi
	xorl	%edx, %edx
	xorl	%r10d, %r10d
	xorl	%r8d, %r8d
	movl	$KEEL_CALL_EVENT_SEND, %eax
	call	*%gs:KEEL_VCPU_GATE
	orq	%rdx, %rax
	orq	%rsi, %rax
	orq	%r8, %rax
	orq	%r10, %rax
	movl	$0x501, %edx
	jnz	.Lbad
	cmpl	step_port(%rip), %edi
	jne	.Lbad
	cmpq	%rsp, step_rsp(%rip)
	jne	.Lbad
	fill	rsi, 6
	check_kept 6
	jmp	.Lvector

.Lbad_where:
	cld
	movl	step_where(%rip), %edx
.Lbad:
	cmpq	$0, step_bad(%rip)
	jne	.Lvector
	movl	%edx, %edx
	movq	%rdx, step_bad(%rip)
.Lvector:
	movq	step_rsp(%rip), %rsp
	stmxcsr	step_mxcsr_seen(%rip)
	fnstcw	step_fcw_seen(%rip)
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movaps	%xmm\n, step_seen + 32 * \n(%rip)
	.endr
	cmpl	$0, step_avx(%rip)
	je	1f
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vmovaps	%ymm\n, step_seen + 32 * \n(%rip)
	.endr
1:	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret

	.data
	.globl	step_mxcsr, step_fcw, step_mxcsr_seen, step_fcw_seen, step_bad
	.balign	8
	.quad	0
step_rsp:
	.quad	0, 0
step_bad:
	.quad	0
step_where:
	.long	0
step_mxcsr:
	.long	0x9f80			/* flush to zero: not the initial value */
step_mxcsr_seen:
	.long	0
step_fcw:
	.word	0x27f			/* double precision, likewise */
step_fcw_seen:
	.word	0

	.section .note.GNU-stack, "", @progbits
