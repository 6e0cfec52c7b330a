/* SPDX-License-Identifier: MIT */
/*
 * A 16550A, for kernels that know no console of ours yet. Its line is as fast as
 * the console behind it: what is transmitted is gone at once, and input waits
 * until a driver listens - has enabled the receiver's interrupt and let interrupts
 * out with OUT2 - and there is room.
 *
 * Registers are accessed on the vCPU's thread, input arrives on another.
 */
#ifndef KEEL_HOST_HVMSERIAL_H
#define KEEL_HOST_HVMSERIAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERIAL_REGISTERS 8
#define SERIAL_FIFO 16

struct serial;

struct serial_ops {
	/* The interrupt line changed. Either thread, the serial port locked: must not wait or call back. */
	void (*line)(void *to, bool level);
	/* A byte was transmitted. The vCPU's thread; may wait. */
	void (*transmit)(void *to, uint8_t byte);
	/* There may be input that was not taken, and room for it now. The vCPU's thread. */
	void (*room)(void *to);
};

struct serial {
	const struct serial_ops *ops;
	void *to;
	pthread_mutex_t lock;
	uint8_t ier, lcr, mcr, scr, dll, dlm;
	bool fifo;    /* FCR bit 0 */
	bool thre;    /* "transmitter empty" is to be reported: it became so since IIR last said it */
	bool line;    /* as last told */
	bool refused; /* input was turned down */
	uint8_t rx[SERIAL_FIFO];
	unsigned int rx_at, rx_len;
};

void serial_init(struct serial *s, const struct serial_ops *ops, void *to);
void serial_fini(struct serial *s);

/* Registers 0..7, as the guest accesses them. */
uint8_t serial_read(struct serial *s, unsigned int reg);
void serial_write(struct serial *s, unsigned int reg, uint8_t value);

/* Any thread: input. Returns how many of the n bytes it took; for the others it calls ops->room. */
size_t serial_receive(struct serial *s, const uint8_t *bytes, size_t n);

#endif
