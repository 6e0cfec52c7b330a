/* SPDX-License-Identifier: MIT */
/*
 * To guest user code at CPL 3 and back. Interrupts are off throughout: FMASK and the
 * gates see to it on the way in, pv_user_run()'s caller on the way out.
 *
 * While user code runs GS is its own, and the MSR that swapgs exchanges it with holds
 * the vCPU's block, which is what it holds at CPL 0 too: a swapgs too many, by a
 * `syscall` of the guest's kernel, changes nothing.
 *
 * What is touched while the user's page tables are loaded is this text, the descriptor
 * tables and the vCPU's door, nothing else.
 */
#include <keel/user.h>
#include <keel/vcpu.h>
#include "../../monitor/monitor.h"
#include "pv.h"

#define U(field) KEEL_USER_##field(%rdi)
#define DOOR(off) %gs:PV_DOOR_OFF + (off)

	.section .text.syscall, "ax", @progbits
/* LSTAR. Make of it what an interrupt leaves. */
	.globl	pv_syscall
pv_syscall:
	swapgs
	movq	%rsp, DOOR(PD_SCRATCH)
	movq	DOOR(PD_TOP), %rsp
	pushq	$PV_USER_SS
	pushq	DOOR(PD_SCRATCH)
	swapgs
	pushq	%r11
	pushq	$PV_USER_CS
	pushq	%rcx
	pushq	$0
	pushq	$PV_VECTOR_SYSCALL
	jmp	pv_save

	.text
/* struct pv_frame *pv_user_run(const struct keel_user *u, struct pv_door *door, uint64_t cr3, bool sysret) */
	.globl	pv_user_run
pv_user_run:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	pushfq
	movq	%rsp, PD_STACK(%rsi)
	pushq	$2			/* iretq faults with the NT that the guest's kernel may have set */
	popfq
	movq	U(RAX), %rax
	movq	%rax, PD_RAX(%rsi)
	movq	U(RIP), %rax
	movq	%rax, PD_RIP(%rsi)
	movq	U(RSP), %rax
	movq	%rax, PD_RSP(%rsi)
	movq	U(RFLAGS_AT), %rax
	andl	$KEEL_USER_RFLAGS, %eax
	orl	$PV_USER_FLAGS, %eax
	movq	%rax, PD_RFLAGS(%rsi)
	movq	$PV_USER_CS, PD_CS(%rsi)
	movq	$PV_USER_SS, PD_SS(%rsi)
	leaq	PD_RAX(%rsi), %rsp
	movq	%rdx, %rax
	testl	%ecx, %ecx		/* nothing below changes flags */
	movq	U(RBX), %rbx
	movq	U(RCX), %rcx
	movq	U(RDX), %rdx
	movq	U(RSI), %rsi
	movq	U(RBP), %rbp
	movq	U(R8), %r8
	movq	U(R9), %r9
	movq	U(R10), %r10
	movq	U(R11), %r11
	movq	U(R12), %r12
	movq	U(R13), %r13
	movq	U(R14), %r14
	movq	U(R15), %r15
	movq	U(RDI), %rdi
	movq	%rax, %cr3
	popq	%rax
	jnz	1f
	iretq
1:	movq	PD_RSP - PD_RIP(%rsp), %rsp
	sysretq

/* From pv_save: CS in the frame at rsp is the user's. pv_user_run() returns the frame. */
	.globl	pv_user_left
pv_user_left:
	movq	%rsp, %rdi
	movq	%rsp, %rsi
	andq	$-MON_BLOCK_SIZE, %rsi
	addq	$PV_DOOR_OFF, %rsi
	movq	PD_STACK(%rsi), %rdx
	testq	%rdx, %rdx
	jz	1f
	movq	$0, PD_STACK(%rsi)
	movq	PD_CR3(%rsi), %rax
	movq	%rax, %cr3
	movq	%rdx, %rsp
	movq	%rdi, %rax
	popfq
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret
	/* No user code runs: a `syscall` of the guest's kernel, which is no instruction there (KEEL-NORM-16). */
1:	movq	$PV_CS, PVF_CS(%rdi)
	movq	$PV_SS, PVF_SS(%rdi)
	movq	$KEEL_VEC_UD, PVF_VECTOR(%rdi)
	subq	$SYSCALL_LENGTH, PVF_RIP(%rdi)
	jmp	pv_kernel

	.section .note.GNU-stack, "", @progbits
