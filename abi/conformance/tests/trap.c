// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* TRAP and NORM: trap and event entry, return, virtual IF, and what hardware would show differently. */
#include "kt.h"

#define RW (KEEL_PROT_R | KEEL_PROT_W)
#define G0 KT_SCRATCH_GPA

static kt_handler *default_trap;
static struct keel_frame seen[8];
static u64 flags_at[8], rsp_at[8];
static u32 nseen;

static void record(struct keel_frame *f)
{
	if (nseen < 8) {
		flags_at[nseen] = kt_entry_flags;
		rsp_at[nseen] = kt_entry_rsp;
		seen[nseen++] = *f;
	}
}

static void record_trap(struct keel_frame *f)
{
	record(f);
	default_trap(f);
}

static void watch_traps(void)
{
	default_trap = kt_on[KEEL_CLASS_TRAP];
	kt_on[KEEL_CLASS_TRAP] = record_trap;
}

KEEL_TEST("TRAP-001", trap_frame, "KEEL-TRAP-03 KEEL-TYPE-03 KEEL-TRAP-07", "", 0)
{
	watch_traps();
	CHECK(kt_probe_read(KT_VA + 0x123));
	REQUIRE(nseen == 1);
	CHECK_EQ(seen[0].state, KEEL_SLOT_FULL);
	CHECK_EQ(seen[0].class_, KEEL_CLASS_TRAP);
	CHECK_EQ(seen[0].vector, KEEL_VEC_PF);
	CHECK_EQ(seen[0].mode, KEEL_MODE_KERNEL);
	CHECK_EQ(seen[0].error, 0);
	CHECK_EQ(seen[0].addr, KT_VA + 0x123);
	CHECK_EQ(seen[0].rdi, KT_VA + 0x123);
	CHECK_EQ(seen[0].rflags & ~0xad7ull & ~0x40000ull & ~0x200000ull,
		 0); /* arithmetic flags, AC and ID may be set */
	CHECK_EQ(seen[0].rflags & 0x200, 0);
	CHECK_EQ(seen[0].rflags & 2, 2);
	CHECK_EQ(seen[0].reserved[0] | seen[0].reserved[1], 0);
	for (int i = 0; i < 8; i++)
		CHECK_EQ(kt_vcpu->slot[0].reserved[i], 0);
	kt_vcpu->if_enabled = 1;
	CHECK(kt_probe_ud());
	CHECK_EQ(kt_vcpu->if_enabled, 1);
	CHECK_EQ(seen[1].rflags & 0x200, 0x200);
	CHECK_EQ(seen[1].addr, 0);
	kt_cli();
}

KEEL_TEST("TRAP-002", trap_entry_state, "KEEL-TRAP-04 KEEL-TRAP-03", "", 0)
{
	static u8 stack[8192] __attribute__((aligned(16)));
	u64 tops[] = { 0, (u64)stack + 8192, (u64)stack + 8191, (u64)stack + 8192 - 9 };

	watch_traps();
	for (int i = 0; i < 4; i++) {
		nseen = 0;
		kt_vcpu->if_enabled = 1;
		kt_set_entry(KEEL_CLASS_TRAP, tops[i]);
		CHECK(kt_probe_ud());
		REQUIRE(nseen == 1);
		CHECK_EQ(rsp_at[0], tops[i] ? tops[i] & ~15ull : (seen[0].rsp - 128) & ~15ull);
		CHECK_EQ(flags_at[0] & 0x44500, 0); /* DF, TF, NT, AC */
	}
	kt_cli();
}

static u8 if_in_handler;

static void look_if(struct keel_frame *f)
{
	if_in_handler = kt_vcpu->if_enabled;
	default_trap(f);
}

KEEL_TEST("TRAP-003", trap_clears_if, "KEEL-TRAP-03 KEEL-TRAP-09 KEEL-TRAP-12", "", 0)
{
	default_trap = kt_on[KEEL_CLASS_TRAP];
	kt_on[KEEL_CLASS_TRAP] = look_if;
	for (u8 on = 0; on < 2; on++) {
		if_in_handler = 9;
		kt_vcpu->if_enabled = on;
		CHECK(kt_probe_ud());
		CHECK_EQ(if_in_handler, 0);
		CHECK_EQ(kt_vcpu->if_enabled, on);
	}
	kt_cli();
}

KEEL_TEST("TRAP-004", trap_registers_return, "KEEL-TRAP-12 KEEL-TRAP-03 KEEL-TRAP-05 KEEL-CALL-03", "timeout=20", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 0);

	/* Registers, flags and red zone across upcalls that come at any time. */
	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_sti();
	for (u64 i = 0; i < 2000 / kt_scale + 50; i++) {
		struct kt_regs in, out;
		u64 *w = (u64 *)&in;
		extern void kt_spin_hook(u32 bit);
		int red;

		for (size_t k = 0; k < sizeof(in) / 8; k++)
			w[k] = kt_random();
		kt_spin_flag = 0;
		kt_event_hook = kt_spin_hook;
		OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + kt_random_below(30000 * kt_slow())));
		red = kt_spin_regs(&in, &out);
		CHECK_EQ(red, 0);
		if (in.rax != out.rax || in.rbx != out.rbx || in.rdx != out.rdx || in.rsi != out.rsi ||
		    in.rdi != out.rdi || in.rbp != out.rbp || in.r8 != out.r8 || in.r9 != out.r9 || in.r10 != out.r10 ||
		    in.r11 != out.r11 || in.r12 != out.r12 || in.r13 != out.r13 || in.r14 != out.r14 ||
		    in.r15 != out.r15)
			KT_FAIL("round %lu: a register changed across an upcall", i);
		CHECK_EQ(out.rflags & 1, 1); /* CF survived */
	}
}

void kt_spin_hook(u32 bit);
void kt_spin_hook(u32 bit)
{
	(void)bit;
	kt_spin_flag = 1;
}

static u8 fp_in[16384] __attribute__((aligned(64))), fp_out[16384] __attribute__((aligned(64)));
static u8 fp_entry[16384] __attribute__((aligned(64)));
static u64 fp_mask;

static u32 fp_port;
static u64 fp_delay;

static void fp_at_entry(struct keel_frame *f)
{
	extern const u8 kt_spin_fp_loop[], kt_spin_fp_end[];

	kt_scan();
	if (f->rip < (u64)kt_spin_fp_loop || f->rip >= (u64)kt_spin_fp_end) {
		/* Too early: nothing is loaded yet. Later each time, so that this gets on where a timer is slow. */
		fp_delay *= 2;
		OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + fp_delay));
		return;
	}
	kt_save_fp(fp_entry, fp_mask);
	kt_spin_flag = 1;
}

static bool fp_same(const u8 *a, const u8 *b)
{
	const struct keel_cpu_info *cpu;
	u32 size;

	cpu = kt_chunk(KEEL_CHUNK_CPU, &size);
	if (memcmp(a, b, 5) || memcmp(a + 24, b + 24, 4) || memcmp(a + 160, b + 160, 256))
		return false;
	for (int r = 0; r < 8; r++)
		if (memcmp(a + 32 + 16 * r, b + 32 + 16 * r, 10))
			return false;
	for (u32 c = 2; c < 8; c++)
		if (fp_mask >> c & 1 && memcmp(a + cpu->xsave_offset[c], b + cpu->xsave_offset[c], cpu->xsave_bytes[c]))
			return false;
	return true;
}

KEEL_TEST("TRAP-005", trap_fp_live, "KEEL-TRAP-06 KEEL-TRAP-16", "timeout=20", 0)
{
	fp_port = kt_bind(KEEL_SOURCE_TIMER, 0);
	fp_mask = kt_fp_mask(sizeof(fp_in));
	kt_events_on();
	kt_on[KEEL_CLASS_EVENT] = fp_at_entry;
	OK(HC(KEEL_CALL_EVENT_UNMASK, fp_port));
	kt_sti();
	for (u64 i = 0; i < 1000 / kt_scale + 50; i++) {
		for (size_t k = 0; k < sizeof(fp_in); k++)
			fp_in[k] = (u8)kt_random();
		memset(fp_in, 0, 32);
		fp_in[0] = 0x7f;
		fp_in[1] = 7;
		fp_in[4] = 0xff;
		fp_in[24] = 0x80;
		fp_in[25] = 0x3f;
		for (int r = 0; r < 8; r++)
			memset(fp_in + 32 + 16 * r + 10, 0, 6);
		memset(fp_in + 416, 0, 160);
		memcpy(fp_in + 512, &fp_mask, 8);
		memset(fp_out, 0, sizeof(fp_out));
		kt_spin_flag = 0;
		fp_delay = 10000 * kt_slow();
		OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + kt_random_below(30000 * kt_slow())));
		kt_spin_fp(fp_in, fp_out, fp_mask);
		if (!fp_same(fp_in, fp_entry))
			KT_FAIL("round %lu: the entry does not see the interrupted extended state", i);
		if (!fp_same(fp_in, fp_out))
			KT_FAIL("round %lu: extended state changed across an upcall", i);
		if (kt_fails)
			break;
	}
	/* And what a handler changes is not undone by trap_return: FP is the guest's. */
	__asm__ volatile("fninit");
}

static void set_mxcsr(struct keel_frame *f)
{
	u32 v = 0x5f80;

	__asm__ volatile("ldmxcsr %0" : : "m"(v));
	default_trap(f);
}

KEEL_TEST("TRAP-006", trap_return_keeps_fp, "KEEL-TRAP-16 KEEL-TRAP-06", "", 0)
{
	u32 v = 0x3f80;

	default_trap = kt_on[KEEL_CLASS_TRAP];
	kt_on[KEEL_CLASS_TRAP] = set_mxcsr;
	__asm__ volatile("ldmxcsr %0" : : "m"(v));
	CHECK(kt_probe_ud());
	__asm__ volatile("stmxcsr %0" : "=m"(v));
	CHECK_EQ(v, 0x5f80);
	v = 0x1f80;
	__asm__ volatile("ldmxcsr %0" : : "m"(v));
}

KEEL_TEST("TRAP-007", trap_set_bad, "KEEL-TRAP-02 KEEL-CALL-09", "neg", 0)
{
	u64 e = (u64)kt_entry_event, s = (u64)kt_stack_top;

	NEG(HC(KEEL_CALL_TRAP_SET, 4, e, 0), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_TRAP_SET, ~0ull, e, 0), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_TRAP_SET, 1, KEEL_VA_MIN - 1, 0), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_TRAP_SET, 1, 8, 0), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_TRAP_SET, 1, KEEL_VA_END, 0), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_TRAP_SET, 1, kt_vcpu->gate, 0), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_TRAP_SET, 1, ~0ull, 0), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_TRAP_SET, 1, e, KEEL_VA_MIN - 1), KEEL_E_RANGE, ARG(3));
	NEG(HC(KEEL_CALL_TRAP_SET, 1, e, 1), KEEL_E_RANGE, ARG(3));
	NEG(HC(KEEL_CALL_TRAP_SET, 1, e, KEEL_VA_END + 1), KEEL_E_RANGE, ARG(3));
	NEG(HC(KEEL_CALL_TRAP_SET, 1, e, (u64)kt_vcpu), KEEL_E_RANGE, ARG(3));
	NEG(HC(KEEL_CALL_TRAP_SET, KEEL_CLASS_DOUBLE, e, 0), KEEL_E_INVAL, ARG(3));
	NEG(HC(KEEL_CALL_TRAP_SET, 9, ~0ull, ~0ull), KEEL_E_RANGE, ARG(1));
	/* A refused one leaves the entry set before. */
	NEG(HC(KEEL_CALL_TRAP_SET, 0, 8, 0), KEEL_E_RANGE, ARG(2));
	CHECK(kt_probe_ud());
	/* The edges are legal. */
	OK_VALUE(HC(KEEL_CALL_TRAP_SET, 2, KEEL_VA_MIN, KEEL_VA_END), 0);
	OK_VALUE(HC(KEEL_CALL_TRAP_SET, 2, KEEL_VA_END - 1, KEEL_VA_MIN), 0);
	OK_VALUE(HC(KEEL_CALL_TRAP_SET, 2, 0, s), 0);
	OK_VALUE(HC(KEEL_CALL_TRAP_SET, 2, 0, 0), 0);
}

KEEL_TEST("TRAP-008", trap_return_bad, "KEEL-TRAP-14 KEEL-TYPE-04 KEEL-CALL-10", "neg", 0)
{
	struct keel_frame *f = &kt_vcpu->slot[KEEL_CLASS_TRAP].frame;
	struct keel_frame good = { .state = KEEL_SLOT_RETURN, .rip = (u64)kt_entry_trap, .rsp = (u64)kt_stack_top };

	NEG(HC(KEEL_CALL_TRAP_RETURN, 4), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_TRAP_RETURN, ~0ull), KEEL_E_RANGE, ARG(1));
	for (u32 c = 0; c < KEEL_CLASS_COUNT; c++)
		NEG(HC(KEEL_CALL_TRAP_RETURN, c), KEEL_E_STATE, ARG(1)); /* FREE */
#define RETURN_BAD(change, code, at)                                       \
	do {                                                               \
		*f = good;                                                 \
		change;                                                    \
		u64 h_ = kt_hash(1, f, sizeof(*f));                        \
		NEG(HC(KEEL_CALL_TRAP_RETURN, KEEL_CLASS_TRAP), code, at); \
		CHECK_EQ(kt_hash(1, f, sizeof(*f)), h_);                   \
	} while (0)
	RETURN_BAD(f->state = KEEL_SLOT_FULL, KEEL_E_STATE, ARG(1));
	RETURN_BAD(f->state = 3, KEEL_E_STATE, ARG(1));
	RETURN_BAD(f->state = 0x10002, KEEL_E_STATE, ARG(1));
	RETURN_BAD(f->mode = KEEL_MODE_USER, KEEL_E_INVAL, FIELD(4));
	RETURN_BAD(f->mode = 2, KEEL_E_INVAL, FIELD(4));
	RETURN_BAD(f->mode = 0x10000, KEEL_E_INVAL, FIELD(4));
	RETURN_BAD(f->rip = 0x800000000000, KEEL_E_RANGE, FIELD(7));
	RETURN_BAD(f->rip = 0xffff800000000000, KEEL_E_RANGE, FIELD(7));
	RETURN_BAD(f->rip = ~0ull, KEEL_E_RANGE, FIELD(7));
	RETURN_BAD(f->reserved[0] = 1, KEEL_E_INVAL, FIELD(25));
	RETURN_BAD(f->reserved[1] = 1ull << 63, KEEL_E_INVAL, FIELD(25));
	/* In this order. */
	RETURN_BAD((f->state = 0, f->mode = 1, f->reserved[0] = 1, f->rip = ~0ull), KEEL_E_STATE, ARG(1));
	RETURN_BAD((f->mode = 1, f->reserved[0] = 1, f->rip = ~0ull), KEEL_E_INVAL, FIELD(4));
	RETURN_BAD((f->reserved[0] = 1, f->rip = ~0ull), KEEL_E_INVAL, FIELD(25));
	f->state = KEEL_SLOT_FREE;
	CHECK(kt_probe_ud()); /* the slot works on */
}

static u64 made_up_hits;

static void landed(struct keel_frame *f)
{
	made_up_hits++;
	default_trap(f);
}

KEEL_TEST("TRAP-009", trap_made_up_context, "KEEL-TRAP-15 KEEL-TRAP-12", "", 0)
{
	extern void kt_resume_frame(void);

	/* Resume a context that was never interrupted, through each class: it runs ud2 under a fixup. */
	default_trap = kt_on[KEEL_CLASS_TRAP];
	kt_on[KEEL_CLASS_TRAP] = landed;
	for (u32 c = 0; c < KEEL_CLASS_COUNT; c++) {
		volatile u32 *back = (volatile u32 *)&kt_spin_save;
		struct keel_frame f = { .class_ = c,
					.vector = 99,
					.error = 99,
					.addr = 99,
					.rflags = 0xffffffffffffffff & ~0x100ull & ~0x400ull & ~0x40000ull };

		*back = 0;
		__asm__ volatile("mov %%rbp, %c1(%0)\n\t"
				 "lea 1f(%%rip), %%rax\n\t"
				 "mov %%rax, %c2(%0)\n\t"
				 "mov %%rsp, %c3(%0)\n\t"
				 "mov %%rbx, %c4(%0)\n\t"
				 "mov %%r12, %c5(%0)\n\t"
				 "mov %%r13, %c6(%0)\n\t"
				 "mov %%r14, %c7(%0)\n\t"
				 "mov %%r15, %c8(%0)\n\t"
				 "sub $256, %%rsp\n\t"
				 "and $-16, %%rsp\n\t"
				 "mov %0, %%rsi\n\t"
				 "mov %%rsp, %%rdi\n\t"
				 "mov $24, %%ecx\n\t"
				 "rep movsq\n\t"
				 "jmp kt_resume_frame\n"
				 "1:"
				 :
				 : "r"(&f), "i"(offsetof(struct keel_frame, rbp)),
				   "i"(offsetof(struct keel_frame, rip)), "i"(offsetof(struct keel_frame, rsp)),
				   "i"(offsetof(struct keel_frame, rbx)), "i"(offsetof(struct keel_frame, r12)),
				   "i"(offsetof(struct keel_frame, r13)), "i"(offsetof(struct keel_frame, r14)),
				   "i"(offsetof(struct keel_frame, r15))
				 : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
		CHECK_EQ(kt_vcpu->slot[c].frame.state, KEEL_SLOT_FREE);
		CHECK_EQ(kt_vcpu->if_enabled, 1); /* from bit 9 */
		kt_cli();
		CHECK(kt_probe_ud());
	}
	CHECK_EQ(made_up_hits, KEEL_CLASS_COUNT);
}

static void take_late(struct keel_frame *f)
{
	/* While this runs its slot is FREE (the stub copied it); make the next trap find it in use. */
	kt_vcpu->slot[KEEL_CLASS_TRAP].frame.state = KEEL_SLOT_FULL;
	CHECK_EQ(f->vector, KEEL_VEC_UD);
	extern u64 kt_fixup, kt_fixup_rsp;
	u64 fixup = kt_fixup, rsp = kt_fixup_rsp;

	CHECK(kt_probe_read(KT_VA + 0x77000));
	CHECK_EQ(nseen, 1);
	kt_vcpu->slot[KEEL_CLASS_TRAP].frame.state = KEEL_SLOT_RETURN;
	CHECK(kt_probe_gp());
	CHECK_EQ(nseen, 2);
	kt_vcpu->slot[KEEL_CLASS_TRAP].frame.state = KEEL_SLOT_FREE;
	kt_fixup = fixup;
	kt_fixup_rsp = rsp;
	default_trap(f);
}

static void on_double_fault(struct keel_frame *f)
{
	extern u64 kt_fixup, kt_fixup_rsp;

	record(f);
	f->rip = kt_fixup;
	f->rsp = kt_fixup_rsp;
}

KEEL_TEST("TRAP-010", trap_double_fault, "KEEL-TRAP-18 KEEL-TRAP-17 KEEL-TRAP-08 KEEL-NORM-01", "", 0)
{
	default_trap = kt_on[KEEL_CLASS_TRAP];
	kt_on[KEEL_CLASS_TRAP] = take_late;
	kt_on[KEEL_CLASS_DOUBLE] = on_double_fault;
	CHECK(kt_probe_ud());
	REQUIRE(nseen == 2);
	CHECK_EQ(seen[0].class_, KEEL_CLASS_DOUBLE);
	CHECK_EQ(seen[0].vector, KEEL_VEC_DF);
	CHECK_EQ(seen[0].error, 0);
	CHECK_EQ(seen[0].addr, KT_VA + 0x77000);
	CHECK_EQ(seen[0].rdi, KT_VA + 0x77000);
	CHECK_EQ(seen[1].vector, KEEL_VEC_DF);
	CHECK_EQ(seen[1].addr, 0);
	CHECK_EQ(seen[1].rip, (u64)kt_probe_gp_insn);
	CHECK_EQ(rsp_at[0] & 15, 0);
}

KEEL_TEST("TRAP-011", trap_triple, "KEEL-TRAP-19", "neg exit=125 destructive", 0)
{
	kt_vcpu->slot[KEEL_CLASS_TRAP].frame.state = KEEL_SLOT_FULL;
	kt_vcpu->slot[KEEL_CLASS_DOUBLE].frame.state = KEEL_SLOT_FULL;
	kt_armed();
	kt_probe_ud();
	KT_FAIL("a trap with both slots in use was survived");
}

KEEL_TEST("TRAP-012", trap_double_unset, "KEEL-TRAP-19", "neg exit=125 destructive", 0)
{
	OK(HC(KEEL_CALL_TRAP_SET, KEEL_CLASS_DOUBLE, 0, 0));
	kt_vcpu->slot[KEEL_CLASS_TRAP].frame.state = KEEL_SLOT_RETURN;
	kt_armed();
	kt_probe_read(KT_VA);
	KT_FAIL("a double fault without an entry was survived");
}

KEEL_TEST("TRAP-013", trap_double_twice, "KEEL-TRAP-19 KEEL-TRAP-18", "neg exit=125 destructive", 0)
{
	/* A refused trap_set leaves the DOUBLE entry; its own slot in use ends it. */
	NEG(HC(KEEL_CALL_TRAP_SET, KEEL_CLASS_DOUBLE, kt_entry_double, 0), KEEL_E_INVAL, ARG(3));
	kt_on[KEEL_CLASS_DOUBLE] = on_double_fault;
	kt_vcpu->slot[KEEL_CLASS_TRAP].frame.state = KEEL_SLOT_FULL;
	CHECK(kt_probe_read(KT_VA));
	CHECK_EQ(nseen, 1);
	kt_vcpu->slot[KEEL_CLASS_DOUBLE].frame.state = KEEL_SLOT_RETURN;
	if (kt_fails)
		kt_finish();
	kt_armed();
	kt_probe_read(KT_VA);
	KT_FAIL("a double fault with its slot in use was survived");
}

KEEL_TEST("TRAP-014", trap_no_entry, "KEEL-TRAP-20", "neg exit=125 destructive", KT_EARLY)
{
	kt_armed();
	kt_probe_ud();
	KT_FAIL("a trap without an entry was survived");
}

KEEL_TEST("TRAP-015", trap_entry_unset, "KEEL-TRAP-20 KEEL-TRAP-01", "neg exit=125 destructive", 0)
{
	CHECK(kt_probe_ud());
	OK(HC(KEEL_CALL_TRAP_SET, KEEL_CLASS_TRAP, 0, 0));
	if (kt_fails)
		kt_finish();
	kt_armed();
	kt_probe_read(KT_VA);
	KT_FAIL("a trap without an entry was survived");
}

KEEL_TEST("TRAP-016", trap_enable_protocol, "KEEL-TRAP-10 KEEL-TRAP-11 KEEL-TRAP-09 KEEL-EVENT-06", "", 0)
{
	u32 port = kt_alloc(0);

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	for (u32 i = 0; i < 100; i++) {
		kt_cli();
		OK(HC(KEEL_CALL_EVENT_SEND, port));
		OK(HC(KEEL_CALL_EVENT_SEND, port));
		CHECK_EQ(kt_upcalls, i);
		OK_VALUE(HC(KEEL_CALL_TRAP_DELIVER), 0); /* IF is 0: nothing */
		CHECK_EQ(kt_upcalls, i);
		kt_vcpu->if_enabled = 1;
		CHECK(kt_pending());
		OK_VALUE(HC(KEEL_CALL_TRAP_DELIVER), 0);
		CHECK_EQ(kt_upcalls, i + 1);
		CHECK_EQ(kt_pending(), 0);
		OK(HC(KEEL_CALL_TRAP_DELIVER)); /* nothing pending: nothing */
		CHECK_EQ(kt_upcalls, i + 1);
	}
	CHECK_EQ(kt_seen[KEEL_PORT_BIT(port)], 100);
}

KEEL_TEST("TRAP-017", trap_event_waits_for_entry, "KEEL-TRAP-21 KEEL-TRAP-01", "", 0)
{
	u32 port = kt_alloc(0);

	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_vcpu->if_enabled = 1;
	OK(HC(KEEL_CALL_EVENT_SEND, port));
	OK(HC(KEEL_CALL_BASE_NOP));
	CHECK(kt_pending());
	CHECK(kt_port_pending(port));
	kt_events_on(); /* trap_set delivers */
	CHECK_EQ(kt_upcalls, 1);
	CHECK_EQ(kt_seen[KEEL_PORT_BIT(port)], 1);
	OK(HC(KEEL_CALL_TRAP_SET, KEEL_CLASS_EVENT, 0, 0));
	OK(HC(KEEL_CALL_EVENT_SEND, port));
	CHECK_EQ(kt_upcalls, 1);
}

KEEL_TEST("TRAP-018", trap_slot_gates_events, "KEEL-TRAP-08 KEEL-TRAP-17 KEEL-CALL-15", "neg", 0)
{
	u32 port = kt_alloc(0);

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_vcpu->if_enabled = 1;
	for (u32 state = KEEL_SLOT_FULL; state <= KEEL_SLOT_RETURN; state++) {
		u64 h;

		kt_vcpu->slot[KEEL_CLASS_EVENT].frame.state = state;
		kt_vcpu->slot[KEEL_CLASS_EVENT].frame.rax = 0x1234;
		h = kt_hash(1, &kt_vcpu->slot[KEEL_CLASS_EVENT], sizeof(kt_vcpu->slot[0]));
		OK(HC(KEEL_CALL_EVENT_SEND, port));
		OK(HC(KEEL_CALL_TRAP_DELIVER));
		CHECK_EQ(kt_upcalls, state - 1);
		CHECK_EQ(kt_hash(1, &kt_vcpu->slot[KEEL_CLASS_EVENT], sizeof(kt_vcpu->slot[0])), h);
		kt_vcpu->slot[KEEL_CLASS_EVENT].frame.state = KEEL_SLOT_FREE;
		OK(HC(KEEL_CALL_TRAP_DELIVER));
		CHECK_EQ(kt_upcalls, state);
	}
}

static u32 resumed_port;

static void send_and_return(struct keel_frame *f)
{
	OK(HC(KEEL_CALL_EVENT_SEND, resumed_port));
	CHECK_EQ(kt_upcalls, 0);
	f->rflags |= KEEL_RFLAGS_IF;
	default_trap(f);
}

static u64 event_frame_rip;

static void first_instruction(struct keel_frame *f)
{
	event_frame_rip = f->rip;
	kt_upcalls++;
	kt_scan();
}

KEEL_TEST("TRAP-019", trap_return_delivers, "KEEL-TRAP-13 KEEL-TRAP-12 KEEL-CTX-04", "", 0)
{
	resumed_port = kt_alloc(0);
	kt_events_on();
	kt_on[KEEL_CLASS_EVENT] = first_instruction;
	OK(HC(KEEL_CALL_EVENT_UNMASK, resumed_port));
	default_trap = kt_on[KEEL_CLASS_TRAP];
	kt_on[KEEL_CLASS_TRAP] = send_and_return;
	kt_cli();
	CHECK(kt_probe_ud());
	CHECK_EQ(kt_upcalls, 1);
	/* The event interrupted the resumed context before its first instruction: the fixup after ud2. */
	CHECK(event_frame_rip > (u64)kt_probe_ud && event_frame_rip < (u64)kt_probe_ud + 64);
	CHECK_EQ(kt_vcpu->if_enabled, 1);
}

static void off_after_return(struct keel_frame *f)
{
	f->rflags &= ~(u64)KEEL_RFLAGS_IF;
	default_trap(f);
}

KEEL_TEST("TRAP-020", trap_return_disables, "KEEL-TRAP-12 KEEL-CTX-04", "", 0)
{
	default_trap = kt_on[KEEL_CLASS_TRAP];
	kt_on[KEEL_CLASS_TRAP] = off_after_return;
	kt_vcpu->if_enabled = 1;
	CHECK(kt_probe_ud());
	CHECK_EQ(kt_vcpu->if_enabled, 0);
}

static u32 depth, deepest;

static void nest_dump(struct keel_frame *f)
{
	(void)f;
	depth++;
	deepest = depth > deepest ? depth : deepest;
	CHECK(kt_probe_ud()); /* a trap inside a dump */
	depth--;
}

static void nest_event(struct keel_frame *f)
{
	(void)f;
	depth++;
	deepest = depth > deepest ? depth : deepest;
	kt_upcalls++;
	kt_scan();
	CHECK(kt_probe_read(KT_VA));	 /* a trap inside an event */
	OK(HC(KEEL_CALL_EVENT_DUMP, 0)); /* a dump inside an event */
	depth--;
}

static void nest_trap(struct keel_frame *f)
{
	static bool once;
	extern u64 kt_fixup, kt_fixup_rsp;
	u64 fixup = kt_fixup, rsp = kt_fixup_rsp;

	depth++;
	deepest = depth > deepest ? depth : deepest;
	if (!once) {
		once = true;
		kt_vcpu->if_enabled = 1; /* an event inside a trap */
		OK(HC(KEEL_CALL_EVENT_SEND, resumed_port));
		CHECK_EQ(kt_upcalls, 1);
		kt_cli();
		CHECK(kt_probe_gp()); /* a trap inside a trap whose slot is free again */
	}
	depth--;
	kt_fixup = fixup;
	kt_fixup_rsp = rsp;
	default_trap(f);
}

KEEL_TEST("TRAP-021", trap_nesting, "KEEL-TRAP-24", "", 0)
{
	resumed_port = kt_alloc(0);
	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, resumed_port));
	default_trap = kt_on[KEEL_CLASS_TRAP];
	kt_on[KEEL_CLASS_TRAP] = nest_trap;
	kt_on[KEEL_CLASS_EVENT] = nest_event;
	kt_on[KEEL_CLASS_DUMP] = nest_dump;
	kt_set_entry(KEEL_CLASS_DUMP, 0);
	CHECK(kt_probe_ud());
	CHECK_EQ(depth, 0);
	CHECK(deepest >= 4); /* trap, event, dump, trap */
}

static u32 dump_runs;

static void count_dump(struct keel_frame *f)
{
	record(f);
	if (!dump_runs++) {
		OK(HC(KEEL_CALL_EVENT_DUMP, 0));
		OK(HC(KEEL_CALL_EVENT_DUMP, 0));
		CHECK_EQ(dump_runs, 1); /* held */
	}
}

KEEL_TEST("TRAP-022", trap_dump, "KEEL-TRAP-09 KEEL-EVENT-16 KEEL-TRAP-23 KEEL-TRAP-03", "", 0)
{
	kt_on[KEEL_CLASS_DUMP] = count_dump;
	kt_set_entry(KEEL_CLASS_DUMP, 0);
	kt_cli();
	OK_VALUE(HC(KEEL_CALL_EVENT_DUMP, 0), 0);
	CHECK_EQ(dump_runs, 2); /* two held dumps are one */
	REQUIRE(nseen == 2);
	CHECK_EQ(seen[0].class_, KEEL_CLASS_DUMP);
	CHECK_EQ(seen[0].vector, 0);
	CHECK_EQ(seen[0].error, 0);
	CHECK_EQ(seen[0].addr, 0);
	CHECK_EQ(seen[0].rflags & 0x200, 0);
	CHECK(seen[0].rip > (u64)kt_call && seen[0].rip < (u64)kt_call + 64);
	OK(HC(KEEL_CALL_EVENT_DUMP, 0));
	CHECK_EQ(dump_runs, 3);
}

KEEL_TEST("TRAP-023", trap_dump_unset, "KEEL-TRAP-22 KEEL-EVENT-16", "neg", 0)
{
	NEG(HC(KEEL_CALL_EVENT_DUMP, 1), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_DUMP, 4096), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_DUMP, ~0ull), KEEL_E_NOENT, ARG(1));
	OK(HC(KEEL_CALL_EVENT_DUMP, 0)); /* does nothing in the guest */
	OK(HC(KEEL_CALL_EVENT_DUMP, 0));
	OK(HC(KEEL_CALL_BASE_PING, 1));
	CHECK_EQ(kt_traps, 0);
	kt_on[KEEL_CLASS_DUMP] = count_dump;
	kt_set_entry(KEEL_CLASS_DUMP, 0); /* too late for those */
	OK(HC(KEEL_CALL_BASE_NOP));
	CHECK_EQ(dump_runs, 0);
}

KEEL_TEST("TRAP-024", trap_stack_untouched, "KEEL-TRAP-05 KEEL-TRAP-04", "", 0)
{
	static u8 stack[4096] __attribute__((aligned(16)));
	extern void kt_quiet_entry(void);

	/* The entry at kt_quiet_entry touches no stack: the bytes below its rsp are as they were. */
	memset(stack, 0xa5, sizeof(stack));
	OK(HC(KEEL_CALL_TRAP_SET, KEEL_CLASS_TRAP, (u64)kt_quiet_entry, (u64)stack + 2048));
	CHECK(kt_probe_ud());
	for (size_t i = 0; i < sizeof(stack); i++)
		if (stack[i] != 0xa5) {
			KT_FAIL("stack byte %ld from its top was written", 2048 - (s64)i);
			break;
		}
}

/* An entry without a stack: resume at the fixup with everything else as it was, straight from the slot. */
__asm__(".text\n"
	"kt_quiet_entry:\n"
	"	mov kt_fixup(%rip), %rax\n"
	"	mov %rax, 0x20(%rdi)\n"
	"	mov kt_fixup_rsp(%rip), %rax\n"
	"	mov %rax, 0x28(%rdi)\n"
	"	movl $2, (%rdi)\n"
	"	lea kt_quiet_stack+1024(%rip), %rsp\n"
	"	mov $0x01005001, %eax\n"
	"	xor %edi, %edi\n"
	"	xor %esi, %esi\n"
	"	xor %edx, %edx\n"
	"	xor %r10d, %r10d\n"
	"	xor %r8d, %r8d\n"
	"	call *%gs:8\n"
	"	ud2\n"
	".bss\n"
	".balign 16\n"
	"kt_quiet_stack: .skip 1024\n"
	".text\n");
