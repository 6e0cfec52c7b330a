/* SPDX-License-Identifier: MIT */
/*
 * The kvm backend's own: one virtual machine, and a thread for each of its vCPUs.
 * kvm.c is what every partition on /dev/kvm needs; a flavour says what the
 * machine looks like inside and what its exits mean: pv.c (the monitor in the
 * guest, at CPL 0) and hvm.c (a kernel that owns its page tables; one vCPU).
 */
#ifndef KEEL_KVM_H
#define KEEL_KVM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "../../partition.h"

/* Memory slots. Those above SHARE are kept free for pages of other partitions. */
enum kvm_slot {
	KVM_SLOT_RAM,
	KVM_SLOT_ABI,
	KVM_SLOT_TEXT, /* pv: gate, monitor text, descriptor tables; read-only */
	KVM_SLOT_DATA, /* pv: vCPU blocks, struct mon, arena, window tables */
	KVM_SLOT_SHARE,
};

struct kvm;
struct kvm_vcpu;

/* What happened to a KVM_RUN. */
enum kvm_next {
	KVM_NEXT_RUN, /* go on */
	KVM_NEXT_END, /* the partition has ended; never run again */
};

struct kvm_flavour {
	bool full_irqchip; /* PIC, IOAPIC and PIT besides the LAPIC */
	bool boots;	   /* code of the host's runs first on vCPU 0, and says with kvm_ready() when it is done */
	unsigned int max_vcpus;
	/* Change the processor features the guest sees, which are those KVM supports; may append up to max. NULL = none. */
	void (*cpuid)(struct kvm *k, struct kvm_cpuid2 *c, unsigned int max);
	/* Memory slots, registers, descriptors; everything up to the first instruction. 0 or -errno after host_say(). */
	int (*create)(struct kvm *k);
	/* An exit kvm.c does not know: c->run says which. On the vCPU's thread. */
	enum kvm_next (*exit)(struct kvm_vcpu *c);
	/* As in backend_ops; kvm.c lets the thread of a vCPU that was started go on. NULL = there is one vCPU. */
	int64_t (*vcpu_start)(struct kvm *k, unsigned int vcpu, uint64_t entry, uint64_t opaque);
	int64_t (*vcpu_stop)(struct kvm *k, unsigned int vcpu);
	/* Make a vCPU look at its events; any thread. */
	void (*kick)(struct kvm *k, unsigned int vcpu);
	/* The dump event; any thread. */
	void (*dump)(struct kvm *k, unsigned int vcpu);
	/* After the threads have ended; also when create() failed half-way or was not reached. */
	void (*destroy)(struct kvm *k);
	/* As in backend_ops, after the threads have ended. NULL = unknown. */
	bool (*next_mapping)(struct kvm *k, uint64_t va, struct mapping *m);
	bool (*snapshot)(struct kvm *k, unsigned int vcpu, struct crash_info *c);
	void (*stats)(struct kvm *k, FILE *f);
	unsigned int (*counters)(struct kvm *k, struct keel_stats_entry *e, unsigned int max);
};

/* What the seal lets through (seal.h). */
extern const struct seal_table kvm_calls;

extern const struct kvm_flavour kvm_pv, kvm_hvm;

enum kvm_state { KVM_STARTING, KVM_READY, KVM_RUNNING, KVM_ENDED };

struct kvm_vcpu {
	struct kvm *k;
	unsigned int id;
	int fd;
	int stats_fd; /* binary statistics; -1 = this kernel has none */
	struct kvm_run *run;
	pthread_t thread;
	bool threaded;
	uint32_t go;	/* futex: it was started; kvm_park() takes it back */
	uint64_t exits; /* to this process, signals apart */
};

struct kvm {
	struct partition *p;
	const struct kvm_flavour *flavour;
	void *own; /* the flavour's */
	int kvm_fd, vm_fd;
	int stats_fd;		  /* of the VM; -1 = this kernel has none */
	struct kvm_cpuid2 *cpuid; /* what the guest sees, on vCPU 0 */
	uint64_t xfeatures;	  /* its XCR0; 0 = it has no XSAVE */
	unsigned int vcpus;
	struct kvm_vcpu vcpu[PARTITION_VCPUS];
	size_t run_size;
	bool stopping;
	uint32_t state; /* futex: enum kvm_state */
	int ready_err;
};

/**
 * kvm_ready - the machine is built, or could not be; returns when it shall run
 * @c: vCPU 0, on its thread
 * @err: 0 or a negative errno, said already
 *
 * False when the partition is to end instead.
 */
bool kvm_ready(struct kvm_vcpu *c, int err);

/**
 * kvm_park - wait until the vCPU is started
 * @c: on its own thread, which sleeps meanwhile
 *
 * Takes one start, which may have come before it. False when the partition is to end instead.
 */
bool kvm_park(struct kvm_vcpu *c);

/* One of the guest's CPUID entries; NULL when it has none. */
const struct kvm_cpuid_entry2 *kvm_cpuid_find(const struct kvm *k, uint32_t leaf, uint32_t sub);

/**
 * kvm_slot - give the guest memory
 * @gpa: physical address inside the machine
 * @host: where it is here, page aligned
 * @flags: KVM_MEM_*
 *
 * Returns 0 or a negative errno.
 */
int kvm_slot(struct kvm *k, enum kvm_slot slot, uint64_t gpa, uint64_t len, void *host, uint32_t flags);

/* General registers as a frame; its other fields become zero. */
void kvm_frame(const struct kvm_regs *r, struct keel_frame *f);

/* Registers as a frame, for reports: on the vCPU's thread, or after it ended. False when they were lost. */
bool kvm_registers(struct kvm_vcpu *c, struct keel_frame *f);

/**
 * kvm_crash - end the partition with a report of where a vCPU is
 * @fmt: one line without a newline: what happened
 *
 * On the vCPU's thread. Returns KVM_NEXT_END, for an exit handler to pass on.
 */
enum kvm_next kvm_crash(struct kvm_vcpu *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
