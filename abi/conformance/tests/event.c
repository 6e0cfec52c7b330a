// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* EVENT: ports. */
#include "kt.h"

#define G0 KT_SCRATCH_GPA

static struct keel_event_record rec[2048] __attribute__((aligned(8)));

static struct kt_ret batch(u64 n)
{
	return HC(KEEL_CALL_EVENT_BATCH, kt_gpa(rec), n, 0);
}

KEEL_TEST("EVENT-001", event_alloc, "KEEL-EVENT-01 KEEL-EVENT-03", "", 0)
{
	for (u32 p = 0; p < 4; p++) {
		for (int i = 0; i < 3; i++) {
			u32 port = kt_alloc(p);

			CHECK_EQ(KEEL_PORT_BIT(port) / KEEL_EVENT_BITS_PER_PRIORITY, p);
			CHECK_EQ(KEEL_PORT_VCPU(port), 0);
			CHECK(kt_port_masked(port));
			CHECK(!kt_port_pending(port));
		}
	}
	CHECK_EQ(kt_pending(), 0);
}

KEEL_TEST("EVENT-002", event_alloc_bad, "KEEL-EVENT-01 KEEL-EVENT-02 KEEL-CALL-21", "neg", 0)
{
	NEG(HC(KEEL_CALL_EVENT_ALLOC, 4), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_ALLOC, ~0ull), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_BIND, KEEL_SOURCE_COUNT, 0), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_BIND, ~0ull, 0), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_BIND, ~0ull, 9), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_BIND, 0, 4), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_EVENT_BIND, 0, ~0ull), KEEL_E_RANGE, ARG(2));
}

KEEL_TEST("EVENT-003", event_bind_once, "KEEL-EVENT-02 KEEL-EVENT-05", "neg", 0)
{
	for (u32 s = 0; s < KEEL_SOURCE_COUNT; s++) {
		u32 port = kt_bind(s, s + 1);

		CHECK_EQ(KEEL_PORT_BIT(port) / KEEL_EVENT_BITS_PER_PRIORITY, s + 1);
		CHECK(kt_port_masked(port));
		NEG(HC(KEEL_CALL_EVENT_BIND, s, 0), KEEL_E_EXIST, ARG(1));
		OK(HC(KEEL_CALL_EVENT_CLOSE, port));
		port = kt_bind(s, 0); /* closing unbinds */
		NEG(HC(KEEL_CALL_EVENT_BIND, s, 0), KEEL_E_EXIST, ARG(1));
	}
}

KEEL_TEST("EVENT-004", event_exhaust, "KEEL-EVENT-18 KEEL-EVENT-01 KEEL-EVENT-02 KEEL-CALL-20", "neg", 0)
{
	u64 least = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_EVENT_PORTS).value / 4;
	static u32 port[KEEL_EVENT_BITS_PER_PRIORITY];

	for (u32 p = 0; p < 4; p++) {
		struct kt_ret r;
		u64 n = 0;

		while (!(r = HC(KEEL_CALL_EVENT_ALLOC, p)).status && n < KEEL_EVENT_BITS_PER_PRIORITY)
			port[n++] = (u32)r.value;
		CHECK_EQ(r.status, KEEL_STATUS(KEEL_E_NOMEM, 0));
		CHECK(n >= least);
		for (u64 i = 0; i < n; i += 37)
			for (u64 k = i + 1; k < n; k += 41)
				CHECK(KEEL_PORT_BIT(port[i]) != KEEL_PORT_BIT(port[k]));
		NEG(HC(KEEL_CALL_EVENT_ALLOC, p), KEEL_E_NOMEM, 0);
		NEG(HC(KEEL_CALL_EVENT_BIND, 0, p), KEEL_E_NOMEM, 0);
		OK(HC(KEEL_CALL_EVENT_CLOSE, port[n / 2])); /* makes room for one */
		kt_alloc(p);
		NEG(HC(KEEL_CALL_EVENT_ALLOC, p), KEEL_E_NOMEM, 0);
		for (u64 i = 0; i < n; i++)
			if (i != n / 2)
				OK(HC(KEEL_CALL_EVENT_CLOSE, port[i]));
	}
}

static void all_stale(u64 port)
{
	int code = port >> 32 ? KEEL_E_INVAL : KEEL_E_NOENT;

	NEG(HC(KEEL_CALL_EVENT_SEND, port), code, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_MASK, port), code, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_UNMASK, port), code, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_CLOSE, port), code, ARG(1));
	for (u32 op = 1; op <= 3; op++) {
		if (port >> 32)
			break;
		rec[0] = (struct keel_event_record){ .op = op, .port = (u32)port };
		NEG(batch(1), KEEL_E_NOENT, FIELD(2));
	}
}

KEEL_TEST("EVENT-005", event_bad_handles, "KEEL-EVENT-04 KEEL-CALL-06", "neg", 0)
{
	u32 port = kt_alloc(1);

	all_stale(port ^ 1 << 24);
	all_stale(port ^ 0x80 << 24);
	all_stale(port | 1 << 12); /* a vCPU that does not exist: this partition has one */
	all_stale(port | 0xfff << 12);
	all_stale(port + 1); /* not allocated */
	all_stale((u64)port | 1ull << 32);
	all_stale((u64)port | 1ull << 63);
	all_stale(0xffffffff);
	all_stale(~0ull);
	OK(HC(KEEL_CALL_EVENT_SEND, port));
}

KEEL_TEST("EVENT-006", event_stale_after_close, "KEEL-EVENT-05 KEEL-EVENT-04", "neg", 0)
{
	u32 port = kt_alloc(0), bit = KEEL_PORT_BIT(port);

	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_cli();
	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_SEND, port));
	CHECK(kt_port_pending(port));
	OK_VALUE(HC(KEEL_CALL_EVENT_CLOSE, port), 0);
	CHECK(!kt_port_pending(port));
	kt_sti();
	CHECK_EQ(kt_seen[bit], 0); /* silent after close */
	all_stale(port);
	/* Ports come and go at the same bit: never the same handle right after. */
	for (int i = 0; i < 300; i++) {
		u32 again = kt_alloc(0);

		CHECK(again != port);
		if (KEEL_PORT_BIT(again) == bit)
			CHECK(KEEL_PORT_GEN(again) != KEEL_PORT_GEN(port));
		CHECK(kt_port_masked(again));
		NEG(HC(KEEL_CALL_EVENT_SEND, port), KEEL_E_NOENT, ARG(1)); /* the old one, at the same bit */
		OK(HC(KEEL_CALL_EVENT_CLOSE, again));
		NEG(HC(KEEL_CALL_EVENT_SEND, again), KEEL_E_NOENT, ARG(1));
		port = again;
		bit = KEEL_PORT_BIT(again);
	}
}

KEEL_TEST("EVENT-007", event_send_states, "KEEL-EVENT-06 KEEL-EVENT-07 KEEL-EVENT-08 KEEL-EVENT-17", "", 0)
{
	u32 port = kt_alloc(2), word = KEEL_PORT_BIT(port) / 64;

	/* Masked: pending stays as it is. */
	OK_VALUE(HC(KEEL_CALL_EVENT_SEND, port), 0);
	CHECK(kt_port_pending(port));
	CHECK_EQ(kt_pending(), 0);
	OK_VALUE(HC(KEEL_CALL_EVENT_UNMASK, port), 0);
	CHECK(!kt_port_masked(port));
	CHECK_EQ(kt_pending(), 1ull << word);
	kt_scan();
	CHECK_EQ(kt_seen[KEEL_PORT_BIT(port)], 1);
	CHECK_EQ(kt_pending(), 0);
	/* Unmasked: at once. */
	OK(HC(KEEL_CALL_EVENT_SEND, port));
	CHECK_EQ(kt_pending(), 1ull << word);
	kt_scan();
	/* Masked again. */
	OK_VALUE(HC(KEEL_CALL_EVENT_MASK, port), 0);
	CHECK(kt_port_masked(port));
	OK(HC(KEEL_CALL_EVENT_SEND, port));
	CHECK_EQ(kt_pending(), 0);
	CHECK(kt_port_pending(port));
	/* Unmasking a port with nothing held leaves pending alone. */
	kt_scan();
	__atomic_fetch_and(&kt_vcpu->event_pending[word], ~(1ull << (KEEL_PORT_BIT(port) % 64)), __ATOMIC_SEQ_CST);
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	CHECK_EQ(kt_pending(), 0);
}

KEEL_TEST("EVENT-008", event_only_own_bits, "KEEL-EVENT-06 KEEL-EVENT-11", "", 0)
{
	u32 a = kt_alloc(0), b = kt_alloc(0), c = kt_alloc(3);

	OK(HC(KEEL_CALL_EVENT_UNMASK, a));
	OK(HC(KEEL_CALL_EVENT_UNMASK, c));
	OK(HC(KEEL_CALL_EVENT_SEND, a));
	OK(HC(KEEL_CALL_EVENT_SEND, c));
	CHECK(kt_port_pending(a) && !kt_port_pending(b) && kt_port_pending(c));
	CHECK_EQ(kt_pending(), 1ull << (KEEL_PORT_BIT(a) / 64) | 1ull << (KEEL_PORT_BIT(c) / 64));
	/* The host clears neither word nor bit, whatever calls are made. */
	for (int i = 0; i < 50; i++) {
		HC(KEEL_CALL_BASE_PING, i);
		HC(KEEL_CALL_VCPU_WAIT, 0);
		HC(KEEL_CALL_TRAP_DELIVER);
	}
	OK(HC(KEEL_CALL_EVENT_CLOSE, b));
	CHECK(kt_port_pending(a) && kt_port_pending(c));
	CHECK_EQ(kt_pending(), 1ull << (KEEL_PORT_BIT(a) / 64) | 1ull << (KEEL_PORT_BIT(c) / 64));
}

KEEL_TEST("EVENT-009", event_priorities, "KEEL-EVENT-03 KEEL-EVENT-11", "", 0)
{
	static u32 order[8];
	static u32 n;
	u32 port[4];

	/* All four pending before any is handled: the scan meets them by urgency. */
	for (u32 p = 0; p < 4; p++) {
		port[p] = kt_alloc(3 - p);
		OK(HC(KEEL_CALL_EVENT_UNMASK, port[p]));
	}
	for (u32 p = 0; p < 4; p++)
		OK(HC(KEEL_CALL_EVENT_SEND, port[p]));
	for (u64 w = kt_pending(); w; w &= w - 1)
		order[n++] = (u32)__builtin_ctzll(w);
	CHECK_EQ(n, 4);
	for (u32 i = 0; i < 4; i++)
		CHECK_EQ(order[i] / 16, i);
}

KEEL_TEST("EVENT-010", event_direct_mask, "KEEL-EVENT-09 KEEL-TRAP-10", "", 0)
{
	u32 port = kt_alloc(1), bit = KEEL_PORT_BIT(port), w = bit / 64;
	u64 b = 1ull << (bit % 64);

	kt_events_on();
	kt_sti();
	for (u32 i = 1; i <= 200; i++) {
		/* Unmask in the page. */
		__atomic_fetch_and(&kt_vcpu->event_mask[w], ~b, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&kt_vcpu->event_pending[w], __ATOMIC_SEQ_CST) & b) {
			__atomic_fetch_or(&kt_vcpu->pending, 1ull << w, __ATOMIC_SEQ_CST);
			OK(HC(KEEL_CALL_TRAP_DELIVER));
		}
		CHECK_EQ(kt_seen[bit], 2 * i - 2);
		OK(HC(KEEL_CALL_EVENT_SEND, port)); /* delivered: the host sees the direct unmask */
		CHECK_EQ(kt_seen[bit], 2 * i - 1);
		__atomic_fetch_or(&kt_vcpu->event_mask[w], b, __ATOMIC_SEQ_CST);
		OK(HC(KEEL_CALL_EVENT_SEND, port)); /* held: it sees the direct mask */
		CHECK_EQ(kt_seen[bit], 2 * i - 1);
		CHECK(kt_port_pending(port));
		__atomic_fetch_and(&kt_vcpu->event_mask[w], ~b, __ATOMIC_SEQ_CST);
		__atomic_fetch_or(&kt_vcpu->pending, 1ull << w, __ATOMIC_SEQ_CST);
		OK(HC(KEEL_CALL_TRAP_DELIVER));
		CHECK_EQ(kt_seen[bit], 2 * i);
		__atomic_fetch_or(&kt_vcpu->event_mask[w], b, __ATOMIC_SEQ_CST);
	}
}

KEEL_TEST("EVENT-011", event_coalesce, "KEEL-EVENT-10", "", 0)
{
	u32 port = kt_alloc(0), bit = KEEL_PORT_BIT(port);

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	for (u32 i = 1; i <= 100; i++) {
		for (u32 k = 0; k < i; k++)
			OK(HC(KEEL_CALL_EVENT_SEND, port));
		kt_sti();
		CHECK_EQ(kt_seen[bit], i);
		CHECK_EQ(kt_upcalls, i);
		kt_cli();
	}
}

static u32 again_port, again_left;

static void send_again(u32 bit)
{
	(void)bit;
	if (again_left) { /* the pending bit was cleared before: this leads to another delivery */
		again_left--;
		OK(HC(KEEL_CALL_EVENT_SEND, again_port));
	}
}

KEEL_TEST("EVENT-012", event_send_in_handler, "KEEL-EVENT-10 KEEL-EVENT-06", "", 0)
{
	again_port = kt_alloc(0);
	again_left = 50;
	kt_events_on();
	kt_event_hook = send_again;
	OK(HC(KEEL_CALL_EVENT_UNMASK, again_port));
	kt_sti();
	OK(HC(KEEL_CALL_EVENT_SEND, again_port));
	CHECK_EQ(again_left, 0);
	CHECK_EQ(kt_seen[KEEL_PORT_BIT(again_port)], 51);
}

KEEL_TEST("EVENT-013", event_batch, "KEEL-EVENT-13 KEEL-CALL-17", "", 0)
{
	u32 port[8];
	u64 n = 0;

	for (u32 i = 0; i < 8; i++)
		port[i] = kt_alloc(i / 2);
	for (u32 i = 0; i < 8; i++)
		rec[n++] = (struct keel_event_record){ KEEL_EVENT_OP_SEND, port[i] };
	for (u32 i = 0; i < 8; i += 2)
		rec[n++] = (struct keel_event_record){ KEEL_EVENT_OP_UNMASK, port[i] };
	rec[n++] = (struct keel_event_record){ KEEL_EVENT_OP_MASK, port[0] };
	OK_VALUE(batch(n), n);
	for (u32 i = 0; i < 8; i++) {
		CHECK(kt_port_pending(port[i]));
		CHECK_EQ(kt_port_masked(port[i]), i == 0 || i & 1);
	}
	CHECK(kt_pending() & 1ull << (KEEL_PORT_BIT(port[2]) / 64));
	/* More than one call does. */
	for (u32 i = 0; i < 2000; i++)
		rec[i] = (struct keel_event_record){ KEEL_EVENT_OP_MASK, port[i % 8] };
	u64 done = 0, calls = 0;

	while (done < 2000) {
		struct kt_ret r = HC(KEEL_CALL_EVENT_BATCH, kt_gpa(rec) + done * 8, 2000 - done, 0);

		if (!OK(r) || !r.value)
			break;
		CHECK(r.value <= KEEL_EVENT_BATCH_MAX);
		done += r.value;
		calls++;
	}
	CHECK_EQ(done, 2000);
	CHECK(calls >= 2000 / KEEL_EVENT_BATCH_MAX);
}

KEEL_TEST("EVENT-014", event_batch_forms, "KEEL-EVENT-14 KEEL-TYPE-06 KEEL-CALL-09", "neg", 0)
{
	u64 max = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_BATCH_COUNT).value, ram = kt_ram_size(), g = kt_gpa(rec);

	rec[0] = (struct keel_event_record){ KEEL_EVENT_OP_SEND, kt_alloc(0) };
	OK_VALUE(batch(0), 0);
	for (u64 k = 1; k < 8; k++)
		NEG(HC(KEEL_CALL_EVENT_BATCH, g + k, 1, 0), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_BATCH, g + 4, ~0ull, 1), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_BATCH, g, max + 1, 0), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_EVENT_BATCH, g, 1ull << 61, 0), KEEL_E_RANGE, ARG(2)); /* count * 8 wraps to 0 */
	for (int b = 0; b < 64; b++)
		NEG_BIT(HC(KEEL_CALL_EVENT_BATCH, g, 1, 1ull << b), KEEL_E_INVAL, ARG(3), b);
	NEG(HC(KEEL_CALL_EVENT_BATCH, ram, 1, 0), KEEL_E_FAULT, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_BATCH, ram - 8, 2, 0), KEEL_E_FAULT, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_BATCH, ram - 8 * 600, 601, 0), KEEL_E_FAULT, ARG(1));
	CHECK(!kt_port_pending(rec[0].port));
	*(struct keel_event_record *)kt_ram(ram - 8) = rec[0];
	OK_VALUE(HC(KEEL_CALL_EVENT_BATCH, ram - 8, 1, 0), 1);
	CHECK(kt_port_pending(rec[0].port));
}

KEEL_TEST("EVENT-015", event_batch_errors, "KEEL-EVENT-15 KEEL-TYPE-04", "neg", 0)
{
	static const u32 op[] = { 0, 4, 0x101, 0x80000001, 0xffffffff };
	u32 a = kt_alloc(0), b = kt_alloc(0);

	for (u32 i = 0; i < 5; i++) {
		rec[0] = (struct keel_event_record){ KEEL_EVENT_OP_MASK, a };
		rec[1] = (struct keel_event_record){ op[i], a };
		rec[2] = (struct keel_event_record){ KEEL_EVENT_OP_SEND, b };
		NEG_VALUE(batch(3), KEEL_STATUS(KEEL_E_INVAL, FIELD(1)), 1);
	}
	rec[1] = (struct keel_event_record){ KEEL_EVENT_OP_SEND, b ^ 1 << 24 };
	NEG_VALUE(batch(3), KEEL_STATUS(KEEL_E_NOENT, FIELD(2)), 1);
	rec[1] = (struct keel_event_record){ 9, b ^ 1 << 24 }; /* op before port */
	NEG_VALUE(batch(3), KEEL_STATUS(KEEL_E_INVAL, FIELD(1)), 1);
	rec[0].port = 0xffffffff;
	NEG_VALUE(batch(3), KEEL_STATUS(KEEL_E_NOENT, FIELD(2)), 0);
	CHECK(!kt_port_pending(b)); /* nothing after the error */
}

KEEL_TEST("EVENT-016", event_batch_untouched, "KEEL-TYPE-05 KEEL-EVENT-13", "", 0)
{
	u32 port = kt_alloc(0);
	u64 h;

	for (u32 i = 0; i < 512; i++)
		rec[i] = (struct keel_event_record){ 1 + i % 3, port };
	h = kt_hash(1, rec, 4096);
	OK_VALUE(batch(512), 512);
	CHECK_EQ(kt_hash(1, rec, 4096), h);
}

KEEL_TEST("EVENT-017", event_one_upcall, "KEEL-EVENT-12 KEEL-EVENT-13 KEEL-CALL-15", "", 0)
{
	u32 port[64];

	kt_events_on();
	for (u32 i = 0; i < 64; i++) {
		port[i] = kt_alloc(i % 4);
		OK(HC(KEEL_CALL_EVENT_UNMASK, port[i]));
		rec[i] = (struct keel_event_record){ KEEL_EVENT_OP_SEND, port[i] };
	}
	kt_sti();
	for (u32 round = 1; round <= 20; round++) {
		OK_VALUE(batch(64), 64);
		CHECK_EQ(kt_upcalls, round); /* 64 sends, one upcall */
		for (u32 i = 0; i < 64; i++)
			CHECK_EQ(kt_seen[KEEL_PORT_BIT(port[i])], round);
	}
}

KEEL_TEST("EVENT-018", event_garbage_in_page, "KEEL-EVENT-20 KEEL-EVENT-19", "neg", 0)
{
	u32 port = kt_alloc(0);

	/* Whatever the guest writes to its own words: the host goes on serving it. */
	kt_note("seed %lu", kt_seed);
	kt_events_on();
	for (int i = 0; i < 2000; i++) {
		for (u32 w = 0; w < 64; w++) {
			kt_vcpu->event_pending[w] = kt_random() & kt_random();
			kt_vcpu->event_mask[w] = kt_random();
		}
		kt_vcpu->pending = kt_random();
		kt_vcpu->if_enabled = (u8)kt_random_below(2);
		HC(KEEL_CALL_EVENT_SEND, port);
		HC(KEEL_CALL_EVENT_UNMASK, port);
		HC(KEEL_CALL_VCPU_WAIT, 0);
		HC(KEEL_CALL_TRAP_DELIVER);
		OK_VALUE(HC(KEEL_CALL_BASE_PING, i), i);
	}
	kt_cli();
	for (u32 w = 0; w < 64; w++)
		kt_vcpu->event_pending[w] = 0;
	kt_vcpu->pending = 0;
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_seen[KEEL_PORT_BIT(port)] = 0;
	OK(HC(KEEL_CALL_EVENT_SEND, port));
	kt_sti();
	CHECK_EQ(kt_seen[KEEL_PORT_BIT(port)], 1);
}

/*
 * Lost wake-ups: the timer is the other party, asynchronous to everything. A
 * round arms it with a random delta, then masks, unmasks, disables, enables
 * and waits at random. A timer event not seen within a second of its deadline
 * is a lost one.
 */
static void lost_wakeup(u64 rounds, bool direct)
{
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 0), bit = KEEL_PORT_BIT(port), w = bit / 64;
	u64 b = 1ull << (bit % 64), expect = 0;

	kt_note("seed %lu, %lu rounds", kt_seed, rounds);
	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_sti();
	for (u64 i = 0; i < rounds && !kt_fails; i++) {
		u64 r = kt_random(), start = kt_now();
		struct kt_ret s;

		HC(KEEL_CALL_TIME_SET_TIMER, start + (r & 0x3fff) * ((r >> 40) % 4) * kt_slow());
		switch (r >> 16 & 7) {
		case 0:
			kt_cli();
			kt_sti();
			break;
		case 1:
			kt_cli();
			for (u64 k = r >> 20 & 63; k; k--)
				__asm__ volatile("pause");
			kt_sti();
			break;
		case 2:
			HC(KEEL_CALL_EVENT_MASK, port);
			HC(KEEL_CALL_EVENT_UNMASK, port);
			break;
		case 3:
			if (direct) {
				__atomic_fetch_or(&kt_vcpu->event_mask[w], b, __ATOMIC_SEQ_CST);
				for (u64 k = r >> 20 & 63; k; k--)
					__asm__ volatile("pause");
				__atomic_fetch_and(&kt_vcpu->event_mask[w], ~b, __ATOMIC_SEQ_CST);
				if (__atomic_load_n(&kt_vcpu->event_pending[w], __ATOMIC_SEQ_CST) & b) {
					__atomic_fetch_or(&kt_vcpu->pending, 1ull << w, __ATOMIC_SEQ_CST);
					HC(KEEL_CALL_TRAP_DELIVER);
				}
			}
			break;
		case 4:
			HC(KEEL_CALL_VCPU_YIELD, ~0ull);
			break;
		case 5:
			HC(KEEL_CALL_BASE_NOP);
			break;
		default:
			break;
		}
		expect++;
		while (kt_seen[bit] < expect) {
			if (r >> 62 == 0 && kt_now() - start < 200000) {
				__asm__ volatile("pause");
				continue;
			}
			/* Disable, look, wait: the classic race. */
			kt_cli();
			if (kt_seen[bit] >= expect) {
				kt_sti();
				break;
			}
			s = HC(KEEL_CALL_VCPU_WAIT, start + 1000000000);
			kt_sti();
			if (s.status == KEEL_STATUS(KEEL_E_TIMEDOUT, 0) && kt_seen[bit] < expect) {
				KT_FAIL("round %lu: event lost, pending %lx port %d masked %d", i, kt_pending(),
					kt_port_pending(port), kt_port_masked(port));
				return;
			}
			CHECK(!s.status || s.status == KEEL_STATUS(KEEL_E_TIMEDOUT, 0));
		}
		if (kt_seen[bit] != expect) {
			KT_FAIL("round %lu: %u deliveries, %lu timers", i, kt_seen[bit], expect);
			return;
		}
	}
}

KEEL_TEST("EVENT-019", event_lost_wakeup, "KEEL-EVENT-10 KEEL-VCPU-04 KEEL-TRAP-10 KEEL-EVENT-09 KEEL-TIME-08",
	  "timeout=300", 0)
{
	lost_wakeup(1000000 / kt_scale + 100, true);
}

KEEL_TEST("EVENT-020", event_lost_in_wait, "KEEL-VCPU-04 KEEL-VCPU-02 KEEL-EVENT-10", "timeout=120", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 0), bit = KEEL_PORT_BIT(port);
	u64 rounds = 100000 / kt_scale + 100;

	/* IF off, deadline never: only the event can end the wait. Deltas sweep over the entry into the sleep. */
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	for (u64 i = 0; i < rounds && !kt_fails; i++) {
		HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + i * 37 % 20000 * kt_slow());
		do {
			OK(HC(KEEL_CALL_VCPU_WAIT, KEEL_TIME_NEVER));
		} while (!kt_pending());
		kt_scan();
		CHECK_EQ(kt_seen[bit], i + 1);
	}
}

/* A random sequence against a model of masks, pending bits and words. */
KEEL_TEST("EVENT-021", event_random_model,
	  "KEEL-EVENT-04 KEEL-EVENT-05 KEEL-EVENT-06 KEEL-EVENT-07 KEEL-EVENT-08 KEEL-EVENT-11 KEEL-EVENT-15",
	  "timeout=30", 0)
{
	enum { PORTS = 24 };
	static struct {
		u32 port;
		bool open, masked, pending;
	} m[PORTS];
	u64 words = 0;

	kt_note("seed %lu", kt_seed);
	for (u64 i = 0; i < 60000 / kt_scale + 2000 && !kt_fails; i++) {
		u32 k = (u32)kt_random_below(PORTS), op = (u32)kt_random_below(9), word;
		struct kt_ret r = { 0, 0 };
		s64 stale = KEEL_STATUS(KEEL_E_NOENT, 1);

		if (!m[k].port) {
			op = 8;
		}
		word = KEEL_PORT_BIT(m[k].port) / 64;
		switch (op) {
		case 0:
		case 1:
			r = HC(KEEL_CALL_EVENT_SEND, m[k].port);
			if (m[k].open) {
				m[k].pending = true;
				if (!m[k].masked)
					words |= 1ull << word;
			}
			break;
		case 2:
			r = HC(KEEL_CALL_EVENT_MASK, m[k].port);
			m[k].masked |= m[k].open;
			break;
		case 3:
			r = HC(KEEL_CALL_EVENT_UNMASK, m[k].port);
			if (m[k].open) {
				m[k].masked = false;
				if (m[k].pending)
					words |= 1ull << word;
			}
			break;
		case 4:
			r = HC(KEEL_CALL_EVENT_CLOSE, m[k].port);
			m[k].pending = false;
			break;
		case 5: /* the guest's scan */
			stale = 0;
			kt_scan();
			for (u32 j = 0; j < PORTS; j++)
				if (m[j].open && m[j].pending && !m[j].masked &&
				    words >> (KEEL_PORT_BIT(m[j].port) / 64) & 1)
					m[j].pending = false;
			words = 0;
			break;
		case 6:
		case 7: { /* a batch: records up to the first stale one */
			u64 n = 1 + kt_random_below(6), done = 0;

			stale = 0;
			for (u64 j = 0; j < n; j++) {
				u32 q = (u32)kt_random_below(PORTS);

				rec[j] = (struct keel_event_record){ 1 + (u32)kt_random_below(3), m[q].port };
			}
			for (; done < n; done++) {
				u32 q = 0;

				while (q < PORTS && (m[q].port != rec[done].port || !m[q].open))
					q++;
				if (q == PORTS)
					break;
				word = KEEL_PORT_BIT(m[q].port) / 64;
				if (rec[done].op == KEEL_EVENT_OP_SEND)
					m[q].pending = true;
				else
					m[q].masked = rec[done].op == KEEL_EVENT_OP_MASK;
				if (rec[done].op != KEEL_EVENT_OP_MASK && m[q].pending && !m[q].masked)
					words |= 1ull << word;
			}
			ERR_VALUE(batch(n), done < n ? KEEL_STATUS(KEEL_E_NOENT, FIELD(2)) : 0, done);
			break;
		}
		default:
			stale = 0;
			if (m[k].open)
				OK(HC(KEEL_CALL_EVENT_CLOSE, m[k].port));
			m[k].port = kt_alloc(k % 4);
			m[k].open = m[k].masked = true;
			m[k].pending = false;
			break;
		}
		if (op < 5)
			CHECK_EQ(r.status, m[k].open ? 0 : stale);
		if (op == 4)
			m[k].open = false;
		for (u32 j = 0; j < PORTS; j++) {
			if (!m[j].open)
				continue;
			if (kt_port_pending(m[j].port) != m[j].pending || kt_port_masked(m[j].port) != m[j].masked)
				KT_FAIL("step %lu op %u: port %x pending %d masked %d, the model has %d %d", i, op,
					m[j].port, kt_port_pending(m[j].port), kt_port_masked(m[j].port), m[j].pending,
					m[j].masked);
		}
		if (kt_pending() != words)
			KT_FAIL("step %lu op %u: pending is %lx, the model has %lx", i, op, kt_pending(), words);
	}
}

KEEL_TEST("EVENT-022", event_close_keeps_others, "KEEL-EVENT-05 KEEL-EVENT-04 KEEL-CALL-10", "neg", 0)
{
	u32 a = kt_alloc(0), b = kt_alloc(0), timer = kt_bind(KEEL_SOURCE_TIMER, 0);

	/* Closing what is not there touches nobody; closing one does not touch its neighbours in the word. */
	OK(HC(KEEL_CALL_EVENT_SEND, a));
	OK(HC(KEEL_CALL_EVENT_SEND, b));
	OK(HC(KEEL_CALL_EVENT_UNMASK, b));
	NEG(HC(KEEL_CALL_EVENT_CLOSE, a ^ 2 << 24), KEEL_E_NOENT, ARG(1));
	OK(HC(KEEL_CALL_EVENT_CLOSE, a));
	NEG(HC(KEEL_CALL_EVENT_CLOSE, a), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_CLOSE, a), KEEL_E_NOENT, ARG(1));
	CHECK(kt_port_pending(b));
	CHECK(!kt_port_masked(b));
	NEG(HC(KEEL_CALL_EVENT_BIND, KEEL_SOURCE_TIMER, 0), KEEL_E_EXIST, ARG(1));
	OK(HC(KEEL_CALL_TIME_SET_TIMER, KEEL_TIME_NEVER));
	OK(HC(KEEL_CALL_EVENT_CLOSE, timer));
	NEG(HC(KEEL_CALL_TIME_SET_TIMER, KEEL_TIME_NEVER), KEEL_E_STATE, 0);
}
