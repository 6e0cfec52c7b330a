/* SPDX-License-Identifier: MIT */
/*
 * The probe's guest: one page of code, at CPL 0 in 64-bit mode, from GPA 0 mapped at
 * VA 0. It touches no memory.
 *
 * The spinning loop is also called natively: same bytes, same place in a page.
 */
#include "kvm_probe.h"

	.text
	.balign	4096
	.globl	kvm_probe_page, kvm_probe_spin, kvm_probe_sse, kvm_probe_exits, kvm_probe_doorbells, kvm_probe_cpuids

kvm_probe_page:
kvm_probe_spin:				/* rdi = rounds, esi = 0 when called natively */
1:	dec	%rdi
	jnz	1b
	test	%esi, %esi
	jnz	2f
	ret
2:	out	%eax, $PROBE_PORT_DONE

	.balign	64
kvm_probe_sse:				/* what compilers make of floating point and of copies; eax = PROBE_SSE_SUM */
	mov	$PROBE_SSE_HALF, %eax
	movd	%eax, %xmm0
	movaps	%xmm0, %xmm1
	paddd	%xmm1, %xmm0
	movd	%xmm0, %eax
	out	%eax, $PROBE_PORT_DONE

	.balign	64
kvm_probe_exits:			/* rdi = rounds */
1:	out	%eax, $PROBE_PORT_EXIT
	dec	%rdi
	jnz	1b
	out	%eax, $PROBE_PORT_DONE

	.balign	64
kvm_probe_doorbells:			/* rdi = rounds; an ioeventfd has this port */
1:	out	%eax, $PROBE_PORT_DOORBELL
	dec	%rdi
	jnz	1b
	out	%eax, $PROBE_PORT_DONE

	.balign	64
kvm_probe_cpuids:			/* rdi = rounds; the exit every KVM answers itself */
1:	xor	%eax, %eax
	xor	%ecx, %ecx
	cpuid
	dec	%rdi
	jnz	1b
	out	%eax, $PROBE_PORT_DONE

	.org	kvm_probe_page + 4096, 0xcc

	.section .note.GNU-stack, "", @progbits
