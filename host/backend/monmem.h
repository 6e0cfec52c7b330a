/* SPDX-License-Identifier: MIT */
/*
 * The host's side of the monitor's memory (monitor/layout.h): made before the
 * guest starts, read and answered while it runs, taken apart after it stopped.
 * Used by every backend that has a monitor.
 *
 * All of it is the guest's to write at any time. What is read from it is copied
 * once and bounded; nothing in it is used as an address or an index unchecked.
 */
#ifndef KEEL_MONMEM_H
#define KEEL_MONMEM_H

#include <stdio.h>

#include "../monitor/layout.h"
#include "../monitor/monitor.h"
#include "../partition.h"

struct monmem {
	struct partition *p;
	const char *backend; /* its name, for messages */
	int fd;		     /* the file it is, for a backend to hand out; -1 = closed */
	uint8_t *mem;	     /* vCPU blocks, struct mon, arena */
	uint64_t size, arena_off, arena_pages;
	struct mon_fatal fatal; /* copied when the guest reported it */
	unsigned int fatal_vcpu;
	struct keel_frame seen[MON_MAX_VCPUS]; /* where each vCPU was when it was stopped from outside */
	uint32_t have_seen;		       /* bit per vCPU */
	uint64_t remote_calls;
	enum {
		MONMEM_TREE_UNKNOWN,
		MONMEM_TREE_SOUND,
		MONMEM_TREE_BROKEN
	} tree;		    /* looked at after the guest stopped */
	uint64_t tree_root; /* offset in the arena */
};

static inline struct mvcpu *monmem_vcpu(const struct monmem *mm, unsigned int vcpu)
{
	return mv_of((struct keel_vcpu *)(mm->mem + (uint64_t)vcpu * MON_BLOCK_SIZE));
}

static inline struct mon *monmem_mon(const struct monmem *mm)
{
	return (struct mon *)(mm->mem + (MON_VA - MON_VCPU_VA));
}

/**
 * monmem_create - make it, and fill in what the monitor is told about the partition
 * @extra: bytes to have behind the arena, page aligned, for the backend
 *
 * Returns 0, or a negative errno after saying why.
 */
int monmem_create(struct monmem *mm, struct partition *p, const char *backend, uint64_t extra);
void monmem_destroy(struct monmem *mm);

/* What became of a remote call. */
enum monmem_served {
	MONMEM_ANSWERED, /* the answer is in the slot */
	MONMEM_ENDED,	 /* the partition has ended: the guest may not go on */
	MONMEM_OTHERS,	 /* a pseudo call of the backend's own; nothing was answered */
};

/**
 * monmem_serve - serve the call in a vCPU's slot
 * @id: set to its number
 * @arg: set to its arguments, copied once
 *
 * On any thread, one at a time for each vCPU.
 */
enum monmem_served monmem_serve(struct monmem *mm, unsigned int vcpu, uint32_t *id, uint64_t arg[5]);

/* Answer a pseudo call. */
void monmem_answer(struct monmem *mm, unsigned int vcpu, int64_t status, uint64_t value);

/* What vcpu_start and vcpu_stop of another vCPU do to its state; the backend's part follows on KEEL_OK and AGAIN. */
int64_t monmem_start(struct monmem *mm, unsigned int vcpu, uint64_t entry, uint64_t opaque);
int64_t monmem_stop(struct monmem *mm, unsigned int vcpu);

/* A kick of the host's is to be sent, for none is on its way: mon_kick(). */
bool monmem_kicks(struct monmem *mm, unsigned int vcpu);

/* The backend's operations of these names, after the guest stopped. */
bool monmem_next_mapping(struct monmem *mm, uint64_t va, struct mapping *out);
bool monmem_snapshot(struct monmem *mm, unsigned int vcpu, struct crash_info *c);
unsigned int monmem_counters(struct monmem *mm, struct keel_stats_entry *e, unsigned int max);
void monmem_stats(struct monmem *mm, FILE *f);

#endif
