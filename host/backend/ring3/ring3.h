/* SPDX-License-Identifier: MIT */
/* Parts of the ring3 backend that know each other. */
#ifndef KEEL_RING3_H
#define KEEL_RING3_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../../partition.h"

struct sock_filter;

int ring3_filter(const struct partition *p, uint32_t tgid, bool user, struct sock_filter *prog, unsigned int max);
int ring3_nursery_filter(struct sock_filter *prog, unsigned int max);
int ring3_mapper_filter(const struct partition *p, struct sock_filter *prog, unsigned int max);

/*
 * The filter K is born with, which V has no part in: the calls it ever makes,
 * whatever their arguments. V hands K the real one, and writes the memory it is
 * built in, so a V that was taken over could keep K from being sealed.
 */
int ring3_outer_filter(struct sock_filter *prog, unsigned int max);
#define RING3_OUTER_MAX 64

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

/* What V knows of the guest process, which is a child of the keeper. */
struct spawned {
	pid_t pid; /* 0 = none */
	int pidfd;
	uint32_t layers; /* final after sandbox_settle() */
	char what[40];	 /* the step that failed, when one did */
};

/* What V asks the keeper for, by the functions below. */
extern const struct keeper_ops sandbox_keeper;

/**
 * sandbox_spawn - start the guest process behind every layer the machine grants
 * @fds: what it gets as descriptors 3, 4, ...; nothing else stays open
 * @nfds: how many
 * @memory: bytes it may use, page tables included
 * @out: filled in
 *
 * Returns 0 or a negative errno with out->what naming the step that failed.
 */
int sandbox_spawn(const int *fds, unsigned int nfds, uint64_t memory, struct spawned *out);

/**
 * sandbox_settle - the program runs, or is dead: take the child's report in
 * @s: as sandbox_spawn() left it; s->layers becomes final
 *
 * Returns 0, or the negative errno the child's set-up failed with and s->what.
 */
int sandbox_settle(struct spawned *s);

/* Any thread: the host's kick of that vCPU. */
void sandbox_kick(const struct spawned *s, unsigned int vcpu);

/* Where is its n-th thread, as the kernel lists them? False when there is none or that cannot be found out. It stays stopped. */
struct user_regs_struct;
bool sandbox_look(unsigned int n, struct user_regs_struct *r);

/* Wait until it is dead; how it died, as waitid() tells. False when that is not known. */
bool sandbox_await(const struct spawned *s, int *code, int *status);

/* Kill it, wait for that, and remove what it leaves in the file system. */
void sandbox_end(struct spawned *s);

/* Which layers would hold, found by putting nothing behind them: 0 or a negative errno. */
int sandbox_try(uint32_t *layers);

const char *sandbox_layer_name(enum layer layer);

#endif
