/* SPDX-License-Identifier: MIT */
/*
 * Stacks: switching, starting, calling on another one, and marks. Nothing here
 * is privileged, so both flavours share it.
 */
	.text

	/* void hal_switch(uint64_t *save, uint64_t to) */
	.globl	hal_switch
	.type	hal_switch, @function
hal_switch:
	endbr64
	push	%rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, (%rdi)
	mov	%rsi, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	ret
	.size	hal_switch, . - hal_switch

	/* uint64_t hal_stack_prepare(void *top, void (*fn)(void *), void *arg) */
	.globl	hal_stack_prepare
	.type	hal_stack_prepare, @function
hal_stack_prepare:
	endbr64
	lea	-64(%rdi), %rax
	movq	$0, 0(%rax)			/* r15 */
	movq	$0, 8(%rax)			/* r14 */
	mov	%rdx, 16(%rax)			/* r13: argument */
	mov	%rsi, 24(%rax)			/* r12: function */
	movq	$0, 32(%rax)			/* rbx */
	movq	$0, 40(%rax)			/* rbp: ends backtraces */
	movq	$stack_start, 48(%rax)
	movq	$0, 56(%rax)			/* no caller */
	ret
	.size	hal_stack_prepare, . - hal_stack_prepare

	.type	stack_start, @function
stack_start:
	/* rsp = top - 8 here, as after a call. */
	sub	$8, %rsp
	call	hal_irq_enable
	mov	%r13, %rdi
	call	*%r12
	ud2					/* a thread function came back */
	.size	stack_start, . - stack_start

	/* void hal_call_on(void *top, void (*fn)(void *), void *arg) */
	.globl	hal_call_on
	.type	hal_call_on, @function
hal_call_on:
	endbr64
	push	%rbp
	mov	%rsp, %rbp
	mov	%rdi, %rsp
	mov	%rdx, %rdi
	call	*%rsi
	mov	%rbp, %rsp
	pop	%rbp
	ret
	.size	hal_call_on, . - hal_call_on

	/* uint64_t hal_mark(struct hal_mark *mark) */
	.globl	hal_mark
	.type	hal_mark, @function
hal_mark:
	endbr64
	mov	%rbx, 0(%rdi)
	mov	%rbp, 8(%rdi)
	mov	%r12, 16(%rdi)
	mov	%r13, 24(%rdi)
	mov	%r14, 32(%rdi)
	mov	%r15, 40(%rdi)
	lea	8(%rsp), %rax
	mov	%rax, 48(%rdi)			/* as after the return */
	mov	(%rsp), %rax
	mov	%rax, 56(%rdi)
	push	%rdi
	call	hal_core_lazy_depth
	pop	%rdi
	mov	%eax, 64(%rdi)
	movl	$0, 68(%rdi)
	xor	%eax, %eax
	ret
	.size	hal_mark, . - hal_mark

	.section .note.GNU-stack, "", @progbits
