// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Clock arithmetic at its edges, and reading a page that changes underneath. */
#include <pthread.h>

#include <hypercall/clock.h>

#include "unit.h"

#define ONE (KEEL_U64(1) << 32) /* 1 ns per tick */
#define MAX (~KEEL_U64(0))

static void scaling(void **state)
{
	(void)state;
	assert_int_equal(keel_clock_scale(0, ONE), 0);
	assert_int_equal(keel_clock_scale(12345, ONE), 12345);
	assert_int_equal(keel_clock_scale(3, ONE / 2), 1); /* rounds down */
	assert_int_equal(keel_clock_scale(MAX, ONE), MAX);
	assert_int_equal(keel_clock_scale(MAX, ONE / 2), MAX / 2);
	assert_int_equal(keel_clock_scale(MAX, 1), MAX >> 32);
	/* Beyond 64 bits it stays at the end instead of running backwards. */
	assert_int_equal(keel_clock_scale(MAX, ONE + 1), MAX);
	assert_int_equal(keel_clock_scale(MAX, MAX), MAX);
	assert_int_equal(keel_clock_scale(MAX, 0), 0);
	/* 100 years of a 5 GHz TSC: the product needs 92 bits. */
	assert_int_equal(keel_clock_scale(KEEL_U64(15778800000000000000), ONE / 5), KEEL_U64(3155759999265242367));
}

static void sample_to_time(void **state)
{
	struct keel_clock_sample s = { .base_tsc = 1000, .base_ns = 50, .mult = ONE * 2 };

	(void)state;
	assert_int_equal(keel_clock_ns(&s, 1000), 50);
	assert_int_equal(keel_clock_ns(&s, 1010), 70);
	assert_int_equal(keel_clock_ns(&s, 999), 50); /* before the base: the base */
	assert_int_equal(keel_clock_ns(&s, 0), 50);
	s.base_ns = MAX - 10;
	assert_int_equal(keel_clock_ns(&s, 1005), MAX);
	assert_int_equal(keel_clock_ns(&s, 1006), MAX); /* saturates */
	s.mult = 0;
	assert_int_equal(keel_clock_ns(&s, MAX), MAX - 10);
}

static void time_never_runs_backwards_in_ticks(void **state)
{
	uint64_t seed = 11;

	(void)state;
	for (int i = 0; i < 100000; i++) {
		struct keel_clock_sample s = { .base_tsc = rnd(&seed) >> below(&seed, 64),
					       .base_ns = rnd(&seed) >> below(&seed, 64),
					       .mult = rnd(&seed) >> below(&seed, 64) };
		uint64_t a = rnd(&seed) >> below(&seed, 64), b = a + below(&seed, 1000);

		if (b >= a)
			assert_true(keel_clock_ns(&s, b) >= keel_clock_ns(&s, a));
		assert_true(keel_clock_ns(&s, a) >= s.base_ns);
	}
}

static void multiplier_of_a_frequency(void **state)
{
	static const uint64_t hz[] = { 1, 999999999, 1000000000, 1000000001, 2445406000, 5000000000, MAX };

	(void)state;
	assert_int_equal(keel_clock_mult(0), 0);
	assert_int_equal(keel_clock_mult(1000000000), ONE);
	assert_int_equal(keel_clock_mult(2000000000), ONE / 2);
	assert_int_equal(keel_clock_mult(1), ONE * 1000000000);
	for (size_t i = 0; i < sizeof(hz) / sizeof(hz[0]); i++) {
		unsigned __int128 product = (unsigned __int128)keel_clock_mult(hz[i]) * hz[i];
		unsigned __int128 want = (unsigned __int128)1000000000 << 32;

		/* The largest that is not too fast. */
		assert_true(product <= want && product + hz[i] > want);
	}
}

static void ticks_for_a_time_are_enough(void **state)
{
	uint64_t seed = 5;

	(void)state;
	assert_int_equal(keel_clock_ticks(0, ONE), 0);
	assert_int_equal(keel_clock_ticks(0, 0), 0);
	assert_int_equal(keel_clock_ticks(1, 0), MAX);
	assert_int_equal(keel_clock_ticks(100, ONE), 100);
	assert_int_equal(keel_clock_ticks(100, ONE * 3), 34); /* up */
	assert_int_equal(keel_clock_ticks(MAX, ONE), MAX);
	assert_int_equal(keel_clock_ticks(MAX, 1), MAX);
	for (int i = 0; i < 100000; i++) {
		uint64_t mult = 1 + (rnd(&seed) >> below(&seed, 63)), ns = rnd(&seed) >> below(&seed, 64);
		uint64_t ticks = keel_clock_ticks(ns, mult);

		if (ticks == MAX)
			continue;
		/* Never early, and not one tick more than needed. */
		assert_true(keel_clock_scale(ticks, mult) >= ns);
		if (ticks)
			assert_true(keel_clock_scale(ticks - 1, mult) < ns);
	}
}

static void an_invalid_page_is_not_used(void **state)
{
	struct keel_clock c = { .seq = 4, .base_ns = 77, .mult = ONE, .wall_ns = 99 };
	struct keel_clock_sample s;
	uint64_t ns = 5;

	(void)state;
	assert_false(keel_clock_sample(&c, &s));
	assert_int_equal(s.wall_ns, 99);
	assert_false(keel_clock_read(&c, &ns));
	assert_int_equal(ns, 5);
	c.flags = KEEL_CLOCK_VALID;
	assert_true(keel_clock_sample(&c, &s));
	assert_int_equal(s.base_ns, 77);
	assert_int_equal(s.mult, ONE);
}

static void a_page_stuck_in_an_update_ends(void **state)
{
	struct keel_clock c = { .seq = 5, .flags = KEEL_CLOCK_VALID };
	struct keel_clock_sample s;
	uint64_t ns;

	(void)state;
	assert_false(keel_clock_sample(&c, &s));
	assert_false(keel_clock_read(&c, &ns));
}

static void reading_advances_with_the_tsc(void **state)
{
	struct keel_clock c = { .flags = KEEL_CLOCK_VALID, .base_tsc = keel_rdtsc(), .base_ns = 1000, .mult = ONE };
	uint64_t a, b = 0, before, after;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		before = keel_rdtsc();
		assert_true(keel_clock_read(&c, &a));
		after = keel_rdtsc();
		assert_true(a >= b);
		assert_true(a >= before - c.base_tsc + 1000 && a <= after - c.base_tsc + 1000);
		b = a;
	}
}

/* A writer that keeps base_ns, wall_ns and disruption equal; a torn copy shows. */
static struct keel_clock shared;
static int stop;

static void *writer(void *arg)
{
	uint64_t v = 0;
	uint32_t seq = 0;

	(void)arg;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		__atomic_store_n(&shared.seq, ++seq, __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_RELEASE);
		v++;
		__atomic_store_n(&shared.base_ns, v, __ATOMIC_RELAXED);
		__atomic_store_n(&shared.wall_ns, v, __ATOMIC_RELAXED);
		__atomic_store_n(&shared.disruption, v, __ATOMIC_RELAXED);
		__atomic_store_n(&shared.seq, ++seq, __ATOMIC_RELEASE);
		for (int i = 0; i < 50; i++)
			__asm__ volatile("pause");
	}
	return NULL;
}

static void a_copy_is_never_torn(void **state)
{
	struct keel_clock_sample s;
	unsigned int got = 0;
	pthread_t thread;

	(void)state;
	memset(&shared, 0, sizeof(shared));
	shared.flags = KEEL_CLOCK_VALID;
	stop = 0;
	assert_int_equal(pthread_create(&thread, NULL, writer, NULL), 0);
	for (int i = 0; i < 300000; i++) {
		if (!keel_clock_sample(&shared, &s))
			continue; /* the writer lost the processor in an update */
		got++;
		if (s.base_ns != s.wall_ns || s.wall_ns != s.disruption)
			break;
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	assert_int_equal(s.base_ns, s.wall_ns);
	assert_int_equal(s.wall_ns, s.disruption);
	assert_true(got > 1000);
}

int clock_tests(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scaling),
		cmocka_unit_test(sample_to_time),
		cmocka_unit_test(time_never_runs_backwards_in_ticks),
		cmocka_unit_test(multiplier_of_a_frequency),
		cmocka_unit_test(ticks_for_a_time_are_enough),
		cmocka_unit_test(an_invalid_page_is_not_used),
		cmocka_unit_test(a_page_stuck_in_an_update_ends),
		cmocka_unit_test(reading_advances_with_the_tsc),
		cmocka_unit_test(a_copy_is_never_torn),
	};

	return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
