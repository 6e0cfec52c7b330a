// SPDX-License-Identifier: MIT
/*
 * Interrupts the ring3 backend's guest process at every instruction: a round of
 * step_guest.c is single-stepped once, through calls, traps, upcalls and the
 * monitor, to learn its way. Then an event with its kick arrives at the first
 * instruction, in the next round at the second, and so on. Then, at random
 * instructions, a second kick in the handler of the first. The guest checks its registers, this program that every
 * event is taken, once. KTAP on stdout.
 *
 * usage: step KEEL GUEST
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <keel/keel.h>

#include "step.h"

#ifndef TRAP_HWBKPT
#define TRAP_HWBKPT 4
#endif
#define SECONDS_NESTED 10
#define HANDLER_STEPS 700 /* about how long a signal handler is */
#define STEP_STRIDE 7
#define ROUND_MAX 20000 /* instructions; more is no round */
#define TF 0x100
#define OP_PUSHF 0x9c

static pid_t keel, guest;
static int mem = -1;
static uint64_t state_at;
static uint64_t sent;
static unsigned int strays;	/* steps nobody asked for */
static int stop_code;		/* si_code of the last SIGTRAP */
static uint64_t way[ROUND_MAX]; /* rip, instruction by instruction */
static unsigned int tests;
static bool breakpoints = true; /* this machine's debug registers work; a paravirtual one's may not */

static _Noreturn void bail(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	if (keel > 0)
		kill(keel, SIGKILL);
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void peek(uint64_t at, void *to, size_t n)
{
	if (pread(mem, to, n, (off_t)at) != (ssize_t)n)
		bail("reading the guest process's memory");
}

static void poke(uint64_t at, const void *from, size_t n)
{
	if (pwrite(mem, from, n, (off_t)at) != (ssize_t)n)
		bail("writing the guest process's memory");
}

static struct step_state state(void)
{
	struct step_state s;

	peek(state_at, &s, sizeof(s));
	return s;
}

/* The kernel takes the flag it steps with for the guest's own after some instructions. */
static void registers(struct user_regs_struct *r)
{
	if (ptrace(PTRACE_GETREGS, guest, NULL, r))
		bail("PTRACE_GETREGS");
	if (!(r->eflags & TF))
		return;
	r->eflags &= ~(uint64_t)TF;
	if (ptrace(PTRACE_SETREGS, guest, NULL, r))
		bail("PTRACE_SETREGS");
}

/* Wait for the next stop. Returns its signal; *sync: it is the int3 that opens a round. */
static int next_stop(bool *sync)
{
	struct user_regs_struct r;
	siginfo_t si;
	int status;

	*sync = false;
	if (waitpid(guest, &status, __WALL) != guest)
		bail("waitpid");
	if (!WIFSTOPPED(status)) {
		errno = 0;
		bail("the guest process died");
	}
	if (WSTOPSIG(status) != SIGTRAP || ptrace(PTRACE_GETSIGINFO, guest, NULL, &si))
		return WSTOPSIG(status);
	stop_code = si.si_code;
	if (si.si_code != SI_KERNEL)
		return SIGTRAP;
	registers(&r);
	*sync = r.rax == STEP_MAGIC;
	if (*sync)
		state_at = r.rdi;
	return SIGTRAP;
}

/* Stops that are the tracer's doing are not passed on. */
static int pass(int sig)
{
	return sig == SIGTRAP ? 0 : sig;
}

static void hide_tf(uint64_t at)
{
	uint64_t flags;

	peek(at, &flags, 8);
	flags &= ~(uint64_t)TF;
	poke(at, &flags, 8);
}

/*
 * One instruction; sig is delivered first. Its handler's first instruction is a stop
 * too. The flag that makes the guest step shows in what pushf pushes and, before an
 * instruction that loads flags, in the signal frame; nothing here sets it for real.
 */
static int step(int sig, bool *sync)
{
	struct user_regs_struct r;
	uint8_t op;
	int stop;

	registers(&r);
	if (pread(mem, &op, 1, (off_t)r.rip) != 1)
		op = 0; /* it is going to fault */
	if (ptrace(PTRACE_SINGLESTEP, guest, NULL, (long)sig))
		bail("PTRACE_SINGLESTEP");
	stop = next_stop(sync);
	if (stop == SIGTRAP && !*sync && (sig || op == OP_PUSHF)) {
		registers(&r);
		hide_tf(sig ? r.rdx + offsetof(ucontext_t, uc_mcontext.gregs[REG_EFL]) : r.rsp);
	}
	return stop;
}

static int run(int sig, bool *sync)
{
	struct user_regs_struct r;

	registers(&r);
	if (ptrace(PTRACE_CONT, guest, NULL, (long)sig))
		bail("PTRACE_CONT");
	return next_stop(sync);
}

/* At least n instructions on, or to the opening of a round. Returns the signal of the stop. */
static int step_into(unsigned long n, int stop, bool *sync)
{
	*sync = false;
	for (unsigned long i = 0; i < n && !*sync; i++)
		stop = step(pass(stop), sync);
	return stop;
}

/* Run until the next round opens; sig is delivered first. */
static void finish(int sig)
{
	bool sync = false;
	int stop = run(sig, &sync);

	while (!sync) {
		strays += stop == SIGTRAP;
		stop = run(pass(stop), &sync);
	}
}

/* What the host does to raise an event, short of the kick. The guest is stopped, so plain stores will do. */
static void send(const struct step_state *s)
{
	const uint64_t word_at = s->vcpu + KEEL_VCPU_EVENT_PENDING + s->bit / 64 * 8;
	uint64_t word, pending;

	peek(word_at, &word, 8);
	if (word >> s->bit % 64 & 1)
		return; /* coalesced */
	word |= UINT64_C(1) << s->bit % 64;
	poke(word_at, &word, 8);
	peek(s->vcpu + KEEL_VCPU_PENDING, &pending, 8);
	pending |= UINT64_C(1) << s->bit / 64;
	poke(s->vcpu + KEEL_VCPU_PENDING, &pending, 8);
	sent++;
}

/* A kick on top of whatever the guest is stopped at; the signal to go on with. */
static int kick(int stop)
{
	if (!pass(stop))
		return SIGUSR1;
	kill(guest, SIGUSR1);
	return stop;
}

/* At the opening of a round: did the last one go well? Says so when not. */
static bool good(const char *where, unsigned long n, unsigned long m)
{
	struct step_state s = state();

	if (!s.bad && s.taken == sent && !strays)
		return true;
	printf("# %s %lu+%lu: check %#llx failed, %llu events of %llu taken, %u stray steps\n", where, n, m,
	       (unsigned long long)s.bad, (unsigned long long)s.taken, (unsigned long long)sent, strays);
	return false;
}

static bool result(bool ok, const char *name)
{
	printf("%sok %u - %s\n", ok ? "" : "not ", ++tests, name);
	fflush(stdout);
	return ok;
}

/* Step through a round from its opening to the next. Returns its length; 0 when the guest noticed. */
static unsigned long learn(void)
{
	struct user_regs_struct r;
	unsigned long n = 0;
	bool sync = false;
	int stop = SIGTRAP;

	while (!sync && n < ROUND_MAX) {
		registers(&r);
		way[n++] = r.rip;
		stop = step(pass(stop), &sync);
	}
	printf("# %lu instructions a round\n", n);
	return sync && good("stepping", n, 0) ? n : 0;
}

/* An execution breakpoint; 0 takes it away. */
static bool breakpoint(uint64_t at)
{
	return !ptrace(PTRACE_POKEUSER, guest, offsetof(struct user, u_debugreg[7]), 0) &&
	       !ptrace(PTRACE_POKEUSER, guest, offsetof(struct user, u_debugreg[0]), at) &&
	       (!at || !ptrace(PTRACE_POKEUSER, guest, offsetof(struct user, u_debugreg[7]), 1));
}

/* From the opening of a round to its n-th instruction. Returns the signal of the stop; *sync: it went another way. */
static int go(unsigned long n, bool *sync)
{
	unsigned long hits = 1;
	int stop = SIGTRAP;

	/* A string instruction steps many times and is one place. */
	for (unsigned long i = 1; i < n; i++)
		hits += way[i] == way[n] && way[i - 1] != way[i];
	*sync = false;
	if (!n)
		return stop;
	if (!breakpoints)
		return step_into(n, stop, sync);
	if (!breakpoint(way[n]))
		bail("debug registers");
	while (hits && !*sync) {
		stop = run(pass(stop), sync);
		hits -= stop == SIGTRAP && stop_code == TRAP_HWBKPT;
	}
	breakpoint(0);
	return stop;
}

/* Is a breakpoint in the middle of a round ever hit? Now and then a round goes another way. */
static bool try_breakpoints(unsigned long length)
{
	bool missed = true;

	for (int i = 0; i < 5 && missed; i++) {
		int stop = go(length / 2, &missed);

		if (!missed)
			finish(pass(stop));
	}
	return !missed;
}

static bool each_instruction(unsigned long length)
{
	const struct step_state s = state();
	/* Stepping there takes long: then every so many instructions, from another start each time this is run. */
	const unsigned long stride = breakpoints ? 1 : STEP_STRIDE;
	unsigned long other = 0;

	for (unsigned long n = (unsigned long)getpid() % stride; n < length; n += stride) {
		bool sync;
		int stop;

		if (n && way[n] == way[n - 1])
			continue;
		stop = go(n, &sync);
		other += sync;
		send(&s);
		finish(kick(stop));
		if (!good("instruction", n, way[n]))
			return false;
	}
	printf("# %lu rounds went another way\n", other);
	return other < length / 10;
}

static unsigned long dice(unsigned long below)
{
	static uint64_t x = 88172645463325252;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x % below;
}

static bool nested(unsigned long length)
{
	const struct step_state s = state();
	double end = now() + SECONDS_NESTED;
	unsigned long rounds = 0;

	for (; now() < end; rounds++) {
		unsigned long n = dice(length), m = dice(HANDLER_STEPS);
		bool sync;
		int stop = go(n, &sync);

		send(&s);
		stop = step(kick(stop), &sync);
		if (!sync)
			stop = step_into(m, stop, &sync);
		/* At an opening the first event may be taken already: then this is another one. */
		send(&s);
		finish(kick(stop));
		if (!good("instructions", n, m))
			return false;
	}
	printf("# %lu rounds\n", rounds);
	return true;
}

/* keel run GUEST, up to its first line of output. */
static void start(const char *program, const char *image)
{
	char line[16] = "", path[64];
	int out[2];
	FILE *f;

	if (pipe2(out, O_CLOEXEC))
		bail("pipe");
	keel = fork();
	if (keel < 0)
		bail("fork");
	if (!keel) {
		dup2(out[1], STDOUT_FILENO);
		execl(program, program, "run", "--backend", "ring3", "--core", "none", "--timeout", "55", image, NULL);
		_exit(127);
	}
	close(out[1]);
	f = fdopen(out[0], "r");
	if (!f || !fgets(line, sizeof(line), f) || strcmp(line, "ready\n")) {
		errno = 0;
		bail("the guest did not start");
	}
	/* The child of the host's keeper. */
	guest = keel;
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)guest, (int)guest);
		f = fopen(path, "re");
		if (!f || fscanf(f, "%d", &guest) != 1)
			bail("finding the guest process");
		fclose(f);
	}
}

static bool attach(void)
{
	char path[64];
	bool sync = false;
	int stop;

	if (ptrace(PTRACE_SEIZE, guest, NULL, NULL))
		return false;
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)guest);
	mem = open(path, O_RDWR | O_CLOEXEC);
	if (mem < 0 || ptrace(PTRACE_INTERRUPT, guest, NULL, NULL))
		bail("stopping the guest process");
	stop = next_stop(&sync);
	/* A few rounds, until every page is where it is needed. */
	for (int i = 0; i < 5; i++)
		do
			stop = run(pass(stop), &sync);
		while (!sync);
	return true;
}

int main(int argc, char **argv)
{
	unsigned long length = 0;
	const uint32_t one = 1;
	bool ok = true;
	int status;

	if (argc != 3) {
		fprintf(stderr, "usage: step KEEL GUEST\n");
		return 2;
	}
	printf("KTAP version 1\n1..4\n");
	start(argv[1], argv[2]);
	if (!attach()) {
		for (int i = 1; i <= 4; i++)
			printf("ok %d # SKIP no permission to trace the guest process\n", i);
		kill(keel, SIGKILL);
		return 0;
	}
	length = learn();
	ok &= result(length, "a round in single steps");
	breakpoints = length && try_breakpoints(length);
	if (!breakpoints)
		printf("# no breakpoints here: stepping to every %dth instruction\n", STEP_STRIDE);
	ok &= result(length && each_instruction(length), "an upcall at each instruction");
	ok &= result(length && nested(length), "a kick in the handler of another");
	poke(state_at + offsetof(struct step_state, stop), &one, sizeof(one));
	ptrace(PTRACE_DETACH, guest, NULL, NULL);
	if (waitpid(keel, &status, 0) != keel)
		bail("waitpid");
	ok &= result(WIFEXITED(status) && !WEXITSTATUS(status), "the guest ends well");
	return ok ? 0 : 1;
}
