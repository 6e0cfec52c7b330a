/* SPDX-License-Identifier: MIT */
/* What step.c, the tracer, and its guest share. */
#ifndef KEEL_HOST_TESTS_STEP_H
#define KEEL_HOST_TESTS_STEP_H

/* In rax at the int3 that opens a round; rdi has the address of struct step_state. */
#define STEP_MAGIC 0x4b65656c53746570

#ifndef __ASSEMBLER__
#include <stdint.h>

struct step_state {
	uint64_t vcpu;	/* address of the vCPU page */
	uint32_t bit;	/* the tracer's port, unmasked */
	uint32_t stop;	/* set by the tracer: the guest powers off */
	uint64_t taken; /* events of the tracer's port */
	uint64_t own;	/* events the guest sent to itself: one a round */
	uint64_t rounds;
	uint64_t bad; /* what did not come through, see step_round.S; 0 = nothing */
};
#endif

#endif
