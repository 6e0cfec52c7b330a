// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/*
 * The four functions a freestanding compiler may call on its own. Weak, so that
 * a kernel's own take precedence.
 */
#include <stddef.h>
#include <stdint.h>

#define WEAK __attribute__((weak))

WEAK void *memcpy(void *restrict dst, const void *restrict src, size_t n)
{
	void *d = dst;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(n) : : "memory");
	return dst;
}

WEAK void *memset(void *dst, int c, size_t n)
{
	void *d = dst;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return dst;
}

WEAK void *memmove(void *dst, const void *src, size_t n)
{
	unsigned char *d = dst;
	const unsigned char *s = src;

	/* Wraps to a large number when dst lies below src: forwards is right then. */
	if ((uintptr_t)d - (uintptr_t)s >= n) {
		__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	} else {
		d += n;
		s += n;
		while (n--) {
			*--d = *--s;
			/* Or the loop becomes a call of memmove. */
			__asm__ volatile("" : : : "memory");
		}
	}
	return dst;
}

WEAK int memcmp(const void *a, const void *b, size_t n)
{
	const unsigned char *x = a, *y = b;

	for (; n; n--, x++, y++) {
		if (*x != *y)
			return *x - *y;
		__asm__ volatile("" : : : "memory");
	}
	return 0;
}
