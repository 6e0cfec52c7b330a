/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * What tests of HVM images use beside kt.h. The runtime finds the ABI by CPUID,
 * puts the gate into a page of its own and, unless the test is KT_EARLY, accepts
 * everything and freezes. Hardware interrupts are off until a test sets IF.
 */
#ifndef KT_HVM_H
#define KT_HVM_H

#include "kt.h"

/* Boot protocol PVH. */
#define PVH_MAGIC 0x336ec578
struct pvh_info {
	u32 magic, version, flags, nr_modules;
	u64 modlist, cmdline, rsdp, memmap;
	u32 memmap_entries, reserved;
};
struct pvh_module {
	u64 addr, size, cmdline, reserved;
};
struct pvh_memmap {
	u64 addr, size;
	u32 type, reserved; /* 1 = RAM */
};
extern const struct pvh_info *kt_pvh_info;
u64 kt_ram_of_map(void);

struct cpuid {
	u32 eax, ebx, ecx, edx;
};
struct cpuid kt_cpuid(u32 leaf, u32 subleaf);
extern u32 kt_leaf; /* with the signature; 0 = none */

/* MSRs: 1 when the instruction trapped; kt_trap says how. */
int kt_rdmsr(u32 msr, u64 *value);
int kt_wrmsr(u32 msr, u64 value);
u64 kt_msr(u32 msr);			 /* read, and a failure of the test when that traps */
extern u64 kt_first_msr[KEEL_MSR_COUNT]; /* as they were at the start */
extern int kt_first_trapped;
struct kt_hvm_trap {
	u64 vector, error, addr, rip, count;
};
extern struct kt_hvm_trap kt_trap;

/* The gate: which page, and calling it somewhere else. */
extern u8 kt_gate_page[];
void kt_gate_at(const volatile void *entry);

/* The vCPU page of the runtime, and a clean one. */
extern struct keel_vcpu kt_vcpu_page;
void kt_vcpu_on(void);

/* Interrupts by vector, and what runs in them. */
extern volatile u64 kt_irqs[256];
extern void (*kt_irq_hook)(u32 vector);
void kt_lapic_on(void);
u32 kt_lapic_id(void);
void kt_ioapic_route(u32 gsi, u32 vector);
static inline void kt_hw_sti(void)
{
	__asm__ volatile("sti\n\tnop" ::: "memory");
}
static inline void kt_hw_cli(void)
{
	__asm__ volatile("cli" ::: "memory");
}
/* Sleep until an interrupt; IF is off before and after. */
void kt_hw_wait(void);

#endif
