// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Sets of vCPUs, against a plain array of booleans. */
#include <hypercall/set.h>

#include "unit.h"

static struct keel_vcpu_set set;
static bool model[KEEL_SET_VCPUS];

/* What the ABI says a set looks like: a word per named bank, in order, none of them empty. */
static void assert_is_model(void)
{
	keel_u32 words = 0, members = 0, next = 0;

	for (keel_u32 b = 0; b < KEEL_VCPU_SET_BANKS; b++) {
		keel_u64 word = 0;

		for (keel_u32 i = 0; i < 64; i++)
			word |= (keel_u64)model[64 * b + i] << i;
		assert_int_equal(set.banks >> b & 1, word != 0);
		if (word)
			assert_int_equal(set.bank[words++], word);
	}
	assert_int_equal(keel_set_size(&set), 8 + 8 * words);
	for (keel_u32 v = 0; v < KEEL_SET_VCPUS; v++) {
		assert_int_equal(keel_set_has(&set, v), model[v]);
		if (!model[v])
			continue;
		members++;
		assert_int_equal(keel_set_next(&set, next), v);
		next = v + 1;
	}
	assert_int_equal(keel_set_next(&set, next), KEEL_SET_END);
	assert_int_equal(keel_set_count(&set), members);
}

static int empty(void **state)
{
	(void)state;
	memset(&set, 0xff, sizeof(set));
	memset(model, 0, sizeof(model));
	keel_set_clear(&set);
	return 0;
}

static void an_empty_set_is_one_word(void **state)
{
	(void)state;
	assert_is_model();
	assert_int_equal(keel_set_size(&set), 8);
}

static void banks_are_kept_in_order(void **state)
{
	static const keel_u32 order[] = { 130, 0, 4095, 64, 63, 129, 700 };

	(void)state;
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		assert_true(keel_set_add(&set, order[i]));
		model[order[i]] = true;
		assert_is_model();
	}
	assert_true(keel_set_add(&set, 700));
	assert_is_model();
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		keel_set_remove(&set, order[i]);
		model[order[i]] = false;
		assert_is_model();
	}
}

static void numbers_that_are_none(void **state)
{
	(void)state;
	assert_false(keel_set_add(&set, KEEL_SET_VCPUS));
	assert_false(keel_set_add(&set, ~0u));
	assert_false(keel_set_has(&set, KEEL_SET_VCPUS));
	keel_set_remove(&set, ~0u);
	keel_set_remove(&set, 5);
	assert_is_model();
}

static void the_first_so_many(void **state)
{
	static const keel_u32 counts[] = { 0, 1, 4, 63, 64, 65, 128, 4095, 4096 };

	(void)state;
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		for (keel_u32 v = 0; v < KEEL_SET_VCPUS; v++)
			model[v] = v < counts[i];
		keel_set_first(&set, counts[i]);
		assert_is_model();
	}
}

static void any_sequence(void **state)
{
	uint64_t s = 88172645463325252u;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		/* Some banks often, so that they come and go. */
		keel_u32 v = (keel_u32)(below(&s, 2) ? below(&s, KEEL_SET_VCPUS) : below(&s, 8) * 512);

		if (below(&s, 2)) {
			assert_true(keel_set_add(&set, v));
			model[v] = true;
		} else {
			keel_set_remove(&set, v);
			model[v] = false;
		}
		if (i % 50 == 0)
			assert_is_model();
	}
	assert_is_model();
}

int set_tests(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(an_empty_set_is_one_word, empty),
		cmocka_unit_test_setup(banks_are_kept_in_order, empty),
		cmocka_unit_test_setup(numbers_that_are_none, empty),
		cmocka_unit_test_setup(the_first_so_many, empty),
		cmocka_unit_test_setup(any_sequence, empty),
	};

	return cmocka_run_group_tests_name("set", tests, NULL, NULL);
}
