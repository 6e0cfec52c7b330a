/* SPDX-License-Identifier: MIT */
/* The monitor's first instruction in the guest, and every interrupt and exception. */
#include <keel/vcpu.h>
#include "../../monitor/monitor.h"
#include "pv.h"

	.section .text.start, "ax", @progbits
/* From the host: rsp = the monitor's stack, rdi = the vCPU's block, GS base the same. */
	.globl	pv_start_entry
pv_start_entry:
	xorl	%ebp, %ebp
	call	pv_start		/* builds the first context */
	jmp	mon_resume

/* rdi = the vCPU: leave what there is of its stack behind and begin. */
	.globl	pv_again
pv_again:
	leaq	MON_STACK_TOP - MON_PRIVATE(%rdi), %rsp
	pushq	$0x202
	popfq
	xorl	%ebp, %ebp
	call	pv_begin
	jmp	mon_resume

/*
 * Interrupts are off in here, and every vector uses the same stack: nothing
 * nests. A fault in here starts at the stack's top again and finds itself in
 * monitor text, which ends the partition.
 */
	.section .text.vectors, "ax", @progbits
	.balign	0x1000
	.globl	pv_vectors
pv_vectors:
	.set	n, 0
	.rept	256
	.balign	PV_VECTOR_SIZE, 0xcc
	/* #DF #TS #NP #SS #GP #PF #AC #CP #VC #SX push an error code. */
	.if	!(n == 8 || (n >= 10 && n <= 14) || n == 17 || n == 21 || n == 29 || n == 30)
	pushq	$0
	.endif
	pushq	$n
	jmp	pv_common
	.set	n, n + 1
	.endr
	.balign	PV_VECTOR_SIZE, 0xcc

pv_common:
	/* The stack's top is aligned: a missing word shows. `int n` pushes no error code, whatever n. */
	testb	$8, %spl
	jnz	1f
	pushq	(%rsp)
	orl	$PV_SOFTWARE, (%rsp)
1:
	.globl	pv_save, pv_kernel
pv_save:
	pushq	%rax
	pushq	%rbx
	pushq	%rcx
	pushq	%rdx
	pushq	%rsi
	pushq	%rdi
	pushq	%rbp
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	cld
	testb	$3, PVF_CS(%rsp)
	jnz	pv_user_left		/* guest user code was interrupted */
pv_kernel:
	movq	%rsp, %rdi
	movq	%rsp, %rsi
	andq	$-MON_BLOCK_SIZE, %rsi	/* GS is the guest's to break; this is not */
	cmpq	$0, PV_DOOR_OFF + PD_STACK(%rsi)
	je	1f
	movq	PV_DOOR_OFF + PD_CR3(%rsi), %rax	/* on the way to user code or back: what is needed now is not mapped */
	movq	%rax, %cr3
1:
	movq	%rsp, %rbx
	andq	$-16, %rsp
	call	pv_interrupt
	testl	%eax, %eax
	jnz	mon_resume		/* run v->cur */

	/* Go on where it was, or where pv_interrupt moved it. */
	movq	%rbx, %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rbp
	popq	%rdi
	popq	%rsi
	popq	%rdx
	popq	%rcx
	popq	%rbx
	popq	%rax
	addq	$16, %rsp
	iretq

	.section .note.GNU-stack, "", @progbits
