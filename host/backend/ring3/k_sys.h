/* SPDX-License-Identifier: MIT */
/* Raw system calls for K, which has no libc. Each returns the kernel's answer: -errno on failure. */
#ifndef KEEL_RING3_K_SYS_H
#define KEEL_RING3_K_SYS_H

#include <stdint.h>

static inline __attribute__((always_inline)) long sys6(long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
						       uint64_t e, uint64_t f)
{
	register uint64_t r10 __asm__("r10") = d;
	register uint64_t r8 __asm__("r8") = e;
	register uint64_t r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

/* Unused argument registers are zero: the filter compares them too. */
#define sys5(nr, a, b, c, d, e) sys6(nr, a, b, c, d, e, 0)
#define sys4(nr, a, b, c, d) sys6(nr, a, b, c, d, 0, 0)
#define sys3(nr, a, b, c) sys6(nr, a, b, c, 0, 0, 0)
#define sys2(nr, a, b) sys6(nr, a, b, 0, 0, 0, 0)
#define sys1(nr, a) sys6(nr, a, 0, 0, 0, 0, 0)
#define sys0(nr) sys6(nr, 0, 0, 0, 0, 0, 0)

#endif
