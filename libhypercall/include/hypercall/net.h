/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Network interfaces (virtio 5.1): Ethernet frames in and out, one buffer each, without
 * offloads. Frames are copied; buffers for what comes in are always posted.
 */
#ifndef HYPERCALL_NET_H
#define HYPERCALL_NET_H

#include <hypercall/device.h>

KEEL_BEGIN_C

#define KEEL_NET_ENTRIES 64
#define KEEL_NET_FRAME 1518 /* bytes of the longest frame, a VLAN tag included */

struct keel_net_buffer {
	keel_u8 head[12]; /* struct virtio_net_hdr: zero out, not looked at in */
	keel_u8 frame[KEEL_NET_FRAME];
	keel_u8 pad[6];
};

/* mac: all zero when the device does not say. */
struct keel_net {
	struct keel_dev dev;
	struct keel_dev_queue rx, tx;
	keel_u8 mac[6];
	keel_u32 sendable; /* of free_tx */
	struct keel_net_buffer *free_tx[KEEL_NET_ENTRIES];

	KEEL_DEV_QUEUE_MEMORY(rx_mem, KEEL_NET_ENTRIES);
	KEEL_DEV_QUEUE_MEMORY(tx_mem, KEEL_NET_ENTRIES);
	struct keel_net_buffer rx_buffer[KEEL_NET_ENTRIES], tx_buffer[KEEL_NET_ENTRIES];
};

/* The nth interface, from 0; see keel_blk_init(). The port tells of frames that came in. Returns a status. */
keel_s64 keel_net_init(struct keel_net *n, unsigned int nth, keel_u32 port);

/* Send a frame of len bytes. Returns a status: AGAIN while the device has not yet sent enough of what it has. */
keel_s64 keel_net_send(struct keel_net *n, const void *frame, keel_u32 len);

/*
 * Take a frame that came in. Returns its bytes, 0 when there is none, -1 when the device failed; one
 * that is longer than size is dropped.
 */
int keel_net_recv(struct keel_net *n, void *frame, keel_u32 size);

/* Wait for a frame, or the deadline. Returns a status, see keel_dev_wait(). */
keel_s64 keel_net_wait(struct keel_net *n, keel_u64 deadline);

KEEL_END_C

#endif
