/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * TIME: guest time is nanoseconds since some moment before the partition
 * started; it never steps and never runs backwards. The clock page converts
 * the TSC to it without a call:
 *
 *	do { s = seq (odd: retry); read the fields; } while (seq != s);
 *	ns = base_ns + (((tsc - base_tsc) * mult) >> 32)      (128-bit product)
 *
 * When KEEL_CLOCK_VALID is clear the TSC must not be converted; call time_read.
 * wall_ns and disruption hold either way. Reads with tsc < base_tsc use base_ns.
 */
#ifndef KEEL_TIME_H
#define KEEL_TIME_H

#include <keel/types.h>

#define KEEL_CLOCK_VALID KEEL_U32(1)
#define KEEL_TIME_NEVER KEEL_U64(0xffffffffffffffff)

#ifndef __ASSEMBLER__
/*
 * struct keel_clock - read-only to the guest; may be mapped to guest users.
 *
 *	 0  seq        OUT  odd while the host updates the page
 *	 4  flags      OUT  KEEL_CLOCK_*
 *	 8  base_tsc   OUT  TSC at base_ns
 *	16  base_ns    OUT  guest time at base_tsc
 *	24  mult       OUT  ns per TSC tick, 32.32 fixed point
 *	32  wall_ns    OUT  ns since 1970-01-01 UTC at guest time 0
 *	40  disruption OUT  counts migrations and other breaks of continuity
 *	48  reserved   OUT  zero
 */
struct keel_clock {
	keel_u32 seq;
	keel_u32 flags;
	keel_u64 base_tsc;
	keel_u64 base_ns;
	keel_u64 mult;
	keel_u64 wall_ns;
	keel_u64 disruption;
	keel_u64 reserved[2];
};
KEEL_ASSERT_SIZE(struct keel_clock, 64);
KEEL_ASSERT_AT(struct keel_clock, seq, 0);
KEEL_ASSERT_AT(struct keel_clock, flags, 4);
KEEL_ASSERT_AT(struct keel_clock, base_tsc, 8);
KEEL_ASSERT_AT(struct keel_clock, base_ns, 16);
KEEL_ASSERT_AT(struct keel_clock, mult, 24);
KEEL_ASSERT_AT(struct keel_clock, wall_ns, 32);
KEEL_ASSERT_AT(struct keel_clock, disruption, 40);
KEEL_ASSERT_AT(struct keel_clock, reserved, 48);
#endif

#endif
