// SPDX-License-Identifier: MIT
/*
 * A kernel that tests the HAL under it, the same way on both flavours, and
 * reports in KTAP. The samples show what the HAL is for; this looks at what they
 * do not: software interrupts, lazy sections against handlers and preemption,
 * registers and FP state across upcalls, start-up data, user code and its address
 * spaces, other processors. Wants the command line
 * to contain "word" and a module of 5000 bytes, byte i being i * 7. With "panic" or
 * "trap" on the command line it ends that way instead.
 */
#include <hal/hal.h>

#define VA 0x200000000000ull
#define RW (HAL_PROT_R | HAL_PROT_W)
#define MS 1000000ull
#define STACK_SIZE 16384

static unsigned int tests, failures;
static uint64_t base; /* 16 free physical pages */

static void check(bool ok, const char *what)
{
	hal_printf("%sok %u %s\n", ok ? "" : "not ", ++tests, what);
	failures += !ok;
}

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

static bool cmdline_has(const char *word)
{
	for (const char *s = hal_cmdline(); *s; s++) {
		const char *a = s, *b = word;

		while (*b && *a == *b) {
			a++;
			b++;
		}
		if (!*b)
			return true;
	}
	return false;
}

static void start_data(void)
{
	struct hal_mem m, prev = { 0, 0, HAL_MEM_RESERVED };
	uint64_t image = hal_va_to_pa((void *)(uintptr_t)hal_main), ram = 0;
	uint8_t a[64] = { 0 }, b[64] = { 0 };
	bool sorted = true, in_image = false, word = false;
	const struct hal_cpu *cpu = hal_cpu();
	int err;

	for (unsigned int i = 0; hal_memmap(i, &m); i++) {
		sorted &= m.len && !((m.pa | m.len) & (HAL_PAGE_SIZE - 1)) && (!i || m.pa >= prev.pa + prev.len);
		in_image |= m.type == HAL_MEM_IMAGE && image >= m.pa && image - m.pa < m.len;
		ram += m.type == HAL_MEM_RAM ? m.len : 0;
		if (m.type == HAL_MEM_RAM && m.len >= 16 * HAL_PAGE_SIZE)
			base = m.pa + m.len - 16 * HAL_PAGE_SIZE;
		prev = m;
	}
	check(sorted && ram > 32 << 20, "the memory map is sorted, by pages, and has memory");
	check(in_image, "this kernel lies in what the map calls the image");
	check(cmdline_has("word"), "the command line is there");
	in_image = hal_module(&m) && m.len == 5000;
	for (uint64_t i = 0; in_image && i < m.len; i++)
		in_image = ((uint8_t *)hal_pa_to_va(m.pa))[i] == (uint8_t)(i * 7);
	check(in_image, "the module is there, byte by byte");
	prev = m;
	word = false;
	for (unsigned int i = 0; hal_memmap(i, &m); i++)
		word |= m.type == HAL_MEM_MODULE && prev.pa >= m.pa && prev.pa + prev.len <= m.pa + m.len;
	check(word, "and the memory map keeps its pages");
	err = hal_entropy(a, sizeof(a));
	for (unsigned int i = 0; i < sizeof(a); i++)
		b[0] |= a[i];
	check((err == -HAL_ENOTSUP || (!err && b[0])) && hal_entropy(a, 65) == -HAL_EINVAL,
	      "random bytes, or the word that there are none");
	/* SSE2, as every x86-64 has. */
	check(cpu->cpuid[1] >> 26 & 1 && (cpu->xfeatures & 3) == 3 && cpu->xsave_size >= 512 &&
		      (!cpu->tsc_hz || cpu->tsc_hz > 100000000),
	      "what the CPU has");
	check(hal_va_to_pa(hal_pa_to_va(base + 5)) == base + 5, "addresses in the linear map translate both ways");
	hal_map(VA, base, HAL_PAGE_SIZE, RW, 0);
	check(hal_va_to_pa((void *)(VA + 9)) == base + 9, "and those of other mappings");
	hal_unmap(VA, HAL_PAGE_SIZE);
}

static void formatted(void)
{
	char s[40];

	hal_snprintf(s, sizeof(s), "%d|%5u|%-4s|%04x|%c|%lu%%", -7, 42u, "ab", 0xbeu, 'z', 1ul << 40);
	check(same(s, "-7|   42|ab  |00be|z|1099511627776%"), "formatted text");
	check(hal_snprintf(s, 4, "%s", "123456") == 6 && same(s, "123"), "and text that does not fit");
}

static unsigned int taken[HAL_IRQ_COUNT], hooks, order;
static unsigned int took_at[HAL_IRQ_COUNT];
static bool enabled_in_handler;

static void on_irq(struct hal_frame *frame, void *arg)
{
	unsigned int irq = (unsigned int)(uintptr_t)arg;

	(void)frame;
	taken[irq]++;
	took_at[irq] = ++order;
	enabled_in_handler |= hal_irq_enabled();
}

static void hook(struct hal_frame *frame)
{
	(void)frame;
	hooks++;
	order++;
}

static void interrupts(void)
{
	uint64_t deadline;
	bool on;

	hal_irq_handler(HAL_IRQ_SOFT0, on_irq, (void *)HAL_IRQ_SOFT0);
	hal_irq_handler(HAL_IRQ_SOFT1, on_irq, (void *)HAL_IRQ_SOFT1);
	hal_irq_exit_hook(hook);
	hal_irq_raise(HAL_IRQ_SOFT0);
	check(taken[HAL_IRQ_SOFT0] == 0 && !hal_irq_enabled(), "with interrupts off a raised line is held");
	hal_irq_raise(HAL_IRQ_SOFT0);
	hal_irq_enable();
	check(taken[HAL_IRQ_SOFT0] == 1 && hal_irq_enabled(),
	      "and taken once they are on, however often it was raised");
	check(hooks >= 1 && took_at[HAL_IRQ_SOFT0] < order && !enabled_in_handler,
	      "handlers run with interrupts off, then the exit hook");
	hal_irq_raise(HAL_IRQ_SOFT1);
	check(taken[HAL_IRQ_SOFT1] == 1 && taken[HAL_IRQ_SOFT0] == 1,
	      "with interrupts on it is taken at once, by its own handler");
	hal_irq_mask(HAL_IRQ_SOFT1);
	hal_irq_raise(HAL_IRQ_SOFT1);
	hal_irq_raise(HAL_IRQ_SOFT0);
	check(taken[HAL_IRQ_SOFT1] == 1 && taken[HAL_IRQ_SOFT0] == 2, "a masked line holds no other up");
	on = hal_irq_save();
	hal_irq_unmask(HAL_IRQ_SOFT1);
	check(taken[HAL_IRQ_SOFT1] == 1 && on, "unmasked with interrupts off it is still held");
	hal_irq_restore(on);
	check(taken[HAL_IRQ_SOFT1] == 2, "and taken when they are restored");
	on = hal_irq_save();
	hal_irq_restore(hal_irq_save());
	check(!hal_irq_enabled(), "save and restore nest");
	hal_irq_restore(on);
	check(hal_irq_raise(HAL_IRQ_TIMER) == -HAL_EINVAL && hal_irq_mask(HAL_IRQ_COUNT) == -HAL_EINVAL,
	      "lines that cannot be raised or are none are refused");

	hal_irq_disable();
	hal_irq_raise(HAL_IRQ_SOFT0);
	deadline = hal_clock_ns() + 1000 * MS;
	check(hal_wait(deadline) == 0 && taken[HAL_IRQ_SOFT0] == 3 && hal_clock_ns() < deadline && hal_irq_enabled(),
	      "a wait does not sleep on what is pending already");
	hal_irq_disable();
	deadline = hal_clock_ns() + 3 * MS;
	check(hal_wait(deadline) == -HAL_ETIMEDOUT && hal_clock_ns() >= deadline,
	      "a wait for nothing ends at its deadline");
	hal_irq_disable();
	check(hal_wait(1) == -HAL_ETIMEDOUT, "or at once when that has passed");
	hal_irq_exit_hook(NULL);
	hal_irq_handler(HAL_IRQ_SOFT1, NULL, NULL);
	hal_irq_raise(HAL_IRQ_SOFT1);
	check(taken[HAL_IRQ_SOFT1] == 2 && hal_irq_unmask(HAL_IRQ_SOFT1) == -HAL_EINVAL,
	      "a line without a handler stays masked");
}

static volatile unsigned int ticks;

static void on_tick(struct hal_frame *frame, void *arg)
{
	(void)frame;
	(void)arg;
	ticks++;
	hal_timer_set(hal_clock_ns() + 30000);
}

/*
 * Loads every register but rsp with a pattern, spins while interrupts come, and
 * counts what is not as it was. The xmm registers and flags too.
 */
static uint64_t register_damage(uint64_t spins)
{
	uint64_t bad = 0;

	__asm__ volatile("	lea -128(%%rsp), %%rsp\n" /* a compiler's red zone */
			 "	push %%rbp\n"
			 "	push %%rbx\n"
			 "	push %[bad]\n"
			 "	movq $0x1111, %%rax; movq %%rax, %%xmm0; movq %%rax, %%xmm7; movq %%rax, %%xmm15\n"
			 "	mov $0x2222, %%ebx; mov $0x3333, %%edx; mov $0x4444, %%esi\n"
			 "	mov $0x5555, %%edi; mov $0x6666, %%ebp; mov $0x7777, %%r8d; mov $0x8888, %%r9d\n"
			 "	mov $0x9999, %%r10d; mov $0xaaaa, %%r11d; mov $0xbbbb, %%r12d; mov $0xcccc, %%r13d\n"
			 "	mov $0xdddd, %%r14d; mov $0xeeee, %%r15d\n"
			 "1:	stc\n"
			 "	lea -1(%%rcx), %%rcx\n"
			 "	jnc 2f\n"
			 "	jrcxz 3f\n"
			 "	jmp 1b\n"
			 "2:	incq (%%rsp)\n"
			 "	jmp 1b\n"
			 "3:	cmp $0x1111, %%rax; jne 4f; cmp $0x2222, %%rbx; jne 4f\n"
			 "	cmp $0x3333, %%rdx; jne 4f; cmp $0x4444, %%rsi; jne 4f; cmp $0x5555, %%rdi; jne 4f\n"
			 "	cmp $0x6666, %%rbp; jne 4f; cmp $0x7777, %%r8; jne 4f; cmp $0x8888, %%r9; jne 4f\n"
			 "	cmp $0x9999, %%r10; jne 4f; cmp $0xaaaa, %%r11; jne 4f; cmp $0xbbbb, %%r12; jne 4f\n"
			 "	cmp $0xcccc, %%r13; jne 4f; cmp $0xdddd, %%r14; jne 4f; cmp $0xeeee, %%r15; jne 4f\n"
			 "	movq %%xmm0, %%rax; cmp $0x1111, %%rax; jne 4f\n"
			 "	movq %%xmm7, %%rax; cmp $0x1111, %%rax; jne 4f\n"
			 "	movq %%xmm15, %%rax; cmp $0x1111, %%rax; je 5f\n"
			 "4:	incq (%%rsp)\n"
			 "5:	pop %[bad]\n"
			 "	pop %%rbx\n"
			 "	pop %%rbp\n"
			 "	lea 128(%%rsp), %%rsp\n"
			 : [bad] "+a"(bad), "+c"(spins)
			 :
			 : "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
	return bad;
}

static void registers(void)
{
	uint64_t damage = 0;

	ticks = 0;
	hal_irq_handler(HAL_IRQ_TIMER, on_tick, NULL);
	hal_timer_set(hal_clock_ns());
	for (uint64_t end = hal_clock_ns() + 5000 * MS; ticks < 300 && hal_clock_ns() < end;)
		damage += register_damage(100000);
	hal_timer_set(HAL_NEVER);
	check(ticks >= 300 && damage == 0, "registers, flags and xmm survive interrupts");
	hal_printf("# %u interrupts\n", ticks);
}

static bool spare_red_zone(struct hal_frame *frame)
{
	frame->rip += 2; /* ud2 */
	return true;
}

static void traps_registers(void)
{
	uint64_t low = 0, high = 0, sp = 0;

	hal_trap_handler(HAL_VEC_UD, spare_red_zone);
	/* On bare hardware there is no red zone to keep: leave room as -mno-red-zone code has it. */
	if (same(hal_flavour(), "pv"))
		__asm__ volatile("movq $77, -8(%%rsp); movq $88, -128(%%rsp); mov %%rsp, %2\n"
				 "ud2\n"
				 "mov -8(%%rsp), %0; mov -128(%%rsp), %1; sub %%rsp, %2"
				 : "=&r"(high), "=&r"(low), "=&r"(sp)::"memory");
	else
		__asm__ volatile("mov $77, %0; mov $88, %1; mov %%rsp, %2; ud2; sub %%rsp, %2"
				 : "=&r"(high), "=&r"(low), "=&r"(sp)::"memory");
	check(high == 77 && low == 88 && sp == 0,
	      "the stack below the pointer survives a trap, as far as the flavour promises");
	hal_trap_handler(HAL_VEC_UD, NULL);
}

/* A handler that works on page tables inside the interrupted code's lazy section. */
static bool handler_saw;

static void map_in_handler(struct hal_frame *frame, void *arg)
{
	(void)frame;
	(void)arg;
	hal_map(VA + HAL_PAGE_SIZE, base + HAL_PAGE_SIZE, HAL_PAGE_SIZE, RW, 0);
	*(volatile uint64_t *)(VA + HAL_PAGE_SIZE) = 5;
	handler_saw = *(uint64_t *)hal_pa_to_va(base + HAL_PAGE_SIZE) == 5;
}

static struct hal_mark mark;

static bool leave(struct hal_frame *frame)
{
	hal_frame_resume(frame, &mark, 1);
	return true;
}

static void lazy(void)
{
	uint64_t pa;
	unsigned int prot;

	hal_irq_handler(HAL_IRQ_SOFT0, map_in_handler, NULL);
	hal_lazy_enter();
	hal_set_pte(VA, base | RW);
	hal_irq_raise(HAL_IRQ_SOFT0);
	hal_set_pte(VA + 2 * HAL_PAGE_SIZE, (base + 2 * HAL_PAGE_SIZE) | RW);
	check(handler_saw, "a handler's updates take effect at once inside a lazy section");
	check(!hal_lazy_leave() && !hal_query(VA, &pa, &prot) && pa == base &&
		      !hal_query(VA + 2 * HAL_PAGE_SIZE, &pa, &prot) && pa == base + 2 * HAL_PAGE_SIZE,
	      "and the section's own are not lost by it");

	/* A fault inside a section, given up to a mark outside: the section is left, what was put off is not lost. */
	hal_trap_handler(HAL_VEC_UD, leave);
	if (!hal_mark(&mark)) {
		hal_lazy_enter();
		hal_set_pte(VA + 3 * HAL_PAGE_SIZE, (base + 3 * HAL_PAGE_SIZE) | RW);
		__asm__ volatile("ud2");
	}
	hal_trap_handler(HAL_VEC_UD, NULL);
	check(!hal_map(VA + 4 * HAL_PAGE_SIZE, base, HAL_PAGE_SIZE, RW, 0) &&
		      *(volatile uint64_t *)(VA + 4 * HAL_PAGE_SIZE) + 1 &&
		      !hal_query(VA + 3 * HAL_PAGE_SIZE, &pa, &prot),
	      "a fault given up to a mark outside a lazy section leaves it");
	hal_unmap(VA, 5 * HAL_PAGE_SIZE);
}

static void dirty(void)
{
	static uint64_t bitmap[2];
	volatile uint64_t *p = (volatile uint64_t *)VA;
	int err;

	hal_map(VA, base, 16 * HAL_PAGE_SIZE, RW, HAL_MAP_POPULATE);
	err = hal_dirty_start(VA, 16 * HAL_PAGE_SIZE);
	if (err == -HAL_ENOTSUP) {
		check(true, "tracking written pages # SKIP the host does not offer HARVEST");
		hal_unmap(VA, 16 * HAL_PAGE_SIZE);
		return;
	}
	hal_dirty_collect(VA, 16 * HAL_PAGE_SIZE, bitmap);
	p[0] = 1;
	p[3 * 512] = 1;
	p[15 * 512 + 511] = 1;
	bitmap[1] = 99;
	err |= hal_dirty_collect(VA, 16 * HAL_PAGE_SIZE, bitmap);
	check(!err && (bitmap[0] & 0x8009) == 0x8009 && bitmap[0] <= 0xffff && bitmap[1] == 99,
	      "written pages are reported, none is missed");
	err = hal_dirty_collect(VA, 16 * HAL_PAGE_SIZE, bitmap);
	check(!err && bitmap[0] == 0, "and only once");
	err = hal_dirty_stop(VA, 16 * HAL_PAGE_SIZE);
	p[0] = 2;
	check(!err && *(uint64_t *)hal_pa_to_va(base) == 2, "tracking ends, pages stay writable");
	hal_unmap(VA, 16 * HAL_PAGE_SIZE);
}

/* Two stacks and the main one, switched by the timer inside lazy sections. */
static uint64_t rsp[3];
static unsigned int running, rounds[3];
static char stacks[2][STACK_SIZE] __attribute__((aligned(16)));
static volatile unsigned int section_errors;

static void switch_next(struct hal_frame *frame)
{
	unsigned int from = running;

	(void)frame;
	running = (running + 1) % 3;
	hal_switch(&rsp[from], rsp[running]);
}

/* Maps and unmaps four pages of its own, over and over. */
static void mapper(unsigned int n)
{
	uint64_t va = VA + n * 0x100000, pa = base + 4 * n * HAL_PAGE_SIZE, got;
	unsigned int prot;

	hal_lazy_enter();
	for (unsigned int i = 0; i < 4; i++)
		hal_set_pte(va + i * HAL_PAGE_SIZE, (pa + i * HAL_PAGE_SIZE) | RW);
	section_errors += hal_lazy_leave() != 0;
	for (unsigned int i = 0; i < 4; i++) {
		section_errors += hal_query(va + i * HAL_PAGE_SIZE, &got, &prot) || got != pa + i * HAL_PAGE_SIZE;
		*(volatile uint64_t *)(va + i * HAL_PAGE_SIZE) = n;
	}
	hal_lazy_enter();
	for (unsigned int i = 0; i < 4; i++)
		hal_set_pte(va + i * HAL_PAGE_SIZE, 0);
	section_errors += hal_lazy_leave() != 0;
	section_errors += hal_query(va, &got, &prot) != -HAL_ENOENT;
	rounds[n]++;
}

static void mapper_thread(void *arg)
{
	for (;;)
		mapper((unsigned int)(uintptr_t)arg);
}

static void preemption(void)
{
	for (unsigned int n = 1; n <= 2; n++)
		rsp[n] = hal_stack_prepare(stacks[n - 1] + STACK_SIZE, mapper_thread, (void *)(uintptr_t)n);
	ticks = 0;
	hal_irq_exit_hook(switch_next);
	hal_irq_handler(HAL_IRQ_TIMER, on_tick, NULL);
	hal_timer_set(hal_clock_ns());
	for (uint64_t end = hal_clock_ns() + 5000 * MS; ticks < 1000 && hal_clock_ns() < end;)
		mapper(0);
	hal_irq_disable();
	hal_irq_exit_hook(NULL);
	hal_timer_set(HAL_NEVER);
	hal_irq_enable();
	check(ticks >= 1000 && rounds[0] && rounds[1] && rounds[2] && !section_errors,
	      "three threads preempted inside lazy sections lose nothing");
	hal_printf("# %u switches, %u %u %u rounds, %u errors\n", ticks, rounds[0], rounds[1], rounds[2],
		   section_errors);
}

static void bases(void)
{
	static uint64_t area[2] = { 11, 22 };
	/* A host whose kernel does not know the instructions does not keep what they set. */
	bool fs = hal_cpu()->cpuid[2] & 1;
	uint64_t v = 22;

	hal_percpu_set(area);
	check(hal_percpu() == area, "the per-CPU pointer");
	if (fs) {
		hal_fsbase_set((uintptr_t)area);
		__asm__ volatile("mov %%fs:8, %0" : "=r"(v));
	}
	check(v == 22 && (!fs || hal_fsbase() == (uintptr_t)area), "FS base is the kernel's");
	hal_irq_raise(HAL_IRQ_SOFT0);
	v = 11;
	if (fs)
		__asm__ volatile("mov %%fs:0, %0" : "=r"(v));
	check(v == 11 && hal_percpu() == area, "both survive interrupts");
}

/* Calls or instructions that page-table work has taken so far. */
static uint64_t mmu_work(void)
{
	static const char *const names[] = { "mmu_batch", "invlpg", "mov to cr3" };
	struct hal_stat s[64];
	unsigned int n = hal_stats(s, 64);
	uint64_t sum = 0;

	for (unsigned int i = 0; i < n; i++) {
		for (unsigned int k = 0; k < 3; k++)
			sum += same(s[i].name, names[k]) ? s[i].calls : 0;
	}
	return sum;
}

static void counters(void)
{
	uint64_t before = mmu_work(), lazily;

	hal_lazy_enter();
	for (unsigned int i = 0; i < 16; i++)
		hal_set_pte(VA + i * HAL_PAGE_SIZE, (base + i * HAL_PAGE_SIZE) | RW);
	hal_lazy_leave();
	lazily = mmu_work() - before;
	check(lazily <= 1, "16 entries in a lazy section cost one call, or no flush at all");
	before = mmu_work();
	for (unsigned int i = 0; i < 16; i++)
		hal_set_pte(VA + i * HAL_PAGE_SIZE, 0);
	check(mmu_work() - before == 16, "and outside of one each is completed for itself");
}

/* ------------------------------------------------------------- user code */

#define USER_CODE 0x400000ull /* where this kernel lies itself, in its own space */
#define USER_DATA 0x10000000ull
#define USER_HOLE 0x20000000ull

/* Copied to a page that user code has at USER_CODE. */
__asm__(".section .rodata\n"
	"	.balign 16\n"
	"user_begin:\n"
	"user_call: syscall\n"
	"	jmp user_call\n"
	"user_load: mov (%rdi), %rax\n"
	"	syscall\n"
	"user_store: mov %rax, (%rdi)\n"
	"	syscall\n"
	"user_spin: incq (%rdi)\n"
	"	jmp user_spin\n"
	"user_ud2: ud2\n"
	"user_div: xor %ecx, %ecx\n"
	"user_div_at: div %ecx\n"
	"user_int3: int3\n"
	"user_hlt: hlt\n"
	"user_int80: int $0x80\n"
	"user_cli: cli\n"
	"user_fp: movq %rdi, %xmm5\n"
	"	syscall\n"
	"	movq %xmm5, %rax\n"
	"	syscall\n"
	"user_end:\n"
	"	.text\n");
extern const char user_begin[], user_end[], user_call[], user_load[], user_store[], user_spin[], user_ud2[], user_div[],
	user_div_at[], user_int3[], user_hlt[], user_int80[], user_cli[], user_fp[];

static char contexts[3][16384] __attribute__((aligned(4096)));
#define CONTEXT(n) ((struct hal_user *)contexts[n])

static uint64_t user_at(const char *label)
{
	return USER_CODE + (uint64_t)(label - user_begin);
}

/* From a label on, with registers as a new context has them but for rdi and rax. */
static int user_run(hal_space_t space, struct hal_user *u, const char *label, uint64_t rdi, uint64_t rax)
{
	int why;

	hal_user_init(u, user_at(label), USER_DATA + HAL_PAGE_SIZE);
	u->rdi = rdi;
	u->rax = rax;
	do {
		why = hal_user_enter(space, u);
	} while (why == HAL_USER_EVENT);
	return why;
}

static bool user_trapped(hal_space_t space, const char *label, unsigned int vector, const char *at, unsigned int behind)
{
	struct hal_user *u = CONTEXT(0);

	return user_run(space, u, label, 0, 0) == HAL_USER_EXCEPTION && u->vector == vector && !u->error && !u->addr &&
	       u->rip == user_at(at) + behind;
}

static bool user_faulted(hal_space_t space, const char *label, uint64_t addr, uint64_t error)
{
	struct hal_user *u = CONTEXT(0);

	return user_run(space, u, label, addr, 7) == HAL_USER_EXCEPTION && u->vector == HAL_VEC_PF &&
	       u->error == (error | HAL_PF_U) && u->addr == addr && u->rip == user_at(label);
}

/* A space with the code, and one page of data at base + 1 page. */
static int user_space(hal_space_t *space)
{
	char *code = hal_pa_to_va(base);
	int err = hal_space_create(space);

	for (long i = 0; i < user_end - user_begin; i++)
		code[i] = user_begin[i];
	if (err)
		return err;
	err = hal_space_map(*space, USER_CODE, base, HAL_PAGE_SIZE, HAL_PROT_R | HAL_PROT_X, 0);
	return err ? err : hal_space_map(*space, USER_DATA, base + HAL_PAGE_SIZE, HAL_PAGE_SIZE, RW, 0);
}

static void user_code(void)
{
	volatile uint64_t *data = hal_pa_to_va(base + HAL_PAGE_SIZE), *copied = hal_pa_to_va(base + 2 * HAL_PAGE_SIZE);
	struct hal_user *u = CONTEXT(0);
	uint64_t *r = &u->rax, bad = 0, pa, fs = hal_fsbase(), xmm;
	hal_space_t space, copy;
	unsigned int prot;
	int why;

	why = user_space(&space);
	check(!why, "an address space with code and data in it");
	if (why)
		return;
	data[0] = 1234;

	hal_user_init(u, user_at(user_call), 0x1234560);
	for (unsigned int i = 0; i < 15; i++)
		r[i] = 0x0101010101010101 * (i + 1);
	u->rflags = 0x8d5; /* CF PF AF ZF SF OF */
	why = hal_user_enter(space, u);
	for (unsigned int i = 0; i < 15; i++) {
		if (i != 2 && i != 10) /* rcx, r11 */
			bad += r[i] != 0x0101010101010101 * (i + 1);
	}
	check(why == HAL_USER_SYSCALL && u->reason == HAL_USER_SYSCALL && !bad && u->rsp == 0x1234560 &&
		      u->rip == user_at(user_call) + 2 && u->rcx == u->rip && (u->rflags & 0xcd5) == 0x8d5,
	      "a system call brings every register");
	for (unsigned int i = 0; i < 15; i++)
		r[i] ^= 0xff;
	why = hal_user_enter(space, u);
	bad = 0;
	for (unsigned int i = 0; i < 15; i++) {
		if (i != 2 && i != 10)
			bad += r[i] != ((0x0101010101010101 * (i + 1)) ^ 0xff);
	}
	check(why == HAL_USER_SYSCALL && !bad, "and what the kernel changed goes back");

	xmm = 0x5555;
	__asm__ volatile("movq %0, %%xmm5" ::"r"(xmm));
	why = user_run(space, u, user_fp, 0x7777, 0);
	__asm__ volatile("movq %%xmm5, %0" : "=r"(xmm));
	check(why == HAL_USER_SYSCALL && xmm == 0x5555, "the kernel's FP registers are not user code's");
	why = hal_user_enter(space, u);
	check(why == HAL_USER_SYSCALL && u->rax == 0x7777, "and user code keeps its own");

	check(user_run(space, u, user_load, USER_DATA, 0) == HAL_USER_SYSCALL && u->rax == 1234 &&
		      user_run(space, u, user_store, USER_DATA + 8, 99) == HAL_USER_SYSCALL && data[1] == 99,
	      "it reads and writes its memory");
	check(user_faulted(space, user_load, USER_HOLE, 0) &&
		      user_faulted(space, user_store, USER_HOLE + 8, HAL_PF_W) &&
		      user_faulted(space, user_store, USER_CODE, HAL_PF_W | HAL_PF_P),
	      "faults say address and access");
	hal_user_init(u, USER_DATA, 0);
	check(hal_user_enter(space, u) == HAL_USER_EXCEPTION && u->vector == HAL_VEC_PF && u->addr == USER_DATA &&
		      u->error == (HAL_PF_U | HAL_PF_P | HAL_PF_X),
	      "and so does a jump to data");
	check(user_faulted(space, user_load, (uintptr_t)contexts, 0) &&
		      user_faulted(space, user_store, HAL_LINEAR_VA + base, HAL_PF_W),
	      "the kernel's memory is not there");
	check(user_trapped(space, user_ud2, HAL_VEC_UD, user_ud2, 0) &&
		      user_trapped(space, user_div, HAL_VEC_DE, user_div_at, 0) &&
		      user_trapped(space, user_int3, HAL_VEC_BP, user_int3, 1) &&
		      user_trapped(space, user_hlt, HAL_VEC_GP, user_hlt, 0) &&
		      user_trapped(space, user_cli, HAL_VEC_GP, user_cli, 0) &&
		      user_trapped(space, user_int80, HAL_VEC_GP, user_int80, 0),
	      "exceptions of other kinds stop it too");

	ticks = 0;
	hal_irq_handler(HAL_IRQ_TIMER, on_tick, NULL);
	hal_timer_set(hal_clock_ns() + MS);
	hal_user_init(u, user_at(user_spin), 0);
	u->rdi = USER_DATA;
	bad = 0;
	for (uint64_t end = hal_clock_ns() + 5000 * MS; ticks < 50 && hal_clock_ns() < end;)
		bad += hal_user_enter(space, u) != HAL_USER_EVENT;
	hal_timer_set(HAL_NEVER);
	check(ticks >= 50 && !bad && data[0] > 1234 && hal_irq_enabled(),
	      "interrupts end an endless loop, and are handled");
	/* As with a wait: what came after the last look is not slept, or run, through. */
	hal_user_init(u, user_at(user_spin), 0);
	u->rdi = USER_DATA;
	taken[HAL_IRQ_SOFT0] = 0;
	hal_irq_handler(HAL_IRQ_SOFT0, on_irq, (void *)HAL_IRQ_SOFT0);
	hal_irq_disable();
	hal_irq_raise(HAL_IRQ_SOFT0);
	why = hal_user_enter(space, u);
	check(why == HAL_USER_EVENT && taken[HAL_IRQ_SOFT0] == 1 && hal_irq_enabled(),
	      "what is pending already keeps it from running on");
	check(!(hal_cpu()->cpuid[2] & 1) || hal_fsbase() == fs, "FS base is still the kernel's");

	/* As fork() does it. */
	data[0] = 1;
	check(!hal_space_clone(space, &copy, 0) && copy != space && !hal_space_query(copy, USER_DATA, &pa, &prot) &&
		      pa == base + HAL_PAGE_SIZE && prot == HAL_PROT_R &&
		      !hal_space_query(space, USER_DATA, &pa, &prot) && prot == HAL_PROT_R,
	      "a copy of the space has the same pages, read-only in both");
	check(user_faulted(copy, user_store, USER_DATA, HAL_PF_W | HAL_PF_P) &&
		      user_run(copy, u, user_load, USER_DATA, 0) == HAL_USER_SYSCALL && u->rax == 1,
	      "a write to one faults, a read does not");
	copied[0] = data[0];
	hal_space_map(copy, USER_DATA, base + 2 * HAL_PAGE_SIZE, HAL_PAGE_SIZE, RW, 0);
	hal_space_protect(space, USER_DATA, HAL_PAGE_SIZE, RW);
	check(user_run(copy, u, user_store, USER_DATA, 5) == HAL_USER_SYSCALL &&
		      user_run(space, u, user_store, USER_DATA, 6) == HAL_USER_SYSCALL && copied[0] == 5 &&
		      data[0] == 6,
	      "with a page each they no longer see each other");
	check(hal_space_query(HAL_SPACE_KERNEL, USER_DATA, &pa, &prot) == -HAL_ENOENT, "and the kernel has none of it");
	check(!hal_space_unmap(space, USER_DATA, HAL_PAGE_SIZE) && user_faulted(space, user_load, USER_DATA, 0),
	      "what is unmapped is gone");
	hal_space_destroy(copy);

	hal_user_init(u, user_at(user_call), 0);
	check(hal_user_enter(copy, u) == -HAL_ENOENT &&
		      hal_space_unmap(copy, USER_DATA, HAL_PAGE_SIZE) == -HAL_ENOENT &&
		      hal_space_destroy(copy) == -HAL_ENOENT && hal_user_enter(HAL_SPACE_KERNEL, u) == -HAL_ENOENT,
	      "the handle of a space that was destroyed names none");
	u->size++;
	why = hal_user_enter(space, u);
	hal_user_init(u, 1ull << 63, 0);
	check(why == -HAL_EINVAL && hal_user_enter(space, u) == -HAL_ERANGE, "registers that cannot be are refused");
	for (bad = 0; bad < 200; bad++) {
		if (hal_space_clone(space, &copy, HAL_CLONE_SHARE) || hal_space_destroy(copy))
			break;
	}
	check(bad == 200 && !hal_space_destroy(space), "spaces come and go");
}

/* ------------------------------------------------------- other processors */

static char cpu_stacks[HAL_CPU_MAX][STACK_SIZE] __attribute__((aligned(16)));
static volatile unsigned int cpu_state[HAL_CPU_MAX], cpu_hits[HAL_CPU_MAX], cpu_ticks[HAL_CPU_MAX];
static volatile unsigned int cpus_leave;
static hal_space_t cpu_space;
static volatile int cpu_why[HAL_CPU_MAX];

static void on_ipi(struct hal_frame *frame, void *arg)
{
	(void)frame;
	(void)arg;
	cpu_hits[hal_cpu_number()]++;
}

static void on_cpu_tick(struct hal_frame *frame, void *arg)
{
	(void)frame;
	(void)arg;
	cpu_ticks[hal_cpu_number()]++;
}

/* True when what is waited for came in time. */
static bool until(bool (*what)(void))
{
	uint64_t end = hal_clock_ns() + 10000 * MS;

	while (!what()) {
		if (hal_clock_ns() > end)
			return false;
		hal_cpu_relax();
	}
	return true;
}

static uint64_t other_cpus(void)
{
	return (1ull << hal_cpu_count()) - 2;
}

static bool all_in_state(unsigned int state)
{
	for (unsigned int n = 1; n < hal_cpu_count(); n++) {
		if (cpu_state[n] != state)
			return false;
	}
	return true;
}

static bool all_up(void)
{
	return all_in_state(1);
}

static bool all_done(void)
{
	return all_in_state(2);
}

static bool all_stopped(void)
{
	for (unsigned int n = 1; n < hal_cpu_count(); n++) {
		if (hal_cpu_running(n))
			return false;
	}
	return true;
}

static bool all_hit(void)
{
	for (unsigned int n = 0; n < hal_cpu_count(); n++) {
		if (!cpu_hits[n])
			return false;
	}
	return true;
}

/* Sleep, count interrupts, until told to leave. */
static void cpu_idle(void *arg)
{
	unsigned int n = hal_cpu_number();

	if (arg != &cpu_state[n] || hal_irq_enabled() || hal_percpu())
		return;
	hal_percpu_set(arg);
	hal_irq_unmask(HAL_IRQ_SOFT0);
	hal_irq_unmask(HAL_IRQ_TIMER);
	hal_timer_set(hal_clock_ns() + MS);
	cpu_state[n] = 1;
	for (;;) {
		hal_irq_disable();
		if (cpus_leave)
			break;
		hal_wait(HAL_NEVER);
	}
	if (hal_percpu() == arg)
		cpu_state[n] = 2;
}

/* Write to a page of the kernel's space without pause. */
static void cpu_writer(void *arg)
{
	volatile uint64_t *page = arg;

	hal_irq_enable();
	cpu_state[hal_cpu_number()] = 1;
	while (!cpus_leave)
		page[hal_cpu_number()]++;
	cpu_state[hal_cpu_number()] = 2;
}

/* The same in user code. */
static void cpu_user(void *arg)
{
	unsigned int n = hal_cpu_number();
	struct hal_user *u = CONTEXT(n);
	int why;

	(void)arg;
	hal_user_init(u, user_at(user_spin), 0);
	u->rdi = USER_DATA + 8 * n;
	hal_irq_enable();
	cpu_state[n] = 1;
	do {
		why = hal_user_enter(cpu_space, u);
	} while (why == HAL_USER_EVENT);
	hal_irq_disable();
	cpu_why[n] = why;
	cpu_state[n] = 2;
}

static bool cpus_start(unsigned int count, void (*fn)(void *), void *arg)
{
	bool ok = true;

	cpus_leave = 0;
	for (unsigned int n = 1; n < count; n++) {
		cpu_state[n] = 0;
		ok &= !hal_cpu_start(n, cpu_stacks[n] + STACK_SIZE, fn, arg ? arg : (void *)&cpu_state[n]);
	}
	return ok;
}

/* After the page at va became another one, does anybody still write to the old? */
static bool left_alone(uint64_t pa)
{
	volatile uint64_t *page = hal_pa_to_va(pa);
	uint64_t sum = 0, later = 0;

	for (unsigned int i = 0; i < HAL_CPU_MAX; i++)
		sum += page[i];
	for (uint64_t end = hal_clock_ns() + MS; hal_clock_ns() < end;)
		;
	for (unsigned int i = 0; i < HAL_CPU_MAX; i++)
		later += page[i];
	return sum == later;
}

/* The page at va is one and the other in turns, at least so often, and until all have been seen at work on both. */
static bool replaced_for_all(hal_space_t space, uint64_t va, unsigned int count)
{
	volatile uint64_t *pages[2] = { hal_pa_to_va(base + HAL_PAGE_SIZE), hal_pa_to_va(base + 2 * HAL_PAGE_SIZE) };
	uint64_t deadline = hal_clock_ns() + 10000 * MS;
	unsigned int rounds = 0, good = 0, moved = 0;

	while (rounds < 50 || (moved < count - 1 && hal_clock_ns() < deadline)) {
		uint64_t to = base + (1 + (rounds + 1) % 2) * HAL_PAGE_SIZE;

		for (uint64_t end = hal_clock_ns() + MS; hal_clock_ns() < end;)
			hal_cpu_relax();
		hal_space_map(space, va, to, HAL_PAGE_SIZE, RW, 0);
		good += left_alone(base + (1 + rounds++ % 2) * HAL_PAGE_SIZE);
		moved = 0;
		for (unsigned int n = 1; n < count; n++)
			moved += pages[0][n] && pages[1][n];
	}
	hal_printf("# %u of %u rounds, %u CPUs\n", good, rounds, moved);
	return good == rounds && moved == count - 1;
}

static void processors(void)
{
	unsigned int count = hal_cpu_count(), ok = 0;

	check(hal_cpu_number() == 0 && hal_cpu_running(0) && hal_cpu()->number == 0, "this is CPU 0");
	check(hal_cpu_start(count, cpu_stacks[1], cpu_idle, NULL) == -HAL_ENOENT && !hal_cpu_running(count) &&
		      hal_cpu_start(0, cpu_stacks[1], cpu_idle, NULL) == -HAL_EBUSY,
	      "CPUs that are not there, or run, cannot be started");
	hal_irq_handler(HAL_IRQ_SOFT0, on_ipi, NULL);
	hal_irq_handler(HAL_IRQ_TIMER, on_cpu_tick, NULL);
	cpu_hits[0] = 0;
	check(!hal_irq_send(1, HAL_IRQ_SOFT0) && cpu_hits[0] == 1 &&
		      hal_irq_send(1ull << 40, HAL_IRQ_SOFT0) == -HAL_ENOENT &&
		      hal_irq_send(1, HAL_IRQ_TIMER) == -HAL_EINVAL,
	      "an interrupt sent to this CPU arrives");
	hal_printf("# %u CPUs\n", count);
	if (count == 1)
		return;

	check(all_stopped() && cpus_start(count, cpu_idle, NULL) && until(all_up),
	      "every CPU starts, on its stack, with its data");
	for (unsigned int n = 0; n < count; n++)
		cpu_hits[n] = 0;
	check(!hal_irq_send(other_cpus() | 1, HAL_IRQ_SOFT0) && until(all_hit), "an interrupt sent to all wakes them");
	for (uint64_t end = hal_clock_ns() + 5000 * MS; ok < count - 1 && hal_clock_ns() < end; hal_cpu_relax()) {
		ok = 0;
		for (unsigned int n = 1; n < count; n++)
			ok += cpu_ticks[n] == 1;
	}
	check(ok == count - 1 && !cpu_ticks[0], "each has a timer of its own");
	cpus_leave = 1;
	hal_irq_send(other_cpus(), HAL_IRQ_SOFT0);
	check(until(all_done) && until(all_stopped), "and stops when its function returns");

	for (uint64_t i = 0; i < 2 * HAL_PAGE_SIZE / 8; i++)
		((uint64_t *)hal_pa_to_va(base + HAL_PAGE_SIZE))[i] = 0;
	hal_map(VA, base + HAL_PAGE_SIZE, HAL_PAGE_SIZE, RW, 0);
	check(cpus_start(count, cpu_writer, (void *)VA) && until(all_up), "they can be started again");
	check(replaced_for_all(HAL_SPACE_KERNEL, VA, count),
	      "a mapping replaced under them is replaced for all when the call returns");
	check(!hal_cpu_stop(1) && !hal_cpu_running(1) && !hal_cpu_stop(1),
	      "a CPU in the middle of something is stopped");
	cpus_leave = 1;
	check(until(all_stopped), "the others return");
	hal_unmap(VA, HAL_PAGE_SIZE);

	for (uint64_t i = 0; i < 2 * HAL_PAGE_SIZE / 8; i++)
		((uint64_t *)hal_pa_to_va(base + HAL_PAGE_SIZE))[i] = 0;
	if (user_space(&cpu_space))
		return;
	count = count < 3 ? count : 3;
	check(cpus_start(count, cpu_user, NULL), "user code on two of them, in one space");
	check(replaced_for_all(cpu_space, USER_DATA, count),
	      "a page replaced under it is replaced on all CPUs when the call returns");
	check(!hal_space_destroy(cpu_space) && until(all_stopped) && cpu_why[1] == -HAL_ENOENT,
	      "the space destroyed under it, it ends");
}

int hal_main(void)
{
	if (cmdline_has("panic"))
		hal_panic("asked to %s, %d times", "panic", 1);
	if (cmdline_has("trap"))
		__asm__ volatile("ud2");
	hal_printf("KTAP version 1\n");
	start_data();
	formatted();
	interrupts();
	registers();
	traps_registers();
	lazy();
	dirty();
	preemption();
	bases();
	counters();
	user_code();
	processors();
	hal_printf("1..%u\n", tests);
	return failures != 0;
}
