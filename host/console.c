// SPDX-License-Identifier: MIT
#include "console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <hypercall/ring.h>

#include "partition.h"

#define OUT_BUFFER 16384
#define IN_BUFFER 4096
#define SERVICE_BYTES (64 * 1024) /* of output moved per console_service(), so that a flood starves nobody */
#define INPUT_RETRY_MIN 10	  /* ms: first look whether the guest made room for input */
#define INPUT_RETRY_MAX 1000
#define POLLED_WRITE 512 /* bytes a descriptor that polled writable is trusted to take */
#define ESCAPE 0x01	 /* Ctrl-A */

enum sink {
	SINK_PLAIN,    /* a regular file, /dev/null: never makes us wait */
	SINK_NONBLOCK, /* a terminal or pipe, reopened so that O_NONBLOCK is ours alone */
	SINK_SOCKET,
	SINK_POLLED, /* could not be reopened: written in small pieces when it polls writable */
	SINK_GONE,   /* nobody reads: output is dropped */
};

struct console {
	pthread_mutex_t lock;
	pthread_cond_t room; /* the buffer got some, or `released` was set */
	struct partition *p;
	bool released;

	int out_fd;
	bool out_owned;
	enum sink sink;
	bool out_polled; /* EPOLLOUT is asked for */
	size_t out_at, out_len;
	uint8_t out[OUT_BUFFER];

	struct keel_console_ring __pvshared *ring;
	struct keel_ring_end from_guest, to_guest;
	bool ring_reported;
	size_t (*push)(void *to, const uint8_t *bytes, size_t n); /* where input goes without a ring */
	void *push_to;
	bool more; /* output was left because of SERVICE_BYTES */

	int in_fd;
	bool in_tty, in_file, in_eof, in_polled, escaped;
	int in_retry; /* ms, 0 = no input waits for room */
	size_t in_at, in_len;
	uint8_t in[IN_BUFFER];

	int epoll_fd;
	int wake_fd; /* early output could not be written at once */
};

/*
 * The terminal to put back, reachable from exit and signal handlers. A child
 * forked from this process must not touch it, hence the pid.
 */
static struct {
	volatile sig_atomic_t raw;
	int fd;
	pid_t pid;
	struct termios saved;
} terminal = { .fd = -1 };

static void terminal_restore(void)
{
	if (terminal.raw && terminal.pid == getpid()) {
		tcsetattr(terminal.fd, TCSANOW, &terminal.saved);
		terminal.raw = 0;
	}
}

void console_rescue(void)
{
	terminal_restore();
}

static void fatal_signal(int sig)
{
	int err = errno;

	terminal_restore();
	errno = err;
	raise(sig); /* SA_RESETHAND: now with its default effect */
}

static void terminal_guard(int fd)
{
	static const int fatal[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS, SIGXCPU };
	struct sigaction sa = { .sa_handler = fatal_signal, .sa_flags = SA_RESETHAND | SA_NODEFER };
	static bool once;

	terminal.fd = fd;
	terminal.pid = getpid();
	if (once)
		return;
	once = true;
	atexit(terminal_restore);
	signal(SIGTTOU, SIG_IGN); /* restoring must work from the background too */
	for (size_t i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++) {
		struct sigaction old;

		/* Leave alone what somebody else handles or ignores. */
		if (!sigaction(fatal[i], NULL, &old) && old.sa_handler == SIG_DFL && !(old.sa_flags & SA_SIGINFO))
			sigaction(fatal[i], &sa, NULL);
	}
}

/* A process in the background would be stopped for touching the terminal. */
static bool in_foreground(int fd)
{
	return tcgetpgrp(fd) == getpgrp();
}

static void terminal_raw(int fd)
{
	struct termios t;

	if (terminal.raw || !in_foreground(fd) || tcgetattr(fd, &t))
		return;
	terminal.saved = t;
	terminal_guard(fd);
	/* Output processing stays on: a guest's "\n" starts a line at its beginning. */
	t.c_iflag &= ~(tcflag_t)(ICRNL | INLCR | IGNCR | IXON | BRKINT | ISTRIP);
	t.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG | IEXTEN);
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	terminal.raw = 1;
	if (tcsetattr(fd, TCSANOW, &t))
		terminal.raw = 0;
}

static void want(struct console *c, int fd, uint32_t events, bool on, bool *state)
{
	struct epoll_event ev = { .events = events, .data.fd = fd };

	if (on != *state && !epoll_ctl(c->epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd, &ev))
		*state = on;
}

static void open_sink(struct console *c, int fd)
{
	struct epoll_event ev = { .events = 0 };
	struct stat st;
	char path[32];

	c->out_fd = fd;
	c->sink = SINK_PLAIN;
	if (fstat(fd, &st)) {
		c->sink = SINK_GONE; /* closed */
		return;
	}
	if (S_ISSOCK(st.st_mode)) {
		c->sink = SINK_SOCKET;
	} else if (S_ISFIFO(st.st_mode) || isatty(fd)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		c->out_fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		c->out_owned = c->out_fd >= 0;
		c->sink = c->out_owned ? SINK_NONBLOCK : SINK_POLLED;
		if (!c->out_owned)
			c->out_fd = fd;
	} else if (!epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, fd, &ev)) {
		epoll_ctl(c->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		c->sink = SINK_POLLED; /* some other device one has to wait for */
	}
}

struct console *console_open(int in_fd, int out_fd, struct error *e)
{
	struct console *c = calloc(1, sizeof(*c));
	struct epoll_event ev = { .events = EPOLLIN };
	struct stat st;

	if (!c) {
		error_set(e, "out of memory");
		return NULL;
	}
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->room, NULL);
	c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ev.data.fd = c->wake_fd;
	if (c->epoll_fd < 0 || c->wake_fd < 0 || epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->wake_fd, &ev)) {
		error_set(e, "cannot set up the console: %s", strerror(errno));
		console_close(c);
		return NULL;
	}
	open_sink(c, out_fd);
	c->in_fd = in_fd;
	c->in_tty = isatty(in_fd);
	c->in_eof = fstat(in_fd, &st) != 0;
	if (!c->in_eof && !c->in_tty) {
		/* What epoll does not take is always readable: files, /dev/null. */
		ev = (struct epoll_event){ .events = 0, .data.fd = in_fd };
		c->in_file = epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, in_fd, &ev) != 0;
		if (!c->in_file)
			epoll_ctl(c->epoll_fd, EPOLL_CTL_DEL, in_fd, NULL);
	}
	if (c->in_tty)
		terminal_raw(in_fd);
	want(c, c->in_fd, EPOLLIN, c->in_tty && terminal.raw, &c->in_polled);
	return c;
}

void console_close(struct console *c)
{
	if (!c)
		return;
	terminal_restore();
	if (c->out_owned)
		close(c->out_fd);
	if (c->epoll_fd >= 0)
		close(c->epoll_fd);
	if (c->wake_fd >= 0)
		close(c->wake_fd);
	pthread_cond_destroy(&c->room);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

int console_fd(const struct console *c)
{
	return c->epoll_fd;
}

/* Append what fits. Lock held. */
static size_t buffer_put(struct console *c, const void *src, size_t n)
{
	size_t room = OUT_BUFFER - c->out_len;
	size_t to = (c->out_at + c->out_len) % OUT_BUFFER;
	size_t first;

	if (n > room)
		n = room;
	first = n < OUT_BUFFER - to ? n : OUT_BUFFER - to;
	memcpy(c->out + to, src, first);
	memcpy(c->out, (const uint8_t *)src + first, n - first);
	c->out_len += n;
	return n;
}

/* One attempt to write the buffer's front. Lock held; never waits. Returns bytes, -1 when it would wait. */
static ssize_t sink_write(struct console *c, const void *buf, size_t n)
{
	struct pollfd pfd = { .fd = c->out_fd, .events = POLLOUT };
	ssize_t done;

	do {
		switch (c->sink) {
		case SINK_GONE:
			return (ssize_t)n;
		case SINK_SOCKET:
			done = send(c->out_fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
			break;
		case SINK_POLLED:
			if (poll(&pfd, 1, 0) <= 0)
				return -1;
			done = write(c->out_fd, buf, n < POLLED_WRITE ? n : POLLED_WRITE);
			break;
		default:
			done = write(c->out_fd, buf, n);
		}
	} while (done < 0 && errno == EINTR);
	if (done >= 0)
		return done;
	if (errno == EAGAIN)
		return -1;
	if (errno != EPIPE)
		host_say("console: cannot write output: %s; what follows is dropped", strerror(errno));
	c->sink = SINK_GONE;
	return (ssize_t)n;
}

/* Write out what can be. Lock held. */
static void buffer_flush(struct console *c)
{
	size_t before = c->out_len;

	while (c->out_len) {
		size_t run = OUT_BUFFER - c->out_at;
		ssize_t n = sink_write(c, c->out + c->out_at, run < c->out_len ? run : c->out_len);

		if (n < 0)
			break;
		c->out_at = (c->out_at + (size_t)n) % OUT_BUFFER;
		c->out_len -= (size_t)n;
	}
	if (c->out_len != before)
		pthread_cond_broadcast(&c->room);
}

void console_write(struct console *c, const uint64_t *words, size_t n)
{
	uint64_t one = 1;

	pthread_mutex_lock(&c->lock);
	while (OUT_BUFFER - c->out_len < n && !c->released)
		pthread_cond_wait(&c->room, &c->lock);
	/* x86 is little-endian: the words' bytes in memory are in the order of output. */
	buffer_put(c, words, n);
	buffer_flush(c);
	if (c->out_len && write(c->wake_fd, &one, sizeof(one)) < 0)
		c->more = true; /* the counter is at its end: the wake-up is there already */
	pthread_mutex_unlock(&c->lock);
}

static void set_size(struct console *c)
{
	struct winsize ws = { 0 };

	if (!c->ring)
		return;
	if (ioctl(c->out_fd, TIOCGWINSZ, &ws) && ioctl(c->in_fd, TIOCGWINSZ, &ws))
		memset(&ws, 0, sizeof(ws));
	keel_shared_store16(&c->ring->rows, ws.ws_row);
	keel_shared_store16(&c->ring->cols, ws.ws_col);
}

bool console_attach(struct console *c, struct keel_console_ring __pvshared *ring)
{
	uint64_t one = 1;
	bool fresh;

	pthread_mutex_lock(&c->lock);
	fresh = !c->ring;
	if (fresh) {
		c->ring = ring;
		keel_ring_attach(&c->from_guest, ring, KEEL_RING_HOST_OUT);
		keel_ring_attach(&c->to_guest, ring, KEEL_RING_HOST_IN);
		set_size(c);
		keel_ring_disarm(ring); /* until the main thread has looked, which this asks for: */
		if (write(c->wake_fd, &one, sizeof(one)) < 0)
			c->more = true;
	}
	pthread_mutex_unlock(&c->lock);
	return fresh;
}

/* Take over what the guest published, then forget the ring. May wait for room. Lock held. */
static void ring_take_back(struct console *c)
{
	uint8_t chunk[KEEL_CONSOLE_OUT_SIZE];
	int n;

	while (c->ring && OUT_BUFFER - c->out_len < sizeof(chunk) && !c->released)
		pthread_cond_wait(&c->room, &c->lock);
	if (!c->ring)
		return;
	n = keel_ring_pop(&c->from_guest, chunk, sizeof(chunk));
	if (n > 0)
		buffer_put(c, chunk, (size_t)n);
	buffer_flush(c);
	c->ring = NULL;
}

void console_detach(struct console *c)
{
	uint64_t one = 1;

	pthread_mutex_lock(&c->lock);
	ring_take_back(c);
	if (write(c->wake_fd, &one, sizeof(one)) < 0)
		c->more = true;
	pthread_mutex_unlock(&c->lock);
}

void console_receiver(struct console *c, size_t (*push)(void *to, const uint8_t *bytes, size_t n), void *to)
{
	pthread_mutex_lock(&c->lock);
	c->push = push;
	c->push_to = to;
	pthread_mutex_unlock(&c->lock);
	if (push)
		console_poke(c);
}

void console_poke(struct console *c)
{
	uint64_t one = 1;

	/* It fails only when the counter is at its end: the wake-up is there already. */
	if (write(c->wake_fd, &one, sizeof(one)) < 0)
		return;
}

void console_settle(struct console *c)
{
	pthread_mutex_lock(&c->lock);
	pthread_mutex_unlock(&c->lock);
}

void console_bind(struct console *c, struct partition *p)
{
	pthread_mutex_lock(&c->lock);
	c->ring = NULL;
	if (!p)
		c->push = NULL;
	c->p = p;
	c->released = false;
	c->in_retry = 0;
	c->ring_reported = false;
	pthread_mutex_unlock(&c->lock);
}

static void drop_ring(struct console *c, const char *what)
{
	if (!c->ring_reported)
		host_say("console: the guest's %s index is impossible; its ring is dropped", what);
	c->ring_reported = true;
	c->ring = NULL;
}

/* Output from the ring to stdout, through the buffer. Lock held. Returns true when the guest got room. */
static bool move_output(struct console *c)
{
	size_t budget = SERVICE_BYTES;
	uint8_t chunk[KEEL_CONSOLE_OUT_SIZE];
	bool moved = false;

	c->more = false;
	buffer_flush(c);
	if (c->ring)
		keel_ring_disarm(c->ring);
	while (c->ring) {
		size_t room = OUT_BUFFER - c->out_len;
		int n = keel_ring_pop(&c->from_guest, chunk, room < sizeof(chunk) ? room : sizeof(chunk));

		if (n < 0) {
			drop_ring(c, "output");
			break;
		}
		if (n > 0) {
			moved = true;
			buffer_put(c, chunk, (size_t)n);
			buffer_flush(c);
			if ((size_t)n > budget) {
				c->more = true;
				break;
			}
			budget -= (size_t)n;
			continue;
		}
		if (!room)
			break; /* stdout will say when to go on; until then no kick is wanted */
		if (!keel_ring_arm(c->ring, &c->from_guest))
			break;
		keel_ring_disarm(c->ring);
	}
	return moved;
}

/* Waiting input to the guest. Lock held. Returns true when its ring got some. */
static bool move_input(struct console *c)
{
	bool moved = false;

	/* Also without input to move: a broken ring is told as soon as anybody looks (KEEL-CONSOLE-09). */
	if (c->ring && keel_ring_avail(&c->to_guest) < 0)
		drop_ring(c, "input");
	while ((c->ring || c->push) && c->in_len) {
		size_t run = IN_BUFFER - c->in_at < c->in_len ? IN_BUFFER - c->in_at : c->in_len;
		int n = c->ring ? keel_ring_push(&c->to_guest, c->in + c->in_at, run)
				: (int)c->push(c->push_to, c->in + c->in_at, run);

		if (n < 0)
			drop_ring(c, "input");
		if (n <= 0)
			break;
		c->in_at = (c->in_at + (size_t)n) % IN_BUFFER;
		c->in_len -= (size_t)n;
		moved = true;
	}
	/* No call says that the guest took input, so look again by and by: soon, then seldom. */
	if (!c->ring || !c->in_len)
		c->in_retry = 0;
	else if (moved || !c->in_retry)
		c->in_retry = INPUT_RETRY_MIN;
	else
		c->in_retry = c->in_retry * 2 < INPUT_RETRY_MAX ? c->in_retry * 2 : INPUT_RETRY_MAX;
	return moved && c->ring;
}

static void input_byte(struct console *c, uint8_t b)
{
	if (c->in_len == IN_BUFFER)
		return; /* typed faster than the guest reads for 4 KiB: like any UART, lost */
	c->in[(c->in_at + c->in_len++) % IN_BUFFER] = b;
}

static void print_help(void)
{
	static const char help[] = "\nkeel: Ctrl-A x       end the guest\n"
				   "keel: Ctrl-A d       raise the guest's dump event\n"
				   "keel: Ctrl-A Ctrl-A  send Ctrl-A\n"
				   "keel: Ctrl-A h       this help\n";

	if (write(STDERR_FILENO, help, sizeof(help) - 1) < 0)
		return; /* nobody to tell */
}

/* Keys of a terminal: Ctrl-A starts a command, everything else is the guest's. Lock held. */
static enum console_key terminal_input(struct console *c, const uint8_t *buf, size_t n)
{
	enum console_key key = CONSOLE_NONE;

	for (size_t i = 0; i < n; i++) {
		if (!c->escaped) {
			if (buf[i] == ESCAPE)
				c->escaped = true;
			else
				input_byte(c, buf[i]);
			continue;
		}
		c->escaped = false;
		switch (buf[i]) {
		case 'x':
			return CONSOLE_QUIT;
		case 'd':
			key = CONSOLE_DUMP;
			break;
		case 'h':
		case '?':
			print_help();
			break;
		case ESCAPE:
			input_byte(c, ESCAPE);
			break;
		}
	}
	return key;
}

/*
 * A terminal is read always, for Ctrl-A x must work when the guest does not.
 * Anything else is read when a guest has a ring or a receiver for it and there is
 * room: what it does not take is left for whoever reads after us.
 */
static bool wants_input(const struct console *c)
{
	if (c->in_eof)
		return false;
	if (c->in_tty)
		return terminal.raw;
	return (c->ring || c->push) && c->in_len < IN_BUFFER;
}

/* Lock held. */
static enum console_key read_input(struct console *c)
{
	struct pollfd pfd = { .fd = c->in_fd, .events = POLLIN };
	uint8_t buf[IN_BUFFER];
	size_t room = c->in_tty ? sizeof(buf) : IN_BUFFER - c->in_len;
	ssize_t n;

	if (!wants_input(c) || (!c->in_file && poll(&pfd, 1, 0) <= 0))
		return CONSOLE_NONE;
	n = read(c->in_fd, buf, room);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return CONSOLE_NONE;
	if (n <= 0) {
		c->in_eof = true;
		return CONSOLE_NONE;
	}
	if (c->in_tty)
		return terminal_input(c, buf, (size_t)n);
	for (ssize_t i = 0; i < n; i++)
		input_byte(c, buf[i]);
	return CONSOLE_NONE;
}

enum console_key console_service(struct console *c)
{
	enum console_key key;
	uint64_t count;
	bool raise;

	/* Cleared before the work is looked at, so nothing that comes later is missed. */
	if (read(c->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		host_say("console: %s", strerror(errno));
	pthread_mutex_lock(&c->lock);
	key = read_input(c);
	raise = move_output(c) && c->ring && keel_ring_space_wanted(c->ring);
	raise |= move_input(c);
	want(c, c->out_fd, EPOLLOUT, c->out_len && c->sink != SINK_PLAIN && c->sink != SINK_GONE, &c->out_polled);
	want(c, c->in_fd, EPOLLIN, wants_input(c) && !c->in_file, &c->in_polled);
	if (raise && c->p)
		partition_raise(c->p, c->p->console_port);
	pthread_mutex_unlock(&c->lock);
	return key;
}

int console_timeout(struct console *c)
{
	int ms;

	pthread_mutex_lock(&c->lock);
	if (c->more || (c->in_file && wants_input(c)))
		ms = 0;
	else
		ms = c->in_retry ? c->in_retry : -1;
	pthread_mutex_unlock(&c->lock);
	return ms;
}

void console_resize(struct console *c)
{
	pthread_mutex_lock(&c->lock);
	set_size(c);
	if (c->ring && c->p)
		partition_raise(c->p, c->p->console_port);
	pthread_mutex_unlock(&c->lock);
}

void console_suspend(struct console *c)
{
	(void)c;
	terminal_restore();
}

void console_resume(struct console *c)
{
	if (c->in_tty)
		terminal_raw(c->in_fd);
	console_resize(c);
}

void console_release(struct console *c)
{
	pthread_mutex_lock(&c->lock);
	c->released = true;
	pthread_cond_broadcast(&c->room);
	pthread_mutex_unlock(&c->lock);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

bool console_flush(struct console *c, int abort_fd, int timeout_ms)
{
	uint64_t end = now_ms() + (timeout_ms < 0 ? 0 : (uint64_t)timeout_ms);
	bool done;

	pthread_mutex_lock(&c->lock);
	for (;;) {
		struct pollfd pfd[2] = { { .fd = c->out_fd, .events = POLLOUT }, { .fd = abort_fd, .events = POLLIN } };
		uint64_t now = now_ms();

		move_output(c);
		/* At most one ring's worth and what is in the buffer: nothing of the guest runs to make more. */
		done = !c->out_len && (!c->ring || keel_ring_avail(&c->from_guest) <= 0);
		if (done || (timeout_ms >= 0 && now >= end))
			break;
		if (poll(pfd, 2, timeout_ms < 0 ? -1 : (int)(end - now)) > 0 && pfd[1].revents)
			break;
	}
	pthread_mutex_unlock(&c->lock);
	return done;
}
