/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Disks (virtio 5.2): one request after the other, or many under way. Requests are
 * the caller's and stay where they are until they are done; they and the disk are objects
 * that keel_gpa_of() can tell the place of. Data is anywhere in RAM.
 */
#ifndef HYPERCALL_BLK_H
#define HYPERCALL_BLK_H

#include <hypercall/device.h>

KEEL_BEGIN_C

#define KEEL_BLK_SECTOR 512
#define KEEL_BLK_ENTRIES 128 /* requests under way, a third of it without indirect descriptors */

enum keel_blk_op { KEEL_BLK_READ = 0, KEEL_BLK_WRITE = 1, KEEL_BLK_FLUSH = 4 };

/**
 * struct keel_blk_req - a request
 * @result: once it is done: KEEL_OK, FAULT when the disk failed, NOTSUP when it has no such request
 * @cookie: the caller's
 */
struct keel_blk_req {
	keel_s64 result;
	void *cookie;
	struct keel_blk_req *next;
	keel_u32 reads; /* bytes */
	bool done;
	keel_u8 status; /* the device's from here on */
	struct {
		keel_u32 type;
		keel_u32 reserved;
		keel_u64 sector;
	} head;
};

struct keel_blk {
	struct keel_dev dev;
	struct keel_dev_queue queue;
	keel_u64 sectors; /* of 512 bytes */
	bool readonly;
	bool flushes; /* writes may rest in a cache until a flush */
	struct keel_blk_req own;
	struct keel_blk_req *done, **done_end;

	KEEL_DEV_QUEUE_MEMORY(mem, KEEL_BLK_ENTRIES);
	struct keel_virtq_desc tables[KEEL_BLK_ENTRIES][3] __attribute__((aligned(16)));
};

/**
 * keel_blk_init - the nth disk, from 0
 * @b: disk; what it was before is forgotten, requests under way included
 * @nth: of the disks
 * @port: from keel_dev_port(), or KEEL_DEVICE_NO_PORT
 *
 * Returns a status; NOENT when there is none.
 */
keel_s64 keel_blk_init(struct keel_blk *b, unsigned int nth, keel_u32 port);

/* Read or write len bytes, whole sectors, and wait for it. Returns a status. */
keel_s64 keel_blk_read(struct keel_blk *b, keel_u64 sector, keel_gpa_t data, keel_u32 len);
keel_s64 keel_blk_write(struct keel_blk *b, keel_u64 sector, keel_gpa_t data, keel_u32 len);

/* When this returns KEEL_OK, all writes that were done before it are on stable storage. */
keel_s64 keel_blk_flush(struct keel_blk *b);

/**
 * keel_blk_submit - queue a request
 * @b: disk
 * @req: the request, not under way
 * @op: what to do
 * @sector: where on the disk; 0 for a flush
 * @data: where in RAM
 * @len: bytes, whole sectors; 0 for a flush
 *
 * It is under way once keel_blk_kick() was called. Requests that are under way together are done
 * in any order. Returns a status: AGAIN when the queue is full for now, INVAL or RANGE for what is
 * no part of the disk, PERM for a write to one that is read-only.
 */
keel_s64 keel_blk_submit(struct keel_blk *b, struct keel_blk_req *req, enum keel_blk_op op, keel_u64 sector,
			 keel_gpa_t data, keel_u32 len);

/* Tell the disk what was queued. Returns a status. */
keel_s64 keel_blk_kick(struct keel_blk *b);

/* A submitted request that is done, NULL when there is none. */
struct keel_blk_req *keel_blk_poll(struct keel_blk *b);

/* Wait until there is one, or the deadline. Returns a status: TIMEDOUT, or STATE when the disk failed as a whole. */
keel_s64 keel_blk_wait(struct keel_blk *b, keel_u64 deadline);

KEEL_END_C

#endif
