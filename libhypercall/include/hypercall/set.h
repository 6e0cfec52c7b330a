/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Sets of vCPUs in the form vcpu_ipi takes: a word for each bank of 64 that has
 * members, packed in ascending order. Pure operations on the structure; the size
 * to hand to the call is that of what the set holds, not of the structure.
 */
#ifndef HYPERCALL_SET_H
#define HYPERCALL_SET_H

#include <hypercall/compat.h>
#include <keel/vcpu.h>

KEEL_BEGIN_C

#define KEEL_SET_VCPUS (64 * KEEL_VCPU_SET_BANKS) /* numbers a set can hold: 0 to this minus 1 */
#define KEEL_SET_END KEEL_SET_VCPUS		  /* keel_set_next() found none */

/* The empty set. */
void keel_set_clear(struct keel_vcpu_set *set);

/* vCPUs 0 to n - 1. */
void keel_set_first(struct keel_vcpu_set *set, keel_u32 n);

/* Add one; false when the number is none a set can hold. */
bool keel_set_add(struct keel_vcpu_set *set, keel_u32 vcpu);

/* Take one out; what is not in the set is no error. */
void keel_set_remove(struct keel_vcpu_set *set, keel_u32 vcpu);

bool keel_set_has(const struct keel_vcpu_set *set, keel_u32 vcpu);

/* Members. */
keel_u32 keel_set_count(const struct keel_vcpu_set *set);

/* Lowest member that is at least `from`, KEEL_SET_END when there is none. */
keel_u32 keel_set_next(const struct keel_vcpu_set *set, keel_u32 from);

/* Bytes of it in use, the `size` of vcpu_ipi. */
keel_u32 keel_set_size(const struct keel_vcpu_set *set);

KEEL_END_C

#endif
