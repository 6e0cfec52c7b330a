/* SPDX-License-Identifier: MIT */
/*
 * Dispatch, BASE, MULTICALL, STATS, CRASH and the accessors of guest RAM.
 *
 * The table of calls is hypercalls.def; a call's common checks are done here
 * in the order of KEEL-CALL-08, its own in its handler.
 */
#include "monitor.h"
#include "bugs.h"

_Static_assert(offsetof(struct mvcpu, guest_rsp) == MV_GUEST_RSP, "gate.S");
_Static_assert(offsetof(struct mvcpu, stack) == MV_STACK, "gate.S");
_Static_assert(offsetof(struct mvcpu, attn) == MV_ATTN, "gate.S");
_Static_assert(offsetof(struct mvcpu, guest_rbp) == MV_GUEST_RBP, "gate.S");
_Static_assert(offsetof(struct mvcpu, iret_cs) == MV_IRET_CS, "gate.S");
_Static_assert(offsetof(struct mvcpu, iret_ss) == MV_IRET_SS, "gate.S");
_Static_assert(offsetof(struct mvcpu, cur) == MV_CUR, "gate.S");
_Static_assert(offsetof(struct mvcpu, r9) == MV_R9, "gate.S");
_Static_assert(offsetof(struct mvcpu, calls_made) == MV_CALLS, "gate.S");
_Static_assert(offsetof(struct mvcpu, trace) == MV_TRACE, "gate.S");
_Static_assert(offsetof(struct mon_trace, returned) == MT_RETURNED, "gate.S");
_Static_assert(offsetof(struct mon_trace, arg) == MT_ARG, "gate.S");
_Static_assert(offsetof(struct mon_trace, status) == MT_STATUS, "gate.S");
_Static_assert(offsetof(struct mon_trace, value) == MT_VALUE, "gate.S");
_Static_assert(sizeof(struct mon_trace) == MON_TRACE_SIZE, "gate.S");
_Static_assert(offsetof(struct mvcpu, entry[KEEL_CLASS_EVENT].entry) == MV_EVENT_ENTRY, "gate.S");
_Static_assert(sizeof(struct mvcpu) <= MON_STACK_TOP - MON_PRIVATE - 0x4000, "room for the monitor's stack");
_Static_assert(KEEL_CALL_COUNT <= MON_MAX_CALLS, "mvcpu.count");

typedef mret (*handler_t)(struct mvcpu *v, const uint64_t *a);

struct call {
	handler_t handler; /* NULL: numbered, not served */
	uint32_t id;
	uint8_t ext;
	uint8_t nargs;
	uint8_t flags;
};

#define A(kind, name) 0
#define Z 0
#define KEEL_CALL(...)
#define KEEL_EXT(name, number, served, doc) EXT_SERVED_##name = served,
enum {
#include "hypercalls.def"
};
#undef KEEL_EXT
#define KEEL_EXT(name, number, served, doc) (served ? KEEL_U64(1) << number : 0) |
static const uint64_t served_mask =
#include "hypercalls.def"
	0;
#undef KEEL_EXT
#undef KEEL_CALL

#define KEEL_EXT(...)
#define KEEL_CALL(ext, fn, name, nargs, flags, a1, a2, a3, a4, a5, doc) \
	{ EXT_SERVED_##ext ? mon_##name : NULL, KEEL_CALL_ID(KEEL_EXT_##ext, fn), KEEL_EXT_##ext, nargs, flags },
static const struct call calls[] = {
#include "hypercalls.def"
};
#undef KEEL_CALL

/* [extension][function] -> 1 + index into calls[]; functions are dense and few. */
#define MAX_FN 16
#define KEEL_CALL(ext, fn, name, nargs, flags, a1, a2, a3, a4, a5, doc) [KEEL_EXT_##ext][fn] = 1 + MON_CALL_##name,
static const uint8_t call_index[KEEL_EXT_COUNT][MAX_FN] = {
#include "hypercalls.def"
};
#undef KEEL_CALL
#undef KEEL_EXT
#undef A
#undef Z

/* A call behind a feature bit that was not accepted, or is not offered: as one that is not implemented. */
static bool refined_away(const struct mon *m, const struct call *c)
{
	return c->flags & KEEL_CF_SMP &&
	       !((m->frozen ? m->accepted : m->offered)[1] >> KEEL_F1_SMP & 1 || KEEL_BUG(29));
}

/*
 * The common checks of a call in the order of KEEL-CALL-08, spelled out: taken when
 * call()'s one test says that something may be wrong.
 */
static __attribute__((noinline, cold)) mret call_checked(struct mvcpu *v, unsigned int n, const uint64_t *arg)
{
	const struct call *c = &calls[n];
	const struct mon *m = v->mon;

	if (!c->handler || refined_away(m, c))
		return MERR(KEEL_E_NOTSUP, 0);
	if (!(m->offered[0] >> c->ext & 1))
		return MERR(KEEL_E_PERM, 0);
	if (c->flags & KEEL_CF_NOBATCH && v->illegal & KEEL_CF_NOBATCH && !KEEL_BUG(1))
		return MERR(KEEL_E_CONTEXT, 0);
	if (!(c->flags & KEEL_CF_EARLY) && !(m->callable >> c->ext & 1) && !KEEL_BUG(2))
		return MERR(m->frozen ? KEEL_E_NOTSUP : KEEL_E_STATE, 0);
	if (m->held >> c->ext & 1)
		return MERR(KEEL_E_STATE, 0);
	if (c->flags & KEEL_CF_NODUMP && v->illegal & KEEL_CF_NODUMP)
		return MERR(KEEL_E_CONTEXT, 0);
	for (int i = c->nargs; i < 5; i++)
		if (arg[i] && !KEEL_BUG(3))
			return MERR(KEEL_E_INVAL, KEEL_AT_ARG(i + 1));
	return c->handler(v, arg);
}

/* Which calls pass call_checked() as far as the partition's state goes, for the fast path of call(). */
static void update_legal(struct mon *m)
{
	for (unsigned int i = 0; i < KEEL_CALL_COUNT; i++)
		m->legal[i] = calls[i].handler && !refined_away(m, &calls[i]) && !(m->held >> calls[i].ext & 1) &&
			      (calls[i].flags & KEEL_CF_EARLY || m->callable >> calls[i].ext & 1);
}

void mon_hold(struct mon *m, uint64_t extensions)
{
	m->held = extensions;
	update_legal(m);
}

/*
 * The handler, behind one test; both doors (gate, MULTICALL) end here. Nothing is
 * left to do after it, so it returns straight to the door: this is what a local
 * call costs. The doors count errors.
 */
static inline __attribute__((always_inline)) mret call(struct mvcpu *v, unsigned int n, const uint64_t *arg)
{
	const struct call *c = &calls[n];
	uint64_t unused = 0;

#pragma GCC unroll 5
	for (unsigned int i = 0; i < 5; i++)
		unused |= i >= c->nargs ? arg[i] : 0;
	v->count[n].calls++;
	if (__builtin_expect(!v->mon->legal[n] || c->flags & v->illegal || unused, 0))
		return call_checked(v, n, arg);
	return c->handler(v, arg);
}

/* Place in calls[], KEEL_CALL_COUNT = there is no such number. */
static inline unsigned int lookup(uint64_t id)
{
	uint32_t ext = id >> 12 & 0xfff, fn = id & 0xfff;

	if (id >> 24 != 1 || ext >= KEEL_EXT_COUNT || fn >= MAX_FN)
		return KEEL_CALL_COUNT;
	return (call_index[ext][fn] - 1u) & 0xff;
}

/**
 * mon_dispatch - every hypercall
 * @id: rax of the caller
 * @arg: rdi rsi rdx r10 r8 of the caller, in its trace entry
 * @v: the vCPU
 */
struct keel_ret_ mon_dispatch(uint64_t id, const uint64_t *arg, struct mvcpu *v)
{
	const unsigned int n = lookup(id);
	const bool early = n < KEEL_CALL_COUNT && calls[n].flags & KEEL_CF_EARLY;

	if (KEEL_BUG(KEEL_BUG_ALWAYS_OK) && !early)
		return MRET(KEEL_OK, 0);
	if (n >= KEEL_CALL_COUNT || (KEEL_BUG(KEEL_BUG_ALWAYS_NOSYS) && !early))
		return MERR(KEEL_E_NOSYS, 0);
	return call(v, n, arg);
}

/* A call through the gate was answered with an error. Numbers that are none are not counted. */
void mon_count_error(uint32_t id, struct mvcpu *v)
{
	const unsigned int n = lookup(id);

	if (n < KEEL_CALL_COUNT)
		v->count[n].errors++;
}

bool mon_range_ok(const struct mon *m, uint64_t gpa, uint64_t len)
{
	return (len <= m->ram_size && gpa <= m->ram_size - len) || KEEL_BUG(4);
}

/*
 * The one way guest RAM is read: copied once, front to back, then never looked
 * at again. Volatile, so that the compiler cannot fetch twice.
 */
bool mon_copy_in(const struct mon *m, void *dst, uint64_t gpa, uint64_t len)
{
	const volatile uint64_t *s;
	uint64_t *d = dst;

	if (!mon_range_ok(m, gpa, len))
		return false;
	s = (const volatile uint64_t *)(m->ram + gpa);
	for (uint64_t i = 0; i < len / 8; i++)
		d[i] = s[i];
	return true;
}

bool mon_copy_out(struct mon *m, uint64_t gpa, const void *src, uint64_t len)
{
	const uint64_t *s = src;
	volatile uint64_t *d;

	if (!mon_range_ok(m, gpa, len))
		return false;
	d = (volatile uint64_t *)(m->ram + gpa);
	for (uint64_t i = 0; i < len / 8; i++)
		d[i] = s[i];
	mon_wrote(m, gpa, len);
	return true;
}

void mon_wrote(struct mon *m, uint64_t gpa, uint64_t len)
{
	if (!__atomic_load_n(&m->tracking, __ATOMIC_ACQUIRE) || !len)
		return;
	for (uint64_t p = gpa >> KEEL_PAGE_SHIFT; p <= (gpa + len - 1) >> KEEL_PAGE_SHIFT; p++)
		__atomic_or_fetch(&m->hostlog[p / 8], (uint8_t)(1 << p % 8), __ATOMIC_SEQ_CST);
}

void mon_init(struct mon *m)
{
	m->callable = 0;
	m->frozen = false;
	update_legal(m);
	m->console_gpa = ~KEEL_U64(0);
	m->as0.state = AS_LIVE;
	as_init(m, &m->as0);
}

void mon_vcpu_init(struct mon *m, struct mvcpu *v, struct keel_vcpu *page, uint32_t id)
{
	v->mon = m;
	v->page = page;
	v->id = id;
	v->stack = (uint64_t)page + MON_STACK_TOP;
	v->timer_deadline = KEEL_TIME_NEVER;
	v->run = id ? MON_STOPPED : MON_RUNNING;
	page->self = (uint64_t)page;
	page->gate = m->gate_va;
	page->start = m->start_va;
	page->id = id;
	for (unsigned int i = 0; i < 64; i++)
		page->event_mask[i] = ~KEEL_U64(0);
	v->begin.entry = m->entry;
	v->begin.opaque = m->start_va;
	mon_begin(v);
}

void mon_begin(struct mvcpu *v)
{
	/* Set by the host, which writes it no more once `run` is what it is now. */
	const uint64_t entry = v->begin.entry, opaque = v->begin.opaque;

	for (unsigned int i = 0; i < KEEL_CLASS_COUNT; i++) {
		v->entry[i] = (struct mon_entry){ 0 };
		v->page->slot[i].frame = (struct keel_frame){ 0 };
	}
	if (!KEEL_BUG(43))
		v->page->if_enabled = 0;
	v->dump_pending = 0;
	v->illegal = 0;
	v->attn = 0;
	v->cur = (struct keel_frame){ .rip = entry, .rdi = opaque, .mode = KEEL_MODE_KERNEL };
	v->cur.rflags = 0x202; /* IF is the hardware's */
	if (v->run == MON_STARTING)
		__atomic_store_n(&v->run, MON_RUNNING, __ATOMIC_SEQ_CST);
}

void mon_stop(struct mvcpu *v)
{
	mon_timer_off(v);
	v->user_as = NULL;
	__atomic_store_n(&v->stop, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&v->run, MON_STOPPED, __ATOMIC_SEQ_CST);
	mb_park(v);
}

/* BASE */

mret mon_base_version(struct mvcpu *v, const uint64_t *a)
{
	(void)v, (void)a;
	return MRET(KEEL_OK, KEEL_ABI_VERSION);
}

mret mon_base_host(struct mvcpu *v, const uint64_t *a)
{
	uint64_t word;

	if (a[0] >= 4)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(1));
	__builtin_memcpy(&word, v->mon->host_id + a[0] * 8, 8);
	return MRET(KEEL_OK, word);
}

mret mon_base_probe(struct mvcpu *v, const uint64_t *a)
{
	struct mon *m = v->mon;
	uint64_t value = 0;

	if (a[0] >= KEEL_EXT_COUNT)
		return MRET(KEEL_OK, 0);
	if (served_mask >> a[0] & 1)
		value |= KEEL_PROBE_IMPLEMENTED;
	if (m->offered[0] >> a[0] & 1)
		value |= KEEL_PROBE_GRANTED;
	if (a[0] == KEEL_EXT_BASE || (m->accepted[0] >> a[0] & 1))
		value |= KEEL_PROBE_ACCEPTED;
	return MRET(KEEL_OK, value);
}

mret mon_base_features(struct mvcpu *v, const uint64_t *a)
{
	return MRET(KEEL_OK, a[0] < KEEL_FEATURE_WORDS ? v->mon->offered[a[0]] : 0);
}

mret mon_base_accept(struct mvcpu *v, const uint64_t *a)
{
	struct mon *m = v->mon;
	uint64_t unknown = a[1];

	if (m->frozen && !KEEL_BUG(5))
		return MERR(KEEL_E_STATE, 0);
	if (a[0] < KEEL_FEATURE_WORDS)
		unknown &= ~m->offered[a[0]];
	if (unknown)
		return MRET(KEEL_STATUS_BIT(KEEL_E_NOTSUP, KEEL_AT_ARG(2), __builtin_ctzll(unknown)), 0);
	if (a[0] < KEEL_FEATURE_WORDS)
		m->accepted[a[0]] |= a[1];
	return MRET(KEEL_OK, 0);
}

mret mon_base_freeze(struct mvcpu *v, const uint64_t *a)
{
	struct mon *m = v->mon;

	(void)a;
	if (m->frozen)
		return MERR(KEEL_E_STATE, 0);
	m->frozen = true;
	m->callable = m->accepted[0];
	update_legal(m);
	return MRET(KEEL_OK, 0);
}

mret mon_base_shutdown(struct mvcpu *v, const uint64_t *a)
{
	if (a[0] > KEEL_SHUTDOWN_RESTART)
		return MERR(KEEL_E_INVAL, KEEL_AT_ARG(1));
	if (a[1] > KEEL_SHUTDOWN_CODE_MAX)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(2));
	return mb_remote(v, KEEL_CALL_BASE_SHUTDOWN, a);
}

mret mon_base_nop(struct mvcpu *v, const uint64_t *a)
{
	(void)v, (void)a;
	return MRET(KEEL_OK, 0);
}

mret mon_base_limit(struct mvcpu *v, const uint64_t *a)
{
	struct mon *m = v->mon;
	const uint64_t limit[KEEL_LIMIT_COUNT] = {
		[KEEL_LIMIT_VCPUS] = m->vcpus,
		[KEEL_LIMIT_MMU_RECORDS] = MON_BATCH,
		[KEEL_LIMIT_MMU_PAGES] = MON_MMU_PAGES,
		[KEEL_LIMIT_BATCH_COUNT] = MON_BATCH_COUNT,
		[KEEL_LIMIT_EVENT_PORTS] = KEEL_EVENT_BITS,
		[KEEL_LIMIT_AS_TABLES] = m->arena_pages,
		[KEEL_LIMIT_HARVEST_PAGES] = MON_HARVEST_PAGES,
		[KEEL_LIMIT_MEMORY_PAGES] = MON_MEMORY_PAGES,
		[KEEL_LIMIT_SPACES] = m->spaces,
	};

	if (a[0] >= KEEL_LIMIT_COUNT)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(1));
	return MRET(KEEL_OK, limit[a[0]]);
}

mret mon_base_ping(struct mvcpu *v, const uint64_t *a)
{
	return mb_remote(v, KEEL_CALL_BASE_PING, a);
}

/* MULTICALL */

mret mon_multicall(struct mvcpu *v, const uint64_t *a)
{
	const uint64_t entries = a[0], count = a[1], results = a[2], flags = a[3];
	struct mon *m = v->mon;
	uint64_t n, done;

	if (entries % 8)
		return MERR(KEEL_E_INVAL, KEEL_AT_ARG(1));
	if (count > MON_BATCH_COUNT)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(2));
	if (results % 8)
		return MERR(KEEL_E_INVAL, KEEL_AT_ARG(3));
	if (flags & ~KEEL_MULTICALL_STOP_ON_ERROR)
		return MRET(KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_ARG(4),
					    __builtin_ctzll(flags & ~KEEL_MULTICALL_STOP_ON_ERROR)),
			    0);
	if (!mon_range_ok(m, entries, count * sizeof(struct keel_multicall)))
		return MERR(KEEL_E_FAULT, KEEL_AT_ARG(1));
	if (!mon_range_ok(m, results, count * sizeof(struct keel_multicall_result)))
		return MERR(KEEL_E_FAULT, KEEL_AT_ARG(3));

	n = count < KEEL_MULTICALL_MAX ? count : KEEL_MULTICALL_MAX;
	v->illegal |= KEEL_CF_NOBATCH;
	for (done = 0; done < n; done++) {
		struct keel_multicall_result r = { 0 };
		struct keel_multicall e = { 0 };
		unsigned int call_nr;
		mret one;

		if (!mon_copy_in(m, &e, entries + done * sizeof(e), sizeof(e)))
			break;
		call_nr = lookup(e.id);
		if (e.flags)
			one = MERR(KEEL_E_INVAL, KEEL_AT_FIELD(2));
		else if (e.reserved && !KEEL_BUG(6))
			one = MERR(KEEL_E_INVAL, KEEL_AT_FIELD(5));
		else
			one = call_nr < KEEL_CALL_COUNT ? call(v, call_nr, e.arg) : MERR(KEEL_E_NOSYS, 0);
		if (one.status < 0)
			mon_count_error(e.id, v);
		if (KEEL_BUG(22))
			mon_copy_in(m, &e, entries + done * sizeof(e), sizeof(e));
		r.status = one.status;
		r.value = one.value;
		r.cookie = e.cookie;
		r.id = e.id;
		mon_copy_out(m, results + done * sizeof(r), &r, sizeof(r));
		if (one.status < 0 && flags & KEEL_MULTICALL_STOP_ON_ERROR && !KEEL_BUG(7)) {
			done++;
			break;
		}
	}
	v->illegal &= ~KEEL_CF_NOBATCH;
	mon_work(v, MON_CALL_multicall, done);
	return MRET(KEEL_OK, done);
}

/* STATS */

mret mon_stats_read(struct mvcpu *v, const uint64_t *a)
{
	const uint64_t buf = a[0], len = a[1], first = a[2];
	uint64_t n = len / sizeof(struct keel_stats_entry), done;

	if (buf % 8)
		return MERR(KEEL_E_INVAL, KEEL_AT_ARG(1));
	if (len % sizeof(struct keel_stats_entry))
		return MERR(KEEL_E_INVAL, KEEL_AT_ARG(2));
	if (first > KEEL_CALL_COUNT)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(3));
	if (!mon_range_ok(v->mon, buf, len))
		return MERR(KEEL_E_FAULT, KEEL_AT_ARG(1));
	if (n > KEEL_CALL_COUNT - first)
		n = KEEL_CALL_COUNT - first;
	for (done = 0; done < n; done++) {
		struct keel_stats_entry e = { .id = calls[first + done].id };

		for (uint32_t i = 0; i < v->mon->vcpus; i++) {
			const struct mon_count *c = &mv_peer(v, i)->count[first + done];

			e.calls += c->calls;
			e.errors += c->errors;
			e.work += c->work;
		}
		mon_copy_out(v->mon, buf + done * sizeof(e), &e, sizeof(e));
	}
	return MRET(KEEL_OK, done);
}

/* CRASH */

mret mon_crash(struct mvcpu *v, const uint64_t *a)
{
	if (a[0] > KEEL_CRASH_REASON_MAX)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(1));
	if (a[2] > KEEL_CRASH_MESSAGE_MAX)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(3));
	if (a[2] && !mon_range_ok(v->mon, a[1], a[2]))
		return MERR(KEEL_E_FAULT, KEEL_AT_ARG(2));
	return mb_remote(v, KEEL_CALL_CRASH, a);
}

/* CONSOLE: output goes through the host; only the wake-up test is local. */

mret mon_console_write(struct mvcpu *v, const uint64_t *a)
{
	if (!a[0] || a[0] > KEEL_CONSOLE_WRITE_MAX)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(1));
	mon_work(v, MON_CALL_console_write, a[0]);
	return mb_remote(v, KEEL_CALL_CONSOLE_WRITE, a);
}

mret mon_console_setup(struct mvcpu *v, const uint64_t *a)
{
	mret r = mb_remote(v, KEEL_CALL_CONSOLE_SETUP, a);

	if (r.status == KEEL_OK)
		v->mon->console_gpa = a[1] ? a[0] : ~KEEL_U64(0);
	return r;
}

mret mon_console_kick(struct mvcpu *v, const uint64_t *a)
{
	(void)a;
	if (v->mon->console_gpa == ~KEEL_U64(0))
		return MERR(KEEL_E_STATE, 0);
	mb_doorbell(v);
	return MRET(KEEL_OK, 0);
}
