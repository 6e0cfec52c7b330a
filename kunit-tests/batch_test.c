// SPDX-License-Identifier: GPL-2.0-only
/*
 * The batch builder against a host that works as mmu_batch is specified, page
 * by page and stopping early wherever it likes, and against hosts that answer
 * nonsense. The reference does each operation when it is added.
 */
#include <hypercall/batch.h>

#include "keel_test.h"

#define PG KEEL_PAGE_SIZE
#define PAGES 96
#define BASE KEEL_U64(0x400000)
#define RECS_GPA KEEL_U64(0x7000)
#define AS KEEL_U64(0x1234567890)

/* One page of an address space: gpa | prot, 0 = not mapped (prot 0 is not used here) */
struct space {
	u64 page[PAGES];
};

struct fake {
	struct kunit *test;
	struct keel_mmu_record *recs;
	u32 capacity;
	struct space space;
	u64 poison;		    /* page that cannot be changed, as a VA */
	u32 max_records, max_pages; /* work bound of one call */
	u32 calls, records, pages;  /* work done */
	u32 last_count;
	/* when set, the answers instead of all that; how often each was given is in calls */
	const struct keel_ret *answer;
};

struct op {
	u16 kind, prot;
	u32 flags;
	u64 va, gpa, len;
};

/* One page of one operation. Returns a status of mmu_batch. */
static s64 do_page(struct space *s, u64 poison, u16 kind, u16 prot, u64 va, u64 gpa)
{
	u64 *page = &s->page[(va - BASE) / PG];

	if (va < BASE || va >= BASE + PAGES * PG)
		return KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_FIELD(4));
	if (va == poison)
		return KEEL_STATUS(KEEL_E_NOMEM, KEEL_AT_FIELD(4));
	if (kind == KEEL_MMU_PROTECT && !*page)
		return KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_FIELD(4));
	if (kind == KEEL_MMU_MAP)
		*page = gpa | prot;
	else if (kind == KEEL_MMU_UNMAP)
		*page = 0;
	else
		*page = (*page & ~(PG - 1)) | prot;
	return KEEL_OK;
}

static struct keel_ret fake_submit(void *ctx, keel_as_t as, keel_gpa_t records, keel_u32 count, keel_u64 flags)
{
	struct fake *f = ctx;
	u32 first = (records.v - RECS_GPA) / sizeof(*f->recs), k, left = f->max_pages;
	u64 p;

	/* Far more than any test takes: a builder that never ends is told to. */
	if (++f->calls > 10000)
		return (struct keel_ret){ KEEL_STATUS(KEEL_E_TIMEDOUT, 0), 0 };
	f->last_count = count;
	KUNIT_EXPECT_EQ(f->test, as.v, AS);
	KUNIT_EXPECT_EQ(f->test, flags, 0ull);
	KUNIT_EXPECT_EQ(f->test, records.v, RECS_GPA + first * sizeof(*f->recs));
	KUNIT_EXPECT_GE(f->test, count, 1u);
	KUNIT_EXPECT_LE(f->test, (u64)first + count, (u64)f->capacity);
	if (f->answer)
		return *f->answer;

	for (k = 0; k < count; k++) {
		struct keel_mmu_record r = f->recs[first + k];

		if (k == f->max_records)
			return (struct keel_ret){ KEEL_OK, k };
		/* What the host would reject: fields the operation does not have. */
		if (!r.len || r.len % PG || r.va % PG || r.gpa % PG || (r.op != KEEL_MMU_MAP && (r.gpa || r.flags)) ||
		    (r.op == KEEL_MMU_UNMAP && r.prot)) {
			KUNIT_FAIL(f->test, "malformed record: op %u va %llx gpa %llx len %llx", r.op, r.va, r.gpa,
				   r.len);
			return (struct keel_ret){ KEEL_STATUS(KEEL_E_INVAL, 0), k };
		}
		for (p = 0; p < r.len / PG; p++) {
			s64 status;

			if (!left)
				return (struct keel_ret){ KEEL_OK, k | p << 32 };
			status = do_page(&f->space, f->poison, r.op, r.prot, r.va + p * PG, r.gpa + p * PG);
			if (status)
				return (struct keel_ret){ status, k | p << 32 };
			left--;
			f->pages++;
		}
		f->records++;
	}
	return (struct keel_ret){ KEEL_OK, count };
}

static struct fake *new_fake(struct kunit *test, struct keel_batch *b, u32 capacity)
{
	struct fake *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, f);
	/* One record too many is a fault, not a surprise later. */
	f->recs = keel_fenced(test, capacity * sizeof(*f->recs));
	f->test = test;
	f->capacity = capacity;
	f->max_records = 64;
	f->max_pages = 512;
	keel_batch_init(b, f->recs, (keel_gpa_t){ RECS_GPA }, capacity, (keel_as_t){ AS }, fake_submit, f);
	return f;
}

static s64 add(struct keel_batch *b, const struct op *op)
{
	switch (op->kind) {
	case KEEL_MMU_MAP:
		return keel_batch_map(b, op->va, (keel_gpa_t){ op->gpa }, op->len, op->prot, op->flags);
	case KEEL_MMU_UNMAP:
		return keel_batch_unmap(b, op->va, op->len);
	default:
		return keel_batch_protect(b, op->va, op->len, op->prot);
	}
}

#define RW (KEEL_PROT_R | KEEL_PROT_W)
#define OP(...) ((struct op){ __VA_ARGS__ })
#define MAP(va, gpa, len) MAPX(va, gpa, len, RW, 0)
#define MAPX(va, gpa, len, prot, flags) OP(KEEL_MMU_MAP, prot, flags, BYTES(va), BYTES(gpa), BYTES(len))
#define UNMAP(va, len) OP(KEEL_MMU_UNMAP, 0, 0, BYTES(va), 0, BYTES(len))
#define PROTECT(va, len, prot) OP(KEEL_MMU_PROTECT, prot, 0, BYTES(va), 0, BYTES(len))
#define BYTES(pages) ((u64)(pages) << KEEL_PAGE_SHIFT)
#define LAST KEEL_U64(0xfffffffffffff) /* the last page number there is */

/* What is added, and the records it must become: joining changes how often, never what or in which order. */
static const struct runs {
	const char *name;
	struct op add[6];
	struct op want[6];
} runs[] = {
	{ "upwards", { MAP(10, 50, 1), MAP(11, 51, 2), MAP(13, 53, 1) }, { MAP(10, 50, 4) } },
	{ "downwards", { MAP(13, 53, 1), MAP(11, 51, 2), MAP(10, 50, 1) }, { MAP(10, 50, 4) } },
	{ "from the middle", { MAP(11, 51, 1), MAP(12, 52, 1), MAP(10, 50, 1) }, { MAP(10, 50, 3) } },
	{ "memory not contiguous",
	  { MAP(10, 50, 1), MAP(11, 52, 1), MAP(12, 51, 1) },
	  { MAP(10, 50, 1), MAP(11, 52, 1), MAP(12, 51, 1) } },
	{ "memory the other way", { MAP(11, 50, 1), MAP(10, 51, 1) }, { MAP(11, 50, 1), MAP(10, 51, 1) } },
	{ "memory downwards", { MAP(10, 51, 1), MAP(11, 50, 1) }, { MAP(10, 51, 1), MAP(11, 50, 1) } },
	{ "same memory", { MAP(10, 50, 1), MAP(11, 50, 1) }, { MAP(10, 50, 1), MAP(11, 50, 1) } },
	{ "another protection",
	  { MAP(10, 50, 1), MAPX(11, 51, 1, KEEL_PROT_R, 0) },
	  { MAP(10, 50, 1), MAPX(11, 51, 1, KEEL_PROT_R, 0) } },
	{ "other flags",
	  { MAP(10, 50, 1), MAPX(11, 51, 1, RW, KEEL_MMU_POPULATE) },
	  { MAP(10, 50, 1), MAPX(11, 51, 1, RW, KEEL_MMU_POPULATE) } },
	{ "same flags",
	  { MAPX(10, 50, 1, RW, KEEL_MMU_POPULATE), MAPX(11, 51, 1, RW, KEEL_MMU_POPULATE) },
	  { MAPX(10, 50, 2, RW, KEEL_MMU_POPULATE) } },
	{ "another operation",
	  { MAP(10, 50, 1), UNMAP(11, 1), PROTECT(12, 1, RW), UNMAP(13, 1) },
	  { MAP(10, 50, 1), UNMAP(11, 1), PROTECT(12, 1, RW), UNMAP(13, 1) } },
	{ "protection of what was mapped",
	  { MAP(10, 50, 1), PROTECT(11, 1, RW) },
	  { MAP(10, 50, 1), PROTECT(11, 1, RW) } },
	{ "unmap", { UNMAP(10, 1), UNMAP(11, 3), UNMAP(9, 1), UNMAP(15, 1) }, { UNMAP(9, 5), UNMAP(15, 1) } },
	{ "protect",
	  { PROTECT(10, 1, RW), PROTECT(11, 1, RW), PROTECT(12, 1, KEEL_PROT_R) },
	  { PROTECT(10, 2, RW), PROTECT(12, 1, KEEL_PROT_R) } },
	{ "only the last record",
	  { MAP(10, 50, 1), MAP(20, 60, 1), MAP(11, 51, 1) },
	  { MAP(10, 50, 1), MAP(20, 60, 1), MAP(11, 51, 1) } },
	{ "twice the same", { UNMAP(10, 2), UNMAP(10, 2) }, { UNMAP(10, 2), UNMAP(10, 2) } },
	{ "overlapping", { MAP(10, 50, 2), MAP(11, 51, 2) }, { MAP(10, 50, 2), MAP(11, 51, 2) } },
	{ "a page between", { UNMAP(10, 1), UNMAP(12, 1) }, { UNMAP(10, 1), UNMAP(12, 1) } },
	{ "nothing", { UNMAP(10, 0), MAP(3, 3, 0), PROTECT(1, 0, RW) }, {} },
	{ "nothing in between", { MAP(10, 50, 1), UNMAP(30, 0), MAP(11, 51, 1) }, { MAP(10, 50, 2) } },
	{ "last address and first", { UNMAP(LAST, 1), UNMAP(0, 1) }, { UNMAP(LAST, 1), UNMAP(0, 1) } },
	{ "first address and last", { UNMAP(0, 1), UNMAP(LAST, 1) }, { UNMAP(0, 1), UNMAP(LAST, 1) } },
	{ "last memory and first", { MAP(10, LAST, 1), MAP(11, 0, 1) }, { MAP(10, LAST, 1), MAP(11, 0, 1) } },
	{ "first memory and last", { MAP(11, 0, 1), MAP(10, LAST, 1) }, { MAP(11, 0, 1), MAP(10, LAST, 1) } },
};

static void describe(const struct runs *r, char *desc)
{
	strscpy(desc, r->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(runs, runs, describe);

static void joins(struct kunit *test)
{
	const struct runs *r = test->param_value;
	struct keel_batch b;
	struct fake *f = new_fake(test, &b, ARRAY_SIZE(r->add));
	u64 pages = 0;
	u32 i, n = 0;

	for (i = 0; i < ARRAY_SIZE(r->add) && r->add[i].kind; i++) {
		KUNIT_EXPECT_EQ(test, add(&b, &r->add[i]), (s64)KEEL_OK);
		pages += r->add[i].len / PG;
	}
	while (n < ARRAY_SIZE(r->want) && r->want[n].kind)
		n++;
	KUNIT_EXPECT_EQ(test, f->calls, 0u);
	KUNIT_EXPECT_EQ(test, b.pages, pages);
	KUNIT_ASSERT_EQ(test, b.count, n);
	for (i = 0; i < n; i++) {
		KUNIT_EXPECT_EQ(test, f->recs[i].op, r->want[i].kind);
		KUNIT_EXPECT_EQ(test, f->recs[i].prot, r->want[i].prot);
		KUNIT_EXPECT_EQ(test, f->recs[i].flags, r->want[i].flags);
		KUNIT_EXPECT_EQ(test, f->recs[i].va, r->want[i].va);
		KUNIT_EXPECT_EQ(test, f->recs[i].gpa, r->want[i].gpa);
		KUNIT_EXPECT_EQ(test, f->recs[i].len, r->want[i].len);
	}
}

static void nothing_to_flush(struct kunit *test)
{
	struct keel_batch b;
	struct fake *f = new_fake(test, &b, 1);

	KUNIT_EXPECT_EQ(test, keel_batch_flush(&b), (s64)KEEL_OK);
	KUNIT_EXPECT_EQ(test, keel_batch_flush(&b), (s64)KEEL_OK);
	KUNIT_EXPECT_EQ(test, f->calls, 0u);
}

static void a_full_array_is_submitted(struct kunit *test)
{
	struct keel_batch b;
	struct fake *f = new_fake(test, &b, 3);
	int i;

	for (i = 0; i < 3; i++)
		keel_batch_map(&b, BASE + i * 2 * PG, (keel_gpa_t){ i * PG }, PG, RW, 0);
	KUNIT_EXPECT_EQ(test, f->calls, 0u);
	/* One that joins needs no room. */
	keel_batch_map(&b, BASE + 5 * PG, (keel_gpa_t){ 3 * PG }, PG, RW, 0);
	KUNIT_EXPECT_EQ(test, f->calls, 0u);
	keel_batch_map(&b, BASE + 10 * PG, (keel_gpa_t){ 9 * PG }, PG, RW, 0);
	KUNIT_EXPECT_EQ(test, f->calls, 1u);
	KUNIT_EXPECT_EQ(test, f->last_count, 3u);
	KUNIT_EXPECT_EQ(test, b.count, 1u);
	/* What was submitted is gone: nothing joins it. */
	KUNIT_EXPECT_EQ(test, keel_batch_flush(&b), (s64)KEEL_OK);
	KUNIT_EXPECT_EQ(test, f->last_count, 1u);
	keel_batch_map(&b, BASE + 11 * PG, (keel_gpa_t){ 10 * PG }, PG, RW, 0);
	KUNIT_EXPECT_EQ(test, b.count, 1u);
	KUNIT_EXPECT_EQ(test, f->recs[0].va, BASE + 11 * PG);
	KUNIT_EXPECT_EQ(test, f->pages, 5u);
}

static void a_run_of_pages_is_one_call(struct kunit *test)
{
	struct keel_batch b;
	struct fake *f = new_fake(test, &b, 1);
	int i;

	for (i = 0; i < PAGES; i++)
		keel_batch_map(&b, BASE + i * PG, (keel_gpa_t){ (i + 7) * PG }, PG, RW, 0);
	KUNIT_EXPECT_EQ(test, keel_batch_flush(&b), (s64)KEEL_OK);
	KUNIT_EXPECT_EQ(test, f->calls, 1u);
	KUNIT_EXPECT_EQ(test, f->records, 1u);
	KUNIT_EXPECT_EQ(test, b.calls, 1ull);
	KUNIT_EXPECT_EQ(test, b.records, 1ull);
	KUNIT_EXPECT_EQ(test, b.pages, (u64)PAGES);
}

/* The host stops anywhere, in the middle of records too; every page is done once and with its own memory. */
static void resubmits_from_where_the_host_stopped(struct kunit *test)
{
	u32 pages, records;

	for (pages = 1; pages <= 17; pages++)
		for (records = 1; records <= 5; records++) {
			struct keel_batch b;
			struct fake *f = new_fake(test, &b, 8);
			int i;

			f->max_pages = pages;
			f->max_records = records;
			keel_batch_map(&b, BASE, (keel_gpa_t){ 100 * PG }, 10 * PG, RW, 0);
			keel_batch_map(&b, BASE + 20 * PG, (keel_gpa_t){ 0 }, 3 * PG, KEEL_PROT_R, 0);
			keel_batch_unmap(&b, BASE + 8 * PG, 2 * PG);
			keel_batch_protect(&b, BASE, 4 * PG, KEEL_PROT_R);
			keel_batch_map(&b, BASE + 30 * PG, (keel_gpa_t){ 200 * PG }, PG, RW, 0);
			KUNIT_ASSERT_EQ(test, keel_batch_flush(&b), (s64)KEEL_OK);
			KUNIT_EXPECT_EQ(test, f->pages, 20u);
			KUNIT_EXPECT_EQ(test, b.records, 5ull);
			KUNIT_EXPECT_EQ(test, b.calls, (u64)f->calls);
			KUNIT_EXPECT_GE(test, f->calls, max(DIV_ROUND_UP(20, pages), DIV_ROUND_UP(5, records)));
			for (i = 0; i < 10; i++)
				KUNIT_EXPECT_EQ(test, f->space.page[i],
						i < 8 ? (100 + i) * PG | (i < 4 ? KEEL_PROT_R : RW) : 0);
			for (i = 0; i < 3; i++)
				KUNIT_EXPECT_EQ(test, f->space.page[20 + i], i * PG | KEEL_PROT_R);
			KUNIT_EXPECT_EQ(test, f->space.page[30], 200 * PG | RW);
		}
}

static void an_error_names_its_page(struct kunit *test)
{
	struct keel_batch b;
	struct fake *f = new_fake(test, &b, 8);
	s64 nomem = KEEL_STATUS(KEEL_E_NOMEM, KEEL_AT_FIELD(4));
	u32 calls;

	f->poison = BASE + 25 * PG;
	f->max_pages = 4;
	keel_batch_map(&b, BASE, (keel_gpa_t){ 0 }, 3 * PG, RW, 0);
	keel_batch_map(&b, BASE + 20 * PG, (keel_gpa_t){ 40 * PG }, 10 * PG, RW, KEEL_MMU_POPULATE);
	keel_batch_unmap(&b, BASE, PG);
	KUNIT_EXPECT_EQ(test, keel_batch_flush(&b), nomem);
	KUNIT_EXPECT_EQ(test, b.status, nomem);
	KUNIT_EXPECT_EQ(test, b.failed.op, (u16)KEEL_MMU_MAP);
	KUNIT_EXPECT_EQ(test, b.failed.flags, KEEL_MMU_POPULATE);
	KUNIT_EXPECT_EQ(test, b.failed.va, BASE + 25 * PG);
	KUNIT_EXPECT_EQ(test, b.failed.gpa, 45 * PG);
	KUNIT_EXPECT_EQ(test, b.failed.len, 5 * PG);
	KUNIT_EXPECT_EQ(test, b.records, 1ull);
	KUNIT_EXPECT_EQ(test, f->pages, 8u);
	/* Behind it nothing happened, and nothing will before the error is cleared. */
	KUNIT_EXPECT_EQ(test, f->space.page[0], 0 * PG | RW);
	calls = f->calls;
	KUNIT_EXPECT_EQ(test, keel_batch_unmap(&b, BASE, PG), nomem);
	KUNIT_EXPECT_EQ(test, keel_batch_protect(&b, BASE, PG, KEEL_PROT_R), nomem);
	KUNIT_EXPECT_EQ(test, keel_batch_flush(&b), nomem);
	KUNIT_EXPECT_EQ(test, f->calls, calls);
	KUNIT_EXPECT_EQ(test, b.failed.va, BASE + 25 * PG);

	keel_batch_clear(&b);
	KUNIT_EXPECT_EQ(test, keel_batch_flush(&b), (s64)KEEL_OK);
	KUNIT_EXPECT_EQ(test, f->calls, calls);
	KUNIT_EXPECT_EQ(test, keel_batch_unmap(&b, BASE, PG), (s64)KEEL_OK);
	KUNIT_EXPECT_EQ(test, keel_batch_flush(&b), (s64)KEEL_OK);
	KUNIT_EXPECT_EQ(test, f->space.page[0], 0ull);
}

/* The array fills up, its submission fails: the operation that found out is dropped, and says so. */
static void an_error_found_while_adding(struct kunit *test)
{
	struct keel_batch b;
	struct fake *f = new_fake(test, &b, 1);
	s64 noent = KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_FIELD(4));

	KUNIT_EXPECT_EQ(test, keel_batch_protect(&b, BASE, PG, KEEL_PROT_R), (s64)KEEL_OK);
	KUNIT_EXPECT_EQ(test, keel_batch_map(&b, BASE + 5 * PG, (keel_gpa_t){ 0 }, PG, RW, 0), noent);
	KUNIT_EXPECT_EQ(test, keel_batch_flush(&b), noent);
	KUNIT_EXPECT_EQ(test, f->calls, 1u);
	KUNIT_EXPECT_EQ(test, f->space.page[5], 0ull);
	KUNIT_EXPECT_EQ(test, b.failed.va, BASE);
}

/* Whatever a host answers, the builder ends, stays in its array, and does not call that a success. */
static void hosts_that_answer_nonsense(struct kunit *test)
{
	static const struct {
		struct keel_ret answer;
		u8 code;
	} answers[] = {
		{ { KEEL_OK, 0 }, KEEL_E_STATE }, /* no progress, for ever */
		{ { KEEL_OK, 3 }, KEEL_E_STATE }, /* more than there are */
		{ { KEEL_OK, 0xffffffff }, KEEL_E_STATE },
		{ { KEEL_OK, 0xffffffffffffffff }, KEEL_E_STATE },
		{ { KEEL_OK, 0xffffffff00000000 }, KEEL_E_STATE }, /* more pages than the record has */
		{ { KEEL_OK, 4ull << 32 }, KEEL_E_STATE },
		{ { KEEL_OK, 2 | 1ull << 32 }, KEEL_E_STATE }, /* pages of the record behind the last */
		{ { KEEL_OK, 1 | 6ull << 32 }, KEEL_E_STATE },
		{ { -KEEL_E_NOSYS, 0 }, KEEL_E_NOSYS },
		{ { -KEEL_E_NOSYS, 0xffffffffffffffff }, KEEL_E_NOSYS },
		{ { -KEEL_E_AGAIN, 1000000 }, KEEL_E_AGAIN }, /* a delay, not records */
		{ { -KEEL_E_INVAL, 2 }, KEEL_E_INVAL },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(answers); i++) {
		struct keel_batch b;
		struct fake *f = new_fake(test, &b, 2);

		f->answer = &answers[i].answer;
		keel_batch_map(&b, BASE, (keel_gpa_t){ 0 }, 3 * PG, RW, 0);
		keel_batch_unmap(&b, BASE + 9 * PG, 5 * PG);
		KUNIT_EXPECT_EQ_MSG(test, KEEL_STATUS_CODE(keel_batch_flush(&b)), (int)answers[i].code, "answer %d", i);
		KUNIT_EXPECT_EQ_MSG(test, f->calls, 1u, "answer %d", i);
		KUNIT_EXPECT_EQ(test, b.count, 0u);
	}
}

/* An answer that is plausible each time and still never done: a page per call, then one page too many. */
static void progress_is_counted_not_believed(struct kunit *test)
{
	struct keel_ret one = { KEEL_OK, 1ull << 32 }, two = { KEEL_OK, 2 };
	struct keel_batch b;
	struct fake *f = new_fake(test, &b, 2);
	int i;

	f->answer = &one;
	keel_batch_unmap(&b, BASE, 5 * PG);
	KUNIT_EXPECT_EQ(test, KEEL_STATUS_CODE(keel_batch_flush(&b)), KEEL_E_STATE);
	KUNIT_EXPECT_EQ(test, f->calls, 5u);

	/* Two of three records, then two more. */
	f = new_fake(test, &b, 3);
	f->answer = &two;
	for (i = 0; i < 3; i++)
		keel_batch_unmap(&b, BASE + i * 2 * PG, PG);
	KUNIT_EXPECT_EQ(test, KEEL_STATUS_CODE(keel_batch_flush(&b)), KEEL_E_STATE);
	KUNIT_EXPECT_EQ(test, f->calls, 2u);
}

/* Random operations, mostly next to the last one. */
static struct op random_op(u64 *state, const struct op *last)
{
	struct op op = { .kind = 1 + keel_random_below(state, 3) };
	u32 page = keel_random_below(state, PAGES), len = 1 + keel_random_below(state, 6);

	if (keel_random_below(state, 3)) {
		page = (last->va - BASE) / PG;
		op.kind = last->kind;
		op.gpa = last->gpa;
		if (keel_random_below(state, 4)) {
			page += last->len / PG;
			op.gpa += last->len;
		} else if (page >= len && op.gpa >= len * PG) {
			page -= len;
			op.gpa -= len * PG;
		}
	} else {
		op.gpa = keel_random_below(state, 1000) * PG;
	}
	if (page + len > PAGES)
		page = PAGES - len;
	op.va = BASE + page * PG;
	op.len = len * PG;
	if (op.kind != KEEL_MMU_MAP)
		op.gpa = 0;
	else
		op.flags = keel_random_below(state, 8) ? 0 : KEEL_MMU_POPULATE;
	if (op.kind != KEEL_MMU_UNMAP)
		op.prot = keel_random_below(state, 3) ? RW : KEEL_PROT_R;
	return op;
}

/* The whole operation, at once. Returns the status and the failing page. */
static s64 reference(struct space *s, u64 poison, const struct op *op, u64 *page)
{
	s64 status;
	u64 p;

	for (p = 0; p < op->len; p += PG) {
		status = do_page(s, poison, op->kind, op->prot, op->va + p, op->gpa + p);
		if (status) {
			*page = op->va + p;
			return status;
		}
	}
	return KEEL_OK;
}

/* Would a builder put this in front of its last record? An error in the joined run then comes in another order. */
static bool joins_downwards(const struct keel_batch *b, const struct op *op)
{
	return b->count && op->va + op->len == b->recs[b->count - 1].va;
}

static void random_batches_agree_with_the_reference(struct kunit *test)
{
	struct space *want = kunit_kzalloc(test, sizeof(*want), GFP_KERNEL);
	u64 state = keel_test_seed(test), errors = 0, joined = 0;
	int round, i, n;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, want);
	for (round = 0; round < 600; round++) {
		struct op op = { KEEL_MMU_MAP, RW, 0, BASE, 0, PG };
		bool errors_wanted = round & 1;
		struct keel_batch b;
		struct fake *f = new_fake(test, &b, 1 + keel_random_below(&state, 12));
		u64 page = 0, pages = 0;
		s64 status = KEEL_OK;

		memset(want, 0, sizeof(*want));
		f->max_pages = 1 + keel_random_below(&state, keel_random_below(&state, 2) ? 4 : 40);
		f->max_records = 1 + keel_random_below(&state, 8);
		if (errors_wanted)
			f->poison = BASE + keel_random_below(&state, PAGES) * PG;
		n = keel_random_below(&state, 60);
		for (i = 0; i < n; i++) {
			struct space undo = *want;

			op = random_op(&state, &op);
			if (errors_wanted && joins_downwards(&b, &op))
				continue;
			if (!status)
				status = reference(want, f->poison, &op, &page);
			if (!errors_wanted && status) { /* protects a hole: not this time */
				*want = undo;
				status = KEEL_OK;
				continue;
			}
			add(&b, &op);
			pages += op.len / PG;
			if (!keel_random_below(&state, 16) && !b.status)
				keel_batch_flush(&b);
		}
		if (keel_batch_flush(&b) != status || memcmp(&f->space, want, sizeof(*want)) ||
		    (status && b.failed.va != page) || (!status && b.pages != pages) || b.calls != f->calls ||
		    b.count) {
			KUNIT_FAIL(test, "round %d: status %lld for %lld, page %llx for %llx, space %s", round,
				   b.status, status, b.failed.va, page,
				   memcmp(&f->space, want, sizeof(*want)) ? "differs" : "agrees");
			return;
		}
		errors += status != 0;
		joined += n - b.records;
	}
	kunit_info(test, "%llu rounds with an error", errors);
	KUNIT_EXPECT_GT(test, errors, 100ull);
	KUNIT_EXPECT_GT(test, joined, 1000ull);
}

static struct kunit_case cases[] = { KUNIT_CASE_PARAM(joins, runs_gen_params),
				     KUNIT_CASE(nothing_to_flush),
				     KUNIT_CASE(a_full_array_is_submitted),
				     KUNIT_CASE(a_run_of_pages_is_one_call),
				     KUNIT_CASE(resubmits_from_where_the_host_stopped),
				     KUNIT_CASE(an_error_names_its_page),
				     KUNIT_CASE(an_error_found_while_adding),
				     KUNIT_CASE(hosts_that_answer_nonsense),
				     KUNIT_CASE(progress_is_counted_not_believed),
				     KUNIT_CASE(random_batches_agree_with_the_reference),
				     {} };

static struct kunit_suite suite = {
	.name = "keel_batch",
	.test_cases = cases,
};

kunit_test_suites(&suite);

MODULE_DESCRIPTION("KUnit: the page-table batch builder");
MODULE_LICENSE("GPL");
