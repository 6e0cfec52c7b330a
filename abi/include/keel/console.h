/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * CONSOLE: a ring both ways in one page of guest RAM. Indices count bytes and
 * wrap at 2^32; a byte lives at index % size. The producer writes bytes, then
 * its index (release); the consumer reads the index (acquire), then bytes.
 *
 * Output: after publishing, the guest calls console_kick only if out_wake is
 * set. The host clears out_wake, drains, sets it, and looks again before it
 * sleeps. Each side has a full barrier between its store and its look at the
 * other's, or both could miss. Input: the host raises the bound console port when input arrives or,
 * with in_wake's KEEL_CONSOLE_WANT_SPACE set, when output space came free.
 * An index further apart than the size is the guest's error: the host drops
 * the ring, says so once, and the partition goes on without it.
 */
#ifndef KEEL_CONSOLE_H
#define KEEL_CONSOLE_H

#include <keel/types.h>

#define KEEL_CONSOLE_IN_SIZE 1024
#define KEEL_CONSOLE_OUT_SIZE 2048
#define KEEL_CONSOLE_RING_SIZE 4096
#define KEEL_CONSOLE_WRITE_MAX 32 /* bytes of one console_write */

#define KEEL_CONSOLE_WANT_SPACE KEEL_U32(1)

#ifndef __ASSEMBLER__
/*
 * struct keel_console_ring - one page, page-aligned.
 *
 *	0x000  out_prod  guest writes  bytes the guest has put out
 *	0x004  in_cons   guest writes  bytes the guest has taken in
 *	0x008  in_wake   guest writes  KEEL_CONSOLE_WANT_SPACE or 0
 *	0x00c  reserved0 zero
 *	0x040  out_cons  host writes   bytes the host has taken
 *	0x044  in_prod   host writes   bytes the host has put in
 *	0x048  out_wake  host writes   1: kick after publishing output
 *	0x04c  rows, 0x04e cols  host writes  terminal size, 0 when unknown
 *	0x050  reserved1 zero
 *	0x080  in[1024]  host writes
 *	0x480  out[2048] guest writes
 *	0xc80  reserved2 zero
 */
struct keel_console_ring {
	keel_u32 out_prod;
	keel_u32 in_cons;
	keel_u32 in_wake;
	keel_u32 reserved0[13];
	keel_u32 out_cons;
	keel_u32 in_prod;
	keel_u32 out_wake;
	keel_u16 rows;
	keel_u16 cols;
	keel_u32 reserved1[12];
	keel_u8 in[KEEL_CONSOLE_IN_SIZE];
	keel_u8 out[KEEL_CONSOLE_OUT_SIZE];
	keel_u8 reserved2[0x380];
};
KEEL_ASSERT_SIZE(struct keel_console_ring, KEEL_CONSOLE_RING_SIZE);
KEEL_ASSERT_AT(struct keel_console_ring, out_prod, 0x000);
KEEL_ASSERT_AT(struct keel_console_ring, in_cons, 0x004);
KEEL_ASSERT_AT(struct keel_console_ring, in_wake, 0x008);
KEEL_ASSERT_AT(struct keel_console_ring, reserved0, 0x00c);
KEEL_ASSERT_AT(struct keel_console_ring, out_cons, 0x040);
KEEL_ASSERT_AT(struct keel_console_ring, in_prod, 0x044);
KEEL_ASSERT_AT(struct keel_console_ring, out_wake, 0x048);
KEEL_ASSERT_AT(struct keel_console_ring, rows, 0x04c);
KEEL_ASSERT_AT(struct keel_console_ring, cols, 0x04e);
KEEL_ASSERT_AT(struct keel_console_ring, reserved1, 0x050);
KEEL_ASSERT_AT(struct keel_console_ring, in, 0x080);
KEEL_ASSERT_AT(struct keel_console_ring, out, 0x480);
KEEL_ASSERT_AT(struct keel_console_ring, reserved2, 0xc80);
#endif

#endif
