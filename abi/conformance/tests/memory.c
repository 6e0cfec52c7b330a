// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* MEMORY, CRASH and STATS. */
#include "kt.h"

#define RW (KEEL_PROT_R | KEEL_PROT_W)
#define G0 KT_SCRATCH_GPA

static struct kt_ret all(u64 call, u64 gpa, u64 pages)
{
	u64 limit = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_MEMORY_PAGES).value;

	while (pages) {
		struct kt_ret r = HC(call, gpa, pages * 4096);

		if (r.status)
			return r;
		if (!r.value || r.value > pages || r.value > limit)
			return (struct kt_ret){ 1, r.value };
		gpa += r.value * 4096;
		pages -= r.value;
	}
	return (struct kt_ret){ 0, 0 };
}

KEEL_TEST("MEMORY-001", memory_release, "KEEL-MEMORY-01 KEEL-MEMORY-03 KEEL-MEMORY-05", "", 0)
{
	OK(MAP(KT_VA, G0, 32 * 4096, RW));
	OK(MAP(KT_VA + (1 << 20), G0, 32 * 4096, KEEL_PROT_R));
	kt_poison(G0, 32 * 4096, 9);
	OK(all(KEEL_CALL_MEMORY_RELEASE, G0 + 8 * 4096, 16));
	for (u64 i = 0; i < 32; i++) {
		bool gone = i >= 8 && i < 24;

		/* Zero through every mapping, and the mappings stay. */
		CHECK_EQ(!*(volatile u64 *)(KT_VA + i * 4096 + 8), gone);
		CHECK_EQ(!*(volatile u64 *)(KT_VA + (1 << 20) + i * 4096 + 8), gone);
		CHECK_EQ(!*(u64 *)kt_ram(G0 + i * 4096 + 4088), gone);
		CHECK_EQ(kt_query(KT_VA + i * 4096), (G0 + i * 4096) | RW);
	}
	for (u64 i = 0; i < 32; i++)
		*(volatile u64 *)(KT_VA + i * 4096) = i + 1;
	for (u64 i = 0; i < 32; i++)
		CHECK_EQ(*(u64 *)kt_ram(G0 + i * 4096), i + 1);
	CHECK_EQ(kt_traps, 0);
}

KEEL_TEST("MEMORY-002", memory_release_twice, "KEEL-MEMORY-01 KEEL-MEMORY-05", "", 0)
{
	for (u64 i = 0; i < 50; i++) {
		kt_poison(G0, 65536, i);
		OK(all(KEEL_CALL_MEMORY_RELEASE, G0, 16));
		OK(all(KEEL_CALL_MEMORY_RELEASE, G0, 16));
		for (u64 k = 0; k < 65536; k += 8)
			if (*(u64 *)kt_ram(G0 + k)) {
				KT_FAIL("byte %lx is not zero", k);
				return;
			}
	}
}

KEEL_TEST("MEMORY-003", memory_populate, "KEEL-MEMORY-02 KEEL-MEMORY-03", "", 0)
{
	u64 h;

	kt_poison(G0, 1 << 20, 5);
	h = kt_hash(1, kt_ram(G0), 1 << 20);
	OK(all(KEEL_CALL_MEMORY_POPULATE, G0, 512));
	CHECK_EQ(kt_hash(1, kt_ram(G0), 1 << 20), h);
	OK(all(KEEL_CALL_MEMORY_RELEASE, G0, 512));
	OK(all(KEEL_CALL_MEMORY_POPULATE, G0, 512));
	for (u64 k = 0; k < 2 << 20; k += 8)
		if (*(u64 *)kt_ram(G0 + k)) {
			KT_FAIL("byte %lx is not zero", k);
			return;
		}
}

KEEL_TEST("MEMORY-004", memory_bound, "KEEL-MEMORY-03 KEEL-CALL-17", "", 0)
{
	struct kt_ret r = HC(KEEL_CALL_MEMORY_POPULATE, G0, KT_SCRATCH_SIZE);

	OK(r);
	CHECK(r.value >= 1 && r.value <= HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_MEMORY_PAGES).value);
	CHECK(r.value <= KT_SCRATCH_SIZE / 4096);
	r = HC(KEEL_CALL_MEMORY_RELEASE, G0, KT_SCRATCH_SIZE);
	OK(r);
	CHECK(r.value >= 1 && r.value <= KT_SCRATCH_SIZE / 4096);
}

KEEL_TEST("MEMORY-005", memory_forms, "KEEL-MEMORY-04 KEEL-TYPE-06 KEEL-CALL-09", "neg", 0)
{
	static const u64 call[] = { KEEL_CALL_MEMORY_RELEASE, KEEL_CALL_MEMORY_POPULATE };
	const struct keel_abi_pages *p;
	u64 ram = kt_ram_size();
	u32 size;

	p = kt_chunk(KEEL_CHUNK_ABI, &size);
	REQUIRE(p);
	for (int i = 0; i < 2; i++) {
		NEG(HC(call[i], G0 + 1, 4096), KEEL_E_INVAL, ARG(1));
		NEG(HC(call[i], G0 + 0x800, 1), KEEL_E_INVAL, ARG(1));
		NEG(HC(call[i], G0, 0), KEEL_E_INVAL, ARG(2));
		NEG(HC(call[i], G0, 1), KEEL_E_INVAL, ARG(2));
		NEG(HC(call[i], ram, 4095), KEEL_E_INVAL, ARG(2)); /* forms first */
		NEG(HC(call[i], ram, 4096), KEEL_E_FAULT, ARG(1));
		NEG(HC(call[i], ram - 4096, 8192), KEEL_E_FAULT, ARG(1));
		NEG(HC(call[i], G0, ram), KEEL_E_FAULT, ARG(1));
		NEG(HC(call[i], G0, -4096ull), KEEL_E_FAULT, ARG(1));
		NEG(HC(call[i], -4096ull, 8192), KEEL_E_FAULT, ARG(1));
		NEG(HC(call[i], p->start_gpa, 4096), KEEL_E_FAULT, ARG(1));
	}
	OK_VALUE(HC(KEEL_CALL_MEMORY_POPULATE, ram - 4096, 4096), 1);
}

KEEL_TEST("MEMORY-006", memory_release_executing, "KEEL-MEMORY-01", "", 0)
{
	memcpy(kt_ram(G0), kt_code, (size_t)(kt_code_end - kt_code));
	OK(MAP(KT_VA, G0, 4096, KEEL_PROT_R | KEEL_PROT_X));
	CHECK(!kt_probe_exec(KT_VA));
	OK(HC(KEEL_CALL_MEMORY_RELEASE, G0, 4096));
	CHECK_EQ(*(volatile u8 *)KT_VA, 0);
	memcpy(kt_ram(G0), kt_code, (size_t)(kt_code_end - kt_code));
	CHECK(!kt_probe_exec(KT_VA));
}

KEEL_TEST("CRASH-001", crash_message, "KEEL-CRASH-01 KEEL-CRASH-04", "exit=125 destructive", 0)
{
	static const char text[] = "the conformance suite asked for this";

	memcpy(kt_ram(G0 + 5), text, sizeof(text));
	kt_armed();
	HC(KEEL_CALL_CRASH, KEEL_CRASH_ASSERT, G0 + 5, sizeof(text) - 1, 0x1111, 0x2222);
	KT_FAIL("crash returned");
}

KEEL_TEST("CRASH-002", crash_bare, "KEEL-CRASH-03 KEEL-CRASH-01 KEEL-CTX-06", "exit=125 destructive", KT_EARLY)
{
	kt_armed();
	HC(KEEL_CALL_CRASH, KEEL_CRASH_REASON_MAX, 0, 0, ~0ull, ~0ull); /* len 0: no message */
	KT_FAIL("crash returned");
}

KEEL_TEST("CRASH-003", crash_any_bytes, "KEEL-CRASH-03", "exit=125 destructive", 0)
{
	u8 *p = kt_ram(G0 + 1);

	for (int i = 0; i < KEEL_CRASH_MESSAGE_MAX; i++)
		p[i] = (u8)(i * 7);
	kt_armed();
	HC(KEEL_CALL_CRASH, KEEL_CRASH_PANIC, G0 + 1, KEEL_CRASH_MESSAGE_MAX);
	KT_FAIL("crash returned");
}

KEEL_TEST("CRASH-004", crash_bad, "KEEL-CRASH-02 KEEL-CALL-09 KEEL-TYPE-06", "neg", 0)
{
	u64 ram = kt_ram_size();

	NEG(HC(KEEL_CALL_CRASH, 256, G0, 4), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_CRASH, ~0ull, ram, 9999), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_CRASH, 0, G0, KEEL_CRASH_MESSAGE_MAX + 1), KEEL_E_RANGE, ARG(3));
	NEG(HC(KEEL_CALL_CRASH, 0, ram, ~0ull), KEEL_E_RANGE, ARG(3)); /* forms first */
	NEG(HC(KEEL_CALL_CRASH, 0, ram, 1), KEEL_E_FAULT, ARG(2));
	NEG(HC(KEEL_CALL_CRASH, 0, ram - 3, 4), KEEL_E_FAULT, ARG(2));
	NEG(HC(KEEL_CALL_CRASH, 0, -3ull, 8), KEEL_E_FAULT, ARG(2));
	OK(HC(KEEL_CALL_BASE_PING, 1));
}

static u32 dumps;

static void crash_in_dump(struct keel_frame *f)
{
	(void)f;
	dumps++;
	kt_armed();
	HC(KEEL_CALL_CRASH, KEEL_CRASH_PANIC, 0, 0);
	KT_FAIL("crash returned");
}

KEEL_TEST("CRASH-005", crash_in_handler, "KEEL-CRASH-04 KEEL-CTX-06", "exit=125 destructive", 0)
{
	kt_on[KEEL_CLASS_DUMP] = crash_in_dump;
	kt_set_entry(KEEL_CLASS_DUMP, 0);
	HC(KEEL_CALL_EVENT_DUMP, 0);
	KT_FAIL("the dump handler did not run");
}

/* STATS. */
#define S ((volatile struct keel_stats_entry *)(KT_LINEAR + G0))

static u32 index_of(u64 id)
{
	for (u32 i = 0; i < KEEL_CALL_COUNT; i++)
		if (kt_calls[i].id == id)
			return i;
	return ~0u;
}

static struct keel_stats_entry stat(u64 id)
{
	struct keel_stats_entry e;

	memset((void *)S, 0xee, 64);
	if (!OK_VALUE(HC(KEEL_CALL_STATS_READ, G0, 32, index_of(id)), 1))
		kt_finish();
	memcpy(&e, (const void *)S, sizeof(e));
	CHECK_EQ(e.id, id);
	CHECK_EQ(e.reserved, 0);
	CHECK_EQ(*(u8 *)kt_ram(G0 + 32), 0xee);
	return e;
}

KEEL_TEST("STATS-001", stats_table, "KEEL-STATS-01 KEEL-STATS-02 KEEL-STATS-06 KEEL-TYPE-03", "", 0)
{
	memset((void *)S, 0xee, 8192);
	OK_VALUE(HC(KEEL_CALL_STATS_READ, G0, 8192, 0), KEEL_CALL_COUNT);
	for (u32 i = 0; i < KEEL_CALL_COUNT; i++) {
		CHECK_EQ(S[i].id, kt_calls[i].id);
		CHECK_EQ(S[i].reserved, 0);
		CHECK(S[i].errors <= S[i].calls);
	}
	for (u32 i = 32 * KEEL_CALL_COUNT; i < 8192; i++)
		CHECK_EQ(*(u8 *)kt_ram(G0 + i), 0xee);
	/* From the middle, and in part. */
	memset((void *)S, 0xee, 8192);
	OK_VALUE(HC(KEEL_CALL_STATS_READ, G0, 3 * 32, 10), 3);
	CHECK_EQ(S[2].id, kt_calls[12].id);
	for (u32 i = 96; i < 256; i++)
		CHECK_EQ(*(u8 *)kt_ram(G0 + i), 0xee);
	OK_VALUE(HC(KEEL_CALL_STATS_READ, G0, 0, 0), 0);
	OK_VALUE(HC(KEEL_CALL_STATS_READ, G0, 8192, KEEL_CALL_COUNT - 1), 1);
	OK_VALUE(HC(KEEL_CALL_STATS_READ, G0, 8192, KEEL_CALL_COUNT), 0);
}

KEEL_TEST("STATS-002", stats_counts, "KEEL-STATS-03 KEEL-STATS-07", "", 0)
{
	struct keel_stats_entry a = stat(KEEL_CALL_BASE_PING), b;

	for (int i = 0; i < 10; i++)
		HC(KEEL_CALL_BASE_PING, i);
	for (int i = 0; i < 3; i++)
		HC(KEEL_CALL_BASE_PING, i, 1); /* INVAL */
	b = stat(KEEL_CALL_BASE_PING);
	CHECK_EQ(b.calls - a.calls, 13);
	CHECK_EQ(b.errors - a.errors, 3);
	/* Not implemented is counted, unknown is not. */
	a = stat(KEEL_CALL_USER_ENTER);
	HC(KEEL_CALL_USER_ENTER);
	b = stat(KEEL_CALL_USER_ENTER);
	CHECK_EQ(b.calls - a.calls, 1);
	CHECK_EQ(b.errors - a.errors, 1);
	u64 sum[2] = { 0, 0 };

	for (int k = 0; k < 2; k++) {
		OK(HC(KEEL_CALL_STATS_READ, G0, 8192, 0));
		for (u32 i = 0; i < KEEL_CALL_COUNT; i++)
			if (S[i].id != KEEL_CALL_STATS_READ)
				sum[k] += S[i].calls;
		if (!k)
			for (int i = 0; i < 5; i++)
				HC(0x01ffffff);
	}
	CHECK_EQ(sum[1] - sum[0], 0);
}

KEEL_TEST("STATS-003", stats_in_multicall, "KEEL-STATS-03 KEEL-STATS-04", "", 0)
{
	struct keel_multicall *e = kt_ram(G0 + 0x10000);
	struct keel_stats_entry a = stat(KEEL_CALL_BASE_NOP), m = stat(KEEL_CALL_MULTICALL), b;

	memset(e, 0, 10 * sizeof(*e));
	for (int i = 0; i < 10; i++)
		e[i].id = KEEL_CALL_BASE_NOP;
	e[9].arg[0] = 1;
	OK_VALUE(HC(KEEL_CALL_MULTICALL, G0 + 0x10000, 10, G0 + 0x20000, 0), 10);
	b = stat(KEEL_CALL_BASE_NOP);
	CHECK_EQ(b.calls - a.calls, 10);
	CHECK_EQ(b.errors - a.errors, 1);
	b = stat(KEEL_CALL_MULTICALL);
	CHECK_EQ(b.calls - m.calls, 1);
	CHECK_EQ(b.errors - m.errors, 0);
	CHECK_EQ(b.work - m.work, 10);
}

KEEL_TEST("STATS-004", stats_work, "KEEL-STATS-04", "", 0)
{
	struct keel_stats_entry a, b;
	u32 port = kt_alloc(0);
	struct keel_event_record *e = kt_ram(G0 + 0x10000);

	a = stat(KEEL_CALL_MMU_BATCH);
	OK(MAP(KT_VA, G0 + 0x100000, 20 * 4096, RW));
	OK(UNMAP(KT_VA, 10 * 4096));
	b = stat(KEEL_CALL_MMU_BATCH);
	CHECK_EQ(b.work - a.work, 30);
	CHECK_EQ(b.calls - a.calls, 2);

	a = stat(KEEL_CALL_EVENT_BATCH);
	for (int i = 0; i < 7; i++)
		e[i] = (struct keel_event_record){ KEEL_EVENT_OP_MASK, port };
	OK(HC(KEEL_CALL_EVENT_BATCH, G0 + 0x10000, 7, 0));
	b = stat(KEEL_CALL_EVENT_BATCH);
	CHECK_EQ(b.work - a.work, 7);

	a = stat(KEEL_CALL_CONSOLE_WRITE);
	HC(KEEL_CALL_CONSOLE_WRITE, 9, 0x3837363534333231, 0x0a); /* "12345678\n" */
	b = stat(KEEL_CALL_CONSOLE_WRITE);
	CHECK_EQ(b.work - a.work, 9);

	a = stat(KEEL_CALL_MEMORY_POPULATE);
	OK(HC(KEEL_CALL_MEMORY_POPULATE, G0 + 0x100000, 5 * 4096));
	b = stat(KEEL_CALL_MEMORY_POPULATE);
	CHECK_EQ(b.work - a.work, 5);

	a = stat(KEEL_CALL_MEMORY_RELEASE);
	OK(HC(KEEL_CALL_MEMORY_RELEASE, G0 + 0x100000, 6 * 4096));
	b = stat(KEEL_CALL_MEMORY_RELEASE);
	CHECK_EQ(b.work - a.work, 6);

	a = stat(KEEL_CALL_HARVEST_START);
	OK(HC(KEEL_CALL_HARVEST_START, 0, KT_LINEAR + G0 + 0x100000, 8 * 4096, KEEL_HARVEST_DIRTY));
	b = stat(KEEL_CALL_HARVEST_START);
	CHECK_EQ(b.work - a.work, 8);

	a = stat(KEEL_CALL_BASE_PING);
	HC(KEEL_CALL_BASE_PING, 77);
	b = stat(KEEL_CALL_BASE_PING);
	CHECK_EQ(b.work, 0);
	CHECK_EQ(b.calls - a.calls, 1);
}

KEEL_TEST("STATS-005", stats_forms, "KEEL-STATS-05 KEEL-STATS-02 KEEL-TYPE-06 KEEL-CALL-09", "neg", 0)
{
	u64 ram = kt_ram_size();

	for (u64 k = 1; k < 8; k++)
		NEG(HC(KEEL_CALL_STATS_READ, G0 + k, 4096, 0), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_STATS_READ, ram, 32, 0), KEEL_E_FAULT, ARG(1));
	NEG(HC(KEEL_CALL_STATS_READ, ram - 32, 64, 0), KEEL_E_FAULT, ARG(1));
	NEG(HC(KEEL_CALL_STATS_READ, -32ull, 64, 0), KEEL_E_FAULT, ARG(1));
	OK_VALUE(HC(KEEL_CALL_STATS_READ, ram - 32, 32, 0), 1);
	for (u64 k = 1; k < 32; k += 3)
		NEG(HC(KEEL_CALL_STATS_READ, G0, 64 + k, 0), KEEL_E_INVAL, ARG(2));
	NEG(HC(KEEL_CALL_STATS_READ, G0, ~0ull, 0), KEEL_E_INVAL, ARG(2));
	NEG(HC(KEEL_CALL_STATS_READ, G0, 32, KEEL_CALL_COUNT + 1), KEEL_E_RANGE, ARG(3));
	NEG(HC(KEEL_CALL_STATS_READ, G0, 32, ~0ull), KEEL_E_RANGE, ARG(3));
	NEG(HC(KEEL_CALL_STATS_READ, G0, 32, 0x100000000), KEEL_E_RANGE, ARG(3));
	NEG(HC(KEEL_CALL_STATS_READ, ram, ~31ull, 0xffffffff), KEEL_E_RANGE, ARG(3));		/* forms first */
	NEG(HC(KEEL_CALL_STATS_READ, ram - 32, 64, KEEL_CALL_COUNT - 1), KEEL_E_FAULT, ARG(1)); /* all of len */
}
