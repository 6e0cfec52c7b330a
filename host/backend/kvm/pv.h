/* SPDX-License-Identifier: MIT */
/*
 * The paravirtual machine's inside: shared by the monitor's kvm half, which runs in
 * the guest at CPL 0, and the host.
 *
 * Physical addresses of the machine:
 *
 *	0x10000000  text: the monitor's image and the descriptor tables, read-only
 *	0x20000000  data: vCPU blocks, struct mon, arena, the window's page tables
 *	4 GiB + g   what GPA g of the ABI is: RAM, and above it the ABI pages, read-only
 *
 * RAM starts where no device page of the machine can be in its way.
 */
#ifndef KEEL_KVM_PV_H
#define KEEL_KVM_PV_H

#include "../../monitor/layout.h"

#define PV_TEXT_GPA 0x10000000
#define PV_DATA_GPA 0x20000000
#define PV_RAM_GPA 0x100000000

/* In the monitor's image; pv.ld asserts them. */
#define PV_BUG_OFF 0xff8      /* KEEL_BUG number, test builds only */
#define PV_START_OFF 0x1000   /* first instruction */
#define PV_VECTORS_OFF 0x2000 /* entry of vector n at + n * PV_VECTOR_SIZE */
#define PV_VECTOR_SIZE 16

/* Behind the image, made by the host. */
#define PV_GDT_OFF 0x000
#define PV_TSS_OFF 0x100
#define PV_IDT_OFF 0x1000
#define PV_TABLES_SIZE 0x2000

#define PV_CS 0x08
#define PV_SS 0x10
#define PV_TR 0x18

/* Interrupt stack of every vector, in the vCPU's block: its place tells whose it is. */
#define PV_IST_TOP 0x30000

#define PV_VECTOR_KICK 0xf0
#define PV_VECTOR_TIMER 0xf1
#define PV_VECTOR_SPURIOUS 0xff

#define PV_PORT_REMOTE 0x4b45 /* out: serve the call in the remote slot */
#define PV_PORT_DOORBELL 0x4b46

#define PV_SOFTWARE 0x100 /* in pv_frame.vector: an `int n` of a vector that has an error code in hardware */

#ifndef __ASSEMBLER__
#include <stdint.h>

/* What an interrupt leaves on its stack, the error word always there. */
struct pv_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;
};

/* In mon.backend, filled in by the host. */
struct pv_config {
	uint64_t window;     /* the root's entry for the host's window */
	uint64_t tsc_mult;   /* guest ns per TSC tick, 32.32, for when the clock page is not valid */
	uint32_t fsgsbase;   /* rdgsbase may be used */
	uint32_t pv_eoi;     /* KVM says in memory which interrupts need no EOI: one exit less each */
	uint32_t tables_put; /* mon.tables_put when the TLB was last flushed; the monitor's own */
};

/* mvcpu.backend[]: the LAPIC timer serves the guest's timer and the monitor's wait. */
enum {
	PV_SLOT_TIMER, /* guest ns */
	PV_SLOT_WAIT,  /* guest ns */
	PV_SLOT_ARMED, /* guest ns the LAPIC was armed for, KEEL_TIME_NEVER = off */
	PV_SLOT_EOI,   /* bit 0 written by KVM: the interrupt being served needs no EOI */
};

/* Pseudo calls of this backend (monitor.h has the others). */
#define PV_REMOTE_NOW 0xff000010u     /* value = guest time in ns */
#define PV_REMOTE_RELEASE 0xff000011u /* memory_release's arguments; status */
#endif

#endif
