/* SPDX-License-Identifier: MIT */
/* The start info: what a guest is told about its partition (keel/start.h). */
#ifndef KEEL_HOST_STARTINFO_H
#define KEEL_HOST_STARTINFO_H

#include <stdint.h>

#include "log.h"

#define STARTINFO_SIZE (4 * KEEL_PAGE_SIZE) /* bytes of p->abi from STARTINFO_OFFSET on */
#define STARTINFO_OFFSET KEEL_PAGE_SIZE	    /* behind the clock page */

struct partition;
struct keel_cpu_info;

/* A module in guest RAM; len 0 = none. */
struct module {
	uint64_t gpa, len;
};

/* Put a file as high in RAM as it goes, clear of the image. 0, or -1 with the reason. */
int module_load(struct module *m, struct partition *p, const char *path, struct error *e);

/* Write the start info into p->abi. Needs the image in place. */
int startinfo_build(struct partition *p, const struct module *m, uint64_t tsc_hz, struct error *e);

/* What guest code may use of this processor. */
void startinfo_cpu(struct keel_cpu_info *cpu);

/* XCR0 components that guests are offered: no PKRU, no CET, no AMX. */
#define STARTINFO_XFEATURES KEEL_U64(0xe7)

/**
 * startinfo_limit_cpu - take back what the backend's vCPU does not have
 * @cpuid: what it has of each word of keel_cpu_info.cpuid
 * @xfeatures: its XCR0
 *
 * Before the guest starts.
 */
void startinfo_limit_cpu(struct partition *p, const uint32_t cpuid[8], uint64_t xfeatures);

/* The XSAVE components guests are offered, as the start info has them now; *size = bytes of an area with them. */
uint64_t startinfo_xfeatures(const struct partition *p, uint32_t *size);

#endif
