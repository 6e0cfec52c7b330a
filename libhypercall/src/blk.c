// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Disks; see hypercall/blk.h. */
#include <hypercall/blk.h>

/* Features, virtio 5.2.3, and statuses. */
#define F_RO KEEL_U64(0x20)
#define F_FLUSH KEEL_U64(0x200)
#define S_OK 0
#define S_UNSUPP 2
#define S_NONE 0xff /* no device says this */

#define WANTED (F_RO | F_FLUSH | KEEL_VIRTIO_F_INDIRECT_DESC | KEEL_VIRTIO_F_EVENT_IDX)

keel_s64 keel_blk_init(struct keel_blk *b, unsigned int nth, keel_u32 port)
{
	struct keel_virtq_memory mem = keel_dev_queue_memory(&b->mem);
	keel_s64 status = keel_dev_find(&b->dev, KEEL_VIRTIO_BLOCK, nth);

	mem.indirect = b->tables[0];
	mem.indirect_gpa = keel_gpa_of(b->tables).v;
	mem.indirect_each = 3;
	b->done = NULL;
	b->done_end = &b->done;
	if (!status)
		status = keel_dev_negotiate(&b->dev, WANTED);
	if (!status)
		status = keel_dev_config(&b->dev, 0, &b->sectors, sizeof(b->sectors));
	if (!status)
		status = keel_dev_queue(&b->dev, &b->queue, 0, keel_dev_entries(&b->dev, KEEL_BLK_ENTRIES), &mem, port);
	if (status)
		return status;
	b->readonly = b->dev.features & F_RO;
	b->flushes = b->dev.features & F_FLUSH;
	keel_virtq_disable(&b->queue.vq);
	return keel_dev_ready(&b->dev);
}

/* Is it a request that this disk could do? */
static keel_s64 check(const struct keel_blk *b, enum keel_blk_op op, keel_u64 sector, keel_u32 len)
{
	keel_u32 n = len / KEEL_BLK_SECTOR;

	if (op == KEEL_BLK_FLUSH)
		return sector || len ? KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(4)) : KEEL_OK;
	if (op != KEEL_BLK_READ && op != KEEL_BLK_WRITE)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(3));
	if (!len || len % KEEL_BLK_SECTOR)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(6));
	if (n > b->sectors || sector > b->sectors - n)
		return KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_ARG(4));
	return op == KEEL_BLK_WRITE && b->readonly ? KEEL_STATUS(KEEL_E_PERM, KEEL_AT_ARG(3)) : KEEL_OK;
}

keel_s64 keel_blk_submit(struct keel_blk *b, struct keel_blk_req *req, enum keel_blk_op op, keel_u64 sector,
			 keel_gpa_t data, keel_u32 len)
{
	const struct keel_virtq_seg head = { keel_gpa_of(&req->head).v, sizeof(req->head) }, body = { data.v, len },
				    status = { keel_gpa_of(&req->status).v, 1 };
	struct keel_virtq_seg seg[3] = { head, status };
	keel_s64 error = check(b, op, sector, len);

	if (error)
		return error;
	if (len) {
		seg[1] = body;
		seg[2] = status;
	}
	req->head.type = op;
	req->head.reserved = 0;
	req->head.sector = sector;
	req->status = S_NONE;
	req->reads = op == KEEL_BLK_READ ? len : 0;
	req->done = false;
	/* What a write takes is read by the device; the status is always written. */
	return keel_virtq_add(&b->queue.vq, seg, op == KEEL_BLK_WRITE ? 2 : 1, op == KEEL_BLK_READ ? 2 : 1, req);
}

keel_s64 keel_blk_kick(struct keel_blk *b)
{
	return keel_dev_kick(&b->queue);
}

static void finish(struct keel_blk *b, struct keel_blk_req *req, keel_u32 wrote)
{
	keel_u8 status = keel_shared_load8(keel_share(&req->status));

	/* A read that is OK has written all its data: what else is there would pass for it. */
	if (status == S_OK && wrote > req->reads)
		req->result = KEEL_OK;
	else
		req->result = status == S_UNSUPP ? KEEL_STATUS(KEEL_E_NOTSUP, 0) : KEEL_STATUS(KEEL_E_FAULT, 0);
	req->done = true;
	if (req == &b->own)
		return;
	req->next = NULL;
	*b->done_end = req;
	b->done_end = &req->next;
}

static void reap(struct keel_blk *b)
{
	keel_u32 wrote;
	void *cookie;

	while (keel_virtq_get(&b->queue.vq, &cookie, &wrote) == 1)
		finish(b, (struct keel_blk_req *)cookie, wrote);
}

struct keel_blk_req *keel_blk_poll(struct keel_blk *b)
{
	struct keel_blk_req *req;

	if (!b->done)
		reap(b);
	req = b->done;
	if (!req)
		return NULL;
	b->done = req->next;
	if (!b->done)
		b->done_end = &b->done;
	return req;
}

/* Sleep until the disk is done with something. */
static keel_s64 wait(struct keel_blk *b, keel_u64 deadline)
{
	keel_s64 status = keel_dev_wait(&b->queue, deadline);

	reap(b);
	return !status && b->queue.vq.broken ? KEEL_STATUS(KEEL_E_STATE, 0) : status;
}

keel_s64 keel_blk_wait(struct keel_blk *b, keel_u64 deadline)
{
	keel_s64 status = KEEL_OK;

	while (!b->done && !status)
		status = wait(b, deadline);
	return b->done ? KEEL_OK : status;
}

/* One request from its beginning to its end; those submitted before are done as well, or wait in line to be told. */
static keel_s64 one(struct keel_blk *b, enum keel_blk_op op, keel_u64 sector, keel_gpa_t data, keel_u32 len)
{
	keel_s64 status;

	while (KEEL_STATUS_CODE(status = keel_blk_submit(b, &b->own, op, sector, data, len)) == KEEL_E_AGAIN) {
		status = keel_blk_kick(b);
		if (!status)
			status = wait(b, KEEL_TIME_NEVER);
		if (status)
			return status;
	}
	if (!status)
		status = keel_blk_kick(b);
	while (!status && !b->own.done)
		status = wait(b, KEEL_TIME_NEVER);
	return status ? status : b->own.result;
}

keel_s64 keel_blk_read(struct keel_blk *b, keel_u64 sector, keel_gpa_t data, keel_u32 len)
{
	return one(b, KEEL_BLK_READ, sector, data, len);
}

keel_s64 keel_blk_write(struct keel_blk *b, keel_u64 sector, keel_gpa_t data, keel_u32 len)
{
	return one(b, KEEL_BLK_WRITE, sector, data, len);
}

keel_s64 keel_blk_flush(struct keel_blk *b)
{
	/* Without flushes there is no cache either. */
	return b->flushes ? one(b, KEEL_BLK_FLUSH, 0, keel_gpa(0), 0) : KEEL_OK;
}
