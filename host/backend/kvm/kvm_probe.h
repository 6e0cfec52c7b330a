/* SPDX-License-Identifier: MIT */
/*
 * What a machine's /dev/kvm is worth. Opening it says little: some interpret CPL 0
 * code, some stop dead at an instruction. So a guest of one page is run in a child,
 * against a deadline, and timed against the same loop run natively.
 *
 * The child reports through a pipe, one struct kvm_probe for each step it begins, and
 * is never trusted to end: who started it kills it. kvm_judge() is the only place that
 * makes a verdict of what was found, and looks at nothing else.
 */
#ifndef KEEL_KVM_PROBE_H
#define KEEL_KVM_PROBE_H

/* Ports and values of the guest, kvm_probe_guest.S. */
#define PROBE_PORT_DONE 0x10
#define PROBE_PORT_EXIT 0x11
#define PROBE_PORT_DOORBELL 0x12
#define PROBE_SSE_HALF 0x1234567
#define PROBE_SSE_SUM 0x2468ace

#ifndef __ASSEMBLER__

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../../partition.h"

/* What the child is at; `reached` is the last one begun. */
enum kvm_probe_step {
	PROBE_OPEN, /* in the parent */
	PROBE_API,
	PROBE_VM,
	PROBE_VCPU,
	PROBE_ENTER, /* the first instructions */
	PROBE_LOOP,
	PROBE_EXITS,
	PROBE_DOORBELLS,
	PROBE_CPUIDS,
	PROBE_SSE, /* last: a vCPU may be no use after an instruction it does not know */
	PROBE_STEPS,
};

/* Why the child did not say everything. */
enum kvm_probe_silence {
	PROBE_SAID_ALL,
	PROBE_TOO_LATE,
	PROBE_NONSENSE,
	PROBE_DIED,
};

#define PROBE_MAGIC 0x6b70726fu

/* Facts, as far as they were found. */
struct kvm_probe {
	uint32_t magic;	    /* PROBE_MAGIC */
	uint32_t reached;   /* enum kvm_probe_step */
	int32_t err;	    /* errno `reached` failed with, 0 = none */
	uint32_t exit;	    /* KVM_EXIT_* nobody asked for, + 1; 0 = none */
	uint32_t api;	    /* KVM_GET_API_VERSION */
	uint32_t missing;   /* bit i: kvm_probe_caps[i] is not offered */
	uint32_t sse;	    /* 1 = SSE instructions work; 0 = not, or not tried */
	uint32_t sse_tried; /* 1 = they were */
	uint32_t stuck;	    /* 1 = `reached` came to no end, and could be interrupted */
	uint32_t final;	    /* 1 = there is no more to come */
	uint32_t silence;   /* enum kvm_probe_silence; the parent's */
	double native;	    /* rounds of the loop in a microsecond, natively; 0 = not measured */
	double guest;	    /* and in the guest */
	double exit_ns;	    /* one exit to user space; 0 = not measured, here and below */
	double doorbell_ns; /* one write to a port that has an ioeventfd */
	double cpuid_ns;    /* one exit answered in the kernel */
};

enum kvm_verdict {
	KVM_IS_ABSENT,
	KVM_IS_DENIED,	  /* by the node's permissions */
	KVM_IS_FORBIDDEN, /* by a policy: device cgroup, seccomp */
	KVM_IS_BUSY,
	KVM_FAILS,
	KVM_HANGS,
	KVM_LACKS, /* something the backend needs */
	KVM_INTERPRETS,
	KVM_HAS_NO_SSE,
	KVM_IS_HARDWARE,
};

/* Capabilities of KVM the backend uses. */
struct kvm_probe_cap {
	uint32_t cap;
	const char *name; /* without KVM_CAP_ */
	bool needed;	  /* for paravirtual guests; without the others something is missing */
};

extern const struct kvm_probe_cap kvm_probe_caps[];
extern const unsigned int kvm_probe_cap_count;

/* The least speed, as a part of native speed, that is hardware's. */
#define PROBE_HARDWARE 0.25

/**
 * kvm_judge - what the facts mean
 * @f: facts; complete or not
 * @text: set to one clause that says it, its subject being KVM
 *
 * Pure. How well the backend runs on it is kvm_fit() of the verdict.
 */
enum kvm_verdict kvm_judge(const struct kvm_probe *f, struct error *text);
enum backend_fit kvm_fit(enum kvm_verdict v);
const char *kvm_verdict_name(enum kvm_verdict v);

/* How much is found out, and how long that may take. */
enum kvm_probe_depth {
	PROBE_QUICK, /* enough for kvm_judge() */
	PROBE_FULL,  /* exits, too */
};

/* A probe under way. */
struct kvm_probe_run {
	pid_t pid; /* 0 = no child, facts are final */
	int pidfd;
	int answer; /* read end of the pipe */
	struct kvm_probe facts;
};

/* What the child does: reports facts to the pipe and returns. kvm_probe_guest() unless in tests. */
typedef void kvm_probe_fn(int kvm, int answer, enum kvm_probe_depth depth);
kvm_probe_fn kvm_probe_guest;

/**
 * kvm_probe_start - open KVM and begin
 * @path: of the device
 * @fn: run in the child
 *
 * Returns at once. Where the device cannot be opened there is no child.
 */
void kvm_probe_start(struct kvm_probe_run *r, const char *path, enum kvm_probe_depth depth, kvm_probe_fn *fn);

/* Wait for the facts, at most so long, and kill the child. Later calls change nothing. */
void kvm_probe_wait(struct kvm_probe_run *r, unsigned int ms);

/* Reap the child. Waits for a bounded time: it may have a virtual machine to tear down. */
void kvm_probe_end(struct kvm_probe_run *r);

/* For run.c, by way of kvm_backend. */
extern const struct backend_probe kvm_backend_probe;

#define KVM_DEVICE "/dev/kvm"

#endif
#endif
