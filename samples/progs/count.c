// SPDX-License-Identifier: MIT
/* count - counts to its argument, a number at a time, leaving the processor in between. */
#include "prog.h"

int main(long argument)
{
	long last = argument ? argument : 3;

	for (long i = 1; i <= last; i++) {
		print_number("count ", i, "\n");
		call(CALL_YIELD, 0, 0);
	}
	return (int)last;
}
