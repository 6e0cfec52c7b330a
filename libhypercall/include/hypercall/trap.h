/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Traps, upcalls and the virtual interrupt flag of the calling vCPU.
 * Guest-kernel code only.
 */
#ifndef HYPERCALL_TRAP_H
#define HYPERCALL_TRAP_H

#include <hypercall/call.h>

KEEL_BEGIN_C

/* The entry stubs (src/entry.S), one per frame class; for trap_set. */
extern char keel_entry_trap[], keel_entry_event[], keel_entry_dump[], keel_entry_double[];

/*
 * A handler gets a copy of the interrupted context on its own stack and may
 * change it; what the frame says when it returns is resumed. IF is off on entry
 * and on the way back; the handler may enable it in between. Unless
 * keel_entry_save_fp() was called it must leave FP, SSE and AVX registers alone
 * (-mgeneral-regs-only).
 */
typedef void (*keel_entry_fn)(struct keel_frame *frame);

/**
 * keel_entry_install - direct a frame class to a C handler
 * @frame_class: KEEL_CLASS_*
 * @fn: handler; NULL takes the entry point back
 * @stack_top: top of the stack to run it on, NULL for the interrupted one
 *
 * DOUBLE needs a stack of its own, and so does TRAP where running out of stack
 * must be survived. With a stack registered, a second frame of the class may
 * only come after the first was resumed. Returns the call's status.
 */
keel_s64 keel_entry_install(unsigned int frame_class, keel_entry_fn fn, void *stack_top);

/**
 * keel_entry_save_fp - keep the interrupted FP state across handlers
 * @xfeatures: components of XCR0 to keep, of keel_cpu_info.xfeatures
 * @size: keel_cpu_info.xsave_size; 0 switches it off again
 *
 * Costs an XSAVE, an XRSTOR and @size bytes of stack per frame. For images
 * whose handlers are compiled with SSE.
 */
void keel_entry_save_fp(keel_u64 xfeatures, keel_u32 size);

/* Called by a stub when trap_return refuses the frame. Weak: crashes the partition with TRAP. */
void keel_entry_failed(unsigned int frame_class, keel_s64 status, const struct keel_frame *frame)
	__attribute__((noreturn));

/* Is the virtual interrupt flag on? */
static inline bool keel_irq_enabled(void)
{
	keel_u8 v;

	__asm__ volatile("movb %%gs:%c1, %0" : "=q"(v) : "i"(KEEL_VCPU_IF) : "memory");
	return v != 0;
}

static inline void keel_irq_disable(void)
{
	__asm__ volatile("movb $0, %%gs:%c0" : : "i"(KEEL_VCPU_IF) : "memory");
}

/*
 * Store, then test pending, then call: a sender that came before the store saw
 * IF off and left it to us, one that comes after it sees IF on (KEEL-TRAP-10).
 */
static inline void keel_irq_enable(void)
{
	bool pending;

	__asm__ volatile("movb $1, %%gs:%c1\n\t"
			 "cmpq $0, %%gs:%c2"
			 : "=@ccne"(pending)
			 : "i"(KEEL_VCPU_IF), "i"(KEEL_VCPU_PENDING)
			 : "memory");
	if (__builtin_expect(pending, 0))
		keel_trap_deliver();
}

/* Disable and return what it was, for keel_irq_restore(). */
static inline bool keel_irq_save(void)
{
	bool was = keel_irq_enabled();

	keel_irq_disable();
	return was;
}

static inline void keel_irq_restore(bool was)
{
	if (was)
		keel_irq_enable();
	else
		keel_irq_disable();
}

KEEL_END_C

#endif
