// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* The batch builder against a host that stops early, errs, or talks nonsense. */
#include <hypercall/batch.h>

#include "unit.h"

#define PAGES 64
#define VA0 KEEL_U64(0x10000000)
#define RECS_GPA KEEL_U64(0x7000)
#define MAX_CAPACITY 16

/* A page of the model: 0 = unmapped, else gpa page number << 4 | 8 | prot. */
struct model {
	uint64_t page[PAGES];
};

struct fake_host {
	struct keel_mmu_record *recs;
	uint32_t capacity;
	struct model m;
	uint64_t seed;
	uint64_t max_records, max_pages; /* bound of one call; 0 = random */
	unsigned int calls;
	unsigned int records; /* records begun, resubmitted ones again */
	int fail_call;	      /* answer this call number with fail_ret */
	struct keel_ret fail_ret;
};

static bool page_op(struct model *m, const struct keel_mmu_record *r, uint64_t i)
{
	uint64_t *p = &m->page[(r->va - VA0) / 4096 + i];

	switch (r->op) {
	case KEEL_MMU_MAP:
		*p = (r->gpa / 4096 + i) << 4 | 8 | r->prot;
		return true;
	case KEEL_MMU_UNMAP:
		*p = 0;
		return true;
	default:
		if (!*p)
			return false;
		*p = (*p & ~(uint64_t)7) | r->prot;
		return true;
	}
}

static struct keel_ret host_submit(void *ctx, keel_as_t as, keel_gpa_t gpa, keel_u32 count, keel_u64 flags)
{
	struct fake_host *h = ctx;
	struct keel_mmu_record *r = h->recs + (gpa.v - RECS_GPA) / sizeof(*r);
	uint64_t records = h->max_records ? h->max_records : 1 + below(&h->seed, 4);
	uint64_t pages = h->max_pages ? h->max_pages : 1 + below(&h->seed, 9);
	uint64_t i, done = 0;

	assert_int_equal(as.v, 5);
	assert_int_equal(flags, 0);
	assert_int_equal((gpa.v - RECS_GPA) % sizeof(*r), 0);
	assert_true(count > 0 && (gpa.v - RECS_GPA) / sizeof(*r) + count <= h->capacity);
	if (h->fail_call && ++h->calls == (unsigned int)h->fail_call)
		return h->fail_ret;
	for (; done < count && records; done++, r++, records--) {
		uint64_t n = r->len / 4096;

		h->records++;
		assert_true(r->len && !(r->len % 4096) && r->va >= VA0 && r->va + r->len <= VA0 + PAGES * 4096);
		assert_true(r->op == KEEL_MMU_MAP || r->gpa == 0);
		assert_true(r->op != KEEL_MMU_UNMAP || r->prot == 0);
		for (i = 0; i < n; i++) {
			if (!pages)
				return (struct keel_ret){ 0, done | i << 32 };
			if (!page_op(&h->m, r, i))
				return (struct keel_ret){ KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_FIELD(4)), done | i << 32 };
			pages--;
		}
	}
	return (struct keel_ret){ 0, done };
}

static struct keel_mmu_record recs[MAX_CAPACITY];

static void setup(struct keel_batch *b, struct fake_host *h, uint32_t capacity)
{
	memset(h, 0, sizeof(*h));
	h->recs = recs;
	h->capacity = capacity;
	h->seed = 0x1234567;
	h->max_records = 64;
	h->max_pages = 512;
	keel_batch_init(b, recs, (keel_gpa_t){ RECS_GPA }, capacity, (keel_as_t){ 5 }, host_submit, h);
}

static keel_s64 map_page(struct keel_batch *b, uint64_t page, uint64_t gpa_page, uint16_t prot)
{
	return keel_batch_map(b, VA0 + page * 4096, (keel_gpa_t){ gpa_page * 4096 }, 4096, prot, 0);
}

static void joins_ascending_pages(void **state)
{
	struct keel_batch b;
	struct fake_host h;

	(void)state;
	setup(&b, &h, 4);
	for (int i = 0; i < PAGES; i++)
		assert_int_equal(map_page(&b, i, 100 + i, KEEL_PROT_R), 0);
	assert_int_equal(b.count, 1);
	assert_int_equal(keel_batch_flush(&b), 0);
	assert_int_equal(h.records, 1);
	assert_int_equal(b.calls, 1);
	assert_int_equal(b.pages, PAGES);
	for (int i = 0; i < PAGES; i++)
		assert_int_equal(h.m.page[i], (uint64_t)(100 + i) << 4 | 8 | KEEL_PROT_R);
}

static void joins_descending_pages(void **state)
{
	struct keel_batch b;
	struct fake_host h;

	(void)state;
	setup(&b, &h, 4);
	for (int i = PAGES - 1; i >= 0; i--)
		map_page(&b, i, 100 + i, KEEL_PROT_R);
	assert_int_equal(b.count, 1);
	for (int i = PAGES - 1; i >= 0; i--)
		keel_batch_unmap(&b, VA0 + i * 4096, 4096);
	assert_int_equal(b.count, 2);
	assert_int_equal(keel_batch_flush(&b), 0);
	assert_int_equal(h.records, 2);
	for (int i = 0; i < PAGES; i++)
		assert_int_equal(h.m.page[i], 0);
}

static void keeps_apart_what_differs(void **state)
{
	struct keel_batch b;
	struct fake_host h;
	keel_gpa_t g = { 0x5000 };

	(void)state;
	setup(&b, &h, 16);
	keel_batch_map(&b, VA0, (keel_gpa_t){ 0x4000 }, 4096, KEEL_PROT_R, 0);
	keel_batch_map(&b, VA0 + 0x1000, g, 4096, KEEL_PROT_W, 0); /* protection */
	assert_int_equal(b.count, 2);
	keel_batch_map(&b, VA0 + 0x2000, (keel_gpa_t){ 0x9000 }, 4096, KEEL_PROT_W, 0); /* memory */
	assert_int_equal(b.count, 3);
	keel_batch_map(&b, VA0 + 0x3000, (keel_gpa_t){ 0xa000 }, 4096, KEEL_PROT_W, KEEL_MMU_POPULATE); /* flags */
	assert_int_equal(b.count, 4);
	keel_batch_protect(&b, VA0 + 0x4000, 4096, KEEL_PROT_W); /* operation */
	assert_int_equal(b.count, 5);
	keel_batch_unmap(&b, VA0 + 0x5000, 4096);
	keel_batch_unmap(&b, VA0 + 0x7000, 4096); /* a hole between */
	assert_int_equal(b.count, 7);
	keel_batch_unmap(&b, VA0 + 0x7000, 4096); /* again the same: not a neighbour */
	assert_int_equal(b.count, 8);
	keel_batch_protect(&b, VA0 + 0x4000, 4096, KEEL_PROT_R);
	keel_batch_protect(&b, VA0 + 0x3000, 4096, KEEL_PROT_R); /* downwards it could fail in another order */
	assert_int_equal(b.count, 10);
}

static void does_not_join_across_the_end_of_the_address_space(void **state)
{
	struct keel_batch b;
	struct fake_host h;

	(void)state;
	setup(&b, &h, 16);
	keel_batch_unmap(&b, KEEL_U64(0xfffffffffffff000), 4096);
	keel_batch_unmap(&b, 0, 4096);
	assert_int_equal(b.count, 2);
	keel_batch_clear(&b);
	keel_batch_unmap(&b, KEEL_U64(0xffffffffffffe000), 4096);
	keel_batch_unmap(&b, KEEL_U64(0xfffffffffffff000), 0x2000);
	assert_int_equal(b.count, 2);
	keel_batch_clear(&b);
	/* Virtually contiguous, but guest-physical memory wraps. */
	keel_batch_map(&b, VA0, (keel_gpa_t){ KEEL_U64(0xfffffffffffff000) }, 4096, KEEL_PROT_R, 0);
	keel_batch_map(&b, VA0 + 0x1000, (keel_gpa_t){ 0 }, 4096, KEEL_PROT_R, 0);
	assert_int_equal(b.count, 2);
}

static void empty_does_nothing(void **state)
{
	struct keel_batch b;
	struct fake_host h;

	(void)state;
	setup(&b, &h, 1);
	assert_int_equal(keel_batch_flush(&b), 0);
	assert_int_equal(keel_batch_unmap(&b, VA0, 0), 0);
	assert_int_equal(keel_batch_flush(&b), 0);
	assert_int_equal(b.calls, 0);
}

static void flushes_when_full(void **state)
{
	struct keel_batch b;
	struct fake_host h;

	(void)state;
	setup(&b, &h, 2);
	map_page(&b, 0, 1, KEEL_PROT_R);
	map_page(&b, 2, 3, KEEL_PROT_R);
	assert_int_equal(b.calls, 0);
	map_page(&b, 3, 4, KEEL_PROT_R); /* joins: still fits */
	assert_int_equal(b.calls, 0);
	map_page(&b, 5, 6, KEEL_PROT_R);
	assert_int_equal(b.calls, 1);
	assert_int_equal(b.count, 1);
	assert_int_equal(keel_batch_flush(&b), 0);
	assert_int_equal(b.records, 3);
}

static void resubmits_from_done(void **state)
{
	struct keel_batch b;
	struct fake_host h;

	(void)state;
	setup(&b, &h, 8);
	h.max_pages = 10;
	h.max_records = 2;
	keel_batch_map(&b, VA0, (keel_gpa_t){ 0x100000 }, 25 * 4096, KEEL_PROT_W, 0);
	keel_batch_unmap(&b, VA0 + 3 * 4096, 4096);
	keel_batch_protect(&b, VA0 + 4 * 4096, 20 * 4096, KEEL_PROT_X);
	assert_int_equal(keel_batch_flush(&b), 0);
	assert_int_equal(b.records, 3);
	/* 10, 10, 5 + unmap, then 10 and 10. */
	assert_int_equal(b.calls, 5);
	for (int i = 0; i < 25; i++)
		assert_int_equal(h.m.page[i], i == 3 ? 0
						     : (uint64_t)(0x100 + i) << 4 | 8 |
							       (i > 3 && i < 24 ? KEEL_PROT_X : KEEL_PROT_W));
}

static void reports_the_failing_page(void **state)
{
	struct keel_batch b;
	struct fake_host h;

	(void)state;
	setup(&b, &h, 8);
	keel_batch_map(&b, VA0, (keel_gpa_t){ 0x100000 }, 4 * 4096, KEEL_PROT_W, 0);
	keel_batch_protect(&b, VA0 + 4096, 8 * 4096, KEEL_PROT_R); /* the hole is at page 4 */
	keel_batch_unmap(&b, VA0, 4096);
	assert_int_equal(keel_batch_flush(&b), KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_FIELD(4)));
	assert_int_equal(b.failed.op, KEEL_MMU_PROTECT);
	assert_int_equal(b.failed.va, VA0 + 4 * 4096);
	assert_int_equal(b.failed.len, 5 * 4096);
	assert_int_equal(b.records, 1);
	/* Sticky: nothing is added or submitted until cleared. */
	assert_int_equal(map_page(&b, 9, 9, KEEL_PROT_R), KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_FIELD(4)));
	assert_int_equal(keel_batch_flush(&b), KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_FIELD(4)));
	assert_int_equal(b.calls, 1);
	assert_int_not_equal(h.m.page[0], 0);
	assert_int_equal(h.m.page[9], 0);
	keel_batch_clear(&b);
	assert_int_equal(map_page(&b, 9, 9, KEEL_PROT_R), 0);
	assert_int_equal(keel_batch_flush(&b), 0);
	assert_int_equal(h.m.page[9], 9 << 4 | 8 | KEEL_PROT_R);
}

static void survives_a_host_that_makes_no_sense(void **state)
{
	static const struct keel_ret nonsense[] = {
		{ 0, 0 },			   /* success, no progress */
		{ 0, 3 },			   /* more records than there were */
		{ 0, 0xffffffff },		   /* likewise */
		{ 0, 2 | KEEL_U64(1) << 32 },	   /* pages of a record behind the last */
		{ 0, KEEL_U64(1) << 32 },	   /* all pages of the first record, yet not done */
		{ 0, KEEL_U64(0xffffffff) << 32 }, /* far more */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
		struct keel_batch b;
		struct fake_host h;

		setup(&b, &h, 2);
		h.fail_call = 1;
		h.fail_ret = nonsense[i];
		map_page(&b, 0, 1, KEEL_PROT_R);
		map_page(&b, 2, 3, KEEL_PROT_R);
		assert_int_equal(keel_batch_flush(&b), KEEL_STATUS(KEEL_E_STATE, 0));
		assert_int_equal(b.calls, 1);
	}
}

/* Random operations through the builder mean what they mean one by one. */
static void random_batches_match_the_model(void **state)
{
	uint64_t seed = 0x9e3779b97f4a7c15;

	(void)state;
	for (int round = 0; round < 4000; round++) {
		struct model want;
		struct keel_batch b;
		struct fake_host h;
		bool failed = false;
		int ops = 1 + (int)below(&seed, 60);
		uint64_t va = 0;

		setup(&b, &h, 1 + (uint32_t)below(&seed, MAX_CAPACITY));
		h.max_records = h.max_pages = 0;
		h.seed = rnd(&seed) | 1;
		memset(&want, 0, sizeof(want));
		while (ops--) {
			struct keel_mmu_record r = { 0 };
			uint64_t n = 1 + below(&seed, 6);

			/* Often right behind the one before. */
			if (below(&seed, 2))
				va = below(&seed, PAGES);
			if (va + n > PAGES)
				va = PAGES - n;
			r.op = (uint16_t)(1 + below(&seed, 3));
			r.va = VA0 + va * 4096;
			r.len = n * 4096;
			/* Holes are hit in some rounds only, for an error ends the round. */
			for (uint64_t i = 0; i < n && round % 4; i++)
				if (r.op == KEEL_MMU_PROTECT && !want.page[va + i])
					r.op = KEEL_MMU_MAP;
			if (r.op == KEEL_MMU_MAP)
				r.gpa = (0x100 + va + 8 * below(&seed, 2)) * 4096;
			if (r.op != KEEL_MMU_UNMAP)
				r.prot = (uint16_t)(1 + below(&seed, 2));
			if (r.op == KEEL_MMU_MAP)
				keel_batch_map(&b, r.va, (keel_gpa_t){ r.gpa }, r.len, r.prot, 0);
			else if (r.op == KEEL_MMU_UNMAP)
				keel_batch_unmap(&b, r.va, r.len);
			else
				keel_batch_protect(&b, r.va, r.len, r.prot);
			for (uint64_t i = 0; i < n && !failed; i++)
				failed = !page_op(&want, &r, i);
			va += below(&seed, 2) ? n : 0;
		}
		assert_int_equal(keel_batch_flush(&b) != 0, failed);
		assert_true(!failed || round % 4 == 0);
		assert_memory_equal(&want, &h.m, sizeof(want));
	}
}

int batch_tests(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(joins_ascending_pages),
		cmocka_unit_test(joins_descending_pages),
		cmocka_unit_test(keeps_apart_what_differs),
		cmocka_unit_test(does_not_join_across_the_end_of_the_address_space),
		cmocka_unit_test(empty_does_nothing),
		cmocka_unit_test(flushes_when_full),
		cmocka_unit_test(resubmits_from_done),
		cmocka_unit_test(reports_the_failing_page),
		cmocka_unit_test(survives_a_host_that_makes_no_sense),
		cmocka_unit_test(random_batches_match_the_model),
	};

	return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
