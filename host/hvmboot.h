/* SPDX-License-Identifier: MIT */
/*
 * What an HVM kernel finds in memory besides itself: the PVH start info with
 * memory map, command line and initrd, and the ACPI tables that describe the
 * machine of backend/kvm/hvm.c. All of it is in one block below 1 MiB, which the
 * memory map reserves.
 */
#ifndef KEEL_HOST_HVMBOOT_H
#define KEEL_HOST_HVMBOOT_H

#include <stdint.h>

struct partition;
struct module;

/* The machine's addresses, as the tables name them. */
#define HVM_LAPIC UINT32_C(0xfee00000)
#define HVM_IOAPIC UINT32_C(0xfec00000)
#define HVM_PM_PORT 0x600	/* PM1a: status 2, enable 2, control 2 bytes */
#define HVM_PM_CONTROL 4	/* offset of control */
#define HVM_PM_SLEEP_TYPE_OFF 5 /* \_S5 */
#define HVM_RESET_PORT 0xcf9
#define HVM_RESET_VALUE 0x06
#define HVM_SCI_GSI 9
#define HVM_BLOCK UINT64_C(0xe0000) /* where the block is */
#define HVM_START HVM_BLOCK	    /* it begins with the start info */

/* Write the block into p->ram. */
void hvmboot_build(struct partition *p, const struct module *initrd, const char *cmdline);

#endif
