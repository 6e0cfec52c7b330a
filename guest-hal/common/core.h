/* SPDX-License-Identifier: MIT */
/* Between the common part of the HAL and its flavours; not for kernels. */
#ifndef HAL_CORE_H
#define HAL_CORE_H

#include <hal/hal.h>

#define HAL_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* What the common part offers to the flavours. */

/* Run the handler of frame->vector; does not come back if the trap cannot be resumed. */
void hal_core_trap(struct hal_frame *frame);

/* Run the handlers of the lines that `next` yields until it answers -1, then the exit hook. */
void hal_core_irq(struct hal_frame *frame, int (*next)(void));

/* Depth of lazy sections, for hal_mark(). */
unsigned int hal_core_lazy_depth(void);

/* Is the HAL in a lazy section, as seen from the running context? */
bool hal_core_lazy(void);

/* The memory map, sorted. Types later added override earlier ones where they overlap. */
void hal_core_memmap_add(uint64_t pa, uint64_t len, enum hal_mem_type type);
/* True when [pa, pa + len) is memory of any kind but RESERVED. */
bool hal_core_is_memory(uint64_t pa, uint64_t len);

/*
 * A lock held with interrupts off; not for contexts that cannot turn off, as
 * HAL_VEC_NMI's.
 */
struct hal_lock {
	unsigned int held;
};

static inline bool hal_lock(struct hal_lock *l)
{
	bool irq = hal_irq_save();

	while (__atomic_exchange_n(&l->held, 1, __ATOMIC_ACQUIRE))
		hal_cpu_relax();
	return irq;
}

static inline void hal_unlock(struct hal_lock *l, bool irq)
{
	__atomic_store_n(&l->held, 0, __ATOMIC_RELEASE);
	hal_irq_restore(irq);
}

/* What the flavours implement for the common part. */

/* Arguments are checked but for the space; inside lazy sections work in the kernel's space may be put off. */
int hal_flavour_map(hal_space_t space, uint64_t va, uint64_t pa, uint64_t len, unsigned int prot, unsigned int flags);
int hal_flavour_unmap(hal_space_t space, uint64_t va, uint64_t len);
int hal_flavour_protect(hal_space_t space, uint64_t va, uint64_t len, unsigned int prot);

/* This CPU's depth of lazy sections. */
unsigned int *hal_flavour_lazy_depth(void);

enum hal_dirty_op { HAL_DIRTY_START, HAL_DIRTY_COLLECT, HAL_DIRTY_STOP };
int hal_flavour_dirty(enum hal_dirty_op op, uint64_t va, uint64_t len, uint64_t *bitmap);

/* Let a line through, or hold it. */
int hal_flavour_irq_mask(enum hal_irq irq, bool mask);

/* The end, after a message: frame is NULL when no trap is the cause. */
void hal_flavour_crash(const char *message, const struct hal_frame *frame) __attribute__((noreturn));

#endif
