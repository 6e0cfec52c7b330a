/* SPDX-License-Identifier: MIT */
/* Inside the native flavour only: its parts, and one wrapper per privileged instruction. */
#ifndef HAL_NATIVE_H
#define HAL_NATIVE_H

/* Selectors, in the order that syscall and sysret want. */
#define NATIVE_CS 0x08
#define NATIVE_DS 0x10
#define NATIVE_USER_DS 0x1b
#define NATIVE_USER_CS 0x23
#define NATIVE_TSS 0x28
#define FRAME_SIZE 0xc0
/* CF PF AF ZF SF TF IF DF OF RF AC ID: what a frame may set. */
#define RFLAGS_KEPT 0x250fd5

/* For assembly, which has no suffixes. */
#define HAL_LINEAR_VA_ASM 0x100000000000

/* Memory-mapped devices live here, above what kernels may map. */
#define NATIVE_MMIO_VA 0x7f0000000000

/*
 * What the processor needs while user code's page tables are loaded: entry code,
 * descriptor tables, entry stacks. It is mapped in every address space at its
 * link address plus this, for CPL 0 only; nothing else of the kernel is.
 */
#define NATIVE_ALIAS 0xffffff8000000000

/* Offsets in struct native_cpu. */
#define CPU_SELF 0
#define CPU_PERCPU 8
#define CPU_KERNEL_RSP 16
#define CPU_USER_RSP 24
#define CPU_ENTRY_TOP 32
#define CPU_KERNEL_CR3 40

#define VEC_NMI 2
#define VEC_SYSCALL 0x100 /* beyond the processor's vectors: a syscall instruction */

/* Where processors begin after SIPI, in 16-bit mode: a page below 1 MiB. */
#define NATIVE_AP_PA 0x8000

#ifndef __ASSEMBLER__
#include <keel/types.h>

#include "../common/core.h"

/* Interrupt vectors: one per line, in the order of enum hal_irq. */
#define VEC_IRQ(irq) (0x40 + (irq))
#define VEC_KICK 0x50 /* leave user code, or stop */
#define VEC_SPURIOUS 0xff

/* What the flavour counts for hal_stats(). */
#define NATIVE_COUNTERS(X)                       \
	X(pte_write, "page-table entry written") \
	X(pt_alloc, "page table taken")          \
	X(invlpg, "invlpg")                      \
	X(cr3, "mov to cr3")                     \
	X(hlt, "hlt")                            \
	X(timer, "timer programmed")             \
	X(irq, "interrupt taken")                \
	X(trap, "trap taken")                    \
	X(serial, "byte out to the serial port") \
	X(ipi, "IPI sent")                       \
	X(shootdown, "TLB shootdown")            \
	X(user, "user code entered")

#define X(name, text) NATIVE_COUNT_##name,
enum native_counter { NATIVE_COUNTERS(X) NATIVE_COUNT_COUNT };
#undef X
extern uint64_t hal_native_count[NATIVE_COUNT_COUNT];
#define COUNT(name) __atomic_fetch_add(&hal_native_count[NATIVE_COUNT_##name], 1, __ATOMIC_RELAXED)

struct __attribute__((packed)) native_tss {
	uint32_t reserved0;
	uint64_t rsp[3];
	uint64_t reserved1;
	uint64_t ist[7];
	uint64_t reserved2;
	uint16_t reserved3, iomap;
};

#define NATIVE_ISTS 3

/* What belongs to one processor. GS base points to it while the kernel runs, by its alias. */
struct native_cpu {
	struct native_cpu *self;
	void *percpu;
	uint64_t kernel_rsp; /* where hal_native_user_run() continues */
	uint64_t user_rsp;   /* for the moment of a syscall */
	uint64_t entry_top;  /* end of entry_stack, by its alias */
	uint64_t kernel_cr3;

	uint32_t number, apic_id;
	unsigned int lazy_depth;
	uint32_t irq_pending, irq_masked;
	uint64_t irq_count; /* lines handled, for hal_wait() */
	uint64_t timer_at, wait_at;
	/* Asked by others: done in the NMI, and at VEC_KICK. */
	uint32_t flush_want, flush_done;
	bool nmi_wanted, stop_wanted;

	/* For a processor that starts. */
	void (*fn)(void *arg);
	void *arg;
	bool ready;

	struct hal_cpu info;
	struct native_tss tss __attribute__((aligned(16)));
	uint64_t gdt[7];
	char entry_stack[1024] __attribute__((aligned(16)));
	char ist_stack[NATIVE_ISTS][8192] __attribute__((aligned(16)));
};

extern struct native_cpu hal_native_cpus[HAL_CPU_MAX];
extern unsigned int hal_native_cpu_count;
extern uint64_t hal_native_online; /* bit n: processor n runs */

/* With interrupts off, or where it does not matter which processor it was. */
static inline struct native_cpu *native_cpu(void)
{
	struct native_cpu *cpu;

	__asm__ volatile("mov %%gs:%c1, %0" : "=r"(cpu) : "i"(CPU_SELF));
	return cpu;
}

/* What an entry from user code leaves on the entry stack, and what user code is entered with. */
struct native_user_frame {
	struct hal_frame regs;
	uint64_t pad, vector, error, rip, cs, rflags, rsp, ss;
};

/* start.S: run user code until it enters the kernel; the frame is the same one. */
struct native_user_frame *hal_native_user_run(struct native_user_frame *frame, uint64_t cr3, bool sysret);

/* The image's parts, from native.ld and start.S. */
extern char hal_image_start[], hal_rodata_start[], hal_data_start[], hal_image_end[];
extern char hal_tramp_text_start[], hal_tramp_text_end[], hal_tramp_data_start[], hal_tramp_data_end[];
extern char hal_native_guard[], hal_native_stubs[], hal_native_syscall[], hal_native_ap_code[],
	hal_native_ap_code_end[];

void hal_native_mmu_init(void);
/* The processor is about to load this space's tables, and has left them again. IF off. */
int hal_native_space_enter(hal_space_t space, uint64_t *cr3);
void hal_native_space_leave(hal_space_t space);
/* Have other processors forget all translations, and wait until they have. IF off. */
void hal_native_shootdown(uint64_t cpus);
void hal_native_kick(uint64_t cpus);
void hal_native_cpu_init(struct native_cpu *cpu);
void hal_native_lapic_init(struct native_cpu *cpu);
void hal_native_nmi(struct hal_frame *frame);
void hal_native_ap_command(uint32_t apic_id, bool sipi);
/* From the firmware's tables: another processor there is. */
void hal_native_cpu_found(uint32_t apic_id);
/* Map device memory for good; returns where. */
volatile void *hal_native_mmio(uint64_t pa, uint64_t len);
void hal_native_trap_init(void);
void hal_native_irq_init(void);
void hal_native_serial_init(void);
/* The part of the entry path that serves interrupts; false when vector is not one. */
bool hal_native_irq(struct hal_frame *frame);
void hal_native_serial_irq_enable(void);
void hal_native_hz(uint64_t *tsc_hz);

static inline void native_cli(void)
{
	__asm__ volatile("cli" ::: "memory");
}

static inline void native_sti(void)
{
	__asm__ volatile("sti" ::: "memory");
}

static inline void native_sti_hlt(void)
{
	__asm__ volatile("sti; hlt" ::: "memory");
}

static inline uint64_t native_rflags(void)
{
	uint64_t v;

	__asm__ volatile("pushf; pop %0" : "=r"(v)::"memory");
	return v;
}

static inline uint64_t native_cr2(void)
{
	uint64_t v;

	__asm__ volatile("mov %%cr2, %0" : "=r"(v));
	return v;
}

static inline void native_cr3_set(uint64_t v)
{
	__asm__ volatile("mov %0, %%cr3" ::"r"(v) : "memory");
}

static inline uint64_t native_cr3(void)
{
	uint64_t v;

	__asm__ volatile("mov %%cr3, %0" : "=r"(v));
	return v;
}

static inline uint64_t native_cr4(void)
{
	uint64_t v;

	__asm__ volatile("mov %%cr4, %0" : "=r"(v));
	return v;
}

static inline void native_cr4_set(uint64_t v)
{
	__asm__ volatile("mov %0, %%cr4" ::"r"(v) : "memory");
}

static inline void native_invlpg(uint64_t va)
{
	__asm__ volatile("invlpg (%0)" ::"r"(va) : "memory");
}

static inline uint64_t native_rdmsr(uint32_t msr)
{
	uint32_t lo, hi;

	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return (uint64_t)hi << 32 | lo;
}

static inline void native_wrmsr(uint32_t msr, uint64_t v)
{
	__asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)(v & 0xffffffff)), "d"((uint32_t)(v >> 32)) : "memory");
}

static inline void native_cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
	__asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}

static inline uint64_t native_rdtsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi)::"memory");
	return (uint64_t)hi << 32 | lo;
}

static inline uint8_t native_in8(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline void native_out8(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}

static inline uint16_t native_in16(uint16_t port)
{
	uint16_t v;

	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline void native_out16(uint16_t port, uint16_t v)
{
	__asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port));
}

static inline void native_out32(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}
#endif

#endif
