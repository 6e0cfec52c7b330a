// SPDX-License-Identifier: MIT
/* Remote calls, the accessors of guest memory, and the decoded list of calls. */
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "../calls.h"
#include "../console.h"
#include "tests.h"

static struct keel_options options = { .mem = 2 << 20, .vcpus = 1, .cmdline = "", .image = "IMAGE" };

struct fixture {
	struct partition p;
	struct image img;
	int out[2], in[2];
};

static void setup(struct fixture *f)
{
	struct test_image t;
	struct error e;

	test_image_init(&t);
	assert_int_equal(test_image_open(&f->img, &t, &e), 0);
	test_partition(&f->p, &options, &f->img);
	assert_int_equal(pipe(f->out) | pipe(f->in), 0);
	f->p.console = console_open(f->in[0], f->out[1], &e);
	assert_non_null(f->p.console);
	console_bind(f->p.console, &f->p);
}

static void teardown(struct fixture *f)
{
	console_close(f->p.console);
	for (int i = 0; i < 2; i++) {
		close(f->out[i]);
		close(f->in[i]);
	}
	partition_destroy(&f->p);
	image_close(&f->img);
}

static int64_t call(struct fixture *f, uint32_t id, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
		    uint64_t *value)
{
	const uint64_t arg[5] = { a0, a1, a2, a3, a4 };

	return partition_remote_call(&f->p, 0, id, arg, value);
}

#define STATUS(code, at) KEEL_STATUS(KEEL_E_##code, at)

static void test_refused(void **state)
{
	static const struct {
		uint32_t id;
		uint64_t arg[5];
		int64_t status;
	} cases[] = {
		{ 0, { 0 }, STATUS(NOSYS, 0) },
		{ 0xffffffff, { 0 }, STATUS(NOSYS, 0) },
		{ 0x01000fff, { 0 }, STATUS(NOSYS, 0) },
		{ KEEL_CALL_VCPU_START, { 1, KEEL_VA_MIN }, STATUS(NOENT, 1) },
		{ KEEL_CALL_VCPU_START, { UINT64_C(1) << 32, KEEL_VA_MIN }, STATUS(NOENT, 1) },
		{ KEEL_CALL_VCPU_START, { 0, KEEL_VA_MIN - 1 }, STATUS(RANGE, 2) },
		{ KEEL_CALL_VCPU_START, { 0, KEEL_VA_END }, STATUS(RANGE, 2) },
		{ KEEL_CALL_VCPU_START, { 0, KEEL_VA_MIN }, STATUS(NOTSUP, 0) }, /* this test's backend has one vCPU */
		{ KEEL_CALL_VCPU_START, { 0, KEEL_VA_MIN, 0, 1 }, STATUS(INVAL, 4) },
		{ KEEL_CALL_VCPU_STOP, { 1 }, STATUS(NOENT, 1) },
		{ KEEL_CALL_VCPU_STOP, { UINT64_MAX }, STATUS(NOENT, 1) },
		{ KEEL_CALL_SHARE_OFFER, { 0 }, STATUS(NOTSUP, 0) },
		{ KEEL_CALL_MMU_BATCH, { 0 }, STATUS(NOTSUP, 0) },
		{ KEEL_CALL_BASE_PING, { 1, 1 }, STATUS(INVAL, 2) },
		{ KEEL_CALL_BASE_PING, { 1, 0, 0, 0, 1 }, STATUS(INVAL, 5) },
		{ KEEL_CALL_BASE_SHUTDOWN, { 2, 0 }, STATUS(INVAL, 1) },
		{ KEEL_CALL_BASE_SHUTDOWN, { UINT64_C(1) << 32, 0 }, STATUS(INVAL, 1) },
		{ KEEL_CALL_BASE_SHUTDOWN, { 0, 124 }, STATUS(RANGE, 2) },
		{ KEEL_CALL_BASE_SHUTDOWN, { 0, UINT64_C(1) << 32 }, STATUS(RANGE, 2) },
		{ KEEL_CALL_BASE_SHUTDOWN, { 0, 0, 1 }, STATUS(INVAL, 3) },
		{ KEEL_CALL_CONSOLE_WRITE, { 0 }, STATUS(RANGE, 1) },
		{ KEEL_CALL_CONSOLE_WRITE, { 33 }, STATUS(RANGE, 1) },
		{ KEEL_CALL_CONSOLE_WRITE, { UINT64_MAX }, STATUS(RANGE, 1) },
		{ KEEL_CALL_CONSOLE_SETUP, { 0x800, 4096 }, STATUS(INVAL, 1) },
		{ KEEL_CALL_CONSOLE_SETUP, { 0x1000, 0 }, STATUS(INVAL, 1) },
		{ KEEL_CALL_CONSOLE_SETUP, { 0x1000, 8192 }, STATUS(INVAL, 2) },
		{ KEEL_CALL_CONSOLE_SETUP, { 2 << 20, 4096 }, STATUS(FAULT, 1) },
		{ KEEL_CALL_CONSOLE_SETUP, { UINT64_MAX & ~UINT64_C(0xfff), 4096 }, STATUS(FAULT, 1) },
		{ KEEL_CALL_CONSOLE_SETUP, { 0, 0 }, KEEL_OK },
		{ KEEL_CALL_CRASH, { 256, 0, 0 }, STATUS(RANGE, 1) },
		{ KEEL_CALL_CRASH, { 0, 0, 1025 }, STATUS(RANGE, 3) },
		{ KEEL_CALL_CRASH, { 0, (2 << 20) - 1, 2 }, STATUS(FAULT, 2) },
		{ KEEL_CALL_CRASH, { 0, UINT64_MAX, 2 }, STATUS(FAULT, 2) },
	};
	struct fixture f;

	(void)state;
	setup(&f);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t value = 1;
		int64_t status = partition_remote_call(&f.p, 0, cases[i].id, cases[i].arg, &value);

		if (status != cases[i].status || value)
			fail_msg("case %zu: status %ld instead of %ld, value %lu", i, status, cases[i].status, value);
	}
	assert_int_equal(f.p.outcome.kind, OUTCOME_NONE);
	teardown(&f);
}

static void test_ping_and_write(void **state)
{
	uint64_t bytes[4], value;
	char got[32];
	struct fixture f;

	(void)state;
	setup(&f);
	assert_int_equal(call(&f, KEEL_CALL_BASE_PING, 0xdeadbeef12345678, 0, 0, 0, 0, &value), KEEL_OK);
	assert_int_equal(value, 0xdeadbeef12345678);
	memcpy(bytes, "The first thirty-two bytes, all!", 32);
	assert_int_equal(call(&f, KEEL_CALL_CONSOLE_WRITE, 32, bytes[0], bytes[1], bytes[2], bytes[3], &value),
			 KEEL_OK);
	assert_int_equal(read(f.out[0], got, sizeof(got)), 32);
	assert_memory_equal(got, bytes, 32);
	assert_int_equal(call(&f, KEEL_CALL_CONSOLE_WRITE, 3, bytes[0], ~0ull, ~0ull, ~0ull, &value), KEEL_OK);
	assert_int_equal(read(f.out[0], got, sizeof(got)), 3);
	assert_memory_equal(got, "The", 3);
	teardown(&f);
}

static void test_ends(void **state)
{
	struct fixture f;
	uint64_t value;
	struct pollfd pfd;

	(void)state;
	setup(&f);
	pfd = (struct pollfd){ .fd = f.p.end_fd, .events = POLLIN };
	assert_int_equal(poll(&pfd, 1, 0), 0);
	assert_int_equal(call(&f, KEEL_CALL_BASE_SHUTDOWN, KEEL_SHUTDOWN_RESTART, 9, 0, 0, 0, &value), KEEL_OK);
	assert_int_equal(poll(&pfd, 1, 0), 1);
	assert_int_equal(f.p.outcome.kind, OUTCOME_RESTART);
	assert_int_equal(f.p.outcome.code, 9);
	/* The first end counts. */
	assert_int_equal(call(&f, KEEL_CALL_CRASH, 0, 0, 0, 0, 0, &value), KEEL_OK);
	assert_int_equal(f.p.outcome.kind, OUTCOME_RESTART);
	teardown(&f);

	setup(&f);
	memcpy(f.p.ram + (2 << 20) - 5, "ab\0\nz", 5);
	assert_int_equal(call(&f, KEEL_CALL_CRASH, 3, (2 << 20) - 5, 5, 11, 22, &value), KEEL_OK);
	assert_int_equal(f.p.outcome.kind, OUTCOME_CRASH);
	assert_true(f.p.outcome.crash.guest_call);
	assert_int_equal(f.p.outcome.crash.guest_reason, 3);
	assert_int_equal(f.p.outcome.crash.word[1], 22);
	assert_string_equal(f.p.outcome.crash.message, "ab \nz");
	teardown(&f);
}

static void test_copies(void **state)
{
	struct fixture f;
	uint8_t buf[16] = { 1, 2, 3 };

	(void)state;
	setup(&f);
	assert_true(partition_copy_to(&f.p, (2 << 20) - 16, buf, 16));
	assert_true(partition_copy_from(&f.p, buf, (2 << 20) - 16, 16));
	assert_true(partition_copy_from(&f.p, buf, 2 << 20, 0));
	assert_false(partition_copy_from(&f.p, buf, (2 << 20) - 15, 16));
	assert_false(partition_copy_from(&f.p, buf, UINT64_MAX - 7, 16));
	assert_false(partition_copy_to(&f.p, UINT64_MAX, buf, 1));
	assert_false(partition_copy_from(&f.p, buf, 0, SIZE_MAX));
	/* ABI pages are no RAM. */
	assert_false(partition_copy_from(&f.p, buf, f.p.abi_gpa, 1));
	teardown(&f);
}

/* Port numbers come from the guest's memory: any value must be harmless. */
static void test_raise(void **state)
{
	static const uint32_t beyond[] = { 2 * KEEL_EVENT_BITS + 1, 16 * KEEL_EVENT_BITS, 1u << 24, UINT32_MAX };
	static struct keel_vcpu vcpu[2];
	uint32_t port;
	struct fixture f;

	(void)state;
	setup(&f);
	partition_raise(&f.p, NULL);
	port = 1;
	partition_raise(&f.p, &port); /* that vCPU has no page yet */
	f.p.vcpu[0] = &vcpu[0];
	f.p.vcpu[1] = &vcpu[1];
	f.p.vcpus = 2;
	port = 0;
	partition_raise(&f.p, &port); /* unbound */
	for (unsigned int i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++) {
		port = beyond[i];
		partition_raise(&f.p, &port);
	}
	assert_int_equal(vcpu[0].pending | vcpu[1].pending, 0);
	port = KEEL_EVENT_BITS;
	partition_raise(&f.p, &port);
	assert_int_equal(vcpu[0].pending, UINT64_C(1) << 63);
	assert_int_equal(vcpu[0].event_pending[63], UINT64_C(1) << 63);
	assert_int_equal(vcpu[1].pending, 0);
	port = KEEL_EVENT_BITS + 65;
	partition_raise(&f.p, &port);
	assert_int_equal(vcpu[1].pending, 2);
	f.p.vcpu[0] = f.p.vcpu[1] = NULL;
	teardown(&f);
}

static void test_call_table(void **state)
{
	uint64_t arg[5] = { 0, 0x2000, 3, 0, 0 };
	char text[200];

	(void)state;
	for (unsigned int i = 0; i < KEEL_CALL_COUNT; i++) {
		const struct call_info *c = &call_table[i];

		assert_ptr_equal(call_find(c->id), c);
		assert_true(!i || call_table[i - 1].id < c->id);
		for (unsigned int n = 0; n < 5; n++)
			assert_int_equal(c->arg[n].kind != ARG_NONE, n < c->args);
		/* Text of any length, into room of any length. */
		for (size_t n = 0; n < sizeof(text); n++) {
			memset(text, 0x7f, sizeof(text));
			call_format(text, n, c->id, arg);
			assert_int_equal(text[n], 0x7f);
		}
	}
	call_format(text, sizeof(text), KEEL_CALL_MMU_BATCH, arg);
	assert_string_equal(text, "mmu_batch(as=0, records=0x2000, count=3, flags=0)");
	call_format(text, sizeof(text), KEEL_CALL_BASE_NOP, arg);
	assert_string_equal(text, "base_nop()");
	call_format(text, sizeof(text), 0x42, arg);
	assert_string_equal(text, "call 0x42(0, 0x2000, 0x3, 0, 0)");
	assert_true(call_find(KEEL_CALL_AS_CREATE)->served);
	assert_false(call_find(KEEL_CALL_SHARE_OFFER)->served);
	assert_true(call_find(KEEL_CALL_VCPU_WAIT)->served);
	assert_true(calls_offered() >> KEEL_EXT_BASE & 1);
	assert_false(calls_offered() >> KEEL_EXT_SHARE & 1);
}

const struct CMUnitTest core_tests[] = {
	cmocka_unit_test(test_refused), cmocka_unit_test(test_ping_and_write), cmocka_unit_test(test_ends),
	cmocka_unit_test(test_copies),	cmocka_unit_test(test_raise),	       cmocka_unit_test(test_call_table),
};
DEFINE_TESTS(core);
