// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Page-table batch builder; see hypercall/batch.h. */
#include <hypercall/batch.h>

#include "mutant.h"

void keel_batch_init(struct keel_batch *b, struct keel_mmu_record *recs, keel_gpa_t gpa, keel_u32 capacity,
		     keel_as_t as, keel_batch_submit_fn submit, void *ctx)
{
	keel_memset(b, 0, sizeof(*b));
	b->recs = recs;
	b->gpa = gpa;
	b->capacity = capacity;
	b->as = as;
	b->submit = submit;
	b->ctx = ctx;
}

void keel_batch_clear(struct keel_batch *b)
{
	b->count = 0;
	b->status = KEEL_OK;
	keel_memset(&b->failed, 0, sizeof(b->failed));
}

/* Is b the byte behind [start, start + len), without the sum wrapping? */
static bool follows(keel_u64 start, keel_u64 len, keel_u64 b)
{
	return start + len == b && b > start;
}

/* Let a record grow by one that continues it, upwards or downwards. */
static bool join(struct keel_mmu_record *last, const struct keel_mmu_record *r)
{
	bool map = r->op == KEEL_MMU_MAP;

	if (last->op != r->op || last->prot != r->prot || (last->flags != r->flags && !KEEL_MUTANT(1)))
		return false;
	if (follows(last->va, last->len, r->va) && (!map || follows(last->gpa, last->len, r->gpa))) {
		if (r->va + r->len < r->va) /* ends beyond the last address: not worth hiding in a longer run */
			return false;
		last->len += r->len;
		return true;
	}
	/* Not downwards for PROTECT: it can fail at a hole, and must have done what was asked before that. */
	if (r->op != KEEL_MMU_PROTECT && follows(r->va, r->len, last->va) &&
	    (!map || follows(r->gpa, r->len, last->gpa))) {
		if (last->va + last->len < last->va)
			return false;
		last->va = r->va;
		last->gpa = r->gpa;
		last->len += r->len;
		return true;
	}
	return false;
}

static keel_s64 add(struct keel_batch *b, const struct keel_mmu_record *r)
{
	if (b->status || !r->len)
		return b->status;
	if (!b->count || !join(&b->recs[b->count - 1], r)) {
		if (b->count == b->capacity && keel_batch_flush(b))
			return b->status;
		b->recs[b->count++] = *r;
	}
	b->pages += r->len >> KEEL_PAGE_SHIFT;
	return KEEL_OK;
}

keel_s64 keel_batch_map(struct keel_batch *b, keel_u64 va, keel_gpa_t gpa, keel_u64 len, keel_u16 prot, keel_u32 flags)
{
	struct keel_mmu_record r = { KEEL_MMU_MAP, prot, flags, va, gpa.v, len };

	return add(b, &r);
}

keel_s64 keel_batch_unmap(struct keel_batch *b, keel_u64 va, keel_u64 len)
{
	struct keel_mmu_record r = { KEEL_MMU_UNMAP, 0, 0, va, 0, len };

	return add(b, &r);
}

keel_s64 keel_batch_protect(struct keel_batch *b, keel_u64 va, keel_u64 len, keel_u16 prot)
{
	struct keel_mmu_record r = { KEEL_MMU_PROTECT, prot, 0, va, 0, len };

	return add(b, &r);
}

/* Drop the pages of a record that are done. False when the host claims more than there is left to do. */
static bool advance(struct keel_mmu_record *r, keel_u64 pages)
{
	keel_u64 bytes = pages << KEEL_PAGE_SHIFT;

	if (pages && bytes >= r->len)
		return false;
	r->va += bytes;
	r->len -= bytes;
	if (r->op == KEEL_MMU_MAP)
		r->gpa += bytes;
	return true;
}

keel_s64 keel_batch_flush(struct keel_batch *b)
{
	keel_u32 first = 0;

	while (!b->status && first < b->count) {
		keel_gpa_t at = { b->gpa.v + first * sizeof(b->recs[0]) };
		struct keel_ret ret = b->submit(b->ctx, b->as, at, b->count - first, 0);
		keel_u64 done = KEEL_MMU_DONE_RECORDS(ret.value);
		keel_u64 pages = KEEL_MMU_DONE_PAGES(ret.value);
		bool sane = done <= b->count - first;

		b->calls++;
		if (sane) {
			b->records += done;
			first += (keel_u32)done;
			sane = first < b->count ? advance(&b->recs[first], pages) : !pages;
		}
		b->status = ret.status;
		/* An answer that makes no sense, or success without progress, must not become an endless loop. */
		if (!b->status && (!sane || (!done && !pages && !KEEL_MUTANT(3))))
			b->status = KEEL_STATUS(KEEL_E_STATE, 0);
		if (b->status && first < b->count && !KEEL_MUTANT(2))
			b->failed = b->recs[first];
	}
	b->count = 0;
	return b->status;
}
