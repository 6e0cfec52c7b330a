// SPDX-License-Identifier: MIT
/* Network cards: what --net says, frames through queues that hold too little, and a user-mode network at work. */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../devices/net.h"
#include "driver.h"

enum { RX, TX };

static const uint8_t router_mac[6] = { 0x52, 0x55, 10, 0, 2, 2 };
static const uint8_t guest_mac[6] = { 0x02, 0x4b, 0x45, 0x45, 0x4c, 0 };

static void test_net_spec(void **state)
{
	static const struct {
		const char *text, *wrong; /* part of the message; NULL = fine */
	} specs[] = {
		{ "user", NULL },
		{ "tap=tap0", NULL },
		{ "user,mac=02:00:00:00:00:01,mtu=9000", NULL },
		{ "user,hostfwd=tcp:127.0.0.1:2222-:22", NULL },
		{ "user,hostfwd=udp:0.0.0.0:5353-10.0.2.20:53,hostfwd=tcp:127.0.0.1:1-:65535", NULL },
		{ "", "neither user nor tap" },
		{ "users", "neither user nor tap" },
		{ "tap=", "not the name" },
		{ "tap=sixteen.letters.", "not the name" },
		{ "tap=a%d", "not the name" },
		{ "tap=../x", "not the name" },
		{ "user,", "\"\" is none of hostfwd" },
		{ "user,restrict=on", "\"restrict=on\" is none of hostfwd" },
		{ "tap=t,hostfwd=tcp:127.0.0.1:1-:1", "is none of mac" },
		{ "user,hostfwd=sctp:127.0.0.1:1-:1", "is none of hostfwd" },
		{ "user,hostfwd=tcp::2222-:22", "not tcp|udp:ADDRESS" },
		{ "user,hostfwd=tcp:127.0.0.1:0-:22", "not tcp|udp:ADDRESS" },
		{ "user,hostfwd=tcp:127.0.0.1:65536-:22", "not tcp|udp:ADDRESS" },
		{ "user,hostfwd=tcp:127.0.0.1:22", "not tcp|udp:ADDRESS" },
		{ "user,hostfwd=tcp:127.0.0.1:22-22", "not tcp|udp:ADDRESS" },
		{ "user,hostfwd=tcp:127.0.0.1:22-:", "not tcp|udp:ADDRESS" },
		{ "user,hostfwd=tcp:127.0.0.1:-22-:22", "not tcp|udp:ADDRESS" },
		{ "user,hostfwd=tcp:localhost:22-:22", "not tcp|udp:ADDRESS" },
		{ "user,hostfwd=tcp:127.0.0.1:22-10.0.2:22", "not tcp|udp:ADDRESS" },
		{ "user,mac=02:00:00:00:00", "not six hexadecimal" },
		{ "user,mac=02:00:00:00:00:0g", "not six hexadecimal" },
		{ "user,mac=02-00-00-00-00-01", "not six hexadecimal" },
		{ "user,mac=01:00:00:00:00:01", "not the address of one card" },
		{ "user,mac=00:00:00:00:00:00", "not the address of one card" },
		{ "user,mtu=575", "not a number from 576" },
		{ "user,mtu=65521", "not a number from 576" },
		{ "user,mtu=1500x", "not a number from 576" },
	};
	const struct net_link_ops *ops;
	struct net_spec s;
	char many[2100] = "user";

	(void)state;
	for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
		struct error e = { "" };
		const int err = net_parse(specs[i].text, 3, &s, &ops, &e);

		if (!specs[i].wrong != !err || (err && !strstr(e.text, specs[i].wrong)))
			fail_msg("\"%s\": %d, %s", specs[i].text, err, e.text);
	}
	assert_int_equal(net_parse("user,hostfwd=udp:127.0.0.1:5353-10.0.2.20:53", 3, &s, &ops, NULL), 0);
	assert_ptr_equal(ops, &net_user);
	assert_int_equal(s.mac[5], 3);
	assert_int_equal(s.mtu, 1500);
	assert_int_equal(s.forwards, 1);
	assert_true(s.forward[0].udp);
	assert_int_equal(s.forward[0].host, htonl(INADDR_LOOPBACK));
	assert_int_equal(s.forward[0].host_port, 5353);
	assert_int_equal(s.forward[0].guest, htonl(0x0a000214));
	assert_int_equal(s.forward[0].guest_port, 53);
	for (unsigned int i = 0; i <= NET_FORWARDS; i++)
		strcat(many, ",hostfwd=tcp:127.0.0.1:1-:1");
	struct error e = { "" };
	assert_int_equal(net_parse(many, 0, &s, &ops, &e), -1);
	assert_non_null(strstr(e.text, "more than 32"));
	memset(many + 4, 'x', sizeof(many) - 5);
	assert_int_equal(net_parse(many, 0, &s, &ops, &e), -1);
	assert_non_null(strstr(e.text, "longer than"));
}

/* A link that gives what it is told to. */

static struct {
	int pipe[2]; /* sizes of frames to give */
	atomic_uint given, sent, bad;
	size_t last;
} fake;

static void *fake_open(struct device *d, const struct net_spec *spec, struct error *e)
{
	(void)spec;
	(void)e;
	memset(&fake, 0, sizeof(fake));
	assert_int_equal(pipe(fake.pipe), 0);
	return d;
}

static void fake_close(void *link)
{
	(void)link;
	close(fake.pipe[0]);
	close(fake.pipe[1]);
}

/* Frames count up: each byte behind the addresses is the low part of its place and length. */
static uint8_t pattern(size_t at, size_t len)
{
	return (uint8_t)(at * 7 + len);
}

static bool fake_send(void *link, uint8_t *frame, size_t len)
{
	(void)link;
	for (size_t i = 0; i < len; i++)
		fake.bad += frame[i] != pattern(i, len);
	for (int i = 1; i <= NET_HEADER; i++)
		fake.bad += frame[-i] != 0;
	fake.last = len;
	fake.sent++;
	return true;
}

static unsigned int fake_fds(void *link, struct pollfd *f, bool room, int *timeout)
{
	(void)link;
	(void)timeout;
	f[0] = (struct pollfd){ .fd = fake.pipe[0], .events = POLLIN };
	return room;
}

static void fake_ready(void *link, const struct pollfd *f, unsigned int n)
{
	static uint8_t frame[NET_FRAME_MAX + 1];
	uint32_t len;

	if (!n || !f[0].revents || read(fake.pipe[0], &len, sizeof(len)) != sizeof(len))
		return;
	for (size_t i = 0; i < len; i++)
		frame[i] = pattern(i, len);
	net_deliver(link, frame, len);
	fake.given++;
}

static void fake_calls(struct seal_calls *c)
{
	(void)c;
}

static struct net_link_ops fake_link = { fake_open, fake_close, fake_send, fake_fds, fake_ready, fake_calls, false };

static struct machine m;

/* device_net with another link: its open() sees --net user and we change what stands behind. */
static int open_fake(struct device *d, const char *spec, struct error *e)
{
	return net_open_link(d, spec, &fake_link, e);
}

static struct device_kind fake_kind;

static void make_fake(void)
{
	fake_kind = device_net;
	fake_kind.open = open_fake;
	machine_make(&m, &fake_kind, "user");
	ring_make(&m, RX, 8);
	ring_make(&m, TX, 8);
}

static void give(uint32_t len)
{
	assert_int_equal(write(fake.pipe[1], &len, sizeof(len)), sizeof(len));
}

static void check_frame(uint64_t at, size_t len, uint16_t buffers)
{
	const uint8_t *frame = m.p.ram + at;

	assert_int_equal(frame[10] | frame[11] << 8, buffers);
	for (size_t i = 0; i < len; i++)
		if (frame[NET_HEADER + i] != pattern(i, len))
			fail_msg("byte %zu of %zu", i, len);
}

static void test_net_receive(void **state)
{
	uint32_t len;

	(void)state;
	make_fake();
	machine_go(&m, 0);
	/* Without a buffer frames wait; one that is longer than the buffer goes, the buffer stays. */
	give(100);
	give(1500);
	give(60);
	WAIT_FOR(fake.given == 3);
	ring_desc(&m.ring[RX], 0, BUFFERS, NET_HEADER + 200, D_WRITE, 0);
	ring_offer(&m.ring[RX], 0);
	device_ring(m.d);
	assert_int_equal(ring_wait(&m.ring[RX], &len), 0);
	assert_int_equal(len, NET_HEADER + 100);
	check_frame(BUFFERS, 100, 1);
	ring_offer(&m.ring[RX], 0);
	device_ring(m.d);
	assert_int_equal(ring_wait(&m.ring[RX], &len), 0);
	assert_int_equal(len, NET_HEADER + 60);
	check_frame(BUFFERS, 60, 1);
	/* In pieces, the header among them; the shortest frame there is. */
	for (uint16_t i = 0; i < 4; i++)
		ring_desc(&m.ring[RX], i, BUFFERS + 8 * i, 8, D_WRITE | (i < 3 ? D_NEXT : 0), (uint16_t)(i + 1));
	ring_offer(&m.ring[RX], 0);
	device_ring(m.d);
	give(13);
	give(14);
	assert_int_equal(ring_wait(&m.ring[RX], &len), 0);
	assert_int_equal(len, NET_HEADER + 14);
	check_frame(BUFFERS, 14, 1);
	machine_end(&m);
}

static void test_net_receive_merged(void **state)
{
	static const uint32_t sizes[] = { 1000, 52, 53, 4000, 500 };
	uint32_t len;

	(void)state;
	make_fake();
	machine_go(&m, 1 << 15);
	for (uint16_t i = 0; i < 8; i++)
		ring_desc(&m.ring[RX], i, BUFFERS + i * 0x1000, 64, D_WRITE, 0);
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		const unsigned int buffers = (NET_HEADER + sizes[s] + 63) / 64;
		static uint8_t whole[8192];
		size_t got = 0;

		give(sizes[s]);
		/* More than the ring holds: the device takes them in bits, and gives all back at once. */
		for (unsigned int i = 0; i < buffers; i++) {
			if (i >= 8) {
				device_ring(m.d);
				usleep(2000);
			}
			if (buffers <= 8)
				ring_offer(&m.ring[RX], (uint16_t)(i % 8));
		}
		device_ring(m.d);
		if (buffers > 8) {
			/* It can never be: the driver has no ninth. It waits, and so does all behind it. */
			for (uint16_t i = 0; i < 8; i++)
				ring_offer(&m.ring[RX], i);
			device_ring(m.d);
			WAIT_FOR(fake.given == s + 1);
			usleep(20000);
			assert_false(ring_has(&m.ring[RX]));
			machine_reset(&m);
			ring_make(&m, RX, 8);
			ring_make(&m, TX, 8);
			for (uint16_t i = 0; i < 8; i++)
				ring_desc(&m.ring[RX], i, BUFFERS + i * 0x1000, 64, D_WRITE, 0);
			machine_go(&m, 1 << 15);
			continue;
		}
		for (unsigned int i = 0; i < buffers; i++) {
			const uint16_t head = ring_wait(&m.ring[RX], &len);

			if (!i)
				assert_int_equal(m.p.ram[BUFFERS + head * 0x1000 + 10], buffers);
			memcpy(whole + got, m.p.ram + BUFFERS + head * 0x1000, len);
			got += len;
		}
		assert_int_equal(got, NET_HEADER + sizes[s]);
		for (size_t i = 0; i < sizes[s]; i++)
			assert_int_equal(whole[NET_HEADER + i], pattern(i, sizes[s]));
	}
	machine_end(&m);
}

/* What nobody takes is bounded in frames and bytes, and what comes out is in order. */
static void test_net_backlog(void **state)
{
	static const uint32_t sizes[] = { 60, 1514, 65535, 20000 };
	uint32_t len, last = 0;

	(void)state;
	make_fake();
	ring_desc(&m.ring[RX], 0, BUFFERS, NET_HEADER + NET_FRAME_MAX, D_WRITE, 0);
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		unsigned int fit = 0;

		for (uint32_t bytes = 0; fit < 32 && bytes + sizes[s] - fit <= 262144; fit++)
			bytes += sizes[s] - fit;

		machine_go(&m, 0);
		for (unsigned int round = 0; round < 3; round++) {
			const unsigned int before = fake.given;

			/* It stops asking when the backlog is half full. */
			for (uint32_t i = 0; i < 40; i++)
				give(sizes[s] - i);
			WAIT_FOR(fake.given >= before + (fit < 32 ? 40 : 32));
			usleep(10000);
			if (fit == 32)
				assert_int_equal(fake.given, before + 32);
			for (unsigned int i = 0; i < (fit < 32 ? fit : 40); i++) {
				ring_offer(&m.ring[RX], 0);
				device_ring(m.d);
				assert_int_equal(ring_wait(&m.ring[RX], &len), 0);
				assert_true(!i || len < last); /* the order they were given in */
				last = len;
				check_frame(BUFFERS, len - NET_HEADER, 1);
			}
		}
		machine_reset(&m);
		ring_make(&m, RX, 8);
		ring_make(&m, TX, 8);
		ring_desc(&m.ring[RX], 0, BUFFERS, NET_HEADER + NET_FRAME_MAX, D_WRITE, 0);
	}
	machine_end(&m);
}

static void test_net_send(void **state)
{
	static const struct {
		uint32_t len;
		bool sent;
	} frames[] = { { 0, false },   { 13, false },		{ 14, true },
		       { 1514, true }, { NET_FRAME_MAX, true }, { NET_FRAME_MAX + 1, false } };
	unsigned int sent = 0;
	uint32_t len;

	(void)state;
	make_fake();
	machine_go(&m, 0);
	for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
		uint8_t *frame = m.p.ram + BUFFERS;

		memset(frame, 0, NET_HEADER);
		for (uint32_t k = 0; k < frames[i].len; k++)
			frame[NET_HEADER + k] = pattern(k, frames[i].len);
		ring_desc(&m.ring[TX], 3, BUFFERS, 5, D_NEXT, 1);
		ring_desc(&m.ring[TX], 1, BUFFERS + 5, NET_HEADER - 5 + frames[i].len, 0, 0);
		ring_offer(&m.ring[TX], 3);
		device_ring(m.d);
		assert_int_equal(ring_wait(&m.ring[TX], &len), 3);
		assert_int_equal(len, 0);
		sent += frames[i].sent;
		assert_int_equal(fake.sent, sent);
		if (frames[i].sent)
			assert_int_equal(fake.last, frames[i].len);
	}
	/* An offload that was not offered. */
	for (uint32_t k = 0; k < 60; k++)
		m.p.ram[BUFFERS + NET_HEADER + k] = pattern(k, 60);
	m.p.ram[BUFFERS] = 1;
	ring_desc(&m.ring[TX], 1, BUFFERS + 5, NET_HEADER - 5 + 60, 0, 0);
	ring_offer(&m.ring[TX], 3);
	device_ring(m.d);
	ring_wait(&m.ring[TX], NULL);
	assert_int_equal(fake.sent, sent);
	assert_int_equal(fake.bad, 0);
	machine_end(&m);
}

#define F_CSUM (UINT64_C(1) << 0)
#define F_HOST_TSO4 (UINT64_C(1) << 11)

/* What goes out of frames whose header asks for something: the checksum where it says, and nothing that cannot be. */
static bool checked_send(void *link, uint8_t *frame, size_t len)
{
	(void)link;
	for (int i = 1; i <= NET_HEADER; i++)
		fake.bad += frame[-i] != 0;
	memcpy(m.p.ram + BUFFERS + 0x20000, frame, len);
	fake.last = len;
	fake.sent++;
	return true;
}

static void offer_header(uint8_t flags, uint8_t gso, uint16_t start, uint16_t offset, uint32_t len)
{
	const uint16_t header[] = { (uint16_t)(flags | gso << 8), 54, 1460, start, offset, 0 };

	memcpy(m.p.ram + BUFFERS, header, sizeof(header));
	ring_desc(&m.ring[TX], 0, BUFFERS, NET_HEADER + len, 0, 0);
	ring_offer(&m.ring[TX], 0);
	device_ring(m.d);
	ring_wait(&m.ring[TX], NULL);
}

static void test_net_offloads(void **state)
{
	static const struct {
		uint64_t features;
		uint8_t flags, gso;
		uint16_t start, offset;
		uint32_t len;
		bool sent;
	} frames[] = {
		{ F_CSUM, 0, 0, 0, 0, 60, true },
		{ F_CSUM, 1, 0, 34, 16, 60, true },
		{ F_CSUM, 1, 0, 14, 44, 60, true },
		{ F_CSUM, 1, 0, 58, 0, 60, true },
		{ F_CSUM, 1, 0, 34, 16, 1513, true },
		{ F_CSUM, 1, 0, 34, 16, NET_FRAME_MAX, true },
		{ F_CSUM, 1, 0, 13, 16, 60, false },
		{ F_CSUM, 1, 0, 0, 0, 60, false },
		{ F_CSUM, 1, 0, 34, 25, 60, false },
		{ F_CSUM, 1, 0, 59, 0, 60, false },
		{ F_CSUM, 1, 0, 60, 0, 60, false },
		{ F_CSUM, 1, 0, 61, 0, 60, false },
		{ F_CSUM, 1, 0, 65535, 65535, NET_FRAME_MAX, false },
		{ F_CSUM, 1, 0, 34, 65535, 60, false },
		{ F_CSUM, 2, 0, 34, 16, 60, false },
		{ F_CSUM, 3, 0, 34, 16, 60, false },
		{ F_CSUM, 1, 1, 34, 16, 60, false },
		{ F_CSUM | F_HOST_TSO4, 1, 1, 34, 16, 1400, true },
		{ F_CSUM | F_HOST_TSO4, 1, 1, 34, 16, NET_FRAME_MAX, true },
		{ F_CSUM | F_HOST_TSO4, 1, 1, 34, 16, NET_FRAME_MAX + 1, false },
		{ F_CSUM | F_HOST_TSO4, 0, 1, 34, 16, 1400, false },
		{ F_CSUM | F_HOST_TSO4, 1, 3, 34, 16, 1400, false },
		{ F_CSUM | F_HOST_TSO4, 1, 4, 34, 16, 1400, false },
		{ F_CSUM | F_HOST_TSO4, 1, 0x81, 34, 16, 1400, false },
		{ F_HOST_TSO4, 1, 1, 34, 16, 1400, false },
		{ 0, 1, 0, 34, 16, 60, false },
	};
	const size_t n = sizeof(frames) / sizeof(frames[0]);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		uint8_t *frame = m.p.ram + BUFFERS + NET_HEADER, *got;
		unsigned int sent;
		uint32_t sum = 0;

		if (!i || frames[i].features != frames[i - 1].features) {
			if (i)
				machine_end(&m);
			fake_link.send = checked_send;
			fake_link.uncut = true;
			make_fake();
			machine_go(&m, frames[i].features);
		}
		got = m.p.ram + BUFFERS + 0x20000;
		frame = m.p.ram + BUFFERS + NET_HEADER;
		for (uint32_t k = 0; k < frames[i].len; k++)
			frame[k] = pattern(k, frames[i].len);
		sent = fake.sent;
		offer_header(frames[i].flags, frames[i].gso, frames[i].start, frames[i].offset, frames[i].len);
		if (fake.sent - sent != frames[i].sent)
			fail_msg("frame %zu: sent %u times", i, fake.sent - sent);
		if (!frames[i].sent)
			continue;
		assert_int_equal(fake.last, frames[i].len);
		/* All there is from `start` on, with what was in the place of the sum, makes up the sum. */
		for (uint32_t k = frames[i].flags ? frames[i].start : UINT32_MAX; k < frames[i].len; k++)
			sum += (k - frames[i].start) % 2 ? frame[k] : (uint32_t)frame[k] << 8;
		while (sum >> 16)
			sum = (sum & 0xffff) + (sum >> 16);
		if (frames[i].flags) {
			const uint32_t at = (uint32_t)frames[i].start + frames[i].offset;

			assert_int_equal(got[at] << 8 | got[at + 1], ~sum & 0xffff);
			memcpy(got + at, frame + at, 2);
		}
		assert_memory_equal(got, frame, frames[i].len);
	}
	machine_end(&m);
	assert_int_equal(fake.bad, 0);
	/* A link of which no such thing is known offers none. */
	fake_link.uncut = false;
	make_fake();
	assert_int_equal(m.d->features[0] & (F_CSUM | F_HOST_TSO4), 0);
	machine_end(&m);
	fake_link.send = fake_send;
}

/* Buffers to receive into that a driver may not offer. */
static void test_net_bad_buffers(void **state)
{
	uint64_t value;

	(void)state;
	for (int bad = 0; bad < 2; bad++) {
		make_fake();
		machine_go(&m, 0);
		ring_desc(&m.ring[RX], 0, BUFFERS, bad ? NET_HEADER - 1 : 100, bad ? D_WRITE : 0, 0);
		ring_offer(&m.ring[RX], 0);
		give(60);
		device_ring(m.d);
		WAIT_FOR(STATUS(&m, KEEL_DEVICE_STATUS_READ, &value) == KEEL_OK && value & KEEL_DEVICE_NEEDS_RESET);
		machine_reset(&m);
		machine_end(&m);
	}
}

/* The user-mode network */

static void send_frame(const void *frame, uint32_t len)
{
	memset(m.p.ram + BUFFERS, 0, NET_HEADER);
	memcpy(m.p.ram + BUFFERS + NET_HEADER, frame, len);
	ring_desc(&m.ring[TX], 0, BUFFERS, NET_HEADER + len, 0, 0);
	ring_offer(&m.ring[TX], 0);
	device_ring(m.d);
	ring_wait(&m.ring[TX], NULL);
}

static void offer_all(void)
{
	for (uint16_t i = 0; i < 8; i++) {
		ring_desc(&m.ring[RX], i, BUFFERS + 0x1000 + i * 0x1000, 2048, D_WRITE, 0);
		ring_offer(&m.ring[RX], i);
	}
	device_ring(m.d);
}

/* The next frame for us with this EtherType and, of IPv4, this protocol. */
static const uint8_t *receive_frame(uint16_t type, uint8_t protocol, uint32_t *len)
{
	for (;;) {
		const uint16_t head = ring_wait(&m.ring[RX], len);
		const uint8_t *frame = m.p.ram + BUFFERS + 0x1000 + head * 0x1000 + NET_HEADER;

		*len -= NET_HEADER;
		ring_offer(&m.ring[RX], head);
		if ((frame[12] << 8 | frame[13]) == type && (type != 0x0800 || frame[23] == protocol))
			return frame;
	}
}

static void put16(uint8_t *at, unsigned int v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static void ip_checksum(uint8_t *ip)
{
	uint32_t sum = 0;

	put16(ip + 10, 0);
	for (int i = 0; i < 20; i += 2)
		sum += (uint32_t)ip[i] << 8 | ip[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	put16(ip + 10, ~sum & 0xffff);
}

/* A UDP datagram from 10.0.2.15:sport, without a checksum. */
static uint32_t udp_frame(uint8_t *f, uint32_t to, uint16_t sport, uint16_t dport, const void *data, uint16_t len)
{
	static const uint8_t ip[] = { 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 2, 15 };

	memcpy(f, router_mac, 6);
	memcpy(f + 6, guest_mac, 6);
	put16(f + 12, 0x0800);
	memcpy(f + 14, ip, sizeof(ip));
	put16(f + 16, 28u + len);
	put16(f + 30, to >> 16);
	put16(f + 32, to & 0xffff);
	ip_checksum(f + 14);
	put16(f + 34, sport);
	put16(f + 36, dport);
	put16(f + 38, 8u + len);
	put16(f + 40, 0);
	memcpy(f + 42, data, len);
	return 42u + len;
}

static const uint8_t arp_request[42] = {
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x4b, 0x45, 0x45, 0x4c, 0,	0x08, 0x06, /* who has */
	0,    1,    8,	  0,	6,    4,    0,	  1,	0x02, 0x4b, 0x45, 0x45, 0x4c, 0,
	10,   0,    2,	  15,	0,    0,    0,	  0,	0,    0,    10,	  0,	2,    2,
};

static int local_socket(uint16_t *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(a);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, size), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &size), 0);
	*port = ntohs(a.sin_port);
	return fd;
}

/* The router answers, a datagram reaches this process and back, and one reaches the guest by a forwarded port. */
static void test_net_user(void **state)
{
	struct sockaddr_in from, fwd = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(from);
	uint8_t frame[1514], text[64];
	char spec[80];
	uint16_t port, forwarded;
	const uint8_t *got;
	uint32_t len;
	int fd, other;

	(void)state;
	other = local_socket(&forwarded);
	close(other);
	snprintf(spec, sizeof(spec), "user,hostfwd=udp:127.0.0.1:%u-:7", forwarded);
	machine_make(&m, &device_net, spec);
	ring_make(&m, RX, 8);
	ring_make(&m, TX, 8);
	machine_go(&m, 0);
	offer_all();
	send_frame(arp_request, sizeof(arp_request));
	got = receive_frame(0x0806, 0, &len);
	assert_int_equal(got[21], 2); /* a reply */
	assert_memory_equal(got + 22, router_mac, 6);
	fd = local_socket(&port);
	send_frame(frame, udp_frame(frame, 0x0a000202, 4000, port, "ping", 4));
	assert_int_equal(recvfrom(fd, text, sizeof(text), 0, (struct sockaddr *)&from, &size), 4);
	assert_memory_equal(text, "ping", 4);
	assert_int_equal(sendto(fd, "pong!", 5, 0, (struct sockaddr *)&from, size), 5);
	got = receive_frame(0x0800, 17, &len);
	assert_true(len >= 47);
	assert_memory_equal(got, guest_mac, 6);
	assert_int_equal(got[36] << 8 | got[37], 4000);
	assert_memory_equal(got + 42, "pong!", 5);
	fwd.sin_port = htons(forwarded);
	assert_int_equal(sendto(fd, "knock", 5, 0, (struct sockaddr *)&fwd, sizeof(fwd)), 5);
	got = receive_frame(0x0800, 17, &len);
	assert_int_equal(got[36] << 8 | got[37], 7);
	assert_memory_equal(got + 42, "knock", 5);
	/* A second life of the driver has the same network. */
	machine_reset(&m);
	ring_make(&m, RX, 8);
	ring_make(&m, TX, 8);
	machine_go(&m, 0);
	offer_all();
	send_frame(arp_request, sizeof(arp_request));
	receive_frame(0x0806, 0, &len);
	assert_int_equal(sendto(fd, "again", 5, 0, (struct sockaddr *)&fwd, sizeof(fwd)), 5);
	got = receive_frame(0x0800, 17, &len);
	assert_memory_equal(got + 42, "again", 5);
	close(fd);
	machine_end(&m);
}

/* A segment of TCP from 10.0.2.15 with its checksums left out, IP's but for the pseudo-header's part of TCP's. */
static uint32_t tcp_frame(uint8_t *f, uint16_t dport, uint32_t seq, uint32_t ack, uint8_t flags, uint32_t data)
{
	static const uint8_t ip[] = { 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2 };
	uint32_t sum = 0x0a00 + 0x020f + 0x0a00 + 0x0202 + 6 + 20 + data;

	memcpy(f, router_mac, 6);
	memcpy(f + 6, guest_mac, 6);
	put16(f + 12, 0x0800);
	memcpy(f + 14, ip, sizeof(ip));
	put16(f + 16, 40 + data);
	ip_checksum(f + 14);
	put16(f + 34, 4000);
	put16(f + 36, dport);
	put16(f + 38, seq >> 16);
	put16(f + 40, seq & 0xffff);
	put16(f + 42, ack >> 16);
	put16(f + 44, ack & 0xffff);
	put16(f + 46, 0x5000u | flags);
	put16(f + 48, 60000);
	put16(f + 50, (sum & 0xffff) + (sum >> 16));
	put16(f + 52, 0);
	return 54 + data;
}

static void send_tcp(uint16_t dport, uint32_t seq, uint32_t ack, uint8_t flags, uint32_t data)
{
	offer_header(1, data ? 1 : 0, 34, 16, tcp_frame(m.p.ram + BUFFERS + NET_HEADER, dport, seq, ack, flags, data));
}

/* A segment that is much longer than the MTU arrives whole. */
static void test_net_user_long_segment(void **state)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct timeval patience = { .tv_sec = 5 };
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd;
	const uint32_t bytes = 40000;
	static uint8_t got_bytes[65536];
	socklen_t size = sizeof(a);
	const uint8_t *got;
	uint32_t len, seq;

	(void)state;
	assert_int_equal(bind(listener, (struct sockaddr *)&a, size), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &size), 0);
	machine_make(&m, &device_net, "user");
	ring_make(&m, RX, 8);
	ring_make(&m, TX, 8);
	machine_go(&m, F_CSUM | F_HOST_TSO4);
	/* Behind the long frame. */
	for (uint16_t i = 0; i < 8; i++) {
		ring_desc(&m.ring[RX], i, BUFFERS + 0x20000 + i * 0x1000, 2048, D_WRITE, 0);
		ring_offer(&m.ring[RX], i);
	}
	send_frame(arp_request, sizeof(arp_request));
	send_tcp(ntohs(a.sin_port), 1000, 0, 0x02, 0);
	do {
		const uint16_t head = ring_wait(&m.ring[RX], &len);

		got = m.p.ram + BUFFERS + 0x20000 + head * 0x1000 + NET_HEADER;
		ring_offer(&m.ring[RX], head);
	} while (got[13] != 0 || got[23] != 6);
	assert_int_equal(got[47], 0x12); /* SYN, ACK */
	seq = (uint32_t)got[38] << 24 | (uint32_t)got[39] << 16 | (uint32_t)got[40] << 8 | got[41];
	for (uint32_t i = 0; i < bytes; i++)
		m.p.ram[BUFFERS + NET_HEADER + 54 + i] = pattern(i, bytes);
	send_tcp(ntohs(a.sin_port), 1001, seq + 1, 0x18, bytes);
	fd = accept(listener, NULL, NULL);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	assert_int_equal(recv(fd, got_bytes, bytes, MSG_WAITALL), bytes);
	for (uint32_t i = 0; i < bytes; i++)
		if (got_bytes[i] != pattern(i, bytes))
			fail_msg("byte %u", i);
	close(fd);
	close(listener);
	machine_end(&m);
}

const struct CMUnitTest net_tests[] = {
	cmocka_unit_test(test_net_spec),
	cmocka_unit_test(test_net_receive),
	cmocka_unit_test(test_net_receive_merged),
	cmocka_unit_test(test_net_backlog),
	cmocka_unit_test(test_net_send),
	cmocka_unit_test(test_net_bad_buffers),
	cmocka_unit_test(test_net_user),
	cmocka_unit_test(test_net_offloads),
	cmocka_unit_test(test_net_user_long_segment),
};
DEFINE_TESTS(net);
