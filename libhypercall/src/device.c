// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Virtio devices for drivers; see hypercall/device.h. */
#include <hypercall/device.h>

#define AGREED (KEEL_DEVICE_ACKNOWLEDGE | KEEL_DEVICE_DRIVER | KEEL_DEVICE_FEATURES_OK)

#define LOOKS 4096 /* at a queue without a port, between two at the device's status */

keel_s64 keel_dev_find(struct keel_dev *d, keel_u32 type, unsigned int nth)
{
	struct keel_device_info *info = &d->io.info;
	struct keel_ret ret;
	keel_u32 i;

	for (i = 0;; i++) {
		*info = (struct keel_device_info){ .size = sizeof(*info) };
		ret = keel_device_enum(i, keel_gpa_of(info));
		if (ret.status)
			return ret.status;
		if (info->type == type && !nth--)
			break;
	}
	d->handle = info->device;
	d->type = info->type;
	d->queues = info->queues;
	d->queue_max = info->queue_max;
	d->config_size = info->config_size;
	d->offered = info->features[0];
	d->features = 0;
	return KEEL_OK;
}

keel_s64 keel_dev_reset(struct keel_dev *d)
{
	struct keel_ret ret;

	/* It has requests to finish, or to let go of. */
	while (!(ret = keel_device_status(d->handle, 0)).status && ret.value)
		keel_vcpu_yield(KEEL_VCPU_ANY);
	return ret.status;
}

keel_s64 keel_dev_negotiate(struct keel_dev *d, keel_u64 wanted)
{
	keel_u64 features = ((wanted | KEEL_VIRTIO_F_VERSION_1) & d->offered);
	struct keel_ret ret;
	keel_s64 status;

	status = keel_dev_reset(d);
	if (status)
		return status;
	ret = keel_device_status(d->handle, KEEL_DEVICE_ACKNOWLEDGE | KEEL_DEVICE_DRIVER);
	if (!ret.status)
		ret = keel_device_accept(d->handle, 0, features);
	if (!ret.status)
		ret = keel_device_status(d->handle, AGREED);
	if (ret.status)
		return ret.status;
	if (!(ret.value & KEEL_DEVICE_FEATURES_OK))
		return KEEL_STATUS(KEEL_E_NOTSUP, 0);
	d->features = features;
	return KEEL_OK;
}

keel_u32 keel_dev_entries(const struct keel_dev *d, keel_u32 most)
{
	while (most > d->queue_max)
		most /= 2;
	return most;
}

static struct keel_ret set_queue(struct keel_dev *d, keel_u32 index, const struct keel_device_queue *setup)
{
	d->io.setup = *setup;
	return keel_device_queue(d->handle, index, keel_gpa_of(&d->io.setup));
}

keel_s64 keel_dev_queue(struct keel_dev *d, struct keel_dev_queue *q, keel_u32 index, keel_u32 entries,
			const struct keel_virtq_memory *mem, keel_u32 port)
{
	struct keel_device_queue setup = { .size = sizeof(setup), .entries = entries, .port = port };
	keel_s64 status = keel_virtq_init(&q->vq, entries, mem, d->features);
	struct keel_ret ret;

	if (status)
		return status;
	setup.desc = keel_virtq_desc_gpa(&q->vq);
	setup.driver = keel_virtq_avail_gpa(&q->vq);
	setup.device = keel_virtq_used_gpa(&q->vq);
	ret = set_queue(d, index, &setup);
	if (ret.status)
		return ret.status;
	q->dev = d;
	q->doorbell = keel_port((keel_u32)ret.value);
	q->port = port;
	if (index || port == KEEL_DEVICE_NO_PORT)
		return KEEL_OK;
	/* Who waits for the device wants to hear of its end, too. */
	setup = (struct keel_device_queue){ .size = sizeof(setup), .port = port };
	return set_queue(d, KEEL_DEVICE_QUEUE_CONFIG, &setup).status;
}

keel_s64 keel_dev_ready(struct keel_dev *d)
{
	return keel_device_status(d->handle, AGREED | KEEL_DEVICE_DRIVER_OK).status;
}

bool keel_dev_failed(struct keel_dev *d)
{
	struct keel_ret ret = keel_device_status(d->handle, KEEL_DEVICE_STATUS_READ);

	return ret.status || ret.value & KEEL_DEVICE_NEEDS_RESET;
}

keel_s64 keel_dev_config(struct keel_dev *d, keel_u32 offset, void *buf, keel_u32 len)
{
	keel_s64 status;

	if (len > sizeof(d->io.config))
		return KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_ARG(4));
	status = keel_device_config_read(d->handle, offset, keel_gpa_of(d->io.config), len).status;
	if (!status)
		keel_memcpy(buf, d->io.config, len);
	return status;
}

/* Its coming is all there is to it. */
static void woken(void *arg, keel_u32 bit)
{
	(void)arg;
	(void)bit;
}

keel_s64 keel_dev_port(keel_u32 priority, keel_event_fn fn, void *arg, keel_u32 *port)
{
	struct keel_ret ret = keel_event_alloc(priority);

	if (ret.status)
		return ret.status;
	*port = (keel_u32)ret.value;
	keel_event_handler(KEEL_PORT_BIT(*port), fn ? fn : woken, arg);
	return keel_event_unmask(keel_port(*port)).status;
}

keel_s64 keel_dev_lend(struct keel_dev_queue *q, void *p, keel_u32 len, bool write, void *cookie)
{
	const struct keel_virtq_seg seg = { keel_gpa_of(p).v, len };

	return keel_virtq_add(&q->vq, &seg, !write, write, cookie);
}

keel_s64 keel_dev_kick(struct keel_dev_queue *q)
{
	keel_virtq_publish(&q->vq);
	return keel_virtq_must_notify(&q->vq) ? keel_event_send(q->doorbell).status : KEEL_OK;
}

/* No port: look until there is something. */
static keel_s64 look(struct keel_dev_queue *q, keel_u64 deadline)
{
	unsigned int n;

	for (n = 1; !keel_virtq_enable(&q->vq); n++) {
		if (deadline != KEEL_TIME_NEVER && keel_time() >= deadline)
			return KEEL_STATUS(KEEL_E_TIMEDOUT, 0);
		if (n % LOOKS == 0 && keel_dev_failed(q->dev))
			return KEEL_STATUS(KEEL_E_STATE, 0);
		keel_vcpu_yield(KEEL_VCPU_ANY);
	}
	return KEEL_OK;
}

keel_s64 keel_dev_wait(struct keel_dev_queue *q, keel_u64 deadline)
{
	keel_s64 status = KEEL_OK;
	bool irq;

	if (q->port == KEEL_DEVICE_NO_PORT)
		return look(q, deadline);
	irq = keel_irq_save();
	while (!status && !keel_virtq_enable(&q->vq)) {
		/* What becomes pending from here on ends the wait at once. */
		status = keel_vcpu_wait(deadline).status;
		keel_irq_enable();
		keel_irq_disable();
		/* Woken for nothing: by another's event, or because the device has failed. */
		if (!status && !keel_virtq_enable(&q->vq) && keel_dev_failed(q->dev))
			status = KEEL_STATUS(KEEL_E_STATE, 0);
	}
	keel_virtq_disable(&q->vq);
	keel_irq_restore(irq);
	return status;
}
