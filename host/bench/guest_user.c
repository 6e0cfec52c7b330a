// SPDX-License-Identifier: MIT
/*
 * What a small kernel does with its user code: makes address spaces, enters them,
 * answers page faults, copies a page at the first write after a fork.
 */
#include <hypercall/batch.h>
#include <hypercall/guest.h>
#include <hypercall/repeat.h>
#include <hypercall/user.h>

#include "engine.h"
#include "guest_user.h"

#define STACK_TOP (UINT64_C(0x400000000) + BENCH_PAGE)
#define PARENT SPACES /* spaces from here on are the family's */
#define CHILD (SPACES + 1)
#define PROCESSES (SPACES + 2)

struct process {
	keel_as_t as;
	struct keel_user *regs;
	keel_u8 *stack; /* its page */
};

static keel_u8 contexts[PROCESSES][KEEL_USER_SIZE_MAX] __attribute__((aligned(KEEL_USER_ALIGN)));
static keel_u8 stacks[PROCESSES][BENCH_PAGE] __attribute__((aligned(4096)));
static struct process processes[PROCESSES];
static unsigned int made;
static const struct keel_cpu_info *cpu;

static struct keel_mmu_record recs[16];
static struct keel_batch batch;

void user_setup(const struct keel_start *start)
{
	cpu = keel_start_cpu(start);
	if (!cpu || keel_user_size(cpu) > sizeof(contexts[0]))
		keel_panic("no processor state that there is room for");
}

/* A batch is for one address space. */
static void into(const struct process *p)
{
	keel_batch_init(&batch, recs, keel_gpa_of(recs), sizeof(recs) / sizeof(recs[0]), p->as, keel_batch_submit,
			NULL);
}

static void flush(void)
{
	keel_must_((struct keel_ret){ keel_batch_flush(&batch), 0 }, "mmu_batch");
}

static void map_text(const void *from, const void *to)
{
	const keel_u64 first = (keel_u64)from & ~(BENCH_PAGE - 1), end = (keel_u64)to | (BENCH_PAGE - 1);

	for (keel_u64 va = first; va < end; va += BENCH_PAGE)
		keel_batch_map(&batch, va, keel_gpa_of((const void *)va), BENCH_PAGE, KEEL_PROT_R | KEEL_PROT_X, 0);
}

static void map_stack(const struct process *p, keel_u32 flags)
{
	keel_batch_map(&batch, STACK_TOP - BENCH_PAGE, keel_gpa_of(p->stack), BENCH_PAGE, KEEL_PROT_R | KEEL_PROT_W,
		       flags);
}

/* Runs until it makes a system call or faults; returns the reason. */
static keel_u64 enter(const struct process *p)
{
	return keel_must(keel_user_run(p->as, keel_gpa_of(p->regs)));
}

static void expect_call(const struct process *p, keel_u64 number)
{
	const struct keel_user *r = p->regs;

	if (enter(p) != KEEL_USER_SYSCALL || r->rax != number)
		keel_panic("user code stops for a %s, vector %u, address %lx, rip %lx, rax %lu, not for call %lu",
			   keel_user_reason(r), r->vector, (unsigned long)r->addr, (unsigned long)r->rip,
			   (unsigned long)r->rax, (unsigned long)number);
}

static void make(struct process *p, const char *entry, keel_u64 number)
{
	const size_t i = (size_t)(p - processes);

	p->regs = (struct keel_user *)contexts[i];
	p->stack = stacks[i];
	p->as = keel_as(keel_must(keel_as_create(0)));
	into(p);
	map_text(bench_user_begin, bench_user_end);
	/* Where the function ends is not known; it is less than a page. */
	map_text((const char *)(keel_u64)work_cpu, (const char *)(keel_u64)work_cpu + BENCH_PAGE);
	map_stack(p, 0);
	flush();
	keel_user_init(p->regs, cpu, (keel_u64)entry, STACK_TOP);
	expect_call(p, number);
}

static void make_spaces(unsigned int n)
{
	for (; made < n; made++)
		make(&processes[made], bench_user, BENCH_CALL);
}

void user_prepare(void)
{
	make_spaces(1);
}

void user_prepare_spaces(void)
{
	make_spaces(SPACES);
}

uint64_t user_run_call(void)
{
	for (int i = 0; i < PER_ENTER; i++)
		expect_call(&processes[0], BENCH_CALL);
	return 0;
}

uint64_t user_run_spaces(void)
{
	for (int i = 0; i < PER_SPACES; i++)
		expect_call(&processes[i % SPACES], BENCH_CALL);
	return 0;
}

uint64_t user_run_cpu(void)
{
	processes[0].regs->r8 = USER_CPU;
	expect_call(&processes[0], BENCH_CALL);
	return 0;
}

/* Page faults */

static bool is_fault(const struct keel_user *r, keel_u64 from, keel_u64 len)
{
	return keel_user_faulted(r) && r->addr >= from && r->addr < from + len;
}

uint64_t user_run_fault(void)
{
	const struct process *p = &processes[0];
	struct keel_user *r = p->regs;

	r->rdi = AREA_VA;
	r->rsi = PER_FAULT;
	r->rdx = 2 * BENCH_PAGE;
	while (enter(p) != KEEL_USER_SYSCALL) {
		keel_u64 va = r->addr & ~(BENCH_PAGE - 1);

		if (!is_fault(r, AREA_VA, SCATTER_SPAN(AREA_PAGES)))
			keel_panic("user code stops with vector %u at %lx", r->vector, (unsigned long)r->addr);
		into(p);
		keel_batch_map(&batch, va, keel_gpa(AREA_GPA + (va - AREA_VA)), BENCH_PAGE, KEEL_PROT_R | KEEL_PROT_W,
			       KEEL_MMU_POPULATE);
		flush();
	}
	return 0;
}

void user_forget(void)
{
	into(&processes[0]);
	keel_batch_unmap(&batch, AREA_VA, SCATTER_SPAN(AREA_PAGES));
	flush();
}

/* A copy that shares: all there, and nothing of it looked at yet by its user code. */
void user_prepare_refill(void)
{
	struct process *copy = &processes[CHILD];

	make_spaces(1);
	into(&processes[0]);
	keel_batch_map(&batch, AREA_VA, keel_gpa(AREA_GPA), AREA_PAGES * BENCH_PAGE, KEEL_PROT_R | KEEL_PROT_W, 0);
	flush();
	copy->regs = (struct keel_user *)contexts[CHILD];
	copy->as = keel_as(keel_must(keel_as_clone_all(processes[0].as, KEEL_AS_CLONE_SHARE)));
	keel_user_copy(copy->regs, processes[0].regs);
	expect_call(copy, BENCH_CALL);
}

uint64_t user_run_refill(void)
{
	struct keel_user *r = processes[CHILD].regs;

	r->rdi = AREA_VA;
	r->rsi = AREA_PAGES;
	r->rdx = BENCH_PAGE;
	expect_call(&processes[CHILD], BENCH_CALL);
	return 0;
}

void user_finish_refill(void)
{
	keel_must(keel_as_destroy_all(processes[CHILD].as));
	user_forget();
}

/* Processes */

void user_prepare_family(void)
{
	if (!processes[PARENT].regs)
		make(&processes[PARENT], bench_family, BENCH_FORK);
}

static void expect_first_write(const struct process *p)
{
	if (enter(p) == KEEL_USER_SYSCALL || !is_fault(p->regs, STACK_TOP - BENCH_PAGE, BENCH_PAGE))
		keel_panic("user code stops for a %s, vector %u, address %lx, not for a first write",
			   keel_user_reason(p->regs), p->regs->vector, (unsigned long)p->regs->addr);
}

uint64_t user_run_fork(void)
{
	struct process *parent = &processes[PARENT], *child = &processes[CHILD];

	child->regs = (struct keel_user *)contexts[CHILD];
	child->stack = stacks[CHILD];
	for (int i = 0; i < PER_FORK; i++) {
		/* The parent has called fork. */
		child->as = keel_as(keel_must(keel_as_clone_all(parent->as, 0)));
		keel_user_copy(child->regs, parent->regs);
		child->regs->rax = 0;
		expect_first_write(child);
		__builtin_memcpy(child->stack, parent->stack, BENCH_PAGE);
		into(child);
		map_stack(child, KEEL_MMU_POPULATE);
		flush();
		expect_call(child, BENCH_EXIT);
		keel_must(keel_as_destroy_all(child->as));

		parent->regs->rax = 1;
		expect_first_write(parent);
		into(parent);
		map_stack(parent, KEEL_MMU_POPULATE);
		flush();
		expect_call(parent, BENCH_WAIT);
		expect_call(parent, BENCH_FORK);
	}
	return 0;
}
