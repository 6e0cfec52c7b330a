// SPDX-License-Identifier: MIT
/*
 * check-counts: how many system calls the guest process makes, and how many
 * signals it gets, in one run of each of the bench guest's operations; how often
 * user code hands over to it, and that it does so in the processes that are there.
 *
 *	count KEEL GUEST	KTAP on standard output
 *
 * Counted by ptrace, from outside: neither the guest nor the monitor nor the host
 * takes part, but for the guest's marks at both ends of what is counted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../backend/ring3/layout.h"
#include "engine.h"
#include "link.h"

#define CALLS 512   /* system call numbers told apart */
#define LIMITS 5    /* kinds of system calls one operation may make */
#define SECONDS 20  /* one operation may take */
#define GAP_US 3000 /* between bytes of the flood */
#define SIGNALS (64 + 1)

struct limit {
	int nr; /* 0 = end: no kind here is system call 0, read */
	const char *name;
	unsigned int least, most;
};

#define CALL(name, least, most)                \
	{                                      \
		SYS_##name, #name, least, most \
	}

static const struct test {
	const char *op, *name;
	struct limit call[LIMITS]; /* all other system calls: none */
	int sig;		   /* all other signals: none */
	unsigned int least, most;
	unsigned int reads; /* most times the clock is read: a clock_gettime each where no page can tell the time */
} tests[] = {
	{ "nop", "1000 null hypercalls: no system call", .sig = 0 },
	{ "multicall", "a multicall of 64 null hypercalls: no system call", .sig = 0 },
	{ "stats", "reading statistics: no system call", .sig = 0 },
	{ "mask", "1000 times masking and unmasking an event: no system call", .sig = 0 },
	{ "irq", "1000 times interrupts off and on: no system call", .sig = 0 },
	{ "clock", "1000 times reading the clock: no system call where the page is valid", .sig = 0,
	  .reads = PER_SHORT },
	{ "send", "64 sends of an event to this vCPU and its delivery: no system call, no wake-up", .sig = 0 },
	{ "event_batch", "a batch of 64 sends: no system call, no wake-up", .sig = 0 },
	{ "map", "batch of 512 contiguous pages, populated: 1 mmap", { CALL(mmap, 1, 1) }, .sig = 0 },
	{ "scatter", "batch of 512 scattered pages: no more mmaps than runs", { CALL(mmap, 1, AREA_PAGES) }, .sig = 0 },
	{ "unmap_few", "unmap of 64 scattered runs in one span: 1 munmap", { CALL(munmap, 1, 1) }, .sig = 0 },
	{ "unmap_many", "unmap of 512 scattered runs: 1 munmap for each call of 64", { CALL(munmap, 1, 8) }, .sig = 0 },
	{ "protect", "protection of 512 contiguous pages: 1 mprotect", { CALL(mprotect, 1, 1) }, .sig = 0 },
	{ "fault",
	  "16 page faults handled by the guest: 1 mmap each, no rt_sigreturn",
	  { CALL(mmap, 16, 16) },
	  .sig = SIGSEGV,
	  .least = PER_FAULT,
	  .most = PER_FAULT },
	{ "trap", "a trap and its return: no system call", .sig = SIGILL, .least = 1, .most = 1 },
	{ "timer_set", "arming the timer: 1 timer_settime", { CALL(timer_settime, 1, 1) }, .sig = 0, .reads = 1 },
	/* A timer that goes off early by the guest's clock is armed again. */
	{ "timer_idle",
	  "sleeping until a timer fires: at most 2 waits and 1 signal for each arming",
	  { CALL(timer_settime, 1, 2), CALL(futex, 0, 4) },
	  .sig = SIGUSR2,
	  .least = 1,
	  .most = 2,
	  .reads = 10 },
	{ "ring", "console output while the host is awake: no system call", .sig = 0 },
	{ "flood", "16 times input while interrupts are off: 1 wake-up", .sig = K_SIG_HOST_KICK, .least = 1,
	  .most = 1 },
	{ "ping",
	  "100 remote calls: at most a wake and a wait each",
	  { CALL(futex, 0, 2 * PER_PING), CALL(sched_yield, 0, UINT32_MAX) },
	  .sig = 0 },
	{ "user_call",
	  "50 system calls of user code: at most a wake and a wait each",
	  { CALL(futex, 0, 2 * PER_ENTER), CALL(sched_yield, 0, UINT32_MAX),
	    /* Where to hand over is thought about now and then. */
	    CALL(sched_setaffinity, 0, 4), CALL(getcpu, 0, 2) },
	  .sig = 0 },
	{ "user_cpu",
	  "2000000 rounds of a loop in user code: at most a wake and a wait",
	  { CALL(futex, 0, 2), CALL(sched_yield, 0, UINT32_MAX), CALL(sched_setaffinity, 0, 4), CALL(getcpu, 0, 2) },
	  .sig = 0 },
};

#define TESTS (sizeof(tests) / sizeof(tests[0]))

/* Each time user code stops, whatever for, a signal says so. */
static const struct user_test {
	const char *op, *name;
	unsigned int calls;	  /* SIGSYS, exactly */
	unsigned int least, most; /* SIGSEGV */
	unsigned int resets;	  /* at most */
} user_tests[] = {
	{ .op = "user_call", .name = "50 system calls of user code: 50 hand-offs", .calls = PER_ENTER },
	{ .op = "user_spaces",
	  .name = "128 system calls of 64 address spaces in turn: 128 hand-offs",
	  .calls = PER_SPACES },
	{ .op = "user_fault",
	  .name = "16 page faults of user code, answered by the guest: 1 hand-off each",
	  .calls = 1,
	  .least = PER_FAULT,
	  .most = PER_FAULT,
	  .resets = 1 },
	{ .op = "user_refill",
	  .name = "512 pages that a new copy of a space has: 32 at least with each hand-off",
	  .calls = 2, /* the first one of the copy, too... */
	  .least = 1,
	  .most = AREA_PAGES / REFILL + 1, /* ...and its page of code */
	  .resets = 1 },
	/* The child finds nothing mapped for it, and its parent's pages have become read-only. */
	{ .op = "user_fork",
	  .name = "4 times fork, exit and wait: 3 hand-offs for calls, 2 to 5 for page faults",
	  .calls = 3 * PER_FORK,
	  .least = 2 * PER_FORK,
	  .most = 5 * PER_FORK,
	  .resets = 4 * PER_FORK },
	{ .op = "user_cpu", .name = "2000000 rounds of a loop in user code: 1 hand-off", .calls = 1 },
};

#define USER_TESTS (sizeof(user_tests) / sizeof(user_tests[0]))
#define PROCESSES 512

struct counts {
	unsigned int call[CALLS];
	unsigned int sig[SIGNALS];
	unsigned int marks;
};

static void resume(pid_t k, int sig)
{
	if (ptrace(PTRACE_SYSCALL, k, 0, sig))
		die("ptrace: %s", strerror(errno));
}

/* Does a process of this machine ask the kernel for the time? Seen from outside. */
static bool kernel_tells_time(void)
{
	const pid_t pid = fork();
	bool asked = false;
	int status;

	if (!pid) {
		struct timespec ts;

		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		clock_gettime(CLOCK_MONOTONIC, &ts);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status) ||
	    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL))
		die("a process to look at: %s", strerror(errno));
	for (resume(pid, 0); waitpid(pid, &status, 0) == pid && WIFSTOPPED(status); resume(pid, 0)) {
		struct __ptrace_syscall_info info;

		if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) > 0 &&
		    info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == SYS_clock_gettime)
			asked = true;
	}
	return asked;
}

/* Does the host keep time by the TSC, by itself or by its hypervisor's word, as it must for a clock page to be valid? */
static bool tsc_clock(void)
{
	FILE *f = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
	char name[16] = "";
	bool tsc = f && fgets(name, sizeof(name), f) && (!strcmp(name, "tsc\n") || !strcmp(name, "kvm-clock\n"));

	if (f)
		fclose(f);
	return tsc && !kernel_tells_time();
}

/* A stop of the guest process. Returns false when it was the last one that counts; k stays stopped then. */
static bool stopped(pid_t k, int status, struct counts *c)
{
	struct __ptrace_syscall_info info;
	int sig;

	if (!WIFSTOPPED(status))
		die("the guest process ended, wait status %#x", (unsigned int)status);
	sig = WSTOPSIG(status);
	if (sig == (SIGTRAP | 0x80)) {
		if (ptrace(PTRACE_GET_SYSCALL_INFO, k, sizeof(info), &info) <= 0)
			die("PTRACE_GET_SYSCALL_INFO: %s", strerror(errno));
		if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
			if (info.entry.nr == SYS_madvise)
				c->marks++;
			else if (c->marks == 1)
				c->call[info.entry.nr < CALLS ? info.entry.nr : CALLS - 1]++;
		} else if (c->marks == 2) {
			return false;
		}
		sig = 0;
	} else if (status >> 16) {
		sig = 0; /* a stop of ptrace's own */
	} else if (c->marks == 1 && sig < SIGNALS) {
		c->sig[sig]++;
	}
	resume(k, sig);
	return true;
}

/* Handle stops for some time; returns false when the last one came. */
static bool follow(pid_t k, struct counts *c, unsigned int us, bool until_mark)
{
	for (unsigned int waited = 0; waited < us; waited += 100) {
		int status;
		pid_t pid;

		while ((pid = waitpid(k, &status, WNOHANG | __WALL)) == k)
			if (!stopped(k, status, c))
				return false;
		if (pid < 0)
			die("waitpid: %s", strerror(errno));
		if (until_mark && c->marks)
			return true;
		usleep(100);
	}
	return true;
}

static void trace(struct link *l, pid_t k, const struct test *t, struct counts *c)
{
	char text[64];
	int status;

	memset(c, 0, sizeof(*c));
	if (ptrace(PTRACE_SEIZE, k, 0, PTRACE_O_TRACESYSGOOD) || ptrace(PTRACE_INTERRUPT, k, 0, 0))
		die("cannot trace the guest process: %s", strerror(errno));
	if (waitpid(k, &status, __WALL) != k || !stopped(k, status, c))
		die("the guest process does not stop");
	/* Asleep again, or the line's wake-up might come after the guest has seen the line and be counted. */
	follow(k, c, GAP_US, false);
	snprintf(text, sizeof(text), "%s 1 1\n", t->op);
	link_send(l, text);
	if (!strcmp(t->op, "flood")) {
		follow(k, c, SECONDS * 1000000, true);
		for (int i = 0; i < ENGINE_FLOOD; i++) {
			link_send(l, "x");
			/* Between two bytes every stop is worked off: signals of one kind that pile up become one. */
			if (!follow(k, c, GAP_US, false)) {
				if (i + 1 < ENGINE_FLOOD)
					die("flood ended before its time");
				goto end;
			}
		}
	}
	if (follow(k, c, SECONDS * 1000000, false))
		die("%s did not end", t->op);
end:
	if (ptrace(PTRACE_DETACH, k, 0, 0))
		die("PTRACE_DETACH: %s", strerror(errno));
	if (strncmp(link_line(l), t->op, strlen(t->op)))
		die("the guest answers something else");
}

static bool judge(const struct test *t, const struct counts *c)
{
	const struct limit clock = CALL(clock_gettime, 0, tsc_clock() ? 0 : t->reads);
	bool good = c->marks == 2;

	for (int nr = 0; nr < CALLS; nr++) {
		const struct limit *l = nr == SYS_clock_gettime ? &clock : NULL;

		for (int i = 0; i < LIMITS && t->call[i].name; i++)
			if (t->call[i].nr == nr)
				l = &t->call[i];
		if (l)
			printf("# %s %u\n", l->name, c->call[nr]);
		else if (c->call[nr])
			printf("# system call %d: %u\n", nr, c->call[nr]);
		if (l ? c->call[nr] < l->least || c->call[nr] > l->most : c->call[nr])
			good = false;
	}
	for (int sig = 1; sig < SIGNALS; sig++) {
		const unsigned int least = sig == t->sig ? t->least : 0, most = sig == t->sig ? t->most : 0;

		if (c->sig[sig] || least)
			printf("# %s %u\n", strsignal(sig), c->sig[sig]);
		if (c->sig[sig] < least || c->sig[sig] > most)
			good = false;
	}
	return good;
}

/* What runs user code: all processes below the guest process. */
static struct {
	pid_t skip, pid[PROCESSES];
	unsigned int n;
} below;

static void note_process(pid_t pid, void *arg)
{
	(void)arg;
	if (pid == below.skip)
		return;
	if (below.n == PROCESSES)
		die("too many processes");
	below.pid[below.n++] = pid;
}

static uint64_t list_processes(pid_t k)
{
	uint64_t hash = 0;

	below.skip = k;
	below.n = 0;
	for_each_process(k, note_process, NULL);
	for (unsigned int i = 0; i < below.n; i++)
		hash = hash * 1000003 + (uint64_t)below.pid[i];
	return hash;
}

static void seize_thread(pid_t pid, pid_t tid, void *arg)
{
	(void)pid, (void)arg;
	if (ptrace(PTRACE_SEIZE, tid, 0, 0))
		die("thread %d cannot be traced: %s", (int)tid, strerror(errno));
}

static void release_thread(pid_t pid, pid_t tid, void *arg)
{
	int status;

	(void)pid, (void)arg;
	ptrace(PTRACE_INTERRUPT, tid, 0, 0);
	if (waitpid(tid, &status, __WALL) != tid || ptrace(PTRACE_DETACH, tid, 0, 0))
		die("thread %d cannot be released: %s", (int)tid, strerror(errno));
}

/* Signals of all that runs user code, while one operation is prepared, done and undone. */
static void watch(struct link *l, const char *op, struct counts *c)
{
	struct pollfd answer = { .fd = l->out, .events = POLLIN };
	unsigned int ms = 0;
	char text[64];
	int status;
	pid_t tid;

	for (unsigned int i = 0; i < below.n; i++)
		for_each_thread(below.pid[i], seize_thread, NULL);
	snprintf(text, sizeof(text), "%s 1 0\n", op);
	link_send(l, text);
	while (poll(&answer, 1, 0) == 0) {
		while ((tid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
			int sig = WSTOPSIG(status);

			if (!WIFSTOPPED(status))
				die("process %d ended, wait status %#x", (int)tid, (unsigned int)status);
			if (status >> 16)
				sig = 0; /* a stop of ptrace's own */
			else if (sig < SIGNALS)
				c->sig[sig]++;
			if (ptrace(PTRACE_CONT, tid, 0, sig))
				die("ptrace: %s", strerror(errno));
		}
		if (ms++ > SECONDS * 10000)
			die("%s did not end", op);
		usleep(100);
	}
	for (unsigned int i = 0; i < below.n; i++)
		for_each_thread(below.pid[i], release_thread, NULL);
	if (strncmp(link_line(l), op, strlen(op)))
		die("the guest answers something else");
}

static bool user_test(struct link *l, pid_t k, const struct user_test *t)
{
	struct counts c = { .marks = 0 };
	uint64_t min, median, before;
	bool good;

	/* The first time processes are made. */
	link_ask(l, t->op, 1, &min, &median);
	before = list_processes(k);
	watch(l, t->op, &c);
	good = list_processes(k) == before;
	if (!good)
		printf("# processes came or went\n");
	printf("# in %u processes: %u SIGSYS, %u SIGSEGV\n", below.n, c.sig[SIGSYS], c.sig[SIGSEGV]);
	good &= c.sig[SIGSYS] == t->calls && c.sig[SIGSEGV] >= t->least && c.sig[SIGSEGV] <= t->most;
	/* Before pages are taken away from a space, the host makes sure with SIGUSR2 that its user code sleeps. */
	for (int sig = 1; sig < SIGNALS; sig++)
		if (c.sig[sig] && sig != SIGSYS && sig != SIGSEGV) {
			printf("# %s %u\n", strsignal(sig), c.sig[sig]);
			good &= sig == SIGUSR2 && c.sig[sig] <= t->resets;
		}
	return good;
}

int main(int argc, char **argv)
{
	char *const boot[] = { argv[1], "run", "--backend", "ring3", "--mem", "128M", argv[2], NULL };
	static struct counts c;
	struct link l;
	int bad = 0;
	pid_t k;

	if (argc != 3) {
		fprintf(stderr, "usage: count KEEL GUEST\n");
		return 126;
	}
	link_start(&l, "the guest", boot, NULL);
	k = guest_process(l.pid);
	printf("KTAP version 1\n1..%zu\n", TESTS + USER_TESTS);
	for (size_t i = 0; i < TESTS; i++) {
		bool good;

		trace(&l, k, &tests[i], &c);
		good = judge(&tests[i], &c);
		printf("%s %zu %s\n", good ? "ok" : "not ok", i + 1, tests[i].name);
		bad |= !good;
	}
	for (size_t i = 0; i < USER_TESTS; i++) {
		bool good = user_test(&l, k, &user_tests[i]);

		printf("%s %zu %s\n", good ? "ok" : "not ok", TESTS + i + 1, user_tests[i].name);
		bad |= !good;
	}
	link_stop(&l);
	return bad;
}
