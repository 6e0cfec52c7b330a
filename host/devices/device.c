// SPDX-License-Identifier: MIT
#include "device.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "../monitor/bugs.h"
#include "../partition.h"

/* virtio 6 */
#define F_INDIRECT_DESC 28
#define F_EVENT_IDX 29
#define F_VERSION_1 32

#define COMPLAINTS_MAX 16 /* a driver can break the rules as often as it likes */
#define RESET_WAIT_MS 50  /* a reset is waited for so long, then the driver asks again */
#define STATUS_WRITABLE                                                                                   \
	(KEEL_DEVICE_ACKNOWLEDGE | KEEL_DEVICE_DRIVER | KEEL_DEVICE_FEATURES_OK | KEEL_DEVICE_DRIVER_OK | \
	 KEEL_DEVICE_FAILED)

#ifdef KEEL_BUGS
unsigned int keel_bug; /* this process's: devices, and the monitor of HVM guests */

__attribute__((constructor)) static void plant_bug(void)
{
	const char *number = getenv("KEEL_BUG");

	keel_bug = number ? (unsigned int)atoi(number) : 0;
}
#endif

static uint64_t bit(unsigned int n)
{
	return UINT64_C(1) << n;
}

struct device *device_open(const struct device_kind *kind, unsigned int index, const char *spec, struct error *e)
{
	struct device *d = calloc(1, sizeof(*d));
	pthread_condattr_t attr;

	if (d && kind->state)
		d->state = calloc(1, kind->state);
	if (!d || (kind->state && !d->state)) {
		free(d);
		error_set(e, "out of memory");
		return NULL;
	}
	d->kind = kind;
	d->index = index;
	d->spec = spec;
	d->features[0] = bit(F_INDIRECT_DESC) | bit(F_EVENT_IDX) | bit(F_VERSION_1);
	pthread_mutex_init(&d->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&d->settled, &attr);
	pthread_condattr_destroy(&attr);
	d->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (d->bell < 0)
		error_set(e, "cannot make an eventfd: %s", strerror(errno));
	else if (!kind->open(d, spec, e))
		return d;
	device_close(d);
	return NULL;
}

void device_close(struct device *d)
{
	if (!d)
		return;
	if (d->kind->close && d->state)
		d->kind->close(d);
	if (d->bell >= 0)
		close(d->bell);
	pthread_cond_destroy(&d->settled);
	pthread_mutex_destroy(&d->lock);
	free(d->filter.filter);
	free(d->state);
	free(d);
}

int device_bell(const struct device *d)
{
	return d->bell;
}

void device_ring(struct device *d)
{
	uint64_t one = 1, count;

	/*
	 * It fails when the counter is at its end, where a guest can bring it. Not everyone who
	 * waits reads it, so what wakes them is the write.
	 */
	while (write(d->bell, &one, sizeof(one)) < 0 && errno == EAGAIN)
		if (read(d->bell, &count, sizeof(count)) < 0 && errno != EAGAIN)
			return;
}

static void ask(struct device *d, unsigned int what)
{
	atomic_fetch_or(&d->want, what);
	device_ring(d);
}

/* The thread */

bool device_poll(struct device *d, bool block)
{
	struct pollfd f[1 + DEVICE_FDS] = { { .fd = d->bell, .events = POLLIN } };
	const unsigned int n = d->kind->fds ? d->kind->fds(d, f + 1) : 0;
	uint64_t count;

	if (poll(f, 1 + n, block ? d->kind->timeout ? d->kind->timeout(d) : -1 : 0) < 0)
		return false;
	if (n || d->kind->timeout)
		d->kind->ready(d, f + 1, n);
	return f[0].revents && read(d->bell, &count, sizeof(count)) == sizeof(count);
}

static void forget(struct device *d)
{
	d->resetting = false;
	for (unsigned int i = 0; i < d->kind->queues; i++)
		vq_reset(&d->queue[i]);
	if (!KEEL_BUG(64))
		memset(d->accepted, 0, sizeof(d->accepted));
	d->config_port = 0;
	d->status = 0;
}

static void *run(void *arg)
{
	struct device *d = arg;
	const struct device_kind *k = d->kind;
	bool live = false, rang = false;
	unsigned int leaving = 0;

	if (seal_thread(&d->filter)) {
		host_say("%s %u: its system call filter: %s", k->name, d->index, strerror(errno));
		partition_end(d->p, &(struct outcome){ .kind = OUTCOME_STOPPED });
		return NULL;
	}
	for (;;) {
		const unsigned int want = atomic_exchange(&d->want, 0);

		if (want & DEVICE_START) {
			live = rang = true;
			if (k->start)
				k->start(d);
		}
		leaving |= want & (DEVICE_RESET | DEVICE_STOP);
		if (leaving && (!live || !k->quiesce || k->quiesce(d) || KEEL_BUG(58))) {
			live = false;
			pthread_mutex_lock(&d->lock);
			forget(d);
			pthread_cond_broadcast(&d->settled);
			pthread_mutex_unlock(&d->lock);
			if (leaving & DEVICE_STOP)
				return NULL;
			leaving = 0;
		}
		if (rang && live && !leaving)
			k->kick(d);
		d->waits++;
		rang = k->wait && live ? k->wait(d, true) : device_poll(d, true);
	}
}

int device_prepare(struct device *d, const struct seal_table *table, struct seal_calls *calls, struct error *e)
{
	*calls = (struct seal_calls){ 0 };
	if (d->kind->calls)
		d->kind->calls(d, calls);
	return seal_thread_filter(table, calls, &d->filter, e);
}

int device_start(struct device *d, struct partition *p, struct error *e)
{
	int err;

	d->p = p;
	for (unsigned int i = 0; i < d->kind->queues; i++) {
		d->queue[i].d = d;
		d->queue[i].index = i;
	}
	atomic_store(&d->want, 0);
	err = pthread_create(&d->thread, NULL, run, d);
	if (err)
		return error_set(e, "%s %u: starting its thread: %s", d->kind->name, d->index, strerror(err));
	d->running = true;
	return 0;
}

void device_stop(struct device *d)
{
	if (!d->running)
		return;
	ask(d, DEVICE_STOP);
	pthread_join(d->thread, NULL);
	d->running = false;
	d->p = NULL;
}

void device_stats(struct device *d, void *f)
{
	fprintf(f, "keel: device.%u.%s requests %llu waits %llu notified %llu\n", d->index, d->kind->name,
		(unsigned long long)d->requests, (unsigned long long)d->waits, (unsigned long long)d->notified);
}

static void changed(struct device *d)
{
	partition_raise(d->p, &d->config_port);
}

void device_broken(struct device *d, const char *format, ...)
{
	char what[200];
	va_list ap;

	va_start(ap, format);
	vsnprintf(what, sizeof(what), format, ap);
	va_end(ap);
	pthread_mutex_lock(&d->lock);
	for (unsigned int i = 0; i < d->kind->queues; i++)
		d->queue[i].enabled = false;
	if (!(d->status & KEEL_DEVICE_NEEDS_RESET)) {
		d->status |= KEEL_DEVICE_NEEDS_RESET;
		if (d->complaints < COMPLAINTS_MAX)
			host_say("%s %u needs a reset, its driver broke the rules: %s%s", d->kind->name, d->index, what,
				 ++d->complaints < COMPLAINTS_MAX ? "" : "; no more of this will be said");
		changed(d);
	}
	pthread_mutex_unlock(&d->lock);
}

void device_config_changed(struct device *d)
{
	d->generation++;
	if (d->status & KEEL_DEVICE_DRIVER_OK)
		changed(d);
}

/* Calls. d->lock is held; arguments are checked in the order of KEEL-CALL-09. */

#define AT_ARG(code, n) KEEL_STATUS(KEEL_E_##code, KEEL_AT_ARG(n))
#define AT_FIELD(code, n) KEEL_STATUS(KEEL_E_##code, KEEL_AT_FIELD(n))

static int64_t status_form(const uint64_t *a)
{
	const uint64_t unknown = a[1] & ~(uint64_t)STATUS_WRITABLE;

	return !unknown || a[1] == KEEL_DEVICE_STATUS_READ
		       ? KEEL_OK
		       : KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_ARG(2), __builtin_ctzll(unknown));
}

static int64_t write_status(struct device *d, const uint64_t *a, uint64_t *value)
{
	struct timespec until;

	if (!a[1] && d->status) {
		/* Asked for once: by the second time the driver may be at its next life. */
		if (!d->resetting)
			ask(d, DEVICE_RESET);
		d->resetting = true;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += RESET_WAIT_MS * 1000000L;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		while (d->status && !pthread_cond_timedwait(&d->settled, &d->lock, &until))
			;
	} else if (a[1] && a[1] != KEEL_DEVICE_STATUS_READ) {
		uint32_t added = (uint32_t)a[1] & ~d->status, back = d->status & ~(uint32_t)a[1] & STATUS_WRITABLE;

		if (d->resetting)
			return AT_ARG(BUSY, 1);
		if (back) /* only a reset takes bits back */
			return KEEL_STATUS_BIT(KEEL_E_STATE, KEEL_AT_ARG(2), __builtin_ctz(back));
		/* In the order of virtio 3.1.1. */
		if (added & KEEL_DEVICE_DRIVER_OK && !((d->status | added) & KEEL_DEVICE_FEATURES_OK))
			return KEEL_STATUS_BIT(KEEL_E_STATE, KEEL_AT_ARG(2), __builtin_ctz(KEEL_DEVICE_DRIVER_OK));
		if (added & KEEL_DEVICE_FEATURES_OK && !((d->status | added) & KEEL_DEVICE_DRIVER))
			return KEEL_STATUS_BIT(KEEL_E_STATE, KEEL_AT_ARG(2), __builtin_ctz(KEEL_DEVICE_FEATURES_OK));
		if (added & KEEL_DEVICE_FEATURES_OK && !device_accepted(d, F_VERSION_1) && !KEEL_BUG(59))
			added &= ~(uint32_t)(KEEL_DEVICE_FEATURES_OK | KEEL_DEVICE_DRIVER_OK); /* refused */
		d->status |= added;
		if (added & KEEL_DEVICE_DRIVER_OK)
			ask(d, DEVICE_START);
	}
	*value = d->status;
	return KEEL_OK;
}

static int64_t accept_form(const uint64_t *a)
{
	return a[1] < KEEL_DEVICE_FEATURE_WORDS ? KEEL_OK : AT_ARG(RANGE, 2);
}

static int64_t accept_features(struct device *d, const uint64_t *a, uint64_t *value)
{
	const uint64_t unknown = a[2] & ~d->features[a[1]];

	(void)value;
	if (unknown && !KEEL_BUG(60))
		return KEEL_STATUS_BIT(KEEL_E_NOTSUP, KEEL_AT_ARG(3), __builtin_ctzll(unknown));
	if (!(d->status & KEEL_DEVICE_DRIVER) || d->status & KEEL_DEVICE_FEATURES_OK)
		return AT_ARG(STATE, 1);
	d->accepted[a[1]] = a[2];
	return KEEL_OK;
}

/* Of struct keel_device_queue, what has to be zero: all of it beyond its known size. 0 or a status. */
static int64_t get_setup(struct partition *p, uint64_t gpa, struct keel_device_queue *s)
{
	uint8_t tail[64];

	if (!partition_copy_from(p, s, gpa, sizeof(*s)))
		return AT_ARG(FAULT, 3);
	if (s->size < sizeof(*s) || s->size > KEEL_PAGE_SIZE)
		return AT_FIELD(INVAL, 1);
	for (uint32_t at = sizeof(*s); at < s->size;) {
		const uint32_t n = s->size - at < sizeof(tail) ? s->size - at : sizeof(tail);

		if (!partition_copy_from(p, tail, gpa + at, n))
			return AT_ARG(FAULT, 3);
		for (uint32_t i = 0; i < n; i++)
			if (tail[i])
				return AT_FIELD(INVAL, 1);
		at += n;
	}
	if (s->flags)
		return KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_FIELD(2), __builtin_ctz(s->flags));
	return s->reserved ? AT_FIELD(INVAL, 8) : KEEL_OK;
}

static int64_t queue_form(const uint64_t *a)
{
	return a[2] % 8 ? AT_ARG(INVAL, 3) : KEEL_OK;
}

static int64_t set_queue(struct device *d, const uint64_t *a, uint64_t *value)
{
	struct partition *p = d->p;
	const bool config = a[1] == KEEL_DEVICE_QUEUE_CONFIG;
	struct keel_device_queue s;
	struct virtqueue *q;
	int64_t status;
	int field;

	if (a[1] >= d->kind->queues && !config)
		return AT_ARG(RANGE, 2);
	status = get_setup(p, a[2], &s);
	if (status != KEEL_OK)
		return status;
	if (config ? s.entries : !s.entries || s.entries & (s.entries - 1) || s.entries > d->kind->queue_max)
		return AT_FIELD(INVAL, 3);
	if (s.port != KEEL_DEVICE_NO_PORT && !p->port_used(p, s.port))
		return AT_FIELD(NOENT, 4);
	if (config ? s.desc : s.desc % 16)
		return AT_FIELD(INVAL, 5);
	if (config ? s.driver : s.driver % 2)
		return AT_FIELD(INVAL, 6);
	if (config ? s.device : s.device % 4)
		return AT_FIELD(INVAL, 7);
	if (!config && !vq_fits(p->ram_size, s.entries, s.desc, s.driver, s.device, &field))
		return KEEL_STATUS(KEEL_E_FAULT, KEEL_AT_FIELD(field));
	s.port = s.port == KEEL_DEVICE_NO_PORT ? 0 : (s.port & 0xffffff) + 1;
	if (config) {
		if (!(d->status & KEEL_DEVICE_DRIVER))
			return AT_ARG(STATE, 1);
		d->config_port = s.port;
		return KEEL_OK;
	}
	if (!(d->status & KEEL_DEVICE_FEATURES_OK) || d->status & (KEEL_DEVICE_DRIVER_OK | KEEL_DEVICE_NEEDS_RESET))
		return AT_ARG(STATE, 1);
	q = &d->queue[a[1]];
	vq_reset(q);
	q->entries = s.entries;
	q->port = s.port;
	q->desc = s.desc;
	q->driver = s.driver;
	q->device = s.device;
	q->event_idx = device_accepted(d, F_EVENT_IDX);
	q->indirect = device_accepted(d, F_INDIRECT_DESC);
	q->enabled = true;
	*value = KEEL_PORT(0, KEEL_PORT_HOST, d->index);
	return KEEL_OK;
}

static int64_t config_form(const uint64_t *a)
{
	return a[3] > KEEL_DEVICE_CONFIG_MAX ? AT_ARG(RANGE, 4) : KEEL_OK;
}

/* Common to both ways: 0 or a status. */
static int64_t check_config(struct device *d, const uint64_t *a)
{
	if (a[1] > d->config_size)
		return AT_ARG(RANGE, 2);
	return a[3] > d->config_size - a[1] ? AT_ARG(RANGE, 4) : KEEL_OK;
}

static int64_t read_config(struct device *d, const uint64_t *a, uint64_t *value)
{
	int64_t status = check_config(d, a);

	if (status != KEEL_OK)
		return status;
	if (!partition_copy_to(d->p, a[2], d->config + a[1], a[3]))
		return AT_ARG(FAULT, 3);
	*value = d->generation;
	return KEEL_OK;
}

static int64_t write_config(struct device *d, const uint64_t *a, uint64_t *value)
{
	uint8_t bytes[DEVICE_CONFIG];
	int64_t status = check_config(d, a);

	(void)value;
	if (status != KEEL_OK)
		return status;
	if (!partition_copy_from(d->p, bytes, a[2], a[3]))
		return AT_ARG(FAULT, 3);
	/* No kind here has a field that drivers may write. */
	return a[3] ? AT_ARG(PERM, 2) : KEEL_OK;
}

static int64_t enumerate(struct partition *p, const uint64_t *a)
{
	struct keel_device_info info;
	struct device *d;

	if (a[1] % 8)
		return AT_ARG(INVAL, 2);
	if (a[0] >= p->devices)
		return AT_ARG(NOENT, 1);
	d = p->device[a[0]];
	if (!partition_copy_from(p, &info, a[1], 8))
		return AT_ARG(FAULT, 2);
	if (info.size < sizeof(info))
		return AT_FIELD(INVAL, 1);
	if (info.flags)
		return KEEL_STATUS_BIT(KEEL_E_INVAL, KEEL_AT_FIELD(2), __builtin_ctz(info.flags));
	pthread_mutex_lock(&d->lock);
	info = (struct keel_device_info){
		.size = sizeof(info),
		.device = d->index + 1,
		.type = d->kind->type,
		.status = d->status,
		.queues = d->kind->queues,
		.queue_max = d->kind->queue_max,
		.config_size = d->config_size,
		.features = { d->features[0], d->features[1] },
	};
	pthread_mutex_unlock(&d->lock);
	return partition_copy_to(p, a[1], &info, sizeof(info)) ? KEEL_OK : AT_ARG(FAULT, 2);
}

static const struct {
	uint32_t id;
	int64_t (*form)(const uint64_t *a);
	int64_t (*serve)(struct device *d, const uint64_t *a, uint64_t *value);
} calls[] = {
	{ KEEL_CALL_DEVICE_STATUS, status_form, write_status },
	{ KEEL_CALL_DEVICE_ACCEPT, accept_form, accept_features },
	{ KEEL_CALL_DEVICE_QUEUE, queue_form, set_queue },
	{ KEEL_CALL_DEVICE_CONFIG_READ, config_form, read_config },
	{ KEEL_CALL_DEVICE_CONFIG_WRITE, config_form, write_config },
};

int64_t device_call(struct partition *p, uint32_t id, const uint64_t *a, uint64_t *value)
{
	struct device *d;
	int64_t status;
	size_t i;

	if (id == KEEL_CALL_DEVICE_ENUM)
		return enumerate(p, a);
	for (i = 0; i < sizeof(calls) / sizeof(calls[0]) - 1 && calls[i].id != id; i++)
		;
	status = calls[i].form(a);
	if (status != KEEL_OK)
		return status;
	if (!a[0] || a[0] > p->devices)
		return AT_ARG(NOENT, 1);
	d = p->device[a[0] - 1];
	pthread_mutex_lock(&d->lock);
	/* Until a reset is over, asking for its end is all there is to say. */
	status = d->resetting && calls[i].serve != write_status ? AT_ARG(BUSY, 1) : calls[i].serve(d, a, value);
	pthread_mutex_unlock(&d->lock);
	return status;
}
