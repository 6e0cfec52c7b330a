/* SPDX-License-Identifier: MIT */
/*
 * A thread for each vCPU. All are made before K is sealed, for its filter knows no
 * clone; one whose vCPU is stopped sleeps on mvcpu.run. Each has its signal stack, its
 * GS base, a timer that signals no other thread, and one signal that the host can
 * reach it by and the others block. Mask, filter and limits are the process's.
 */
#include <linux/errno.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <linux/time.h>
#include <asm/unistd.h>

#include "k.h"

#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)
#define RELAX_YIELD 64 /* looks at what another vCPU does; its thread may need this processor */
#define CPUID_1_ECX_OSXSAVE (1u << 27)

/* Of the host's kicks the calling thread takes only this vCPU's; a thread it makes begins so. */
static long take_kicks_of(uint32_t n)
{
	const uint64_t mask = ((KEEL_U64(1) << MON_MAX_VCPUS) - 1) << (K_SIG_HOST_KICK - 1) &
			      ~(KEEL_U64(1) << (K_SIG_HOST_KICK - 1 + n));

	return sys4(__NR_rt_sigprocmask, SIG_SETMASK, (uint64_t)&mask, 0, sizeof(mask));
}

/* The filter allows timers 0 to vcpus - 1, which is how a fresh process numbers them. */
static long make_timer(struct mvcpu *v)
{
	struct sigevent_k {
		uint64_t value;
		int signo, notify, tid, pad[11];
	} ev = { 0, SIG_TIMER, SIGEV_THREAD_ID, (int)v->backend[K_SLOT_TID], { 0 } };
	int timer;
	long err;

	err = sys3(__NR_timer_create, CLOCK_MONOTONIC, (uint64_t)&ev, (uint64_t)&timer);
	if (!err && timer != (int)v->id)
		err = -EBADSLT;
	v->backend[K_SLOT_TIMER] = v->id;
	return err;
}

void k_make_threads(struct mvcpu *v)
{
	const uint32_t vcpus = mon()->vcpus;
	long err;

	v->backend[K_SLOT_TID] = sys0(__NR_gettid);
	for (uint32_t n = 1; n < vcpus; n++) {
		long tid = take_kicks_of(n);

		if (!tid)
			tid = k_clone(THREAD_FLAGS, vcpu(n)->page);
		if (tid < 0)
			k_fail(v, K_STEP_THREADS, tid);
		vcpu(n)->backend[K_SLOT_TID] = tid;
	}
	err = take_kicks_of(0);
	if (err)
		k_fail(v, K_STEP_SIGNALS, err);
	for (uint32_t n = 0; n < vcpus; n++) {
		err = make_timer(vcpu(n));
		if (err)
			k_fail(v, K_STEP_TIMER, err);
	}
}

void k_await_threads(struct mvcpu *v)
{
	for (uint32_t n = 1; n < mon()->vcpus; n++) {
		long ready;

		while (!(ready = __atomic_load_n(&vcpu(n)->backend[K_SLOT_READY], __ATOMIC_ACQUIRE)))
			sys0(__NR_sched_yield);
		if (ready < 0)
			k_fail(v, K_STEP_THREADS, ready);
	}
}

/* cpuid leaves a virtual machine: asked at a start, not in every call. */
static bool has_xsave(void)
{
	uint32_t a = 1, b, c = 0, d;

	__asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return c & CPUID_1_ECX_OSXSAVE;
}

static void __attribute__((noreturn)) await_start(struct mvcpu *v)
{
	uint32_t run;

	while ((run = __atomic_load_n(&v->run, __ATOMIC_ACQUIRE)) != MON_STARTING)
		sys6(__NR_futex, (uint64_t)&v->run, FUTEX_WAIT_BITSET, run, 0, 0, FUTEX_BITSET_MATCH_ANY);
	mon_begin(v);
	k_begin(has_xsave(), v->backend[K_SLOT_FSGSBASE]);
}

void k_thread(struct keel_vcpu *page)
{
	struct mvcpu *v = mv_of(page);
	const long err = k_own_block(page);

	__atomic_store_n(&v->backend[K_SLOT_READY], err ? err : 1, __ATOMIC_RELEASE);
	await_start(v);
}

void mb_park(struct mvcpu *v)
{
	await_start(v);
}

/* On its thread the signal moves kick_seq, which a wait that is about to begin looks at. */
void mb_kick(struct mvcpu *v, struct mvcpu *to)
{
	(void)v;
	sys3(__NR_tgkill, config()->tgid, to->backend[K_SLOT_TID], SIG_KICK);
}

/* Nothing here can hand over the rest of a time slice: whoever is next may be `to`. */
void mb_yield(struct mvcpu *v, struct mvcpu *to)
{
	(void)v, (void)to;
	sys0(__NR_sched_yield);
}

void mb_relax(unsigned int round)
{
	if (round % RELAX_YIELD == RELAX_YIELD - 1)
		sys0(__NR_sched_yield);
	else
		__asm__ volatile("pause");
}
