// SPDX-License-Identifier: GPL-2.0-only
/*
 * The suites as a program of the host: program [SUITE] runs them, or the one,
 * and prints the KTAP that a kernel prints. Ends with 1 when one failed.
 * In the environment: SEED of the random sequences; MUTANT, see mutants.csv.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "../libhypercall/src/mutant.h"

static struct kunit_suite *suites;

/* Sorted by name: the order of the kernel's link, and not that of constructors. */
void kunit_register(struct kunit_suite *suite)
{
	struct kunit_suite **at = &suites;

	while (*at && strcmp((*at)->name, suite->name) < 0)
		at = &(*at)->next;
	suite->next = *at;
	*at = suite;
}

static void die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(2);
}

void *memchr_inv(const void *p, int c, size_t n)
{
	const u8 *at = p;

	for (; n; n--, at++)
		if (*at != (u8)c)
			return (void *)at;
	return NULL;
}

void strscpy(char *dst, const char *src, size_t n)
{
	snprintf(dst, n, "%s", src);
}

u64 get_random_u64(void)
{
	const char *seed = getenv("SEED");
	u64 r;

	if (seed && *seed)
		return strtoull(seed, NULL, 0);
	if (getrandom(&r, sizeof(r), 0) != sizeof(r))
		die("getrandom");
	return r;
}

u64 ktime_get_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* Those that this program may use. */
int num_online_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);
}

/* Whole pages, as the kernel's, so that the suites place things alike; the sanitizer watches their end. */
void *vzalloc(size_t n)
{
	void *p = aligned_alloc(4096, n);

	return p ? memset(p, 0, n) : NULL;
}

void vfree(void *p)
{
	free(p);
}

void init_completion(struct completion *c)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->more, &attr);
	c->done = 0;
}

void complete(struct completion *c)
{
	pthread_mutex_lock(&c->lock);
	c->done++;
	pthread_cond_signal(&c->more);
	pthread_mutex_unlock(&c->lock);
}

unsigned long wait_for_completion_timeout(struct completion *c, unsigned long ticks)
{
	u64 end = ktime_get_ns() + ticks * (NSEC_PER_SEC / HZ);
	struct timespec until = { end / NSEC_PER_SEC, end % NSEC_PER_SEC };
	bool done;

	pthread_mutex_lock(&c->lock);
	while (!c->done && pthread_cond_timedwait(&c->more, &c->lock, &until) != ETIMEDOUT)
		;
	done = c->done;
	if (done)
		c->done--;
	pthread_mutex_unlock(&c->lock);
	return done;
}

struct task_struct {
	pthread_t thread;
	int (*main)(void *arg);
	void *arg;
	bool stop;
};

static __thread struct task_struct *current;

static void *thread_main(void *arg)
{
	current = arg;
	current->main(current->arg);
	return NULL;
}

struct task_struct *kthread_run(int (*main)(void *arg), void *arg, const char *name, ...)
{
	struct task_struct *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->main = main;
	t->arg = arg;
	if (!pthread_create(&t->thread, NULL, thread_main, t))
		return t;
	free(t);
	return NULL;
}

bool kthread_should_stop(void)
{
	return __atomic_load_n(&current->stop, __ATOMIC_ACQUIRE);
}

void kthread_stop(struct task_struct *t)
{
	__atomic_store_n(&t->stop, true, __ATOMIC_RELEASE);
	pthread_join(t->thread, NULL);
	free(t);
}

void schedule_timeout_interruptible(unsigned long ticks)
{
	struct timespec t = { .tv_nsec = ticks * (NSEC_PER_SEC / HZ) };

	nanosleep(&t, NULL);
}

void *kunit_alloc_resource(struct kunit *test, int (*init)(struct kunit_resource *res, void *context),
			   void (*free)(struct kunit_resource *res), int gfp, void *context)
{
	struct kunit_resource *res = calloc(1, sizeof(*res));

	if (!res || init(res, context))
		die("out of memory");
	res->free = free;
	res->next = test->resources;
	test->resources = res;
	return res->data;
}

static int kzalloc_init(struct kunit_resource *res, void *context)
{
	res->data = calloc(1, *(size_t *)context);
	return res->data ? 0 : -ENOMEM;
}

static void kzalloc_free(struct kunit_resource *res)
{
	free(res->data);
}

void *kunit_kzalloc(struct kunit *test, size_t n, int gfp)
{
	return kunit_alloc_resource(test, kzalloc_init, kzalloc_free, gfp, &n);
}

void kunit_info(struct kunit *test, const char *fmt, ...)
{
	va_list ap;

	printf("%s# ", test->indent);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void kunit_failed(struct kunit *test, bool fatal, int line, const char *what, long long left, long long right,
		  const char *fmt, ...)
{
	va_list ap;

	printf("%s# line %d: %s: %lld (0x%llx), %lld (0x%llx) ", test->indent, line, what, left, left, right, right);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	test->failed = true;
	if (fatal)
		longjmp(test->abort, 1);
}

/* One case, with one parameter where it has any. */
static bool run_once(const struct kunit_case *c, const void *param, const char *indent)
{
	struct kunit test = { .param_value = param, .indent = indent };

	if (!setjmp(test.abort))
		c->run_case(&test);
	while (test.resources) {
		struct kunit_resource *res = test.resources;

		test.resources = res->next;
		res->free(res);
		free(res);
	}
	return !test.failed;
}

static bool run_case(const struct kunit_case *c)
{
	char desc[KUNIT_PARAM_DESC_SIZE] = "";
	const void *param = NULL;
	bool good = true;
	int n = 0;

	if (!c->generate_params)
		return run_once(c, NULL, "    ");
	printf("        KTAP version 1\n        # Subtest: %s\n", c->name);
	while ((param = c->generate_params(param, desc))) {
		bool ok = run_once(c, param, "        ");

		printf("        %s %d %s\n", ok ? "ok" : "not ok", ++n, desc);
		good = good && ok;
	}
	return good && n;
}

static bool run_suite(const struct kunit_suite *suite)
{
	const struct kunit_case *c = suite->test_cases;
	bool good = true;
	int n = 0;

	while (c[n].run_case)
		n++;
	printf("    KTAP version 1\n    # Subtest: %s\n    1..%d\n", suite->name, n);
	for (n = 0; c[n].run_case; n++) {
		bool ok = run_case(&c[n]);

		printf("    %s %d %s\n", ok ? "ok" : "not ok", n + 1, c[n].name);
		fflush(stdout);
		good = good && ok;
	}
	return good;
}

#ifdef KEEL_MUTANTS
unsigned int keel_mutant;
#endif

int main(int argc, char **argv)
{
	const struct kunit_suite *s;
	bool good = true;
	int n = 0;

#ifdef KEEL_MUTANTS
	if (getenv("MUTANT"))
		keel_mutant = strtoul(getenv("MUTANT"), NULL, 10);
#endif
	for (s = suites; s; s = s->next)
		n += argc < 2 || !strcmp(s->name, argv[1]);
	printf("KTAP version 1\n1..%d\n", n);
	for (s = suites, n = 0; s; s = s->next) {
		bool ok;

		if (argc > 1 && strcmp(s->name, argv[1]))
			continue;
		ok = run_suite(s);
		printf("%s %d %s\n", ok ? "ok" : "not ok", ++n, s->name);
		good = good && ok;
	}
	return good && n ? 0 : 1;
}
