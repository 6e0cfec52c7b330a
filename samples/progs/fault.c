// SPDX-License-Identifier: MIT
/* fault - writes through a null pointer, with nobody to catch it. */
#include "prog.h"

int main(long argument)
{
	volatile unsigned long near_null = 8;

	(void)argument;
	*(volatile char *)near_null = 1;
	return 0;
}
