/* SPDX-License-Identifier: MIT */
/* rdi = argument, rsp = end of the stack. */
	.text
	.globl	_start
	.type	_start, @function
_start:
	xor	%ebp, %ebp
	call	main
	mov	%eax, %edi
	xor	%eax, %eax			/* CALL_EXIT */
	syscall
	ud2
	.size	_start, . - _start
	.section .note.GNU-stack, "", @progbits
