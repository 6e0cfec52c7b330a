// SPDX-License-Identifier: MIT
/*
 * The guest of devices_test.py: does what the first word of its command line says, to
 * the first network and console. An IPv4 host at 10.0.2.15 that is just enough of one.
 */
#include <hypercall/net.h>
#include <hypercall/vconsole.h>

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(CONSOLE) | KEEL_NEEDS(TRAP) | KEEL_NEEDS(EVENT) | KEEL_NEEDS(VCPU) |
			 KEEL_NEEDS(TIME) | KEEL_NEEDS(DEVICE),
		 0, 0, KEEL_U64(1) << KEEL_F1_CLOCK_PAGE);

#define SECOND KEEL_U64(1000000000)
#define ETHERNET 14
#define IP 20
#define UDP 8
#define TCP 20
#define GUEST 0x0a00020fu
#define ROUTER 0x0a000202u
#define RESOLVER 0x0a000203u

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

static struct keel_net net;
static keel_u8 out[KEEL_NET_FRAME], in[KEEL_NET_FRAME];

static void must(keel_s64 status, const char *what)
{
	keel_must_((struct keel_ret){ status, 0 }, what);
}

static void put16(keel_u8 *at, keel_u32 v)
{
	at[0] = (keel_u8)(v >> 8);
	at[1] = (keel_u8)v;
}

static void put32(keel_u8 *at, keel_u32 v)
{
	put16(at, v >> 16);
	put16(at + 2, v);
}

static keel_u32 get16(const keel_u8 *at)
{
	return (keel_u32)at[0] << 8 | at[1];
}

static keel_u32 get32(const keel_u8 *at)
{
	return get16(at) << 16 | get16(at + 2);
}

static keel_u32 sum(keel_u32 sum, const keel_u8 *at, keel_u32 len)
{
	for (keel_u32 i = 0; i < len; i++)
		sum += i & 1 ? at[i] : (keel_u32)at[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static void send(keel_u32 len)
{
	keel_s64 status;

	do
		status = keel_net_send(&net, out, len);
	while (KEEL_STATUS_CODE(status) == KEEL_E_AGAIN);
	must(status, "send");
}

/* Ethernet and IPv4 headers of out[]; returns where what follows goes. */
static keel_u8 *header(keel_u32 from, keel_u32 to, keel_u8 protocol, keel_u32 len)
{
	static const keel_u8 router[6] = { 0x52, 0x55, 10, 0, 2, 2 };
	keel_u8 *ip = out + ETHERNET;

	__builtin_memcpy(out, router, 6);
	__builtin_memcpy(out + 6, net.mac, 6);
	put16(out + 12, 0x0800);
	__builtin_memset(ip, 0, IP);
	ip[0] = 0x45;
	put16(ip + 2, IP + len);
	ip[8] = 64;
	ip[9] = protocol;
	put32(ip + 12, from);
	put32(ip + 16, to);
	put16(ip + 10, ~sum(0, ip, IP));
	return ip + IP;
}

static void send_udp(keel_u32 to, keel_u32 sport, keel_u32 dport, const void *data, keel_u32 len)
{
	keel_u8 *udp = header(GUEST, to, 17, UDP + len);

	put16(udp, sport);
	put16(udp + 2, dport);
	put16(udp + 4, UDP + len);
	put16(udp + 6, 0);
	__builtin_memcpy(udp + UDP, data, len);
	send(ETHERNET + IP + UDP + len);
}

/* A frame to us of this IPv4 protocol and port, before the deadline; 0 = none. Answers who asks for our address. */
static keel_u32 receive(keel_u8 protocol, keel_u32 port, keel_u64 deadline)
{
	for (;;) {
		int len = keel_net_recv(&net, in, sizeof(in));

		if (!len && KEEL_STATUS_CODE(keel_net_wait(&net, deadline)) == KEEL_E_TIMEDOUT)
			return 0;
		if (len < 0)
			keel_panic("the network failed");
		if (len >= 42 && get16(in + 12) == 0x0806 && get16(in + 20) == 1 && get32(in + 38) == GUEST) {
			__builtin_memcpy(out, in + 6, 6);
			__builtin_memcpy(out + 6, net.mac, 6);
			__builtin_memcpy(out + 12, in + 12, 8);
			put16(out + 20, 2);
			__builtin_memcpy(out + 22, net.mac, 6);
			put32(out + 28, GUEST);
			__builtin_memcpy(out + 32, in + 22, 10);
			send(42);
		} else if (len >= ETHERNET + IP + UDP && get16(in + 12) == 0x0800 && in[23] == protocol &&
			   (protocol == 1 || get16(in + ETHERNET + IP + 2) == port)) {
			return (keel_u32)len;
		}
	}
}

/* Decimal, of the command line; `otherwise` when it is not there. */
static keel_u32 number(const char *cmdline, const char *name, keel_u32 otherwise)
{
	char text[12];
	keel_u32 n = 0;

	if (keel_cmdline_get(cmdline, name, text, sizeof(text)) <= 0)
		return otherwise;
	for (const char *at = text; *at >= '0' && *at <= '9'; at++)
		n = n * 10 + (keel_u32)(*at - '0');
	return n;
}

static void print(const keel_u8 *text, keel_u32 len)
{
	for (keel_u32 i = 0; i < len; i++)
		keel_printf("%c", text[i]);
}

static int do_udp(const char *cmdline)
{
	keel_u32 len;

	send_udp(ROUTER, 4000, number(cmdline, "port", 0), "ping", 4);
	len = receive(17, 4000, keel_time() + 10 * SECOND);
	if (!len)
		return 1;
	print(in + ETHERNET + IP + UDP, get16(in + ETHERNET + IP + 4) - UDP);
	return 0;
}

/* What the name server says of "."; any answer is one. */
static int do_dns(const char *cmdline)
{
	static const keel_u8 query[] = { 0x4b, 0x65, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1 };

	(void)cmdline;
	for (int i = 0; i < 3; i++) {
		send_udp(RESOLVER, 4001, 53, query, sizeof(query));
		if (receive(17, 4001, keel_time() + 2 * SECOND) && get16(in + ETHERNET + IP + UDP) == 0x4b65) {
			keel_puts("answered");
			return 0;
		}
	}
	return 1;
}

/* TCP without loss */

static struct {
	keel_u32 peer, sport, dport, seq, ack;
} conn;

static void send_tcp(keel_u32 flags, const void *data, keel_u32 len)
{
	keel_u8 *tcp = header(GUEST, conn.peer, 6, TCP + len);

	put16(tcp, conn.sport);
	put16(tcp + 2, conn.dport);
	put32(tcp + 4, conn.seq);
	put32(tcp + 8, conn.ack);
	tcp[12] = TCP / 4 << 4;
	tcp[13] = (keel_u8)flags;
	put16(tcp + 14, 60000);
	put32(tcp + 16, 0);
	__builtin_memcpy(tcp + TCP, data, len);
	put16(tcp + 16, ~sum(sum(6 + TCP + len, out + ETHERNET + 12, 8), tcp, TCP + len));
	send(ETHERNET + IP + TCP + len);
	conn.seq += len + !!(flags & (SYN | FIN));
}

/* The next segment in order, acknowledged; its flags, or 0 after seconds. Data is at *data. */
static keel_u32 receive_tcp(const keel_u8 **data, keel_u32 *len)
{
	const keel_u64 deadline = keel_time() + 10 * SECOND;
	const keel_u8 *tcp = in + ETHERNET + IP;
	keel_u32 flags;

	for (;;) {
		if (!receive(6, conn.sport, deadline))
			return 0;
		flags = tcp[13];
		*data = tcp + (tcp[12] >> 4) * 4;
		*len = get16(in + ETHERNET + 2) - IP - (tcp[12] >> 4) * 4u;
		if (flags & SYN) {
			conn.peer = get32(in + ETHERNET + 12);
			conn.dport = get16(tcp);
			conn.ack = get32(tcp + 4) + 1;
			return flags;
		}
		if (flags & RST)
			return flags;
		if (get32(tcp + 4) == conn.ack && (*len || flags & FIN)) {
			conn.ack += *len + !!(flags & FIN);
			send_tcp(ACK, NULL, 0);
			return flags;
		}
		if (!*len && flags == ACK && get32(tcp + 8) == conn.seq)
			return flags;
	}
}

static bool connect(keel_u32 to, keel_u32 sport, keel_u32 dport)
{
	const keel_u8 *data;
	keel_u32 len, flags;

	conn.peer = to;
	conn.sport = sport;
	conn.dport = dport;
	conn.seq = 1000;
	conn.ack = 0;
	send_tcp(SYN, NULL, 0);
	flags = receive_tcp(&data, &len);
	if (flags != (SYN | ACK))
		return false;
	send_tcp(ACK, NULL, 0);
	return true;
}

/* Say hello to a port of the host's, print what it says until it has no more. */
static int do_tcp(const char *cmdline)
{
	const keel_u8 *data;
	keel_u32 len, flags;

	if (!connect(ROUTER, 5000, number(cmdline, "port", 0)))
		return 1;
	send_tcp(PSH | ACK, "hello\n", 6);
	do {
		flags = receive_tcp(&data, &len);
		print(data, len);
	} while (flags && !(flags & (FIN | RST)));
	send_tcp(FIN | ACK, NULL, 0);
	return flags & FIN ? 0 : 2;
}

/* Somebody connects to our port 7: what he says comes back. */
static int do_serve(const char *cmdline)
{
	static keel_u8 copy[KEEL_NET_FRAME];
	const keel_u8 *data;
	keel_u32 len, flags;

	(void)cmdline;
	conn.sport = 7;
	conn.seq = 1000;
	keel_puts("ready");
	if (receive_tcp(&data, &len) != SYN)
		return 1;
	send_tcp(SYN | ACK, NULL, 0);
	do {
		flags = receive_tcp(&data, &len);
		__builtin_memcpy(copy, data, len);
		if (len)
			send_tcp(PSH | ACK, copy, len);
	} while (flags && !(flags & (FIN | RST)));
	send_tcp(FIN | ACK, NULL, 0);
	return flags & FIN ? 0 : 2;
}

/* Floods: each frame something that the network has to remember. */

static void flood_ports(keel_u32 n)
{
	send_udp(ROUTER, 1024 + n % 60000, 1 + n / 60000, "x", 1);
}

static void flood_syn(keel_u32 n)
{
	conn.peer = 0xc0000200 + n / 60000 % 256; /* 192.0.2.0/24 is nobody's */
	conn.sport = 1024 + n % 60000;
	conn.dport = 9;
	conn.seq = n;
	send_tcp(SYN, NULL, 0);
}

static void flood_fragments(keel_u32 n)
{
	keel_u8 *data = header(GUEST, ROUTER, 17, 1400), *ip = out + ETHERNET;

	__builtin_memset(data, 0, 1400);
	put16(ip + 4, n);
	put16(ip + 6, 0x2000); /* more follow */
	put16(ip + 10, 0);
	put16(ip + 10, ~sum(0, ip, IP));
	send(ETHERNET + IP + 1400);
}

/* Datagrams that expire at once, from addresses that nobody has: where to with the message? */
static void flood_strangers(keel_u32 n)
{
	keel_u8 *udp = header(0x0a000210 + n % 200, 0xc0000201, 17, UDP + 1000), *ip = out + ETHERNET;

	ip[8] = 1;
	put16(ip + 10, 0);
	put16(ip + 10, ~sum(0, ip, IP));
	__builtin_memset(udp, 0, UDP + 1000);
	put16(udp, 9);
	put16(udp + 2, 9);
	put16(udp + 4, UDP + 1000);
	send(ETHERNET + IP + UDP + 1000);
}

/* Every second byte of a window, in connections to a port of the host's that accepts. */
static void flood_segments(keel_u32 n, keel_u32 port)
{
	if (n % 30000 == 0 && !connect(ROUTER, 6000 + n / 30000, port))
		keel_panic("no connection");
	conn.seq += 2;
	send_tcp(ACK, "y", 1);
	conn.seq--;
}

static int do_flood(const char *cmdline)
{
	const keel_u32 frames = number(cmdline, "frames", 100000), port = number(cmdline, "port", 0);
	char kind[16];

	if (keel_cmdline_get(cmdline, "kind", kind, sizeof(kind)) <= 0)
		return 1;
	for (keel_u32 n = 0; n < frames; n++) {
		switch (kind[0]) {
		case 'p':
			flood_ports(n);
			break;
		case 'h':
			flood_syn(n);
			break;
		case 'f':
			flood_fragments(n);
			break;
		case 's':
			flood_strangers(n);
			break;
		case 'o':
			flood_segments(n, port);
			break;
		}
		while (keel_net_recv(&net, in, sizeof(in)) > 0)
			;
	}
	keel_puts("flooded");
	for (;;)
		keel_net_wait(&net, KEEL_TIME_NEVER);
}

/* Wait for nothing. */
static __attribute__((noreturn)) int do_idle(const char *cmdline)
{
	(void)cmdline;
	keel_puts("idle");
	for (;;)
		keel_net_wait(&net, KEEL_TIME_NEVER);
}

/* Write many lines to the second console; with "ask", then read one and say it back. */
static int do_console(const char *cmdline)
{
	static struct keel_vconsole console;
	const keel_u32 lines = number(cmdline, "lines", 1);
	char text[64];
	keel_u32 port, n = 0;
	int got;

	must(keel_dev_port(3, NULL, NULL, &port), "event_alloc");
	must(keel_vconsole_init(&console, 0, port), "the console");
	if (keel_cmdline_get(cmdline, "ask", NULL, 0) >= 0)
		while (keel_vconsole_read(&console, text, 1) == 0)
			must(keel_vconsole_wait(&console, KEEL_TIME_NEVER), "wait");
	for (keel_u32 i = 0; i < lines; i++) {
		text[0] = (char)('a' + i % 26);
		__builtin_memset(text + 1, text[0], 62);
		text[63] = '\n';
		must(keel_vconsole_write(&console, text, 64), "write");
	}
	keel_puts("written");
	if (keel_cmdline_get(cmdline, "ask", NULL, 0) < 0)
		return keel_dev_reset(&console.dev) ? 1 : 0;
	while (!n || text[n - 1] != '\n') {
		got = keel_vconsole_read(&console, text + n, (keel_u32)sizeof(text) - n);
		if (got < 0)
			return 1;
		n += (keel_u32)got;
		if (!got)
			must(keel_vconsole_wait(&console, KEEL_TIME_NEVER), "wait");
	}
	print((keel_u8 *)text, n);
	return 0;
}

static const struct {
	const char *name;
	int (*run)(const char *cmdline);
} jobs[] = {
	{ "udp", do_udp },     { "dns", do_dns },     { "tcp", do_tcp },
	{ "serve", do_serve }, { "flood", do_flood }, { "idle", do_idle },
};

int keel_main(const struct keel_start *start)
{
	const char *cmdline = keel_start_cmdline(start);
	keel_u32 port;

	must(keel_event_init(), "event_init");
	if (keel_cmdline_get(cmdline, "console", NULL, 0) >= 0)
		return do_console(cmdline);
	must(keel_dev_port(3, NULL, NULL, &port), "event_alloc");
	must(keel_net_init(&net, 0, port), "the network");
	for (unsigned int i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++)
		if (keel_cmdline_get(cmdline, jobs[i].name, NULL, 0) >= 0)
			return jobs[i].run(cmdline);
	return 99;
}
