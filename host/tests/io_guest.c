// SPDX-License-Identifier: MIT
/*
 * What io_test.py asks of a guest with devices, one mode per run:
 *
 *	log [sync]		numbered records to the disk for ever; "ack N" when all up to N are
 *				on it for good: flushed, or, with "sync", written by a driver without flushes
 *	read n=N [depth=D] [each]
 *				N random reads of 4 KiB, D of them under way; "done NS". They are queued
 *				and taken back in as large groups as there are, or, with "each", one by one
 *	flush n=N		N times a write and a flush of it; "done NS"
 *	mixed			reads, writes and flushes, for ever
 *	life n=N		counts its lives on the disk, restarts, until there were N
 *	ping n=N		N pings to the gateway, one after the other; "done NS"
 *	tx n=N			N frames of many kinds, as fast as they go; "done NS"
 *	rx			takes what comes in after it was told to; "got N"
 *	idle
 *
 * Before it begins, and before it ends, it says "ready" and waits for a line of input: what is
 * measured lies between. log and mixed wait for nothing.
 */
#include <hypercall/blk.h>

#include "../../samples/wire.h"

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(CONSOLE) | KEEL_NEEDS(TRAP) | KEEL_NEEDS(EVENT) | KEEL_NEEDS(VCPU) |
			 KEEL_NEEDS(TIME) | KEEL_NEEDS(DEVICE),
		 0, 0, KEEL_U64(1) << KEEL_F1_CLOCK_PAGE);

#define SECTOR KEEL_BLK_SECTOR
#define DEPTH 64
#define BLOCK 4096
#define BURST 8 /* records between two flushes, at most */
#define MAGIC KEEL_U64(0x64726f6365722121)
#define MIX KEEL_U64(0x9e3779b97f4a7c15)
#define SECOND KEEL_U64(1000000000)
#define F_RO KEEL_U64(0x20)

static struct keel_blk disk;
static struct keel_net net;
static struct keel_blk_req req[DEPTH];
static keel_u8 data[DEPTH][BLOCK] __attribute__((aligned(BLOCK)));
static struct frame in, out;
static keel_u32 port;
static keel_u64 count;

static void must(keel_s64 status, const char *what)
{
	keel_must_((struct keel_ret){ status, 0 }, what);
}

static void on_input(void *arg, keel_u32 bit)
{
	(void)arg;
	(void)bit;
}

static void await_line(void)
{
	bool irq = keel_irq_save();
	char c = 0;

	keel_puts("ready");
	while (c != '\n') {
		if (keel_read(&c, 1))
			continue;
		keel_vcpu_wait(KEEL_TIME_NEVER);
		keel_irq_enable();
		keel_irq_disable();
	}
	keel_irq_restore(irq);
}

static keel_u64 rnd(void)
{
	static keel_u64 x = MIX;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static keel_u64 number(const char *cmdline, const char *name, keel_u64 otherwise)
{
	char text[16];
	keel_u64 n = 0;

	if (keel_cmdline_get(cmdline, name, text, sizeof(text)) <= 0)
		return otherwise;
	for (const char *s = text; *s >= '0' && *s <= '9'; s++)
		n = n * 10 + (keel_u64)(*s - '0');
	return n;
}

/* The disk */

/* As keel_blk_init() does it, but without flushes: the device has to sync. */
static void init_without_flushes(void)
{
	struct keel_virtq_memory mem = keel_dev_queue_memory(&disk.mem);

	disk.done_end = &disk.done;
	must(keel_dev_find(&disk.dev, KEEL_VIRTIO_BLOCK, 0), "find");
	must(keel_dev_negotiate(&disk.dev, F_RO), "negotiate");
	must(keel_dev_config(&disk.dev, 0, &disk.sectors, sizeof(disk.sectors)), "config");
	must(keel_dev_queue(&disk.dev, &disk.queue, 0, keel_dev_entries(&disk.dev, KEEL_BLK_ENTRIES), &mem, port),
	     "queue");
	keel_virtq_disable(&disk.queue.vq);
	must(keel_dev_ready(&disk.dev), "ready");
}

static void submit(unsigned int i, enum keel_blk_op op, keel_u64 sector, keel_u32 len)
{
	must(keel_blk_submit(&disk, &req[i], op, sector, keel_gpa_of(data[i]), len), "submit");
}

/* Wait for one of those under way. */
static unsigned int reap(void)
{
	struct keel_blk_req *r;

	while (!(r = keel_blk_poll(&disk)))
		must(keel_blk_wait(&disk, KEEL_TIME_NEVER), "wait");
	must(r->result, "request");
	return (unsigned int)(r - req);
}

/* Sector seq % sectors: magic, seq, then words that depend on it. */
static void make_record(keel_u8 *at, keel_u64 seq)
{
	keel_u64 *w = (keel_u64 *)at;

	w[0] = MAGIC;
	w[1] = seq;
	for (unsigned int i = 2; i < SECTOR / 8; i++)
		w[i] = (seq + i) * MIX;
}

static void write_log(void)
{
	for (keel_u64 seq = 0;;) {
		const unsigned int n = 1 + (unsigned int)(rnd() % BURST);

		for (unsigned int i = 0; i < n; i++) {
			seq++;
			make_record(data[i], seq);
			submit(i, KEEL_BLK_WRITE, seq % disk.sectors, SECTOR);
		}
		must(keel_blk_kick(&disk), "kick");
		for (unsigned int i = 0; i < n; i++)
			reap();
		must(keel_blk_flush(&disk), "flush");
		keel_printf("ack %lu\n", (unsigned long)seq);
	}
}

/* `total` requests, `depth` of them under way; 0 = for ever. `each`: told of and asked for one by one. */
static void load(keel_u64 total, unsigned int depth, bool mixed, bool each)
{
	const keel_u64 blocks = disk.sectors / (BLOCK / SECTOR);
	unsigned int freed[DEPTH], n = depth, busy = 0;
	keel_u64 asked = 0;

	for (unsigned int i = 0; i < depth; i++)
		freed[i] = i;
	do {
		for (; n && (!total || asked < total); asked++, busy++) {
			const unsigned int i = freed[--n];
			const keel_u64 kind = mixed ? rnd() % 16 : 15;

			if (!kind)
				submit(i, KEEL_BLK_FLUSH, 0, 0);
			else
				submit(i, kind < 8 ? KEEL_BLK_WRITE : KEEL_BLK_READ, rnd() % blocks * (BLOCK / SECTOR),
				       BLOCK);
			if (each)
				must(keel_blk_kick(&disk), "kick");
		}
		must(keel_blk_kick(&disk), "kick");
		freed[n++] = reap();
		busy--;
		for (struct keel_blk_req *r; !each && (r = keel_blk_poll(&disk)); busy--) {
			must(r->result, "request");
			freed[n++] = (unsigned int)(r - req);
		}
	} while (busy || !total || asked < total);
}

static int live(keel_u64 lives)
{
	keel_u64 *counter = (keel_u64 *)data[0], now;

	must(keel_blk_read(&disk, 0, keel_gpa_of(counter), SECTOR), "read");
	now = ++*counter;
	must(keel_blk_write(&disk, 0, keel_gpa_of(counter), SECTOR), "write");
	must(keel_blk_flush(&disk), "flush");
	load(200, 16, false, false);
	keel_printf("life %lu\n", (unsigned long)now);
	await_line();
	if (now < lives)
		keel_restart(0);
	return 0;
}

/* The network */

#define GATEWAY be32(0x0a000202)
#define ADDRESS be32(0x0a00020f)

static keel_u8 gateway[6];

static void send(keel_u32 len)
{
	keel_s64 status;

	while (KEEL_STATUS_CODE(status = keel_net_send(&net, &out, len < 60 ? 60 : len)) == KEEL_E_AGAIN)
		keel_vcpu_yield(KEEL_VCPU_ANY);
	must(status, "send");
}

static void ethernet(keel_u16 type)
{
	keel_memcpy(out.to, gateway, 6);
	keel_memcpy(out.from, net.mac, 6);
	out.type = be16(type);
}

static keel_u32 receive(void)
{
	int len;

	while (!(len = keel_net_recv(&net, &in, sizeof(in))))
		must(keel_net_wait(&net, keel_time() + 5 * SECOND), "nothing came in");
	if (len < 0)
		keel_panic("the network failed");
	return (keel_u32)len;
}

static void arp(keel_u32 ip)
{
	keel_memset(&out, 0, 64);
	ethernet(0x806);
	keel_memset(out.to, 0xff, 6);
	out.arp.hardware = be16(1);
	out.arp.protocol = be16(0x800);
	out.arp.hardware_len = 6;
	out.arp.protocol_len = 4;
	out.arp.op = be16(1);
	keel_memcpy(out.arp.from_mac, net.mac, 6);
	out.arp.from_ip = ADDRESS;
	out.arp.to_ip = ip;
	send(ETH_BYTES + ARP_BYTES);
}

/* Who is the gateway? After that it knows us, too. */
static void find_gateway(void)
{
	arp(GATEWAY);
	do
		receive();
	while (in.type != be16(0x806) || in.arp.op != be16(2) || in.arp.from_ip != GATEWAY);
	keel_memcpy(gateway, in.arp.from_mac, 6);
}

static void ip(keel_u8 proto, keel_u32 len)
{
	ethernet(0x800);
	out.ip.version_len = 0x45;
	out.ip.tos = 0;
	out.ip.len = be16((keel_u16)(IP_BYTES + len));
	out.ip.id = 0;
	out.ip.fragment = be16(0x4000);
	out.ip.ttl = 64;
	out.ip.proto = proto;
	out.ip.sum = 0;
	out.ip.from = ADDRESS;
	out.ip.to = GATEWAY;
	out.ip.sum = fold(sum(0, &out.ip, IP_BYTES));
	send(ETH_BYTES + IP_BYTES + len);
}

static void ping(keel_u64 n)
{
	keel_u8 *echo = (keel_u8 *)&out.ip.icmp;

	keel_memset(echo, 0, 56);
	echo[0] = 8;
	echo[6] = (keel_u8)(n >> 8);
	echo[7] = (keel_u8)n;
	out.ip.icmp.sum = fold(sum(0, echo, 56));
	ip(PROTO_ICMP, 56);
}

static void pong(keel_u64 n)
{
	const keel_u8 *echo = (const keel_u8 *)&in.ip.icmp;

	do
		receive();
	while (in.type != be16(0x800) || in.ip.proto != PROTO_ICMP || echo[0] != 0 || echo[6] != (keel_u8)(n >> 8) ||
	       echo[7] != (keel_u8)n);
}

static void drain(void)
{
	int len;

	while ((len = keel_net_recv(&net, &in, sizeof(in))) > 0)
		count++;
	if (len < 0)
		keel_panic("the network failed");
}

/* Pings, datagrams from every port to a closed one, questions nobody answers, and noise. */
static void flood(keel_u64 n)
{
	for (keel_u64 i = 0; i < n; i++) {
		switch (i % 4) {
		case 0:
			ping(i);
			break;
		case 1:
			out.ip.tcp.from = be16((keel_u16)(1024 + i % 60000));
			out.ip.tcp.to = be16(9);
			out.ip.tcp.seq = be32(16u << 16); /* length, and no checksum */
			ip(17, 16);
			break;
		case 2:
			arp(be32(0x0a000203 + (keel_u32)(i / 4 % 200)));
			break;
		default:
			for (unsigned int at = 0; at < 1500; at += 8)
				*(keel_u64 *)((keel_u8 *)&out + at) = rnd();
			ethernet(i % 8 == 3 ? 0x800 : (keel_u16)rnd());
			send(60 + (keel_u32)(rnd() % 1400));
		}
		drain();
	}
}

/* What came in until `quiet` ns went by without anything. */
static void take(keel_u64 quiet)
{
	keel_s64 status;

	do {
		drain();
		status = keel_net_wait(&net, keel_time() + quiet);
	} while (!status);
	if (KEEL_STATUS_CODE(status) != KEEL_E_TIMEDOUT)
		must(status, "wait");
}

static bool is(const char *cmdline, const char *word)
{
	return keel_cmdline_get(cmdline, word, NULL, 0) >= 0;
}

/* Repeated for each line of input, so that what one measures another has warmed up. */
static void measured(const char *cmdline)
{
	const keel_u64 n = number(cmdline, "n", 1000);
	keel_u64 since;

	for (unsigned int i = 0; i < number(cmdline, "times", 1); i++) {
		await_line();
		since = keel_time();
		if (is(cmdline, "read"))
			load(n, (unsigned int)number(cmdline, "depth", 32), false, is(cmdline, "each"));
		for (keel_u64 k = 0; is(cmdline, "ping") && k < n; k++) {
			ping(k);
			pong(k);
		}
		for (keel_u64 k = 0; is(cmdline, "flush") && k < n; k++) {
			must(keel_blk_write(&disk, k % disk.sectors, keel_gpa_of(data[0]), SECTOR), "write");
			must(keel_blk_flush(&disk), "flush");
		}
		if (is(cmdline, "tx"))
			flood(n);
		if (is(cmdline, "rx"))
			take(SECOND / 5);
		keel_printf("done %lu got %lu\n", (unsigned long)(keel_time() - since), (unsigned long)count);
	}
	await_line();
}

int keel_main(const struct keel_start *start)
{
	const char *cmdline = keel_start_cmdline(start);

	must(keel_console_init(), "console_init");
	must(keel_event_init(), "event_init");
	must(keel_console_on_input(on_input, NULL), "console_on_input");
	must(keel_dev_port(3, NULL, NULL, &port), "event_alloc");
	if (is(cmdline, "ping") || is(cmdline, "tx") || is(cmdline, "rx")) {
		must(keel_net_init(&net, 0, port), "the network");
		find_gateway();
	} else if (is(cmdline, "sync")) {
		init_without_flushes();
	} else if (!is(cmdline, "idle")) {
		must(keel_blk_init(&disk, 0, port), "the disk");
	}
	if (is(cmdline, "log"))
		write_log();
	if (is(cmdline, "mixed")) {
		keel_puts("ready");
		load(0, DEPTH, true, false);
	}
	if (is(cmdline, "life"))
		return live(number(cmdline, "n", 2));
	measured(cmdline);
	return 0;
}
