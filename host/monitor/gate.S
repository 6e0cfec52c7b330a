/* SPDX-License-Identifier: MIT */
/*
 * The gate and the ways back to the guest.
 *
 * Contract of the gate (KEEL-CALL-*): entered by `call`, id in rax, arguments
 * in rdi rsi rdx r10 r8; rax = status, rdx = value; rcx, r11 and arithmetic
 * flags are lost, everything else is kept. It writes nothing to the caller's
 * stack.
 *
 * Restartable ranges: an asynchronous upcall that interrupts monitor text sets
 * attn and, when it hit [gate_check, gate_ret_end) or [mon_resume_load,
 * mon_resume_end), moves RIP back to gate_check or mon_resume. Both are safe
 * to run again from any instruction of their range: the first has no side
 * effect, the second reloads everything from `cur`. Flags are cleared on the
 * way to mon_resume, for at the end of its range they are the guest's.
 */
#include <keel/vcpu.h>
#include "monitor.h"

#define MV(off) %gs:MON_PRIVATE + (off)
#define CUR(field) MV(MV_CUR + KEEL_FRAME_##field)
#define TRACE(off) MV(MV_TRACE + (off))(%r11)

	.section .text.gate, "ax", @progbits
	.globl	gate, gate_check, gate_ret, gate_ret_end, gate_load_rip
	.balign	64
gate:
	.cfi_startproc
	endbr64
	/*
	 * The arguments go into this call's trace entry, which is where the handler reads
	 * them and where they are restored from: each is stored once.
	 */
	movl	MV(MV_CALLS), %r11d
	andl	$(MON_TRACE - 1) * MON_TRACE_SIZE, %r11d
	movq	%rsp, MV(MV_GUEST_RSP)
	movq	%rbp, MV(MV_GUEST_RBP)
	movq	MV(MV_STACK), %rsp
	.cfi_undefined %rip		/* nothing to unwind to from the monitor's stack */
	movq	%rax, TRACE(MT_ID)	/* the word above it, `returned`, becomes 0 */
	movq	%rdi, TRACE(MT_ARG)
	movq	%rsi, TRACE(MT_ARG + 8)
	movq	%rdx, TRACE(MT_ARG + 16)
	movq	%r10, TRACE(MT_ARG + 24)
	movq	%r8, TRACE(MT_ARG + 32)
	movq	%r9, MV(MV_R9)
	movq	%rax, %rdi
	movq	%gs:0, %rdx
	leaq	MON_PRIVATE + MV_TRACE + MT_ARG(%rdx, %r11), %rsi
	addq	$MON_PRIVATE, %rdx
	call	mon_dispatch
	movl	MV(MV_CALLS), %r11d
	andl	$(MON_TRACE - 1) * MON_TRACE_SIZE, %r11d
	movq	%rax, TRACE(MT_STATUS)
	movq	%rdx, TRACE(MT_VALUE)
	testq	%rax, %rax
	js	gate_error
gate_restore:
	movl	$1, TRACE(MT_RETURNED)
	addl	$MON_TRACE_SIZE, MV(MV_CALLS)
	movq	TRACE(MT_ARG), %rdi
	movq	TRACE(MT_ARG + 8), %rsi
	movq	TRACE(MT_ARG + 24), %r10
	movq	TRACE(MT_ARG + 32), %r8
	movq	MV(MV_R9), %r9
	movq	MV(MV_GUEST_RSP), %rsp
	.cfi_restore %rip
gate_check:
	cmpl	$0, MV(MV_ATTN)
	jne	gate_slow
	cmpq	$0, %gs:KEEL_VCPU_PENDING
	jne	1f
gate_ret:
	ret
	/* Pending: deliverable now? (KEEL-CALL-15) */
1:	cmpb	$0, %gs:KEEL_VCPU_IF
	je	gate_ret
	cmpl	$KEEL_SLOT_FREE, %gs:KEEL_VCPU_SLOT(KEEL_CLASS_EVENT) + KEEL_FRAME_STATE
	jne	gate_ret
	cmpq	$0, MV(MV_EVENT_ENTRY)
	je	gate_ret
	jmp	gate_slow
gate_ret_end:
	.cfi_endproc

/* Count it, and go on as if nothing had been called. */
gate_error:
	movl	TRACE(MT_ID), %edi
	movq	%gs:0, %rsi
	addq	$MON_PRIVATE, %rsi
	call	mon_count_error
	movl	MV(MV_CALLS), %r11d
	andl	$(MON_TRACE - 1) * MON_TRACE_SIZE, %r11d
	movq	TRACE(MT_STATUS), %rax
	movq	TRACE(MT_VALUE), %rdx
	jmp	gate_restore

/* Something wants a look: turn the return from the call into a context in `cur`. */
gate_slow:
	testl	$ATTN_RESUME, MV(MV_ATTN)
	jnz	mon_resume
	movq	%rax, CUR(RAX)
	movq	%rbx, CUR(RBX)
	movq	%rcx, CUR(RCX)
	movq	%rdx, CUR(RDX)
	movq	%rsi, CUR(RSI)
	movq	%rdi, CUR(RDI)
	movq	%rbp, CUR(RBP)
	movq	%r8, CUR(R8)
	movq	%r9, CUR(R9)
	movq	%r10, CUR(R10)
	movq	%r11, CUR(R11)
	movq	%r12, CUR(R12)
	movq	%r13, CUR(R13)
	movq	%r14, CUR(R14)
	movq	%r15, CUR(R15)
gate_load_rip:
	movq	(%rsp), %rcx		/* listed: may fault when the guest's stack is gone */
	movq	%rcx, CUR(RIP)
	leaq	8(%rsp), %rcx
	movq	%rcx, CUR(RSP)
	movq	MV(MV_STACK), %rsp
	pushfq
	popq	%rcx
	movq	%rcx, CUR(RFLAGS)
	movl	$KEEL_MODE_KERNEL, CUR(MODE)

/*
 * Run what `cur` says, after mon_exit() had its look. Also entered by the
 * backend after a signal or interrupt, from any stack.
 */
	.globl	mon_resume, mon_resume_load, mon_resume_end
mon_resume:
	movq	MV(MV_STACK), %rsp
	movq	%gs:0, %rdi
	addq	$MON_PRIVATE, %rdi
	call	mon_exit
mon_resume_load:
	cmpl	$0, MV(MV_ATTN)
	jne	mon_resume
	movq	CUR(RAX), %rax
	movq	CUR(RBX), %rbx
	movq	CUR(RCX), %rcx
	movq	CUR(RDX), %rdx
	movq	CUR(RSI), %rsi
	movq	CUR(RDI), %rdi
	movq	CUR(RBP), %rbp
	movq	CUR(R8), %r8
	movq	CUR(R9), %r9
	movq	CUR(R10), %r10
	movq	CUR(R11), %r11
	movq	CUR(R12), %r12
	movq	CUR(R13), %r13
	movq	CUR(R14), %r14
	movq	CUR(R15), %r15
	testl	$0x100, CUR(RFLAGS)	/* TF: only iret sets it without trapping here */
	jnz	1f
	movq	MV(MV_STACK), %rsp
	pushq	CUR(RFLAGS)
	popfq
	movq	CUR(RSP), %rsp
	jmpq	*CUR(RIP)
1:	movq	MV(MV_STACK), %rsp
	pushq	$2			/* iretq faults when the caller left NT set */
	popfq
	pushq	MV(MV_IRET_SS)
	pushq	CUR(RSP)
	pushq	CUR(RFLAGS)
	pushq	MV(MV_IRET_CS)
	pushq	CUR(RIP)
	iretq
mon_resume_end:

	.section .note.GNU-stack, "", @progbits
