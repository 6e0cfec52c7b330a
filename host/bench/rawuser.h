/* SPDX-License-Identifier: MIT */
/* Running user code in processes of its own, by the bare system calls: operations of the raw program. */
#ifndef KEEL_BENCH_RAWUSER_H
#define KEEL_BENCH_RAWUSER_H

#include <stdint.h>

/**
 * user_setup - what all of them need; processes are made when the first operation wants them
 * @cpu: where this program runs, and M
 * @peer_cpu: where user code runs
 * @ram: file of the memory it works on
 */
void user_setup(int cpu, int peer_cpu, int ram);

void user_prepare(void); /* processes that sleep while it is not their turn */
void user_prepare_spin(void);
void user_finish_spin(void);
void user_prepare_spaces(void);
void user_forget(void); /* what was mapped for faults */
void user_forget_spin(void);

uint64_t user_run_call(void);
uint64_t user_run_fault(void);	 /* K - M - U: M wakes U */
uint64_t user_run_fault_k(void); /* K - M - K - U */
uint64_t user_run_refill(void);
uint64_t user_run_refill_k(void);
uint64_t user_run_spaces(void);
uint64_t user_run_fork(void);

/* raw.c */
_Noreturn void fail(const char *what);
void pin(int cpu);
void futex_wait(uint32_t *at, uint32_t value);
void futex_wake(uint32_t *at);

#endif
