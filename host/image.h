/* SPDX-License-Identifier: MIT */
/*
 * Guest images: static ELF executables with Keel notes. The file is untrusted;
 * headers and notes are read once into private memory, checked there, and used
 * from there. Segment contents are read straight into guest RAM, unexamined.
 */
#ifndef KEEL_HOST_IMAGE_H
#define KEEL_HOST_IMAGE_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <keel/keel.h>

#include "log.h"

#define IMAGE_SEGMENTS_MAX 64 /* PT_LOADs with memory */
#define IMAGE_PHDRS_MAX 128

struct image_segment {
	unsigned int phdr; /* its program header, for messages */
	uint64_t offset;   /* in the file */
	uint64_t filesz;
	uint64_t va, gpa;
	uint64_t len;  /* bytes, a multiple of the page size */
	uint32_t prot; /* KEEL_PROT_* */
};

struct image {
	const char *name; /* as the user gave it */
	int fd;
	int module_fd; /* its --initrd, open for as long as the image: a sealed host opens no file; 0 = none yet */
	uint64_t size; /* of the file when it was opened */
	uint64_t entry;
	unsigned int segments;
	struct image_segment segment[IMAGE_SEGMENTS_MAX];

	uint32_t abi_major, abi_minor;
	uint64_t required[KEEL_FEATURE_WORDS];
	uint64_t optional[KEEL_FEATURE_WORDS];
	bool linear;
	uint64_t linear_va;
	uint64_t min_mem;
};

struct partition;

/* Open and check everything that does not depend on the partition. 0, or -1 with the reason. */
int image_open(struct image *img, const char *path, struct error *e);
/* The same for a descriptor the image takes over. */
int image_open_fd(struct image *img, int fd, const char *name, struct error *e);
void image_close(struct image *img);

/**
 * image_load - put the image into a partition's RAM
 *
 * Needs p->ram and p->offered. Checks what depends on them, fills RAM, sets
 * p->entry and makes p->boot_map. May be called again for a rebuilt partition.
 */
int image_load(struct image *img, struct partition *p, struct error *e);

struct image_note {
	unsigned int n;	  /* its program header */
	const char *name; /* namesz bytes, its NUL included; the file's, so perhaps without one */
	const uint8_t *desc;
	uint32_t namesz, type, size;
};

/* Call each() for the notes of program header n, a PT_NOTE, until it returns -1. 0, or -1 with the reason. */
int image_notes(struct image *img, unsigned int n, const Elf64_Phdr *ph,
		int (*each)(void *to, const struct image_note *note), void *to, struct error *e);

/* Read exactly len bytes at an offset; false at the file's end or on an error. */
bool image_read(const struct image *img, void *dst, size_t len, uint64_t offset);

#endif
