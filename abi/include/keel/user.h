/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * USER: running guest user code. user_enter(as, context, 0) loads the registers
 * of a context in RAM, runs guest user code in the address space and stores them
 * back when it stops, with the reason it stopped as the call's value:
 *
 *	KEEL_USER_SYSCALL    a `syscall` instruction: rip is behind it, rax, rdi, rsi,
 *	                     rdx, r10, r8, r9 are what user code set, rcx and r11 are
 *	                     what the processor leaves there
 *	KEEL_USER_EXCEPTION  vector, error and addr say which; rip as for traps
 *	                     of the guest kernel (KEEL-NORM-06)
 *	KEEL_USER_EVENT      `pending` of this vCPU is not 0, or a dump is to be taken
 *
 * A context is page-independent: any 64-byte aligned GPA with all of it in RAM.
 */
#ifndef KEEL_USER_H
#define KEEL_USER_H

#include <keel/types.h>

#define KEEL_USER_SYSCALL 1
#define KEEL_USER_EXCEPTION 2
#define KEEL_USER_EVENT 3

#define KEEL_USER_ALIGN 64		    /* of a context's GPA */
#define KEEL_USER_XSAVE 0x100		    /* offset of the XSAVE area in a context */
#define KEEL_USER_RFLAGS KEEL_U64(0x240dd5) /* CF PF AF ZF SF TF DF OF AC ID: what a context can set */

/* Field offsets for assembly; asserted below. */
#define KEEL_USER_SIZE 0x00
#define KEEL_USER_FLAGS 0x04
#define KEEL_USER_VECTOR 0x08
#define KEEL_USER_REASON 0x0c
#define KEEL_USER_ERROR 0x10
#define KEEL_USER_ADDR 0x18
#define KEEL_USER_RIP 0x20
#define KEEL_USER_RSP 0x28
#define KEEL_USER_RFLAGS_AT 0x30
#define KEEL_USER_RAX 0x38
#define KEEL_USER_RBX 0x40
#define KEEL_USER_RCX 0x48
#define KEEL_USER_RDX 0x50
#define KEEL_USER_RSI 0x58
#define KEEL_USER_RDI 0x60
#define KEEL_USER_RBP 0x68
#define KEEL_USER_R8 0x70
#define KEEL_USER_R9 0x78
#define KEEL_USER_R10 0x80
#define KEEL_USER_R11 0x88
#define KEEL_USER_R12 0x90
#define KEEL_USER_R13 0x98
#define KEEL_USER_R14 0xa0
#define KEEL_USER_R15 0xa8
#define KEEL_USER_FS_BASE 0xb0
#define KEEL_USER_GS_BASE 0xb8

#ifndef __ASSEMBLER__
/*
 * struct keel_user - the registers of guest user code; an XSAVE area in standard
 * format, keel_cpu_info.xsave_size bytes, follows at KEEL_USER_XSAVE. rip to r15
 * lie where struct keel_frame has them.
 *
 *	0x00  size     IN      KEEL_USER_XSAVE + keel_cpu_info.xsave_size     field 1
 *	0x04  flags    IN      zero                                           field 2
 *	0x08  vector   OUT     of an exception, else zero                     field 3
 *	0x0c  reason   OUT     KEEL_USER_*                                    field 4
 *	0x10  error    OUT     of a #PF, else zero                            field 5
 *	0x18  addr     OUT     of a #PF, else zero                            field 6
 *	0x20  rip      IN/OUT  below 2^47                                     field 7
 *	0x28  rsp      IN/OUT                                                 field 8
 *	0x30  rflags   IN/OUT  IN: KEEL_USER_RFLAGS, other bits are ignored;
 *	                       OUT: those, and bits 1 and 9 set               field 9
 *	0x38  rax rbx rcx rdx rsi rdi rbp r8..r15  IN/OUT            fields 10 to 24
 *	0xb0  fs_base  IN/OUT  below 2^47                                    field 25
 *	0xb8  gs_base  IN/OUT  below 2^47                                    field 26
 *	0xc0  reserved IN      zero                                          field 27
 *	0x100 XSAVE area  IN/OUT  xcomp_bv and the header's reserved bytes zero,
 *	                       xstate_bv within xfeatures, MXCSR valid       field 28
 */
struct keel_user {
	keel_u32 size;
	keel_u32 flags;
	keel_u32 vector;
	keel_u32 reason;
	keel_u64 error;
	keel_u64 addr;
	keel_u64 rip;
	keel_u64 rsp;
	keel_u64 rflags;
	keel_u64 rax, rbx, rcx, rdx, rsi, rdi, rbp;
	keel_u64 r8, r9, r10, r11, r12, r13, r14, r15;
	keel_u64 fs_base;
	keel_u64 gs_base;
	keel_u64 reserved[8];
};
KEEL_ASSERT_SIZE(struct keel_user, KEEL_USER_XSAVE);
KEEL_ASSERT_AT(struct keel_user, size, KEEL_USER_SIZE);
KEEL_ASSERT_AT(struct keel_user, flags, KEEL_USER_FLAGS);
KEEL_ASSERT_AT(struct keel_user, vector, KEEL_USER_VECTOR);
KEEL_ASSERT_AT(struct keel_user, reason, KEEL_USER_REASON);
KEEL_ASSERT_AT(struct keel_user, error, KEEL_USER_ERROR);
KEEL_ASSERT_AT(struct keel_user, addr, KEEL_USER_ADDR);
KEEL_ASSERT_AT(struct keel_user, rip, KEEL_USER_RIP);
KEEL_ASSERT_AT(struct keel_user, rsp, KEEL_USER_RSP);
KEEL_ASSERT_AT(struct keel_user, rflags, KEEL_USER_RFLAGS_AT);
KEEL_ASSERT_AT(struct keel_user, rax, KEEL_USER_RAX);
KEEL_ASSERT_AT(struct keel_user, rbx, KEEL_USER_RBX);
KEEL_ASSERT_AT(struct keel_user, rcx, KEEL_USER_RCX);
KEEL_ASSERT_AT(struct keel_user, rdx, KEEL_USER_RDX);
KEEL_ASSERT_AT(struct keel_user, rsi, KEEL_USER_RSI);
KEEL_ASSERT_AT(struct keel_user, rdi, KEEL_USER_RDI);
KEEL_ASSERT_AT(struct keel_user, rbp, KEEL_USER_RBP);
KEEL_ASSERT_AT(struct keel_user, r8, KEEL_USER_R8);
KEEL_ASSERT_AT(struct keel_user, r9, KEEL_USER_R9);
KEEL_ASSERT_AT(struct keel_user, r10, KEEL_USER_R10);
KEEL_ASSERT_AT(struct keel_user, r11, KEEL_USER_R11);
KEEL_ASSERT_AT(struct keel_user, r12, KEEL_USER_R12);
KEEL_ASSERT_AT(struct keel_user, r13, KEEL_USER_R13);
KEEL_ASSERT_AT(struct keel_user, r14, KEEL_USER_R14);
KEEL_ASSERT_AT(struct keel_user, r15, KEEL_USER_R15);
KEEL_ASSERT_AT(struct keel_user, fs_base, KEEL_USER_FS_BASE);
KEEL_ASSERT_AT(struct keel_user, gs_base, KEEL_USER_GS_BASE);
KEEL_ASSERT_AT(struct keel_user, reserved, 0xc0);
#endif

#endif
