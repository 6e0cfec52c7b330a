// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Network interfaces; see hypercall/net.h. */
#include <hypercall/net.h>

#define F_MAC KEEL_U64(0x20) /* virtio 5.1.3 */
#define RX 0
#define TX 1

static keel_s64 post(struct keel_net *n, struct keel_net_buffer *b)
{
	return keel_dev_lend(&n->rx, b, sizeof(b->head) + sizeof(b->frame), true, b);
}

/* Buffers for all that can come, and all for what goes free. */
static keel_s64 fill(struct keel_net *n)
{
	keel_u32 i;
	keel_s64 status;

	for (i = 0; i < n->rx.vq.entries; i++) {
		status = post(n, &n->rx_buffer[i]);
		if (status)
			return status;
	}
	for (i = 0; i < n->tx.vq.entries; i++)
		n->free_tx[i] = &n->tx_buffer[i];
	n->sendable = n->tx.vq.entries;
	return KEEL_OK;
}

keel_s64 keel_net_init(struct keel_net *n, unsigned int nth, keel_u32 port)
{
	const struct keel_virtq_memory rx = keel_dev_queue_memory(&n->rx_mem), tx = keel_dev_queue_memory(&n->tx_mem);
	keel_s64 status = keel_dev_find(&n->dev, KEEL_VIRTIO_NET, nth);
	keel_u32 entries;

	if (!status)
		status = keel_dev_negotiate(&n->dev, F_MAC | KEEL_VIRTIO_F_EVENT_IDX);
	if (status)
		return status;
	entries = keel_dev_entries(&n->dev, KEEL_NET_ENTRIES);
	status = keel_dev_queue(&n->dev, &n->rx, RX, entries, &rx, port);
	/* Nobody waits for what was sent: it is looked at before the next is. */
	if (!status)
		status = keel_dev_queue(&n->dev, &n->tx, TX, entries, &tx, KEEL_DEVICE_NO_PORT);
	keel_memset(n->mac, 0, sizeof(n->mac));
	if (!status && n->dev.features & F_MAC)
		status = keel_dev_config(&n->dev, 0, n->mac, sizeof(n->mac));
	if (!status)
		status = fill(n);
	if (!status) {
		keel_virtq_disable(&n->rx.vq);
		keel_virtq_disable(&n->tx.vq);
		status = keel_dev_ready(&n->dev);
	}
	return status ? status : keel_dev_kick(&n->rx);
}

keel_s64 keel_net_send(struct keel_net *n, const void *frame, keel_u32 len)
{
	struct keel_net_buffer *b;
	keel_s64 status;
	void *cookie;

	if (!len || len > KEEL_NET_FRAME)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(3));
	while (keel_virtq_get(&n->tx.vq, &cookie, NULL) == 1)
		n->free_tx[n->sendable++] = (struct keel_net_buffer *)cookie;
	if (n->tx.vq.broken)
		return KEEL_STATUS(KEEL_E_STATE, 0);
	if (!n->sendable)
		return KEEL_STATUS(KEEL_E_AGAIN, 0);
	b = n->free_tx[n->sendable - 1];
	keel_memset(b->head, 0, sizeof(b->head));
	keel_memcpy(b->frame, frame, len);
	status = keel_dev_lend(&n->tx, b, sizeof(b->head) + len, false, b);
	if (status)
		return status;
	n->sendable--;
	return keel_dev_kick(&n->tx);
}

int keel_net_recv(struct keel_net *n, void *frame, keel_u32 size)
{
	struct keel_net_buffer *b;
	keel_u32 len = 0;
	void *cookie;
	int got;

	while ((got = keel_virtq_get(&n->rx.vq, &cookie, &len)) == 1) {
		b = (struct keel_net_buffer *)cookie;
		len = len > sizeof(b->head) ? len - (keel_u32)sizeof(b->head) : 0;
		if (len > size)
			len = 0;
		/* Copied once: the device may change it as long as it likes. */
		keel_shared_read(frame, keel_share(b->frame), len);
		if (post(n, b) || keel_dev_kick(&n->rx))
			return -1;
		if (len)
			return (int)len;
	}
	return got;
}

keel_s64 keel_net_wait(struct keel_net *n, keel_u64 deadline)
{
	return keel_dev_wait(&n->rx, deadline);
}
