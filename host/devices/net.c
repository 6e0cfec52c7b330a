// SPDX-License-Identifier: MIT
/*
 * Network cards (virtio 5.1), one pair of queues: frames between the queues and a link,
 * which is a user-mode network (netuser.c) or a tap (nettap.c).
 *
 * A frame from the guest is copied out once, then looked at. One to the guest that
 * finds no buffer waits in a backlog of fixed size, and when that is half full the
 * link is not asked for more; what it has nonetheless is dropped, as on any wire.
 *
 * Offloads are for what the guest sends, by a link that ends its connections: there is
 * no wire behind it, and who would cut a long segment would only put it together again.
 * Nor does a tap's kernel get to see a header that a guest wrote.
 */
#include "net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../monitor/bugs.h"

/* virtio 5.1.3 */
#define F_CSUM 0
#define F_MTU 3
#define F_MAC 5
#define F_HOST_TSO4 11
#define F_MRG_RXBUF 15
#define F_STATUS 16

#define LINK_UP 1

/* virtio 5.1.6 */
#define NEEDS_CSUM 1
#define GSO_NONE 0
#define GSO_TCPV4 1

enum { RX, TX };

#define BACKLOG_FRAMES 64
#define BACKLOG_BYTES (256 * 1024)
#define CHAINS 64 /* that one frame may be spread over; a power of two */
/* Chains from the guest between two looks at the rest of the world. */
#define ROUND 256

struct header {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
_Static_assert(sizeof(struct header) == NET_HEADER, "as virtio has it");

struct config {
	uint8_t mac[6];
	uint16_t status, max_virtqueue_pairs, mtu;
};

/* Frames one behind the other in a ring of bytes, none of them across its end. */
struct backlog {
	uint8_t bytes[BACKLOG_BYTES];
	struct {
		uint32_t at, len;
	} frame[BACKLOG_FRAMES];
	unsigned int first, count;
};

struct net {
	const struct net_link_ops *ops;
	void *link;
	bool live;  /* between DRIVER_OK and a reset */
	bool mrg;   /* a frame may be spread over chains */
	bool csum;  /* the guest may leave checksums to us, ... */
	bool tso;   /* ... and segments of TCP uncut */
	bool armed; /* the driver shall say when there are chains to receive */

	/* Taken from the queue, for the next frame. */
	struct vq_chain held[CHAINS];
	unsigned int first, count;
	size_t room; /* bytes of theirs */

	struct backlog backlog;
	struct vq_chain tx;
	uint8_t frame[NET_HEADER + NET_FRAME_MAX];
	struct pollfd fds[1 + NET_FDS];

	struct {
		uint64_t sent, received, tx_dropped, rx_dropped;
	} count_of;
};

static struct net *net_of(const struct device *d)
{
	return d->state;
}

/* The backlog */

static bool backlog_put(struct backlog *b, const uint8_t *frame, size_t len)
{
	const unsigned int last = (b->first + b->count - 1) % BACKLOG_FRAMES;
	const unsigned int new = (b->first + b->count) % BACKLOG_FRAMES;
	const uint32_t low = b->count ? b->frame[b->first].at : 0;
	uint32_t at = b->count ? b->frame[last].at + b->frame[last].len : 0;

	if (b->count == BACKLOG_FRAMES)
		return false;
	if (b->count && b->frame[last].at < low) { /* it has gone round: up to the first one */
		if (len > low - at)
			return false;
	} else if (len > BACKLOG_BYTES - at) {
		if (len > low)
			return false;
		at = 0;
	}
	memcpy(b->bytes + at, frame, len);
	b->frame[new].at = at;
	b->frame[new].len = (uint32_t)len;
	b->count++;
	return true;
}

static void backlog_drop_first(struct backlog *b)
{
	b->first = (b->first + 1) % BACKLOG_FRAMES;
	b->count--;
}

bool net_has_room(const struct device *d)
{
	return net_of(d)->backlog.count < BACKLOG_FRAMES / 2;
}

/* To the guest */

/* The next chain to receive into. */
static bool take(struct device *d)
{
	struct net *n = net_of(d);
	struct virtqueue *q = &d->queue[RX];
	struct vq_chain *c = &n->held[(n->first + n->count) % CHAINS];
	size_t bytes;

	if (!vq_pop(q, c)) {
		n->armed = true;
		if (!vq_notify(q, true) || !vq_pop(q, c))
			return false;
	}
	if (n->armed)
		vq_notify(q, false);
	n->armed = false;
	bytes = vq_bytes(c->piece + c->out, c->in);
	if (c->out || bytes < NET_HEADER) {
		device_broken(d, "queue %u, chain %u: no room to receive into", RX, c->head);
		return false;
	}
	n->count++;
	n->room += bytes;
	return true;
}

/* Everything it needs is held. */
static void fill(struct device *d, const uint8_t *frame, size_t len)
{
	struct net *n = net_of(d);
	struct header h = { 0 };
	size_t done = 0, need = NET_HEADER + len;

	for (size_t room = 0; room < need; h.num_buffers++) {
		const struct vq_chain *c = &n->held[(n->first + h.num_buffers) % CHAINS];

		room += vq_bytes(c->piece + c->out, c->in);
	}
	for (unsigned int i = 0; i < h.num_buffers; i++) {
		const struct vq_chain *c = &n->held[n->first];
		size_t at = 0;

		if (!i)
			at = vq_write(c->piece, c->in, 0, &h, sizeof(h));
		at += vq_write(c->piece, c->in, at, frame + done, len - done);
		done += at - (i ? 0 : sizeof(h));
		vq_push(&d->queue[RX], c, (uint32_t)at);
		n->room -= vq_bytes(c->piece, c->in);
		n->first = (n->first + 1) % CHAINS;
		n->count--;
	}
	n->count_of.received++;
}

/* False: there is no place for it yet. True: it was received, or never will be. */
static bool receive(struct device *d, const uint8_t *frame, size_t len)
{
	struct net *n = net_of(d);

	while (n->room < NET_HEADER + len) {
		/* Longer than the driver's buffers: they are for the next. */
		if (n->count == (n->mrg ? CHAINS : 1)) {
			n->count_of.rx_dropped++;
			return true;
		}
		if (!take(d))
			return false;
	}
	fill(d, frame, len);
	return true;
}

void net_deliver(struct device *d, const uint8_t *frame, size_t len)
{
	struct net *n = net_of(d);

	if (n->live && len >= NET_ETHERNET && len <= NET_FRAME_MAX &&
	    ((!n->backlog.count && receive(d, frame, len)) || backlog_put(&n->backlog, frame, len)))
		return;
	n->count_of.rx_dropped++;
}

static void drain_backlog(struct device *d)
{
	struct backlog *b = &net_of(d)->backlog;

	while (b->count && receive(d, b->bytes + b->frame[b->first].at, b->frame[b->first].len))
		backlog_drop_first(b);
}

/* From the guest */

uint16_t net_checksum(const void *from, size_t len)
{
	const uint8_t *at = from;
	uint64_t sum = 0, word;

	/* Carries come back in at the end, whatever the order of bytes. */
	for (; len >= sizeof(word); at += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		sum += word;
		sum += sum < word;
	}
	word = 0;
	memcpy(&word, at, len);
	sum += word;
	sum += sum < word;
	sum = (sum & UINT32_MAX) + (sum >> 32);
	sum = (sum & UINT32_MAX) + (sum >> 32);
	sum = (sum & UINT16_MAX) + (sum >> 16);
	sum = (sum & UINT16_MAX) + (sum >> 16);
	return (uint16_t)~sum;
}

/* What its header leaves to the device. False: what was not accepted, or makes no sense. */
static bool finish(const struct net *n, const struct header *h, uint8_t *frame, size_t len)
{
	const size_t at = h->csum_start, field = at + h->csum_offset;
	uint16_t sum;

	if (h->gso_type != GSO_NONE && (h->gso_type != GSO_TCPV4 || !n->tso || h->flags != NEEDS_CSUM))
		return false;
	if (!h->flags)
		return true;
	if (h->flags != NEEDS_CSUM || !n->csum || at < NET_ETHERNET || field + sizeof(sum) > len)
		return false;
	sum = net_checksum(frame + at, len - at);
	if (!sum)
		sum = UINT16_MAX; /* the same number; of UDP zero means none */
	if (!KEEL_BUG(66))
		memcpy(frame + field, &sum, sizeof(sum));
	return true;
}

static bool send_one(struct net *n, const struct vq_chain *c)
{
	const size_t len = vq_bytes(c->piece, c->out);
	struct header h;

	if (len < NET_HEADER + NET_ETHERNET || len > sizeof(n->frame))
		return false;
	vq_read(c->piece, c->out, 0, n->frame, len);
	memcpy(&h, n->frame, sizeof(h));
	if (!finish(n, &h, n->frame + NET_HEADER, len - NET_HEADER))
		return false;
	memset(n->frame, 0, NET_HEADER);
	return n->ops->send(n->link, n->frame + NET_HEADER, len - NET_HEADER);
}

static void transmit(struct device *d)
{
	struct net *n = net_of(d);
	struct virtqueue *q = &d->queue[TX];
	unsigned int left = ROUND;

	do {
		vq_notify(q, false);
		while (left && vq_pop(q, &n->tx)) {
			left--;
			if (send_one(n, &n->tx))
				n->count_of.sent++;
			else
				n->count_of.tx_dropped++;
			vq_push(q, &n->tx, 0);
		}
	} while (left && vq_notify(q, true));
	/* There may be more: after the others had their turn, and whoever asks us to stop. */
	if (!left)
		device_ring(d);
}

static void net_kick(struct device *d)
{
	drain_backlog(d);
	transmit(d);
	/* One behind the other: the guest is woken once. */
	vq_flush(&d->queue[TX]);
	vq_flush(&d->queue[RX]);
}

static bool net_wait(struct device *d, bool block)
{
	struct net *n = net_of(d);
	struct pollfd *f = n->fds;
	int timeout = -1;
	const unsigned int fds = n->ops->fds(n->link, f + 1, net_has_room(d), &timeout);
	uint64_t count;
	bool rang;

	f[0] = (struct pollfd){ .fd = d->bell, .events = POLLIN };
	if (poll(f, 1 + fds, block ? timeout : 0) < 0)
		return false;
	rang = f[0].revents && read(d->bell, &count, sizeof(count)) == sizeof(count);
	n->ops->ready(n->link, f + 1, fds);
	vq_flush(&d->queue[RX]);
	return rang;
}

static void net_start(struct device *d)
{
	struct net *n = net_of(d);

	n->mrg = device_accepted(d, F_MRG_RXBUF);
	n->csum = device_accepted(d, F_CSUM);
	n->tso = device_accepted(d, F_HOST_TSO4);
	n->armed = false;
	n->live = true;
	vq_notify(&d->queue[RX], false);
}

/* The link lives on; whatever it has meanwhile is dropped. */
static bool net_quiesce(struct device *d)
{
	struct net *n = net_of(d);

	n->live = false;
	n->first = n->count = 0;
	n->room = 0;
	n->backlog.first = n->backlog.count = 0;
	return true;
}

/* Opening */

int net_open_link(struct device *d, const char *text, const struct net_link_ops *ops, struct error *e)
{
	struct net *n = net_of(d);
	struct net_spec spec;
	struct config c = { .status = LINK_UP, .max_virtqueue_pairs = 1 };

	if (net_parse(text, d->index, &spec, &n->ops, e))
		return -1;
	if (ops)
		n->ops = ops;
	n->link = n->ops->open(d, &spec, e);
	if (!n->link)
		return -1;
	memcpy(c.mac, spec.mac, sizeof(c.mac));
	c.mtu = spec.mtu;
	memcpy(d->config, &c, sizeof(c));
	d->config_size = sizeof(c);
	if (n->ops->uncut)
		d->features[0] |= 1u << F_CSUM | 1u << F_HOST_TSO4;
	d->features[0] |= 1u << F_MTU | 1u << F_MAC | 1u << F_MRG_RXBUF | 1u << F_STATUS;
	return 0;
}

static int net_open(struct device *d, const char *text, struct error *e)
{
	return net_open_link(d, text, NULL, e);
}

static void net_close(struct device *d)
{
	struct net *n = net_of(d);

	if (!n->link)
		return;
	host_verbose("net %u: %llu frames sent, %llu received; dropped: %llu of those to send, %llu to receive",
		     d->index, (unsigned long long)n->count_of.sent, (unsigned long long)n->count_of.received,
		     (unsigned long long)n->count_of.tx_dropped, (unsigned long long)n->count_of.rx_dropped);
	n->ops->close(n->link);
}

static void net_calls(struct device *d, struct seal_calls *c)
{
	net_of(d)->ops->calls(c);
}

const struct device_kind device_net = {
	.name = "net",
	.type = 1,
	.queues = 2,
	.queue_max = 256,
	.state = sizeof(struct net),
	.open = net_open,
	.close = net_close,
	.start = net_start,
	.kick = net_kick,
	.quiesce = net_quiesce,
	.wait = net_wait,
	.calls = net_calls,
};
