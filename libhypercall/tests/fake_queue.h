/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * The device's side of a split virtqueue, written from the text of virtio 2.7 and not
 * from the driver, for tests of the driver. It believes what it reads of an address.
 */
#ifndef LIBHYPERCALL_FAKE_QUEUE_H
#define LIBHYPERCALL_FAKE_QUEUE_H

#include <hypercall/virtq.h>

#include "unit.h"

#define FAKE_SHIFT KEEL_U64(0x7000000000) /* a GPA is an address here, and this on top */
#define FAKE_PARTS 16

struct fake_queue {
	uint8_t *ring;
	unsigned int entries;
	uint16_t seen; /* of the available ring */
	uint16_t given, signalled;
	bool event_idx;
};

struct fake_chain {
	uint16_t head;
	unsigned int out, in;
	struct {
		uint8_t *at;
		uint32_t len;
	} part[FAKE_PARTS];
};

static inline void *fake_va(uint64_t gpa)
{
	return (void *)(uintptr_t)(gpa - FAKE_SHIFT);
}

static inline uint16_t *fake_avail(const struct fake_queue *d)
{
	return (uint16_t *)(d->ring + 16 * d->entries);
}

static inline uint16_t *fake_used(const struct fake_queue *d)
{
	return (uint16_t *)(d->ring + (18 * d->entries + 6 + 3) / 4 * 4);
}

static inline struct keel_virtq_used_elem *fake_elem(const struct fake_queue *d, uint16_t i)
{
	return (struct keel_virtq_used_elem *)(fake_used(d) + 2) + i % d->entries;
}

static inline uint16_t *fake_avail_event(const struct fake_queue *d)
{
	return fake_used(d) + 2 + 4 * d->entries;
}

static inline uint16_t fake_used_event(const struct fake_queue *d)
{
	return __atomic_load_n(fake_avail(d) + 2 + d->entries, __ATOMIC_SEQ_CST);
}

/* False in place of an assertion: it runs on another thread as well. */
static inline bool fake_walk(const struct keel_virtq_desc *table, unsigned int size, unsigned int i,
			     struct fake_chain *c)
{
	for (unsigned int n = 0; n < size; n++) {
		const struct keel_virtq_desc *d = &table[i];

		if (d->flags & KEEL_VIRTQ_DESC_INDIRECT)
			return d->flags == KEEL_VIRTQ_DESC_INDIRECT && d->len % 16 == 0 && c->out + c->in == 0 &&
			       fake_walk(fake_va(d->addr), d->len / 16, 0, c);
		if (d->flags & KEEL_VIRTQ_DESC_WRITE)
			c->in++;
		else if (c->in)
			return false;
		else
			c->out++;
		if (c->out + c->in > FAKE_PARTS)
			return false;
		c->part[c->out + c->in - 1].at = fake_va(d->addr);
		c->part[c->out + c->in - 1].len = d->len;
		if (!(d->flags & KEEL_VIRTQ_DESC_NEXT))
			return true;
		i = d->next;
		if (i >= size)
			return false;
	}
	return false;
}

/* 1, 0 when there is none, -1 when the driver broke the rules. */
static inline int fake_pop(struct fake_queue *d, struct fake_chain *c)
{
	uint16_t idx = __atomic_load_n(fake_avail(d) + 1, __ATOMIC_ACQUIRE);

	if (idx == d->seen)
		return 0;
	if ((uint16_t)(idx - d->seen) > d->entries)
		return -1;
	memset(c, 0, sizeof(*c));
	c->head = fake_avail(d)[2 + d->seen++ % d->entries];
	return c->head < d->entries && fake_walk((struct keel_virtq_desc *)d->ring, d->entries, c->head, c) ? 1 : -1;
}

static inline void fake_push(struct fake_queue *d, uint16_t head, uint32_t len)
{
	*fake_elem(d, d->given++) = (struct keel_virtq_used_elem){ head, len };
	__atomic_store_n(fake_used(d) + 1, d->given, __ATOMIC_RELEASE);
}

/* As in the text: does going from `old` to `new` pass `event`? */
static inline bool fake_passes(uint16_t event, uint16_t new, uint16_t old)
{
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

static inline bool fake_must_interrupt(struct fake_queue *d)
{
	uint16_t old = d->signalled;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	d->signalled = d->given;
	if (d->event_idx)
		return fake_passes(fake_used_event(d), d->given, old);
	return !(__atomic_load_n(fake_avail(d), __ATOMIC_SEQ_CST) & KEEL_VIRTQ_AVAIL_NO_INTERRUPT);
}

/* Ask for the doorbell; true when there is something already. */
static inline bool fake_want_notify(struct fake_queue *d)
{
	if (d->event_idx)
		__atomic_store_n(fake_avail_event(d), d->seen, __ATOMIC_SEQ_CST);
	else
		__atomic_store_n(fake_used(d), 0, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return __atomic_load_n(fake_avail(d) + 1, __ATOMIC_ACQUIRE) != d->seen;
}

#endif
