/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * The event map of one vCPU: what a sender, a masker and the guest's dispatcher
 * do to it. Pure operations on the shared page, used by guests, by the host
 * behind event_send and by tests alike. `bit` is KEEL_PORT_BIT(port),
 * below KEEL_EVENT_BITS.
 *
 * No event is lost because each side publishes before it looks: the sender sets
 * the port's bit, then the word's bit; the dispatcher clears the word's bit, then
 * reads the ports'. Whoever comes second sees the first.
 */
#ifndef HYPERCALL_EVENT_H
#define HYPERCALL_EVENT_H

#include <hypercall/compat.h>
#include <keel/event.h>
#include <keel/vcpu.h>

KEEL_BEGIN_C

/* What a port is called with. */
typedef void (*keel_event_fn)(void *arg, keel_u32 bit);

struct keel_event_action {
	keel_event_fn fn;
	void *arg;
};

/**
 * keel_ev_send - make a port pending
 * Returns true when the vCPU must be kicked: its pending word was zero before.
 */
bool keel_ev_send(struct keel_vcpu __pvshared *v, keel_u32 bit);

/* Hold delivery of a port; what is sent meanwhile is kept. */
void keel_ev_mask(struct keel_vcpu __pvshared *v, keel_u32 bit);

/**
 * keel_ev_unmask - allow delivery of a port
 * Returns true when an event was held and is now to be delivered: from the vCPU
 * itself call trap_deliver if IF is on; from elsewhere kick.
 */
bool keel_ev_unmask(struct keel_vcpu __pvshared *v, keel_u32 bit);

/* Mask a port and drop what it holds: the state of a port that is closed. */
void keel_ev_clear(struct keel_vcpu __pvshared *v, keel_u32 bit);

/* Is anything deliverable, as far as the pending word says? */
bool keel_ev_pending(const struct keel_vcpu __pvshared *v);

/* State of one port: true when it holds an event, masked or not. */
bool keel_ev_test(const struct keel_vcpu __pvshared *v, keel_u32 bit);

/**
 * keel_ev_next - take the most urgent deliverable event
 * Two bit scans. Returns its bit, no longer pending, or -1 when there is none.
 * For the vCPU itself, with IF off.
 */
int keel_ev_next(struct keel_vcpu __pvshared *v);

/**
 * keel_ev_dispatch - take events and call their handlers until none is left
 * @v: the vCPU's own page
 * @table: KEEL_EVENT_BITS actions
 * @spurious: counts events without a handler; may be NULL
 *
 * The most urgent event is chosen anew after each handler. Returns the events taken.
 */
unsigned int keel_ev_dispatch(struct keel_vcpu __pvshared *v, const struct keel_event_action *table,
			      keel_u64 *spurious);

KEEL_END_C

#endif
