/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Planted faults for testing the tests of the parts shared with Linux. In a
 * normal build KEEL_MUTANT(n) is the constant 0; with -DKEEL_MUTANTS it is true
 * for the number in keel_mutant, which the runner of the tests sets.
 * kunit-tests/mutants.csv lists what each number breaks and which case must notice.
 */
#ifndef LIBHYPERCALL_MUTANT_H
#define LIBHYPERCALL_MUTANT_H

#ifdef KEEL_MUTANTS
extern unsigned int keel_mutant;
#define KEEL_MUTANT(n) (keel_mutant == (n))
#else
#define KEEL_MUTANT(n) 0
#endif

#endif
