// SPDX-License-Identifier: MIT
/*
 * The monitor's core as a whole, on a backend that is a flat array: address spaces made,
 * changed, cloned, entered and destroyed at random, in arenas too small for them, and
 * ports of several vCPUs. KTAP on standard output.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <hypercall/event.h>

#include "../monitor/monitor.h"

#define VCPUS 3
#define SPACES 5
#define WINDOW 1536 /* pages; both windows are more than one step of a clone */
#define WINDOWS 2
#define PAGES (WINDOWS * WINDOW)
#define RAM_PAGES 8192
#define ARENA_MAX 64
#define RECORD_GPA 0x1000
#define CONTEXT_GPA 0x2000
#define SET_GPA 0x3000
#define XSAVE_SIZE 576
#define PORTS 12

/* gate.S is not here: nothing is monitor text. */
char mon_text_start[1], mon_text_end[1], gate_check[1], gate_ret[1], gate_ret_end[1], gate_load_rip[1];
char mon_resume[1], mon_resume_load[1], mon_resume_end[1];

static const uint64_t base[WINDOWS] = { 0x7fffc00000, KEEL_VA_END - WINDOW *KEEL_PAGE_SIZE };

static uint8_t blocks[VCPUS * MON_BLOCK_SIZE] __attribute__((aligned(MON_BLOCK_SIZE)));
static uint8_t arena[ARENA_MAX * KEEL_PAGE_SIZE] __attribute__((aligned(4096)));
static uint8_t ram[16 * KEEL_PAGE_SIZE] __attribute__((aligned(4096)));
static uint32_t live[ARENA_MAX];
static struct as spaces[SPACES];
static struct mon m;
static uint64_t seed;

/* What a space should hold, and what the backend was told of it: GPA and protection; 0 = nothing. */
static struct {
	uint64_t handle; /* 0 = none */
	uint64_t last;	 /* that there was */
	uint64_t page[PAGES];
	uint64_t cache[PAGES];
} model[SPACES];

static struct {
	unsigned int kicks[VCPUS], settled, made, destroyed;
	bool refuse; /* to make a space */
	void (*user)(struct mvcpu *v);
} backend;

static uint64_t dice(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

static struct mvcpu *vcpu(unsigned int n)
{
	return mv_of((struct keel_vcpu *)(blocks + n * MON_BLOCK_SIZE));
}

static uint64_t va_of(unsigned int page)
{
	return base[page / WINDOW] + page % WINDOW * KEEL_PAGE_SIZE;
}

static unsigned int page_of(uint64_t va)
{
	const unsigned int w = va >= base[1];

	return w * WINDOW + (unsigned int)((va - base[w]) / KEEL_PAGE_SIZE);
}

/* The backend */

static uint64_t *cached(struct as *as, uint64_t va, uint64_t pages)
{
	const unsigned int at = page_of(va);

	assert_true(as->lock.taken);
	assert_true(as->index >= 1 && as->index <= SPACES);
	assert_true(at + pages <= PAGES);
	return &model[as->index - 1].cache[at];
}

void mb_map(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint64_t gpa, uint32_t prot,
	    unsigned int flags)
{
	uint64_t *c = cached(as, va, pages);

	(void)v;
	for (uint64_t i = 0; i < pages; i++) {
		if (!(flags & MB_REPLACED))
			assert_true(!c[i]);
		c[i] = (gpa + i * KEEL_PAGE_SIZE) | prot;
	}
}

void mb_unmap(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages)
{
	/* One operation may cross a gap between the windows. */
	(void)v;
	for (unsigned int i = 0; i < PAGES; i++)
		if (va_of(i) >= va && va_of(i) < va + pages * KEEL_PAGE_SIZE)
			*cached(as, va_of(i), 1) = 0;
}

void mb_protect(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint32_t prot)
{
	uint64_t *c = cached(as, va, pages);

	(void)v;
	for (uint64_t i = 0; i < pages; i++)
		if (c[i])
			c[i] = (c[i] & PTE_ADDR) | prot;
}

void mb_settle(struct mvcpu *v, struct as *as)
{
	(void)v;
	assert_true(as->lock.taken);
	backend.settled++;
}

bool mb_as_create(struct mvcpu *v, struct as *as)
{
	(void)v;
	for (unsigned int i = 0; i < sizeof(as->backend) / sizeof(as->backend[0]); i++)
		assert_int_equal(as->backend[i], 0);
	if (backend.refuse)
		return false;
	as->backend[3] = 4711;
	memset(model[as->index - 1].cache, 0, sizeof(model[0].cache));
	backend.made++;
	return true;
}

void mb_as_destroy(struct mvcpu *v, struct as *as)
{
	(void)v;
	assert_int_equal(as->running, 0);
	assert_int_equal(as->backend[3], 4711);
	backend.destroyed++;
}

uint32_t mb_user(struct mvcpu *v)
{
	assert_true(v->user_as->running >> v->id & 1);
	assert_false(v->user_as->lock.taken);
	backend.user(v);
	return KEEL_USER_EVENT;
}

void mb_kick(struct mvcpu *v, struct mvcpu *to)
{
	assert_ptr_not_equal(v, to);
	backend.kicks[to->id]++;
}

void mb_relax(unsigned int round)
{
	(void)round;
	fail_msg("waiting for a lock that nobody gives up");
}

uint64_t mb_now(struct mvcpu *v)
{
	(void)v;
	return 0;
}

void mb_timer(struct mvcpu *v, uint64_t deadline)
{
	(void)v, (void)deadline;
}

bool mb_wait(struct mvcpu *v, uint32_t seq, uint64_t deadline)
{
	(void)v, (void)seq, (void)deadline;
	return true;
}

void mb_yield(struct mvcpu *v, struct mvcpu *to)
{
	(void)v, (void)to;
}

mret mb_remote(struct mvcpu *v, uint32_t id, const uint64_t *arg)
{
	(void)v, (void)id, (void)arg;
	return MERR(KEEL_E_NOTSUP, 0);
}

void mb_device(struct mvcpu *v, uint32_t device)
{
	(void)v, (void)device;
}

void mb_doorbell(struct mvcpu *v)
{
	(void)v;
}

bool mb_release(struct mvcpu *v, uint64_t gpa, uint64_t pages)
{
	(void)v, (void)gpa, (void)pages;
	return true;
}

bool mb_populate(struct mvcpu *v, uint64_t gpa, uint64_t pages)
{
	(void)v, (void)gpa, (void)pages;
	return true;
}

void mb_park(struct mvcpu *v)
{
	(void)v;
	abort();
}

void mb_fatal(struct mvcpu *v)
{
	(void)v;
	abort();
}

static void begin(unsigned int tables, bool walked)
{
	memset(blocks, 0, sizeof(blocks));
	memset(arena, 0, sizeof(arena));
	memset(live, 0, sizeof(live));
	memset(spaces, 0, sizeof(spaces));
	memset(model, 0, sizeof(model));
	memset(&backend, 0, sizeof(backend));
	memset(ram, 0, sizeof(ram));
	m = (struct mon){ .arena = arena,
			  .arena_pages = tables,
			  .table_live = live,
			  .tables_walked = walked,
			  .ram = ram,
			  .ram_size = RAM_PAGES * KEEL_PAGE_SIZE,
			  .vcpus = VCPUS,
			  .xfeatures = 3,
			  .xsave_size = XSAVE_SIZE,
			  .spaces = SPACES,
			  .space = spaces };
	if (walked) { /* as on kvm */
		m.ram_base = KEEL_U64(4) << 30;
		m.arena_base = KEEL_U64(5) << 20;
	}
	mon_init(&m);
	for (unsigned int i = 0; i < VCPUS; i++)
		mon_vcpu_init(&m, vcpu(i), (struct keel_vcpu *)(blocks + i * MON_BLOCK_SIZE), i);
}

/* Where the tables are */

static const uint64_t *table(uint64_t entry)
{
	return (const uint64_t *)(arena + ((entry & PTE_ADDR) - m.arena_base));
}

/* A table and all below it. Those in use must have as many entries as they say. */
static unsigned int count_tables(const uint64_t *t, unsigned int level, bool used)
{
	unsigned int entries = 0, tables = 1;

	for (unsigned int i = 0; i < 512; i++) {
		entries += t[i] != 0;
		if (level && t[i] && !(t[i] & PTE_PS))
			tables += count_tables(table(t[i]), level - 1, used);
	}
	if (used)
		assert_int_equal(entries, live[((const uint8_t *)t - arena) / KEEL_PAGE_SIZE]);
	return tables;
}

static unsigned int count_list(uint32_t head, unsigned int level, bool dead)
{
	unsigned int n = 0;

	for (; head; head = live[head - 1]) {
		const uint64_t *t = (const uint64_t *)(arena + (head - 1) * KEEL_PAGE_SIZE);

		n += dead ? count_tables(t, level, false) : 1;
		for (unsigned int i = 0; !dead && i < 512; i++)
			assert_int_equal(t[i], 0);
		assert_true(n <= m.table_used);
	}
	return n;
}

static void compare_space(unsigned int s)
{
	struct as *as = &spaces[s];
	uint64_t mapped = 0;

	for (unsigned int i = 0; i < PAGES; i++) {
		const uint64_t pte = as_lookup(&m, as, va_of(i)), want = model[s].page[i];

		assert_int_equal(pte ? (pte & PTE_ADDR) | pte_prot(pte) : 0, want);
		/* The cache may know less, but nothing else and no more. */
		if (model[s].cache[i])
			assert_int_equal(model[s].cache[i] | (want & KEEL_PROT_ALL), want);
		mapped += want != 0;
	}
	assert_int_equal(as->pages, mapped);
}

static void compare(void)
{
	unsigned int tables = count_tables(m.as0.root, 3, true), total, limbo = 0;

	for (unsigned int s = 0; s < SPACES; s++) {
		unsigned int n = 0;

		assert_false(spaces[s].lock.taken);
		if (spaces[s].state != AS_FREE)
			n = count_tables(spaces[s].root, 3, true);
		assert_int_equal(spaces[s].tables, n);
		tables += n;
		limbo += count_list(spaces[s].table_limbo, 0, false);
		if (model[s].handle)
			compare_space(s);
	}
	assert_int_equal(m.tables, tables);
	total = tables + limbo + count_list(m.table_free, 0, false);
	for (unsigned int l = 0; l < 3; l++)
		total += count_list(m.table_dead[l], l, true);
	assert_int_equal(total, m.table_used);
	assert_false(m.arena_lock.taken || m.spaces_lock.taken || m.ports.taken);
}

/* NOMEM is honest: every table was handed out once. */
static bool arena_full(void)
{
	return m.table_used == m.arena_pages;
}

static unsigned int in_use(void)
{
	unsigned int n = 0;

	for (unsigned int s = 0; s < SPACES; s++)
		n += spaces[s].state != AS_FREE;
	return n;
}

/* A handle that was never given out before, of a space that is free as far as anybody knows. */
static unsigned int adopt(uint64_t handle)
{
	const unsigned int s = (unsigned int)(handle & 0xffffffff) - 1;

	assert_true(handle >> 32 && !(handle >> 63));
	assert_true(s < SPACES && !model[s].handle);
	assert_int_not_equal(handle, model[s].last);
	model[s].last = model[s].handle = handle;
	memset(model[s].page, 0, sizeof(model[s].page));
	return s;
}

/* Operations. `s` has a space. */

static struct mvcpu *any(void)
{
	return vcpu((unsigned int)dice(VCPUS));
}

static void create(void)
{
	const uint64_t a[5] = { 0 };
	const bool full = in_use() == SPACES;
	mret r;

	backend.refuse = dice(8) == 0;
	r = mon_as_create(any(), a);
	if (r.status == KEEL_OK)
		adopt(r.value);
	else
		assert_true(r.status == KEEL_STATUS(KEEL_E_NOMEM, 0) && (full || backend.refuse || arena_full()));
	backend.refuse = false;
}

static void destroyed(unsigned int s)
{
	const uint64_t old[5] = { model[s].handle };

	model[s].handle = 0;
	assert_int_equal(mon_as_destroy(any(), old).status, KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1)));
	assert_int_equal(mon_as_info(any(), old).status, KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1)));
	assert_int_equal(mon_as_clone(any(), old).status, KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1)));
}

static void destroy(unsigned int s)
{
	const uint64_t a[5] = { model[s].handle };

	assert_int_equal(mon_as_destroy(any(), a).status, KEEL_OK);
	destroyed(s);
}

static void batch(unsigned int s)
{
	static const uint32_t prots[] = { KEEL_PROT_R, KEEL_PROT_R | KEEL_PROT_W, KEEL_PROT_R | KEEL_PROT_X,
					  KEEL_PROT_ALL };
	struct keel_mmu_record *r = (struct keel_mmu_record *)(ram + RECORD_GPA);
	const uint64_t a[5] = { model[s].handle, RECORD_GPA, 1 };
	unsigned int at = (unsigned int)dice(PAGES), n = 1 + (unsigned int)dice(dice(2) ? 8 : WINDOW);
	uint64_t *page;

	if (dice(3) == 0)
		at &= ~511u;
	if (n > WINDOW - at % WINDOW)
		n = WINDOW - at % WINDOW;
	*r = (struct keel_mmu_record){ .op = KEEL_MMU_MAP + (uint16_t)dice(3),
				       .va = va_of(at),
				       .len = n * KEEL_PAGE_SIZE };
	if (r->op != KEEL_MMU_UNMAP)
		r->prot = prots[dice(4)];
	if (r->op == KEEL_MMU_MAP)
		r->gpa = (dice(2) ? dice(RAM_PAGES - n) : (r->va >> KEEL_PAGE_SHIFT) % 512) * KEEL_PAGE_SIZE;
	for (page = &model[s].page[at]; r->len;) {
		const mret ret = mon_mmu_batch(any(), a);
		uint64_t done = KEEL_MMU_DONE_RECORDS(ret.value) ? r->len / KEEL_PAGE_SIZE
								 : KEEL_MMU_DONE_PAGES(ret.value);

		for (uint64_t i = 0; i < done; i++, page++)
			if (r->op == KEEL_MMU_UNMAP)
				*page = 0;
			else if (r->op == KEEL_MMU_MAP)
				*page = (r->gpa + i * KEEL_PAGE_SIZE) | r->prot;
			else
				*page = (*page & PTE_ADDR) | r->prot;
		r->va += done * KEEL_PAGE_SIZE;
		r->gpa += r->op == KEEL_MMU_MAP ? done * KEEL_PAGE_SIZE : 0;
		r->len -= done * KEEL_PAGE_SIZE;
		if (ret.status == KEEL_OK) {
			assert_true(done);
			continue;
		}
		if (KEEL_STATUS_CODE(ret.status) == KEEL_E_NOENT)
			assert_true(r->op == KEEL_MMU_PROTECT && !*page);
		else
			assert_true(KEEL_STATUS_CODE(ret.status) == KEEL_E_NOMEM && arena_full());
		return;
	}
}

/* In steps, with other calls in between, some of which destroy what is cloned. */
static void clone(unsigned int s)
{
	const uint64_t a[5] = { model[s].handle, dice(2) ? KEEL_AS_CLONE_SHARE : 0 }, other[5] = { a[0], !a[1] };
	const bool full = in_use() == SPACES;
	unsigned int steps = 0;
	mret r;

	while ((r = mon_as_clone(any(), a)).status == KEEL_STATUS(KEEL_E_AGAIN, 0)) {
		assert_true(++steps <= PAGES / MON_CLONE_PAGES + 1);
		assert_int_equal(mon_as_clone(any(), other).status, KEEL_STATUS(KEEL_E_BUSY, KEEL_AT_ARG(1)));
		if (dice(8) == 0) {
			const unsigned int n = in_use();

			destroy(s);
			assert_int_equal(in_use(), n - 2);
			return;
		}
	}
	for (unsigned int i = 0; !a[1] && i < PAGES; i++) {
		const uint64_t pte = as_lookup(&m, &spaces[s], va_of(i));

		/* One that failed may have come to some of them. */
		if (r.status == KEEL_OK || (pte && !(pte & PTE_W)))
			model[s].page[i] &= ~(uint64_t)KEEL_PROT_W;
	}
	if (r.status != KEEL_OK) {
		assert_true(r.status == KEEL_STATUS(KEEL_E_NOMEM, 0) && (full || arena_full()));
		assert_ptr_equal(spaces[s].copy, NULL);
		return;
	}
	memcpy(model[adopt(r.value)].page, model[s].page, sizeof(model[s].page));
}

/* While user code runs: another vCPU destroys its space, or looks. */
static void in_user(struct mvcpu *v)
{
	struct mvcpu *o = vcpu((v->id + 1) % VCPUS);
	const unsigned int kicks = backend.kicks[v->id];
	uint64_t a[5] = { model[v->user_as->index - 1].handle, KEEL_AS_INFO_RUNNING };

	assert_int_equal(mon_as_info(o, a).value, 1);
	assert_false(mon_user_event(v));
	if (dice(2))
		return;
	a[1] = 0;
	assert_int_equal(mon_as_destroy(o, a).status, KEEL_STATUS(KEEL_E_AGAIN, 0));
	assert_int_equal(backend.kicks[v->id], kicks + 1);
	assert_true(mon_user_event(v));
	a[1] = CONTEXT_GPA;
	assert_int_equal(mon_user_enter(o, a).status, KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1)));
}

static void enter(unsigned int s)
{
	struct keel_user *u = (struct keel_user *)(ram + CONTEXT_GPA);
	const uint64_t a[5] = { model[s].handle, CONTEXT_GPA }, d[5] = { a[0] };
	mret r;

	memset(u, 0, KEEL_USER_XSAVE + XSAVE_SIZE);
	u->size = KEEL_USER_XSAVE + XSAVE_SIZE;
	backend.user = in_user;
	r = mon_user_enter(any(), a);
	assert_int_equal(r.status, KEEL_OK);
	assert_int_equal(u->reason, r.value);
	assert_int_equal(spaces[s].running, 0);
	if (spaces[s].state != AS_DYING)
		return;
	assert_int_equal(mon_as_destroy(any(), d).status, KEEL_OK);
	destroyed(s);
}

static void run(unsigned int tables, unsigned int rounds)
{
	static void (*const ops[])(unsigned int) = { batch, batch, batch, batch, batch, batch, clone, enter, destroy };

	begin(tables, dice(2));
	for (unsigned int i = 0; i < rounds; i++) {
		const unsigned int s = (unsigned int)dice(SPACES);

		if (model[s].handle)
			ops[dice(sizeof(ops) / sizeof(ops[0]))](s);
		else
			create();
		if (i % 8 == 0)
			compare();
	}
	for (unsigned int s = 0; s < SPACES; s++)
		if (model[s].handle)
			destroy(s);
	compare();
	assert_int_equal(m.tables, 1);
	assert_int_equal(in_use(), 0);
	assert_int_equal(backend.made, backend.destroyed);
}

static void test_spaces(void **state)
{
	(void)state;
	for (unsigned int i = 1; i < 6; i++) {
		seed = i;
		run(ARENA_MAX, 600);
	}
}

static void test_small_arenas(void **state)
{
	(void)state;
	for (unsigned int tables = 1; tables < 30; tables++) {
		seed = 99 + tables;
		run(tables, 120);
	}
}

/* A dropped tree is taken apart as its tables are needed, one at a time. */
static void test_drop(void **state)
{
	const uint64_t none[5] = { 0 };
	uint64_t a[5] = { 0 };
	uint32_t used;

	(void)state;
	seed = 5;
	begin(ARENA_MAX, false);
	adopt(mon_as_create(vcpu(0), none).value);
	for (unsigned int i = 0; i < 200; i++)
		batch(0);
	compare();
	used = m.table_used;
	assert_true(used > 6);
	a[0] = model[0].handle;
	assert_int_equal(mon_as_destroy(vcpu(1), a).status, KEEL_OK);
	model[0].handle = 0;
	assert_int_equal(m.tables, 1);
	assert_true(m.table_dead[2] && !m.table_dead[1] && !m.table_dead[0]);
	compare();
	/* All of it is used again before any other is. */
	adopt(mon_as_create(vcpu(0), none).value);
	for (unsigned int i = 0; i < 200 && m.tables < used; i++) {
		const uint32_t tables = m.tables;

		batch(1);
		compare();
		assert_true(m.table_used == used || tables > used / 2);
	}
}

/* Ports: what was allocated, and the state of every bit of each vCPU. */

static struct {
	uint64_t handle;
	bool open;
} port[PORTS];
static bool kicked[VCPUS]; /* and has not looked since */
static bool pending[VCPUS][KEEL_EVENT_BITS], masked[VCPUS][KEEL_EVENT_BITS], used[VCPUS][KEEL_EVENT_BITS];

/* After a call of v's that made `bit` of `to` deliverable, with `was` pending there before. */
static void expect_look(struct mvcpu *v, unsigned int to, bool deliverable, uint64_t was, const unsigned int *kicks)
{
	for (unsigned int i = 0; i < VCPUS; i++) {
		const bool look = i == to && i != v->id && deliverable && !was;

		assert_int_equal(backend.kicks[i] - kicks[i], look && !kicked[i]);
		kicked[i] |= look;
	}
	if (to == v->id && deliverable && !was)
		assert_true(v->attn & ATTN_LOOK);
}

static void port_call(struct mvcpu *v, unsigned int p)
{
	const unsigned int to = KEEL_PORT_VCPU(port[p].handle), bit = KEEL_PORT_BIT(port[p].handle),
			   op = (unsigned int)dice(4);
	const uint64_t a[5] = { port[p].handle }, was = vcpu(to)->page->pending;
	unsigned int kicks[VCPUS];
	int64_t status;

	memcpy(kicks, backend.kicks, sizeof(kicks));
	v->attn = 0;
	status = (op == 0   ? mon_event_mask(v, a)
		  : op == 1 ? mon_event_unmask(v, a)
		  : op == 2 ? mon_event_send(v, a)
			    : mon_event_close(v, a))
			 .status;
	if (!port[p].open) {
		assert_int_equal(status, KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1)));
		expect_look(v, to, false, was, kicks);
		return;
	}
	assert_int_equal(status, KEEL_OK);
	if (op == 1)
		expect_look(v, to, pending[to][bit], 0, kicks);
	else
		expect_look(v, to, op == 2 && !masked[to][bit], was, kicks);
	if (op == 0 || op == 3)
		masked[to][bit] = true;
	if (op == 1)
		masked[to][bit] = false;
	if (op >= 2)
		pending[to][bit] = op == 2;
	if (op == 3)
		port[p].open = used[to][bit] = false;
}

static void port_alloc(struct mvcpu *v, unsigned int p)
{
	const uint64_t a[5] = { dice(KEEL_EVENT_PRIORITIES) }, old = port[p].handle;
	const mret r = mon_event_alloc(v, a);
	const unsigned int bit = KEEL_PORT_BIT(r.value);

	assert_int_equal(r.status, KEEL_OK);
	assert_int_equal(KEEL_PORT_VCPU(r.value), v->id);
	assert_int_equal(bit / KEEL_EVENT_BITS_PER_PRIORITY, a[0]);
	assert_false(used[v->id][bit]);
	if (old && KEEL_PORT_VCPU(old) == v->id && KEEL_PORT_BIT(old) == bit)
		assert_int_not_equal(old, r.value);
	port[p].handle = r.value;
	port[p].open = used[v->id][bit] = masked[v->id][bit] = true;
	pending[v->id][bit] = false;
}

/* To a set with or without one that has no such port, or one that is none. */
static void ipi(struct mvcpu *v)
{
	const unsigned int bit = KEEL_PORT_BIT(port[dice(PORTS)].handle);
	struct keel_vcpu_set *set = (struct keel_vcpu_set *)(ram + SET_GPA);
	const uint64_t a[5] = { SET_GPA, 16, bit };
	const uint64_t bank = dice(KEEL_U64(1) << (VCPUS + (dice(8) == 0)));
	int64_t want = bank >> VCPUS ? KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1)) : KEEL_OK;
	unsigned int kicks[VCPUS];

	set->banks = 1;
	set->bank[0] = bank;
	memcpy(kicks, backend.kicks, sizeof(kicks));
	for (unsigned int i = 0; i < VCPUS && want == KEEL_OK; i++)
		if (bank >> i & 1 && !used[i][bit])
			want = KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(3));
	for (unsigned int i = 0; i < VCPUS; i++) {
		const bool look = want == KEEL_OK && bank >> i & 1 && i != v->id && !masked[i][bit] &&
				  !vcpu(i)->page->pending;

		kicks[i] += look && !kicked[i];
		kicked[i] |= look;
	}
	assert_int_equal(mon_vcpu_ipi(v, a).status, want);
	for (unsigned int i = 0; i < VCPUS; i++) {
		if (want == KEEL_OK && bank >> i & 1)
			pending[i][bit] = true;
		assert_int_equal(backend.kicks[i], kicks[i]);
	}
}

/* The guest's dispatcher takes what is pending, the most urgent first. */
static void take(unsigned int n)
{
	int bit;

	mon_listen(vcpu(n));
	kicked[n] = false;
	for (int i = 0; i < KEEL_EVENT_BITS; i++) {
		if (!pending[n][i] || masked[n][i])
			continue;
		assert_int_equal(keel_ev_next(keel_share(vcpu(n)->page)), i);
		pending[n][i] = false;
	}
	bit = keel_ev_next(keel_share(vcpu(n)->page));
	assert_int_equal(bit, -1);
	assert_int_equal(vcpu(n)->page->pending, 0);
}

static void test_ports(void **state)
{
	(void)state;
	begin(ARENA_MAX, false);
	memset(port, 0, sizeof(port));
	memset(masked, true, sizeof(masked));
	seed = 31;
	for (unsigned int i = 0; i < 60000; i++) {
		const unsigned int p = (unsigned int)dice(PORTS);

		if (!port[p].handle || (!port[p].open && dice(2)))
			port_alloc(any(), p);
		else
			port_call(any(), p);
		if (i > PORTS * 8 && dice(4) == 0)
			ipi(any());
		if (dice(8) == 0)
			take((unsigned int)dice(VCPUS));
	}
}

/* A set as it is not written. */
static void test_sets(void **state)
{
	struct keel_vcpu_set *set = (struct keel_vcpu_set *)(ram + SET_GPA);
	uint64_t a[5] = { SET_GPA, 16, 7 };

	(void)state;
	begin(ARENA_MAX, false);
	set->banks = 0;
	a[1] = 8;
	assert_int_equal(mon_vcpu_ipi(vcpu(0), a).status, KEEL_OK);
	a[1] = 16;
	assert_int_equal(mon_vcpu_ipi(vcpu(0), a).status, KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(1)));
	set->banks = 3;
	assert_int_equal(mon_vcpu_ipi(vcpu(0), a).status, KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(1)));
	set->banks = 2; /* vCPUs 64 to 127 */
	assert_int_equal(mon_vcpu_ipi(vcpu(0), a).status, KEEL_OK);
	set->bank[0] = 1;
	assert_int_equal(mon_vcpu_ipi(vcpu(0), a).status, KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1)));
	set->banks = 1;
	set->bank[0] = 1 << VCPUS;
	assert_int_equal(mon_vcpu_ipi(vcpu(0), a).status, KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1)));
	set->bank[0] = 1;
	assert_int_equal(mon_vcpu_ipi(vcpu(0), a).status, KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(3)));
	a[0] = RAM_PAGES * KEEL_PAGE_SIZE - 8;
	assert_int_equal(mon_vcpu_ipi(vcpu(0), a).status, KEEL_STATUS(KEEL_E_FAULT, KEEL_AT_ARG(1)));
	a[0] = SET_GPA + 4;
	assert_int_equal(mon_vcpu_ipi(vcpu(0), a).status, KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(1)));
	a[0] = SET_GPA;
	a[1] = sizeof(*set) + 8;
	assert_int_equal(mon_vcpu_ipi(vcpu(0), a).status, KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2)));
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_spaces), cmocka_unit_test(test_small_arenas), cmocka_unit_test(test_drop),
	cmocka_unit_test(test_ports),  cmocka_unit_test(test_sets),
};

int main(void)
{
	puts("KTAP version 1");
	fflush(stdout);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
