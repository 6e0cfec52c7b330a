/* SPDX-License-Identifier: MIT */
/*
 * The ring3 backend, host side: builds K's memory, starts it behind its layers,
 * serves its remote calls and notices its death.
 *
 * Everything in `mem` is K's to write at any time. What is read from it here is
 * copied once and bounded; nothing in it is used as an address or an index
 * without a check.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../calls.h"
#include "../../log.h"
#include "../../monitor/monitor.h"
#include "layout.h"
#include "ring3.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

/* K's program, linked by ring3.mk. */
extern const char ring3_k_image[], ring3_k_image_end[];

#define READY_TIMEOUT_S 10
#define SPIN_ROUNDS 5000    /* 100 to 200 us of `pause`, by processor */
#define YIELD_ROUNDS 200    /* rounds of sched_yield on a machine of one core */
#define TABLES_MIN 1024	    /* page-table pages any partition may have */
#define PAGES_PER_TABLE 128 /* one more table for so many pages of RAM */

struct ring3 {
	struct partition *p;
	uint8_t *mem; /* vCPU blocks, struct mon, filter, arena */
	uint64_t mem_size, arena_off, arena_pages;
	struct spawned k;
	pthread_t server, reaper;
	bool serving, reaping;
	bool stopping;	/* the death to come is ours */
	uint32_t state; /* futex: enum state */
	int64_t ready_err;
	uint32_t ready_step;
	struct mon_fatal fatal; /* copied when K reported it */
	struct keel_frame seen; /* where K was when it was stopped from outside */
	bool have_seen;
	uint64_t remote_calls, sleeps;
	enum { TREE_UNKNOWN, TREE_SOUND, TREE_BROKEN } tree; /* looked at after K stopped */
	uint64_t tree_root;				     /* offset in the arena */
};

enum state { STARTING, READY, RUNNING, DEAD };

static struct mvcpu *vcpu0(const struct ring3 *b)
{
	return mv_of((struct keel_vcpu *)b->mem);
}

static struct mon *mon_of(const struct ring3 *b)
{
	return (struct mon *)(b->mem + K_VCPU_SPAN);
}

static long futex(uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

static void set_state(struct ring3 *b, uint32_t state)
{
	__atomic_store_n(&b->state, state, __ATOMIC_SEQ_CST);
	futex(&b->state, FUTEX_WAKE, INT32_MAX, NULL);
}

/* Copy from K's memory, once: the compiler may not go back to where K can change it. */
static void fetch(void *dst, const void *src, size_t n)
{
	memcpy(dst, src, n);
	__asm__ volatile("" : : "r"(dst) : "memory");
}

/* Building K's memory */

static uint64_t align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) / to * to;
}

static bool one_core(void)
{
	cpu_set_t set;

	return !sched_getaffinity(0, sizeof(set), &set) && CPU_COUNT(&set) == 1;
}

static int build(struct ring3 *b)
{
	struct partition *p = b->p;
	const uint64_t ram_pages = p->ram_size / KEEL_PAGE_SIZE;
	uint64_t live_off, log_off;
	struct k_config *c;
	struct mon *m;
	int fd, n;

	if (p->ram_size > K_RAM_MAX || p->boot_records > MON_MAX_BOOT) {
		host_say("ring3: %s", p->boot_records > MON_MAX_BOOT ? "the image has too many segments"
								     : "more than 64 GiB of RAM");
		return -E2BIG;
	}
	b->arena_pages = TABLES_MIN + ram_pages / PAGES_PER_TABLE;
	live_off = K_VCPU_SPAN + K_DYNAMIC_OFF;
	log_off = live_off + b->arena_pages * sizeof(uint32_t);
	b->arena_off = align_up(log_off + ram_pages / 8 + 8, KEEL_PAGE_SIZE);
	b->mem_size = b->arena_off + b->arena_pages * KEEL_PAGE_SIZE;

	fd = memfd_create("keel-monitor", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)b->mem_size))
		goto fail;
	b->mem = mmap(NULL, b->mem_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (b->mem == MAP_FAILED)
		goto fail;

	m = mon_of(b);
	_Static_assert(sizeof(*m) <= K_FILTER_OFF, "struct mon overlaps the filter");
	m->ram_size = p->ram_size;
	m->abi_gpa = p->abi_gpa;
	m->abi_size = p->abi_size;
	m->ram = (uint8_t *)K_RAM_VA;
	m->clock = (const struct keel_clock *)K_ABI_VA;
	memcpy(m->offered, p->offered, sizeof(m->offered));
	m->entry = p->entry;
	m->start_va = K_ABI_VA + KEEL_PAGE_SIZE;
	m->gate_va = K_GATE_VA;
	m->vcpus = p->vcpus;
	m->boot_records = p->boot_records;
	memcpy(m->boot_map, p->boot_map, p->boot_records * sizeof(m->boot_map[0]));
	snprintf(m->host_id, sizeof(m->host_id), "Keel (ring3)");
	m->arena = (uint8_t *)K_VCPU_VA + b->arena_off;
	m->arena_pages = b->arena_pages;
	m->table_live = (uint32_t *)(K_VCPU_VA + live_off);
	m->hostlog = (uint8_t *)K_VCPU_VA + log_off;

	c = (struct k_config *)m->backend;
	c->mon_size = b->mem_size;
	/* Its own window twice, and RAM mapped four times over; more is refilled on demand. */
	c->address_space = 2 * (b->mem_size + p->abi_size + (64 << 20)) + 5 * p->ram_size;
	c->yield = one_core();
	c->spin = c->yield ? YIELD_ROUNDS : SPIN_ROUNDS;
#ifdef KEEL_BUGS
	c->bug = getenv("KEEL_BUG") ? (uint32_t)atoi(getenv("KEEL_BUG")) : 0;
#endif
	n = ring3_filter(p, (struct sock_filter *)((uint8_t *)m + K_FILTER_OFF),
			 (K_DYNAMIC_OFF - K_FILTER_OFF) / sizeof(struct sock_filter));
	if (n < 0) {
		errno = -n;
		goto fail;
	}
	c->filter_len = (uint32_t)n;
	p->vcpu[0] = (struct keel_vcpu __pvshared *)b->mem;
	p->source_port = m->source_port;
	return fd;
fail:
	n = -errno;
	host_say("ring3: building the guest process: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	return n;
}

/* Serving remote calls */

static const char *const step_names[] = {
	[K_STEP_EVACUATE] = "unmapping what it was born with",
	[K_STEP_SIGNALS] = "signal set-up",
	[K_STEP_TIMER] = "timer",
	[K_STEP_LIMITS] = "limits",
	[K_STEP_FILTER] = "the system call filter",
	[K_STEP_BOOT_MAP] = "the image's first mappings",
};

static void report_fatal(struct ring3 *b)
{
	static const char *const names[] = { "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "?",
					     "#TS", "#NP", "#SS", "#GP", "#PF", "?",   "#MF", "#AC", "#MC", "#XM" };
	struct outcome o = { .kind = OUTCOME_CRASH };
	struct mon_fatal f;
	const char *vec;
	char *why = o.crash.reason;
	const size_t n = sizeof(o.crash.reason);

	fetch(&f, &vcpu0(b)->fatal, sizeof(f));
	vec = f.regs.vector < sizeof(names) / sizeof(names[0]) ? names[f.regs.vector] : "?";
	b->fatal = f;
	o.crash.regs = f.regs;
	o.crash.have_regs = true;
	switch (f.kind) {
	case MON_FATAL_TRAP:
		snprintf(why, n, "trap %u (%s) at %#llx, address %#llx, error %#llx, and no trap entry is set",
			 f.regs.vector, vec, (unsigned long long)f.regs.rip, (unsigned long long)f.regs.addr,
			 (unsigned long long)f.regs.error);
		break;
	case MON_FATAL_DOUBLE:
		snprintf(why, n, "trap %u (%s) at %#llx, address %#llx, while a trap's slot was in use: double fault",
			 f.regs.vector, vec, (unsigned long long)f.regs.rip, (unsigned long long)f.regs.addr);
		break;
	case MON_FATAL_SYSCALL:
		snprintf(why, n, "forbidden system call %lld (arch %#llx) at %#llx", (long long)f.arg[0],
			 (unsigned long long)f.arg[1], (unsigned long long)f.regs.rip);
		break;
	default:
		if (f.arg[0])
			snprintf(why, n,
				 "signal %llu in the monitor at %#llx, address %#llx: its state was overwritten",
				 (unsigned long long)f.arg[0], (unsigned long long)f.regs.rip,
				 (unsigned long long)f.regs.addr);
		else
			snprintf(why, n, "the host's limits are exhausted (error %lld)", -(long long)f.arg[1]);
	}
	partition_end(b->p, &o);
}

/* Serve one call and answer it; false when it is never answered, because the partition ended with it. */
static bool serve(struct ring3 *b, struct mon_remote *r)
{
	uint64_t arg[5], value = 0;
	int64_t status;
	uint32_t id;

	fetch(&id, &r->id, sizeof(id));
	fetch(arg, r->word, sizeof(arg));
	b->remote_calls++;
	switch (id) {
	case MON_REMOTE_READY:
		if (b->state != STARTING)
			break;
		b->ready_err = (int64_t)arg[0];
		b->ready_step = (uint32_t)arg[1];
		set_state(b, READY);
		/* Its first instruction waits for start(). */
		while (__atomic_load_n(&b->state, __ATOMIC_SEQ_CST) == READY)
			futex(&b->state, FUTEX_WAIT, READY, NULL);
		break;
	case MON_REMOTE_FATAL:
		report_fatal(b);
		return false;
	default:
		status = partition_remote_call(b->p, 0, id, arg, &value);
		r->word[0] = (uint64_t)status;
		r->word[1] = value;
		/* The partition has ended: nothing may run on. */
		if (status == KEEL_OK && (id == KEEL_CALL_BASE_SHUTDOWN || id == KEEL_CALL_CRASH))
			return false;
	}
	__atomic_store_n(&r->turn, 0, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&r->guest_asleep, __ATOMIC_SEQ_CST))
		futex(&r->turn, FUTEX_WAKE, 1, NULL);
	return true;
}

static void *server(void *arg)
{
	struct ring3 *b = arg;
	struct mon_remote *r = &vcpu0(b)->remote;
	const bool yield = one_core();
	const unsigned int rounds = yield ? YIELD_ROUNDS : SPIN_ROUNDS;
	unsigned int spun = rounds; /* nothing to expect before the first call */
	uint32_t turn;

	while (!__atomic_load_n(&b->stopping, __ATOMIC_SEQ_CST)) {
		if (__atomic_load_n(&r->turn, __ATOMIC_ACQUIRE) == 1) {
			bool answered = serve(b, r);

			spun = 0;
			/* Not asked of turn: the guest may have made its next call by now. Wait for stop() then. */
			if (!answered) {
				while (!__atomic_load_n(&b->stopping, __ATOMIC_SEQ_CST))
					futex(&b->state, FUTEX_WAIT, b->state, NULL);
				break;
			}
			continue;
		}
		if (spun++ < rounds) {
			/* The guest may be waiting for this very processor. */
			if (yield || spun % K_SPIN_YIELD == 0)
				sched_yield();
			else
				__builtin_ia32_pause();
			continue;
		}
		__atomic_store_n(&r->host_asleep, 1, __ATOMIC_SEQ_CST);
		/* Whatever else the guest made of it is no call either, and nothing to stay awake for. */
		turn = __atomic_load_n(&r->turn, __ATOMIC_SEQ_CST);
		if (turn != 1 && !__atomic_load_n(&b->stopping, __ATOMIC_SEQ_CST)) {
			b->sleeps++;
			futex(&r->turn, FUTEX_WAIT, turn, NULL);
		}
		__atomic_store_n(&r->host_asleep, 0, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

/* K's death, when it was not ours. */
static void *reaper(void *arg)
{
	struct ring3 *b = arg;
	struct outcome o = { .kind = OUTCOME_KILLED };
	siginfo_t si = { 0 };

	while (waitid(P_PIDFD, (id_t)b->k.pidfd, &si, WEXITED | WNOWAIT) && errno == EINTR)
		;
	if (__atomic_load_n(&b->stopping, __ATOMIC_SEQ_CST))
		return NULL;
	if (si.si_code == CLD_EXITED)
		snprintf(o.crash.reason, sizeof(o.crash.reason), "the guest process ended by itself, status %d",
			 si.si_status);
	else
		snprintf(o.crash.reason, sizeof(o.crash.reason), "the guest process was killed by signal %d (%s)",
			 si.si_status, strsignal(si.si_status));
	partition_end(b->p, &o);
	set_state(b, DEAD);
	return NULL;
}

/* The backend's operations */

static int wait_ready(struct ring3 *b)
{
	const struct timespec left = { READY_TIMEOUT_S, 0 };

	while (__atomic_load_n(&b->state, __ATOMIC_SEQ_CST) == STARTING)
		if (futex(&b->state, FUTEX_WAIT, STARTING, &left) && errno == ETIMEDOUT)
			return -ETIMEDOUT;
	return __atomic_load_n(&b->state, __ATOMIC_SEQ_CST) == READY ? 0 : -ECHILD;
}

static bool layers_ok(struct ring3 *b)
{
	char refused[256] = "";
	size_t at = 0;

	for (unsigned int l = 0; l < LAYER_COUNT; l++)
		if (!(b->k.layers >> l & 1))
			at += (size_t)snprintf(refused + at, sizeof(refused) - at, "%s%s", at ? ", " : "",
					       sandbox_layer_name(l));
	host_verbose("ring3: guest process %d, system call filter of %u instructions", (int)b->k.pid,
		     ((struct k_config *)mon_of(b)->backend)->filter_len);
	if (!at) {
		host_verbose("ring3: every layer is in force");
		return true;
	}
	host_say("ring3: layers this machine refused: %s", refused);
	if (b->p->opt->require_sandbox)
		host_say("ring3: --require-sandbox asks for all of them");
	return !b->p->opt->require_sandbox;
}

/* Where is it? Asked when it is stopped for no fault of its own, as by a timeout. */
static void look(struct ring3 *b)
{
	struct user_regs_struct r;
	struct keel_frame *f = &b->seen;
	int status;

	if (ptrace(PTRACE_SEIZE, b->k.pid, NULL, NULL))
		return;
	if (!ptrace(PTRACE_INTERRUPT, b->k.pid, NULL, NULL) && waitpid(b->k.pid, &status, __WALL) == b->k.pid &&
	    WIFSTOPPED(status) && !ptrace(PTRACE_GETREGS, b->k.pid, NULL, &r)) {
		f->rip = r.rip;
		f->rsp = r.rsp;
		f->rflags = (r.eflags & ~KEEL_RFLAGS_IF) |
			    (keel_shared_load8(&b->p->vcpu[0]->if_enabled) ? KEEL_RFLAGS_IF : 0);
		f->rax = r.rax;
		f->rbx = r.rbx;
		f->rcx = r.rcx;
		f->rdx = r.rdx;
		f->rsi = r.rsi;
		f->rdi = r.rdi;
		f->rbp = r.rbp;
		f->r8 = r.r8;
		f->r9 = r.r9;
		f->r10 = r.r10;
		f->r11 = r.r11;
		f->r12 = r.r12;
		f->r13 = r.r13;
		f->r14 = r.r14;
		f->r15 = r.r15;
		/* Inside the monitor the guest's own place is the call it made. */
		b->have_seen = r.rip < KEEL_VA_END;
	}
}

static void ring3_stop(struct partition *p)
{
	struct ring3 *b = p->backend;

	__atomic_store_n(&b->stopping, true, __ATOMIC_SEQ_CST);
	if (b->k.pid > 0) {
		if (p->outcome.kind == OUTCOME_TIMEOUT || p->outcome.kind == OUTCOME_STOPPED)
			look(b);
		/* Not by number: look() may have waited for its death already. */
		syscall(SYS_pidfd_send_signal, b->k.pidfd, SIGKILL, NULL, 0);
		if (b->reaping)
			pthread_join(b->reaper, NULL);
		b->reaping = false;
		waitpid(b->k.pid, NULL, 0);
		close(b->k.pidfd);
		sandbox_clean(&b->k);
		b->k.pid = 0;
	}
	set_state(b, DEAD);
	if (b->serving) {
		/* It sleeps on turn, or on state. */
		vcpu0(b)->remote.host_asleep = 0;
		while (pthread_tryjoin_np(b->server, NULL) == EBUSY) {
			futex(&vcpu0(b)->remote.turn, FUTEX_WAKE, INT32_MAX, NULL);
			futex(&b->state, FUTEX_WAKE, INT32_MAX, NULL);
			usleep(100);
		}
		b->serving = false;
	}
}

static void ring3_destroy(struct partition *p)
{
	struct ring3 *b = p->backend;

	if (!b)
		return;
	ring3_stop(p);
	if (b->mem && b->mem != MAP_FAILED)
		munmap(b->mem, b->mem_size);
	p->vcpu[0] = NULL;
	p->source_port = NULL;
	free(b);
	p->backend = NULL;
}

static int k_program(void)
{
	const size_t len = (size_t)(ring3_k_image_end - ring3_k_image);
	/* Linux before 6.3 does not know MFD_EXEC; later ones may make files without it not executable. */
	int fd = memfd_create("keel-guest", MFD_CLOEXEC | MFD_EXEC);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("keel-guest", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, ring3_k_image, len) != (ssize_t)len) {
		close(fd);
		return -EIO;
	}
	return fd;
}

/* What K may make the kernel spend: its files, once over in kernel page tables, and change. */
static uint64_t memory_of(const struct ring3 *b)
{
	return b->p->ram_size + 2 * b->mem_size + (32 << 20);
}

static int ring3_create(struct partition *p)
{
	struct ring3 *b = calloc(1, sizeof(*b));
	const char *what = "";
	int mem_fd, exe, err;

	if (!b)
		return -ENOMEM;
	b->p = p;
	p->backend = b;
	mem_fd = build(b);
	if (mem_fd < 0) {
		err = mem_fd;
		goto fail;
	}
	exe = k_program();
	if (exe < 0) {
		host_say("ring3: making the guest process's program: %s", strerror(-exe));
		err = exe;
		close(mem_fd);
		goto fail;
	}
	{
		const int fds[] = { p->ram_fd, p->abi_fd, mem_fd, p->doorbell_fd };

		err = sandbox_spawn(exe, fds, sizeof(fds) / sizeof(fds[0]), memory_of(b), &b->k, &what);
	}
	close(exe);
	close(mem_fd);
	if (err) {
		b->k.pid = 0;
		host_say("ring3: starting the guest process: %s: %s", what, strerror(-err));
		goto fail;
	}
	b->serving = !pthread_create(&b->server, NULL, server, b);
	b->reaping = !pthread_create(&b->reaper, NULL, reaper, b);
	if (!b->serving || !b->reaping) {
		err = -EAGAIN;
		host_say("ring3: starting threads: %s", strerror(EAGAIN));
		goto fail;
	}
	err = wait_ready(b);
	{
		int child = sandbox_settle(&b->k, &what);

		if (err) {
			if (child)
				host_say("ring3: the guest process did not start: %s: %s", what, strerror(-child));
			else
				host_say("ring3: the guest process did not start: %s",
					 err == -ETIMEDOUT ? "no answer" : p->outcome.crash.reason);
			goto fail;
		}
	}
	if (b->ready_err) {
		err = (int)b->ready_err;
		host_say("ring3: the guest process could not be built: %s: %s",
			 b->ready_step < sizeof(step_names) / sizeof(step_names[0]) && step_names[b->ready_step]
				 ? step_names[b->ready_step]
				 : "?",
			 b->ready_step == K_STEP_BOOT_MAP ? "out of page tables" : strerror(-err));
		goto fail;
	}
	if (!layers_ok(b)) {
		err = -EPERM;
		goto fail;
	}
	return 0;
fail:
	ring3_destroy(p);
	return err;
}

static int ring3_start(struct partition *p)
{
	set_state(p->backend, RUNNING);
	return 0;
}

static void ring3_kick(struct partition *p, unsigned int vcpu)
{
	struct ring3 *b = p->backend;

	(void)vcpu;
	syscall(SYS_pidfd_send_signal, b->k.pidfd, SIGUSR1, NULL, 0);
}

static void ring3_dump(struct partition *p, unsigned int vcpu)
{
	struct ring3 *b = p->backend;

	__atomic_store_n(&vcpu0(b)->dump_pending, 1, __ATOMIC_SEQ_CST);
	ring3_kick(p, vcpu);
}

/*
 * The tree is in K's reach. What a stopped K left is walked only when it is one:
 * each table inside the arena and referred to once, so that a walk is bounded by
 * the arena's size.
 */
static bool sound(const struct ring3 *b, uint64_t table, unsigned int level, uint8_t *seen)
{
	const uint64_t *t = (const uint64_t *)(b->mem + b->arena_off + table);

	if (table / KEEL_PAGE_SIZE >= b->arena_pages || seen[table / KEEL_PAGE_SIZE])
		return false;
	seen[table / KEEL_PAGE_SIZE] = 1;
	for (unsigned int i = 0; level && i < KEEL_PAGE_SIZE / sizeof(*t); i++)
		if (t[i] && !(level == 1 && t[i] & PTE_PS) &&
		    (t[i] & PTE_PS || !sound(b, t[i] & PTE_ADDR, level - 1, seen)))
			return false;
	return true;
}

static bool tree_sound(struct ring3 *b)
{
	uint64_t root = (uint64_t)mon_of(b)->as0.root - (K_VCPU_VA + b->arena_off);
	uint8_t *seen;

	if (b->tree == TREE_UNKNOWN) {
		seen = calloc(b->arena_pages, 1);
		b->tree = seen && !(root % KEEL_PAGE_SIZE) && sound(b, root, 3, seen) ? TREE_SOUND : TREE_BROKEN;
		b->tree_root = root;
		free(seen);
		if (b->tree == TREE_BROKEN)
			host_say("ring3: the guest overwrote its page tables; its memory cannot be shown");
	}
	return b->tree == TREE_SOUND;
}

static bool ring3_next_mapping(struct partition *p, uint64_t va, struct mapping *out)
{
	struct ring3 *b = p->backend;
	struct mon *m;
	uint64_t pte, n;

	if (!tree_sound(b))
		return false;
	/* as.c wants a struct mon; only what its walk uses is filled in. */
	m = calloc(1, sizeof(*m));
	if (!m)
		return false;
	m->arena = b->mem + b->arena_off;
	m->arena_pages = b->arena_pages;
	m->as0.root = (uint64_t *)(m->arena + b->tree_root);
	if (va < KEEL_VA_MIN)
		va = KEEL_VA_MIN;
	n = as_run(m, &m->as0, &va, KEEL_VA_END, p->ram_size / KEEL_PAGE_SIZE, &pte);
	free(m);
	if (!n)
		return false;
	out->va = va;
	out->gpa = pte & PTE_ADDR;
	out->len = n * KEEL_PAGE_SIZE;
	out->prot = pte_prot(pte);
	return true;
}

static bool ring3_snapshot(struct partition *p, unsigned int vcpu, struct crash_info *c)
{
	struct ring3 *b = p->backend;
	const struct mvcpu *v = vcpu0(b);
	/* The next entry to be used is the oldest one, or holds the call that has not returned. */
	const unsigned int next = v->calls_made / MON_TRACE_SIZE;

	if (vcpu)
		return false;
	c->traces = 0;
	for (unsigned int i = 0; i <= MON_TRACE && c->traces < TRACE_CALLS; i++) {
		struct trace_entry e;

		_Static_assert(sizeof(e) == sizeof(v->trace[0]) && TRACE_CALLS == MON_TRACE, "one layout");
		memcpy(&e, &v->trace[(next + i) % MON_TRACE], sizeof(e));
		if (e.id && !!e.returned == (i < MON_TRACE))
			c->trace[c->traces++] = e;
	}
	if (b->fatal.kind) {
		c->regs = b->fatal.regs;
		c->have_regs = true;
	} else if (b->have_seen) {
		c->regs = b->seen;
		c->have_regs = true;
	} else if (v->guest_rsp) {
		/* The guest last left through the gate: its frame starts at the return address. */
		struct mapping map;
		uint64_t rsp = v->guest_rsp, rip = 0;

		if (ring3_next_mapping(p, rsp & ~(KEEL_PAGE_SIZE - 1), &map) && map.va <= rsp &&
		    rsp + 8 <= map.va + map.len)
			partition_copy_from(p, &rip, map.gpa + (rsp - map.va), 8);
		memset(&c->regs, 0, sizeof(c->regs));
		c->regs.rip = rip;
		c->regs.rsp = rsp + 8;
		c->regs.rbp = v->guest_rbp;
		c->have_regs = rip != 0;
	}
	return true;
}

static void ring3_stats(struct partition *p, void *f)
{
	const struct ring3 *b = p->backend;

	fprintf(f, "ring3.remote_calls %llu\n", (unsigned long long)b->remote_calls);
	fprintf(f, "ring3.server_sleeps %llu\n", (unsigned long long)b->sleeps);
	fprintf(f, "ring3.tables %u\n", mon_of(b)->tables);
}

static unsigned int ring3_counters(struct partition *p, struct keel_stats_entry *e, unsigned int max)
{
	const struct mvcpu *v = vcpu0(p->backend);
	unsigned int n = max < KEEL_CALL_COUNT ? max : KEEL_CALL_COUNT;

	for (unsigned int i = 0; i < n; i++)
		e[i] = (struct keel_stats_entry){ call_table[i].id, 0, v->count[i].calls, v->count[i].errors,
						  v->count[i].work };
	return n;
}

const struct backend_ops ring3_backend = {
	.name = "ring3",
	.create = ring3_create,
	.start = ring3_start,
	.kick = ring3_kick,
	.dump = ring3_dump,
	.stop = ring3_stop,
	.destroy = ring3_destroy,
	.next_mapping = ring3_next_mapping,
	.snapshot = ring3_snapshot,
	.stats = ring3_stats,
	.counters = ring3_counters,
};
