// SPDX-License-Identifier: MIT
/*
 * Page tables on bare hardware. All of them are reached through the linear
 * map. Updates are written at once; the TLB is brought up to date at the end
 * of each operation, or of the lazy section around it.
 */
#include "native.h"

#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_PCD 0x10ull
#define PTE_AD 0x60ull
#define PTE_D 0x40ull
#define PTE_LARGE 0x80ull
#define PTE_NX (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull
#define LARGE_SIZE 0x200000ull
#define BOOT_MAPPED (1ull << 30) /* what start.S maps */

static uint64_t root;		     /* physical address of the top table */
static uint64_t pool_next, pool_end; /* never used tables */
static uint64_t free_tables;	     /* list through the first entry */
static uint64_t dead_tables;	     /* unlinked, free after the next flush */

#define FLUSH_MAX 32 /* beyond this, forget everything: cheaper than as many invlpg */
static struct {
	uint64_t va[FLUSH_MAX];
	unsigned int count;
	bool all;
} flush;
static int lazy_error;

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

static void pte_write(uint64_t *pte, uint64_t va, uint64_t value)
{
	uint64_t old = *pte;

	*(volatile uint64_t *)pte = value;
	COUNT(pte_write);
	/* Nothing is cached for an entry that was not present. */
	if (!(old & PTE_P) || flush.all)
		return;
	if (flush.count == FLUSH_MAX)
		flush.all = true;
	else
		flush.va[flush.count++] = va;
}

static void flush_now(void)
{
	if (flush.all) {
		native_cr3_set(native_cr3());
		COUNT(cr3);
	} else {
		for (unsigned int i = 0; i < flush.count; i++) {
			native_invlpg(flush.va[i]);
			COUNT(invlpg);
		}
	}
	flush.all = false;
	flush.count = 0;
	while (dead_tables) {
		uint64_t pa = dead_tables, *t = table_at(pa);

		dead_tables = t[0];
		t[0] = free_tables;
		free_tables = pa;
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
	flush.all = true;
	return true;
}

/*
 * The entry for va at a level (0 = page, 1 = 2 MiB). Without `alloc`, NULL when
 * there is no table; with it, NULL when memory for one ran out.
 */
static uint64_t *walk(uint64_t va, int to_level, bool alloc)
{
	uint64_t *t = table_at(root);

	for (int level = 3; level > to_level; level--) {
		uint64_t *entry = &t[index_at(va, level)];

		if (!(*entry & PTE_P)) {
			uint64_t pa = alloc ? table_alloc() : 0;

			if (!pa)
				return NULL;
			*entry = pa | PTE_P | PTE_W;
		} else if (*entry & PTE_LARGE && !split(entry)) {
			return NULL;
		}
		t = table_at(*entry);
	}
	return &t[index_at(va, to_level)];
}

static uint64_t pte_bits(unsigned int prot)
{
	return PTE_P | PTE_AD | (prot & HAL_PROT_W ? PTE_W : 0) | (prot & HAL_PROT_X ? 0 : PTE_NX);
}

/* Common end of the operations: flush now or remember for later. */
static int finish(int err)
{
	if (!hal_core_lazy()) {
		flush_now();
		return err;
	}
	if (!lazy_error)
		lazy_error = err;
	return 0;
}

int hal_flavour_map(uint64_t va, uint64_t pa, uint64_t len, unsigned int prot, unsigned int flags)
{
	bool irq = hal_irq_save();
	int err = hal_core_is_memory(pa, len) ? 0 : -HAL_EFAULT;
	uint64_t *pte = NULL;

	(void)flags; /* memory is always there */
	for (uint64_t off = 0; !err && off < len; off += HAL_PAGE_SIZE, pte++) {
		if (!pte || !index_at(va + off, 0))
			pte = walk(va + off, 0, true);
		if (!pte)
			err = -HAL_ENOMEM;
		else
			pte_write(pte, va + off, (pa + off) | pte_bits(prot));
		if (err)
			break;
	}
	err = finish(err);
	hal_irq_restore(irq);
	return err;
}

int hal_flavour_unmap(uint64_t va, uint64_t len)
{
	bool irq = hal_irq_save();
	uint64_t end = va + len;
	int err = 0;

	while (va < end) {
		uint64_t next = (va + LARGE_SIZE) & ~(LARGE_SIZE - 1);
		bool whole = !(va & (LARGE_SIZE - 1)) && next <= end;
		uint64_t *entry = walk(va, 1, false);

		if (!entry || !(*entry & PTE_P)) {
			va = next;
			continue;
		}
		if (whole) {
			/* A whole table goes: nothing below it needs to be looked at. */
			if (!(*entry & PTE_LARGE)) {
				uint64_t pa = *entry & PTE_ADDR;

				table_at(pa)[0] = dead_tables;
				dead_tables = pa;
			}
			pte_write(entry, va, 0);
			flush.all = true;
			va = next;
			continue;
		}
		for (; va < end && va < next; va += HAL_PAGE_SIZE) {
			uint64_t *pte = walk(va, 0, false);

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
	err = finish(err);
	hal_irq_restore(irq);
	return err;
}

int hal_flavour_protect(uint64_t va, uint64_t len, unsigned int prot)
{
	bool irq = hal_irq_save();
	int err = 0;

	for (uint64_t off = 0; off < len; off += HAL_PAGE_SIZE) {
		uint64_t *pte = walk(va + off, 0, false);

		if (!pte || !(*pte & PTE_P)) {
			err = -HAL_ENOENT;
			break;
		}
		pte_write(pte, va + off, (*pte & PTE_ADDR) | pte_bits(prot));
	}
	err = finish(err);
	hal_irq_restore(irq);
	return err;
}

/* The processor sets the dirty bit on the first write; new entries start with it set. */
int hal_flavour_dirty(enum hal_dirty_op op, uint64_t va, uint64_t len, uint64_t *bitmap)
{
	bool irq = hal_irq_save();

	flush_now(); /* what a lazy section has put off, so that all errors here are ours */
	for (uint64_t i = 0; op != HAL_DIRTY_STOP && i < len / HAL_PAGE_SIZE; i++) {
		uint64_t *pte = walk(va + i * HAL_PAGE_SIZE, 0, false);
		bool dirty = pte && *pte & PTE_P && *pte & PTE_D;

		if (op == HAL_DIRTY_COLLECT && i % 64 == 0)
			bitmap[i / 64] = 0;
		if (!dirty)
			continue;
		pte_write(pte, va + i * HAL_PAGE_SIZE, *pte & ~PTE_D);
		if (op == HAL_DIRTY_COLLECT)
			bitmap[i / 64] |= 1ull << i % 64;
	}
	flush_now();
	hal_irq_restore(irq);
	return 0;
}

int hal_query(uint64_t va, uint64_t *pa, unsigned int *prot)
{
	uint64_t *t = table_at(root);

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

int hal_lazy_flush(void)
{
	bool irq = hal_irq_save();
	int err = lazy_error;

	flush_now();
	lazy_error = 0;
	hal_irq_restore(irq);
	return err;
}

void hal_tlb_flush(uint64_t va, uint64_t len)
{
	bool irq = hal_irq_save();

	if (!len || len > FLUSH_MAX * HAL_PAGE_SIZE) {
		flush.all = true;
		flush_now();
	} else {
		for (uint64_t end = va + len; va < end; va += HAL_PAGE_SIZE) {
			native_invlpg(va);
			COUNT(invlpg);
		}
	}
	hal_irq_restore(irq);
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
		uint64_t *pte = walk(va, 0, true);

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

	root = table_alloc();
	for (uint64_t pa = 0; pa < top; pa += LARGE_SIZE) {
		uint64_t *pd = walk(HAL_LINEAR_VA + pa, 1, true);

		if (!pd)
			hal_panic("no memory for the linear map");
		*pd = pa | PTE_P | PTE_W | PTE_AD | PTE_LARGE | PTE_NX;
	}
	boot_map((uintptr_t)hal_image_start, (uintptr_t)hal_image_start, (uintptr_t)hal_rodata_start, PTE_P | PTE_AD);
	boot_map((uintptr_t)hal_rodata_start, (uintptr_t)hal_rodata_start, (uintptr_t)hal_data_start,
		 PTE_P | PTE_AD | PTE_NX);
	boot_map((uintptr_t)hal_data_start, (uintptr_t)hal_data_start, (uintptr_t)hal_image_end,
		 PTE_P | PTE_W | PTE_AD | PTE_NX);
	*walk((uintptr_t)hal_native_guard, 0, true) = 0;
	native_cr3_set(root);
}
