/* SPDX-License-Identifier: MIT */
/*
 * The keeper: a child that keeps the privileges the host gives up, and does a
 * few fixed things for it. It sees no byte of a guest's but what is in a
 * request; requests have one size, and name no file and no process.
 *
 * The host asks from any thread, one at a time. When the host is gone, however
 * it went, the keeper undoes what it did and ends.
 */
#ifndef KEEL_HOST_KEEPER_H
#define KEEL_HOST_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "log.h"

#define KEEPER_FDS 12
#define KEEPER_DATA 512

enum {
	KEEPER_CORE,	     /* open the core file; its descriptor comes back */
	KEEPER_CORE_ONLY,    /* the backend that runs has no requests; those of others are refused from now on */
	KEEPER_BACKEND = 16, /* from here on requests are the backend's */
};

/* A request, and in the same place its answer. */
struct keeper_message {
	uint32_t what;
	int32_t err; /* answer: 0 or a negative errno */
	uint64_t data[KEEPER_DATA / sizeof(uint64_t)];
	uint32_t fds; /* descriptors that go along */
	int fd[KEEPER_FDS];
};

struct keeper_ops {
	/* In the keeper: a request of the backend's. The answer comes zeroed; descriptors of both are closed afterwards. */
	void (*serve)(const struct keeper_message *request, struct keeper_message *answer);
	/* In the keeper: the host is gone. */
	void (*end)(void);
};

struct partition;

/**
 * keeper_start - make the keeper, unless there is one
 * @core: file for KEEPER_CORE, NULL = none
 * @explicit: the user chose that name
 * @ops: the backend's part, NULL = none
 * @p: whose memory the keeper shall not keep alive
 *
 * Before the process has threads. Returns 0 or -1 with the reason.
 */
int keeper_start(const char *core, bool explicit, const struct keeper_ops *ops, const struct partition *p,
		 struct error *e);

/**
 * keeper_ask - send a request and wait for its answer, in *m
 *
 * The descriptors that come with an answer are the caller's. Returns m->err, or
 * a negative errno when there is no keeper (-ENOTCONN) or it is gone.
 */
int keeper_ask(struct keeper_message *m);

/* The descriptor it is asked through, for the filter; -1 = no keeper. */
int keeper_fd(void);

/* Let it go and wait until it is gone. Main thread, the last to ask. */
void keeper_stop(void);

#endif
