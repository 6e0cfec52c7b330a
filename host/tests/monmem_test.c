// SPDX-License-Identifier: MIT
/* What a stopped guest may have left in the monitor's memory where its page tables were. */
#include "tests.h"

#include "../backend/monmem.h"

#define PAGE KEEL_PAGE_SIZE
#define TABLE(n) ((n)*PAGE | PTE_P | PTE_W)
#define MAPPED_VA UINT64_C(0x400000)

static struct partition p;
static struct monmem mm;

static uint64_t *table(unsigned int n)
{
	return (uint64_t *)(mm.mem + mm.arena_off + n * PAGE);
}

static void set_root(int64_t offset)
{
	monmem_mon(&mm)->as0.root = (uint64_t *)(MON_VCPU_VA + mm.arena_off + (uint64_t)offset);
}

static uint64_t end(void)
{
	return mm.arena_pages * PAGE;
}

/* Tables 0 to 3 map one page of GPA 0 at MAPPED_VA. */
static int make(void **state)
{
	(void)state;
	p = (struct partition){ .ram_size = 4 << 20, .abi_gpa = 6 << 20, .abi_size = PAGE, .vcpus = 1 };
	if (monmem_create(&mm, &p, "test", 0))
		return -1;
	table(0)[0] = TABLE(1);
	table(1)[0] = TABLE(2);
	table(2)[MAPPED_VA >> 21] = TABLE(3);
	table(3)[0] = PTE_P;
	set_root(0);
	return 0;
}

static int unmake(void **state)
{
	(void)state;
	monmem_destroy(&mm);
	return 0;
}

static void test_sound(void **state)
{
	struct mapping m;

	(void)state;
	assert_true(monmem_next_mapping(&mm, 0, &m));
	assert_int_equal(m.va, MAPPED_VA);
	assert_int_equal(m.gpa, 0);
	assert_int_equal(m.len, PAGE);
	assert_false(monmem_next_mapping(&mm, MAPPED_VA + PAGE, &m));
}

static void root_odd(void)
{
	set_root(8);
}
static void root_below(void)
{
	set_root(-(int64_t)PAGE);
}
static void root_behind(void)
{
	set_root((int64_t)end());
}
static void root_across(void)
{
	set_root((int64_t)end() - PAGE / 2);
}
static void root_far(void)
{
	set_root(INT64_MAX - 4095);
}
static void base_odd(void)
{
	monmem_mon(&mm)->arena_base = 0x800;
}
static void base_far(void)
{
	monmem_mon(&mm)->arena_base = PAGE;
}
static void itself(void)
{
	table(1)[1] = TABLE(1);
}
static void cycle(void)
{
	table(2)[0] = TABLE(0);
}
static void twice(void)
{
	table(1)[1] = TABLE(2);
}
static void behind(void)
{
	table(0)[1] = TABLE(mm.arena_pages);
}
static void wild(void)
{
	table(2)[5] = ~UINT64_C(0) & ~PTE_PS;
}
static void huge(void)
{
	table(1)[1] = PTE_P | PTE_PS;
}
static void root_large(void)
{
	table(0)[1] = PTE_P | PTE_PS;
}

static void test_unsound(void **state)
{
	static const struct {
		const char *what;
		void (*harm)(void);
	} harms[] = {
		{ "a root between pages", root_odd },
		{ "a root below the arena", root_below },
		{ "a root behind the arena", root_behind },
		{ "a root across the arena's end", root_across },
		{ "a root far away", root_far },
		{ "tables between pages", base_odd },
		{ "tables displaced below the arena", base_far },
		{ "a table in itself", itself },
		{ "a cycle", cycle },
		{ "a table in two places", twice },
		{ "a table behind the arena", behind },
		{ "a table nowhere", wild },
		{ "a leaf of 1 GiB", huge },
		{ "a leaf of 512 GiB", root_large },
	};
	struct mapping m;

	for (size_t i = 0; i < sizeof(harms) / sizeof(harms[0]); i++) {
		assert_int_equal(unmake(state) || make(state), 0);
		harms[i].harm();
		if (monmem_next_mapping(&mm, 0, &m))
			fail_msg("%s passed", harms[i].what);
	}
}

/* Beyond the tree the root's entries are the host's; a large leaf is legal where they are. */
static void test_limits(void **state)
{
	struct mapping m;

	(void)state;
	table(0)[KEEL_VA_END >> 39] = ~UINT64_C(0);
	table(2)[5] = PTE_P | PTE_PS;
	assert_true(monmem_next_mapping(&mm, MAPPED_VA + PAGE, &m));
	assert_int_equal(m.va, 5 << 21);
	assert_int_equal(m.len, 2 << 20);
}

const struct CMUnitTest monmem_tests[] = {
	cmocka_unit_test_setup_teardown(test_sound, make, unmake),
	cmocka_unit_test_setup_teardown(test_unsound, make, unmake),
	cmocka_unit_test_setup_teardown(test_limits, make, unmake),
};
DEFINE_TESTS(monmem);
