/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/* MMU: range records on an address space. HARVEST: which pages were written. */
#ifndef KEEL_MMU_H
#define KEEL_MMU_H

#include <keel/types.h>

#define KEEL_MMU_MAP 1	   /* map va.. to gpa.., replacing what was there */
#define KEEL_MMU_UNMAP 2   /* unmap va..; unmapped pages are skipped */
#define KEEL_MMU_PROTECT 3 /* change the protection of mapped pages; NOENT at a hole */

#define KEEL_PROT_R 1
#define KEEL_PROT_W 2 /* implies R */
#define KEEL_PROT_X 4 /* implies R */
#define KEEL_PROT_ALL 7

/* struct keel_mmu_record.flags */
#define KEEL_MMU_POPULATE KEEL_U32(1) /* MAP: back and map every page now, not at first touch */
#define KEEL_MMU_FLAGS_ALL KEEL_U32(1)

#ifndef __ASSEMBLER__
/*
 * struct keel_mmu_record - one range of one address space. Read-only to the
 * host, copied once. va, gpa and len are multiples of KEEL_PAGE_SIZE.
 *
 *	 0  op     IN  KEEL_MMU_*                                   field 1
 *	 2  prot   IN  KEEL_PROT_* for MAP and PROTECT, else zero   field 2
 *	 4  flags  IN  KEEL_MMU_POPULATE for MAP, else zero         field 3
 *	 8  va     IN  first byte                                   field 4
 *	16  gpa    IN  first byte for MAP, else zero                field 5
 *	24  len    IN  bytes, not zero                              field 6
 */
struct keel_mmu_record {
	keel_u16 op;
	keel_u16 prot;
	keel_u32 flags;
	keel_u64 va;
	keel_u64 gpa;
	keel_u64 len;
};
KEEL_ASSERT_SIZE(struct keel_mmu_record, 32);
KEEL_ASSERT_AT(struct keel_mmu_record, op, 0);
KEEL_ASSERT_AT(struct keel_mmu_record, prot, 2);
KEEL_ASSERT_AT(struct keel_mmu_record, flags, 4);
KEEL_ASSERT_AT(struct keel_mmu_record, va, 8);
KEEL_ASSERT_AT(struct keel_mmu_record, gpa, 16);
KEEL_ASSERT_AT(struct keel_mmu_record, len, 24);
#endif

/* mmu_batch: value */
#define KEEL_MMU_DONE_RECORDS(value) ((value)&0xffffffff)
#define KEEL_MMU_DONE_PAGES(value) ((value) >> 32) /* pages of the next record already done */

/* harvest_start: flags */
#define KEEL_HARVEST_DIRTY KEEL_U64(1)
#define KEEL_HARVEST_ACCESSED KEEL_U64(2) /* needs KEEL_F1_HARVEST_ACCESSED */

/* harvest_collect: the bitmap is keel_u64 words, bit i % 64 of word i / 64 for page i (KEEL-HARVEST-06). */
/* harvest_*: value */
#define KEEL_HARVEST_DONE_PAGES(value) ((value)&0xffffffff)
#define KEEL_HARVEST_WRITTEN(value) ((value) >> 32)

#endif
