/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Hypercalls through the gate, for guest-kernel code.
 *
 * keel_gate() is the one place that enters the gate (src/gate.S). It is a plain
 * function and not inline assembly because the gate uses the caller's stack: a
 * compiler does not know that of an asm statement and would keep live data in
 * the red zone below it.
 */
#ifndef HYPERCALL_CALL_H
#define HYPERCALL_CALL_H

#include <hypercall/compat.h>
#include <keel/keel.h>

KEEL_BEGIN_C

/**
 * keel_gate - make any hypercall
 * @a1: first argument (rdi)
 * @a2: second argument (rsi)
 * @a3: third argument (rdx)
 * @a4: fourth argument (r10)
 * @a5: fifth argument (r8)
 * @id: call number, KEEL_CALL_*; bits 63:32 zero
 *
 * Arguments a call does not have must be zero. Legal wherever the call is.
 */
struct keel_ret keel_gate(keel_u64 a1, keel_u64 a2, keel_u64 a3, keel_u64 a4, keel_u64 a5, keel_u64 id);

static inline struct keel_ret keel_call0(keel_u64 id)
{
	return keel_gate(0, 0, 0, 0, 0, id);
}

static inline struct keel_ret keel_call1(keel_u64 id, keel_u64 a1)
{
	return keel_gate(a1, 0, 0, 0, 0, id);
}

static inline struct keel_ret keel_call2(keel_u64 id, keel_u64 a1, keel_u64 a2)
{
	return keel_gate(a1, a2, 0, 0, 0, id);
}

static inline struct keel_ret keel_call3(keel_u64 id, keel_u64 a1, keel_u64 a2, keel_u64 a3)
{
	return keel_gate(a1, a2, a3, 0, 0, id);
}

static inline struct keel_ret keel_call4(keel_u64 id, keel_u64 a1, keel_u64 a2, keel_u64 a3, keel_u64 a4)
{
	return keel_gate(a1, a2, a3, a4, 0, id);
}

static inline struct keel_ret keel_call5(keel_u64 id, keel_u64 a1, keel_u64 a2, keel_u64 a3, keel_u64 a4, keel_u64 a5)
{
	return keel_gate(a1, a2, a3, a4, a5, id);
}

/* This vCPU's page. Not to be kept across a point where the caller can move to another vCPU. */
static inline struct keel_vcpu *keel_vcpu_page(void)
{
	struct keel_vcpu *v;

	__asm__ volatile("movq %%gs:%c1, %0" : "=r"(v) : "i"(KEEL_VCPU_SELF));
	return v;
}

/* Shorthand for the wrapped number types. */
static inline keel_gpa_t keel_gpa(keel_u64 v)
{
	keel_gpa_t gpa = { v };

	return gpa;
}

static inline keel_port_t keel_port(keel_u32 v)
{
	keel_port_t port = { v };

	return port;
}

static inline keel_as_t keel_as(keel_u64 v)
{
	keel_as_t as = { v };

	return as;
}

KEEL_END_C

/* keel_NAME() for each call of a served extension. */
#include <hypercall/wrappers.h>

#endif
