/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Calls that work off a bounded part of what is asked, repeated from where they
 * stopped until all of it is done. Page-table batches have a builder of their
 * own, batch.h.
 *
 * Each returns the first status that is not KEEL_OK, and with it how much was done; a
 * call that succeeds without getting any further is reported as KEEL_E_STATE.
 */
#ifndef HYPERCALL_REPEAT_H
#define HYPERCALL_REPEAT_H

#include <hypercall/trap.h>

KEEL_BEGIN_C

/**
 * keel_multicall_all - execute a batch of calls
 * @entries: struct keel_multicall[count]
 * @count: number of entries
 * @results: struct keel_multicall_result[count]
 * @flags: KEEL_MULTICALL_*
 *
 * value: entries executed. With KEEL_MULTICALL_STOP_ON_ERROR fewer than @count means that the
 * last one executed failed; each entry's own status is in its result. An entry that did
 * only part of its work is not repeated.
 *
 * The results have to be readable at @result_va, to tell a stop from an early return;
 * NULL without KEEL_MULTICALL_STOP_ON_ERROR.
 */
struct keel_ret keel_multicall_all(keel_gpa_t entries, keel_u32 count, keel_gpa_t results, keel_u64 flags,
				   const struct keel_multicall_result *result_va);

/* Mask, unmask and send: struct keel_event_record[count]. value: records done. */
struct keel_ret keel_event_batch_all(keel_gpa_t records, keel_u32 count);

/* Give memory back, or have it now. value: pages done. */
struct keel_ret keel_memory_release_all(keel_gpa_t gpa, keel_u64 len);
struct keel_ret keel_memory_populate_all(keel_gpa_t gpa, keel_u64 len);

/* Begin and end to track writes. value: pages done. */
struct keel_ret keel_harvest_start_all(keel_as_t as, keel_u64 va, keel_u64 len, keel_u64 flags);
struct keel_ret keel_harvest_stop_all(keel_as_t as, keel_u64 va, keel_u64 len);

/* Collect written pages. value: pages done | pages written << 32, as of one call; for up to 2^32 - 1 pages. */
struct keel_ret keel_harvest_collect_all(keel_as_t as, keel_u64 va, keel_u64 len, keel_gpa_t bitmap);

/* A copy of an address space, called for until it is complete. value: its handle. */
struct keel_ret keel_as_clone_all(keel_as_t as, keel_u64 flags);

/* Destroy an address space; waits until other vCPUs have left it. */
struct keel_ret keel_as_destroy_all(keel_as_t as);

/**
 * keel_user_run - run guest user code until it wants something
 * @as: its address space
 * @context: struct keel_user, see user.h
 *
 * Enters again after events, which are delivered in between. Call with IF on; with IF off
 * KEEL_USER_EVENT is handed through, since the event stays pending. value: KEEL_USER_*.
 */
struct keel_ret keel_user_run(keel_as_t as, keel_gpa_t context);

KEEL_END_C

#endif
