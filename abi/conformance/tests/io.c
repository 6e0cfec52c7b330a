// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* DEVICE: the transport, virtqueues and the devices behind them. The driver here does by hand what drivers must not. */
#include "kt_user.h"

#define MS KEEL_U64(1000000)
#define G0 (KT_SCRATCH_GPA + (2 << 20)) /* not in what kt_digest() looks at: devices write here */
#define DATA (G0 + 0x100000)
#define SIZE 16u /* entries, but where a test says otherwise */

/* virtio 5 and 6 */
#define T_NET 1
#define T_BLOCK 2
#define T_CONSOLE 3
#define T_RNG 4
#define F_BLK_RO 5
#define F_BLK_FLUSH 9
#define F_INDIRECT 28
#define F_EVENT_IDX 29
#define F_VERSION_1 32
#define BIT(n) (KEEL_U64(1) << (n))
#define PLAIN BIT(F_VERSION_1)

#define NEXT 1
#define WRITE 2
#define INDIRECT 4

#define ACKED (KEEL_DEVICE_ACKNOWLEDGE | KEEL_DEVICE_DRIVER)
#define READY (ACKED | KEEL_DEVICE_FEATURES_OK)
#define LIVE (READY | KEEL_DEVICE_DRIVER_OK)

struct desc {
	u64 addr;
	u32 len;
	u16 flags, next;
};
struct avail {
	u16 flags, idx, ring[];
};
struct used {
	u16 flags, idx;
	struct {
		u32 id, len;
	} ring[];
};

/* A queue of the driver's. */
struct queue {
	u64 gpa;
	u32 n, port, bell;
	u16 seen;
};
#define DESC(q) ((volatile struct desc *)kt_ram((q)->gpa))
#define AVAIL(q) ((volatile struct avail *)kt_ram((q)->gpa + 0x2000))
#define USED(q) ((volatile struct used *)kt_ram((q)->gpa + 0x3000))
#define USED_EVENT(q) (AVAIL(q)->ring[(q)->n])
#define AVAIL_EVENT(q) (*(volatile u16 *)kt_ram((q)->gpa + 0x3000 + 4 + 8 * (q)->n))

static struct keel_device_info info __attribute__((aligned(8)));
static struct keel_device_queue setup __attribute__((aligned(8)));
static u32 dev; /* handle of the device a test is about */

static struct kt_ret enumerate(u64 i)
{
	memset(&info, 0, sizeof(info));
	info.size = sizeof(info);
	return HC(KEEL_CALL_DEVICE_ENUM, i, kt_gpa(&info));
}

/* The nth device of a type: its handle, and info. */
static u32 find(u32 type, u32 nth)
{
	for (u32 i = 0; !enumerate(i).status; i++)
		if (info.type == type && !nth--)
			return info.device;
	KT_FAIL("no device of type %u", type);
	kt_finish();
}

static u64 status_of(u32 d)
{
	return HC(KEEL_CALL_DEVICE_STATUS, d, KEEL_DEVICE_STATUS_READ).value;
}

static void reset(u32 d)
{
	u64 end = kt_now() + 5000 * MS;
	struct kt_ret r;

	while (!(r = HC(KEEL_CALL_DEVICE_STATUS, d, 0)).status && r.value)
		if (kt_now() > end) {
			KT_FAIL("a reset does not come to an end");
			kt_finish();
		}
	OK_VALUE(r, 0);
}

/* Up to FEATURES_OK with these features. */
static void negotiate(u32 d, u64 features)
{
	reset(d);
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, KEEL_DEVICE_ACKNOWLEDGE), KEEL_DEVICE_ACKNOWLEDGE);
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, ACKED), ACKED);
	OK(HC(KEEL_CALL_DEVICE_ACCEPT, d, 0, features));
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, READY), READY);
}

static struct kt_ret set_queue(u32 d, u32 index, u32 n, u64 gpa, u32 port)
{
	setup = (struct keel_device_queue){ .size = sizeof(setup),
					    .entries = n,
					    .port = port,
					    .desc = gpa,
					    .driver = gpa + 0x2000,
					    .device = gpa + 0x3000 };
	return HC(KEEL_CALL_DEVICE_QUEUE, d, index, kt_gpa(&setup));
}

/* A queue in 64 KiB of its own, by number; its port unmasked, events not delivered but pending. */
static void make_queue(struct queue *q, u32 d, u32 index, u32 n, u32 slot)
{
	struct kt_ret r;

	*q = (struct queue){ .gpa = G0 + slot * 0x10000, .n = n, .port = kt_alloc(1) };
	memset(kt_ram(q->gpa), 0, 0x10000);
	kt_cli();
	OK(HC(KEEL_CALL_EVENT_UNMASK, q->port));
	r = set_queue(d, index, n, q->gpa, q->port);
	OK(r);
	q->bell = (u32)r.value;
}

static void go(u32 d)
{
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, LIVE), LIVE);
}

static void describe(struct queue *q, u32 i, u64 addr, u32 len, u16 flags, u16 next)
{
	volatile struct desc *e = &DESC(q)[i];

	e->addr = addr;
	e->len = len;
	e->flags = flags;
	e->next = next;
}

/* Make a chain available, and ring. */
static void offer(struct queue *q, u32 head)
{
	volatile struct avail *a = AVAIL(q);
	const u16 at = a->idx;

	a->ring[at % q->n] = (u16)head;
	__atomic_store_n((u16 *)&a->idx, (u16)(at + 1), __ATOMIC_RELEASE);
}

static void ring(struct queue *q)
{
	OK_VALUE(HC(KEEL_CALL_EVENT_SEND, q->bell), 0);
}

static u16 given(struct queue *q)
{
	return __atomic_load_n((const u16 *)&USED(q)->idx, __ATOMIC_ACQUIRE);
}

/* Wait until n more were given back; false when it takes too long. */
static bool wait_used(struct queue *q, u32 n, u64 ms)
{
	u64 end = kt_now() + ms * kt_slow() * MS;

	while ((u16)(given(q) - q->seen) < n) {
		if (kt_now() > end)
			return false;
		HC(KEEL_CALL_VCPU_YIELD, KEEL_VCPU_ANY);
	}
	return true;
}

/* The next given back: its head. When there is none, the rest of a test says no more. */
static u32 take(struct queue *q, u32 *len)
{
	volatile struct used *u = USED(q);

	if (!wait_used(q, 1, 3000)) {
		KT_FAIL("nothing is given back, status %x", (u32)status_of(dev));
		kt_finish();
	}
	if (len)
		*len = u->ring[q->seen % q->n].len;
	return u->ring[q->seen++ % q->n].id;
}

static bool wait_status(u32 d, u32 bit)
{
	u64 end = kt_now() + 3000 * kt_slow() * MS;

	while (!(status_of(d) & bit))
		if (kt_now() > end)
			return false;
	return true;
}

/* Blocks */

struct header {
	u32 type, reserved;
	u64 sector;
};
#define IN 0
#define OUT 1
#define FLUSH 4
#define GET_ID 8
#define HEADER (DATA - 0x1000) /* of request i at + 32 i; its status at + 0x800 + i */

static struct queue bq;
static volatile u8 *status_byte(u32 i)
{
	return (u8 *)kt_ram(HEADER + 0x800 + i);
}

/* With those of these features that are offered. */
static void block_on(u64 features, u32 n)
{
	dev = find(T_BLOCK, 0);
	negotiate(dev, features & (info.features[0] | PLAIN));
	make_queue(&bq, dev, 0, n, 0);
	go(dev);
}

/* Request i of the queue as three descriptors from 3 * i on; not offered yet. */
static void request(u32 i, u32 type, u64 sector, u64 data, u32 len)
{
	volatile struct header *h = kt_ram(HEADER + 32 * i);

	h->type = type;
	h->reserved = 0;
	h->sector = sector;
	*status_byte(i) = 0xee;
	describe(&bq, 3 * i, HEADER + 32 * i, sizeof(struct header), NEXT, (u16)(3 * i + 1));
	describe(&bq, 3 * i + 1, data, len, NEXT | (type == OUT ? 0 : WRITE), (u16)(3 * i + 2));
	describe(&bq, 3 * i + 2, HEADER + 0x800 + i, 1, WRITE, 0);
}

/* One request from start to end: its status, ~0 when another was given back. */
static u32 block(u32 type, u64 sector, u64 data, u32 len)
{
	request(0, type, sector, data, len);
	offer(&bq, 0);
	ring(&bq);
	return take(&bq, NULL) == 0 ? *status_byte(0) : ~0u;
}

/* After a rule was broken: the device says so and stands still; then a reset makes it whole. */
static void expect_broken(const char *what)
{
	if (!wait_status(dev, KEEL_DEVICE_NEEDS_RESET)) {
		KT_FAIL("%s: no NEEDS_RESET", what);
		kt_finish();
	}
	if (given(&bq) != bq.seen)
		KT_FAIL("%s: %u given back", what, (u16)(given(&bq) - bq.seen));
	HC(KEEL_CALL_EVENT_CLOSE, bq.port);
	block_on(PLAIN | BIT(F_INDIRECT), SIZE);
	if (block(IN, 0, DATA, 512))
		KT_FAIL("%s: not well after a reset", what);
}

#define BLOCKS "profile=IO devices=block"

KEEL_TEST("DEVICE-001", device_enumerated, "KEEL-DEVICE-01 KEEL-DEVICE-02 KEEL-DEVICE-03 KEEL-DEVICE-04",
	  "profile=IO devices=block+rng+block-ro", 0)
{
	static const u32 types[] = { T_BLOCK, T_RNG, T_BLOCK };
	u32 handle[3];
	u64 features[3];

	for (int again = 0; again < 2; again++)
		for (u32 i = 0; i < 3; i++) {
			OK_VALUE(enumerate(i), 0);
			CHECK_EQ(info.size, 64);
			CHECK_EQ(info.flags, 0);
			CHECK_EQ(info.reserved[0] | info.reserved[1], 0);
			CHECK_EQ(info.type, types[i]);
			CHECK_EQ(info.status, 0);
			CHECK(info.queues >= 1);
			CHECK(info.queue_max >= SIZE && !(info.queue_max & (info.queue_max - 1)));
			CHECK(info.features[0] & PLAIN);
			CHECK(info.device != 0);
			if (again) {
				CHECK_EQ(handle[i], info.device);
				CHECK_EQ(features[i], info.features[0]);
			}
			handle[i] = info.device;
			features[i] = info.features[0];
		}
	CHECK(handle[0] != handle[1] && handle[1] != handle[2] && handle[0] != handle[2]);
	CHECK(!(features[0] & BIT(F_BLK_RO)));
	CHECK(features[2] & BIT(F_BLK_RO));
}

KEEL_TEST("DEVICE-002", device_enum_bad, "KEEL-DEVICE-01 KEEL-DEVICE-02 KEEL-CALL-06", "neg " BLOCKS, 0)
{
	u64 ram = kt_ram_size();

	NEG(HC(KEEL_CALL_DEVICE_ENUM, 0, kt_gpa(&info) + 4), KEEL_E_INVAL, ARG(2));
	NEG(enumerate(1), KEEL_E_NOENT, ARG(1));
	NEG(enumerate(BIT(32)), KEEL_E_NOENT, ARG(1));
	NEG(enumerate(~0ull), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_DEVICE_ENUM, 0, ram), KEEL_E_FAULT, ARG(2));
	NEG(HC(KEEL_CALL_DEVICE_ENUM, 0, -8ull), KEEL_E_FAULT, ARG(2));
	*(volatile u64 *)kt_ram(ram - 32) = 64;
	NEG(HC(KEEL_CALL_DEVICE_ENUM, 0, ram - 32), KEEL_E_FAULT, ARG(2)); /* its beginning is in RAM */
	info.size = 63;
	NEG(HC(KEEL_CALL_DEVICE_ENUM, 0, kt_gpa(&info)), KEEL_E_INVAL, FIELD(1));
	info.size = 64;
	info.flags = 0x100;
	NEG_BIT(HC(KEEL_CALL_DEVICE_ENUM, 0, kt_gpa(&info)), KEEL_E_INVAL, FIELD(2), 8);
}

KEEL_TEST("DEVICE-003", device_enum_longer, "KEEL-DEVICE-02", BLOCKS, 0)
{
	volatile u32 *w = kt_ram(G0);

	memset((void *)w, 0xa5, 256);
	w[0] = 128;
	w[1] = 0;
	OK(HC(KEEL_CALL_DEVICE_ENUM, 0, G0));
	CHECK_EQ(w[0], 64);
	for (u32 i = 16; i < 64; i++)
		CHECK_EQ(w[i], 0xa5a5a5a5);
}

KEEL_TEST("DEVICE-004", device_handles, "KEEL-DEVICE-03", "neg " BLOCKS, 0)
{
	static const u32 calls[] = { KEEL_CALL_DEVICE_STATUS, KEEL_CALL_DEVICE_ACCEPT, KEEL_CALL_DEVICE_QUEUE,
				     KEEL_CALL_DEVICE_CONFIG_READ, KEEL_CALL_DEVICE_CONFIG_WRITE };
	u64 good = find(T_BLOCK, 0);
	const u64 bad[] = { 0, good + 1, good | BIT(32), good | BIT(63), ~0ull };

	for (u32 i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		for (u32 k = 0; k < 5; k++)
			NEG(HC(calls[i], bad[k], 0, 0), KEEL_E_NOENT, ARG(1));
}

KEEL_TEST("DEVICE-005", device_status, "KEEL-DEVICE-05 KEEL-DEVICE-06", "neg " BLOCKS, 0)
{
	u32 d = find(T_BLOCK, 0);

	for (u32 b = 0; b < 64; b++)
		if (!(BIT(b) & (LIVE | KEEL_DEVICE_FAILED | KEEL_DEVICE_STATUS_READ)))
			NEG_BIT(HC(KEEL_CALL_DEVICE_STATUS, d, BIT(b)), KEEL_E_INVAL, ARG(2), (int)b);
	NEG_BIT(HC(KEEL_CALL_DEVICE_STATUS, d, KEEL_DEVICE_STATUS_READ | 1), KEEL_E_INVAL, ARG(2), 8);
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, 0), 0);
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, 1), 1);
	NEG_BIT(HC(KEEL_CALL_DEVICE_STATUS, d, 1 | KEEL_DEVICE_FEATURES_OK), KEEL_E_STATE, ARG(2), 3);
	NEG_BIT(HC(KEEL_CALL_DEVICE_STATUS, d, 3 | KEEL_DEVICE_DRIVER_OK), KEEL_E_STATE, ARG(2), 2);
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, KEEL_DEVICE_STATUS_READ), 1);
	NEG_BIT(HC(KEEL_CALL_DEVICE_STATUS, d, 2), KEEL_E_STATE, ARG(2), 0);
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, 3 | KEEL_DEVICE_FAILED), 3 | KEEL_DEVICE_FAILED);
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, 0), 0);
	OK(enumerate(0));
	CHECK_EQ(info.status, 0);
}

KEEL_TEST("DEVICE-006", device_features_refused, "KEEL-DEVICE-07", BLOCKS, 0)
{
	u32 d = find(T_BLOCK, 0);

	reset(d);
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, ACKED), ACKED);
	OK(HC(KEEL_CALL_DEVICE_ACCEPT, d, 0, BIT(F_BLK_FLUSH)));
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, READY), ACKED);
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, KEEL_DEVICE_STATUS_READ), ACKED);
	OK(HC(KEEL_CALL_DEVICE_ACCEPT, d, 0, PLAIN));
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, READY), READY);
}

KEEL_TEST("DEVICE-007", device_accept, "KEEL-DEVICE-08 KEEL-DEVICE-09 KEEL-CALL-06", "neg " BLOCKS, 0)
{
	u32 d = find(T_BLOCK, 0);
	u64 offered = info.features[0];

	reset(d);
	NEG(HC(KEEL_CALL_DEVICE_ACCEPT, d, 0, PLAIN), KEEL_E_STATE, ARG(1));
	OK(HC(KEEL_CALL_DEVICE_STATUS, d, ACKED));
	NEG(HC(KEEL_CALL_DEVICE_ACCEPT, d, 2, 0), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_DEVICE_ACCEPT, d, BIT(32), 0), KEEL_E_RANGE, ARG(2));
	for (int b = 0; b < 64; b++) {
		if (offered & BIT(b))
			OK(HC(KEEL_CALL_DEVICE_ACCEPT, d, 0, BIT(b)));
		else
			NEG_BIT(HC(KEEL_CALL_DEVICE_ACCEPT, d, 0, BIT(b) | PLAIN), KEEL_E_NOTSUP, ARG(3), b);
		NEG_BIT(HC(KEEL_CALL_DEVICE_ACCEPT, d, 1, BIT(b)), KEEL_E_NOTSUP, ARG(3), b);
	}
	OK(HC(KEEL_CALL_DEVICE_ACCEPT, d, 0, PLAIN)); /* in place of what was */
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, READY), READY);
	NEG(HC(KEEL_CALL_DEVICE_ACCEPT, d, 0, PLAIN), KEEL_E_STATE, ARG(1));
	reset(d); /* after which nothing is accepted */
	OK(HC(KEEL_CALL_DEVICE_STATUS, d, ACKED));
	OK_VALUE(HC(KEEL_CALL_DEVICE_STATUS, d, READY), ACKED);
}

/* What is wrong with a setup, one thing at a time. */
KEEL_TEST("DEVICE-008", device_queue_bad, "KEEL-DEVICE-10 KEEL-CALL-09", "neg " BLOCKS, 0)
{
	u32 d = find(T_BLOCK, 0), max = info.queue_max, closed = kt_alloc(1);
	u64 ram = kt_ram_size(), at = kt_gpa(&setup);
	struct keel_device_queue good;

	negotiate(d, PLAIN);
	OK(set_queue(d, 0, SIZE, G0, KEEL_DEVICE_NO_PORT));
	good = setup;
	NEG(HC(KEEL_CALL_DEVICE_QUEUE, d, 0, at + 4), KEEL_E_INVAL, ARG(3));
	NEG(HC(KEEL_CALL_DEVICE_QUEUE, d, 1, at), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_DEVICE_QUEUE, d, BIT(32), at), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_DEVICE_QUEUE, d, 0, ram), KEEL_E_FAULT, ARG(3));
	NEG(HC(KEEL_CALL_DEVICE_QUEUE, d, 0, -16ull), KEEL_E_FAULT, ARG(3));
#define BAD(field, value, status)                                         \
	do {                                                              \
		setup = good;                                             \
		setup.field = (value);                                    \
		NEG_STATUS(HC(KEEL_CALL_DEVICE_QUEUE, d, 0, at), status); \
	} while (0)
	BAD(size, 47, KEEL_STATUS(KEEL_E_INVAL, FIELD(1)));
	BAD(size, 0, KEEL_STATUS(KEEL_E_INVAL, FIELD(1)));
	BAD(flags, 1u << 31, KEEL_STATUS_BIT(KEEL_E_INVAL, FIELD(2), 31));
	BAD(reserved, 1, KEEL_STATUS(KEEL_E_INVAL, FIELD(8)));
	BAD(entries, 0, KEEL_STATUS(KEEL_E_INVAL, FIELD(3)));
	BAD(entries, 3, KEEL_STATUS(KEEL_E_INVAL, FIELD(3)));
	BAD(entries, 2 * max, KEEL_STATUS(KEEL_E_INVAL, FIELD(3)));
	BAD(entries, 1u << 31, KEEL_STATUS(KEEL_E_INVAL, FIELD(3)));
	BAD(desc, G0 + 8, KEEL_STATUS(KEEL_E_INVAL, FIELD(5)));
	BAD(driver, G0 + 1, KEEL_STATUS(KEEL_E_INVAL, FIELD(6)));
	BAD(device, G0 + 2, KEEL_STATUS(KEEL_E_INVAL, FIELD(7)));
	BAD(desc, ram, KEEL_STATUS(KEEL_E_FAULT, FIELD(5)));
	BAD(desc, ram - 16 * SIZE + 16, KEEL_STATUS(KEEL_E_FAULT, FIELD(5)));
	BAD(desc, -16ull, KEEL_STATUS(KEEL_E_FAULT, FIELD(5)));
	BAD(driver, ram - (4 + 2 * SIZE), KEEL_STATUS(KEEL_E_FAULT, FIELD(6))); /* used_event is part of it */
	BAD(device, ram - (4 + 8 * SIZE), KEEL_STATUS(KEEL_E_FAULT, FIELD(7)));
	BAD(driver, -2ull, KEEL_STATUS(KEEL_E_FAULT, FIELD(6)));
	BAD(device, -4ull, KEEL_STATUS(KEEL_E_FAULT, FIELD(7)));
	OK(HC(KEEL_CALL_EVENT_CLOSE, closed));
	BAD(port, closed, KEEL_STATUS(KEEL_E_NOENT, FIELD(4)));
	BAD(port, KEEL_PORT(0, 1, 5), KEEL_STATUS(KEEL_E_NOENT, FIELD(4)));
	BAD(port, KEEL_PORT(0, KEEL_PORT_HOST, 0), KEEL_STATUS(KEEL_E_NOENT, FIELD(4)));
	setup = good;
	OK(HC(KEEL_CALL_DEVICE_QUEUE, d, 0, at));
	/* Longer is fine, with zeros. */
	memset(kt_ram(G0 + 0x8000), 0, 128);
	memcpy(kt_ram(G0 + 0x8000), &good, sizeof(good));
	((volatile struct keel_device_queue *)kt_ram(G0 + 0x8000))->size = 64;
	OK(HC(KEEL_CALL_DEVICE_QUEUE, d, 0, G0 + 0x8000));
	*(volatile u8 *)kt_ram(G0 + 0x8000 + 63) = 1;
	NEG(HC(KEEL_CALL_DEVICE_QUEUE, d, 0, G0 + 0x8000), KEEL_E_INVAL, FIELD(1));
	go(d);
	setup = good;
	NEG(HC(KEEL_CALL_DEVICE_QUEUE, d, 0, at), KEEL_E_STATE, ARG(1));
	reset(d);
	NEG(HC(KEEL_CALL_DEVICE_QUEUE, d, 0, at), KEEL_E_STATE, ARG(1));
}

KEEL_TEST("DEVICE-009", device_config_port, "KEEL-DEVICE-11 KEEL-DEVICE-17", "neg " BLOCKS, 0)
{
	u32 d = find(T_BLOCK, 0), port = kt_alloc(1);
	u64 at = kt_gpa(&setup);

	kt_cli();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	setup = (struct keel_device_queue){ .size = sizeof(setup), .port = port };
	reset(d);
	NEG(HC(KEEL_CALL_DEVICE_QUEUE, d, KEEL_DEVICE_QUEUE_CONFIG, at), KEEL_E_STATE, ARG(1));
	OK(HC(KEEL_CALL_DEVICE_STATUS, d, ACKED));
	setup.entries = 1;
	NEG(HC(KEEL_CALL_DEVICE_QUEUE, d, KEEL_DEVICE_QUEUE_CONFIG, at), KEEL_E_INVAL, FIELD(3));
	setup.entries = 0;
	setup.desc = 4096;
	NEG(HC(KEEL_CALL_DEVICE_QUEUE, d, KEEL_DEVICE_QUEUE_CONFIG, at), KEEL_E_INVAL, FIELD(5));
	setup.desc = 0;
	OK_VALUE(HC(KEEL_CALL_DEVICE_QUEUE, d, KEEL_DEVICE_QUEUE_CONFIG, at), 0);
	OK(HC(KEEL_CALL_DEVICE_ACCEPT, d, 0, PLAIN));
	OK(HC(KEEL_CALL_DEVICE_STATUS, d, READY));
	make_queue(&bq, d, 0, SIZE, 0);
	go(d);
	CHECK(!kt_port_pending(port));
	AVAIL(&bq)->idx = SIZE + 1;
	ring(&bq);
	CHECK(wait_status(d, KEEL_DEVICE_NEEDS_RESET));
	CHECK(kt_port_pending(port));
	CHECK(!kt_port_pending(bq.port));
}

KEEL_TEST("DEVICE-010", device_doorbell, "KEEL-DEVICE-12 KEEL-DEVICE-13", "neg " BLOCKS, 0)
{
	struct keel_event_record r = { KEEL_EVENT_OP_SEND, 0 };

	block_on(PLAIN, SIZE);
	CHECK_EQ(KEEL_PORT_VCPU(bq.bell), KEEL_PORT_HOST);
	NEG(HC(KEEL_CALL_EVENT_MASK, bq.bell), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_UNMASK, bq.bell), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_CLOSE, bq.bell), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_SEND, KEEL_PORT(0, KEEL_PORT_HOST, 4095)), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_SEND, bq.bell | 1u << 24), KEEL_E_NOENT, ARG(1));
	ring(&bq); /* for nothing */
	CHECK_EQ(block(IN, 0, DATA, 512), 0);
	request(0, IN, 0, DATA, 512);
	offer(&bq, 0);
	r.port = bq.bell;
	memcpy(kt_ram(DATA + 4096), &r, sizeof(r));
	OK_VALUE(HC(KEEL_CALL_EVENT_BATCH, DATA + 4096, 1, 0), 1);
	CHECK_EQ(take(&bq, NULL), 0);
}

KEEL_TEST("DEVICE-011", device_before_driver_ok, "KEEL-DEVICE-13", BLOCKS, 0)
{
	dev = find(T_BLOCK, 0);
	negotiate(dev, PLAIN);
	make_queue(&bq, dev, 0, SIZE, 0);
	request(0, IN, 0, DATA, 512);
	offer(&bq, 0);
	ring(&bq);
	CHECK(!wait_used(&bq, 1, 30));
	go(dev); /* which is enough: nobody rings */
	CHECK_EQ(take(&bq, NULL), 0);
	CHECK_EQ(*status_byte(0), 0);
}

KEEL_TEST("DEVICE-012", device_used_flags, "KEEL-DEVICE-15", BLOCKS, 0)
{
	block_on(PLAIN, SIZE);
	AVAIL(&bq)->flags = 1; /* do not interrupt */
	CHECK_EQ(block(IN, 0, DATA, 512), 0);
	kt_spin_ns(20 * MS);
	CHECK(!kt_port_pending(bq.port));
	AVAIL(&bq)->flags = 0;
	CHECK_EQ(block(IN, 0, DATA, 512), 0);
	for (u64 end = kt_now() + 5000 * MS; !kt_port_pending(bq.port) && kt_now() < end;)
		HC(KEEL_CALL_VCPU_YIELD, KEEL_VCPU_ANY);
	CHECK(kt_port_pending(bq.port));
}

KEEL_TEST("DEVICE-013", device_used_event, "KEEL-DEVICE-15", BLOCKS, 0)
{
	block_on(PLAIN | BIT(F_EVENT_IDX), SIZE);
	USED_EVENT(&bq) = 2; /* the third, and no other */
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(block(IN, 0, DATA, 512), 0);
		kt_spin_ns(10 * MS);
		CHECK(!kt_port_pending(bq.port));
	}
	CHECK_EQ(block(IN, 0, DATA, 512), 0);
	for (u64 end = kt_now() + 5000 * MS; !kt_port_pending(bq.port) && kt_now() < end;)
		HC(KEEL_CALL_VCPU_YIELD, KEEL_VCPU_ANY);
	CHECK(kt_port_pending(bq.port));
}

/* Ring only when asked: nothing is missed, and the device does ask. */
static void asked(u64 features)
{
	u32 rang = 0;
	u16 old;

	block_on(features, SIZE);
	for (u32 i = 0; i < 2000; i++) {
		bool want;

		request(0, IN, i % 8, DATA, 512);
		old = AVAIL(&bq)->idx;
		offer(&bq, 0);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (features & BIT(F_EVENT_IDX))
			want = (u16)(old + 1 - AVAIL_EVENT(&bq) - 1) < 1;
		else
			want = !(USED(&bq)->flags & 1);
		if (want) {
			ring(&bq);
			rang++;
		}
		if (take(&bq, NULL) != 0)
			break;
		if (i % 16 == 0) /* time for it to go to sleep */
			kt_spin_ns(MS / 2);
	}
	kt_note("rang %u times for 2000 requests", rang);
	CHECK(rang > 0);
}

KEEL_TEST("DEVICE-014", device_asks_by_flags, "KEEL-DEVICE-14", BLOCKS " timeout=30", 0)
{
	asked(PLAIN);
}

KEEL_TEST("DEVICE-015", device_asks_by_index, "KEEL-DEVICE-14", BLOCKS " timeout=30", 0)
{
	asked(PLAIN | BIT(F_EVENT_IDX));
}

/* A table at DATA + 0x8000 for a read of one sector. */
#define TABLE (DATA + 0x8000)
static void indirect_table(void)
{
	volatile struct desc *t = kt_ram(TABLE);

	request(0, IN, 0, DATA, 512);
	for (u32 i = 0; i < 3; i++)
		t[i] = DESC(&bq)[i];
	describe(&bq, 0, TABLE, 3 * sizeof(struct desc), INDIRECT, 0);
}

KEEL_TEST("DEVICE-016", device_indirect, "KEEL-DEVICE-16", BLOCKS, 0)
{
	block_on(PLAIN | BIT(F_INDIRECT), SIZE);
	for (int i = 0; i < 100; i++) {
		indirect_table();
		offer(&bq, 0);
		ring(&bq);
		CHECK_EQ(take(&bq, NULL), 0);
		CHECK_EQ(*status_byte(0), 0);
	}
}

KEEL_TEST("DEVICE-017", device_indirect_bad, "KEEL-DEVICE-17", "neg " BLOCKS " timeout=30", 0)
{
	volatile struct desc *t = kt_ram(TABLE);

	block_on(PLAIN, SIZE);
	indirect_table(); /* which was not negotiated */
	offer(&bq, 0);
	ring(&bq);
	expect_broken("not negotiated");
#define TABLE_BAD(what, change)      \
	do {                         \
		indirect_table();    \
		change;              \
		offer(&bq, 0);       \
		ring(&bq);           \
		expect_broken(what); \
	} while (0)
	TABLE_BAD("in a table", t[1].flags |= INDIRECT);
	TABLE_BAD("with NEXT", DESC(&bq)[0].flags |= NEXT);
	TABLE_BAD("with WRITE", DESC(&bq)[0].flags |= WRITE);
	TABLE_BAD("empty", DESC(&bq)[0].len = 0);
	TABLE_BAD("not whole descriptors", DESC(&bq)[0].len = 47);
	TABLE_BAD("longer than the queue", DESC(&bq)[0].len = (SIZE + 1) * 16);
	TABLE_BAD("as long as can be", DESC(&bq)[0].len = 0xfffffff0);
	TABLE_BAD("not in RAM", DESC(&bq)[0].addr = kt_ram_size() - 16);
	TABLE_BAD("round the end", DESC(&bq)[0].addr = -16ull);
	TABLE_BAD("beyond its end", t[0].next = 3);
	TABLE_BAD("a cycle in it", t[1].next = 0);
}

KEEL_TEST("DEVICE-018", device_chain_bad, "KEEL-DEVICE-17 KEEL-BLOCK-05", "neg " BLOCKS " timeout=30", 0)
{
	block_on(PLAIN, SIZE);
#define CHAIN_BAD(what, change)               \
	do {                                  \
		request(0, IN, 0, DATA, 512); \
		change;                       \
		offer(&bq, 0);                \
		ring(&bq);                    \
		expect_broken(what);          \
	} while (0)
	CHAIN_BAD("a descriptor that does not exist", DESC(&bq)[0].next = SIZE;
		  describe(&bq, SIZE, HEADER + 0x800, 1, WRITE, 0));
	CHAIN_BAD("a cycle", DESC(&bq)[1].next = 0);
	CHAIN_BAD("a cycle of one", DESC(&bq)[1].next = 1);
	CHAIN_BAD("a buffer behind RAM", DESC(&bq)[1].addr = kt_ram_size());
	CHAIN_BAD("a buffer over the end of RAM", DESC(&bq)[1].addr = kt_ram_size() - 511);
	CHAIN_BAD("a buffer round the end of addresses", DESC(&bq)[1].addr = -256ull);
	CHAIN_BAD("a buffer as long as can be", DESC(&bq)[1].len = ~0u);
	CHAIN_BAD("readable behind writable", DESC(&bq)[2].flags = NEXT; describe(&bq, 3, DATA, 1, 0, 0);
		  DESC(&bq)[2].next = 3; DESC(&bq)[2].flags = NEXT | WRITE);
	CHAIN_BAD("no header", DESC(&bq)[0].len = 15);
	CHAIN_BAD("no status", describe(&bq, 0, HEADER, 16, 0, 0));
	CHAIN_BAD("an empty chain", describe(&bq, 0, 0, 0, 0, 0));
}

KEEL_TEST("DEVICE-019", device_index_jumps, "KEEL-DEVICE-17", "neg " BLOCKS " timeout=30", 0)
{
	static const u16 jumps[] = { SIZE + 1, 0x8000, 0xffff, 0x100 };

	for (u32 i = 0; i < 4; i++) {
		block_on(PLAIN, SIZE);
		request(0, IN, 0, DATA, 512);
		AVAIL(&bq)->idx = jumps[i];
		ring(&bq);
		expect_broken("the index jumped");
		HC(KEEL_CALL_EVENT_CLOSE, bq.port);
	}
	/* Requests that are good, and an index that counts more of them than there can be: none is begun. */
	block_on(PLAIN, SIZE);
	memset(kt_ram(DATA), 0x77, 5 * 512);
	for (u32 i = 0; i < 5; i++) {
		request(i, IN, 0, DATA + i * 512, 512);
		AVAIL(&bq)->ring[i] = (u16)(3 * i);
	}
	AVAIL(&bq)->idx = SIZE + 1;
	ring(&bq);
	CHECK(wait_status(dev, KEEL_DEVICE_NEEDS_RESET));
	kt_spin_ns(20 * MS);
	for (u32 i = 0; i < 5 * 512; i += 8)
		CHECK_EQ(*(volatile u64 *)kt_ram(DATA + i), 0x7777777777777777);
	expect_broken("the index jumped");
	HC(KEEL_CALL_EVENT_CLOSE, bq.port);
	block_on(PLAIN, SIZE);
	AVAIL(&bq)->ring[0] = SIZE;
	AVAIL(&bq)->idx = 1;
	ring(&bq);
	expect_broken("a head that does not exist");
	AVAIL(&bq)->ring[AVAIL(&bq)->idx % SIZE] = 0xffff;
	__atomic_store_n((u16 *)&AVAIL(&bq)->idx, (u16)(AVAIL(&bq)->idx + 1), __ATOMIC_RELEASE);
	ring(&bq);
	expect_broken("a head of all ones");
}

/* A head that is with the device already: offered twice in one go. What comes first may be given back before. */
KEEL_TEST("DEVICE-020", device_head_twice, "KEEL-DEVICE-17 KEEL-DEVICE-20", "neg " BLOCKS, 0)
{
	volatile struct avail *a;

	block_on(PLAIN, SIZE);
	/* Both requests are large, so that the first is not over when the second is taken. */
	request(0, IN, 0, DATA, 1 << 20);
	a = AVAIL(&bq);
	a->ring[0] = a->ring[1] = 0;
	__atomic_store_n((u16 *)&a->idx, 2, __ATOMIC_RELEASE);
	ring(&bq);
	CHECK(wait_status(dev, KEEL_DEVICE_NEEDS_RESET));
	CHECK((u16)(given(&bq) - bq.seen) <= 1);
}

KEEL_TEST("DEVICE-021", device_zero_length, "KEEL-DEVICE-18", BLOCKS, 0)
{
	block_on(PLAIN, SIZE);
	request(0, IN, 0, DATA, 512);
	/* Between all others, one that points at nothing. */
	describe(&bq, 0, HEADER, 16, NEXT, 4);
	describe(&bq, 4, ~0ull >> 1 & 0, 0, NEXT, 1);
	describe(&bq, 1, DATA, 512, NEXT | WRITE, 5);
	describe(&bq, 5, DATA, 0, NEXT | WRITE, 2);
	offer(&bq, 0);
	ring(&bq);
	CHECK_EQ(take(&bq, NULL), 0);
	CHECK_EQ(*status_byte(0), 0);
}

/* Header, data and status cut in every way, data in single bytes. */
KEEL_TEST("DEVICE-022", device_framing, "KEEL-BLOCK-05", BLOCKS " timeout=30", 0)
{
	block_on(PLAIN, 64);
	kt_poison(DATA, 1024, 7);
	CHECK_EQ(block(OUT, 5, DATA, 1024), 0);
	for (u32 cut = 1; cut < 16; cut++) {
		const u32 parts = 20;
		u32 i = 0, at = 0;

		memset(kt_ram(DATA + 4096), 0, 1024);
		request(0, IN, 5, DATA + 4096, 1024);
		describe(&bq, i++, HEADER, cut, NEXT, 1);
		describe(&bq, i++, HEADER + cut, 16 - cut, NEXT, 2);
		for (u32 k = 0; k < parts; k++, i++) {
			u32 len = k == parts - 1 ? 1024 - at : 1 + kt_random_below(90) % (1 + (1024 - at) / 2);

			describe(&bq, i, DATA + 4096 + at, len, NEXT | WRITE, (u16)(i + 1));
			at += len;
		}
		describe(&bq, i, HEADER + 0x800, 1, WRITE, 0);
		offer(&bq, 0);
		ring(&bq);
		CHECK_EQ(take(&bq, NULL), 0);
		CHECK_EQ(*status_byte(0), 0);
		CHECK(!memcmp(kt_ram(DATA), kt_ram(DATA + 4096), 1024));
	}
}

KEEL_TEST("DEVICE-023", device_config_space, "KEEL-DEVICE-21 KEEL-DEVICE-22", "neg " BLOCKS, 0)
{
	u32 d = find(T_BLOCK, 0), size = info.config_size;
	u64 ram = kt_ram_size();
	struct kt_ret a, b;

	CHECK(size >= 8 && size <= KEEL_DEVICE_CONFIG_MAX);
	kt_poison(DATA, 512, 3);
	a = HC(KEEL_CALL_DEVICE_CONFIG_READ, d, 0, DATA, 8);
	OK(a);
	CHECK_EQ(*(volatile u64 *)kt_ram(DATA), 2048); /* sectors of 1 MiB */
	b = HC(KEEL_CALL_DEVICE_CONFIG_READ, d, 4, DATA + 64, 4);
	OK_VALUE(b, a.value);
	CHECK_EQ(*(volatile u32 *)kt_ram(DATA + 64), 0);
	OK_VALUE(HC(KEEL_CALL_DEVICE_CONFIG_READ, d, size, DATA, 0), a.value);
	NEG(HC(KEEL_CALL_DEVICE_CONFIG_READ, d, size + 1, DATA, 0), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_DEVICE_CONFIG_READ, d, size, DATA, 1), KEEL_E_RANGE, ARG(4));
	NEG(HC(KEEL_CALL_DEVICE_CONFIG_READ, d, 0, DATA, size + 1), KEEL_E_RANGE, ARG(4));
	NEG(HC(KEEL_CALL_DEVICE_CONFIG_READ, d, 0, DATA, 257), KEEL_E_RANGE, ARG(4));
	NEG(HC(KEEL_CALL_DEVICE_CONFIG_READ, d, ~0ull, DATA, 2), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_DEVICE_CONFIG_READ, d, 0, ram - 4, 8), KEEL_E_FAULT, ARG(3));
	NEG(HC(KEEL_CALL_DEVICE_CONFIG_READ, d, 0, -4ull, 8), KEEL_E_FAULT, ARG(3));
	NEG(HC(KEEL_CALL_DEVICE_CONFIG_WRITE, d, 0, DATA, 8), KEEL_E_PERM, ARG(2)); /* the capacity */
	NEG(HC(KEEL_CALL_DEVICE_CONFIG_WRITE, d, 0, DATA, 257), KEEL_E_RANGE, ARG(4));
	NEG(HC(KEEL_CALL_DEVICE_CONFIG_WRITE, d, size, DATA, 1), KEEL_E_RANGE, ARG(4));
	NEG(HC(KEEL_CALL_DEVICE_CONFIG_WRITE, d, 0, ram, 8), KEEL_E_FAULT, ARG(3));
	OK(HC(KEEL_CALL_DEVICE_CONFIG_READ, d, 0, DATA, 8));
	CHECK_EQ(*(volatile u64 *)kt_ram(DATA), 2048);
}

KEEL_TEST("DEVICE-024", device_wraps, "KEEL-DEVICE-20", BLOCKS " timeout=60", 0)
{
	/* Beyond 2^16 requests both indices have gone round; a queue that is full each time. */
	block_on(PLAIN, SIZE);
	AVAIL(&bq)->flags = 1;
	for (u32 n = 0; n < 70000 / kt_scale; n += 5) {
		u32 back = 0;

		for (u32 i = 0; i < 5; i++) {
			request(i, IN, i, DATA + i * 512, 512);
			offer(&bq, 3 * i);
		}
		ring(&bq);
		for (u32 i = 0; i < 5; i++) {
			u32 head = take(&bq, NULL);

			REQUIRE(head % 3 == 0 && head < 15);
			back |= 1u << head / 3;
		}
		REQUIRE(back == 31); /* each once */
	}
}

KEEL_TEST("DEVICE-025", device_reset_under_load, "KEEL-DEVICE-09 KEEL-DEVICE-20", "neg " BLOCKS " timeout=60", 0)
{
	u32 entries, n;

	find(T_BLOCK, 0);
	entries = info.queue_max < 256 ? info.queue_max : 256;
	n = entries / 3 < 64 ? entries / 3 : 64; /* most are under way for long enough to be met by the reset */
	for (u32 round = 0; round < (kt_scale >= 1000 ? 10 : 300); round++) {
		u64 spin = kt_random_below(200000);
		u16 was;

		block_on(PLAIN, entries);
		for (u32 i = 0; i < n; i++) {
			request(i, i >= 1 ? FLUSH : IN, 0, DATA, i >= 1 ? 0 : 1 << 20);
			offer(&bq, 3 * i);
		}
		ring(&bq);
		if (round % 2) { /* the first is done, and others are not */
			for (u64 end = kt_now() + 1000 * kt_slow() * MS; *status_byte(0) == 0xee;) {
				REQUIRE(kt_now() < end);
				kc_pause();
			}
		} else {
			kt_spin_ns(spin);
		}
		reset(dev);
		for (u32 i = 0; i < n; i++)
			*status_byte(i) = 0xee;
		was = given(&bq);
		if (kt_fails)
			return;
		memset(kt_ram(DATA), 0x5a, 4096);
		HC(KEEL_CALL_EVENT_MASK, bq.port);
		OK(HC(KEEL_CALL_EVENT_CLOSE, bq.port));
		kt_spin_ns(MS / 10);
		CHECK_EQ(given(&bq), was); /* nothing is written any more */
		for (u32 i = 0; i < n; i++)
			CHECK_EQ(*status_byte(i), 0xee);
		CHECK_EQ(*(volatile u64 *)kt_ram(DATA), 0x5a5a5a5a5a5a5a5a);
		CHECK_EQ(status_of(dev), 0);
		block_on(PLAIN, entries); /* and nothing of it comes back */
		ring(&bq);
		kt_spin_ns(MS / 2);
		CHECK_EQ(given(&bq), 0);
		for (u32 i = 0; i < n; i++)
			CHECK_EQ(*status_byte(i), 0xee);
		OK(HC(KEEL_CALL_EVENT_CLOSE, bq.port));
	}
	block_on(PLAIN, SIZE);
	CHECK_EQ(block(IN, 0, DATA, 512), 0);
}

KEEL_TEST("DEVICE-026", device_ring_as_buffer, "KEEL-DEVICE-17 KEEL-DEVICE-19", "neg " BLOCKS, 0)
{
	/* The disk is zero: the read writes that over the queue's own memory. Whatever becomes of it, a reset makes it whole. */
	static const u64 at[] = { 0, 0x2000, 0x3000 };

	for (u32 i = 0; i < 3; i++) {
		block_on(PLAIN, SIZE);
		request(0, IN, 0, bq.gpa + at[i], 512);
		offer(&bq, 0);
		ring(&bq);
		kt_spin_ns(20 * MS);
		block_on(PLAIN, SIZE);
		CHECK_EQ(block(IN, 0, DATA, 512), 0);
	}
}

/*
 * What the second vCPU is to do with the request: keep it right, keep it wrong,
 * or change it all the time, with at most that many pauses in each state. An
 * order is 8 * its number + one of these.
 */
enum { HOLD_RIGHT, HOLD_WRONG, FLIP };
static const struct {
	u32 right, wrong;
} flips[] = { [FLIP] = { 300, 20 }, { 100, 100 }, { 20, 300 } };
static u64 order, obeyed;

static void flip(struct kc *c)
{
	volatile struct desc *e = DESC(&bq);
	u64 ram = kt_ram_size();

	for (u32 wrong = 0; !__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE); wrong = !wrong) {
		const u64 now = __atomic_load_n(&order, __ATOMIC_ACQUIRE);

		e[1].addr = wrong ? ram - 256 : DATA;
		e[1].len = wrong ? ~0u : 512;
		e[0].next = wrong ? 0xffff : 1;
		if (now % 8 >= FLIP) {
			__atomic_store_n(&obeyed, now, __ATOMIC_RELEASE);
			for (u64 n = kc_random(c) % (wrong ? flips[now % 8].wrong : flips[now % 8].right); n--;)
				kc_pause();
		} else if (now % 8 == (wrong ? HOLD_WRONG : HOLD_RIGHT)) {
			__atomic_store_n(&obeyed, now, __ATOMIC_RELEASE);
			while (__atomic_load_n(&order, __ATOMIC_ACQUIRE) == now && !c->stop)
				kc_yield();
		}
	}
}

KEEL_TEST("DEVICE-027", device_changes_between, "KEEL-DEVICE-19 KEEL-DEVICE-17",
	  "neg profile=IO devices=block vcpus=2 timeout=60", 0)
{
	const u32 rounds = kt_scale < 100 ? 3000 / kt_scale : 30;
	u32 broken = 0, fine = 0;

	kc_needed(2);
	block_on(PLAIN, SIZE);
	request(0, IN, 0, DATA, 512);
	order = FLIP;
	OK_VALUE(kc_start(1, flip, 0), 0);
	/*
	 * How the changes fall where vCPUs share a processor is chance, maybe all
	 * one way. So one request of five is held right and one wrong: what becomes
	 * of those is known.
	 */
	for (u32 i = 0; i < rounds; i++) {
		const u32 what = i % 5, how = what == FLIP ? FLIP + i / 5 % 3 : what;
		bool done;

		if (what <= FLIP)
			__atomic_store_n(&order, 8 * (i + 1ULL) + how, __ATOMIC_RELEASE);
		REQUIRE(kc_until(&obeyed, order, 5000));
		offer(&bq, 0);
		ring(&bq);
		for (u64 end = kt_now() + 1000 * kt_slow() * MS; given(&bq) == bq.seen && kt_now() < end;)
			if (status_of(dev) & KEEL_DEVICE_NEEDS_RESET)
				break;
		done = given(&bq) != bq.seen;
		if (what < FLIP)
			CHECK_EQ(done, what == HOLD_RIGHT);
		else
			*(done ? &fine : &broken) += 1;
		if (done) {
			bq.seen = given(&bq);
		} else {
			CHECK(status_of(dev) & KEEL_DEVICE_NEEDS_RESET);
			HC(KEEL_CALL_EVENT_CLOSE, bq.port);
			block_on(PLAIN, SIZE);
			request(0, IN, 0, DATA, 512);
		}
	}
	__atomic_store_n(&kc[1].stop, 1, __ATOMIC_RELEASE);
	CHECK(kc_stopped(1, 10000));
	kt_note("while they changed, %u requests went through and %u broke the rules", fine, broken);
	block_on(PLAIN, SIZE);
	CHECK_EQ(block(IN, 0, DATA, 512), 0);
}

KEEL_TEST("DEVICE-028", device_others_unconcerned, "KEEL-DEVICE-17", "neg profile=IO devices=block+rng", 0)
{
	struct queue rq;
	u32 rng, len;

	block_on(PLAIN, SIZE);
	rng = find(T_RNG, 0);
	negotiate(rng, PLAIN);
	make_queue(&rq, rng, 0, SIZE, 1);
	go(rng);
	AVAIL(&bq)->idx = 0x4000;
	ring(&bq);
	CHECK(wait_status(dev, KEEL_DEVICE_NEEDS_RESET));
	dev = rng;
	memset(kt_ram(DATA), 0, 4096);
	describe(&rq, 0, DATA, 4096, WRITE, 0);
	offer(&rq, 0);
	ring(&rq);
	CHECK_EQ(take(&rq, &len), 0);
	CHECK(len > 0 && len <= 4096);
	CHECK_EQ(status_of(rng), LIVE);
}

KEEL_TEST("DEVICE-029", device_harvest, "KEEL-DEVICE-23 KEEL-HARVEST-02", BLOCKS " ext=4", 0)
{
	const u64 bitmap = DATA + 0x90000, pages = 16;
	volatile u64 *bits = kt_ram(bitmap);

	OK(MAP(KT_VA, DATA, pages * 4096, KEEL_PROT_R | KEEL_PROT_W));
	for (u64 i = 0; i < pages; i++)
		*(volatile u8 *)(KT_VA + i * 4096) = 0;
	block_on(PLAIN, SIZE);
	OK_VALUE(HC(KEEL_CALL_HARVEST_START, 0, KT_VA, pages * 4096, KEEL_HARVEST_DIRTY), pages);
	CHECK_EQ(block(IN, 0, DATA + 3 * 4096, 2 * 4096), 0);
	*bits = 0;
	OK(HC(KEEL_CALL_HARVEST_COLLECT, 0, KT_VA, pages * 4096, bitmap));
	CHECK((*bits & 0x18) == 0x18);
	CHECK(!(*bits & 1)); /* it does not just say all */
}

KEEL_TEST("BLOCK-001", block_rw, "KEEL-BLOCK-01 KEEL-DEVICE-20", BLOCKS, 0)
{
	u32 len;

	block_on(PLAIN | BIT(F_BLK_FLUSH), SIZE);
	kt_poison(DATA, 0x10000, 11);
	CHECK_EQ(block(OUT, 100, DATA, 0x10000), 0);
	CHECK_EQ(block(FLUSH, 0, DATA + 0x20000, 0), 0);
	memset(kt_ram(DATA + 0x20000), 0, 0x10000);
	request(0, IN, 100, DATA + 0x20000, 0x10000);
	offer(&bq, 0);
	ring(&bq);
	CHECK_EQ(take(&bq, &len), 0);
	CHECK_EQ(len, 0x10001);
	CHECK(!memcmp(kt_ram(DATA), kt_ram(DATA + 0x20000), 0x10000));
	/* The last sector, and the one before where it began. */
	CHECK_EQ(block(OUT, 2047, DATA, 512), 0);
	CHECK_EQ(block(IN, 2047, DATA + 0x20000, 512), 0);
	CHECK(!memcmp(kt_ram(DATA), kt_ram(DATA + 0x20000), 512));
	CHECK_EQ(block(IN, 99, DATA + 0x20000, 512), 0);
	for (u32 i = 0; i < 512; i += 8)
		CHECK_EQ(*(volatile u64 *)kt_ram(DATA + 0x20000 + i), 0);
}

KEEL_TEST("BLOCK-002", block_beyond, "KEEL-BLOCK-02", "neg " BLOCKS, 0)
{
	static const struct {
		u64 sector;
		u32 len;
	} bad[] = { { 2048, 512 },	  { 2047, 1024 },	    { ~0ull, 512 },
		    { ~0ull / 512, 512 }, { ~0ull / 512 + 1, 512 }, { 0, 511 },
		    { 0, 513 },		  { 0, (1 << 20) + 512 },   { 1, 1 << 20 } };

	block_on(PLAIN, SIZE);
	for (u32 i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		u32 len;

		memset(kt_ram(DATA), 0x77, 4096);
		CHECK_EQ(block(OUT, bad[i].sector, DATA, bad[i].len), 1);
		request(0, IN, bad[i].sector, DATA, bad[i].len);
		offer(&bq, 0);
		ring(&bq);
		CHECK_EQ(take(&bq, &len), 0);
		CHECK_EQ(len, 1);
		CHECK_EQ(*status_byte(0), 1);
		CHECK_EQ(*(volatile u64 *)kt_ram(DATA), 0x7777777777777777);
	}
	CHECK_EQ(block(IN, 2047, DATA, 512), 0); /* as it was */
	CHECK_EQ(*(volatile u64 *)kt_ram(DATA), 0);
	CHECK_EQ(block(IN, 0, DATA, 512), 0);
	CHECK_EQ(*(volatile u64 *)kt_ram(DATA), 0);
}

KEEL_TEST("BLOCK-003", block_read_only, "KEEL-BLOCK-03", "neg profile=IO devices=block-ro", 0)
{
	find(T_BLOCK, 0);
	CHECK(info.features[0] & BIT(F_BLK_RO));
	block_on(PLAIN | BIT(F_BLK_RO), SIZE);
	memset(kt_ram(DATA), 0x77, 512);
	CHECK_EQ(block(OUT, 0, DATA, 512), 1);
	CHECK_EQ(block(IN, 0, DATA, 512), 0);
	CHECK_EQ(*(volatile u64 *)kt_ram(DATA), 0);
	reset(dev);
	block_on(PLAIN, SIZE); /* the driver does not say that it knows */
	memset(kt_ram(DATA), 0x77, 512);
	CHECK_EQ(block(OUT, 0, DATA, 512), 1);
}

KEEL_TEST("BLOCK-004", block_other_types, "KEEL-BLOCK-01", "neg " BLOCKS, 0)
{
	static const u32 types[] = { 2, 3, 5, 6, 7, 9, 11, 13, 255, 0x80000000, 0xffffffff, 0x100 };

	block_on(PLAIN, SIZE);
	for (u32 i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		CHECK_EQ(block(types[i], 0, DATA, 512), 2);
	CHECK_EQ(block(OUT, 0, DATA, 0), 0); /* zero sectors */
	CHECK_EQ(block(IN, 0, DATA, 0), 0);
	memset(kt_ram(DATA), 0xff, 64);
	CHECK_EQ(block(GET_ID, 0, DATA, 20), 0);
	for (u32 i = 0; i < 20; i++)
		CHECK(((volatile u8 *)kt_ram(DATA))[i] < 127);
	CHECK_EQ(((volatile u8 *)kt_ram(DATA))[20], 0xff);
}

/* Many at a time, data of each its own. */
KEEL_TEST("BLOCK-005", block_depth, "KEEL-DEVICE-20 KEEL-BLOCK-04", BLOCKS " timeout=30", 0)
{
	block_on(PLAIN | BIT(F_BLK_FLUSH), 64);
	for (u32 round = 0; round < 50; round++) {
		u32 back = 0;

		for (u32 i = 0; i < 20; i++) {
			kt_poison(DATA + i * 4096, 4096, round * 100 + i);
			request(i, OUT, i * 8, DATA + i * 4096, 4096);
			offer(&bq, 3 * i);
		}
		ring(&bq);
		for (u32 i = 0; i < 20; i++)
			back |= 1u << take(&bq, NULL) / 3;
		REQUIRE(back == (1u << 20) - 1);
		CHECK_EQ(block(FLUSH, 0, DATA + 0x80000, 0), 0);
		for (u32 i = 0; i < 20; i++) {
			request(i, IN, i * 8, DATA + 0x20000 + i * 4096, 4096);
			offer(&bq, 3 * i);
		}
		ring(&bq);
		for (u32 i = 0; i < 20; i++)
			take(&bq, NULL);
		CHECK(!memcmp(kt_ram(DATA), kt_ram(DATA + 0x20000), 20 * 4096));
	}
}

KEEL_TEST("RNG-001", rng_fills, "KEEL-RNG-01", "profile=IO devices=rng", 0)
{
	struct queue q;
	u32 len, same = 0;

	dev = find(T_RNG, 0);
	CHECK_EQ(info.config_size, 0);
	negotiate(dev, PLAIN);
	make_queue(&q, dev, 0, SIZE, 0);
	go(dev);
	memset(kt_ram(DATA), 0, 8192);
	for (u32 i = 0; i < 2; i++) {
		describe(&q, 0, DATA + 4096 * i, 100, NEXT | WRITE, 1);
		describe(&q, 1, DATA + 4096 * i + 100, 156, WRITE, 0);
		offer(&q, 0);
		ring(&q);
		CHECK_EQ(take(&q, &len), 0);
		CHECK(len > 0 && len <= 256);
		CHECK_EQ(((volatile u8 *)kt_ram(DATA + 4096 * i))[256], 0);
	}
	for (u32 i = 0; i < len; i++)
		same += ((volatile u8 *)kt_ram(DATA))[i] == ((volatile u8 *)kt_ram(DATA + 4096))[i];
	CHECK(same < len); /* once in 2^2048 they are */
	/* A chain with nothing to write to is given back with nothing written. */
	describe(&q, 0, DATA, 64, 0, 0);
	offer(&q, 0);
	ring(&q);
	CHECK_EQ(take(&q, &len), 0);
	CHECK_EQ(len, 0);
}

/* Networks: a router at 10.0.2.2 answers ARP and ping. */

#define RX_BUFFERS 8u
#define HEADER_BYTES 12
#define F_CSUM 0
#define F_HOST_TSO4 11
#define F_MRG_RXBUF 15

static struct queue rxq, txq;
static const u8 our_mac[6] = { 2, 0, 0, 0, 0, 7 };

static u64 rx_buffer(u32 i)
{
	return DATA + 0x40000 + i * 4096;
}

/* Receive buffers of `room` bytes; the first of them are offered. */
static void net_on(u64 features, u32 room, u32 offered)
{
	dev = find(T_NET, 0);
	negotiate(dev, features & (info.features[0] | PLAIN));
	make_queue(&rxq, dev, 0, SIZE, 0);
	make_queue(&txq, dev, 1, SIZE, 1);
	go(dev);
	for (u32 i = 0; i < offered; i++) {
		memset(kt_ram(rx_buffer(i)), 0xcc, 4096);
		describe(&rxq, i, rx_buffer(i), room, WRITE, 0);
		offer(&rxq, i);
	}
	ring(&rxq);
}

/* A frame of n bytes behind a header of zeros. */
static void net_offer(const u8 *frame, u32 n)
{
	memset(kt_ram(DATA), 0, HEADER_BYTES);
	memcpy(kt_ram(DATA + HEADER_BYTES), frame, n);
	describe(&txq, 0, DATA, HEADER_BYTES + n, 0, 0);
	offer(&txq, 0);
	ring(&txq);
}

/* The same to its end: bytes written to it, -1 when it is not given back. */
static s64 net_send(const u8 *frame, u32 n)
{
	u32 len = 0;

	net_offer(frame, n);
	return take(&txq, &len) == 0 ? (s64)len : -1;
}

static u32 arp_request(u8 *f)
{
	static const u8 head[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 };

	memset(f, 0, 60);
	memcpy(f, head, sizeof(head));
	memcpy(f + 22, our_mac, 6);
	memcpy(f + 28, (const u8[]){ 10, 0, 2, 15 }, 4);
	memcpy(f + 38, (const u8[]){ 10, 0, 2, 2 }, 4);
	return 60;
}

/* Wait for the router's answer to ARP; the frame it came in, NULL with a failure. */
static const volatile u8 *arp_answer(u32 *len)
{
	for (u32 i = 0; i < RX_BUFFERS; i++) {
		u32 head = take(&rxq, len);
		const volatile u8 *b = head < RX_BUFFERS ? kt_ram(rx_buffer(head)) : NULL;

		if (!b)
			return NULL;
		if (b[HEADER_BYTES + 12] == 8 && b[HEADER_BYTES + 13] == 6 && b[HEADER_BYTES + 21] == 2)
			return b;
	}
	KT_FAIL("no answer to ARP");
	return NULL;
}

#define NETS "profile=IO devices=net"

KEEL_TEST("NET-001", net_arp, "KEEL-NET-01 KEEL-DEVICE-20", NETS, 0)
{
	const volatile u8 *b;
	u8 f[60];
	u32 len;

	net_on(PLAIN, 2048, RX_BUFFERS);
	CHECK_EQ(net_send(f, arp_request(f)), 0);
	b = arp_answer(&len);
	REQUIRE(b);
	CHECK(len >= HEADER_BYTES + 42 && len <= 2048);
	for (u32 i = 0; i < 10; i++)
		CHECK_EQ(b[i], 0);	 /* flags, offloads */
	CHECK_EQ(b[10] | b[11] << 8, 1); /* buffers */
	for (u32 i = 0; i < 6; i++)
		CHECK_EQ(b[HEADER_BYTES + i], our_mac[i]);
	CHECK_EQ(b[len], 0xcc); /* and no more than it says */
	CHECK_EQ(b[HEADER_BYTES + 28], 10);
	CHECK_EQ(b[HEADER_BYTES + 31], 2);
}

KEEL_TEST("NET-002", net_bad_frames, "KEEL-NET-02", "neg " NETS, 0)
{
	static const u32 lengths[] = { 0, 1, 11, 12, 13, 25 };
	u32 len;
	u8 f[60];

	net_on(PLAIN, 2048, RX_BUFFERS);
	memset(kt_ram(DATA), 0, 0x20000);
	for (u32 i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		describe(&txq, 0, DATA, lengths[i], 0, 0);
		offer(&txq, 0);
		ring(&txq);
		CHECK_EQ(take(&txq, &len), 0);
		CHECK_EQ(len, 0);
	}
	/* As long as can be, and much longer. */
	for (u32 i = 0; i < 2; i++) {
		describe(&txq, 0, i ? 0 : DATA, i ? (u32)kt_ram_size() : 0x20000, 0, 0);
		offer(&txq, 0);
		ring(&txq);
		CHECK_EQ(take(&txq, &len), 0);
		CHECK_EQ(len, 0);
	}
	/* An offload that was not offered. */
	memset(kt_ram(DATA), 0, HEADER_BYTES);
	*(volatile u8 *)kt_ram(DATA + 1) = 1;
	memcpy(kt_ram(DATA + HEADER_BYTES), f, arp_request(f));
	describe(&txq, 0, DATA, HEADER_BYTES + 60, 0, 0);
	offer(&txq, 0);
	ring(&txq);
	CHECK_EQ(take(&txq, &len), 0);
	kt_spin_ns(20 * MS);
	CHECK_EQ(given(&rxq), rxq.seen); /* nobody answered */
	CHECK_EQ(status_of(dev), LIVE);
	CHECK_EQ(net_send(f, arp_request(f)), 0);
	CHECK(arp_answer(&len));
}

KEEL_TEST("NET-003", net_small_buffers, "KEEL-NET-03", "neg " NETS, 0)
{
	u32 len;
	u8 f[60];

	net_on(PLAIN, 30, 1); /* no frame fits */
	CHECK_EQ(net_send(f, arp_request(f)), 0);
	kt_spin_ns(50 * MS);
	CHECK_EQ(given(&rxq), rxq.seen);
	CHECK_EQ(status_of(dev), LIVE);
	CHECK_EQ(*(volatile u8 *)kt_ram(rx_buffer(0)), 0xcc);
	/* No room for a header, and a buffer to read from: neither can be meant. */
	HC(KEEL_CALL_EVENT_CLOSE, rxq.port);
	HC(KEEL_CALL_EVENT_CLOSE, txq.port);
	net_on(PLAIN, 11, 1);
	net_offer(f, arp_request(f));
	CHECK(wait_status(dev, KEEL_DEVICE_NEEDS_RESET));
	HC(KEEL_CALL_EVENT_CLOSE, rxq.port);
	HC(KEEL_CALL_EVENT_CLOSE, txq.port);
	net_on(PLAIN, 2048, 0);
	describe(&rxq, 0, rx_buffer(0), 64, NEXT, 1);
	describe(&rxq, 1, rx_buffer(1), 2048, WRITE, 0);
	offer(&rxq, 0);
	ring(&rxq);
	net_offer(f, arp_request(f));
	CHECK(wait_status(dev, KEEL_DEVICE_NEEDS_RESET));
	HC(KEEL_CALL_EVENT_CLOSE, rxq.port);
	HC(KEEL_CALL_EVENT_CLOSE, txq.port);
	net_on(PLAIN, 2048, RX_BUFFERS);
	CHECK_EQ(net_send(f, arp_request(f)), 0);
	CHECK(arp_answer(&len));
}

KEEL_TEST("NET-004", net_merged, "KEEL-NET-03 KEEL-NET-01", NETS, 0)
{
	u32 len, sum = 0, n = 0;
	u8 f[60];

	dev = find(T_NET, 0);
	if (!(info.features[0] & BIT(F_MRG_RXBUF))) {
		kt_note("not offered");
		return;
	}
	net_on(PLAIN | BIT(F_MRG_RXBUF), 16, RX_BUFFERS); /* a frame of 42 bytes and more goes into several */
	CHECK_EQ(net_send(f, arp_request(f)), 0);
	do {
		u32 head = take(&rxq, &len);
		const volatile u8 *b = head < RX_BUFFERS ? kt_ram(rx_buffer(head)) : NULL;

		REQUIRE(b && len <= 16);
		if (!n)
			n = b[10] | b[11] << 8;
		CHECK_EQ(b[16], 0xcc);
		sum += len;
	} while (--n);
	CHECK(sum >= HEADER_BYTES + 42);
}

KEEL_TEST("NET-005", net_flood_and_reset, "KEEL-NET-04 KEEL-DEVICE-09", "neg " NETS " timeout=30", 0)
{
	u32 len;
	u8 f[60];

	for (u32 round = 0; round < 20; round++) {
		net_on(PLAIN, 2048, 1);
		/* Many answers, one place: the others wait or are gone. */
		for (u32 i = 0; i < 200; i++)
			if (net_send(f, arp_request(f)) < 0)
				return;
		CHECK((u16)(given(&rxq) - rxq.seen) <= 1);
		reset(dev);
		memset(kt_ram(rx_buffer(0)), 0x5a, 4096);
		kt_spin_ns(MS);
		for (u32 i = 0; i < 4096; i += 8)
			REQUIRE(*(volatile u64 *)kt_ram(rx_buffer(0) + i) == 0x5a5a5a5a5a5a5a5a);
		HC(KEEL_CALL_EVENT_CLOSE, rxq.port);
		HC(KEEL_CALL_EVENT_CLOSE, txq.port);
	}
	net_on(PLAIN, 2048, RX_BUFFERS);
	CHECK_EQ(net_send(f, arp_request(f)), 0);
	CHECK(arp_answer(&len));
}

KEEL_TEST("NET-006", net_config, "KEEL-NET-05 KEEL-DEVICE-22", "neg " NETS, 0)
{
	u32 d = find(T_NET, 0);
	volatile u8 *c = kt_ram(DATA);

	CHECK(info.features[0] & BIT(5)); /* it has a MAC */
	OK(HC(KEEL_CALL_DEVICE_CONFIG_READ, d, 0, DATA, 8));
	CHECK(!(c[0] & 1)); /* of one, not of a group */
	CHECK(c[0] | c[1] | c[2] | c[3] | c[4] | c[5]);
	CHECK_EQ(c[6] & 1, 1); /* the link is up */
	NEG(HC(KEEL_CALL_DEVICE_CONFIG_WRITE, d, 0, DATA, 6), KEEL_E_PERM, ARG(2));
}

/* A ping of n bytes of IPv4 and ICMP behind the addresses, without ICMP's checksum. */
static u32 ping(u8 *f, u32 n, const volatile u8 *router)
{
	u32 sum = 0;

	for (u32 i = 0; i < n; i++)
		f[14 + i] = (u8)(i * 7);
	for (u32 i = 0; i < 6; i++) {
		f[i] = router[i];
		f[6 + i] = our_mac[i];
	}
	memcpy(f + 12, (const u8[]){ 8, 0, 0x45, 0, (u8)(n >> 8), (u8)n, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 2, 15 }, 18);
	memcpy(f + 30, (const u8[]){ 10, 0, 2, 2, 8, 0, 0, 0, 0, 7, 0, 1 }, 12);
	for (u32 i = 14; i < 34; i += 2)
		sum += (u32)f[i] << 8 | f[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	f[24] = (u8)(~sum >> 8);
	f[25] = (u8)~sum;
	return 14 + n;
}

/* Send it with a header that has these fields; is it answered, within some time? */
static bool answered(const u8 *f, u32 n, u8 flags, u8 gso, u32 start, u32 offset)
{
	const u8 header[HEADER_BYTES] = {
		flags, gso, 0, 0, 0, 0, (u8)start, (u8)(start >> 8), (u8)offset, (u8)(offset >> 8)
	};
	u32 head, len;

	memcpy(kt_ram(DATA), header, HEADER_BYTES);
	memcpy(kt_ram(DATA + HEADER_BYTES), f, n);
	describe(&txq, 0, DATA, HEADER_BYTES + n, 0, 0);
	offer(&txq, 0);
	ring(&txq);
	CHECK_EQ(take(&txq, &len), 0);
	CHECK_EQ(len, 0);
	for (u32 i = 0; i < 40; i++) {
		const volatile u8 *b;

		if (given(&rxq) == rxq.seen) {
			kt_spin_ns(MS / 2);
			continue;
		}
		head = take(&rxq, &len);
		REQUIRE(head < RX_BUFFERS);
		b = kt_ram(rx_buffer(head) + HEADER_BYTES);
		offer(&rxq, head);
		ring(&rxq);
		if (b[13] == 0 && b[23] == 1 && b[34] == 0)
			return true;
	}
	return false;
}

KEEL_TEST("NET-007", net_checksum, "KEEL-NET-06 KEEL-NET-02", "neg " NETS, 0)
{
	static const u32 lengths[] = { 28, 29, 35, 36, 37, 100, 1499, 1500 };
	const volatile u8 *b;
	u8 f[14 + 1500];
	u32 len, n;

	dev = find(T_NET, 0);
	if (!(info.features[0] & BIT(F_CSUM))) {
		kt_note("not offered");
		return;
	}
	net_on(PLAIN | BIT(F_CSUM) | BIT(F_HOST_TSO4), 2048, RX_BUFFERS);
	CHECK_EQ(net_send(f, arp_request(f)), 0);
	b = arp_answer(&len);
	REQUIRE(b);
	memcpy(kt_ram(DATA + 0x10000), (const u8 *)b + HEADER_BYTES + 6, 6);
	b = kt_ram(DATA + 0x10000);
	for (u32 i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		n = ping(f, lengths[i], b);
		CHECK(answered(f, n, 1, 0, 34, 2));
	}
	/* A sum the driver left a part of, as it does of pseudo-headers: 0xffff is nothing. */
	f[36] = f[37] = 0xff;
	CHECK(answered(f, n, 1, 0, 34, 2));
	/* Without one it is none, and what cannot be is not sent. */
	n = ping(f, 100, b);
	CHECK(!answered(f, n, 0, 0, 34, 2));
	CHECK(!answered(f, n, 1, 0, 13, 23));
	CHECK(!answered(f, n, 1, 0, 34, n - 34 - 1));
	CHECK(!answered(f, n, 1, 0, n, 0));
	CHECK(!answered(f, n, 1, 0, 0xffff, 0xffff));
	CHECK(!answered(f, n, 3, 0, 34, 2));
	CHECK(!answered(f, n, 1, 2, 34, 2));
	CHECK(!answered(f, n, 0, 1, 34, 2));
	CHECK(answered(f, n, 1, 0, 34, 2));
	HC(KEEL_CALL_EVENT_CLOSE, rxq.port);
	HC(KEEL_CALL_EVENT_CLOSE, txq.port);
	/* Not accepted is as good as not offered. */
	net_on(PLAIN, 2048, RX_BUFFERS);
	CHECK(!answered(f, n, 1, 0, 34, 2));
	CHECK_EQ(status_of(dev), LIVE);
}

KEEL_TEST("VCON-001", console_output, "KEEL-VCON-01 KEEL-DEVICE-20", "profile=IO devices=console", 0)
{
	struct queue in, out;
	u32 len;

	dev = find(T_CONSOLE, 0);
	negotiate(dev, PLAIN);
	make_queue(&in, dev, 0, SIZE, 0);
	make_queue(&out, dev, 1, SIZE, 1);
	go(dev);
	memset(kt_ram(DATA), 'x', 0x20000);
	for (u32 i = 0; i < 200; i++) {
		/* In pieces, some of no bytes, some with places to write to, which are not. */
		describe(&out, 0, DATA, i * 97 % 4096, NEXT, 1);
		describe(&out, 1, DATA + 5000, i % 3, NEXT, 2);
		describe(&out, 2, DATA + 0x10000, 16, WRITE, 0);
		offer(&out, 0);
		ring(&out);
		CHECK_EQ(take(&out, &len), 0);
		CHECK_EQ(len, 0);
	}
	CHECK_EQ(*(volatile u8 *)kt_ram(DATA + 0x10000), 'x');
	/* One of a megabyte. */
	describe(&out, 0, DATA, 1 << 20, 0, 0);
	offer(&out, 0);
	ring(&out);
	CHECK_EQ(take(&out, &len), 0);
	CHECK_EQ(status_of(dev), LIVE);
	CHECK_EQ(given(&in), 0); /* nothing came */
}

KEEL_TEST("VCON-002", console_broken, "KEEL-VCON-01 KEEL-DEVICE-17", "neg profile=IO devices=console", 0)
{
	struct queue in, out;

	dev = find(T_CONSOLE, 0);
	for (u32 round = 0; round < 2; round++) {
		negotiate(dev, PLAIN);
		make_queue(&in, dev, 0, SIZE, 0);
		make_queue(&out, dev, 1, SIZE, 1);
		go(dev);
		describe(&out, 0, DATA, 100, NEXT, round ? 0 : SIZE);
		offer(&out, 0);
		ring(&out);
		CHECK(wait_status(dev, KEEL_DEVICE_NEEDS_RESET));
		CHECK_EQ(given(&out), 0);
		HC(KEEL_CALL_EVENT_CLOSE, in.port);
		HC(KEEL_CALL_EVENT_CLOSE, out.port);
	}
	reset(dev);
	CHECK_EQ(status_of(dev), 0);
}
