/* SPDX-License-Identifier: MIT */
/*
 * The monitor's backend half in a kvm guest: it runs at CPL 0 beside the guest's
 * kernel and lets the processor walk the tree. Nothing in here is trusted by the
 * host; the wall is the machine's second-level page tables and its exits.
 *
 * All text is read-only and shared; variables live in struct mon and struct mvcpu.
 */
#include <hypercall/clock.h>

#include "../../monitor/bugs.h"
#include "pv_cpu.h"
#include "pv_main.h"

#define MSR_APIC_EOI 0x80b
#define MSR_APIC_SVR 0x80f
#define MSR_APIC_ICR 0x830
#define MSR_APIC_LVTT 0x832
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_KVM_PV_EOI 0x4b564d04
#define APIC_ENABLE 0x100
#define APIC_LVT_TSC_DEADLINE (2 << 17)

#define X86_PF_PRESENT 1
#define X86_PF_WRITE 2
#define X86_PF_INSTR 16

#define INT_LENGTH 2 /* bytes of an `int n` */
#define HLT_LENGTH 1
#define RFLAGS_TF KEEL_U64(0x100)
#define KVM_HC_SCHED_YIELD 11

MON_SYMBOL void pv_start(struct keel_vcpu *page);
/* As at the first start: pv_begin(), then the guest. */
MON_SYMBOL void pv_again(struct mvcpu *v) __attribute__((noreturn));
MON_SYMBOL void pv_begin(struct mvcpu *v);
extern char pv_halt[] MON_SYMBOL; /* the hlt of mb_wait() */
MON_SYMBOL int pv_interrupt(struct pv_frame *f, uint8_t *block);

#ifdef KEEL_BUGS
unsigned int keel_bug __attribute__((section(".bug"))); /* at PV_BUG_OFF, where the host writes it */
#endif

static uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return lo | (uint64_t)hi << 32;
}

static void out32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "d"(port) : "memory");
}

/* What a vCPU has of its own in the machine. On its thread, before its first guest instruction. */
static void start_lapic(struct mvcpu *v)
{
	wrmsr(MSR_APIC_SVR, APIC_ENABLE | PV_VECTOR_SPURIOUS);
	wrmsr(MSR_APIC_LVTT, APIC_LVT_TSC_DEADLINE | PV_VECTOR_TIMER);
	if (pv_config()->pv_eoi)
		wrmsr(MSR_KVM_PV_EOI, (PV_DATA_GPA + ((uint64_t)&v->backend[PV_SLOT_EOI] - MON_VCPU_VA)) | 1);
}

static void init_vcpu(struct mon *m, uint32_t id)
{
	struct keel_vcpu *page = (struct keel_vcpu *)(MON_VCPU_VA + id * MON_BLOCK_SIZE);
	struct mvcpu *v = mv_of(page);

	mon_vcpu_init(m, v, page, id);
	v->iret_cs = PV_CS;
	v->iret_ss = PV_SS;
	v->backend[PV_SLOT_TIMER] = v->backend[PV_SLOT_WAIT] = v->backend[PV_SLOT_ARMED] = KEEL_TIME_NEVER;
	v->backend[PV_SLOT_QUIET] = id ? PV_QUIET : PV_LOUD;
}

/* The partition's, by vCPU 0. The host waits for READY, and then lets it return when the partition is to start. */
static void start_partition(struct mon *m, struct mvcpu *v)
{
	static const uint64_t none[5];
	uint64_t ready[5] = { 0 };

	for (uint32_t i = 0; i < m->vcpus; i++)
		init_vcpu(m, i);
	start_lapic(v);
	m->tables_walked = true;
	mon_init(m);
	m->as0.root[KEEL_VA_END >> PV_ROOT_SHIFT] = pv_config()->window;
	pv_load_root(m);
	pv_user_init(v);
	ready[0] = (uint64_t)mon_boot_map(v);
	mb_remote(v, MON_REMOTE_READY, ready);
	if (ready[0])
		for (;;)
			mb_remote(v, MON_REMOTE_FATAL, none); /* the host gave up already */
}

void pv_start(struct keel_vcpu *page)
{
	struct mvcpu *v = mv_of(page);

	if ((uint64_t)page == MON_VCPU_VA) {
		start_partition((struct mon *)MON_VA, v);
		return;
	}
	start_lapic(v);
	pv_load_root(v->mon);
	pv_user_init(v);
	pv_again(v);
}

/* x87, SSE and all else that XSAVE knows as a processor's reset has them. */
static void reset_fp(void)
{
	static const struct {
		uint16_t fcw;
		uint8_t unused[22];
		uint32_t mxcsr;
		uint8_t rest[576 - 28]; /* registers, and a header that says that there are none */
	} init __attribute__((aligned(64))) = { .fcw = 0x37f, .mxcsr = 0x1f80 };

	if (pv_config()->xsave)
		__asm__ volatile("xrstor64 %0" : : "m"(init), "a"(-1), "d"(-1));
	else
		__asm__ volatile("fxrstor64 %0" : : "m"(init));
}

/* On the monitor's stack, interrupts on. */
void pv_begin(struct mvcpu *v)
{
	const uint64_t flags = interrupts_off();

	pv_loud(v, PV_LOUD);
	interrupts_restore(flags);
	reset_fp();
	wrmsr(MSR_FS_BASE, 0);
	mon_begin(v);
}

void mb_park(struct mvcpu *v)
{
	static const uint64_t none[5];

	do
		mb_remote(v, MON_REMOTE_PARKED, none);
	while (__atomic_load_n(&v->run, __ATOMIC_SEQ_CST) != MON_STARTING);
	pv_again(v);
}

/* Interrupts and exceptions */

static void save(struct mvcpu *v, const struct pv_frame *s)
{
	struct keel_frame *f = &v->cur;

	f->rip = s->rip;
	f->rsp = s->rsp;
	f->rflags = s->rflags | KEEL_RFLAGS_IF; /* whatever the guest made of it */
	f->rax = s->rax;
	f->rbx = s->rbx;
	f->rcx = s->rcx;
	f->rdx = s->rdx;
	f->rsi = s->rsi;
	f->rdi = s->rdi;
	f->rbp = s->rbp;
	f->r8 = s->r8;
	f->r9 = s->r9;
	f->r10 = s->r10;
	f->r11 = s->r11;
	f->r12 = s->r12;
	f->r13 = s->r13;
	f->r14 = s->r14;
	f->r15 = s->r15;
}

static void __attribute__((noreturn)) fatal(struct mvcpu *v, const struct pv_frame *f, uint64_t addr)
{
	save(v, f);
	v->fatal.kind = MON_FATAL_MONITOR;
	v->fatal.arg[0] = f->vector;
	v->fatal.arg[1] = 0;
	v->fatal.regs = v->cur;
	v->fatal.regs.rflags &= ~(uint64_t)KEEL_RFLAGS_IF;
	v->fatal.regs.rflags |= v->page->if_enabled ? KEEL_RFLAGS_IF : 0;
	v->fatal.regs.vector = (uint32_t)f->vector;
	v->fatal.regs.error = f->error;
	v->fatal.regs.addr = addr;
	mb_fatal(v);
}

/* GS is the way out, and the report's: make it the block again when the guest has moved it. */
static bool gs_moved(const uint8_t *block)
{
	uint64_t gs;

	if (pv_config()->fsgsbase)
		__asm__ volatile("rdgsbase %0" : "=r"(gs));
	else
		gs = rdmsr(MSR_GS_BASE);
	if (gs == (uint64_t)block)
		return false;
	wrmsr(MSR_GS_BASE, (uint64_t)block);
	return true;
}

/* In one instruction: KVM takes the bit back, and wants an EOI, when it gets hold of the vCPU in between. */
static void end_of_interrupt(struct mvcpu *v)
{
	bool done;

	__asm__ volatile("btrq $0, %0" : "+m"(v->backend[PV_SLOT_EOI]), "=@ccc"(done));
	if (!done)
		wrmsr(MSR_APIC_EOI, 0);
}

/* 1: run v->cur; 0: go on where it was. */
static int page_fault(struct mvcpu *v, struct pv_frame *f, uint64_t addr, bool monitor)
{
	const bool write = f->error & X86_PF_WRITE, fetch = f->error & X86_PF_INSTR;
	uint64_t error;
	bool retry;

	/* The listed instructions of gate.S touch the guest's stack, in the guest's name. */
	if (monitor && !(f->rip == (uint64_t)gate_ret || f->rip == (uint64_t)gate_load_rip))
		fatal(v, f, addr);
	v->backend[PV_SLOT_FAULT] = 1;
	retry = mon_fault(v, &v->mon->as0, addr, write, fetch, &error);
	v->backend[PV_SLOT_FAULT] = 0;
	/* In the host's window there is no tree to ask. */
	if (addr >= KEEL_VA_END && f->error & X86_PF_PRESENT && !KEEL_BUG(24))
		error |= KEEL_PF_P;
	if (retry)
		return 0;
	save(v, f);
	mon_trap(v, KEEL_VEC_PF, error, addr);
	return 1;
}

void pv_upcall(struct mvcpu *v, uint32_t vector)
{
	switch (vector) {
	case PV_VECTOR_SHOOT:
		end_of_interrupt(v);
		pv_answer(v);
		break;
	case PV_VECTOR_TIMER:
		/* Who wants another one asks again: mon_timer_fired(), and the loop around mb_wait(). */
		v->backend[PV_SLOT_TIMER] = v->backend[PV_SLOT_WAIT] = v->backend[PV_SLOT_ARMED] = KEEL_TIME_NEVER;
		end_of_interrupt(v);
		__atomic_add_fetch(&v->kick_seq, 1, __ATOMIC_SEQ_CST);
		mon_timer_fired(v);
		break;
	case PV_VECTOR_KICK:
		end_of_interrupt(v);
		__atomic_add_fetch(&v->kick_seq, 1, __ATOMIC_SEQ_CST);
		break;
	}
}

/**
 * pv_interrupt - decide what an interrupt or exception means
 * @f: the interrupted registers; rip and rflags may be changed when monitor code is to go on
 * @block: the vCPU's block, from the stack's place
 *
 * Returns 1 to run v->cur, 0 to go on where it was.
 */
int pv_interrupt(struct pv_frame *f, uint8_t *block)
{
	struct mvcpu *v = mv_of((struct keel_vcpu *)block);
	const bool monitor = f->rip >= (uint64_t)mon_text_start && f->rip < (uint64_t)mon_text_end;
	uint64_t addr = 0;

	/* User code's TF, or what it did to its stack segment before a system call: GS is still the user's there. */
	if (f->vector == KEEL_VEC_DB && f->rip == (uint64_t)pv_syscall) {
		f->rflags &= ~RFLAGS_TF;
		return 0;
	}
	if (f->vector == KEEL_VEC_PF)
		__asm__ volatile("mov %%cr2, %0" : "=r"(addr));
	if (gs_moved(block))
		fatal(v, f, addr);

	switch (f->vector) {
	case PV_VECTOR_SHOOT:
		pv_upcall(v, PV_VECTOR_SHOOT);
		return 0;
	case PV_VECTOR_TIMER:
	case PV_VECTOR_KICK:
	case PV_VECTOR_SPURIOUS:
		pv_upcall(v, (uint32_t)f->vector);
		/*
		 * About to wait: this is what it waits for. No processor takes an interrupt behind
		 * sti, but QEMU's nested one does when there was an exit in between.
		 */
		if (f->rip == (uint64_t)pv_halt)
			f->rip += HLT_LENGTH;
		if (mon_upcall(v, &f->rip, &f->rflags))
			return 0;
		save(v, f);
		return 1;
	case KEEL_VEC_PF:
		return page_fault(v, f, addr, monitor);
	default:
		if (monitor)
			fatal(v, f, 0);
		save(v, f);
		if (f->vector < 32) {
			mon_trap(v, (uint32_t)f->vector, 0, 0);
		} else {
			/* `int n`, but for those taken for upcalls above: as if its gate had been out of reach (KEEL-NORM-16). */
			v->cur.rip -= INT_LENGTH;
			mon_trap(v, KEEL_VEC_GP, 0, 0);
		}
		return 1;
	}
}

/* Memory */

bool mb_release(struct mvcpu *v, uint64_t gpa, uint64_t pages)
{
	const uint64_t arg[5] = { gpa, pages };

	return mb_remote(v, PV_REMOTE_RELEASE, arg).status == KEEL_OK;
}

/* Time */

uint64_t mb_now(struct mvcpu *v)
{
	static const uint64_t none[5];
	keel_u64 ns;

	if (keel_clock_read(keel_share(v->mon->clock), &ns))
		return ns;
	return mb_remote(v, PV_REMOTE_NOW, none).value;
}

/*
 * Arm the LAPIC for the nearer of the two deadlines; it may fire early or late, the
 * monitor looks again. Interrupts are off.
 */
static void arm(struct mvcpu *v)
{
	const volatile struct keel_clock *clock = v->mon->clock;
	const uint64_t mult = clock->flags & KEEL_CLOCK_VALID ? clock->mult : pv_config()->tsc_mult;
	uint64_t *s = v->backend, deadline = s[PV_SLOT_TIMER], now, ns, rest, tsc;

	if (s[PV_SLOT_WAIT] < deadline)
		deadline = s[PV_SLOT_WAIT];
	if (deadline == s[PV_SLOT_ARMED])
		return;
	s[PV_SLOT_ARMED] = deadline;
	if (deadline == KEEL_TIME_NEVER) {
		wrmsr(MSR_TSC_DEADLINE, 0);
		return;
	}
	now = mon_now(v);
	tsc = rdtsc();
	ns = deadline > now ? deadline - now : 0;
	/* ns * 2^32 / mult in ticks. The quotient fits: the far future is cut to some years. */
	if (ns > KEEL_U64(1) << 58)
		ns = KEEL_U64(1) << 58;
	__asm__("divq %2" : "=a"(ns), "=d"(rest) : "r"(mult), "a"(ns << 32), "d"(ns >> 32) : "cc");
	wrmsr(MSR_TSC_DEADLINE, tsc + ns + 1);
}

void mb_timer(struct mvcpu *v, uint64_t deadline)
{
	const uint64_t flags = interrupts_off();

	v->backend[PV_SLOT_TIMER] = deadline;
	arm(v);
	interrupts_restore(flags);
}

bool mb_wait(struct mvcpu *v, uint32_t seq, uint64_t deadline)
{
	enum pv_quiet was;

	v->backend[PV_SLOT_WAIT] = deadline;
	__asm__ volatile("cli" : : : "memory");
	arm(v);
	was = pv_quiet(v, PV_QUIET);
	/* sti takes effect behind the next instruction: nothing gets between it and hlt (but see pv_interrupt()). */
	if (__atomic_load_n(&v->kick_seq, __ATOMIC_SEQ_CST) == seq)
		__asm__ volatile("sti; pv_halt: hlt; cli" : : : "memory");
	pv_loud(v, was);
	__asm__ volatile("sti" : : : "memory");
	v->backend[PV_SLOT_WAIT] = KEEL_TIME_NEVER;
	return true;
}

/* Other vCPUs */

void pv_ipi(const struct mvcpu *to, uint32_t vector)
{
	wrmsr(MSR_APIC_ICR, (uint64_t)to->id << 32 | vector);
}

void mb_kick(struct mvcpu *v, struct mvcpu *to)
{
	(void)v;
	pv_ipi(to, PV_VECTOR_KICK);
}

void pv_yield_to(const struct mvcpu *to)
{
	uint64_t call = KVM_HC_SCHED_YIELD;

	/* The instruction is the vendor's; on the other's KVM would want to rewrite it. */
	if (pv_config()->yield == PV_YIELD_VMCALL)
		__asm__ volatile("vmcall" : "+a"(call) : "b"((uint64_t)to->id) : "memory");
	else if (pv_config()->yield == PV_YIELD_VMMCALL)
		__asm__ volatile("vmmcall" : "+a"(call) : "b"((uint64_t)to->id) : "memory");
}

/* To anyone: the host's scheduler sees the other threads itself, and the processor who spins. */
void mb_yield(struct mvcpu *v, struct mvcpu *to)
{
	(void)v;
	if (to)
		pv_yield_to(to);
	__asm__ volatile("pause");
}

void mb_relax(unsigned int round)
{
	struct mvcpu *v;

	__asm__("mov %%gs:0, %0" : "=r"(v));
	v = mv_of((struct keel_vcpu *)v);
	pv_answer(v);
	__asm__ volatile("pause");
	/* Nobody knows whose lock it is: to one after the other. */
	if (round % PV_YIELD_ROUNDS == PV_YIELD_ROUNDS - 1)
		pv_yield_to(mv_peer(v, round / PV_YIELD_ROUNDS % v->mon->vcpus));
}

/* Leaving the guest */

mret mb_remote(struct mvcpu *v, uint32_t id, const uint64_t *arg)
{
	struct mon_remote *r = &v->remote;
	/* The timer's interrupt asks the host for the time where there is no clock page: one slot, one user. */
	const uint64_t flags = interrupts_off();
	const enum pv_quiet was = pv_quiet(v, PV_QUIET);
	mret ret;

	r->id = id;
	for (unsigned int i = 0; i < 5; i++)
		r->word[i] = arg[i];
	out32(PV_PORT_REMOTE, 0);
	ret = MRET((int64_t)r->word[0], r->word[1]);
	pv_loud(v, was);
	interrupts_restore(flags);
	return ret;
}

void mb_doorbell(struct mvcpu *v)
{
	(void)v;
	out32(PV_PORT_DOORBELL, 0);
}

void mb_device(struct mvcpu *v, uint32_t device)
{
	(void)v;
	out32(PV_PORT_DOORBELL, 1 + device);
}

void mb_fatal(struct mvcpu *v)
{
	static const uint64_t none[5];

	/* The host does not answer: it takes the partition apart. */
	for (;;)
		mb_remote(v, MON_REMOTE_FATAL, none);
}
