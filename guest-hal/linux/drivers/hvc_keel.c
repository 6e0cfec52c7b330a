// SPDX-License-Identifier: GPL-2.0-only
/* The console ring as hvc0. */
#include <linux/console.h>
#include <linux/init.h>
#include <linux/interrupt.h>
#include <linux/kernel.h>
#include <linux/string.h>
#include <linux/tty.h>
#include <asm/irq_vectors.h>

#include <hypercall/ring.h>

#include "hvc_console.h"
#include "keel_um.h"

#define CONSOLE_PRIORITY 3
#define CONSOLE_IRQ MCONSOLE_IRQ /* of the management console, which is not there */
#define OUTBUF_SIZE 256

static struct keel_console_ring ring __aligned(PAGE_SIZE);
static struct keel_ring_end out, in;
static bool ring_on;
static struct hvc_struct *hvc;

static int put_chars(u32 vtermno, const char *buf, int count)
{
	int n;

	if (!ring_on) {
		keel_write_early(buf, count);
		return count;
	}
	n = keel_ring_push(&out, buf, count);
	if (n < 0)
		return -EIO;
	if (n && keel_ring_must_kick(keel_share(&ring)))
		keel_console_kick();
	if (n)
		return n;
	/* Full: the host is at it. */
	keel_vcpu_yield(KEEL_VCPU_ANY);
	return -EAGAIN;
}

static int get_chars(u32 vtermno, char *buf, int count)
{
	int n = ring_on ? keel_ring_pop(&in, buf, count) : 0;

	return n < 0 ? -EIO : n;
}

static void resize(void)
{
	struct winsize ws = {
		.ws_row = READ_ONCE(ring.rows),
		.ws_col = READ_ONCE(ring.cols),
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

static int notifier_add(struct hvc_struct *hp, int irq)
{
	return request_irq(irq, interrupt, 0, "hvc_keel", hp);
}

static void notifier_del(struct hvc_struct *hp, int irq)
{
	free_irq(irq, hp);
}

static const struct hv_ops ops = {
	.get_chars = get_chars,
	.put_chars = put_chars,
	.notifier_add = notifier_add,
	.notifier_del = notifier_del,
	.notifier_hangup = notifier_del,
};

static int __init instantiate(void)
{
	return hvc_instantiate(0, 0, &ops);
}
console_initcall(instantiate);

static int __init keel_hvc_init(void)
{
	struct hvc_struct *hp;
	int err;

	keel_ring_attach(&out, keel_share(&ring), KEEL_RING_GUEST_OUT);
	keel_ring_attach(&in, keel_share(&ring), KEEL_RING_GUEST_IN);
	keel_must(keel_console_setup(keel_gpa_of(&ring), sizeof(ring)), "console_setup");
	ring_on = true;
	err = keel_irq_bind(KEEL_SOURCE_CONSOLE, CONSOLE_PRIORITY, CONSOLE_IRQ);
	if (err)
		return err;
	hp = hvc_alloc(0, CONSOLE_IRQ, &ops, OUTBUF_SIZE);
	if (IS_ERR(hp))
		return PTR_ERR(hp);
	hvc = hp;
	resize();
	return 0;
}
device_initcall(keel_hvc_init);
