/* SPDX-License-Identifier: MIT */
/*
 * The layers around K besides its filter: namespaces, an empty root, an
 * unprivileged identity, no capabilities to regain. Each is tried; what the
 * machine refuses (a container, a policy) is reported and the rest stands.
 *
 * All of that is done by the keeper, whose child K is: V itself is sealed, also
 * when the partition restarts and needs another K.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../keeper.h"
#include "../../monitor/monitor.h"
#include "layout.h"
#include "ring3.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

/* K's program, linked by ring3.mk. */
extern const char ring3_k_image[], ring3_k_image_end[];

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

/* The keeper's own: the one K there is. */
static struct kept {
	pid_t pid; /* 0 = none */
	int pidfd;
	uint32_t layers;
	struct spawn_report *report; /* what the child tells until its exec */
	char cgroup[256];	     /* its memory cgroup's directory; empty = none */
} k;

/* clone, not clone3: container filters cannot see into clone3's argument and answer ENOSYS. */
static pid_t clone_with(uint64_t flags, int *pidfd)
{
	return (pid_t)syscall(SYS_clone, flags | CLONE_PIDFD | SIGCHLD, NULL, pidfd, NULL, NULL);
}

/* Which of the namespaces this machine lets us make, found one by one. */
static uint64_t granted_namespaces(uint64_t wanted)
{
	uint64_t granted = 0;

	for (unsigned int i = 0; i < LAYER_COUNT; i++) {
		int pidfd;
		pid_t pid;

		if (!(layers[i].flag & wanted))
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

static bool enter_cgroup(struct kept *s, uint64_t memory)
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

static void leave_cgroup(struct kept *s)
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
			    const struct sock_fprog *outer, struct spawn_report *r)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	const struct __user_cap_data_struct none_of_them[_LINUX_CAPABILITY_U32S_3] = { 0 };
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
	/* Behind the map this is nobody, or the user who started us. Without a map, a root that lacks the right stays root. */
	if ((ns & CLONE_NEWUSER || nobody) &&
	    (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY)) &&
	    (ns & CLONE_NEWUSER || errno != EPERM))
		child_fail(r, "giving up privileges");
	if (syscall(SYS_capset, &head, none_of_them))
		child_fail(r, "giving up capabilities");
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
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, outer))
		child_fail(r, "the first filter");
	syscall(SYS_execveat, FD_HIGH + nfds, "", none, none, AT_EMPTY_PATH);
	child_fail(r, "starting the guest process");
}

static int k_program(void)
{
	const size_t len = (size_t)(ring3_k_image_end - ring3_k_image);
	/* Linux before 6.3 does not know MFD_EXEC; later ones may make files without it not executable. */
	int fd = memfd_create("keel-guest", MFD_CLOEXEC | MFD_EXEC);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("keel-guest", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, ring3_k_image, len) != (ssize_t)len) {
		close(fd);
		return -EIO;
	}
	return fd;
}

static void kill_child(void)
{
	pid_t pid;

	kill(k.pid, SIGKILL);
	/* Threads look() traced are ours to wait for, too, and the process is not dead before them. */
	do
		pid = waitpid(-1, NULL, __WALL);
	while (pid != k.pid && (pid >= 0 || errno == EINTR));
	close(k.pidfd);
	k.pid = 0;
}

/* In the keeper: at most one K, and nothing left of the one before. */
static void end_k(void)
{
	if (k.pid > 0) {
		kill_child();
		leave_cgroup(&k);
	}
	if (k.report)
		munmap(k.report, sizeof(*k.report));
	memset(&k, 0, sizeof(k));
}

static bool map_identity(bool nobody)
{
	const uid_t uid = nobody ? NOBODY : geteuid();
	const gid_t gid = nobody ? NOBODY : getegid();
	char map[64];

	/* Only who may map other ids may map without giving up setgroups. */
	if (!nobody && !write_file(k.pid, "setgroups", "deny"))
		return false;
	snprintf(map, sizeof(map), "%u %u 1\n", NOBODY, gid);
	if (!write_file(k.pid, "gid_map", map))
		return false;
	snprintf(map, sizeof(map), "%u %u 1\n", NOBODY, uid);
	return write_file(k.pid, "uid_map", map);
}

/* Closes exe. Returns 0 or a negative errno with *what naming the step that failed. */
static int spawn(int exe, const int *fds, unsigned int nfds, uint64_t memory, const char **what)
{
	const bool nobody = can_be_nobody();
	const uint64_t token = 1;
	struct sock_filter code[RING3_OUTER_MAX];
	struct sock_fprog outer = { .filter = code };
	uint64_t ns = 0, all = 0;
	int go = -1, err;

	*what = "making its program";
	if (exe < 0)
		return exe;
	*what = "its first filter";
	err = ring3_outer_filter(code, RING3_OUTER_MAX);
	if (err < 0) {
		errno = -err;
		goto fail;
	}
	outer.len = (unsigned short)err;
	*what = "a page to report through";
	k.report = mmap(NULL, sizeof(*k.report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (k.report == MAP_FAILED) {
		k.report = NULL;
		goto fail;
	}
	*what = "eventfd";
	go = eventfd(0, EFD_CLOEXEC);
	if (go < 0)
		goto fail;
	for (unsigned int i = 0; i < LAYER_COUNT; i++)
		all |= layers[i].flag;
	/* With all of them; with those this machine grants; with those it grants who may not map an identity (no CAP_SETFCAP). */
	for (int attempt = 0; k.pid <= 0; attempt++) {
		*what = "clone";
		ns = attempt ? granted_namespaces(all) : all;
		k.pid = clone_with(ns, &k.pidfd);
		if (!k.pid)
			child(exe, fds, nfds, go, ns, nobody, &outer, k.report);
		if (k.pid < 0 && attempt)
			goto fail;
		*what = "mapping the identity";
		if (k.pid > 0 && ns & CLONE_NEWUSER && !map_identity(nobody)) {
			kill_child();
			all &= ~(uint64_t)CLONE_NEWUSER;
		}
	}
	for (unsigned int i = 0; i < LAYER_COUNT; i++)
		if (ns & layers[i].flag)
			k.layers |= 1u << i;
	if (write_file(k.pid, "oom_score_adj", "1000"))
		k.layers |= 1u << LAYER_OOM_SCORE;
	if (enter_cgroup(&k, memory))
		k.layers |= 1u << LAYER_MEMORY_CGROUP;
	*what = "letting it go";
	if (write(go, &token, sizeof(token)) == sizeof(token)) {
		close(go);
		close(exe);
		return 0;
	}
fail:
	err = errno ? -errno : -EIO;
	if (go >= 0)
		close(go);
	close(exe);
	end_k();
	return err;
}

/* The n-th of K's threads; 0 = it has fewer. */
static pid_t thread_of(unsigned int n)
{
	char path[64];
	struct dirent *e;
	pid_t tid = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)k.pid);
	d = opendir(path);
	while (d && !tid && (e = readdir(d)))
		if (e->d_name[0] != '.' && !n--)
			tid = (pid_t)atoi(e->d_name);
	if (d)
		closedir(d);
	return tid;
}

/* One of its threads, stopped where it is; it is never to run again. */
static int look(unsigned int n, struct user_regs_struct *r)
{
	int status;
	pid_t tid;

	if (k.pid <= 0)
		return -ESRCH;
	tid = thread_of(n);
	if (!tid)
		return -ESRCH;
	if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) || ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) ||
	    waitpid(tid, &status, __WALL) != tid)
		return -errno;
	if (!WIFSTOPPED(status)) {
		if (tid == k.pid) { /* dead, and waited for */
			close(k.pidfd);
			leave_cgroup(&k);
			k.pid = 0;
		}
		return -ESRCH;
	}
	return ptrace(PTRACE_GETREGS, tid, NULL, r) ? -errno : 0;
}

int sandbox_try(uint32_t *layers)
{
	/* Not a program: the child fails at its very last step, behind every layer. */
	int exe = open("/dev/null", O_RDONLY | O_CLOEXEC), err;
	const char *what;

	err = exe < 0 ? -errno : spawn(exe, NULL, 0, TRY_MEMORY, &what);
	if (err)
		return err;
	waitid(P_PID, (id_t)k.pid, &(siginfo_t){ 0 }, WEXITED | WNOWAIT);
	*layers = k.layers | k.report->layers;
	end_k();
	return 0;
}

/* Requests of V's to the keeper */

enum { SPAWN = KEEPER_BACKEND, SETTLE, KICK, LOOK, DEATH, END };

/* What goes along, in a message's data. */
union sandbox_data {
	uint64_t memory;
	uint32_t which; /* vCPU or thread */
	struct {
		int32_t pid;
		uint32_t layers;
		char what[40];
	} k;
	struct {
		int32_t code, status;
	} death;
	struct user_regs_struct regs;
};

static void serve(const struct keeper_message *request, struct keeper_message *answer)
{
	const union sandbox_data *in = (const union sandbox_data *)request->data;
	union sandbox_data *out = (union sandbox_data *)answer->data;
	const char *what = "";
	siginfo_t si = { 0 };

	_Static_assert(sizeof(*in) <= sizeof(request->data), "too large for a message");
	switch (request->what) {
	case SPAWN:
		end_k();
		errno = 0;
		answer->err = spawn(k_program(), request->fd, request->fds, in->memory, &what);
		out->k.pid = k.pid;
		out->k.layers = k.layers;
		snprintf(out->k.what, sizeof(out->k.what), "%s", what);
		if (!answer->err) {
			answer->fd[0] = fcntl(k.pidfd, F_DUPFD_CLOEXEC, 0);
			answer->fds = answer->fd[0] >= 0;
		}
		break;
	case SETTLE:
		if (!k.report) {
			answer->err = -ESRCH;
			break;
		}
		k.layers |= k.report->layers;
		answer->err = -k.report->err;
		out->k.layers = k.layers;
		snprintf(out->k.what, sizeof(out->k.what), "%.*s", (int)sizeof(out->k.what) - 1, k.report->what);
		munmap(k.report, sizeof(*k.report));
		k.report = NULL;
		break;
	case KICK:
		if (in->which >= MON_MAX_VCPUS)
			answer->err = -EINVAL;
		else
			answer->err = k.pid > 0 && kill(k.pid, K_SIG_HOST_KICK + (int)in->which) ? -errno : 0;
		break;
	case LOOK:
		answer->err = look(in->which, &out->regs);
		break;
	case DEATH:
		if (k.pid <= 0 || waitid(P_PID, (id_t)k.pid, &si, WEXITED | WNOWAIT | WNOHANG) || !si.si_pid)
			answer->err = -ESRCH;
		out->death.code = si.si_code;
		out->death.status = si.si_status;
		break;
	case END:
		end_k();
		break;
	default:
		answer->err = -ENOSYS;
	}
}

const struct keeper_ops sandbox_keeper = { .serve = serve, .end = end_k };

/* V's side */

int sandbox_spawn(const int *fds, unsigned int nfds, uint64_t memory, struct spawned *out)
{
	struct keeper_message m = { .what = SPAWN, .fds = nfds };
	union sandbox_data *data = (union sandbox_data *)m.data;
	int err;

	data->memory = memory;
	memcpy(m.fd, fds, nfds * sizeof(*fds));
	err = keeper_ask(&m);
	*out = (struct spawned){ .pidfd = -1 };
	snprintf(out->what, sizeof(out->what), "%.*s", (int)sizeof(out->what) - 1, data->k.what);
	if (!err && m.fds != 1)
		err = -EMFILE;
	if (err)
		return err;
	out->pid = data->k.pid;
	out->pidfd = m.fd[0];
	out->layers = data->k.layers;
	return 0;
}

int sandbox_settle(struct spawned *s)
{
	struct keeper_message m = { .what = SETTLE };
	const union sandbox_data *data = (const union sandbox_data *)m.data;
	int err = keeper_ask(&m);

	s->layers = data->k.layers;
	memcpy(s->what, data->k.what, sizeof(s->what));
	return err;
}

/* A request about one vCPU or thread. */
static int ask_about(struct keeper_message *m, uint32_t what, unsigned int which)
{
	*m = (struct keeper_message){ .what = what };
	((union sandbox_data *)m->data)->which = which;
	return keeper_ask(m);
}

void sandbox_kick(const struct spawned *s, unsigned int vcpu)
{
	struct keeper_message m;

	/* Who gave up CAP_KILL may not, when K is another user of our own namespace. */
	if (syscall(SYS_pidfd_send_signal, s->pidfd, K_SIG_HOST_KICK + (int)vcpu, NULL, 0) && errno == EPERM)
		ask_about(&m, KICK, vcpu);
}

bool sandbox_look(unsigned int n, struct user_regs_struct *r)
{
	struct keeper_message m;

	if (ask_about(&m, LOOK, n))
		return false;
	memcpy(r, m.data, sizeof(*r));
	return true;
}

bool sandbox_await(const struct spawned *s, int *code, int *status)
{
	struct pollfd pfd = { .fd = s->pidfd, .events = POLLIN };
	struct keeper_message m = { .what = DEATH };
	const union sandbox_data *data = (const union sandbox_data *)m.data;

	while (poll(&pfd, 1, -1) < 0 && errno == EINTR)
		;
	if (keeper_ask(&m))
		return false;
	*code = data->death.code;
	*status = data->death.status;
	return true;
}

void sandbox_end(struct spawned *s)
{
	if (s->pid <= 0)
		return;
	keeper_ask(&(struct keeper_message){ .what = END });
	s->pid = 0;
}
