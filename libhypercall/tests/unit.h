/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/* What the unit tests of the pure parts share. */
#ifndef LIBHYPERCALL_UNIT_H
#define LIBHYPERCALL_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* xorshift: the same sequence everywhere, so that a failure comes back. */
static inline uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static inline uint64_t below(uint64_t *s, uint64_t n)
{
	return (rnd(s) >> 16) % n;
}

int batch_tests(void);
int clock_tests(void);
int device_tests(void);
int event_tests(void);
int printf_tests(void);
int ring_tests(void);
int set_tests(void);
int start_tests(void);
int status_tests(void);
int user_tests(void);
int virtq_tests(void);

#endif
