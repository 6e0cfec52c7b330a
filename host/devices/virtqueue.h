/* SPDX-License-Identifier: MIT */
/*
 * The device's side of a split virtqueue (virtio 2.7) in memory that the guest
 * writes while we read it. Everything is fetched once into private memory, then
 * checked, then used: indices, descriptors, indirect tables. Chains become lists of
 * pieces of guest RAM; nothing else of a descriptor is seen outside virtqueue.c.
 *
 * One thread at a time.
 */
#ifndef KEEL_HOST_VIRTQUEUE_H
#define KEEL_HOST_VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct device;

/* Pieces of one chain. A driver that respects queue_max cannot need more. */
#define VQ_PIECES 512

struct virtqueue {
	struct device *d;
	unsigned int index;
	bool enabled;
	uint32_t entries;		 /* power of two */
	uint32_t port;			 /* + 1, 0 = the driver looks by itself */
	uint64_t desc, driver, device;	 /* GPAs, checked when set up: ranges of RAM, aligned */
	uint16_t next_avail, seen_avail; /* taken up to; published as of the last look */
	uint16_t used, signalled;	 /* given back; of these told to the driver */
	uint16_t in_flight;
	bool event_idx, indirect;
	uint8_t taken[256 / 8]; /* heads in flight: each is given back once */
};

/* A request: readable pieces first. */
struct vq_chain {
	uint16_t head;
	unsigned int out, in; /* pieces */
	struct iovec piece[VQ_PIECES];
};

/* Bounds of a queue's three areas; false = not all of them in RAM, with the field of struct keel_device_queue. */
bool vq_fits(uint64_t ram_size, uint32_t entries, uint64_t desc, uint64_t driver, uint64_t device, int *field);

/* A new life of the queue: indices at 0. */
void vq_reset(struct virtqueue *q);

/*
 * Take the next chain. False: there is none, or the driver broke the rules and
 * device_broken() has been called. At most `entries` are ever in flight.
 */
bool vq_pop(struct virtqueue *q, struct vq_chain *c);

/* Give a chain back of whose writable part the first `len` bytes were written. In force with vq_flush(). */
void vq_push(struct virtqueue *q, const struct vq_chain *c, uint32_t len);

/* Publish what was given back, and tell the driver if it wants to know. */
void vq_flush(struct virtqueue *q);

/* Shall the driver ring for new chains? After switching on: true = there are some already, look again. */
bool vq_notify(struct virtqueue *q, bool on);

/* Copy between pieces [from, from + n) of a chain and memory, from byte `skip` on; returns the bytes copied. */
size_t vq_read(const struct iovec *piece, unsigned int n, size_t skip, void *to, size_t len);
size_t vq_write(const struct iovec *piece, unsigned int n, size_t skip, const void *from, size_t len);
size_t vq_bytes(const struct iovec *piece, unsigned int n);

#endif
