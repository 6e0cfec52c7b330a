/* SPDX-License-Identifier: MIT */
/*
 * The ring3 backend, host side: starts K behind its layers, hands its remote
 * calls to monmem.c and notices its death.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../devices/device.h"
#include "../../image.h"
#include "../../log.h"
#include "../../seal.h"
#include "../monmem.h"
#include "k_user.h"
#include "layout.h"
#include "ring3.h"

#define READY_TIMEOUT_S 10
#define SPIN_ROUNDS 5000 /* 100 to 200 us of `pause`, by processor */
/*
 * Longer than a wake-up between processors and user code's work between two calls
 * together, or else neither side is awake when the other hands over.
 */
#define USER_SPIN_ROUNDS 6000
#define YIELD_ROUNDS 200 /* rounds of sched_yield on a machine of one core */

/* Serves one vCPU's remote calls. */
struct server {
	struct ring3 *b;
	unsigned int vcpu;
	pthread_t thread;
	bool serving;
	uint64_t sleeps;
};

struct ring3 {
	struct partition *p;
	struct monmem mm;
	struct spawned k;
	struct server server[MON_MAX_VCPUS];
	pthread_t reaper;
	bool reaping;
	bool stopping;	/* the death to come is ours */
	uint32_t state; /* futex: enum state */
	int64_t ready_err;
	uint32_t ready_step;
};

enum state { STARTING, READY, RUNNING, DEAD };

static long futex(uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

static void set_state(struct ring3 *b, uint32_t state)
{
	__atomic_store_n(&b->state, state, __ATOMIC_SEQ_CST);
	futex(&b->state, FUTEX_WAKE, INT32_MAX, NULL);
}

static uint32_t get_state(struct ring3 *b)
{
	return __atomic_load_n(&b->state, __ATOMIC_SEQ_CST);
}

/* Building K's memory */

static bool one_core(void)
{
	cpu_set_t set;

	return !sched_getaffinity(0, sizeof(set), &set) && CPU_COUNT(&set) == 1;
}

static struct k_config *config(struct ring3 *b)
{
	return (struct k_config *)monmem_mon(&b->mm)->backend;
}

static int build(struct ring3 *b)
{
	struct partition *p = b->p;
	struct k_config *c;
	int err;

	err = monmem_create(&b->mm, p, "ring3", K_PAIRS_SIZE);
	if (err)
		return err;
	c = config(b);
	c->mon_size = b->mm.size;
	/* Its own window twice, and RAM mapped four times over; more is refilled on demand. */
	c->address_space = U_ARENA_SIZE + 2 * (b->mm.size + p->abi_size + (64 << 20)) + 5 * p->ram_size;
	c->yield = one_core();
	c->spin = c->yield ? YIELD_ROUNDS : SPIN_ROUNDS;
#ifdef KEEL_BUGS
	c->bug = getenv("KEEL_BUG") ? (uint32_t)atoi(getenv("KEEL_BUG")) : 0;
#endif
	c->user = 1;
	c->user_spin = c->yield ? 0 : USER_SPIN_ROUNDS;
	err = ring3_nursery_filter((struct sock_filter *)((uint8_t *)monmem_mon(&b->mm) + K_N_FILTER_OFF),
				   (K_M_FILTER_OFF - K_N_FILTER_OFF) / sizeof(struct sock_filter));
	c->n_filter_len = (uint32_t)err;
	if (err >= 0)
		err = ring3_mapper_filter(p, (struct sock_filter *)((uint8_t *)monmem_mon(&b->mm) + K_M_FILTER_OFF),
					  K_M_FILTER_MAX);
	c->m_filter_len = (uint32_t)err;
	if (err < 0) {
		host_say("ring3: building the system call filters: %s", strerror(-err));
		return err;
	}
	return 0;
}

/*
 * Without a PID namespace there is no user code: its threads are signalled by numbers
 * that the filter cannot know. 0, or -ENOTSUP when the image cannot do without.
 */
static int without_user(struct ring3 *b)
{
	const uint64_t lost = KEEL_U64(1) << KEEL_EXT_AS | KEEL_U64(1) << KEEL_EXT_USER;

	b->p->offered[0] &= ~lost;
	monmem_mon(&b->mm)->offered[0] = b->p->offered[0];
	if (b->p->image->required[0] & lost) {
		host_say("ring3: no PID namespace here, so no user code, which the image requires");
		return -ENOTSUP;
	}
	host_say("ring3: no PID namespace: guest user code is not offered");
	return 0;
}

/* While K starts, for it is of K's own number: its init's in its PID namespace. */
static int hand_filter(struct ring3 *b)
{
	struct k_config *c = config(b);
	int n;

	c->tgid = b->k.layers >> LAYER_PID_NS & 1 ? 1 : (uint32_t)b->k.pid;
	if (c->tgid != 1) {
		n = without_user(b);
		if (n)
			return n;
	}
	n = ring3_filter(b->p, c->tgid, c->tgid == 1,
			 (struct sock_filter *)((uint8_t *)monmem_mon(&b->mm) + K_FILTER_OFF),
			 (K_N_FILTER_OFF - K_FILTER_OFF) / sizeof(struct sock_filter));
	if (n < 0) {
		host_say("ring3: building the system call filter: %s", strerror(-n));
		return n;
	}
	__atomic_store_n(&c->filter_len, (uint32_t)n, __ATOMIC_SEQ_CST);
	futex(&c->filter_len, FUTEX_WAKE, 1, NULL);
	return 0;
}

/* Serving remote calls */

static const char *const step_names[] = {
	[K_STEP_EVACUATE] = "unmapping what it was born with",
	[K_STEP_SIGNALS] = "signal set-up",
	[K_STEP_TIMER] = "timers",
	[K_STEP_THREADS] = "threads",
	[K_STEP_LIMITS] = "limits",
	[K_STEP_FILTER] = "the system call filter",
	[K_STEP_USER] = "processes for user code",
	[K_STEP_BOOT_MAP] = "the image's first mappings",
};

/* Serve one call and answer it; false when it is never answered, because the partition ended with it. */
static bool serve(struct ring3 *b, unsigned int vcpu, struct mon_remote *r)
{
	uint64_t arg[5];
	uint32_t id;

	switch (monmem_serve(&b->mm, vcpu, &id, arg)) {
	case MONMEM_ENDED:
		return false;
	case MONMEM_ANSWERED:
		break;
	case MONMEM_OTHERS:
		if (id != MON_REMOTE_READY || vcpu || get_state(b) != STARTING)
			break;
		b->ready_err = (int64_t)arg[0];
		b->ready_step = (uint32_t)arg[1];
		set_state(b, READY);
		/* Its first instruction waits for start(). */
		while (get_state(b) == READY)
			futex(&b->state, FUTEX_WAIT, READY, NULL);
		monmem_answer(&b->mm, vcpu, KEEL_OK, 0);
		break;
	}
	__atomic_store_n(&r->turn, 0, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&r->guest_asleep, __ATOMIC_SEQ_CST))
		futex(&r->turn, FUTEX_WAKE, 1, NULL);
	return true;
}

static void *server(void *arg)
{
	struct server *s = arg;
	struct ring3 *b = s->b;
	struct mon_remote *r = &monmem_vcpu(&b->mm, s->vcpu)->remote;
	const bool yield = one_core();
	const unsigned int rounds = yield ? YIELD_ROUNDS : SPIN_ROUNDS;
	unsigned int spun = rounds; /* nothing to expect before the first call */
	uint32_t turn;

	while (!__atomic_load_n(&b->stopping, __ATOMIC_SEQ_CST)) {
		if (__atomic_load_n(&r->turn, __ATOMIC_ACQUIRE) == 1) {
			bool answered = serve(b, s->vcpu, r);

			spun = 0;
			/* Not asked of turn: the guest may have made its next call by now. Wait for stop() then. */
			if (!answered) {
				while (!__atomic_load_n(&b->stopping, __ATOMIC_SEQ_CST))
					futex(&b->state, FUTEX_WAIT, get_state(b), NULL);
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
			s->sleeps++;
			futex(&r->turn, FUTEX_WAIT, turn, NULL);
		}
		__atomic_store_n(&r->host_asleep, 0, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static bool start_servers(struct ring3 *b)
{
	for (unsigned int n = 0; n < b->p->vcpus; n++) {
		struct server *s = &b->server[n];

		s->b = b;
		s->vcpu = n;
		s->serving = !pthread_create(&s->thread, NULL, server, s);
		if (!s->serving)
			return false;
	}
	return true;
}

/* It sleeps on turn, or on state. */
static void end_server(struct ring3 *b, struct server *s)
{
	uint32_t *turn = &monmem_vcpu(&b->mm, s->vcpu)->remote.turn;

	while (pthread_tryjoin_np(s->thread, NULL) == EBUSY) {
		futex(turn, FUTEX_WAKE, INT32_MAX, NULL);
		futex(&b->state, FUTEX_WAKE, INT32_MAX, NULL);
		usleep(100);
	}
	s->serving = false;
}

/* K's death, when it was not ours. */
static void *reaper(void *arg)
{
	struct ring3 *b = arg;
	struct outcome o = { .kind = OUTCOME_KILLED };
	int code, status;
	bool known;

	known = sandbox_await(&b->k, &code, &status);
	if (__atomic_load_n(&b->stopping, __ATOMIC_SEQ_CST))
		return NULL;
	if (!known)
		snprintf(o.crash.reason, sizeof(o.crash.reason), "the guest process died with its keeper");
	else if (code == CLD_EXITED)
		snprintf(o.crash.reason, sizeof(o.crash.reason), "the guest process ended by itself, status %d",
			 status);
	else
		snprintf(o.crash.reason, sizeof(o.crash.reason), "the guest process was killed by signal %d (%s)",
			 status, strsignal(status));
	partition_end(b->p, &o);
	set_state(b, DEAD);
	return NULL;
}

/* The backend's operations */

static int wait_ready(struct ring3 *b)
{
	const struct timespec left = { READY_TIMEOUT_S, 0 };

	while (get_state(b) == STARTING)
		if (futex(&b->state, FUTEX_WAIT, STARTING, &left) && errno == ETIMEDOUT)
			return -ETIMEDOUT;
	return get_state(b) == READY ? 0 : -ECHILD;
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
		     ((struct k_config *)monmem_mon(&b->mm)->backend)->filter_len);
	if (!at) {
		host_verbose("ring3: every layer is in force");
		return true;
	}
	host_say("ring3: layers this machine refused: %s", refused);
	if (b->p->opt->require_sandbox)
		host_say("ring3: --require-sandbox asks for all of them");
	return !b->p->opt->require_sandbox;
}

static void take_registers(struct keel_frame *f, const struct user_regs_struct *r, bool irq)
{
	f->rip = r->rip;
	f->rsp = r->rsp;
	f->rflags = (r->eflags & ~KEEL_RFLAGS_IF) | (irq ? KEEL_RFLAGS_IF : 0);
	f->rax = r->rax;
	f->rbx = r->rbx;
	f->rcx = r->rcx;
	f->rdx = r->rdx;
	f->rsi = r->rsi;
	f->rdi = r->rdi;
	f->rbp = r->rbp;
	f->r8 = r->r8;
	f->r9 = r->r9;
	f->r10 = r->r10;
	f->r11 = r->r11;
	f->r12 = r->r12;
	f->r13 = r->r13;
	f->r14 = r->r14;
	f->r15 = r->r15;
}

/*
 * Where is each vCPU? Asked when they are stopped for no fault of their own, as by a
 * timeout. A thread is the vCPU's whose page its GS base is.
 */
static void look(struct ring3 *b)
{
	struct user_regs_struct r;

	for (unsigned int i = 0; i < b->p->vcpus && sandbox_look(i, &r); i++) {
		const uint64_t n = (r.gs_base - MON_VCPU_VA) / MON_BLOCK_SIZE;

		if (r.gs_base % MON_BLOCK_SIZE || n >= b->p->vcpus)
			continue;
		take_registers(&b->mm.seen[n], &r, keel_shared_load8(&b->p->vcpu[n]->if_enabled));
		b->mm.have_seen |= 1u << n;
	}
}

static void ring3_stop(struct partition *p)
{
	struct ring3 *b = p->backend;

	__atomic_store_n(&b->stopping, true, __ATOMIC_SEQ_CST);
	if (b->k.pid > 0) {
		if (p->outcome.kind == OUTCOME_TIMEOUT || p->outcome.kind == OUTCOME_STOPPED)
			look(b);
		sandbox_end(&b->k);
		if (b->reaping)
			pthread_join(b->reaper, NULL);
		b->reaping = false;
		close(b->k.pidfd);
	}
	set_state(b, DEAD);
	for (unsigned int n = 0; n < MON_MAX_VCPUS; n++)
		if (b->server[n].serving)
			end_server(b, &b->server[n]);
}

static void ring3_destroy(struct partition *p)
{
	struct ring3 *b = p->backend;

	if (!b)
		return;
	ring3_stop(p);
	monmem_destroy(&b->mm);
	free(b);
	p->backend = NULL;
}

/*
 * What K may make the kernel spend: its files, once over in kernel page tables, its
 * threads, and change; processes for user code, with what their mappings take.
 */
static uint64_t memory_of(const struct ring3 *b)
{
	const uint64_t threads = b->p->vcpus * KEEL_U64(65536);

	return b->p->ram_size + 2 * b->mm.size + threads + (32 << 20) + U_PAIRS * (threads + KEEL_U64(262144)) +
	       b->p->ram_size / 4;
}

static int ring3_create(struct partition *p)
{
	struct ring3 *b;
	int err;

	if (p->opt->hvm) {
		host_say("ring3: a kernel that owns its hardware needs a virtual machine: use --backend kvm");
		return -ENOTSUP;
	}
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->p = p;
	p->backend = b;
	err = build(b);
	if (err)
		goto fail;
	{
		int fds[K_FD_DEVICE - K_FD_RAM + PARTITION_DEVICES] = { p->ram_fd, p->abi_fd, b->mm.fd,
									p->doorbell_fd };

		for (unsigned int i = 0; i < p->devices; i++)
			fds[K_FD_DEVICE - K_FD_RAM + i] = device_bell(p->device[i]);
		err = sandbox_spawn(fds, K_FD_DEVICE - K_FD_RAM + p->devices, memory_of(b), &b->k);
	}
	close(b->mm.fd);
	b->mm.fd = -1;
	if (err) {
		host_say("ring3: starting the guest process: %s: %s", b->k.what, strerror(-err));
		goto fail;
	}
	err = hand_filter(b);
	if (err)
		goto fail;
	b->reaping = !pthread_create(&b->reaper, NULL, reaper, b);
	if (!start_servers(b) || !b->reaping) {
		err = -EAGAIN;
		host_say("ring3: starting threads: %s", strerror(EAGAIN));
		goto fail;
	}
	err = wait_ready(b);
	{
		int child = sandbox_settle(&b->k);

		if (err) {
			if (child)
				host_say("ring3: the guest process did not start: %s: %s", b->k.what, strerror(-child));
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

static int64_t ring3_vcpu_start(struct partition *p, unsigned int vcpu, uint64_t entry, uint64_t opaque)
{
	struct ring3 *b = p->backend;
	const int64_t status = monmem_start(&b->mm, vcpu, entry, opaque);

	if (status == KEEL_OK)
		futex(&monmem_vcpu(&b->mm, vcpu)->run, FUTEX_WAKE, 1, NULL);
	return status;
}

static void ring3_kick(struct partition *p, unsigned int vcpu)
{
	struct ring3 *b = p->backend;

	if (monmem_kicks(&b->mm, vcpu))
		sandbox_kick(&b->k, vcpu);
}

static int64_t ring3_vcpu_stop(struct partition *p, unsigned int vcpu)
{
	struct ring3 *b = p->backend;
	const int64_t status = monmem_stop(&b->mm, vcpu);

	if (status == KEEL_STATUS(KEEL_E_AGAIN, 0))
		ring3_kick(p, vcpu);
	return status;
}

static void ring3_dump(struct partition *p, unsigned int vcpu)
{
	struct ring3 *b = p->backend;

	__atomic_store_n(&monmem_vcpu(&b->mm, vcpu)->dump_pending, 1, __ATOMIC_SEQ_CST);
	ring3_kick(p, vcpu);
}

static bool ring3_next_mapping(struct partition *p, uint64_t va, struct mapping *out)
{
	struct ring3 *b = p->backend;

	return monmem_next_mapping(&b->mm, va, out);
}

static bool ring3_snapshot(struct partition *p, unsigned int vcpu, struct crash_info *c)
{
	struct ring3 *b = p->backend;

	return monmem_snapshot(&b->mm, vcpu, c);
}

static void ring3_stats(struct partition *p, void *f)
{
	struct ring3 *b = p->backend;
	uint64_t sleeps = 0;

	monmem_stats(&b->mm, f);
	for (unsigned int n = 0; n < p->vcpus; n++)
		sleeps += b->server[n].sleeps;
	fprintf(f, "ring3.server_sleeps %llu\n", (unsigned long long)sleeps);
}

static unsigned int ring3_counters(struct partition *p, struct keel_stats_entry *e, unsigned int max)
{
	struct ring3 *b = p->backend;

	return monmem_counters(&b->mm, e, max);
}

/* Beside what every host may: its guest process is the keeper's child. */
static const struct seal_rule seal_rules[] = {
	{ SCMP_SYS(pidfd_send_signal),
	  1,
	  { SEAL_CMP(1, MASKED_EQ, ~(scmp_datum_t)(MON_MAX_VCPUS - 1), K_SIG_HOST_KICK) },
	  0 },
};

static const struct seal_table seal_table = {
	.process = { .rules = seal_rules, .rule_count = sizeof(seal_rules) / sizeof(seal_rules[0]) },
	.raise = { .rules = seal_rules, .rule_count = sizeof(seal_rules) / sizeof(seal_rules[0]) },
};

const struct backend_ops ring3_backend = {
	.name = "ring3",
	.calls = &seal_table,
	.keeper = &sandbox_keeper,
	.create = ring3_create,
	.start = ring3_start,
	.vcpu_start = ring3_vcpu_start,
	.vcpu_stop = ring3_vcpu_stop,
	.kick = ring3_kick,
	.dump = ring3_dump,
	.stop = ring3_stop,
	.destroy = ring3_destroy,
	.next_mapping = ring3_next_mapping,
	.snapshot = ring3_snapshot,
	.stats = ring3_stats,
	.counters = ring3_counters,
};
