/* SPDX-License-Identifier: MIT */
/*
 * Guest user code, K's side: handing registers to a U thread and taking them back,
 * and the caches of address spaces, which are the mappings of U processes.
 *
 * A pair (U and its M) belongs to one address space at a time. Its commands and the
 * notes about what is stale in it are under that space's lock; which space has which
 * pair is under pairs_lock, and a pair changes hands only while nobody runs in the
 * space that loses it, whose lock is then held, too.
 *
 * All a U can write to, its slots, is hostile: what is read from them is copied once
 * and checked. That a U thread says it stopped is believed for its registers only.
 * Before a page is taken from a space that nobody runs in by a mere note, quiesce()
 * makes sure of it with the kernel's help.
 */
#include <asm/unistd.h>
#include <linux/audit.h>
#include <linux/errno.h>
#include <linux/futex.h>
#include <linux/mman.h>

#include "k.h"
#include "../../monitor/bugs.h"
#include "k_user.h"

#define AT(field, offset) _Static_assert(__builtin_offsetof(struct u_slot, field) == (offset), "k_user.h")
AT(turn, US_TURN);
AT(k_asleep, US_K_ASLEEP);
AT(u_asleep, US_U_ASLEEP);
AT(flags, US_FLAGS);
AT(kick, US_KICK);
AT(spin, US_SPIN);
AT(rfbm, US_RFBM);
AT(fp, US_FP);
AT(r8, US_R8);
AT(r15, US_R15);
AT(rdi, US_RDI);
AT(rcx, US_RCX);
AT(iret, US_IRET);
AT(fs, US_FS);
AT(gs, US_GS);
AT(sig, US_SIG);
AT(selectors, US_SELECTORS);
AT(u_fs, US_U_FS);
AT(u_gs, US_U_GS);
AT(started, US_STARTED);
AT(sigsys, US_SIGSYS);
AT(regs, US_REGS);
AT(x87, US_X87);
AT(prog, US_PROG);
AT(alt, US_ALT);
AT(mask, US_MASK);
AT(m_prog, US_M_PROG);
#undef AT
_Static_assert(__builtin_offsetof(struct u_cmd, op) == UM_OPS && sizeof(struct u_op) == UM_OP_SIZE, "k_user.h");
_Static_assert(sizeof(struct u_head) <= U_HEAD_SIZE && U_ARENA_SIZE <= U_ARENA_SPAN, "k_user.h");

/* as->backend[] */
#define AB_PAIR 0   /* pair + 1 */
#define AB_RANGES 1 /* how many of the notes below there are */
#define AB_ALL 2    /* everything in the cache is stale */
#define AB_RANGE 4
#define RANGES 16

/* A note: a range of pages in which the tree has changed since the cache was brought up to it. */
#define NOTE_REDUCED (KEEL_U64(1) << 28) /* something in the cache has to go */
#define NOTE_PAGES (NOTE_REDUCED - 1)
#define NOTE(va, pages, reduced) ((va) >> KEEL_PAGE_SHIFT << 29 | ((reduced) ? NOTE_REDUCED : 0) | (pages))
#define NOTE_VA(note) ((note) >> 29 << KEEL_PAGE_SHIFT)

#define RUNS_MAX 64	   /* mappings made at an entry; faults bring the rest */
#define POPULATE_MAX 64	   /* pages of a run that are brought in with it */
#define AROUND 32	   /* pages around one that faulted */
#define MAPPINGS_MAX 16000 /* of a U; the kernel's limit is about 65,000 */
#define MAPPINGS_KEEP 2000 /* more take longer to unmap than a new U to make */
#define CALL_PAGES 0x80000 /* of one mmap or munmap; the filter wants less than 4 GiB */
#define NSEC_PER_MSEC 1000000
#define PATIENCE (KEEL_U64(1000) * NSEC_PER_MSEC) /* for a U that does not hand over */

#define XSAVE_LEGACY 416 /* bytes of the legacy area the processor uses */
#define XSAVE_HEADER 512
#define MXCSR 24
#define BASE_MASK ((KEEL_U64(1) << 47) - 1) /* of FS and GS: what a context may hold */
#define MXCSR_DEFAULT 0x1f80
#define X86_PF_WRITE 2
#define X86_PF_INSTR 16

struct pair {
	struct as *owner; /* NULL = free */
	bool live;	  /* as far as is known */
	uint32_t n;	  /* operations collected for M */
	uint32_t by;	  /* M is at work for vCPU by - 1; 0 = it is not */
	bool failed;	  /* something M did failed */
	bool reduces;	  /* what was collected takes something away, and must be waited for */
	uint32_t taken;	  /* times something was, since it was entered */
	uint32_t mappings;
	uint32_t entered; /* by vCPU: its thread may have run user code since it was quiet for certain */
	uint32_t used;	  /* by vCPU: its slot may hold something of the owner's */
	uint64_t last;	  /* when it was entered, in entries */
	int u, m, tid[MON_MAX_VCPUS];
	uint32_t cpu[MON_MAX_VCPUS], m_cpu;	       /* where they may run; ANY_CPU = everywhere */
	uint64_t fs[MON_MAX_VCPUS], gs[MON_MAX_VCPUS]; /* bases its threads have; for processors without FSGSBASE */
};

/*
 * How a vCPU and the U threads it enters hand over. Apart: on two processors, each
 * spinning a while for the other, which is fastest while both have one to run on.
 * Together: on one, sleeping at once, which is what costs least otherwise.
 */
struct way {
	bool together;
	bool leaving;	   /* apart is tried: away from where K runs, for where both are neither gets on */
	bool faulting;	   /* a fault of user code is looked at */
	bool slept;	   /* K did, for the hand-over just seen */
	uint32_t score;	   /* of hand-overs that were slow, apart */
	uint32_t left;	   /* hand-overs until apart is tried again, or as long as so many take */
	uint32_t patience; /* how many the next time */
	uint32_t last;	   /* ticks, when one was seen */
	uint32_t cpu;	   /* together */
};
#define ANY_CPU ~0u
#define BUT_CPU 0x10000	   /* every one but this */
#define SLOW_TICKS 45000   /* about 15 us; a wake-up between processors, or one that has none to run on */
#define LONG_TICKS 4000000 /* user code that runs so long is better off where the kernel puts it */
#define SCORE_SLOW 8
#define SCORE_MAX 40
#define TOGETHER_MIN 1024
#define TOGETHER_MAX 65536
#define TOGETHER_TICKS_LOG 16 /* about what a hand-over takes together */

static struct way ways[MON_MAX_VCPUS];
/* In the monitor's memory, behind its tables: no page of K is anonymous. */
static struct pair *pairs;
_Static_assert(sizeof(struct pair) <= K_PAIR_SIZE, "layout.h");
static struct mon_lock pairs_lock;
static struct pair *at_work[MON_MAX_VCPUS]; /* whose M a vCPU's descriptor is to hear of; under its answer_lock */
static struct mon_lock answer_lock[MON_MAX_VCPUS];
static uint64_t entries;
static int nursery;
static uint32_t mxcsr_mask;
static uint64_t all_components;
static struct {
	uint16_t offset, bytes;
} component[16];

static struct u_head *head(void)
{
	return (struct u_head *)U_ARENA_VA;
}

static unsigned int number(const struct pair *p)
{
	return (unsigned int)(p - pairs);
}

static bool alive(const struct pair *p)
{
	return __atomic_load_n(&head()->pair[number(p)].state, __ATOMIC_ACQUIRE) == U_LIVE;
}

/* No process is left of it, which takes a while after it was given up: until then its M may answer. */
static bool gone(const struct pair *p)
{
	uint32_t state = __atomic_load_n(&head()->pair[number(p)].state, __ATOMIC_SEQ_CST);

	return state == U_NONE || state == U_DEAD;
}

static void copy(void *to, const void *from, uint64_t bytes)
{
	uint64_t words = bytes / 8;

	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
}

static void clear(void *to, uint64_t bytes)
{
	uint64_t words = bytes / 8;

	__asm__ volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(0) : "memory");
}

/* Start-up */

static void cpuid(uint32_t leaf, uint32_t sub, uint32_t *r)
{
	__asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}

/* M's answers come by descriptors of these numbers, one per vCPU. */
static long make_done(uint32_t vcpus)
{
	for (uint32_t i = 0; i < vcpus; i++) {
		long fd = sys2(__NR_eventfd2, 0, 0), moved;

		if (fd < 0)
			return fd;
		moved = sys3(__NR_fcntl, fd, 0 /* F_DUPFD */, K_FD_DONE + i);
		sys1(__NR_close, fd);
		if (moved != K_FD_DONE + i)
			return moved < 0 ? moved : -EMFILE;
	}
	return 0;
}

/**
 * k_user_init - make what user code needs; before K seals itself
 * @minsig: AT_MINSIGSTKSZ
 *
 * Returns 0 or a negative errno.
 */
long k_user_init(struct mvcpu *v, uint64_t minsig)
{
	static uint8_t fx[512] __attribute__((aligned(16)));
	static const char name[] = "keel-user";
	const struct mon *m = v->mon;
	uint32_t r[4];
	long fd, err;

	/* Without a PID namespace the filter lets nobody be signalled. */
	if (sys0(__NR_gettid) != 1)
		config()->user = 0;
	if (!config()->user)
		return 0;
	pairs = (struct pair *)(MON_VCPU_VA + config()->mon_size - K_PAIRS_SIZE);
	if (minsig * 3 > U_SLOT_SIZE - U_ALT_OFF)
		return -E2BIG;
	__asm__ volatile("fxsave64 %0" : "=m"(fx));
	mxcsr_mask = *(uint32_t *)(fx + 28);
	if (!mxcsr_mask)
		mxcsr_mask = 0xffbf;
	__asm__ volatile("xgetbv" : "=a"(r[0]), "=d"(r[3]) : "c"(0));
	all_components = (uint64_t)r[3] << 32 | r[0];
	for (unsigned int i = 2; i < sizeof(component) / sizeof(component[0]); i++) {
		if (!(m->xfeatures >> i & 1))
			continue;
		cpuid(13, i, r);
		component[i].bytes = r[0];
		component[i].offset = r[1];
	}
	fd = sys2(__NR_memfd_create, (uint64_t)name, 0);
	if (fd < 0)
		return fd;
	err = sys2(__NR_ftruncate, fd, U_ARENA_SIZE);
	if (!err && fd != K_FD_ARENA) {
		err = sys3(__NR_dup3, fd, K_FD_ARENA, 0);
		err = err < 0 ? err : 0;
		sys1(__NR_close, fd);
	}
	if (err)
		return err;
	if (sys6(__NR_mmap, U_ARENA_VA, U_ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, K_FD_ARENA, 0) !=
	    U_ARENA_VA)
		return -ENOMEM;
	err = make_done(m->vcpus);
	if (err)
		return err;
	err = k_nursery();
	sys1(__NR_close, K_FD_ARENA);
	nursery = (int)err;
	return err < 0 ? err : 0;
}

/* Where threads run */

static void pin(int tid, uint32_t cpu)
{
	uint8_t set[K_CPU_SET];

	for (unsigned int i = 0; i < sizeof(set); i++)
		set[i] = cpu == ANY_CPU ? 0xff : (cpu & ~BUT_CPU) / 8 == i ? 1 << cpu % 8 : 0;
	if (cpu != ANY_CPU && cpu & BUT_CPU)
		for (unsigned int i = 0; i < sizeof(set); i++)
			set[i] = (uint8_t)~set[i];
	/* Where it fails, nothing but time is lost. */
	sys3(__NR_sched_setaffinity, tid, sizeof(set), (uint64_t)set);
}

static uint32_t place(const struct mvcpu *v)
{
	const struct way *w = &ways[v->id];

	return w->together ? w->cpu : w->leaving ? w->cpu | BUT_CPU : ANY_CPU;
}

static uint32_t ticks(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return low;
}

/* A hand-over has been seen: it took so long until user code ran, which it did for so long. */
static void learn(struct mvcpu *v, uint32_t took, uint32_t ran)
{
	struct way *w = &ways[v->id];
	const uint32_t now = ticks(), spent = 1 + ((now - w->last) >> TOGETHER_TICKS_LOG);

	if (!config()->user_spin)
		return;
	w->last = now;
	if (w->together) {
		w->left -= spent < w->left ? spent : w->left;
		if (w->left && ran < LONG_TICKS)
			return;
		w->together = false;
		w->leaving = ran < LONG_TICKS;
		w->score = SCORE_MAX / 2;
		pin(0, ANY_CPU);
		return;
	}
	if (ran >= LONG_TICKS) {
		w->leaving = false;
		return;
	}
	if (w->slept || took > SLOW_TICKS) {
		w->score += SCORE_SLOW;
	} else if (w->score) {
		w->score--;
	} else {
		w->patience = TOGETHER_MIN;
		w->leaving = false;
	}
	if (w->score > SCORE_MAX) {
		uint32_t cpu;

		if (sys3(__NR_getcpu, (uint64_t)&cpu, 0, 0) || cpu >= K_CPU_SET * 8)
			return;
		w->together = true;
		w->cpu = cpu;
		w->patience = w->patience < TOGETHER_MIN ? TOGETHER_MIN : w->patience;
		w->left = w->patience;
		w->patience = w->patience < TOGETHER_MAX / 2 ? 2 * w->patience : TOGETHER_MAX;
		pin(0, cpu);
	}
}

/* Pairs and their mappers */

static void call_nursery(void)
{
	sys3(__NR_tgkill, nursery, nursery, U_SIG_KICK);
}

/* It is not to be used any more. Who runs in it comes back with an exception. */
static void give_up(struct pair *p)
{
	p->live = false;
	p->n = 0;
	__atomic_store_n(&head()->pair[number(p)].state, U_KILL, __ATOMIC_SEQ_CST);
	call_nursery();
}

/*
 * Wait for the command whose answer a vCPU's descriptor is for, if there is one. Any
 * vCPU may: that answer is what everybody who wants the same M next waits for.
 */
static void m_wait(struct mvcpu *v, uint32_t vcpu)
{
	uint64_t *answer = &v->backend[K_SLOT_DONE];
	struct pair *p;

	mon_lock(&answer_lock[vcpu]);
	p = at_work[vcpu];
	if (p) {
		uint64_t seen = 0;

		__atomic_store_n(&head()->waiting[vcpu], number(p) + 1, __ATOMIC_SEQ_CST);
		/* Interrupted by a kick, or told of a death: again. */
		while (!(seen & (UM_ANSWER_DONE | UM_ANSWER_FAILED)) && !gone(p))
			if (sys3(__NR_read, K_FD_DONE + vcpu, (uint64_t)answer, 8) == 8)
				seen = *answer;
		__atomic_store_n(&head()->waiting[vcpu], 0, __ATOMIC_SEQ_CST);
		if (!(seen & (UM_ANSWER_DONE | UM_ANSWER_FAILED))) {
			/* It may have answered before it died: nothing of that is to be left. */
			*answer = UM_ANSWER_DEATH;
			sys3(__NR_write, K_FD_DONE + vcpu, (uint64_t)answer, 8);
			sys3(__NR_read, K_FD_DONE + vcpu, (uint64_t)answer, 8);
		}
		p->failed |= !(seen & UM_ANSWER_DONE);
		at_work[vcpu] = NULL;
		__atomic_store_n(&p->by, 0, __ATOMIC_RELEASE);
	}
	mon_unlock(&answer_lock[vcpu]);
}

/* M has done all it was told to: its commands may be written. */
static void m_idle(struct mvcpu *v, struct pair *p)
{
	const uint32_t by = __atomic_load_n(&p->by, __ATOMIC_ACQUIRE);

	if (by)
		m_wait(v, by - 1);
}

/* Have M do what was collected. */
static void m_start(struct mvcpu *v, struct pair *p)
{
	struct u_cmd *c = u_cmd(number(p));

	m_wait(v, v->id);
	if (p->m_cpu != place(v)) {
		p->m_cpu = place(v);
		pin(p->m, p->m_cpu);
	}
	c->n = p->n;
	c->fd = K_FD_DONE + v->id;
	p->n = 0;
	p->reduces = false;
	p->by = v->id + 1;
	__atomic_store_n(&at_work[v->id], p, __ATOMIC_RELEASE);
	__atomic_store_n(&c->seq, c->seq + 1, __ATOMIC_SEQ_CST);
	sys6(__NR_futex, (uint64_t)&c->seq, FUTEX_WAKE, 1, 0, 0, 0);
}

/* The same, and wait for it. False: something failed since the last time. */
static bool m_run(struct mvcpu *v, struct pair *p)
{
	bool failed;

	m_start(v, p);
	m_idle(v, p);
	failed = p->failed;
	p->failed = false;
	return !failed;
}

static void m_op(struct mvcpu *v, struct pair *p, uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
		 uint64_t e, uint64_t f);

/* Unmap everything; a U that cannot even do that has no use. */
static void m_drop(struct mvcpu *v, struct pair *p)
{
	m_idle(v, p);
	p->failed = false;
	p->n = 0;
	m_op(v, p, __NR_munmap, KEEL_VA_MIN, KEEL_VA_END - KEEL_VA_MIN, 0, 0, 0, 0);
	p->mappings = 0;
	if (!m_run(v, p))
		give_up(p);
}

static void m_finish(struct mvcpu *v, struct pair *p)
{
	/* Too many mappings for the kernel, or too much address space: faults bring back what is used. */
	m_idle(v, p);
	if ((p->n && !m_run(v, p)) || p->failed)
		m_drop(v, p);
}

static void m_op(struct mvcpu *v, struct pair *p, uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
		 uint64_t e, uint64_t f)
{
	/* One is kept free, for the wake-up that hands U its turn. */
	if (p->n >= U_OPS - 1)
		m_finish(v, p);
	m_idle(v, p);
	u_cmd(number(p))->op[p->n++] = (struct u_op){ nr, { a, b, c, d, e, f } };
}

static void m_unmap(struct mvcpu *v, struct pair *p, uint64_t va, uint64_t pages)
{
	while (pages) {
		uint64_t n = pages < CALL_PAGES ? pages : CALL_PAGES;

		m_op(v, p, __NR_munmap, va, n * KEEL_PAGE_SIZE, 0, 0, 0, 0);
		p->reduces = true;
		p->mappings++; /* it may split one */
		va += n * KEEL_PAGE_SIZE;
		pages -= n;
	}
}

static void m_map(struct mvcpu *v, struct pair *p, uint64_t va, uint64_t pages, uint64_t gpa, uint32_t prot,
		  bool populate)
{
	const struct mon *m = v->mon;
	const bool ram = gpa < m->ram_size;

	if (p->mappings >= MAPPINGS_MAX) {
		m_finish(v, p);
		m_drop(v, p);
	}
	if (!ram)
		gpa -= m->abi_gpa;
	while (pages) {
		uint64_t n = pages < CALL_PAGES ? pages : CALL_PAGES;

		/* KEEL_PROT_* are PROT_*. */
		m_op(v, p, __NR_mmap, va, n * KEEL_PAGE_SIZE, prot,
		     MAP_SHARED | MAP_FIXED | (populate ? MAP_POPULATE : 0), ram ? K_FD_RAM : K_FD_ABI, gpa);
		p->mappings += 2;
		va += n * KEEL_PAGE_SIZE;
		gpa += n * KEEL_PAGE_SIZE;
		pages -= n;
	}
}

/* Wait until a thread sleeps on its word. The kernel says so: nobody else can. */
static void see_asleep(struct mvcpu *v, struct pair *p, uint32_t vcpu)
{
	struct u_slot *s = u_slot(number(p), vcpu);
	uint64_t until = 0;

	for (unsigned int n = 1; alive(p); n++) {
		if (sys6(__NR_futex, (uint64_t)&s->turn, FUTEX_WAKE, 1, 0, 0, 0) == 1)
			return;
		if (s->spin && n % 256)
			__asm__ volatile("pause");
		else
			sys0(__NR_sched_yield);
		if (n % 1024)
			continue;
		if (!until)
			until = mb_now(v) + PATIENCE;
		else if (mb_now(v) > until)
			break;
	}
	give_up(p);
}

/*
 * Make sure that no thread of a pair runs user code, whatever it told: it is sent
 * where it can only sleep.
 */
static void quiesce(struct mvcpu *v, struct pair *p)
{
	for (uint32_t i = 0; p->entered; i++) {
		if (!(p->entered >> i & 1))
			continue;
		__atomic_and_fetch(&p->entered, ~(1u << i), __ATOMIC_SEQ_CST);
		sys3(__NR_tgkill, p->u, p->tid[i], U_SIG_RESET);
		see_asleep(v, p, i);
	}
}

/* Nothing of its owner's is left in it. False: it is no use any more. */
static bool make_clean(struct mvcpu *v, struct pair *p)
{
	if (p->live && !alive(p))
		give_up(p);
	if (!p->live)
		return false;
	if (p->mappings > MAPPINGS_KEEP) {
		m_idle(v, p); /* sooner than its end */
		give_up(p);
		return false;
	}
	quiesce(v, p);
	if (p->live && p->mappings)
		m_drop(v, p);
	if (!p->live)
		return false;
	clear(u_cmd(number(p))->op, sizeof(struct u_op) * U_OPS);
	for (uint32_t i = 0; i < v->mon->vcpus; i++) {
		struct u_slot *s = u_slot(number(p), i);

		p->fs[i] = p->gs[i] = ~KEEL_U64(0);
		if (!(p->used >> i & 1))
			continue;
		/* All but whose turn it is and who sleeps. */
		s->pad0[0] = 0;
		clear(&s->pad0[1], sizeof(s->pad0) - sizeof(s->pad0[0]));
		clear(s->pad1, U_SLOT_SIZE - __builtin_offsetof(struct u_slot, pad1));
	}
	p->used = 0;
	return true;
}

/* A process for a pair that has none; pairs_lock is not held, the pair has an owner. */
static bool make_process(struct mvcpu *v, struct pair *p)
{
	const unsigned int n = number(p);
	const uint64_t until = mb_now(v) + 5 * PATIENCE;
	struct u_cmd *c = u_cmd(n);
	uint32_t state;

	/* One that was given up may still be on its way out. */
	for (bool wanted = false;;) {
		uint32_t seq = __atomic_load_n(&head()->seq, __ATOMIC_SEQ_CST);
		uint64_t *ts = &v->backend[K_SLOT_DEADLINE];

		state = __atomic_load_n(&head()->pair[n].state, __ATOMIC_SEQ_CST);
		if (state == U_LIVE && !wanted) {
			/* N has not noticed yet that it was given up, or nobody gave it up. */
			give_up(p);
		} else if (state == U_LIVE || (state == U_DEAD && wanted)) {
			break;
		} else if (state == U_NONE || state == U_DEAD) {
			/* An answer that M still owed when it was killed: the next one would be waited for in its place. */
			m_idle(v, p);
			for (uint32_t i = 0; i < v->mon->vcpus; i++)
				clear(u_slot(n, i), U_ALT_OFF);
			c->seq = 0;
			wanted = true;
			__atomic_store_n(&head()->pair[n].state, U_WANTED, __ATOMIC_SEQ_CST);
			call_nursery();
		}
		if (mb_now(v) > until)
			break;
		ts[0] = until / (1000 * NSEC_PER_MSEC);
		ts[1] = until % (1000 * NSEC_PER_MSEC);
		sys6(__NR_futex, (uint64_t)&head()->seq, FUTEX_WAIT_BITSET, seq, (uint64_t)ts, 0,
		     FUTEX_BITSET_MATCH_ANY);
	}
	if (state != U_LIVE)
		return false;
	p->u = (int)head()->pair[n].u;
	p->m = (int)head()->pair[n].m;
	p->m_cpu = ANY_CPU;
	for (uint32_t i = 0; i < v->mon->vcpus; i++) {
		p->tid[i] = (int)head()->pair[n].tid[i];
		p->cpu[i] = ANY_CPU;
	}
	p->live = true;
	p->n = p->mappings = p->entered = p->by = p->taken = 0;
	p->failed = p->reduces = false;
	p->used = ~0u; /* programs of its filters */
	c->done = UM_ANSWER_DONE;
	c->failed = UM_ANSWER_FAILED;
	/* M answers, so it is there and has its filter. */
	if (!m_run(v, p))
		give_up(p);
	/* A thread that sleeps has its filter, and needs its slot's second half no more. */
	for (uint32_t i = 0; p->live && i < v->mon->vcpus; i++)
		see_asleep(v, p, i);
	return make_clean(v, p);
}

static bool try_lock(struct mon_lock *l)
{
	return !__atomic_exchange_n(&l->taken, 1, __ATOMIC_ACQUIRE);
}

static void forget(struct as *as)
{
	as->backend[AB_PAIR] = as->backend[AB_RANGES] = as->backend[AB_ALL] = 0;
}

/* Find a pair for a space, whose lock is held, and make it the space's. */
static struct pair *acquire(struct mvcpu *v, struct as *as)
{
	struct pair *p = NULL;

	mon_lock(&pairs_lock);
	/* A free one with a process, a free one without, the one that was not entered for longest. */
	for (unsigned int i = 0; i < U_PAIRS && !(p && p->live); i++)
		if (!pairs[i].owner && (!p || pairs[i].live))
			p = &pairs[i];
	for (unsigned int tries = 0; !p && tries < U_PAIRS; tries++) {
		struct as *loser;

		for (unsigned int i = 0; i < U_PAIRS; i++)
			if (!p || pairs[i].last < p->last)
				p = &pairs[i];
		p->last = entries + tries; /* next time another one */
		loser = p->owner;
		/* The other way round than locks are taken elsewhere, so never wait. */
		if (!loser || !try_lock(&loser->lock)) {
			p = NULL;
			continue;
		}
		if (loser->backend[AB_PAIR] == number(p) + 1 && !__atomic_load_n(&loser->running, __ATOMIC_SEQ_CST))
			forget(loser);
		else
			p = NULL;
		mon_unlock(&loser->lock);
	}
	if (p)
		p->owner = as;
	mon_unlock(&pairs_lock);
	if (!p)
		return NULL;
	if (!make_clean(v, p) && !make_process(v, p)) {
		__atomic_store_n(&p->owner, NULL, __ATOMIC_RELEASE);
		return NULL;
	}
	as->backend[AB_PAIR] = number(p) + 1;
	return p;
}

static struct pair *pair_of(const struct as *as)
{
	return as->backend[AB_PAIR] ? &pairs[as->backend[AB_PAIR] - 1] : NULL;
}

/* The cache of an address space */

/* Note that a range is to be looked at before user code runs. */
static void note(struct as *as, uint64_t va, uint64_t pages, bool reduced)
{
	uint64_t *range = &as->backend[AB_RANGE];
	uint64_t n = as->backend[AB_RANGES];
	uint64_t end = va + pages * KEEL_PAGE_SIZE;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t from = NOTE_VA(range[i]), to = from + (range[i] & NOTE_PAGES) * KEEL_PAGE_SIZE;

		if (to < va || from > end)
			continue;
		/* It touches this one: both become one, and may touch yet another. */
		va = from < va ? from : va;
		end = to > end ? to : end;
		reduced |= !!(range[i] & NOTE_REDUCED);
		range[i] = range[--n];
		i = ~KEEL_U64(0);
	}
	pages = (end - va) / KEEL_PAGE_SIZE;
	if (n == RANGES && reduced) /* room is in one that is not needed, if there is any */
		for (uint64_t i = 0; i < n; i++)
			if (!(range[i] & NOTE_REDUCED))
				range[i] = range[--n];
	if (n < RANGES && pages <= NOTE_PAGES)
		range[n++] = NOTE(va, pages, reduced);
	else if (reduced)
		as->backend[AB_ALL] = 1;
	as->backend[AB_RANGES] = n;
}

/* Make the cache hold of a range what the tree has, as far as `runs` goes. */
static void refresh(struct mvcpu *v, struct pair *p, struct as *as, uint64_t va, uint64_t pages, bool reduced,
		    unsigned int *runs)
{
	const uint64_t end = va + pages * KEEL_PAGE_SIZE;
	uint64_t at = va, pte, n;

	n = *runs ? as_run(v->mon, as, &at, end, pages, &pte) : 0;
	if (reduced && !(n == pages))
		m_unmap(v, p, va, pages);
	while (n) {
		m_map(v, p, at, n, pte & PTE_ADDR, pte_cache_prot(pte), n <= POPULATE_MAX);
		/* In place of what had to go: U may be awake, and looks at its turn before M is done. */
		p->reduces |= reduced && !KEEL_BUG(49);
		at += n * KEEL_PAGE_SIZE;
		n = --*runs && at < end ? as_run(v->mon, as, &at, end, (end - at) / KEEL_PAGE_SIZE, &pte) : 0;
	}
}

/* Work off the notes, at an entry; the space's lock is held. */
static void catch_up(struct mvcpu *v, struct pair *p, struct as *as)
{
	const bool all = as->backend[AB_ALL];
	unsigned int runs = RUNS_MAX;

	if (all)
		m_drop(v, p);
	for (uint64_t i = 0; i < as->backend[AB_RANGES]; i++) {
		uint64_t note = as->backend[AB_RANGE + i];

		refresh(v, p, as, NOTE_VA(note), note & NOTE_PAGES, note & NOTE_REDUCED && !all, &runs);
	}
	as->backend[AB_ALL] = 0;
	if (p->reduces)
		m_finish(v, p);
	__atomic_store_n(&as->backend[AB_RANGES], 0, __ATOMIC_RELEASE);
}

static bool runs(const struct as *as)
{
	return __atomic_load_n(&as->running, __ATOMIC_SEQ_CST);
}

/*
 * Before something is taken from a space that nobody runs in: by a note, once its
 * threads are quiet for certain. The first time since it was entered that costs more
 * than having M do it. Returns whether M is to do it.
 */
static bool at_once(struct mvcpu *v, struct pair *p)
{
	if (!p->live || !p->entered)
		return false;
	if (!p->taken)
		return true;
	quiesce(v, p);
	return false;
}

/* A fault: what the tree has around it, in one go. Nothing of it takes anything away. */
static void map_around(struct mvcpu *v, struct pair *p, struct as *as, uint64_t va)
{
	unsigned int max = AROUND;

	if (p && p->live)
		refresh(v, p, as, va & ~(AROUND * KEEL_PAGE_SIZE - 1), AROUND, false, &max);
}

void k_user_map(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint64_t gpa, uint32_t prot,
		unsigned int flags)
{
	struct pair *p = pair_of(as);

	if (ways[v->id].faulting) {
		map_around(v, p, as, va);
	} else if (runs(as) || (p && flags & MB_REPLACED && at_once(v, p))) {
		if (!p || !p->live)
			return;
		m_map(v, p, va, pages, gpa, prot, flags & MB_POPULATE || pages <= AROUND);
		p->reduces |= flags & MB_REPLACED;
	} else {
		note(as, va, pages, flags & MB_REPLACED);
	}
}

void k_user_unmap(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages)
{
	struct pair *p = pair_of(as);

	if (!p)
		return;
	if (!runs(as) && !at_once(v, p))
		note(as, va, pages, true);
	else if (p->live)
		m_unmap(v, p, va, pages);
}

void k_user_protect(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint32_t prot)
{
	struct pair *p = pair_of(as);
	unsigned int max = 8;

	(void)prot;
	if (ways[v->id].faulting)
		map_around(v, p, as, va);
	else if (!p)
		return;
	else if (!runs(as) && !at_once(v, p))
		note(as, va, pages, true);
	else if (p->live) {
		refresh(v, p, as, va, pages, true, &max);
		p->reduces = true;
	}
}

void k_user_settle(struct mvcpu *v, struct as *as)
{
	struct pair *p = pair_of(as);

	/* What only adds waits for U's turn: run(). */
	if (!p || !p->live || !p->reduces)
		return;
	p->taken++;
	m_finish(v, p);
}

bool mb_as_create(struct mvcpu *v, struct as *as)
{
	(void)v, (void)as;
	return config()->user;
}

void mb_as_destroy(struct mvcpu *v, struct as *as)
{
	struct pair *p = pair_of(as);

	if (p) {
		make_clean(v, p);
		__atomic_store_n(&p->owner, NULL, __ATOMIC_RELEASE);
	}
	forget(as);
}

/* Entering and leaving user code */

/* A signal reached K's thread: if that is about to sleep until U hands over, it must not. */
void k_user_kicked(struct mvcpu *v)
{
	struct u_slot *s = (struct u_slot *)v->backend[K_SLOT_USER];
	uint32_t turn = s ? __atomic_load_n(&s->turn, __ATOMIC_SEQ_CST) : 0;

	if (turn)
		__atomic_compare_exchange_n(&s->turn, &turn, turn + 2, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Bytes of components, by xstate_bv, between a context's area and one in a slot. */
static void copy_components(uint8_t *to, const uint8_t *from, uint64_t which)
{
	for (which &= ~KEEL_U64(3); which; which &= which - 1) {
		unsigned int i = (unsigned int)__builtin_ctzll(which);

		if (i < sizeof(component) / sizeof(component[0]))
			copy(to + component[i].offset, from + component[i].offset, component[i].bytes);
	}
}

/*
 * Copy the words that differ. Between two hand-overs most of a slot stays as it is, and lines
 * that nobody writes to need not move between processors.
 */
static void renew(void *to, const void *from, uint64_t bytes)
{
	uint64_t *t = to;
	const uint64_t *f = from;

	for (uint64_t i = 0; i < bytes / 8; i++)
		if (t[i] != f[i])
			t[i] = f[i];
}

static void renew32(uint32_t *to, uint32_t value)
{
	if (*to != value)
		*to = value;
}

static void load(struct mvcpu *v, struct u_slot *s)
{
	const struct keel_user *u = &v->user;
	const uint8_t *from = v->copy.bytes;
	uint8_t *to = (uint8_t *)s + U_XSAVE_OFF;
	const uint64_t bv = *(const uint64_t *)(from + XSAVE_HEADER) & v->mon->xfeatures;
	const uint64_t header[8] = { KEEL_BUG(45) ? v->mon->xfeatures : bv };
	const uint64_t words[] = { all_components, U_SLOT_VA + v->id * U_SLOT_SIZE + U_XSAVE_OFF,
				   u->r8,	   u->r9,
				   u->r10,	   u->r11,
				   u->r12,	   u->r13,
				   u->r14,	   KEEL_BUG(46) ? s->r15 : u->r15,
				   u->rdi,	   u->rsi,
				   u->rbp,	   u->rbx,
				   u->rdx,	   u->rax,
				   u->rcx,	   u->rip,
				   0x33,	   (u->rflags & KEEL_USER_RFLAGS) | 0x202,
				   u->rsp,	   0x2b,
				   u->fs_base,	   u->gs_base };

	_Static_assert(US_RFBM + sizeof(words) == US_GS + 8, "words are in the slot's order");
	renew(&s->rfbm, words, sizeof(words));
	if (bv & 3)
		renew(to, from, XSAVE_LEGACY);
	/* It is loaded with any vector state, and is not what the header speaks of. */
	renew32((uint32_t *)(to + MXCSR), bv & 6 ? *(const uint32_t *)(from + MXCSR) : MXCSR_DEFAULT);
	renew(to + XSAVE_HEADER, header, sizeof(header));
	copy_components(to, from, bv);
}

/* What a U thread stopped for. */
struct stop {
	uint32_t sig;
	struct sigcontext_64 regs;
	uint64_t call_addr;
	uint32_t arch;
	uint64_t components; /* beyond x87 and SSE; of the slot's area with them, */
	const uint8_t *fp;   /* where it is in the slot: read once */
};

static bool in_slot(struct mvcpu *v, uint64_t at, uint64_t bytes)
{
	const uint64_t slot = U_SLOT_VA + v->id * U_SLOT_SIZE;

	return at >= slot + U_ALT_OFF && at <= slot + U_SLOT_SIZE - bytes && !(at & 7);
}

/* Into v->copy.bytes goes what is in the slot of the XSAVE area. False: there is no frame with the rest. */
static bool take(struct mvcpu *v, const struct u_slot *s, struct stop *stop)
{
	const uint8_t *base = (const uint8_t *)s - (U_SLOT_VA + v->id * U_SLOT_SIZE);
	uint8_t *to = v->copy.bytes;
	uint64_t bv, fp;

	stop->sig = *(const volatile uint32_t *)&s->sig;
	if (!stop->sig)
		return true;
	copy(&stop->regs, s->regs, sizeof(s->regs));
	stop->call_addr = *(const volatile uint64_t *)&s->sigsys.call_addr;
	stop->arch = *(const volatile uint32_t *)&s->sigsys.arch;
	copy(to, s->x87, XSAVE_LEGACY);
	*(uint32_t *)(to + MXCSR) &= mxcsr_mask;
	bv = *(const volatile uint64_t *)(s->x87 + XSAVE_HEADER) & v->mon->xfeatures;
	clear(to + XSAVE_HEADER, 64);
	*(uint64_t *)(to + XSAVE_HEADER) = bv;
	stop->components = bv & ~KEEL_U64(3);
	if (!stop->components)
		return true;
	fp = (uint64_t)stop->regs.fpstate;
	if (!in_slot(v, fp, v->mon->xsave_size))
		return false;
	stop->fp = base + fp;
	return true;
}

static void store(struct mvcpu *v, struct pair *p, const struct u_slot *slot, const struct stop *stop)
{
	const volatile struct u_slot *s = slot;
	const struct sigcontext_64 *r = &stop->regs;
	struct keel_user *u = &v->user;

	u->rip = r->ip;
	u->rsp = r->sp;
	u->rflags = (r->flags & KEEL_USER_RFLAGS) | 0x202;
	u->rax = r->ax;
	u->rbx = r->bx;
	u->rcx = r->cx;
	u->rdx = r->dx;
	u->rsi = r->si;
	u->rdi = r->di;
	u->rbp = r->bp;
	u->r8 = r->r8;
	u->r9 = r->r9;
	u->r10 = r->r10;
	u->r11 = r->r11;
	u->r12 = r->r12;
	u->r13 = r->r13;
	u->r14 = r->r14;
	u->r15 = r->r15;
	if (v->backend[K_SLOT_FSGSBASE]) {
		/* Within what a context may hold: the instructions take the other half, too. */
		u->fs_base = s->u_fs & BASE_MASK;
		u->gs_base = s->u_gs & BASE_MASK;
	} else if (s->selectors) {
		/* None there is has a base but 0. */
		p->fs[v->id] = u->fs_base = s->selectors & 0xffff ? 0 : u->fs_base;
		p->gs[v->id] = u->gs_base = s->selectors >> 16 ? 0 : u->gs_base;
	}
	copy_components(v->copy.bytes, stop->fp, stop->components);
}

/*
 * Wait until a thread hands over. Kicked meanwhile, and for a reason: make it. False:
 * it is dead, or does not hand over.
 */
static bool await(struct mvcpu *v, struct pair *p, struct u_slot *s, uint32_t seen)
{
	uint64_t until = 0, *ts = &v->backend[K_SLOT_DEADLINE];
	uint32_t turn;

	ways[v->id].slept = false;
	for (uint32_t i = s->spin; i; i--) {
		if (!__atomic_load_n(&s->turn, __ATOMIC_ACQUIRE))
			return alive(p);
		if (__atomic_load_n(&v->kick_seq, __ATOMIC_RELAXED) != seen)
			break;
		__asm__ volatile("pause");
	}
	ways[v->id].slept = true;
	__atomic_store_n(&s->k_asleep, 1, __ATOMIC_SEQ_CST);
	while ((turn = __atomic_load_n(&s->turn, __ATOMIC_SEQ_CST))) {
		uint32_t kicks = __atomic_load_n(&v->kick_seq, __ATOMIC_SEQ_CST);

		if (until || (kicks != seen && mon_user_event(v))) {
			uint64_t now = mb_now(v), next = now + 50 * NSEC_PER_MSEC;

			if (!until) {
				until = now + PATIENCE;
				__atomic_store_n(&s->kick, 1, __ATOMIC_SEQ_CST);
			} else if (now > until) {
				break;
			}
			sys3(__NR_tgkill, p->u, p->tid[v->id], U_SIG_KICK);
			ts[0] = next / (1000 * NSEC_PER_MSEC);
			ts[1] = next % (1000 * NSEC_PER_MSEC);
		}
		seen = kicks;
		sys6(__NR_futex, (uint64_t)&s->turn, FUTEX_WAIT_BITSET, turn, until ? (uint64_t)ts : 0, 0,
		     FUTEX_BITSET_MATCH_ANY);
	}
	__atomic_store_n(&s->k_asleep, 0, __ATOMIC_RELAXED);
	return !turn && alive(p);
}

/*
 * Give the thread its turn. Where it sleeps and M has something to do first, M is who
 * wakes it, without a way back to here in between.
 */
static void hand_over(struct mvcpu *v, struct as *as, struct pair *p, struct u_slot *s)
{
	if (__atomic_load_n(&p->n, __ATOMIC_RELAXED)) {
		mon_lock(&as->lock);
		if (p->n && !p->reduces && __atomic_load_n(&s->u_asleep, __ATOMIC_SEQ_CST)) {
			m_op(v, p, __NR_futex, U_SLOT_VA + v->id * U_SLOT_SIZE, FUTEX_WAKE, 1, 0, 0, 0);
			__atomic_store_n(&s->turn, 1, __ATOMIC_SEQ_CST);
			m_start(v, p);
			mon_unlock(&as->lock);
			return;
		}
		if (p->live)
			m_finish(v, p);
		mon_unlock(&as->lock);
	}
	__atomic_store_n(&s->turn, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&s->u_asleep, __ATOMIC_SEQ_CST))
		sys6(__NR_futex, (uint64_t)&s->turn, FUTEX_WAKE, 1, 0, 0, 0);
}

/* Let the thread run what was loaded, until it stops. */
static bool run(struct mvcpu *v, struct as *as, struct pair *p, struct u_slot *s, uint32_t seen)
{
	uint32_t posted;
	bool handed;

	renew32(&s->kick, 0);
	v->backend[K_SLOT_USER] = (uint64_t)s;
	posted = ticks();
	hand_over(v, as, p, s);
	handed = await(v, p, s, seen);
	v->backend[K_SLOT_USER] = 0;
	learn(v, s->started - posted, ticks() - s->started);
	return handed;
}

static uint32_t exception(struct mvcpu *v, uint32_t vector)
{
	mon_user_exception(v, vector);
	return KEEL_USER_EXCEPTION;
}

/* 0: the access can be tried again. */
static uint32_t fault(struct mvcpu *v, uint64_t va, bool write, bool fetch)
{
	bool retry;

	ways[v->id].faulting = true;
	retry = mon_user_fault(v, va, write, fetch);
	ways[v->id].faulting = false;
	return retry ? 0 : KEEL_USER_EXCEPTION;
}

/* The reason for a stop; 0 = none that the guest kernel has to know: user code goes on. */
static uint32_t reason(struct mvcpu *v, const struct stop *stop)
{
	struct keel_user *u = &v->user;

	if (stop->sig == U_SIG_KICK)
		return KEEL_USER_EVENT;
	if (stop->sig == SIGSYS) {
		if (stop->arch != AUDIT_ARCH_X86_64) {
			/* int 0x80 is known by the code segment, which sysenter changes. */
			if (stop->regs.cs != 0x33)
				return exception(v, KEEL_VEC_UD);
			u->rip -= 2;
			return exception(v, KEEL_VEC_GP);
		}
		if (!(stop->call_addr >> 63))
			return KEEL_USER_SYSCALL;
		/* The vsyscall page: the kernel went back to the caller. */
		u->rip = stop->call_addr;
		u->rsp -= 8;
		return fault(v, stop->call_addr, false, true);
	}
	if (stop->regs.cs != 0x33)
		return exception(v, KEEL_VEC_GP);
	/* There again, with nothing on the stack to go back to: no processor fault is in the frame. */
	if (stop->sig == SIGSEGV && u->rip >> 63)
		return fault(v, u->rip, false, true);
	if (stop->sig == SIGSEGV && stop->regs.trapno == KEEL_VEC_PF)
		return fault(v, stop->regs.cr2, stop->regs.err & X86_PF_WRITE, stop->regs.err & X86_PF_INSTR);
	/* A page fault that is a SIGBUS is the host's lack of memory; the rest is what the processor says. */
	return exception(v, stop->regs.trapno == KEEL_VEC_PF || stop->regs.trapno > KEEL_VEC_XM ? KEEL_VEC_GP
												: stop->regs.trapno);
}

/* The pair to run in, its cache up to date; NULL with *answer when there is none. */
static struct pair *ready(struct mvcpu *v, struct as *as, uint32_t *answer)
{
	struct pair *p = pair_of(as);

	if (p && p->live && !__atomic_load_n(&as->backend[AB_RANGES], __ATOMIC_ACQUIRE) && !as->backend[AB_ALL])
		return p;
	mon_lock(&as->lock);
	p = pair_of(as);
	if (p && !p->live) {
		/* Its user code destroyed it. Others that ran in it may not have come back yet. */
		if (__atomic_load_n(&as->running, __ATOMIC_SEQ_CST) != 1u << v->id) {
			mon_unlock(&as->lock);
			*answer = KEEL_USER_EVENT;
			return NULL;
		}
		__atomic_store_n(&p->owner, NULL, __ATOMIC_RELEASE);
		forget(as);
		p = NULL;
	}
	if (!p)
		p = acquire(v, as);
	if (p)
		catch_up(v, p, as);
	mon_unlock(&as->lock);
	*answer = p ? 0 : exception(v, KEEL_VEC_GP);
	return p;
}

uint32_t mb_user(struct mvcpu *v)
{
	struct as *as = v->user_as;
	struct stop stop;
	uint32_t why = 0;

	while (!why) {
		uint32_t seen = __atomic_load_n(&v->kick_seq, __ATOMIC_SEQ_CST);
		struct u_slot *s;
		struct pair *p;

		if (mon_user_event(v))
			return KEEL_USER_EVENT;
		p = ready(v, as, &why);
		if (!p)
			return why;
		s = u_slot(number(p), v->id);
		load(v, s);
		renew32(&s->spin, ways[v->id].together ? 0 : config()->user_spin);
		if (p->cpu[v->id] != place(v)) {
			p->cpu[v->id] = place(v);
			pin(p->tid[v->id], p->cpu[v->id]);
		}
		renew32(&s->flags, v->backend[K_SLOT_FSGSBASE]
					   ? US_FSGSBASE
					   : (p->fs[v->id] != v->user.fs_base ? US_SET_FS : 0) |
						     (p->gs[v->id] != v->user.gs_base ? US_SET_GS : 0));
		p->fs[v->id] = v->user.fs_base;
		p->gs[v->id] = v->user.gs_base;
		p->last = ++entries;
		p->taken = 0;
		p->used |= 1u << v->id;
		__atomic_or_fetch(&p->entered, 1u << v->id, __ATOMIC_SEQ_CST);
		if (!p->live || !run(v, as, p, s, seen) || !take(v, s, &stop)) {
			mon_lock(&as->lock);
			if (pair_of(as) == p && p->live)
				give_up(p);
			mon_unlock(&as->lock);
			return exception(v, KEEL_VEC_GP);
		}
		if (!stop.sig) {
			why = KEEL_USER_EVENT;
			p->fs[v->id] = p->gs[v->id] = ~KEEL_U64(0);
			break;
		}
		store(v, p, s, &stop);
		why = reason(v, &stop);
	}
	return why;
}
