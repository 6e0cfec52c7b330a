// SPDX-License-Identifier: MIT
/*
 * The seal from inside: children that seal themselves with a backend's own table
 * and then do what the host must not, on each kind of thread. KTAP on stdout.
 *
 * usage: seal
 *	  seal --no-user-namespace PROGRAM [ARG...]: run it where nobody makes one
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../backend/kvm/kvm.h"
#include "../keeper.h"
#include "../partition.h"
#include "../seal.h"

#define CORE "seal.core"
#define LIMIT 20 /* seconds any child may take */

enum where {
	MAIN,	/* the main thread */
	OLDER,	/* a thread that was there before the filter */
	LATER,	/* one that was made behind it */
	VCPU,	/* one that called seal_vcpu() */
	DEVICE, /* a device's: one that called seal_thread(), with no calls of its kind's own */
	PLACES
};

static const char *const where_names[] = { "the main thread", "a thread from before", "a thread made later",
					   "the vCPU's thread", "a device's thread" };

static char page[4096] __attribute__((aligned(4096)));
static pid_t parent;
static int memory = -1; /* a memfd */
static int pair[2];	/* a socket that is not the keeper's */

/* What must end the process. Each returns only when it did not. */

static void do_execve(void)
{
	char *const none[] = { NULL };

	execve("/bin/true", none, none);
}

static void do_execveat(void)
{
	char *const none[] = { NULL };

	syscall(SYS_execveat, memory, "", none, none, AT_EMPTY_PATH);
}

static void do_fork(void)
{
	if (!syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL))
		_exit(0);
}

static void do_fork_call(void)
{
	if (!syscall(SYS_fork))
		_exit(0);
}

static void do_socket(void)
{
	socket(AF_INET, SOCK_STREAM, 0);
}

static void do_connect(void)
{
	struct sockaddr sa = { .sa_family = AF_UNSPEC };

	connect(pair[0], &sa, sizeof(sa));
}

static void do_open_write(void)
{
	syscall(SYS_openat, AT_FDCWD, "forbidden", O_WRONLY | O_CREAT, 0600);
}

static void do_open_read(void)
{
	syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
}

static void do_unlink(void)
{
	unlink(CORE);
}

static void do_ptrace(void)
{
	ptrace(PTRACE_SEIZE, parent, NULL, NULL);
}

static void do_vm_writev(void)
{
	struct iovec iov = { page, 8 };

	process_vm_writev(parent, &iov, 1, &iov, 1, 0);
}

static void do_mmap_exec(void)
{
	mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void do_mprotect_exec(void)
{
	mprotect(page, sizeof(page), PROT_READ | PROT_EXEC);
}

static void do_mremap_fixed(void)
{
	mremap(page, sizeof(page), sizeof(page), MREMAP_MAYMOVE | MREMAP_FIXED, page);
}

static void do_tiocsti(void)
{
	char c = 'x';

	ioctl(STDIN_FILENO, TIOCSTI, &c);
}

static void do_kvm_device(void)
{
	ioctl(memory, KVM_CREATE_DEVICE, NULL);
}

static void do_kvm_run(void)
{
	ioctl(memory, KVM_RUN, 0);
}

static void do_kvm_create(void)
{
	ioctl(memory, KVM_CREATE_VM, 0);
}

static void do_kill(void)
{
	kill(parent, 0);
}

static void do_tgkill(void)
{
	syscall(SYS_tgkill, parent, parent, 0);
}

static void do_pidfd_open(void)
{
	syscall(SYS_pidfd_open, parent, 0);
}

static void do_pidfd_kill(void)
{
	syscall(SYS_pidfd_send_signal, memory, SIGKILL, NULL, 0);
}

static void do_unshare(void)
{
	unshare(CLONE_NEWUSER);
}

static void do_io_uring(void)
{
	syscall(SYS_io_uring_setup, 1, page);
}

static void do_bpf(void)
{
	syscall(SYS_bpf, 0, page, sizeof(page));
}

static void do_userfaultfd(void)
{
	syscall(SYS_userfaultfd, 1);
}

static void do_prctl(void)
{
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static void do_sigaction(void)
{
	signal(SIGSYS, SIG_IGN);
}

/* The kernel looks at the low half of a signal's number, a filter at all of it. */
static void do_long_sigaction(void)
{
	syscall(SYS_rt_sigaction, 1ul << 32 | SIGSYS, page, NULL, 8);
}

static void do_seccomp(void)
{
	syscall(SYS_seccomp, 1, 1, page); /* a filter for all threads */
}

static void do_dup(void)
{
	dup2(memory, STDERR_FILENO);
}

static void do_other_socket(void)
{
	struct msghdr h = { 0 };

	sendmsg(pair[0], &h, 0);
}

static void do_send_to(void)
{
	struct sockaddr sa = { .sa_family = AF_UNIX };

	sendto(pair[0], "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL, &sa, sizeof(sa));
}

/* getpid by the numbers of 32-bit programs, where 20 is not writev. */
static void do_int80(void)
{
	long ret = 20;

	__asm__ volatile("int $0x80" : "+a"(ret) : : "memory", "r8", "r9", "r10", "r11");
}

/* getpid by those of x32. */
static void do_x32(void)
{
	syscall(0x40000000 + SYS_getpid);
}

static void do_memfd(void)
{
	memfd_create("seal", MFD_CLOEXEC);
}

static void do_thread(void)
{
	syscall(SYS_clone,
		CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
			CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
		NULL, NULL, NULL, NULL);
}

static void do_ask(void)
{
	struct keeper_message m = { .what = KEEPER_CORE };

	keeper_ask(&m);
}

static void do_epoll(void)
{
	epoll_create1(0);
}

static void do_truncate(void)
{
	if (ftruncate(memory, 0))
		return;
}

static void do_map_file(void)
{
	mmap(NULL, 4096, PROT_READ, MAP_SHARED, memory, 0);
}

enum { RING3 = 1, KVM = 2, BOTH = 3 };

static const struct {
	const char *what;
	void (*act)(void);
	const char *call; /* as the report names it */
	unsigned int tables;
	bool only_vcpu; /* a vCPU's thread and a device's; the others may */
} forbidden[] = {
	{ "execve", do_execve, "59 (execve)", BOTH, false },
	{ "execveat of a memfd", do_execveat, "322 (execveat)", BOTH, false },
	{ "clone of a process", do_fork, "56 (clone)", BOTH, false },
	{ "fork", do_fork_call, "57 (fork)", BOTH, false },
	{ "socket", do_socket, "41 (socket)", BOTH, false },
	{ "connect", do_connect, "42 (connect)", BOTH, false },
	{ "open for writing", do_open_write, "257 (openat)", BOTH, false },
	{ "open for reading", do_open_read, "257 (openat)", BOTH, false },
	{ "unlink", do_unlink, "87 (unlink)", BOTH, false },
	{ "ptrace", do_ptrace, "101 (ptrace)", BOTH, false },
	{ "process_vm_writev", do_vm_writev, "311 (process_vm_writev)", BOTH, false },
	{ "mmap of code", do_mmap_exec, "9 (mmap)", BOTH, false },
	{ "mprotect to code", do_mprotect_exec, "10 (mprotect)", BOTH, false },
	{ "mremap to a place", do_mremap_fixed, "25 (mremap)", BOTH, false },
	{ "ioctl TIOCSTI", do_tiocsti, "16 (ioctl), arguments 0x0 0x5412", BOTH, false },
	{ "ioctl KVM_CREATE_DEVICE", do_kvm_device, "16 (ioctl)", BOTH, false },
	{ "ioctl KVM_RUN", do_kvm_run, "16 (ioctl)", RING3, false },
	{ "ioctl KVM_CREATE_VM", do_kvm_create, "16 (ioctl)", KVM, true },
	{ "kill of another", do_kill, "62 (kill)", BOTH, false },
	{ "tgkill of another", do_tgkill, "234 (tgkill)", BOTH, false },
	{ "pidfd_open", do_pidfd_open, "434 (pidfd_open)", BOTH, false },
	{ "pidfd_send_signal of SIGKILL", do_pidfd_kill, "424 (pidfd_send_signal)", BOTH, false },
	{ "unshare", do_unshare, "272 (unshare)", BOTH, false },
	{ "io_uring_setup", do_io_uring, "425 (io_uring_setup)", BOTH, false },
	{ "bpf", do_bpf, "321 (bpf)", BOTH, false },
	{ "userfaultfd", do_userfaultfd, "323 (userfaultfd)", BOTH, false },
	{ "prctl of another option", do_prctl, "157 (prctl)", BOTH, false },
	{ "sigaction of SIGSYS", do_sigaction, "13 (rt_sigaction)", BOTH, false },
	{ "sigaction of SIGSYS in a long number", do_long_sigaction, "13 (rt_sigaction)", BOTH, false },
	{ "seccomp for all threads", do_seccomp, "317 (seccomp)", BOTH, false },
	{ "dup2", do_dup, "33 (dup2)", BOTH, false },
	{ "sendmsg to another socket", do_other_socket, "46 (sendmsg)", BOTH, false },
	{ "sendto an address", do_send_to, "44 (sendto)", BOTH, false },
	{ "a 32-bit call", do_int80, "20 (architecture 0x40000003)", BOTH, false },
	{ "an x32 call", do_x32, "1073741863 (", BOTH, false },
	{ "memfd_create", do_memfd, "319 (memfd_create)", KVM, true },
	{ "a new thread", do_thread, "56 (clone)", KVM, true },
	{ "a request to the keeper", do_ask, "46 (sendmsg)", KVM, true },
	{ "epoll_create1", do_epoll, "291 (epoll_create1)", KVM, true },
	{ "ftruncate", do_truncate, "77 (ftruncate)", KVM, true },
	{ "mmap of a file", do_map_file, "9 (mmap)", KVM, true },
};

#define FORBIDDEN (sizeof(forbidden) / sizeof(forbidden[0]))

/* Running something on a thread of a sealed process */

struct job {
	enum where where;
	void (*act)(void);
	int go; /* eventfd */
	struct sock_fprog filter;
};

static void *thread(void *arg)
{
	const struct job *j = arg;
	uint64_t n;

	if (j->where == OLDER && read(j->go, &n, sizeof(n)) != sizeof(n))
		_exit(3);
	if ((j->where == VCPU && seal_vcpu()) || (j->where == DEVICE && seal_thread(&j->filter)))
		_exit(4);
	j->act();
	return NULL;
}

static _Noreturn void sealed(const struct seal_table *table, enum where where, void (*act)(void))
{
	const struct partition none = { 0 };
	struct job j = { where, act, eventfd(0, 0), { 0 } };
	const struct seal_calls none_of_its_own = { 0 };
	const uint64_t one = 1;
	struct error e;
	pthread_t t;

	memory = memfd_create("seal-test", MFD_CLOEXEC);
	if (memory < 0 || ftruncate(memory, 4096) || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ||
	    keeper_start(CORE, true, NULL, &none, &e))
		_exit(2);
	seal_privileges(false);
	if (where == OLDER && pthread_create(&t, NULL, thread, &j))
		_exit(2);
	if (seal_thread_filter(table, &none_of_its_own, &j.filter, &e) || seal_calls(table, NULL, 0, false, &e)) {
		fprintf(stderr, "%s\n", e.text);
		_exit(2);
	}
	if (where == MAIN)
		act();
	else if (where != OLDER && pthread_create(&t, NULL, thread, &j))
		_exit(2);
	else if (where == OLDER && write(j.go, &one, sizeof(one)) != sizeof(one))
		_exit(2);
	if (where != MAIN)
		pthread_join(t, NULL);
	keeper_stop();
	_exit(0);
}

/* What a child says on stderr, and how it ended. */
static int watch(pid_t pid, int from, char *text, size_t room)
{
	size_t at = 0;
	int status;

	for (;;) {
		struct pollfd pfd = { .fd = from, .events = POLLIN };
		ssize_t n = poll(&pfd, 1, LIMIT * 1000) > 0 ? read(from, text + at, room - 1 - at) : -1;

		if (n < 0)
			kill(pid, SIGKILL);
		if (n <= 0)
			break;
		at += (size_t)n;
	}
	text[at] = '\0';
	close(from);
	waitpid(pid, &status, 0);
	return status;
}

static pid_t start(const struct seal_table *table, enum where where, void (*act)(void), int *from)
{
	int err[2];
	pid_t pid;

	if (pipe2(err, O_CLOEXEC))
		exit(2);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		dup2(err[1], STDERR_FILENO);
		close(err[0]);
		close(err[1]);
		sealed(table, where, act);
	}
	close(err[1]);
	*from = err[0];
	return pid;
}

static unsigned int number, failed;

static void result(bool ok, const char *backend, const char *what, const char *where, int status, const char *text)
{
	if (!ok) {
		printf("# status %#x: %s\n", status, text);
		failed++;
	}
	printf("%sok %u %s: %s on %s\n", ok ? "" : "not ", ++number, backend, what, where);
}

/* How a process dies of a 32-bit call where nothing forbids it: not at all, unless this kernel has none. */
static bool has_32bit_calls(void)
{
	static int status = -1;
	pid_t pid;

	if (status < 0) {
		pid = fork();
		if (!pid) {
			signal(SIGSEGV, SIG_DFL);
			do_int80();
			_exit(0);
		}
		waitpid(pid, &status, 0);
	}
	return !status;
}

static void try_forbidden(const char *backend, const struct seal_table *table, size_t i, enum where where)
{
	char text[1000], expect[100];
	int from, status;
	pid_t pid;

	snprintf(expect, sizeof(expect), "keel: seal: forbidden system call %s", forbidden[i].call);
	pid = start(table, where, forbidden[i].act, &from);
	status = watch(pid, from, text, sizeof(text));
	if (forbidden[i].act == do_int80 && !has_32bit_calls())
		result(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV && !*text, backend,
		       "a 32-bit call, which is none here,", where_names[where], status, text);
	else
		result(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS && strstr(text, expect) == text &&
			       strchr(text, '\n') == text + strlen(text) - 1,
		       backend, forbidden[i].what, where_names[where], status, text);
}

/* What must go on working */

static void must(bool cond, const char *what)
{
	if (cond)
		return;
	dprintf(STDERR_FILENO, "%s: %s\n", what, strerror(errno));
	_exit(1);
}

static void *nothing(void *arg)
{
	return arg;
}

/* What a partition's life takes: memory, threads, and a core file at its end. */
static void act_life(void)
{
	struct keeper_message m = { .what = KEEPER_CORE };
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(attr) };
	int fd = memfd_create("life", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	pthread_t t;
	void *map;

	must(fd >= 0 && !ftruncate(fd, 1 << 20) && !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), "memfd");
	map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(map != MAP_FAILED && !munmap(map, 1 << 20), "mmap");
	must(!pthread_create(&t, NULL, nothing, NULL) && !pthread_join(t, NULL), "thread");
	must(syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS, "clone3");
	must(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0) < 0 && errno == EACCES, "perf_event_open");
	must(!keeper_ask(&m) && m.fds == 1 && write(m.fd[0], "core", 4) == 4 && !close(m.fd[0]), "core");
	m = (struct keeper_message){ .what = KEEPER_BACKEND };
	must(keeper_ask(&m) == -ENOSYS && !m.fds, "a request that is not served");
	must(!raise(0) && !sched_yield(), "raise");
	/* The last: a keeper that is told nonsense listens no more. */
	must(send(keeper_fd(), "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1, "nonsense");
	m = (struct keeper_message){ .what = KEEPER_CORE };
	must(keeper_ask(&m) < 0 && !m.fds, "a keeper that was told nonsense");
}

/* What the thread of a vCPU does: output, memory of its own, waking others. */
static void act_vcpu(void)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct pollfd pfd = { .fd = STDERR_FILENO, .events = POLLOUT };
	uint64_t one = 1;
	int i = 0;
	char *p;

	must(poll(&pfd, 1, 0) == 1, "poll");
	must(write(memory, &one, sizeof(one)) == sizeof(one), "write");
	p = malloc(1 << 20);
	must(p && mprotect(page, sizeof(page), PROT_READ | PROT_WRITE) == 0, "memory");
	memset(p, 1, 1 << 20);
	free(p);
	must(!pthread_mutex_lock(&lock) && !pthread_mutex_unlock(&lock), "lock");
	for (; i < 3; i++)
		sched_yield();
	must(ioctl(memory, KVM_RUN, 0) < 0 && errno == ENOTTY, "KVM_RUN");
}

static void try_allowed(const char *backend, const struct seal_table *table, const char *what, void (*act)(void),
			enum where where)
{
	char text[1000];
	int from, status;
	struct stat st;
	pid_t pid;

	unlink(CORE);
	pid = start(table, where, act, &from);
	status = watch(pid, from, text, sizeof(text));
	result(WIFEXITED(status) && !WEXITSTATUS(status) && !text[0] &&
		       (act != act_life || (!stat(CORE, &st) && st.st_size == 4)),
	       backend, what, where_names[where], status, text);
	unlink(CORE);
}

/* The layers below the filter, by themselves. */
static void try_layers(void)
{
	int from[2], status;
	char text[1000];
	pid_t pid;

	if (pipe2(from, O_CLOEXEC))
		exit(2);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		struct stat st;
		int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
		ssize_t n;

		dup2(from[1], STDERR_FILENO);
		close(from[0]);
		close(from[1]);
		seal_privileges(false);
		n = pread(fd, text, sizeof(text) - 1, 0);
		must(n > 0, "status");
		must(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, "no_new_privs");
		must(!prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 0, 0, 0) || errno == EINVAL, "ambient");
		must(open("/proc/self/status", O_RDONLY) < 0 && errno == EACCES, "opened a file");
		must(open("seal.made", O_WRONLY | O_CREAT, 0600) < 0 && errno == EACCES, "made a file");
		must(mkdir("seal.made", 0700) && errno == EACCES, "made a directory");
		must(!fstat(fd, &st), "what was open");
		if (!geteuid())
			must(chroot("/") && errno == EPERM, "chroot");
		_exit(0);
	}
	close(from[1]);
	status = watch(pid, from[0], text, sizeof(text));
	result(WIFEXITED(status) && !WEXITSTATUS(status), "layers", "no file by name, no privilege", where_names[MAIN],
	       status, text);
}

/* A kernel without Landlock: said, and an error where everything is asked for. */
static void try_missing(bool require)
{
	int from[2], status;
	char text[1000];
	pid_t pid;

	if (pipe2(from, O_CLOEXEC))
		exit(2);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
		struct error e;

		dup2(from[1], STDERR_FILENO);
		close(from[0]);
		close(from[1]);
		must(ctx && !seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(landlock_create_ruleset), 0) &&
			     !seccomp_load(ctx),
		     "a kernel without Landlock");
		seal_privileges(false);
		_exit(seal_calls(ring3_backend.calls, NULL, 0, require, &e) ? 9 : 0);
	}
	close(from[1]);
	status = watch(pid, from[0], text, sizeof(text));
	result(WIFEXITED(status) && WEXITSTATUS(status) == (require ? 9 : 0) &&
		       strstr(text, "keel: seal: layers this machine refused: Landlock\n"),
	       "layers", require ? "--require-sandbox without Landlock" : "a kernel without Landlock",
	       where_names[MAIN], status, text);
}

static bool applies(size_t i, unsigned int table, enum where where)
{
	if (where == VCPU && table != KVM)
		return false;
	return forbidden[i].tables & table && (!forbidden[i].only_vcpu || where >= VCPU);
}

static int without_user_namespace(char **argv)
{
	const struct scmp_arg_cmp flag = SEAL_CMP(0, MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER);
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);

	if (!ctx || seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1, &flag) || seccomp_load(ctx))
		return 2;
	execv(argv[0], argv);
	return 127;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		unsigned int bit;
		const struct seal_table *const *calls;
	} tables[] = {
		{ "ring3", RING3, &ring3_backend.calls },
		{ "kvm", KVM, &kvm_backend.calls },
	};
	unsigned int tests = 3; /* of layers */

	if (argc > 2 && !strcmp(argv[1], "--no-user-namespace"))
		return without_user_namespace(argv + 2);
	parent = getpid();
	signal(SIGPIPE, SIG_IGN);
	for (unsigned int t = 0; t < 2; t++) {
		tests += t ? 2 : 1;
		for (size_t i = 0; i < FORBIDDEN; i++)
			for (enum where w = MAIN; w < PLACES; w++)
				tests += applies(i, tables[t].bit, w);
	}
	printf("KTAP version 1\n1..%u\n", tests);
	try_layers();
	try_missing(false);
	try_missing(true);
	for (unsigned int t = 0; t < 2; t++) {
		const struct seal_table *calls = *tables[t].calls;

		try_allowed(tables[t].name, calls, "what a life takes", act_life, MAIN);
		if (tables[t].bit == KVM)
			try_allowed(tables[t].name, calls, "what a vCPU does", act_vcpu, VCPU);
		for (size_t i = 0; i < FORBIDDEN; i++)
			for (enum where w = MAIN; w < PLACES; w++)
				if (applies(i, tables[t].bit, w))
					try_forbidden(tables[t].name, calls, i, w);
	}
	return failed ? 1 : 0;
}
