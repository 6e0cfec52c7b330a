// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* VCPU with several of them, and everything else made on several at once. What another vCPU finds wrong kc_report() says. */
#include "kt_user.h"

#define MS KEEL_U64(1000000)
#define G0 (KT_SCRATCH_GPA + (2 << 20))
#define UVA KEEL_U64(0x123456789000)
static const s64 again = KEEL_STATUS(KEEL_E_AGAIN, 0);

static struct ku ctx[KC_MAX];

/* Functions for other vCPUs. */
static void nothing(struct kc *c)
{
	c->count++;
}

static void spin(struct kc *c)
{
	for (c->go = 1;; c->count++)
		kc_pause();
}

static void spin_until_told(struct kc *c)
{
	__atomic_store_n(&c->go, 1, __ATOMIC_RELEASE);
	for (u64 i = 0; !__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE); i++)
		if (i % 1024 == 1023)
			kc_yield();
}

static void sleep_on(struct kc *c)
{
	c->go = 1;
	for (;;) {
		HC(KEEL_CALL_VCPU_WAIT, KEEL_TIME_NEVER);
		kc_scan(c);
		c->count++;
	}
}

static void start(u32 id, void (*fn)(struct kc *c), u64 arg)
{
	kc[id].go = kc[id].at = kc[id].stop = kc[id].count = 0;
	OK_VALUE(kc_start(id, fn, arg), 0);
}

/* All told to stop, and waited for. */
static void join(u32 n)
{
	for (u32 i = 1; i < n; i++)
		__atomic_store_n(&kc[i].stop, 1, __ATOMIC_RELEASE);
	for (u32 i = 1; i < n; i++)
		if (!kc_stopped(i, 10000))
			KT_FAIL("vCPU %u does not come to an end", i);
	kc_report();
}

KEEL_TEST("SMP-001", smp_pages, "KEEL-VCPU-10 KEEL-INIT-04 KEEL-VCPU-21 KEEL-TYPE-03", "profile=SMP vcpus=4 ext=66", 0)
{
	kc_needed(4);
	CHECK_EQ(HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_VCPUS).value, 4);
	OK_VALUE(HC(KEEL_CALL_VCPU_INFO, 0, KEEL_VCPU_INFO_STATE), KEEL_VCPU_RUNNING);
	CHECK_EQ((u64)kc_page(0), (u64)kt_vcpu);
	for (u32 i = 1; i < 4; i++) {
		const volatile u64 *w = (const volatile u64 *)kc_page(i);
		const struct keel_vcpu *p = kc_page(i);

		OK_VALUE(HC(KEEL_CALL_VCPU_INFO, i, KEEL_VCPU_INFO_STATE), KEEL_VCPU_STOPPED);
		CHECK_EQ(p->self, (u64)p);
		CHECK_EQ(p->gate, kt_vcpu->gate);
		CHECK_EQ(p->start, kt_vcpu->start);
		CHECK_EQ(p->id, i);
		for (u32 off = 0x1c; off < KEEL_VCPU_EVENT_MASK; off += off & 4 ? 4 : 8)
			if (off & 4 ? ((const volatile u32 *)w)[off / 4] : w[off / 8])
				KT_FAIL("vCPU %u page offset %x is not zero", i, off);
		for (u32 k = 0; k < 64; k++)
			CHECK_EQ(p->event_mask[k], ~0ull);
		for (u32 off = 0xc00; off < 0x1000; off += 8)
			CHECK_EQ(w[off / 8], 0);
	}
}

static void record(struct kc *c)
{
	const struct keel_cpu_info *cpu;
	static u8 area[KU_XSAVE_MAX] __attribute__((aligned(64)));
	u64 mask, fs = 0;
	u32 n;

	cpu = kt_chunk(KEEL_CHUNK_CPU, &n);
	mask = kt_fp_mask(KU_XSAVE_MAX);
	kt_save_fp(area, mask);
	if (mask)
		ku_fp_normal(area, mask);
	for (u32 k = 2; k < 8; k++)
		for (u32 i = 0; mask >> k & 1 && i < cpu->xsave_bytes[k]; i++)
			KC_EQ(c, area[cpu->xsave_offset[k] + i], 0);
	if (cpu->cpuid[2] & 1)
		__asm__ volatile("rdfsbase %0" : "=r"(fs));
	KC_EQ(c, fs, 0);
	c->count++;
}

static void leave_traces(struct kc *c)
{
	static u8 area[KU_XSAVE_MAX] __attribute__((aligned(64)));
	const struct keel_cpu_info *cpu;
	u64 mask = kt_fp_mask(KU_XSAVE_MAX);
	u32 n;

	cpu = kt_chunk(KEEL_CHUNK_CPU, &n);
	ku_fp_fill(area, mask, 5);
	if (mask)
		__asm__ volatile("xrstor64 (%0)" : : "r"(area), "a"((u32)mask), "d"(mask >> 32) : "memory");
	else
		__asm__ volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
	if (cpu->cpuid[2] & 1)
		__asm__ volatile("wrfsbase %0" : : "r"(0x1234567000));
	c->page->if_enabled = 1;
	for (u32 k = 0; k < KEEL_CLASS_COUNT; k++)
		c->page->slot[k].frame.state = KEEL_SLOT_FULL;
	c->count++;
}

KEEL_TEST("SMP-002", smp_start_state, "KEEL-VCPU-11 KEEL-INIT-01 KEEL-INIT-02 KEEL-INIT-03",
	  "profile=SMP vcpus=4 ext=66", 0)
{
	kc_needed(4);
	/* The first time, and again after a run that left traces in everything there is. */
	for (u32 round = 0; round < 40; round++) {
		u32 i = 1 + round % 3;
		struct kc *c = &kc[i];
		const u64 *r = (const u64 *)&c->regs;

		memset(&c->regs, 0xff, sizeof(c->regs));
		start(i, record, 0);
		if (!kc_stopped(i, 5000)) {
			KT_FAIL("vCPU %u does not stop", i);
			return;
		}
		CHECK_EQ(c->count, 1);
		for (u32 k = 0; k < 15; k++)
			CHECK_EQ(r[k], k == 5 ? (u64)c : 0); /* rdi is the opaque word */
		CHECK_EQ(c->rsp, 0);
		CHECK_EQ(c->regs.rflags & ~0x200ull, 2);
		CHECK_EQ(c->self, (u64)c->page);
		CHECK_EQ(c->if_enabled, 0);
		CHECK_EQ(c->fx[0] | c->fx[1] << 8, 0x37f);
		CHECK_EQ(c->fx[4], 0);
		CHECK_EQ(c->fx[24] | c->fx[25] << 8, 0x1f80);
		for (u32 k = 160; k < 416; k++)
			CHECK_EQ(c->fx[k], 0);
		for (u32 k = 0; k < KEEL_CLASS_COUNT; k++)
			CHECK_EQ(c->page->slot[k].frame.state, KEEL_SLOT_FREE);
		kc_report();
		start(i, leave_traces, 0);
		CHECK(kc_stopped(i, 5000));
		if (kt_fails)
			return;
	}
}

static u64 states(u32 n)
{
	u64 h = kt_digest();

	for (u32 i = 0; i < n; i++) {
		u64 s = kc_state(i);

		h = kt_hash(h, &s, sizeof(s));
		h = kt_hash(h, kc_page(i)->event_pending, 512);
		h = kt_hash(h, kc_page(i)->event_mask, 512);
		h = kt_hash(h, &kc_page(i)->pending, 8);
	}
	return h;
}

static void refused(int line, struct kt_ret r, s64 status, u64 before)
{
	kt_check_ret("smp.c", line, "the call", r, status, 0, false);
	if (states(4) != before)
		kt_fail("smp.c", line, "a refused call changed something");
}
#define REFUSED_(call, status)                              \
	do {                                                \
		u64 before_ = states(4);                    \
		refused(__LINE__, (call), status, before_); \
	} while (0)
#define REFUSED(call, code, at) REFUSED_(call, KEEL_STATUS(code, at))

KEEL_TEST("SMP-003", smp_start_bad, "KEEL-VCPU-12 KEEL-CALL-06 KEEL-CALL-09", "neg profile=SMP vcpus=4 ext=66", 0)
{
	static const u64 none[] = { 4, 5, 15, 16, 4095, 4096, 0xffffffff, 0x100000001, ~0ull, 1ull << 63 };
	static const u64 entry[] = {
		0, KEEL_VA_MIN - 1, KEEL_VA_END, 0x7f0100000000, 0x800000000000, ~0ull, 1ull << 63
	};

	kc_needed(4);
	for (size_t i = 0; i < sizeof(none) / 8; i++) {
		REFUSED(HC(KEEL_CALL_VCPU_START, none[i], 0x400000, 0), KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_VCPU_STOP, none[i]), KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_VCPU_INFO, none[i], 0), KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_VCPU_YIELD, none[i] == ~0ull ? 4 : none[i]), KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_EVENT_DUMP, none[i]), KEEL_E_NOENT, ARG(1));
	}
	for (size_t i = 0; i < sizeof(entry) / 8; i++)
		REFUSED(HC(KEEL_CALL_VCPU_START, 1, entry[i], 0), KEEL_E_RANGE, ARG(2));
	REFUSED(HC(KEEL_CALL_VCPU_START, 0, 0x400000, 0), KEEL_E_STATE, ARG(1)); /* runs */
	for (u64 what = KEEL_VCPU_INFO_COUNT; what; what = what << 4)		 /* no truncation */
		REFUSED(HC(KEEL_CALL_VCPU_INFO, 1, what), KEEL_E_RANGE, ARG(2));
	REFUSED(HC(KEEL_CALL_VCPU_INFO, 1, 0x100000000), KEEL_E_RANGE, ARG(2));
	REFUSED(HC(KEEL_CALL_VCPU_INFO, 4, KEEL_VCPU_INFO_COUNT), KEEL_E_RANGE, ARG(2)); /* form before what it names */
	start(1, sleep_on, 0);
	CHECK(kc_until(&kc[1].go, 1, 5000));
	for (int i = 0; i < 20; i++)
		ERR_VALUE(HC(KEEL_CALL_VCPU_START, 1, 0x400000, 0), KEEL_STATUS(KEEL_E_STATE, 1), 0);
	OK_VALUE(HC(KEEL_CALL_VCPU_INFO, 1, 0), KEEL_VCPU_RUNNING); /* also while it waits */
	kc_stop(1);
}

static volatile u64 shared[8];

static void read_shared(struct kc *c)
{
	KC_EQ(c, shared[0], c->arg);
	KC_EQ(c, shared[7], ~c->arg);
	shared[1] = c->arg * 3;
	c->count++;
}

KEEL_TEST("SMP-004", smp_start_stop_storm, "KEEL-VCPU-11 KEEL-VCPU-13 KEEL-VCPU-14 KEEL-VCPU-15",
	  "profile=SMP vcpus=4 ext=66 timeout=60", 0)
{
	u64 rounds = 1000 / kt_scale + 20;

	kc_needed(4);
	for (u64 i = 1; i <= rounds && !kt_fails; i++) {
		u32 id = 1 + (u32)(i % 3);

		shared[0] = i;
		shared[7] = ~i;
		start(id, read_shared, i);
		/* From vcpu_start on it is running, until it is found stopped. */
		if (!kc_stopped(id, 5000)) {
			KT_FAIL("round %lu: vCPU %u is still running", i, id);
			return;
		}
		CHECK_EQ(kc[id].count, 1);
		CHECK_EQ(shared[1], i * 3); /* what it wrote is seen */
		kc_report();
		if (i % 7 == 0)
			OK_VALUE(HC(KEEL_CALL_VCPU_STOP, id), 0); /* stopped already */
	}
}

USER_CODE(smp_endless, "1:	inc %rbx\n	jmp 1b\n");
static u64 space;

static void user_endless(struct kc *c)
{
	ku_context(&ctx[c->id], KU_CODE);
	c->go = 1;
	for (;;) {
		struct kt_ret r = ku_enter(space, &ctx[c->id]);

		if (r.status || r.value != KEEL_USER_EVENT)
			KC_EQ(c, r.status ? (u64)r.status : r.value, KEEL_USER_EVENT);
		c->count++;
	}
}

static void calls(struct kc *c)
{
	for (c->go = 1;; c->count++) {
		HC(KEEL_CALL_BASE_PING, c->count);
		HC(KEEL_CALL_BASE_NOP);
		HC(KEEL_CALL_MMU_QUERY, 0, KT_LINEAR);
	}
}

static void traps(struct kc *c)
{
	u64 v;

	for (c->go = 1;; c->count++)
		kc_read(c, KT_VA + 0x40000000 + c->id * 4096, &v);
}

KEEL_TEST("SMP-005", smp_stop_anywhere, "KEEL-VCPU-14 KEEL-VCPU-15 KEEL-VCPU-16",
	  "profile=SMP vcpus=4 ext=66 timeout=60", 0)
{
	static void (*const what[])(struct kc *) = { spin, sleep_on, calls, traps, user_endless };
	u64 rounds = 300 / kt_scale + 20;
	bool user = (HC(KEEL_CALL_BASE_PROBE, KEEL_EXT_USER).value & 7) == 7;

	kc_needed(4);
	if (user)
		space = ku_make(KU_GPA, KU(smp_endless));
	for (u64 i = 0; i < rounds && !kt_fails; i++) {
		u32 id = 1 + (u32)(i % 3);
		void (*fn)(struct kc *) = what[i % (user ? 5 : 4)];
		u64 tries = 0, seen;
		struct kt_ret r;

		start(id, fn, 0);
		if (kt_random_below(4)) {
			CHECK(kc_until(&kc[id].go, 1, 5000));
			kt_spin_ns(kt_random_below(300000));
		}
		do {
			r = HC(KEEL_CALL_VCPU_STOP, id);
			if (r.status == again)
				kc_yield();
		} while (r.status == again && ++tries < 2000000);
		OK_VALUE(r, 0);
		CHECK_EQ(kc_state(id), KEEL_VCPU_STOPPED);
		seen = kc[id].count;
		kt_spin_ns(20000);
		CHECK_EQ(kc[id].count, seen); /* not one instruction more */
		kc_report();
	}
	if (user)
		OK_VALUE(HC(KEEL_CALL_AS_INFO, space, KEEL_AS_INFO_RUNNING), 0);
}

static void alloc_ports(struct kc *c)
{
	c->at = HC(KEEL_CALL_EVENT_ALLOC, 1).value;
	c->count = HC(KEEL_CALL_EVENT_ALLOC, 1).value;
	HC(KEEL_CALL_EVENT_UNMASK, c->at);
	c->go = 1;
}

static void take_events(struct kc *c)
{
	kc_sti(c);
	c->go = c->seen[KEEL_PORT_BIT(c->arg)];
}

KEEL_TEST("SMP-006", smp_ports_stay, "KEEL-VCPU-16 KEEL-VCPU-22", "profile=SMP vcpus=4 ext=66", 0)
{
	u32 a, b, w;
	struct keel_vcpu *p = kc_page(1);

	kc_needed(4);
	start(1, alloc_ports, 0);
	CHECK(kc_stopped(1, 5000));
	a = (u32)kc[1].at;
	b = (u32)kc[1].count;
	w = KEEL_PORT_BIT(a) / 64;
	CHECK_EQ(KEEL_PORT_VCPU(a), 1);
	/* Offline: what is sent is held, and taken after the start. */
	for (u32 i = 1; i <= 20; i++) {
		OK(HC(KEEL_CALL_EVENT_SEND, a));
		OK(HC(KEEL_CALL_EVENT_SEND, b)); /* masked: stays so over all of it */
		CHECK(p->event_pending[w] >> (KEEL_PORT_BIT(a) % 64) & 1);
		CHECK(p->pending >> w & 1);
		start(1, take_events, a);
		CHECK(kc_stopped(1, 5000));
		CHECK_EQ(kc[1].go, i);
		CHECK_EQ(p->event_pending[w] >> (KEEL_PORT_BIT(a) % 64) & 1, 0);
		CHECK(p->event_pending[KEEL_PORT_BIT(b) / 64] >> (KEEL_PORT_BIT(b) % 64) & 1);
		CHECK(p->event_mask[KEEL_PORT_BIT(b) / 64] >> (KEEL_PORT_BIT(b) % 64) & 1);
		CHECK_EQ(kc[1].seen[KEEL_PORT_BIT(b)], 0);
	}
	OK(HC(KEEL_CALL_EVENT_CLOSE, a));
	OK(HC(KEEL_CALL_EVENT_CLOSE, b));
	ERR_VALUE(HC(KEEL_CALL_EVENT_SEND, a), KEEL_STATUS(KEEL_E_NOENT, 1), 0);
}

KEEL_TEST("SMP-007", smp_last_stops, "KEEL-VCPU-17 KEEL-VCPU-14", "profile=SMP vcpus=4 ext=66 exit=stop destructive", 0)
{
	kc_needed(4);
	start(1, nothing, 0);
	CHECK(kc_stopped(1, 5000));
	if (kt_fails)
		kt_finish();
	kt_armed();
	HC(KEEL_CALL_VCPU_STOP, 0);
	KT_FAIL("vcpu_stop returned to the vCPU it stopped");
}

static struct keel_vcpu_set set __attribute__((aligned(64)));

static struct kt_ret ipi(u64 members, u32 bit)
{
	set = (struct keel_vcpu_set){ .banks = members ? 1 : 0, .bank = { members } };
	return HC(KEEL_CALL_VCPU_IPI, kt_gpa(&set), members ? 16 : 8, bit);
}

#define IPI_BIT 70

static void ipi_target(struct kc *c)
{
	u32 port = kc_port_at(c, IPI_BIT);

	KC_CHECK(c, port);
	HC(KEEL_CALL_EVENT_UNMASK, port);
	c->go = 1;
	while (!c->stop) {
		if (c->arg)
			HC(KEEL_CALL_VCPU_WAIT, kt_now() + 100 * MS);
		else
			kc_yield();
		kc_sti(c);
		*(volatile u8 *)&c->page->if_enabled = 0;
	}
}

KEEL_TEST("SMP-008", smp_ipi, "KEEL-VCPU-18 KEEL-VCPU-22 KEEL-EVENT-06", "profile=SMP vcpus=4 ext=66 timeout=30", 0)
{
	u32 own;

	kc_needed(4);
	own = kc_port_at(&kc[0], IPI_BIT);
	REQUIRE(own);
	OK(HC(KEEL_CALL_EVENT_UNMASK, own));
	for (u32 i = 1; i < 4; i++) {
		start(i, ipi_target, i & 1);
		CHECK(kc_until(&kc[i].go, 1, 5000));
	}
	OK_VALUE(ipi(0, IPI_BIT), 0); /* an empty set */
	for (u64 round = 1; round <= 2000 / kt_scale + 100 && !kt_fails; round++) {
		u64 members = kt_random_below(16);
		u32 before[4];

		for (u32 i = 0; i < 4; i++)
			before[i] = kc[i].seen[IPI_BIT];
		OK_VALUE(ipi(members, IPI_BIT), 0);
		kc_scan(&kc[0]);
		for (u32 i = 0; i < 4; i++) {
			u64 end = kt_now() + 5000 * MS * kt_slow();

			if (!(members >> i & 1))
				continue;
			while (kc[i].seen[IPI_BIT] == before[i] && kt_now() < end)
				kc_yield();
			CHECK_EQ(kc[i].seen[IPI_BIT], before[i] + 1);
		}
		for (u32 i = 0; i < 4; i++)
			if (!(members >> i & 1))
				CHECK_EQ(kc[i].seen[IPI_BIT], before[i]); /* nobody else */
	}
	join(4);
}

KEEL_TEST("SMP-009", smp_ipi_bad, "KEEL-VCPU-19 KEEL-VCPU-20 KEEL-CALL-09", "neg profile=SMP vcpus=4 ext=66", 0)
{
	u64 g = kt_gpa(&set), ram = kt_ram_size();
	u32 own;

	kc_needed(4);
	own = kc_port_at(&kc[0], IPI_BIT);
	REQUIRE(own);
	OK(HC(KEEL_CALL_EVENT_UNMASK, own));
	start(1, alloc_ports, 0); /* has ports, but none at that bit */
	CHECK(kc_stopped(1, 5000));
#define IPI(s, n, b, code, at) REFUSED(HC(KEEL_CALL_VCPU_IPI, s, n, b), code, at)
	set = (struct keel_vcpu_set){ .banks = 1, .bank = { 1 } };
	for (u64 k = 1; k < 8; k++)
		IPI(g + k, 16, IPI_BIT, KEEL_E_INVAL, ARG(1));
	static const u64 size[] = { 0, 1, 4, 7, 9, 12, 15, 17, 528, 1 << 20, 0x100000010, 1ull << 63 | 16, ~0ull };

	for (size_t i = 0; i < sizeof(size) / 8; i++)
		IPI(g, size[i], IPI_BIT, KEEL_E_INVAL, ARG(2));
	IPI(g, 16, KEEL_EVENT_BITS, KEEL_E_RANGE, ARG(3));
	IPI(g, 16, 0x100000000 | IPI_BIT, KEEL_E_RANGE, ARG(3));
	IPI(g, 16, ~0ull, KEEL_E_RANGE, ARG(3));
	IPI(ram - 8, 16, IPI_BIT, KEEL_E_FAULT, ARG(1));
	IPI(ram, 8, IPI_BIT, KEEL_E_FAULT, ARG(1));
	IPI(-8ull, 16, IPI_BIT, KEEL_E_FAULT, ARG(1));
	IPI(1ull << 63, 520, IPI_BIT, KEEL_E_FAULT, ARG(1));
	IPI(KT_LINEAR + g, 16, IPI_BIT, KEEL_E_FAULT, ARG(1));
	IPI(g + 1, 7, ~0ull, KEEL_E_INVAL, ARG(1)); /* in order; form before extent */
	IPI(ram, 7, ~0ull, KEEL_E_INVAL, ARG(2));
	IPI(ram, 16, ~0ull, KEEL_E_RANGE, ARG(3));
	/* As many words as banks. */
	IPI(g, 8, IPI_BIT, KEEL_E_INVAL, FIELD(1));
	IPI(g, 24, IPI_BIT, KEEL_E_INVAL, FIELD(1));
	set.banks = 0;
	IPI(g, 16, IPI_BIT, KEEL_E_INVAL, FIELD(1));
	set.banks = 3;
	IPI(g, 16, IPI_BIT, KEEL_E_INVAL, FIELD(1));
	set.banks = ~0ull;
	IPI(g, 16, IPI_BIT, KEEL_E_INVAL, FIELD(1));
	/* Members that do not exist, and none raised on those that do. */
	set = (struct keel_vcpu_set){ .banks = 1, .bank = { 1 | 1 << 4 } };
	IPI(g, 16, IPI_BIT, KEEL_E_NOENT, ARG(1));
	set.bank[0] = 1ull << 63 | 1;
	IPI(g, 16, IPI_BIT, KEEL_E_NOENT, ARG(1));
	set = (struct keel_vcpu_set){ .banks = 3, .bank = { 1, 1 } };
	IPI(g, 24, IPI_BIT, KEEL_E_NOENT, ARG(1));
	set = (struct keel_vcpu_set){ .banks = 1ull << 63, .bank = { 1 } };
	IPI(g, 16, IPI_BIT, KEEL_E_NOENT, ARG(1));
	/* One without a port at that bit. */
	set = (struct keel_vcpu_set){ .banks = 1, .bank = { 3 } };
	IPI(g, 16, IPI_BIT, KEEL_E_NOENT, ARG(3));
	set.bank[0] = 1;
	IPI(g, 16, IPI_BIT + 1, KEEL_E_NOENT, ARG(3));
	CHECK_EQ(kt_pending(), 0);
	/* A bank that is named and empty is legal, and so are all 64 where nobody is in them. */
	set = (struct keel_vcpu_set){ .banks = ~0ull };
	OK_VALUE(HC(KEEL_CALL_VCPU_IPI, g, sizeof(set), IPI_BIT), 0);
	CHECK_EQ(kt_pending(), 0);
	set.bank[0] = 1;
	OK_VALUE(HC(KEEL_CALL_VCPU_IPI, g, sizeof(set), IPI_BIT), 0);
	CHECK(kt_port_pending(own));
	/* At the very end of RAM. */
	memcpy(kt_ram(ram - 16), &(struct keel_vcpu_set){ .banks = 1, .bank = { 1 } }, 16);
	OK(HC(KEEL_CALL_VCPU_IPI, ram - 16, 16, IPI_BIT));
	OK(HC(KEEL_CALL_EVENT_CLOSE, own));
	set = (struct keel_vcpu_set){ .banks = 1, .bank = { 1 } };
	IPI(g, 16, IPI_BIT, KEEL_E_NOENT, ARG(3));
}

static void open_at_bit(struct kc *c)
{
	u32 port = kc_port_at(c, IPI_BIT);

	KC_CHECK(c, port);
	HC(KEEL_CALL_EVENT_UNMASK, port);
}

KEEL_TEST("SMP-010", smp_ipi_offline, "KEEL-VCPU-16 KEEL-VCPU-18", "profile=SMP vcpus=4 ext=66", 0)
{
	kc_needed(4);
	for (u32 i = 1; i < 4; i++) {
		start(i, open_at_bit, 0);
		CHECK(kc_stopped(i, 5000));
	}
	kc_report();
	/* To stopped ones: held, and taken after the start, exactly once. */
	for (u32 round = 1; round <= 30; round++) {
		OK_VALUE(ipi(0xe, IPI_BIT), 0);
		OK_VALUE(ipi(0xe, IPI_BIT), 0);
		for (u32 i = 1; i < 4; i++)
			CHECK(kc_page(i)->pending >> (IPI_BIT / 64) & 1);
		for (u32 i = 1; i < 4; i++) {
			start(i, take_events, IPI_BIT);
			CHECK(kc_stopped(i, 5000));
			CHECK_EQ(kc[i].go, round);
		}
	}
}

KEEL_TEST("SMP-011", smp_ports_of_others, "KEEL-VCPU-22 KEEL-EVENT-01 KEEL-EVENT-03 KEEL-EVENT-04 KEEL-EVENT-05",
	  "neg profile=SMP vcpus=4 ext=66", 0)
{
	static struct keel_event_record rec[3] __attribute__((aligned(8)));
	u32 port[4];

	kc_needed(4);
	for (u32 i = 1; i < 4; i++) {
		start(i, alloc_ports, 0);
		CHECK(kc_stopped(i, 5000));
		port[i] = (u32)kc[i].at;
		CHECK_EQ(KEEL_PORT_VCPU(port[i]), i);
		CHECK_EQ(KEEL_PORT_BIT(port[i]) / KEEL_EVENT_BITS_PER_PRIORITY, 1);
	}
	for (u32 i = 1; i < 4; i++) {
		struct keel_vcpu *p = kc_page(i);
		u32 w = KEEL_PORT_BIT(port[i]) / 64, b = KEEL_PORT_BIT(port[i]) % 64;

		OK(HC(KEEL_CALL_EVENT_MASK, port[i]));
		CHECK(p->event_mask[w] >> b & 1);
		OK(HC(KEEL_CALL_EVENT_SEND, port[i]));
		CHECK(p->event_pending[w] >> b & 1);
		CHECK_EQ(p->pending, 0);
		OK(HC(KEEL_CALL_EVENT_UNMASK, port[i]));
		CHECK_EQ(p->pending, 1ull << w);
		CHECK_EQ(kt_pending(), 0); /* not here */
		p->pending = 0;
		p->event_pending[w] = 0;
		rec[0] = (struct keel_event_record){ KEEL_EVENT_OP_MASK, port[i] };
		rec[1] = (struct keel_event_record){ KEEL_EVENT_OP_SEND, port[i] };
		rec[2] = (struct keel_event_record){ KEEL_EVENT_OP_UNMASK, port[i] };
		OK_VALUE(HC(KEEL_CALL_EVENT_BATCH, kt_gpa(rec), 3, 0), 3);
		CHECK_EQ(p->pending, 1ull << w);
		/* The same bit of a vCPU that has no such port, another generation, a vCPU there is not. */
		REFUSED(HC(KEEL_CALL_EVENT_SEND, KEEL_PORT(KEEL_PORT_GEN(port[i]), 0, KEEL_PORT_BIT(port[i]))),
			KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_EVENT_SEND, port[i] ^ 1u << 24), KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_EVENT_SEND, (port[i] & ~0xfff000u) | 4 << 12), KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_EVENT_SEND, (port[i] & ~0xfff000u) | 0xfff << 12), KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_EVENT_CLOSE, (port[i] & ~0xfff000u) | 16 << 12), KEEL_E_NOENT, ARG(1));
		OK(HC(KEEL_CALL_EVENT_CLOSE, port[i]));
		CHECK_EQ(p->event_pending[w] >> b & 1, 0);
		REFUSED(HC(KEEL_CALL_EVENT_SEND, port[i]), KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_EVENT_UNMASK, port[i]), KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_EVENT_CLOSE, port[i]), KEEL_E_NOENT, ARG(1));
	}
}

static void own_timer(struct kc *c)
{
	struct kt_ret r = HC(KEEL_CALL_EVENT_BIND, KEEL_SOURCE_TIMER, 0);

	KC_EQ(c, r.status, 0);
	KC_EQ(c, HC(KEEL_CALL_EVENT_BIND, KEEL_SOURCE_TIMER, 1).status, KEEL_STATUS(KEEL_E_EXIST, 1));
	KC_EQ(c, HC(KEEL_CALL_EVENT_BIND, KEEL_SOURCE_CONSOLE, 1).status,
	      KEEL_STATUS(KEEL_E_EXIST, 1)); /* vCPU 0 has it */
	HC(KEEL_CALL_EVENT_UNMASK, r.value);
	c->at = r.value;
	for (u32 i = 1; i <= c->arg && !c->failed; i++) {
		u64 deadline = kt_now() + kc_random(c) % (2 * MS);

		KC_EQ(c, HC(KEEL_CALL_TIME_SET_TIMER, deadline).status, 0);
		while (!c->page->pending)
			HC(KEEL_CALL_VCPU_WAIT, KEEL_TIME_NEVER);
		KC_CHECK(c, kt_now() >= deadline);
		kc_scan(c);
		KC_EQ(c, c->seen[KEEL_PORT_BIT(r.value)], i);
	}
	HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + 20 * MS); /* stopping disarms it */
}

KEEL_TEST("SMP-012", smp_timers, "KEEL-VCPU-23 KEEL-VCPU-11 KEEL-TIME-08 KEEL-TIME-09",
	  "profile=SMP vcpus=4 ext=66 timeout=30", 0)
{
	u64 rounds = 400 / kt_scale + 20;
	u32 port;

	kc_needed(4);
	kt_bind(KEEL_SOURCE_CONSOLE, 2);
	port = kt_bind(KEEL_SOURCE_TIMER, 0);
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + 5 * MS));
	for (u32 i = 1; i < 4; i++)
		start(i, own_timer, rounds);
	for (u32 i = 1; i < 4; i++)
		if (!kc_stopped(i, 20000))
			KT_FAIL("vCPU %u: a timer was lost", i);
	kc_report();
	WAIT_UNTIL(kc[0].seen[KEEL_PORT_BIT(port)] || (kc_scan(&kc[0]), kc[0].seen[KEEL_PORT_BIT(port)]));
	CHECK_EQ(kc[0].seen[KEEL_PORT_BIT(port)], 1);
	kt_spin_ns(60 * MS);
	for (u32 i = 1; i < 4; i++)
		CHECK_EQ(kc_page(i)->pending, 0);
}

static u32 ping[KC_MAX]; /* ports of vCPU i */
static volatile u64 turn;

static void answer(struct kc *c)
{
	struct kt_ret r = HC(KEEL_CALL_EVENT_ALLOC, 0);

	ping[c->id] = (u32)r.value;
	HC(KEEL_CALL_EVENT_UNMASK, r.value);
	__atomic_store_n(&c->go, 1, __ATOMIC_RELEASE);
	for (u64 i = 1; i <= c->arg && !c->failed; i++) {
		while (!c->page->pending) {
			struct kt_ret w = HC(KEEL_CALL_VCPU_WAIT, kt_now() + 5000 * MS * kt_slow());

			if (!KC_EQ(c, w.status, 0)) /* five seconds: it is lost */
				return;
		}
		kc_scan(c);
		KC_EQ(c, __atomic_exchange_n(&turn, 0, __ATOMIC_SEQ_CST), i);
		HC(KEEL_CALL_EVENT_SEND, ping[0]);
	}
}

KEEL_TEST("SMP-013", smp_wait_wake, "KEEL-VCPU-04 KEEL-VCPU-02 KEEL-VCPU-22 KEEL-EVENT-06",
	  "profile=SMP vcpus=2 ext=66 timeout=60", 0)
{
	u64 rounds = 20000 / kt_scale + 200, lost = 0;

	kc_needed(2);
	ping[0] = kt_alloc(0);
	OK(HC(KEEL_CALL_EVENT_UNMASK, ping[0]));
	start(1, answer, rounds);
	REQUIRE(kc_until(&kc[1].go, 1, 5000));
	/* Either side sleeps without a deadline when the other sends; not one wake may get lost. */
	for (u64 i = 1; i <= rounds && !lost; i++) {
		__atomic_store_n(&turn, i, __ATOMIC_SEQ_CST);
		OK(HC(KEEL_CALL_EVENT_SEND, ping[1]));
		if (kt_random_below(8) == 0)
			kt_spin_ns(kt_random_below(30000));
		while (!kt_pending() && !lost)
			lost = HC(KEEL_CALL_VCPU_WAIT, kt_now() + 5000 * MS * kt_slow()).status != 0;
		kc_scan(&kc[0]);
		CHECK_EQ(turn, 0);
		if (lost)
			KT_FAIL("round %lu: no answer", i);
	}
	CHECK_EQ(kc[0].seen[KEEL_PORT_BIT(ping[0])], rounds);
	join(2);
}

static void interrupted(struct kc *c)
{
	ping[c->id] = (u32)HC(KEEL_CALL_EVENT_ALLOC, 0).value;
	HC(KEEL_CALL_EVENT_UNMASK, ping[c->id]);
	kc_sti(c);
	__atomic_store_n(&c->go, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE)) /* no call, no yield: only an interrupt gets in */
		kc_pause();
}

KEEL_TEST("SMP-014", smp_interrupts_busy, "KEEL-VCPU-22 KEEL-TRAP-09 KEEL-EVENT-10",
	  "profile=SMP vcpus=4 ext=66 timeout=60", 0)
{
	kc_needed(4);
	for (u32 i = 1; i < 4; i++) {
		start(i, interrupted, 0);
		REQUIRE(kc_until(&kc[i].go, 1, 5000));
	}
	for (u64 i = 0; i < 300 / kt_scale + 30 && !kt_fails; i++) {
		struct kc *c = &kc[1 + i % 3];
		u32 bit = KEEL_PORT_BIT(ping[c->id]), seen = c->seen[bit];
		u64 end = kt_now() + 5000 * MS * kt_slow();

		OK(HC(KEEL_CALL_EVENT_SEND, ping[c->id]));
		while (c->seen[bit] == seen && kt_now() < end)
			kc_yield();
		CHECK_EQ(c->seen[bit], seen + 1);
	}
	join(4);
}

static void catch_dump(struct kc *c)
{
	__atomic_store_n(&c->go, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE)) {
		if (c->arg)
			HC(KEEL_CALL_VCPU_WAIT, kt_now() + 50 * MS);
		kc_pause();
	}
}

KEEL_TEST("SMP-015", smp_dump, "KEEL-VCPU-24 KEEL-VCPU-06 KEEL-TRAP-20", "profile=SMP vcpus=4 ext=66 timeout=30", 0)
{
	kc_needed(4);
	for (u32 i = 1; i < 4; i++) {
		start(i, catch_dump, i & 1);
		REQUIRE(kc_until(&kc[i].go, 1, 5000));
	}
	for (u64 i = 0; i < 300 / kt_scale + 30 && !kt_fails; i++) {
		struct kc *c = &kc[1 + i % 3];
		u64 before = c->dumps, end = kt_now() + 5000 * MS * kt_slow(), own = kc[0].dumps;

		OK(HC(KEEL_CALL_EVENT_DUMP, c->id));
		while (c->dumps == before && kt_now() < end)
			kc_yield();
		CHECK_EQ(c->dumps, before + 1);
		CHECK_EQ(kc[0].dumps, own);
	}
	join(4);
}

/* Writers through one address of AS 0: what is not permitted any more when the call returns is not done. */
static void writer(struct kc *c)
{
	__atomic_store_n(&c->go, 1, __ATOMIC_RELEASE);
	for (u64 i = 1; !__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE); i++) {
		if (kc_write(c, KT_VA + c->arg * 4096 + 64, i << 8 | c->id)) {
			KC_EQ(c, c->trap.vector, KEEL_VEC_PF);
			KC_EQ(c, c->trap.error & ~(u64)KEEL_PF_P, KEEL_PF_W);
			KC_EQ(c, c->trap.addr, KT_VA + c->arg * 4096 + 64);
			c->at++;
			if (c->at % 64 == 0)
				kc_yield();
		}
		c->count++;
	}
}

/* A word that nobody may write any more: does it stay? */
static void quiet(int line, u64 round, u64 gpa, const char *what)
{
	volatile u64 *w = kt_ram(gpa + 64);
	u64 value = 0xdead0000 + round;

	*w = value;
	for (u32 i = 0; i < 400; i++)
		kc_pause();
	if (round % 16 == 0)
		kc_yield();
	if (*w != value)
		kt_fail("smp.c", line, "round %lu: %s, and written through (%lx)", round, what, *w);
}
#define QUIET(round, gpa, what) quiet(__LINE__, round, gpa, what)

KEEL_TEST("SMP-016", smp_unmap_while_written, "KEEL-MMU-04 KEEL-VCPU-24 KEEL-NORM-02",
	  "neg profile=SMP vcpus=4 ext=66 timeout=120", 0)
{
	u64 rounds = 800 / kt_scale + 100;

	kc_needed(4);
	OK(MAP(KT_VA, G0, 4 * 4096, KU_RW));
	for (u32 i = 1; i < 4; i++) {
		start(i, writer, i);
		REQUIRE(kc_until(&kc[i].go, 1, 5000));
	}
	for (u64 i = 0; i < rounds && !kt_fails; i++) {
		u64 page = 1 + i % 3, va = KT_VA + page * 4096, g = G0 + page * 4096;

		switch (i / 3 % 4) {
		case 0:
			OK(UNMAP(va, 4096));
			QUIET(i, g, "unmapped");
			break;
		case 1:
			OK(PROTECT(va, 4096, KEEL_PROT_R));
			QUIET(i, g, "made read-only");
			break;
		case 2:
			OK(MAP(va, g + 65536, 4096, KU_RW));
			QUIET(i, g, "mapped to another page");
			break;
		case 3: /* many at once, the one somewhere among them */
			OK(UNMAP(KT_VA, 4 * 4096));
			for (u32 k = 1; k < 4; k++)
				QUIET(i, G0 + k * 4096, "unmapped with others");
			OK(MAP(KT_VA, G0, 4 * 4096, KU_RW));
			break;
		}
		OK(MAP(va, g, 4096, KU_RW));
		if (i % 5 == 0) { /* back in use: writes arrive again */
			u64 seen = kc[page].count;

			CHECK(kc_until(&kc[page].count, seen + 8, 5000));
		}
	}
	join(4);
	for (u32 i = 1; i < 4; i++) {
		kt_note("vCPU %u: %lu writes, %lu faults", i, kc[i].count, kc[i].at);
		CHECK(kc[i].count > 0);
	}
}

/* User code on several vCPUs in one space: writes its number to a word of its own, for ever. */
USER_CODE(hammer, "1:	inc %rax\n"
		  "	mov %rax, 64(%rdi)\n"
		  "	mov %rax, (%rsi)\n" /* progress, in another page */
		  "	jmp 1b\n");

static void user_writer(struct kc *c)
{
	struct ku *x = &ctx[c->id];

	ku_context(x, KU_CODE);
	x->u.rdi = UVA + c->arg * 4096;
	x->u.rsi = KU_DATA + c->id * 64;
	x->u.r15 = c->id * 0x1111;
	__atomic_store_n(&c->go, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE)) {
		struct kt_ret r = ku_enter(space, x);

		if (r.status) {
			/* Destroyed: the only reason there is. */
			KC_EQ(c, r.status, KEEL_STATUS(KEEL_E_NOENT, 1));
			c->go = 2;
			return;
		}
		KC_CHECK(c, r.value == KEEL_USER_EVENT || r.value == KEEL_USER_EXCEPTION);
		if (r.value == KEEL_USER_EXCEPTION) {
			KC_EQ(c, x->u.vector, KEEL_VEC_PF);
			/* The page of its progress is made read-only too when the space is copied. */
			KC_CHECK(c, x->u.addr == UVA + c->arg * 4096 + 64 || x->u.addr == KU_DATA + c->id * 64);
			KC_EQ(c, x->u.error & ~(u64)KEEL_PF_P, KEEL_PF_W | KEEL_PF_U);
			c->at++;
			if (c->at % 32 == 0)
				kc_yield();
		}
		KC_EQ(c, x->u.r15, c->id * 0x1111);
		kc_scan(c);
		c->count++;
	}
}

/* On each, a timer or an IPI must get the vCPU out of user code in the end. */
static void open_door(struct kc *c)
{
	c->at = kc_port_at(c, IPI_BIT);
	HC(KEEL_CALL_EVENT_UNMASK, c->at);
	c->at = 0;
	c->go = 0;
}

static void user_writer_with_door(struct kc *c)
{
	open_door(c);
	user_writer(c);
}

static void leave_user(u32 n)
{
	u64 members = 0;

	for (u32 i = 1; i < n; i++) {
		__atomic_store_n(&kc[i].stop, 1, __ATOMIC_RELEASE);
		members |= 1ull << i;
	}
	OK(ipi(members, IPI_BIT));
	for (u32 i = 1; i < n; i++)
		if (!kc_stopped(i, 10000))
			KT_FAIL("vCPU %u does not leave user code", i);
	kc_report();
}

/* Wait until vCPU i's user code gets on. */
static bool progress(u32 i)
{
	const volatile u64 *word = kt_ram(KU_DATA_AT(KU_GPA) + i * 64);

	return kc_until(word, *word + 1, 5000);
}

KEEL_TEST("SMP-017", smp_user_staleness, "KEEL-USER-20 KEEL-MMU-04 KEEL-USER-21 KEEL-USER-12",
	  "neg profile=SMP vcpus=4 ext=66 timeout=120", 0)
{
	u64 rounds = 500 / kt_scale + 60, faults = 0;

	kc_needed(4);
	ku_needed();
	space = ku_make(KU_GPA, KU(hammer));
	OK(KU_MAP(space, UVA, G0, 4 * 4096, KU_RW));
	for (u32 i = 1; i < 4; i++) {
		start(i, user_writer_with_door, i);
		REQUIRE(kc_until(&kc[i].go, 1, 5000));
		CHECK(progress(i));
	}
	for (u64 i = 0; i < rounds && !kt_fails; i++) {
		u64 page = 1 + i % 3, va = UVA + page * 4096, g = G0 + page * 4096;

		switch (i / 3 % 4) {
		case 0:
			OK(KU_UNMAP(space, va, 4096));
			QUIET(i, g, "unmapped");
			break;
		case 1:
			OK(KU_PROTECT(space, va, 4096, KEEL_PROT_R));
			QUIET(i, g, "made read-only");
			break;
		case 2:
			OK(KU_MAP(space, va, g + 65536, 4096, KU_RW));
			QUIET(i, g, "mapped to another page");
			break;
		case 3:
			OK(KU_UNMAP(space, UVA, 4 * 4096));
			for (u32 k = 1; k < 4; k++)
				QUIET(i, G0 + k * 4096, "unmapped with others");
			OK(KU_MAP(space, UVA, G0, 4 * 4096, KU_RW));
			break;
		}
		OK(KU_MAP(space, va, g, 4096, KU_RW));
		if (i % 7 == 0)
			CHECK(progress((u32)page));
	}
	leave_user(4);
	for (u32 i = 1; i < 4; i++)
		faults += kc[i].at;
	kt_note("%lu faults of user code", faults);
	OK_VALUE(HC(KEEL_CALL_AS_INFO, space, KEEL_AS_INFO_RUNNING), 0);
	ku_destroy(space);
}

KEEL_TEST("SMP-018", smp_same_space, "KEEL-USER-21 KEEL-AS-18 KEEL-USER-07 KEEL-USER-08",
	  "profile=SMP vcpus=4 ext=66 timeout=30", 0)
{
	u64 end;

	kc_needed(4);
	ku_needed();
	space = ku_make(KU_GPA, KU(hammer));
	OK(KU_MAP(space, UVA, G0, 4 * 4096, KU_RW));
	for (u32 round = 0; round < 20 / kt_scale + 3 && !kt_fails; round++) {
		for (u32 i = 1; i < 4; i++) {
			start(i, user_writer_with_door, i);
			REQUIRE(kc_until(&kc[i].go, 1, 5000));
		}
		for (u32 i = 1; i < 4; i++)
			CHECK(progress(i));
		end = kt_now() + 5000 * MS * kt_slow();
		while (ku_info(space, KEEL_AS_INFO_RUNNING) != 3 && kt_now() < end)
			kc_yield();
		OK_VALUE(HC(KEEL_CALL_AS_INFO, space, KEEL_AS_INFO_RUNNING), 3);
		leave_user(4);
		OK_VALUE(HC(KEEL_CALL_AS_INFO, space, KEEL_AS_INFO_RUNNING), 0);
		for (u32 i = 1; i < 4; i++) {
			CHECK_EQ(ctx[i].u.rdi, UVA + i * 4096);
			CHECK_EQ(ctx[i].u.r15, i * 0x1111);
		}
	}
}

KEEL_TEST("SMP-019", smp_clone_while_running, "KEEL-AS-13 KEEL-AS-14 KEEL-USER-20",
	  "neg profile=SMP vcpus=4 ext=66 timeout=120", 0)
{
	kc_needed(4);
	ku_needed();
	space = ku_make(KU_GPA, KU(hammer));
	OK(KU_MAP(space, UVA, G0, 4 * 4096, KU_RW));
	OK(KU_MAP(space, UVA + (1 << 30), G0, 4 << 20, KU_RW)); /* some more work */
	for (u32 i = 1; i < 4; i++) {
		start(i, user_writer_with_door, i);
		REQUIRE(kc_until(&kc[i].go, 1, 5000));
		CHECK(progress(i));
	}
	for (u64 i = 0; i < 50 / kt_scale + 10 && !kt_fails; i++) {
		struct kt_ret r = ku_clone(space, i & 1 ? KEEL_AS_CLONE_SHARE : 0);

		if (!OK(r))
			break;
		if (!(i & 1)) {
			/* Read-only in both, for those who are running too. */
			for (u32 k = 1; k < 4; k++)
				QUIET(i, G0 + k * 4096, "cloned");
			CHECK_EQ(ku_query(space, UVA + 4096), (G0 + 4096) | KEEL_PROT_R);
			OK(KU_PROTECT(space, KU_DATA, KU_DATA_PAGES * 4096, KU_RW));
			OK(KU_PROTECT(space, UVA, 4 * 4096, KU_RW));
		}
		CHECK_EQ(ku_query(r.value, UVA + 4096), (G0 + 4096) | (i & 1 ? KU_RW : KEEL_PROT_R));
		ku_destroy(r.value);
		for (u32 k = 1; k < 4; k++)
			CHECK(progress(k));
	}
	leave_user(4);
}

KEEL_TEST("SMP-020", smp_destroy_while_running, "KEEL-AS-17 KEEL-AS-09 KEEL-USER-09",
	  "neg profile=SMP vcpus=4 ext=66 timeout=60", 0)
{
	u64 agains = 0;

	kc_needed(4);
	ku_needed();
	for (u64 round = 0; round < 200 / kt_scale + 10 && !kt_fails; round++) {
		u64 tries = 0, old;
		struct kt_ret r;

		old = space = ku_make(KU_GPA, KU(hammer));
		OK(KU_MAP(space, UVA, G0, 4 * 4096, KU_RW));
		for (u32 i = 1; i < 4; i++)
			start(i, user_writer, i);
		if (round & 1)
			for (u32 i = 1; i < 4; i++) {
				CHECK(kc_until(&kc[i].go, 1, 5000));
				CHECK(progress(i));
			}
		do {
			r = HC(KEEL_CALL_AS_DESTROY, space);
			if (r.status != again)
				break;
			CHECK_EQ(r.value, 0);
			agains++;
			/* Dying: nobody gets in any more. */
			ku_context(&ctx[0], KU_CODE);
			ERR_VALUE(ku_enter(space, &ctx[0]), KEEL_STATUS(KEEL_E_NOENT, 1), 0);
			kc_yield();
		} while (++tries < 1000000);
		OK_VALUE(r, 0);
		for (u32 k = 1; k < 4; k++)
			QUIET(round, G0 + k * 4096, "destroyed");
		for (u32 i = 1; i < 4; i++) { /* each hears of it in its own time */
			if (!kc_stopped(i, 10000))
				KT_FAIL("round %lu: vCPU %u goes on in a space that is gone", round, i);
			CHECK_EQ(kc[i].go, 2);
		}
		kc_report();
		ERR_VALUE(HC(KEEL_CALL_AS_INFO, old, 0), KEEL_STATUS(KEEL_E_NOENT, 1), 0);
		ERR_VALUE(HC(KEEL_CALL_AS_DESTROY, old), KEEL_STATUS(KEEL_E_NOENT, 1), 0);
	}
	kt_note("AGAIN %lu times", agains);
}

/* Every vCPU makes, fills, copies and destroys spaces of its own, and looks whether they are what it made. */
static void own_spaces(struct kc *c)
{
	u64 g = G0 + c->id * 0x10000;

	__atomic_store_n(&c->go, 1, __ATOMIC_RELEASE);
	for (u64 i = 0; i < c->arg && !c->failed; i++) {
		struct kt_ret r = HC(KEEL_CALL_AS_CREATE, 0), k;
		u64 n = 1 + kc_random(c) % 12, q;

		if (!KC_EQ(c, r.status, 0))
			return;
		KC_EQ(c, KU_MAP(r.value, UVA, g, n * 4096, KU_RW).status, 0);
		q = ku_query(r.value, UVA + (n - 1) * 4096);
		KC_EQ(c, q, (g + (n - 1) * 4096) | KU_RW);
		KC_EQ(c, ku_query(r.value, UVA + n * 4096), 0);
		k = ku_clone(r.value, 0);
		if (KC_EQ(c, k.status, 0)) {
			KC_EQ(c, ku_query(k.value, UVA), g | KEEL_PROT_R);
			KC_EQ(c, HC(KEEL_CALL_AS_INFO, k.value, KEEL_AS_INFO_PAGES).value, n);
			KC_EQ(c, HC(KEEL_CALL_AS_DESTROY, k.value).status, 0);
			KC_EQ(c, HC(KEEL_CALL_AS_INFO, k.value, 0).status, KEEL_STATUS(KEEL_E_NOENT, 1));
		}
		KC_EQ(c, ku_query(r.value, UVA), g | KEEL_PROT_R);
		KC_EQ(c, HC(KEEL_CALL_AS_DESTROY, r.value).status, 0);
		c->count++;
	}
}

KEEL_TEST("SMP-021", smp_spaces_at_once, "KEEL-VCPU-24 KEEL-AS-08 KEEL-AS-09 KEEL-AS-13 KEEL-AS-16",
	  "profile=SMP vcpus=4 ext=66 timeout=60", 0)
{
	u64 tables;

	kc_needed(4);
	ku_needed();
	tables = ku_info(0, KEEL_AS_INFO_TABLES);
	for (u32 i = 1; i < 4; i++)
		start(i, own_spaces, 1500 / kt_scale + 30);
	own_spaces(&kc[0]);
	for (u32 i = 1; i < 4; i++)
		CHECK(kc_stopped(i, 30000));
	kc_report();
	OK_VALUE(HC(KEEL_CALL_AS_INFO, 0, KEEL_AS_INFO_TABLES), tables);
}

/* One space, several who change it: pages of their own, and one that all of them map. */
static void change_space(struct kc *c)
{
	u64 va = UVA + (c->id + 1) * 0x100000, g = G0 + c->id * 0x20000;

	for (u64 i = 0; i < c->arg && !c->failed; i++) {
		u64 n = 1 + kc_random(c) % 20, at = va + kc_random(c) % 8 * 0x10000;

		KC_EQ(c, KU_MAP(space, at, g, n * 4096, KU_RW).status, 0);
		KC_EQ(c, ku_query(space, at + (n - 1) * 4096), (g + (n - 1) * 4096) | KU_RW);
		KC_EQ(c, KU_MAP(space, UVA, g, 4096, KEEL_PROT_R).status, 0);
		u64 q = ku_query(space, UVA);

		KC_CHECK(c, (q & 7) == KEEL_PROT_R && ((q & ~7ull) - G0) % 0x20000 == 0 &&
				    ((q & ~7ull) - G0) / 0x20000 < 4);
		KC_EQ(c, KU_PROTECT(space, at, n * 4096, KEEL_PROT_R).status, 0);
		KC_EQ(c, ku_query(space, at), g | KEEL_PROT_R);
		KC_EQ(c, KU_UNMAP(space, at, n * 4096).status, 0);
		KC_EQ(c, ku_query(space, at), 0);
		c->count++;
	}
}

KEEL_TEST("SMP-022", smp_one_space_changed, "KEEL-VCPU-24 KEEL-MMU-01 KEEL-AS-11",
	  "profile=SMP vcpus=4 ext=66 timeout=60", 0)
{
	kc_needed(4);
	ku_needed();
	for (u32 round = 0; round < 2; round++) {
		space = round ? KEEL_AS_KERNEL : ku_space();
		for (u32 i = 1; i < 4; i++)
			start(i, change_space, 1500 / kt_scale + 30);
		kc[0].arg = 1500 / kt_scale + 30;
		change_space(&kc[0]);
		for (u32 i = 1; i < 4; i++)
			CHECK(kc_stopped(i, 30000));
		kc_report();
	}
}

static void use_ports(struct kc *c)
{
	for (u64 i = 0; i < c->arg && !c->failed; i++) {
		u32 p = (u32)(kc_random(c) % 4), bit;
		struct kt_ret r = HC(KEEL_CALL_EVENT_ALLOC, p);

		if (!KC_EQ(c, r.status, 0))
			return;
		bit = KEEL_PORT_BIT(r.value);
		KC_EQ(c, KEEL_PORT_VCPU(r.value), c->id);
		KC_EQ(c, HC(KEEL_CALL_EVENT_SEND, r.value).status, 0);
		KC_CHECK(c, c->page->event_pending[bit / 64] >> (bit % 64) & 1);
		/* What a neighbour has is not seen here, whoever sends to it meanwhile. */
		HC(KEEL_CALL_EVENT_SEND, KEEL_PORT(KEEL_PORT_GEN(r.value), (c->id + 1) % 4, bit));
		KC_EQ(c, HC(KEEL_CALL_EVENT_CLOSE, r.value).status, 0);
		KC_EQ(c, c->page->event_pending[bit / 64] >> (bit % 64) & 1, 0);
		KC_EQ(c, HC(KEEL_CALL_EVENT_SEND, r.value).status, KEEL_STATUS(KEEL_E_NOENT, 1));
		c->count++;
	}
}

KEEL_TEST("SMP-023", smp_ports_at_once, "KEEL-VCPU-24 KEEL-VCPU-22 KEEL-EVENT-05",
	  "profile=SMP vcpus=4 ext=66 timeout=60", 0)
{
	kc_needed(4);
	for (u32 i = 1; i < 4; i++)
		start(i, use_ports, 6000 / kt_scale + 50);
	kc[0].arg = 6000 / kt_scale + 50;
	use_ports(&kc[0]);
	for (u32 i = 1; i < 4; i++)
		CHECK(kc_stopped(i, 30000));
	kc_report();
}

/* A barrier of as many vCPUs as there are, spinning and yielding: all get on, however few processors there are. */
static volatile u64 arrived;

static void barriers(struct kc *c)
{
	for (u64 i = 1; i <= c->arg; i++) {
		__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
		for (u64 k = 0; arrived < i * 16; k++) {
			if (k % 4 == 3)
				HC(KEEL_CALL_VCPU_YIELD, k % 8 == 3 ? KEEL_VCPU_ANY : (c->id + 1) % 16);
			kc_pause();
			if (k > 3000000) {
				KC_EQ(c, arrived, i * 16);
				return;
			}
		}
		c->count++;
	}
}

KEEL_TEST("SMP-024", smp_more_than_processors, "KEEL-VCPU-25 KEEL-VCPU-10 KEEL-VCPU-07",
	  "profile=SMP vcpus=16 ext=66 timeout=60", 0)
{
	u64 rounds = 200 / kt_scale + 5;

	kc_needed(16);
	for (u32 i = 1; i < 16; i++)
		start(i, barriers, rounds);
	kc[0].arg = rounds;
	barriers(&kc[0]);
	for (u32 i = 1; i < 16; i++) {
		CHECK(kc_stopped(i, 20000));
		CHECK_EQ(kc[i].count, rounds);
	}
	CHECK_EQ(arrived, rounds * 16);
	kc_report();
}

static void own_traps(struct kc *c)
{
	u64 v;

	for (u64 i = 0; i < c->arg && !c->failed; i++) {
		u64 va = KT_VA + 0x40000000 + c->id * 0x1000000 + i % 4096 * 4096 + c->id, traps = c->traps;
		bool write = i & 1;

		KC_EQ(c, write ? kc_write(c, va, 1) : kc_read(c, va, &v), 1);
		KC_EQ(c, c->traps, traps + 1);
		KC_EQ(c, c->trap.addr, va);
		KC_EQ(c, c->trap.vector, KEEL_VEC_PF);
		KC_EQ(c, c->trap.error, write ? KEEL_PF_W : 0);
		c->count++;
	}
}

KEEL_TEST("SMP-025", smp_traps_at_once, "KEEL-VCPU-24 KEEL-NORM-02", "profile=SMP vcpus=4 ext=66 timeout=60", 0)
{
	kc_needed(4);
	for (u32 i = 1; i < 4; i++)
		start(i, own_traps, 5000 / kt_scale + 50);
	kc[0].arg = 5000 / kt_scale + 50;
	own_traps(&kc[0]);
	for (u32 i = 1; i < 4; i++)
		CHECK(kc_stopped(i, 30000));
	kc_report();
}

static void panics(struct kc *c)
{
	(void)c;
	HC(KEEL_CALL_CRASH, KEEL_CRASH_PANIC, 0, 0);
	KT_FAIL("crash returned");
}

static void ends_here(void (*fn)(struct kc *))
{
	kc_needed(4);
	kt_armed();
	start(2, fn, 0);
	kc_stopped(2, 5000);
	KT_FAIL("the partition goes on");
}

KEEL_TEST("SMP-026", smp_crash_on_any, "KEEL-VCPU-26", "profile=SMP vcpus=4 ext=66 exit=125 destructive", 0)
{
	ends_here(panics);
}

static void no_entry(struct kc *c)
{
	(void)c;
	OK(HC(KEEL_CALL_TRAP_SET, KEEL_CLASS_TRAP, 0, 0));
	__asm__ volatile("ud2");
}

KEEL_TEST("SMP-027", smp_unhandled_on_any, "KEEL-VCPU-26 KEEL-VCPU-11",
	  "profile=SMP vcpus=4 ext=66 exit=125 destructive", 0)
{
	ends_here(no_entry);
}

static void powers_off(struct kc *c)
{
	(void)c;
	HC(KEEL_CALL_BASE_SHUTDOWN, KEEL_SHUTDOWN_POWEROFF, 41);
}

KEEL_TEST("SMP-028", smp_shutdown_on_any, "KEEL-VCPU-26", "profile=SMP vcpus=4 ext=66 exit=41 destructive", 0)
{
	ends_here(powers_off);
}

KEEL_TEST("SMP-029", smp_unaccepted, "KEEL-VCPU-09 KEEL-BASE-16", "neg profile=SMP vcpus=4 ext=66", KT_EARLY)
{
	static const u64 id[] = { KEEL_CALL_VCPU_START, KEEL_CALL_VCPU_STOP, KEEL_CALL_VCPU_IPI, KEEL_CALL_VCPU_INFO };

	if (!(HC(KEEL_CALL_BASE_FEATURES, 1).value >> KEEL_F1_SMP & 1))
		kt_skip(66, "SMP is not offered");
	OK(HC(KEEL_CALL_BASE_ACCEPT, 0, HC(KEEL_CALL_BASE_FEATURES, 0).value)); /* word 0 only */
	kt_freeze();
	for (int i = 0; i < 4; i++) {
		NEG(HC(id[i]), KEEL_E_NOTSUP, 0);
		NEG(HC(id[i], 1, 0x400000, 1), KEEL_E_NOTSUP, 0);
	}
}

/* Extended state of the vCPUs side by side. */
static u8 pattern[KC_MAX][KU_XSAVE_MAX] __attribute__((aligned(64))),
	out[KC_MAX][KU_XSAVE_MAX] __attribute__((aligned(64)));

static void keep_state(struct kc *c)
{
	u64 mask = kt_fp_mask(KU_XSAVE_MAX);

	for (u64 i = 0; i < c->arg && !c->failed; i++) {
		const u64 call[6] = { i & 1 ? KEEL_CALL_BASE_PING : KEEL_CALL_VCPU_YIELD, ~0ull, 0, 0, 0, 0 };

		ku_fp_fill(pattern[c->id], mask, c->id * 100000 + i);
		memset(out[c->id], 0, KU_XSAVE_MAX);
		kt_call_fp(call, pattern[c->id], out[c->id], mask);
		if (mask)
			ku_fp_normal(out[c->id], mask);
		KC_CHECK(c, ku_fp_equal(pattern[c->id], out[c->id], mask));
		c->count++;
	}
}

KEEL_TEST("SMP-030", smp_state_isolated, "KEEL-VCPU-24 KEEL-CALL-03", "neg profile=SMP vcpus=4 ext=66 timeout=60", 0)
{
	kc_needed(4);
	for (u32 i = 1; i < 4; i++)
		start(i, keep_state, 400 / kt_scale + 20);
	kc[0].arg = 400 / kt_scale + 20;
	keep_state(&kc[0]);
	for (u32 i = 1; i < 4; i++)
		CHECK(kc_stopped(i, 30000));
	kc_report();
}

/* A context that another vCPU changes all the time: what is used is what was checked. */
static void flip(struct kc *c)
{
	volatile struct ku *x = &ctx[0];

	__atomic_store_n(&c->go, 1, __ATOMIC_RELEASE);
	for (u64 i = 0; !__atomic_load_n(&c->stop, __ATOMIC_RELAXED); i++) {
		x->u.rip = i & 1 ? KU_CODE : 1ull << 63 | i;
		x->u.fs_base = i & 1 ? 0x1000 : 1ull << 62;
		x->u.gs_base = i & 1 ? 0x2000 : ~0ull;
		*(volatile u32 *)&x->xsave[24] = i & 1 ? 0x1f80 : 0xffffffff;
		*(volatile u64 *)&x->xsave[520] = i & 1 ? 0 : ~0ull;
		x->u.flags = i % 4 ? 0 : 1;
		if (i % 4096 == 4095)
			kc_yield();
	}
}

USER_CODE(one_call, "	syscall\n");

KEEL_TEST("SMP-031", smp_context_flipped, "KEEL-USER-06 KEEL-USER-05 KEEL-USER-04 KEEL-USER-22",
	  "neg profile=SMP vcpus=2 ext=66 timeout=60", 0)
{
	u64 ran = 0, refusals = 0;

	kc_needed(2);
	ku_needed();
	space = ku_make(KU_GPA, KU(one_call));
	ku_context(&ctx[0], KU_CODE);
	start(1, flip, 0);
	REQUIRE(kc_until(&kc[1].go, 1, 5000));
	for (u64 i = 0; i < 20000 / kt_scale + 300; i++) {
		struct kt_ret r = ku_enter(space, &ctx[0]);

		if (r.status)
			refusals++;
		else
			ran++;
		CHECK(!r.status || KEEL_STATUS_AT(r.status) >= 0x10);
		ctx[0].u.size = KEEL_USER_XSAVE +
				((const struct keel_cpu_info *)kt_chunk(KEEL_CHUNK_CPU, &(u32){ 0 }))->xsave_size;
		memset((void *)ctx[0].u.reserved, 0, sizeof(ctx[0].u.reserved));
		kt_probe_ud(); /* the kernel's own state is in order */
	}
	join(2);
	kt_note("%lu times run, %lu times refused", ran, refusals);
	OK_VALUE(HC(KEEL_CALL_BASE_PING, 1), 1);
}

/* One context entered on two vCPUs: undefined for its user code, and for nobody else. */
static void enter_same(struct kc *c)
{
	__atomic_store_n(&c->go, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE)) {
		ku_enter(space, &ctx[0]);
		kc_scan(c);
		c->count++;
	}
}

KEEL_TEST("SMP-032", smp_one_context_twice, "KEEL-USER-21 KEEL-USER-22", "neg profile=SMP vcpus=4 ext=66 timeout=30", 0)
{
	u64 witness;

	kc_needed(4);
	ku_needed();
	space = ku_make(KU_GPA, KU(one_call));
	witness = ku_make(KU_GPA + KU_PAGES * 4096, KU(one_call));
	ku_context(&ctx[0], KU_CODE);
	for (u32 i = 1; i < 4; i++) {
		start(i, enter_same, 0);
		REQUIRE(kc_until(&kc[i].go, 1, 5000));
	}
	for (u64 i = 0; i < 1000 / kt_scale + 50; i++) {
		ku_context(&ctx[5], KU_CODE);
		ctx[5].u.r14 = i;
		CHECK_EQ(ku_run(witness, &ctx[5]), KEEL_USER_SYSCALL);
		CHECK_EQ(ctx[5].u.r14, i);
		CHECK_EQ(ctx[5].u.rip, KU_CODE + 2);
		if (i % 4 == 0)
			ku_context(&ctx[0], KU_CODE);
	}
	join(4);
}

/* Every call with any argument, on all vCPUs at once. */
static void any_calls(struct kc *c)
{
	for (u64 i = 0; i < c->arg && !c->failed; i++) {
		const struct kt_call_info *f = &kt_calls[kc_random(c) % KEEL_CALL_COUNT];
		u64 a[5] = { 0 }, m;
		struct kt_ret r;

		switch (f->id) {
		case KEEL_CALL_BASE_SHUTDOWN:
		case KEEL_CALL_CRASH:
		case KEEL_CALL_VCPU_WAIT:
		case KEEL_CALL_VCPU_START:
		case KEEL_CALL_VCPU_STOP:
		case KEEL_CALL_TRAP_SET:
		case KEEL_CALL_MEMORY_RELEASE:
		case KEEL_CALL_EVENT_DUMP:
		case KEEL_CALL_CONSOLE_WRITE:
		case KEEL_CALL_CONSOLE_SETUP:
			continue;
		}
		for (u32 k = 0; k < f->nargs; k++) {
			u64 v = kc_random(c);

			a[k] = v % 4 == 0   ? v >> 60
			       : v % 4 == 1 ? G0 + (v >> 40) % 0x100000 / 8 * 8
			       : v % 4 == 2 ? KT_VA + (v >> 44) % 256 * 4096
					    : v;
		}
		r = kt_call(f->id, a[0], a[1], a[2], a[3], a[4]);
		m = -(u64)r.status;
		KC_CHECK(c, !r.status || (r.status < 0 && m < 1ull << 24 && (m & 0xff) && (m & 0xff) < KEEL_E_COUNT));
		c->count++;
	}
}

KEEL_TEST("SMP-033", smp_calls_at_once, "KEEL-VCPU-24 KEEL-CALL-07 KEEL-CALL-16",
	  "neg profile=SMP vcpus=4 ext=66 timeout=60", 0)
{
	kc_needed(4);
	kt_note("seed %lu", kt_seed);
	for (u32 i = 1; i < 4; i++)
		start(i, any_calls, 20000 / kt_scale + 300);
	kc[0].arg = 20000 / kt_scale + 300;
	any_calls(&kc[0]);
	for (u32 i = 1; i < 4; i++)
		CHECK(kc_stopped(i, 40000));
	kc_report();
	OK_VALUE(HC(KEEL_CALL_BASE_PING, 9), 9);
}

static void read_clock(struct kc *c)
{
	u64 last = 0;

	for (u64 i = 0; i < c->arg && !c->failed; i++) {
		/* Time that one vCPU read and passed on has come on every other. */
		u64 before = __atomic_load_n(&shared[2], __ATOMIC_ACQUIRE), now = kt_now();

		KC_CHECK(c, now >= last);
		if (now + 1000000 < before) /* clocks of processors may differ a little */
			KC_EQ(c, now, before);
		__atomic_store_n(&shared[2], now, __ATOMIC_RELEASE);
		last = now;
		c->count++;
	}
}

KEEL_TEST("SMP-034", smp_time, "KEEL-TIME-02 KEEL-VCPU-24", "profile=SMP vcpus=4 ext=66 timeout=30", 0)
{
	kc_needed(4);
	for (u32 i = 1; i < 4; i++)
		start(i, read_clock, 20000 / kt_scale + 300);
	kc[0].arg = 20000 / kt_scale + 300;
	read_clock(&kc[0]);
	for (u32 i = 1; i < 4; i++)
		CHECK(kc_stopped(i, 20000));
	kc_report();
}

/* Each vCPU steps through short user code of its own while the others do the same. */
USER_CODE(count_up, "	inc %r12\n	mov %r12, (%rdi)\n	syscall\n");

static void own_user(struct kc *c)
{
	struct ku *x = &ctx[c->id];
	u64 as = c->at;

	for (u64 i = 1; i <= c->arg && !c->failed; i++) {
		struct kt_ret r;

		x->u.rip = KU_CODE;
		do {
			r = ku_enter(as, x);
		} while (!r.status && r.value == KEEL_USER_EVENT);
		KC_EQ(c, r.status, 0);
		KC_EQ(c, r.value, KEEL_USER_SYSCALL);
		KC_EQ(c, x->u.r12, i);
		KC_EQ(c, *(volatile u64 *)kt_ram(KU_DATA_AT(KU_GPA + c->id * KU_PAGES * 4096)), i);
		c->count++;
	}
}

KEEL_TEST("SMP-035", smp_user_side_by_side, "KEEL-USER-02 KEEL-USER-21 KEEL-VCPU-24 KEEL-AS-11",
	  "profile=SMP vcpus=4 ext=66 timeout=60", 0)
{
	u64 as[4];

	kc_needed(4);
	ku_needed();
	for (u32 i = 0; i < 4; i++) {
		as[i] = ku_make(KU_GPA + i * KU_PAGES * 4096, KU(count_up));
		ku_context(&ctx[i], KU_CODE);
		ctx[i].u.rdi = KU_DATA;
	}
	for (u32 i = 0; i < 4; i++)
		kc[i].at = as[i];
	for (u32 i = 1; i < 4; i++)
		OK(kc_start(i, own_user, 3000 / kt_scale + 50));
	kc[0].arg = 3000 / kt_scale + 50;
	own_user(&kc[0]);
	for (u32 i = 1; i < 4; i++) {
		CHECK(kc_stopped(i, 30000));
		CHECK_EQ(kc[i].count, 3000 / kt_scale + 50);
	}
	kc_report();
}

KEEL_TEST("SMP-036", smp_self_and_idle, "KEEL-VCPU-14 KEEL-VCPU-21 KEEL-VCPU-25 KEEL-VCPU-07",
	  "profile=SMP vcpus=16 ext=66 timeout=30", 0)
{
	kc_needed(16);
	/* Waiters and spinners hold nobody up for ever. */
	for (u32 i = 1; i < 16; i++) {
		start(i, i & 1 ? spin_until_told : sleep_on, 0);
		CHECK(kc_until(&kc[i].go, 1, 10000));
		OK_VALUE(HC(KEEL_CALL_VCPU_INFO, i, 0), KEEL_VCPU_RUNNING);
	}
	for (u32 i = 0; i < 100; i++)
		OK_VALUE(HC(KEEL_CALL_VCPU_YIELD, i % 16), 0);
	for (u32 i = 2; i < 16; i += 2)
		kc_stop(i);
	for (u32 i = 1; i < 16; i += 2)
		kc[i].stop = 1;
	for (u32 i = 1; i < 16; i++)
		CHECK(kc_stopped(i, 10000));
	kc_report();
}

/* Sent faster than the one they are for can take them, whatever it does meanwhile. */
static void dump_storm(struct kc *c)
{
	__atomic_store_n(&c->go, 1, __ATOMIC_RELEASE);
	for (u64 i = 0; i < c->arg; i++)
		KC_EQ(c, HC(KEEL_CALL_EVENT_DUMP, 0).status, 0);
	c->count = c->arg;
}

KEEL_TEST("SMP-037", smp_dump_storm, "KEEL-VCPU-24 KEEL-TRAP-20 KEEL-VCPU-06", "profile=SMP vcpus=4 ext=66 timeout=60",
	  0)
{
	const u64 each = 200000 / kt_scale + 500;
	u64 before;

	kc_needed(4);
	for (u32 i = 1; i < 4; i++)
		start(i, dump_storm, each);
	for (u32 n = 0, left = 3; left; n++) {
		if (n % 4 == 3)
			HC(KEEL_CALL_VCPU_WAIT, kt_now() + MS);
		else if (n % 4 == 2)
			kc_yield();
		else
			for (u32 k = 0; k < 1000; k++)
				kc_pause();
		left = 0;
		for (u32 i = 1; i < 4; i++)
			left += HC(KEEL_CALL_VCPU_INFO, i, KEEL_VCPU_INFO_STATE).value != KEEL_VCPU_STOPPED;
	}
	kc_report();
	for (u32 i = 1; i < 4; i++)
		CHECK_EQ(kc[i].count, each);
	kt_note("%lu dumps taken of %lu", kc[0].dumps, 3 * each);
	CHECK(kc[0].dumps);
	before = kc[0].dumps;
	OK(HC(KEEL_CALL_EVENT_DUMP, 0));
	for (u32 i = 0; kc[0].dumps == before && i < 100; i++)
		HC(KEEL_CALL_VCPU_WAIT, kt_now() + MS);
	CHECK_EQ(kc[0].dumps, before + 1);
}
