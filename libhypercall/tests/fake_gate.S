/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * The machine side of the fake host in guest_test.c: a gate, delivery of a frame
 * to an entry stub, and resumption of one.
 */
#include <keel/calls.h>
#include <keel/vcpu.h>

	.text
/*
 * The gate. It takes the liberties the ABI gives it: 64 bytes of the caller's stack,
 * rcx, r11 and the flags; FP state it keeps. fake_call(&{id, arg[5]}) runs on a stack of its own.
 */
	.globl	fake_gate
	.type	fake_gate, @function
fake_gate:
	.cfi_startproc
	endbr64
	.irp i, 1, 2, 3, 4, 5, 6, 7, 8
	movq	$-1, -8 * \i(%rsp)
	.endr
	movq	%rsp, %r11
	leaq	fake_gate_stack + 65536(%rip), %rsp
	pushq	%r11
	fxsave64 fake_fp(%rip)
	.irp reg, rdi, rsi, r8, r9, r10
	pushq	%\reg
	.endr
	pushq	%r8
	pushq	%r10
	pushq	%rdx
	pushq	%rsi
	pushq	%rdi
	pushq	%rax
	movq	%rsp, %rdi
	call	fake_call
	addq	$48, %rsp
	.irp reg, r10, r9, r8, rsi, rdi
	popq	%\reg
	.endr
	popq	%rsp
	fxrstor64 fake_fp(%rip)
	movq	$-1, %rcx
	movq	$-1, %r11
	cmpq	$0, %rcx
	ret
	.cfi_endproc

/*
 * void fake_enter(entry, slot, rsp) - deliver: jump to an entry stub as the host does.
 * Comes back when a frame with rip = fake_resumed is resumed; fake_regs holds
 * the registers found then, in the order of struct keel_frame from rsp on.
 */
	.globl	fake_enter
	.type	fake_enter, @function
fake_enter:
	.cfi_startproc
	endbr64
	.irp reg, rbx, rbp, r12, r13, r14, r15
	pushq	%\reg
	.endr
	pushq	fake_saved_rsp(%rip)
	movq	%rsp, fake_saved_rsp(%rip)
	.irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movups	fake_xmm + 16 * \i(%rip), %xmm\i
	.endr
	movq	%rdx, %rsp
	movq	%rdi, %rax
	movq	%rsi, %rdi
	/* Everything else is unspecified. */
	.irp reg, rbx, rcx, rdx, rsi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
	movq	$-1, %\reg
	.endr
	jmpq	*%rax
	.cfi_endproc

	.globl	fake_resumed
fake_resumed:
	.cfi_startproc
	.cfi_undefined rip
	/* One byte before it belongs here too: unwinders look there for callers. */
	nop
	movq	%rsp, fake_regs + 0(%rip)
	movq	%rax, fake_regs + 16(%rip)
	movq	%rbx, fake_regs + 24(%rip)
	movq	%rcx, fake_regs + 32(%rip)
	movq	%rdx, fake_regs + 40(%rip)
	movq	%rsi, fake_regs + 48(%rip)
	movq	%rdi, fake_regs + 56(%rip)
	movq	%rbp, fake_regs + 64(%rip)
	movq	%r8, fake_regs + 72(%rip)
	movq	%r9, fake_regs + 80(%rip)
	movq	%r10, fake_regs + 88(%rip)
	movq	%r11, fake_regs + 96(%rip)
	movq	%r12, fake_regs + 104(%rip)
	movq	%r13, fake_regs + 112(%rip)
	movq	%r14, fake_regs + 120(%rip)
	movq	%r15, fake_regs + 128(%rip)
	movq	fake_saved_rsp(%rip), %rsp
	pushfq
	popq	fake_regs + 8(%rip)
	cld
	.irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movups	%xmm\i, fake_xmm + 16 * \i(%rip)
	.endr
	popq	fake_saved_rsp(%rip)
	.irp reg, r15, r14, r13, r12, rbp, rbx
	popq	%\reg
	.endr
	ret
	.cfi_endproc

/* void fake_resume(const struct keel_frame *) - continue what a frame says */
	.globl	fake_resume
	.type	fake_resume, @function
fake_resume:
	.cfi_startproc
	endbr64
	fxrstor64 fake_fp(%rip)
	movl	%ss, %eax
	pushq	%rax
	pushq	KEEL_FRAME_RSP(%rdi)
	pushq	KEEL_FRAME_RFLAGS(%rdi)
	movl	%cs, %eax
	pushq	%rax
	pushq	KEEL_FRAME_RIP(%rdi)
	movq	KEEL_FRAME_RAX(%rdi), %rax
	movq	KEEL_FRAME_RBX(%rdi), %rbx
	movq	KEEL_FRAME_RCX(%rdi), %rcx
	movq	KEEL_FRAME_RDX(%rdi), %rdx
	movq	KEEL_FRAME_RSI(%rdi), %rsi
	movq	KEEL_FRAME_RBP(%rdi), %rbp
	movq	KEEL_FRAME_R8(%rdi), %r8
	movq	KEEL_FRAME_R9(%rdi), %r9
	movq	KEEL_FRAME_R10(%rdi), %r10
	movq	KEEL_FRAME_R11(%rdi), %r11
	movq	KEEL_FRAME_R12(%rdi), %r12
	movq	KEEL_FRAME_R13(%rdi), %r13
	movq	KEEL_FRAME_R14(%rdi), %r14
	movq	KEEL_FRAME_R15(%rdi), %r15
	movq	KEEL_FRAME_RDI(%rdi), %rdi
	iretq
	.cfi_endproc

	.bss
	.p2align 4
	.globl	fake_regs, fake_xmm
fake_regs:
	.skip	136
	.p2align 4
fake_xmm:
	.skip	256
fake_fp:
	.skip	512
fake_saved_rsp:
	.skip	8
	.p2align 4
fake_gate_stack:
	.skip	65536

	.section .note.GNU-stack, "", @progbits
