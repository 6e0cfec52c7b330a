// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Entropy devices; see hypercall/rng.h. */
#include <hypercall/rng.h>

keel_s64 keel_rng_init(struct keel_rng *r, unsigned int nth, keel_u32 port)
{
	const struct keel_virtq_memory mem = keel_dev_queue_memory(&r->mem);
	keel_s64 status = keel_dev_find(&r->dev, KEEL_VIRTIO_ENTROPY, nth);

	if (!status)
		status = keel_dev_negotiate(&r->dev, 0);
	if (!status)
		status = keel_dev_queue(&r->dev, &r->queue, 0, KEEL_RNG_ENTRIES, &mem, port);
	return status ? status : keel_dev_ready(&r->dev);
}

keel_s64 keel_rng_fill(struct keel_rng *r, void *buf, size_t n)
{
	keel_u8 *to = (keel_u8 *)buf;
	keel_u32 ask, len;
	keel_s64 status;
	void *cookie;

	for (; n; to += len, n -= len) {
		ask = n < sizeof(r->part) ? (keel_u32)n : (keel_u32)sizeof(r->part);
		status = keel_dev_lend(&r->queue, r->part, ask, true, r);
		if (!status)
			status = keel_dev_kick(&r->queue);
		if (!status)
			status = keel_dev_wait(&r->queue, KEEL_TIME_NEVER);
		if (status)
			return status;
		/* It gives at least one byte, virtio 5.4.6. */
		if (keel_virtq_get(&r->queue.vq, &cookie, &len) != 1 || !len)
			return KEEL_STATUS(KEEL_E_STATE, 0);
		keel_shared_read(to, keel_share(r->part), len);
	}
	return KEEL_OK;
}
