/* SPDX-License-Identifier: MIT */
/*
 * N, the nursery: makes the processes U that run guest user code, each with a mapper
 * M, and takes their dead away.
 *
 * K forks it before it seals itself, so it is behind the same layers. No guest code
 * ever runs in it, and all it reads that a guest can write is the word of a pair that
 * says what is wanted of it. A U is a fork of N that gives up everything but u_entry.S,
 * its commands and its slots; M shares its memory and has the descriptors.
 */
#include <asm/siginfo.h>
#include <asm/signal.h>
#include <asm/unistd.h>
#include <linux/audit.h>
#include <linux/errno.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/wait.h>
#include <asm/prctl.h>

#include "../../monitor/monitor.h"
#include "k_sys.h"
#include "k_user.h"
#include "layout.h"

MON_SYMBOL void u_signal(int sig);
MON_SYMBOL void u_main_begin(struct u_slot *slot) __attribute__((noreturn));
MON_SYMBOL long u_clone(uint64_t flags, struct u_slot *slot, uint32_t *tid);
MON_SYMBOL long m_clone(uint64_t flags, struct u_slot *slot, uint32_t *tid);
MON_SYMBOL long n_fork(void *stack);
MON_SYMBOL void n_main(void);

/* Its own, like everything static: a fork of K has a copy. */
static uint8_t stack[8192] __attribute__((aligned(16)));
static struct sock_filter m_code[K_M_FILTER_MAX];
static uint32_t m_len, vcpus;
static uint64_t address_space;
static struct {
	int u, m; /* 0 = none */
} child[U_PAIRS];
static unsigned int children; /* of all pairs, as far as this process knows */

static struct u_head *head(void)
{
	return (struct u_head *)U_ARENA_VA;
}

static void __attribute__((noreturn)) quit(void)
{
	for (;;)
		sys1(__NR_exit_group, 98);
}

static void must(long err)
{
	if (err < 0)
		quit();
}

static void changed(void)
{
	__atomic_add_fetch(&head()->seq, 1, __ATOMIC_SEQ_CST);
	sys6(__NR_futex, (uint64_t)&head()->seq, FUTEX_WAKE, INT32_MAX, 0, 0, 0);
}

/* U, in its first moments a copy of N */

#define LOAD(what) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, what)
#define NR 0
#define ARCH 4
#define LOW(n) (16 + 8 * (n))
#define HIGH(n) (LOW(n) + 4)
#define IS(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
/* `left`: how many instructions are between this one and the refusal. */
#define WANT(what, value, left) LOAD(what), IS(value, 0, left)

/*
 * Of one thread: it can sleep on and wake its own hand-off word, and set its FS and GS
 * bases, each with arguments that no call of user code has by chance. Everything else
 * traps, which is how system calls reach the guest kernel.
 */
static unsigned int u_filter(struct sock_filter *to, const struct u_slot *slot)
{
	const uint64_t turn = (uint64_t)&slot->turn;
	const struct sock_filter code[] = {
		LOAD(NR),
		IS(__NR_futex, 2, 0),
		IS(__NR_arch_prctl, 8, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		/* futex(&turn, WAIT, 0) or (&turn, WAKE, 1) */
		WANT(LOW(0), (uint32_t)turn, 25),
		WANT(HIGH(0), turn >> 32, 23),
		LOAD(LOW(1)),
		IS(FUTEX_WAIT, 6, 0),
		IS(FUTEX_WAKE, 5, 20),
		/* arch_prctl(ARCH_SET_GS or ARCH_SET_FS, base) */
		LOAD(LOW(0)),
		IS(ARCH_SET_FS, 1, 0),
		IS(ARCH_SET_GS, 0, 17),
		LOAD(HIGH(0)),
		IS(0, 0, 15),
		/* both */
		WANT(ARCH, AUDIT_ARCH_X86_64, 13),
		WANT(LOW(3), 0, 11),
		WANT(HIGH(3), 0, 9),
		WANT(LOW(4), U_MAGIC, 7),
		WANT(LOW(5), U_MAGIC, 5),
		WANT(HIGH(4), 0, 3),
		WANT(HIGH(5), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
	};

	__builtin_memcpy(to, code, sizeof(code));
	return sizeof(code) / sizeof(code[0]);
}

static void limit(unsigned int what, uint64_t value)
{
	const struct rlimit64 l = { value, value };

	must(sys4(__NR_prlimit64, 0, what, (uint64_t)&l, 0));
}

static void map(uint64_t va, uint64_t len, int prot, uint64_t offset)
{
	if (sys6(__NR_mmap, va, len, prot, MAP_SHARED | MAP_FIXED, K_FD_ARENA, offset) != (long)va)
		quit();
}

static void __attribute__((noreturn)) u_main(unsigned int pair)
{
	static const uint8_t signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, U_SIG_KICK, U_SIG_RESET };
	const uint64_t off = U_HEAD_SIZE + (uint64_t)pair * U_PAIR_SIZE;
	struct u_slot *slot = (struct u_slot *)U_SLOT_VA;

	must(sys5(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
	map(U_PAIR_VA, U_CMD_SIZE, PROT_READ, off);
	map(U_SLOT_VA, (uint64_t)vcpus * U_SLOT_SIZE, PROT_READ | PROT_WRITE, off + U_CMD_SIZE);
	for (unsigned int i = 0; i < sizeof(signals); i++) {
		const struct {
			uint64_t handler, flags, restorer, mask;
		} sa = { (uint64_t)u_signal, SA_SIGINFO | SA_ONSTACK | SA_NODEFER | 0x04000000 /* SA_RESTORER */,
			 (uint64_t)quit, 0 };

		must(sys4(__NR_rt_sigaction, signals[i], (uint64_t)&sa, 0, 8));
	}
	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_MEMLOCK, 0);
	limit(RLIMIT_MSGQUEUE, 0);
	limit(RLIMIT_AS, address_space);
	for (unsigned int i = 0; i < vcpus; i++) {
		struct u_slot *s = (struct u_slot *)((uint8_t *)slot + (uint64_t)i * U_SLOT_SIZE);
		struct sock_filter *code = (struct sock_filter *)((uint8_t *)s + U_ALT_OFF);

		s->prog.code = (uint64_t)code;
		s->prog.len = u_filter(code, s);
		s->alt.sp = (uint64_t)s + U_ALT_OFF;
		s->alt.size = U_SLOT_SIZE - U_ALT_OFF;
	}
	/* Behind that program, where M has no stack to disturb it either. */
	slot->m_prog.code = slot->prog.code + 0x1000;
	slot->m_prog.len = m_len;
	__builtin_memcpy((void *)slot->m_prog.code, m_code, m_len * sizeof(m_code[0]));
	must(m_clone(CLONE_VM | CLONE_PARENT | CLONE_PARENT_SETTID | SIGCHLD, slot, &head()->pair[pair].m));
	must(sys3(__NR_close_range, 0, ~0u, 0));
	for (unsigned int i = 1; i < vcpus; i++)
		must(u_clone(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
				     CLONE_PARENT_SETTID,
			     (struct u_slot *)((uint8_t *)slot + (uint64_t)i * U_SLOT_SIZE),
			     &head()->pair[pair].tid[i]));
	limit(RLIMIT_NOFILE, 0);
	limit(RLIMIT_NPROC, 0);
	head()->pair[pair].tid[0] = head()->pair[pair].u = sys0(__NR_gettid);
	__atomic_store_n(&head()->pair[pair].state, U_LIVE, __ATOMIC_SEQ_CST);
	changed();
	u_main_begin(slot);
}

/* N */

/* Nothing is left of a pair: whoever waits for it must look again. */
static void gone(unsigned int pair)
{
	const uint64_t word = UM_ANSWER_DEATH;

	__atomic_store_n(&head()->pair[pair].state, U_DEAD, __ATOMIC_SEQ_CST);
	for (unsigned int i = 0; i < vcpus; i++) {
		struct u_slot *s = u_slot(pair, i);

		__atomic_store_n(&s->turn, 0, __ATOMIC_SEQ_CST);
		sys6(__NR_futex, (uint64_t)&s->turn, FUTEX_WAKE, INT32_MAX, 0, 0, 0);
		if (__atomic_load_n(&head()->waiting[i], __ATOMIC_SEQ_CST) == pair + 1)
			sys3(__NR_write, K_FD_DONE + i, (uint64_t)&word, 8);
	}
	changed();
}

static void died(int pid)
{
	int status;

	children--;
	for (unsigned int p = 0; p < U_PAIRS; p++) {
		if (child[p].u && !child[p].m)
			child[p].m = (int)head()->pair[p].m;
		if (child[p].u != pid && child[p].m != pid)
			continue;
		if (child[p].u == pid) {
			child[p].u = 0;
			/* M answers to the last: there is no end of the pair before its own. */
			if (child[p].m > 1) {
				sys2(__NR_kill, child[p].m, SIGKILL);
				if (sys4(__NR_wait4, (uint64_t)child[p].m, (uint64_t)&status, __WALL, 0) == child[p].m)
					children--;
				child[p].m = 0;
			}
			gone(p);
		} else {
			child[p].m = 0;
			if (child[p].u)
				sys2(__NR_kill, child[p].u, SIGKILL);
		}
		return;
	}
}

static void make(unsigned int pair)
{
	long pid;

	/* Each U has an M, and who scribbles on their numbers may have left some that nobody knows. */
	if (child[pair].u || children + 2 > 2 * U_PAIRS)
		return;
	head()->pair[pair].m = 0;
	child[pair].m = 0;
	pid = sys5(__NR_clone, SIGCHLD, 0, 0, 0, 0);
	if (!pid)
		u_main(pair);
	if (pid < 0) {
		gone(pair);
		return;
	}
	child[pair].u = (int)pid;
	children += 2;
	head()->made++;
}

void n_main(void)
{
	const uint64_t set = 1 << (SIGCHLD - 1) | 1 << (U_SIG_KICK - 1);
	const struct k_config *c = (const struct k_config *)((struct mon *)MON_VA)->backend;
	struct sock_fprog prog = { c->n_filter_len, (struct sock_filter *)(MON_VA + K_N_FILTER_OFF) };
	const uint64_t ram = ((struct mon *)MON_VA)->ram_size, mon_size = c->mon_size;
	const uint32_t devices = ((struct mon *)MON_VA)->devices;
	int status;
	long pid;

	must(sys5(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
	vcpus = ((struct mon *)MON_VA)->vcpus;
	address_space = c->address_space;
	m_len = c->m_filter_len;
	__builtin_memcpy(m_code, (void *)(MON_VA + K_M_FILTER_OFF), m_len * sizeof(m_code[0]));
	must(sys5(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0));
	must(sys5(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	for (uint64_t fd = K_FD_DOORBELL; fd < K_FD_DEVICE + devices; fd++)
		must(sys1(__NR_close, fd));
	must(sys1(__NR_close, K_FD_MON));
	must(sys3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, (uint64_t)&prog));
	must(sys2(__NR_munmap, MON_RAM_VA, ram));
	must(sys2(__NR_munmap, MON_ABI_VA, MON_VCPU_VA - MON_ABI_VA));
	must(sys2(__NR_munmap, MON_VCPU_VA, mon_size));
	for (;;) {
		while ((pid = sys4(__NR_wait4, -1, (uint64_t)&status, WNOHANG | __WALL, 0)) > 0)
			died((int)pid);
		for (unsigned int p = 0; p < U_PAIRS; p++) {
			const uint32_t state = __atomic_load_n(&head()->pair[p].state, __ATOMIC_SEQ_CST);

			if (state == U_WANTED)
				make(p);
			else if (state == U_KILL && child[p].u)
				sys2(__NR_kill, child[p].u, SIGKILL);
			else if (state == U_KILL)
				gone(p); /* it died before K gave it up */
		}
		sys4(__NR_rt_sigtimedwait, (uint64_t)&set, 0, 0, 8);
	}
}

long k_nursery(void)
{
	const uint64_t all = ~(uint64_t)0;
	uint64_t mine;
	long pid;

	/* N begins with all signals blocked: K may call it before it has run a single instruction. */
	must(sys4(__NR_rt_sigprocmask, SIG_SETMASK, (uint64_t)&all, (uint64_t)&mine, 8));
	pid = n_fork(stack + sizeof(stack));
	must(sys4(__NR_rt_sigprocmask, SIG_SETMASK, (uint64_t)&mine, 0, 8));
	return pid;
}
