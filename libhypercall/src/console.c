// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/*
 * Console of the small guest runtime: console_write from the first instruction
 * on, the ring once keel_console_init() was called.
 *
 * The ring has one producer, so it is used with IF off. A trap handler that prints
 * while it interrupted a push would be a second one: pushing marks the ring busy and
 * whoever finds it so writes early output instead.
 */
#include <hypercall/guest.h>
#include <hypercall/ring.h>

static struct keel_console_ring ring __attribute__((aligned(4096)));
static struct keel_ring_end out, in;
static bool ring_on, ring_busy;

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
			keel_vcpu_yield(~KEEL_U64(0));
	}
	return done;
}

void keel_write(const char *buf, size_t len)
{
	bool irq = keel_irq_save();
	size_t done = 0;

	if (ring_on && !ring_busy) {
		ring_busy = true;
		__asm__ volatile("" : : : "memory");
		done = write_ring(buf, len);
		__asm__ volatile("" : : : "memory");
		ring_busy = false;
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
	int got = ring_on ? keel_ring_pop(&in, buf, n) : 0;

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
