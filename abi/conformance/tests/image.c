// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/*
 * IMAGE: images that must run although something about them is unusual. Those
 * that must be refused are made and declared by badimage.c; each file named
 * here is a variant of this image, made there as well.
 */
#include "kt.h"

KEEL_TEST("IMAGE-101", image_plain, "KEEL-IMAGE-01 KEEL-IMAGE-08 KEEL-VER-04", "", 0)
{
	CHECK_EQ(kt_query(KT_LINEAR), KEEL_PROT_R | KEEL_PROT_W);
}

KEEL_TEST("IMAGE-103", image_optional_unknown, "KEEL-IMAGE-12", "image=image/optional-unknown.elf", 0)
{
	OK(HC(KEEL_CALL_BASE_NOP));
}

KEEL_TEST("IMAGE-104", image_empty_segment, "KEEL-IMAGE-04", "image=image/empty-segment.elf", 0)
{
	CHECK_EQ(kt_query(0x7000000), 0);
}

KEEL_TEST("IMAGE-105", image_no_linear, "KEEL-IMAGE-13 KEEL-START-04 KEEL-INIT-05", "image=image/no-linear.elf",
	  KT_EARLY)
{
	u32 size;

	CHECK(!kt_chunk(KEEL_CHUNK_LINEAR, &size));
	kt_accept_all();
	kt_freeze();
	CHECK_EQ(kt_query(KT_LINEAR), 0);
	CHECK_EQ(kt_query(KT_LINEAR + (1 << 20)), 0);
	CHECK_EQ(kt_query(0x400000) & 7, KEEL_PROT_R | KEEL_PROT_X);
}

KEEL_TEST("IMAGE-106", image_other_note, "KEEL-IMAGE-10", "image=image/other-name.elf", 0)
{
	CHECK_EQ(kt_query(KT_LINEAR), KEEL_PROT_R | KEEL_PROT_W);
}

KEEL_TEST("IMAGE-107", image_memory_met, "KEEL-IMAGE-14", "image=image/memory-exact.elf", 0)
{
	CHECK(kt_ram_size() >= 0x2000000);
}

KEEL_TEST("IMAGE-108", image_segment_far, "KEEL-IMAGE-03 KEEL-IMAGE-05 KEEL-IMAGE-09", "image=image/segment-far.elf", 0)
{
	/* An extra segment at the last page of the guest range and at GPA 0x800000. */
	u64 va = KEEL_VA_END - 4096;

	CHECK_EQ(kt_query(va), 0x800000 | KEEL_PROT_R);
	CHECK_EQ(*(volatile u8 *)va, 0x7f); /* it holds the beginning of the file */
	for (u64 i = 64; i < 4096; i++)
		CHECK_EQ(*(volatile u8 *)(va + i), 0);
}
