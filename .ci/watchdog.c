// SPDX-License-Identifier: MIT
/*
 * watchdog - run a command for a bounded time and leave nothing of it behind
 *
 *	watchdog SECONDS REPORT COMMAND [ARG...]
 *
 * The command runs in a session of its own with no standard input. This process
 * is the child subreaper of everything it starts, so a process that outlives
 * the command ends up here however it was orphaned, and nothing that another
 * job on the machine started can be mistaken for it.
 *
 * One line per finding goes to the file REPORT: "timeout SECONDS", "leftover PID
 * NAME", or "signal NUMBER" when this process was told to stop. Exit status: the
 * command's own, 128 + signal, 124 after a timeout; leftovers do not change it,
 * the caller reads the report.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* How long processes may take to die by themselves after the command has ended. */
#define GRACE_NS 2000000000ull
#define POLL_NS 20000000ull

static unsigned long long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

/* Parent, state and name of a process; false when it is gone. */
static bool process_stat(pid_t pid, pid_t *parent, char *state, char *name, size_t size)
{
	char path[40], line[512], *open, *close;
	size_t n;
	FILE *f;
	int ppid;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return false;
	n = fread(line, 1, sizeof(line) - 1, f);
	fclose(f);
	line[n] = '\0';
	open = strchr(line, '(');
	close = strrchr(line, ')'); /* the name may contain anything, ')' too */
	if (!open || !close || sscanf(close + 1, " %c %d", state, &ppid) != 2)
		return false;
	*close = '\0';
	snprintf(name, size, "%s", open + 1);
	*parent = ppid;
	return true;
}

static bool descends_from_us(pid_t pid)
{
	pid_t self = getpid(), parent;
	char state, name[32];
	int depth;

	for (depth = 0; depth < 64 && pid > 1; depth++) {
		if (!process_stat(pid, &parent, &state, name, sizeof(name)))
			return false;
		if (parent == self)
			return true;
		pid = parent;
	}
	return false;
}

/* Kill every live descendant, naming each in report; returns how many there were. */
static unsigned int kill_all(FILE *report)
{
	struct dirent *entry;
	unsigned int n = 0;
	pid_t pid, parent;
	char state, name[32];
	DIR *dir = opendir("/proc");

	if (!dir)
		return 0;
	while ((entry = readdir(dir))) {
		pid = atoi(entry->d_name);
		if (pid <= 0 || !descends_from_us(pid) || !process_stat(pid, &parent, &state, name, sizeof(name)))
			continue;
		if (state == 'Z' || state == 'X')
			continue;
		if (report)
			fprintf(report, "leftover %d %s\n", pid, name);
		kill(pid, SIGKILL);
		n++;
	}
	closedir(dir);
	return n;
}

static void kill_and_reap(FILE *report)
{
	unsigned long long end = now() + 5 * GRACE_NS;

	kill_all(report);
	/* Those forked meanwhile, and those whose parents had to die first, go in later rounds. */
	while (now() < end) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD)
			return;
		kill_all(NULL);
		nanosleep(&(struct timespec){ .tv_nsec = POLL_NS }, NULL);
	}
}

int main(int argc, char **argv)
{
	unsigned long long end, grace;
	struct timespec wait;
	bool ended = false;
	int status = 0, null, sig;
	sigset_t set;
	FILE *report;
	pid_t child, pid;

	if (argc < 4 || atoi(argv[1]) <= 0) {
		fprintf(stderr, "usage: watchdog SECONDS REPORT COMMAND [ARG...]\n");
		return 126;
	}
	report = fopen(argv[2], "we");
	if (!report) {
		perror(argv[2]);
		return 126;
	}
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) {
		perror("watchdog: PR_SET_CHILD_SUBREAPER");
		return 126;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);

	end = now() + strtoull(argv[1], NULL, 10) * 1000000000ull;
	child = fork();
	if (child < 0) {
		perror("watchdog: fork");
		return 126;
	}
	if (!child) {
		sigprocmask(SIG_UNBLOCK, &set, NULL);
		setsid();
		null = open("/dev/null", O_RDONLY);
		if (null >= 0)
			dup2(null, STDIN_FILENO);
		execvp(argv[3], argv + 3);
		perror(argv[3]);
		_exit(127);
	}

	while (!ended) {
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			if (pid == child) {
				ended = true;
				break;
			}
		if (ended)
			break;
		if (now() >= end) {
			fprintf(report, "timeout %s\n", argv[1]);
			kill_and_reap(NULL);
			fclose(report);
			return 124;
		}
		wait.tv_sec = (end - now()) / 1000000000ull;
		wait.tv_nsec = 10000000;
		sig = sigtimedwait(&set, NULL, &wait);
		if (sig > 0 && sig != SIGCHLD) {
			fprintf(report, "signal %d\n", sig);
			kill_and_reap(NULL);
			fclose(report);
			return 128 + sig;
		}
	}

	/* Orphans are our children now. Those on their way out may finish; the rest are findings. */
	grace = now() + GRACE_NS;
	for (;;) {
		pid = waitpid(-1, NULL, WNOHANG);
		if (pid > 0)
			continue;
		if (pid < 0)
			break;
		if (now() >= grace) {
			kill_and_reap(report);
			break;
		}
		nanosleep(&(struct timespec){ .tv_nsec = POLL_NS }, NULL);
	}
	if (fclose(report))
		return 126;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
