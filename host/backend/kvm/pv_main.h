/* SPDX-License-Identifier: MIT */
/* What the files of the monitor's kvm half have of each other. */
#ifndef KEEL_KVM_PV_MAIN_H
#define KEEL_KVM_PV_MAIN_H

#include "../../monitor/monitor.h"
#include "pv.h"

#define PV_FLUSH_MAX 32 /* pages; beyond that everything is flushed, which costs about as much */
#define PV_ROOT_SHIFT 39

static inline struct pv_config *pv_config(void)
{
	return (struct pv_config *)((struct mon *)MON_VA)->backend;
}

/* Physical address of an address space's root. */
static inline uint64_t pv_root(const struct mon *m, const struct as *as)
{
	return m->arena_base + (uint64_t)((uint8_t *)as->root - m->arena);
}

/* An interrupt that reached this vCPU in user code; interrupts are off. */
/* Make the vCPUs of a set (bit per vCPU) leave user code, or flush; returns when they have. */
void pv_shoot(struct mvcpu *v, uint32_t vcpus);
void pv_upcall(struct mvcpu *v, uint32_t vector);

/* pv_user.c: this vCPU, before its first entry of user code. */
void pv_user_init(struct mvcpu *v);
/* What TLBs hold of pages of a user address space became stale. Its lock is held. */
void pv_user_stale(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages);
/* Until no vCPU uses anything stale any more. Its lock is held. */
void pv_user_settle(struct mvcpu *v, struct as *as);

/* pv_switch.S: where `syscall` arrives */
extern char pv_syscall[] MON_SYMBOL;

#endif
