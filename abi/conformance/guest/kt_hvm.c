// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* The runtime of an HVM image: discovery, gate, descriptor tables, interrupt controllers. See kt_hvm.h. */
#include "kt_hvm.h"

const struct pvh_info *kt_pvh_info;
u32 kt_leaf;
u64 kt_first_msr[KEEL_MSR_COUNT];
int kt_first_trapped;
struct kt_hvm_trap kt_trap;
u8 kt_gate_page[4096] __attribute__((aligned(4096)));
struct keel_vcpu kt_vcpu_page __attribute__((aligned(4096)));
volatile u64 kt_irqs[256];
void (*kt_irq_hook)(u32 vector);
extern u64 kt_fixup, kt_fixup_rsp;

/* What %gs points to: laid out like the part of a vCPU page that the ways through the gate use. */
static u64 gs_page[8];
static u8 stacks[2][8192] __attribute__((aligned(16)));
static u32 tss[26] __attribute__((aligned(16)));
static struct {
	u16 offset0, selector;
	u8 ist, type;
	u16 offset16;
	u32 offset32, reserved;
} idt[256] __attribute__((aligned(16)));

struct saved {
	u64 r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax, vector, error, rip, cs, rflags, rsp, ss;
};

static void outb(u16 port, u8 value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

/* Before there is a gate words go to the serial line, and there is no way on. */
static void give_up(const char *why) __attribute__((noreturn));
static void give_up(const char *why)
{
	static const struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) none;

	for (const char *s = "KT note "; *s; s++)
		outb(0x3f8, (u8)*s);
	for (; *why; why++)
		outb(0x3f8, (u8)*why);
	outb(0x3f8, '\n');
	__asm__ volatile("lidt %0\n\tud2" : : "m"(none));
	__builtin_unreachable();
}

static volatile u32 *lapic(u32 reg)
{
	return (volatile u32 *)(0xfee00000 + (u64)reg);
}

void kt_interrupt(struct saved *s);
void kt_interrupt(struct saved *s)
{
	if (s->vector >= 32) {
		extern const u8 kt_halt[];

		/* QEMU loses the shadow of sti over an exit: found at the hlt, the interrupt has ended it. */
		if (s->rip == (u64)kt_halt)
			s->rip++;
		kt_irqs[s->vector]++;
		if (s->vector != 0xff)
			*lapic(0xb0) = 0; /* EOI; 0xff is spurious */
		if (kt_irq_hook)
			kt_irq_hook((u32)s->vector);
		return;
	}
	kt_trap.vector = s->vector;
	kt_trap.error = s->error;
	kt_trap.rip = s->rip;
	kt_trap.count++;
	__asm__ volatile("mov %%cr2, %0" : "=r"(kt_trap.addr));
	if (kt_fixup) {
		s->rip = kt_fixup;
		s->rsp = kt_fixup_rsp;
		kt_fixup = 0;
		return;
	}
	if (!gs_page[KEEL_VCPU_GATE / 8])
		give_up("a trap before the gate is there");
	kt_fail("kt_hvm.c", __LINE__, "unexpected trap %lu error %lx addr %lx rip %lx", s->vector, s->error,
		kt_trap.addr, s->rip);
	kt_finish();
}

/* Exceptions and interrupts each have a stack: a fault in an interrupt's handler is told. */
static void set_up_descriptors(void)
{
	extern u64 kt_gdt[];
	extern const u8 kt_vectors[];
	const struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) pointer = { sizeof(idt) - 1, (u64)idt };
	u64 t = (u64)tss;

	for (u32 i = 0; i < 2; i++) {
		u64 top = (u64)(stacks[i] + sizeof(stacks[i]));

		tss[9 + 2 * i] = (u32)top; /* IST1 is at byte 36 */
		tss[10 + 2 * i] = (u32)(top >> 32);
	}
	tss[25] = sizeof(tss) << 16; /* no I/O map */
	kt_gdt[3] = (sizeof(tss) - 1) | (t & 0xffffff) << 16 | 0x89ull << 40 | (t >> 24 & 0xff) << 56;
	kt_gdt[4] = t >> 32;
	for (u32 n = 0; n < 256; n++) {
		u64 entry = (u64)kt_vectors + 16 * n;

		idt[n].offset0 = (u16)entry;
		idt[n].selector = 8;
		idt[n].ist = n < 32 ? 1 : 2;
		idt[n].type = 0x8e;
		idt[n].offset16 = (u16)(entry >> 16);
		idt[n].offset32 = (u32)(entry >> 32);
	}
	__asm__ volatile("ltr %w0\n\tlidt %1" : : "r"(0x18), "m"(pointer));
}

struct cpuid kt_cpuid(u32 leaf, u32 subleaf)
{
	struct cpuid r;

	__asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
	return r;
}

u64 kt_msr(u32 msr)
{
	u64 v = 0;

	if (kt_rdmsr(msr, &v))
		kt_fail("kt_hvm.c", __LINE__, "reading MSR %x traps", msr);
	return v;
}

void kt_gate_at(const volatile void *entry)
{
	gs_page[KEEL_VCPU_GATE / 8] = (u64)entry;
}

void kt_setup(void)
{
	u32 leaf = KEEL_CPUID_FIRST;
	u64 value;

	set_up_descriptors();
	outb(0x21, 0xff); /* the old interrupt controllers are not used */
	outb(0xa1, 0xff);
	for (; leaf <= KEEL_CPUID_LAST; leaf += KEEL_CPUID_STEP) {
		struct cpuid c = kt_cpuid(leaf, 0);

		if (c.ebx == KEEL_CPUID_SIGNATURE && c.ecx == c.ebx && c.edx == c.ebx) {
			kt_leaf = leaf;
			break;
		}
	}
	if (!kt_leaf)
		give_up("no CPUID leaf has the signature");
	for (u32 i = 0; i < KEEL_MSR_COUNT; i++)
		kt_first_trapped |= kt_rdmsr(KEEL_MSR_GATE + i, &kt_first_msr[i]) << i;
	if (kt_wrmsr(KEEL_MSR_GATE, kt_gpa(kt_gate_page) | KEEL_MSR_ENABLE))
		give_up("the gate cannot be set");
	kt_gate_at(kt_gate_page);
	value = (u64)gs_page;
	gs_page[0] = value;
	kt_wrmsr(0xc0000101, value); /* GS base */
	kt_vcpu = &kt_vcpu_page;
}

const char *kt_cmdline(u32 *size)
{
	const char *s = kt_ram(kt_pvh_info->cmdline);

	*size = kt_pvh_info->cmdline ? (u32)strlen(s) : 0;
	return kt_pvh_info->cmdline ? s : NULL;
}

u64 kt_ram_of_map(void)
{
	const struct pvh_memmap *m = kt_ram(kt_pvh_info->memmap);
	u64 end = 0;

	for (u32 i = 0; i < kt_pvh_info->memmap_entries; i++)
		if (m[i].type == 1 && m[i].addr + m[i].size > end)
			end = m[i].addr + m[i].size;
	return end;
}

u64 kt_ram_size(void)
{
	return kt_ram_of_map();
}

/* What a refused call or a bad write of an MSR could have changed. */
u64 kt_digest(void)
{
	const volatile u64 *w = (const volatile u64 *)kt_vcpu;
	u64 h = 0xcbf29ce484222325;

	for (u32 i = 0; i < KEEL_MSR_COUNT; i++)
		h = (h ^ kt_msr(KEEL_MSR_GATE + i)) * 0x100000001b3;
	for (size_t i = 0; i < sizeof(*kt_vcpu) / 8; i++)
		h = (h ^ w[i]) * 0x100000001b3;
	for (size_t i = 0; i < sizeof(kt_gate_page) / 8; i++)
		h = (h ^ ((const volatile u64 *)kt_gate_page)[i]) * 0x100000001b3;
	for (u64 i = 0; i < KEEL_EXT_COUNT; i++) {
		struct kt_ret r = HC(KEEL_CALL_BASE_PROBE, i);

		h = kt_hash(h, &r, sizeof(r));
	}
	for (u64 i = 0; i < KEEL_PAGE_SIZE / 8; i++)
		h = (h ^ ((const volatile u64 *)kt_ram(KT_SCRATCH_GPA))[i]) * 0x100000001b3;
	return h;
}

void kt_vcpu_on(void)
{
	CHECK(!kt_wrmsr(KEEL_MSR_VCPU, kt_gpa(&kt_vcpu_page) | KEEL_MSR_ENABLE));
}

void kt_lapic_on(void)
{
	*lapic(0xf0) = 0x1ff; /* enabled, spurious vector 0xff */
	*lapic(0x80) = 0;     /* task priority */
}

u32 kt_lapic_id(void)
{
	return *lapic(0x20) >> 24;
}

/* One edge-triggered line of the I/O APIC to this vCPU. */
void kt_ioapic_route(u32 gsi, u32 vector)
{
	volatile u32 *select = (volatile u32 *)0xfec00000, *window = (volatile u32 *)0xfec00010;

	*select = 0x11 + 2 * gsi;
	*window = kt_lapic_id() << 24;
	*select = 0x10 + 2 * gsi;
	*window = vector;
}

void kt_prepare(const struct kt_test *t)
{
	kt_poison(KT_SCRATCH_GPA, KEEL_PAGE_SIZE, 42);
	if (t->flags & KT_EARLY)
		return;
	kt_accept_all();
	kt_freeze();
}
