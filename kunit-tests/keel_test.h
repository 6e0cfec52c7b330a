/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the suites share: random numbers that can be had again, and memory whose
 * end is the end of the mapping, so that reading past it is a fault.
 */
#ifndef KEEL_TEST_H
#define KEEL_TEST_H

/* Without a kernel program.h has been included ahead of everything. */
#ifndef KEEL_PROGRAM_H
#include <kunit/test.h>
#include <linux/align.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/random.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#endif

#include <hypercall/compat.h>

static unsigned long long seed;
module_param(seed, ullong, 0444);
MODULE_PARM_DESC(seed, "seed of the random sequences; 0 takes a new one, which each test prints");

static inline u64 keel_test_seed(struct kunit *test)
{
	u64 s = seed ? seed : get_random_u64();

	kunit_info(test, "seed=0x%llx", s);
	return s;
}

/* splitmix64: any seed will do, and the sequence is the same on every machine. */
static inline u64 keel_random(u64 *state)
{
	u64 z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* 0 .. n-1 */
static inline u32 keel_random_below(u64 *state, u32 n)
{
	return (keel_random(state) >> 32) % n;
}

/* A number with a random count of significant bits, so that small, huge and 2^n-ish ones are all likely. */
static inline u64 keel_random_wide(u64 *state)
{
	u64 r = keel_random(state) >> keel_random_below(state, 64);

	switch (keel_random_below(state, 4)) {
	case 0:
		return ~r;
	case 1:
		return (1ull << keel_random_below(state, 64)) - keel_random_below(state, 2);
	default:
		return r;
	}
}

static inline int keel_fenced_init(struct kunit_resource *res, void *context)
{
	res->data = vzalloc(*(size_t *)context);
	return res->data ? 0 : -ENOMEM;
}

static inline void keel_fenced_free(struct kunit_resource *res)
{
	vfree(res->data);
}

/**
 * keel_fenced - zeroed memory that ends where the mapping ends
 * @test: frees it
 * @size: bytes, a multiple of the alignment wanted
 */
static inline void *keel_fenced(struct kunit *test, size_t size)
{
	size_t whole = PAGE_ALIGN(size);
	void *p = kunit_alloc_resource(test, keel_fenced_init, keel_fenced_free, GFP_KERNEL, &whole);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, p);
	return p + whole - size;
}

#endif
