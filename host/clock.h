/* SPDX-License-Identifier: MIT */
/*
 * The clock page: guest time is the host's CLOCK_MONOTONIC, converted from the
 * TSC by the page. One writer, the main thread.
 */
#ifndef KEEL_HOST_CLOCK_H
#define KEEL_HOST_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include <keel/time.h>

/* One TSC value and the CLOCK_MONOTONIC nanoseconds that belong to it. */
struct clock_sample {
	uint64_t tsc, ns;
};

struct clock {
	struct keel_clock *page;
	int source_fd;		    /* sysfs: the clocksource in use; -1 = page never valid */
	struct clock_sample anchor; /* the sample the next frequency is measured from */
	uint64_t rate;		    /* CLOCK_MONOTONIC ns per tick, 32.32: without the slew that is in page->mult */
	uint64_t tsc_hz;	    /* 0 = unknown */
	unsigned int steady;	    /* refreshes in a row that found little to correct */
	unsigned int refreshes;	    /* of the first few, which come quicker */
};

/* Note the time a first frequency can be measured from. As early in the program as possible. */
void clock_early(void);

/* Fill the page and make it valid if this machine's TSC can carry it. */
void clock_init(struct clock *c, struct keel_clock *page);

/**
 * clock_refresh - steer the page towards CLOCK_MONOTONIC
 *
 * Continuous and monotonic for every reader: only the slope changes. Returns
 * nanoseconds until it should be called again, 0 = never. First called right before the
 * guest starts, when there is more to measure over than clock_init() had.
 */
uint64_t clock_refresh(struct clock *c);
/* The TSC guests see is not the host's: the page stays invalid from now on. */
void clock_invalidate(struct clock *c);
void clock_fini(struct clock *c);

/* The slope for the next interval: follow `rate` and take out `error` ns over it, by at most 5 %. */
uint64_t clock_slew(uint64_t rate, int64_t error, uint64_t interval);

/* ns per tick between two samples, 32.32; 0 when they are too close or out of order. */
uint64_t clock_rate(struct clock_sample a, struct clock_sample b);

#endif
