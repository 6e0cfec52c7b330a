// SPDX-License-Identifier: MIT
/*
 * keel-diff - two hosts, the same operations, the same answers?
 *
 * Runs one guest image (guest.c) under two commands at a time with the same
 * list of operations, compares what the guest says after each, and shrinks a
 * difference to the few operations that bring it about. README.md beside this
 * directory's parent tells how to use it. KTAP goes to standard output; exit
 * statuses are keel-conform's.
 *
 * The guest prints a digest of 16 digits per operation. Where two digests
 * differ it is run again and asked for all it noted of that operation.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ops.h"

enum { EXIT_ALIKE = 0, EXIT_ENVIRONMENT = 4, EXIT_DIFFERENT = 5, EXIT_CRASHED = 6 };

#define NOTES_MAX 8192	 /* lines of detail kept per run */
#define TAIL_MAX 2048	 /* bytes of a host's own words kept */
#define CMDLINE_LIST 160 /* operations that go on a command line; longer lists go as a module */

enum verdict {
	ALIKE,
	DIFFERENT,
	STOPPED, /* a host crashed, ended or stood still where the other did not */
	BOTH,	 /* both ended the same way before the list did */
	NO_HOST, /* a host could not be started */
};

struct lines {
	char **at;
	size_t n, room;
};

struct side {
	const char *name;
	const char *command;

	pid_t pid; /* 0 = none */
	int out, err;
	char part[1024];
	size_t part_len;
	bool ended;   /* the guest said so */
	bool stuck;   /* killed because nothing came any more */
	bool stopped; /* killed because enough is known */
	bool gone;    /* waited for */
	int status;   /* exit status, or 128 + signal */
	struct timespec last;
	struct lines digests, ring, notes;
	char tail[TAIL_MAX];
	size_t tail_len;
};

static struct side side[2] = { { .name = "a" }, { .name = "b" } };
static const char *image;
static const char *avoid;
static uint64_t features[KEEL_FEATURE_WORDS] = { ~0ull, ~0ull };
static long quiet_seconds = 30, shrink_seconds = 120;
static const char *save;
static unsigned long runs;

static void kill_all(void)
{
	for (int i = 0; i < 2; i++)
		if (side[i].pid > 0)
			kill(-side[i].pid, SIGKILL);
}

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *fmt, ...)
{
	va_list ap;

	kill_all();
	va_start(ap, fmt);
	fprintf(stderr, "keel-diff: ");
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(EXIT_ENVIRONMENT);
}

static void on_signal(int sig)
{
	kill_all();
	signal(sig, SIG_DFL);
	raise(sig);
}

static double seconds(const struct timespec *since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - since->tv_sec) + (double)(now.tv_nsec - since->tv_nsec) / 1e9;
}

static void lines_add(struct lines *l, const char *s)
{
	if (l->n == l->room) {
		l->room = l->room ? 2 * l->room : 64;
		l->at = realloc(l->at, l->room * sizeof(*l->at));
		if (!l->at)
			die("out of memory");
	}
	l->at[l->n] = strdup(s);
	if (!l->at[l->n++])
		die("out of memory");
}

static void lines_clear(struct lines *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->at[i]);
	l->n = 0;
}

/* Operations by their words, or by the seed they are drawn from (n of them, word NULL). */
struct list {
	const uint64_t *word;
	uint64_t seed;
	size_t n;
};

static uint64_t list_word(const struct list *l, size_t i)
{
	return l->word ? l->word[i] : op_word(l->seed, i);
}

/* The guest's command line; *module is a path, or empty. */
static void describe(const struct list *l, long detail, char *line, size_t size, char *module, size_t module_size,
		     int *memfd)
{
	int n = snprintf(line, size, "test=DIFF f0=%" PRIu64 " f1=%" PRIu64, features[0], features[1]);

	*module = '\0';
	*memfd = -1;
	if (avoid)
		n += snprintf(line + n, size - (size_t)n, " avoid=%s", avoid);
	if (detail >= 0)
		n += snprintf(line + n, size - (size_t)n, " detail=%ld", detail);
	if (!l->word) {
		snprintf(line + n, size - (size_t)n, " seed=%" PRIu64 " ops=%zu", l->seed, l->n);
	} else if (l->n <= CMDLINE_LIST) {
		for (size_t i = 0; i < l->n; i++)
			n += snprintf(line + n, size - (size_t)n, "%s%" PRIx64, i ? "," : " list=", l->word[i]);
	} else {
		*memfd = memfd_create("operations", 0);
		if (*memfd < 0 || write(*memfd, l->word, l->n * 8) != (ssize_t)(l->n * 8))
			die("the list of operations: %s", strerror(errno));
		snprintf(module, module_size, "/proc/%d/fd/%d", (int)getpid(), *memfd);
	}
}

static void start(struct side *s, const char *line, const char *module)
{
	int out[2], err[2];
	char script[4096];

	/* A command that does not name $IMAGE itself takes the options of "keel run". */
	if ((size_t)snprintf(script, sizeof(script), "exec %s%s", s->command,
			     strstr(s->command, "$IMAGE")
				     ? ""
				     : " --cmdline \"$CMDLINE\" ${MODULE:+--initrd \"$MODULE\"} \"$IMAGE\"") >=
	    sizeof(script))
		die("the command of host %s is too long", s->name);
	if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		die("pipe: %s", strerror(errno));
	s->part_len = s->tail_len = 0;
	s->ended = s->stuck = s->stopped = s->gone = false;
	s->status = -1;
	lines_clear(&s->digests);
	lines_clear(&s->ring);
	lines_clear(&s->notes);
	clock_gettime(CLOCK_MONOTONIC, &s->last);
	s->pid = fork();
	if (s->pid < 0)
		die("fork: %s", strerror(errno));
	if (!s->pid) {
		int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setenv("IMAGE", image, 1);
		setenv("CMDLINE", line, 1);
		setenv("MODULE", module, 1);
		dup2(null, 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		execl("/bin/sh", "sh", "-c", script, (char *)NULL);
		_exit(127);
	}
	setpgid(s->pid, s->pid);
	close(out[1]);
	close(err[1]);
	s->out = out[0];
	s->err = err[0];
}

static bool is_digest(const char *s)
{
	return strspn(s, "0123456789abcdef") == 16 && !s[16];
}

static void take_line(struct side *s, const char *line)
{
	clock_gettime(CLOCK_MONOTONIC, &s->last);
	if (is_digest(line))
		lines_add(&s->digests, line);
	else if (line[0] == '~')
		lines_add(&s->ring, line);
	else if (!strncmp(line, "KT note end ", 12))
		s->ended = true;
	else if (!strncmp(line, "KT note ", 8) || !strncmp(line, "KT fail ", 8)) {
		if (s->notes.n < NOTES_MAX)
			lines_add(&s->notes, line + 8);
	}
}

static void take_output(struct side *s)
{
	char buf[65536];
	ssize_t n = read(s->out, buf, sizeof(buf));

	if (n <= 0) {
		if (n < 0 && errno == EINTR)
			return;
		close(s->out);
		s->out = -1;
		return;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] == '\r')
			continue;
		if (buf[i] != '\n') {
			if (s->part_len < sizeof(s->part) - 1)
				s->part[s->part_len++] = buf[i];
			continue;
		}
		s->part[s->part_len] = '\0';
		s->part_len = 0;
		take_line(s, s->part);
	}
}

static void take_words(struct side *s)
{
	char buf[4096];
	ssize_t n = read(s->err, buf, sizeof(buf));

	if (n <= 0) {
		if (n < 0 && errno == EINTR)
			return;
		close(s->err);
		s->err = -1;
		return;
	}
	/* The first words say what happened. */
	if ((size_t)n > sizeof(s->tail) - 1 - s->tail_len)
		n = (ssize_t)(sizeof(s->tail) - 1 - s->tail_len);
	memcpy(s->tail + s->tail_len, buf, (size_t)n);
	s->tail_len += (size_t)n;
	s->tail[s->tail_len] = '\0';
}

static void stop(struct side *s)
{
	s->stopped = true;
	kill(-s->pid, SIGKILL);
}

static void reap(struct side *s)
{
	int st;

	while (waitpid(s->pid, &st, 0) < 0 && errno == EINTR)
		;
	s->status = WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
	/* Whatever the command left in its group goes with it. */
	kill(-s->pid, SIGKILL);
	s->pid = 0;
	s->gone = true;
}

/* Have both said something different already, so that no more is needed? */
static bool decided(size_t *seen)
{
	size_t n = side[0].digests.n < side[1].digests.n ? side[0].digests.n : side[1].digests.n;

	for (; *seen < n; ++*seen)
		if (strcmp(side[0].digests.at[*seen], side[1].digests.at[*seen]))
			return true;
	return false;
}

/* Run both until they ended, stood still, or are known to differ. */
static void run_both(const struct list *l, long detail)
{
	char line[KEEL_CMDLINE_MAX], module[64];
	size_t seen = 0;
	int memfd;

	runs++;
	describe(l, detail, line, sizeof(line), module, sizeof(module), &memfd);
	for (int i = 0; i < 2; i++)
		start(&side[i], line, module);
	while (side[0].out >= 0 || side[0].err >= 0 || side[1].out >= 0 || side[1].err >= 0) {
		struct pollfd p[4];

		for (int i = 0; i < 2; i++) {
			p[2 * i] = (struct pollfd){ side[i].out, POLLIN, 0 };
			p[2 * i + 1] = (struct pollfd){ side[i].err, POLLIN, 0 };
		}
		if (poll(p, 4, 500) < 0 && errno != EINTR)
			die("poll: %s", strerror(errno));
		for (int i = 0; i < 2; i++) {
			if (p[2 * i].revents)
				take_output(&side[i]);
			if (p[2 * i + 1].revents)
				take_words(&side[i]);
		}
		for (int i = 0; i < 2; i++) {
			struct side *s = &side[i], *o = &side[!i];
			/* Behind what the other said last before it ended there is nothing to compare. */
			bool beyond = o->out < 0 && s->digests.n > o->digests.n;

			if (s->out < 0 || s->stopped)
				continue;
			if ((detail < 0 && decided(&seen)) || beyond) {
				stop(s);
			} else if (seconds(&s->last) > (double)quiet_seconds) {
				s->stuck = true;
				stop(s);
			}
		}
	}
	for (int i = 0; i < 2; i++)
		reap(&side[i]);
	if (memfd >= 0)
		close(memfd);
}

static const char *how_it_ended(const struct side *s)
{
	static char text[2][96];
	char *t = text[s == &side[1]];

	if (s->stuck)
		snprintf(t, sizeof(text[0]), "said nothing for %ld s", quiet_seconds);
	else if (s->stopped)
		snprintf(t, sizeof(text[0]), "went on");
	else if (s->ended && !s->status)
		snprintf(t, sizeof(text[0]), "ran to the end");
	else
		snprintf(t, sizeof(text[0]), "ended with status %d", s->status);
	return t;
}

/* What the run showed; *at is the operation at which it did. */
static enum verdict judge(size_t *at)
{
	const struct side *a = &side[0], *b = &side[1];
	size_t n = a->digests.n < b->digests.n ? a->digests.n : b->digests.n;

	for (int i = 0; i < 2; i++) {
		const struct side *s = &side[i];

		if (!s->digests.n && !s->ended && !s->stopped && (s->status == 126 || s->status == 127))
			return NO_HOST;
	}
	for (*at = 0; *at < n; ++*at)
		if (strcmp(a->digests.at[*at], b->digests.at[*at]))
			return DIFFERENT;
	if (a->stuck != b->stuck || a->digests.n != b->digests.n || a->ended != b->ended)
		return STOPPED;
	if (!a->ended)
		return BOTH;
	if (a->status != b->status)
		return STOPPED;
	*at = n ? n - 1 : 0;
	if (a->ring.n != b->ring.n)
		return DIFFERENT;
	for (size_t i = 0; i < a->ring.n; i++)
		if (strcmp(a->ring.at[i], b->ring.at[i]))
			return DIFFERENT;
	return a->status ? BOTH : ALIKE;
}

static enum verdict compare(const struct list *l, size_t *at)
{
	run_both(l, -1);
	return judge(at);
}

/* Text of an operation. */

static void print_value(uint64_t v, unsigned int ref)
{
	static const char *const flavour[PORT_FLAVOURS] = { "", "stale ", "wrong generation of ", "wrong vCPU of ",
							    "high bit on " };

	switch (ref) {
	case REF_RAM:
		printf("RAM%+" PRId64, (int64_t)v);
		break;
	case REF_LIMIT:
		printf("limit+%" PRIu64, v);
		break;
	case REF_PORT:
		printf("%sport %u", flavour[v >> 8 & 7], (unsigned int)(v & 0xff));
		break;
	default:
		printf("0x%" PRIx64, v);
	}
}

static void print_call(const struct op_call *c)
{
	const struct op_call_info *info = op_call_info(c->id);
	unsigned int n = 5;

	if (info)
		printf("%s(", info->name);
	else
		printf("call 0x%" PRIx64 "(", c->id);
	while (n > (info ? info->nargs : 0) && !c->arg[n - 1])
		n--;
	for (unsigned int i = 0; i < n; i++) {
		if (info && i < info->nargs)
			printf("%s%s=", i ? ", " : "", info->arg[i].name);
		else
			printf("%sunused ", i ? ", " : "");
		print_value(c->arg[i], c->ref[i]);
	}
	printf(")");
}

static void print_record(const struct keel_mmu_record *r)
{
	static const char *const name[] = { "op 0", "MAP", "UNMAP", "PROTECT" };
	char prot[4] = "---";

	for (int i = 0; i < 3; i++)
		if (r->prot >> i & 1)
			prot[i] = "rwx"[i];
	if (r->op < 4)
		printf("%s", name[r->op]);
	else
		printf("op 0x%x", r->op);
	printf(" 0x%" PRIx64 " +%" PRIu64 " pages", (uint64_t)r->va, (uint64_t)r->len / KEEL_PAGE_SIZE);
	if (r->len % KEEL_PAGE_SIZE)
		printf(" and %" PRIu64 " bytes", (uint64_t)r->len % KEEL_PAGE_SIZE);
	if (r->gpa == DIFF_GPA_CLOCK)
		printf(" to the clock page");
	else if (r->gpa == DIFF_GPA_RAM_END)
		printf(" to the last page of RAM");
	else if (r->gpa || r->op == KEEL_MMU_MAP)
		printf(" to 0x%" PRIx64, (uint64_t)r->gpa);
	if (r->prot > 7)
		printf(" prot 0x%x", r->prot);
	else if (r->prot)
		printf(" %s", prot);
	if (r->flags)
		printf(r->flags == KEEL_MMU_POPULATE ? " POPULATE" : " flags 0x%x", r->flags);
}

static void print_access(const struct op_access *x)
{
	static const char *const name[ACCESS_KINDS] = { "read", "write", "fetch", "read across the end of" };

	printf("%s 0x%" PRIx64, name[x->kind], x->va);
}

/* What the small numbers of an operation mean. */
static void print_plain(const struct op *op)
{
	static const char *const on_off[] = { "off",
					      "on",
					      "on, then nop",
					      "popf without IF",
					      "mask by hand port",
					      "unmask by hand port",
					      "take events by hand",
					      "trap_deliver" };
	static const char *const trap[] = { "ud2", "int3", "div by zero", "#GP", "#SS", "single step" };
	static const char *const bad[] = { "a made-up context", "bad mode",  "bad reserved[0]",
					   "bad reserved[1]",	"rip 2^47",  "rip ~0",
					   "slot FULL",		"slot FREE", "slot state unknown" };
	static const char *const act[] = { "",
					   ", handler touches",
					   ", handler waits",
					   ", handler raises another",
					   ", handler yields",
					   ", handler sends to port 0" };
	static const char *const wait[] = { "past deadline", "for ever if something is pending", "50 us ahead",
					    "for ever if something is pending, after sending to port" };
	static const char *const timer[] = { "deadline 0", "deadline now", "ahead by", "armed and disarmed, ahead by" };
	static const char *const class[] = { "TRAP", "EVENT", "DUMP", "DOUBLE" };

	switch (op->kind) {
	case OP_IF:
		printf("%s", on_off[op->a[0]]);
		if (op->a[0] == 4 || op->a[0] == 5)
			printf(" %" PRIu64, op->a[1]);
		break;
	case OP_SET:
		printf("class %s: entry %s, %s stack", class[op->a[0]], op -> a[0] && !op -> a[1] ? "unset" : "set",
		       op->a[2] ? "its own" : "the interrupted");
		break;
	case OP_RETURN:
		printf("class %s: %s, rflags 0x%" PRIx64, class[op->a[0]], bad[op->a[1]], op -> a[3]);
		break;
	case OP_TRAP:
		printf("%s", trap[op->a[0]]);
		break;
	case OP_DOUBLE:
		printf("with the TRAP slot in use: ");
		if (op->a[0])
			printf("%s", op->a[0] == 1 ? "ud2" : "#GP");
		else
			printf("write 0x%" PRIx64, op->access[0].va & ~(uint64_t)0xfff);
		break;
	case OP_HELD:
		printf("EVENT slot %s, send to port %" PRIu64, op->a[0] & 1 ? "RETURN" : "FULL", op->a[1]);
		break;
	case OP_DUMP:
		printf("event_dump%s", act[op->a[0]]);
		if (op->a[0] == 1) {
			printf(": ");
			print_access(&op->access[0]);
		}
		break;
	case OP_WAIT:
		printf("%s", wait[op->a[0]]);
		if (op->a[0] == 3)
			printf(" %" PRIu64, op->a[1]);
		break;
	case OP_TIMER:
		printf("%s", timer[op->a[0]]);
		if (op->a[0] >= 2)
			printf(" %" PRIu64 " ns", op->a[1]);
		break;
	case OP_MEMORY:
		printf("%s 0x%" PRIx64 " +%" PRIu64 " pages", op->a[0] == 2 ? "populate" : "release",
		       (uint64_t)DIFF_POOL_GPA + op->a[2] * KEEL_PAGE_SIZE, op->a[1]);
		break;
	case OP_STATS:
		printf("%" PRIu64 " entries from %" PRIu64, op->a[1], op->a[0]);
		break;
	case OP_QUIET:
		printf("collect until nothing is reported");
		break;
	case OP_RING:
		printf("%" PRIu64 " bytes of output", op->a[0]);
		break;
	default:
		break;
	}
}

static void print_op(const char *prefix, size_t number, uint64_t word)
{
	struct op op;

	op_decode(word, &op);
	printf("%s%zu %016" PRIx64 " %s: ", prefix, number, word, op_names[op.kind]);
	print_plain(&op);
	for (unsigned int i = 0; i < op.n; i++) {
		if (i)
			printf("; ");
		switch (op.kind) {
		case OP_MMU:
			print_record(&op.rec[i]);
			break;
		case OP_TOUCH:
			print_access(&op.access[i]);
			break;
		case OP_EVENT:
			if (op.a[0]) {
				printf("op %u ", op.ev[i].op);
				print_value(op.ev[i].port, REF_PORT);
				break;
			}
			/* fall through */
		default:
			print_call(&op.call[i]);
			if (op.kind != OP_MULTI)
				break;
			if (op.call[i].id == KEEL_CALL_MMU_BATCH && op.rec[i].len) {
				printf(" { ");
				print_record(&op.rec[i]);
				printf(" }");
			}
			if (op.entry_flags[i])
				printf(" with flags 0x%x reserved 0x%x", op.entry_flags[i] & 0xffff,
				       op.entry_flags[i] >> 16);
		}
	}
	if (op.kind == OP_MMU) {
		printf("; then ");
		print_access(&op.access[0]);
	}
	if (op.kind == OP_MULTI && op.a[0])
		printf("; STOP_ON_ERROR");
	printf("\n");
}

static void print_words(const struct side *s)
{
	const char *p = s->tail;

	for (int n = 0; n < 12 && s->tail_len && *p; n++) {
		size_t len = strcspn(p, "\n");

		printf("#   host %s says: %.*s\n", s->name, (int)(len > 200 ? 200 : len), p);
		p += len + !!p[len];
	}
}

/* Run once more and say what exactly differs at the operation. */
static void print_difference(const struct list *l, size_t at)
{
	const struct side *a = &side[0], *b = &side[1];
	int said = 0;

	run_both(l, (long)at);
	for (size_t i = 0; (i < a->notes.n || i < b->notes.n) && said < 3; i++) {
		const char *x = i < a->notes.n ? a->notes.at[i] : "(nothing)";
		const char *y = i < b->notes.n ? b->notes.at[i] : "(nothing)";

		if (!strcmp(x, y))
			continue;
		printf("#   host a: %s\n#   host b: %s\n", x, y);
		said++;
	}
	if (!said)
		printf("#   what is noted of it is the same when it is asked for\n");
	for (size_t i = 0; i < a->ring.n || i < b->ring.n; i++) {
		const char *x = i < a->ring.n ? a->ring.at[i] : "(nothing)";
		const char *y = i < b->ring.n ? b->ring.at[i] : "(nothing)";

		if (strcmp(x, y))
			printf("#   console ring of host a: %s\n#   console ring of host b: %s\n", x, y);
	}
	for (int i = 0; i < 2; i++) {
		if (strcmp(how_it_ended(&side[i]), how_it_ended(&side[!i])))
			printf("#   host %s %s\n", side[i].name, how_it_ended(&side[i]));
		if (!side[i].stopped && (!side[i].ended || side[i].status))
			print_words(&side[i]);
	}
}

static bool still_fails(const uint64_t *word, size_t *n)
{
	struct list l = { .word = word, .n = *n };
	enum verdict v;
	size_t at;

	v = compare(&l, &at);
	if (v != DIFFERENT && v != STOPPED && v != BOTH)
		return false;
	/* What comes after the difference is not needed for it. */
	if (at + 1 < *n)
		*n = at + 1;
	return true;
}

/*
 * Delete operations, large pieces first, as long as a difference stays, until
 * none can be spared or time is up (Zeller's ddmin, complements only).
 */
static size_t shrink(uint64_t *word, size_t n)
{
	uint64_t *trial = malloc((n + 1) * sizeof(*trial));
	struct timespec begun;
	size_t pieces = 2;

	if (!trial)
		die("out of memory");
	clock_gettime(CLOCK_MONOTONIC, &begun);
	while (n > 1 && seconds(&begun) < (double)shrink_seconds) {
		bool less = false;

		/* From the end: the last operation is the one that shows it, those before it the ones that may go. */
		for (size_t k = 0; k < pieces && seconds(&begun) < (double)shrink_seconds; k++) {
			size_t from = n * k / pieces, to = n * (k + 1) / pieces, m = n - (to - from);

			memcpy(trial, word, from * sizeof(*word));
			memcpy(trial + from, word + to, (n - to) * sizeof(*word));
			if (!m || !still_fails(trial, &m))
				continue;
			memcpy(word, trial, m * sizeof(*word));
			n = m;
			less = true;
			break;
		}
		if (less) {
			pieces = pieces > 2 ? pieces - 1 : 2;
		} else if (pieces >= n) {
			break;
		} else {
			pieces = 2 * pieces < n ? 2 * pieces : n;
		}
		if (pieces > n)
			pieces = n;
	}
	free(trial);
	return n;
}

static void write_list(const uint64_t *word, size_t n)
{
	FILE *f = save ? fopen(save, "w") : NULL;

	if (!f) {
		if (save)
			printf("# %s: %s\n", save, strerror(errno));
		return;
	}
	fprintf(f, "# operations for keel-diff --replay\n");
	for (size_t i = 0; i < n; i++)
		fprintf(f, "%016" PRIx64 "\n", word[i]);
	fclose(f);
	printf("# written to %s\n", save);
}

/* A difference at operation `at`: shrink it, print it, keep it. */
static void report(const struct list *l, size_t at, bool shrinking)
{
	size_t n = at + 1 < l->n ? at + 1 : l->n, whole = n;
	uint64_t *word = malloc((n + 1) * sizeof(*word));
	struct list small = { .word = word };
	enum verdict v;

	if (!word)
		die("out of memory");
	for (size_t i = 0; i < n; i++)
		word[i] = list_word(l, i);
	print_op("# differs at operation ", at, list_word(l, at < l->n ? at : l->n - 1));
	if (shrinking) {
		int again = 0;

		for (int i = 0; i < 3; i++) {
			size_t m = n;

			again += still_fails(word, &m);
		}
		if (again == 3)
			n = shrink(word, n);
		printf("# shrunk to %zu of %zu operations in %lu runs%s\n", n, whole, runs,
		       again == 3 ? "" : ": it comes and goes");
	}
	for (size_t i = 0; i < n && i < 200; i++)
		print_op("# ", i, word[i]);
	small.n = n;
	v = compare(&small, &at);
	if (v == ALIKE)
		printf("# alike when run again\n");
	else
		print_difference(&small, at);
	write_list(word, n);
	free(word);
}

/* One round; a line of KTAP and the exit status it stands for. */
static int round_of(unsigned long number, const struct list *l, const char *name, bool shrinking)
{
	size_t at = 0;
	enum verdict v;

	runs = 0;
	v = compare(l, &at);
	if (v == ALIKE) {
		printf("ok %lu - %s: %zu operations alike\n", number, name, l->n);
		fflush(stdout);
		return EXIT_ALIKE;
	}
	printf("not ok %lu - %s\n", number, name);
	for (int i = 0; i < 2; i++) {
		printf("# host %s (%s) %s after %zu operations\n", side[i].name, side[i].command,
		       how_it_ended(&side[i]), side[i].digests.n);
		if (!side[i].stopped && (!side[i].ended || side[i].status))
			print_words(&side[i]);
	}
	fflush(stdout);
	if (v == NO_HOST)
		return EXIT_ENVIRONMENT;
	if (l->n)
		report(l, at, shrinking);
	fflush(stdout);
	return v == DIFFERENT ? EXIT_DIFFERENT : EXIT_CRASHED;
}

/* What both offer, so that neither is asked for what the other lacks (KEEL-BASE-04). */
static void negotiate(void)
{
	const struct list none = { .n = 0 };

	run_both(&none, -1);
	for (int i = 0; i < 2; i++) {
		const struct side *s = &side[i];

		if (!s->ended || s->status) {
			print_words(s);
			fflush(stdout);
			die("host %s (%s) %s before the first operation", s->name, s->command, how_it_ended(s));
		}
		for (size_t k = 0; k < s->notes.n; k++) {
			unsigned int w;
			uint64_t f;

			if (sscanf(s->notes.at[k], "features %u %" SCNx64, &w, &f) == 2 && w < KEEL_FEATURE_WORDS)
				features[w] &= f;
		}
	}
}

static uint64_t *read_list(const char *path, size_t *n)
{
	uint64_t *word = malloc(DIFF_OPS_MAX * sizeof(*word));
	FILE *f = fopen(path, "r");
	char line[512];

	if (!word || !f)
		die("%s: %s", path, strerror(errno));
	*n = 0;
	while (fgets(line, sizeof(line), f) && *n < DIFF_OPS_MAX) {
		char *end;
		uint64_t v = strtoull(line, &end, 16);

		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (end == line)
			die("%s: not a list of operations", path);
		word[(*n)++] = v;
	}
	fclose(f);
	if (!*n)
		die("%s: no operations", path);
	return word;
}

static unsigned long number(const char *what, const char *text)
{
	char *end;
	unsigned long v = strtoul(text, &end, 0);

	if (!*text || *end)
		die("--%s %s: not a number", what, text);
	return v;
}

static const char usage[] =
	"usage: keel-diff --image FILE --a COMMAND --b COMMAND [options]\n"
	"\n"
	"  --a, --b COMMAND   the hosts: a command that takes the options of \"keel run\", or one for the\n"
	"                     shell that names $IMAGE, $CMDLINE and $MODULE (which may be empty) itself\n"
	"  --image FILE       the guest (diff.elf)\n"
	"  --seed S           of the first round (default 1); each round has the next\n"
	"  --ops N            operations per round (default 10000)\n"
	"  --rounds N         rounds, 0 = until a difference is found or a signal comes (default 1)\n"
	"  --timeout S        seconds without output after which a host stands still (default 30)\n"
	"  --shrink S         seconds for shrinking, 0 = do not (default 120)\n"
	"  --replay FILE      the operations of FILE instead of a seed's\n"
	"  --save FILE        where to write the shrunk list\n"
	"  --avoid MASK       exceptions the processor cannot raise: 1 ud2, 2 int3, 4 div, 8 #GP, 16 #SS, 32 step\n"
	"  --print            print the operations, run nothing\n"
	"\n"
	"Exit status: 0 alike, 4 a host cannot be run, 5 different, 6 a host crashed or stands still\n";

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "a", required_argument, NULL, 'a' },	     { "b", required_argument, NULL, 'b' },
		{ "image", required_argument, NULL, 'i' },   { "seed", required_argument, NULL, 's' },
		{ "ops", required_argument, NULL, 'n' },     { "rounds", required_argument, NULL, 'r' },
		{ "timeout", required_argument, NULL, 't' }, { "shrink", required_argument, NULL, 'k' },
		{ "replay", required_argument, NULL, 'R' },  { "save", required_argument, NULL, 'S' },
		{ "avoid", required_argument, NULL, 'A' },   { "print", no_argument, NULL, 'p' },
		{ "help", no_argument, NULL, 'h' },	     { NULL, 0, NULL, 0 },
	};
	unsigned long seed = 1, ops = 10000, rounds = 1, done = 0;
	const char *replay = NULL;
	bool print = false;
	struct list l = { 0 };
	int c, worst = EXIT_ALIKE;
	char name[64];

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'a':
		case 'b':
			side[c - 'a'].command = optarg;
			break;
		case 'i':
			image = optarg;
			break;
		case 's':
			seed = number("seed", optarg);
			break;
		case 'n':
			ops = number("ops", optarg);
			break;
		case 'r':
			rounds = number("rounds", optarg);
			break;
		case 't':
			quiet_seconds = (long)number("timeout", optarg);
			break;
		case 'k':
			shrink_seconds = (long)number("shrink", optarg);
			break;
		case 'R':
			replay = optarg;
			break;
		case 'S':
			save = optarg;
			break;
		case 'A':
			number("avoid", optarg);
			avoid = optarg;
			break;
		case 'p':
			print = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return EXIT_ENVIRONMENT;
		}
	}
	if (replay)
		l.word = read_list(replay, &l.n);
	if (print) {
		if (!replay)
			l = (struct list){ .seed = seed, .n = ops };
		for (size_t i = 0; i < l.n; i++)
			print_op("", i, list_word(&l, i));
		free((void *)l.word);
		return 0;
	}
	if (optind < argc || !image || !side[0].command || !side[1].command) {
		fputs(usage, stderr);
		return EXIT_ENVIRONMENT;
	}
	if (!ops || (replay && rounds != 1))
		die("nothing to do");
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGHUP, on_signal);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("KTAP version 1\n");
	if (rounds)
		printf("1..%lu\n", rounds);
	negotiate();
	while (!rounds || done < rounds) {
		int status;

		if (replay) {
			snprintf(name, sizeof(name), "replay");
		} else {
			l = (struct list){ .seed = seed + done, .n = ops };
			snprintf(name, sizeof(name), "seed %lu", seed + done);
		}
		status = round_of(++done, &l, name, !replay && shrink_seconds);
		if (status > worst)
			worst = status;
		if (!rounds && worst)
			break;
	}
	if (!rounds)
		printf("1..%lu\n", done);
	for (int i = 0; i < 2; i++) {
		lines_clear(&side[i].digests);
		lines_clear(&side[i].ring);
		lines_clear(&side[i].notes);
		free(side[i].digests.at);
		free(side[i].ring.at);
		free(side[i].notes.at);
	}
	free((void *)l.word);
	return worst;
}
