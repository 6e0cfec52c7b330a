// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* The virtqueue driver against fake_queue.h: a device that works, one that lies, and one on another thread. */
#include <pthread.h>
#include <semaphore.h>

#include <hypercall/virtq.h>

#include "fake_queue.h"

#define ENTRIES 8
#define EACH 4 /* descriptors of an indirect table */
#define SHIFT FAKE_SHIFT
#define INDIRECT KEEL_VIRTIO_F_INDIRECT_DESC
#define EVENT_IDX KEEL_VIRTIO_F_EVENT_IDX

/* Each of its own and of its exact size, so that the sanitizer sees a step outside. */
static struct rig {
	struct keel_virtq q;
	struct keel_virtq_memory mem;
	struct fake_queue dev;
	uint8_t data[4096];
} rig;

static struct keel_virtq *const q = &rig.q;
static struct fake_queue *const dev = &rig.dev;

/* All entries start at index `start`, as they would after that many buffers. */
static void begin(unsigned int entries, uint64_t features, uint16_t start)
{
	assert_int_equal(keel_virtq_init(q, entries, &rig.mem, features), 0);
	q->added = q->published = q->taken = start;
	*dev = (struct fake_queue){ .ring = rig.mem.ring,
				    .entries = entries,
				    .seen = start,
				    .given = start,
				    .signalled = start,
				    .event_idx = features & EVENT_IDX };
	fake_avail(dev)[1] = fake_used(dev)[1] = start;
	*fake_avail_event(dev) = fake_avail(dev)[2 + entries] = start;
}

static int fresh(void **state)
{
	(void)state;
	memset(&rig, 0, sizeof(rig));
	rig.mem.ring = malloc(KEEL_VIRTQ_BYTES(ENTRIES)); /* aligned to 16 */
	rig.mem.ring_gpa = (uintptr_t)rig.mem.ring + SHIFT;
	rig.mem.slots = malloc(ENTRIES * sizeof(*rig.mem.slots));
	rig.mem.indirect = malloc(sizeof(struct keel_virtq_desc) * ENTRIES * EACH);
	rig.mem.indirect_gpa = (uintptr_t)rig.mem.indirect + SHIFT;
	rig.mem.indirect_each = EACH;
	if (!rig.mem.ring || !rig.mem.slots || !rig.mem.indirect)
		return -1;
	memset(rig.mem.ring, 0xa5, KEEL_VIRTQ_BYTES(ENTRIES));
	begin(ENTRIES, 0, 0);
	return 0;
}

static int gone(void **state)
{
	(void)state;
	free(rig.mem.ring);
	free(rig.mem.slots);
	free(rig.mem.indirect);
	return 0;
}

static struct keel_virtq_seg seg(unsigned int at, uint32_t len)
{
	return (struct keel_virtq_seg){ (uintptr_t)rig.data + at + SHIFT, len };
}

static void *tag(uintptr_t n)
{
	return (void *)n;
}

/* Lend one buffer of one part of 16 bytes; returns its head. */
static uint16_t lend(uintptr_t n, bool write)
{
	struct keel_virtq_seg s = seg(0, 16);
	uint16_t head = q->free_head;

	assert_int_equal(keel_virtq_add(q, &s, !write, write, tag(n)), 0);
	return head;
}

/* ---------------------------------------------------------------- one that works */

static void parts_are_where_virtio_has_them(void **state)
{
	(void)state;
	assert_int_equal(KEEL_VIRTQ_AVAIL_AT(256), 4096);
	assert_int_equal(KEEL_VIRTQ_USED_AT(256), 4096 + 4 + 512 + 2 + 2);
	assert_int_equal(KEEL_VIRTQ_BYTES(256), 4616 + 4 + 2048 + 2);
	assert_int_equal(KEEL_VIRTQ_AVAIL_AT(1), 16);
	assert_int_equal(KEEL_VIRTQ_USED_AT(1), 24);
	assert_int_equal(KEEL_VIRTQ_BYTES(1), 38);
	assert_int_equal(keel_virtq_desc_gpa(q), rig.mem.ring_gpa);
	assert_int_equal(keel_virtq_avail_gpa(q), rig.mem.ring_gpa + 128);
	assert_int_equal(keel_virtq_used_gpa(q), rig.mem.ring_gpa + 152);
	/* All zero: no flags, nothing lent, an event for the first buffer. */
	for (unsigned int i = 0; i < KEEL_VIRTQ_BYTES(ENTRIES); i++)
		assert_int_equal(((uint8_t *)rig.mem.ring)[i], 0);
}

static void what_no_queue_can_be(void **state)
{
	static const uint32_t bad[] = { 0, 3, 6, 12, 65536, 0x80000000 };
	struct keel_virtq_memory mem = rig.mem;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(keel_virtq_init(q, bad[i], &mem, 0), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2)));
	mem.ring_gpa += 8;
	assert_int_equal(keel_virtq_init(q, ENTRIES, &mem, 0), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(3)));
	mem = rig.mem;
	mem.indirect_gpa += 2;
	assert_int_equal(keel_virtq_init(q, ENTRIES, &mem, 0), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(3)));
	mem = rig.mem;
	mem.slots = NULL;
	assert_int_equal(keel_virtq_init(q, ENTRIES, &mem, 0), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(3)));
}

static void what_no_buffer_can_be(void **state)
{
	struct keel_virtq_seg s[ENTRIES + 1];

	(void)state;
	for (unsigned int i = 0; i <= ENTRIES; i++)
		s[i] = seg(i * 16, 16);
	assert_int_equal(keel_virtq_add(q, s, 0, 0, NULL), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2)));
	assert_int_equal(keel_virtq_add(q, s, ENTRIES, 1, NULL), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2)));
	assert_int_equal(keel_virtq_add(q, s, 0xffffffff, 2, NULL), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2)));
	s[1].len = 0;
	assert_int_equal(keel_virtq_add(q, s, 2, 1, NULL), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2)));
	s[1].len = 0xfffffff0; /* 4 GiB with the 16 bytes before it */
	assert_int_equal(keel_virtq_add(q, s, 1, 1, NULL), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2)));
	s[1].len--;
	assert_int_equal(keel_virtq_add(q, s, 1, 1, NULL), 0);
	assert_int_equal(q->free, ENTRIES - 2);
}

static void a_buffer_goes_there_and_back(void **state)
{
	const struct keel_virtq_seg s[4] = { seg(0, 5), seg(100, 6), seg(200, 7), seg(300, 8) };
	struct fake_chain c;
	void *cookie;
	uint32_t len;

	(void)state;
	assert_int_equal(keel_virtq_add(q, s, 2, 2, tag(77)), 0);
	assert_int_equal(fake_pop(dev, &c), 0); /* not yet published */
	keel_virtq_publish(q);
	assert_int_equal(fake_pop(dev, &c), 1);
	assert_int_equal(c.out, 2);
	assert_int_equal(c.in, 2);
	for (int i = 0; i < 4; i++) {
		assert_ptr_equal(c.part[i].at, fake_va(s[i].gpa));
		assert_int_equal(c.part[i].len, s[i].len);
	}
	assert_int_equal(fake_pop(dev, &c), 0);
	assert_int_equal(keel_virtq_get(q, &cookie, &len), 0);
	fake_push(dev, c.head, 9);
	assert_int_equal(keel_virtq_get(q, &cookie, &len), 1);
	assert_ptr_equal(cookie, tag(77));
	assert_int_equal(len, 9);
	assert_int_equal(keel_virtq_get(q, &cookie, NULL), 0);
	assert_int_equal(q->free, ENTRIES);
}

static void one_publication_shows_several(void **state)
{
	struct fake_chain c;

	(void)state;
	for (uintptr_t i = 0; i < 3; i++)
		lend(i, true);
	keel_virtq_publish(q);
	assert_int_equal(fake_avail(dev)[1], 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(fake_pop(dev, &c), 1);
	assert_int_equal(fake_pop(dev, &c), 0);
}

static void a_full_queue_takes_no_more(void **state)
{
	struct keel_virtq_seg s[3] = { seg(0, 1), seg(1, 1), seg(2, 1) };
	struct fake_chain c;
	void *cookie;

	(void)state;
	for (uintptr_t i = 0; i < ENTRIES - 2; i++)
		lend(i, false);
	assert_int_equal(keel_virtq_add(q, s, 3, 0, NULL), KEEL_STATUS(KEEL_E_AGAIN, 0));
	assert_int_equal(keel_virtq_add(q, s, 2, 0, tag(100)), 0);
	assert_int_equal(keel_virtq_add(q, s, 1, 0, NULL), KEEL_STATUS(KEEL_E_AGAIN, 0));
	keel_virtq_publish(q);
	for (int i = 0; i < ENTRIES - 1; i++)
		assert_int_equal(fake_pop(dev, &c), 1);
	/* The last one, of two descriptors, comes back first. */
	fake_push(dev, c.head, 0);
	assert_int_equal(keel_virtq_get(q, &cookie, NULL), 1);
	assert_ptr_equal(cookie, tag(100));
	assert_int_equal(keel_virtq_add(q, s, 3, 0, NULL), KEEL_STATUS(KEEL_E_AGAIN, 0));
	assert_int_equal(keel_virtq_add(q, s, 2, 0, NULL), 0);
	assert_int_equal(q->free, 0);
}

static void an_indirect_buffer_is_one_descriptor(void **state)
{
	struct keel_virtq_seg s[EACH + 1];
	const struct keel_virtq_desc *table = rig.mem.ring;
	struct fake_chain c;

	(void)state;
	for (unsigned int i = 0; i <= EACH; i++)
		s[i] = seg(16 * i, 16);
	begin(ENTRIES, INDIRECT, 0);
	assert_int_equal(keel_virtq_add(q, s, 1, EACH - 1, NULL), 0);
	assert_int_equal(q->free, ENTRIES - 1);
	assert_int_equal(table[0].flags, KEEL_VIRTQ_DESC_INDIRECT);
	assert_int_equal(table[0].len, 16 * EACH);
	/* One segment needs no table, and one too many has none. */
	assert_int_equal(keel_virtq_add(q, s, 1, 0, NULL), 0);
	assert_int_equal(table[1].flags, 0);
	assert_int_equal(keel_virtq_add(q, s, 1, EACH, NULL), 0);
	assert_int_equal(q->free, ENTRIES - 2 - (EACH + 1));
	keel_virtq_publish(q);
	assert_int_equal(fake_pop(dev, &c), 1);
	assert_int_equal(c.out, 1);
	assert_int_equal(c.in, EACH - 1);
	for (int i = 0; i < EACH; i++)
		assert_ptr_equal(c.part[i].at, fake_va(s[i].gpa));
	assert_int_equal(fake_pop(dev, &c), 1);
	assert_int_equal(fake_pop(dev, &c), 1);
	assert_int_equal(c.in, EACH);

	/* Not accepted, or no memory for it: chains. */
	begin(ENTRIES, 0, 0);
	assert_int_equal(keel_virtq_add(q, s, 1, 2, NULL), 0);
	assert_int_equal(q->free, ENTRIES - 3);
}

/* Each entry's table is its own: full of indirect buffers, all arrive. */
static void a_queue_full_of_indirect_buffers(void **state)
{
	struct keel_virtq_seg s[EACH];
	struct fake_chain c;

	(void)state;
	begin(ENTRIES, INDIRECT, 0);
	for (unsigned int b = 0; b < ENTRIES; b++) {
		for (unsigned int i = 0; i < EACH; i++)
			s[i] = seg(b * 64 + i, 1);
		assert_int_equal(keel_virtq_add(q, s, 0, EACH, tag(b)), 0);
	}
	assert_int_equal(keel_virtq_add(q, s, 0, EACH, NULL), KEEL_STATUS(KEEL_E_AGAIN, 0));
	keel_virtq_publish(q);
	for (unsigned int b = 0; b < ENTRIES; b++) {
		assert_int_equal(fake_pop(dev, &c), 1);
		for (unsigned int i = 0; i < EACH; i++)
			assert_ptr_equal(c.part[i].at, rig.data + b * 64 + i);
	}
}

/* Random buffers, returned in any order, past the wrap of all indices several times. */
static void any_traffic_matches_a_model(void **state)
{
	static const uint64_t features[] = { 0, INDIRECT, EVENT_IDX, INDIRECT | EVENT_IDX };
	uint64_t seed = 11;

	(void)state;
	for (size_t f = 0; f < sizeof(features) / sizeof(features[0]); f++) {
		struct {
			uintptr_t id;
			uint32_t lent, out, in;
		} queued[ENTRIES], held[ENTRIES], *h;
		unsigned int nqueued = 0, nheld = 0, free = ENTRIES;
		unsigned int need[ENTRIES];
		uint16_t head[ENTRIES];
		uintptr_t next = 1;

		begin(ENTRIES, features[f], 0xfff0);
		while (next < 150000) {
			struct keel_virtq_seg s[ENTRIES];
			unsigned int out = (unsigned int)below(&seed, 3), in = (unsigned int)below(&seed, 3);
			unsigned int n = out + in, descs = features[f] & INDIRECT ? 1 : n;
			struct fake_chain c;
			keel_s64 status;
			void *cookie;
			uint32_t len;

			switch (below(&seed, 3)) {
			case 0:
				if (!n)
					break;
				h = &queued[nqueued < ENTRIES ? nqueued : 0];
				if (descs <= free)
					h->lent = 0;
				for (unsigned int i = 0; i < n; i++) {
					s[i] = seg((unsigned int)below(&seed, 4000), 1 + (uint32_t)below(&seed, 90));
					if (i >= out && descs <= free)
						h->lent += s[i].len;
				}
				status = keel_virtq_add(q, s, out, in, tag(next));
				if (descs > free) {
					assert_int_equal(status, KEEL_STATUS(KEEL_E_AGAIN, 0));
					break;
				}
				assert_int_equal(status, 0);
				h->id = next++;
				h->out = out;
				h->in = in;
				nqueued++;
				free -= descs;
				if (below(&seed, 2))
					keel_virtq_publish(q);
				break;
			case 1:
				keel_virtq_publish(q);
				if (!nqueued || fake_pop(dev, &c) != 1)
					break;
				/* The oldest first. */
				assert_int_equal(c.out, queued[0].out);
				assert_int_equal(c.in, queued[0].in);
				held[nheld] = queued[0];
				head[nheld] = c.head;
				need[nheld++] = features[f] & INDIRECT ? 1 : c.out + c.in;
				memmove(queued, queued + 1, --nqueued * sizeof(queued[0]));
				break;
			default:
				if (!nheld) {
					assert_int_equal(keel_virtq_get(q, &cookie, &len), 0);
					break;
				}
				n = (unsigned int)below(&seed, nheld);
				fake_push(dev, head[n], held[n].lent);
				assert_int_equal(keel_virtq_get(q, &cookie, &len), 1);
				assert_ptr_equal(cookie, tag(held[n].id));
				assert_int_equal(len, held[n].lent);
				free += need[n];
				nheld--;
				held[n] = held[nheld];
				head[n] = head[nheld];
				need[n] = need[nheld];
			}
			assert_int_equal(q->free, free);
		}
	}
}

/* ---------------------------------------------------------------- notifications */

static void the_doorbell_by_flag(void **state)
{
	(void)state;
	assert_false(keel_virtq_must_notify(q)); /* nothing published */
	lend(1, false);
	keel_virtq_publish(q);
	assert_true(keel_virtq_must_notify(q));
	assert_false(keel_virtq_must_notify(q)); /* said once */
	fake_used(dev)[0] = KEEL_VIRTQ_USED_NO_NOTIFY;
	lend(2, false);
	keel_virtq_publish(q);
	assert_false(keel_virtq_must_notify(q));
	fake_used(dev)[0] = 0xfffe; /* other bits mean nothing */
	lend(3, false);
	keel_virtq_publish(q);
	assert_true(keel_virtq_must_notify(q));
}

/* Any step from any index, at each place of the event around it. */
static void the_doorbell_by_index(void **state)
{
	static const uint16_t base[] = { 0, 1, 100, 0x7fff, 0x8000, 0xfffa, 0xffff };

	(void)state;
	for (size_t b = 0; b < sizeof(base) / sizeof(base[0]); b++) {
		for (unsigned int step = 0; step <= ENTRIES; step++) {
			for (int off = -20; off <= 20; off++) {
				uint16_t event = (uint16_t)(base[b] + off);

				begin(ENTRIES, EVENT_IDX, base[b]);
				for (unsigned int i = 0; i < step; i++) {
					lend(i, false);
					/* By one, or all at once. */
					if (off & 1)
						keel_virtq_publish(q);
				}
				keel_virtq_publish(q);
				*fake_avail_event(dev) = event;
				assert_int_equal(keel_virtq_must_notify(q),
						 fake_passes(event, (uint16_t)(base[b] + step), base[b]));
				assert_int_equal(off >= 0 && off < (int)step,
						 fake_passes(event, (uint16_t)(base[b] + step), base[b]));
			}
		}
	}
	/* So many since it was last asked that every index was passed. */
	q->unannounced = 0x10000;
	*fake_avail_event(dev) = (uint16_t)(q->published + 5);
	assert_true(keel_virtq_must_notify(q));
}

static void events_by_flag(void **state)
{
	struct fake_chain c;
	void *cookie;

	(void)state;
	assert_true(fake_must_interrupt(dev)); /* asked for from the start */
	keel_virtq_disable(q);
	assert_false(fake_must_interrupt(dev));
	lend(1, false);
	keel_virtq_publish(q);
	assert_false(keel_virtq_enable(q));
	assert_true(fake_must_interrupt(dev));
	keel_virtq_disable(q);
	assert_int_equal(fake_pop(dev, &c), 1);
	fake_push(dev, c.head, 0);
	assert_true(keel_virtq_enable(q)); /* look again */
	assert_int_equal(keel_virtq_get(q, &cookie, NULL), 1);
	assert_false(keel_virtq_enable(q));
}

static void events_by_index(void **state)
{
	static const uint16_t base[] = { 0, 5, 0x7ffe, 0xfffe, 0xffff };
	uint16_t head[4];
	void *cookie;

	(void)state;
	for (size_t b = 0; b < sizeof(base) / sizeof(base[0]); b++) {
		begin(ENTRIES, EVENT_IDX, base[b]);
		for (uintptr_t i = 0; i < 4; i++)
			head[i] = lend(i, false);
		keel_virtq_publish(q);
		/* Asked for: with the first, not again for the second. */
		assert_false(keel_virtq_enable(q));
		fake_push(dev, head[0], 0);
		assert_true(fake_must_interrupt(dev));
		fake_push(dev, head[1], 0);
		assert_false(fake_must_interrupt(dev));
		assert_int_equal(keel_virtq_get(q, &cookie, NULL), 1);
		assert_true(keel_virtq_enable(q));
		assert_int_equal(keel_virtq_get(q, &cookie, NULL), 1);
		/* Not asked for. */
		keel_virtq_disable(q);
		fake_push(dev, head[2], 0);
		assert_false(fake_must_interrupt(dev));
		assert_int_equal(keel_virtq_get(q, &cookie, NULL), 1);
		assert_false(keel_virtq_enable(q));
		fake_push(dev, head[3], 0);
		assert_true(fake_must_interrupt(dev));
		assert_int_equal(fake_avail(dev)[0], 0); /* the flag is not for this mode */
	}
}

/* ---------------------------------------------------------------- one that lies */

static void assert_broken(void)
{
	struct keel_virtq_seg s = seg(0, 1);
	void *cookie = tag(5);
	uint32_t len = 6;

	assert_int_equal(keel_virtq_get(q, &cookie, &len), -1);
	assert_ptr_equal(cookie, tag(5));
	assert_int_equal(len, 6);
	/* And stays so, whatever the ring says. */
	fake_used(dev)[1] = q->taken;
	assert_int_equal(keel_virtq_get(q, &cookie, &len), -1);
	assert_int_equal(keel_virtq_add(q, &s, 1, 0, NULL), KEEL_STATUS(KEEL_E_STATE, 0));
	assert_true(keel_virtq_enable(q)); /* nobody shall wait for it */
	assert_true(q->broken);
}

static void an_id_out_of_range(void **state)
{
	static const uint32_t id[] = { ENTRIES, 0xffff, 0x10000, 0xffffffff };

	(void)state;
	for (size_t i = 0; i < sizeof(id) / sizeof(id[0]); i++) {
		begin(ENTRIES, 0, 0xffff);
		lend(1, true);
		keel_virtq_publish(q);
		fake_push(dev, 0, 0);
		fake_elem(dev, 0xffff)->id = id[i];
		assert_broken();
	}
}

static void an_id_that_is_not_in_flight(void **state)
{
	struct keel_virtq_seg s[2] = { seg(0, 1), seg(1, 1) };
	uint16_t head;
	void *cookie;

	(void)state;
	/* Never lent. */
	lend(1, true);
	keel_virtq_publish(q);
	fake_push(dev, 5, 0);
	assert_broken();

	/* The second descriptor of a chain. */
	begin(ENTRIES, 0, 0);
	assert_int_equal(keel_virtq_add(q, s, 1, 1, NULL), 0);
	keel_virtq_publish(q);
	fake_push(dev, 1, 0);
	assert_broken();

	/* Twice, with another in flight. */
	begin(ENTRIES, 0, 0);
	head = lend(1, true);
	lend(2, true);
	keel_virtq_publish(q);
	fake_push(dev, head, 0);
	assert_int_equal(keel_virtq_get(q, &cookie, NULL), 1);
	fake_push(dev, head, 0);
	assert_broken();

	/* Added but not published, by a descriptor that once was. */
	begin(ENTRIES, 0, 0);
	head = lend(1, true);
	lend(2, true);
	keel_virtq_publish(q);
	fake_push(dev, head, 0);
	assert_int_equal(keel_virtq_get(q, &cookie, NULL), 1);
	assert_int_equal(lend(3, true), head);
	fake_push(dev, head, 0);
	assert_broken();
}

static void more_was_written_than_lent(void **state)
{
	struct keel_virtq_seg s[2] = { seg(0, 100), seg(100, 16) };
	void *cookie;
	uint32_t len;

	(void)state;
	for (uint32_t wrote = 15; wrote < 18; wrote++) {
		for (int indirect = 0; indirect < 2; indirect++) {
			begin(ENTRIES, indirect ? INDIRECT : 0, 0);
			assert_int_equal(keel_virtq_add(q, s, 1, 1, NULL), 0);
			keel_virtq_publish(q);
			fake_push(dev, 0, wrote);
			if (wrote > 16) {
				assert_broken();
				continue;
			}
			assert_int_equal(keel_virtq_get(q, &cookie, &len), 1);
			assert_int_equal(len, wrote);
		}
	}
	/* Nothing is lent of what is only read. */
	begin(ENTRIES, 0, 0);
	lend(1, false);
	keel_virtq_publish(q);
	fake_push(dev, 0, 1);
	assert_broken();
}

static void an_index_that_cannot_be(void **state)
{
	static const uint16_t ahead[] = { 3, ENTRIES, ENTRIES + 1, 0x7fff, 0x8000, 0xffff /* back by one */ };

	(void)state;
	for (size_t i = 0; i < sizeof(ahead) / sizeof(ahead[0]); i++) {
		begin(ENTRIES, 0, 0xfffe);
		lend(1, true);
		lend(2, true);
		keel_virtq_publish(q);
		lend(3, true); /* not published: does not count */
		*fake_elem(dev, 0xfffe) = (struct keel_virtq_used_elem){ 0, 0 };
		fake_used(dev)[1] = (uint16_t)(0xfffe + ahead[i]);
		assert_broken();
	}
}

/* All it can write is overwritten after each step; the driver's own view is elsewhere. */
static void what_the_device_overwrites_is_not_read(void **state)
{
	uint64_t seed = 5;

	(void)state;
	for (int round = 0; round < 2000; round++) {
		struct keel_virtq_seg s[3] = { seg(0, 1), seg(1, 1), seg(2, 1) };
		uint16_t head[3];
		void *cookie;

		begin(ENTRIES, round & 1 ? INDIRECT : 0, (uint16_t)rnd(&seed));
		for (uintptr_t i = 0; i < 2; i++) {
			head[i] = q->free_head;
			assert_int_equal(keel_virtq_add(q, s, 1, 2, tag(i)), 0);
		}
		keel_virtq_publish(q);
		for (unsigned int i = 0; i < (unsigned int)KEEL_VIRTQ_USED_AT(ENTRIES); i++)
			((uint8_t *)rig.mem.ring)[i] = (uint8_t)rnd(&seed);
		for (unsigned int i = 0; i < ENTRIES * EACH; i++)
			rig.mem.indirect[i].next = (uint16_t)rnd(&seed);
		for (uintptr_t i = 0; i < 2; i++) {
			fake_push(dev, head[1 - i], 2);
			assert_int_equal(keel_virtq_get(q, &cookie, NULL), 1);
			assert_ptr_equal(cookie, tag(1 - i));
		}
		assert_int_equal(q->free, ENTRIES);
		for (int i = 0; i < ENTRIES; i++)
			lend(1, true);
		assert_int_equal(q->free, 0);
	}
}

/* Whatever is in the used ring: each cookie comes back at most once, and only what was lent. */
static void random_used_rings(void **state)
{
	uint64_t seed = 23;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		unsigned int lent = 0, back = 0, n = 1 + (unsigned int)below(&seed, ENTRIES);
		bool seen[ENTRIES] = { false };
		void *cookie;
		uint32_t len;

		begin(ENTRIES, 0, (uint16_t)rnd(&seed));
		while (lent < n)
			lend(lent++, true);
		keel_virtq_publish(q);
		for (uint16_t i = 0; i < ENTRIES; i++)
			*fake_elem(dev, i) = (struct keel_virtq_used_elem){ (uint32_t)below(&seed, ENTRIES + 1),
									    (uint32_t)below(&seed, 18) };
		fake_used(dev)[1] = (uint16_t)(q->taken + below(&seed, 12));
		while (keel_virtq_get(q, &cookie, &len) == 1) {
			assert_true((uintptr_t)cookie < n && !seen[(uintptr_t)cookie] && len <= 16);
			seen[(uintptr_t)cookie] = true;
			back++;
		}
		assert_int_equal(q->free, ENTRIES - lent + back);
		/* After a reset the rest is found again. */
		while (keel_virtq_detach(q, &cookie)) {
			assert_true((uintptr_t)cookie < n && !seen[(uintptr_t)cookie]);
			seen[(uintptr_t)cookie] = true;
			back++;
		}
		assert_int_equal(back, n);
		assert_int_equal(q->free, ENTRIES);
	}
}

/* ---------------------------------------------------------------- one on another thread */

#define STREAM 200000

static struct {
	sem_t doorbell, event;
	bool failed;
} wire;

/* Writes the number it reads, plus one; sleeps whenever there is nothing. */
static void *serve(void *arg)
{
	uint32_t done = 0;
	struct fake_chain c;
	int got;

	(void)arg;
	while (done < STREAM) {
		got = fake_pop(dev, &c);
		if (got < 0 || (got && (c.out != 1 || c.in != 1))) {
			wire.failed = true;
			break;
		}
		if (!got) {
			if (!fake_want_notify(dev))
				sem_wait(&wire.doorbell);
			continue;
		}
		*(uint32_t *)c.part[1].at = *(uint32_t *)c.part[0].at + 1;
		fake_push(dev, c.head, 4);
		done++;
		if (fake_must_interrupt(dev))
			sem_post(&wire.event);
	}
	sem_post(&wire.event);
	return NULL;
}

static void ring_doorbell(void)
{
	keel_virtq_publish(q);
	if (keel_virtq_must_notify(q))
		sem_post(&wire.doorbell);
}

/* No wake-up is lost in either direction: if one were, both would sleep and the test not end. */
static void a_stream_between_threads_is_intact(void **state)
{
	static const uint64_t features[] = { 0, EVENT_IDX, INDIRECT | EVENT_IDX };
	uint32_t *number = (uint32_t *)rig.data;

	(void)state;
	for (size_t f = 0; f < sizeof(features) / sizeof(features[0]); f++) {
		uint32_t sent = 0, back = 0, len;
		pthread_t thread;
		void *cookie;
		int got;

		begin(ENTRIES, features[f], 0);
		sem_init(&wire.doorbell, 0, 0);
		sem_init(&wire.event, 0, 0);
		wire.failed = false;
		assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
		while (back < STREAM) {
			for (; sent < STREAM; sent++) {
				unsigned int at = sent % (2 * ENTRIES) * 8;
				struct keel_virtq_seg s[2] = { seg(at, 4), seg(at + 4, 4) };

				if (sent - back == 2 * ENTRIES)
					break;
				number[at / 4] = sent;
				if (keel_virtq_add(q, s, 1, 1, &number[at / 4]))
					break;
			}
			ring_doorbell();
			while ((got = keel_virtq_get(q, &cookie, &len)) == 1) {
				uint32_t *n = cookie;

				if (len != 4 || n[1] != n[0] + 1 || n[0] != back)
					fail_msg("buffer %u came back as %u with %u", back, n[0], n[1]);
				back++;
			}
			if (got < 0 || wire.failed)
				break;
			if (back < sent && !keel_virtq_enable(q))
				sem_wait(&wire.event);
		}
		pthread_join(thread, NULL);
		assert_false(wire.failed);
		assert_false(q->broken);
		assert_int_equal(back, STREAM);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fresh, gone)

int virtq_tests(void)
{
	const struct CMUnitTest tests[] = {
		TEST(parts_are_where_virtio_has_them),
		TEST(what_no_queue_can_be),
		TEST(what_no_buffer_can_be),
		TEST(a_buffer_goes_there_and_back),
		TEST(one_publication_shows_several),
		TEST(a_full_queue_takes_no_more),
		TEST(an_indirect_buffer_is_one_descriptor),
		TEST(a_queue_full_of_indirect_buffers),
		TEST(any_traffic_matches_a_model),
		TEST(the_doorbell_by_flag),
		TEST(the_doorbell_by_index),
		TEST(events_by_flag),
		TEST(events_by_index),
		TEST(an_id_out_of_range),
		TEST(an_id_that_is_not_in_flight),
		TEST(more_was_written_than_lent),
		TEST(an_index_that_cannot_be),
		TEST(what_the_device_overwrites_is_not_read),
		TEST(random_used_rings),
		TEST(a_stream_between_threads_is_intact),
	};

	return cmocka_run_group_tests_name("virtq", tests, NULL, NULL);
}
