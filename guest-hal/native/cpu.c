// SPDX-License-Identifier: MIT
/* Several processors: starting them by INIT and SIPI, stopping them. */
#include "native.h"

unsigned int hal_native_cpu_count = 1;
uint64_t hal_native_online = 1;

/* Read by ap64 in start.S, one processor at a time. */
uint64_t hal_native_ap_cr3;
void *hal_native_ap_stack;
struct native_cpu *hal_native_ap_cpu;

#define INIT_WAIT_NS 10000000ull
#define SIPI_WAIT_NS 2000000ull
#define START_TIMEOUT_NS 2000000000ull

void hal_native_ap_start(struct native_cpu *cpu);

void hal_native_cpu_found(uint32_t apic_id)
{
	/* Processor 0 knows its own from its APIC, which is read later. */
	uint32_t r[4];

	native_cpuid(1, 0, r);
	if (apic_id == r[1] >> 24 || hal_native_cpu_count == HAL_CPU_MAX)
		return;
	hal_native_cpus[hal_native_cpu_count].apic_id = apic_id;
	hal_native_cpus[hal_native_cpu_count].number = hal_native_cpu_count;
	hal_native_cpu_count++;
}

unsigned int hal_cpu_count(void)
{
	return hal_native_cpu_count;
}

void hal_cpu_relax(void)
{
	__builtin_ia32_pause();
}

bool hal_cpu_running(unsigned int cpu)
{
	return cpu < hal_native_cpu_count && __atomic_load_n(&hal_native_online, __ATOMIC_SEQ_CST) >> cpu & 1;
}

static void delay(uint64_t ns)
{
	uint64_t end = hal_clock_ns() + ns;

	while (hal_clock_ns() < end)
		__builtin_ia32_pause();
}

static bool wait_ready(struct native_cpu *cpu, uint64_t ns)
{
	uint64_t end = hal_clock_ns() + ns;

	while (!__atomic_load_n(&cpu->ready, __ATOMIC_ACQUIRE)) {
		if (hal_clock_ns() >= end)
			return false;
		__builtin_ia32_pause();
	}
	return true;
}

/* On the stack it was given, the kernel's page tables loaded. */
void hal_native_ap_start(struct native_cpu *cpu)
{
	hal_native_cpu_init(cpu);
	hal_native_lapic_init(cpu);
	__atomic_fetch_or(&hal_native_online, 1ull << cpu->number, __ATOMIC_SEQ_CST);
	/* What it may have cached of the kernel's tables before others knew of it. */
	native_cr3_set(native_cr3());
	__atomic_store_n(&cpu->ready, true, __ATOMIC_RELEASE);
	cpu->fn(cpu->arg);
	hal_cpu_stop(cpu->number);
}

int hal_cpu_start(unsigned int number, void *stack_top, void (*fn)(void *arg), void *arg)
{
	static struct hal_lock lock;
	struct native_cpu *cpu = &hal_native_cpus[number];
	char *page = hal_pa_to_va(NATIVE_AP_PA);
	int err = 0;
	bool irq;

	if (number >= hal_native_cpu_count)
		return -HAL_ENOENT;
	if ((uintptr_t)stack_top % 16)
		return -HAL_EINVAL;
	irq = hal_lock(&lock);
	if (hal_cpu_running(number)) {
		hal_unlock(&lock, irq);
		return -HAL_EBUSY;
	}
	cpu->fn = fn;
	cpu->arg = arg;
	cpu->stop_wanted = cpu->nmi_wanted = false;
	cpu->flush_done = cpu->flush_want;
	__atomic_store_n(&cpu->ready, false, __ATOMIC_SEQ_CST);
	hal_native_ap_cr3 = native_cr3();
	hal_native_ap_stack = stack_top;
	hal_native_ap_cpu = cpu;
	for (long i = 0; i < hal_native_ap_code_end - hal_native_ap_code; i++)
		page[i] = hal_native_ap_code[i];
	hal_native_ap_command(cpu->apic_id, false);
	delay(INIT_WAIT_NS);
	hal_native_ap_command(cpu->apic_id, true);
	if (!wait_ready(cpu, SIPI_WAIT_NS)) {
		hal_native_ap_command(cpu->apic_id, true);
		if (!wait_ready(cpu, START_TIMEOUT_NS))
			err = -HAL_ETIMEDOUT;
	}
	hal_unlock(&lock, irq);
	return err;
}

int hal_cpu_stop(unsigned int number)
{
	struct native_cpu *cpu = &hal_native_cpus[number];

	if (number >= hal_native_cpu_count)
		return -HAL_ENOENT;
	if (number == hal_cpu_number()) {
		native_cli();
		__atomic_fetch_and(&hal_native_online, ~(1ull << number), __ATOMIC_SEQ_CST);
		/* Until INIT. */
		for (;;)
			__asm__ volatile("hlt");
	}
	if (!hal_cpu_running(number))
		return 0;
	/* Where it takes interrupts, so that it holds none of the HAL's locks. */
	__atomic_store_n(&cpu->stop_wanted, true, __ATOMIC_SEQ_CST);
	hal_native_kick(1ull << number);
	while (hal_cpu_running(number))
		__builtin_ia32_pause();
	return 0;
}
