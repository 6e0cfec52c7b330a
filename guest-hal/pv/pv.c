// SPDX-License-Identifier: MIT
/*
 * The pv flavour: hypercalls and the shared pages of the Keel ABI, through
 * libhypercall. Read it beside native/ to see what each function replaced.
 */
#include <hypercall/batch.h>
#include <hypercall/guest.h>

#include "../common/core.h"

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(MMU) | KEEL_NEEDS(TRAP) | KEEL_NEEDS(VCPU) | KEEL_NEEDS(EVENT) |
			 KEEL_NEEDS(TIME) | KEEL_NEEDS(CONSOLE),
		 KEEL_NEEDS(MULTICALL) | KEEL_NEEDS(HARVEST) | KEEL_NEEDS(MEMORY) | KEEL_NEEDS(CRASH) |
			 KEEL_NEEDS(STATS),
		 0, KEEL_U64(1) << KEEL_F1_CLOCK_PAGE);
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

#define GUEST_PERCPU 0 /* keel_vcpu.guest[] word of hal_percpu() */
#define LAZY_RECORDS 256
/* A range goes to the host in pieces one call can finish, with interrupts taken in between. */
#define RANGE_PIECE (512 * HAL_PAGE_SIZE)

static const struct keel_start *start_info;
static const struct keel_clock __pvshared *clock_page;
static struct hal_cpu cpu_info;
static struct keel_port port[HAL_IRQ_COUNT];
static uint64_t timer_at = HAL_NEVER; /* the deadline that has not fired yet */
static char dump_stack[16384] __attribute__((aligned(16)));
static char double_stack[16384] __attribute__((aligned(16)));

static struct keel_mmu_record records[LAZY_RECORDS] __attribute__((aligned(4096)));
static struct keel_batch batch;
static int lazy_error;

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
static bool timer_due(void)
{
	if (timer_at == HAL_NEVER || hal_clock_ns() < timer_at)
		return false;
	timer_at = HAL_NEVER;
	return true;
}

/* Most urgent pending port as a line; ports the HAL did not allocate have none and stay masked. */
static int next_irq(void)
{
	int bit;

	while ((bit = keel_ev_next(keel_share(keel_vcpu_page()))) >= 0) {
		for (int irq = 0; irq < HAL_IRQ_COUNT; irq++) {
			if (KEEL_PORT_BIT(port[irq].v) != (unsigned int)bit)
				continue;
			if (irq != HAL_IRQ_TIMER || timer_due())
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
	keel_u32 bit = KEEL_PORT_BIT(port[irq].v);

	if (mask)
		keel_ev_mask(keel_share(keel_vcpu_page()), bit);
	else if (keel_ev_unmask(keel_share(keel_vcpu_page()), bit))
		deliver();
	return 0;
}

int hal_irq_raise(enum hal_irq irq)
{
	if ((unsigned int)irq < HAL_IRQ_SOFT0 || (unsigned int)irq >= HAL_IRQ_COUNT)
		return -HAL_EINVAL;
	if (keel_ev_send(keel_share(keel_vcpu_page()), KEEL_PORT_BIT(port[irq].v)))
		deliver();
	return 0;
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
	return hal_error(keel_event_dump(keel_vcpu_page()->id).status);
}

/* ---------------------------------------------------------------- memory */

/* Submit what was put off; its errors belong to the lazy section, whoever submits. IF off. */
static void flush_lazy(void)
{
	int err;

	if (!batch.count && !batch.status)
		return;
	err = hal_error(keel_batch_flush(&batch));
	if (!lazy_error)
		lazy_error = err;
	keel_batch_clear(&batch);
}

static keel_s64 add(keel_u16 op, uint64_t va, uint64_t pa, uint64_t len, unsigned int prot, unsigned int flags)
{
	switch (op) {
	case KEEL_MMU_MAP:
		return keel_batch_map(&batch, va, keel_gpa(pa), len, (keel_u16)prot,
				      flags & HAL_MAP_POPULATE ? KEEL_MMU_POPULATE : 0);
	case KEEL_MMU_UNMAP:
		return keel_batch_unmap(&batch, va, len);
	default:
		return keel_batch_protect(&batch, va, len, (keel_u16)prot);
	}
}

static int update(keel_u16 op, uint64_t va, uint64_t pa, uint64_t len, unsigned int prot, unsigned int flags)
{
	bool irq = keel_irq_save();
	int err = 0;

	if (hal_core_lazy()) {
		add(op, va, pa, len, prot, flags);
		keel_irq_restore(irq);
		return 0;
	}
	flush_lazy(); /* of a section this context has interrupted: order is kept */
	while (len && !err) {
		uint64_t piece = len < RANGE_PIECE ? len : RANGE_PIECE;

		add(op, va, pa, piece, prot, flags);
		err = hal_error(keel_batch_flush(&batch));
		keel_batch_clear(&batch);
		va += piece;
		pa += piece;
		len -= piece;
		keel_irq_restore(irq);
		keel_irq_disable();
	}
	keel_irq_restore(irq);
	return err;
}

int hal_flavour_map(uint64_t va, uint64_t pa, uint64_t len, unsigned int prot, unsigned int flags)
{
	return update(KEEL_MMU_MAP, va, pa, len, prot, flags);
}

int hal_flavour_unmap(uint64_t va, uint64_t len)
{
	return update(KEEL_MMU_UNMAP, va, 0, len, 0, 0);
}

int hal_flavour_protect(uint64_t va, uint64_t len, unsigned int prot)
{
	return update(KEEL_MMU_PROTECT, va, 0, len, prot, 0);
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
	err = lazy_error;
	lazy_error = 0;
	keel_irq_restore(irq);
	return err;
}

int hal_query(uint64_t va, uint64_t *pa, unsigned int *prot)
{
	bool irq = keel_irq_save();
	struct keel_ret ret;

	flush_lazy();
	ret = keel_mmu_query(keel_as(0), va & ~(HAL_PAGE_SIZE - 1));
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

	timer_at = deadline;
	status = keel_time_set_timer(deadline).status;
	keel_irq_restore(irq);
	return hal_error(status);
}

/* ------------------------------------------------------------ processors */

const struct hal_cpu *hal_cpu(void)
{
	return &cpu_info;
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

static void bind(enum hal_irq irq, struct keel_ret ret)
{
	port[irq] = keel_port((keel_u32)keel_must(ret));
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
	const struct keel_cpu_info *cpu = keel_start_cpu(start);
	const struct keel_memmap_entry *map;
	size_t count = 0;

	start_info = start;
	if (abi)
		clock_page = (const struct keel_clock __pvshared *)abi->clock_va;
	if (cpu) {
		keel_memcpy(cpu_info.cpuid, cpu->cpuid, sizeof(cpu_info.cpuid));
		cpu_info.xfeatures = cpu->xfeatures;
		cpu_info.xsave_size = cpu->xsave_size;
		cpu_info.tsc_hz = cpu->tsc_hz;
	}
	map = keel_start_memmap(start, &count);
	for (size_t i = 0; i < count; i++) {
		if (map[i].type < HAL_ARRAY_SIZE(type_of) && map[i].type != KEEL_MEM_ABI)
			hal_core_memmap_add(map[i].gpa, map[i].len, type_of[map[i].type]);
	}
	keel_batch_init(&batch, records, keel_gpa_of(records), LAZY_RECORDS, keel_as(0), keel_batch_submit, NULL);

	must(keel_entry_install(KEEL_CLASS_TRAP, trap_entry, NULL), "trap entry");
	must(keel_entry_install(KEEL_CLASS_DOUBLE, double_entry, double_stack + sizeof(double_stack)),
	     "double fault entry");
	must(keel_entry_install(KEEL_CLASS_DUMP, dump_entry, dump_stack + sizeof(dump_stack)), "dump entry");
	must(keel_entry_install(KEEL_CLASS_EVENT, event_entry, NULL), "event entry");
	bind(HAL_IRQ_TIMER, keel_event_bind(KEEL_SOURCE_TIMER, 0));
	bind(HAL_IRQ_CONSOLE, keel_event_bind(KEEL_SOURCE_CONSOLE, 3));
	for (int irq = HAL_IRQ_SOFT0; irq < HAL_IRQ_COUNT; irq++)
		bind((enum hal_irq)irq, keel_event_alloc(2));
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
