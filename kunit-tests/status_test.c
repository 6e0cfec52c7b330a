// SPDX-License-Identifier: GPL-2.0-only
/* The packing of a call's status, and its words. */
#include <hypercall/status.h>

#include "keel_test.h"

static const char *const names[KEEL_E_COUNT] = {
	"OK",	 "NOSYS", "NOTSUP", "PERM", "AGAIN",   "INVAL", "FAULT",    "RANGE",
	"NOMEM", "NOENT", "EXIST",  "BUSY", "CONTEXT", "STATE", "TIMEDOUT",
};

/* Positions that mean something: unknown, five arguments, fields from 1. */
static bool position(int at)
{
	return at <= KEEL_AT_ARG(5) || at >= KEEL_AT_FIELD(1);
}

static void every_status_comes_apart_again(struct kunit *test)
{
	int code, at, bit;
	u32 wrong = 0;

	for (code = 1; code < KEEL_E_COUNT; code++)
		for (at = 0; at < 256; at++)
			for (bit = -1; bit < 64; bit++) {
				s64 status = bit < 0 ? KEEL_STATUS(code, at) : KEEL_STATUS_BIT(code, at, bit);
				bool valid = position(at) && (bit < 0 || at);

				if (status < 0 && KEEL_STATUS_CODE(status) == code && KEEL_STATUS_AT(status) == at &&
				    KEEL_STATUS_FLAGBIT(status) == bit && keel_status_valid(status) == valid)
					continue;
				if (!wrong++)
					KUNIT_FAIL(test, "code %d at %d bit %d: %lld", code, at, bit, status);
			}
	KUNIT_EXPECT_EQ(test, wrong, 0u);
	/* The numbers are the ABI's, not only consistent: these are written out in keel/status.h. */
	KUNIT_EXPECT_EQ(test, KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2)), -0x205);
	KUNIT_EXPECT_EQ(test, KEEL_STATUS(KEEL_E_FAULT, KEEL_AT_FIELD(5)), -0x1506);
	KUNIT_EXPECT_EQ(test, KEEL_STATUS_BIT(KEEL_E_NOTSUP, KEEL_AT_ARG(2), 63), -0x400202);
}

static void names_of_codes(struct kunit *test)
{
	static const unsigned int unknown[] = { KEEL_E_COUNT, KEEL_E_COUNT + 1, 255, 256, 0x80000000, 0xffffffff };
	int i;

	for (i = 0; i < KEEL_E_COUNT; i++)
		KUNIT_EXPECT_STREQ(test, keel_status_name(i), names[i]);
	for (i = 0; i < ARRAY_SIZE(unknown); i++)
		KUNIT_EXPECT_PTR_EQ(test, (void *)keel_status_name(unknown[i]), NULL);
}

static void what_a_call_may_not_return(struct kunit *test)
{
	static const s64 bad[] = {
		1, /* positive */
		S64_MAX,
		S64_MIN,
		-0x1000005, /* above bit 23 */
		-0x100000005ll,
		-KEEL_E_COUNT, /* unknown code */
		-255,
		-0x200, /* a place, but no code */
		-0x10000,
		-0x605,	   /* argument 6 */
		-0x1005,   /* field 0 */
		-0x10005,  /* a bit of no word */
		-0x410205, /* bit 64 */
		-0xff0205,
	};
	int i;

	KUNIT_EXPECT_TRUE(test, keel_status_valid(KEEL_OK));
	KUNIT_EXPECT_TRUE(test, keel_status_valid(-KEEL_E_TIMEDOUT));
	KUNIT_EXPECT_TRUE(test, keel_status_valid(-0x40ff05)); /* bit 63 of field 239 */
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		KUNIT_EXPECT_FALSE_MSG(test, keel_status_valid(bad[i]), "%lld", bad[i]);
}

static void words(struct kunit *test)
{
	static const struct {
		s64 status;
		const char *text;
	} want[] = {
		{ KEEL_OK, "OK" },
		{ KEEL_STATUS(KEEL_E_NOSYS, 0), "NOSYS" },
		{ KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(1)), "INVAL (argument 1)" },
		{ KEEL_STATUS(KEEL_E_FAULT, KEEL_AT_FIELD(5)), "FAULT (field 5)" },
		{ KEEL_STATUS(KEEL_E_FAULT, KEEL_AT_FIELD(239)), "FAULT (field 239)" },
		{ KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_ARG(4), 0), "INVAL (argument 4, bit 0)" },
		{ KEEL_STATUS_BIT(KEEL_E_TIMEDOUT, KEEL_AT_FIELD(239), 63), "TIMEDOUT (field 239, bit 63)" },
		{ 7, "status 7" },
		{ -0x600, "status -1536" },
		{ S64_MAX, "status 9223372036854775807" },
		{ S64_MIN, "status -9223372036854775808" },
	};
	char buf[48];
	int i;

	for (i = 0; i < ARRAY_SIZE(want); i++) {
		size_t n = keel_status_format(buf, sizeof(buf), want[i].status);

		KUNIT_EXPECT_STREQ(test, (char *)buf, (char *)want[i].text);
		KUNIT_EXPECT_EQ(test, n, strlen(want[i].text));
	}
}

static void words_that_do_not_fit(struct kunit *test)
{
	s64 status = KEEL_STATUS_BIT(KEEL_E_TIMEDOUT, KEEL_AT_FIELD(239), 63);
	char whole[48], buf[48];
	size_t len = keel_status_format(whole, sizeof(whole), status), n;

	KUNIT_EXPECT_EQ(test, keel_status_format(NULL, 0, status), len);
	for (n = 1; n < sizeof(buf); n++) {
		size_t shown = min(n - 1, len);

		memset(buf, 'x', sizeof(buf));
		KUNIT_EXPECT_EQ(test, keel_status_format(buf, n, status), len);
		KUNIT_EXPECT_EQ(test, memcmp(buf, whole, shown), 0);
		KUNIT_EXPECT_EQ(test, buf[shown], (char)0);
		KUNIT_EXPECT_PTR_EQ(test, memchr_inv(buf + shown + 1, 'x', sizeof(buf) - shown - 1), NULL);
	}
}

static void any_number_fits_48_bytes(struct kunit *test)
{
	u64 state = keel_test_seed(test);
	char *buf = keel_fenced(test, 48);
	int i;

	for (i = 0; i < 100000; i++) {
		s64 status = keel_random_wide(&state);
		size_t n;

		if (i & 1)
			status = -(s64)(keel_random(&state) & 0xffffff);
		n = keel_status_format(buf, 48, status);
		if (n >= 48 || strlen(buf) != n || keel_status_valid(status) != !!strncmp(buf, "status ", 7)) {
			KUNIT_FAIL(test, "%lld: \"%s\"", status, buf);
			return;
		}
	}
}

static struct kunit_case cases[] = { KUNIT_CASE(every_status_comes_apart_again),
				     KUNIT_CASE(names_of_codes),
				     KUNIT_CASE(what_a_call_may_not_return),
				     KUNIT_CASE(words),
				     KUNIT_CASE(words_that_do_not_fit),
				     KUNIT_CASE(any_number_fits_48_bytes),
				     {} };

static struct kunit_suite suite = {
	.name = "keel_status",
	.test_cases = cases,
};

kunit_test_suites(&suite);

MODULE_DESCRIPTION("KUnit: status of a call");
MODULE_LICENSE("GPL");
