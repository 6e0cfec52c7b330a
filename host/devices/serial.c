// SPDX-License-Identifier: MIT
/*
 * Consoles (virtio 5.3) with one port: output to a file, or both ways on a
 * pseudo-terminal whose name is said once, "keel: console N is /dev/pts/X".
 *
 * Nothing is kept here: output that cannot be written stays in its buffer until it
 * can, and input is read when there is a buffer for it. While nobody has the
 * terminal open, output is dropped, as on a line with nothing at its other end; a
 * guest shall not stand still until somebody looks.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <termios.h>
#include <unistd.h>

#include "device.h"

enum { RX, TX };

#define PART 4096	    /* bytes moved at a time */
#define ROUND (256 * 1024u) /* bytes, or chains of any size, before others have their turn */
#define CHAIN_COST 1024	    /* bytes that a chain counts as, beside its own */

struct config {
	uint16_t cols, rows;
	uint32_t max_nr_ports, emerg_wr;
};

struct serial_port {
	int fd;
	int watch; /* inotify: somebody opened the terminal; -1 = it is a file */
	bool live, attached, failed_once;
	bool armed; /* the driver shall say when there are chains to receive */

	bool have_rx, have_tx;
	struct vq_chain rx, tx;
	size_t tx_done, tx_len; /* bytes of tx */
	bool blocked;		/* the rest of it waits for room */
};

static struct serial_port *port_of(struct device *d)
{
	return d->state;
}

static bool is_terminal(const struct serial_port *s)
{
	return s->watch >= 0;
}

/* Opening */

static int open_file(struct serial_port *s, const char *name, struct error *e)
{
	s->fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
	return s->fd < 0 ? error_set(e, "--console file=%s: %s", name, strerror(errno)) : 0;
}

/* What is written to it comes out as it is; whoever opens it may change that. */
static int make_raw(const char *name)
{
	struct termios t;
	int fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC), err;

	if (fd < 0)
		return -1;
	err = tcgetattr(fd, &t);
	cfmakeraw(&t);
	err = err || tcsetattr(fd, TCSANOW, &t);
	close(fd);
	return err ? -1 : 0;
}

static int open_pty(struct device *d, struct error *e)
{
	struct serial_port *s = port_of(d);
	char name[64];

	s->fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (s->fd < 0 || grantpt(s->fd) || unlockpt(s->fd) || ptsname_r(s->fd, name, sizeof(name)) || make_raw(name) ||
	    fcntl(s->fd, F_SETFL, O_RDWR | O_NONBLOCK))
		return error_set(e, "--console pty: %s", strerror(errno));
	s->watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (s->watch < 0 || inotify_add_watch(s->watch, name, IN_OPEN) < 0)
		return error_set(e, "--console pty: watching %s: %s", name, strerror(errno));
	host_say("console %u is %s", d->index, name);
	return 0;
}

static int serial_open(struct device *d, const char *spec, struct error *e)
{
	struct serial_port *s = port_of(d);
	const struct config c = { .max_nr_ports = 1 };

	s->fd = s->watch = -1;
	memcpy(d->config, &c, sizeof(c));
	d->config_size = sizeof(c);
	if (!strcmp(spec, "pty"))
		return open_pty(d, e);
	if (!strncmp(spec, "file=", 5) && spec[5])
		return open_file(s, spec + 5, e);
	return error_set(e, "--console %s: neither pty nor file=FILE", spec);
}

static void serial_close(struct device *d)
{
	struct serial_port *s = port_of(d);

	if (s->fd >= 0)
		close(s->fd);
	if (s->watch >= 0)
		close(s->watch);
}

/* Output */

static void failed(struct device *d)
{
	struct serial_port *s = port_of(d);

	if (!s->failed_once)
		host_say("console %u: %s; output is lost", d->index, strerror(errno));
	s->failed_once = true;
}

/* Write what is left of the chain, at most *left bytes. True: there is nothing left. */
static bool write_chain(struct device *d, size_t *left)
{
	struct serial_port *s = port_of(d);
	uint8_t part[PART];

	while (s->tx_done < s->tx_len && s->attached) {
		const size_t want = s->tx_len - s->tx_done;
		const size_t n = vq_read(s->tx.piece, s->tx.out, s->tx_done, part, want < PART ? want : PART);
		ssize_t done;

		if (!*left)
			return false;
		done = write(s->fd, part, n);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && errno == EAGAIN) {
			s->blocked = true;
			return false;
		}
		if (done < 0) {
			failed(d);
			return true;
		}
		s->tx_done += (size_t)done;
		*left -= *left < (size_t)done ? *left : (size_t)done;
	}
	return true;
}

static bool next_chain(struct device *d)
{
	struct serial_port *s = port_of(d);

	if (s->have_tx)
		return true;
	if (!vq_pop(&d->queue[TX], &s->tx))
		return false;
	s->have_tx = true;
	s->tx_done = 0;
	s->tx_len = vq_bytes(s->tx.piece, s->tx.out);
	return true;
}

static void move_output(struct device *d)
{
	struct serial_port *s = port_of(d);
	struct virtqueue *q = &d->queue[TX];
	size_t left = ROUND;

	s->blocked = false;
	do {
		vq_notify(q, false);
		while (left && next_chain(d)) {
			if (!write_chain(d, &left))
				break;
			left -= left < CHAIN_COST ? left : CHAIN_COST;
			vq_push(q, &s->tx, 0);
			s->have_tx = false;
		}
	} while (left && !s->blocked && vq_notify(q, true));
	vq_flush(q);
	if (!left)
		device_ring(d); /* after a look at who wants us to stop */
}

/* Input */

static bool want_input(struct device *d)
{
	struct serial_port *s = port_of(d);
	struct virtqueue *q = &d->queue[RX];

	if (s->have_rx)
		return true;
	if (!vq_pop(q, &s->rx)) {
		s->armed = true;
		if (!vq_notify(q, true) || !vq_pop(q, &s->rx))
			return false;
	}
	if (s->armed)
		vq_notify(q, false);
	s->armed = false;
	if (s->rx.out || !s->rx.in) {
		device_broken(d, "queue %u, chain %u: no room to receive into", RX, s->rx.head);
		return false;
	}
	s->have_rx = true;
	return true;
}

static void move_input(struct device *d)
{
	struct serial_port *s = port_of(d);
	uint8_t part[PART];

	/* As many as the terminal holds, but not for ever. */
	for (unsigned int i = 0; i < d->kind->queue_max && want_input(d); i++) {
		const size_t room = vq_bytes(s->rx.piece, s->rx.in);
		const ssize_t n = read(s->fd, part, room < PART ? room : PART);

		if (n < 0 && errno == EIO)
			s->attached = false; /* the last who had it open is gone */
		if (n <= 0)
			break;
		vq_write(s->rx.piece, s->rx.in, 0, part, (size_t)n);
		vq_push(&d->queue[RX], &s->rx, (uint32_t)n);
		s->have_rx = false;
	}
	vq_flush(&d->queue[RX]);
}

/* Waiting */

/* Does anybody have the terminal open? */
static bool somebody(const struct serial_port *s)
{
	struct pollfd f = { .fd = s->fd };

	return !is_terminal(s) || poll(&f, 1, 0) <= 0 || !(f.revents & POLLHUP);
}

static void serial_kick(struct device *d)
{
	move_output(d);
}

static unsigned int serial_fds(struct device *d, struct pollfd *f)
{
	struct serial_port *s = port_of(d);
	unsigned int n = 0;

	if (!s->live)
		return 0;
	if (is_terminal(s))
		f[n++] = (struct pollfd){ .fd = s->watch, .events = POLLIN };
	/* A terminal that nobody has open says so again and again. A file is always ready, or broken. */
	if (s->attached && (is_terminal(s) || s->blocked)) {
		f[n].fd = s->fd;
		f[n].events = (short)((s->blocked ? POLLOUT : 0) | (is_terminal(s) && want_input(d) ? POLLIN : 0));
		f[n++].revents = 0;
	}
	return n;
}

static void look_who_opened(struct serial_port *s)
{
	char events[1024] __attribute__((aligned(8)));

	while (read(s->watch, events, sizeof(events)) > 0)
		;
	s->attached = somebody(s);
}

static void serial_ready(struct device *d, const struct pollfd *f, unsigned int n)
{
	struct serial_port *s = port_of(d);
	short events = 0;

	for (unsigned int i = 0; i < n; i++)
		if (f[i].fd == s->fd)
			events = f[i].revents;
		else if (f[i].revents)
			look_who_opened(s);
	if (events & POLLIN)
		move_input(d);
	if (events & (POLLHUP | POLLERR))
		s->attached = somebody(s) && !(events & POLLERR);
	if (s->have_tx && (events || !s->attached))
		move_output(d);
}

static void serial_start(struct device *d)
{
	struct serial_port *s = port_of(d);

	s->live = true;
	s->armed = false;
	s->attached = somebody(s);
	vq_notify(&d->queue[RX], false);
}

static bool serial_quiesce(struct device *d)
{
	struct serial_port *s = port_of(d);

	s->live = s->have_rx = s->have_tx = s->blocked = false;
	return true;
}

const struct device_kind device_serial = {
	.name = "console",
	.type = 3,
	.queues = 2,
	.queue_max = 256,
	.state = sizeof(struct serial_port),
	.open = serial_open,
	.close = serial_close,
	.start = serial_start,
	.kick = serial_kick,
	.quiesce = serial_quiesce,
	.fds = serial_fds,
	.ready = serial_ready,
};
