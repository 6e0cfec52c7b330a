// SPDX-License-Identifier: MIT
/* Consoles on files and terminals: order, readers that are slow or gone, and input without buffers. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "driver.h"

enum { RX, TX };

static struct machine m;

/* What the host says while it opens the device has the terminal's name. */
static void make_pty(char name[64])
{
	const int old = dup(STDERR_FILENO);
	char said[200] = "";
	int p[2];

	assert_int_equal(pipe(p), 0);
	fflush(stderr);
	dup2(p[1], STDERR_FILENO);
	machine_make(&m, &device_serial, "pty");
	dup2(old, STDERR_FILENO);
	assert_true(read(p[0], said, sizeof(said) - 1) > 0);
	assert_int_equal(sscanf(said, "keel: console 0 is %63s\n", name), 1);
	close(old);
	close(p[0]);
	close(p[1]);
}

static void make_rings(void)
{
	ring_make(&m, RX, 8);
	ring_make(&m, TX, 8);
	machine_go(&m, 0);
}

static void output(uint16_t head, const char *text, size_t len)
{
	memcpy(m.p.ram + BUFFERS + head * 0x8000, text, len);
	ring_desc(&m.ring[TX], head, BUFFERS + head * 0x8000, (uint32_t)len, 0, 0);
	ring_offer(&m.ring[TX], head);
	device_ring(m.d);
}

static void test_serial_spec(void **state)
{
	static const char *const bad[] = { "", "file=", "pty,", "tty", "file=/nowhere/at/all", "file=/" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct error e = { "" };

		assert_null(device_open(&device_serial, 0, bad[i], &e));
		assert_non_null(strstr(e.text, "--console "));
	}
}

static void test_serial_file(void **state)
{
	char name[] = "/tmp/keel-serial-XXXXXX", spec[64], got[32] = "";
	int fd = mkstemp(name);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "what was there before is gone", 29), 29);
	snprintf(spec, sizeof(spec), "file=%s", name);
	machine_make(&m, &device_serial, spec);
	make_rings();
	output(2, "one ", 4);
	assert_int_equal(ring_wait(&m.ring[TX], NULL), 2);
	output(0, "", 0);
	assert_int_equal(ring_wait(&m.ring[TX], NULL), 0);
	output(1, "two\n", 4);
	assert_int_equal(ring_wait(&m.ring[TX], NULL), 1);
	assert_int_equal(pread(fd, got, sizeof(got) - 1, 0), 8);
	assert_string_equal(got, "one two\n");
	machine_end(&m);
	close(fd);
	unlink(name);
}

/* A file that takes no more is said once; the guest goes on. */
static void test_serial_full(void **state)
{
	(void)state;
	machine_make(&m, &device_serial, "file=/dev/full");
	make_rings();
	for (int i = 0; i < 3; i++) {
		output(0, "lost", 4);
		assert_int_equal(ring_wait(&m.ring[TX], NULL), 0);
	}
	machine_end(&m);
}

static void read_all(int fd, char *to, size_t n)
{
	for (size_t at = 0; at < n;) {
		struct pollfd f = { .fd = fd, .events = POLLIN };

		assert_int_equal(poll(&f, 1, 5000), 1);
		const ssize_t got = read(fd, to + at, n - at);

		assert_true(got > 0);
		at += (size_t)got;
	}
}

static void test_serial_pty(void **state)
{
	static char big[0x6000], got[sizeof(big)];
	char name[64];
	uint32_t len;
	int fd;

	(void)state;
	make_pty(name);
	make_rings();
	/* Nobody there: output is taken, and gone. */
	for (int i = 0; i < 20; i++) {
		output(0, big, sizeof(big));
		assert_int_equal(ring_wait(&m.ring[TX], NULL), 0);
	}
	fd = open(name, O_RDWR | O_NOCTTY);
	assert_true(fd >= 0);
	usleep(50000);
	output(0, "hello\n", 6);
	ring_wait(&m.ring[TX], NULL);
	read_all(fd, got, 6);
	assert_memory_equal(got, "hello\n", 6); /* no CR: it is raw */
	/* More than the terminal holds: the chain is kept until it is read, in order, and the next behind it. */
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 31 >> 3);
	output(0, big, sizeof(big));
	output(1, "end", 3);
	usleep(50000);
	assert_false(ring_has(&m.ring[TX]));
	read_all(fd, got, sizeof(got));
	assert_memory_equal(got, big, sizeof(big));
	read_all(fd, got, 3);
	assert_memory_equal(got, "end", 3);
	assert_int_equal(ring_wait(&m.ring[TX], NULL), 0);
	assert_int_equal(ring_wait(&m.ring[TX], NULL), 1);
	/* Input waits for a buffer; a small one gets what fits. */
	assert_int_equal(write(fd, "input", 5), 5);
	usleep(20000);
	ring_desc(&m.ring[RX], 0, BUFFERS, 3, D_WRITE, 0);
	ring_offer(&m.ring[RX], 0);
	device_ring(m.d);
	assert_int_equal(ring_wait(&m.ring[RX], &len), 0);
	assert_int_equal(len, 3);
	assert_memory_equal(m.p.ram + BUFFERS, "inp", 3);
	ring_desc(&m.ring[RX], 1, BUFFERS, 100, D_WRITE, 0);
	ring_offer(&m.ring[RX], 1);
	device_ring(m.d);
	assert_int_equal(ring_wait(&m.ring[RX], &len), 1);
	assert_int_equal(len, 2);
	/* A reader that leaves in the middle: what it did not take is dropped. */
	output(0, big, sizeof(big));
	usleep(20000);
	assert_false(ring_has(&m.ring[TX]));
	close(fd);
	assert_int_equal(ring_wait(&m.ring[TX], NULL), 0);
	output(0, big, sizeof(big));
	assert_int_equal(ring_wait(&m.ring[TX], NULL), 0);
	/* Nothing of it keeps the thread busy. */
	const uint64_t waits = m.d->waits;

	usleep(50000);
	assert_true(m.d->waits - waits < 3);
	/* And one that comes back, to a driver that was reset meanwhile. */
	machine_reset(&m);
	fd = open(name, O_RDWR | O_NOCTTY);
	assert_true(fd >= 0);
	make_rings();
	output(3, "again", 5);
	assert_int_equal(ring_wait(&m.ring[TX], NULL), 3);
	read_all(fd, got, sizeof("again") - 1);
	close(fd);
	machine_end(&m);
}

/* A chain without end does not keep the thread from what it is told. */
static void test_serial_endless(void **state)
{
	(void)state;
	machine_make(&m, &device_serial, "file=/dev/null");
	ring_make(&m, RX, 8);
	ring_make(&m, TX, 256);
	machine_go(&m, 0);
	for (uint16_t i = 0; i < 256; i++)
		ring_desc(&m.ring[TX], i, 0, RAM_BYTES, i < 255 ? D_NEXT : 0, (uint16_t)(i + 1));
	for (int i = 0; i < 200; i++)
		ring_offer(&m.ring[TX], (uint16_t)(i % 256));
	device_ring(m.d);
	machine_end(&m);
}

const struct CMUnitTest serial_tests[] = {
	cmocka_unit_test(test_serial_spec), cmocka_unit_test(test_serial_file),	   cmocka_unit_test(test_serial_full),
	cmocka_unit_test(test_serial_pty),  cmocka_unit_test(test_serial_endless),
};
DEFINE_TESTS(serial);
