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
#define PV_SYSCALL_OFF 0x1100 /* where `syscall` arrives */
#define PV_VECTORS_OFF 0x2000 /* entry of vector n at + n * PV_VECTOR_SIZE */
#define PV_VECTOR_SIZE 16

/* Behind the image, made by the host. A task state segment for each vCPU. */
#define PV_GDT_OFF 0x000
#define PV_TSS_OFF(vcpu) (0x200 + 0x80 * (vcpu))
#define PV_IDT_OFF 0x1000
#define PV_TABLES_SIZE 0x2000

#define PV_CS 0x08
#define PV_SS 0x10
/* As STAR wants them for sysret: the selector for 32-bit code would be PV_SS. */
#define PV_USER_SS 0x1b
#define PV_USER_CS 0x23
#define PV_TR(vcpu) (0x28 + 0x10 * (vcpu))

/* Interrupt stack of every vector, in the vCPU's block: its place tells whose it is. */
#define PV_IST_TOP 0x30000

/* In the vCPU's block as well: the door's page ends where the stack begins; then FP state and TLB of user code. */
#define PV_DOOR_OFF (PV_IST_TOP - 0x1000)
#define PV_FP_OFF PV_IST_TOP
#define PV_TLB_OFF (PV_IST_TOP + 0x1000)

/* struct pv_door */
#define PD_CR3 0x00
#define PD_STACK 0x08
#define PD_TOP 0x10
#define PD_SCRATCH 0x18
#define PD_RAX 0x20 /* from here on as it is taken from the stack */
#define PD_RIP 0x28
#define PD_CS 0x30
#define PD_RFLAGS 0x38
#define PD_RSP 0x40
#define PD_SS 0x48

/* struct pv_frame */
#define PVF_VECTOR 0x78
#define PVF_RIP 0x88
#define PVF_CS 0x90
#define PVF_SS 0xa8

/* For `syscall`: where to, and what is cleared: TF IF DF IOPL NT AC. */
#define PV_STAR (((uint64_t)PV_SS | 3) << 48 | (uint64_t)PV_CS << 32)
#define PV_FMASK 0x47700
#define PV_USER_FLAGS 0x202 /* what user code has set besides */
#define SYSCALL_LENGTH 2

#define PV_EXCEPTIONS 32 /* vectors below are the architecture's */
/* A vCPU's LAPIC id is its number. */
#define PV_VECTOR_KICK 0xf0
#define PV_VECTOR_TIMER 0xf1
#define PV_VECTOR_SHOOT 0xf2 /* flush what was unmapped or taken rights from */
#define PV_VECTOR_SPURIOUS 0xff

#define PV_PORT_REMOTE 0x4b45 /* out: serve the call in the remote slot */
#define PV_PORT_DOORBELL 0x4b46

#define PV_VECTOR_SYSCALL 0x200 /* in pv_frame.vector */
#define PV_SOFTWARE 0x100	/* in pv_frame.vector: an `int n` of a vector that has an error code in hardware */

#ifndef __ASSEMBLER__
#include <stdint.h>

/* What an interrupt leaves on its stack, the error word always there. */
struct pv_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;
};

/*
 * What the way to user code and back goes through: all of the vCPU's block that is
 * touched while the user's page tables are loaded, with the interrupt stack's first words.
 */
struct pv_door {
	uint64_t cr3;	  /* the guest kernel's */
	uint64_t stack;	  /* the monitor's, while user code runs; 0 = none does */
	uint64_t top;	  /* of the interrupt stack */
	uint64_t scratch; /* user code's rsp */
	uint64_t leave[6];
};

/* What the TLB may hold of user address spaces, by PCID - 1; 0 is the guest kernel's. */
#define PV_PCIDS 15
struct pv_tlb {
	struct {
		uint64_t id, gen; /* of struct as, when it was last entered */
	} space[PV_PCIDS];
	uint32_t next; /* to be used for another space */
};

/* as.backend[] of user address spaces. */
enum {
	PV_AS_ID,    /* never used again */
	PV_AS_GEN,   /* moves with each reduction: what a TLB holds of an earlier one is stale */
	PV_AS_DIRTY, /* mb_settle() has to look */
};

/* In mon.backend, filled in by the host. */
struct pv_config {
	uint64_t window;      /* the root's entry for the host's window */
	uint64_t user_window; /* and that of user address spaces */
	uint64_t tsc_mult;    /* guest ns per TSC tick, 32.32, for when the clock page is not valid */
	uint32_t fsgsbase;    /* rdgsbase may be used */
	uint32_t pv_eoi;      /* KVM says in memory which interrupts need no EOI: one exit less each */
	uint32_t xsave;	      /* XSAVE may be used */
	uint32_t xsaveopt;    /* and this one */
	uint32_t fip_stays;   /* FXRSTOR and XRSTOR leave the last x87 instruction's address as it is */
	uint32_t pcid;	      /* CR4.PCIDE is set */
	uint32_t invpcid;
	uint64_t spaces_made; /* numbers of user address spaces */
	uint32_t yield;	      /* PV_YIELD_*: how to give a vCPU the processor */
};

enum { PV_YIELD_NONE, PV_YIELD_VMCALL, PV_YIELD_VMMCALL };

/* mvcpu.backend[]: the LAPIC timer serves the guest's timer and the monitor's wait. */
enum {
	PV_SLOT_TIMER, /* guest ns */
	PV_SLOT_WAIT,  /* guest ns */
	PV_SLOT_ARMED, /* guest ns the LAPIC was armed for, KEEL_TIME_NEVER = off */
	PV_SLOT_EOI,   /* bit 0 written by KVM: the interrupt being served needs no EOI */
	PV_SLOT_FAULT, /* a fault is being looked at: rights are added to what was there, never taken */
	PV_SLOT_SEEN,  /* the last reduction of the guest kernel's space that the TLB knows of */
	/* These are for the others, too. */
	PV_SLOT_QUIET,	  /* enum pv_quiet */
	PV_SLOT_ASKED,	  /* shootdowns */
	PV_SLOT_ANSWERED, /* of them */
};

/* Pseudo calls of this backend (monitor.h has the others). */
#define PV_REMOTE_NOW 0xff000010u     /* value = guest time in ns */
#define PV_REMOTE_RELEASE 0xff000011u /* memory_release's arguments; status */
#endif

#endif
