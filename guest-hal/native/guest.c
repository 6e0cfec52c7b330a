// SPDX-License-Identifier: MIT
/*
 * The part of libhypercall's runtime (hypercall/guest.h) that has a meaning
 * without a host, so that a program written to it alone, such as hello, runs on
 * bare hardware too: console, start info, exit, and a gate that knows the
 * identifying calls of BASE and answers NOSYS to everything else.
 */
#include <hypercall/guest.h>

#include "native.h"

/* A kernel written to hal.h has no keel_main(). */
__attribute__((weak)) int keel_main(const struct keel_start *start);

static struct {
	struct keel_start header;
	struct keel_chunk memmap_chunk;
	struct keel_memmap_entry memmap[64];
	struct keel_chunk cmdline_chunk;
	char cmdline[2048];
} start_info;

const struct keel_start *keel_start_info(void)
{
	return &start_info.header;
}

void keel_write(const char *buf, size_t len)
{
	hal_write(buf, len);
}

void keel_puts(const char *s)
{
	keel_printf("%s\n", s);
}

void keel_exit(int code)
{
	hal_poweroff((unsigned int)code);
}

struct keel_ret keel_gate(keel_u64 a1, keel_u64 a2, keel_u64 a3, keel_u64 a4, keel_u64 a5, keel_u64 id)
{
	static const char host[32] = "bare x86-64";
	struct keel_ret ret = { KEEL_OK, 0 };

	if (a2 | a3 | a4 | a5)
		ret.status = KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2));
	else if (id == KEEL_CALL_BASE_VERSION)
		ret.value = KEEL_ABI_VERSION;
	else if (id == KEEL_CALL_BASE_HOST && a1 < 4)
		keel_memcpy(&ret.value, host + 8 * a1, 8);
	else
		ret.status = KEEL_STATUS(KEEL_E_NOSYS, 0);
	return ret;
}

keel_u64 keel_must_(struct keel_ret ret, const char *what)
{
	if (ret.status)
		hal_panic("%s: status %ld", what, (long)ret.status);
	return ret.value;
}

/* Only reached when the program has no hal_main() of its own. */
__attribute__((weak)) int hal_main(void)
{
	static const keel_u32 type_of[] = {
		[HAL_MEM_RAM] = KEEL_MEM_RAM,
		[HAL_MEM_IMAGE] = KEEL_MEM_IMAGE,
		[HAL_MEM_MODULE] = KEEL_MEM_MODULE,
		[HAL_MEM_RESERVED] = KEEL_MEM_ABI,
	};
	const char *cmdline = hal_cmdline();
	struct hal_mem m;
	unsigned int i;

	start_info.header.magic = KEEL_START_MAGIC;
	start_info.header.version = KEEL_START_VERSION;
	start_info.header.chunks = 2;
	start_info.header.size = sizeof(start_info);
	start_info.memmap_chunk.type = KEEL_CHUNK_MEMMAP;
	/* Entries not used have length 0. */
	start_info.memmap_chunk.size = sizeof(start_info.memmap_chunk) + sizeof(start_info.memmap);
	for (i = 0; i < HAL_ARRAY_SIZE(start_info.memmap) && hal_memmap(i, &m); i++)
		start_info.memmap[i] = (struct keel_memmap_entry){ m.pa, m.len, type_of[m.type], 0 };
	start_info.cmdline_chunk.type = KEEL_CHUNK_CMDLINE;
	start_info.cmdline_chunk.size = sizeof(start_info.cmdline_chunk) + sizeof(start_info.cmdline);
	for (i = 0; i < sizeof(start_info.cmdline) - 1 && cmdline[i]; i++)
		start_info.cmdline[i] = cmdline[i];
	return keel_main ? keel_main(&start_info.header) : 0;
}
