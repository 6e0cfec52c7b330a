/* SPDX-License-Identifier: MIT */
/*
 * The host's window in a guest's address space, above KEEL_VA_END, and what is in
 * the monitor's memory. The same on every backend; shared by host and monitor.
 *
 *	0x7f0100000000  the monitor's image: gate, code        r-x
 *	0x7f0200000000  ABI pages (clock, start info)          r--
 *	0x7f0300000000  vCPU blocks, 16 x 256 KiB              rw-
 *	0x7f0300400000  struct mon, table arena                rw-
 *	0x7f1000000000  RAM, the monitor's own view            rw-
 *
 * The first 4 GiB of the window stay empty: ring3's filter bounds a mapping's
 * address exactly and its length to 4 GiB, so no permitted call reaches further.
 */
#ifndef KEEL_MONITOR_LAYOUT_H
#define KEEL_MONITOR_LAYOUT_H

#define MON_GATE_VA 0x7f0100000000 /* the linker scripts assert it */
#define MON_ABI_VA 0x7f0200000000
#define MON_VCPU_VA 0x7f0300000000
#define MON_VCPU_SPAN 0x400000 /* all vCPU blocks; a power of two, for ring3's filter */
#define MON_VA (MON_VCPU_VA + MON_VCPU_SPAN)
#define MON_BACKEND_OFF 0x10000 /* the backend's own data, from struct mon */
#define MON_DYNAMIC_OFF 0x20000 /* table counters, host log and arena follow */
#define MON_RAM_VA 0x7f1000000000
#define MON_RAM_MAX 0x1000000000 /* 64 GiB; a power of two, for ring3's filter */

#endif
