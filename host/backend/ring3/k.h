/* SPDX-License-Identifier: MIT */
/* What the parts of K know of each other. K has no libc; everything here is hidden in its image. */
#ifndef KEEL_RING3_K_H
#define KEEL_RING3_K_H

#include <linux/signal.h>
#include <asm/sigcontext.h>
#include <asm/siginfo.h>
#include <asm/ucontext.h>

#include "../../monitor/monitor.h"
#include "k_sys.h"
#include "layout.h"

#define SIG_KICK SIGUSR1 /* of one vCPU by another */
#define SIG_TIMER SIGUSR2

static inline struct mon *mon(void)
{
	return (struct mon *)MON_VA;
}

static inline struct k_config *config(void)
{
	return (struct k_config *)mon()->backend;
}

/* The vCPU of that number. */
static inline struct mvcpu *vcpu(uint32_t n)
{
	return mv_of((struct keel_vcpu *)(MON_VCPU_VA + (uint64_t)n * MON_BLOCK_SIZE));
}

/* k_main.c. Start-up failed: say where, then wait to be killed. */
void k_fail(struct mvcpu *v, enum k_step step, long err) __attribute__((noreturn));
/* The calling thread takes its signals on its vCPU's signal stack, and finds the vCPU at %gs:0. 0 or -errno. */
long k_own_block(struct keel_vcpu *page);

/* k_smp.c. A thread for each vCPU but the first, asleep until its first start, and a timer for each. */
void k_make_threads(struct mvcpu *v);
/* The threads made above are ready for the filter; fails start-up otherwise. */
void k_await_threads(struct mvcpu *v);
/* First thing in such a thread. */
void k_thread(struct keel_vcpu *page) __attribute__((noreturn));

/* k_entry.S */
long k_clone(uint64_t flags, void *block);
/* Run v->cur with no FP state and FS base 0. */
void k_begin(bool xsave, bool fsgsbase) __attribute__((noreturn));

#endif
