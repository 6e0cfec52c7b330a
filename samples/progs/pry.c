// SPDX-License-Identifier: MIT
/* pry - wants what is not its own: argument 0 reads the kernel's memory, 1 stops the processor, 2 jumps into its own data. */
#include "prog.h"

static char data[4];

int main(long argument)
{
	volatile unsigned long kernel = 0x100000100000;

	if (argument == 0)
		return *(volatile char *)kernel;
	if (argument == 1)
		__asm__ volatile("hlt");
	((void (*)(void))data)();
	return 0;
}
