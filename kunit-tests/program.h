/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The part of KUnit and of the kernel that the suites use, for the program that
 * runs them without a kernel: the same sources, under ASan and UBSan. Included
 * ahead of everything, with __KERNEL__ defined, so that the shared C is compiled
 * as it is for Linux. program.c has what is no macro.
 */
#ifndef KEEL_PROGRAM_H
#define KEEL_PROGRAM_H

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s64 s64;

#define U32_MAX UINT_MAX
#define S64_MAX LLONG_MAX
#define S64_MIN LLONG_MIN
#define NSEC_PER_SEC 1000000000ll

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define ALIGN(x, a) (((x) + (a)-1) & ~((typeof(x))(a)-1))
#define PAGE_ALIGN(x) ALIGN(x, 4096)
#define DIV_ROUND_UP(n, d) (((n) + (d)-1) / (d))
#define PICK(a, op, b)                \
	({                            \
		__auto_type a_ = (a); \
		__auto_type b_ = (b); \
		a_ op b_ ? a_ : b_;   \
	})
#define min(a, b) PICK(a, <, b)
#define max(a, b) PICK(a, >, b)
#define min_t(type, a, b) PICK((type)(a), <, (type)(b))
#define check_add_overflow(a, b, sum) __builtin_add_overflow(a, b, sum)
#define WRITE_ONCE(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELAXED)
#define IS_ERR(p) ((uintptr_t)(p) >= (uintptr_t)-4095)

#define __init
#define __exit
#define module_param(name, type, mode)
#define MODULE_PARM_DESC(name, text)
#define MODULE_DESCRIPTION(text)
#define MODULE_LICENSE(text)

void *memchr_inv(const void *p, int c, size_t n);
void strscpy(char *dst, const char *src, size_t n);
u64 get_random_u64(void);
u64 ktime_get_ns(void);
int num_online_cpus(void);
void *vzalloc(size_t n);
void vfree(void *p);

#define HZ 1000
#define jiffies ((unsigned long)(ktime_get_ns() / (NSEC_PER_SEC / HZ)))
#define time_before(a, b) ((long)((a) - (b)) < 0)
#define cond_resched() ((void)0)
#define usleep_range(least, most) usleep(least)

typedef struct {
	int v;
} atomic_t;

#define atomic_read(a) __atomic_load_n(&(a)->v, __ATOMIC_RELAXED)
#define atomic_set(a, n) __atomic_store_n(&(a)->v, n, __ATOMIC_RELAXED)

struct completion {
	pthread_mutex_t lock;
	pthread_cond_t more;
	unsigned int done;
};

void init_completion(struct completion *c);
void complete(struct completion *c);
unsigned long wait_for_completion_timeout(struct completion *c, unsigned long ticks);

struct task_struct;

struct task_struct *kthread_run(int (*main)(void *arg), void *arg, const char *name, ...);
bool kthread_should_stop(void);
void kthread_stop(struct task_struct *t);
void schedule_timeout_interruptible(unsigned long ticks);

/* KUnit */

enum { GFP_KERNEL };
#define KUNIT_PARAM_DESC_SIZE 128

struct kunit_resource {
	void *data;
	void (*free)(struct kunit_resource *res);
	struct kunit_resource *next;
};

struct kunit {
	const void *param_value;
	struct kunit_resource *resources;
	jmp_buf abort;
	const char *indent;
	bool failed;
};

struct kunit_case {
	void (*run_case)(struct kunit *test);
	const char *name;
	const void *(*generate_params)(const void *prev, char *desc);
};

struct kunit_suite {
	const char *name;
	struct kunit_case *test_cases;
	struct kunit_suite *next;
};

void kunit_register(struct kunit_suite *suite);
void *kunit_alloc_resource(struct kunit *test, int (*init)(struct kunit_resource *res, void *context),
			   void (*free)(struct kunit_resource *res), int gfp, void *context);
void *kunit_kzalloc(struct kunit *test, size_t n, int gfp);
#define kunit_kcalloc(test, n, size, gfp) kunit_kzalloc(test, (n) * (size), gfp)

__attribute__((format(printf, 2, 3))) void kunit_info(struct kunit *test, const char *fmt, ...);
/* A failed expectation, in words and as the two values; ends the case when it was an assertion. */
__attribute__((format(printf, 7, 8))) void kunit_failed(struct kunit *test, bool fatal, int line, const char *what,
							long long left, long long right, const char *fmt, ...);

/* clang-format off */
#define KUNIT_CASE(fn) { .run_case = fn, .name = #fn }
#define KUNIT_CASE_PARAM(fn, gen) { .run_case = fn, .name = #fn, .generate_params = gen }
/* clang-format on */

#define KUNIT_ARRAY_PARAM(name, array, describe)                                                           \
	static const void *name##_gen_params(const void *prev, char *desc)                                 \
	{                                                                                                  \
		const void *next = prev ? (const char *)prev + sizeof((array)[0]) : (const void *)(array); \
		if (next == (array) + ARRAY_SIZE(array))                                                   \
			return NULL;                                                                       \
		describe(next, desc);                                                                      \
		return next;                                                                               \
	}

#define kunit_test_suites(suite)                                           \
	static __attribute__((constructor)) void register_this_suite(void) \
	{                                                                  \
		kunit_register(suite);                                     \
	}

#define KUNIT_COMPARE(test, fatal, left, op, right, ...)                                                \
	do {                                                                                            \
		__auto_type left_ = (left);                                                             \
		__auto_type right_ = (right);                                                           \
		if (!(left_ op right_))                                                                 \
			kunit_failed(test, fatal, __LINE__, #left " " #op " " #right, (long long)left_, \
				     (long long)right_, __VA_ARGS__);                                   \
	} while (0)
#define KUNIT_CHECK(test, fatal, ok, ...)                                            \
	do {                                                                         \
		if (!(ok))                                                           \
			kunit_failed(test, fatal, __LINE__, #ok, 0, 0, __VA_ARGS__); \
	} while (0)

#define KUNIT_EXPECT_EQ(test, l, r) KUNIT_COMPARE(test, false, l, ==, r, " ")
#define KUNIT_EXPECT_NE(test, l, r) KUNIT_COMPARE(test, false, l, !=, r, " ")
#define KUNIT_EXPECT_LT(test, l, r) KUNIT_COMPARE(test, false, l, <, r, " ")
#define KUNIT_EXPECT_LE(test, l, r) KUNIT_COMPARE(test, false, l, <=, r, " ")
#define KUNIT_EXPECT_GT(test, l, r) KUNIT_COMPARE(test, false, l, >, r, " ")
#define KUNIT_EXPECT_GE(test, l, r) KUNIT_COMPARE(test, false, l, >=, r, " ")
#define KUNIT_EXPECT_EQ_MSG(test, l, r, ...) KUNIT_COMPARE(test, false, l, ==, r, __VA_ARGS__)
#define KUNIT_EXPECT_NE_MSG(test, l, r, ...) KUNIT_COMPARE(test, false, l, !=, r, __VA_ARGS__)
#define KUNIT_EXPECT_LE_MSG(test, l, r, ...) KUNIT_COMPARE(test, false, l, <=, r, __VA_ARGS__)
#define KUNIT_EXPECT_GE_MSG(test, l, r, ...) KUNIT_COMPARE(test, false, l, >=, r, __VA_ARGS__)
#define KUNIT_ASSERT_EQ(test, l, r) KUNIT_COMPARE(test, true, l, ==, r, " ")
#define KUNIT_ASSERT_GE(test, l, r) KUNIT_COMPARE(test, true, l, >=, r, " ")
#define KUNIT_ASSERT_GT(test, l, r) KUNIT_COMPARE(test, true, l, >, r, " ")

#define KUNIT_EXPECT_TRUE(test, c) KUNIT_CHECK(test, false, c, " ")
#define KUNIT_EXPECT_FALSE(test, c) KUNIT_CHECK(test, false, !(c), " ")
#define KUNIT_EXPECT_TRUE_MSG(test, c, ...) KUNIT_CHECK(test, false, c, __VA_ARGS__)
#define KUNIT_EXPECT_FALSE_MSG(test, c, ...) KUNIT_CHECK(test, false, !(c), __VA_ARGS__)
#define KUNIT_ASSERT_TRUE(test, c) KUNIT_CHECK(test, true, c, " ")
#define KUNIT_ASSERT_TRUE_MSG(test, c, ...) KUNIT_CHECK(test, true, c, __VA_ARGS__)
#define KUNIT_ASSERT_NOT_ERR_OR_NULL(test, p) KUNIT_CHECK(test, true, (p) && !IS_ERR(p), " ")
#define KUNIT_EXPECT_PTR_EQ(test, l, r) KUNIT_CHECK(test, false, (const void *)(l) == (const void *)(r), " ")
#define KUNIT_EXPECT_STREQ(test, l, r) KUNIT_CHECK(test, false, !strcmp(l, r), " ")
#define KUNIT_FAIL(test, ...) kunit_failed(test, false, __LINE__, "fails", 0, 0, __VA_ARGS__)

#endif
