// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* MULTI: several calls through the gate at once. */
#include "kt.h"

#define MAX 4096
static struct keel_multicall *const e = (struct keel_multicall *)(KT_LINEAR + KT_SCRATCH_GPA + 0x100000);
static struct keel_multicall_result *const r = (struct keel_multicall_result *)(KT_LINEAR + KT_SCRATCH_GPA + 0x200000);
#define E_GPA (KT_SCRATCH_GPA + 0x100000)
#define R_GPA (KT_SCRATCH_GPA + 0x200000)

static void fill(u32 n)
{
	memset(e, 0, n * sizeof(*e));
	for (u32 i = 0; i < n; i++) {
		e[i].id = KEEL_CALL_BASE_PING;
		e[i].arg[0] = i * 3;
		e[i].cookie = 0xc0ffee00 + i;
	}
	memset(r, 0x5a, (n + 4) * sizeof(*r));
}

static void check_untouched(u32 from, u32 to)
{
	const u8 *p = (const u8 *)(r + from);

	for (size_t i = 0; i < (to - from) * sizeof(*r); i++)
		if (p[i] != 0x5a) {
			KT_FAIL("result byte %lu beyond what was done is written", i);
			return;
		}
}

KEEL_TEST("MULTI-001", multi_each_result, "KEEL-MULTI-01 KEEL-MULTI-02 KEEL-TYPE-03", "", 0)
{
	fill(20);
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, 20, R_GPA, 0), 20);
	for (u32 i = 0; i < 20; i++) {
		CHECK_EQ(r[i].status, 0);
		CHECK_EQ(r[i].value, i * 3);
		CHECK_EQ(r[i].cookie, 0xc0ffee00 + i);
		CHECK_EQ(r[i].id, KEEL_CALL_BASE_PING);
		CHECK_EQ(r[i].reserved, 0);
	}
	check_untouched(20, 24);
}

KEEL_TEST("MULTI-002", multi_order, "KEEL-MULTI-01", "", 0)
{
	u32 port = kt_alloc(1);

	fill(5);
	e[0] = (struct keel_multicall){ .id = KEEL_CALL_EVENT_SEND, .arg = { port } };
	e[1] = (struct keel_multicall){ .id = KEEL_CALL_EVENT_CLOSE, .arg = { port } };
	e[2] = (struct keel_multicall){ .id = KEEL_CALL_EVENT_SEND, .arg = { port } };
	e[3] = (struct keel_multicall){ .id = KEEL_CALL_EVENT_ALLOC, .arg = { 1 } };
	e[4] = (struct keel_multicall){ .id = KEEL_CALL_MMU_QUERY, .arg = { 0, 0x400000 } };
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, 5, R_GPA, 0), 5);
	CHECK_EQ(r[0].status, 0);
	CHECK_EQ(r[1].status, 0);
	CHECK_EQ(r[2].status, KEEL_STATUS(KEEL_E_NOENT, 1));
	CHECK_EQ(r[3].status, 0);
	CHECK(r[3].value != port);
	CHECK_EQ(r[4].value, kt_query(0x400000));
}

KEEL_TEST("MULTI-003", multi_equals_single, "KEEL-MULTI-01 KEEL-MULTI-11", "", 0)
{
	u32 n = 0;

	/* Every call with arguments that change nothing: the same answer both ways. */
	for (u32 i = 0; i < KEEL_CALL_COUNT; i++) {
		if (kt_calls[i].flags & KEEL_CF_NOBATCH || kt_calls[i].id == KEEL_CALL_TIME_READ ||
		    kt_calls[i].id == KEEL_CALL_CONSOLE_WRITE)
			continue;
		e[n++] = (struct keel_multicall){ .id = kt_calls[i].id,
						  .arg = { 0x9999999, 0x9999999, 0x9999999, 0x9999999, 0x9999999 } };
	}
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, n, R_GPA, 0), n);
	for (u32 i = 0; i < n; i++) {
		struct kt_ret s = kt_call(e[i].id, e[i].arg[0], e[i].arg[1], e[i].arg[2], e[i].arg[3], e[i].arg[4]);

		CHECK_EQ(r[i].status, s.status);
		CHECK_EQ(r[i].value, s.value);
	}
}

KEEL_TEST("MULTI-004", multi_maximum, "KEEL-MULTI-03 KEEL-CALL-17", "", 0)
{
	u64 done = 0, calls = 0;

	fill(MAX);
	while (done < MAX) {
		struct kt_ret s =
			HC(KEEL_CALL_MULTICALL, E_GPA + done * sizeof(*e), MAX - done, R_GPA + done * sizeof(*r), 0);

		if (!OK(s) || !s.value)
			break;
		CHECK(s.value <= KEEL_MULTICALL_MAX);
		done += s.value;
		calls++;
		if (r[done].cookie != 0x5a5a5a5a5a5a5a5a)
			KT_FAIL("a result beyond the ones done is written");
	}
	CHECK_EQ(done, MAX);
	CHECK(calls >= MAX / KEEL_MULTICALL_MAX);
	for (u32 i = 0; i < MAX; i++)
		if (r[i].value != i * 3 || r[i].cookie != 0xc0ffee00 + i)
			KT_FAIL("result %u is wrong", i);
}

KEEL_TEST("MULTI-005", multi_stop_on_error, "KEEL-MULTI-04", "neg", 0)
{
	u32 port = kt_alloc(0);

	fill(6);
	e[2].id = 0x01ffffff;
	e[3] = (struct keel_multicall){ .id = KEEL_CALL_EVENT_SEND, .arg = { port } };
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, 6, R_GPA, KEEL_MULTICALL_STOP_ON_ERROR), 3);
	CHECK_EQ(r[1].status, 0);
	CHECK_EQ(r[2].status, KEEL_STATUS(KEEL_E_NOSYS, 0));
	CHECK_EQ(r[2].cookie, 0xc0ffee02);
	check_untouched(3, 6);
	CHECK(!kt_port_pending(port)); /* not executed */
	fill(6);
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, 6, R_GPA, KEEL_MULTICALL_STOP_ON_ERROR), 6);
}

KEEL_TEST("MULTI-006", multi_goes_on, "KEEL-MULTI-02", "", 0)
{
	fill(6);
	e[0].id = 0x01ffffff;
	e[5].id = 0x01ffffff;
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, 6, R_GPA, 0), 6);
	CHECK_EQ(r[0].status, KEEL_STATUS(KEEL_E_NOSYS, 0));
	CHECK_EQ(r[3].value, 9);
	CHECK_EQ(r[5].status, KEEL_STATUS(KEEL_E_NOSYS, 0));
}

KEEL_TEST("MULTI-007", multi_count, "KEEL-MULTI-05", "neg", 0)
{
	u64 max = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_BATCH_COUNT).value;

	fill(1);
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, 0, R_GPA, 0), 0);
	NEG(HC(KEEL_CALL_MULTICALL, E_GPA, max + 1, R_GPA, 0), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_MULTICALL, E_GPA, ~0ull, R_GPA, 0), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_MULTICALL, E_GPA, 1ull << 58, R_GPA, 0), KEEL_E_RANGE, ARG(2)); /* count * 64 wraps */
	check_untouched(0, 4);
	/* The largest count is taken: 4 MiB of entries lie in RAM, and the first 64 are done. */
	memset(kt_ram(KT_SCRATCH_GPA), 0, max * sizeof(*e));
	for (u32 i = 0; i < KEEL_MULTICALL_MAX; i++)
		((struct keel_multicall *)kt_ram(KT_SCRATCH_GPA))[i].id = KEEL_CALL_BASE_NOP;
	OK(HC(KEEL_CALL_MULTICALL, KT_SCRATCH_GPA, max, KT_SCRATCH_GPA + max * sizeof(*e), 0));
}

KEEL_TEST("MULTI-008", multi_entries_gpa, "KEEL-MULTI-06 KEEL-TYPE-06", "neg", 0)
{
	u64 ram = kt_ram_size();

	fill(2);
	for (u64 k = 1; k < 8; k++)
		NEG(HC(KEEL_CALL_MULTICALL, E_GPA + k, 1, R_GPA, 0), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_MULTICALL, ram, 1, R_GPA, 0), KEEL_E_FAULT, ARG(1));
	NEG(HC(KEEL_CALL_MULTICALL, ram - 64, 2, R_GPA, 0), KEEL_E_FAULT, ARG(1));
	NEG(HC(KEEL_CALL_MULTICALL, -64ull, 2, R_GPA, 0), KEEL_E_FAULT, ARG(1));
	/* All of count, though only 64 would be done. */
	NEG(HC(KEEL_CALL_MULTICALL, ram - 64 * 64, 65, R_GPA, 0), KEEL_E_FAULT, ARG(1));
	check_untouched(0, 4);
}

KEEL_TEST("MULTI-009", multi_results_gpa, "KEEL-MULTI-07 KEEL-TYPE-06", "neg", 0)
{
	u64 ram = kt_ram_size();
	u32 port = kt_alloc(0);

	fill(66);
	for (u32 i = 0; i < 66; i++)
		e[i] = (struct keel_multicall){ .id = KEEL_CALL_EVENT_SEND, .arg = { port } };
	for (u64 k = 1; k < 8; k++)
		NEG(HC(KEEL_CALL_MULTICALL, E_GPA, 1, R_GPA + k, 0), KEEL_E_INVAL, ARG(3));
	NEG(HC(KEEL_CALL_MULTICALL, E_GPA, 1, ram, 0), KEEL_E_FAULT, ARG(3));
	NEG(HC(KEEL_CALL_MULTICALL, E_GPA, 2, ram - 32, 0), KEEL_E_FAULT, ARG(3));
	NEG(HC(KEEL_CALL_MULTICALL, E_GPA, 65, ram - 64 * 32, 0), KEEL_E_FAULT, ARG(3));
	NEG(HC(KEEL_CALL_MULTICALL, E_GPA, 2, -32ull, 0), KEEL_E_FAULT, ARG(3));
	CHECK(!kt_port_pending(port));				     /* nothing executed */
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, 2, ram - 64, 0), 2); /* the very end of RAM */
}

KEEL_TEST("MULTI-010", multi_flags, "KEEL-MULTI-08 KEEL-CALL-07", "neg", 0)
{
	fill(2);
	for (int b = 1; b < 64; b++)
		NEG_BIT(HC(KEEL_CALL_MULTICALL, E_GPA, 2, R_GPA, 1ull << b), KEEL_E_INVAL, ARG(4), b);
	NEG_BIT(HC(KEEL_CALL_MULTICALL, E_GPA, 2, R_GPA, ~0ull), KEEL_E_INVAL, ARG(4), 1);
	check_untouched(0, 4);
}

KEEL_TEST("MULTI-011", multi_entry_reserved, "KEEL-MULTI-09 KEEL-TYPE-04", "neg", 0)
{
	u32 port = kt_alloc(0);

	fill(4);
	for (u32 i = 0; i < 4; i++)
		e[i] = (struct keel_multicall){ .id = KEEL_CALL_EVENT_SEND, .arg = { port }, .cookie = i };
	e[0].flags = 1;
	e[1].reserved = 1;
	e[2].flags = 0x80000000;
	e[2].reserved = 5;
	e[3].id = 0x01ffffff;
	e[3].reserved = 1ull << 63;
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, 4, R_GPA, 0), 4);
	CHECK_EQ(r[0].status, KEEL_STATUS(KEEL_E_INVAL, FIELD(2)));
	CHECK_EQ(r[1].status, KEEL_STATUS(KEEL_E_INVAL, FIELD(5)));
	CHECK_EQ(r[2].status, KEEL_STATUS(KEEL_E_INVAL, FIELD(2)));
	CHECK_EQ(r[3].status, KEEL_STATUS(KEEL_E_INVAL, FIELD(5)));
	CHECK_EQ(r[2].cookie, 2);
	CHECK(!kt_port_pending(port));
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, 4, R_GPA, KEEL_MULTICALL_STOP_ON_ERROR), 1);
}

KEEL_TEST("MULTI-012", multi_not_nested, "KEEL-MULTI-11 KEEL-CTX-02", "neg", 0)
{
	u32 port = kt_alloc(0);

	fill(2);
	e[0] = (struct keel_multicall){ .id = KEEL_CALL_MULTICALL, .arg = { E_GPA + 64, 1, R_GPA + 32, 0 } };
	e[1] = (struct keel_multicall){ .id = KEEL_CALL_EVENT_SEND, .arg = { port } };
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, 1, R_GPA, 0), 1);
	CHECK_EQ(r[0].status, KEEL_STATUS(KEEL_E_CONTEXT, 0));
	CHECK(!kt_port_pending(port));
	check_untouched(1, 4);
	/* After a batch that was refused one, calls are outside a batch again. */
	OK(HC(KEEL_CALL_TRAP_DELIVER));
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA + 64, 1, R_GPA, 0), 1);
}

KEEL_TEST("MULTI-013", multi_entries_unchanged, "KEEL-MULTI-10", "", 0)
{
	u64 h;

	fill(64);
	e[3].id = 0x01ffffff;
	h = kt_hash(1, e, 64 * sizeof(*e));
	OK(HC(KEEL_CALL_MULTICALL, E_GPA, 64, R_GPA, 0));
	CHECK_EQ(kt_hash(1, e, 64 * sizeof(*e)), h);
	OK(HC(KEEL_CALL_MULTICALL, E_GPA, 64, R_GPA, KEEL_MULTICALL_STOP_ON_ERROR));
	CHECK_EQ(kt_hash(1, e, 64 * sizeof(*e)), h);
}

KEEL_TEST("MULTI-014", multi_overlap, "KEEL-MULTI-10 KEEL-TYPE-05", "neg", 0)
{
	/* Results written over entries not yet executed: any outcome, but the guest goes on. */
	for (u64 shift = 0; shift < 512; shift += 8) {
		struct kt_ret s;

		fill(16);
		s = HC(KEEL_CALL_MULTICALL, E_GPA, 16, E_GPA + shift, 0);
		OK(s);
		CHECK(s.value <= 16);
	}
	/* Exactly over: each entry is copied before its result lies on it or the one after it. */
	OK(HC(KEEL_CALL_BASE_NOP));
	fill(1);
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, 1, E_GPA, 0), 1);
	CHECK_EQ(((struct keel_multicall_result *)e)->cookie, 0xc0ffee00);
	CHECK_EQ(((struct keel_multicall_result *)e)->id, KEEL_CALL_BASE_PING);
}

KEEL_TEST("MULTI-015", multi_partial_entry, "KEEL-MULTI-12 KEEL-MMU-05", "", 0)
{
	struct keel_mmu_record *rec = kt_ram(KT_SCRATCH_GPA + 0x300000);
	u64 pages = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_MMU_PAGES).value;

	/* UNMAP of pages that are not mapped: as many as one likes, whatever RAM there is. */
	*rec = (struct keel_mmu_record){ .op = KEEL_MMU_UNMAP, .va = KT_VA, .len = (pages + 100) * 4096 };
	fill(2);
	e[0] = (struct keel_multicall){ .id = KEEL_CALL_MMU_BATCH, .arg = { 0, KT_SCRATCH_GPA + 0x300000, 1, 0 } };
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, 2, R_GPA, 0), 2);
	CHECK_EQ(r[0].status, 0);
	CHECK_EQ(KEEL_MMU_DONE_RECORDS(r[0].value), 0);
	CHECK(KEEL_MMU_DONE_PAGES(r[0].value) >= 1 && KEEL_MMU_DONE_PAGES(r[0].value) <= pages);
	CHECK_EQ(r[1].value, 3);
}

KEEL_TEST("MULTI-016", multi_events, "KEEL-MULTI-13 KEEL-CALL-15", "", 0)
{
	u32 port = kt_alloc(0);

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_sti();
	for (u32 round = 1; round <= 50; round++) {
		fill(8);
		e[3] = (struct keel_multicall){ .id = KEEL_CALL_EVENT_SEND, .arg = { port } };
		OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, 8, R_GPA, 0), 8);
		CHECK_EQ(kt_seen[KEEL_PORT_BIT(port)], round);
	}
}

KEEL_TEST("MULTI-017", multi_interrupted, "KEEL-MULTI-13 KEEL-MULTI-01 KEEL-CALL-14", "timeout=30", 0)
{
	u32 timer = kt_bind(KEEL_SOURCE_TIMER, 0), before;

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, timer));
	kt_sti();
	/* An interrupt at every point of a batch: the timer sweeps over it, and the results are always whole. */
	for (u64 i = 0; i < 1500 / kt_scale + 100; i++) {
		struct kt_ret s;

		fill(16);
		for (u32 k = 0; k < 16; k++)
			if (k % 4)
				e[k] = (struct keel_multicall){ .id = KEEL_CALL_MMU_QUERY, .arg = { 0, 0x400000 } };
		before = kt_seen[KEEL_PORT_BIT(timer)];
		OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + (i % 300) * 100 * kt_slow()));
		s = HC(KEEL_CALL_MULTICALL, E_GPA, 16, R_GPA, 0);
		OK_VALUE(s, 16);
		for (u32 k = 0; k < 16; k++)
			CHECK_EQ(r[k].value, k % 4 ? kt_query(0x400000) : k * 3);
		WAIT_UNTIL(kt_seen[KEEL_PORT_BIT(timer)] != before);
		CHECK_EQ(kt_seen[KEEL_PORT_BIT(timer)], before + 1);
	}
}

KEEL_TEST("MULTI-018", multi_argument_order, "KEEL-CALL-09 KEEL-MULTI-06 KEEL-MULTI-07 KEEL-MULTI-08", "neg", 0)
{
	u64 ram = kt_ram_size();

	fill(1);
	NEG(HC(KEEL_CALL_MULTICALL, E_GPA + 1, ~0ull, R_GPA + 1, 2), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_MULTICALL, ram, ~0ull, R_GPA + 1, 2), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_MULTICALL, ram, 1, R_GPA + 1, 2), KEEL_E_INVAL, ARG(3));
	NEG_BIT(HC(KEEL_CALL_MULTICALL, ram, 1, ram, 2), KEEL_E_INVAL, ARG(4), 1);
	NEG(HC(KEEL_CALL_MULTICALL, ram, 1, ram, 0), KEEL_E_FAULT, ARG(1));
	NEG(HC(KEEL_CALL_MULTICALL, E_GPA, 1, ram, 0), KEEL_E_FAULT, ARG(3));
	/* With nothing to do the arguments must be valid all the same. */
	NEG(HC(KEEL_CALL_MULTICALL, E_GPA + 1, 0, R_GPA, 0), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_MULTICALL, E_GPA, 0, R_GPA + 4, 0), KEEL_E_INVAL, ARG(3));
	NEG_BIT(HC(KEEL_CALL_MULTICALL, E_GPA, 0, R_GPA, 4), KEEL_E_INVAL, ARG(4), 2);
	NEG(HC(KEEL_CALL_MULTICALL, ram + 8, 0, R_GPA, 0), KEEL_E_FAULT, ARG(1));
	check_untouched(0, 4);
}

KEEL_TEST("MULTI-019", multi_refused_crash, "KEEL-CTX-02 KEEL-CRASH-04 KEEL-MULTI-11", "neg", 0)
{
	u64 before = kt_digest();

	/* Nothing that ends or resumes anything works from within a batch. */
	fill(4);
	e[0] = (struct keel_multicall){ .id = KEEL_CALL_CRASH };
	e[1] = (struct keel_multicall){ .id = KEEL_CALL_BASE_SHUTDOWN };
	e[2] = (struct keel_multicall){ .id = KEEL_CALL_TRAP_RETURN };
	e[3] = (struct keel_multicall){ .id = KEEL_CALL_VCPU_WAIT, .arg = { KEEL_TIME_NEVER } };
	kt_vcpu->slot[0].frame = (struct keel_frame){ .state = KEEL_SLOT_RETURN, .rip = 0x400000 };
	OK_VALUE(HC(KEEL_CALL_MULTICALL, E_GPA, 4, R_GPA, 0), 4);
	for (u32 i = 0; i < 4; i++)
		CHECK_EQ(r[i].status, KEEL_STATUS(KEEL_E_CONTEXT, 0));
	CHECK_EQ(kt_vcpu->slot[0].frame.state, KEEL_SLOT_RETURN);
	kt_vcpu->slot[0].frame.state = KEEL_SLOT_FREE;
	CHECK_EQ(kt_digest(), before);
}

KEEL_TEST("MULTI-020", multi_fetched_once, "KEEL-MULTI-10 KEEL-TYPE-05", "neg", 0)
{
	/* An entry whose call writes over the entry itself: what was fetched before counts to the end. */
	for (u64 back = 0; back <= 32; back += 32) {
		fill(3);
		e[1] = (struct keel_multicall){ .id = KEEL_CALL_STATS_READ,
						.arg = { E_GPA + 64 + back, 64 - back, 20 },
						.cookie = 0x1234567 };
		OK(HC(KEEL_CALL_MULTICALL, E_GPA, 2, R_GPA, 0));
		CHECK_EQ(r[1].status, 0);
		CHECK_EQ(r[1].id, KEEL_CALL_STATS_READ);
		CHECK_EQ(r[1].cookie, 0x1234567);
		CHECK_EQ(*(u32 *)((u8 *)&e[1] + back), kt_calls[20].id);
	}
}
