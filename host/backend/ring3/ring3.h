/* SPDX-License-Identifier: MIT */
/* Parts of the ring3 backend that know each other. */
#ifndef KEEL_RING3_H
#define KEEL_RING3_H

#include <stdint.h>
#include <sys/types.h>

#include "../../partition.h"

struct sock_filter;

int ring3_filter(const struct partition *p, struct sock_filter *prog, unsigned int max);

/* Layers around K besides its filter; a set bit = in force. */
enum layer {
	LAYER_USER_NS,
	LAYER_MOUNT_NS,
	LAYER_PID_NS,
	LAYER_NET_NS,
	LAYER_IPC_NS,
	LAYER_UTS_NS,
	LAYER_CGROUP_NS,
	LAYER_EMPTY_ROOT,
	LAYER_UNPRIVILEGED,
	LAYER_OOM_SCORE,
	LAYER_MEMORY_CGROUP,
	LAYER_COUNT,
};

struct spawn_report;

struct spawned {
	pid_t pid;
	int pidfd;
	uint32_t layers;	     /* final after sandbox_settle() */
	struct spawn_report *report; /* what the child tells until its exec */
	char cgroup[256];	     /* its memory cgroup's directory; empty = none */
};

/**
 * sandbox_spawn - start a program behind every layer the machine grants
 * @exe: descriptor of the program
 * @fds: what it gets as descriptors 3, 4, ...; nothing else stays open
 * @nfds: how many
 * @memory: bytes it may use, page tables included
 * @out: filled in
 *
 * Returns 0 or a negative errno with *what naming the step that failed.
 */
int sandbox_spawn(int exe, const int *fds, unsigned int nfds, uint64_t memory, struct spawned *out, const char **what);

/**
 * sandbox_settle - the program runs, or is dead: take the child's report in
 * @s: as sandbox_spawn() left it; s->layers becomes final
 * @what: set to the step that failed, when one did
 *
 * Returns 0, or the negative errno the child's set-up failed with.
 */
int sandbox_settle(struct spawned *s, const char **what);

/* After its death was waited for: remove what it leaves in the file system. */
void sandbox_clean(struct spawned *s);

/* Which layers would hold, found by putting nothing behind them: 0 or a negative errno. */
int sandbox_try(uint32_t *layers);

const char *sandbox_layer_name(enum layer layer);

#endif
