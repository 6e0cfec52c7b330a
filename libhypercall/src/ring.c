// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* The console ring; see keel/console.h for the protocol. */
#include <hypercall/ring.h>

#include "mutant.h"

void keel_ring_attach(struct keel_ring_end *e, struct keel_console_ring __pvshared *ring, enum keel_ring_side side)
{
	bool out = side == KEEL_RING_GUEST_OUT || side == KEEL_RING_HOST_OUT;
	keel_u32 __pvshared *prod = out ? &ring->out_prod : &ring->in_prod;
	keel_u32 __pvshared *cons = out ? &ring->out_cons : &ring->in_cons;

	e->producer = side == KEEL_RING_GUEST_OUT || side == KEEL_RING_HOST_IN;
	e->data = out ? &ring->out[0] : &ring->in[0];
	e->size = out ? KEEL_CONSOLE_OUT_SIZE : KEEL_CONSOLE_IN_SIZE;
	e->own = e->producer ? prod : cons;
	e->peer = e->producer ? cons : prod;
	e->at = keel_shared_load32(e->own);
	e->broken = false;
}

int keel_ring_avail(struct keel_ring_end *e)
{
	keel_u32 peer, used;

	if (e->broken)
		return -1;
	peer = keel_shared_load32_acquire(e->peer);
	/* Indices wrap at 2^32, so the difference is right across the wrap. */
	used = e->producer ? e->at - peer : peer - e->at;
	if (used > e->size && !KEEL_MUTANT(9)) {
		e->broken = true;
		return -1;
	}
	return (int)(e->producer ? e->size - used : used);
}

/* How much of n to move, and how much of that lies before the buffer's end. */
static int plan(struct keel_ring_end *e, size_t n, keel_u32 *first)
{
	keel_u32 room = e->size - (e->at & (e->size - 1));
	int avail = keel_ring_avail(e);

	if (avail < 0)
		return -1;
	if ((size_t)avail < n)
		n = (size_t)avail;
	*first = n < room ? (keel_u32)n : room;
	return (int)n;
}

int keel_ring_push(struct keel_ring_end *e, const void *buf, size_t n)
{
	keel_u32 first;
	int len = plan(e, n, &first);

	if (len <= 0)
		return len;
	keel_shared_write(e->data + (e->at & (e->size - 1)), buf, first);
	keel_shared_write(e->data, (const keel_u8 *)buf + first, (size_t)len - first);
	e->at += (keel_u32)len;
	keel_shared_store32_release(e->own, e->at);
	return len;
}

int keel_ring_pop(struct keel_ring_end *e, void *buf, size_t n)
{
	keel_u32 first;
	int len = plan(e, n, &first);

	if (len <= 0)
		return len;
	keel_shared_read(buf, e->data + (e->at & (e->size - 1)), first);
	keel_shared_read((keel_u8 *)buf + first, e->data, (size_t)len - first);
	e->at += (keel_u32)len;
	keel_shared_store32_release(e->own, e->at);
	return len;
}

bool keel_ring_must_kick(const struct keel_console_ring __pvshared *ring)
{
	/* The index is published before this looks; the host sets the flag before it looks at the index. */
	keel_full_fence();
	return keel_shared_load32(&ring->out_wake) != 0;
}

void keel_ring_disarm(struct keel_console_ring __pvshared *ring)
{
	keel_shared_store32(&ring->out_wake, 0);
}

bool keel_ring_arm(struct keel_console_ring __pvshared *ring, struct keel_ring_end *e)
{
	keel_shared_store32(&ring->out_wake, 1);
	keel_full_fence();
	return keel_ring_avail(e) != 0;
}

bool keel_ring_want_space(struct keel_console_ring __pvshared *ring, struct keel_ring_end *e)
{
	keel_shared_store32(&ring->in_wake, KEEL_CONSOLE_WANT_SPACE);
	keel_full_fence();
	return keel_ring_avail(e) != 0;
}

void keel_ring_unwant_space(struct keel_console_ring __pvshared *ring)
{
	keel_shared_store32(&ring->in_wake, 0);
}

bool keel_ring_space_wanted(const struct keel_console_ring __pvshared *ring)
{
	keel_full_fence();
	return keel_shared_load32(&ring->in_wake) & (KEEL_MUTANT(10) ? ~0u : KEEL_CONSOLE_WANT_SPACE);
}
