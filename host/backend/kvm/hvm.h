/* SPDX-License-Identifier: MIT */
/*
 * HVM partitions: hvm.c is the machine (devices, MSRs, first registers), hvm_call.c
 * the ABI inside it (gate, events, timer), which is the monitor's code run by the
 * vCPU's thread of this process.
 *
 * Locks: `lock` covers the monitor's state; it is held over a whole call, which may
 * wait for the console. The console's lock may be taken under it, never the other
 * way round: raising and kicking take none.
 */
#ifndef KEEL_KVM_HVM_H
#define KEEL_KVM_HVM_H

#include <pthread.h>

#include <keel/hvm.h>

#include "../../hvmserial.h"
#include "../monmem.h"
#include "kvm.h"

#define HVM_GATE_PORT 0x4b /* the gate's own: one `out %al` to it is a call */
#define HVM_SERIAL_GSI 4
#define HVM_UPCALL_GSI 20

struct hvm {
	struct kvm *k;
	struct kvm_vcpu *cpu;
	struct serial serial;
	uint8_t pm[6];	      /* PM1a block */
	struct kvm_regs last; /* at the last exit to this process */

	struct monmem mm; /* this process's alone: the guest does not see it */
	pthread_mutex_t lock;
	pthread_cond_t timer_changed;
	pthread_t timer_thread;
	bool timer_running, quit;
	uint64_t deadline;	     /* guest ns, KEEL_TIME_NEVER = none */
	bool ended;		     /* by the call just made */
	uint64_t gate, vcpu, upcall; /* the MSRs, as written; upcall is read by any thread */
	uint64_t calls, upcalls;
};

/* hvm_call.c */
int hvm_call_create(struct hvm *h);
void hvm_call_destroy(struct hvm *h);
/* The guest wrote to the gate's port: registers are in cpu->run. */
enum kvm_next hvm_call(struct hvm *h);
/* MSRs from KEEL_MSR_GATE on; false: #GP. */
bool hvm_rdmsr(struct hvm *h, uint32_t msr, uint64_t *value);
bool hvm_wrmsr(struct hvm *h, uint32_t msr, uint64_t value);
/* Tell the guest of its events; any thread. */
void hvm_upcall(struct hvm *h);
/* Extensions an HVM guest is offered: feature word 0. */
uint64_t hvm_offered(void);

/* hvm.c: set an interrupt line; any thread. */
void hvm_line(struct hvm *h, unsigned int gsi, bool level);

#endif
