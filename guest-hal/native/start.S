/* SPDX-License-Identifier: MIT */
/*
 * From PVH (32-bit protected mode, no paging, ebx = start info) to long mode,
 * and the entry stubs of the 256 vectors.
 */
#include "native.h"

	/* Tell the loader where the 32-bit entry is. */
	.section .note.Xen, "a", @note
	.balign	4
	.long	4, 8, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.quad	hal_pvh_entry

	/*
	 * First page tables: 1 GiB of 2 MiB pages at 0 and in the linear map.
	 * mmu.c replaces them.
	 */
	.section .data
	.balign	4096
boot_pml4:
	.quad	boot_pdpt + 3
	.fill	(HAL_LINEAR_VA_ASM >> 39) - 1, 8, 0
	.quad	boot_pdpt + 3
	.fill	511 - (HAL_LINEAR_VA_ASM >> 39), 8, 0
boot_pdpt:
	.quad	boot_pd + 3
	.fill	511, 8, 0
boot_pd:
	.set	i, 0
	.rept	512
	.quad	(i << 21) + 0x83
	.set	i, i + 1
	.endr

	.balign	8
boot_gdt:
	.quad	0
	.quad	0x00af9b000000ffff		/* NATIVE_CS */
	.quad	0x00cf93000000ffff		/* NATIVE_DS */
boot_gdt_end:
boot_gdt_ptr:
	.word	boot_gdt_end - boot_gdt - 1
	.long	boot_gdt

	.section .text.boot, "ax"
	.code32
	.globl	hal_pvh_entry
	.type	hal_pvh_entry, @function
hal_pvh_entry:
	cld
	mov	%ebx, %esi
	lgdt	boot_gdt_ptr
	mov	$0x620, %eax			/* PAE, OSFXSR, OSXMMEXCPT */
	mov	%eax, %cr4
	mov	$boot_pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx		/* EFER: long mode, no-execute */
	rdmsr
	or	$0x900, %eax
	wrmsr
	mov	$0x80010033, %eax		/* PG WP NE ET MP PE */
	mov	%eax, %cr0
	ljmp	$NATIVE_CS, $start64
	.size	hal_pvh_entry, . - hal_pvh_entry

	.code64
	.type	start64, @function
start64:
	mov	$NATIVE_DS, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$boot_stack_top, %rsp
	xor	%ebp, %ebp
	mov	%esi, %edi			/* physical address of the PVH start info */
	call	hal_native_start
	ud2
	.size	start64, . - start64

	/*
	 * Vectors. The processor has pushed ss rsp rflags cs rip and for some an
	 * error code; add a zero where it has not, then the vector.
	 */
	.text
	.balign	16
	.globl	hal_native_stubs
	.type	hal_native_stubs, @function
hal_native_stubs:
	.set	vector, 0
	.rept	256
	.balign	16
	.if	(vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
	.else
	push	$0
	.endif
	push	$vector
	jmp	common_entry
	.set	vector, vector + 1
	.endr
	.size	hal_native_stubs, . - hal_native_stubs

	/* Above the frame: 8 bytes of padding, vector, error, rip, cs, rflags, rsp, ss. */
#define HW_VECTOR (FRAME_SIZE + 8)
#define HW_ERROR (FRAME_SIZE + 16)
#define HW_RIP (FRAME_SIZE + 24)
#define HW_RFLAGS (FRAME_SIZE + 40)
#define HW_RSP (FRAME_SIZE + 48)

	.type	common_entry, @function
common_entry:
	sub	$(FRAME_SIZE + 8), %rsp
	mov	%rax, 0x38(%rsp)
	mov	%rbx, 0x40(%rsp)
	mov	%rcx, 0x48(%rsp)
	mov	%rdx, 0x50(%rsp)
	mov	%rsi, 0x58(%rsp)
	mov	%rdi, 0x60(%rsp)
	mov	%rbp, 0x68(%rsp)
	mov	%r8, 0x70(%rsp)
	mov	%r9, 0x78(%rsp)
	mov	%r10, 0x80(%rsp)
	mov	%r11, 0x88(%rsp)
	mov	%r12, 0x90(%rsp)
	mov	%r13, 0x98(%rsp)
	mov	%r14, 0xa0(%rsp)
	mov	%r15, 0xa8(%rsp)
	cld
	xor	%eax, %eax
	mov	%rax, 0x00(%rsp)
	mov	%rax, 0x18(%rsp)
	mov	%rax, 0xb0(%rsp)
	mov	%rax, 0xb8(%rsp)
	mov	HW_VECTOR(%rsp), %rax		/* vector, and mode 0 above it */
	mov	%rax, 0x08(%rsp)
	mov	HW_ERROR(%rsp), %rax
	mov	%rax, 0x10(%rsp)
	mov	HW_RIP(%rsp), %rax
	mov	%rax, 0x20(%rsp)
	mov	HW_RSP(%rsp), %rax
	mov	%rax, 0x28(%rsp)
	mov	HW_RFLAGS(%rsp), %rax
	mov	%rax, 0x30(%rsp)
	mov	%rsp, %rdi
	xor	%ebp, %ebp
	call	hal_native_entry
	mov	0x20(%rsp), %rax
	mov	%rax, HW_RIP(%rsp)
	mov	0x28(%rsp), %rax
	mov	%rax, HW_RSP(%rsp)
	mov	0x30(%rsp), %rax
	and	$RFLAGS_KEPT, %eax
	or	$2, %eax
	mov	%rax, HW_RFLAGS(%rsp)
	mov	0x38(%rsp), %rax
	mov	0x40(%rsp), %rbx
	mov	0x48(%rsp), %rcx
	mov	0x50(%rsp), %rdx
	mov	0x58(%rsp), %rsi
	mov	0x60(%rsp), %rdi
	mov	0x68(%rsp), %rbp
	mov	0x70(%rsp), %r8
	mov	0x78(%rsp), %r9
	mov	0x80(%rsp), %r10
	mov	0x88(%rsp), %r11
	mov	0x90(%rsp), %r12
	mov	0x98(%rsp), %r13
	mov	0xa0(%rsp), %r14
	mov	0xa8(%rsp), %r15
	add	$(FRAME_SIZE + 24), %rsp
	iretq
	.size	common_entry, . - common_entry

	.section .bss
	.balign	4096
	.globl	hal_native_guard
hal_native_guard:				/* unmapped by mmu.c */
	.skip	4096
	.skip	65536
boot_stack_top:

	.section .note.GNU-stack, "", @progbits
