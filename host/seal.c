// SPDX-License-Identifier: MIT
#include "seal.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <fcntl.h>

#include "console.h"
#include "keeper.h"

#ifndef LANDLOCK_ACCESS_FS_REFER
#define LANDLOCK_ACCESS_FS_REFER (1ULL << 13)
#endif
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif
#ifndef LANDLOCK_ACCESS_FS_IOCTL_DEV
#define LANDLOCK_ACCESS_FS_IOCTL_DEV (1ULL << 15)
#endif
#ifndef SECCOMP_FILTER_FLAG_TSYNC_ESRCH
#define SECCOMP_FILTER_FLAG_TSYNC_ESRCH (1UL << 4)
#endif

/* The sanitizers' runtimes trace, clone and open at the end. A host built with them keeps only the first layers. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define PROT_RW (PROT_READ | PROT_WRITE)
#define FUTEX_FLAGS (FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)
/* What pthread_create() asks of clone. */
#define THREAD_FLAGS                                                                                       \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS | \
	 CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

enum layer { LAYER_PRIVILEGES, LAYER_CAPABILITIES, LAYER_LANDLOCK, LAYER_COUNT };

static const char *const layer_names[LAYER_COUNT] = {
	[LAYER_PRIVILEGES] = "no_new_privs",
	[LAYER_CAPABILITIES] = "no capabilities",
	[LAYER_LANDLOCK] = "Landlock",
};

static const char *const call_names[] = {
#include "syscalls.h"
};

static struct {
	bool layer[LAYER_COUNT];
	int landlock; /* its version */
	bool sealed;
	struct sock_fprog process, vcpu;
	struct sigaction old_sigsys;
} seal;

/* Privileges */

static bool drop_capabilities(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };

	/* Only who has CAP_SETPCAP may; for the others no_new_privs makes the bounding set mean nothing. */
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return !syscall(SYS_capset, &head, data);
}

/*
 * A rule set that handles all the kernel knows and grants nothing. What is open
 * stays usable.
 */
static bool landlock(bool sockets)
{
	/* As of ABI 6; the kernel takes as much of it as it is told. */
	struct {
		uint64_t fs, net, scoped;
	} attr = { 0 };
	/* By ABI version: what it added. */
	static const struct {
		uint64_t fs, net, scoped;
		size_t size;
	} versions[] = {
		{ LANDLOCK_ACCESS_FS_REFER - 1, 0, 0, 8 },  /* 1: the 13 first */
		{ LANDLOCK_ACCESS_FS_REFER, 0, 0, 8 },	    /* 2 */
		{ LANDLOCK_ACCESS_FS_TRUNCATE, 0, 0, 8 },   /* 3 */
		{ 0, 1 << 0 | 1 << 1, 0, 16 },		    /* 4: TCP bind and connect */
		{ LANDLOCK_ACCESS_FS_IOCTL_DEV, 0, 0, 16 }, /* 5 */
		{ 0, 0, 1 << 0, 24 },			    /* 6: abstract sockets; signals are left to the filter */
	};
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	size_t size = 0;
	bool done;
	int fd;

	for (size_t v = 0; v < COUNT(versions) && (long)v < abi; v++) {
		attr.fs |= versions[v].fs;
		attr.net |= sockets ? 0 : versions[v].net;
		attr.scoped |= versions[v].scoped;
		size = versions[v].size;
	}
	fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	if (fd < 0)
		return false;
	done = !syscall(SYS_landlock_restrict_self, fd, 0);
	close(fd);
	seal.landlock = (int)abi;
	return done;
}

void seal_privileges(bool sockets)
{
	seal.layer[LAYER_PRIVILEGES] = !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	seal.layer[LAYER_LANDLOCK] = SANITIZED || landlock(sockets);
	seal.layer[LAYER_CAPABILITIES] = drop_capabilities();
}

/* The filter */

/* Allowed whatever the arguments: they reach what is open already, this process's own memory, time, and threads. */
static const int plain[] = {
	/* The frequent ones first. */
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(sched_yield),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(poll),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(writev),
	SCMP_SYS(pread64),
	SCMP_SYS(pwrite64),
	SCMP_SYS(lseek),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fstat),
	SCMP_SYS(close),
	SCMP_SYS(epoll_create1),
	SCMP_SYS(eventfd2),
	SCMP_SYS(memfd_create),
	SCMP_SYS(munmap),
	SCMP_SYS(madvise),
	SCMP_SYS(brk),
	SCMP_SYS(getrandom),
	SCMP_SYS(sysinfo),
	SCMP_SYS(getpid),
	SCMP_SYS(gettid),
	SCMP_SYS(getpgrp),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	SCMP_SYS(wait4),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
};

/* Requests of the terminal's: its modes, its size, who is in front. Not among them: TIOCSTI, which types. */
static const uint32_t terminal_ioctls[] = { TCGETS, TCSETS, TIOCGWINSZ, TIOCGPGRP };

/* Of `plain`, what a thread that runs guest code is left with. */
static const int vcpu_plain[] = {
	SCMP_SYS(read),		  SCMP_SYS(write),	     SCMP_SYS(sched_yield),	SCMP_SYS(poll),
	SCMP_SYS(clock_gettime),  SCMP_SYS(clock_nanosleep), SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask), SCMP_SYS(munmap),	     SCMP_SYS(madvise),		SCMP_SYS(brk),
	SCMP_SYS(getpid),	  SCMP_SYS(gettid),	     SCMP_SYS(getpgrp),		SCMP_SYS(exit),
	SCMP_SYS(exit_group),
};

static int add_rules(scmp_filter_ctx ctx, const struct seal_rule *r, size_t n)
{
	int err = 0;

	for (size_t i = 0; !err && i < n; i++)
		err = seccomp_rule_add_exact_array(ctx,
						   r[i].answer ? SCMP_ACT_ERRNO((uint32_t)r[i].answer) : SCMP_ACT_ALLOW,
						   r[i].nr, r[i].args, r[i].arg);
	return err;
}

static int add_plain(scmp_filter_ctx ctx, const int *nr, size_t n)
{
	int err = 0;

	for (size_t i = 0; !err && i < n; i++)
		err = seccomp_rule_add_exact_array(ctx, SCMP_ACT_ALLOW, nr[i], 0, NULL);
	return err;
}

static int add_ioctls(scmp_filter_ctx ctx, const uint32_t *request, size_t n)
{
	int err = 0;

	for (size_t i = 0; !err && i < n; i++) {
		struct scmp_arg_cmp arg = SEAL_IS(1, request[i]);

		err = seccomp_rule_add_exact_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, &arg);
	}
	return err;
}

static scmp_filter_ctx new_filter(int *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);

	*err = ctx ? seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_TRAP) : -ENOMEM;
	return ctx;
}

static int export(scmp_filter_ctx ctx, struct sock_fprog *prog)
{
	int err, fd = memfd_create("keel-filter", MFD_CLOEXEC);
	off_t size;

	if (fd < 0)
		return -errno;
	err = seccomp_export_bpf(ctx, fd);
	size = lseek(fd, 0, SEEK_END);
	if (!err && size > 0) {
		prog->filter = malloc((size_t)size);
		prog->len = (unsigned short)((size_t)size / sizeof(struct sock_filter));
		if (!prog->filter || pread(fd, prog->filter, (size_t)size, 0) != size)
			err = -ENOMEM;
	}
	close(fd);
	return err;
}

/* What is allowed whatever the backend. */
struct filter {
	const uint32_t *ioctls;
	size_t ioctl_count;
	const int *plain;
	size_t plain_count;
	const struct seal_rule *rules;
	size_t rule_count;
};

static int build(const struct filter *f, const struct seal_calls *const *extra, unsigned int n, struct sock_fprog *prog)
{
	int err;
	scmp_filter_ctx ctx = new_filter(&err);

	/* A program is one test after the other: what is frequent goes first. */
	if (!err)
		err = seccomp_syscall_priority(ctx, SCMP_SYS(ioctl), 255);
	if (!err)
		err = seccomp_syscall_priority(ctx, SCMP_SYS(futex), 254);
	for (unsigned int i = 0; !err && i < n; i++)
		err = add_ioctls(ctx, extra[i]->ioctls, extra[i]->ioctl_count);
	if (!err)
		err = add_ioctls(ctx, f->ioctls, f->ioctl_count);
	if (!err)
		err = add_plain(ctx, f->plain, f->plain_count);
	if (!err)
		err = add_rules(ctx, f->rules, f->rule_count);
	for (unsigned int i = 0; !err && i < n; i++)
		err = add_rules(ctx, extra[i]->rules, extra[i]->rule_count);
	if (!err)
		err = export(ctx, prog);
	if (ctx)
		seccomp_release(ctx);
	return err;
}

static int build_process(const struct seal_calls *const *extra, unsigned int n, struct sock_fprog *prog)
{
	const struct seal_rule rules[] = {
		{ SCMP_SYS(futex), 1, { SEAL_CMP(1, MASKED_EQ, ~(scmp_datum_t)FUTEX_FLAGS, FUTEX_WAIT) }, 0 },
		{ SCMP_SYS(futex), 1, { SEAL_CMP(1, MASKED_EQ, ~(scmp_datum_t)FUTEX_FLAGS, FUTEX_WAKE) }, 0 },
		{ SCMP_SYS(futex), 1, { SEAL_CMP(1, MASKED_EQ, ~(scmp_datum_t)FUTEX_FLAGS, FUTEX_WAIT_BITSET) }, 0 },
		/* Memory: never code. */
		{ SCMP_SYS(mmap), 1, { SEAL_ONLY_BITS(2, PROT_RW) }, 0 },
		{ SCMP_SYS(mprotect), 1, { SEAL_ONLY_BITS(2, PROT_RW) }, 0 },
		{ SCMP_SYS(mremap), 1, { SEAL_IS(3, MREMAP_MAYMOVE) }, 0 },
		/* Files: what is open. Theirs are the seals of a partition's memory. */
		{ SCMP_SYS(newfstatat), 1, { SEAL_IS(3, AT_EMPTY_PATH) }, 0 },
		{ SCMP_SYS(fcntl), 1, { SEAL_IS(1, F_ADD_SEALS) }, 0 },
		{ SCMP_SYS(fcntl), 1, { SEAL_IS(1, F_GETFL) }, 0 },
		{ SCMP_SYS(sendto), 3, { SEAL_IS(3, MSG_DONTWAIT | MSG_NOSIGNAL), SEAL_IS(4, 0), SEAL_IS(5, 0) }, 0 },
		{ SCMP_SYS(sendmsg), 1, { SEAL_IS(0, keeper_fd()) }, 0 },
		{ SCMP_SYS(recvmsg), 1, { SEAL_IS(0, keeper_fd()) }, 0 },
		/* Signals: to ourselves. How SIGSYS ends us is not to be changed. */
		{ SCMP_SYS(tgkill), 1, { SEAL_IS(0, getpid()) }, 0 },
		{ SCMP_SYS(rt_sigaction), 1, { SEAL_CMP(0, LT, SIGSYS, 0) }, 0 },
		{ SCMP_SYS(rt_sigaction), 1, { SEAL_CMP(0, MASKED_EQ, ~(scmp_datum_t)31, 32) }, 0 },
		{ SCMP_SYS(rt_sigaction), 1, { SEAL_IS(1, 0) }, 0 },
		/* Threads of the partitions to come, and what seal_vcpu() does in one. */
		{ SCMP_SYS(clone), 1, { SEAL_IS(0, THREAD_FLAGS) }, 0 },
		{ SCMP_SYS(clone3), 0, { { 0 } }, ENOSYS }, /* its flags cannot be seen; libc goes on with clone */
		{ SCMP_SYS(seccomp), 2, { SEAL_IS(0, SECCOMP_SET_MODE_FILTER), SEAL_IS(1, 0) }, 0 },
		{ SCMP_SYS(prctl), 1, { SEAL_IS(0, PR_SET_NAME) }, 0 },
		/* The clock of the next partition measures instead. */
		{ SCMP_SYS(perf_event_open), 0, { { 0 } }, EACCES },
	};
	const struct filter f = { terminal_ioctls, COUNT(terminal_ioctls), plain, COUNT(plain), rules, COUNT(rules) };

	return build(&f, extra, n, prog);
}

/* Only what `process` allows matters here; the two stand one behind the other. */
static int build_vcpu(const struct seal_calls *extra, struct sock_fprog *prog)
{
	const struct seal_rule rules[] = {
		{ SCMP_SYS(futex), 0, { { 0 } }, 0 },
		{ SCMP_SYS(mmap), 1, { SEAL_CMP(3, MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS) }, 0 },
		{ SCMP_SYS(mprotect), 0, { { 0 } }, 0 },
		{ SCMP_SYS(mremap), 0, { { 0 } }, 0 },
		{ SCMP_SYS(sendto), 0, { { 0 } }, 0 },
		{ SCMP_SYS(tgkill), 0, { { 0 } }, 0 },
		/* The terminal is put back whoever dies; a console ring is told its size when it is attached. */
		{ SCMP_SYS(ioctl), 1, { SEAL_IS(1, TCSETS) }, 0 },
		{ SCMP_SYS(ioctl), 1, { SEAL_IS(1, TIOCGWINSZ) }, 0 },
	};
	const struct filter f = { NULL, 0, vcpu_plain, COUNT(vcpu_plain), rules, COUNT(rules) };

	return build(&f, &extra, 1, prog);
}

/* What every device's thread does: wait, hold a lock, have memory, be told to end, and say so. */
static const int thread_plain[] = {
	SCMP_SYS(read),		SCMP_SYS(write),	   SCMP_SYS(poll),
	SCMP_SYS(sched_yield),	SCMP_SYS(restart_syscall), SCMP_SYS(clock_gettime),
	SCMP_SYS(munmap),	SCMP_SYS(madvise),	   SCMP_SYS(brk),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(getpid),	   SCMP_SYS(gettid),
	SCMP_SYS(exit),		SCMP_SYS(rt_sigprocmask),  SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
};

int seal_thread_filter(const struct seal_table *table, const struct seal_calls *calls, struct sock_fprog *prog,
		       struct error *e)
{
	const struct seal_rule rules[] = {
		{ SCMP_SYS(futex), 0, { { 0 } }, 0 },
		{ SCMP_SYS(mmap),
		  2,
		  { SEAL_CMP(3, MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS), SEAL_ONLY_BITS(2, PROT_RW) },
		  0 },
		{ SCMP_SYS(mprotect), 1, { SEAL_ONLY_BITS(2, PROT_RW) }, 0 },
		{ SCMP_SYS(mremap), 0, { { 0 } }, 0 },
		{ SCMP_SYS(tgkill), 1, { SEAL_IS(0, getpid()) }, 0 },
		/* The terminal is put back whoever dies. */
		{ SCMP_SYS(ioctl), 1, { SEAL_IS(1, TCSETS) }, 0 },
	};
	const struct filter f = { NULL, 0, thread_plain, COUNT(thread_plain), rules, COUNT(rules) };
	const struct seal_calls *const extra[] = { &table->raise, calls };
	const int err = build(&f, extra, COUNT(extra), prog);

	return err ? error_set(e, "seal: cannot build a device's system call filter: %s", strerror(-err)) : 0;
}

int seal_thread(const struct sock_fprog *prog)
{
	if (!seal.sealed)
		return 0;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, prog);
}

/* Text for a handler: nothing of stdio's, whose locks the interrupted code may hold. */
static char *put_text(char *at, const char *text)
{
	while (*text)
		*at++ = *text++;
	return at;
}

static char *put_number(char *at, uint64_t n, unsigned int base)
{
	char digits[24];
	int len = 0;

	do
		digits[len++] = "0123456789abcdef"[n % base];
	while (n /= base);
	if (base == 16)
		at = put_text(at, "0x");
	while (len)
		*at++ = digits[--len];
	return at;
}

/* A call that is not listed was not made; say which, and end. */
static void on_sigsys(int sig, siginfo_t *si, void *context)
{
	const greg_t *reg = ((const ucontext_t *)context)->uc_mcontext.gregs;
	unsigned int nr = (unsigned int)si->si_syscall;
	char line[300], *at = line;

	at = put_text(at, "keel: seal: forbidden system call ");
	at = put_number(at, nr, 10);
	at = put_text(at, " (");
	if (si->si_arch != AUDIT_ARCH_X86_64) {
		at = put_text(at, "architecture ");
		at = put_number(at, si->si_arch, 16);
	} else {
		at = put_text(at, nr < COUNT(call_names) && call_names[nr] ? call_names[nr] : "?");
	}
	at = put_text(at, "), arguments ");
	at = put_number(at, (uint64_t)reg[REG_RDI], 16);
	at = put_text(at, " ");
	at = put_number(at, (uint64_t)reg[REG_RSI], 16);
	at = put_text(at, " ");
	at = put_number(at, (uint64_t)reg[REG_RDX], 16);
	at = put_text(at, ", at ");
	at = put_number(at, (uint64_t)(uintptr_t)si->si_call_addr, 16);
	at = put_text(at, "\n");
	console_rescue();
	if (write(STDERR_FILENO, line, (size_t)(at - line)) < 0)
		_exit(128 + sig); /* nobody to tell */
	raise(sig);		  /* SA_RESETHAND: now with its default effect */
}

static bool report_layers(bool require)
{
	char refused[200] = "";
	size_t at = 0;

	for (unsigned int l = 0; l < LAYER_COUNT; l++)
		if (!seal.layer[l])
			at += (size_t)snprintf(refused + at, sizeof(refused) - at, "%s%s", at ? ", " : "",
					       layer_names[l]);
	if (!at) {
		host_verbose("seal: no new privileges, no capabilities, no file by name (Landlock %d)", seal.landlock);
		host_verbose("seal: system call filter of %u instructions, of the vCPU's thread %u", seal.process.len,
			     seal.vcpu.len);
		return true;
	}
	host_say("seal: layers this machine refused: %s", refused);
	if (require)
		host_say("seal: --require-sandbox asks for all of them");
	return !require;
}

int seal_calls(const struct seal_table *table, const struct seal_calls *more, unsigned int n, bool require,
	       struct error *e)
{
	const struct seal_calls *extra[1 + SEAL_MORE] = { &table->process };
	const struct seal_calls *v = &table->vcpu;
	struct sigaction sa = { .sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER };
	int err;

	for (unsigned int i = 0; i < n && i < SEAL_MORE; i++)
		extra[1 + i] = &more[i];
	err = build_process(extra, 1 + (n < SEAL_MORE ? n : SEAL_MORE), &seal.process);
	if (!err && (v->ioctl_count || v->rule_count))
		err = build_vcpu(v, &seal.vcpu);
	if (err)
		return error_set(e, "seal: cannot build the system call filter: %s", strerror(-err));
	if (!report_layers(require))
		return error_set(e, "seal: layers are missing");
	if (SANITIZED) {
		host_verbose("seal: a host with sanitizers runs without Landlock and without its system call filter");
		return 0;
	}
	sigaction(SIGSYS, &sa, NULL);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
		    &seal.process))
		return error_set(e, "seal: cannot set the system call filter: %s", strerror(errno));
	seal.sealed = true;
	free(seal.process.filter);
	seal.process.filter = NULL;
	return 0;
}

int seal_vcpu(void)
{
	if (!seal.sealed || !seal.vcpu.len)
		return 0;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &seal.vcpu) ? -errno : 0;
}
