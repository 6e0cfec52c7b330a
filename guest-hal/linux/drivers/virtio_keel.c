// SPDX-License-Identifier: GPL-2.0-only
/*
 * The extension DEVICE as a transport of virtio devices, for Linux's own drivers of
 * them. Rings and buffers are used where they are, by guest-physical address; each
 * virtqueue has an event port of its own, and one more is for changes of the
 * configuration.
 */
#include <linux/delay.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/interrupt.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "keel_linux.h"

#define QUEUE_PRIORITY 2
#define CONFIG_PRIORITY 3
#define VENDOR 0x6c65654b /* "Keel" */
#define DEVICES_MAX 256
#define NAME_SIZE 32

/* What calls read and write is in memory whose GPA is known; a stack may be anywhere. */
union buffer {
	struct keel_device_info info;
	struct keel_device_queue queue;
	u8 config[KEEL_DEVICE_CONFIG_MAX];
};

struct keel_device {
	struct virtio_device vdev;
	u64 handle;
	u64 features;
	u32 queues;
	u32 queue_max;
	u32 config_size;
	int config_irq; /* 0: none */
	char config_name[NAME_SIZE];
	struct mutex lock; /* of buf */
	union buffer *buf;
};

struct keel_queue {
	keel_port_t doorbell;
	int irq; /* 0: the driver does not want to hear */
	char name[NAME_SIZE];
};

static struct device *parent;

static struct keel_device *to_keel(struct virtio_device *vdev)
{
	return container_of(vdev, struct keel_device, vdev);
}

/* Config space */

/* Move it in or out in parts, through buf. */
static int move_config(struct keel_device *kd, unsigned int offset, u8 *in, const u8 *out, unsigned int len)
{
	struct keel_ret ret = { 0, 0 };
	keel_gpa_t gpa = keel_gpa_of(kd->buf);
	unsigned int part;

	mutex_lock(&kd->lock);
	for (; len && !ret.status; offset += part, len -= part) {
		part = min_t(unsigned int, len, KEEL_DEVICE_CONFIG_MAX);
		if (out) {
			memcpy(kd->buf->config, out, part);
			out += part;
			ret = keel_device_config_write(kd->handle, offset, gpa, part);
			continue;
		}
		ret = keel_device_config_read(kd->handle, offset, gpa, part);
		if (!ret.status)
			memcpy(in, kd->buf->config, part);
		in += part;
	}
	mutex_unlock(&kd->lock);
	return keel_errno(ret);
}

/* There is nobody to tell of a field that is not there: it is zero. */
static void get(struct virtio_device *vdev, unsigned int offset, void *buf, unsigned int len)
{
	memset(buf, 0, len);
	if (move_config(to_keel(vdev), offset, buf, NULL, len))
		dev_err(&vdev->dev, "config space: %u bytes at %u cannot be read\n", len, offset);
}

static void set(struct virtio_device *vdev, unsigned int offset, const void *buf, unsigned int len)
{
	if (move_config(to_keel(vdev), offset, NULL, buf, len))
		dev_err(&vdev->dev, "config space: %u bytes at %u cannot be written\n", len, offset);
}

static u32 generation(struct virtio_device *vdev)
{
	struct keel_device *kd = to_keel(vdev);
	struct keel_ret ret;

	if (!kd->config_size)
		return 0;
	mutex_lock(&kd->lock);
	ret = keel_device_config_read(kd->handle, 0, keel_gpa_of(kd->buf), 1);
	mutex_unlock(&kd->lock);
	return ret.value;
}

/* Status and features */

static u8 get_status(struct virtio_device *vdev)
{
	struct keel_ret ret = keel_device_status(to_keel(vdev)->handle, KEEL_DEVICE_STATUS_READ);

	return ret.status ? KEEL_DEVICE_NEEDS_RESET : ret.value;
}

static void set_status(struct virtio_device *vdev, u8 status)
{
	int err = keel_errno(keel_device_status(to_keel(vdev)->handle, status));

	if (err)
		dev_err(&vdev->dev, "status %#x is refused: %d\n", status, err);
}

static void synchronize_cbs(struct virtio_device *vdev)
{
	struct keel_device *kd = to_keel(vdev);
	struct virtqueue *vq;

	list_for_each_entry(vq, &vdev->vqs, list) {
		struct keel_queue *kq = vq->priv;

		if (kq->irq)
			synchronize_irq(kq->irq);
	}
	if (kd->config_irq)
		synchronize_irq(kd->config_irq);
}

/* Done when the device has let go of its queues. */
static void reset_device(struct virtio_device *vdev)
{
	struct keel_device *kd = to_keel(vdev);
	struct keel_ret ret = keel_device_status(kd->handle, 0);

	while (!ret.status && ret.value) {
		usleep_range(500, 1000);
		ret = keel_device_status(kd->handle, 0);
	}
	if (ret.status)
		dev_err(&vdev->dev, "reset is refused: %d\n", keel_errno(ret));
	synchronize_cbs(vdev);
}

static u64 get_features(struct virtio_device *vdev)
{
	return to_keel(vdev)->features;
}

static int finalize_features(struct virtio_device *vdev)
{
	struct keel_device *kd = to_keel(vdev);

	vring_transport_features(vdev);
	/* The transport's queues are split ones, and addresses mean what they say. */
	__virtio_clear_bit(vdev, VIRTIO_F_RING_PACKED);
	__virtio_clear_bit(vdev, VIRTIO_F_ACCESS_PLATFORM);
	if (!__virtio_test_bit(vdev, VIRTIO_F_VERSION_1)) {
		dev_err(&vdev->dev, "not a device of virtio 1\n");
		return -EINVAL;
	}
	return keel_errno(keel_device_accept(kd->handle, 0, vdev->features));
}

/* Queues */

static bool notify(struct virtqueue *vq)
{
	struct keel_queue *kq = vq->priv;

	return !keel_event_send(kq->doorbell).status;
}

static irqreturn_t config_interrupt(int irq, void *vdev)
{
	virtio_config_changed(vdev);
	return IRQ_HANDLED;
}

/* An interrupt with a new port. */
static int get_irq(unsigned int priority, irq_handler_t handler, const char *name, void *arg)
{
	int irq = keel_irq_alloc(priority), err;

	if (irq < 0)
		return irq;
	err = request_irq(irq, handler, 0, name, arg);
	if (!err)
		return irq;
	keel_irq_free(irq);
	return err;
}

static void put_irq(int irq, void *arg)
{
	if (!irq)
		return;
	free_irq(irq, arg);
	keel_irq_free(irq);
}

static struct keel_ret setup(struct keel_device *kd, u32 index, const struct keel_device_queue *queue)
{
	struct keel_ret ret;

	mutex_lock(&kd->lock);
	kd->buf->queue = *queue;
	ret = keel_device_queue(kd->handle, index, keel_gpa_of(kd->buf));
	mutex_unlock(&kd->lock);
	if (ret.status)
		dev_err(&kd->vdev.dev, "queue %d with port %#x is refused: %#llx\n", (int)index, queue->port,
			-ret.status);
	return ret;
}

static u32 port_or_none(int irq)
{
	return irq ? keel_irq_port(irq).v : KEEL_DEVICE_NO_PORT;
}

static void del_vq(struct virtqueue *vq)
{
	struct keel_queue *kq = vq->priv;

	put_irq(kq->irq, vq);
	vring_del_virtqueue(vq);
	kfree(kq);
}

static void del_vqs(struct virtio_device *vdev)
{
	struct keel_device *kd = to_keel(vdev);
	struct virtqueue *vq, *next;

	list_for_each_entry_safe(vq, next, &vdev->vqs, list)
		del_vq(vq);
	put_irq(kd->config_irq, vdev);
	kd->config_irq = 0;
}

static int start_vq(struct keel_device *kd, struct virtqueue *vq, bool wants_interrupts)
{
	struct keel_queue *kq = vq->priv;
	struct keel_device_queue queue = {
		.size = sizeof(queue),
		.entries = virtqueue_get_vring_size(vq),
		.desc = virtqueue_get_desc_addr(vq),
		.driver = virtqueue_get_avail_addr(vq),
		.device = virtqueue_get_used_addr(vq),
	};
	struct keel_ret ret;
	int irq;

	if (wants_interrupts) {
		snprintf(kq->name, sizeof(kq->name), "%s-%s", dev_name(&kd->vdev.dev), vq->name);
		irq = get_irq(QUEUE_PRIORITY, vring_interrupt, kq->name, vq);
		if (irq < 0)
			return irq;
		kq->irq = irq;
	}
	queue.port = port_or_none(kq->irq);
	ret = setup(kd, vq->index, &queue);
	kq->doorbell = keel_port(ret.value);
	return keel_errno(ret);
}

static struct virtqueue *add_vq(struct keel_device *kd, unsigned int index, vq_callback_t *callback, const char *name,
				bool ctx)
{
	struct keel_queue *kq;
	struct virtqueue *vq;
	int err;

	if (index >= kd->queues)
		return ERR_PTR(-ENOENT);
	kq = kzalloc(sizeof(*kq), GFP_KERNEL);
	if (!kq)
		return ERR_PTR(-ENOMEM);
	vq = vring_create_virtqueue(index, kd->queue_max, PAGE_SIZE, &kd->vdev, true, true, ctx, notify, callback,
				    name);
	if (!vq) {
		kfree(kq);
		return ERR_PTR(-ENOMEM);
	}
	vq->num_max = kd->queue_max;
	vq->priv = kq;
	err = start_vq(kd, vq, callback);
	if (err) {
		del_vq(vq);
		return ERR_PTR(err);
	}
	return vq;
}

static int watch_config(struct keel_device *kd)
{
	struct keel_device_queue queue = { .size = sizeof(queue) };
	int irq;

	snprintf(kd->config_name, sizeof(kd->config_name), "%s-config", dev_name(&kd->vdev.dev));
	irq = get_irq(CONFIG_PRIORITY, config_interrupt, kd->config_name, &kd->vdev);
	if (irq < 0)
		return irq;
	kd->config_irq = irq;
	queue.port = port_or_none(irq);
	return keel_errno(setup(kd, KEEL_DEVICE_QUEUE_CONFIG, &queue));
}

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
struct virtqueue_info {
	const char *name;
	vq_callback_t *callback;
	bool ctx;
};
#endif

static int find_vqs(struct virtio_device *vdev, unsigned int n, struct virtqueue *vqs[], struct virtqueue_info info[],
		    struct irq_affinity *desc)
{
	struct keel_device *kd = to_keel(vdev);
	unsigned int i, index = 0;
	int err = watch_config(kd);

	for (i = 0; i < n && !err; i++) {
		vqs[i] = NULL;
		if (!info[i].name)
			continue;
		vqs[i] = add_vq(kd, index++, info[i].callback, info[i].name, info[i].ctx);
		err = PTR_ERR_OR_ZERO(vqs[i]);
	}
	if (err) {
		/* The device may have heard of some of the queues. */
		reset_device(vdev);
		del_vqs(vdev);
	}
	return err;
}

/* Earlier kernels tell the same in three arrays. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
static int find_vqs_by_arrays(struct virtio_device *vdev, unsigned int n, struct virtqueue *vqs[],
			      vq_callback_t *callbacks[], const char *const names[], const bool *ctx,
			      struct irq_affinity *desc)
{
	struct virtqueue_info *info = kcalloc(n, sizeof(*info), GFP_KERNEL);
	unsigned int i;
	int err;

	if (!info)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		info[i].name = names[i];
		info[i].callback = callbacks[i];
		info[i].ctx = ctx && ctx[i];
	}
	err = find_vqs(vdev, n, vqs, info, desc);
	kfree(info);
	return err;
}
#define FIND_VQS find_vqs_by_arrays
#else
#define FIND_VQS find_vqs
#endif

static const char *bus_name(struct virtio_device *vdev)
{
	return dev_name(parent);
}

static const struct virtio_config_ops ops = {
	.get = get,
	.set = set,
	.generation = generation,
	.get_status = get_status,
	.set_status = set_status,
	.reset = reset_device,
	.find_vqs = FIND_VQS,
	.del_vqs = del_vqs,
	.synchronize_cbs = synchronize_cbs,
	.get_features = get_features,
	.finalize_features = finalize_features,
	.bus_name = bus_name,
};

/* Devices */

static void release(struct device *dev)
{
	struct keel_device *kd = to_keel(dev_to_virtio(dev));

	kfree(kd->buf);
	kfree(kd);
}

static int add(u32 index)
{
	struct keel_device *kd = kzalloc(sizeof(*kd), GFP_KERNEL);
	struct keel_device_info *info;
	int err = -ENOMEM;

	if (!kd)
		return err;
	kd->buf = kzalloc(sizeof(*kd->buf), GFP_KERNEL);
	if (!kd->buf)
		goto out;
	info = &kd->buf->info;
	info->size = sizeof(*info);
	err = keel_errno(keel_device_enum(index, keel_gpa_of(info)));
	if (err)
		goto out;
	mutex_init(&kd->lock);
	kd->handle = info->device;
	kd->features = info->features[0];
	kd->queues = info->queues;
	kd->queue_max = info->queue_max;
	kd->config_size = info->config_size;
	kd->vdev.id.device = info->type;
	kd->vdev.id.vendor = VENDOR;
	kd->vdev.config = &ops;
	kd->vdev.dev.parent = parent;
	kd->vdev.dev.release = release;
	err = register_virtio_device(&kd->vdev);
	if (err) {
		put_device(&kd->vdev.dev);
		pr_err("virtio_keel: device %u: %d\n", index, err);
	}
	/* One that Linux does not take is no reason to end the list. */
	return 0;
out:
	kfree(kd->buf);
	kfree(kd);
	return err;
}

static int __init keel_virtio_init(void)
{
	int err = 0;
	u32 i;

	if (!keel_accepted(KEEL_EXT_DEVICE))
		return -ENODEV;
	parent = root_device_register("keel");
	if (IS_ERR(parent))
		return PTR_ERR(parent);
	for (i = 0; i < DEVICES_MAX && !err; i++)
		err = add(i);
	if (err && err != -ENOENT)
		pr_err("virtio_keel: device %u cannot be described: %d\n", i - 1, err);
	return 0;
}
module_init(keel_virtio_init);

static int remove(struct device *dev, void *unused)
{
	unregister_virtio_device(dev_to_virtio(dev));
	return 0;
}

static void __exit keel_virtio_exit(void)
{
	device_for_each_child(parent, NULL, remove);
	root_device_unregister(parent);
}
module_exit(keel_virtio_exit);

MODULE_DESCRIPTION("Keel's transport for virtio devices");
MODULE_LICENSE("GPL");
