/* SPDX-License-Identifier: MIT */
/*
 * K, the guest process: start-up, signals, and the monitor's backend half.
 *
 * K starts as a fresh image with four descriptors, maps what layout.h shows,
 * unmaps everything else (its own first stack, vdso and vvar included), makes its
 * threads (k_smp.c), installs the filter and then runs guest code. From there on nothing in this
 * process is trusted by anybody; what it may still ask of the kernel is in
 * filter.c, and every system call below has a line there.
 *
 * Signal handlers never return through rt_sigreturn. They leave either through
 * mon_resume, with the guest's context in v->cur, or back into interrupted
 * monitor code by iretq (k_entry.S). Signals are not blocked meanwhile
 * (SA_NODEFER): one that arrives in monitor text only leaves a mark.
 */
#include <asm/hwcap2.h>
#include <asm/prctl.h>
#include <asm/sigcontext.h>
#include <asm/siginfo.h>
#include <asm/signal.h>
#include <asm/ucontext.h>
#include <linux/auxvec.h>
#include <linux/elf.h>
#include <linux/errno.h>
#include <linux/falloc.h>
#include <linux/futex.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/seccomp.h>
#include <linux/filter.h>
#include <linux/time.h>
#include <asm/unistd.h>

#include "../../monitor/bugs.h"
#include "k.h"
#include "k_user.h"

#define TRAPNO_PF 14
#define X86_PF_PRESENT 1
#define X86_PF_WRITE 2
#define X86_PF_INSTR 16

extern char k_image_end[] MON_SYMBOL;
static uint64_t minsig = 2048; /* bytes of a signal's frame */
MON_SYMBOL void k_signal_entry(int sig, siginfo_t *si, struct ucontext *uc);
uint64_t k_map(const uint64_t *stack);
void k_seal(struct keel_vcpu *page);
int k_signal(int sig, const siginfo_t *si, struct ucontext *uc, uint8_t *block);

#ifdef KEEL_BUGS
unsigned int keel_bug;
#endif

/* There is no one to tell before the monitor memory is mapped. */
static void __attribute__((noreturn)) die(void)
{
	for (;;)
		sys1(__NR_exit_group, 99);
}

void k_fail(struct mvcpu *v, enum k_step step, long err)
{
	const uint64_t arg[5] = { (uint64_t)err, step };

	mb_remote(v, MON_REMOTE_READY, arg);
	die();
}

/*
 * Over whatever is there: newer kernels put the vdso anywhere below the stack, and it
 * is going to be unmapped anyway. Only a sealed one in just this place makes this fail.
 */
static void map_fixed(uint64_t va, uint64_t len, int prot, int fd)
{
	if (sys6(__NR_mmap, va, len, prot, MAP_SHARED | MAP_FIXED, fd, 0) != (long)va)
		die();
}

/*
 * First thing in the new image, on the kernel's stack. Returns the first vCPU
 * block, whose monitor stack is used from then on.
 */
uint64_t k_map(const uint64_t *stack)
{
	uint64_t hwcap2 = 0;
	const uint64_t *p = stack + 1 + stack[0] + 1;

	while (*p++)
		;
	for (; p[0] != AT_NULL; p += 2) {
		if (p[0] == AT_MINSIGSTKSZ)
			minsig = p[1];
		if (p[0] == AT_HWCAP2)
			hwcap2 = p[1];
	}
	map_fixed(MON_VCPU_VA, MON_VCPU_SPAN + MON_DYNAMIC_OFF, PROT_READ | PROT_WRITE, K_FD_MON);
	if (config()->mon_size > MON_VCPU_SPAN + MON_DYNAMIC_OFF &&
	    sys6(__NR_mmap, MON_VCPU_VA, config()->mon_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, K_FD_MON,
		 0) != MON_VCPU_VA)
		die();
	map_fixed(MON_RAM_VA, mon()->ram_size, PROT_READ | PROT_WRITE, K_FD_RAM);
	map_fixed(MON_ABI_VA, mon()->abi_size, PROT_READ, K_FD_ABI);
	for (uint32_t n = 0; n < mon()->vcpus; n++) {
		vcpu(n)->backend[K_SLOT_FSGSBASE] = hwcap2 & HWCAP2_FSGSBASE;
		vcpu(n)->backend[K_SLOT_ONE] = 1;
	}
	/* Frames there at once: a fault, a kick, one of the host, the timer and the same again, and room for their handlers. */
	if (minsig * 6 > MON_BLOCK_SIZE - MON_ALT_BASE)
		k_fail(vcpu(0), K_STEP_SIGNALS, -E2BIG);
	return MON_VCPU_VA;
}

/*
 * Unmap [from, to). A kernel that seals its vdso refuses any range with it in;
 * then halving finds what can go. What stays is code and data of the kernel's
 * own, which can make no system call the filter would not stop.
 */
static long unmap_most(uint64_t from, uint64_t to)
{
	long err = to > from ? sys2(__NR_munmap, from, to - from) : 0;
	uint64_t mid = (from + (to - from) / 2) & ~(KEEL_PAGE_SIZE - 1);

	if (err != -EPERM || mid == from)
		return err == -EPERM ? 0 : err;
	err = unmap_most(from, mid);
	return err ? err : unmap_most(mid, to);
}

/* Unmap all of the user address space that is not ours. */
static long evacuate(void)
{
	const uint64_t keep[][2] = {
		{ MON_ABI_VA, MON_ABI_VA + mon()->abi_size },
		{ MON_VCPU_VA, MON_VCPU_VA + config()->mon_size },
		{ MON_RAM_VA, MON_RAM_VA + mon()->ram_size },
	};
	uint64_t from = (uint64_t)mon_text_start;
	long err;

	err = unmap_most(0, from);
	if (err)
		return err;
	from = (uint64_t)k_image_end;
	for (unsigned int i = 0; i < sizeof(keep) / sizeof(keep[0]); i++) {
		err = unmap_most(from, keep[i][0]);
		if (err)
			return err;
		from = (keep[i][1] + KEEL_PAGE_SIZE - 1) & ~(KEEL_PAGE_SIZE - 1);
	}
	return unmap_most(from, K_TASK_END);
}

static long limit(unsigned int what, uint64_t value)
{
	const struct rlimit64 l = { value, value };

	return sys4(__NR_prlimit64, 0, what, (uint64_t)&l, 0);
}

static const uint8_t signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIG_KICK, SIG_TIMER };

static long take_signal(int sig)
{
	const struct {
		uint64_t handler, flags, restorer, mask;
	} sa = { (uint64_t)k_signal_entry, SA_SIGINFO | SA_ONSTACK | SA_NODEFER | 0x04000000 /* SA_RESTORER */,
		 (uint64_t)die, 0 };

	return sys4(__NR_rt_sigaction, sig, (uint64_t)&sa, 0, 8);
}

static long take_signals(void)
{
	long err = 0;

	for (unsigned int i = 0; !err && i < sizeof(signals); i++)
		err = take_signal(signals[i]);
	for (unsigned int n = 0; !err && n < mon()->vcpus; n++)
		err = take_signal(K_SIG_HOST_KICK + n);
	return err;
}

long k_own_block(struct keel_vcpu *page)
{
	const stack_t alt = { (void *)((uint64_t)page + MON_ALT_BASE), 0, MON_BLOCK_SIZE - MON_ALT_BASE };
	const long err = sys2(__NR_sigaltstack, (uint64_t)&alt, 0);

	return err ? err : sys2(__NR_arch_prctl, ARCH_SET_GS, (uint64_t)page);
}

/* The host makes the filter while we start: it is of our own number. */
static long install_filter(const struct k_config *c)
{
	struct sock_fprog prog = { 0, (struct sock_filter *)((uint8_t *)mon() + K_FILTER_OFF) };

	while (!(prog.len = __atomic_load_n(&c->filter_len, __ATOMIC_ACQUIRE)))
		sys6(__NR_futex, (uint64_t)&c->filter_len, FUTEX_WAIT, 0, 0, 0, 0);
	/* Of a thread that cannot have it the number comes back. */
	return sys3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, (uint64_t)&prog);
}

/* Called on the monitor's stack already; afterwards only what the filter permits. */
void k_seal(struct keel_vcpu *page)
{
	/* No signal queues: those of the host's kicks would, without end. Timers have their entry from when they were made. */
	static const struct {
		unsigned int what;
		uint64_t value;
	} limits[] = {
		{ RLIMIT_CORE, 0 },    { RLIMIT_NOFILE, 0 },   { RLIMIT_NPROC, 0 },
		{ RLIMIT_MEMLOCK, 0 }, { RLIMIT_MSGQUEUE, 0 }, { RLIMIT_SIGPENDING, 0 },
	};
	struct mon *m = mon();
	struct mvcpu *v = mv_of(page);
	const struct k_config *c = config();
	long err;

#ifdef KEEL_BUGS
	keel_bug = c->bug;
#endif
	for (uint32_t n = 0; n < m->vcpus; n++) {
		struct mvcpu *each = vcpu(n);

		mon_vcpu_init(m, each, (struct keel_vcpu *)((uint8_t *)each - MON_PRIVATE), n);
		each->iret_cs = 0x33;
		each->iret_ss = 0x2b;
	}

	err = evacuate();
	if (err)
		k_fail(v, K_STEP_EVACUATE, err);
	err = k_user_init(v, minsig);
	if (err)
		k_fail(v, K_STEP_USER, err);
	sys1(__NR_close, K_FD_MON);
	err = take_signals();
	if (!err)
		err = k_own_block(page);
	if (err)
		k_fail(v, K_STEP_SIGNALS, err);
	k_make_threads(v);
	for (unsigned int i = 0; !err && i < sizeof(limits) / sizeof(limits[0]); i++)
		err = limit(limits[i].what, limits[i].value);
	if (!err)
		err = limit(RLIMIT_AS, c->address_space);
	/* A core pattern that names a program heeds no limit: a dying guest shall not feed its RAM to it. */
	if (!err)
		err = sys5(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (!err)
		err = sys5(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (err)
		k_fail(v, K_STEP_LIMITS, err);
	k_await_threads(v);
	err = install_filter(c);
	if (err)
		k_fail(v, K_STEP_FILTER, err > 0 ? -ESRCH : err);

	mon_init(m);
	err = mon_boot_map(v);
	if (err)
		k_fail(v, K_STEP_BOOT_MAP, err);
	{
		static const uint64_t ready[5];
		mret r = mb_remote(v, MON_REMOTE_READY, ready);

		if (r.status)
			die();
	}
	v->cur.mode = KEEL_MODE_KERNEL;
	/* The initial FP state (KEEL-INIT): this process never touched it, exec made it so. */
}

/* Signals */

static void save(struct mvcpu *v, const struct sigcontext_64 *s)
{
	struct keel_frame *f = &v->cur;

	f->rip = s->ip;
	f->rsp = s->sp;
	f->rflags = s->flags;
	f->rax = s->ax;
	f->rbx = s->bx;
	f->rcx = s->cx;
	f->rdx = s->dx;
	f->rsi = s->si;
	f->rdi = s->di;
	f->rbp = s->bp;
	f->r8 = s->r8;
	f->r9 = s->r9;
	f->r10 = s->r10;
	f->r11 = s->r11;
	f->r12 = s->r12;
	f->r13 = s->r13;
	f->r14 = s->r14;
	f->r15 = s->r15;
}

static void __attribute__((noreturn))
fatal(struct mvcpu *v, uint32_t kind, uint64_t a0, uint64_t a1, const struct sigcontext_64 *s)
{
	save(v, s);
	v->fatal.kind = kind;
	v->fatal.arg[0] = a0;
	v->fatal.arg[1] = a1;
	v->fatal.regs = v->cur;
	v->fatal.regs.rflags &= ~(uint64_t)KEEL_RFLAGS_IF;
	v->fatal.regs.rflags |= v->page->if_enabled ? KEEL_RFLAGS_IF : 0;
	v->fatal.regs.vector = s->trapno;
	v->fatal.regs.error = s->err;
	v->fatal.regs.addr = s->cr2;
	mb_fatal(v);
}

/**
 * k_signal - decide what a signal means
 * @block: the vCPU's block, from the signal stack's place
 *
 * Returns 1 to run v->cur, 0 to go back into monitor code as *uc says.
 */
int k_signal(int sig, const siginfo_t *si, struct ucontext *uc, uint8_t *block)
{
	struct mvcpu *v = mv_of((struct keel_vcpu *)block);
	struct sigcontext_64 *s = (struct sigcontext_64 *)&uc->uc_mcontext;
	const bool monitor = s->ip >= (uint64_t)mon_text_start && s->ip < (uint64_t)mon_text_end;
	uint64_t error, gs, ip = s->ip, flags = s->flags;

	if (v->backend[K_SLOT_FSGSBASE]) {
		__asm__("rdgsbase %0" : "=r"(gs));
		if (gs != (uint64_t)block) {
			/* The way out goes through %gs; so does the report. */
			__asm__ volatile("wrgsbase %0" : : "r"(block));
			fatal(v, MON_FATAL_MONITOR, sig, gs, s);
		}
	}

	switch (sig) {
	case SIG_TIMER:
	case SIG_KICK:
	case K_SIG_HOST_KICK ... K_SIG_HOST_KICK + MON_MAX_VCPUS - 1:
		__atomic_add_fetch(&v->kick_seq, 1, __ATOMIC_SEQ_CST);
		if (sig == SIG_TIMER)
			mon_timer_fired(v);
		k_user_kicked(v);
		if (!mon_upcall(v, &ip, &flags))
			break;
		s->ip = ip;
		s->flags = flags;
		return 0;
	case SIGSYS:
		fatal(v, MON_FATAL_SYSCALL, si->_sifields._sigsys._syscall, si->_sifields._sigsys._arch, s);
	case SIGSEGV:
		if (s->trapno == TRAPNO_PF) {
			const bool write = s->err & X86_PF_WRITE, fetch = s->err & X86_PF_INSTR;
			const bool retry = mon_fault(v, &v->mon->as0, s->cr2, write, fetch, &error);

			/* In the host's window there is no tree to ask. */
			if ((uint64_t)s->cr2 >= KEEL_VA_END && s->err & X86_PF_PRESENT)
				error |= KEEL_PF_P;
			/* The listed instructions of gate.S touch the guest's stack, in the guest's name. */
			if (monitor && !(retry || s->ip == (uint64_t)gate_ret || s->ip == (uint64_t)gate_load_rip))
				fatal(v, MON_FATAL_MONITOR, sig, 0, s);
			if (monitor && retry)
				return 0;
			save(v, s);
			if (!retry)
				mon_trap(v, KEEL_VEC_PF, error, s->cr2);
			return 1;
		}
		/* fall through */
	case SIGFPE:
	case SIGILL:
	case SIGTRAP:
	case SIGBUS:
		/* A page fault that ends so is not the guest's: the host ran out of memory behind a mapping. */
		if (monitor || (sig == SIGBUS && s->trapno == TRAPNO_PF))
			fatal(v, MON_FATAL_MONITOR, sig, 0, s);
		save(v, s);
		mon_trap(v, s->trapno, 0, 0);
		return 1;
	default:
		fatal(v, MON_FATAL_MONITOR, sig, 0, s);
	}
	save(v, s);
	return 1;
}

/* The cache of the tree: VMAs of the RAM and ABI files */

/* Too many mappings, or too much address space: drop them all; faults bring back what is used. */
static void evict(struct mvcpu *v)
{
	const uint64_t unit = KEEL_U64(1) << 30;
	uint64_t va = KEEL_VA_MIN, pte;

	while (as_run(v->mon, &v->mon->as0, &va, KEEL_VA_END, 1, &pte)) {
		va &= ~(unit - 1);
		if (sys2(__NR_munmap, va, unit))
			break;
		va += unit;
	}
}

static void __attribute__((noreturn)) exhausted(struct mvcpu *v, long err)
{
	v->fatal.kind = MON_FATAL_MONITOR;
	v->fatal.arg[0] = 0;
	v->fatal.arg[1] = err;
	v->fatal.regs = v->cur;
	mb_fatal(v);
}

void mb_map(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint64_t gpa, uint32_t prot,
	    unsigned int flags)
{
	const struct mon *m = v->mon;
	const bool ram = gpa < m->ram_size;
	long r = 0;

	if (as->index) {
		k_user_map(v, as, va, pages, gpa, prot, flags);
		return;
	}
	for (int try = 0; try < 2; try++) {
		/* KEEL_PROT_* are PROT_*. */
		r = sys6(__NR_mmap, va, pages * KEEL_PAGE_SIZE, prot,
			 MAP_SHARED | MAP_FIXED | (flags & MB_POPULATE ? MAP_POPULATE : 0), ram ? K_FD_RAM : K_FD_ABI,
			 ram ? gpa : gpa - m->abi_gpa);
		if (r == (long)va)
			return;
		evict(v);
	}
	exhausted(v, r);
}

void mb_unmap(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages)
{
	long r;

	if (as->index) {
		k_user_unmap(v, as, va, pages);
		return;
	}
	r = sys2(__NR_munmap, va, pages * KEEL_PAGE_SIZE);
	/* Splitting a mapping can need one more than there may be. evict() does not see what the tree has no more. */
	if (r) {
		evict(v);
		r = sys2(__NR_munmap, va, pages * KEEL_PAGE_SIZE);
	}
	if (r)
		exhausted(v, r);
}

void mb_protect(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint32_t prot)
{
	/* Part of the range may not be in the cache, or the split may fail: start it afresh. */
	if (as->index)
		k_user_protect(v, as, va, pages, prot);
	else if (sys3(__NR_mprotect, va, pages * KEEL_PAGE_SIZE, prot))
		mb_unmap(v, as, va, pages);
}

/* One memory for all threads: what the calls above took away is gone on all of them. */
void mb_settle(struct mvcpu *v, struct as *as)
{
	if (as->index)
		k_user_settle(v, as);
}

bool mb_release(struct mvcpu *v, uint64_t gpa, uint64_t pages)
{
	(void)v;
	return !sys4(__NR_fallocate, K_FD_RAM, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, gpa, pages * KEEL_PAGE_SIZE);
}

bool mb_populate(struct mvcpu *v, uint64_t gpa, uint64_t pages)
{
	(void)v;
	return !sys3(__NR_madvise, MON_RAM_VA + gpa, pages * KEEL_PAGE_SIZE, MADV_POPULATE_WRITE);
}

/* Time. Guest time is the host's CLOCK_MONOTONIC. */

#define NSEC_PER_SEC KEEL_U64(1000000000)

static void to_timespec(uint64_t ns, uint64_t *ts)
{
	/* Far deadlines: the kernel takes seconds as signed, and nobody waits 100 years. */
	if (ns > KEEL_U64(100) * 366 * 86400 * NSEC_PER_SEC)
		ns = KEEL_U64(100) * 366 * 86400 * NSEC_PER_SEC;
	ts[0] = ns / NSEC_PER_SEC;
	ts[1] = ns % NSEC_PER_SEC;
}

uint64_t mb_now(struct mvcpu *v)
{
	volatile uint64_t *ts = &v->backend[K_SLOT_NOW];
	uint32_t seq;
	uint64_t ns;

	/* A signal in between may have asked too, and left its answer in the same place. */
	do {
		seq = __atomic_load_n(&v->kick_seq, __ATOMIC_RELAXED);
		sys2(__NR_clock_gettime, 1 /* CLOCK_MONOTONIC */, (uint64_t)ts);
		ns = ts[0] * NSEC_PER_SEC + ts[1];
	} while (__atomic_load_n(&v->kick_seq, __ATOMIC_RELAXED) != seq);
	return ns;
}

void mb_timer(struct mvcpu *v, uint64_t deadline)
{
	uint64_t *it = &v->backend[K_SLOT_ITIMER];

	it[0] = it[1] = it[2] = it[3] = 0; /* all zero disarms */
	if (deadline != KEEL_TIME_NEVER)
		to_timespec(deadline ? deadline : 1, it + 2);
	sys4(__NR_timer_settime, v->backend[K_SLOT_TIMER], 1 /* TIMER_ABSTIME */, (uint64_t)it, 0);
}

bool mb_wait(struct mvcpu *v, uint32_t seq, uint64_t deadline)
{
	uint64_t *ts = &v->backend[K_SLOT_DEADLINE];

	to_timespec(deadline, ts);
	return sys6(__NR_futex, (uint64_t)&v->kick_seq, FUTEX_WAIT_BITSET, seq,
		    deadline == KEEL_TIME_NEVER ? 0 : (uint64_t)ts, 0, FUTEX_BITSET_MATCH_ANY) != -ETIMEDOUT;
}

/* Leaving the guest */

mret mb_remote(struct mvcpu *v, uint32_t id, const uint64_t *arg)
{
	struct mon_remote *r = &v->remote;
	const struct k_config *c = config();

	r->id = id;
	for (unsigned int i = 0; i < 5; i++)
		r->word[i] = arg[i];
	__atomic_store_n(&r->turn, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&r->host_asleep, __ATOMIC_SEQ_CST))
		sys6(__NR_futex, (uint64_t)&r->turn, FUTEX_WAKE, 1, 0, 0, 0);
	for (uint32_t i = 0; i < c->spin; i++) {
		if (!__atomic_load_n(&r->turn, __ATOMIC_ACQUIRE))
			return MRET((int64_t)r->word[0], r->word[1]);
		/* The host's thread may be waiting for this very processor. */
		if (c->yield || i % K_SPIN_YIELD == K_SPIN_YIELD - 1)
			sys0(__NR_sched_yield);
		else
			__asm__ volatile("pause");
	}
	__atomic_store_n(&r->guest_asleep, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&r->turn, __ATOMIC_SEQ_CST))
		sys6(__NR_futex, (uint64_t)&r->turn, FUTEX_WAIT_BITSET, 1, 0, 0, FUTEX_BITSET_MATCH_ANY);
	__atomic_store_n(&r->guest_asleep, 0, __ATOMIC_RELAXED);
	return MRET((int64_t)r->word[0], r->word[1]);
}

void mb_doorbell(struct mvcpu *v)
{
	sys3(__NR_write, K_FD_DOORBELL, (uint64_t)&v->backend[K_SLOT_ONE], 8);
}

void mb_device(struct mvcpu *v, uint32_t device)
{
	sys3(__NR_write, K_FD_DEVICE + device, (uint64_t)&v->backend[K_SLOT_ONE], 8);
}

void mb_fatal(struct mvcpu *v)
{
	static const uint64_t none[5];

	/* The host does not answer: it takes the partition apart. */
	for (;;)
		mb_remote(v, MON_REMOTE_FATAL, none);
}
