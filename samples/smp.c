// SPDX-License-Identifier: MIT
/*
 * smp - several processors: brought up, each with a stack, data and a timer of its
 * own; called by interrupts; working on private and on shared things; and seeing
 * what becomes of a mapping that another one changes. Run it with --vcpus N; it
 * does the same with one.
 */
#include <hal/hal.h>

#define MS 1000000ull
#define RW (HAL_PROT_R | HAL_PROT_W)
#define VA 0x200000000000ull
#define STACK_SIZE 16384
#define WORDS 100000u
#define ROUNDS 500u
#define CHUNKS 1000u

/* What hal_percpu() points to, a cache line or two for each. */
static struct cpu {
	unsigned int number;
	volatile bool up;
	/* The call it is asked to make. */
	void (*fn)(struct cpu *cpu);
	volatile unsigned int asked, done;
	uint64_t sum, chunks, work;
	volatile unsigned int fired;
	volatile uint64_t stores;
} cpus[HAL_CPU_MAX] __attribute__((aligned(128)));

static char stacks[HAL_CPU_MAX][STACK_SIZE] __attribute__((aligned(16)));
static unsigned int count;
static uint64_t all;	    /* bit for each CPU */
static volatile bool leave; /* the others are to stop */
static uint64_t page;	    /* four free physical pages */
static int failures;

static void check(bool ok, const char *what)
{
	hal_printf("%s: %s\n", ok ? "ok" : "FAILED", what);
	failures += !ok;
}

static struct cpu *this_cpu(void)
{
	return hal_percpu();
}

/* ----------------------------------------------------------------- calls */

/* The interrupt by which a CPU is told that there is something to do for it. */
static void on_call(struct hal_frame *frame, void *arg)
{
	struct cpu *cpu = this_cpu();
	unsigned int asked = __atomic_load_n(&cpu->asked, __ATOMIC_ACQUIRE);

	(void)frame;
	(void)arg;
	if (asked == cpu->done)
		return;
	cpu->fn(cpu);
	__atomic_store_n(&cpu->done, asked, __ATOMIC_RELEASE);
}

/* Have CPUs make a call, this one among them if it is asked for. */
static void call_begin(uint64_t who, void (*fn)(struct cpu *cpu))
{
	for (unsigned int n = 0; n < count; n++) {
		if (!(who >> n & 1))
			continue;
		cpus[n].fn = fn;
		__atomic_store_n(&cpus[n].asked, cpus[n].done + 1, __ATOMIC_RELEASE);
	}
	if (hal_irq_send(who, HAL_IRQ_SOFT0))
		hal_panic("cannot send to CPUs 0x%lx", who);
}

static void call_end(uint64_t who)
{
	for (unsigned int n = 0; n < count; n++) {
		while (who >> n & 1 && __atomic_load_n(&cpus[n].done, __ATOMIC_ACQUIRE) != cpus[n].asked)
			hal_cpu_relax();
	}
}

static void call(uint64_t who, void (*fn)(struct cpu *cpu))
{
	call_begin(who, fn);
	call_end(who);
}

/* -------------------------------------------------------------- bring-up */

static void on_timer(struct hal_frame *frame, void *arg)
{
	(void)frame;
	(void)arg;
	this_cpu()->fired++;
}

/* Life of every CPU but the first: asleep, unless it is called. */
static void cpu_main(void *arg)
{
	struct cpu *cpu = arg;

	hal_percpu_set(cpu);
	hal_irq_unmask(HAL_IRQ_SOFT0);
	hal_irq_unmask(HAL_IRQ_TIMER);
	__atomic_store_n(&cpu->up, true, __ATOMIC_RELEASE);
	for (;;) {
		hal_irq_disable();
		if (leave)
			break;
		hal_wait(HAL_NEVER);
	}
	cpu->up = false;
}

static bool bring_up(void)
{
	bool ok = true;

	leave = false;
	for (unsigned int n = 1; n < count; n++)
		ok &= !hal_cpu_start(n, stacks[n] + STACK_SIZE, cpu_main, &cpus[n]);
	for (unsigned int n = 1; ok && n < count; n++) {
		while (!__atomic_load_n(&cpus[n].up, __ATOMIC_ACQUIRE))
			hal_cpu_relax();
	}
	return ok;
}

static void nothing(struct cpu *cpu)
{
	(void)cpu;
}

static void bring_down(void)
{
	leave = true;
	if (all & ~1ull)
		hal_irq_send(all & ~1ull, HAL_IRQ_SOFT0);
	for (unsigned int n = 1; n < count; n++) {
		while (hal_cpu_running(n))
			hal_cpu_relax();
	}
}

static volatile unsigned int wrong;

static void who_am_i(struct cpu *cpu)
{
	char here;

	if (hal_cpu_number() != cpu->number || hal_cpu()->number != cpu->number || hal_irq_enabled())
		wrong++;
	if (cpu->number && (&here < stacks[cpu->number] || &here >= stacks[cpu->number] + STACK_SIZE))
		wrong++;
}

/* ------------------------------------------------------------------ work */

static uint32_t words[WORDS];

/* Its own part of the words, into its own sum. */
static void sum_part(struct cpu *cpu)
{
	uint64_t sum = 0;

	for (uint32_t i = cpu->number * WORDS / count; i < (cpu->number + 1) * WORDS / count; i++)
		sum += words[i];
	cpu->sum = sum;
}

static unsigned int lock;
static uint64_t shared; /* under the lock, and changed in a way that is not atomic */

static void add_shared(struct cpu *cpu)
{
	(void)cpu;
	for (unsigned int i = 0; i < ROUNDS; i++) {
		while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
			hal_cpu_relax();
		*(volatile uint64_t *)&shared = shared + 1;
		__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
	}
}

static unsigned int next_chunk;
static uint8_t taken[CHUNKS];

/* Chunks of work for whoever comes first. */
static void take_chunks(struct cpu *cpu)
{
	unsigned int n;

	cpu->chunks = 0;
	while ((n = __atomic_fetch_add(&next_chunk, 1, __ATOMIC_RELAXED)) < CHUNKS) {
		for (volatile unsigned int i = 0; i < 200; i++)
			;
		taken[n]++;
		cpu->chunks++;
	}
}

static void work(void)
{
	uint64_t want = 0, got = 0, chunks = 0;
	bool once = true;

	for (uint32_t i = 0; i < WORDS; i++) {
		words[i] = i * 2654435761u;
		want += words[i];
	}
	call(all, sum_part);
	for (unsigned int n = 0; n < count; n++)
		got += cpus[n].sum;
	check(got == want, "a sum, a part of it on each CPU");
	call(all, add_shared);
	check(shared == (uint64_t)ROUNDS * count, "a counter under a lock");
	call(all, take_chunks);
	for (unsigned int i = 0; i < CHUNKS; i++)
		once &= taken[i] == 1;
	for (unsigned int n = 0; n < count; n++) {
		chunks += cpus[n].chunks;
		hal_printf("# CPU %u did %lu chunks\n", n, cpus[n].chunks);
	}
	check(once && chunks == CHUNKS, "a queue of work, each piece done once");
}

/* ------------------------------------------------------------ interrupts */

static void set_timer(struct cpu *cpu)
{
	cpu->fired = 0;
	hal_timer_set(hal_clock_ns() + (1 + cpu->number) * MS);
}

static void interrupts(void)
{
	uint64_t start, end;
	bool fired;

	start = hal_clock_ns();
	for (unsigned int i = 0; i < 100; i++)
		call(1ull << (count - 1), nothing);
	hal_printf("# %lu ns for a call on another CPU\n", (hal_clock_ns() - start) / 100);
	check(true, "100 calls, one after the other");
	for (unsigned int i = 0; i < 100; i++)
		call(all, nothing);
	check(true, "100 calls of all CPUs at once");
	call(all, set_timer);
	end = hal_clock_ns() + 5000 * MS;
	do {
		fired = true;
		for (unsigned int n = 0; n < count; n++)
			fired &= cpus[n].fired == 1;
		hal_cpu_relax();
	} while (!fired && hal_clock_ns() < end);
	check(fired, "timers, one on each CPU");
}

/* -------------------------------------------------------------- mappings */

static volatile bool storing;

/* Stores to a page, in a loop. */
static void store(struct cpu *cpu)
{
	volatile uint64_t *p = (volatile uint64_t *)VA + cpu->number;

	/* One instruction: what it loaded it stores to the same page. */
	while (storing) {
		__asm__ volatile("incq %0" : "+m"(*p));
		cpu->stores++;
	}
}

static bool on_fault(struct hal_frame *frame)
{
	/* A page that was taken away is given back by the one it faulted on. */
	__atomic_fetch_add(&this_cpu()->work, 1, __ATOMIC_RELAXED);
	return frame->addr >= VA && frame->addr < VA + HAL_PAGE_SIZE && hal_map(VA, page, HAL_PAGE_SIZE, RW, 0) == 0;
}

static uint64_t stores_in(uint64_t pa)
{
	volatile uint64_t *p = hal_pa_to_va(pa);
	uint64_t sum = 0;

	for (unsigned int n = 0; n < count; n++)
		sum += p[n];
	return sum;
}

static void mappings(void)
{
	uint64_t others = all & ~1ull, old, faults = 0, pa;
	unsigned int prot;
	bool quiet = true, every = true;

	for (unsigned int i = 0; i < 2 * HAL_PAGE_SIZE / 8; i++)
		((uint64_t *)hal_pa_to_va(page))[i] = 0;
	hal_map(VA, page, HAL_PAGE_SIZE, RW, 0);
	storing = true;
	call_begin(others, store);
	for (unsigned int i = 0; i < 20; i++) {
		uint64_t from = page + i % 2 * HAL_PAGE_SIZE, to = page + (i + 1) % 2 * HAL_PAGE_SIZE;

		for (uint64_t end = hal_clock_ns() + MS / 2; hal_clock_ns() < end;)
			hal_cpu_relax();
		hal_map(VA, to, HAL_PAGE_SIZE, RW, 0);
		/* From here on nobody stores to the old page, wherever it runs. */
		old = stores_in(from);
		for (uint64_t end = hal_clock_ns() + MS / 5; hal_clock_ns() < end;)
			;
		quiet &= stores_in(from) == old;
	}
	storing = false;
	call_end(others);
	check(quiet, "a page replaced under the others is replaced for them all at once");
	old = stores_in(page) + stores_in(page + HAL_PAGE_SIZE);
	for (unsigned int n = 1; n < count; n++)
		old -= cpus[n].stores;
	check(!old, "and no store was lost");

	hal_trap_handler(HAL_VEC_PF, on_fault);
	storing = true;
	call_begin(others, store);
	for (unsigned int i = 0; i < 10 && others; i++) {
		hal_unmap(VA, HAL_PAGE_SIZE);
		for (uint64_t end = hal_clock_ns() + 5000 * MS; hal_query(VA, &pa, &prot) && hal_clock_ns() < end;)
			hal_cpu_relax();
		every &= !hal_query(VA, &pa, &prot);
	}
	storing = false;
	call_end(others);
	for (unsigned int n = 1; n < count; n++)
		faults += cpus[n].work;
	check(every && (!others || faults >= 10),
	      "a page taken away faults on the others, is given back, and they go on");
	hal_printf("# %lu page faults\n", faults);
	hal_trap_handler(HAL_VEC_PF, NULL);
	hal_unmap(VA, HAL_PAGE_SIZE);
}

int hal_main(void)
{
	struct hal_mem m;

	for (unsigned int i = 0; hal_memmap(i, &m); i++) {
		if (m.type == HAL_MEM_RAM && m.len >= 4 * HAL_PAGE_SIZE)
			page = m.pa + m.len - 4 * HAL_PAGE_SIZE;
	}
	count = hal_cpu_count();
	all = (1ull << count) - 1;
	for (unsigned int n = 0; n < count; n++)
		cpus[n].number = n;
	hal_percpu_set(&cpus[0]);
	hal_irq_handler(HAL_IRQ_SOFT0, on_call, NULL);
	hal_irq_handler(HAL_IRQ_TIMER, on_timer, NULL);
	hal_irq_enable();

	hal_printf("# %u CPUs\n", count);
	check(bring_up(), "every CPU has come up");
	call(all, who_am_i);
	check(!wrong, "each with its number, its data and its stack");
	work();
	interrupts();
	mappings();
	bring_down();
	check(bring_up(), "all stopped, and started again");
	call(all, who_am_i);
	check(!wrong, "as they were before");
	bring_down();
	hal_printf("smp: %d failures\n", failures);
	return failures != 0;
}
