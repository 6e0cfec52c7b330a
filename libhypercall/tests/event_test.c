// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* The event map: single steps, random sequences against a model, and real senders. */
#include <pthread.h>

#include <hypercall/event.h>

#include "unit.h"

static struct keel_vcpu page;

static int fresh(void **state)
{
	(void)state;
	memset(&page, 0, sizeof(page));
	return 0;
}

static void a_send_is_taken_once(void **state)
{
	static const uint32_t bits[] = { 0, 1, 63, 64, 1023, 1024, 4095 };

	(void)state;
	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		assert_true(keel_ev_send(&page, bits[i]));
		assert_true(keel_ev_test(&page, bits[i]));
		assert_true(keel_ev_pending(&page));
		assert_int_equal(keel_ev_next(&page), bits[i]);
		assert_int_equal(keel_ev_next(&page), -1);
		assert_false(keel_ev_pending(&page));
		assert_false(keel_ev_test(&page, bits[i]));
	}
}

static void only_the_first_send_kicks(void **state)
{
	(void)state;
	assert_true(keel_ev_send(&page, 100));
	assert_false(keel_ev_send(&page, 100));
	assert_false(keel_ev_send(&page, 101));
	assert_false(keel_ev_send(&page, 4000));
}

static void sends_of_one_port_merge(void **state)
{
	(void)state;
	for (int i = 0; i < 5; i++)
		keel_ev_send(&page, 7);
	assert_int_equal(keel_ev_next(&page), 7);
	assert_int_equal(keel_ev_next(&page), -1);
}

static void the_most_urgent_comes_first(void **state)
{
	static const uint32_t bits[] = { 3072, 5, 1024, 70, 64, 6, 4095, 0 };
	static const int order[] = { 0, 5, 6, 64, 70, 1024, 3072, 4095, -1 };

	(void)state;
	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		keel_ev_send(&page, bits[i]);
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		assert_int_equal(keel_ev_next(&page), order[i]);
}

static void a_masked_port_holds_its_event(void **state)
{
	(void)state;
	keel_ev_mask(&page, 9);
	assert_false(keel_ev_send(&page, 9));
	assert_false(keel_ev_pending(&page));
	assert_int_equal(keel_ev_next(&page), -1);
	assert_true(keel_ev_test(&page, 9));
	assert_true(keel_ev_unmask(&page, 9));
	assert_int_equal(keel_ev_next(&page), 9);
	assert_false(keel_ev_unmask(&page, 9)); /* nothing held: nothing to deliver */
	assert_false(keel_ev_pending(&page));
}

static void masking_after_the_send_holds_too(void **state)
{
	(void)state;
	keel_ev_send(&page, 9);
	keel_ev_send(&page, 10);
	keel_ev_mask(&page, 9);
	assert_int_equal(keel_ev_next(&page), 10);
	assert_int_equal(keel_ev_next(&page), -1);
	assert_true(keel_ev_unmask(&page, 9));
	assert_int_equal(keel_ev_next(&page), 9);
}

static void clearing_drops_the_event(void **state)
{
	(void)state;
	keel_ev_send(&page, 9);
	keel_ev_clear(&page, 9);
	assert_int_equal(keel_ev_next(&page), -1);
	assert_false(keel_ev_test(&page, 9));
	assert_false(keel_ev_unmask(&page, 9));
}

static void a_stray_word_bit_is_harmless(void **state)
{
	(void)state;
	page.pending = ~KEEL_U64(0);
	assert_int_equal(keel_ev_next(&page), -1);
	assert_int_equal(page.pending, 0);
}

static void touches_nothing_else(void **state)
{
	static struct keel_vcpu before;
	size_t map = offsetof(struct keel_vcpu, event_pending);

	(void)state;
	memset(&page, 0xa5, sizeof(page));
	memset(page.event_pending, 0, sizeof(page.event_pending));
	memset(page.event_mask, 0, sizeof(page.event_mask));
	page.pending = 0;
	before = page;
	for (uint32_t bit = 0; bit < KEEL_EVENT_BITS; bit++) {
		keel_ev_send(&page, bit);
		keel_ev_mask(&page, bit);
		keel_ev_unmask(&page, bit);
	}
	while (keel_ev_next(&page) >= 0)
		;
	assert_memory_equal(&page, &before, sizeof(page));
	assert_true(map == KEEL_VCPU_EVENT_PENDING);
}

static unsigned int seen[KEEL_EVENT_BITS];

static void count(void *arg, keel_u32 bit)
{
	assert_ptr_equal(arg, &seen[bit]);
	seen[bit]++;
	/* An urgent one that arrives meanwhile is next; a port may send to itself once more. */
	if (bit == 2000 && seen[2000] == 1) {
		keel_ev_send(&page, 3);
		keel_ev_send(&page, 2000);
	}
	if (bit == 3)
		assert_int_equal(seen[2000], 1);
}

static void dispatch_calls_each_handler(void **state)
{
	static struct keel_event_action table[KEEL_EVENT_BITS];
	keel_u64 spurious = 0;

	(void)state;
	memset(seen, 0, sizeof(seen));
	for (int i = 0; i < KEEL_EVENT_BITS; i++)
		table[i] = (struct keel_event_action){ i == 77 ? NULL : count, &seen[i] };
	keel_ev_send(&page, 2000);
	keel_ev_send(&page, 77);
	keel_ev_send(&page, 2001);
	assert_int_equal(keel_ev_dispatch(&page, table, &spurious), 5);
	assert_int_equal(spurious, 1);
	assert_int_equal(seen[3], 1);
	assert_int_equal(seen[2000], 2);
	assert_int_equal(seen[2001], 1);
	assert_int_equal(keel_ev_dispatch(&page, table, NULL), 0);
}

static void random_sequences_match_the_model(void **state)
{
	static uint8_t pending[KEEL_EVENT_BITS], masked[KEEL_EVENT_BITS];
	uint64_t seed = 42;

	(void)state;
	memset(pending, 0, sizeof(pending));
	memset(masked, 0, sizeof(masked));
	for (int i = 0; i < 200000; i++) {
		/* Few ports in few words, so that they meet. */
		uint32_t bit = (uint32_t)(below(&seed, 4) * 1000 + below(&seed, 70)) % KEEL_EVENT_BITS;
		int want = -1;

		switch (below(&seed, 6)) {
		case 0:
		case 1:
			keel_ev_send(&page, bit);
			pending[bit] = 1;
			break;
		case 2:
			keel_ev_mask(&page, bit);
			masked[bit] = 1;
			break;
		case 3:
			assert_int_equal(keel_ev_unmask(&page, bit), pending[bit]);
			masked[bit] = 0;
			break;
		default:
			for (int b = 0; b < KEEL_EVENT_BITS && want < 0; b++)
				if (pending[b] && !masked[b])
					want = b;
			assert_int_equal(keel_ev_next(&page), want);
			if (want >= 0)
				pending[want] = 0;
		}
	}
}

/*
 * Two senders and a dispatcher that also masks: after each send the event is
 * taken or pending. Each sender waits until its event was taken; a lost one
 * would hang, so a bound turns that into a failure.
 */
#define ROUNDS 20000
static uint64_t taken[2];

static void *sender(void *arg)
{
	uint32_t me = *(uint32_t *)arg, bit = me ? 65 : 64;

	for (uint64_t round = 1; round <= ROUNDS; round++) {
		keel_ev_send(&page, bit);
		for (uint64_t spin = 0; __atomic_load_n(&taken[me], __ATOMIC_ACQUIRE) < round; spin++) {
			if (spin > 1000)
				sched_yield();
			if (spin > 20000000)
				return (void *)1;
		}
	}
	return NULL;
}

static void no_event_is_lost(void **state)
{
	pthread_t thread[2];
	uint32_t id[2] = { 0, 1 };
	uint64_t idle = 0, turn = 0;
	void *lost[2];

	(void)state;
	taken[0] = taken[1] = 0;
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, sender, &id[i]), 0);
	while ((taken[0] < ROUNDS || taken[1] < ROUNDS) && idle < 100000000) {
		int bit;

		if (++turn % 7 == 0)
			keel_ev_mask(&page, 64);
		bit = keel_ev_next(&page);
		keel_ev_unmask(&page, 64);
		if (bit < 0) {
			if (++idle % 1000 == 0)
				sched_yield();
			continue;
		}
		idle = 0;
		assert_true(bit == 64 || bit == 65);
		__atomic_add_fetch(&taken[bit - 64], 1, __ATOMIC_RELEASE);
	}
	for (int i = 0; i < 2; i++) {
		pthread_join(thread[i], &lost[i]);
		assert_null(lost[i]);
		assert_int_equal(taken[i], ROUNDS);
	}
}

int event_tests(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_send_is_taken_once, fresh),
		cmocka_unit_test_setup(only_the_first_send_kicks, fresh),
		cmocka_unit_test_setup(sends_of_one_port_merge, fresh),
		cmocka_unit_test_setup(the_most_urgent_comes_first, fresh),
		cmocka_unit_test_setup(a_masked_port_holds_its_event, fresh),
		cmocka_unit_test_setup(masking_after_the_send_holds_too, fresh),
		cmocka_unit_test_setup(clearing_drops_the_event, fresh),
		cmocka_unit_test_setup(a_stray_word_bit_is_harmless, fresh),
		cmocka_unit_test_setup(touches_nothing_else, fresh),
		cmocka_unit_test_setup(dispatch_calls_each_handler, fresh),
		cmocka_unit_test_setup(random_sequences_match_the_model, fresh),
		cmocka_unit_test_setup(no_event_is_lost, fresh),
	};

	return cmocka_run_group_tests_name("event", tests, NULL, NULL);
}
