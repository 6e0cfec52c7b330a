// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Contexts of guest user code. */
#include <hypercall/user.h>
#include <keel/mmu.h>

#include "unit.h"

static union {
	struct keel_user u;
	keel_u8 bytes[KEEL_USER_XSAVE + 832 + 64];
} a, b;

static const struct keel_cpu_info cpu = { .xfeatures = 7, .xsave_size = 832 };

static void a_new_context(void **state)
{
	keel_u16 fcw;
	keel_u32 mxcsr;

	(void)state;
	memset(&a, 0xee, sizeof(a));
	keel_user_init(&a.u, &cpu, 0x401000, 0x7ffff000);
	assert_int_equal(keel_user_size(&cpu), KEEL_USER_XSAVE + 832);
	assert_int_equal(a.u.size, KEEL_USER_XSAVE + 832);
	assert_int_equal(a.u.rip, 0x401000);
	assert_int_equal(a.u.rsp, 0x7ffff000);
	memcpy(&fcw, a.bytes + KEEL_USER_XSAVE, sizeof(fcw));
	memcpy(&mxcsr, a.bytes + KEEL_USER_XSAVE + 24, sizeof(mxcsr));
	assert_int_equal(fcw, 0x37f);
	assert_int_equal(mxcsr, 0x1f80);
	a.u.size = 0;
	a.u.rip = a.u.rsp = 0;
	memset(a.bytes + KEEL_USER_XSAVE, 0, 2);
	memset(a.bytes + KEEL_USER_XSAVE + 24, 0, 4);
	for (size_t i = 0; i < KEEL_USER_XSAVE + 832; i++)
		assert_int_equal(a.bytes[i], 0);
	for (size_t i = KEEL_USER_XSAVE + 832; i < sizeof(a); i++)
		assert_int_equal(a.bytes[i], 0xee);
}

static void a_copy(void **state)
{
	(void)state;
	keel_user_init(&a.u, &cpu, 1, 2);
	a.u.r15 = 3;
	a.bytes[KEEL_USER_XSAVE + 831] = 4;
	memset(&b, 0xee, sizeof(b));
	keel_user_copy(&b.u, &a.u);
	assert_memory_equal(&a, &b, KEEL_USER_XSAVE + 832);
	assert_int_equal(b.bytes[KEEL_USER_XSAVE + 832], 0xee);
}

static void arguments(void **state)
{
	(void)state;
	a.u.rdi = 10;
	a.u.rsi = 11;
	a.u.rdx = 12;
	a.u.r10 = 13;
	a.u.r8 = 14;
	a.u.r9 = 15;
	for (unsigned int i = 0; i < 6; i++)
		assert_int_equal(keel_user_arg(&a.u, i), 10 + i);
	assert_int_equal(keel_user_arg(&a.u, 6), 0);
}

static void reasons(void **state)
{
	(void)state;
	keel_user_init(&a.u, &cpu, 0, 0);
	assert_string_equal(keel_user_reason(&a.u), "no reason");
	a.u.reason = KEEL_USER_SYSCALL;
	assert_string_equal(keel_user_reason(&a.u), "system call");
	assert_false(keel_user_faulted(&a.u));
	a.u.reason = KEEL_USER_EVENT;
	assert_string_equal(keel_user_reason(&a.u), "event");
	a.u.reason = KEEL_USER_EXCEPTION;
	a.u.vector = 200;
	assert_string_equal(keel_user_reason(&a.u), "exception");
	a.u.vector = KEEL_VEC_DE;
	assert_string_equal(keel_user_reason(&a.u), "division error");
	assert_false(keel_user_faulted(&a.u));
	a.u.vector = KEEL_VEC_PF;
	assert_string_equal(keel_user_reason(&a.u), "page fault");
	assert_true(keel_user_faulted(&a.u));
	a.u.error = KEEL_PF_U;
	assert_int_equal(keel_user_fault_needs(&a.u), KEEL_PROT_R);
	assert_false(keel_user_fault_present(&a.u));
	a.u.error = KEEL_PF_U | KEEL_PF_W | KEEL_PF_P;
	assert_int_equal(keel_user_fault_needs(&a.u), KEEL_PROT_W);
	assert_true(keel_user_fault_present(&a.u));
	a.u.error = KEEL_PF_U | KEEL_PF_X;
	assert_int_equal(keel_user_fault_needs(&a.u), KEEL_PROT_X);
}

int user_tests(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_context),
		cmocka_unit_test(a_copy),
		cmocka_unit_test(arguments),
		cmocka_unit_test(reasons),
	};

	return cmocka_run_group_tests_name("user", tests, NULL, NULL);
}
