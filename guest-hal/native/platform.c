// SPDX-License-Identifier: MIT
/*
 * The machine around the processor: PVH start info, serial console, ACPI power
 * off, reset, the real-time clock.
 */
#include "native.h"

#define PVH_MAGIC 0x336ec578u
#define PVH_RAM 1
#define MSR_GS_BASE 0xc0000101

struct pvh_start {
	uint32_t magic, version, flags, modules;
	uint64_t modlist, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};

struct pvh_memmap {
	uint64_t pa, len;
	uint32_t type, reserved;
};

struct pvh_module {
	uint64_t pa, len, cmdline, reserved;
};

#define COM1 0x3f8
#define UART_DATA (COM1 + 0)
#define UART_IER (COM1 + 1)
#define UART_FCR (COM1 + 2)
#define UART_LCR (COM1 + 3)
#define UART_MCR (COM1 + 4)
#define UART_LSR (COM1 + 5)
#define LSR_DATA 0x01
#define LSR_EMPTY 0x20

/* What start.S has mapped; firmware tables are read before the final page tables exist. */
#define BOOT_MAPPED (1ull << 30)

static char cmdline[2048];
static struct hal_mem module;
static uint16_t pm1a_control, pm1b_control;
static uint8_t s5_type_a, s5_type_b;
static bool have_s5;
static uint16_t exit_port; /* command line: hal.exit_port=0x...; writing the code there ends the machine */

const char *hal_flavour(void)
{
	return "native";
}

/* --------------------------------------------------------------- console */

void hal_native_serial_init(void)
{
	native_out8(UART_IER, 0);
	native_out8(UART_LCR, 0x80); /* 115200 8n1 */
	native_out8(UART_DATA, 1);
	native_out8(UART_IER, 0);
	native_out8(UART_LCR, 0x03);
	native_out8(UART_FCR, 0x07);
	native_out8(UART_MCR, 0x0b); /* OUT2 lets the interrupt out */
}

void hal_native_serial_irq_enable(void)
{
	native_out8(UART_IER, 1);
}

void hal_write(const char *s, size_t len)
{
	static uint32_t owner; /* number of the processor that writes, plus 1 */
	bool irq = hal_irq_save(), mine;
	uint32_t me = hal_cpu_number() + 1, seen;

	do {
		seen = 0;
		mine = __atomic_compare_exchange_n(&owner, &seen, me, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
		/* A trap of the writer itself: it may write. */
	} while (!mine && seen != me);
	for (; len; len--, s++) {
		while (!(native_in8(UART_LSR) & LSR_EMPTY))
			__builtin_ia32_pause();
		native_out8(UART_DATA, (uint8_t)*s);
		COUNT(serial);
	}
	if (mine)
		__atomic_store_n(&owner, 0, __ATOMIC_RELEASE);
	hal_irq_restore(irq);
}

int hal_getc(void)
{
	return native_in8(UART_LSR) & LSR_DATA ? native_in8(UART_DATA) : -1;
}

/* ----------------------------------------------------------------- start */

const char *hal_cmdline(void)
{
	return cmdline;
}

bool hal_module(struct hal_mem *mem)
{
	*mem = module;
	return module.len != 0;
}

int hal_entropy(void *buf, size_t len)
{
	uint8_t *p = buf;

	if (len > 64)
		return -HAL_EINVAL;
	if (!(hal_cpu()->cpuid[0] & 1u << 30)) /* RDRAND */
		return -HAL_ENOTSUP;
	while (len) {
		uint64_t v;
		bool ok = false;

		for (int tries = 0; tries < 10 && !ok; tries++)
			__asm__ volatile("rdrand %0" : "=r"(v), "=@ccc"(ok));
		if (!ok)
			return -HAL_ENOTSUP;
		for (unsigned int i = 0; i < 8 && len; i++, len--, v >>= 8)
			*p++ = (uint8_t)v;
	}
	return 0;
}

/* Value of a hexadecimal option on the command line, 0 when it is not there. */
static uint64_t cmdline_hex(const char *name)
{
	for (const char *p = cmdline; *p; p++) {
		const char *q = p, *n = name;
		uint64_t v = 0;

		if (p != cmdline && p[-1] != ' ')
			continue;
		while (*n && *q == *n) {
			q++;
			n++;
		}
		if (*n || q[0] != '=' || q[1] != '0' || q[2] != 'x')
			continue;
		for (q += 3;; q++) {
			if (*q >= '0' && *q <= '9')
				v = v << 4 | (uint64_t)(*q - '0');
			else if (*q >= 'a' && *q <= 'f')
				v = v << 4 | (uint64_t)(*q - 'a' + 10);
			else
				return v;
		}
	}
	return 0;
}

/* Unaligned little-endian reads from firmware tables. */
static uint64_t get(const uint8_t *p, unsigned int bytes)
{
	uint64_t v = 0;

	while (bytes--)
		v = v << 8 | p[bytes];
	return v;
}

static const uint8_t *boot_table(uint64_t pa, uint64_t len)
{
	return pa && pa < BOOT_MAPPED && len <= BOOT_MAPPED - pa ? hal_pa_to_va(pa) : NULL;
}

/* A table with its checksum right, or NULL. */
static const uint8_t *acpi_table(uint64_t pa, const char *signature)
{
	const uint8_t *t = boot_table(pa, 36);
	uint32_t len;
	uint8_t sum = 0;

	if (!t || get(t, 4) != get((const uint8_t *)signature, 4))
		return NULL;
	len = (uint32_t)get(t + 4, 4);
	if (len < 36 || !boot_table(pa, len))
		return NULL;
	for (uint32_t i = 0; i < len; i++)
		sum += t[i];
	return sum ? NULL : t;
}

/* One integer of an AML package: 0, 1, or a byte. */
static const uint8_t *aml_byte(const uint8_t *p, uint8_t *v)
{
	if (*p == 0x0a)
		p++;
	*v = *p++;
	return p;
}

/* The other processors: local APICs that are enabled. */
static void madt_init(const uint8_t *madt)
{
	const uint8_t *end = madt + get(madt + 4, 4);

	for (const uint8_t *p = madt + 44; p + 8 <= end && p[1] >= 2; p += p[1]) {
		if (p[0] == 0 && p[4] & 1)
			hal_native_cpu_found(p[3]);
	}
}

/*
 * Processors, and where to write what to enter S5: the FADT says where, the
 * DSDT's \_S5_ what.
 */
static void acpi_init(uint64_t rsdp_pa)
{
	const uint8_t *rsdp = boot_table(rsdp_pa, 36), *root, *fadt = NULL, *dsdt, *madt;
	unsigned int size, count;

	if (!rsdp)
		return;
	root = rsdp[15] >= 2 ? acpi_table(get(rsdp + 24, 8), "XSDT") : NULL;
	size = root ? 8 : 4;
	if (!root)
		root = acpi_table(get(rsdp + 16, 4), "RSDT");
	if (!root)
		return;
	count = ((uint32_t)get(root + 4, 4) - 36) / size;
	for (unsigned int i = 0; i < count; i++) {
		madt = acpi_table(get(root + 36 + i * size, size), "APIC");
		if (madt)
			madt_init(madt);
		if (!fadt)
			fadt = acpi_table(get(root + 36 + i * size, size), "FACP");
	}
	if (!fadt)
		return;
	dsdt = acpi_table(get(fadt + 40, 4), "DSDT");
	if (!dsdt)
		return;
	for (uint32_t i = 36, len = (uint32_t)get(dsdt + 4, 4); i + 16 < len; i++) {
		const uint8_t *p = dsdt + i;

		if (get(p, 4) != 0x5f35535f || p[4] != 0x12) /* "_S5_", package */
			continue;
		p += 5;
		p += 1 + (*p >> 6); /* package length */
		p++;		    /* number of elements */
		p = aml_byte(p, &s5_type_a);
		aml_byte(p, &s5_type_b);
		pm1a_control = (uint16_t)get(fadt + 64, 4);
		pm1b_control = (uint16_t)get(fadt + 68, 4);
		have_s5 = true;
		return;
	}
}

void hal_native_start(uint64_t info_pa);

void hal_native_start(uint64_t info_pa)
{
	const struct pvh_start *info = hal_pa_to_va(info_pa);
	const struct pvh_memmap *map;
	const char *cmd;

	hal_native_cpus[0].self = &hal_native_cpus[0];
	native_wrmsr(MSR_GS_BASE, (uintptr_t)&hal_native_cpus[0]);
	hal_native_serial_init();
	if (info->magic != PVH_MAGIC || info->version < 1)
		hal_panic("started by something that is not PVH with a memory map");
	cmd = (const char *)boot_table(info->cmdline, sizeof(cmdline));
	for (unsigned int i = 0; cmd && i < sizeof(cmdline) - 1 && cmd[i]; i++)
		cmdline[i] = cmd[i];
	exit_port = (uint16_t)cmdline_hex("hal.exit_port");

	map = (const struct pvh_memmap *)boot_table(info->memmap, info->memmap_entries * sizeof(*map));
	if (!map)
		hal_panic("no memory map");
	for (unsigned int i = 0; i < info->memmap_entries; i++) {
		if (map[i].type == PVH_RAM)
			hal_core_memmap_add(map[i].pa, map[i].len, HAL_MEM_RAM);
	}
	/* Firmware tables, this start info and video memory are down there. */
	hal_core_memmap_add(0, 0x100000, HAL_MEM_RESERVED);
	hal_core_memmap_add((uintptr_t)hal_image_start, (uint64_t)(hal_image_end - hal_image_start), HAL_MEM_IMAGE);
	if (info->modules) {
		const struct pvh_module *m = (const struct pvh_module *)boot_table(info->modlist, sizeof(*m));

		if (m && m->len) {
			module = (struct hal_mem){ m->pa, m->len, HAL_MEM_MODULE };
			hal_core_memmap_add(m->pa, m->len, HAL_MEM_MODULE);
		}
	}
	acpi_init(info->rsdp);

	hal_native_mmu_init();
	hal_native_irq_init();
	hal_native_trap_init();
	hal_poweroff((unsigned int)hal_main());
}

/* ------------------------------------------------------------------ time */

static uint8_t rtc_read(uint8_t reg)
{
	native_out8(0x70, reg);
	return native_in8(0x71);
}

uint64_t hal_wall_ns(void)
{
	uint8_t t[6], again[6];
	static const uint8_t reg[6] = { 0, 2, 4, 7, 8, 9 }; /* s, min, h, day, month, year */
	bool bcd = !(rtc_read(0x0b) & 4);
	uint64_t y, m, days;
	bool same;

	/* Two readings that agree, neither during an update. */
	do {
		same = true;
		for (unsigned int i = 0; i < 12; i++) {
			while (rtc_read(0x0a) & 0x80)
				__builtin_ia32_pause();
			(i < 6 ? t : again)[i % 6] = rtc_read(reg[i % 6]);
		}
		for (unsigned int i = 0; i < 6; i++)
			same &= t[i] == again[i];
	} while (!same);
	for (unsigned int i = 0; bcd && i < 6; i++)
		t[i] = (uint8_t)((t[i] >> 4) * 10 + (t[i] & 15));
	/* Days since 1970-01-01, years starting in March so that leap days come last. */
	m = t[4] > 2 ? t[4] - 3 : t[4] + 9;
	y = 2000u + t[5] - (t[4] <= 2);
	days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + t[3] - 1 - 719468;
	return (((days * 24 + t[2]) * 60 + t[1]) * 60 + t[0]) * 1000000000ull;
}

/* ------------------------------------------------------------------- end */

static void stop(unsigned int code) __attribute__((noreturn));
static void stop(unsigned int code)
{
	native_cli();
	if (exit_port)
		native_out32(exit_port, code);
	if (have_s5 && code <= 123) {
		/* SLP_EN and the sleep type of S5. */
		native_out16(pm1a_control, (uint16_t)(0x2000 | s5_type_a << 10));
		if (pm1b_control)
			native_out16(pm1b_control, (uint16_t)(0x2000 | s5_type_b << 10));
	}
	for (;;)
		__asm__ volatile("cli; hlt");
}

void hal_poweroff(unsigned int code)
{
	stop(code <= 123 ? code : 123);
}

void hal_restart(unsigned int code)
{
	struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} no_idt = { 0, 0 };

	(void)code;
	native_cli();
	native_out8(0xcf9, 0x02); /* reset control: first the kind, then do it */
	native_out8(0xcf9, 0x06);
	/* Still here: a trap that cannot be delivered resets every PC. */
	__asm__ volatile("lidt %0; int3" ::"m"(no_idt));
	for (;;)
		;
}

void hal_flavour_crash(const char *message, const struct hal_frame *f)
{
	native_cli();
	if (f) {
		hal_printf("rip %016lx rsp %016lx rflags %08lx\n", f->rip, f->rsp, f->rflags);
		hal_printf("rax %016lx rbx %016lx rcx %016lx rdx %016lx\n", f->rax, f->rbx, f->rcx, f->rdx);
		hal_printf("rsi %016lx rdi %016lx rbp %016lx r8  %016lx\n", f->rsi, f->rdi, f->rbp, f->r8);
		hal_printf("r9  %016lx r10 %016lx r11 %016lx r12 %016lx\n", f->r9, f->r10, f->r11, f->r12);
		hal_printf("r13 %016lx r14 %016lx r15 %016lx\n", f->r13, f->r14, f->r15);
	}
	hal_printf("panic: %s\n", message);
	stop(125);
}

unsigned int hal_stats(struct hal_stat *stats, unsigned int max)
{
#define X(name, text) text,
	static const char *const names[] = { NATIVE_COUNTERS(X) };
#undef X
	unsigned int n = 0;

	for (unsigned int i = 0; i < NATIVE_COUNT_COUNT && n < max; i++) {
		if (hal_native_count[i])
			stats[n++] = (struct hal_stat){ names[i], hal_native_count[i], 0, 0 };
	}
	return n;
}
