// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* unit GROUP - run one group of the pure parts' tests, reporting TAP; without arguments list the groups. */
#include "unit.h"

static const struct {
	const char *name;
	int (*run)(void);
} groups[] = {
	{ "batch", batch_tests },   { "clock", clock_tests }, { "device", device_tests }, { "event", event_tests },
	{ "printf", printf_tests }, { "ring", ring_tests },   { "set", set_tests },	  { "start", start_tests },
	{ "status", status_tests }, { "user", user_tests },   { "virtq", virtq_tests },
};

int main(int argc, char **argv)
{
	cmocka_set_message_output(CM_OUTPUT_TAP);
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		if (argc < 2)
			puts(groups[i].name);
		else if (!strcmp(argv[1], groups[i].name))
			return groups[i].run() ? 1 : 0;
	}
	return argc < 2 ? 0 : 2;
}
