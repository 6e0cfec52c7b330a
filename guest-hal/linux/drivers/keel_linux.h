/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the drivers here use, and what is under them: the arch/um port, which they
 * are linked into, or keel.ko, which finds the ABI from a kernel of x86's own.
 */
#ifndef KEEL_LINUX_H
#define KEEL_LINUX_H

#include <linux/types.h>
#include <hypercall/call.h>

/* Of memory that kmalloc() or the page allocator gave. */
keel_gpa_t keel_gpa_of(const void *p);

/* base_keel.c */
int keel_errno(struct keel_ret ret);
/* Was an extension (KEEL_EXT_*) offered and accepted? */
bool keel_accepted(unsigned int ext);

/*
 * irq_keel.c: an event port as an interrupt, for request_irq(). The number, or an
 * error; the port is one of its own, or one bound to a source (KEEL_SOURCE_*).
 */
int keel_irq_alloc(unsigned int priority);
int keel_irq_bind(unsigned int source, unsigned int priority);
void keel_irq_free(int irq);
keel_port_t keel_irq_port(int irq);

/* Whoever takes events gives the port of this bit an interrupt number, from now on its own, or takes it back. */
int keel_irq_map(u32 bit);
void keel_irq_unmap(int irq, u32 bit);

/* hvc_keel.c: hvc0. In the port nobody needs to call it. */
int keel_hvc_init(void);
/* Nobody has it open: who has holds the module. */
void keel_hvc_exit(void);

/*
 * time_keel.c: a clocksource and a clockevent device, in keel.ko alone. They can be
 * taken away when neither is in use: that holds the module.
 */
int keel_time_init(void);
void keel_time_exit(void);

/* hvm_gate.S: a page of keel.ko's code */
extern char keel_gate_page[];

/* base_keel.c: output before there is a console. */
void keel_write_early(const void *s, size_t n);
#endif
