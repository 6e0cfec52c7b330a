// SPDX-License-Identifier: GPL-2.0-only
/*
 * Event ports as interrupts. They are edges: a port that was sent to while its
 * interrupt was handled is handled again, and one that is masked holds what is sent.
 *
 * Masking is done by calls. The guest could do it by itself, but on hardware of its
 * own nobody would raise the upcall for what it makes pending; and Linux masks an
 * interrupt only when one comes that is disabled.
 */
#include <linux/export.h>
#include <linux/irq.h>

#include "keel_linux.h"

static keel_port_t port_of(struct irq_data *d)
{
	return keel_port((unsigned long)irq_data_get_irq_chip_data(d));
}

static void mask(struct irq_data *d)
{
	keel_event_mask(port_of(d));
}

static void unmask(struct irq_data *d)
{
	keel_event_unmask(port_of(d));
}

/* Whoever took the event has cleared it. */
static void ack(struct irq_data *d)
{
}

/* One that came while the interrupt was disabled. */
static int retrigger(struct irq_data *d)
{
	return !keel_event_send(port_of(d)).status;
}

static struct irq_chip chip = {
	.name = "keel",
	.irq_ack = ack,
	.irq_mask = mask,
	.irq_unmask = unmask,
	.irq_retrigger = retrigger,
};

static int map(struct keel_ret ret)
{
	u32 port = ret.value;
	int irq;

	if (ret.status)
		return keel_errno(ret);
	irq = keel_irq_map(KEEL_PORT_BIT(port));
	if (irq < 0) {
		keel_event_close(keel_port(port));
		return irq;
	}
	irq_set_chip_and_handler(irq, &chip, handle_edge_irq);
	irq_set_chip_data(irq, (void *)(unsigned long)port);
	return irq;
}

int keel_irq_alloc(unsigned int priority)
{
	return map(keel_event_alloc(priority));
}
EXPORT_SYMBOL_GPL(keel_irq_alloc);

int keel_irq_bind(unsigned int source, unsigned int priority)
{
	return map(keel_event_bind(source, priority));
}
EXPORT_SYMBOL_GPL(keel_irq_bind);

void keel_irq_free(int irq)
{
	keel_port_t port = keel_irq_port(irq);

	keel_event_close(port);
	keel_irq_unmap(irq, KEEL_PORT_BIT(port.v));
}
EXPORT_SYMBOL_GPL(keel_irq_free);

keel_port_t keel_irq_port(int irq)
{
	return port_of(irq_get_irq_data(irq));
}
EXPORT_SYMBOL_GPL(keel_irq_port);
