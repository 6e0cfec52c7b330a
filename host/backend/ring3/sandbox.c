/* SPDX-License-Identifier: MIT */
/*
 * The layers around K besides its filter: namespaces, an empty root, an
 * unprivileged identity, no capabilities to regain. Each is tried; what the
 * machine refuses (a container, a policy) is reported and the rest stands.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring3.h"

#define NOBODY 65534
#define FD_BASE 3
#define FD_HIGH 100
#define TRY_MEMORY (16u << 20)

static const struct {
	uint64_t flag; /* clone flag, 0 = not a namespace */
	const char *name;
} layers[LAYER_COUNT] = {
	[LAYER_USER_NS] = { CLONE_NEWUSER, "user namespace" },
	[LAYER_MOUNT_NS] = { CLONE_NEWNS, "mount namespace" },
	[LAYER_PID_NS] = { CLONE_NEWPID, "PID namespace" },
	[LAYER_NET_NS] = { CLONE_NEWNET, "network namespace" },
	[LAYER_IPC_NS] = { CLONE_NEWIPC, "IPC namespace" },
	[LAYER_UTS_NS] = { CLONE_NEWUTS, "UTS namespace" },
	[LAYER_CGROUP_NS] = { CLONE_NEWCGROUP, "cgroup namespace" },
	[LAYER_EMPTY_ROOT] = { 0, "empty root" },
	[LAYER_UNPRIVILEGED] = { 0, "unprivileged identity" },
	[LAYER_OOM_SCORE] = { 0, "OOM score" },
	[LAYER_MEMORY_CGROUP] = { 0, "memory cgroup" },
};

const char *sandbox_layer_name(enum layer layer)
{
	return layers[layer].name;
}

/* What the child tells, in a page both share. */
struct spawn_report {
	uint32_t layers;
	int err;
	char what[40];
};

/* clone, not clone3: container filters cannot see into clone3's argument and answer ENOSYS. */
static pid_t clone_with(uint64_t flags, int *pidfd)
{
	return (pid_t)syscall(SYS_clone, flags | CLONE_PIDFD | SIGCHLD, NULL, pidfd, NULL, NULL);
}

/* Which of the namespaces this machine lets us make, found one by one. */
static uint64_t granted_namespaces(void)
{
	uint64_t granted = 0;

	for (unsigned int i = 0; i < LAYER_COUNT; i++) {
		int pidfd;
		pid_t pid;

		if (!layers[i].flag)
			continue;
		pid = clone_with(granted | layers[i].flag, &pidfd);
		if (!pid)
			_exit(0);
		if (pid < 0)
			continue;
		waitpid(pid, NULL, 0);
		close(pidfd);
		granted |= layers[i].flag;
	}
	return granted;
}

static bool write_path(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return ok;
}

static bool write_file(pid_t pid, const char *name, const char *text)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return write_path(path, text);
}

/*
 * A memory cgroup of its own bounds what nothing else does: page tables. Version 2
 * where memory is delegated to us, version 1 where its hierarchy is mounted.
 */
static const struct {
	const char *line;  /* how its line in /proc/self/cgroup begins, after the number */
	const char *mount; /* where it usually is */
	const char *limit;
} hierarchies[] = {
	{ ":memory:", "/sys/fs/cgroup/memory", "memory.limit_in_bytes" },
	{ "::", "/sys/fs/cgroup", "memory.max" },
};

/* A host that was killed could not remove its directory: do it when its process is gone. */
static void remove_stale(const char *parent)
{
	DIR *d = opendir(parent);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		int pid;

		if (sscanf(e->d_name, "keel.%d", &pid) == 1 && kill(pid, 0) && errno == ESRCH)
			unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
	}
	if (d)
		closedir(d);
}

static bool enter_cgroup(struct spawned *s, uint64_t memory)
{
	char line[200], path[sizeof(s->cgroup) + 32], value[24];
	FILE *f = fopen("/proc/self/cgroup", "re");
	bool done = false;

	while (f && !done && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		for (unsigned int h = 0; !done && h < sizeof(hierarchies) / sizeof(hierarchies[0]); h++) {
			const char *at = line + strspn(line, "0123456789");
			size_t n = strlen(hierarchies[h].line);

			if (strncmp(at, hierarchies[h].line, n))
				continue;
			snprintf(s->cgroup, sizeof(s->cgroup), "%.32s%s", hierarchies[h].mount, at + n);
			remove_stale(s->cgroup);
			n = strlen(s->cgroup);
			snprintf(s->cgroup + n, sizeof(s->cgroup) - n, "/keel.%d", (int)s->pid);
			rmdir(s->cgroup); /* of a dead one that had our number */
			if (mkdir(s->cgroup, 0700))
				continue;
			snprintf(value, sizeof(value), "%llu", (unsigned long long)memory);
			snprintf(path, sizeof(path), "%s/%s", s->cgroup, hierarchies[h].limit);
			done = write_path(path, value);
			snprintf(value, sizeof(value), "%d", (int)s->pid);
			snprintf(path, sizeof(path), "%s/cgroup.procs", s->cgroup);
			done = done && write_path(path, value);
			if (!done)
				rmdir(s->cgroup);
		}
	}
	if (f)
		fclose(f);
	if (!done)
		s->cgroup[0] = 0;
	return done;
}

void sandbox_clean(struct spawned *s)
{
	/* Emptied a moment after the last process was waited for. */
	for (int i = 0; s->cgroup[0] && rmdir(s->cgroup) && errno == EBUSY && i < 100; i++)
		usleep(1000);
	s->cgroup[0] = 0;
}

/* Is an id mapped in the user namespace we are in? Inside a container perhaps only a few are. */
static bool mapped(const char *path, unsigned int id)
{
	unsigned int inside, outside, count;
	bool found = false;
	FILE *f = fopen(path, "re");

	while (f && !found && fscanf(f, "%u %u %u", &inside, &outside, &count) == 3)
		found = id >= inside && id - inside < count;
	if (f)
		fclose(f);
	return found;
}

/* Root becomes nobody where there is one; everybody else stays who they are. */
static bool can_be_nobody(void)
{
	return geteuid() == 0 && mapped("/proc/self/uid_map", NOBODY) && mapped("/proc/self/gid_map", NOBODY);
}

static _Noreturn void child_fail(struct spawn_report *r, const char *what)
{
	r->err = errno ? errno : EINVAL;
	snprintf(r->what, sizeof(r->what), "%s", what);
	_exit(99);
}

/* A tmpfs with nothing in it becomes the root; the old one is unmounted. */
static bool empty_root(void)
{
	int fs = fsopen("tmpfs", FSOPEN_CLOEXEC), mnt;

	if (fs < 0)
		return false;
	if (fsconfig(fs, FSCONFIG_SET_STRING, "size", "4096", 0) ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "nr_inodes", "2", 0) ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0)) {
		close(fs);
		return false;
	}
	mnt = fsmount(fs, FSMOUNT_CLOEXEC,
		      MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	close(fs);
	if (mnt < 0)
		return false;
	return !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	       !move_mount(mnt, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) && !fchdir(mnt) &&
	       !syscall(SYS_pivot_root, ".", ".") && !umount2(".", MNT_DETACH) && !chdir("/");
}

static _Noreturn void child(int exe, const int *fds, unsigned int nfds, int go, uint64_t ns, bool nobody,
			    struct spawn_report *r)
{
	char *const none[] = { NULL };
	uint64_t token;
	sigset_t set;

	setpgid(0, 0); /* the keys of our terminal are not for the guest; a session would be a scheduling group, too */
	errno = 0;
	if (read(go, &token, sizeof(token)) != sizeof(token))
		child_fail(r, "waiting to be let go");
	if (ns & CLONE_NEWNS && empty_root())
		r->layers |= 1u << LAYER_EMPTY_ROOT;
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	setgroups(0, NULL); /* refused where setgroups is denied; those groups cannot be used for anything */
	/* Behind the map this is nobody, or the user who started us. */
	if (ns & CLONE_NEWUSER || nobody) {
		if (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY))
			child_fail(r, "giving up privileges");
	}
	if (geteuid())
		r->layers |= 1u << LAYER_UNPRIVILEGED;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		child_fail(r, "no_new_privs");
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	sigemptyset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	/* Out of the way first: a source may sit where a target goes. */
	for (unsigned int i = 0; i < nfds; i++)
		if (dup2(fds[i], FD_HIGH + (int)i) < 0)
			child_fail(r, "descriptors");
	if (dup2(exe, FD_HIGH + (int)nfds) < 0)
		child_fail(r, "descriptors");
	for (unsigned int i = 0; i < nfds; i++)
		dup2(FD_HIGH + (int)i, FD_BASE + (int)i);
	syscall(SYS_close_range, FD_BASE + nfds, FD_HIGH + nfds - 1, 0);
	syscall(SYS_close_range, FD_HIGH + nfds + 1, ~0u, 0);
	syscall(SYS_close_range, 0, FD_BASE - 1, 0);
	fcntl(FD_HIGH + (int)nfds, F_SETFD, FD_CLOEXEC);
	syscall(SYS_execveat, FD_HIGH + nfds, "", none, none, AT_EMPTY_PATH);
	child_fail(r, "starting the guest process");
}

int sandbox_spawn(int exe, const int *fds, unsigned int nfds, uint64_t memory, struct spawned *out, const char **what)
{
	const bool nobody = can_be_nobody();
	const uid_t uid = nobody ? NOBODY : geteuid();
	const gid_t gid = nobody ? NOBODY : getegid();
	const uint64_t token = 1;
	uint64_t ns = 0;
	char map[64];
	int go, err = 0;
	bool ok = true;

	*what = "a page to report through";
	out->pid = -1;
	out->layers = 0;
	out->cgroup[0] = 0;
	out->report = mmap(NULL, sizeof(*out->report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (out->report == MAP_FAILED)
		return -errno;
	*what = "eventfd";
	go = eventfd(0, EFD_CLOEXEC);
	if (go < 0) {
		err = -errno;
		goto unmap;
	}
	for (unsigned int i = 0; i < LAYER_COUNT; i++)
		ns |= layers[i].flag;
	*what = "clone";
	out->pid = clone_with(ns, &out->pidfd);
	if (out->pid < 0) {
		ns = granted_namespaces();
		out->pid = clone_with(ns, &out->pidfd);
	}
	if (out->pid < 0) {
		err = -errno;
		goto close;
	}
	if (!out->pid)
		child(exe, fds, nfds, go, ns, nobody, out->report);
	if (ns & CLONE_NEWUSER) {
		*what = "mapping the identity";
		/* Only who may map other ids may map without giving up setgroups. */
		ok = nobody || write_file(out->pid, "setgroups", "deny");
		snprintf(map, sizeof(map), "%u %u 1\n", NOBODY, gid);
		ok = ok && write_file(out->pid, "gid_map", map);
		snprintf(map, sizeof(map), "%u %u 1\n", NOBODY, uid);
		ok = ok && write_file(out->pid, "uid_map", map);
	}
	for (unsigned int i = 0; i < LAYER_COUNT; i++)
		if (ns & layers[i].flag)
			out->layers |= 1u << i;
	if (write_file(out->pid, "oom_score_adj", "1000"))
		out->layers |= 1u << LAYER_OOM_SCORE;
	if (enter_cgroup(out, memory))
		out->layers |= 1u << LAYER_MEMORY_CGROUP;
	ok = ok && write(go, &token, sizeof(token)) == sizeof(token);
	if (ok) {
		close(go);
		return 0;
	}
	err = -errno;
	kill(out->pid, SIGKILL);
	waitpid(out->pid, NULL, 0);
	close(out->pidfd);
	sandbox_clean(out);
close:
	close(go);
unmap:
	munmap(out->report, sizeof(*out->report));
	return err ? err : -EIO;
}

int sandbox_settle(struct spawned *s, const char **what)
{
	static char name[40];
	int err = s->report->err;

	s->layers |= s->report->layers;
	snprintf(name, sizeof(name), "%.*s", (int)sizeof(name) - 1, s->report->what);
	*what = name;
	munmap(s->report, sizeof(*s->report));
	s->report = NULL;
	return -err;
}

int sandbox_try(uint32_t *layers)
{
	/* Not a program: the child fails at its very last step, behind every layer. */
	int exe = open("/dev/null", O_RDONLY | O_CLOEXEC), err;
	struct spawned s;
	const char *what;

	if (exe < 0)
		return -errno;
	err = sandbox_spawn(exe, NULL, 0, TRY_MEMORY, &s, &what);
	close(exe);
	if (err)
		return err;
	waitpid(s.pid, NULL, 0);
	close(s.pidfd);
	sandbox_settle(&s, &what);
	sandbox_clean(&s);
	*layers = s.layers;
	return 0;
}
