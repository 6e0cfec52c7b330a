// SPDX-License-Identifier: MIT
/*
 * net - answers ARP and ping, and serves one web page, on the first network interface.
 *
 *	keel run --net user,hostfwd=tcp:127.0.0.1:8080-:80 build/samples/net.elf
 *	curl http://127.0.0.1:8080/
 *
 * On the command line "ip=A.B.C.D" gives it another address than 10.0.2.15, which is what
 * the user network forwards to, and "once" ends it when it has served one page.
 *
 * What it has of TCP is what one page takes: it listens on port 80 and has one connection
 * at a time; further SYNs are ignored, so their senders try again. One segment of at most 536
 * bytes is under way; it is sent again after 300 ms, then after twice as long each time, and
 * with the 6th failure the connection is forgotten. Segments are taken in order or not at all.
 * There are no options, no windows, no urgent data, no TIME-WAIT. IP fragments and IP options are
 * dropped. It answers to the station a frame came from, so it needs no routes, and never
 * speaks first, so it needs no ARP cache. It is no example of how to write a server.
 */
#include "wire.h"

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(CONSOLE) | KEEL_NEEDS(TRAP) | KEEL_NEEDS(EVENT) | KEEL_NEEDS(VCPU) |
			 KEEL_NEEDS(TIME) | KEEL_NEEDS(DEVICE),
		 0, 0, KEEL_U64(1) << KEEL_F1_CLOCK_PAGE);

#define MS KEEL_U64(1000000)
#define HTTP_PORT 80
#define SEGMENT 536
#define RETRY (300 * MS)
#define TRIES 6

static struct keel_net net;
static struct frame in, out;
static keel_u32 address; /* as on the wire */
static keel_u64 started;
static unsigned int served;

/* The connection. */
static struct {
	enum { NONE, SYN_RECEIVED, REQUEST, REPLY, CLOSING } state;
	keel_u8 mac[6];
	keel_u32 ip;
	keel_u16 port;
	keel_u32 first, acked, next; /* our sequence numbers: of the first byte, what is acknowledged, what is sent */
	keel_u32 wanted;	     /* the peer's next */
	bool peer_closed;
	keel_u64 again; /* when to send again what is not acknowledged */
	unsigned int tries;
	char request[1024], reply[2048];
	keel_u32 request_len, reply_len;
} tcp;

static void must(keel_s64 status, const char *what)
{
	keel_must_((struct keel_ret){ status, 0 }, what);
}

/* The `len` bytes in `out`, filled up to what Ethernet wants. */
static void send(keel_u32 len)
{
	keel_s64 status;

	for (; len < 60; len++)
		((keel_u8 *)&out)[len] = 0;
	status = keel_net_send(&net, &out, len);
	/* With no room now it is a lost frame, as there are others. */
	if (KEEL_STATUS_CODE(status) != KEEL_E_AGAIN)
		must(status, "send");
}

/* Ethernet and IP headers of what is in `out`, of len bytes behind them, and send it. */
static void send_ip(const keel_u8 *mac, keel_u32 ip, keel_u8 proto, keel_u32 len)
{
	keel_memcpy(out.to, mac, 6);
	keel_memcpy(out.from, net.mac, 6);
	out.type = be16(0x800);
	out.ip.version_len = 0x45;
	out.ip.tos = 0;
	out.ip.len = be16((keel_u16)(IP_BYTES + len));
	out.ip.id = 0; /* it is never split up: */
	out.ip.fragment = be16(0x4000);
	out.ip.ttl = 64;
	out.ip.proto = proto;
	out.ip.sum = 0;
	out.ip.from = address;
	out.ip.to = ip;
	out.ip.sum = fold(sum(0, &out.ip, IP_BYTES));
	if (proto == PROTO_TCP)
		out.ip.tcp.sum = tcp_sum(&out, len);
	send(ETH_BYTES + IP_BYTES + len);
}

static void on_arp(keel_u32 len)
{
	if (len < ARP_BYTES || in.arp.hardware != be16(1) || in.arp.protocol != be16(0x800) || in.arp.op != be16(1) ||
	    in.arp.to_ip != address)
		return;
	out = in;
	keel_memcpy(out.to, in.from, 6);
	keel_memcpy(out.from, net.mac, 6);
	out.arp.op = be16(2);
	keel_memcpy(out.arp.to_mac, in.arp.from_mac, 6);
	out.arp.to_ip = in.arp.from_ip;
	keel_memcpy(out.arp.from_mac, net.mac, 6);
	out.arp.from_ip = address;
	send(ETH_BYTES + ARP_BYTES);
}

static void on_ping(keel_u32 len)
{
	if (len < 8 || in.ip.icmp.type != 8 || in.ip.icmp.code || fold(sum(0, &in.ip.icmp, len)))
		return;
	keel_memcpy(&out.ip.icmp, &in.ip.icmp, len);
	out.ip.icmp.type = 0;
	out.ip.icmp.sum = 0;
	out.ip.icmp.sum = fold(sum(0, &out.ip.icmp, len));
	send_ip(in.from, in.ip.from, PROTO_ICMP, len);
}

static void send_tcp(keel_u32 seq, unsigned int flags, const char *data, keel_u32 len)
{
	out.ip.tcp.from = be16(HTTP_PORT);
	out.ip.tcp.to = tcp.port;
	out.ip.tcp.seq = be32(seq);
	out.ip.tcp.ack = be32(tcp.wanted);
	out.ip.tcp.len = TCP_BYTES / 4 << 4;
	out.ip.tcp.flags = (keel_u8)flags;
	out.ip.tcp.window = be16(sizeof(tcp.request));
	out.ip.tcp.sum = 0;
	out.ip.tcp.urgent = 0;
	keel_memcpy(out.ip.tcp.data, data, len);
	send_ip(tcp.mac, tcp.ip, PROTO_TCP, TCP_BYTES + len);
}

static void forget(void)
{
	tcp.state = NONE;
	tcp.again = KEEL_TIME_NEVER;
}

/* Send what is not acknowledged, for the first time or again. */
static void transmit(void)
{
	const keel_u32 at = tcp.acked - tcp.first, left = tcp.reply_len - at;
	const keel_u32 n = left < SEGMENT ? left : SEGMENT;

	tcp.again = keel_time() + (RETRY << tcp.tries);
	if (tcp.state == SYN_RECEIVED) {
		send_tcp(tcp.acked, SYN | ACK, "", 0);
	} else if (tcp.state == REPLY) {
		tcp.next = tcp.acked + n + (n == left); /* the FIN counts */
		send_tcp(tcp.acked, n == left ? ACK | PSH | FIN : ACK | PSH, tcp.reply + at, n);
	}
}

static void on_timer(void)
{
	/* In CLOSING nothing is sent: that long the peer has had for its FIN. */
	if (++tcp.tries < TRIES)
		transmit();
	else
		forget();
}

static void on_syn(void)
{
	keel_memcpy(tcp.mac, in.from, 6);
	tcp.ip = in.ip.from;
	tcp.port = in.ip.tcp.from;
	tcp.wanted = be32(in.ip.tcp.seq) + 1;
	/* The clock, as in RFC 9293; an attacker on the wire is beyond this sample. */
	tcp.acked = (keel_u32)(keel_time() / 4000);
	tcp.first = tcp.next = tcp.acked + 1;
	tcp.tries = tcp.request_len = tcp.reply_len = 0;
	tcp.peer_closed = false;
	tcp.state = SYN_RECEIVED;
	transmit();
}

static bool begins(const char *s, const char *with)
{
	while (*with && *s == *with) {
		s++;
		with++;
	}
	return !*with;
}

/* The request is complete: answer it. */
static void reply(void)
{
	const bool page = begins(tcp.request, "GET / ");
	const keel_u8 *ip = (const keel_u8 *)&tcp.ip;
	static char body[1500];
	size_t len = 0;

	if (page)
		len = (size_t)keel_snprintf(body, sizeof(body),
					    "<!DOCTYPE html>\n<title>Keel</title>\n<h1>Hello from a Keel guest</h1>\n"
					    "<p>Up for %lu ms, asked by %u.%u.%u.%u.\n<pre>\n",
					    (unsigned long)((keel_time() - started) / MS), ip[0], ip[1], ip[2], ip[3]);
	/* Enough that it takes several segments. */
	for (unsigned int i = 1; page && i <= 20; i++)
		len += (size_t)keel_snprintf(body + len, sizeof(body) - len, "%4u squared is %6u\n", i, i * i);
	body[len] = '\0';
	tcp.reply_len = (keel_u32)keel_snprintf(
		tcp.reply, sizeof(tcp.reply),
		"HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %u\r\nConnection: close\r\n\r\n%s",
		page ? "200 OK" : "404 Not Found", (unsigned int)len, body);
	keel_printf("%u.%u.%u.%u asks for %s\n", ip[0], ip[1], ip[2], ip[3], page ? "the page" : "something else");
	served += page;
	tcp.state = REPLY;
	tcp.tries = 0;
	transmit();
}

/* Take in what a segment of the connection acknowledges. */
static void on_ack(keel_u32 ack)
{
	if (ack - tcp.acked > tcp.next - tcp.acked || ack == tcp.acked)
		return;
	tcp.acked = ack;
	tcp.tries = 0;
	if (tcp.state == SYN_RECEIVED) {
		tcp.state = REQUEST;
	} else if (tcp.state == REPLY && ack - tcp.first <= tcp.reply_len) {
		transmit();
		return;
	} else if (tcp.state == REPLY) {
		tcp.state = CLOSING;
	}
	/* From here on it is the peer's turn, for as long as all tries take. */
	tcp.again = keel_time() + (RETRY << TRIES);
	tcp.tries = TRIES;
}

/* Data that comes next: it belongs to the request, up to its empty line. */
static void on_data(const char *data, keel_u32 len)
{
	if (tcp.state != REQUEST || !len)
		return;
	if (len >= sizeof(tcp.request) - tcp.request_len) {
		send_tcp(tcp.next, RST | ACK, "", 0);
		forget();
		return;
	}
	keel_memcpy(tcp.request + tcp.request_len, data, len);
	tcp.request_len += len;
	tcp.request[tcp.request_len] = '\0';
	for (const char *s = tcp.request; *s; s++) {
		if (begins(s, "\r\n\r\n")) {
			reply();
			return;
		}
	}
}

static void on_tcp(keel_u32 len)
{
	const keel_u32 head = in.ip.tcp.len >> 4 << 2, flags = in.ip.tcp.flags, data = len - head;

	if (len < TCP_BYTES || head < TCP_BYTES || head > len || in.ip.tcp.to != be16(HTTP_PORT) || tcp_sum(&in, len))
		return;
	if (tcp.state == NONE && (flags & (SYN | ACK | RST)) == SYN) {
		on_syn();
		return;
	}
	if (tcp.state == NONE || in.ip.from != tcp.ip || in.ip.tcp.from != tcp.port)
		return;
	if (flags & RST) {
		forget();
		return;
	}
	if (flags & SYN) { /* again: ours was lost, and is sent again by the timer */
		return;
	}
	if (flags & ACK)
		on_ack(be32(in.ip.tcp.ack));
	if (be32(in.ip.tcp.seq) == tcp.wanted && tcp.state != SYN_RECEIVED) {
		tcp.wanted += data;
		if (flags & FIN) {
			tcp.wanted++;
			tcp.peer_closed = true;
		}
		on_data(in.ip.tcp.data + head - TCP_BYTES, data);
	}
	/* What was sent in answer acknowledges; else, and when it was out of order, say what is wanted. */
	if (tcp.state != NONE && (data || flags & FIN))
		send_tcp(tcp.next, ACK, "", 0);
	if (tcp.peer_closed && (tcp.state == CLOSING || tcp.state == REQUEST))
		forget();
}

static void on_frame(keel_u32 len)
{
	const keel_u32 bytes = be16(in.ip.len);

	if (len >= ETH_BYTES && in.type == be16(0x806))
		on_arp(len - ETH_BYTES);
	if (len < ETH_BYTES + IP_BYTES || in.type != be16(0x800) || in.ip.version_len != 0x45 ||
	    in.ip.fragment & be16(0x3fff) || in.ip.to != address || bytes < IP_BYTES || bytes > len - ETH_BYTES ||
	    fold(sum(0, &in.ip, IP_BYTES)))
		return;
	if (in.ip.proto == PROTO_ICMP)
		on_ping(bytes - IP_BYTES);
	else if (in.ip.proto == PROTO_TCP)
		on_tcp(bytes - IP_BYTES);
}

/* "10.0.2.15" as it is on the wire; 0 when it is none. */
static keel_u32 parse_ip(const char *s)
{
	keel_u32 ip = 0, n, digits;

	for (int i = 0; i < 4; i++) {
		for (n = digits = 0; *s >= '0' && *s <= '9' && digits < 3; digits++)
			n = n * 10 + (keel_u32)(*s++ - '0');
		if (!digits || n > 255 || *s != (i < 3 ? '.' : '\0'))
			return 0;
		s++;
		ip = ip << 8 | n;
	}
	return be32(ip);
}

int keel_main(const struct keel_start *start)
{
	const char *cmdline = keel_start_cmdline(start);
	const bool once = keel_cmdline_get(cmdline, "once", NULL, 0) >= 0;
	char text[16] = "10.0.2.15";
	keel_s64 status;
	keel_u32 port;
	int len;

	keel_cmdline_get(cmdline, "ip", text, sizeof(text));
	address = parse_ip(text);
	started = keel_time();
	must(keel_event_init(), "event_init");
	must(keel_dev_port(3, NULL, NULL, &port), "event_alloc");
	status = keel_net_init(&net, 0, port);
	if (KEEL_STATUS_CODE(status) == KEEL_E_NOENT || !address) {
		keel_puts(address ? "There is no network; give me one with --net user." : "ip= is no address.");
		return 1;
	}
	must(status, "the network");
	forget();
	keel_printf("%s serves a page on port %u\n", text, HTTP_PORT);
	while (!once || !served || tcp.state != NONE) {
		status = keel_net_wait(&net, tcp.again);
		if (KEEL_STATUS_CODE(status) != KEEL_E_TIMEDOUT)
			must(status, "wait");
		if (keel_time() >= tcp.again)
			on_timer();
		while ((len = keel_net_recv(&net, &in, sizeof(in))) > 0)
			on_frame((keel_u32)len);
		if (len < 0)
			keel_panic("the network failed");
	}
	keel_puts("served");
	return 0;
}
