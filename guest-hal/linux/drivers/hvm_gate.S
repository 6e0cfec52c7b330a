/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The gate: a page of keel.ko's code, which the host writes when it is told where it
 * is. Until then, and behind what the host wrote, each byte is int3.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>
#include <asm/page_types.h>

	.section .text.keel_gate_page, "ax", @progbits
	.balign PAGE_SIZE, 0xcc
SYM_CODE_START_NOALIGN(keel_gate_page)
	/* Its address is taken to tell the host of it, and called directly. */
	ANNOTATE_NOENDBR
	.skip PAGE_SIZE, 0xcc
SYM_CODE_END(keel_gate_page)
