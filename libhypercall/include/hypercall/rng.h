/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/* Entropy devices (virtio 5.4). */
#ifndef HYPERCALL_RNG_H
#define HYPERCALL_RNG_H

#include <hypercall/device.h>

KEEL_BEGIN_C

#define KEEL_RNG_ENTRIES 2
#define KEEL_RNG_PART 256 /* bytes asked for at once */

struct keel_rng {
	struct keel_dev dev;
	struct keel_dev_queue queue;

	KEEL_DEV_QUEUE_MEMORY(mem, KEEL_RNG_ENTRIES);
	keel_u8 part[KEEL_RNG_PART];
};

/* The nth entropy device, from 0; see keel_blk_init(). Returns a status. */
keel_s64 keel_rng_init(struct keel_rng *r, unsigned int nth, keel_u32 port);

/* Wait for n random bytes. Returns a status; buf is good for nothing unless it is KEEL_OK. */
keel_s64 keel_rng_fill(struct keel_rng *r, void *buf, size_t n);

KEEL_END_C

#endif
