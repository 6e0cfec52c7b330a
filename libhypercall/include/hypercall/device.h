/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Virtio devices by the DEVICE group, for drivers: finding one, agreeing on features,
 * queues, and waiting for it. Part of the guest library, needs DEVICE, EVENT and VCPU.
 *
 *	keel_dev_find()			the device
 *	keel_dev_negotiate()		reset, features
 *	keel_dev_queue() ...		its queues
 *	keel_dev_ready()		from here on it uses them
 *	keel_virtq_add(), keel_dev_kick(), keel_virtq_get(), keel_dev_wait()
 *	keel_dev_reset()		before its memory is used for anything else
 *
 * What calls take by reference is part of the structures here, which therefore are objects
 * that keel_gpa_of() can tell the place of: static ones, or on the boot stack.
 */
#ifndef HYPERCALL_DEVICE_H
#define HYPERCALL_DEVICE_H

#include <hypercall/guest.h>
#include <hypercall/virtq.h>

KEEL_BEGIN_C

/* Types of devices, virtio 5. */
#define KEEL_VIRTIO_NET 1
#define KEEL_VIRTIO_BLOCK 2
#define KEEL_VIRTIO_CONSOLE 3
#define KEEL_VIRTIO_ENTROPY 4

/**
 * struct keel_dev - a device
 * @handle: for the DEVICE group's calls
 * @type: KEEL_VIRTIO_*
 * @queues: how many it has
 * @queue_max: largest size of each
 * @config_size: bytes of its config space
 * @offered: feature word 0 as the device has it
 * @features: what of it was accepted
 * @io: what calls read and write
 */
struct keel_dev {
	keel_u64 handle;
	keel_u32 type;
	keel_u32 queues;
	keel_u32 queue_max;
	keel_u32 config_size;
	keel_u64 offered;
	keel_u64 features;
	union {
		struct keel_device_info info;
		struct keel_device_queue setup;
		keel_u8 config[KEEL_DEVICE_CONFIG_MAX];
	} io;
};

/* A queue, with how to tell its device of it and how that tells us. */
struct keel_dev_queue {
	struct keel_virtq vq;
	struct keel_dev *dev;
	keel_port_t doorbell;
	keel_u32 port; /* or KEEL_DEVICE_NO_PORT */
};

/* As a member of a structure: memory of a queue of n entries. */
#define KEEL_DEV_QUEUE_MEMORY(name, n)                                          \
	struct {                                                                \
		keel_u8 ring[KEEL_VIRTQ_BYTES(n)] __attribute__((aligned(16))); \
		struct keel_virtq_slot slots[n];                                \
	} name

/* struct keel_virtq_memory of that, without indirect tables. */
#define keel_dev_queue_memory(m) \
	((struct keel_virtq_memory){ .ring = (m)->ring, .ring_gpa = keel_gpa_of((m)->ring).v, .slots = (m)->slots })

/**
 * keel_dev_find - the nth device of a type, from 0
 * Returns a status; NOENT when there is none.
 */
keel_s64 keel_dev_find(struct keel_dev *d, keel_u32 type, unsigned int nth);

/**
 * keel_dev_negotiate - reset a device and agree on features
 * @d: device
 * @wanted: bits of feature word 0; of these what is offered is accepted, and VERSION_1
 *
 * d->features says what it became. Returns a status; NOTSUP when the device cannot do
 * without something else.
 */
keel_s64 keel_dev_negotiate(struct keel_dev *d, keel_u64 wanted);

/* The largest size of a queue, up to `most`, a power of two. */
keel_u32 keel_dev_entries(const struct keel_dev *d, keel_u32 most);

/**
 * keel_dev_queue - set up a queue
 * @d: device, after keel_dev_negotiate()
 * @q: the queue; initialized here
 * @index: which of the device's
 * @entries: its size
 * @mem: its memory
 * @port: becomes pending when the device has used buffers, see keel_dev_port(), and that of queue 0
 *	when it fails, too; KEEL_DEVICE_NO_PORT: nothing does
 *
 * Returns a status.
 */
keel_s64 keel_dev_queue(struct keel_dev *d, struct keel_dev_queue *q, keel_u32 index, keel_u32 entries,
			const struct keel_virtq_memory *mem, keel_u32 port);

/* All queues are set up: the device may use them. Returns a status. */
keel_s64 keel_dev_ready(struct keel_dev *d);

/* Stop the device: when this returns KEEL_OK it touches no memory any more. Returns a status. */
keel_s64 keel_dev_reset(struct keel_dev *d);

/* Does the device say that it failed? Then only a reset helps. */
bool keel_dev_failed(struct keel_dev *d);

/* Read len bytes of the config space, at one moment. Returns a status. */
keel_s64 keel_dev_config(struct keel_dev *d, keel_u32 offset, void *buf, keel_u32 len);

/**
 * keel_dev_port - an unmasked port of this vCPU for a device's events
 * @priority: 0 (most urgent) .. 3
 * @fn: handler, see keel_event_handler(); NULL when it is only to end keel_dev_wait()
 * @arg: passed to it
 * @port: the port
 *
 * Needs keel_event_init(). Several queues may have the same. Returns a status.
 */
keel_s64 keel_dev_port(keel_u32 priority, keel_event_fn fn, void *arg, keel_u32 *port);

/* keel_virtq_add() of one object in the image, for the device to read or to write. */
keel_s64 keel_dev_lend(struct keel_dev_queue *q, void *p, keel_u32 len, bool write, void *cookie);

/* Publish what was added to the queue, and ring the doorbell if the device wants it. Returns a status. */
keel_s64 keel_dev_kick(struct keel_dev_queue *q);

/**
 * keel_dev_wait - sleep until the device has used a buffer of the queue
 * @q: queue, with a port of this vCPU; without one the vCPU looks again and again
 * @deadline: guest time in ns, or KEEL_TIME_NEVER
 *
 * Handlers of other events run meanwhile: IF is on for moments, whatever it was. Returns KEEL_OK when
 * there is something for keel_virtq_get() (or the queue is broken), or a status: TIMEDOUT, or
 * STATE when the device failed.
 */
keel_s64 keel_dev_wait(struct keel_dev_queue *q, keel_u64 deadline);

KEEL_END_C

#endif
