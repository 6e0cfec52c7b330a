// SPDX-License-Identifier: MIT
#include "probe.h"

#include <cjson/cJSON.h>
#include <cpuid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "backend/ring3/ring3.h"
#include "verb.h"

#define KVM_WAIT_MS 10000
#define CLOCKSOURCE "/sys/devices/system/clocksource/clocksource0/current_clocksource"
#define TEXT_WIDTH 110

/* Newer than the headers this is built with may be. */
#define FEATURE_WP_ASYNC (1ull << 15)
#define PM_SCAN_WORDS 12
#define PM_SCAN _IOWR('f', 16, uint64_t[PM_SCAN_WORDS])

enum kind { FLAG, NUMBER, TEXT, LIST };

static const char *const kind_names[] = {
	[FLAG] = "boolean",
	[NUMBER] = "number",
	[TEXT] = "string",
	[LIST] = "strings",
};

struct row {
	const char *group, *key;
	enum kind kind;
	size_t at;	   /* in struct probe */
	const char *label; /* in the text; NULL = not there */
	const char *unit;
	const char *help;
};

#define AT(field) offsetof(struct probe, field)

static const struct row rows[] = {
	{ "auto", "backend", TEXT, AT(choice.backend), "chosen", "", "kvm, ring3 or none" },
	{ "auto", "why", TEXT, AT(choice.why), "why", "", "the reason, in words" },
	{ "kvm", "verdict", TEXT, AT(kvm.verdict), NULL, "",
	  "absent, denied, forbidden, busy, fails, hangs, lacks, interprets, no-sse or hardware" },
	{ "kvm", "text", TEXT, AT(kvm.text), "verdict", "", "the verdict in words" },
	{ "kvm", "api", NUMBER, AT(kvm.api), "API version", "", "version of the interface" },
	{ "kvm", "flavour", TEXT, AT(kvm.flavour), "flavour", "", "kernel module that implements it" },
	{ "kvm", "ept", FLAG, AT(kvm.ept), "EPT", "", "VT-x with extended page tables; only known of kvm_intel" },
	{ "kvm", "npt", FLAG, AT(kvm.npt), "NPT", "", "SVM with nested page tables; only known of kvm_amd" },
	{ "kvm", "slowdown", NUMBER, AT(kvm.slowdown), "CPL 0 code takes", " x native",
	  "time of a loop in the guest, in times of the same loop natively" },
	{ "kvm", "sse", FLAG, AT(kvm.sse), "SSE", "", "the guest can execute SSE instructions" },
	{ "kvm", "exit_us", NUMBER, AT(kvm.exit_us), "exit to user space", " us",
	  "one port write that user space answers" },
	{ "kvm", "ioeventfd_us", NUMBER, AT(kvm.doorbell_us), "ioeventfd exit", " us",
	  "one port write to an ioeventfd" },
	{ "kvm", "kernel_exit_us", NUMBER, AT(kvm.cpuid_us), "in-kernel exit", " us", "one cpuid instruction" },
	{ "kvm", "capabilities", LIST, AT(kvm.capabilities), "capabilities", "",
	  "those the backend uses and is offered (KVM_CAP_...)" },
	{ "kvm", "missing", LIST, AT(kvm.missing), "missing", "", "those it uses and is not offered" },
	{ "cpu", "vmx", FLAG, AT(cpu.vmx), "VT-x", "", "the processor says it has VT-x" },
	{ "cpu", "svm", FLAG, AT(cpu.svm), "SVM", "", "the processor says it has SVM" },
	{ "cpu", "online", NUMBER, AT(cpu.online), "processors", "", "processors that are on" },
	{ "cpu", "usable", NUMBER, AT(cpu.usable), "usable here", "", "processors this process may use" },
	{ "cpu", "spare", NUMBER, AT(cpu.spare), "spare", "", "of those, beyond the one a guest takes" },
	{ "cpu", "clocksource", TEXT, AT(cpu.clocksource), "clock source", "", "what the kernel keeps time by" },
	{ "kernel", "release", TEXT, AT(kernel.release), "Linux", "", "release of the kernel" },
	{ "kernel", "seccomp_filter", FLAG, AT(kernel.seccomp_filter), "seccomp filters", "",
	  "ring3 does not run without" },
	{ "kernel", "seccomp_actions", LIST, AT(kernel.seccomp_actions), "seccomp actions", "",
	  "what a filter may answer" },
	{ "kernel", "user_namespaces", FLAG, AT(kernel.user_namespaces), "user namespaces", "",
	  "this user may make one" },
	{ "kernel", "userfaultfd", FLAG, AT(kernel.userfaultfd), "userfaultfd", "", "this user may have one" },
	{ "kernel", "userfaultfd_wp_async", FLAG, AT(kernel.userfaultfd_wp_async), "  with WP_ASYNC", "",
	  "it write-protects without messages" },
	{ "kernel", "pagemap_scan", FLAG, AT(kernel.pagemap_scan), "PAGEMAP_SCAN", "",
	  "written pages are found by one call" },
	{ "kernel", "io_uring", FLAG, AT(kernel.io_uring), "io_uring", "", "this user may have one" },
	{ "kernel", "landlock", NUMBER, AT(kernel.landlock), "Landlock version", "", "0: there is none" },
	{ "sandbox", "memory_cgroup", FLAG, AT(sandbox.memory_cgroup), "memory cgroup", "", "this user may make one" },
	{ "sandbox", "held", LIST, AT(sandbox.held), "layers that hold", "",
	  "layers around a ring3 guest, its filter apart" },
	{ "sandbox", "refused", LIST, AT(sandbox.refused), "layers refused", "", "layers this machine refuses" },
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

static const struct {
	const char *group, *title;
} titles[] = {
	{ "auto", "What --backend auto chooses" }, { "kvm", "KVM" }, { "cpu", "Processor" }, { "kernel", "Kernel" },
	{ "sandbox", "Sandbox of ring3" },
};

/* Finding out. */

static enum probe_flag flag(bool yes)
{
	return yes ? FLAG_YES : FLAG_NO;
}

static void add(struct probe_list *l, const char *name)
{
	if (l->count < PROBE_LIST_MAX)
		l->name[l->count++] = name;
}

/* The first line of a file; false and an empty text when there is none. */
static bool read_line(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return n > 0;
}

static enum probe_flag parameter(const char *path)
{
	char text[8];

	return read_line(path, text, sizeof(text)) ? flag(text[0] == 'Y' || text[0] == '1') : FLAG_UNKNOWN;
}

/* Of the modules with a name like that the processor's own come first. */
static void find_flavour(char *name, size_t size)
{
	DIR *d = opendir("/sys/module");
	struct dirent *e;

	while (d && (e = readdir(d))) {
		bool known = !strcmp(e->d_name, "kvm_intel") || !strcmp(e->d_name, "kvm_amd");

		if (known || (!strncmp(e->d_name, "kvm_", 4) && !*name))
			snprintf(name, size, "%.*s", (int)size - 1, e->d_name);
		if (known)
			break;
	}
	if (d)
		closedir(d);
}

static double measured(double v)
{
	return v > 0 ? v : -1;
}

enum kvm_verdict probe_set_kvm(struct probe *p, const struct kvm_probe *f)
{
	struct error text;
	enum kvm_verdict v = kvm_judge(f, &text);

	snprintf(p->kvm.verdict, sizeof(p->kvm.verdict), "%s", kvm_verdict_name(v));
	snprintf(p->kvm.text, sizeof(p->kvm.text), "%s", text.text);
	p->kvm.api = measured(f->api);
	p->kvm.slowdown = f->guest > 0 ? f->native / f->guest : -1;
	p->kvm.sse = f->sse_tried ? flag(f->sse) : FLAG_UNKNOWN;
	p->kvm.exit_us = measured(f->exit_ns / 1e3);
	p->kvm.doorbell_us = measured(f->doorbell_ns / 1e3);
	p->kvm.cpuid_us = measured(f->cpuid_ns / 1e3);
	p->kvm.missing.known = p->kvm.capabilities.known = f->reached > PROBE_API;
	for (unsigned int i = 0; p->kvm.missing.known && i < kvm_probe_cap_count; i++)
		add(f->missing & 1u << i ? &p->kvm.missing : &p->kvm.capabilities, kvm_probe_caps[i].name);
	return v;
}

void probe_choose(struct probe *p, enum kvm_verdict verdict)
{
	const bool kvm = kvm_fit(verdict) == FIT_GOOD, ring3 = p->kernel.seccomp_filter == FLAG_YES;

	snprintf(p->choice.backend, sizeof(p->choice.backend), "%s", kvm ? "kvm" : ring3 ? "ring3" : "none");
	snprintf(p->choice.why, sizeof(p->choice.why), "kvm %s%s", p->kvm.text,
		 kvm || ring3 ? "" : "; and ring3 cannot be sealed: there are no seccomp filters");
}

static void look_at_kvm(struct probe *p)
{
	find_flavour(p->kvm.flavour, sizeof(p->kvm.flavour));
	p->kvm.ept = parameter("/sys/module/kvm_intel/parameters/ept");
	p->kvm.npt = parameter("/sys/module/kvm_amd/parameters/npt");
}

static void look_at_cpu(struct probe *p)
{
	unsigned int a, b, c, d;
	cpu_set_t set;

	p->cpu.vmx = flag(__get_cpuid(1, &a, &b, &c, &d) && c & 1u << 5);
	p->cpu.svm = flag(__get_cpuid(0x80000001, &a, &b, &c, &d) && c & 1u << 2);
	p->cpu.online = (double)sysconf(_SC_NPROCESSORS_ONLN);
	/* The mask is too small for machines with more than 1024. */
	p->cpu.usable = sched_getaffinity(0, sizeof(set), &set) ? p->cpu.online : CPU_COUNT(&set);
	p->cpu.spare = p->cpu.usable - 1;
	read_line(CLOCKSOURCE, p->cpu.clocksource, sizeof(p->cpu.clocksource));
}

static void look_at_seccomp(struct probe *p)
{
	static const struct {
		uint32_t action;
		const char *name;
	} actions[] = {
		{ SECCOMP_RET_KILL_PROCESS, "kill_process" },
		{ SECCOMP_RET_KILL_THREAD, "kill_thread" },
		{ SECCOMP_RET_TRAP, "trap" },
		{ SECCOMP_RET_ERRNO, "errno" },
		{ SECCOMP_RET_USER_NOTIF, "user_notif" },
		{ SECCOMP_RET_TRACE, "trace" },
		{ SECCOMP_RET_LOG, "log" },
		{ SECCOMP_RET_ALLOW, "allow" },
	};

	/* A filter that is not there: who knows of filters looks for it. */
	p->kernel.seccomp_filter = flag(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL) < 0 && errno == EFAULT);
	p->kernel.seccomp_actions.known = true;
	for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
		if (!syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &actions[i].action))
			add(&p->kernel.seccomp_actions, actions[i].name);
}

static void look_at_memory(struct probe *p)
{
	struct uffdio_api api = { .api = UFFD_API };
	uint64_t scan[PM_SCAN_WORDS] = { 0 };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	p->kernel.userfaultfd = flag(fd >= 0);
	p->kernel.userfaultfd_wp_async =
		flag(fd >= 0 && !ioctl(fd, UFFDIO_API, &api) && api.features & FEATURE_WP_ASYNC);
	if (fd >= 0)
		close(fd);
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	p->kernel.pagemap_scan = flag(!ioctl(fd, PM_SCAN, scan) || errno != ENOTTY);
	close(fd);
}

static void look_at_kernel(struct probe *p)
{
	struct io_uring_params params = { 0 };
	struct utsname u;
	long n;
	int fd;

	if (!uname(&u))
		snprintf(p->kernel.release, sizeof(p->kernel.release), "%s", u.release);
	look_at_seccomp(p);
	look_at_memory(p);
	fd = (int)syscall(SYS_io_uring_setup, 1, &params);
	p->kernel.io_uring = flag(fd >= 0);
	if (fd >= 0)
		close(fd);
	n = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	p->kernel.landlock = n > 0 ? (double)n : 0;
}

static void look_at_sandbox(struct probe *p)
{
	uint32_t layers;

	if (sandbox_try(&layers))
		return;
	p->sandbox.held.known = p->sandbox.refused.known = true;
	for (enum layer l = 0; l < LAYER_COUNT; l++)
		add(layers & 1u << l ? &p->sandbox.held : &p->sandbox.refused, sandbox_layer_name(l));
	p->sandbox.memory_cgroup = flag(layers & 1u << LAYER_MEMORY_CGROUP);
	p->kernel.user_namespaces = flag(layers & 1u << LAYER_USER_NS);
}

/* Telling. */

static const void *field(const struct probe *p, const struct row *r)
{
	return (const char *)p + r->at;
}

/* Two decimals are all a measurement is good for; more than a hundred is good for none. */
static double rounded(double v)
{
	return v >= 100 ? (double)(int64_t)(v + 0.5) : (double)(int64_t)(v * 100 + 0.5) / 100;
}

static void print_value(const struct probe *p, const struct row *r, FILE *f)
{
	const struct probe_list *l = field(p, r);
	const enum probe_flag *yes = field(p, r);
	const double *number = field(p, r);
	const char *text = field(p, r);

	switch (r->kind) {
	case FLAG:
		fputs(*yes == FLAG_UNKNOWN ? "-" : *yes == FLAG_YES ? "yes" : "no", f);
		break;
	case NUMBER:
		if (*number < 0)
			fputc('-', f);
		else
			fprintf(f, "%.8g%s", rounded(*number), r->unit);
		break;
	case TEXT:
		fputs(*text ? text : "-", f);
		break;
	case LIST:
		for (unsigned int i = 0; i < l->count; i++)
			fprintf(f, "%s%s", i ? ",\n" : "", l->name[i]);
		if (!l->count)
			fputs(l->known ? "none" : "-", f);
		break;
	}
}

/* A line that is as long as it likes, broken where `at` is to lines that are not. */
static void print_wrapped(FILE *f, const char *label, const char *text, const char *at)
{
	int column = fprintf(f, "  %-20s", label), indent = column;

	while (*text) {
		int len = (int)strcspn(text, at);

		if (column > indent && column + 1 + len > TEXT_WIDTH)
			column = fprintf(f, "\n%*s", indent, "") - 1;
		column += fprintf(f, " %.*s", len, text);
		text += len + !!text[len];
	}
	fputc('\n', f);
}

void probe_print(const struct probe *p, FILE *f)
{
	for (size_t g = 0; g < sizeof(titles) / sizeof(titles[0]); g++) {
		fprintf(f, "%s%s\n", g ? "\n" : "", titles[g].title);
		for (size_t i = 0; i < ROWS; i++) {
			char *text = NULL;
			size_t size = 0;
			FILE *m;

			if (!rows[i].label || strcmp(rows[i].group, titles[g].group))
				continue;
			m = open_memstream(&text, &size);
			if (!m)
				continue;
			print_value(p, &rows[i], m);
			if (!fclose(m))
				print_wrapped(f, rows[i].label, text, rows[i].kind == LIST ? "\n" : " ");
			free(text);
		}
	}
}

static cJSON *json_value(const struct probe *p, const struct row *r)
{
	const struct probe_list *l = field(p, r);
	const enum probe_flag *yes = field(p, r);
	const double *number = field(p, r);
	const char *text = field(p, r);

	switch (r->kind) {
	case FLAG:
		return *yes == FLAG_UNKNOWN ? cJSON_CreateNull() : cJSON_CreateBool(*yes == FLAG_YES);
	case NUMBER:
		return *number < 0 ? cJSON_CreateNull() : cJSON_CreateNumber(rounded(*number));
	case TEXT:
		return *text ? cJSON_CreateString(text) : cJSON_CreateNull();
	case LIST:
		return l->known ? cJSON_CreateStringArray(l->name, (int)l->count) : cJSON_CreateNull();
	}
	return NULL;
}

char *probe_json(const struct probe *p)
{
	cJSON *all = cJSON_CreateObject();
	char *text = NULL;
	bool ok = all && cJSON_AddNumberToObject(all, "schema", PROBE_SCHEMA);

	for (size_t i = 0; ok && i < ROWS; i++) {
		cJSON *group = cJSON_GetObjectItemCaseSensitive(all, rows[i].group), *value;

		if (!group)
			group = cJSON_AddObjectToObject(all, rows[i].group);
		value = json_value(p, &rows[i]);
		ok = group && value && cJSON_AddItemToObject(group, rows[i].key, value);
	}
	if (ok)
		text = cJSON_Print(all);
	cJSON_Delete(all);
	return text;
}

/* The verb. */

struct probe_options {
	bool json;
};

static int set_json(void *to, const char *text, struct error *e)
{
	(void)text;
	(void)e;
	((struct probe_options *)to)->json = true;
	return 0;
}

static const struct option_def probe_options[] = {
	{ "json", NULL, "print JSON", set_json },
	{ NULL, NULL, NULL, NULL },
};

void verb_probe_help(FILE *f)
{
	fputs("A guest of one page is run on /dev/kvm and timed; everything else is asked of the kernel.\n"
	      "\nOptions:\n",
	      f);
	options_help(probe_options, f);
	fprintf(f,
		"\nThe JSON is one object. \"schema\" is %d; a key may be added without changing it. What could\n"
		"not be found out is null, and - in the text. The others are objects:\n\n",
		PROBE_SCHEMA);
	for (size_t i = 0; i < ROWS; i++) {
		char key[40];

		snprintf(key, sizeof(key), "%s.%s", rows[i].group, rows[i].key);
		fprintf(f, "  %-28s %-8s %s\n", key, kind_names[rows[i].kind], rows[i].help);
	}
	fputs("\nExit status: 0 when the probe worked, whatever it found.\n", f);
}

int verb_probe(int argc, char **argv)
{
	struct probe_options opt = { .json = false };
	struct probe p = { .kvm.api = -1 };
	struct kvm_probe_run run;
	const char *operand;
	struct error e;
	char *text;
	int ret = options_parse(probe_options, argc, argv, &opt, &operand, &e);

	if (!ret && operand)
		ret = error_set(&e, "takes no arguments: \"%s\"", operand);
	if (ret > 0) {
		printf("usage: keel probe [--json]\n\n");
		verb_probe_help(stdout);
		return 0;
	}
	if (ret < 0) {
		host_say("probe: %s; see \"keel help probe\"", e.text);
		return EXIT_USAGE;
	}
	signal(SIGCHLD, SIG_DFL); /* who ignores it cannot wait for its children */
	kvm_probe_start(&run, KVM_DEVICE, PROBE_FULL, kvm_probe_guest);
	kvm_probe_wait(&run, KVM_WAIT_MS);
	kvm_probe_end(&run);
	look_at_kvm(&p);
	look_at_cpu(&p);
	look_at_kernel(&p);
	look_at_sandbox(&p);
	probe_choose(&p, probe_set_kvm(&p, &run.facts));
	if (!opt.json) {
		probe_print(&p, stdout);
	} else {
		text = probe_json(&p);
		if (!text) {
			host_say("probe: out of memory");
			return EXIT_CRASHED;
		}
		puts(text);
		free(text);
	}
	if (fflush(stdout)) {
		host_say("probe: %s", strerror(errno));
		return EXIT_CRASHED;
	}
	return 0;
}
