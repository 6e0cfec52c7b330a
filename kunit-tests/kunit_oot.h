/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For kernels without CONFIG_KUNIT, whose module loader does not look at the
 * section kunit_test_suites() fills: run the suites from module_init instead.
 * Included ahead of everything by Kbuild where kunit.ko is built out of tree.
 */
#ifndef KEEL_KUNIT_OOT_H
#define KEEL_KUNIT_OOT_H

#include <linux/module.h>
#include <kunit/test.h>

#undef kunit_test_suites
#define kunit_test_suites(suites...)                                                   \
	static struct kunit_suite *keel_suites[] = { suites };                         \
	static int __init keel_suites_init(void)                                       \
	{                                                                              \
		return __kunit_test_suites_init(keel_suites, ARRAY_SIZE(keel_suites)); \
	}                                                                              \
	static void __exit keel_suites_exit(void)                                      \
	{                                                                              \
		__kunit_test_suites_exit(keel_suites, ARRAY_SIZE(keel_suites));        \
	}                                                                              \
	module_init(keel_suites_init);                                                 \
	module_exit(keel_suites_exit)

#endif
