/* SPDX-License-Identifier: MIT */
/* Running user code in address spaces: operations of the guest. Without AS and USER they panic. */
#ifndef KEEL_BENCH_GUEST_USER_H
#define KEEL_BENCH_GUEST_USER_H

#include <keel/start.h>

void user_setup(const struct keel_start *start);

void user_prepare(void);
void user_prepare_refill(void);
void user_prepare_spaces(void);
void user_prepare_family(void);
void user_forget(void); /* what was mapped for faults */
void user_finish_refill(void);

uint64_t user_run_call(void);
uint64_t user_run_fault(void);
uint64_t user_run_refill(void);
uint64_t user_run_spaces(void);
uint64_t user_run_fork(void);
uint64_t user_run_cpu(void);

#endif
