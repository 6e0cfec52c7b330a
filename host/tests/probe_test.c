// SPDX-License-Identifier: MIT
/* The probe: verdicts as a function of facts, the choice, children that hang, crash and lie, text and JSON. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "../backend/ring3/ring3.h"
#include "../probe.h"
#include "tests.h"

#define RAN .api = KVM_API_VERSION, .reached = PROBE_SSE, .final = 1

static unsigned int cap_bit(const char *name)
{
	for (unsigned int i = 0; i < kvm_probe_cap_count; i++)
		if (!strcmp(kvm_probe_caps[i].name, name))
			return 1u << i;
	fail_msg("no capability %s", name);
	return 0;
}

static void test_verdicts(void **state)
{
	const struct {
		const char *name, *text, *backend;
		struct kvm_probe f;
	} cases[] = {
		{ "absent", "is absent: there is no /dev/kvm", "ring3", { .err = ENOENT } },
		{ "absent", "is absent: /dev/kvm has no driver behind it", "ring3", { .err = ENODEV } },
		{ "denied", "is not ours: no permission to open /dev/kvm", "ring3", { .err = EACCES } },
		{ "forbidden", "is forbidden: a container or policy keeps it from us", "ring3", { .err = EPERM } },
		{ "forbidden",
		  "is forbidden: a container or policy keeps it from us",
		  "ring3",
		  { .reached = PROBE_VM, .err = EPERM, .final = 1 } },
		{ "busy",
		  "is busy: something else holds the processor's virtualization",
		  "ring3",
		  { .reached = PROBE_VM, .err = EBUSY, .final = 1 } },
		{ "fails", "fails opening it: Too many open files", "ring3", { .err = EMFILE } },
		{ "fails",
		  "fails: version 11 of its interface instead of 12",
		  "ring3",
		  { .reached = PROBE_API, .api = 11, .final = 1 } },
		{ "fails",
		  "fails making a virtual processor: Cannot allocate memory",
		  "ring3",
		  { .reached = PROBE_VCPU, .err = ENOMEM, .final = 1 } },
		/* By then it is no refusal any more. */
		{ "fails",
		  "fails making a virtual processor: Operation not permitted",
		  "ring3",
		  { .reached = PROBE_VCPU, .err = EPERM, .final = 1 } },
		{ "fails",
		  "fails entering the guest: exit reason 9",
		  "ring3",
		  { .reached = PROBE_ENTER, .exit = KVM_EXIT_FAIL_ENTRY + 1, .final = 1 } },
		{ "fails",
		  "fails running a loop: it took its process along",
		  "ring3",
		  { .reached = PROBE_LOOP, .silence = PROBE_DIED } },
		{ "fails",
		  "fails: the probe's answer makes no sense",
		  "ring3",
		  { RAN, .native = 4000, .guest = 4000, .sse = 1, .sse_tried = 1, .silence = PROBE_NONSENSE } },
		{ "lacks", "lacks KVM_CAP_IRQFD", "ring3", { RAN, .missing = cap_bit("IRQFD") } },
		{ "interprets",
		  "interprets: CPL 0 code runs 5000 times slower than native",
		  "ring3",
		  { .reached = PROBE_LOOP, .native = 4000, .guest = 0.8, .final = 1 } },
		/* Known to be slow is known, whatever became of the rest. */
		{ "interprets",
		  "interprets: CPL 0 code runs 5 times slower than native",
		  "ring3",
		  { .reached = PROBE_CPUIDS, .native = 1000, .guest = 200, .silence = PROBE_TOO_LATE } },
		{ "hangs",
		  "hangs making a virtual machine",
		  "ring3",
		  { .reached = PROBE_VM, .silence = PROBE_TOO_LATE } },
		{ "hangs",
		  "hangs running a loop",
		  "ring3",
		  { .reached = PROBE_LOOP, .stuck = 1, .native = 4000, .final = 1 } },
		{ "hangs",
		  "hangs executing SSE instructions",
		  "ring3",
		  { RAN, .native = 4000, .guest = 4000, .stuck = 1 } },
		{ "hangs",
		  "hangs executing cpuid",
		  "ring3",
		  { .reached = PROBE_CPUIDS, .native = 4000, .guest = 4000, .silence = PROBE_TOO_LATE } },
		{ "no-sse",
		  "cannot execute SSE instructions",
		  "ring3",
		  { RAN, .native = 4000, .guest = 4000, .sse_tried = 1, .exit = KVM_EXIT_INTERNAL_ERROR + 1 } },
		{ "hardware",
		  "runs at hardware speed, 1.00 times native time",
		  "kvm",
		  { RAN, .native = 4000, .guest = 4000, .sse = 1, .sse_tried = 1 } },
		/* A quarter of native speed is enough, less is not. */
		{ "hardware",
		  "runs at hardware speed, 4.00 times native time",
		  "kvm",
		  { RAN, .native = 4000, .guest = 1000, .sse = 1, .sse_tried = 1 } },
		{ "interprets",
		  "interprets: CPL 0 code runs 4 times slower than native",
		  "ring3",
		  { RAN, .native = 4000, .guest = 999, .sse = 1, .sse_tried = 1 } },
		/* What paravirtual guests do without does not matter. */
		{ "hardware",
		  "runs at hardware speed, 1.00 times native time",
		  "kvm",
		  { RAN, .native = 4000, .guest = 4000, .sse = 1, .sse_tried = 1, .missing = cap_bit("PIT2") } },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct probe p = { .kernel.seccomp_filter = FLAG_YES };
		char why[400];

		probe_choose(&p, probe_set_kvm(&p, &cases[i].f));
		snprintf(why, sizeof(why), "kvm %s", cases[i].text);
		if (strcmp(p.kvm.verdict, cases[i].name) || strcmp(p.kvm.text, cases[i].text) ||
		    strcmp(p.choice.backend, cases[i].backend) || strcmp(p.choice.why, why))
			fail_msg("case %zu: %s \"%s\", %s because \"%s\"", i, p.kvm.verdict, p.kvm.text,
				 p.choice.backend, p.choice.why);
	}
}

static void test_fit(void **state)
{
	/* By name, what is slow still runs; what does not run is refused. */
	static const enum backend_fit fits[] = {
		[KVM_IS_ABSENT] = FIT_NONE,   [KVM_IS_DENIED] = FIT_NONE,  [KVM_IS_FORBIDDEN] = FIT_NONE,
		[KVM_IS_BUSY] = FIT_NONE,     [KVM_FAILS] = FIT_NONE,	   [KVM_HANGS] = FIT_NONE,
		[KVM_LACKS] = FIT_NONE,	      [KVM_INTERPRETS] = FIT_POOR, [KVM_HAS_NO_SSE] = FIT_POOR,
		[KVM_IS_HARDWARE] = FIT_GOOD,
	};

	(void)state;
	for (size_t v = 0; v < sizeof(fits) / sizeof(fits[0]); v++)
		assert_int_equal(kvm_fit((enum kvm_verdict)v), fits[v]);
}

static void test_no_backend(void **state)
{
	struct probe p = { .kernel.seccomp_filter = FLAG_NO };
	const struct kvm_probe absent = { .err = ENOENT };

	(void)state;
	probe_choose(&p, probe_set_kvm(&p, &absent));
	assert_string_equal(p.choice.backend, "none");
	assert_non_null(strstr(p.choice.why, "no seccomp filters"));
}

/* What keel probe asks of ring3; no test of these does. */

int sandbox_try(uint32_t *layers)
{
	(void)layers;
	return -ENOSYS;
}

const char *sandbox_layer_name(enum layer layer)
{
	(void)layer;
	return "";
}

/* Fake guests. They say something first, as the real one does. */

static struct kvm_probe said(uint32_t step)
{
	return (struct kvm_probe){ .magic = PROBE_MAGIC, .reached = step, .api = KVM_API_VERSION };
}

static void say(int answer, struct kvm_probe f)
{
	if (write(answer, &f, sizeof(f)) != sizeof(f))
		_exit(1);
}

static struct kvm_probe good(void)
{
	struct kvm_probe f = said(PROBE_SSE);

	f.native = f.guest = 4000;
	f.sse = f.sse_tried = f.final = 1;
	return f;
}

static void fake_good(int kvm, int answer, enum kvm_probe_depth depth)
{
	(void)kvm;
	(void)depth;
	say(answer, said(PROBE_LOOP));
	say(answer, good());
	pause(); /* a virtual machine that takes for ever to tear down, nearly */
}

static void fake_hang(int kvm, int answer, enum kvm_probe_depth depth)
{
	(void)kvm;
	(void)depth;
	say(answer, said(PROBE_ENTER));
	signal(SIGTERM, SIG_IGN);
	signal(SIGALRM, SIG_IGN);
	for (;;)
		pause();
}

static void fake_busy_hang(int kvm, int answer, enum kvm_probe_depth depth)
{
	(void)kvm;
	(void)depth;
	say(answer, said(PROBE_VM));
	for (;;)
		__asm__ volatile("pause");
}

static void fake_crash(int kvm, int answer, enum kvm_probe_depth depth)
{
	(void)kvm;
	(void)depth;
	say(answer, said(PROBE_VCPU));
	kill(getpid(), SIGKILL);
}

static void fake_silent(int kvm, int answer, enum kvm_probe_depth depth)
{
	(void)kvm;
	(void)answer;
	(void)depth;
}

static unsigned int lie;

static void fake_lie(int kvm, int answer, enum kvm_probe_depth depth)
{
	struct kvm_probe f = good();

	(void)kvm;
	(void)depth;
	switch (lie) {
	case 0:
		f.magic++;
		break;
	case 1:
		f.reached = PROBE_STEPS;
		break;
	case 2:
		f.native = NAN;
		break;
	case 3:
		f.guest = INFINITY;
		break;
	case 4:
		f.exit_ns = -1;
		break;
	case 5:
		f.sse = 2;
		break;
	case 6:
		f.silence = PROBE_TOO_LATE;
		break;
	case 7:
		f.err = -1;
		break;
	case 8: /* less than an answer */
		if (write(answer, &f, sizeof(f) - 8) < 0)
			_exit(1);
		return;
	case 9: /* backwards */
		say(answer, said(PROBE_LOOP));
		f.reached = PROBE_VM;
		break;
	case 10: /* again and again */
		for (;;)
			say(answer, said(PROBE_LOOP));
	}
	say(answer, f);
}

#define LIES 11

static unsigned int open_fds(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Start, wait, end; nothing may be left of it. */
static enum kvm_verdict watch(kvm_probe_fn *fn, unsigned int ms, char *text, size_t size)
{
	unsigned int fds = open_fds();
	struct kvm_probe_run r;
	enum kvm_verdict v;
	struct error e;
	pid_t pid;

	/* Anything that opens for reading and writing will do in place of KVM. */
	kvm_probe_start(&r, "/dev/null", PROBE_QUICK, fn);
	pid = r.pid;
	assert_true(pid > 0);
	kvm_probe_wait(&r, ms);
	v = kvm_judge(&r.facts, &e);
	kvm_probe_end(&r);
	assert_int_equal(r.pid, 0);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
	kvm_probe_end(&r); /* again is nothing */
	assert_int_equal(open_fds(), fds);
	snprintf(text, size, "%s", e.text);
	return v;
}

static void test_watchdog(void **state)
{
	static const struct {
		kvm_probe_fn *fn;
		unsigned int ms;
		enum kvm_verdict verdict;
		const char *text;
	} cases[] = {
		{ fake_good, 10000, KVM_IS_HARDWARE, "runs at hardware speed, 1.00 times native time" },
		{ fake_hang, 2000, KVM_HANGS, "hangs entering the guest" },
		{ fake_busy_hang, 2000, KVM_HANGS, "hangs making a virtual machine" },
		{ fake_crash, 10000, KVM_FAILS, "fails making a virtual processor: it took its process along" },
		{ fake_silent, 10000, KVM_FAILS, "fails opening it: it took its process along" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[400];

		if (watch(cases[i].fn, cases[i].ms, text, sizeof(text)) != cases[i].verdict ||
		    strcmp(text, cases[i].text))
			fail_msg("case %zu: %s", i, text);
	}
}

static void test_liars(void **state)
{
	(void)state;
	for (lie = 0; lie < LIES; lie++) {
		char text[400];

		if (watch(fake_lie, 10000, text, sizeof(text)) != KVM_FAILS ||
		    strcmp(text, "fails: the probe's answer makes no sense"))
			fail_msg("lie %u: %s", lie, text);
	}
}

static void test_unread_answer(void **state)
{
	struct kvm_probe_run r;

	(void)state;
	/* An image that cannot be opened ends keel before anybody asks. */
	kvm_probe_start(&r, "/dev/null", PROBE_QUICK, fake_hang);
	kvm_probe_end(&r);
	assert_int_equal(r.pid, 0);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void test_opening(void **state)
{
	char dir[] = "/tmp/keel-probe-XXXXXX", path[64];
	struct kvm_probe_run r;
	struct error e;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/kvm", dir);
	kvm_probe_start(&r, path, PROBE_QUICK, kvm_probe_guest);
	assert_int_equal(kvm_judge(&r.facts, &e), KVM_IS_ABSENT);
	assert_int_equal(r.pid, 0);
	/* Not KVM at all. */
	kvm_probe_start(&r, "/dev/null", PROBE_QUICK, kvm_probe_guest);
	kvm_probe_wait(&r, 10000);
	kvm_probe_end(&r);
	assert_int_equal(kvm_judge(&r.facts, &e), KVM_FAILS);
	assert_string_equal(e.text, "fails asking for its version: Inappropriate ioctl for device");
	rmdir(dir);
}

/* Text and JSON */

static void known_probe(struct probe *p)
{
	const struct kvm_probe f = { RAN,
				     .native = 4000,
				     .guest = 3200,
				     .sse = 1,
				     .sse_tried = 1,
				     .exit_ns = 1234.5,
				     .cpuid_ns = 567890.1,
				     .missing = cap_bit("PIT2") };

	*p = (struct probe){ .kernel = { .seccomp_filter = FLAG_YES, .landlock = 7 },
			     .sandbox = { .held = { true, 2, { "an \"empty\" root", "OOM score" } },
					  .refused = { true, 0, { NULL } } } };
	snprintf(p->kernel.release, sizeof(p->kernel.release), "6.1.0");
	probe_choose(p, probe_set_kvm(p, &f));
}

static const cJSON *get(const cJSON *all, const char *group, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(all, group), key);

	if (!v)
		fail_msg("no %s.%s", group, key);
	return v;
}

static void test_json(void **state)
{
	struct probe p;
	char *text;
	cJSON *all;

	(void)state;
	known_probe(&p);
	text = probe_json(&p);
	assert_non_null(text);
	all = cJSON_Parse(text);
	assert_non_null(all);
	assert_true(cJSON_GetObjectItemCaseSensitive(all, "schema")->valuedouble == PROBE_SCHEMA);
	assert_string_equal(get(all, "auto", "backend")->valuestring, "kvm");
	assert_string_equal(get(all, "kvm", "verdict")->valuestring, "hardware");
	assert_true(get(all, "kvm", "api")->valuedouble == KVM_API_VERSION);
	assert_true(get(all, "kvm", "slowdown")->valuedouble == 1.25);
	assert_true(get(all, "kvm", "exit_us")->valuedouble == 1.23);
	assert_true(get(all, "kvm", "kernel_exit_us")->valuedouble == 568);
	assert_true(cJSON_IsNull(get(all, "kvm", "ioeventfd_us")));
	assert_true(cJSON_IsNull(get(all, "kvm", "ept")));
	assert_true(cJSON_IsNull(get(all, "kvm", "flavour")));
	assert_true(cJSON_IsTrue(get(all, "kvm", "sse")));
	assert_int_equal(cJSON_GetArraySize(get(all, "kvm", "missing")), 1);
	assert_string_equal(cJSON_GetArrayItem(get(all, "kvm", "missing"), 0)->valuestring, "PIT2");
	assert_int_equal(cJSON_GetArraySize(get(all, "kvm", "capabilities")), kvm_probe_cap_count - 1);
	assert_true(get(all, "kernel", "landlock")->valuedouble == 7);
	assert_true(cJSON_IsNull(get(all, "kernel", "seccomp_actions")));
	assert_string_equal(cJSON_GetArrayItem(get(all, "sandbox", "held"), 0)->valuestring, "an \"empty\" root");
	assert_int_equal(cJSON_GetArraySize(get(all, "sandbox", "refused")), 0);
	cJSON_Delete(all);
	free(text);
}

static void test_text(void **state)
{
	static const char *const lines[] = {
		"  chosen               kvm\n",
		"  why                  kvm runs at hardware speed, 1.25 times native time\n",
		"  API version          12\n",
		"  CPL 0 code takes     1.25 x native\n",
		"  exit to user space   1.23 us\n",
		"  ioeventfd exit       -\n",
		"  in-kernel exit       568 us\n",
		"  missing              PIT2\n",
		"  seccomp actions      -\n",
		"  layers that hold     an \"empty\" root, OOM score\n",
		"  layers refused       none\n",
	};
	char *text = NULL, *line, *rest;
	size_t size = 0;
	struct probe p;
	FILE *f = open_memstream(&text, &size);

	(void)state;
	known_probe(&p);
	probe_print(&p, f);
	fclose(f);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		if (!strstr(text, lines[i]))
			fail_msg("no \"%s\" in %s", lines[i], text);
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		assert_true(strlen(line) <= 112);
	free(text);
}

const struct CMUnitTest probe_tests[] = {
	cmocka_unit_test(test_verdicts), cmocka_unit_test(test_fit),   cmocka_unit_test(test_no_backend),
	cmocka_unit_test(test_watchdog), cmocka_unit_test(test_liars), cmocka_unit_test(test_unread_answer),
	cmocka_unit_test(test_opening),	 cmocka_unit_test(test_json),  cmocka_unit_test(test_text),
};
DEFINE_TESTS(probe);
