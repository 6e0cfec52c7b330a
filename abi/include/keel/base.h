/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/* BASE: version, features, limits, shutdown; and MULTICALL. */
#ifndef KEEL_BASE_H
#define KEEL_BASE_H

#include <keel/types.h>

#define KEEL_ABI_MAJOR 1
#define KEEL_ABI_MINOR 0
#define KEEL_ABI_RC 0 /* a release: see KEEL-VER-02 */
#define KEEL_ABI_VERSION (KEEL_U64(1) << 32 | KEEL_ABI_MINOR << 16 | KEEL_ABI_RC)

/* base_probe */
#define KEEL_PROBE_IMPLEMENTED 1
#define KEEL_PROBE_GRANTED 2
#define KEEL_PROBE_ACCEPTED 4

/* Feature words. Word 0: bit n = extension n. Word 1: refinements. */
#define KEEL_FEATURE_WORDS 2
#define KEEL_F1_HARVEST_ACCESSED 0 /* harvest reports reads too */
#define KEEL_F1_CLOCK_PAGE 1	   /* the clock page is kept valid */
#define KEEL_F1_SMP 2		   /* vcpu_start, vcpu_stop, vcpu_ipi, vcpu_info */

/* base_shutdown: how */
#define KEEL_SHUTDOWN_POWEROFF 0 /* code 0..123 becomes the host's exit status */
#define KEEL_SHUTDOWN_RESTART 1	 /* code 0..123, recorded and reported */
#define KEEL_SHUTDOWN_CODE_MAX 123

/* base_limit */
#define KEEL_LIMIT_VCPUS 0	   /* vCPUs the partition may start */
#define KEEL_LIMIT_MMU_RECORDS 1   /* records one mmu_batch call works off at most */
#define KEEL_LIMIT_MMU_PAGES 2	   /* pages one mmu_batch call works off at most */
#define KEEL_LIMIT_BATCH_COUNT 3   /* largest count any batched call accepts */
#define KEEL_LIMIT_EVENT_PORTS 4   /* event bits per vCPU */
#define KEEL_LIMIT_AS_TABLES 5	   /* page-table pages the partition may use */
#define KEEL_LIMIT_HARVEST_PAGES 6 /* pages one harvest call works off at most */
#define KEEL_LIMIT_MEMORY_PAGES 7  /* pages one memory_populate or release call works off at most */
#define KEEL_LIMIT_SPACES 8	   /* address spaces beside the guest kernel's that can exist at once */
#define KEEL_LIMIT_COUNT 9

/* multicall: flags */
#define KEEL_MULTICALL_STOP_ON_ERROR KEEL_U64(1)
#define KEEL_MULTICALL_MAX 64 /* entries one call works off at most */

#ifndef __ASSEMBLER__
/*
 * struct keel_multicall - one call of a batch. Read-only to the host.
 *
 *	 0  id       IN  call number
 *	 4  flags    IN  zero
 *	 8  arg[5]   IN  arguments
 *	48  cookie   IN  copied to the result
 *	56  reserved IN  zero
 */
struct keel_multicall {
	keel_u32 id;
	keel_u32 flags;
	keel_u64 arg[5];
	keel_u64 cookie;
	keel_u64 reserved;
};
KEEL_ASSERT_SIZE(struct keel_multicall, 64);
KEEL_ASSERT_AT(struct keel_multicall, id, 0);
KEEL_ASSERT_AT(struct keel_multicall, flags, 4);
KEEL_ASSERT_AT(struct keel_multicall, arg, 8);
KEEL_ASSERT_AT(struct keel_multicall, cookie, 48);
KEEL_ASSERT_AT(struct keel_multicall, reserved, 56);

/*
 * struct keel_multicall_result
 *
 *	 0  status  OUT  as the call would return in rax
 *	 8  value   OUT  as the call would return in rdx
 *	16  cookie  OUT  of the entry
 *	24  id      OUT  of the entry
 *	28  reserved OUT zero
 */
struct keel_multicall_result {
	keel_s64 status;
	keel_u64 value;
	keel_u64 cookie;
	keel_u32 id;
	keel_u32 reserved;
};
KEEL_ASSERT_SIZE(struct keel_multicall_result, 32);
KEEL_ASSERT_AT(struct keel_multicall_result, status, 0);
KEEL_ASSERT_AT(struct keel_multicall_result, value, 8);
KEEL_ASSERT_AT(struct keel_multicall_result, cookie, 16);
KEEL_ASSERT_AT(struct keel_multicall_result, id, 24);
KEEL_ASSERT_AT(struct keel_multicall_result, reserved, 28);
#endif

#endif
