// SPDX-License-Identifier: MIT
/* paging - has much more memory than it touches. */
#include "prog.h"

#define PAGES 256

static char memory[PAGES][4096] __attribute__((aligned(4096)));
static const char text[] = "from the file";

int main(long argument)
{
	int failed = 0, zero = 1;

	/* Each fourth page. */
	for (long i = 0; i < PAGES; i += 4) {
		zero &= memory[i][4095] == 0;
		memory[i][0] = (char)i;
	}
	failed += check(zero, "a page that was never touched is zero");
	for (long i = 0; i < PAGES; i += 4)
		zero &= memory[i][0] == (char)i;
	failed += check(zero, "and keeps what is written to it");
	failed += check(text[5] == 't' && text[13] == 0, "other pages come from the program's file");
	return failed + (int)argument;
}
