// SPDX-License-Identifier: GPL-2.0-only
/* The console ring as hvc0. */
#include <linux/console.h>
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/interrupt.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/tty.h>
#include <linux/version.h>

#include <hypercall/ring.h>

#include "hvc_console.h"
#include "keel_linux.h"

#define CONSOLE_PRIORITY 3
#define OUTBUF_SIZE 256

/* What struct hv_ops moves. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define BYTE char
#define COUNT int
#define RESULT int
#else
#define BYTE u8
#define COUNT size_t
#define RESULT ssize_t
#endif

static struct keel_console_ring *ring; /* NULL: not yet */
static struct keel_ring_end out, in;
static struct hvc_struct *hvc;
static int line;

static RESULT put_chars(u32 vtermno, const BYTE *buf, COUNT count)
{
	int n;

	if (!ring) {
		keel_write_early(buf, count);
		return count;
	}
	n = keel_ring_push(&out, buf, count);
	if (n < 0)
		return -EIO;
	if (n && keel_ring_must_kick(keel_share(ring)))
		keel_console_kick();
	if (n)
		return n;
	/* Full: the host is at it. */
	keel_vcpu_yield(KEEL_VCPU_ANY);
	return -EAGAIN;
}

static RESULT get_chars(u32 vtermno, BYTE *buf, COUNT count)
{
	int n = ring ? keel_ring_pop(&in, buf, count) : 0;

	return n < 0 ? -EIO : n;
}

static void resize(void)
{
	struct winsize ws = {
		.ws_row = READ_ONCE(ring->rows),
		.ws_col = READ_ONCE(ring->cols),
	};

	if (hvc && ws.ws_row && ws.ws_col)
		hvc_resize(hvc, ws);
}

/* Input has come, or room for output. */
static irqreturn_t interrupt(int irq, void *hp)
{
	resize();
	if (hvc_poll(hp))
		hvc_kick();
	return IRQ_HANDLED;
}

/* At the first open, and after the last close or a hangup: until then the module stays. */
static int notifier_add(struct hvc_struct *hp, int irq)
{
	int err;

	if (!try_module_get(THIS_MODULE))
		return -ENODEV;
	err = request_irq(irq, interrupt, 0, "hvc_keel", hp);
	if (err)
		module_put(THIS_MODULE);
	return err;
}

static void notifier_del(struct hvc_struct *hp, int irq)
{
	free_irq(irq, hp);
	module_put(THIS_MODULE);
}

static const struct hv_ops ops = {
	.get_chars = get_chars,
	.put_chars = put_chars,
	.notifier_add = notifier_add,
	.notifier_del = notifier_del,
	.notifier_hangup = notifier_del,
};

/* Built in, it is the kernel's console before there are interrupts, or memory to allocate. */
#ifndef MODULE
static int __init instantiate(void)
{
	return hvc_instantiate(0, 0, &ops);
}
console_initcall(instantiate);
#endif

/* The ring is the host's from here on, until it is taken back. */
static int start_ring(void)
{
	struct keel_console_ring *page = (struct keel_console_ring *)get_zeroed_page(GFP_KERNEL);
	int err;

	BUILD_BUG_ON(sizeof(*page) > PAGE_SIZE);
	if (!page)
		return -ENOMEM;
	keel_ring_attach(&out, keel_share(page), KEEL_RING_GUEST_OUT);
	keel_ring_attach(&in, keel_share(page), KEEL_RING_GUEST_IN);
	err = keel_errno(keel_console_setup(keel_gpa_of(page), sizeof(*page)));
	if (err) {
		free_page((unsigned long)page);
		return err;
	}
	ring = page;
	return 0;
}

static void stop_ring(void)
{
	struct keel_console_ring *page = ring;

	ring = NULL;
	/* Rather lose a page than have the host write to another's. */
	if (!WARN_ON(keel_console_setup(keel_gpa(0), 0).status))
		free_page((unsigned long)page);
}

static int start_hvc(void)
{
	struct hvc_struct *hp;
	int irq = keel_irq_bind(KEEL_SOURCE_CONSOLE, CONSOLE_PRIORITY);

	if (irq < 0)
		return irq;
	hp = hvc_alloc(0, irq, &ops, OUTBUF_SIZE);
	if (IS_ERR(hp)) {
		keel_irq_free(irq);
		return PTR_ERR(hp);
	}
	hvc = hp;
	line = irq;
	resize();
	return 0;
}

int keel_hvc_init(void)
{
	int err;

	if (!keel_accepted(KEEL_EXT_CONSOLE))
		return -ENODEV;
	err = start_ring();
	if (err)
		return err;
	err = start_hvc();
	if (err)
		stop_ring();
	return err;
}

#ifdef MODULE
void keel_hvc_exit(void)
{
	hvc_remove(hvc);
	hvc = NULL;
	keel_irq_free(line);
	stop_ring();
}
#else
device_initcall(keel_hvc_init);
#endif
