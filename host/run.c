// SPDX-License-Identifier: MIT
/* keel run: one guest from image to exit status. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "calls.h"
#include "console.h"
#include "devices/device.h"
#include "hvmimage.h"
#include "image.h"
#include "keeper.h"
#include "partition.h"
#include "report.h"
#include "seal.h"
#include "verb.h"

#define STOP_FLUSH_MS 200 /* how long a stopped guest's output may take to get out */

/* Best first; `auto` takes the first that this machine runs well and that can be created. */
static const struct backend_ops *const backends[] = { &kvm_backend, &ring3_backend };

#define BACKENDS (sizeof(backends) / sizeof(backends[0]))

struct run {
	struct keel_options opt;
	struct image image;
	struct console *console;
	struct device *device[PARTITION_DEVICES];
	unsigned int devices;
	struct partition p;
	int epoll_fd;
	int signal_fd;
	int timeout_fd; /* over restarts, -1 = none */
	int clock_fd;
	int signal;	       /* that stopped the guest, 0 = none */
	bool passed[BACKENDS]; /* over, for what its probe said */
	struct error why;      /* what a probe said last, with its backend's name in front */
	bool sealed;
	const struct backend_ops *backend; /* chosen, once sealed */
	sigset_t old_mask;
};

static void end(struct run *r, enum outcome_kind kind)
{
	struct outcome o = { .kind = kind };

	partition_end(&r->p, &o);
}

static bool still_running(struct run *r)
{
	bool running;

	pthread_mutex_lock(&r->p.lock);
	running = r->p.outcome.kind == OUTCOME_NONE;
	pthread_mutex_unlock(&r->p.lock);
	return running;
}

static void drain(int fd)
{
	uint64_t count;

	/* Level-triggered: what is left would be reported again. */
	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		host_say("event loop: %s", strerror(errno));
}

static void arm(int fd, uint64_t ns)
{
	struct itimerspec its = { .it_value = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) } };

	timerfd_settime(fd, 0, &its, NULL);
}

static void on_end(struct run *r)
{
	(void)r; /* the loop sees the outcome */
}

static void on_doorbell(struct run *r)
{
	drain(r->p.doorbell_fd);
}

static void on_console(struct run *r)
{
	(void)r; /* serviced after every wake-up */
}

static void on_signal(struct run *r)
{
	struct signalfd_siginfo si;

	if (read(r->signal_fd, &si, sizeof(si)) != sizeof(si))
		return;
	switch (si.ssi_signo) {
	case SIGWINCH:
		console_resize(r->console);
		return;
	case SIGCONT:
		console_resume(r->console);
		return;
	case SIGTSTP:
		console_suspend(r->console);
		raise(SIGSTOP);
		console_resume(r->console);
		return;
	}
	r->signal = (int)si.ssi_signo;
	end(r, OUTCOME_STOPPED);
}

static void on_timeout(struct run *r)
{
	end(r, OUTCOME_TIMEOUT);
}

static void on_clock(struct run *r)
{
	drain(r->clock_fd);
	arm(r->clock_fd, clock_refresh(&r->p.clock));
}

static void end_probes(void)
{
	for (size_t i = 0; i < BACKENDS; i++)
		if (backends[i]->probe)
			backends[i]->probe->end();
}

static void on_probe_end(struct run *r)
{
	(void)r;
	end_probes();
}

static int watch(struct run *r, int fd, void (*handler)(struct run *r))
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = handler };

	return fd < 0 ? 0 : epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
}

static void serve_console(struct run *r)
{
	switch (console_service(r->console)) {
	case CONSOLE_QUIT:
		end(r, OUTCOME_STOPPED);
		break;
	case CONSOLE_DUMP:
		if (r->p.ops->dump)
			r->p.ops->dump(&r->p, 0);
		break;
	case CONSOLE_NONE:
		break;
	}
}

static int event_loop(struct run *r, struct error *e)
{
	r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (r->epoll_fd < 0 || watch(r, r->p.end_fd, on_end) || watch(r, r->p.doorbell_fd, on_doorbell) ||
	    watch(r, console_fd(r->console), on_console) || watch(r, r->signal_fd, on_signal) ||
	    watch(r, r->timeout_fd, on_timeout) || watch(r, r->clock_fd, on_clock))
		return error_set(e, "cannot set up the event loop: %s", strerror(errno));
	for (size_t i = 0; i < BACKENDS; i++)
		if (backends[i]->probe && watch(r, backends[i]->probe->fd(), on_probe_end))
			return error_set(e, "cannot watch a probe: %s", strerror(errno));
	while (still_running(r)) {
		struct epoll_event ev[8];
		int n = epoll_wait(r->epoll_fd, ev, 8, console_timeout(r->console));

		if (n < 0 && errno != EINTR)
			return error_set(e, "event loop: %s", strerror(errno));
		for (int i = 0; i < n; i++)
			((void (*)(struct run *))ev[i].data.ptr)(r);
		serve_console(r);
	}
	return 0;
}

static void print_stats(struct run *r)
{
	struct keel_stats_entry entry[KEEL_CALL_COUNT];
	unsigned int n = r->p.ops->counters ? r->p.ops->counters(&r->p, entry, KEEL_CALL_COUNT) : 0;

	fprintf(stderr, "keel: %-20s %14s %14s %14s\n", "hypercall", "calls", "errors", "work");
	for (unsigned int i = 0; i < n && i < KEEL_CALL_COUNT; i++) {
		const struct call_info *c = call_find(entry[i].id);

		if (c && entry[i].calls)
			fprintf(stderr, "keel: %-20s %14lu %14lu %14lu\n", c->name, entry[i].calls, entry[i].errors,
				entry[i].work);
	}
	if (r->p.ops->stats)
		r->p.ops->stats(&r->p, stderr);
	for (unsigned int i = 0; i < r->devices; i++)
		device_stats(r->device[i], stderr);
}

/* Complete what the outcome says with what the backend still knows. */
static void complete_crash(struct run *r)
{
	struct crash_info *c = &r->p.outcome.crash;
	struct crash_info snap = { .have_regs = false };

	if ((c->have_regs && c->traces) || !r->p.ops->snapshot || !r->p.ops->snapshot(&r->p, c->vcpu, &snap))
		return;
	if (!c->have_regs && snap.have_regs) {
		c->regs = snap.regs;
		c->have_regs = true;
	}
	if (!c->traces) {
		memcpy(c->trace, snap.trace, sizeof(c->trace));
		c->traces = snap.traces;
	}
	if (!c->reason[0])
		memcpy(c->reason, snap.reason, sizeof(c->reason));
}

/* One write, so that the report stays in one piece between other people's lines. */
static void to_stderr(char *text, size_t len)
{
	while (len) {
		ssize_t n = write(STDERR_FILENO, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* nobody left to tell */
		text += n;
		len -= (size_t)n;
	}
}

/* The host opens no file any more. */
static int open_core(void)
{
	struct keeper_message m = { .what = KEEPER_CORE };
	int err = keeper_ask(&m);

	if (!err && m.fds == 1)
		return m.fd[0];
	errno = err ? -err : EPROTO;
	return -1;
}

static void report(struct run *r, bool crashed)
{
	struct crash_info *c = &r->p.outcome.crash;
	char name[300], *text = NULL;
	const char *core = NULL;
	struct error e;
	size_t len = 0;
	FILE *f;

	complete_crash(r);
	if (crashed) {
		core = elfcore_path(&r->opt, name, sizeof(name));
		if (core && elfcore_write(open_core(), core, &r->p, c, &e)) {
			host_say("%s", e.text);
			core = NULL;
		}
	}
	f = open_memstream(&text, &len);
	if (!f) {
		host_say("crash: %.160s", c->reason);
		return;
	}
	if (crashed)
		report_crash(f, &r->p, c, core);
	else
		report_place(f, &r->p, c);
	if (!fclose(f))
		to_stderr(text, len);
	free(text);
}

/* After ops->stop(): say how it ended. Returns the exit status. */
static int conclude(struct run *r)
{
	const struct outcome *o = &r->p.outcome;

	switch (o->kind) {
	case OUTCOME_POWEROFF:
		host_verbose("the guest powered off with code %u", o->code);
		return (int)o->code;
	case OUTCOME_RESTART:
		host_verbose("the guest restarts with code %u", o->code);
		return (int)o->code;
	case OUTCOME_TIMEOUT:
		host_say("the guest did not end within %u s", r->opt.timeout);
		report(r, false);
		return EXIT_TIMEOUT;
	case OUTCOME_STOPPED:
		return 0;
	case OUTCOME_CRASH:
	case OUTCOME_KILLED:
	case OUTCOME_NONE:
		report(r, true);
		return EXIT_CRASHED;
	}
	return EXIT_CRASHED;
}

static bool is_wanted(const struct run *r, const struct backend_ops *ops)
{
	return !strcmp(r->opt.backend, "auto") || !strcmp(ops->name, r->opt.backend);
}

static bool is_candidate(const struct run *r, size_t i)
{
	return r->sealed ? backends[i] == r->backend : is_wanted(r, backends[i]) && !r->passed[i];
}

/* Before anything is built, so that the answers are there when they are needed. */
static void begin_probes(struct run *r)
{
	for (size_t i = 0; i < BACKENDS; i++)
		if (backends[i]->probe && is_wanted(r, backends[i]))
			backends[i]->probe->begin();
}

/* Pass over what runs badly here; a backend asked for by name only if it does not run at all. */
static void hear_probes(struct run *r)
{
	const bool any = !strcmp(r->opt.backend, "auto");

	for (size_t i = 0; i < BACKENDS; i++) {
		enum backend_fit fit;
		struct error why;

		if (!backends[i]->probe || !is_wanted(r, backends[i]))
			continue;
		fit = backends[i]->probe->answer(!any, &why);
		error_set(&r->why, "%s %.300s", backends[i]->name, why.text);
		r->passed[i] = fit == FIT_NONE || (any && fit == FIT_POOR);
		if (!any && fit == FIT_POOR)
			host_say("%s", r->why.text);
	}
}

static bool needs_sockets(const struct run *r)
{
	for (unsigned int i = 0; i < r->devices; i++)
		if (r->device[i]->sockets)
			return true;
	return false;
}

/* What is to be had by name or privilege is got now; both are gone when this returns. 0, or -1 with the reason. */
static int give_up_privileges(struct run *r, struct error *e)
{
	const struct keeper_ops *keeper = NULL;
	char name[300];

	for (size_t i = 0; i < BACKENDS; i++) {
		if (!is_candidate(r, i))
			continue;
		if (backends[i]->keeper)
			keeper = backends[i]->keeper;
		/* What it failed to open create() will miss. */
		if (backends[i]->prepare)
			backends[i]->prepare();
	}
	if (keeper_start(elfcore_path(&r->opt, name, sizeof(name)), r->opt.core != NULL, keeper, &r->p, e))
		return -1;
	seal_privileges(needs_sockets(r));
	return 0;
}

/* Filters: the devices' threads have less than the process, which has what all of them have. */
static int give_up_calls(struct run *r, struct error *e)
{
	const struct seal_table *table = r->p.ops->calls;
	struct seal_calls more[PARTITION_DEVICES];

	for (unsigned int i = 0; i < r->devices; i++)
		if (device_prepare(r->device[i], table, &more[i], e))
			return -1;
	return seal_calls(table, more, r->devices, r->opt.require_sandbox, e);
}

/* The first backend that can be created; 0, or an exit status with everything said. */
static int create_backend(struct run *r)
{
	const char *wanted = r->opt.backend;
	bool any = !strcmp(wanted, "auto");

	for (size_t i = 0; i < BACKENDS; i++) {
		int err;

		if (!is_candidate(r, i))
			continue;
		r->p.ops = backends[i];
		err = backends[i]->create(&r->p);
		if (!err) {
			host_verbose("backend %s%s%s", backends[i]->name, any ? ", chosen because " : "",
				     any ? r->why.text : "");
			return 0;
		}
		/* How that went wrong is not how the guest ended. */
		memset(&r->p.outcome, 0, sizeof(r->p.outcome));
		drain(r->p.end_fd);
		host_verbose("backend %s: %s", backends[i]->name, strerror(-err));
		error_set(&r->why, "%s cannot be made: %s", backends[i]->name, strerror(-err));
	}
	host_say("no backend can run this guest here%s%s%s%s", any ? "" : "; asked for was ", any ? "" : wanted,
		 *r->why.text ? ": " : "", r->why.text);
	return EXIT_NO_BACKEND;
}

/* How long the guest's last output may take. A guest that was stopped has no say in it. */
static void flush_console(struct run *r)
{
	enum outcome_kind kind = r->p.outcome.kind;
	bool wait = kind != OUTCOME_STOPPED && kind != OUTCOME_TIMEOUT;
	int abort_fd = r->epoll_fd;

	/* Only what ends a run early may cut the wait short: signals and the timeout. */
	epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, r->p.end_fd, NULL);
	epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, r->p.doorbell_fd, NULL);
	epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, r->clock_fd, NULL);
	epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, console_fd(r->console), NULL);
	for (size_t i = 0; i < BACKENDS; i++)
		if (backends[i]->probe)
			epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, backends[i]->probe->fd(), NULL);
	if (!console_flush(r->console, wait ? abort_fd : -1, wait ? -1 : STOP_FLUSH_MS))
		host_say("console: stdout takes no more; the guest's last output is lost");
}

static int start_devices(struct run *r, struct error *e)
{
	for (unsigned int i = 0; i < r->devices; i++)
		if (device_start(r->device[i], &r->p, e))
			return -1;
	return 0;
}

/* Requests under way are finished: the host's kernel may be writing to the guest's memory. */
static void stop_devices(struct run *r)
{
	for (unsigned int i = 0; i < r->devices; i++)
		device_stop(r->device[i]);
}

/* One life of the guest. Returns the exit status; *again: it asked for another. */
static int run_once(struct run *r, bool *again)
{
	struct error e;
	int status;

	*again = false;
	if (partition_create(&r->p, &r->opt, &r->image, &e)) {
		host_say("%s", e.text);
		return EXIT_USAGE;
	}
	r->p.console = r->console;
	memcpy(r->p.device, r->device, sizeof(r->p.device));
	r->p.devices = r->devices;
	if (!r->sealed)
		hear_probes(r);
	if (!r->sealed && give_up_privileges(r, &e)) {
		host_say("%s", e.text);
		status = EXIT_NO_BACKEND;
		goto out_partition;
	}
	status = create_backend(r);
	if (status)
		goto out_partition;
	if (!r->sealed && give_up_calls(r, &e)) {
		host_say("%s", e.text);
		status = EXIT_NO_BACKEND;
		goto out_backend;
	}
	if (!r->sealed && !r->p.ops->keeper)
		keeper_ask(&(struct keeper_message){ .what = KEEPER_CORE_ONLY });
	r->sealed = true;
	r->backend = r->p.ops;
	host_verbose("%s: entry %#lx, %lu MiB of memory, clock page %s", r->image.name, r->p.entry, r->p.ram_size >> 20,
		     r->p.clock.page->flags & KEEL_CLOCK_VALID ? "valid" : "not valid");
	console_bind(r->console, &r->p);
	r->epoll_fd = -1;
	arm(r->clock_fd, clock_refresh(&r->p.clock));
	if (start_devices(r, &e)) {
		host_say("%s", e.text);
		status = EXIT_NO_BACKEND;
		goto out_backend;
	}
	if (r->p.ops->start(&r->p)) {
		status = EXIT_NO_BACKEND;
		goto out_backend;
	}
	if (event_loop(r, &e)) {
		host_say("%s", e.text);
		end(r, OUTCOME_STOPPED);
		status = EXIT_NO_BACKEND;
	}
	console_release(r->console);
	r->p.ops->stop(&r->p);
	stop_devices(r);
	flush_console(r);
	if (!status)
		status = conclude(r);
	*again = r->p.outcome.kind == OUTCOME_RESTART;
	if (r->opt.stats)
		print_stats(r);
out_backend:
	stop_devices(r);
	console_bind(r->console, NULL);
	if (r->epoll_fd >= 0)
		close(r->epoll_fd);
	r->p.ops->destroy(&r->p);
out_partition:
	partition_destroy(&r->p);
	return status;
}

static int set_up(struct run *r, struct error *e)
{
	sigset_t mask;

	signal(SIGPIPE, SIG_IGN); /* a closed stdout is console.c's to notice */
	signal(SIGXFSZ, SIG_IGN); /* a too long core is an error, not our end */
	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGHUP);
	sigaddset(&mask, SIGQUIT);
	sigaddset(&mask, SIGWINCH);
	sigaddset(&mask, SIGCONT);
	sigaddset(&mask, SIGTSTP);
	/* Before any thread exists, so that all of them leave these to the main thread. */
	sigprocmask(SIG_BLOCK, &mask, &r->old_mask);
	r->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	r->clock_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (r->signal_fd < 0 || r->clock_fd < 0)
		return error_set(e, "cannot set up the event loop: %s", strerror(errno));
	if (r->opt.timeout) {
		r->timeout_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
		if (r->timeout_fd < 0)
			return error_set(e, "cannot make a timer: %s", strerror(errno));
		arm(r->timeout_fd, r->opt.timeout * UINT64_C(1000000000));
	}
	for (; r->devices < r->opt.devices; r->devices++) {
		r->device[r->devices] =
			device_open(r->opt.device[r->devices].kind, r->devices, r->opt.device[r->devices].spec, e);
		if (!r->device[r->devices])
			return -1;
	}
	r->console = console_open(STDIN_FILENO, STDOUT_FILENO, e);
	return r->console ? 0 : -1;
}

/* A descriptor we open must not become somebody's stdin, stdout or stderr. */
static void reserve_stdio(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

int verb_run(int argc, char **argv)
{
	struct run r = { .signal_fd = -1, .timeout_fd = -1, .clock_fd = -1, .epoll_fd = -1, .image.fd = -1 };
	int status = EXIT_USAGE;
	struct error e;
	bool again;
	int ret;

	clock_early();
	reserve_stdio();
	ret = run_options_parse(&r.opt, argc, argv, &e);
	if (ret > 0) {
		printf("usage: keel run [OPTIONS] IMAGE\n\n");
		verb_run_help(stdout);
		return 0;
	}
	if (ret < 0) {
		host_say("run: %s; see \"keel help run\"", e.text);
		return EXIT_USAGE;
	}
	signal(SIGCHLD, SIG_DFL); /* who ignores it cannot wait for its children */
	begin_probes(&r);
	host_verbose_on = r.opt.verbose;
	if ((r.opt.hvm ? hvmimage_open : image_open)(&r.image, r.opt.image, &e) || set_up(&r, &e)) {
		host_say("%s", e.text);
		goto out;
	}
	do {
		status = run_once(&r, &again);
	} while (again);
out:
	end_probes();
	keeper_stop();
	for (unsigned int i = 0; i < r.devices; i++)
		device_close(r.device[i]);
	console_close(r.console);
	image_close(&r.image);
	if (r.signal) {
		/* End the way the signal would have ended us, so that whoever sent it sees that. */
		signal(r.signal, SIG_DFL);
		sigprocmask(SIG_SETMASK, &r.old_mask, NULL);
		raise(r.signal);
	}
	return status;
}
