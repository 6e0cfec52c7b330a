/* SPDX-License-Identifier: MIT */
/*
 * All code of U and M that is there once they are sealed, on pages of its own: user
 * code can read it, jump into it and find nothing it could not do itself.
 *
 * U uses no stack: its handlers run on the slot, which user code can write to, and
 * keep what they need in registers. rbx is the slot; a handler has it from its stack
 * pointer, for the kernel puts every frame on the thread's own signal stack.
 *
 * SIG_KICK that finds user code is a hand-over like any other signal. It goes back
 * to where it was in this text, but in [u_resume, u_resume_end): there it starts
 * again at u_resume, which looks at `kick`. SIG_RESET forgets all, wherever it lands.
 */
#include <asm/unistd.h>
#include "k_user.h"
#include "k_uc.h"

#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
#define ARCH_SET_GS 0x1001
#define ARCH_SET_FS 0x1002

	.section .utext, "ax", @progbits
	.globl	u_signal, u_main_begin, u_clone, m_clone

/* A system call of U's: its number and first three arguments are set. */
	.macro	u_call
	xorl	%r10d, %r10d
	movl	$U_MAGIC, %r8d
	movl	$U_MAGIC, %r9d
	syscall
	.endm

/* void u_signal(int sig, siginfo_t *si, struct ucontext *uc) */
	.balign	64
u_signal:
	pushfq				/* the kernel cleared DF, RF and TF, not AC and NT */
	andl	$~0x44000, (%rsp)
	popfq
	movq	%rsp, %rbx
	andq	$-U_SLOT_SIZE, %rbx
u_signal_slot:
	cmpl	$U_SIG_RESET, %edi
	je	u_reset
	cmpl	$U_SIG_KICK, %edi
	je	u_kicked
u_stopped:
	movl	%edi, US_SIG(%rbx)
	movq	SI_CALL_ADDR(%rsi), %rax
	movq	%rax, US_SIGSYS(%rbx)
	movq	SI_CALL_ADDR + 8(%rsi), %rax
	movq	%rax, US_SIGSYS + 8(%rbx)
	movl	$US_REGS_SIZE / 8, %ecx
1:	movq	UC_R8 - 8(%rdx, %rcx, 8), %rax
	cmpq	%rax, US_REGS - 8(%rbx, %rcx, 8)
	je	2f			/* a line that nobody writes to need not move */
	movq	%rax, US_REGS - 8(%rbx, %rcx, 8)
2:	subl	$1, %ecx
	jnz	1b
	movq	UC_FPSTATE(%rdx), %rdx
	movl	$US_X87_SIZE / 8, %ecx
3:	movq	-8(%rdx, %rcx, 8), %rax
	cmpq	%rax, US_X87 - 8(%rbx, %rcx, 8)
	je	4f
	movq	%rax, US_X87 - 8(%rbx, %rcx, 8)
4:	subl	$1, %ecx
	jnz	3b
	movl	%fs, %eax		/* loading one changed its base, unseen */
	movl	%gs, %ecx
	shll	$16, %ecx
	orl	%ecx, %eax
	movl	%eax, US_SELECTORS(%rbx)
	testl	$US_FSGSBASE, US_FLAGS(%rbx)
	jz	u_over
	rdfsbase %rax
	movq	%rax, US_U_FS(%rbx)
	rdgsbase %rax
	movq	%rax, US_U_GS(%rbx)
u_over:
	xorl	%eax, %eax
	xchgl	%eax, US_TURN(%rbx)
	cmpl	$0, US_K_ASLEEP(%rbx)
	je	u_wait
	movl	$__NR_futex, %eax
	leaq	US_TURN(%rbx), %rdi
	movl	$FUTEX_WAKE, %esi
	movl	$1, %edx
	u_call
u_wait:
	movl	US_SPIN(%rbx), %ecx
1:	cmpl	$0, US_TURN(%rbx)
	jne	u_resume
	subl	$1, %ecx
	jb	u_sleep
	pause
	jmp	1b
u_sleep:
	movl	$1, %eax
	xchgl	%eax, US_U_ASLEEP(%rbx)
2:	cmpl	$0, US_TURN(%rbx)
	jne	3f
	movl	$__NR_futex, %eax
	leaq	US_TURN(%rbx), %rdi
	xorl	%esi, %esi		/* FUTEX_WAIT */
	xorl	%edx, %edx
	u_call
	jmp	2b
3:	movl	$0, US_U_ASLEEP(%rbx)

u_resume:
	leaq	U_SLOT_SIZE(%rbx), %rsp	/* no frame is needed any more: they do not pile up */
	cmpl	$0, US_KICK(%rbx)
	jne	u_not
	movl	US_FLAGS(%rbx), %ecx
	testl	$US_SET_FS | US_SET_GS | US_FSGSBASE, %ecx
	jnz	u_bases
u_load:
	rdtsc
	movl	%eax, US_STARTED(%rbx)
	movl	%ds, %eax		/* no state of a context passes to the next one */
	movl	%es, %ecx
	orl	%ecx, %eax
	jz	1f			/* to load them takes longer than all else here */
	xorl	%eax, %eax
	movl	%eax, %ds
	movl	%eax, %es
1:
	movl	US_RFBM(%rbx), %eax
	movl	US_RFBM + 4(%rbx), %edx
	movq	US_FP(%rbx), %rcx
	xrstor64 (%rcx)
	leaq	US_IRET(%rbx), %rsp
	movq	US_R8(%rbx), %r8
	movq	US_R9(%rbx), %r9
	movq	US_R10(%rbx), %r10
	movq	US_R11(%rbx), %r11
	movq	US_R12(%rbx), %r12
	movq	US_R13(%rbx), %r13
	movq	US_R14(%rbx), %r14
	movq	US_R15(%rbx), %r15
	movq	US_RDI(%rbx), %rdi
	movq	US_RSI(%rbx), %rsi
	movq	US_RBP(%rbx), %rbp
	movq	US_RDX(%rbx), %rdx
	movq	US_RAX(%rbx), %rax
	movq	US_RCX(%rbx), %rcx
	movq	US_RBX(%rbx), %rbx
	iretq

u_bases:
	testl	$US_FSGSBASE, %ecx
	jz	1f
	movq	US_FS(%rbx), %rax
	wrfsbase %rax
	movq	US_GS(%rbx), %rax
	wrgsbase %rax
	jmp	u_load
1:	testl	$US_SET_FS, %ecx
	jz	2f
	movl	$__NR_arch_prctl, %eax
	movl	$ARCH_SET_FS, %edi
	movq	US_FS(%rbx), %rsi
	xorl	%edx, %edx
	u_call
2:	testl	$US_SET_GS, US_FLAGS(%rbx)
	jz	u_load
	movl	$__NR_arch_prctl, %eax
	movl	$ARCH_SET_GS, %edi
	movq	US_GS(%rbx), %rsi
	xorl	%edx, %edx
	u_call
	jmp	u_load
u_resume_end:

/* User code did not start: its registers are as K gave them. */
u_not:
	movl	$0, US_SIG(%rbx)
	jmp	u_over

u_kicked:
	movq	UC_RIP(%rdx), %rax
	leaq	u_signal(%rip), %rcx
	cmpq	%rcx, %rax
	jb	u_stopped
	leaq	u_signal_slot(%rip), %rcx
	cmpq	%rcx, %rax
	jb	1f
	leaq	u_own_end(%rip), %rcx
	cmpq	%rcx, %rax
	jae	u_stopped
	leaq	u_resume(%rip), %rcx
	cmpq	%rcx, %rax
	jb	2f
	leaq	u_resume_end(%rip), %rcx
	cmpq	%rcx, %rax
	jb	u_resume
	/* User code that jumped here has its own rbx, or else comes to the look at `turn` as this code does. */
2:	cmpq	%rbx, UC_RBX(%rdx)
	jne	u_stopped
1:	pushq	$0x2b
	pushq	UC_RSP(%rdx)
	pushq	UC_EFLAGS(%rdx)
	pushq	$0x33
	pushq	UC_RIP(%rdx)
	movq	UC_R8(%rdx), %r8
	movq	UC_R9(%rdx), %r9
	movq	UC_R10(%rdx), %r10
	movq	UC_R11(%rdx), %r11
	movq	UC_R12(%rdx), %r12
	movq	UC_R13(%rdx), %r13
	movq	UC_R14(%rdx), %r14
	movq	UC_R15(%rdx), %r15
	movq	UC_RDI(%rdx), %rdi
	movq	UC_RSI(%rdx), %rsi
	movq	UC_RBP(%rdx), %rbp
	movq	UC_RBX(%rdx), %rbx
	movq	UC_RAX(%rdx), %rax
	movq	UC_RCX(%rdx), %rcx
	movq	UC_RDX(%rdx), %rdx
	iretq

/*
 * K asks the kernel whether somebody sleeps on turn; nobody but this thread can, so
 * it sleeps once however turn is, if only until K has found it.
 */
u_reset:
	leaq	U_SLOT_SIZE(%rbx), %rsp
	movl	$__NR_futex, %eax
	leaq	US_TURN(%rbx), %rdi
	xorl	%esi, %esi
	xorl	%edx, %edx
	u_call
	movl	$0, US_U_ASLEEP(%rbx)	/* it is awake; u_sleep may be where it came from */
	jmp	u_wait

/* Threads being born. The last steps of each are the same. */
u_main_begin:				/* rdi = slot; everything but this text, commands and slots goes */
	movq	%rdi, %rbx
	leaq	mon_text_start(%rip), %rdi
	leaq	u_text_start(%rip), %rsi
	subq	%rdi, %rsi
	movl	$__NR_munmap, %eax
	syscall
	testq	%rax, %rax
	jnz	u_fail
	leaq	u_text_end(%rip), %rdi
	leaq	k_image_end(%rip), %rsi
	subq	%rdi, %rsi
	movl	$__NR_munmap, %eax
	syscall
	testq	%rax, %rax
	jnz	u_fail
	movabsq	$U_ARENA_VA, %rdi
	movl	$U_ARENA_SIZE, %esi
	movl	$__NR_munmap, %eax
	syscall
	testq	%rax, %rax
	jnz	u_fail
u_begin:				/* rbx = slot */
	movl	$__NR_sigaltstack, %eax
	leaq	US_ALT(%rbx), %rdi
	xorl	%esi, %esi
	syscall
	testq	%rax, %rax
	jnz	u_fail
	movl	$__NR_rt_sigprocmask, %eax
	movl	$2, %edi		/* SIG_SETMASK */
	leaq	US_MASK(%rbx), %rsi
	xorl	%edx, %edx
	movl	$8, %r10d
	syscall
	testq	%rax, %rax
	jnz	u_fail
	/*
	 * No wall, but sooner than the filter, and the kernel lets some calls past a filter
	 * (335 and 336). Kernels before 5.11 have neither these nor it.
	 */
	movl	$__NR_prctl, %eax
	movl	$59, %edi		/* PR_SET_SYSCALL_USER_DISPATCH */
	movl	$1, %esi		/* on: whatever is called from outside this text */
	leaq	u_text_start(%rip), %rdx
	leaq	u_text_end(%rip), %r10
	subq	%rdx, %r10
	xorl	%r8d, %r8d
	syscall
	movl	$__NR_seccomp, %eax
	movl	$1, %edi		/* SECCOMP_SET_MODE_FILTER */
	xorl	%esi, %esi
	leaq	US_PROG(%rbx), %rdx
	syscall
	testq	%rax, %rax
	jz	u_wait
u_own_end:
u_fail:	ud2

/* long u_clone(uint64_t flags, struct u_slot *slot, uint32_t *tid): a thread that begins with its slot */
u_clone:
	pushq	%rbx
	movq	%rsi, %rbx
	movl	$__NR_clone, %eax
	leaq	U_SLOT_SIZE(%rsi), %rsi
	xorl	%r10d, %r10d
	xorl	%r8d, %r8d
	xorl	%r9d, %r9d
	syscall
	testq	%rax, %rax
	jz	u_begin
	popq	%rbx
	ret

/* long m_clone(uint64_t flags, struct u_slot *slot, uint32_t *tid): M, whose filter the slot names */
m_clone:
	pushq	%rbx
	movq	%rsi, %rbx
	movl	$__NR_clone, %eax
	leaq	U_SLOT_SIZE(%rsi), %rsi
	xorl	%r10d, %r10d
	xorl	%r8d, %r8d
	xorl	%r9d, %r9d
	syscall
	testq	%rax, %rax
	jz	m_begin
	popq	%rbx
	ret

/*
 * M. It has no stack and no memory it could write to that matters: what it does is in
 * the commands, which it only reads, and in its registers. It blocks all signals, as U
 * does until its last step.
 */
m_begin:
	movl	$__NR_close, %eax
	movl	$K_FD_ARENA, %edi
	syscall
	movl	$__NR_seccomp, %eax
	movl	$1, %edi
	xorl	%esi, %esi
	leaq	US_M_PROG(%rbx), %rdx
	syscall
	testq	%rax, %rax
	jnz	u_fail
	xorl	%esp, %esp
	movabsq	$U_PAIR_VA, %rbx
	xorl	%r15d, %r15d		/* the last command done */
m_wait:
	movl	UM_SPIN(%rbx), %ecx
1:	movl	UM_SEQ(%rbx), %eax
	cmpl	%r15d, %eax
	jne	m_work
	subl	$1, %ecx
	jb	2f
	pause
	jmp	1b
2:	movl	$__NR_futex, %eax
	movq	%rbx, %rdi
	xorl	%esi, %esi		/* FUTEX_WAIT */
	movl	%r15d, %edx
	xorl	%r10d, %r10d
	xorl	%r8d, %r8d
	xorl	%r9d, %r9d
	syscall
	jmp	m_wait
m_work:
	movl	%eax, %r15d
	movl	UM_N(%rbx), %r14d
	leaq	UM_OPS(%rbx), %r13
	leaq	UM_DONE(%rbx), %r12
3:	subl	$1, %r14d
	jb	4f
	movq	(%r13), %rax
	movq	8(%r13), %rdi
	movq	16(%r13), %rsi
	movq	24(%r13), %rdx
	movq	32(%r13), %r10
	movq	40(%r13), %r8
	movq	48(%r13), %r9
	syscall
	addq	$UM_OP_SIZE, %r13
	cmpq	$-4096, %rax
	jbe	3b
	leaq	UM_FAILED(%rbx), %r12
	jmp	3b
4:	movl	$__NR_write, %eax
	movq	UM_FD(%rbx), %rdi
	movq	%r12, %rsi
	movl	$8, %edx
	xorl	%r10d, %r10d
	xorl	%r8d, %r8d
	xorl	%r9d, %r9d
	syscall
	jmp	m_wait

	.text
	.globl	n_fork
/* long n_fork(void *stack): K's own is in memory that both share */
n_fork:
	movq	%rdi, %rsi
	movl	$__NR_clone, %eax
	movl	$17, %edi		/* SIGCHLD */
	xorl	%edx, %edx
	xorl	%r10d, %r10d
	xorl	%r8d, %r8d
	syscall
	testq	%rax, %rax
	jz	1f
	ret
1:	xorl	%ebp, %ebp
	call	n_main
	ud2

	.section .note.GNU-stack, "", @progbits
