// SPDX-License-Identifier: GPL-2.0-only
/* Which of the faults that are planted in the shared C shows: keel_mutant=N on the command line. */
#include <linux/moduleparam.h>

#include <mutant.h>

unsigned int keel_mutant;
core_param(keel_mutant, keel_mutant, uint, 0444);
