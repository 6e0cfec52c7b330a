// SPDX-License-Identifier: MIT
/* The clock page: arithmetic, continuity over refreshes, and how far it is off. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

#include <hypercall/clock.h>

#include "../clock.h"
#include "tests.h"

#define ONE (UINT64_C(1) << 32) /* 1 ns per tick */

static void test_rate(void **state)
{
	struct clock_sample a = { 1000, 5000 }, b = { 1000 + 3000000, 5000 + 1000000 };

	(void)state;
	assert_int_equal(clock_rate(a, b), ONE / 3);
	assert_int_equal(clock_rate(b, a), 0);
	assert_int_equal(clock_rate(a, a), 0);
	b.ns = a.ns + 99999; /* too short to tell */
	assert_int_equal(clock_rate(a, b), 0);
	/* Years apart, and no overflow. */
	a = (struct clock_sample){ 0, 0 };
	b = (struct clock_sample){ UINT64_C(1) << 62, UINT64_C(1) << 62 };
	assert_int_equal(clock_rate(a, b), ONE);
}

static void test_slew(void **state)
{
	const uint64_t s = 1000000000;

	(void)state;
	assert_int_equal(clock_slew(ONE, 0, s), ONE);
	assert_true(clock_slew(ONE, 1000, s) > ONE && clock_slew(ONE, -1000, s) < ONE);
	/* The whole error is gone after the interval. */
	assert_true(llabs((long long)(clock_slew(ONE, 1000, s) * 1000000 - ONE * 1000000 - ONE)) <
		    (long long)(ONE / 1000));
	/* Never faster or slower than by 5 %: an error of an hour is taken out over a day. */
	assert_int_equal(clock_slew(ONE, INT64_MAX, s), ONE + ONE / 20);
	assert_int_equal(clock_slew(ONE, INT64_MIN, s), ONE - ONE / 20);
}

static int64_t monotonic(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* How far the page is off now: best of a few, so that being preempted does not count. */
static int64_t offset(const struct keel_clock *page)
{
	int64_t best = INT64_MAX;

	for (int i = 0; i < 50; i++) {
		int64_t before = monotonic(), off;
		uint64_t ns;

		assert_true(keel_clock_read(page, &ns));
		off = (int64_t)ns - before - (monotonic() - before) / 2;
		if (llabs(off) < llabs(best))
			best = off;
	}
	return best;
}

static void test_tracks(void **state)
{
	static struct keel_clock page;
	struct clock c;
	int64_t worst = 0;

	(void)state;
	clock_early();
	clock_init(&c, &page);
	assert_true(llabs((int64_t)page.wall_ns + monotonic() - (int64_t)time(NULL) * 1000000000) < 2000000000);
	if (!(page.flags & KEEL_CLOCK_VALID)) {
		assert_int_equal(clock_refresh(&c), 0);
		skip();
	}
	/* As keel run does: the backend takes its time between the two, and then the guest starts. */
	nanosleep(&(struct timespec){ 0, 2000000 }, NULL);
	assert_true(clock_refresh(&c) == 20000000);
	for (int i = 0; i < 4; i++) {
		struct timespec ts = { 0, i ? 250000000 : 20000000 };
		uint32_t seq = page.seq;
		uint64_t next;

		nanosleep(&ts, NULL);
		if (llabs(offset(&page)) > llabs(worst))
			worst = offset(&page);
		/* Soon, and then at most once a second. */
		next = clock_refresh(&c);
		assert_true(i ? next >= 1000000000 : next == 200000000);
		assert_int_equal(page.seq, seq + 2);
	}
	print_message("# guest time was off by at most %ld ns\n", (long)worst);
	/* "A few microseconds"; ten, because a virtual machine's host may have been busy. */
	assert_true(llabs(worst) < 10000);
	clock_fini(&c);
}

struct reader {
	const struct keel_clock *page;
	bool stop;
	unsigned long reads, backwards;
};

static void *read_on(void *arg)
{
	struct reader *r = arg;
	uint64_t last = 0, ns;

	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		if (!keel_clock_read(r->page, &ns))
			continue;
		r->backwards += ns < last;
		last = ns;
		r->reads++;
	}
	return NULL;
}

/* A reader on another thread never sees time turn back, however much refreshes have to correct. */
static void test_monotonic(void **state)
{
	static struct keel_clock page;
	struct reader r = { .page = &page };
	pthread_t thread;
	struct clock c;

	(void)state;
	clock_early();
	clock_init(&c, &page);
	if (!(page.flags & KEEL_CLOCK_VALID))
		skip();
	assert_int_equal(pthread_create(&thread, NULL, read_on, &r), 0);
	for (int i = 0; i < 1000; i++) {
		struct timespec ts = { 0, 100000 };

		/* As if the host's clock had run 3 % slow, then 3 % fast for the last 10 ms. */
		c.anchor.tsc = __rdtsc() - c.tsc_hz / 100;
		c.anchor.ns = (uint64_t)(monotonic() - (i % 2 ? 9700000 : 10300000));
		clock_refresh(&c);
		assert_true(i % 2 ? page.mult < c.rate + c.rate / 15 : page.mult > c.rate - c.rate / 15);
		nanosleep(&ts, NULL);
	}
	__atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	clock_fini(&c);
	assert_int_equal(r.backwards, 0);
	assert_true(r.reads > 10000);
}

const struct CMUnitTest clock_tests[] = {
	cmocka_unit_test(test_rate),
	cmocka_unit_test(test_slew),
	cmocka_unit_test(test_tracks),
	cmocka_unit_test(test_monotonic),
};
DEFINE_TESTS(clock);
