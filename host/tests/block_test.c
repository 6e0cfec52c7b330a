// SPDX-License-Identifier: MIT
/* Disks: what a driver notices of their order of work. What they do with requests is the conformance suite's. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "driver.h"

#define REQUESTS 12
#define BYTES (64u * 1024)
#define DATA (BUFFERS + 0x10000u)

static struct machine m;

/* A guest that has much under way works on what is there while the rest is copied. */
static void test_block_by_parts(void **state)
{
	char path[] = "/tmp/keel-disk-XXXXXX", spec[64];
	const int fd = mkstemp(path);
	static uint8_t bytes[REQUESTS][BYTES];
	struct vring *r = &m.ring[0];

	(void)state;
	for (unsigned int i = 0; i < REQUESTS; i++)
		for (size_t at = 0; at < BYTES; at += 256)
			assert_int_equal(getrandom(bytes[i] + at, 256, 0), 256);
	assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
	close(fd);
	snprintf(spec, sizeof(spec), "file=%s", path);
	machine_make(&m, &device_block, spec);
	unlink(path);
	ring_make(&m, 0, 64);
	for (unsigned int i = 0; i < REQUESTS; i++) {
		const uint64_t header = BUFFERS + i * 32, status = header + 16, sector = i * BYTES / 512;

		memset(m.p.ram + header, 0, 8);
		memcpy(m.p.ram + header + 8, &sector, 8);
		m.p.ram[status] = 0xff;
		ring_desc(r, 3 * i, header, 16, D_NEXT, (uint16_t)(3 * i + 1));
		ring_desc(r, 3 * i + 1, DATA + i * BYTES, BYTES, D_NEXT | D_WRITE, (uint16_t)(3 * i + 2));
		ring_desc(r, 3 * i + 2, status, 1, D_WRITE, 0);
		ring_offer(r, (uint16_t)(3 * i));
	}
	machine_go(&m, 0);
	for (unsigned int i = 0; i < REQUESTS; i++) {
		uint32_t len;
		const uint16_t head = ring_wait(r, &len);

		assert_int_equal(len, BYTES + 1);
		assert_int_equal(m.p.ram[BUFFERS + head / 3 * 32u + 16], 0);
	}
	assert_memory_equal(m.p.ram + DATA, bytes, sizeof(bytes));
	WAIT_FOR(m.d->notified >= 3);
	machine_end(&m);
}

const struct CMUnitTest block_tests[] = {
	cmocka_unit_test(test_block_by_parts),
};
DEFINE_TESTS(block);
