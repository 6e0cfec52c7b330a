// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "link.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_MS 20000
#define SETTLE_MS 500

void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

void link_start(struct link *l, const char *name, char *const argv[], const cpu_set_t *cpus)
{
	int to[2], from[2];

	*l = (struct link){ .name = name };
	if (pipe(to) || pipe(from))
		die("pipe: %s", strerror(errno));
	l->pid = fork();
	if (l->pid < 0)
		die("fork: %s", strerror(errno));
	if (!l->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (cpus && sched_setaffinity(0, sizeof(*cpus), cpus))
			_exit(127);
		dup2(to[0], 0);
		dup2(from[1], 1);
		for (int fd = 3; fd < 64; fd++)
			close(fd);
		execv(argv[0], argv);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	l->in = to[1];
	l->out = from[0];
	if (strcmp(link_line(l), "ready"))
		die("%s did not get ready", name);
}

void link_send(struct link *l, const char *text)
{
	size_t n = strlen(text);

	if (write(l->in, text, n) != (ssize_t)n)
		die("%s does not listen: %s", l->name, strerror(errno));
}

const char *link_line(struct link *l)
{
	static char line[sizeof(l->buf)];

	for (;;) {
		char *end = memchr(l->buf, '\n', l->have);
		struct pollfd p = { .fd = l->out, .events = POLLIN };
		ssize_t n;

		if (end) {
			size_t len = (size_t)(end - l->buf);

			memcpy(line, l->buf, len);
			line[len] = '\0';
			if (len && line[len - 1] == '\r')
				line[len - 1] = '\0';
			l->have -= len + 1;
			memmove(l->buf, end + 1, l->have);
			if (line[0] == '#')
				continue;
			return line;
		}
		if (l->have == sizeof(l->buf))
			die("%s talks too much", l->name);
		if (poll(&p, 1, ANSWER_MS) <= 0)
			die("%s does not answer", l->name);
		n = read(l->out, l->buf + l->have, sizeof(l->buf) - l->have);
		if (n <= 0)
			die("%s ended", l->name);
		l->have += (size_t)n;
	}
}

void link_ask(struct link *l, const char *op, unsigned int reps, uint64_t *min, uint64_t *median)
{
	char text[96], name[64];
	const char *answer;

	snprintf(text, sizeof(text), "%s %u 0\n", op, reps);
	link_send(l, text);
	answer = link_line(l);
	if (sscanf(answer, "%63s %" SCNu64 " %" SCNu64, name, min, median) != 3 || strcmp(name, op))
		die("%s answers %s with: %s", l->name, op, answer);
}

void link_stop(struct link *l)
{
	int status;

	link_send(l, "quit\n");
	if (waitpid(l->pid, &status, 0) != l->pid || status)
		die("%s ended with wait status %#x", l->name, (unsigned int)status);
	close(l->in);
	close(l->out);
}

/* Calls fn with each child of a process. */
static void for_each_child(pid_t parent, void (*fn)(pid_t pid, void *arg), void *arg)
{
	DIR *d = opendir("/proc");
	struct dirent *e;

	if (!d)
		die("/proc: %s", strerror(errno));
	while ((e = readdir(d))) {
		char path[300], text[512], *close;
		int ppid;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%s/stat", e->d_name);
		if (e->d_name[0] < '1' || e->d_name[0] > '9' || !(f = fopen(path, "re")))
			continue;
		text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
		fclose(f);
		close = strrchr(text, ')');
		if (!close || sscanf(close + 1, " %*c %d", &ppid) != 1 || ppid != parent)
			continue;
		/* The probe of --backend auto, on its way out. */
		if (strstr(text, "(keel-probe)"))
			continue;
		fn(atoi(e->d_name), arg);
	}
	closedir(d);
}

static void note_child(pid_t pid, void *arg)
{
	pid_t *found = arg;

	*found = *found ? -1 : pid;
}

pid_t only_child(pid_t parent)
{
	pid_t found = 0;

	for_each_child(parent, note_child, &found);
	if (found <= 0)
		die("process %d has %s", (int)parent, found ? "several children" : "no child");
	return found;
}

struct visit {
	void (*fn)(pid_t pid, void *arg);
	void *arg;
};

static void visit(pid_t pid, void *arg)
{
	const struct visit *v = arg;

	for_each_process(pid, v->fn, v->arg);
}

void for_each_process(pid_t pid, void (*fn)(pid_t pid, void *arg), void *arg)
{
	struct visit v = { fn, arg };

	fn(pid, arg);
	for_each_child(pid, visit, &v);
}

pid_t guest_process(pid_t host)
{
	return only_child(only_child(host));
}

void for_each_thread(pid_t pid, void (*fn)(pid_t pid, pid_t tid, void *arg), void *arg)
{
	char path[64];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	if (!d)
		die("%s: %s", path, strerror(errno));
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			fn(pid, atoi(e->d_name), arg);
	closedir(d);
}

static void pin_thread(pid_t pid, pid_t tid, void *arg)
{
	(void)pid;
	if (sched_setaffinity(tid, sizeof(cpu_set_t), arg))
		die("cannot place thread %d: %s", (int)tid, strerror(errno));
}

void pin_process(pid_t pid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	for_each_thread(pid, pin_thread, &set);
}

static void seize_thread(pid_t pid, pid_t tid, void *arg)
{
	(void)pid, (void)arg;
	if (ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD) || ptrace(PTRACE_INTERRUPT, tid, 0, 0))
		die("thread %d cannot be traced: %s", (int)tid, strerror(errno));
}

static void release_thread(pid_t pid, pid_t tid, void *arg)
{
	int status;

	(void)pid, (void)arg;
	ptrace(PTRACE_INTERRUPT, tid, 0, 0);
	if (waitpid(tid, &status, __WALL) != tid || ptrace(PTRACE_DETACH, tid, 0, 0))
		die("thread %d cannot be released: %s", (int)tid, strerror(errno));
}

struct calls {
	bool count;
	unsigned int ioctls, others;
};

/* Let a thread that has stopped go on. */
static void follow_thread(pid_t pid, pid_t tid, void *arg)
{
	struct calls *c = arg;
	int status;

	(void)pid;
	while (waitpid(tid, &status, WNOHANG | __WALL) == tid) {
		struct __ptrace_syscall_info info;
		int sig = WSTOPSIG(status);

		if (!WIFSTOPPED(status))
			die("thread %d ended, wait status %#x", (int)tid, (unsigned int)status);
		if (sig == (SIGTRAP | 0x80)) {
			if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) <= 0)
				die("PTRACE_GET_SYSCALL_INFO: %s", strerror(errno));
			if (c->count && info.op == PTRACE_SYSCALL_INFO_ENTRY)
				*(info.entry.nr == SYS_ioctl ? &c->ioctls : &c->others) += 1;
			sig = 0;
		} else if (status >> 16) {
			sig = 0; /* a stop of ptrace's own */
		}
		if (ptrace(PTRACE_SYSCALL, tid, 0, sig))
			die("ptrace: %s", strerror(errno));
	}
}

unsigned int count_calls(pid_t pid, unsigned int seconds, unsigned int *others)
{
	struct calls c = { .count = false };

	for_each_thread(pid, seize_thread, NULL);
	for (unsigned int ms = 0; ms < SETTLE_MS + seconds * 1000; ms++) {
		c.count = ms >= SETTLE_MS;
		for_each_thread(pid, follow_thread, &c);
		usleep(1000);
	}
	for_each_thread(pid, release_thread, NULL);
	*others = c.others;
	return c.ioctls;
}
