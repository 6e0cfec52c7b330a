// SPDX-License-Identifier: MIT
/*
 * A guest that runs user code in all the ways there are to stop it, for bringing up a
 * backend: each way by itself, without the conformance suite around it. Prints KTAP; its
 * exit code is the number of checks that failed. Words on the command line name the
 * groups to run; without any all are.
 */
#include <hypercall/batch.h>
#include <hypercall/guest.h>

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(MMU) | KEEL_NEEDS(AS) | KEEL_NEEDS(HARVEST) | KEEL_NEEDS(TRAP) |
			 KEEL_NEEDS(USER) | KEEL_NEEDS(VCPU) | KEEL_NEEDS(EVENT) | KEEL_NEEDS(TIME) |
			 KEEL_NEEDS(CONSOLE),
		 0);

#define PAGE KEEL_U64(4096)
#define CODE_VA KEEL_U64(0x10000000)
#define DATA_VA KEEL_U64(0x20000000)
#define DATA_PAGES 4
#define HOLE_VA KEEL_U64(0x30000000)
#define STACK_VA KEEL_U64(0x40000000)
#define VSYSCALL_VA KEEL_U64(0xffffffffff600000)
#define NOT_CANONICAL KEEL_U64(0x0000800000000000)
#define SPACES 40
#define TICK_NS 2000000
#define FLAGS KEEL_U64(0x202)
#define TF KEEL_U64(0x100)
#define FP_ROUNDS 20

/* User code: one page, mapped at CODE_VA. */
__asm__(".pushsection .text.user, \"ax\", @progbits\n"
	".balign 4096\n"
	".globl user_code, u_syscall, u_read, u_write, u_jump, u_push, u_loop, u_div, u_ud2, u_int3, u_int80, u_int13, u_int4\n"
	".globl u_hlt, u_cli, u_in, u_out, u_wrmsr, u_cr3, u_sysenter, u_nops, u_popf, u_bases, u_segments, u_xmm, u_fpe\n"
	".globl u_far, u_iretq, u_swapgs\n"
	"user_code:\n"
	"u_syscall: syscall; jmp u_syscall\n"
	"u_read: mov (%rdi), %rax; syscall\n"
	"u_write: mov %rsi, (%rdi); syscall\n"
	"u_jump: jmp *%rdi\n"
	"u_push: push %rax; syscall\n"
	"u_loop: inc %rax; jmp u_loop\n"
	"u_div: xor %ecx, %ecx; div %ecx\n"
	"u_ud2: ud2\n"
	"u_int3: int3; syscall\n"
	"u_int80: int $0x80; syscall\n"
	"u_int13: int $13; syscall\n"
	"u_int4: int $4; syscall\n"
	"u_hlt: hlt\n"
	"u_cli: cli\n"
	"u_in: in $0x80, %al; syscall\n"
	"u_out: out %eax, %dx; syscall\n"
	"u_wrmsr: wrmsr\n"
	"u_cr3: mov %cr3, %rax\n"
	"u_sysenter: .byte 0x0f, 0x34; syscall\n"
	"u_nops: nop; nop; syscall; nop\n"
	"u_popf: push %rdi; popfq; syscall\n"
	"u_bases: mov %fs:0, %rax; mov %gs:0, %rbx; syscall\n"
	"u_segments: mov %edi, %ds; mov %edi, %es; mov %edi, %fs; syscall; mov %ds, %eax; mov %es, %ebx; mov %fs, %edx; syscall\n"
	"u_xmm: paddq %xmm1, %xmm0; syscall; jmp u_xmm\n"
	"u_fpe: push %rdi; fldcw (%rsp); fldz; fld1; fdivp; fwait; syscall\n"
	"u_far: push $0x33; push %rdi; lretq; syscall\n"
	"u_iretq: iretq\n"
	"u_swapgs: swapgs\n"
	".balign 4096\n"
	".popsection\n");
extern char user_code[], u_syscall[], u_read[], u_write[], u_jump[], u_push[], u_loop[], u_div[], u_ud2[], u_int3[],
	u_int80[], u_int13[], u_int4[], u_hlt[], u_cli[], u_in[], u_out[], u_wrmsr[], u_cr3[], u_sysenter[], u_nops[],
	u_popf[], u_bases[], u_segments[], u_xmm[], u_fpe[], u_far[], u_iretq[], u_swapgs[];

union context {
	struct keel_user user;
	keel_u8 bytes[4096];
	keel_u64 word[512];
};

static union context ctx[2] __attribute__((aligned(4096)));
static keel_u64 data[DATA_PAGES][512] __attribute__((aligned(4096)));
static keel_u64 other[512] __attribute__((aligned(4096)));
static keel_u64 stack[512] __attribute__((aligned(4096)));
static struct keel_mmu_record recs[64] __attribute__((aligned(4096)));
static keel_u64 bitmap[8] __attribute__((aligned(64)));
static keel_u32 area_size;
static keel_as_t space;
static unsigned int checks, failed;
static volatile unsigned int ticks;
static volatile bool again;

static void check(bool good, const char *what)
{
	failed += !good;
	keel_printf("%sok %u %s\n", good ? "" : "not ", ++checks, what);
}

static keel_u64 at(const char *code)
{
	return CODE_VA + (keel_u64)(code - user_code);
}

static void map(keel_as_t as, keel_u64 va, const void *what, keel_u64 len, keel_u16 prot)
{
	struct keel_batch b;

	keel_batch_init(&b, recs, keel_gpa_of(recs), 64, as, keel_batch_submit, NULL);
	if (what)
		keel_batch_map(&b, va, keel_gpa_of(what), len, prot, 0);
	else if (prot)
		keel_batch_protect(&b, va, len, prot);
	else
		keel_batch_unmap(&b, va, len);
	if (keel_batch_flush(&b) != KEEL_OK)
		keel_panic("mapping %#lx", (unsigned long)va);
}

static keel_as_t make_space(void)
{
	const keel_as_t as = keel_as(keel_must(keel_as_create(0)));

	map(as, CODE_VA, user_code, PAGE, KEEL_PROT_R | KEEL_PROT_X);
	map(as, DATA_VA, data, sizeof(data), KEEL_PROT_R | KEEL_PROT_W);
	map(as, STACK_VA, stack, sizeof(stack), KEEL_PROT_R | KEEL_PROT_W);
	return as;
}

static void fresh(union context *c, const char *code)
{
	for (unsigned int i = 0; i < 512; i++)
		c->word[i] = 0;
	c->user.size = area_size;
	c->user.rip = at(code);
	c->user.rsp = STACK_VA + PAGE;
	c->user.rflags = FLAGS;
	c->bytes[KEEL_USER_XSAVE] = 0x7f; /* FCW */
	c->bytes[KEEL_USER_XSAVE + 1] = 3;
	c->bytes[KEEL_USER_XSAVE + 24] = 0x80; /* MXCSR */
	c->bytes[KEEL_USER_XSAVE + 25] = 0x1f;
}

static keel_u64 enter(keel_as_t as, union context *c)
{
	return keel_must(keel_user_enter(as, keel_gpa_of(c), 0));
}

/* Entered once, it must stop so. */
static struct keel_user *expect(const char *code, keel_u64 rdi, keel_u32 reason, keel_u32 vector, keel_u64 error,
				keel_u64 addr, const char *what)
{
	struct keel_user *u = &ctx[0].user;
	keel_u64 got;

	fresh(&ctx[0], code);
	u->rdi = rdi;
	got = enter(space, &ctx[0]);
	check(got == reason && u->reason == reason && u->vector == vector && u->error == error && u->addr == addr,
	      what);
	if (got != reason || u->reason != reason || u->vector != vector || u->error != error || u->addr != addr)
		keel_printf("# reason %u vector %u error %#lx addr %#lx rip %#lx\n", (unsigned int)got, u->vector,
			    (unsigned long)u->error, (unsigned long)u->addr, (unsigned long)u->rip);
	return u;
}

static void system_calls(void)
{
	struct keel_user *u = &ctx[0].user;
	keel_u64 *const first = &u->rax, *const last = &u->r15;
	bool same = true;

	fresh(&ctx[0], u_syscall);
	for (keel_u64 *r = first; r <= last; r++)
		*r = KEEL_U64(0x1111111111111111) * (keel_u64)(r - first + 1);
	check(enter(space, &ctx[0]) == KEEL_USER_SYSCALL, "a system call is the reason");
	check(u->rip == at(u_syscall) + 2 && u->rcx == u->rip,
	      "rip is behind it, and rcx what the processor makes of it");
	for (keel_u64 *r = first; r <= last; r++)
		if (r != &u->rcx && r != &u->r11)
			same &= *r == KEEL_U64(0x1111111111111111) * (keel_u64)(r - first + 1);
	check(same, "the other registers are the context's");
	check((u->rflags & ~KEEL_USER_RFLAGS) == FLAGS && u->rsp == STACK_VA + PAGE, "flags and stack pointer too");
	for (unsigned int i = 0; i < 1000; i++)
		same &= enter(space, &ctx[0]) == KEEL_USER_SYSCALL && u->rip == at(u_syscall) + 2 && u->rax == *first;
	check(same, "a thousand more of them");
	fresh(&ctx[0], u_popf);
	u->rdi = 0x40dd5 | FLAGS;
	check(enter(space, &ctx[0]) == KEEL_USER_SYSCALL || u->vector == KEEL_VEC_DB, "flags that popf sets");
	fresh(&ctx[0], u_popf);
	u->rdi = 0x7cd5 | FLAGS; /* IOPL and NT as well */
	check(enter(space, &ctx[0]) == KEEL_USER_SYSCALL && u->rflags == (0xcd5 | FLAGS), "NT and IOPL do not show");
	check(enter(space, &ctx[0]) != KEEL_USER_EVENT, "and it goes on");
}

static void faults(void)
{
	struct keel_user *u;

	data[0][0] = 4711;
	u = expect(u_read, DATA_VA, KEEL_USER_SYSCALL, 0, 0, 0, "a page is read");
	check(u->rax == 4711, "and holds what it holds");
	expect(u_read, HOLE_VA + 8, KEEL_USER_EXCEPTION, KEEL_VEC_PF, KEEL_PF_U, HOLE_VA + 8, "read of a hole");
	u = expect(u_write, HOLE_VA, KEEL_USER_EXCEPTION, KEEL_VEC_PF, KEEL_PF_U | KEEL_PF_W, HOLE_VA,
		   "write to a hole");
	check(u->rip == at(u_write), "rip is the instruction");
	expect(u_jump, HOLE_VA, KEEL_USER_EXCEPTION, KEEL_VEC_PF, KEEL_PF_U | KEEL_PF_X, HOLE_VA, "jump into a hole");
	expect(u_jump, DATA_VA, KEEL_USER_EXCEPTION, KEEL_VEC_PF, KEEL_PF_U | KEEL_PF_X | KEEL_PF_P, DATA_VA,
	       "jump into data");
	expect(u_write, CODE_VA, KEEL_USER_EXCEPTION, KEEL_VEC_PF, KEEL_PF_U | KEEL_PF_W | KEEL_PF_P, CODE_VA,
	       "write to code");
	map(space, HOLE_VA, other, PAGE, KEEL_PROT_R | KEEL_PROT_W);
	expect(u_write, HOLE_VA, KEEL_USER_SYSCALL, 0, 0, 0, "the hole is filled");
	map(space, HOLE_VA, NULL, PAGE, KEEL_PROT_R);
	expect(u_write, HOLE_VA, KEEL_USER_EXCEPTION, KEEL_VEC_PF, KEEL_PF_U | KEEL_PF_W | KEEL_PF_P, HOLE_VA,
	       "made read-only");
	expect(u_read, HOLE_VA, KEEL_USER_SYSCALL, 0, 0, 0, "and can be read");
	map(space, HOLE_VA, NULL, PAGE, 0);
	expect(u_read, HOLE_VA, KEEL_USER_EXCEPTION, KEEL_VEC_PF, KEEL_PF_U, HOLE_VA, "a hole again");
	expect(u_read, NOT_CANONICAL, KEEL_USER_EXCEPTION, KEEL_VEC_GP, 0, 0, "an address that is not canonical");
	fresh(&ctx[0], u_push);
	ctx[0].user.rsp = NOT_CANONICAL + 8;
	check(enter(space, &ctx[0]) == KEEL_USER_EXCEPTION &&
		      (ctx[0].user.vector == KEEL_VEC_SS || ctx[0].user.vector == KEEL_VEC_GP),
	      "a stack that is not canonical");
	expect(u_jump, VSYSCALL_VA, KEEL_USER_EXCEPTION, KEEL_VEC_PF, KEEL_PF_U | KEEL_PF_X, VSYSCALL_VA, "vsyscall");
}

/* Whether ring3 hides its window or kvm forbids it: nothing of the guest kernel's is there. */
static void walls(void)
{
	static const keel_u64 from[] = { KEEL_U64(0x7f0100000000), KEEL_U64(0x7f0200000000), KEEL_U64(0x7f0300000000),
					 KEEL_U64(0x7f0300400000), KEEL_U64(0x7f1000000000) };
	bool walled = true;

	for (unsigned int i = 0; i < sizeof(from) / sizeof(from[0]); i++)
		for (unsigned int how = 0; how < 3; how++) {
			fresh(&ctx[0], how == 0 ? u_read : how == 1 ? u_write : u_jump);
			ctx[0].user.rdi = from[i];
			walled &= enter(space, &ctx[0]) == KEEL_USER_EXCEPTION && ctx[0].user.vector == KEEL_VEC_PF &&
				  !(ctx[0].user.error & KEEL_PF_P) && ctx[0].user.addr == from[i];
		}
	check(walled, "the host's window is out of reach");
	fresh(&ctx[0], u_read);
	ctx[0].user.rdi = (keel_u64)&data;
	check(enter(space, &ctx[0]) == KEEL_USER_EXCEPTION && ctx[0].user.vector == KEEL_VEC_PF,
	      "the guest kernel's addresses are not the user's");
}

static void exceptions(void)
{
	struct keel_user *u = expect(u_div, 0, KEEL_USER_EXCEPTION, KEEL_VEC_DE, 0, 0, "#DE");

	check(u->rip == at(u_div) + 2, "rip is the instruction");
	expect(u_ud2, 0, KEEL_USER_EXCEPTION, KEEL_VEC_UD, 0, 0, "#UD");
	u = expect(u_int3, 0, KEEL_USER_EXCEPTION, KEEL_VEC_BP, 0, 0, "int3");
	check(u->rip == at(u_int3) + 1, "rip is behind it");
	u = expect(u_int80, 0, KEEL_USER_EXCEPTION, KEEL_VEC_GP, 0, 0, "int 0x80");
	check(u->rip == at(u_int80), "rip is the instruction");
	u = expect(u_int13, 0, KEEL_USER_EXCEPTION, KEEL_VEC_GP, 0, 0, "int 13");
	check(u->rip == at(u_int13), "rip is the instruction");
	fresh(&ctx[0], u_int4);
	check(enter(space, &ctx[0]) == KEEL_USER_EXCEPTION &&
		      (ctx[0].user.vector == 4 || ctx[0].user.vector == KEEL_VEC_GP),
	      "int 4");
	expect(u_hlt, 0, KEEL_USER_EXCEPTION, KEEL_VEC_GP, 0, 0, "hlt");
	expect(u_cli, 0, KEEL_USER_EXCEPTION, KEEL_VEC_GP, 0, 0, "cli");
	expect(u_in, 0, KEEL_USER_EXCEPTION, KEEL_VEC_GP, 0, 0, "in");
	fresh(&ctx[0], u_out);
	ctx[0].user.rdx = 0x4b45; /* where kvm's monitor has its door to the host */
	check(enter(space, &ctx[0]) == KEEL_USER_EXCEPTION && ctx[0].user.vector == KEEL_VEC_GP, "out");
	expect(u_wrmsr, 0, KEEL_USER_EXCEPTION, KEEL_VEC_GP, 0, 0, "wrmsr");
	expect(u_cr3, 0, KEEL_USER_EXCEPTION, KEEL_VEC_GP, 0, 0, "mov from cr3");
	expect(u_swapgs, 0, KEEL_USER_EXCEPTION, KEEL_VEC_GP, 0, 0, "swapgs");
	expect(u_sysenter, 0, KEEL_USER_EXCEPTION, KEEL_VEC_UD, 0, 0, "sysenter");
	fresh(&ctx[0], u_iretq);
	check(enter(space, &ctx[0]) == KEEL_USER_EXCEPTION, "iretq with nothing to return to");
	/* Of x87, all unmasked: an interpreted processor may not know those of SSE. */
	expect(u_fpe, 0x340, KEEL_USER_EXCEPTION, KEEL_VEC_MF, 0, 0, "#MF");
	u = &ctx[0].user;
	fresh(&ctx[0], u_nops);
	u->rflags |= TF;
	check(enter(space, &ctx[0]) == KEEL_USER_EXCEPTION && u->vector == KEEL_VEC_DB && u->rip == at(u_nops) + 1,
	      "a step");
	check(enter(space, &ctx[0]) == KEEL_USER_EXCEPTION && u->vector == KEEL_VEC_DB && u->rip == at(u_nops) + 2,
	      "another one");
	check(enter(space, &ctx[0]) == KEEL_USER_SYSCALL && u->rip == at(u_nops) + 4 && u->rflags & TF,
	      "a step into a system call is one");
	check(enter(space, &ctx[0]) == KEEL_USER_EXCEPTION && u->vector == KEEL_VEC_DB && u->rip == at(u_nops) + 5,
	      "and behind it they go on");
}

static void registers(void)
{
	struct keel_user *u = &ctx[0].user;

	data[0][0] = 0xf5;
	data[1][0] = 0x65;
	fresh(&ctx[0], u_bases);
	u->fs_base = DATA_VA;
	u->gs_base = DATA_VA + PAGE;
	check(enter(space, &ctx[0]) == KEEL_USER_SYSCALL && u->rax == 0xf5 && u->rbx == 0x65, "FS and GS base");
	check(u->fs_base == DATA_VA && u->gs_base == DATA_VA + PAGE, "and they come back");
	fresh(&ctx[0], u_segments);
	check(enter(space, &ctx[0]) == KEEL_USER_SYSCALL, "null selectors");
	/* What the code's own stack segment is would do for ds: learn it from nobody, try the likely ones. */
	for (keel_u64 selector = 3; selector < 0x60; selector += 8) {
		fresh(&ctx[0], u_segments);
		u->rdi = selector;
		enter(space, &ctx[0]);
	}
	fresh(&ctx[0], u_segments);
	check(enter(space, &ctx[0]) == KEEL_USER_SYSCALL && enter(space, &ctx[0]) == KEEL_USER_SYSCALL && !u->rax &&
		      !u->rbx && !u->rdx,
	      "selectors are as user code left them, and nobody else");
	fresh(&ctx[0], u_far);
	u->rdi = at(u_syscall);
	enter(space, &ctx[0]);
	check(u->reason == KEEL_USER_SYSCALL || u->reason == KEEL_USER_EXCEPTION, "a far return");
}

static keel_u64 *xmm(union context *c, unsigned int n)
{
	return &c->word[(KEEL_USER_XSAVE + 160 + 16 * n) / 8];
}

static void floating_point(void)
{
	bool mine = true, kept = true, legal = true;

	for (unsigned int i = 0; i < 2; i++) {
		fresh(&ctx[i], u_xmm);
		ctx[i].word[(KEEL_USER_XSAVE + 512) / 8] = 2;
		xmm(&ctx[i], 1)[0] = 100 + i;
	}
	for (unsigned int n = 1; n <= FP_ROUNDS; n++)
		for (unsigned int i = 0; i < 2; i++) {
			const keel_u64 before = 0x5555 + n * 2 + i;
			keel_u64 after;

			__asm__ volatile("movq %0, %%xmm0; movq %0, %%xmm5" : : "r"(before));
			legal &= enter(space, &ctx[i]) == KEEL_USER_SYSCALL;
			__asm__ volatile("movq %%xmm0, %0" : "=r"(after));
			kept &= after == before;
			__asm__ volatile("movq %%xmm5, %0" : "=r"(after));
			kept &= after == before;
			mine &= xmm(&ctx[i], 0)[0] == (100 + i) * n && xmm(&ctx[i], 1)[0] == 100 + i &&
				!xmm(&ctx[i], 5)[0];
			mine &= !(ctx[i].word[(KEEL_USER_XSAVE + 520) / 8]);
		}
	check(legal, "user code with SSE");
	check(mine, "each context has its own SSE registers");
	check(kept, "and so has the guest kernel");
	fresh(&ctx[0], u_xmm);
	ctx[0].word[(KEEL_USER_XSAVE + 512) / 8] = 0; /* initial, whatever the area says */
	xmm(&ctx[0], 0)[0] = xmm(&ctx[0], 1)[0] = 77;
	enter(space, &ctx[0]);
	check(!(ctx[0].word[(KEEL_USER_XSAVE + 512) / 8] & 2) || (!xmm(&ctx[0], 0)[0] && !xmm(&ctx[0], 1)[0]),
	      "a component that is not named is initial");
}

static void tick_soon(void)
{
	if (keel_timer_at(keel_time() + TICK_NS) != KEEL_OK)
		keel_panic("the timer is not armed");
}

/* With IF on it may come before user code is entered, which nothing then stops but another one. */
static void on_tick(void *arg, keel_u32 bit)
{
	(void)arg, (void)bit;
	ticks++;
	if (again)
		tick_soon();
}

static void preemption(void)
{
	struct keel_user *u = &ctx[0].user;
	bool stopped = true;

	fresh(&ctx[0], u_loop);
	for (unsigned int i = 0; i < 20; i++) {
		const unsigned int had = ticks;

		keel_irq_disable();
		tick_soon();
		stopped &= enter(space, &ctx[0]) == KEEL_USER_EVENT && ticks == had;
		keel_irq_enable();
		stopped &= ticks == had + 1;
	}
	check(stopped, "an endless loop stops for the timer");
	check(u->rax > 0, "and gets somewhere in between");
	again = true;
	tick_soon();
	for (unsigned int i = 0; i < 5; i++) {
		const unsigned int had = ticks;

		stopped &= enter(space, &ctx[0]) == KEEL_USER_EVENT && ticks > had;
	}
	again = false;
	check(stopped, "with IF on the event is delivered when user_enter returns");
}

static void many_spaces(void)
{
	static keel_as_t as[SPACES];
	bool right = true;
	keel_u64 query;

	for (unsigned int i = 0; i < SPACES; i++) {
		as[i] = make_space();
		map(as[i], HOLE_VA, i % 2 ? (void *)other : (void *)data[1], PAGE, KEEL_PROT_R | KEEL_PROT_W);
	}
	other[0] = 1;
	data[1][0] = 0;
	for (unsigned int n = 0; n < 4; n++)
		for (unsigned int i = 0; i < SPACES; i++) {
			fresh(&ctx[0], u_read);
			ctx[0].user.rdi = HOLE_VA;
			right &= enter(as[i], &ctx[0]) == KEEL_USER_SYSCALL && ctx[0].user.rax == i % 2;
		}
	check(right, "many spaces beside each other");
	/* Each page becomes the other one, where a TLB may remember it. */
	for (unsigned int i = 0; i < SPACES; i++)
		map(as[i], HOLE_VA, i % 2 ? (void *)data[1] : (void *)other, PAGE, KEEL_PROT_R | KEEL_PROT_W);
	for (unsigned int i = 0; i < SPACES; i++) {
		fresh(&ctx[0], u_read);
		ctx[0].user.rdi = HOLE_VA;
		right &= enter(as[i], &ctx[0]) == KEEL_USER_SYSCALL && ctx[0].user.rax != i % 2;
	}
	check(right, "and remapped");
	for (unsigned int i = 0; i < SPACES; i++) {
		map(as[i], HOLE_VA, NULL, PAGE, 0);
		fresh(&ctx[0], u_read);
		ctx[0].user.rdi = HOLE_VA;
		right &= enter(as[i], &ctx[0]) == KEEL_USER_EXCEPTION && ctx[0].user.addr == HOLE_VA;
	}
	check(right, "and unmapped");
	query = keel_must(keel_as_clone(as[0], 0));
	fresh(&ctx[0], u_write);
	ctx[0].user.rdi = DATA_VA;
	check(enter(keel_as(query), &ctx[0]) == KEEL_USER_EXCEPTION &&
		      ctx[0].user.error == (KEEL_PF_U | KEEL_PF_W | KEEL_PF_P),
	      "a clone's pages are read-only");
	fresh(&ctx[0], u_write);
	ctx[0].user.rdi = DATA_VA;
	check(enter(as[0], &ctx[0]) == KEEL_USER_EXCEPTION && ctx[0].user.vector == KEEL_VEC_PF, "and its parent's");
	keel_must(keel_as_destroy(keel_as(query)));
	for (unsigned int i = 0; i < SPACES; i++)
		keel_must(keel_as_destroy(as[i]));
	check(KEEL_STATUS_CODE(keel_user_enter(as[0], keel_gpa_of(&ctx[0]), 0).status) == KEEL_E_NOENT,
	      "what was destroyed is not entered");
}

static void dirty_pages(void)
{
	keel_u64 n;

	keel_must(keel_harvest_start(space, DATA_VA, sizeof(data), KEEL_HARVEST_DIRTY));
	expect(u_read, DATA_VA, KEEL_USER_SYSCALL, 0, 0, 0, "a tracked page is read");
	n = keel_must(keel_harvest_collect(space, DATA_VA, sizeof(data), keel_gpa_of(bitmap)));
	expect(u_write, DATA_VA + PAGE, KEEL_USER_SYSCALL, 0, 0, 0, "a tracked page is written to");
	n = keel_must(keel_harvest_collect(space, DATA_VA, sizeof(data), keel_gpa_of(bitmap)));
	check((n & 0xffffffff) == DATA_PAGES && bitmap[0] & 2, "and is reported");
	expect(u_write, DATA_VA + PAGE, KEEL_USER_SYSCALL, 0, 0, 0, "and written to again");
	keel_must(keel_harvest_collect(space, DATA_VA, sizeof(data), keel_gpa_of(bitmap)));
	check(bitmap[0] & 2, "and reported again");
	keel_must(keel_harvest_stop(space, DATA_VA, sizeof(data)));
}

static const struct group {
	const char *name;
	void (*run)(void);
} groups[] = {
	{ "system_calls", system_calls }, { "faults", faults },		  { "walls", walls },
	{ "exceptions", exceptions },	  { "registers", registers },	  { "floating_point", floating_point },
	{ "preemption", preemption },	  { "many_spaces", many_spaces }, { "dirty_pages", dirty_pages },
};

#define GROUPS (sizeof(groups) / sizeof(groups[0]))

/* Is the word in the line? */
static bool named(const char *line, const char *word)
{
	for (; *line; line++) {
		size_t i = 0;

		while (word[i] && line[i] == word[i])
			i++;
		if (!word[i] && (!line[i] || line[i] == ' '))
			return true;
	}
	return false;
}

int keel_main(const struct keel_start *start)
{
	const struct keel_cpu_info *cpu = keel_start_cpu(start);
	const char *line = keel_start_cmdline(start);
	keel_s64 status;

	if (!cpu || !line)
		keel_panic("no processor or no command line in the start info");
	area_size = KEEL_USER_XSAVE + cpu->xsave_size;
	if (area_size > sizeof(ctx[0]))
		keel_panic("contexts of %u bytes", area_size);
	status = keel_event_init();
	if (status == KEEL_OK)
		status = keel_timer_init(on_tick, NULL);
	if (status != KEEL_OK)
		keel_panic("no timer");
	keel_irq_enable();
	space = make_space();
	keel_puts("KTAP version 1");
	for (unsigned int i = 0; i < GROUPS; i++)
		if (!*line || named(line, groups[i].name)) {
			keel_printf("# %s\n", groups[i].name);
			groups[i].run();
		}
	keel_must(keel_as_destroy(space));
	keel_printf("1..%u\n", checks);
	return failed > 100 ? 100 : (int)failed;
}
