/* SPDX-License-Identifier: MIT */
/*
 * A driver's side of a device, for unit tests: memory with nothing around it, split
 * queues in it, and the DEVICE calls.
 */
#ifndef KEEL_HOST_TESTS_DRIVER_H
#define KEEL_HOST_TESTS_DRIVER_H

#include "../devices/device.h"
#include "tests.h"

#define RAM_BYTES (1u << 20)
#define D_NEXT 1
#define D_WRITE 2
#define D_INDIRECT 4

struct vdesc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

/* A queue's three areas, at fixed places: 16 KiB for each queue from GPA 0. Buffers are above BUFFERS. */
struct vring {
	struct vdesc *desc;
	volatile uint16_t *avail; /* flags, index, ring, used_event */
	volatile uint16_t *used;  /* flags, index, pairs of uint32_t, avail_event */
	struct keel_device_queue setup;
	unsigned int entries;
	uint16_t seen; /* of the used ring */
};
#define BUFFERS 0x10000u

struct machine {
	struct partition p;
	struct keel_vcpu vcpu __attribute__((aligned(4096)));
	struct device *d;
	struct vring ring[DEVICE_QUEUES];
};

/* Memory, with pages around it that end whoever touches them, and a device; fails the test when that cannot be opened. */
void machine_make(struct machine *m, const struct device_kind *kind, const char *spec);
void machine_end(struct machine *m);
/* Areas of a queue of `entries`, zeroed; not told to the device. */
void ring_make(struct machine *m, unsigned int queue, unsigned int entries);
void ring_desc(struct vring *r, unsigned int i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next);
void ring_offer(struct vring *r, uint16_t head);
/* The next chain given back, within seconds; its head. */
uint16_t ring_wait(struct vring *r, uint32_t *len);
/* Is there one? */
bool ring_has(const struct vring *r);

/* One call, with the status it returns. */
int64_t call(struct machine *m, uint32_t id, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4, uint64_t *value);
#define STATUS(m, s, value) call(m, KEEL_CALL_DEVICE_STATUS, 1, s, 0, 0, value)
/* The whole of a driver's start: these features, and every ring that was made. */
void machine_go(struct machine *m, uint64_t features);
void machine_reset(struct machine *m);
/* Until the device has what a test is about to look at; fails after seconds. */
#define WAIT_FOR(condition)                                     \
	do {                                                    \
		for (int ms = 0; !(condition); ms++) {          \
			if (ms == 5000)                         \
				fail_msg("never: " #condition); \
			usleep(1000);                           \
		}                                               \
	} while (0)

#endif
