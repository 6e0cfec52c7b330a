/* SPDX-License-Identifier: MIT */
/*
 * What K may ask of the kernel once it is sealed: the wall of the ring3
 * backend. Every argument that means something is pinned to a value or a range
 * (both words, so that 32-bit truncation hides nothing); hostile code may jump
 * to any system call instruction with any registers, and still only change
 * mappings below the host's window, of this partition's own files, sleep, arm
 * its own timers, kick its own threads, or ring its own doorbells.
 *
 * Everything else, other architectures' numbers included, traps into K's crash
 * path; a K whose crash path is broken dies of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/falloc.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "k_user.h"
#include "layout.h"
#include "ring3.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* One comparison of all 64 bits of an argument. */
#define CMP(n, how, a, b)                                                        \
	{                                                                        \
		.arg = (n), .op = SCMP_CMP_##how, .datum_a = (a), .datum_b = (b) \
	}
#define IS(n, value) CMP(n, EQ, value, 0)
#define BELOW(n, end) CMP(n, LT, end, 0)
#define LOW32(n) CMP(n, MASKED_EQ, 0xffffffff00000000, 0)
#define NOTHING_BUT(n, mask) CMP(n, MASKED_EQ, ~(uint64_t)(mask), 0)
#define WITHIN(n, base, span) CMP(n, MASKED_EQ, ~((uint64_t)(span)-1), base)
#define SHARED_VCPU(n) WITHIN(n, MON_VCPU_VA, MON_VCPU_SPAN) /* in the vCPU blocks */

#define ARENA(n) WITHIN(n, U_ARENA_VA, U_ARENA_SPAN)

#define PROT_RWX (PROT_READ | PROT_WRITE | PROT_EXEC)
#define MAP_WANTED (MAP_SHARED | MAP_FIXED)

struct rule {
	int nr;
	unsigned int args;
	struct scmp_arg_cmp arg[6];
};

/* Of a ready filter, which goes: its instructions. Returns how many, or a negative errno. */
static int take_program(scmp_filter_ctx ctx, int err, struct sock_filter *prog, unsigned int max)
{
	int fd = -1;
	ssize_t n;

	if (!err) {
		fd = memfd_create("keel-filter", MFD_CLOEXEC);
		err = fd < 0 ? -errno : seccomp_export_bpf(ctx, fd);
	}
	seccomp_release(ctx);
	if (!err) {
		n = pread(fd, prog, max * sizeof(*prog), 0);
		err = n < 0 ? -errno : n == (ssize_t)(max * sizeof(*prog)) ? -E2BIG : (int)(n / (ssize_t)sizeof(*prog));
	}
	if (fd >= 0)
		close(fd);
	return err;
}

static int add_rules(scmp_filter_ctx ctx, const struct rule *rules, size_t n)
{
	int err = 0;

	for (size_t i = 0; !err && i < n; i++)
		err = seccomp_rule_add_exact_array(ctx, SCMP_ACT_ALLOW, rules[i].nr, rules[i].args, rules[i].arg);
	return err;
}

/* What K maps for the guest kernel and M for user code: this partition's files, below the host's window. */
static int add_mapping_rules(scmp_filter_ctx ctx, const struct partition *p)
{
	const uint64_t ram = p->ram_size, abi = p->abi_size;
	const struct rule rules[] = {
		{ SCMP_SYS(mmap),
		  6,
		  { BELOW(0, KEEL_VA_END), LOW32(1), NOTHING_BUT(2, PROT_RWX), IS(3, MAP_WANTED), IS(4, K_FD_RAM),
		    BELOW(5, ram) } },
		{ SCMP_SYS(mmap),
		  6,
		  { BELOW(0, KEEL_VA_END), LOW32(1), NOTHING_BUT(2, PROT_RWX), IS(3, MAP_WANTED | MAP_POPULATE),
		    IS(4, K_FD_RAM), BELOW(5, ram) } },
		{ SCMP_SYS(mmap),
		  6,
		  { BELOW(0, KEEL_VA_END), LOW32(1), IS(2, PROT_READ), NOTHING_BUT(3, MAP_WANTED | MAP_POPULATE),
		    IS(4, K_FD_ABI), BELOW(5, abi) } },
		{ SCMP_SYS(munmap), 2, { BELOW(0, KEEL_VA_END), LOW32(1) } },
	};

	return add_rules(ctx, rules, sizeof(rules) / sizeof(rules[0]));
}

/**
 * ring3_filter - build K's filter
 * @p: the partition, RAM and ABI files sized
 * @tgid: K's own number, in its PID namespace
 * @user: it has one, and runs user code
 * @max: room at @prog, in instructions
 *
 * Returns the number of BPF instructions, or a negative errno.
 */
int ring3_filter(const struct partition *p, uint32_t tgid, bool user, struct sock_filter *prog, unsigned int max)
{
	const uint64_t ram = p->ram_size;
	const struct rule rules[] = {
		{ SCMP_SYS(mprotect), 3, { BELOW(0, KEEL_VA_END), LOW32(1), NOTHING_BUT(2, PROT_RWX) } },
		{ SCMP_SYS(futex),
		  5,
		  { SHARED_VCPU(0), IS(1, FUTEX_WAIT_BITSET), IS(3, 0), IS(4, 0), IS(5, FUTEX_BITSET_MATCH_ANY) } },
		{ SCMP_SYS(futex),
		  5,
		  { SHARED_VCPU(0), IS(1, FUTEX_WAIT_BITSET), SHARED_VCPU(3), IS(4, 0),
		    IS(5, FUTEX_BITSET_MATCH_ANY) } },
		{ SCMP_SYS(futex), 6, { SHARED_VCPU(0), IS(1, FUTEX_WAKE), IS(2, 1), IS(3, 0), IS(4, 0), IS(5, 0) } },
		/* How a wait with a deadline goes on after SIGSTOP and SIGCONT: with the registers of the futex call. */
		{ SCMP_SYS(restart_syscall),
		  5,
		  { SHARED_VCPU(0), IS(1, FUTEX_WAIT_BITSET), SHARED_VCPU(3), IS(4, 0),
		    IS(5, FUTEX_BITSET_MATCH_ANY) } },
		{ SCMP_SYS(sched_yield), 0, { IS(0, 0) } },
		{ SCMP_SYS(timer_settime), 4, { BELOW(0, p->vcpus), IS(1, TIMER_ABSTIME), SHARED_VCPU(2), IS(3, 0) } },
		{ SCMP_SYS(tgkill), 2, { IS(0, tgid), IS(2, SIGUSR1) } },
		{ SCMP_SYS(clock_gettime), 2, { IS(0, CLOCK_MONOTONIC), SHARED_VCPU(1) } },
		{ SCMP_SYS(write), 3, { IS(0, K_FD_DOORBELL), SHARED_VCPU(1), IS(2, 8) } },
		{ SCMP_SYS(fallocate),
		  4,
		  { IS(0, K_FD_RAM), IS(1, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE), BELOW(2, ram),
		    BELOW(3, ram + 1) } },
		{ SCMP_SYS(madvise), 3, { WITHIN(0, MON_RAM_VA, MON_RAM_MAX), LOW32(1), IS(2, MADV_POPULATE_WRITE) } },
	};
	/* User code: hand-offs to it, answers of its mapper, and signals, which in a PID namespace only the partition's own can get. */
	const struct rule user_rules[] = {
		{ SCMP_SYS(futex),
		  5,
		  { ARENA(0), IS(1, FUTEX_WAIT_BITSET), IS(3, 0), IS(4, 0), IS(5, FUTEX_BITSET_MATCH_ANY) } },
		{ SCMP_SYS(futex),
		  5,
		  { ARENA(0), IS(1, FUTEX_WAIT_BITSET), SHARED_VCPU(3), IS(4, 0), IS(5, FUTEX_BITSET_MATCH_ANY) } },
		{ SCMP_SYS(restart_syscall),
		  5,
		  { ARENA(0), IS(1, FUTEX_WAIT_BITSET), SHARED_VCPU(3), IS(4, 0), IS(5, FUTEX_BITSET_MATCH_ANY) } },
		{ SCMP_SYS(futex), 6, { ARENA(0), IS(1, FUTEX_WAKE), IS(2, 1), IS(3, 0), IS(4, 0), IS(5, 0) } },
		{ SCMP_SYS(read), 3, { WITHIN(0, K_FD_DONE, 16), SHARED_VCPU(1), IS(2, 8) } },
		{ SCMP_SYS(write), 3, { WITHIN(0, K_FD_DONE, 16), SHARED_VCPU(1), IS(2, 8) } },
		{ SCMP_SYS(sched_setaffinity), 3, { LOW32(0), IS(1, K_CPU_SET), SHARED_VCPU(2) } },
		{ SCMP_SYS(getcpu), 3, { SHARED_VCPU(0), IS(1, 0), IS(2, 0) } },
		{ SCMP_SYS(tgkill), 3, { LOW32(0), LOW32(1), IS(2, U_SIG_KICK) } },
		{ SCMP_SYS(tgkill), 3, { LOW32(0), LOW32(1), IS(2, U_SIG_RESET) } },
	};
	/* The hot ones first: their place in the program is their cost. */
	static const struct {
		int nr;
		uint8_t priority;
	} hot[] = {
		{ SCMP_SYS(mmap), 255 },     { SCMP_SYS(futex), 254 },	       { SCMP_SYS(munmap), 253 },
		{ SCMP_SYS(mprotect), 252 }, { SCMP_SYS(timer_settime), 251 }, { SCMP_SYS(tgkill), 250 },
	};
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
	int err;

	if (!ctx)
		return -ENOMEM;
	err = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_TRAP);
	for (size_t i = 0; !err && i < sizeof(hot) / sizeof(hot[0]); i++)
		err = seccomp_syscall_priority(ctx, hot[i].nr, hot[i].priority);
	if (!err)
		err = add_mapping_rules(ctx, p);
	if (!err)
		err = add_rules(ctx, rules, sizeof(rules) / sizeof(rules[0]));
	for (unsigned int i = 0; !err && i < p->devices; i++) {
		const struct rule bell = { SCMP_SYS(write), 3, { IS(0, K_FD_DEVICE + i), SHARED_VCPU(1), IS(2, 8) } };

		err = add_rules(ctx, &bell, 1);
	}
	if (!err && user)
		err = add_rules(ctx, user_rules, sizeof(user_rules) / sizeof(user_rules[0]));
	return take_program(ctx, err, prog, max);
}

/* By a list of calls, whatever their arguments, the most frequent first. */
static int build_list(const int *calls, size_t n, struct sock_filter *prog, unsigned int max)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
	int err;

	if (!ctx)
		return -ENOMEM;
	err = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_TRAP);
	for (size_t i = 0; !err && i < n; i++) {
		err = seccomp_syscall_priority(ctx, calls[i], (uint8_t)(255 - i));
		if (!err)
			err = seccomp_rule_add_exact_array(ctx, SCMP_ACT_ALLOW, calls[i], 0, NULL);
	}
	return take_program(ctx, err, prog, max);
}

/* What N does for a living, and what a U and an M do until they have filters of their own. */
int ring3_nursery_filter(struct sock_filter *prog, unsigned int max)
{
	static const int calls[] = {
		SCMP_SYS(futex),	SCMP_SYS(mmap),		  SCMP_SYS(munmap),
		SCMP_SYS(write),	SCMP_SYS(arch_prctl),	  SCMP_SYS(rt_sigtimedwait),
		SCMP_SYS(wait4),	SCMP_SYS(kill),		  SCMP_SYS(clone),
		SCMP_SYS(close),	SCMP_SYS(close_range),	  SCMP_SYS(sigaltstack),
		SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(gettid),
		SCMP_SYS(prlimit64),	SCMP_SYS(prctl),	  SCMP_SYS(seccomp),
		SCMP_SYS(exit_group),
	};

	return build_list(calls, sizeof(calls) / sizeof(calls[0]), prog, max);
}

/* M changes mappings of this partition's files below the host's window, and says so. */
int ring3_mapper_filter(const struct partition *p, struct sock_filter *prog, unsigned int max)
{
	const struct rule rules[] = {
		{ SCMP_SYS(munmap), 2, { IS(0, KEEL_VA_MIN), IS(1, KEEL_VA_END - KEEL_VA_MIN) } },
		{ SCMP_SYS(futex), 6, { IS(0, U_PAIR_VA), IS(1, FUTEX_WAIT), LOW32(2), IS(3, 0), IS(4, 0), IS(5, 0) } },
		{ SCMP_SYS(futex),
		  6,
		  { WITHIN(0, U_PAIR_VA, U_PAIR_SPAN), IS(1, FUTEX_WAKE), IS(2, 1), IS(3, 0), IS(4, 0), IS(5, 0) } },
		{ SCMP_SYS(write), 3, { WITHIN(0, K_FD_DONE, 16), WITHIN(1, U_PAIR_VA, U_CMD_SIZE), IS(2, 8) } },
	};
	static const int hot[] = { SCMP_SYS(mmap), SCMP_SYS(write), SCMP_SYS(futex), SCMP_SYS(munmap) };
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int err;

	if (!ctx)
		return -ENOMEM;
	err = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	for (size_t i = 0; !err && i < sizeof(hot) / sizeof(hot[0]); i++)
		err = seccomp_syscall_priority(ctx, hot[i], (uint8_t)(255 - i));
	if (!err)
		err = add_mapping_rules(ctx, p);
	if (!err)
		err = add_rules(ctx, rules, sizeof(rules) / sizeof(rules[0]));
	return take_program(ctx, err, prog, max);
}

int ring3_outer_filter(struct sock_filter *prog, unsigned int max)
{
	/* The first ones are for the sealed K, in the order of their frequency; then what it takes to get there. */
	static const int calls[] = {
		SCMP_SYS(mmap),
		SCMP_SYS(futex),
		SCMP_SYS(munmap),
		SCMP_SYS(mprotect),
		SCMP_SYS(timer_settime),
		SCMP_SYS(sched_yield),
		SCMP_SYS(clock_gettime),
		SCMP_SYS(write),
		SCMP_SYS(read),
		SCMP_SYS(fallocate),
		SCMP_SYS(madvise),
		SCMP_SYS(restart_syscall),
		SCMP_SYS(execveat),
		SCMP_SYS(close),
		SCMP_SYS(sigaltstack),
		SCMP_SYS(rt_sigaction),
		SCMP_SYS(rt_sigprocmask),
		SCMP_SYS(gettid),
		SCMP_SYS(timer_create),
		SCMP_SYS(arch_prctl),
		SCMP_SYS(prlimit64),
		SCMP_SYS(prctl),
		SCMP_SYS(seccomp),
		SCMP_SYS(exit_group),
		SCMP_SYS(tgkill),
		SCMP_SYS(clone),
		SCMP_SYS(memfd_create),
		SCMP_SYS(ftruncate),
		SCMP_SYS(eventfd2),
		SCMP_SYS(fcntl),
		SCMP_SYS(dup3),
		SCMP_SYS(close_range),
		SCMP_SYS(rt_sigtimedwait),
		SCMP_SYS(wait4),
		SCMP_SYS(kill),
		SCMP_SYS(getcpu),
		SCMP_SYS(sched_setaffinity),
	};

	return build_list(calls, sizeof(calls) / sizeof(calls[0]), prog, max);
}
