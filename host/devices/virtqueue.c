// SPDX-License-Identifier: MIT
#include "virtqueue.h"

#include <string.h>

#include <keel/device.h>

#include "../monitor/bugs.h"
#include "../partition.h"
#include "device.h"

/* virtio 2.7.5, 2.7.6 and 2.7.8 */
#define DESC_NEXT 1
#define DESC_WRITE 2
#define DESC_INDIRECT 4
#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY 1

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct used {
	uint32_t id, len;
};

/* Offsets in the areas. */
#define AVAIL_FLAGS 0
#define AVAIL_INDEX 2
#define AVAIL_RING 4 /* then used_event */
#define USED_FLAGS 0
#define USED_INDEX 2
#define USED_RING 4 /* then avail_event */

_Static_assert(DEVICE_QUEUE_MAX <= VQ_PIECES, "a chain as long as a queue");

static bool in_ram(uint64_t ram_size, uint64_t gpa, uint64_t len)
{
	return len <= ram_size && gpa <= ram_size - len;
}

bool vq_fits(uint64_t ram_size, uint32_t entries, uint64_t desc, uint64_t driver, uint64_t device, int *field)
{
	*field = 5;
	if (!in_ram(ram_size, desc, entries * UINT64_C(16)))
		return false;
	*field = 6;
	if (!in_ram(ram_size, driver, AVAIL_RING + entries * UINT64_C(2) + 2))
		return false;
	*field = 7;
	return in_ram(ram_size, device, USED_RING + entries * UINT64_C(8) + 2);
}

void vq_reset(struct virtqueue *q)
{
	struct device *d = q->d;
	unsigned int index = q->index;

	*q = (struct virtqueue){ .d = d, .index = index };
}

/* The guest's memory: what is shared is read and written through these, once each. */

static uint16_t load16(const struct virtqueue *q, uint64_t gpa)
{
	return __atomic_load_n((const uint16_t *)(q->d->p->ram + gpa), __ATOMIC_ACQUIRE);
}

static void store16(const struct virtqueue *q, uint64_t gpa, uint16_t value)
{
	__atomic_store_n((uint16_t *)(q->d->p->ram + gpa), value, __ATOMIC_RELEASE);
	partition_wrote(q->d->p, gpa, sizeof(value));
}

/* What a walk along a chain knows. */
struct walk {
	struct virtqueue *q;
	struct vq_chain *c;
	unsigned int steps, limit;
	bool indirect; /* inside a table */
};

static bool broken(struct walk *w, const char *what)
{
	device_broken(w->q->d, "queue %u, chain %u: %s", w->q->index, w->c->head, what);
	return false;
}

static bool take(struct walk *w, const struct desc *e)
{
	struct partition *p = w->q->d->p;
	struct vq_chain *c = w->c;

	if (!in_ram(p->ram_size, e->addr, e->len) && !KEEL_BUG(50))
		return broken(w, "a buffer that is not in RAM");
	if (!(e->flags & DESC_WRITE) && c->in && !KEEL_BUG(51))
		return broken(w, "a readable buffer behind a writable one");
	if (!e->len)
		return true; /* a piece of nothing */
	if (c->out + c->in == VQ_PIECES)
		return broken(w, "too many buffers");
	c->piece[c->out + c->in] = (struct iovec){ p->ram + e->addr, e->len };
	if (e->flags & DESC_WRITE)
		c->in++;
	else
		c->out++;
	return true;
}

/* Along `next` from `at` in a table of `n`, whose entries fetch() copies out. */
static bool follow(struct walk *w, const struct desc *table, uint64_t table_gpa, unsigned int n, unsigned int at)
{
	struct partition *p = w->q->d->p;

	for (;;) {
		struct desc e;

		if (at >= n && !KEEL_BUG(52))
			return broken(w, "a descriptor that does not exist");
		if (++w->steps > w->limit)
			return broken(w, "a cycle, or a chain longer than the queue");
		if (table)
			e = table[at];
		else if (!partition_copy_from(p, &e, table_gpa + at * sizeof(e), sizeof(e)))
			return broken(w, "a table that left RAM");
		if (e.flags & DESC_INDIRECT) {
			struct desc copy[DEVICE_QUEUE_MAX];
			const unsigned int count = e.len / sizeof(e);

			if (w->indirect || !w->q->indirect)
				return broken(w, "an indirect descriptor where there can be none");
			if (e.flags & (DESC_NEXT | DESC_WRITE))
				return broken(w, "an indirect descriptor with other flags");
			if (!count || e.len % sizeof(e) || count > w->q->entries)
				return broken(w, "an indirect table of a wrong size");
			if (!partition_copy_from(p, copy, e.addr, e.len))
				return broken(w, "an indirect table that is not in RAM");
			w->indirect = true;
			w->steps--;
			return follow(w, copy, 0, count, 0);
		}
		if (!take(w, &e))
			return false;
		if (!(e.flags & DESC_NEXT))
			return true;
		at = e.next;
	}
}

bool vq_pop(struct virtqueue *q, struct vq_chain *c)
{
	struct walk w = { .q = q, .c = c, .limit = q->entries };
	const uint32_t mask = q->entries - 1;

	c->head = 0;
	c->out = c->in = 0;
	if (!q->enabled)
		return false;
	if (q->next_avail == q->seen_avail) {
		q->seen_avail = load16(q, q->driver + AVAIL_INDEX);
		if (q->next_avail == q->seen_avail)
			return false;
		if ((uint16_t)(q->seen_avail - q->next_avail) > q->entries && !KEEL_BUG(53))
			return broken(&w, "the available index jumped");
	}
	c->head = load16(q, q->driver + AVAIL_RING + (q->next_avail & mask) * 2);
	if (c->head >= q->entries)
		return broken(&w, "a head that does not exist");
	if (q->taken[c->head / 8] >> c->head % 8 & 1 && !KEEL_BUG(54))
		return broken(&w, "a head that is in flight already");
	if (!follow(&w, NULL, q->desc, q->entries, c->head))
		return false;
	q->taken[c->head / 8] |= (uint8_t)(1 << c->head % 8);
	q->in_flight++;
	q->next_avail++;
	q->d->requests++;
	return true;
}

void vq_push(struct virtqueue *q, const struct vq_chain *c, uint32_t len)
{
	struct partition *p = q->d->p;
	const uint64_t at = q->device + USED_RING + (q->used & (q->entries - 1)) * sizeof(struct used);
	struct used u = { c->head, len };

	if (!q->enabled)
		return; /* it was given up in between, and with it all that was in flight */
	if (!KEEL_BUG(61))
		for (unsigned int i = c->out; i < c->out + c->in; i++)
			partition_wrote(p, (uint64_t)((uint8_t *)c->piece[i].iov_base - p->ram), c->piece[i].iov_len);
	partition_copy_to(p, at, &u, sizeof(u));
	partition_wrote(p, at, sizeof(u));
	q->taken[c->head / 8] &= (uint8_t) ~(1 << c->head % 8);
	q->in_flight--;
	q->used++;
}

/* Does the driver want to hear of what was given back from `old` to `new`? */
static bool wanted(const struct virtqueue *q, uint16_t old, uint16_t new)
{
	if (q->event_idx) {
		const uint16_t event = load16(q, q->driver + AVAIL_RING + q->entries * UINT64_C(2));

		return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
	}
	return !(load16(q, q->driver + AVAIL_FLAGS) & AVAIL_NO_INTERRUPT);
}

void vq_flush(struct virtqueue *q)
{
	const uint16_t old = q->signalled;

	if (!q->enabled || q->used == old)
		return;
	store16(q, q->device + USED_INDEX, q->used);
	q->signalled = q->used;
	/* The driver says that it wants to hear, then looks; we publish, then look. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if ((wanted(q, old, q->used) && !KEEL_BUG(55)) || KEEL_BUG(56)) {
		q->d->notified++;
		partition_raise(q->d->p, &q->port);
	}
}

bool vq_notify(struct virtqueue *q, bool on)
{
	if (!q->enabled)
		return false;
	if (!q->event_idx)
		store16(q, q->device + USED_FLAGS, on ? 0 : USED_NO_NOTIFY);
	else if (on && !KEEL_BUG(57))
		store16(q, q->device + USED_RING + q->entries * sizeof(struct used), q->next_avail);
	if (!on)
		return false;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return load16(q, q->driver + AVAIL_INDEX) != q->next_avail;
}

size_t vq_bytes(const struct iovec *piece, unsigned int n)
{
	size_t sum = 0;

	for (unsigned int i = 0; i < n; i++)
		sum += piece[i].iov_len;
	return sum;
}

static size_t copy(const struct iovec *piece, unsigned int n, size_t skip, uint8_t *to, const uint8_t *from, size_t len)
{
	size_t done = 0;

	for (unsigned int i = 0; i < n && done < len; i++) {
		size_t bytes = piece[i].iov_len;

		if (skip >= bytes) {
			skip -= bytes;
			continue;
		}
		bytes -= skip;
		if (bytes > len - done)
			bytes = len - done;
		if (to)
			memcpy(to + done, (uint8_t *)piece[i].iov_base + skip, bytes);
		else
			memcpy((uint8_t *)piece[i].iov_base + skip, from + done, bytes);
		skip = 0;
		done += bytes;
	}
	/* What was copied is what counts: the compiler may not go back to where the guest changes it. */
	__asm__ volatile("" : : : "memory");
	return done;
}

size_t vq_read(const struct iovec *piece, unsigned int n, size_t skip, void *to, size_t len)
{
	return copy(piece, n, skip, to, NULL, len);
}

size_t vq_write(const struct iovec *piece, unsigned int n, size_t skip, const void *from, size_t len)
{
	return copy(piece, n, skip, NULL, from, len);
}
