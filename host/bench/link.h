/* SPDX-License-Identifier: MIT */
/* A program that answers lines: `keel run` with the bench's guest in it, or the raw program. */
#ifndef KEEL_BENCH_LINK_H
#define KEEL_BENCH_LINK_H

#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct link {
	const char *name; /* for messages */
	pid_t pid;
	int in, out;
	size_t have;
	char buf[512];
};

/* Print the reason and exit 1: a figure that could not be taken is an error. */
void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/**
 * link_start - start a program and wait until it says "ready"
 * @cpus: where it may run
 */
void link_start(struct link *l, const char *name, char *const argv[], const cpu_set_t *cpus);

/* Send text as it is. */
void link_send(struct link *l, const char *text);

/* Next line that is not a comment, without its newline; dies after 20 s. Valid until the next call. */
const char *link_line(struct link *l);

/* Have an operation done; *min and *median as answered. */
void link_ask(struct link *l, const char *op, unsigned int reps, uint64_t *min, uint64_t *median);

/* Tell it to quit; dies unless it ends with status 0. */
void link_stop(struct link *l);

/* The one child of a process: of keel, the guest process. Dies when there is none. */
pid_t only_child(pid_t parent);

/* Of a host with the ring3 backend: its keeper's child. */
pid_t guest_process(pid_t host);

/* Confine all threads of a process to one processor. */
void pin_process(pid_t pid, int cpu);

/* Calls fn with a process and all its descendants. */
void for_each_process(pid_t pid, void (*fn)(pid_t pid, void *arg), void *arg);

/* Calls fn with each thread of a process. */
void for_each_thread(pid_t pid, void (*fn)(pid_t pid, pid_t tid, void *arg), void *arg);

/**
 * count_calls - watch all threads of a process that sleeps, by ptrace
 * @seconds: for how long, after each has gone back into what it was interrupted in
 * @others: set to the system calls that were no ioctls
 *
 * Returns the ioctls.
 */
unsigned int count_calls(pid_t pid, unsigned int seconds, unsigned int *others);

#endif
