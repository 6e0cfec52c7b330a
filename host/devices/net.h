/* SPDX-License-Identifier: MIT */
/*
 * The two ends of a network device's cable: net.c has the guest's, its queues;
 * a link has the world's.
 */
#ifndef KEEL_HOST_NET_H
#define KEEL_HOST_NET_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device.h"

#define NET_HEADER 12 /* bytes of struct virtio_net_hdr, virtio 5.1.6 */
#define NET_ETHERNET 14
#define NET_MTU 1500
#define NET_MTU_MIN 576
#define NET_MTU_MAX 65520
#define NET_FRAME_MAX (NET_ETHERNET + 65535)

#define NET_NAME 16	/* bytes of an interface's name */
#define NET_SOCKETS 512 /* of a user network, for connections */
#define NET_FORWARDS 32
#define NET_FDS (NET_SOCKETS + NET_FORWARDS)

/* What --net says, in parts. */
struct net_spec {
	char name[NET_NAME]; /* of a tap */
	struct net_forward {
		bool udp;
		uint32_t host, guest; /* addresses, network order; 0 = the guest's first */
		uint16_t host_port, guest_port;
		char text[64];
	} forward[NET_FORWARDS];
	unsigned int forwards;
	uint8_t mac[6];
	uint16_t mtu;
};

/* All but open and close are called on the device's thread. */
struct net_link_ops {
	/* By name or privilege. The link, or NULL with the reason in *e. */
	void *(*open)(struct device *d, const struct net_spec *spec, struct error *e);
	void (*close)(void *link);
	/*
	 * A frame from the guest. The NET_HEADER bytes in front of it are zero, and may be sent with it.
	 * False = dropped.
	 */
	bool (*send)(void *link, uint8_t *frame, size_t len);
	/*
	 * What to wait for, at most NET_FDS; *timeout, in ms, may be lowered. Without `room` the guest
	 * has no place for more, and nothing that brings frames shall be waited for.
	 */
	unsigned int (*fds)(void *link, struct pollfd *f, bool room, int *timeout);
	void (*ready)(void *link, const struct pollfd *f, unsigned int n);
	void (*calls)(struct seal_calls *c);
	bool uncut; /* segments of TCP may be sent that are longer than the MTU */
};

extern const struct net_link_ops net_user, net_tap;

/* A frame to the guest, or to nobody when it has no place for it. On the device's thread. */
void net_deliver(struct device *d, const uint8_t *frame, size_t len);
/* Is there place for more than a few? */
bool net_has_room(const struct device *d);

/* The Internet checksum, as it is stored, of any number of bytes. */
uint16_t net_checksum(const void *from, size_t len);

/* device_net's open(), with a link of the caller's if `ops` is not NULL: for tests. */
int net_open_link(struct device *d, const char *text, const struct net_link_ops *ops, struct error *e);

/* "user[,hostfwd=...]" or "tap=NAME", and what both take. 0, or -1 with the reason. */
int net_parse(const char *text, unsigned int index, struct net_spec *spec, const struct net_link_ops **ops,
	      struct error *e);

#endif
