// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* A call's status in words. */
#include <hypercall/status.h>

#include "mutant.h"

static const char *const names[KEEL_E_COUNT] = {
	[KEEL_OK] = "OK",
	[KEEL_E_NOSYS] = "NOSYS",
	[KEEL_E_NOTSUP] = "NOTSUP",
	[KEEL_E_PERM] = "PERM",
	[KEEL_E_AGAIN] = "AGAIN",
	[KEEL_E_INVAL] = "INVAL",
	[KEEL_E_FAULT] = "FAULT",
	[KEEL_E_RANGE] = "RANGE",
	[KEEL_E_NOMEM] = "NOMEM",
	[KEEL_E_NOENT] = "NOENT",
	[KEEL_E_EXIST] = "EXIST",
	[KEEL_E_BUSY] = "BUSY",
	[KEEL_E_CONTEXT] = "CONTEXT",
	[KEEL_E_STATE] = "STATE",
	[KEEL_E_TIMEDOUT] = "TIMEDOUT",
};

const char *keel_status_name(unsigned int code)
{
	return code < KEEL_E_COUNT ? names[code] : NULL;
}

bool keel_status_valid(keel_s64 status)
{
	int at, bit;

	/* The range first: the most negative number has no negation to take apart. */
	if (status == KEEL_OK)
		return true;
	if (status > 0 || status < -0xffffff)
		return false;
	if (!KEEL_STATUS_CODE(status) || KEEL_STATUS_CODE(status) >= KEEL_E_COUNT)
		return false;
	at = KEEL_STATUS_AT(status);
	bit = KEEL_STATUS_FLAGBIT(status);
	if (at > KEEL_AT_ARG(5) && at < KEEL_AT_FIELD(1))
		return false;
	/* A flag word has at most 64 bits, and a bit is of some word. */
	return bit < 64 && (bit < 0 || at || KEEL_MUTANT(14));
}

struct text {
	char *buf;
	size_t n, len;
};

static void put(struct text *t, const char *s)
{
	for (; *s; s++, t->len++)
		if (t->len + 1 < t->n)
			t->buf[t->len] = *s;
}

static void put_number(struct text *t, const char *before, keel_u64 v)
{
	char digits[21];
	int i = 20;

	digits[i] = '\0';
	do
		digits[--i] = (char)('0' + v % 10);
	while (v /= 10);
	put(t, before);
	put(t, digits + i);
}

size_t keel_status_format(char *buf, size_t n, keel_s64 status)
{
	struct text t = { buf, n, 0 };
	int at, bit;

	if (!keel_status_valid(status)) {
		/* Not a status at all: the number as it is. */
		put_number(&t, status < 0 ? "status -" : "status ", status < 0 ? -(keel_u64)status : (keel_u64)status);
	} else {
		at = KEEL_STATUS_AT(status);
		bit = KEEL_STATUS_FLAGBIT(status);
		put(&t, names[KEEL_STATUS_CODE(status)]);
		if (at >= KEEL_AT_FIELD(1))
			put_number(&t, " (field ", (keel_u64)(at - KEEL_AT_FIELD(0)));
		else if (at)
			put_number(&t, " (argument ", (keel_u64)at);
		if (bit >= 0)
			put_number(&t, ", bit ", (keel_u64)bit);
		if (at)
			put(&t, ")");
	}
	if (n)
		buf[t.len < n ? t.len : n - 1] = '\0';
	return t.len;
}
