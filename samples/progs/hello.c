// SPDX-License-Identifier: MIT
/* hello - says who it is. */
#include "prog.h"

int main(long argument)
{
	(void)argument;
	print_number("hello from process ", pid(), "\n");
	return 0;
}
