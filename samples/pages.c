// SPDX-License-Identifier: MIT
/*
 * pages - page-table work: ranges, single entries, lazy sections that turn
 * entries into ranges, errors and where they are told, and what a page costs.
 * Lines that begin with "# " are measurements.
 */
#include <hal/hal.h>

#define VA 0x200000000000ull /* unused by image and linear map */
#define PAGES 512
#define LEN (PAGES * HAL_PAGE_SIZE)
#define RW (HAL_PROT_R | HAL_PROT_W)

static uint64_t base; /* PAGES free physical pages */
static struct hal_mark mark;
static struct hal_frame seen;
static int failures;

static void check(bool ok, const char *what)
{
	hal_printf("%s: %s\n", ok ? "ok" : "FAILED", what);
	failures += !ok;
}

static bool on_fault(struct hal_frame *frame)
{
	seen = *frame;
	hal_frame_resume(frame, &mark, 1);
	return true;
}

/* Does an access fault? */
static bool faults(uint64_t va, bool write)
{
	volatile uint64_t *p = (volatile uint64_t *)va;

	if (hal_mark(&mark))
		return true;
	if (write)
		*p = *p;
	else
		(void)*p;
	return false;
}

static uint64_t page_at(unsigned int i)
{
	return VA + i * HAL_PAGE_SIZE;
}

static uint64_t *linear(unsigned int i)
{
	return hal_pa_to_va(base + i * HAL_PAGE_SIZE);
}

/* Each page's first word says which one it is. */
static void label(void)
{
	for (unsigned int i = 0; i < PAGES; i++)
		linear(i)[0] = 1000 + i;
}

/* Pages of [0, PAGES) that do not show what physical page `of(i)` holds. */
static unsigned int wrong(unsigned int (*of)(unsigned int))
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < PAGES; i++)
		n += *(volatile uint64_t *)page_at(i) != 1000 + of(i);
	return n;
}

static unsigned int same(unsigned int i)
{
	return i;
}

static unsigned int reversed(unsigned int i)
{
	return PAGES - 1 - i;
}

static unsigned int shuffled(unsigned int i)
{
	return i * 179 % PAGES; /* odd, so every page once */
}

static void ranges(void)
{
	uint64_t pa;
	unsigned int prot;
	unsigned int mapped = 0;

	check(!hal_map(VA, base, LEN, RW, 0) && wrong(same) == 0, "512 pages mapped as one range");
	*(volatile uint64_t *)(page_at(7) + 8) = 77;
	check(linear(7)[1] == 77, "a write through the mapping is seen in the linear map");
	hal_map(page_at(3), base + 9 * HAL_PAGE_SIZE, HAL_PAGE_SIZE, RW, 0);
	check(*(volatile uint64_t *)page_at(3) == 1009, "a mapping is replaced by another");
	*(volatile uint64_t *)(page_at(3) + 16) = 99;
	check(*(volatile uint64_t *)(page_at(9) + 16) == 99, "two addresses show the same page");
	check(!hal_protect(page_at(10), 20 * HAL_PAGE_SIZE, HAL_PROT_R) && !faults(page_at(29), false) &&
		      faults(page_at(29), true) && !faults(page_at(30), true),
	      "20 pages made read-only, their neighbours not");
	check(!hal_query(page_at(3), &pa, &prot) && pa == base + 9 * HAL_PAGE_SIZE && prot == RW,
	      "a query tells page and protection");
	check(!hal_query(page_at(10), &pa, &prot) && prot == HAL_PROT_R, "and what has become of it");
	check(!hal_unmap(page_at(100), 300 * HAL_PAGE_SIZE) && faults(page_at(100), false) &&
		      faults(page_at(399), false),
	      "300 pages unmapped in the middle");
	for (unsigned int i = 0; i < PAGES; i++)
		mapped += hal_query(page_at(i), &pa, &prot) == 0;
	check(mapped == 212, "212 are left");
	check(!hal_unmap(VA, LEN) && hal_query(VA, &pa, &prot) == -HAL_ENOENT, "the rest unmapped, holes and all");
}

static void lazy(void)
{
	uint64_t pa;
	unsigned int prot;
	bool ok = true;

	hal_lazy_enter();
	for (unsigned int i = 0; i < PAGES; i++)
		hal_set_pte(page_at(i), (base + i * HAL_PAGE_SIZE) | RW);
	check(!hal_lazy_leave() && wrong(same) == 0, "512 entries set in one lazy section");
	hal_lazy_enter();
	for (unsigned int i = 0; i < PAGES; i++)
		hal_set_pte(page_at(i), (base + reversed(i) * HAL_PAGE_SIZE) | RW);
	check(!hal_lazy_leave() && wrong(reversed) == 0, "and set again in reverse");
	hal_lazy_enter();
	for (unsigned int i = 0; i < PAGES; i++)
		hal_set_pte(page_at(shuffled(i)), (base + shuffled(shuffled(i)) * HAL_PAGE_SIZE) | RW);
	check(!hal_lazy_leave() && wrong(shuffled) == 0, "and in no order at all");

	hal_lazy_enter();
	hal_lazy_enter();
	hal_set_pte(page_at(1), 0);
	hal_lazy_leave();
	hal_set_pte(page_at(2), 0);
	check(hal_query(page_at(2), &pa, &prot) == -HAL_ENOENT && hal_query(page_at(1), &pa, &prot) == -HAL_ENOENT,
	      "sections nest, and a query sees what is put off");
	check(!hal_lazy_leave() && faults(page_at(1), false) && faults(page_at(2), false),
	      "and so does an access after the last one");

	hal_lazy_enter();
	hal_set_pte(page_at(4), (base + 4 * HAL_PAGE_SIZE) | HAL_PROT_R);
	ok = !hal_lazy_flush() && !faults(page_at(4), false) && faults(page_at(4), true);
	check(!hal_lazy_leave() && ok, "a flush inside a section completes it so far");

	hal_lazy_enter();
	for (unsigned int i = 0; i < PAGES; i++)
		hal_set_pte(page_at(i), 0);
	ok = !hal_lazy_leave();
	for (unsigned int i = 0; i < PAGES; i++)
		ok &= hal_query(page_at(i), &pa, &prot) == -HAL_ENOENT;
	check(ok, "512 entries cleared in one lazy section");
}

static void errors(void)
{
	uint64_t pa;
	unsigned int prot;

	check(hal_map(VA + 1, base, HAL_PAGE_SIZE, RW, 0) == -HAL_EINVAL &&
		      hal_map(VA, base + 1, HAL_PAGE_SIZE, RW, 0) == -HAL_EINVAL &&
		      hal_map(VA, base, 100, RW, 0) == -HAL_EINVAL && hal_map(VA, base, 0, RW, 0) == -HAL_EINVAL &&
		      hal_map(VA, base, HAL_PAGE_SIZE, 0, 0) == -HAL_EINVAL &&
		      hal_map(VA, base, HAL_PAGE_SIZE, RW, 64) == -HAL_EINVAL,
	      "malformed ranges are refused");
	check(hal_map(0, base, HAL_PAGE_SIZE, RW, 0) == -HAL_ERANGE &&
		      hal_map(HAL_VA_END, base, HAL_PAGE_SIZE, RW, 0) == -HAL_ERANGE &&
		      hal_unmap(HAL_VA_END - HAL_PAGE_SIZE, 2 * HAL_PAGE_SIZE) == -HAL_ERANGE,
	      "addresses that are not the kernel's are refused");
	check(hal_map(VA, 1ull << 40, HAL_PAGE_SIZE, RW, 0) == -HAL_EFAULT,
	      "memory that is not there cannot be mapped");
	check(hal_protect(VA, HAL_PAGE_SIZE, RW) == -HAL_ENOENT, "what is not mapped cannot be protected");

	hal_map(VA, base, 3 * HAL_PAGE_SIZE, RW, 0);
	hal_unmap(page_at(1), HAL_PAGE_SIZE);
	check(hal_protect(VA, 3 * HAL_PAGE_SIZE, HAL_PROT_R) == -HAL_ENOENT && !hal_query(page_at(0), &pa, &prot) &&
		      prot == HAL_PROT_R && !hal_query(page_at(2), &pa, &prot) && prot == RW,
	      "protection stops at a hole, what came before it is done");
	hal_lazy_enter();
	hal_set_pte(page_at(5), base | RW);
	hal_set_pte(page_at(6), (1ull << 40) | RW);
	check(hal_lazy_leave() == -HAL_EFAULT && !hal_query(page_at(5), &pa, &prot),
	      "an error in a lazy section is told at its end");
	hal_lazy_enter();
	check(hal_lazy_leave() == 0, "and only once");
	hal_unmap(VA, LEN);
}

static void discard(void)
{
	label();
	check(!hal_mem_discard(base, 16 * HAL_PAGE_SIZE) && linear(0)[0] == 0 && linear(15)[0] == 0 &&
		      linear(16)[0] == 1016,
	      "memory given back reads as zero, its neighbours stay");
	linear(0)[0] = 5;
	check(linear(0)[0] == 5, "and can be used again");
}

/* Best of a few rounds, per page. */
static uint64_t cost(void (*work)(void), void (*undo)(void))
{
	uint64_t best = UINT64_MAX;

	for (int round = 0; round < 16; round++) {
		uint64_t start = hal_clock_ns(), ns;

		work();
		ns = hal_clock_ns() - start;
		if (ns < best)
			best = ns;
		undo();
	}
	return best / PAGES;
}

static void map_range(void)
{
	hal_map(VA, base, LEN, RW, 0);
}

static void map_populated(void)
{
	hal_map(VA, base, LEN, RW, HAL_MAP_POPULATE);
}

static void map_singly(void)
{
	for (unsigned int i = 0; i < PAGES; i++)
		hal_set_pte(page_at(i), (base + i * HAL_PAGE_SIZE) | RW);
}

static void map_lazily(void)
{
	hal_lazy_enter();
	map_singly();
	hal_lazy_leave();
}

static void map_scattered(void)
{
	hal_lazy_enter();
	for (unsigned int i = 0; i < PAGES; i++)
		hal_set_pte(page_at(i), (base + shuffled(i) * HAL_PAGE_SIZE) | RW);
	hal_lazy_leave();
}

static void protect_range(void)
{
	hal_protect(VA, LEN, HAL_PROT_R);
}

static void unprotect(void)
{
	hal_protect(VA, LEN, RW);
}

static void unmap_range(void)
{
	hal_unmap(VA, LEN);
}

static void nothing(void)
{
}

/* Write to every page: what a mapping that is not populated costs later. */
static void touch(void)
{
	for (unsigned int i = 0; i < PAGES; i++)
		*(volatile uint64_t *)page_at(i) = i;
}

static void map_and_touch(void)
{
	map_range();
	touch();
}

static void populated_touch(void)
{
	map_populated();
	touch();
}

static void costs(void)
{
	hal_printf("# cost per page of 512, best of 16:\n");
	hal_printf("#   map, one range              %6lu ns\n", cost(map_range, unmap_range));
	hal_printf("#   map, one range, populate    %6lu ns\n", cost(map_populated, unmap_range));
	hal_printf("#   map, lazy entries           %6lu ns\n", cost(map_lazily, unmap_range));
	hal_printf("#   map, lazy, scattered        %6lu ns\n", cost(map_scattered, unmap_range));
	hal_printf("#   map, entry by entry         %6lu ns\n", cost(map_singly, unmap_range));
	hal_printf("#   map, touch all              %6lu ns\n", cost(map_and_touch, unmap_range));
	hal_printf("#   map, populate, touch all    %6lu ns\n", cost(populated_touch, unmap_range));
	populated_touch();
	hal_printf("#   protect, one range          %6lu ns\n", cost(protect_range, unprotect));
	hal_printf("#   touch again                 %6lu ns\n", cost(touch, nothing));
	hal_printf("#   unmap, one range            %6lu ns\n", cost(unmap_range, populated_touch));
	hal_unmap(VA, LEN);
}

int hal_main(void)
{
	struct hal_mem m;

	for (unsigned int i = 0; hal_memmap(i, &m); i++) {
		if (m.type == HAL_MEM_RAM && m.len >= LEN)
			base = m.pa + m.len - LEN;
	}
	hal_trap_handler(HAL_VEC_PF, on_fault);
	hal_irq_enable();
	label();
	ranges();
	lazy();
	errors();
	costs();
	discard();
	hal_printf("pages: %d failures\n", failures);
	return failures != 0;
}
