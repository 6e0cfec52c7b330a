// SPDX-License-Identifier: MIT
/*
 * keel-conform - runs the conformance images against one host through one
 * adapter (README.md has the contract) and says what held.
 *
 * One test is one boot: the runner starts the adapter with the test's image
 * and command line, reads the console, and judges by the verdict lines and by
 * how the partition ended. KTAP goes to stdout, a table to stderr, JSON to
 * --out. The exit status is the class of the worst outcome.
 */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#define OUTPUT_MAX (256 * 1024)
#define JOBS_MAX 64

enum outcome { PASS, FAIL, SKIP, ERROR, CRASH, TIMEOUT, XFAIL, OUTCOMES };
static const char *const outcome_name[] = { "PASS", "FAIL", "SKIP", "ERROR", "CRASH", "TIMEOUT", "XFAIL" };

/* Values of the manifest's column exit beside statuses. */
#define EXIT_ANY -1	/* a power-off or a crash */
#define EXIT_RESTART -2 /* it must start anew */
#define EXIT_STOP -3	/* it must go on, without a word, until it is stopped */

/* Exit statuses; the README documents them. */
enum { EXIT_CONFORMANT = 0, EXIT_INCOMPLETE = 3, EXIT_ERROR = 4, EXIT_FAIL = 5, EXIT_CRASH = 6 };

struct test {
	char *id, *name, *clauses, *profile, *image;
	int ext; /* optional extension or feature bit, -1 = none */
	int timeout;
	int exit; /* how the partition must end, or one of EXIT_* below */
	bool destructive, negative;
	char *input, *line, *args;
	long module;
	int vcpus;     /* to start with; 0 = the adapter's affair */
	char *devices; /* kinds, + between them, in the order they are enumerated in; NULL = none */
	int group;

	bool selected, done;
	enum outcome outcome;
	char *detail, *text;
	int status; /* of the adapter; -1 = killed */
	long ms;
	const char *erratum;
};

struct job {
	struct test *test;
	pid_t pid;
	int out, err;
	size_t written; /* of the test's input */
	int in;
	char *text, *diag;
	size_t text_len, diag_len;
	struct timespec begun;
	struct timespec armed; /* since when; for EXIT_STOP */
	bool timed_out, restarted, stopped;
	char dir[64];
};

static struct job job[JOBS_MAX];
static struct test *tests;
static size_t ntests;
static char **errata; /* "ID number" from caps */
static size_t nerrata;
static const char *adapter, *images, *profile = "CORE", *filter, *outdir;
static unsigned long seed = 1, scale = 1;
static int jobs = 2, timeout_max = 3600, slow = 1;
static bool verbose;
static cJSON *caps;

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "keel-conform: ");
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(EXIT_ERROR);
}

static void *xrealloc(void *p, size_t n)
{
	p = realloc(p, n);
	if (!p)
		die("out of memory");
	return p;
}

static char *xstrdup(const char *s)
{
	char *d = strdup(s);

	if (!d)
		die("out of memory");
	return d;
}

static char *xprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *xprintf(const char *fmt, ...)
{
	va_list ap;
	char *s;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		die("out of memory");
	va_end(ap);
	return s;
}

/* TEXT of an option word: %20 is a space, %0a a newline, %25 a percent sign. */
static char *decode(const char *s)
{
	char *d = xstrdup(s), *o = d;

	for (; *s; s++) {
		unsigned int c;

		if (*s == '%' && sscanf(s + 1, "%2x", &c) == 1) {
			*o++ = (char)c;
			s += 2;
		} else {
			*o++ = *s;
		}
	}
	*o = 0;
	return d;
}

/* Bytes for the console: a text, or @N for N letters. */
static char *input(const char *s)
{
	size_t n;
	char *d;

	if (*s != '@')
		return decode(s);
	n = strtoul(s + 1, NULL, 10);
	d = xrealloc(NULL, n + 1);
	for (size_t i = 0; i < n; i++)
		d[i] = (char)('a' + i % 26);
	d[n] = 0;
	return d;
}

/* id,name,clauses,profile,ext,timeout,destructive,exit,negative,image,extra */
static void load_manifest(const char *path)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;

	if (!f)
		die("%s: %s", path, strerror(errno));
	while (getline(&line, &size, f) > 0) {
		char *field[11] = { 0 }, *rest = line;
		struct test t = { .ext = -1 };
		int n = 0;

		line[strcspn(line, "\n")] = 0;
		if (!*line || *line == '#' || !strncmp(line, "id,", 3))
			continue;
		while (n < 11 && (field[n] = strsep(&rest, ",")))
			n++;
		if (n != 11)
			die("%s: malformed line for '%s'", path, line);
		t.id = xstrdup(field[0]);
		t.name = xstrdup(field[1]);
		t.clauses = xstrdup(field[2]);
		t.profile = xstrdup(field[3]);
		t.ext = *field[4] ? atoi(field[4]) : -1;
		t.timeout = atoi(field[5]);
		t.destructive = *field[6] == '1';
		t.exit = !strcmp(field[7], "any")	    ? EXIT_ANY
			 : !strncmp(field[7], "restart", 7) ? EXIT_RESTART
			 : !strcmp(field[7], "stop")	    ? EXIT_STOP
							    : atoi(field[7]);
		t.negative = *field[8] == '1';
		t.image = xstrdup(field[9]);
		for (char *word; (word = strsep(&field[10], " "));) {
			if (!strncmp(word, "stdin=", 6))
				t.input = input(word + 6);
			else if (!strncmp(word, "line=", 5))
				t.line = decode(word + 5);
			else if (!strncmp(word, "args=", 5))
				t.args = decode(word + 5);
			else if (!strncmp(word, "module=", 7))
				t.module = atol(word + 7);
			else if (!strncmp(word, "vcpus=", 6))
				t.vcpus = atoi(word + 6);
			else if (!strncmp(word, "devices=", 8))
				t.devices = xstrdup(word + 8);
			else if (*word)
				die("%s: %s: unknown option '%s'", path, t.id, word);
		}
		if (t.timeout <= 0)
			die("%s: %s: no timeout", path, t.id);
		for (size_t i = 0; i < ntests; i++)
			if (!strcmp(tests[i].id, t.id))
				die("%s: %s is declared twice", path, t.id);
		tests = xrealloc(tests, (ntests + 1) * sizeof(*tests));
		tests[ntests++] = t;
	}
	free(line);
	fclose(f);
}

/* Tests of one group side by side, groups in the order of their first row, by number within. */
static int compare_tests(const void *a, const void *b)
{
	const struct test *x = a, *y = b;

	return x->group != y->group ? x->group - y->group : strcmp(x->id, y->id);
}

static void sort_tests(void)
{
	for (size_t i = 0; i < ntests; i++) {
		size_t first = 0, n = strcspn(tests[i].id, "-") + 1;

		while (strncmp(tests[first].id, tests[i].id, n))
			first++;
		tests[i].group = (int)first;
	}
	qsort(tests, ntests, sizeof(*tests), compare_tests);
}

static bool in_list(const char *list, const char *word, bool pattern)
{
	char *copy = xstrdup(list), *rest = copy, *item;
	bool found = false;

	while (!found && (item = strsep(&rest, ",")))
		found = pattern ? !fnmatch(item, word, 0) : !strcmp(item, word);
	free(copy);
	return found;
}

static void select_tests(void)
{
	for (size_t i = 0; i < ntests; i++)
		tests[i].selected = in_list(profile, tests[i].profile, false) &&
				    (!filter || in_list(filter, tests[i].id, true));
}

/* Run a verb to its end, output captured; returns its exit status or -1. */
static int adapter_verb(const char *verb, char *out, size_t size)
{
	size_t n = 0;
	int fd[2], status;
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC))
		die("pipe: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (!pid) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		dup2(null, 0);
		dup2(fd[1], 1);
		execl(adapter, adapter, verb, (char *)NULL);
		fprintf(stderr, "keel-conform: %s: %s\n", adapter, strerror(errno));
		_exit(127);
	}
	close(fd[1]);
	for (ssize_t k; n < size - 1 && (k = read(fd[0], out + n, size - 1 - n)) > 0;)
		n += (size_t)k;
	out[n] = 0;
	close(fd[0]);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void read_caps(void)
{
	char buf[4096], *rest = buf, *line;

	caps = cJSON_CreateObject();
	if (adapter_verb("caps", buf, sizeof(buf)))
		die("%s caps failed: the environment is broken", adapter);
	while ((line = strsep(&rest, "\n"))) {
		char *eq = strchr(line, '=');

		if (!eq)
			continue;
		*eq++ = 0;
		if (!strcmp(line, "erratum")) {
			errata = xrealloc(errata, (nerrata + 1) * sizeof(*errata));
			errata[nerrata++] = xstrdup(eq);
			continue;
		}
		cJSON_AddStringToObject(caps, line, eq);
	}
	for (const char **need = (const char *[]){ "host", "backend", "hw", "verbs", NULL }; *need; need++)
		if (!cJSON_GetObjectItem(caps, *need))
			die("%s caps does not say '%s'", adapter, *need);
}

static const char *cap(const char *name)
{
	cJSON *c = cJSON_GetObjectItem(caps, name);

	return c ? c->valuestring : "?";
}

/* Tests of profile HVM are for hosts that offer such partitions; caps says hvm=yes, on what, or why not. */
static bool is_hvm(const struct test *t)
{
	return !strcmp(t->profile, "HVM");
}

static bool offers_hvm(void)
{
	return !strncmp(cap("hvm"), "yes", 3);
}

/* Tests with several vCPUs need a host that starts partitions with so many; caps says vcpus=N. */
static bool offers_vcpus(const struct test *t)
{
	return t->vcpus <= 1 || atoi(cap("vcpus")) >= t->vcpus;
}

/* Tests of devices need a host that has that kind; caps says devices=KIND+KIND... */
static bool offers_devices(const struct test *t)
{
	char *offered = xprintf("+%s+", cap("devices")), *wanted = t->devices ? xstrdup(t->devices) : NULL,
	     *at = wanted;
	bool all = true;

	for (char *kind; (kind = strsep(&at, "+"));) {
		char *word = xprintf("+%s+", kind);

		all = all && strstr(offered, word);
		free(word);
	}
	free(wanted);
	free(offered);
	return all;
}

static const char *erratum_of(const char *id)
{
	for (size_t i = 0; i < nerrata; i++) {
		size_t n = strlen(id);

		if (!strncmp(errata[i], id, n) && errata[i][n] == ' ')
			return errata[i] + n + 1;
	}
	return NULL;
}

static long elapsed_ms(const struct timespec *since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000;
}

static void make_module(const char *path, long size)
{
	FILE *f = fopen(path, "we");

	if (!f)
		die("%s: %s", path, strerror(errno));
	for (long i = 0; i < size; i++)
		fputc((int)(i * 7 & 0xff), f);
	if (fclose(f))
		die("%s: %s", path, strerror(errno));
}

static void start_job(struct job *j, struct test *t)
{
	char *image, *cmdline, *module = NULL;
	int in[2], out[2], err[2];

	*j = (struct job){ .test = t, .in = -1 };
	strcpy(j->dir, "/tmp/keel-conform.XXXXXX");
	if (!mkdtemp(j->dir))
		die("%s: %s", j->dir, strerror(errno));
	image = xprintf("%s/%s", images, t->image);
	if (access(image, R_OK))
		die("%s: %s", image, strerror(errno));
	cmdline = xprintf("test=%s seed=%lu scale=%lu wall=%ld%s%s", t->id, seed, scale, (long)time(NULL),
			  t->args ? " " : "", t->args ? t->args : "");
	if (t->module) {
		module = xprintf("%s/module", j->dir);
		make_module(module, t->module);
	}
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		die("pipe: %s", strerror(errno));
	clock_gettime(CLOCK_MONOTONIC, &j->begun);
	j->pid = fork();
	if (j->pid < 0)
		die("fork: %s", strerror(errno));
	if (!j->pid) {
		setpgid(0, 0);
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		setenv("KEEL_CONFORM_DIR", j->dir, 1);
		if (t->vcpus)
			setenv("KEEL_CONFORM_VCPUS", xprintf("%d", t->vcpus), 1);
		if (t->devices)
			setenv("KEEL_CONFORM_DEVICES", t->devices, 1);
		execl(adapter, adapter, is_hvm(t) ? "start-hvm" : "start", image, cmdline, module, (char *)NULL);
		_exit(127);
	}
	setpgid(j->pid, j->pid);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	if (t->input) {
		j->in = in[1];
		fcntl(j->in, F_SETFL, O_NONBLOCK);
	} else {
		close(in[1]);
	}
	j->out = out[0];
	j->err = err[0];
	fcntl(j->out, F_SETFL, O_NONBLOCK);
	fcntl(j->err, F_SETFL, O_NONBLOCK);
	free(image);
	free(cmdline);
	free(module);
}

/* Read what is there; false at end of file. What is beyond OUTPUT_MAX is dropped. */
static bool drain(int fd, char **text, size_t *len)
{
	char buf[16384];

	for (;;) {
		ssize_t n = read(fd, buf, sizeof(buf));

		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		if (!n)
			return false;
		if (*len + (size_t)n > OUTPUT_MAX)
			n = (ssize_t)(OUTPUT_MAX - *len);
		*text = xrealloc(*text, *len + (size_t)n + 1);
		memcpy(*text + *len, buf, (size_t)n);
		*len += (size_t)n;
		(*text)[*len] = 0;
	}
}

static void add_detail(struct test *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add_detail(struct test *t, const char *fmt, ...)
{
	char *s, *old = t->detail;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		die("out of memory");
	va_end(ap);
	t->detail = old ? xprintf("%s\n%s", old, s) : xstrdup(s);
	free(s);
	free(old);
}

static bool reported_restart(const struct job *j)
{
	char *path = xprintf("%s/end", j->dir), line[64] = "";
	FILE *f = fopen(path, "re");

	free(path);
	if (!f)
		return false;
	if (!fgets(line, sizeof(line), f))
		line[0] = 0;
	fclose(f);
	return !strncmp(line, "restart ", 8);
}

/* The verdict from what was printed and how it ended. */
static void judge(struct job *j, int wstatus)
{
	struct test *t = j->test;
	bool begun = false, armed = false, passed = false, failed = false, line = !t->line;
	char *rest = j->text, *s;
	int skip = -1;

	t->ms = elapsed_ms(&j->begun);
	t->status = WIFEXITED(wstatus) ? WEXITSTATUS(wstatus) : -1;
	while (rest && (s = strsep(&rest, "\n"))) {
		s[strcspn(s, "\r")] = 0;
		if (!strncmp(s, "KT begin ", 9))
			begun = !strcmp(s + 9, t->id);
		else if (!strncmp(s, "KT note ", 8))
			add_detail(t, "%s", s + 8);
		else if (!strncmp(s, "KT fail ", 8)) {
			failed = true;
			add_detail(t, "%s", s + 8);
		} else if (!strcmp(s, "KT armed"))
			armed = true;
		else if (!strncmp(s, "KT skip ", 8)) {
			skip = atoi(s + 8);
			add_detail(t, "%s", s + 8);
		} else if (!strcmp(s, "KT pass"))
			passed = true;
		else if (!strcmp(s, "KT failed"))
			failed = true;
		if (t->line && !strcmp(s, t->line))
			line = true;
	}
	if (j->timed_out) {
		t->outcome = TIMEOUT;
		add_detail(t, "no end within %d s", t->timeout);
	} else if (t->status == 127) {
		t->outcome = ERROR;
		add_detail(t, "the adapter could not start the partition");
	} else if (failed) {
		t->outcome = FAIL;
	} else if (t->exit == 126) {
		/* An image that must be refused: not one instruction may run. */
		t->outcome = t->status == 126 && !begun ? PASS : FAIL;
		if (t->outcome == FAIL)
			add_detail(t, "image %s, ended with %d", begun ? "ran" : "did not run", t->status);
	} else if (skip >= 0) {
		t->outcome = t->ext == skip ? SKIP : FAIL;
		if (t->outcome == FAIL)
			add_detail(t, "skipped without being allowed to");
	} else if (t->exit == EXIT_RESTART) {
		/* Started anew, or ended with a report of it that the adapter passed on. */
		t->outcome = armed && (j->restarted || reported_restart(j)) ? PASS : FAIL;
		if (t->outcome == FAIL)
			add_detail(t, "no second start, ended with %d", t->status);
	} else if (t->exit == EXIT_STOP) {
		t->outcome = armed && j->stopped && !passed ? PASS : FAIL;
		if (t->outcome == FAIL)
			add_detail(t, "it did not go on until it was stopped, ended with %d", t->status);
	} else if (t->exit == EXIT_ANY) {
		t->outcome = (t->status == 0 && passed) || (t->status == 125 && armed) ? PASS : CRASH;
		if (t->outcome != PASS)
			add_detail(t, "ended with %d", t->status);
	} else if (passed || (armed && t->destructive)) {
		t->outcome = t->status == t->exit && line ? PASS : t->status == 125 || t->status < 0 ? CRASH : FAIL;
		if (t->status != t->exit)
			add_detail(t, "ended with %d, expected %d", t->status, t->exit);
		else if (!line)
			add_detail(t, "the console lacks the line '%s'", t->line);
		if (passed && t->destructive) {
			t->outcome = FAIL;
			add_detail(t, "the partition went on after what had to end it");
		}
	} else {
		t->outcome = t->status == 126 ? FAIL : CRASH;
		add_detail(t, "no verdict, ended with %d%s", t->status, begun ? "" : ", the test did not begin");
	}
	rest = t->outcome != PASS && j->diag_len ? j->diag : NULL;
	for (int i = 0; i < 3 && rest && *rest; i++)
		add_detail(t, "host: %s", strsep(&rest, "\n"));
	t->erratum = erratum_of(t->id);
	if (t->erratum && (t->outcome == FAIL || t->outcome == CRASH || t->outcome == TIMEOUT))
		t->outcome = XFAIL;
	t->done = true;
}

static void remove_dir(const char *dir)
{
	static const char *const left[] = { "module", "pid", "end", "disk0", "disk1", "disk2", "disk3" };

	for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++) {
		char *p = xprintf("%s/%s", dir, left[i]);

		unlink(p);
		free(p);
	}
	rmdir(dir);
}

/* Stop a partition that outstayed its time: by the verb, then by force. */
static void stop_job(struct job *j)
{
	char buf[256];

	setenv("KEEL_CONFORM_DIR", j->dir, 1);
	adapter_verb("stop", buf, sizeof(buf));
	unsetenv("KEEL_CONFORM_DIR");
	for (int i = 0; i < 20; i++) {
		siginfo_t si = { 0 };

		if (waitid(P_PID, (id_t)j->pid, &si, WEXITED | WNOHANG | WNOWAIT) || si.si_pid)
			break;
		usleep(50000);
	}
	kill(-j->pid, SIGKILL);
}

static void pump(struct job *j)
{
	struct test *t = j->test;
	bool open = true;
	int status;

	if (j->in >= 0) {
		size_t left = strlen(t->input) - j->written;
		ssize_t n = left ? write(j->in, t->input + j->written, left) : 0;

		if (n > 0)
			j->written += (size_t)n;
	}
	open = drain(j->out, &j->text, &j->text_len);
	open |= drain(j->err, &j->diag, &j->diag_len);
	if (open && elapsed_ms(&j->begun) > t->timeout * 1000L)
		j->timed_out = true;
	if (t->exit == EXIT_RESTART && j->text) {
		const char *first = strstr(j->text, "KT begin ");

		j->restarted = first && strstr(first + 1, "KT begin ");
	}
	if (t->exit == EXIT_STOP && open && j->text && strstr(j->text, "KT armed")) {
		if (!j->armed.tv_sec)
			clock_gettime(CLOCK_MONOTONIC, &j->armed);
		j->stopped = elapsed_ms(&j->armed) > 1000;
	}
	if (open && (j->timed_out || j->restarted || j->stopped))
		stop_job(j);
	else if (open)
		return;
	while (waitpid(j->pid, &status, 0) < 0)
		if (errno != EINTR)
			die("waitpid: %s", strerror(errno));
	drain(j->out, &j->text, &j->text_len);
	drain(j->err, &j->diag, &j->diag_len);
	close(j->out);
	close(j->err);
	if (j->in >= 0)
		close(j->in);
	if (verbose && j->diag_len)
		fprintf(stderr, "--- %s\n%s\n", t->id, j->diag);
	judge(j, status);
	remove_dir(j->dir);
	t->text = j->text;
	free(j->diag);
	j->test = NULL;
}

/* KTAP of everything that is finished and next in order, a subtest per group. */
static void report(bool all)
{
	static size_t at;
	static size_t group, in_group;
	static bool group_ok;

	for (; at < ntests; at++) {
		struct test *t = &tests[at];
		size_t prefix = strcspn(t->id, "-"), n = 0;
		bool last = true;

		if (!t->selected)
			continue;
		if (!t->done && !all)
			return;
		for (size_t i = 0; i < ntests; i++) {
			if (!tests[i].selected || strncmp(tests[i].id, t->id, prefix + 1))
				continue;
			n++;
			if (i > at)
				last = false;
		}
		if (!in_group) {
			printf("    KTAP version 1\n    # Subtest: %.*s\n    1..%zu\n", (int)prefix, t->id, n);
			group_ok = true;
		}
		if (t->detail) {
			char *copy = xstrdup(t->detail), *rest = copy, *s;

			while ((s = strsep(&rest, "\n")))
				printf("    # %s: %s\n", t->id, s);
			free(copy);
		}
		bool good = t->outcome == PASS || t->outcome == SKIP || t->outcome == XFAIL;

		printf("    %s %zu %s %s", good ? "ok" : "not ok", ++in_group, t->id, t->name);
		if (t->outcome == SKIP && is_hvm(t) && !offers_hvm())
			printf(" # SKIP HVM partitions are not offered: %s", cap("hvm"));
		else if (t->outcome == SKIP && !offers_vcpus(t))
			printf(" # SKIP partitions have %s vCPUs at most", cap("vcpus"));
		else if (t->outcome == SKIP && !offers_devices(t))
			printf(" # SKIP of the devices %s not all are offered", t->devices);
		else if (t->outcome == SKIP)
			printf(" # SKIP feature not offered");
		else if (t->outcome == XFAIL)
			printf(" # TODO erratum %s", t->erratum);
		else if (t->outcome != PASS && t->outcome != FAIL)
			printf(" # %s", outcome_name[t->outcome]);
		printf("\n");
		group_ok = group_ok && good;
		if (last) {
			printf("%s %zu %.*s\n", group_ok ? "ok" : "not ok", ++group, (int)prefix, t->id);
			in_group = 0;
		}
		fflush(stdout);
	}
}

/* Whatever ends the runner ends its partitions. */
static void end_jobs(void)
{
	for (int i = 0; i < JOBS_MAX; i++)
		if (job[i].test)
			kill(-job[i].pid, SIGKILL);
}

static void on_signal(int sig)
{
	end_jobs();
	_exit(128 + sig);
}

/* An erratum that takes the machine down with it is known by its mark, and by that alone: the test is not run. */
static bool is_fatal(const char *erratum)
{
	return erratum && *erratum && erratum[strlen(erratum) - 1] == '!';
}

static void run_all(void)
{
	size_t next = 0;
	int running = 0;

	for (size_t i = 0; i < ntests; i++)
		if (tests[i].selected && is_fatal(erratum_of(tests[i].id))) {
			tests[i].erratum = erratum_of(tests[i].id);
			tests[i].outcome = XFAIL;
			tests[i].done = true;
		} else if (tests[i].selected && ((is_hvm(&tests[i]) && !offers_hvm()) || !offers_vcpus(&tests[i]) ||
						 !offers_devices(&tests[i]))) {
			tests[i].outcome = SKIP;
			tests[i].done = true;
		}

	for (;;) {
		struct pollfd pfd[3 * JOBS_MAX];
		nfds_t n = 0;

		for (int i = 0; i < jobs; i++) {
			while (!job[i].test && next < ntests && (!tests[next].selected || tests[next].done))
				next++;
			if (!job[i].test && next < ntests) {
				start_job(&job[i], &tests[next++]);
				running++;
			}
			if (job[i].test) {
				pfd[n++] = (struct pollfd){ .fd = job[i].out, .events = POLLIN };
				pfd[n++] = (struct pollfd){ .fd = job[i].err, .events = POLLIN };
			}
		}
		if (!running)
			return;
		poll(pfd, n, 100);
		for (int i = 0; i < jobs; i++) {
			if (!job[i].test)
				continue;
			pump(&job[i]);
			if (!job[i].test)
				running--;
		}
		report(false);
	}
}

static size_t count(const char *group, enum outcome o)
{
	size_t n = 0;

	for (size_t i = 0; i < ntests; i++)
		n += tests[i].selected && tests[i].outcome == o &&
		     (!group || (!strncmp(tests[i].id, group, strlen(group)) && tests[i].id[strlen(group)] == '-'));
	return n;
}

static void write_json(int status)
{
	cJSON *root = cJSON_CreateObject(), *results = cJSON_CreateArray(), *totals = cJSON_CreateObject();
	char *path, *text;
	FILE *f;

	cJSON_AddNumberToObject(root, "schema", 1);
	cJSON_AddStringToObject(root, "abi", "1.0");
	cJSON_AddItemToObject(root, "host", cJSON_Duplicate(caps, true));
	cJSON_AddStringToObject(root, "profile", profile);
	if (filter)
		cJSON_AddStringToObject(root, "filter", filter);
	cJSON_AddNumberToObject(root, "seed", (double)seed);
	cJSON_AddNumberToObject(root, "rounds_scale", (double)scale);
	for (size_t i = 0; i < ntests; i++) {
		struct test *t = &tests[i];
		cJSON *r;

		if (!t->selected)
			continue;
		r = cJSON_CreateObject();
		cJSON_AddStringToObject(r, "id", t->id);
		cJSON_AddStringToObject(r, "name", t->name);
		cJSON_AddStringToObject(r, "clauses", t->clauses);
		cJSON_AddStringToObject(r, "status", outcome_name[t->outcome]);
		cJSON_AddNumberToObject(r, "ms", (double)t->ms);
		if (t->detail)
			cJSON_AddStringToObject(r, "detail", t->detail);
		cJSON_AddItemToArray(results, r);
	}
	cJSON_AddItemToObject(root, "results", results);
	for (enum outcome o = PASS; o < OUTCOMES; o++)
		cJSON_AddNumberToObject(totals, outcome_name[o], (double)count(NULL, o));
	cJSON_AddItemToObject(root, "totals", totals);
	cJSON_AddNumberToObject(root, "exit", status);
	path = xprintf("%s/conformance.json", outdir);
	text = cJSON_Print(root);
	f = fopen(path, "we");
	if (!f || !text || fprintf(f, "%s\n", text) < 0 || fclose(f))
		die("%s: %s", path, strerror(errno));
	free(text);
	free(path);
	cJSON_Delete(root);
}

static void print_table(int status)
{
	size_t total = 0;

	fprintf(stderr, "%-10s %5s", "group", "tests");
	for (enum outcome o = PASS; o < OUTCOMES; o++)
		fprintf(stderr, " %7s", outcome_name[o]);
	fputc('\n', stderr);
	for (size_t i = 0; i < ntests; i++) {
		char group[32];
		bool first = tests[i].selected;
		size_t n = 0;

		snprintf(group, sizeof(group), "%.*s", (int)strcspn(tests[i].id, "-"), tests[i].id);
		for (size_t k = 0; k < i && first; k++)
			first = !tests[k].selected || strncmp(tests[k].id, tests[i].id, strlen(group) + 1) != 0;
		if (!first)
			continue;
		for (enum outcome o = PASS; o < OUTCOMES; o++)
			n += count(group, o);
		total += n;
		fprintf(stderr, "%-10s %5zu", group, n);
		for (enum outcome o = PASS; o < OUTCOMES; o++)
			fprintf(stderr, " %7zu", count(group, o));
		fputc('\n', stderr);
	}
	fprintf(stderr, "%-10s %5zu", "all", total);
	for (enum outcome o = PASS; o < OUTCOMES; o++)
		fprintf(stderr, " %7zu", count(NULL, o));
	fprintf(stderr, "\nprofile %s%s%s: %s   host=%s backend=%s hardware virtualization: %s\n", profile,
		filter ? ", filter " : "", filter ? filter : "",
		status == EXIT_CONFORMANT   ? filter ? "selected tests hold" : "CONFORMANT"
		: status == EXIT_INCOMPLETE ? "INCOMPLETE"
		: status == EXIT_ERROR	    ? "ENVIRONMENT ERROR"
					    : "NOT CONFORMANT",
		cap("host"), cap("backend"), cap("hw"));
}

static const struct option options[] = {
	{ "adapter", required_argument, NULL, 'a' },
	{ "filter", required_argument, NULL, 'f' },
	{ "help", no_argument, NULL, 'h' },
	{ "images", required_argument, NULL, 'i' },
	{ "jobs", required_argument, NULL, 'j' },
	{ "list", no_argument, NULL, 'l' },
	{ "out", required_argument, NULL, 'o' },
	{ "profile", required_argument, NULL, 'p' },
	{ "rounds-scale", required_argument, NULL, 'r' },
	{ "seed", required_argument, NULL, 's' },
	{ "slow", required_argument, NULL, 'w' },
	{ "timeout", required_argument, NULL, 't' },
	{ "verbose", no_argument, NULL, 'v' },
	{ NULL, 0, NULL, 0 },
};

static void usage(FILE *f)
{
	fprintf(f,
		"usage: keel-conform --adapter PROGRAM [options]\n"
		"  --adapter PROGRAM  how to run images on the host under test (README.md)\n"
		"  --images DIR       the prebuilt images and manifest.csv, default: conformance/ beside this program\n"
		"  --profile P,...    profiles to test, default CORE\n"
		"  --filter PAT,...   only tests whose id matches, e.g. 'MMU-*,TRAP-001'\n"
		"  --seed N           of the random sequences, default 1\n"
		"  --rounds-scale N   divide the rounds of stress tests by N, default 1\n"
		"  --slow N           give every test N times as long, default 1\n"
		"  --jobs N           tests run at a time, default 2\n"
		"  --timeout S        no test may take longer, whatever the manifest says\n"
		"  --out DIR          where conformance.json goes, default: not written\n"
		"  --list             print the selected tests and exit\n"
		"  --verbose          show what the host says of each test\n"
		"exit: 0 conformant, 3 incomplete, 4 environment error, 5 failed, 6 crashed or timed out\n");
}

static unsigned long number(const char *s, const char *what)
{
	char *end;
	unsigned long n = strtoul(s, &end, 0);

	if (!*s || *end || !n)
		die("%s: '%s' is not a positive number", what, s);
	return n;
}

int main(int argc, char **argv)
{
	char self[PATH_MAX], *manifest;
	size_t selected = 0, groups = 0;
	bool list = false;
	int c, status;
	ssize_t n;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'a':
			adapter = optarg;
			break;
		case 'f':
			filter = optarg;
			break;
		case 'h':
			usage(stdout);
			return 0;
		case 'i':
			images = optarg;
			break;
		case 'j':
			jobs = (int)number(optarg, "--jobs");
			break;
		case 'l':
			list = true;
			break;
		case 'o':
			outdir = optarg;
			break;
		case 'p':
			profile = optarg;
			break;
		case 'r':
			scale = number(optarg, "--rounds-scale");
			break;
		case 's':
			seed = number(optarg, "--seed");
			break;
		case 'w':
			slow = (int)number(optarg, "--slow");
			break;
		case 't':
			timeout_max = (int)number(optarg, "--timeout");
			break;
		case 'v':
			verbose = true;
			break;
		default:
			usage(stderr);
			return EXIT_ERROR;
		}
	}
	if (optind != argc || jobs > JOBS_MAX) {
		usage(stderr);
		return EXIT_ERROR;
	}
	if (!images) {
		n = readlink("/proc/self/exe", self, sizeof(self) - 1);
		if (n < 0)
			die("/proc/self/exe: %s", strerror(errno));
		self[n] = 0;
		*strrchr(self, '/') = 0;
		images = xprintf("%s/conformance", self);
	}
	manifest = xprintf("%s/manifest.csv", images);
	load_manifest(manifest);
	free(manifest);
	sort_tests();
	select_tests();
	for (size_t i = 0; i < ntests; i++)
		tests[i].timeout = tests[i].timeout > timeout_max / slow ? timeout_max : tests[i].timeout * slow;
	for (size_t i = 0; i < ntests; i++) {
		bool first = tests[i].selected;

		if (!tests[i].selected)
			continue;
		selected++;
		for (size_t k = 0; k < i && first; k++)
			first = !tests[k].selected ||
				strncmp(tests[k].id, tests[i].id, strcspn(tests[i].id, "-") + 1) != 0;
		groups += first;
		if (list)
			printf("%s %s %s %s%s\n", tests[i].id, tests[i].name, tests[i].profile, tests[i].clauses,
			       tests[i].negative ? " (negative)" : "");
	}
	if (list)
		return 0;
	if (!selected)
		die("no test is selected");
	if (!adapter) {
		usage(stderr);
		return EXIT_ERROR;
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGHUP, on_signal);
	atexit(end_jobs);
	read_caps();
	printf("KTAP version 1\n# host %s, backend %s, hardware virtualization %s, HVM %s, seed %lu\n1..%zu\n",
	       cap("host"), cap("backend"), cap("hw"), cap("hvm"), seed, groups);
	run_all();
	report(true);
	status = count(NULL, ERROR)			      ? EXIT_ERROR
		 : count(NULL, CRASH) || count(NULL, TIMEOUT) ? EXIT_CRASH
		 : count(NULL, FAIL)			      ? EXIT_FAIL
		 : count(NULL, SKIP) && !count(NULL, PASS)    ? EXIT_INCOMPLETE
							      : EXIT_CONFORMANT;
	for (size_t i = 0; i < ntests && status == EXIT_CONFORMANT; i++)
		if (tests[i].selected && tests[i].outcome == SKIP && tests[i].ext < 0 && !is_hvm(&tests[i]))
			status = EXIT_INCOMPLETE;
	if (outdir) {
		if (mkdir(outdir, 0777) && errno != EEXIST)
			die("%s: %s", outdir, strerror(errno));
		write_json(status);
	}
	print_table(status);
	return status;
}
