/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * The console ring, both directions and both ends. An end keeps its own index
 * in private memory and reads the peer's once per operation: whatever the
 * peer writes, an operation stays inside the buffer and moves at most `size` bytes.
 */
#ifndef HYPERCALL_RING_H
#define HYPERCALL_RING_H

#include <hypercall/compat.h>
#include <keel/console.h>

KEEL_BEGIN_C

/**
 * struct keel_ring_end - one end of one direction
 * @data: the buffer
 * @size: its bytes, a power of two
 * @own: this end's index in the ring
 * @peer: the other end's
 * @at: this end's index, the authoritative copy
 * @producer: which end this is
 * @broken: the peer's index was impossible; all operations fail from then on
 */
struct keel_ring_end {
	keel_u8 __pvshared *data;
	keel_u32 size;
	keel_u32 __pvshared *own;
	const keel_u32 __pvshared *peer;
	keel_u32 at;
	bool producer;
	bool broken;
};

enum keel_ring_side {
	KEEL_RING_GUEST_OUT, /* guest, produces output */
	KEEL_RING_GUEST_IN,  /* guest, consumes input */
	KEEL_RING_HOST_OUT,  /* host, consumes output */
	KEEL_RING_HOST_IN,   /* host, produces input */
};

/**
 * keel_ring_attach - set up one end
 * @e: end
 * @ring: the shared page
 * @side: which end
 *
 * Starts from the index stored in the ring, so it works for a fresh ring (all zero) and
 * for taking over a running one.
 */
void keel_ring_attach(struct keel_ring_end *e, struct keel_console_ring __pvshared *ring, enum keel_ring_side side);

/* Bytes that can be moved now: space for a producer, data for a consumer. -1 when broken. */
int keel_ring_avail(struct keel_ring_end *e);

/* Produce up to n bytes. Returns how many, 0 when full, -1 when broken. */
int keel_ring_push(struct keel_ring_end *e, const void *buf, size_t n);

/* Consume up to n bytes. Returns how many, 0 when empty, -1 when broken. */
int keel_ring_pop(struct keel_ring_end *e, void *buf, size_t n);

/* Guest, after keel_ring_push(): does the host have to be kicked? */
bool keel_ring_must_kick(const struct keel_console_ring __pvshared *ring);

/* Host, before draining output: no kicks needed. */
void keel_ring_disarm(struct keel_console_ring __pvshared *ring);

/* Host, before sleeping: ask for kicks. Returns true when there is output after all (or the ring broke). */
bool keel_ring_arm(struct keel_console_ring __pvshared *ring, struct keel_ring_end *e);

/*
 * Guest, output full: ask for an event when space came free, or stop asking. The first
 * returns true when there is space after all (or the ring broke).
 */
bool keel_ring_want_space(struct keel_console_ring __pvshared *ring, struct keel_ring_end *e);
void keel_ring_unwant_space(struct keel_console_ring __pvshared *ring);

/* Host, after draining: does the guest wait for space? */
bool keel_ring_space_wanted(const struct keel_console_ring __pvshared *ring);

KEEL_END_C

#endif
