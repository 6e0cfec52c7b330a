/* SPDX-License-Identifier: MIT */
/* The archive of programs as a part of the image. */
	.section .rodata
	.balign	16
	.globl	process_builtin
process_builtin:
	.incbin	PROGRAMS
	.globl	process_builtin_end
process_builtin_end:

	.section .note.GNU-stack, "", @progbits
