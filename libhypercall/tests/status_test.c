// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Statuses in words. */
#include <hypercall/status.h>

#include "unit.h"

static const char *text(keel_s64 status)
{
	static char buf[48];
	size_t len = keel_status_format(buf, sizeof(buf), status);

	assert_int_equal(len, strlen(buf));
	return buf;
}

static void names(void **state)
{
	(void)state;
	assert_string_equal(keel_status_name(KEEL_OK), "OK");
	assert_string_equal(keel_status_name(KEEL_E_NOSYS), "NOSYS");
	assert_string_equal(keel_status_name(KEEL_E_TIMEDOUT), "TIMEDOUT");
	assert_null(keel_status_name(KEEL_E_COUNT));
	assert_null(keel_status_name(~0u));
	for (unsigned int i = 0; i < KEEL_E_COUNT; i++) {
		assert_non_null(keel_status_name(i));
		for (unsigned int j = 0; j < i; j++)
			assert_string_not_equal(keel_status_name(i), keel_status_name(j));
	}
}

static void words(void **state)
{
	(void)state;
	assert_string_equal(text(KEEL_OK), "OK");
	assert_string_equal(text(-KEEL_E_NOSYS), "NOSYS");
	assert_string_equal(text(KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2))), "INVAL (argument 2)");
	assert_string_equal(text(KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_FIELD(6))), "RANGE (field 6)");
	assert_string_equal(text(KEEL_STATUS_BIT(KEEL_E_NOTSUP, KEEL_AT_ARG(2), 63)), "NOTSUP (argument 2, bit 63)");
	assert_string_equal(text(KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_FIELD(3), 0)), "INVAL (field 3, bit 0)");
	assert_string_equal(text(KEEL_STATUS_BIT(KEEL_E_TIMEDOUT, KEEL_AT_FIELD(239), 63)),
			    "TIMEDOUT (field 239, bit 63)");
}

static void what_is_no_status_is_shown_as_a_number(void **state)
{
	(void)state;
	assert_string_equal(text(1), "status 1");
	assert_string_equal(text(-KEEL_E_COUNT), "status -15");
	assert_string_equal(text(-0x700), "status -1792"); /* a position without a code */
	assert_string_equal(text(INT64_MIN), "status -9223372036854775808");
	assert_string_equal(text(INT64_MAX), "status 9223372036854775807");
	assert_string_equal(text(KEEL_STATUS(KEEL_E_INVAL, 6)), "status -1541"); /* between arguments and fields */
	assert_false(keel_status_valid(KEEL_STATUS(KEEL_E_INVAL, 16)));
	assert_false(keel_status_valid(-(0x410000 | 2 << 8 | KEEL_E_INVAL))); /* bit 64 */
	assert_false(keel_status_valid(-(0x010000 | KEEL_E_INVAL)));	      /* a bit of what? */
	assert_false(keel_status_valid(-(INT64_C(0x1000000) | KEEL_E_INVAL)));
}

static void every_valid_status_round_trips(void **state)
{
	(void)state;
	for (int code = 1; code < KEEL_E_COUNT; code++)
		for (int at = 0; at < 256; at++)
			for (int bit = -1; bit < 64; bit++) {
				keel_s64 s = bit < 0 ? KEEL_STATUS(code, at) : KEEL_STATUS_BIT(code, at, bit);
				bool ok = (at <= 5 || at > 16) && (bit < 0 || at);

				assert_int_equal(keel_status_valid(s), ok);
				assert_int_equal(KEEL_STATUS_CODE(s), code);
				assert_int_equal(KEEL_STATUS_AT(s), at);
				assert_int_equal(KEEL_STATUS_FLAGBIT(s), bit);
			}
}

static void short_buffers_are_cut(void **state)
{
	keel_s64 s = KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2));
	const char *full = "INVAL (argument 2)";

	(void)state;
	assert_int_equal(keel_status_format(NULL, 0, s), strlen(full));
	for (size_t n = 1; n < 24; n++) {
		char *buf = malloc(n);

		assert_non_null(buf);
		assert_int_equal(keel_status_format(buf, n, s), strlen(full));
		assert_int_equal(strlen(buf), n - 1 < strlen(full) ? n - 1 : strlen(full));
		assert_memory_equal(buf, full, strlen(buf));
		free(buf);
	}
}

int status_tests(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(words),
		cmocka_unit_test(what_is_no_status_is_shown_as_a_number),
		cmocka_unit_test(every_valid_status_round_trips),
		cmocka_unit_test(short_buffers_are_cut),
	};

	return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
