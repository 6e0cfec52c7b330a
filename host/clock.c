// SPDX-License-Identifier: MIT
#include "clock.h"

#include <cpuid.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define CLOCKSOURCE "/sys/devices/system/clocksource/clocksource0/current_clocksource"

#define STEADY_ERROR 500	      /* ns: a refresh that finds less found nothing */
#define MIN_BASELINE UINT64_C(100000) /* ns: what a first frequency can be measured over, to 0.1 % */

/*
 * The error a frequency was measured with grows with the time it is used for, and
 * shrinks with the time it was measured over: each interval is some ten times the last.
 */
static const uint64_t first_intervals[] = { 20 * NS_PER_MS, 200 * NS_PER_MS };

static struct clock_sample early;
static int source_fd = -1; /* stays open: a partition made after the host was sealed can open nothing */

static uint64_t now_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* In order with what is before and behind it. */
static uint64_t read_tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence\n\trdtsc\n\tlfence" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

/* The tightest of a few brackets: an interrupt between two reads only ever widens one. */
static struct clock_sample sample(void)
{
	struct clock_sample best = { 0, 0 };
	uint64_t width = UINT64_MAX;

	for (int i = 0; i < 8; i++) {
		uint64_t before = read_tsc();
		uint64_t ns = now_ns(CLOCK_MONOTONIC);
		uint64_t after = read_tsc();

		if (after - before < width) {
			width = after - before;
			best = (struct clock_sample){ before + width / 2, ns };
		}
	}
	return best;
}

void clock_early(void)
{
	early = sample();
}

uint64_t clock_rate(struct clock_sample a, struct clock_sample b)
{
	if (b.tsc <= a.tsc || b.ns <= a.ns || b.ns - a.ns < MIN_BASELINE)
		return 0;
	return (uint64_t)(((unsigned __int128)(b.ns - a.ns) << 32) / (b.tsc - a.tsc));
}

uint64_t clock_slew(uint64_t rate, int64_t error, uint64_t interval)
{
	int64_t limit = (int64_t)(interval / 20);

	if (error > limit)
		error = limit;
	if (error < -limit)
		error = -limit;
	return rate + (uint64_t)(int64_t)((__int128)rate * error / (int64_t)interval);
}

/* The kernel's own conversion factor, which perf publishes to unprivileged processes; 0 when it does not. */
static uint64_t rate_from_perf(void)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE,
					.size = sizeof(attr),
					.config = PERF_COUNT_SW_DUMMY,
					.disabled = 1,
					.exclude_kernel = 1,
					.exclude_hv = 1 };
	long page_size = sysconf(_SC_PAGESIZE);
	struct perf_event_mmap_page *pc;
	uint64_t rate = 0;
	int fd;

	fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0)
		return 0;
	pc = mmap(NULL, (size_t)page_size, PROT_READ, MAP_SHARED, fd, 0);
	if (pc != MAP_FAILED) {
		if (pc->cap_user_time && pc->time_mult && pc->time_shift <= 32)
			rate = (uint64_t)pc->time_mult << (32 - pc->time_shift);
		munmap(pc, (size_t)page_size);
	}
	close(fd);
	return rate;
}

static bool invariant_tsc(void)
{
	unsigned int a, b, c, d;

	return __get_cpuid(0x80000007, &a, &b, &c, &d) && d & 1u << 8;
}

/*
 * Where the hypervisor vouches for the TSC, the vDSO converts it by itself; where it does not, or does no
 * longer, the vDSO asks the kernel, and takes as long as the kernel does.
 */
static bool vdso_converts(void)
{
	uint64_t vdso = UINT64_MAX, kernel = UINT64_MAX;
	struct timespec ts;

	for (int i = 0; i < 8; i++) {
		uint64_t before = read_tsc(), between, after;

		clock_gettime(CLOCK_MONOTONIC, &ts);
		between = read_tsc();
		syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
		after = read_tsc();
		vdso = between - before < vdso ? between - before : vdso;
		kernel = after - between < kernel ? after - between : kernel;
	}
	return vdso < kernel / 2;
}

/* Time is kept by the TSC alone, or by what the host's own hypervisor says of the TSC. */
static bool source_is_tsc(int fd)
{
	char name[16] = "";

	if (pread(fd, name, sizeof(name) - 1, 0) < 0)
		return false;
	return !strcmp(name, "tsc\n") || (!strcmp(name, "kvm-clock\n") && vdso_converts());
}

/* Seqlock writer. The fences pair with a reader's: odd before any field, every field before even. */
static void page_begin(struct keel_clock *page)
{
	__atomic_store_n(&page->seq, page->seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void page_end(struct keel_clock *page)
{
	__atomic_store_n(&page->seq, page->seq + 1, __ATOMIC_RELEASE);
}

static uint64_t page_ns(const struct keel_clock *page, uint64_t tsc)
{
	if (tsc <= page->base_tsc)
		return page->base_ns;
	return page->base_ns + (uint64_t)(((unsigned __int128)(tsc - page->base_tsc) * page->mult) >> 32);
}

void clock_init(struct clock *c, struct keel_clock *page)
{
	struct clock_sample now;

	memset(c, 0, sizeof(*c));
	c->page = page;
	page->wall_ns = now_ns(CLOCK_REALTIME) - now_ns(CLOCK_MONOTONIC);
	if (source_fd < 0)
		source_fd = open(CLOCKSOURCE, O_RDONLY | O_CLOEXEC);
	c->source_fd = source_fd;
	if (c->source_fd < 0 || !source_is_tsc(c->source_fd) || !invariant_tsc()) {
		host_verbose("clock: the host does not keep time by the TSC, so the clock page stays invalid");
		clock_fini(c);
		return;
	}
	now = sample();
	c->rate = rate_from_perf();
	if (!c->rate) {
		/* The start of the program is far enough back, or will be in a moment. */
		if (!early.tsc)
			early = now;
		while (!(c->rate = clock_rate(early, now)))
			now = sample();
	}
	c->anchor = early.tsc ? early : now;
	c->tsc_hz = (uint64_t)(((unsigned __int128)NS_PER_S << 32) / c->rate);
	page_begin(page);
	page->base_tsc = now.tsc;
	page->base_ns = now.ns;
	page->mult = c->rate;
	page->flags = KEEL_CLOCK_VALID;
	page_end(page);
}

uint64_t clock_refresh(struct clock *c)
{
	struct keel_clock *page = c->page;
	struct clock_sample now;
	uint64_t rate, interval, base_ns, tsc;
	uint64_t wall;
	int64_t error;

	if (c->source_fd < 0)
		return 0;
	if (!source_is_tsc(c->source_fd)) {
		host_say("clock: the host stopped keeping time by the TSC; the clock page is invalid from now on");
		page_begin(page);
		page->flags = 0;
		page->disruption++;
		page_end(page);
		clock_fini(c);
		return 0;
	}
	now = sample();
	wall = now_ns(CLOCK_REALTIME) - now_ns(CLOCK_MONOTONIC);
	error = (int64_t)(now.ns - page_ns(page, now.tsc));
	rate = clock_rate(c->anchor, now);
	if (rate)
		c->rate = rate;
	c->anchor = now;
	/* Nothing to correct means the host's own frequency is not being steered: look less often. */
	c->steady = error < STEADY_ERROR && error > -STEADY_ERROR ? c->steady + 1 : 0;
	if (c->refreshes < sizeof(first_intervals) / sizeof(first_intervals[0]))
		interval = first_intervals[c->refreshes++];
	else
		interval = (c->steady >= 4 ? 4 : 2) * NS_PER_S;
	/*
	 * The TSC is read after the sequence went odd: whoever still reads by the
	 * old slope has read an earlier TSC, so no reader sees time turn back.
	 */
	page_begin(page);
	tsc = read_tsc();
	base_ns = page_ns(page, tsc);
	page->base_tsc = tsc;
	page->base_ns = base_ns;
	page->mult = clock_slew(c->rate, error, interval);
	page->wall_ns = wall;
	page_end(page);
	return interval;
}

void clock_invalidate(struct clock *c)
{
	page_begin(c->page);
	c->page->flags = 0;
	page_end(c->page);
	clock_fini(c);
}

void clock_fini(struct clock *c)
{
	c->source_fd = -1;
}
