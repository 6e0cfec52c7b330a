// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* VCPU: wait and yield. TIME: clock and timer. */
#include "kt.h"

#define MS KEEL_U64(1000000)
static const s64 timed_out = KEEL_STATUS(KEEL_E_TIMEDOUT, 0);

static const volatile struct keel_clock *clock_page(void)
{
	const struct keel_abi_pages *p;
	u32 size;

	p = kt_chunk(KEEL_CHUNK_ABI, &size);
	REQUIRE(p);
	return (const volatile struct keel_clock *)p->clock_va;
}

/* Guest time by the page, as time.h says. */
static u64 page_time(void)
{
	const volatile struct keel_clock *c = clock_page();
	u64 base_tsc, base_ns, mult, tsc;
	u32 seq;

	do {
		while ((seq = __atomic_load_n(&c->seq, __ATOMIC_ACQUIRE)) & 1)
			;
		base_tsc = c->base_tsc;
		base_ns = c->base_ns;
		mult = c->mult;
		__asm__ volatile("lfence" ::: "memory");
		tsc = kt_tsc();
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (c->seq != seq);
	if (tsc < base_tsc)
		return base_ns;
	return base_ns + (u64)(((unsigned __int128)(tsc - base_tsc) * mult) >> 32);
}

KEEL_TEST("VCPU-001", vcpu_wait_pending, "KEEL-VCPU-01 KEEL-VCPU-05", "", 0)
{
	u32 port = kt_alloc(0);

	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	OK(HC(KEEL_CALL_EVENT_SEND, port));
	for (int i = 0; i < 100; i++) {
		OK_VALUE(HC(KEEL_CALL_VCPU_WAIT, KEEL_TIME_NEVER), 0); /* IF off: at once, again and again */
		OK_VALUE(HC(KEEL_CALL_VCPU_WAIT, 0), 0);
	}
	CHECK(kt_port_pending(port));
	CHECK_EQ(kt_vcpu->if_enabled, 0);
	kt_vcpu->if_enabled = 1;
	OK(HC(KEEL_CALL_VCPU_WAIT, KEEL_TIME_NEVER)); /* IF on, no entry: at once as well */
	CHECK(kt_pending());
	kt_events_on();
	CHECK_EQ(kt_upcalls, 1);
}

KEEL_TEST("VCPU-002", vcpu_wait_deadline, "KEEL-VCPU-02 KEEL-TIME-01", "", 0)
{
	static const u64 ns[] = { 1, 1000, 50000, 300000, 2 * MS, 20 * MS };

	for (size_t i = 0; i < sizeof(ns) / 8; i++) {
		u64 deadline = kt_now() + ns[i];
		struct kt_ret r;

		do {
			r = HC(KEEL_CALL_VCPU_WAIT, deadline);
		} while (!r.status); /* OK with nothing pending is legal */
		CHECK_EQ(r.status, timed_out);
		CHECK_EQ(r.value, 0);
		CHECK(kt_now() >= deadline); /* never before */
		CHECK(kt_now() < deadline + 500 * MS);
	}
}

KEEL_TEST("VCPU-003", vcpu_wait_past, "KEEL-VCPU-03", "neg", 0)
{
	u64 start = kt_now();

	for (u64 i = 0; i < 200 / kt_slow() + 1; i++) {
		NEG(HC(KEEL_CALL_VCPU_WAIT, 0), KEEL_E_TIMEDOUT, 0);
		NEG(HC(KEEL_CALL_VCPU_WAIT, kt_now() - 1), KEEL_E_TIMEDOUT, 0);
		NEG(HC(KEEL_CALL_VCPU_WAIT, 1), KEEL_E_TIMEDOUT, 0);
	}
	CHECK(kt_now() - start < 1000 * MS * kt_slow());
}

KEEL_TEST("VCPU-004", vcpu_wait_event_ends, "KEEL-VCPU-02 KEEL-VCPU-05 KEEL-CALL-15", "", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 0);

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	for (u32 i = 1; i <= 50; i++) {
		u64 deadline = kt_now() + MS / 2;

		kt_vcpu->if_enabled = i & 1;
		OK(HC(KEEL_CALL_TIME_SET_TIMER, deadline));
		while (kt_seen[KEEL_PORT_BIT(port)] < i) {
			struct kt_ret r = HC(KEEL_CALL_VCPU_WAIT, kt_now() + 500 * MS);

			/* With IF on the upcall may come before the sleep begins, which then nothing ends early. */
			CHECK(!r.status || (r.status == timed_out && i & 1 && kt_seen[KEEL_PORT_BIT(port)] == i));
			if (!(i & 1))
				kt_scan();
		}
		CHECK(kt_now() >= deadline);
		CHECK_EQ(kt_vcpu->if_enabled, i & 1);
	}
}

KEEL_TEST("VCPU-005", vcpu_wait_masked, "KEEL-VCPU-02 KEEL-EVENT-07", "neg", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 0);
	struct kt_ret r;

	/* A masked event does not end the sleep. */
	OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + MS));
	u64 deadline = kt_now() + 20 * MS;

	do {
		r = HC(KEEL_CALL_VCPU_WAIT, deadline);
	} while (!r.status && kt_now() < deadline);
	CHECK(kt_now() >= deadline);
	CHECK(kt_port_pending(port));
	CHECK_EQ(kt_pending(), 0);
}

static u32 dumps;

static void on_dump(struct keel_frame *f)
{
	(void)f;
	dumps++;
}

KEEL_TEST("VCPU-006", vcpu_wait_after_dump, "KEEL-VCPU-06", "", 0)
{
	struct kt_ret r;

	/* Dumps come between waits here; one from outside is the host's to test. */
	kt_on[KEEL_CLASS_DUMP] = on_dump;
	kt_set_entry(KEEL_CLASS_DUMP, 0);
	for (u32 i = 1; i <= 20; i++) {
		OK(HC(KEEL_CALL_EVENT_DUMP, 0));
		CHECK_EQ(dumps, i);
		u64 deadline = kt_now() + MS / 4;

		do {
			r = HC(KEEL_CALL_VCPU_WAIT, deadline);
		} while (!r.status && kt_now() < deadline + 1000 * MS);
		CHECK_EQ(r.status, timed_out);
	}
}

KEEL_TEST("VCPU-007", vcpu_yield, "KEEL-VCPU-07", "", 0)
{
	for (int i = 0; i < 100; i++) {
		OK_VALUE(HC(KEEL_CALL_VCPU_YIELD, ~0ull), 0);
		OK_VALUE(HC(KEEL_CALL_VCPU_YIELD, 0), 0);
	}
}

KEEL_TEST("VCPU-008", vcpu_yield_bad, "KEEL-VCPU-07 KEEL-CALL-06", "neg", 0)
{
	NEG(HC(KEEL_CALL_VCPU_YIELD, HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_VCPUS).value), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_VCPU_YIELD, 4095), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_VCPU_YIELD, 0xffffffff), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_VCPU_YIELD, ~1ull), KEEL_E_NOENT, ARG(1));
}

KEEL_TEST("VCPU-009", vcpu_smp_absent, "KEEL-VCPU-09 KEEL-BASE-16", "neg", 0)
{
	static const u64 id[] = { KEEL_CALL_VCPU_START, KEEL_CALL_VCPU_STOP, KEEL_CALL_VCPU_IPI, KEEL_CALL_VCPU_INFO };

	if (HC(KEEL_CALL_BASE_FEATURES, 1).value >> KEEL_F1_SMP & 1)
		return; /* tests SMP-001 to -036 are about what they do, SMP-029 about them not accepted */
	for (int i = 0; i < 4; i++) {
		NEG(HC(id[i]), KEEL_E_NOTSUP, 0);
		NEG(HC(id[i], 0, 0x400000, 1, 1, 1), KEEL_E_NOTSUP, 0);
	}
}

KEEL_TEST("VCPU-010", vcpu_wait_extreme, "KEEL-VCPU-02 KEEL-TIME-12", "", 0)
{
	static const u64 far[] = { KEEL_TIME_NEVER, KEEL_TIME_NEVER - 1, 1ull << 63, (1ull << 63) - 1, 1ull << 62 };
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 0);

	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	for (size_t i = 0; i < sizeof(far) / 8; i++) {
		OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + MS));
		do {
			OK(HC(KEEL_CALL_VCPU_WAIT, far[i])); /* neither an error nor over at once */
		} while (!kt_pending());
		kt_scan();
	}
	CHECK_EQ(kt_seen[KEEL_PORT_BIT(port)], 5);
}

KEEL_TEST("TIME-001", time_monotonic, "KEEL-TIME-01 KEEL-TIME-02", "", 0)
{
	u64 last = 0, first = kt_now();

	for (u64 i = 0; i < 200000 / kt_slow() + 100; i++) {
		struct kt_ret r = HC(KEEL_CALL_TIME_READ);

		if (r.status || r.value < last) {
			KT_FAIL("time went from %lu to %lu (%ld)", last, r.value, r.status);
			break;
		}
		last = r.value;
	}
	CHECK(last > first);
	u64 before = kt_now();

	HC(KEEL_CALL_VCPU_WAIT, before + 10 * MS);
	CHECK(kt_now() > before);
}

KEEL_TEST("TIME-002", time_page_agrees, "KEEL-TIME-03 KEEL-TIME-04 KEEL-TIME-05", "", 0)
{
	const volatile struct keel_clock *c = clock_page();
	u64 offered = HC(KEEL_CALL_BASE_FEATURES, 1).value;

	CHECK(!(offered >> KEEL_F1_CLOCK_PAGE & 1) || c->flags & KEEL_CLOCK_VALID);
	if (!(c->flags & KEEL_CLOCK_VALID))
		return;
	for (u64 i = 0; i < 100000 / kt_slow() + 100; i++) {
		u64 a = kt_now(), p = page_time(), b = kt_now();

		if (a > p || p > b) {
			KT_FAIL("time_read %lu, page %lu, time_read %lu", a, p, b);
			break;
		}
	}
}

KEEL_TEST("TIME-003", time_page_fields, "KEEL-TIME-07 KEEL-TIME-05 KEEL-TIME-06 KEEL-TYPE-03", "", KT_EARLY)
{
	const volatile struct keel_clock *c = clock_page();

	CHECK_EQ(c->flags & ~KEEL_CLOCK_VALID, 0);
	CHECK_EQ(c->reserved[0] | c->reserved[1], 0);
	CHECK_EQ(c->seq & 1, 0);
	CHECK_EQ(c->disruption, 0);
	/* Between 2024 and 2100, and it is the time the runner's clock shows to within a minute. */
	u64 now = c->wall_ns + (c->flags & KEEL_CLOCK_VALID ? page_time() : 0);
	u64 want = kt_option("wall", 0);

	CHECK(now > 1704067200 * (1000 * MS) && now < 4102444800 * (1000 * MS));
	/* Before the freeze there is no other way to guest time than a valid page. */
	if (want && c->flags & KEEL_CLOCK_VALID)
		CHECK(now / (1000 * MS) + 60 > want && now / (1000 * MS) < want + 60);
}

KEEL_TEST("TIME-004", time_page_read_only, "KEEL-TIME-07", "neg", 0)
{
	u64 va = (u64)clock_page();

	for (u64 i = 0; i < 64; i++)
		CHECK(kt_probe_write(va + i, 0xff));
	CHECK_EQ(kt_trap_frame.vector, KEEL_VEC_PF);
	CHECK_EQ(kt_trap_frame.error, KEEL_PF_P | KEEL_PF_W);
}

KEEL_TEST("TIME-005", time_timer, "KEEL-TIME-08 KEEL-TIME-09", "timeout=20", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 0), bit = KEEL_PORT_BIT(port);
	bool page = clock_page()->flags & KEEL_CLOCK_VALID;
	u64 worst = 0;

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_sti();
	for (u64 i = 1; i <= 2000 / kt_scale + 20; i++) {
		u64 deadline = kt_now() + kt_random_below(400000), seen;

		OK_VALUE(HC(KEEL_CALL_TIME_SET_TIMER, deadline), 0);
		while (kt_seen[bit] < i && kt_now() < deadline + 1000 * MS)
			HC(KEEL_CALL_VCPU_WAIT, deadline + 1000 * MS);
		seen = page ? page_time() : kt_now();
		CHECK_EQ(kt_seen[bit], i); /* once, and not lost */
		if (seen < deadline || kt_now() < deadline)
			KT_FAIL("fired %lu ns early", deadline - seen);
		worst = seen - deadline > worst ? seen - deadline : worst;
		if (kt_fails)
			return;
	}
	kt_note("latest by %lu ns", worst);
	kt_spin_ns(5 * MS);
	CHECK_EQ(kt_seen[bit], 2000 / kt_scale + 20); /* nothing fires by itself */
}

static bool fired_early;
static u64 hook_deadline;

static void check_deadline(u32 bit)
{
	(void)bit;
	if (kt_now() < hook_deadline || (clock_page()->flags & KEEL_CLOCK_VALID && page_time() < hook_deadline))
		fired_early = true;
	kt_spin_flag = 1;
}

KEEL_TEST("TIME-006", time_never_early, "KEEL-TIME-09", "timeout=20", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 0);

	kt_events_on();
	kt_event_hook = check_deadline;
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_sti();
	for (u64 i = 0; i < 5000 / kt_scale + 100; i++) {
		kt_spin_flag = 0;
		hook_deadline = kt_now() + 1000 + kt_random_below(100000);
		OK(HC(KEEL_CALL_TIME_SET_TIMER, hook_deadline));
		while (!kt_spin_flag)
			__asm__ volatile("pause"); /* busy, so that it interrupts */
		if (fired_early) {
			KT_FAIL("round %lu: the timer fired before its deadline", i);
			break;
		}
	}
}

KEEL_TEST("TIME-007", time_past_fires, "KEEL-TIME-10", "", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 0), bit = KEEL_PORT_BIT(port);

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_sti();
	for (u32 i = 1; i <= 200; i++) {
		u64 start = kt_now();

		OK(HC(KEEL_CALL_TIME_SET_TIMER, i & 1 ? 0 : kt_now() - 1));
		while (kt_seen[bit] < i && kt_now() < start + 1000 * MS)
			HC(KEEL_CALL_BASE_NOP);
		CHECK_EQ(kt_seen[bit], i);
	}
}

KEEL_TEST("TIME-008", time_replace_disarm, "KEEL-TIME-10 KEEL-TIME-08", "neg", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 0), bit = KEEL_PORT_BIT(port), seen;
	u64 ms = MS * (1 + kt_slow() / 8);

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_sti();
	/* A round in which the guest itself was held up beyond the first deadline says nothing. */
	for (u32 rounds = 0, tries = 0; rounds < 30; tries++) {
		u64 first = kt_now() + 2 * ms, last = first + 2 * ms;
		bool late;

		seen = kt_seen[bit];
		CHECK(tries < 3000);
		OK(HC(KEEL_CALL_TIME_SET_TIMER, first));
		OK_VALUE(HC(KEEL_CALL_TIME_SET_TIMER, KEEL_TIME_NEVER), 0);
		late = kt_now() >= first;
		kt_spin_ns(3 * ms);
		if (late)
			continue;
		CHECK_EQ(kt_seen[bit], seen); /* disarmed */
		first = kt_now() + ms;
		last = first + 2 * ms;
		OK(HC(KEEL_CALL_TIME_SET_TIMER, first));
		OK(HC(KEEL_CALL_TIME_SET_TIMER, last)); /* replaces */
		late = kt_now() >= first;
		WAIT_UNTIL(kt_seen[bit] != seen);
		if (late) {
			while (kt_now() < last + ms)
				HC(KEEL_CALL_VCPU_WAIT, last + ms);
			continue;
		}
		CHECK(kt_now() >= last);
		CHECK_EQ(kt_seen[bit], seen + 1);
		rounds++;
	}
	/* What is pending already stays when the timer is disarmed. */
	seen = kt_seen[bit];
	kt_cli();
	OK(HC(KEEL_CALL_TIME_SET_TIMER, 0));
	while (!kt_pending())
		HC(KEEL_CALL_BASE_NOP);
	OK(HC(KEEL_CALL_TIME_SET_TIMER, KEEL_TIME_NEVER));
	CHECK(kt_port_pending(port));
	kt_sti();
	CHECK_EQ(kt_seen[bit], seen + 1);
}

KEEL_TEST("TIME-009", time_unbound, "KEEL-TIME-11 KEEL-EVENT-05", "neg", 0)
{
	u64 far = 20 * MS * (1 + kt_slow() / 8); /* not before it is closed, however slow this is */
	u32 port;

	NEG(HC(KEEL_CALL_TIME_SET_TIMER, 0), KEEL_E_STATE, 0);
	NEG(HC(KEEL_CALL_TIME_SET_TIMER, KEEL_TIME_NEVER), KEEL_E_STATE, 0);
	port = kt_bind(KEEL_SOURCE_TIMER, 0);
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + far));
	OK(HC(KEEL_CALL_EVENT_CLOSE, port)); /* disarms */
	NEG(HC(KEEL_CALL_TIME_SET_TIMER, 0), KEEL_E_STATE, 0);
	port = kt_bind(KEEL_SOURCE_TIMER, 0);
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_spin_ns(far + 5 * MS);
	CHECK(!kt_port_pending(port));
	CHECK_EQ(kt_pending(), 0);
}

KEEL_TEST("TIME-010", time_extreme_deadlines, "KEEL-TIME-12 KEEL-TIME-10", "", 0)
{
	static const u64 far[] = {
		KEEL_TIME_NEVER - 1, 1ull << 63, (1ull << 63) - 1, 1ull << 62, 1ull << 60, 1ull << 55
	};
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 0), bit = KEEL_PORT_BIT(port);

	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	for (size_t i = 0; i < sizeof(far) / 8; i++) {
		OK(HC(KEEL_CALL_TIME_SET_TIMER, far[i]));
		kt_spin_ns(2 * MS);
		CHECK(!kt_port_pending(port)); /* far away, neither an error nor at once */
	}
	for (u64 d = 0; d < 3; d++) {
		OK(HC(KEEL_CALL_TIME_SET_TIMER, d));
		while (!kt_pending())
			HC(KEEL_CALL_VCPU_WAIT, KEEL_TIME_NEVER);
		kt_scan();
	}
	CHECK_EQ(kt_seen[bit], 3);
}

KEEL_TEST("TIME-011", time_masked_timer, "KEEL-TIME-08 KEEL-EVENT-07", "", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 3);
	u64 start = kt_now();

	/* The send happens to a masked port as well; it is held. */
	OK(HC(KEEL_CALL_TIME_SET_TIMER, start + MS));
	while (!kt_port_pending(port) && kt_now() < start + 1000 * MS)
		HC(KEEL_CALL_BASE_NOP);
	CHECK(kt_port_pending(port));
	CHECK(kt_now() >= start + MS);
	CHECK_EQ(kt_pending(), 0);
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	CHECK(kt_pending());
}

KEEL_TEST("TIME-012", time_unaccepted, "KEEL-BASE-09 KEEL-EVENT-02 KEEL-TIME-11", "neg", KT_EARLY)
{
	/* EVENT without TIME: a port bound to the timer is a port like any other. */
	u32 port;

	OK(HC(KEEL_CALL_BASE_ACCEPT, 0, 1 << KEEL_EXT_EVENT));
	kt_freeze();
	NEG(HC(KEEL_CALL_TIME_SET_TIMER, 0), KEEL_E_NOTSUP, 0);
	NEG(HC(KEEL_CALL_TIME_READ), KEEL_E_NOTSUP, 0);
	port = kt_bind(KEEL_SOURCE_TIMER, 0);
	NEG(HC(KEEL_CALL_TIME_SET_TIMER, 0), KEEL_E_NOTSUP, 0);
	OK(HC(KEEL_CALL_EVENT_SEND, port));
	CHECK(kt_port_pending(port));
}
