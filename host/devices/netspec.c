// SPDX-License-Identifier: MIT
/* What --net says. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"

/* Locally administered; the last byte is the device's number. */
static const uint8_t default_mac[6] = { 0x02, 0x4b, 0x45, 0x45, 0x4c, 0x00 };

/* "ADDRESS" up to `end`; nothing = 0. */
static bool get_address(const char *at, const char *end, uint32_t *address)
{
	char text[INET_ADDRSTRLEN] = "";
	struct in_addr a = { 0 };

	if ((size_t)(end - at) >= sizeof(text))
		return false;
	memcpy(text, at, (size_t)(end - at));
	if (*text && inet_pton(AF_INET, text, &a) != 1)
		return false;
	*address = a.s_addr;
	return true;
}

/* Digits up to `end`. */
static bool get_number(const char *at, const char *end, unsigned int max, uint16_t *to)
{
	unsigned int n = 0;

	if (at == end)
		return false;
	for (; at < end; at++) {
		if (*at < '0' || *at > '9')
			return false;
		n = n * 10 + (unsigned int)(*at - '0');
		if (n > max)
			return false;
	}
	*to = (uint16_t)n;
	return true;
}

/* tcp|udp:ADDRESS:PORT-[ADDRESS]:PORT */
static int set_forward(struct net_spec *s, const char *text, struct error *e)
{
	struct net_forward f = { .udp = !strncmp(text, "udp:", 4) };
	const char *const host = text + 4, *const end = text + strlen(text);
	const char *const host_port = strchr(host, ':'), *const dash = host_port ? strchr(host_port, '-') : NULL;
	const char *const guest_port = dash ? strchr(dash, ':') : NULL;

	if (s->forwards == NET_FORWARDS)
		return error_set(e, "--net: more than %d hostfwd", NET_FORWARDS);
	/* Every address of the machine is not what a short form should say. */
	if (!guest_port || host == host_port || !get_address(host, host_port, &f.host) ||
	    !get_number(host_port + 1, dash, UINT16_MAX, &f.host_port) || !f.host_port ||
	    !get_address(dash + 1, guest_port, &f.guest) ||
	    !get_number(guest_port + 1, end, UINT16_MAX, &f.guest_port) || !f.guest_port)
		return error_set(e, "--net: hostfwd=%s: not tcp|udp:ADDRESS:PORT-[ADDRESS]:PORT", text);
	snprintf(f.text, sizeof(f.text), "%s", text);
	s->forward[s->forwards++] = f;
	return 0;
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}

static int set_mac(struct net_spec *s, const char *text, struct error *e)
{
	bool ok = strlen(text) == 17;

	for (int i = 0; ok && i < 6; i++) {
		const int high = hex(text[i * 3]), low = hex(text[i * 3 + 1]);

		ok = high >= 0 && low >= 0 && (i == 5 || text[i * 3 + 2] == ':');
		s->mac[i] = (uint8_t)(high << 4 | low);
	}
	if (!ok)
		return error_set(e, "--net: mac=%s: not six hexadecimal bytes with colons between", text);
	if (s->mac[0] & 1 || !memcmp(s->mac, "\0\0\0\0\0", 6))
		return error_set(e, "--net: mac=%s: not the address of one card", text);
	return 0;
}

static int set_mtu(struct net_spec *s, const char *text, struct error *e)
{
	if (!get_number(text, text + strlen(text), NET_MTU_MAX, &s->mtu) || s->mtu < NET_MTU_MIN)
		return error_set(e, "--net: mtu=%s: not a number from %d to %d", text, NET_MTU_MIN, NET_MTU_MAX);
	return 0;
}

static bool starts(const char *text, const char *with, const char **rest)
{
	const size_t len = strlen(with);

	*rest = text + len;
	return !strncmp(text, with, len);
}

static int set_one(struct net_spec *s, const struct net_link_ops *ops, const char *text, struct error *e)
{
	const char *rest;

	if (ops == &net_user && (starts(text, "hostfwd=tcp:", &rest) || starts(text, "hostfwd=udp:", &rest)))
		return set_forward(s, rest - 4, e);
	if (starts(text, "mac=", &rest))
		return set_mac(s, rest, e);
	if (starts(text, "mtu=", &rest))
		return set_mtu(s, rest, e);
	return error_set(e, "--net: \"%s\" is none of %smac=XX:XX:XX:XX:XX:XX, mtu=N", text,
			 ops == &net_user ? "hostfwd=tcp|udp:ADDRESS:PORT-[ADDRESS]:PORT, " : "");
}

int net_parse(const char *text, unsigned int index, struct net_spec *s, const struct net_link_ops **ops,
	      struct error *e)
{
	char copy[2048], *next = copy;
	const char *part, *name;

	memset(s, 0, sizeof(*s));
	memcpy(s->mac, default_mac, sizeof(s->mac));
	s->mac[5] = (uint8_t)index;
	s->mtu = NET_MTU;
	if (strlen(text) >= sizeof(copy))
		return error_set(e, "--net: longer than %zu characters", sizeof(copy) - 1);
	snprintf(copy, sizeof(copy), "%s", text);
	part = strsep(&next, ",");
	if (!strcmp(part, "user")) {
		*ops = &net_user;
	} else if (starts(part, "tap=", &name)) {
		*ops = &net_tap;
		if (!*name || strlen(name) >= NET_NAME || strpbrk(name, "/%"))
			return error_set(e, "--net: tap=%s: not the name of an interface", name);
		snprintf(s->name, sizeof(s->name), "%s", name);
	} else {
		return error_set(e, "--net: \"%s\" is neither user nor tap=NAME", part);
	}
	while ((part = strsep(&next, ",")))
		if (set_one(s, *ops, part, e))
			return -1;
	return 0;
}
