// SPDX-License-Identifier: MIT
/* forks - parent and children with the same memory, until one of them writes. */
#include "prog.h"

#define PAGES 32

static volatile long memory[PAGES][512] __attribute__((aligned(4096)));

static long child(long number)
{
	long sum = 0;

	for (int i = 0; i < PAGES; i++)
		sum += memory[i][0];
	memory[number][0] = 1000 + number;
	call(CALL_YIELD, 0, 0);
	/* Neither the other child nor the parent has changed it. */
	return sum == PAGES * (PAGES - 1) / 2 && memory[number][0] == 1000 + number &&
	       memory[number + 1][0] == number + 1;
}

int main(long argument)
{
	long ended[2], failed = 0, unchanged = 1;

	(void)argument;
	for (int i = 0; i < PAGES; i++)
		memory[i][0] = i;
	for (long n = 0; n < 2; n++) {
		long pid = call(CALL_FORK, 0, 0);

		if (!pid)
			return child(4 * n) ? 40 + (int)n : 1;
		failed += pid < 0;
	}
	for (int n = 0; n < 2; n++)
		ended[n] = call(CALL_WAIT, 0, 0);
	/* In whichever order they got the processor. */
	failed += check((1l << (ended[0] & 0xff) | 1l << (ended[1] & 0xff)) == 3l << 40,
			"two children see the memory as it was at the fork");
	for (int i = 0; i < PAGES; i++)
		unchanged &= memory[i][0] == i;
	failed += check(unchanged, "and what they write is not seen by their parent");
	failed += check(call(CALL_WAIT, 0, 0) == -1, "there are no more children to wait for");
	return (int)failed;
}
