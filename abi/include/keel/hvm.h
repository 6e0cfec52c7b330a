/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * HVM: how a kernel that owns its page tables and interrupts finds the ABI.
 * The calls and their meaning are the same; SPEC.md, chapter HVM, has the rest.
 *
 * Discovery is CPUID. Look at leaf n for n = KEEL_CPUID_FIRST to _LAST in steps
 * of _STEP for the signature in ebx, ecx and edx; relative to the leaf found:
 *
 *	+0  eax = last leaf, ebx ecx edx = "KeelKeelKeel"
 *	+1  eax = major, ebx = minor, ecx = release candidate of the ABI, edx = 0
 *	+2  eax, ebx = low and high half of feature word 0; ecx, edx = of word 1
 *	+3  eax = first MSR, ebx = number of MSRs, ecx = GSI of the upcall line, edx = 0
 *
 * Then, on each vCPU, in ring 0:
 *
 *	KEEL_MSR_GATE    GPA | KEEL_MSR_ENABLE: the host writes the gate's code into
 *	                 this page of RAM. Map it executable and call its first byte
 *	                 in 64-bit mode, registers as for %gs:KEEL_VCPU_GATE
 *	                 (KEEL-CALL-01). 0: none.
 *	KEEL_MSR_VCPU    GPA | KEEL_MSR_ENABLE: page of RAM for struct keel_vcpu,
 *	                 which the host fills in; EVENT needs it. 0: none.
 *	KEEL_MSR_UPCALL  how `pending` becoming non-zero is told: KEEL_UPCALL_LAPIC |
 *	                 vector, KEEL_UPCALL_GSI, or 0: not at all.
 *
 * A value that is not one of these is #GP and changes nothing. A read returns
 * what was written last. Numbers up to KEEL_MSR_LAST are reserved and #GP.
 */
#ifndef KEEL_HVM_H
#define KEEL_HVM_H

#include <keel/types.h>

#define KEEL_CPUID_FIRST KEEL_U32(0x40000000)
#define KEEL_CPUID_LAST KEEL_U32(0x4000ff00)
#define KEEL_CPUID_STEP KEEL_U32(0x100)
#define KEEL_CPUID_SIGNATURE KEEL_U32(0x6c65654b) /* "Keel", in ebx, in ecx and in edx */

/* Leaves, relative to the one with the signature. */
#define KEEL_CPUID_BASE 0
#define KEEL_CPUID_VERSION 1
#define KEEL_CPUID_FEATURES 2
#define KEEL_CPUID_MSRS 3
#define KEEL_CPUID_LEAVES 16 /* those after _MSRS and below this are zero */

#define KEEL_MSR_GATE KEEL_U32(0x4b454c00)
#define KEEL_MSR_VCPU KEEL_U32(0x4b454c01)
#define KEEL_MSR_UPCALL KEEL_U32(0x4b454c02)
#define KEEL_MSR_COUNT 3
#define KEEL_MSR_LAST KEEL_U32(0x4b454cff)

/* KEEL_MSR_GATE, KEEL_MSR_VCPU: page-aligned GPA | this, or 0. */
#define KEEL_MSR_ENABLE KEEL_U64(1)

/* KEEL_MSR_UPCALL: LAPIC | vector, or GSI alone, or 0. */
#define KEEL_UPCALL_VECTOR KEEL_U64(0xff) /* mask: 0x20..0xff, 0 with KEEL_UPCALL_GSI */
#define KEEL_UPCALL_LAPIC KEEL_U64(0x100) /* raise the vector on this vCPU's LAPIC */
#define KEEL_UPCALL_GSI KEEL_U64(0x200)	  /* pulse the line KEEL_CPUID_MSRS names */
#define KEEL_UPCALL_VECTOR_MIN 0x20

#ifndef __ASSEMBLER__
KEEL_ASSERT(KEEL_CPUID_SIGNATURE == ('K' | 'e' << 8 | 'e' << 16 | 'l' << 24));
KEEL_ASSERT(KEEL_MSR_VCPU == KEEL_MSR_GATE + 1 && KEEL_MSR_UPCALL == KEEL_MSR_GATE + 2);
KEEL_ASSERT(KEEL_MSR_UPCALL - KEEL_MSR_GATE + 1 == KEEL_MSR_COUNT && KEEL_MSR_LAST == (KEEL_MSR_GATE | 0xff));
KEEL_ASSERT(!((KEEL_UPCALL_LAPIC | KEEL_UPCALL_GSI) & KEEL_UPCALL_VECTOR) && KEEL_MSR_ENABLE < KEEL_PAGE_SIZE);
#endif

#endif
