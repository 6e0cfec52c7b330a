// SPDX-License-Identifier: MIT
/* own - two of them run in turns, each with a variable at the same address. */
#include "prog.h"

static volatile long mine;

int main(long argument)
{
	mine = argument;
	for (int i = 0; i < 3; i++) {
		print_number("  process ", pid(), ": ");
		print_number("mine is ", mine, "\n");
		mine += 10;
		call(CALL_YIELD, 0, 0);
	}
	return mine == argument + 30 ? 0 : 1;
}
