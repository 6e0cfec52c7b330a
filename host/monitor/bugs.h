/* SPDX-License-Identifier: MIT */
/*
 * Planted bugs for testing the tests. In a normal build KEEL_BUG(n) is the
 * constant 0; in a build with -DKEEL_BUGS it is true for the number the host
 * was started with. abi/conformance/mutants.csv lists what each number breaks
 * and which test must notice.
 */
#ifndef KEEL_BUGS_H
#define KEEL_BUGS_H

#ifdef KEEL_BUGS
extern unsigned int keel_bug;
#define KEEL_BUG(n) (keel_bug == (n))
#else
#define KEEL_BUG(n) 0
#endif

#define KEEL_BUG_ALWAYS_OK 98
#define KEEL_BUG_ALWAYS_NOSYS 99

#endif
