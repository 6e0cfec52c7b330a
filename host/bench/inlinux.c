// SPDX-License-Identifier: MIT
/*
 * What a Linux costs, asked from inside: the same static program is /init of the
 * port, /init of user-mode-linux, and a process of the machine's own kernel.
 *
 *	inlinux [WHAT...]	print "NAME NANOSECONDS" for each, the best of several rounds
 *	inlinux true		do nothing (what is executed)
 *
 * Disks are read past the page cache of the Linux that is measured, so that what is read comes from
 * its host's: natively that is a file, through the page cache.
 *
 * As process 1 it says "up" first, takes WHAT from the kernel's command line
 * (inlinux=a,b), and powers off at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
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

#define DISK_BYTES (64 << 20)
#define READS 4000

static const char *self = "/init", *busybox = "/busybox", *dir = "/tmp";
static const char *disk; /* of a process: INLINUX_DISK */

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

static uint64_t do_wake(void)
{
	int there = eventfd(0, 0), back = eventfd(0, 0);
	uint64_t one = 1, t;
	pid_t pid = fork();

	if (!pid) {
		for (int i = 0; i < 500; i++)
			if (read(there, &one, 8) != 8 || write(back, &one, 8) != 8)
				_exit(1);
		_exit(0);
	}
	t = now();
	for (int i = 0; i < 500; i++)
		if (write(there, &one, 8) != 8 || read(back, &one, 8) != 8)
			fail("eventfd");
	t = now() - t;
	wait_for(pid, "eventfd");
	close(there);
	close(back);
	return t / 500;
}

/* A device of whichever Linux this is, or the file. */
static int open_disk(void)
{
	static const char *const devices[] = { "/dev/vda", "/dev/ubda" };
	int fd = disk ? open(disk, O_RDONLY) : -1;

	for (size_t i = 0; fd < 0 && !disk && i < 2; i++)
		fd = open(devices[i], O_RDONLY | O_DIRECT);
	if (fd < 0)
		fail("no disk");
	return fd;
}

static uint8_t *disk_buffer(size_t n)
{
	static uint8_t *buffer;

	if (!buffer && posix_memalign((void **)&buffer, 4096, 4 << 20))
		fail("memory");
	memset(buffer, 1, n);
	return buffer;
}

/* The same places on every side, each page once before any twice. */
static off_t place(unsigned int i)
{
	return (off_t)(i * UINT64_C(7919) % (DISK_BYTES / PAGE)) * PAGE;
}

static uint64_t do_disk1(void)
{
	uint8_t *to = disk_buffer(PAGE);
	int fd = open_disk();
	uint64_t t = now();

	for (unsigned int i = 0; i < READS; i++)
		if (pread(fd, to, PAGE, place(i)) != PAGE)
			fail("disk");
	t = now() - t;
	close(fd);
	return t / READS;
}

static off_t in_order(unsigned int i)
{
	return (off_t)i << 20;
}

/* Reads of so many bytes at the places at(0), at(1)..., at most `depth` under way, of 4 MiB. */
static uint64_t in_depth(unsigned int reads, unsigned int depth, unsigned int bytes, off_t (*at)(unsigned int))
{
	uint8_t *to = disk_buffer((size_t)depth * bytes);
	int fd = open_disk(), err;
	unsigned int begun = 0, done = 0;
	struct io_uring ring;
	uint64_t t;

	err = io_uring_queue_init(depth, &ring, 0);
	if (err) {
		errno = -err;
		fail("io_uring");
	}
	t = now();
	while (done < reads) {
		struct io_uring_cqe *cqe;
		unsigned int head, n = 0;

		for (; begun < reads && begun - done < depth; begun++)
			io_uring_prep_read(io_uring_get_sqe(&ring), fd, to + (size_t)(begun % depth) * bytes, bytes,
					   (uint64_t)at(begun));
		io_uring_submit_and_wait(&ring, 1);
		io_uring_for_each_cqe(&ring, head, cqe) {
			if (cqe->res != (int)bytes)
				fail("disk, in depth");
			n++;
		}
		io_uring_cq_advance(&ring, n);
		done += n;
	}
	t = now() - t;
	io_uring_queue_exit(&ring);
	close(fd);
	return t / reads;
}

static uint64_t do_disk32(void)
{
	return in_depth(READS, 32, PAGE, place);
}

static uint64_t do_diskseq4(void)
{
	return in_depth(DISK_BYTES >> 20, 4, 1 << 20, in_order);
}

static uint64_t do_diskseq(void)
{
	const unsigned int n = DISK_BYTES >> 20;
	uint8_t *to = disk_buffer(1 << 20);
	int fd = open_disk();
	uint64_t t = now();

	for (unsigned int i = 0; i < n; i++)
		if (pread(fd, to, 1 << 20, (off_t)i << 20) != 1 << 20)
			fail("disk");
	t = now() - t;
	close(fd);
	return t / n;
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
	{ "wake", do_wake, 20 },	   { "disk1", do_disk1, 5 },
	{ "disk32", do_disk32, 5 },	   { "diskseq", do_diskseq, 5 },
	{ "diskseq4", do_diskseq4, 5 },
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
	disk = getenv("INLINUX_DISK");
	for (int i = 1; i < argc; i++)
		measure(argv[i]);
	unlink("/dev/shm/inlinux.data");
	return 0;
}
