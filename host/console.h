/* SPDX-License-Identifier: MIT */
/*
 * The partition's console on this process's stdin and stdout. It outlives
 * restarts: one console, one partition after the other bound to it.
 *
 * All output passes through one bounded buffer, in the order it was made. When
 * stdout is slow the buffer fills, the ring is left alone and the guest sees it
 * full; early writes wait. Neither can make the host's memory grow.
 */
#ifndef KEEL_HOST_CONSOLE_H
#define KEEL_HOST_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <keel/console.h>

#include "log.h"

struct console;
struct partition;

enum console_key {
	CONSOLE_NONE,
	CONSOLE_QUIT, /* Ctrl-A x */
	CONSOLE_DUMP, /* Ctrl-A d */
};

/* Main thread. Makes a terminal raw until console_close(), or whatever else ends the process. */
struct console *console_open(int in_fd, int out_fd, struct error *e);
void console_close(struct console *c);

/* Main thread: whose console this is; NULL between partitions, which takes back a ring. */
void console_bind(struct console *c, struct partition *p);

/* Main thread. Readable when console_service() has something to do. */
int console_fd(const struct console *c);

/* Main thread: move what can be moved without blocking. Also after a doorbell. */
enum console_key console_service(struct console *c);

/* Main thread: milliseconds until console_service() is wanted anyway, -1 = never. */
int console_timeout(struct console *c);

/* Main thread: the terminal's size changed; the process was continued, or is about to be stopped. */
void console_resize(struct console *c);
void console_resume(struct console *c);
void console_suspend(struct console *c);

/* Main thread: the partition is being stopped; early writes no longer wait. */
void console_release(struct console *c);

/**
 * console_flush - deliver what the guest put out before it ended
 * @abort_fd: give up when this is readable; -1 = nothing
 * @timeout_ms: give up after so long, -1 = never
 *
 * Main thread, nothing of the partition runs any more. False when it gave up.
 */
bool console_flush(struct console *c, int abort_fd, int timeout_ms);

/* The terminal as it was before us, also from a signal handler: this process is about to die. */
void console_rescue(void);

/* Any thread: early output of n <= KEEL_CONSOLE_WRITE_MAX bytes. May wait for room. */
void console_write(struct console *c, const uint64_t *words, size_t n);

/**
 * console_receiver - who takes input while no ring is registered, as a serial port
 * @push: takes up to n bytes without waiting, returns how many; called with the
 *	  console locked, so it calls nothing of this file. NULL = nobody
 *
 * Any thread. What it does not take stays here until console_poke().
 */
void console_receiver(struct console *c, size_t (*push)(void *to, const uint8_t *bytes, size_t n), void *to);

/* Any thread, takes no lock: the receiver has room again. */
void console_poke(struct console *c);

/* Any thread: when it returns, no push and no partition_raise() that the console had begun is under way. */
void console_settle(struct console *c);

/* Any thread. False when a ring is registered already. */
bool console_attach(struct console *c, struct keel_console_ring __pvshared *ring);
void console_detach(struct console *c);

#endif
