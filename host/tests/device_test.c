// SPDX-License-Identifier: MIT
/* What every device has: the DEVICE calls, the status machine, and resets that wait for requests. */
#include <stdio.h>
#include <unistd.h>

#include "driver.h"

#define AT_ARG(code, n) KEEL_STATUS(KEEL_E_##code, KEEL_AT_ARG(n))
#define AT_FIELD(code, n) KEEL_STATUS(KEEL_E_##code, KEEL_AT_FIELD(n))
#define SETUP (RAM_BYTES - 128u)

static struct machine m;

/* A device that can be held up. */
static struct {
	atomic_bool busy;
	atomic_uint starts, kicks, asked;
} fake;

static int fake_open(struct device *d, const char *spec, struct error *e)
{
	if (!strcmp(spec, "bad"))
		return error_set(e, "it is bad");
	d->features[0] |= 1u << 5;
	memcpy(d->config, "0123456789", 10);
	d->config_size = 10;
	return 0;
}

static void fake_start(struct device *d)
{
	(void)d;
	fake.starts++;
}

static void fake_kick(struct device *d)
{
	(void)d;
	fake.kicks++;
}

static bool fake_quiesce(struct device *d)
{
	(void)d;
	fake.asked++;
	return !fake.busy;
}

static const struct device_kind fake_kind = {
	.name = "fake",
	.type = 99,
	.queues = 2,
	.queue_max = 256,
	.state = 8,
	.open = fake_open,
	.start = fake_start,
	.kick = fake_kick,
	.quiesce = fake_quiesce,
};

static void make(void)
{
	memset(&fake, 0, sizeof(fake));
	machine_make(&m, &fake_kind, "");
}

static void test_device_open(void **state)
{
	struct error e = { "" };

	(void)state;
	assert_null(device_open(&fake_kind, 0, "bad", &e));
	assert_string_equal(e.text, "it is bad");
}

static void test_device_enum(void **state)
{
	struct keel_device_info *info;

	(void)state;
	make();
	info = (struct keel_device_info *)(m.p.ram + SETUP);
	*info = (struct keel_device_info){ .size = 64 };
	assert_int_equal(call(&m, KEEL_CALL_DEVICE_ENUM, 0, SETUP, 0, 0, NULL), KEEL_OK);
	assert_int_equal(info->size, 64);
	assert_int_equal(info->device, 1);
	assert_int_equal(info->type, 99);
	assert_int_equal(info->status, 0);
	assert_int_equal(info->queues, 2);
	assert_int_equal(info->queue_max, 256);
	assert_int_equal(info->config_size, 10);
	assert_int_equal(info->features[0], UINT64_C(1) << 32 | 1u << 29 | 1u << 28 | 1u << 5);
	assert_int_equal(info->features[1], 0);
	assert_int_equal(call(&m, KEEL_CALL_DEVICE_ENUM, 1, SETUP, 0, 0, NULL), AT_ARG(NOENT, 1));
	assert_int_equal(call(&m, KEEL_CALL_DEVICE_ENUM, 0, SETUP + 4, 0, 0, NULL), AT_ARG(INVAL, 2));
	assert_int_equal(call(&m, KEEL_CALL_DEVICE_ENUM, 0, RAM_BYTES, 0, 0, NULL), AT_ARG(FAULT, 2));
	info->size = 63;
	assert_int_equal(call(&m, KEEL_CALL_DEVICE_ENUM, 0, SETUP, 0, 0, NULL), AT_FIELD(INVAL, 1));
	*info = (struct keel_device_info){ .size = 64, .flags = 4 };
	assert_int_equal(call(&m, KEEL_CALL_DEVICE_ENUM, 0, SETUP, 0, 0, NULL),
			 KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_FIELD(2), 2));
	machine_end(&m);
}

/* From a status, what writing another does. */
static void test_device_status(void **state)
{
	static const struct {
		uint16_t from, write;
		int64_t status;
		uint16_t value; /* 0xffff = as before */
	} steps[] = {
#define BIT(code, n) KEEL_STATUS_BIT(KEEL_E_##code, KEEL_AT_ARG(2), n)
		{ 0, KEEL_DEVICE_STATUS_READ, KEEL_OK, 0 },
		{ 0, 0, KEEL_OK, 0 },
		{ 0, 1, KEEL_OK, 1 },
		{ 0, 2, KEEL_OK, 2 }, /* a driver that skipped ACKNOWLEDGE: virtio has no word on that */
		{ 0, 4, BIT(STATE, 2), 0xffff },
		{ 0, 8, BIT(STATE, 3), 0xffff },
		{ 1, 9, BIT(STATE, 3), 0xffff },
		{ 3, 7, BIT(STATE, 2), 0xffff },
		{ 3, 11, KEEL_OK, 11 },
		{ 3, 15, KEEL_OK, 15 },
		{ 11, 15, KEEL_OK, 15 },
		{ 11, KEEL_DEVICE_STATUS_READ, KEEL_OK, 11 },
		{ 11, 11, KEEL_OK, 11 },
		{ 11, 10, BIT(STATE, 0), 0xffff },
		{ 11, 3, BIT(STATE, 3), 0xffff },
		{ 15, 11, BIT(STATE, 2), 0xffff },
		{ 15, 0, KEEL_OK, 0 },
		{ 15, 15 | 128, KEEL_OK, 15 | 128 },
		{ 15 | 128, 15, BIT(STATE, 7), 0xffff },
		{ 1, 1 | 64, BIT(INVAL, 6), 0xffff }, /* the device's to set */
		{ 1, 1 | 16, BIT(INVAL, 4), 0xffff },
		{ 1, 1 | 256, BIT(INVAL, 8), 0xffff }, /* STATUS_READ is alone */
		{ 1, 512, BIT(INVAL, 9), 0xffff },
#undef BIT
	};

	(void)state;
	make();
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		static const uint16_t way[] = { 1, 3, 11, 15, 15 | 128 };
		uint64_t value;
		int64_t status;

		machine_reset(&m);
		for (size_t k = 0; k < sizeof(way) / sizeof(way[0]) && way[k] <= steps[i].from; k++) {
			if (way[k] == 3) {
				STATUS(&m, 3, NULL);
				assert_int_equal(call(&m, KEEL_CALL_DEVICE_ACCEPT, 1, 0, UINT64_C(1) << 32, 0, NULL),
						 KEEL_OK);
			}
			assert_int_equal(STATUS(&m, way[k], &value), KEEL_OK);
			assert_int_equal(value, way[k]);
		}
		value = 0xffff;
		status = STATUS(&m, steps[i].write, &value);
		if (status != steps[i].status || value != steps[i].value)
			fail_msg("%u, written %u: %lx, %lx", steps[i].from, steps[i].write, status, value);
	}
	/* Bits above 32 are bits. */
	assert_int_equal(STATUS(&m, UINT64_C(1) << 40, NULL), KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_ARG(2), 40));
	machine_end(&m);
}

static void test_device_features(void **state)
{
	uint64_t value;

	(void)state;
	make();
#define ACCEPT(w, bits) call(&m, KEEL_CALL_DEVICE_ACCEPT, 1, w, bits, 0, NULL)
	assert_int_equal(ACCEPT(0, 0), AT_ARG(STATE, 1)); /* no driver yet */
	STATUS(&m, 1, NULL);
	STATUS(&m, 3, NULL);
	assert_int_equal(ACCEPT(2, 0), AT_ARG(RANGE, 2));
	assert_int_equal(ACCEPT(0, UINT64_C(1) << 33), KEEL_STATUS_BIT(KEEL_E_NOTSUP, KEEL_AT_ARG(3), 33));
	assert_int_equal(ACCEPT(1, 1), KEEL_STATUS_BIT(KEEL_E_NOTSUP, KEEL_AT_ARG(3), 0));
	/* Without VERSION_1 there is no FEATURES_OK, and a second try. */
	assert_int_equal(ACCEPT(0, 1u << 5), KEEL_OK);
	assert_int_equal(STATUS(&m, 11, &value), KEEL_OK);
	assert_int_equal(value, 3);
	assert_int_equal(STATUS(&m, 15, &value), KEEL_OK);
	assert_int_equal(value, 3);
	assert_int_equal(ACCEPT(0, UINT64_C(1) << 32), KEEL_OK);
	assert_int_equal(STATUS(&m, 11, &value), KEEL_OK);
	assert_int_equal(value, 11);
	assert_int_equal(ACCEPT(0, UINT64_C(1) << 32), AT_ARG(STATE, 1));
	assert_true(device_accepted(m.d, 32));
	assert_false(device_accepted(m.d, 5));
	machine_reset(&m);
	assert_false(device_accepted(m.d, 32));
	machine_end(&m);
}

static int64_t set_queue(uint64_t index, struct keel_device_queue s, uint64_t *value)
{
	memcpy(m.p.ram + SETUP, &s, sizeof(s));
	return call(&m, KEEL_CALL_DEVICE_QUEUE, 1, index, SETUP, 0, value);
}

static void test_device_queue(void **state)
{
	static const struct keel_device_queue good = {
		.size = 48, .entries = 8, .port = 3, .desc = 0x1000, .driver = 0x2000, .device = 0x3000
	};
	struct keel_device_queue s;
	uint64_t value = 0;

	(void)state;
	make();
#define REFUSED(field, v, expected)                                \
	do {                                                       \
		s = good;                                          \
		s.field = v;                                       \
		assert_int_equal(set_queue(0, s, NULL), expected); \
	} while (0)
	assert_int_equal(set_queue(0, good, NULL), AT_ARG(STATE, 1));
	STATUS(&m, 1, NULL);
	STATUS(&m, 3, NULL);
	assert_int_equal(set_queue(0, good, NULL), AT_ARG(STATE, 1));
	ACCEPT(0, UINT64_C(1) << 32);
	STATUS(&m, 11, NULL);
	REFUSED(size, 47, AT_FIELD(INVAL, 1));
	REFUSED(size, 4097, AT_FIELD(INVAL, 1));
	REFUSED(flags, 2, KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_FIELD(2), 1));
	REFUSED(entries, 0, AT_FIELD(INVAL, 3));
	REFUSED(entries, 3, AT_FIELD(INVAL, 3));
	REFUSED(entries, 512, AT_FIELD(INVAL, 3));
	REFUSED(port, 1u << 12 | 3, AT_FIELD(NOENT, 4)); /* vCPU 1 */
	REFUSED(port, 64, AT_FIELD(NOENT, 4));		 /* nobody's */
	REFUSED(desc, 0x1008, AT_FIELD(INVAL, 5));
	REFUSED(driver, 0x2001, AT_FIELD(INVAL, 6));
	REFUSED(device, 0x3002, AT_FIELD(INVAL, 7));
	REFUSED(desc, RAM_BYTES, AT_FIELD(FAULT, 5));
	REFUSED(driver, RAM_BYTES - 2, AT_FIELD(FAULT, 6));
	REFUSED(device, RAM_BYTES - 64, AT_FIELD(FAULT, 7));
	REFUSED(reserved, 1, AT_FIELD(INVAL, 8));
	assert_int_equal(set_queue(2, good, NULL), AT_ARG(RANGE, 2));
	assert_int_equal(set_queue(UINT64_C(1) << 32, good, NULL), AT_ARG(RANGE, 2));
	assert_int_equal(call(&m, KEEL_CALL_DEVICE_QUEUE, 1, 0, SETUP + 1, 0, NULL), AT_ARG(INVAL, 3));
	assert_int_equal(call(&m, KEEL_CALL_DEVICE_QUEUE, 1, 0, RAM_BYTES - 8, 0, NULL), AT_ARG(FAULT, 3));
	assert_int_equal(set_queue(1, good, &value), KEEL_OK);
	assert_int_equal(value, KEEL_PORT(0, KEEL_PORT_HOST, 0));
	assert_true(m.d->queue[1].enabled);
	assert_false(m.d->queue[0].enabled);
	/* Longer than we know, and zero there. */
	s = good;
	s.size = 56;
	memset(m.p.ram + SETUP + 48, 0, 8);
	assert_int_equal(set_queue(0, s, NULL), KEEL_OK);
	m.p.ram[SETUP + 55] = 1;
	assert_int_equal(set_queue(0, s, NULL), AT_FIELD(INVAL, 1));
	/* The port of configuration changes. */
	s = (struct keel_device_queue){ .size = 48, .port = 9 };
	assert_int_equal(set_queue(KEEL_DEVICE_QUEUE_CONFIG, s, NULL), KEEL_OK);
	s.entries = 8;
	assert_int_equal(set_queue(KEEL_DEVICE_QUEUE_CONFIG, s, NULL), AT_FIELD(INVAL, 3));
	STATUS(&m, 15, NULL);
	assert_int_equal(set_queue(0, good, NULL), AT_ARG(STATE, 1));
	machine_reset(&m);
	assert_false(m.d->queue[0].enabled || m.d->queue[1].enabled);
	machine_end(&m);
}

static void test_device_config(void **state)
{
	uint64_t value;

	(void)state;
	make();
#define CONFIG(call_, offset, gpa, len) call(&m, KEEL_CALL_DEVICE_CONFIG_##call_, 1, offset, gpa, len, &value)
	memset(m.p.ram + SETUP, 'x', 16);
	assert_int_equal(CONFIG(READ, 3, SETUP, 4), KEEL_OK);
	assert_memory_equal(m.p.ram + SETUP, "3456x", 5);
	assert_int_equal(value, 0);
	assert_int_equal(CONFIG(READ, 10, SETUP, 0), KEEL_OK);
	assert_int_equal(CONFIG(READ, 11, SETUP, 0), AT_ARG(RANGE, 2));
	assert_int_equal(CONFIG(READ, 3, SETUP, 8), AT_ARG(RANGE, 4));
	assert_int_equal(CONFIG(READ, 0, SETUP, 257), AT_ARG(RANGE, 4));
	assert_int_equal(CONFIG(READ, 0, SETUP, UINT64_MAX), AT_ARG(RANGE, 4));
	assert_int_equal(CONFIG(READ, 0, RAM_BYTES - 1, 2), AT_ARG(FAULT, 3));
	assert_int_equal(CONFIG(WRITE, 0, SETUP, 1), AT_ARG(PERM, 2));
	assert_int_equal(CONFIG(WRITE, 0, SETUP, 11), AT_ARG(RANGE, 4));
	assert_memory_equal(m.d->config, "0123456789", 10);
	/* A change is told, once there is a driver, at the port it named. */
	machine_go(&m, 0);
	machine_reset(&m);
	STATUS(&m, 1, NULL);
	STATUS(&m, 3, NULL);
	ACCEPT(0, UINT64_C(1) << 32);
	STATUS(&m, 11, NULL);
	assert_int_equal(set_queue(KEEL_DEVICE_QUEUE_CONFIG, (struct keel_device_queue){ .size = 48, .port = 9 }, NULL),
			 KEEL_OK);
	STATUS(&m, 15, NULL);
	pthread_mutex_lock(&m.d->lock);
	device_config_changed(m.d);
	pthread_mutex_unlock(&m.d->lock);
	assert_int_equal(m.vcpu.event_pending[0], 1u << 9);
	assert_int_equal(CONFIG(READ, 0, SETUP, 1), KEEL_OK);
	assert_int_equal(value, 1);
	m.vcpu.event_pending[0] = 0;
	device_broken(m.d, "as a test");
	assert_int_equal(m.vcpu.event_pending[0], 1u << 9);
	assert_int_equal(STATUS(&m, KEEL_DEVICE_STATUS_READ, &value), KEEL_OK);
	assert_int_equal(value, 15 | 64);
	machine_end(&m);
}

static void test_device_reset(void **state)
{
	uint64_t value;

	(void)state;
	make();
	ring_make(&m, 0, 8);
	machine_go(&m, 0);
	WAIT_FOR(fake.starts == 1 && fake.kicks);
	/* Requests are under way: the reset is not over, and nothing else can be done meanwhile. */
	fake.busy = true;
	assert_int_equal(STATUS(&m, 0, &value), KEEL_OK);
	assert_int_equal(value, 15);
	assert_true(m.d->queue[0].enabled);
	assert_int_equal(STATUS(&m, 15, &value), AT_ARG(BUSY, 1));
	assert_int_equal(STATUS(&m, KEEL_DEVICE_STATUS_READ, &value), KEEL_OK);
	assert_int_equal(value, 15);
	assert_int_equal(ACCEPT(0, 0), AT_ARG(BUSY, 1));
	assert_int_equal(CONFIG(READ, 0, SETUP, 1), AT_ARG(BUSY, 1));
	/* A doorbell is heard as what may have ended them, not as one. */
	const unsigned int kicks = fake.kicks, asked = fake.asked;

	device_ring(m.d);
	WAIT_FOR(fake.asked > asked);
	assert_int_equal(fake.kicks, kicks);
	fake.busy = false;
	assert_int_equal(STATUS(&m, 0, &value), KEEL_OK);
	device_ring(m.d);
	WAIT_FOR(STATUS(&m, 0, &value) == KEEL_OK && !value);
	assert_false(m.d->queue[0].enabled);
	/* And a new life; a doorbell without one is nothing. */
	device_ring(m.d);
	usleep(20000);
	assert_int_equal(fake.kicks, kicks);
	machine_go(&m, 0);
	WAIT_FOR(fake.starts == 2 && fake.kicks > kicks);
	machine_end(&m);
}

/* A partition ends, the next finds the device as new. */
static void test_device_lives(void **state)
{
	struct error e = { "" };
	uint64_t value;

	(void)state;
	make();
	for (int life = 0; life < 3; life++) {
		assert_int_equal(STATUS(&m, KEEL_DEVICE_STATUS_READ, &value), KEEL_OK);
		assert_int_equal(value, 0);
		ring_make(&m, 1, 8);
		machine_go(&m, 1 << 5);
		device_ring(m.d);
		device_stop(m.d);
		assert_false(m.d->queue[1].enabled || device_accepted(m.d, 5));
		assert_int_equal(device_start(m.d, &m.p, &e), 0);
	}
	machine_end(&m);
}

const struct CMUnitTest device_tests[] = {
	cmocka_unit_test(test_device_open),   cmocka_unit_test(test_device_enum),
	cmocka_unit_test(test_device_status), cmocka_unit_test(test_device_features),
	cmocka_unit_test(test_device_queue),  cmocka_unit_test(test_device_config),
	cmocka_unit_test(test_device_reset),  cmocka_unit_test(test_device_lives),
};
DEFINE_TESTS(device);
