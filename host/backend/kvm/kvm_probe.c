// SPDX-License-Identifier: MIT
/* The probe of /dev/kvm: a child runs the guest of kvm_probe_guest.S, the parent waits for it as long as it likes. */
#include "kvm_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../log.h"

#define PAGE 4096
#define CR3 PAGE /* the code comes first, then three page tables */
#define PAGES 4
#define TSS_ADDR 0xfffbd000ul /* three pages below 4 GiB that a VT-x without EPT or unrestricted mode wants */

/* Nanoseconds. */
#define US UINT64_C(1000)
#define MS (1000 * US)
#define LOOP_MIN (10 * US)     /* what the loop takes natively, unless an exit takes longer */
#define LOOP_MAX (5 * MS)      /* also where exits are very slow */
#define FULL_LOOP_MIN (1 * MS) /* when there is time for a better figure */
#define TRY_MIN (150 * US)     /* how long a try lasts at least before it is given up */
#define TRY_MAX (20 * MS)      /* and at most */
#define TRY_FACTOR 6	       /* and else, times what it should take */
#define TRIES 3		       /* at least, unless one is good */
#define MOST_TRIES 9	       /* while they contradict each other, or nothing was done at all */
#define ENTER_LIMIT (500 * MS) /* for a few instructions, the first entry with all it sets up included */
#define COUNT_ENOUGH (2 * MS)  /* exits are counted over this long at least ... */
#define COUNT_MAX 512	       /* ... or so many of them */
#define END_WAIT_MS 1000

/* What the guest's page is made of. */
extern const uint8_t kvm_probe_page[], kvm_probe_sse[], kvm_probe_exits[], kvm_probe_doorbells[], kvm_probe_cpuids[];
void kvm_probe_spin(uint64_t rounds, uint32_t in_guest);

const struct kvm_probe_cap kvm_probe_caps[] = {
	{ KVM_CAP_USER_MEMORY, "USER_MEMORY", true },
	{ KVM_CAP_SET_TSS_ADDR, "SET_TSS_ADDR", true },
	{ KVM_CAP_EXT_CPUID, "EXT_CPUID", true },
	{ KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT", true },
	{ KVM_CAP_SYNC_REGS, "SYNC_REGS", true },
	{ KVM_CAP_READONLY_MEM, "READONLY_MEM", true },
	{ KVM_CAP_XSAVE, "XSAVE", false },
	{ KVM_CAP_XCRS, "XCRS", false },
	{ KVM_CAP_IRQCHIP, "IRQCHIP", true },
	{ KVM_CAP_SPLIT_IRQCHIP, "SPLIT_IRQCHIP", true },
	{ KVM_CAP_IRQ_ROUTING, "IRQ_ROUTING", true },
	{ KVM_CAP_SIGNAL_MSI, "SIGNAL_MSI", false },
	{ KVM_CAP_IRQFD, "IRQFD", true },
	{ KVM_CAP_IOEVENTFD, "IOEVENTFD", true },
	{ KVM_CAP_TSC_DEADLINE_TIMER, "TSC_DEADLINE_TIMER", true },
	{ KVM_CAP_PIT2, "PIT2", false },
	{ KVM_CAP_X86_USER_SPACE_MSR, "X86_USER_SPACE_MSR", false },
	{ KVM_CAP_X86_MSR_FILTER, "X86_MSR_FILTER", false },
	{ KVM_CAP_BINARY_STATS_FD, "BINARY_STATS_FD", false },
};
const unsigned int kvm_probe_cap_count = sizeof(kvm_probe_caps) / sizeof(kvm_probe_caps[0]);

/* The verdict. */

static const struct {
	const char *name;
	enum backend_fit fit;
} verdicts[] = {
	[KVM_IS_ABSENT] = { "absent", FIT_NONE },
	[KVM_IS_DENIED] = { "denied", FIT_NONE },
	[KVM_IS_FORBIDDEN] = { "forbidden", FIT_NONE },
	[KVM_IS_BUSY] = { "busy", FIT_NONE },
	[KVM_FAILS] = { "fails", FIT_NONE },
	[KVM_HANGS] = { "hangs", FIT_NONE },
	[KVM_LACKS] = { "lacks", FIT_NONE },
	[KVM_INTERPRETS] = { "interprets", FIT_POOR },
	[KVM_HAS_NO_SSE] = { "no-sse", FIT_POOR },
	[KVM_IS_HARDWARE] = { "hardware", FIT_GOOD },
};

enum backend_fit kvm_fit(enum kvm_verdict v)
{
	return verdicts[v].fit;
}

const char *kvm_verdict_name(enum kvm_verdict v)
{
	return verdicts[v].name;
}

/* Completes "it fails ..." and "it hangs ...". */
static const char *const doing[PROBE_STEPS] = {
	[PROBE_OPEN] = "opening it",
	[PROBE_API] = "asking for its version",
	[PROBE_VM] = "making a virtual machine",
	[PROBE_VCPU] = "making a virtual processor",
	[PROBE_ENTER] = "entering the guest",
	[PROBE_LOOP] = "running a loop",
	[PROBE_EXITS] = "leaving for user space",
	[PROBE_DOORBELLS] = "ringing a doorbell",
	[PROBE_CPUIDS] = "executing cpuid",
	[PROBE_SSE] = "executing SSE instructions",
};

static const struct {
	int err;
	enum kvm_verdict verdict;
	const char *text;
} refusals[] = {
	{ ENOENT, KVM_IS_ABSENT, "is absent: there is no " KVM_DEVICE },
	{ ENOTDIR, KVM_IS_ABSENT, "is absent: there is no " KVM_DEVICE },
	{ ENODEV, KVM_IS_ABSENT, "is absent: " KVM_DEVICE " has no driver behind it" },
	{ ENXIO, KVM_IS_ABSENT, "is absent: " KVM_DEVICE " has no driver behind it" },
	{ EACCES, KVM_IS_DENIED, "is not ours: no permission to open " KVM_DEVICE },
	{ EPERM, KVM_IS_FORBIDDEN, "is forbidden: a container or policy keeps it from us" },
	{ EBUSY, KVM_IS_BUSY, "is busy: something else holds the processor's virtualization" },
};

static enum kvm_verdict verdict(enum kvm_verdict v, struct error *text, const char *clause)
{
	error_set(text, "%s", clause);
	return v;
}

enum kvm_verdict kvm_judge(const struct kvm_probe *f, struct error *text)
{
	const char *at = doing[f->reached < PROBE_STEPS ? f->reached : PROBE_OPEN];
	double times = f->guest > 0 ? f->native / f->guest : 0;

	if (f->silence == PROBE_NONSENSE)
		return verdict(KVM_FAILS, text, "fails: the probe's answer makes no sense");
	for (size_t i = 0; f->reached <= PROBE_VM && i < sizeof(refusals) / sizeof(refusals[0]); i++)
		if (f->err && f->err == refusals[i].err)
			return verdict(refusals[i].verdict, text, refusals[i].text);
	for (unsigned int i = 0; f->reached > PROBE_API && i < kvm_probe_cap_count; i++)
		if (f->missing & 1u << i && kvm_probe_caps[i].needed) {
			error_set(text, "lacks KVM_CAP_%s", kvm_probe_caps[i].name);
			return KVM_LACKS;
		}
	if (times * PROBE_HARDWARE > 1) {
		error_set(text, "interprets: CPL 0 code runs %.0f times slower than native", times);
		return KVM_INTERPRETS;
	}
	if (f->sse_tried && !f->sse)
		return verdict(KVM_HAS_NO_SSE, text, "cannot execute SSE instructions");
	if (f->final && times > 0 && f->sse) {
		error_set(text, "runs at hardware speed, %.2f times native time", times);
		return KVM_IS_HARDWARE;
	}
	if (f->silence == PROBE_TOO_LATE || f->stuck) {
		error_set(text, "hangs %s", at);
		return KVM_HANGS;
	}
	if (f->silence == PROBE_DIED)
		error_set(text, "fails %s: it took its process along", at);
	else if (f->exit)
		error_set(text, "fails %s: exit reason %u", at, f->exit - 1);
	else if (f->reached == PROBE_API && !f->err)
		error_set(text, "fails: version %u of its interface instead of %u", f->api, KVM_API_VERSION);
	else
		error_set(text, "fails %s: %s", at, strerror(f->err));
	return KVM_FAILS;
}

/* The child. */

struct guest {
	struct kvm_probe facts;
	enum kvm_probe_depth depth;
	int answer;
	int kvm, vm, vcpu;
	struct kvm_run *run;
	timer_t timer;
};

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 * MS + (uint64_t)ts.tv_nsec;
}

static void on_alarm(int sig)
{
	(void)sig; /* KVM_RUN comes back; that is all it is for */
}

/* Nobody may be listening any more: then we are about to be killed. */
static void report(struct guest *g)
{
	if (write(g->answer, &g->facts, sizeof(g->facts)) < 0)
		_exit(1);
}

static void begin(struct guest *g, enum kvm_probe_step step)
{
	g->facts.reached = step;
	report(g);
}

static bool failed(struct guest *g)
{
	g->facts.err = errno ? errno : EIO;
	return false;
}

static void set_alarm(struct guest *g, uint64_t ns)
{
	/* Again and again: the first may come before KVM_RUN is there to be interrupted. */
	struct itimerspec its = { { 0, ns ? 100 * (long)US : 0 },
				  { (time_t)(ns / (1000 * MS)), (long)(ns % (1000 * MS)) } };

	timer_settime(g->timer, 0, &its, NULL);
}

enum ran { RAN_DONE, RAN_INTERRUPTED, RAN_FAILED };

struct outcome_of_run {
	uint64_t ns;
	uint64_t rax;
	uint64_t left; /* rounds not done */
};

/* Run the guest from a place in its page until it says it is done, or so long. */
static enum ran go(struct guest *g, const void *place, uint64_t rounds, uint64_t limit, struct outcome_of_run *o)
{
	struct kvm_regs regs = {
		.rip = (uint64_t)((const uint8_t *)place - kvm_probe_page), .rdi = rounds, .rsi = 1, .rflags = 2
	};
	enum ran ran = RAN_FAILED;
	uint64_t start;
	int ret;

	if (ioctl(g->vcpu, KVM_SET_REGS, &regs)) {
		failed(g);
		return RAN_FAILED;
	}
	set_alarm(g, limit);
	start = now();
	do {
		ret = ioctl(g->vcpu, KVM_RUN, 0);
	} while (!ret && g->run->exit_reason == KVM_EXIT_IO && g->run->io.port == PROBE_PORT_EXIT &&
		 now() - start < limit);
	o->ns = now() - start;
	if ((ret && errno == EINTR) || (!ret && g->run->exit_reason == KVM_EXIT_INTR))
		ran = RAN_INTERRUPTED;
	else if (ret)
		failed(g);
	else if (g->run->exit_reason != KVM_EXIT_IO)
		g->facts.exit = g->run->exit_reason + 1;
	else if (g->run->io.port == PROBE_PORT_DONE)
		ran = RAN_DONE;
	else
		ran = RAN_INTERRUPTED;
	set_alarm(g, 0);
	if (ioctl(g->vcpu, KVM_GET_REGS, &regs)) {
		failed(g);
		return RAN_FAILED;
	}
	o->rax = regs.rax;
	o->left = regs.rdi;
	return ran;
}

static bool make_alarm(struct guest *g)
{
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	struct sigaction sa = { .sa_handler = on_alarm };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	return !sigaction(SIGALRM, &sa, NULL) && !sigprocmask(SIG_UNBLOCK, &set, NULL) &&
	       !timer_create(CLOCK_MONOTONIC, &ev, &g->timer);
}

static bool look_at_api(struct guest *g)
{
	int version;

	begin(g, PROBE_API);
	version = ioctl(g->kvm, KVM_GET_API_VERSION, 0);
	if (version < 0)
		return failed(g);
	g->facts.api = (uint32_t)version;
	if (version != KVM_API_VERSION)
		return false;
	for (unsigned int i = 0; i < kvm_probe_cap_count; i++)
		if (ioctl(g->kvm, KVM_CHECK_EXTENSION, kvm_probe_caps[i].cap) <= 0)
			g->facts.missing |= 1u << i;
	return true;
}

static bool make_machine(struct guest *g)
{
	struct kvm_userspace_memory_region slot = { .memory_size = PAGES * PAGE };
	uint64_t(*memory)[PAGE / 8];

	begin(g, PROBE_VM);
	memory = mmap(NULL, slot.memory_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return failed(g);
	memcpy(memory, kvm_probe_page, PAGE);
	/* A table for each level, the last maps the first 2 MiB. All is accessed and dirty already. */
	memory[CR3 / PAGE][0] = (CR3 + PAGE) | 0x63;
	memory[CR3 / PAGE + 1][0] = (CR3 + 2 * PAGE) | 0x63;
	memory[CR3 / PAGE + 2][0] = 0xe3;
	slot.userspace_addr = (uint64_t)memory;
	g->vm = ioctl(g->kvm, KVM_CREATE_VM, 0);
	if (g->vm < 0 || ioctl(g->vm, KVM_SET_TSS_ADDR, TSS_ADDR) || ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &slot))
		return failed(g);
	return true;
}

static bool make_vcpu(struct guest *g)
{
	const struct kvm_segment data = {
		.limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1
	};
	struct kvm_sregs s;
	int size;

	begin(g, PROBE_VCPU);
	g->vcpu = ioctl(g->vm, KVM_CREATE_VCPU, 0);
	size = ioctl(g->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (g->vcpu < 0 || size < (int)sizeof(*g->run))
		return failed(g);
	g->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	if (g->run == MAP_FAILED || ioctl(g->vcpu, KVM_GET_SREGS, &s))
		return failed(g);
	s.cr3 = CR3;
	s.cr4 = 0x620;	    /* PAE, FXSAVE and exceptions of SSE */
	s.cr0 = 0x80050033; /* long mode, as a kernel has it */
	s.efer = 0x500;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.cs = data;
	s.cs.selector = 8;
	s.cs.type = 11;
	s.cs.db = 0;
	s.cs.l = 1;
	return !ioctl(g->vcpu, KVM_SET_SREGS, &s) || failed(g);
}

static uint64_t native_ns(uint64_t rounds, unsigned int tries)
{
	uint64_t best = UINT64_MAX;

	while (tries--) {
		uint64_t start = now(), took;

		kvm_probe_spin(rounds, 0);
		took = now() - start;
		if (took < best)
			best = took;
	}
	return best ? best : 1;
}

/* Few rounds, twice: does it run at all, and what does leaving it take? */
static bool enter(struct guest *g, uint64_t *exit_ns)
{
	struct outcome_of_run o;

	begin(g, PROBE_ENTER);
	for (int i = 0; i < 2; i++) {
		enum ran ran = go(g, kvm_probe_spin, 1, ENTER_LIMIT, &o);

		g->facts.stuck = ran == RAN_INTERRUPTED;
		if (ran != RAN_DONE)
			return false;
		*exit_ns = o.ns;
	}
	return true;
}

static bool fast_enough(const struct guest *g)
{
	return g->facts.guest >= g->facts.native * PROBE_HARDWARE;
}

/*
 * The processor may have been elsewhere in any one try, so the best counts. One that
 * is good is proof, one that is bad is not: two that agree are taken for it.
 */
static bool conclusive(const struct guest *g, const double best[2], int tries)
{
	if (g->depth == PROBE_QUICK && best[0] >= g->facts.native * PROBE_HARDWARE)
		return true;
	return tries >= TRIES && best[1] >= best[0] * 0.8 && best[1] > 0;
}

/* The loop, here and in the guest. */
static bool time_loop(struct guest *g, uint64_t exit_ns)
{
	uint64_t goal = g->depth == PROBE_FULL ? FULL_LOOP_MIN : LOOP_MIN, rounds = 4096, native, limit;
	double best[2] = { 0, 0 };

	begin(g, PROBE_LOOP);
	if (goal < exit_ns)
		goal = exit_ns < LOOP_MAX ? exit_ns : LOOP_MAX;
	rounds = rounds * goal / native_ns(rounds, TRIES);
	rounds = rounds ? rounds : 1;
	native = native_ns(rounds, TRIES);
	g->facts.native = (double)rounds * 1e3 / (double)native;
	limit = TRY_FACTOR * (native + exit_ns);
	if (limit < TRY_MIN)
		limit = TRY_MIN;
	for (int i = 0; i < MOST_TRIES && !conclusive(g, best, i); i++) {
		struct outcome_of_run o;
		uint64_t ns;
		double speed;

		/* When the first were not enough the machine is busy, and more of the same is no use. */
		if (i >= TRIES && limit < TRY_MAX)
			limit *= 2;
		if (go(g, kvm_probe_spin, rounds, limit, &o) == RAN_FAILED)
			return false;
		if (o.left > rounds)
			o.left = rounds;
		/* Leaving is not part of it. */
		ns = o.ns > exit_ns + native / 2 ? o.ns - exit_ns : native / 2;
		speed = (double)(rounds - o.left) * 1e3 / (double)ns;
		if (speed > best[0]) {
			best[1] = best[0];
			best[0] = speed;
		} else if (speed > best[1]) {
			best[1] = speed;
		}
	}
	g->facts.guest = best[0];
	g->facts.stuck = best[0] <= 0;
	return !g->facts.stuck;
}

static bool try_sse(struct guest *g)
{
	struct outcome_of_run o;
	enum ran ran;

	begin(g, PROBE_SSE);
	ran = go(g, kvm_probe_sse, 0, ENTER_LIMIT, &o);
	g->facts.sse_tried = ran != RAN_INTERRUPTED;
	g->facts.stuck = ran == RAN_INTERRUPTED;
	g->facts.sse = ran == RAN_DONE && (uint32_t)o.rax == PROBE_SSE_SUM;
	return g->facts.sse;
}

/* What one round of a loop of exits takes, at best. */
static bool count_exits(struct guest *g, enum kvm_probe_step step, const void *place, double *each)
{
	begin(g, step);
	for (uint64_t rounds = 4; rounds <= COUNT_MAX; rounds *= 2) {
		struct outcome_of_run o;
		enum ran ran = go(g, place, rounds, ENTER_LIMIT, &o);

		g->facts.stuck = ran == RAN_INTERRUPTED && o.left == rounds;
		if (ran == RAN_FAILED || g->facts.stuck)
			return false;
		if (!*each || (double)o.ns / (double)(rounds - o.left) < *each)
			*each = (double)o.ns / (double)(rounds - o.left);
		if (ran == RAN_INTERRUPTED || o.ns > COUNT_ENOUGH)
			break;
	}
	return true;
}

static bool have_doorbell(struct guest *g)
{
	struct kvm_ioeventfd io = { .addr = PROBE_PORT_DOORBELL,
				    .len = 4,
				    .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
				    .flags = KVM_IOEVENTFD_FLAG_PIO };

	return io.fd >= 0 && !ioctl(g->vm, KVM_IOEVENTFD, &io);
}

static bool look_at_exits(struct guest *g)
{
	return count_exits(g, PROBE_EXITS, kvm_probe_exits, &g->facts.exit_ns) &&
	       (!have_doorbell(g) || count_exits(g, PROBE_DOORBELLS, kvm_probe_doorbells, &g->facts.doorbell_ns)) &&
	       count_exits(g, PROBE_CPUIDS, kvm_probe_cpuids, &g->facts.cpuid_ns);
}

void kvm_probe_guest(int kvm, int answer, enum kvm_probe_depth depth)
{
	struct guest g = { .facts = { .magic = PROBE_MAGIC }, .kvm = kvm, .answer = answer, .depth = depth };
	uint64_t exit_ns;
	bool ok = make_alarm(&g) || failed(&g);

	ok = ok && look_at_api(&g) && make_machine(&g) && make_vcpu(&g) && enter(&g, &exit_ns) &&
	     time_loop(&g, exit_ns);
	/* One that interprets has been found out; the rest is for those with time. */
	if (depth == PROBE_FULL)
		ok = ok && look_at_exits(&g) && try_sse(&g);
	else
		ok = ok && (!fast_enough(&g) || try_sse(&g));
	g.facts.final = 1;
	report(&g);
}

/* The parent. */

/* Neither of these is true of NaN. */
static bool figure(double v)
{
	return v >= 0 && v < 1e12;
}

/* Is it what a child of ours says after `before`? Each step is said once, and the end. */
static bool sane(const struct kvm_probe *f, const struct kvm_probe *before)
{
	return f->magic == PROBE_MAGIC && f->reached < PROBE_STEPS &&
	       (f->reached > before->reached || (f->final && f->reached == before->reached)) && f->err >= 0 &&
	       f->sse <= 1 && f->sse_tried <= 1 && f->stuck <= 1 && f->final <= 1 && !f->silence && figure(f->native) &&
	       figure(f->guest) && figure(f->exit_ns) && figure(f->doorbell_ns) && figure(f->cpuid_ns);
}

#define FD_HIGH 100

static _Noreturn void child(int kvm, int answer, pid_t parent, enum kvm_probe_depth depth, kvm_probe_fn *fn)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (getppid() != parent)
		_exit(1);
	prctl(PR_SET_NAME, "keel-probe", 0, 0, 0);
	/* Who reads our parent's output is not to wait for us. */
	kvm = fcntl(kvm, F_DUPFD, FD_HIGH);
	answer = fcntl(answer, F_DUPFD, FD_HIGH);
	if (kvm < 0 || answer < 0)
		_exit(1);
	syscall(SYS_close_range, 0, FD_HIGH - 1, 0);
	syscall(SYS_close_range, (kvm > answer ? kvm : answer) + 1, ~0u, 0);
	fn(kvm, answer, depth);
	_exit(0);
}

void kvm_probe_start(struct kvm_probe_run *r, const char *path, enum kvm_probe_depth depth, kvm_probe_fn *fn)
{
	int kvm, ends[2] = { -1, -1 };
	const pid_t parent = getpid();

	*r = (struct kvm_probe_run){ .pid = 0, .pidfd = -1, .answer = -1 };
	kvm = open(path, O_RDWR | O_CLOEXEC);
	if (kvm < 0) {
		r->facts.err = errno;
		return;
	}
	if (pipe2(ends, O_CLOEXEC))
		goto fail;
	r->pid = fork();
	if (r->pid < 0)
		goto fail;
	if (!r->pid)
		child(kvm, ends[1], parent, depth, fn);
	r->pidfd = (int)syscall(SYS_pidfd_open, r->pid, 0);
	if (r->pidfd < 0) {
		r->facts.err = errno;
		kill(r->pid, SIGKILL);
		waitpid(r->pid, NULL, 0);
		goto fail_reaped;
	}
	r->answer = ends[0];
	close(ends[1]);
	close(kvm);
	return;
fail:
	r->facts.err = errno;
fail_reaped:
	r->pid = 0;
	if (ends[0] >= 0) {
		close(ends[0]);
		close(ends[1]);
	}
	close(kvm);
}

/* Until readable, or a time; false = it is not. */
static bool await(int fd, uint64_t until)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int n;

	do {
		uint64_t t = now(), left = t < until ? until - t : 0;

		n = poll(&p, 1, (int)((left + MS - 1) / MS));
	} while (n < 0 && errno == EINTR);
	return n > 0;
}

void kvm_probe_wait(struct kvm_probe_run *r, unsigned int ms)
{
	uint64_t until = now() + ms * MS;

	while (r->answer >= 0 && !r->facts.final && !r->facts.silence) {
		struct kvm_probe f;
		ssize_t n;

		if (!await(r->answer, until)) {
			r->facts.silence = PROBE_TOO_LATE;
			break;
		}
		n = read(r->answer, &f, sizeof(f));
		if (n <= 0)
			r->facts.silence = PROBE_DIED;
		else if (n != sizeof(f) || !sane(&f, &r->facts))
			r->facts.silence = PROBE_NONSENSE;
		else
			r->facts = f;
	}
	if (r->answer < 0)
		return;
	close(r->answer);
	r->answer = -1;
	/* It has nothing more to say, and may be stuck. */
	kill(r->pid, SIGKILL);
}

void kvm_probe_end(struct kvm_probe_run *r)
{
	/* The host may be sealed by now, and send no signals; but then the answer was waited for. */
	kvm_probe_wait(r, 0);
	if (!r->pid)
		return;
	/* One that KVM holds in the kernel for good stays behind; there is nothing more to be done to it. */
	if (await(r->pidfd, now() + END_WAIT_MS * MS))
		waitpid(r->pid, NULL, 0);
	close(r->pidfd);
	r->pidfd = -1;
	r->pid = 0;
}

/* For run.c. */

#define QUICK_MS 1000  /* how long `auto` waits */
#define NAMED_MS 10000 /* and who wants no other backend */

static struct kvm_probe_run quick = { .pidfd = -1, .answer = -1 };

static void probe_begin(void)
{
	kvm_probe_start(&quick, KVM_DEVICE, PROBE_QUICK, kvm_probe_guest);
}

static enum backend_fit probe_answer(bool named, struct error *why)
{
	kvm_probe_wait(&quick, named ? NAMED_MS : QUICK_MS);
	return kvm_fit(kvm_judge(&quick.facts, why));
}

static int probe_fd(void)
{
	return quick.pidfd;
}

static void probe_end(void)
{
	kvm_probe_end(&quick);
}

const struct backend_probe kvm_backend_probe = {
	.begin = probe_begin,
	.answer = probe_answer,
	.fd = probe_fd,
	.end = probe_end,
};
