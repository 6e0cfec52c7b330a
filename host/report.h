/* SPDX-License-Identifier: MIT */
/* What is left behind when a guest dies: the report on stderr and an ELF core. */
#ifndef KEEL_HOST_REPORT_H
#define KEEL_HOST_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "log.h"

struct partition;
struct crash_info;
struct symbols;
struct mapping;

/* Everything below: main thread, after ops->stop(). What the backend hands out is the guest's word, so checked. */

/* Next run of mapped RAM or ABI pages at or above va, checked and cut to the guest's bounds; false at the end. */
bool report_mapping(struct partition *p, uint64_t va, struct mapping *m);

/* Read guest-virtual memory of AS 0; false when a byte of it is not mapped to RAM or ABI pages. */
bool report_read(struct partition *p, uint64_t va, void *dst, size_t len);

/* Return addresses from the innermost frame outwards; returns how many of max. */
unsigned int report_backtrace(struct partition *p, const struct crash_info *c, const struct symbols *s, uint64_t *pc,
			      unsigned int max);

/* Reason, registers, last hypercalls, backtrace, next step. core: where the ELF core is, NULL = there is none. */
void report_crash(FILE *f, struct partition *p, const struct crash_info *c, const char *core);

/* The place alone, for a guest that did not end in time. */
void report_place(FILE *f, struct partition *p, const struct crash_info *c);

/* Open the file of a core; explicit: the user named it. A descriptor, or -1 with errno set. */
int elfcore_open(const char *path, bool explicit);

/* Write an ELF core to what elfcore_open() returned, and close it. 0, or -1 with the reason. */
int elfcore_write(int fd, const char *path, struct partition *p, const struct crash_info *c, struct error *e);

/* The path of the core for these options; NULL = none. Points into buf or the options. */
struct keel_options;
const char *elfcore_path(const struct keel_options *opt, char *buf, size_t n);

#endif
