// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Start info: well-formed, malformed in each way, and random bytes. */
#include <hypercall/start.h>
#include <keel/status.h>

#include "unit.h"

/* Built in a buffer; handed to the code in a heap copy of exactly its size. */
static union {
	struct keel_start head;
	uint8_t b[16384];
	uint64_t align;
} build;
static size_t used;
static uint8_t *copy;

static void begin(void)
{
	memset(&build, 0, sizeof(build));
	build.head.magic = KEEL_START_MAGIC;
	build.head.version = KEEL_START_VERSION;
	used = sizeof(build.head);
}

static void chunk(uint32_t type, const void *data, size_t len)
{
	struct keel_chunk c = { type, (uint32_t)(sizeof(c) + len) };

	used = (used + 7) & ~(size_t)7;
	memcpy(build.b + used, &c, sizeof(c));
	memcpy(build.b + used + sizeof(c), data, len);
	used += sizeof(c) + len;
	build.head.chunks++;
	build.head.size = used;
}

static const struct keel_start *end(void)
{
	free(copy);
	if (build.head.size < used)
		build.head.size = used;
	copy = malloc(used);
	assert_non_null(copy);
	memcpy(copy, build.b, used);
	return (const struct keel_start *)copy;
}

static int drop(void **state)
{
	(void)state;
	free(copy);
	copy = NULL;
	return 0;
}

static void a_full_one_reads_back(void **state)
{
	static const struct keel_memmap_entry map[] = {
		{ 0, 0x400000, KEEL_MEM_RAM, 0 },
		{ 0x400000, 0x10000, KEEL_MEM_IMAGE, 0 },
		{ 0x410000, 0x3bf0000, KEEL_MEM_RAM, 0 },
		{ KEEL_U64(0x100000000), 0x2000, KEEL_MEM_ABI, 0 },
	};
	static const struct keel_module mod[] = { { 0x1000, 5 }, { 0x2000, 6 } };
	static const struct keel_linear_map linear = { KEEL_U64(0x100000000000), 0x4000000 };
	struct keel_abi_pages abi = { .clock_va = 1, .vcpus = 1 };
	struct keel_cpu_info cpu = { .tsc_hz = 123 };
	uint8_t entropy[KEEL_ENTROPY_SIZE];
	const struct keel_start *s;
	size_t n;

	(void)state;
	memset(entropy, 0x5a, sizeof(entropy));
	begin();
	chunk(KEEL_CHUNK_MEMMAP, map, sizeof(map));
	chunk(KEEL_CHUNK_MODULE, &mod[0], sizeof(mod[0]));
	chunk(KEEL_CHUNK_CMDLINE, "console=ring quiet", 19); /* 19: the next one needs padding */
	chunk(4711, "unknown", 7);
	chunk(KEEL_CHUNK_MODULE, &mod[1], sizeof(mod[1]));
	chunk(KEEL_CHUNK_ENTROPY, entropy, sizeof(entropy));
	chunk(KEEL_CHUNK_CPU, &cpu, sizeof(cpu));
	chunk(KEEL_CHUNK_ABI, &abi, sizeof(abi));
	chunk(KEEL_CHUNK_LINEAR, &linear, sizeof(linear));
	s = end();
	assert_int_equal(keel_start_check(s, used), 0);
	assert_int_equal(keel_start_check(s, SIZE_MAX), 0);
	assert_int_equal(keel_start_check(s, used - 1), KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_FIELD(4)));
	assert_memory_equal(keel_start_memmap(s, &n), map, sizeof(map));
	assert_int_equal(n, 4);
	assert_int_equal(keel_start_ram(s), 64 << 20);
	assert_memory_equal(keel_start_module(s, 0), &mod[0], sizeof(mod[0]));
	assert_memory_equal(keel_start_module(s, 1), &mod[1], sizeof(mod[1]));
	assert_null(keel_start_module(s, 2));
	assert_string_equal(keel_start_cmdline(s), "console=ring quiet");
	assert_memory_equal(keel_start_entropy(s), entropy, sizeof(entropy));
	assert_int_equal(keel_start_cpu(s)->tsc_hz, 123);
	assert_int_equal(keel_start_abi(s)->clock_va, 1);
	assert_int_equal(keel_start_linear(s)->len, 0x4000000);
}

static void an_empty_one_has_nothing(void **state)
{
	const struct keel_start *s;
	size_t n;

	(void)state;
	begin();
	s = end();
	assert_int_equal(keel_start_check(s, used), 0);
	assert_null(keel_start_find(s, KEEL_CHUNK_MEMMAP, NULL));
	assert_null(keel_start_memmap(s, &n));
	assert_int_equal(n, 0);
	assert_null(keel_start_module(s, 0));
	assert_string_equal(keel_start_cmdline(s), "");
	assert_null(keel_start_entropy(s));
	assert_null(keel_start_cpu(s));
	assert_null(keel_start_abi(s));
	assert_null(keel_start_linear(s));
	assert_int_equal(keel_start_ram(s), 0);
}

static void short_chunks_hold_nothing_long_ones_do(void **state)
{
	uint8_t zero[512] = { 0 };
	const struct keel_start *s;
	size_t n;

	(void)state;
	begin();
	chunk(KEEL_CHUNK_CPU, zero, sizeof(struct keel_cpu_info) - 1);
	chunk(KEEL_CHUNK_ABI, zero, sizeof(struct keel_abi_pages) + 64);
	chunk(KEEL_CHUNK_CMDLINE, "no terminator", 13);
	chunk(KEEL_CHUNK_MODULE, zero, 3);
	chunk(KEEL_CHUNK_LINEAR, zero, 0);
	chunk(KEEL_CHUNK_MEMMAP, zero, 23);
	s = end();
	assert_int_equal(keel_start_check(s, used), 0);
	assert_null(keel_start_cpu(s));
	assert_non_null(keel_start_abi(s));
	assert_string_equal(keel_start_cmdline(s), "");
	assert_null(keel_start_module(s, 0));
	assert_null(keel_start_linear(s));
	assert_null(keel_start_memmap(s, &n));
	assert_int_equal(n, 0);
}

static void each_header_field_is_checked(void **state)
{
	(void)state;
	begin();
	build.head.magic ^= 1;
	assert_int_equal(keel_start_check(end(), used), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(1)));
	begin();
	build.head.version++;
	assert_int_equal(keel_start_check(end(), used), KEEL_STATUS(KEEL_E_NOTSUP, KEEL_AT_FIELD(2)));
	begin();
	build.head.chunks = 1;
	assert_int_equal(keel_start_check(end(), used), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(3)));
	begin();
	build.head.size = used + 1;
	assert_int_equal(keel_start_check(end(), used), KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_FIELD(4)));
	begin();
	build.head.reserved = 1;
	assert_int_equal(keel_start_check(end(), used), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(5)));
	begin();
	((struct keel_start *)end())->size = sizeof(struct keel_start) - 1;
	assert_int_equal(keel_start_check(copy, used), KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_FIELD(4)));
	for (size_t n = 0; n < sizeof(struct keel_start); n++)
		assert_int_equal(keel_start_check(copy, n), KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_FIELD(4)));
}

static void each_way_a_chunk_can_lie(void **state)
{
	static const uint32_t size[] = { 0, 7, 25, 0x7fffffff, 0xffffffff, 0xfffffff9 };
	struct keel_start *s;

	(void)state;
	for (size_t i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
		begin();
		chunk(KEEL_CHUNK_MODULE, &(struct keel_module){ 1, 2 }, sizeof(struct keel_module));
		s = (struct keel_start *)end();
		((struct keel_chunk *)(s + 1))->size = size[i];
		assert_int_equal(keel_start_check(s, used), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(3)));
		/* The iteration, too, ends there. */
		assert_null(keel_start_find(s, KEEL_CHUNK_MODULE, NULL));
	}
	/* More, or fewer, chunks than counted. */
	begin();
	chunk(1, "12345678", 8);
	build.head.chunks = 2;
	assert_int_equal(keel_start_check(end(), used), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(3)));
	build.head.chunks = 0;
	assert_int_equal(keel_start_check(end(), used), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(4)));
}

/* Mutated and random start infos: nothing outside the buffer is read (the sanitizer sees to that). */
static void random_bytes_do_no_harm(void **state)
{
	uint64_t seed = 0xabcdef, accepted = 0;

	(void)state;
	for (int round = 0; round < 30000; round++) {
		const struct keel_start *s;
		const struct keel_chunk *c = NULL;
		size_t n, steps = 0;

		begin();
		for (uint64_t k = below(&seed, 5); k; k--) {
			uint8_t data[64];

			for (size_t i = 0; i < sizeof(data); i++)
				data[i] = (uint8_t)rnd(&seed);
			chunk(1 + (uint32_t)below(&seed, 8), data, below(&seed, sizeof(data)));
		}
		for (uint64_t k = below(&seed, 4); k; k--)
			build.b[32 + below(&seed, used)] = (uint8_t)(below(&seed, 3) ? below(&seed, 40) : rnd(&seed));
		s = end();
		if (keel_start_check(s, used))
			continue;
		accepted++;
		while ((c = keel_start_find(s, KEEL_CHUNK_MODULE, c)) != NULL) {
			assert_true((const uint8_t *)c + c->size <= copy + used);
			assert_true(++steps < 100);
		}
		keel_start_ram(s);
		assert_true(strlen(keel_start_cmdline(s)) < used);
		if (keel_start_memmap(s, &n))
			assert_true(n * sizeof(struct keel_memmap_entry) < used);
		keel_start_module(s, 3);
	}
	assert_true(accepted > 1000);
}

static void command_line_options(void **state)
{
	char v[8];

	(void)state;
	assert_int_equal(keel_cmdline_get("", "a", v, sizeof(v)), -1);
	assert_int_equal(keel_cmdline_get("quiet mem=64 x=", "mem", v, sizeof(v)), 2);
	assert_string_equal(v, "64");
	assert_int_equal(keel_cmdline_get("quiet mem=64 x=", "quiet", v, sizeof(v)), 0);
	assert_string_equal(v, "");
	assert_int_equal(keel_cmdline_get("quiet mem=64 x=", "x", v, sizeof(v)), 0);
	assert_int_equal(keel_cmdline_get("memory=1 amem=2", "mem", v, sizeof(v)), -1);
	assert_int_equal(keel_cmdline_get("  a=1   a=2 ", "a", v, sizeof(v)), 1);
	assert_string_equal(v, "2");
	assert_int_equal(keel_cmdline_get("a=123456789", "a", v, sizeof(v)), 9);
	assert_string_equal(v, "1234567");
	assert_int_equal(keel_cmdline_get("a=b=c", "a", v, sizeof(v)), 3);
	assert_string_equal(v, "b=c");
	assert_int_equal(keel_cmdline_get("a", "a", NULL, 0), 0);
}

int start_tests(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(a_full_one_reads_back, drop),
		cmocka_unit_test_teardown(an_empty_one_has_nothing, drop),
		cmocka_unit_test_teardown(short_chunks_hold_nothing_long_ones_do, drop),
		cmocka_unit_test_teardown(each_header_field_is_checked, drop),
		cmocka_unit_test_teardown(each_way_a_chunk_can_lie, drop),
		cmocka_unit_test_teardown(random_bytes_do_no_harm, drop),
		cmocka_unit_test(command_line_options),
	};

	return cmocka_run_group_tests_name("start", tests, NULL, NULL);
}
