/* SPDX-License-Identifier: MIT */
/*
 * What the guest under measurement and the raw program beside it share: the
 * names of the operations, the memory they work on, and the loop that answers
 * the driver. Both read lines "NAME REPETITIONS MARK" and answer "NAME MIN MEDIAN", so the
 * driver can have them take turns. Free of any C library: one side has none.
 *
 * Times are TSC ticks; operations that measure against a deadline answer nanoseconds.
 */
#ifndef KEEL_BENCH_ENGINE_H
#define KEEL_BENCH_ENGINE_H

/* System calls of the user code (user.S); natively they are Linux's getppid, fork, wait4 and exit. */
#define BENCH_CALL 110
#define BENCH_FORK 57
#define BENCH_WAIT 61
#define BENCH_EXIT 60

#ifndef __ASSEMBLER__
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_PAGE UINT64_C(4096)
#define BENCH_RAM (UINT64_C(128) << 20)

/* Pages that the mapping operations map: allocated beforehand, on both sides. */
#define AREA_GPA (UINT64_C(32) << 20)
#define AREA_VA UINT64_C(0x200000000)
#define AREA_PAGES 512
/* Scattered pages: every other page of the address space, none continuing its neighbour's memory. */
#define SCATTER_VA(i) (AREA_VA + (uint64_t)(i)*2 * BENCH_PAGE)
#define SCATTER_GPA(i) (AREA_GPA + (uint64_t)((i)*37 % AREA_PAGES) * BENCH_PAGE)
#define SCATTER_SPAN(n) ((uint64_t)(n)*2 * BENCH_PAGE)
#define RUNS_FEW 64

/* What the loops work on. */
#define LOOP_GPA (UINT64_C(64) << 20)
#define LOOP_VA UINT64_C(0x300000000)
#define LOOP_BYTES (UINT64_C(32) << 20)

/* How often an operation is done within one repetition. */
#define PER_SHORT 1000
#define PER_PING 100
#define PER_FAULT 16
#define PER_ENTER 50
#define PER_FORK 4
#define SPACES 64
#define PER_SPACES (2 * SPACES) /* they take turns */
#define REFILL 32		/* pages that one fault brings back */
#define USER_CPU 2000000	/* rounds of work_cpu: long beside one hand-off */
#define TIMER_AHEAD_NS 2000000

#define ENGINE_LINE 96
#define ENGINE_REPS 512
#define ENGINE_FLOOD 16 /* bytes of input that come one by one */
/* Populating this page is a mark that a tracer sees: one madvise, which nothing else here causes. */
#define ENGINE_MARK_GPA (UINT64_C(48) << 20)

/* work.c, one object linked into both. */
uint64_t work_cpu(uint64_t rounds);
uint64_t work_memory(uint64_t *words, uint64_t count, uint64_t rounds);

/* user.S, likewise. */
extern const char bench_user_begin[], bench_user_end[], bench_user[], bench_family[];

struct op {
	const char *name;
	void (*prepare)(void); /* before each repetition, not measured; may be NULL */
	uint64_t (*run)(void); /* what it measured itself, or 0: how long it took counts */
	void (*finish)(void);
};

static inline uint64_t engine_tsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("lfence\n\trdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

static inline size_t engine_put(char *out, uint64_t v)
{
	char digits[20];
	size_t n = 0, at = 0;

	do
		digits[n++] = (char)('0' + v % 10);
	while (v /= 10);
	while (n)
		out[at++] = digits[--n];
	return at;
}

static inline const char *engine_number(const char *s, uint64_t *v)
{
	*v = 0;
	while (*s == ' ')
		s++;
	for (; *s >= '0' && *s <= '9'; s++)
		*v = *v * 10 + (uint64_t)(*s - '0');
	return s;
}

/**
 * engine_answer - carry out one line
 * @ops: operations, ending with a NULL name
 * @mark: called around each run when the line asks for it; makes a mark that a tracer sees
 * @line: NUL-terminated, without its newline
 * @reply: room for ENGINE_LINE bytes
 *
 * Returns the bytes of the reply, its newline included, or 0 when no operation has the name.
 */
static inline size_t engine_answer(const struct op *ops, void (*mark)(void), const char *line, char *reply)
{
	static uint64_t sample[ENGINE_REPS];
	uint64_t reps, marked;
	size_t len, at = 0;

	for (;; ops++) {
		if (!ops->name)
			return 0;
		for (len = 0; ops->name[len] && ops->name[len] == line[len]; len++)
			;
		if (!ops->name[len] && line[len] == ' ')
			break;
	}
	engine_number(engine_number(line + len, &reps), &marked);
	if (!mark)
		marked = 0;
	if (!reps || reps > ENGINE_REPS)
		return 0;
	for (uint64_t r = 0; r < reps; r++) {
		uint64_t t, own;
		size_t i;

		if (ops->prepare)
			ops->prepare();
		if (marked)
			mark();
		t = engine_tsc();
		own = ops->run();
		t = engine_tsc() - t;
		if (marked)
			mark();
		if (ops->finish)
			ops->finish();
		if (own)
			t = own;
		for (i = r; i && sample[i - 1] > t; i--)
			sample[i] = sample[i - 1];
		sample[i] = t;
	}
	for (size_t i = 0; i < len; i++)
		reply[at++] = ops->name[i];
	reply[at++] = ' ';
	at += engine_put(reply + at, sample[0]);
	reply[at++] = ' ';
	at += engine_put(reply + at, sample[reps / 2]);
	reply[at++] = '\n';
	return at;
}
#endif

#endif
