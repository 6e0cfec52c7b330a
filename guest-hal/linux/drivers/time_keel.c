// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest time as a clocksource, one hypercall for each reading, and the vCPU's timer as a
 * clockevent device, two for each tick: they go on where a TSC does not, and are the
 * same for whatever else asks the host. Rated below what a processor has by itself.
 */
#include <linux/clockchips.h>
#include <linux/clocksource.h>
#include <linux/cpumask.h>
#include <linux/interrupt.h>
#include <linux/limits.h>
#include <linux/module.h>

#include "keel_linux.h"

#define SOURCE_RATING 100
/* The PIT has 110, the LAPIC 100, an HPET 50. */
#define TIMER_RATING 40
#define TIMER_PRIORITY 0

static u64 read_time(struct clocksource *unused)
{
	return keel_time_read().value;
}

static struct clocksource source = {
	.name = "keel",
	.rating = SOURCE_RATING,
	.read = read_time,
	.mask = CLOCKSOURCE_MASK(64),
	.flags = CLOCK_SOURCE_IS_CONTINUOUS,
	.owner = THIS_MODULE,
};

static int set_next(unsigned long delta, struct clock_event_device *unused)
{
	return keel_errno(keel_time_set_timer(keel_time_read().value + delta));
}

static int shutdown(struct clock_event_device *unused)
{
	return keel_errno(keel_time_set_timer(KEEL_TIME_NEVER));
}

/*
 * It goes on in any sleep. But without the flag that says it does not, it would be taken
 * at once, to wake up those whose own timer does not, and the module could not go.
 */
static struct clock_event_device timer = {
	.name = "keel",
	.features = CLOCK_EVT_FEAT_ONESHOT | CLOCK_EVT_FEAT_C3STOP,
	.rating = TIMER_RATING,
	.set_next_event = set_next,
	.set_state_shutdown = shutdown,
	.owner = THIS_MODULE,
};

/* A device that was never chosen has no handler, and a port may be sent to by anyone. */
static irqreturn_t tick(int irq, void *unused)
{
	if (timer.event_handler)
		timer.event_handler(&timer);
	return IRQ_HANDLED;
}

static int start_timer(void)
{
	int irq = keel_irq_bind(KEEL_SOURCE_TIMER, TIMER_PRIORITY), err;

	if (irq < 0)
		return irq;
	err = request_irq(irq, tick, IRQF_TIMER | IRQF_NOBALANCING, "keel-timer", &timer);
	if (err) {
		keel_irq_free(irq);
		return err;
	}
	timer.irq = irq;
	timer.cpumask = cpumask_of(0);
	clockevents_config_and_register(&timer, NSEC_PER_SEC, 1, LONG_MAX);
	return 0;
}

static void stop_timer(void)
{
	WARN_ON(clockevents_unbind_device(&timer, cpumask_first(timer.cpumask)));
	free_irq(timer.irq, &timer);
	keel_irq_free(timer.irq);
}

int keel_time_init(void)
{
	int err;

	if (!keel_accepted(KEEL_EXT_TIME))
		return -ENODEV;
	err = start_timer();
	if (err)
		return err;
	err = clocksource_register_hz(&source, NSEC_PER_SEC);
	if (err)
		stop_timer();
	return err;
}

void keel_time_exit(void)
{
	WARN_ON(clocksource_unregister(&source));
	stop_timer();
}
