/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/* A call's status in words. */
#ifndef HYPERCALL_STATUS_H
#define HYPERCALL_STATUS_H

#include <hypercall/compat.h>
#include <keel/status.h>

KEEL_BEGIN_C

/* "INVAL" for KEEL_E_INVAL and so on; NULL for a code this version does not know. */
const char *keel_status_name(unsigned int code);

/* Is this a value a call may return: KEEL_OK, or a known code with only defined bits set? */
bool keel_status_valid(keel_s64 status);

/**
 * keel_status_format - "INVAL (argument 2, bit 5)"
 * @buf: at least one byte when n is not 0
 * @n: its size; 48 is enough for any status
 * @status: as a call returned it
 *
 * Returns the length of the whole text; what does not fit is cut, with a NUL.
 */
size_t keel_status_format(char *buf, size_t n, keel_s64 status);

KEEL_END_C

#endif
