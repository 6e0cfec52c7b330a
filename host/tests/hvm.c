// SPDX-License-Identifier: MIT
/*
 * Kernels in HVM partitions, from outside: what hvm_guest.S does on request, and
 * with --linux a Debian kernel, which a KVM that interprets is too slow for. KTAP.
 *
 *	hvm [--linux VMLINUZ INITRD] KEEL GUEST
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT_MAX (1 << 20)
#define ARGS_MAX 24
#define ECHO_BYTES 1500

static const char *keel, *guest, *linux_kernel, *linux_initrd;
static unsigned int number;
static bool deaf; /* read nothing of stdout before keel has ended */

/* What is done when keel or the guest has said something new. */
struct step {
	const char *await; /* NULL = at once */
	const char *send;
	int signal; /* to keel, 0 = none */
};

struct run {
	char out[OUTPUT_MAX], err[OUTPUT_MAX];
	size_t out_len, err_len;
	int status; /* exit status, or 1000 + signal */
};

static struct run r;

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* What is beyond the buffer is read and dropped: the guest shall not wait for us. */
static bool take(int fd, char *buf, size_t *len)
{
	char rest[4096];
	bool full = *len == OUTPUT_MAX - 1;
	ssize_t n = read(fd, full ? rest : buf + *len, full ? sizeof(rest) : OUTPUT_MAX - 1 - *len);

	if (n <= 0)
		return false;
	if (!full)
		*len += (size_t)n;
	buf[*len] = '\0';
	return true;
}

/* Run keel with these arguments, ended by NULL, for at most so long; r is what came of it. */
static void run(const char *const *args, const struct step *steps, size_t count, unsigned int seconds)
{
	const char *argv[ARGS_MAX] = { keel, "run" };
	int in[2], out[2], err[2], status;
	size_t n = 2, at = 0, said = 0, reported = 0;
	time_t end = now() + (time_t)seconds;
	bool open_out = true, open_err = true;
	pid_t pid;

	while (*args && n < ARGS_MAX - 1)
		argv[n++] = *args++;
	argv[n] = NULL;
	r.out_len = r.err_len = 0;
	r.out[0] = r.err[0] = '\0';
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		abort();
	if (deaf)
		fcntl(out[1], F_SETPIPE_SZ, 4096);
	pid = fork();
	if (!pid) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		execv(keel, (char *const *)argv);
		_exit(126);
	}
	close(in[0]);
	close(out[1]);
	close(err[1]);
	while (open_out || open_err) {
		struct pollfd p[2] = { { open_out && !(deaf && open_err) ? out[0] : -1, POLLIN, 0 },
				       { open_err ? err[0] : -1, POLLIN, 0 } };

		if (at < count && (!steps[at].await || strstr(r.out + said, steps[at].await) ||
				   strstr(r.err + reported, steps[at].await))) {
			/* A pipe holds what is sent at once; more than that no step sends. */
			if (write(in[1], steps[at].send, strlen(steps[at].send)) < 0)
				break;
			if (steps[at].signal)
				kill(pid, steps[at].signal);
			said = r.out_len;
			reported = r.err_len;
			at++;
			continue;
		}
		if (now() >= end)
			break;
		if (poll(p, 2, 500) <= 0)
			continue;
		if (p[0].revents)
			open_out = take(out[0], r.out, &r.out_len);
		if (p[1].revents)
			open_err = take(err[0], r.err, &r.err_len);
	}
	if (now() >= end)
		kill(pid, SIGKILL);
	close(in[1]);
	close(out[0]);
	close(err[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	r.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void comment(const char *name, const char *text)
{
	printf("# %s: ", name);
	for (; *text; text++) {
		if (*text != '\r')
			putchar(*text);
		if (*text == '\n' && text[1])
			printf("# ");
	}
	putchar('\n');
}

static void result(const char *name, bool ok)
{
	printf("%sok %u hvm: %s\n", ok ? "" : "not ", ++number, name);
	if (!ok) {
		printf("# status %d\n", r.status);
		comment("stdout", r.out);
		comment("stderr", r.err);
	}
	fflush(stdout);
}

static bool has(const char *text)
{
	return strstr(r.out, text) || strstr(r.err, text);
}

/* What each command of hvm_guest.S must lead to. */
static const struct {
	const char *name, *cmdline, *timeout, *initrd;
	int status;
	const char *out;    /* all of stdout; NULL = whatever */
	const char *err[4]; /* each somewhere in stderr */
} cases[] = {
	{ "serial output, command line, ACPI power-off",
	  "print this, and that",
	  "30",
	  NULL,
	  0,
	  "print this, and that\n",
	  { NULL } },
	{ "CPUID leaves", "c", "30", NULL, 0, "ok\n", { NULL } },
	{ "ports and addresses without a device", "d", "30", NULL, 0, "ok\n", { NULL } },
	{ "initrd", "m", "30", "/text", 0, "an initrd\n", { NULL } },
	{ "MSRs, gate, hypercalls", "g", "30", NULL, 7, "gate ok\n", { NULL } },
	{ "triple fault",
	  "t",
	  "30",
	  NULL,
	  125,
	  "",
	  { "keel: crash: ", "rcx 0000000000007219", "keel: backtrace:", "triple" } },
	{ "halted for ever",
	  "h",
	  "8",
	  NULL,
	  124,
	  "",
	  { "did not end within 8 s", "keel: vCPU 0 was at", "halt", "rflags" } },
};

static void run_case(size_t i)
{
	const char *args[ARGS_MAX] = { "--hvm", guest,	     "--mem",	       "16M",	    "--core",
				       "none",	"--timeout", cases[i].timeout, "--cmdline", cases[i].cmdline };
	bool ok;

	if (cases[i].initrd) {
		args[10] = "--initrd";
		args[11] = "/proc/self/fd/9"; /* what main() put there */
	}
	run(args, NULL, 0, 60);
	ok = r.status == cases[i].status && (!cases[i].out || !strcmp(r.out, cases[i].out));
	for (size_t k = 0; k < 4 && cases[i].err[k]; k++)
		ok = ok && strstr(r.err, cases[i].err[k]);
	result(cases[i].name, ok);
}

/* Input through the serial port, more than its FIFO and the console's buffers hold together with what is read at once. */
static void test_echo(void)
{
	static const char *const args[] = { "--hvm", NULL, "--mem", "16M", "--timeout", "60", "--cmdline", "e", NULL };
	const char *with[ARGS_MAX];
	char text[ECHO_BYTES + 1];
	const struct step step = { NULL, text, 0 };

	memcpy(with, args, sizeof(args));
	with[1] = guest;
	for (size_t i = 0; i < ECHO_BYTES; i++)
		text[i] = "abcdefghijklmnop\n"[i * 7 % 17];
	strcpy(text + ECHO_BYTES - 1, "q");
	run(with, &step, 1, 90);
	result("serial input, none of it lost", r.status == 0 && !strcmp(r.out, text));
}

/* Nobody reads what the guest sends for ever: it waits, and keel ends in time all the same. */
static void test_flood(void)
{
	const char *const args[] = { "--hvm", guest, "--mem", "16M", "--timeout", "15", "--cmdline", "f", NULL };

	deaf = true;
	run(args, NULL, 0, 60);
	deaf = false;
	result("serial output that nobody reads", r.status == 124 && has("stdout takes no more") && has("okok"));
}

/* A guest that resets lives again, in the same process. */
static void test_restart(const char *name, const char *cmdline)
{
	static const struct step steps[] = {
		{ "the guest restarts with code 0", "", 0 },
		{ "the guest restarts with code 0", "", SIGTERM },
	};
	const char *const args[] = { "--hvm", guest, "--mem", "16M", "--verbose", "--cmdline", cmdline, NULL };

	run(args, steps, 2, 60);
	result(name, r.status == 1000 + SIGTERM);
}

/* A guest that does anything: it ends as it wants to, and by nothing else. */
static void test_anything(void)
{
	static const char *const seeds[] = { "x1", "x2", "x3" };
	bool ok = true;

	for (size_t i = 0; ok && i < sizeof(seeds) / sizeof(seeds[0]); i++) {
		const char *const args[] = { "--hvm",	  guest, "--mem",     "16M",	"--core", "none",
					     "--timeout", "60",	 "--cmdline", seeds[i], NULL };

		run(args, NULL, 0, 90);
		ok = r.status == 'x';
	}
	result("random calls, MSRs and ports", ok);
}

static void test_refused(void)
{
	const char *const ring3[] = { "--hvm", "--backend", "ring3", guest, NULL };
	const char *const image[] = { "--hvm", keel, NULL };
	const char *const memory[] = { "--hvm", "--mem", "4G", guest, NULL };
	bool ok;

	run(ring3, NULL, 0, 30);
	ok = r.status == 127 && has("needs a virtual machine: use --backend kvm");
	if (ok) {
		run(image, NULL, 0, 30);
		ok = r.status == 126 && has("program header");
	}
	if (ok) {
		run(memory, NULL, 0, 30);
		ok = r.status == 126 && has("more than 3G with --hvm");
	}
	result("what cannot be run is refused", ok);
}

static void test_linux(void)
{
	static const struct step steps[] = {
		{ "hvm-prompt#", "reboot -f\n", 0 },
		{ "hvm-prompt#", "cat /proc/interrupts; echo answer $((6 * 7))\n", 0 },
		{ "answer 42", "poweroff -f\n", 0 },
	};
	const char *const args[] = {
		"--hvm",     linux_kernel, "--initrd",	linux_initrd,	       "--mem", "256M", "--stats",
		"--timeout", "300",	   "--cmdline", "console=ttyS0 quiet", NULL
	};
	const char *irq;

	run(args, steps, sizeof(steps) / sizeof(steps[0]), 330);
	irq = strstr(r.out, "ttyS0");
	printf("# %zu bytes of output\n", r.out_len);
	result("Debian's kernel boots to a prompt, twice, and powers off",
	       r.status == 0 && has("\nanswer 42") && irq && has("IO-APIC") && has("kvm.userspace_exits"));
}

int main(int argc, char **argv)
{
	const size_t n = sizeof(cases) / sizeof(cases[0]);
	FILE *initrd;
	int kvm;

	if (argc > 3 && !strcmp(argv[1], "--linux")) {
		linux_kernel = argv[2];
		linux_initrd = argv[3];
		argv += 3;
		argc -= 3;
	}
	if (argc != 3)
		return 2;
	keel = argv[1];
	guest = argv[2];
	signal(SIGPIPE, SIG_IGN);
	initrd = tmpfile();
	if (!initrd || fprintf(initrd, "an initrd") < 0 || fputc('\0', initrd) < 0 || fflush(initrd) ||
	    dup2(fileno(initrd), 9) < 0)
		return 2;
	printf("KTAP version 1\n1..%zu\n", 1 + (linux_kernel ? 1 : n + 5));
	test_refused();
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0 && !linux_kernel) {
		printf("# /dev/kvm: %s\n", strerror(errno));
		while (number < 1 + n + 5)
			printf("ok %u hvm: a kernel in a virtual machine # SKIP no /dev/kvm to use here\n", ++number);
		return 0;
	}
	if (linux_kernel) {
		test_linux();
		return 0;
	}
	for (size_t i = 0; i < n; i++)
		run_case(i);
	test_echo();
	test_flood();
	test_anything();
	test_restart("reset by ACPI's register", "r");
	test_restart("reset by the keyboard controller", "k");
	return 0;
}
