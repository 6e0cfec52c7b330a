// SPDX-License-Identifier: MIT
#include "hvmserial.h"

#include <string.h>

enum { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

#define IER_RECEIVE 0x01
#define IER_TRANSMIT 0x02
#define IIR_NONE 0x01
#define IIR_TRANSMIT 0x02
#define IIR_RECEIVE 0x04
#define IIR_FIFO 0xc0
#define FCR_ENABLE 0x01
#define FCR_CLEAR_RECEIVER 0x02
#define LCR_DLAB 0x80
#define MCR_OUT2 0x08 /* lets the interrupt out, on a PC's board */
#define MCR_LOOP 0x10
#define LSR_READY 0x01
#define LSR_TRANSMITTER_EMPTY 0x60
#define MSR_CONNECTED 0xb0 /* DCD, DSR and CTS: somebody is there and listens */

void serial_init(struct serial *s, const struct serial_ops *ops, void *to)
{
	memset(s, 0, sizeof(*s));
	s->ops = ops;
	s->to = to;
	s->thre = true;
	s->refused = true; /* whatever there was to receive before the guest listens */
	pthread_mutex_init(&s->lock, NULL);
}

void serial_fini(struct serial *s)
{
	pthread_mutex_destroy(&s->lock);
}

/* What IIR says, the most urgent reason first. Lock held. */
static uint8_t reason(const struct serial *s)
{
	if (s->ier & IER_RECEIVE && s->rx_len)
		return IIR_RECEIVE;
	if (s->ier & IER_TRANSMIT && s->thre)
		return IIR_TRANSMIT;
	return IIR_NONE;
}

/* Lock held. */
static void update(struct serial *s)
{
	bool level = reason(s) != IIR_NONE;

	if (level != s->line) {
		s->line = level;
		s->ops->line(s->to, level);
	}
}

static unsigned int room(const struct serial *s)
{
	unsigned int size = s->fifo ? SERIAL_FIFO : 1;

	return s->rx_len < size ? size - s->rx_len : 0;
}

/* Lock held, room for it. */
static void put(struct serial *s, uint8_t byte)
{
	s->rx[(s->rx_at + s->rx_len++) % SERIAL_FIFO] = byte;
}

/*
 * Does a driver listen? Not when one only looks what this is, and what it was sent
 * meanwhile would be lost: that sets IER for a moment, in loop mode or without OUT2.
 */
static bool listens(const struct serial *s)
{
	return s->ier & IER_RECEIVE && (s->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
}

/* Lock held: is it time to ask for what was turned down? */
static bool wants_more(struct serial *s)
{
	if (!s->refused || s->rx_len || !listens(s))
		return false;
	s->refused = false;
	return true;
}

uint8_t serial_read(struct serial *s, unsigned int reg)
{
	bool ask = false;
	uint8_t v = 0;

	pthread_mutex_lock(&s->lock);
	switch (reg) {
	case RBR_THR:
		if (s->lcr & LCR_DLAB) {
			v = s->dll;
		} else if (s->rx_len) {
			v = s->rx[s->rx_at];
			s->rx_at = (s->rx_at + 1) % SERIAL_FIFO;
			s->rx_len--;
			ask = wants_more(s);
		}
		break;
	case IER:
		v = s->lcr & LCR_DLAB ? s->dlm : s->ier;
		break;
	case IIR_FCR:
		v = reason(s);
		if (v == IIR_TRANSMIT)
			s->thre = false; /* being told of it acknowledges it */
		v |= s->fifo ? IIR_FIFO : 0;
		break;
	case LCR:
		v = s->lcr;
		break;
	case MCR:
		v = s->mcr;
		break;
	case LSR:
		v = LSR_TRANSMITTER_EMPTY | (s->rx_len ? LSR_READY : 0);
		break;
	case MSR:
		/* In loop mode the outputs DTR, RTS, OUT1, OUT2 are the inputs DSR, CTS, RI, DCD. */
		v = !(s->mcr & MCR_LOOP) ? MSR_CONNECTED
					 : (s->mcr & 0x0c) << 4 | (s->mcr & 0x02) << 3 | (s->mcr & 0x01) << 5;
		break;
	case SCR:
		v = s->scr;
		break;
	}
	update(s);
	pthread_mutex_unlock(&s->lock);
	if (ask)
		s->ops->room(s->to);
	return v;
}

void serial_write(struct serial *s, unsigned int reg, uint8_t v)
{
	bool send = false, ask = false;

	pthread_mutex_lock(&s->lock);
	switch (reg) {
	case RBR_THR:
		if (s->lcr & LCR_DLAB) {
			s->dll = v;
			break;
		}
		if (!(s->mcr & MCR_LOOP))
			send = true;
		else if (room(s))
			put(s, v);
		s->thre = true; /* empty again */
		break;
	case IER:
		if (s->lcr & LCR_DLAB) {
			s->dlm = v;
			break;
		}
		if (v & IER_TRANSMIT && !(s->ier & IER_TRANSMIT))
			s->thre = true;
		s->ier = v & 0x0f;
		ask = wants_more(s);
		break;
	case IIR_FCR:
		/* Changing the mode does not empty the FIFO, as it would a real one's: Linux listens before it does. */
		if (v & FCR_CLEAR_RECEIVER)
			s->rx_len = 0;
		s->fifo = v & FCR_ENABLE;
		ask = wants_more(s);
		break;
	case LCR:
		s->lcr = v;
		break;
	case MCR:
		s->mcr = v & 0x1f;
		ask = wants_more(s);
		break;
	case SCR:
		s->scr = v;
		break;
	}
	update(s);
	pthread_mutex_unlock(&s->lock);
	if (send)
		s->ops->transmit(s->to, v);
	if (ask)
		s->ops->room(s->to);
}

size_t serial_receive(struct serial *s, const uint8_t *bytes, size_t n)
{
	size_t taken = 0;

	pthread_mutex_lock(&s->lock);
	if (listens(s))
		while (taken < n && room(s))
			put(s, bytes[taken++]);
	s->refused |= taken < n;
	update(s);
	pthread_mutex_unlock(&s->lock);
	return taken;
}
