/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Register contexts of guest user code: making one, and reading why it stopped.
 * Pure operations on the structure; user_enter and keel_user_run() (repeat.h)
 * take its guest-physical address.
 */
#ifndef HYPERCALL_USER_H
#define HYPERCALL_USER_H

#include <hypercall/compat.h>
#include <keel/start.h>
#include <keel/user.h>
#include <keel/vcpu.h>

KEEL_BEGIN_C

/* Bytes of a context on this host, its XSAVE area included; at most KEEL_USER_SIZE_MAX on the CPUs there are today. */
#define KEEL_USER_SIZE_MAX 16384
keel_u32 keel_user_size(const struct keel_cpu_info *cpu);

/**
 * keel_user_init - a context for code that has not run yet
 * @u: keel_user_size() bytes, aligned to KEEL_USER_ALIGN
 * @cpu: of the start info
 * @rip: first instruction
 * @rsp: stack pointer
 *
 * Every other register is 0, x87, vector and mask state in its initial configuration.
 */
void keel_user_init(struct keel_user *u, const struct keel_cpu_info *cpu, keel_u64 rip, keel_u64 rsp);

/* A copy of a context, as fork() needs it. */
void keel_user_copy(struct keel_user *to, const struct keel_user *from);

/* Argument 0 to 5 of a system call in the usual order rdi rsi rdx r10 r8 r9; its number is u->rax. */
keel_u64 keel_user_arg(const struct keel_user *u, unsigned int n);

/* Did a page fault stop it? Its address is u->addr. */
static inline bool keel_user_faulted(const struct keel_user *u)
{
	return u->reason == KEEL_USER_EXCEPTION && u->vector == KEEL_VEC_PF;
}

/* Which access was it: KEEL_PROT_R, _W or _X, the protection it would have needed. */
keel_u16 keel_user_fault_needs(const struct keel_user *u);

/* Was the page mapped, so that its protection was what stopped the access? */
static inline bool keel_user_fault_present(const struct keel_user *u)
{
	return u->error & KEEL_PF_P;
}

/* "system call", "page fault", ... for messages; never NULL. */
const char *keel_user_reason(const struct keel_user *u);

KEEL_END_C

#endif
