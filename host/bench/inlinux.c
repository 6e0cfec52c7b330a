// SPDX-License-Identifier: MIT
/*
 * What a Linux costs, asked from inside: the same static program is /init of the
 * port, /init of user-mode-linux, and a process of the machine's own kernel.
 *
 *	inlinux [WHAT...]	print "NAME NANOSECONDS" for each, the best of several rounds
 *	inlinux true		do nothing (what is executed)
 *
 * As process 1 it says "up" first, takes WHAT from the kernel's command line
 * (inlinux=a,b), and powers off at the end.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define FAULT_PAGES 4096
#define FILE_BYTES (64 << 20)

static const char *self = "/init", *busybox = "/busybox", *dir = "/tmp";

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static _Noreturn void fail(const char *what)
{
	perror(what);
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	_exit(1);
}

static void wait_for(pid_t pid, const char *what)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		fail(what);
}

static uint64_t do_getppid(void)
{
	uint64_t t = now();

	for (int i = 0; i < 1000; i++)
		syscall(SYS_getppid);
	return (now() - t) / 1000;
}

static uint64_t do_fork(void)
{
	uint64_t t = now();

	for (int i = 0; i < 20; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		wait_for(pid, "fork");
	}
	return (now() - t) / 20;
}

static uint64_t do_exec(void)
{
	uint64_t t = now();

	for (int i = 0; i < 20; i++) {
		pid_t pid = fork();

		if (!pid) {
			execl(self, "inlinux", "true", NULL);
			_exit(1);
		}
		wait_for(pid, "exec");
	}
	return (now() - t) / 20;
}

/* First writes to pages, `step` apart: a prime one goes everywhere once. */
static uint64_t faults(size_t step)
{
	volatile char *p = mmap(NULL, FAULT_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t t = now();

	if (p == MAP_FAILED)
		fail("mmap");
	for (int i = 0; i < FAULT_PAGES; i++)
		p[(size_t)i * step % FAULT_PAGES * PAGE] = 1;
	t = now() - t;
	munmap((void *)p, FAULT_PAGES * PAGE);
	return t / FAULT_PAGES;
}

static uint64_t do_fault(void)
{
	return faults(1);
}

static uint64_t do_scattered(void)
{
	return faults(1021);
}

static uint64_t do_pipe(void)
{
	int there[2], back[2];
	uint64_t t;
	pid_t pid;
	char c = 0;

	if (pipe(there) || pipe(back))
		fail("pipe");
	pid = fork();
	if (!pid) {
		close(there[1]);
		while (read(there[0], &c, 1) == 1)
			if (write(back[1], &c, 1) != 1)
				_exit(1);
		_exit(0);
	}
	close(there[0]);
	t = now();
	for (int i = 0; i < 500; i++)
		if (write(there[1], &c, 1) != 1 || read(back[0], &c, 1) != 1)
			fail("pipe");
	t = now() - t;
	close(there[1]);
	close(back[0]);
	close(back[1]);
	wait_for(pid, "pipe");
	return t / 500;
}

/* An applet over a file in memory, its output thrown away. */
static uint64_t over_file(const char *applet, const char *option)
{
	char path[256], buf[65536];
	uint64_t t, x = 1;
	pid_t pid;
	int fd;

	snprintf(path, sizeof(path), "%s/inlinux.data", dir);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd >= 0) {
		for (size_t n = 0; n < FILE_BYTES; n += sizeof(buf)) {
			/* Neither all alike nor all different. */
			for (size_t i = 0; i < sizeof(buf); i++) {
				x = x * 6364136223846793005 + 1442695040888963407;
				buf[i] = "abcdefghijklmnop"[x >> 60 & (i / 512 % 2 ? 15 : 3)];
			}
			if (write(fd, buf, sizeof(buf)) != sizeof(buf))
				fail(path);
		}
		close(fd);
	}
	t = now();
	pid = fork();
	if (!pid) {
		fd = open("/dev/null", O_WRONLY);
		dup2(fd, 1);
		if (option)
			execl(busybox, applet, option, path, NULL);
		else
			execl(busybox, applet, path, NULL);
		_exit(1);
	}
	wait_for(pid, applet);
	return now() - t;
}

static uint64_t do_sha256(void)
{
	return over_file("sha256sum", NULL);
}

static uint64_t do_gzip(void)
{
	return over_file("gzip", "-1c");
}

static const struct {
	const char *name;
	uint64_t (*once)(void);
	int rounds;
} things[] = {
	{ "getppid", do_getppid, 40 },	   { "fork", do_fork, 15 },
	{ "exec", do_exec, 15 },	   { "fault", do_fault, 10 },
	{ "scattered", do_scattered, 10 }, { "pipe", do_pipe, 20 },
	{ "sha256", do_sha256, 3 },	   { "gzip", do_gzip, 2 },
};

static void measure(const char *name)
{
	uint64_t best = UINT64_MAX, n;

	/* So many processes, and no time: for counts from outside. */
	if (sscanf(name, "exec*%lu", &n) == 1 || sscanf(name, "fork*%lu", &n) == 1) {
		for (uint64_t i = 0; i < n; i += 20)
			name[0] == 'e' ? do_exec() : do_fork();
		return;
	}
	for (size_t i = 0; i < sizeof(things) / sizeof(things[0]); i++) {
		if (strcmp(things[i].name, name))
			continue;
		for (int k = 0; k < things[i].rounds; k++) {
			uint64_t t = things[i].once();

			best = t < best ? t : best;
		}
		printf("%s %lu\n", name, best);
		fflush(stdout);
		return;
	}
	fprintf(stderr, "inlinux: nothing is called %s\n", name);
	fail(name);
}

static _Noreturn void as_init(void)
{
	char line[4096] = "", *words, *word;
	int fd;

	puts("up");
	fflush(stdout);
	mkdir("/proc", 0755);
	mkdir("/tmp", 0755);
	mkdir("/dev", 0755);
	if (mount("proc", "/proc", "proc", 0, NULL) || mount("tmp", "/tmp", "tmpfs", 0, "size=80m"))
		fail("mount");
	if (mount("dev", "/dev", "devtmpfs", 0, NULL))
		mknod("/dev/null", S_IFCHR | 0666, 1 << 8 | 3);
	fd = open("/proc/cmdline", O_RDONLY);
	if (fd < 0 || read(fd, line, sizeof(line) - 1) < 0)
		fail("/proc/cmdline");
	words = strstr(line, "inlinux=");
	if (words) {
		words += strlen("inlinux=");
		words[strcspn(words, " \n")] = '\0';
		while ((word = strsep(&words, ",")))
			measure(word);
	}
	puts("done");
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	_exit(1);
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "true"))
		return 0;
	if (getpid() == 1)
		as_init();
	self = "/proc/self/exe";
	busybox = "/bin/busybox";
	dir = "/dev/shm";
	for (int i = 1; i < argc; i++)
		measure(argv[i]);
	unlink("/dev/shm/inlinux.data");
	return 0;
}
