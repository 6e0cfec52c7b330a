// SPDX-License-Identifier: MIT
/*
 * traps - what can go wrong in a kernel, provoked and survived: page faults
 * handled and retried, other exceptions, a fault inside a fault handler, and
 * the two ways to a double fault.
 */
#include <hal/hal.h>

#define VA 0x200000000000ull /* unused by image and linear map */
#define GUARD VA
#define STACK_BOTTOM (VA + HAL_PAGE_SIZE)
#define STACK_SIZE (8 * HAL_PAGE_SIZE)
#define HOLE (VA + 0x100000)

static struct hal_mark mark;
static struct hal_frame seen; /* the last trap */
static volatile int depth, deepest, traps_taken;
static uint64_t page; /* a free physical page */
static int failures;

static void check(bool ok, const char *what)
{
	hal_printf("%s: %s\n", ok ? "ok" : "FAILED", what);
	if (!ok)
		hal_printf("# vector %u error 0x%lx address 0x%lx rip 0x%lx\n", seen.vector, seen.error, seen.addr,
			   seen.rip);
	failures += !ok;
}

/* Give the provoked trap up: go on behind the hal_mark() that came before it. */
static bool give_up(struct hal_frame *frame)
{
	seen = *frame;
	traps_taken++;
	hal_frame_resume(frame, &mark, 1);
	return true;
}

/* Repair: map a page where it was missing, and try again. */
static bool map_page(struct hal_frame *frame)
{
	seen = *frame;
	traps_taken++;
	return hal_set_pte(frame->addr & ~(HAL_PAGE_SIZE - 1), page | HAL_PROT_R | HAL_PROT_W) == 0;
}

static bool faults(unsigned int vector, uint64_t error, uint64_t addr)
{
	return seen.vector == vector && seen.error == error && seen.addr == addr;
}

static void page_faults(void)
{
	volatile uint64_t near_null = 8; /* not a constant the compiler could see through */
	volatile uint64_t *hole = (volatile uint64_t *)HOLE;
	uint64_t *linear = hal_pa_to_va(page);

	hal_trap_handler(HAL_VEC_PF, map_page);
	linear[0] = 0x6b65656c;
	check(hole[0] == 0x6b65656c && faults(HAL_VEC_PF, 0, HOLE),
	      "read of a missing page: mapped by the handler, read again");
	hal_unmap(HOLE, HAL_PAGE_SIZE);
	hole[1] = 7;
	check(linear[1] == 7 && faults(HAL_VEC_PF, HAL_PF_W, HOLE + 8),
	      "write to a missing page: mapped by the handler, written again");

	hal_trap_handler(HAL_VEC_PF, give_up);
	hal_protect(HOLE, HAL_PAGE_SIZE, HAL_PROT_R);
	if (!hal_mark(&mark))
		hole[2] = 9;
	check(linear[2] == 0 && faults(HAL_VEC_PF, HAL_PF_P | HAL_PF_W, HOLE + 16), "write to a read-only page");

	*(uint8_t *)linear = 0xc3; /* ret */
	if (!hal_mark(&mark))
		((void (*)(void))HOLE)();
	check(faults(HAL_VEC_PF, HAL_PF_P | HAL_PF_X, HOLE) && seen.rip == HOLE,
	      "jump to a page without execute permission");
	traps_taken = 0;
	hal_protect(HOLE, HAL_PAGE_SIZE, HAL_PROT_X);
	if (!hal_mark(&mark))
		((void (*)(void))HOLE)();
	check(traps_taken == 0, "the same jump once it is executable");
	hal_unmap(HOLE, HAL_PAGE_SIZE);
	if (!hal_mark(&mark))
		((void (*)(void))HOLE)();
	check(faults(HAL_VEC_PF, HAL_PF_X, HOLE), "jump to a missing page");
	if (!hal_mark(&mark))
		*(volatile char *)near_null = 0;
	check(faults(HAL_VEC_PF, HAL_PF_W, 8), "write through a null pointer");
}

static void exceptions(void)
{
	volatile uint64_t bad = 0x8000000000000000;
	volatile int zero = 0, quotient = 1;

	hal_trap_handler(HAL_VEC_GP, give_up);
	hal_trap_handler(HAL_VEC_DE, give_up);
	hal_trap_handler(HAL_VEC_UD, give_up);
	if (!hal_mark(&mark))
		*(volatile char *)bad = 0;
	check(faults(HAL_VEC_GP, 0, 0), "general protection: an address that is none");
	if (!hal_mark(&mark))
		quotient = quotient / zero;
	check(faults(HAL_VEC_DE, 0, 0), "division by zero");
	if (!hal_mark(&mark))
		__asm__ volatile("ud2");
	check(faults(HAL_VEC_UD, 0, 0), "undefined instruction");
}

static bool on_breakpoint(struct hal_frame *frame)
{
	seen = *frame;
	frame->rax = 42;
	frame->rflags |= HAL_RFLAGS_TF; /* and stop behind the next instruction */
	return true;
}

static bool on_debug(struct hal_frame *frame)
{
	deepest = frame->rbx == 43;
	frame->rflags &= ~HAL_RFLAGS_TF;
	traps_taken++;
	return true;
}

static void debugging(void)
{
	extern char behind_int3[];
	uint64_t rax = 0, rbx = 0;

	hal_trap_handler(HAL_VEC_BP, on_breakpoint);
	hal_trap_handler(HAL_VEC_DB, on_debug);
	traps_taken = deepest = 0;
	__asm__ volatile("int3\n"
			 "	.globl behind_int3\n"
			 "behind_int3:\n"
			 "	lea 1(%%rax), %%rbx\n"
			 "	nop\n"
			 "	nop"
			 : "+a"(rax), "+b"(rbx)
			 :
			 : "memory");
	check(faults(HAL_VEC_BP, 0, 0) && seen.rip == (uintptr_t)behind_int3 && rax == 42,
	      "breakpoint: resumed behind it, with a register changed");
	check(traps_taken == 1 && deepest && rbx == 43, "single step: stopped once, behind one instruction");
}

/* The first fault's handler faults itself before it repairs anything. */
static bool nested(struct hal_frame *frame)
{
	uint64_t addr = frame->addr;

	if (++depth > deepest)
		deepest = depth;
	if (depth < 4)
		*(volatile char *)(addr + HAL_PAGE_SIZE) = 1;
	depth--;
	return map_page(frame) && frame->addr == addr;
}

static void nesting(void)
{
	bool on;

	hal_trap_handler(HAL_VEC_PF, nested);
	depth = deepest = traps_taken = 0;
	*(volatile char *)HOLE = 1;
	check(traps_taken == 4 && deepest == 4, "page faults nested four deep, all repaired");
	hal_unmap(HOLE, 4 * HAL_PAGE_SIZE);

	hal_trap_handler(HAL_VEC_PF, map_page);
	hal_irq_disable();
	*(volatile char *)HOLE = 1;
	on = hal_irq_enabled();
	hal_irq_enable();
	hal_unmap(HOLE, HAL_PAGE_SIZE);
	*(volatile char *)HOLE = 1;
	check(!on && hal_irq_enabled(), "a trap keeps the interrupt flag as it was");
	hal_unmap(HOLE, HAL_PAGE_SIZE);
}

static volatile int overflow_depth, never = -1;

/* Not a tail call, and with something to remember: really uses stack. */
static int overflow(int n)
{
	volatile char space[256];

	space[n & 255] = (char)n;
	overflow_depth = n;
	if (n == never)
		return 0;
	return overflow(n + 1) + space[n & 255];
}

static void run_overflow(void *arg)
{
	(void)arg;
	overflow(0);
}

static void double_faults(void)
{
	hal_trap_handler(HAL_VEC_DF, give_up);
	hal_trap_handler(HAL_VEC_PF, give_up);

	hal_map(STACK_BOTTOM, page, HAL_PAGE_SIZE, HAL_PROT_R | HAL_PROT_W, 0);
	for (uint64_t off = HAL_PAGE_SIZE; off < STACK_SIZE; off += HAL_PAGE_SIZE)
		hal_map(STACK_BOTTOM + off, page + off, HAL_PAGE_SIZE, HAL_PROT_R | HAL_PROT_W, 0);
	if (!hal_mark(&mark))
		hal_call_on((void *)(STACK_BOTTOM + STACK_SIZE), run_overflow, NULL);
	check(seen.vector == HAL_VEC_DF && seen.error == 0, "stack overflow ends in a double fault");
	check(seen.addr >= GUARD && seen.addr < STACK_BOTTOM, "and its address lies in the guard page");
	check(overflow_depth > 20 && overflow_depth < 130, "and the stack was used up");

	if (!hal_mark(&mark))
		__asm__ volatile("mov %0, %%rsp; push %%rax" ::"r"(HOLE + 64) : "memory");
	check(seen.vector == HAL_VEC_DF && seen.error == 0, "a stack pointer to nowhere ends in a double fault");
	if (!hal_mark(&mark))
		hal_call_on((void *)(STACK_BOTTOM + STACK_SIZE), run_overflow, NULL);
	check(seen.vector == HAL_VEC_DF, "the next double fault is caught as well");
	if (!hal_mark(&mark))
		*(volatile char *)HOLE = 0;
	check(faults(HAL_VEC_PF, HAL_PF_W, HOLE), "and page faults are page faults again");
}

static bool on_nmi(struct hal_frame *frame)
{
	seen = *frame;
	traps_taken++;
	return true;
}

static void non_maskable(void)
{
	hal_trap_handler(HAL_VEC_NMI, on_nmi);
	traps_taken = 0;
	hal_irq_disable();
	hal_nmi_self();
	for (uint64_t end = hal_clock_ns() + 1000000000; !traps_taken && hal_clock_ns() < end;)
		;
	hal_irq_enable();
	check(traps_taken == 1 && seen.vector == HAL_VEC_NMI, "a non-maskable event comes with interrupts off");
}

int hal_main(void)
{
	struct hal_mem m;

	for (unsigned int i = 0; hal_memmap(i, &m); i++) {
		if (m.type == HAL_MEM_RAM && m.len >= STACK_SIZE)
			page = m.pa + m.len - STACK_SIZE;
	}
	hal_irq_enable();
	page_faults();
	exceptions();
	debugging();
	nesting();
	double_faults();
	non_maskable();
	hal_printf("traps: %d failures\n", failures);
	return failures != 0;
}
