/* SPDX-License-Identifier: MIT */
/* Between process.c and its programs: system calls and signals. */
#ifndef SAMPLES_PROGS_ABI_H
#define SAMPLES_PROGS_ABI_H

/* rax = number, rdi rsi rdx = arguments; rax = result, below 0 for an error. */
enum {
	CALL_EXIT,	/* code */
	CALL_WRITE,	/* bytes, length: to the console */
	CALL_PID,	/* */
	CALL_FORK,	/* 0 in the child */
	CALL_WAIT,	/* result: pid << 8 | status of a child that has ended */
	CALL_YIELD,	/* */
	CALL_HANDLER,	/* address of void fn(long signal, unsigned long address, struct signal_frame *frame) */
	CALL_SIGRETURN, /* frame: go on as it says */
	CALL_KILL,	/* pid, signal */
	CALL_CLOCK,	/* ns */
	CALL_COUNT
};

enum {
	SIGNAL_FAULT = 1, /* an access to address, that is no memory or may not be */
	SIGNAL_USER,	  /* sent by a process */
	SIGNAL_KILL,	  /* ends it, handler or not */
	SIGNAL_COUNT
};

/* What was interrupted. */
struct signal_frame {
	unsigned long rip, rsp, rflags;
	unsigned long rax, rbx, rcx, rdx, rsi, rdi, rbp;
	unsigned long r8, r9, r10, r11, r12, r13, r14, r15;
};

#endif
