// SPDX-License-Identifier: MIT
#include "driver.h"

#include <sys/mman.h>
#include <unistd.h>

#define AREA 0x4000u /* of a queue: descriptors, 0x1000; available ring, 0x400; used ring */

/* Of vCPU 0, the first 64. */
static bool port_used(const struct partition *p, uint32_t port)
{
	(void)p;
	return !KEEL_PORT_VCPU(port) && KEEL_PORT_BIT(port) < 64;
}

void machine_make(struct machine *m, const struct device_kind *kind, const char *spec)
{
	struct error e = { "" };
	uint8_t *at = mmap(NULL, RAM_BYTES + 2 * KEEL_PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(m, 0, sizeof(*m));
	assert_true(at != MAP_FAILED);
	at += KEEL_PAGE_SIZE;
	assert_int_equal(mprotect(at, RAM_BYTES, PROT_READ | PROT_WRITE), 0);
	m->p.ops = &test_backend;
	m->p.ram = at;
	m->p.ram_size = RAM_BYTES;
	m->p.vcpus = 1;
	m->p.port_used = port_used;
	m->p.vcpu[0] = &m->vcpu;
	pthread_mutex_init(&m->p.lock, NULL);
	m->d = device_open(kind, 0, spec, &e);
	if (!m->d)
		fail_msg("%s", e.text);
	m->p.device[0] = m->d;
	m->p.devices = 1;
	assert_int_equal(device_start(m->d, &m->p, &e), 0);
}

void machine_end(struct machine *m)
{
	device_stop(m->d);
	device_close(m->d);
	pthread_mutex_destroy(&m->p.lock);
	munmap(m->p.ram - KEEL_PAGE_SIZE, RAM_BYTES + 2 * KEEL_PAGE_SIZE);
}

void ring_make(struct machine *m, unsigned int queue, unsigned int entries)
{
	struct vring *r = &m->ring[queue];
	const uint64_t at = queue * AREA;

	*r = (struct vring){
		.desc = (void *)(m->p.ram + at),
		.avail = (void *)(m->p.ram + at + 0x1000),
		.used = (void *)(m->p.ram + at + 0x1400),
		.setup = { .size = sizeof(r->setup),
			   .entries = entries,
			   .port = queue,
			   .desc = at,
			   .driver = at + 0x1000,
			   .device = at + 0x1400 },
		.entries = entries,
	};
	memset(m->p.ram + at, 0, AREA);
}

void ring_desc(struct vring *r, unsigned int i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	r->desc[i] = (struct vdesc){ addr, len, flags, next };
}

void ring_offer(struct vring *r, uint16_t head)
{
	r->avail[2 + r->avail[1] % r->entries] = head;
	__atomic_store_n(&r->avail[1], (uint16_t)(r->avail[1] + 1), __ATOMIC_SEQ_CST);
}

bool ring_has(const struct vring *r)
{
	return __atomic_load_n(&r->used[1], __ATOMIC_ACQUIRE) != r->seen;
}

uint16_t ring_wait(struct vring *r, uint32_t *len)
{
	const volatile uint16_t *used = &r->used[2 + r->seen % r->entries * 4];

	WAIT_FOR(ring_has(r));
	if (len)
		*len = used[2] | (uint32_t)used[3] << 16;
	r->seen++;
	return used[0];
}

int64_t call(struct machine *m, uint32_t id, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4, uint64_t *value)
{
	const uint64_t arg[5] = { a1, a2, a3, a4 };
	uint64_t none;

	return device_call(&m->p, id, arg, value ? value : &none);
}

void machine_go(struct machine *m, uint64_t features)
{
	uint64_t value;

	assert_int_equal(STATUS(m, 1, &value), KEEL_OK);
	assert_int_equal(STATUS(m, 3, &value), KEEL_OK);
	assert_int_equal(call(m, KEEL_CALL_DEVICE_ACCEPT, 1, 0, features | UINT64_C(1) << 32, 0, NULL), KEEL_OK);
	assert_int_equal(STATUS(m, 11, &value), KEEL_OK);
	assert_int_equal(value, 11);
	for (unsigned int i = 0; i < DEVICE_QUEUES; i++) {
		if (!m->ring[i].entries)
			continue;
		memcpy(m->p.ram + RAM_BYTES - 64, &m->ring[i].setup, sizeof(m->ring[i].setup));
		assert_int_equal(call(m, KEEL_CALL_DEVICE_QUEUE, 1, i, RAM_BYTES - 64, 0, NULL), KEEL_OK);
	}
	assert_int_equal(STATUS(m, 15, &value), KEEL_OK);
	assert_int_equal(value, 15);
}

void machine_reset(struct machine *m)
{
	uint64_t value = 1;

	for (int i = 0; i < 100 && value; i++)
		assert_int_equal(STATUS(m, 0, &value), KEEL_OK);
	assert_int_equal(value, 0);
}
