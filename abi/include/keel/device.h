/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * DEVICE: a transport for virtio devices (Virtual I/O Device version 1.2; clauses
 * of it are cited as "virtio n.n"). What a device is, its features, its config
 * space and what lies in its queues are virtio's; here is how a driver finds it,
 * and how the two tell each other that there is something to do.
 *
 * Life of a driver (virtio 3.1.1), D a device's handle:
 *
 *	device_enum(i, info)		until NOENT@1: type, handle D, features
 *	device_status(D, 0)		reset, again until the value is 0
 *	device_status(D, 1), (D, 3)	ACKNOWLEDGE, DRIVER
 *	device_accept(D, w, bits)	features, VIRTIO_F_VERSION_1 among them
 *	device_status(D, 11)		FEATURES_OK; not in the value: refused
 *	device_queue(D, q, setup)	each virtqueue; value = its doorbell
 *	device_status(D, 15)		DRIVER_OK: the device may use its queues
 *
 * Driver to device: event_send(doorbell), where the queue's used ring asks for it.
 * Device to driver: the port named in the queue's setup becomes pending, where its
 * available ring asks for it. Split virtqueues; buffers and rings are GPAs of RAM.
 */
#ifndef KEEL_DEVICE_H
#define KEEL_DEVICE_H

#include <keel/types.h>

/* Device status, virtio 2.1 */
#define KEEL_DEVICE_ACKNOWLEDGE 1
#define KEEL_DEVICE_DRIVER 2
#define KEEL_DEVICE_DRIVER_OK 4
#define KEEL_DEVICE_FEATURES_OK 8
#define KEEL_DEVICE_NEEDS_RESET 64 /* the device's; a driver cannot write it */
#define KEEL_DEVICE_FAILED 128
#define KEEL_DEVICE_STATUS_READ 256 /* alone, as argument: change nothing, value = the status */

#define KEEL_DEVICE_CONFIG_MAX 256 /* bytes one device_config_read or _write moves at most */
#define KEEL_DEVICE_FEATURE_WORDS 2

/* device_queue: in place of a queue's number, the port of configuration changes; also of NEEDS_RESET */
#define KEEL_DEVICE_QUEUE_CONFIG 0xffffffff
#define KEEL_DEVICE_NO_PORT 0xffffffff /* no notification: the driver looks by itself */

/* What stands in the place of the vCPU in the handle of a doorbell: it is the host that hears of it. */
#define KEEL_PORT_HOST 0xfff

#ifndef __ASSEMBLER__
/*
 * struct keel_device_info - answer of device_enum.
 *
 *	 0  size         IN  bytes there are, >= 64; OUT bytes written   field 1
 *	 4  flags        IN  zero                                        field 2
 *	 8  device       OUT its handle; 0 is none
 *	12  type         OUT virtio device type, virtio 5
 *	16  status       OUT KEEL_DEVICE_*, virtio 2.1
 *	20  queues       OUT how many virtqueues it has
 *	24  queue_max    OUT largest size of each, a power of two
 *	28  config_size  OUT bytes of its config space
 *	32  features[2]  OUT what it offers, virtio 2.2; bit 64w + n is bit n of word w
 *	48  reserved[2]  OUT zero
 */
struct keel_device_info {
	keel_u32 size;
	keel_u32 flags;
	keel_u32 device;
	keel_u32 type;
	keel_u32 status;
	keel_u32 queues;
	keel_u32 queue_max;
	keel_u32 config_size;
	keel_u64 features[KEEL_DEVICE_FEATURE_WORDS];
	keel_u64 reserved[2];
};
KEEL_ASSERT_SIZE(struct keel_device_info, 64);
KEEL_ASSERT_AT(struct keel_device_info, size, 0);
KEEL_ASSERT_AT(struct keel_device_info, flags, 4);
KEEL_ASSERT_AT(struct keel_device_info, device, 8);
KEEL_ASSERT_AT(struct keel_device_info, type, 12);
KEEL_ASSERT_AT(struct keel_device_info, status, 16);
KEEL_ASSERT_AT(struct keel_device_info, queues, 20);
KEEL_ASSERT_AT(struct keel_device_info, queue_max, 24);
KEEL_ASSERT_AT(struct keel_device_info, config_size, 28);
KEEL_ASSERT_AT(struct keel_device_info, features, 32);
KEEL_ASSERT_AT(struct keel_device_info, reserved, 48);

/*
 * struct keel_device_queue - setup of device_queue, read-only to the host.
 *
 *	 0  size      IN  bytes, 48; more when what follows is zero  field 1
 *	 4  flags     IN  zero                                       field 2
 *	 8  entries   IN  queue size, a power of two <= queue_max    field 3
 *	12  port      IN  port, or KEEL_DEVICE_NO_PORT               field 4
 *	16  desc      IN  descriptor table, 16-byte aligned          field 5
 *	24  driver    IN  driver area (available ring), 2-byte       field 6
 *	32  device    IN  device area (used ring), 4-byte            field 7
 *	40  reserved  IN  zero                                       field 8
 *
 * With KEEL_DEVICE_QUEUE_CONFIG entries, desc, driver and device are zero.
 */
struct keel_device_queue {
	keel_u32 size;
	keel_u32 flags;
	keel_u32 entries;
	keel_u32 port;
	keel_u64 desc;
	keel_u64 driver;
	keel_u64 device;
	keel_u64 reserved;
};
KEEL_ASSERT_SIZE(struct keel_device_queue, 48);
KEEL_ASSERT_AT(struct keel_device_queue, size, 0);
KEEL_ASSERT_AT(struct keel_device_queue, flags, 4);
KEEL_ASSERT_AT(struct keel_device_queue, entries, 8);
KEEL_ASSERT_AT(struct keel_device_queue, port, 12);
KEEL_ASSERT_AT(struct keel_device_queue, desc, 16);
KEEL_ASSERT_AT(struct keel_device_queue, driver, 24);
KEEL_ASSERT_AT(struct keel_device_queue, device, 32);
KEEL_ASSERT_AT(struct keel_device_queue, reserved, 40);
#endif

#endif
