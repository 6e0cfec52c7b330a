/* SPDX-License-Identifier: MIT */
/*
 * USER: from a context in guest memory to user code and back. The backend's
 * mb_user() runs it; what is checked, and what a fault of it means, is decided here.
 */
#include "monitor.h"
#include "bugs.h"

/* Bytes of an XSAVE area before its components, and places in it. */
#define XSAVE_LEGACY 512
#define XSAVE_MXCSR 24
#define XSAVE_HEADER 64
#define XSTATE_LEGACY KEEL_U64(3) /* x87 and SSE */
#define MXCSR_VALID 0xffff	  /* DAZ is in every processor with 64-bit mode that is still in use */

struct xsave_header {
	uint64_t xstate_bv, xcomp_bv, reserved[6];
};

bool mon_user_event(struct mvcpu *v)
{
	const struct as *as = v->user_as;

	mon_listen(v);
	return (__atomic_load_n(&v->page->pending, __ATOMIC_ACQUIRE) && !KEEL_BUG(36)) ||
	       (__atomic_load_n(&v->dump_pending, __ATOMIC_SEQ_CST) && v->entry[KEEL_CLASS_DUMP].entry) ||
	       __atomic_load_n(&v->stop, __ATOMIC_SEQ_CST) ||
	       (as && __atomic_load_n(&as->state, __ATOMIC_SEQ_CST) != AS_LIVE);
}

void mon_user_exception(struct mvcpu *v, uint32_t vector)
{
	v->user.vector = vector;
	v->user.error = 0;
	v->user.addr = 0;
}

bool mon_user_fault(struct mvcpu *v, uint64_t va, bool write, bool fetch)
{
	uint64_t error;

	if (mon_fault(v, v->user_as, va, write, fetch, &error))
		return true;
	v->user.vector = KEEL_VEC_PF;
	v->user.error = error;
	v->user.addr = va;
	return false;
}

/* The fields of a copied context in their order. */
static int64_t check(const struct mvcpu *v, const struct keel_user *u)
{
	if (u->size != KEEL_USER_XSAVE + v->mon->xsave_size)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(1));
	if (u->flags)
		return KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_FIELD(2), __builtin_ctz(u->flags));
	if (u->rip >> 47)
		return KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_FIELD(7));
	if (u->fs_base >> 47)
		return KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_FIELD(25));
	if (u->gs_base >> 47)
		return KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_FIELD(26));
	for (unsigned int i = 0; i < sizeof(u->reserved) / sizeof(u->reserved[0]); i++)
		if (u->reserved[i] && !KEEL_BUG(35))
			return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(27));
	return KEEL_OK;
}

/* What the processor would refuse to load. */
static bool xsave_valid(const struct mvcpu *v, const uint8_t *area)
{
	const struct xsave_header *h = (const struct xsave_header *)(area + XSAVE_LEGACY);
	uint64_t zero = h->xcomp_bv;

	for (unsigned int i = 0; i < 6; i++)
		zero |= h->reserved[i];
	/* MXCSR is loaded with SSE or AVX, whatever xstate_bv says. */
	return (!zero || KEEL_BUG(37)) && !(h->xstate_bv & ~v->mon->xfeatures) &&
	       !(*(const uint32_t *)(area + XSAVE_MXCSR) & ~MXCSR_VALID);
}

/* Bytes of an XSAVE area that anything is in: most code has no state but x87 and SSE, a small part of it. */
static uint64_t xsave_used(const struct mvcpu *v, const uint8_t *area)
{
	const struct xsave_header *h = (const struct xsave_header *)(area + XSAVE_LEGACY);

	return h->xstate_bv & ~XSTATE_LEGACY ? v->mon->xsave_size : XSAVE_LEGACY + XSAVE_HEADER;
}

mret mon_user_enter(struct mvcpu *v, const uint64_t *a)
{
	const uint64_t gpa = a[1], size = KEEL_USER_XSAVE + v->mon->xsave_size, head = XSAVE_LEGACY + XSAVE_HEADER;
	struct keel_user *u = &v->user;
	uint32_t reason = KEEL_USER_EVENT;
	struct as *as;
	int64_t status;

	_Static_assert(XSAVE_LEGACY + XSAVE_HEADER <= sizeof(v->copy.bytes), "room for an XSAVE area");
	if (gpa % KEEL_USER_ALIGN)
		return MERR(KEEL_E_INVAL, KEEL_AT_ARG(2));
	if (a[2])
		return MRET(KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_ARG(3), __builtin_ctzll(a[2])), 0);
	as = a[0] ? space_get(v, a[0]) : NULL;
	if (!as)
		return MERR(KEEL_E_NOENT, KEEL_AT_ARG(1));
	if (!mon_range_ok(v->mon, gpa, size)) {
		space_put(v, as);
		return MERR(KEEL_E_FAULT, KEEL_AT_ARG(2));
	}
	mon_copy_in(v->mon, u, gpa, sizeof(*u));
	mon_copy_in(v->mon, v->copy.bytes, gpa + KEEL_USER_XSAVE, head);
	mon_copy_in(v->mon, v->copy.bytes + head, gpa + KEEL_USER_XSAVE + head, xsave_used(v, v->copy.bytes) - head);
	status = check(v, u);
	if (status == KEEL_OK && !xsave_valid(v, v->copy.bytes))
		status = KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(28));
	if (status != KEEL_OK) {
		space_put(v, as);
		return MRET(status, 0);
	}
	u->vector = 0;
	u->error = 0;
	u->addr = 0;
	u->rflags = (u->rflags & KEEL_USER_RFLAGS) | 0x202;
	v->user_as = as;
	v->user_gpa = gpa;
	if (!KEEL_BUG(38))
		__atomic_or_fetch(&as->running, 1u << v->id, __ATOMIC_SEQ_CST);
	space_put(v, as);

	if (!mon_user_event(v))
		reason = mb_user(v);

	v->user_as = NULL;
	__atomic_and_fetch(&as->running, ~(1u << v->id), __ATOMIC_SEQ_CST);
	if (reason != KEEL_USER_EXCEPTION) {
		u->vector = 0;
		u->error = 0;
		u->addr = 0;
	}
	u->reason = reason;
	u->rflags = (u->rflags & KEEL_USER_RFLAGS) | 0x202;
	mon_copy_out(v->mon, gpa, u, sizeof(*u));
	mon_copy_out(v->mon, gpa + KEEL_USER_XSAVE, v->copy.bytes, xsave_used(v, v->copy.bytes));
	/* A dump, or a stop: `pending` is looked at on the way out anyway. */
	if (reason == KEEL_USER_EVENT)
		v->attn |= ATTN_LOOK;
	return MRET(KEEL_OK, reason);
}
