/* SPDX-License-Identifier: MIT */
/*
 * Messages of the host. Functions return errors to their caller in a struct
 * error; the verb prints them, once. Everything goes to stderr as one line
 * "keel: ..." in one write, so that lines of several threads stay whole.
 */
#ifndef KEEL_HOST_LOG_H
#define KEEL_HOST_LOG_H

struct error {
	char text[400];
};

/* Formats the reason into *e and returns -1, so that a check reads `return error_set(e, ...)`. */
int error_set(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* One line on stderr. Any thread. */
void host_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The same, only under --verbose. */
void host_verbose(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
extern int host_verbose_on;

#endif
