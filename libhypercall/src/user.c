// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Register contexts of guest user code; see hypercall/user.h. */
#include <hypercall/user.h>
#include <keel/mmu.h>

#include "mutant.h"

/* The legacy part of an XSAVE area. */
#define XSAVE_FCW 0
#define XSAVE_MXCSR 24
#define FCW_INIT 0x37f
#define MXCSR_INIT 0x1f80

keel_u32 keel_user_size(const struct keel_cpu_info *cpu)
{
	return KEEL_USER_XSAVE + cpu->xsave_size;
}

void keel_user_init(struct keel_user *u, const struct keel_cpu_info *cpu, keel_u64 rip, keel_u64 rsp)
{
	keel_u8 *area = (keel_u8 *)u + KEEL_USER_XSAVE;
	keel_u16 fcw = FCW_INIT;
	keel_u32 mxcsr = MXCSR_INIT;

	keel_memset(u, 0, keel_user_size(cpu));
	u->size = keel_user_size(cpu);
	u->rip = rip;
	u->rsp = rsp;
	/* xstate_bv 0 says that all is as initially; XRSTOR takes MXCSR from here all the same. */
	keel_memcpy(area + XSAVE_FCW, &fcw, sizeof(fcw));
	if (!KEEL_MUTANT(15))
		keel_memcpy(area + XSAVE_MXCSR, &mxcsr, sizeof(mxcsr));
}

void keel_user_copy(struct keel_user *to, const struct keel_user *from)
{
	keel_memcpy(to, from, from->size);
}

keel_u64 keel_user_arg(const struct keel_user *u, unsigned int n)
{
	const keel_u64 arg[] = { u->rdi, u->rsi, u->rdx, u->r10, u->r8, u->r9 };

	return n < keel_array_size(arg) ? arg[n] : 0;
}

keel_u16 keel_user_fault_needs(const struct keel_user *u)
{
	if (u->error & KEEL_PF_X)
		return KEEL_PROT_X;
	return u->error & KEEL_PF_W ? KEEL_PROT_W : KEEL_PROT_R;
}

const char *keel_user_reason(const struct keel_user *u)
{
	static const struct {
		keel_u32 vector;
		const char *name;
	} names[] = {
		{ KEEL_VEC_DE, "division error" },  { KEEL_VEC_DB, "debug exception" },
		{ KEEL_VEC_BP, "breakpoint" },	    { KEEL_VEC_UD, "invalid opcode" },
		{ KEEL_VEC_SS, "stack fault" },	    { KEEL_VEC_GP, "general protection" },
		{ KEEL_VEC_PF, "page fault" },	    { KEEL_VEC_MF, "x87 exception" },
		{ KEEL_VEC_AC, "alignment check" }, { KEEL_VEC_XM, "SIMD exception" },
	};
	unsigned int i;

	if (u->reason == KEEL_USER_SYSCALL)
		return "system call";
	if (u->reason == KEEL_USER_EVENT)
		return "event";
	for (i = 0; u->reason == KEEL_USER_EXCEPTION && i < keel_array_size(names); i++) {
		if (names[i].vector == u->vector)
			return names[i].name;
	}
	return u->reason == KEEL_USER_EXCEPTION ? "exception" : "no reason";
}
