/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * What an image says about itself: ELF notes for the host, read again by the
 * start-up code to negotiate. Used once, at file scope of one source file:
 *
 *	KEEL_IMAGE_NOTES(KEEL_NEEDS(MMU) | KEEL_NEEDS(TRAP), KEEL_NEEDS(STATS));
 *	KEEL_IMAGE_LINEAR(0x100000000000);
 */
#ifndef HYPERCALL_IMAGE_H
#define HYPERCALL_IMAGE_H

#include <hypercall/compat.h>
#include <keel/base.h>
#include <keel/calls.h>
#include <keel/note.h>

/* Bit of an extension in feature word 0. */
#define KEEL_NEEDS(ext) (KEEL_U64(1) << KEEL_EXT_##ext)

/* A note is 4-byte aligned throughout, so a u64 is stored as two halves. */
#define KEEL_NOTE_LO_(v) ((keel_u32)((v)&0xffffffff))
#define KEEL_NOTE_HI_(v) ((keel_u32)((keel_u64)(v) >> 32))
#define KEEL_NOTE_U64_(v) KEEL_NOTE_LO_(v), KEEL_NOTE_HI_(v)

struct keel_note_u64x1_ {
	keel_u32 namesz, descsz, type;
	char name[8];
	keel_u32 desc[2];
};
struct keel_note_u64x2_ {
	keel_u32 namesz, descsz, type;
	char name[8];
	keel_u32 desc[4];
};
KEEL_ASSERT_SIZE(struct keel_note_u64x1_, 28);
KEEL_ASSERT_SIZE(struct keel_note_u64x2_, 36);

/* Internal linkage keeps C and C++ alike; KEEP() in keel.ld holds on to the section. */
#define KEEL_NOTE_SECTION_ __attribute__((section(".note.Keel"), aligned(4), used))
#define KEEL_NOTE1_(id, type, ...)                                                 \
	static const struct keel_note_u64x1_ KEEL_NOTE_SECTION_ keel_note_##id = { \
		5, 8, type, KEEL_NOTE_NAME, { __VA_ARGS__ }                        \
	}
#define KEEL_NOTE2_(id, type, ...)                                                 \
	static const struct keel_note_u64x2_ KEEL_NOTE_SECTION_ keel_note_##id = { \
		5, 16, type, KEEL_NOTE_NAME, { __VA_ARGS__ }                       \
	}

#define KEEL_IMAGE_NOTES_4_(required0, optional0, required1, optional1, ...)                             \
	KEEL_NOTE1_(abi, KEEL_NOTE_ABI, KEEL_ABI_MAJOR, KEEL_ABI_MINOR);                                 \
	KEEL_NOTE2_(required, KEEL_NOTE_REQUIRED, KEEL_NOTE_U64_(required0), KEEL_NOTE_U64_(required1)); \
	KEEL_NOTE2_(optional, KEEL_NOTE_OPTIONAL, KEEL_NOTE_U64_(optional0), KEEL_NOTE_U64_(optional1))

/**
 * KEEL_IMAGE_NOTES - ABI version and features of this image
 * @required0: word 0 bits (KEEL_NEEDS()) without which it cannot run
 * @optional0: word 0 bits it uses when offered
 * Further, optional arguments: required and optional bits of word 1.
 */
#define KEEL_IMAGE_NOTES(...) KEEL_IMAGE_NOTES_4_(__VA_ARGS__, 0, 0, 0)

/* All RAM mapped read-write at va, which is a multiple of 2 MiB. */
#define KEEL_IMAGE_LINEAR(va) KEEL_NOTE1_(linear, KEEL_NOTE_LINEAR, KEEL_NOTE_U64_(va))

/* The image wants at least this much RAM. */
#define KEEL_IMAGE_MEMORY(bytes) KEEL_NOTE1_(memory, KEEL_NOTE_MEMORY, KEEL_NOTE_U64_(bytes))

#endif
