// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Installing handlers behind the entry stubs. */
#include <hypercall/trap.h>

/* Read by entry.S. */
keel_entry_fn keel_entry_handler[KEEL_CLASS_COUNT];
keel_u64 keel_entry_fp_mask;
keel_u32 keel_entry_fp_size;

static char *const entry_stub[KEEL_CLASS_COUNT] = {
	[KEEL_CLASS_TRAP] = keel_entry_trap,
	[KEEL_CLASS_EVENT] = keel_entry_event,
	[KEEL_CLASS_DUMP] = keel_entry_dump,
	[KEEL_CLASS_DOUBLE] = keel_entry_double,
};

keel_s64 keel_entry_install(unsigned int frame_class, keel_entry_fn fn, void *stack_top)
{
	keel_entry_fn old;
	keel_s64 status;

	if (frame_class >= KEEL_CLASS_COUNT)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(1));
	old = keel_entry_handler[frame_class];
	/* The handler is in place before the host can enter the stub, and stays until it no longer can. */
	if (fn)
		keel_entry_handler[frame_class] = fn;
	__asm__ volatile("" : : : "memory");
	status = keel_trap_set(frame_class, fn ? (keel_u64)entry_stub[frame_class] : 0, fn ? (keel_u64)stack_top : 0)
			 .status;
	if (status)
		keel_entry_handler[frame_class] = old;
	else if (!fn)
		keel_entry_handler[frame_class] = NULL;
	return status;
}

void keel_entry_save_fp(keel_u64 xfeatures, keel_u32 size)
{
	keel_entry_fp_mask = xfeatures;
	keel_entry_fp_size = size;
}

__attribute__((weak)) void keel_entry_failed(unsigned int frame_class, keel_s64 status, const struct keel_frame *frame)
{
	for (;;)
		keel_crash(KEEL_CRASH_TRAP, keel_gpa(0), 0, (keel_u64)status, frame->rip | (keel_u64)frame_class << 56);
}
