// SPDX-License-Identifier: MIT
/*
 * make bench-net: TCP streams of Linux on Keel through the user-mode network, beside
 * what the same library gives a process of the machine's own kernel: one in a network
 * namespace whose only card is a tap of slirp4netns.
 *
 *	net BUILD_DIR		writes BUILD_DIR/bench-net.json and prints a table
 *
 * Both sides run stream.c, which connects to us on the host's loopback; all clocks are
 * ours. A stream is timed from its first byte until its receiver has said how many they
 * were. Sides take turns, and the best of all rounds counts.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "link.h"
#include "stream.h"

#define ROUNDS 5
#define TENTHS 20
#define WAIT_MS 30000
#define INITRD "bench/stream.cpio"
#define BAR 0.8

enum side { KEEL, NATIVE, SIDES };
enum way { FROM, TO, WAYS };

static const char *const side_name[SIDES] = { "Linux on Keel", "a process, slirp4netns" };
static const char *const way_name[WAYS] = { "from it", "to it" };

/* What both have unless they are told otherwise, and what slirp4netns is often told. */
static const unsigned int mtus[] = { 1500, 65520 };
#define MTUS (sizeof(mtus) / sizeof(mtus[0]))

static uint8_t buffer[STREAM_BUFFER];
static double rate[SIDES][MTUS][WAYS][ROUNDS]; /* bytes a second */

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Our end */

static int listen_somewhere(unsigned int *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 1) || getsockname(fd, (struct sockaddr *)&a, &len))
		die("a socket to listen on: %s", strerror(errno));
	*port = ntohs(a.sin_port);
	return fd;
}

static void await_input(int fd, const char *from)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (poll(&p, 1, WAIT_MS) != 1)
		die("%s: nothing comes", from);
}

/* Its next connection, with what is asked of it. */
static int next(int listener, enum side side, uint8_t what)
{
	const struct order order = { what, TENTHS };
	int fd;

	await_input(listener, side_name[side]);
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0 || write(fd, &order, sizeof(order)) != sizeof(order))
		die("%s: %s", side_name[side], strerror(errno));
	return fd;
}

static double stream_from(int fd, const char *side)
{
	uint64_t received = 0;
	double start;
	ssize_t n;

	await_input(fd, side);
	start = now();
	while ((n = read(fd, buffer, sizeof(buffer))) > 0)
		received += (uint64_t)n;
	start = now() - start;
	if (n || write(fd, &received, sizeof(received)) != sizeof(received))
		die("%s: %s", side, strerror(errno));
	return (double)received / start;
}

static double stream_to(int fd, const char *side)
{
	const double start = now();
	uint64_t sent = 0, received = 0;

	while (now() < start + TENTHS / 10.0) {
		const ssize_t n = write(fd, buffer, sizeof(buffer));

		if (n <= 0)
			die("%s: %s", side, strerror(errno));
		sent += (uint64_t)n;
	}
	shutdown(fd, SHUT_WR);
	await_input(fd, side);
	if (recv(fd, &received, sizeof(received), MSG_WAITALL) != sizeof(received) || received != sent)
		die("%s: %llu bytes were sent, but %llu received", side, (unsigned long long)sent,
		    (unsigned long long)received);
	return (double)received / (now() - start);
}

static void measure(int listener, enum side side, size_t mtu, int round)
{
	int fd = next(listener, side, STREAM_SEND);

	rate[side][mtu][FROM][round] = stream_from(fd, side_name[side]);
	close(fd);
	fd = next(listener, side, STREAM_RECEIVE);
	rate[side][mtu][TO][round] = stream_to(fd, side_name[side]);
	close(fd);
	close(next(listener, side, STREAM_END));
}

/* Sides */

static void await_end(pid_t pid, const char *what)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || status)
		die("%s ended with status %#x", what, status);
}

static pid_t child(void)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static void __attribute__((noreturn)) execute(char *const argv[])
{
	execvp(argv[0], argv);
	die("%s does not run: %s", argv[0], strerror(errno));
}

static void run_keel(int listener, unsigned int port, size_t mtu, int round)
{
	char cmdline[64], net[64];
	char *const argv[] = { "./keel",   "run",  "--backend", "ring3", "--mem", "256M", "linux/vmlinux",
			       "--initrd", INITRD, "--cmdline", cmdline, "--net", net,	  NULL };
	pid_t pid;

	snprintf(cmdline, sizeof(cmdline), "quiet stream=%u", port);
	snprintf(net, sizeof(net), "user,mtu=%u", mtus[mtu]);
	pid = child();
	if (!pid) {
		dup2(open("/dev/null", O_RDWR), 0);
		dup2(2, 1);
		execute(argv);
	}
	measure(listener, KEEL, mtu, round);
	await_end(pid, argv[0]);
}

/* A process in namespaces of its own, which goes on when its network is there. */
static pid_t start_native(char *port, int *go)
{
	char *const argv[] = { "bench/stream", port, NULL };
	int up[2], ready[2];
	pid_t pid;
	char c;

	if (pipe2(up, O_CLOEXEC) || pipe2(ready, O_CLOEXEC))
		die("pipe: %s", strerror(errno));
	pid = child();
	if (!pid) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
			die("user namespaces are not to be had: %s", strerror(errno));
		close(up[1]);
		if (write(ready[1], "", 1) != 1 || read(up[0], &c, 1) != 1)
			_exit(1);
		execute(argv);
	}
	close(up[0]);
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1)
		die("%s did not start", argv[0]);
	close(ready[0]);
	*go = up[1];
	return pid;
}

static pid_t start_network(pid_t of, unsigned int mtu)
{
	char mtu_option[32], ready_option[32], target[16];
	char *const argv[] = { "slirp4netns", "--configure", mtu_option, ready_option, target, "tap0", NULL };
	int ready[2];
	pid_t pid;
	char c;

	if (pipe(ready))
		die("pipe: %s", strerror(errno));
	snprintf(mtu_option, sizeof(mtu_option), "--mtu=%u", mtu);
	snprintf(ready_option, sizeof(ready_option), "--ready-fd=%d", ready[1]);
	snprintf(target, sizeof(target), "%d", of);
	pid = child();
	if (!pid) {
		int null = open("/dev/null", O_RDWR);

		close(ready[0]);
		dup2(null, 1);
		dup2(null, 2);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1)
		die("slirp4netns does not make a network; it is a package of .ci/packages");
	close(ready[0]);
	return pid;
}

static void run_native(int listener, unsigned int port, size_t mtu, int round)
{
	pid_t pid, network;
	char number[16];
	int go;

	snprintf(number, sizeof(number), "%u", port);
	pid = start_native(number, &go);
	network = start_network(pid, mtus[mtu]);
	if (write(go, "", 1) != 1)
		die("the process in its namespace is gone");
	close(go);
	measure(listener, NATIVE, mtu, round);
	await_end(pid, "bench/stream");
	kill(network, SIGTERM);
	waitpid(network, NULL, 0);
}

/* What it was */

struct figure {
	double best, worst;
};

static struct figure figure(enum side side, size_t mtu, enum way way)
{
	struct figure f = { 0, 0 };

	for (int i = 0; i < ROUNDS; i++) {
		const double v = rate[side][mtu][way][i] / 1e6;

		f.best = v > f.best ? v : f.best;
		f.worst = !i || v < f.worst ? v : f.worst;
	}
	return f;
}

static double ratio(size_t mtu, enum way way)
{
	return figure(KEEL, mtu, way).best / figure(NATIVE, mtu, way).best;
}

static void print_table(void)
{
	unsigned int met = 0;

	printf("TCP stream, MB/s, best (worst) of %d\n%-8s %6s %20s %24s %7s  bar\n", ROUNDS, "", "MTU",
	       side_name[KEEL], side_name[NATIVE], "ratio");
	for (size_t m = 0; m < MTUS; m++)
		for (enum way w = 0; w < WAYS; w++) {
			const struct figure k = figure(KEEL, m, w), n = figure(NATIVE, m, w);
			char keel[32], native[32];

			snprintf(keel, sizeof(keel), "%.0f (%.0f)", k.best, k.worst);
			snprintf(native, sizeof(native), "%.0f (%.0f)", n.best, n.worst);
			printf("%-8s %6u %20s %24s %7.2f  %g: %s\n", way_name[w], mtus[m], keel, native, ratio(m, w),
			       BAR, ratio(m, w) >= BAR ? "met" : "MISSED");
			met += ratio(m, w) >= BAR;
		}
	printf("%u of %zu bars met\n", met, MTUS * WAYS);
}

static void write_json(const char *path)
{
	struct utsname u;
	FILE *f = fopen(path, "we");

	if (!f)
		die("%s: %s", path, strerror(errno));
	uname(&u);
	fprintf(f,
		"{\n  \"kernel\": \"%s\",\n  \"rounds\": %d,\n  \"unit\": \"MB/s\",\n  \"bar\": %g,\n  \"results\": [\n",
		u.release, ROUNDS, BAR);
	for (size_t m = 0; m < MTUS; m++)
		for (enum way w = 0; w < WAYS; w++) {
			const struct figure k = figure(KEEL, m, w), n = figure(NATIVE, m, w);

			fprintf(f,
				"    {\"way\": \"%s\", \"mtu\": %u, \"keel\": %.6g, \"keel_worst\": %.6g, \"native\": %.6g, "
				"\"native_worst\": %.6g, \"ratio\": %.4g, \"met\": %s}%s\n",
				way_name[w], mtus[m], k.best, k.worst, n.best, n.worst, ratio(m, w),
				ratio(m, w) >= BAR ? "true" : "false", m + 1 < MTUS || w + 1 < WAYS ? "," : "");
		}
	fprintf(f, "  ]\n}\n");
	if (fclose(f))
		die("%s: %s", path, strerror(errno));
}

int main(int argc, char **argv)
{
	unsigned int port;
	int listener;

	if (argc != 2 || chdir(argv[1])) {
		fprintf(stderr, "usage: net BUILD_DIR\n");
		return 126;
	}
	signal(SIGPIPE, SIG_IGN);
	listener = listen_somewhere(&port);
	for (int round = 0; round < ROUNDS; round++)
		for (size_t m = 0; m < MTUS; m++) {
			run_native(listener, port, m, round);
			run_keel(listener, port, m, round);
		}
	write_json("bench-net.json");
	print_table();
	return 0;
}
