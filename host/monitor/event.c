/* SPDX-License-Identifier: MIT */
/*
 * EVENT, TIME and VCPU: ports of this vCPU, its timer, waiting. The map itself
 * is libhypercall's event.c, the same code guests and the host run.
 */
#include <hypercall/clock.h>

#include "monitor.h"
#include "bugs.h"

/* Make a port pending on the calling vCPU; the exit path delivers. */
void mon_send(struct mvcpu *v, uint32_t bit)
{
	if (keel_ev_send(keel_share(v->page), bit))
		v->attn |= ATTN_LOOK;
}

/* A handle that names a port in use, or a status saying why not. */
static int64_t port_bit(struct mvcpu *v, uint64_t port, int at, uint32_t *bit)
{
	struct mon *m = v->mon;

	if (port >> 32)
		return KEEL_STATUS(KEEL_E_INVAL, at);
	*bit = KEEL_PORT_BIT(port);
	if (KEEL_PORT_VCPU(port) != v->id || !(m->port_used[*bit / 64] >> *bit % 64 & 1))
		return KEEL_STATUS(KEEL_E_NOENT, at);
	if (m->port_gen[*bit] != KEEL_PORT_GEN(port) && !KEEL_BUG(19))
		return KEEL_STATUS(KEEL_E_NOENT, at);
	return KEEL_OK;
}

/* priority is one of the four */
static mret port_new(struct mvcpu *v, uint64_t priority)
{
	struct mon *m = v->mon;
	uint32_t word, last, bit;

	word = priority * (KEEL_EVENT_BITS_PER_PRIORITY / 64);
	last = word + KEEL_EVENT_BITS_PER_PRIORITY / 64;
	while (word < last && !~m->port_used[word])
		word++;
	if (word == last)
		return MERR(KEEL_E_NOMEM, 0);
	bit = word * 64 + __builtin_ctzll(~m->port_used[word]);
	m->port_used[word] |= KEEL_U64(1) << bit % 64;
	keel_ev_clear(keel_share(v->page), bit);
	return MRET(KEEL_OK, KEEL_PORT(m->port_gen[bit], v->id, bit));
}

mret mon_event_alloc(struct mvcpu *v, const uint64_t *a)
{
	if (a[0] >= KEEL_EVENT_PRIORITIES)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(1));
	return port_new(v, a[0]);
}

mret mon_event_bind(struct mvcpu *v, const uint64_t *a)
{
	struct mon *m = v->mon;
	mret r;

	if (a[0] >= KEEL_SOURCE_COUNT)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(1));
	if (a[1] >= KEEL_EVENT_PRIORITIES)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(2));
	if (m->source_port[a[0]])
		return MERR(KEEL_E_EXIST, KEEL_AT_ARG(1));
	r = port_new(v, a[1]);
	if (r.status == KEEL_OK)
		__atomic_store_n(&m->source_port[a[0]], KEEL_PORT_BIT(r.value) + 1, __ATOMIC_RELEASE);
	return r;
}

mret mon_event_close(struct mvcpu *v, const uint64_t *a)
{
	struct mon *m = v->mon;
	uint32_t bit;
	int64_t status = port_bit(v, a[0], KEEL_AT_ARG(1), &bit);

	if (status != KEEL_OK)
		return MRET(status, 0);
	for (unsigned int s = 0; s < KEEL_SOURCE_COUNT; s++)
		if (m->source_port[s] == bit + 1) {
			__atomic_store_n(&m->source_port[s], 0, __ATOMIC_RELEASE);
			if (s == KEEL_SOURCE_TIMER) {
				v->timer_deadline = KEEL_TIME_NEVER;
				mb_timer(v, KEEL_TIME_NEVER);
			}
		}
	if (!KEEL_BUG(20))
		keel_ev_clear(keel_share(v->page), bit);
	m->port_gen[bit]++;
	m->port_used[bit / 64] &= ~(KEEL_U64(1) << bit % 64);
	return MRET(KEEL_OK, 0);
}

static int64_t port_op(struct mvcpu *v, uint32_t op, uint64_t port, int at)
{
	uint32_t bit;
	int64_t status = port_bit(v, port, at, &bit);

	if (status != KEEL_OK)
		return status;
	switch (op) {
	case KEEL_EVENT_OP_MASK:
		keel_ev_mask(keel_share(v->page), bit);
		break;
	case KEEL_EVENT_OP_UNMASK:
		if (keel_ev_unmask(keel_share(v->page), bit))
			v->attn |= ATTN_LOOK;
		break;
	case KEEL_EVENT_OP_SEND:
		mon_send(v, bit);
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
	if (a[0] != v->id)
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	v->dump_pending = 1;
	v->attn |= ATTN_LOOK;
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
	if (!v->mon->source_port[KEEL_SOURCE_TIMER])
		return MERR(KEEL_E_STATE, 0);
	v->timer_deadline = a[0];
	if (a[0] != KEEL_TIME_NEVER && mon_now(v) >= a[0])
		mon_timer_fired(v);
	else
		mb_timer(v, KEEL_BUG(21) ? a[0] - 50000 : a[0]);
	return MRET(KEEL_OK, 0);
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
	uint32_t port = v->mon->source_port[KEEL_SOURCE_TIMER];
	uint64_t now;

	if (v->timer_deadline == KEEL_TIME_NEVER || !port)
		return;
	now = mon_now(v);
	if (now < v->timer_deadline && !KEEL_BUG(21)) {
		mb_timer(v, backend_time(v, v->timer_deadline, now));
		return;
	}
	v->timer_deadline = KEEL_TIME_NEVER;
	mon_send(v, (port - 1) % KEEL_EVENT_BITS);
}

/* VCPU */

mret mon_vcpu_wait(struct mvcpu *v, const uint64_t *a)
{
	bool early = false;

	for (;;) {
		uint64_t now = 0;
		uint32_t seq = __atomic_load_n(&v->kick_seq, __ATOMIC_ACQUIRE);

		if (__atomic_load_n(&v->page->pending, __ATOMIC_ACQUIRE)) {
			v->attn |= ATTN_LOOK;
			return MRET(KEEL_OK, 0);
		}
		if (v->dump_pending && v->entry[KEEL_CLASS_DUMP].entry) {
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
	if (a[0] != ~KEEL_U64(0) && a[0] != v->id)
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	mb_yield(v);
	return MRET(KEEL_OK, 0);
}
