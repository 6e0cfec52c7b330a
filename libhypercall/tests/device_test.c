// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/*
 * Drivers of devices against a host of four devices, written here: this process is the
 * guest, GS points at a vCPU page, and the gate is a function. Devices work when the
 * doorbell rings, or only once the guest sleeps.
 */
#include <asm/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <hypercall/blk.h>
#include <hypercall/net.h>
#include <hypercall/rng.h>
#include <hypercall/vconsole.h>

#include "fake_queue.h"

#define SECTORS 64
#define PORT KEEL_PORT(7, 0, 33)
#define V1 KEEL_VIRTIO_F_VERSION_1
#define INDIRECT KEEL_VIRTIO_F_INDIRECT_DESC
#define EVENT_IDX KEEL_VIRTIO_F_EVENT_IDX
#define BLK_RO KEEL_U64(0x20)
#define BLK_FLUSH KEEL_U64(0x200)
#define NET_MAC KEEL_U64(0x20)

enum { NET, DISK, DISK2, CONSOLE, RNG, DEVICES };

struct fake {
	uint32_t type, queues, config_size;
	uint64_t features, accepted;
	uint32_t status;
	uint8_t config[300];
	struct {
		struct fake_queue vq;
		uint32_t port;
	} queue[2];
	uint32_t config_port;
	void (*work)(struct fake *f);
};

static struct host {
	struct keel_vcpu page __attribute__((aligned(4096)));
	struct fake dev[DEVICES];
	bool lazy; /* devices work when the guest sleeps */
	bool rung[DEVICES];
	unsigned int bells, waits, yields, events, delivered;
	unsigned int resets; /* status writes a reset takes */
	uint64_t now;
	char calls[256]; /* what the status and features were set to, in order */

	uint8_t disk[SECTORS * 512];
	uint8_t disk_status;	    /* instead of 0 */
	uint32_t disk_lies;	    /* bytes less than it read */
	unsigned int flushes, hold; /* requests that are taken and not done */
	bool silent, break_queue, fail;

	uint8_t wire[128][1600];
	uint32_t wire_len[128];
	unsigned int sent;
	bool head_zero, hold_tx;

	uint32_t rng_most;
	char typed[4096], shown[16384];
	uint32_t typed_len, shown_len;
} host;

/* What guest.c has. */
keel_gpa_t keel_gpa_of(const void *p)
{
	return keel_gpa((uintptr_t)p + FAKE_SHIFT);
}

static keel_event_fn handler;
static void *handler_arg;

void keel_event_handler(keel_u32 bit, keel_event_fn fn, void *arg)
{
	assert_int_equal(bit, KEEL_PORT_BIT(PORT));
	handler = fn;
	handler_arg = arg;
}

keel_u64 keel_time(void)
{
	return host.now;
}

/* ---------------------------------------------------------------- devices */

static void raise_port(uint32_t port)
{
	host.events++;
	if (port == KEEL_DEVICE_NO_PORT)
		return;
	assert_int_equal(port, PORT);
	host.page.pending = 1;
}

/* Next request of a queue; the driver here keeps the rules. */
static bool next(struct fake *f, unsigned int q, struct fake_chain *c)
{
	int got;

	if (!f->queue[q].vq.ring)
		return false;
	got = fake_pop(&f->queue[q].vq, c);
	assert_true(got >= 0);
	return got || (fake_want_notify(&f->queue[q].vq) && fake_pop(&f->queue[q].vq, c) == 1);
}

static void give(struct fake *f, unsigned int q, struct fake_chain *c, uint32_t len)
{
	fake_push(&f->queue[q].vq, c->head, len);
	if (fake_must_interrupt(&f->queue[q].vq))
		raise_port(f->queue[q].port);
}

static uint8_t disk_request(const struct fake_chain *c, uint32_t type, uint64_t sector, uint32_t *len)
{
	const unsigned int data = 1;

	if (type == 4) {
		host.flushes++;
		return 0;
	}
	*len = c->part[data].len;
	if (sector * 512 + *len > sizeof(host.disk))
		return 1;
	if (type == 1) {
		assert_int_equal(c->out, 2);
		memcpy(host.disk + sector * 512, c->part[data].at, *len);
		*len = 0;
	} else {
		assert_int_equal(type, 0);
		assert_int_equal(c->out, 1);
		memcpy(c->part[data].at, host.disk + sector * 512, *len);
	}
	return 0;
}

static void disk_work(struct fake *f)
{
	struct fake_chain c;

	while (!host.hold && next(f, 0, &c)) {
		uint32_t type, len = 0;
		uint64_t sector;

		assert_int_equal(c.part[0].len, 16);
		assert_int_equal(c.part[c.out + c.in - 1].len, 1);
		memcpy(&type, c.part[0].at, 4);
		memcpy(&sector, c.part[0].at + 8, 8);
		if (host.fail) {
			f->status |= KEEL_DEVICE_NEEDS_RESET;
			raise_port(f->config_port);
			return;
		}
		if (host.break_queue)
			c.head = (uint16_t)(c.head + 1);
		if (host.disk_status)
			*c.part[c.out + c.in - 1].at = host.disk_status;
		else if (!host.silent)
			*c.part[c.out + c.in - 1].at = disk_request(&c, type, sector, &len);
		give(f, 0, &c, len + 1 - (len ? host.disk_lies : 0));
	}
}

static void net_work(struct fake *f)
{
	struct fake_chain c;

	while (!host.hold_tx && next(f, 1, &c)) {
		host.head_zero = true;
		for (int i = 0; i < 12; i++)
			host.head_zero &= !c.part[0].at[i];
		host.wire_len[host.sent % 128] = c.part[0].len - 12;
		memcpy(host.wire[host.sent++ % 128], c.part[0].at + 12, c.part[0].len - 12);
		give(f, 1, &c, 0);
	}
}

/* A frame comes in, `len` long with its header. False when there is no buffer. */
static bool net_in(const void *frame, uint32_t copy, uint32_t len)
{
	struct fake_chain c;

	if (!next(&host.dev[NET], 0, &c))
		return false;
	assert_int_equal(c.out, 0);
	assert_true(c.part[0].len >= 12 + copy);
	memset(c.part[0].at, 0xee, 12);
	memcpy(c.part[0].at + 12, frame, copy);
	give(&host.dev[NET], 0, &c, len);
	return true;
}

static void rng_work(struct fake *f)
{
	static uint8_t value;
	struct fake_chain c;

	while (next(f, 0, &c)) {
		uint32_t n = c.part[0].len < host.rng_most ? c.part[0].len : host.rng_most;

		for (uint32_t i = 0; i < n; i++)
			c.part[0].at[i] = ++value;
		give(f, 0, &c, n);
	}
}

static void console_work(struct fake *f)
{
	struct fake_chain c;

	while (next(f, 1, &c)) {
		memcpy(host.shown + host.shown_len, c.part[0].at, c.part[0].len);
		host.shown_len += c.part[0].len;
		if (host.break_queue)
			c.head = 77;
		give(f, 1, &c, 0);
	}
	while (host.typed_len && next(f, 0, &c)) {
		uint32_t n = host.typed_len < c.part[0].len ? host.typed_len : c.part[0].len;

		memcpy(c.part[0].at, host.typed, n);
		memmove(host.typed, host.typed + n, host.typed_len -= n);
		give(f, 0, &c, n);
	}
}

static void work(void)
{
	for (int i = 0; i < DEVICES; i++) {
		if (host.rung[i] && host.dev[i].status & KEEL_DEVICE_DRIVER_OK) {
			host.rung[i] = false;
			host.dev[i].work(&host.dev[i]);
		}
	}
}

/* ---------------------------------------------------------------- calls */

#define ERROR(code, at) ((struct keel_ret){ KEEL_STATUS(KEEL_E_##code, at), 0 })
static const struct keel_ret fine = { 0, 0 };

static void say(const char *what, uint64_t value)
{
	size_t at = strlen(host.calls);

	snprintf(host.calls + at, sizeof(host.calls) - at, "%s%lx ", what, (unsigned long)value);
}

static struct keel_ret call_enum(uint64_t index, uint64_t gpa)
{
	struct keel_device_info *info = fake_va(gpa);
	const struct fake *f = &host.dev[index];

	if (index >= DEVICES)
		return ERROR(NOENT, 1);
	if (gpa % 8 || info->size != sizeof(*info) || info->flags)
		return ERROR(INVAL, 2);
	*info = (struct keel_device_info){ .size = sizeof(*info),
					   .device = (uint32_t)index + 100,
					   .type = f->type,
					   .status = f->status,
					   .queues = f->queues,
					   .queue_max = 16,
					   .config_size = f->config_size,
					   .features = { f->features, 0 } };
	return fine;
}

static struct keel_ret call_status(struct fake *f, uint64_t status)
{
	if (status == KEEL_DEVICE_STATUS_READ)
		return (struct keel_ret){ 0, f->status };
	say("s", status);
	if (!status && host.resets) {
		host.resets--;
		return (struct keel_ret){ 0, 0xf };
	}
	f->status = (uint32_t)status;
	if (!status) {
		memset(f->queue, 0, sizeof(f->queue));
		f->accepted = 0;
		f->config_port = KEEL_DEVICE_NO_PORT;
	}
	if (status & KEEL_DEVICE_FEATURES_OK && !(f->accepted & V1))
		f->status &= ~(uint32_t)KEEL_DEVICE_FEATURES_OK;
	return (struct keel_ret){ 0, f->status };
}

static struct keel_ret call_queue(struct fake *f, uint64_t q, uint64_t gpa)
{
	const struct keel_device_queue *s = fake_va(gpa);

	if (s->size != 48 || s->flags || s->reserved)
		return ERROR(INVAL, KEEL_AT_FIELD(1));
	if (q == KEEL_DEVICE_QUEUE_CONFIG) {
		assert_true(!s->entries && !s->desc && !s->driver && !s->device);
		f->config_port = s->port;
		return fine;
	}
	if (q >= f->queues)
		return ERROR(RANGE, 2);
	if (!(f->status & KEEL_DEVICE_FEATURES_OK) || f->status & KEEL_DEVICE_DRIVER_OK)
		return ERROR(STATE, 1);
	if (!s->entries || s->entries & (s->entries - 1) || s->entries > 16)
		return ERROR(INVAL, KEEL_AT_FIELD(3));
	f->queue[q].vq = (struct fake_queue){ .ring = fake_va(s->desc),
					      .entries = s->entries,
					      .event_idx = f->accepted & EVENT_IDX };
	f->queue[q].port = s->port;
	/* The fake knows of one block; that is how the library lays it out. */
	assert_ptr_equal(fake_avail(&f->queue[q].vq), fake_va(s->driver));
	assert_ptr_equal(fake_used(&f->queue[q].vq), fake_va(s->device));
	return (struct keel_ret){ 0, KEEL_PORT(0, KEEL_PORT_HOST, f - host.dev) };
}

static struct keel_ret call_device(uint64_t id, const uint64_t *a)
{
	struct fake *f = &host.dev[a[0] - 100];

	if (a[0] < 100 || a[0] >= 100 + DEVICES)
		return ERROR(NOENT, 1);
	switch (id) {
	case KEEL_CALL_DEVICE_STATUS:
		return call_status(f, a[1]);
	case KEEL_CALL_DEVICE_ACCEPT:
		say("f", a[2]);
		if (a[1] || a[2] & ~f->features)
			return ERROR(NOTSUP, 3);
		f->accepted = a[2];
		return fine;
	case KEEL_CALL_DEVICE_QUEUE:
		return call_queue(f, a[1], a[2]);
	case KEEL_CALL_DEVICE_CONFIG_READ:
		if (a[1] + a[3] > f->config_size)
			return ERROR(RANGE, 4);
		memcpy(fake_va(a[2]), f->config + a[1], a[3]);
		return (struct keel_ret){ 0, 3 };
	}
	return ERROR(NOSYS, 0);
}

static struct keel_ret call_wait(uint64_t deadline)
{
	host.waits++;
	assert_false(keel_irq_enabled());
	if (!host.page.pending)
		work();
	if (host.page.pending)
		return fine;
	if (deadline == KEEL_TIME_NEVER)
		fail_msg("the guest sleeps for ever");
	host.now = deadline;
	return ERROR(TIMEDOUT, 0);
}

static struct keel_ret call_yield(void)
{
	host.yields++;
	host.now += 1000;
	work();
	return fine;
}

struct keel_ret keel_gate(keel_u64 a1, keel_u64 a2, keel_u64 a3, keel_u64 a4, keel_u64 a5, keel_u64 id)
{
	const uint64_t a[5] = { a1, a2, a3, a4, a5 };

	switch (id) {
	case KEEL_CALL_DEVICE_ENUM:
		return call_enum(a1, a2);
	case KEEL_CALL_EVENT_ALLOC:
		return (struct keel_ret){ 0, PORT };
	case KEEL_CALL_EVENT_UNMASK:
		assert_int_equal(a1, PORT);
		return fine;
	case KEEL_CALL_EVENT_SEND:
		assert_int_equal(KEEL_PORT_VCPU(a1), KEEL_PORT_HOST);
		host.bells++;
		host.rung[KEEL_PORT_BIT(a1)] = true;
		if (!host.lazy)
			work();
		return fine;
	case KEEL_CALL_VCPU_WAIT:
		return call_wait(a1);
	case KEEL_CALL_VCPU_YIELD:
		return call_yield();
	case KEEL_CALL_TRAP_DELIVER:
		host.delivered++;
		host.page.pending = 0;
		if (handler)
			handler(handler_arg, KEEL_PORT_BIT(PORT));
		return fine;
	}
	return call_device(id, a);
}

/* ---------------------------------------------------------------- fixtures */

static struct keel_blk blk;
static struct keel_net net;
static struct keel_rng rng;
static struct keel_vconsole console;
static uint8_t data[SECTORS * 512], other[SECTORS * 512];
static uint32_t port;

static keel_gpa_t at(void *p)
{
	return keel_gpa_of(p);
}

static int fresh(void **state)
{
	(void)state;
	memset(&host, 0, sizeof(host));
	host.dev[NET] = (struct fake){ 1, 2, 300, V1 | EVENT_IDX | INDIRECT | NET_MAC, .work = net_work };
	memcpy(host.dev[NET].config, "\x52\x55\x0a\0\2\xf", 6);
	host.dev[DISK] = (struct fake){ 2, 1, 16, V1 | EVENT_IDX | INDIRECT | BLK_FLUSH, .work = disk_work };
	host.dev[DISK].config[0] = SECTORS;
	host.dev[DISK2] = host.dev[DISK];
	host.dev[DISK2].config[0] = 1;
	host.dev[DISK2].features = V1 | BLK_RO;
	host.dev[CONSOLE] = (struct fake){ 3, 2, 12, V1 | EVENT_IDX | INDIRECT, .work = console_work };
	host.dev[RNG] = (struct fake){ 4, 1, 0, V1, .work = rng_work };
	host.rng_most = 1000;
	handler = NULL;
	for (size_t i = 0; i < sizeof(data); i++) {
		data[i] = (uint8_t)(i * 7 + i / 512);
		host.disk[i] = (uint8_t)(i * 3 + i / 512);
	}
	memset(other, 0, sizeof(other));
	if (syscall(SYS_arch_prctl, ARCH_SET_GS, &host.page))
		return -1;
	keel_irq_enable();
	assert_int_equal(keel_dev_port(3, NULL, NULL, &port), 0);
	assert_int_equal(port, PORT);
	return 0;
}

/* Features of a disk, port and pace in all combinations. */
static void each_disk(void (*test)(void))
{
	static const uint64_t features[] = { 0, INDIRECT, EVENT_IDX, INDIRECT | EVENT_IDX };

	for (unsigned int i = 0; i < 16; i++) {
		fresh(NULL);
		host.dev[DISK].features = V1 | BLK_FLUSH | features[i / 4];
		host.lazy = i & 1;
		assert_int_equal(keel_blk_init(&blk, 0, i & 2 ? port : KEEL_DEVICE_NO_PORT), 0);
		assert_int_equal(host.dev[DISK].accepted, V1 | BLK_FLUSH | features[i / 4]);
		test();
		assert_true(keel_irq_enabled());
	}
}

/* ---------------------------------------------------------------- the transport */

static void devices_are_found_by_type(void **state)
{
	struct keel_dev d;

	(void)state;
	assert_int_equal(keel_dev_find(&d, KEEL_VIRTIO_BLOCK, 0), 0);
	assert_int_equal(d.handle, 100 + DISK);
	assert_int_equal(d.queues, 1);
	assert_int_equal(d.config_size, 16);
	assert_int_equal(d.offered, host.dev[DISK].features);
	assert_int_equal(keel_dev_find(&d, KEEL_VIRTIO_BLOCK, 1), 0);
	assert_int_equal(d.handle, 100 + DISK2);
	assert_int_equal(keel_dev_find(&d, KEEL_VIRTIO_BLOCK, 2), KEEL_STATUS(KEEL_E_NOENT, 1));
	assert_int_equal(keel_dev_find(&d, 99, 0), KEEL_STATUS(KEEL_E_NOENT, 1));
	assert_int_equal(keel_dev_entries(&d, 256), 16);
	assert_int_equal(keel_dev_entries(&d, 8), 8);
}

static void features_are_agreed_on(void **state)
{
	struct keel_dev d;

	(void)state;
	assert_int_equal(keel_dev_find(&d, KEEL_VIRTIO_BLOCK, 0), 0);
	host.resets = 2;
	assert_int_equal(keel_dev_negotiate(&d, INDIRECT | BLK_RO), 0);
	assert_int_equal(d.features, V1 | INDIRECT);
	/* Until it is reset; then in the order of virtio 3.1.1. */
	assert_string_equal(host.calls, "s0 s0 s0 s3 f110000000 sb ");
	assert_int_equal(keel_dev_ready(&d), 0);
	assert_int_equal(host.dev[DISK].status, 15);
	assert_false(keel_dev_failed(&d));
	host.dev[DISK].status |= KEEL_DEVICE_NEEDS_RESET;
	assert_true(keel_dev_failed(&d));

	/* An old device is none for us. */
	host.dev[DISK2].features = BLK_RO;
	assert_int_equal(keel_dev_find(&d, KEEL_VIRTIO_BLOCK, 1), 0);
	assert_int_equal(keel_dev_negotiate(&d, BLK_RO), KEEL_STATUS(KEEL_E_NOTSUP, 0));
	assert_int_equal(keel_blk_init(&blk, 1, port), KEEL_STATUS(KEEL_E_NOTSUP, 0));
}

static void config_space_is_read(void **state)
{
	struct keel_dev d;
	uint8_t mac[6];

	(void)state;
	assert_int_equal(keel_dev_find(&d, KEEL_VIRTIO_NET, 0), 0);
	assert_int_equal(keel_dev_config(&d, 0, mac, 6), 0);
	assert_memory_equal(mac, host.dev[NET].config, 6);
	assert_int_equal(keel_dev_config(&d, 298, mac, 6), KEEL_STATUS(KEEL_E_RANGE, 4));
	assert_int_equal(keel_dev_config(&d, 0, data, 257), KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_ARG(4)));
}

static unsigned int handled;

static void on_event(void *arg, keel_u32 bit)
{
	assert_ptr_equal(arg, &handled);
	assert_int_equal(bit, KEEL_PORT_BIT(PORT));
	handled++;
}

static void waiting_ends(void **state)
{
	(void)state;
	for (int with_port = 0; with_port < 2; with_port++) {
		fresh(NULL);
		handled = 0;
		assert_int_equal(keel_dev_port(1, on_event, &handled, &port), 0);
		assert_int_equal(keel_net_init(&net, 0, with_port ? port : KEEL_DEVICE_NO_PORT), 0);
		/* By the deadline. */
		assert_int_equal(keel_net_wait(&net, host.now + 5000), KEEL_STATUS(KEEL_E_TIMEDOUT, 0));
		assert_true(host.now >= 5000);
		assert_true(keel_irq_enabled());
		/* At once, when there is something. */
		host.waits = host.yields = 0;
		assert_true(net_in("abc", 3, 15));
		assert_int_equal(keel_net_wait(&net, KEEL_TIME_NEVER), 0);
		assert_int_equal(host.waits + host.yields, 0);
		assert_int_equal(keel_net_recv(&net, other, sizeof(other)), 3);
		/* By what is pending for someone else, and then by the deadline. */
		host.page.pending = 1;
		keel_irq_disable();
		assert_int_equal(keel_net_wait(&net, host.now + 5000), KEEL_STATUS(KEEL_E_TIMEDOUT, 0));
		assert_false(keel_irq_enabled());
		assert_int_equal(handled, with_port ? 1 : 0);
	}
}

/* ---------------------------------------------------------------- disks */

static void read_and_write(void)
{
	assert_int_equal(blk.sectors, SECTORS);
	assert_false(blk.readonly);
	assert_int_equal(keel_blk_read(&blk, 3, at(other), 4 * 512), 0);
	assert_memory_equal(other, host.disk + 3 * 512, 4 * 512);
	assert_int_equal(other[4 * 512], 0);
	assert_int_equal(keel_blk_write(&blk, 60, at(data), 4 * 512), 0);
	assert_memory_equal(host.disk + 60 * 512, data, 4 * 512);
	assert_int_equal(keel_blk_flush(&blk), 0);
	assert_int_equal(host.flushes, 1);
	/* More than the queue has entries, one after the other. */
	for (unsigned int i = 0; i < 200; i++) {
		assert_int_equal(keel_blk_write(&blk, i % SECTORS, at(data + 512 * (i % 7)), 512), 0);
		assert_int_equal(keel_blk_read(&blk, i % SECTORS, at(other), 512), 0);
		assert_memory_equal(other, data + 512 * (i % 7), 512);
	}
	/* With the doorbell asked for by the device, not for each of its own accord. */
	assert_true(host.bells <= 403);
}

static void disks_read_and_write(void **state)
{
	(void)state;
	each_disk(read_and_write);
}

static void many_under_way(void)
{
	static struct keel_blk_req req[32];
	const unsigned int depth = host.dev[DISK].accepted & INDIRECT ? 16 : 5;
	unsigned int n = 0, back = 0;
	struct keel_blk_req *r;

	host.hold = 1;
	while (!keel_blk_submit(&blk, &req[n], KEEL_BLK_READ, n, at(other + 512 * n), 512)) {
		req[n].cookie = other + 512 * n;
		n++;
	}
	assert_int_equal(n, depth);
	assert_int_equal(keel_blk_submit(&blk, &req[n], KEEL_BLK_READ, 0, at(other), 512),
			 KEEL_STATUS(KEEL_E_AGAIN, 0));
	assert_int_equal(keel_blk_kick(&blk), 0);
	assert_null(keel_blk_poll(&blk));
	assert_int_equal(keel_blk_wait(&blk, host.now + 9000), KEEL_STATUS(KEEL_E_TIMEDOUT, 0));
	host.hold = 0;
	host.rung[DISK] = true; /* it comes to it */
	/* One more, for which there is no room yet: the others are not lost by it. */
	assert_int_equal(keel_blk_write(&blk, 63, at(data), 512), 0);
	assert_memory_equal(host.disk + 63 * 512, data, 512);
	assert_int_equal(keel_blk_wait(&blk, KEEL_TIME_NEVER), 0);
	while ((r = keel_blk_poll(&blk))) {
		assert_int_equal(r->result, 0);
		assert_ptr_equal(r->cookie, other + 512 * (r - req));
		back++;
	}
	assert_int_equal(back, n);
	assert_memory_equal(other, host.disk, 512 * n);
}

static void requests_are_under_way_together(void **state)
{
	(void)state;
	each_disk(many_under_way);
}

static void what_is_no_part_of_the_disk(void **state)
{
	(void)state;
	assert_int_equal(keel_blk_init(&blk, 0, port), 0);
	assert_int_equal(keel_blk_read(&blk, SECTORS, at(other), 512), KEEL_STATUS(KEEL_E_RANGE, 4));
	assert_int_equal(keel_blk_read(&blk, SECTORS - 1, at(other), 1024), KEEL_STATUS(KEEL_E_RANGE, 4));
	assert_int_equal(keel_blk_read(&blk, ~0ull, at(other), 512), KEEL_STATUS(KEEL_E_RANGE, 4));
	assert_int_equal(keel_blk_read(&blk, 0, at(other), 512 * (SECTORS + 1)), KEEL_STATUS(KEEL_E_RANGE, 4));
	assert_int_equal(keel_blk_read(&blk, 0, at(other), 0), KEEL_STATUS(KEEL_E_INVAL, 6));
	assert_int_equal(keel_blk_read(&blk, 0, at(other), 511), KEEL_STATUS(KEEL_E_INVAL, 6));
	assert_int_equal(keel_blk_read(&blk, 0, at(other), 512 * SECTORS), 0);
	assert_int_equal(keel_blk_init(&blk, 2, port), KEEL_STATUS(KEEL_E_NOENT, 1));
}

static void a_read_only_disk(void **state)
{
	(void)state;
	assert_int_equal(keel_blk_init(&blk, 1, port), 0);
	assert_true(blk.readonly);
	assert_int_equal(blk.sectors, 1);
	assert_int_equal(keel_blk_write(&blk, 0, at(data), 512), KEEL_STATUS(KEEL_E_PERM, 3));
	assert_int_equal(keel_blk_read(&blk, 0, at(other), 512), 0);
	/* It has no flushes, so there is nothing to flush. */
	assert_int_equal(keel_blk_flush(&blk), 0);
	assert_int_equal(host.flushes, 0);
}

static void requests_that_fail(void **state)
{
	static const struct {
		uint8_t status;
		bool silent;
		uint32_t lies;
		int64_t result;
	} cases[] = {
		{ 1, false, 0, KEEL_STATUS(KEEL_E_FAULT, 0) },
		{ 2, false, 0, KEEL_STATUS(KEEL_E_NOTSUP, 0) },
		{ 77, false, 0, KEEL_STATUS(KEEL_E_FAULT, 0) },
		{ 0, false, 0, 0 },
		{ 0, true, 0, KEEL_STATUS(KEEL_E_FAULT, 0) },
		{ 0, false, 1, KEEL_STATUS(KEEL_E_FAULT, 0) },
		{ 0, false, 0, 0 },
	};

	(void)state;
	assert_int_equal(keel_blk_init(&blk, 0, port), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		host.disk_status = cases[i].status;
		host.silent = cases[i].silent;
		host.disk_lies = cases[i].lies;
		assert_int_equal(keel_blk_read(&blk, 1, at(other), 512), cases[i].result);
	}
	/* Nor is no status that of the request before, where there is no length that tells. */
	host.silent = true;
	assert_int_equal(keel_blk_write(&blk, 1, at(data), 512), KEEL_STATUS(KEEL_E_FAULT, 0));
}

static void a_disk_that_breaks(void)
{
	static struct keel_blk_req req;

	host.break_queue = true;
	assert_int_equal(keel_blk_read(&blk, 1, at(other), 512), KEEL_STATUS(KEEL_E_STATE, 0));
	assert_int_equal(keel_blk_read(&blk, 1, at(other), 512), KEEL_STATUS(KEEL_E_STATE, 0));
	assert_null(keel_blk_poll(&blk));
	assert_int_equal(keel_blk_wait(&blk, KEEL_TIME_NEVER), KEEL_STATUS(KEEL_E_STATE, 0));
	host.break_queue = false;
	/* A new life. */
	assert_int_equal(keel_blk_init(&blk, 0, blk.queue.port), 0);
	assert_int_equal(keel_blk_read(&blk, 1, at(other), 512), 0);
	/* It gives up, and answers nothing any more. */
	host.fail = true;
	assert_int_equal(keel_blk_read(&blk, 1, at(other), 512), KEEL_STATUS(KEEL_E_STATE, 0));
	host.fail = false;
	assert_int_equal(keel_blk_init(&blk, 0, blk.queue.port), 0);
	assert_int_equal(keel_blk_submit(&blk, &req, KEEL_BLK_WRITE, 1, at(data), 512), 0);
	assert_int_equal(keel_blk_flush(&blk), 0);
	assert_ptr_equal(keel_blk_poll(&blk), &req);
	assert_memory_equal(host.disk + 512, data, 512);
}

static void disks_that_break(void **state)
{
	(void)state;
	each_disk(a_disk_that_breaks);
}

/* ---------------------------------------------------------------- the others */

static void frames_are_sent(void **state)
{
	(void)state;
	assert_int_equal(keel_net_init(&net, 0, port), 0);
	assert_memory_equal(net.mac, host.dev[NET].config, 6);
	memset(net.tx_buffer, 0xff, sizeof(net.tx_buffer)); /* as a device may leave them */
	for (unsigned int i = 0; i < 100; i++) {
		assert_int_equal(keel_net_send(&net, data + i, 60 + i), 0);
		assert_int_equal(host.sent, i + 1);
		assert_int_equal(host.wire_len[i], 60 + i);
		assert_memory_equal(host.wire[i], data + i, 60 + i);
		assert_true(host.head_zero);
	}
	assert_int_equal(keel_net_send(&net, data, KEEL_NET_FRAME), 0);
	assert_int_equal(keel_net_send(&net, data, KEEL_NET_FRAME + 1), KEEL_STATUS(KEEL_E_INVAL, 3));
	assert_int_equal(keel_net_send(&net, data, 0), KEEL_STATUS(KEEL_E_INVAL, 3));
	/* A device that is busy: as many as it has entries, then not now. */
	host.hold_tx = true;
	host.bells = 0;
	for (unsigned int i = 0; i < 16; i++)
		assert_int_equal(keel_net_send(&net, data, 60), 0);
	assert_int_equal(host.bells, 1); /* it knows that there are some */
	assert_int_equal(keel_net_send(&net, data, 60), KEEL_STATUS(KEEL_E_AGAIN, 0));
	host.hold_tx = false;
	host.rung[NET] = true;
	work();
	assert_int_equal(host.sent, 117);
	assert_int_equal(keel_net_send(&net, data, 60), 0);
	assert_int_equal(host.events, 0); /* nobody asked to be told */
}

static void frames_come_in(void **state)
{
	unsigned int n = 0;

	(void)state;
	assert_int_equal(keel_net_init(&net, 0, port), 0);
	assert_int_equal(keel_net_recv(&net, other, sizeof(other)), 0);
	for (unsigned int i = 0; i < 100; i++) {
		assert_true(net_in(data + i, 60 + i, 72 + i));
		assert_int_equal(keel_net_wait(&net, KEEL_TIME_NEVER), 0);
		assert_int_equal(keel_net_recv(&net, other, sizeof(other)), 60 + i);
		assert_memory_equal(other, data + i, 60 + i);
	}
	/* As many at once as there are buffers; all of them are posted again. */
	for (int round = 0; round < 3; round++) {
		for (n = 0; net_in(data + n, 60, 72); n++)
			;
		assert_int_equal(n, 16);
		for (n = 0; keel_net_recv(&net, other, sizeof(other)) == 60; n++)
			assert_memory_equal(other, data + n, 60);
		assert_int_equal(n, 16);
	}
	/* Dropped: no frame in it, or one too long for the caller. */
	assert_true(net_in(data, 0, 12) && net_in(data, 0, 3) && net_in(data, 0, 0) && net_in(data, 1500, 1512));
	assert_true(net_in(data, 1, 13));
	assert_int_equal(keel_net_recv(&net, other, 1499), 1);
	/* More than there was room for. */
	assert_true(net_in(data, 60, 12 + KEEL_NET_FRAME + 1));
	assert_int_equal(keel_net_recv(&net, other, sizeof(other)), -1);
	assert_int_equal(keel_net_wait(&net, KEEL_TIME_NEVER), 0);
	assert_int_equal(keel_net_recv(&net, other, sizeof(other)), -1);
}

static void random_bytes(void **state)
{
	static const uint32_t most[] = { 1000, 256, 100, 1 };

	(void)state;
	for (size_t i = 0; i < sizeof(most) / sizeof(most[0]); i++) {
		host.rng_most = most[i];
		host.lazy = i & 1;
		assert_int_equal(keel_rng_init(&rng, 0, i & 2 ? port : KEEL_DEVICE_NO_PORT), 0);
		memset(other, 0, sizeof(other));
		assert_int_equal(keel_rng_fill(&rng, other, 700), 0);
		for (unsigned int k = 1; k < 700; k++)
			assert_int_equal(other[k], (uint8_t)(other[k - 1] + 1));
		assert_int_equal(other[700], 0);
	}
	assert_int_equal(keel_rng_fill(&rng, other, 0), 0);
	/* One that gives nothing would be asked for ever. */
	host.rng_most = 0;
	assert_int_equal(keel_rng_fill(&rng, other, 8), KEEL_STATUS(KEEL_E_STATE, 0));
}

static void console_bytes(void **state)
{
	char back[1000];
	uint32_t n = 0;

	(void)state;
	for (int lazy = 0; lazy < 2; lazy++) {
		fresh(NULL);
		host.lazy = lazy;
		assert_int_equal(keel_vconsole_init(&console, 0, port), 0);
		assert_int_equal(keel_vconsole_read(&console, back, sizeof(back)), 0);
		/* More than all buffers hold. */
		assert_int_equal(keel_vconsole_write(&console, data, 7000), 0);
		host.rung[CONSOLE] = true;
		work();
		assert_int_equal(host.shown_len, 7000);
		assert_memory_equal(host.shown, data, 7000);
		/* And the other way. */
		memcpy(host.typed, data, sizeof(host.typed));
		host.typed_len = 4096;
		host.rung[CONSOLE] = true;
		for (n = 0; n < 4096;) {
			int got;

			assert_int_equal(keel_vconsole_wait(&console, KEEL_TIME_NEVER), 0);
			got = keel_vconsole_read(&console, back, 1 + n % 300);
			assert_true(got > 0 && (uint32_t)got <= 1 + n % 300);
			assert_memory_equal(back, data + n, got);
			n += (uint32_t)got;
			host.rung[CONSOLE] = true;
			if (!lazy)
				work();
		}
		assert_int_equal(keel_vconsole_read(&console, back, sizeof(back)), 0);
		assert_int_equal(keel_vconsole_wait(&console, host.now + 1), KEEL_STATUS(KEEL_E_TIMEDOUT, 0));
		host.break_queue = true;
		assert_int_equal(keel_vconsole_write(&console, data, 7000), KEEL_STATUS(KEEL_E_STATE, 0));
	}
}

#define TEST(f) cmocka_unit_test_setup(f, fresh)

int device_tests(void)
{
	const struct CMUnitTest tests[] = {
		TEST(devices_are_found_by_type),
		TEST(features_are_agreed_on),
		TEST(config_space_is_read),
		TEST(waiting_ends),
		TEST(disks_read_and_write),
		TEST(requests_are_under_way_together),
		TEST(what_is_no_part_of_the_disk),
		TEST(a_read_only_disk),
		TEST(requests_that_fail),
		TEST(disks_that_break),
		TEST(frames_are_sent),
		TEST(frames_come_in),
		TEST(random_bytes),
		TEST(console_bytes),
	};

	return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}
