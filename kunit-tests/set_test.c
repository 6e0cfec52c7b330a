// SPDX-License-Identifier: GPL-2.0-only
/* Sets of vCPUs, against an array of booleans. */
#include <hypercall/set.h>

#include "keel_test.h"

#define VCPUS KEEL_SET_VCPUS

/* A word for each bank that has members, in order, and what the functions say of it. */
static bool agrees(const struct keel_vcpu_set *set, const bool *model)
{
	u32 words = 0, members = 0, next = 0, bank, i;

	for (bank = 0; bank < KEEL_VCPU_SET_BANKS; bank++) {
		u64 word = 0;

		for (i = 0; i < 64; i++)
			word |= (u64)model[64 * bank + i] << i;
		if ((set->banks >> bank & 1) != !!word || (word && set->bank[words++] != word))
			return false;
	}
	for (i = 0; i < VCPUS; i++) {
		if (keel_set_has(set, i) != model[i])
			return false;
		if (!model[i])
			continue;
		if (keel_set_next(set, next) != i)
			return false;
		next = i + 1;
		members++;
	}
	return keel_set_next(set, next) == KEEL_SET_END && keel_set_count(set) == members &&
	       keel_set_size(set) == 8 + 8 * words;
}

static void any_sequence(struct kunit *test)
{
	struct keel_vcpu_set *set = keel_fenced(test, sizeof(*set));
	bool *model = keel_fenced(test, VCPUS);
	u64 s = keel_test_seed(test);
	int i;

	keel_set_clear(set);
	KUNIT_EXPECT_TRUE(test, agrees(set, model));
	for (i = 0; i < 5000; i++) {
		/* Some banks often, so that they come and go. */
		u32 v = keel_random_below(&s, 2) ? keel_random_below(&s, VCPUS) : keel_random_below(&s, 8) * 512;
		bool add = keel_random_below(&s, 2);

		if (add)
			KUNIT_EXPECT_TRUE(test, keel_set_add(set, v));
		else
			keel_set_remove(set, v);
		model[v] = add;
		if (i % 100 == 0)
			KUNIT_EXPECT_TRUE_MSG(test, agrees(set, model), "after %d changes", i);
	}
	KUNIT_EXPECT_TRUE(test, agrees(set, model));
}

static void all_of_them(struct kunit *test)
{
	struct keel_vcpu_set *set = keel_fenced(test, sizeof(*set));
	bool *model = keel_fenced(test, VCPUS);
	u32 i;

	for (i = VCPUS; i--;) {
		KUNIT_EXPECT_TRUE(test, keel_set_add(set, i));
		model[i] = true;
	}
	KUNIT_EXPECT_TRUE(test, agrees(set, model));
	keel_set_first(set, VCPUS);
	KUNIT_EXPECT_TRUE(test, agrees(set, model));
	keel_set_first(set, 65);
	memset(model + 65, 0, VCPUS - 65);
	KUNIT_EXPECT_TRUE(test, agrees(set, model));
	KUNIT_EXPECT_FALSE(test, keel_set_add(set, VCPUS));
	KUNIT_EXPECT_FALSE(test, keel_set_has(set, U32_MAX));
	keel_set_remove(set, U32_MAX);
	KUNIT_EXPECT_TRUE(test, agrees(set, model));
}

static struct kunit_case cases[] = { KUNIT_CASE(any_sequence), KUNIT_CASE(all_of_them), {} };

static struct kunit_suite suite = {
	.name = "keel_set",
	.test_cases = cases,
};

kunit_test_suites(&suite);

MODULE_DESCRIPTION("KUnit: sets of vCPUs");
MODULE_LICENSE("GPL");
