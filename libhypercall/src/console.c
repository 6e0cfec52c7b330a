// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/*
 * Console of the small guest runtime: console_write from the first instruction
 * on, the ring once keel_console_init() was called.
 *
 * The ring has one producer and one consumer, so it is used with IF off and under
 * a lock. A trap handler that prints while it interrupted its own vCPU's push would
 * be a second one: it finds the lock its own and writes early output instead.
 */
#include <hypercall/guest.h>
#include <hypercall/ring.h>
#include <hypercall/smp.h>

static struct keel_console_ring ring __attribute__((aligned(4096)));
static struct keel_ring_end out, in;
static bool ring_on;
static keel_u32 ring_owner; /* number of the vCPU that uses the ring, plus 1 */

/* False when this vCPU has it already, further down its stack. IF off. */
static bool ring_lock(void)
{
	keel_u32 me = keel_vcpu_id() + 1, owner;

	for (;;) {
		owner = 0;
		if (__atomic_compare_exchange_n(&ring_owner, &owner, me, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			return true;
		if (owner == me)
			return false;
		keel_smp_relax();
	}
}

static void ring_unlock(void)
{
	__atomic_store_n(&ring_owner, 0, __ATOMIC_RELEASE);
}

static void write_early(const char *buf, size_t len)
{
	while (len) {
		keel_u64 w[4] = { 0, 0, 0, 0 };
		keel_u32 n = len < KEEL_CONSOLE_WRITE_MAX ? (keel_u32)len : KEEL_CONSOLE_WRITE_MAX;

		keel_memcpy(w, buf, n);
		if (keel_console_write(n, w[0], w[1], w[2], w[3]).status)
			return; /* nobody to tell */
		buf += n;
		len -= n;
	}
}

/* Returns how much the ring took; the rest has to go another way. */
static size_t write_ring(const char *buf, size_t len)
{
	size_t done = 0;
	int n;

	while (done < len) {
		n = keel_ring_push(&out, buf + done, len - done);
		if (n < 0)
			break;
		done += (size_t)n;
		if (n && keel_ring_must_kick(keel_share(&ring)) && keel_console_kick().status)
			break;
		/* Full: the host is at it; let it run. */
		if (!n)
			keel_vcpu_yield(KEEL_VCPU_ANY);
	}
	return done;
}

void keel_write(const char *buf, size_t len)
{
	bool irq = keel_irq_save();
	size_t done = 0;

	if (ring_on && ring_lock()) {
		done = write_ring(buf, len);
		ring_unlock();
	}
	write_early(buf + done, len - done);
	keel_irq_restore(irq);
}

keel_s64 keel_console_init(void)
{
	keel_s64 status;

	if (ring_on)
		return KEEL_OK;
	keel_memset(&ring, 0, sizeof(ring));
	keel_ring_attach(&out, keel_share(&ring), KEEL_RING_GUEST_OUT);
	keel_ring_attach(&in, keel_share(&ring), KEEL_RING_GUEST_IN);
	status = keel_console_setup(keel_gpa_of(&ring), sizeof(ring)).status;
	ring_on = !status;
	return status;
}

size_t keel_read(char *buf, size_t n)
{
	bool irq = keel_irq_save(), mine;
	int got = 0;

	if (ring_on) {
		mine = ring_lock();
		got = keel_ring_pop(&in, buf, n);
		if (mine)
			ring_unlock();
	}
	keel_irq_restore(irq);
	return got > 0 ? (size_t)got : 0;
}

keel_s64 keel_console_on_input(keel_event_fn fn, void *arg)
{
	struct keel_ret ret = keel_event_bind(KEEL_SOURCE_CONSOLE, 3);

	if (ret.status)
		return ret.status;
	keel_event_handler(KEEL_PORT_BIT((keel_u32)ret.value), fn, arg);
	return keel_event_unmask(keel_port((keel_u32)ret.value)).status;
}

void keel_puts(const char *s)
{
	keel_printf("%s\n", s);
}
