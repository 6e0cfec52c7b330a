// SPDX-License-Identifier: MIT
/* Options: sizes at their bounds, and what is said about wrong ones. */
#include <stdio.h>

#include "../verb.h"
#include "tests.h"

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		int ret;
		uint64_t bytes;
	} cases[] = {
		{ "0", 0, 0 },
		{ "1", 0, 1 },
		{ "2M", 0, 2 << 20 },
		{ "2m", 0, 2 << 20 },
		{ "64K", 0, 64 << 10 },
		{ "3G", 0, UINT64_C(3) << 30 },
		{ "1T", 0, UINT64_C(1) << 40 },
		{ "18446744073709551615", 0, UINT64_MAX },
		{ "18446744073709551616", -1, 0 },
		{ "17179869183G", 0, UINT64_C(17179869183) << 30 },
		{ "17179869184G", -1, 0 },
		{ "99999999999999999999999999", -1, 0 },
		{ "", -1, 0 },
		{ "M", -1, 0 },
		{ "-1", -1, 0 },
		{ "+1", -1, 0 },
		{ " 1", -1, 0 },
		{ "1 M", -1, 0 },
		{ "1MM", -1, 0 },
		{ "1X", -1, 0 },
		{ "0x10", -1, 0 },
		{ "1.5G", -1, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t v = 42;

		if (parse_size(cases[i].text, &v) != cases[i].ret || v != (cases[i].ret ? 42 : cases[i].bytes))
			fail_msg("\"%s\": %lu", cases[i].text, v);
	}
}

static void test_numbers(void **state)
{
	uint64_t v;

	(void)state;
	assert_int_equal(parse_number("10", 1, 10, &v), 0);
	assert_int_equal(v, 10);
	assert_int_equal(parse_number("11", 1, 10, &v), -1);
	assert_int_equal(parse_number("0", 1, 10, &v), -1);
	assert_int_equal(parse_number("", 0, 10, &v), -1);
	assert_int_equal(parse_number("1a", 0, 10, &v), -1);
}

static int parse(struct keel_options *o, struct error *e, char **argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	e->text[0] = '\0';
	return run_options_parse(o, argc, argv, e);
}

#define ARGS(...) ((char *[]){ "run", __VA_ARGS__, NULL })

static void test_all_options(void **state)
{
	struct keel_options o;
	struct error e;

	(void)state;
	assert_int_equal(parse(&o, &e, ARGS("x.elf")), 0);
	assert_string_equal(o.image, "x.elf");
	assert_string_equal(o.backend, "auto");
	assert_string_equal(o.cmdline, "");
	assert_int_equal(o.mem, 64 << 20);
	assert_int_equal(o.timeout, 0);
	assert_false(o.stats || o.verbose || o.require_sandbox);
	assert_null(o.core);
	assert_int_equal(parse(&o, &e,
			       ARGS("--backend", "ring3", "--mem=2G", "x.elf", "--initrd", "i", "--cmdline=a b=c",
				    "--timeout", "5", "--stats", "--verbose", "--require-sandbox", "--core", "c")),
			 0);
	assert_string_equal(o.backend, "ring3");
	assert_int_equal(o.mem, UINT64_C(2) << 30);
	assert_string_equal(o.initrd, "i");
	assert_string_equal(o.cmdline, "a b=c");
	assert_int_equal(o.timeout, 5);
	assert_true(o.stats && o.verbose && o.require_sandbox);
	assert_string_equal(o.core, "c");
	assert_int_equal(parse(&o, &e, ARGS("--backend=kvm", "x.elf")), 0);
	assert_string_equal(o.backend, "kvm");
	/* HVM: one backend can, and memory ends where the machine's own addresses begin. */
	assert_false(o.hvm);
	assert_int_equal(parse(&o, &e, ARGS("--hvm", "vmlinuz")), 0);
	assert_true(o.hvm);
	assert_string_equal(o.image, "vmlinuz");
	assert_string_equal(o.backend, "kvm");
	assert_int_equal(o.mem, 256 << 20);
	assert_int_equal(parse(&o, &e, ARGS("--mem", "3G", "--hvm", "vmlinuz")), 0);
	assert_int_equal(o.mem, UINT64_C(3) << 30);
	assert_int_equal(parse(&o, &e, ARGS("--", "--stats")), 0);
	assert_string_equal(o.image, "--stats");
	assert_int_equal(parse(&o, &e, ARGS("--help")), 1);
}

static void test_wrong_options(void **state)
{
	static char longest[KEEL_CMDLINE_MAX + 1];
	const struct {
		char **argv;
		const char *says;
	} cases[] = {
		{ (char *[]){ "run", NULL }, "no image given" },
		{ ARGS("a", "b"), "more than one image: \"a\" and \"b\"" },
		{ ARGS("--bogus", "a"), "unknown option --bogus" },
		{ ARGS("--bogus=1", "a"), "unknown option --bogus" },
		{ ARGS("-m", "a"), "unknown option -m" },
		{ ARGS("--me", "2M", "a"), "unknown option --me" },
		{ ARGS("--stats=1", "a"), "--stats takes no value" },
		{ ARGS("a", "--mem"), "--mem needs a value" },
		{ ARGS("--mem", "0", "a"), "not a multiple of 2M" },
		{ ARGS("--mem", "3M", "a"), "not a multiple of 2M" },
		{ ARGS("--mem", "1", "a"), "not a multiple of 2M" },
		{ ARGS("--mem", "2T", "a"), "more than 1024G" },
		{ ARGS("--mem", "16777216T", "a"), "not a size" },
		{ ARGS("--mem", "lots", "a"), "not a size" },
		{ ARGS("--timeout", "0", "a"), "not a number of seconds" },
		{ ARGS("--timeout", "-1", "a"), "not a number of seconds" },
		{ ARGS("--timeout", "1e3", "a"), "not a number of seconds" },
		{ ARGS("--timeout", "4294967296000", "a"), "not a number of seconds" },
		{ ARGS("--backend", "kvm2", "a"), "--backend kvm2: there are auto, kvm and ring3" },
		{ ARGS("--hvm", "--mem", "3074M", "a"), "more than 3G with --hvm" },
		{ ARGS("--hvm=vmlinuz"), "--hvm takes no value" },
		{ ARGS("--initrd=", "a"), "empty file name" },
		{ ARGS("--core=", "a"), "empty file name" },
		{ ARGS("--cmdline", longest, "a"), "at most 4095 fit" },
	};

	(void)state;
	memset(longest, 'x', KEEL_CMDLINE_MAX);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct keel_options o;
		struct error e;

		assert_int_equal(parse(&o, &e, cases[i].argv), -1);
		if (!strstr(e.text, cases[i].says))
			fail_msg("\"%s\" instead of \"%s\"", e.text, cases[i].says);
	}
}

const struct CMUnitTest options_tests[] = {
	cmocka_unit_test(test_sizes),
	cmocka_unit_test(test_numbers),
	cmocka_unit_test(test_all_options),
	cmocka_unit_test(test_wrong_options),
};
DEFINE_TESTS(options);
