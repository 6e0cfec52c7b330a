/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Start-up object: from the initial vCPU state (rdi = start info, everything
 * else zero, no stack) to C. rbp stays 0 and the return address is undefined to
 * unwinders, which ends every backtrace here.
 */
	.text
	.globl	_start
	.type	_start, @function
	.p2align 4
_start:
	.cfi_startproc
	.cfi_undefined rip
	endbr64
	movq	$__keel_stack_top, %rsp
	xorl	%ebp, %ebp
	call	keel_guest_start
	/* keel_guest_start() does not return. */
	ud2
	.cfi_endproc
	.size	_start, . - _start

	.section .note.GNU-stack, "", @progbits
