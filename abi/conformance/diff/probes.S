/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Accesses with every register known, so that a trap frame can be compared
 * whole, and a way through trap_return that comes back.
 */
#include <keel/calls.h>
#include <keel/vcpu.h>

	.macro SAVE
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	.endm
	.macro RESTORE
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	.endm

	.macro STEP
	pushfq
	orq $0x100, (%rsp)
	popfq
	nop
	nop
	.endm

/* struct kt_ret name(va, value): status 1 when it trapped, else 0 and rax as the value. */
	.macro PROBE name, insn:vararg
	.globl \name
	.type \name, @function
\name:
	SAVE
	lea 1f(%rip), %rax
	mov %rax, kt_fixup(%rip)
	mov %rsp, kt_fixup_rsp(%rip)
	mov $0x0b0b0b0b, %ebx
	mov $0x0c0c0c0c, %ecx
	movabs $0x8000000000000000, %rbp
	mov $0x08080808, %r8d
	movabs $0x0909090909090909, %r9
	mov $0x10101010, %r10d
	movabs $0x1111111111111111, %r11
	mov $0x12121212, %r12d
	mov $0x13131313, %r13d
	mov %rbp, %r14
	xor %r15d, %r15d
	xor %edx, %edx
	xor %eax, %eax
	\insn
	movq $0, kt_fixup(%rip)
	mov %rax, %rdx
	xor %eax, %eax
	jmp 2f
1:	mov $1, %eax
	xor %edx, %edx
2:	RESTORE
	ret
	.size \name, . - \name
	.endm
	PROBE diff_read, mov (%rdi), %rax
	PROBE diff_write, mov %rsi, (%rdi)
	PROBE diff_fetch, call *%rdi
	PROBE diff_ud, ud2
	PROBE diff_bp, int3
	PROBE diff_de, div %r15d
	PROBE diff_gp, mov (%r14), %rax
	PROBE diff_ss, mov (%rbp), %rax
	PROBE diff_step, STEP

/*
 * s64 diff_resume(class): trap_return of a class whose slot is filled, with rip
 * diff_landing, which stores every register and comes back with 0; else the status
 * it was refused with.
 */
	.globl diff_resume
	.type diff_resume, @function
diff_resume:
	SAVE
	mov %rsp, resume_rsp(%rip)
	xor %esi, %esi
	xor %edx, %edx
	xor %r10d, %r10d
	xor %r8d, %r8d
	mov $KEEL_CALL_TRAP_RETURN, %eax
	call *%gs:KEEL_VCPU_GATE
	jmp 1f
	.globl diff_landing
diff_landing:
	mov %rax, diff_landed+0x00(%rip)
	mov %rbx, diff_landed+0x08(%rip)
	mov %rcx, diff_landed+0x10(%rip)
	mov %rdx, diff_landed+0x18(%rip)
	mov %rsi, diff_landed+0x20(%rip)
	mov %rdi, diff_landed+0x28(%rip)
	mov %rbp, diff_landed+0x30(%rip)
	mov %r8, diff_landed+0x38(%rip)
	mov %r9, diff_landed+0x40(%rip)
	mov %r10, diff_landed+0x48(%rip)
	mov %r11, diff_landed+0x50(%rip)
	mov %r12, diff_landed+0x58(%rip)
	mov %r13, diff_landed+0x60(%rip)
	mov %r14, diff_landed+0x68(%rip)
	mov %r15, diff_landed+0x70(%rip)
	mov %rsp, diff_landed+0x80(%rip)
	mov resume_rsp(%rip), %rsp
	pushfq
	pop diff_landed+0x78(%rip)
	/* AC, DF and the like are not for compiled code. */
	push $0x202
	popfq
	xor %eax, %eax
1:	RESTORE
	ret
	.size diff_resume, . - diff_resume

	.bss
	.balign 8
	.globl diff_landed
diff_landed:
	.skip 0x88
resume_rsp:
	.skip 8
	.section .note.GNU-stack, "", @progbits
