/* SPDX-License-Identifier: MIT */
/* Inside the native flavour only: its parts, and one wrapper per privileged instruction. */
#ifndef HAL_NATIVE_H
#define HAL_NATIVE_H

#define NATIVE_CS 0x08
#define NATIVE_DS 0x10
#define NATIVE_TSS 0x18
#define FRAME_SIZE 0xc0
/* CF PF AF ZF SF TF IF DF OF RF AC ID: what a frame may set. */
#define RFLAGS_KEPT 0x250fd5

/* For assembly, which has no suffixes. */
#define HAL_LINEAR_VA_ASM 0x100000000000

/* Memory-mapped devices live here, above what kernels may map. */
#define NATIVE_MMIO_VA 0x7f0000000000

#ifndef __ASSEMBLER__
#include "../common/core.h"

/* Interrupt vectors: one per line, in the order of enum hal_irq. */
#define VEC_IRQ(irq) (0x40 + (irq))
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
	X(serial, "byte out to the serial port")

#define X(name, text) NATIVE_COUNT_##name,
enum native_counter { NATIVE_COUNTERS(X) NATIVE_COUNT_COUNT };
#undef X
extern uint64_t hal_native_count[NATIVE_COUNT_COUNT];
#define COUNT(name) (hal_native_count[NATIVE_COUNT_##name]++)

/* The image's parts, from native.ld and start.S. */
extern char hal_image_start[], hal_rodata_start[], hal_data_start[], hal_image_end[];
extern char hal_native_guard[], hal_native_stubs[];

void hal_native_mmu_init(void);
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
	__asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
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
