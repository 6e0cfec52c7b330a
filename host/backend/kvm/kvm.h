/* SPDX-License-Identifier: MIT */
/*
 * The kvm backend's own: one virtual machine with one vCPU, run by one thread.
 * kvm.c is what every partition on /dev/kvm needs; a flavour says what the
 * machine looks like inside and what its exits mean: pv.c (the monitor in the
 * guest, at CPL 0) and hvm.c (a kernel that owns its page tables).
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

/* What happened to a KVM_RUN. */
enum kvm_next {
	KVM_NEXT_RUN, /* go on */
	KVM_NEXT_END, /* the partition has ended; never run again */
};

struct kvm_flavour {
	bool full_irqchip; /* PIC, IOAPIC and PIT besides the LAPIC */
	bool boots;	   /* code of the host's runs first, and says with kvm_ready() when it is done */
	/* Change the processor features the guest sees, which are those KVM supports; may append up to max. NULL = none. */
	void (*cpuid)(struct kvm *k, struct kvm_cpuid2 *c, unsigned int max);
	/* Memory slots, registers, descriptors; everything up to the first instruction. 0 or -errno after host_say(). */
	int (*create)(struct kvm *k);
	/* An exit kvm.c does not know: k->run says which. On the vCPU's thread. */
	enum kvm_next (*exit)(struct kvm *k);
	/* Make the vCPU look at its events; any thread. */
	void (*kick)(struct kvm *k);
	/* The dump event; any thread. */
	void (*dump)(struct kvm *k);
	/* After the thread has ended; also when create() failed half-way or was not reached. */
	void (*destroy)(struct kvm *k);
	/* As in backend_ops, after the thread has ended. NULL = unknown. */
	bool (*next_mapping)(struct kvm *k, uint64_t va, struct mapping *m);
	bool (*snapshot)(struct kvm *k, struct crash_info *c);
	void (*stats)(struct kvm *k, FILE *f);
	unsigned int (*counters)(struct kvm *k, struct keel_stats_entry *e, unsigned int max);
};

/* What the seal lets through (seal.h). */
extern const struct seal_table kvm_calls;

extern const struct kvm_flavour kvm_pv, kvm_hvm;

enum kvm_state { KVM_STARTING, KVM_READY, KVM_RUNNING, KVM_ENDED };

struct kvm {
	struct partition *p;
	const struct kvm_flavour *flavour;
	void *own; /* the flavour's */
	int kvm_fd, vm_fd, vcpu_fd;
	int stats_fd[2];	  /* binary statistics of VM and vCPU; -1 = this kernel has none */
	struct kvm_cpuid2 *cpuid; /* what the guest sees */
	uint64_t xfeatures;	  /* its XCR0; 0 = it has no XSAVE */
	struct kvm_run *run;
	size_t run_size;
	pthread_t thread;
	bool threaded;
	bool stopping;
	uint32_t state; /* futex: enum kvm_state */
	int ready_err;
	uint64_t exits; /* to this process, signals apart */
};

/**
 * kvm_ready - the machine is built, or could not be; returns when it shall run
 * @err: 0 or a negative errno, said already
 *
 * On the vCPU's thread. False when the partition is to end instead.
 */
bool kvm_ready(struct kvm *k, int err);

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
bool kvm_registers(struct kvm *k, struct keel_frame *f);

/**
 * kvm_crash - end the partition with a report of where its vCPU is
 * @fmt: one line without a newline: what happened
 *
 * On the vCPU's thread. Returns KVM_NEXT_END, for an exit handler to pass on.
 */
enum kvm_next kvm_crash(struct kvm *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
