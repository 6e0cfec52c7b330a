// SPDX-License-Identifier: MIT
#include "calls.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Extension numbers and what is served, as constants the second pass can name. */
enum {
#define KEEL_EXT(NAME, number, served, summary) EXT_SERVED_##NAME = (served), EXT_NUMBER_##NAME = (number),
#define KEEL_CALL(...)
#include "../abi/hypercalls.def"
#undef KEEL_EXT
#undef KEEL_CALL
};

#define Z                      \
	{                      \
		ARG_NONE, NULL \
	}
#define A(KIND, name)             \
	{                         \
		ARG_##KIND, #name \
	}
#define KEEL_EXT(...)
#define KEEL_CALL(EXT, fn, name, nargs, flags, a1, a2, a3, a4, a5, summary) \
	{ KEEL_CALL_ID(EXT_NUMBER_##EXT, fn), #name, nargs, flags, EXT_SERVED_##EXT, { a1, a2, a3, a4, a5 } },
const struct call_info call_table[KEEL_CALL_COUNT] = {
#include "../abi/hypercalls.def"
};
#undef KEEL_EXT
#undef KEEL_CALL
#undef A
#undef Z

static int compare(const void *key, const void *member)
{
	uint32_t id = *(const uint32_t *)key;
	const struct call_info *c = member;

	return id < c->id ? -1 : id > c->id;
}

const struct call_info *call_find(uint32_t id)
{
	return bsearch(&id, call_table, KEEL_CALL_COUNT, sizeof(call_table[0]), compare);
}

uint64_t calls_offered(void)
{
	return 0
#define KEEL_EXT(NAME, number, served, summary) | (uint64_t)(served) << (number)
#define KEEL_CALL(...)
#include "../abi/hypercalls.def"
#undef KEEL_EXT
#undef KEEL_CALL
		;
}

/* Small counts read best in decimal, addresses and words in hexadecimal. */
static const char *const arg_format[] = {
	[ARG_U32] = "%" PRIu64,	  [ARG_U64] = "%" PRIu64,  [ARG_FLAGS] = "%#" PRIx64,  [ARG_GPA] = "%#" PRIx64,
	[ARG_LEN] = "%#" PRIx64,  [ARG_VA] = "%#" PRIx64,  [ARG_AS] = "%" PRIu64,      [ARG_PORT] = "%#" PRIx64,
	[ARG_VCPU] = "%" PRId64,  [ARG_CTX] = "%#" PRIx64, [ARG_HANDLE] = "%#" PRIx64, [ARG_NS] = "%" PRIu64,
	[ARG_WORD] = "%#" PRIx64,
};

size_t call_format(char *buf, size_t n, uint32_t id, const uint64_t arg[5])
{
	const struct call_info *c = call_find(id);
	size_t at = 0;

	if (!c)
		return (size_t)snprintf(buf, n,
					"call %#" PRIx32 "(%#" PRIx64 ", %#" PRIx64 ", %#" PRIx64 ", %#" PRIx64
					", %#" PRIx64 ")",
					id, arg[0], arg[1], arg[2], arg[3], arg[4]);
	at = (size_t)snprintf(buf, n, "%s(", c->name);
	for (unsigned int i = 0; i < c->args; i++) {
		if (at < n)
			at += (size_t)snprintf(buf + at, n - at, "%s%s=", i ? ", " : "", c->arg[i].name);
		if (at < n)
			at += (size_t)snprintf(buf + at, n - at, arg_format[c->arg[i].kind], arg[i]);
	}
	if (at < n)
		at += (size_t)snprintf(buf + at, n - at, ")");
	return at;
}
