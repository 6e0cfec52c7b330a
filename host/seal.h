/* SPDX-License-Identifier: MIT */
/*
 * The host seals itself before the first guest instruction: whoever takes over
 * this process through a guest gains the partition it serves, its console, and
 * what keeper.c does on request.
 *
 * Two steps, because what a thread may do is inherited by those it makes, and
 * only the filter can be put on those that exist: seal_privileges() before the
 * first thread, seal_calls() before the first guest instruction. Both are for
 * the life of the process; a partition that restarts is rebuilt sealed.
 */
#ifndef KEEL_HOST_SEAL_H
#define KEEL_HOST_SEAL_H

#include <linux/filter.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "log.h"

/* One comparison of all 64 bits of an argument. */
#define SEAL_CMP(n, how, a, b)                                                   \
	{                                                                        \
		.arg = (n), .op = SCMP_CMP_##how, .datum_a = (a), .datum_b = (b) \
	}
#define SEAL_IS(n, value) SEAL_CMP(n, EQ, (scmp_datum_t)(value), 0)
#define SEAL_ONLY_BITS(n, mask) SEAL_CMP(n, MASKED_EQ, ~(scmp_datum_t)(mask), 0)

#define SEAL_MORE 8 /* devices with calls of their own */

/* A call that is allowed, or answered, when all comparisons hold. */
struct seal_rule {
	int nr;
	unsigned int args;
	struct scmp_arg_cmp arg[6];
	int answer; /* 0 = the kernel's own; an errno: nothing happens but this */
};

/* What a backend needs beside what every partition does: the list of its ioctl() requests, and rules. */
struct seal_calls {
	const uint32_t *ioctls;
	size_t ioctl_count;
	const struct seal_rule *rules;
	size_t rule_count;
};

/* Of a backend: for all threads, and for the one that runs guest code. */
struct seal_table {
	struct seal_calls process;
	struct seal_calls vcpu;	 /* of what `process` has; all zero = no such thread */
	struct seal_calls raise; /* of what `process` has: all that partition_raise() takes */
};

/**
 * seal_privileges - no new privileges, no capabilities, no file by name
 *
 * @sockets: TCP is needed, for user-mode networking
 *
 * For the calling thread and those it makes from now on. Layers the kernel does
 * not have are remembered for seal_calls() to report.
 */
void seal_privileges(bool sockets);

/**
 * seal_calls - put the filter on every thread of the process
 * @table: the backend's calls
 * @more: of @n devices, what seal_thread_filter() was given
 * @require: a missing layer is an error
 *
 * Anything not listed ends the process with one line that names the call. Says
 * which layers the machine refused. Returns 0 or -1 with the reason.
 */
int seal_calls(const struct seal_table *table, const struct seal_calls *more, unsigned int n, bool require,
	       struct error *e);

/**
 * seal_vcpu - the calling thread runs guest code from here on: filter it further
 *
 * Nothing that opens, makes or moves anything is left to it. Does nothing before
 * seal_calls(). Returns 0 or a negative errno.
 */
int seal_vcpu(void);

/**
 * seal_thread_filter - build the filter of a device's thread, before seal_calls()
 * @table: the backend's calls, for its `raise`
 * @calls: what that device needs beside memory, waiting and its doorbell
 * @prog: set; its instructions are the caller's to free
 *
 * Returns 0 or -1 with the reason.
 */
int seal_thread_filter(const struct seal_table *table, const struct seal_calls *calls, struct sock_fprog *prog,
		       struct error *e);

/* The calling thread has nothing but @prog from here on. Nothing without filters. Returns 0 or -1 with errno. */
int seal_thread(const struct sock_fprog *prog);

#endif
