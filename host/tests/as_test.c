// SPDX-License-Identifier: MIT
/*
 * The monitor's page-table tree against a flat array: random maps, unmaps,
 * protections and flags around table boundaries, in arenas too small for them.
 */
#include <stdlib.h>

#include "tests.h"

#include "../monitor/monitor.h"

#define WINDOW 2048 /* pages of each window, four times what a large leaf covers */
#define WINDOWS 3
#define RAM_PAGES 8192
#define ARENA_MAX 40

/* Across boundaries of the levels, and up to the end of the guest's addresses. */
static const uint64_t base[WINDOWS] = { 0x3fe00000, 0x7fffc00000, KEEL_VA_END - WINDOW *KEEL_PAGE_SIZE };

static uint64_t model[WINDOWS][WINDOW];
static uint8_t arena[ARENA_MAX * KEEL_PAGE_SIZE] __attribute__((aligned(4096)));
static uint32_t live[ARENA_MAX];
static struct mon m;
static uint64_t seed;

static uint64_t dice(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

/* Entries of a table must be as many as its counter says; returns how many tables there are from here on. */
static unsigned int count_tables(const uint64_t *t, unsigned int level)
{
	unsigned int used = 0, tables = 1;

	for (unsigned int i = 0; i < 512; i++) {
		used += t[i] != 0;
		if (level && t[i] && !(t[i] & PTE_PS))
			tables +=
				count_tables((const uint64_t *)(arena + ((t[i] & PTE_ADDR) - m.arena_base)), level - 1);
		if (t[i] & PTE_PS)
			assert_int_equal(level, 1);
	}
	assert_int_equal(used, live[((const uint8_t *)t - arena) / KEEL_PAGE_SIZE]);
	assert_true(used || level == 3);
	return tables;
}

static void compare(void)
{
	uint64_t tracked = 0;

	for (unsigned int w = 0; w < WINDOWS; w++)
		for (unsigned int i = 0; i < WINDOW; i++) {
			assert_int_equal(as_lookup(&m, &m.as0, base[w] + i * KEEL_PAGE_SIZE), model[w][i]);
			tracked += !!(model[w][i] & PTE_TRACK);
		}
	assert_int_equal(m.as0.tracked, tracked);
	assert_int_equal(count_tables(m.as0.root, 3), m.tables);
	/* What is free is zero, for it is handed out so. */
	for (uint32_t f = m.table_free; f; f = live[f - 1])
		for (unsigned int i = 0; i < KEEL_PAGE_SIZE; i++)
			assert_int_equal(arena[(f - 1) * KEEL_PAGE_SIZE + i], 0);
}

/* NOMEM is honest: no table was left, though some may have been given back since. */
static void expect_full(void)
{
	assert_int_equal(m.table_used, m.arena_pages);
}

static uint64_t flags(void)
{
	return PTE_P | (dice(2) ? PTE_W : 0) | (dice(2) ? PTE_NX : 0);
}

static void op_map(unsigned int w, unsigned int at, unsigned int n)
{
	uint64_t f = flags(), gpa = dice(RAM_PAGES), done;
	bool replaced, over = false;

	if (dice(2)) /* what can be a large leaf */
		gpa = (gpa & ~511u) + (base[w] / KEEL_PAGE_SIZE + at) % 512;
	gpa *= KEEL_PAGE_SIZE;
	done = as_map(&m, &m.as0, base[w] + at * KEEL_PAGE_SIZE, gpa, n, f, &replaced);
	assert_true(done <= n);
	for (unsigned int i = 0; i < done; i++)
		over |= !!model[w][at + i];
	assert_int_equal(replaced, over);
	for (unsigned int i = 0; i < done; i++)
		model[w][at + i] = (gpa + i * KEEL_PAGE_SIZE) | f |
				   (model[w][at + i] & PTE_TRACK ? PTE_TRACK | PTE_D : 0);
	if (done < n)
		expect_full();
}

static void op_unmap(unsigned int w, unsigned int at, unsigned int n)
{
	uint64_t present = 0, written = 0, done, want_present = 0, want_written = 0;

	done = as_unmap(&m, &m.as0, base[w] + at * KEEL_PAGE_SIZE, n, &present, &written);
	assert_true(done <= n);
	for (unsigned int i = 0; i < done; i++) {
		want_present += model[w][at + i] != 0;
		want_written += (model[w][at + i] & (PTE_TRACK | PTE_D)) == (PTE_TRACK | PTE_D);
		model[w][at + i] = 0;
	}
	assert_int_equal(present, want_present);
	assert_int_equal(written, want_written);
	if (done < n)
		expect_full();
}

static void changed(unsigned int w, unsigned int at, unsigned int n, uint64_t done, uint64_t keep, uint64_t put)
{
	assert_true(done <= n);
	for (unsigned int i = 0; i < done; i++) {
		assert_true(model[w][at + i]);
		model[w][at + i] = (model[w][at + i] & keep) | put;
	}
	if (done < n && model[w][at + done])
		expect_full();
}

static void op_protect(unsigned int w, unsigned int at, unsigned int n)
{
	uint64_t f = flags();

	changed(w, at, n, as_protect(&m, &m.as0, base[w] + at * KEEL_PAGE_SIZE, n, f), PTE_ADDR | PTE_TRACK | PTE_D, f);
}

static void op_flags(unsigned int w, unsigned int at, unsigned int n)
{
	static const uint64_t how[][2] = {
		{ PTE_TRACK, PTE_D }, { 0, PTE_TRACK | PTE_D }, { PTE_D, 0 }, { PTE_TRACK | PTE_D, 0 }
	};
	const uint64_t *h = how[dice(4)];

	changed(w, at, n, as_flags(&m, &m.as0, base[w] + at * KEEL_PAGE_SIZE, n, h[0], h[1]), ~h[1], h[0]);
}

static void op_run(unsigned int w, unsigned int at, unsigned int n)
{
	uint64_t va = base[w] + at * KEEL_PAGE_SIZE, pte = 0, max = 1 + dice(WINDOW), got;
	unsigned int first = at, want = 0;

	while (first < at + n && !model[w][first])
		first++;
	while (first + want < at + n && want < max && model[w][first + want] &&
	       model[w][first + want] == model[w][first] + want * KEEL_PAGE_SIZE)
		want++;
	got = as_run(&m, &m.as0, &va, base[w] + (at + n) * KEEL_PAGE_SIZE, max, &pte);
	assert_int_equal(got, want);
	if (got) {
		assert_int_equal(va, base[w] + first * KEEL_PAGE_SIZE);
		assert_int_equal(pte, model[w][first]);
	}
}

static void run(unsigned int pages, unsigned int rounds, bool track)
{
	static void (*const ops[])(unsigned int, unsigned int, unsigned int) = { op_map,     op_map, op_unmap,
										 op_protect, op_run, op_flags };
	uint64_t unused = 0;

	memset(model, 0, sizeof(model));
	memset(arena, 0, sizeof(arena));
	memset(live, 0, sizeof(live));
	m = (struct mon){ .arena = arena, .arena_pages = pages, .table_live = live };
	if (dice(2)) { /* as on kvm */
		m.ram_base = KEEL_U64(4) << 30;
		m.arena_base = KEEL_U64(5) << 20;
	}
	as_init(&m, &m.as0);
	for (unsigned int i = 0; i < rounds; i++) {
		unsigned int w = (unsigned int)dice(WINDOWS), at = (unsigned int)dice(WINDOW), n;

		if (dice(4) == 0)
			at &= ~511u;
		n = 1 + (unsigned int)dice(dice(2) ? 8 : WINDOW - at);
		if (n > WINDOW - at)
			n = WINDOW - at;
		ops[dice(track ? 6 : 5)](w, at, n);
		if (i % 16 == 0 || i + 1 == rounds)
			compare();
	}
	/* Without a table to spare a large leaf goes whole or not at all; whole ones always go. */
	for (unsigned int w = 0; w < WINDOWS; w++)
		assert_int_equal(as_unmap(&m, &m.as0, base[w], WINDOW, &unused, &unused), WINDOW);
	assert_int_equal(m.tables, 1);
	assert_int_equal(m.as0.tracked, 0);
}

static void test_random(void **state)
{
	(void)state;
	for (seed = 1; seed < 9; seed++) {
		uint64_t s = seed;

		run(ARENA_MAX, 1500, false);
		run(ARENA_MAX, 1500, true);
		seed = s;
	}
}

static void test_small_arenas(void **state)
{
	(void)state;
	for (unsigned int pages = 1; pages < 20; pages++) {
		seed = 77 + pages;
		run(pages, 400, pages % 2);
	}
}

const struct CMUnitTest as_tests[] = {
	cmocka_unit_test(test_random),
	cmocka_unit_test(test_small_arenas),
};
DEFINE_TESTS(as);
