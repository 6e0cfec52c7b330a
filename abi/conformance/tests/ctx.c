// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* CTX: which call is legal where. */
#include "kt.h"

static struct keel_multicall entry[KEEL_CALL_COUNT] __attribute__((aligned(64)));
static struct keel_multicall_result result[KEEL_CALL_COUNT] __attribute__((aligned(64)));

KEEL_TEST("CTX-001", ctx_boot_refused, "KEEL-CTX-01 KEEL-CALL-08", "neg", KT_EARLY)
{
	kt_accept_all(); /* accepted is not yet callable */
	for (u32 i = 0; i < KEEL_CALL_COUNT; i++)
		if (!(kt_calls[i].flags & KEEL_CF_EARLY) && kt_implemented(&kt_calls[i])) {
			NEG(HC(kt_calls[i].id), KEEL_E_STATE, 0);
			NEG(HC(kt_calls[i].id, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull), KEEL_E_STATE, 0);
		}
}

KEEL_TEST("CTX-002", ctx_boot_legal, "KEEL-CTX-01 KEEL-CTX-06", "", KT_EARLY)
{
	OK(HC(KEEL_CALL_BASE_VERSION));
	OK(HC(KEEL_CALL_BASE_HOST, 0));
	OK(HC(KEEL_CALL_BASE_PROBE, 1));
	OK(HC(KEEL_CALL_BASE_FEATURES, 1));
	OK(HC(KEEL_CALL_BASE_NOP));
	OK(HC(KEEL_CALL_BASE_LIMIT, 0));
	OK_VALUE(HC(KEEL_CALL_BASE_PING, 3), 3);
	OK(HC(KEEL_CALL_CONSOLE_WRITE, 1, '\n'));
	NEG(HC(KEEL_CALL_CRASH, 256), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_BASE_SHUTDOWN, 2, 0), KEEL_E_INVAL, ARG(1));
}

KEEL_TEST("CTX-003", ctx_batch_refused, "KEEL-CTX-02 KEEL-CALL-08 KEEL-MULTI-11", "neg", 0)
{
	u32 n = 0;
	u64 before = kt_digest();

	for (u32 i = 0; i < KEEL_CALL_COUNT; i++)
		if (kt_calls[i].flags & KEEL_CF_NOBATCH && kt_implemented(&kt_calls[i])) {
			/* Arguments that would do something outside a batch; a bad one must not show first. */
			entry[n] =
				(struct keel_multicall){ .id = kt_calls[i].id, .arg = { 0, 0, 0, 0, 1 }, .cookie = i };
			n++;
		}
	CHECK(n >= 5);
	OK_VALUE(HC(KEEL_CALL_MULTICALL, kt_gpa(entry), n, kt_gpa(result), 0), n);
	for (u32 i = 0; i < n; i++) {
		CHECK_EQ(result[i].status, KEEL_STATUS(KEEL_E_CONTEXT, 0));
		CHECK_EQ(result[i].value, 0);
		CHECK_EQ(result[i].id, entry[i].id);
	}
	/* The same with legal arguments: still nothing happens. */
	for (u32 i = 0; i < n; i++)
		entry[i].arg[4] = 0;
	OK_VALUE(HC(KEEL_CALL_MULTICALL, kt_gpa(entry), n, kt_gpa(result), 0), n);
	for (u32 i = 0; i < n; i++)
		CHECK_EQ(result[i].status, KEEL_STATUS(KEEL_E_CONTEXT, 0));
	CHECK_EQ(kt_digest(), before);
}

KEEL_TEST("CTX-004", ctx_batch_order, "KEEL-CALL-08 KEEL-MULTI-11", "neg", 0)
{
	bool smp = HC(KEEL_CALL_BASE_FEATURES, 1).value >> KEEL_F1_SMP & 1;

	entry[0] = (struct keel_multicall){ .id = 0x01ffffff, .arg = { 1, 2, 3, 4, 5 } };
	/* NOBATCH, and where there is no SMP not served either. */
	entry[1] = (struct keel_multicall){ .id = KEEL_CALL_VCPU_STOP, .arg = { 1, 2, 3, 4, 5 } };
	entry[2] = (struct keel_multicall){ .id = KEEL_CALL_BASE_NOP, .arg = { 1 } };
	entry[3] = (struct keel_multicall){ .id = KEEL_CALL_BASE_PING, .arg = { 9, 0, 8 } };
	entry[4] = (struct keel_multicall){ .id = KEEL_CALL_BASE_ACCEPT, .arg = { 0, 0 } };
	OK_VALUE(HC(KEEL_CALL_MULTICALL, kt_gpa(entry), 5, kt_gpa(result), 0), 5);
	CHECK_EQ(result[0].status, KEEL_STATUS(KEEL_E_NOSYS, 0));
	CHECK_EQ(result[1].status, smp ? KEEL_STATUS(KEEL_E_CONTEXT, 0) : KEEL_STATUS(KEEL_E_NOTSUP, 0));
	CHECK_EQ(result[2].status, KEEL_STATUS(KEEL_E_INVAL, 1));
	CHECK_EQ(result[3].status, KEEL_STATUS(KEEL_E_INVAL, 3));
	CHECK_EQ(result[4].status, KEEL_STATUS(KEEL_E_STATE, 0));
}

static u32 handled;

/* Calls of every group that CORE has, as they would be made outside. */
static void make_calls(void)
{
	u32 port = kt_alloc(2);
	u8 if_before = kt_vcpu->if_enabled;

	OK(HC(KEEL_CALL_BASE_NOP));
	OK_VALUE(HC(KEEL_CALL_BASE_PING, 77), 77);
	OK(MAP(KT_VA, KT_SCRATCH_GPA, 8192, KEEL_PROT_R | KEEL_PROT_W));
	CHECK(!kt_probe_write(KT_VA, 7));
	OK(UNMAP(KT_VA, 8192));
	OK(HC(KEEL_CALL_MMU_QUERY, 0, 0x400000));
	entry[0] = (struct keel_multicall){ .id = KEEL_CALL_BASE_PING, .arg = { 5 } };
	OK_VALUE(HC(KEEL_CALL_MULTICALL, kt_gpa(entry), 1, kt_gpa(result), 0), 1);
	CHECK_EQ(result[0].value, 5);
	OK(HC(KEEL_CALL_EVENT_SEND, port));
	CHECK(kt_port_pending(port));
	OK(HC(KEEL_CALL_EVENT_CLOSE, port));
	OK(HC(KEEL_CALL_TIME_READ));
	OK(HC(KEEL_CALL_CONSOLE_WRITE, 1, '\n'));
	ERR_VALUE(HC(KEEL_CALL_CONSOLE_KICK), KEEL_STATUS(KEEL_E_STATE, 0), 0); /* no ring */
	OK_VALUE(HC(KEEL_CALL_MEMORY_POPULATE, KT_SCRATCH_GPA, 4096), 1);
	OK(HC(KEEL_CALL_STATS_READ, KT_SCRATCH_GPA + 8192, 4096, 0));
	OK(HC(KEEL_CALL_HARVEST_START, 0, KT_LINEAR + KT_SCRATCH_GPA, 4096, KEEL_HARVEST_DIRTY));
	OK(HC(KEEL_CALL_HARVEST_STOP, 0, KT_LINEAR + KT_SCRATCH_GPA, 4096));
	OK(HC(KEEL_CALL_TRAP_DELIVER));
	CHECK_EQ(kt_vcpu->if_enabled, if_before);
	handled++;
}

static void in_event(struct keel_frame *f)
{
	(void)f;
	CHECK_EQ(kt_vcpu->if_enabled, 0);
	kt_scan();
	make_calls();
	ERR_VALUE(HC(KEEL_CALL_VCPU_WAIT, 0), KEEL_STATUS(KEEL_E_TIMEDOUT, 0), 0);
	OK(HC(KEEL_CALL_VCPU_YIELD, ~0ull));
}

KEEL_TEST("CTX-005", ctx_upcall, "KEEL-CTX-05 KEEL-CTX-04", "", 0)
{
	u32 port = kt_alloc(0);

	kt_events_on();
	kt_on[KEEL_CLASS_EVENT] = in_event;
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_sti();
	for (int i = 0; i < 10; i++)
		OK(HC(KEEL_CALL_EVENT_SEND, port));
	CHECK_EQ(handled, 10);
	CHECK_EQ(kt_vcpu->if_enabled, 1);
}

static kt_handler *probe_handler;

static void in_trap(struct keel_frame *f)
{
	/* The probe that trapped is resumed by its fixup, which the probe in make_calls() must not take away. */
	extern u64 kt_fixup, kt_fixup_rsp;
	u64 fixup = kt_fixup, rsp = kt_fixup_rsp;

	make_calls();
	OK(HC(KEEL_CALL_VCPU_YIELD, ~0ull));
	kt_fixup = fixup;
	kt_fixup_rsp = rsp;
	probe_handler(f);
}

KEEL_TEST("CTX-006", ctx_trap_handler, "KEEL-CTX-05", "", 0)
{
	probe_handler = kt_on[KEEL_CLASS_TRAP];
	kt_on[KEEL_CLASS_TRAP] = in_trap;
	kt_vcpu->if_enabled = 1;
	for (int i = 0; i < 10; i++)
		CHECK(kt_probe_read(KT_VA + 0x100000));
	CHECK_EQ(handled, 10);
	kt_cli();
}

static u32 dumps;

static void in_dump(struct keel_frame *f)
{
	(void)f;
	dumps++;
	make_calls();
	NEG(HC(KEEL_CALL_VCPU_WAIT, 0), KEEL_E_CONTEXT, 0);
	NEG(HC(KEEL_CALL_VCPU_WAIT, KEEL_TIME_NEVER), KEEL_E_CONTEXT, 0);
	NEG(HC(KEEL_CALL_VCPU_YIELD, ~0ull), KEEL_E_CONTEXT, 0);
	NEG(HC(KEEL_CALL_VCPU_YIELD, 0), KEEL_E_CONTEXT, 0);
	NEG(HC(KEEL_CALL_VCPU_WAIT, 0, 1), KEEL_E_CONTEXT, 0); /* CONTEXT before INVAL */
}

KEEL_TEST("CTX-007", ctx_dump, "KEEL-CTX-03 KEEL-CTX-05 KEEL-CALL-08", "neg", 0)
{
	kt_on[KEEL_CLASS_DUMP] = in_dump;
	kt_set_entry(KEEL_CLASS_DUMP, 0);
	OK(HC(KEEL_CALL_EVENT_DUMP, 0));
	CHECK_EQ(dumps, 1);
	/* Over: legal again. */
	ERR_VALUE(HC(KEEL_CALL_VCPU_WAIT, 0), KEEL_STATUS(KEEL_E_TIMEDOUT, 0), 0);
	OK(HC(KEEL_CALL_VCPU_YIELD, ~0ull));
}

static void nested_trap(struct keel_frame *f)
{
	ERR_VALUE(HC(KEEL_CALL_VCPU_WAIT, 0), KEEL_STATUS(KEEL_E_CONTEXT, 0), 0);
	ERR_VALUE(HC(KEEL_CALL_VCPU_YIELD, ~0ull), KEEL_STATUS(KEEL_E_CONTEXT, 0), 0);
	probe_handler(f);
}

static void dump_then_trap(struct keel_frame *f)
{
	(void)f;
	dumps++;
	CHECK(kt_probe_ud());
	ERR_VALUE(HC(KEEL_CALL_VCPU_YIELD, ~0ull), KEEL_STATUS(KEEL_E_CONTEXT, 0), 0);
}

KEEL_TEST("CTX-008", ctx_dump_nested, "KEEL-CTX-03 KEEL-TRAP-24", "neg", 0)
{
	probe_handler = kt_on[KEEL_CLASS_TRAP];
	kt_on[KEEL_CLASS_TRAP] = nested_trap;
	kt_on[KEEL_CLASS_DUMP] = dump_then_trap;
	kt_set_entry(KEEL_CLASS_DUMP, 0);
	OK(HC(KEEL_CALL_EVENT_DUMP, 0));
	CHECK_EQ(dumps, 1);
	CHECK_EQ(kt_traps, 1);
	OK(HC(KEEL_CALL_VCPU_YIELD, ~0ull));
}

KEEL_TEST("CTX-009", ctx_if_off, "KEEL-CTX-04", "", 0)
{
	u32 port = kt_alloc(0);

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_cli();
	make_calls();
	OK(HC(KEEL_CALL_EVENT_SEND, port));
	OK(HC(KEEL_CALL_VCPU_WAIT, KEEL_TIME_NEVER)); /* pending: at once, and it stays */
	OK(HC(KEEL_CALL_VCPU_YIELD, ~0ull));
	CHECK_EQ(kt_upcalls, 0);
	CHECK_EQ(kt_vcpu->if_enabled, 0);
	kt_sti();
	CHECK_EQ(kt_upcalls, 1);
	make_calls();
	CHECK_EQ(kt_vcpu->if_enabled, 1);
}

KEEL_TEST("CTX-010", ctx_panic, "KEEL-CTX-06 KEEL-CRASH-04 KEEL-CRASH-03", "exit=125 destructive", 0)
{
	/* Everything of the guest's own in disorder: slots in use, no linear map to speak of, odd stack. */
	for (u32 c = 0; c < KEEL_CLASS_COUNT; c++)
		kt_vcpu->slot[c].frame.state = KEEL_SLOT_FULL;
	OK(UNMAP(KT_LINEAR, 1 << 20));
	OK(kt_call_tight(KEEL_CALL_BASE_NOP, 0, 0, 0, kt_stack + 1003));
	OK_VALUE(kt_call_tight(KEEL_CALL_BASE_PING, 4, 0, 0, kt_stack + 1003), 4);
	OK(kt_call_tight(KEEL_CALL_CONSOLE_WRITE, 1, '\n', 0, kt_stack + 1003));
	if (kt_fails)
		kt_finish();
	kt_armed();
	kt_call_tight(KEEL_CALL_CRASH, KEEL_CRASH_PANIC, 0, 0, kt_stack + 1003);
	KT_FAIL("crash returned");
}
