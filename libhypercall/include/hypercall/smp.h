/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Several vCPUs: starting one on a stack of its own, finding the pages of the
 * others, stopping. Part of the guest library, needs KEEL_F1_SMP but for what
 * works with one vCPU too.
 *
 * A started vCPU has no trap entry, no port and no timer: it makes its own with
 * keel_entry_install(), keel_event_init(), event_alloc. Handlers are one table for
 * all vCPUs; only stacks given to keel_entry_install() have to be its own. Ports
 * allocated in the same order have the same bit on every vCPU, which is what
 * vcpu_ipi wants.
 */
#ifndef HYPERCALL_SMP_H
#define HYPERCALL_SMP_H

#include <hypercall/call.h>
#include <hypercall/set.h>

KEEL_BEGIN_C

/* vCPUs there are, all of which keel_smp_start() can start; 1 without KEEL_F1_SMP. */
keel_u32 keel_vcpus(void);

/* The page of any vCPU; NULL when there is none of this number. */
struct keel_vcpu *keel_vcpu_page_of(keel_u32 vcpu);

/* This vCPU's number. */
static inline keel_u32 keel_vcpu_id(void)
{
	keel_u32 id;

	__asm__ volatile("movl %%gs:%c1, %0" : "=r"(id) : "i"(KEEL_VCPU_ID));
	return id;
}

/* Word 0 to 7 of the vCPU page that are the guest's own, the place of per-vCPU data. */
#define keel_vcpu_word(n)                                                                                  \
	({                                                                                                 \
		keel_u64 keel_word_;                                                                       \
		__asm__ volatile("movq %%gs:%c1, %0" : "=r"(keel_word_) : "i"(KEEL_VCPU_GUEST + 8 * (n))); \
		keel_word_;                                                                                \
	})

/**
 * keel_smp_start - have a stopped vCPU run a function
 * @vcpu: its number
 * @stack_top: end of its stack, 16-byte aligned; 32 bytes below it are used here
 * @fn: runs with IF off and must not rely on any trap being handled before it set an entry;
 *	when it returns the vCPU stops
 * @arg: passed to it
 * @word0: stored in word 0 of its vCPU page before that
 *
 * Returns a status.
 */
keel_s64 keel_smp_start(keel_u32 vcpu, void *stack_top, void (*fn)(void *arg), void *arg, void *word0);

/**
 * keel_smp_stop - stop a vCPU and wait until it has
 * @vcpu: its number; the calling one does not come back
 *
 * It stops wherever it is, so what it was in the middle of stays so: locks it holds are
 * held. Returns a status.
 */
keel_s64 keel_smp_stop(keel_u32 vcpu);

/* Does it run? False for one that does not exist. */
bool keel_smp_running(keel_u32 vcpu);

/* In a loop that waits for another vCPU: it may need the processor we are on. */
void keel_smp_relax(void);

/* src/entry.S: where keel_smp_start() starts a vCPU. */
extern char keel_smp_entry[];

KEEL_END_C

#endif
