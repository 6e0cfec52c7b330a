/* SPDX-License-Identifier: MIT */
/* What the files of the monitor's kvm half have of each other. */
#ifndef KEEL_KVM_PV_MAIN_H
#define KEEL_KVM_PV_MAIN_H

#include "../../monitor/monitor.h"
#include "pv.h"

#define PV_FLUSH_MAX 32 /* pages; beyond that everything is flushed, which costs about as much */
#define PV_ROOT_SHIFT 39
#define PV_YIELD_ROUNDS 4096 /* of waiting, after which the processor is offered to who is waited for */

static inline struct pv_config *pv_config(void)
{
	return (struct pv_config *)((struct mon *)MON_VA)->backend;
}

/* Physical address of an address space's root. */
static inline uint64_t pv_root(const struct mon *m, const struct as *as)
{
	return m->arena_base + (uint64_t)((uint8_t *)as->root - m->arena);
}

/* pv_main.c */

/* An interrupt that reached this vCPU; interrupts are off. */
void pv_upcall(struct mvcpu *v, uint32_t vector);

void pv_ipi(const struct mvcpu *to, uint32_t vector);

/* The processor to a vCPU that was taken off one, where KVM takes such advice. */
void pv_yield_to(const struct mvcpu *to);

/*
 * pv_tlb.c
 *
 * How little of the guest a vCPU sees: quiet ones are not waited for. A shootdown says
 * up to which state it concerns one.
 */
enum pv_quiet {
	PV_LOUD,
	PV_QUIET_KERNEL, /* it is in user code: nothing of the guest kernel's space is used */
	PV_QUIET,	 /* it halts, or is out of the machine: nothing but the host's window is used */
};

/* Become quieter; returns how it was. Interrupts are off. */
enum pv_quiet pv_quiet(struct mvcpu *v, enum pv_quiet how);
/* Become what it was again, having caught up with what the others took. Interrupts are off. */
void pv_loud(struct mvcpu *v, enum pv_quiet was);

/**
 * pv_shoot - interrupt vCPUs, and wait until each has answered or become quiet
 * @v: this vCPU
 * @vcpus: a bit for each of the others
 * @concerns: those that are quieter are left out
 *
 * Who answers has caught up with reductions of the guest kernel's space, and was not in
 * user code for a moment.
 */
void pv_shoot(struct mvcpu *v, uint32_t vcpus, enum pv_quiet concerns);

/* Answer shootdowns. On its own vCPU, in any state. */
void pv_answer(struct mvcpu *v);

/* What CR3 is in the guest kernel. Reading CR3 would be an exit where KVM shadows page tables. */
void pv_load_root(const struct mon *m);

/* pv_user.c: this vCPU, before its first entry of user code. */
void pv_user_init(struct mvcpu *v);
/* What TLBs hold of pages of a user address space became stale. Its lock is held. */
void pv_user_stale(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages);
/* Until no vCPU uses anything stale any more. Its lock is held. */
void pv_user_settle(struct mvcpu *v, struct as *as);

/* pv_switch.S: where `syscall` arrives */
extern char pv_syscall[] MON_SYMBOL;

#endif
