// SPDX-License-Identifier: GPL-2.0-only
/*
 * The event map: against a model that knows nothing of words, with hostile
 * contents, and with senders on other CPUs.
 */
#include <hypercall/event.h>

#include "keel_test.h"

#define BITS KEEL_EVENT_BITS

static struct keel_vcpu *new_vcpu(struct kunit *test)
{
	struct keel_vcpu *v = keel_fenced(test, sizeof(*v));

	return v;
}

static bool word_pending(const struct keel_vcpu *v, u32 bit)
{
	return v->pending >> bit / 64 & 1;
}

/* Nothing but the map and its summary is an event operation's to write. */
static bool rest_untouched(const struct keel_vcpu *v)
{
	return !memchr_inv(v, 0, offsetof(struct keel_vcpu, pending)) &&
	       !memchr_inv(v->reserved2, 0,
			   offsetof(struct keel_vcpu, event_pending) - offsetof(struct keel_vcpu, reserved2)) &&
	       !memchr_inv(v->reserved5, 0, sizeof(v->reserved5));
}

static void each_port_by_itself(struct kunit *test)
{
	struct keel_vcpu *v = new_vcpu(test);
	u32 bit, wrong = 0;

	for (bit = 0; bit < BITS; bit++) {
		bool ok = !keel_ev_pending(keel_share(v)) && !keel_ev_test(keel_share(v), bit);

		ok = ok && keel_ev_send(keel_share(v), bit);  /* the first send kicks */
		ok = ok && !keel_ev_send(keel_share(v), bit); /* the second finds it pending */
		ok = ok && keel_ev_pending(keel_share(v)) && keel_ev_test(keel_share(v), bit) &&
		     v->pending == 1ull << bit / 64;
		ok = ok && keel_ev_next(keel_share(v)) == bit && !keel_ev_test(keel_share(v), bit);
		ok = ok && keel_ev_next(keel_share(v)) == -1 && !v->pending;
		if (!ok && !wrong++)
			KUNIT_FAIL(test, "port %u", bit);
	}
	KUNIT_EXPECT_TRUE(test, rest_untouched(v));
	KUNIT_EXPECT_PTR_EQ(test, memchr_inv(v->event_mask, 0, sizeof(v->event_mask)), NULL);
}

static void many_sends_to_one_vcpu_kick_once(struct kunit *test)
{
	struct keel_vcpu *v = new_vcpu(test);
	u32 bit, kicks = 0;
	int last = -1, n = 0;

	/* From the least urgent to the most, in steps that visit every port. */
	for (bit = 0; bit < BITS; bit++)
		kicks += keel_ev_send(keel_share(v), (BITS - 1 - bit) * 5 % BITS);
	KUNIT_EXPECT_EQ(test, kicks, 1u);
	KUNIT_EXPECT_EQ(test, v->pending, ~0ull);
	for (;;) {
		int next = keel_ev_next(keel_share(v));

		if (next < 0)
			break;
		KUNIT_ASSERT_GT(test, next, last);
		last = next;
		n++;
	}
	KUNIT_EXPECT_EQ(test, n, BITS);
	KUNIT_EXPECT_EQ(test, v->pending, 0ull);
}

static void a_masked_port_holds_its_event(struct kunit *test)
{
	static const u32 ports[] = { 0, 63, 64, 1023, 1024, 4095 };
	struct keel_vcpu *v = new_vcpu(test);
	int i;

	for (i = 0; i < ARRAY_SIZE(ports); i++) {
		u32 p = ports[i];

		keel_ev_mask(keel_share(v), p);
		KUNIT_EXPECT_FALSE(test, keel_ev_send(keel_share(v), p));
		KUNIT_EXPECT_TRUE(test, keel_ev_test(keel_share(v), p));
		KUNIT_EXPECT_FALSE(test, keel_ev_pending(keel_share(v)));
		KUNIT_EXPECT_EQ(test, keel_ev_next(keel_share(v)), -1);
		KUNIT_EXPECT_TRUE(test, keel_ev_test(keel_share(v), p));
		KUNIT_EXPECT_TRUE(test, keel_ev_unmask(keel_share(v), p));
		KUNIT_EXPECT_TRUE(test, word_pending(v, p));
		KUNIT_EXPECT_EQ(test, keel_ev_next(keel_share(v)), (int)p);
		/* Nothing held: nothing to deliver. */
		keel_ev_mask(keel_share(v), p);
		KUNIT_EXPECT_FALSE(test, keel_ev_unmask(keel_share(v), p));
		KUNIT_EXPECT_FALSE(test, keel_ev_pending(keel_share(v)));
	}
}

static void masking_after_the_send_still_holds(struct kunit *test)
{
	struct keel_vcpu *v = new_vcpu(test);

	KUNIT_EXPECT_TRUE(test, keel_ev_send(keel_share(v), 70));
	KUNIT_EXPECT_FALSE(test, keel_ev_send(keel_share(v), 71));
	keel_ev_mask(keel_share(v), 70);
	KUNIT_EXPECT_EQ(test, keel_ev_next(keel_share(v)), 71);
	KUNIT_EXPECT_EQ(test, keel_ev_next(keel_share(v)), -1);
	KUNIT_EXPECT_FALSE(test, keel_ev_pending(keel_share(v)));
	KUNIT_EXPECT_TRUE(test, keel_ev_unmask(keel_share(v), 70));
	KUNIT_EXPECT_EQ(test, keel_ev_next(keel_share(v)), 70);
}

static void closing_drops_what_is_held(struct kunit *test)
{
	struct keel_vcpu *v = new_vcpu(test);

	keel_ev_send(keel_share(v), 200);
	keel_ev_send(keel_share(v), 201);
	keel_ev_clear(keel_share(v), 200);
	KUNIT_EXPECT_FALSE(test, keel_ev_test(keel_share(v), 200));
	KUNIT_EXPECT_EQ(test, keel_ev_next(keel_share(v)), 201);
	KUNIT_EXPECT_EQ(test, keel_ev_next(keel_share(v)), -1);
	/* It comes back masked, and empty. */
	KUNIT_EXPECT_FALSE(test, keel_ev_send(keel_share(v), 200));
	keel_ev_clear(keel_share(v), 200);
	KUNIT_EXPECT_FALSE(test, keel_ev_unmask(keel_share(v), 200));
	KUNIT_EXPECT_EQ(test, keel_ev_next(keel_share(v)), -1);
}

/* What a guest can write into its own page costs at most a scan. */
static void hostile_maps_end(struct kunit *test)
{
	struct keel_vcpu *v = new_vcpu(test);
	int n = 0;

	v->pending = ~0ull; /* words without events */
	KUNIT_EXPECT_EQ(test, keel_ev_next(keel_share(v)), -1);
	KUNIT_EXPECT_EQ(test, v->pending, 0ull);

	memset(v->event_pending, 0xff, sizeof(v->event_pending)); /* events without words */
	KUNIT_EXPECT_EQ(test, keel_ev_next(keel_share(v)), -1);

	v->pending = ~0ull; /* everything pending and everything masked */
	memset(v->event_mask, 0xff, sizeof(v->event_mask));
	KUNIT_EXPECT_EQ(test, keel_ev_next(keel_share(v)), -1);
	KUNIT_EXPECT_EQ(test, v->pending, 0ull);

	v->pending = ~0ull; /* all but one masked */
	v->event_mask[63] = ~(1ull << 63);
	KUNIT_EXPECT_EQ(test, keel_ev_next(keel_share(v)), 4095);
	KUNIT_EXPECT_EQ(test, keel_ev_next(keel_share(v)), -1);

	v->pending = ~0ull;
	memset(v->event_mask, 0, sizeof(v->event_mask));
	memset(v->event_pending, 0xff, sizeof(v->event_pending));
	while (keel_ev_next(keel_share(v)) >= 0)
		n++;
	KUNIT_EXPECT_EQ(test, n, BITS);
	KUNIT_EXPECT_TRUE(test, rest_untouched(v));
}

/* Events that send others while they are handled, and one without a handler. */
struct chain {
	struct keel_vcpu *v;
	u32 sends; /* port this one sends, or itself for none */
	u32 seen[8];
	int count;
};

static void record(void *arg, u32 bit)
{
	struct chain *c = arg;

	if (c->count < ARRAY_SIZE(c->seen))
		c->seen[c->count] = bit;
	c->count++;
	/* The first handler raises a more urgent event and a less urgent one. */
	if (c->count == 1) {
		keel_ev_send(keel_share(c->v), 10);
		keel_ev_send(keel_share(c->v), 4000);
		keel_ev_send(keel_share(c->v), bit);
	}
}

static void dispatch_chooses_anew(struct kunit *test)
{
	static const u32 order[] = { 500, 10, 500, 600, 4000 };
	struct keel_event_action *table = kunit_kcalloc(test, BITS, sizeof(*table), GFP_KERNEL);
	struct keel_vcpu *v = new_vcpu(test);
	struct chain c = { .v = v };
	u64 spurious = 0;
	int i;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, table);
	KUNIT_EXPECT_EQ(test, keel_ev_dispatch(keel_share(v), table, &spurious), 0u);
	for (i = 0; i < ARRAY_SIZE(order); i++)
		table[order[i]] = (struct keel_event_action){ record, &c };
	keel_ev_send(keel_share(v), 600);
	keel_ev_send(keel_share(v), 500);
	keel_ev_send(keel_share(v), 601);
	KUNIT_EXPECT_EQ(test, keel_ev_dispatch(keel_share(v), table, &spurious), 6u);
	KUNIT_EXPECT_EQ(test, spurious, 1ull);
	KUNIT_ASSERT_EQ(test, c.count, (int)ARRAY_SIZE(order));
	for (i = 0; i < ARRAY_SIZE(order); i++)
		KUNIT_EXPECT_EQ(test, c.seen[i], order[i]);
	KUNIT_EXPECT_FALSE(test, keel_ev_pending(keel_share(v)));

	keel_ev_send(keel_share(v), 601);
	KUNIT_EXPECT_EQ(test, keel_ev_dispatch(keel_share(v), table, NULL), 1u);
}

/* The model: one flag per port, no words; `raised` says which words the rules let be pending. */
struct model {
	bool held[BITS], masked[BITS], raised[64];
};

static int model_next(struct model *m)
{
	int w, b;

	for (w = 0; w < 64; w++) {
		if (!m->raised[w])
			continue;
		for (b = w * 64; b < w * 64 + 64; b++)
			if (m->held[b] && !m->masked[b]) {
				m->held[b] = false;
				return b;
			}
		m->raised[w] = false;
	}
	return -1;
}

/* An event that may be delivered is announced: the invariant no interleaving may break. */
static bool announced(const struct keel_vcpu *v)
{
	int w;

	for (w = 0; w < 64; w++)
		if (v->event_pending[w] & ~v->event_mask[w] && !(v->pending >> w & 1))
			return false;
	return true;
}

static void random_sequences_agree_with_the_model(struct kunit *test)
{
	struct model *m = kunit_kzalloc(test, sizeof(*m), GFP_KERNEL);
	struct keel_vcpu *v = new_vcpu(test);
	u64 state = keel_test_seed(test);
	int step, i;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, m);
	for (step = 0; step < 100000; step++) {
		/* A few ports in a few words collide often; all of them, sometimes. */
		u32 bit = keel_random_below(&state, 8)
				  ? keel_random_below(&state, 4) * 1021 % BITS + keel_random_below(&state, 5)
				  : keel_random_below(&state, BITS);
		u32 op = keel_random_below(&state, 16);
		bool got = false, want = false;
		int gotbit = 0, wantbit = 0;

		bit %= BITS;
		if (op < 6) {
			want = !m->masked[bit] && !v->pending;
			got = keel_ev_send(keel_share(v), bit);
			m->held[bit] = true;
			if (!m->masked[bit])
				m->raised[bit / 64] = true;
		} else if (op < 8) {
			keel_ev_mask(keel_share(v), bit);
			m->masked[bit] = true;
		} else if (op < 11) {
			want = m->held[bit];
			got = keel_ev_unmask(keel_share(v), bit);
			m->masked[bit] = false;
			if (want)
				m->raised[bit / 64] = true;
		} else if (op < 12) {
			keel_ev_clear(keel_share(v), bit);
			m->masked[bit] = true;
			m->held[bit] = false;
		} else {
			wantbit = model_next(m);
			gotbit = keel_ev_next(keel_share(v));
		}
		if (got != want || gotbit != wantbit || keel_ev_test(keel_share(v), bit) != m->held[bit] ||
		    !announced(v)) {
			KUNIT_FAIL(test, "step %d op %u port %u: %d for %d, event %d for %d", step, op, bit, got, want,
				   gotbit, wantbit);
			return;
		}
	}
	for (i = 0; i < BITS; i++) {
		KUNIT_ASSERT_EQ(test, keel_ev_test(keel_share(v), i), m->held[i]);
		KUNIT_ASSERT_EQ(test, (bool)(v->event_mask[i / 64] >> i % 64 & 1), m->masked[i]);
	}
	KUNIT_EXPECT_TRUE(test, rest_untouched(v));
}

/*
 * No lost wake-up: each sender waits until its event was handled before it
 * sends the next; the receiver sleeps whenever nothing is pending and only a
 * kick wakes it. One lost event, or one missing kick, and both wait for ever.
 */
#define SENDERS 3
#define ROUNDS 20000

struct arena {
	struct keel_vcpu *v;
	struct completion kick;
	atomic_t stop;
	struct sender {
		struct arena *arena;
		struct task_struct *task;
		struct completion handled;
		u32 bit;
		u32 sent;
	} sender[SENDERS];
};

static int sender_main(void *arg)
{
	struct sender *s = arg;

	while (s->sent < ROUNDS && !atomic_read(&s->arena->stop)) {
		s->sent++;
		if (keel_ev_send(keel_share(s->arena->v), s->bit))
			complete(&s->arena->kick);
		if (!wait_for_completion_timeout(&s->handled, 10 * HZ))
			break;
	}
	/* Stay until the test collects the result. */
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

static void handled(void *arg, u32 bit)
{
	struct sender *s = arg;

	complete(&s->handled);
}

static void no_event_is_lost_between_cpus(struct kunit *test)
{
	struct keel_event_action *table = kunit_kcalloc(test, BITS, sizeof(*table), GFP_KERNEL);
	struct arena *a = kunit_kzalloc(test, sizeof(*a), GFP_KERNEL);
	u32 taken = 0, slept = 0, round = 0;
	u64 spurious = 0;
	bool woken = true;
	int i;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, table);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, a);
	a->v = new_vcpu(test);
	init_completion(&a->kick);
	for (i = 0; i < SENDERS; i++) {
		struct sender *s = &a->sender[i];

		/* Two in one word, one in another. */
		*s = (struct sender){ .arena = a, .bit = i == 2 ? 2000 : 100 + i };
		init_completion(&s->handled);
		table[s->bit] = (struct keel_event_action){ handled, s };
	}
	for (i = 0; i < SENDERS; i++) {
		a->sender[i].task = kthread_run(sender_main, &a->sender[i], "keel_sender/%d", i);
		if (IS_ERR(a->sender[i].task))
			break;
	}
	KUNIT_EXPECT_EQ(test, i, SENDERS);
	while (i == SENDERS && woken && taken < SENDERS * ROUNDS) {
		/* Mask and unmask one of the ports all the while: it must keep its events. */
		u32 port = a->sender[round++ % SENDERS].bit;

		keel_ev_mask(keel_share(a->v), port);
		taken += keel_ev_dispatch(keel_share(a->v), table, &spurious);
		if (!keel_ev_unmask(keel_share(a->v), port) && !keel_ev_pending(keel_share(a->v)) &&
		    taken < SENDERS * ROUNDS) {
			slept++;
			woken = wait_for_completion_timeout(&a->kick, 5 * HZ);
		}
	}
	atomic_set(&a->stop, 1);
	while (i--)
		kthread_stop(a->sender[i].task);
	kunit_info(test, "%u events, slept %u times", taken, slept);
	KUNIT_EXPECT_TRUE(test, woken);
	KUNIT_EXPECT_EQ(test, taken, (u32)(SENDERS * ROUNDS));
	KUNIT_EXPECT_EQ(test, spurious, 0ull);
	KUNIT_EXPECT_FALSE(test, keel_ev_pending(keel_share(a->v)));
}

static struct kunit_case cases[] = {
	KUNIT_CASE(each_port_by_itself),	   KUNIT_CASE(many_sends_to_one_vcpu_kick_once),
	KUNIT_CASE(a_masked_port_holds_its_event), KUNIT_CASE(masking_after_the_send_still_holds),
	KUNIT_CASE(closing_drops_what_is_held),	   KUNIT_CASE(hostile_maps_end),
	KUNIT_CASE(dispatch_chooses_anew),	   KUNIT_CASE(random_sequences_agree_with_the_model),
	KUNIT_CASE(no_event_is_lost_between_cpus), {}
};

static struct kunit_suite suite = {
	.name = "keel_event",
	.test_cases = cases,
};

kunit_test_suites(&suite);

MODULE_DESCRIPTION("KUnit: the event map");
MODULE_LICENSE("GPL");
