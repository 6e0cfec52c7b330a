/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * keel_gate - the one place that enters the gate.
 *
 *	C:    rdi rsi rdx rcx r8 = arguments, r9 = call number
 *	ABI:  rdi rsi rdx r10 r8 = arguments, rax = call number
 *
 * The gate is entered by a jump with C's return address on top, so it returns
 * straight to the caller with struct keel_ret in rax:rdx. The frame is the
 * caller's all along: an unwinder needs no rule but the initial one, here and
 * behind the gate.
 */
#include <keel/vcpu.h>

	.text
	.globl	keel_gate
	.type	keel_gate, @function
	.p2align 4
keel_gate:
	.cfi_startproc
	endbr64
	movq	%rcx, %r10
	movq	%r9, %rax
	jmpq	*%gs:KEEL_VCPU_GATE
	.cfi_endproc
	.size	keel_gate, . - keel_gate

	.section .note.GNU-stack, "", @progbits
