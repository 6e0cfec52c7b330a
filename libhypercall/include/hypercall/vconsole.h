/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Consoles (virtio 5.3), one port each: bytes in and out. Beside these there is the console
 * every guest has, see guest.h.
 */
#ifndef HYPERCALL_VCONSOLE_H
#define HYPERCALL_VCONSOLE_H

#include <hypercall/device.h>

KEEL_BEGIN_C

#define KEEL_VCONSOLE_ENTRIES 8
#define KEEL_VCONSOLE_PART 256 /* bytes of a buffer */

struct keel_vconsole {
	struct keel_dev dev;
	struct keel_dev_queue rx, tx;
	keel_u8 *in; /* buffer that is being read, NULL for none */
	keel_u32 in_at, in_len;
	keel_u32 sendable; /* of free_tx */
	keel_u8 *free_tx[KEEL_VCONSOLE_ENTRIES];

	KEEL_DEV_QUEUE_MEMORY(rx_mem, KEEL_VCONSOLE_ENTRIES);
	KEEL_DEV_QUEUE_MEMORY(tx_mem, KEEL_VCONSOLE_ENTRIES);
	keel_u8 rx_buffer[KEEL_VCONSOLE_ENTRIES][KEEL_VCONSOLE_PART];
	keel_u8 tx_buffer[KEEL_VCONSOLE_ENTRIES][KEEL_VCONSOLE_PART];
};

/* The nth console, from 0; see keel_blk_init(). Returns a status. */
keel_s64 keel_vconsole_init(struct keel_vconsole *c, unsigned int nth, keel_u32 port);

/* Write n bytes; waits for room, not for them to arrive. Returns a status. */
keel_s64 keel_vconsole_write(struct keel_vconsole *c, const void *buf, size_t n);

/* Read up to n bytes that have come. Returns how many, 0 when there are none, -1 when the device failed. */
int keel_vconsole_read(struct keel_vconsole *c, void *buf, keel_u32 n);

/* Wait for input, or the deadline. Returns a status, see keel_dev_wait(). */
keel_s64 keel_vconsole_wait(struct keel_vconsole *c, keel_u64 deadline);

KEEL_END_C

#endif
