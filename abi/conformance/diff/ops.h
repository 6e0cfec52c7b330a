/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Operations of the differential run. An operation is one 64-bit word; what it
 * does is drawn from that word alone, so a list can lose any of its members and
 * the others stay what they were. That is what shrinking rests on. ops.c is
 * compiled into the guest, which executes operations, and into keel-diff, which
 * prints them.
 *
 * What depends on the host that runs the guest (the size of RAM, a port's
 * handle) is named by a reference, and the guest puts the value in.
 */
#ifndef DIFF_OPS_H
#define DIFF_OPS_H

#include <stdbool.h>

#include <keel/keel.h>

/* Guest addresses; kt.h has what lies around them. */
#define DIFF_SMALL_VA (KEEL_U64(0x200000000000) + 0x1f0000) /* crosses a 2 MiB boundary */
#define DIFF_SMALL_PAGES 48
#define DIFF_CLOCK_VA KEEL_U64(0x200000600000) /* the clock page, when it is mapped */
#define DIFF_LARGE_VA KEEL_U64(0x200000800000)
#define DIFF_LARGE_PAGES 1536
#define DIFF_LOW_VA KEEL_VA_MIN
#define DIFF_HIGH_VA (KEEL_VA_END - DIFF_EDGE_PAGES * KEEL_PAGE_SIZE)
#define DIFF_EDGE_PAGES 4
#define DIFF_POOL_GPA KEEL_U64(0x1000000)
#define DIFF_POOL_PAGES 32
#define DIFF_LARGE_GPA KEEL_U64(0x1200000)
/* Pages of the operations' own, never mapped by one: inputs, outputs, and what is always zero. */
#define DIFF_IN_GPA KEEL_U64(0x1800000)
#define DIFF_OUT_GPA KEEL_U64(0x1900000)
#define DIFF_ZERO_GPA KEEL_U64(0x1a00000)

#define DIFF_PORTS 16 /* slots for handles the guest keeps */
#define DIFF_OPS_MAX 32768

enum op_kind {
	OP_CALL,    /* one call, arguments from a table of boundary values */
	OP_MMU,	    /* mmu_batch of well-formed and malformed records, then one access */
	OP_TOUCH,   /* reads, writes and fetches */
	OP_EVENT,   /* one EVENT call, or a batch, on ports in use */
	OP_MULTI,   /* multicall of mixed entries */
	OP_HARVEST, /* start, stop, collect */
	OP_QUIET,   /* collect until nothing is reported any more */
	OP_IF,	    /* virtual IF; the guest's own masking and taking of events */
	OP_SET,	    /* entries and stacks of the frame classes */
	OP_RETURN,  /* trap_return of a frame the guest made up */
	OP_TRAP,    /* an exception other than a page fault */
	OP_DOUBLE,  /* a trap while the slot is in use */
	OP_HELD,    /* events while the EVENT slot is in use */
	OP_DUMP,    /* the dump event, and what its handler does */
	OP_WAIT,    /* vcpu_wait */
	OP_TIMER,   /* the timer, past or ahead */
	OP_MEMORY,  /* memory_release, memory_populate */
	OP_STATS,   /* counters */
	OP_REGS,    /* a call with every register known */
	OP_RING,    /* a console ring, from set-up to take-back */
	OP_KINDS
};

enum access_kind {
	ACCESS_READ,
	ACCESS_WRITE,
	ACCESS_FETCH,
	ACCESS_CROSS, /* a read that begins in one page and ends in the next */
	ACCESS_KINDS
};

/* What an argument stands for. */
enum ref {
	REF_NONE,
	REF_RAM,   /* added to the size of RAM */
	REF_LIMIT, /* added to base_limit(KEEL_LIMIT_BATCH_COUNT) */
	REF_PORT,  /* slot | flavour << 8 */
};

enum port_flavour {
	PORT_LIVE,  /* the slot's handle; of an empty one a handle that names nothing */
	PORT_STALE, /* the one it had before */
	PORT_GEN,   /* another generation */
	PORT_VCPU,  /* another vCPU */
	PORT_HIGH,  /* a bit above 31 */
	PORT_FLAVOURS
};

struct op_call {
	uint64_t id;
	uint64_t arg[5];
	uint8_t ref[5];
};

struct op_access {
	uint64_t va;
	uint32_t kind;
};

/* Stand-ins in keel_mmu_record.gpa. */
#define DIFF_GPA_CLOCK KEEL_U64(0x7b0000000000)	  /* the clock page */
#define DIFF_GPA_RAM_END KEEL_U64(0x7b0010000000) /* the last page of RAM */

#define OP_ITEMS 8
struct op {
	uint64_t word;
	uint32_t kind;
	uint32_t n; /* items in use */
	uint64_t a[4];
	struct op_call call[OP_ITEMS];
	struct keel_mmu_record rec[OP_ITEMS];
	struct keel_event_record ev[OP_ITEMS]; /* port: slot | flavour << 8 */
	struct op_access access[OP_ITEMS];
	uint32_t entry_flags[OP_ITEMS]; /* of a multicall entry: flags | reserved << 16 */
};

/* hypercalls.def as a table. Kinds are those of its head comment. */
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

struct op_arg {
	uint8_t kind;
	const char *name;
};

struct op_call_info {
	uint32_t id;
	uint32_t flags;
	bool served;
	uint32_t nargs;
	const char *name;
	struct op_arg arg[5];
};

extern const struct op_call_info op_calls[KEEL_CALL_COUNT];
extern const char *const op_names[OP_KINDS];

/* The call with this number, or NULL. */
const struct op_call_info *op_call_info(uint64_t id);

/* Word number n of a seed's sequence. */
uint64_t op_word(uint64_t seed, uint64_t n);
void op_decode(uint64_t word, struct op *op);

#endif
