// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* The runtime of a paravirtual image: start info, entries of the frame classes, address space. See kt.h. */
#include "kt.h"

const struct keel_start *kt_start;
u64 kt_entry_flags, kt_entry_rsp;
struct keel_frame kt_trap_frame;
u64 kt_traps;
kt_handler *kt_on[KEEL_CLASS_COUNT];
extern u64 kt_fixup, kt_fixup_rsp;

static u8 double_stack[8192] __attribute__((aligned(16)));
static struct keel_mmu_record one_record __attribute__((aligned(32)));

u64 kt_ram_size(void)
{
	const struct keel_memmap_entry *m;
	u32 size;
	u64 end = 0;

	m = kt_chunk(KEEL_CHUNK_MEMMAP, &size);
	for (; m && size >= sizeof(*m); m++, size -= sizeof(*m))
		if (m->type != KEEL_MEM_ABI && m->gpa + m->len > end)
			end = m->gpa + m->len;
	return end;
}

/*
 * What a refused call could have changed. The save slots, the guest words and
 * the clock are left out: no call writes them but by delivering.
 */
u64 kt_digest(void)
{
	const volatile u64 *w = (const volatile u64 *)kt_vcpu;
	const u64 *scratch = kt_ram(KT_SCRATCH_GPA);
	u64 h = 0xcbf29ce484222325;

	for (size_t i = 0; i < sizeof(*kt_vcpu) / 8; i++)
		if (i < KEEL_VCPU_SLOT(0) / 8 || i >= KEEL_VCPU_SLOT(KEEL_CLASS_COUNT) / 8)
			h = (h ^ w[i]) * 0x100000001b3;
	for (u64 i = 0; i < 16; i++) {
		struct kt_ret r = HC(KEEL_CALL_MMU_QUERY, 0, KT_VA + i * KEEL_PAGE_SIZE);

		h = kt_hash(h, &r, sizeof(r));
	}
	for (u64 i = 0; i < 4; i++) {
		static const u64 at[4] = { KEEL_VA_MIN, 0x400000, KT_LINEAR, KEEL_VA_END - KEEL_PAGE_SIZE };
		struct kt_ret r = HC(KEEL_CALL_MMU_QUERY, 0, at[i]);

		h = kt_hash(h, &r, sizeof(r));
	}
	for (u64 i = 0; i < KEEL_EXT_COUNT; i++) {
		struct kt_ret r = HC(KEEL_CALL_BASE_PROBE, i);

		h = kt_hash(h, &r, sizeof(r));
	}
	for (u64 i = 0; i < 8 * KEEL_PAGE_SIZE / 8; i++)
		h = (h ^ scratch[i]) * 0x100000001b3;
	return h;
}

struct kt_ret kt_mmu(u32 op, u64 va, u64 gpa, u64 len, u32 prot, u32 flags)
{
	struct kt_ret r;

	for (;;) {
		one_record = (struct keel_mmu_record){
			.op = (u16)op, .prot = (u16)prot, .flags = flags, .va = va, .gpa = gpa, .len = len
		};
		r = HC(KEEL_CALL_MMU_BATCH, 0, kt_gpa(&one_record), 1);
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

u64 kt_query(u64 va)
{
	struct kt_ret r = HC(KEEL_CALL_MMU_QUERY, 0, va);

	return r.status ? 0 : r.value;
}

/* Entries. */
static void on_trap(struct keel_frame *f)
{
	kt_traps++;
	kt_trap_frame = *f;
	if (kt_fixup) {
		f->rip = kt_fixup;
		f->rsp = kt_fixup_rsp;
		kt_fixup = 0;
		return;
	}
	kt_fail("kt.c", __LINE__, "unexpected trap %u error %lx addr %lx rip %lx", f->vector, f->error, f->addr,
		f->rip);
	kt_finish();
}

static void on_event(struct keel_frame *f)
{
	(void)f;
	kt_upcalls++;
	kt_scan();
}

static void on_double(struct keel_frame *f)
{
	kt_fail("kt.c", __LINE__, "unexpected double fault at %lx addr %lx", f->rip, f->addr);
	kt_finish();
}

void kt_dispatch(struct keel_frame *f);
void kt_dispatch(struct keel_frame *f)
{
	if (f->class_ >= KEEL_CLASS_COUNT || !kt_on[f->class_]) {
		kt_fail("kt.c", __LINE__, "entry of class %u without a handler", f->class_);
		kt_finish();
	}
	kt_on[f->class_](f);
}

void kt_return_failed(s64 status);
void kt_return_failed(s64 status)
{
	kt_fail("kt.c", __LINE__, "trap_return came back with %ld", status);
	kt_finish();
}

void kt_set_entry(u32 class, u64 stack)
{
	static void (*const entry[])(void) = { kt_entry_trap, kt_entry_event, kt_entry_dump, kt_entry_double };

	OK(HC(KEEL_CALL_TRAP_SET, class, entry[class], stack));
}

void kt_events_on(void)
{
	kt_on[KEEL_CLASS_EVENT] = on_event;
	kt_set_entry(KEEL_CLASS_EVENT, 0);
}

/* Start info. */
const void *kt_chunk(u32 type, u32 *size)
{
	const u8 *p = (const u8 *)(kt_start + 1), *end = (const u8 *)kt_start + kt_start->size;

	for (u32 i = 0; i < kt_start->chunks && p + sizeof(struct keel_chunk) <= end; i++) {
		const struct keel_chunk *c = (const struct keel_chunk *)p;

		if (c->type == type) {
			*size = c->size - (u32)sizeof(*c);
			return c + 1;
		}
		p += (c->size + 7) & ~7u;
	}
	*size = 0;
	return NULL;
}

u64 kt_fp_mask(size_t size)
{
	const struct keel_cpu_info *cpu;
	u32 n;

	cpu = kt_chunk(KEEL_CHUNK_CPU, &n);
	REQUIRE(cpu && cpu->xsave_size <= size);
	return cpu->cpuid[0] & 1u << 27 ? cpu->xfeatures & 0xe7 : 0;
}

void kt_setup(void)
{
	kt_start = (const struct keel_start *)kt_init.rdi;
}

const char *kt_cmdline(u32 *size)
{
	return kt_chunk(KEEL_CHUNK_CMDLINE, size);
}

void kt_prepare(const struct kt_test *t)
{
	if (t->flags & KT_EARLY)
		return;
	kt_accept_all();
	kt_freeze();
	kt_on[KEEL_CLASS_TRAP] = on_trap;
	kt_on[KEEL_CLASS_DOUBLE] = on_double;
	kt_set_entry(KEEL_CLASS_TRAP, 0);
	kt_set_entry(KEEL_CLASS_DOUBLE, (u64)(double_stack + sizeof(double_stack)));
	kt_poison(KT_SCRATCH_GPA, 8 * KEEL_PAGE_SIZE, 42);
}
