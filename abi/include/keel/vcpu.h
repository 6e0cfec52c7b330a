/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * The per-vCPU page, frame classes and save slots (TRAP, VCPU, EVENT).
 *
 * In the guest kernel %gs:0 is the page's own address. Virtual interrupts need
 * no call: to disable, store 0 to if_enabled; to enable, store 1, then test
 * pending, then call trap_deliver if it is not zero (KEEL-TRAP-10).
 */
#ifndef KEEL_VCPU_H
#define KEEL_VCPU_H

#include <keel/types.h>

/* Offsets for assembly; asserted below. */
#define KEEL_VCPU_SELF 0x000
#define KEEL_VCPU_GATE 0x008
#define KEEL_VCPU_START 0x010
#define KEEL_VCPU_ID 0x018
#define KEEL_VCPU_IF 0x020
#define KEEL_VCPU_PENDING 0x028
#define KEEL_VCPU_GUEST 0x040
#define KEEL_VCPU_SLOT(class) (0x100 + 0x100 * (class))
#define KEEL_VCPU_EVENT_PENDING 0x800
#define KEEL_VCPU_EVENT_MASK 0xa00
#define KEEL_VCPU_PAGE_SIZE 0x1000

/* Frame classes: each has an entry point, a save slot and an optional stack. */
#define KEEL_CLASS_TRAP 0   /* synchronous exceptions of the guest kernel */
#define KEEL_CLASS_EVENT 1  /* pending event ports, while IF is set */
#define KEEL_CLASS_DUMP 2   /* the non-maskable dump/stop event */
#define KEEL_CLASS_DOUBLE 3 /* a trap whose slot was still in use */
#define KEEL_CLASS_COUNT 4

/* struct keel_frame.state */
#define KEEL_SLOT_FREE 0   /* consumed: the host may write it */
#define KEEL_SLOT_FULL 1   /* delivered and not yet copied out */
#define KEEL_SLOT_RETURN 2 /* the guest is filling it for trap_return */

/* struct keel_frame.mode */
#define KEEL_MODE_KERNEL 0
#define KEEL_MODE_USER 1

/* Trap vectors are the architecture's. */
#define KEEL_VEC_DE 0
#define KEEL_VEC_DB 1
#define KEEL_VEC_BP 3
#define KEEL_VEC_UD 6
#define KEEL_VEC_DF 8
#define KEEL_VEC_SS 12
#define KEEL_VEC_GP 13
#define KEEL_VEC_PF 14
#define KEEL_VEC_MF 16
#define KEEL_VEC_AC 17
#define KEEL_VEC_XM 19

/* Page-fault error code, normalised (KEEL-NORM-02). */
#define KEEL_PF_P 1  /* the page is mapped; the access was not permitted */
#define KEEL_PF_W 2  /* a write */
#define KEEL_PF_U 4  /* from user mode */
#define KEEL_PF_X 16 /* an instruction fetch */

#define KEEL_RFLAGS_IF 0x200 /* in a frame: the virtual IF */

/* vcpu_info: what. Another number is RANGE@2. */
#define KEEL_VCPU_INFO_STATE 0 /* KEEL_VCPU_STOPPED or KEEL_VCPU_RUNNING */
#define KEEL_VCPU_INFO_COUNT 1
#define KEEL_VCPU_STOPPED 0
#define KEEL_VCPU_RUNNING 1 /* also while it waits, and from vcpu_start on */

#define KEEL_VCPU_ANY KEEL_U64(0xffffffffffffffff) /* vcpu_yield: target */
#define KEEL_VCPU_SET_BANKS 64

/* Frame field offsets for assembly; asserted below. */
#define KEEL_FRAME_STATE 0x00
#define KEEL_FRAME_CLASS 0x04
#define KEEL_FRAME_VECTOR 0x08
#define KEEL_FRAME_MODE 0x0c
#define KEEL_FRAME_ERROR 0x10
#define KEEL_FRAME_ADDR 0x18
#define KEEL_FRAME_RIP 0x20
#define KEEL_FRAME_RSP 0x28
#define KEEL_FRAME_RFLAGS 0x30
#define KEEL_FRAME_RAX 0x38
#define KEEL_FRAME_RBX 0x40
#define KEEL_FRAME_RCX 0x48
#define KEEL_FRAME_RDX 0x50
#define KEEL_FRAME_RSI 0x58
#define KEEL_FRAME_RDI 0x60
#define KEEL_FRAME_RBP 0x68
#define KEEL_FRAME_R8 0x70
#define KEEL_FRAME_R9 0x78
#define KEEL_FRAME_R10 0x80
#define KEEL_FRAME_R11 0x88
#define KEEL_FRAME_R12 0x90
#define KEEL_FRAME_R13 0x98
#define KEEL_FRAME_R14 0xa0
#define KEEL_FRAME_R15 0xa8
#define KEEL_FRAME_SIZE 0xc0

#ifndef __ASSEMBLER__
/*
 * struct keel_frame - an interrupted context in a save slot.
 *
 *	0x00  state   IN/OUT  KEEL_SLOT_*
 *	0x04  class   OUT     frame class, for a common entry stub
 *	0x08  vector  OUT     trap vector; 0 for events and dumps
 *	0x0c  mode    IN/OUT  KEEL_MODE_*
 *	0x10  error   OUT     error code, 0 where the vector has none
 *	0x18  addr    OUT     faulting address (#PF), else 0
 *	0x20  rip rsp rflags  IN/OUT  rflags.IF is the virtual IF
 *	0x38  rax rbx rcx rdx rsi rdi rbp r8..r15  IN/OUT
 *	0xb0  reserved        OUT zero, IN zero
 */
struct keel_frame {
	keel_u32 state;
	keel_u32 class_; /* `class` is a C++ keyword */
	keel_u32 vector;
	keel_u32 mode;
	keel_u64 error;
	keel_u64 addr;
	keel_u64 rip;
	keel_u64 rsp;
	keel_u64 rflags;
	keel_u64 rax, rbx, rcx, rdx, rsi, rdi, rbp;
	keel_u64 r8, r9, r10, r11, r12, r13, r14, r15;
	keel_u64 reserved[2];
};
KEEL_ASSERT_SIZE(struct keel_frame, KEEL_FRAME_SIZE);
KEEL_ASSERT_AT(struct keel_frame, state, KEEL_FRAME_STATE);
KEEL_ASSERT_AT(struct keel_frame, class_, KEEL_FRAME_CLASS);
KEEL_ASSERT_AT(struct keel_frame, vector, KEEL_FRAME_VECTOR);
KEEL_ASSERT_AT(struct keel_frame, mode, KEEL_FRAME_MODE);
KEEL_ASSERT_AT(struct keel_frame, error, KEEL_FRAME_ERROR);
KEEL_ASSERT_AT(struct keel_frame, addr, KEEL_FRAME_ADDR);
KEEL_ASSERT_AT(struct keel_frame, rip, KEEL_FRAME_RIP);
KEEL_ASSERT_AT(struct keel_frame, rsp, KEEL_FRAME_RSP);
KEEL_ASSERT_AT(struct keel_frame, rflags, KEEL_FRAME_RFLAGS);
KEEL_ASSERT_AT(struct keel_frame, rax, KEEL_FRAME_RAX);
KEEL_ASSERT_AT(struct keel_frame, rbx, KEEL_FRAME_RBX);
KEEL_ASSERT_AT(struct keel_frame, rcx, KEEL_FRAME_RCX);
KEEL_ASSERT_AT(struct keel_frame, rdx, KEEL_FRAME_RDX);
KEEL_ASSERT_AT(struct keel_frame, rsi, KEEL_FRAME_RSI);
KEEL_ASSERT_AT(struct keel_frame, rdi, KEEL_FRAME_RDI);
KEEL_ASSERT_AT(struct keel_frame, rbp, KEEL_FRAME_RBP);
KEEL_ASSERT_AT(struct keel_frame, r8, KEEL_FRAME_R8);
KEEL_ASSERT_AT(struct keel_frame, r9, KEEL_FRAME_R9);
KEEL_ASSERT_AT(struct keel_frame, r10, KEEL_FRAME_R10);
KEEL_ASSERT_AT(struct keel_frame, r11, KEEL_FRAME_R11);
KEEL_ASSERT_AT(struct keel_frame, r12, KEEL_FRAME_R12);
KEEL_ASSERT_AT(struct keel_frame, r13, KEEL_FRAME_R13);
KEEL_ASSERT_AT(struct keel_frame, r14, KEEL_FRAME_R14);
KEEL_ASSERT_AT(struct keel_frame, r15, KEEL_FRAME_R15);
KEEL_ASSERT_AT(struct keel_frame, reserved, 0xb0);

/*
 * struct keel_vcpu_set - a set of vCPUs, for vcpu_ipi: a word for each bank of 64
 * that has members, in ascending order, so that its size is what it holds:
 * 8 + 8 * number of bits in `banks` bytes. Read-only to the host, copied once.
 *
 *	0  banks   IN  bit b: vCPUs 64 * b to 64 * b + 63 have a word    field 1
 *	8  bank[]  IN  bit i of bank b's word: vCPU 64 * b + i           field 2
 */
struct keel_vcpu_set {
	keel_u64 banks;
	keel_u64 bank[KEEL_VCPU_SET_BANKS];
};
KEEL_ASSERT_SIZE(struct keel_vcpu_set, 520);
KEEL_ASSERT_AT(struct keel_vcpu_set, banks, 0);
KEEL_ASSERT_AT(struct keel_vcpu_set, bank, 8);

/* One save slot: a frame padded to 256 bytes. */
struct keel_slot {
	struct keel_frame frame;
	keel_u64 reserved[8]; /* zero */
};
KEEL_ASSERT_SIZE(struct keel_slot, 0x100);
KEEL_ASSERT_AT(struct keel_slot, frame, 0);
KEEL_ASSERT_AT(struct keel_slot, reserved, KEEL_FRAME_SIZE);

/*
 * struct keel_vcpu - the per-vCPU page, shared read-write with the guest.
 *
 *	0x000  self       OUT     guest-virtual address of this page
 *	0x008  gate       OUT     guest-virtual address of the gate
 *	0x010  start      OUT     guest-virtual address of the start info
 *	0x018  id         OUT     vCPU number
 *	0x01c  reserved0  zero
 *	0x020  if_enabled IN/OUT  virtual IF: 0 or 1
 *	0x021  reserved1  zero
 *	0x028  pending    IN/OUT  bit n: event word n has an unmasked pending bit
 *	0x030  reserved2  zero
 *	0x040  guest[8]   the guest's own; the host never reads or writes it
 *	0x080  reserved3  zero
 *	0x100  slot[4]    IN/OUT  save slots by frame class
 *	0x500  reserved4  zero
 *	0x800  event_pending[64]  IN/OUT  one bit per port, set by the sender
 *	0xa00  event_mask[64]     IN/OUT  one bit per port, 1 = held
 *	0xc00  reserved5  zero
 */
struct keel_vcpu {
	keel_u64 self;
	keel_u64 gate;
	keel_u64 start;
	keel_u32 id;
	keel_u32 reserved0;
	keel_u8 if_enabled;
	keel_u8 reserved1[7];
	keel_u64 pending;
	keel_u64 reserved2[2];
	keel_u64 guest[8];
	keel_u64 reserved3[16];
	struct keel_slot slot[KEEL_CLASS_COUNT];
	keel_u64 reserved4[96];
	keel_u64 event_pending[64];
	keel_u64 event_mask[64];
	keel_u64 reserved5[128];
};
KEEL_ASSERT_SIZE(struct keel_vcpu, KEEL_VCPU_PAGE_SIZE);
KEEL_ASSERT_AT(struct keel_vcpu, self, KEEL_VCPU_SELF);
KEEL_ASSERT_AT(struct keel_vcpu, gate, KEEL_VCPU_GATE);
KEEL_ASSERT_AT(struct keel_vcpu, start, KEEL_VCPU_START);
KEEL_ASSERT_AT(struct keel_vcpu, id, KEEL_VCPU_ID);
KEEL_ASSERT_AT(struct keel_vcpu, reserved0, 0x1c);
KEEL_ASSERT_AT(struct keel_vcpu, if_enabled, KEEL_VCPU_IF);
KEEL_ASSERT_AT(struct keel_vcpu, reserved1, 0x21);
KEEL_ASSERT_AT(struct keel_vcpu, pending, KEEL_VCPU_PENDING);
KEEL_ASSERT_AT(struct keel_vcpu, reserved2, 0x30);
KEEL_ASSERT_AT(struct keel_vcpu, guest, KEEL_VCPU_GUEST);
KEEL_ASSERT_AT(struct keel_vcpu, reserved3, 0x80);
KEEL_ASSERT_AT(struct keel_vcpu, slot, KEEL_VCPU_SLOT(0));
KEEL_ASSERT_AT(struct keel_vcpu, reserved4, 0x500);
KEEL_ASSERT_AT(struct keel_vcpu, event_pending, KEEL_VCPU_EVENT_PENDING);
KEEL_ASSERT_AT(struct keel_vcpu, event_mask, KEEL_VCPU_EVENT_MASK);
KEEL_ASSERT_AT(struct keel_vcpu, reserved5, 0xc00);
#endif

#endif
