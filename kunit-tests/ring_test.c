// SPDX-License-Identifier: GPL-2.0-only
/*
 * The console ring: both directions, both ends, wraps of buffer and index,
 * peers that write anything, and the doorbell between two CPUs.
 */
#include <hypercall/ring.h>

#include "keel_test.h"

struct pair {
	const char *name;
	enum keel_ring_side producer, consumer;
	u32 size;
	size_t prod, cons, data; /* offsets in the page */
};

static const struct pair pairs[] = {
	{ "output", KEEL_RING_GUEST_OUT, KEEL_RING_HOST_OUT, KEEL_CONSOLE_OUT_SIZE,
	  offsetof(struct keel_console_ring, out_prod), offsetof(struct keel_console_ring, out_cons),
	  offsetof(struct keel_console_ring, out) },
	{ "input", KEEL_RING_HOST_IN, KEEL_RING_GUEST_IN, KEEL_CONSOLE_IN_SIZE,
	  offsetof(struct keel_console_ring, in_prod), offsetof(struct keel_console_ring, in_cons),
	  offsetof(struct keel_console_ring, in) },
};

static void describe(const struct pair *p, char *desc)
{
	strscpy(desc, p->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(pair, pairs, describe);

/* The page filled with a pattern, so that a write to a foreign place shows; the indices at a start. */
struct rig {
	const struct pair *pair;
	struct keel_console_ring *ring;
	u32 *prod, *cons;
	struct keel_ring_end producer, consumer;
};

static struct rig new_rig(struct kunit *test, u32 start)
{
	const struct pair *p = test->param_value;
	struct rig r = { .pair = p, .ring = keel_fenced(test, sizeof(*r.ring)) };

	memset(r.ring, 0xa5, sizeof(*r.ring));
	r.prod = (void *)r.ring + p->prod;
	r.cons = (void *)r.ring + p->cons;
	*r.prod = start;
	*r.cons = start;
	keel_ring_attach(&r.producer, keel_share(r.ring), p->producer);
	keel_ring_attach(&r.consumer, keel_share(r.ring), p->consumer);
	return r;
}

/* All of the page that is neither this direction's indices nor its buffer. */
static bool rest_untouched(const struct rig *r)
{
	const u8 *page = (const u8 *)r->ring;
	const struct pair *p = r->pair;
	size_t i;

	for (i = 0; i < sizeof(*r->ring); i++) {
		if (i - p->prod < 4 || i - p->cons < 4 || i - p->data < p->size)
			continue;
		if (page[i] != 0xa5)
			return false;
	}
	return true;
}

static u8 byte_at(u32 index)
{
	return (u8)(index * 167 + (index >> 8) * 13 + (index >> 16));
}

static void fill(u8 *buf, u32 from, u32 n)
{
	while (n--)
		*buf++ = byte_at(from++);
}

static bool filled(const u8 *buf, u32 from, u32 n)
{
	while (n--)
		if (*buf++ != byte_at(from++))
			return false;
	return true;
}

static void full_and_empty(struct kunit *test)
{
	struct rig r = new_rig(test, 0);
	u32 size = r.pair->size;
	u8 *buf = keel_fenced(test, 2 * size);

	KUNIT_EXPECT_EQ(test, keel_ring_avail(&r.producer), (int)size);
	KUNIT_EXPECT_EQ(test, keel_ring_avail(&r.consumer), 0);
	KUNIT_EXPECT_EQ(test, keel_ring_pop(&r.consumer, buf, size), 0);
	KUNIT_EXPECT_EQ(test, keel_ring_push(&r.producer, buf, 0), 0);

	fill(buf, 0, 2 * size);
	KUNIT_EXPECT_EQ(test, keel_ring_push(&r.producer, buf, 2 * size), (int)size);
	KUNIT_EXPECT_EQ(test, *r.prod, size);
	KUNIT_EXPECT_EQ(test, keel_ring_avail(&r.producer), 0);
	KUNIT_EXPECT_EQ(test, keel_ring_push(&r.producer, buf, 1), 0);
	KUNIT_EXPECT_EQ(test, keel_ring_avail(&r.consumer), (int)size);

	memset(buf, 0, 2 * size);
	KUNIT_EXPECT_EQ(test, keel_ring_pop(&r.consumer, buf, 1), 1);
	KUNIT_EXPECT_EQ(test, keel_ring_avail(&r.producer), 1);
	KUNIT_EXPECT_EQ(test, keel_ring_pop(&r.consumer, buf + 1, SIZE_MAX), (int)size - 1);
	KUNIT_EXPECT_TRUE(test, filled(buf, 0, size));
	KUNIT_EXPECT_PTR_EQ(test, memchr_inv(buf + size, 0, size), NULL);
	KUNIT_EXPECT_EQ(test, keel_ring_avail(&r.consumer), 0);
	KUNIT_EXPECT_TRUE(test, rest_untouched(&r));
}

/* Every length at every place of the buffer, with the index wrapping at 2^32 on the way. */
static void wraps(struct kunit *test)
{
	static const u32 starts[] = { 0, 1, 0xffffffff, 0xffffff00, 0x7fffff80, 0x80000000 };
	u32 size = ((const struct pair *)test->param_value)->size;
	u8 *in = keel_fenced(test, size), *out = keel_fenced(test, size);
	int i;

	for (i = 0; i < ARRAY_SIZE(starts); i++) {
		struct rig r = new_rig(test, starts[i]);
		u32 at = starts[i], n;

		for (n = 1; n <= size; n = n < 70 ? n + 1 : n * 3 / 2) {
			fill(in + size - n, at, n);
			KUNIT_ASSERT_EQ(test, keel_ring_push(&r.producer, in + size - n, n), (int)n);
			KUNIT_ASSERT_EQ(test, keel_ring_pop(&r.consumer, out + size - n, n), (int)n);
			KUNIT_ASSERT_TRUE(test, filled(out + size - n, at, n));
			at += n;
			KUNIT_ASSERT_EQ(test, *r.prod, at);
			KUNIT_ASSERT_EQ(test, *r.cons, at);
		}
		KUNIT_EXPECT_TRUE(test, rest_untouched(&r));
	}
}

static void taking_over_a_running_ring(struct kunit *test)
{
	struct rig r = new_rig(test, 0xfffffffa);
	struct keel_ring_end late;
	u8 buf[32];

	fill(buf, 0, sizeof(buf));
	keel_ring_push(&r.producer, buf, 20);
	keel_ring_pop(&r.consumer, buf, 8);
	keel_ring_attach(&late, keel_share(r.ring), r.pair->consumer);
	KUNIT_EXPECT_EQ(test, keel_ring_avail(&late), 12);
	KUNIT_EXPECT_EQ(test, keel_ring_pop(&late, buf, sizeof(buf)), 12);
	KUNIT_EXPECT_TRUE(test, filled(buf, 8, 12));
	keel_ring_attach(&late, keel_share(r.ring), r.pair->producer);
	KUNIT_EXPECT_EQ(test, keel_ring_avail(&late), (int)r.pair->size);
}

/* An impossible index breaks the end for good, moves nothing, and touches nothing. */
static void impossible_indices(struct kunit *test)
{
	static const u32 base[] = { 0, 5, 0xfffffff0 };
	u32 size = ((const struct pair *)test->param_value)->size;
	const u32 ahead[] = { 1, 2, 0x7fffffff, 0x80000000, 0xffffffff - size };
	u8 *buf = keel_fenced(test, 64);
	int i, j, end;

	for (i = 0; i < ARRAY_SIZE(base); i++)
		for (j = 0; j < ARRAY_SIZE(ahead); j++)
			for (end = 0; end < 2; end++) {
				struct rig r = new_rig(test, base[i]);
				struct keel_ring_end *e = end ? &r.consumer : &r.producer;
				u32 own = base[i];

				/* A consumer beyond the producer, or a producer more than the size ahead. */
				if (end)
					*r.prod = base[i] + size + ahead[j];
				else
					*r.cons = base[i] + ahead[j];
				memset(buf, 0x5a, 64);
				KUNIT_EXPECT_EQ(test, end ? keel_ring_pop(e, buf, 64) : keel_ring_push(e, buf, 64), -1);
				KUNIT_EXPECT_TRUE(test, e->broken);
				KUNIT_EXPECT_EQ(test, end ? *r.cons : *r.prod, own);
				KUNIT_EXPECT_PTR_EQ(test, memchr_inv(buf, 0x5a, 64), NULL);
				KUNIT_EXPECT_PTR_EQ(test, memchr_inv((u8 *)r.ring + r.pair->data, 0xa5, size), NULL);
				/* Repairing the index does not bring it back. */
				*r.prod = own;
				*r.cons = own;
				KUNIT_EXPECT_EQ(test, keel_ring_avail(e), -1);
				KUNIT_EXPECT_EQ(test, keel_ring_push(e, buf, 1), -1);
				KUNIT_EXPECT_EQ(test, keel_ring_pop(e, buf, 1), -1);
			}
}

/* The largest distance that is possible is not an error. */
static void the_last_possible_index(struct kunit *test)
{
	struct rig r = new_rig(test, 0xffffffc0);
	u32 size = r.pair->size;

	*r.prod = *r.cons + size;
	KUNIT_EXPECT_EQ(test, keel_ring_avail(&r.consumer), (int)size);
	*r.prod = *r.cons + size + 1;
	KUNIT_EXPECT_EQ(test, keel_ring_avail(&r.consumer), -1);
}

/* What the peer scribbles over this end's own index in the page has no effect. */
static void the_private_index_counts(struct kunit *test)
{
	struct rig r = new_rig(test, 100);
	u8 buf[64];

	fill(buf, 0, sizeof(buf));
	KUNIT_EXPECT_EQ(test, keel_ring_push(&r.producer, buf, 40), 40);
	*r.prod = 0x12345678;
	KUNIT_EXPECT_EQ(test, keel_ring_avail(&r.producer), (int)r.pair->size - 40);
	KUNIT_EXPECT_EQ(test, keel_ring_push(&r.producer, buf + 40, 10), 10);
	KUNIT_EXPECT_EQ(test, *r.prod, 150u);
	memset(buf, 0, sizeof(buf));
	*r.cons = 0x87654321;
	KUNIT_EXPECT_EQ(test, keel_ring_pop(&r.consumer, buf, 50), 50);
	KUNIT_EXPECT_EQ(test, *r.cons, 150u);
	KUNIT_EXPECT_TRUE(test, filled(buf, 0, 50));
}

/* Both ends at random, with a peer that writes its index at random now and then. */
static void random_traffic(struct kunit *test)
{
	u32 size = ((const struct pair *)test->param_value)->size;
	u8 *buf = keel_fenced(test, size + 64);
	u64 state = keel_test_seed(test);
	u32 sent = 0, taken = 0, start = keel_random(&state);
	struct rig r = new_rig(test, start);
	int step;

	for (step = 0; step < 20000; step++) {
		u32 n = keel_random_below(&state, keel_random_below(&state, 2) ? 9 : size + 64), want;
		u8 *at = buf + size + 64 - n;
		int got;

		if (keel_random_below(&state, 2)) {
			want = min(n, size - (sent - taken));
			fill(at, sent, n);
			got = keel_ring_push(&r.producer, at, n);
			sent += want;
		} else {
			want = min(n, sent - taken);
			got = keel_ring_pop(&r.consumer, at, n);
			if (got >= 0 && !filled(at, taken, want))
				got = -2;
			taken += want;
		}
		if (got != want || *r.prod != start + sent || *r.cons != start + taken) {
			KUNIT_FAIL(test, "step %d, %u bytes: %d for %u", step, n, got, want);
			return;
		}
	}
	KUNIT_EXPECT_TRUE(test, rest_untouched(&r));

	for (step = 0; step < 20000; step++) {
		u32 used, n = keel_random_below(&state, size + 64);
		int got, limit;

		r = (struct rig){ .pair = r.pair, .ring = r.ring, .prod = r.prod, .cons = r.cons };
		*r.prod = keel_random(&state);
		*r.cons = *r.prod + (keel_random_below(&state, 2) ? (u32)keel_random_wide(&state)
								  : -keel_random_below(&state, size + 3));
		used = *r.prod - *r.cons;
		keel_ring_attach(&r.producer, keel_share(r.ring), r.pair->producer);
		keel_ring_attach(&r.consumer, keel_share(r.ring), r.pair->consumer);
		limit = used > size ? -1 : min(n, size - used);
		got = keel_ring_push(&r.producer, buf + size + 64 - n, n);
		if (got == limit) {
			limit = used > size ? -1 : min(n, used + got);
			got = keel_ring_pop(&r.consumer, buf + size + 64 - n, n);
		}
		if (got != limit) {
			KUNIT_FAIL(test, "step %d, %u used, %u bytes: %d for %d", step, used, n, got, limit);
			return;
		}
	}
	KUNIT_EXPECT_TRUE(test, rest_untouched(&r));
}

static void doorbell_flags(struct kunit *test)
{
	struct keel_console_ring *ring = keel_fenced(test, sizeof(*ring));
	struct keel_ring_end guest, host;
	u8 c = 'x', *much = keel_fenced(test, KEEL_CONSOLE_OUT_SIZE);

	keel_ring_attach(&guest, keel_share(ring), KEEL_RING_GUEST_OUT);
	keel_ring_attach(&host, keel_share(ring), KEEL_RING_HOST_OUT);
	KUNIT_EXPECT_FALSE(test, keel_ring_must_kick(keel_share(ring)));
	KUNIT_EXPECT_FALSE(test, keel_ring_arm(keel_share(ring), &host));
	KUNIT_EXPECT_EQ(test, ring->out_wake, 1u);
	keel_ring_push(&guest, &c, 1);
	KUNIT_EXPECT_TRUE(test, keel_ring_must_kick(keel_share(ring)));
	keel_ring_disarm(keel_share(ring));
	KUNIT_EXPECT_FALSE(test, keel_ring_must_kick(keel_share(ring)));
	KUNIT_EXPECT_TRUE(test, keel_ring_arm(keel_share(ring), &host));

	KUNIT_EXPECT_FALSE(test, keel_ring_space_wanted(keel_share(ring)));
	KUNIT_EXPECT_TRUE(test, keel_ring_want_space(keel_share(ring), &guest));
	keel_ring_push(&guest, much, KEEL_CONSOLE_OUT_SIZE);
	KUNIT_EXPECT_FALSE(test, keel_ring_want_space(keel_share(ring), &guest));
	KUNIT_EXPECT_TRUE(test, keel_ring_space_wanted(keel_share(ring)));
	keel_ring_pop(&host, &c, 1);
	KUNIT_EXPECT_TRUE(test, keel_ring_want_space(keel_share(ring), &guest));
	keel_ring_unwant_space(keel_share(ring));
	KUNIT_EXPECT_FALSE(test, keel_ring_space_wanted(keel_share(ring)));
	/* Bits this version does not know ask for nothing. */
	ring->in_wake = ~KEEL_CONSOLE_WANT_SPACE;
	KUNIT_EXPECT_FALSE(test, keel_ring_space_wanted(keel_share(ring)));
}

/*
 * Guest and host on two CPUs, each asleep whenever it may be. The guest kicks
 * only when asked; the host tells of space only when asked. A lost doorbell in
 * either direction stops both.
 */
#define STREAM (256 * 1024)

struct stream {
	struct keel_console_ring *ring;
	struct completion kick, space;
	bool corrupt, stuck;
	u32 kicks;
};

static int guest_main(void *arg)
{
	struct stream *s = arg;
	struct keel_ring_end guest;
	u8 buf[96];
	u32 sent = 0;

	keel_ring_attach(&guest, keel_share(s->ring), KEEL_RING_GUEST_OUT);
	while (sent < STREAM && !s->stuck) {
		u32 n = min_t(u32, 1 + sent % sizeof(buf), STREAM - sent);
		int got;

		fill(buf, sent, n);
		got = keel_ring_push(&guest, buf, n);
		if (got > 0) {
			sent += got;
			if (keel_ring_must_kick(keel_share(s->ring))) {
				s->kicks++;
				complete(&s->kick);
			}
		} else if (got < 0) {
			s->corrupt = true;
		} else if (!keel_ring_want_space(keel_share(s->ring), &guest)) {
			if (!wait_for_completion_timeout(&s->space, 5 * HZ))
				s->stuck = true;
			keel_ring_unwant_space(keel_share(s->ring));
		}
	}
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

static void no_doorbell_is_lost_between_cpus(struct kunit *test)
{
	struct stream *s = kunit_kzalloc(test, sizeof(*s), GFP_KERNEL);
	struct keel_ring_end host;
	struct task_struct *guest;
	u32 taken = 0, slept = 0;
	u8 buf[200];

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, s);
	s->ring = keel_fenced(test, sizeof(*s->ring));
	init_completion(&s->kick);
	init_completion(&s->space);
	keel_ring_attach(&host, keel_share(s->ring), KEEL_RING_HOST_OUT);
	guest = kthread_run(guest_main, s, "keel_ring_guest");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, guest);
	while (taken < STREAM && !s->stuck && !s->corrupt) {
		int got;

		keel_ring_disarm(keel_share(s->ring));
		while ((got = keel_ring_pop(&host, buf, sizeof(buf))) > 0) {
			if (!filled(buf, taken, got))
				s->corrupt = true;
			taken += got;
			if (keel_ring_space_wanted(keel_share(s->ring)))
				complete(&s->space);
		}
		if (got < 0)
			s->corrupt = true;
		if (taken < STREAM && !keel_ring_arm(keel_share(s->ring), &host)) {
			slept++;
			if (!wait_for_completion_timeout(&s->kick, 5 * HZ))
				s->stuck = true;
		}
	}
	kthread_stop(guest);
	kunit_info(test, "%u bytes, %u kicks, slept %u times", taken, s->kicks, slept);
	KUNIT_EXPECT_FALSE(test, s->corrupt);
	KUNIT_EXPECT_FALSE(test, s->stuck);
	KUNIT_EXPECT_EQ(test, taken, (u32)STREAM);
}

static struct kunit_case cases[] = { KUNIT_CASE_PARAM(full_and_empty, pair_gen_params),
				     KUNIT_CASE_PARAM(wraps, pair_gen_params),
				     KUNIT_CASE_PARAM(taking_over_a_running_ring, pair_gen_params),
				     KUNIT_CASE_PARAM(impossible_indices, pair_gen_params),
				     KUNIT_CASE_PARAM(the_last_possible_index, pair_gen_params),
				     KUNIT_CASE_PARAM(the_private_index_counts, pair_gen_params),
				     KUNIT_CASE_PARAM(random_traffic, pair_gen_params),
				     KUNIT_CASE(doorbell_flags),
				     KUNIT_CASE(no_doorbell_is_lost_between_cpus),
				     {} };

static struct kunit_suite suite = {
	.name = "keel_ring",
	.test_cases = cases,
};

kunit_test_suites(&suite);

MODULE_DESCRIPTION("KUnit: the console ring");
MODULE_LICENSE("GPL");
