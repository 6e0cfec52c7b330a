// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* NORM: traps look the same on every host. */
#include "kt.h"

#define RW (KEEL_PROT_R | KEEL_PROT_W)
#define RX (KEEL_PROT_R | KEEL_PROT_X)
#define G0 KT_SCRATCH_GPA
#define F kt_trap_frame

KEEL_TEST("NORM-001", norm_pf_codes, "KEEL-NORM-02 KEEL-NORM-03 KEEL-AS-04", "neg", 0)
{
	static const u32 prots[] = { 0, KEEL_PROT_R, RW, RX, KEEL_PROT_ALL };

	memcpy(kt_ram(G0), kt_code, (size_t)(kt_code_end - kt_code));
	for (int i = 0; i < 5; i++) {
		u32 p = prots[i];
		u64 mapped = p ? KEEL_PF_P : 0;

		if (p)
			OK(MAP(KT_VA, G0, 4096, p));
		for (int touched = 0; touched < 2; touched++) { /* with and without the page in the cache */
			CHECK_EQ(kt_probe_read(KT_VA + 8), !p);
			if (!p)
				CHECK_EQ(F.error, 0);
			CHECK_EQ(kt_probe_write(KT_VA + 0x800, 0), !(p & KEEL_PROT_W));
			if (!(p & KEEL_PROT_W)) {
				CHECK_EQ(F.error, mapped | KEEL_PF_W);
				CHECK_EQ(F.addr, KT_VA + 0x800);
			}
			CHECK_EQ(kt_probe_exec(KT_VA), !(p & KEEL_PROT_X));
			if (!(p & KEEL_PROT_X)) {
				CHECK_EQ(F.error, mapped | KEEL_PF_X);
				CHECK_EQ(F.addr, KT_VA);
				CHECK_EQ(F.rip, KT_VA);
			}
		}
	}
}

KEEL_TEST("NORM-002", norm_pf_untouched, "KEEL-NORM-02 KEEL-NORM-10", "neg", 0)
{
	/* The first access of all to a page decides nothing: P is about the mapping. */
	OK(MAP(KT_VA, G0, 4096, KEEL_PROT_R));
	CHECK(kt_probe_write(KT_VA, 0));
	CHECK_EQ(F.error, KEEL_PF_P | KEEL_PF_W);
	OK(MAP(KT_VA + 0x10000, G0, 4096, KEEL_PROT_R));
	CHECK(kt_probe_exec(KT_VA + 0x10000));
	CHECK_EQ(F.error, KEEL_PF_P | KEEL_PF_X);
	OK(MAP(KT_VA + 0x20000, G0, 4096, RW));
	CHECK(!kt_probe_write(KT_VA + 0x20000, 1));
	CHECK_EQ(kt_traps, 2);
}

KEEL_TEST("NORM-003", norm_pf_crossing, "KEEL-NORM-03", "neg", 0)
{
	/* An access over a page boundary whose second half is missing: the address is where it begins to be missing. */
	OK(MAP(KT_VA, G0, 4096, RW));
	extern int kt_probe_read8(u64 va), kt_probe_write8(u64 va);

	CHECK(kt_probe_read8(KT_VA + 4093));
	CHECK_EQ(F.addr, KT_VA + 4096);
	CHECK_EQ(F.error, 0);
	CHECK(kt_probe_write8(KT_VA + 4095));
	CHECK_EQ(F.addr, KT_VA + 4096);
	CHECK_EQ(F.error, KEEL_PF_W);
	CHECK(kt_probe_read8(KT_VA - 3));
	CHECK_EQ(F.addr, KT_VA - 3);
}

KEEL_TEST("NORM-004", norm_ud, "KEEL-NORM-08 KEEL-NORM-01 KEEL-NORM-06", "", 0)
{
	CHECK(kt_probe_ud());
	CHECK_EQ(F.vector, KEEL_VEC_UD);
	CHECK_EQ(F.error, 0);
	CHECK_EQ(F.addr, 0);
	CHECK(!memcmp((void *)F.rip, "\x0f\x0b", 2));
}

KEEL_TEST("NORM-005", norm_de, "KEEL-NORM-08 KEEL-NORM-01 KEEL-NORM-06", "", 0)
{
	CHECK(kt_probe_div());
	CHECK_EQ(F.vector, KEEL_VEC_DE);
	CHECK_EQ(F.error, 0);
	CHECK_EQ(F.addr, 0);
	CHECK_EQ(F.rip, (u64)kt_probe_div_insn);
	CHECK_EQ(F.rax, 1);
}

KEEL_TEST("NORM-006", norm_gp, "KEEL-NORM-07 KEEL-NORM-01 KEEL-NORM-06", "", 0)
{
	CHECK(kt_probe_gp());
	CHECK_EQ(F.vector, KEEL_VEC_GP);
	CHECK_EQ(F.error, 0);
	CHECK_EQ(F.addr, 0);
	CHECK_EQ(F.rip, (u64)kt_probe_gp_insn);
}

KEEL_TEST("NORM-007", norm_bp, "KEEL-NORM-06 KEEL-NORM-01", "", 0)
{
	CHECK(kt_probe_bp());
	CHECK_EQ(F.vector, KEEL_VEC_BP);
	CHECK_EQ(F.error, 0);
	CHECK_EQ(F.addr, 0);
	CHECK_EQ(*(u8 *)(F.rip - 1), 0xcc); /* the instruction after */
}

KEEL_TEST("NORM-008", norm_xm, "KEEL-NORM-08 KEEL-NORM-01 KEEL-NORM-06", "", 0)
{
	CHECK(kt_probe_xm());
	CHECK_EQ(F.vector, KEEL_VEC_XM);
	CHECK_EQ(F.error, 0);
	CHECK_EQ(F.addr, 0);
	CHECK(!memcmp((void *)F.rip, "\xf3\x0f\x5e\xc1", 4)); /* divss */
}

KEEL_TEST("NORM-009", norm_mf, "KEEL-NORM-08 KEEL-NORM-01", "", 0)
{
	CHECK(kt_probe_mf());
	CHECK_EQ(F.vector, KEEL_VEC_MF);
	CHECK_EQ(F.error, 0);
	CHECK_EQ(F.addr, 0);
	CHECK_EQ(*(u8 *)F.rip, 0x9b); /* fwait */
}

static u32 steps;
static u64 step_rip[16];
static u64 step_entry_flags;

static void on_step(struct keel_frame *f)
{
	if (f->vector != KEEL_VEC_DB) {
		KT_FAIL("vector %u under TF", f->vector);
		kt_finish();
	}
	step_entry_flags |= kt_entry_flags;
	if (steps < 16)
		step_rip[steps] = f->rip;
	if (++steps == 3)
		f->rflags &= ~0x100ull;
}

KEEL_TEST("NORM-010", norm_step, "KEEL-NORM-11 KEEL-NORM-06 KEEL-TRAP-04", "", 0)
{
	kt_on[KEEL_CLASS_TRAP] = on_step;
	kt_probe_step();
	CHECK_EQ(steps, 3);
	CHECK_EQ(step_rip[0], (u64)kt_probe_step_after);
	CHECK_EQ(step_rip[1], (u64)kt_probe_step_after + 1);
	CHECK_EQ(step_rip[2], (u64)kt_probe_step_after + 2);
	CHECK_EQ(step_entry_flags & 0x100, 0);
}

static kt_handler *default_trap;

static void step_from_here(struct keel_frame *f)
{
	if (f->vector == KEEL_VEC_DB) {
		steps++;
		f->rflags &= ~0x100ull;
		return;
	}
	default_trap(f);
	f->rflags |= 0x100;
}

KEEL_TEST("NORM-011", norm_step_by_return, "KEEL-NORM-11 KEEL-TRAP-12", "", 0)
{
	default_trap = kt_on[KEEL_CLASS_TRAP];
	kt_on[KEEL_CLASS_TRAP] = step_from_here;
	CHECK(kt_probe_ud());
	CHECK_EQ(steps, 1);
}

/* RFLAGS as pushf shows them, and popf of what is given. */
u64 norm_pushf(void);
void norm_popf(u64 flags);
__asm__(".text\n"
	"norm_pushf:\n"
	"	pushfq\n"
	"	popq %rax\n"
	"	ret\n"
	"norm_popf:\n"
	"	push %rdi\n"
	"	popfq\n"
	"	ret\n");

#define IF KEEL_U64(0x200)
#define NT KEEL_U64(0x4000)
#define IOPL KEEL_U64(0x3000)
#define IN_NO_FRAME (NT | IOPL | 0x10000 | 0x20000 | 0x80000 | 0x100000) /* and RF, VM, VIF, VIP */

KEEL_TEST("NORM-012", norm_popf, "KEEL-NORM-09 KEEL-TRAP-07", "", 0)
{
	for (u8 on = 0; on < 2; on++) {
		kt_vcpu->if_enabled = on;
		CHECK_EQ(norm_pushf() & IF, IF);
		norm_popf(2);
		CHECK_EQ(kt_vcpu->if_enabled, on); /* what pushf shows now is unspecified */
		norm_popf(2 | IF);
		CHECK_EQ(kt_vcpu->if_enabled, on);
		CHECK_EQ(norm_pushf() & IF, IF);
		/* In a handler, and after it in what was resumed, nobody has cleared it. */
		norm_popf(2);
		CHECK(kt_probe_ud());
		CHECK_EQ(kt_entry_flags & IF, IF);
		CHECK_EQ(F.rflags & IF, on ? IF : 0); /* the virtual one */
		CHECK_EQ(norm_pushf() & IF, IF);
		CHECK_EQ(kt_vcpu->if_enabled, on);
	}
	kt_cli();
}

KEEL_TEST("NORM-013", norm_ss, "KEEL-NORM-07", "", 0)
{
	extern int kt_probe_ss(void);

	CHECK(kt_probe_ss());
	CHECK(F.vector == KEEL_VEC_GP || F.vector == 12);
	CHECK_EQ(F.error, 0);
	CHECK_EQ(F.addr, 0);
}

KEEL_TEST("NORM-014", norm_no_spurious, "KEEL-NORM-10", "timeout=30", 0)
{
	/* What the query says can be accessed is accessed, in every state the cache can be in. */
	kt_note("seed %lu", kt_seed);
	OK(MAP(KT_VA, G0, 256 * 4096, RW));
	for (u64 i = 0; i < 20000 / kt_scale + 1000; i++) {
		u64 page = kt_random_below(256), va = KT_VA + page * 4096;

		switch (kt_random_below(6)) {
		case 0:
			OK(MAP(va, G0 + kt_random_below(256) * 4096, 4096, RW));
			break;
		case 1:
			OK(PROTECT(va, 4096, KEEL_PROT_R));
			OK(PROTECT(va, 4096, RW));
			break;
		case 2:
			OK(UNMAP(va, 4096));
			OK(kt_mmu(KEEL_MMU_MAP, va, G0 + page * 4096, 4096, RW, KEEL_MMU_POPULATE));
			break;
		default:
			*(volatile u64 *)(va + kt_random_below(512) * 8) += 1;
			(void)*(volatile u64 *)(KT_VA + kt_random_below(256) * 4096);
		}
	}
	CHECK_EQ(kt_traps, 0);
}

static void privileged(int (*probe)(void), const char *name)
{
	/* Undefined by the ABI: a host may end it, execute, emulate or report. What it may not is trap otherwise. */
	if (probe()) {
		if ((F.vector != KEEL_VEC_GP && F.vector != KEEL_VEC_UD) || F.error || F.addr)
			KT_FAIL("%s: vector %u error %lx", name, F.vector, F.error);
		kt_note("%s: trap %u", name, F.vector);
	} else {
		kt_note("%s: executed", name);
	}
}

KEEL_TEST("NORM-015", norm_privileged, "KEEL-NORM-01 KEEL-NORM-15", "neg exit=any", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 0);

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_armed();
	/* Where hlt is executed, the timer ends it. */
	OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + 20 * 1000 * 1000));
	privileged(kt_probe_hlt, "hlt");
	privileged(kt_probe_cli, "cli");
	OK_VALUE(HC(KEEL_CALL_BASE_PING, 5), 5);
	privileged(kt_probe_cr3, "mov cr3");
	privileged(kt_probe_rdmsr, "rdmsr");
	privileged(kt_probe_in, "in");
}

/*
 * `syscall` and its kin may end the partition or trap. What they may not do is
 * reach a kernel: run on with an answer, or have an effect outside.
 */
extern u64 kt_escaped;
int kt_probe_syscall(u64 nr, u64 a1, u64 a2, u64 a3);
int kt_probe_int80(u64 nr);
int kt_probe_sysenter(u64 nr);

/* However it trapped: vector and error are the host's choice. */
static void must_not_return(int trapped, const char *what)
{
	if (!trapped)
		KT_FAIL("%s came back with %lx", what, kt_escaped);
}

KEEL_TEST("NORM-016", norm_syscall_getpid, "KEEL-NORM-12", "neg exit=any", 0)
{
	kt_armed();
	must_not_return(kt_probe_syscall(39, 0, 0, 0), "getpid");
}

KEEL_TEST("NORM-017", norm_syscall_write, "KEEL-NORM-12", "neg exit=any", 0)
{
	kt_armed();
	must_not_return(kt_probe_syscall(1, 1, (u64) "KT fail escaped through write\n", 30), "write");
}

KEEL_TEST("NORM-018", norm_int80, "KEEL-NORM-12", "neg exit=any", 0)
{
	kt_armed();
	must_not_return(kt_probe_int80(20), "int 0x80");
}

KEEL_TEST("NORM-019", norm_sysenter, "KEEL-NORM-12", "neg exit=any", 0)
{
	kt_armed();
	must_not_return(kt_probe_sysenter(20), "sysenter");
}

KEEL_TEST("NORM-020", norm_popf_holds, "KEEL-NORM-13", "timeout=20", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_TIMER, 0), bit = KEEL_PORT_BIT(port), own = kt_alloc(1);
	u64 ms = KEEL_U64(1000000);

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	OK(HC(KEEL_CALL_EVENT_UNMASK, own));
	kt_sti();
	for (u32 i = 1; i <= 40; i++) {
		u64 until;

		norm_popf(2);
		/* Calls are the same, and so is what they deliver. */
		OK(HC(KEEL_CALL_EVENT_SEND, own));
		CHECK_EQ(kt_seen[KEEL_PORT_BIT(own)], i);
		norm_popf(2);
		OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + ms / 4));
		norm_popf(2);
		for (u64 k = 0; k < 200000 / kt_slow(); k++)
			__asm__ volatile("pause");
		CHECK(kt_seen[bit] == i - 1 || kt_seen[bit] == i); /* it may come or wait */
		switch (i % 3) {
		case 0:
			norm_popf(2 | IF);
			break;
		case 1:
			CHECK(kt_probe_ud()); /* a trap, and its trap_return */
			break;
		case 2:
			if (kt_seen[bit] != i)
				HC(KEEL_CALL_VCPU_WAIT, kt_now() + 1000 * ms);
			break;
		}
		/* It waits no longer: no call is needed from here on. */
		until = kt_tsc() + 1;
		for (u64 k = 0; kt_seen[bit] != i && k < 2000000000 / kt_slow(); k++)
			__asm__ volatile("pause");
		CHECK_EQ(kt_seen[bit], i);
		CHECK(kt_tsc() >= until);
		if (kt_fails)
			break;
		norm_popf(2 | IF);
	}
}

static bool stepping;

static void flags_back(struct keel_frame *f)
{
	if (f->vector == KEEL_VEC_DB) {
		stepping = false;
		f->rflags &= ~KEEL_U64(0x100);
		return;
	}
	default_trap(f);
	f->rflags |= IN_NO_FRAME;
	if (stepping) {
		f->rflags |= 0x100;
		norm_popf(2 | IF | NT | IOPL); /* what trap_return is called with */
	}
}

KEEL_TEST("NORM-021", norm_system_flags, "KEEL-NORM-14 KEEL-TRAP-07 KEEL-TRAP-12", "neg", 0)
{
	u32 port = kt_alloc(0);

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_sti();
	default_trap = kt_on[KEEL_CLASS_TRAP];
	kt_on[KEEL_CLASS_TRAP] = flags_back;
	for (u32 i = 1; i <= 20; i++) {
		norm_popf(2 | IF | (i & 1 ? NT : 0) | (i & 2 ? IOPL : 0));
		OK(HC(KEEL_CALL_BASE_NOP));
		OK_VALUE(HC(KEEL_CALL_BASE_PING, i), i);
		OK(MAP(KT_VA, G0, 4096, RW));
		norm_popf(2 | IF | NT | IOPL);
		OK(HC(KEEL_CALL_EVENT_SEND, port)); /* an upcall out of such a context */
		CHECK_EQ(kt_seen[KEEL_PORT_BIT(port)], i);
		CHECK_EQ(kt_entry_flags & (NT | IOPL), 0);
		norm_popf(2 | IF | NT | IOPL);
		CHECK(kt_probe_ud());
		CHECK_EQ(F.rflags & IN_NO_FRAME, 0);
		CHECK_EQ(kt_entry_flags & (NT | IOPL), 0);
		CHECK_EQ(norm_pushf() & IN_NO_FRAME, 0); /* trap_return was asked for them and set none */
		stepping = true;
		CHECK(kt_probe_ud());
		CHECK(!stepping);
	}
}

/* `int n` in a page of its own; on from the instruction after it, or from a trap of any kind. */
static void software_interrupt(u32 n)
{
	u8 code[] = { 0xcd, (u8)n, 0xc3 };

	memcpy(kt_ram(G0), code, sizeof(code));
	if (kt_probe_exec(KT_VA) && F.vector >= 32)
		KT_FAIL("int %u came as vector %u", n, F.vector);
	OK_VALUE(HC(KEEL_CALL_BASE_PING, n), n); /* the gate, too, is as it was */
}

static void software_interrupts(u32 first, u32 last)
{
	OK(MAP(KT_VA, G0, 4096, RX));
	kt_armed();
	/* Begins elsewhere with every seed: the first may end it. */
	for (u32 i = 0, n = last - first + 1, at = (u32)kt_random_below(n); i < n; i++)
		if (first + (at + i) % n != 3)
			software_interrupt(first + (at + i) % n);
}

KEEL_TEST("NORM-022", norm_int_exceptions, "KEEL-NORM-16", "neg exit=any", 0)
{
	software_interrupts(0, 31); /* those with an error code of their own among them */
}

KEEL_TEST("NORM-023", norm_int_interrupts, "KEEL-NORM-16", "neg exit=any", 0)
{
	software_interrupts(32, 255);
}

KEEL_TEST("NORM-024", norm_int_page_fault, "KEEL-NORM-16 KEEL-NORM-02", "neg exit=any", 0)
{
	OK(MAP(KT_VA, G0, 4096, RX));
	kt_armed();
	/* Made by hand, then for real: the real one is reported as ever. */
	software_interrupt(KEEL_VEC_PF);
	CHECK(kt_probe_read(KT_VA + 0x55000));
	CHECK_EQ(F.vector, KEEL_VEC_PF);
	CHECK_EQ(F.error, 0);
	CHECK_EQ(F.addr, KT_VA + 0x55000);
}

#define READS(name, insn)                                 \
	".globl " #name "\n" #name ":\n"                  \
	"	lea 1f(%rip), %rax\n"                           \
	"	mov %rax, kt_fixup(%rip)\n"                     \
	"	mov %rsp, kt_fixup_rsp(%rip)\n" insn "\n" \
	"	movq $0, kt_fixup(%rip)\n"                      \
	"	xor %eax, %eax\n"                               \
	"	ret\n"                                          \
	"1:	mov $1, %eax\n"                               \
	"	ret\n"
int norm_sgdt(void), norm_sidt(void), norm_sldt(void), norm_str(void), norm_smsw(void), norm_cs(void), norm_ss(void);
__asm__(".text\n" READS(norm_sgdt, "sgdt -64(%rsp)") READS(norm_sidt, "sidt -64(%rsp)") READS(norm_sldt, "sldt %eax")
		READS(norm_str, "str %eax") READS(norm_smsw, "smsw %eax") READS(norm_cs, "mov %cs, %eax")
			READS(norm_ss, "mov %ss, %eax"));

KEEL_TEST("NORM-025", norm_reads_of_system_state, "KEEL-NORM-17", "", 0)
{
	static int (*const probe[])(void) = { norm_sgdt, norm_sidt, norm_sldt, norm_str, norm_smsw, norm_cs, norm_ss };

	for (size_t i = 0; i < sizeof(probe) / sizeof(probe[0]); i++)
		if (probe[i]()) {
			CHECK_EQ(F.vector, KEEL_VEC_GP);
			CHECK_EQ(F.error, 0);
			CHECK_EQ(F.addr, 0);
		}
}

KEEL_TEST("NORM-026", norm_fs_base_is_kept, "KEEL-CALL-03 KEEL-NORM-18", "", 0)
{
	const struct keel_cpu_info *cpu;
	u32 size, port = kt_alloc(0);
	u64 fs;

	cpu = kt_chunk(KEEL_CHUNK_CPU, &size);
	REQUIRE(cpu);
	if (!(cpu->cpuid[2] & 1))
		return; /* no way to set it */
	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_sti();
	for (u64 i = 1; i <= 20; i++) {
		u64 base = KT_LINEAR + KT_SCRATCH_GPA + i * 8;

		__asm__ volatile("wrfsbase %0" : : "r"(base));
		OK(HC(KEEL_CALL_BASE_NOP));
		OK_VALUE(HC(KEEL_CALL_BASE_PING, i), i);
		OK(HC(KEEL_CALL_EVENT_SEND, port));
		CHECK(kt_probe_ud());
		CHECK(kt_probe_read(KT_VA));
		OK(MAP(KT_VA + 0x10000, G0, 4096, RW));
		HC(KEEL_CALL_VCPU_WAIT, kt_now() + 1000000);
		__asm__ volatile("rdfsbase %0" : "=r"(fs));
		CHECK_EQ(fs, base);
		__asm__ volatile("mov %%fs:0, %0" : "=r"(fs));
		CHECK_EQ(fs, *(u64 *)base);
	}
	CHECK_EQ(kt_seen[KEEL_PORT_BIT(port)], 20);
}
