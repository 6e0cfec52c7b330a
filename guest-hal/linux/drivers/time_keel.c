// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest time as a clocksource, one hypercall for each reading: it goes on where a
 * TSC does not, and is the same for whatever else asks the host. Rated below what a
 * processor can read by itself.
 */
#include <linux/clocksource.h>
#include <linux/module.h>

#include "keel_linux.h"

#define RATING 100

static u64 read_time(struct clocksource *unused)
{
	return keel_time_read().value;
}

static struct clocksource source = {
	.name = "keel",
	.rating = RATING,
	.read = read_time,
	.mask = CLOCKSOURCE_MASK(64),
	.flags = CLOCK_SOURCE_IS_CONTINUOUS,
	.owner = THIS_MODULE,
};

int keel_time_init(void)
{
	if (!keel_accepted(KEEL_EXT_TIME))
		return -ENODEV;
	return clocksource_register_hz(&source, NSEC_PER_SEC);
}

void keel_time_exit(void)
{
	WARN_ON(clocksource_unregister(&source));
}
