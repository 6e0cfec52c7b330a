// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/*
 * The guest of the differential run: executes a list of operations (ops.h) and
 * says after each what could be observed. It judges nothing; keel-diff compares
 * what two hosts let it see.
 *
 * Command line: test=DIFF and
 *	seed=S ops=N	the first N operations of a seed, or
 *	list=W,W,...	operations by their words, in hexadecimal, or
 *	(neither)	the words of the first module, 8 bytes each
 *	detail=K	say all that was noted of operation K, and end after it
 *	f0=M f1=M	the features to accept and to look at
 *	avoid=M		exceptions (bit n: number n of do_trap) the processor at hand cannot raise
 *
 * Output: a line of 16 digits for each operation, a digest of all its notes;
 * "end N" at the end. Lines that begin with "~" came through the console ring.
 *
 * Everything compared goes through note(). Where SPEC leaves a host freedom the
 * value is brought to what all conforming hosts share before it is noted; each
 * such place says which clause it goes by.
 */
#include "kt.h"
#include "ops.h"

#define IN ((void *)(KT_LINEAR + DIFF_IN_GPA))
#define OUT ((u8 *)(KT_LINEAR + DIFF_OUT_GPA))
#define ARITHMETIC 0x8d5u /* CF PF AF ZF SF OF */
#define TF 0x100u
#define DF 0x400u
#define CODE_AT 0x800	       /* in every frame: mov $0x2a, %eax; ret */
#define PATIENCE 5000000000ull /* ns of guest time until something that must happen counts as lost */
#define CHECKPOINT 256	       /* operations between two looks at everything */

extern u64 kt_fixup, kt_fixup_rsp;

struct slot {
	u32 handle, stale;
	u32 stale_at; /* value of `allocs` when it became stale */
	bool live;
	u8 bound; /* 1 + source */
};

static struct slot slot[DIFF_PORTS];
static u32 allocs;
static u64 ram, limit_batch, clock_gpa;
static u64 feature[KEEL_FEATURE_WORDS];
static u64 list[DIFF_OPS_MAX];
static u64 nlist;
static u64 avoid;
static struct op op;
static u32 op_number;

/* Entries as OP_SET left them; a call that changes them is followed by putting them back. */
static struct {
	bool on;
	bool own_stack;
} entry_state[KEEL_CLASS_COUNT];
static u8 class_stack[KEEL_CLASS_COUNT][8192] __attribute__((aligned(16)));

/* What HARVEST has to report of the small region. */
static bool tracked[DIFF_SMALL_PAGES], written[DIFF_SMALL_PAGES];
static bool released[DIFF_POOL_PAGES]; /* the host changed the frame, so it may report it (KEEL-HARVEST-14) */
static u32 reported;		       /* of the last bitmap, without those */

/* Events taken since the last note of them, by slot. */
static u32 taken[DIFF_PORTS], taken_strange;
static u64 handler_action;
static bool exact; /* every register of the interrupted code is known */
static u64 exact_rdi;

static u64 digest;
static bool loud;

static void note(const char *what, u64 a, u64 b, u64 c)
{
	digest = (digest ^ a) * 0x9fb21c651e98df25;
	digest = (digest ^ digest >> 32 ^ b) * 0x9fb21c651e98df25;
	digest = (digest ^ digest >> 32 ^ c) * 0x9fb21c651e98df25;
	digest ^= digest >> 32;
	if (loud)
		kt_note("%s %lx %lx %lx", what, a, b, c);
}

static void say_line(u64 v)
{
	u64 w[3];
	char *s = (char *)w;

	for (u32 i = 0; i < 16; i++)
		s[i] = "0123456789abcdef"[v >> (60 - 4 * i) & 15];
	w[2] = '\n';
	HC(KEEL_CALL_CONSOLE_WRITE, 17, w[0], w[1], w[2], 0);
}

/*
 * Accesses with every register known, so that a trap frame can be compared whole.
 * rdi is the address, rsi what is written; returns 1 when it trapped, else 0 and rax.
 */
struct kt_ret diff_read(u64 va, u64 value);
struct kt_ret diff_write(u64 va, u64 value);
struct kt_ret diff_fetch(u64 va, u64 value);
struct kt_ret diff_ud(u64 va, u64 value);
struct kt_ret diff_bp(u64 va, u64 value);
struct kt_ret diff_de(u64 va, u64 value);
struct kt_ret diff_gp(u64 va, u64 value);
struct kt_ret diff_ss(u64 va, u64 value);
struct kt_ret diff_step(u64 va, u64 value);
/* The registers r through trap_return of a class whose slot is filled but for them; 0, or what it was refused with. */
s64 diff_resume(u64 class);
extern const u8 diff_landing[];
extern u64 diff_landed[17]; /* rax .. r15 without rsp as in a frame, rflags, rsp */
static bool in_small(u64 va)
{
	return va >= DIFF_SMALL_VA && va < DIFF_SMALL_VA + DIFF_SMALL_PAGES * KEEL_PAGE_SIZE;
}

static u32 small_page(u64 va)
{
	return (u32)((va - DIFF_SMALL_VA) / KEEL_PAGE_SIZE);
}

/* gpa | prot of a page, 0 when unmapped. Where an ABI page is in GPA is the host's choice (KEEL-START-13). */
static u64 query(u64 va)
{
	u64 q = kt_query(va);

	return (q & ~0xfffull) == clock_gpa ? ~0xfffull | (q & 0xfff) : q;
}

static u64 entry_va(u32 class)
{
	static void (*const entry[])(void) = { kt_entry_trap, kt_entry_event, kt_entry_dump, kt_entry_double };

	return (u64)entry[class];
}

static void put_entry(u32 class)
{
	HC(KEEL_CALL_TRAP_SET, class, entry_state[class].on ? entry_va(class) : 0,
	   entry_state[class].own_stack ? (u64)class_stack[class] + sizeof(class_stack[class]) : 0);
}

/*
 * A frame. Between a call and the next instruction rcx, r11 and the arithmetic flags are unspecified (KEEL-CALL-03),
 * so in a frame of an event or dump they are left out; where the compiler's code was interrupted so are
 * the registers in which it may keep a handle, a time or an address of the host's.
 */
static void note_frame(const char *what, const struct keel_frame *f, bool after_call)
{
	const u64 flags = after_call ? f->rflags & ~(u64)ARITHMETIC : f->rflags;

	note(what, f->vector, f->error, f->addr);
	note("frame: class state mode", f->class_, f->state, f->mode);
	note("frame: rip rsp rflags", f->rip, f->rsp, flags);
	note("frame: reserved", f->reserved[0], f->reserved[1], 0);
	/* KEEL-TRAP-04; the arithmetic flags at an entry are unspecified. */
	note("entry: rsp flags", kt_entry_rsp, kt_entry_flags & (TF | DF | 0x44000), 0);
	if (after_call && !exact)
		return;
	note("frame: rax rbx rdx", f->rax, f->rbx, f->rdx);
	if (exact_rdi)
		note("frame: rdi as it was, rsi rbp", f->rdi == exact_rdi, f->rsi, f->rbp);
	else
		note("frame: rdi rsi rbp", f->rdi, f->rsi, f->rbp);
	note("frame: r8 r9 r10", f->r8, f->r9, f->r10);
	note("frame: r12 r13 r14", f->r12, f->r13, f->r14);
	note("frame: r15", f->r15, 0, 0);
	if (!after_call)
		note("frame: rcx r11", f->rcx, f->r11, 0);
}

static bool exact_return; /* the context was resumed by trap_return: even rcx, r11 and the flags are known */

static void on_trap(struct keel_frame *f)
{
	struct keel_frame g = *f;

	/* An address that is not canonical is #GP, or #SS where it goes through rbp (KEEL-NORM-07). */
	if (op.kind == OP_TRAP && op.a[0] == 4 && g.vector == KEEL_VEC_SS)
		g.vector = KEEL_VEC_GP;
	note_frame("trap: vector error addr", &g, false);
	if (f->vector == KEEL_VEC_DB) {
		f->rflags &= ~(u64)TF;
		return;
	}
	if (f->vector == KEEL_VEC_BP)
		return;
	if (!kt_fixup) {
		kt_note("lost: operation %u, vector %u error %lx addr %lx rip %lx", op_number, f->vector, f->error,
			f->addr, f->rip);
		kt_fails++;
		kt_finish();
	}
	f->rip = kt_fixup;
	f->rsp = kt_fixup_rsp;
	kt_fixup = 0;
}

static void on_double(struct keel_frame *f)
{
	note_frame("double: vector error addr", f, false);
	kt_vcpu->slot[KEEL_CLASS_TRAP].frame.state = KEEL_SLOT_FREE;
	if (!kt_fixup) {
		kt_note("lost: operation %u, double fault at %lx", op_number, f->rip);
		kt_fails++;
		kt_finish();
	}
	f->rip = kt_fixup;
	f->rsp = kt_fixup_rsp;
	kt_fixup = 0;
}

static void on_bit(u32 bit)
{
	for (u32 i = 0; i < DIFF_PORTS; i++) {
		if (slot[i].live && KEEL_PORT_BIT(slot[i].handle) == bit) {
			taken[i]++;
			return;
		}
	}
	taken_strange++;
}

/* Which bit a port has is the host's choice (KEEL-EVENT-03), so what was taken is noted by slot, not in order. */
static void note_taken(void)
{
	u64 which = 0, n = 0;

	for (u32 i = 0; i < DIFF_PORTS; i++) {
		which |= taken[i] ? 1ull << i : 0;
		n += taken[i];
		taken[i] = 0;
	}
	if (n || taken_strange)
		note("taken: slots times strange", which, n, taken_strange);
	taken_strange = 0;
}

static void access(const struct op_access *x);

static void on_event(struct keel_frame *f)
{
	/* An upcall with nothing pending is legal (KEEL-EVENT-19) and leaves no trace. */
	if (!kt_pending())
		return;
	note("upcall: IF", kt_vcpu->if_enabled, 0, 0);
	note_frame("event: vector error addr", f, !exact_return);
	kt_scan();
	note_taken();
}

static void act(u64 action)
{
	struct kt_ret r = { 0, 0 };

	switch (action) {
	case 1:
		access(&op.access[0]);
		return;
	case 2:
		r = HC(KEEL_CALL_VCPU_WAIT, 0);
		break;
	case 3:
		r = HC(KEEL_CALL_EVENT_DUMP, 0);
		break;
	case 4:
		r = HC(KEEL_CALL_VCPU_YIELD, ~0ull);
		break;
	case 5:
		r = HC(KEEL_CALL_EVENT_SEND, slot[0].live ? slot[0].handle : 0x00fff000);
		break;
	}
	note("in the handler: status value", (u64)r.status, r.value, action);
}

static void on_dump(struct keel_frame *f)
{
	u64 action = handler_action;

	note("dump: IF", kt_vcpu->if_enabled, 0, 0);
	note_frame("dump: vector error addr", f, !exact_return);
	handler_action = 0;
	if (action)
		act(action);
}

/* What the fetch probe runs must be there, whatever was released or mapped meanwhile. */
static bool code_ready(u64 q)
{
	if (!(q & KEEL_PROT_X))
		return true;
	if ((q & ~0xfffull) >= ram)
		return false;
	memcpy((u8 *)kt_ram(q & ~0xfffull) + CODE_AT, kt_code, (size_t)(kt_code_end - kt_code));
	return true;
}

static void access(const struct op_access *x)
{
	u64 page = x->va & ~0xfffull, va = x->va, q;
	u32 kind = x->kind;
	struct kt_ret r;

	/* The host's window is not to be touched (KEEL-AS-02). */
	if (page >= KEEL_VA_END)
		page = DIFF_SMALL_VA;
	if (kind == ACCESS_CROSS && page + KEEL_PAGE_SIZE == KEEL_VA_END)
		kind = ACCESS_READ;
	q = query(page);
	va = page | (va & 0xfff);
	switch (kind) {
	case ACCESS_WRITE:
		r = diff_write(va, op.word);
		if (!r.status && in_small(va))
			written[small_page(va)] = true;
		break;
	case ACCESS_FETCH:
		if (!code_ready(q))
			return;
		r = diff_fetch(page + CODE_AT, 0);
		break;
	case ACCESS_CROSS:
		va = page + KEEL_PAGE_SIZE - 4;
		/* Which of two missing pages is reported is not said: make it one. */
		if (!q)
			va = page + KEEL_PAGE_SIZE - 8;
		else if (query(page + KEEL_PAGE_SIZE) >> 63)
			q = ~0ull;
		r = diff_read(va, 0);
		break;
	default:
		r = diff_read(va, 0);
	}
	/* The clock page holds what the time was. */
	if (q >> 63)
		r.value = 0;
	note("access: trapped value at", (u64)r.status, r.value, va);
	note("access: kind query", kind, q, 0);
}

static u32 resolve_port(u64 ref, u64 *high)
{
	const struct slot *s = &slot[ref % DIFF_PORTS];
	u32 none = 0x00fff000; /* of a vCPU that does not exist */

	*high = 0;
	switch (ref >> 8) {
	case PORT_LIVE:
		return s->live ? s->handle : none;
	case PORT_STALE:
		/* Generations wrap after 256 uses of a bit; a handle that old is not asked for. */
		return s->stale && allocs - s->stale_at < 200 ? s->stale : none;
	case PORT_GEN:
		return s->live ? s->handle + (1u << 24) : none;
	case PORT_VCPU:
		return (s->live ? s->handle : 0) | 1u << 12;
	default:
		*high = 1ull << 32;
		return s->live ? s->handle : none;
	}
}

static void resolve(struct op_call *c)
{
	for (u32 i = 0; i < 5; i++) {
		u64 high;

		switch (c->ref[i]) {
		case REF_RAM:
			c->arg[i] += ram;
			break;
		case REF_LIMIT:
			c->arg[i] += limit_batch;
			break;
		case REF_PORT:
			c->arg[i] = resolve_port(c->arg[i], &high);
			c->arg[i] |= high;
			break;
		}
	}
}

static bool port_bit(const u64 *map, u32 handle)
{
	u32 b = KEEL_PORT_BIT(handle);

	return __atomic_load_n(&map[b / 64], __ATOMIC_SEQ_CST) >> b % 64 & 1;
}

static void new_port(u32 handle, u64 priority, u32 bound)
{
	u32 i = 0;

	/* Bit and generation are the host's choice (KEEL-EVENT-01, -03); the rest of a handle is not. */
	note("port: vcpu priority masked<<1|pending", KEEL_PORT_VCPU(handle),
	     KEEL_PORT_BIT(handle) / KEEL_EVENT_BITS_PER_PRIORITY == priority,
	     (u64)port_bit(kt_vcpu->event_mask, handle) << 1 | port_bit(kt_vcpu->event_pending, handle));
	allocs++;
	while (i < DIFF_PORTS && slot[i].live)
		i++;
	if (i == DIFF_PORTS) {
		struct kt_ret r = HC(KEEL_CALL_EVENT_CLOSE, handle);

		note("no slot for it: closed", (u64)r.status, r.value, 0);
		return;
	}
	slot[i] = (struct slot){ handle, slot[i].stale, slot[i].stale_at, true, (u8)bound };
	note("slot", i, bound, 0);
}

static void closed_port(u64 handle)
{
	for (u32 i = 0; i < DIFF_PORTS; i++) {
		if (!slot[i].live || slot[i].handle != handle)
			continue;
		slot[i].live = false;
		slot[i].stale = slot[i].handle;
		slot[i].stale_at = allocs;
		slot[i].bound = 0;
		note("closed: slot pending", i, port_bit(kt_vcpu->event_pending, (u32)handle), 0);
	}
}

static void model_map(const struct keel_mmu_record *r, u64 pages)
{
	for (u64 i = 0; i < pages && r->op != KEEL_MMU_PROTECT; i++)
		if (in_small(r->va + i * KEEL_PAGE_SIZE))
			tracked[small_page(r->va + i * KEEL_PAGE_SIZE)] = false;
}

/*
 * What of a bitmap follows from SPEC: 1 when a page is not reported that must be, 2 when one is that is not mapped.
 * A page not written may be reported (KEEL-HARVEST-03), so of the bits only this is compared.
 */
static u64 check_bitmap(u64 va, u64 pages)
{
	u64 missing = 0, phantom = 0;

	reported = 0;
	for (u64 i = 0; i < pages; i++) {
		u64 at = va + i * KEEL_PAGE_SIZE;
		bool bit = OUT[i / 8] >> i % 8 & 1;
		u64 mapped, frame;
		u32 p;

		if (!in_small(at))
			continue;
		p = small_page(at);
		mapped = query(at);
		missing += mapped && (!tracked[p] || written[p]) && !bit;
		phantom += !mapped && bit;
		frame = (mapped - DIFF_POOL_GPA) / KEEL_PAGE_SIZE;
		reported += bit && frame < DIFF_POOL_PAGES && !released[frame];
		tracked[p] = !!mapped;
		written[p] = false;
	}
	return (missing ? 1 : 0) + (phantom ? 2 : 0);
}

static void model_harvest(const struct op_call *c, u64 pages)
{
	const u64 va = c->arg[1];

	if (c->id == KEEL_CALL_HARVEST_COLLECT && c->arg[3] == DIFF_OUT_GPA) {
		note("harvest: not reported | reported unmapped << 1", check_bitmap(va, pages), 0, 0);
		return;
	}
	for (u64 i = 0; i < pages; i++) {
		u64 at = va + i * KEEL_PAGE_SIZE;
		u32 p;

		if (!in_small(at)) {
			if (at >= DIFF_SMALL_VA)
				break;
			continue;
		}
		p = small_page(at);
		/* A start or collect tracks what is mapped, and forgets what was written (KEEL-HARVEST-01, -14). */
		tracked[p] = c->id != KEEL_CALL_HARVEST_STOP && query(at);
		written[p] = false;
	}
}

/* A call was answered: what it changed that the guest keeps books of, and `value` as far as SPEC fixes it. */
static u64 settle(const struct op_call *c, s64 status, u64 value)
{
	const u64 *a = c->arg;

	if (status)
		return value;
	switch (c->id) {
	case KEEL_CALL_BASE_VERSION:
		return value >> 32; /* KEEL-VER-02, -04: hosts of one major version */
	case KEEL_CALL_BASE_HOST:
	case KEEL_CALL_TIME_READ:
		return 0; /* KEEL-BASE-01, KEEL-TIME-02: the host's name, the time */
	case KEEL_CALL_BASE_PROBE:
		/* KEEL-BASE-04: what a host implements is its choice; only what both offer is looked at. */
		return a[0] < KEEL_EXT_COUNT && !(feature[0] >> a[0] & 1) ? 0 : value;
	case KEEL_CALL_BASE_FEATURES:
		return a[0] < KEEL_FEATURE_WORDS ? value & feature[a[0]] : value;
	case KEEL_CALL_BASE_LIMIT:
		return !!value; /* KEEL-BASE-10 */
	case KEEL_CALL_MMU_QUERY:
		return (value & ~0xfffull) == clock_gpa ? value & 0xfff : value;
	case KEEL_CALL_HARVEST_START:
	case KEEL_CALL_HARVEST_STOP:
	case KEEL_CALL_HARVEST_COLLECT: {
		/* How much one call does is the host's choice (KEEL-HARVEST-05), which pages it reports partly (-03). */
		u64 pages = KEEL_HARVEST_DONE_PAGES(value), bits = 0;

		if (c->id == KEEL_CALL_HARVEST_COLLECT && a[3] == DIFF_OUT_GPA)
			for (u64 i = 0; i < pages; i++)
				bits += OUT[i / 8] >> i % 8 & 1;
		else
			bits = KEEL_HARVEST_WRITTEN(value);
		model_harvest(c, pages);
		return (pages && pages <= a[2] / KEEL_PAGE_SIZE) | (u64)(bits == KEEL_HARVEST_WRITTEN(value)) << 1;
	}
	case KEEL_CALL_TRAP_SET:
		put_entry((u32)a[0]);
		return value;
	case KEEL_CALL_EVENT_ALLOC:
		new_port((u32)value, a[0], 0);
		return value >> 32;
	case KEEL_CALL_EVENT_BIND:
		new_port((u32)value, a[1], (u32)a[0] + 1);
		return value >> 32;
	case KEEL_CALL_EVENT_CLOSE:
		closed_port(a[0]);
		return value;
	case KEEL_CALL_MEMORY_RELEASE:
	case KEEL_CALL_MEMORY_POPULATE:
		return value && value <= a[1] / KEEL_PAGE_SIZE; /* KEEL-MEMORY-03 */
	case KEEL_CALL_MULTICALL:
		return value <= a[1]; /* KEEL-MULTI-03; OP_MULTI looks closer */
	}
	return value;
}

static void do_call(struct op_call c)
{
	struct kt_ret r;
	u64 value;

	resolve(&c);
	r = kt_call(c.id, c.arg[0], c.arg[1], c.arg[2], c.arg[3], c.arg[4]);
	value = settle(&c, r.status, r.value);
	note("call: id status value", c.id, (u64)r.status, value);
}

static void do_mmu(void)
{
	struct keel_mmu_record *rec = IN;
	u64 at = 0, pages = 0;
	struct kt_ret r;

	for (u32 i = 0; i < op.n; i++) {
		rec[i] = op.rec[i];
		if (rec[i].gpa == DIFF_GPA_CLOCK)
			rec[i].gpa = clock_gpa;
		if (rec[i].gpa == DIFF_GPA_RAM_END)
			rec[i].gpa = ram - KEEL_PAGE_SIZE;
	}
	/* A call may do less than all (KEEL-MMU-05), and is called again from there (-06); the sum is the same. */
	for (;;) {
		u64 records, step;

		r = HC(KEEL_CALL_MMU_BATCH, 0, DIFF_IN_GPA + at * sizeof(*rec), op.n - at);
		records = KEEL_MMU_DONE_RECORDS(r.value);
		step = KEEL_MMU_DONE_PAGES(r.value);
		if (records > op.n - at)
			break;
		if (records)
			pages = 0;
		for (; records; records--, at++)
			model_map(&rec[at], rec[at].len / KEEL_PAGE_SIZE);
		pages += step;
		if (at < op.n && step) {
			model_map(&rec[at], step);
			rec[at].va += step * KEEL_PAGE_SIZE;
			rec[at].len -= step * KEEL_PAGE_SIZE;
			if (rec[at].op == KEEL_MMU_MAP)
				rec[at].gpa += step * KEEL_PAGE_SIZE;
		}
		/* With work left each call does some (KEEL-MMU-07): what does none has ended. */
		if (r.status || at == op.n || !r.value)
			break;
	}
	note("mmu_batch: status records pages", (u64)r.status, at, pages);
	for (u32 i = 0; i < op.n; i++) {
		u64 first = op.rec[i].va & ~0xfffull, last = first + op.rec[i].len - KEEL_PAGE_SIZE;

		if (first >= KEEL_VA_END || last >= KEEL_VA_END)
			continue;
		note("query: va first last", first, query(first), last == first ? 0 : query(last & ~0xfffull));
	}
	access(&op.access[0]);
}

static void do_event_batch(void)
{
	struct keel_event_record *ev = IN;
	struct kt_ret r;
	u64 at = 0;

	for (u32 i = 0; i < op.n; i++) {
		u64 high;

		ev[i] = (struct keel_event_record){ op.ev[i].op, resolve_port(op.ev[i].port, &high) };
	}
	do {
		r = HC(KEEL_CALL_EVENT_BATCH, DIFF_IN_GPA + at * sizeof(*ev), op.n - at);
		at += r.value;
	} while (!r.status && r.value && at < op.n);
	note("event_batch: status records", (u64)r.status, at, 0);
}

static void do_multi(void)
{
	struct keel_multicall *e = IN;
	const struct keel_multicall_result *res = (const void *)OUT;
	struct keel_mmu_record *rec = (void *)((u8 *)IN + KEEL_PAGE_SIZE);
	struct kt_ret r;

	for (u32 i = 0; i < op.n; i++) {
		struct op_call *c = &op.call[i];

		resolve(c);
		rec[i] = op.rec[i];
		if (rec[i].gpa == DIFF_GPA_CLOCK)
			rec[i].gpa = clock_gpa;
		if (rec[i].gpa == DIFF_GPA_RAM_END)
			rec[i].gpa = ram - KEEL_PAGE_SIZE;
		e[i] = (struct keel_multicall){ .id = (u32)c->id,
						.flags = op.entry_flags[i] & 0xffff,
						.reserved = op.entry_flags[i] >> 16,
						.cookie = op.word + i };
		/* Bitmaps and counters go where the results do not. */
		for (u32 k = 0; k < 5; k++)
			e[i].arg[k] = c->arg[k] == DIFF_OUT_GPA ? DIFF_OUT_GPA + 0x8000 : c->arg[k];
	}
	memset(OUT, 0xa5, (op.n + 1) * sizeof(*res));
	r = HC(KEEL_CALL_MULTICALL, DIFF_IN_GPA, op.n, DIFF_OUT_GPA, op.a[0]);
	note("multicall: status value", (u64)r.status, r.value, 0);
	for (u32 i = 0; i < op.n && i < r.value; i++) {
		struct keel_multicall_result one = res[i];
		struct op_call *c = &op.call[i];

		for (u32 k = 0; k < 5; k++)
			c->arg[k] = e[i].arg[k];
		if (one.status == KEEL_OK && c->id == KEEL_CALL_MMU_BATCH && c->arg[1] != DIFF_ZERO_GPA)
			model_map(&rec[i], rec[i].len / KEEL_PAGE_SIZE);
		one.value = settle(c, one.status, one.value);
		note("entry: call status value", c->id, (u64)one.status, one.value);
		note("entry: cookie id reserved", one.cookie - op.word, one.id, one.reserved);
	}
	note("beyond the results", res[r.value < op.n ? r.value : op.n].cookie, 0, 0);
	for (u32 i = 0; i < op.n; i++)
		if (op.call[i].id == KEEL_CALL_MMU_BATCH && op.rec[i].va < KEEL_VA_END)
			note("query: va", op.rec[i].va, query(op.rec[i].va & ~0xfffull), 0);
}

static void do_harvest(void)
{
	struct op_call c = op.call[0];
	u64 total = 0;

	/* Until all is done, as with mmu_batch (KEEL-HARVEST-05). */
	while (c.arg[2]) {
		struct kt_ret r = kt_call(c.id, c.arg[0], c.arg[1], c.arg[2], c.arg[3], 0);
		u64 pages = KEEL_HARVEST_DONE_PAGES(r.value), value = settle(&c, r.status, r.value);

		note("harvest: call status value", c.id, (u64)r.status, value);
		if (r.status || !pages || pages > c.arg[2] / KEEL_PAGE_SIZE)
			break;
		total += pages;
		c.arg[1] += pages * KEEL_PAGE_SIZE;
		c.arg[2] -= pages * KEEL_PAGE_SIZE;
	}
	note("harvest: pages", total, 0, 0);
}

/* A page not written is not reported for ever (KEEL-HARVEST-03); a few collections may, and how many is not noted. */
static void do_quiet(void)
{
	u64 wrong = 0;

	reported = 1;
	for (u32 i = 0; i < 8 && reported; i++) {
		struct kt_ret r = HC(KEEL_CALL_HARVEST_COLLECT, 0, DIFF_SMALL_VA, DIFF_SMALL_PAGES * KEEL_PAGE_SIZE,
				     DIFF_OUT_GPA);

		if (r.status || KEEL_HARVEST_DONE_PAGES(r.value) != DIFF_SMALL_PAGES) {
			note("quiet: status pages", (u64)r.status, KEEL_HARVEST_DONE_PAGES(r.value), 0);
			return;
		}
		wrong |= check_bitmap(DIFF_SMALL_VA, DIFF_SMALL_PAGES);
	}
	note("quiet: still reported, wrong", !!reported, wrong, 0);
}

static void set_if(bool on)
{
	if (on)
		kt_sti();
	else
		kt_cli();
}

static void do_if(void)
{
	const struct slot *s = &slot[op.a[1]];
	u32 bit = KEEL_PORT_BIT(s->handle);
	u64 flags;

	switch (op.a[0]) {
	case 0:
		kt_cli();
		break;
	case 1:
		kt_sti();
		break;
	case 2:
		/* The next call delivers (KEEL-CALL-15). */
		__atomic_store_n(&kt_vcpu->if_enabled, 1, __ATOMIC_SEQ_CST);
		HC(KEEL_CALL_BASE_NOP);
		break;
	case 3:
		/* KEEL-NORM-09 */
		__asm__ volatile("pushfq\n\tpushfq\n\tandq $~0x200, (%%rsp)\n\tpopfq\n\tpopfq\n\tpushfq\n\tpopq %0"
				 : "=r"(flags)
				 :
				 : "memory", "cc");
		note("popf: IF shown", flags & 0x200, 0, 0);
		break;
	case 4:
		if (s->live)
			__atomic_fetch_or(&kt_vcpu->event_mask[bit / 64], 1ull << bit % 64, __ATOMIC_SEQ_CST);
		break;
	case 5:
		/* KEEL-EVENT-09 */
		if (!s->live)
			break;
		__atomic_fetch_and(&kt_vcpu->event_mask[bit / 64], ~(1ull << bit % 64), __ATOMIC_SEQ_CST);
		if (port_bit(kt_vcpu->event_pending, s->handle))
			__atomic_fetch_or(&kt_vcpu->pending, 1ull << bit / 64, __ATOMIC_SEQ_CST);
		if (kt_vcpu->if_enabled && kt_pending())
			HC(KEEL_CALL_TRAP_DELIVER);
		break;
	case 6: {
		bool on = kt_vcpu->if_enabled;

		kt_cli();
		kt_scan();
		note_taken();
		set_if(on);
		break;
	}
	default:
		HC(KEEL_CALL_TRAP_DELIVER);
	}
}

static void do_set(void)
{
	u32 class = (u32)op.a[0];

	entry_state[class].on = class == KEEL_CLASS_TRAP || op.a[1];
	entry_state[class].own_stack = op.a[2];
	put_entry(class);
}

static u64 pattern(u64 i)
{
	return (op.a[2] + i) * 0x9e3779b97f4a7c15;
}

static void do_return(void)
{
	static u8 stack[4096] __attribute__((aligned(16)));
	struct keel_frame *f = &kt_vcpu->slot[op.a[0]].frame, was;
	bool on = kt_vcpu->if_enabled;
	u64 *reg = &f->rax;
	s64 status;

	kt_cli();
	f->state = KEEL_SLOT_RETURN;
	f->class_ = (u32)op.a[3]; /* these four are ignored (KEEL-TRAP-12) */
	f->vector = (u32)pattern(20);
	f->error = pattern(21);
	f->addr = pattern(22);
	f->mode = KEEL_MODE_KERNEL;
	f->rip = (u64)diff_landing;
	f->rsp = (u64)stack + sizeof(stack) - 512;
	f->rflags = op.a[3];
	for (u32 i = 0; i < 15; i++)
		reg[i] = pattern(i);
	f->reserved[0] = f->reserved[1] = 0;
	switch (op.a[1]) {
	case 1:
		f->mode = 1 + (u32)(op.a[3] & 7);
		break;
	case 2:
		f->reserved[0] = 1;
		break;
	case 3:
		f->reserved[1] = 1ull << 63;
		break;
	case 4:
		f->rip = 1ull << 47;
		break;
	case 5:
		f->rip = ~0ull;
		break;
	case 6:
		f->state = KEEL_SLOT_FULL;
		break;
	case 7:
		f->state = KEEL_SLOT_FREE;
		break;
	case 8:
		f->state = 3 + (u32)(op.a[3] & 7);
		break;
	}
	was = *f;
	memset(diff_landed, 0, sizeof(diff_landed));
	exact = exact_return = true;
	status = diff_resume(op.a[0]);
	exact = exact_return = false;
	note("trap_return: status IF", (u64)status, kt_vcpu->if_enabled, 0);
	if (status) {
		note("trap_return: slot unchanged", !memcmp(&was, f, sizeof(was)), 0, 0);
		f->state = KEEL_SLOT_FREE;
	} else {
		note("trap_return: slot", f->state, 0, 0);
		for (u32 i = 0; i < 15; i += 3)
			note("landed: registers", diff_landed[i], diff_landed[i + 1], diff_landed[i + 2]);
		/* KEEL-TRAP-12 says which flags are resumed; TF was, for one instruction. */
		note("landed: rflags rsp", diff_landed[15] & (ARITHMETIC | DF | 0x240200), diff_landed[16], 0);
	}
	set_if(on);
}

static void do_trap(void)
{
	static struct kt_ret (*const probe[])(u64, u64) = { diff_ud, diff_bp, diff_de, diff_gp, diff_ss, diff_step };
	struct kt_ret r;

	if (avoid >> op.a[0] & 1)
		return;
	r = probe[op.a[0]](DIFF_SMALL_VA, op.word);

	note("trap: came back", (u64)r.status, r.value, 0);
}

static void do_double(void)
{
	struct keel_frame *f = &kt_vcpu->slot[KEEL_CLASS_TRAP].frame;
	struct kt_ret r;
	u64 q = query(op.access[0].va & ~0xfffull);

	f->state = KEEL_SLOT_RETURN;
	if (op.a[0] == 1)
		r = diff_ud(0, 0);
	else if (op.a[0] == 2)
		r = diff_gp(0, 0);
	else
		r = diff_write(op.access[0].va & ~0xfffull, op.word);
	f->state = KEEL_SLOT_FREE;
	if (!op.a[0] && !r.status && in_small(op.access[0].va))
		written[small_page(op.access[0].va)] = true;
	note("double: came back", (u64)r.status, q, 0);
}

static void do_held(void)
{
	struct keel_frame *f = &kt_vcpu->slot[KEEL_CLASS_EVENT].frame;
	const struct slot *s = &slot[op.a[1]];
	bool on = kt_vcpu->if_enabled;
	struct kt_ret r;

	f->state = op.a[0] & 1 ? KEEL_SLOT_RETURN : KEEL_SLOT_FULL;
	kt_sti();
	r = HC(KEEL_CALL_EVENT_SEND, s->live ? s->handle : 0x00fff000);
	HC(KEEL_CALL_BASE_NOP);
	/* KEEL-TRAP-08, -17: nothing is delivered */
	note("held: status pending", (u64)r.status, !!kt_pending(), f->state);
	f->state = KEEL_SLOT_FREE;
	HC(KEEL_CALL_BASE_NOP);
	note("held: pending now", !!kt_pending(), 0, 0);
	set_if(on);
}

static void do_dump(void)
{
	struct kt_ret r;

	handler_action = op.a[0];
	r = HC(KEEL_CALL_EVENT_DUMP, 0);
	handler_action = 0;
	note("event_dump: status value", (u64)r.status, r.value, 0);
}

static void do_wait(void)
{
	const struct slot *s = &slot[op.a[1]];
	u64 deadline = 0, tries = 0, upcalls, seen;
	struct kt_ret r;

	if (op.a[0] == 3) {
		r = HC(KEEL_CALL_EVENT_SEND, s->live ? s->handle : 0x00fff000);
		note("wait: sent", (u64)r.status, 0, 0);
	}
	if (op.a[0] == 2)
		deadline = kt_now() + 50000;
	else if (op.a[0] && kt_pending())
		deadline = KEEL_TIME_NEVER;
	/* It may come back for nothing (KEEL-VCPU-06): then again. */
	do {
		upcalls = digest;
		seen = kt_pending();
		r = HC(KEEL_CALL_VCPU_WAIT, deadline);
	} while (!r.status && !seen && !kt_pending() && upcalls == digest && ++tries < 100000);
	note("vcpu_wait: status value early", (u64)r.status, r.value, r.status && kt_now() < deadline);
}

static void do_timer(void)
{
	const bool on = kt_vcpu->if_enabled;
	struct slot *s = slot;
	u64 deadline, begun;
	struct kt_ret r;
	u32 bit;

	while (s < slot + DIFF_PORTS && s->bound != 1 + KEEL_SOURCE_TIMER)
		s++;
	deadline = op.a[0] == 0 ? 0 : op.a[0] == 1 ? kt_now() : kt_now() + op.a[1];
	if (s == slot + DIFF_PORTS) {
		r = HC(KEEL_CALL_TIME_SET_TIMER, deadline);
		note("no timer: status", (u64)r.status, r.value, 0);
		return;
	}
	/*
	 * When a timer fires is between two instructions of the host's choice, so IF is 0
	 * until it has, and the event is taken where the guest looks.
	 */
	kt_cli();
	bit = KEEL_PORT_BIT(s->handle);
	__atomic_fetch_and(&kt_vcpu->event_pending[bit / 64], ~(1ull << bit % 64), __ATOMIC_SEQ_CST);
	r = HC(KEEL_CALL_TIME_SET_TIMER, deadline);
	note("set_timer: status value", (u64)r.status, r.value, 0);
	if (op.a[0] == 3) {
		r = HC(KEEL_CALL_TIME_SET_TIMER, KEEL_TIME_NEVER);
		note("disarm: status value", (u64)r.status, r.value, 0);
		/* It may have fired before. */
		__atomic_fetch_and(&kt_vcpu->event_pending[bit / 64], ~(1ull << bit % 64), __ATOMIC_SEQ_CST);
	} else {
		begun = kt_now();
		while (!port_bit(kt_vcpu->event_pending, s->handle) && kt_now() - begun < PATIENCE)
			if (!port_bit(kt_vcpu->event_mask, s->handle))
				HC(KEEL_CALL_VCPU_WAIT, kt_now() + 1000000);
		note("timer: fired early", port_bit(kt_vcpu->event_pending, s->handle), kt_now() < deadline, 0);
		HC(KEEL_CALL_TIME_SET_TIMER, KEEL_TIME_NEVER);
	}
	/* Whether `pending` has the word is the same for all once the guest has looked. */
	kt_scan();
	note_taken();
	set_if(on);
}

static void do_memory(void)
{
	u64 call = op.a[0] == 2 ? KEEL_CALL_MEMORY_POPULATE : KEEL_CALL_MEMORY_RELEASE;
	u64 gpa = DIFF_POOL_GPA + op.a[2] * KEEL_PAGE_SIZE, left = op.a[1], content = 0;
	struct kt_ret r;

	do {
		r = HC(call, gpa + (op.a[1] - left) * KEEL_PAGE_SIZE, left * KEEL_PAGE_SIZE);
		if (r.status || !r.value || r.value > left)
			break;
		left -= r.value; /* KEEL-MEMORY-03 */
	} while (left);
	for (u64 i = 0; i < op.a[1]; i++) {
		const u64 *p = kt_ram(gpa + i * KEEL_PAGE_SIZE);

		released[op.a[2] + i] |= call == KEEL_CALL_MEMORY_RELEASE;
		content |= p[0] | p[0x608 / 8] | p[CODE_AT / 8] | p[511];
	}
	note("memory: status left content", (u64)r.status, left, call == KEEL_CALL_MEMORY_RELEASE ? content : 0);
}

/*
 * Counters follow from the calls made (KEEL-STATS-03, -04), except: of calls the guest repeats as often as the host's
 * limits, the time or its way of reporting pages demand, how often; of trap_return, because of spurious upcalls (KEEL-EVENT-19); of
 * stats_read, whether this one is in (KEEL-STATS-03).
 */
static bool counted(u32 id)
{
	static const u32 uncounted[] = { KEEL_CALL_MULTICALL,	   KEEL_CALL_MMU_BATCH,	      KEEL_CALL_HARVEST_START,
					 KEEL_CALL_HARVEST_STOP,   KEEL_CALL_HARVEST_COLLECT, KEEL_CALL_TRAP_RETURN,
					 KEEL_CALL_VCPU_WAIT,	   KEEL_CALL_EVENT_BATCH,     KEEL_CALL_TIME_READ,
					 KEEL_CALL_MEMORY_RELEASE, KEEL_CALL_MEMORY_POPULATE, KEEL_CALL_STATS_READ,
					 KEEL_CALL_CONSOLE_WRITE,  KEEL_CALL_MMU_QUERY };

	for (u32 i = 0; i < sizeof(uncounted) / sizeof(uncounted[0]); i++)
		if (uncounted[i] == id)
			return false;
	return true;
}

static void do_stats(void)
{
	const struct keel_stats_entry *e = (const void *)OUT;
	struct kt_ret r = HC(KEEL_CALL_STATS_READ, DIFF_OUT_GPA, op.a[1] * sizeof(*e), op.a[0]);

	note("stats_read: status value", (u64)r.status, r.value, 0);
	for (u64 i = 0; i < r.value && i < op.a[1]; i++) {
		bool all = counted(e[i].id);

		note("counter: id reserved calls", e[i].id, e[i].reserved, all ? e[i].calls : 0);
		note("counter: id errors work", e[i].id,
		     e[i].id == KEEL_CALL_VCPU_WAIT || e[i].id == KEEL_CALL_MMU_QUERY ? 0 : e[i].errors,
		     all || e[i].id == KEEL_CALL_MMU_BATCH || e[i].id == KEEL_CALL_EVENT_BATCH ? e[i].work : 0);
	}
}

static void do_regs(void)
{
	struct op_call c = op.call[0];
	struct kt_regs r, was;
	u64 *reg = (u64 *)&r, changed = 0;

	for (u32 i = 0; i < 15; i++)
		reg[i] = (op.a[0] + i) * 0x9e3779b97f4a7c15;
	r.rax = c.id;
	r.rdi = c.arg[0];
	r.rsi = c.arg[1];
	r.rdx = r.r10 = r.r8 = 0;
	r.rflags = 2 | (op.a[0] & ARITHMETIC) | 0x200;
	/* With something to deliver, and room for it, an event is delivered right behind the call. */
	if (op.a[0] & 1 && c.id == KEEL_CALL_BASE_NOP && slot[0].live) {
		c.id = r.rax = KEEL_CALL_EVENT_SEND;
		r.rdi = exact_rdi = slot[0].handle;
	}
	was = r;
	exact = true;
	kt_call_regs(&r);
	exact = false;
	exact_rdi = 0;
	/* KEEL-CALL-03: all but rax, rdx, rcx, r11 and the arithmetic flags */
	for (u32 i = 0; i < 15; i++)
		if (i != 0 && i != 2 && i != 3 && i != 10)
			changed |= reg[i] != ((u64 *)&was)[i] ? 1ull << i : 0;
	note("regs: status value changed", (u64)r.rax, settle(&c, (s64)r.rax, r.rdx), changed | (r.rflags & DF));
}

static void do_ring(void)
{
	struct keel_console_ring *ring = (void *)(OUT + 0x4000);
	struct kt_ret r;
	u64 begun;
	u32 n = (u32)op.a[0];

	memset(ring, 0, sizeof(*ring));
	r = HC(KEEL_CALL_CONSOLE_SETUP, DIFF_OUT_GPA + 0x4000, KEEL_CONSOLE_RING_SIZE);
	note("ring: set up", (u64)r.status, r.value, 0);
	if (r.status)
		return;
	ring->out[0] = '~';
	for (u32 i = 1; i < n; i++)
		ring->out[i] = (u8)('a' + (op.word + i) % 26);
	ring->out[n] = '\n';
	__atomic_store_n(&ring->out_prod, n + 1, __ATOMIC_SEQ_CST);
	r = HC(KEEL_CALL_CONSOLE_KICK);
	note("ring: kick", (u64)r.status, r.value, 0);
	begun = kt_now();
	while (__atomic_load_n(&ring->out_cons, __ATOMIC_SEQ_CST) != n + 1 && kt_now() - begun < PATIENCE)
		__asm__ volatile("pause");
	note("ring: taken", ring->out_cons == n + 1, 0, 0);
	r = HC(KEEL_CALL_CONSOLE_SETUP, 0, 0);
	note("ring: taken back", (u64)r.status, r.value, 0);
	r = HC(KEEL_CALL_CONSOLE_KICK);
	note("ring: kick without", (u64)r.status, r.value, 0);
}

/* What is looked at after every operation. */
static void look(void)
{
	const struct keel_vcpu *v = kt_vcpu;
	u64 h = 0, ports = 0;

	for (u32 i = op_number % 4; i < DIFF_POOL_PAGES; i += 4) {
		const u64 *p = kt_ram(DIFF_POOL_GPA + i * KEEL_PAGE_SIZE);

		h = (h ^ p[0]) * 0x9fb21c651e98df25;
		h = (h ^ h >> 32 ^ p[0x608 / 8]) * 0x9fb21c651e98df25;
	}
	for (u32 i = 0; i < DIFF_PORTS; i++) {
		if (!slot[i].live)
			continue;
		ports |= (u64)(1 | port_bit(v->event_mask, slot[i].handle) << 1 |
			       port_bit(v->event_pending, slot[i].handle) << 2)
			 << 4 * i;
	}
	note_taken();
	note("after: memory ports IF", h, ports, v->if_enabled);
	note("after: pending slots", !!kt_pending(),
	     v->slot[0].frame.state | v->slot[1].frame.state << 8 | v->slot[2].frame.state << 16 |
		     (u64)v->slot[3].frame.state << 24,
	     0);
	note("after: page", op_number % DIFF_SMALL_PAGES,
	     query(DIFF_SMALL_VA + op_number % DIFF_SMALL_PAGES * KEEL_PAGE_SIZE), 0);
}

/* Now and then an eighth of everything, and everything at the end. */
static void look_closely(u32 first, u32 step)
{
	const struct keel_vcpu *v = kt_vcpu;
	u64 h = 0, reserved = 0;

	for (u32 i = 0; i < DIFF_SMALL_PAGES; i++)
		note("all: page", i, query(DIFF_SMALL_VA + i * KEEL_PAGE_SIZE), 0);
	for (u32 i = 0; i < DIFF_EDGE_PAGES; i++)
		note("all: edges", i, query(DIFF_LOW_VA + i * KEEL_PAGE_SIZE),
		     query(DIFF_HIGH_VA + i * KEEL_PAGE_SIZE));
	for (u32 i = first; i < DIFF_LARGE_PAGES; i += 2 * step)
		note("all: large", i, query(DIFF_LARGE_VA + i * KEEL_PAGE_SIZE), 0);
	note("all: between", query(DIFF_SMALL_VA - KEEL_PAGE_SIZE), query(DIFF_LARGE_VA - KEEL_PAGE_SIZE),
	     query(0x400000));
	for (u32 i = first; i < DIFF_POOL_PAGES; i += step) {
		const u64 *p = kt_ram(DIFF_POOL_GPA + i * KEEL_PAGE_SIZE);

		for (u32 k = 0; k < 512; k++)
			h = (h ^ h >> 32 ^ p[k]) * 0x9fb21c651e98df25;
		note("all: frame", i, h, 0);
	}
	for (u32 i = first; i < DIFF_LARGE_PAGES; i += step) {
		const u64 *p = kt_ram(DIFF_LARGE_GPA + i * KEEL_PAGE_SIZE);

		h = (h ^ h >> 32 ^ p[0] ^ p[0x608 / 8]) * 0x9fb21c651e98df25;
	}
	note("all: large frames", h, 0, 0);
	/* KEEL-TYPE-08, and the guest's own words (vcpu.h). */
	reserved |= v->reserved0 | v->reserved2[0] | v->reserved2[1];
	for (u32 i = 0; i < 7; i++)
		reserved |= v->reserved1[i];
	for (u32 i = 0; i < 8; i++)
		reserved |= v->guest[i];
	for (u32 i = 0; i < 16; i++)
		reserved |= v->reserved3[i];
	for (u32 i = 0; i < 96; i++)
		reserved |= v->reserved4[i];
	for (u32 i = 0; i < 128; i++)
		reserved |= v->reserved5[i];
	note("all: vCPU page reserved", reserved, v->id, v->self == (u64)v);
}

static void run(void)
{
	switch (op.kind) {
	case OP_CALL:
		do_call(op.call[0]);
		break;
	case OP_MMU:
		do_mmu();
		break;
	case OP_TOUCH:
		for (u32 i = 0; i < op.n; i++)
			access(&op.access[i]);
		break;
	case OP_EVENT:
		if (op.a[0])
			do_event_batch();
		else
			do_call(op.call[0]);
		break;
	case OP_MULTI:
		do_multi();
		break;
	case OP_HARVEST:
		do_harvest();
		break;
	case OP_QUIET:
		do_quiet();
		break;
	case OP_IF:
		do_if();
		break;
	case OP_SET:
		do_set();
		break;
	case OP_RETURN:
		do_return();
		break;
	case OP_TRAP:
		do_trap();
		break;
	case OP_DOUBLE:
		do_double();
		break;
	case OP_HELD:
		do_held();
		break;
	case OP_DUMP:
		do_dump();
		break;
	case OP_WAIT:
		do_wait();
		break;
	case OP_TIMER:
		do_timer();
		break;
	case OP_MEMORY:
		do_memory();
		break;
	case OP_STATS:
		do_stats();
		break;
	case OP_REGS:
		do_regs();
		break;
	case OP_RING:
		do_ring();
		break;
	}
}

/* The command line's list, or the module's. */
static void read_list(void)
{
	u32 size;
	const char *s = kt_chunk(KEEL_CHUNK_CMDLINE, &size), *end = s + size;
	const struct keel_module *m;

	for (; s && s + 5 < end && memcmp(s, "list=", 5); s++)
		;
	if (s && s + 5 < end) {
		for (s += 5; s < end && nlist < DIFF_OPS_MAX; s++) {
			u64 v = 0;

			for (; s < end; s++) {
				if (*s >= '0' && *s <= '9')
					v = v << 4 | (u64)(*s - '0');
				else if (*s >= 'a' && *s <= 'f')
					v = v << 4 | (u64)(*s - 'a' + 10);
				else
					break;
			}
			list[nlist++] = v;
			if (s >= end || *s != ',')
				return;
		}
		return;
	}
	m = kt_chunk(KEEL_CHUNK_MODULE, &size);
	if (!m)
		return;
	nlist = m->len / 8 < DIFF_OPS_MAX ? m->len / 8 : DIFF_OPS_MAX;
	memcpy(list, kt_ram(m->gpa), nlist * 8);
}

static void negotiate(void)
{
	static const char *const name[KEEL_FEATURE_WORDS] = { "f0", "f1" };

	for (u64 w = 0; w < KEEL_FEATURE_WORDS; w++) {
		u64 offered = HC(KEEL_CALL_BASE_FEATURES, w).value;

		feature[w] = offered & kt_option(name[w], ~0ull);
		HC(KEEL_CALL_BASE_ACCEPT, w, feature[w]);
		if (!kt_option("ops", 1))
			kt_note("features %lu %lx", w, offered);
	}
	HC(KEEL_CALL_BASE_FREEZE);
}

KEEL_TEST("DIFF", diff, "", "", KT_EARLY)
{
	const struct keel_abi_pages *abi;
	u64 ops, detail, seed;
	u32 size;

	read_list();
	seed = kt_option("seed", 1);
	ops = nlist ? nlist : kt_option("ops", 0);
	detail = kt_option("detail", ~0ull);
	avoid = kt_option("avoid", 0);
	negotiate();
	abi = kt_chunk(KEEL_CHUNK_ABI, &size);
	clock_gpa = abi->clock_gpa;
	ram = kt_ram_size();
	limit_batch = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_BATCH_COUNT).value;
	kt_on[KEEL_CLASS_TRAP] = on_trap;
	kt_on[KEEL_CLASS_EVENT] = on_event;
	kt_on[KEEL_CLASS_DUMP] = on_dump;
	kt_on[KEEL_CLASS_DOUBLE] = on_double;
	kt_event_hook = on_bit;
	for (u32 c = 0; c < KEEL_CLASS_COUNT; c++) {
		entry_state[c].on = true;
		entry_state[c].own_stack = c == KEEL_CLASS_DOUBLE;
		put_entry(c);
	}
	for (u64 i = 0; i < DIFF_POOL_PAGES; i++)
		*(u64 *)kt_ram(DIFF_POOL_GPA + i * KEEL_PAGE_SIZE) = i + 0x1000;
	for (u64 i = 0; i < DIFF_LARGE_PAGES; i += 8)
		*(u64 *)kt_ram(DIFF_LARGE_GPA + i * KEEL_PAGE_SIZE) = i + 0x2000;
	for (u64 i = 0; i < ops; i++) {
		op_number = (u32)i;
		op_decode(nlist ? list[i] : op_word(seed, i), &op);
		digest = 0xcbf29ce484222325;
		loud = i == detail;
		run();
		look();
		if (i == ops - 1 || loud)
			look_closely(0, 1);
		else if (i % CHECKPOINT == CHECKPOINT - 1)
			look_closely((u32)(i / CHECKPOINT % 8), 8);
		say_line(digest);
		if (loud)
			break;
	}
	kt_note("end %lu", ops);
}
