/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * ELF notes of a guest image: name "Keel", in a PT_NOTE segment. The image is
 * ET_EXEC for x86-64; each PT_LOAD is page-aligned, p_paddr is its GPA, p_flags
 * its protection, never writable and executable at once (KEEL-IMAGE-*).
 */
#ifndef KEEL_NOTE_H
#define KEEL_NOTE_H

#include <keel/types.h>

#define KEEL_NOTE_NAME "Keel"

#define KEEL_NOTE_ABI 1	     /* u32 major, u32 minor; required */
#define KEEL_NOTE_REQUIRED 2 /* u64[KEEL_FEATURE_WORDS]: refuse to start without these */
#define KEEL_NOTE_OPTIONAL 3 /* u64[KEEL_FEATURE_WORDS]: used when offered */
#define KEEL_NOTE_LINEAR 4   /* u64: map all RAM read-write at this address, 2 MiB aligned */
#define KEEL_NOTE_MEMORY 5   /* u64: least bytes of RAM */

#endif
