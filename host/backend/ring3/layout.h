/* SPDX-License-Identifier: MIT */
/*
 * The guest process K: its file descriptors, and what it shares with the host
 * beyond the monitor's own memory (monitor/layout.h). Shared by K, built without
 * libc, and the host.
 */
#ifndef KEEL_RING3_LAYOUT_H
#define KEEL_RING3_LAYOUT_H

#include "../../monitor/layout.h"

#define K_TASK_END 0x7ffffffff000
#define K_FILTER_OFF MON_BACKEND_OFF /* BPF programs of K, N and M, from struct mon */
#define K_N_FILTER_OFF (K_FILTER_OFF + 0x8000)
#define K_M_FILTER_OFF (K_N_FILTER_OFF + 0x4000)
#define K_M_FILTER_MAX 400 /* instructions; a slot has to hold them for a moment */

/*
 * Spinning for the other side of a remote call: one round in so many is a sched_yield
 * (about 50 us). Where the scheduler has put both on one processor, neither gets on
 * without it until its time slice is used up.
 */
#define K_SPIN_YIELD 2048

/* The host's kick of a vCPU: each has a signal of its own, which only its thread takes. 48 to 63. */
#define K_SIG_HOST_KICK 48

#define K_FD_RAM 3
#define K_FD_ABI 4
#define K_FD_MON 5 /* closed before sealing */
#define K_FD_DOORBELL 6
#define K_FD_DEVICE 7 /* the doorbell of the first device; 8 at most: K_FD_ARENA follows */

#define K_CPU_SET 128 /* bytes of a set of processors; of 1024, as everywhere */

#ifndef __ASSEMBLER__
#include <stdint.h>

/* In mon.backend, filled in by the host. */
struct k_config {
	uint64_t mon_size;	/* bytes of the monitor memfd */
	uint64_t address_space; /* RLIMIT_AS of the sealed process */
	uint32_t filter_len;	/* BPF instructions at K_FILTER_OFF; 0 = not there yet, K waits on it */
	uint32_t tgid;		/* K's own number, as it and its filter see it; before filter_len */
	uint32_t n_filter_len, m_filter_len;
	uint32_t user;	    /* 1: guest user code may be run */
	uint32_t user_spin; /* rounds to spin for a hand-over of user code */
	uint32_t spin;	    /* rounds to spin for an answer before sleeping */
	uint32_t yield;	    /* 1: spin by sched_yield, there is only one core */
	uint32_t bug;	    /* KEEL_BUG number, test builds only */
};

/* mvcpu.backend[]: the only addresses the filter lets system calls point at. */
enum {
	K_SLOT_NOW = 0,	      /* 2 words: clock_gettime */
	K_SLOT_ITIMER = 2,    /* 4 words: timer_settime */
	K_SLOT_ONE = 6,	      /* 1 word: what the doorbell writes */
	K_SLOT_TIMER = 7,     /* timer id */
	K_SLOT_DEADLINE = 8,  /* 2 words: futex timeout */
	K_SLOT_FSGSBASE = 10, /* rdgsbase may be used */
	K_SLOT_TID = 11,      /* of the vCPU's thread */
	K_SLOT_DONE = 13,     /* 1 word: what M answers */
	K_SLOT_USER = 14,     /* the slot of user code that runs, 0 = none */
	K_SLOT_READY = 12,    /* its thread is set up: 1, or a negative errno */
};

/* MON_REMOTE_READY arg1: where start-up failed. */
enum k_step {
	K_STEP_EVACUATE = 1,
	K_STEP_SIGNALS,
	K_STEP_TIMER,
	K_STEP_THREADS,
	K_STEP_LIMITS,
	K_STEP_FILTER,
	K_STEP_BOOT_MAP,
	K_STEP_USER,
};
#endif

#endif
