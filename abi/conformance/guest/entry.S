/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * A paravirtual image in assembly: the entry that records the initial vCPU
 * state before touching it, entry stubs of the four frame classes, notes. No
 * library is used: the suite tests the ABI, not libhypercall.
 */
#include <keel/calls.h>
#include <keel/note.h>
#include <keel/vcpu.h>

	.text
	.globl _start
	.type _start, @function
_start:
	mov %rax, kt_init+0x00(%rip)
	mov %rbx, kt_init+0x08(%rip)
	mov %rcx, kt_init+0x10(%rip)
	mov %rdx, kt_init+0x18(%rip)
	mov %rsi, kt_init+0x20(%rip)
	mov %rdi, kt_init+0x28(%rip)
	mov %rbp, kt_init+0x30(%rip)
	mov %r8, kt_init+0x38(%rip)
	mov %r9, kt_init+0x40(%rip)
	mov %r10, kt_init+0x48(%rip)
	mov %r11, kt_init+0x50(%rip)
	mov %r12, kt_init+0x58(%rip)
	mov %r13, kt_init+0x60(%rip)
	mov %r14, kt_init+0x68(%rip)
	mov %r15, kt_init+0x70(%rip)
	mov %rsp, kt_init_rsp(%rip)
	lea kt_stack_top(%rip), %rsp
	pushfq
	popq kt_init+0x78(%rip)
	mov %gs:KEEL_VCPU_SELF, %rax
	mov %rax, kt_vcpu(%rip)
	movzbl %gs:KEEL_VCPU_IF, %eax
	mov %eax, kt_init_if(%rip)
	fxsave64 kt_init_fx(%rip)
	xor %ebp, %ebp
	call kt_main
	ud2
	.size _start, . - _start

/*
 * Entry stubs: rdi = the slot's frame. The frame is copied to the stack, the
 * slot freed, C called; then the slot is filled and trap_return called.
 */
	.macro ENTRY name
	.globl \name
	.type \name, @function
\name:
	pushfq
	popq kt_entry_flags(%rip)
	mov %rsp, kt_entry_rsp(%rip)
	sub $KEEL_FRAME_SIZE, %rsp
	mov %rdi, %rbx
	mov %rdi, %rsi
	mov %rsp, %rdi
	mov $(KEEL_FRAME_SIZE / 8), %ecx
	rep movsq
	movl $KEEL_SLOT_FREE, KEEL_FRAME_STATE(%rbx)
	mov %rsp, %rdi
	call kt_dispatch
	jmp kt_resume_frame
	.size \name, . - \name
	.endm
	ENTRY kt_entry_trap
	ENTRY kt_entry_event
	ENTRY kt_entry_dump
	ENTRY kt_entry_double

/* rsp = a frame to resume, of any class; does not come back. */
	.globl kt_resume_frame
kt_resume_frame:
	mov KEEL_FRAME_CLASS(%rsp), %eax
	shl $8, %eax
	mov %gs:KEEL_VCPU_SELF, %rdi
	lea KEEL_VCPU_SLOT(0)(%rdi, %rax), %rdi
	movl $KEEL_SLOT_RETURN, KEEL_FRAME_STATE(%rsp)
	movl $KEEL_SLOT_RETURN, KEEL_FRAME_STATE(%rdi)
	mov %rsp, %rsi
	mov $(KEEL_FRAME_SIZE / 8), %ecx
	rep movsq
	mov KEEL_FRAME_CLASS(%rsp), %edi
	xor %esi, %esi
	xor %edx, %edx
	xor %r10d, %r10d
	xor %r8d, %r8d
	mov $KEEL_CALL_TRAP_RETURN, %eax
	call *%gs:KEEL_VCPU_GATE
	mov %rax, %rdi
	call kt_return_failed
	ud2

	.bss
	.globl kt_init, kt_init_rsp, kt_init_fx, kt_init_if
	.balign 16
kt_init_fx:
	.skip 512
kt_init:
	.skip 0x80
kt_init_rsp:
	.skip 8
kt_init_if:
	.skip 8

	.macro NOTE type, size
	.balign 4
	.long 5, \size, \type
	.asciz "Keel"
	.balign 4
	.endm
	.section .note.keel, "a", @note
	NOTE KEEL_NOTE_ABI, 8
	.long 1, 0
	NOTE KEEL_NOTE_REQUIRED, 16
	.quad 1, 0
	NOTE KEEL_NOTE_OPTIONAL, 16
	.quad 0xffffffffffffffff, 0xffffffffffffffff
	NOTE KEEL_NOTE_LINEAR, 8
	.quad 0x100000000000
	NOTE KEEL_NOTE_MEMORY, 8
	.quad 0x2000000
	.section .note.GNU-stack, "", @progbits
