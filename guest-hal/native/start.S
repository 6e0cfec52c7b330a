/* SPDX-License-Identifier: MIT */
/*
 * From PVH (32-bit protected mode, no paging, ebx = start info) to long mode, the
 * same for the other processors, the entry stubs of the 256 vectors, and the way
 * to user code and back.
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
	mov	$0x80050033, %eax		/* PG AM WP NE ET MP PE */
	mov	%eax, %cr0
	ljmp	$NATIVE_CS, $start64
	.size	hal_pvh_entry, . - hal_pvh_entry

	/*
	 * Where SIPI starts the other processors, once cpu.c has copied it to
	 * NATIVE_AP_PA: from 16-bit mode into long mode in one step.
	 */
	.section .rodata
	.code16
	.globl	hal_native_ap_code
	.globl	hal_native_ap_code_end
hal_native_ap_code:
	cli
	xor	%eax, %eax
	mov	%ax, %ds
	lgdtl	NATIVE_AP_PA + ap_gdt_ptr - hal_native_ap_code
	mov	$0x620, %eax
	mov	%eax, %cr4
	mov	$boot_pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x900, %eax
	wrmsr
	mov	$0x80050033, %eax
	mov	%eax, %cr0
	ljmpl	$NATIVE_CS, $ap64
ap_gdt_ptr:
	.word	boot_gdt_end - boot_gdt - 1
	.long	boot_gdt
hal_native_ap_code_end:

	.section .text.boot, "ax"
	.code64
	.type	ap64, @function
ap64:
	mov	$NATIVE_DS, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	hal_native_ap_cr3, %rax
	mov	%rax, %cr3
	mov	hal_native_ap_stack, %rsp
	xor	%ebp, %ebp
	mov	hal_native_ap_cpu, %rdi
	call	hal_native_ap_start
	ud2
	.size	ap64, . - ap64

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
	 * error code; add a zero where it has not, then the vector. All of this runs
	 * at its alias: jumps within are relative, calls to the rest absolute.
	 */
	.section .text.tramp, "ax"
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
	.if	(vector == 2) || (vector == 8) || (vector == 18)
	jmp	ist_entry
	.else
	jmp	common_entry
	.endif
	.set	vector, vector + 1
	.endr
	.size	hal_native_stubs, . - hal_native_stubs

	/* Above the frame: 8 bytes of padding, vector, error, rip, cs, rflags, rsp, ss. */
#define HW_VECTOR (FRAME_SIZE + 8)
#define HW_ERROR (FRAME_SIZE + 16)
#define HW_RIP (FRAME_SIZE + 24)
#define HW_CS (FRAME_SIZE + 32)
#define HW_RFLAGS (FRAME_SIZE + 40)
#define HW_RSP (FRAME_SIZE + 48)
#define HW_END (FRAME_SIZE + 64)

	.macro	save_registers
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
	.endm

	.macro	load_registers
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
	.endm

	/* The rest of struct hal_frame, from what the processor pushed. */
	.macro	complete_frame
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
	.endm

	/* And back. */
	.macro	use_frame
	mov	0x20(%rsp), %rax
	mov	%rax, HW_RIP(%rsp)
	mov	0x28(%rsp), %rax
	mov	%rax, HW_RSP(%rsp)
	mov	0x30(%rsp), %rax
	and	$RFLAGS_KEPT, %eax
	or	$2, %eax
	mov	%rax, HW_RFLAGS(%rsp)
	.endm

	.type	common_entry, @function
common_entry:
	save_registers
	testb	$3, HW_CS(%rsp)
	jnz	from_user
	complete_frame
	mov	%rsp, %rdi
	xor	%ebp, %ebp
	mov	$hal_native_entry, %eax
	call	*%rax
	use_frame
	load_registers
	add	$(FRAME_SIZE + 24), %rsp
	iretq

	/* From CPL 3, on this processor's entry stack: to where hal_native_user_run() was called. */
from_user:
	swapgs
from_user_swapped:
	mov	%gs:CPU_KERNEL_CR3, %rax
	mov	%rax, %cr3
	mov	%rsp, %rax
	mov	%gs:CPU_KERNEL_RSP, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret
	.size	common_entry, . - common_entry

	/* LSTAR: rip in rcx, rflags in r11, everything else is user code's. */
	.globl	hal_native_syscall
	.type	hal_native_syscall, @function
hal_native_syscall:
	swapgs
	mov	%rsp, %gs:CPU_USER_RSP
	mov	%gs:CPU_ENTRY_TOP, %rsp
	push	$NATIVE_USER_DS
	push	%gs:CPU_USER_RSP
	push	%r11
	push	$NATIVE_USER_CS
	push	%rcx
	push	$0
	push	$VEC_SYSCALL
	save_registers
	jmp	from_user_swapped
	.size	hal_native_syscall, . - hal_native_syscall

	/*
	 * NMI, double fault, machine check: they come at any instruction, those with
	 * user code's GS base or page tables in force at CPL 0 among them. The stack
	 * is this processor's own; its end says whose, see hal_native_cpu_init().
	 * Loading cr3 on the way forgets translations, which is all a shootdown wants.
	 */
	.type	ist_entry, @function
ist_entry:
	save_registers
	complete_frame
	mov	HW_CS(%rsp), %eax
	and	$1, %eax
	mov	%eax, 0x0c(%rsp)		/* mode */
	mov	$0xc0000101, %ecx
	rdmsr
	mov	%eax, %r12d
	mov	%edx, %r13d
	mov	HW_END(%rsp), %rax
	mov	%rax, %rdx
	shr	$32, %rdx
	wrmsr
	mov	%cr3, %r14
	mov	%gs:CPU_KERNEL_CR3, %rax
	mov	%rax, %cr3
	mov	%rsp, %rdi
	xor	%ebp, %ebp
	mov	$hal_native_entry, %eax
	call	*%rax
	mov	%r14, %cr3
	mov	$0xc0000101, %ecx
	mov	%r12d, %eax
	mov	%r13d, %edx
	wrmsr
	use_frame
	load_registers
	add	$(FRAME_SIZE + 24), %rsp
	iretq
	.size	ist_entry, . - ist_entry

	/* rsp = rdi = frame on the entry stack, rsi = cr3, edx = sysret will do */
	.type	user_go, @function
user_go:
	mov	%rdi, %rsp
	mov	%rsi, %cr3
	swapgs
	test	%edx, %edx
	jnz	1f
	load_registers
	add	$(FRAME_SIZE + 24), %rsp
	iretq
1:	load_registers				/* rcx = rip and r11 = rflags are among them */
	mov	HW_RSP(%rsp), %rsp
	sysretq
	.size	user_go, . - user_go

	.text
	.globl	hal_native_user_run
	.type	hal_native_user_run, @function
hal_native_user_run:
	endbr64
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, %gs:CPU_KERNEL_RSP
	movabs	$(user_go + NATIVE_ALIAS), %rax
	jmp	*%rax
	.size	hal_native_user_run, . - hal_native_user_run

	.section .bss
	.balign	4096
	.globl	hal_native_guard
hal_native_guard:				/* unmapped by mmu.c */
	.skip	4096
	.skip	65536
boot_stack_top:

	.section .note.GNU-stack, "", @progbits
