/* SPDX-License-Identifier: MIT */
/* What the programs have instead of a C library. */
#ifndef SAMPLES_PROGS_PROG_H
#define SAMPLES_PROGS_PROG_H

#include "abi.h"

/* start.S calls it and exits with its result. */
int main(long argument);

static inline long call(long number, unsigned long a, unsigned long b)
{
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b) : "rcx", "r11", "memory");
	return result;
}

static inline void print(const char *s)
{
	unsigned long n = 0;

	while (s[n])
		n++;
	call(CALL_WRITE, (unsigned long)s, n);
}

/* "before", a number, "after", in one piece. */
static inline void print_number(const char *before, long v, const char *after)
{
	char line[128], digits[20];
	unsigned int n = 0, d = 0;

	while (*before && n < 50)
		line[n++] = *before++;
	if (v < 0) {
		line[n++] = '-';
		v = -v;
	}
	do {
		digits[d++] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	while (d)
		line[n++] = digits[--d];
	while (*after && n < sizeof(line))
		line[n++] = *after++;
	call(CALL_WRITE, (unsigned long)line, n);
}

/* Line of a test, as the kernels of samples/ print them. */
static inline int check(int ok, const char *what)
{
	print(ok ? "ok: " : "FAILED: ");
	print(what);
	print("\n");
	return !ok;
}

static inline long pid(void)
{
	return call(CALL_PID, 0, 0);
}

#endif
