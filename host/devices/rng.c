// SPDX-License-Identifier: MIT
/* Entropy (virtio 5.4): what the driver offers is filled from the kernel's random numbers. */
#include <errno.h>
#include <sys/random.h>

#include "../partition.h"
#include "device.h"

#define PART 256	  /* bytes the kernel gives without being interrupted */
#define REQUEST_MAX 65536 /* bytes of one buffer that are filled: more is the driver's to ask for again */

static int rng_open(struct device *d, const char *spec, struct error *e)
{
	(void)d;
	return *spec ? error_set(e, "--rng takes no value") : 0;
}

static size_t fill(const struct vq_chain *c)
{
	uint8_t random[PART];
	size_t done = 0, n;
	ssize_t got;

	do {
		got = getrandom(random, sizeof(random), 0);
		if (got <= 0)
			break;
		n = vq_write(c->piece + c->out, c->in, done, random, (size_t)got);
		done += n;
	} while (n == sizeof(random) && done < REQUEST_MAX);
	return done;
}

static void rng_kick(struct device *d)
{
	struct virtqueue *q = &d->queue[0];
	struct vq_chain c;

	do {
		vq_notify(q, false);
		while (vq_pop(q, &c))
			vq_push(q, &c, (uint32_t)fill(&c));
	} while (vq_notify(q, true));
	vq_flush(q);
}

static void rng_calls(struct device *d, struct seal_calls *c)
{
	static const struct seal_rule rule = { SCMP_SYS(getrandom), 0, { { 0 } }, 0 };

	(void)d;
	c->rules = &rule;
	c->rule_count = 1;
}

const struct device_kind device_rng = {
	.name = "rng",
	.type = 4,
	.queues = 1,
	.queue_max = 256,
	.open = rng_open,
	.kick = rng_kick,
	.calls = rng_calls,
};
