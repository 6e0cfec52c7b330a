// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* HARVEST: which pages were written. */
#include "kt.h"

#define RW (KEEL_PROT_R | KEEL_PROT_W)
#define G0 KT_SCRATCH_GPA
#define BITMAP_GPA (KT_SCRATCH_GPA + 0xb00000)
#define BITMAP ((u8 *)(KT_LINEAR + BITMAP_GPA))
#define DIRTY KEEL_HARVEST_DIRTY

static void setup(u64 pages)
{
	OK(MAP(KT_VA, G0, pages * 4096, RW));
	for (u64 i = 0; i < pages; i++)
		*(volatile u8 *)(KT_VA + i * 4096) = 0;
	memset(BITMAP, 0xee, 4096);
}

static struct kt_ret start(u64 pages)
{
	return HC(KEEL_CALL_HARVEST_START, 0, KT_VA, pages * 4096, DIRTY);
}

static struct kt_ret collect(u64 pages)
{
	return HC(KEEL_CALL_HARVEST_COLLECT, 0, KT_VA, pages * 4096, BITMAP_GPA);
}

static bool bit(u64 i)
{
	return BITMAP[i / 8] >> (i % 8) & 1;
}

KEEL_TEST("HARVEST-001", harvest_reports_writes, "KEEL-HARVEST-01 KEEL-HARVEST-02 KEEL-HARVEST-04", "", 0)
{
	struct kt_ret r;
	u64 n = 0;

	setup(64);
	OK_VALUE(start(64), 64);
	*(volatile u8 *)(KT_VA + 3 * 4096 + 17) = 1;
	*(volatile u64 *)(KT_VA + 63 * 4096 + 4088) = 1;
	r = collect(64);
	OK(r);
	CHECK_EQ(KEEL_HARVEST_DONE_PAGES(r.value), 64);
	CHECK(bit(3));
	CHECK(bit(63));
	for (u64 i = 0; i < 64; i++)
		n += bit(i);
	CHECK_EQ(KEEL_HARVEST_WRITTEN(r.value), n);
	CHECK_EQ(kt_traps, 0);
}

KEEL_TEST("HARVEST-002", harvest_rearms, "KEEL-HARVEST-02 KEEL-HARVEST-03", "", 0)
{
	u64 quiet = 0;

	setup(256);
	OK(start(256));
	for (u64 round = 0; round < 200; round++) {
		u64 page = round * 7 % 256;

		*(volatile u64 *)(KT_VA + page * 4096 + round % 500 * 8) = round;
		OK(collect(256));
		if (!bit(page))
			KT_FAIL("round %lu: the write to page %lu is not reported", round, page);
		for (u64 i = 0; i < 256; i++)
			quiet += !bit(i);
	}
	/* Over-reporting is legal, for ever is not: most pages were not written in most rounds. */
	CHECK(quiet > 200 * 128);
	OK(collect(256));
	OK(collect(256));
	for (u64 i = 0; i < 256; i++)
		if (bit(i))
			KT_FAIL("page %lu is still reported with nothing written", i);
}

KEEL_TEST("HARVEST-003", harvest_through_alias, "KEEL-HARVEST-01 KEEL-HARVEST-13", "", 0)
{
	setup(8);
	OK(start(8));
	/* Reads, and writes by other names, trap nowhere and change nothing that is seen. */
	for (u64 i = 0; i < 8; i++) {
		CHECK_EQ(*(volatile u8 *)(KT_VA + i * 4096), 0);
		CHECK_EQ(kt_query(KT_VA + i * 4096), (G0 + i * 4096) | RW);
	}
	*(u8 *)kt_ram(G0 + 4096) = 0x77;
	CHECK_EQ(*(volatile u8 *)(KT_VA + 4096), 0x77);
	for (u64 i = 0; i < 8; i++)
		CHECK(!kt_probe_write(KT_VA + i * 4096, (u8)i));
	CHECK_EQ(kt_traps, 0);
	OK(collect(8));
	for (u64 i = 0; i < 8; i++)
		CHECK(bit(i));
}

KEEL_TEST("HARVEST-004", harvest_read_only_stays, "KEEL-HARVEST-13", "neg", 0)
{
	setup(8);
	OK(PROTECT(KT_VA, 4 * 4096, KEEL_PROT_R));
	OK(start(8));
	for (u64 i = 0; i < 8; i++)
		CHECK_EQ(kt_probe_write(KT_VA + i * 4096, 1), i < 4);
	CHECK_EQ(kt_trap_frame.error, KEEL_PF_P | KEEL_PF_W);
	OK(collect(8));
	for (u64 i = 4; i < 8; i++)
		CHECK(bit(i));
	/* Made writable while tracked: writes are reported. */
	OK(PROTECT(KT_VA, 4 * 4096, RW));
	OK(collect(8));
	CHECK(!kt_probe_write(KT_VA + 4096, 1));
	OK(collect(8));
	CHECK(bit(1));
}

KEEL_TEST("HARVEST-005", harvest_bound, "KEEL-HARVEST-05 KEEL-HARVEST-04 KEEL-CALL-17", "timeout=30", 0)
{
	u64 limit = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_HARVEST_PAGES).value;
	u64 pages = limit + limit / 2, done = 0;

	/* More than the limit by mapping the same RAM again and again. */
	for (u64 at = 0; at < pages; at += 2048)
		OK(MAP(KT_VA + at * 4096, G0, (pages - at < 2048 ? pages - at : 2048) * 4096, RW));
	while (done < pages) {
		struct kt_ret r = HC(KEEL_CALL_HARVEST_START, 0, KT_VA + done * 4096, (pages - done) * 4096, DIRTY);

		if (!OK(r) || !r.value)
			break;
		CHECK(r.value <= limit && limit % 64 == 0);
		CHECK(r.value == pages - done || r.value % 64 == 0);
		done += r.value;
	}
	CHECK_EQ(done, pages);
	*(volatile u8 *)(KT_VA + (pages - 1) * 4096) = 1;
	*(volatile u8 *)(KT_VA) = 1;
	for (done = 0; done < pages;) {
		struct kt_ret r =
			HC(KEEL_CALL_HARVEST_COLLECT, 0, KT_VA + done * 4096, (pages - done) * 4096, BITMAP_GPA);
		u64 n = KEEL_HARVEST_DONE_PAGES(r.value);

		if (!OK(r) || !n)
			break;
		CHECK(n <= limit);
		CHECK(n == pages - done || n % 64 == 0);
		if (!done)
			CHECK(bit(0));
		done += n;
		if (done == pages)
			CHECK(bit(n - 1));
	}
	CHECK_EQ(done, pages);
}

KEEL_TEST("HARVEST-006", harvest_bitmap_words, "KEEL-HARVEST-06 KEEL-HARVEST-02", "", 0)
{
	setup(77);
	OK(start(77));
	for (u64 i = 0; i < 77; i++)
		*(volatile u8 *)(KT_VA + i * 4096) = 1;
	OK(collect(77));
	CHECK_EQ(((u64 *)BITMAP)[0], ~0ull);
	CHECK_EQ(((u64 *)BITMAP)[1], 0x1fff); /* bits beyond the range are 0 */
	for (u64 i = 16; i < 4096; i++)
		if (BITMAP[i] != 0xee) {
			KT_FAIL("bitmap byte %lu was written", i);
			break;
		}
	memset(BITMAP, 0xee, 64);
	OK(collect(1));
	CHECK_EQ(((u64 *)BITMAP)[0] & ~1ull, 0);
	CHECK_EQ(BITMAP[8], 0xee);
}

KEEL_TEST("HARVEST-007", harvest_unmapped, "KEEL-HARVEST-07 KEEL-HARVEST-01", "", 0)
{
	setup(8);
	OK(UNMAP(KT_VA + 6 * 4096, 2 * 4096));
	OK_VALUE(start(8), 8); /* holes are done as well */
	OK(collect(8));
	*(volatile u8 *)(KT_VA + 4096) = 1;
	*(volatile u8 *)(KT_VA + 3 * 4096) = 1;
	OK(UNMAP(KT_VA + 4096, 2 * 4096));
	memset(BITMAP, 0xee, 8);
	OK(collect(8));
	CHECK(!bit(1) && !bit(2) && !bit(6) && !bit(7)); /* not mapped */
	CHECK(bit(3));
}

KEEL_TEST("HARVEST-008", harvest_untracked, "KEEL-HARVEST-08 KEEL-HARVEST-09", "", 0)
{
	struct kt_ret r;

	setup(64);
	r = collect(64);
	OK(r);
	CHECK_EQ(r.value, 64 | 64ull << 32); /* not tracked: as written, and tracked from then on */
	OK(collect(64));
	r = collect(64);
	CHECK_EQ(r.value, 64);
	*(volatile u8 *)(KT_VA + 5 * 4096) = 1;
	OK(collect(64));
	CHECK(bit(5));
	OK_VALUE(HC(KEEL_CALL_HARVEST_STOP, 0, KT_VA, 64 * 4096), 64);
	OK_VALUE(HC(KEEL_CALL_HARVEST_STOP, 0, KT_VA, 64 * 4096), 64); /* skips those not tracked */
	for (u64 i = 0; i < 64; i++)
		CHECK(!kt_probe_write(KT_VA + i * 4096, 1));
	OK_VALUE(collect(64), 64 | 64ull << 32);
}

KEEL_TEST("HARVEST-009", harvest_forms, "KEEL-HARVEST-10 KEEL-MMU-09 KEEL-AS-03", "neg", 0)
{
	static const u64 call[] = { KEEL_CALL_HARVEST_START, KEEL_CALL_HARVEST_STOP, KEEL_CALL_HARVEST_COLLECT };

	setup(8);
	for (int i = 0; i < 3; i++) {
		u64 last = i == 0 ? DIRTY : i == 2 ? BITMAP_GPA : 0;

		NEG(kt_call(call[i], 1, KT_VA, 4096, last, 0), KEEL_E_NOENT, ARG(1));
		NEG(kt_call(call[i], ~0ull, KT_VA, 4096, last, 0), KEEL_E_NOENT, ARG(1));
		NEG(kt_call(call[i], 0, KT_VA + 1, 4096, last, 0), KEEL_E_INVAL, ARG(2));
		NEG(kt_call(call[i], 0, KT_VA + 0x800, 0, last, 0), KEEL_E_INVAL, ARG(2));
		NEG(kt_call(call[i], 0, KT_VA, 0, last, 0), KEEL_E_INVAL, ARG(3));
		NEG(kt_call(call[i], 0, KT_VA, 4097, last, 0), KEEL_E_INVAL, ARG(3));
		NEG(kt_call(call[i], 0, KT_VA, ~0ull, last, 0), KEEL_E_INVAL, ARG(3));
		NEG(kt_call(call[i], 0, 0, 4096, last, 0), KEEL_E_RANGE, ARG(2));
		NEG(kt_call(call[i], 0, KEEL_VA_END, 4096, last, 0), KEEL_E_RANGE, ARG(2));
		NEG(kt_call(call[i], 0, KEEL_VA_END - 4096, 8192, last, 0), KEEL_E_RANGE, ARG(2));
		NEG(kt_call(call[i], 0, KT_VA, -4096ull, last, 0), KEEL_E_RANGE, ARG(2));
		NEG(kt_call(call[i], 0, -4096ull, 8192, last, 0), KEEL_E_RANGE, ARG(2));
	}
}

KEEL_TEST("HARVEST-010", harvest_flags, "KEEL-HARVEST-11 KEEL-CALL-07", "neg", 0)
{
	setup(8);
	for (int b = 2; b < 64; b++)
		NEG_BIT(HC(KEEL_CALL_HARVEST_START, 0, KT_VA, 4096, DIRTY | 1ull << b), KEEL_E_INVAL, ARG(4), b);
	NEG(HC(KEEL_CALL_HARVEST_START, 0, KT_VA, 4096, 0), KEEL_E_INVAL, ARG(4));
	if (!(HC(KEEL_CALL_BASE_FEATURES, 1).value & 1 << KEEL_F1_HARVEST_ACCESSED)) {
		NEG_BIT(HC(KEEL_CALL_HARVEST_START, 0, KT_VA, 4096, 2), KEEL_E_NOTSUP, ARG(4), 1);
		NEG_BIT(HC(KEEL_CALL_HARVEST_START, 0, KT_VA, 4096, 3), KEEL_E_NOTSUP, ARG(4), 1);
	}
	OK_VALUE(collect(8), 8 | 8ull << 32); /* none of them started anything */
}

KEEL_TEST("HARVEST-011", harvest_bitmap_gpa, "KEEL-HARVEST-12 KEEL-TYPE-06", "neg", 0)
{
	u64 ram = kt_ram_size();

	setup(128);
	OK(start(128));
	for (u64 k = 1; k < 8; k++)
		NEG(HC(KEEL_CALL_HARVEST_COLLECT, 0, KT_VA, 4096, BITMAP_GPA + k), KEEL_E_INVAL, ARG(4));
	NEG(HC(KEEL_CALL_HARVEST_COLLECT, 0, KT_VA, 4096, ram), KEEL_E_FAULT, ARG(4));
	NEG(HC(KEEL_CALL_HARVEST_COLLECT, 0, KT_VA, 128 * 4096, ram - 8), KEEL_E_FAULT, ARG(4));
	NEG(HC(KEEL_CALL_HARVEST_COLLECT, 0, KT_VA, 128 * 4096, -8ull), KEEL_E_FAULT, ARG(4));
	/* Nothing was done: the writes of before are still there to be collected. */
	*(volatile u8 *)(KT_VA + 5 * 4096) = 1;
	NEG(HC(KEEL_CALL_HARVEST_COLLECT, 0, KT_VA, 128 * 4096, ram), KEEL_E_FAULT, ARG(4));
	OK(HC(KEEL_CALL_HARVEST_COLLECT, 0, KT_VA, 128 * 4096, ram - 16));
	CHECK(*(u8 *)kt_ram(ram - 16) & 32);
}

KEEL_TEST("HARVEST-012", harvest_start_again, "KEEL-HARVEST-14 KEEL-HARVEST-01", "", 0)
{
	setup(64);
	OK(start(64));
	OK(collect(64));
	*(volatile u8 *)(KT_VA + 2 * 4096) = 1;
	OK_VALUE(start(64), 64); /* afresh */
	*(volatile u8 *)(KT_VA + 40 * 4096) = 1;
	OK(collect(64));
	CHECK(bit(40));
	CHECK(!bit(2));
}

KEEL_TEST("HARVEST-013", harvest_remapped, "KEEL-HARVEST-08 KEEL-HARVEST-01 KEEL-HARVEST-13", "", 0)
{
	setup(64);
	OK(start(64));
	OK(collect(64));
	OK(collect(64));
	/* Tracked pages get other GPAs: mapped anew is as written, whether written since or not. */
	OK(MAP(KT_VA + 4 * 4096, G0 + 0x100000, 4 * 4096, RW));
	*(volatile u8 *)(KT_VA + 5 * 4096) = 1;
	memset(BITMAP, 0, 8);
	OK(collect(64));
	CHECK_EQ(BITMAP[0] & 0xf0, 0xf0);
	*(volatile u8 *)(KT_VA + 6 * 4096) = 1;
	OK(collect(64));
	CHECK(bit(6));
	CHECK_EQ(kt_traps, 0);
}

KEEL_TEST("HARVEST-014", harvest_host_writes, "KEEL-HARVEST-14 KEEL-HARVEST-13", "", 0)
{
	u64 va = KT_LINEAR + G0;

	/* What the host writes for the guest into tracked pages is reported; nothing traps. */
	OK(HC(KEEL_CALL_HARVEST_START, 0, va, 64 * 4096, DIRTY));
	OK(HC(KEEL_CALL_HARVEST_COLLECT, 0, va, 64 * 4096, BITMAP_GPA));
	OK(HC(KEEL_CALL_HARVEST_COLLECT, 0, va, 64 * 4096, BITMAP_GPA));
	OK_VALUE(HC(KEEL_CALL_STATS_READ, G0 + 33 * 4096, 64, 0), 2);
	OK(HC(KEEL_CALL_HARVEST_COLLECT, 0, va, 64 * 4096, BITMAP_GPA));
	CHECK(bit(33));
	CHECK_EQ(*(u32 *)kt_ram(G0 + 33 * 4096), kt_calls[0].id);
	OK(HC(KEEL_CALL_HARVEST_COLLECT, 0, va, 64 * 4096, G0 + 50 * 4096)); /* a bitmap in its own range */
	OK(HC(KEEL_CALL_HARVEST_COLLECT, 0, va, 64 * 4096, BITMAP_GPA));
	CHECK(bit(50));
	CHECK_EQ(kt_traps, 0);
	OK(HC(KEEL_CALL_HARVEST_STOP, 0, va, 64 * 4096));
}

KEEL_TEST("HARVEST-015", harvest_random, "KEEL-HARVEST-01 KEEL-HARVEST-02 KEEL-HARVEST-03", "timeout=30", 0)
{
	u64 rounds = 400 / kt_scale + 40;
	u64 over = 0;

	kt_note("seed %lu", kt_seed);
	setup(64);
	OK(start(64));
	OK(collect(64));
	for (u64 round = 0; round < rounds; round++) {
		u64 written = 0;

		for (u64 k = kt_random_below(20); k; k--) {
			u64 page = kt_random_below(64);

			written |= 1ull << page;
			*(volatile u8 *)(KT_VA + page * 4096 + kt_random_below(4096)) = (u8)k;
		}
		for (u64 k = kt_random_below(20); k; k--)
			kt_probe_read(KT_VA + kt_random_below(64) * 4096);
		OK(collect(64));
		for (u64 i = 0; i < 64; i++) {
			if (written >> i & 1 && !bit(i))
				KT_FAIL("round %lu: page %lu was written and is not reported", round, i);
			over += bit(i) && !(written >> i & 1);
		}
	}
	CHECK(over < rounds * 48);
}

KEEL_TEST("HARVEST-016", harvest_argument_order, "KEEL-CALL-09 KEEL-HARVEST-10 KEEL-HARVEST-12", "neg", 0)
{
	u64 ram = kt_ram_size();

	setup(8);
	NEG(HC(KEEL_CALL_HARVEST_COLLECT, 5, KT_VA + 1, 1, BITMAP_GPA + 1), KEEL_E_INVAL, ARG(2));
	NEG(HC(KEEL_CALL_HARVEST_COLLECT, 5, 0, 1, BITMAP_GPA + 1), KEEL_E_INVAL, ARG(3));
	NEG(HC(KEEL_CALL_HARVEST_COLLECT, 5, 0, 4096, BITMAP_GPA + 1), KEEL_E_INVAL, ARG(4));
	NEG(HC(KEEL_CALL_HARVEST_COLLECT, 5, 0, 4096, ram), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_HARVEST_COLLECT, 0, 0, 4096, ram), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_HARVEST_COLLECT, 0, KT_VA, 4096, ram), KEEL_E_FAULT, ARG(4));
	NEG(HC(KEEL_CALL_HARVEST_START, 5, 0, 4096, 0), KEEL_E_INVAL, ARG(4));
	NEG(HC(KEEL_CALL_HARVEST_START, 5, 0, 4096, DIRTY), KEEL_E_NOENT, ARG(1));
}
