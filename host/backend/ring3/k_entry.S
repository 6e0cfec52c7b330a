/* SPDX-License-Identifier: MIT */
/* K's first instruction, and every signal. */
#include <asm/unistd.h>
#include <keel/vcpu.h>
#include "../../monitor/monitor.h"
#include "layout.h"

/* Byte offsets in the kernel's struct ucontext, x86-64. */
#define UC_R8 40
#define UC_R9 48
#define UC_R10 56
#define UC_R11 64
#define UC_R12 72
#define UC_R13 80
#define UC_R14 88
#define UC_R15 96
#define UC_RDI 104
#define UC_RSI 112
#define UC_RBP 120
#define UC_RBX 128
#define UC_RDX 136
#define UC_RAX 144
#define UC_RCX 152
#define UC_RSP 160
#define UC_RIP 168
#define UC_EFLAGS 176
#define UC_FPSTATE 224
#define FP_MAGIC 464	  /* fpx_sw_bytes.magic1 */
#define FP_XFEATURES 472  /* fpx_sw_bytes.xfeatures */
#define FP_MAGIC1 0x46505853

	.text
	.globl	k_start
k_start:
	movq	%rsp, %rdi		/* argc, argv, envp, auxv */
	xorl	%ebp, %ebp
	andq	$-16, %rsp
	call	k_map			/* returns the first vCPU block */
	leaq	MON_STACK_TOP(%rax), %rsp
	movq	%rax, %rdi
	call	k_seal			/* builds vCPU 0's first context */
	jmp	mon_resume

/* long k_clone(uint64_t flags, void *block): a thread on the monitor's stack of that block, in k_thread(block). */
	.globl	k_clone
k_clone:
	movq	%rsi, %r9
	addq	$MON_STACK_TOP, %rsi
	xorl	%edx, %edx
	xorl	%r10d, %r10d
	xorl	%r8d, %r8d
	movl	$__NR_clone, %eax
	syscall
	testq	%rax, %rax
	jz	1f
	ret
1:	xorl	%ebp, %ebp
	movq	%r9, %rdi
	call	k_thread

/*
 * void k_begin(bool xsave, bool fsgsbase): the state a vCPU starts with, KEEL-VCPU-11.
 * PKRU stays the kernel's own: no guest changes what it means.
 */
	.globl	k_begin
k_begin:
	testb	%dil, %dil
	jz	1f
	movl	$~(1 << 9), %eax
	movl	$-1, %edx
	xrstor64 k_initial_fp(%rip)
	jmp	2f
1:	fxrstor64 k_initial_fp(%rip)
2:	xorl	%eax, %eax
	movl	%eax, %fs
	testb	%sil, %sil
	jz	mon_resume
	wrfsbase %rax
	jmp	mon_resume

/*
 * void k_signal_entry(int sig, siginfo_t *si, struct ucontext *uc)
 *
 * On the vCPU's own signal stack, whose place gives the block: GS is the
 * guest's to break. Returns without rt_sigreturn, which the filter denies.
 */
	.globl	k_signal_entry
k_signal_entry:
	pushfq				/* the kernel cleared DF, RF and TF, not AC and NT */
	andl	$~0x44000, (%rsp)
	popfq
	movq	%rdx, %rbx
	movq	%rsp, %rcx
	andq	$-MON_BLOCK_SIZE, %rcx
	andq	$-16, %rsp
	call	k_signal
	movl	%eax, %r8d
	movq	UC_FPSTATE(%rbx), %rdi
	testq	%rdi, %rdi
	jz	2f
	cmpl	$FP_MAGIC1, FP_MAGIC(%rdi)
	jne	1f
	movl	FP_XFEATURES(%rdi), %eax
	movl	FP_XFEATURES + 4(%rdi), %edx
	xrstor64 (%rdi)
	jmp	2f
1:	fxrstor64 (%rdi)
2:	testl	%r8d, %r8d
	jnz	mon_resume		/* the guest was interrupted: run v->cur */

	/* Monitor code was interrupted: go on where it was, or where k_signal moved it. */
	pushq	$0x2b
	pushq	UC_RSP(%rbx)
	pushq	UC_EFLAGS(%rbx)
	pushq	$0x33
	pushq	UC_RIP(%rbx)
	movq	UC_R8(%rbx), %r8
	movq	UC_R9(%rbx), %r9
	movq	UC_R10(%rbx), %r10
	movq	UC_R11(%rbx), %r11
	movq	UC_R12(%rbx), %r12
	movq	UC_R13(%rbx), %r13
	movq	UC_R14(%rbx), %r14
	movq	UC_R15(%rbx), %r15
	movq	UC_RDI(%rbx), %rdi
	movq	UC_RSI(%rbx), %rsi
	movq	UC_RBP(%rbx), %rbp
	movq	UC_RDX(%rbx), %rdx
	movq	UC_RAX(%rbx), %rax
	movq	UC_RCX(%rbx), %rcx
	movq	UC_RBX(%rbx), %rbx
	iretq

	.section .rodata
	.balign	64
k_initial_fp:				/* a standard XSAVE area that names no component */
	.short	0x37f			/* and for fxrstor the x87 control word, */
	.fill	22, 1, 0
	.long	0x1f80			/* MXCSR, */
	.fill	512 + 64 - 28, 1, 0	/* and the rest */

	.section .note.GNU-stack, "", @progbits
