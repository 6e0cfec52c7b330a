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

KEEL_TEST("NORM-012", norm_popf, "KEEL-NORM-09 KEEL-TRAP-07", "", 0)
{
	u64 flags;

	for (u8 on = 0; on < 2; on++) {
		kt_vcpu->if_enabled = on;
		__asm__ volatile("pushfq\n\tpopq %0" : "=r"(flags));
		CHECK_EQ(flags & 0x200, 0x200);
		__asm__ volatile("pushfq\n\tandq $~0x200, (%%rsp)\n\tpopfq" : : : "cc", "memory");
		CHECK_EQ(kt_vcpu->if_enabled, on);
		__asm__ volatile("pushfq\n\torq $0x200, (%%rsp)\n\tpopfq\n\tpushfq\n\tpopq %0"
				 : "=r"(flags)
				 :
				 : "cc", "memory");
		CHECK_EQ(kt_vcpu->if_enabled, on);
		CHECK_EQ(flags & 0x200, 0x200);
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
	/* Undefined by the ABI: a host may report, emulate or raise #GP, error 0. What it may not is trap otherwise. */
	if (probe()) {
		if (F.vector != KEEL_VEC_GP || F.error || F.addr)
			KT_FAIL("%s: vector %u error %lx", name, F.vector, F.error);
		kt_note("%s: #GP", name);
	} else {
		kt_note("%s: emulated", name);
	}
}

KEEL_TEST("NORM-015", norm_privileged, "KEEL-NORM-01 KEEL-NORM-12", "neg exit=any", 0)
{
	kt_armed();
	privileged(kt_probe_hlt, "hlt");
	privileged(kt_probe_cli, "cli");
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
