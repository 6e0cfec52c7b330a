/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
#include <keel/vcpu.h>

	.text
/* Another vCPU's first instruction: rdi = its struct kc. What it starts with goes there, then kc_main(). */
	.globl kc_entry
	.type kc_entry, @function
kc_entry:
	mov %rsp, 0x08(%rdi)
	mov %rax, 0x10(%rdi)
	mov %rbx, 0x18(%rdi)
	mov %rcx, 0x20(%rdi)
	mov %rdx, 0x28(%rdi)
	mov %rsi, 0x30(%rdi)
	mov %rdi, 0x38(%rdi)
	mov %rbp, 0x40(%rdi)
	mov %r8, 0x48(%rdi)
	mov %r9, 0x50(%rdi)
	mov %r10, 0x58(%rdi)
	mov %r11, 0x60(%rdi)
	mov %r12, 0x68(%rdi)
	mov %r13, 0x70(%rdi)
	mov %r14, 0x78(%rdi)
	mov %r15, 0x80(%rdi)
	mov (%rdi), %rsp
	pushfq
	popq 0x88(%rdi)
	mov %gs:KEEL_VCPU_SELF, %rax
	mov %rax, 0x90(%rdi)
	movzbl %gs:KEEL_VCPU_IF, %eax
	mov %rax, 0x98(%rdi)
	fxsave64 0x100(%rdi)
	xor %ebp, %ebp
	call kc_main
	ud2
	.size kc_entry, . - kc_entry

	.section .note.GNU-stack, "", @progbits
