/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/* Guest time from the clock page, without a call. */
#ifndef HYPERCALL_CLOCK_H
#define HYPERCALL_CLOCK_H

#include <hypercall/compat.h>
#include <keel/time.h>

KEEL_BEGIN_C

/* One consistent copy of the clock page's fields. */
struct keel_clock_sample {
	keel_u64 base_tsc;
	keel_u64 base_ns;
	keel_u64 mult;
	keel_u64 wall_ns;
	keel_u64 disruption;
};

/**
 * keel_clock_sample - copy the clock page
 * @clock: the page
 * @s: filled in, also when the page is not valid: wall_ns holds all the same
 *
 * Returns false when the page is not valid, or stays in the middle of an update for
 * unreasonably long; time_read works then.
 */
bool keel_clock_sample(const struct keel_clock __pvshared *clock, struct keel_clock_sample *s);

/**
 * keel_clock_scale - ticks to nanoseconds: (ticks * mult) >> 32 on 128 bits
 * Saturates where the result does not fit 64 bits.
 */
keel_u64 keel_clock_scale(keel_u64 ticks, keel_u64 mult);

/* Guest time at a TSC value; base_ns when that lies before base_tsc. Saturates at KEEL_TIME_NEVER. */
keel_u64 keel_clock_ns(const struct keel_clock_sample *s, keel_u64 tsc);

/**
 * keel_clock_ticks - nanoseconds to ticks, rounded up
 * A TSC value this many ticks later reads at least @ns later. Saturates; ~0 when mult is 0 and @ns is not.
 */
keel_u64 keel_clock_ticks(keel_u64 ns, keel_u64 mult);

/**
 * keel_clock_mult - the multiplier for a TSC frequency
 * ns per tick in 32.32 fixed point, rounded down so that the clock is never fast; 0 when tsc_hz is 0.
 */
keel_u64 keel_clock_mult(keel_u64 tsc_hz);

/**
 * keel_clock_read - guest time now
 * Returns false like keel_clock_sample(). Not in the kernel build: it reads the TSC
 * itself, between the two looks at seq.
 */
#ifndef __KERNEL__
bool keel_clock_read(const struct keel_clock __pvshared *clock, keel_u64 *ns);

static inline keel_u64 keel_rdtsc(void)
{
	keel_u32 lo, hi;

	/* lfence: not before the loads that precede it in program order. */
	__asm__ volatile("lfence\n\trdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (keel_u64)hi << 32 | lo;
}
#endif

KEEL_END_C

#endif
