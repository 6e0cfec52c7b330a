// SPDX-License-Identifier: MIT
/* The device's side of a virtqueue, against drivers that make mistakes, lie, or write while it reads. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "driver.h"

#define ENTRIES 8u
#define TABLE (BUFFERS + 0x8000u) /* an indirect one */

static struct machine m;
static struct vring *const r = &m.ring[0];
static struct vq_chain c;

static int idle_open(struct device *d, const char *spec, struct error *e)
{
	(void)d;
	(void)spec;
	(void)e;
	return 0;
}

static void idle_kick(struct device *d)
{
	(void)d; /* the test is the one who looks */
}

static const struct device_kind idle = {
	.name = "idle",
	.queues = 2,
	.queue_max = 256,
	.open = idle_open,
	.kick = idle_kick,
};

static void go(uint64_t features, unsigned int entries)
{
	ring_make(&m, 0, entries);
	machine_go(&m, features);
}

static struct virtqueue *queue(void)
{
	return &m.d->queue[0];
}

static bool needs_reset(void)
{
	uint64_t value;

	assert_int_equal(STATUS(&m, KEEL_DEVICE_STATUS_READ, &value), KEEL_OK);
	return value & KEEL_DEVICE_NEEDS_RESET;
}

/* What drivers may do and may not. */

static struct vdesc *table(void)
{
	return (struct vdesc *)(m.p.ram + TABLE);
}

static void plain(void)
{
	ring_desc(r, 0, BUFFERS, 16, D_NEXT, 5);
	ring_desc(r, 5, BUFFERS + 16, 100, D_WRITE, 0);
}

static void whole_queue(void)
{
	for (uint16_t i = 0; i < ENTRIES; i++)
		ring_desc(r, i, BUFFERS + i, 1, D_NEXT, (uint16_t)(i + 1));
	ring_desc(r, ENTRIES - 1, BUFFERS, 1, 0, 0);
}

static void to_the_end(void)
{
	ring_desc(r, 0, 0, RAM_BYTES, D_NEXT, 1);
	ring_desc(r, 1, RAM_BYTES - 1, 1, D_WRITE, 0);
}

static void nothing(void)
{
	ring_desc(r, 0, BUFFERS, 0, D_NEXT, 1);
	ring_desc(r, 1, BUFFERS, 0, D_WRITE | D_NEXT, 2);
	ring_desc(r, 2, BUFFERS, 7, D_WRITE, 0);
}

static void indirect(void)
{
	ring_desc(r, 0, TABLE, 3 * 16, D_INDIRECT, 0);
	table()[0] = (struct vdesc){ BUFFERS, 4, D_NEXT, 2 };
	table()[2] = (struct vdesc){ BUFFERS, 8, D_WRITE | D_NEXT, 1 };
	table()[1] = (struct vdesc){ BUFFERS, 16, D_WRITE, 0 };
}

static void indirect_last(void)
{
	indirect();
	r->desc[3] = r->desc[0];
	ring_desc(r, 0, BUFFERS, 1, D_NEXT, 3);
}

static void indirect_whole(void)
{
	ring_desc(r, 0, TABLE, ENTRIES * 16, D_INDIRECT, 0);
	for (uint16_t i = 0; i < ENTRIES; i++)
		table()[i] = (struct vdesc){ BUFFERS, 1, i < ENTRIES - 1 ? D_NEXT : 0, (uint16_t)(i + 1) };
}

static void cycle(void)
{
	ring_desc(r, 0, BUFFERS, 1, D_NEXT, 1);
	ring_desc(r, 1, BUFFERS, 1, D_NEXT, 0);
}

static void cycle_of_nothing(void)
{
	ring_desc(r, 0, BUFFERS, 0, D_NEXT, 0);
}

static void indirect_cycle(void)
{
	indirect();
	table()[1] = (struct vdesc){ BUFFERS, 16, D_WRITE | D_NEXT, 2 };
}

static void longer_than_the_queue(void)
{
	indirect_whole();
	r->desc[3] = r->desc[0];
	ring_desc(r, 0, BUFFERS, 1, D_NEXT, 3);
}

static void next_outside(void)
{
	ring_desc(r, 0, BUFFERS, 1, D_NEXT, ENTRIES);
}

static void indirect_next_outside(void)
{
	indirect();
	table()[1] = (struct vdesc){ BUFFERS, 16, D_WRITE | D_NEXT, 3 };
}

static void past_the_end(void)
{
	ring_desc(r, 0, RAM_BYTES - 9, 10, 0, 0);
}

static void behind_the_end(void)
{
	ring_desc(r, 0, RAM_BYTES, 1, D_WRITE, 0);
}

static void around_the_end(void)
{
	ring_desc(r, 0, UINT64_MAX - 3, 8, D_WRITE, 0);
}

static void negative_length(void)
{
	ring_desc(r, 0, BUFFERS, UINT32_MAX, 0, 0);
}

static void readable_last(void)
{
	ring_desc(r, 0, BUFFERS, 1, D_WRITE | D_NEXT, 1);
	ring_desc(r, 1, BUFFERS, 1, 0, 0);
}

static void indirect_twice(void)
{
	indirect();
	table()[2] = (struct vdesc){ TABLE, 16, D_INDIRECT, 0 };
}

static void indirect_and_next(void)
{
	indirect();
	r->desc[0].flags |= D_NEXT;
}

static void indirect_and_write(void)
{
	indirect();
	r->desc[0].flags |= D_WRITE;
}

static void indirect_odd(void)
{
	indirect();
	r->desc[0].len -= 1;
}

static void indirect_empty(void)
{
	indirect();
	r->desc[0].len = 0;
}

static void indirect_large(void)
{
	indirect_whole();
	r->desc[0].len += 16;
}

static void indirect_huge(void)
{
	indirect();
	r->desc[0].len = 0xfffffff0;
}

static void indirect_outside(void)
{
	indirect();
	r->desc[0].addr = RAM_BYTES - 16;
}

static void indirect_around(void)
{
	indirect();
	r->desc[0].addr = UINT64_MAX - 15;
}

#define F_INDIRECT (UINT64_C(1) << 28)
#define F_EVENT (UINT64_C(1) << 29)

static const struct {
	const char *name;
	void (*make)(void);
	bool good;
	unsigned int out, in; /* pieces */
	size_t out_bytes, in_bytes;
	bool no_indirect; /* the feature is not accepted */
} chains[] = {
#define GOOD(make, ...)                               \
	{                                             \
#make, make, true, __VA_ARGS__, false \
	}
#define BAD(make)                                     \
	{                                             \
#make, make, false, 0, 0, 0, 0, false \
	}
	GOOD(plain, 1, 1, 16, 100),
	GOOD(whole_queue, 8, 0, 8, 0),
	GOOD(to_the_end, 1, 1, RAM_BYTES, 1),
	GOOD(nothing, 0, 1, 0, 7),
	GOOD(indirect, 1, 2, 4, 24),
	GOOD(indirect_last, 2, 2, 5, 24),
	GOOD(indirect_whole, 8, 0, 8, 0),
	BAD(cycle),
	BAD(cycle_of_nothing),
	BAD(indirect_cycle),
	BAD(longer_than_the_queue),
	BAD(next_outside),
	BAD(indirect_next_outside),
	BAD(past_the_end),
	BAD(behind_the_end),
	BAD(around_the_end),
	BAD(negative_length),
	BAD(readable_last),
	BAD(indirect_twice),
	BAD(indirect_and_next),
	BAD(indirect_and_write),
	BAD(indirect_odd),
	BAD(indirect_empty),
	BAD(indirect_large),
	BAD(indirect_huge),
	BAD(indirect_outside),
	BAD(indirect_around),
	{ "indirect, not accepted", indirect, false, 0, 0, 0, 0, true },
#undef GOOD
#undef BAD
};

static void test_vq_chains(void **state)
{
	(void)state;
	machine_make(&m, &idle, "");
	for (size_t i = 0; i < sizeof(chains) / sizeof(chains[0]); i++) {
		go(chains[i].no_indirect ? 0 : F_INDIRECT, ENTRIES);
		chains[i].make();
		assert_false(vq_pop(queue(), &c));
		ring_offer(r, 0);
		if (vq_pop(queue(), &c) != chains[i].good || needs_reset() == chains[i].good)
			fail_msg("%s", chains[i].name);
		if (chains[i].good) {
			assert_int_equal(c.out, chains[i].out);
			assert_int_equal(c.in, chains[i].in);
			assert_int_equal(vq_bytes(c.piece, c.out), chains[i].out_bytes);
			assert_int_equal(vq_bytes(c.piece + c.out, c.in), chains[i].in_bytes);
			vq_push(queue(), &c, 1234);
			assert_false(ring_has(r));
			vq_flush(queue());
			assert_true(ring_has(r));
			assert_int_equal(ring_wait(r, NULL), 0);
		}
		/* After either, nothing. */
		assert_false(vq_pop(queue(), &c));
		machine_reset(&m);
	}
	machine_end(&m);
}

/* Heads: one that does not exist, one that is in flight, and an index that ran ahead. */
static void test_vq_heads(void **state)
{
	struct vq_chain first;

	(void)state;
	machine_make(&m, &idle, "");
	go(0, ENTRIES);
	plain();
	ring_offer(r, ENTRIES);
	assert_false(vq_pop(queue(), &c));
	assert_true(needs_reset());
	machine_reset(&m);

	go(0, ENTRIES);
	plain();
	ring_offer(r, 0);
	ring_offer(r, 0);
	assert_true(vq_pop(queue(), &first));
	assert_false(vq_pop(queue(), &c));
	assert_true(needs_reset());
	/* What was in flight when it broke is not given back any more. */
	vq_push(queue(), &first, 0);
	vq_flush(queue());
	assert_false(ring_has(r));
	assert_false(vq_notify(queue(), true));
	machine_reset(&m);

	go(0, ENTRIES);
	plain();
	ring_offer(r, 0);
	assert_true(vq_pop(queue(), &c));
	vq_push(queue(), &c, 0);
	ring_offer(r, 0); /* given back: it may be offered again */
	assert_true(vq_pop(queue(), &c));
	vq_push(queue(), &c, 0);
	vq_flush(queue());
	machine_reset(&m);

	for (unsigned int ahead = ENTRIES; ahead <= ENTRIES + 1; ahead++) {
		go(0, ENTRIES);
		plain();
		r->avail[1] = (uint16_t)ahead;
		assert_int_equal(vq_pop(queue(), &c), ahead == ENTRIES);
		assert_int_equal(needs_reset(), ahead != ENTRIES);
		machine_reset(&m);
	}
	go(0, ENTRIES);
	r->avail[1] = UINT16_MAX; /* one back */
	assert_false(vq_pop(queue(), &c));
	assert_true(needs_reset());
	machine_end(&m);
}

/* Indices go round, and every chain is given back in its place. */
static void test_vq_wrap(void **state)
{
	uint32_t len;

	(void)state;
	machine_make(&m, &idle, "");
	for (unsigned int entries = 1; entries <= 256; entries *= 16) {
		go(0, entries);
		for (uint16_t i = 0; i < entries; i++)
			ring_desc(r, i, BUFFERS + i, 1, D_WRITE, 0);
		for (uint32_t n = 0; n < 0x10000 + 3 * entries; n++) {
			const uint16_t head = (uint16_t)(n * 5 % entries);

			ring_offer(r, head);
			assert_true(vq_pop(queue(), &c));
			assert_int_equal(c.head, head);
			assert_ptr_equal(c.piece[0].iov_base, m.p.ram + BUFFERS + head);
			vq_push(queue(), &c, n);
			vq_flush(queue());
			assert_int_equal(ring_wait(r, &len), head);
			assert_int_equal(len, n);
		}
		machine_reset(&m);
	}
	machine_end(&m);
}

/* Is the driver told when it asked to be? By index: of what was given back from old on, number `event` was the one. */
static void test_vq_event(void **state)
{
	static const uint16_t step[] = { 1, 2, 255, 256 };

	(void)state;
	machine_make(&m, &idle, "");
	go(F_EVENT, 256);
	for (uint32_t base = 0; base < 0x10000; base += 0x0fff)
		for (size_t s = 0; s < sizeof(step) / sizeof(step[0]); s++)
			for (int at = -3; at <= step[s] + 3; at++) {
				const bool within = at >= 0 && at < step[s];
				const uint64_t before = m.d->notified;

				queue()->signalled = (uint16_t)base;
				queue()->used = (uint16_t)(base + step[s]);
				r->avail[2 + 256] = (uint16_t)(base + (uint32_t)at);
				vq_flush(queue());
				if (m.d->notified - before != within)
					fail_msg("%u + %u, event at %d", base, step[s], at);
				vq_flush(queue()); /* once */
				assert_int_equal(m.d->notified - before, within);
			}
	/* The other way: the driver is asked for the next there is. */
	for (uint32_t next = 0; next < 0x10000; next += 0x0fff) {
		queue()->next_avail = queue()->seen_avail = (uint16_t)next;
		r->avail[1] = (uint16_t)next;
		assert_false(vq_notify(queue(), true));
		assert_int_equal(r->used[2 + 256 * 4], (uint16_t)next);
		r->avail[1] = (uint16_t)(next + 1);
		assert_true(vq_notify(queue(), true));
	}
	machine_reset(&m);
	/* Without indices: flags. */
	go(0, ENTRIES);
	plain();
	for (int quiet = 0; quiet < 2; quiet++) {
		const uint64_t before = m.d->notified;

		r->avail[0] = (uint16_t)quiet;
		ring_offer(r, 0);
		vq_notify(queue(), false);
		assert_int_equal(r->used[0], 1);
		assert_true(vq_notify(queue(), true));
		assert_int_equal(r->used[0], 0);
		assert_true(vq_pop(queue(), &c));
		assert_false(vq_notify(queue(), true));
		vq_push(queue(), &c, 0);
		m.vcpu.event_pending[0] = 0;
		vq_flush(queue());
		assert_int_equal(m.d->notified - before, !quiet);
		assert_int_equal(m.vcpu.event_pending[0], !quiet); /* port 0 */
	}
	machine_end(&m);
}

/* HARVEST has every page that the device may have written, and no other. */
static void test_vq_tracking(void **state)
{
	static uint8_t log[RAM_BYTES / KEEL_PAGE_SIZE / 8];
	uint32_t on = 1;

	(void)state;
	machine_make(&m, &idle, "");
	m.p.tracking = &on;
	m.p.hostlog = log;
	go(0, ENTRIES); /* rings in pages 0 and 1 */
	ring_desc(r, 0, 0x20000, 4096, D_NEXT, 1);
	ring_desc(r, 1, 0x30fff, 2, D_WRITE | D_NEXT, 2);
	ring_desc(r, 2, 0x40000, 4096, D_WRITE, 0);
	ring_offer(r, 0);
	memset(log, 0, sizeof(log));
	assert_true(vq_pop(queue(), &c));
	vq_push(queue(), &c, 0);
	vq_flush(queue());
	for (unsigned int page = 0; page < RAM_BYTES / KEEL_PAGE_SIZE; page++)
		assert_int_equal(log[page / 8] >> page % 8 & 1,
				 page == 1 || page == 0x30 || page == 0x31 || page == 0x40);
	on = 0;
	memset(log, 0, sizeof(log));
	ring_offer(r, 0);
	assert_true(vq_pop(queue(), &c));
	vq_push(queue(), &c, 0);
	vq_flush(queue());
	for (size_t i = 0; i < sizeof(log); i++)
		assert_int_equal(log[i], 0);
	machine_end(&m);
}

/* Copies between pieces and memory, against the obvious. */
static void test_vq_copy(void **state)
{
	uint8_t from[600], flat[600], to[700];
	struct iovec piece[8];
	unsigned int seed = 1;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		size_t at = 0, skip, len, n;

		for (unsigned int i = 0; i < 8; i++) {
			piece[i].iov_base = from + at;
			piece[i].iov_len = rand_r(&seed) % 5 ? (size_t)rand_r(&seed) % 75 : 0;
			at += piece[i].iov_len;
		}
		assert_int_equal(vq_bytes(piece, 8), at);
		for (size_t i = 0; i < sizeof(from); i++)
			from[i] = flat[i] = (uint8_t)rand_r(&seed);
		skip = (size_t)rand_r(&seed) % 650;
		len = (size_t)rand_r(&seed) % 650;
		n = skip >= at ? 0 : len < at - skip ? len : at - skip;
		assert_int_equal(vq_read(piece, 8, skip, to, len), n);
		assert_memory_equal(to, flat + skip, n);
		for (size_t i = 0; i < n; i++)
			flat[skip + i] = to[i] ^= 0x5a;
		assert_int_equal(vq_write(piece, 8, skip, to, len), n);
		assert_memory_equal(from, flat, sizeof(flat));
	}
}

static void test_vq_fits(void **state)
{
	static const struct {
		uint64_t desc, driver, device;
		uint32_t entries;
		int wrong; /* field; 0 = fits */
	} areas[] = {
		{ 0, 0x1000, 0x2000, 256, 0 },	    { RAM_BYTES - 4096, RAM_BYTES - 518, RAM_BYTES - 2054, 256, 0 },
		{ RAM_BYTES - 4095, 0, 0, 256, 5 }, { 0, RAM_BYTES - 517, 0, 256, 6 },
		{ 0, 0, RAM_BYTES - 2053, 256, 7 }, { RAM_BYTES - 16, RAM_BYTES - 8, RAM_BYTES - 14, 1, 0 },
		{ UINT64_MAX - 15, 0, 0, 1, 5 },    { 0, UINT64_MAX - 1, 0, 1, 6 },
		{ 0, 0, UINT64_MAX - 3, 1, 7 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(areas) / sizeof(areas[0]); i++) {
		int field = 0;
		const bool fits =
			vq_fits(RAM_BYTES, areas[i].entries, areas[i].desc, areas[i].driver, areas[i].device, &field);

		assert_int_equal(fits, !areas[i].wrong);
		assert_true(fits || field == areas[i].wrong);
	}
}

/* Another vCPU that writes while the device reads: descriptors that are now this, now that. */

static atomic_bool stop;

static void *flip(void *unused)
{
	static const struct vdesc values[] = {
		{ BUFFERS, 64, D_NEXT, 1 },
		{ BUFFERS, 64, D_WRITE | D_NEXT, 2 },
		{ UINT64_MAX - 7, 0x100, D_NEXT, 3 },
		{ RAM_BYTES - 8, 0xffffffff, D_WRITE, 0 },
		{ TABLE, 64, D_INDIRECT, 0 },
		{ RAM_BYTES - 8, 64, D_INDIRECT, 5 },
		{ TABLE + 16, 0xfffffff0, D_INDIRECT, 0xffff },
		{ RAM_BYTES, 0, 0, ENTRIES },
		{ BUFFERS + 5, 1, 0, 0xffff },
	};
	unsigned int seed = 7;

	(void)unused;
	while (!stop) {
		volatile struct vdesc *d = rand_r(&seed) & 1 ? &r->desc[rand_r(&seed) % ENTRIES]
							     : &table()[rand_r(&seed) % 4];
		const struct vdesc *v = &values[(unsigned int)rand_r(&seed) % (sizeof(values) / sizeof(values[0]))];

		/* Field by field, so that they mix. */
		switch (rand_r(&seed) % 4) {
		case 0:
			d->addr = v->addr;
			break;
		case 1:
			d->len = v->len;
			break;
		case 2:
			d->flags = v->flags;
			break;
		default:
			d->next = v->next;
		}
	}
	return NULL;
}

/* A driver that breaks the rules for ever is told of so often, and no more: the log is the host's. */
static void test_vq_complaints(void **state)
{
	int log = memfd_create("log", MFD_CLOEXEC), err = dup(2);
	unsigned int lines = 0;
	char text[8192];
	ssize_t n;

	(void)state;
	machine_make(&m, &idle, "");
	assert_true(log >= 0 && err >= 0 && dup2(log, 2) == 2);
	for (int i = 0; i < 100; i++) {
		uint64_t value = 1;

		go(0, ENTRIES);
		r->avail[1] = ENTRIES + 1;
		if (vq_pop(queue(), &c) || !needs_reset())
			break;
		while (STATUS(&m, 0, &value) == KEEL_OK && value)
			usleep(1000);
		lines++;
	}
	dup2(err, 2);
	close(err);
	assert_int_equal(lines, 100);
	n = pread(log, text, sizeof(text), 0);
	assert_true(n > 0 && n < (ssize_t)sizeof(text));
	lines = 0;
	for (ssize_t i = 0; i < n; i++)
		lines += text[i] == '\n';
	assert_int_equal(lines, 16);
	close(log);
	machine_end(&m);
}

static void test_vq_race(void **state)
{
	unsigned int good = 0, bad = 0;
	pthread_t thread;
	uint8_t sum = 0;

	(void)state;
	machine_make(&m, &idle, "");
	go(F_INDIRECT, ENTRIES);
	stop = false;
	assert_int_equal(pthread_create(&thread, NULL, flip, NULL), 0);
	for (int i = 0; i < 200000 || (good < 100 && i < 20000000); i++) {
		struct virtqueue *q = queue();

		q->next_avail = q->seen_avail = (uint16_t)(i - 1);
		memset(q->taken, 0, sizeof(q->taken));
		q->in_flight = 0;
		q->enabled = true; /* it has been broken already, and said so */
		r->avail[2 + (uint16_t)(i - 1) % ENTRIES] = (uint16_t)(i % ENTRIES);
		r->avail[1] = (uint16_t)i;
		if (!vq_pop(q, &c)) {
			bad++;
			continue;
		}
		good++;
		assert_true(c.out + c.in <= ENTRIES);
		for (unsigned int k = 0; k < c.out + c.in; k++) {
			const uint8_t *at = c.piece[k].iov_base;

			assert_true(at >= m.p.ram && c.piece[k].iov_len && c.piece[k].iov_len <= RAM_BYTES);
			assert_true(at + c.piece[k].iov_len <= m.p.ram + RAM_BYTES);
			sum += at[0] + at[c.piece[k].iov_len - 1];
		}
	}
	stop = true;
	pthread_join(thread, NULL);
	assert_true(good >= 100 && bad >= 100);
	(void)*(volatile uint8_t *)&sum;
	machine_end(&m);
}

const struct CMUnitTest virtqueue_tests[] = {
	cmocka_unit_test(test_vq_chains),   cmocka_unit_test(test_vq_heads), cmocka_unit_test(test_vq_wrap),
	cmocka_unit_test(test_vq_event),    cmocka_unit_test(test_vq_copy),  cmocka_unit_test(test_vq_fits),
	cmocka_unit_test(test_vq_tracking), cmocka_unit_test(test_vq_race),  cmocka_unit_test(test_vq_complaints),
};
DEFINE_TESTS(virtqueue);
