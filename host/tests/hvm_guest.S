/* SPDX-License-Identifier: MIT */
/*
 * A kernel of a few hundred instructions for HVM partitions, so that a /dev/kvm
 * which interprets them is enough: the command line's first letter says what it
 * does. It talks through the serial port and stays in 32-bit mode unless it has a
 * hypercall to make.
 */
#include <keel/calls.h>
#include <keel/hvm.h>

#define COM1 0x3f8
#define LSR 5
#define START_CMDLINE 24
#define START_MODULES 12
#define START_MODULE_LIST 16
#define CODE64 0x18

	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 4, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long start

	.text
	.code32
	.globl start
start:
	mov	$stack_top, %esp
	mov	%ebx, %ebp
	cmpl	$0x336ec578, (%ebp)
	jne	wrong
	mov	START_CMDLINE(%ebp), %esi
	mov	$commands, %edi
1:	mov	(%edi), %al
	test	%al, %al
	jz	wrong
	cmp	%al, (%esi)
	je	2f
	add	$8, %edi
	jmp	1b
2:	jmp	*4(%edi)

	.balign 8
commands:
#define COMMAND(letter, function) .long letter, function
	COMMAND('p', say)
	COMMAND('e', echo)
	COMMAND('f', flood)
	COMMAND('c', leaves)
	COMMAND('g', gate)
	COMMAND('x', gate)
	COMMAND('r', reset)
	COMMAND('k', keyboard)
	COMMAND('t', triple)
	COMMAND('h', halt)
	COMMAND('d', nothing_there)
	COMMAND('m', module)
	.long 0

/* puts: esi = text, ended by a NUL. As a driver would: wait for the transmitter, then send. */
puts:
	mov	$COM1 + LSR, %edx
1:	in	%dx, %al
	test	$0x20, %al
	jz	1b
	lodsb
	test	%al, %al
	jz	2f
	mov	$COM1, %edx
	out	%al, %dx
	jmp	puts
2:	ret

say:
	call	puts
	mov	$newline, %esi
	call	puts
poweroff:
	mov	$0x604, %edx
	mov	$5 << 10, %eax
	out	%ax, %dx
	or	$1 << 13, %eax
	out	%ax, %dx
wrong:
	mov	$wrong_text, %esi
	call	puts
halt:
	cli
	hlt
	jmp	halt

/* Without asking whether there is room: there always is. */
flood:
	mov	$flood_text, %esi
	mov	$4 * 128, %ecx
	mov	$COM1, %edx
	rep outsb
	jmp	flood

/* Send back what comes in until there is a 'q'. */
echo:
	mov	$COM1 + 4, %edx
	mov	$0x0b, %al
	out	%al, %dx
	mov	$COM1 + 1, %edx
	mov	$1, %al
	out	%al, %dx
	mov	$COM1 + 2, %edx
	out	%al, %dx
1:	mov	$COM1 + LSR, %edx
	in	%dx, %al
	test	$1, %al
	jz	1b
	mov	$COM1, %edx
	in	%dx, %al
	out	%al, %dx
	cmp	$'q', %al
	jne	1b
	jmp	poweroff

/* The leaf with the signature, where one is, and those behind it. */
leaves:
	mov	$KEEL_CPUID_FIRST, %edi
1:	mov	%edi, %eax
	cpuid
	cmp	$KEEL_CPUID_SIGNATURE, %ebx
	jne	2f
	cmp	$KEEL_CPUID_SIGNATURE, %ecx
	jne	2f
	cmp	$KEEL_CPUID_SIGNATURE, %edx
	je	3f
2:	add	$KEEL_CPUID_STEP, %edi
	cmp	$KEEL_CPUID_LAST, %edi
	jbe	1b
	jmp	wrong
3:	sub	%edi, %eax
	cmp	$KEEL_CPUID_MSRS, %eax
	jne	wrong
	lea	KEEL_CPUID_MSRS(%edi), %eax
	cpuid
	cmp	$KEEL_MSR_GATE, %eax
	jne	wrong
	cmp	$KEEL_MSR_COUNT, %ebx
	jne	wrong
	/* Those behind are empty. */
	mov	$KEEL_CPUID_MSRS + 1, %esi
4:	lea	(%edi, %esi), %eax
	cpuid
	or	%ebx, %eax
	or	%ecx, %eax
	or	%edx, %eax
	jnz	wrong
	inc	%esi
	cmp	$KEEL_CPUID_LEAVES, %esi
	jb	4b
	mov	$ok_text, %esi
	jmp	say

reset:
	mov	$0xcf9, %edx
	mov	$6, %al
	out	%al, %dx
	jmp	wrong

keyboard:
	mov	$0x10000, %ecx
1:	in	$0x64, %al
	test	$2, %al
	jz	2f
	loop	1b
	jmp	wrong
2:	mov	$0xfe, %al
	out	%al, $0x64
	jmp	wrong

triple:
	mov	$0x7219, %ecx
	out	%al, $0x80 /* a processor that keeps nothing of a triple fault was last seen here */
	lidt	no_idt
	int3
	jmp	wrong

/* What no device answers reads as ones, in ports and in memory. */
nothing_there:
	mov	$0xcf8, %edx
	in	%dx, %eax
	inc	%eax
	jnz	wrong
	mov	$0x2f8 + LSR, %edx
	in	%dx, %al
	inc	%al
	jnz	wrong
	mov	0xd0000000, %eax
	inc	%eax
	jnz	wrong
	movl	$0, 0xd0000000
	mov	$ok_text, %esi
	jmp	say

/* The initrd begins with its own text. */
module:
	cmpl	$1, START_MODULES(%ebp)
	jne	wrong
	mov	START_MODULE_LIST(%ebp), %eax
	mov	(%eax), %esi
	jmp	say

/* Hypercalls: long mode with the first GiB mapped as itself. */
gate:
	lodsb
	mov	%al, command
	lodsb
	movzbl	%al, %eax
	mov	%eax, seed
	movl	$pdpt + 7, pml4
	movl	$pd + 7, pdpt
	mov	$pd, %edi
	mov	$0x87, %eax
	mov	$512, %ecx
1:	mov	%eax, (%edi)
	add	$0x200000, %eax
	add	$8, %edi
	loop	1b
	mov	$pml4, %eax
	mov	%eax, %cr3
	mov	%cr4, %eax
	or	$0x20, %eax /* PAE */
	mov	%eax, %cr4
	mov	$0xc0000080, %ecx /* EFER */
	rdmsr
	or	$0x100, %eax /* LME */
	wrmsr
	mov	%cr0, %eax
	or	$0x80000000, %eax
	mov	%eax, %cr0
	lgdt	gdtr
	ljmp	$CODE64, $long_mode

	.code64
long_mode:
	/* #GP for what is no MSR of Keel's and for what is no value of them: the handler steps over it and counts. */
	lea	gp_handler(%rip), %rax
	mov	%ax, idt + 13 * 16
	shr	$16, %rax
	mov	%ax, idt + 13 * 16 + 6
	movw	$CODE64, idt + 13 * 16 + 2
	movw	$0x8e00, idt + 13 * 16 + 4
	lidt	idtr
	xor	%edx, %edx
	mov	$KEEL_MSR_LAST, %ecx
	rdmsr
	mov	$KEEL_MSR_GATE, %ecx
	mov	$gate_page + 0x10 + 1, %eax
	wrmsr
	mov	$gate_page, %eax
	wrmsr
	mov	$0xfffff001, %eax
	wrmsr
	mov	$KEEL_MSR_UPCALL, %ecx
	mov	$KEEL_UPCALL_LAPIC | 0x1f, %eax
	wrmsr
	cmpl	$5, faults
	jne	fail
	mov	$KEEL_MSR_GATE, %ecx
	mov	$gate_page + 1, %eax
	wrmsr
	xor	%eax, %eax
	rdmsr
	cmp	$gate_page + 1, %eax
	jne	fail
	cmpl	$5, faults
	jne	fail
	cmpb	$'x', command
	je	anything

	mov	$KEEL_CALL_BASE_VERSION, %eax
	xor	%edi, %edi
	call	hypercall
	test	%rax, %rax
	jnz	fail
	shr	$32, %rdx
	cmp	$1, %edx
	jne	fail
	mov	$KEEL_CALL_MMU_QUERY, %eax
	call	hypercall
	cmp	$-2, %rax /* NOTSUP */
	jne	fail
	mov	$KEEL_CALL_BASE_PING, %eax
	mov	$0x1234, %edi
	call	hypercall
	cmp	$0x1234, %rdx
	jne	fail
	/* "gate ok\n" */
	mov	$KEEL_CALL_CONSOLE_WRITE, %eax
	mov	$8, %edi
	mov	gate_text, %rsi
	call	hypercall_2
	test	%rax, %rax
	jnz	fail
	mov	$KEEL_CALL_BASE_SHUTDOWN, %eax
	xor	%edi, %edi
	mov	$7, %esi
	call	hypercall_2
fail:
	cli
	hlt
	jmp	fail

/*
 * Anything a guest can ask of its host, at random: hypercalls, Keel's MSRs, ports. What
 * would end it is left out, so that it ends by itself: with the letters of its name.
 */
#define ROUNDS 5000
anything:
	/* Everything that is offered, and a vCPU page to begin with. */
	mov	$KEEL_CALL_BASE_FEATURES, %eax
	xor	%edi, %edi
	call	hypercall
	mov	%rdx, %rsi
	mov	$KEEL_CALL_BASE_ACCEPT, %eax
	xor	%edi, %edi
	call	hypercall_2
	mov	$KEEL_CALL_BASE_FREEZE, %eax
	call	hypercall
	mov	$KEEL_MSR_VCPU, %ecx
	mov	$vcpu_page + 1, %eax
	xor	%edx, %edx
	wrmsr
	mov	$ROUNDS, %r15d
next:
	call	random
	mov	%eax, %ebx
	and	$7, %ebx
	jz	random_msr
	cmp	$1, %ebx
	je	random_port
	/* A call: any extension, any function; arguments small, large, or places in RAM. */
	call	random
	and	$0x1f, %eax
	shl	$12, %eax
	mov	%eax, %ebx
	call	random
	and	$7, %eax
	lea	0x1000000(%rbx, %rax), %ebx
	cmp	$KEEL_CALL_BASE_SHUTDOWN, %ebx
	je	next
	cmp	$KEEL_CALL_CRASH, %ebx
	je	next
	cmp	$KEEL_CALL_BASE_PING, %ebx
	je	next
	/* A call wants zeros in what it does not use, so some get many of them. */
	call	random
	and	$7, %eax
	mov	%eax, %r13d
	call	some_argument
	mov	%rax, %rdi
	call	some_argument
	mov	%rax, %rsi
	call	some_argument
	mov	%rax, %r12
	call	some_argument
	mov	%rax, %r10
	xor	%r8d, %r8d
	mov	%r12, %rdx
	mov	%ebx, %eax
	call	gate_page
	jmp	done
random_msr:
	call	random
	and	$3, %eax
	lea	KEEL_MSR_VCPU - 1(%rax), %ecx
	cmp	$KEEL_MSR_GATE, %ecx
	je	next
	call	argument
	mov	%rax, %rdx
	shr	$32, %rdx
	or	$1, %eax
	wrmsr
	rdmsr
	jmp	done
random_port:
	call	random
	movzwl	%ax, %edx
	shr	$4, %edx
	cmp	$0x64, %edx
	je	next
	cmp	$0x604, %edx
	je	next
	cmp	$0x605, %edx
	je	next
	cmp	$0xcf9, %edx
	je	next
	/* The interrupt controllers and the timer are KVM's; a timer's interrupt would want an IDT entry. */
	cmp	$0x100, %edx
	jb	next
	call	random
	out	%eax, %dx
	in	%dx, %ax
	out	%al, %dx
	mov	$data_page, %edi
	mov	$64, %ecx
	rep insb
	mov	$data_page, %esi
	mov	$16, %ecx
	rep outsw
done:
	dec	%r15d
	jnz	next
	mov	$KEEL_CALL_BASE_SHUTDOWN, %eax
	xor	%edi, %edi
	mov	$'x', %esi
	call	hypercall_2
	jmp	fail

random:
	imul	$1103515245, seed, %eax
	add	$12345, %eax
	mov	%eax, seed
	ror	$13, %eax
	ret

some_argument:
	dec	%r13d
	jns	argument
	xor	%eax, %eax
	ret
argument:
	call	random
	mov	%eax, %ecx
	call	random
	and	$3, %ecx
	jz	1f
	cmp	$1, %ecx
	je	2f
	cmp	$2, %ecx
	je	3f
	shl	$13, %rax
	ret
1:	and	$3, %eax
	ret
2:	and	$0xff, %eax
	ret
3:	and	$0x3ff8, %eax
	add	$data_page, %eax
	ret

hypercall:
	xor	%esi, %esi
hypercall_2:
	xor	%edx, %edx
	xor	%r10d, %r10d
	xor	%r8d, %r8d
	jmp	gate_page

gp_handler:
	incl	faults
	addq	$2, 8(%rsp) /* rdmsr, wrmsr */
	add	$8, %rsp
	iretq

	.data
wrong_text:
	.asciz "wrong\n"
ok_text:
	.asciz "ok"
newline:
	.asciz "\n"
flood_text:
	.fill 128, 4, 0x6b6f6b6f /* okok */
gate_text:
	.ascii "gate ok\n"
	.balign 8
gdt:
	.quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00af9a000000ffff
gdtr:
	.word . - gdt - 1
	.quad gdt
idtr:
	.word 14 * 16 - 1
	.quad idt
no_idt:
	.word 0
	.quad 0

	.bss
	.balign 4096
pml4:	.skip 4096
pdpt:	.skip 4096
pd:	.skip 4096
gate_page:
	.skip 4096
idt:	.skip 14 * 16
faults:	.skip 4
seed:	.skip 4
command: .skip 1
	.balign 4096
vcpu_page:
	.skip 4096
data_page:
	.skip 4 * 4096
	.balign 16
	.skip 1024
stack_top:

	.section .note.GNU-stack, "", @progbits
