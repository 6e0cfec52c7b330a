// SPDX-License-Identifier: MIT
/* hello - the smallest guest: says where it runs, and powers off. */
#include <hypercall/guest.h>

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(CONSOLE), 0);

int keel_main(const struct keel_start *start)
{
	keel_u64 version = keel_must(keel_base_version());
	char host[33] = "";

	for (keel_u32 word = 0; word < 4; word++)
		*(keel_u64 *)(host + 8 * word) = keel_must(keel_base_host(word));

	keel_puts("Hello from a Keel guest.");
	keel_printf("ABI %u.%u on %s\n", (unsigned int)(version >> 32), (unsigned int)(version >> 16 & 0xffff), host);
	keel_printf("%lu MiB of RAM, command line \"%s\"\n", (unsigned long)(keel_start_ram(start) >> 20),
		    keel_start_cmdline(start));
	return 0;
}
