/* SPDX-License-Identifier: MIT */
/*
 * MMU, HARVEST and MEMORY. A batch updates the tree record by record and lets
 * the cache follow in as few operations as the records allow: what joins up
 * is applied once (struct pend), and always before the call returns.
 */
#include "monitor.h"
#include "bugs.h"

#define FAULT_AROUND 16		     /* pages, aligned */
#define MAX_SPAN (KEEL_U64(1) << 31) /* bytes one cache operation may cover */

/* A cache operation not yet carried out. op 0 = none. */
struct pend {
	struct mvcpu *v;
	struct as *as;
	uint64_t va, pages, gpa;
	uint32_t op, prot;
	unsigned int flags; /* MB_* */
};

static void pend_flush(struct pend *p)
{
	switch (p->op) {
	case KEEL_MMU_MAP:
		mb_map(p->v, p->as, p->va, p->pages, p->gpa, p->prot, p->flags);
		break;
	case KEEL_MMU_UNMAP:
		if (!KEEL_BUG(8) && !(KEEL_BUG(39) && p->as->index))
			mb_unmap(p->v, p->as, p->va, p->pages);
		break;
	case KEEL_MMU_PROTECT:
		if (!KEEL_BUG(9) && !(KEEL_BUG(40) && p->as->index))
			mb_protect(p->v, p->as, p->va, p->pages, p->prot);
		break;
	}
	p->op = 0;
}

/* The end of a batch: what it took is out of everyone's reach. */
static void settle(struct mvcpu *v, struct as *as)
{
	mb_settle(v, as);
	as_settled(v->mon, as);
}

static void pend_add(struct pend *p, uint32_t op, uint64_t va, uint64_t pages, uint64_t gpa, uint32_t prot,
		     unsigned int flags)
{
	uint64_t end = p->va + p->pages * KEEL_PAGE_SIZE;

	if (p->op == op && p->prot == prot && !((p->flags ^ flags) & MB_POPULATE)) {
		if (va == end && (op != KEEL_MMU_MAP || gpa == p->gpa + p->pages * KEEL_PAGE_SIZE)) {
			p->pages += pages;
			p->flags |= flags;
			return;
		}
		/* Unmapping across a gap in which nothing is mapped does no harm and saves an operation. */
		if (op == KEEL_MMU_UNMAP && va > end && va - p->va < MAX_SPAN) {
			uint64_t gap = end, pte;

			if (!as_run(p->v->mon, p->as, &gap, va, 1, &pte)) {
				p->pages = (va - p->va) / KEEL_PAGE_SIZE + pages;
				return;
			}
		}
	}
	pend_flush(p);
	*p = (struct pend){ p->v, p->as, va, pages, gpa, op, prot, flags };
}

/* Bring the cache's protection of a range in line with the tree, run by run. */
static void pend_reprotect(struct pend *p, uint64_t va, uint64_t pages)
{
	struct mon *m = p->v->mon;
	uint64_t end = va + pages * KEEL_PAGE_SIZE, pte, n;

	while ((n = as_run(m, p->as, &va, end, pages, &pte))) {
		pend_add(p, KEEL_MMU_PROTECT, va, n, 0, pte_cache_prot(pte), 0);
		va += n * KEEL_PAGE_SIZE;
	}
}

static uint64_t prot_to_pte(const struct as *as, uint32_t prot)
{
	/* The processor need not write what nobody asks for; HARVEST clears D. */
	return PTE_P | PTE_A | PTE_D | pte_user(as) | (prot & KEEL_PROT_W ? PTE_W : 0) |
	       (prot & KEEL_PROT_X ? 0 : PTE_NX);
}

static bool guest_range(uint64_t va, uint64_t len)
{
	return va >= KEEL_VA_MIN && va < KEEL_VA_END && len <= KEEL_VA_END - va;
}

static bool abi_range(const struct mon *m, uint64_t gpa, uint64_t len)
{
	return gpa >= m->abi_gpa && len <= m->abi_size && gpa - m->abi_gpa <= m->abi_size - len;
}

/* KEEL_OK or the status a malformed record gets; fields in declaration order, then ranges. */
static int64_t check(const struct mon *m, const struct keel_mmu_record *r)
{
	const bool map = r->op == KEEL_MMU_MAP, unmap = r->op == KEEL_MMU_UNMAP;

	if (!map && !unmap && r->op != KEEL_MMU_PROTECT)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(1));
	if ((r->prot & ~KEEL_PROT_ALL && !KEEL_BUG(10)) || unmap != !r->prot)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(2));
	if (r->flags & ~(map ? KEEL_MMU_FLAGS_ALL : 0))
		return KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_FIELD(3),
				       __builtin_ctz(r->flags & ~(map ? KEEL_MMU_FLAGS_ALL : 0)));
	if (r->va % KEEL_PAGE_SIZE)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(4));
	if (map ? r->gpa % KEEL_PAGE_SIZE : r->gpa)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(5));
	if (!r->len || r->len % KEEL_PAGE_SIZE)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(6));
	if (!guest_range(r->va, r->len))
		return KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_FIELD(4));
	if (map && !mon_range_ok(m, r->gpa, r->len) &&
	    !(abi_range(m, r->gpa, r->len) && (r->prot == KEEL_PROT_R || KEEL_BUG(11))))
		return KEEL_STATUS(KEEL_E_FAULT, KEEL_AT_FIELD(5));
	return KEEL_OK;
}

/* Pages from va on before the first ABI page: those may be had read-only and no other way (KEEL-MMU-20). */
static uint64_t pages_of_ram(struct mon *m, struct as *as, uint64_t va, uint64_t pages)
{
	uint64_t at = va, end = va + pages * KEEL_PAGE_SIZE, pte, n;

	for (; (n = as_run(m, as, &at, end, pages, &pte)); at += n * KEEL_PAGE_SIZE)
		if ((pte & PTE_ADDR) >= m->ram_size)
			return (at - va) / KEEL_PAGE_SIZE;
	return pages;
}

/* Carry out at most `budget` pages of a checked record; *done says how many were. */
static int64_t apply(struct pend *p, const struct keel_mmu_record *r, uint64_t budget, uint64_t *done)
{
	struct mon *m = p->v->mon;
	struct as *as = p->as;
	uint64_t pages = r->len / KEEL_PAGE_SIZE, present = 0, written = 0, allowed;
	bool replaced;

	if (pages > budget)
		pages = budget;
	switch (r->op) {
	case KEEL_MMU_MAP:
		*done = as_map(m, as, r->va, r->gpa, pages, prot_to_pte(as, r->prot), &replaced);
		if (*done)
			pend_add(p, KEEL_MMU_MAP, r->va, *done, r->gpa, r->prot | KEEL_PROT_R,
				 (r->flags & KEEL_MMU_POPULATE ? MB_POPULATE : 0) | (replaced ? MB_REPLACED : 0));
		return *done < pages ? KEEL_STATUS(KEEL_E_NOMEM, 0) : KEEL_OK;
	case KEEL_MMU_UNMAP:
		*done = as_unmap(m, as, r->va, pages, &present, &written);
		if (present)
			pend_add(p, KEEL_MMU_UNMAP, r->va, *done, 0, 0, 0);
		return *done < pages ? KEEL_STATUS(KEEL_E_NOMEM, 0) : KEEL_OK;
	default:
		allowed = r->prot == KEEL_PROT_R || KEEL_BUG(11) ? pages : pages_of_ram(m, as, r->va, pages);
		*done = as_protect(m, as, r->va, allowed, prot_to_pte(as, r->prot) & ~PTE_D);
		if (*done)
			pend_reprotect(p, r->va, *done);
		if (*done == pages)
			return KEEL_OK;
		if (*done == allowed)
			return KEEL_STATUS(KEEL_E_FAULT, KEEL_AT_FIELD(2));
		/* A hole, or no table left to split a large leaf with. */
		return as_lookup(m, as, r->va + *done * KEEL_PAGE_SIZE) ? KEEL_STATUS(KEEL_E_NOMEM, 0)
									: KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_FIELD(4));
	}
}

/* The same; when tables run out, those that wait for the space to settle come to use. */
static int64_t apply_all(struct pend *p, const struct keel_mmu_record *r, uint64_t budget, uint64_t *done)
{
	struct keel_mmu_record rest = *r;
	int64_t status = apply(p, r, budget, done);
	uint64_t more;

	if (KEEL_STATUS_CODE(status) != KEEL_E_NOMEM || !p->as->table_limbo)
		return status;
	pend_flush(p);
	settle(p->v, p->as);
	rest.va += *done * KEEL_PAGE_SIZE;
	rest.gpa += *done * KEEL_PAGE_SIZE;
	rest.len -= *done * KEEL_PAGE_SIZE;
	status = apply(p, &rest, budget - *done, &more);
	*done += more;
	return status;
}

/**
 * execute - work off copied records within the work bound
 * @v: the vCPU
 * @as: the address space, locked
 * @rec: records nobody else can change
 * @n: how many
 * @value: set to records done | pages of the next one << 32
 */
static int64_t execute(struct mvcpu *v, struct as *as, const struct keel_mmu_record *rec, uint64_t n, uint64_t *value)
{
	struct pend p = { .v = v, .as = as };
	uint64_t budget = MON_MMU_PAGES, i, part = 0;
	int64_t status = KEEL_OK;

	for (i = 0; i < n && budget; i++) {
		uint64_t done = 0;

		status = check(v->mon, &rec[i]);
		if (status == KEEL_OK)
			status = apply_all(&p, &rec[i], budget, &done);
		budget -= done;
		if (status != KEEL_OK || done < rec[i].len / KEEL_PAGE_SIZE) {
			part = done;
			break;
		}
	}
	pend_flush(&p);
	settle(v, as);
	mon_work(v, MON_CALL_mmu_batch, MON_MMU_PAGES - budget);
	v->mmu_records += i;
	*value = (KEEL_BUG(12) && i && v->mon->frozen ? i - 1 : i) | part << 32;
	return status;
}

mret mon_mmu_batch(struct mvcpu *v, const uint64_t *a)
{
	const uint64_t records = a[1], count = a[2], flags = a[3];
	uint64_t n = count < MON_BATCH ? count : MON_BATCH, value;
	struct as *as;
	int64_t status;

	if (records % 8)
		return MERR(KEEL_E_INVAL, KEEL_AT_ARG(2));
	if (count > MON_BATCH_COUNT)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(3));
	if (flags)
		return MRET(KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_ARG(4), __builtin_ctzll(flags)), 0);
	as = space_get(v, a[0]);
	if (!as)
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	if (!mon_range_ok(v->mon, records, count * sizeof(struct keel_mmu_record))) {
		space_put(v, as);
		return MERR(KEEL_E_FAULT, KEEL_AT_ARG(2));
	}
	mon_copy_in(v->mon, v->copy.mmu, records, n * sizeof(struct keel_mmu_record));
	status = execute(v, as, v->copy.mmu, n, &value);
	space_put(v, as);
	return MRET(status, value);
}

mret mon_mmu_query(struct mvcpu *v, const uint64_t *a)
{
	uint64_t pte = 0;
	struct as *as;

	if (a[1] % KEEL_PAGE_SIZE)
		return MERR(KEEL_E_INVAL, KEEL_AT_ARG(2));
	as = space_get(v, a[0]);
	if (!as)
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	if (guest_range(a[1], KEEL_PAGE_SIZE))
		pte = as_lookup(v->mon, as, a[1]);
	space_put(v, as);
	if (!guest_range(a[1], KEEL_PAGE_SIZE))
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(2));
	if (!pte)
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(2));
	return MRET(KEEL_OK, (pte & PTE_ADDR) | pte_prot(pte));
}

/**
 * mon_boot_map - the initial mappings of AS 0
 * @v: vCPU 0, before its first instruction
 *
 * The records were made by the host from a checked image, so a failure is a
 * quota too small for it.
 */
int64_t mon_boot_map(struct mvcpu *v)
{
	struct mon *m = v->mon;

	for (uint32_t i = 0; i < m->boot_records; i++) {
		struct keel_mmu_record r = m->boot_map[i];

		while (r.len) {
			uint64_t value, bytes;
			int64_t status = execute(v, &m->as0, &r, 1, &value);

			if (status != KEEL_OK)
				return status;
			bytes = KEEL_MMU_DONE_RECORDS(value) ? r.len : KEEL_MMU_DONE_PAGES(value) * KEEL_PAGE_SIZE;
			r.va += bytes;
			r.gpa += bytes;
			r.len -= bytes;
		}
	}
	return KEEL_OK;
}

/* With the space locked. */
static bool fault(struct mvcpu *v, struct as *as, uint64_t va, bool write, bool fetch, uint64_t *error)
{
	struct mon *m = v->mon;
	uint64_t pte = 0, at, end, n;
	uint32_t need = write ? KEEL_PROT_W : fetch ? KEEL_PROT_X : KEEL_PROT_R;

	va &= ~(KEEL_PAGE_SIZE - 1);
	*error = (write ? KEEL_PF_W : 0) | (fetch ? KEEL_PF_X : 0) | (as->index ? KEEL_PF_U : 0);
	if (guest_range(va, KEEL_PAGE_SIZE))
		pte = as_lookup(m, as, va);
	if (!pte)
		return false;
	if (!(pte_prot(pte) & need)) {
		*error |= KEEL_BUG(13) ? 0 : KEEL_PF_P;
		return false;
	}
	/* The run around va inside an aligned block, as large as the tree has it uniform. */
	at = va & ~(FAULT_AROUND * KEEL_PAGE_SIZE - 1);
	end = at + FAULT_AROUND * KEEL_PAGE_SIZE;
	if (at < KEEL_VA_MIN)
		at = KEEL_VA_MIN;
	while ((n = as_run(m, as, &at, end, FAULT_AROUND, &pte)) && at + n * KEEL_PAGE_SIZE <= va)
		at += n * KEEL_PAGE_SIZE;
	if (write && (pte & (PTE_TRACK | PTE_D)) == PTE_TRACK) {
		/* First write since the last harvest; the neighbours may be reported too. */
		as_flags(m, as, at, n, PTE_D, 0);
		mb_protect(v, as, at, n, pte_prot(pte));
	} else {
		mb_map(v, as, at, n, pte & PTE_ADDR, pte_cache_prot(pte), MB_REPLACED);
	}
	settle(v, as);
	return true;
}

bool mon_fault(struct mvcpu *v, struct as *as, uint64_t va, bool write, bool fetch, uint64_t *error)
{
	bool retry;

	mon_lock(&as->lock);
	retry = fault(v, as, va, write, fetch, error);
	mon_unlock(&as->lock);
	return retry;
}

/* HARVEST */

/*
 * Checks all three share; `form` is what the call's own fourth argument looks like,
 * whose turn comes between the form of the others and what they name
 * (KEEL-CALL-09). *pages is what this call will work off, *as the space, locked,
 * when it is KEEL_OK.
 */
static int64_t harvest_check(struct mvcpu *v, const uint64_t *a, int64_t form, uint64_t *pages, struct as **as)
{
	if (a[1] % KEEL_PAGE_SIZE)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2));
	if (!a[2] || a[2] % KEEL_PAGE_SIZE)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(3));
	if (form != KEEL_OK)
		return form;
	*as = space_get(v, a[0]);
	if (!*as)
		return KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1));
	if (!guest_range(a[1], a[2])) {
		space_put(v, *as);
		return KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_ARG(2));
	}
	*pages = a[2] / KEEL_PAGE_SIZE;
	if (*pages > MON_HARVEST_PAGES)
		*pages = MON_HARVEST_PAGES;
	return KEEL_OK;
}

/* Set and clear leaf flags of every mapped page of a range, the cache following. */
static mret harvest_flags(struct mvcpu *v, struct as *as, enum mon_call call, const uint64_t *a, uint64_t pages,
			  uint64_t set, uint64_t clear)
{
	struct mon *m = v->mon;
	struct pend p = { .v = v, .as = as };
	uint64_t va = a[1], end = va + pages * KEEL_PAGE_SIZE, pte, n;
	int64_t status = KEEL_OK;

	while ((n = as_run(m, as, &va, end, pages, &pte))) {
		uint64_t done;

		/* Nothing to clear there: large leaves stay whole (KEEL-HARVEST-09). */
		if (!set && !(pte & PTE_TRACK)) {
			va += n * KEEL_PAGE_SIZE;
			continue;
		}
		done = as_flags(m, as, va, n, set, clear);
		pend_reprotect(&p, va, done);
		va += done * KEEL_PAGE_SIZE;
		if (done < n) {
			status = KEEL_STATUS(KEEL_E_NOMEM, 0);
			pages = (va - a[1]) / KEEL_PAGE_SIZE;
			break;
		}
	}
	pend_flush(&p);
	settle(v, as);
	mon_work(v, call, pages);
	return MRET(status, pages);
}

mret mon_harvest_start(struct mvcpu *v, const uint64_t *a)
{
	uint64_t pages, unknown = a[3] & ~(KEEL_HARVEST_DIRTY | KEEL_HARVEST_ACCESSED);
	int64_t form = KEEL_OK, status;
	struct as *as;
	mret r;

	if (unknown)
		form = KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_ARG(4), __builtin_ctzll(unknown));
	else if (a[3] & KEEL_HARVEST_ACCESSED)
		form = KEEL_STATUS_BIT(KEEL_E_NOTSUP, KEEL_AT_ARG(4), __builtin_ctzll(KEEL_HARVEST_ACCESSED));
	else if (!a[3])
		form = KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(4));
	status = harvest_check(v, a, form, &pages, &as);
	if (status != KEEL_OK)
		return MRET(status, 0);
	space_track(v, as);
	r = harvest_flags(v, as, MON_CALL_harvest_start, a, pages, PTE_TRACK, PTE_D);
	space_put(v, as);
	return r;
}

mret mon_harvest_stop(struct mvcpu *v, const uint64_t *a)
{
	uint64_t pages;
	struct as *as;
	int64_t status = harvest_check(v, a, KEEL_OK, &pages, &as);
	mret r;

	if (status != KEEL_OK)
		return MRET(status, 0);
	r = harvest_flags(v, as, MON_CALL_harvest_stop, a, pages, 0, PTE_TRACK | PTE_D);
	space_put(v, as);
	return r;
}

/* Was this page written by somebody other than the guest through a tracked mapping? */
static bool written_by_host(const struct mon *m, uint64_t gpa)
{
	if (gpa >= m->ram_size)
		return false;
	return gpa == m->console_gpa ||
	       (__atomic_load_n(&m->hostlog[gpa / KEEL_PAGE_SIZE / 8], __ATOMIC_RELAXED) >> gpa / KEEL_PAGE_SIZE % 8 &
		1);
}

/* harvest_collect with the space locked, its bitmap in v->copy.bytes. */
static mret collect(struct mvcpu *v, struct as *as, const uint64_t *a, uint64_t pages)
{
	const uint64_t bitmap = a[3], bytes = (pages + 63) / 64 * 8, end = a[1] + pages * KEEL_PAGE_SIZE;
	struct mon *m = v->mon;
	struct pend p = { .v = v, .as = as };
	uint8_t *bits = v->copy.bytes;
	uint64_t va, pte, n, written = 0, from = end, to = end;

	if (!mon_range_ok(m, bitmap, bytes))
		return MERR(KEEL_E_FAULT, KEEL_AT_ARG(4));
	__builtin_memset(bits, 0, bytes);
	space_track(v, as);
	/*
	 * A mapped page nobody tracks yet was mapped since: it counts as written.
	 * Splitting large leaves for that can fail, so it comes before anything is re-armed.
	 */
	for (va = a[1]; (n = as_run(m, as, &va, end, pages, &pte)); va += n * KEEL_PAGE_SIZE)
		if (!(pte & PTE_TRACK) && as_flags(m, as, va, n, PTE_TRACK | PTE_D, 0) < n)
			return MERR(KEEL_E_NOMEM, 0);
	for (va = a[1]; (n = as_run(m, as, &va, end, pages, &pte)); va += n * KEEL_PAGE_SIZE) {
		const uint64_t at = (va - a[1]) / KEEL_PAGE_SIZE;

		if (as_take_dirty(m, as, va, n, bits, at)) {
			from = from < end ? from : va;
			to = va + n * KEEL_PAGE_SIZE;
		}
		if (KEEL_BUG(14))
			as_flags(m, as, va, n, PTE_D, 0);
		for (uint64_t i = at; i < at + n; i++)
			if (written_by_host(m, (pte & PTE_ADDR) + (i - at) * KEEL_PAGE_SIZE))
				bits[i / 8] |= 1 << i % 8;
	}
	/* In one piece, where what lies between is clean anyway. */
	pend_reprotect(&p, from, (to - from) / KEEL_PAGE_SIZE);
	pend_flush(&p);
	settle(v, as);
	for (uint64_t i = 0; i < bytes / 8; i++)
		written += mon_bits(((const uint64_t *)bits)[i]);
	mon_work(v, MON_CALL_harvest_collect, pages);
	mon_copy_out(m, bitmap, bits, bytes);
	return MRET(KEEL_OK, pages | written << 32);
}

mret mon_harvest_collect(struct mvcpu *v, const uint64_t *a)
{
	const int64_t form = a[3] % 8 ? KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(4)) : KEEL_OK;
	uint64_t pages;
	struct as *as;
	int64_t status = harvest_check(v, a, form, &pages, &as);
	mret r;

	if (status != KEEL_OK)
		return MRET(status, 0);
	r = collect(v, as, a, pages);
	space_put(v, as);
	return r;
}

/* MEMORY */

static int64_t memory_check(const struct mvcpu *v, const uint64_t *a, uint64_t *pages)
{
	if (a[0] % KEEL_PAGE_SIZE)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(1));
	if (!a[1] || a[1] % KEEL_PAGE_SIZE)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2));
	if (!mon_range_ok(v->mon, a[0], a[1]))
		return KEEL_STATUS(KEEL_E_FAULT, KEEL_AT_ARG(1));
	*pages = a[1] / KEEL_PAGE_SIZE;
	if (*pages > MON_MEMORY_PAGES)
		*pages = MON_MEMORY_PAGES;
	return KEEL_OK;
}

mret mon_memory_release(struct mvcpu *v, const uint64_t *a)
{
	uint64_t pages;
	int64_t status = memory_check(v, a, &pages);

	if (status != KEEL_OK)
		return MRET(status, 0);
	if (!KEEL_BUG(15) && !mb_release(v, a[0], pages))
		return MERR(KEEL_E_AGAIN, 0);
	/* The content changed; that is a write as far as HARVEST is concerned. */
	mon_wrote(v->mon, a[0], pages * KEEL_PAGE_SIZE);
	mon_work(v, MON_CALL_memory_release, pages);
	return MRET(KEEL_OK, pages);
}

mret mon_memory_populate(struct mvcpu *v, const uint64_t *a)
{
	uint64_t pages;
	int64_t status = memory_check(v, a, &pages);

	if (status != KEEL_OK)
		return MRET(status, 0);
	if (!mb_populate(v, a[0], pages))
		return MERR(KEEL_E_AGAIN, 0);
	mon_work(v, MON_CALL_memory_populate, pages);
	return MRET(KEEL_OK, pages);
}
