// SPDX-License-Identifier: MIT
/* Descriptor tables, trap entry, per-CPU base and CPU features. */
#include "native.h"

#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define CR4_OSXSAVE (1ull << 18)
#define CPUID_1_ECX_XSAVE (1u << 26)

struct gate {
	uint16_t offset0, selector;
	uint8_t ist, type;
	uint16_t offset16;
	uint32_t offset32, reserved;
};

struct __attribute__((packed)) tss {
	uint32_t reserved0;
	uint64_t rsp[3];
	uint64_t reserved1;
	uint64_t ist[7];
	uint64_t reserved2;
	uint16_t reserved3, iomap;
};

struct __attribute__((packed)) table_ptr {
	uint16_t limit;
	uint64_t base;
};

uint64_t hal_native_count[NATIVE_COUNT_COUNT];

static struct gate idt[256];
static struct tss tss;
static uint64_t gdt[5] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff };
/* Vectors that must not use the interrupted stack. */
static char ist_stack[3][8192] __attribute__((aligned(16)));
static const uint8_t ist_of[32] = { [HAL_VEC_NMI] = 2, [HAL_VEC_DF] = 1, [18] = 3 };

/* What GS base points to. */
static struct native_cpu {
	struct native_cpu *self;
	void *percpu;
} cpu0 = { .self = &cpu0 };

static struct hal_cpu cpu_info;

void hal_native_entry(struct hal_frame *frame);

void hal_native_entry(struct hal_frame *frame)
{
	if (hal_native_irq(frame)) {
		COUNT(irq);
		return;
	}
	COUNT(trap);
	/* Only these two leave anything in cr2; read it before another fault can. */
	if (frame->vector == HAL_VEC_PF || frame->vector == HAL_VEC_DF)
		frame->addr = native_cr2();
	if (frame->vector == HAL_VEC_PF)
		frame->error &= HAL_PF_P | HAL_PF_W | HAL_PF_U | HAL_PF_X;
	hal_core_trap(frame);
}

bool hal_irq_enabled(void)
{
	return native_rflags() & HAL_RFLAGS_IF;
}

void hal_irq_disable(void)
{
	native_cli();
}

void hal_irq_enable(void)
{
	native_sti();
}

bool hal_irq_save(void)
{
	bool on = hal_irq_enabled();

	native_cli();
	return on;
}

void hal_irq_restore(bool was_enabled)
{
	if (was_enabled)
		native_sti();
}

void *hal_percpu(void)
{
	void *p;

	__asm__ volatile("mov %%gs:8, %0" : "=r"(p));
	return p;
}

void hal_percpu_set(void *base)
{
	cpu0.percpu = base;
}

uint64_t hal_fsbase(void)
{
	return native_rdmsr(MSR_FS_BASE);
}

void hal_fsbase_set(uint64_t base)
{
	native_wrmsr(MSR_FS_BASE, base);
}

const struct hal_cpu *hal_cpu(void)
{
	return &cpu_info;
}

static void cpu_init(void)
{
	uint32_t r[4];

	native_cpuid(1, 0, r);
	cpu_info.cpuid[0] = r[2];
	cpu_info.cpuid[1] = r[3];
	native_cpuid(0, 0, r);
	if (r[0] >= 7) {
		native_cpuid(7, 0, r);
		cpu_info.cpuid[2] = r[1];
		cpu_info.cpuid[3] = r[2];
		cpu_info.cpuid[4] = r[3];
		if (r[0] >= 1) {
			native_cpuid(7, 1, r);
			cpu_info.cpuid[7] = r[0];
		}
	}
	native_cpuid(0x80000001, 0, r);
	cpu_info.cpuid[5] = r[2];
	cpu_info.cpuid[6] = r[3];

	cpu_info.xfeatures = 3; /* x87 and SSE, by FXSAVE if there is no XSAVE */
	cpu_info.xsave_size = 512;
	if (cpu_info.cpuid[0] & CPUID_1_ECX_XSAVE) {
		native_cr4_set(native_cr4() | CR4_OSXSAVE);
		native_cpuid(0xd, 0, r);
		cpu_info.xfeatures = r[0] & 7; /* and AVX */
		__asm__ volatile("xsetbv" ::"c"(0), "a"((uint32_t)cpu_info.xfeatures), "d"(0));
		native_cpuid(0xd, 0, r);
		cpu_info.xsave_size = r[1];
	}
	hal_native_hz(&cpu_info.tsc_hz);
}

void hal_native_trap_init(void)
{
	struct table_ptr gdtr = { sizeof(gdt) - 1, (uintptr_t)gdt };
	struct table_ptr idtr = { sizeof(idt) - 1, (uintptr_t)idt };
	uint64_t base = (uintptr_t)&tss;

	for (unsigned int i = 0; i < HAL_ARRAY_SIZE(ist_stack); i++)
		tss.ist[i] = (uintptr_t)ist_stack[i] + sizeof(ist_stack[i]);
	tss.iomap = sizeof(tss);
	gdt[3] = (sizeof(tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
	gdt[4] = base >> 32;
	__asm__ volatile("lgdt %0" ::"m"(gdtr));
	__asm__ volatile("ltr %w0" ::"r"(NATIVE_TSS));

	for (unsigned int i = 0; i < 256; i++) {
		uint64_t entry = (uintptr_t)hal_native_stubs + 16 * i;

		idt[i] = (struct gate){
			.offset0 = (uint16_t)entry,
			.selector = NATIVE_CS,
			.ist = i < 32 ? ist_of[i] : 0,
			.type = 0x8e, /* interrupt gate: IF off on entry */
			.offset16 = (uint16_t)(entry >> 16),
			.offset32 = (uint32_t)(entry >> 32),
		};
	}
	__asm__ volatile("lidt %0" ::"m"(idtr));
	native_wrmsr(MSR_GS_BASE, (uintptr_t)&cpu0);
	cpu_init();
}
