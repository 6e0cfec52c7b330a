// SPDX-License-Identifier: MIT
/* spin - computes and never ends; for ps and kill. */
#include "prog.h"

int main(long argument)
{
	volatile long n = argument;

	for (;;)
		n++;
}
