// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* The driver's side of a split virtqueue; see hypercall/virtq.h. */
#include <hypercall/virtq.h>

#include "mutant.h"

/* Words of a ring. The used ring's elements are two u32 each, which lie 4-byte aligned. */
#define FLAGS 0
#define IDX 1
#define RING 2

static keel_u16 __pvshared *used_event(const struct keel_virtq *q)
{
	return q->avail + RING + q->entries;
}

static const keel_u16 __pvshared *avail_event(const struct keel_virtq *q)
{
	return q->used + RING + 4 * q->entries;
}

keel_u64 keel_virtq_desc_gpa(const struct keel_virtq *q)
{
	return q->mem.ring_gpa;
}

keel_u64 keel_virtq_avail_gpa(const struct keel_virtq *q)
{
	return q->mem.ring_gpa + KEEL_VIRTQ_AVAIL_AT(q->entries);
}

keel_u64 keel_virtq_used_gpa(const struct keel_virtq *q)
{
	return q->mem.ring_gpa + KEEL_VIRTQ_USED_AT(q->entries);
}

keel_s64 keel_virtq_init(struct keel_virtq *q, keel_u32 entries, const struct keel_virtq_memory *mem, keel_u64 features)
{
	keel_u32 i;

	if (!entries || entries > KEEL_VIRTQ_MAX || entries & (entries - 1))
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2));
	if (!mem->ring || !mem->slots || mem->ring_gpa % 16 || (mem->indirect && mem->indirect_gpa % 16))
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(3));
	keel_memset(q, 0, sizeof(*q));
	q->mem = *mem;
	if (!(features & KEEL_VIRTIO_F_INDIRECT_DESC) || !mem->indirect)
		q->mem.indirect_each = 0;
	q->entries = entries;
	q->event_idx = features & KEEL_VIRTIO_F_EVENT_IDX;
	q->desc = keel_share((struct keel_virtq_desc *)mem->ring);
	q->avail = keel_share((keel_u16 *)((char *)mem->ring + KEEL_VIRTQ_AVAIL_AT(entries)));
	q->used = keel_share((keel_u16 *)((char *)mem->ring + KEEL_VIRTQ_USED_AT(entries)));
	keel_memset(mem->ring, 0, KEEL_VIRTQ_BYTES(entries));
	keel_memset(mem->slots, 0, entries * sizeof(*mem->slots));
	for (i = 0; i < entries; i++)
		mem->slots[i].next = (keel_u16)(i + 1);
	q->free = (keel_u16)entries;
	return KEEL_OK;
}

static void write_desc(struct keel_virtq_desc __pvshared *d, const struct keel_virtq_seg *seg, unsigned int flags,
		       keel_u16 next)
{
	const struct keel_virtq_desc v = { seg->gpa, seg->len, (keel_u16)flags, next };

	keel_shared_write(d, &v, sizeof(v));
}

/* A table of descriptors of the buffer's own. */
static void add_indirect(struct keel_virtq *q, const struct keel_virtq_seg *seg, unsigned int out, unsigned int n)
{
	keel_u64 at = (keel_u64)q->free_head * q->mem.indirect_each;
	const struct keel_virtq_seg table = { q->mem.indirect_gpa + at * 16, n * 16 };
	unsigned int i;

	for (i = 0; i < n; i++)
		write_desc(keel_share(q->mem.indirect + at + i), seg + i,
			   (i < out ? 0 : KEEL_VIRTQ_DESC_WRITE) | (i + 1 < n ? KEEL_VIRTQ_DESC_NEXT : 0),
			   (keel_u16)(i + 1 < n ? i + 1 : 0));
	write_desc(q->desc + q->free_head, &table, KEEL_VIRTQ_DESC_INDIRECT, 0);
	q->free_head = q->mem.slots[q->free_head].next;
	q->free--;
}

static void add_direct(struct keel_virtq *q, const struct keel_virtq_seg *seg, unsigned int out, unsigned int n)
{
	keel_u16 at, next;
	unsigned int i;

	for (i = 0; i < n; i++) {
		at = q->free_head;
		next = q->mem.slots[at].next;
		write_desc(q->desc + at, seg + i,
			   (i < out ? 0 : KEEL_VIRTQ_DESC_WRITE) | (i + 1 < n ? KEEL_VIRTQ_DESC_NEXT : 0),
			   (keel_u16)(i + 1 < n ? next : 0));
		q->free_head = next;
	}
	q->free = (keel_u16)(q->free - n);
}

/* Can it ever be lent? Finds out how much of it the device may write. */
static bool sound(const struct keel_virtq_seg *seg, unsigned int out, unsigned int n, keel_u64 *lent)
{
	keel_u64 total = 0;
	unsigned int i;

	*lent = 0;
	for (i = 0; i < n; i++) {
		if (!seg[i].len)
			return false;
		total += seg[i].len;
		if (i >= out)
			*lent += seg[i].len;
	}
	/* A chain has less than 4 GiB, so that the length the device answers is a u32. */
	return n && total <= 0xffffffff;
}

keel_s64 keel_virtq_add(struct keel_virtq *q, const struct keel_virtq_seg *seg, unsigned int out, unsigned int in,
			void *cookie)
{
	unsigned int n = out + in;
	bool indirect = n > 1 && n <= q->mem.indirect_each;
	keel_u16 head = q->free_head;
	struct keel_virtq_slot *slot;
	keel_u64 lent;

	if (q->broken)
		return KEEL_STATUS(KEEL_E_STATE, 0);
	if (out > q->entries || in > q->entries || (!indirect && n > q->entries) || !sound(seg, out, n, &lent))
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2));
	if (q->free < (indirect ? 1 : n))
		return KEEL_STATUS(KEEL_E_AGAIN, 0);
	if (indirect)
		add_indirect(q, seg, out, n);
	else
		add_direct(q, seg, out, n);
	slot = &q->mem.slots[head];
	slot->cookie = cookie;
	slot->lent = (keel_u32)lent;
	slot->descs = (keel_u16)(indirect ? 1 : n);
	slot->told = false;
	q->mem.slots[q->added & (q->entries - 1)].listed = head;
	keel_shared_store16(q->avail + RING + (q->added & (q->entries - 1)), head);
	q->added++;
	return KEEL_OK;
}

void keel_virtq_publish(struct keel_virtq *q)
{
	for (; q->published != q->added; q->published++) {
		q->mem.slots[q->mem.slots[q->published & (q->entries - 1)].listed].told = true;
		q->in_flight++;
		q->unannounced++;
	}
	/* The device reads nothing of what was added before it reads this. */
	keel_shared_store16_release(q->avail + IDX, q->published);
}

bool keel_virtq_must_notify(struct keel_virtq *q)
{
	keel_u32 n = q->unannounced;
	keel_u16 first = (keel_u16)(q->published - n), event;

	q->unannounced = 0;
	/* The index is published before this looks; the device says what it wants, then looks at the index. */
	keel_full_fence();
	if (!q->event_idx)
		return n && !(keel_shared_load16(q->used + FLAGS) & KEEL_VIRTQ_USED_NO_NOTIFY);
	event = keel_shared_load16(avail_event(q));
	/* Is the entry it waits for one of these n? */
	return (keel_u16)(event - first) < n + KEEL_MUTANT(17);
}

/* The chain's descriptors are free again. The table's own links are the device's to overwrite: not read. */
static void release(struct keel_virtq *q, keel_u16 head)
{
	struct keel_virtq_slot *slot = &q->mem.slots[head];
	keel_u16 last = head, i;

	for (i = 1; i < slot->descs; i++)
		last = q->mem.slots[last].next;
	q->mem.slots[last].next = q->free_head;
	q->free_head = head;
	q->free = (keel_u16)(q->free + slot->descs);
	slot->descs = 0;
}

int keel_virtq_get(struct keel_virtq *q, void **cookie, keel_u32 *len)
{
	const struct keel_virtq_used_elem __pvshared *elem;
	struct keel_virtq_slot *slot;
	keel_u32 id, wrote;
	keel_u16 ready;

	if (q->broken)
		return -1;
	ready = (keel_u16)(keel_shared_load16_acquire(q->used + IDX) - q->taken);
	if (!ready)
		return 0;
	elem = (const struct keel_virtq_used_elem __pvshared *)(q->used + RING) + (q->taken & (q->entries - 1));
	id = keel_shared_load32(&elem->id);
	wrote = keel_shared_load32(&elem->len);
	slot = q->mem.slots + (id < q->entries ? id : 0);
	if (ready > q->in_flight || id >= q->entries || !slot->descs || (!slot->told && !KEEL_MUTANT(16)) ||
	    wrote > slot->lent) {
		q->broken = true;
		return -1;
	}
	*cookie = slot->cookie;
	if (len)
		*len = wrote;
	release(q, (keel_u16)id);
	q->in_flight--;
	q->taken++;
	return 1;
}

void keel_virtq_disable(struct keel_virtq *q)
{
	/* The entry before the next one is the last the device will come to. */
	if (q->event_idx)
		keel_shared_store16(used_event(q), (keel_u16)(q->taken - 1));
	else
		keel_shared_store16(q->avail + FLAGS, KEEL_VIRTQ_AVAIL_NO_INTERRUPT);
}

bool keel_virtq_enable(struct keel_virtq *q)
{
	if (q->event_idx)
		keel_shared_store16(used_event(q), q->taken);
	else
		keel_shared_store16(q->avail + FLAGS, 0);
	keel_full_fence();
	return q->broken || keel_shared_load16_acquire(q->used + IDX) != q->taken;
}

bool keel_virtq_detach(struct keel_virtq *q, void **cookie)
{
	keel_u32 i;

	for (i = 0; i < q->entries; i++) {
		if (!q->mem.slots[i].descs)
			continue;
		*cookie = q->mem.slots[i].cookie;
		release(q, (keel_u16)i);
		return true;
	}
	return false;
}
