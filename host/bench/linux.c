// SPDX-License-Identifier: MIT
/*
 * make bench-linux: Linux on Keel beside user-mode-linux, with the same initial file
 * system and the same program in it (inlinux.c), and beside the machine's own kernel.
 *
 *	linux BUILD_DIR		writes BUILD_DIR/bench-linux.json and prints a table
 *
 * Each side is measured with one processor and with two, in turns, the best of all
 * rounds. Processes made and exits of one are inlinux's; MMU calls are counted by the
 * host, as the difference of two boots.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "link.h"

#define ROUNDS 3
#define PROCESSES 200
#define INITRD "bench/linux.cpio"
#define WORDS_QUICK "getppid,fork,exec,fault,scattered,pipe"
#define WORDS_FILES "sha256,gzip"
#define WORDS_DISK "disk1,disk32,diskseq,diskseq4"
#define DISK "bench/linux.img"

enum side { KEEL, UML, NATIVE, SIDES };
enum place { ONE, TWO, PLACES };

/* What is asked of each side at each place. */
static const char *const things[] = { "boot",	"getppid", "fork", "exec",  "fault",  "scattered", "pipe",
				      "sha256", "gzip",	   "wake", "disk1", "disk32", "diskseq",   "diskseq4" };
#define THINGS (sizeof(things) / sizeof(things[0]))
static double best[SIDES][PLACES][THINGS]; /* ns; 0 = not measured */

static const struct {
	const char *name, *thing;
	enum place place;
	const char *unit;
	double divide;
	enum side beside;
	double faster, within; /* bars: times faster at least, ratio at most; 0 = none */
} rows[] = {
	{ "boot to the first line of /init", "boot", TWO, "ms", 1e6, UML, 2, 0 },
	{ "getppid, one processor", "getppid", ONE, "us", 1e3, UML, 2, 0 },
	{ "getppid, a processor free", "getppid", TWO, "us", 1e3, UML, 6, 0 },
	{ "fork, exit and wait", "fork", TWO, "us", 1e3, UML, 2, 0 },
	{ "fork, exec, exit and wait", "exec", TWO, "us", 1e3, UML, 2, 0 },
	{ "anonymous page fault", "fault", TWO, "us", 1e3, UML, 2, 0 },
	{ "the same, pages in no order", "scattered", TWO, "us", 1e3, UML, 0, 0 },
	{ "pipe, there and back", "pipe", TWO, "us", 1e3, UML, 2, 0 },
	{ "fork, exit and wait, one processor", "fork", ONE, "us", 1e3, UML, 0, 0 },
	{ "fork, exec, exit and wait, one processor", "exec", ONE, "us", 1e3, UML, 0, 0 },
	{ "anonymous page fault, one processor", "fault", ONE, "us", 1e3, UML, 0, 0 },
	{ "pages in no order, one processor", "scattered", ONE, "us", 1e3, UML, 0, 0 },
	{ "pipe, there and back, one processor", "pipe", ONE, "us", 1e3, UML, 0, 0 },
	{ "sha256sum of 64 MiB in memory", "sha256", TWO, "ms", 1e6, NATIVE, 0, 1.05 },
	{ "gzip of 64 MiB in memory", "gzip", TWO, "ms", 1e6, NATIVE, 0, 1.05 },
	{ "disk: 4 KiB at random, depth 1", "disk1", TWO, "us", 1e3, UML, 2, 0 },
	{ "disk: 4 KiB at random, depth 32", "disk32", TWO, "us", 1e3, NATIVE, 0, 1 / 0.6 },
	{ "disk: 1 MiB in order", "diskseq", TWO, "us", 1e3, NATIVE, 0, 1 / 0.9 },
	{ "disk: 1 MiB in order, four under way", "diskseq4", TWO, "us", 1e3, NATIVE, 0, 1 / 0.9 },
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))
#define MMU_BAR 3.7
#define FLOOR_BAR 1.3

static const char *const side_name[SIDES] = { "Linux on Keel", "user-mode-linux", "native" };

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static size_t thing(const char *name, size_t len)
{
	for (size_t i = 0; i < THINGS; i++)
		if (strlen(things[i]) == len && !strncmp(things[i], name, len))
			return i;
	return THINGS;
}

static void keep(double *slot, double v)
{
	if (!*slot || v < *slot)
		*slot = v;
}

/* Run a side to its end; what it prints goes to `to`, unless that is NULL. Returns calls of mmu_batch, of Keel with --stats. */
static double run(char *const argv[], double (*to)[THINGS])
{
	posix_spawn_file_actions_t fa;
	int out[2], status;
	double start = now(), calls = 0;
	char line[4096];
	pid_t pid;
	FILE *f;

	if (pipe2(out, O_CLOEXEC))
		die("pipe: %s", strerror(errno));
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, out[1], 1);
	posix_spawn_file_actions_adddup2(&fa, out[1], 2);
	if (posix_spawn(&pid, argv[0], &fa, NULL, argv, environ))
		die("%s does not run; user-mode-linux is a package of .ci/packages", argv[0]);
	posix_spawn_file_actions_destroy(&fa);
	close(out[1]);
	f = fdopen(out[0], "r");
	while (fgets(line, sizeof(line), f)) {
		size_t name = strcspn(line, " \r\n"), i = thing(line, name);
		double v;

		if (to && !strncmp(line, "up", 2))
			keep(&(*to)[0], now() - start);
		if (to && i && i < THINGS && sscanf(line + name, "%lf", &v) == 1)
			keep(&(*to)[i], v);
		sscanf(line, "keel: mmu_batch %lf", &calls);
	}
	fclose(f);
	if (waitpid(pid, &status, 0) != pid || status)
		die("%s ended with status %#x", argv[0], status);
	return calls;
}

static double run_keel(const char *what, double (*to)[THINGS])
{
	char cmdline[256];
	char *const argv[] = { "./keel",    "run",     "--backend",	"ring3",      "--mem",
			       "256M",	    "--stats", "linux/vmlinux", "--initrd",   INITRD,
			       "--cmdline", cmdline,   "--disk",	"file=" DISK, NULL };

	snprintf(cmdline, sizeof(cmdline), "quiet inlinux=%s", what);
	return run(argv, to);
}

static void run_uml(const char *what, double (*to)[THINGS])
{
	char words[256];
	char *const argv[] = { "/usr/bin/linux.uml",
			       "mem=256M",
			       "con=null",
			       "con0=fd:0,fd:1",
			       "quiet",
			       "panic=-1",
			       words,
			       "initrd=" INITRD,
			       "uml_dir=bench/",
			       "ubd0=" DISK,
			       NULL };

	snprintf(words, sizeof(words), "inlinux=%s", what);
	run(argv, to);
}

static void run_native(double (*to)[THINGS])
{
	char *const argv[] = { "bench/inlinux", "getppid", "fork",  "exec",   "fault",	 "scattered", "pipe", "sha256",
			       "gzip",		"wake",	   "disk1", "disk32", "diskseq", "diskseq4",  NULL };

	setenv("INLINUX_DISK", DISK, 1);
	run(argv, to);
}

/* 64 MiB in the page cache, none of it holes. */
static void make_disk(void)
{
	static char bytes[1 << 20];
	int fd = open(DISK, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	memset(bytes, 0x5a, sizeof(bytes));
	for (int i = 0; i < 64; i++)
		if (fd < 0 || write(fd, bytes, sizeof(bytes)) != sizeof(bytes))
			die("%s: %s", DISK, strerror(errno));
	fsync(fd);
	close(fd);
}

/* What a read of a guest's process cannot do without: its system call, the device woken and the guest woken back, the read. */
static double disk_floor(void)
{
	return best[KEEL][TWO][thing("getppid", 7)] + best[NATIVE][TWO][thing("wake", 4)] +
	       best[NATIVE][TWO][thing("disk1", 5)];
}

static double value(size_t row, enum side side)
{
	return best[side][rows[row].place][thing(rows[row].thing, strlen(rows[row].thing))] / rows[row].divide;
}

static bool met(size_t row)
{
	double ratio = value(row, KEEL) / value(row, rows[row].beside);

	return (!rows[row].faster || ratio * rows[row].faster <= 1) && (!rows[row].within || ratio <= rows[row].within);
}

static void print_table(double mmu)
{
	unsigned int bars = 1, missed = mmu > MMU_BAR;

	printf("%-44s %14s %16s %10s %14s  %s\n", "", side_name[KEEL], side_name[UML], "ratio", side_name[NATIVE],
	       "bar");
	for (size_t i = 0; i < ROWS; i++) {
		double native = value(i, NATIVE);
		char bar[64] = "", base[32] = "";

		if (rows[i].faster)
			snprintf(bar, sizeof(bar), "%g x faster: %s", rows[i].faster, met(i) ? "met" : "MISSED");
		if (rows[i].within)
			snprintf(bar, sizeof(bar), "%g x native, is %.3f: %s", rows[i].within, value(i, KEEL) / native,
				 met(i) ? "met" : "MISSED");
		if (native)
			snprintf(base, sizeof(base), "%.4g %s", native, rows[i].unit);
		printf("%-44s %11.4g %-2s %13.4g %-2s %10.3f %14s  %s\n", rows[i].name, value(i, KEEL), rows[i].unit,
		       value(i, UML), rows[i].unit, value(i, KEEL) / value(i, UML), base, bar);
		bars += rows[i].faster || rows[i].within;
		missed += !met(i);
	}
	printf("%-44s %11.4g %-2s %*s%g: %s\n", "mmu_batch calls per fork, exec and exit", mmu, "", 46, "", MMU_BAR,
	       mmu <= MMU_BAR ? "met" : "MISSED");
	bars++;
	missed += best[KEEL][TWO][thing("disk1", 5)] > FLOOR_BAR * disk_floor();
	printf("%-44s %11.4g us, a system call, a wake-up there and back and a pread; x %.3f, bar %g\n",
	       "disk: what depth 1 is made of", disk_floor() / 1e3, best[KEEL][TWO][thing("disk1", 5)] / disk_floor(),
	       FLOOR_BAR);
	printf("%u of %u bars met\n", bars - missed, bars);
}

static void write_json(const char *path, double mmu)
{
	struct utsname u;
	FILE *f = fopen(path, "we");

	if (!f)
		die("%s: %s", path, strerror(errno));
	uname(&u);
	fprintf(f,
		"{\n  \"kernel\": \"%s\",\n  \"rounds\": %d,\n  \"mmu_calls\": %.4g,\n  \"disk_floor\": %.4g,\n  \"floor_bar\": %g,\n  \"results\": [\n",
		u.release, ROUNDS, mmu, disk_floor(), FLOOR_BAR);
	for (size_t i = 0; i < ROWS; i++)
		fprintf(f,
			"    {\"name\": \"%s\", \"unit\": \"%s\", \"keel\": %.6g, \"uml\": %.6g, \"native\": %.6g, \"faster\": %g, "
			"\"within\": %g, \"met\": %s}%s\n",
			rows[i].name, rows[i].unit, value(i, KEEL), value(i, UML), value(i, NATIVE), rows[i].faster,
			rows[i].within, met(i) ? "true" : "false", i + 1 < ROWS ? "," : "");
	fprintf(f, "  ]\n}\n");
	if (fclose(f))
		die("%s: %s", path, strerror(errno));
}

int main(int argc, char **argv)
{
	cpu_set_t all, some;
	double mmu;

	if (argc != 2 || chdir(argv[1])) {
		fprintf(stderr, "usage: linux BUILD_DIR\n");
		return 126;
	}
	sched_getaffinity(0, sizeof(all), &all);
	if (CPU_COUNT(&all) < 2)
		die("the bench needs two processors");
	make_disk();
	for (int round = 0; round < ROUNDS; round++) {
		for (enum place place = 0; place < PLACES; place++) {
			int want = place == ONE ? 1 : 2;

			CPU_ZERO(&some);
			for (int i = 0; CPU_COUNT(&some) < want; i++)
				if (CPU_ISSET(i, &all))
					CPU_SET(i, &some);
			sched_setaffinity(0, sizeof(some), &some);
			run_keel(WORDS_QUICK, &best[KEEL][place]);
			run_uml(WORDS_QUICK, &best[UML][place]);
		}
		if (!round) {
			run_native(&best[NATIVE][TWO]);
			run_keel(WORDS_FILES, &best[KEEL][TWO]);
			run_uml(WORDS_FILES, &best[UML][TWO]);
		}
		run_keel(WORDS_DISK, &best[KEEL][TWO]);
		run_uml(WORDS_DISK, &best[UML][TWO]);
	}
	mmu = (run_keel("exec*200", NULL) - run_keel("exec*0", NULL)) / PROCESSES;
	write_json("bench-linux.json", mmu);
	print_table(mmu);
	for (size_t i = 0; i < ROWS; i++)
		if (!value(i, KEEL) || !value(i, UML))
			die("no figure of: %s", rows[i].name);
	return 0;
}
