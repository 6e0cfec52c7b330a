// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* BASE, and VER: identity, probing, negotiation, limits, shutdown. */
#include "kt.h"

KEEL_TEST("BASE-001", base_nop, "KEEL-CALL-19 KEEL-CALL-02", "", KT_EARLY)
{
	OK_VALUE(HC(KEEL_CALL_BASE_NOP), 0);
	kt_accept_all();
	kt_freeze();
	OK_VALUE(HC(KEEL_CALL_BASE_NOP), 0);
}

KEEL_TEST("BASE-002", base_version, "KEEL-VER-01 KEEL-BASE-17", "", KT_EARLY)
{
	OK_VALUE(HC(KEEL_CALL_BASE_VERSION), KEEL_ABI_VERSION);
	kt_accept_all();
	kt_freeze();
	OK_VALUE(HC(KEEL_CALL_BASE_VERSION), KEEL_ABI_VERSION);
}

KEEL_TEST("BASE-003", base_host_name, "KEEL-BASE-01", "", KT_EARLY)
{
	char name[33] = { 0 };
	bool end = false;

	for (u64 w = 0; w < 4; w++) {
		struct kt_ret r = HC(KEEL_CALL_BASE_HOST, w);

		OK(r);
		memcpy(name + 8 * w, &r.value, 8);
	}
	CHECK(name[0]);
	for (int i = 0; i < 32; i++) {
		end |= !name[i];
		CHECK(end ? !name[i] : name[i] >= ' ' && name[i] < 127);
	}
	kt_note("host %s", name);
}

KEEL_TEST("BASE-004", base_host_range, "KEEL-BASE-01 KEEL-CALL-06", "neg", 0)
{
	NEG(HC(KEEL_CALL_BASE_HOST, 4), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_BASE_HOST, 0x100000000), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_BASE_HOST, ~0ull), KEEL_E_RANGE, ARG(1));
}

KEEL_TEST("BASE-005", base_probe, "KEEL-BASE-02 KEEL-BASE-03 KEEL-BASE-04 KEEL-BASE-17", "", KT_EARLY)
{
	u64 offered = HC(KEEL_CALL_BASE_FEATURES, 0).value;

	OK_VALUE(HC(KEEL_CALL_BASE_PROBE, KEEL_EXT_BASE), 7);
	for (u64 e = 1; e < 64; e++) {
		struct kt_ret r = HC(KEEL_CALL_BASE_PROBE, e);

		OK(r);
		CHECK_EQ((r.value & 3) == 3, offered >> e & 1);
		CHECK_EQ(r.value & ~3ull, 0);
		if (!(r.value & KEEL_PROBE_IMPLEMENTED))
			CHECK_EQ(r.value, 0);
	}
	kt_accept_all();
	kt_freeze();
	for (u64 e = 1; e < 64; e++)
		OK_VALUE(HC(KEEL_CALL_BASE_PROBE, e), offered >> e & 1 ? 7 : HC(KEEL_CALL_BASE_PROBE, e).value & 3);
}

KEEL_TEST("BASE-006", base_probe_unknown, "KEEL-BASE-02 KEEL-CALL-06", "neg", 0)
{
	static const u64 unknown[] = { KEEL_EXT_COUNT, 63, 64, 4095, 4096, 0x100000000, 0x100000002, ~0ull, 1ull << 63 };

	for (size_t i = 0; i < sizeof(unknown) / 8; i++)
		OK_VALUE(HC(KEEL_CALL_BASE_PROBE, unknown[i]), 0);
}

KEEL_TEST("BASE-007", base_features, "KEEL-BASE-05 KEEL-BASE-17 KEEL-VER-05", "", KT_EARLY)
{
	u64 f0 = HC(KEEL_CALL_BASE_FEATURES, 0).value, f1 = HC(KEEL_CALL_BASE_FEATURES, 1).value;

	CHECK(f0 & 1);
	CHECK_EQ(f0 >> KEEL_EXT_COUNT, 0);
	CHECK_EQ(f1 >> 3, 0);
	OK_VALUE(HC(KEEL_CALL_BASE_FEATURES, 2), 0);
	OK_VALUE(HC(KEEL_CALL_BASE_FEATURES, 0x100000000), 0);
	OK_VALUE(HC(KEEL_CALL_BASE_FEATURES, ~0ull), 0);
	OK(HC(KEEL_CALL_BASE_ACCEPT, 0, f0));
	OK_VALUE(HC(KEEL_CALL_BASE_FEATURES, 0), f0);
	kt_freeze();
	OK_VALUE(HC(KEEL_CALL_BASE_FEATURES, 0), f0);
	OK_VALUE(HC(KEEL_CALL_BASE_FEATURES, 1), f1);
}

KEEL_TEST("BASE-008", base_served, "KEEL-BASE-04", "", KT_EARLY)
{
	/* The extensions of profile CORE. */
	static const u8 core[] = { KEEL_EXT_BASE,    KEEL_EXT_MULTICALL, KEEL_EXT_MMU,	 KEEL_EXT_HARVEST,
				   KEEL_EXT_TRAP,    KEEL_EXT_VCPU,	 KEEL_EXT_EVENT, KEEL_EXT_TIME,
				   KEEL_EXT_CONSOLE, KEEL_EXT_MEMORY,	 KEEL_EXT_CRASH, KEEL_EXT_STATS };

	for (size_t i = 0; i < sizeof(core); i++)
		CHECK_EQ(HC(KEEL_CALL_BASE_PROBE, core[i]).value & 3, 3);
}

KEEL_TEST("BASE-009", base_accept_subset, "KEEL-BASE-06 KEEL-BASE-09 KEEL-BASE-17", "", KT_EARLY)
{
	OK_VALUE(HC(KEEL_CALL_BASE_ACCEPT, 0, 1 << KEEL_EXT_MMU), 0);
	OK_VALUE(HC(KEEL_CALL_BASE_ACCEPT, 0, 1 << KEEL_EXT_TIME), 0); /* adds */
	OK_VALUE(HC(KEEL_CALL_BASE_ACCEPT, 0, 0), 0);
	OK_VALUE(HC(KEEL_CALL_BASE_ACCEPT, 0, 1 << KEEL_EXT_MMU), 0); /* again */
	CHECK_EQ(HC(KEEL_CALL_BASE_PROBE, KEEL_EXT_MMU).value, 7);
	CHECK_EQ(HC(KEEL_CALL_BASE_PROBE, KEEL_EXT_TIME).value, 7);
	CHECK_EQ(HC(KEEL_CALL_BASE_PROBE, KEEL_EXT_EVENT).value, 3);
	kt_freeze();
	OK(HC(KEEL_CALL_TIME_READ));
	OK(HC(KEEL_CALL_MMU_QUERY, 0, 0x400000));
	ERR_VALUE(HC(KEEL_CALL_EVENT_ALLOC, 0), KEEL_STATUS(KEEL_E_NOTSUP, 0), 0);
	ERR_VALUE(HC(KEEL_CALL_MULTICALL, 0, 0, 0, 0), KEEL_STATUS(KEEL_E_NOTSUP, 0), 0);
}

KEEL_TEST("BASE-010", base_accept_unoffered, "KEEL-BASE-06 KEEL-CALL-07 KEEL-CALL-10", "neg", KT_EARLY)
{
	for (u64 w = 0; w < 4; w++) {
		u64 offered = HC(KEEL_CALL_BASE_FEATURES, w).value;

		for (u64 b = 0; b < 64; b++)
			if (!(offered >> b & 1))
				NEG_BIT(HC(KEEL_CALL_BASE_ACCEPT, w, 1ull << b), KEEL_E_NOTSUP, ARG(2), (int)b);
		/* The lowest offending bit counts, and the offered ones beside it are not taken. */
		if (offered != ~0ull)
			NEG_BIT(HC(KEEL_CALL_BASE_ACCEPT, w, ~0ull), KEEL_E_NOTSUP, ARG(2), __builtin_ctzll(~offered));
	}
	NEG_BIT(HC(KEEL_CALL_BASE_ACCEPT, 0x100000000, 1), KEEL_E_NOTSUP, ARG(2), 0);
	for (u64 e = 1; e < KEEL_EXT_COUNT; e++)
		CHECK_EQ(HC(KEEL_CALL_BASE_PROBE, e).value & KEEL_PROBE_ACCEPTED, 0);
}

KEEL_TEST("BASE-011", base_accept_frozen, "KEEL-BASE-07", "neg", KT_EARLY)
{
	OK(HC(KEEL_CALL_BASE_ACCEPT, 0, 1 << KEEL_EXT_MMU));
	kt_freeze();
	NEG(HC(KEEL_CALL_BASE_ACCEPT, 0, 1 << KEEL_EXT_TIME), KEEL_E_STATE, 0);
	NEG(HC(KEEL_CALL_BASE_ACCEPT, 0, 0), KEEL_E_STATE, 0);
	NEG(HC(KEEL_CALL_TIME_READ), KEEL_E_NOTSUP, 0);
	CHECK_EQ(HC(KEEL_CALL_BASE_PROBE, KEEL_EXT_TIME).value, 3);
}

KEEL_TEST("BASE-012", base_freeze_once, "KEEL-BASE-08", "neg", KT_EARLY)
{
	OK_VALUE(HC(KEEL_CALL_BASE_FREEZE), 0);
	NEG(HC(KEEL_CALL_BASE_FREEZE), KEEL_E_STATE, 0);
	NEG(HC(KEEL_CALL_BASE_FREEZE), KEEL_E_STATE, 0);
}

KEEL_TEST("BASE-013", base_unaccepted, "KEEL-BASE-09 KEEL-CTX-01 KEEL-CALL-08", "neg", KT_EARLY)
{
	kt_freeze(); /* nothing but BASE accepted */
	for (u32 i = 0; i < KEEL_CALL_COUNT; i++)
		if (!(kt_calls[i].flags & KEEL_CF_EARLY))
			NEG(HC(kt_calls[i].id), KEEL_E_NOTSUP, 0);
	OK_VALUE(HC(KEEL_CALL_BASE_PING, 7), 7);
	OK(HC(KEEL_CALL_CONSOLE_WRITE, 1, '\n')); /* EARLY, though CONSOLE was not accepted */
	ERR_VALUE(HC(KEEL_CALL_CRASH, 256), KEEL_STATUS(KEEL_E_RANGE, 1), 0);
}

KEEL_TEST("BASE-014", base_each_extension, "KEEL-BASE-09 KEEL-CALL-08", "", KT_EARLY)
{
	/* One extension at a time is a boot each; here every second one. */
	u64 mask = 0x15555 & HC(KEEL_CALL_BASE_FEATURES, 0).value;

	OK(HC(KEEL_CALL_BASE_ACCEPT, 0, mask));
	kt_freeze();
	for (u32 i = 0; i < KEEL_CALL_COUNT; i++) {
		u32 ext = KEEL_CALL_EXT(kt_calls[i].id);
		struct kt_ret r;

		if (kt_calls[i].flags & KEEL_CF_EARLY || !kt_implemented(&kt_calls[i]) || kt_calls[i].nargs == 5)
			continue;
		/* A non-zero unused argument: INVAL where the call is there at all, and never its effect. */
		r = kt_call(kt_calls[i].id, 0, 0, 0, 0, 1);
		ERR_VALUE(r, mask >> ext & 1 ? KEEL_STATUS(KEEL_E_INVAL, 5) : KEEL_STATUS(KEEL_E_NOTSUP, 0), 0);
	}
}

KEEL_TEST("BASE-015", base_limits, "KEEL-BASE-10 KEEL-VER-05 KEEL-CALL-17", "", KT_EARLY)
{
	u64 v[KEEL_LIMIT_COUNT];

	for (u64 l = 0; l < KEEL_LIMIT_COUNT; l++) {
		struct kt_ret r = HC(KEEL_CALL_BASE_LIMIT, l);

		OK(r);
		CHECK(r.value);
		v[l] = r.value;
	}
	CHECK(v[KEEL_LIMIT_BATCH_COUNT] >= v[KEEL_LIMIT_MMU_RECORDS]);
	CHECK(v[KEEL_LIMIT_EVENT_PORTS] <= KEEL_EVENT_BITS);
	CHECK(v[KEEL_LIMIT_MMU_PAGES] >= 1);
	kt_accept_all();
	kt_freeze();
	for (u64 l = 0; l < KEEL_LIMIT_COUNT; l++)
		OK_VALUE(HC(KEEL_CALL_BASE_LIMIT, l), v[l]);
}

KEEL_TEST("BASE-016", base_limit_unknown, "KEEL-BASE-10 KEEL-CALL-06 KEEL-CALL-21", "neg", 0)
{
	NEG(HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_COUNT), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_BASE_LIMIT, 0x100000000), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_BASE_LIMIT, ~0ull), KEEL_E_RANGE, ARG(1));
}

KEEL_TEST("BASE-017", base_ping, "KEEL-BASE-11", "", KT_EARLY)
{
	static const u64 cookie[] = { 0, 1, ~0ull, 0x8000000000000000, 0x123456789abcdef0, 0xffffffff, 0x100000000 };

	for (size_t i = 0; i < sizeof(cookie) / 8; i++)
		OK_VALUE(HC(KEEL_CALL_BASE_PING, cookie[i]), cookie[i]);
	for (u64 i = 0; i < 2000; i++)
		OK_VALUE(HC(KEEL_CALL_BASE_PING, i * 0x9e3779b97f4a7c15), i * 0x9e3779b97f4a7c15);
}

static void shutdown(u64 how, u64 code)
{
	kt_armed();
	HC(KEEL_CALL_BASE_SHUTDOWN, how, code);
	KT_FAIL("base_shutdown returned");
}

KEEL_TEST("BASE-018", base_poweroff_1, "KEEL-BASE-12 KEEL-BASE-15", "exit=1 destructive", 0)
{
	shutdown(KEEL_SHUTDOWN_POWEROFF, 1);
}

KEEL_TEST("BASE-019", base_poweroff_max, "KEEL-BASE-12", "exit=123 destructive", 0)
{
	shutdown(KEEL_SHUTDOWN_POWEROFF, KEEL_SHUTDOWN_CODE_MAX);
}

KEEL_TEST("BASE-020", base_poweroff_early, "KEEL-BASE-12 KEEL-CTX-01", "exit=7 destructive", KT_EARLY)
{
	shutdown(KEEL_SHUTDOWN_POWEROFF, 7);
}

KEEL_TEST("BASE-021", base_restart, "KEEL-BASE-13", "exit=restart/5 destructive", 0)
{
	shutdown(KEEL_SHUTDOWN_RESTART, 5);
}

KEEL_TEST("BASE-022", base_shutdown_bad, "KEEL-BASE-14 KEEL-CALL-06 KEEL-CALL-09 KEEL-CALL-21", "neg", 0)
{
	NEG(HC(KEEL_CALL_BASE_SHUTDOWN, 2, 0), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_BASE_SHUTDOWN, 2, 124), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_BASE_SHUTDOWN, 0x100000000, 0), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_BASE_SHUTDOWN, ~0ull, 0), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_BASE_SHUTDOWN, 0, 124), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_BASE_SHUTDOWN, 1, 124), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_BASE_SHUTDOWN, 0, 0x100000000), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_BASE_SHUTDOWN, 0, ~0ull), KEEL_E_RANGE, ARG(2));
	OK(HC(KEEL_CALL_BASE_NOP));
}

KEEL_TEST("BASE-023", base_shutdown_flushes, "KEEL-BASE-15 KEEL-CONSOLE-01",
	  "exit=9 destructive line=the%20very%20last%20words", 0)
{
	kt_armed();
	kt_puts("the very last words\n");
	HC(KEEL_CALL_BASE_SHUTDOWN, KEEL_SHUTDOWN_POWEROFF, 9);
	KT_FAIL("base_shutdown returned");
}

KEEL_TEST("BASE-024", base_refinement_unaccepted, "KEEL-BASE-16 KEEL-HARVEST-11", "neg", KT_EARLY)
{
	OK(HC(KEEL_CALL_BASE_ACCEPT, 0, HC(KEEL_CALL_BASE_FEATURES, 0).value)); /* word 0 only */
	kt_freeze();
	NEG_BIT(HC(KEEL_CALL_HARVEST_START, 0, KT_LINEAR, 4096, KEEL_HARVEST_DIRTY | KEEL_HARVEST_ACCESSED),
		KEEL_E_NOTSUP, ARG(4), 1);
	NEG(HC(KEEL_CALL_VCPU_INFO, 0, 0), KEEL_E_NOTSUP, 0);
	NEG(HC(KEEL_CALL_VCPU_START, 1, 0x400000, 0), KEEL_E_NOTSUP, 0);
}

KEEL_TEST("BASE-025", base_stable, "KEEL-VER-05", "", 0)
{
	u64 h[2];

	for (int round = 0; round < 2; round++) {
		h[round] = 1;
		for (u64 w = 0; w < 4; w++) {
			u64 v = HC(KEEL_CALL_BASE_FEATURES, w).value ^ HC(KEEL_CALL_BASE_HOST, w).value;

			h[round] = kt_hash(h[round], &v, 8);
		}
		for (u64 l = 0; l < KEEL_LIMIT_COUNT; l++) {
			u64 v = HC(KEEL_CALL_BASE_LIMIT, l).value;

			h[round] = kt_hash(h[round], &v, 8);
		}
		/* Work of every kind in between. */
		OK(MAP(KT_VA, KT_SCRATCH_GPA, 1 << 20, KEEL_PROT_R | KEEL_PROT_W));
		OK(UNMAP(KT_VA, 1 << 20));
		OK(HC(KEEL_CALL_EVENT_SEND, kt_alloc(3)));
		OK(HC(KEEL_CALL_MEMORY_RELEASE, KT_SCRATCH_GPA, 4096));
	}
	CHECK_EQ(h[0], h[1]);
}
