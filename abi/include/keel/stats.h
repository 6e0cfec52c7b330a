/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/* STATS: per-call counters. CRASH: reasons. */
#ifndef KEEL_STATS_H
#define KEEL_STATS_H

#include <keel/types.h>

#define KEEL_STATS_MAX 128 /* entries one stats_read call writes at most */

/* crash: reason */
#define KEEL_CRASH_PANIC 0  /* the guest gave up, see the message */
#define KEEL_CRASH_ASSERT 1 /* a failed assertion */
#define KEEL_CRASH_TRAP 2   /* a trap the guest could not handle */
#define KEEL_CRASH_REASON_MAX 255
#define KEEL_CRASH_MESSAGE_MAX 1024

#ifndef __ASSEMBLER__
/*
 * struct keel_stats_entry - counters of one call on this vCPU's partition, in
 * the order of hypercalls.def.
 *
 *	 0  id       OUT  call number
 *	 4  reserved OUT  zero
 *	 8  calls    OUT  times called, inside batches included
 *	16  errors   OUT  of those, answered with a negative status
 *	24  work     OUT  records, pages or bytes worked off, by call (SPEC)
 */
struct keel_stats_entry {
	keel_u32 id;
	keel_u32 reserved;
	keel_u64 calls;
	keel_u64 errors;
	keel_u64 work;
};
KEEL_ASSERT_SIZE(struct keel_stats_entry, 32);
KEEL_ASSERT_AT(struct keel_stats_entry, id, 0);
KEEL_ASSERT_AT(struct keel_stats_entry, reserved, 4);
KEEL_ASSERT_AT(struct keel_stats_entry, calls, 8);
KEEL_ASSERT_AT(struct keel_stats_entry, errors, 16);
KEEL_ASSERT_AT(struct keel_stats_entry, work, 24);
#endif

#endif
