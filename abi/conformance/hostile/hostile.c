// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/*
 * A guest that means harm, for hosts that run guest code as a process of the
 * host's kernel. The command line says how: way=, and which case: nr=. It ends
 * by being stopped, or says "KT fail" when something got through.
 */
#include "kt.h"

int kt_probe_syscall(u64 nr, u64 a1, u64 a2, u64 a3, u64 a4, u64 a5);
int kt_probe_int80(u64 nr, u64 a1, u64 a2, u64 a3);
int kt_probe_sysenter(u64 nr, u64 a1, u64 a2, u64 a3);
extern u64 kt_escaped, kt_fixup, kt_fixup_rsp;

#define WINDOW KEEL_U64(0x7f0100000000)

#include "attacks.h"

static u64 raw(u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	u64 ret = nr;
	register u64 r10 __asm__("r10") = d;
	register u64 r8 __asm__("r8") = e;
	register u64 r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "+a"(ret)
			 : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

/* Every way ends here when the kernel answered. */
static void answered(const char *how, u64 nr)
{
	KT_FAIL("%s %lu came back with %lx", how, nr, kt_escaped);
}

static void refused_or_fail(int trapped, const char *how, u64 nr)
{
	if (!trapped)
		answered(how, nr);
}

KEEL_TEST("HOSTILE-000", hostile_count, "", "", 0)
{
	kt_note("attacks %lu", ATTACKS);
}

KEEL_TEST("HOSTILE-001", hostile_syscall, "", "", 0)
{
	u64 nr = kt_option("nr", 39);

	/* An address in the host's window makes every memory call one that is not permitted. */
	kt_armed();
	refused_or_fail(kt_probe_syscall(nr, WINDOW, 4096, 7, 0x32, 9), "syscall", nr);
}

KEEL_TEST("HOSTILE-002", hostile_int80, "", "", 0)
{
	u64 nr = kt_option("nr", 20);

	kt_armed();
	refused_or_fail(kt_probe_int80(nr, 0, 0, 0), "int 0x80", nr);
}

KEEL_TEST("HOSTILE-003", hostile_sysenter, "", "", 0)
{
	u64 nr = kt_option("nr", 20);

	kt_armed();
	refused_or_fail(kt_probe_sysenter(nr, 0, 0, 0), "sysenter", nr);
}

/* By far return into 32-bit code, which lies below 4 GiB as all of this image does. */
__asm__(".text\n"
	".globl hostile_far32\n"
	"hostile_far32:\n" /* rdi = number, rsi = 0: int 0x80, 1: sysenter, 2: syscall */
	"	push %rbx\n"
	"	push %rbp\n"
	"	mov %rsp, hostile_rsp(%rip)\n"
	"	lea 6f(%rip), %rax\n"
	"	mov %rax, kt_fixup(%rip)\n"
	"	mov %rsp, kt_fixup_rsp(%rip)\n"
	"	mov %edi, %eax\n"
	"	mov %esi, %edi\n"
	"	lea hostile_stack32+4096(%rip), %rsp\n"
	"	pushq $0x23\n"
	"	lea 1f(%rip), %rcx\n"
	"	push %rcx\n"
	"	lretq\n"
	"	.code32\n"
	"1:	mov $0x2b, %ecx\n"
	"	mov %ecx, %ds\n"
	"	mov %ecx, %es\n"
	"	xor %ebx, %ebx\n"
	"	cmp $1, %edi\n"
	"	je 2f\n"
	"	cmp $2, %edi\n"
	"	je 3f\n"
	"	int $0x80\n"
	"	jmp 4f\n"
	"2:	mov %esp, %ebp\n"
	"	sysenter\n"
	"	jmp 4f\n"
	"3:	syscall\n"
	"4:	pushl $0x33\n"
	"	pushl $5f\n"
	"	lret\n"
	"	.code64\n"
	"5:	mov %eax, %eax\n"
	"	mov %rax, kt_escaped(%rip)\n"
	"	movq $0, kt_fixup(%rip)\n"
	"	mov hostile_rsp(%rip), %rsp\n"
	"	xor %eax, %eax\n"
	"	jmp 7f\n"
	"6:	mov $1, %eax\n"
	"7:	pop %rbp\n"
	"	pop %rbx\n"
	"	ret\n"
	".bss\n"
	".balign 16\n"
	"hostile_rsp: .skip 16\n"
	"hostile_stack32: .skip 4096\n"
	".text\n");
int hostile_far32(u64 nr, u64 how);

KEEL_TEST("HOSTILE-004", hostile_far_return, "", "", 0)
{
	u64 nr = kt_option("nr", 20);

	kt_armed();
	refused_or_fail(hostile_far32(nr, kt_option("how", 0)), "32-bit code", nr);
}

KEEL_TEST("HOSTILE-005", hostile_x32, "", "", 0)
{
	u64 nr = kt_option("nr", 39) | 0x40000000;

	kt_armed();
	refused_or_fail(kt_probe_syscall(nr, WINDOW, 4096, 7, 0x32, 9), "x32 call", nr);
}

KEEL_TEST("HOSTILE-006", hostile_vsyscall, "", "", 0)
{
	u64 va = 0xffffffffff600000 + kt_option("nr", 0) * 0x400;

	kt_armed();
	if (!kt_probe_exec(va))
		KT_FAIL("vsyscall %lx came back", va);
}

KEEL_TEST("HOSTILE-007", hostile_attack, "", "", 0)
{
	u64 i = kt_option("nr", 0);

	REQUIRE(i < ATTACKS);
	kt_armed();
	kt_escaped = raw(attack[i].nr, attack[i].arg[0], attack[i].arg[1], attack[i].arg[2], attack[i].arg[3],
			 attack[i].arg[4], attack[i].arg[5]);
	answered("attack", i);
}

/* The host's own system call instructions, found by their bytes. */
static u64 gadget(u64 n)
{
	for (u64 va = WINDOW; va < WINDOW + 0x100000; va++) {
		if (!(va & 0xfff) && kt_probe_read(va))
			break;
		if (!((va + 1) & 0xfff) && kt_probe_read(va + 1))
			break;
		if (*(volatile u8 *)va == 0x0f && *(volatile u8 *)(va + 1) == 0x05 && !n--)
			return va;
	}
	return 0;
}

KEEL_TEST("HOSTILE-008", hostile_gadgets, "", "", 0)
{
	u64 n = 0;

	while (gadget(n))
		n++;
	kt_note("gadgets %lu", n);
}

void hostile_jump(u64 va, const u64 *regs);
__asm__(".text\n"
	".globl hostile_jump\n"
	"hostile_jump:\n"
	"	mov %rdi, %rcx\n"
	"	mov %rsi, %r11\n"
	"	mov 0(%r11), %rax\n"
	"	mov 8(%r11), %rdi\n"
	"	mov 24(%r11), %rdx\n"
	"	mov 32(%r11), %r10\n"
	"	mov 40(%r11), %r8\n"
	"	mov 48(%r11), %r9\n"
	"	mov 16(%r11), %rsi\n"
	"	jmp *%rcx\n");

KEEL_TEST("HOSTILE-009", hostile_gadget_jump, "", "", 0)
{
	static const u8 which[] = { 0, 11, 20, 24, 34, 63 }; /* of attack[] */
	u64 va = gadget(kt_option("nr", 0)), k = kt_option("how", 0);
	u64 r[7];

	REQUIRE(va && k < sizeof(which));
	r[0] = attack[which[k]].nr;
	memcpy(r + 1, attack[which[k]].arg, sizeof(attack[0].arg));
	kt_armed();
	hostile_jump(va, r);
	KT_FAIL("the jump came back");
}

/* From here on resources: the partition may end as it likes, the host may not. */
KEEL_TEST("HOSTILE-010", hostile_table_bomb, "", "", 0)
{
	u64 ok = 0, va = 0x1000000000;

	/* Permitted mappings, one page in every gigabyte, each touched: three tables each. */
	for (u64 i = 0; i < 100000 && va < KEEL_VA_END; i++, va += 1ull << 30) {
		u64 r = raw(9, va, 4096, 3, 0x8011, 3, 0);

		if (r != va)
			break;
		ok++;
	}
	kt_note("%lu mappings", ok);
	for (u64 k = 0; k < 200; k++)
		raw(9, 0x200000000000 + k * (512ull << 21), 4096, 3, 0x8011, 3, 0);
	OK(HC(KEEL_CALL_BASE_PING, 1));
}

KEEL_TEST("HOSTILE-011", hostile_vma_bomb, "", "", 0)
{
	u64 ok = 0;

	for (u64 i = 0; i < 80000; i++) {
		if (raw(9, KT_VA + i * 8192, 4096, 1 + (i & 2), 0x11, 3, (i % 512) * 4096) != KT_VA + i * 8192)
			break;
		ok++;
	}
	kt_note("%lu mappings", ok);
	OK(HC(KEEL_CALL_BASE_PING, 1));
	MAP(0x300000000000, KT_SCRATCH_GPA, 4096, 3); /* through the monitor, with the process full */
	OK(HC(KEEL_CALL_BASE_PING, 2));
}

KEEL_TEST("HOSTILE-012", hostile_memory_all, "", "", 0)
{
	u64 ram = kt_ram_size();

	/* All RAM touched and released, over and over. */
	for (int k = 0; k < 3; k++) {
		for (u64 g = KT_SCRATCH_GPA; g < ram; g += 4096)
			*(volatile u64 *)kt_ram(g) = g;
		for (u64 g = KT_SCRATCH_GPA; g < ram; g += 1 << 20)
			HC(KEEL_CALL_MEMORY_RELEASE, g, 1 << 20);
	}
	OK(HC(KEEL_CALL_BASE_PING, 1));
}

KEEL_TEST("HOSTILE-013", hostile_event_flood, "", "", 0)
{
	u32 port = kt_alloc(0);

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_sti();
	for (u64 i = 0; i < 200000; i++)
		HC(KEEL_CALL_EVENT_SEND, port);
	CHECK_EQ(kt_seen[KEEL_PORT_BIT(port)], 200000);
	kt_bind(KEEL_SOURCE_TIMER, 1);
	for (u64 i = 0; i < 50000; i++)
		HC(KEEL_CALL_TIME_SET_TIMER, i & 1 ? 0 : KEEL_TIME_NEVER);
	for (u64 i = 0; i < 200000; i++)
		HC(KEEL_CALL_CONSOLE_KICK);
	for (u64 i = 0; i < 20000; i++)
		HC(KEEL_CALL_EVENT_DUMP, 0);
	OK(HC(KEEL_CALL_BASE_PING, 1));
}

KEEL_TEST("HOSTILE-014", hostile_console_flood, "", "", 0)
{
	for (u64 i = 0; i < 60000; i++)
		HC(KEEL_CALL_CONSOLE_WRITE, 32, 0x2e2e2e2e2e2e2e2e, 0x2e2e2e2e2e2e2e2e, 0x2e2e2e2e2e2e2e2e,
		   0x0a2e2e2e2e2e2e2e);
	OK(HC(KEEL_CALL_BASE_PING, 1));
}

KEEL_TEST("HOSTILE-015", hostile_ring_flood, "", "", 0)
{
	volatile struct keel_console_ring *ring = kt_ram(KT_SCRATCH_GPA);

	for (u64 i = 0; i < 5000; i++) {
		memset((void *)ring, 0, 4096);
		if (HC(KEEL_CALL_CONSOLE_SETUP, KT_SCRATCH_GPA, 4096).status)
			HC(KEEL_CALL_CONSOLE_SETUP, 0, 0);
		for (u32 k = 0; k < 20; k++)
			((volatile u32 *)ring)[kt_random_below(20)] = (u32)kt_random();
		HC(KEEL_CALL_CONSOLE_KICK);
	}
	HC(KEEL_CALL_CONSOLE_SETUP, 0, 0);
	OK(HC(KEEL_CALL_BASE_PING, 1));
}

static void finish_here(struct keel_frame *f)
{
	(void)f;
	kt_finish();
}

/* What the host shares with the monitor is the guest's to write as well. */
KEEL_TEST("HOSTILE-016", hostile_scribble, "", "", 0)
{
	volatile u32 *block = (volatile u32 *)kt_vcpu;
	u64 words = kt_option("words", 1000);

	/* What becomes of this guest is its own affair. */
	kt_on[KEEL_CLASS_TRAP] = kt_on[KEEL_CLASS_DOUBLE] = kt_on[KEEL_CLASS_EVENT] = kt_on[KEEL_CLASS_DUMP] =
		finish_here;
	kt_armed();
	for (u64 i = 0; i < words; i++) {
		u64 at = kt_random_below(0x8000 / 4);

		if (at * 4 < 0x40) /* the gate's address stays, so that calls go on being made */
			continue;
		block[at] = kt_random_below(3) ? (u32)kt_random() : (u32)kt_random_below(4);
		if (!kt_random_below(20)) {
			HC(KEEL_CALL_BASE_PING, i);
			HC(KEEL_CALL_CONSOLE_KICK);
			raw(202, (u64)kt_vcpu + (kt_random_below(0x4000) & ~3ull), 1, 1, 0, 0, 0);
			raw(1, 6, (u64)kt_vcpu, 8, 0, 0, 0);
		}
	}
	for (volatile u8 *p = (volatile u8 *)kt_vcpu + 0x40; p < (volatile u8 *)kt_vcpu + 0x8000; p++)
		*p = 0xff;
	raw(1, 6, (u64)kt_vcpu, 8, 0, 0, 0);
	HC(KEEL_CALL_BASE_PING, 1);
}

KEEL_TEST("HOSTILE-017", hostile_scribble_monitor, "", "", 0)
{
	volatile u8 *mon = (volatile u8 *)(WINDOW + 0x200400000);

	kt_on[KEEL_CLASS_TRAP] = kt_on[KEEL_CLASS_DOUBLE] = finish_here;
	kt_armed();
	for (u64 i = 0; i < kt_option("words", 1000); i++) {
		u64 at = kt_random_below(0x100000);

		if (!kt_probe_write((u64)mon + at, (u8)kt_random()))
			continue;
	}
	for (int i = 0; i < 100; i++) {
		HC(KEEL_CALL_BASE_PING, i);
		MAP(KT_VA, KT_SCRATCH_GPA, 65536, 3);
		HC(KEEL_CALL_CONSOLE_KICK);
	}
}

KEEL_TEST("HOSTILE-018", hostile_spin, "", "", 0)
{
	kt_armed();
	for (;;)
		__asm__ volatile("pause");
}

KEEL_TEST("HOSTILE-019", hostile_sleep, "", "", 0)
{
	kt_note("asleep");
	for (;;)
		HC(KEEL_CALL_VCPU_WAIT, KEEL_TIME_NEVER);
}

KEEL_TEST("HOSTILE-020", hostile_stack_gone, "", "", 0)
{
	/* No stack: a fault in the gate itself, then one in the entry that wants to use the same stack. */
	kt_on[KEEL_CLASS_DOUBLE] = finish_here;
	kt_armed();
	__asm__ volatile("mov $0x10, %%rsp\n\tcall *%%gs:8" : : "a"(KEEL_CALL_BASE_PING), "D"(1) : "memory");
	KT_FAIL("a call without a stack came back");
}
