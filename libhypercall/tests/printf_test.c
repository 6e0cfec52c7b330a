// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* The guest's formatter says what the C library's says. */
#include <hypercall/guest.h>

#include "unit.h"

/* keel_printf() ends here. */
static char console[4096];
static size_t console_len;

void keel_write(const char *buf, size_t len)
{
	assert_true(console_len + len < sizeof(console));
	memcpy(console + console_len, buf, len);
	console_len += len;
}

#pragma GCC diagnostic ignored "-Wformat"
#pragma GCC diagnostic ignored "-Wformat-nonliteral"

#define SAME(...)                                                                       \
	do {                                                                            \
		char want_[256], got_[256];                                             \
		int len_ = snprintf(want_, sizeof(want_), __VA_ARGS__);                 \
                                                                                        \
		assert_int_equal(keel_snprintf(got_, sizeof(got_), __VA_ARGS__), len_); \
		assert_string_equal(got_, want_);                                       \
	} while (0)

static void integers(void **state)
{
	static const char *const flags[] = { "", "-", "0", "+", " ", "-+", "0+", "#", "0#", "-#" };
	static const char *const width[] = { "", "1", "5", "12", ".0", ".3", "8.3", "3.8" };
	static const char conv[] = "dioux";
	static const long value[] = { 0, 1, -1, 42, 255, -128, 65536, 2147483647, -2147483647 - 1 };
	char fmt[32];

	(void)state;
	for (size_t f = 0; f < keel_array_size(flags); f++)
		for (size_t w = 0; w < keel_array_size(width); w++)
			for (const char *c = conv; *c; c++)
				for (size_t v = 0; v < keel_array_size(value); v++) {
					/* Alternative octal is not offered. */
					if (*c == 'o' && strchr(flags[f], '#'))
						continue;
					/* Undefined for these in C. */
					if (strchr("diu", *c) && strchr(flags[f], '#'))
						continue;
					snprintf(fmt, sizeof(fmt), "[%%%s%s%c]", flags[f], width[w], *c);
					SAME(fmt, (int)value[v]);
					snprintf(fmt, sizeof(fmt), "[%%%s%sl%c]", flags[f], width[w], *c);
					SAME(fmt, value[v]);
				}
	SAME("%X %#X %lX", 0xbeef, 0xbeef, ~0ul);
	SAME("%ld %lu %lld %zu %jd %td", -9223372036854775807L - 1, ~0ul, -5LL, (size_t)7, (intmax_t)-8, (ptrdiff_t)9);
	SAME("%hd %hu %hhd %hhu", 70000, 70000, 300, 300);
}

static void the_rest(void **state)
{
	(void)state;
	SAME("%s|%10s|%-10s|%.2s|%.0s|%5.1s", "abc", "abc", "abc", "abc", "abc", "abc");
	SAME("%c%c|%5c|%-5c|", 'a', 'b', 'c', 'd');
	SAME("100%% %d%%", 5);
	SAME("%*d|%-*d|%*d|%.*s|%.*d", 6, 1, 6, 2, -6, 3, 2, "xyz", 4, 5);
	SAME("%p", (void *)0x1234);
	SAME("plain");
	SAME("%s", "");
}

static void its_own_ways(void **state)
{
	const char *volatile nothing = NULL;
	char buf[32];

	(void)state;
	assert_int_equal(keel_snprintf(buf, sizeof(buf), "%s", nothing), 6);
	assert_string_equal(buf, "(null)");
	assert_int_equal(keel_snprintf(buf, sizeof(buf), "%y %"), 4);
	assert_string_equal(buf, "%y %");
	/* A string that is not terminated but long enough for the precision. */
	assert_int_equal(keel_snprintf(buf, sizeof(buf), "%.3s", (char[3]){ 'a', 'b', 'c' }), 3);
	assert_string_equal(buf, "abc");
}

static void short_buffers_are_cut(void **state)
{
	(void)state;
	assert_int_equal(keel_snprintf(NULL, 0, "%d", 12345), 5);
	for (size_t n = 1; n < 10; n++) {
		char *buf = malloc(n);

		assert_non_null(buf);
		assert_int_equal(keel_snprintf(buf, n, "%d%s", 123, "45"), 5);
		assert_int_equal(strlen(buf), n - 1 < 5 ? n - 1 : 5);
		assert_memory_equal(buf, "12345", strlen(buf));
		free(buf);
	}
}

static void long_lines_reach_the_console_whole(void **state)
{
	char line[1000];

	(void)state;
	memset(line, 'x', sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	console_len = 0;
	keel_printf("<%s>%d\n", line, 7);
	assert_int_equal(console_len, 1003);
	assert_memory_equal(console, "<x", 2);
	assert_memory_equal(console + 999, "x>7\n", 4);
}

int printf_tests(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(integers),
		cmocka_unit_test(the_rest),
		cmocka_unit_test(its_own_ways),
		cmocka_unit_test(short_buffers_are_cut),
		cmocka_unit_test(long_lines_reach_the_console_whole),
	};

	return cmocka_run_group_tests_name("printf", tests, NULL, NULL);
}
