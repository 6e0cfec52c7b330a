/* SPDX-License-Identifier: MIT */
/* Names of code addresses, from an image's symbol table. Read only when something went wrong. */
#ifndef KEEL_HOST_SYMBOLS_H
#define KEEL_HOST_SYMBOLS_H

#include <stddef.h>
#include <stdint.h>

struct image;

struct symbol {
	uint64_t addr, size;
	uint32_t name; /* offset in names */
};

struct symbols {
	struct symbol *sym; /* sorted by address */
	size_t count;
	char *names; /* ends in a NUL whatever the file says */
	size_t names_size;
};

/* Empty when the image has no usable table; the file is as untrusted as ever. */
void symbols_load(struct symbols *s, const struct image *img);
void symbols_free(struct symbols *s);

/* The symbol an address lies in, and how far; NULL when there is none. */
const char *symbols_find(const struct symbols *s, uint64_t addr, uint64_t *offset);

#endif
