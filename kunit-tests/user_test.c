// SPDX-License-Identifier: GPL-2.0-only
/* Contexts of guest user code. */
#include <hypercall/user.h>
#include <keel/mmu.h>

#include "keel_test.h"

static void a_new_context(struct kunit *test)
{
	static const u32 sizes[] = { 576, 832, 2696, 11008 };
	int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct keel_cpu_info cpu = { .xsave_size = sizes[i] };
		u32 size = keel_user_size(&cpu);
		/* At the end of its mapping: a byte too many is a fault. */
		struct keel_user *u = keel_fenced(test, size);
		u8 *area = (u8 *)u + KEEL_USER_XSAVE;

		memset(u, 0xee, size);
		keel_user_init(u, &cpu, 0x401000, 0x7ffff000);
		KUNIT_EXPECT_EQ(test, size, KEEL_USER_XSAVE + sizes[i]);
		KUNIT_EXPECT_EQ(test, u->size, size);
		KUNIT_EXPECT_EQ(test, u->rip, 0x401000ull);
		KUNIT_EXPECT_EQ(test, u->rsp, 0x7ffff000ull);
		KUNIT_EXPECT_EQ(test, *(u16 *)area, (u16)0x37f);
		KUNIT_EXPECT_EQ(test, *(u32 *)(area + 24), 0x1f80u);
		u->size = 0;
		u->rip = 0;
		u->rsp = 0;
		*(u16 *)area = 0;
		*(u32 *)(area + 24) = 0;
		KUNIT_EXPECT_PTR_EQ(test, memchr_inv(u, 0, size), NULL);
	}
}

static void why_it_stopped(struct kunit *test)
{
	struct keel_user u = { .reason = KEEL_USER_EXCEPTION, .vector = KEEL_VEC_PF };
	u32 vector;

	KUNIT_EXPECT_TRUE(test, keel_user_faulted(&u));
	KUNIT_EXPECT_EQ(test, keel_user_fault_needs(&u), (u16)KEEL_PROT_R);
	u.error = KEEL_PF_W | KEEL_PF_P;
	KUNIT_EXPECT_EQ(test, keel_user_fault_needs(&u), (u16)KEEL_PROT_W);
	KUNIT_EXPECT_TRUE(test, keel_user_fault_present(&u));
	u.error = KEEL_PF_X;
	KUNIT_EXPECT_EQ(test, keel_user_fault_needs(&u), (u16)KEEL_PROT_X);
	KUNIT_EXPECT_FALSE(test, keel_user_fault_present(&u));
	/* Whatever stands there, there are words for it. */
	for (vector = 0; vector < 300; vector++) {
		u.vector = vector;
		KUNIT_EXPECT_NE(test, strlen(keel_user_reason(&u)), (size_t)0);
	}
	for (u.reason = 0; u.reason < 10; u.reason++)
		KUNIT_EXPECT_NE(test, strlen(keel_user_reason(&u)), (size_t)0);
}

static void arguments(struct kunit *test)
{
	struct keel_user u = { .rdi = 1, .rsi = 2, .rdx = 3, .r10 = 4, .r8 = 5, .r9 = 6 };
	unsigned int i;

	for (i = 0; i < 6; i++)
		KUNIT_EXPECT_EQ(test, keel_user_arg(&u, i), i + 1ull);
	KUNIT_EXPECT_EQ(test, keel_user_arg(&u, 6), 0ull);
	KUNIT_EXPECT_EQ(test, keel_user_arg(&u, UINT_MAX), 0ull);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(a_new_context),
	KUNIT_CASE(why_it_stopped),
	KUNIT_CASE(arguments),
	{},
};

static struct kunit_suite suite = {
	.name = "keel_user",
	.test_cases = cases,
};

kunit_test_suites(&suite);

MODULE_DESCRIPTION("KUnit: contexts of guest user code");
MODULE_LICENSE("GPL");
