// SPDX-License-Identifier: MIT
/*
 * The pv flavour: hypercalls and the shared pages of the Keel ABI, through
 * libhypercall. Read it beside native/ to see what each function replaced.
 */
#include <hypercall/batch.h>
#include <hypercall/guest.h>
#include <hypercall/repeat.h>
#include <hypercall/smp.h>
#include <hypercall/user.h>

#include "../common/core.h"

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(MMU) | KEEL_NEEDS(TRAP) | KEEL_NEEDS(VCPU) | KEEL_NEEDS(EVENT) |
			 KEEL_NEEDS(TIME) | KEEL_NEEDS(CONSOLE),
		 KEEL_NEEDS(MULTICALL) | KEEL_NEEDS(HARVEST) | KEEL_NEEDS(MEMORY) | KEEL_NEEDS(CRASH) |
			 KEEL_NEEDS(STATS) | KEEL_NEEDS(AS) | KEEL_NEEDS(USER),
		 0, KEEL_U64(1) << KEEL_F1_CLOCK_PAGE | KEEL_U64(1) << KEEL_F1_SMP);
KEEL_IMAGE_LINEAR(HAL_LINEAR_VA);

/* Handlers get the ABI's frame as it is. */
KEEL_ASSERT_SIZE(struct hal_frame, KEEL_FRAME_SIZE);
KEEL_ASSERT_AT(struct hal_frame, vector, KEEL_FRAME_VECTOR);
KEEL_ASSERT_AT(struct hal_frame, error, KEEL_FRAME_ERROR);
KEEL_ASSERT_AT(struct hal_frame, addr, KEEL_FRAME_ADDR);
KEEL_ASSERT_AT(struct hal_frame, rip, KEEL_FRAME_RIP);
KEEL_ASSERT_AT(struct hal_frame, rflags, KEEL_FRAME_RFLAGS);
KEEL_ASSERT_AT(struct hal_frame, rax, KEEL_FRAME_RAX);
KEEL_ASSERT_AT(struct hal_frame, rbp, KEEL_FRAME_RBP);
KEEL_ASSERT_AT(struct hal_frame, r15, KEEL_FRAME_R15);

/* keel_vcpu.guest[] words */
#define GUEST_PERCPU 0 /* hal_percpu() */
#define GUEST_LAZY 1   /* depth of lazy sections */

#define LAZY_RECORDS 256
/* A range goes to the host in pieces one call can finish, with interrupts taken in between. */
#define RANGE_PIECE (512 * HAL_PAGE_SIZE)

static const struct keel_start *start_info;
static const struct keel_clock __pvshared *clock_page;

/* What belongs to one CPU. Used by it alone, with interrupts off. */
static struct pv_cpu {
	struct keel_mmu_record records[LAZY_RECORDS];
	char dump_stack[16384], double_stack[16384];
	struct keel_batch batch;    /* of the kernel's space, filled in lazy sections */
	struct keel_mmu_record one; /* of another space, never put off */
	struct keel_vcpu_set set;
	struct keel_port port[HAL_IRQ_COUNT];
	bool bound[HAL_IRQ_COUNT]; /* has the line a port? */
	uint64_t timer_at;	   /* the deadline that has not fired yet */
	int lazy_error;
	struct hal_cpu info;
	/* For a CPU that starts. */
	void (*fn)(void *arg);
	void *arg;
	unsigned int ready;
} cpus[HAL_CPU_MAX] __attribute__((aligned(4096)));

/* With interrupts off, or where it does not matter which CPU it was. */
static struct pv_cpu *this_cpu(void)
{
	return &cpus[keel_vcpu_id()];
}

static int hal_error(keel_s64 status)
{
	static const uint8_t error_of[KEEL_E_COUNT] = {
		[KEEL_E_NOSYS] = HAL_ENOTSUP, [KEEL_E_NOTSUP] = HAL_ENOTSUP,	 [KEEL_E_PERM] = HAL_ENOTSUP,
		[KEEL_E_AGAIN] = HAL_EBUSY,   [KEEL_E_INVAL] = HAL_EINVAL,	 [KEEL_E_FAULT] = HAL_EFAULT,
		[KEEL_E_RANGE] = HAL_ERANGE,  [KEEL_E_NOMEM] = HAL_ENOMEM,	 [KEEL_E_NOENT] = HAL_ENOENT,
		[KEEL_E_EXIST] = HAL_EBUSY,   [KEEL_E_BUSY] = HAL_EBUSY,	 [KEEL_E_CONTEXT] = HAL_EINVAL,
		[KEEL_E_STATE] = HAL_EINVAL,  [KEEL_E_TIMEDOUT] = HAL_ETIMEDOUT,
	};
	int code = KEEL_STATUS_CODE(status);

	if (!status)
		return 0;
	return code < KEEL_E_COUNT && error_of[code] ? -error_of[code] : -HAL_EINVAL;
}

const char *hal_flavour(void)
{
	return "pv";
}

/* ------------------------------------------------------------ interrupts */

bool hal_irq_enabled(void)
{
	return keel_irq_enabled();
}

void hal_irq_disable(void)
{
	keel_irq_disable();
}

void hal_irq_enable(void)
{
	keel_irq_enable();
}

bool hal_irq_save(void)
{
	return keel_irq_save();
}

void hal_irq_restore(bool was_enabled)
{
	keel_irq_restore(was_enabled);
}

/* What the timer's port was sent for a deadline that was moved meanwhile is not for the handler. */
static bool timer_due(struct pv_cpu *cpu)
{
	if (cpu->timer_at == HAL_NEVER || hal_clock_ns() < cpu->timer_at)
		return false;
	cpu->timer_at = HAL_NEVER;
	return true;
}

/* Most urgent pending port as a line; ports the HAL did not allocate have none and stay masked. */
static int next_irq(void)
{
	struct pv_cpu *cpu = this_cpu();
	int bit;

	while ((bit = keel_ev_next(keel_share(keel_vcpu_page()))) >= 0) {
		for (int irq = 0; irq < HAL_IRQ_COUNT; irq++) {
			if (!cpu->bound[irq] || KEEL_PORT_BIT(cpu->port[irq].v) != (unsigned int)bit)
				continue;
			if (irq != HAL_IRQ_TIMER || timer_due(cpu))
				return irq;
		}
	}
	return -1;
}

static void event_entry(struct keel_frame *frame)
{
	hal_core_irq((struct hal_frame *)frame, next_irq);
}

/* After a change of the event map by this vCPU itself: what a sender elsewhere does with a kick. */
static void deliver(void)
{
	if (keel_irq_enabled())
		keel_trap_deliver();
}

int hal_flavour_irq_mask(enum hal_irq irq, bool mask)
{
	bool on = keel_irq_save(), held = false;
	struct keel_port port = this_cpu()->port[irq];

	if (!this_cpu()->bound[irq]) {
		/* The console's line on another CPU: it has none. */
		keel_irq_restore(on);
		return mask ? 0 : -HAL_ENOTSUP;
	}
	if (mask)
		keel_ev_mask(keel_share(keel_vcpu_page()), KEEL_PORT_BIT(port.v));
	else
		held = keel_ev_unmask(keel_share(keel_vcpu_page()), KEEL_PORT_BIT(port.v));
	keel_irq_restore(on);
	if (held)
		deliver();
	return 0;
}

int hal_irq_raise(enum hal_irq irq)
{
	bool on, first;

	if ((unsigned int)irq < HAL_IRQ_SOFT0 || (unsigned int)irq >= HAL_IRQ_COUNT)
		return -HAL_EINVAL;
	on = keel_irq_save();
	first = keel_ev_send(keel_share(keel_vcpu_page()), KEEL_PORT_BIT(this_cpu()->port[irq].v));
	keel_irq_restore(on);
	if (first)
		deliver();
	return 0;
}

int hal_irq_send(uint64_t cpus_wanted, enum hal_irq irq)
{
	struct pv_cpu *cpu;
	keel_s64 status;
	bool on;

	if ((unsigned int)irq < HAL_IRQ_SOFT0 || (unsigned int)irq >= HAL_IRQ_COUNT)
		return -HAL_EINVAL;
	/* Without SMP there is no call for it, and nobody else. */
	if (hal_cpu_count() == 1)
		return cpus_wanted & ~1ull ? -HAL_ENOENT : cpus_wanted ? hal_irq_raise(irq) : 0;
	on = keel_irq_save();
	cpu = this_cpu();
	keel_set_clear(&cpu->set);
	for (unsigned int n = 0; n < 64; n++) {
		if (cpus_wanted >> n & 1)
			keel_set_add(&cpu->set, n);
	}
	/* The line's port has the same bit on every CPU, see lines_init(). */
	status =
		keel_vcpu_ipi(keel_gpa_of(&cpu->set), keel_set_size(&cpu->set), KEEL_PORT_BIT(cpu->port[irq].v)).status;
	keel_irq_restore(on);
	return hal_error(status);
}

int hal_wait(uint64_t deadline)
{
	/* Comes back at once when something is pending already, so nothing is slept through. */
	keel_s64 status = keel_vcpu_wait(deadline).status;

	keel_irq_enable();
	return hal_error(status);
}

/* ----------------------------------------------------------------- traps */

static void trap_entry(struct keel_frame *frame)
{
	hal_core_trap((struct hal_frame *)frame);
}

static void dump_entry(struct keel_frame *frame)
{
	frame->vector = HAL_VEC_NMI;
	hal_core_trap((struct hal_frame *)frame);
	frame->vector = 0;
}

static void double_entry(struct keel_frame *frame)
{
	hal_core_trap((struct hal_frame *)frame);
	/* The trap that found no room was never taken out of its slot, and is now given up. */
	keel_vcpu_page()->slot[KEEL_CLASS_TRAP].frame.state = KEEL_SLOT_FREE;
}

int hal_nmi_self(void)
{
	return hal_nmi_send(hal_cpu_number());
}

int hal_nmi_send(unsigned int cpu)
{
	return hal_error(keel_event_dump(cpu).status);
}

/* ---------------------------------------------------------------- memory */

unsigned int *hal_flavour_lazy_depth(void)
{
	return (unsigned int *)&keel_vcpu_page()->guest[GUEST_LAZY];
}

/* Submit what was put off; its errors belong to the lazy section, whoever submits. IF off. */
static void flush_lazy(void)
{
	struct pv_cpu *cpu = this_cpu();
	int err;

	if (!cpu->batch.count && !cpu->batch.status)
		return;
	err = hal_error(keel_batch_flush(&cpu->batch));
	if (!cpu->lazy_error)
		cpu->lazy_error = err;
	keel_batch_clear(&cpu->batch);
}

static keel_s64 add(struct keel_batch *batch, const struct keel_mmu_record *r)
{
	switch (r->op) {
	case KEEL_MMU_MAP:
		return keel_batch_map(batch, r->va, keel_gpa(r->gpa), r->len, r->prot, r->flags);
	case KEEL_MMU_UNMAP:
		return keel_batch_unmap(batch, r->va, r->len);
	default:
		return keel_batch_protect(batch, r->va, r->len, r->prot);
	}
}

/* One range at once, in pieces. IF may come on in between, and with it another CPU. */
static int update_now(hal_space_t space, struct keel_mmu_record r)
{
	uint64_t left = r.len;
	int err = 0;

	while (left && !err) {
		bool irq = keel_irq_save();
		struct pv_cpu *cpu = this_cpu();
		struct keel_batch batch;

		flush_lazy(); /* of a section this context has interrupted: order is kept */
		r.len = left < RANGE_PIECE ? left : RANGE_PIECE;
		keel_batch_init(&batch, &cpu->one, keel_gpa_of(&cpu->one), 1, keel_as(space), keel_batch_submit, NULL);
		add(&batch, &r);
		err = hal_error(keel_batch_flush(&batch));
		keel_irq_restore(irq);
		r.va += r.len;
		if (r.op == KEEL_MMU_MAP)
			r.gpa += r.len;
		left -= r.len;
	}
	return err;
}

static int update(hal_space_t space, struct keel_mmu_record r)
{
	bool irq = keel_irq_save();
	bool put_off = space == HAL_SPACE_KERNEL && hal_core_lazy();

	if (put_off)
		add(&this_cpu()->batch, &r);
	keel_irq_restore(irq);
	return put_off ? 0 : update_now(space, r);
}

int hal_flavour_map(hal_space_t space, uint64_t va, uint64_t pa, uint64_t len, unsigned int prot, unsigned int flags)
{
	return update(space, (struct keel_mmu_record){ KEEL_MMU_MAP, (keel_u16)prot,
						       flags & HAL_MAP_POPULATE ? KEEL_MMU_POPULATE : 0, va, pa, len });
}

int hal_flavour_unmap(hal_space_t space, uint64_t va, uint64_t len)
{
	return update(space, (struct keel_mmu_record){ KEEL_MMU_UNMAP, 0, 0, va, 0, len });
}

int hal_flavour_protect(hal_space_t space, uint64_t va, uint64_t len, unsigned int prot)
{
	return update(space, (struct keel_mmu_record){ KEEL_MMU_PROTECT, (keel_u16)prot, 0, va, 0, len });
}

/* One call's worth at a time: every piece but the last ends on a whole word of the bitmap. */
static int dirty_piece(enum hal_dirty_op op, uint64_t va, uint64_t len, uint64_t *bitmap, uint64_t *done)
{
	struct keel_ret ret;

	if (op == HAL_DIRTY_START)
		ret = keel_harvest_start(keel_as(0), va, len, KEEL_HARVEST_DIRTY);
	else if (op == HAL_DIRTY_STOP)
		ret = keel_harvest_stop(keel_as(0), va, len);
	else
		ret = keel_harvest_collect(keel_as(0), va, len, keel_gpa(hal_va_to_pa(bitmap)));
	*done = KEEL_HARVEST_DONE_PAGES(ret.value) * HAL_PAGE_SIZE;
	if (*done < len)
		*done &= ~(64 * HAL_PAGE_SIZE - 1);
	return ret.status ? hal_error(ret.status) : *done ? 0 : -HAL_EBUSY;
}

int hal_flavour_dirty(enum hal_dirty_op op, uint64_t va, uint64_t len, uint64_t *bitmap)
{
	bool irq = keel_irq_save();
	int err = keel_have(KEEL_EXT_HARVEST) ? 0 : -HAL_ENOTSUP;
	uint64_t done;

	flush_lazy();
	for (; len && !err; va += done, len -= done) {
		err = dirty_piece(op, va, len, bitmap, &done);
		if (bitmap)
			bitmap += done / HAL_PAGE_SIZE / 64;
		keel_irq_restore(irq);
		keel_irq_disable();
	}
	keel_irq_restore(irq);
	return err;
}

int hal_lazy_flush(void)
{
	bool irq = keel_irq_save();
	int err;

	flush_lazy();
	err = this_cpu()->lazy_error;
	this_cpu()->lazy_error = 0;
	keel_irq_restore(irq);
	return err;
}

int hal_space_query(hal_space_t space, uint64_t va, uint64_t *pa, unsigned int *prot)
{
	bool irq = keel_irq_save();
	struct keel_ret ret;

	flush_lazy();
	ret = keel_mmu_query(keel_as(space), va & ~(HAL_PAGE_SIZE - 1));
	keel_irq_restore(irq);
	if (ret.status)
		return hal_error(ret.status);
	*pa = ret.value & ~(HAL_PAGE_SIZE - 1);
	*prot = (unsigned int)ret.value & HAL_PROT_ALL;
	if (*prot & (HAL_PROT_W | HAL_PROT_X))
		*prot |= HAL_PROT_R;
	return 0;
}

void hal_tlb_flush(uint64_t va, uint64_t len)
{
	/* Every update was complete when its call returned. */
	(void)va;
	(void)len;
}

uint64_t hal_va_to_pa(const void *va)
{
	extern char __keel_image_start[], __keel_image_end[];
	uint64_t v = (uintptr_t)va, pa;
	unsigned int prot;

	if (v >= (uintptr_t)__keel_image_start && v < (uintptr_t)__keel_image_end)
		return keel_gpa_of(va).v;
	if (v >= HAL_LINEAR_VA && hal_core_is_memory(v - HAL_LINEAR_VA, 1))
		return v - HAL_LINEAR_VA;
	if (hal_query(v, &pa, &prot))
		hal_panic("hal_va_to_pa: 0x%lx is not mapped", v);
	return pa | (v & (HAL_PAGE_SIZE - 1));
}

int hal_mem_discard(uint64_t pa, uint64_t len)
{
	if (!keel_have(KEEL_EXT_MEMORY))
		return -HAL_ENOTSUP;
	while (len) {
		struct keel_ret ret = keel_memory_release(keel_gpa(pa), len);

		if (ret.status)
			return hal_error(ret.status);
		pa += ret.value * HAL_PAGE_SIZE;
		len -= ret.value * HAL_PAGE_SIZE;
	}
	return 0;
}

/* -------------------------------------------------------- user processes */

int hal_space_create(hal_space_t *space)
{
	struct keel_ret ret = keel_as_create(0);

	if (!ret.status)
		*space = ret.value;
	return hal_error(ret.status);
}

int hal_space_clone(hal_space_t space, hal_space_t *copy, unsigned int flags)
{
	struct keel_ret ret;

	if (flags & ~HAL_CLONE_SHARE)
		return -HAL_EINVAL;
	ret = keel_as_clone_all(keel_as(space), flags & HAL_CLONE_SHARE ? KEEL_AS_CLONE_SHARE : 0);
	if (!ret.status)
		*copy = ret.value;
	return hal_error(ret.status);
}

int hal_space_destroy(hal_space_t space)
{
	return hal_error(keel_as_destroy_all(keel_as(space)).status);
}

int hal_user_enter(hal_space_t space, struct hal_user *user)
{
	/* Does not run user code when something is pending already, so nothing is run past. */
	struct keel_ret ret = keel_user_enter(keel_as(space), keel_gpa(hal_va_to_pa(user)), 0);

	keel_irq_enable();
	return ret.status ? hal_error(ret.status) : (int)ret.value;
}

/* ------------------------------------------------------------------ time */

uint64_t hal_clock_ns(void)
{
	keel_u64 ns;

	if (clock_page && keel_clock_read(clock_page, &ns))
		return ns;
	return keel_time_read().value;
}

uint64_t hal_wall_ns(void)
{
	struct keel_clock_sample s = { 0 };

	/* The offset holds whether or not the page can convert the TSC (KEEL-TIME-05). */
	if (clock_page)
		keel_clock_sample(clock_page, &s);
	return s.wall_ns + hal_clock_ns();
}

int hal_timer_set(uint64_t deadline)
{
	bool irq = keel_irq_save();
	keel_s64 status;

	this_cpu()->timer_at = deadline;
	status = keel_time_set_timer(deadline).status;
	keel_irq_restore(irq);
	return hal_error(status);
}

/* ------------------------------------------------------------ processors */

const struct hal_cpu *hal_cpu(void)
{
	return &this_cpu()->info;
}

unsigned int hal_cpu_count(void)
{
	keel_u32 n = keel_vcpus();

	return n < HAL_CPU_MAX ? n : HAL_CPU_MAX;
}

unsigned int hal_cpu_number(void)
{
	return keel_vcpu_id();
}

void hal_cpu_relax(void)
{
	keel_smp_relax();
}

bool hal_cpu_running(unsigned int cpu)
{
	return keel_smp_running(cpu);
}

int hal_cpu_stop(unsigned int cpu)
{
	return hal_error(keel_smp_stop(cpu));
}

void *hal_percpu(void)
{
	void *p;

	__asm__ volatile("mov %%gs:%c1, %0" : "=r"(p) : "i"(KEEL_VCPU_GUEST + 8 * GUEST_PERCPU));
	return p;
}

void hal_percpu_set(void *base)
{
	keel_vcpu_page()->guest[GUEST_PERCPU] = (uintptr_t)base;
}

uint64_t hal_fsbase(void)
{
	uint64_t v;

	__asm__ volatile("rdfsbase %0" : "=r"(v));
	return v;
}

void hal_fsbase_set(uint64_t base)
{
	__asm__ volatile("wrfsbase %0" ::"r"(base));
}

/* --------------------------------------------------------------- console */

void hal_write(const char *s, size_t len)
{
	keel_write(s, len);
}

int hal_getc(void)
{
	char c;

	return keel_read(&c, 1) ? (unsigned char)c : -1;
}

/* ----------------------------------------------------------------- start */

const char *hal_cmdline(void)
{
	return keel_start_cmdline(start_info);
}

bool hal_module(struct hal_mem *mem)
{
	const struct keel_module *m = keel_start_module(start_info, 0);

	if (!m)
		return false;
	*mem = (struct hal_mem){ m->gpa, m->len, HAL_MEM_MODULE };
	return true;
}

int hal_entropy(void *buf, size_t len)
{
	const keel_u8 *e = keel_start_entropy(start_info);

	if (len > KEEL_ENTROPY_SIZE)
		return -HAL_EINVAL;
	if (!e)
		return -HAL_ENOTSUP;
	keel_memcpy(buf, e, len);
	return 0;
}

static void must(keel_s64 status, const char *what)
{
	keel_must_((struct keel_ret){ status, 0 }, what);
}

/* This CPU's entries, and its ports if it has none yet: those stay when a CPU stops. */
static void lines_init(struct pv_cpu *cpu)
{
	must(keel_entry_install(KEEL_CLASS_TRAP, trap_entry, NULL), "trap entry");
	must(keel_entry_install(KEEL_CLASS_DOUBLE, double_entry, cpu->double_stack + sizeof(cpu->double_stack)),
	     "double fault entry");
	must(keel_entry_install(KEEL_CLASS_DUMP, dump_entry, cpu->dump_stack + sizeof(cpu->dump_stack)), "dump entry");
	must(keel_entry_install(KEEL_CLASS_EVENT, event_entry, NULL), "event entry");
	cpu->timer_at = HAL_NEVER;
	for (int irq = 0; irq < HAL_IRQ_COUNT; irq++) {
		struct keel_ret ret;

		if (irq == HAL_IRQ_CONSOLE && cpu != &cpus[0])
			continue;
		if (cpu->bound[irq]) {
			keel_ev_mask(keel_share(keel_vcpu_page()), KEEL_PORT_BIT(cpu->port[irq].v));
			continue;
		}
		if (irq == HAL_IRQ_TIMER)
			ret = keel_event_bind(KEEL_SOURCE_TIMER, 0);
		else if (irq == HAL_IRQ_CONSOLE)
			ret = keel_event_bind(KEEL_SOURCE_CONSOLE, 3);
		else
			ret = keel_event_alloc(2);
		cpu->port[irq] = keel_port((keel_u32)keel_must(ret));
		cpu->bound[irq] = true;
		if (KEEL_PORT_BIT(cpu->port[irq].v) != KEEL_PORT_BIT(cpus[0].port[irq].v))
			hal_panic("line %d is bit %u on CPU 0 and %u here", irq, KEEL_PORT_BIT(cpus[0].port[irq].v),
				  KEEL_PORT_BIT(cpu->port[irq].v));
	}
}

static void cpu_init(struct pv_cpu *cpu)
{
	const struct keel_cpu_info *info = keel_start_cpu(start_info);

	if (info) {
		keel_memcpy(cpu->info.cpuid, info->cpuid, sizeof(cpu->info.cpuid));
		cpu->info.xfeatures = info->xfeatures;
		cpu->info.xsave_size = info->xsave_size;
		cpu->info.tsc_hz = info->tsc_hz;
	}
	cpu->info.number = hal_cpu_number();
	keel_batch_init(&cpu->batch, cpu->records, keel_gpa_of(cpu->records), LAZY_RECORDS, keel_as(HAL_SPACE_KERNEL),
			keel_batch_submit, NULL);
	cpu->lazy_error = 0;
	*hal_flavour_lazy_depth() = 0;
	lines_init(cpu);
}

static void cpu_main(void *arg)
{
	struct pv_cpu *cpu = arg;

	cpu_init(cpu);
	__atomic_store_n(&cpu->ready, 1, __ATOMIC_RELEASE);
	cpu->fn(cpu->arg);
	hal_irq_disable();
}

int hal_cpu_start(unsigned int cpu, void *stack_top, void (*fn)(void *arg), void *arg)
{
	int err;

	if (cpu >= hal_cpu_count())
		return -HAL_ENOENT;
	if (hal_cpu_running(cpu))
		return -HAL_EBUSY;
	cpus[cpu].fn = fn;
	cpus[cpu].arg = arg;
	cpus[cpu].ready = 0;
	err = hal_error(keel_smp_start(cpu, stack_top, cpu_main, &cpus[cpu], NULL));
	while (!err && !__atomic_load_n(&cpus[cpu].ready, __ATOMIC_ACQUIRE))
		hal_cpu_relax();
	return err;
}

int keel_main(const struct keel_start *start)
{
	static const enum hal_mem_type type_of[] = {
		[KEEL_MEM_RAM] = HAL_MEM_RAM,
		[KEEL_MEM_IMAGE] = HAL_MEM_IMAGE,
		[KEEL_MEM_MODULE] = HAL_MEM_MODULE,
		[KEEL_MEM_ABI] = HAL_MEM_RESERVED,
	};
	const struct keel_abi_pages *abi = keel_start_abi(start);
	const struct keel_memmap_entry *map;
	size_t count = 0;

	start_info = start;
	if (abi)
		clock_page = (const struct keel_clock __pvshared *)abi->clock_va;
	map = keel_start_memmap(start, &count);
	for (size_t i = 0; i < count; i++) {
		if (map[i].type < HAL_ARRAY_SIZE(type_of) && map[i].type != KEEL_MEM_ABI)
			hal_core_memmap_add(map[i].gpa, map[i].len, type_of[map[i].type]);
	}
	cpu_init(&cpus[0]);
	must(keel_console_init(), "console ring");
	return hal_main();
}

/* ------------------------------------------------------------------- end */

void hal_poweroff(unsigned int code)
{
	keel_exit((int)code);
}

void hal_restart(unsigned int code)
{
	keel_restart((int)code);
}

void hal_flavour_crash(const char *message, const struct hal_frame *frame)
{
	/* Static: the text is passed by GPA, and the stack may be anywhere. */
	static char text[KEEL_CRASH_MESSAGE_MAX];

	if (frame) {
		/* The host's report has the registers at the crash call; these are those of the trap. */
		keel_irq_disable();
		keel_print_frame((const struct keel_frame *)frame);
		keel_printf("panic: %s\n", message);
		keel_crash(KEEL_CRASH_TRAP, keel_gpa_of(text),
			   (keel_u64)hal_snprintf(text, sizeof(text), "%s", message), frame->rip, frame->addr);
	}
	/* No trap, or the host does not offer CRASH for it. */
	keel_panic("%s", message);
}

unsigned int hal_stats(struct hal_stat *stats, unsigned int max)
{
	static struct keel_stats_entry entry[KEEL_STATS_MAX];
	/* In the order of hypercalls.def, as the host's counters are. */
	static const struct {
		keel_u32 id;
		const char *name;
	} names[] = {
#define KEEL_EXT(...)
#define KEEL_CALL(ext, fn, name, ...) { KEEL_CALL_ID(KEEL_EXT_##ext, fn), #name },
#include "../../abi/hypercalls.def"
#undef KEEL_EXT
#undef KEEL_CALL
	};
	struct keel_ret ret;
	unsigned int n = 0;

	if (!keel_have(KEEL_EXT_STATS))
		return 0;
	ret = keel_stats_read(keel_gpa_of(entry), sizeof(entry), 0);
	if (ret.status)
		return 0;
	for (unsigned int i = 0; i < ret.value && i < KEEL_STATS_MAX && n < max; i++) {
		const char *name = "(unknown to this kernel)";

		if (!entry[i].calls)
			continue;
		for (unsigned int k = 0; k < HAL_ARRAY_SIZE(names); k++) {
			if (names[k].id == entry[i].id)
				name = names[k].name;
		}
		stats[n++] = (struct hal_stat){ name, entry[i].calls, entry[i].errors, entry[i].work };
	}
	return n;
}
