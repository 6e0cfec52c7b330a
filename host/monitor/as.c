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
 *
 * A whole tree is given up in one step (as_drop): the tables below its root go on
 * lists of dead ones, by level, with all that is in them, and whoever needs a table
 * later takes one from there, empties it and puts what it referred to on the list
 * below. That bounds both by one table's entries.
 *
 * The caller holds the address space's lock; the arena has one of its own.
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

static void put_on(struct mon *m, uint32_t *list, uint64_t table)
{
	m->table_live[table] = *list;
	*list = (uint32_t)table + 1;
}

static uint64_t take_from(struct mon *m, uint32_t *list)
{
	const uint64_t i = *list - 1;

	*list = m->table_live[i];
	return i;
}

/* Empty a dead table of `level`: what it refers to is dead, too. Arena locked. */
static void bury(struct mon *m, uint64_t table, unsigned int level)
{
	uint64_t *t = (uint64_t *)(m->arena + table * KEEL_PAGE_SIZE);

	for (unsigned int i = 0; i < ENTRIES; i++) {
		if (level && t[i] && !(t[i] & PTE_PS))
			put_on(m, &m->table_dead[level - 1], table_index(m, table_at(m, t[i])));
		t[i] = 0;
	}
}

/* A free table is zero: every entry was cleared before it was freed. */
static uint64_t *table_new(struct mon *m, struct as *as)
{
	uint64_t i = m->arena_pages;
	unsigned int level = 0;

	mon_lock(&m->arena_lock);
	while (level < LEVELS - 1 && !m->table_dead[level])
		level++;
	if (m->table_free) {
		i = take_from(m, &m->table_free);
	} else if (level < LEVELS - 1) {
		i = take_from(m, &m->table_dead[level]);
		bury(m, i, level);
	} else if (m->table_used < m->arena_pages) {
		i = m->table_used++;
	}
	if (i < m->arena_pages) {
		m->table_live[i] = 0;
		m->tables++;
		as->tables++;
	}
	mon_unlock(&m->arena_lock);
	return i < m->arena_pages ? (uint64_t *)(m->arena + i * KEEL_PAGE_SIZE) : NULL;
}

static void table_put(struct mon *m, struct as *as, uint64_t *table)
{
	mon_lock(&m->arena_lock);
	put_on(m, m->tables_walked ? &as->table_limbo : &m->table_free, table_index(m, table));
	m->tables--;
	as->tables--;
	mon_unlock(&m->arena_lock);
}

/*
 * Where a processor walks the tree it may remember the way to a table for a while after
 * it was taken out. As another one it would be walked for the old addresses, and what is
 * in it taken for leaves, which user code could then write. So it waits in limbo.
 */
void as_settled(struct mon *m, struct as *as)
{
	uint64_t last = as->table_limbo - 1;

	if (!as->table_limbo)
		return;
	/* In their order: then a table comes back at the level it was on, which KVM's shadow paging remembers. */
	while (m->table_live[last])
		last = m->table_live[last] - 1;
	mon_lock(&m->arena_lock);
	m->table_live[last] = m->table_free;
	m->table_free = as->table_limbo;
	mon_unlock(&m->arena_lock);
	as->table_limbo = 0;
}

void as_drop(struct mon *m, struct as *as)
{
	as_settled(m, as);
	mon_lock(&m->arena_lock);
	for (unsigned int i = 0; i < KEEL_VA_END >> 39; i++)
		if (as->root[i])
			put_on(m, &m->table_dead[LEVELS - 2], table_index(m, table_at(m, as->root[i])));
	for (unsigned int i = 0; i < ENTRIES; i++)
		as->root[i] = 0;
	put_on(m, &m->table_free, table_index(m, as->root));
	m->tables -= as->tables;
	mon_unlock(&m->arena_lock);
	as->root = NULL;
	as->tables = 0;
	as->pages = 0;
	as->tracked = 0;
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

/* Give back a table of small pages, none of them under HARVEST, that a large one took the place of. */
static void clear_small(struct mon *m, struct as *as, uint64_t *t)
{
	for (unsigned int i = 0; i < ENTRIES; i++)
		if (t[i]) {
			as->pages--;
			set(m, t, i, 0);
		}
	table_put(m, as, t);
}

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
			n = table_new(m, as);
			if (!n)
				return NULL;
			if (e) {
				for (unsigned int k = 0; k < ENTRIES; k++)
					n[k] = (e & ~PTE_PS) + k * KEEL_PAGE_SIZE;
				m->table_live[table_index(m, n)] = ENTRIES;
			}
			set(m, t, i, (m->arena_base + ((uint8_t *)n - m->arena)) | TABLE_FLAGS | pte_user(as));
			e = t[i];
		}
		t = table_at(m, e);
	}
	p->t[level] = t;
	return t;
}

/* Free the tables on the path that hold nothing any more; the root stays. */
static void prune(struct mon *m, struct as *as, struct path *p, uint64_t va, unsigned int level)
{
	for (unsigned int l = level; l < LEVELS - 1; l++) {
		if (m->table_live[table_index(m, p->t[l])])
			return;
		set(m, p->t[l + 1], slot(va, l + 1), 0);
		table_put(m, as, p->t[l]);
	}
}

bool as_init(struct mon *m, struct as *as)
{
	as->tables = 0;
	as->pages = 0;
	as->tracked = 0;
	as->root = table_new(m, as);
	return as->root;
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
			as->pages += e & PTE_PS ? 0 : LARGE_PAGES;
			/* In one step: tables that were given back meanwhile might not be had again. */
			set(m, t, slot(va, 1), (gpa + m->ram_base) | pte_flags | PTE_PS);
			if (e && !(e & PTE_PS))
				clear_small(m, as, table_at(m, e));
		} else {
			t = walk(m, as, va, 0, true, &p);
			if (!t)
				break;
			for (uint64_t i = 0; i < n; i++) {
				uint64_t old = t[slot(va, 0) + i];

				*replaced |= !!old;
				as->pages += !old;
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
			prune(m, as, &p, va, l);
		} else if (l && n == LARGE_PAGES) {
			set(m, t, slot(va, l), 0);
			*present += n;
			as->pages -= n;
			prune(m, as, &p, va, l);
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
				as->pages--;
				*written += (t[k] & (PTE_TRACK | PTE_D)) == (PTE_TRACK | PTE_D);
				as->tracked -= count_tracked(t[k]);
				set(m, t, k, 0);
			}
			prune(m, as, &p, va, 0);
		}
		done += n;
		va += n * KEEL_PAGE_SIZE;
	}
	return done;
}

/* A processor that walks the tree may set D of a writable page at any time, and where it is tracked that counts. */
static void change_entry(struct mon *m, uint64_t *entry, uint64_t keep, uint64_t put)
{
	uint64_t old = *entry;

	if (!(m->tables_walked && old & PTE_TRACK))
		*entry = (old & keep) | put;
	else
		while (!__atomic_compare_exchange_n(entry, &old, (old & keep) | put, false, __ATOMIC_SEQ_CST,
						    __ATOMIC_SEQ_CST))
			;
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
				change_entry(m, &t[k], keep, put);
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

uint64_t as_take_dirty(struct mon *m, struct as *as, uint64_t va, uint64_t pages, uint8_t *bits, uint64_t at)
{
	uint64_t had = 0, n;
	struct path p;

	for (; pages; pages -= n, va += n * KEEL_PAGE_SIZE, at += n) {
		uint64_t *t = walk(m, as, va, 0, false, &p);

		n = chunk(va, pages);
		for (uint64_t i = 0; t && i < n; i++) {
			uint64_t *e = &t[slot(va, 0) + i];

			if ((*e & (PTE_TRACK | PTE_D)) != (PTE_TRACK | PTE_D))
				continue;
			__atomic_and_fetch(e, ~PTE_D, __ATOMIC_SEQ_CST);
			bits[(at + i) / 8] |= 1 << (at + i) % 8;
			had++;
		}
	}
	return had;
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

bool as_copy(struct mon *m, struct as *to, struct as *from, uint64_t *va, uint64_t max)
{
	bool replaced;
	uint64_t pte, n;

	while (max && (n = as_run(m, from, va, KEEL_VA_END, max, &pte))) {
		const uint64_t flags = (pte & ~(PTE_ADDR | PTE_TRACK)) | PTE_D | pte_user(to);
		const uint64_t done = as_map(m, to, *va, pte & PTE_ADDR, n, flags, &replaced);

		*va += done * KEEL_PAGE_SIZE;
		if (done < n)
			return false;
		max -= n;
	}
	if (max)
		*va = KEEL_VA_END;
	return true;
}
