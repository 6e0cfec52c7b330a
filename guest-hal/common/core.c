// SPDX-License-Identifier: MIT
/*
 * What both flavours share: handler tables, lazy sections, argument checks, the
 * memory map and formatted output (libhypercall's formatter, which needs nothing
 * but keel_write()). Called by kernels through hal.h and by the flavours through
 * core.h.
 */
#include <hypercall/guest.h>
#include <hypercall/user.h>

#include "core.h"

/* Contexts of user code have the ABI's layout on both flavours. */
KEEL_ASSERT_SIZE(struct hal_user, KEEL_USER_XSAVE);
KEEL_ASSERT_AT(struct hal_user, reason, KEEL_USER_REASON);
KEEL_ASSERT_AT(struct hal_user, error, KEEL_USER_ERROR);
KEEL_ASSERT_AT(struct hal_user, rip, KEEL_USER_RIP);
KEEL_ASSERT_AT(struct hal_user, rflags, KEEL_USER_RFLAGS_AT);
KEEL_ASSERT_AT(struct hal_user, rax, KEEL_USER_RAX);
KEEL_ASSERT_AT(struct hal_user, r15, KEEL_USER_R15);
KEEL_ASSERT_AT(struct hal_user, gs_base, KEEL_USER_GS_BASE);
KEEL_ASSERT_AT(struct hal_user, reserved, 0xc0);

static const char *const vector_name[HAL_VEC_COUNT] = {
	[HAL_VEC_DE] = "division error",     [HAL_VEC_DB] = "debug exception", [HAL_VEC_NMI] = "non-maskable event",
	[HAL_VEC_BP] = "breakpoint",	     [HAL_VEC_UD] = "invalid opcode",  [HAL_VEC_DF] = "double fault",
	[HAL_VEC_GP] = "general protection", [HAL_VEC_PF] = "page fault",      [HAL_VEC_MF] = "x87 exception",
	[HAL_VEC_AC] = "alignment check",    [HAL_VEC_XM] = "SIMD exception",
};

static hal_trap_fn *trap_fn[HAL_VEC_COUNT];

static struct {
	hal_irq_fn *fn;
	void *arg;
} irq_fn[HAL_IRQ_COUNT];

static void (*exit_hook)(struct hal_frame *frame);

/*
 * The CPU knows the depth of the running context's lazy sections. Handlers start
 * at 0 and put the interrupted context's depth back, which lives on their stack
 * meanwhile; so it follows the context through a preemption.
 */
unsigned int hal_core_lazy_depth(void)
{
	return *hal_flavour_lazy_depth();
}

bool hal_core_lazy(void)
{
	return hal_core_lazy_depth() != 0;
}

/* ----------------------------------------------------------------- traps */

hal_trap_fn *hal_trap_handler(unsigned int vector, hal_trap_fn *fn)
{
	hal_trap_fn *old;

	if (vector >= HAL_VEC_COUNT)
		return NULL;
	old = trap_fn[vector];
	trap_fn[vector] = fn;
	return old;
}

void hal_core_trap(struct hal_frame *frame)
{
	unsigned int depth = hal_core_lazy_depth();
	unsigned int vector = frame->vector;
	const char *name = vector < HAL_VEC_COUNT && vector_name[vector] ? vector_name[vector] : "trap";
	char message[128];

	*hal_flavour_lazy_depth() = 0;
	if (vector < HAL_VEC_COUNT && trap_fn[vector] && trap_fn[vector](frame)) {
		hal_irq_disable(); /* a handler may have enabled them; the way back is made with them off */
		*hal_flavour_lazy_depth() = frame->reserved[0] ? (unsigned int)(frame->reserved[0] - 1) : depth;
		frame->reserved[0] = 0;
		return;
	}
	hal_snprintf(message, sizeof(message), "unhandled %s (vector %u, error 0x%llx, address 0x%llx) at rip 0x%llx",
		     name, vector, (unsigned long long)frame->error, (unsigned long long)frame->addr,
		     (unsigned long long)frame->rip);
	hal_flavour_crash(message, frame);
}

void hal_frame_resume(struct hal_frame *frame, const struct hal_mark *mark, uint64_t value)
{
	frame->rbx = mark->rbx;
	frame->rbp = mark->rbp;
	frame->r12 = mark->r12;
	frame->r13 = mark->r13;
	frame->r14 = mark->r14;
	frame->r15 = mark->r15;
	frame->rsp = mark->rsp;
	frame->rip = mark->rip;
	frame->rax = value;
	frame->rflags &= HAL_RFLAGS_IF;		       /* DF and TF clear, as a function expects */
	frame->reserved[0] = 1 + (uint64_t)mark->lazy; /* for hal_core_trap(): lazy sections left on the way */
}

/* ------------------------------------------------------------ interrupts */

int hal_irq_handler(enum hal_irq irq, hal_irq_fn *fn, void *arg)
{
	int err;

	if ((unsigned int)irq >= HAL_IRQ_COUNT)
		return -HAL_EINVAL;
	err = hal_flavour_irq_mask(irq, true);
	if (err)
		return err;
	irq_fn[irq].fn = fn;
	irq_fn[irq].arg = arg;
	return fn ? hal_flavour_irq_mask(irq, false) : 0;
}

int hal_irq_mask(enum hal_irq irq)
{
	return (unsigned int)irq < HAL_IRQ_COUNT ? hal_flavour_irq_mask(irq, true) : -HAL_EINVAL;
}

int hal_irq_unmask(enum hal_irq irq)
{
	if ((unsigned int)irq >= HAL_IRQ_COUNT || !irq_fn[irq].fn)
		return -HAL_EINVAL;
	return hal_flavour_irq_mask(irq, false);
}

void hal_irq_exit_hook(void (*fn)(struct hal_frame *frame))
{
	exit_hook = fn;
}

void hal_core_irq(struct hal_frame *frame, int (*next)(void))
{
	unsigned int depth = hal_core_lazy_depth();
	int irq;

	*hal_flavour_lazy_depth() = 0;
	while ((irq = next()) >= 0) {
		if (irq_fn[irq].fn)
			irq_fn[irq].fn(frame, irq_fn[irq].arg);
	}
	if (exit_hook)
		exit_hook(frame);
	hal_irq_disable();
	*hal_flavour_lazy_depth() = depth;
}

/* ---------------------------------------------------------------- memory */

static int check_range(uint64_t va, uint64_t len)
{
	if ((va | len) & (HAL_PAGE_SIZE - 1) || !len)
		return -HAL_EINVAL;
	if (va < HAL_VA_MIN || va >= HAL_VA_END || len > HAL_VA_END - va)
		return -HAL_ERANGE;
	return 0;
}

int hal_space_map(hal_space_t space, uint64_t va, uint64_t pa, uint64_t len, unsigned int prot, unsigned int flags)
{
	int err = check_range(va, len);

	if (err)
		return err;
	if (pa & (HAL_PAGE_SIZE - 1) || !prot || prot & ~HAL_PROT_ALL || flags & ~HAL_MAP_POPULATE)
		return -HAL_EINVAL;
	return hal_flavour_map(space, va, pa, len, prot, flags);
}

int hal_space_unmap(hal_space_t space, uint64_t va, uint64_t len)
{
	int err = check_range(va, len);

	return err ? err : hal_flavour_unmap(space, va, len);
}

int hal_space_protect(hal_space_t space, uint64_t va, uint64_t len, unsigned int prot)
{
	int err = check_range(va, len);

	if (err)
		return err;
	if (!prot || prot & ~HAL_PROT_ALL)
		return -HAL_EINVAL;
	return hal_flavour_protect(space, va, len, prot);
}

int hal_map(uint64_t va, uint64_t pa, uint64_t len, unsigned int prot, unsigned int flags)
{
	return hal_space_map(HAL_SPACE_KERNEL, va, pa, len, prot, flags);
}

int hal_unmap(uint64_t va, uint64_t len)
{
	return hal_space_unmap(HAL_SPACE_KERNEL, va, len);
}

int hal_protect(uint64_t va, uint64_t len, unsigned int prot)
{
	return hal_space_protect(HAL_SPACE_KERNEL, va, len, prot);
}

int hal_query(uint64_t va, uint64_t *pa, unsigned int *prot)
{
	return hal_space_query(HAL_SPACE_KERNEL, va, pa, prot);
}

int hal_set_pte(uint64_t va, hal_pte_t pte)
{
	if (!pte)
		return hal_unmap(va, HAL_PAGE_SIZE);
	return hal_map(va, pte & ~(HAL_PAGE_SIZE - 1), HAL_PAGE_SIZE, pte & (HAL_PAGE_SIZE - 1), 0);
}

int hal_dirty_start(uint64_t va, uint64_t len)
{
	int err = check_range(va, len);

	return err ? err : hal_flavour_dirty(HAL_DIRTY_START, va, len, NULL);
}

int hal_dirty_collect(uint64_t va, uint64_t len, uint64_t *bitmap)
{
	int err = check_range(va, len);

	return err ? err : hal_flavour_dirty(HAL_DIRTY_COLLECT, va, len, bitmap);
}

int hal_dirty_stop(uint64_t va, uint64_t len)
{
	int err = check_range(va, len);

	return err ? err : hal_flavour_dirty(HAL_DIRTY_STOP, va, len, NULL);
}

/* Which CPU's it is must not change between looking and writing. */
static unsigned int lazy_change(int by)
{
	bool irq = hal_irq_save();
	unsigned int depth = *hal_flavour_lazy_depth() += (unsigned int)by;

	hal_irq_restore(irq);
	return depth;
}

void hal_lazy_enter(void)
{
	lazy_change(1);
}

int hal_lazy_leave(void)
{
	return lazy_change(-1) ? 0 : hal_lazy_flush();
}

/* ------------------------------------------------------- user processes */

size_t hal_user_size(void)
{
	return HAL_USER_XSAVE + hal_cpu()->xsave_size;
}

void hal_user_init(struct hal_user *user, uint64_t rip, uint64_t rsp)
{
	struct keel_cpu_info cpu = { .xsave_size = hal_cpu()->xsave_size };

	/* The native flavour has the same layout. */
	keel_user_init((struct keel_user *)user, &cpu, rip, rsp);
}

#define MEMMAP_MAX 64
static struct hal_mem memmap[MEMMAP_MAX];
static unsigned int memmap_count;

static void memmap_insert(unsigned int at, uint64_t pa, uint64_t end, enum hal_mem_type type)
{
	if (pa >= end)
		return;
	if (memmap_count == MEMMAP_MAX)
		hal_panic("memory map has more than %d entries", MEMMAP_MAX);
	for (unsigned int i = memmap_count++; i > at; i--)
		memmap[i] = memmap[i - 1];
	memmap[at] = (struct hal_mem){ pa, end - pa, type };
}

/* Only whole pages are of use as RAM; anything else claims the pages it touches. */
void hal_core_memmap_add(uint64_t pa, uint64_t len, enum hal_mem_type type)
{
	uint64_t mask = HAL_PAGE_SIZE - 1;
	uint64_t start = type == HAL_MEM_RAM ? (pa + mask) & ~mask : pa & ~mask;
	uint64_t end = type == HAL_MEM_RAM ? (pa + len) & ~mask : (pa + len + mask) & ~mask;
	unsigned int i = 0;

	if (start >= end)
		return;
	/* Cut what is there to make room, keeping the order. */
	while (i < memmap_count && memmap[i].pa < end) {
		struct hal_mem m = memmap[i];
		uint64_t m_end = m.pa + m.len;

		if (m_end <= start) {
			i++;
			continue;
		}
		for (unsigned int j = i; j + 1 < memmap_count; j++)
			memmap[j] = memmap[j + 1];
		memmap_count--;
		if (m.pa < start)
			memmap_insert(i++, m.pa, start, m.type);
		if (m_end > end)
			memmap_insert(i, end, m_end, m.type);
	}
	memmap_insert(i, start, end, type);
}

bool hal_core_is_memory(uint64_t pa, uint64_t len)
{
	for (unsigned int i = 0; i < memmap_count; i++) {
		struct hal_mem *m = &memmap[i];

		if (m->type == HAL_MEM_RESERVED || pa < m->pa || pa - m->pa >= m->len)
			continue;
		if (len <= m->len - (pa - m->pa))
			return true;
		/* Goes on in the next entry, if that follows on. */
		len -= m->len - (pa - m->pa);
		pa = m->pa + m->len;
	}
	return false;
}

bool hal_memmap(unsigned int index, struct hal_mem *mem)
{
	if (index >= memmap_count)
		return false;
	*mem = memmap[index];
	return true;
}

/* --------------------------------------------------------------- console */

void hal_vprintf(const char *fmt, va_list ap)
{
	keel_vprintf(fmt, ap);
}

void hal_printf(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	keel_vprintf(fmt, ap);
	va_end(ap);
}

int hal_vsnprintf(char *buf, size_t size, const char *fmt, va_list ap)
{
	return keel_vsnprintf(buf, size, fmt, ap);
}

int hal_snprintf(char *buf, size_t size, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = keel_vsnprintf(buf, size, fmt, ap);
	va_end(ap);
	return n;
}

/* ------------------------------------------------------------------- end */

void hal_panic(const char *fmt, ...)
{
	char message[512];
	va_list ap;

	va_start(ap, fmt);
	hal_vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	hal_flavour_crash(message, NULL);
}
