/* SPDX-License-Identifier: MIT */
/*
 * TRAP: what becomes of an interrupted context. All work is done on v->cur;
 * gate.S then runs what it says.
 */
#include "monitor.h"
#include "bugs.h"

#define RED_ZONE 128
/* Flags a frame may carry into the guest: arithmetic, TF, DF, AC, ID. */
#define RFLAGS_GUEST 0x240dd5u
#define RFLAGS_KERNEL 0x202u /* what guest-kernel code runs with besides; IF is the hardware's */

/*
 * Save v->cur in the class's slot and turn it into the entry of that class.
 * The caller made sure that the slot is free and an entry is set.
 */
static void enter(struct mvcpu *v, unsigned int class, uint32_t vector, uint64_t error, uint64_t addr)
{
	const struct mon_entry *e = &v->entry[class];
	struct keel_frame *slot = &v->page->slot[class].frame, *cur = &v->cur;
	uint64_t flags = cur->rflags & RFLAGS_GUEST;

	*slot = *cur;
	slot->state = KEEL_SLOT_FULL;
	slot->class_ = class;
	slot->vector = vector;
	slot->mode = KEEL_MODE_KERNEL;
	slot->error = error;
	slot->addr = addr;
	slot->rflags = flags | 2 | (v->page->if_enabled ? KEEL_RFLAGS_IF : 0);
	slot->reserved[0] = 0;
	slot->reserved[1] = 0;

	if (!KEEL_BUG(16))
		v->page->if_enabled = 0;
	cur->rsp = (e->stack ? e->stack : cur->rsp - (KEEL_BUG(17) ? 0 : RED_ZONE)) & ~KEEL_U64(15);
	cur->rip = e->entry;
	cur->rdi = (uint64_t)slot;
	cur->rflags = RFLAGS_KERNEL;
}

static bool slot_free(const struct mvcpu *v, unsigned int class)
{
	return __atomic_load_n(&v->page->slot[class].frame.state, __ATOMIC_ACQUIRE) == KEEL_SLOT_FREE;
}

/**
 * mon_exit - the last look before v->cur runs
 * @v: the vCPU; upcalls may arrive while this runs and set v->attn again
 */
void mon_exit(struct mvcpu *v)
{
	struct keel_vcpu *page = v->page;

	/* In this order: a kick that lands in between may leave one mark too many, not one too few. */
	__atomic_store_n(&v->attn, 0, __ATOMIC_RELAXED);
	if (!KEEL_BUG(48))
		mon_listen(v);
	if (__atomic_load_n(&v->stop, __ATOMIC_SEQ_CST))
		mon_stop(v);
	if (__atomic_load_n(&v->dump_pending, __ATOMIC_RELAXED) && !(v->illegal & KEEL_CF_NODUMP)) {
		if (!v->entry[KEEL_CLASS_DUMP].entry) {
			v->dump_pending = 0; /* KEEL-TRAP-22: not kept for later */
		} else if (slot_free(v, KEEL_CLASS_DUMP)) {
			v->dump_pending = 0;
			v->illegal |= KEEL_CF_NODUMP;
			enter(v, KEEL_CLASS_DUMP, 0, 0, 0);
			return;
		}
	}
	if (page->if_enabled && __atomic_load_n(&page->pending, __ATOMIC_ACQUIRE) && v->entry[KEEL_CLASS_EVENT].entry &&
	    slot_free(v, KEEL_CLASS_EVENT))
		enter(v, KEEL_CLASS_EVENT, 0, 0, 0);
}

static bool in(uint64_t ip, const char *from, const char *to)
{
	return ip >= (uint64_t)from && ip < (uint64_t)to;
}

bool mon_upcall(struct mvcpu *v, uint64_t *ip, uint64_t *flags)
{
	if (!in(*ip, mon_text_start, mon_text_end))
		return false;
	v->attn |= ATTN_LOOK;
	if (in(*ip, gate_check, gate_ret_end)) {
		*ip = (uint64_t)gate_check;
	} else if (in(*ip, mon_resume_load, mon_resume_end)) {
		*ip = (uint64_t)mon_resume;
		/* The guest's flags may be loaded already; the monitor's code wants DF and AC clear. */
		*flags = 2;
	}
	return true;
}

static void fatal(struct mvcpu *v, uint32_t kind, uint32_t vector, uint64_t error, uint64_t addr)
{
	v->fatal.kind = kind;
	v->fatal.regs = v->cur;
	v->fatal.regs.vector = vector;
	v->fatal.regs.error = error;
	v->fatal.regs.addr = addr;
	v->fatal.regs.rflags &= ~(uint64_t)KEEL_RFLAGS_IF;
	v->fatal.regs.rflags |= v->page->if_enabled ? KEEL_RFLAGS_IF : 0;
	mb_fatal(v);
}

void mon_trap(struct mvcpu *v, uint32_t vector, uint64_t error, uint64_t addr)
{
	if (slot_free(v, KEEL_CLASS_TRAP)) {
		if (!v->entry[KEEL_CLASS_TRAP].entry)
			fatal(v, MON_FATAL_TRAP, vector, error, addr);
		enter(v, KEEL_CLASS_TRAP, vector, error, addr);
		return;
	}
	if (vector != KEEL_VEC_PF)
		addr = 0;
	if (!slot_free(v, KEEL_CLASS_DOUBLE) || !v->entry[KEEL_CLASS_DOUBLE].entry ||
	    !v->entry[KEEL_CLASS_DOUBLE].stack)
		fatal(v, MON_FATAL_DOUBLE, vector, error, addr);
	enter(v, KEEL_CLASS_DOUBLE, KEEL_VEC_DF, 0, addr);
}

mret mon_trap_set(struct mvcpu *v, const uint64_t *a)
{
	if (a[0] >= KEEL_CLASS_COUNT)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(1));
	if (a[1] && (a[1] < KEEL_VA_MIN || a[1] >= KEEL_VA_END))
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(2));
	if (a[2] > KEEL_VA_END || (a[2] && a[2] < KEEL_VA_MIN))
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(3));
	if (a[0] == KEEL_CLASS_DOUBLE && a[1] && !a[2])
		return MERR(KEEL_E_INVAL, KEEL_AT_ARG(3));
	v->entry[a[0]].entry = a[1];
	v->entry[a[0]].stack = a[2];
	v->attn |= ATTN_LOOK;
	return MRET(KEEL_OK, 0);
}

mret mon_trap_return(struct mvcpu *v, const uint64_t *a)
{
	struct keel_frame f, *slot;

	if (a[0] >= KEEL_CLASS_COUNT)
		return MERR(KEEL_E_RANGE, KEEL_AT_ARG(1));
	slot = &v->page->slot[a[0]].frame;
	if (__atomic_load_n(&slot->state, __ATOMIC_ACQUIRE) != KEEL_SLOT_RETURN && !KEEL_BUG(18))
		return MERR(KEEL_E_STATE, KEEL_AT_ARG(1));
	f = *slot;
	if (f.mode != KEEL_MODE_KERNEL)
		return MERR(KEEL_E_INVAL, KEEL_AT_FIELD(4));
	if (f.reserved[0] || f.reserved[1])
		return MERR(KEEL_E_INVAL, KEEL_AT_FIELD(25));
	/* A non-canonical RIP faults in the jump to it; that must be the guest's instruction. */
	if (f.rip >> 47)
		return MERR(KEEL_E_RANGE, KEEL_AT_FIELD(7));
	if (a[0] == KEEL_CLASS_DUMP)
		v->illegal &= ~KEEL_CF_NODUMP;
	v->page->if_enabled = !!(f.rflags & KEEL_RFLAGS_IF);
	f.rflags = (f.rflags & RFLAGS_GUEST) | RFLAGS_KERNEL;
	v->cur = f;
	__atomic_store_n(&slot->state, KEEL_SLOT_FREE, __ATOMIC_RELEASE);
	v->attn |= ATTN_RESUME;
	return MRET(KEEL_OK, 0);
}

mret mon_trap_deliver(struct mvcpu *v, const uint64_t *a)
{
	(void)a;
	v->attn |= ATTN_LOOK;
	return MRET(KEEL_OK, 0);
}
