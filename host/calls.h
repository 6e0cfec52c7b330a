/* SPDX-License-Identifier: MIT */
/* hypercalls.def as a table: for checks, decoded traces and counters. */
#ifndef KEEL_HOST_CALLS_H
#define KEEL_HOST_CALLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <keel/keel.h>

enum arg_kind {
	ARG_NONE,
	ARG_U32,
	ARG_U64,
	ARG_FLAGS,
	ARG_GPA,
	ARG_LEN,
	ARG_VA,
	ARG_AS,
	ARG_PORT,
	ARG_VCPU,
	ARG_CTX,
	ARG_HANDLE,
	ARG_NS,
	ARG_WORD,
};

struct call_arg {
	enum arg_kind kind;
	const char *name;
};

struct call_info {
	uint32_t id;
	const char *name;
	unsigned int args;
	unsigned int flags; /* KEEL_CF_* */
	bool served;	    /* its extension is implemented, and it needs no feature that is not */
	struct call_arg arg[5];
};

extern const struct call_info call_table[KEEL_CALL_COUNT]; /* in the order of hypercalls.def, sorted by id */

const struct call_info *call_find(uint32_t id);

/* Extensions this host implements: feature word 0. */
uint64_t calls_offered(void);

/* "mmu_batch(as=0, records=0x2000, count=3, flags=0)". Returns the length, cut to n. */
size_t call_format(char *buf, size_t n, uint32_t id, const uint64_t arg[5]);

#endif
