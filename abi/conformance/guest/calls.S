/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Ways through the gate that show every register, and probes that come back
 * when they trap. The gate's address is at %gs:KEEL_VCPU_GATE, in the vCPU page
 * or, for an HVM image, in a page the runtime lays out like it.
 */
#include <keel/calls.h>
#include <keel/vcpu.h>

	.text
/* struct kt_ret kt_call(id, a1, a2, a3, a4, a5): the plain way through the gate. */
	.globl kt_call
	.type kt_call, @function
kt_call:
	mov %rdi, %rax
	mov %rsi, %rdi
	mov %rdx, %rsi
	mov %rcx, %rdx
	mov %r8, %r10
	mov %r9, %r8
	call *%gs:KEEL_VCPU_GATE
	ret
	.size kt_call, . - kt_call

/* void kt_call_regs(struct kt_regs *): every register in, every register out. */
	.globl kt_call_regs
	.type kt_call_regs, @function
kt_call_regs:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	push %rdi
	mov 0x00(%rdi), %rax
	mov 0x08(%rdi), %rbx
	mov 0x10(%rdi), %rcx
	mov 0x18(%rdi), %rdx
	mov 0x20(%rdi), %rsi
	mov 0x30(%rdi), %rbp
	mov 0x38(%rdi), %r8
	mov 0x40(%rdi), %r9
	mov 0x48(%rdi), %r10
	mov 0x50(%rdi), %r11
	mov 0x58(%rdi), %r12
	mov 0x60(%rdi), %r13
	mov 0x68(%rdi), %r14
	mov 0x70(%rdi), %r15
	pushq 0x78(%rdi)
	popfq
	mov 0x28(%rdi), %rdi
	call *%gs:KEEL_VCPU_GATE
	push %rdi
	mov 8(%rsp), %rdi
	mov %rax, 0x00(%rdi)
	mov %rbx, 0x08(%rdi)
	mov %rcx, 0x10(%rdi)
	mov %rdx, 0x18(%rdi)
	mov %rsi, 0x20(%rdi)
	mov %rbp, 0x30(%rdi)
	mov %r8, 0x38(%rdi)
	mov %r9, 0x40(%rdi)
	mov %r10, 0x48(%rdi)
	mov %r11, 0x50(%rdi)
	mov %r12, 0x58(%rdi)
	mov %r13, 0x60(%rdi)
	mov %r14, 0x68(%rdi)
	mov %r15, 0x70(%rdi)
	popq 0x28(%rdi)
	pushfq
	popq 0x78(%rdi)
	cld
	pop %rdi
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret
	.size kt_call_regs, . - kt_call_regs

/* The extended state of mask rdx:rax; with mask 0, on a processor without XSAVE, what FXSAVE knows. */
	.macro EXTENDED insn, at
	test %eax, %eax
	jz 1f
	x\insn\()64 (\at)
	jmp 2f
1:	fx\insn\()64 (\at)
2:
	.endm

/*
 * struct kt_ret kt_call_fp(const u64 call[6], const void *in, void *out, u64 mask):
 * load the extended state, call, store it again. Nothing between uses it.
 */
	.globl kt_call_fp
	.type kt_call_fp, @function
kt_call_fp:
	push %rbx
	push %r12
	push %r13
	mov %rdi, %rbx
	mov %rdx, %r12
	mov %rcx, %r13
	mov %ecx, %eax
	mov %rcx, %rdx
	shr $32, %rdx
	EXTENDED rstor, %rsi
	mov 0x00(%rbx), %rax
	mov 0x08(%rbx), %rdi
	mov 0x10(%rbx), %rsi
	mov 0x18(%rbx), %rdx
	mov 0x20(%rbx), %r10
	mov 0x28(%rbx), %r8
	call *%gs:KEEL_VCPU_GATE
	mov %rax, %rbx
	mov %rdx, %rcx
	mov %r13d, %eax
	mov %r13, %rdx
	shr $32, %rdx
	EXTENDED save, %r12
	mov %rbx, %rax
	mov %rcx, %rdx
	pop %r13
	pop %r12
	pop %rbx
	ret
	.size kt_call_fp, . - kt_call_fp

/*
 * struct kt_ret kt_call_tight(id, a1, a2, a3, stack): call with 72 usable bytes
 * below a stack pointer of any alignment: the return address and 64 more.
 */
	.globl kt_call_tight
	.type kt_call_tight, @function
kt_call_tight:
	push %rbp
	mov %rsp, %rbp
	mov %rdi, %rax
	mov %rsi, %rdi
	mov %rdx, %rsi
	mov %rcx, %rdx
	mov %r8, %rsp
	xor %r8d, %r8d
	xor %r10d, %r10d
	call *%gs:KEEL_VCPU_GATE
	mov %rbp, %rsp
	pop %rbp
	ret
	.size kt_call_tight, . - kt_call_tight

/*
 * int kt_spin_regs(const struct kt_regs *in, struct kt_regs *out): load every
 * register but rcx, fill the red zone, set CF, wait without touching any of it
 * (jrcxz leaves the flags alone) until kt_spin_flag is not zero, store all;
 * returns how many red zone words differ.
 */
	.globl kt_spin_regs
	.type kt_spin_regs, @function
kt_spin_regs:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	push %rsi
	i = 1
	.rept 16
	movq $(0x5a5a0000 + i), -8 * i(%rsp)
	i = i + 1
	.endr
	mov 0x00(%rdi), %rax
	mov 0x08(%rdi), %rbx
	mov 0x18(%rdi), %rdx
	mov 0x20(%rdi), %rsi
	mov 0x30(%rdi), %rbp
	mov 0x38(%rdi), %r8
	mov 0x40(%rdi), %r9
	mov 0x48(%rdi), %r10
	mov 0x50(%rdi), %r11
	mov 0x58(%rdi), %r12
	mov 0x60(%rdi), %r13
	mov 0x68(%rdi), %r14
	mov 0x70(%rdi), %r15
	mov 0x28(%rdi), %rdi
	stc
1:	mov kt_spin_flag(%rip), %rcx
	jrcxz 1b
	mov %rdi, kt_spin_save(%rip)
	mov (%rsp), %rdi
	mov %rax, 0x00(%rdi)
	mov %rbx, 0x08(%rdi)
	mov %rdx, 0x18(%rdi)
	mov %rsi, 0x20(%rdi)
	mov %rbp, 0x30(%rdi)
	mov %r8, 0x38(%rdi)
	mov %r9, 0x40(%rdi)
	mov %r10, 0x48(%rdi)
	mov %r11, 0x50(%rdi)
	mov %r12, 0x58(%rdi)
	mov %r13, 0x60(%rdi)
	mov %r14, 0x68(%rdi)
	mov %r15, 0x70(%rdi)
	mov kt_spin_save(%rip), %rax
	mov %rax, 0x28(%rdi)
	mov $0, %eax
	mov $0, %ecx
	setc %al
	seto %cl
	lea (%rax, %rcx, 2), %rax
	mov %rax, 0x78(%rdi)	/* 1: CF still set, OF still clear */
	xor %eax, %eax
	i = 1
	.rept 16
	xor %ecx, %ecx
	cmpq $(0x5a5a0000 + i), -8 * i(%rsp)
	setne %cl
	add %ecx, %eax
	i = i + 1
	.endr
	pop %rsi
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret
	.size kt_spin_regs, . - kt_spin_regs

/* void kt_spin_fp(const void *in, void *out, u64 mask): the same for the extended state. */
	.globl kt_spin_fp
	.type kt_spin_fp, @function
kt_spin_fp:
	mov %rsi, %r8
	mov %rdx, %r9
	mov %edx, %eax
	shr $32, %rdx
	EXTENDED rstor, %rdi
	.globl kt_save_fp, kt_spin_fp_loop, kt_spin_fp_end
kt_spin_fp_loop:
	mov kt_spin_flag(%rip), %rcx
	jrcxz kt_spin_fp_loop
kt_spin_fp_end:
	mov %r9d, %eax
	mov %r9, %rdx
	shr $32, %rdx
	EXTENDED save, %r8
	ret
	.size kt_spin_fp, . - kt_spin_fp

/* void kt_save_fp(void *out, u64 mask) */
	.type kt_save_fp, @function
kt_save_fp:
	mov %esi, %eax
	mov %rsi, %rdx
	shr $32, %rdx
	EXTENDED save, %rdi
	ret
	.size kt_save_fp, . - kt_save_fp

/* Memory probes: 0, or 1 when the access trapped (kt_trap_frame has it). */
	.macro PROBE name, insn:vararg
	.globl \name
	.type \name, @function
\name:
	lea 1f(%rip), %rax
	mov %rax, kt_fixup(%rip)
	mov %rsp, kt_fixup_rsp(%rip)
	\insn
	movq $0, kt_fixup(%rip)
	xor %eax, %eax
	ret
1:	mov $1, %eax
	ret
	.size \name, . - \name
	.endm
	PROBE kt_probe_read, movzbl (%rdi), %eax
	PROBE kt_probe_write, movb %sil, (%rdi)
	PROBE kt_probe_exec, call *%rdi
	PROBE kt_probe_read8, mov (%rdi), %rax
	PROBE kt_probe_write8, mov %rdi, (%rdi)
	PROBE kt_probe_ud, ud2
	PROBE kt_probe_bp, int3
	PROBE kt_probe_hlt, hlt
	PROBE kt_probe_cli, cli
	PROBE kt_probe_cr3, mov %cr3, %rax
	PROBE kt_probe_rdmsr, rdmsr
	PROBE kt_probe_in, inb $0x80, %al

/* System calls as a hostile guest makes them; arguments as a C function's. */
	.macro ESCAPE name, insn
	.globl \name
	.type \name, @function
\name:
	lea 1f(%rip), %rax
	mov %rax, kt_fixup(%rip)
	mov %rsp, kt_fixup_rsp(%rip)
	mov %rbp, kt_fixup_rbp(%rip)
	mov %rdi, %rax
	mov %rsi, %rdi
	mov %rdx, %rsi
	mov %rcx, %rdx
	mov %r8, %r10
	mov %r9, %r8
	mov %rsp, %rbp
	\insn
	mov %rax, kt_escaped(%rip)
	mov kt_fixup_rbp(%rip), %rbp
	movq $0, kt_fixup(%rip)
	xor %eax, %eax
	ret
1:	mov kt_fixup_rbp(%rip), %rbp
	mov $1, %eax
	ret
	.size \name, . - \name
	.endm
	ESCAPE kt_probe_syscall, syscall
	ESCAPE kt_probe_int80, "int $0x80"
	ESCAPE kt_probe_sysenter, sysenter

	.globl kt_probe_div
	.type kt_probe_div, @function
kt_probe_div:
	lea 1f(%rip), %rax
	mov %rax, kt_fixup(%rip)
	mov %rsp, kt_fixup_rsp(%rip)
	xor %edx, %edx
	xor %ecx, %ecx
	mov $1, %eax
	.globl kt_probe_div_insn
kt_probe_div_insn:
	div %ecx
	movq $0, kt_fixup(%rip)
	xor %eax, %eax
	ret
1:	mov $1, %eax
	ret
	.size kt_probe_div, . - kt_probe_div

/* One instruction under TF; the #DB comes after the nop. */
	.globl kt_probe_step
	.type kt_probe_step, @function
kt_probe_step:
	pushfq
	orq $0x100, (%rsp)
	popfq
	nop
	.globl kt_probe_step_after
kt_probe_step_after:
	nop
	nop
	ret
	.size kt_probe_step, . - kt_probe_step

/* An SSE exception: 1.0 / 0.0 with the divide exception unmasked. */
	.globl kt_probe_xm
	.type kt_probe_xm, @function
kt_probe_xm:
	lea 1f(%rip), %rax
	mov %rax, kt_fixup(%rip)
	mov %rsp, kt_fixup_rsp(%rip)
	push $0x1d80
	ldmxcsr (%rsp)
	mov $0x3f800000, %eax
	movd %eax, %xmm0
	pxor %xmm1, %xmm1
	divss %xmm1, %xmm0
	movq $0, kt_fixup(%rip)
	xor %eax, %eax
	jmp 2f
1:	mov $1, %eax
	push %rax
2:	movl $0x1f80, (%rsp)
	ldmxcsr (%rsp)
	pop %rcx
	ret
	.size kt_probe_xm, . - kt_probe_xm

/* An x87 exception: 1.0 / 0.0 with the divide exception unmasked, then fwait. */
	.globl kt_probe_mf
	.type kt_probe_mf, @function
kt_probe_mf:
	lea 1f(%rip), %rax
	mov %rax, kt_fixup(%rip)
	mov %rsp, kt_fixup_rsp(%rip)
	fninit
	push $0x37b
	fldcw (%rsp)
	fld1
	fldz
	fdivrp
	fwait
	movq $0, kt_fixup(%rip)
	pop %rcx
	fninit
	xor %eax, %eax
	ret
1:	fninit
	mov $1, %eax
	ret
	.size kt_probe_mf, . - kt_probe_mf

/* A non-canonical load is #GP on every processor. */
	.globl kt_probe_gp
	.type kt_probe_gp, @function
kt_probe_gp:
	lea 1f(%rip), %rax
	mov %rax, kt_fixup(%rip)
	mov %rsp, kt_fixup_rsp(%rip)
	movabs $0x8000000000000000, %rcx
	.globl kt_probe_gp_insn
kt_probe_gp_insn:
	mov (%rcx), %rax
	movq $0, kt_fixup(%rip)
	xor %eax, %eax
	ret
1:	mov $1, %eax
	ret
	.size kt_probe_gp, . - kt_probe_gp

/* The same through rsp: #SS on a processor, #GP where the host makes no difference. */
	.globl kt_probe_ss
	.type kt_probe_ss, @function
kt_probe_ss:
	lea 1f(%rip), %rax
	mov %rax, kt_fixup(%rip)
	mov %rsp, kt_fixup_rsp(%rip)
	push %rbp
	movabs $0x8000000000000000, %rbp
	mov (%rbp), %rax
	pop %rbp
	movq $0, kt_fixup(%rip)
	xor %eax, %eax
	ret
1:	mov -8(%rsp), %rbp
	mov $1, %eax
	ret
	.size kt_probe_ss, . - kt_probe_ss

/* Byte for byte what the execution tests copy into fresh pages: mov $0x2a, %eax; ret */
	.section .rodata
	.globl kt_code, kt_code_end
kt_code:
	mov $0x2a, %eax
	ret
kt_code_end:


	.bss
	.balign 4096
	.globl kt_stack
kt_stack:
	.skip 65536
	.globl kt_stack_top
kt_stack_top:
	.globl kt_escaped
	.balign 16
kt_escaped:
	.skip 8
kt_fixup_rbp:
	.skip 8

	.section .note.GNU-stack, "", @progbits
