// SPDX-License-Identifier: MIT
/*
 * What a Linux kernel owes its programs, as a program: fork, memory, faults, signals
 * with all registers, threads, ptrace, files to wait on, terminals. Every test runs in a
 * process of its own, bounded in time. It passes on any x86-64 Linux: what is expected
 * here is what a processor and the manual pages say, not what the port does.
 *
 * selftest [NAME...]: all tests, or those named. -l lists them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/reg.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/user.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096UL
#define TEST_SECONDS 60
#define SKIPPED 77
#define NELEM(a) (sizeof(a) / sizeof(*(a)))

/* Tests run in processes of their own: the first thing that is wrong ends one. */
static int verdict_fd;

static void __attribute__((format(printf, 2, 3), noreturn)) verdict(int code, const char *fmt, ...)
{
	char text[256];
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (n >= (int)sizeof(text))
		n = sizeof(text) - 1;
	if (write(verdict_fd, text, n) != n)
		_exit(99);
	_exit(code);
}

#define FAIL(...) verdict(1, __VA_ARGS__)
#define SKIP(...) verdict(SKIPPED, __VA_ARGS__)
#define OK(cond)                                                                \
	do {                                                                    \
		if (!(cond))                                                    \
			FAIL("line %d: %s (errno %d)", __LINE__, #cond, errno); \
	} while (0)
#define EQ(a, b)                                                                                \
	do {                                                                                    \
		long long a_ = (long long)(a), b_ = (long long)(b);                             \
		if (a_ != b_)                                                                   \
			FAIL("line %d: %s is %#llx, not %s = %#llx", __LINE__, #a, a_, #b, b_); \
	} while (0)

static pid_t reap(pid_t pid)
{
	int status;

	EQ(waitpid(pid, &status, 0), pid);
	OK(WIFEXITED(status));
	EQ(WEXITSTATUS(status), 0);
	return pid;
}

static pid_t start(void)
{
	pid_t pid = fork();

	OK(pid >= 0);
	return pid;
}

static void *pages(size_t n, int prot, int flags)
{
	void *p = mmap(NULL, n * PAGE, prot, flags | MAP_ANONYMOUS, -1, 0);

	OK(p != MAP_FAILED);
	return p;
}

static void handle(int sig, void (*fn)(int sig, siginfo_t *si, void *uc), int flags)
{
	struct sigaction sa = { .sa_sigaction = fn, .sa_flags = SA_SIGINFO | flags };

	OK(!sigaction(sig, &sa, NULL));
}

static int64_t ns(clockid_t clock)
{
	struct timespec ts;

	OK(!clock_gettime(clock, &ts));
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static int scratch_file(size_t size)
{
	char name[] = "/tmp/selftest-XXXXXX";
	int fd = mkstemp(name);

	OK(fd >= 0);
	OK(!unlink(name));
	OK(!ftruncate(fd, size));
	return fd;
}

/* Processes */

static void test_fork_wait(void)
{
	siginfo_t si;
	int status, i;
	pid_t pid;

	for (i = 0; i < 256; i += 51) {
		pid = start();
		if (!pid)
			_exit(i);
		EQ(waitpid(pid, &status, 0), pid);
		OK(WIFEXITED(status));
		EQ(WEXITSTATUS(status), i);
	}
	pid = start();
	if (!pid) {
		pause();
		_exit(1);
	}
	EQ(waitpid(pid, &status, WNOHANG), 0);
	OK(!kill(pid, SIGTERM));
	OK(!waitid(P_PID, pid, &si, WEXITED | WNOWAIT));
	EQ(si.si_code, CLD_KILLED);
	EQ(si.si_status, SIGTERM);
	EQ(waitpid(pid, &status, 0), pid);
	OK(WIFSIGNALED(status));
	EQ(WTERMSIG(status), SIGTERM);
	EQ(waitpid(-1, &status, 0), -1);
	EQ(errno, ECHILD);
}

static void test_fork_many(void)
{
	pid_t pid[100];
	size_t i;

	for (i = 0; i < NELEM(pid); i++) {
		pid[i] = start();
		if (!pid[i]) {
			volatile char *p = pages(8, PROT_READ | PROT_WRITE, MAP_PRIVATE);

			p[0] = p[7 * PAGE] = i;
			_exit(p[0] != (char)i || p[7 * PAGE] != (char)i || p[3 * PAGE]);
		}
	}
	for (i = 0; i < NELEM(pid); i++)
		reap(pid[i]);
}

static void test_vfork(void)
{
	static volatile int shared;
	int status;
	pid_t pid;

	pid = vfork();
	if (!pid) {
		shared = 42;
		execl("/proc/self/exe", "selftest", "--exit", "3", NULL);
		_exit(1);
	}
	OK(pid > 0);
	EQ(shared, 42);
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 3 << 8);
}

static void test_exec_script(void)
{
	char name[] = "/tmp/selftest-XXXXXX";
	char *argv[] = { name, "one", "two", NULL };
	char *envp[] = { "KEEL=yes", NULL };
	int fd = mkstemp(name), status;
	char self[256], head[300];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	pid_t pid;

	OK(n > 0 && fd >= 0);
	self[n] = 0;
	n = snprintf(head, sizeof(head), "#!%s --script\n", self);
	EQ(write(fd, head, n), n);
	OK(!fchmod(fd, 0700));
	OK(!close(fd));
	pid = start();
	if (!pid) {
		execve(name, argv, envp);
		_exit(1);
	}
	EQ(waitpid(pid, &status, 0), pid);
	unlink(name);
	EQ(status, 7 << 8);
	/* What is no program says so, and the caller lives on. */
	EQ(execve("/dev/null", argv, envp), -1);
	EQ(errno, EACCES);
	EQ(execve("/nonexistent", argv, envp), -1);
	EQ(errno, ENOENT);
}

/* Memory */

static void test_cow(void)
{
	enum { N = 64 };
	volatile uint64_t *p = pages(N, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	int up[2], i;
	pid_t pid;
	char c;

	for (i = 0; i < N; i++)
		p[i * 512] = i + 1;
	OK(!pipe(up));
	pid = start();
	if (!pid) {
		pid = start();
		for (i = 0; i < N; i++) {
			EQ(p[i * 512], i + 1);
			p[i * 512] = (pid ? 1000 : 2000) + i;
		}
		for (i = 0; i < N; i++)
			EQ(p[i * 512], (pid ? 1000 : 2000) + i);
		if (pid)
			reap(pid);
		EQ(write(up[1], "x", 1), 1);
		_exit(0);
	}
	EQ(read(up[0], &c, 1), 1);
	for (i = 0; i < N; i++)
		EQ(p[i * 512], i + 1);
	for (i = 0; i < N; i++)
		p[i * 512] = 3000 + i;
	reap(pid);
	for (i = 0; i < N; i++)
		EQ(p[i * 512], 3000 + i);
}

static sigjmp_buf out;
static volatile sig_atomic_t caught;
static siginfo_t caught_si;
static long caught_reg[NGREG];

static void catch (int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;

	/* Alignment is checked in a handler too. */
	asm volatile("pushfq; andl $~0x40000, (%%rsp); popfq" : : : "memory", "cc");
	caught = sig;
	caught_si = *si;
	memcpy(caught_reg, uc->uc_mcontext.gregs, sizeof(caught_reg));
	siglongjmp(out, 1);
}

static void test_mmap(void)
{
	volatile char *shared = pages(4, PROT_READ | PROT_WRITE, MAP_SHARED), *a, *b;
	int fd = scratch_file(3 * PAGE);
	char buf[16];
	pid_t pid;

	pid = start();
	if (!pid) {
		shared[3 * PAGE] = 5;
		_exit(0);
	}
	reap(pid);
	EQ(shared[3 * PAGE], 5);

	a = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	b = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	OK(a != MAP_FAILED && b != MAP_FAILED);
	a[PAGE] = 'A';
	EQ(b[PAGE], 'A');
	b[PAGE] = 'B';
	EQ(a[PAGE], 'A');
	EQ(pread(fd, buf, 1, PAGE), 1);
	EQ(buf[0], 'A');
	EQ(pwrite(fd, "C", 1, 2 * PAGE), 1);
	EQ(a[2 * PAGE], 'C');
	EQ(b[2 * PAGE], 'C');
	OK(!msync((void *)a, 3 * PAGE, MS_SYNC));

	/* Beyond the end of the file. */
	handle(SIGBUS, catch, 0);
	if (!sigsetjmp(out, 1)) {
		(void)a[3 * PAGE];
		FAIL("no SIGBUS beyond the end of a file");
	}
	EQ(caught, SIGBUS);
	EQ(caught_si.si_code, BUS_ADRERR);
	EQ(caught_si.si_addr, a + 3 * PAGE);
	OK(!ftruncate(fd, PAGE));
	if (!sigsetjmp(out, 1)) {
		(void)a[2 * PAGE];
		FAIL("no SIGBUS in a file that was cut");
	}
	EQ(caught_si.si_addr, a + 2 * PAGE);

	/* A fixed mapping takes the place of what was there; holes fault; zeroes come back. */
	a = pages(3, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	memset((void *)a, 7, 3 * PAGE);
	OK(mmap((void *)(a + PAGE), PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	   a + PAGE);
	EQ(a[PAGE], 0);
	EQ(a[0] + a[2 * PAGE], 14);
	OK(!madvise((void *)a, PAGE, MADV_DONTNEED));
	EQ(a[0], 0);
	b = mremap((void *)(a + 2 * PAGE), PAGE, 64 * PAGE, MREMAP_MAYMOVE);
	OK(b != MAP_FAILED);
	EQ(b[PAGE - 1], 7);
	EQ(b[63 * PAGE], 0);
	OK(!munmap((void *)a, 2 * PAGE));
	EQ(mincore((void *)a, PAGE, (unsigned char *)buf), -1);
	EQ(errno, ENOMEM);
}

static void test_memory_growth(void)
{
	enum { N = 8192 };
	char *old = sbrk(0), *p;
	volatile char *stack;
	size_t i;

	OK(sbrk(N * PAGE) == old);
	for (i = 0; i < N; i++) {
		EQ(old[i * PAGE], 0);
		old[i * PAGE] = i;
	}
	for (i = 0; i < N; i++)
		EQ(old[i * PAGE], (char)i);
	OK(sbrk(-(long)(N * PAGE)) == old + N * PAGE);
	stack = __builtin_alloca(1 << 20);
	for (i = (1 << 20) - 1; i > PAGE; i -= PAGE)
		stack[i] = i;
	/* Each other page read-only, with what it had. */
	p = pages(256, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	for (i = 0; i < 256; i++)
		p[i * PAGE] = i;
	for (i = 0; i < 256; i += 2)
		OK(!mprotect(p + i * PAGE, PAGE, PROT_READ));
	for (i = 1; i < 256; i += 2)
		p[i * PAGE] ^= 1;
	for (i = 0; i < 256; i += 2)
		OK(!mprotect(p + i * PAGE, PAGE, PROT_READ | PROT_WRITE));
	for (i = 0; i < 256; i++)
		EQ(p[i * PAGE], (char)(i & 1 ? i ^ 1 : i));
}

enum { READ_IT, WRITE_IT, CALL_IT };

static void touch(int how, volatile char *p)
{
	if (how == READ_IT)
		(void)*p;
	else if (how == WRITE_IT)
		*p = 1;
	else
		((void (*)(void))p)();
}

static void test_fault_codes(void)
{
	volatile char *ro = pages(1, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	volatile char *none = pages(2, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	volatile char *hole = pages(1, PROT_READ, MAP_PRIVATE);
	volatile char *zero = pages(1, PROT_READ, MAP_PRIVATE);
	const struct {
		const char *what;
		volatile char *at;
		int how, code, error;
	} t[] = {
		{ "read of a hole", hole + 1, READ_IT, SEGV_MAPERR, 4 },
		{ "write to a hole", hole + 2, WRITE_IT, SEGV_MAPERR, 6 },
		{ "fetch from a hole", hole + 3, CALL_IT, SEGV_MAPERR, 0x14 },
		{ "read of no access", none + 4, READ_IT, SEGV_ACCERR, 4 },
		{ "write to no access", none + PAGE + 5, WRITE_IT, SEGV_ACCERR, 6 },
		{ "fetch from no access", none + 6, CALL_IT, SEGV_ACCERR, 0x14 },
		{ "write to a read-only page", ro + 7, WRITE_IT, SEGV_ACCERR, 7 },
		{ "write to the zero page", zero + 8, WRITE_IT, SEGV_ACCERR, 7 },
		{ "read of address 16", (char *)16, READ_IT, SEGV_MAPERR, 4 },
		{ "write to address 0", NULL, WRITE_IT, SEGV_MAPERR, 6 },
	};
	size_t i;

	ro[0] = none[0] = none[PAGE] = 1;
	(void)zero[0];
	OK(!mprotect((void *)ro, PAGE, PROT_READ));
	OK(!mprotect((void *)none, 2 * PAGE, PROT_NONE));
	OK(!munmap((void *)hole, PAGE));
	EQ(ro[0], 1);
	handle(SIGSEGV, catch, 0);
	for (i = 0; i < NELEM(t); i++) {
		if (!sigsetjmp(out, 1)) {
			touch(t[i].how, t[i].at);
			FAIL("%s: no fault", t[i].what);
		}
		if (caught_si.si_code != t[i].code || caught_si.si_addr != t[i].at)
			FAIL("%s: si_code %d, si_addr %p instead of %d, %p", t[i].what, caught_si.si_code,
			     caught_si.si_addr, t[i].code, t[i].at);
		if (caught_reg[REG_ERR] != t[i].error || caught_reg[REG_TRAPNO] != 14 ||
		    caught_reg[REG_CR2] != (long)t[i].at)
			FAIL("%s: error %#lx, trap %ld, cr2 %#lx instead of %#x, 14, %p", t[i].what,
			     caught_reg[REG_ERR], caught_reg[REG_TRAPNO], caught_reg[REG_CR2], t[i].error, t[i].at);
	}
	/* Rights come back, and with them what was in the page. */
	OK(!mprotect((void *)none, 2 * PAGE, PROT_READ));
	EQ(none[0] + none[PAGE], 2);
	OK(!mprotect((void *)ro, PAGE, PROT_READ | PROT_WRITE));
	ro[0]++;
	EQ(ro[0], 2);
}

/* Data is no code. */
static void test_no_execute(void)
{
	volatile char *rw = pages(1, PROT_READ | PROT_WRITE, MAP_PRIVATE);

	rw[9] = 0xc3;
	handle(SIGSEGV, catch, 0);
	if (!sigsetjmp(out, 1)) {
		touch(CALL_IT, rw + 9);
		FAIL("data was executed");
	}
	EQ(caught_si.si_code, SEGV_ACCERR);
	EQ(caught_si.si_addr, rw + 9);
	EQ(caught_reg[REG_ERR], 0x15);
}

static void test_fault_noncanonical(void)
{
	handle(SIGSEGV, catch, 0);
	if (!sigsetjmp(out, 1)) {
		touch(READ_IT, (char *)(1UL << 62));
		FAIL("no fault");
	}
	EQ(caught_reg[REG_TRAPNO], 13);
	EQ(caught_reg[REG_ERR], 0);
	EQ(caught_si.si_code, SI_KERNEL);
	EQ(caught_si.si_addr, 0);
}

/* A page made of code, run. */
static void test_code_page(void)
{
	static const unsigned char one[] = { 0xb8, 1, 0, 0, 0, 0xc3 };
	unsigned char *p = pages(1, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	int (*fn)(void) = (int (*)(void))p;
	int i;

	memcpy(p, one, sizeof(one));
	OK(!mprotect(p, PAGE, PROT_READ | PROT_EXEC));
	EQ(fn(), 1);
	OK(!mprotect(p, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
	for (i = 2; i < 100; i++) {
		p[1] = i;
		EQ(fn(), i);
	}
}

static void test_syscall_pointers(void)
{
	static const long bad[] = { 0, 16, 1L << 62, 0x7ffffffff000, -4096 };
	size_t i;
	char *p = pages(2, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	int fd[2];

	OK(!pipe(fd));
	OK(!munmap(p + PAGE, PAGE));
	EQ(write(fd[1], p + PAGE, 1), -1);
	EQ(errno, EFAULT);
	EQ(write(fd[1], "abcd", 4), 4);
	for (i = 0; i < NELEM(bad); i++) {
		EQ(syscall(SYS_read, fd[0], bad[i], 4), -1);
		EQ(errno, EFAULT);
	}
	OK(!mprotect(p, PAGE, PROT_READ));
	EQ(syscall(SYS_gettimeofday, p, NULL), -1);
	EQ(errno, EFAULT);
	EQ(syscall(10000), -1);
	EQ(errno, ENOSYS);
	EQ(syscall(-1L), -1);
	EQ(errno, ENOSYS);
}

/* Exceptions */

static void run_int_division(void)
{
	asm volatile("xor %%edx, %%edx; mov $1, %%eax; xor %%ecx, %%ecx; .globl at_de; at_de: div %%ecx"
		     :
		     :
		     : "eax", "ecx", "edx");
}

static void run_undefined(void)
{
	asm volatile(".globl at_ud; at_ud: ud2");
}

static void run_breakpoint(void)
{
	asm volatile("int3; .globl at_bp; at_bp:");
}

static void run_privileged(void)
{
	asm volatile(".globl at_gp; at_gp: hlt");
}

static void run_step(void)
{
	asm volatile("sub $128, %%rsp; pushfq; orl $0x100, (%%rsp); popfq; nop; .globl at_db; at_db: nop;"
		     "pushfq; andl $~0x100, (%%rsp); popfq; add $128, %%rsp"
		     :
		     :
		     : "memory", "cc");
}

static void run_unaligned(void)
{
	static char data[16] __attribute__((aligned(16)));

	asm volatile("sub $128, %%rsp; pushfq; orl $0x40000, (%%rsp); popfq; .globl at_ac; at_ac: movl (%0), %%eax;"
		     "pushfq; andl $~0x40000, (%%rsp); popfq; add $128, %%rsp"
		     :
		     : "r"(data + 1)
		     : "eax", "memory", "cc");
}

static void run_x87(void)
{
	static const unsigned short control = 0x37f & ~4;

	asm volatile("fninit; fldcw %0; fld1; fldz; fdivrp; .globl at_mf; at_mf: fwait" : : "m"(control));
}

static void run_sse(void)
{
	static const unsigned int control = 0x1f80 & ~0x200;

	asm volatile("ldmxcsr %0; movl $1, %%eax; cvtsi2sd %%eax, %%xmm0; xorps %%xmm1, %%xmm1;"
		     ".globl at_xm; at_xm: divsd %%xmm1, %%xmm0"
		     :
		     : "m"(control)
		     : "eax", "xmm0", "xmm1");
}

extern char at_de[], at_ud[], at_bp[], at_gp[], at_db[], at_ac[], at_mf[], at_xm[];

static void test_exceptions(void)
{
	static const struct {
		const char *what;
		void (*run)(void);
		char *rip, *addr;
		int sig, code, trap;
	} t[] = {
		{ "division by zero", run_int_division, at_de, at_de, SIGFPE, FPE_INTDIV, 0 },
		{ "undefined opcode", run_undefined, at_ud, at_ud, SIGILL, ILL_ILLOPN, 6 },
		{ "int3", run_breakpoint, at_bp, NULL, SIGTRAP, SI_KERNEL, 3 },
		{ "privileged instruction", run_privileged, at_gp, NULL, SIGSEGV, SI_KERNEL, 13 },
		{ "single step by TF", run_step, at_db, at_db, SIGTRAP, TRAP_TRACE, 1 },
		{ "alignment check", run_unaligned, at_ac, NULL, SIGBUS, BUS_ADRALN, 17 },
		{ "x87 division", run_x87, at_mf, at_mf, SIGFPE, FPE_FLTDIV, 16 },
		{ "SSE division", run_sse, at_xm, at_xm, SIGFPE, FPE_FLTDIV, 19 },
	};
	size_t i;

	for (i = 0; i < NELEM(t); i++) {
		handle(t[i].sig, catch, 0);
		caught = 0;
		if (!sigsetjmp(out, 1)) {
			t[i].run();
			FAIL("%s: nothing happened", t[i].what);
		}
		if (caught != t[i].sig || caught_si.si_code != t[i].code || caught_si.si_addr != t[i].addr)
			FAIL("%s: signal %d, si_code %d, si_addr %p instead of %d, %d, %p", t[i].what, caught,
			     caught_si.si_code, caught_si.si_addr, t[i].sig, t[i].code, t[i].addr);
		if (caught_reg[REG_RIP] != (long)t[i].rip || caught_reg[REG_TRAPNO] != t[i].trap)
			FAIL("%s: rip %#lx, trap %ld instead of %p, %d", t[i].what, caught_reg[REG_RIP],
			     caught_reg[REG_TRAPNO], t[i].rip, t[i].trap);
		asm volatile("fninit");
		asm volatile("ldmxcsr %0" : : "m"(*(const unsigned int[]){ 0x1f80 }));
		asm volatile("sub $128, %%rsp; pushfq; andl $~0x40100, (%%rsp); popfq; add $128, %%rsp"
			     :
			     :
			     : "memory", "cc");
	}
}

/* Without a handler each ends the process with its signal. */
static void test_fatal_signals(void)
{
	static const struct {
		void (*run)(void);
		int sig;
	} t[] = {
		{ run_int_division, SIGFPE }, { run_undefined, SIGILL }, { run_breakpoint, SIGTRAP },
		{ run_privileged, SIGSEGV },  { abort, SIGABRT },
	};
	int status;
	size_t i;

	for (i = 0; i < NELEM(t); i++) {
		pid_t pid = start();

		if (!pid) {
			t[i].run();
			_exit(0);
		}
		EQ(waitpid(pid, &status, 0), pid);
		OK(WIFSIGNALED(status));
		EQ(WTERMSIG(status), t[i].sig);
	}
}

/* All vector registers, a system call, a wait, and all of them again */

enum { SSE, AVX, AVX512 };

struct fp {
	uint8_t z[32][64] __attribute__((aligned(64)));
	uint64_t k[8];
	uint8_t st[8][16];
	uint32_t mxcsr;
	uint16_t fcw;
};

static int fp_level(void)
{
	unsigned int a, b, c, d, low, high;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX))
		return SSE;
	asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	if ((low & 6) != 6)
		return SSE;
	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (low & 0xe6) != 0xe6)
		return AVX;
	return b & bit_AVX512F && b & bit_AVX512BW ? AVX512 : AVX;
}

static void fp_pattern(struct fp *f, int level, unsigned int seed)
{
	size_t i, j;

	memset(f, 0, sizeof(*f));
	for (i = 0; i < (level == AVX512 ? 32 : 16); i++) {
		for (j = 0; j < (level == AVX512 ? 64 : level == AVX ? 32 : 16); j++)
			f->z[i][j] = (seed + i) * 73 + j * 11 + 1;
	}
	for (i = 0; level == AVX512 && i < 8; i++)
		f->k[i] = 0x0101010101010101UL * (seed + i + 1);
	for (i = 0; i < 8; i++) {
		f->st[i][7] = 0x80;
		f->st[i][0] = seed + i;
		f->st[i][8] = seed & 0x3f;
		f->st[i][9] = 0x40;
	}
	f->mxcsr = 0x1f80 | (seed & 3) << 13;
	f->fcw = 0x37f | (seed & 3) << 10;
}

#define N16 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
#define N32 N16 ",16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
#define EACH(list, line) ".irp n," list "\n\t" line "\n\t.endr\n\t"
#define COMMON(load, store)                                                                             \
	"fninit; fldcw %[fcw]; ldmxcsr %[mxcsr]\n\t" EACH("7,6,5,4,3,2,1,0", "fldt \\n*16(%[st])") load \
		"syscall\n\t"                                                                           \
		"1: cmpl $0, (%[flag]); jne 2f; dec %[count]; jnz 1b; 2:\n\t" store EACH(               \
			"0,1,2,3,4,5,6,7",                                                              \
			"fstpt \\n*16(%[st])") "fnstcw %[fcw]; stmxcsr %[mxcsr]; fninit; ldmxcsr %[dflt]"
#define RUN(load, store)                                                                                             \
	asm volatile(COMMON(load, store)                                                                             \
		     : [fcw] "+m"(f->fcw), [mxcsr] "+m"(f->mxcsr), "+a"(ret), [count] "+r"(count)                    \
		     : [st] "r"(f->st), [z] "r"(f->z), [k] "r"(f->k), [flag] "r"(flag), [dflt] "m"(dflt), "D"(a0),   \
		       "S"(a1), "d"(0)                                                                               \
		     : "rcx", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
		       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")

/* Registers as f says; then they are what f says. Waits until *flag, at most count rounds. */
static long fp_run(struct fp *f, int level, long nr, long a0, long a1, volatile int *flag, unsigned long count)
{
	static const uint32_t dflt = 0x1f80;
	long ret = nr;

	if (level == AVX512)
		RUN(EACH(N32, "vmovdqu64 \\n*64(%[z]), %%zmm\\n") EACH("0,1,2,3,4,5,6,7", "kmovq \\n*8(%[k]), %%k\\n"),
		    EACH(N32, "vmovdqu64 %%zmm\\n, \\n*64(%[z])")
			    EACH("0,1,2,3,4,5,6,7", "kmovq %%k\\n, \\n*8(%[k])") "vzeroupper\n\t");
	else if (level == AVX)
		RUN(EACH(N16, "vmovdqu \\n*64(%[z]), %%ymm\\n"),
		    EACH(N16, "vmovdqu %%ymm\\n, \\n*64(%[z])") "vzeroupper\n\t");
	else
		RUN(EACH(N16, "movdqu \\n*64(%[z]), %%xmm\\n"), EACH(N16, "movdqu %%xmm\\n, \\n*64(%[z])"));
	return ret;
}

static void fp_check(const struct fp *f, int level, unsigned int seed, const char *when)
{
	struct fp want;
	size_t i;

	fp_pattern(&want, level, seed);
	for (i = 0; i < 32; i++) {
		size_t j;

		for (j = 0; j < 64; j++) {
			if (f->z[i][j] != want.z[i][j])
				FAIL("%s: byte %zu of vector register %zu is %#x, not %#x", when, j, i, f->z[i][j],
				     want.z[i][j]);
		}
	}
	for (i = 0; i < 8; i++) {
		if (f->k[i] != want.k[i])
			FAIL("%s: k%zu is %#lx, not %#lx", when, i, f->k[i], want.k[i]);
		if (memcmp(f->st[i], want.st[i], 10))
			FAIL("%s: st(%zu) changed", when, i);
	}
	/* Flags may have been raised by nobody here. */
	EQ(f->mxcsr, want.mxcsr);
	EQ(f->fcw, want.fcw);
}

static volatile int stop;
static volatile int never;
static int level;

static void clobber(int sig, siginfo_t *si, void *ctx)
{
	struct fp f;

	(void)sig, (void)si, (void)ctx;
	fp_pattern(&f, level, 200);
	fp_run(&f, level, SYS_getppid, 0, 0, &never, 1);
	stop++;
}

static void test_fp_signal(void)
{
	struct itimerval soon = { .it_value = { .tv_usec = 20000 } };
	struct fp f;

	level = fp_level();
	handle(SIGUSR1, clobber, 0);
	handle(SIGALRM, clobber, 0);
	fp_pattern(&f, level, 1);
	EQ(fp_run(&f, level, SYS_kill, getpid(), SIGUSR1, &never, 1), 0);
	EQ(stop, 1);
	fp_check(&f, level, 1, "a signal to itself");
	stop = 0;
	fp_pattern(&f, level, 2);
	OK(!setitimer(ITIMER_REAL, &soon, NULL));
	fp_run(&f, level, SYS_getppid, 0, 0, &stop, -1UL);
	fp_check(&f, level, 2, "a signal out of the blue");
}

static void see_fp_of_handler(int sig, siginfo_t *si, void *ctx)
{
	uint32_t mxcsr;
	uint16_t fcw;

	(void)sig, (void)si, (void)ctx;
	asm volatile("stmxcsr %0" : "=m"(mxcsr));
	asm volatile("fnstcw %0" : "=m"(fcw));
	stop = mxcsr == 0x1f80 && fcw == 0x37f ? 1 : 2;
}

/* A handler starts with the state of a new program. */
static void test_fp_in_handler(void)
{
	struct fp f;

	level = fp_level();
	handle(SIGUSR1, see_fp_of_handler, 0);
	fp_pattern(&f, level, 3);
	EQ(fp_run(&f, level, SYS_kill, getpid(), SIGUSR1, &never, 1), 0);
	fp_check(&f, level, 3, "after the handler");
	EQ(stop, 1);
}

static uint8_t changed_xmm[16];

static void change_fp(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;

	(void)sig, (void)si;
	OK(uc->uc_mcontext.fpregs);
	memcpy(changed_xmm, &uc->uc_mcontext.fpregs->_xmm[5], 16);
	memset(&uc->uc_mcontext.fpregs->_xmm[5], 0xaa, 16);
	uc->uc_mcontext.fpregs->mxcsr = 0x1fc0;
}

static void test_fp_ucontext(void)
{
	struct fp f, want;

	handle(SIGUSR1, change_fp, 0);
	fp_pattern(&f, SSE, 4);
	want = f;
	EQ(fp_run(&f, SSE, SYS_kill, getpid(), SIGUSR1, &never, 1), 0);
	OK(!memcmp(changed_xmm, want.z[5], 16));
	EQ(f.z[5][0], 0xaa);
	EQ(f.mxcsr, 0x1fc0);
	EQ(f.z[6][3], want.z[6][3]);
}

static void test_fp_isolation(void)
{
	enum { N = 4 };
	pid_t pid[N];
	int i, round;

	for (i = 0; i < N; i++) {
		pid[i] = start();
		if (pid[i])
			continue;
		level = fp_level();
		if (i == N - 1 && level > SSE)
			level--;
		for (round = 0; round < 8; round++) {
			struct fp f;

			fp_pattern(&f, level, 10 * i + round);
			fp_run(&f, level, SYS_sched_yield, 0, 0, &never, 20000000);
			fp_check(&f, level, 10 * i + round, "beside other processes");
		}
		_exit(0);
	}
	for (i = 0; i < N; i++)
		reap(pid[i]);
}

static void test_fp_fork(void)
{
	struct fp f;
	long pid;

	level = fp_level();
	fp_pattern(&f, level, 5);
	pid = fp_run(&f, level, SYS_fork, 0, 0, &never, 1000);
	OK(pid >= 0);
	fp_check(&f, level, 5, pid ? "the parent of a fork" : "the child of a fork");
	if (!pid)
		_exit(0);
	reap(pid);
}

/* A new program has the state of one, whatever the old one had. */
static void test_fp_exec(void)
{
	struct fp f;
	long args[] = { (long)"selftest", (long)"--fp", 0 };
	int status;
	pid_t pid = start();

	if (!pid) {
		level = fp_level();
		fp_pattern(&f, level, 6);
		fp_run(&f, level, SYS_execve, (long)"/proc/self/exe", (long)args, &never, 1);
		_exit(9);
	}
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0);
}

static int fp_of_new_program(void)
{
	uint32_t mxcsr;
	uint16_t fcw;

	asm volatile("stmxcsr %0" : "=m"(mxcsr));
	asm volatile("fnstcw %0" : "=m"(fcw));
	return (mxcsr & ~0x3fU) == 0x1f80 && fcw == 0x37f ? 0 : 1;
}

/* Signals */

static void move_on(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;
	int i;

	(void)sig, (void)si;
	for (i = REG_R8; i <= REG_RCX; i++) {
		if (i != REG_RBP && i != REG_RDI)
			uc->uc_mcontext.gregs[i] += 1000;
	}
	uc->uc_mcontext.gregs[REG_RIP] += 2;
	uc->uc_mcontext.gregs[REG_EFL] ^= 1;
	stop = uc->uc_mcontext.gregs[REG_EFL] & 0x400 ? 1 : 0;
	asm volatile("pushfq; popq %0" : "=r"(caught_reg[0]));
}

/* General registers: a handler sees them, and what it changes is changed. */
static void test_signal_registers(void)
{
	long v[16] = { 0 };

	handle(SIGILL, move_on, 0);
	asm volatile(
		"push %%rbp; mov $1, %%rax; mov $2, %%rbx; mov $3, %%rcx; mov $4, %%rdx; mov $5, %%rsi; mov $8, %%r8;"
		"mov $9, %%r9; mov $10, %%r10; mov $11, %%r11; mov $12, %%r12; mov $13, %%r13; mov $14, %%r14;"
		"mov $15, %%r15; std; stc; ud2; mov %%rax, (%0); mov %%rbx, 8(%0); mov %%rcx, 16(%0);"
		"mov %%rdx, 24(%0); mov %%rsi, 32(%0); mov %%r8, 40(%0); mov %%r9, 48(%0); mov %%r10, 56(%0);"
		"mov %%r11, 64(%0); mov %%r12, 72(%0); mov %%r13, 80(%0); mov %%r14, 88(%0); mov %%r15, 96(%0);"
		"pushfq; pop %%rax; cld; mov %%rax, 104(%0); pop %%rbp"
		:
		: "D"(v)
		: "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory",
		  "cc");
	EQ(v[0], 1001);
	EQ(v[1], 1002);
	EQ(v[2], 1003);
	EQ(v[3], 1004);
	EQ(v[4], 1005);
	EQ(v[5], 1008);
	EQ(v[12], 1015);
	EQ(v[13] & 0x401, 0x400);
	EQ(stop, 1);
	/* A handler is a C function: the direction flag is clear. */
	EQ(caught_reg[0] & 0x400, 0);
}

static char alt[65536] __attribute__((aligned(16)));
static volatile int depth;

static void clobber_stack(int sig, siginfo_t *si, void *ctx)
{
	(void)si, (void)ctx;
	if (++depth < 10)
		raise(sig);
}

static void on_alt(int sig, siginfo_t *si, void *ctx)
{
	stack_t ss;
	char here;

	(void)sig, (void)si, (void)ctx;
	OK(!sigaltstack(NULL, &ss));
	stop = &here >= alt && &here < alt + sizeof(alt) && ss.ss_flags & SS_ONSTACK ? 1 : 2;
	if (sig == SIGSEGV)
		siglongjmp(out, 1);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winfinite-recursion"
static int overflow(int n)
{
	volatile char big[4096];

	big[0] = n;
	depth++;
	return overflow(n + 1) + big[0];
}
#pragma GCC diagnostic pop

static void test_altstack(void)
{
	stack_t ss = { .ss_sp = alt, .ss_size = sizeof(alt) }, now;
	int status;
	pid_t pid;

	OK(!sigaltstack(&ss, NULL));
	handle(SIGUSR1, on_alt, SA_ONSTACK);
	handle(SIGSEGV, on_alt, SA_ONSTACK);
	OK(!raise(SIGUSR1));
	EQ(stop, 1);
	OK(!sigaltstack(NULL, &now));
	EQ(now.ss_flags, 0);
	EQ(now.ss_size, sizeof(alt));
	stop = 0;
	if (!sigsetjmp(out, 1))
		overflow(1);
	EQ(stop, 1);
	OK(depth > 100);
	/* With none, a stack that is full ends the process. */
	ss.ss_flags = SS_DISABLE;
	OK(!sigaltstack(&ss, NULL));
	pid = start();
	if (!pid)
		overflow(1);
	EQ(waitpid(pid, &status, 0), pid);
	OK(WIFSIGNALED(status));
	EQ(WTERMSIG(status), SIGSEGV);
}

/* A frame that does not fit an alternate stack is not written over what lies below. */
static void test_small_altstack(void)
{
	char *area = pages(4, PROT_READ | PROT_WRITE, MAP_SHARED);
	stack_t ss = { .ss_sp = area + 3 * PAGE, .ss_size = PAGE };
	int status, i, changed = 0;
	pid_t pid;

	/* Enough for one frame; a second within the first overflows. */
	memset(area, 0x5a, 3 * PAGE);
	pid = start();
	if (!pid) {
		OK(!sigaltstack(&ss, NULL));
		handle(SIGUSR1, clobber_stack, SA_ONSTACK | SA_NODEFER);
		raise(SIGUSR1);
		_exit(1);
	}
	EQ(waitpid(pid, &status, 0), pid);
	OK(WIFSIGNALED(status));
	EQ(WTERMSIG(status), SIGSEGV);
	for (i = 0; i < (int)(2 * PAGE); i++)
		changed += area[i] != 0x5a;
	EQ(changed, 0);
}

static int how_bad;

static void spoil(int sig, siginfo_t *si, void *ctx)
{
	greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;
	struct _libc_fpstate *fp = ((ucontext_t *)ctx)->uc_mcontext.fpregs;

	(void)sig, (void)si;
	switch (how_bad) {
	case 0:
		g[REG_RIP] = 1L << 62;
		break;
	case 1:
		g[REG_EFL] |= 0x3000 | 1 << 14 | 1 << 17;
		g[REG_EFL] &= ~0x200;
		break;
	case 2:
		fp->mxcsr = -1;
		break;
	case 3:
		/* The header, behind the legacy area. */
		memset((char *)fp + 512, 0xff, 64);
		break;
	case 4:
		((ucontext_t *)ctx)->uc_mcontext.fpregs = (void *)-4096L;
		break;
	case 5:
		((ucontext_t *)ctx)->uc_mcontext.fpregs = NULL;
		break;
	case 6:
		g[REG_CSGSFS] = 0;
		break;
	case 7:
		g[REG_RSP] = -1L;
		break;
	}
}

/* Whatever is in a frame, it is the program's trouble and nobody else's. */
static void test_bad_sigreturn(void)
{
	int status;
	pid_t pid;

	for (how_bad = 0; how_bad < 8; how_bad++) {
		pid = start();
		if (!pid) {
			handle(SIGUSR1, spoil, 0);
			raise(SIGUSR1);
			_exit(0);
		}
		EQ(waitpid(pid, &status, 0), pid);
		if (how_bad == 0 || how_bad == 4 || how_bad == 7)
			OK(WIFSIGNALED(status));
		else if (how_bad == 1 || how_bad == 5)
			EQ(status, 0);
	}
}

static int order[8];
static volatile int orders;

static void note(int sig, siginfo_t *si, void *ctx)
{
	(void)ctx;
	if (orders < 8)
		order[orders] = sig;
	orders++;
	if (sig == SIGUSR1 && orders == 1) {
		/* Blocked while it is handled; another one is not. */
		raise(SIGUSR1);
		EQ(orders, 1);
		raise(SIGUSR2);
		EQ(orders, 2);
	}
	if (si->si_code == SI_QUEUE)
		stop = si->si_value.sival_int;
}

static void test_nested_signals(void)
{
	union sigval v = { .sival_int = 4711 };
	sigset_t all, old, pending;

	handle(SIGUSR1, note, 0);
	handle(SIGUSR2, note, 0);
	OK(!raise(SIGUSR1));
	EQ(orders, 3);
	EQ(order[0], SIGUSR1);
	EQ(order[1], SIGUSR2);
	EQ(order[2], SIGUSR1);
	sigfillset(&all);
	OK(!sigprocmask(SIG_BLOCK, &all, &old));
	orders = 0;
	OK(!kill(getpid(), SIGUSR2));
	OK(!kill(getpid(), SIGUSR2));
	OK(!sigpending(&pending));
	EQ(sigismember(&pending, SIGUSR2), 1);
	EQ(sigismember(&pending, SIGUSR1), 0);
	EQ(orders, 0);
	OK(!sigprocmask(SIG_SETMASK, &old, NULL));
	EQ(orders, 1);
	handle(SIGRTMIN + 1, note, 0);
	OK(!sigqueue(getpid(), SIGRTMIN + 1, v));
	EQ(stop, 4711);
}

static void tick(int sig, siginfo_t *si, void *ctx)
{
	(void)sig, (void)si, (void)ctx;
	stop++;
}

static void test_restart(void)
{
	struct itimerval soon = { .it_value = { .tv_usec = 30000 } };
	struct timespec one = { .tv_sec = 5 }, left = { 0 };
	int fd[2];
	pid_t pid;
	char c;

	OK(!pipe(fd));
	handle(SIGALRM, tick, 0);
	OK(!setitimer(ITIMER_REAL, &soon, NULL));
	EQ(read(fd[0], &c, 1), -1);
	EQ(errno, EINTR);
	EQ(stop, 1);
	OK(!setitimer(ITIMER_REAL, &soon, NULL));
	EQ(nanosleep(&one, &left), -1);
	EQ(errno, EINTR);
	OK(left.tv_sec >= 1 && left.tv_sec < 5);
	handle(SIGALRM, tick, SA_RESTART);
	pid = start();
	if (!pid) {
		usleep(200000);
		_exit(write(fd[1], "x", 1) != 1);
	}
	OK(!setitimer(ITIMER_REAL, &soon, NULL));
	EQ(read(fd[0], &c, 1), 1);
	EQ(stop, 3);
	reap(pid);
}

/* Stopped and continued inside a sleep: it goes on where it was. */
static void test_stop_continue(void)
{
	struct timespec t = { .tv_nsec = 300000000 };
	int status;
	pid_t pid = start();

	if (!pid) {
		int64_t before = ns(CLOCK_MONOTONIC);

		OK(!nanosleep(&t, NULL));
		_exit(ns(CLOCK_MONOTONIC) - before < 300000000);
	}
	usleep(50000);
	OK(!kill(pid, SIGSTOP));
	EQ(waitpid(pid, &status, WUNTRACED), pid);
	OK(WIFSTOPPED(status));
	EQ(WSTOPSIG(status), SIGSTOP);
	OK(!kill(pid, SIGCONT));
	EQ(waitpid(pid, &status, WCONTINUED), pid);
	OK(WIFCONTINUED(status));
	reap(pid);
}

/* Time */

static void test_preemption(void)
{
	struct itimerval often = { .it_value = { .tv_usec = 10000 }, .it_interval = { .tv_usec = 10000 } };
	volatile int *shared = pages(1, PROT_READ | PROT_WRITE, MAP_SHARED);
	pid_t pid;

	handle(SIGALRM, tick, 0);
	handle(SIGPROF, tick, 0);
	OK(!setitimer(ITIMER_REAL, &often, NULL));
	while (stop < 10)
		;
	often.it_value.tv_usec = often.it_interval.tv_usec = 0;
	OK(!setitimer(ITIMER_REAL, &often, NULL));
	/* Of the time it has used. */
	stop = 0;
	often.it_value.tv_usec = often.it_interval.tv_usec = 20000;
	OK(!setitimer(ITIMER_PROF, &often, NULL));
	while (stop < 3)
		;
	often.it_value.tv_usec = often.it_interval.tv_usec = 0;
	OK(!setitimer(ITIMER_PROF, &often, NULL));
	/* Two that never wait both get on. */
	pid = start();
	shared[!!pid] = 1;
	while (!shared[!pid])
		;
	if (!pid)
		_exit(0);
	reap(pid);
}

static void test_sleep(void)
{
	static const long want[] = { 1, 1000, 100000, 5000000, 50000000, 300000000 };
	int64_t before, last;
	size_t i;
	int n;

	for (i = 0; i < NELEM(want); i++) {
		struct timespec t = { .tv_nsec = want[i] };

		before = ns(CLOCK_MONOTONIC);
		OK(!nanosleep(&t, NULL));
		OK(ns(CLOCK_MONOTONIC) - before >= want[i]);
	}
	before = ns(CLOCK_MONOTONIC);
	EQ(poll(NULL, 0, 20), 0);
	OK(ns(CLOCK_MONOTONIC) - before >= 20000000);
	last = ns(CLOCK_MONOTONIC);
	for (n = 0; n < 100000; n++) {
		int64_t t = ns(CLOCK_MONOTONIC);

		OK(t >= last);
		last = t;
	}
	OK(ns(CLOCK_REALTIME) > 1600000000LL * 1000000000);
	OK(ns(CLOCK_BOOTTIME) >= last);
	before = ns(CLOCK_PROCESS_CPUTIME_ID);
	for (n = 0; n < 100000000 && ns(CLOCK_PROCESS_CPUTIME_ID) - before < 20000000; n++)
		;
	OK(ns(CLOCK_PROCESS_CPUTIME_ID) - before >= 20000000);
}

static void test_posix_timer(void)
{
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN };
	struct itimerspec its = { .it_value = { .tv_nsec = 1000000 }, .it_interval = { .tv_nsec = 1000000 } };
	siginfo_t si;
	sigset_t set;
	timer_t t;
	int i, n = 0;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	OK(!sigprocmask(SIG_BLOCK, &set, NULL));
	OK(!timer_create(CLOCK_MONOTONIC, &ev, &t));
	OK(!timer_settime(t, 0, &its, NULL));
	for (i = 0; i < 20; i++) {
		EQ(sigwaitinfo(&set, &si), SIGRTMIN);
		EQ(si.si_code, SI_TIMER);
		n += 1 + timer_getoverrun(t);
	}
	OK(n >= 20);
	OK(!timer_delete(t));
}

/* Threads */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static long counter, turn;
static __thread long own = 11;

static void *count_up(void *arg)
{
	long i, me = (long)arg;

	if (own != 11)
		return (void *)1;
	own = me;
	for (i = 0; i < 1000; i++) {
		pthread_mutex_lock(&mutex);
		counter++;
		pthread_mutex_unlock(&mutex);
		if (i % 100 == 0)
			sched_yield();
		if (own != me)
			return (void *)2;
	}
	return NULL;
}

static void *ping(void *arg)
{
	long i, me = (long)arg;

	for (i = 0; i < 1000; i++) {
		pthread_mutex_lock(&mutex);
		while (turn != me)
			pthread_cond_wait(&cond, &mutex);
		turn = !me;
		pthread_cond_signal(&cond);
		pthread_mutex_unlock(&mutex);
	}
	return NULL;
}

static void *spin_with_fp(void *arg)
{
	struct fp f;
	long me = (long)arg;
	int i;

	for (i = 0; i < 4; i++) {
		fp_pattern(&f, level, me + i);
		fp_run(&f, level, SYS_sched_yield, 0, 0, &never, 5000000);
		fp_check(&f, level, me + i, "beside other threads");
	}
	return NULL;
}

static void run_threads(int n, void *(*fn)(void *))
{
	pthread_t t[100];
	void *ret;
	long i;

	for (i = 0; i < n; i++)
		EQ(pthread_create(&t[i], NULL, fn, (void *)i), 0);
	for (i = 0; i < n; i++) {
		EQ(pthread_join(t[i], &ret), 0);
		EQ(ret, NULL);
	}
}

static void test_threads(void)
{
	run_threads(100, count_up);
	EQ(counter, 100000);
	EQ(own, 11);
	run_threads(2, ping);
	level = fp_level();
	run_threads(8, spin_with_fp);
}

static void *thread_segv(void *arg)
{
	*(volatile char *)arg = 1;
	return NULL;
}

static void *thread_exec(void *arg)
{
	execl("/proc/self/exe", "selftest", "--exit", "5", NULL);
	return arg;
}

static void *thread_sleep(void *arg)
{
	pause();
	return arg;
}

/* One thread's end is the end of all; so is its execve(). */
static void test_thread_ends(void)
{
	pthread_t t;
	int status;
	pid_t pid = start();

	if (!pid) {
		pthread_create(&t, NULL, thread_sleep, NULL);
		pthread_create(&t, NULL, thread_segv, (void *)16);
		pause();
		_exit(0);
	}
	EQ(waitpid(pid, &status, 0), pid);
	OK(WIFSIGNALED(status));
	EQ(WTERMSIG(status), SIGSEGV);
	pid = start();
	if (!pid) {
		pthread_create(&t, NULL, thread_sleep, NULL);
		pthread_create(&t, NULL, thread_exec, NULL);
		pause();
		_exit(0);
	}
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 5 << 8);
}

static void *thread_unmap(void *arg)
{
	(void)arg;
	while (!stop) {
		char *p = pages(4, PROT_READ | PROT_WRITE, MAP_PRIVATE);

		memset(p, 1, 4 * PAGE);
		mprotect(p, PAGE, PROT_NONE);
		munmap(p, 4 * PAGE);
	}
	return NULL;
}

/* Threads that share memory, and a fork in the middle of it. */
static void test_thread_memory(void)
{
	pthread_t t[4];
	int i;

	for (i = 0; i < 4; i++)
		EQ(pthread_create(&t[i], NULL, thread_unmap, NULL), 0);
	for (i = 0; i < 20; i++) {
		pid_t pid = start();

		if (!pid) {
			volatile char *p = pages(4, PROT_READ | PROT_WRITE, MAP_PRIVATE);

			p[0] = 1;
			_exit(p[PAGE]);
		}
		reap(pid);
		usleep(1000);
	}
	stop = 1;
	for (i = 0; i < 4; i++)
		EQ(pthread_join(t[i], NULL), 0);
}

static long futex(volatile int *word, int op, int val, const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op, val, timeout, NULL, 0);
}

static void test_futex(void)
{
	volatile int *word = pages(1, PROT_READ | PROT_WRITE, MAP_SHARED);
	struct timespec t = { .tv_nsec = 20000000 };
	pid_t pid;

	EQ(futex(word, FUTEX_WAIT, 1, NULL), -1);
	EQ(errno, EAGAIN);
	EQ(futex(word, FUTEX_WAIT, 0, &t), -1);
	EQ(errno, ETIMEDOUT);
	EQ(futex(word, FUTEX_WAKE, 1, NULL), 0);
	pid = start();
	if (!pid) {
		while (*word == 0)
			futex(word, FUTEX_WAIT, 0, NULL);
		_exit(*word != 1);
	}
	usleep(20000);
	*word = 1;
	EQ(futex(word, FUTEX_WAKE, 1, NULL), 1);
	reap(pid);
	EQ(futex((int *)16, FUTEX_WAIT, 0, NULL), -1);
	EQ(errno, EFAULT);
}

/* ptrace */

static void expect_stop(pid_t pid, int sig)
{
	int status;

	EQ(waitpid(pid, &status, 0), pid);
	if (!WIFSTOPPED(status))
		FAIL("not stopped: status %#x", status);
	EQ(WSTOPSIG(status), sig);
}

static void test_ptrace_syscall(void)
{
	struct user_regs_struct regs;
	int status;
	pid_t pid = start();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		if (syscall(SYS_getppid, 1, 2, 3) != 4242)
			_exit(1);
		if (syscall(SYS_getppid) != getpid())
			_exit(2);
		_exit(0);
	}
	expect_stop(pid, SIGSTOP);
	OK(!ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
	do {
		OK(!ptrace(PTRACE_SYSCALL, pid, 0, 0));
		expect_stop(pid, SIGTRAP | 0x80);
		OK(!ptrace(PTRACE_GETREGS, pid, 0, &regs));
	} while (regs.orig_rax != SYS_getppid);
	EQ(regs.rax, -ENOSYS);
	EQ(regs.rdi, 1);
	EQ(regs.rsi, 2);
	EQ(regs.rdx, 3);
	OK(!ptrace(PTRACE_SYSCALL, pid, 0, 0));
	expect_stop(pid, SIGTRAP | 0x80);
	OK(!ptrace(PTRACE_GETREGS, pid, 0, &regs));
	EQ(regs.orig_rax, SYS_getppid);
	EQ(regs.rax, getpid());
	regs.rax = 4242;
	OK(!ptrace(PTRACE_SETREGS, pid, 0, &regs));
	/* The next one becomes another call. */
	OK(!ptrace(PTRACE_SYSCALL, pid, 0, 0));
	expect_stop(pid, SIGTRAP | 0x80);
	EQ(ptrace(PTRACE_PEEKUSER, pid, ORIG_RAX * 8, 0), SYS_getppid);
	OK(!ptrace(PTRACE_POKEUSER, pid, ORIG_RAX * 8, SYS_getpid));
	OK(!ptrace(PTRACE_SYSCALL, pid, 0, 0));
	expect_stop(pid, SIGTRAP | 0x80);
	OK(!ptrace(PTRACE_CONT, pid, 0, 0));
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0);
}

static long poked = 1;
extern char ptrace_steps[], ptrace_steps_end[];

static void ptraced(void)
{
	struct fp f;

	ptrace(PTRACE_TRACEME, 0, 0, 0);
	fp_pattern(&f, SSE, 7);
	/* Stops in there, by the signal, with these registers. */
	fp_run(&f, SSE, SYS_kill, getpid(), SIGSTOP, &never, 1);
	if (f.z[3][0] != 0x55 || poked != 77)
		_exit(1);
	asm volatile("mov $5, %%rbx; stc; int3; .globl ptrace_steps; ptrace_steps: jnc 1f; mov $1, %%rbx; 1: nop; nop;"
		     "mov %0, %%eax; syscall; nop; .globl ptrace_steps_end; ptrace_steps_end: nop;"
		     "cmp $99, %%rbx; je 2f; ud2; 2:"
		     :
		     : "i"(SYS_getppid)
		     : "rax", "rbx", "rcx", "r11", "cc");
	_exit(0);
}

static void test_ptrace_registers(void)
{
	struct user_fpregs_struct fp, mine;
	struct user_regs_struct regs;
	unsigned long fs, my_fs;
	struct fp want;
	int status, steps;
	pid_t pid = start();

	if (!pid)
		ptraced();
	expect_stop(pid, SIGSTOP);
	fp_pattern(&want, SSE, 7);
	OK(!ptrace(PTRACE_GETFPREGS, pid, 0, &fp));
	OK(!memcmp((char *)fp.xmm_space + 3 * 16, want.z[3], 16));
	EQ(fp.mxcsr, want.mxcsr);
	EQ(fp.cwd, want.fcw);
	memset((char *)fp.xmm_space + 3 * 16, 0x55, 16);
	OK(!ptrace(PTRACE_SETFPREGS, pid, 0, &fp));
	OK(!ptrace(PTRACE_GETFPREGS, pid, 0, &mine));
	OK(!memcmp(&fp, &mine, sizeof(fp)));
	EQ(ptrace(PTRACE_PEEKDATA, pid, &poked, 0), 1);
	OK(!ptrace(PTRACE_POKEDATA, pid, &poked, 77));
	EQ(ptrace(PTRACE_PEEKDATA, pid, &poked, 0), 77);
	EQ(poked, 1);
	OK(!ptrace(PTRACE_CONT, pid, 0, 0));

	expect_stop(pid, SIGTRAP);
	OK(!ptrace(PTRACE_GETREGS, pid, 0, &regs));
	EQ(regs.rip, (long)ptrace_steps);
	EQ(regs.rbx, 5);
	EQ(regs.eflags & 1, 1);
	EQ(regs.cs, 0x33);
	EQ(regs.ss, 0x2b);
	EQ(regs.orig_rax, -1);
	OK(!ptrace(PTRACE_ARCH_PRCTL, pid, &fs, ARCH_GET_FS));
	OK(!syscall(SYS_arch_prctl, ARCH_GET_FS, &my_fs));
	EQ(fs, regs.fs_base);
	EQ(fs, my_fs);
	OK(!ptrace(PTRACE_ARCH_PRCTL, pid, fs + 64, ARCH_SET_FS));
	OK(!syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
	EQ(fs, my_fs);
	usleep(1000);
	OK(!syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
	EQ(fs, my_fs);
	OK(!ptrace(PTRACE_ARCH_PRCTL, pid, &fs, ARCH_GET_FS));
	EQ(fs, my_fs + 64);
	OK(!ptrace(PTRACE_ARCH_PRCTL, pid, my_fs, ARCH_SET_FS));
	EQ(ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, fs_base), 0), my_fs);
	/* Without carry it jumps; with another number in rbx it ends well. */
	regs.eflags &= ~1UL;
	regs.rbx = 99;
	OK(!ptrace(PTRACE_SETREGS, pid, 0, &regs));
	OK(!ptrace(PTRACE_GETREGS, pid, 0, &regs));
	EQ(regs.eflags & 1, 0);
	EQ(regs.rbx, 99);
	for (steps = 0; steps < 50; steps++) {
		OK(!ptrace(PTRACE_SINGLESTEP, pid, 0, 0));
		expect_stop(pid, SIGTRAP);
		OK(!ptrace(PTRACE_GETREGS, pid, 0, &regs));
		if (regs.rip == (unsigned long)ptrace_steps_end)
			break;
	}
	/* jnc, nop, nop, mov, syscall, nop */
	EQ(steps + 1, 6);
	EQ(regs.rax, getpid());
	OK(!ptrace(PTRACE_CONT, pid, 0, 0));
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0);
}

static void test_ptrace_breakpoint(void)
{
	struct user_regs_struct regs;
	int status;
	long text;
	pid_t pid = start();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		_exit(fp_of_new_program() == 0 ? 0 : 1);
	}
	expect_stop(pid, SIGSTOP);
	/* Into code, which nobody may write. */
	text = ptrace(PTRACE_PEEKTEXT, pid, fp_of_new_program, 0);
	OK(!ptrace(PTRACE_POKETEXT, pid, fp_of_new_program, (text & ~0xffL) | 0xcc));
	EQ(fp_of_new_program(), 0);
	OK(!ptrace(PTRACE_CONT, pid, 0, 0));
	expect_stop(pid, SIGTRAP);
	OK(!ptrace(PTRACE_GETREGS, pid, 0, &regs));
	EQ(regs.rip, (long)fp_of_new_program + 1);
	OK(!ptrace(PTRACE_POKETEXT, pid, fp_of_new_program, text));
	regs.rip--;
	OK(!ptrace(PTRACE_SETREGS, pid, 0, &regs));
	OK(!ptrace(PTRACE_CONT, pid, 0, 0));
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0);
}

static void test_ptrace_events(void)
{
	unsigned long message;
	int status;
	pid_t pid = start(), child;

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		child = fork();
		if (!child)
			_exit(3);
		waitpid(child, &status, 0);
		_exit(status != 3 << 8);
	}
	expect_stop(pid, SIGSTOP);
	OK(!ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL));
	OK(!ptrace(PTRACE_CONT, pid, 0, 0));
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status >> 8, SIGTRAP | PTRACE_EVENT_FORK << 8);
	OK(!ptrace(PTRACE_GETEVENTMSG, pid, 0, &message));
	child = message;
	EQ(waitpid(child, &status, 0), child);
	OK(WIFSTOPPED(status));
	OK(!ptrace(PTRACE_DETACH, child, 0, 0));
	OK(!ptrace(PTRACE_CONT, pid, 0, 0));
	EQ(waitpid(pid, &status, 0), pid);
	if (status >> 8 == SIGCHLD) {
		OK(!ptrace(PTRACE_CONT, pid, 0, 0));
		EQ(waitpid(pid, &status, 0), pid);
	}
	EQ(status >> 8, SIGTRAP | PTRACE_EVENT_EXIT << 8);
	OK(!ptrace(PTRACE_CONT, pid, 0, 0));
	EQ(waitpid(pid, &status, 0), pid);
	EQ(status, 0);
}

static void test_ptrace_attach(void)
{
	volatile long *shared = pages(1, PROT_READ | PROT_WRITE, MAP_SHARED);
	struct user_regs_struct regs;
	struct iovec here, there;
	long value = 0, before;
	int status;
	pid_t pid = start();

	if (!pid) {
		for (;;)
			shared[0]++;
	}
	while (!shared[0])
		;
	OK(!ptrace(PTRACE_ATTACH, pid, 0, 0));
	expect_stop(pid, SIGSTOP);
	before = shared[0];
	OK(!ptrace(PTRACE_GETREGS, pid, 0, &regs));
	here = (struct iovec){ &value, sizeof(value) };
	there = (struct iovec){ (void *)shared, sizeof(value) };
	EQ(process_vm_readv(pid, &here, 1, &there, 1, 0), sizeof(value));
	EQ(value, before);
	EQ(shared[0], before);
	OK(!ptrace(PTRACE_DETACH, pid, 0, 0));
	while (shared[0] == before)
		;
	OK(!kill(pid, SIGKILL));
	EQ(waitpid(pid, &status, 0), pid);
	EQ(WTERMSIG(status), SIGKILL);
}

/* Files to wait on */

static void test_pipe(void)
{
	char buf[65536];
	long total = 0, n;
	int fd[2], i;
	pid_t pid;

	OK(!pipe(fd));
	pid = start();
	if (!pid) {
		close(fd[0]);
		for (i = 0; i < 64; i++) {
			memset(buf, i, sizeof(buf));
			if (write(fd[1], buf, sizeof(buf)) != sizeof(buf))
				_exit(1);
		}
		_exit(0);
	}
	close(fd[1]);
	while ((n = read(fd[0], buf, sizeof(buf))) > 0) {
		for (i = 0; i < n; i++) {
			if (buf[i] != (total + i) / 65536)
				FAIL("byte %ld of a pipe is %d", total + i, buf[i]);
		}
		total += n;
	}
	EQ(total, 64 * 65536);
	reap(pid);
	handle(SIGPIPE, tick, 0);
	OK(!pipe(fd));
	close(fd[0]);
	EQ(write(fd[1], "x", 1), -1);
	EQ(errno, EPIPE);
	EQ(stop, 1);
}

static void test_poll(void)
{
	struct itimerspec its = { .it_value = { .tv_nsec = 20000000 } };
	struct epoll_event ev = { .events = EPOLLIN }, got[4];
	struct signalfd_siginfo ssi;
	int fd[2], e, ep, t, s;
	struct pollfd p[2];
	uint64_t v = 3;
	sigset_t set;

	OK(!pipe(fd));
	e = eventfd(0, EFD_NONBLOCK);
	t = timerfd_create(CLOCK_MONOTONIC, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	OK(!sigprocmask(SIG_BLOCK, &set, NULL));
	s = signalfd(-1, &set, 0);
	ep = epoll_create1(0);
	OK(e >= 0 && t >= 0 && s >= 0 && ep >= 0);
	p[0] = (struct pollfd){ .fd = fd[0], .events = POLLIN };
	p[1] = (struct pollfd){ .fd = fd[1], .events = POLLOUT };
	EQ(poll(p, 2, 0), 1);
	EQ(p[1].revents, POLLOUT);
	EQ(write(fd[1], "x", 1), 1);
	EQ(poll(p, 2, 0), 2);
	EQ(read(e, &v, 8), -1);
	EQ(errno, EAGAIN);
	ev.data.fd = e;
	OK(!epoll_ctl(ep, EPOLL_CTL_ADD, e, &ev));
	ev.data.fd = t;
	OK(!epoll_ctl(ep, EPOLL_CTL_ADD, t, &ev));
	ev.data.fd = s;
	OK(!epoll_ctl(ep, EPOLL_CTL_ADD, s, &ev));
	EQ(epoll_wait(ep, got, 4, 0), 0);
	v = 3;
	EQ(write(e, &v, 8), 8);
	EQ(write(e, &v, 8), 8);
	EQ(epoll_wait(ep, got, 4, -1), 1);
	EQ(got[0].data.fd, e);
	EQ(read(e, &v, 8), 8);
	EQ(v, 6);
	OK(!timerfd_settime(t, 0, &its, NULL));
	EQ(epoll_wait(ep, got, 4, 10000), 1);
	EQ(got[0].data.fd, t);
	EQ(read(t, &v, 8), 8);
	EQ(v, 1);
	OK(!raise(SIGUSR1));
	EQ(epoll_wait(ep, got, 4, 10000), 1);
	EQ(got[0].data.fd, s);
	EQ(read(s, &ssi, sizeof(ssi)), sizeof(ssi));
	EQ(ssi.ssi_signo, SIGUSR1);
	EQ(ssi.ssi_pid, getpid());
}

static void test_sockets(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	char buf[4096];
	long total = 0, n;
	int l, c, pair[2];
	pid_t pid;

	l = socket(AF_INET, SOCK_STREAM, 0);
	OK(l >= 0);
	OK(!bind(l, (void *)&a, sizeof(a)));
	OK(!listen(l, 1));
	OK(!getsockname(l, (void *)&a, &len));
	pid = start();
	if (!pid) {
		c = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(c, (void *)&a, sizeof(a)))
			_exit(1);
		memset(buf, 's', sizeof(buf));
		for (n = 0; n < 256; n++) {
			if (write(c, buf, sizeof(buf)) != sizeof(buf))
				_exit(2);
		}
		_exit(0);
	}
	c = accept(l, NULL, NULL);
	OK(c >= 0);
	while ((n = read(c, buf, sizeof(buf))) > 0)
		total += n;
	EQ(total, 256 * 4096);
	reap(pid);
	c = socket(AF_INET, SOCK_DGRAM, 0);
	a.sin_port = 0;
	OK(!bind(c, (void *)&a, sizeof(a)));
	OK(!getsockname(c, (void *)&a, &len));
	EQ(sendto(c, "hello", 5, 0, (void *)&a, sizeof(a)), 5);
	EQ(recv(c, buf, sizeof(buf), 0), 5);
	OK(!memcmp(buf, "hello", 5));
	OK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	EQ(write(pair[0], "ab", 2), 2);
	EQ(write(pair[0], "c", 1), 1);
	EQ(read(pair[1], buf, sizeof(buf)), 2);
	EQ(read(pair[1], buf, sizeof(buf)), 1);
}

/* Terminals */

static void expect_text(int fd, const char *want)
{
	char buf[512];
	size_t n = 0;

	while (n < sizeof(buf) - 1) {
		struct pollfd p = { .fd = fd, .events = POLLIN };

		if (poll(&p, 1, 10000) != 1 || read(fd, buf + n, 1) != 1)
			FAIL("the terminal did not say \"%s\" but \"%.*s\"", want, (int)n, buf);
		buf[++n] = 0;
		if (strstr(buf, want))
			return;
	}
	FAIL("the terminal did not say \"%s\"", want);
}

static void say_winch(int sig, siginfo_t *si, void *ctx)
{
	struct winsize ws;

	(void)sig, (void)si, (void)ctx;
	ioctl(0, TIOCGWINSZ, &ws);
	dprintf(1, "size %dx%d\n", ws.ws_row, ws.ws_col);
}

static void job(void)
{
	char buf[64];
	ssize_t n;

	handle(SIGWINCH, say_winch, SA_RESTART);
	dprintf(1, "ready\n");
	while ((n = read(0, buf, sizeof(buf) - 1)) > 0) {
		buf[n] = 0;
		dprintf(1, "got %s", buf);
	}
	_exit(4);
}

static void test_pty(void)
{
	struct winsize ws = { .ws_row = 24, .ws_col = 80 };
	int m, status;
	pid_t leader;

	leader = forkpty(&m, NULL, NULL, &ws);
	OK(leader >= 0);
	if (!leader) {
		pid_t pid;
		int fd;

		/* A shell, as far as jobs go. */
		signal(SIGTTOU, SIG_IGN);
		pid = fork();
		if (!pid) {
			setpgid(0, 0);
			tcsetpgrp(0, getpid());
			signal(SIGTTOU, SIG_DFL);
			signal(SIGINT, SIG_DFL); /* ignored where this is itself a job in the background */
			job();
		}
		setpgid(pid, pid);
		tcsetpgrp(0, pid);
		while (waitpid(pid, &status, WUNTRACED) == pid) {
			if (WIFSTOPPED(status)) {
				tcsetpgrp(0, getpid());
				dprintf(1, "stopped by %d\n", WSTOPSIG(status));
				fd = tcgetpgrp(0) == getpid();
				/* In the background it may not read. */
				kill(-pid, SIGCONT);
				if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status) ||
				    WSTOPSIG(status) != SIGTTIN || !fd)
					_exit(1);
				dprintf(1, "no reader\n");
				tcsetpgrp(0, pid);
				kill(-pid, SIGCONT);
				continue;
			}
			tcsetpgrp(0, getpid());
			dprintf(1, "end %#x\n", status);
			_exit(0);
		}
		_exit(2);
	}
	expect_text(m, "ready");
	EQ(write(m, "abx\177c\n", 6), 6);
	expect_text(m, "got abc");
	ws.ws_row = 40;
	ws.ws_col = 132;
	OK(!ioctl(m, TIOCSWINSZ, &ws));
	expect_text(m, "size 40x132");
	EQ(write(m, "\032", 1), 1);
	expect_text(m, "stopped by 20");
	expect_text(m, "no reader");
	EQ(write(m, "again\n", 6), 6);
	expect_text(m, "got again");
	EQ(write(m, "\003", 1), 1);
	expect_text(m, "end 0x2");
	reap(leader);
	close(m);
}

/* Of the system */

static void test_proc(void)
{
	int own_stack = 0, heap = 0, code = 0, lines = 0;
	char line[512], perm[8];
	unsigned long from, to;
	FILE *f = fopen("/proc/self/maps", "r");
	char *brk = sbrk(16 * PAGE);

	OK(f && brk);
	while (fgets(line, sizeof(line), f)) {
		EQ(sscanf(line, "%lx-%lx %7s", &from, &to, perm), 3);
		lines++;
		if (from <= (unsigned long)&own_stack && (unsigned long)&own_stack < to)
			own_stack += !strcmp(perm, "rw-p") && strstr(line, "[stack]");
		if (from <= (unsigned long)brk && (unsigned long)brk < to)
			heap += !strncmp(perm, "rw", 2) && perm[3] == 'p' && strstr(line, "[heap]");
		if (from <= (unsigned long)test_proc && (unsigned long)test_proc < to)
			code += !strcmp(perm, "r-xp");
	}
	EQ(own_stack, 1);
	EQ(heap, 1);
	EQ(code, 1);
	OK(lines > 4);
	fclose(f);
}

static void test_system(void)
{
	unsigned char a[256] = { 0 }, b[256] = { 0 };
	struct utsname u;
	size_t i, same = 0, zero = 0;

	OK(!uname(&u));
	OK(!strcmp(u.sysname, "Linux"));
	OK(!strcmp(u.machine, "x86_64"));
	EQ(getrandom(a, sizeof(a), 0), sizeof(a));
	EQ(getrandom(b, sizeof(b), 0), sizeof(b));
	for (i = 0; i < sizeof(a); i++) {
		same += a[i] == b[i];
		zero += !a[i];
	}
	OK(same < 32 && zero < 32);
	EQ(sysconf(_SC_PAGESIZE), PAGE);
	OK(sysconf(_SC_NPROCESSORS_ONLN) >= 1);
}

static void test_tls_bases(void)
{
	unsigned long fs, gs = 1;
	char *p = pages(1, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	long v;

	OK(!syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
	EQ(fs, (long)pthread_self());
	*(long *)(p + 8) = 1234;
	OK(!syscall(SYS_arch_prctl, ARCH_SET_GS, p));
	asm volatile("mov %%gs:8, %0" : "=r"(v));
	EQ(v, 1234);
	usleep(1000);
	asm volatile("mov %%gs:8, %0" : "=r"(v));
	EQ(v, 1234);
	OK(!syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
	EQ(gs, (long)p);
	if (!start()) {
		asm volatile("mov %%gs:8, %0" : "=r"(v));
		EQ(v, 1234);
		_exit(0);
	}
	OK(wait(NULL) > 0);
	EQ(syscall(SYS_arch_prctl, ARCH_SET_FS, 1UL << 63), -1);
	EQ(errno, EPERM);
	EQ(syscall(SYS_arch_prctl, 0x9999, 0), -1);
	EQ(errno, EINVAL);
}

static void test_memfd(void)
{
	char *p, c;
	int fd = memfd_create("selftest", 0);

	if (fd < 0 && errno == ENOSYS)
		SKIP("no memfd_create()");
	OK(fd >= 0);
	OK(!ftruncate(fd, 16 * PAGE));
	p = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	OK(p != MAP_FAILED);
	memset(p, 9, 16 * PAGE);
	EQ(pread(fd, &c, 1, 15 * PAGE), 1);
	EQ(c, 9);
}

static unsigned long long counter_of(const char *file, const char *name, int column)
{
	unsigned long long v[3] = { 0 };
	char line[256], word[64];
	FILE *f = fopen(file, "r");

	if (!f)
		SKIP("not a guest of Keel's: no %s", file);
	while (fgets(line, sizeof(line), f)) {
		v[0] = v[1] = v[2] = 0;
		OK(sscanf(line, "%63s %llu %llu %llu", word, &v[0], &v[1], &v[2]) >= 2);
		if (!strcmp(word, name)) {
			fclose(f);
			return v[column];
		}
	}
	FAIL("no counter %s in %s", name, file);
}

#define USER "/sys/kernel/debug/keel/user"
#define CALLS "/sys/kernel/debug/keel/calls"

/* What the port counts moves as it must, and agrees with what its host counts. */
static void test_counters(void)
{
	enum { N = 1000 };
	unsigned long long enters = counter_of(USER, "enters", 0), faults, pages_mapped, batches, work, waits;
	volatile char *p = pages(N, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	int i;

	for (i = 0; i < N; i++)
		syscall(SYS_getppid);
	OK(counter_of(USER, "enters", 0) - enters >= N);
	OK(counter_of(CALLS, "user_enter", 0) >= counter_of(USER, "enters", 0) - N);

	faults = counter_of(USER, "faults", 0);
	pages_mapped = counter_of(USER, "pages", 0);
	batches = counter_of(USER, "batches", 0);
	work = counter_of(CALLS, "mmu_batch", 2);
	for (i = 0; i < N; i++)
		p[i * PAGE] = 1;
	OK(counter_of(USER, "pages", 0) - pages_mapped >= N);
	OK(counter_of(CALLS, "mmu_batch", 2) - work >= N);
	/* No page faults twice, beside what reading the counters takes. */
	OK(counter_of(USER, "faults", 0) - faults <= N + 200);
	OK(counter_of(USER, "batches", 0) - batches <= N + 200);
	OK(counter_of(USER, "batches", 0) > batches);
	OK(counter_of(USER, "records", 0) >= counter_of(USER, "batches", 0) - N);

	waits = counter_of(USER, "waits", 0);
	for (i = 0; i < 20; i++)
		usleep(1000);
	OK(counter_of(USER, "waits", 0) - waits >= 20);
}

static const struct {
	const char *name;
	void (*fn)(void);
} tests[] = {
#define T(name)                    \
	{                          \
#name, test_##name \
	}
	T(fork_wait),
	T(fork_many),
	T(vfork),
	T(exec_script),
	T(cow),
	T(mmap),
	T(memory_growth),
	T(fault_codes),
	T(no_execute),
	T(fault_noncanonical),
	T(code_page),
	T(syscall_pointers),
	T(exceptions),
	T(fatal_signals),
	T(fp_signal),
	T(fp_in_handler),
	T(fp_ucontext),
	T(fp_isolation),
	T(fp_fork),
	T(fp_exec),
	T(signal_registers),
	T(altstack),
	T(nested_signals),
	T(small_altstack),
	T(bad_sigreturn),
	T(restart),
	T(stop_continue),
	T(preemption),
	T(sleep),
	T(posix_timer),
	T(threads),
	T(thread_ends),
	T(thread_memory),
	T(futex),
	T(ptrace_syscall),
	T(ptrace_registers),
	T(ptrace_breakpoint),
	T(ptrace_events),
	T(ptrace_attach),
	T(pipe),
	T(poll),
	T(sockets),
	T(pty),
	T(proc),
	T(system),
	T(tls_bases),
	T(memfd),
	T(counters),
#undef T
};

/* What it is when a test runs it as a program. */
static int other_self(int argc, char **argv)
{
	if (!strcmp(argv[1], "--exit"))
		return argc == 3 ? atoi(argv[2]) : 1;
	if (!strcmp(argv[1], "--fp"))
		return fp_of_new_program();
	if (!strcmp(argv[1], "--script"))
		return argc == 5 && !strcmp(argv[3], "one") && !strcmp(argv[4], "two") && getenv("KEEL") &&
				       !strcmp(getenv("KEEL"), "yes")
			       ? 7
			       : 1;
	return 1;
}

/* The process group of a test is gone when it is. */
static void run(int number, const char *name, void (*fn)(void))
{
	char text[257];
	int fd[2], status;
	ssize_t n;
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC))
		exit(2);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		exit(2);
	if (!pid) {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		verdict_fd = fd[1];
		fn();
		_exit(0);
	}
	setpgid(pid, pid);
	close(fd[1]);
	alarm(TEST_SECONDS);
	while (waitpid(pid, &status, 0) < 0) {
		if (errno == EINTR)
			kill(-pid, SIGKILL);
	}
	alarm(0);
	kill(-pid, SIGKILL);
	n = read(fd[0], text, sizeof(text) - 1);
	close(fd[0]);
	text[n < 0 ? 0 : n] = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
		printf("ok %d %s # SKIP %s\n", number, name, text);
	else if (!status && !n)
		printf("ok %d %s\n", number, name);
	else
		printf("# %s: %s (status %#x)\nnot ok %d %s\n", name, text, status, number, name);
	fflush(stdout);
}

static void wake(int sig)
{
	(void)sig;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = wake };
	size_t i, n = 0, chosen[NELEM(tests)];
	int a;

	if (argc > 1 && !strncmp(argv[1], "--", 2))
		return other_self(argc, argv);
	for (i = 0; i < NELEM(tests); i++) {
		bool wanted = argc == 1;

		for (a = 1; a < argc; a++)
			wanted |= !strcmp(argv[a], tests[i].name);
		if (argc == 2 && !strcmp(argv[1], "-l"))
			puts(tests[i].name);
		if (wanted)
			chosen[n++] = i;
	}
	if (argc == 2 && !strcmp(argv[1], "-l"))
		return 0;
	sigaction(SIGALRM, &sa, NULL);
	printf("KTAP version 1\n1..%zu\n", n);
	for (i = 0; i < n; i++)
		run(i + 1, tests[chosen[i]].name, tests[chosen[i]].fn);
	return 0;
}
