// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Consoles; see hypercall/vconsole.h. */
#include <hypercall/vconsole.h>

#define RX 0
#define TX 1

static keel_s64 post(struct keel_vconsole *c, keel_u8 *buffer)
{
	return keel_dev_lend(&c->rx, buffer, KEEL_VCONSOLE_PART, true, buffer);
}

keel_s64 keel_vconsole_init(struct keel_vconsole *c, unsigned int nth, keel_u32 port)
{
	const struct keel_virtq_memory rx = keel_dev_queue_memory(&c->rx_mem), tx = keel_dev_queue_memory(&c->tx_mem);
	keel_s64 status = keel_dev_find(&c->dev, KEEL_VIRTIO_CONSOLE, nth);
	keel_u32 i;

	if (!status)
		status = keel_dev_negotiate(&c->dev, KEEL_VIRTIO_F_EVENT_IDX);
	if (!status)
		status = keel_dev_queue(&c->dev, &c->rx, RX, KEEL_VCONSOLE_ENTRIES, &rx, port);
	if (!status)
		status = keel_dev_queue(&c->dev, &c->tx, TX, KEEL_VCONSOLE_ENTRIES, &tx, port);
	c->in = NULL;
	c->sendable = KEEL_VCONSOLE_ENTRIES;
	for (i = 0; i < KEEL_VCONSOLE_ENTRIES && !status; i++) {
		c->free_tx[i] = c->tx_buffer[i];
		status = post(c, c->rx_buffer[i]);
	}
	if (!status) {
		keel_virtq_disable(&c->tx.vq);
		status = keel_dev_ready(&c->dev);
	}
	return status ? status : keel_dev_kick(&c->rx);
}

/* Buffers the device has written out are free again. */
static void reap(struct keel_vconsole *c)
{
	void *cookie;

	while (keel_virtq_get(&c->tx.vq, &cookie, NULL) == 1)
		c->free_tx[c->sendable++] = (keel_u8 *)cookie;
}

keel_s64 keel_vconsole_write(struct keel_vconsole *c, const void *buf, size_t n)
{
	const keel_u8 *from = (const keel_u8 *)buf;
	keel_s64 status;
	keel_u32 len;
	keel_u8 *to;

	for (; n; from += len, n -= len) {
		reap(c);
		while (!c->sendable) {
			status = keel_dev_wait(&c->tx, KEEL_TIME_NEVER);
			reap(c);
			if (status || c->tx.vq.broken)
				return status ? status : KEEL_STATUS(KEEL_E_STATE, 0);
		}
		to = c->free_tx[c->sendable - 1];
		len = n < KEEL_VCONSOLE_PART ? (keel_u32)n : KEEL_VCONSOLE_PART;
		keel_memcpy(to, from, len);
		status = keel_dev_lend(&c->tx, to, len, false, to);
		if (status)
			return status;
		c->sendable--;
		status = keel_dev_kick(&c->tx);
		if (status)
			return status;
	}
	return KEEL_OK;
}

int keel_vconsole_read(struct keel_vconsole *c, void *buf, keel_u32 n)
{
	void *cookie;
	int got = 1;

	while (!c->in || c->in_at == c->in_len) {
		if (c->in && (post(c, c->in) || keel_dev_kick(&c->rx)))
			return -1;
		c->in = NULL;
		got = keel_virtq_get(&c->rx.vq, &cookie, &c->in_len);
		if (got != 1)
			return got;
		c->in = (keel_u8 *)cookie;
		c->in_at = 0;
	}
	if (n > c->in_len - c->in_at)
		n = c->in_len - c->in_at;
	keel_shared_read(buf, keel_share(c->in + c->in_at), n);
	c->in_at += n;
	return (int)n;
}

keel_s64 keel_vconsole_wait(struct keel_vconsole *c, keel_u64 deadline)
{
	return c->in && c->in_at < c->in_len ? KEEL_OK : keel_dev_wait(&c->rx, deadline);
}
