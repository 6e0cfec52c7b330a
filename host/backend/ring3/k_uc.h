/* SPDX-License-Identifier: MIT */
/* Byte offsets in the kernel's struct ucontext and siginfo, x86-64. */
#ifndef KEEL_RING3_K_UC_H
#define KEEL_RING3_K_UC_H

#define UC_R8 40
#define UC_R9 48
#define UC_R10 56
#define UC_R11 64
#define UC_R12 72
#define UC_R13 80
#define UC_R14 88
#define UC_R15 96
#define UC_RDI 104
#define UC_RSI 112
#define UC_RBP 120
#define UC_RBX 128
#define UC_RDX 136
#define UC_RAX 144
#define UC_RCX 152
#define UC_RSP 160
#define UC_RIP 168
#define UC_EFLAGS 176
#define UC_FPSTATE 224

#define SI_CALL_ADDR 16 /* then number and architecture */

#endif
