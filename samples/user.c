// SPDX-License-Identifier: MIT
/*
 * user - processes: programs in address spaces of their own that the kernel runs
 * with hal_user_enter(). Their system calls, the pages they touch and those they
 * must not, fork with copy on write, signals. The programs are in progs/, how the
 * kernel deals with them in process.c.
 */
#include "process.h"

#define SLICE 2000000ull /* ns */

static uint64_t pool_next, pool_end, returned;
static unsigned int pages_out; /* pages processes have */
static int failures;

uint64_t page_get(void)
{
	uint64_t pa = returned;

	if (pa)
		returned = *(uint64_t *)hal_pa_to_va(pa);
	else if (pool_next < pool_end)
		pa = pool_next;
	else
		return 0;
	pool_next += pa == pool_next ? HAL_PAGE_SIZE : 0;
	pages_out++;
	return pa;
}

void page_put(uint64_t pa)
{
	*(uint64_t *)hal_pa_to_va(pa) = returned;
	returned = pa;
	pages_out--;
}

static void check(bool ok, const char *what)
{
	hal_printf("%s: %s\n", ok ? "ok" : "FAILED", what);
	failures += !ok;
}

static void on_timer(struct hal_frame *frame, void *arg)
{
	(void)frame;
	(void)arg;
	process_slice_over = true;
}

/* Until nobody can run any more; with slices those that do not yield take turns too. */
static void run(bool slices)
{
	struct process *p;

	while ((p = process_next())) {
		if (slices)
			hal_timer_set(hal_clock_ns() + SLICE);
		process_step(p);
	}
	hal_timer_set(HAL_NEVER);
}

/* One program to its end; its exit status, and in *last what it was. */
static int run_one(const char *name, uint64_t argument, struct process *last)
{
	struct process *p = process_start(name, argument);

	if (!p)
		return -1;
	run(true);
	*last = *p;
	return p->state == PROCESS_ENDED ? process_reap(p) : -1;
}

static void own_spaces(void)
{
	struct process *a = process_start("own", 100), *b = process_start("own", 200);

	check(a && b && a->space != b->space, "two processes of one program, each with its own address space");
	if (!a || !b)
		return;
	run(false);
	check(process_reap(a) == 0 && process_reap(b) == 0 && a->calls > 9, "and both end as they should");
}

static void demand_paging(void)
{
	struct process p;

	check(run_one("paging", 0, &p) == 0, "a program with 256 pages of data, of which it touches 64");
	check(p.filled >= 64 && p.filled < 80, "has got no other pages");
	hal_printf("# %u pages, %u system calls, %u events\n", p.filled, p.calls, p.events);
}

static void copy_on_write(void)
{
	struct process p;

	process_pages_copied = 0;
	check(run_one("forks", 0, &p) == 0, "a program that forks twice");
	check(process_pages_copied >= 2 && process_pages_copied < 24, "only pages that were written have been copied");
	hal_printf("# %u pages copied, %u filled by the parent\n", process_pages_copied, p.filled);
}

static void no_trespassing(void)
{
	struct process p;

	for (uint64_t what = 0; what < 3; what++)
		check(run_one("pry", what, &p) == 128, "a process that does what it may not is ended");
	check(run_one("fault", 0, &p) == 128, "and so is one that goes astray");
	check(run_one("hello", 0, &p) == 0, "the next one does not notice");
}

int hal_main(void)
{
	struct process p;
	struct hal_mem m;

	for (unsigned int i = 0; hal_memmap(i, &m); i++) {
		if (m.type == HAL_MEM_RAM && m.len > pool_end - pool_next) {
			pool_next = m.pa;
			pool_end = m.pa + m.len;
		}
	}
	hal_irq_handler(HAL_IRQ_TIMER, on_timer, NULL);
	hal_irq_enable();
	check(process_archive(process_builtin, (size_t)(process_builtin_end - process_builtin)) > 0,
	      "an archive of programs in the image");
	own_spaces();
	demand_paging();
	copy_on_write();
	check(run_one("signals", 0, &p) == 0, "a program that is sent signals");
	no_trespassing();
	check(!pages_out && !process_start("none", 0), "all their memory has come back");
	hal_printf("user: %d failures\n", failures);
	return failures != 0;
}
