/* SPDX-License-Identifier: MIT */
/*
 * EVENT, TIME, VCPU and DEVICE: ports, timers, waiting, starting and stopping. The map
 * itself is libhypercall's event.c, the same code guests and the host run; any vCPU
 * may write any other's. Who makes `pending` of another non-zero kicks it.
 */
#include <hypercall/clock.h>

#include "monitor.h"
#include "bugs.h"

/* `to` has something to look at that it had not: on its own thread the exit path does. */
static void look(struct mvcpu *v, struct mvcpu *to)
{
	if (to == v)
		v->attn |= ATTN_LOOK;
	else if (!KEEL_BUG(42))
		mon_kick(v, to);
}

void mon_kick(struct mvcpu *v, struct mvcpu *to)
{
	if (!__atomic_exchange_n(&to->kicked, 1, __ATOMIC_SEQ_CST))
		mb_kick(v, to);
}

void mon_send(struct mvcpu *v, struct mvcpu *to, uint32_t bit)
{
	if (keel_ev_send(keel_share(to->page), bit))
		look(v, to);
}

static bool port_used(const struct mvcpu *t, uint32_t bit)
{
	return __atomic_load_n(&t->port_used[bit / 64], __ATOMIC_ACQUIRE) >> bit % 64 & 1;
}

/* The port in use that a handle names, or a status saying why there is none. */
static int64_t port_find(struct mvcpu *v, uint64_t port, int at, struct mvcpu **of, uint32_t *bit)
{
	if (port >> 32)
		return KEEL_STATUS(KEEL_E_INVAL, at);
	*bit = KEEL_PORT_BIT(port);
	if (KEEL_PORT_VCPU(port) >= v->mon->vcpus)
		return KEEL_STATUS(KEEL_E_NOENT, at);
	*of = mv_peer(v, KEEL_PORT_VCPU(port));
	if (!port_used(*of, *bit) || ((*of)->port_gen[*bit] != KEEL_PORT_GEN(port) && !KEEL_BUG(19)))
		return KEEL_STATUS(KEEL_E_NOENT, at);
	return KEEL_OK;
}

/* priority is one of the four; mon.ports is held */
static mret port_new(struct mvcpu *v, uint64_t priority)
{
	uint32_t word, last, bit;

	word = priority * (KEEL_EVENT_BITS_PER_PRIORITY / 64);
	last = word + KEEL_EVENT_BITS_PER_PRIORITY / 64;
	while (word < last && !~v->port_used[word])
		word++;
	if (word == last)
		return MERR(KEEL_E_NOMEM, 0);
	bit = word * 64 + __builtin_ctzll(~v->port_used[word]);
	keel_ev_clear(keel_share(v->page), bit);
	__atomic_or_fetch(&v->port_used[word], KEEL_U64(1) << bit % 64, __ATOMIC_RELEASE);
	return MRET(KEEL_OK, KEEL_PORT(v->port_gen[bit], v->id, bit));
}

mret mon_event_alloc(struct mvcpu *v, const uint64_t *a)
{
	mret r;

	if (a[0] >= KEEL_EVENT_PRIORITIES)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(1));
	mon_lock(&v->mon->ports);
	r = port_new(v, a[0]);
	mon_unlock(&v->mon->ports);
	return r;
}

/* Where the port a source is bound to is kept, and what a port is there. 0 = none. */
static uint32_t *source_port(struct mvcpu *v, uint64_t source)
{
	return source == KEEL_SOURCE_TIMER ? &v->timer_port : &v->mon->console_port;
}

static uint32_t bound(const struct mvcpu *of, uint32_t bit)
{
	return (of->id << 12 | bit) + 1;
}

mret mon_event_bind(struct mvcpu *v, const uint64_t *a)
{
	uint32_t *at;
	mret r;

	if (a[0] >= KEEL_SOURCE_COUNT)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(1));
	if (a[1] >= KEEL_EVENT_PRIORITIES)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(2));
	mon_lock(&v->mon->ports);
	at = source_port(v, a[0]);
	r = *at ? MERR(KEEL_E_EXIST, KEEL_AT_ARG(1)) : port_new(v, a[1]);
	if (r.status == KEEL_OK)
		__atomic_store_n(at, bound(v, KEEL_PORT_BIT(r.value)), __ATOMIC_RELEASE);
	mon_unlock(&v->mon->ports);
	return r;
}

mret mon_event_close(struct mvcpu *v, const uint64_t *a)
{
	struct mvcpu *of;
	uint32_t bit;
	int64_t status;

	mon_lock(&v->mon->ports);
	status = port_find(v, a[0], KEEL_AT_ARG(1), &of, &bit);
	if (status == KEEL_OK) {
		for (unsigned int s = 0; s < KEEL_SOURCE_COUNT; s++)
			if (*source_port(of, s) == bound(of, bit)) {
				__atomic_store_n(source_port(of, s), 0, __ATOMIC_RELEASE);
				/* Another vCPU's timer finds nobody to tell when it goes off. */
				if (s == KEEL_SOURCE_TIMER && of == v)
					mon_timer_off(v);
			}
		of->port_gen[bit]++;
		__atomic_and_fetch(&of->port_used[bit / 64], ~(KEEL_U64(1) << bit % 64), __ATOMIC_RELEASE);
		if (!KEEL_BUG(20))
			keel_ev_clear(keel_share(of->page), bit);
	}
	mon_unlock(&v->mon->ports);
	return MRET(status, 0);
}

static int64_t port_op(struct mvcpu *v, uint32_t op, uint64_t port, int at)
{
	struct mvcpu *of;
	uint32_t bit;
	int64_t status;

	/* A doorbell can be rung, nothing else. Generation 0: devices do not come and go. */
	if (op == KEEL_EVENT_OP_SEND && port >> 12 == KEEL_PORT_HOST && KEEL_PORT_BIT(port) < v->mon->devices &&
	    v->mon->callable >> KEEL_EXT_DEVICE & 1) {
		mb_device(v, KEEL_PORT_BIT(port));
		return KEEL_OK;
	}
	status = port_find(v, port, at, &of, &bit);
	if (status != KEEL_OK)
		return status;
	switch (op) {
	case KEEL_EVENT_OP_MASK:
		keel_ev_mask(keel_share(of->page), bit);
		break;
	case KEEL_EVENT_OP_UNMASK:
		if (keel_ev_unmask(keel_share(of->page), bit))
			look(v, of);
		break;
	case KEEL_EVENT_OP_SEND:
		mon_send(v, of, bit);
		break;
	}
	return KEEL_OK;
}

mret mon_event_mask(struct mvcpu *v, const uint64_t *a)
{
	return MRET(port_op(v, KEEL_EVENT_OP_MASK, a[0], KEEL_AT_ARG(1)), 0);
}

mret mon_event_unmask(struct mvcpu *v, const uint64_t *a)
{
	return MRET(port_op(v, KEEL_EVENT_OP_UNMASK, a[0], KEEL_AT_ARG(1)), 0);
}

mret mon_event_send(struct mvcpu *v, const uint64_t *a)
{
	return MRET(port_op(v, KEEL_EVENT_OP_SEND, a[0], KEEL_AT_ARG(1)), 0);
}

mret mon_event_batch(struct mvcpu *v, const uint64_t *a)
{
	const uint64_t records = a[0], count = a[1], flags = a[2];
	uint64_t n = count < KEEL_EVENT_BATCH_MAX ? count : KEEL_EVENT_BATCH_MAX, done;
	int64_t status = KEEL_OK;

	if (records % 8)
		return MERR(KEEL_E_INVAL, KEEL_AT_ARG(1));
	if (count > MON_BATCH_COUNT)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(2));
	if (flags)
		return MRET(KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_ARG(3), __builtin_ctzll(flags)), 0);
	if (!mon_range_ok(v->mon, records, count * sizeof(struct keel_event_record)))
		return MERR(KEEL_E_FAULT, KEEL_AT_ARG(1));
	mon_copy_in(v->mon, v->copy.event, records, n * sizeof(struct keel_event_record));
	for (done = 0; done < n; done++) {
		const struct keel_event_record *r = &v->copy.event[done];

		if (r->op < KEEL_EVENT_OP_MASK || r->op > KEEL_EVENT_OP_SEND)
			status = KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(1));
		else
			status = port_op(v, r->op, r->port, KEEL_AT_FIELD(2));
		if (status != KEEL_OK)
			break;
	}
	mon_work(v, MON_CALL_event_batch, done);
	return MRET(status, done);
}

mret mon_event_dump(struct mvcpu *v, const uint64_t *a)
{
	struct mvcpu *to;

	if (a[0] >= v->mon->vcpus)
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	to = mv_peer(v, a[0]);
	__atomic_store_n(&to->dump_pending, 1, __ATOMIC_SEQ_CST);
	look(v, to);
	return MRET(KEEL_OK, 0);
}

/* TIME */

uint64_t mon_now(struct mvcpu *v)
{
	keel_u64 ns;

	return keel_clock_read(keel_share(v->mon->clock), &ns) ? ns : mb_now(v);
}

mret mon_time_read(struct mvcpu *v, const uint64_t *a)
{
	(void)a;
	return MRET(KEEL_OK, mon_now(v));
}

mret mon_time_set_timer(struct mvcpu *v, const uint64_t *a)
{
	if (!v->timer_port)
		return MERR(KEEL_E_STATE, 0);
	v->timer_deadline = a[0];
	if (a[0] != KEEL_TIME_NEVER && mon_now(v) >= a[0])
		mon_timer_fired(v);
	else
		mb_timer(v, KEEL_BUG(21) ? a[0] - 50000 : a[0]);
	return MRET(KEEL_OK, 0);
}

void mon_timer_off(struct mvcpu *v)
{
	v->timer_deadline = KEEL_TIME_NEVER;
	mb_timer(v, KEEL_TIME_NEVER);
}

/*
 * When the backend's clock will be where it is needed for the guest's clock to show
 * `deadline`, which is ahead of `now`. The clock page may run behind the backend's
 * clock while that one is slewed; a deadline it has passed would end every wait at
 * once, over and over.
 */
static uint64_t backend_time(struct mvcpu *v, uint64_t deadline, uint64_t now)
{
	uint64_t backend = mb_now(v);

	return backend < deadline ? deadline : backend + (deadline - now);
}

/**
 * mon_timer_fired - the backend's timer went off, perhaps early or for nothing
 * @v: the vCPU, on its own thread
 *
 * By the clock the guest reads the deadline may still be ahead; then it is
 * armed again (architecture decision 23).
 */
void mon_timer_fired(struct mvcpu *v)
{
	uint32_t port = __atomic_load_n(&v->timer_port, __ATOMIC_ACQUIRE);
	uint64_t now;

	if (v->timer_deadline == KEEL_TIME_NEVER || !port)
		return;
	now = mon_now(v);
	if (now < v->timer_deadline && !KEEL_BUG(21)) {
		mb_timer(v, backend_time(v, v->timer_deadline, now));
		return;
	}
	v->timer_deadline = KEEL_TIME_NEVER;
	mon_send(v, v, (port - 1) % KEEL_EVENT_BITS);
}

/* VCPU */

mret mon_vcpu_wait(struct mvcpu *v, const uint64_t *a)
{
	bool early = false;

	for (;;) {
		uint64_t now = 0;
		uint32_t seq = __atomic_load_n(&v->kick_seq, __ATOMIC_ACQUIRE);

		mon_listen(v);
		if (__atomic_load_n(&v->page->pending, __ATOMIC_ACQUIRE)) {
			v->attn |= ATTN_LOOK;
			return MRET(KEEL_OK, 0);
		}
		if ((__atomic_load_n(&v->dump_pending, __ATOMIC_SEQ_CST) && v->entry[KEEL_CLASS_DUMP].entry) ||
		    __atomic_load_n(&v->stop, __ATOMIC_SEQ_CST)) {
			v->attn |= ATTN_LOOK;
			return MRET(KEEL_OK, 0);
		}
		if (a[0] != KEEL_TIME_NEVER) {
			now = mon_now(v);
			if (now >= a[0])
				return MERR(KEEL_E_TIMEDOUT, 0);
		}
		early = !mb_wait(v, seq, early ? backend_time(v, a[0], now) : a[0]);
	}
}

mret mon_vcpu_yield(struct mvcpu *v, const uint64_t *a)
{
	if (a[0] != KEEL_VCPU_ANY && a[0] >= v->mon->vcpus)
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	mb_yield(v, a[0] == KEEL_VCPU_ANY || a[0] == v->id ? NULL : mv_peer(v, a[0]));
	return MRET(KEEL_OK, 0);
}

mret mon_vcpu_start(struct mvcpu *v, const uint64_t *a)
{
	if (a[0] >= v->mon->vcpus)
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	if (a[1] < KEEL_VA_MIN || a[1] >= KEEL_VA_END)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(2));
	return mb_remote(v, KEEL_CALL_VCPU_START, a);
}

mret mon_vcpu_stop(struct mvcpu *v, const uint64_t *a)
{
	if (a[0] >= v->mon->vcpus)
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	if (a[0] == v->id)
		mon_stop(v);
	return mb_remote(v, KEEL_CALL_VCPU_STOP, a);
}

/* The next vCPU of a set at or after `from`; mon.vcpus when there is none. Its words are those of one bank. */
static uint32_t next_of(const struct keel_vcpu_set *set, uint32_t vcpus, uint32_t from)
{
	while (from < vcpus && !(set->bank[0] >> from & 1))
		from++;
	return from;
}

mret mon_vcpu_ipi(struct mvcpu *v, const uint64_t *a)
{
	const uint64_t gpa = a[0], size = a[1], bit = a[2];
	const uint32_t vcpus = v->mon->vcpus;
	struct keel_vcpu_set *set = &v->copy.set;

	_Static_assert(MON_MAX_VCPUS <= 64, "one bank");
	if (gpa % 8)
		return MERR(KEEL_E_INVAL, KEEL_AT_ARG(1));
	if (size % 8 || size < 8 || size > sizeof(*set))
		return MERR(KEEL_E_INVAL, KEEL_AT_ARG(2));
	if (bit >= KEEL_EVENT_BITS)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(3));
	if (!mon_copy_in(v->mon, set, gpa, size))
		return MERR(KEEL_E_FAULT, KEEL_AT_ARG(1));
	if (mon_bits(set->banks) != size / 8 - 1)
		return MERR(KEEL_E_INVAL, KEEL_AT_FIELD(1));
	for (uint64_t w = 0; w < size / 8 - 1; w++)
		if (w || !(set->banks & 1) ? set->bank[w] : set->bank[w] >> vcpus)
			return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	if (!(set->banks & 1))
		return MRET(KEEL_OK, 0);
	for (uint32_t i = next_of(set, vcpus, 0); i < vcpus; i = next_of(set, vcpus, i + 1))
		if (!port_used(mv_peer(v, i), bit) && !KEEL_BUG(30))
			return MERR(KEEL_E_NOENT, KEEL_AT_ARG(3));
	for (uint32_t i = next_of(set, vcpus, 0); i < vcpus; i = next_of(set, vcpus, i + 1))
		if (!KEEL_BUG(44) || i == next_of(set, vcpus, 0))
			mon_send(v, mv_peer(v, i), bit);
	return MRET(KEEL_OK, 0);
}

mret mon_vcpu_info(struct mvcpu *v, const uint64_t *a)
{
	if (a[1] >= KEEL_VCPU_INFO_COUNT)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(2));
	if (a[0] >= v->mon->vcpus)
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	return MRET(KEEL_OK, __atomic_load_n(&mv_peer(v, a[0])->run, __ATOMIC_SEQ_CST) == MON_STOPPED
				     ? KEEL_VCPU_STOPPED
				     : KEEL_VCPU_RUNNING);
}

/* DEVICE: the host's, which writes its answers past the guest's mappings. */

mret mon_device_enum(struct mvcpu *v, const uint64_t *a)
{
	mret r = mb_remote(v, KEEL_CALL_DEVICE_ENUM, a);

	if (r.status == KEEL_OK)
		mon_wrote(v->mon, a[1], sizeof(struct keel_device_info));
	return r;
}

mret mon_device_status(struct mvcpu *v, const uint64_t *a)
{
	return mb_remote(v, KEEL_CALL_DEVICE_STATUS, a);
}

mret mon_device_accept(struct mvcpu *v, const uint64_t *a)
{
	return mb_remote(v, KEEL_CALL_DEVICE_ACCEPT, a);
}

mret mon_device_queue(struct mvcpu *v, const uint64_t *a)
{
	return mb_remote(v, KEEL_CALL_DEVICE_QUEUE, a);
}

mret mon_device_config_read(struct mvcpu *v, const uint64_t *a)
{
	mret r = mb_remote(v, KEEL_CALL_DEVICE_CONFIG_READ, a);

	if (r.status == KEEL_OK)
		mon_wrote(v->mon, a[2], a[3]);
	return r;
}

mret mon_device_config_write(struct mvcpu *v, const uint64_t *a)
{
	return mb_remote(v, KEEL_CALL_DEVICE_CONFIG_WRITE, a);
}
