/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts of the OS layer know of each other. */
#ifndef KEEL_UM_H
#define KEEL_UM_H

#include <linux/types.h>
#include <hypercall/batch.h>
#include <hypercall/call.h>
#include <hypercall/start.h>
#include <hypercall/trap.h>

#include "keel_linux.h"

struct uml_pt_regs;

/* start.c */
extern char keel_boot_stack[];
extern const struct keel_start *keel_start;
/* End the partition as crashed, with these last words. */
void keel_die(const char *message) __noreturn;
/* A call that cannot fail as things are: if it does, end with what it was. */
u64 keel_must(struct keel_ret ret, const char *what);

/* user.c. What was done for user spaces since the start. */
struct keel_mmu_stats {
	u64 calls, records, pages; /* of mmu_batch */
	u64 faults, enters;
};
extern struct keel_mmu_stats keel_mmu_stats;

/* signal.c: the XSAVE area of a task */
#define KEEL_FP_BYTES (sizeof(((struct uml_pt_regs *)0)->fp))
#define KEEL_XSAVE_BASIC 576 /* legacy area and header */
void keel_fp_init(u8 *fp);
/* Write what the header leaves out, x87 and SSE state in its initial configuration. */
void keel_fp_spell_out(u8 *fp);
/* Leave nothing in it that cannot be loaded; components beyond n bytes are as in the beginning. */
void keel_fp_clean(u8 *fp, size_t n);

/* irq.c */
void keel_irq_init(void);
extern struct keel_irq_stats {
	u64 upcalls; /* events that interrupted the kernel */
	u64 waits;   /* sleeps of the idle task */
	u64 late_ns; /* timers' time between when they were due and when they were handled */
} keel_irq_stats;
/* Handle what is pending; interrupts are off. regs: what was interrupted. */
void keel_irq_dispatch(struct uml_pt_regs *regs);
#endif
