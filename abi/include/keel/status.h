/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Call status. 0 or a negative number whose magnitude says what was wrong and
 * where (KEEL-CALL-07):
 *
 *	bits  7:0   code, KEEL_E_*
 *	bits 15:8   position: 0 unknown, 1..5 argument, KEEL_AT_FIELD(n) = field n
 *	            (from 1, in declaration order) of the structure or record
 *	bits 23:16  1 + number of the offending bit of a flag word, 0 = none
 *	bits 63:24  zero
 *
 * Where a call works through records, `value` says how many were completed, so
 * the offending record is number `value & 0xffffffff`.
 */
#ifndef KEEL_STATUS_H
#define KEEL_STATUS_H

#define KEEL_OK 0
#define KEEL_E_NOSYS 1	   /* no such call number */
#define KEEL_E_NOTSUP 2	   /* known, but not implemented or not accepted here */
#define KEEL_E_PERM 3	   /* implemented, not granted to this partition or caller */
#define KEEL_E_AGAIN 4	   /* not now; value = suggested delay in ns, 0 = none */
#define KEEL_E_INVAL 5	   /* malformed argument, unknown flag, non-zero reserved field */
#define KEEL_E_FAULT 6	   /* GPA range not in RAM, or not writable */
#define KEEL_E_RANGE 7	   /* well formed, but beyond a limit */
#define KEEL_E_NOMEM 8	   /* the partition's quota is used up */
#define KEEL_E_NOENT 9	   /* no such object, stale handle, page not mapped */
#define KEEL_E_EXIST 10	   /* already there */
#define KEEL_E_BUSY 11	   /* in use */
#define KEEL_E_CONTEXT 12  /* not legal in this context (KEEL-CTX table) */
#define KEEL_E_STATE 13	   /* wrong order: before or after freeze, slot not ready */
#define KEEL_E_TIMEDOUT 14 /* deadline passed first */
#define KEEL_E_COUNT 15

#define KEEL_AT_ARG(n) (n)
#define KEEL_AT_FIELD(n) (0x10 + (n))

/* Signed whatever the operands are: a status is widened to 64 bits. */
#ifdef __ASSEMBLER__
#define KEEL_STATUS_INT(x) (x)
#else
#define KEEL_STATUS_INT(x) ((int)(x))
#endif
#define KEEL_STATUS(code, at) (-KEEL_STATUS_INT((code) | (at) << 8))
#define KEEL_STATUS_BIT(code, at, bit) (-KEEL_STATUS_INT((code) | (at) << 8 | ((bit) + 1) << 16))

#define KEEL_STATUS_CODE(status) ((int)(-(status)&0xff))
#define KEEL_STATUS_AT(status) ((int)(-(status) >> 8 & 0xff))
#define KEEL_STATUS_FLAGBIT(status) ((int)(-(status) >> 16 & 0xff) - 1)

#endif
