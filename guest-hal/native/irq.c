// SPDX-License-Identifier: MIT
/*
 * Interrupts and time: local APIC, I/O APIC for the serial line, the TSC
 * calibrated against the PIT, and the one-shot timer that serves both
 * hal_timer_set() and the deadline of hal_wait().
 */
#include "native.h"

#define MSR_APIC_BASE 0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define APIC_BASE_ENABLE (1ull << 11)
#define CPUID_1_ECX_TSC_DEADLINE (1u << 24)

#define LAPIC_ID (0x020 / 4)
#define LAPIC_TPR (0x080 / 4)
#define LAPIC_EOI (0x0b0 / 4)
#define LAPIC_SVR (0x0f0 / 4)
#define LAPIC_ICR_LO (0x300 / 4)
#define LAPIC_ICR_HI (0x310 / 4)
#define LAPIC_LVT_TIMER (0x320 / 4)
#define LAPIC_LVT_LINT0 (0x350 / 4)
#define LAPIC_LVT_LINT1 (0x360 / 4)
#define LAPIC_TIMER_INIT (0x380 / 4)
#define LAPIC_TIMER_NOW (0x390 / 4)
#define LAPIC_TIMER_DIV (0x3e0 / 4)
#define LVT_MASKED 0x10000
#define LVT_TSC_DEADLINE 0x40000
#define ICR_SELF 0x40000
#define ICR_NMI 0x400
#define ICR_INIT 0x500
#define ICR_SIPI 0x600
#define ICR_ASSERT 0x4000
#define ICR_BUSY 0x1000
#define ICR_DESTINATION(id) ((id) << 24)

#define IOAPIC_PA 0xfec00000
#define IOAPIC_SELECT 0
#define IOAPIC_WINDOW (0x10 / 4)
#define IOAPIC_REDIR(gsi) (0x10 + 2 * (gsi))
#define SERIAL_GSI 4

#define PIT_HZ 1193182ull
#define CALIBRATE_TICKS 11932 /* about 10 ms */

static volatile uint32_t *lapic, *ioapic;
static uint64_t tsc_hz, tsc_base, ns_per_tick; /* the last in 32.32 */
#define TICKS_SHIFT 20
static uint64_t ticks_per_ns; /* of the timer, fixed point */
static bool tsc_deadline;

uint64_t hal_clock_ns(void)
{
	return (uint64_t)(((unsigned __int128)(native_rdtsc() - tsc_base) * ns_per_tick) >> 32);
}

void hal_native_hz(uint64_t *hz)
{
	*hz = tsc_hz;
}

/* Program the hardware for the earlier of the two deadlines. It may fire early; the handler looks again. */
static void program(void)
{
	struct native_cpu *cpu = native_cpu();
	uint64_t at = cpu->timer_at < cpu->wait_at ? cpu->timer_at : cpu->wait_at;
	uint64_t now = hal_clock_ns();
	uint64_t ticks = 0;

	COUNT(timer);
	if (at != HAL_NEVER)
		ticks = at > now ? (uint64_t)(((unsigned __int128)(at - now) * ticks_per_ns) >> TICKS_SHIFT) + 1 : 1;
	/* 0 disarms either kind. */
	if (tsc_deadline)
		native_wrmsr(MSR_TSC_DEADLINE, ticks ? native_rdtsc() + ticks : 0);
	else
		lapic[LAPIC_TIMER_INIT] = ticks < UINT32_MAX ? (uint32_t)ticks : UINT32_MAX;
}

int hal_timer_set(uint64_t deadline)
{
	bool irq = hal_irq_save();

	native_cpu()->timer_at = deadline;
	/* What fired before this call and was not taken yet is not this timer's. */
	native_cpu()->irq_pending &= ~(1u << HAL_IRQ_TIMER);
	program();
	hal_irq_restore(irq);
	return 0;
}

static void self_ipi(enum hal_irq irq)
{
	lapic[LAPIC_ICR_LO] = ICR_SELF | VEC_IRQ(irq);
}

static int next_irq(void)
{
	struct native_cpu *cpu = native_cpu();
	uint32_t bits = cpu->irq_pending & ~cpu->irq_masked;
	int irq;

	if (!bits)
		return -1;
	irq = __builtin_ctz(bits);
	cpu->irq_pending &= ~(1u << irq);
	cpu->irq_count++;
	return irq;
}

bool hal_native_irq(struct hal_frame *frame)
{
	uint32_t irq = frame->vector - VEC_IRQ(0);
	struct native_cpu *cpu = native_cpu();
	uint64_t now;

	if (frame->vector == VEC_SPURIOUS)
		return true; /* wants no EOI */
	if (frame->vector == VEC_KICK) {
		lapic[LAPIC_EOI] = 0;
		if (__atomic_load_n(&cpu->stop_wanted, __ATOMIC_SEQ_CST))
			hal_cpu_stop(cpu->number);
		return true;
	}
	if (irq >= HAL_IRQ_COUNT)
		return false;
	lapic[LAPIC_EOI] = 0;
	if (irq == HAL_IRQ_TIMER) {
		now = hal_clock_ns();
		if (cpu->timer_at <= now) {
			cpu->timer_at = HAL_NEVER;
			cpu->irq_pending |= 1u << HAL_IRQ_TIMER;
		}
		if (cpu->wait_at <= now)
			cpu->wait_at = HAL_NEVER;
		program();
	} else {
		cpu->irq_pending |= 1u << irq;
	}
	frame->vector = 0;
	hal_core_irq(frame, next_irq);
	return true;
}

int hal_flavour_irq_mask(enum hal_irq irq, bool mask)
{
	bool on = hal_irq_save();
	struct native_cpu *cpu = native_cpu();

	if (mask) {
		cpu->irq_masked |= 1u << irq;
	} else {
		cpu->irq_masked &= ~(1u << irq);
		if (irq == HAL_IRQ_CONSOLE)
			hal_native_serial_irq_enable();
		if (cpu->irq_pending & 1u << irq) {
			/* Bring the entry path about; a timer's vector would look at the clock again. */
			self_ipi(irq);
		}
	}
	hal_irq_restore(on);
	return 0;
}

int hal_irq_raise(enum hal_irq irq)
{
	if ((unsigned int)irq < HAL_IRQ_SOFT0 || (unsigned int)irq >= HAL_IRQ_COUNT)
		return -HAL_EINVAL;
	self_ipi(irq);
	return 0;
}

/* An interrupt command to one processor. IF off, or the two writes would not stay together. */
static void command(uint32_t apic_id, uint32_t what)
{
	while (lapic[LAPIC_ICR_LO] & ICR_BUSY)
		__builtin_ia32_pause();
	lapic[LAPIC_ICR_HI] = ICR_DESTINATION(apic_id);
	lapic[LAPIC_ICR_LO] = what;
	COUNT(ipi);
}

static void command_set(uint64_t cpus, uint32_t what)
{
	bool irq = hal_irq_save();

	for (; cpus; cpus &= cpus - 1)
		command(hal_native_cpus[__builtin_ctzll(cpus)].apic_id, what);
	hal_irq_restore(irq);
}

int hal_irq_send(uint64_t cpus, enum hal_irq irq)
{
	if ((unsigned int)irq < HAL_IRQ_SOFT0 || (unsigned int)irq >= HAL_IRQ_COUNT)
		return -HAL_EINVAL;
	if (cpus & ~__atomic_load_n(&hal_native_online, __ATOMIC_SEQ_CST))
		return -HAL_ENOENT;
	command_set(cpus, VEC_IRQ(irq));
	return 0;
}

void hal_native_kick(uint64_t cpus)
{
	command_set(cpus, VEC_KICK);
}

int hal_nmi_self(void)
{
	return hal_nmi_send(hal_cpu_number());
}

int hal_nmi_send(unsigned int cpu)
{
	if (cpu >= hal_native_cpu_count || !hal_cpu_running(cpu))
		return -HAL_ENOENT;
	__atomic_store_n(&hal_native_cpus[cpu].nmi_wanted, true, __ATOMIC_SEQ_CST);
	command_set(1ull << cpu, ICR_NMI);
	return 0;
}

/*
 * By NMI, so that processors with interrupts off answer too, and nobody who holds
 * a lock while waiting here can be waited for. The entry reloads cr3.
 */
void hal_native_shootdown(uint64_t cpus)
{
	uint32_t want[HAL_CPU_MAX];
	struct native_cpu *cpu;

	COUNT(shootdown);
	for (uint64_t left = cpus; left; left &= left - 1) {
		cpu = &hal_native_cpus[__builtin_ctzll(left)];
		want[cpu->number] = __atomic_add_fetch(&cpu->flush_want, 1, __ATOMIC_SEQ_CST);
	}
	command_set(cpus, ICR_NMI);
	for (uint64_t left = cpus; left; left &= left - 1) {
		cpu = &hal_native_cpus[__builtin_ctzll(left)];
		while ((int32_t)(__atomic_load_n(&cpu->flush_done, __ATOMIC_ACQUIRE) - want[cpu->number]) < 0 &&
		       hal_cpu_running(cpu->number))
			__builtin_ia32_pause();
	}
}

void hal_native_nmi(struct hal_frame *frame)
{
	struct native_cpu *cpu = native_cpu();
	uint32_t want = __atomic_load_n(&cpu->flush_want, __ATOMIC_SEQ_CST);
	bool ours = want != cpu->flush_done;

	/* One NMI may stand for several causes. */
	__atomic_store_n(&cpu->flush_done, want, __ATOMIC_RELEASE);
	if (__atomic_exchange_n(&cpu->nmi_wanted, false, __ATOMIC_SEQ_CST) || !ours)
		hal_core_trap(frame);
}

int hal_wait(uint64_t deadline)
{
	struct native_cpu *cpu = native_cpu(); /* a wait is not preempted, see hal_irq_exit_hook() */
	uint64_t count = cpu->irq_count;
	int err = 0;

	for (;;) {
		cpu->wait_at = deadline;
		if (deadline != HAL_NEVER)
			program();
		native_sti_hlt();
		COUNT(hlt);
		native_cli();
		if (cpu->irq_count != count)
			break;
		if (hal_clock_ns() >= deadline) {
			err = -HAL_ETIMEDOUT;
			break;
		}
	}
	cpu->wait_at = HAL_NEVER;
	native_sti();
	return err;
}

/* Count the TSC, and the LAPIC timer, over a fixed number of PIT ticks. */
static void calibrate(void)
{
	uint64_t t0, t1, lapic_hz;
	uint8_t gate = native_in8(0x61) & ~3;
	uint32_t left;

	lapic[LAPIC_TIMER_DIV] = 0xb; /* by 1 */
	lapic[LAPIC_LVT_TIMER] = LVT_MASKED | VEC_IRQ(HAL_IRQ_TIMER);
	native_out8(0x61, gate);
	native_out8(0x43, 0xb0); /* channel 2, both bytes, mode 0: output rises at zero */
	native_out8(0x42, CALIBRATE_TICKS & 0xff);
	native_out8(0x42, CALIBRATE_TICKS >> 8);
	native_out8(0x61, gate | 1);
	lapic[LAPIC_TIMER_INIT] = UINT32_MAX;
	t0 = native_rdtsc();
	while (!(native_in8(0x61) & 0x20))
		__builtin_ia32_pause();
	t1 = native_rdtsc();
	left = lapic[LAPIC_TIMER_NOW];
	lapic[LAPIC_TIMER_INIT] = 0;
	native_out8(0x61, gate);

	tsc_hz = (t1 - t0) * PIT_HZ / CALIBRATE_TICKS;
	lapic_hz = (uint64_t)(UINT32_MAX - left) * PIT_HZ / CALIBRATE_TICKS;
	if (!tsc_hz || !lapic_hz)
		hal_panic("cannot calibrate the TSC against the PIT");
	ns_per_tick = (1000000000ull << 32) / tsc_hz;
	tsc_base = t0;
	ticks_per_ns = ((tsc_deadline ? tsc_hz : lapic_hz) << TICKS_SHIFT) / 1000000000u;
}

static void ioapic_write(uint32_t reg, uint32_t value)
{
	ioapic[IOAPIC_SELECT] = reg;
	ioapic[IOAPIC_WINDOW] = value;
}

/* This processor's local APIC, for the timer as calibrate() knows it. */
void hal_native_lapic_init(struct native_cpu *cpu)
{
	native_wrmsr(MSR_APIC_BASE, native_rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE);
	cpu->apic_id = lapic[LAPIC_ID] >> 24;
	lapic[LAPIC_TPR] = 0;
	lapic[LAPIC_LVT_LINT0] = LVT_MASKED;
	lapic[LAPIC_LVT_LINT1] = ICR_NMI;
	lapic[LAPIC_SVR] = 0x100 | VEC_SPURIOUS;
	lapic[LAPIC_TIMER_DIV] = 0xb; /* by 1 */
	lapic[LAPIC_LVT_TIMER] = VEC_IRQ(HAL_IRQ_TIMER) | (tsc_deadline ? LVT_TSC_DEADLINE : 0);
}

/* INIT, then SIPI twice, as the manuals want it. */
void hal_native_ap_command(uint32_t apic_id, bool sipi)
{
	bool irq = hal_irq_save();

	command(apic_id, sipi ? ICR_SIPI | ICR_ASSERT | NATIVE_AP_PA >> 12 : ICR_INIT | ICR_ASSERT);
	hal_irq_restore(irq);
}

void hal_native_irq_init(void)
{
	uint64_t base = native_rdmsr(MSR_APIC_BASE);
	uint32_t r[4];

	/* The two 8259s stay silent for good. */
	native_out8(0x21, 0xff);
	native_out8(0xa1, 0xff);

	native_wrmsr(MSR_APIC_BASE, base | APIC_BASE_ENABLE);
	lapic = hal_native_mmio(base & 0xffffff000ull, HAL_PAGE_SIZE);
	ioapic = hal_native_mmio(IOAPIC_PA, HAL_PAGE_SIZE);
	native_cpuid(1, 0, r);
	tsc_deadline = r[2] & CPUID_1_ECX_TSC_DEADLINE;
	calibrate();
	hal_native_lapic_init(&hal_native_cpus[0]);

	ioapic_write(IOAPIC_REDIR(SERIAL_GSI) + 1, lapic[LAPIC_ID]);
	ioapic_write(IOAPIC_REDIR(SERIAL_GSI), VEC_IRQ(HAL_IRQ_CONSOLE));
}
