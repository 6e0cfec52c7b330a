/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * A small runtime for guests that have none: negotiation before main, formatted
 * console output, event dispatch, the timer. A kernel with a runtime of its own
 * takes call.h, trap.h and the parts it likes instead.
 *
 * The program defines keel_main() and, once, KEEL_IMAGE_NOTES (image.h). It runs
 * on vCPU 0; smp.h starts others. Console, handlers and the port table are one for
 * all vCPUs, entries and ports are made by each vCPU for itself.
 */
#ifndef HYPERCALL_GUEST_H
#define HYPERCALL_GUEST_H

#include <stdarg.h>

#include <hypercall/call.h>
#include <hypercall/clock.h>
#include <hypercall/event.h>
#include <hypercall/image.h>
#include <hypercall/start.h>
#include <hypercall/status.h>
#include <hypercall/trap.h>

KEEL_BEGIN_C

/* Defined by the program; its result is the exit code. Runs with IF off, negotiation frozen. */
int keel_main(const struct keel_start *start);

/* The start info, from anywhere. */
const struct keel_start *keel_start_info(void);

/* Was extension KEEL_EXT_* offered by the host and accepted for this image? */
bool keel_have(unsigned int ext);

/* Likewise for refinement KEEL_F1_*. */
bool keel_have_refinement(unsigned int bit);

/**
 * keel_gpa_of - guest-physical address of something in the image
 * @p: address of a static object, a function or something on the boot stack
 */
keel_gpa_t keel_gpa_of(const void *p);

/* Console. Printing works from the first instruction on, in any context. */
void keel_write(const char *buf, size_t len);
void keel_puts(const char *s); /* adds a newline */
void keel_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void keel_vprintf(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));

/**
 * keel_vsnprintf - format into a buffer
 *
 * %d %i %u %x %X %o %c %s %p %% with the flags "-0+ #", width and precision (also
 * *), and the lengths hh h l ll z t j. No floating point. Returns the length the whole
 * text has; at most n - 1 bytes and a NUL are written.
 */
int keel_vsnprintf(char *buf, size_t n, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));
int keel_snprintf(char *buf, size_t n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/**
 * keel_console_init - move console output to the ring, and allow input
 *
 * Needs CONSOLE. Without it output goes 32 bytes at a time by console_write.
 * Returns a status.
 */
keel_s64 keel_console_init(void);

/* Input that has arrived, at most @n bytes; 0 when there is none. Needs keel_console_init(). */
size_t keel_read(char *buf, size_t n);

/**
 * keel_console_on_input - call a function when input arrives
 * @fn: runs in event context
 * @arg: passed to it
 *
 * Needs keel_console_init() and keel_event_init(). Returns a status.
 */
keel_s64 keel_console_on_input(keel_event_fn fn, void *arg);

/* Power off with an exit code of 0..123. */
void keel_exit(int code) __attribute__((noreturn));

/* Restart the partition, with a code of 0..123 for the record. */
void keel_restart(int code) __attribute__((noreturn));

/* Print, then end the partition as crashed, with the text as its last words. */
void keel_panic(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* An assertion that stays in release builds. */
#define keel_assert(cond) \
	((cond) ? (void)0 : keel_panic("%s:%d: %s: assertion failed: %s", __FILE__, __LINE__, __func__, #cond))

/* The call must succeed; panics with its status spelled out otherwise. Returns its value. */
#define keel_must(call) keel_must_(call, #call)
keel_u64 keel_must_(struct keel_ret ret, const char *what);

/**
 * keel_trap_handler - handle traps of the guest kernel
 * @fn: see keel_entry_fn; NULL takes it back
 *
 * Runs on the interrupted stack, so traps nest; a kernel stack that overflowed
 * has no room for it, and the trap becomes a double fault. While no handler is
 * installed a trap ends the partition with a crash report. Returns a status.
 */
keel_s64 keel_trap_handler(keel_entry_fn fn);

/*
 * Handle double faults of vCPU 0, on a stack of their own (16 KiB); other vCPUs bring their
 * stacks, with keel_entry_install(). The trap that found no room, or no
 * free slot, is still in keel_vcpu_page()->slot[KEEL_CLASS_TRAP]. Returns a status.
 */
keel_s64 keel_double_handler(keel_entry_fn fn);

/* Print a frame's registers. */
void keel_print_frame(const struct keel_frame *frame);

/* Walk frame pointers from rbp: up to n return addresses. Returns how many. */
size_t keel_backtrace(keel_u64 rbp, keel_u64 *pc, size_t n);

/**
 * keel_event_init - deliver events to the handlers of the port table
 *
 * Installs the EVENT entry on the interrupted stack. Returns a status.
 */
keel_s64 keel_event_init(void);

/**
 * keel_event_handler - what to call when a port becomes pending, on any vCPU
 * @bit: KEEL_PORT_BIT(port)
 * @fn: runs with IF off; NULL forgets the port
 * @arg: passed to it
 */
void keel_event_handler(keel_u32 bit, keel_event_fn fn, void *arg);

/* Handle everything pending now, on the caller's stack. IF must be off. Returns the events handled. */
unsigned int keel_event_dispatch(void);

/* Events that came for ports without a handler. */
keel_u64 keel_event_spurious(void);

/**
 * keel_timer_init - bind the timer to a handler and unmask it
 * @fn: runs in event context
 * @arg: passed to it
 *
 * Arm it with keel_timer_at(). Needs keel_event_init(). Returns a status.
 */
keel_s64 keel_timer_init(keel_event_fn fn, void *arg);

/* Fire once at guest time ns; KEEL_TIME_NEVER disarms. Returns a status. */
keel_s64 keel_timer_at(keel_u64 ns);

/* Guest time in ns, from the clock page when it is valid. */
keel_u64 keel_time(void);

/* Nanoseconds since 1970-01-01 UTC; 0 when the host does not say. */
keel_u64 keel_wall_time(void);

/**
 * keel_wait - idle until an event is pending, handle it, leave IF on
 *
 * Call with IF off, after checking that there is nothing to do: what becomes
 * pending in between ends the wait at once.
 */
void keel_wait(void);

KEEL_END_C

#endif
