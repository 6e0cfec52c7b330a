// SPDX-License-Identifier: MIT
/*
 * The raw primitives: what the guest's operations come down to, done by a plain
 * program without sandbox, pinned to one processor. Same lines, same memory, same
 * addresses as guest.c.
 *
 *	raw CPU PEER_CPU RAM	answer lines; the peer of the hand-offs runs on PEER_CPU; RAM is the
 *				file of the guest's memory: both sides work on the same pages
 *	raw nothing		end at once
 *	(as process 1)		measure a few things inside user-mode-linux, then power off
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "rawuser.h"

#define NS_PER_S UINT64_C(1000000000)
#define PEER_FORKS 40

static int ram = -1;
static timer_t timer;
static volatile uint64_t fired_late, deadline;

_Noreturn void fail(const char *what)
{
	perror(what);
	_exit(1);
}

void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("sched_setaffinity");
}

/* A call that saves what the gate's caller may keep: all but rax, rdx, rcx, r11 and rsp. */
void call_saving(void);
__asm__(".pushsection .text\n"
	".balign 64\n"
	".type call_saving, @function\n"
	"call_saving:\n"
	"	endbr64\n"
	"	push %rbx; push %rbp; push %rdi; push %rsi; push %r8; push %r9\n"
	"	push %r10; push %r12; push %r13; push %r14; push %r15\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12; pop %r10\n"
	"	pop %r9; pop %r8; pop %rsi; pop %rdi; pop %rbp; pop %rbx\n"
	"	ret\n"
	".size call_saving, . - call_saving\n"
	".popsection\n");

static uint64_t run_nop(void)
{
	void (*volatile fn)(void) = call_saving;

	for (int i = 0; i < PER_SHORT; i++)
		fn();
	return 0;
}

/* Mapping */

static void map(uint64_t va, uint64_t offset, uint64_t len, int flags)
{
	if (mmap((void *)va, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | flags, ram, (off_t)offset) !=
	    (void *)va)
		fail("mmap");
}

static void unmap(uint64_t va, uint64_t len)
{
	if (munmap((void *)va, len))
		fail("munmap");
}

static uint64_t run_map(void)
{
	map(AREA_VA, AREA_GPA, AREA_PAGES * BENCH_PAGE, MAP_POPULATE);
	return 0;
}

static void scatter(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		map(SCATTER_VA(i), SCATTER_GPA(i), BENCH_PAGE, 0);
}

static void unmap_area(void)
{
	unmap(AREA_VA, SCATTER_SPAN(AREA_PAGES));
}

static uint64_t run_scatter(void)
{
	scatter(AREA_PAGES);
	return 0;
}

static void prepare_unmap_few(void)
{
	scatter(RUNS_FEW);
}

static uint64_t run_unmap_few(void)
{
	unmap(AREA_VA, SCATTER_SPAN(RUNS_FEW));
	return 0;
}

static void prepare_unmap_many(void)
{
	scatter(AREA_PAGES);
}

static uint64_t run_unmap_many(void)
{
	unmap_area();
	return 0;
}

/* Faults */

static void on_fault(int sig, siginfo_t *si, void *uc)
{
	uint64_t va = (uint64_t)si->si_addr & ~(BENCH_PAGE - 1);

	(void)sig, (void)uc;
	if (va < AREA_VA || va >= AREA_VA + SCATTER_SPAN(AREA_PAGES))
		_exit(1);
	map(va, AREA_GPA + (va - AREA_VA), BENCH_PAGE, MAP_POPULATE);
}

static uint64_t run_fault(void)
{
	for (unsigned int i = 0; i < PER_FAULT; i++)
		*(volatile uint64_t *)SCATTER_VA(i) = i;
	return 0;
}

/* Memory accesses */

static uint64_t word __attribute__((aligned(64)));

static uint64_t run_mask(void)
{
	for (int i = 0; i < PER_SHORT; i++) {
		__atomic_fetch_or(&word, 2, __ATOMIC_SEQ_CST);
		__atomic_fetch_and(&word, ~UINT64_C(2), __ATOMIC_SEQ_CST);
	}
	return 0;
}

static uint64_t run_irq(void)
{
	volatile uint8_t *flag = (volatile uint8_t *)&word;

	for (int i = 0; i < PER_SHORT; i++) {
		*flag = 0;
		*flag = 1;
	}
	return 0;
}

/* Without its TSC no clock can be read: that is part of the access. */
static uint64_t run_clock(void)
{
	static volatile uint64_t page[8] __attribute__((aligned(64)));

	for (int i = 0; i < PER_SHORT; i++) {
		for (unsigned int k = 0; k < 7; k++)
			(void)page[k];
		engine_tsc();
	}
	return 0;
}

/* Timer */

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void on_timer(int sig)
{
	(void)sig;
	fired_late = now() - deadline + 1;
}

static void arm(void)
{
	struct itimerspec it = { 0 };

	fired_late = 0;
	deadline = now() + TIMER_AHEAD_NS;
	it.it_value.tv_sec = (time_t)(deadline / NS_PER_S);
	it.it_value.tv_nsec = (long)(deadline % NS_PER_S);
	if (timer_settime(timer, TIMER_ABSTIME, &it, NULL))
		fail("timer_settime");
}

static uint64_t run_timer_idle(void)
{
	sigset_t held, none;

	sigemptyset(&none);
	sigemptyset(&held);
	sigaddset(&held, SIGUSR2);
	sigprocmask(SIG_BLOCK, &held, NULL);
	arm();
	while (!fired_late)
		sigsuspend(&none);
	sigprocmask(SIG_UNBLOCK, &held, NULL);
	return fired_late;
}

static uint64_t run_timer_busy(void)
{
	arm();
	while (!fired_late)
		__asm__ volatile("pause");
	return fired_late;
}

/* Hand-offs to another process and back */

enum hand { HAND_NONE, HAND_SPIN, HAND_YIELD, HAND_FUTEX };

static struct {
	uint32_t hand __attribute__((aligned(64))); /* what the peer shall do, and... */
	uint32_t ready;				    /* ...does */
	uint32_t turn __attribute__((aligned(64))); /* 1: the peer's */
} * shared;

void futex_wait(uint32_t *at, uint32_t value)
{
	syscall(SYS_futex, at, FUTEX_WAIT, value, NULL, NULL, 0);
}

void futex_wake(uint32_t *at)
{
	syscall(SYS_futex, at, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static uint32_t load(uint32_t *at)
{
	return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

static void store(uint32_t *at, uint32_t value)
{
	__atomic_store_n(at, value, __ATOMIC_SEQ_CST);
}

static _Noreturn void peer(void)
{
	for (;;) {
		uint32_t hand = load(&shared->hand);

		if (load(&shared->ready) != hand)
			store(&shared->ready, hand);
		if (hand == HAND_NONE) {
			futex_wait(&shared->hand, HAND_NONE);
			continue;
		}
		if (hand == HAND_FUTEX && !load(&shared->turn))
			futex_wait(&shared->turn, 0);
		if (load(&shared->turn)) {
			store(&shared->turn, 0);
			if (hand == HAND_FUTEX)
				futex_wake(&shared->turn);
		}
		if (hand == HAND_YIELD)
			sched_yield();
	}
}

static void engage(enum hand hand)
{
	store(&shared->hand, hand);
	futex_wake(&shared->hand);
	while (load(&shared->ready) != hand) {
		futex_wake(&shared->turn);
		sched_yield();
	}
}

static void prepare_spin(void)
{
	engage(HAND_SPIN);
}

static void prepare_yield(void)
{
	engage(HAND_YIELD);
}

static void prepare_futex(void)
{
	engage(HAND_FUTEX);
}

static void finish_hand(void)
{
	engage(HAND_NONE);
}

static uint64_t run_spin(void)
{
	for (int i = 0; i < PER_PING; i++) {
		store(&shared->turn, 1);
		while (load(&shared->turn))
			;
	}
	return 0;
}

static uint64_t run_yield(void)
{
	for (int i = 0; i < PER_PING; i++) {
		store(&shared->turn, 1);
		while (load(&shared->turn))
			sched_yield();
	}
	return 0;
}

static uint64_t run_futex(void)
{
	for (int i = 0; i < PER_PING; i++) {
		store(&shared->turn, 1);
		futex_wake(&shared->turn);
		while (load(&shared->turn))
			futex_wait(&shared->turn, 1);
	}
	return 0;
}

/* Native speed */

static uint64_t run_cpu(void)
{
	work_cpu(200000);
	return 0;
}

static uint64_t run_memory(void)
{
	work_memory((uint64_t *)LOOP_VA, LOOP_BYTES / 8, 20000);
	return 0;
}

/* Long enough for one hand-off more not to count. */
static uint64_t run_user_cpu(void)
{
	work_cpu(USER_CPU);
	return 0;
}

/* Nobody waits for it. */
static uint64_t run_eventfd(void)
{
	static int fd = -1;

	if (fd < 0)
		fd = eventfd(0, EFD_CLOEXEC);
	for (int i = 0; i < PER_PING; i++)
		if (eventfd_write(fd, 1))
			fail("eventfd");
	return 0;
}

static const struct op ops[] = {
	{ "nop", NULL, run_nop, NULL },
	{ "map", NULL, run_map, unmap_area },
	{ "scatter", NULL, run_scatter, unmap_area },
	{ "unmap_few", prepare_unmap_few, run_unmap_few, NULL },
	{ "unmap_many", prepare_unmap_many, run_unmap_many, NULL },
	{ "fault", NULL, run_fault, unmap_area },
	{ "mask", NULL, run_mask, NULL },
	{ "irq", NULL, run_irq, NULL },
	{ "clock", NULL, run_clock, NULL },
	{ "timer_idle", NULL, run_timer_idle, NULL },
	{ "timer_busy", NULL, run_timer_busy, NULL },
	{ "spin", prepare_spin, run_spin, finish_hand },
	{ "yield", prepare_yield, run_yield, finish_hand },
	{ "futex", prepare_futex, run_futex, finish_hand },
	{ "eventfd", NULL, run_eventfd, NULL },
	{ "cpu", NULL, run_cpu, NULL },
	{ "memory", NULL, run_memory, NULL },
	{ "user_call", user_prepare, user_run_call, NULL },
	{ "user_spin", user_prepare_spin, user_run_call, user_finish_spin },
	{ "user_fault", user_prepare, user_run_fault, user_forget },
	{ "user_fault_k", user_prepare, user_run_fault_k, user_forget },
	{ "user_fault_spin", user_prepare_spin, user_run_fault_k, user_forget_spin },
	{ "user_refill", user_prepare, user_run_refill, user_forget },
	{ "user_refill_k", user_prepare, user_run_refill_k, user_forget },
	{ "user_refill_spin", user_prepare_spin, user_run_refill_k, user_forget_spin },
	{ "user_spaces", user_prepare_spaces, user_run_spaces, NULL },
	{ "user_fork", NULL, user_run_fork, NULL },
	{ "user_cpu", NULL, run_user_cpu, NULL },
	{ NULL, NULL, NULL, NULL },
};

static void setup(int cpu, int peer_cpu, const char *file)
{
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2 };
	struct sigaction sa = { .sa_handler = on_timer };
	pid_t pid, parent = getpid();

	shared = mmap(NULL, BENCH_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		fail("mmap");
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(0);
		pin(peer_cpu);
		peer();
	}
	pin(cpu);

	ram = open(file, O_RDWR | O_CLOEXEC);
	if (ram < 0)
		fail(file);
	map(LOOP_VA, LOOP_GPA, LOOP_BYTES, MAP_POPULATE);
	user_setup(cpu, peer_cpu, ram);

	if (sigaction(SIGUSR2, &sa, NULL) || timer_create(CLOCK_MONOTONIC, &ev, &timer))
		fail("timer");
	sa.sa_flags = SA_SIGINFO;
	sa.sa_sigaction = on_fault;
	if (sigaction(SIGSEGV, &sa, NULL))
		fail("sigaction");
}

/* Inside user-mode-linux: what a system call, a page fault and a process cost there. */
static _Noreturn void peer_kernel(void)
{
	uint64_t call = UINT64_MAX, fault = UINT64_MAX, family = UINT64_MAX, t;
	volatile char *page =
		mmap(NULL, AREA_PAGES * BENCH_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (int i = 0; i < AREA_PAGES; i++) {
		t = engine_tsc();
		syscall(SYS_getppid);
		t = engine_tsc() - t;
		call = t < call ? t : call;
		t = engine_tsc();
		page[(uint64_t)i * BENCH_PAGE] = 1;
		t = engine_tsc() - t;
		fault = t < fault ? t : fault;
	}
	for (int i = 0; i < PEER_FORKS; i++) {
		t = engine_tsc();
		user_run_fork();
		t = (engine_tsc() - t) / PER_FORK;
		family = t < family ? t : family;
	}
	printf("peer %lu %lu %lu\n", call, fault, family);
	fflush(stdout);
	reboot(RB_POWER_OFF);
	_exit(1);
}

int main(int argc, char **argv)
{
	char line[ENGINE_LINE], reply[ENGINE_LINE];

	if (getpid() == 1)
		peer_kernel();
	if (argc == 2 && !strcmp(argv[1], "nothing"))
		return 0;
	if (argc != 4) {
		fprintf(stderr, "usage: raw CPU PEER_CPU RAM\n");
		return 126;
	}
	setup(atoi(argv[1]), atoi(argv[2]), argv[3]);
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] == 'q')
			return 0;
		fwrite(reply, 1, engine_answer(ops, NULL, line, reply), stdout);
		fflush(stdout);
	}
	return 0;
}
