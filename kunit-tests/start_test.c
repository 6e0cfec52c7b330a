// SPDX-License-Identifier: GPL-2.0-only
/*
 * Start info: well formed, and broken in every way a host could break it. Each
 * one ends at the end of its mapping, so a read beyond it is an oops.
 */
#include <hypercall/start.h>
#include <keel/status.h>

#include "keel_test.h"

#define BAD(code, field) ((s64)KEEL_STATUS(code, KEEL_AT_FIELD(field)))
enum { MAGIC = 1, VERSION, CHUNKS, SIZE, RESERVED };

struct piece {
	u32 type;
	u32 len;
	const void *data; /* NULL: bytes of 0xee */
};

/* Build one from pieces, as large as need be to the byte (rounded up to 8 in front). */
static struct keel_start *build(struct kunit *test, const struct piece *pieces, u32 n)
{
	size_t size = sizeof(struct keel_start), at = size;
	struct keel_start *start;
	u32 i;

	for (i = 0; i < n; i++)
		size = ALIGN(size, 8) + sizeof(struct keel_chunk) + pieces[i].len;
	start = keel_fenced(test, ALIGN(size, 8));
	*start = (struct keel_start){
		.magic = KEEL_START_MAGIC, .version = KEEL_START_VERSION, .chunks = n, .size = size
	};
	for (i = 0; i < n; i++) {
		struct keel_chunk *c;

		at = ALIGN(at, 8);
		c = (void *)start + at;
		c->type = pieces[i].type;
		c->size = sizeof(*c) + pieces[i].len;
		if (pieces[i].data)
			memcpy(c + 1, pieces[i].data, pieces[i].len);
		else
			memset(c + 1, 0xee, pieces[i].len);
		at += c->size;
	}
	return start;
}

static const struct keel_memmap_entry memmap[] = {
	{ 0, 0x100000, KEEL_MEM_RAM, 0 },	  { 0x100000, 0x8000, KEEL_MEM_IMAGE, 0 },
	{ 0x108000, 0x3ef8000, KEEL_MEM_RAM, 0 }, { 0x4000000 - 0x2000, 0x2000, KEEL_MEM_MODULE, 0 },
	{ 0x4000000, 0x3000, KEEL_MEM_ABI, 0 },	  { 0x5000000, 0x1000, 99, 0 },
};

static const struct keel_module modules[] = { { 0x3ffe000, 5000 }, { 0x3ff0000, 1 } };
static const struct keel_abi_pages abi = { .clock_va = 1, .vcpus = 3 };
static const struct keel_linear_map linear = { 0x100000000, 0x4000000 };
static const struct keel_cpu_info cpu = { .tsc_hz = 2400000000ull };

static const struct piece good[] = {
	{ KEEL_CHUNK_MODULE, sizeof(modules[0]), &modules[0] },
	{ 0x80000001, 3, NULL },
	{ KEEL_CHUNK_MEMMAP, sizeof(memmap), memmap },
	{ KEEL_CHUNK_CPU, sizeof(cpu), &cpu },
	{ KEEL_CHUNK_ENTROPY, KEEL_ENTROPY_SIZE, NULL },
	{ KEEL_CHUNK_LINEAR, sizeof(linear), &linear },
	{ KEEL_CHUNK_MODULE, sizeof(modules[1]), &modules[1] },
	{ 0, 0, NULL },
	{ KEEL_CHUNK_ABI, sizeof(abi), &abi },
	{ KEEL_CHUNK_CMDLINE, 10, "quiet x=1" }, /* 9 characters and the NUL; 2 bytes short of 8 */
};

static struct keel_start *build_good(struct kunit *test)
{
	return build(test, good, ARRAY_SIZE(good));
}

static void reads_what_is_there(struct kunit *test)
{
	struct keel_start *start = build_good(test);
	const struct keel_memmap_entry *e;
	const struct keel_chunk *c;
	size_t n = 0;

	KUNIT_ASSERT_EQ(test, keel_start_check(start, start->size), (s64)KEEL_OK);
	KUNIT_EXPECT_EQ(test, keel_start_check(start, SIZE_MAX), (s64)KEEL_OK);
	KUNIT_EXPECT_EQ(test, keel_start_check(start, start->size + 1), (s64)KEEL_OK);

	e = keel_start_memmap(start, &n);
	KUNIT_ASSERT_EQ(test, n, ARRAY_SIZE(memmap));
	KUNIT_EXPECT_EQ(test, memcmp(e, memmap, sizeof(memmap)), 0);
	/* Not the ABI's pages, nor what this version does not know. */
	KUNIT_EXPECT_EQ(test, keel_start_ram(start), 0x100000ull + 0x8000 + 0x3ef8000 + 0x2000);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, keel_start_module(start, 0));
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, keel_start_module(start, 1));
	KUNIT_EXPECT_EQ(test, keel_start_module(start, 0)->gpa, modules[0].gpa);
	KUNIT_EXPECT_EQ(test, keel_start_module(start, 1)->gpa, modules[1].gpa);
	KUNIT_EXPECT_PTR_EQ(test, keel_start_module(start, 2), NULL);
	KUNIT_EXPECT_PTR_EQ(test, keel_start_module(start, UINT_MAX), NULL);

	KUNIT_EXPECT_STREQ(test, keel_start_cmdline(start), "quiet x=1");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, keel_start_entropy(start));
	KUNIT_EXPECT_EQ(test, keel_start_entropy(start)[KEEL_ENTROPY_SIZE - 1], (u8)0xee);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, keel_start_cpu(start));
	KUNIT_EXPECT_EQ(test, keel_start_cpu(start)->tsc_hz, cpu.tsc_hz);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, keel_start_abi(start));
	KUNIT_EXPECT_EQ(test, keel_start_abi(start)->vcpus, 3u);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, keel_start_linear(start));
	KUNIT_EXPECT_EQ(test, keel_start_linear(start)->va, linear.va);

	/* Chunks are found in order, unknown ones too, and an end is an end. */
	c = keel_start_find(start, 0x80000001, NULL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, c);
	KUNIT_EXPECT_EQ(test, keel_chunk_len(c), (size_t)3);
	KUNIT_EXPECT_PTR_EQ(test, keel_start_find(start, 0x80000001, c), NULL);
	c = keel_start_find(start, 0, NULL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, c);
	KUNIT_EXPECT_EQ(test, keel_chunk_len(c), (size_t)0);
	KUNIT_EXPECT_PTR_EQ(test, keel_start_find(start, 0xffffffff, NULL), NULL);
	KUNIT_EXPECT_PTR_EQ(test, keel_start_find(start, KEEL_CHUNK_MODULE, c), NULL);
}

static void a_bare_header(struct kunit *test)
{
	struct keel_start *start = build(test, NULL, 0);
	size_t n = 77;

	KUNIT_ASSERT_EQ(test, keel_start_check(start, sizeof(*start)), (s64)KEEL_OK);
	KUNIT_EXPECT_PTR_EQ(test, keel_start_find(start, KEEL_CHUNK_ABI, NULL), NULL);
	KUNIT_EXPECT_PTR_EQ(test, keel_start_memmap(start, &n), NULL);
	KUNIT_EXPECT_EQ(test, n, (size_t)0);
	KUNIT_EXPECT_EQ(test, keel_start_ram(start), 0ull);
	KUNIT_EXPECT_STREQ(test, keel_start_cmdline(start), "");
	KUNIT_EXPECT_PTR_EQ(test, keel_start_module(start, 0), NULL);
	KUNIT_EXPECT_PTR_EQ(test, keel_start_abi(start), NULL);
	KUNIT_EXPECT_PTR_EQ(test, (void *)keel_start_entropy(start), NULL);
}

static void a_broken_header(struct kunit *test)
{
	struct keel_start *start = build_good(test), was = *start;
	u64 size = was.size, i;

	for (i = 0; i < 64; i++) {
		*start = was;
		start->magic ^= 1ull << i;
		KUNIT_EXPECT_EQ(test, keel_start_check(start, size), BAD(KEEL_E_INVAL, MAGIC));
		*start = was;
		start->reserved = 1ull << i;
		KUNIT_EXPECT_EQ(test, keel_start_check(start, size), BAD(KEEL_E_INVAL, RESERVED));
	}
	*start = was;
	for (start->version = 0; start->version < 5; start->version++)
		KUNIT_EXPECT_EQ(test, keel_start_check(start, size),
				start->version == KEEL_START_VERSION ? KEEL_OK : BAD(KEEL_E_NOTSUP, VERSION));
	*start = was;
	for (start->size = 0; start->size < sizeof(*start); start->size++)
		KUNIT_EXPECT_EQ(test, keel_start_check(start, size), BAD(KEEL_E_RANGE, SIZE));
	/* Larger than what is readable there. */
	start->size = size + 1;
	KUNIT_EXPECT_EQ(test, keel_start_check(start, size), BAD(KEEL_E_RANGE, SIZE));
	start->size = ~0ull;
	KUNIT_EXPECT_EQ(test, keel_start_check(start, size), BAD(KEEL_E_RANGE, SIZE));
	start->size = 1ull << 63;
	KUNIT_EXPECT_EQ(test, keel_start_check(start, size), BAD(KEEL_E_RANGE, SIZE));
	*start = was;
	/* Readable for less than it says. */
	for (i = 0; i < size; i++)
		KUNIT_EXPECT_EQ(test, keel_start_check(start, i), BAD(KEEL_E_RANGE, SIZE));
}

/* A count of chunks that does not fit the bytes that are there. */
static void miscounted_chunks(struct kunit *test)
{
	struct keel_start *start = build_good(test);
	u32 n = start->chunks, i;

	for (i = 0; i < n; i++) {
		start->chunks = i;
		KUNIT_EXPECT_EQ(test, keel_start_check(start, start->size), BAD(KEEL_E_INVAL, SIZE));
	}
	for (i = n + 1; i > n; i = i * 2 + 1 > i ? i * 2 + 1 : 0) {
		start->chunks = i;
		KUNIT_EXPECT_EQ(test, keel_start_check(start, start->size), BAD(KEEL_E_INVAL, CHUNKS));
	}
}

/* Every size a chunk can be wrong by; the sum with its offset may not wrap either. */
static void chunks_of_impossible_size(struct kunit *test)
{
	static const u32 sizes[] = { 0, 1, 7, 0x7fffffff, 0x80000000, 0xfffffff0, 0xfffffff8, 0xfffffff9, 0xffffffff };
	struct keel_start *start = build_good(test);
	struct keel_chunk *c = (void *)(start + 1);
	u32 i, k;

	for (k = 0; k < start->chunks; k++) {
		u32 was = c->size;
		u64 off = (void *)c - (void *)start;

		for (i = 0; i < ARRAY_SIZE(sizes); i++) {
			c->size = sizes[i];
			KUNIT_EXPECT_EQ_MSG(test, keel_start_check(start, start->size), BAD(KEEL_E_INVAL, CHUNKS),
					    "chunk %u size %x", k, sizes[i]);
		}
		/* One byte more than there is. */
		c->size = start->size - off + 1;
		KUNIT_EXPECT_EQ(test, keel_start_check(start, start->size), BAD(KEEL_E_INVAL, CHUNKS));
		/* Swallows all the rest: then the others are missing. */
		c->size = start->size - off;
		KUNIT_EXPECT_EQ(test, keel_start_check(start, start->size),
				k == start->chunks - 1 ? KEEL_OK : BAD(KEEL_E_INVAL, CHUNKS));
		c->size = was;
		c = (void *)c + ALIGN(was, 8);
	}
	KUNIT_EXPECT_EQ(test, keel_start_check(start, start->size), (s64)KEEL_OK);
}

/* A header cut short is refused wherever the cut is; nothing behind the cut is read. */
static void cut_at_every_byte(struct kunit *test)
{
	struct keel_start *whole = build_good(test);
	size_t size = whole->size, cut;

	for (cut = sizeof(*whole); cut < size; cut++) {
		struct keel_start *start = keel_fenced(test, ALIGN(cut, 8));

		memcpy(start, whole, cut);
		start->size = cut;
		KUNIT_EXPECT_NE_MSG(test, keel_start_check(start, cut), (s64)KEEL_OK, "cut at %zu", cut);
	}
}

/* Each chunk may be shorter than its structure: then it counts as absent, and a longer one is fine. */
static void chunks_too_short_and_longer(struct kunit *test)
{
	static u8 bytes[256];
	u32 len;

	for (len = 0; len < 200; len++) {
		const struct piece pieces[] = {
			{ KEEL_CHUNK_CPU, len, bytes },	    { KEEL_CHUNK_MEMMAP, len, bytes },
			{ KEEL_CHUNK_MODULE, len, bytes },  { KEEL_CHUNK_LINEAR, len, bytes },
			{ KEEL_CHUNK_ENTROPY, len, bytes }, { KEEL_CHUNK_ABI, len, bytes },
		};
		struct keel_start *start = build(test, pieces, ARRAY_SIZE(pieces));
		size_t n;

		KUNIT_ASSERT_EQ(test, keel_start_check(start, start->size), (s64)KEEL_OK);
		KUNIT_EXPECT_EQ(test, !!keel_start_cpu(start), len >= sizeof(struct keel_cpu_info));
		KUNIT_EXPECT_EQ(test, !!keel_start_module(start, 0), len >= sizeof(struct keel_module));
		KUNIT_EXPECT_EQ(test, !!keel_start_linear(start), len >= sizeof(struct keel_linear_map));
		KUNIT_EXPECT_EQ(test, !!keel_start_entropy(start), len >= KEEL_ENTROPY_SIZE);
		KUNIT_EXPECT_EQ(test, !!keel_start_abi(start), len >= sizeof(struct keel_abi_pages));
		KUNIT_EXPECT_EQ(test, !!keel_start_memmap(start, &n), len >= sizeof(struct keel_memmap_entry));
		KUNIT_EXPECT_EQ(test, n, (size_t)len / sizeof(struct keel_memmap_entry));
	}
}

static void command_lines_without_an_end(struct kunit *test)
{
	static const char text[] = "abc";
	struct piece p = { KEEL_CHUNK_CMDLINE, 3, text };
	struct keel_start *start = build(test, &p, 1);

	KUNIT_ASSERT_EQ(test, keel_start_check(start, start->size), (s64)KEEL_OK);
	KUNIT_EXPECT_STREQ(test, keel_start_cmdline(start), "");
	p.len = 4;
	KUNIT_EXPECT_STREQ(test, keel_start_cmdline(build(test, &p, 1)), "abc");
	p.len = 0;
	KUNIT_EXPECT_STREQ(test, keel_start_cmdline(build(test, &p, 1)), "");
	p = (struct piece){ KEEL_CHUNK_CMDLINE, 1, "" };
	KUNIT_EXPECT_STREQ(test, keel_start_cmdline(build(test, &p, 1)), "");
}

static void options(struct kunit *test)
{
	static const struct {
		const char *cmdline, *name, *value; /* value NULL: not there */
	} want[] = {
		{ "", "a", NULL },
		{ "   ", "a", NULL },
		{ "a", "a", "" },
		{ "a=", "a", "" },
		{ "a=1", "a", "1" },
		{ "  b=2   a=1  ", "a", "1" },
		{ "a=1 a=2", "a", "2" },
		{ "a=1 a", "a", "" },
		{ "a a=1", "a", "1" },
		{ "ab=1", "a", NULL },
		{ "ba=1", "a", NULL },
		{ "ab=1", "ab=", NULL },
		{ "xa=1 a=b=c", "a", "b=c" },
		{ "a==", "a", "=" },
		{ "abc", "abcd", NULL },
		{ "abcd", "abc", NULL },
		{ "a=1\tb=2", "a", "1\tb=2" }, /* only spaces separate */
		{ "a=1\tb=2", "b", NULL },
		{ "x=a a=y", "a", "y" },
	};
	char value[16];
	int i;

	for (i = 0; i < ARRAY_SIZE(want); i++) {
		int len = want[i].value ? (int)strlen(want[i].value) : -1;

		/* The command line ends where its memory does. */
		char *line = keel_fenced(test, strlen(want[i].cmdline) + 1);

		strcpy(line, want[i].cmdline);
		memset(value, '#', sizeof(value));
		KUNIT_EXPECT_EQ_MSG(test, keel_cmdline_get(line, want[i].name, value, sizeof(value)), len, "\"%s\"",
				    line);
		if (want[i].value)
			KUNIT_EXPECT_STREQ(test, (char *)value, (char *)want[i].value);
		else
			KUNIT_EXPECT_EQ(test, value[0], '#');
		KUNIT_EXPECT_EQ(test, keel_cmdline_get(line, want[i].name, NULL, 0), len);
	}
}

static void values_that_do_not_fit(struct kunit *test)
{
	char value[12];
	size_t n;

	for (n = 1; n <= 10; n++) {
		memset(value, '#', sizeof(value));
		KUNIT_EXPECT_EQ(test, keel_cmdline_get("x a=01234567 y", "a", value, n), 8);
		KUNIT_EXPECT_EQ(test, strlen(value), min_t(size_t, n - 1, 8));
		KUNIT_EXPECT_EQ(test, memcmp(value, "01234567", strlen(value)), 0);
		KUNIT_EXPECT_PTR_EQ(test, memchr_inv(value + n, '#', sizeof(value) - n), NULL);
	}
}

static bool inside(const struct keel_start *start, const void *p, size_t len)
{
	return !p || (p >= (const void *)(start + 1) && p + len <= (const void *)start + start->size);
}

/* Bytes changed at random: refused, or everything handed out lies inside. A read outside is an oops. */
static void damage(struct kunit *test)
{
	struct keel_start *whole = build_good(test);
	size_t size = whole->size, n;
	struct keel_start *start = keel_fenced(test, ALIGN(size, 8));
	u64 state = keel_test_seed(test), accepted = 0, refused = 0;
	int round, i;

	for (round = 0; round < 50000; round++) {
		const struct keel_memmap_entry *map;
		const struct keel_chunk *c = NULL;
		const char *line;
		u32 type, chunks = 0;
		bool ok = true;

		memcpy(start, whole, size);
		for (i = keel_random_below(&state, 4); i >= 0; i--) {
			/* Mostly the headers: that is where the damage matters. */
			size_t at = keel_random_below(&state, keel_random_below(&state, 4) ? 64 : size);

			((u8 *)start)[at] = keel_random_below(&state, 2) ? keel_random(&state)
									 : keel_random_below(&state, 24);
		}
		if (keel_start_check(start, size)) {
			refused++;
			continue;
		}
		accepted++;
		for (type = 0; type < 9; type++, c = NULL)
			while ((c = keel_start_find(start, type, c))) {
				ok = ok && inside(start, c, c->size) && c->type == type;
				if (++chunks > start->chunks)
					break;
			}
		ok = ok && chunks <= start->chunks;
		map = keel_start_memmap(start, &n);
		ok = ok && inside(start, map, n * sizeof(*map));
		ok = ok && inside(start, keel_start_module(start, 1), sizeof(struct keel_module));
		ok = ok && inside(start, keel_start_cpu(start), sizeof(struct keel_cpu_info));
		ok = ok && inside(start, keel_start_abi(start), sizeof(struct keel_abi_pages));
		ok = ok && inside(start, keel_start_entropy(start), KEEL_ENTROPY_SIZE);
		ok = ok && inside(start, keel_start_linear(start), sizeof(struct keel_linear_map));
		line = keel_start_cmdline(start);
		ok = ok && (!*line || inside(start, line, strlen(line) + 1));
		keel_cmdline_get(line, "x", NULL, 0);
		keel_start_ram(start);
		if (!ok) {
			KUNIT_FAIL(test, "round %d", round);
			return;
		}
	}
	kunit_info(test, "%llu accepted, %llu refused", accepted, refused);
	KUNIT_EXPECT_GT(test, accepted, 1000ull);
	KUNIT_EXPECT_GT(test, refused, 1000ull);
}

static struct kunit_case cases[] = { KUNIT_CASE(reads_what_is_there),
				     KUNIT_CASE(a_bare_header),
				     KUNIT_CASE(a_broken_header),
				     KUNIT_CASE(miscounted_chunks),
				     KUNIT_CASE(chunks_of_impossible_size),
				     KUNIT_CASE(cut_at_every_byte),
				     KUNIT_CASE(chunks_too_short_and_longer),
				     KUNIT_CASE(command_lines_without_an_end),
				     KUNIT_CASE(options),
				     KUNIT_CASE(values_that_do_not_fit),
				     KUNIT_CASE(damage),
				     {} };

static struct kunit_suite suite = {
	.name = "keel_start",
	.test_cases = cases,
};

kunit_test_suites(&suite);

MODULE_DESCRIPTION("KUnit: start info");
MODULE_LICENSE("GPL");
