// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Address spaces, user contexts and other vCPUs, for the tests. See kt_user.h. */
#include "kt_user.h"

/* Bits of feature word 1 are numbered from 64 on in the manifest. */
#define EXT_SMP (64 + KEEL_F1_SMP)

struct kc kc[KC_MAX];

void ku_needed(void)
{
	if ((HC(KEEL_CALL_BASE_PROBE, KEEL_EXT_AS).value & 3) != 3)
		kt_skip(KEEL_EXT_USER, "AS is not offered");
	if ((HC(KEEL_CALL_BASE_PROBE, KEEL_EXT_USER).value & 3) != 3)
		kt_skip(KEEL_EXT_USER, "USER is not offered");
}

u64 ku_space(void)
{
	struct kt_ret r = HC(KEEL_CALL_AS_CREATE, 0);

	if (!OK(r))
		kt_finish();
	return r.value;
}

struct kt_ret ku_mmu(u64 as, u32 op, u64 va, u64 gpa, u64 len, u32 prot, u32 flags)
{
	struct keel_mmu_record record __attribute__((aligned(32))); /* stacks are in the image */
	struct kt_ret r;

	for (;;) {
		*(volatile struct keel_mmu_record *)&record = (struct keel_mmu_record){
			.op = (u16)op, .prot = (u16)prot, .flags = flags, .va = va, .gpa = gpa, .len = len
		};
		r = HC(KEEL_CALL_MMU_BATCH, as, kt_gpa(&record), 1);
		if (r.status || KEEL_MMU_DONE_RECORDS(r.value))
			return r;
		u64 step = KEEL_MMU_DONE_PAGES(r.value) * KEEL_PAGE_SIZE;

		if (!step || step >= len)
			return (struct kt_ret){ 1, r.value }; /* no progress is no answer */
		va += step;
		len -= step;
		if (op == KEEL_MMU_MAP)
			gpa += step;
	}
}

u64 ku_query(u64 as, u64 va)
{
	struct kt_ret r = HC(KEEL_CALL_MMU_QUERY, as, va);

	return r.status ? 0 : r.value;
}

u64 ku_info(u64 as, u32 what)
{
	struct kt_ret r = HC(KEEL_CALL_AS_INFO, as, what);

	OK(r);
	return r.value;
}

void ku_destroy(u64 as)
{
	struct kt_ret r;

	do {
		r = HC(KEEL_CALL_AS_DESTROY, as);
	} while (r.status == KEEL_STATUS(KEEL_E_AGAIN, 0));
	OK(r);
}

struct kt_ret ku_clone(u64 as, u64 flags)
{
	struct kt_ret r;

	do {
		r = HC(KEEL_CALL_AS_CLONE, as, flags);
	} while (r.status == KEEL_STATUS(KEEL_E_AGAIN, 0));
	return r;
}

void ku_code(u64 gpa, const u8 *code, const u8 *end)
{
	memset(kt_ram(gpa), 0xcc, KEEL_PAGE_SIZE);
	memcpy(kt_ram(gpa), code, (size_t)(end - code));
}

u64 ku_make(u64 gpa, const u8 *code, const u8 *end)
{
	u64 as = ku_space();

	ku_code(gpa, code, end);
	memset(kt_ram(gpa + KEEL_PAGE_SIZE), 0, (KU_PAGES - 1) * KEEL_PAGE_SIZE);
	OK(KU_MAP(as, KU_CODE, gpa, KEEL_PAGE_SIZE, KU_RX));
	OK(KU_MAP(as, KU_DATA, KU_DATA_AT(gpa), KU_DATA_PAGES * KEEL_PAGE_SIZE, KU_RW));
	OK(KU_MAP(as, KU_STACK - 4 * KEEL_PAGE_SIZE, gpa + (1 + KU_DATA_PAGES) * KEEL_PAGE_SIZE, 4 * KEEL_PAGE_SIZE,
		  KU_RW));
	return as;
}

void ku_context(struct ku *c, u64 rip)
{
	const struct keel_cpu_info *cpu;
	u32 n;

	cpu = kt_chunk(KEEL_CHUNK_CPU, &n);
	memset(c, 0, sizeof(*c));
	REQUIRE(cpu && cpu->xsave_size <= KU_XSAVE_MAX);
	c->u.size = KEEL_USER_XSAVE + cpu->xsave_size;
	c->u.rip = rip;
	c->u.rsp = KU_STACK;
	ku_fp_init(c->xsave);
}

struct kt_ret ku_enter(u64 as, struct ku *c)
{
	return HC(KEEL_CALL_USER_ENTER, as, kt_gpa(c), 0);
}

u32 ku_run(u64 as, struct ku *c)
{
	for (u64 i = 0; i < 10000000; i++) {
		struct kt_ret r = ku_enter(as, c);

		if (r.status || r.value != c->u.reason) {
			OK_VALUE(r, c->u.reason);
			return 0;
		}
		if (r.value != KEEL_USER_EVENT || kt_pending())
			return (u32)r.value;
	}
	KT_FAIL("user_enter returns for no reason, for ever");
	return 0;
}

const char *ku_reason(const struct ku *c)
{
	static const char *const name[] = { "none", "system call", "exception", "event" };

	return c->u.reason < 4 ? name[c->u.reason] : "unknown";
}

/* XSAVE areas in standard format. */
void ku_fp_init(u8 *area)
{
	memset(area, 0, 576);
	area[0] = 0x7f; /* FCW 0x37f, MXCSR 0x1f80 */
	area[1] = 3;
	area[24] = 0x80;
	area[25] = 0x1f;
}

void ku_fp_fill(u8 *area, u64 mask, u64 seed)
{
	const struct keel_cpu_info *cpu;
	u32 n;
	u64 bv = mask ? mask : 3;

	cpu = kt_chunk(KEEL_CHUNK_CPU, &n);
	for (u32 i = 0; i < cpu->xsave_size; i++)
		area[i] = (u8)((seed + i) * 0x9e3779b97f4a7c15 >> 56) | 1; /* no zeros: nothing looks initial */
	memset(area, 0, 32);
	area[0] = 0x7f; /* FCW 0xf7f: another rounding mode than at start */
	area[1] = 0xf;
	area[4] = 0xff;	 /* all x87 registers valid */
	area[24] = 0x80; /* MXCSR 0x7f80 */
	area[25] = 0x7f;
	for (int r = 0; r < 8; r++)
		memset(area + 32 + 16 * r + 10, 0, 6);
	memset(area + 416, 0, 160); /* legacy tail and header */
	memcpy(area + 512, &bv, 8);
}

void ku_fp_normal(u8 *area, u64 mask)
{
	const struct keel_cpu_info *cpu;
	u8 mxcsr[4];
	u32 n;
	u64 bv;

	cpu = kt_chunk(KEEL_CHUNK_CPU, &n);
	memcpy(&bv, area + 512, 8);
	memcpy(mxcsr, area + 24, 4);
	if (!(bv & 1)) {
		memset(area, 0, 24);
		memset(area + 32, 0, 128);
		area[0] = 0x7f;
		area[1] = 3;
	}
	memcpy(area + 24, mxcsr, 4);
	if (!(bv & 2)) {
		memset(area + 160, 0, 256);
		if (!(bv & 4)) { /* with neither SSE nor AVX in use MXCSR may not be stored */
			area[24] = 0x80;
			area[25] = 0x1f;
		}
	}
	for (u32 k = 2; k < 8; k++)
		if (mask >> k & 1 && !(bv >> k & 1))
			memset(area + cpu->xsave_offset[k], 0, cpu->xsave_bytes[k]);
}

bool ku_fp_equal(const u8 *a, const u8 *b, u64 mask)
{
	const struct keel_cpu_info *cpu;
	u32 n;

	cpu = kt_chunk(KEEL_CHUNK_CPU, &n);
	if (memcmp(a, b, 5) || memcmp(a + 24, b + 24, 4) || memcmp(a + 160, b + 160, 256))
		return false;
	for (int r = 0; r < 8; r++)
		if (memcmp(a + 32 + 16 * r, b + 32 + 16 * r, 10))
			return false;
	for (u32 k = 2; k < 8; k++)
		if (mask >> k & 1 && memcmp(a + cpu->xsave_offset[k], b + cpu->xsave_offset[k], cpu->xsave_bytes[k]))
			return false;
	return true;
}

/* Other vCPUs. */
struct kc *kc_self(void)
{
	u32 id;

	__asm__ volatile("mov %%gs:%c1, %0" : "=r"(id) : "i"(KEEL_VCPU_ID));
	return &kc[id % KC_MAX];
}

struct keel_vcpu *kc_page(u32 id)
{
	const struct keel_abi_pages *p;
	u32 n;

	p = kt_chunk(KEEL_CHUNK_ABI, &n);
	REQUIRE(p);
	return (struct keel_vcpu *)(p->vcpu_va + (u64)id * p->vcpu_stride);
}

static void smp_trap(struct keel_frame *f)
{
	struct kc *c = kc_self();

	c->traps++;
	c->trap = *f;
	if (c->fixup) {
		f->rip = c->fixup;
		f->rsp = c->fixup_rsp;
		c->fixup = 0;
		return;
	}
	kt_fail("kt_user.c", __LINE__, "vCPU %u: unexpected trap %u error %lx addr %lx rip %lx", c->id, f->vector,
		f->error, f->addr, f->rip);
	kt_finish();
}

static kt_handler *first_trap;

/* vCPU 0 has the runtime's probes as well. */
static void any_trap(struct keel_frame *f)
{
	struct kc *c = kc_self();

	if (c->id || c->fixup)
		smp_trap(f);
	else
		first_trap(f);
}

void kc_scan(struct kc *c)
{
	struct keel_vcpu *v = c->page;
	u64 pending;

	while ((pending = __atomic_load_n(&v->pending, __ATOMIC_ACQUIRE))) {
		u32 w = (u32)__builtin_ctzll(pending);
		u64 bits;

		__atomic_fetch_and(&v->pending, ~(1ull << w), __ATOMIC_SEQ_CST);
		bits = __atomic_load_n(&v->event_pending[w], __ATOMIC_SEQ_CST) &
		       ~__atomic_load_n(&v->event_mask[w], __ATOMIC_SEQ_CST);
		for (; bits; bits &= bits - 1) {
			u32 bit = w * 64 + (u32)__builtin_ctzll(bits);

			__atomic_fetch_and(&v->event_pending[w], ~(1ull << (bit & 63)), __ATOMIC_SEQ_CST);
			c->seen[bit]++;
		}
	}
}

static void smp_event(struct keel_frame *f)
{
	struct kc *c = kc_self();

	(void)f;
	c->upcalls++;
	kc_scan(c);
}

static void smp_dump(struct keel_frame *f)
{
	(void)f;
	kc_self()->dumps++;
}

void kc_sti(struct kc *c)
{
	__atomic_store_n(&c->page->if_enabled, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&c->page->pending, __ATOMIC_SEQ_CST))
		HC(KEEL_CALL_TRAP_DELIVER);
}

void kc_needed(u32 vcpus)
{
	if (!(HC(KEEL_CALL_BASE_FEATURES, 1).value >> KEEL_F1_SMP & 1))
		kt_skip(EXT_SMP, "SMP is not offered");
	REQUIRE(HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_VCPUS).value >= vcpus && vcpus <= KC_MAX);
	first_trap = kt_on[KEEL_CLASS_TRAP];
	kt_on[KEEL_CLASS_TRAP] = any_trap;
	kt_on[KEEL_CLASS_EVENT] = smp_event;
	kt_on[KEEL_CLASS_DUMP] = smp_dump;
	kt_set_entry(KEEL_CLASS_EVENT, 0);
	kt_set_entry(KEEL_CLASS_DUMP, 0);
	for (u32 i = 0; i < vcpus; i++) {
		kc[i].id = i;
		kc[i].page = kc_page(i);
		kc[i].random = kt_random() | 1;
	}
}

/* Where entry.S goes on a vCPU that was started. */
void kc_main(struct kc *c);
void kc_main(struct kc *c)
{
	kt_set_entry(KEEL_CLASS_TRAP, 0);
	kt_set_entry(KEEL_CLASS_EVENT, 0);
	kt_set_entry(KEEL_CLASS_DUMP, 0);
	c->fn(c);
	HC(KEEL_CALL_VCPU_STOP, c->id);
	kt_fail("kt_user.c", __LINE__, "vcpu_stop of vCPU %u returned to it", c->id);
	kt_finish();
}

struct kt_ret kc_start(u32 id, void (*fn)(struct kc *), u64 arg)
{
	extern const u8 kc_entry[];
	struct kc *c = &kc[id];

	c->stack_top = (u64)(c->stack + KC_STACK);
	c->fn = fn;
	c->arg = arg;
	c->fixup = 0;
	return HC(KEEL_CALL_VCPU_START, id, kc_entry, c);
}

u64 kc_state(u32 id)
{
	struct kt_ret r = HC(KEEL_CALL_VCPU_INFO, id, KEEL_VCPU_INFO_STATE);

	OK(r);
	return r.value;
}

void kc_yield(void)
{
	HC(KEEL_CALL_VCPU_YIELD, KEEL_VCPU_ANY);
}

bool kc_stopped(u32 id, u64 ms)
{
	u64 end = kt_now() + ms * 1000000 * kt_slow();

	while (kc_state(id) != KEEL_VCPU_STOPPED) {
		if (kt_now() > end)
			return false;
		kc_yield();
	}
	return true;
}

void kc_stop(u32 id)
{
	struct kt_ret r;
	u64 end = kt_now() + 10000000000 * kt_slow();

	do {
		r = HC(KEEL_CALL_VCPU_STOP, id);
		if (r.status == KEEL_STATUS(KEEL_E_AGAIN, 0))
			kc_yield();
	} while (r.status == KEEL_STATUS(KEEL_E_AGAIN, 0) && kt_now() < end);
	OK(r);
}

bool kc_until(const volatile u64 *word, u64 value, u64 ms)
{
	u64 end = kt_now() + ms * 1000000 * kt_slow();

	for (u32 i = 0; __atomic_load_n(word, __ATOMIC_ACQUIRE) < value; i++) {
		if (i % 64 == 63) {
			if (kt_now() > end)
				return false;
			kc_yield();
		}
		kc_pause();
	}
	return true;
}

u32 kc_port_at(struct kc *c, u32 bit)
{
	(void)c;
	for (u32 i = 0; i < KEEL_EVENT_BITS_PER_PRIORITY; i++) {
		struct kt_ret r = HC(KEEL_CALL_EVENT_ALLOC, bit / KEEL_EVENT_BITS_PER_PRIORITY);

		if (r.status)
			return 0;
		if (KEEL_PORT_BIT(r.value) == bit)
			return (u32)r.value;
	}
	return 0;
}

u64 kc_random(struct kc *c)
{
	c->random ^= c->random << 13;
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	return c->random * 0x2545f4914f6cdd1d;
}

bool kc_check(struct kc *c, u64 line, u64 got, u64 want)
{
	if (got == want)
		return true;
	if (!c->failed) {
		c->got = got;
		c->want = want;
		c->failed = line;
	}
	return false;
}

void kc_report(void)
{
	for (u32 i = 0; i < KC_MAX; i++)
		if (kc[i].failed) {
			kt_fail("vcpu", (int)kc[i].failed, "vCPU %u: %lx, expected %lx", i, kc[i].got, kc[i].want);
			kc[i].failed = 0;
		}
}

int kc_read(struct kc *c, u64 va, u64 *value)
{
	u64 v = 0;
	int trapped = 0;

	__asm__ volatile("lea 1f(%%rip), %%rax\n\t"
			 "mov %%rax, %2\n\t"
			 "mov %%rsp, %3\n\t"
			 "mov (%4), %1\n\t"
			 "jmp 2f\n"
			 "1:	mov $1, %0\n"
			 "2:	movq $0, %2"
			 : "+r"(trapped), "+r"(v), "=m"(c->fixup), "=m"(c->fixup_rsp)
			 : "r"(va)
			 : "rax", "memory");
	*value = v;
	return trapped;
}

int kc_write(struct kc *c, u64 va, u64 value)
{
	int trapped = 0;

	__asm__ volatile("lea 1f(%%rip), %%rax\n\t"
			 "mov %%rax, %1\n\t"
			 "mov %%rsp, %2\n\t"
			 "mov %4, (%3)\n\t"
			 "jmp 2f\n"
			 "1:	mov $1, %0\n"
			 "2:	movq $0, %1"
			 : "+r"(trapped), "=m"(c->fixup), "=m"(c->fixup_rsp)
			 : "r"(va), "r"(value)
			 : "rax", "memory");
	return trapped;
}
