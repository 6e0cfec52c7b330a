// SPDX-License-Identifier: MIT
/*
 * clock - time and timer interrupts: the clock moves forward, timers fire once
 * and never early, and an idle kernel without a tick sleeps until there is
 * something to do. Lines that begin with "# " are measurements.
 */
#include <hal/hal.h>

#define MS 1000000ull
#define SAMPLES 32

static volatile unsigned int fired;
static volatile uint64_t fired_at;
static int failures;

static void on_timer(struct hal_frame *frame, void *arg)
{
	(void)frame;
	(void)arg;
	fired_at = hal_clock_ns();
	fired++;
}

static void check(bool ok, const char *what)
{
	hal_printf("%s: %s\n", ok ? "ok" : "FAILED", what);
	failures += !ok;
}

/* Sleep until the timer has fired `count` times. Returns how often something woke us. */
static unsigned int sleep_until(unsigned int count)
{
	unsigned int wakeups = 0;

	for (;;) {
		hal_irq_disable();
		if (fired >= count)
			break;
		hal_wait(HAL_NEVER);
		wakeups++;
	}
	hal_irq_enable();
	return wakeups;
}

static void monotonic(void)
{
	uint64_t first = hal_clock_ns(), last = first, now;
	bool ok = true;

	for (int i = 0; i < 100000; i++) {
		now = hal_clock_ns();
		ok &= now >= last;
		last = now;
	}
	check(ok && last > first, "100000 readings of the clock never go backwards");
	hal_printf("# one reading takes %lu ns\n", (last - first) / 100000);
	now = hal_wall_ns() / 1000000000;
	/* Between 2020 and 2100. */
	check(now > 1577836800 && now < 4102444800, "the wall clock tells a plausible date");
}

static void one_shot(void)
{
	uint64_t late[SAMPLES], deadline, sum = 0;
	bool early = false;

	for (int i = 0; i < SAMPLES; i++) {
		unsigned int before = fired;

		deadline = hal_clock_ns() + 200000 + 10000 * (uint64_t)i;
		hal_timer_set(deadline);
		sleep_until(before + 1);
		early |= fired_at < deadline;
		late[i] = fired_at - deadline;
		sum += late[i];
	}
	/* Insertion sort, for the median. */
	for (int i = 1; i < SAMPLES; i++) {
		for (int k = i; k > 0 && late[k] < late[k - 1]; k--) {
			uint64_t t = late[k];

			late[k] = late[k - 1];
			late[k - 1] = t;
		}
	}
	check(!early && fired == SAMPLES, "32 one-shot timers fire once each, none early");
	hal_printf("# lateness: min %lu median %lu mean %lu max %lu ns\n", late[0], late[SAMPLES / 2], sum / SAMPLES,
		   late[SAMPLES - 1]);
}

/* Times here are long enough for a machine that has other things to do in between. */
static void edges(void)
{
	unsigned int before = fired;

	hal_timer_set(1);
	sleep_until(before + 1);
	check(fired == before + 1, "a deadline in the past fires at once");

	before = fired;
	hal_timer_set(hal_clock_ns() + 100 * MS);
	hal_timer_set(HAL_NEVER);
	hal_irq_disable();
	check(hal_wait(hal_clock_ns() + 150 * MS) == -HAL_ETIMEDOUT && fired == before, "a disarmed timer stays quiet");

	hal_timer_set(hal_clock_ns() + 100 * MS);
	hal_timer_set(hal_clock_ns() + 300 * MS);
	hal_irq_disable();
	check(hal_wait(hal_clock_ns() + 150 * MS) == -HAL_ETIMEDOUT && fired == before,
	      "a timer set again forgets its old deadline");
	sleep_until(before + 1);
	check(fired == before + 1, "and fires at the new one");

	before = fired;
	hal_irq_disable();
	hal_timer_set(hal_clock_ns() + MS);
	for (uint64_t end = hal_clock_ns() + 150 * MS; hal_clock_ns() < end;)
		;
	check(fired == before, "with interrupts off a timer is held");
	hal_irq_enable();
	check(fired == before + 1, "and taken when they are enabled");
}

static void masked(void)
{
	unsigned int before = fired;
	uint64_t deadline = hal_clock_ns() + MS;

	hal_irq_mask(HAL_IRQ_TIMER);
	hal_timer_set(deadline);
	while (hal_clock_ns() < deadline + 2 * MS)
		;
	check(fired == before, "a masked line is held");
	hal_irq_unmask(HAL_IRQ_TIMER);
	sleep_until(before + 1);
	check(fired == before + 1, "and delivered once when it is unmasked");
}

static void idle(void)
{
	unsigned int before = fired, wakeups;
	uint64_t start = hal_clock_ns(), slept;

	hal_timer_set(start + 100 * MS);
	wakeups = sleep_until(before + 1);
	slept = hal_clock_ns() - start;
	check(wakeups == 1 && slept >= 100 * MS, "100 ms of tickless idle end with one wake-up");
	hal_printf("# slept %lu us\n", slept / 1000);
}

int hal_main(void)
{
	hal_irq_handler(HAL_IRQ_TIMER, on_timer, NULL);
	hal_irq_enable();
	monotonic();
	one_shot();
	edges();
	masked();
	idle();
	hal_printf("clock: %d failures\n", failures);
	return failures != 0;
}
