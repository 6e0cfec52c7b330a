// SPDX-License-Identifier: MIT
/* signals - taken out of what it does by the kernel, into a handler and back. */
#include "prog.h"

static char place[64];
static volatile long faults, signals;
static volatile unsigned long fault_address;

/* A fault is repaired by changing the register that the access was made through. */
static void on_signal(long signal, unsigned long address, struct signal_frame *frame)
{
	if (signal == SIGNAL_FAULT) {
		faults++;
		fault_address = address;
		frame->rbx = (unsigned long)place;
	} else {
		signals++;
	}
	call(CALL_SIGRETURN, (unsigned long)frame, 0);
}

int main(long argument)
{
	unsigned long before = 1, after = 2;
	long failed = 0, child, ended;

	(void)argument;
	call(CALL_HANDLER, (unsigned long)on_signal, 0);
	__asm__ volatile("	mov $0x5555, %%r12d\n"
			 "	mov $0x1230, %%ebx\n"
			 "	movb $7, (%%rbx)\n"
			 "	mov %%r12, %0\n"
			 "	mov %%rbx, %1"
			 : "=r"(before), "=r"(after)
			 :
			 : "rbx", "r12", "memory");
	failed += check(faults == 1 && fault_address == 0x1230, "a fault is told to the handler, with its address");
	failed += check(place[0] == 7 && before == 0x5555 && after == (unsigned long)place,
			"which changes a register, and the access is made again");

	child = call(CALL_FORK, 0, 0);
	if (!child) {
		/* In the middle of anything, and on behind it. */
		while (!signals)
			;
		return (int)signals;
	}
	call(CALL_YIELD, 0, 0);
	failed += call(CALL_KILL, (unsigned long)child, SIGNAL_USER) != 0;
	ended = call(CALL_WAIT, 0, 0);
	failed += check(ended == (child << 8 | 1) && !signals,
			"a loop without system calls is interrupted by a signal, and goes on");

	child = call(CALL_FORK, 0, 0);
	if (!child) {
		for (;;)
			;
	}
	call(CALL_KILL, (unsigned long)child, SIGNAL_KILL);
	ended = call(CALL_WAIT, 0, 0);
	failed += check(ended == (child << 8 | 128), "and one that cannot be caught ends it");
	return (int)failed;
}
