// SPDX-License-Identifier: MIT
#include "hvmboot.h"

#include <stddef.h>
#include <string.h>

#include <keel/keel.h>

#include "hvmimage.h"
#include "partition.h"
#include "startinfo.h"

#define PACKED __attribute__((packed))
#define LOW_RAM_END UINT64_C(0x9f000) /* where a PC's firmware data begins */

/* PVH, version 1 (Xen, public/arch-x86/hvm/start_info.h). */
#define START_MAGIC 0x336ec578
#define MAP_RAM 1
#define MAP_RESERVED 2

struct start_info {
	uint32_t magic, version, flags, modules;
	uint64_t module_list, cmdline, rsdp, map;
	uint32_t map_entries, reserved;
};

struct start_module {
	uint64_t gpa, size, cmdline, reserved;
};

struct start_map {
	uint64_t gpa, size;
	uint32_t type, reserved;
};

/* ACPI 5.0, with everything that is not there left zero. */
struct acpi_header {
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem[6], oem_table[8];
	uint32_t oem_revision;
	char creator[4];
	uint32_t creator_revision;
} PACKED;

struct acpi_rsdp {
	char signature[8];
	uint8_t checksum;
	char oem[6];
	uint8_t revision;
	uint32_t rsdt, length;
	uint64_t xsdt;
	uint8_t extended_checksum, reserved[3];
} PACKED;

struct acpi_xsdt {
	struct acpi_header h;
	uint64_t table[2];
} PACKED;

struct acpi_address {
	uint8_t space, bits, offset, access;
	uint64_t address;
} PACKED;

struct acpi_fadt {
	struct acpi_header h;
	uint32_t facs, dsdt;
	uint8_t reserved0, profile;
	uint16_t sci;
	uint32_t smi_command;
	uint8_t smi_values[4];
	uint32_t pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, timer, gpe0, gpe1;
	uint8_t pm1_event_length, pm1_control_length, pm2_control_length, timer_length;
	uint8_t gpe0_length, gpe1_length, gpe1_base, cst_control;
	uint16_t c2_latency, c3_latency, flush_size, flush_stride;
	uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
	uint16_t boot_flags;
	uint8_t reserved1;
	uint32_t flags;
	struct acpi_address reset;
	uint8_t reset_value, reserved2[3];
	uint64_t x_facs, x_dsdt;
	struct acpi_address x_block[10];
} PACKED;
_Static_assert(sizeof(struct acpi_fadt) == 268 && offsetof(struct acpi_fadt, boot_flags) == 109 &&
		       offsetof(struct acpi_fadt, reset) == 116,
	       "FADT of ACPI 5.0");

#define FADT_LEGACY_DEVICES 0x0001 /* a serial port is where a PC has it */
#define FADT_NO_VGA 0x0004
#define FADT_NO_RTC 0x0020    /* and no 8042, which would be 0x0002 */
#define FADT_FLAGS 0x00001435 /* wbinvd; C1; no fixed buttons; reset register; headless */
#define FADT_NO_C2 0xffff
#define ACPI_PORT 1 /* address space of ports */

struct acpi_facs {
	char signature[4];
	uint32_t length, words[14];
} PACKED;

struct acpi_madt {
	struct acpi_header h;
	uint32_t lapic, flags;
	struct {
		uint8_t type, length, processor, id;
		uint32_t flags;
	} PACKED cpu;
	struct {
		uint8_t type, length, id, reserved;
		uint32_t address, gsi_base;
	} PACKED ioapic;
} PACKED;

struct acpi_dsdt {
	struct acpi_header h;
	uint8_t aml[13];
} PACKED;

struct block {
	_Alignas(64) struct start_info start; /* first: HVM_START */
	_Alignas(64) struct acpi_rsdp rsdp;
	_Alignas(64) struct acpi_xsdt xsdt;
	_Alignas(64) struct acpi_fadt fadt;
	_Alignas(64) struct acpi_facs facs;
	_Alignas(64) struct acpi_madt madt;
	_Alignas(64) struct acpi_dsdt dsdt;
	_Alignas(64) struct start_module module;
	_Alignas(64) struct start_map map[3];
	_Alignas(64) char cmdline[KEEL_CMDLINE_MAX];
};
#define AT(member) (HVM_BLOCK + offsetof(struct block, member))

_Static_assert(HVM_BLOCK + sizeof(struct block) <= HVM_LOW_END && HVM_BLOCK >= LOW_RAM_END, "inside what is reserved");
_Static_assert(AT(start) == HVM_START, "what the vCPU is told");

static uint8_t checksum(const void *of, size_t n)
{
	const uint8_t *b = of;
	uint8_t sum = 0;

	while (n--)
		sum = (uint8_t)(sum + *b++);
	return (uint8_t)-sum;
}

static void seal(struct acpi_header *h, const char *signature, uint8_t revision, size_t length)
{
	memcpy(h->signature, signature, sizeof(h->signature));
	memcpy(h->oem, "KEEL  ", sizeof(h->oem));
	memcpy(h->oem_table, "KEELHVM ", sizeof(h->oem_table));
	memcpy(h->creator, "KEEL", sizeof(h->creator));
	h->revision = revision;
	h->oem_revision = h->creator_revision = 1;
	h->length = (uint32_t)length;
	h->checksum = checksum(h, length);
}

static void build_acpi(struct block *b)
{
	/* Name (\_S5, Package () { 5, 0, 0, 0 }): how to power off. */
	static const uint8_t aml[sizeof(b->dsdt.aml)] = { 0x08, '_', 'S', '5',	'_',
							  0x12, 7,   4,	  0x0a, HVM_PM_SLEEP_TYPE_OFF,
							  0,	0,   0 };

	memcpy(b->dsdt.aml, aml, sizeof(aml));
	seal(&b->dsdt.h, "DSDT", 2, sizeof(b->dsdt));

	memcpy(b->facs.signature, "FACS", 4);
	b->facs.length = sizeof(b->facs);

	b->fadt.facs = AT(facs);
	b->fadt.dsdt = AT(dsdt);
	b->fadt.x_dsdt = AT(dsdt);
	b->fadt.sci = HVM_SCI_GSI;
	b->fadt.pm1a_event = HVM_PM_PORT;
	b->fadt.pm1a_control = HVM_PM_PORT + HVM_PM_CONTROL;
	b->fadt.pm1_event_length = 4;
	b->fadt.pm1_control_length = 2;
	b->fadt.c2_latency = b->fadt.c3_latency = FADT_NO_C2;
	b->fadt.boot_flags = FADT_LEGACY_DEVICES | FADT_NO_VGA | FADT_NO_RTC;
	b->fadt.flags = FADT_FLAGS;
	b->fadt.reset = (struct acpi_address){ ACPI_PORT, 8, 0, 1, HVM_RESET_PORT };
	b->fadt.reset_value = HVM_RESET_VALUE;
	seal(&b->fadt.h, "FACP", 5, sizeof(b->fadt));

	b->madt.lapic = HVM_LAPIC;
	b->madt.flags = 1; /* there are 8259s, too */
	b->madt.cpu.length = sizeof(b->madt.cpu);
	b->madt.cpu.flags = 1;
	b->madt.ioapic.type = 1;
	b->madt.ioapic.length = sizeof(b->madt.ioapic);
	b->madt.ioapic.address = HVM_IOAPIC;
	seal(&b->madt.h, "APIC", 3, sizeof(b->madt));

	b->xsdt.table[0] = AT(fadt);
	b->xsdt.table[1] = AT(madt);
	seal(&b->xsdt.h, "XSDT", 1, sizeof(b->xsdt));

	memcpy(b->rsdp.signature, "RSD PTR ", 8);
	memcpy(b->rsdp.oem, "KEEL  ", 6);
	b->rsdp.revision = 2;
	b->rsdp.length = sizeof(b->rsdp);
	b->rsdp.xsdt = AT(xsdt);
	b->rsdp.checksum = checksum(&b->rsdp, offsetof(struct acpi_rsdp, length));
	b->rsdp.extended_checksum = checksum(&b->rsdp, sizeof(b->rsdp));
}

void hvmboot_build(struct partition *p, const struct module *initrd, const char *cmdline)
{
	struct block *b = (struct block *)(p->ram + HVM_BLOCK);

	memset(b, 0, sizeof(*b));
	build_acpi(b);
	/* Longer ones do not pass the options. */
	strncpy(b->cmdline, cmdline, sizeof(b->cmdline) - 1);
	b->map[0] = (struct start_map){ 0, LOW_RAM_END, MAP_RAM, 0 };
	b->map[1] = (struct start_map){ LOW_RAM_END, HVM_LOW_END - LOW_RAM_END, MAP_RESERVED, 0 };
	b->map[2] = (struct start_map){ HVM_LOW_END, p->ram_size - HVM_LOW_END, MAP_RAM, 0 };
	b->start = (struct start_info){ .magic = START_MAGIC,
					.version = 1,
					.cmdline = AT(cmdline),
					.rsdp = AT(rsdp),
					.map = AT(map),
					.map_entries = 3 };
	if (initrd->len) {
		b->module = (struct start_module){ .gpa = initrd->gpa, .size = initrd->len };
		b->start.modules = 1;
		b->start.module_list = AT(module);
	}
}
