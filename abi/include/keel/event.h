/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * EVENT: ports. A port is one bit of one vCPU's 4096-bit map; its place gives
 * its priority, so the pending word orders words by urgency and finding the
 * most urgent event is two bit scans (KEEL-EVENT-03).
 *
 *	port handle: generation[31:24] | vcpu[23:12] | bit[11:0]
 *	priority   = bit / 1024, 0 is the most urgent
 *	word       = bit / 64,   bit of keel_vcpu.pending
 */
#ifndef KEEL_EVENT_H
#define KEEL_EVENT_H

#include <keel/types.h>

#define KEEL_EVENT_BITS 4096
#define KEEL_EVENT_PRIORITIES 4
#define KEEL_EVENT_BITS_PER_PRIORITY 1024

#define KEEL_PORT(gen, vcpu, bit) ((keel_u32)(gen) << 24 | (keel_u32)(vcpu) << 12 | (keel_u32)(bit))
#define KEEL_PORT_BIT(port) ((port)&0xfff)
#define KEEL_PORT_VCPU(port) ((port) >> 12 & 0xfff)
#define KEEL_PORT_GEN(port) ((port) >> 24)

/* event_bind: source. One port per source. */
#define KEEL_SOURCE_TIMER 0   /* the vCPU's one-shot timer fired */
#define KEEL_SOURCE_CONSOLE 1 /* console ring: input arrived, or output space came free */
#define KEEL_SOURCE_COUNT 2

/* struct keel_event_record.op */
#define KEEL_EVENT_OP_MASK 1
#define KEEL_EVENT_OP_UNMASK 2
#define KEEL_EVENT_OP_SEND 3

#define KEEL_EVENT_BATCH_MAX 512 /* records one event_batch call works off at most */

#ifndef __ASSEMBLER__
/*
 * struct keel_event_record - one operation of event_batch. Read-only to the host.
 *
 *	0  op    IN  KEEL_EVENT_OP_*  field 1
 *	4  port  IN  port handle      field 2
 */
struct keel_event_record {
	keel_u32 op;
	keel_u32 port;
};
KEEL_ASSERT_SIZE(struct keel_event_record, 8);
KEEL_ASSERT_AT(struct keel_event_record, op, 0);
KEEL_ASSERT_AT(struct keel_event_record, port, 4);
#endif

#endif
