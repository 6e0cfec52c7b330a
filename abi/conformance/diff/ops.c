// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* What an operation's word stands for; see ops.h. */
#include "ops.h"

#define Z                    \
	{                    \
		ARG_NONE, "" \
	}
#define A(kind, name)             \
	{                         \
		ARG_##kind, #name \
	}
#define KEEL_CALL(...)
#define KEEL_EXT(name, number, served, doc) SERVED_##name = served,
enum {
#include "../../hypercalls.def"
};
#undef KEEL_EXT
#undef KEEL_CALL
#define KEEL_EXT(...)
#define KEEL_CALL(ext, fn, name, nargs, flags, a1, a2, a3, a4, a5, doc) \
	{ KEEL_CALL_ID(KEEL_EXT_##ext, fn), flags, SERVED_##ext, nargs, #name, { a1, a2, a3, a4, a5 } },
const struct op_call_info op_calls[KEEL_CALL_COUNT] = {
#include "../../hypercalls.def"
};

const char *const op_names[OP_KINDS] = {
	"call", "mmu",	  "touch", "event", "multicall", "harvest", "quiet",  "if",    "set",  "return",
	"trap", "double", "held",  "dump",  "wait",	 "timer",   "memory", "stats", "regs", "ring",
};

/* Of 256 operations; the rest are OP_TOUCH. */
static const uint8_t weight[OP_KINDS] = {
	[OP_CALL] = 44,	 [OP_MMU] = 56,	 [OP_EVENT] = 44, [OP_MULTI] = 14, [OP_HARVEST] = 14,
	[OP_QUIET] = 2,	 [OP_IF] = 14,	 [OP_SET] = 6,	  [OP_RETURN] = 8, [OP_TRAP] = 6,
	[OP_DOUBLE] = 4, [OP_HELD] = 3,	 [OP_DUMP] = 4,	  [OP_WAIT] = 4,   [OP_TIMER] = 3,
	[OP_MEMORY] = 6, [OP_STATS] = 3, [OP_REGS] = 6,	  [OP_RING] = 1,
};

const struct op_call_info *op_call_info(uint64_t id)
{
	for (unsigned int i = 0; i < KEEL_CALL_COUNT; i++)
		if (op_calls[i].id == id)
			return &op_calls[i];
	return 0;
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

uint64_t op_word(uint64_t seed, uint64_t n)
{
	return mix(mix(seed + 0x9e3779b97f4a7c15) + n * 0x9e3779b97f4a7c15);
}

struct draw {
	uint64_t state;
};

static uint64_t any(struct draw *d)
{
	d->state += 0x9e3779b97f4a7c15;
	return mix(d->state);
}

/* Less than n, which is small. */
static uint32_t below(struct draw *d, uint32_t n)
{
	return (uint32_t)((any(d) >> 32) * n >> 32);
}

static bool one_in(struct draw *d, uint32_t n)
{
	return !below(d, n);
}

#define PICK(d, ...)                                               \
	({                                                         \
		static const uint64_t from_[] = { __VA_ARGS__ };   \
		from_[below(d, sizeof(from_) / sizeof(from_[0]))]; \
	})

static uint64_t small_va(struct draw *d)
{
	return DIFF_SMALL_VA + below(d, DIFF_SMALL_PAGES) * KEEL_PAGE_SIZE;
}

static uint64_t page_va(struct draw *d)
{
	switch (below(d, 16)) {
	case 0:
		return DIFF_LOW_VA + below(d, DIFF_EDGE_PAGES) * KEEL_PAGE_SIZE;
	case 1:
		return one_in(d, 4) ? DIFF_CLOCK_VA : DIFF_HIGH_VA + below(d, DIFF_EDGE_PAGES) * KEEL_PAGE_SIZE;
	case 2:
	case 3:
		return DIFF_LARGE_VA + (below(d, DIFF_LARGE_PAGES) & ~(one_in(d, 2) ? 7u : 0)) * KEEL_PAGE_SIZE;
	default:
		return small_va(d);
	}
}

static uint32_t port_ref(struct draw *d)
{
	uint32_t slot = below(d, DIFF_PORTS) & below(d, DIFF_PORTS); /* low slots are the ones in use */

	return slot | (one_in(d, 4) ? 1 + below(d, PORT_FLAVOURS - 1) : PORT_LIVE) << 8;
}

static bool is(const char *a, const char *b)
{
	for (; *a && *a == *b; a++, b++)
		;
	return *a == *b;
}

/* Written by the host? Then the zero page is not the place. */
static bool is_output(const struct op_arg *arg)
{
	return is(arg->name, "results") || is(arg->name, "bitmap") || is(arg->name, "buf") || is(arg->name, "gpa");
}

static void draw_arg(struct draw *d, const struct op_arg *arg, struct op_call *c, unsigned int i)
{
	uint64_t *v = &c->arg[i], page;

	switch (arg->kind) {
	case ARG_U32:
		/* A count of a batch has a limit of the host's: well below any, or above all. */
		if (is(arg->name, "count") && one_in(d, 4)) {
			*v = 1;
			c->ref[i] = REF_LIMIT;
			break;
		}
		if (is(arg->name, "count"))
			*v = PICK(d, 0, 1, 2, 3, 5, 8, 1ull << 32, 1ull << 32 | 1, ~0ull);
		else
			*v = PICK(d, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 7, 8, 16, 17, 18, 63, 64, 65, 124, 255, 256, 4096,
				  0xffffffff, 1ull << 32, 1ull << 63, ~0ull);
		break;
	case ARG_FLAGS:
		*v = PICK(d, 0, 0, 0, 0, 1, 1, 2, 3, 4, 1ull << 31, 1ull << 32, 1ull << 63);
		break;
	case ARG_GPA:
		page = is_output(arg) ? DIFF_OUT_GPA : DIFF_ZERO_GPA;
		switch (below(d, 12)) {
		case 0:
			*v = page + 4;
			break;
		case 1:
			*v = page + 8;
			break;
		case 2:
			*v = PICK(d, 1ull << 52, 1ull << 63, -8ull, -64ull, -4096ull, ~0ull);
			break;
		case 3:
			*v = PICK(d, 0, 0, 8, 4096, -8ull);
			c->ref[i] = REF_RAM;
			break;
		default:
			*v = page;
		}
		break;
	case ARG_LEN:
		*v = PICK(d, 0, 1, 8, 32, 64, 96, 2048, 4095, 4096, 4096, 8192, 0x20000, 1ull << 40, 1ull << 63,
			  -4096ull, ~0ull);
		break;
	case ARG_VA:
		*v = PICK(d, 0, 4096, KEEL_VA_MIN, KEEL_VA_MIN - 4096, KEEL_VA_MIN + 1, KEEL_VA_END - 4096,
			  KEEL_VA_END - 8, KEEL_VA_END, KEEL_VA_END + 4096, 1ull << 47, -4096ull, ~0ull);
		if (!one_in(d, 3))
			*v = page_va(d) + (one_in(d, 8) ? 8 : 0);
		break;
	case ARG_AS:
		*v = one_in(d, 8) ? PICK(d, 1, 2, 1ull << 32, ~0ull) : 0;
		break;
	case ARG_PORT:
		*v = port_ref(d);
		c->ref[i] = REF_PORT;
		break;
	case ARG_VCPU:
		*v = PICK(d, 0, 0, 0, 1, 2, 4095, 4096, 1ull << 32, ~0ull);
		break;
	case ARG_NS:
		*v = PICK(d, 0, 0, 1, 1000);
		break;
	case ARG_WORD:
		*v = any(d);
		break;
	default:
		*v = PICK(d, 0, 1, 1ull << 32, ~0ull);
	}
}

/* Keep a call from ending the run, from waiting for ever, and from what another operation does better. */
static void tame(struct draw *d, struct op_call *c)
{
	uint64_t *a = c->arg;

	switch (c->id) {
	case KEEL_CALL_BASE_SHUTDOWN:
		if (a[0] <= KEEL_SHUTDOWN_RESTART && a[1] <= KEEL_SHUTDOWN_CODE_MAX)
			a[1] = KEEL_SHUTDOWN_CODE_MAX + 1 + below(d, 200);
		break;
	case KEEL_CALL_CRASH:
		if (a[0] <= KEEL_CRASH_REASON_MAX && a[2] <= KEEL_CRASH_MESSAGE_MAX)
			a[2] = KEEL_CRASH_MESSAGE_MAX + 1;
		break;
	case KEEL_CALL_CONSOLE_WRITE:
		if (a[0] && a[0] <= KEEL_CONSOLE_WRITE_MAX)
			a[0] += KEEL_CONSOLE_WRITE_MAX;
		break;
	case KEEL_CALL_CONSOLE_SETUP:
		if (a[1] == KEEL_CONSOLE_RING_SIZE)
			a[0] |= 8;
		break;
	case KEEL_CALL_TIME_SET_TIMER:
		c->id = KEEL_CALL_TIME_READ;
		a[0] = one_in(d, 2);
		break;
	case KEEL_CALL_TRAP_SET:
		/* No entry of anyone's choice: unset, or refused. */
		if (a[1] >= KEEL_VA_MIN && a[1] < KEEL_VA_END)
			a[1] = one_in(d, 2) ? 0 : KEEL_VA_END;
		break;
	case KEEL_CALL_VCPU_STOP:
		/* The one that makes the calls is vCPU 0. */
		if (!a[0])
			a[0] = 1;
		break;
	case KEEL_CALL_MEMORY_RELEASE:
	case KEEL_CALL_MEMORY_POPULATE:
		if (c->ref[0] == REF_RAM && a[0] == -4096ull)
			a[0] = 0;
		break;
	}
}

static void draw_call(struct draw *d, struct op_call *c, bool batch)
{
	const struct op_call_info *info;

	*c = (struct op_call){ 0 };
	do {
		info = &op_calls[below(d, KEEL_CALL_COUNT)];
		/*
		 * Whether NOTSUP or CONTEXT comes first depends on what a host implements
		 * (KEEL-CALL-08), so in a batch there are only calls every host must.
		 */
	} while (batch && (!info->served || info->flags & KEEL_CF_SMP));
	c->id = info->id;
	for (unsigned int i = 0; i < info->nargs; i++)
		draw_arg(d, &info->arg[i], c, i);
	tame(d, c);
	info = op_call_info(c->id);
	if (info->nargs < 5 && one_in(d, 12))
		c->arg[info->nargs + below(d, 5 - info->nargs)] = PICK(d, 1, 1ull << 32, ~0ull);
	if (!batch && one_in(d, 24))
		c->id = PICK(d, 0, 1, 0x01000f00, 0x01000fff, 0x01012000, 0x02000000, 1ull << 32 | KEEL_CALL_BASE_NOP,
			     1ull << 63 | KEEL_CALL_MMU_QUERY, ~0ull);
}

/* One record, of one page if `single`. */
static void draw_record(struct draw *d, struct keel_mmu_record *r, bool single)
{
	uint64_t pages, first;

	*r = (struct keel_mmu_record){ 0 };
	r->op = (uint16_t)PICK(d, KEEL_MMU_MAP, KEEL_MMU_MAP, KEEL_MMU_MAP, KEEL_MMU_UNMAP, KEEL_MMU_PROTECT);
	switch (below(d, 24)) {
	case 0:
		/* 2 MiB runs, whole and aligned or not */
		pages = one_in(d, 2) ? 512 : 1 + below(d, one_in(d, 8) ? 700 : 120);
		first = pages == 512 ? 512 * below(d, 3) : below(d, (uint32_t)(DIFF_LARGE_PAGES - pages));
		r->va = DIFF_LARGE_VA + first * KEEL_PAGE_SIZE;
		if (single)
			pages = 1;
		r->gpa = DIFF_LARGE_GPA + (pages == 512 && !one_in(d, 4)
						   ? 512 * below(d, 3)
						   : below(d, (uint32_t)(DIFF_LARGE_PAGES - pages))) *
						  KEEL_PAGE_SIZE;
		break;
	case 2:
		pages = single ? 1 : 1 + below(d, DIFF_EDGE_PAGES);
		r->va = (one_in(d, 2) ? DIFF_LOW_VA : DIFF_HIGH_VA) +
			below(d, (uint32_t)(DIFF_EDGE_PAGES + 1 - pages)) * KEEL_PAGE_SIZE;
		r->gpa = DIFF_POOL_GPA + below(d, (uint32_t)(DIFF_POOL_PAGES - pages)) * KEEL_PAGE_SIZE;
		break;
	default:
		pages = single ? 1 : 1 + below(d, one_in(d, 4) ? 24 : 5);
		r->va = DIFF_SMALL_VA + below(d, (uint32_t)(DIFF_SMALL_PAGES + 1 - pages)) * KEEL_PAGE_SIZE;
		r->gpa = DIFF_POOL_GPA + below(d, (uint32_t)(DIFF_POOL_PAGES + 1 - pages)) * KEEL_PAGE_SIZE;
	}
	r->len = pages * KEEL_PAGE_SIZE;
	if (r->op == KEEL_MMU_MAP) {
		r->flags = one_in(d, 4) ? KEEL_MMU_POPULATE : 0;
	} else {
		r->gpa = 0;
	}
	if (r->op != KEEL_MMU_UNMAP)
		r->prot = (uint16_t)(one_in(d, 3) ? 1 + below(d, 7) : PICK(d, 3, 3, 3, 1, 5, 7, 4, 2));
	if (one_in(d, 40)) {
		/* An ABI page, read-only or refused, at an address of its own: nothing else is ever there. */
		r->va = DIFF_CLOCK_VA;
		r->len = KEEL_PAGE_SIZE;
		r->gpa = r->op == KEEL_MMU_MAP ? DIFF_GPA_CLOCK : 0;
		if (r->op != KEEL_MMU_UNMAP && !one_in(d, 3))
			r->prot = KEEL_PROT_R;
		return;
	}
	if (!one_in(d, 20))
		return;
	switch (below(d, 12)) {
	case 0:
		r->op = (uint16_t)PICK(d, 0, 4, 0x101, 0xffff);
		break;
	case 1:
		r->prot = (uint16_t)PICK(d, 0, 8, 11, 0x101, 0xffff);
		break;
	case 2:
		r->flags = (uint32_t)PICK(d, 1, 2, 3, 1u << 31, 0xffffffff);
		break;
	case 3:
		r->va += PICK(d, 1, 8, 2048);
		break;
	case 4:
		r->va = PICK(d, 0, KEEL_VA_MIN - 4096, KEEL_VA_END, KEEL_VA_END - 4096 + (1ull << 46), 1ull << 63,
			     -4096ull);
		break;
	case 5:
		r->gpa += PICK(d, 1, 8, 4096);
		break;
	case 6:
		r->gpa = PICK(d, 1ull << 40, 1ull << 63, -4096ull, DIFF_GPA_RAM_END);
		r->len = 2 * KEEL_PAGE_SIZE;
		break;
	case 7:
		r->len = PICK(d, 0, 1, 4095, 4097);
		break;
	case 8:
		r->len = PICK(d, 1ull << 47, 1ull << 63, -4096ull);
		break;
	case 9:
		r->prot |= 16;
		break;
	case 10:
		r->gpa = 1 - r->gpa % 2; /* odd for MAP, not zero for the others */
		break;
	default:
		r->va |= 1;
		r->len |= 1;
	}
}

static void draw_access(struct draw *d, struct op_access *x, uint64_t va)
{
	x->va = va + PICK(d, 0, 0x608, 0xff8);
	x->kind = (uint32_t)PICK(d, ACCESS_READ, ACCESS_READ, ACCESS_READ, ACCESS_WRITE, ACCESS_WRITE, ACCESS_WRITE,
				 ACCESS_FETCH, ACCESS_CROSS);
	if (x->kind == ACCESS_WRITE && (x->va & 0xfff) == 0xff8)
		x->va -= 0xff8; /* digests look at the start of a frame */
}

static void draw_event(struct draw *d, struct op_call *c)
{
	*c = (struct op_call){ 0 };
	c->id = PICK(d, KEEL_CALL_EVENT_ALLOC, KEEL_CALL_EVENT_ALLOC, KEEL_CALL_EVENT_ALLOC, KEEL_CALL_EVENT_BIND,
		     KEEL_CALL_EVENT_CLOSE, KEEL_CALL_EVENT_CLOSE, KEEL_CALL_EVENT_MASK, KEEL_CALL_EVENT_UNMASK,
		     KEEL_CALL_EVENT_UNMASK, KEEL_CALL_EVENT_UNMASK, KEEL_CALL_EVENT_SEND, KEEL_CALL_EVENT_SEND,
		     KEEL_CALL_EVENT_SEND, KEEL_CALL_EVENT_SEND);
	switch (c->id) {
	case KEEL_CALL_EVENT_ALLOC:
		c->arg[0] = below(d, 5);
		break;
	case KEEL_CALL_EVENT_BIND:
		c->arg[0] = below(d, 3);
		c->arg[1] = below(d, 5);
		break;
	default:
		c->arg[0] = port_ref(d);
		c->ref[0] = REF_PORT;
	}
}

static void draw_multi(struct draw *d, struct op *op)
{
	op->n = 1 + below(d, OP_ITEMS);
	op->a[0] = one_in(d, 3) ? KEEL_MULTICALL_STOP_ON_ERROR : 0;
	for (unsigned int i = 0; i < op->n; i++) {
		struct op_call *c = &op->call[i];

		op->rec[i] = (struct keel_mmu_record){ 0 };
		op->entry_flags[i] = 0;
		switch (below(d, 8)) {
		case 0:
		case 1:
		case 2:
			draw_event(d, c);
			break;
		case 3:
		case 4:
			*c = (struct op_call){ 0 };
			/* One page: a host may do part of more (KEEL-MMU-05, KEEL-MULTI-12), and none of it again. */
			c->id = KEEL_CALL_MMU_BATCH;
			c->arg[1] = DIFF_IN_GPA + KEEL_PAGE_SIZE + i * sizeof(struct keel_mmu_record);
			c->arg[2] = 1;
			draw_record(d, &op->rec[i], true);
			break;
		default:
			draw_call(d, c, true);
		}
		if (one_in(d, 16))
			op->entry_flags[i] = one_in(d, 2) ? 1u << below(d, 16) : 1u << (16 + below(d, 16));
	}
}

static void draw_harvest(struct draw *d, struct op *op)
{
	bool large = one_in(d, 16);
	uint32_t pages = large ? 1 + below(d, 200) : 1 + below(d, one_in(d, 2) ? DIFF_SMALL_PAGES : 8);
	struct op_call *c = &op->call[0];

	op->n = 1;
	*c = (struct op_call){ 0 };
	c->id = PICK(d, KEEL_CALL_HARVEST_START, KEEL_CALL_HARVEST_COLLECT, KEEL_CALL_HARVEST_COLLECT,
		     KEEL_CALL_HARVEST_COLLECT, KEEL_CALL_HARVEST_STOP);
	c->arg[1] = large ? DIFF_LARGE_VA + below(d, DIFF_LARGE_PAGES - pages) * KEEL_PAGE_SIZE
			  : DIFF_SMALL_VA + below(d, DIFF_SMALL_PAGES + 1 - pages) * KEEL_PAGE_SIZE;
	c->arg[2] = pages * KEEL_PAGE_SIZE;
	if (c->id == KEEL_CALL_HARVEST_START)
		c->arg[3] = KEEL_HARVEST_DIRTY;
	if (c->id == KEEL_CALL_HARVEST_COLLECT)
		c->arg[3] = DIFF_OUT_GPA;
}

void op_decode(uint64_t word, struct op *op)
{
	struct draw d = { word };
	uint32_t at = below(&d, 256);

	/* Items are made as they are drawn: the guest may run where each instruction counts. */
	op->word = word;
	op->kind = OP_TOUCH;
	op->n = 0;
	op->a[0] = op->a[1] = op->a[2] = op->a[3] = 0;
	for (uint32_t k = 0; k < OP_KINDS; k++) {
		if (at < weight[k]) {
			op->kind = k;
			break;
		}
		at -= weight[k];
	}
	switch (op->kind) {
	case OP_CALL:
		op->n = 1;
		draw_call(&d, &op->call[0], false);
		break;
	case OP_REGS:
		op->n = 1;
		op->call[0] = (struct op_call){ 0 };
		/* All that comes back is looked at, so the call is one whose answer is the same everywhere. */
		op->call[0].id = PICK(&d, KEEL_CALL_BASE_NOP, KEEL_CALL_BASE_VERSION, KEEL_CALL_MMU_QUERY,
				      KEEL_CALL_TRAP_DELIVER, KEEL_CALL_BASE_PING, KEEL_CALL_VCPU_YIELD, 0, ~0ull);
		if (op->call[0].id == KEEL_CALL_MMU_QUERY)
			op->call[0].arg[1] = small_va(&d);
		op->a[0] = any(&d);
		break;
	case OP_MMU:
		op->n = 1 + below(&d, one_in(&d, 3) ? OP_ITEMS : 2);
		for (unsigned int i = 0; i < op->n; i++)
			draw_record(&d, &op->rec[i], false);
		/* Then touch a page of the last record. */
		draw_access(&d, &op->access[0],
			    (op->rec[op->n - 1].va & ~0xfffull) +
				    below(&d, (uint32_t)(op->rec[op->n - 1].len / KEEL_PAGE_SIZE & 63) + 1) *
					    KEEL_PAGE_SIZE);
		break;
	case OP_TOUCH:
		op->n = 1 + below(&d, 4);
		for (unsigned int i = 0; i < op->n; i++)
			draw_access(&d, &op->access[i], page_va(&d));
		break;
	case OP_EVENT:
		if (one_in(&d, 6)) {
			op->a[0] = 1;
			op->n = 1 + below(&d, OP_ITEMS);
			for (unsigned int i = 0; i < op->n; i++) {
				op->ev[i].op = one_in(&d, 24) ? (uint32_t)PICK(&d, 0, 4, 0xffffffff) : 1 + below(&d, 3);
				op->ev[i].port = port_ref(&d);
				if (op->ev[i].port >> 8 == PORT_HIGH)
					op->ev[i].port &= 0xff;
			}
		} else {
			op->n = 1;
			draw_event(&d, &op->call[0]);
		}
		break;
	case OP_MULTI:
		draw_multi(&d, op);
		break;
	case OP_HARVEST:
		draw_harvest(&d, op);
		break;
	case OP_IF:
		op->a[0] = below(&d, 8);
		op->a[1] = below(&d, DIFF_PORTS) & below(&d, DIFF_PORTS);
		break;
	case OP_SET:
		op->a[0] = below(&d, 3); /* TRAP, EVENT, DUMP */
		op->a[1] = !one_in(&d, 4);
		op->a[2] = one_in(&d, 2);
		break;
	case OP_RETURN:
		op->a[0] = below(&d, KEEL_CLASS_COUNT);
		op->a[1] = one_in(&d, 2) ? 0 : 1 + below(&d, 8);
		op->a[2] = any(&d);
		op->a[3] = any(&d);
		break;
	case OP_TRAP:
		op->a[0] = below(&d, 6);
		break;
	case OP_DOUBLE:
		op->a[0] = below(&d, 3);
		draw_access(&d, &op->access[0], page_va(&d));
		break;
	case OP_HELD:
	case OP_WAIT:
		op->a[0] = below(&d, 4);
		op->a[1] = below(&d, DIFF_PORTS) & below(&d, DIFF_PORTS);
		break;
	case OP_DUMP:
		op->a[0] = below(&d, 6);
		draw_access(&d, &op->access[0], page_va(&d));
		break;
	case OP_TIMER:
		op->a[0] = below(&d, 4);
		op->a[1] = PICK(&d, 20000, 100000, 300000);
		break;
	case OP_MEMORY:
		op->a[0] = below(&d, 3);
		op->a[1] = 1 + below(&d, one_in(&d, 4) ? 16 : 3);
		op->a[2] = below(&d, (uint32_t)(DIFF_POOL_PAGES + 1 - op->a[1]));
		break;
	case OP_STATS:
		op->a[0] = below(&d, KEEL_CALL_COUNT + 1);
		op->a[1] = below(&d, 9);
		break;
	case OP_RING:
		op->a[0] = 1 + below(&d, 40);
		break;
	}
}
