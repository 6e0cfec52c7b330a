// SPDX-License-Identifier: MIT
/*
 * shell - a small interactive kernel: page allocator and areas on batched
 * mappings, software timers on the one-shot timer, preemptive threads switched
 * from its interrupt, a line editor on the console's input event, and processes
 * (process.c) that run programs out of an archive: the one given by --initrd, else
 * one that is part of the image. With "tour" on the command line it plays a script,
 * powers off and exits 0.
 *
 * Written to hal.h alone. One lock: preempt_off, because there is one CPU and
 * interrupt handlers touch only timers and run states.
 */
#include "process.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MS 1000000ull
#define RW (HAL_PROT_R | HAL_PROT_W)

static uint64_t boot_ns;
static unsigned int preempt_off; /* > 0: the running thread is not preempted */

static bool str_equal(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

static size_t str_len(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

/* Decimal number at *s, `otherwise` when there is none. */
static uint64_t number(const char *s, uint64_t otherwise)
{
	uint64_t v = 0;

	if (*s < '0' || *s > '9')
		return otherwise;
	while (*s >= '0' && *s <= '9' && v < UINT32_MAX)
		v = v * 10 + (uint64_t)(*s++ - '0');
	return v;
}

/* ----------------------------------------------------------------- pages */

/*
 * Free physical pages: never used ones from a range, returned ones from a list
 * through their first word. Taking a page from the range does not touch it, so
 * memory not used costs the host nothing.
 */
static uint64_t pool_next, pool_end, pool_total, returned, returned_count;

static void pool_init(void)
{
	struct hal_mem m;

	for (unsigned int i = 0; hal_memmap(i, &m); i++) {
		if (m.type == HAL_MEM_RAM && m.len > pool_end - pool_next) {
			pool_next = m.pa;
			pool_end = m.pa + m.len;
		}
	}
	pool_total = (pool_end - pool_next) / HAL_PAGE_SIZE;
}

static uint64_t pages_free(void)
{
	return (pool_end - pool_next) / HAL_PAGE_SIZE + returned_count;
}

uint64_t page_get(void)
{
	uint64_t pa = returned;

	if (pa) {
		returned = *(uint64_t *)hal_pa_to_va(pa);
		returned_count--;
		return pa;
	}
	if (pool_next == pool_end)
		return 0;
	pa = pool_next;
	pool_next += HAL_PAGE_SIZE;
	return pa;
}

void page_put(uint64_t pa)
{
	*(uint64_t *)hal_pa_to_va(pa) = returned;
	returned = pa;
	returned_count++;
}

/* ----------------------------------------------------------------- areas */

/* Areas of virtual memory, each in a slot of address space with a guard page below it. */
#define AREA_VA 0x200000000000ull
#define AREA_SLOT (64ull << 20)
#define AREA_PAGES (AREA_SLOT / HAL_PAGE_SIZE - 1)
#define AREAS 64

static struct area {
	uint64_t pages;
	const char *what;
} areas[AREAS];

static uint64_t area_base(const struct area *a)
{
	return AREA_VA + (uint64_t)(a - areas) * AREA_SLOT + HAL_PAGE_SIZE;
}

static void area_free(struct area *a)
{
	uint64_t base = area_base(a), pa;
	unsigned int prot;

	preempt_off++;
	for (uint64_t i = 0; i < a->pages; i++) {
		if (!hal_query(base + i * HAL_PAGE_SIZE, &pa, &prot))
			page_put(pa);
	}
	if (a->pages)
		hal_unmap(base, a->pages * HAL_PAGE_SIZE);
	a->pages = 0;
	a->what = NULL;
	preempt_off--;
}

/* Map `pages` pages somewhere: page by page in one lazy section, so the HAL finds the runs. */
static struct area *area_alloc(uint64_t pages, const char *what)
{
	struct area *a = NULL;
	int err;

	preempt_off++;
	for (unsigned int i = 0; i < AREAS && !a; i++) {
		if (!areas[i].what)
			a = &areas[i];
	}
	if (!a || !pages || pages > AREA_PAGES || pages > pages_free()) {
		preempt_off--;
		return NULL;
	}
	a->what = what;
	a->pages = pages;
	hal_lazy_enter();
	for (uint64_t i = 0; i < pages; i++)
		hal_set_pte(area_base(a) + i * HAL_PAGE_SIZE, page_get() | RW);
	err = hal_lazy_leave();
	preempt_off--;
	if (!err)
		return a;
	hal_printf("mapping failed: error %d\n", -err);
	area_free(a);
	return NULL;
}

/* --------------------------------------------------------------- threads */

#define THREADS 8
#define STACK_PAGES 4
#define SLICE (1 * MS)

static struct thread {
	enum { UNUSED, RUNNABLE, BLOCKED, FINISHED } state;
	const char *name;
	uint64_t rsp;
	struct area *stack;
	void (*fn)(void *arg);
	void *arg;
	uint64_t switches; /* times switched to */
	volatile uint64_t work;
} threads[THREADS];

/* Thread 0 is the shell, on the boot stack. Another one runs all processes, from the first on. */
static struct thread *current = &threads[0], *process_thread;
static bool idling, want_switch;
static uint64_t slice_end = HAL_NEVER, preemptions;

static void timers_program(void);

static struct thread *next_runnable(void)
{
	unsigned int from = (unsigned int)(current - threads);

	for (unsigned int i = 1; i <= THREADS; i++) {
		struct thread *t = &threads[(from + i) % THREADS];

		if (t->state == RUNNABLE)
			return t;
	}
	return NULL;
}

/* Run someone else if there is someone; sleep while nobody can run. Interrupts off. */
static void schedule(void)
{
	struct thread *old = current, *next;

	while (!(next = next_runnable())) {
		idling = true;
		timers_program();
		hal_wait(HAL_NEVER);
		hal_irq_disable();
		idling = false;
	}
	want_switch = false;
	current = next;
	slice_end = hal_clock_ns() + SLICE;
	timers_program();
	if (next == old)
		return;
	next->switches++;
	hal_switch(&old->rsp, next->rsp);
}

static void yield(void)
{
	bool irq = hal_irq_save();

	schedule();
	hal_irq_restore(irq);
}

static void wake(struct thread *t)
{
	if (t->state != BLOCKED)
		return;
	t->state = RUNNABLE;
	/* With a second one to run, slices begin to matter. */
	if (!idling)
		timers_program();
}

/* After every interrupt: the only place where a thread loses the CPU against its will. */
static void preempt(struct hal_frame *frame)
{
	(void)frame;
	if (!want_switch || idling)
		return;
	/* A process is left first, see process_main(). */
	process_slice_over = current == process_thread;
	if (preempt_off)
		return;
	preemptions++;
	schedule();
}

static void thread_start(void *arg)
{
	struct thread *t = arg;

	t->fn(t->arg);
	hal_irq_disable();
	t->state = FINISHED;
	schedule();
}

static struct thread *thread_create(const char *name, void (*fn)(void *arg), void *arg)
{
	struct thread *t = NULL;

	for (unsigned int i = 1; i < THREADS && !t; i++) {
		if (threads[i].state == UNUSED)
			t = &threads[i];
	}
	if (!t)
		return NULL;
	*t = (struct thread){ .name = name, .fn = fn, .arg = arg };
	t->stack = area_alloc(STACK_PAGES, name);
	if (!t->stack)
		return NULL;
	t->rsp = hal_stack_prepare((void *)(area_base(t->stack) + STACK_PAGES * HAL_PAGE_SIZE), thread_start, t);
	t->state = RUNNABLE;
	return t;
}

/* Wait for a thread's end and release it. */
static void thread_join(struct thread *t)
{
	while (t->state != FINISHED)
		yield();
	area_free(t->stack);
	t->state = UNUSED;
}

/* ---------------------------------------------------------------- timers */

struct timer {
	uint64_t at;
	void (*fn)(void *arg);
	void *arg;
	struct timer *next;
};

static struct timer *timers; /* sorted by deadline */

/* One hardware deadline for software timers and the slice; none when there is nothing to do: no tick. */
static void timers_program(void)
{
	static uint64_t programmed = HAL_NEVER;
	uint64_t at = timers ? timers->at : HAL_NEVER;

	if (!idling && slice_end < at && (next_runnable() != current || current == process_thread))
		at = slice_end;
	if (at == programmed && at > hal_clock_ns())
		return;
	programmed = at;
	hal_timer_set(at);
}

static void timer_add(struct timer *t, uint64_t at, void (*fn)(void *arg), void *arg)
{
	bool irq = hal_irq_save();
	struct timer **p = &timers;

	t->at = at;
	t->fn = fn;
	t->arg = arg;
	while (*p && (*p)->at <= at)
		p = &(*p)->next;
	t->next = *p;
	*p = t;
	timers_program();
	hal_irq_restore(irq);
}

static void on_timer(struct hal_frame *frame, void *arg)
{
	uint64_t now = hal_clock_ns();

	(void)frame;
	(void)arg;
	while (timers && timers->at <= now) {
		struct timer *t = timers;

		timers = t->next;
		t->fn(t->arg);
	}
	if (slice_end <= now) {
		want_switch = true;
		slice_end = now + SLICE;
	}
	timers_program();
}

static void wake_timer(void *arg)
{
	wake(arg);
}

static void sleep_until(uint64_t at)
{
	struct timer t;

	hal_irq_disable();
	current->state = BLOCKED;
	timer_add(&t, at, wake_timer, current);
	schedule();
	hal_irq_enable();
}

/* ----------------------------------------------------------------- input */

static void on_input(struct hal_frame *frame, void *arg)
{
	(void)frame;
	(void)arg;
	wake(&threads[0]);
}

/* Input that came while the shell waited for a process. */
static char ahead[1024];
static unsigned int ahead_in, ahead_out;

static int get_char(void)
{
	int c;

	if (ahead_out < ahead_in)
		return (unsigned char)ahead[ahead_out++];
	ahead_in = ahead_out = 0;
	for (;;) {
		hal_irq_disable();
		c = hal_getc();
		if (c >= 0)
			break;
		current->state = BLOCKED;
		schedule();
	}
	hal_irq_enable();
	return c;
}

#define LINE 128
#define HISTORY 16

static char history[HISTORY][LINE];
static unsigned int history_count;

static const char *complete(const char *prefix, size_t len);

/* Show the line again, cursor at `at`. */
static void redraw(const char *prompt, const char *line, size_t at)
{
	hal_printf("\r\033[K%s%s", prompt, line);
	if (line[at])
		hal_printf("\033[%luD", str_len(line + at));
}

static void line_set(char *line, const char *from, size_t *len, size_t *at)
{
	size_t n = 0;

	for (; from[n] && n < LINE - 1; n++)
		line[n] = from[n];
	line[n] = '\0';
	*len = *at = n;
}

/* A line of input into `line`; false at its end (Ctrl-D on an empty line). */
static bool read_line(const char *prompt, char *line)
{
	size_t len = 0, at = 0;
	unsigned int back = 0; /* lines back in history */

	line[0] = '\0';
	hal_write(prompt, str_len(prompt));
	for (;;) {
		int c = get_char();

		if (c == 27 && get_char() == '[') {
			/* Arrows as the control characters that do the same; home, end, delete with a ~ behind. */
			static const char keys[] = "AP"
						   "BN"
						   "CF"
						   "DB"
						   "HA"
						   "FE"
						   "1A"
						   "4E"
						   "3D";
			int key = get_char();

			c = 0;
			for (unsigned int i = 0; keys[i]; i += 2) {
				if (keys[i] == key)
					c = keys[i + 1] & 31;
			}
			if (key >= '1' && key <= '9')
				get_char();
			if (c == 4 && !len)
				c = 0;
		}
		switch (c) {
		case '\r':
		case '\n':
			hal_printf("\n");
			if (len) {
				size_t i, n;

				line_set(history[history_count++ % HISTORY], line, &i, &n);
			}
			return true;
		case 4: /* Ctrl-D */
			if (!len) {
				hal_printf("\n");
				return false;
			}
			if (at == len)
				continue;
			at++;
			/* fall through */
		case 8:
		case 127: /* backspace */
			if (!at)
				continue;
			for (size_t i = at - 1; i < len; i++)
				line[i] = line[i + 1];
			at--;
			len--;
			break;
		case 1: /* Ctrl-A */
			at = 0;
			break;
		case 5: /* Ctrl-E */
			at = len;
			break;
		case 2: /* Ctrl-B */
			at -= at > 0;
			break;
		case 6: /* Ctrl-F */
			at += at < len;
			break;
		case 3:	 /* Ctrl-C */
		case 21: /* Ctrl-U */
			line_set(line, "", &len, &at);
			break;
		case 16: /* Ctrl-P */
		case 14: /* Ctrl-N */
			if (c == 16 && back < HISTORY && back < history_count)
				back++;
			else if (c == 14 && back)
				back--;
			else
				continue;
			line_set(line, back ? history[(history_count - back) % HISTORY] : "", &len, &at);
			break;
		case '\t':
			if (complete(line, len))
				line_set(line, complete(line, len), &len, &at);
			break;
		default:
			if (c < ' ' || c > '~' || len == LINE - 1)
				continue;
			for (size_t i = ++len; i > at; i--)
				line[i] = line[i - 1];
			line[at++] = (char)c;
			if (at == len) { /* the common case needs no redraw */
				hal_printf("%c", c);
				continue;
			}
			break;
		}
		redraw(prompt, line, at);
	}
}

/* ------------------------------------------------------------- processes */

static unsigned int awaited; /* process the shell waits for, 0 = none */
static int awaited_status;

/* What ended and has no parent is the shell's to bury. */
static void reap(void)
{
	for (unsigned int i = 0; i < PROCESSES; i++) {
		struct process *p = &processes[i];
		unsigned int pid = p->pid;

		if (p->state != PROCESS_ENDED || p->parent)
			continue;
		hal_printf("  process %u (%s) ended with %d\n", pid, p->name, p->status);
		awaited_status = process_reap(p);
		if (pid == awaited) {
			awaited = 0;
			wake(&threads[0]);
		}
	}
}

/* The thread that runs processes, in turns. What process.c does is not preempted; the processes are. */
static void process_main(void *arg)
{
	struct process *p;

	(void)arg;
	for (;;) {
		preempt_off++;
		p = process_next();
		if (p)
			process_step(p);
		hal_irq_disable();
		reap();
		preempt_off--;
		if (!p)
			current->state = BLOCKED;
		schedule();
		hal_irq_enable();
	}
}

/* Sleep until a process has ended; Ctrl-C ends it. */
static int process_await(unsigned int pid)
{
	int c;

	hal_irq_disable();
	awaited = pid;
	while (awaited && process_find(pid)) {
		while (ahead_in < sizeof(ahead) && (c = hal_getc()) >= 0) {
			if (c != 3)
				ahead[ahead_in++] = (char)c;
			else if (process_find(pid))
				process_kill(process_find(pid));
		}
		wake(process_thread);
		current->state = BLOCKED;
		schedule();
		hal_irq_disable();
	}
	awaited = 0;
	hal_irq_enable();
	return awaited_status;
}

static void cmd_run(const char *arg)
{
	char name[LINE];
	unsigned int n = 0, pid;
	struct process *p;

	if (!*arg) {
		hal_printf("  programs:");
		while (process_program(n))
			hal_printf(" %s", process_program(n++));
		hal_printf("\n");
		return;
	}
	for (; *arg && *arg != ' '; arg++)
		name[n++] = *arg;
	name[n] = '\0';
	while (*arg == ' ')
		arg++;
	preempt_off++;
	if (!process_thread)
		process_thread = thread_create("processes", process_main, NULL);
	p = process_thread ? process_start(name, number(arg, 0)) : NULL;
	pid = p ? p->pid : 0;
	preempt_off--;
	if (!pid) {
		hal_printf("cannot run %s\n", name);
		return;
	}
	while (*arg && *arg != '&')
		arg++;
	if (!*arg) {
		process_await(pid);
		return;
	}
	hal_irq_disable();
	wake(process_thread);
	hal_irq_enable();
	hal_printf("  process %u\n", pid);
}

static void cmd_ps(const char *arg)
{
	static const char *const states[] = { "", "ready", "waiting", "ended" };

	(void)arg;
	preempt_off++;
	hal_printf("  %3s %6s %-8s %6s %8s %8s %s\n", "pid", "parent", "state", "pages", "calls", "events", "name");
	for (unsigned int i = 0; i < PROCESSES; i++) {
		const struct process *p = &processes[i];

		if (p->state != PROCESS_NONE)
			hal_printf("  %3u %6u %-8s %6u %8u %8u %s\n", p->pid, p->parent, states[p->state], p->pages,
				   p->calls, p->events, p->name);
	}
	preempt_off--;
}

static void cmd_kill(const char *arg)
{
	struct process *p;

	preempt_off++;
	p = process_find((unsigned int)number(arg, 0));
	if (p && p->state != PROCESS_ENDED)
		process_kill(p);
	preempt_off--;
	if (!p)
		hal_printf("no such process; ps lists them\n");
	else if (!p->parent)
		process_await(p->pid);
}

/* -------------------------------------------------------------- commands */

static void cmd_mem(const char *arg)
{
	static const char *const types[] = {
		[HAL_MEM_RAM] = "free memory",
		[HAL_MEM_IMAGE] = "kernel",
		[HAL_MEM_MODULE] = "initial RAM disk",
		[HAL_MEM_RESERVED] = "reserved",
	};
	struct hal_mem m;

	(void)arg;
	for (unsigned int i = 0; hal_memmap(i, &m); i++)
		hal_printf("  %012lx..%012lx %8lu KiB  %s\n", m.pa, m.pa + m.len, m.len >> 10, types[m.type]);
	hal_printf("  pages: %lu of %lu free\n", pages_free(), pool_total);
	for (unsigned int i = 0; i < AREAS; i++) {
		if (areas[i].what)
			hal_printf("  area %u: %lx, %lu pages, %s\n", i, area_base(&areas[i]), areas[i].pages,
				   areas[i].what);
	}
}

static void cmd_alloc(const char *arg)
{
	uint64_t pages = number(arg, 256), start, mapped, touched, *p;
	struct area *a;

	start = hal_clock_ns();
	a = area_alloc(pages, "alloc");
	mapped = hal_clock_ns();
	if (!a) {
		hal_printf("cannot allocate %lu pages\n", pages);
		return;
	}
	p = (uint64_t *)area_base(a);
	for (uint64_t i = 0; i < pages; i++)
		p[i * HAL_PAGE_SIZE / 8] = i;
	touched = hal_clock_ns();
	for (uint64_t i = 0; i < pages; i++) {
		if (p[i * HAL_PAGE_SIZE / 8] != i)
			hal_printf("page %lu does not hold what was written\n", i);
	}
	hal_printf("area %lu: %lu pages at %p; mapped in %lu ns per page, touched in %lu\n", (uint64_t)(a - areas),
		   pages, (void *)p, (mapped - start) / pages, (touched - mapped) / pages);
}

static void cmd_free(const char *arg)
{
	uint64_t i = number(arg, AREAS);

	if (i >= AREAS || !areas[i].what || !str_equal(areas[i].what, "alloc")) {
		hal_printf("no such area; mem lists them\n");
		return;
	}
	area_free(&areas[i]);
}

struct beep {
	struct timer timer;
	uint64_t at, fired_at;
	unsigned int order;
};

static unsigned int beeps_fired;

static void beep(void *arg)
{
	struct beep *b = arg;

	b->fired_at = hal_clock_ns();
	b->order = ++beeps_fired;
}

static void cmd_timers(const char *arg)
{
	static const unsigned int delay_ms[] = { 50, 10, 40, 20, 30 };
	struct beep b[ARRAY_SIZE(delay_ms)];
	uint64_t start = hal_clock_ns();

	(void)arg;
	beeps_fired = 0;
	for (unsigned int i = 0; i < ARRAY_SIZE(b); i++) {
		b[i].at = start + delay_ms[i] * MS;
		timer_add(&b[i].timer, b[i].at, beep, &b[i]);
	}
	sleep_until(start + 60 * MS);
	for (unsigned int i = 0; i < ARRAY_SIZE(b); i++)
		hal_printf("  set for +%u ms: fired %u., %lu us late\n", delay_ms[i], b[i].order,
			   (b[i].fired_at - b[i].at) / 1000);
}

static uint64_t work_until;

static void spinner(void *arg)
{
	struct thread *t = current;

	(void)arg;
	while (hal_clock_ns() < work_until)
		t->work++;
}

static void ticker(void *arg)
{
	struct thread *t = current;

	(void)arg;
	for (uint64_t at = hal_clock_ns() + 5 * MS; at < work_until; at += 5 * MS) {
		sleep_until(at);
		t->work++;
	}
}

static void cmd_threads(const char *arg)
{
	static const struct {
		const char *name;
		void (*fn)(void *arg);
	} kinds[] = { { "spin-a", spinner }, { "spin-b", spinner }, { "spin-c", spinner }, { "tick", ticker } };
	struct thread *t[ARRAY_SIZE(kinds)];
	uint64_t before = preemptions, total = 0, ms = number(arg, 100);

	work_until = hal_clock_ns() + ms * MS;
	for (unsigned int i = 0; i < ARRAY_SIZE(t); i++) {
		t[i] = thread_create(kinds[i].name, kinds[i].fn, NULL);
		if (!t[i])
			hal_panic("cannot create a thread");
	}
	/* Sleep, so that the shell takes no part in the competition. */
	sleep_until(work_until);
	for (unsigned int i = 0; i < ARRAY_SIZE(t); i++) {
		thread_join(t[i]);
		total += kinds[i].fn == spinner ? t[i]->work : 0;
	}
	hal_printf("  %lu ms, %lu preemptions\n", ms, preemptions - before);
	for (unsigned int i = 0; i < ARRAY_SIZE(t); i++) {
		if (kinds[i].fn == spinner)
			hal_printf("  %-8s %3lu %% of the work, switched to %lu times\n", t[i]->name,
				   total ? t[i]->work * 100 / total : 0, t[i]->switches);
		else
			hal_printf("  %-8s woke %lu times between them\n", t[i]->name, t[i]->work);
	}
}

static struct hal_mark mark;

static bool caught(struct hal_frame *frame)
{
	static const char *const names[HAL_VEC_COUNT] = {
		[HAL_VEC_DE] = "division error",
		[HAL_VEC_UD] = "invalid opcode",
		[HAL_VEC_DF] = "double fault",
		[HAL_VEC_PF] = "page fault",
	};

	hal_printf("%s, error 0x%lx, address 0x%lx\n", names[frame->vector], frame->error, frame->addr);
	hal_frame_resume(frame, &mark, 1);
	return true;
}

static volatile int never = -1;

static int recurse(int n)
{
	volatile char space[200];

	space[n & 127] = (char)n;
	if (n == never)
		return 0;
	return recurse(n + 1) + space[n & 127];
}

static void overflow(void *arg)
{
	(void)arg;
	recurse(0);
}

static void cmd_fault(const char *arg)
{
	static const unsigned int vectors[] = { HAL_VEC_DE, HAL_VEC_UD, HAL_VEC_DF, HAL_VEC_PF };
	volatile uint64_t near_null = 8;
	volatile int zero = 0, one = 1;
	struct area *stack = area_alloc(STACK_PAGES, "fault");

	(void)arg;
	if (!stack)
		return;
	preempt_off++;
	for (unsigned int i = 0; i < ARRAY_SIZE(vectors); i++)
		hal_trap_handler(vectors[i], caught);
	hal_printf("  null pointer:       ");
	if (!hal_mark(&mark))
		*(volatile char *)near_null = 0;
	hal_printf("  write to the text:  ");
	if (!hal_mark(&mark))
		*(volatile char *)(uintptr_t)cmd_fault = 0;
	hal_printf("  execution of data:  ");
	if (!hal_mark(&mark))
		((void (*)(void))(uintptr_t)areas)();
	hal_printf("  division by zero:   ");
	if (!hal_mark(&mark))
		one = one / zero;
	hal_printf("  no instruction:     ");
	if (!hal_mark(&mark))
		__asm__ volatile("ud2");
	hal_printf("  stack overflow:     ");
	if (!hal_mark(&mark))
		hal_call_on((void *)(area_base(stack) + STACK_PAGES * HAL_PAGE_SIZE), overflow, NULL);
	hal_printf("  all caught, the kernel goes on\n");
	for (unsigned int i = 0; i < ARRAY_SIZE(vectors); i++)
		hal_trap_handler(vectors[i], NULL);
	preempt_off--;
	area_free(stack);
}

static void cmd_stats(const char *arg)
{
	struct hal_stat s[64];
	unsigned int n = hal_stats(s, ARRAY_SIZE(s));

	(void)arg;
	hal_printf("  %-28s %10s %8s %12s\n", "call", "calls", "errors", "work");
	for (unsigned int i = 0; i < n; i++)
		hal_printf("  %-28s %10lu %8lu %12lu\n", s[i].name, s[i].calls, s[i].errors, s[i].work);
}

/* What `pages` pages cost in one range, page-wise in a lazy section, and page-wise without. */
static void cmd_pages(const char *arg)
{
	uint64_t pages = number(arg, 512), va = area_base(&areas[AREAS - 1]), pa, start, ns[5];

	if (!pages || pages > AREA_PAGES || pages > (pool_end - pool_next) / HAL_PAGE_SIZE || areas[AREAS - 1].what) {
		hal_printf("cannot use %lu pages\n", pages);
		return;
	}
	preempt_off++;
	pa = pool_next; /* contiguous, and nobody else's while we are not preempted */
	start = hal_clock_ns();
	hal_map(va, pa, pages * HAL_PAGE_SIZE, RW, HAL_MAP_POPULATE);
	ns[0] = hal_clock_ns() - start;
	start = hal_clock_ns();
	hal_protect(va, pages * HAL_PAGE_SIZE, HAL_PROT_R);
	ns[1] = hal_clock_ns() - start;
	start = hal_clock_ns();
	hal_unmap(va, pages * HAL_PAGE_SIZE);
	ns[2] = hal_clock_ns() - start;
	start = hal_clock_ns();
	hal_lazy_enter();
	for (uint64_t i = 0; i < pages; i++)
		hal_set_pte(va + i * HAL_PAGE_SIZE, (pa + i * HAL_PAGE_SIZE) | RW);
	hal_lazy_leave();
	ns[3] = hal_clock_ns() - start;
	hal_unmap(va, pages * HAL_PAGE_SIZE);
	start = hal_clock_ns();
	for (uint64_t i = 0; i < pages; i++)
		hal_set_pte(va + i * HAL_PAGE_SIZE, (pa + i * HAL_PAGE_SIZE) | RW);
	ns[4] = hal_clock_ns() - start;
	hal_unmap(va, pages * HAL_PAGE_SIZE);
	preempt_off--;
	hal_printf("  %lu pages, ns per page:\n", pages);
	hal_printf("  map and populate one range  %6lu\n  protect it                  %6lu\n", ns[0] / pages,
		   ns[1] / pages);
	hal_printf("  unmap it                    %6lu\n", ns[2] / pages);
	hal_printf("  map entries, lazily         %6lu\n  map entries, one by one     %6lu\n", ns[3] / pages,
		   ns[4] / pages);
}

static void cmd_clock(const char *arg)
{
	static const uint8_t month_days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	uint64_t wall = hal_wall_ns() / 1000000000, days = wall / 86400, s = wall % 86400, start;
	unsigned int year = 1970, month = 0;

	(void)arg;
	for (;; year++) {
		unsigned int len = 365 + (year % 4 == 0 && (year % 100 || year % 400 == 0));

		if (days < len) {
			for (; month < 11; month++) {
				unsigned int d = month_days[month] + (month == 1 && len == 366);

				if (days < d)
					break;
				days -= d;
			}
			break;
		}
		days -= len;
	}
	hal_printf("  %04u-%02u-%02lu %02lu:%02lu:%02lu UTC\n", year, month + 1, days + 1, s / 3600, s / 60 % 60,
		   s % 60);
	start = hal_clock_ns();
	for (int i = 0; i < 999; i++)
		hal_clock_ns();
	hal_printf("  guest time %lu ns, TSC %lu kHz, reading the clock takes %lu ns\n", start,
		   hal_cpu()->tsc_hz / 1000, (hal_clock_ns() - start) / 1000);
}

static void cmd_uptime(const char *arg)
{
	uint64_t ns = hal_clock_ns() - boot_ns;

	(void)arg;
	hal_printf("  up %lu.%06lu s\n", ns / 1000000000, ns / 1000 % 1000000);
}

static void cmd_cmdline(const char *arg)
{
	(void)arg;
	hal_printf("  \"%s\"\n", hal_cmdline());
}

static void cmd_crash(const char *arg)
{
	volatile uint64_t near_null = 8;

	(void)arg;
	*(volatile char *)near_null = 0;
}

static void cmd_exit(const char *arg)
{
	hal_poweroff((unsigned int)number(arg, 0));
}

static void cmd_reboot(const char *arg)
{
	(void)arg;
	hal_restart(0);
}

static void cmd_help(const char *arg);

static const struct command {
	const char *name, *arg;
	void (*fn)(const char *arg);
	const char *help;
} commands[] = {
	{ "help", "", cmd_help, "this list" },
	{ "mem", "", cmd_mem, "memory map, free pages, areas" },
	{ "alloc", "[PAGES]", cmd_alloc, "allocate and touch an area, mapped page by page in a lazy section" },
	{ "free", "AREA", cmd_free, "free an area" },
	{ "pages", "[PAGES]", cmd_pages, "what mapping costs: ranges, lazy entries, single entries" },
	{ "timers", "", cmd_timers, "five timers, set out of order" },
	{ "threads", "[MS]", cmd_threads, "three threads that compute and one that sleeps, preempted by the timer" },
	{ "fault", "", cmd_fault, "provoke faults and catch them" },
	{ "run", "[PROGRAM [N] [&]]", cmd_run, "run a program with argument N, & leaves it running; or list them" },
	{ "ps", "", cmd_ps, "processes" },
	{ "kill", "PID", cmd_kill, "end a process; Ctrl-C ends the one that is waited for" },
	{ "stats", "", cmd_stats, "hypercalls made so far" },
	{ "clock", "", cmd_clock, "date, guest time, cost of reading it" },
	{ "uptime", "", cmd_uptime, "time since the start" },
	{ "cmdline", "", cmd_cmdline, "the command line" },
	{ "crash", "", cmd_crash, "write through a null pointer, with nobody to catch it" },
	{ "exit", "[CODE]", cmd_exit, "power off" },
	{ "reboot", "", cmd_reboot, "start again" },
};

static void cmd_help(const char *arg)
{
	(void)arg;
	for (unsigned int i = 0; i < ARRAY_SIZE(commands); i++)
		hal_printf("  %-8s%-18s %s\n", commands[i].name, commands[i].arg, commands[i].help);
}

/* The one command that begins with a prefix, else NULL. */
static const char *complete(const char *prefix, size_t len)
{
	const char *found = NULL;

	for (unsigned int i = 0; i < ARRAY_SIZE(commands); i++) {
		size_t n = 0;

		while (n < len && commands[i].name[n] == prefix[n])
			n++;
		if (n < len)
			continue;
		if (found)
			return NULL;
		found = commands[i].name;
	}
	return found;
}

static void run(char *line)
{
	char *arg;

	while (*line == ' ')
		line++;
	for (arg = line; *arg && *arg != ' ';)
		arg++;
	while (*arg == ' ')
		*arg++ = '\0';
	if (!*line)
		return;
	for (unsigned int i = 0; i < ARRAY_SIZE(commands); i++) {
		if (str_equal(commands[i].name, line)) {
			commands[i].fn(arg);
			return;
		}
	}
	hal_printf("unknown command; help lists what there is\n");
}

/* Is `word` one of the words of the command line? */
static bool cmdline_has(const char *word)
{
	const char *s = hal_cmdline();
	size_t len = str_len(word);

	while (*s) {
		size_t n = 0;

		while (s[n] && s[n] != ' ')
			n++;
		if (n == len) {
			size_t i = 0;

			while (i < n && s[i] == word[i])
				i++;
			if (i == n)
				return true;
		}
		s += n + (s[n] == ' ');
	}
	return false;
}

static const char *const tour[] = { "mem",	   "alloc 1000", "pages",     "fault",	     "timers",
				    "threads",	   "run",	 "run hello", "run count 3", "run fault",
				    "run signals", "run spin &", "ps",	      "kill 7",	     "ps",
				    "clock",	   "stats",	 "uptime",    "exit 0" };

int hal_main(void)
{
	char line[LINE];
	struct hal_mem module;
	size_t len, at;

	boot_ns = hal_clock_ns();
	threads[0] = (struct thread){ .state = RUNNABLE, .name = "shell" };
	pool_init();
	hal_irq_handler(HAL_IRQ_TIMER, on_timer, NULL);
	hal_irq_handler(HAL_IRQ_CONSOLE, on_input, NULL);
	hal_irq_exit_hook(preempt);
	hal_irq_enable();
	if (!hal_module(&module) || !process_archive(hal_pa_to_va(module.pa), module.len))
		process_archive(process_builtin, (size_t)(process_builtin_end - process_builtin));

	hal_printf("Keel shell on the %s HAL, %lu MiB free. Type help, or exit to power off.\n", hal_flavour(),
		   pages_free() >> 8);
	if (cmdline_has("tour")) {
		for (unsigned int i = 0; i < ARRAY_SIZE(tour); i++) {
			line_set(line, tour[i], &len, &at);
			hal_printf("keel> %s\n", line);
			run(line);
		}
	}
	while (read_line("keel> ", line))
		run(line);
	return 0;
}
