// SPDX-License-Identifier: MIT
/*
 * A network in user mode as a network's link: libslirp plays the router, DHCP and
 * name server of 10.0.2.0/24, and ends the guest's connections in sockets of this
 * process. It takes no privilege, and what the guest reaches is what the user does.
 *
 * The library is loaded when a --net user asks for it. Left out of it on purpose:
 * TFTP, forwarding to programs, the rewriting of protocols, and IPv6.
 *
 * A segment of TCP from the guest may be as long as an IPv4 packet can be: the library
 * writes it to the socket as it is.
 *
 * After the seal there are sockets of IPv4 and their calls, and no files. The address
 * of the name server is read from /etc/resolv.conf before, see learn_resolver(); the
 * library keeps looking whether that file has changed, but cannot read it again.
 *
 * The library puts no bound on what a guest makes it hold: a socket for each pair of
 * ports, fragments, segments out of order. So there are two here, of sockets and of
 * bytes allocated. Beyond the second the guest's frames are dropped unless they let go
 * of something: TCP without data, other than SYN, gets through. Beyond the first what
 * would take another socket is dropped.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "net.h"

#define LIBRARY "libslirp.so.0"

#define NETWORK 0x0a000200u /* 10.0.2.0/24 */
#define NETMASK 0xffffff00u
#define HOST 2
#define RESOLVER 3
#define GUEST 15 /* the first that DHCP gives */

#define TIMERS 4
#define HELD_MAX (32u << 20)	  /* bytes, beside ... */
#define SOCKET_BYTES (256u << 10) /* of each socket: TCP's buffers */
#define LOOK_EVERY (2u << 20)	  /* bytes sent */
#define FRAME_COST 2048		  /* bytes, beside a frame's own */
#define RESERVE 64		  /* sockets, for who has one already */
#define SENDERS 2048
#define FDS_ELSEWHERE 128 /* descriptors that the rest of the process has */
/* What the library says when nothing has a timeout, and the least of a connection's. */
#define IDLE_MS 1000
/* Longer than the library trusts its copy of resolv.conf without a look, and than a socket lives that nobody uses. */
#define RESOLVER_CACHE_MS 2000
#define RESOLVER_SOCKET_MS 300000

struct timer {
	SlirpTimerCb run;
	void *opaque;
	int64_t at; /* ms, -1 = not set */
};

struct user {
	struct device *d;
	Slirp *slirp;
	struct timer timer[TIMERS];
	int64_t skew; /* ns that our clock is ahead by */

	unsigned int sockets, socket_max; /* beside the listening ones */
	int last_fd;
	int listening[NET_FORWARDS];
	unsigned int listeners;
	struct pollfd *fds; /* being filled */
	const struct pollfd *polled;
	unsigned int fd_count;
	bool room;

	uint64_t sender[SENDERS]; /* of datagrams, the last at each place */
	size_t unseen;		  /* bytes sent since the last look at what is held */
	size_t held_before;	  /* bytes, when the network was new */
	bool over, said_over, said_sockets;
};

/* The library. One network at a time: it has variables of its own that all of them share. */
static struct {
	void *handle;
	bool in_use;
	typeof(&slirp_new) new;
	typeof(&slirp_cleanup) cleanup;
	typeof(&slirp_input) input;
	typeof(&slirp_pollfds_fill) fill;
	typeof(&slirp_pollfds_poll) poll;
	typeof(&slirp_add_hostfwd) add_hostfwd;
} lib;

/* Asserted or complained about by the library: a guest can cause it, so it is said once. */
static void on_log(const char *domain, int level, const char *message, void *to)
{
	static bool said;

	(void)domain;
	(void)level;
	(void)to;
	if (!said)
		host_say("net: libslirp: %s", message);
	said = true;
}

static int load_library(struct error *e)
{
	static const struct {
		const char *name;
		void *to;
	} symbols[] = {
		{ "slirp_new", &lib.new },	     { "slirp_cleanup", &lib.cleanup },
		{ "slirp_input", &lib.input },	     { "slirp_pollfds_fill", &lib.fill },
		{ "slirp_pollfds_poll", &lib.poll }, { "slirp_add_hostfwd", &lib.add_hostfwd },
	};
	void (*set_handler)(void (*log)(const char *domain, int level, const char *text, void *to), void *to);

	if (lib.handle)
		return 0;
	lib.handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!lib.handle)
		return error_set(e, "--net user: %s", dlerror());
	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		void *at = dlsym(lib.handle, symbols[i].name);

		if (!at)
			return error_set(e, "--net user: " LIBRARY " has no %s", symbols[i].name);
		memcpy(symbols[i].to, &at, sizeof(at));
	}
	/* GLib's, with which it comes. */
	*(void **)&set_handler = dlsym(lib.handle, "g_log_set_default_handler");
	if (set_handler)
		set_handler(on_log, NULL);
	return 0;
}

/* What the library calls */

static ssize_t send_packet(const void *frame, size_t len, void *to)
{
	struct user *u = to;

	net_deliver(u->d, frame, len);
	return (ssize_t)len;
}

static void guest_error(const char *message, void *to)
{
	on_log(NULL, 0, message, to);
}

static int64_t clock_ns(void *to)
{
	const struct user *u = to;
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec + u->skew;
}

static int64_t clock_ms(struct user *u)
{
	return clock_ns(u) / 1000000;
}

static void *timer_new(SlirpTimerCb run, void *opaque, void *to)
{
	struct user *u = to;

	for (unsigned int i = 0; i < TIMERS; i++)
		if (!u->timer[i].run) {
			u->timer[i] = (struct timer){ run, opaque, -1 };
			return &u->timer[i];
		}
	abort(); /* it has one, and only with IPv6 */
}

static void timer_free(void *timer, void *to)
{
	(void)to;
	*(struct timer *)timer = (struct timer){ 0 };
}

static void timer_mod(void *timer, int64_t at, void *to)
{
	(void)to;
	((struct timer *)timer)->at = at;
}

static void register_fd(int fd, void *to)
{
	struct user *u = to;

	if (fd < 0)
		return;
	u->last_fd = fd;
	u->sockets++;
}

static void unregister_fd(int fd, void *to)
{
	struct user *u = to;

	if (fd >= 0 && u->sockets)
		u->sockets--;
}

static void notify(void *to)
{
	(void)to; /* it is only ever called from this thread, which polls next */
}

static const SlirpCb callbacks = {
	.send_packet = send_packet,
	.guest_error = guest_error,
	.clock_get_ns = clock_ns,
	.timer_new = timer_new,
	.timer_free = timer_free,
	.timer_mod = timer_mod,
	.register_poll_fd = register_fd,
	.unregister_poll_fd = unregister_fd,
	.notify = notify,
};

/* Waiting */

static const struct {
	int slirp;
	short poll;
} events[] = {
	{ SLIRP_POLL_IN, POLLIN },   { SLIRP_POLL_OUT, POLLOUT }, { SLIRP_POLL_PRI, POLLPRI },
	{ SLIRP_POLL_ERR, POLLERR }, { SLIRP_POLL_HUP, POLLHUP },
};

static bool is_listening(const struct user *u, int fd)
{
	for (unsigned int i = 0; i < u->listeners; i++)
		if (u->listening[i] == fd)
			return true;
	return false;
}

static int add_poll(int fd, int what, void *to)
{
	struct user *u = to;
	struct pollfd *f = &u->fds[u->fd_count];

	if (!u->room || u->fd_count == NET_FDS || (u->sockets >= u->socket_max - RESERVE && is_listening(u, fd)))
		return -1;
	*f = (struct pollfd){ .fd = fd };
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		if (what & events[i].slirp)
			f->events |= events[i].poll;
	return (int)u->fd_count++;
}

static int get_revents(int index, void *to)
{
	const struct user *u = to;
	int what = 0;

	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		if (u->polled[index].revents & events[i].poll)
			what |= events[i].slirp;
	return what;
}

static unsigned int user_fds(void *link, struct pollfd *f, bool room, int *timeout)
{
	struct user *u = link;
	uint32_t ms = UINT32_MAX;

	u->fds = f;
	u->fd_count = 0;
	u->room = room;
	lib.fill(u->slirp, &ms, add_poll, u);
	/* Sockets that only listen have timeouts with nothing to do: an idle guest costs nothing. */
	if (ms < IDLE_MS && (u->sockets || ms < IDLE_MS / 4))
		*timeout = (int)ms;
	for (unsigned int i = 0; i < TIMERS; i++)
		if (u->timer[i].run && u->timer[i].at >= 0) {
			const int64_t left = u->timer[i].at - clock_ms(u);
			const int wait = left < 0 ? 0 : left > IDLE_MS ? IDLE_MS : (int)left;

			if (*timeout < 0 || wait < *timeout)
				*timeout = wait;
		}
	return u->fd_count;
}

static void user_ready(void *link, const struct pollfd *f, unsigned int n)
{
	struct user *u = link;

	(void)n;
	u->polled = f;
	lib.poll(u->slirp, 0, get_revents, u);
	for (unsigned int i = 0; i < TIMERS; i++) {
		struct timer *t = &u->timer[i];

		if (t->run && t->at >= 0 && t->at <= clock_ms(u)) {
			t->at = -1;
			t->run(t->opaque);
		}
	}
}

/* From the guest */

/* What of a frame matters here. */
struct glance {
	enum { OTHER, ARP, UDP, TCP } kind; /* a fragment is OTHER */
	bool syn, data;
	uint32_t from;
	uint16_t from_port, to_port;
};

static struct glance glance_at(const uint8_t *frame, size_t len)
{
	const uint8_t *at = frame + NET_ETHERNET;
	struct glance g = { .kind = OTHER };
	struct iphdr ip;
	size_t header;

	len -= NET_ETHERNET;
	if (frame[12] == 0x08 && frame[13] == 0x06)
		g.kind = ARP;
	if (frame[12] != 0x08 || frame[13] != 0x00 || len < sizeof(ip))
		return g;
	memcpy(&ip, at, sizeof(ip));
	header = ip.ihl * 4u;
	if (header < sizeof(ip) || len < header + sizeof(struct tcphdr) || ip.frag_off & htons(0x3fff))
		return g;
	g.from = ip.saddr;
	memcpy(&g.from_port, at + header, 2);
	memcpy(&g.to_port, at + header + 2, 2);
	if (ip.protocol == IPPROTO_UDP) {
		g.kind = UDP;
	} else if (ip.protocol == IPPROTO_TCP) {
		struct tcphdr tcp;

		memcpy(&tcp, at + header, sizeof(tcp));
		g.kind = TCP;
		g.syn = tcp.syn;
		g.data = ntohs(ip.tot_len) > header + tcp.doff * 4u;
	}
	return g;
}

/* Does nothing of the library's grow by it? */
static bool lets_go(const struct glance *g)
{
	return g->kind == ARP || (g->kind == TCP && !g->syn && !g->data);
}

/* Who sent a datagram: the library has a socket for each of them. */
static uint64_t key_of(const struct glance *g)
{
	return (uint64_t)g->from << 16 | g->from_port;
}

static unsigned int slot_of(const struct glance *g)
{
	return (unsigned int)(key_of(g) * UINT64_C(0x9e3779b97f4a7c15) >> 32) % SENDERS;
}

/* Near the limit of sockets: is this of a connection that is, or what a guest cannot start without? */
static bool goes_on(const struct user *u, const struct glance *g)
{
	if (g->kind != UDP || u->sockets >= u->socket_max)
		return g->kind == ARP || (g->kind == TCP && !g->syn);
	return g->to_port == htons(53) || g->to_port == htons(67) || u->sender[slot_of(g)] == key_of(g);
}

static size_t allocated(void)
{
	const struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static void look_at_memory(struct user *u)
{
	const size_t now = allocated(), may = HELD_MAX + u->sockets * (size_t)SOCKET_BYTES;

	u->unseen = 0;
	u->over = now > u->held_before && now - u->held_before > may;
	if (u->over && !u->said_over)
		host_say("net %u: the guest makes its network hold %zu MiB; frames are dropped until it is less",
			 u->d->index, may >> 20);
	u->said_over |= u->over;
}

static bool user_send(void *link, uint8_t *frame, size_t len)
{
	struct user *u = link;
	const struct glance g = glance_at(frame, len);

	u->unseen += len + FRAME_COST;
	if (u->unseen >= LOOK_EVERY)
		look_at_memory(u);
	if (u->over && !lets_go(&g))
		return false;
	if (u->sockets >= u->socket_max - RESERVE && !goes_on(u, &g)) {
		if (!u->said_sockets)
			host_say("net %u: the guest has %u connections, which is the limit", u->d->index, u->sockets);
		u->said_sockets = true;
		return false;
	}
	if (g.kind == UDP)
		u->sender[slot_of(&g)] = key_of(&g);
	lib.input(u->slirp, frame, (int)len);
	/* It may be the answer that frames to the guest wait for; sent with the next look, which may be never. */
	if (g.kind == ARP)
		lib.poll(u->slirp, 1, get_revents, u);
	return true;
}

/* Opening */

/*
 * The library finds the name server when the guest first asks it, and remembers
 * what resolv.conf looked like when it reads it again because the copy is old. So we
 * ask, twice with time between; an empty datagram that goes no further than the next
 * router.
 */
static void learn_resolver(struct user *u)
{
	static const uint8_t mac[12] = { 0x52, 0x55, 10, 0, 2, RESOLVER, 0x02, 0x4b, 0x45, 0x45, 0x4c, 0 };
	struct {
		uint8_t mac[12];
		uint16_t type;
		struct iphdr ip;
		struct udphdr udp;
	} __attribute__((packed)) q = {
		.type = htons(0x0800),
		.ip = { .ihl = 5,
			.version = 4,
			.tot_len = htons(sizeof(q.ip) + sizeof(q.udp)),
			.ttl = 2,
			.protocol = IPPROTO_UDP,
			.saddr = htonl(NETWORK | GUEST),
			.daddr = htonl(NETWORK | RESOLVER) },
		.udp = { .source = htons(9), .dest = htons(53), .len = htons(sizeof(q.udp)) },
	};
	struct iphdr ip = q.ip;
	int timeout = -1;

	memcpy(q.mac, mac, sizeof(mac));
	q.ip.check = net_checksum(&ip, sizeof(ip));
	for (int i = 0; i < 2; i++) {
		user_ready(u, NULL, 0);
		lib.input(u->slirp, (const uint8_t *)&q, sizeof(q));
		u->skew += RESOLVER_CACHE_MS * INT64_C(1000000);
	}
	/* And much later, when its socket has served. */
	u->skew += RESOLVER_SOCKET_MS * INT64_C(1000000);
	user_ready(u, NULL, 0);
	user_fds(u, NULL, false, &timeout);
}

static int forward(struct user *u, const struct net_forward *f, struct error *e)
{
	const struct in_addr host = { f->host };
	const struct in_addr guest = { f->guest ? f->guest : htonl(NETWORK | GUEST) };

	u->last_fd = -1;
	if (lib.add_hostfwd(u->slirp, f->udp, host, f->host_port, guest, f->guest_port))
		return error_set(e, "--net user: hostfwd=%s: %s", f->text, strerror(errno));
	/* One that hangs up before it is accepted shall not make accept() wait for the next. */
	if (!f->udp && u->last_fd >= 0)
		fcntl(u->last_fd, F_SETFL, fcntl(u->last_fd, F_GETFL) | O_NONBLOCK);
	u->listening[u->listeners++] = u->last_fd;
	return 0;
}

/* Sockets are limited by what this process may have open, too. */
static unsigned int socket_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r))
		return NET_SOCKETS / 2;
	if (r.rlim_cur < NET_FDS + FDS_ELSEWHERE && r.rlim_max > r.rlim_cur) {
		r.rlim_cur = r.rlim_max < NET_FDS + FDS_ELSEWHERE ? r.rlim_max : NET_FDS + FDS_ELSEWHERE;
		setrlimit(RLIMIT_NOFILE, &r);
	}
	return r.rlim_cur >= NET_FDS + FDS_ELSEWHERE ? NET_SOCKETS : (unsigned int)r.rlim_cur / 2;
}

static void user_close(void *link)
{
	struct user *u = link;

	if (u->slirp)
		lib.cleanup(u->slirp);
	lib.in_use = false;
	free(u);
}

static void *user_open(struct device *d, const struct net_spec *spec, struct error *e)
{
	const SlirpConfig config = {
		.version = 4,
		.in_enabled = true,
		.vnetwork.s_addr = htonl(NETWORK),
		.vnetmask.s_addr = htonl(NETMASK),
		.vhost.s_addr = htonl(NETWORK | HOST),
		.vnameserver.s_addr = htonl(NETWORK | RESOLVER),
		.vdhcp_start.s_addr = htonl(NETWORK | GUEST),
		.vhostname = "keel",
		.if_mtu = spec->mtu,
		.if_mru = spec->mtu,
	};
	struct user *u;

	if (lib.in_use) {
		error_set(e, "--net user: there is one already");
		return NULL;
	}
	if (load_library(e))
		return NULL;
	u = calloc(1, sizeof(*u));
	if (!u) {
		error_set(e, "out of memory");
		return NULL;
	}
	lib.in_use = true;
	u->d = d;
	d->sockets = true;
	u->socket_max = socket_limit();
	u->slirp = lib.new(&config, &callbacks, u);
	if (!u->slirp)
		error_set(e, "--net user: libslirp cannot make a network");
	for (unsigned int i = 0; u->slirp && i < spec->forwards; i++)
		if (forward(u, &spec->forward[i], e)) {
			user_close(u);
			return NULL;
		}
	if (!u->slirp) {
		user_close(u);
		return NULL;
	}
	u->sockets = 0; /* beside those that listen */
	learn_resolver(u);
	u->held_before = allocated();
	return u;
}

/*
 * What the library asks of the kernel for a guest's connections; listening sockets
 * were made before. Rules cannot name files: the stat() is of any, the answer to
 * open() is no.
 */
static void user_calls(struct seal_calls *c)
{
	static const uint32_t ioctls[] = { FIONREAD };
#define SOCKET(type, protocol, what)                                                                                   \
	{                                                                                                              \
		SCMP_SYS(socket), 3, { SEAL_IS(0, AF_INET), SEAL_IS(1, (type) | SOCK_CLOEXEC), SEAL_IS(2, protocol) }, \
			what                                                                                           \
	}
#define OPTION(level, name)                                                         \
	{                                                                           \
		SCMP_SYS(setsockopt), 2, { SEAL_IS(1, level), SEAL_IS(2, name) }, 0 \
	}
	static const struct seal_rule rules[] = {
		SOCKET(SOCK_STREAM, 0, 0),
		SOCKET(SOCK_DGRAM, 0, 0),
		SOCKET(SOCK_DGRAM, IPPROTO_ICMP, 0),
		SOCKET(SOCK_RAW, IPPROTO_ICMP, EACCES), /* it tries when there is no other ping */
		OPTION(SOL_SOCKET, SO_REUSEADDR),
		OPTION(SOL_SOCKET, SO_OOBINLINE),
		OPTION(IPPROTO_TCP, TCP_NODELAY),
		OPTION(IPPROTO_IP, IP_TTL),
		OPTION(IPPROTO_IP, IP_RECVERR),
		{ SCMP_SYS(connect), 0, { { 0 } }, 0 },
		{ SCMP_SYS(accept), 0, { { 0 } }, 0 },
		{ SCMP_SYS(sendto), 0, { { 0 } }, 0 },
		{ SCMP_SYS(recvfrom), 0, { { 0 } }, 0 },
		{ SCMP_SYS(recvmsg), 1, { SEAL_IS(2, MSG_ERRQUEUE) }, 0 },
		{ SCMP_SYS(shutdown), 0, { { 0 } }, 0 },
		{ SCMP_SYS(getsockopt), 2, { SEAL_IS(1, SOL_SOCKET), SEAL_IS(2, SO_ERROR) }, 0 },
		{ SCMP_SYS(getpeername), 0, { { 0 } }, 0 },
		{ SCMP_SYS(fcntl), 1, { SEAL_IS(1, F_GETFL) }, 0 },
		{ SCMP_SYS(fcntl), 1, { SEAL_IS(1, F_SETFL) }, 0 },
		{ SCMP_SYS(close), 0, { { 0 } }, 0 },
		{ SCMP_SYS(newfstatat),
		  2,
		  { SEAL_CMP(0, MASKED_EQ, UINT32_MAX, (uint32_t)AT_FDCWD), SEAL_IS(3, 0) },
		  0 },
		{ SCMP_SYS(openat), 0, { { 0 } }, EACCES },
	};
#undef SOCKET
#undef OPTION

	*c = (struct seal_calls){ ioctls, sizeof(ioctls) / sizeof(ioctls[0]), rules, sizeof(rules) / sizeof(rules[0]) };
}

const struct net_link_ops net_user = { user_open, user_close, user_send, user_fds, user_ready, user_calls, true };
