// SPDX-License-Identifier: MIT
/*
 * One end of TCP streams behind a user-mode network: the same static program is
 * /init of the port and a process of the machine's own kernel. The other end is net.c.
 *
 *	stream PORT	do what 10.0.2.2:PORT asks for, over one connection after the other
 *
 * Each connection begins with two bytes from there, struct order. What is sent ends
 * with a shutdown, and who received it answers with the number of bytes.
 *
 * As process 1 it takes PORT from the kernel's command line (stream=PORT), brings the
 * first network card up, and powers off at the end.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "stream.h"

static uint8_t buffer[STREAM_BUFFER];

static _Noreturn void end(int status)
{
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	_exit(status);
}

static _Noreturn void fail(const char *what)
{
	perror(what);
	end(1);
}

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void send_for(int fd, uint64_t ns)
{
	const uint64_t until = now() + ns;
	uint64_t sent = 0, received;

	while (now() < until) {
		const ssize_t n = write(fd, buffer, sizeof(buffer));

		if (n <= 0)
			fail("write");
		sent += (uint64_t)n;
	}
	shutdown(fd, SHUT_WR);
	if (recv(fd, &received, sizeof(received), MSG_WAITALL) != sizeof(received) || received != sent) {
		fprintf(stderr, "stream: %lu bytes were sent, but %lu received\n", sent, received);
		end(1);
	}
}

static void receive(int fd)
{
	uint64_t received = 0;
	ssize_t n;

	while ((n = read(fd, buffer, sizeof(buffer))) > 0)
		received += (uint64_t)n;
	if (n || write(fd, &received, sizeof(received)) != sizeof(received))
		fail("read");
}

/* False: there was nothing more to do. */
static bool serve(unsigned int port)
{
	const struct sockaddr_in to = { .sin_family = AF_INET,
					.sin_port = htons((uint16_t)port),
					.sin_addr.s_addr = htonl(0x0a000202) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct order order;

	if (connect(fd, (const struct sockaddr *)&to, sizeof(to)))
		fail("connect");
	if (recv(fd, &order, sizeof(order), MSG_WAITALL) != sizeof(order))
		fail("recv");
	if (order.what == STREAM_SEND)
		send_for(fd, order.tenths * UINT64_C(100000000));
	if (order.what == STREAM_RECEIVE)
		receive(fd);
	close(fd);
	return order.what != STREAM_END;
}

static void set_address(int fd, unsigned long request, uint32_t address)
{
	struct ifreq r = { .ifr_name = "eth0" };
	const struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(address) };

	memcpy(&r.ifr_addr, &a, sizeof(a));
	if (ioctl(fd, request, &r))
		fail("eth0");
}

static void bring_up(void)
{
	struct ifreq r = { .ifr_name = "eth0", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	set_address(fd, SIOCSIFADDR, 0x0a00020f);
	set_address(fd, SIOCSIFNETMASK, 0xffffff00);
	if (ioctl(fd, SIOCSIFFLAGS, &r))
		fail("eth0");
	close(fd);
}

/* What the kernel's command line says. */
static unsigned int asked_port(void)
{
	char line[4096] = "";
	const char *word;
	int fd;

	mkdir("/proc", 0755);
	if (mount("proc", "/proc", "proc", 0, NULL))
		fail("mount");
	fd = open("/proc/cmdline", O_RDONLY);
	if (fd < 0 || read(fd, line, sizeof(line) - 1) < 0)
		fail("/proc/cmdline");
	word = strstr(line, "stream=");
	return word ? (unsigned int)atoi(word + strlen("stream=")) : 0;
}

int main(int argc, char **argv)
{
	unsigned int port = argc == 2 ? (unsigned int)atoi(argv[1]) : 0;

	if (getpid() == 1) {
		port = asked_port();
		bring_up();
	}
	memset(buffer, 0x5a, sizeof(buffer));
	while (serve(port))
		;
	end(0);
}
