/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * An HVM image in assembly: from the PVH entry (32-bit, paging off, ebx = start
 * info) to 64-bit code with the first 4 GiB mapped at 0 and at KT_LINEAR, and
 * the entries of all vectors, on stacks of their own so that red zones last.
 */
#include <keel/types.h>

	.text
	.code32
	.globl _start
	.type _start, @function
_start:
	cld
	cli
	mov %ebx, %esi
	mov $kt_pd, %edi
	mov $0x83, %eax		/* present, writable, 2 MiB */
	mov $2048, %ecx
1:	mov %eax, (%edi)
	movl $0, 4(%edi)
	add $0x200000, %eax
	add $8, %edi
	dec %ecx
	jnz 1b
	orl $0x18, kt_pd + 8 * (0xfec00000 >> 21)	/* I/O APIC and LAPIC: not cached */
	orl $0x18, kt_pd + 8 * (0xfee00000 >> 21)
	movl $(kt_pd + 0x0003), kt_pdpt
	movl $(kt_pd + 0x1003), kt_pdpt + 8
	movl $(kt_pd + 0x2003), kt_pdpt + 16
	movl $(kt_pd + 0x3003), kt_pdpt + 24
	movl $(kt_pdpt + 3), kt_pml4
	movl $(kt_pdpt + 3), kt_pml4 + 8 * 32		/* KT_LINEAR */
	mov %cr4, %eax
	or $0x620, %eax		/* PAE, OSFXSR, OSXMMEXCPT */
	mov %eax, %cr4
	mov $kt_pml4, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	or $0x100, %eax
	wrmsr
	mov %cr0, %eax
	and $~4, %eax		/* EM */
	or $0x80010023, %eax	/* PG, WP, NE, MP, PE */
	mov %eax, %cr0
	lgdt kt_gdt_pointer
	ljmp $0x08, $2f
	.code64
2:	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	xor %eax, %eax
	mov %eax, %fs
	mov %eax, %gs
	lea kt_stack_top(%rip), %rsp
	mov %esi, %esi
	mov %rsi, kt_pvh_info(%rip)
	xor %ebp, %ebp
	call kt_main
	ud2
	.size _start, . - _start

/* Entry of vector n at kt_vectors + 16 * n. */
	.balign 16
	.globl kt_vectors
kt_vectors:
	.set n, 0
	.rept 256
	.balign 16, 0xcc
	.if !(n == 8 || (n >= 10 && n <= 14) || n == 17 || n == 21 || n == 29 || n == 30)
	pushq $0
	.endif
	pushq $n
	jmp kt_vector
	.set n, n + 1
	.endr
	.balign 16, 0xcc

kt_vector:
	push %rax
	push %rcx
	push %rdx
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	cld
	mov %rsp, %rdi
	call kt_interrupt
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rdx
	pop %rcx
	pop %rax
	add $16, %rsp
	iretq

/* void kt_hw_wait(void) */
	.globl kt_hw_wait, kt_halt
	.type kt_hw_wait, @function
kt_hw_wait:
	sti
kt_halt:
	hlt
	cli
	ret
	.size kt_hw_wait, . - kt_hw_wait

/* int kt_rdmsr(u32 msr, u64 *value), int kt_wrmsr(u32 msr, u64 value): 1 when it trapped. */
	.globl kt_rdmsr
	.type kt_rdmsr, @function
kt_rdmsr:
	lea 1f(%rip), %rax
	mov %rax, kt_fixup(%rip)
	mov %rsp, kt_fixup_rsp(%rip)
	mov %edi, %ecx
	rdmsr
	movq $0, kt_fixup(%rip)
	mov %eax, (%rsi)
	mov %edx, 4(%rsi)
	xor %eax, %eax
	ret
1:	mov $1, %eax
	ret
	.size kt_rdmsr, . - kt_rdmsr

	.globl kt_wrmsr
	.type kt_wrmsr, @function
kt_wrmsr:
	lea 1f(%rip), %rax
	mov %rax, kt_fixup(%rip)
	mov %rsp, kt_fixup_rsp(%rip)
	mov %edi, %ecx
	mov %esi, %eax
	mov %rsi, %rdx
	shr $32, %rdx
	wrmsr
	movq $0, kt_fixup(%rip)
	xor %eax, %eax
	ret
1:	mov $1, %eax
	ret
	.size kt_wrmsr, . - kt_wrmsr

/* Everything else that is written here is set up by kt_hvm.c. */
	.data
	.balign 16
	.globl kt_gdt
kt_gdt:
	.quad 0
	.quad 0x00af9a000000ffff	/* 0x08: 64-bit code */
	.quad 0x00cf92000000ffff	/* 0x10: data */
	.quad 0, 0			/* 0x18: TSS */
kt_gdt_pointer:
	.word . - kt_gdt - 1
	.long kt_gdt

	.bss
	.balign 4096
kt_pml4:
	.skip 4096
kt_pdpt:
	.skip 4096
kt_pd:
	.skip 4 * 4096

	.section .note.Xen, "a", @note
	.balign 4
	.long 4, 8, 18			/* "Xen", XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad _start
	.balign 4
	.section .note.GNU-stack, "", @progbits
