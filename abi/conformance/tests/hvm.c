// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* HVM: what a kernel that owns its page tables and interrupts finds. */
#include "kt_hvm.h"

#define G0 KT_SCRATCH_GPA
#define MS KEEL_U64(1000000)
#define VECTOR 0x40
#define BIT(n) (1ull << (n))

/* What an HVM partition is offered, and nothing else (KEEL-HVM-15). */
#define OFFERED                                                                                      \
	(BIT(KEEL_EXT_BASE) | BIT(KEEL_EXT_MULTICALL) | BIT(KEEL_EXT_EVENT) | BIT(KEEL_EXT_TIME) |   \
	 BIT(KEEL_EXT_CONSOLE) | BIT(KEEL_EXT_MEMORY) | BIT(KEEL_EXT_DEVICE) | BIT(KEEL_EXT_CRASH) | \
	 BIT(KEEL_EXT_STATS))

KEEL_TEST("HVM-001", hvm_pvh_start, "KEEL-HVM-01 KEEL-HVM-17", "profile=HVM args=one%20%20two=2", KT_EARLY)
{
	const struct pvh_memmap *m = kt_ram(kt_pvh_info->memmap);
	const char *s = kt_ram(kt_pvh_info->cmdline);
	size_t n = strlen(s);
	u64 ram = kt_ram_of_map();

	CHECK_EQ(kt_pvh_info->magic, PVH_MAGIC);
	CHECK(kt_pvh_info->version >= 1);
	CHECK_EQ(kt_pvh_info->nr_modules, 0);
	CHECK(!memcmp(s, "test=HVM-001 seed=", 18));
	CHECK(n > 12 && !strcmp(s + n - 11, " one  two=2"));
	CHECK(ram >= 64 << 20 && ram % 4096 == 0);
	CHECK(kt_pvh_info->memmap_entries >= 1);
	for (u32 i = 0; i < kt_pvh_info->memmap_entries; i++)
		for (u32 k = 0; k < i; k++)
			CHECK(m[i].addr >= m[k].addr + m[k].size || m[k].addr >= m[i].addr + m[i].size);
	/* It is there, up to its last word. */
	for (u64 g = 32 << 20; g < ram; g += 1 << 20)
		*(volatile u64 *)kt_ram(g - 8) = g;
	*(volatile u64 *)kt_ram(ram - 8) = 77;
	for (u64 g = 32 << 20; g < ram; g += 1 << 20)
		CHECK_EQ(*(volatile u64 *)kt_ram(g - 8), g);
	CHECK_EQ(*(volatile u64 *)kt_ram(ram - 8), 77);
}

KEEL_TEST("HVM-002", hvm_pvh_module, "KEEL-HVM-01", "profile=HVM module=10007", KT_EARLY)
{
	const struct pvh_module *m = kt_ram(kt_pvh_info->modlist);
	const u8 *b;

	REQUIRE(kt_pvh_info->nr_modules == 1 && m->size == 10007 && m->addr + m->size <= kt_ram_of_map());
	b = kt_ram(m->addr);
	for (u32 i = 0; i < 10007; i++)
		if (b[i] != (u8)(i * 7)) {
			KT_FAIL("module byte %u is %x", i, b[i]);
			break;
		}
}

KEEL_TEST("HVM-003", hvm_cpuid_signature, "KEEL-HVM-02", "profile=HVM", KT_EARLY)
{
	u32 found = 0;

	for (u32 leaf = KEEL_CPUID_FIRST; leaf <= KEEL_CPUID_LAST; leaf += KEEL_CPUID_STEP) {
		struct cpuid c = kt_cpuid(leaf, 0);

		if (c.ebx != KEEL_CPUID_SIGNATURE || c.ecx != KEEL_CPUID_SIGNATURE || c.edx != KEEL_CPUID_SIGNATURE)
			continue;
		found++;
		CHECK(!memcmp(&c.ebx, "KeelKeelKeel", 12));
		CHECK_EQ(c.eax, leaf + KEEL_CPUID_MSRS);
	}
	CHECK_EQ(found, 1);
	CHECK(kt_cpuid(1, 0).ecx >> 31); /* says that there is a hypervisor to look for */
}

KEEL_TEST("HVM-004", hvm_cpuid_version_features, "KEEL-HVM-03", "profile=HVM", KT_EARLY)
{
	struct cpuid v = kt_cpuid(kt_leaf + KEEL_CPUID_VERSION, 0), f = kt_cpuid(kt_leaf + KEEL_CPUID_FEATURES, 0);
	u64 version = HC(KEEL_CALL_BASE_VERSION).value;

	CHECK_EQ(v.eax, version >> 32);
	CHECK_EQ(v.ebx, version >> 16 & 0xffff);
	CHECK_EQ(v.ecx, version & 0xffff);
	CHECK_EQ(v.eax, KEEL_ABI_MAJOR);
	OK_VALUE(HC(KEEL_CALL_BASE_FEATURES, 0), (u64)f.ebx << 32 | f.eax);
	OK_VALUE(HC(KEEL_CALL_BASE_FEATURES, 1), (u64)f.edx << 32 | f.ecx);
}

KEEL_TEST("HVM-005", hvm_cpuid_msrs, "KEEL-HVM-04", "profile=HVM", KT_EARLY)
{
	struct cpuid c = kt_cpuid(kt_leaf + KEEL_CPUID_MSRS, 0);

	CHECK_EQ(c.eax, KEEL_MSR_GATE);
	CHECK_EQ(c.ebx, KEEL_MSR_COUNT);
	CHECK(c.ecx < 24); /* an I/O APIC's line */
}

KEEL_TEST("HVM-006", hvm_cpuid_zeros, "KEEL-HVM-05", "neg profile=HVM", KT_EARLY)
{
	CHECK_EQ(kt_cpuid(kt_leaf + KEEL_CPUID_VERSION, 0).edx, 0);
	CHECK_EQ(kt_cpuid(kt_leaf + KEEL_CPUID_MSRS, 0).edx, 0);
	for (u32 i = KEEL_CPUID_MSRS + 1; i < KEEL_CPUID_LEAVES; i++) {
		struct cpuid c = kt_cpuid(kt_leaf + i, 0);

		if (c.eax | c.ebx | c.ecx | c.edx)
			KT_FAIL("leaf +%u is %x %x %x %x", i, c.eax, c.ebx, c.ecx, c.edx);
	}
}

static u64 leaves(u32 subleaf)
{
	u64 h = 1;

	for (u32 i = 0; i < KEEL_CPUID_LEAVES; i++) {
		struct cpuid c = kt_cpuid(kt_leaf + i, subleaf);

		h = kt_hash(h, &c, sizeof(c));
	}
	return h;
}

KEEL_TEST("HVM-007", hvm_cpuid_stable, "KEEL-HVM-06", "neg profile=HVM", KT_EARLY)
{
	static const u32 sub[] = { 0, 1, 2, 0xff, 0x80000000, 0xffffffff };
	u64 h = leaves(0);

	for (u32 i = 0; i < sizeof(sub) / 4; i++)
		CHECK_EQ(leaves(sub[i]), h);
	OK(HC(KEEL_CALL_BASE_ACCEPT, 0, BIT(KEEL_EXT_TIME)));
	CHECK_EQ(leaves(0), h);
	kt_freeze();
	CHECK_EQ(leaves(7), h);
	kt_vcpu_on();
	CHECK(!kt_wrmsr(KEEL_MSR_UPCALL, KEEL_UPCALL_LAPIC | VECTOR));
	CHECK(!kt_wrmsr(KEEL_MSR_GATE, 0));
	CHECK_EQ(leaves(0), h);
	CHECK(!kt_wrmsr(KEEL_MSR_GATE, kt_gpa(kt_gate_page) | KEEL_MSR_ENABLE));
}

KEEL_TEST("HVM-008", hvm_msrs_at_start, "KEEL-HVM-07", "profile=HVM", KT_EARLY)
{
	CHECK_EQ(kt_first_trapped, 0);
	for (u32 i = 0; i < KEEL_MSR_COUNT; i++)
		CHECK_EQ(kt_first_msr[i], 0);
	CHECK_EQ(kt_msr(KEEL_MSR_GATE), kt_gpa(kt_gate_page) | KEEL_MSR_ENABLE);
	CHECK_EQ(kt_msr(KEEL_MSR_VCPU), 0);
	CHECK_EQ(kt_msr(KEEL_MSR_UPCALL), 0);
	kt_vcpu_on();
	CHECK_EQ(kt_msr(KEEL_MSR_VCPU), kt_gpa(&kt_vcpu_page) | KEEL_MSR_ENABLE);
	for (u64 v = KEEL_UPCALL_VECTOR_MIN; v < 256; v += 13) {
		CHECK(!kt_wrmsr(KEEL_MSR_UPCALL, KEEL_UPCALL_LAPIC | v));
		CHECK_EQ(kt_msr(KEEL_MSR_UPCALL), KEEL_UPCALL_LAPIC | v);
	}
	CHECK(!kt_wrmsr(KEEL_MSR_UPCALL, KEEL_UPCALL_GSI));
	CHECK_EQ(kt_msr(KEEL_MSR_UPCALL), KEEL_UPCALL_GSI);
	CHECK(!kt_wrmsr(KEEL_MSR_UPCALL, 0));
	CHECK_EQ(kt_msr(KEEL_MSR_UPCALL), 0);
	CHECK(!kt_wrmsr(KEEL_MSR_VCPU, 0));
	CHECK_EQ(kt_msr(KEEL_MSR_VCPU), 0);
}

/* A write that must be #GP and change nothing: neither the MSR nor a page nor what calls do. */
static void bad_write(u32 msr, u64 value)
{
	u64 before = kt_digest();

	if (!kt_wrmsr(msr, value))
		KT_FAIL("MSR %x took %lx", msr, value);
	else if (kt_trap.vector != KEEL_VEC_GP || kt_trap.error)
		KT_FAIL("MSR %x, %lx: trap %lu error %lx", msr, value, kt_trap.vector, kt_trap.error);
	CHECK_EQ(kt_digest(), before);
	OK_VALUE(HC(KEEL_CALL_BASE_PING, value), value);
}

static void bad_pages(u32 msr)
{
	u64 ram = kt_ram_of_map(), g = G0 | KEEL_MSR_ENABLE;

	bad_write(msr, G0);	     /* not enabled, and not 0 */
	for (int b = 1; b < 12; b++) /* bits that are none of the address */
		bad_write(msr, g | BIT(b));
	bad_write(msr, ram | KEEL_MSR_ENABLE);	      /* just beyond RAM */
	bad_write(msr, 0xfee00000 | KEEL_MSR_ENABLE); /* a device */
	bad_write(msr, BIT(40) | KEEL_MSR_ENABLE);
	bad_write(msr, BIT(52) | g);
	bad_write(msr, BIT(63) | g);
	bad_write(msr, -4096ull | KEEL_MSR_ENABLE);
	bad_write(msr, ~0ull);
	bad_write(msr, KT_LINEAR | g); /* a virtual address */
}

KEEL_TEST("HVM-009", hvm_gate_bad, "KEEL-HVM-08", "neg profile=HVM", 0)
{
	bad_pages(KEEL_MSR_GATE);
	CHECK_EQ(kt_msr(KEEL_MSR_GATE), kt_gpa(kt_gate_page) | KEEL_MSR_ENABLE);
}

KEEL_TEST("HVM-010", hvm_vcpu_bad, "KEEL-HVM-08", "neg profile=HVM", 0)
{
	bad_pages(KEEL_MSR_VCPU);
	CHECK_EQ(kt_msr(KEEL_MSR_VCPU), 0);
	ERR_VALUE(HC(KEEL_CALL_EVENT_ALLOC, 0), KEEL_STATUS(KEEL_E_STATE, 0), 0);
	kt_vcpu_on();
	bad_pages(KEEL_MSR_VCPU);
	CHECK_EQ(kt_msr(KEEL_MSR_VCPU), kt_gpa(&kt_vcpu_page) | KEEL_MSR_ENABLE);
	kt_alloc(0);
}

KEEL_TEST("HVM-011", hvm_upcall_bad, "KEEL-HVM-09", "neg profile=HVM", 0)
{
	for (u64 v = 0; v < KEEL_UPCALL_VECTOR_MIN; v++)
		bad_write(KEEL_MSR_UPCALL, KEEL_UPCALL_LAPIC | v);
	for (u64 v = 1; v < 256; v += 11) {
		bad_write(KEEL_MSR_UPCALL, v); /* a vector for nobody */
		bad_write(KEEL_MSR_UPCALL, KEEL_UPCALL_GSI | v);
	}
	bad_write(KEEL_MSR_UPCALL, KEEL_UPCALL_LAPIC | KEEL_UPCALL_GSI);
	bad_write(KEEL_MSR_UPCALL, KEEL_UPCALL_LAPIC | KEEL_UPCALL_GSI | VECTOR);
	for (int b = 10; b < 64; b += 3)
		bad_write(KEEL_MSR_UPCALL, KEEL_UPCALL_LAPIC | VECTOR | BIT(b));
	CHECK_EQ(kt_msr(KEEL_MSR_UPCALL), 0);
	CHECK(!kt_wrmsr(KEEL_MSR_UPCALL, KEEL_UPCALL_LAPIC | 0xff));
	bad_write(KEEL_MSR_UPCALL, ~0ull);
	CHECK_EQ(kt_msr(KEEL_MSR_UPCALL), KEEL_UPCALL_LAPIC | 0xff);
}

KEEL_TEST("HVM-012", hvm_msrs_reserved, "KEEL-HVM-10", "neg profile=HVM", 0)
{
	u64 before = kt_digest();

	for (u32 msr = KEEL_MSR_GATE + KEEL_MSR_COUNT; msr <= KEEL_MSR_LAST; msr++) {
		u64 v = 0x5a;

		if (!kt_rdmsr(msr, &v))
			KT_FAIL("MSR %x reads %lx", msr, v);
		CHECK_EQ(kt_trap.vector, KEEL_VEC_GP);
		if (!kt_wrmsr(msr, 0))
			KT_FAIL("MSR %x can be written", msr);
		if (!kt_wrmsr(msr, G0 | KEEL_MSR_ENABLE))
			KT_FAIL("MSR %x can be written", msr);
		CHECK_EQ(kt_trap.vector, KEEL_VEC_GP);
		CHECK_EQ(kt_trap.error, 0);
	}
	CHECK_EQ(kt_digest(), before);
}

static u8 neighbours[3 * 4096] __attribute__((aligned(4096)));

KEEL_TEST("HVM-013", hvm_gate_page, "KEEL-HVM-11 KEEL-HVM-12", "profile=HVM", KT_EARLY)
{
	static const u8 endbr64[4] = { 0xf3, 0x0f, 0x1e, 0xfa };
	u8 *page = neighbours + 4096;
	u64 before, after;

	for (size_t i = 0; i < sizeof(neighbours); i++)
		neighbours[i] = (u8)(i * 31);
	before = kt_hash(1, neighbours, 4096);
	after = kt_hash(1, neighbours + 8192, 4096);
	CHECK(!kt_wrmsr(KEEL_MSR_GATE, kt_gpa(page) | KEEL_MSR_ENABLE));
	CHECK(!memcmp(page, endbr64, 4));
	CHECK_EQ(kt_hash(1, neighbours, 4096), before);
	CHECK_EQ(kt_hash(1, neighbours + 8192, 4096), after);
	/* At the page's own address and where the linear map has it: the code is the same everywhere. */
	kt_gate_at(page);
	OK_VALUE(HC(KEEL_CALL_BASE_PING, 0x1234567812345678), 0x1234567812345678);
	kt_gate_at(kt_ram(kt_gpa(page)));
	OK_VALUE(HC(KEEL_CALL_BASE_PING, 8), 8);
	ERR_VALUE(HC(KEEL_CALL_BASE_HOST, 4), KEEL_STATUS(KEEL_E_RANGE, ARG(1)), 0);
	CHECK_EQ(kt_hash(1, neighbours, 4096), before);
	CHECK_EQ(kt_hash(1, neighbours + 8192, 4096), after);
}

static void check_registers(const char *name, u64 flags, const u64 *call)
{
	struct kt_regs in, out;
	u64 *w = (u64 *)&in;

	for (size_t i = 0; i < sizeof(in) / 8; i++)
		w[i] = kt_random();
	in.rax = call[0];
	in.rdi = call[1];
	in.rsi = call[2];
	in.rdx = call[3];
	in.r10 = call[4];
	in.r8 = call[5];
	in.rflags = flags;
	out = in;
	kt_call_regs(&out);
	if (in.rbx != out.rbx || in.rbp != out.rbp || in.rsi != out.rsi || in.rdi != out.rdi || in.r8 != out.r8 ||
	    in.r9 != out.r9 || in.r10 != out.r10 || in.r12 != out.r12 || in.r13 != out.r13 || in.r14 != out.r14 ||
	    in.r15 != out.r15)
		KT_FAIL("%s: a register was not preserved", name);
	CHECK_EQ(out.rflags & 0x700, flags & 0x700); /* IF, TF, DF */
}

KEEL_TEST("HVM-014", hvm_gate_registers, "KEEL-HVM-12", "profile=HVM", 0)
{
	static const struct {
		const char *name;
		u64 call[6];
	} kind[] = {
		{ "base_nop", { KEEL_CALL_BASE_NOP } },
		{ "base_ping", { KEEL_CALL_BASE_PING, 0x1234 } },
		{ "time_read", { KEEL_CALL_TIME_READ } },
		{ "memory_populate", { KEEL_CALL_MEMORY_POPULATE, G0, 65536 } },
		{ "stats_read", { KEEL_CALL_STATS_READ, G0, 4096, 0 } },
		{ "console_write", { KEEL_CALL_CONSOLE_WRITE, 1, '\n' } },
		{ "unknown", { 0x01ffffff, 1, 2, 3, 4, 5 } },
		{ "not offered", { KEEL_CALL_MMU_BATCH, 1, 2, 3, 4, 5 } },
		{ "refused", { KEEL_CALL_MULTICALL, 9, 9, 9, 9, 9 } },
		{ "state", { KEEL_CALL_EVENT_SEND, 9 } },
	};
	u64 xmm[2] = { 0x1122334455667788, 0x99aabbccddeeff00 }, got[2];

	__asm__ volatile("movups %0, %%xmm5" : : "m"(xmm));
	for (size_t i = 0; i < sizeof(kind) / sizeof(kind[0]); i++) {
		check_registers(kind[i].name, 0x2, kind[i].call);
		check_registers(kind[i].name, 0xad7, kind[i].call); /* IF and every arithmetic flag */
	}
	__asm__ volatile("movups %%xmm5, %0" : "=m"(got));
	CHECK(got[0] == xmm[0] && got[1] == xmm[1]);
}

KEEL_TEST("HVM-015", hvm_gate_moved, "KEEL-HVM-13 KEEL-HVM-07", "neg profile=HVM", 0)
{
	for (u32 i = 0; i < 8; i++) {
		u64 g = G0 + (1 + i % 3) * 4096;

		kt_poison(g, 4096, i);
		CHECK(!kt_wrmsr(KEEL_MSR_GATE, g | KEEL_MSR_ENABLE));
		kt_gate_at(kt_ram(g));
		OK_VALUE(HC(KEEL_CALL_BASE_PING, i), i);
		CHECK_EQ(kt_msr(KEEL_MSR_GATE), g | KEEL_MSR_ENABLE);
		/* The one before is plain memory again: what the guest writes stays. */
		if (i) {
			u64 old = G0 + (1 + (i - 1) % 3) * 4096, h;

			kt_poison(old, 4096, 1000 + i);
			h = kt_hash(1, kt_ram(old), 4096);
			OK_VALUE(HC(KEEL_CALL_BASE_PING, i), i);
			CHECK_EQ(kt_hash(1, kt_ram(old), 4096), h);
		}
	}
	/* Off: the last one as well. */
	u64 last = G0 + (1 + 7 % 3) * 4096, h;

	CHECK(!kt_wrmsr(KEEL_MSR_GATE, 0));
	CHECK_EQ(kt_msr(KEEL_MSR_GATE), 0);
	kt_poison(last, 4096, 99);
	h = kt_hash(1, kt_ram(last), 4096);
	CHECK(kt_wrmsr(KEEL_MSR_GATE, 3));
	CHECK_EQ(kt_msr(KEEL_MSR_GATE), 0);
	CHECK_EQ(kt_hash(1, kt_ram(last), 4096), h);
	CHECK(!kt_wrmsr(KEEL_MSR_GATE, kt_gpa(kt_gate_page) | KEEL_MSR_ENABLE));
	kt_gate_at(kt_gate_page);
	OK_VALUE(HC(KEEL_CALL_BASE_PING, 3), 3);
}

KEEL_TEST("HVM-016", hvm_offered, "KEEL-HVM-15", "profile=HVM", KT_EARLY)
{
	OK_VALUE(HC(KEEL_CALL_BASE_FEATURES, 0), OFFERED);
	CHECK_EQ(HC(KEEL_CALL_BASE_FEATURES, 1).value &
			 (BIT(KEEL_F1_CLOCK_PAGE) | BIT(KEEL_F1_SMP) | BIT(KEEL_F1_HARVEST_ACCESSED)),
		 0);
	for (u32 e = 0; e < KEEL_EXT_COUNT; e++)
		OK_VALUE(HC(KEEL_CALL_BASE_PROBE, e),
			 !(OFFERED >> e & 1) ? 0
			 : e		     ? KEEL_PROBE_IMPLEMENTED | KEEL_PROBE_GRANTED
					     : KEEL_PROBE_IMPLEMENTED | KEEL_PROBE_GRANTED | KEEL_PROBE_ACCEPTED);
	OK(HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_VCPUS));
}

static void not_offered(void)
{
	u32 n = 0;

	for (u32 i = 0; i < KEEL_CALL_COUNT; i++) {
		if (OFFERED >> KEEL_CALL_EXT(kt_calls[i].id) & 1)
			continue;
		n++;
		ERR_VALUE(HC(kt_calls[i].id), KEEL_STATUS(KEEL_E_NOTSUP, 0), 0);
		ERR_VALUE(HC(kt_calls[i].id, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull), KEEL_STATUS(KEEL_E_NOTSUP, 0), 0);
	}
	CHECK(n > 20);
}

KEEL_TEST("HVM-017", hvm_not_offered, "KEEL-HVM-15", "neg profile=HVM", KT_EARLY)
{
	not_offered(); /* before the freeze, after it, and with a vCPU page */
	kt_accept_all();
	kt_freeze();
	not_offered();
	kt_vcpu_on();
	not_offered();
}

KEEL_TEST("HVM-018", hvm_before_freeze, "KEEL-HVM-16", "neg profile=HVM", KT_EARLY)
{
	kt_vcpu_on();
	kt_accept_all(); /* accepted is not yet callable */
	for (u32 i = 0; i < KEEL_CALL_COUNT; i++)
		if (!(kt_calls[i].flags & KEEL_CF_EARLY) && OFFERED >> KEEL_CALL_EXT(kt_calls[i].id) & 1) {
			NEG(HC(kt_calls[i].id), KEEL_E_STATE, 0);
			NEG(HC(kt_calls[i].id, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull), KEEL_E_STATE, 0);
		}
	OK(HC(KEEL_CALL_BASE_NOP));
	OK(HC(KEEL_CALL_CONSOLE_WRITE, 1, '\n'));
	NEG(HC(KEEL_CALL_CRASH, 256), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_BASE_SHUTDOWN, 2, 0), KEEL_E_INVAL, ARG(1));
}

KEEL_TEST("HVM-019", hvm_accept_bad, "KEEL-HVM-15 KEEL-HVM-16", "neg profile=HVM", KT_EARLY)
{
	for (int b = 0; b < 64; b++)
		if (!(OFFERED >> b & 1))
			NEG_BIT(HC(KEEL_CALL_BASE_ACCEPT, 0, BIT(b) | BIT(KEEL_EXT_TIME)), KEEL_E_NOTSUP, ARG(2), b);
	for (int b = 0; b <= KEEL_F1_SMP; b++)
		NEG_BIT(HC(KEEL_CALL_BASE_ACCEPT, 1, BIT(b)), KEEL_E_NOTSUP, ARG(2), b);
	CHECK_EQ(HC(KEEL_CALL_BASE_PROBE, KEEL_EXT_TIME).value & KEEL_PROBE_ACCEPTED, 0);
	kt_freeze();
	NEG(HC(KEEL_CALL_TIME_READ), KEEL_E_NOTSUP, 0);
	NEG(HC(KEEL_CALL_BASE_FREEZE), KEEL_E_STATE, 0);
	NEG(HC(KEEL_CALL_BASE_ACCEPT, 0, BIT(KEEL_EXT_TIME)), KEEL_E_STATE, 0);
}

/* Accept `bits` of word 0; then calls of these are answered by themselves, and all others NOTSUP. */
static void only(u64 bits)
{
	u32 here = 0, gone = 0;

	OK(HC(KEEL_CALL_BASE_ACCEPT, 0, bits));
	kt_freeze();
	kt_vcpu_on();
	for (u32 i = 0; i < KEEL_CALL_COUNT; i++) {
		u32 ext = KEEL_CALL_EXT(kt_calls[i].id);
		struct kt_ret r;

		if (kt_calls[i].flags & KEEL_CF_EARLY || !(OFFERED >> ext & 1))
			continue;
		if (!(bits >> ext & 1)) {
			gone++;
			NEG(HC(kt_calls[i].id), KEEL_E_NOTSUP, 0);
			NEG(HC(kt_calls[i].id, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull), KEEL_E_NOTSUP, 0);
			continue;
		}
		here++;
		/* Every register set: refused, and by itself. */
		r = HC(kt_calls[i].id, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull);
		if (!r.status || KEEL_STATUS_CODE(r.status) == KEEL_E_NOTSUP ||
		    KEEL_STATUS_CODE(r.status) == KEEL_E_STATE)
			KT_FAIL("%s: status %ld", kt_calls[i].name, r.status);
	}
	kt_note("%u calls work, %u do not", here, gone);
	CHECK(here + gone > 10);
}

/* Each extension with its feature clear, then set. */
#define MASKED(id, name, ext)                                                         \
	KEEL_TEST(id, hvm_without_##name, "KEEL-HVM-16", "neg profile=HVM", KT_EARLY) \
	{                                                                             \
		only(OFFERED & ~BIT(ext));                                            \
	}
#define ALONE(id, name, ext)                                                       \
	KEEL_TEST(id, hvm_only_##name, "KEEL-HVM-16", "neg profile=HVM", KT_EARLY) \
	{                                                                          \
		only(BIT(ext));                                                    \
	}
MASKED("HVM-020", multicall, KEEL_EXT_MULTICALL)
ALONE("HVM-021", multicall, KEEL_EXT_MULTICALL)
MASKED("HVM-022", event, KEEL_EXT_EVENT)
ALONE("HVM-023", event, KEEL_EXT_EVENT)
MASKED("HVM-024", time, KEEL_EXT_TIME)
ALONE("HVM-025", time, KEEL_EXT_TIME)
MASKED("HVM-026", console, KEEL_EXT_CONSOLE)
ALONE("HVM-027", console, KEEL_EXT_CONSOLE)
MASKED("HVM-028", memory, KEEL_EXT_MEMORY)
ALONE("HVM-029", memory, KEEL_EXT_MEMORY)
MASKED("HVM-030", stats, KEEL_EXT_STATS)
ALONE("HVM-031", stats, KEEL_EXT_STATS)

KEEL_TEST("HVM-032", hvm_gpa_extent, "KEEL-HVM-17", "neg profile=HVM", 0)
{
	u64 ram = kt_ram_of_map();
	const u64 bad[] = { ram,     ram - 24,	 ram - 8,    -32ull,	-8ull,	 BIT(63),
			    BIT(52), 0xfee00000, 0xfec00000, KT_LINEAR, BIT(47), 0xfffff000 };

	kt_vcpu_on();
	for (size_t i = 0; i < sizeof(bad) / 8; i++) {
		NEG(HC(KEEL_CALL_EVENT_BATCH, bad[i], 4, 0), KEEL_E_FAULT, ARG(1));
		NEG(HC(KEEL_CALL_MULTICALL, bad[i], 1, G0, 0), KEEL_E_FAULT, ARG(1));
		NEG(HC(KEEL_CALL_MULTICALL, G0, 1, bad[i], 0), KEEL_E_FAULT, ARG(3));
		NEG(HC(KEEL_CALL_STATS_READ, bad[i], 4096, 0), KEEL_E_FAULT, ARG(1));
		NEG(HC(KEEL_CALL_CRASH, 0, bad[i], 64), KEEL_E_FAULT, ARG(2));
		NEG(HC(KEEL_CALL_MEMORY_POPULATE, bad[i] & ~0xfffull, 4096 * 2), KEEL_E_FAULT, ARG(1));
		NEG(HC(KEEL_CALL_CONSOLE_SETUP, (bad[i] & ~0xfffull) < ram ? ram : bad[i] & ~0xfffull,
		       KEEL_CONSOLE_RING_SIZE),
		    KEEL_E_FAULT, ARG(1));
	}
	OK_VALUE(HC(KEEL_CALL_STATS_READ, ram - 32, 32, 0), 1); /* the very end */
	OK_VALUE(HC(KEEL_CALL_MEMORY_POPULATE, ram - 4096, 4096), 1);
}

static void check_fresh(const volatile struct keel_vcpu *v)
{
	const volatile u64 *w = (const volatile u64 *)v;

	for (u32 off = 0; off < KEEL_VCPU_PAGE_SIZE; off += 8) {
		bool mask = off >= KEEL_VCPU_EVENT_MASK && off < KEEL_VCPU_EVENT_MASK + 512;

		if (w[off / 8] != (mask ? ~0ull : 0))
			KT_FAIL("vCPU page offset %x is %lx", off, w[off / 8]);
	}
}

KEEL_TEST("HVM-033", hvm_vcpu_page, "KEEL-HVM-18", "profile=HVM", KT_EARLY)
{
	u64 before, after;

	memset(&kt_vcpu_page, 0xa5, sizeof(kt_vcpu_page));
	kt_vcpu_on(); /* before the freeze already */
	check_fresh(&kt_vcpu_page);
	memset(neighbours, 0x5a, sizeof(neighbours));
	before = kt_hash(1, neighbours, 4096);
	after = kt_hash(1, neighbours + 8192, 4096);
	CHECK(!kt_wrmsr(KEEL_MSR_VCPU, kt_gpa(neighbours + 4096) | KEEL_MSR_ENABLE));
	check_fresh((struct keel_vcpu *)(neighbours + 4096));
	CHECK_EQ(kt_hash(1, neighbours, 4096), before);
	CHECK_EQ(kt_hash(1, neighbours + 8192, 4096), after);
}

KEEL_TEST("HVM-034", hvm_vcpu_moved, "KEEL-HVM-18", "neg profile=HVM", 0)
{
	u32 a, timer;
	u64 h;

	kt_vcpu_on();
	a = kt_alloc(0);
	timer = kt_bind(KEEL_SOURCE_TIMER, 1);
	OK(HC(KEEL_CALL_EVENT_UNMASK, a));
	OK(HC(KEEL_CALL_EVENT_SEND, a));
	CHECK(kt_port_pending(a) && kt_pending());
	memset(kt_ram(G0 + 4096), 0xa5, 4096);
	CHECK(!kt_wrmsr(KEEL_MSR_VCPU, (G0 + 4096) | KEEL_MSR_ENABLE));
	h = kt_hash(1, &kt_vcpu_page, 4096);
	kt_vcpu = kt_ram(G0 + 4096);
	check_fresh(kt_vcpu);
	/* Allocated and bound as before; masked, and nothing pending. */
	OK(HC(KEEL_CALL_EVENT_SEND, a));
	CHECK(kt_port_pending(a));
	CHECK_EQ(kt_pending(), 0);
	OK(HC(KEEL_CALL_EVENT_UNMASK, a));
	CHECK(kt_pending());
	NEG(HC(KEEL_CALL_EVENT_BIND, KEEL_SOURCE_TIMER, 0), KEEL_E_EXIST, ARG(1));
	OK(HC(KEEL_CALL_EVENT_UNMASK, timer));
	OK(HC(KEEL_CALL_TIME_SET_TIMER, 0));
	for (u64 end = kt_now() + 1000 * MS; !kt_port_pending(timer) && kt_now() < end;)
		;
	CHECK(kt_port_pending(timer));
	CHECK_EQ(kt_hash(1, &kt_vcpu_page, 4096), h); /* hands off the old one */
	h = kt_hash(1, kt_vcpu, 4096);
	CHECK(!kt_wrmsr(KEEL_MSR_VCPU, 0));
	OK(HC(KEEL_CALL_TIME_SET_TIMER, 0));
	ERR_VALUE(HC(KEEL_CALL_EVENT_SEND, a), KEEL_STATUS(KEEL_E_STATE, 0), 0);
	kt_spin_ns(2 * MS);
	CHECK_EQ(kt_hash(1, kt_vcpu, 4096), h);
}

static void events_are(s64 status)
{
	static const struct {
		u64 call[4];
	} bad[] = {
		{ { KEEL_CALL_EVENT_ALLOC, 4 } },
		{ { KEEL_CALL_EVENT_ALLOC, ~0ull } },
		{ { KEEL_CALL_EVENT_BIND, 99, 0 } },
		{ { KEEL_CALL_EVENT_CLOSE, 1 } },
		{ { KEEL_CALL_EVENT_MASK, 1 } },
		{ { KEEL_CALL_EVENT_UNMASK, BIT(32) } },
		{ { KEEL_CALL_EVENT_SEND, 1 } },
		{ { KEEL_CALL_EVENT_BATCH, 1, 1, 1 } },
		{ { KEEL_CALL_EVENT_BATCH, G0, 0, 0 } },
		{ { KEEL_CALL_EVENT_DUMP, 0 } },
		{ { KEEL_CALL_EVENT_DUMP, 77 } },
		{ { KEEL_CALL_EVENT_ALLOC, 0 } },
		{ { KEEL_CALL_EVENT_BIND, KEEL_SOURCE_TIMER, 0 } },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const u64 *c = bad[i].call;
		struct kt_ret r = HC(c[0], c[1], c[2], c[3]);

		if ((r.status == KEEL_STATUS(KEEL_E_STATE, 0)) != (status != 0) || (status && r.value))
			KT_FAIL("call %lx(%lx): status %ld", c[0], c[1], r.status);
	}
}

KEEL_TEST("HVM-035", hvm_events_need_page, "KEEL-HVM-19", "neg profile=HVM", 0)
{
	struct keel_multicall *e = kt_ram(G0 + 4096);
	struct keel_multicall_result *r = kt_ram(G0 + 8192);
	u64 before = kt_digest();

	events_are(KEEL_STATUS(KEEL_E_STATE, 0));
	memset(e, 0, 4096);
	e[0] = (struct keel_multicall){ .id = KEEL_CALL_EVENT_ALLOC };
	e[1] = (struct keel_multicall){ .id = KEEL_CALL_BASE_PING, .arg = { 6 } };
	OK_VALUE(HC(KEEL_CALL_MULTICALL, G0 + 4096, 2, G0 + 8192, 0), 2);
	CHECK_EQ(r[0].status, KEEL_STATUS(KEEL_E_STATE, 0));
	CHECK_EQ(r[1].value, 6);
	NEG(HC(KEEL_CALL_TIME_SET_TIMER, 0), KEEL_E_STATE, 0); /* no port is bound */
	CHECK_EQ(kt_digest(), before);
	kt_vcpu_on();
	events_are(0);
	CHECK(!kt_wrmsr(KEEL_MSR_VCPU, 0));
	events_are(KEEL_STATUS(KEEL_E_STATE, 0));
}

KEEL_TEST("HVM-036", hvm_timer_without_page, "KEEL-HVM-19", "neg profile=HVM", 0)
{
	u32 port;

	kt_vcpu_on();
	kt_lapic_on();
	CHECK(!kt_wrmsr(KEEL_MSR_UPCALL, KEEL_UPCALL_LAPIC | VECTOR));
	port = kt_bind(KEEL_SOURCE_TIMER, 0);
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + 20 * MS * kt_slow()));
	CHECK(!kt_wrmsr(KEEL_MSR_VCPU, 0));
	kt_hw_sti();
	kt_spin_ns(30 * MS * kt_slow());
	kt_vcpu_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_spin_ns(2 * MS);
	kt_hw_cli();
	CHECK(!kt_port_pending(port));
	CHECK_EQ(kt_pending(), 0);
	CHECK_EQ(kt_irqs[VECTOR], 0);
}

/* What was raised has arrived, or will not: an interrupt takes no time that shows when IF is 1. */
static void settle(u32 vector, u64 expect)
{
	u64 end = kt_now() + 1000 * MS;

	kt_hw_sti();
	while (kt_irqs[vector] < expect && kt_now() < end)
		;
	HC(KEEL_CALL_BASE_PING, 1);
	kt_hw_cli();
	CHECK_EQ(kt_irqs[vector], expect);
}

static u32 two_ports[2];

static void upcalls_on(u64 how)
{
	kt_vcpu_on();
	kt_lapic_on();
	CHECK(!kt_wrmsr(KEEL_MSR_UPCALL, how));
	for (u32 i = 0; i < 2; i++) {
		two_ports[i] = kt_alloc(2 * i);
		OK(HC(KEEL_CALL_EVENT_UNMASK, two_ports[i]));
	}
}

KEEL_TEST("HVM-037", hvm_upcall_once, "KEEL-HVM-21 KEEL-HVM-22", "profile=HVM", 0)
{
	upcalls_on(KEEL_UPCALL_LAPIC | VECTOR);
	for (u32 i = 1; i <= 50; i++) {
		/* IF is 0: raised, and not taken. */
		OK(HC(KEEL_CALL_EVENT_SEND, two_ports[1]));
		CHECK(kt_pending());
		CHECK_EQ(kt_irqs[VECTOR], i - 1);
		settle(VECTOR, i);
		/* More while pending is not 0, with IF 1: nothing. */
		kt_hw_sti();
		OK(HC(KEEL_CALL_EVENT_SEND, two_ports[1]));
		OK(HC(KEEL_CALL_EVENT_SEND, two_ports[0]));
		OK(HC(KEEL_CALL_EVENT_MASK, two_ports[0]));
		OK(HC(KEEL_CALL_EVENT_UNMASK, two_ports[0]));
		kt_hw_cli();
		settle(VECTOR, i);
		CHECK_EQ(kt_pending(), BIT(KEEL_PORT_BIT(two_ports[0]) / 64) | BIT(KEEL_PORT_BIT(two_ports[1]) / 64));
		kt_scan();
		CHECK_EQ(kt_seen[KEEL_PORT_BIT(two_ports[0])], i);
		CHECK_EQ(kt_seen[KEEL_PORT_BIT(two_ports[1])], i);
	}
	for (u32 v = 32; v < 255; v++)
		if (v != VECTOR && kt_irqs[v])
			KT_FAIL("vector %x came %lu times", v, kt_irqs[v]);
}

KEEL_TEST("HVM-038", hvm_no_upcall, "KEEL-HVM-21", "neg profile=HVM", 0)
{
	upcalls_on(KEEL_UPCALL_LAPIC | VECTOR);
	OK(HC(KEEL_CALL_EVENT_MASK, two_ports[0]));
	OK(HC(KEEL_CALL_EVENT_SEND, two_ports[0])); /* masked: held */
	settle(VECTOR, 0);
	CHECK_EQ(kt_pending(), 0);
	CHECK(!kt_wrmsr(KEEL_MSR_UPCALL, 0));
	OK(HC(KEEL_CALL_EVENT_UNMASK, two_ports[0])); /* pending, and nobody told */
	OK(HC(KEEL_CALL_EVENT_SEND, two_ports[1]));
	settle(VECTOR, 0);
	CHECK(kt_pending());
	kt_scan();
	CHECK_EQ(kt_seen[KEEL_PORT_BIT(two_ports[0])], 1);
	/* Another vector from here on. */
	CHECK(!kt_wrmsr(KEEL_MSR_UPCALL, KEEL_UPCALL_LAPIC | 0x77));
	OK(HC(KEEL_CALL_EVENT_SEND, two_ports[0]));
	settle(0x77, 1);
	CHECK_EQ(kt_irqs[VECTOR], 0);
}

static u32 hook_runs;

static void scan_in_interrupt(u32 vector)
{
	(void)vector;
	hook_runs++;
	kt_scan();
}

KEEL_TEST("HVM-039", hvm_timer_ends_hlt, "KEEL-HVM-22 KEEL-HVM-21", "profile=HVM timeout=20", 0)
{
	u32 port, bit;

	upcalls_on(KEEL_UPCALL_LAPIC | VECTOR);
	port = kt_bind(KEEL_SOURCE_TIMER, 1);
	bit = KEEL_PORT_BIT(port);
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_irq_hook = scan_in_interrupt;
	for (u32 i = 1; i <= 30; i++) {
		u64 deadline = kt_now() + (i & 1 ? MS : 1000);

		OK(HC(KEEL_CALL_TIME_SET_TIMER, deadline));
		while (kt_seen[bit] < i)
			kt_hw_wait();
		CHECK(kt_now() >= deadline);
		CHECK_EQ(kt_seen[bit], i);
		CHECK_EQ(kt_irqs[VECTOR], i);
	}
	/* Disarmed and replaced as ever. */
	OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + 2 * MS * kt_slow()));
	OK(HC(KEEL_CALL_TIME_SET_TIMER, KEEL_TIME_NEVER));
	kt_hw_sti();
	kt_spin_ns(4 * MS * kt_slow());
	kt_hw_cli();
	CHECK_EQ(kt_seen[bit], 30);
}

KEEL_TEST("HVM-040", hvm_upcall_line, "KEEL-HVM-21 KEEL-HVM-04", "profile=HVM", 0)
{
	u32 gsi = kt_cpuid(kt_leaf + KEEL_CPUID_MSRS, 0).ecx;

	REQUIRE(gsi < 24);
	upcalls_on(KEEL_UPCALL_GSI);
	kt_ioapic_route(gsi, 0x51);
	for (u32 i = 1; i <= 20; i++) {
		OK(HC(KEEL_CALL_EVENT_SEND, two_ports[0]));
		OK(HC(KEEL_CALL_EVENT_SEND, two_ports[1]));
		settle(0x51, i);
		kt_scan();
		CHECK_EQ(kt_seen[KEEL_PORT_BIT(two_ports[1])], i);
	}
	CHECK_EQ(kt_irqs[VECTOR], 0);
}

KEEL_TEST("HVM-041", hvm_page_untouched, "KEEL-HVM-20", "neg profile=HVM", 0)
{
	u8 *p = (u8 *)&kt_vcpu_page;
	u32 timer;
	u64 h;

	upcalls_on(KEEL_UPCALL_LAPIC | VECTOR);
	timer = kt_bind(KEEL_SOURCE_TIMER, 1);
	OK(HC(KEEL_CALL_EVENT_UNMASK, timer));
	/* Everything but `pending` and the two maps is the guest's. */
	for (u32 i = 0; i < KEEL_VCPU_EVENT_PENDING; i++)
		if (i < KEEL_VCPU_PENDING || i >= KEEL_VCPU_PENDING + 8)
			p[i] = (u8)(i * 7 + 1);
	for (u32 i = KEEL_VCPU_EVENT_MASK + 512; i < 4096; i++)
		p[i] = (u8)(i * 5 + 1);
	h = kt_hash(kt_hash(kt_hash(1, p, KEEL_VCPU_PENDING), p + 0x30, KEEL_VCPU_EVENT_PENDING - 0x30), p + 0xc00,
		    0x400);
	kt_irq_hook = scan_in_interrupt;
	for (u32 i = 1; i <= 20; i++) {
		OK(HC(KEEL_CALL_EVENT_SEND, two_ports[i % 2]));
		OK(HC(KEEL_CALL_EVENT_DUMP, 0));
		OK(HC(KEEL_CALL_TIME_SET_TIMER, 0));
		while (kt_seen[KEEL_PORT_BIT(timer)] < i)
			kt_hw_wait();
		CHECK_EQ(kt_hash(kt_hash(kt_hash(1, p, KEEL_VCPU_PENDING), p + 0x30, KEEL_VCPU_EVENT_PENDING - 0x30),
				 p + 0xc00, 0x400),
			 h);
	}
	CHECK(hook_runs >= 20);
}

KEEL_TEST("HVM-042", hvm_lost_wakeup, "KEEL-HVM-21 KEEL-HVM-22", "profile=HVM timeout=60", 0)
{
	u32 port, bit;
	u64 rounds = 20000 / kt_scale + 100;

	/* hlt with IF set in the same breath: whenever the timer fires, it ends. */
	upcalls_on(KEEL_UPCALL_LAPIC | VECTOR);
	port = kt_bind(KEEL_SOURCE_TIMER, 0);
	bit = KEEL_PORT_BIT(port);
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_irq_hook = scan_in_interrupt;
	for (u64 i = 1; i <= rounds; i++) {
		OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + i * 37 % 20000 * kt_slow()));
		for (u64 k = i % 64; k; k--)
			__asm__ volatile("pause");
		while (kt_seen[bit] < i)
			kt_hw_wait();
		CHECK_EQ(kt_seen[bit], i);
	}
}

KEEL_TEST("HVM-043", hvm_multicall, "KEEL-HVM-12 KEEL-HVM-16", "profile=HVM", 0)
{
	struct keel_multicall *e = kt_ram(G0 + 4096);
	struct keel_multicall_result *r = kt_ram(G0 + 8192);

	memset(e, 0, 4096);
	memset(r, 0xee, 4096);
	for (u32 i = 0; i < 10; i++)
		e[i] = (struct keel_multicall){ .id = KEEL_CALL_BASE_PING, .arg = { i * 3 }, .cookie = 0xc0ffee00 + i };
	e[4] = (struct keel_multicall){ .id = KEEL_CALL_MMU_QUERY, .arg = { 0, 0x400000 } };
	e[5] = (struct keel_multicall){ .id = KEEL_CALL_BASE_SHUTDOWN };
	e[6] = (struct keel_multicall){ .id = KEEL_CALL_BASE_NOP, .arg = { 1 } };
	OK_VALUE(HC(KEEL_CALL_MULTICALL, G0 + 4096, 10, G0 + 8192, 0), 10);
	for (u32 i = 0; i < 10; i++) {
		CHECK_EQ(r[i].status, i == 4   ? KEEL_STATUS(KEEL_E_NOTSUP, 0)
				      : i == 5 ? KEEL_STATUS(KEEL_E_CONTEXT, 0)
				      : i == 6 ? KEEL_STATUS(KEEL_E_INVAL, ARG(1))
					       : 0);
		CHECK_EQ(r[i].value, i >= 4 && i <= 6 ? 0 : i * 3);
		CHECK_EQ(r[i].id, e[i].id);
	}
	CHECK_EQ(*(u64 *)&r[10], 0xeeeeeeeeeeeeeeee);
	/* Results over the gate's own page, or over the vCPU page, are the guest's affair; the host goes on. */
	OK_VALUE(HC(KEEL_CALL_MULTICALL, G0 + 4096, 1, kt_gpa(&kt_vcpu_page), 0), 1);
}

KEEL_TEST("HVM-044", hvm_calls_refused, "KEEL-HVM-12 KEEL-HVM-16", "neg profile=HVM", 0)
{
	static const u64 id[] = { 0, 1, 0x01000000 - 1, 0x02000000, 0xff000000, 0x0100000a, 0x01012000, 0xffffffff };

	kt_vcpu_on();
	for (size_t i = 0; i < sizeof(id) / 8; i++)
		NEG(HC(id[i], 1, 2, 3, 4, 5), KEEL_E_NOSYS, 0);
	for (int b = 32; b < 64; b += 5)
		NEG(HC(KEEL_CALL_BASE_NOP | BIT(b)), KEEL_E_NOSYS, 0);
	for (u32 i = 0; i < KEEL_CALL_COUNT; i++) {
		if (!(OFFERED >> KEEL_CALL_EXT(kt_calls[i].id) & 1) || kt_calls[i].id == KEEL_CALL_BASE_FREEZE ||
		    kt_calls[i].id == KEEL_CALL_BASE_ACCEPT)
			continue;
		for (u32 n = kt_calls[i].nargs; n < 5; n++) {
			u64 a[5] = { 0 };

			a[n] = BIT(n * 13 % 64);
			ERR_VALUE(kt_call(kt_calls[i].id, a[0], a[1], a[2], a[3], a[4]),
				  KEEL_STATUS(KEEL_E_INVAL, (int)n + 1), 0);
		}
	}
	NEG(HC(KEEL_CALL_MULTICALL, G0 + 1, 1, G0, 0), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_CONSOLE_WRITE, 33, 0, 0, 0, 0), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_SEND, 5), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_MEMORY_RELEASE, G0 + 1, 4096), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_BASE_SHUTDOWN, 0, 124), KEEL_E_RANGE, ARG(2));
}

KEEL_TEST("HVM-045", hvm_console_write, "KEEL-HVM-15 KEEL-CONSOLE-01",
	  "profile=HVM line=written%20through%20the%20gate", KT_EARLY)
{
	kt_puts("written ");
	kt_puts("through the gate\n");
}

#define RING ((volatile struct keel_console_ring *)kt_ram(G0 + 8192))

static void ring_on(void)
{
	memset((void *)RING, 0, 4096);
	OK(HC(KEEL_CALL_CONSOLE_SETUP, G0 + 8192, KEEL_CONSOLE_RING_SIZE));
}

KEEL_TEST("HVM-046", hvm_console_ring, "KEEL-HVM-15 KEEL-CONSOLE-05", "profile=HVM line=out%20of%20the%20ring", 0)
{
	static const char text[] = "out of the ring\n";
	u64 end = kt_now() + 2000 * MS;

	ring_on();
	for (u32 round = 0; round < 20; round++) {
		for (u32 i = 0; i < 16; i++)
			RING->out[(round * 16 + i) % KEEL_CONSOLE_OUT_SIZE] = (u8)text[i];
		__atomic_store_n(&RING->out_prod, round * 16 + 16, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&RING->out_wake, __ATOMIC_SEQ_CST))
			OK(HC(KEEL_CALL_CONSOLE_KICK));
	}
	while (__atomic_load_n(&RING->out_cons, __ATOMIC_ACQUIRE) != 320 && kt_now() < end)
		__asm__ volatile("pause");
	CHECK_EQ(RING->out_cons, 320);
	NEG(HC(KEEL_CALL_CONSOLE_SETUP, G0 + 8192, KEEL_CONSOLE_RING_SIZE), KEEL_E_EXIST, ARG(1));
	OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
	NEG(HC(KEEL_CALL_CONSOLE_KICK), KEEL_E_STATE, 0);
}

KEEL_TEST("HVM-047", hvm_console_input, "KEEL-HVM-21 KEEL-CONSOLE-07", "profile=HVM stdin=hello%20host%0aand%20more%0a",
	  0)
{
	char got[64];
	u32 n = 0, port;
	u64 end = kt_now() + 5000 * MS;

	upcalls_on(KEEL_UPCALL_LAPIC | VECTOR);
	port = kt_bind(KEEL_SOURCE_CONSOLE, 1);
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_irq_hook = scan_in_interrupt;
	ring_on();
	while (n < 20 && kt_now() < end) {
		u32 cons = RING->in_cons;

		kt_hw_sti();
		kt_hw_cli();
		for (; cons != __atomic_load_n(&RING->in_prod, __ATOMIC_ACQUIRE) && n < sizeof(got); cons++)
			got[n++] = (char)RING->in[cons % KEEL_CONSOLE_IN_SIZE];
		__atomic_store_n(&RING->in_cons, cons, __ATOMIC_SEQ_CST);
	}
	CHECK_EQ(n, 20);
	CHECK(!memcmp(got, "hello host\nand more\n", 20));
	/* The bytes may be seen before the event that tells of them comes. */
	while (!kt_seen[KEEL_PORT_BIT(port)] && kt_now() < end) {
		kt_hw_sti();
		kt_hw_cli();
	}
	CHECK(kt_seen[KEEL_PORT_BIT(port)] >= 1);
	OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
}

KEEL_TEST("HVM-048", hvm_memory, "KEEL-HVM-15 KEEL-MEMORY-01 KEEL-MEMORY-05", "profile=HVM", 0)
{
	kt_poison(G0, 32 * 4096, 9);
	for (u64 g = G0 + 8 * 4096, left = 16; left;) {
		struct kt_ret r = HC(KEEL_CALL_MEMORY_RELEASE, g, left * 4096);

		if (!OK(r) || !r.value || r.value > left)
			break;
		g += r.value * 4096;
		left -= r.value;
	}
	for (u64 i = 0; i < 32 * 4096; i += 8)
		if (!*(u64 *)kt_ram(G0 + i) != (i >= 8 * 4096 && i < 24 * 4096)) {
			KT_FAIL("word %lx is %lx", i, *(u64 *)kt_ram(G0 + i));
			break;
		}
	for (u64 i = 0; i < 32; i++)
		*(volatile u64 *)kt_ram(G0 + i * 4096) = i + 1;
	OK(HC(KEEL_CALL_MEMORY_POPULATE, G0, 32 * 4096));
	for (u64 i = 0; i < 32; i++)
		CHECK_EQ(*(volatile u64 *)kt_ram(G0 + i * 4096), i + 1);
	CHECK_EQ(kt_trap.count, 0);
}

KEEL_TEST("HVM-049", hvm_stats, "KEEL-HVM-15 KEEL-STATS-03", "profile=HVM", 0)
{
	volatile struct keel_stats_entry *s = kt_ram(G0 + 8192);
	u64 calls = 0, errors = 0;

	for (u32 k = 0; k < 2; k++) {
		u32 at = 0;

		OK_VALUE(HC(KEEL_CALL_STATS_READ, G0 + 8192, 4096, 0), KEEL_CALL_COUNT);
		while (at < KEEL_CALL_COUNT && s[at].id != KEEL_CALL_BASE_PING)
			at++;
		REQUIRE(at < KEEL_CALL_COUNT);
		if (k) {
			CHECK_EQ(s[at].calls - calls, 13);
			CHECK_EQ(s[at].errors - errors, 3);
		}
		calls = s[at].calls;
		errors = s[at].errors;
		for (u32 i = 0; i < 13 && !k; i++)
			HC(KEEL_CALL_BASE_PING, i, i < 3);
	}
	for (u32 i = 0; i < KEEL_CALL_COUNT; i++)
		CHECK_EQ(s[i].id, kt_calls[i].id);
}

KEEL_TEST("HVM-050", hvm_dump_does_nothing, "KEEL-HVM-24", "neg profile=HVM", 0)
{
	upcalls_on(KEEL_UPCALL_LAPIC | VECTOR);
	for (u32 i = 0; i < 5; i++) {
		u64 before = kt_digest();

		OK_VALUE(HC(KEEL_CALL_EVENT_DUMP, 0), 0);
		CHECK_EQ(kt_digest(), before);
	}
	settle(VECTOR, 0);
	NEG(HC(KEEL_CALL_EVENT_DUMP, 1), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_EVENT_DUMP, ~0ull), KEEL_E_NOENT, ARG(1));
	/* No call is refused afterwards. */
	OK(HC(KEEL_CALL_TIME_READ));
	OK(HC(KEEL_CALL_EVENT_SEND, two_ports[0]));
	settle(VECTOR, 1);
}

KEEL_TEST("HVM-051", hvm_time, "KEEL-HVM-15 KEEL-TIME-01", "profile=HVM", 0)
{
	u64 last = 0, first = kt_now();

	for (u64 i = 0; i < 20000 / kt_slow() + 100; i++) {
		struct kt_ret r = HC(KEEL_CALL_TIME_READ);

		if (r.status || r.value < last) {
			KT_FAIL("time went from %lu to %lu (%ld)", last, r.value, r.status);
			break;
		}
		last = r.value;
	}
	CHECK(last > first);
}

KEEL_TEST("HVM-052", hvm_gate_spoilt, "KEEL-HVM-13", "neg profile=HVM", 0)
{
	/* The guest's own page, the guest's own damage; asking again mends it. */
	u64 traps = kt_trap.count;

	for (u32 i = 0; i < 4096; i += 2)
		memcpy(kt_gate_page + i, "\x0f\x0b", 2);
	CHECK(kt_probe_exec((u64)kt_gate_page));
	CHECK_EQ(kt_trap.vector, KEEL_VEC_UD);
	CHECK_EQ(kt_trap.count, traps + 1);
	CHECK(!kt_wrmsr(KEEL_MSR_GATE, kt_gpa(kt_gate_page) | KEEL_MSR_ENABLE));
	OK_VALUE(HC(KEEL_CALL_BASE_PING, 9), 9);
}

KEEL_TEST("HVM-053", hvm_poweroff_code, "KEEL-HVM-25 KEEL-BASE-12", "profile=HVM exit=77 destructive", KT_EARLY)
{
	kt_armed();
	HC(KEEL_CALL_BASE_SHUTDOWN, KEEL_SHUTDOWN_POWEROFF, 77);
	KT_FAIL("base_shutdown returned");
}

KEEL_TEST("HVM-054", hvm_restart, "KEEL-HVM-25 KEEL-BASE-13", "profile=HVM exit=restart/5 destructive", 0)
{
	kt_armed();
	HC(KEEL_CALL_BASE_SHUTDOWN, KEEL_SHUTDOWN_RESTART, 5);
	KT_FAIL("base_shutdown returned");
}

KEEL_TEST("HVM-055", hvm_crash, "KEEL-HVM-25 KEEL-CRASH-01", "profile=HVM exit=125 destructive", 0)
{
	static const char text[] = "the conformance suite asked for this";

	memcpy(kt_ram(G0 + 5), text, sizeof(text));
	kt_armed();
	HC(KEEL_CALL_CRASH, KEEL_CRASH_ASSERT, G0 + 5, sizeof(text) - 1, 0x1111, 0x2222);
	KT_FAIL("crash returned");
}

KEEL_TEST("HVM-056", hvm_triple_fault, "KEEL-HVM-25", "neg profile=HVM exit=125 destructive", 0)
{
	static const struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) none;

	kt_armed();
	__asm__ volatile("lidt %0\n\tud2" : : "m"(none));
	KT_FAIL("a triple fault was survived");
}

KEEL_TEST("HVM-057", hvm_upcall_beside_traffic, "KEEL-HVM-21", "profile=HVM timeout=60", 0)
{
	u32 port, bit;
	u64 other;

	/*
	 * The guest makes `pending` non-zero and zero again all the time, as a guest that masks and unmasks by itself
	 * does, and always looks until it is 0. A timer event that comes between is seen, or makes it non-zero and is
	 * told: one that is neither leaves this asleep for ever.
	 */
	upcalls_on(KEEL_UPCALL_LAPIC | VECTOR);
	port = kt_bind(KEEL_SOURCE_TIMER, 0);
	bit = KEEL_PORT_BIT(port);
	other = BIT(KEEL_PORT_BIT(two_ports[1]) / 64);
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_irq_hook = scan_in_interrupt;
	for (u64 i = 1; i <= 20000 / kt_scale + 200; i++) {
		OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + i * 37 % 20000 * kt_slow()));
		for (u64 k = 0; k < 200 && kt_seen[bit] < i; k++) {
			__atomic_fetch_or(&kt_vcpu->pending, other, __ATOMIC_SEQ_CST);
			kt_scan();
		}
		while (kt_seen[bit] < i)
			kt_hw_wait();
		CHECK_EQ(kt_seen[bit], i);
	}
}
