// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* CALL: the gate itself, and what is the same for every call. */
#include "kt.h"

KEEL_TEST("CALL-001", call_gate_endbr, "KEEL-CALL-01", "", KT_EARLY)
{
	static const u8 endbr64[4] = { 0xf3, 0x0f, 0x1e, 0xfa };
	u64 gate;

	__asm__ volatile("mov %%gs:%c1, %0" : "=r"(gate) : "i"(KEEL_VCPU_GATE));
	CHECK_EQ(gate, kt_vcpu->gate);
	CHECK(!memcmp((const void *)gate, endbr64, 4));
}

static void pattern(struct kt_regs *r)
{
	u64 *w = (u64 *)r;

	for (size_t i = 0; i < sizeof(*r) / 8; i++)
		w[i] = kt_random();
	r->rflags = 0x202; /* IF as it shows: without it nothing would interrupt (KEEL-NORM-13) */
}

static void check_preserved(const char *name, const struct kt_regs *a, const struct kt_regs *b)
{
	if (a->rbx != b->rbx || a->rbp != b->rbp || a->rsi != b->rsi || a->rdi != b->rdi || a->r8 != b->r8 ||
	    a->r9 != b->r9 || a->r10 != b->r10 || a->r12 != b->r12 || a->r13 != b->r13 || a->r14 != b->r14 ||
	    a->r15 != b->r15)
		KT_FAIL("%s: a register was not preserved", name);
	if (b->rflags & ~0xad7ull) /* arithmetic flags, bit 1, IF as it shows */
		KT_FAIL("%s: rflags %lx after the call", name, b->rflags);
}

static struct keel_mmu_record records[4] __attribute__((aligned(32)));

/* A call of every kind: local, remote, with memory, failing. */
static void for_each_kind(void (*fn)(const char *, const u64 *))
{
	u32 port = kt_alloc(0);

	records[0] = (struct keel_mmu_record){ .op = KEEL_MMU_MAP,
					       .prot = 3,
					       .va = KT_VA,
					       .gpa = KT_SCRATCH_GPA,
					       .len = 65536,
					       .flags = KEEL_MMU_POPULATE };
	records[1] = (struct keel_mmu_record){ .op = KEEL_MMU_PROTECT, .prot = 1, .va = KT_VA, .len = 65536 };
	records[2] = (struct keel_mmu_record){ .op = KEEL_MMU_UNMAP, .va = KT_VA, .len = 65536 };
	const struct {
		const char *name;
		u64 call[6];
	} kind[] = {
		{ "base_nop", { KEEL_CALL_BASE_NOP } },
		{ "base_ping", { KEEL_CALL_BASE_PING, 0x1234 } },
		{ "mmu_batch", { KEEL_CALL_MMU_BATCH, 0, kt_gpa(records), 3, 0 } },
		{ "mmu_query", { KEEL_CALL_MMU_QUERY, 0, 0x400000 } },
		{ "event_send", { KEEL_CALL_EVENT_SEND, port } },
		{ "event_mask", { KEEL_CALL_EVENT_MASK, port } },
		{ "time_read", { KEEL_CALL_TIME_READ } },
		{ "vcpu_yield", { KEEL_CALL_VCPU_YIELD, ~0ull } },
		{ "vcpu_wait", { KEEL_CALL_VCPU_WAIT, 0 } },
		{ "memory_populate", { KEEL_CALL_MEMORY_POPULATE, KT_SCRATCH_GPA, 65536 } },
		{ "stats_read", { KEEL_CALL_STATS_READ, KT_SCRATCH_GPA, 4096, 0 } },
		{ "harvest_start",
		  { KEEL_CALL_HARVEST_START, 0, KT_LINEAR + KT_SCRATCH_GPA, 65536, KEEL_HARVEST_DIRTY } },
		{ "harvest_stop", { KEEL_CALL_HARVEST_STOP, 0, KT_LINEAR + KT_SCRATCH_GPA, 65536 } },
		{ "trap_deliver", { KEEL_CALL_TRAP_DELIVER } },
		{ "console_write", { KEEL_CALL_CONSOLE_WRITE, 1, '\n' } },
		{ "unknown", { 0x01ffffff, 1, 2, 3, 4, 5 } },
		{ "not served", { KEEL_CALL_SHARE_OFFER, 1, 2, 3, 4, 5 } },
		{ "as_info", { KEEL_CALL_AS_INFO, 0, KEEL_AS_INFO_PAGES } },
		{ "refused user_enter", { KEEL_CALL_USER_ENTER, 1, 2, 3, 4, 5 } },
		{ "refused", { KEEL_CALL_MMU_BATCH, 9, 9, 9, 9, 9 } },
		{ "refused remote", { KEEL_CALL_BASE_SHUTDOWN, 9, 9 } },
	};

	for (size_t i = 0; i < sizeof(kind) / sizeof(kind[0]); i++)
		fn(kind[i].name, kind[i].call);
}

static void one_regs(const char *name, const u64 *call)
{
	for (int i = 0; i < 8; i++) {
		struct kt_regs in, out;

		pattern(&in);
		in.rax = call[0];
		in.rdi = call[1];
		in.rsi = call[2];
		in.rdx = call[3];
		in.r10 = call[4];
		in.r8 = call[5];
		in.rflags = i & 1 ? 0xad7 : 0x202; /* every arithmetic flag set, or none */
		out = in;
		kt_call_regs(&out);
		check_preserved(name, &in, &out);
	}
}

KEEL_TEST("CALL-002", call_registers, "KEEL-CALL-03 KEEL-CALL-02", "", 0)
{
	for_each_kind(one_regs);
}

static u8 fp_in[16384] __attribute__((aligned(64))), fp_out[16384] __attribute__((aligned(64)));
static u64 fp_mask;

static void fp_prepare(void)
{
	fp_mask = kt_fp_mask(sizeof(fp_in));
	for (size_t i = 0; i < sizeof(fp_in); i++)
		fp_in[i] = (u8)kt_random();
	memset(fp_in, 0, 32);
	fp_in[0] = 0x7f; /* FCW 0xf7f: another rounding mode than at start */
	fp_in[1] = 0xf;
	fp_in[4] = 0xff;  /* all x87 registers valid */
	fp_in[24] = 0x80; /* MXCSR 0x7f80 */
	fp_in[25] = 0x7f;
	for (int r = 0; r < 8; r++)
		memset(fp_in + 32 + 16 * r + 10, 0, 6);
	memset(fp_in + 416, 0, 160); /* legacy tail and header */
	memcpy(fp_in + 512, &fp_mask, 8);
}

static void fp_compare(const char *name)
{
	const struct keel_cpu_info *cpu;
	u32 size;

	cpu = kt_chunk(KEEL_CHUNK_CPU, &size);
	if (memcmp(fp_in, fp_out, 5) || memcmp(fp_in + 24, fp_out + 24, 4))
		KT_FAIL("%s: FCW, FSW, FTW or MXCSR changed", name);
	for (int r = 0; r < 8; r++)
		if (memcmp(fp_in + 32 + 16 * r, fp_out + 32 + 16 * r, 10))
			KT_FAIL("%s: ST%d changed", name, r);
	if (memcmp(fp_in + 160, fp_out + 160, 256))
		KT_FAIL("%s: an XMM register changed", name);
	for (u32 c = 2; c < 8; c++)
		if (fp_mask >> c & 1 &&
		    memcmp(fp_in + cpu->xsave_offset[c], fp_out + cpu->xsave_offset[c], cpu->xsave_bytes[c]))
			KT_FAIL("%s: state component %u changed", name, c);
}

static void one_fp(const char *name, const u64 *call)
{
	for (int i = 0; i < 4; i++) {
		memset(fp_out, 0, sizeof(fp_out));
		kt_call_fp(call, fp_in, fp_out, fp_mask);
		fp_compare(name);
	}
}

KEEL_TEST("CALL-003", call_extended_state, "KEEL-CALL-03", "", 0)
{
	fp_prepare();
	for_each_kind(one_fp);
}

KEEL_TEST("CALL-004", call_unknown, "KEEL-CALL-04 KEEL-CALL-08", "neg", 0)
{
	static const u64 id[] = { 0,	      1,	  0x00001000, 0x01000000 - 1, 0x02000000,
				  0x02001000, 0xff000000, 0x81000000, 0x01012000,     0x01fff000,
				  0x01ffffff, 0xffffffff, 0x0100000a, 0x01000fff };

	for (size_t i = 0; i < sizeof(id) / 8; i++) {
		NEG(HC(id[i]), KEEL_E_NOSYS, 0);
		NEG(HC(id[i], 1, 2, 3, 4, 5), KEEL_E_NOSYS, 0); /* before the arguments */
	}
}

static bool known(u64 id)
{
	for (u32 i = 0; i < KEEL_CALL_COUNT; i++)
		if (kt_calls[i].id == id)
			return true;
	return false;
}

KEEL_TEST("CALL-005", call_unknown_functions, "KEEL-CALL-04 KEEL-VER-06", "neg", 0)
{
	u64 before = kt_digest();

	for (u64 ext = 0; ext < KEEL_EXT_COUNT + 2; ext++)
		for (u64 fn = 0; fn < 4096; fn += fn < 80 || fn >= 0xf00 ? 1 : 13) {
			u64 id = KEEL_CALL_ID(ext, fn);

			if (!known(id))
				ERR_VALUE(HC(id), KEEL_STATUS(KEEL_E_NOSYS, 0), 0);
		}
	CHECK_EQ(kt_digest(), before);
}

KEEL_TEST("CALL-006", call_high_bits, "KEEL-CALL-04", "neg", 0)
{
	for (u32 i = 0; i < KEEL_CALL_COUNT; i++)
		for (int b = 32; b < 64; b++)
			ERR_VALUE(HC(kt_calls[i].id | 1ull << b), KEEL_STATUS(KEEL_E_NOSYS, 0), 0);
	NEG(HC(KEEL_CALL_BASE_SHUTDOWN | 1ull << 32), KEEL_E_NOSYS, 0);
	NEG(HC(KEEL_CALL_BASE_NOP | 1ull << 63), KEEL_E_NOSYS, 0);
}

KEEL_TEST("CALL-007", call_unused_arguments, "KEEL-CALL-05 KEEL-CALL-08", "neg", 0)
{
	static const u64 bad[] = { 1, 0x100000000, 1ull << 63, ~0ull };

	for (u32 i = 0; i < KEEL_CALL_COUNT; i++) {
		if (!kt_implemented(&kt_calls[i]) || kt_calls[i].id == KEEL_CALL_BASE_FREEZE ||
		    kt_calls[i].id == KEEL_CALL_BASE_ACCEPT)
			continue;
		for (u32 n = kt_calls[i].nargs; n < 5; n++) {
			u64 a[5] = { 0 };

			a[n] = bad[n % 4];
			NEG(kt_call(kt_calls[i].id, a[0], a[1], a[2], a[3], a[4]), KEEL_E_INVAL, ARG((int)n + 1));
			for (u32 k = n; k < 5; k++) /* the first one counts */
				a[k] = bad[(n + k) % 4];
			ERR_VALUE(kt_call(kt_calls[i].id, a[0], a[1], a[2], a[3], a[4]),
				  KEEL_STATUS(KEEL_E_INVAL, (int)n + 1), 0);
		}
	}
}

KEEL_TEST("CALL-008", call_not_served,
	  "KEEL-CALL-08 KEEL-AS-07 KEEL-USER-01 KEEL-SHARE-01 KEEL-PARTITION-01 KEEL-MIGRATE-01 KEEL-VCPU-09", "neg", 0)
{
	u32 n = 0;

	for (u32 i = 0; i < KEEL_CALL_COUNT; i++) {
		if (kt_implemented(&kt_calls[i]))
			continue;
		n++;
		NEG(HC(kt_calls[i].id), KEEL_E_NOTSUP, 0);
		NEG(HC(kt_calls[i].id, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull), KEEL_E_NOTSUP, 0); /* before the arguments */
	}
	kt_note("%u calls are known and not implemented", n);
}

KEEL_TEST("CALL-009", call_not_served_early, "KEEL-CALL-08", "neg", KT_EARLY)
{
	for (u32 i = 0; i < KEEL_CALL_COUNT; i++)
		if (!kt_implemented(&kt_calls[i])) /* NOTSUP before STATE */
			NEG(HC(kt_calls[i].id, 1, 2, 3, 4, 5), KEEL_E_NOTSUP, 0);
}

/*
 * The stack: 72 bytes below rsp and not one more, at every alignment. The
 * page below is not mapped, so a host that uses more than it may either
 * faults or writes over the canary, depending on where rsp is.
 */
KEEL_TEST("CALL-010", call_stack_use, "KEEL-CALL-11 KEEL-CALL-12", "", 0)
{
	u8 *page = (u8 *)KT_VA;

	OK(MAP(KT_VA, KT_SCRATCH_GPA, 4096, KEEL_PROT_R | KEEL_PROT_W));
	for (int align = 0; align < 16; align++) {
		u8 *rsp = page + 2048 + align;

		memset(page, 0xa5, 4096);
		OK(kt_call_tight(KEEL_CALL_BASE_NOP, 0, 0, 0, rsp));
		OK_VALUE(kt_call_tight(KEEL_CALL_BASE_PING, 5, 0, 0, rsp), 5);
		OK(kt_call_tight(KEEL_CALL_MMU_QUERY, 0, KT_VA, 0, rsp));
		ERR_VALUE(kt_call_tight(KEEL_CALL_BASE_HOST, 9, 0, 0, rsp), KEEL_STATUS(KEEL_E_RANGE, 1), 0);
		for (u8 *p = page; p < rsp - 72; p++)
			if (*p != 0xa5) {
				KT_FAIL("%ld bytes below rsp were written", (s64)(rsp - p));
				break;
			}
		for (u8 *p = rsp; p < page + 4096; p++)
			if (*p != 0xa5) {
				KT_FAIL("byte %ld above rsp was written", (s64)(p - rsp));
				break;
			}
	}
	OK(kt_call_tight(KEEL_CALL_BASE_NOP, 0, 0, 0, page + 72)); /* nothing mapped below these */
	OK(kt_call_tight(KEEL_CALL_BASE_PING, 0, 0, 0, page + 72));
	ERR_VALUE(kt_call_tight(KEEL_CALL_VCPU_WAIT, 0, 0, 0, page + 72), KEEL_STATUS(KEEL_E_TIMEDOUT, 0), 0);
}

KEEL_TEST("CALL-011", call_gate_read_only, "KEEL-CALL-01 KEEL-INIT-07", "neg", 0)
{
	u8 first = *(volatile u8 *)kt_vcpu->gate;

	CHECK(kt_probe_write(kt_vcpu->gate, 0xc3));
	CHECK_EQ(*(volatile u8 *)kt_vcpu->gate, first);
	OK(HC(KEEL_CALL_BASE_NOP));
}

KEEL_TEST("CALL-012", call_wide_arguments, "KEEL-CALL-06 KEEL-CALL-21 KEEL-EVENT-04", "neg", 0)
{
	u32 port = kt_alloc(1);
	u64 high = 0x100000000;

	NEG(HC(KEEL_CALL_EVENT_ALLOC, high), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_BIND, high, 0), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_BIND, 0, high), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_EVENT_SEND, port | high), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_MASK, port | high), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_UNMASK, port | high), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_CLOSE, port | high), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_DUMP, high), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_BATCH, KT_SCRATCH_GPA, high, 0), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_MULTICALL, KT_SCRATCH_GPA, high, KT_SCRATCH_GPA, 0), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_MMU_BATCH, 0, KT_SCRATCH_GPA, high, 0), KEEL_E_RANGE, ARG(3));
	NEG(HC(KEEL_CALL_MMU_BATCH, high, KT_SCRATCH_GPA, 1, 0), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_TRAP_SET, high, 0x400000, 0), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_TRAP_RETURN, high), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_VCPU_YIELD, high), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_CONSOLE_WRITE, high | 1, 'x'), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_CRASH, high, 0, 0), KEEL_E_RANGE, ARG(1));
	OK(HC(KEEL_CALL_EVENT_CLOSE, port));
}

/* Is a status one KEEL-CALL-07 allows? */
static bool well_formed(s64 status)
{
	u64 m = -(u64)status;
	u32 at = m >> 8 & 0xff;

	return !status || (status < 0 && m < 1ull << 24 && (m & 0xff) && (m & 0xff) < KEEL_E_COUNT &&
			   (at <= 5 || (at > 0x10 && at < 0x30)) && (m >> 16) <= 64);
}

static u64 odd_number(void)
{
	switch (kt_random_below(8)) {
	case 0:
		return kt_random();
	case 1:
		return kt_random_below(4);
	case 2:
		return 1ull << kt_random_below(64);
	case 3:
		return -kt_random_below(4096);
	case 4:
		return KT_SCRATCH_GPA + kt_random_below(KT_SCRATCH_SIZE);
	case 5:
		return KT_SCRATCH_GPA + (kt_random_below(KT_SCRATCH_SIZE) & ~7ull);
	case 6:
		return KT_VA + (kt_random_below(1 << 20) & ~0xfffull);
	default:
		return kt_ram_size() - kt_random_below(64);
	}
}

KEEL_TEST("CALL-013", call_random_arguments, "KEEL-CALL-07 KEEL-CALL-16 KEEL-CALL-02 KEEL-TYPE-06", "neg timeout=30", 0)
{
	u64 rounds = 60000 / kt_scale + 500;

	kt_note("seed %lu", kt_seed);
	for (u64 i = 0; i < rounds; i++) {
		const struct kt_call_info *c = &kt_calls[kt_random_below(KEEL_CALL_COUNT)];
		u64 a[5] = { 0 }, traps = kt_traps;
		struct kt_ret r;

		switch (c->id) {
		case KEEL_CALL_BASE_SHUTDOWN: /* would end it */
		case KEEL_CALL_CRASH:
		case KEEL_CALL_VCPU_WAIT:      /* would sleep */
		case KEEL_CALL_VCPU_STOP:      /* would stop */
		case KEEL_CALL_TRAP_SET:       /* would replace the runtime's */
		case KEEL_CALL_MEMORY_RELEASE: /* would hit the image */
		case KEEL_CALL_EVENT_DUMP:
		case KEEL_CALL_CONSOLE_WRITE:
		case KEEL_CALL_CONSOLE_SETUP:
			continue;
		}
		for (u32 k = 0; k < c->nargs; k++)
			a[k] = odd_number();
		r = kt_call(c->id, a[0], a[1], a[2], a[3], a[4]);
		if (!well_formed(r.status))
			KT_FAIL("%s(%lx, %lx, %lx, %lx, %lx): status %lx", c->name, a[0], a[1], a[2], a[3], a[4],
				r.status);
		if (kt_traps != traps)
			KT_FAIL("%s(%lx, %lx, %lx, %lx, %lx) trapped", c->name, a[0], a[1], a[2], a[3], a[4]);
	}
	OK(HC(KEEL_CALL_BASE_NOP));
}

/* Every call that takes a GPA: unmapped in AS 0, read-only, beyond RAM, wrapping. */
KEEL_TEST("CALL-014", call_gpa_not_va, "KEEL-TYPE-07 KEEL-CALL-16 KEEL-TYPE-02", "", 0)
{
	u64 gpa = KT_SCRATCH_GPA;

	memset(kt_ram(gpa), 0, 4096);
	((struct keel_mmu_record *)kt_ram(gpa))[0] =
		(struct keel_mmu_record){ .op = KEEL_MMU_UNMAP, .va = KT_LINEAR + gpa, .len = 4096 };
	OK_VALUE(HC(KEEL_CALL_MMU_BATCH, 0, gpa, 1, 0), 1);
	CHECK_EQ(kt_query(KT_LINEAR + gpa), 0);
	/* The page is mapped nowhere now; the host reads the record there all the same. */
	OK_VALUE(HC(KEEL_CALL_MMU_BATCH, 0, gpa, 1, 0), 1);
	OK(HC(KEEL_CALL_STATS_READ, gpa, 64, 0));
	OK(MAP(KT_LINEAR + gpa, gpa, 4096, KEEL_PROT_R));
	OK(HC(KEEL_CALL_STATS_READ, gpa, 64, 1)); /* read-only in AS 0 */
	CHECK_EQ(*(u32 *)kt_ram(gpa), kt_calls[1].id);
	CHECK_EQ(kt_traps, 0);
}

KEEL_TEST("CALL-015", call_gpa_extent, "KEEL-TYPE-06 KEEL-CALL-16 KEEL-CALL-10", "neg", 0)
{
	const struct keel_abi_pages *p;
	u64 ram = kt_ram_size();
	u32 size;

	p = kt_chunk(KEEL_CHUNK_ABI, &size);
	REQUIRE(p);
	const u64 bad[] = { ram,	  ram - 24,	ram - 8,   -32ull,	 -8ull,	     1ull << 63,
			    p->start_gpa, p->clock_gpa, KT_LINEAR, (u64)kt_vcpu, 1ull << 47, 1ull << 52 };

	for (size_t i = 0; i < sizeof(bad) / 8; i++) {
		NEG(HC(KEEL_CALL_MMU_BATCH, 0, bad[i], 1, 0), KEEL_E_FAULT, ARG(2));
		NEG(HC(KEEL_CALL_EVENT_BATCH, bad[i], 4, 0), KEEL_E_FAULT, ARG(1));
		NEG(HC(KEEL_CALL_MULTICALL, bad[i], 1, KT_SCRATCH_GPA, 0), KEEL_E_FAULT, ARG(1));
		NEG(HC(KEEL_CALL_MULTICALL, KT_SCRATCH_GPA, 1, bad[i], 0), KEEL_E_FAULT, ARG(3));
		NEG(HC(KEEL_CALL_STATS_READ, bad[i], 4096, 0), KEEL_E_FAULT, ARG(1));
		NEG(HC(KEEL_CALL_CRASH, 0, bad[i], 64), KEEL_E_FAULT, ARG(2));
	}
}

KEEL_TEST("CALL-016", call_value_zero_on_error, "KEEL-CALL-02 KEEL-CALL-10", "neg", 0)
{
	for (u32 i = 0; i < KEEL_CALL_COUNT; i++) {
		struct kt_regs r;

		if (kt_calls[i].nargs == 5 || kt_calls[i].id == KEEL_CALL_BASE_FREEZE)
			continue;
		pattern(&r);
		r.rax = kt_calls[i].id;
		r.rdi = r.rsi = r.rdx = r.r10 = 0x7777;
		r.r8 = 1;
		kt_call_regs(&r);
		CHECK((s64)r.rax < 0);
		CHECK_EQ(r.rdx, 0);
	}
}

KEEL_TEST("CALL-017", call_event_at_return, "KEEL-CALL-15 KEEL-CALL-14 KEEL-TRAP-03", "", 0)
{
	u32 port = kt_alloc(0);
	struct kt_ret r;

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_sti();
	for (u32 i = 1; i <= 100; i++) {
		r = HC(KEEL_CALL_EVENT_SEND, port);
		CHECK_EQ(kt_seen[KEEL_PORT_BIT(port)], i); /* before the next instruction */
		CHECK_EQ(r.status, 0);
		CHECK_EQ(r.value, 0);
		CHECK_EQ(kt_upcalls, i);
	}
	CHECK_EQ(kt_vcpu->if_enabled, 1);
}

static u64 event_rip, event_rax, event_rdx;

static void look_at_frame(struct keel_frame *f)
{
	event_rip = f->rip;
	event_rax = f->rax;
	event_rdx = f->rdx;
	kt_scan();
}

KEEL_TEST("CALL-018", call_frame_after_call, "KEEL-CALL-14 KEEL-INIT-07", "", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 0);

	kt_events_on();
	kt_on[KEEL_CLASS_EVENT] = look_at_frame;
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_sti();
	/* The timer fires while calls are being made: the frame never shows the host's side of the gate. */
	for (u32 i = 0; i < 4000 / kt_scale + 100; i++) {
		u32 seen = kt_seen[KEEL_PORT_BIT(port)];

		event_rip = 0;
		HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + 2000 + kt_random_below(20000 * kt_slow()));
		while (kt_seen[KEEL_PORT_BIT(port)] == seen) {
			HC(KEEL_CALL_BASE_NOP);
			HC(KEEL_CALL_MMU_QUERY, 0, 0x400000);
		}
		CHECK(event_rip >= 0x400000 && event_rip < (u64)kt_image_end);
	}
	/* Sent from within a call: rip is right after the call, with its results. */
	HC(KEEL_CALL_EVENT_SEND, port);
	CHECK(event_rip > (u64)kt_call && event_rip < (u64)kt_call + 64);
	CHECK_EQ(event_rax, 0);
	CHECK_EQ(event_rdx, 0);
}

static u64 interrupted_call[6];

/* Arm the timer so that it sweeps over the calls of the round. */
static void sweep(u64 round)
{
	HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + (round % 500) * 100 * kt_slow());
}

/* So many rounds, and on a slow machine until enough of them were interrupted. */
static bool sweep_on(u64 round)
{
	return round < 3000 / kt_scale + 200 || (kt_upcalls <= 50 && round < 60000);
}

static void prepare_sweep(void)
{
	u32 timer = kt_bind(KEEL_SOURCE_TIMER, 0);

	for (u32 i = 0; i < 4; i++)
		records[i] = (struct keel_mmu_record){ .op = i & 1 ? KEEL_MMU_UNMAP : KEEL_MMU_MAP,
						       .prot = i & 1 ? 0 : 3,
						       .va = KT_VA + i / 2 * 65536,
						       .gpa = i & 1 ? 0 : KT_SCRATCH_GPA,
						       .len = 65536 };
	interrupted_call[0] = KEEL_CALL_MMU_BATCH;
	interrupted_call[2] = kt_gpa(records);
	interrupted_call[3] = 4;
	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, timer));
	kt_sti();
}

KEEL_TEST("CALL-019", call_registers_interrupted, "KEEL-CALL-03 KEEL-CALL-14 KEEL-TRAP-12", "timeout=30", 0)
{
	prepare_sweep();
	for (u64 i = 0; sweep_on(i); i++) {
		struct kt_regs in, out;

		pattern(&in);
		in.rax = interrupted_call[0];
		in.rdi = interrupted_call[1];
		in.rsi = interrupted_call[2];
		in.rdx = interrupted_call[3];
		in.r10 = in.r8 = 0;
		out = in;
		sweep(i);
		kt_call_regs(&out);
		check_preserved("mmu_batch", &in, &out);
		CHECK_EQ(out.rax, 0);
		CHECK_EQ(out.rdx, 4);
	}
	CHECK(kt_upcalls > 50);
}

KEEL_TEST("CALL-020", call_fp_interrupted, "KEEL-CALL-03 KEEL-TRAP-06 KEEL-TRAP-16", "timeout=30", 0)
{
	prepare_sweep();
	fp_prepare();
	for (u64 i = 0; sweep_on(i) && !kt_fails; i++) {
		memset(fp_out, 0, sizeof(fp_out));
		sweep(i);
		OK_VALUE(kt_call_fp(interrupted_call, fp_in, fp_out, fp_mask), 4);
		fp_compare("mmu_batch");
	}
	CHECK(kt_upcalls > 50);
}
