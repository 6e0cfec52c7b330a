// SPDX-License-Identifier: GPL-2.0-only
/*
 * The driver's side of a virtqueue: buffers in every mode, wraps of the indices,
 * devices that write anything, and notifications between two CPUs.
 */
#include <hypercall/virtq.h>

#include "keel_test.h"

#define ENTRIES 8
#define EACH 3 /* descriptors of an indirect table */

struct mode {
	const char *name;
	u64 features;
};

static const struct mode modes[] = {
	{ "chains", 0 },
	{ "indirect", KEEL_VIRTIO_F_INDIRECT_DESC },
	{ "chains, event index", KEEL_VIRTIO_F_EVENT_IDX },
	{ "indirect, event index", KEEL_VIRTIO_F_INDIRECT_DESC | KEEL_VIRTIO_F_EVENT_IDX },
};

static void describe(const struct mode *m, char *desc)
{
	strscpy(desc, m->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(mode, modes, describe);

/* Both sides of a queue. A GPA is an address here. The device's indices are its own. */
struct rig {
	struct keel_virtq q;
	struct keel_virtq_desc *desc;
	u16 *avail, *used;
	u16 seen, given, signalled;
};

static u64 gpa(const void *p)
{
	return (unsigned long)p;
}

/* The queue after `start` buffers have been through it. */
static void begin(struct rig *r, u64 features, u16 start)
{
	struct keel_virtq_memory mem = r->q.mem;

	mem.indirect_each = EACH;
	keel_virtq_init(&r->q, ENTRIES, &mem, features);
	r->q.added = start;
	r->q.published = start;
	r->q.taken = start;
	r->seen = start;
	r->given = start;
	r->signalled = start;
	r->avail[1] = start;
	r->used[1] = start;
	r->avail[2 + ENTRIES] = start;
	r->used[2 + 4 * ENTRIES] = start;
}

static struct rig *new_rig(struct kunit *test, u64 features, u16 start)
{
	struct rig *r = kunit_kzalloc(test, sizeof(*r), GFP_KERNEL);
	struct keel_virtq_memory *mem = &r->q.mem;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, r);
	mem->ring = keel_fenced(test, ALIGN(KEEL_VIRTQ_BYTES(ENTRIES), 16));
	mem->ring_gpa = gpa(mem->ring);
	mem->slots = keel_fenced(test, ENTRIES * sizeof(*mem->slots));
	mem->indirect = keel_fenced(test, ENTRIES * EACH * sizeof(*mem->indirect));
	mem->indirect_gpa = gpa(mem->indirect);
	r->desc = mem->ring;
	r->avail = mem->ring + 16 * ENTRIES;
	r->used = mem->ring + 16 * ENTRIES + 24;
	begin(r, features, start);
	return r;
}

/* Lend a buffer of `out` and `in` segments, the nth of which has n + 1 bytes at address n + 1. */
static s64 lend(struct rig *r, unsigned int out, unsigned int in, unsigned long cookie)
{
	struct keel_virtq_seg seg[ENTRIES + 1];
	unsigned int i;

	for (i = 0; i < out + in && i <= ENTRIES; i++) {
		seg[i].gpa = i + 1;
		seg[i].len = i + 1;
	}
	return keel_virtq_add(&r->q, seg, out, in, (void *)cookie);
}

/* The device takes the next buffer: its head, or -1 when there is none. */
static int take(struct rig *r)
{
	u16 idx = __atomic_load_n(&r->avail[1], __ATOMIC_ACQUIRE);

	return idx == r->seen ? -1 : r->avail[2 + r->seen++ % ENTRIES];
}

static void give(struct rig *r, u32 id, u32 len)
{
	u32 *elem = (u32 *)(r->used + 2) + 2 * (r->given++ % ENTRIES);

	elem[0] = id;
	elem[1] = len;
	__atomic_store_n(&r->used[1], r->given, __ATOMIC_RELEASE);
}

/* Is what stands at `head` the buffer that lend() makes? */
static bool is_buffer(const struct rig *r, int head, unsigned int out, unsigned int in)
{
	const struct keel_virtq_desc *table = r->desc, *d = &table[head];
	unsigned int i, last = out + in - 1;

	if (d->flags == KEEL_VIRTQ_DESC_INDIRECT) {
		table = (void *)(unsigned long)d->addr;
		if (d->len != 16 * (last + 1))
			return false;
		d = table;
	}
	for (i = 0; i <= last; i++) {
		unsigned int flags = (i < out ? 0 : KEEL_VIRTQ_DESC_WRITE) | (i < last ? KEEL_VIRTQ_DESC_NEXT : 0);

		if (d->addr != i + 1 || d->len != i + 1 || d->flags != flags)
			return false;
		if (i < last && table == r->desc && d->next >= ENTRIES)
			return false;
		d = &table[d->next];
	}
	return true;
}

static void there_and_back(struct kunit *test)
{
	const struct mode *m = test->param_value;
	struct rig *r = new_rig(test, m->features, 0xffff);
	void *cookie;
	u32 len;
	int head;

	KUNIT_EXPECT_EQ(test, keel_virtq_avail_gpa(&r->q), gpa(r->avail));
	KUNIT_EXPECT_EQ(test, keel_virtq_used_gpa(&r->q), gpa(r->used));
	KUNIT_EXPECT_EQ(test, lend(r, 1, 2, 77), 0);
	KUNIT_EXPECT_EQ(test, take(r), -1);
	keel_virtq_publish(&r->q);
	head = take(r);
	KUNIT_ASSERT_GE(test, head, 0);
	KUNIT_EXPECT_TRUE(test, is_buffer(r, head, 1, 2));
	KUNIT_EXPECT_EQ(test, keel_virtq_get(&r->q, &cookie, &len), 0);
	give(r, head, 5);
	KUNIT_EXPECT_EQ(test, keel_virtq_get(&r->q, &cookie, &len), 1);
	KUNIT_EXPECT_EQ(test, (unsigned long)cookie, 77ul);
	KUNIT_EXPECT_EQ(test, len, 5u);
	KUNIT_EXPECT_EQ(test, keel_virtq_get(&r->q, &cookie, NULL), 0);
	KUNIT_EXPECT_EQ(test, (unsigned int)r->q.free, (unsigned int)ENTRIES);
}

static void full(struct kunit *test)
{
	const struct mode *m = test->param_value;
	struct rig *r = new_rig(test, m->features, 0);
	bool indirect = m->features & KEEL_VIRTIO_F_INDIRECT_DESC;
	unsigned int n = 0;

	while (!lend(r, 1, 1, n))
		n++;
	KUNIT_EXPECT_EQ(test, n, indirect ? ENTRIES : ENTRIES / 2u);
	KUNIT_EXPECT_EQ(test, lend(r, 1, 1, n), KEEL_STATUS(KEEL_E_AGAIN, 0));
	KUNIT_EXPECT_EQ(test, lend(r, 0, 0, n), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2)));
	KUNIT_EXPECT_EQ(test, lend(r, ENTRIES, 1, n), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2)));
}

/* Random buffers, returned in any order, beyond several wraps of the indices. */
static void random_traffic(struct kunit *test)
{
	struct held {
		unsigned long cookie;
		unsigned int out, in, descs;
		u32 lent;
		int head;
	} lent[ENTRIES], held[ENTRIES];
	const struct mode *m = test->param_value;
	u64 state = keel_test_seed(test);
	struct rig *r = new_rig(test, m->features, keel_random(&state));
	unsigned int nlent = 0, nheld = 0, free = ENTRIES, i, k;
	unsigned long next = 1;

	for (i = 0; i < 400000; i++) {
		struct held h = { next, keel_random_below(&state, 3), keel_random_below(&state, 3), 1, 0, 0 };
		void *cookie;
		int got;
		s64 status;
		u32 len;

		switch (keel_random_below(&state, 3)) {
		case 0:
			if (!h.out && !h.in)
				continue;
			if (!(m->features & KEEL_VIRTIO_F_INDIRECT_DESC) || h.out + h.in > EACH)
				h.descs = h.out + h.in;
			for (k = h.out; k < h.out + h.in; k++)
				h.lent += k + 1;
			status = lend(r, h.out, h.in, next);
			if (status != (h.descs > free ? KEEL_STATUS(KEEL_E_AGAIN, 0) : 0)) {
				KUNIT_FAIL(test, "step %u: adding answers %lld", i, (long long)status);
				return;
			}
			if (status)
				continue;
			free -= h.descs;
			lent[nlent++] = h;
			next++;
			continue;
		case 1:
			keel_virtq_publish(&r->q);
			if (!nlent)
				continue;
			h = lent[0];
			h.head = take(r);
			if (h.head < 0 || !is_buffer(r, h.head, h.out, h.in)) {
				KUNIT_FAIL(test, "step %u: the device sees something else at %d", i, h.head);
				return;
			}
			held[nheld++] = h;
			memmove(lent, lent + 1, --nlent * sizeof(lent[0]));
			continue;
		}
		if (!nheld)
			continue;
		k = keel_random_below(&state, nheld);
		h = held[k];
		held[k] = held[--nheld];
		give(r, h.head, h.lent);
		free += h.descs;
		got = keel_virtq_get(&r->q, &cookie, &len);
		if (got != 1 || (unsigned long)cookie != h.cookie || len != h.lent || r->q.free != free) {
			KUNIT_FAIL(test, "step %u: %d of %lu", i, got, h.cookie);
			return;
		}
	}
}

/* Buffers 0 and 1 are published, 2 is not; the device returns something that cannot be. */
static void what_cannot_be(struct kunit *test)
{
	static const struct {
		u32 id, len;
		u16 ahead;
	} lies[] = {
		{ ENTRIES, 0, 1 },     { 0xffffffff, 0, 1 }, /* no descriptor */
		{ 5, 0, 1 },	       { 2, 0, 1 },	     /* never lent; not published */
		{ 0, 2, 1 },	       { 1, 0x80000000, 1 }, /* longer than lent */
		{ 0, 0, 3 },	       { 0, 0, 0x8000 },     /* more than are in flight */
		{ 0, 0, ENTRIES + 1 },
	};
	struct rig *r = new_rig(test, 0, 0);
	void *cookie;
	int i;

	for (i = 0; i < ARRAY_SIZE(lies); i++) {
		begin(r, 0, 0xfffe);
		lend(r, 0, 1, 0);
		lend(r, 0, 1, 1);
		keel_virtq_publish(&r->q);
		lend(r, 0, 1, 2);
		give(r, lies[i].id, lies[i].len);
		r->used[1] = 0xfffe + lies[i].ahead;
		KUNIT_EXPECT_EQ_MSG(test, keel_virtq_get(&r->q, &cookie, NULL), -1, "lie %d", i);
		/* For good, and nobody waits for it. */
		r->used[1] = 0xfffe;
		KUNIT_EXPECT_EQ(test, keel_virtq_get(&r->q, &cookie, NULL), -1);
		KUNIT_EXPECT_EQ(test, lend(r, 1, 0, 3), KEEL_STATUS(KEEL_E_STATE, 0));
		KUNIT_EXPECT_TRUE(test, keel_virtq_enable(&r->q));
	}
	/* The same buffer twice. */
	begin(r, 0, 0);
	lend(r, 0, 1, 0);
	lend(r, 0, 1, 1);
	keel_virtq_publish(&r->q);
	give(r, 0, 1);
	give(r, 0, 1);
	KUNIT_EXPECT_EQ(test, keel_virtq_get(&r->q, &cookie, NULL), 1);
	KUNIT_EXPECT_EQ(test, keel_virtq_get(&r->q, &cookie, NULL), -1);
}

/* Whatever is in all of the memory the device can write: each buffer comes back once at most. */
static void random_devices(struct kunit *test)
{
	const struct mode *m = test->param_value;
	u64 state = keel_test_seed(test);
	struct rig *r = new_rig(test, m->features, 0);
	int round, i;

	for (round = 0; round < 20000; round++) {
		unsigned int n = 1 + keel_random_below(&state, 4), back = 0, seen = 0;
		unsigned int lent = 2 + (m->features & KEEL_VIRTIO_F_INDIRECT_DESC ? 3 : 0);
		void *cookie;
		u32 len;

		begin(r, m->features, keel_random(&state));
		for (i = 0; i < n; i++)
			lend(r, 1, 1, i);
		keel_virtq_publish(&r->q);
		for (i = 0; i < KEEL_VIRTQ_USED_AT(ENTRIES); i++)
			((u8 *)r->desc)[i] = keel_random(&state);
		for (i = 0; i < ENTRIES; i++)
			give(r, keel_random_below(&state, ENTRIES + 1), keel_random_below(&state, lent + 1));
		r->used[1] = r->q.taken + keel_random_below(&state, n + 2);
		while (keel_virtq_get(&r->q, &cookie, &len) == 1) {
			if ((unsigned long)cookie >= n || seen >> (unsigned long)cookie & 1 || len > 2)
				KUNIT_FAIL(test, "round %d: %lu of %u bytes", round, (unsigned long)cookie, len);
			seen |= 1u << (unsigned long)cookie;
			back++;
		}
		while (keel_virtq_detach(&r->q, &cookie)) {
			if (seen >> (unsigned long)cookie & 1)
				KUNIT_FAIL(test, "round %d: %lu twice", round, (unsigned long)cookie);
			seen |= 1u << (unsigned long)cookie;
			back++;
		}
		if (back != n || r->q.free != ENTRIES) {
			KUNIT_FAIL(test, "round %d: %u of %u came back", round, back, n);
			return;
		}
	}
}

/* Each step from each index, with the event before, in and behind it. */
static void doorbell_index(struct kunit *test)
{
	static const u16 base[] = { 0, 100, 0x7fff, 0x8000, 0xfffa, 0xffff };
	struct rig *r = new_rig(test, KEEL_VIRTIO_F_EVENT_IDX, 0);
	int i, step, off;

	for (i = 0; i < ARRAY_SIZE(base); i++)
		for (step = 0; step <= ENTRIES; step++)
			for (off = -12; off <= 12; off++) {
				int n;

				begin(r, KEEL_VIRTIO_F_EVENT_IDX, base[i]);
				for (n = 0; n < step; n++)
					lend(r, 1, 0, n);
				keel_virtq_publish(&r->q);
				r->used[2 + 4 * ENTRIES] = base[i] + off;
				KUNIT_EXPECT_EQ_MSG(test, keel_virtq_must_notify(&r->q), off >= 0 && off < step,
						    "%d buffers from %u, event %d", step, base[i], off);
				KUNIT_EXPECT_FALSE(test, keel_virtq_must_notify(&r->q));
			}
}

static void doorbell_flag(struct kunit *test)
{
	struct rig *r = new_rig(test, 0, 0);

	KUNIT_EXPECT_FALSE(test, keel_virtq_must_notify(&r->q));
	lend(r, 1, 0, 0);
	keel_virtq_publish(&r->q);
	KUNIT_EXPECT_TRUE(test, keel_virtq_must_notify(&r->q));
	r->used[0] = KEEL_VIRTQ_USED_NO_NOTIFY;
	lend(r, 1, 0, 0);
	keel_virtq_publish(&r->q);
	KUNIT_EXPECT_FALSE(test, keel_virtq_must_notify(&r->q));
	/* Bits this version does not know say nothing. */
	r->used[0] = (u16)~KEEL_VIRTQ_USED_NO_NOTIFY;
	lend(r, 1, 0, 0);
	keel_virtq_publish(&r->q);
	KUNIT_EXPECT_TRUE(test, keel_virtq_must_notify(&r->q));
}

/* Driver and device on two CPUs, each asleep whenever it may be: a notification that is lost stops both. */
#define STREAM 20000

struct stream {
	struct rig *r;
	struct completion doorbell, event;
	bool event_idx, stuck;
};

static bool device_may_sleep(struct stream *s)
{
	struct rig *r = s->r;

	if (s->event_idx)
		WRITE_ONCE(r->used[2 + 4 * ENTRIES], r->seen);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return __atomic_load_n(&r->avail[1], __ATOMIC_ACQUIRE) == r->seen;
}

static bool device_must_notify(struct stream *s)
{
	struct rig *r = s->r;
	u16 old = r->signalled, event;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	r->signalled = r->given;
	if (!s->event_idx)
		return !(__atomic_load_n(&r->avail[0], __ATOMIC_RELAXED) & KEEL_VIRTQ_AVAIL_NO_INTERRUPT);
	event = __atomic_load_n(&r->avail[2 + ENTRIES], __ATOMIC_RELAXED);
	return (u16)(r->given - event - 1) < (u16)(r->given - old);
}

static int device_main(void *arg)
{
	struct stream *s = arg;
	u32 done = 0;

	while (done < STREAM && !s->stuck) {
		int head = take(s->r);

		if (head >= 0) {
			give(s->r, head, 1);
			done++;
			if (device_must_notify(s))
				complete(&s->event);
		} else if (device_may_sleep(s)) {
			if (!wait_for_completion_timeout(&s->doorbell, 5 * HZ))
				s->stuck = true;
		}
	}
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

static void no_notification_is_lost_between_cpus(struct kunit *test)
{
	const struct mode *m = test->param_value;
	struct stream *s = kunit_kzalloc(test, sizeof(*s), GFP_KERNEL);
	u32 sent = 0, back = 0, rang = 0, slept = 0;
	struct task_struct *device;
	bool wrong = false;
	void *cookie;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, s);
	s->r = new_rig(test, m->features, 0xff00);
	s->event_idx = m->features & KEEL_VIRTIO_F_EVENT_IDX;
	init_completion(&s->doorbell);
	init_completion(&s->event);
	device = kthread_run(device_main, s, "keel_virtq_device");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, device);
	while (back < STREAM && !s->stuck && !wrong) {
		while (sent < STREAM && !lend(s->r, 1, 1, sent))
			sent++;
		keel_virtq_publish(&s->r->q);
		if (keel_virtq_must_notify(&s->r->q)) {
			rang++;
			complete(&s->doorbell);
		}
		while (keel_virtq_get(&s->r->q, &cookie, NULL) == 1)
			wrong |= (unsigned long)cookie != back++;
		wrong |= s->r->q.broken;
		if (back < sent && !keel_virtq_enable(&s->r->q)) {
			slept++;
			if (!wait_for_completion_timeout(&s->event, 5 * HZ))
				s->stuck = true;
			keel_virtq_disable(&s->r->q);
		}
	}
	kthread_stop(device);
	kunit_info(test, "%u buffers, rang %u times, slept %u times", back, rang, slept);
	KUNIT_EXPECT_FALSE(test, wrong);
	KUNIT_EXPECT_FALSE(test, s->stuck);
	KUNIT_EXPECT_EQ(test, back, (u32)STREAM);
}

static struct kunit_case cases[] = { KUNIT_CASE_PARAM(there_and_back, mode_gen_params),
				     KUNIT_CASE_PARAM(full, mode_gen_params),
				     KUNIT_CASE_PARAM(random_traffic, mode_gen_params),
				     KUNIT_CASE(what_cannot_be),
				     KUNIT_CASE_PARAM(random_devices, mode_gen_params),
				     KUNIT_CASE(doorbell_index),
				     KUNIT_CASE(doorbell_flag),
				     KUNIT_CASE_PARAM(no_notification_is_lost_between_cpus, mode_gen_params),
				     {} };

static struct kunit_suite suite = {
	.name = "keel_virtq",
	.test_cases = cases,
};

kunit_test_suites(&suite);

MODULE_DESCRIPTION("KUnit: virtqueues");
MODULE_LICENSE("GPL");
