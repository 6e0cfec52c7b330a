/* SPDX-License-Identifier: MIT */
/*
 * User code that both sides run, the guest in address spaces, the raw program in
 * processes: does what its registers say, then makes a system call.
 *
 * bench_user, on return from its call:
 *	rdi rsi rdx	address, number and distance of pages to write to
 *	r8		rounds of work_cpu, 0 for none; rsp is a stack then
 * bench_family: forks, its child ends, and it waits for that; all of them write to the stack.
 */
#include "engine.h"

	.text
	.globl bench_user_begin, bench_user_end, bench_user, bench_family
bench_user_begin:
	.balign 64
	.type bench_user, @function
bench_user:
	mov $BENCH_CALL, %eax
	syscall
	test %rsi, %rsi
	jz 2f
1:	mov %rsi, (%rdi)
	add %rdx, %rdi
	dec %rsi
	jnz 1b
2:	test %r8, %r8
	jz bench_user
	mov %r8, %rdi
	call work_cpu
	xor %esi, %esi
	xor %r8d, %r8d
	jmp bench_user
	.size bench_user, . - bench_user

	.type bench_family, @function
bench_family:
	mov $BENCH_FORK, %eax
	syscall
	push %rax
	test %rax, %rax
	jz 1f
	mov $BENCH_WAIT, %eax
	syscall
	pop %rax
	jmp bench_family
1:	mov $BENCH_EXIT, %eax
	syscall
	ud2
	.size bench_family, . - bench_family
bench_user_end:

	.section .note.GNU-stack, "", @progbits
