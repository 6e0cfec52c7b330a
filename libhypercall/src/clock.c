// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Guest time from the clock page; see keel/time.h for the protocol. */
#include <hypercall/clock.h>

#include "mutant.h"

/*
 * How often to look at a page that is being updated. An update is a handful of
 * stores, but its writer can be off the processor in the middle of it.
 */
#define CLOCK_TRIES 1000

typedef unsigned __int128 u128;

/* One attempt; the TSC, where wanted, is read inside the window that seq guards. */
static bool clock_try(const struct keel_clock __pvshared *clock, struct keel_clock_sample *s, bool *valid,
		      keel_u64 *tsc)
{
	keel_u32 seq = keel_shared_load32_acquire(&clock->seq);

	if (seq & 1 && !KEEL_MUTANT(4))
		return false;
	*valid = keel_shared_load32(&clock->flags) & KEEL_CLOCK_VALID;
	s->base_tsc = keel_shared_load64(&clock->base_tsc);
	s->base_ns = keel_shared_load64(&clock->base_ns);
	s->mult = keel_shared_load64(&clock->mult);
	s->wall_ns = keel_shared_load64(&clock->wall_ns);
	s->disruption = keel_shared_load64(&clock->disruption);
#ifndef __KERNEL__
	if (tsc)
		*tsc = keel_rdtsc();
#else
	(void)tsc;
#endif
	/* The second look must not move above the loads. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return keel_shared_load32(&clock->seq) == seq;
}

bool keel_clock_sample(const struct keel_clock __pvshared *clock, struct keel_clock_sample *s)
{
	bool valid;
	int i;

	for (i = 0; i < CLOCK_TRIES; i++)
		if (clock_try(clock, s, &valid, NULL))
			return valid;
	return false;
}

#ifndef __KERNEL__
bool keel_clock_read(const struct keel_clock __pvshared *clock, keel_u64 *ns)
{
	struct keel_clock_sample s;
	keel_u64 tsc;
	bool valid;
	int i;

	for (i = 0; i < CLOCK_TRIES; i++) {
		if (!clock_try(clock, &s, &valid, &tsc))
			continue;
		if (valid)
			*ns = keel_clock_ns(&s, tsc);
		return valid;
	}
	return false;
}
#endif

keel_u64 keel_clock_scale(keel_u64 ticks, keel_u64 mult)
{
	u128 ns = ((u128)ticks * mult) >> 32;

	return ns >> 64 && !KEEL_MUTANT(5) ? ~KEEL_U64(0) : (keel_u64)ns;
}

keel_u64 keel_clock_ns(const struct keel_clock_sample *s, keel_u64 tsc)
{
	keel_u64 delta;

	if (tsc < s->base_tsc)
		return s->base_ns;
	delta = keel_clock_scale(tsc - s->base_tsc, s->mult);
	return delta > ~s->base_ns ? ~KEEL_U64(0) : s->base_ns + delta;
}

/*
 * n / d, rounded up, for n = hi:lo of 128 bits and hi < d; one bit at a time,
 * because compilers turn a 128-bit division into a call of a library that is not there.
 */
static keel_u64 divide(keel_u64 hi, keel_u64 lo, keel_u64 d, keel_u64 *rest)
{
	keel_u64 q = 0;
	int i;

	for (i = 63; i >= 0; i--) {
		bool carry = hi >> 63;

		hi = hi << 1 | (lo >> i & 1);
		if (carry || hi >= d) {
			hi -= d;
			q |= KEEL_U64(1) << i;
		}
	}
	*rest = hi;
	return q;
}

keel_u64 keel_clock_ticks(keel_u64 ns, keel_u64 mult)
{
	keel_u64 q, rest;

	/* ns << 32 is (ns >> 32):(ns << 32). */
	if (!mult || ns >> 32 >= mult)
		return ns ? ~KEEL_U64(0) : 0;
	q = divide(ns >> 32, ns << 32, mult, &rest);
	return rest && q != ~KEEL_U64(0) && !KEEL_MUTANT(6) ? q + 1 : q;
}

keel_u64 keel_clock_mult(keel_u64 tsc_hz)
{
	keel_u64 rest;

	/* 10^9 << 32 is below 2^62. */
	return tsc_hz ? divide(0, KEEL_U64(1000000000) << 32, tsc_hz, &rest) : 0;
}
