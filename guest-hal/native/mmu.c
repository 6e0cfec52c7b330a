// SPDX-License-Identifier: MIT
/*
 * Page tables on bare hardware. All of them are reached through the linear
 * map. Updates are written at once; the TLB is brought up to date at the end
 * of each operation, or of the lazy section around it.
 *
 * User code has tables of its own, in which only the entry code is mapped of the
 * kernel (NATIVE_ALIAS). They are loaded when it is entered, which forgets what
 * was cached of them; so a change matters only to processors that run it now.
 */
#include "native.h"

#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_U 4ull
#define PTE_PCD 0x10ull
#define PTE_AD 0x60ull
#define PTE_D 0x40ull
#define PTE_LARGE 0x80ull
#define PTE_NX (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull
#define LARGE_SIZE 0x200000ull
#define BOOT_MAPPED (1ull << 30) /* what start.S maps */

/* Address spaces; number 0 is the kernel's. */
#define SPACES 1024
static struct space {
	uint64_t root;	  /* physical address of the top table, 0 = unused */
	uint32_t gen;	  /* of the handle that names it */
	uint64_t running; /* processors that have its tables loaded, or are about to */
	bool dying;	  /* destroyed, and not yet left by all */
} spaces[SPACES];

static struct hal_lock lock;	     /* over everything here and all tables */
static uint64_t pool_next, pool_end; /* never used tables */
static uint64_t free_tables;	     /* list through the first entry */

#define FLUSH_MAX 32 /* beyond this, forget everything: cheaper than as many invlpg */
/* What a processor has changed in the kernel's tables and not yet flushed. */
static struct flush {
	uint64_t va[FLUSH_MAX];
	unsigned int count;
	bool all;
	uint64_t dead_tables; /* unlinked, free after the flush */
	int lazy_error;
} flushes[HAL_CPU_MAX];

static struct flush *flush_of_cpu(void)
{
	return &flushes[hal_cpu_number()];
}

/* NULL when the handle names none. */
static struct space *space_get(hal_space_t handle)
{
	struct space *s = &spaces[handle % SPACES];

	if ((uint32_t)handle >= SPACES || !s->root || s->gen != handle >> 32)
		return NULL;
	return s;
}

static uint64_t *table_at(uint64_t pa)
{
	return hal_pa_to_va(pa & PTE_ADDR);
}

static uint64_t table_alloc(void)
{
	uint64_t pa = free_tables;
	uint64_t *t;

	if (pa) {
		t = table_at(pa);
		free_tables = t[0];
	} else if (pool_next < pool_end) {
		pa = pool_next;
		pool_next += HAL_PAGE_SIZE;
		t = table_at(pa);
	} else {
		return 0;
	}
	for (unsigned int i = 0; i < 512; i++)
		t[i] = 0;
	COUNT(pt_alloc);
	return pa;
}

static void table_free(uint64_t pa)
{
	table_at(pa)[0] = free_tables;
	free_tables = pa;
}

static void pte_write(uint64_t *pte, uint64_t va, uint64_t value)
{
	struct flush *flush = flush_of_cpu();
	uint64_t old = *pte;

	*(volatile uint64_t *)pte = value;
	COUNT(pte_write);
	/* Nothing is cached for an entry that was not present. */
	if (!(old & PTE_P) || flush->all)
		return;
	if (flush->count == FLUSH_MAX)
		flush->all = true;
	else
		flush->va[flush->count++] = va;
}

/* Processors other than this one in a set. */
static uint64_t others(const uint64_t *set)
{
	return __atomic_load_n(set, __ATOMIC_SEQ_CST) & ~(1ull << hal_cpu_number());
}

/* For the space that was changed; what a lazy section has put off of the kernel's goes with it. */
static void flush_now(const struct space *s)
{
	struct flush *flush = flush_of_cpu();
	bool kernel = s == &spaces[0];
	uint64_t cpus;

	if (flush->all || flush->count) {
		cpus = others(kernel ? &hal_native_online : &s->running);
		if (cpus)
			hal_native_shootdown(cpus);
	}
	if (flush->all && kernel) {
		native_cr3_set(native_cr3());
		COUNT(cr3);
	} else if (kernel) {
		for (unsigned int i = 0; i < flush->count; i++) {
			native_invlpg(flush->va[i]);
			COUNT(invlpg);
		}
	}
	flush->all = false;
	flush->count = 0;
	while (flush->dead_tables) {
		uint64_t pa = flush->dead_tables;

		flush->dead_tables = table_at(pa)[0];
		table_free(pa);
	}
}

static unsigned int index_at(uint64_t va, int level)
{
	return va >> (12 + 9 * level) & 511;
}

/* Replace a 2 MiB entry by a table of the same 512 pages. */
static bool split(uint64_t *entry)
{
	uint64_t pa = table_alloc(), *t;

	if (!pa)
		return false;
	t = table_at(pa);
	for (unsigned int i = 0; i < 512; i++)
		t[i] = (*entry & ~PTE_LARGE) + i * HAL_PAGE_SIZE;
	*entry = pa | PTE_P | PTE_W;
	flush_of_cpu()->all = true;
	return true;
}

/*
 * The entry for va at a level (0 = page, 1 = 2 MiB). Without `alloc`, NULL when
 * there is no table; with it, NULL when memory for one ran out.
 */
static uint64_t *walk(const struct space *s, uint64_t va, int to_level, bool alloc)
{
	uint64_t *t = table_at(s->root);

	for (int level = 3; level > to_level; level--) {
		uint64_t *entry = &t[index_at(va, level)];

		if (!(*entry & PTE_P)) {
			uint64_t pa = alloc ? table_alloc() : 0;

			if (!pa)
				return NULL;
			*entry = pa | PTE_P | PTE_W | (s == &spaces[0] ? 0 : PTE_U);
		} else if (*entry & PTE_LARGE && !split(entry)) {
			return NULL;
		}
		t = table_at(*entry);
	}
	return &t[index_at(va, to_level)];
}

static uint64_t pte_bits(const struct space *s, unsigned int prot)
{
	return PTE_P | PTE_AD | (s == &spaces[0] ? 0 : PTE_U) | (prot & HAL_PROT_W ? PTE_W : 0) |
	       (prot & HAL_PROT_X ? 0 : PTE_NX);
}

/*
 * Common ends of the operations. One on another space than the kernel's begins
 * and ends with nothing put off, so that its flush is its own.
 */
static struct space *begin(hal_space_t handle, bool *irq)
{
	struct space *s;

	*irq = hal_lock(&lock);
	s = space_get(handle);
	if (!s)
		hal_unlock(&lock, *irq);
	else if (s != &spaces[0])
		flush_now(&spaces[0]);
	return s;
}

static int finish(const struct space *s, int err, bool irq)
{
	struct flush *flush = flush_of_cpu();

	if (s != &spaces[0] || !hal_core_lazy()) {
		flush_now(s);
	} else {
		if (!flush->lazy_error)
			flush->lazy_error = err;
		err = 0;
	}
	hal_unlock(&lock, irq);
	return err;
}

int hal_flavour_map(hal_space_t space, uint64_t va, uint64_t pa, uint64_t len, unsigned int prot, unsigned int flags)
{
	int err = hal_core_is_memory(pa, len) ? 0 : -HAL_EFAULT;
	uint64_t *pte = NULL;
	struct space *s;
	bool irq;

	(void)flags; /* memory is always there */
	s = begin(space, &irq);
	if (!s)
		return -HAL_ENOENT;
	for (uint64_t off = 0; !err && off < len; off += HAL_PAGE_SIZE, pte++) {
		if (!pte || !index_at(va + off, 0))
			pte = walk(s, va + off, 0, true);
		if (!pte)
			err = -HAL_ENOMEM;
		else
			pte_write(pte, va + off, (pa + off) | pte_bits(s, prot));
		if (err)
			break;
	}
	return finish(s, err, irq);
}

int hal_flavour_unmap(hal_space_t space, uint64_t va, uint64_t len)
{
	uint64_t end = va + len;
	struct space *s;
	int err = 0;
	bool irq;

	s = begin(space, &irq);
	if (!s)
		return -HAL_ENOENT;
	while (va < end) {
		uint64_t next = (va + LARGE_SIZE) & ~(LARGE_SIZE - 1);
		bool whole = !(va & (LARGE_SIZE - 1)) && next <= end;
		uint64_t *entry = walk(s, va, 1, false);

		if (!entry || !(*entry & PTE_P)) {
			va = next;
			continue;
		}
		if (whole) {
			/* A whole table goes: nothing below it needs to be looked at. */
			if (!(*entry & PTE_LARGE)) {
				uint64_t pa = *entry & PTE_ADDR;

				table_at(pa)[0] = flush_of_cpu()->dead_tables;
				flush_of_cpu()->dead_tables = pa;
			}
			pte_write(entry, va, 0);
			flush_of_cpu()->all = true;
			va = next;
			continue;
		}
		for (; va < end && va < next; va += HAL_PAGE_SIZE) {
			uint64_t *pte = walk(s, va, 0, false);

			if (!pte) {
				err = -HAL_ENOMEM; /* no table to split a large page with */
				break;
			}
			if (*pte & PTE_P)
				pte_write(pte, va, 0);
		}
		if (err)
			break;
	}
	return finish(s, err, irq);
}

int hal_flavour_protect(hal_space_t space, uint64_t va, uint64_t len, unsigned int prot)
{
	struct space *s;
	int err = 0;
	bool irq;

	s = begin(space, &irq);
	if (!s)
		return -HAL_ENOENT;
	for (uint64_t off = 0; off < len; off += HAL_PAGE_SIZE) {
		uint64_t *pte = walk(s, va + off, 0, false);

		if (!pte || !(*pte & PTE_P)) {
			err = -HAL_ENOENT;
			break;
		}
		pte_write(pte, va + off, (*pte & PTE_ADDR) | pte_bits(s, prot));
	}
	return finish(s, err, irq);
}

/* The processor sets the dirty bit on the first write; new entries start with it set. */
int hal_flavour_dirty(enum hal_dirty_op op, uint64_t va, uint64_t len, uint64_t *bitmap)
{
	struct space *s = &spaces[0];
	bool irq = hal_lock(&lock);

	flush_now(s); /* what a lazy section has put off, so that all errors here are ours */
	for (uint64_t i = 0; op != HAL_DIRTY_STOP && i < len / HAL_PAGE_SIZE; i++) {
		uint64_t *pte = walk(s, va + i * HAL_PAGE_SIZE, 0, false);
		bool dirty = pte && *pte & PTE_P && *pte & PTE_D;

		if (op == HAL_DIRTY_COLLECT && i % 64 == 0)
			bitmap[i / 64] = 0;
		if (!dirty)
			continue;
		pte_write(pte, va + i * HAL_PAGE_SIZE, *pte & ~PTE_D);
		if (op == HAL_DIRTY_COLLECT)
			bitmap[i / 64] |= 1ull << i % 64;
	}
	flush_now(s);
	hal_unlock(&lock, irq);
	return 0;
}

static int query(const struct space *s, uint64_t va, uint64_t *pa, unsigned int *prot)
{
	uint64_t *t = table_at(s->root);

	for (int level = 3; level >= 0; level--) {
		uint64_t entry = t[index_at(va, level)];
		uint64_t mask = (1ull << (12 + 9 * level)) - 1;

		if (!(entry & PTE_P))
			return -HAL_ENOENT;
		if (level && !(entry & PTE_LARGE)) {
			t = table_at(entry);
			continue;
		}
		*pa = ((entry & PTE_ADDR & ~mask) | (va & mask)) & ~(HAL_PAGE_SIZE - 1);
		*prot = HAL_PROT_R | (entry & PTE_W ? HAL_PROT_W : 0) | (entry & PTE_NX ? 0 : HAL_PROT_X);
		return 0;
	}
	return -HAL_ENOENT;
}

int hal_space_query(hal_space_t space, uint64_t va, uint64_t *pa, unsigned int *prot)
{
	bool irq = hal_lock(&lock);
	struct space *s = space_get(space);
	int err = s && va < HAL_VA_END ? query(s, va, pa, prot) : -HAL_ENOENT;

	hal_unlock(&lock, irq);
	return err;
}

int hal_lazy_flush(void)
{
	bool irq = hal_lock(&lock);
	struct flush *flush = flush_of_cpu();
	int err = flush->lazy_error;

	flush_now(&spaces[0]);
	flush->lazy_error = 0;
	hal_unlock(&lock, irq);
	return err;
}

void hal_tlb_flush(uint64_t va, uint64_t len)
{
	bool irq = hal_lock(&lock);
	struct flush *flush = flush_of_cpu();
	uint64_t end = va + len;

	if (!len || len > FLUSH_MAX * HAL_PAGE_SIZE)
		flush->all = true;
	for (va &= ~(HAL_PAGE_SIZE - 1); !flush->all && va < end; va += HAL_PAGE_SIZE) {
		if (flush->count == FLUSH_MAX)
			flush->all = true;
		else
			flush->va[flush->count++] = va;
	}
	flush_now(&spaces[0]);
	hal_unlock(&lock, irq);
}

/* -------------------------------------------------------- user processes */

/* A number of its own and a top table with the entry code in it; 0 when there is no room. */
static hal_space_t space_new(void)
{
	for (unsigned int i = 1; i < SPACES; i++) {
		struct space *s = &spaces[i];

		/* Whoever still runs what it named before has to be out of it. */
		if (s->root || s->dying || __atomic_load_n(&s->running, __ATOMIC_SEQ_CST))
			continue;
		s->root = table_alloc();
		if (!s->root)
			return 0;
		s->gen = (s->gen + 1) & 0x7fffffff;
		table_at(s->root)[511] = table_at(spaces[0].root)[511];
		return (hal_space_t)s->gen << 32 | i;
	}
	return 0;
}

/* All tables below one, and itself. Level 3 has user code's half only. */
static void tables_free(uint64_t pa, int level)
{
	uint64_t *t = table_at(pa);

	for (unsigned int i = 0; level && i < (level == 3 ? 256u : 512u); i++) {
		if (t[i] & PTE_P)
			tables_free(t[i] & PTE_ADDR, level - 1);
	}
	table_free(pa);
}

/* Copy what `from` has to `to`, both tables of a level; writable pages lose that in both unless shared. */
static bool tables_copy(uint64_t from, uint64_t to, int level, bool share)
{
	uint64_t *f = table_at(from), *t = table_at(to), pa;

	for (unsigned int i = 0; i < (level == 3 ? 256u : 512u); i++) {
		if (!(f[i] & PTE_P))
			continue;
		if (!level) {
			if (!share)
				*(volatile uint64_t *)&f[i] = f[i] & ~PTE_W;
			t[i] = f[i];
			continue;
		}
		pa = table_alloc();
		if (!pa)
			return false;
		t[i] = pa | PTE_P | PTE_W | PTE_U;
		if (!tables_copy(f[i] & PTE_ADDR, pa, level - 1, share))
			return false;
	}
	return true;
}

int hal_space_create(hal_space_t *space)
{
	bool irq = hal_lock(&lock);
	hal_space_t handle = space_new();

	hal_unlock(&lock, irq);
	if (!handle)
		return -HAL_ENOMEM;
	*space = handle;
	return 0;
}

int hal_space_clone(hal_space_t space, hal_space_t *copy, unsigned int flags)
{
	struct space *s, *to;
	hal_space_t handle;
	int err = 0;
	bool irq;

	if (flags & ~HAL_CLONE_SHARE)
		return -HAL_EINVAL;
	if (space == HAL_SPACE_KERNEL)
		return -HAL_ENOENT;
	s = begin(space, &irq);
	if (!s)
		return -HAL_ENOENT;
	handle = space_new();
	to = space_get(handle);
	if (!handle) {
		err = -HAL_ENOMEM;
	} else if (!tables_copy(s->root, to->root, 3, flags & HAL_CLONE_SHARE)) {
		tables_free(to->root, 3);
		to->root = 0;
		err = -HAL_ENOMEM;
	} else {
		*copy = handle;
	}
	flush_of_cpu()->all = true;
	return finish(s, err, irq);
}

int hal_space_destroy(hal_space_t space)
{
	bool irq = hal_lock(&lock);
	struct space *s = space == HAL_SPACE_KERNEL ? NULL : space_get(space);
	uint64_t root;

	if (!s) {
		hal_unlock(&lock, irq);
		return -HAL_ENOENT;
	}
	/* From here on nobody enters it; who is in it leaves, and meets interrupts on its way. */
	root = s->root;
	s->dying = true;
	__atomic_store_n(&s->root, 0, __ATOMIC_SEQ_CST);
	hal_unlock(&lock, irq);
	hal_native_kick(others(&s->running));
	while (others(&s->running))
		hal_cpu_relax();
	irq = hal_lock(&lock);
	tables_free(root, 3);
	s->dying = false;
	hal_unlock(&lock, irq);
	return 0;
}

/* Without the lock: first say that it runs, then look whether it is still there. */
int hal_native_space_enter(hal_space_t space, uint64_t *cr3)
{
	struct space *s = &spaces[(uint32_t)space % SPACES];

	if (space == HAL_SPACE_KERNEL || (uint32_t)space >= SPACES)
		return -HAL_ENOENT;
	__atomic_fetch_or(&s->running, 1ull << hal_cpu_number(), __ATOMIC_SEQ_CST);
	*cr3 = __atomic_load_n(&s->root, __ATOMIC_SEQ_CST);
	if (*cr3 && s->gen == space >> 32)
		return 0;
	hal_native_space_leave(space);
	return -HAL_ENOENT;
}

void hal_native_space_leave(hal_space_t space)
{
	__atomic_fetch_and(&spaces[(uint32_t)space % SPACES].running, ~(1ull << hal_cpu_number()), __ATOMIC_SEQ_CST);
}

uint64_t hal_va_to_pa(const void *va)
{
	uint64_t v = (uintptr_t)va, pa;
	unsigned int prot;

	if (hal_query(v, &pa, &prot))
		hal_panic("hal_va_to_pa: 0x%llx is not mapped", (unsigned long long)v);
	return pa | (v & (HAL_PAGE_SIZE - 1));
}

int hal_mem_discard(uint64_t pa, uint64_t len)
{
	uint64_t *p = hal_pa_to_va(pa);

	if ((pa | len) & (HAL_PAGE_SIZE - 1) || !len)
		return -HAL_EINVAL;
	if (!hal_core_is_memory(pa, len))
		return -HAL_EFAULT;
	for (uint64_t i = 0; i < len / 8; i++)
		p[i] = 0;
	return 0;
}

static void boot_map(uint64_t va, uint64_t pa, uint64_t end, uint64_t bits)
{
	for (; pa < end; va += HAL_PAGE_SIZE, pa += HAL_PAGE_SIZE) {
		uint64_t *pte = walk(&spaces[0], va, 0, true);

		if (!pte)
			hal_panic("no memory for the first page tables");
		*pte = pa | bits;
	}
}

volatile void *hal_native_mmio(uint64_t pa, uint64_t len)
{
	static uint64_t next = NATIVE_MMIO_VA;
	uint64_t va = next, start = pa & ~(HAL_PAGE_SIZE - 1);

	boot_map(va, start, pa + len, PTE_P | PTE_W | PTE_PCD | PTE_AD | PTE_NX);
	next += (pa + len - start + HAL_PAGE_SIZE - 1) & ~(HAL_PAGE_SIZE - 1);
	return (volatile void *)(uintptr_t)(va + (pa - start));
}

/*
 * Take page-table memory from the end of the largest free range start.S has
 * mapped, then build the final tables: image W^X by segment, everything else
 * of memory in the linear map without execute permission.
 */
void hal_native_mmu_init(void)
{
	uint64_t best = 0, best_len = 0, size = 0, top = 0;
	struct hal_mem m;

	for (unsigned int i = 0; hal_memmap(i, &m); i++) {
		uint64_t end = m.pa + m.len;

		if (m.type != HAL_MEM_RESERVED) {
			top = end;
			size += m.len;
		}
		if (end > BOOT_MAPPED)
			end = BOOT_MAPPED;
		if (m.type == HAL_MEM_RAM && m.pa < end && end - m.pa > best_len) {
			best = m.pa;
			best_len = end - m.pa;
		}
	}
	size = (size / 32 + HAL_PAGE_SIZE) & ~(HAL_PAGE_SIZE - 1);
	if (size > best_len / 2)
		hal_panic("not enough memory for page tables");
	pool_end = best + best_len;
	pool_next = pool_end - size;
	hal_core_memmap_add(pool_next, size, HAL_MEM_IMAGE);

	spaces[0].root = table_alloc();
	for (uint64_t pa = 0; pa < top; pa += LARGE_SIZE) {
		uint64_t *pd = walk(&spaces[0], HAL_LINEAR_VA + pa, 1, true);

		if (!pd)
			hal_panic("no memory for the linear map");
		*pd = pa | PTE_P | PTE_W | PTE_AD | PTE_LARGE | PTE_NX;
	}
	boot_map((uintptr_t)hal_image_start, (uintptr_t)hal_image_start, (uintptr_t)hal_rodata_start, PTE_P | PTE_AD);
	boot_map((uintptr_t)hal_rodata_start, (uintptr_t)hal_rodata_start, (uintptr_t)hal_data_start,
		 PTE_P | PTE_AD | PTE_NX);
	boot_map((uintptr_t)hal_data_start, (uintptr_t)hal_data_start, (uintptr_t)hal_image_end,
		 PTE_P | PTE_W | PTE_AD | PTE_NX);
	*walk(&spaces[0], (uintptr_t)hal_native_guard, 0, true) = 0;
	boot_map((uintptr_t)hal_tramp_text_start + NATIVE_ALIAS, (uintptr_t)hal_tramp_text_start,
		 (uintptr_t)hal_tramp_text_end, PTE_P | PTE_AD);
	boot_map((uintptr_t)hal_tramp_data_start + NATIVE_ALIAS, (uintptr_t)hal_tramp_data_start,
		 (uintptr_t)hal_tramp_data_end, PTE_P | PTE_W | PTE_AD | PTE_NX);
	native_cr3_set(spaces[0].root);
}
