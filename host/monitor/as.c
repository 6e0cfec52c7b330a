/* SPDX-License-Identifier: MIT */
/*
 * The address-space tree: four levels of 512 entries in x86-64 format. It is the
 * truth about what the guest mapped; VMAs on ring3 and the TLB on kvm, where the
 * processor walks it, are caches of it. 2 MiB leaves hold large aligned runs.
 * Entries hold a GPA plus ram_base, or a place in the arena plus arena_base; what
 * comes out of the functions here is plain GPAs.
 *
 * Tables come from an arena with a fixed number of pages: the partition's
 * quota, and the only source of NOMEM. A table is freed when its last entry
 * goes, so what an address space costs depends on what is mapped in it now.
 */
#include "monitor.h"
#include "bugs.h"

#define LEVELS 4
#define ENTRIES 512
#define LARGE_PAGES 512
#define TABLE_FLAGS (PTE_P | PTE_W | PTE_A)

static uint64_t *table_at(struct mon *m, uint64_t entry)
{
	return (uint64_t *)(m->arena + ((entry & PTE_ADDR) - m->arena_base));
}

static uint64_t table_index(struct mon *m, const uint64_t *table)
{
	return ((const uint8_t *)table - m->arena) / KEEL_PAGE_SIZE;
}

static uint64_t *table_new(struct mon *m)
{
	uint64_t i;

	if (m->table_free) {
		i = m->table_free - 1;
		m->table_free = m->table_live[i];
	} else {
		if (m->table_used >= m->arena_pages)
			return NULL;
		i = m->table_used++;
	}
	m->table_live[i] = 0;
	m->tables++;
	/* A free table is zero: every entry was cleared before it was freed. */
	return (uint64_t *)(m->arena + i * KEEL_PAGE_SIZE);
}

static void table_put(struct mon *m, uint64_t *table)
{
	uint64_t i = table_index(m, table);

	m->table_live[i] = m->table_free;
	m->table_free = i + 1;
	m->tables--;
	m->tables_put++;
}

static void set(struct mon *m, uint64_t *table, unsigned int i, uint64_t entry)
{
	uint32_t *live = &m->table_live[table_index(m, table)];

	*live += !!entry - !!table[i];
	table[i] = entry;
}

static unsigned int slot(uint64_t va, unsigned int level)
{
	return va >> (KEEL_PAGE_SHIFT + 9 * level) & (ENTRIES - 1);
}

/* Tables from the root (path[3]) down to the one that holds 4 KiB leaves (path[0]). */
struct path {
	uint64_t *t[LEVELS];
};

/*
 * Walk to `level`, which is 0 or 1. NULL when a table is missing and `make` is false, or
 * cannot be had. A large leaf on the way to level 0 is split when `make` is set.
 */
static uint64_t *walk(struct mon *m, struct as *as, uint64_t va, unsigned int level, bool make, struct path *p)
{
	uint64_t *t = as->root;

	for (unsigned int l = LEVELS - 1; l > level; l--) {
		unsigned int i = slot(va, l);
		uint64_t e = t[i];

		p->t[l] = t;
		if (!e || e & PTE_PS) {
			uint64_t *n;

			if (!make)
				return NULL;
			n = table_new(m);
			if (!n)
				return NULL;
			if (e) {
				for (unsigned int k = 0; k < ENTRIES; k++)
					n[k] = (e & ~PTE_PS) + k * KEEL_PAGE_SIZE;
				m->table_live[table_index(m, n)] = ENTRIES;
			}
			set(m, t, i, (m->arena_base + ((uint8_t *)n - m->arena)) | TABLE_FLAGS);
			e = t[i];
		}
		t = table_at(m, e);
	}
	p->t[level] = t;
	return t;
}

/* Free the tables on the path that hold nothing any more; the root stays. */
static void prune(struct mon *m, struct path *p, uint64_t va, unsigned int level)
{
	for (unsigned int l = level; l < LEVELS - 1; l++) {
		if (m->table_live[table_index(m, p->t[l])])
			return;
		set(m, p->t[l + 1], slot(va, l + 1), 0);
		table_put(m, p->t[l]);
	}
}

void as_init(struct mon *m, struct as *as)
{
	as->root = table_new(m);
	as->tracked = 0;
}

uint64_t as_lookup(struct mon *m, struct as *as, uint64_t va)
{
	uint64_t *t = as->root;

	for (unsigned int l = LEVELS - 1; l; l--) {
		uint64_t e = t[slot(va, l)];

		if (!e)
			return 0;
		if (e & PTE_PS)
			return (e & ~PTE_PS) - m->ram_base + (va & (LARGE_PAGES * KEEL_PAGE_SIZE - KEEL_PAGE_SIZE));
		t = table_at(m, e);
	}
	return t[slot(va, 0)] ? t[slot(va, 0)] - m->ram_base : 0;
}

static uint64_t chunk(uint64_t va, uint64_t pages)
{
	uint64_t left = LARGE_PAGES - (va >> KEEL_PAGE_SHIFT) % LARGE_PAGES;

	return left < pages ? left : pages;
}

static uint64_t count_tracked(uint64_t pte)
{
	return pte & PTE_TRACK ? 1 : 0;
}

uint64_t as_map(struct mon *m, struct as *as, uint64_t va, uint64_t gpa, uint64_t pages, uint64_t pte_flags,
		bool *replaced)
{
	uint64_t done = 0;
	struct path p;

	*replaced = false;

	while (done < pages) {
		uint64_t n = chunk(va, pages - done);
		uint64_t *t;

		/* HARVEST works on small leaves only. */
		if (n == LARGE_PAGES && !(gpa % (LARGE_PAGES * KEEL_PAGE_SIZE)) && !as->tracked) {
			uint64_t e;

			t = walk(m, as, va, 1, true, &p);
			if (!t)
				break;
			e = t[slot(va, 1)];
			*replaced |= !!e;
			if (e && !(e & PTE_PS)) {
				/* Clear the small pages first: their table must go back as zero. */
				uint64_t unused = 0;

				as_unmap(m, as, va, LARGE_PAGES, &unused, &unused);
				t = walk(m, as, va, 1, true, &p);
				if (!t)
					break;
			}
			set(m, t, slot(va, 1), (gpa + m->ram_base) | pte_flags | PTE_PS);
		} else {
			t = walk(m, as, va, 0, true, &p);
			if (!t)
				break;
			for (uint64_t i = 0; i < n; i++) {
				uint64_t old = t[slot(va, 0) + i];

				*replaced |= !!old;
				as->tracked -= count_tracked(old);
				/* A page remapped under HARVEST counts as written. */
				set(m, t, slot(va, 0) + i,
				    (gpa + m->ram_base + i * KEEL_PAGE_SIZE) | pte_flags |
					    (old & PTE_TRACK ? PTE_TRACK | PTE_D : 0));
				as->tracked += count_tracked(old);
			}
		}
		done += n;
		va += n * KEEL_PAGE_SIZE;
		gpa += n * KEEL_PAGE_SIZE;
	}
	if (done < pages) {
		/* walk() may have made tables for nothing. */
		uint64_t unused = 0;

		as_unmap(m, as, va, 1, &unused, &unused);
	}
	return done;
}

uint64_t as_unmap(struct mon *m, struct as *as, uint64_t va, uint64_t pages, uint64_t *present, uint64_t *written)
{
	uint64_t done = 0;
	struct path p;

	while (done < pages) {
		uint64_t n = chunk(va, pages - done);
		unsigned int l = LEVELS - 1;
		uint64_t *t = as->root, e = 0;

		for (;; l--) {
			p.t[l] = t;
			e = t[slot(va, l)];
			if (!l || !e || e & PTE_PS)
				break;
			t = table_at(m, e);
		}
		if (l && !e) {
			/* Nothing in all this entry spans: skip it, and drop tables that hold nothing. */
			uint64_t span = (uint64_t)LARGE_PAGES << 9 * (l - 1);
			uint64_t left = span - (va >> KEEL_PAGE_SHIFT) % span;

			n = left < pages - done ? left : pages - done;
			prune(m, &p, va, l);
		} else if (l && n == LARGE_PAGES) {
			set(m, t, slot(va, l), 0);
			*present += n;
			prune(m, &p, va, l);
		} else {
			if (l) {
				t = walk(m, as, va, 0, true, &p);
				if (!t)
					return done;
			}
			for (uint64_t i = 0; i < n; i++) {
				unsigned int k = slot(va, 0) + i;

				if (!t[k])
					continue;
				++*present;
				*written += (t[k] & (PTE_TRACK | PTE_D)) == (PTE_TRACK | PTE_D);
				as->tracked -= count_tracked(t[k]);
				set(m, t, k, 0);
			}
			prune(m, &p, va, 0);
		}
		done += n;
		va += n * KEEL_PAGE_SIZE;
	}
	return done;
}

static uint64_t change(struct mon *m, struct as *as, uint64_t va, uint64_t pages, uint64_t keep, uint64_t put,
		       bool split)
{
	uint64_t done = 0;
	struct path p;

	while (done < pages) {
		uint64_t n = chunk(va, pages - done);
		uint64_t *t = walk(m, as, va, 1, false, &p);
		uint64_t e = t ? t[slot(va, 1)] : 0;

		if (!e)
			return done;
		if (e & PTE_PS && n == LARGE_PAGES && !split) {
			t[slot(va, 1)] = (e & keep) | put;
		} else {
			t = walk(m, as, va, 0, true, &p);
			if (!t)
				return done;
			for (uint64_t i = 0; i < n; i++) {
				unsigned int k = slot(va, 0) + i;

				if (!t[k])
					return done + i;
				as->tracked -= count_tracked(t[k]);
				t[k] = (t[k] & keep) | put;
				as->tracked += count_tracked(t[k]);
			}
		}
		done += n;
		va += n * KEEL_PAGE_SIZE;
	}
	return done;
}

uint64_t as_protect(struct mon *m, struct as *as, uint64_t va, uint64_t pages, uint64_t pte_flags)
{
	return change(m, as, va, pages, PTE_ADDR | PTE_PS | PTE_TRACK | PTE_D, pte_flags, false);
}

uint64_t as_flags(struct mon *m, struct as *as, uint64_t va, uint64_t pages, uint64_t set_bits, uint64_t clear)
{
	return change(m, as, va, pages, ~clear, set_bits, true);
}

/* as_run(), but for what entries hold. */
static uint64_t run(struct mon *m, struct as *as, uint64_t *va, uint64_t end, uint64_t max, uint64_t *pte)
{
	uint64_t at = *va, n = 0;

	while (at < end && n < max) {
		uint64_t *t = as->root, e = 0, step;
		unsigned int l = LEVELS - 1, k;

		for (;; l--) {
			e = t[slot(at, l)];
			if (!l || !e || e & PTE_PS)
				break;
			t = table_at(m, e);
		}
		if (!l) {
			/* Along this table, without walking down again for each page. */
			for (k = slot(at, 0); k < ENTRIES && at < end && n < max; k++, at += KEEL_PAGE_SIZE) {
				e = t[k];
				if (!n && !e)
					continue;
				if (n && e != *pte + n * KEEL_PAGE_SIZE)
					return n;
				if (!n++) {
					*va = at;
					*pte = e;
				}
			}
			continue;
		}
		step = (uint64_t)LARGE_PAGES << 9 * (l - 1);
		if (!e) {
			if (n)
				break;
			at = (at / KEEL_PAGE_SIZE / step + 1) * step * KEEL_PAGE_SIZE;
			continue;
		}
		e = (e & ~PTE_PS) + (at & (step * KEEL_PAGE_SIZE - KEEL_PAGE_SIZE));
		if (!n) {
			*va = at;
			*pte = e;
		} else if (e != *pte + n * KEEL_PAGE_SIZE) {
			break;
		}
		/* The rest of a large leaf continues by construction. */
		step -= (at / KEEL_PAGE_SIZE) % step;
		n += step;
		at += step * KEEL_PAGE_SIZE;
	}
	if (n && *va + n * KEEL_PAGE_SIZE > end)
		n = (end - *va) / KEEL_PAGE_SIZE;
	return n < max ? n : max;
}

uint64_t as_run(struct mon *m, struct as *as, uint64_t *va, uint64_t end, uint64_t max, uint64_t *pte)
{
	uint64_t n = run(m, as, va, end, max, pte);

	if (n)
		*pte -= m->ram_base;
	return n;
}
