// SPDX-License-Identifier: MIT
/*
 * A guest of several vCPUs, for run_test.py. The command line says what they do, "NAME"
 * or "NAME ROUNDS"; what is wrong ends the partition with a panic, a lost wake-up by
 * its time limit. The exit code is 0.
 */
#include <hypercall/guest.h>

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(TRAP) | KEEL_NEEDS(EVENT) | KEEL_NEEDS(TIME) | KEEL_NEEDS(VCPU) |
			 KEEL_NEEDS(CONSOLE),
		 0, KEEL_U64(1) << KEEL_F1_SMP, 0);

#define MAX 16
#define STACK 32768

struct cpu {
	keel_u64 stack_top;
	/* What it was started with: rax rbx rcx rdx rsi rdi rbp rsp r8 to r15, xmm0, xmm15, rflags, MXCSR, FCW. */
	keel_u64 reg[16];
	keel_u64 xmm[4];
	keel_u64 rflags;
	keel_u32 mxcsr, fcw;
	keel_u8 irq;
	keel_u32 id;
	keel_u32 port;
	keel_u32 seed;
	volatile keel_u64 got;	/* events taken */
	volatile keel_u64 ran;	/* times it was started */
	volatile keel_u64 turn; /* what another one is to see of it */
};
_Static_assert(offsetof(struct cpu, reg) == 8 && offsetof(struct cpu, xmm) == 136 &&
		       offsetof(struct cpu, rflags) == 168 && offsetof(struct cpu, mxcsr) == 176 &&
		       offsetof(struct cpu, fcw) == 180,
	       "smp_entry");

static struct cpu cpus[MAX];
static unsigned char stacks[MAX][STACK] __attribute__((aligned(64)));
static keel_u32 count;
static keel_u64 rounds;
static volatile keel_u32 stop;
static void (*job)(struct cpu *c);

void smp_begin(struct cpu *c);
extern char smp_entry[];
__asm__(".pushsection .text\n"
	"smp_entry:\n"
	"	endbr64\n"
	"	movq	%rax, 8(%rdi)\n"
	"	movq	%rbx, 16(%rdi)\n"
	"	movq	%rcx, 24(%rdi)\n"
	"	movq	%rdx, 32(%rdi)\n"
	"	movq	%rsi, 40(%rdi)\n"
	"	movq	%rdi, 48(%rdi)\n"
	"	movq	%rbp, 56(%rdi)\n"
	"	movq	%rsp, 64(%rdi)\n"
	"	movq	%r8, 72(%rdi)\n"
	"	movq	%r9, 80(%rdi)\n"
	"	movq	%r10, 88(%rdi)\n"
	"	movq	%r11, 96(%rdi)\n"
	"	movq	%r12, 104(%rdi)\n"
	"	movq	%r13, 112(%rdi)\n"
	"	movq	%r14, 120(%rdi)\n"
	"	movq	%r15, 128(%rdi)\n"
	"	movdqu	%xmm0, 136(%rdi)\n"
	"	movdqu	%xmm15, 152(%rdi)\n"
	"	stmxcsr	176(%rdi)\n"
	"	movl	$0, 180(%rdi)\n"
	"	fnstcw	180(%rdi)\n"
	"	movq	(%rdi), %rsp\n"
	"	pushfq\n"
	"	popq	168(%rdi)\n"
	"	xorl	%ebp, %ebp\n"
	"	call	smp_begin\n"
	".popsection\n");

/* Leave nothing a start may forget to take away. */
static void spoil(void)
{
	static const keel_u32 mxcsr = 0x1fbf;
	static const keel_u16 fcw = 0x27f;

	__asm__ volatile("pcmpeqd %%xmm0, %%xmm0; movdqa %%xmm0, %%xmm15; ldmxcsr %0; fldcw %1; fld1; stc; std; cld"
			 :
			 : "m"(mxcsr), "m"(fcw)
			 : "memory");
}

void smp_begin(struct cpu *c)
{
	for (unsigned int i = 0; i < 16; i++)
		if (i != 5)
			keel_assert(!c->reg[i]);
	keel_assert(c->reg[5] == (keel_u64)c);
	keel_assert(!(c->rflags & 0x40cd5));
	for (unsigned int i = 0; i < 4; i++)
		keel_assert(!c->xmm[i]);
	keel_assert(c->mxcsr == 0x1f80 && c->fcw == 0x37f);
	keel_assert(!keel_irq_enabled());
	keel_assert(keel_vcpu_page()->id == c->id && keel_vcpu_page() == (void *)keel_vcpu_page()->self);
	c->ran++;
	job(c);
	spoil();
	keel_vcpu_stop(c->id);
	keel_panic("vCPU %u goes on after it stopped itself", c->id);
}

static void start(struct cpu *c)
{
	keel_must(keel_vcpu_start(c->id, (keel_u64)smp_entry, (keel_u64)c));
}

static bool stopped(struct cpu *c)
{
	return keel_must(keel_vcpu_info(c->id, KEEL_VCPU_INFO_STATE)) == KEEL_VCPU_STOPPED;
}

static void await_stopped(struct cpu *c)
{
	while (!stopped(c))
		keel_vcpu_yield(KEEL_VCPU_ANY);
}

/* Beside vCPUs that spin, one that yields waits for its turn each time; one that slept gets it soon. */
static void doze(void)
{
	keel_vcpu_wait(keel_time() + 50000);
}

static void make_stop(struct cpu *c)
{
	struct keel_ret r;

	while ((r = keel_vcpu_stop(c->id)).status == KEEL_STATUS(KEEL_E_AGAIN, 0))
		doze();
	keel_must(r);
	keel_assert(stopped(c));
}

static keel_u32 dice(struct cpu *c)
{
	c->seed = c->seed * 1103515245 + 12345;
	return c->seed >> 16;
}

/* Events */

static void on_event(void *arg, keel_u32 bit)
{
	struct cpu *c = arg;

	keel_assert(keel_vcpu_page()->id == c->id && bit == KEEL_PORT_BIT(c->port));
	c->got++;
}

/* Of each vCPU the first port it allocates has the same bit: one handler finds its vCPU. */
static void on_any(void *arg, keel_u32 bit)
{
	(void)arg;
	on_event(&cpus[keel_vcpu_page()->id], bit);
}

static void own_port(struct cpu *c)
{
	if (!c->port) {
		keel_u32 port = (keel_u32)keel_must(keel_event_alloc(0));

		keel_event_handler(KEEL_PORT_BIT(port), on_any, NULL);
		c->port = port;
		keel_must(keel_event_unmask(keel_port(port)));
	}
	keel_assert(!keel_event_init());
}

static void send(struct cpu *to)
{
	keel_must(keel_event_send(keel_port(to->port)));
}

/* Sleep until `got` is beyond what it was. IF is off before and after. */
static void await_event(struct cpu *c, keel_u64 was)
{
	while (c->got == was) {
		keel_wait();
		keel_irq_disable();
	}
}

/* Starts all the others at their job, and joins them in it. */
static void all(void (*fn)(struct cpu *c))
{
	job = fn;
	for (keel_u32 i = 1; i < count; i++)
		start(&cpus[i]);
	fn(&cpus[0]);
	for (keel_u32 i = 1; i < count; i++)
		await_stopped(&cpus[i]);
}

static void barrier(struct cpu *c)
{
	static volatile keel_u32 arrived, generation;
	keel_u32 was = generation;

	(void)c;
	if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == count) {
		arrived = 0;
		__atomic_add_fetch(&generation, 1, __ATOMIC_SEQ_CST);
	}
	while (generation == was)
		keel_vcpu_yield(KEEL_VCPU_ANY);
}

static void ports_job(struct cpu *c)
{
	own_port(c);
	barrier(c);
}

/* What they do */

static void nothing(struct cpu *c)
{
	(void)c;
}

/* Every vCPU starts and stops itself again and again, all at once. */
static void run_start(void)
{
	job = nothing;
	for (keel_u64 n = 0; n < rounds; n++) {
		for (keel_u32 i = 1; i < count; i++)
			start(&cpus[i]);
		for (keel_u32 i = 1; i < count; i++)
			await_stopped(&cpus[i]);
	}
	for (keel_u32 i = 1; i < count; i++)
		keel_assert(cpus[i].ran == rounds);
}

static void busy(struct cpu *c)
{
	own_port(c);
	switch (dice(c) % 4) {
	case 0: /* in the guest */
		for (;;)
			c->turn++;
	case 1: /* in calls that are local */
		for (;;)
			keel_base_nop();
	case 2: /* in calls to the host */
		for (;;)
			keel_base_ping(c->turn++);
	case 3: /* asleep */
		for (;;)
			keel_vcpu_wait(KEEL_TIME_NEVER);
	}
}

/* They are stopped wherever they are. */
static void run_stop(void)
{
	job = busy;
	for (keel_u64 n = 0; n < rounds; n++) {
		for (keel_u32 i = 1; i < count; i++)
			start(&cpus[i]);
		for (unsigned int w = dice(&cpus[0]) % 8; w; w--)
			doze();
		for (keel_u32 i = 1; i < count; i++)
			make_stop(&cpus[i]);
	}
	/* Some were stopped before their first instruction. */
	for (keel_u32 i = 1; i < count; i++)
		keel_assert(cpus[i].ran && cpus[i].ran <= rounds);
}

/* A token goes round; everybody sleeps until it comes. */
static void ring_job(struct cpu *c)
{
	struct cpu *next = &cpus[(c->id + 1) % count];

	ports_job(c);
	for (keel_u64 n = 0; n < rounds; n++) {
		if (c->id || n)
			await_event(c, n - !c->id);
		send(next);
	}
	if (!c->id)
		await_event(c, rounds - 1);
	barrier(c);
	keel_assert(c->got == rounds);
}

static void run_ring(void)
{
	all(ring_job);
}

/*
 * Each sends to any other, and after each send sleeps until the receiver has answered. An
 * event is a request and an answer at once: `turn` says how many a vCPU has seen of each.
 */
static volatile keel_u64 asked[MAX][MAX], answered[MAX][MAX];

static void serve(struct cpu *c)
{
	for (keel_u32 i = 0; i < count; i++)
		if (answered[c->id][i] != asked[i][c->id]) {
			answered[c->id][i] = asked[i][c->id];
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
			send(&cpus[i]);
		}
}

static keel_u32 finished;

static void storm_job(struct cpu *c)
{
	ports_job(c);
	for (keel_u64 n = 0; n < rounds; n++) {
		struct cpu *to = &cpus[dice(c) % count];
		keel_u64 was;

		asked[c->id][to->id]++;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		send(to);
		for (;;) {
			was = c->got;
			serve(c);
			if (answered[to->id][c->id] == asked[c->id][to->id])
				break;
			await_event(c, was);
		}
	}
	/* Go on answering until nobody asks any more. */
	if (__atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST) == count)
		for (keel_u32 i = 0; i < count; i++)
			send(&cpus[i]);
	for (;;) {
		keel_u64 was = c->got;

		serve(c);
		if (__atomic_load_n(&finished, __ATOMIC_SEQ_CST) == count)
			break;
		await_event(c, was);
	}
}

static void run_storm(void)
{
	all(storm_job);
}

/* Wake-ups by timers of their own, all at once. */
static void on_timer(void *arg, keel_u32 bit)
{
	(void)arg, (void)bit;
	cpus[keel_vcpu_page()->id].got++;
}

static void timers_job(struct cpu *c)
{
	const keel_u64 step = 200000;

	own_port(c);
	keel_assert(!keel_timer_init(on_timer, NULL));
	barrier(c);
	for (keel_u64 n = 0; n < rounds; n++) {
		const keel_u64 at = keel_time() + step + dice(c);

		keel_assert(!keel_timer_at(at));
		await_event(c, n);
		keel_assert(keel_time() >= at);
	}
}

static void run_timers(void)
{
	all(timers_job);
}

static void idle_job(struct cpu *c)
{
	ports_job(c);
	if (!c->id)
		keel_puts("idle");
	for (;;)
		keel_vcpu_wait(KEEL_TIME_NEVER);
}

static void run_idle(void)
{
	all(idle_job);
}

/* As many yields as there are rounds, while the others spin. */
static void spin_job(struct cpu *c)
{
	if (c->id) {
		while (!stop)
			c->turn++;
		return;
	}
	for (keel_u64 n = 0; n < rounds; n++)
		keel_must(keel_vcpu_yield(n % 2 ? n / 2 % count : KEEL_VCPU_ANY));
	stop = 1;
}

static void run_yield(void)
{
	all(spin_job);
}

/* Remote calls of all at once; each gets its own answer. */
static void ping_job(struct cpu *c)
{
	for (keel_u64 n = 0; n < rounds; n++)
		keel_assert(keel_must(keel_base_ping(n << 8 | c->id)) == (n << 8 | c->id));
}

static void run_ping(void)
{
	all(ping_job);
}

static void crash_job(struct cpu *c)
{
	if (c->id == count - 1)
		__asm__ volatile("ud2");
	for (;;)
		keel_vcpu_wait(KEEL_TIME_NEVER);
}

static void run_crash(void)
{
	all(crash_job);
}

static void loop_job(struct cpu *c)
{
	if (!c->id)
		keel_puts("spinning");
	for (;;)
		c->turn++;
}

static void run_spin(void)
{
	all(loop_job);
}

/* What a send costs, and a wake-up there and back: with rounds of them. */
static void run_cost(void)
{
	keel_u64 t = keel_time();

	run_ring();
	t = keel_time() - t;
	keel_printf("%lu ns a hop\n", (long)(t / (rounds * count)));
}

static const struct {
	const char *name;
	keel_u64 rounds;
	void (*run)(void);
} jobs[] = {
	{ "start", 1000, run_start },  { "stop", 1000, run_stop },    { "ring", 1000, run_ring },
	{ "storm", 10000, run_storm }, { "timers", 200, run_timers }, { "idle", 0, run_idle },
	{ "yield", 1000, run_yield },  { "ping", 1000, run_ping },    { "crash", 0, run_crash },
	{ "spin", 0, run_spin },       { "cost", 10000, run_cost },
};

int keel_main(const struct keel_start *start_info)
{
	const char *word = keel_start_cmdline(start_info);

	count = (keel_u32)keel_must(keel_base_limit(KEEL_LIMIT_VCPUS));
	keel_assert(count <= MAX);
	for (keel_u32 i = 0; i < count; i++) {
		cpus[i].id = i;
		cpus[i].seed = i + 1;
		cpus[i].stack_top = (keel_u64)(stacks[i] + STACK);
	}
	for (unsigned int i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++) {
		const char *w = word, *n = jobs[i].name;

		while (*n && *w == *n)
			w++, n++;
		if (*n || (*w && *w != ' '))
			continue;
		rounds = 0;
		for (; *w; w++)
			if (*w >= '0' && *w <= '9')
				rounds = rounds * 10 + (keel_u64)(*w - '0');
		if (!rounds)
			rounds = jobs[i].rounds;
		jobs[i].run();
		return 0;
	}
	keel_panic("no such job: %s", word);
}
