// SPDX-License-Identifier: MIT
/*
 * check-exits: how often a guest leaves for KVM, and for the host, in one run of an
 * operation; held to a table.
 *
 *	exits KEEL GUEST HELLO TABLE		KTAP on standard output
 *	exits KEEL GUEST HELLO TABLE hardware	a KVM without hardware is an error, and so are missing tracepoints
 *
 * Operations are repeated in a run, and what a run without any repetition counts is
 * taken off. Counted by the kernel: KVM's binary statistics,
 * which `keel run --stats` hands on, and beside them the tracepoints of KVM, in an
 * instance of their own, where tracefs can be written: they say why, and the two must
 * agree. External interrupts are the host's business and counted apart, but there may not
 * be more of them than the host took; so are faults of first touch, bounded by the table.
 *
 * Where the paging of KVM is not known - it is none of AMD's and Intel's - only exits to
 * the host itself are held.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <keel/keel.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../bench/link.h"

#define TRACEFS "/sys/kernel/tracing"
#define INSTANCE TRACEFS "/instances/keel-exits"
#define ROWS 96
#define REASONS 32
#define SLOW 10	    /* fewer repetitions, where nothing is known of KVM */
#define BASE_RUNS 6 /* until two agree */
#define TRIES 3	    /* of a row that is over its limit: what is nobody's fault does not come each time */
#define IDLE_SECONDS 3
#define SETTLE_MS 500
#define SPARE_EXITS 4  /* of a whole run, by which sleeping twice differs */
#define SPARE_FAULTS 8 /* first touches, of a whole run, that no operation is to blame for */

enum paging { PAGING_UNKNOWN, PAGING_NESTED, PAGING_SHADOW };

static const struct {
	const char *path;
	const char *name[2]; /* off, on */
} vendors[] = {
	{ "/sys/module/kvm_amd/parameters/npt", { "kvm-amd, npt=0", "kvm-amd, npt=1" } },
	{ "/sys/module/kvm_intel/parameters/ept", { "kvm-intel, ept=0", "kvm-intel, ept=1" } },
};

/* What counts of a run. */
enum { EXITS, IRQ, FAULTS, USERSPACE, SIGNALS, COUNTERS };

static const char *const counters[COUNTERS] = { "kvm.exits", "kvm.irq_exits", "kvm.pf_taken", "kvm.userspace_exits",
						"kvm.signal_exits" };

struct reason {
	char name[32];
	unsigned int n;
};

struct counts {
	int64_t n[COUNTERS];
	bool traced;
	struct reason reason[REASONS];
	int64_t traced_exits, traced_userspace;
	int64_t since_start; /* exits after the first one to the host: the guest's own, faults and interrupts apart */
};

struct row {
	char op[32];
	unsigned int reps;
	double userspace; /* exactly */
	double nested;	  /* at most */
	double shadow;	  /* at most, faults counted */
	double faults;	  /* with nested paging, at most */
};

static struct row rows[ROWS];
static unsigned int row_count;
static char *keel, *guest;
static enum paging paging;
static bool tracing;
static unsigned int results;
static bool red;

static void __attribute__((format(printf, 2, 3))) result(bool good, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("%s %u ", good ? "ok" : "not ok", ++results);
	vprintf(fmt, ap);
	printf("\n");
	fflush(stdout);
	va_end(ap);
	red |= !good;
}

/* The table */

static void read_table(const char *path)
{
	char line[512];
	FILE *f = fopen(path, "re");

	if (!f)
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		struct row *r = &rows[row_count];
		int at = 0;

		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (row_count == ROWS || sscanf(line, "%31[a-z_],%u,%lf,%lf,%lf,%lf,%n", r->op, &r->reps, &r->userspace,
						&r->nested, &r->shadow, &r->faults, &at) != 6)
			die("%s: not a row: %s", path, line);
		if (r->reps % SLOW && strcmp(r->op, "hello"))
			die("%s: repetitions of %s are no multiple of %d", path, r->op, SLOW);
		if (!at || strlen(line + at) < 10)
			die("%s: no reason is given for %s", path, r->op);
		row_count++;
	}
	fclose(f);
}

static const struct row *find_row(const char *op)
{
	for (unsigned int i = 0; i < row_count; i++)
		if (!strcmp(rows[i].op, op))
			return &rows[i];
	return NULL;
}

/* Tracepoints */

static bool put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_TRUNC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return done;
}

static void remove_instance(void)
{
	if (tracing)
		rmdir(INSTANCE);
}

/* Of this process and what it starts. */
static bool start_tracing(void)
{
	char self[16];

	rmdir(INSTANCE);
	if (mkdir(INSTANCE, 0700))
		return false;
	tracing = true;
	atexit(remove_instance);
	snprintf(self, sizeof(self), "%d", (int)getpid());
	return put(INSTANCE "/buffer_size_kb", "4096") && put(INSTANCE "/options/event-fork", "1") &&
	       put(INSTANCE "/set_event_pid", self) && put(INSTANCE "/events/kvm/kvm_exit/enable", "1") &&
	       put(INSTANCE "/events/kvm/kvm_userspace_exit/enable", "1");
}

static void stop_tracing(void)
{
	if (tracing && rmdir(INSTANCE))
		die(INSTANCE ": %s", strerror(errno));
	tracing = false;
}

static void count_reason(struct counts *c, const char *name)
{
	unsigned int i = 0;

	while (i < REASONS - 1 && c->reason[i].n && strcmp(c->reason[i].name, name))
		i++;
	snprintf(c->reason[i].name, sizeof(c->reason[i].name), "%s", name);
	c->reason[i].n++;
}

/* A page fault or an interrupt of the host's, by the names that the kernel has for either vendor. */
static bool set_apart(const char *reason)
{
	static const char *const names[] = { "npf", "interrupt", "EPT_VIOLATION", "EXTERNAL_INTERRUPT" };

	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(reason, names[i]))
			return true;
	return false;
}

/*
 * Of vCPUs' threads, which have names of their own: before, the host may have tried another
 * machine out. A line starts with the name of the thread.
 */
static void read_trace(struct counts *c)
{
	char line[512], reason[32];
	FILE *f = fopen(INSTANCE "/trace", "re");

	if (!f)
		die(INSTANCE "/trace: %s", strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		const char *at = strstr(line, "kvm_");

		if (strstr(line, "LOST"))
			die("the trace lost events");
		if (!at || strncmp(line + strspn(line, " "), "vcpu", 4))
			continue;
		if (strstr(at, "kvm_userspace_exit: reason ")) {
			c->traced_userspace += strstr(at, "KVM_EXIT_") != NULL;
		} else if ((at = strstr(at, " reason ")) && sscanf(at, " reason %31s", reason) == 1) {
			count_reason(c, reason);
			c->traced_exits++;
			c->since_start += c->traced_userspace && !set_apart(reason);
		}
	}
	fclose(f);
	c->traced = true;
}

/* Runs */

/* Interrupts the host has taken, of all kinds and on all processors. */
static int64_t interrupts(void)
{
	char line[512];
	long long n = -1;
	FILE *f = fopen("/proc/stat", "re");

	while (f && n < 0 && fgets(line, sizeof(line), f))
		if (sscanf(line, "intr %lld", &n) != 1)
			n = -1;
	if (!f || n < 0)
		die("/proc/stat does not tell interrupts");
	fclose(f);
	return n;
}

/* A child that will be traced, its standard input an endless file. */
static pid_t start(char *const argv[], int out, int err)
{
	pid_t pid = fork();
	int in;

	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	in = open("/dev/zero", O_RDONLY);
	if (in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
		_exit(126);
	for (int fd = 3; fd < 64; fd++)
		close(fd);
	execv(argv[0], argv);
	_exit(127);
}

static void run(char *image, const char *cmdline, struct counts *c)
{
	char *const vcpus = strncmp(cmdline, "peer_", 5) ? "1" : "2"; /* such operations need another one */
	char *const argv[] = { keel,	    "run",	     "--backend", "kvm", "--stats", "--timeout", "120",
			       "--cmdline", (char *)cmdline, "--vcpus",	  vcpus, image,	    NULL };
	int said = memfd_create("said", MFD_CLOEXEC), status;
	char line[256];
	pid_t pid;
	FILE *f;

	memset(c, 0, sizeof(*c));
	if (said < 0)
		die("memfd_create: %s", strerror(errno));
	if (tracing && !put(INSTANCE "/trace", "\n"))
		die(INSTANCE "/trace cannot be emptied");
	pid = start(argv, said, said);
	if (waitpid(pid, &status, 0) != pid)
		die("waitpid: %s", strerror(errno));
	f = fdopen(said, "r");
	rewind(f);
	while (fgets(line, sizeof(line), f)) {
		if (status)
			printf("# %s", line);
		for (unsigned int i = 0; i < COUNTERS; i++) {
			const size_t n = strlen(counters[i]);

			if (!strncmp(line, counters[i], n) && line[n] == ' ')
				c->n[i] += atoll(line + n);
		}
	}
	fclose(f);
	if (status)
		die("'%s' ended with wait status %#x", cmdline, (unsigned int)status);
	if (tracing)
		read_trace(c);
}

/* Exits that are nobody's but the guest's: with nested paging, faults are first touches. */
static int64_t net(const struct counts *c)
{
	return c->n[EXITS] - c->n[IRQ] - (paging == PAGING_NESTED ? c->n[FAULTS] : 0);
}

static void say(const char *what, const struct counts *c, const struct counts *base)
{
	printf("# %s: %lld exits, %lld to the host; apart from them %lld interrupts, %lld faults;", what,
	       (long long)(net(c) - net(base)), (long long)(c->n[USERSPACE] - base->n[USERSPACE]),
	       (long long)(c->n[IRQ] - base->n[IRQ]), (long long)(c->n[FAULTS] - base->n[FAULTS]));
	for (unsigned int i = 0; i < REASONS && c->reason[i].n; i++) {
		int64_t n = c->reason[i].n;

		for (unsigned int k = 0; k < REASONS; k++)
			if (!strcmp(base->reason[k].name, c->reason[i].name))
				n -= base->reason[k].n;
		if (n)
			printf(" %s %lld", c->reason[i].name, (long long)n);
	}
	printf("\n");
}

static double limit(const struct row *r)
{
	return paging == PAGING_NESTED ? r->nested : r->shadow;
}

/* One run has been counted: is everything in it accounted for? */
static bool sound(const struct counts *c, int64_t interrupted)
{
	bool good = true;

	if (paging != PAGING_UNKNOWN && c->n[IRQ] > interrupted) {
		printf("# %lld exits for interrupts, and the host took only %lld\n", (long long)c->n[IRQ],
		       (long long)interrupted);
		good = false;
	}
	if (c->traced && (c->traced_exits != c->n[EXITS] || c->traced_userspace != c->n[USERSPACE])) {
		printf("# counted by tracepoints: %lld exits, %lld to the host; by statistics: %lld, %lld\n",
		       (long long)c->traced_exits, (long long)c->traced_userspace, (long long)c->n[EXITS],
		       (long long)c->n[USERSPACE]);
		good = false;
	}
	return good;
}

static bool run_soundly(char *image, const char *cmdline, struct counts *c)
{
	const int64_t before = interrupts();

	run(image, cmdline, c);
	return sound(c, interrupts() - before);
}

/*
 * All that steady operations need is prepared in each of their runs, and takes as much each
 * time. Rare exits that are nobody's, an NMI's for one, only add: two runs that agree had none.
 */
static void find_base(const char *how, struct counts *base)
{
	bool good = false;
	char cmdline[64];

	snprintf(cmdline, sizeof(cmdline), "none:0%s", how);
	for (int i = 0; i < BASE_RUNS && !good; i++) {
		struct counts c;
		const bool was_sound = run_soundly(guest, cmdline, &c);

		printf("# a run without repetitions: %lld exits, %lld of them to the host\n", (long long)net(&c),
		       (long long)c.n[USERSPACE]);
		good = was_sound && i && (net(&c) == net(base) || paging == PAGING_UNKNOWN);
		*base = c;
	}
	result(good, "two runs without repetitions take as many exits");
}

/* A KVM that interprets is slow, and an exit to the host is one among few as well as among many. */
static unsigned int repetitions(const struct row *r)
{
	return paging == PAGING_UNKNOWN ? r->reps / SLOW : r->reps;
}

static void row_result(const struct row *r, bool good)
{
	if (paging == PAGING_UNKNOWN)
		result(good, "%s: %g exits to the host", r->op, r->userspace);
	else
		result(good, "%s: at most %g exits, %g to the host", r->op, limit(r), r->userspace);
}

/* Nothing at all is counted for these, so they can share a run: nothing is the sum of nothings. */
static bool shares_run(const struct row *r)
{
	return strcmp(r->op, "hello") && !r->userspace && !r->nested && !r->faults &&
	       (paging == PAGING_UNKNOWN || !limit(r));
}

static bool test_shared(const char *how, const struct counts *base)
{
	char cmdline[2048];
	struct counts c;
	size_t at = 0;

	for (unsigned int i = 0; i < row_count; i++)
		if (shares_run(&rows[i])) {
			at += (size_t)snprintf(cmdline + at, sizeof(cmdline) - at, "%s%s:%u", at ? " " : "", rows[i].op,
					       repetitions(&rows[i]));
			if (at >= sizeof(cmdline))
				die("too many rows for one run");
		}
	if (!at)
		return false;
	snprintf(cmdline + at, sizeof(cmdline) - at, "%s", how);
	if (!run_soundly(guest, cmdline, &c))
		return false;
	say("all that may not exit, together", &c, base);
	return c.n[USERSPACE] == base->n[USERSPACE] && c.n[SIGNALS] == base->n[SIGNALS] &&
	       (paging == PAGING_UNKNOWN || net(&c) == net(base)) &&
	       (paging != PAGING_NESTED || c.n[FAULTS] - base->n[FAULTS] <= SPARE_FAULTS);
}

static bool try_row(const struct row *r, const char *how, const struct counts *steady)
{
	const unsigned int reps = repetitions(r);
	const struct counts *base = steady;
	struct counts c, own;
	char cmdline[64];
	bool good = true;

	/* What may exit may also wait, and is compared with itself. */
	if (r->nested > 0) {
		snprintf(cmdline, sizeof(cmdline), "%s:0%s", r->op, how);
		good &= run_soundly(guest, cmdline, &own);
		base = &own;
	}
	snprintf(cmdline, sizeof(cmdline), "%s:%u%s", r->op, reps, how);
	good &= run_soundly(guest, cmdline, &c);
	say(r->op, &c, base);
	if ((double)(c.n[USERSPACE] - base->n[USERSPACE]) != r->userspace * reps || c.n[SIGNALS] != base->n[SIGNALS])
		good = false;
	if (paging != PAGING_UNKNOWN &&
	    (double)(net(&c) - net(base)) > limit(r) * reps + (r->nested > 0 ? SPARE_EXITS : 0))
		good = false;
	if (paging == PAGING_NESTED && (double)(c.n[FAULTS] - base->n[FAULTS]) > r->faults * reps + SPARE_FAULTS)
		good = false;
	return good;
}

static void test_row(const struct row *r, const char *how, const struct counts *steady)
{
	bool good = false;

	for (int i = 0; i < TRIES && !good; i++)
		good = try_row(r, how, steady);
	row_result(r, good);
}

static void test_rows(const char *how, const struct counts *base)
{
	/* When something was counted, each has a run of its own, to tell which it was. */
	const bool shared = test_shared(how, base);

	for (unsigned int i = 0; i < row_count; i++) {
		if (!strcmp(rows[i].op, "hello"))
			continue;
		if (shared && shares_run(&rows[i]))
			row_result(&rows[i], true);
		else
			test_row(&rows[i], how, base);
	}
}

static void test_hello(char *hello, const struct row *r)
{
	static const struct counts nothing;
	struct counts c;
	bool good = run_soundly(hello, "", &c);

	say("hello", &c, &nothing);
	if ((double)c.n[USERSPACE] != r->userspace)
		good = false;
	if (paging != PAGING_UNKNOWN && (double)net(&c) > limit(r))
		good = false;
	if (paging == PAGING_NESTED && (double)c.n[FAULTS] > r->faults)
		good = false;
	/* Between telling that it is built and its end the guest leaves for remote calls only. */
	if (paging == PAGING_NESTED && c.traced && c.since_start != c.traced_userspace - 1) {
		printf("# %lld exits after start-up, and %lld remote calls\n", (long long)c.since_start,
		       (long long)c.traced_userspace - 1);
		good = false;
	}
	if (paging == PAGING_UNKNOWN)
		result(good, "hello from start to end: %g exits to the host", r->userspace);
	else
		result(good, "hello from start to end: at most %g exits, %g of them to the host", limit(r),
		       r->userspace);
}

/* A call that may not leave for the host, and is in no row, is held by nothing. */
static void test_table(void)
{
	static const struct {
		const char *name;
		unsigned int flags;
	} calls[] = {
#define A(kind, name) 0
#define Z 0
#define KEEL_EXT(...)
#define KEEL_CALL(ext, fn, name, nargs, flags, a1, a2, a3, a4, a5, doc) { #name, flags },
#include "hypercalls.def"
#undef KEEL_CALL
#undef KEEL_EXT
#undef A
#undef Z
	};
	bool good = true;

	for (unsigned int i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (!(calls[i].flags & KEEL_CF_REMOTE) && !find_row(calls[i].name)) {
			printf("# no row for %s\n", calls[i].name);
			good = false;
		}
	result(good, "each local call has a row");
}

static void test_idle(void)
{
	char *const argv[] = { keel, "run", "--backend", "kvm", "--cmdline", "idle", guest, NULL };
	unsigned int ioctls, others;
	struct link idle;

	link_start(&idle, "the idle guest", argv, NULL);
	usleep(SETTLE_MS * 1000);
	ioctls = count_calls(idle.pid, IDLE_SECONDS, &others);
	printf("# in %d s: %u ioctls, %u other system calls\n", IDLE_SECONDS, ioctls, others);
	result(!ioctls, "an idle partition makes no ioctl");
	kill(idle.pid, SIGTERM);
	waitpid(idle.pid, NULL, 0);
}

static const char *find_paging(void)
{
	for (unsigned int i = 0; i < sizeof(vendors) / sizeof(vendors[0]); i++) {
		char c = 0;
		int fd = open(vendors[i].path, O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			continue;
		if (read(fd, &c, 1) != 1)
			die("%s: %s", vendors[i].path, strerror(errno));
		close(fd);
		paging = c == 'Y' || c == '1' ? PAGING_NESTED : PAGING_SHADOW;
		return vendors[i].name[paging == PAGING_NESTED];
	}
	return "neither AMD's nor Intel's: only exits to the host are held";
}

int main(int argc, char **argv)
{
	const bool hardware = argc == 6 && !strcmp(argv[5], "hardware");
	const struct row *hello;
	struct counts base;
	const char *how;
	int kvm;

	if (argc != 5 && !hardware) {
		fprintf(stderr, "usage: exits KEEL GUEST HELLO TABLE [hardware]\n");
		return 126;
	}
	keel = argv[1];
	guest = argv[2];
	printf("KTAP version 1\n");
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0 && !hardware) {
		printf("1..1\nok 1 exits # SKIP /dev/kvm does not open: %s\n", strerror(errno));
		return 0;
	}
	close(kvm);
	read_table(argv[4]);
	hello = find_row("hello");
	if (!hello)
		die("%s has no row for hello", argv[4]);
	printf("# %s\n", find_paging());
	if (hardware && paging == PAGING_UNKNOWN)
		die("there is no KVM with hardware here");
	if (paging != PAGING_UNKNOWN && !start_tracing()) {
		if (hardware)
			die(INSTANCE ": %s", strerror(errno));
		printf("# no tracepoints: " INSTANCE ": %s\n", strerror(errno));
		stop_tracing();
	}
	how = paging == PAGING_UNKNOWN ? "" : " warm";

	printf("1..%u\n", row_count + 3);
	test_table();
	find_base(how, &base);
	test_hello(argv[3], hello);
	test_rows(how, &base);
	stop_tracing();
	test_idle();
	return red;
}
