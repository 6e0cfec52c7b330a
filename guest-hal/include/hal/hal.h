/* SPDX-License-Identifier: MIT */
/*
 * The hardware abstraction layer a kernel calls instead of privileged
 * instructions. One header, two flavours:
 *
 *	guest-hal/pv/      hypercalls and the shared pages of the Keel ABI
 *	guest-hal/native/  bare x86-64, entered by PVH
 *
 * A kernel defines hal_main() and links one of the two libraries; nothing else
 * in it needs to know which. PORTING.md says which instruction became which
 * function, and why.
 *
 * Contexts: every function may be called with interrupts on or off. Those
 * marked "any context" may also be called from trap and interrupt handlers and
 * from the non-maskable handler (HAL_VEC_NMI); the others not from the latter.
 * The HAL keeps no FP state in use and is built for general registers only, so
 * handlers leave FP registers alone as long as the kernel's own code does.
 *
 * Processors: every function may be called on any CPU, and on several at once;
 * what belongs to a CPU is said with the function. A thread that was preempted
 * inside a lazy section has to stay on its CPU.
 */
#ifndef HAL_HAL_H
#define HAL_HAL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Errors: functions return 0 or one of these, negated. */
#define HAL_EINVAL 1	/* malformed: alignment, unknown bits, zero length */
#define HAL_EFAULT 2	/* physical range is not memory */
#define HAL_ERANGE 3	/* beyond a limit */
#define HAL_ENOENT 4	/* not there */
#define HAL_ENOMEM 5	/* out of page-table memory */
#define HAL_ENOTSUP 6	/* this flavour or this machine cannot */
#define HAL_ETIMEDOUT 7 /* the deadline passed first */
#define HAL_EBUSY 8	/* in use */

#define HAL_PAGE_SIZE 4096ull
#define HAL_PAGE_SHIFT 12
#define HAL_NEVER UINT64_MAX /* a deadline that does not come */

/* Addresses a kernel may map, on both flavours. */
#define HAL_VA_MIN 0x10000ull
#define HAL_VA_END 0x7f0000000000ull
/* All memory is mapped read-write here: physical address p is at HAL_LINEAR_VA + p. */
#define HAL_LINEAR_VA 0x100000000000ull

/**
 * hal_main - the kernel
 *
 * Called once on the boot stack with interrupts off, every service below
 * usable. Returning is hal_poweroff() with the value returned.
 */
int hal_main(void);

/**
 * hal_flavour - "pv" or "native", for messages; kernels must not branch on it
 */
const char *hal_flavour(void);

/* ------------------------------------------------------------ interrupts */

/**
 * hal_irq_disable - hold interrupts (cli)
 *
 * Any context. pv: one store to the vCPU page.
 */
void hal_irq_disable(void);

/**
 * hal_irq_enable - allow interrupts (sti) and take what is pending
 *
 * Any context. pv: one store, one test, a call only if something is pending.
 */
void hal_irq_enable(void);

/**
 * hal_irq_save - hold interrupts (pushf; cli)
 *
 * Any context. Returns what hal_irq_restore() wants.
 */
bool hal_irq_save(void);

/**
 * hal_irq_restore - undo hal_irq_save() (popf)
 * @was_enabled: what hal_irq_save() returned
 */
void hal_irq_restore(bool was_enabled);

/**
 * hal_irq_enabled - are interrupts allowed (pushf; test IF)? Any context.
 */
bool hal_irq_enabled(void);

struct hal_frame;

/*
 * Interrupt lines. Each CPU has its own of all but the console's, which is CPU
 * 0's. Handlers are the same on all CPUs.
 */
enum hal_irq {
	HAL_IRQ_TIMER,	 /* the one-shot timer fired */
	HAL_IRQ_CONSOLE, /* console input arrived */
	HAL_IRQ_SOFT0,	 /* raised by hal_irq_raise() and hal_irq_send() */
	HAL_IRQ_SOFT1,
	HAL_IRQ_COUNT
};

/* Runs with interrupts off on the interrupted stack; @frame may be changed. */
typedef void hal_irq_fn(struct hal_frame *frame, void *arg);

/**
 * hal_irq_handler - set the handler of a line and unmask it on this CPU
 * @irq: the line
 * @fn: handler, NULL masks the line
 * @arg: handed to @fn
 */
int hal_irq_handler(enum hal_irq irq, hal_irq_fn *fn, void *arg);

/**
 * hal_irq_mask, hal_irq_unmask - hold and allow one line on this CPU
 * @irq: the line
 *
 * What arrives at a masked line is delivered once, when it is unmasked.
 */
int hal_irq_mask(enum hal_irq irq);
int hal_irq_unmask(enum hal_irq irq);

/**
 * hal_irq_raise - raise a software line on this CPU
 * @irq: HAL_IRQ_SOFT0 or later
 *
 * Any context. Raising a line that is pending already has no further effect.
 */
int hal_irq_raise(enum hal_irq irq);

/**
 * hal_irq_exit_hook - have a function run when an interrupt has been handled
 * @fn: called with interrupts off after all handlers, before the interrupted
 *	code resumes; the place where a scheduler preempts. NULL for none.
 *
 * @fn may switch stacks with hal_switch() and come back much later.
 */
void hal_irq_exit_hook(void (*fn)(struct hal_frame *frame));

/**
 * hal_wait - sleep until an interrupt is pending (sti; hlt)
 * @deadline: absolute time in ns, HAL_NEVER for none
 *
 * Call with interrupts off, after having looked for work: what arrives between
 * the look and the sleep ends the sleep. Returns with interrupts on, their
 * handlers having run: 0, or -HAL_ETIMEDOUT when the deadline passed first.
 */
int hal_wait(uint64_t deadline);

/* ----------------------------------------------------------------- traps */

/* Trap vectors are the architecture's. */
#define HAL_VEC_DE 0
#define HAL_VEC_DB 1
#define HAL_VEC_NMI 2 /* pv: the non-maskable dump event */
#define HAL_VEC_BP 3
#define HAL_VEC_UD 6
#define HAL_VEC_DF 8 /* runs on a stack of its own */
#define HAL_VEC_GP 13
#define HAL_VEC_PF 14
#define HAL_VEC_MF 16
#define HAL_VEC_AC 17
#define HAL_VEC_XM 19
#define HAL_VEC_COUNT 32

/* Page-fault error code. */
#define HAL_PF_P 1  /* mapped; the access was not permitted */
#define HAL_PF_W 2  /* a write */
#define HAL_PF_U 4  /* from user mode */
#define HAL_PF_X 16 /* an instruction fetch */

#define HAL_RFLAGS_TF 0x100ull
#define HAL_RFLAGS_IF 0x200ull

/*
 * struct hal_frame - an interrupted context, on both flavours. Everything from
 * rip on may be changed and takes effect when the handler returns.
 */
struct hal_frame {
	uint32_t flavour[2]; /* the flavour's own */
	uint32_t vector;     /* HAL_VEC_*; 0 in interrupts */
	uint32_t mode;	     /* 0: kernel; handlers of interrupts that came while user code ran may see 1 */
	uint64_t error;	     /* error code, 0 where the vector has none */
	uint64_t addr;	     /* faulting address (what cr2 holds) for #PF and #DF, else 0 */
	uint64_t rip, rsp, rflags;
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t reserved[2];
};

/* Returns true when the context in @frame is to be resumed. */
typedef bool hal_trap_fn(struct hal_frame *frame);

/**
 * hal_trap_handler - set the handler of a vector (a gate of the IDT)
 * @vector: HAL_VEC_*
 * @fn: handler, NULL for none
 *
 * Handlers run with interrupts off on the interrupted stack, HAL_VEC_DF and
 * HAL_VEC_NMI on stacks of their own. A trap without a handler, or whose
 * handler returns false, ends in hal_panic() with the registers. Returns the
 * handler that was set before.
 */
hal_trap_fn *hal_trap_handler(unsigned int vector, hal_trap_fn *fn);

/**
 * hal_nmi_self - raise HAL_VEC_NMI on this CPU, interrupts on or off
 */
int hal_nmi_self(void);

/**
 * hal_nmi_send - raise HAL_VEC_NMI on a CPU that runs
 * @cpu: its number
 */
int hal_nmi_send(unsigned int cpu);

/* ---------------------------------------------------------------- memory */

#define HAL_PROT_R 1u
#define HAL_PROT_W 2u /* implies R */
#define HAL_PROT_X 4u /* implies R */
#define HAL_PROT_ALL 7u

#define HAL_MAP_POPULATE 1u /* have memory behind it now, not at first touch */

/**
 * hal_map - map a range, replacing what was there
 * @va: first byte, page-aligned
 * @pa: first byte, page-aligned
 * @len: bytes, a multiple of HAL_PAGE_SIZE
 * @prot: HAL_PROT_*
 * @flags: HAL_MAP_*
 *
 * Between hal_lazy_enter() and hal_lazy_leave() the change may be put off until
 * hal_lazy_flush() or the end, and an error is told there.
 */
int hal_map(uint64_t va, uint64_t pa, uint64_t len, unsigned int prot, unsigned int flags);

/**
 * hal_unmap - unmap a range; pages not mapped are skipped
 * @va: first byte, page-aligned
 * @len: bytes, a multiple of HAL_PAGE_SIZE
 */
int hal_unmap(uint64_t va, uint64_t len);

/**
 * hal_protect - change the protection of mapped pages
 * @va: first byte, page-aligned
 * @len: bytes, a multiple of HAL_PAGE_SIZE
 * @prot: HAL_PROT_*
 *
 * Stops with -HAL_ENOENT at a page that is not mapped.
 */
int hal_protect(uint64_t va, uint64_t len, unsigned int prot);

/**
 * hal_query - what is a page mapped to?
 * @va: an address in the page
 * @pa: set to the physical address of the page
 * @prot: set to its HAL_PROT_*
 *
 * Sees what was put off in a lazy section. -HAL_ENOENT when nothing is mapped.
 */
int hal_query(uint64_t va, uint64_t *pa, unsigned int *prot);

/* A page-table entry in the form kernels handle them: page address | HAL_PROT_*, 0 = not mapped. */
typedef uint64_t hal_pte_t;

/**
 * hal_set_pte - one page-table entry (set_pte, pte_clear)
 * @va: page-aligned address
 * @pte: new entry, 0 unmaps
 *
 * Outside a lazy section this is complete on return, the TLB included. Inside
 * one, pv turns neighbouring updates into range records; native writes the
 * entry and leaves the TLB to the end.
 */
int hal_set_pte(uint64_t va, hal_pte_t pte);

/**
 * hal_lazy_enter - begin to put off page-table updates; sections nest
 *
 * A handler that interrupts a lazy section is outside of it: its updates take
 * effect at once. Do not switch stacks inside one.
 */
void hal_lazy_enter(void);

/**
 * hal_lazy_leave - end a lazy section; the outermost one completes everything
 *
 * Returns the first error since hal_lazy_enter() or the last hal_lazy_flush().
 * What came before the failed update is done; what came after it in the same
 * section may be missing.
 */
int hal_lazy_leave(void);

/**
 * hal_lazy_flush - complete what was put off, without leaving the section
 */
int hal_lazy_flush(void);

/**
 * hal_tlb_flush - forget translations of a range, on every CPU (invlpg, mov cr3, shootdown)
 * @va: first byte
 * @len: bytes, 0 = everything
 *
 * pv: nothing to do, each update is complete when it returns.
 */
void hal_tlb_flush(uint64_t va, uint64_t len);

/**
 * hal_dirty_start - begin to track writes to the pages mapped in a range
 * @va: first byte, page-aligned
 * @len: bytes, a multiple of HAL_PAGE_SIZE
 *
 * -HAL_ENOTSUP where the host does not offer it; a kernel then takes every page as written.
 */
int hal_dirty_start(uint64_t va, uint64_t len);

/**
 * hal_dirty_collect - which pages were written since the start or the last collect?
 * @va: first byte, page-aligned, in a tracked range
 * @len: bytes, a multiple of HAL_PAGE_SIZE
 * @bitmap: a bit per page, page 0 the lowest bit of word 0; in the kernel image or the linear map
 *
 * Whole words are written. May report pages that were not written, as those mapped since; never misses one.
 */
int hal_dirty_collect(uint64_t va, uint64_t len, uint64_t *bitmap);

/**
 * hal_dirty_stop - end tracking
 * @va: first byte, page-aligned
 * @len: bytes, a multiple of HAL_PAGE_SIZE
 */
int hal_dirty_stop(uint64_t va, uint64_t len);

/**
 * hal_pa_to_va - where a physical address is mapped in the linear map
 */
static inline void *hal_pa_to_va(uint64_t pa)
{
	return (void *)(uintptr_t)(HAL_LINEAR_VA + pa);
}

/**
 * hal_va_to_pa - physical address of an object in the kernel image or the linear map
 */
uint64_t hal_va_to_pa(const void *va);

enum hal_mem_type {
	HAL_MEM_RAM,	  /* free for the kernel to use */
	HAL_MEM_IMAGE,	  /* the kernel image and what the HAL took for itself */
	HAL_MEM_MODULE,	  /* the initial RAM disk */
	HAL_MEM_RESERVED, /* not for use */
};

struct hal_mem {
	uint64_t pa, len;
	enum hal_mem_type type;
};

/**
 * hal_memmap - entry number @index of the memory map
 * @index: from 0
 * @mem: filled in; entries are sorted, page-aligned and do not overlap
 *
 * Returns false beyond the last entry.
 */
bool hal_memmap(unsigned int index, struct hal_mem *mem);

/**
 * hal_mem_discard - give the memory behind a range back; it reads as zero afterwards
 * @pa: first byte, page-aligned
 * @len: bytes, a multiple of HAL_PAGE_SIZE
 */
int hal_mem_discard(uint64_t pa, uint64_t len);

/* -------------------------------------------------------- user processes */

/*
 * Address spaces of user code. Each has all addresses from HAL_VA_MIN to
 * HAL_VA_END to itself: the kernel is not mapped in it. A handle that was
 * destroyed is -HAL_ENOENT from then on.
 */
typedef uint64_t hal_space_t;
#define HAL_SPACE_KERNEL ((hal_space_t)0) /* where hal_map() and the others without a space work */

/**
 * hal_space_create - a new address space with nothing in it (a new top page table)
 * @space: set to its handle
 */
int hal_space_create(hal_space_t *space);

#define HAL_CLONE_SHARE 1u /* writable pages stay writable in both: memory is shared */

/**
 * hal_space_clone - an address space with the same mappings, for fork()
 * @space: the original
 * @copy: set to the handle of the copy
 * @flags: HAL_CLONE_*
 *
 * Writable pages become read-only in both unless HAL_CLONE_SHARE is given: write faults then
 * say which pages have to be copied.
 */
int hal_space_clone(hal_space_t space, hal_space_t *copy, unsigned int flags);

/**
 * hal_space_destroy - free an address space; memory mapped in it keeps its contents
 * @space: its handle
 *
 * Waits until other CPUs have left it: their hal_user_enter() returns.
 */
int hal_space_destroy(hal_space_t space);

/**
 * hal_space_map, hal_space_unmap, hal_space_protect, hal_space_query - as hal_map() and so on, in a space
 * @space: HAL_SPACE_KERNEL for the kernel's
 *
 * In the space of user code a change is complete on return, on every CPU, also inside lazy sections.
 */
int hal_space_map(hal_space_t space, uint64_t va, uint64_t pa, uint64_t len, unsigned int prot, unsigned int flags);
int hal_space_unmap(hal_space_t space, uint64_t va, uint64_t len);
int hal_space_protect(hal_space_t space, uint64_t va, uint64_t len, unsigned int prot);
int hal_space_query(hal_space_t space, uint64_t va, uint64_t *pa, unsigned int *prot);

/* Why hal_user_enter() returned, its result. */
#define HAL_USER_SYSCALL 1   /* a syscall instruction; rip is behind it */
#define HAL_USER_EXCEPTION 2 /* vector, error and addr say which */
#define HAL_USER_EVENT 3     /* an interrupt was taken, or nothing at all: enter again */

#define HAL_USER_ALIGN 64
#define HAL_USER_XSAVE 0x100	    /* offset of the XSAVE area */
#define HAL_USER_RFLAGS 0x240dd5ull /* what user code may have set in rflags */

/*
 * struct hal_user - the registers of user code, followed by hal_cpu()->xsave_size
 * bytes of XSAVE area at HAL_USER_XSAVE. rip to r15 may be changed between two entries.
 */
struct hal_user {
	uint32_t size; /* hal_user_size() */
	uint32_t flags;
	uint32_t vector; /* HAL_VEC_* of an exception */
	uint32_t reason; /* HAL_USER_* */
	uint64_t error;	 /* HAL_PF_* of a page fault, else 0 */
	uint64_t addr;	 /* of a page fault, else 0 */
	uint64_t rip, rsp, rflags;
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t fs_base, gs_base;
	uint64_t reserved[8];
};

/**
 * hal_user_size - bytes of a struct hal_user with its XSAVE area
 */
size_t hal_user_size(void);

/**
 * hal_user_init - registers for code that has not run yet
 * @user: hal_user_size() bytes, aligned to HAL_USER_ALIGN, physically contiguous, in the
 *	kernel image or the linear map
 * @rip: its first instruction
 * @rsp: its stack pointer
 */
void hal_user_init(struct hal_user *user, uint64_t rip, uint64_t rsp);

/**
 * hal_user_enter - run user code until it stops (iret or sysret, and the entry from CPL 3)
 * @space: its address space
 * @user: its registers, loaded and stored again
 *
 * Call with interrupts off, after having looked at what handlers leave to do: what arrives
 * between the look and user code ends it at once. Returns with interrupts on, also with an
 * error; what came meanwhile has been handled by the handlers and the exit hook, which may
 * switch to another stack. The result is HAL_USER_* or an error. The kernel's own registers,
 * FP state included, are kept.
 */
int hal_user_enter(hal_space_t space, struct hal_user *user);

/* ------------------------------------------------------------------ time */

/**
 * hal_clock_ns - ns since some moment before the start; never runs backwards. Any context.
 */
uint64_t hal_clock_ns(void);

/**
 * hal_wall_ns - ns since 1970-01-01 UTC
 */
uint64_t hal_wall_ns(void);

/**
 * hal_timer_set - arm the one-shot timer
 * @deadline: absolute time in ns; one in the past fires at once, HAL_NEVER disarms
 *
 * Raises HAL_IRQ_TIMER once on this CPU, never before @deadline by hal_clock_ns(). Each CPU has a timer.
 */
int hal_timer_set(uint64_t deadline);

/* ------------------------------------------------------------ processors */

struct hal_cpu {
	/* leaf 1 ecx edx; leaf 7.0 ebx ecx edx; leaf 0x80000001 ecx edx; leaf 7.1 eax */
	uint32_t cpuid[8];
	uint64_t xfeatures;  /* XCR0 components in use */
	uint32_t xsave_size; /* bytes of an XSAVE area for them */
	uint32_t number;     /* of this CPU */
	uint64_t tsc_hz;     /* 0 when unknown */
};

/**
 * hal_cpu - what code may use on this CPU (cpuid, xgetbv)
 */
const struct hal_cpu *hal_cpu(void);

#define HAL_CPU_MAX 16u

/**
 * hal_cpu_count - CPUs there are, numbered from 0, which is the one that runs hal_main()
 */
unsigned int hal_cpu_count(void);

/**
 * hal_cpu_number - of this CPU. Any context.
 */
unsigned int hal_cpu_number(void);

/**
 * hal_cpu_start - have a CPU that is stopped run a function (INIT, SIPI)
 * @cpu: its number
 * @stack_top: end of its stack, 16-byte aligned, mapped where everybody sees it
 * @fn: runs on it with interrupts off, all lines masked, hal_percpu() NULL; when it returns
 *	the CPU stops
 * @arg: handed to @fn
 *
 * Returns once the CPU can be sent interrupts. What was written before is seen by @fn.
 */
int hal_cpu_start(unsigned int cpu, void *stack_top, void (*fn)(void *arg), void *arg);

/**
 * hal_cpu_stop - stop a CPU, and wait until it has stopped
 * @cpu: its number; the calling one does not come back
 *
 * Where it takes interrupts it stops at once; pv: wherever it is. A lock it holds stays
 * held. Better is to have it return from what it was started with.
 */
int hal_cpu_stop(unsigned int cpu);

/**
 * hal_cpu_running - was it started, and has not stopped?
 * @cpu: its number
 */
bool hal_cpu_running(unsigned int cpu);

/**
 * hal_cpu_relax - in a loop that waits for another CPU (pause). Any context.
 *
 * pv: the other one may need the processor this one is on, so it is given up now and then.
 */
void hal_cpu_relax(void);

/**
 * hal_irq_send - raise a software line on other CPUs (an IPI)
 * @cpus: bit n for CPU n, which must run; this one may be among them
 * @irq: HAL_IRQ_SOFT0 or later
 *
 * Any context. Raising a line that is pending already has no further effect. What was written
 * before is seen by the handlers.
 */
int hal_irq_send(uint64_t cpus, enum hal_irq irq);

/**
 * hal_percpu, hal_percpu_set - the kernel's per-CPU pointer (GS base). Any context.
 * @base: the pointer
 *
 * GS itself belongs to the HAL on both flavours.
 */
void *hal_percpu(void);
void hal_percpu_set(void *base);

/**
 * hal_fsbase, hal_fsbase_set - FS base, the kernel's to use
 * @base: the new base
 */
uint64_t hal_fsbase(void);
void hal_fsbase_set(uint64_t base);

/**
 * hal_switch - leave one stack and continue on another
 * @save: receives the stack pointer of the caller
 * @to: a stack pointer saved before, or made by hal_stack_prepare()
 *
 * Keeps the callee-saved registers. Call with interrupts off.
 */
void hal_switch(uint64_t *save, uint64_t to);

/**
 * hal_stack_prepare - make a new stack for hal_switch()
 * @top: its end, 16-byte aligned
 * @fn: runs on it with interrupts on; must not return
 * @arg: handed to @fn
 */
uint64_t hal_stack_prepare(void *top, void (*fn)(void *arg), void *arg);

/**
 * hal_call_on - call a function on another stack
 * @top: end of the stack, 16-byte aligned
 * @fn: the function
 * @arg: handed to @fn
 */
void hal_call_on(void *top, void (*fn)(void *arg), void *arg);

/* A place to resume, see hal_mark(). */
struct hal_mark {
	uint64_t rbx, rbp, r12, r13, r14, r15, rsp, rip;
	uint32_t lazy, reserved;
};

/**
 * hal_mark - remember this place, as setjmp() does
 * @mark: filled in; good until the calling function returns
 *
 * Returns 0, and again the value handed to hal_frame_resume().
 */
uint64_t hal_mark(struct hal_mark *mark) __attribute__((returns_twice));

/**
 * hal_frame_resume - make a handler's return continue at a mark
 * @frame: the handler's frame
 * @mark: where to
 * @value: what hal_mark() returns there, not 0
 *
 * How a kernel recovers from a fault it provoked; also from a double fault.
 */
void hal_frame_resume(struct hal_frame *frame, const struct hal_mark *mark, uint64_t value);

/* --------------------------------------------------------------- console */

/**
 * hal_write - put bytes out on the console, in order, all of them. Any context.
 * @s: the bytes
 * @len: how many
 */
void hal_write(const char *s, size_t len);

/**
 * hal_getc - a byte of console input, -1 when there is none
 *
 * HAL_IRQ_CONSOLE is raised when input arrives after hal_getc() returned -1.
 */
int hal_getc(void);

/**
 * hal_printf - formatted console output. Any context.
 * @fmt: as for printf(); no floating point
 */
void hal_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void hal_vprintf(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));

/**
 * hal_snprintf - formatted text
 * @buf: NUL-terminated unless @size is 0
 * @size: bytes of @buf
 * @fmt: as for hal_printf()
 *
 * Returns the length of the whole text, which may exceed @size.
 */
int hal_snprintf(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int hal_vsnprintf(char *buf, size_t size, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));

/* ----------------------------------------------------------------- start */

/**
 * hal_cmdline - the command line, "" when there is none
 */
const char *hal_cmdline(void);

/**
 * hal_module - the initial RAM disk
 * @mem: filled in with where it is, len its exact bytes
 *
 * Returns false when there is none.
 */
bool hal_module(struct hal_mem *mem);

/**
 * hal_entropy - random bytes for seeding
 * @buf: filled in
 * @len: at most 64
 *
 * -HAL_ENOTSUP when the machine has none to give.
 */
int hal_entropy(void *buf, size_t len);

/* ------------------------------------------------------------------- end */

/**
 * hal_poweroff - turn the machine off
 * @code: 0..123, the exit status where the machine has one
 */
void hal_poweroff(unsigned int code) __attribute__((noreturn));

/**
 * hal_restart - start the machine again
 * @code: 0..123, recorded where that is possible
 */
void hal_restart(unsigned int code) __attribute__((noreturn));

/**
 * hal_panic - give up with a message. Any context.
 * @fmt: as for hal_printf(), one line without its newline
 */
void hal_panic(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* -------------------------------------------------------------- counters */

struct hal_stat {
	const char *name;
	uint64_t calls, errors, work;
};

/**
 * hal_stats - counters of what the HAL does its work with: hypercalls (pv), instructions (native)
 * @stats: filled in, only entries that were used
 * @max: elements of @stats
 *
 * Returns the number of entries filled in.
 */
unsigned int hal_stats(struct hal_stat *stats, unsigned int max);

#ifdef __cplusplus
}
#endif

#endif
