// SPDX-License-Identifier: MIT
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "partition.h"
#include "report.h"

#define KEEPER_FD 3 /* in the keeper */

/* What crosses the socket. */
#define WIRE_SIZE offsetof(struct keeper_message, fds)

static struct {
	pthread_mutex_t lock;
	int fd;
	pid_t pid;
} keeper = { .lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1 };

static int send_message(int fd, const struct keeper_message *m)
{
	union {
		char buf[CMSG_SPACE(sizeof(m->fd))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { (void *)m, WIRE_SIZE };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (m->fds) {
		struct cmsghdr *c;

		h.msg_control = control.buf;
		h.msg_controllen = CMSG_SPACE(m->fds * sizeof(int));
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(m->fds * sizeof(int));
		memcpy(CMSG_DATA(c), m->fd, m->fds * sizeof(int));
	}
	do
		n = sendmsg(fd, &h, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* 0, -EPIPE when the other side is gone, or another negative errno. */
static int receive_message(int fd, struct keeper_message *m)
{
	union {
		char buf[CMSG_SPACE(sizeof(m->fd))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { m, WIRE_SIZE };
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)
	};
	struct cmsghdr *c;
	ssize_t n;

	do
		n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	m->fds = 0;
	c = CMSG_FIRSTHDR(&h);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		m->fds = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(m->fd, CMSG_DATA(c), m->fds * sizeof(int));
	}
	if (!n)
		return -EPIPE;
	return n == (ssize_t)WIRE_SIZE && !(h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ? 0 : -EPROTO;
}

static void close_fds(const struct keeper_message *m)
{
	for (uint32_t i = 0; i < m->fds; i++)
		close(m->fd[i]);
}

static void open_core(struct keeper_message *answer, const char *core, bool explicit)
{
	int fd = core ? elfcore_open(core, explicit) : -1;

	if (fd >= 0)
		answer->fd[answer->fds++] = fd;
	else
		answer->err = core ? -errno : -ENOENT;
}

static _Noreturn void serve(const char *core, bool explicit, const struct keeper_ops *ops)
{
	struct keeper_message request;
	int err = 0;

	while (!err && !receive_message(KEEPER_FD, &request)) {
		struct keeper_message answer = { .what = request.what };

		if (request.what == KEEPER_CORE)
			open_core(&answer, core, explicit);
		else if (request.what == KEEPER_CORE_ONLY)
			ops = NULL;
		else if (request.what >= KEEPER_BACKEND && ops)
			ops->serve(&request, &answer);
		else
			answer.err = -ENOSYS;
		err = send_message(KEEPER_FD, &answer);
		close_fds(&request);
		close_fds(&answer);
	}
	if (ops)
		ops->end();
	_exit(0);
}

/*
 * Nothing of the host's but the socket. What is typed at the host's terminal is not
 * for us; neither is what ends all processes of a service, for the host tells us when.
 */
static void settle(int fd, const struct partition *p)
{
	static const int not_for_us[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE };
	sigset_t none;
	int null;

	prctl(PR_SET_NAME, "keel-keeper");
	setpgid(0, 0);
	signal(SIGCHLD, SIG_DFL);
	for (size_t i = 0; i < sizeof(not_for_us) / sizeof(not_for_us[0]); i++)
		signal(not_for_us[i], SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (fd != KEEPER_FD)
		dup3(fd, KEEPER_FD, O_CLOEXEC);
	syscall(SYS_close_range, KEEPER_FD + 1, ~0u, 0);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < KEEPER_FD; i++)
		if (null < 0 || dup2(null, i) < 0)
			close(i);
	if (null >= 0)
		close(null);
	munmap(p->ram, p->ram_size);
	munmap(p->abi, p->abi_size);
}

int keeper_start(const char *core, bool explicit, const struct keeper_ops *ops, const struct partition *p,
		 struct error *e)
{
	int pair[2];
	pid_t pid;

	if (keeper.fd >= 0)
		return 0;
	/* A datagram is a request, and the end of one side is seen by the other. */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return error_set(e, "cannot make a socket: %s", strerror(errno));
	pid = fork();
	if (!pid) {
		close(pair[0]); /* the end of which tells that the host is gone */
		settle(pair[1], p);
		serve(core, explicit, ops);
	}
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return error_set(e, "cannot start the keeper: %s", strerror(errno));
	}
	keeper.fd = pair[0];
	keeper.pid = pid;
	return 0;
}

int keeper_ask(struct keeper_message *m)
{
	int err = -ENOTCONN;

	pthread_mutex_lock(&keeper.lock);
	if (keeper.fd >= 0) {
		err = send_message(keeper.fd, m);
		if (!err)
			err = receive_message(keeper.fd, m);
		if (!err)
			err = m->err;
	}
	pthread_mutex_unlock(&keeper.lock);
	return err;
}

int keeper_fd(void)
{
	return keeper.fd;
}

void keeper_stop(void)
{
	if (keeper.fd < 0)
		return;
	close(keeper.fd);
	keeper.fd = -1;
	while (waitpid(keeper.pid, NULL, 0) < 0 && errno == EINTR)
		;
}
