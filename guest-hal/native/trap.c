// SPDX-License-Identifier: MIT
/* Descriptor tables, trap entry, user code, per-CPU base and CPU features. */
#include "native.h"

#include <hypercall/user.h>

#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_FMASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_EFER 0xc0000080
#define EFER_SCE 1ull
#define CR4_FSGSBASE (1ull << 16)
#define CR4_OSXSAVE (1ull << 18)
#define CPUID_1_ECX_XSAVE (1u << 26)
#define CPUID_7_EBX_FSGSBASE 1u
#define RFLAGS_USER_ALWAYS 0x202u      /* bit 1, and IF */
#define RFLAGS_SYSCALL_CLEARS 0x47700u /* TF IF DF IOPL NT AC */
#define USER_VA_TOP (1ull << 47)

struct gate {
	uint16_t offset0, selector;
	uint8_t ist, type;
	uint16_t offset16;
	uint32_t offset32, reserved;
};

struct __attribute__((packed)) table_ptr {
	uint16_t limit;
	uint64_t base;
};

uint64_t hal_native_count[NATIVE_COUNT_COUNT];

static struct gate idt[256] __attribute__((section(".bss.tramp"), aligned(16)));
/* Vectors that must not use the interrupted stack. */
static const uint8_t ist_of[32] = { [HAL_VEC_NMI] = 2, [HAL_VEC_DF] = 1, [18] = 3 };

struct native_cpu hal_native_cpus[HAL_CPU_MAX] __attribute__((section(".bss.tramp"), aligned(4096)));

/* What assembly relies on. */
KEEL_ASSERT_AT(struct native_cpu, self, CPU_SELF);
KEEL_ASSERT_AT(struct native_cpu, percpu, CPU_PERCPU);
KEEL_ASSERT_AT(struct native_cpu, kernel_rsp, CPU_KERNEL_RSP);
KEEL_ASSERT_AT(struct native_cpu, user_rsp, CPU_USER_RSP);
KEEL_ASSERT_AT(struct native_cpu, entry_top, CPU_ENTRY_TOP);
KEEL_ASSERT_AT(struct native_cpu, kernel_cr3, CPU_KERNEL_CR3);
KEEL_ASSERT_SIZE(struct hal_frame, FRAME_SIZE);
KEEL_ASSERT_SIZE(struct native_user_frame, FRAME_SIZE + 64);

void hal_native_entry(struct hal_frame *frame);

void hal_native_entry(struct hal_frame *frame)
{
	if (hal_native_irq(frame)) {
		COUNT(irq);
		return;
	}
	if (frame->vector == HAL_VEC_NMI) {
		hal_native_nmi(frame);
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
	__asm__ volatile("mov %0, %%gs:%c1" ::"r"(base), "i"(CPU_PERCPU) : "memory");
}

uint64_t hal_fsbase(void)
{
	return native_rdmsr(MSR_FS_BASE);
}

void hal_fsbase_set(uint64_t base)
{
	native_wrmsr(MSR_FS_BASE, base);
}

unsigned int *hal_flavour_lazy_depth(void)
{
	return &native_cpu()->lazy_depth;
}

const struct hal_cpu *hal_cpu(void)
{
	return &native_cpu()->info;
}

unsigned int hal_cpu_number(void)
{
	return native_cpu()->number;
}

static void features_init(struct hal_cpu *info)
{
	uint32_t r[4];

	native_cpuid(1, 0, r);
	info->cpuid[0] = r[2];
	info->cpuid[1] = r[3];
	native_cpuid(0, 0, r);
	if (r[0] >= 7) {
		native_cpuid(7, 0, r);
		info->cpuid[2] = r[1];
		info->cpuid[3] = r[2];
		info->cpuid[4] = r[3];
		if (r[0] >= 1) {
			native_cpuid(7, 1, r);
			info->cpuid[7] = r[0];
		}
	}
	native_cpuid(0x80000001, 0, r);
	info->cpuid[5] = r[2];
	info->cpuid[6] = r[3];

	info->xfeatures = 3; /* x87 and SSE, by FXSAVE if there is no XSAVE */
	info->xsave_size = 512;
	if (info->cpuid[0] & CPUID_1_ECX_XSAVE) {
		native_cr4_set(native_cr4() | CR4_OSXSAVE);
		native_cpuid(0xd, 0, r);
		info->xfeatures = r[0] & 7; /* and AVX */
		__asm__ volatile("xsetbv" ::"c"(0), "a"((uint32_t)info->xfeatures), "d"(0));
		native_cpuid(0xd, 0, r);
		info->xsave_size = r[1];
	}
	if (info->cpuid[2] & CPUID_7_EBX_FSGSBASE)
		native_cr4_set(native_cr4() | CR4_FSGSBASE);
	hal_native_hz(&info->tsc_hz);
}

/* Everything by its alias: it is used with the tables of user code loaded. */
static uint64_t alias(const void *p)
{
	return (uintptr_t)p + NATIVE_ALIAS;
}

void hal_native_cpu_init(struct native_cpu *cpu)
{
	struct table_ptr gdtr = { sizeof(cpu->gdt) - 1, alias(cpu->gdt) };
	struct table_ptr idtr = { sizeof(idt) - 1, alias(idt) };
	uint64_t base = alias(&cpu->tss), *end;

	cpu->self = (struct native_cpu *)alias(cpu);
	cpu->kernel_cr3 = native_cr3();
	cpu->entry_top = alias(cpu->entry_stack) + sizeof(cpu->entry_stack);
	cpu->timer_at = cpu->wait_at = HAL_NEVER;
	cpu->irq_masked = ~0u;
	cpu->irq_pending = 0;
	cpu->lazy_depth = 0;
	cpu->percpu = NULL;
	cpu->info.number = cpu->number;
	for (unsigned int i = 0; i < NATIVE_ISTS; i++) {
		/* Its last 16 bytes say whose stack it is, see ist_entry. */
		end = (uint64_t *)(cpu->ist_stack[i] + sizeof(cpu->ist_stack[i]) - 16);
		*end = alias(cpu);
		cpu->tss.ist[i] = alias(end);
	}
	cpu->tss.rsp[0] = cpu->entry_top;
	cpu->tss.iomap = sizeof(cpu->tss);
	cpu->gdt[1] = 0x00af9b000000ffff; /* NATIVE_CS */
	cpu->gdt[2] = 0x00cf93000000ffff; /* NATIVE_DS */
	cpu->gdt[3] = 0x00cff3000000ffff; /* NATIVE_USER_DS */
	cpu->gdt[4] = 0x00affb000000ffff; /* NATIVE_USER_CS */
	cpu->gdt[5] = (sizeof(cpu->tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
	cpu->gdt[6] = base >> 32;
	__asm__ volatile("lgdt %0" ::"m"(gdtr));
	__asm__ volatile("ltr %w0" ::"r"(NATIVE_TSS));
	__asm__ volatile("lidt %0" ::"m"(idtr));
	native_wrmsr(MSR_GS_BASE, alias(cpu));

	/* sysret takes the selectors 8 and 16 above the upper one. */
	native_wrmsr(MSR_STAR, (uint64_t)NATIVE_DS << 48 | (uint64_t)NATIVE_CS << 32);
	native_wrmsr(MSR_LSTAR, alias(hal_native_syscall));
	native_wrmsr(MSR_FMASK, RFLAGS_SYSCALL_CLEARS);
	native_wrmsr(MSR_EFER, native_rdmsr(MSR_EFER) | EFER_SCE);
	features_init(&cpu->info);
}

void hal_native_trap_init(void)
{
	for (unsigned int i = 0; i < 256; i++) {
		uint64_t entry = alias(hal_native_stubs) + 16 * i;

		idt[i] = (struct gate){
			.offset0 = (uint16_t)entry,
			.selector = NATIVE_CS,
			.ist = i < 32 ? ist_of[i] : 0,
			/* Interrupt gates: IF off on entry. User code may make breakpoints and overflows itself. */
			.type = i == HAL_VEC_BP || i == 4 ? 0xee : 0x8e,
			.offset16 = (uint16_t)(entry >> 16),
			.offset32 = (uint32_t)(entry >> 32),
		};
	}
	hal_native_cpu_init(&hal_native_cpus[0]);
}

/* ------------------------------------------------------------- user code */

/* x87, SSE and AVX are what features_init() enables. */
#define FP_BYTES 832
#define XSAVE_MXCSR 24
#define XSAVE_HEADER 512

static void fp_save(void *area, uint64_t features)
{
	__asm__ volatile("xsave64 (%0)" ::"r"(area), "a"((uint32_t)features), "d"(0) : "memory");
}

static void fp_load(const void *area, uint64_t features)
{
	__asm__ volatile("xrstor64 (%0)" ::"r"(area), "a"((uint32_t)features), "d"(0) : "memory");
}

/* Would xrstor take it? */
static bool fp_valid(const uint8_t *area, uint64_t features)
{
	const uint64_t *header = (const uint64_t *)(area + XSAVE_HEADER);

	for (int i = 1; i < 8; i++) {
		if (header[i])
			return false;
	}
	return !(header[0] & ~features) && !(*(const uint32_t *)(area + XSAVE_MXCSR) & 0xffff0000);
}

static int user_check(const struct hal_user *user, const struct hal_cpu *info)
{
	if (!(info->cpuid[0] & CPUID_1_ECX_XSAVE) || info->xsave_size > FP_BYTES)
		return -HAL_ENOTSUP;
	if ((uintptr_t)user % HAL_USER_ALIGN || user->size != hal_user_size() || user->flags)
		return -HAL_EINVAL;
	for (unsigned int i = 0; i < HAL_ARRAY_SIZE(user->reserved); i++) {
		if (user->reserved[i])
			return -HAL_EINVAL;
	}
	if (user->rip >= USER_VA_TOP || user->fs_base >= USER_VA_TOP || user->gs_base >= USER_VA_TOP)
		return -HAL_ERANGE;
	return fp_valid((const uint8_t *)user + HAL_USER_XSAVE, info->xfeatures) ? 0 : -HAL_EINVAL;
}

/* The general registers lie in the same order in both; so much of a frame's is copied. */
#define FRAME_GPRS (15 * sizeof(uint64_t))
KEEL_ASSERT_SIZE(uint64_t[15], FRAME_GPRS);

int hal_user_enter(hal_space_t space, struct hal_user *user)
{
	char kernel_fp[FP_BYTES] __attribute__((aligned(64)));
	uint8_t *area = (uint8_t *)user + HAL_USER_XSAVE;
	uint64_t cr3, kernel_fs, features, addr;
	struct native_user_frame *f;
	struct hal_frame interrupt;
	int err = user_check(user, hal_cpu());
	bool sysret;

	hal_irq_disable();
	if (!err)
		err = hal_native_space_enter(space, &cr3);
	if (err) {
		hal_irq_enable();
		return err;
	}
	f = (struct native_user_frame *)native_cpu()->entry_top - 1;
	keel_memcpy(&f->regs.rax, &user->rax, FRAME_GPRS);
	f->rip = user->rip;
	f->rsp = user->rsp;
	f->rflags = (user->rflags & HAL_USER_RFLAGS) | RFLAGS_USER_ALWAYS;
	f->cs = NATIVE_USER_CS;
	f->ss = NATIVE_USER_DS;
	/* What a system call left in rcx and r11 is what sysret needs there. */
	sysret = user->rcx == f->rip && user->r11 == f->rflags;

	features = hal_cpu()->xfeatures;
	keel_memset(kernel_fp + XSAVE_HEADER, 0, 64);
	fp_save(kernel_fp, features);
	fp_load(area, features);
	kernel_fs = hal_fsbase();
	hal_fsbase_set(user->fs_base);
	native_wrmsr(MSR_KERNEL_GS_BASE, user->gs_base);
	COUNT(user);

	f = hal_native_user_run(f, cr3, sysret);

	addr = native_cr2();
	user->fs_base = hal_fsbase();
	user->gs_base = native_rdmsr(MSR_KERNEL_GS_BASE);
	hal_fsbase_set(kernel_fs);
	fp_save(area, features);
	fp_load(kernel_fp, features);
	keel_memcpy(&user->rax, &f->regs.rax, FRAME_GPRS);
	user->rip = f->rip;
	user->rsp = f->rsp;
	user->rflags = (f->rflags & HAL_USER_RFLAGS) | RFLAGS_USER_ALWAYS;
	hal_native_space_leave(space);

	user->vector = 0;
	user->error = user->addr = 0;
	if (f->vector == VEC_SYSCALL) {
		user->reason = HAL_USER_SYSCALL;
	} else if (f->vector < HAL_VEC_COUNT) {
		user->reason = HAL_USER_EXCEPTION;
		user->vector = (uint32_t)f->vector;
		if (f->vector == HAL_VEC_PF) {
			user->error = f->error & (HAL_PF_P | HAL_PF_W | HAL_PF_U | HAL_PF_X);
			user->addr = addr;
		}
	} else {
		/* Out of user code, and on this thread's stack: an interrupt of the kernel like any other. */
		interrupt =
			(struct hal_frame){ .vector = (uint32_t)f->vector, .mode = 1, .rip = f->rip, .rsp = f->rsp };
		user->reason = HAL_USER_EVENT;
		hal_native_entry(&interrupt);
	}
	hal_irq_enable();
	return (int)user->reason;
}
