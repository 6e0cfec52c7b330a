// SPDX-License-Identifier: MIT
/*
 * make bench: every figure beside the raw primitive that bounds it, the two
 * taking turns in the same run, the best of all rounds on either side.
 *
 *	bench BUILD_DIR		writes BUILD_DIR/bench.json and prints a table
 *	bench BUILD_DIR TEXT	only operations with TEXT in their name, and no file
 *	bench BUILD_DIR kvm N	KTAP: the figures of the kvm backend, whatever KVM this is, in N rounds; only
 *				that they can be taken is a test
 *
 * The guest process and the raw program are confined to one processor, the host's
 * threads and this program to another; a second pair shares a single processor.
 * A third guest sleeps all the while, and what wakes it or its host is counted.
 *
 * Guest and raw program run on ring3 and natively; where "keel probe" finds a KVM at hardware
 * speed, the same guest runs on kvm beside them, with a raw virtual machine to stand beside.
 */
#define _GNU_SOURCE
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "link.h"

#define ROUNDS 60 /* of each side, at least */
#define BOOTS 40
#define PEER_BOOTS 3
#define IDLE_SECONDS 6
#define PEER_KERNEL "/usr/bin/linux.uml"

/* The limit is on the ratio, the difference, the value itself, or on how many times faster it is at least. */
enum bar { NO_BAR, RATIO, ABOVE, VALUE, FASTER };

struct result {
	char name[80];
	const char *unit;
	double value;
	char baseline[80]; /* empty: stands alone */
	double baseline_value;
	enum bar bar;
	double limit;
	/* The same on kvm; negative = not measured. */
	double kvm, kvm_baseline_value;
	char kvm_baseline[80]; /* empty: stands alone */
};

static struct result results[64];
static unsigned int count;
static double tsc_ghz;

/* From the build directory. */
static char keel[] = "./keel", guest[] = "bench/guest.elf", raw[] = "bench/raw", hello[] = "samples/hello.elf";
static char rawkvm[] = "bench/rawkvm";
static char kvm_says[160]; /* what kind of KVM there is, or why there is no figure of it */
#define INITRD "bench/peer.cpio"

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void add(const char *name, const char *unit, double value, const char *baseline, double baseline_value,
		enum bar bar, double limit)
{
	struct result *r = &results[count++];

	if (count > sizeof(results) / sizeof(results[0]))
		die("more results than room");
	*r = (struct result){
		.unit = unit, .value = value, .baseline_value = baseline_value, .bar = bar, .limit = limit, .kvm = -1
	};
	snprintf(r->name, sizeof(r->name), "%s", name);
	snprintf(r->baseline, sizeof(r->baseline), "%s", baseline ? baseline : "");
}

static bool met(const struct result *r)
{
	switch (r->bar) {
	case RATIO:
		return r->value / r->baseline_value <= r->limit;
	case ABOVE:
		return r->value - r->baseline_value <= r->limit;
	case VALUE:
		return r->value <= r->limit;
	case FASTER:
		return r->baseline_value / r->value >= r->limit;
	default:
		return true;
	}
}

/* Operations that both sides know (engine.h) */

/* Guest and peers on one processor each, all on one, or the guest on both with all that runs its user code. */
enum place { APART, TOGETHER, SPREAD, PLACES };

/*
 * What counts of a round's repetitions, and of all rounds. What depends on caches that the
 * machine shares with others drifts while the sides take turns: there the middle of all rounds is
 * steadier than the best.
 */
enum pick { BEST, BEST_MEDIAN, MEDIAN_BEST };

struct row {
	const char *name, *op;
	struct {
		const char *op, *name;
	} base[2]; /* the better one counts */
	const char *unit;
	double divide; /* ticks, or ns, of the answer to one of the unit */
	bool ns;       /* the answer is in ns */
	unsigned int reps;
	unsigned int rounds; /* 0: ROUNDS */
	enum pick pick;
	enum place place;
	bool ring3_only; /* what it shows is not there on kvm, or another row shows it */
	enum bar bar;
	double limit;
	struct {
		const char *op, *name;
	} kvm_base[2]; /* of the raw virtual machine; the better one counts */
};

static const struct row rows[] = {
	{ .name = "null hypercall",
	  .op = "nop",
	  .base = { { "nop", "indirect call saving the same registers" } },
	  .unit = "ns",
	  .divide = PER_SHORT,
	  .reps = 20,
	  .bar = RATIO,
	  .limit = 3 },
	{ .name = "MMU batch, 512 contiguous pages, populated",
	  .op = "map",
	  .base = { { "map", "one mmap(MAP_POPULATE)" } },
	  .unit = "us",
	  .divide = 1e3,
	  .reps = 3,
	  .bar = RATIO,
	  .limit = 1.10,
	  .kvm_base = { { "map", "the same page-table writes and touches" } } },
	{ .name = "MMU batch, 512 scattered pages",
	  .op = "scatter",
	  .rounds = 2 * ROUNDS,
	  .base = { { "scatter", "the same 512 mmaps" } },
	  .unit = "us",
	  .divide = 1e3,
	  .reps = 3,
	  .bar = RATIO,
	  .limit = 1.15,
	  .kvm_base = { { "scatter", "the same page-table writes" } } },
	{ .name = "unmap of 64 scattered runs",
	  .op = "unmap_few",
	  .base = { { "unmap_few", "one munmap over them" } },
	  .unit = "us",
	  .divide = 1e3,
	  .reps = 5,
	  .bar = RATIO,
	  .limit = 1.2,
	  .kvm_base = { { "unmap_few", "page-table writes and invlpg" },
			{ "reload_few", "page-table writes and a CR3 load" } } },
	{ .name = "unmap of 512 scattered runs",
	  .op = "unmap_many",
	  .base = { { "unmap_many", "one munmap over them" } },
	  .unit = "us",
	  .divide = 1e3,
	  .reps = 3,
	  .bar = RATIO,
	  .limit = 1.2,
	  .kvm_base = { { "unmap_many", "page-table writes and invlpg" },
			{ "reload_many", "page-table writes and a CR3 load" } } },
	{ .name = "event mask and unmask",
	  .op = "mask",
	  .base = { { "mask", "two locked instructions" } },
	  .unit = "ns",
	  .divide = PER_SHORT,
	  .reps = 20,
	  .bar = ABOVE,
	  .limit = 10 },
	{ .name = "interrupts off and on",
	  .op = "irq",
	  .base = { { "irq", "two stores" } },
	  .unit = "ns",
	  .divide = PER_SHORT,
	  .reps = 20,
	  .bar = ABOVE,
	  .limit = 10 },
	{ .name = "clock read",
	  .op = "clock",
	  .base = { { "clock", "rdtsc and seven loads" } },
	  .unit = "ns",
	  .divide = PER_SHORT,
	  .reps = 20,
	  .bar = ABOVE,
	  .limit = 10 },
	{ .name = "remote call, two processors",
	  .op = "ping",
	  .base = { { "spin", "spinning hand-off" }, { "futex", "futex hand-off" } },
	  .unit = "ns",
	  .divide = PER_PING,
	  .reps = 10,
	  .bar = RATIO,
	  .limit = 1.3,
	  .kvm_base = { { "exit", "raw KVM exit to user space" } } },
	{ .name = "remote call, one processor",
	  .op = "ping",
	  .base = { { "yield", "sched_yield hand-off" }, { "futex", "futex hand-off" } },
	  .unit = "ns",
	  .divide = PER_PING,
	  .reps = 5,
	  .place = TOGETHER,
	  .ring3_only = true,
	  .bar = RATIO,
	  .limit = 1.3 },
	{ .name = "timer lateness, guest asleep, median",
	  .op = "timer_idle",
	  .base = { { "timer_idle", "POSIX timer signal" } },
	  .unit = "us",
	  .divide = 1e3,
	  .reps = 15,
	  .pick = BEST_MEDIAN,
	  .ns = true,
	  .bar = RATIO,
	  .limit = 1.3 },
	{ .name = "timer lateness, guest running, median",
	  .op = "timer_busy",
	  .base = { { "timer_busy", "POSIX timer signal" } },
	  .unit = "us",
	  .divide = 1e3,
	  .reps = 15,
	  .pick = BEST_MEDIAN,
	  .ns = true,
	  .bar = RATIO,
	  .limit = 1.3 },
	{ .name = "page fault handled by the guest",
	  .op = "fault",
	  .base = { { "fault", "SIGSEGV, mmap in its handler" } },
	  .unit = "us",
	  .divide = PER_FAULT * 1e3,
	  .reps = 10,
	  .bar = RATIO,
	  .limit = 1.25 },
	{ .name = "CPU-bound loop",
	  .op = "cpu",
	  .base = { { "cpu", "native" } },
	  .unit = "us",
	  .divide = 1e3,
	  .reps = 5,
	  .bar = RATIO,
	  .limit = 1.02 },
	{ .name = "memory-bound loop, median",
	  .op = "memory",
	  .base = { { "memory", "native" } },
	  .unit = "us",
	  .divide = 1e3,
	  .reps = 5,
	  .pick = MEDIAN_BEST,
	  .rounds = 2 * ROUNDS,
	  .bar = RATIO,
	  .limit = 1.02 },
	{ .name = "doorbell",
	  .op = "doorbell",
	  .base = { { "eventfd", "write to an eventfd nobody waits for" } },
	  .unit = "ns",
	  .divide = PER_PING,
	  .reps = 10,
	  .kvm_base = { { "doorbell", "raw ioeventfd" } } },
	{ .name = "guest getpid, one processor",
	  .op = "user_call",
	  .base = { { "user_call", "seccomp signal, futex hand-off, iretq" } },
	  .unit = "us",
	  .divide = PER_ENTER * 1e3,
	  .reps = 10,
	  .place = TOGETHER,
	  .bar = RATIO,
	  .limit = 1.15 },
	{ .name = "guest getpid, a processor free",
	  .op = "user_call",
	  .base = { { "user_spin", "seccomp signal, spinning hand-off, iretq" } },
	  .unit = "us",
	  .divide = PER_ENTER * 1e3,
	  .reps = 10,
	  .place = SPREAD,
	  .ring3_only = true,
	  .bar = RATIO,
	  .limit = 1.2 },
	{ .name = "user page fault, one processor",
	  .op = "user_fault",
	  .base = { { "user_fault", "signal, mmap by a mapper, futex hand-offs" },
		    { "user_fault_k", "signal, mmap by a mapper, futex and eventfd" } },
	  .unit = "us",
	  .divide = PER_FAULT * 1e3,
	  .reps = 5,
	  .pick = MEDIAN_BEST,
	  .place = TOGETHER,
	  .bar = RATIO,
	  .limit = 1.25 },
	{ .name = "user page fault, a processor free",
	  .op = "user_fault",
	  .base = { { "user_fault_spin", "signal, mmap by a mapper, spinning hand-off" } },
	  .unit = "us",
	  .divide = PER_FAULT * 1e3,
	  .reps = 5,
	  .pick = MEDIAN_BEST,
	  .place = SPREAD,
	  .ring3_only = true },
	{ .name = "user page refilled, one processor",
	  .op = "user_refill",
	  .base = { { "user_refill", "the same, 32 pages a fault" },
		    { "user_refill_k", "the same, 32 pages a fault" } },
	  .unit = "us",
	  .divide = AREA_PAGES * 1e3,
	  .reps = 2,
	  .pick = MEDIAN_BEST,
	  .place = TOGETHER },
	{ .name = "64 address spaces in turn, one processor",
	  .op = "user_spaces",
	  .base = { { "user_spaces", "the same hand-off among 64 processes" } },
	  .unit = "us",
	  .divide = PER_SPACES * 1e3,
	  .reps = 3,
	  .place = TOGETHER,
	  .bar = RATIO,
	  .limit = 1.15 },
	{ .name = "user fork, exit and wait, one processor",
	  .op = "user_fork",
	  .base = { { "user_fork", "fork, exit and wait of a small program" } },
	  .unit = "us",
	  .divide = PER_FORK * 1e3,
	  .reps = 4,
	  .pick = MEDIAN_BEST,
	  .place = TOGETHER },
	{ .name = "user CPU-bound loop",
	  .op = "user_cpu",
	  .base = { { "user_cpu", "native" } },
	  .unit = "us",
	  .divide = 1e3,
	  .reps = 2,
	  .place = TOGETHER,
	  .bar = RATIO,
	  .limit = 1.02 },
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

static unsigned int round_limit = UINT_MAX;

static unsigned int rounds(const struct row *row)
{
	const unsigned int n = row->rounds ? row->rounds : ROUNDS;

	return n < round_limit ? n : round_limit;
}

struct side {
	struct link keel, raw;
};

static double ask(struct link *l, const struct row *row, const char *op)
{
	uint64_t min, median;

	link_ask(l, op, row->reps, &min, &median);
	return (double)(row->pick == BEST_MEDIAN ? median : min) / (row->ns ? 1 : tsc_ghz) / row->divide;
}

static int ascending(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double pick(const struct row *row, double *v)
{
	qsort(v, rounds(row), sizeof(*v), ascending);
	return v[row->pick == MEDIAN_BEST ? rounds(row) / 2 : 0];
}

static void measure(const struct row *row, struct side *s)
{
	double own[2 * ROUNDS], base[2][2 * ROUNDS], b[2] = { 1e300, 1e300 };
	unsigned int better;

	for (unsigned int i = 0; i < rounds(row); i++) {
		for (unsigned int k = 0; k < 2 && row->base[k].op; k++)
			base[k][i] = ask(&s->raw, row, row->base[k].op);
		own[i] = ask(&s->keel, row, row->op);
	}
	for (unsigned int k = 0; k < 2 && row->base[k].op; k++)
		b[k] = pick(row, base[k]);
	better = b[1] < b[0];
	add(row->name, row->unit, pick(row, own), row->base[better].name, b[better], row->bar, row->limit);
}

/* The guest on kvm and the raw virtual machine, into the result that was added last. */
static void measure_kvm(const struct row *row, struct side *s)
{
	double own[2 * ROUNDS], base[2][2 * ROUNDS], b[2] = { 1e300, 1e300 };
	struct result *r = &results[count - 1];
	unsigned int better;

	for (unsigned int i = 0; i < rounds(row); i++) {
		for (unsigned int k = 0; k < 2 && row->kvm_base[k].op; k++)
			base[k][i] = ask(&s->raw, row, row->kvm_base[k].op);
		own[i] = ask(&s->keel, row, row->op);
	}
	for (unsigned int k = 0; k < 2 && row->kvm_base[k].op; k++)
		b[k] = pick(row, base[k]);
	better = b[1] < b[0];
	r->kvm = pick(row, own);
	r->kvm_baseline_value = b[better];
	snprintf(r->kvm_baseline, sizeof(r->kvm_baseline), "%s", row->kvm_base[0].op ? row->kvm_base[better].name : "");
}

/* Whole processes */

/* Wall time in ms until it ended with status 0; negative when it did not. */
static double run(char *const argv[], char *said, size_t room)
{
	posix_spawn_file_actions_t fa;
	uint64_t t = now();
	int status, fd = memfd_create("said", MFD_CLOEXEC);
	ssize_t n;
	pid_t pid;

	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, fd, 1);
	if (fd < 0)
		die("memfd_create: %s", strerror(errno));
	if (posix_spawn(&pid, argv[0], &fa, NULL, argv, environ) || waitpid(pid, &status, 0) != pid)
		status = -1;
	t = now() - t;
	posix_spawn_file_actions_destroy(&fa);
	n = pread(fd, said, room - 1, 0);
	said[n > 0 ? n : 0] = '\0';
	close(fd);
	return status ? -1 : (double)t / 1e6;
}

/* Does a guest on KVM run at hardware speed here? kvm_says tells what there is. */
static bool kvm_at_speed(void)
{
	char *const probe[] = { keel, "probe", "--json", NULL };
	char said[8192];
	const char *why = "measured where kvm ";
	const cJSON *kvm, *cpu;
	cJSON *all;
	bool good;

	if (run(probe, said, sizeof(said)) < 0)
		die("keel probe does not run: %s", said);
	all = cJSON_Parse(said);
	kvm = cJSON_GetObjectItem(all, "kvm");
	cpu = cJSON_GetObjectItem(all, "cpu");
	if (!cJSON_IsString(cJSON_GetObjectItem(kvm, "verdict")) || !cJSON_IsString(cJSON_GetObjectItem(kvm, "text")))
		die("keel probe says something else: %s", said);
	good = !strcmp(cJSON_GetObjectItem(kvm, "verdict")->valuestring, "hardware");
	if (!good)
		why = cJSON_IsTrue(cJSON_GetObjectItem(cpu, "vmx")) || cJSON_IsTrue(cJSON_GetObjectItem(cpu, "svm"))
			      ? "not measured: KVM is no use here (kvm "
			      : "not measured: no VT-x/SVM here (kvm ";
	snprintf(kvm_says, sizeof(kvm_says), "%s%s%s", why, cJSON_GetObjectItem(kvm, "text")->valuestring,
		 good ? "" : ")");
	cJSON_Delete(all);
	return good;
}

/* One file of a cpio archive in the "newc" format. */
static size_t cpio(char *out, const char *name, uint32_t mode, const void *data, size_t len)
{
	size_t n = (size_t)sprintf(out, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x%s", 1, mode, 0, 0,
				   1, 0, len, 0, 0, 0, 0, strlen(name) + 1, 0, name);

	for (n++; n % 4; n++)
		out[n] = 0;
	memcpy(out + n, data, len);
	for (n += len; n % 4; n++)
		out[n] = 0;
	return n;
}

/* An initial file system with the raw program as its init. */
static void make_initrd(const char *path)
{
	struct stat st;
	int fd = open(raw, O_RDONLY | O_CLOEXEC);
	char *file, *archive;
	size_t n;

	if (fd < 0 || fstat(fd, &st))
		die("%s: %s", raw, strerror(errno));
	file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	archive = calloc(1, (size_t)st.st_size + 4096);
	if (file == MAP_FAILED || !archive)
		die("no memory for the initial file system");
	n = cpio(archive, "init", 0100755, file, (size_t)st.st_size);
	n += cpio(archive + n, "TRAILER!!!", 0, "", 0);
	close(fd);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, archive, n) != (ssize_t)n || close(fd))
		die("%s: %s", path, strerror(errno));
	munmap(file, (size_t)st.st_size);
	free(archive);
}

static double find(const char *name)
{
	for (unsigned int i = 0; i < count; i++)
		if (!strcmp(results[i].name, name))
			return results[i].value;
	die("no result is called %s", name);
}

/* What user-mode-linux was asked, in ticks. */
enum peer { PEER_CALL, PEER_FAULT, PEER_FORK, PEER_ANSWERS };

static const struct {
	const char *name, *row, *unit;
	enum peer answer;
	const char *baseline;
	double faster; /* times at least; 0 = no bar */
} beside_peer[] = {
	{ "null hypercall, beside a peer", "null hypercall", "ns", PEER_CALL, "user-mode-linux, getppid", 0 },
	{ "page fault, beside a peer", "page fault handled by the guest", "us", PEER_FAULT,
	  "user-mode-linux, fresh page", 0 },
	{ "guest getpid, one processor, beside a peer", "guest getpid, one processor", "us", PEER_CALL,
	  "user-mode-linux, getppid", 2 },
	{ "guest getpid, a processor free, beside a peer", "guest getpid, a processor free", "us", PEER_CALL,
	  "user-mode-linux, getppid", 6 },
	{ "user page fault, one processor, beside a peer", "user page fault, one processor", "us", PEER_FAULT,
	  "user-mode-linux, fresh page", 2 },
	{ "user page refilled, beside a peer", "user page refilled, one processor", "us", PEER_FAULT,
	  "user-mode-linux, fresh page", 15 },
	{ "user fork, exit and wait, beside a peer", "user fork, exit and wait, one processor", "us", PEER_FORK,
	  "user-mode-linux, fork, exit and wait", 2 },
};

static void boots(void)
{
	char *const boot[] = { keel, "run", "--backend", "ring3", hello, NULL };
	char *const nothing[] = { raw, "nothing", NULL };
	char *const uml[] = { PEER_KERNEL,	"mem=64M",	  "con=null", "con0=fd:0,fd:1", "quiet", "panic=-1",
			      "initrd=" INITRD, "uml_dir=bench/", NULL };
	char said[4096];
	double best = 1e300, base = 1e300, peer = 1e300;
	uint64_t answer[PEER_ANSWERS] = { 0 };

	for (unsigned int i = 0; i < BOOTS; i++) {
		double v = run(nothing, said, sizeof(said));

		if (v < 0)
			die("%s does not run", raw);
		base = v < base ? v : base;
		v = run(boot, said, sizeof(said));
		if (v < 0 || !strstr(said, "Hello"))
			die("hello did not say so: %s", said);
		best = v < best ? v : best;
	}
	add("keel run hello.elf", "ms", best, "fork, exec and wait", base, VALUE, 15);

	make_initrd(INITRD);
	for (unsigned int i = 0; i < PEER_BOOTS; i++) {
		double v = run(uml, said, sizeof(said));
		const char *at = strstr(said, "peer ");
		uint64_t a[PEER_ANSWERS];

		/* Not every machine can run it; what is ours stands without. */
		if (v < 0 || !at || sscanf(at, "peer %" SCNu64 " %" SCNu64 " %" SCNu64, &a[0], &a[1], &a[2]) != 3) {
			fprintf(stderr, "bench: " PEER_KERNEL " does not run here, no peer to stand beside: %s\n",
				said);
			return;
		}
		peer = v < peer ? v : peer;
		for (int k = 0; k < PEER_ANSWERS; k++)
			answer[k] = !answer[k] || a[k] < answer[k] ? a[k] : answer[k];
	}
	add("boot to power-off, beside a peer", "ms", best, "user-mode-linux with a trivial init", peer, NO_BAR, 0);
	for (size_t i = 0; i < sizeof(beside_peer) / sizeof(beside_peer[0]); i++)
		add(beside_peer[i].name, beside_peer[i].unit, find(beside_peer[i].row), beside_peer[i].baseline,
		    (double)answer[beside_peer[i].answer] / tsc_ghz / (beside_peer[i].unit[0] == 'n' ? 1 : 1e3),
		    beside_peer[i].faster ? FASTER : NO_BAR, beside_peer[i].faster);
}

/* A guest that sleeps */

static uint64_t number_of(const char *line, const char *key)
{
	size_t n = strlen(key);

	return strncmp(line, key, n) ? 0 : strtoull(line + n, NULL, 10);
}

static void switches_of(pid_t pid, pid_t tid, void *arg)
{
	char path[64], line[256];
	uint64_t *sum = arg;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", (int)pid, (int)tid);
	f = fopen(path, "re");
	if (!f)
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f))
		*sum += number_of(line, "voluntary_ctxt_switches:") + number_of(line, "nonvoluntary_ctxt_switches:");
	fclose(f);
}

static void switches_of_process(pid_t pid, void *arg)
{
	for_each_thread(pid, switches_of, arg);
}

/* Of the host and all processes below it. */
static uint64_t switches(pid_t host)
{
	uint64_t sum = 0;

	for_each_process(host, switches_of_process, &sum);
	return sum;
}

static void resident_of(pid_t pid, void *arg)
{
	char path[64], line[512];
	uint64_t *sum = arg, here;
	bool counts = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	f = fopen(path, "re");
	if (!f)
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		uint64_t from, to;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &from, &to) == 2)
			counts = !strstr(line, "memfd:keel-ram");
		here = number_of(line, "Rss:");
		if (counts)
			*sum += here * 1024;
	}
	fclose(f);
}

/* Bytes resident in a host's processes, pages of the guest's RAM left out. Shared pages count in full. */
static uint64_t resident(pid_t host)
{
	uint64_t sum = 0;

	for_each_process(host, resident_of, &sum);
	return sum;
}

/* Counts are the same on a KVM of any speed. Into the last two results. */
static void measure_idle_kvm(void)
{
	char *const boot[] = { keel, "run", "--backend", "kvm", "--mem", "128M", guest, NULL };
	unsigned int others;
	struct link idle;

	if (count < 2 || results[count - 2].kvm >= 0) {
		add("memory beyond guest RAM, guest asleep", "MiB", -1, NULL, 0, NO_BAR, 0);
		add("ioctls, guest asleep", "/s", -1, NULL, 0, NO_BAR, 0);
	}
	link_start(&idle, "the sleeping guest on kvm", boot, NULL);
	usleep(500000);
	results[count - 2].kvm = (double)resident(idle.pid) / (1 << 20);
	results[count - 1].kvm = (double)count_calls(idle.pid, IDLE_SECONDS, &others) / IDLE_SECONDS;
	link_stop(&idle);
}

/* Report */

static void write_json(const char *path, double seconds)
{
	static const char *const bar_on[] = { NULL, "ratio", "difference", "value", "times faster" };
	struct utsname u;
	FILE *f = fopen(path, "we");

	if (!f)
		die("%s: %s", path, strerror(errno));
	uname(&u);
	fprintf(f, "{\n  \"kernel\": \"%s\",\n  \"processors\": %ld,\n  \"rounds\": %d,\n  \"seconds\": %.0f,\n",
		u.release, sysconf(_SC_NPROCESSORS_ONLN), ROUNDS, seconds);
	fprintf(f, "  \"kvm\": \"%s\",\n  \"results\": [\n", kvm_says);
	for (unsigned int i = 0; i < count; i++) {
		const struct result *r = &results[i];

		fprintf(f, "    {\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\"", r->name, r->value, r->unit);
		if (r->kvm < 0)
			fprintf(f, ", \"kvm\": null");
		else if (r->kvm_baseline[0])
			fprintf(f, ", \"kvm\": {\"value\": %.6g, \"baseline\": \"%s\", \"baseline_value\": %.6g}",
				r->kvm, r->kvm_baseline, r->kvm_baseline_value);
		else
			fprintf(f, ", \"kvm\": {\"value\": %.6g}", r->kvm);
		if (r->baseline[0])
			fprintf(f, ", \"baseline\": \"%s\", \"baseline_value\": %.6g, \"ratio\": %.4g", r->baseline,
				r->baseline_value, r->value / r->baseline_value);
		else
			fprintf(f, ", \"baseline\": null, \"baseline_value\": null, \"ratio\": null");
		if (r->bar)
			fprintf(f, ", \"bar\": %g, \"bar_on\": \"%s\", \"met\": %s", r->limit, bar_on[r->bar],
				met(r) ? "true" : "false");
		else
			fprintf(f, ", \"bar\": null, \"bar_on\": null, \"met\": null");
		fprintf(f, "}%s\n", i + 1 < count ? "," : "");
	}
	fprintf(f, "  ]\n}\n");
	if (fclose(f))
		die("%s: %s", path, strerror(errno));
}

static void print_table(void)
{
	unsigned int missed = 0, bars = 0;

	printf("%-44s %14s   %-40s %14s %7s  %s\n", "", "keel", "beside", "", "ratio", "bar");
	for (unsigned int i = 0; i < count; i++) {
		const struct result *r = &results[i];
		char bar[32] = "";

		printf("%-44s %11.4g %-2s", r->name, r->value, r->unit);
		if (r->baseline[0])
			printf("   %-40s %11.4g %-2s %7.3f", r->baseline, r->baseline_value, r->unit,
			       r->value / r->baseline_value);
		else
			printf("   %-40s %14s %7s", "", "", "");
		switch (r->bar) {
		case RATIO:
			snprintf(bar, sizeof(bar), "%g x", r->limit);
			break;
		case ABOVE:
			snprintf(bar, sizeof(bar), "+%g %s", r->limit, r->unit);
			break;
		case VALUE:
			snprintf(bar, sizeof(bar), "%g %s", r->limit, r->unit);
			break;
		case FASTER:
			snprintf(bar, sizeof(bar), "1/%g x", r->limit);
			break;
		case NO_BAR:
			break;
		}
		printf("  %-8s%-7s", bar, !r->bar ? "" : met(r) ? " met" : " MISSED");
		if (r->kvm >= 0)
			printf("  kvm %.4g %s", r->kvm, r->unit);
		if (r->kvm >= 0 && r->kvm_baseline[0])
			printf(", %.3f of %s", r->kvm / r->kvm_baseline_value, r->kvm_baseline);
		printf("\n");
		bars += r->bar != NO_BAR;
		missed += !met(r);
	}
	printf("%u of %u bars met\nkvm: %s\n", bars - missed, bars, kvm_says);
}

static double tsc_rate(void)
{
	uint64_t ns = now(), tsc = engine_tsc();

	usleep(100000);
	return (double)(engine_tsc() - tsc) / (double)(now() - ns);
}

/* The first two processors we may use; the second is -1 when there is one only. */
static void processors(int cpu[2])
{
	cpu_set_t set;
	int n = 0;

	if (sched_getaffinity(0, sizeof(set), &set))
		die("sched_getaffinity: %s", strerror(errno));
	cpu[0] = cpu[1] = -1;
	for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET(i, &set))
			cpu[n++] = i;
}

/* Where the memory of a guest can be opened. */
static void find_ram(pid_t v, char *path, size_t n)
{
	for (int fd = 0; fd < 64; fd++) {
		char target[128];
		ssize_t len;

		snprintf(path, n, "/proc/%d/fd/%d", (int)v, fd);
		len = readlink(path, target, sizeof(target) - 1);
		target[len > 0 ? len : 0] = '\0';
		if (strstr(target, "memfd:keel-ram"))
			return;
	}
	die("the guest's memory is not among the descriptors of process %d", (int)v);
}

static void pin_to(pid_t pid, void *arg)
{
	pin_process(pid, *(const int *)arg);
}

static void start_raw(struct link *l, int cpu, int peer, pid_t v)
{
	char a[16], b[16], ram[64];
	char *const argv[] = { raw, a, b, ram, NULL };

	snprintf(a, sizeof(a), "%d", cpu);
	snprintf(b, sizeof(b), "%d", peer);
	find_ram(v, ram, sizeof(ram));
	link_start(l, "the raw program", argv, NULL);
}

static void start_kvm(struct side *s, int cpu)
{
	char *const boot[] = { keel, "run", "--backend", "kvm", "--mem", "128M", guest, NULL };
	char a[16];
	char *const machine[] = { rawkvm, a, NULL };

	snprintf(a, sizeof(a), "%d", cpu);
	link_start(&s->keel, "the guest on kvm", boot, NULL);
	pin_process(s->keel.pid, cpu);
	link_start(&s->raw, "the raw virtual machine", machine, NULL);
}

static void stop_kvm(struct side *s)
{
	link_stop(&s->keel);
	link_stop(&s->raw);
}

static bool on_kvm(const struct row *row)
{
	return !row->ring3_only;
}

/* KTAP: can all figures of the kvm backend be taken? What they are is only shown. */
static int try_kvm(const char *how_often)
{
	unsigned int n = 0;
	struct side kvm;

	round_limit = (unsigned int)atoi(how_often);
	for (size_t i = 0; i < ROWS; i++)
		n += on_kvm(&rows[i]);
	printf("KTAP version 1\n1..%u\n", n + 1);
	start_kvm(&kvm, 0);
	for (size_t i = 0; i < ROWS; i++) {
		const struct result *r = &results[count];

		if (!on_kvm(&rows[i]))
			continue;
		add(rows[i].name, rows[i].unit, -1, NULL, 0, NO_BAR, 0);
		measure_kvm(&rows[i], &kvm);
		if (r->kvm_baseline[0])
			printf("# %.4g %s, %.4g of: %s\n", r->kvm, r->unit, r->kvm / r->kvm_baseline_value,
			       r->kvm_baseline);
		printf("%sok %u %s\n", r->kvm > 0 && r->kvm_baseline_value > 0 ? "" : "not ", count, r->name);
		fflush(stdout);
	}
	stop_kvm(&kvm);
	measure_idle_kvm();
	printf("# %.4g MiB, %.4g ioctls/s\n", results[count - 2].kvm, results[count - 1].kvm);
	printf("%sok %u a guest asleep\n", results[count - 2].kvm > 0 && !results[count - 1].kvm ? "" : "not ", n + 1);
	return 0;
}

int main(int argc, char **argv)
{
	char *const boot[] = { keel, "run", "--backend", "ring3", "--mem", "128M", guest, NULL };
	char *const boot4[] = { keel, "run", "--backend", "ring3", "--mem", "128M", "--vcpus", "4", guest, NULL };
	uint64_t begin = now(), since, woken, woken4;
	struct side side[PLACES], kvm;
	unsigned int ioctls, others;
	struct link idle, idle4;
	cpu_set_t two, one;
	bool speed;
	int cpu[2];

	if (argc < 2 || argc > 4 || chdir(argv[1]) || (argc == 4 && strcmp(argv[2], "kvm"))) {
		fprintf(stderr, "usage: bench BUILD_DIR [TEXT | kvm ROUNDS]\n");
		return 126;
	}
	tsc_ghz = tsc_rate();
	if (argc == 4)
		return try_kvm(argv[3]);
	processors(cpu);
	if (cpu[1] < 0)
		die("the bench needs two processors: one to measure on, one for everything else");
	CPU_ZERO(&two);
	CPU_ZERO(&one);
	CPU_SET(cpu[0], &two);
	CPU_SET(cpu[1], &two);
	CPU_SET(cpu[1], &one);

	speed = kvm_at_speed();
	link_start(&idle, "the sleeping guest", boot, &two);
	link_start(&idle4, "the sleeping guest of 4 vCPUs", boot4, &two);
	link_start(&side[APART].keel, "the guest", boot, &two);
	link_start(&side[TOGETHER].keel, "the guest on one processor", boot, &one);
	link_start(&side[SPREAD].keel, "the guest on two processors", boot, &two);
	pin_process(getpid(), cpu[0]);
	pin_process(side[APART].keel.pid, cpu[0]);
	for_each_process(guest_process(side[APART].keel.pid), pin_to, &cpu[1]);
	for (enum place i = 0; i < PLACES; i++)
		start_raw(&side[i].raw, cpu[1], cpu[i == TOGETHER], side[i].keel.pid);
	if (speed)
		start_kvm(&kvm, cpu[1]);
	woken = switches(idle.pid);
	woken4 = switches(idle4.pid);
	since = now();

	for (size_t i = 0; i < ROWS; i++)
		if (argc == 2 || strstr(rows[i].name, argv[2])) {
			measure(&rows[i], &side[rows[i].place]);
			if (speed && on_kvm(&rows[i]))
				measure_kvm(&rows[i], &kvm);
		}
	for (enum place i = 0; i < PLACES; i++) {
		link_stop(&side[i].keel);
		link_stop(&side[i].raw);
	}
	if (speed)
		stop_kvm(&kvm);

	if (argc == 3) {
		link_stop(&idle);
		link_stop(&idle4);
		print_table();
		return 0;
	}
	boots();
	while (now() - since < IDLE_SECONDS * UINT64_C(1000000000))
		usleep(100000);
	add("wake-ups, guest asleep", "/s", (double)(switches(idle.pid) - woken) * 1e9 / (double)(now() - since), NULL,
	    0, VALUE, 1);
	add("wake-ups, guest of 4 vCPUs asleep", "/s",
	    (double)(switches(idle4.pid) - woken4) * 1e9 / (double)(now() - since), NULL, 0, VALUE, 1);
	link_stop(&idle4);
	add("memory beyond guest RAM, guest asleep", "MiB", (double)resident(idle.pid) / (1 << 20), NULL, 0, VALUE, 6);
	ioctls = count_calls(idle.pid, IDLE_SECONDS, &others);
	add("ioctls, guest asleep", "/s", (double)ioctls / IDLE_SECONDS, NULL, 0, VALUE, 0);
	link_stop(&idle);
	if (!access("/dev/kvm", R_OK | W_OK))
		measure_idle_kvm();

	write_json("bench.json", (double)(now() - begin) / 1e9);
	print_table();
	return 0;
}
