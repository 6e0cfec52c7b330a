/* SPDX-License-Identifier: MIT */
/*
 * What the verbs, the backends and the services of the host share: one
 * partition. Nothing here knows which backend runs it.
 *
 * Threads: the main thread runs the event loop (console input, doorbell,
 * timeout, signals, the end of the partition). A backend serves remote calls
 * on threads of its own through partition_remote_call(), which takes p->lock.
 */
#ifndef KEEL_HOST_PARTITION_H
#define KEEL_HOST_PARTITION_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <keel/keel.h>

#include "clock.h"

#define PARTITION_VCPUS 16
#define PARTITION_DEVICES 8

struct device;
struct device_kind;

struct keel_options {
	const char *backend; /* "auto" or a backend's name */
	uint64_t mem;	     /* bytes of RAM, a multiple of 2 MiB */
	unsigned int vcpus;
	const char *initrd;
	const char *cmdline;
	unsigned int timeout; /* seconds, 0 = none */
	bool stats;
	bool verbose;
	bool hvm; /* the image is a kernel that owns its hardware */
	bool require_sandbox;
	struct {
		const struct device_kind *kind;
		const char *spec;
	} device[PARTITION_DEVICES]; /* in the order of the command line */
	unsigned int devices;
	const char *core; /* where an ELF core goes; NULL = IMAGE's base name + ".core" here, "none" = nowhere */
	const char *image;
};

/* How a partition ended; also the exit status contract of `keel run`. */
enum outcome_kind {
	OUTCOME_NONE, /* still running */
	OUTCOME_POWEROFF,
	OUTCOME_RESTART,
	OUTCOME_CRASH,	/* the guest's own CRASH call, an unhandled trap, a forbidden system call */
	OUTCOME_KILLED, /* its process died under it */
	OUTCOME_TIMEOUT,
	OUTCOME_STOPPED, /* Ctrl-A x, SIGINT, SIGTERM */
};

#define TRACE_CALLS 16

/* One remembered hypercall. Written by the monitor, so not trusted. */
struct trace_entry {
	uint32_t id;
	uint32_t returned; /* 0: entered and not come back */
	uint64_t arg[5];
	int64_t status;
	uint64_t value;
};

/* Everything a crash report needs, copied out of the guest's reach once. */
struct crash_info {
	char reason[160];	/* one line without a newline: what happened */
	struct keel_frame regs; /* where; vector, error and addr set for traps */
	bool have_regs;
	unsigned int vcpu;
	bool guest_call; /* reported by the guest through CRASH */
	uint32_t guest_reason;
	uint64_t word[2];
	char message[KEEL_CRASH_MESSAGE_MAX + 1];
	struct trace_entry trace[TRACE_CALLS]; /* oldest first */
	unsigned int traces;
};

struct outcome {
	enum outcome_kind kind;
	uint32_t code; /* of POWEROFF and RESTART */
	struct crash_info crash;
};

/* One run of mapped pages of an address space, for core dumps. */
struct mapping {
	uint64_t va, gpa, len;
	uint32_t prot; /* KEEL_PROT_* */
};

struct partition;
struct image;
struct error;

/* How well this machine runs a backend. */
enum backend_fit {
	FIT_NONE, /* not at all */
	FIT_POOR, /* for those who ask for it by name */
	FIT_GOOD,
};

/* Finds out where create() alone cannot tell. Main thread; at most one at a time. */
struct backend_probe {
	/* Start, before anything of a partition exists, and return at once. */
	void (*begin)(void);
	/* Wait for the answer, one clause about the backend. `named`: nothing else will do, so there is no hurry. */
	enum backend_fit (*answer)(bool named, struct error *why);
	/* After answer(): readable when end() would not wait; -1 = it would not. */
	int (*fd)(void);
	/* Leave nothing behind; also before answer() and twice. */
	void (*end)(void);
};

struct backend_ops {
	const char *name;
	/* Open what needs a name, before the host gives them up (seal.h); it serves every create(). 0 or -errno. */
	int (*prepare)(void);
	const struct seal_table *calls;	   /* what a host with this backend may ask of the kernel */
	const struct keeper_ops *keeper;   /* what is left to the keeper; one backend at most has that */
	const struct backend_probe *probe; /* NULL = it runs well wherever it can be created */
	/**
	 * create - build the execution context and seal it, without running it
	 *
	 * p->ram, p->abi, p->boot_map, p->entry and p->offered are final. Returns 0, or a
	 * negative errno after saying with host_say() (log.h) why; -ENODEV when the machine
	 * cannot run this backend.
	 */
	int (*create)(struct partition *p);
	int (*start)(struct partition *p);
	/*
	 * vcpu_start and vcpu_stop of another vCPU: one that exists. Any thread, never blocks; the
	 * call's status. NULL = one vCPU is all there ever is.
	 */
	int64_t (*vcpu_start)(struct partition *p, unsigned int vcpu, uint64_t entry, uint64_t opaque);
	int64_t (*vcpu_stop)(struct partition *p, unsigned int vcpu);
	/* Make vCPU look at its pending word; any thread, never blocks. */
	void (*kick)(struct partition *p, unsigned int vcpu);
	/* Raise the non-maskable dump event on vcpu; any thread. */
	void (*dump)(struct partition *p, unsigned int vcpu);
	/* Stop everything and wait until nothing of it runs. Guest memory and vCPU pages stay readable. */
	void (*stop)(struct partition *p);
	void (*destroy)(struct partition *p);
	/* Next run of AS 0 mappings at or above *va; false at the end. After stop(). */
	bool (*next_mapping)(struct partition *p, uint64_t va, struct mapping *m);
	/* Registers and last calls of a vCPU, after stop(); false when unknown. */
	bool (*snapshot)(struct partition *p, unsigned int vcpu, struct crash_info *c);
	/* Host-side counters for --stats: writes lines "name value" to f, a FILE *. */
	void (*stats)(struct partition *p, void *f);
	/* Per-call counters after stop(), at most max; returns how many. NULL when the backend has none. */
	unsigned int (*counters)(struct partition *p, struct keel_stats_entry *e, unsigned int max);
};

extern const struct backend_ops kvm_backend, ring3_backend;

struct partition {
	const struct keel_options *opt;
	const struct backend_ops *ops;
	void *backend;	     /* the backend's own */
	struct image *image; /* image.c's; outlives the partition */

	int ram_fd; /* sealed memfd, GPA 0.. */
	uint8_t *ram;
	uint64_t ram_size;

	/*
	 * ABI pages: page 0 is the clock page, start info follows. Only this
	 * mapping can write them. Their GPA is abi_gpa, above RAM.
	 */
	int abi_fd;
	uint8_t *abi;
	uint64_t abi_size;
	uint64_t abi_gpa;
	struct clock clock; /* keeps page 0 */

	/* Initial mappings of AS 0, applied by the monitor before the first instruction. */
	struct keel_mmu_record *boot_map;
	unsigned int boot_records;
	uint64_t entry;
	uint64_t offered[KEEL_FEATURE_WORDS];

	unsigned int vcpus;
	struct keel_vcpu __pvshared
		*vcpu[PARTITION_VCPUS]; /* the host's mapping of the per-vCPU pages; set by create() */
	/* Is it a handle of a port in use? It looks at `ports`. Set by create(). */
	bool (*port_used)(const struct partition *p, uint32_t port);
	const uint8_t *ports;
	uint32_t *console_port; /* where KEEL_SOURCE_CONSOLE is bound: see partition_raise(); set by create() */

	struct device *device[PARTITION_DEVICES]; /* run.c's: they outlive the partition. Set before create() */
	unsigned int devices;
	/* While *tracking is not 0, a page the host writes has its bit set in hostlog: HARVEST's. Set by create(). */
	uint32_t *tracking;
	uint8_t *hostlog;

	int doorbell_fd; /* eventfd, readable after console_kick; made before create() */
	int end_fd;	 /* eventfd, readable when outcome.kind was set; made before create() */

	pthread_mutex_t lock;
	struct outcome outcome; /* first one wins */
	void *console;		/* console.c's own */
};

/* VAs of the ABI pages in the guest's context, the same on every backend. */
#define ABI_VA KEEL_U64(0x7f0200000000)	 /* p->abi, read-only */
#define VCPU_VA KEEL_U64(0x7f0300000000) /* keel_vcpu of vCPU 0 */
#define VCPU_STRIDE KEEL_U64(0x40000)

/*
 * Memory, ABI pages, eventfds, the image in place, start info and clock: all that
 * ops->create() may rely on. Returns 0 or -1 with the reason in *e; destroy undoes
 * whatever was made, the backend's part excepted. Main thread.
 */
int partition_create(struct partition *p, const struct keel_options *opt, struct image *image, struct error *e);
void partition_destroy(struct partition *p);

/**
 * partition_remote_call - serve a remote call; any thread
 * @p: the partition
 * @vcpu: the calling vCPU
 * @id: call number, KEEL_CF_REMOTE in hypercalls.def and served
 * @arg: five arguments, copied from the guest already
 * @value: set to the call's value
 *
 * Checks everything again: the monitor in front of it is not trusted. Returns the
 * call's status. shutdown and crash end the partition by partition_end().
 */
int64_t partition_remote_call(struct partition *p, unsigned int vcpu, uint32_t id, const uint64_t arg[5],
			      uint64_t *value);

/* Record how the partition ended (the first call wins) and make end_fd readable. Any thread. */
void partition_end(struct partition *p, const struct outcome *o);

/**
 * partition_raise - make a bound source's event pending and kick if that is needed; any thread
 * @port: where the monitor keeps the port the source is bound to, vcpu << 12 | bit, + 1, 0 = to none;
 *	  guest-writable. NULL = there is no such place
 */
void partition_raise(struct partition *p, const uint32_t *port);

/* Copy from guest RAM by GPA; false when the range is not RAM. The copy is the only fetch. */
bool partition_copy_from(struct partition *p, void *dst, uint64_t gpa, size_t len);
bool partition_copy_to(struct partition *p, uint64_t gpa, const void *src, size_t len);

/* The host wrote to a range of RAM past the guest's mappings, after the fact: HARVEST has to know. Any thread. */
void partition_wrote(struct partition *p, uint64_t gpa, size_t len);

#endif
