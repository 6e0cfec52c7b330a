/* SPDX-License-Identifier: MIT */
/*
 * A partition's devices. device.c keeps what all have in common: the DEVICE group's
 * calls, the virtio status machine, a thread for each device, and reset. A kind of
 * device (block.c, net.c, rng.c, serial.c) is a table of functions, called on that
 * thread, that moves buffers between virtqueues (virtqueue.c) and the world.
 *
 * A device is opened before the host gives up its privileges and stays for the life
 * of `keel run`; it is bound to one partition after the other. Its thread exists
 * while a partition runs, behind a filter with nothing in it but this kind's calls.
 *
 * Who may touch what: calls come on the threads that serve vCPUs and take d->lock.
 * Between DRIVER_OK and the end of a reset the queues are the thread's, without lock.
 */
#ifndef KEEL_HOST_DEVICE_H
#define KEEL_HOST_DEVICE_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <keel/keel.h>

#include "../log.h"
#include "../seal.h"
#include "virtqueue.h"

#define DEVICE_QUEUES 4
#define DEVICE_QUEUE_MAX 512 /* entries */
#define DEVICE_CONFIG 64
#define DEVICE_FDS 64

struct partition;
struct device;

/* What a kind of device is. All but open and close are called on the device's thread. */
struct device_kind {
	const char *name;
	uint32_t type;		    /* virtio 5 */
	uint32_t queues, queue_max; /* queue_max: entries of each, a power of two up to DEVICE_QUEUE_MAX */
	size_t state;		    /* bytes of d->state, zeroed */

	/* By name or privilege: before the host gives up both. d->features and d->config are its to fill in. */
	int (*open)(struct device *d, const char *spec, struct error *e);
	void (*close)(struct device *d);

	void (*start)(struct device *d); /* DRIVER_OK; may be NULL */
	/* The driver rang, or the thread was woken for something else: look at every queue. */
	void (*kick)(struct device *d);
	/*
	 * Let go of guest memory, because of a reset or the partition's end: false = requests
	 * are still under way; called again whenever something has happened. NULL = nothing to do.
	 */
	bool (*quiesce)(struct device *d);
	/* Descriptors to wait on beside the doorbell; at most DEVICE_FDS. May be NULL. */
	unsigned int (*fds)(struct device *d, struct pollfd *f);
	void (*ready)(struct device *d, const struct pollfd *f, unsigned int n);
	int (*timeout)(struct device *d); /* ms, -1 = none; may be NULL */
	/* In place of device_poll(): wait for the doorbell or for work done; true = kick is wanted. NULL = device_poll(). */
	bool (*wait)(struct device *d, bool block);

	/* What its thread may ask of the kernel beyond what every device's may; the process's filter has that too. */
	void (*calls)(struct device *d, struct seal_calls *c);
};

struct device {
	const struct device_kind *kind;
	unsigned int index;
	const char *spec;			      /* as on the command line, for messages */
	uint64_t features[KEEL_DEVICE_FEATURE_WORDS]; /* offered */
	uint8_t config[DEVICE_CONFIG];
	uint32_t config_size;
	void *state;
	bool sockets; /* its thread opens connections: set by open() */

	struct partition *p;
	pthread_t thread;
	bool running; /* there is a thread */
	int bell;     /* eventfd: the driver's doorbell, and ours for the thread */

	pthread_mutex_t lock;
	pthread_cond_t settled; /* a reset is complete */
	uint32_t status;
	bool resetting; /* asked for, and not over */
	uint64_t accepted[KEEL_DEVICE_FEATURE_WORDS];
	uint32_t generation;  /* of the config space */
	uint32_t config_port; /* + 1, 0 = none */
	struct virtqueue queue[DEVICE_QUEUES];
	atomic_uint want; /* DEVICE_* for the thread to look at */
	struct sock_fprog filter;

	unsigned int complaints; /* about its driver, said so far */
	/* Counters for --stats; the thread's. */
	uint64_t waits, requests, notified;
};

/* d->want */
#define DEVICE_START 1
#define DEVICE_RESET 2
#define DEVICE_STOP 4

extern const struct device_kind device_block, device_net, device_rng, device_serial;

/* Main thread, before privileges are given up. NULL with the reason in *e. */
struct device *device_open(const struct device_kind *kind, unsigned int index, const char *spec, struct error *e);
void device_close(struct device *d);

/*
 * Main thread, before the process's filter is set: build the thread's out of what the backend
 * needs to raise an event and what this kind calls; the latter in *calls, too. 0, or -1 with the reason in *e.
 */
int device_prepare(struct device *d, const struct seal_table *table, struct seal_calls *calls, struct error *e);

/* Main thread: a partition's life begins, nothing of it runs yet; and has ended, nothing of it runs any more. */
int device_start(struct device *d, struct partition *p, struct error *e);
void device_stop(struct device *d);

int device_bell(const struct device *d);
/* Any thread: as if the driver had. */
void device_ring(struct device *d);

/* The device's thread: wait for the doorbell, the kind's descriptors or its timeout; true = the doorbell was rung. */
bool device_poll(struct device *d, bool block);

/* A line "device.N.name value" for each counter to f, a FILE *. */
void device_stats(struct device *d, void *f);

/* The device's thread: the driver broke the rules; NEEDS_RESET, once with a line that says how. */
void device_broken(struct device *d, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Any thread: config[] is about to be, or was, changed under d->lock: the driver is told. */
void device_config_changed(struct device *d);

static inline bool device_accepted(const struct device *d, unsigned int bit)
{
	return d->accepted[bit / 64] >> bit % 64 & 1;
}

/* DEVICE calls, any thread; arguments as in the call, checked here. */
int64_t device_call(struct partition *p, uint32_t id, const uint64_t *arg, uint64_t *value);

#endif
