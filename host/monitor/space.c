/* SPDX-License-Identifier: MIT */
/*
 * AS: the life of address spaces for user code. Which of mon.space[] are in use is
 * decided under mon.spaces_lock; what is in one is its own lock's business. A handle
 * is looked up under the space's lock, so whoever has got a space has it until
 * space_put().
 */
#include "monitor.h"
#include "bugs.h"

/* 0 is no generation, so that 0 is no handle of these. */
static uint64_t handle_of(const struct as *as)
{
	return (uint64_t)(as->gen + 1) << 32 | as->index;
}

/* A space in any state but FREE by its handle, locked. */
static struct as *find(struct mvcpu *v, uint64_t handle)
{
	const uint64_t index = handle & 0xffffffff;
	struct mon *m = v->mon;
	struct as *as;

	if (!handle) {
		mon_lock(&m->as0.lock);
		return &m->as0;
	}
	if (!index || index > m->spaces)
		return NULL;
	as = &m->space[index - 1];
	mon_lock(&as->lock);
	if (as->state != AS_FREE && (handle_of(as) == handle || KEEL_BUG(31)))
		return as;
	mon_unlock(&as->lock);
	return NULL;
}

struct as *space_get(struct mvcpu *v, uint64_t handle)
{
	struct as *as = find(v, handle);

	if (as && as->state != AS_LIVE) {
		mon_unlock(&as->lock);
		return NULL;
	}
	return as;
}

/* Keep mon.tracking what it says. The space is locked. */
static void count_tracking(struct mon *m, struct as *as, bool tracks)
{
	if (as->counted == tracks)
		return;
	mon_lock(&m->spaces_lock);
	if (tracks && !m->tracking)
		/* Nobody looks at what was written before. */
		for (uint64_t i = 0; i < m->ram_size / KEEL_PAGE_SIZE / 8; i++)
			m->hostlog[i] = 0;
	__atomic_store_n(&m->tracking, m->tracking + (tracks ? 1 : -1), __ATOMIC_SEQ_CST);
	as->counted = tracks;
	mon_unlock(&m->spaces_lock);
}

void space_track(struct mvcpu *v, struct as *as)
{
	count_tracking(v->mon, as, true);
}

void space_put(struct mvcpu *v, struct as *as)
{
	count_tracking(v->mon, as, as->tracked);
	mon_unlock(&as->lock);
}

/* A new space in `state` with an empty tree, locked; NULL when there is no room for one. */
static struct as *space_new(struct mvcpu *v, uint32_t state)
{
	struct mon *m = v->mon;
	struct as *as = NULL;

	mon_lock(&m->spaces_lock);
	for (uint32_t i = 0; i < m->spaces && !as; i++) {
		struct as *s = &m->space[(m->space_next + i) % m->spaces];

		if (s->state == AS_FREE) {
			as = s;
			as->index = s - m->space + 1;
			as->state = AS_COPY; /* nobody else's; no handle names it yet */
			m->space_next = as->index % m->spaces;
		}
	}
	mon_unlock(&m->spaces_lock);
	if (!as)
		return NULL;
	/* An old handle may be looked up in it just now. */
	mon_lock(&as->lock);
	for (unsigned int i = 0; i < sizeof(as->backend) / sizeof(as->backend[0]); i++)
		as->backend[i] = 0;
	as->running = 0;
	as->copy = NULL;
	if (as_init(v->mon, as)) {
		if (mb_as_create(v, as)) {
			as->state = state;
			return as;
		}
		as_drop(v->mon, as);
	}
	as->state = AS_FREE;
	mon_unlock(&as->lock);
	return NULL;
}

/* Nobody runs in it, nobody is to find it again. Locked; unlocks it. */
static void space_free(struct mvcpu *v, struct as *as)
{
	mb_as_destroy(v, as);
	as_drop(v->mon, as);
	count_tracking(v->mon, as, false);
	/* Bit 63 of a handle stays clear. */
	if (!KEEL_BUG(32))
		as->gen = (as->gen + 1) % 0x7fffffff;
	__atomic_store_n(&as->state, AS_FREE, __ATOMIC_RELEASE);
	mon_unlock(&as->lock);
}

mret mon_as_create(struct mvcpu *v, const uint64_t *a)
{
	struct as *as;
	uint64_t handle;

	if (a[0])
		return MRET(KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_ARG(1), __builtin_ctzll(a[0])), 0);
	as = space_new(v, AS_LIVE);
	if (!as)
		return MERR(KEEL_E_NOMEM, 0);
	handle = handle_of(as);
	space_put(v, as);
	return MRET(KEEL_OK, handle);
}

/* Make the pages of a range that are writable read-only: tree, then cache. The space is locked. */
static bool write_protect(struct mvcpu *v, struct as *as, uint64_t va, uint64_t end, uint64_t max)
{
	uint64_t pte, n;

	while (max && (n = as_run(v->mon, as, &va, end, max, &pte))) {
		const uint32_t prot = pte_prot(pte) & ~KEEL_PROT_W;

		if (pte & PTE_W && !KEEL_BUG(33)) {
			const uint64_t flags = PTE_P | PTE_A | pte_user(as) | (pte & PTE_NX);

			if (as_protect(v->mon, as, va, n, flags) < n)
				return false;
			mb_protect(v, as, va, n, prot);
		}
		va += n * KEEL_PAGE_SIZE;
		max -= n;
	}
	return true;
}

/* The clone of a space goes on by one call's work. The space is locked. */
static mret clone_step(struct mvcpu *v, struct as *as)
{
	struct as *to = as->copy;
	uint64_t handle;
	bool ok;

	mon_lock(&to->lock);
	/* Protected first, so that the copy's entries are what they are to be. */
	ok = as->copy_flags & KEEL_AS_CLONE_SHARE || write_protect(v, as, as->copy_at, KEEL_VA_END, MON_CLONE_PAGES);
	ok = ok && as_copy(v->mon, to, as, &as->copy_at, MON_CLONE_PAGES);
	mb_settle(v, as);
	as_settled(v->mon, as);
	if (!ok) {
		as->copy = NULL;
		space_free(v, to);
		return MERR(KEEL_E_NOMEM, 0);
	}
	if (as->copy_at < KEEL_VA_END) {
		mon_unlock(&to->lock);
		return MERR(KEEL_E_AGAIN, 0);
	}
	as->copy = NULL;
	to->state = AS_LIVE;
	handle = handle_of(to);
	mon_unlock(&to->lock);
	return MRET(KEEL_OK, handle);
}

mret mon_as_clone(struct mvcpu *v, const uint64_t *a)
{
	const uint64_t unknown = a[1] & ~KEEL_AS_CLONE_SHARE;
	struct as *as;
	mret r;

	if (unknown)
		return MRET(KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_ARG(2), __builtin_ctzll(unknown)), 0);
	as = a[0] ? space_get(v, a[0]) : NULL;
	if (!as)
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	if (as->copy && as->copy_flags != a[1] && !KEEL_BUG(41)) {
		r = MERR(KEEL_E_BUSY, KEEL_AT_ARG(1));
	} else {
		if (!as->copy) {
			as->copy = space_new(v, AS_COPY);
			if (as->copy)
				mon_unlock(&as->copy->lock);
			as->copy_at = KEEL_VA_MIN;
			as->copy_flags = a[1];
		}
		r = as->copy ? clone_step(v, as) : MERR(KEEL_E_NOMEM, 0);
	}
	space_put(v, as);
	return r;
}

mret mon_as_destroy(struct mvcpu *v, const uint64_t *a)
{
	struct as *as = a[0] ? find(v, a[0]) : NULL;
	uint32_t running;

	if (!as)
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	if (as->state == AS_COPY) {
		mon_unlock(&as->lock);
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	}
	/* From here on nobody enters it; whoever is in it finds out when kicked. */
	__atomic_store_n(&as->state, AS_DYING, __ATOMIC_SEQ_CST);
	running = __atomic_load_n(&as->running, __ATOMIC_SEQ_CST);
	if (running && !KEEL_BUG(34)) {
		for (uint32_t i = 0; i < v->mon->vcpus; i++)
			if (running >> i & 1)
				mon_kick(v, mv_peer(v, i));
		mon_unlock(&as->lock);
		return MERR(KEEL_E_AGAIN, 0);
	}
	if (as->copy) {
		mon_lock(&as->copy->lock);
		space_free(v, as->copy);
		as->copy = NULL;
	}
	space_free(v, as);
	return MRET(KEEL_OK, 0);
}

mret mon_as_info(struct mvcpu *v, const uint64_t *a)
{
	struct as *as;
	uint64_t value;

	if (a[1] >= KEEL_AS_INFO_COUNT)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(2));
	as = space_get(v, a[0]);
	if (!as)
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	value = a[1] == KEEL_AS_INFO_PAGES    ? as->pages
		: a[1] == KEEL_AS_INFO_TABLES ? as->tables
					      : mon_bits(as->running);
	space_put(v, as);
	return MRET(KEEL_OK, value);
}
