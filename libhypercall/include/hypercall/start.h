/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/* Reading the start info: bounds-checked iteration over its chunks. */
#ifndef HYPERCALL_START_H
#define HYPERCALL_START_H

#include <hypercall/compat.h>
#include <keel/start.h>

KEEL_BEGIN_C

/**
 * keel_start_check - is this a well-formed start info?
 * @start: 8-byte aligned
 * @size: bytes readable there, or SIZE_MAX when only the header's own size says
 *
 * Checks header, chunk count and that every chunk lies inside. Returns 0 or a negative
 * status as of keel/status.h with the header field at fault; a broken chunk is
 * reported as field 3 (chunks). The functions below want a start info that passed.
 */
keel_s64 keel_start_check(const void *start, size_t size);

/**
 * keel_start_find - next chunk of a type
 * @start: start info
 * @type: KEEL_CHUNK_*
 * @prev: chunk to continue behind, NULL for the first
 */
const struct keel_chunk *keel_start_find(const struct keel_start *start, keel_u32 type, const struct keel_chunk *prev);

/* Payload of a chunk, and its length in bytes. */
static inline const void *keel_chunk_data(const struct keel_chunk *c)
{
	return c + 1;
}

static inline size_t keel_chunk_len(const struct keel_chunk *c)
{
	return c->size - sizeof(*c);
}

/*
 * Typed access. NULL (or 0, or "") where the chunk is absent or too short to hold
 * what is asked for; a longer one is fine.
 */
const struct keel_memmap_entry *keel_start_memmap(const struct keel_start *start, size_t *count);
const struct keel_module *keel_start_module(const struct keel_start *start, unsigned int index);
const char *keel_start_cmdline(const struct keel_start *start);
const keel_u8 *keel_start_entropy(const struct keel_start *start);
const struct keel_cpu_info *keel_start_cpu(const struct keel_start *start);
const struct keel_abi_pages *keel_start_abi(const struct keel_start *start);
const struct keel_linear_map *keel_start_linear(const struct keel_start *start);

/* Bytes of RAM: everything in the memory map but ABI pages. */
keel_u64 keel_start_ram(const struct keel_start *start);

/**
 * keel_cmdline_get - value of an option on a command line
 * @cmdline: space-separated words
 * @name: option name
 * @value: copied here, cut to @size bytes with the NUL; may be NULL with @size 0
 *
 * Finds `name=value` or a lone `name` (value ""); the last one counts. Returns the
 * value's length, or -1 when the option is not there.
 */
int keel_cmdline_get(const char *cmdline, const char *name, char *value, size_t size);

KEEL_END_C

#endif
