/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Entry stubs, one per frame class. The host enters with rdi = the class's save
 * slot, a 16-byte aligned stack whose top lies clear of the interrupted red
 * zone, IF = 0, and FP state live.
 *
 * A stub moves the frame to its stack and hands the slot back first, because
 * the slot is the only one of its class: until then a second trap is a double
 * fault. It then calls keel_entry_handler[class] with the frame, which the handler
 * may change, and resumes what the frame says through trap_return.
 *
 * The stub keeps rbp pointing at {interrupted rbp, interrupted rip}, so walking
 * frame pointers passes through a trap; .cfi rules below do the same for
 * unwinders, with every register.
 *
 *	rbp + 0	 interrupted rbp	rbp + 8  interrupted rip
 *	rbp + 16 struct keel_frame
 *
 * When keel_entry_fp_size is not zero the interrupted FP state is saved around
 * the handler, for images whose handlers may use it (keel_entry_save_fp()).
 */
#include <keel/calls.h>
#include <keel/vcpu.h>

/* DW_CFA_expression for register \reg: its value is stored at rbp + \off, 64 <= \off < 8192. */
.macro cfi_saved reg off
	.cfi_escape 0x10, \reg, 3, 0x76, ((\off) & 0x7f) | 0x80, (\off) >> 7
.endm

/* CFA = *(register + rsp): DW_OP_bregN, DW_OP_deref, DW_OP_nop; rip and rbp likewise. */
.macro slot_rules breg
	.cfi_escape 0x0f, 4, \breg, KEEL_FRAME_RSP, 0x06, 0x96
	.cfi_escape 0x10, 16, 2, \breg, KEEL_FRAME_RIP
	.cfi_escape 0x10, 6, 3, \breg, (KEEL_FRAME_RBP & 0x7f) | 0x80, KEEL_FRAME_RBP >> 7
.endm

/* The same from the copy above rbp, for all registers. */
.macro frame_rules
	.cfi_escape 0x0f, 4, 0x76, 16 + KEEL_FRAME_RSP, 0x06, 0x96
	.cfi_escape 0x10, 16, 2, 0x76, 16 + KEEL_FRAME_RIP
	cfi_saved 0, 16 + KEEL_FRAME_RAX
	cfi_saved 1, 16 + KEEL_FRAME_RDX
	cfi_saved 2, 16 + KEEL_FRAME_RCX
	cfi_saved 3, 16 + KEEL_FRAME_RBX
	cfi_saved 4, 16 + KEEL_FRAME_RSI
	cfi_saved 5, 16 + KEEL_FRAME_RDI
	cfi_saved 6, 16 + KEEL_FRAME_RBP
	cfi_saved 8, 16 + KEEL_FRAME_R8
	cfi_saved 9, 16 + KEEL_FRAME_R9
	cfi_saved 10, 16 + KEEL_FRAME_R10
	cfi_saved 11, 16 + KEEL_FRAME_R11
	cfi_saved 12, 16 + KEEL_FRAME_R12
	cfi_saved 13, 16 + KEEL_FRAME_R13
	cfi_saved 14, 16 + KEEL_FRAME_R14
	cfi_saved 15, 16 + KEEL_FRAME_R15
.endm

.macro entry_stub name class
	.globl	\name
	.type	\name, @function
	.p2align 4
\name:
	.cfi_startproc
	.cfi_signal_frame
	/* Until rbp is set up the slot knows where we come from: rdi, DW_OP_breg5. */
	slot_rules 0x75
	endbr64
	movq	%rdi, %rdx
	slot_rules 0x71
	cld
	subq	$KEEL_FRAME_SIZE, %rsp
	movq	%rdi, %rsi
	movq	%rsp, %rdi
	movl	$(KEEL_FRAME_SIZE / 8), %ecx
	rep movsq
	/* Copied: from here the slot can take the next one. */
	movl	$KEEL_SLOT_FREE, KEEL_FRAME_STATE(%rdx)
	pushq	KEEL_FRAME_RIP(%rsp)
	pushq	KEEL_FRAME_RBP + 8(%rsp)
	movq	%rsp, %rbp
	frame_rules
	movl	$\class, %ebx
	jmp	entry_common
	.cfi_endproc
	.size	\name, . - \name
.endm

	.text
	entry_stub keel_entry_trap, KEEL_CLASS_TRAP
	entry_stub keel_entry_event, KEEL_CLASS_EVENT
	entry_stub keel_entry_dump, KEEL_CLASS_DUMP
	entry_stub keel_entry_double, KEEL_CLASS_DOUBLE

	.type	entry_common, @function
	.p2align 4
entry_common:
	.cfi_startproc
	.cfi_signal_frame
	frame_rules
	leaq	16(%rbp), %rdi
	/* r12 = FP save area or 0. Room for it, 64-byte aligned, with a zeroed XSAVE header. */
	xorl	%r12d, %r12d
	movl	keel_entry_fp_size(%rip), %ecx
	testl	%ecx, %ecx
	jz	1f
	subq	%rcx, %rsp
	andq	$-64, %rsp
	movq	%rsp, %r12
	xorl	%eax, %eax
	movq	%rax, 512(%r12)
	movq	%rax, 520(%r12)
	movq	%rax, 528(%r12)
	movq	%rax, 536(%r12)
	movq	%rax, 544(%r12)
	movq	%rax, 552(%r12)
	movq	%rax, 560(%r12)
	movq	%rax, 568(%r12)
	movl	keel_entry_fp_mask(%rip), %eax
	movl	keel_entry_fp_mask + 4(%rip), %edx
	xsave64	(%r12)
1:
	movq	keel_entry_handler(, %rbx, 8), %rax
	call	*%rax
	testq	%r12, %r12
	jz	2f
	movl	keel_entry_fp_mask(%rip), %eax
	movl	keel_entry_fp_mask + 4(%rip), %edx
	xrstor64 (%r12)
2:
	/*
	 * From RETURN until the call the slot is in use, so a trap would be a
	 * double fault: no event handler may run, whose code could take one.
	 */
	movb	$0, %gs:KEEL_VCPU_IF
	leaq	16(%rbp), %rsi
	movl	$KEEL_SLOT_RETURN, KEEL_FRAME_STATE(%rsi)
	movq	%rbx, %rdi
	shlq	$8, %rdi
	addq	%gs:KEEL_VCPU_SELF, %rdi
	addq	$KEEL_VCPU_SLOT(0), %rdi
	/* The state goes first, claiming the slot, then the rest. */
	movl	$KEEL_SLOT_RETURN, KEEL_FRAME_STATE(%rdi)
	movl	$(KEEL_FRAME_SIZE / 8), %ecx
	rep movsq
	xorl	%esi, %esi
	xorl	%edx, %edx
	xorl	%r10d, %r10d
	xorl	%r8d, %r8d
	movl	%ebx, %edi
	movl	$KEEL_CALL_TRAP_RETURN, %eax
	call	*%gs:KEEL_VCPU_GATE
	/* Only a frame that cannot be resumed comes back. */
	movl	%ebx, %edi
	movq	%rax, %rsi
	leaq	16(%rbp), %rdx
	andq	$-16, %rsp
	call	keel_entry_failed
	ud2
	.cfi_endproc
	.size	entry_common, . - entry_common

	/*
	 * First instruction of a vCPU that keel_smp_start() starts, IF off: rdi = the
	 * end of its stack, where struct boot of smp.c lies. rbp stays 0 and the return
	 * address undefined to unwinders: backtraces end here.
	 */
	.globl	keel_smp_entry
	.type	keel_smp_entry, @function
	.p2align 4
keel_smp_entry:
	.cfi_startproc
	.cfi_undefined rip
	endbr64
	movq	%rdi, %rsp
	xorl	%ebp, %ebp
	movq	16(%rdi), %rax
	movq	%rax, %gs:KEEL_VCPU_GUEST
	movq	0(%rdi), %rax
	movq	8(%rdi), %rdi
	call	*%rax
	/* The function is done: so is the vCPU. */
	movl	%gs:KEEL_VCPU_ID, %edi
	xorl	%esi, %esi
	xorl	%edx, %edx
	xorl	%r10d, %r10d
	xorl	%r8d, %r8d
	movl	$KEEL_CALL_VCPU_STOP, %eax
	call	*%gs:KEEL_VCPU_GATE
	ud2
	.cfi_endproc
	.size	keel_smp_entry, . - keel_smp_entry

	.section .note.GNU-stack, "", @progbits
