// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Reading the start info; see keel/start.h for the format. */
#include <hypercall/start.h>
#include <keel/status.h>

#include "mutant.h"

#define FIELD_MAGIC 1
#define FIELD_VERSION 2
#define FIELD_CHUNKS 3
#define FIELD_SIZE 4
#define FIELD_RESERVED 5

static keel_s64 bad(int code, int field)
{
	return KEEL_STATUS(code, KEEL_AT_FIELD(field));
}

/* Offset behind a chunk, its padding included; 0 when it is malformed or reaches beyond size. */
static keel_u64 chunk_end(const struct keel_start *start, keel_u64 off)
{
	const struct keel_chunk *c;

	if (start->size < sizeof(*c) || off > start->size - sizeof(*c))
		return 0;
	c = (const struct keel_chunk *)((const char *)start + off);
	if (c->size < sizeof(*c) || c->size > start->size - off)
		return 0;
	return (off + c->size + 7) & ~KEEL_U64(7);
}

keel_s64 keel_start_check(const void *p, size_t size)
{
	const struct keel_start *start = (const struct keel_start *)p;
	keel_u64 off = sizeof(*start);
	keel_u32 i;

	if (size < sizeof(*start))
		return bad(KEEL_E_RANGE, FIELD_SIZE);
	if (start->magic != KEEL_START_MAGIC)
		return bad(KEEL_E_INVAL, FIELD_MAGIC);
	if (start->version != KEEL_START_VERSION)
		return bad(KEEL_E_NOTSUP, FIELD_VERSION);
	if (start->size < sizeof(*start) || start->size > size)
		return bad(KEEL_E_RANGE, FIELD_SIZE);
	if (start->reserved && !KEEL_MUTANT(12))
		return bad(KEEL_E_INVAL, FIELD_RESERVED);
	for (i = 0; i < start->chunks; i++) {
		off = chunk_end(start, off);
		if (!off)
			return bad(KEEL_E_INVAL, FIELD_CHUNKS);
	}
	/* The last chunk's padding may be left out; anything else behind it is not accounted for. */
	if (off < start->size)
		return bad(KEEL_E_INVAL, FIELD_SIZE);
	return KEEL_OK;
}

const struct keel_chunk *keel_start_find(const struct keel_start *start, keel_u32 type, const struct keel_chunk *prev)
{
	keel_u64 off = sizeof(*start), end;

	if (prev)
		off = chunk_end(start, (keel_u64)((const char *)prev - (const char *)start));
	for (; off && (end = chunk_end(start, off)) != 0; off = end) {
		const struct keel_chunk *c = (const struct keel_chunk *)((const char *)start + off);

		if (c->type == type)
			return c;
	}
	return NULL;
}

/* Payload of the first chunk of a type that holds at least `least` bytes. */
static const void *payload(const struct keel_start *start, keel_u32 type, size_t least)
{
	const struct keel_chunk *c = keel_start_find(start, type, NULL);

	return c && keel_chunk_len(c) >= least ? keel_chunk_data(c) : NULL;
}

const struct keel_memmap_entry *keel_start_memmap(const struct keel_start *start, size_t *count)
{
	const struct keel_chunk *c = keel_start_find(start, KEEL_CHUNK_MEMMAP, NULL);

	*count = c ? keel_chunk_len(c) / sizeof(struct keel_memmap_entry) : 0;
	return *count ? (const struct keel_memmap_entry *)keel_chunk_data(c) : NULL;
}

const struct keel_module *keel_start_module(const struct keel_start *start, unsigned int index)
{
	const struct keel_chunk *c = NULL;

	while ((c = keel_start_find(start, KEEL_CHUNK_MODULE, c)) != NULL) {
		if (index--)
			continue;
		return keel_chunk_len(c) >= sizeof(struct keel_module) ? (const struct keel_module *)keel_chunk_data(c)
								       : NULL;
	}
	return NULL;
}

const char *keel_start_cmdline(const struct keel_start *start)
{
	const struct keel_chunk *c = keel_start_find(start, KEEL_CHUNK_CMDLINE, NULL);
	const char *s;

	if (!c || !keel_chunk_len(c))
		return "";
	s = (const char *)keel_chunk_data(c);
	/* Whoever reads it relies on the NUL. */
	return s[keel_chunk_len(c) - 1] ? "" : s;
}

const keel_u8 *keel_start_entropy(const struct keel_start *start)
{
	return (const keel_u8 *)payload(start, KEEL_CHUNK_ENTROPY, KEEL_ENTROPY_SIZE);
}

const struct keel_cpu_info *keel_start_cpu(const struct keel_start *start)
{
	return (const struct keel_cpu_info *)payload(start, KEEL_CHUNK_CPU, sizeof(struct keel_cpu_info));
}

const struct keel_abi_pages *keel_start_abi(const struct keel_start *start)
{
	return (const struct keel_abi_pages *)payload(start, KEEL_CHUNK_ABI, sizeof(struct keel_abi_pages));
}

const struct keel_linear_map *keel_start_linear(const struct keel_start *start)
{
	return (const struct keel_linear_map *)payload(start, KEEL_CHUNK_LINEAR, sizeof(struct keel_linear_map));
}

keel_u64 keel_start_ram(const struct keel_start *start)
{
	const struct keel_memmap_entry *e;
	keel_u64 sum = 0;
	size_t i, n;

	e = keel_start_memmap(start, &n);
	for (i = 0; i < n; i++)
		if (e[i].type == KEEL_MEM_RAM || e[i].type == KEEL_MEM_IMAGE || e[i].type == KEEL_MEM_MODULE)
			sum += e[i].len;
	return sum;
}

/* Length of the word at s. */
static size_t word_len(const char *s)
{
	size_t n = 0;

	while (s[n] && s[n] != ' ')
		n++;
	return n;
}

int keel_cmdline_get(const char *cmdline, const char *name, char *value, size_t size)
{
	size_t name_len = word_len(name), len, cut;
	const char *found = NULL;
	size_t found_len = 0;

	for (; *cmdline; cmdline += len) {
		while (*cmdline == ' ')
			cmdline++;
		len = word_len(cmdline);
		if (len < name_len || (found && KEEL_MUTANT(13)) || __builtin_memcmp(cmdline, name, name_len) != 0)
			continue;
		if (len == name_len) {
			found = cmdline + len;
			found_len = 0;
		} else if (cmdline[name_len] == '=') {
			found = cmdline + name_len + 1;
			found_len = len - name_len - 1;
		}
	}
	if (!found)
		return -1;
	if (size) {
		cut = found_len < size - 1 ? found_len : size - 1;
		keel_memcpy(value, found, cut);
		value[cut] = '\0';
	}
	return (int)found_len;
}
