// SPDX-License-Identifier: MIT
/*
 * A tap as a network's link: whoever may make one, or owns it, has the guest on the
 * host's network. After open() there is nothing but reading and writing.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "net.h"

#define ROUND 64 /* frames read at a time */

struct tap {
	struct device *d;
	int fd;
	uint8_t buffer[NET_HEADER + NET_FRAME_MAX];
};

static int open_tap(const char *name, struct error *e)
{
	struct ifreq r = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int header = NET_HEADER, fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return error_set(e, "--net tap=%s: /dev/net/tun: %s", name, strerror(errno));
	memcpy(r.ifr_name, name, strlen(name));
	if (!ioctl(fd, TUNSETIFF, &r) && !ioctl(fd, TUNSETVNETHDRSZ, &header) && !ioctl(fd, TUNSETOFFLOAD, 0))
		return fd;
	error_set(e, "--net tap=%s: %s%s", name, strerror(errno),
		  errno == EPERM ? "; does it exist, with you as its owner?" : "");
	close(fd);
	return -1;
}

static void *tap_open(struct device *d, const struct net_spec *spec, struct error *e)
{
	struct tap *t = calloc(1, sizeof(*t));

	if (!t) {
		error_set(e, "out of memory");
		return NULL;
	}
	t->d = d;
	t->fd = open_tap(spec->name, e);
	if (t->fd < 0) {
		free(t);
		return NULL;
	}
	return t;
}

static void tap_close(void *link)
{
	struct tap *t = link;

	close(t->fd);
	free(t);
}

static bool tap_send(void *link, uint8_t *frame, size_t len)
{
	const struct tap *t = link;

	return write(t->fd, frame - NET_HEADER, NET_HEADER + len) == (ssize_t)(NET_HEADER + len);
}

static unsigned int tap_fds(void *link, struct pollfd *f, bool room, int *timeout)
{
	const struct tap *t = link;

	(void)timeout;
	f[0] = (struct pollfd){ .fd = t->fd, .events = POLLIN };
	return room;
}

static void tap_ready(void *link, const struct pollfd *f, unsigned int n)
{
	struct tap *t = link;

	if (!n || !(f[0].revents & POLLIN))
		return;
	for (unsigned int i = 0; i < ROUND && net_has_room(t->d); i++) {
		const ssize_t len = read(t->fd, t->buffer, sizeof(t->buffer));

		if (len < NET_HEADER)
			return;
		net_deliver(t->d, t->buffer + NET_HEADER, (size_t)len - NET_HEADER);
	}
}

static void tap_calls(struct seal_calls *c)
{
	(void)c;
}

const struct net_link_ops net_tap = { tap_open, tap_close, tap_send, tap_fds, tap_ready, tap_calls, false };
