/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Page-table batches: collect range operations, coalesce neighbours into runs,
 * submit when full or flushed, and submit again from where the host stopped.
 *
 * Order is kept, so a batch means what the calls one after the other would.
 * An operation joins the last record only, and only where the result is the
 * same: equal operation, protection and flags, the range right behind it (or
 * right before it, for page-wise MAP and UNMAP going downwards), and for MAP
 * contiguous guest-physical memory too. A range the host rejects as a whole, such as
 * one outside the guest's addresses, takes the run it was joined to with it.
 */
#ifndef HYPERCALL_BATCH_H
#define HYPERCALL_BATCH_H

#include <hypercall/compat.h>
#include <keel/mmu.h>
#include <keel/status.h>

KEEL_BEGIN_C

/* Makes one mmu_batch call. */
typedef struct keel_ret (*keel_batch_submit_fn)(void *ctx, keel_as_t as, keel_gpa_t records, keel_u32 count,
						keel_u64 flags);

/**
 * struct keel_batch - a batch being built
 *
 * The first five fields are set by keel_batch_init(), the rest is the builder's; status and
 * failed may be read after a flush, the counters any time.
 */
struct keel_batch {
	struct keel_mmu_record *recs; /* the caller's array, */
	keel_gpa_t gpa;		      /* where the host finds it, */
	keel_u32 capacity;	      /* its length */
	keel_as_t as;
	keel_batch_submit_fn submit;
	void *ctx;

	keel_u32 count;			/* records collected */
	keel_s64 status;		/* first error since init or clear, KEEL_OK so far */
	struct keel_mmu_record failed;	/* the record it is about, from the failing page on */
	keel_u64 calls, records, pages; /* submitted so far; pages: taken in by the builder */
};

/**
 * keel_batch_init - start with an empty batch
 * @b: batch
 * @recs: record array, 8-byte aligned, in guest RAM; the builder owns it from now on
 * @gpa: its guest-physical address
 * @capacity: records it holds, at least 1
 * @as: address space to work on
 * @submit: makes the call; keel_batch_submit() is the one through the gate
 * @ctx: passed to it
 */
void keel_batch_init(struct keel_batch *b, struct keel_mmu_record *recs, keel_gpa_t gpa, keel_u32 capacity,
		     keel_as_t as, keel_batch_submit_fn submit, void *ctx);

/*
 * Add an operation. Addresses and lengths in bytes, multiples of the page size; a
 * length of 0 adds nothing. They return the batch's status: an error comes from an
 * earlier flush that the full array made necessary. After an error the rest of the batch
 * is dropped, and so is everything added until keel_batch_clear().
 */
keel_s64 keel_batch_map(struct keel_batch *b, keel_u64 va, keel_gpa_t gpa, keel_u64 len, keel_u16 prot, keel_u32 flags);
keel_s64 keel_batch_unmap(struct keel_batch *b, keel_u64 va, keel_u64 len);
keel_s64 keel_batch_protect(struct keel_batch *b, keel_u64 va, keel_u64 len, keel_u16 prot);

/**
 * keel_batch_flush - make everything collected happen
 * Returns the first error since keel_batch_init() or keel_batch_clear(). What came before
 * the failing page of b->failed is done, what came behind it is not.
 */
keel_s64 keel_batch_flush(struct keel_batch *b);

/* Forget an error and what was collected. */
void keel_batch_clear(struct keel_batch *b);

#ifndef __KERNEL__
/* keel_batch_submit_fn through the gate; ctx is not used. Part of the guest library. */
struct keel_ret keel_batch_submit(void *ctx, keel_as_t as, keel_gpa_t records, keel_u32 count, keel_u64 flags);
#endif

KEEL_END_C

#endif
