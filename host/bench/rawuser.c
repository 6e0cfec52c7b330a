// SPDX-License-Identifier: MIT
/*
 * User code in processes U, told what to do by the raw program, K. A system call
 * of U is a SIGSYS by seccomp, a page fault a SIGSEGV; the handler hands over to K
 * through a word of shared memory, waits for its turn, and returns by xrstor and
 * iretq. A third task, M, shares U's memory and maps pages for K. No register is
 * copied and no argument checked: what is left is what the kernel takes. As on the
 * other side, K has a GS base and U has none.
 */
#define _GNU_SOURCE
#include "rawuser.h"

#include <asm/prctl.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "engine.h"

#define STACK (UINT64_C(64) << 10)

enum { K, U };

/* Shared by K, U and M of one process. */
struct lane {
	uint32_t turn __attribute__((aligned(64))); /* K or U */
	uint32_t asleep[2] __attribute__((aligned(64)));
	uint32_t spin; /* instead of sleeping */

	/* Why U stopped, and its registers: K may change them. */
	ucontext_t *regs __attribute__((aligned(64)));
	uint64_t addr;
	int sig;

	/* For M, which answers by waking U or with `done`. */
	uint32_t seq __attribute__((aligned(64)));
	uint32_t done;
	bool wake_user;
	long call[7];

	uint8_t stack[STACK] __attribute__((aligned(64)));
};

static struct lane *lanes; /* SPACES of them */
static unsigned int made;
static int own_cpu, user_cpu, ram_fd, answer = -1;

static uint32_t load(uint32_t *at)
{
	return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}

static void store(uint32_t *at, uint32_t value)
{
	__atomic_store_n(at, value, __ATOMIC_SEQ_CST);
}

static void give(struct lane *l, uint32_t to)
{
	store(&l->turn, to);
	if (load(&l->asleep[to]))
		futex_wake(&l->turn);
}

static void await(struct lane *l, uint32_t me)
{
	while (load(&l->turn) != me) {
		if (load(&l->spin)) {
			__asm__ volatile("pause");
			continue;
		}
		store(&l->asleep[me], 1);
		if (load(&l->turn) != me)
			futex_wait(&l->turn, !me);
		store(&l->asleep[me], 0);
	}
}

/*
 * A guest kernel has its vCPU's page there, user code nothing. Where the processor has no
 * instruction for it, that makes switching between the two dearer.
 */
static void set_gs(uint64_t base)
{
	if (syscall(SYS_arch_prctl, ARCH_SET_GS, base))
		fail("arch_prctl");
}

/* U */

static struct lane *mine;

__attribute__((used)) static void stopped(ucontext_t *regs, const siginfo_t *si)
{
	mine->regs = regs;
	mine->sig = si->si_signo;
	mine->addr = (uint64_t)si->si_addr;
	give(mine, K);
	await(mine, U);
}

/* Offsets in a ucontext_t are the kernel's ABI. */
void on_stop(void);
__asm__(".pushsection .text\n"
	".type on_stop, @function\n"
	"on_stop:\n"
	"	mov %rdx, %rbx\n"
	"	mov %rdx, %rdi\n"
	"	push %rax\n" /* aligns the stack */
	"	call stopped\n"
	"	mov 224(%rbx), %rdi\n"
	"	mov $-1, %eax\n"
	"	mov $-1, %edx\n"
	"	xrstor64 (%rdi)\n"
	"	pushq $0x2b\n"
	"	pushq 160(%rbx)\n" /* rsp */
	"	pushq 176(%rbx)\n" /* rflags */
	"	pushq $0x33\n"
	"	pushq 168(%rbx)\n" /* rip */
	"	mov 40(%rbx), %r8\n"
	"	mov 48(%rbx), %r9\n"
	"	mov 56(%rbx), %r10\n"
	"	mov 64(%rbx), %r11\n"
	"	mov 72(%rbx), %r12\n"
	"	mov 80(%rbx), %r13\n"
	"	mov 88(%rbx), %r14\n"
	"	mov 96(%rbx), %r15\n"
	"	mov 104(%rbx), %rdi\n"
	"	mov 112(%rbx), %rsi\n"
	"	mov 120(%rbx), %rbp\n"
	"	mov 136(%rbx), %rdx\n"
	"	mov 144(%rbx), %rax\n"
	"	mov 152(%rbx), %rcx\n"
	"	mov 128(%rbx), %rbx\n"
	"	iretq\n"
	".size on_stop, . - on_stop\n"
	".popsection\n");

static int mapper(void *arg)
{
	struct lane *l = arg;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin(own_cpu);
	for (uint32_t seen = 0;; seen++) {
		while (load(&l->seq) == seen)
			futex_wait(&l->seq, seen);
		if (syscall(l->call[0], l->call[1], l->call[2], l->call[3], l->call[4], l->call[5], l->call[6]) == -1)
			fail("mapper");
		store(&l->done, seen + 1);
		if (l->wake_user)
			futex_wake(&l->turn);
		else
			eventfd_write(answer, 1);
	}
}

static _Noreturn void user(struct lane *l, pid_t parent)
{
	struct sock_filter filter[] = { BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
					BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, BENCH_CALL, 0, 1),
					BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
					BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
	struct sock_fprog prog = { sizeof(filter) / sizeof(filter[0]), filter };
	struct sigaction sa = { .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	stack_t ss = { .ss_sp = l->stack, .ss_size = STACK };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	pin(user_cpu);
	set_gs(0);
	mine = l;
	if (l == lanes) {
		static uint8_t stack[STACK] __attribute__((aligned(16)));

		if (clone(mapper, stack + STACK, CLONE_VM | SIGCHLD, l) < 0)
			fail("clone");
	}
	sa.sa_handler = (void (*)(int))on_stop;
	if (sigaltstack(&ss, NULL) || sigaction(SIGSYS, &sa, NULL) || sigaction(SIGSEGV, &sa, NULL))
		fail("sigaction");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog))
		fail("seccomp");
	((void (*)(void))(uintptr_t)bench_user)();
	_exit(1);
}

/* K */

/* Lets U go on. Returns false when a page fault is why it stopped. */
static bool enter(struct lane *l)
{
	give(l, U);
	await(l, K);
	return l->sig == SIGSYS;
}

void user_setup(int cpu, int peer_cpu, int ram)
{
	set_gs((uint64_t)&made);
	own_cpu = cpu;
	user_cpu = peer_cpu;
	ram_fd = ram;
}

/* Each has made a first call when this returns. */
static void make(unsigned int n)
{
	const pid_t parent = getpid();

	if (!lanes) {
		lanes = mmap(NULL, SPACES * sizeof(*lanes), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		answer = eventfd(0, EFD_CLOEXEC);
		if (lanes == MAP_FAILED || answer < 0)
			fail("user processes");
	}
	for (; made < n; made++) {
		struct lane *l = &lanes[made];
		pid_t pid;

		l->turn = U;
		pid = fork();
		if (pid < 0)
			fail("fork");
		if (!pid)
			user(l, parent);
		await(l, K);
		l->regs->uc_mcontext.gregs[REG_RSI] = 0;
		l->regs->uc_mcontext.gregs[REG_R8] = 0;
	}
}

void user_prepare(void)
{
	make(1);
}

void user_prepare_spin(void)
{
	make(1);
	store(&lanes->spin, 1);
	enter(lanes);
}

void user_finish_spin(void)
{
	store(&lanes->spin, 0);
}

void user_prepare_spaces(void)
{
	make(SPACES);
}

uint64_t user_run_call(void)
{
	for (int i = 0; i < PER_ENTER; i++)
		enter(lanes);
	return 0;
}

uint64_t user_run_spaces(void)
{
	for (int i = 0; i < PER_SPACES; i++)
		enter(&lanes[i % SPACES]);
	return 0;
}

/* A command for M. Where it wakes U, the turn is U's already. */
static void command(struct lane *l, bool wake_user)
{
	uint64_t value;

	l->wake_user = wake_user;
	store(&l->seq, l->seq + 1);
	futex_wake(&l->seq);
	if (!wake_user && eventfd_read(answer, &value))
		fail("eventfd");
}

static void set_map(struct lane *l, uint64_t va, uint64_t len)
{
	const long call[7] = { SYS_mmap,
			       (long)va,
			       (long)len,
			       PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_FIXED | MAP_POPULATE,
			       ram_fd,
			       (long)(AREA_GPA + (va - AREA_VA)) };

	for (int i = 0; i < 7; i++)
		l->call[i] = call[i];
}

/* U writes to `pages` pages and has `around` of them mapped at each fault. */
static void faults(uint64_t pages, uint64_t distance, uint64_t around, bool wake_user)
{
	struct lane *l = lanes;
	greg_t *regs = l->regs->uc_mcontext.gregs;
	bool done;

	regs[REG_RDI] = (greg_t)AREA_VA;
	regs[REG_RSI] = (greg_t)pages;
	regs[REG_RDX] = (greg_t)distance;
	done = enter(l);
	while (!done) {
		/* U may have found its turn before it slept, and come back before M was through. */
		while (load(&l->done) != l->seq)
			sched_yield();
		set_map(l, l->addr & ~(around * BENCH_PAGE - 1), around * BENCH_PAGE);
		if (wake_user) {
			store(&l->turn, U);
			command(l, true);
			await(l, K);
			done = l->sig == SIGSYS;
		} else {
			command(l, false);
			done = enter(l);
		}
	}
}

uint64_t user_run_fault(void)
{
	faults(PER_FAULT, 2 * BENCH_PAGE, 1, true);
	return 0;
}

uint64_t user_run_fault_k(void)
{
	faults(PER_FAULT, 2 * BENCH_PAGE, 1, false);
	return 0;
}

uint64_t user_run_refill(void)
{
	faults(AREA_PAGES, BENCH_PAGE, REFILL, true);
	return 0;
}

uint64_t user_run_refill_k(void)
{
	faults(AREA_PAGES, BENCH_PAGE, REFILL, false);
	return 0;
}

void user_forget(void)
{
	struct lane *l = lanes;

	l->regs->uc_mcontext.gregs[REG_RSI] = 0;
	l->call[0] = SYS_munmap;
	l->call[1] = (long)AREA_VA;
	l->call[2] = (long)SCATTER_SPAN(AREA_PAGES);
	command(l, false);
}

void user_forget_spin(void)
{
	user_forget();
	user_finish_spin();
}

uint64_t user_run_fork(void)
{
	for (int i = 0; i < PER_FORK; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			fail("fork");
	}
	return 0;
}
