/* SPDX-License-Identifier: MIT */
/*
 * Guest user code on kvm: at CPL 3, in page tables of its own. The trees of user
 * address spaces have the U bit. What they have of the host's window, without it, is where
 * interrupts and system calls arrive: the text and the vCPU's door.
 *
 * Neither entering user code nor what it does leaves the machine. mb_user() holds the
 * user's FP state in the registers from its start to its end; the monitor in between
 * uses none.
 *
 * The TLB. Each address space has a number that is never used again, and a generation
 * that moves with each reduction. A vCPU remembers with which generation it last entered
 * the spaces that have one of its PCIDs, and flushes at the next entry if that has moved;
 * a vCPU that is in user code at that moment is made to leave it by a shootdown. Without
 * PCIDs every entry flushes.
 */
#include <keel/user.h>

#include "../../monitor/bugs.h"
#include "../../monitor/monitor.h"
#include "pv.h"
#include "pv_cpu.h"
#include "pv_main.h"

#define RFLAGS_TF KEEL_U64(0x100)
#define X86_PF_WRITE 2
#define X86_PF_USER 4
#define X86_PF_INSTR 16
#define CR3_KEEP (KEEL_U64(1) << 63) /* what the TLB holds of this PCID */
#define INVPCID_ADDRESS 0
#define INSTRUCTION_MAX 15

/* XSAVE area, as far as a processor without XSAVE is concerned. */
#define FX_FCW 0
#define FX_X87_AFTER 2 /* what is zero after finit: status, tags, opcode, pointers */
#define FX_MXCSR 24
#define FX_ST 32
#define FX_XMM 160
#define FX_END 416
#define FX_XSTATE_BV 512
#define XF_X87 1
#define XF_SSE 2
#define FCW_INIT 0x37f

_Static_assert(offsetof(struct pv_door, cr3) == PD_CR3, "pv_switch.S");
_Static_assert(offsetof(struct pv_door, stack) == PD_STACK, "pv_switch.S");
_Static_assert(offsetof(struct pv_door, top) == PD_TOP, "pv_switch.S");
_Static_assert(offsetof(struct pv_door, scratch) == PD_SCRATCH, "pv_switch.S");
_Static_assert(offsetof(struct pv_door, leave) == PD_RAX, "pv_switch.S");
_Static_assert(offsetof(struct pv_frame, vector) == PVF_VECTOR, "pv_switch.S");
_Static_assert(offsetof(struct pv_frame, rip) == PVF_RIP, "pv_switch.S");
_Static_assert(offsetof(struct pv_frame, cs) == PVF_CS, "pv_switch.S");
_Static_assert(offsetof(struct pv_frame, ss) == PVF_SS, "pv_switch.S");
_Static_assert(sizeof(((struct mvcpu *)0)->copy) <= KEEL_PAGE_SIZE, "PV_TLB_OFF: an XSAVE area fits into a page");

struct pv_frame *pv_user_run(const struct keel_user *u, struct pv_door *door, uint64_t cr3, bool sysret) MON_SYMBOL;

static uint8_t *block_of(struct mvcpu *v)
{
	return (uint8_t *)v - MON_PRIVATE;
}

static struct pv_door *door_of(struct mvcpu *v)
{
	return (struct pv_door *)(block_of(v) + PV_DOOR_OFF);
}

static struct pv_tlb *tlb_of(struct mvcpu *v)
{
	return (struct pv_tlb *)(block_of(v) + PV_TLB_OFF);
}

void pv_user_init(struct mvcpu *v)
{
	struct pv_door *door = door_of(v);

	door->cr3 = pv_root(v->mon, &v->mon->as0) | (pv_config()->pcid ? CR3_KEEP : 0);
	door->top = (uint64_t)block_of(v) + PV_IST_TOP;
	wrmsr(MSR_KERNEL_GS_BASE, (uint64_t)block_of(v));
}

/* Registers that neither a frame nor an XSAVE area has */

static uint64_t fs_base(void)
{
	uint64_t base;

	if (!pv_config()->fsgsbase)
		return rdmsr(MSR_FS_BASE);
	__asm__ volatile("rdfsbase %0" : "=r"(base));
	return base;
}

static void set_fs_base(uint64_t base)
{
	if (!pv_config()->fsgsbase)
		wrmsr(MSR_FS_BASE, base);
	else
		__asm__ volatile("wrfsbase %0" : : "r"(base));
}

static uint64_t gs_base(void)
{
	uint64_t base;

	if (!pv_config()->fsgsbase)
		return rdmsr(MSR_GS_BASE);
	__asm__ volatile("rdgsbase %0" : "=r"(base));
	return base;
}

static void set_gs_base(uint64_t base)
{
	if (!pv_config()->fsgsbase)
		wrmsr(MSR_GS_BASE, base);
	else
		__asm__ volatile("wrgsbase %0" : : "r"(base) : "memory");
}

/* Selectors are state that user code can leave behind. Bases are lost; both are set before they are used again. */
static void clear_selectors(void)
{
	uint32_t ds, es, fs, gs;

	__asm__ volatile("mov %%ds, %0; mov %%es, %1; mov %%fs, %2; mov %%gs, %3"
			 : "=r"(ds), "=r"(es), "=r"(fs), "=r"(gs));
	if (ds | es)
		__asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(0));
	if (fs | gs)
		__asm__ volatile("mov %0, %%fs; mov %0, %%gs" : : "r"(0));
}

static void fp_save(uint8_t *area, uint64_t parts)
{
	const struct pv_config *c = pv_config();

	if (!c->xsave)
		__asm__ volatile("fxsave64 (%0)" : : "r"(area) : "memory");
	else if (c->xsaveopt)
		__asm__ volatile("xsaveopt64 (%0)"
				 :
				 : "r"(area), "a"((uint32_t)parts), "d"((uint32_t)(parts >> 32))
				 : "memory");
	else
		__asm__ volatile("xsave64 (%0)"
				 :
				 : "r"(area), "a"((uint32_t)parts), "d"((uint32_t)(parts >> 32))
				 : "memory");
}

/* All of the state: what the area does not name becomes initial, also parts that are in no area. */
static void fp_load(const uint8_t *area)
{
	const struct pv_config *c = pv_config();
	static const uint32_t zero;

	if (c->fip_stays)
		__asm__ volatile("fnclex; emms; fildl %0" : : "m"(zero));
	if (c->xsave)
		__asm__ volatile("xrstor64 (%0)" : : "r"(area), "a"(~0u), "d"(~0u) : "memory");
	else
		__asm__ volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
}

static void zero(uint8_t *area, unsigned int from, unsigned int to)
{
	while (from < to)
		area[from++] = 0;
}

/* FXRSTOR knows nothing of xstate_bv. */
static void fx_expand(uint8_t *area)
{
	if (!(area[FX_XSTATE_BV] & XF_X87)) {
		zero(area, FX_X87_AFTER, FX_MXCSR);
		zero(area, FX_ST, FX_XMM);
		area[FX_FCW] = FCW_INIT & 0xff;
		area[FX_FCW + 1] = FCW_INIT >> 8;
	}
	if (!(area[FX_XSTATE_BV] & XF_SSE))
		zero(area, FX_XMM, FX_END);
	area[FX_XSTATE_BV] = XF_X87 | XF_SSE;
}

/* The TLB */

/* CR3 for user code, and whether what the TLB holds can stay. Interrupts are off: what comes later interrupts user code. */
static uint64_t user_cr3(struct mvcpu *v, const struct as *as)
{
	const uint64_t root = pv_root(v->mon, as), id = as->backend[PV_AS_ID];
	const uint64_t gen = __atomic_load_n(&as->backend[PV_AS_GEN], __ATOMIC_SEQ_CST);
	struct pv_tlb *t = tlb_of(v);
	unsigned int i;

	if (!pv_config()->pcid)
		return root;
	for (i = 0; i < PV_PCIDS; i++)
		if (t->space[i].id == id)
			break;
	if (i < PV_PCIDS && t->space[i].gen == gen)
		return root | (i + 1) | CR3_KEEP;
	if (i == PV_PCIDS) {
		i = t->next++ % PV_PCIDS;
		t->space[i].id = id;
	}
	t->space[i].gen = gen;
	return root | (i + 1);
}

/* Drop pages from the TLB of this vCPU one by one, where that is all it takes to be at the new generation. */
static void drop_here(struct mvcpu *v, const struct as *as, uint64_t va, uint64_t pages)
{
	struct pv_tlb *t = tlb_of(v);

	for (unsigned int i = 0; i < PV_PCIDS; i++) {
		if (t->space[i].id != as->backend[PV_AS_ID])
			continue;
		if (t->space[i].gen != as->backend[PV_AS_GEN] - 1)
			return;
		for (; pages; pages--, va += KEEL_PAGE_SIZE) {
			const uint64_t what[2] = { i + 1, va };

			__asm__ volatile("invpcid %0, %1" : : "m"(what), "r"((uint64_t)INVPCID_ADDRESS) : "memory");
		}
		t->space[i].gen++;
		return;
	}
}

void pv_user_stale(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages)
{
	if (v->backend[PV_SLOT_FAULT] || KEEL_BUG(23))
		return;
	__atomic_store_n(&as->backend[PV_AS_GEN], as->backend[PV_AS_GEN] + 1, __ATOMIC_SEQ_CST);
	as->backend[PV_AS_DIRTY] = 1;
	if (pv_config()->invpcid && pages <= PV_FLUSH_MAX && !as->table_limbo)
		drop_here(v, as, va, pages);
}

void pv_user_settle(struct mvcpu *v, struct as *as)
{
	uint32_t others;

	/* Tables that held nothing went back: no page is stale, but the way to them may be remembered. */
	if (as->table_limbo)
		pv_user_stale(v, as, 0, PV_FLUSH_MAX + 1);
	if (!as->backend[PV_AS_DIRTY])
		return;
	as->backend[PV_AS_DIRTY] = 0;
	others = __atomic_load_n(&as->running, __ATOMIC_SEQ_CST) & ~(1u << v->id);
	if (others)
		pv_shoot(v, others, PV_QUIET_KERNEL);
}

bool mb_as_create(struct mvcpu *v, struct as *as)
{
	struct pv_config *c = pv_config();

	(void)v;
	as->backend[PV_AS_ID] = __atomic_add_fetch(&c->spaces_made, 1, __ATOMIC_RELAXED);
	as->root[KEEL_VA_END >> PV_ROOT_SHIFT] = c->user_window;
	return true;
}

/* What TLBs hold of it is under a number that is never entered again. */
void mb_as_destroy(struct mvcpu *v, struct as *as)
{
	(void)v;
	as->root[KEEL_VA_END >> PV_ROOT_SHIFT] = 0;
}

/* Running it */

/* A byte of user code; false: nothing is mapped there, or no RAM. */
static bool code_byte(struct mvcpu *v, uint64_t va, uint8_t *byte)
{
	struct as *as = v->user_as;
	uint64_t pte, gpa;
	bool ram;

	if (va < KEEL_VA_MIN || va >= KEEL_VA_END)
		return false;
	mon_lock(&as->lock);
	pte = as_lookup(v->mon, as, va & ~(KEEL_PAGE_SIZE - 1));
	gpa = (pte & PTE_ADDR) + va % KEEL_PAGE_SIZE;
	ram = pte && mon_range_ok(v->mon, gpa, 1);
	if (ram)
		*byte = *(const volatile uint8_t *)(v->mon->ram + gpa);
	mon_unlock(&as->lock);
	return ram;
}

static bool is_prefix(uint8_t byte)
{
	static const uint8_t legacy[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3 };

	for (unsigned int i = 0; i < sizeof(legacy); i++)
		if (byte == legacy[i])
			return true;
	return byte >> 4 == 4; /* REX */
}

/* Intel's processors make #GP of it, for there is nothing in its MSRs; KEEL-USER-15 wants what AMD's make. */
static bool is_sysenter(struct mvcpu *v)
{
	uint64_t at = v->user.rip;
	uint8_t byte;

	for (unsigned int i = 0; i < INSTRUCTION_MAX && code_byte(v, at, &byte); i++, at++)
		if (byte == 0x0f)
			return code_byte(v, at + 1, &byte) && byte == 0x34;
		else if (!is_prefix(byte))
			break;
	return false;
}

static uint32_t exception(struct mvcpu *v, uint32_t vector)
{
	if (vector == KEEL_VEC_GP && is_sysenter(v))
		vector = KEEL_VEC_UD;
	mon_user_exception(v, vector);
	return KEEL_USER_EXCEPTION;
}

static uint32_t page_fault(struct mvcpu *v, uint64_t error, uint64_t addr)
{
	bool retry;

	/*
	 * An access the processor makes in its own name, of which no user page can be the
	 * object. No processor faults so; QEMU's does, which takes lret and iret for accesses
	 * of the kernel's that SMAP forbids.
	 */
	if (!(error & X86_PF_USER))
		return exception(v, KEEL_VEC_GP);
	v->backend[PV_SLOT_FAULT] = 1;
	retry = mon_user_fault(v, addr, error & X86_PF_WRITE, error & X86_PF_INSTR);
	v->backend[PV_SLOT_FAULT] = 0;
	return retry ? 0 : KEEL_USER_EXCEPTION;
}

static void keep_registers(struct keel_user *u, const struct pv_frame *f)
{
	u->rip = f->rip;
	u->rsp = f->rsp;
	u->rflags = (f->rflags & KEEL_USER_RFLAGS) | PV_USER_FLAGS;
	u->rax = f->rax;
	u->rbx = f->rbx;
	u->rcx = f->rcx;
	u->rdx = f->rdx;
	u->rsi = f->rsi;
	u->rdi = f->rdi;
	u->rbp = f->rbp;
	u->r8 = f->r8;
	u->r9 = f->r9;
	u->r10 = f->r10;
	u->r11 = f->r11;
	u->r12 = f->r12;
	u->r13 = f->r13;
	u->r14 = f->r14;
	u->r15 = f->r15;
}

/* Behind a system call that changed neither: sysret takes rip and flags from rcx and r11, and is quicker than iretq. */
static bool can_sysret(const struct keel_user *u)
{
	return u->rcx == u->rip && u->r11 == ((u->rflags & KEEL_USER_RFLAGS & ~RFLAGS_TF) | PV_USER_FLAGS);
}

/* Until the next interrupt, system call or exception. Returns the reason to stop, 0 = none. Interrupts are off. */
static uint32_t run(struct mvcpu *v)
{
	struct keel_user *u = &v->user;
	const struct pv_frame *f;
	uint64_t vector, error, addr = 0;
	uint32_t reason;

	set_fs_base(u->fs_base);
	set_gs_base(u->gs_base);
	f = pv_user_run(u, door_of(v), user_cr3(v, v->user_as), can_sysret(u));
	u->gs_base = gs_base();
	set_gs_base((uint64_t)block_of(v));
	u->fs_base = fs_base();
	vector = f->vector;
	error = f->error;
	if (vector == KEEL_VEC_PF)
		__asm__ volatile("mov %%cr2, %0" : "=r"(addr));
	keep_registers(u, f);
	if (vector == PV_VECTOR_SYSCALL)
		return KEEL_USER_SYSCALL;
	if (vector >= PV_EXCEPTIONS) {
		pv_upcall(v, (uint32_t)vector);
		return 0;
	}
	/* Locks are waited for with interrupts on: their holders may want this vCPU's TLB flushed. */
	__asm__ volatile("sti" : : : "memory");
	reason = vector == KEEL_VEC_PF ? page_fault(v, error, addr) : exception(v, (uint32_t)vector);
	__asm__ volatile("cli" : : : "memory");
	return reason;
}

uint32_t mb_user(struct mvcpu *v)
{
	const uint64_t flags = interrupts_off(), fs = fs_base();
	uint8_t *kernel = block_of(v) + PV_FP_OFF, *user = v->copy.bytes;
	const enum pv_quiet was = pv_quiet(v, PV_QUIET_KERNEL);
	uint32_t reason = 0;

	if (!pv_config()->xsave)
		fx_expand(user);
	fp_save(kernel, ~KEEL_U64(0));
	fp_load(user);
	clear_selectors();
	set_gs_base((uint64_t)block_of(v));
	while (!reason)
		reason = mon_user_event(v) ? KEEL_USER_EVENT : run(v);
	fp_save(user, v->mon->xfeatures);
	if (!KEEL_BUG(47))
		fp_load(kernel);
	set_fs_base(fs);
	pv_loud(v, was);
	interrupts_restore(flags);
	return reason;
}
