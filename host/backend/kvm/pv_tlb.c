/* SPDX-License-Identifier: MIT */
/*
 * The cache of the guest kernel's tree: TLBs, this vCPU's and the others'.
 *
 * Nothing is cached that was not there, and what is cached with too few rights is
 * dropped by the fault it causes. So only reductions are flushed: at once on the vCPU
 * that makes them, on the others by mb_settle(), which moves a generation and shoots.
 * Who waits, for an answer or for a lock, answers meanwhile, interrupts on or off. A
 * vCPU that sees nothing of the space is quiet and not waited for; it looks at the
 * generation when that ends.
 *
 * Who becomes loud and who shoots cannot miss each other: the one writes its state and
 * then reads the generation, the other the other way round.
 */
#include "../../monitor/bugs.h"
#include "pv_cpu.h"
#include "pv_main.h"

#define EVERYTHING (PV_FLUSH_MAX + 1) /* pages */

/* as.backend[] of the guest kernel's space. */
enum {
	AS_GEN,	 /* of the last reduction that was settled */
	AS_FROM, /* the reduction that is being made: where, and pages; 0 = none */
	AS_PAGES,
	AS_LIMBO, /* as.table_limbo when everything was flushed here last */
};

void pv_load_root(const struct mon *m)
{
	__asm__ volatile("mov %0, %%cr3" : : "r"(pv_root(m, &m->as0)) : "memory");
}

static void flush(struct mvcpu *v, uint64_t va, uint64_t pages)
{
	if (pages > PV_FLUSH_MAX) {
		pv_load_root(v->mon);
		return;
	}
	for (; pages; pages--, va += KEEL_PAGE_SIZE)
		__asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
}

/* `all`: what the last reduction was may be written while we look. Interrupts are off. */
static void catch_up(struct mvcpu *v, bool all)
{
	const uint64_t *b = v->mon->as0.backend;
	const uint64_t gen = __atomic_load_n(&b[AS_GEN], __ATOMIC_SEQ_CST);
	uint64_t *seen = &v->backend[PV_SLOT_SEEN];

	if (*seen == gen)
		return;
	if (all || *seen + 1 != gen)
		flush(v, 0, EVERYTHING);
	else
		flush(v, b[AS_FROM], b[AS_PAGES]);
	*seen = gen;
}

enum pv_quiet pv_quiet(struct mvcpu *v, enum pv_quiet how)
{
	return __atomic_exchange_n(&v->backend[PV_SLOT_QUIET], how, __ATOMIC_SEQ_CST);
}

/* Interrupts are off. What was asked is read first: then the generation is at least the one it was asked for. */
static void answer(struct mvcpu *v, bool all)
{
	uint64_t *s = v->backend;
	const uint64_t asked = __atomic_load_n(&s[PV_SLOT_ASKED], __ATOMIC_SEQ_CST);

	if (s[PV_SLOT_QUIET] == PV_LOUD)
		catch_up(v, all);
	__atomic_store_n(&s[PV_SLOT_ANSWERED], asked, __ATOMIC_SEQ_CST);
}

/* Answers, too: who asked while it was quiet may look again only now, and sent no interrupt. */
void pv_loud(struct mvcpu *v, enum pv_quiet was)
{
	__atomic_store_n(&v->backend[PV_SLOT_QUIET], was, __ATOMIC_SEQ_CST);
	answer(v, true);
}

void pv_answer(struct mvcpu *v)
{
	uint64_t flags;

	if (__atomic_load_n(&v->backend[PV_SLOT_ASKED], __ATOMIC_RELAXED) == v->backend[PV_SLOT_ANSWERED])
		return;
	flags = interrupts_off();
	answer(v, false);
	interrupts_restore(flags);
}

static bool owes(const struct mvcpu *to, uint64_t ticket, enum pv_quiet concerns)
{
	return __atomic_load_n(&to->backend[PV_SLOT_QUIET], __ATOMIC_SEQ_CST) <= concerns &&
	       (int64_t)(__atomic_load_n(&to->backend[PV_SLOT_ANSWERED], __ATOMIC_SEQ_CST) - ticket) < 0;
}

void pv_shoot(struct mvcpu *v, uint32_t vcpus, enum pv_quiet concerns)
{
	uint64_t ticket[MON_MAX_VCPUS];

	for (uint32_t i = 0; vcpus >> i; i++) {
		struct mvcpu *to = mv_peer(v, i);

		if (!(vcpus >> i & 1))
			continue;
		ticket[i] = __atomic_add_fetch(&to->backend[PV_SLOT_ASKED], 1, __ATOMIC_SEQ_CST);
		/* One that is quiet catches up by itself. It may be loud at the next look, and was not interrupted. */
		if (owes(to, ticket[i], concerns))
			pv_ipi(to, PV_VECTOR_SHOOT);
		else
			vcpus &= ~(1u << i);
	}
	for (uint32_t i = 0; vcpus >> i; i++)
		for (uint32_t n = 1; vcpus >> i & 1 && owes(mv_peer(v, i), ticket[i], concerns); n++) {
			pv_answer(v);
			__asm__ volatile("pause");
			if (!(n % PV_YIELD_ROUNDS))
				pv_yield_to(mv_peer(v, i));
		}
}

/* A reduction: here at once, elsewhere when it is settled. */
static void reduce(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages)
{
	uint64_t *b = as->backend;

	if (as->index) {
		pv_user_stale(v, as, va, pages);
		return;
	}
	if (KEEL_BUG(23))
		return;
	/* A single invlpg drops what is cached of tables, but what pages they led to is not known. */
	if (as->table_limbo)
		pages = EVERYTHING;
	flush(v, va, pages);
	b[AS_LIMBO] = as->table_limbo;
	/* A fault on what is mapped: only this vCPU was behind. */
	if (v->backend[PV_SLOT_FAULT])
		return;
	b[AS_FROM] = va;
	b[AS_PAGES] = b[AS_PAGES] || pages > PV_FLUSH_MAX ? EVERYTHING : pages;
}

void mb_settle(struct mvcpu *v, struct as *as)
{
	uint64_t *b = as->backend;
	const uint32_t others = ((1u << v->mon->vcpus) - 1) & ~(1u << v->id);

	if (as->index) {
		pv_user_settle(v, as);
		return;
	}
	/* Tables that held nothing: no page is stale, but the way to them may be remembered. */
	if (as->table_limbo != b[AS_LIMBO])
		reduce(v, as, 0, EVERYTHING);
	if (!b[AS_PAGES])
		return;
	v->backend[PV_SLOT_SEEN] = b[AS_GEN] + 1;
	__atomic_store_n(&b[AS_GEN], b[AS_GEN] + 1, __ATOMIC_SEQ_CST);
	if (others)
		pv_shoot(v, others, PV_LOUD);
	b[AS_PAGES] = b[AS_LIMBO] = 0;
}

/* Bring pages of RAM in by touching them through the monitor's own view of RAM. */
static void touch(struct mvcpu *v, uint64_t gpa, uint64_t pages)
{
	uint8_t *at = v->mon->ram + gpa;

	for (; pages; pages--, at += KEEL_PAGE_SIZE)
		__asm__ volatile("lock; orb $0, %0" : "+m"(*at));
}

void mb_map(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint64_t gpa, uint32_t prot,
	    unsigned int flags)
{
	(void)prot;
	if (flags & MB_REPLACED)
		reduce(v, as, va, pages);
	if (flags & MB_POPULATE && mon_range_ok(v->mon, gpa, pages * KEEL_PAGE_SIZE))
		touch(v, gpa, pages);
}

void mb_unmap(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages)
{
	reduce(v, as, va, pages);
}

void mb_protect(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint32_t prot)
{
	(void)prot;
	reduce(v, as, va, pages);
}

bool mb_populate(struct mvcpu *v, uint64_t gpa, uint64_t pages)
{
	touch(v, gpa, pages);
	return true;
}
