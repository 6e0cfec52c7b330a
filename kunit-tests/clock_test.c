// SPDX-License-Identifier: GPL-2.0-only
/*
 * Clock arithmetic and the clock page. The reference multiplies in 32-bit
 * halves, so that it shares no 128-bit operation with the code under test.
 */
#include <hypercall/clock.h>

#include "keel_test.h"

#define ONE KEEL_U64(0x100000000) /* a multiplier of 1 ns per tick */

static const u64 edges[] = {
	0,
	1,
	2,
	3,
	999,
	1000000000,
	ONE - 1,
	ONE,
	ONE + 1,
	ONE * 3 / 10,
	1ull << 62, /* what fits, and what just does not */
	(1ull << 63) - 1,
	1ull << 63,
	(1ull << 63) + 1,
	~0ull - 1,
	~0ull,
};

/* a * b >> 32, or ~0 where that needs more than 64 bits */
static u64 reference_scale(u64 a, u64 b)
{
	u64 ll = (a & 0xffffffff) * (b & 0xffffffff);
	u64 lh = (a & 0xffffffff) * (b >> 32);
	u64 hl = (a >> 32) * (b & 0xffffffff);
	u64 hh = (a >> 32) * (b >> 32);
	u64 middle, high = 0;

	/* middle = (ll >> 32) + lh + hl, its carries in high */
	middle = ll >> 32;
	middle += lh;
	high += middle < lh;
	middle += hl;
	high += middle < hl;
	/* the result is middle + (hh << 32) */
	if (high || hh >> 32)
		return ~0ull;
	hh <<= 32;
	return middle + hh < hh ? ~0ull : middle + hh;
}

static void scale_at_the_edges(struct kunit *test)
{
	int i, j;

	for (i = 0; i < ARRAY_SIZE(edges); i++)
		for (j = 0; j < ARRAY_SIZE(edges); j++)
			KUNIT_EXPECT_EQ_MSG(test, keel_clock_scale(edges[i], edges[j]),
					    reference_scale(edges[i], edges[j]), "%llx * %llx", edges[i], edges[j]);
	/* Known products, should the reference share a mistake. */
	KUNIT_EXPECT_EQ(test, keel_clock_scale(12345, ONE), 12345ull);
	KUNIT_EXPECT_EQ(test, keel_clock_scale(~0ull, ONE), ~0ull);
	KUNIT_EXPECT_EQ(test, keel_clock_scale(~0ull, ONE - 1), 0xfffffffeffffffffull);
	KUNIT_EXPECT_EQ(test, keel_clock_scale(3, ONE / 2), 1ull);
	KUNIT_EXPECT_EQ(test, keel_clock_scale(1ull << 63, ONE * 2), ~0ull);
	KUNIT_EXPECT_EQ(test,
			keel_clock_scale(3000000000ull * 86400 * 365, keel_clock_mult(3000000000ull)) / 1000000000,
			86400ull * 365 - 1);
}

static void scale_at_random(struct kunit *test)
{
	u64 state = keel_test_seed(test);
	int i;

	for (i = 0; i < 200000; i++) {
		u64 a = keel_random_wide(&state), b = keel_random_wide(&state);

		if (keel_clock_scale(a, b) == reference_scale(a, b))
			continue;
		KUNIT_FAIL(test, "%llx * %llx = %llx, not %llx", a, b, keel_clock_scale(a, b), reference_scale(a, b));
		return;
	}
}

static void mult_is_never_fast(struct kunit *test)
{
	static const u64 hz[] = { 1,	      2,	  3,	      7,	  999999999, 1000000000, 1000000001,
				  2399998123, 2400000000, 3000000000, 5700000001, ONE - 1,   ONE,	 ~0ull };
	int i;

	KUNIT_EXPECT_EQ(test, keel_clock_mult(0), 0ull);
	KUNIT_EXPECT_EQ(test, keel_clock_mult(1), 1000000000ull << 32);
	KUNIT_EXPECT_EQ(test, keel_clock_mult(1000000000), ONE);
	KUNIT_EXPECT_EQ(test, keel_clock_mult(500000000), ONE * 2);
	KUNIT_EXPECT_EQ(test, keel_clock_mult(3000000000ull), 0x55555555ull);
	KUNIT_EXPECT_EQ(test, keel_clock_mult(~0ull), 0ull);
	for (i = 0; i < ARRAY_SIZE(hz); i++) {
		u64 m = keel_clock_mult(hz[i]), second = keel_clock_scale(hz[i], m);

		/* A second's worth of ticks is at most a second, and short by less than one unit of mult per tick. */
		KUNIT_EXPECT_LE_MSG(test, second, 1000000000ull, "%llu Hz", hz[i]);
		KUNIT_EXPECT_GE_MSG(test, second + (hz[i] >> 32) + 1, 1000000000ull, "%llu Hz", hz[i]);
	}
}

/* A timer set by keel_clock_ticks() must not fire early, nor a whole tick late. */
static bool ticks_fit(u64 ns, u64 mult)
{
	u64 ticks = keel_clock_ticks(ns, mult);

	if (!ns || !mult)
		return ticks == (ns ? ~0ull : 0);
	return (ticks == ~0ull || reference_scale(ticks, mult) >= ns) && reference_scale(ticks - 1, mult) < ns;
}

static void ticks_round_up(struct kunit *test)
{
	u64 state = keel_test_seed(test);
	int i, j;

	KUNIT_EXPECT_EQ(test, keel_clock_ticks(1, ONE), 1ull);
	KUNIT_EXPECT_EQ(test, keel_clock_ticks(1, ONE / 3), 4ull); /* 0x55555555 * 3 is just short of 1 */
	KUNIT_EXPECT_EQ(test, keel_clock_ticks(1, ONE * 1000), 1ull);
	KUNIT_EXPECT_EQ(test, keel_clock_ticks(~0ull, ONE), ~0ull);
	KUNIT_EXPECT_EQ(test, keel_clock_ticks(~0ull, 1), ~0ull);
	KUNIT_EXPECT_EQ(test, keel_clock_ticks(5, 0), ~0ull);
	for (i = 0; i < ARRAY_SIZE(edges); i++)
		for (j = 0; j < ARRAY_SIZE(edges); j++)
			KUNIT_EXPECT_TRUE_MSG(test, ticks_fit(edges[i], edges[j]), "ns %llx mult %llx", edges[i],
					      edges[j]);
	for (i = 0; i < 100000; i++) {
		u64 ns = keel_random_wide(&state), mult = keel_random_wide(&state);

		/* One is enough to know. */
		KUNIT_ASSERT_TRUE_MSG(test, ticks_fit(ns, mult), "ns %llx mult %llx: %llx", ns, mult,
				      keel_clock_ticks(ns, mult));
	}
}

static void ns_of_a_sample(struct kunit *test)
{
	struct keel_clock_sample s = { .base_tsc = 1000, .base_ns = 5000, .mult = ONE / 2 };

	KUNIT_EXPECT_EQ(test, keel_clock_ns(&s, 1000), 5000ull);
	KUNIT_EXPECT_EQ(test, keel_clock_ns(&s, 1001), 5000ull);
	KUNIT_EXPECT_EQ(test, keel_clock_ns(&s, 1002), 5001ull);
	/* Another CPU's TSC, or a page just updated: earlier ticks read as the base, never as 2^64 - something. */
	KUNIT_EXPECT_EQ(test, keel_clock_ns(&s, 999), 5000ull);
	KUNIT_EXPECT_EQ(test, keel_clock_ns(&s, 0), 5000ull);

	s.mult = ONE;
	KUNIT_EXPECT_EQ(test, keel_clock_ns(&s, ~0ull), ~0ull);
	KUNIT_EXPECT_EQ(test, keel_clock_ns(&s, ~0ull - 4000), ~0ull);
	KUNIT_EXPECT_EQ(test, keel_clock_ns(&s, ~0ull - 4001), ~0ull - 1);
	s.base_ns = ~0ull - 10;
	KUNIT_EXPECT_EQ(test, keel_clock_ns(&s, 1010), ~0ull);
	KUNIT_EXPECT_EQ(test, keel_clock_ns(&s, 1011), ~0ull);
	KUNIT_EXPECT_EQ(test, keel_clock_ns(&s, 1009), ~0ull - 1);
	s = (struct keel_clock_sample){ .base_tsc = ~0ull - 5, .base_ns = 0, .mult = ~0ull };
	KUNIT_EXPECT_EQ(test, keel_clock_ns(&s, ~0ull - 5), 0ull);
	KUNIT_EXPECT_EQ(test, keel_clock_ns(&s, ~0ull - 4), ONE - 1);
}

static void ns_never_runs_backwards(struct kunit *test)
{
	u64 state = keel_test_seed(test);
	struct keel_clock_sample s;
	u64 last, tsc;
	int i, j;

	for (i = 0; i < 200; i++) {
		s = (struct keel_clock_sample){ .base_tsc = keel_random_wide(&state),
						.base_ns = keel_random_wide(&state),
						.mult = keel_random_wide(&state) };
		last = 0;
		tsc = keel_random_wide(&state);
		for (j = 0; j < 200; j++) {
			u64 ns = keel_clock_ns(&s, tsc);

			KUNIT_ASSERT_GE(test, ns, s.base_ns);
			KUNIT_ASSERT_GE(test, ns, last);
			last = ns;
			if (check_add_overflow(tsc, keel_random_wide(&state) >> 8, &tsc))
				break;
		}
	}
}

static void sample_copies_the_page(struct kunit *test)
{
	struct keel_clock page = { .seq = 2,
				   .flags = KEEL_CLOCK_VALID,
				   .base_tsc = 1,
				   .base_ns = 2,
				   .mult = 3,
				   .wall_ns = 4,
				   .disruption = 5 };
	struct keel_clock_sample s;

	KUNIT_ASSERT_TRUE(test, keel_clock_sample(keel_share(&page), &s));
	KUNIT_EXPECT_EQ(test, s.base_tsc, 1ull);
	KUNIT_EXPECT_EQ(test, s.base_ns, 2ull);
	KUNIT_EXPECT_EQ(test, s.mult, 3ull);
	KUNIT_EXPECT_EQ(test, s.wall_ns, 4ull);
	KUNIT_EXPECT_EQ(test, s.disruption, 5ull);

	page.seq = 0xfffffffe;
	KUNIT_EXPECT_TRUE(test, keel_clock_sample(keel_share(&page), &s));
	page.flags = 0;
	page.wall_ns = 44;
	page.disruption = 55;
	KUNIT_EXPECT_FALSE(test, keel_clock_sample(keel_share(&page), &s));
	/* These two hold on a page that cannot convert the TSC as well. */
	KUNIT_EXPECT_EQ(test, s.wall_ns, 44ull);
	KUNIT_EXPECT_EQ(test, s.disruption, 55ull);
	page.flags = ~KEEL_CLOCK_VALID;
	KUNIT_EXPECT_FALSE(test, keel_clock_sample(keel_share(&page), &s));
}

/* A host that dies, or lies, in the middle of an update must not hang its guest. */
static void sample_gives_up_on_a_stuck_page(struct kunit *test)
{
	struct keel_clock page = { .seq = 1, .flags = KEEL_CLOCK_VALID };
	u64 begun = ktime_get_ns();
	struct keel_clock_sample s;

	KUNIT_EXPECT_FALSE(test, keel_clock_sample(keel_share(&page), &s));
	page.seq = 0xffffffff;
	KUNIT_EXPECT_FALSE(test, keel_clock_sample(keel_share(&page), &s));
	KUNIT_EXPECT_LT(test, ktime_get_ns() - begun, (u64)NSEC_PER_SEC);
}

/* Keeps all fields a function of one number, and updates them as the host does. */
static int update_clock(void *arg)
{
	struct keel_clock *page = arg;
	u64 n = 1;

	while (!kthread_should_stop()) {
		__atomic_store_n(&page->seq, page->seq + 1, __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		WRITE_ONCE(page->base_tsc, n);
		WRITE_ONCE(page->base_ns, n + 1);
		WRITE_ONCE(page->mult, n + 2);
		WRITE_ONCE(page->wall_ns, n + 3);
		WRITE_ONCE(page->disruption, n + 4);
		__atomic_store_n(&page->seq, page->seq + 1, __ATOMIC_RELEASE);
		n++;
		if (!(n % 1024))
			cond_resched();
	}
	return 0;
}

static void sample_is_never_torn(struct kunit *test)
{
	struct keel_clock *page = kunit_kzalloc(test, sizeof(*page), GFP_KERNEL);
	unsigned long soon = jiffies + 2 * HZ, end = jiffies + 10 * HZ;
	/* On one CPU with the writer there is a new value only after it has run. */
	bool alone = num_online_cpus() == 1;
	struct keel_clock_sample s;
	struct task_struct *writer;
	u64 taken = 0, torn = 0, backwards = 0, last = 0, distinct = 0;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, page);
	*page = (struct keel_clock){
		.flags = KEEL_CLOCK_VALID,
		.base_ns = 1,
		.mult = 2,
		.wall_ns = 3,
		.disruption = 4,
	};
	writer = kthread_run(update_clock, page, "keel_clock_test");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, writer);
	/* Many, and where that takes too long, as few as tell something. */
	while (time_before(jiffies, end) && distinct < (!alone && time_before(jiffies, soon) ? 500000 : 1000)) {
		if (alone)
			usleep_range(50, 100);
		else
			cond_resched();
		if (!keel_clock_sample(keel_share(page), &s))
			continue;
		taken++;
		torn += s.base_ns != s.base_tsc + 1 || s.mult != s.base_tsc + 2 || s.wall_ns != s.base_tsc + 3 ||
			s.disruption != s.base_tsc + 4;
		backwards += s.base_tsc < last;
		distinct += s.base_tsc != last;
		last = s.base_tsc;
	}
	kthread_stop(writer);
	kunit_info(test, "%llu samples, %llu different", taken, distinct);
	KUNIT_EXPECT_EQ(test, torn, 0ull);
	KUNIT_EXPECT_EQ(test, backwards, 0ull);
	/* Else nothing was tested. */
	KUNIT_EXPECT_GT(test, distinct, 100ull);
}

static struct kunit_case cases[] = { KUNIT_CASE(scale_at_the_edges),	 KUNIT_CASE(scale_at_random),
				     KUNIT_CASE(mult_is_never_fast),	 KUNIT_CASE(ticks_round_up),
				     KUNIT_CASE(ns_of_a_sample),	 KUNIT_CASE(ns_never_runs_backwards),
				     KUNIT_CASE(sample_copies_the_page), KUNIT_CASE(sample_gives_up_on_a_stuck_page),
				     KUNIT_CASE(sample_is_never_torn),	 {} };

static struct kunit_suite suite = {
	.name = "keel_clock",
	.test_cases = cases,
};

kunit_test_suites(&suite);

MODULE_DESCRIPTION("KUnit: clock arithmetic and the clock page");
MODULE_LICENSE("GPL");
