// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* The console ring: both directions against a byte queue, and peers that lie. */
#include <pthread.h>

#include <hypercall/ring.h>

#include "unit.h"

static struct keel_console_ring *ring;

/* Of its own, page-sized exactly, so that the sanitizer sees a step outside. */
static int fresh(void **state)
{
	(void)state;
	ring = calloc(1, sizeof(*ring));
	return ring ? 0 : -1;
}

static int gone(void **state)
{
	(void)state;
	free(ring);
	return 0;
}

static const struct {
	enum keel_ring_side producer, consumer;
	uint32_t size;
} way[] = {
	{ KEEL_RING_GUEST_OUT, KEEL_RING_HOST_OUT, KEEL_CONSOLE_OUT_SIZE },
	{ KEEL_RING_HOST_IN, KEEL_RING_GUEST_IN, KEEL_CONSOLE_IN_SIZE },
};

static void bytes_come_out_as_they_went_in(void **state)
{
	(void)state;
	for (int w = 0; w < 2; w++) {
		struct keel_ring_end p, c;
		char buf[16];

		keel_ring_attach(&p, ring, way[w].producer);
		keel_ring_attach(&c, ring, way[w].consumer);
		assert_int_equal(keel_ring_avail(&p), way[w].size);
		assert_int_equal(keel_ring_avail(&c), 0);
		assert_int_equal(keel_ring_pop(&c, buf, sizeof(buf)), 0);
		assert_int_equal(keel_ring_push(&p, "hello", 5), 5);
		assert_int_equal(keel_ring_avail(&c), 5);
		assert_int_equal(keel_ring_pop(&c, buf, 2), 2);
		assert_int_equal(keel_ring_pop(&c, buf + 2, 10), 3);
		assert_memory_equal(buf, "hello", 5);
		assert_int_equal(keel_ring_push(&p, "", 0), 0);
	}
}

static void fields_are_the_documented_ones(void **state)
{
	struct keel_ring_end e;

	(void)state;
	keel_ring_attach(&e, ring, KEEL_RING_GUEST_OUT);
	keel_ring_push(&e, "abc", 3);
	assert_int_equal(ring->out_prod, 3);
	assert_memory_equal(ring->out, "abc", 3);
	keel_ring_attach(&e, ring, KEEL_RING_HOST_OUT);
	keel_ring_pop(&e, (char[3]){ 0 }, 2);
	assert_int_equal(ring->out_cons, 2);
	keel_ring_attach(&e, ring, KEEL_RING_HOST_IN);
	keel_ring_push(&e, "xy", 2);
	assert_int_equal(ring->in_prod, 2);
	assert_memory_equal(ring->in, "xy", 2);
	keel_ring_attach(&e, ring, KEEL_RING_GUEST_IN);
	keel_ring_pop(&e, (char[3]){ 0 }, 1);
	assert_int_equal(ring->in_cons, 1);
}

static void a_full_ring_takes_what_fits(void **state)
{
	struct keel_ring_end p, c;
	char big[KEEL_CONSOLE_OUT_SIZE + 10], back[sizeof(big)];

	(void)state;
	memset(big, 'x', sizeof(big));
	keel_ring_attach(&p, ring, KEEL_RING_GUEST_OUT);
	keel_ring_attach(&c, ring, KEEL_RING_HOST_OUT);
	assert_int_equal(keel_ring_push(&p, big, sizeof(big)), KEEL_CONSOLE_OUT_SIZE);
	assert_int_equal(keel_ring_push(&p, big, 1), 0);
	assert_int_equal(keel_ring_avail(&p), 0);
	assert_int_equal(keel_ring_pop(&c, back, sizeof(back)), KEEL_CONSOLE_OUT_SIZE);
	assert_int_equal(keel_ring_avail(&p), KEEL_CONSOLE_OUT_SIZE);
}

/* Random pushes and pops against a plain queue, across the wrap of both buffer and index. */
static void random_traffic_matches_a_queue(void **state)
{
	uint64_t seed = 7;

	(void)state;
	for (int w = 0; w < 2; w++) {
		static uint8_t queue[1 << 20];
		size_t head = 0, tail = 0;
		struct keel_ring_end p, c;
		uint8_t byte = 0, buf[3000];

		/* Starts shortly before 2^32. */
		ring->out_prod = ring->out_cons = ring->in_prod = ring->in_cons = 0xfffffc00u + 17;
		keel_ring_attach(&p, ring, way[w].producer);
		keel_ring_attach(&c, ring, way[w].consumer);
		while (head < sizeof(queue) - sizeof(buf)) {
			size_t n = below(&seed, below(&seed, 4) ? 200 : sizeof(buf));
			int moved;

			if (below(&seed, 2)) {
				for (size_t i = 0; i < n; i++)
					buf[i] = (uint8_t)(byte + i);
				moved = keel_ring_push(&p, buf, n);
				assert_int_equal(moved,
						 n < way[w].size - (head - tail) ? n : way[w].size - (head - tail));
				memcpy(queue + head, buf, (size_t)moved);
				head += (size_t)moved;
				byte = (uint8_t)(byte + moved);
			} else {
				moved = keel_ring_pop(&c, buf, n);
				assert_int_equal(moved, n < head - tail ? n : head - tail);
				assert_memory_equal(buf, queue + tail, moved);
				tail += (size_t)moved;
			}
			/* Taking over a running ring continues where it stood. */
			if (!below(&seed, 50)) {
				keel_ring_attach(&p, ring, way[w].producer);
				keel_ring_attach(&c, ring, way[w].consumer);
			}
		}
	}
}

static void an_impossible_index_breaks_the_end(void **state)
{
	static const uint32_t lie[] = { 1, 0x7fffffff, 0x80000000, 0xffffffff - KEEL_CONSOLE_OUT_SIZE };
	char buf[8];

	(void)state;
	for (size_t i = 0; i < sizeof(lie) / sizeof(lie[0]); i++) {
		struct keel_ring_end p, c;

		memset(ring, 0, sizeof(*ring));
		keel_ring_attach(&p, ring, KEEL_RING_GUEST_OUT);
		ring->out_cons = lie[i]; /* consumed what was never produced */
		assert_int_equal(keel_ring_avail(&p), -1);
		assert_int_equal(keel_ring_push(&p, "x", 1), -1);
		assert_int_equal(ring->out_prod, 0);
		ring->out_cons = 0;
		assert_int_equal(keel_ring_push(&p, "x", 1), -1); /* stays broken */

		keel_ring_attach(&c, ring, KEEL_RING_HOST_OUT);
		ring->out_prod = KEEL_CONSOLE_OUT_SIZE + lie[i]; /* more than fits */
		assert_int_equal(keel_ring_pop(&c, buf, sizeof(buf)), -1);
		assert_int_equal(ring->out_cons, 0);
	}
}

static void an_end_does_not_believe_its_own_shared_index(void **state)
{
	struct keel_ring_end p, c;
	char buf[8];

	(void)state;
	keel_ring_attach(&p, ring, KEEL_RING_GUEST_OUT);
	keel_ring_attach(&c, ring, KEEL_RING_HOST_OUT);
	keel_ring_push(&p, "abcdef", 6);
	keel_ring_pop(&c, buf, 2);
	ring->out_cons = 0x12345678; /* the guest writes the host's index */
	assert_int_equal(keel_ring_pop(&c, buf, 4), 4);
	assert_memory_equal(buf, "cdef", 4);
	assert_int_equal(ring->out_cons, 6);
}

static void wake_flags(void **state)
{
	struct keel_ring_end p, c;
	char fill[KEEL_CONSOLE_OUT_SIZE] = "";

	(void)state;
	keel_ring_attach(&p, ring, KEEL_RING_GUEST_OUT);
	keel_ring_attach(&c, ring, KEEL_RING_HOST_OUT);
	assert_false(keel_ring_must_kick(ring));
	assert_false(keel_ring_arm(ring, &c));
	assert_int_equal(ring->out_wake, 1);
	keel_ring_push(&p, fill, sizeof(fill));
	assert_true(keel_ring_must_kick(ring));
	keel_ring_disarm(ring);
	assert_false(keel_ring_must_kick(ring));
	assert_true(keel_ring_arm(ring, &c)); /* there is output: do not sleep */

	assert_false(keel_ring_space_wanted(ring));
	assert_false(keel_ring_want_space(ring, &p));
	assert_int_equal(ring->in_wake, KEEL_CONSOLE_WANT_SPACE);
	assert_true(keel_ring_space_wanted(ring));
	keel_ring_pop(&c, fill, 1);
	assert_true(keel_ring_want_space(ring, &p)); /* there is space: do not wait */
	keel_ring_unwant_space(ring);
	assert_false(keel_ring_space_wanted(ring));
}

#define STREAM 2000000

static void *produce(void *arg)
{
	struct keel_ring_end p;
	uint8_t buf[300];
	uint32_t sent = 0;
	uint64_t seed = 3;

	(void)arg;
	keel_ring_attach(&p, ring, KEEL_RING_GUEST_OUT);
	while (sent < STREAM) {
		uint32_t n = 1 + (uint32_t)below(&seed, sizeof(buf));
		int moved;

		for (uint32_t i = 0; i < n; i++)
			buf[i] = (uint8_t)((sent + i) * 7);
		moved = keel_ring_push(&p, buf, n < STREAM - sent ? n : STREAM - sent);
		if (moved < 0)
			return (void *)1;
		if (!moved)
			sched_yield();
		sent += (uint32_t)moved;
	}
	return NULL;
}

static void a_stream_between_threads_is_intact(void **state)
{
	struct keel_ring_end c;
	uint32_t got = 0;
	pthread_t thread;
	uint8_t buf[500];
	void *failed;

	(void)state;
	keel_ring_attach(&c, ring, KEEL_RING_HOST_OUT);
	assert_int_equal(pthread_create(&thread, NULL, produce, NULL), 0);
	while (got < STREAM) {
		int n = keel_ring_pop(&c, buf, sizeof(buf));

		assert_true(n >= 0);
		if (!n)
			sched_yield();
		for (int i = 0; i < n; i++)
			if (buf[i] != (uint8_t)((got + (uint32_t)i) * 7))
				fail_msg("byte %u is wrong", got + (uint32_t)i);
		got += (uint32_t)n;
	}
	pthread_join(thread, &failed);
	assert_null(failed);
}

int ring_tests(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(bytes_come_out_as_they_went_in, fresh, gone),
		cmocka_unit_test_setup_teardown(fields_are_the_documented_ones, fresh, gone),
		cmocka_unit_test_setup_teardown(a_full_ring_takes_what_fits, fresh, gone),
		cmocka_unit_test_setup_teardown(random_traffic_matches_a_queue, fresh, gone),
		cmocka_unit_test_setup_teardown(an_impossible_index_breaks_the_end, fresh, gone),
		cmocka_unit_test_setup_teardown(an_end_does_not_believe_its_own_shared_index, fresh, gone),
		cmocka_unit_test_setup_teardown(wake_flags, fresh, gone),
		cmocka_unit_test_setup_teardown(a_stream_between_threads_is_intact, fresh, gone),
	};

	return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
