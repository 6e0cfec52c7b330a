// SPDX-License-Identifier: MIT
/* The console on pipes: order, back-pressure, hostile rings, bounded memory. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <hypercall/ring.h>

#include "../console.h"
#include "tests.h"

struct fixture {
	struct console *c;
	struct partition p;
	struct keel_vcpu vcpu;
	uint32_t port;
	struct keel_console_ring *ring;
	struct keel_ring_end out, in; /* the guest's ends */
	int out_fd[2], in_fd[2];
};

static struct fixture *setup(void)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error e;

	assert_non_null(f);
	assert_int_equal(pipe(f->out_fd) | pipe(f->in_fd), 0);
	f->c = console_open(f->in_fd[0], f->out_fd[1], &e);
	assert_non_null(f->c);
	f->p.ops = &test_backend;
	f->p.vcpu[0] = &f->vcpu;
	f->p.console_port = &f->port;
	f->p.vcpus = 1;
	f->port = 1;
	console_bind(f->c, &f->p);
	f->ring = aligned_alloc(4096, sizeof(*f->ring));
	assert_non_null(f->ring);
	memset(f->ring, 0, sizeof(*f->ring));
	return f;
}

static void attach(struct fixture *f)
{
	assert_true(console_attach(f->c, f->ring));
	keel_ring_attach(&f->out, f->ring, KEEL_RING_GUEST_OUT);
	keel_ring_attach(&f->in, f->ring, KEEL_RING_GUEST_IN);
}

static void teardown(struct fixture *f)
{
	console_bind(f->c, NULL);
	console_close(f->c);
	for (int i = 0; i < 2; i++) {
		if (f->out_fd[i] >= 0)
			close(f->out_fd[i]);
		if (f->in_fd[i] >= 0)
			close(f->in_fd[i]);
	}
	free(f->ring);
	free(f);
}

static bool readable(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, 0) > 0;
}

static bool raised(struct fixture *f)
{
	bool was = f->vcpu.event_pending[0] & 1;

	f->vcpu.event_pending[0] = 0;
	f->vcpu.pending = 0;
	return was;
}

static void expect(struct fixture *f, const char *text)
{
	char got[256] = "";

	assert_int_equal(read(f->out_fd[0], got, strlen(text)), strlen(text));
	assert_string_equal(got, text);
	assert_false(readable(f->out_fd[0]));
}

static void early(struct fixture *f, const char *text)
{
	uint64_t words[4] = { 0 };

	memcpy(words, text, strlen(text));
	console_write(f->c, words, strlen(text));
}

static void test_order(void **state)
{
	struct fixture *f = setup();

	(void)state;
	early(f, "early ");
	attach(f);
	assert_true(readable(console_fd(f->c))); /* a new ring is looked at without a doorbell */
	console_service(f->c);
	assert_int_equal(f->ring->out_wake, 1);
	keel_ring_push(&f->out, "ring ", 5);
	assert_true(keel_ring_must_kick(f->ring));
	console_service(f->c);
	early(f, "late");
	expect(f, "early ring late");
	assert_int_equal(f->ring->out_cons, 5);
	assert_int_equal(console_timeout(f->c), -1);
	/* Registered once only, until it is taken back; what was published is not lost then. */
	assert_false(console_attach(f->c, f->ring));
	keel_ring_push(&f->out, "last", 4);
	console_detach(f->c);
	expect(f, "last");
	keel_ring_push(&f->out, "after", 5);
	console_service(f->c);
	assert_false(readable(f->out_fd[0]));
	assert_true(console_attach(f->c, f->ring));
	teardown(f);
}

/* stdout takes nothing: the ring fills, nobody grows, and nothing is lost in the end. */
static void test_slow_output(void **state)
{
	struct fixture *f = setup();
	size_t put = 0, got = 0;
	uint8_t next = 0, buf[4096];

	(void)state;
	assert_true(fcntl(f->out_fd[1], F_SETPIPE_SZ, 4096) >= 4096);
	attach(f);
	for (int idle = 0; idle < 3;) {
		uint8_t byte = next;
		int n = keel_ring_push(&f->out, &byte, 1);

		assert_true(n >= 0);
		next += (uint8_t)n;
		put += (size_t)n;
		if (n) {
			idle = 0;
			continue;
		}
		console_service(f->c);
		idle++;
	}
	/* Pipe, buffer and ring: that is all there is. */
	assert_int_equal(put, 4096 + 16384 + KEEL_CONSOLE_OUT_SIZE);
	/* Nothing to do until stdout is ready: no spinning, no kicks wanted. */
	assert_int_equal(console_timeout(f->c), -1);
	assert_false(readable(console_fd(f->c)));
	assert_int_equal(f->ring->out_wake, 0);
	f->ring->in_wake = KEEL_CONSOLE_WANT_SPACE;
	assert_false(raised(f));
	for (next = 0; got < put;) {
		ssize_t n = read(f->out_fd[0], buf, sizeof(buf));

		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(buf[i], next++);
		got += (size_t)n;
		assert_true(got == put || readable(console_fd(f->c)));
		console_service(f->c);
	}
	assert_true(raised(f)); /* the guest asked to be told of space */
	assert_int_equal(f->ring->out_wake, 1);
	assert_int_equal(f->ring->out_cons, f->ring->out_prod);
	teardown(f);
}

#define LINE 27 /* bytes of one */

struct writer {
	struct fixture *f;
	unsigned int lines;
};

static void *write_lines(void *arg)
{
	struct writer *w = arg;
	char line[40];

	for (unsigned int i = 0; i < w->lines; i++) {
		snprintf(line, sizeof(line), "line %06u of many lines.\n", i);
		early(w->f, line);
	}
	return NULL;
}

/* Early output waits for a slow reader, in order, and for as long as it takes. */
static void test_early_waits(void **state)
{
	struct fixture *f = setup();
	struct writer w = { f, 2000 };
	char want[40], got[40] = "";
	pthread_t thread;
	size_t have = 0;

	(void)state;
	fcntl(f->out_fd[1], F_SETPIPE_SZ, 4096);
	assert_int_equal(pthread_create(&thread, NULL, write_lines, &w), 0);
	for (unsigned int i = 0; i < w.lines;) {
		struct pollfd pfd[2] = { { .fd = console_fd(f->c), .events = POLLIN },
					 { .fd = f->out_fd[0], .events = POLLIN } };

		assert_true(poll(pfd, 2, 5000) > 0);
		console_service(f->c);
		if (!pfd[1].revents)
			continue;
		have += (size_t)read(f->out_fd[0], got + have, LINE - have);
		if (have < LINE)
			continue;
		snprintf(want, sizeof(want), "line %06u of many lines.\n", i++);
		assert_memory_equal(got, want, LINE);
		have = 0;
	}
	pthread_join(thread, NULL);
	teardown(f);
}

/* A writer that waits is let go when the partition is stopped. */
static void test_release(void **state)
{
	struct fixture *f = setup();
	struct writer w = { f, 5000 };
	struct timespec ts = { 0, 20000000 };
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, write_lines, &w), 0);
	nanosleep(&ts, NULL);
	console_release(f->c);
	pthread_join(thread, NULL);
	/* The pipe is full and nobody reads: giving up is possible. */
	assert_false(console_flush(f->c, -1, 20));
	assert_true(write(f->in_fd[1], "x", 1) == 1);
	assert_false(console_flush(f->c, f->in_fd[0], -1));
	teardown(f);
}

static void test_flush(void **state)
{
	struct fixture *f = setup();

	(void)state;
	attach(f);
	early(f, "a");
	keel_ring_push(&f->out, "b", 1); /* published, never kicked */
	console_release(f->c);
	assert_true(console_flush(f->c, -1, -1));
	expect(f, "ab");
	teardown(f);
}

/* The reader went away: output is dropped, quietly, and nobody waits. */
static void test_reader_gone(void **state)
{
	struct fixture *f = setup();
	struct writer w = { f, 3000 };

	(void)state;
	attach(f);
	close(f->out_fd[0]);
	f->out_fd[0] = -1;
	write_lines(&w);
	for (int i = 0; i < 100; i++) {
		keel_ring_push(&f->out, "0123456789abcdef0123456789abcdef", 32);
		console_service(f->c);
	}
	assert_int_equal(f->ring->out_cons, f->ring->out_prod);
	assert_true(console_flush(f->c, -1, -1));
	teardown(f);
}

static void test_input(void **state)
{
	struct fixture *f = setup();
	char buf[8192];
	size_t got = 0;

	(void)state;
	/* Before there is a ring a pipe is not read. */
	assert_int_equal(write(f->in_fd[1], "early", 5), 5);
	console_service(f->c);
	assert_true(readable(f->in_fd[0]));
	attach(f);
	console_service(f->c);
	assert_true(raised(f));
	assert_int_equal(keel_ring_pop(&f->in, buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "early", 5);
	console_service(f->c);
	assert_false(raised(f));
	/* Ctrl-A is a byte like any other here. */
	assert_int_equal(write(f->in_fd[1], "\001x", 2), 2);
	assert_int_equal(console_service(f->c), CONSOLE_NONE);
	assert_int_equal(keel_ring_pop(&f->in, buf, sizeof(buf)), 2);
	assert_memory_equal(buf, "\001x", 2);
	/* More than the ring holds waits, looked after by and by. */
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (char)(i % 251);
	assert_int_equal(write(f->in_fd[1], buf, sizeof(buf)), sizeof(buf));
	console_service(f->c);
	console_service(f->c);
	assert_true(console_timeout(f->c) > 0);
	for (int i = 0; i < 20; i++)
		console_service(f->c);
	assert_int_equal(console_timeout(f->c), 1000); /* an idle guest is not polled often */
	raised(f);
	while (got < sizeof(buf)) {
		uint8_t some[100];
		int n = keel_ring_pop(&f->in, some, sizeof(some));

		assert_true(n >= 0);
		for (int i = 0; i < n; i++)
			assert_int_equal(some[i], got++ % 251);
		console_service(f->c);
		assert_true(raised(f) || n == 0 || got + KEEL_CONSOLE_IN_SIZE >= sizeof(buf));
	}
	close(f->in_fd[1]);
	f->in_fd[1] = -1;
	console_service(f->c);
	console_service(f->c);
	/* The end of input is no reason to wake up again and again. */
	assert_false(readable(console_fd(f->c)));
	assert_int_equal(console_timeout(f->c), -1);
	teardown(f);
}

/* Whatever the guest writes to the ring's fields, one ring is lost and no more. */
/* A receiver that takes what it has room for. */
struct receiver {
	char got[8192];
	size_t len, room;
};

static size_t push(void *to, const uint8_t *bytes, size_t n)
{
	struct receiver *r = to;

	if (n > r->room)
		n = r->room;
	memcpy(r->got + r->len, bytes, n);
	r->len += n;
	r->room -= n;
	return n;
}

static void test_receiver(void **state)
{
	struct fixture *f = setup();
	struct receiver r = { .room = 3 };
	char text[6000];
	char seen[16];

	(void)state;
	/* Nobody takes it, so it stays in the pipe. */
	assert_int_equal(write(f->in_fd[1], "abcdef", 6), 6);
	assert_int_equal(console_service(f->c), CONSOLE_NONE);
	assert_true(readable(f->in_fd[0]));
	console_receiver(f->c, push, &r);
	assert_true(readable(console_fd(f->c)));
	console_service(f->c);
	assert_int_equal(r.len, 3);
	/* Full: nothing turns, until it says that it has room. */
	assert_false(readable(console_fd(f->c)));
	assert_int_equal(console_timeout(f->c), -1);
	r.room = 1;
	console_poke(f->c);
	assert_true(readable(console_fd(f->c)));
	console_service(f->c);
	assert_memory_equal(r.got, "abcd", 4);
	assert_false(raised(f)); /* that is for rings */
	/* More than the buffer holds waits in the pipe; none of it is lost. */
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)('a' + i % 26);
	assert_int_equal(write(f->in_fd[1], text, sizeof(text)), sizeof(text));
	for (unsigned int i = 0; i < 500 && r.len < 6 + sizeof(text); i++) {
		r.room = 16;
		console_poke(f->c);
		console_service(f->c);
	}
	assert_int_equal(r.len, 6 + sizeof(text));
	assert_memory_equal(r.got, "abcdef", 6);
	assert_memory_equal(r.got + 6, text, sizeof(text));
	/* A ring comes first. */
	r.room = 100;
	attach(f);
	assert_int_equal(write(f->in_fd[1], "ring", 4), 4);
	console_service(f->c);
	assert_int_equal(r.len, 6 + sizeof(text));
	assert_int_equal(keel_ring_pop(&f->in, seen, sizeof(seen)), 4);
	console_detach(f->c);
	console_receiver(f->c, NULL, NULL);
	console_settle(f->c);
	assert_int_equal(write(f->in_fd[1], "left", 4), 4);
	console_service(f->c);
	assert_true(readable(f->in_fd[0]));
	teardown(f);
}

static void test_hostile(void **state)
{
	static const uint32_t bad[] = { 1, 2049, 0x7fffffff, 0x80000000, 0xffffffff };
	struct fixture *f = setup();

	(void)state;
	for (size_t i = 1; i < sizeof(bad) / sizeof(bad[0]); i++) {
		memset(f->ring, 0, sizeof(*f->ring));
		attach(f);
		f->ring->out_prod = bad[i];
		console_service(f->c);
		assert_int_equal(f->ring->out_cons, 0);
		assert_true(console_attach(f->c, f->ring)); /* it was dropped */
		console_detach(f->c);
		assert_false(readable(f->out_fd[0]));
	}
	/* The last one is one byte behind in_prod, across the wrap: odd, and legal. */
	for (size_t i = 0; i + 1 < sizeof(bad) / sizeof(bad[0]); i++) {
		memset(f->ring, 0, sizeof(*f->ring));
		attach(f);
		f->ring->in_cons = bad[i];
		assert_int_equal(write(f->in_fd[1], "x", 1), 1);
		console_service(f->c);
		console_service(f->c);
		assert_int_equal(f->ring->in_prod, 0);
		assert_true(console_attach(f->c, f->ring));
		console_detach(f->c);
	}
	early(f, "still here");
	expect(f, "still here");
	teardown(f);
}

/* The guest scribbles over the whole ring while the host works on it. */
static void *scribble(void *arg)
{
	struct fixture *f = arg;
	unsigned int seed = 1;

	for (int i = 0; i < 200000; i++)
		__atomic_store_n((uint32_t *)f->ring + (unsigned int)rand_r(&seed) % 40, (uint32_t)rand_r(&seed) % 4096,
				 __ATOMIC_RELAXED);
	return NULL;
}

static void test_scribble(void **state)
{
	struct fixture *f = setup();
	char sink[65536];
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, scribble, f), 0);
	for (int i = 0; i < 3000; i++) {
		console_attach(f->c, f->ring);
		console_service(f->c);
		while (readable(f->out_fd[0]))
			assert_true(read(f->out_fd[0], sink, sizeof(sink)) > 0);
	}
	pthread_join(thread, NULL);
	teardown(f);
}

/* One service moves a bounded amount, so a flood cannot keep the event loop from its other work. */
static void *flood(void *arg)
{
	struct fixture *f = arg;
	static const char text[512];

	for (int i = 0; i < 20000 && !f->out.broken; i++)
		keel_ring_push(&f->out, text, sizeof(text));
	return NULL;
}

static void test_flood(void **state)
{
	struct fixture *f = setup();
	char sink[65536];
	pthread_t thread;

	(void)state;
	attach(f);
	assert_int_equal(pthread_create(&thread, NULL, flood, f), 0);
	for (int i = 0; i < 500; i++) {
		size_t before = f->ring->out_cons;

		console_service(f->c);
		assert_true(f->ring->out_cons - before <= 65536 + 2 * KEEL_CONSOLE_OUT_SIZE);
		while (readable(f->out_fd[0]))
			assert_true(read(f->out_fd[0], sink, sizeof(sink)) > 0);
	}
	pthread_join(thread, NULL);
	teardown(f);
}

const struct CMUnitTest console_tests[] = {
	cmocka_unit_test(test_order),	 cmocka_unit_test(test_slow_output), cmocka_unit_test(test_early_waits),
	cmocka_unit_test(test_release),	 cmocka_unit_test(test_flush),	     cmocka_unit_test(test_reader_gone),
	cmocka_unit_test(test_input),	 cmocka_unit_test(test_receiver),    cmocka_unit_test(test_hostile),
	cmocka_unit_test(test_scribble), cmocka_unit_test(test_flood),
};
DEFINE_TESTS(console);
