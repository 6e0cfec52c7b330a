// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* USER: guest user code. Each test brings a few instructions of its own and looks at the context they leave. */
#include "kt_user.h"

#define MS KEEL_U64(1000000)
#define G0 (KT_SCRATCH_GPA + (2 << 20))
#define UVA KEEL_U64(0x123456789000)

static struct ku c, other;
static u64 as;

/* Whatever user_enter refuses leaves the context, and all else, alone. */
static u64 digest(const struct ku *x)
{
	return kt_hash(kt_digest(), x, sizeof(*x));
}

static void refused(int line, struct ku *x, u64 space, u64 gpa, u64 flags, s64 status)
{
	u64 before = digest(x);
	struct kt_ret r = HC(KEEL_CALL_USER_ENTER, space, gpa, flags);

	kt_check_ret("user.c", line, "user_enter", r, status, 0, false);
	if (digest(x) != before)
		kt_fail("user.c", line, "a refused user_enter changed something");
}
#define REFUSED(space, gpa, flags, code, at) refused(__LINE__, &c, space, gpa, flags, KEEL_STATUS(code, at))
#define REFUSED_BIT(space, gpa, flags, code, at, bit) \
	refused(__LINE__, &c, space, gpa, flags, KEEL_STATUS_BIT(code, at, bit))

#define SAY(x)                                                                                                      \
	kt_note("line %d: %s, vector %u error %lx addr %lx rip %lx rax %lx", __LINE__, ku_reason(x), (x)->u.vector, \
		(x)->u.error, (x)->u.addr, (x)->u.rip, (x)->u.rax)
#define EXPECT_SYSCALL(x)                                        \
	do {                                                     \
		if (!CHECK_EQ(ku_run(as, x), KEEL_USER_SYSCALL)) \
			SAY(x);                                  \
		CHECK_EQ((x)->u.vector, 0);                      \
		CHECK_EQ((x)->u.error, 0);                       \
		CHECK_EQ((x)->u.addr, 0);                        \
	} while (0)
#define EXPECT_EXCEPTION(x, v, e, a)                               \
	do {                                                       \
		if (!CHECK_EQ(ku_run(as, x), KEEL_USER_EXCEPTION)) \
			SAY(x);                                    \
		if (!CHECK_EQ((x)->u.vector, v))                   \
			SAY(x);                                    \
		CHECK_EQ((x)->u.error, e);                         \
		CHECK_EQ((x)->u.addr, a);                          \
	} while (0)

USER_CODE(syscalls, "	syscall\n1:	syscall\n	jmp 1b\n");

static void fill(struct ku *x)
{
	u64 *r = &x->u.rax;

	for (int i = 0; i < 15; i++)
		r[i] = kt_random();
	x->u.fs_base = kt_random() & ((1ull << 47) - 1);
	x->u.gs_base = kt_random() & ((1ull << 47) - 1);
}

/* Everything but what a system call or an exception changes. */
static void same(int line, const struct ku *a, const struct ku *b, bool syscall)
{
	static const char *const name[] = { "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp",	 "r8",	   "r9",
					    "r10", "r11", "r12", "r13", "r14", "r15", "fs base", "gs base" };
	const u64 *x = &a->u.rax, *y = &b->u.rax;

	for (int i = 0; i < 17; i++)
		if (x[i] != y[i] && !(syscall && (i == 2 || i == 10)))
			kt_fail("user.c", line, "%s is %lx, expected %lx", name[i], x[i], y[i]);
	if (a->u.rsp != b->u.rsp)
		kt_fail("user.c", line, "rsp is %lx, expected %lx", a->u.rsp, b->u.rsp);
	for (int i = 0; i < 8; i++)
		if (a->u.reserved[i])
			kt_fail("user.c", line, "reserved is %lx", a->u.reserved[i]);
	if (a->u.size != b->u.size || a->u.flags)
		kt_fail("user.c", line, "size %x, flags %x", a->u.size, a->u.flags);
}

KEEL_TEST("USER-001", user_syscall, "KEEL-USER-02 KEEL-USER-10 KEEL-USER-07 KEEL-USER-11", "ext=6", 0)
{
	ku_needed();
	as = ku_make(KU_GPA, KU(syscalls));
	for (int i = 0; i < 200; i++) {
		ku_context(&c, KU_CODE);
		fill(&c);
		c.u.rflags = kt_random() & 0xcd5; /* arithmetic flags and DF */
		other = c;
		EXPECT_SYSCALL(&c);
		same(__LINE__, &c, &other, true);
		CHECK_EQ(c.u.rip, KU_CODE + 2);
		CHECK_EQ(c.u.rcx, KU_CODE + 2);
		CHECK_EQ(c.u.rflags, other.u.rflags | 0x202);
		CHECK_EQ(c.u.r11 & KEEL_USER_RFLAGS, other.u.rflags);
		if (i % 4)
			continue;
		/* On from there, as a kernel does with an answer. */
		c.u.rax = i;
		other = c;
		EXPECT_SYSCALL(&c);
		same(__LINE__, &c, &other, true);
		CHECK_EQ(c.u.rip, KU_CODE + 4);
	}
}

KEEL_TEST("USER-002", user_arguments, "KEEL-USER-03 KEEL-CALL-09", "neg ext=6", 0)
{
	u64 ram = kt_ram_size(), g = kt_gpa(&c);

	ku_needed();
	as = ku_make(KU_GPA, KU(syscalls));
	ku_context(&c, KU_CODE);
	REFUSED(0, g, 0, KEEL_E_NOENT, ARG(1));
	REFUSED(as + 1, g, 0, KEEL_E_NOENT, ARG(1));
	REFUSED(as | 1ull << 63, g, 0, KEEL_E_NOENT, ARG(1));
	for (u64 k = 1; k < 64; k *= 2)
		REFUSED(as, g + k, 0, KEEL_E_INVAL, ARG(2));
	REFUSED(as, ~0ull, 0, KEEL_E_INVAL, ARG(2));
	for (int b = 0; b < 64; b++)
		REFUSED_BIT(as, g, 1ull << b, KEEL_E_INVAL, ARG(3), b);
	REFUSED(as, ram, 0, KEEL_E_FAULT, ARG(2));
	REFUSED(as, ram - 64, 0, KEEL_E_FAULT, ARG(2));
	REFUSED(as, -64ull, 0, KEEL_E_FAULT, ARG(2));
	REFUSED(as, 1ull << 63, 0, KEEL_E_FAULT, ARG(2));
	REFUSED(as, KT_LINEAR + g, 0, KEEL_E_FAULT, ARG(2)); /* a GPA, not a VA */
	/* Form of each first, in order, then what they name. */
	REFUSED(as, g + 1, 1, KEEL_E_INVAL, ARG(2));
	REFUSED_BIT(as, ram, 1, KEEL_E_INVAL, ARG(3), 0);
	REFUSED_BIT(0, g, 1, KEEL_E_INVAL, ARG(3), 0);
	REFUSED(0, ram, 0, KEEL_E_NOENT, ARG(1));
	c.u.size = 1;
	REFUSED(0, g, 0, KEEL_E_NOENT, ARG(1));
}

KEEL_TEST("USER-003", user_fields, "KEEL-USER-04", "neg ext=6", 0)
{
	u64 g = kt_gpa(&c);
	u32 size;

	ku_needed();
	as = ku_make(KU_GPA, KU(syscalls));
	ku_context(&c, KU_CODE);
	size = c.u.size;
	const u32 bad_size[] = { 0, 1, KEEL_USER_XSAVE, size - 1, size + 1, size + 64, 0x7fffffff, 0x80000000, ~0u };

	for (size_t i = 0; i < sizeof(bad_size) / 4; i++) {
		c.u.size = bad_size[i];
		REFUSED(as, g, 0, KEEL_E_INVAL, FIELD(1));
	}
	c.u.size = size;
	for (int b = 0; b < 32; b++) {
		c.u.flags = 1u << b;
		REFUSED_BIT(as, g, 0, KEEL_E_INVAL, FIELD(2), b);
	}
	c.u.flags = 0;
	for (int b = 47; b < 64; b++) {
		c.u.rip = 1ull << b | KU_CODE;
		REFUSED(as, g, 0, KEEL_E_RANGE, FIELD(7));
		c.u.rip = KU_CODE;
		c.u.fs_base = 1ull << b;
		REFUSED(as, g, 0, KEEL_E_RANGE, FIELD(25));
		c.u.fs_base = 0;
		c.u.gs_base = 1ull << b | 0x1000;
		REFUSED(as, g, 0, KEEL_E_RANGE, FIELD(26));
		c.u.gs_base = 0;
	}
	c.u.rip = 0xffff800000000000; /* canonical, and the kernel's half of a processor */
	REFUSED(as, g, 0, KEEL_E_RANGE, FIELD(7));
	c.u.rip = KU_CODE;
	for (int i = 0; i < 8; i++) {
		c.u.reserved[i] = i & 1 ? 1 : 1ull << 63;
		REFUSED(as, g, 0, KEEL_E_INVAL, FIELD(27));
		c.u.reserved[i] = 0;
	}
	/* In order. */
	c.u.reserved[3] = 1;
	c.u.gs_base = ~0ull;
	REFUSED(as, g, 0, KEEL_E_RANGE, FIELD(26));
	c.u.fs_base = ~0ull;
	REFUSED(as, g, 0, KEEL_E_RANGE, FIELD(25));
	c.u.rip = ~0ull;
	REFUSED(as, g, 0, KEEL_E_RANGE, FIELD(7));
	c.u.flags = 8;
	REFUSED_BIT(as, g, 0, KEEL_E_INVAL, FIELD(2), 3);
	c.u.size--;
	REFUSED(as, g, 0, KEEL_E_INVAL, FIELD(1));
	/* What a host writes, a guest may leave there. */
	ku_context(&c, KU_CODE);
	c.u.vector = c.u.reason = 99;
	c.u.error = c.u.addr = ~0ull;
	EXPECT_SYSCALL(&c);
}

KEEL_TEST("USER-004", user_xsave_fields, "KEEL-USER-05", "neg ext=6", 0)
{
	const struct keel_cpu_info *cpu;
	u64 g = kt_gpa(&c), v;
	u32 n;

	ku_needed();
	as = ku_make(KU_GPA, KU(syscalls));
	ku_context(&c, KU_CODE);
	cpu = kt_chunk(KEEL_CHUNK_CPU, &n);
	for (int b = 0; b < 64; b++) {
		if (cpu->xfeatures >> b & 1)
			continue;
		v = 1ull << b;
		memcpy(c.xsave + 512, &v, 8); /* xstate_bv */
		REFUSED(as, g, 0, KEEL_E_INVAL, FIELD(28));
	}
	v = 0;
	memcpy(c.xsave + 512, &v, 8);
	for (u32 at = 520; at < 576; at += 4) { /* xcomp_bv and the reserved bytes */
		c.xsave[at] = at & 4 ? 0x80 : 1;
		REFUSED(as, g, 0, KEEL_E_INVAL, FIELD(28));
		c.xsave[at] = 0;
	}
	for (int b = 16; b < 32; b++) { /* reserved in every MXCSR there is */
		c.xsave[24 + b / 8] ^= (u8)(1 << b % 8);
		REFUSED(as, g, 0, KEEL_E_INVAL, FIELD(28));
		c.xsave[24 + b / 8] ^= (u8)(1 << b % 8);
	}
	c.u.reserved[0] = 1; /* fields before it come first */
	c.xsave[520] = 1;
	REFUSED(as, g, 0, KEEL_E_INVAL, FIELD(27));
	c.u.reserved[0] = 0;
	c.xsave[520] = 0;
	EXPECT_SYSCALL(&c);
}

KEEL_TEST("USER-005", user_context_places, "KEEL-USER-03 KEEL-USER-02", "neg ext=6", 0)
{
	u64 ram = kt_ram_size(), size;

	ku_needed();
	as = ku_make(KU_GPA, KU(syscalls));
	ku_context(&c, KU_CODE);
	size = (c.u.size + 63) & ~63ull;
	/* Anywhere in RAM, across pages, read-only or not mapped in the kernel's space; up to its very last byte. */
	const u64 at[] = { G0, G0 + 64, G0 + 4096 - 64, G0 + 8192 + 4032, ram - size, 0 };

	for (size_t i = 0; i < sizeof(at) / 8; i++) {
		struct ku *p = kt_ram(at[i]);

		memcpy(p, &c, c.u.size);
		struct kt_ret r = HC(KEEL_CALL_USER_ENTER, as, at[i], 0);

		OK_VALUE(r, p->u.reason);
		CHECK(p->u.reason == KEEL_USER_SYSCALL || p->u.reason == KEEL_USER_EVENT);
		CHECK_EQ(p->u.size, c.u.size);
	}
	memcpy(kt_ram(G0), &c, c.u.size);
	OK(PROTECT(KT_LINEAR + G0, 16384, KEEL_PROT_R));
	OK(HC(KEEL_CALL_USER_ENTER, as, G0, 0));
	CHECK_EQ(((struct ku *)kt_ram(G0))->u.rcx ? KU_CODE + 2 : 0, ((struct ku *)kt_ram(G0))->u.rcx);
	OK(PROTECT(KT_LINEAR + G0, 16384, KU_RW));
	/* 64 bytes too far. */
	if (c.u.size % 64 == 0 || size - c.u.size < 64) {
		memcpy(kt_ram(ram - size + 64), &c, size - 64);
		REFUSED(as, ram - size + 64, 0, KEEL_E_FAULT, ARG(2));
	}
}

KEEL_TEST("USER-006", user_flags, "KEEL-USER-07 KEEL-USER-11", "ext=6", 0)
{
	ku_needed();
	as = ku_make(KU_GPA, KU(syscalls));
	/* Each bit alone; those a context cannot set are ignored. TF has a test of its own, and AC is kept. */
	for (int b = 0; b < 64; b++) {
		if (b == 8)
			continue;
		ku_context(&c, KU_CODE);
		c.u.rflags = 1ull << b;
		EXPECT_SYSCALL(&c);
		if (c.u.rflags != (((1ull << b) & KEEL_USER_RFLAGS) | 0x202))
			KT_FAIL("flag %d comes back as %lx", b, c.u.rflags);
	}
	ku_context(&c, KU_CODE);
	c.u.rflags = ~0x100ull;
	EXPECT_SYSCALL(&c);
	CHECK_EQ(c.u.rflags, (KEEL_USER_RFLAGS & ~0x100ull) | 0x202);
}

USER_CODE(popflags, "	push %rdi\n	popfq\n	pushfq\n	pop %rax\n	syscall\n");

KEEL_TEST("USER-007", user_popf, "KEEL-USER-07 KEEL-USER-15 KEEL-USER-09", "neg ext=6", 0)
{
	u32 timer = kt_bind(KEEL_SOURCE_TIMER, 0);

	ku_needed();
	as = ku_make(KU_GPA, KU(popflags));
	OK(HC(KEEL_CALL_EVENT_UNMASK, timer));
	/* IF and IOPL are not user code's to change, and what else it sets stays its own. */
	for (int b = 0; b < 22; b++) {
		if (b == 8)
			continue;
		ku_context(&c, KU_CODE);
		c.u.rdi = 1ull << b;
		if (!CHECK_EQ(ku_run(as, &c), KEEL_USER_SYSCALL)) {
			SAY(&c);
			continue;
		}
		CHECK_EQ(c.u.rflags, ((1ull << b) & KEEL_USER_RFLAGS) | 0x202);
		CHECK_EQ(c.u.rax & 0x3000, 0);
	}
	CHECK_EQ(kt_vcpu->if_enabled, 0);
	kt_probe_ud(); /* the kernel's own flags are clean */
	CHECK_EQ(kt_trap_frame.rflags & 0x247f00, 0);
}

/* rdi = where to put the extended state of mask rdx:rax, 0 = FXSAVE; then load what is at rsi. */
USER_CODE(fp, "	test %eax, %eax\n"
	      "	jz 1f\n"
	      "	xsave64 (%rdi)\n"
	      "	xrstor64 (%rsi)\n"
	      "	syscall\n"
	      "1:	fxsave64 (%rdi)\n"
	      "	fxrstor64 (%rsi)\n"
	      "	syscall\n");
#define FP_SEEN (KU_DATA)
#define FP_NEXT (KU_DATA + 4 * 4096)

static u64 fp_mask;

static void fp_context(struct ku *x)
{
	ku_context(x, KU_CODE);
	x->u.rdi = FP_SEEN;
	x->u.rsi = FP_NEXT;
	x->u.rax = (u32)fp_mask;
	x->u.rdx = fp_mask >> 32;
}

KEEL_TEST("USER-008", user_extended_state, "KEEL-USER-07 KEEL-USER-05", "ext=6", 0)
{
	static u8 want[KU_XSAVE_MAX] __attribute__((aligned(64)));
	u8 *seen = kt_ram(KU_DATA_AT(KU_GPA)), *next = kt_ram(KU_DATA_AT(KU_GPA) + 4 * 4096);

	ku_needed();
	fp_mask = kt_fp_mask(KU_XSAVE_MAX < 16384 ? KU_XSAVE_MAX : 16384);
	as = ku_make(KU_GPA, KU(fp));
	for (u64 round = 0; round < 60; round++) {
		u64 bv = fp_mask;

		fp_context(&c);
		ku_fp_fill(c.xsave, fp_mask, round * 1000 + 1);
		if (round % 3 == 1 && fp_mask) { /* some components in their initial configuration */
			bv &= kt_random();
			memcpy(c.xsave + 512, &bv, 8);
			if (!(bv & 6)) /* MXCSR belongs to either: not tested when there is none */
				memcpy(c.xsave + 24, &(u32){ 0x1f80 }, 4);
		}
		memcpy(want, c.xsave, KU_XSAVE_MAX);
		ku_fp_normal(want, fp_mask);
		ku_fp_fill(next, fp_mask, round * 1000 + 500);
		memset(seen, 0, 4 * 4096);
		EXPECT_SYSCALL(&c);
		if (fp_mask)
			ku_fp_normal(seen, fp_mask);
		if (!ku_fp_equal(seen, want, fp_mask))
			KT_FAIL("round %lu, xstate_bv %lx: user code sees other state than its context has", round, bv);
		ku_fp_normal(c.xsave, fp_mask);
		if (!ku_fp_equal(c.xsave, next, fp_mask))
			KT_FAIL("round %lu: the context has other state than user code left", round);
		memcpy(&bv, c.xsave + 512, 8);
		CHECK_EQ(bv & ~(fp_mask ? fp_mask : 3), 0);
		for (u32 at = 520; at < 576; at++)
			CHECK_EQ(c.xsave[at], 0);
	}
}

KEEL_TEST("USER-009", user_state_isolated, "KEEL-USER-08", "neg ext=6", 0)
{
	u8 *seen = kt_ram(KU_DATA_AT(KU_GPA)), *next = kt_ram(KU_DATA_AT(KU_GPA) + 4 * 4096);
	static u8 first[KU_XSAVE_MAX] __attribute__((aligned(64)));

	ku_needed();
	fp_mask = kt_fp_mask(KU_XSAVE_MAX);
	as = ku_make(KU_GPA, KU(fp));
	ku_fp_init(first);
	for (u64 round = 0; round < 40; round++) {
		/* One context leaves a pattern in every register, in turn by a system call and by a fault... */
		fp_context(&c);
		ku_fp_fill(next, fp_mask, round + 7);
		EXPECT_SYSCALL(&c);
		if (round & 1) {
			c.u.rip = 0x10000;
			EXPECT_EXCEPTION(&c, KEEL_VEC_PF, KEEL_PF_U | KEEL_PF_X, 0x10000);
		}
		/* ...and the next, with an empty xstate_bv, sees none of it. */
		fp_context(&other);
		memset(seen, 0, 4 * 4096);
		EXPECT_SYSCALL(&other);
		if (fp_mask)
			ku_fp_normal(seen, fp_mask);
		if (!ku_fp_equal(seen, first, fp_mask))
			KT_FAIL("round %lu: state of another context is seen", round);
	}
}

KEEL_TEST("USER-010", user_kernel_state, "KEEL-USER-08 KEEL-CALL-03", "neg ext=6", 0)
{
	static u8 in[KU_XSAVE_MAX] __attribute__((aligned(64))), out[KU_XSAVE_MAX] __attribute__((aligned(64)));
	const struct keel_cpu_info *cpu;
	u8 *seen = kt_ram(KU_DATA_AT(KU_GPA)), *next = kt_ram(KU_DATA_AT(KU_GPA) + 4 * 4096);
	static u8 first[KU_XSAVE_MAX] __attribute__((aligned(64)));
	u32 n;

	ku_needed();
	fp_mask = kt_fp_mask(KU_XSAVE_MAX);
	cpu = kt_chunk(KEEL_CHUNK_CPU, &n);
	as = ku_make(KU_GPA, KU(fp));
	ku_fp_init(first);
	for (u64 round = 0; round < 40; round++) {
		const u64 call[6] = { KEEL_CALL_USER_ENTER, as, kt_gpa(&c), 0, 0, 0 };
		u64 fs = 0x1234567000 + round * 8, now = fs;
		struct kt_ret r;

		fp_context(&c);
		c.u.fs_base = 0x7654321000;
		c.u.gs_base = 0x1111111000;
		ku_fp_fill(in, fp_mask, round + 3);
		ku_fp_fill(next, fp_mask, round + 4000);
		memset(seen, 0, 4 * 4096);
		memset(out, 0, sizeof(out));
		if (cpu->cpuid[2] & 1)
			__asm__ volatile("wrfsbase %0" : : "r"(fs));
		r = kt_call_fp(call, in, out, fp_mask);
		if (cpu->cpuid[2] & 1)
			__asm__ volatile("rdfsbase %0" : "=r"(now));
		CHECK_EQ(r.status, 0);
		CHECK_EQ(now, fs);
		if (fp_mask)
			ku_fp_normal(out, fp_mask);
		if (!ku_fp_equal(in, out, fp_mask))
			KT_FAIL("round %lu: the kernel's own state changed", round);
		if (r.value != KEEL_USER_SYSCALL)
			continue;
		if (fp_mask)
			ku_fp_normal(seen, fp_mask);
		if (!ku_fp_equal(seen, first, fp_mask))
			KT_FAIL("round %lu: the kernel's state is seen by user code", round);
		CHECK_EQ(c.u.fs_base, 0x7654321000);
		CHECK_EQ(c.u.gs_base, 0x1111111000);
	}
	if (cpu->cpuid[2] & 1)
		__asm__ volatile("wrfsbase %0" : : "r"(0ull));
	CHECK_EQ(kt_vcpu->self, (u64)kt_vcpu); /* and %gs:0 is the vCPU's page, or no call would work */
}

USER_CODE(segments, "	mov %fs:0, %rax\n"
		    "	mov %gs:0, %rbx\n"
		    "	mov %fs:8(%rsi), %rdx\n"
		    "	syscall\n");
USER_CODE(write_bases, "	wrfsbase %rdi\n"
		       "	wrgsbase %rsi\n"
		       "	rdfsbase %rax\n"
		       "	rdgsbase %rbx\n"
		       "	syscall\n");

KEEL_TEST("USER-011", user_bases, "KEEL-USER-07 KEEL-USER-08", "ext=6", 0)
{
	const struct keel_cpu_info *cpu;
	u64 *data = kt_ram(KU_DATA_AT(KU_GPA));
	u32 n;

	ku_needed();
	cpu = kt_chunk(KEEL_CHUNK_CPU, &n);
	as = ku_make(KU_GPA, KU(segments));
	for (u64 i = 0; i < 64; i++) {
		data[i] = 0x5000 + i;
		data[512 + i] = 0x6000 + i;
	}
	for (u64 i = 0; i < 60; i++) {
		ku_context(&c, KU_CODE);
		c.u.fs_base = KU_DATA + i * 8;
		c.u.gs_base = KU_DATA + 4096 + i * 8;
		EXPECT_SYSCALL(&c);
		CHECK_EQ(c.u.rax, 0x5000 + i);
		CHECK_EQ(c.u.rbx, 0x6000 + i);
		CHECK_EQ(c.u.rdx, 0x5000 + i + 1);
		CHECK_EQ(c.u.fs_base, KU_DATA + i * 8);
	}
	if (!(cpu->cpuid[2] & 1))
		return;
	ku_code(KU_GPA, KU(write_bases));
	for (u64 i = 1; i < 60; i++) {
		ku_context(&c, KU_CODE);
		c.u.rdi = i << 30;
		c.u.rsi = i << 31 | 8;
		EXPECT_SYSCALL(&c);
		CHECK_EQ(c.u.rax, i << 30);
		CHECK_EQ(c.u.rbx, i << 31 | 8);
		CHECK_EQ(c.u.fs_base, i << 30);
		CHECK_EQ(c.u.gs_base, i << 31 | 8);
		OK(HC(KEEL_CALL_BASE_NOP));
	}
}

KEEL_TEST("USER-012", user_pending_first, "KEEL-USER-09 KEEL-CALL-15", "ext=6", 0)
{
	u32 port = kt_alloc(0), bit = KEEL_PORT_BIT(port);

	ku_needed();
	as = ku_make(KU_GPA, KU(syscalls));
	ku_context(&c, KU_CODE);
	fill(&c);
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	OK(HC(KEEL_CALL_EVENT_SEND, port));
	other = c;
	for (int i = 0; i < 20; i++) {
		OK_VALUE(ku_enter(as, &c), KEEL_USER_EVENT); /* IF 0: again and again, without one instruction */
		CHECK_EQ(c.u.reason, KEEL_USER_EVENT);
		CHECK_EQ(c.u.vector, 0);
		CHECK_EQ(c.u.error, 0);
		CHECK_EQ(c.u.rip, KU_CODE);
		same(__LINE__, &c, &other, false);
	}
	CHECK(kt_port_pending(port));
	kt_vcpu->if_enabled = 1; /* IF 1, no entry set: the same */
	OK_VALUE(ku_enter(as, &c), KEEL_USER_EVENT);
	CHECK_EQ(c.u.rip, KU_CODE);
	kt_cli();
	kt_events_on();
	kt_vcpu->if_enabled = 1;
	OK_VALUE(ku_enter(as, &c), KEEL_USER_EVENT); /* and it is delivered when the call returns */
	CHECK_EQ(kt_seen[bit], 1);
	CHECK_EQ(kt_upcalls, 1);
	CHECK_EQ(c.u.rip, KU_CODE);
	CHECK_EQ(kt_pending(), 0);
	EXPECT_SYSCALL(&c);
	same(__LINE__, &c, &other, true);
	/* A masked one is no reason. */
	OK(HC(KEEL_CALL_EVENT_MASK, port));
	OK(HC(KEEL_CALL_EVENT_SEND, port));
	EXPECT_SYSCALL(&c);
	/* The context is checked all the same. */
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	kt_cli();
	OK(HC(KEEL_CALL_EVENT_SEND, port));
	c.u.flags = 1;
	REFUSED_BIT(as, kt_gpa(&c), 0, KEEL_E_INVAL, FIELD(2), 0);
}

USER_CODE(endless, "1:	inc %rbx\n	jmp 1b\n");
USER_CODE(endless_self, "1:	jmp 1b\n");
USER_CODE(endless_rep,
	  "	cld\n1:	mov $-1, %rcx\n	mov %rdx, %rdi\n	mov $512, %ecx\n	rep stosq\n	jmp 1b\n");

/*
 * With IF on the event may be taken just before user code is entered, which nothing then
 * stops: so there is always another one.
 */
static void tick_again(u32 bit)
{
	(void)bit;
	HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + MS * kt_slow());
}

static void preempted(u64 rounds, int line)
{
	u32 timer = kt_bind(KEEL_SOURCE_TIMER, 0), bit = KEEL_PORT_BIT(timer);
	u64 worst = 0;

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, timer));
	for (u64 i = 0; i < rounds && !kt_fails; i++) {
		u32 seen = kt_seen[bit];
		u64 deadline = kt_now() + 1000 + kt_random_below(MS * kt_slow()), now, tries = 0;
		struct kt_ret r;

		kt_event_hook = i & 1 ? tick_again : NULL;
		kt_vcpu->if_enabled = i & 1;
		OK(HC(KEEL_CALL_TIME_SET_TIMER, deadline));
		do {
			r = ku_enter(as, &c);
			if (r.status || r.value != KEEL_USER_EVENT) {
				SAY(&c);
				kt_fail("user.c", line, "round %lu: status %ld, value %lu", i, r.status, r.value);
				break;
			}
			tries++;
		} while (i & 1 ? kt_seen[bit] == seen : !kt_pending());
		now = kt_now();
		kt_event_hook = NULL;
		OK(HC(KEEL_CALL_TIME_SET_TIMER, KEEL_TIME_NEVER));
		CHECK(now >= deadline);
		worst = now - deadline > worst ? now - deadline : worst;
		CHECK(c.u.rip >= KU_CODE && c.u.rip < KU_CODE + 64);
		if (!(i & 1)) {
			CHECK_EQ(kt_seen[bit], seen);
			kt_scan();
		}
		CHECK(i & 1 ? kt_seen[bit] > seen : kt_seen[bit] == seen + 1);
		CHECK_EQ(kt_vcpu->if_enabled, i & 1);
	}
	kt_note("stopped at most %lu ns after the deadline", worst);
	CHECK(worst < 2000 * MS * kt_slow());
	kt_cli();
	OK(HC(KEEL_CALL_EVENT_CLOSE, timer));
}

KEEL_TEST("USER-013", user_preempted, "KEEL-USER-09 KEEL-USER-07", "ext=6 timeout=30", 0)
{
	u64 before;

	ku_needed();
	as = ku_make(KU_GPA, KU(endless));
	ku_context(&c, KU_CODE);
	fill(&c);
	c.u.rbx = 0;
	other = c;
	preempted(200 / kt_scale + 20, __LINE__);
	CHECK(c.u.rbx > 0);
	other.u.rbx = c.u.rbx;
	same(__LINE__, &c, &other, false);
	before = c.u.rbx;
	preempted(20, __LINE__);
	CHECK(c.u.rbx > before); /* it goes on where it was */
}

KEEL_TEST("USER-014", user_preempted_anywhere, "KEEL-USER-09 KEEL-USER-22", "ext=6 timeout=30", 0)
{
	ku_needed();
	as = ku_make(KU_GPA, KU(endless_self));
	/* With flags, stack pointer and bases that would hurt a careless host. */
	static const u64 rsp[] = { 0, 8, 0x10000, ~0ull, 0x7f0000000000, 0x7fffffffe000, KU_STACK };

	for (size_t i = 0; i < sizeof(rsp) / 8; i++) {
		ku_context(&c, KU_CODE);
		c.u.rsp = rsp[i];
		c.u.rflags = 0x40cd5; /* DF and AC too */
		c.u.fs_base = c.u.gs_base = (1ull << 47) - 1;
		preempted(6, __LINE__);
		CHECK_EQ(c.u.rsp, rsp[i]);
		CHECK_EQ(c.u.rflags, 0x40cd5 | 0x202);
		CHECK_EQ(c.u.fs_base, (1ull << 47) - 1);
	}
	/* One that is not canonical the processor may refuse to load: then nothing runs. */
	for (int b = 47; b < 64; b++) {
		ku_code(KU_GPA, KU(syscalls));
		ku_context(&c, KU_CODE);
		c.u.rsp = 1ull << b;
		if (ku_run(as, &c) == KEEL_USER_EXCEPTION) {
			CHECK(c.u.vector == KEEL_VEC_GP || c.u.vector == KEEL_VEC_SS);
			CHECK_EQ(c.u.rip, KU_CODE);
		} else {
			CHECK_EQ(c.u.reason, KEEL_USER_SYSCALL);
			CHECK_EQ(c.u.rsp, 1ull << b);
		}
	}
	ku_code(KU_GPA, KU(endless_rep));
	ku_context(&c, KU_CODE);
	c.u.rdx = KU_DATA;
	preempted(40 / kt_scale + 6, __LINE__);
}

/* One exception: where it is and what it says. */
USER_CODE(f_ud2, "	nop\n	ud2\n");
USER_CODE(f_div, "	xor %edx, %edx\n	xor %ecx, %ecx\n	div %ecx\n");
USER_CODE(f_int3, "	nop\n	int3\n	nop\n");
USER_CODE(f_gp, "	movabs $0x8000000000000000, %rcx\n	mov (%rcx), %rax\n");
USER_CODE(f_ss, "	movabs $0x8000000000000000, %rbp\n	mov (%rbp), %rax\n");
USER_CODE(f_gp_jump, "	movabs $0x8000000000000000, %rcx\n	jmp *%rcx\n");
USER_CODE(
	f_xm,
	"	push $0x1d80\n	ldmxcsr (%rsp)\n	mov $0x3f800000, %eax\n	movd %eax, %xmm0\n	pxor %xmm1, %xmm1\n"
	"	divss %xmm1, %xmm0\n");
USER_CODE(f_mf, "	fninit\n	push $0x37b\n	fldcw (%rsp)\n	fld1\n	fldz\n	fdivrp\n	fwait\n");
USER_CODE(f_ac, "	pushfq\n	orl $0x40000, (%rsp)\n	popfq\n	mov -15(%rsp), %rax\n");
USER_CODE(f_icebp, "	nop\n	.byte 0xf1\n	nop\n");

static void one_exception(int line, const u8 *code, const u8 *end, u32 vector, u32 or_vector, u64 at)
{
	ku_code(KU_GPA, code, end);
	ku_context(&c, KU_CODE);
	for (int i = 0; i < 3; i++) {
		u32 reason;

		c.u.rip = KU_CODE;
		c.u.rsp = KU_STACK;
		ku_fp_init(c.xsave);
		reason = ku_run(as, &c);
		if (reason != KEEL_USER_EXCEPTION || (c.u.vector != vector && c.u.vector != or_vector) || c.u.error ||
		    c.u.addr || c.u.rip != KU_CODE + at)
			kt_fail("user.c", line,
				"%s vector %u (expected %u) error %lx addr %lx rip + %lx (expected %lx)", ku_reason(&c),
				c.u.vector, vector, c.u.error, c.u.addr, c.u.rip - KU_CODE, at);
	}
}
#define EXCEPTION(name, vector, or_vector, at) one_exception(__LINE__, KU(name), vector, or_vector, at)

KEEL_TEST("USER-015", user_exceptions, "KEEL-USER-11 KEEL-USER-14 KEEL-NORM-01 KEEL-NORM-06 KEEL-NORM-07 KEEL-NORM-08",
	  "ext=6", 0)
{
	ku_needed();
	as = ku_make(KU_GPA, KU(f_ud2));
	EXCEPTION(f_ud2, KEEL_VEC_UD, KEEL_VEC_UD, 1);
	EXCEPTION(f_div, KEEL_VEC_DE, KEEL_VEC_DE, 4);
	EXCEPTION(f_int3, KEEL_VEC_BP, KEEL_VEC_BP, 2);
	EXCEPTION(f_gp, KEEL_VEC_GP, KEEL_VEC_GP, 10);
	EXCEPTION(f_ss, KEEL_VEC_SS, KEEL_VEC_GP, 10);
	CHECK_EQ(kt_traps, 0); /* none of it reached the kernel's own entry */
}

KEEL_TEST("USER-016", user_sse_exception, "KEEL-USER-11 KEEL-NORM-08", "ext=6", 0)
{
	static u8 fx[512] __attribute__((aligned(64)));

	ku_needed();
	as = ku_make(KU_GPA, KU(f_ud2));
	EXCEPTION(f_xm, KEEL_VEC_XM, KEEL_VEC_XM, 5 + 4 + 5 + 4 + 4);
	/* The kernel's own MXCSR and control word were never touched. */
	__asm__ volatile("fxsave64 %0" : "=m"(fx));
	CHECK_EQ(fx[0] | fx[1] << 8, 0x37f);
	CHECK_EQ(fx[24] | fx[25] << 8, 0x1f80);
}

KEEL_TEST("USER-036", user_x87_alignment, "KEEL-USER-11 KEEL-NORM-08", "ext=6", 0)
{
	ku_needed();
	as = ku_make(KU_GPA, KU(f_ud2));
	EXCEPTION(f_mf, KEEL_VEC_MF, KEEL_VEC_MF, 2 + 5 + 3 + 2 + 2 + 2);
	/* With AC set an access that is not aligned is #AC, where the processor checks it. */
	ku_code(KU_GPA, KU(f_ac));
	ku_context(&c, KU_CODE);
	CHECK_EQ(ku_run(as, &c), KEEL_USER_EXCEPTION);
	CHECK(c.u.vector == KEEL_VEC_AC || (c.u.vector == KEEL_VEC_BP && c.u.rip != KU_CODE));
	CHECK(c.u.rflags & 0x40000);
	kt_probe_ud();
	CHECK_EQ(kt_trap_frame.rflags & 0x40000, 0);
}

USER_CODE(access, "	cmp $1, %edx\n"
		  "	je 1f\n"
		  "	ja 2f\n"
		  "	mov (%rdi), %rax\n"
		  "	syscall\n"
		  "1:	mov %rax, (%rdi)\n"
		  "	syscall\n"
		  "2:	jmp *%rdi\n");
#define READ 0
#define WRITE 1
#define FETCH 2

static u32 user_access(u64 va, u32 how)
{
	ku_context(&c, KU_CODE);
	c.u.rdi = va;
	c.u.rdx = how;
	c.u.rax = 0x0b0f0b0f0b0f0b0f; /* ud2, when it is executed */
	return ku_run(as, &c);
}

/* A page fault at va with this error. */
static void user_pf(int line, u64 va, u32 how, u64 error)
{
	u32 reason = user_access(va, how);

	if (reason != KEEL_USER_EXCEPTION || c.u.vector != KEEL_VEC_PF || c.u.error != (error | KEEL_PF_U) ||
	    c.u.addr != va || (how == FETCH && c.u.rip != va) || (how != FETCH && c.u.rip - KU_CODE > 32))
		kt_fail("user.c", line, "%lx how %u: %s vector %u error %lx (expected #PF %lx) addr %lx rip %lx", va,
			how, ku_reason(&c), c.u.vector, c.u.error, error | KEEL_PF_U, c.u.addr, c.u.rip);
}
#define PF(va, how, error) user_pf(__LINE__, va, how, error)
static void user_ok(int line, u64 va, u32 how)
{
	u32 reason = user_access(va, how);

	if (reason != (how == FETCH ? KEEL_USER_EXCEPTION : KEEL_USER_SYSCALL) ||
	    (how == FETCH && c.u.vector != KEEL_VEC_UD))
		kt_fail("user.c", line, "%lx how %u: %s vector %u error %lx addr %lx", va, how, ku_reason(&c),
			c.u.vector, c.u.error, c.u.addr);
}
#define MAY(va, how) user_ok(__LINE__, va, how)

KEEL_TEST("USER-017", user_page_faults, "KEEL-USER-11 KEEL-USER-18 KEEL-NORM-02 KEEL-NORM-03 KEEL-NORM-05 KEEL-AS-04",
	  "neg ext=6", 0)
{
	ku_needed();
	as = ku_make(KU_GPA, KU(access));
	*(u32 *)kt_ram(G0) = 0x0b0f;
	static const u64 none[] = { UVA, UVA + 8, 0x10000, 0, 8, 0x1000, 0xfff8, KEEL_VA_END - 8, KT_LINEAR, KU_STACK };

	for (size_t i = 0; i < sizeof(none) / 8; i++) {
		PF(none[i], READ, 0);
		PF(none[i], WRITE, KEEL_PF_W);
		PF(none[i], FETCH, KEEL_PF_X);
	}
	OK(KU_MAP(as, UVA, G0, 4096, KEEL_PROT_R));
	MAY(UVA, READ);
	PF(UVA, WRITE, KEEL_PF_P | KEEL_PF_W);
	PF(UVA, FETCH, KEEL_PF_P | KEEL_PF_X);
	OK(KU_MAP(as, UVA, G0, 4096, KEEL_PROT_X)); /* X can be read, W too */
	MAY(UVA, READ);
	PF(UVA, WRITE, KEEL_PF_P | KEEL_PF_W);
	MAY(UVA, FETCH);
	OK(KU_MAP(as, UVA, G0, 4096, KEEL_PROT_W));
	MAY(UVA, READ);
	PF(UVA, FETCH, KEEL_PF_P | KEEL_PF_X);
	MAY(UVA, WRITE);
	OK(KU_MAP(as, UVA, G0, 4096, KEEL_PROT_ALL));
	MAY(UVA, READ);
	MAY(UVA, WRITE);
	MAY(UVA, FETCH);
	/* Across the edge of what is mapped: the lowest byte in the page that faults. */
	user_access(UVA + 4092, READ);
	CHECK_EQ(c.u.reason, KEEL_USER_EXCEPTION);
	CHECK_EQ(c.u.addr, UVA + 4096);
	CHECK_EQ(c.u.error, KEEL_PF_U);
}

KEEL_TEST("USER-018", user_changes_in_force, "KEEL-USER-20 KEEL-USER-12 KEEL-MMU-04 KEEL-MMU-23",
	  "neg ext=6 timeout=30", 0)
{
	ku_needed();
	as = ku_make(KU_GPA, KU(access));
	for (u64 i = 0; i < 64; i++)
		*(u64 *)kt_ram(G0 + i * 4096) = i * 3;
	for (u64 i = 0; i < 1500 / kt_scale + 100 && !kt_fails; i++) {
		u64 va = UVA + i % 20 * 4096, g = G0 + i % 64 * 4096;

		OK(ku_mmu(as, KEEL_MMU_MAP, va, g, 4096, KEEL_PROT_R, i & 1));
		MAY(va, READ);
		CHECK_EQ(c.u.rax, i % 64 * 3);
		PF(va, WRITE, KEEL_PF_P | KEEL_PF_W);
		OK(KU_PROTECT(as, va, 4096, KU_RW)); /* an addition: usable at once */
		MAY(va, WRITE);
		*(u64 *)kt_ram(g) = i % 64 * 3;
		OK(KU_MAP(as, va, G0 + (i + 1) % 64 * 4096, 4096, KU_RW)); /* another page */
		MAY(va, READ);
		CHECK_EQ(c.u.rax, (i + 1) % 64 * 3);
		OK(KU_PROTECT(as, va, 4096, KEEL_PROT_R));
		PF(va, WRITE, KEEL_PF_P | KEEL_PF_W);
		CHECK_EQ(*(u64 *)kt_ram(G0 + (i + 1) % 64 * 4096), (i + 1) % 64 * 3);
		OK(KU_UNMAP(as, va, 4096));
		PF(va, READ, 0);
		PF(va, FETCH, KEEL_PF_X);
	}
}

/*
 * Several batches between two entries, pages changing places within one. What user
 * code has cached of such a space may be brought up to date late, but not too late.
 */
KEEL_TEST("USER-037", user_changes_between, "KEEL-USER-20 KEEL-USER-12 KEEL-MMU-04", "neg ext=6 timeout=60", 0)
{
	enum { PAGES = 14, APART = 3 * 4096, BACKING = 64 };
	static struct keel_mmu_record recs[2 * PAGES] __attribute__((aligned(32)));
	u64 model[PAGES] = { 0 };

	ku_needed();
	as = ku_make(KU_GPA, KU(access));
	for (u64 i = 0; i < BACKING; i++)
		*(u64 *)kt_ram(G0 + i * 4096) = i * 3;
	for (u64 round = 0; round < 600 / kt_scale + 100 && !kt_fails; round++) {
		u64 first = kt_random_below(2) ? PAGES - 1 : kt_random_below(PAGES), until;

		for (u64 i = 0; i < PAGES; i++)
			if (model[i])
				MAY(UVA + i * APART, READ);
		/* Long enough for whatever ran it to go to sleep, or not. */
		for (until = kt_now() + kt_random_below(4) * MS / 10; kt_now() < until;)
			;
		for (u64 batches = 1 + kt_random_below(3); batches; batches--) {
			u32 n = 0;

			for (u64 i = 0; i < PAGES; i++) {
				/* Replaced, the same in two steps, protected, unmapped, left alone; in every other round one of three. */
				u64 kind = kt_random_below(round % 2 ? 3 : 5), va = UVA + i * APART;
				u64 gpa = G0 + kt_random_below(BACKING) * 4096;
				u16 prot = kt_random_below(2) ? KU_RW : KEEL_PROT_R;

				if (kind == 1 || kind == 3) {
					recs[n++] =
						(struct keel_mmu_record){ .op = KEEL_MMU_UNMAP, .va = va, .len = 4096 };
					model[i] = 0;
				}
				if (kind <= 1) {
					recs[n++] = (struct keel_mmu_record){ KEEL_MMU_MAP, prot, 0, va, gpa, 4096 };
					model[i] = gpa | prot;
				}
				if (kind == 2 && model[i]) {
					recs[n++] = (struct keel_mmu_record){ KEEL_MMU_PROTECT, prot, 0, va, 0, 4096 };
					model[i] = (model[i] & ~7ull) | prot;
				}
			}
			OK_VALUE(HC(KEEL_CALL_MMU_BATCH, as, kt_gpa(recs), n), n);
		}
		for (u64 k = 0; k < PAGES && !kt_fails; k++) {
			u64 i = (first + k) % PAGES, va = UVA + i * APART, *word = kt_ram(model[i] & ~7ull);
			bool write = kt_random_below(2);

			if (!model[i]) {
				PF(va, write ? WRITE : READ, write ? KEEL_PF_W : 0);
			} else if (!write) {
				MAY(va, READ);
				CHECK_EQ(c.u.rax, *word);
			} else if (model[i] & KEEL_PROT_W) {
				u64 old = *word;

				MAY(va, WRITE);
				CHECK_EQ(*(volatile u64 *)word, c.u.rax);
				*word = old;
			} else {
				PF(va, WRITE, KEEL_PF_P | KEEL_PF_W);
			}
		}
		/* Nothing was written to a page that had been taken away. */
		for (u64 i = 0; i < BACKING; i++)
			CHECK_EQ(*(volatile u64 *)kt_ram(G0 + i * 4096), i * 3);
		if (kt_fails)
			kt_note("round %lu", round);
	}
}

KEEL_TEST("USER-019", user_many_pages, "KEEL-USER-12 KEEL-NORM-10", "ext=6 timeout=60", 0)
{
	u64 pieces = kt_scale > 100 ? 3000 : 40000;

	ku_needed();
	as = ku_make(KU_GPA, KU(access));
	for (u64 i = 0; i < 1024; i++)
		*(u64 *)kt_ram(G0 + i * 4096) = 0x10000 + i;
	/* More separate mappings than a process of the host can hold. */
	for (u64 i = 0; i < pieces; i++)
		if (!OK(KU_MAP(as, UVA + i * 8192, G0 + i * 7 % 1024 * 4096, 4096, i & 1 ? KU_RW : KEEL_PROT_R)))
			return;
	for (u64 i = 0; i < pieces && !kt_fails; i++) {
		MAY(UVA + i * 8192, READ);
		CHECK_EQ(c.u.rax, 0x10000 + i * 7 % 1024);
		if (i % 97 == 0)
			PF(UVA + i * 8192 + 4096, READ, 0);
	}
	for (u64 i = 0; i < pieces && !kt_fails; i += 211)
		if (i & 1)
			MAY(UVA + i * 8192 + 64, WRITE);
		else
			PF(UVA + i * 8192 + 64, WRITE, KEEL_PF_P | KEEL_PF_W);
	OK(KU_UNMAP(as, UVA, pieces * 8192));
	PF(UVA, READ, 0);
}

KEEL_TEST("USER-020", user_many_spaces, "KEEL-AS-11 KEEL-USER-07 KEEL-USER-02 KEEL-AS-10", "ext=6 timeout=60", 0)
{
	u64 n = 400, limit, *space = kt_ram(KU_GPA + (8 << 20)), va = KU_CODE + 0x10000; /* of the same tables */

	ku_needed();
	limit = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_SPACES).value;
	n = n > limit ? limit : n;
	if (kt_scale > 100 && n > 40)
		n = 40;
	ku_code(KU_GPA, KU(access));
	/* More than a host keeps ready at a time; each has a page of its own at the same address. */
	for (u64 i = 0; i < n; i++) {
		space[i] = ku_space();
		*(u64 *)kt_ram(G0 + i * 4096) = i ^ 0x777;
		OK(KU_MAP(space[i], KU_CODE, KU_GPA, 4096, KU_RX));
		OK(KU_MAP(space[i], va, G0 + i * 4096, 4096, KU_RW));
	}
	for (int round = 0; round < 3; round++)
		for (u64 i = 0; i < n && !kt_fails; i++) {
			as = space[i];
			MAY(va, READ);
			CHECK_EQ(c.u.rax, i ^ 0x777);
			PF(va + 4096, READ, 0);
			if (i % 5 == (u64)round) { /* remapped while it does not run */
				*(u64 *)kt_ram(G0 + i * 4096) = 1;
				OK(KU_MAP(as, va, G0 + (n + i) * 4096, 4096, KU_RW));
				*(u64 *)kt_ram(G0 + (n + i) * 4096) = i ^ 0x777;
			}
		}
	for (u64 i = 0; i < n; i++)
		ku_destroy(space[i]);
}

/* Writes a word every rsi bytes, rcx times, and then makes system calls. */
USER_CODE(stride, "	mov %r8, %rcx\n"
		  "1:	mov %rax, (%rdi)\n"
		  "	add %rsi, %rdi\n"
		  "	dec %rcx\n"
		  "	jnz 1b\n"
		  "2:	syscall\n"
		  "	jmp 2b\n");

/* Large spaces and small ones in turn, each destroyed while what ran it may still be busy with it. */
KEEL_TEST("USER-038", user_spaces_in_turn, "KEEL-AS-16 KEEL-USER-12 KEEL-USER-20", "ext=6 timeout=60", 0)
{
	enum { RUNS = 1200 };

	ku_needed();
	for (u64 round = 0; round < 40 / kt_scale + 5 && !kt_fails; round++) {
		u64 large = ku_make(KU_GPA, KU(stride)), small;

		/* No two of them join. */
		for (u64 i = 0; i < RUNS; i++)
			if (!OK(KU_MAP(large, UVA + i * 8192, G0 + i * 7 % 1024 * 4096, 4096, KU_RW)))
				return;
		as = large;
		ku_context(&c, KU_CODE);
		c.u.rdi = UVA;
		c.u.rsi = 8192;
		c.u.r8 = RUNS;
		c.u.rax = round;
		EXPECT_SYSCALL(&c);
		for (u64 i = 0; i < 1024; i++)
			CHECK_EQ(*(volatile u64 *)kt_ram(G0 + i * 4096), round);
		small = ku_make(KU_GPA + KU_PAGES * 4096, KU(access));
		OK(KU_MAP(large, UVA + 4096, G0, 4096, KU_RW));
		/* Whatever ran it sleeps by now. */
		for (u64 until = kt_now() + MS; kt_now() < until;)
			;
		EXPECT_SYSCALL(&c);
		ku_destroy(large);
		as = small;
		for (u64 i = 0; i < 8; i++) {
			OK(KU_MAP(as, UVA, G0 + i * 4096, 4096, KU_RW));
			MAY(UVA, WRITE);
			CHECK_EQ(*(volatile u64 *)kt_ram(G0 + i * 4096), c.u.rax);
			if (i % 2) {
				OK(KU_UNMAP(as, UVA, 4096));
				PF(UVA, READ, 0);
			}
		}
		ku_destroy(small);
	}
}

/* Addresses outside the guest range: nothing of the host's or the kernel's is reached. */
KEEL_TEST("USER-021", user_outside, "KEEL-USER-13 KEEL-NORM-07", "neg ext=6 timeout=60", 0)
{
	const struct keel_abi_pages *p;
	u32 size;

	ku_needed();
	p = kt_chunk(KEEL_CHUNK_ABI, &size);
	as = ku_make(KU_GPA, KU(access));
	kt_vcpu->guest[3] = 0x5ec2e75ec2e7;
	const u64 at[] = { (u64)kt_vcpu,       (u64)&kt_vcpu->guest[3],
			   kt_vcpu->gate,      (u64)kt_start,
			   p->clock_va,	       KEEL_VA_END,
			   0x7f0100000000,     0x7f0200000000,
			   0x7f0300000000,     0x7f0300001000,
			   0x7f0500000000,     0x7f1000000000 + KT_SCRATCH_GPA,
			   0x7ffff7ff0000,     0x7fffffffe000,
			   0x7fffffffeff8,     0x7ffffffff000,
			   0xffff800000000000, 0xffffffff81000000,
			   0xffffffffff600000, -4096ull };

	for (size_t i = 0; i < sizeof(at) / 8; i++) {
		for (u32 how = READ; how <= WRITE; how++) {
			u64 h = kt_hash(1, (const void *)(kt_vcpu->gate & ~0xfffull), 4096), d = kt_digest();
			u32 reason = user_access(at[i], how);

			if (reason == KEEL_USER_EXCEPTION) {
				bool canonical = at[i] + (1ull << 47) < 1ull << 48;

				if (c.u.vector != KEEL_VEC_PF && c.u.vector != KEEL_VEC_GP && c.u.vector != KEEL_VEC_SS)
					KT_FAIL("%lx: vector %u", at[i], c.u.vector);
				if (c.u.vector == KEEL_VEC_PF && (c.u.error & KEEL_PF_P || c.u.addr != at[i]))
					KT_FAIL("%lx: error %lx addr %lx", at[i], c.u.error, c.u.addr);
				(void)canonical;
			} else if (reason != KEEL_USER_SYSCALL) {
				KT_FAIL("%lx: %s", at[i], ku_reason(&c));
			} else if (how == READ) {
				/* Memory of its own there is legal; what the kernel has there is not. */
				CHECK(c.u.rax != 0x5ec2e75ec2e7);
				if (at[i] == (u64)kt_start)
					CHECK(c.u.rax != *(const u64 *)kt_start);
				if (at[i] == (u64)kt_vcpu)
					CHECK(c.u.rax != (u64)kt_vcpu);
			}
			if (kt_digest() != d || kt_hash(1, (const void *)(kt_vcpu->gate & ~0xfffull), 4096) != h)
				KT_FAIL("an access of user code to %lx changed something", at[i]);
		}
	}
	CHECK_EQ(kt_vcpu->guest[3], 0x5ec2e75ec2e7);
	OK_VALUE(HC(KEEL_CALL_BASE_PING, 5), 5);
	CHECK_EQ(*(u64 *)kt_ram(KU_DATA_AT(KU_GPA)), 0);
}

USER_CODE(gate, "	call *%rbx\n	syscall\n");

KEEL_TEST("USER-022", user_gate, "KEEL-USER-13 KEEL-CALL-18", "neg ext=6 timeout=20", 0)
{
	static u64 stats[2][512] __attribute__((aligned(64)));
	u32 port = kt_alloc(1);

	ku_needed();
	as = ku_make(KU_GPA, KU(gate));
	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	for (u64 off = 0; off < 128; off += off < 16 ? 1 : 8) {
		ku_context(&c, KU_CODE);
		c.u.rax = KEEL_CALL_EVENT_SEND;
		c.u.rdi = port;
		c.u.rbx = kt_vcpu->gate + off;
		ku_run(as, &c);
		CHECK(c.u.reason == KEEL_USER_EXCEPTION || c.u.reason == KEEL_USER_SYSCALL);
		CHECK(!kt_port_pending(port));
	}
	/* Nor with a gate of its own in %gs, as the kernel's code has it. */
	(void)stats;
	ku_context(&c, KU_CODE);
	c.u.gs_base = (u64)kt_vcpu;
	c.u.rbx = kt_vcpu->gate;
	c.u.rax = KEEL_CALL_BASE_SHUTDOWN;
	ku_run(as, &c);
	CHECK(c.u.reason == KEEL_USER_EXCEPTION || c.u.reason == KEEL_USER_SYSCALL);
	CHECK_EQ(kt_pending(), 0);
}

USER_CODE(int80, "	nop\n	int $0x80\n	syscall\n");
USER_CODE(int_n, "	nop\n	.byte 0xcd, 0x21\n	syscall\n");
USER_CODE(int_4, "	nop\n	int $4\n	syscall\n");
USER_CODE(int_3, "	nop\n	.byte 0xcd, 3\n	syscall\n");

KEEL_TEST("USER-023", user_int_n, "KEEL-USER-14 KEEL-USER-10", "neg ext=6 timeout=30", 0)
{
	u8 *code = kt_ram(KU_GPA);

	ku_needed();
	as = ku_make(KU_GPA, KU(int80));
	for (u64 nr = 0; nr < 450; nr += nr < 32 ? 1 : 13) {
		ku_context(&c, KU_CODE);
		fill(&c);
		c.u.fs_base = c.u.gs_base = 0;
		c.u.rax = nr;
		other = c;
		EXPECT_EXCEPTION(&c, KEEL_VEC_GP, 0, 0);
		CHECK_EQ(c.u.rip, KU_CODE + 1);
		other.u.rax = (u32)other.u.rax | (c.u.rax & ~0xffffffffull);
		CHECK_EQ((u32)c.u.rax, (u32)nr);
		same(__LINE__, &c, &other, false);
	}
	for (u32 n = 0; n < 256; n++) {
		if (n == 3 || n == 4)
			continue;
		if (n >= 22 && n < 32) { /* reserved by the processor, and used by some hosts of hosts */
			ku_code(KU_GPA, KU(int_n));
			code[2] = (u8)n;
			ku_context(&c, KU_CODE);
			CHECK(ku_run(as, &c) != 0);
			continue;
		}
		ku_code(KU_GPA, KU(int_n));
		code[2] = (u8)n;
		ku_context(&c, KU_CODE);
		if (ku_run(as, &c) != KEEL_USER_EXCEPTION || c.u.vector != KEEL_VEC_GP || c.u.rip != KU_CODE + 1 ||
		    c.u.error || c.u.addr)
			KT_FAIL("int %u: %s vector %u error %lx addr %lx rip + %lx", n, ku_reason(&c), c.u.vector,
				c.u.error, c.u.addr, c.u.rip - KU_CODE);
	}
	ku_code(KU_GPA, KU(int_4));
	ku_context(&c, KU_CODE);
	CHECK_EQ(ku_run(as, &c), KEEL_USER_EXCEPTION);
	CHECK(c.u.vector == 4 || c.u.vector == KEEL_VEC_GP);
	ku_code(KU_GPA, KU(int_3));
	ku_context(&c, KU_CODE);
	EXPECT_EXCEPTION(&c, KEEL_VEC_BP, 0, 0);
}

USER_CODE(sysenter, "	mov %rsp, %rbp\n	sysenter\n	syscall\n");

KEEL_TEST("USER-024", user_sysenter, "KEEL-USER-15 KEEL-USER-10", "neg ext=6", 0)
{
	ku_needed();
	as = ku_make(KU_GPA, KU(sysenter));
	for (u64 nr = 0; nr < 450; nr += nr < 32 ? 1 : 13) {
		ku_context(&c, KU_CODE);
		c.u.rax = nr;
		EXPECT_EXCEPTION(&c, KEEL_VEC_UD, 0, 0);
	}
}

/* Privileged instructions: one each, ended by ud2 so that their length shows when they are executed. */
static const struct {
	const char *name;
	u8 bytes[8];
	u8 n;
} privileged[] = {
	{ "hlt", { 0xf4 }, 1 },
	{ "cli", { 0xfa }, 1 },
	{ "sti", { 0xfb }, 1 },
	{ "in al, 0x80", { 0xe4, 0x80 }, 2 },
	{ "out 0x80, al", { 0xe6, 0x80 }, 2 },
	{ "in al, dx", { 0xec }, 1 },
	{ "outsb", { 0x6e }, 1 },
	{ "rdmsr", { 0x0f, 0x32 }, 2 },
	{ "wrmsr", { 0x0f, 0x30 }, 2 },
	{ "mov rax, cr0", { 0x0f, 0x20, 0xc0 }, 3 },
	{ "mov rax, cr3", { 0x0f, 0x20, 0xd8 }, 3 },
	{ "mov cr3, rax", { 0x0f, 0x22, 0xd8 }, 3 },
	{ "mov cr4, rax", { 0x0f, 0x22, 0xe0 }, 3 },
	{ "mov rax, dr7", { 0x0f, 0x21, 0xf8 }, 3 },
	{ "mov dr7, rax", { 0x0f, 0x23, 0xf8 }, 3 },
	{ "lgdt [rsp]", { 0x0f, 0x01, 0x14, 0x24 }, 4 },
	{ "lidt [rsp]", { 0x0f, 0x01, 0x1c, 0x24 }, 4 },
	{ "lldt ax", { 0x0f, 0x00, 0xd0 }, 3 },
	{ "ltr ax", { 0x0f, 0x00, 0xd8 }, 3 },
	{ "invlpg [rsp]", { 0x0f, 0x01, 0x3c, 0x24 }, 4 },
	{ "invd", { 0x0f, 0x08 }, 2 },
	{ "wbinvd", { 0x0f, 0x09 }, 2 },
	{ "clts", { 0x0f, 0x06 }, 2 },
	{ "lmsw ax", { 0x0f, 0x01, 0xf0 }, 3 },
	{ "swapgs", { 0x0f, 0x01, 0xf8 }, 3 },
	{ "sysret", { 0x48, 0x0f, 0x07 }, 3 },
	{ "xsetbv", { 0x0f, 0x01, 0xd1 }, 3 },
	{ "vmcall", { 0x0f, 0x01, 0xc1 }, 3 },
	{ "vmmcall", { 0x0f, 0x01, 0xd9 }, 3 },
	{ "vmxoff", { 0x0f, 0x01, 0xc4 }, 3 },
	{ "vmrun", { 0x0f, 0x01, 0xd8 }, 3 },
	{ "clac", { 0x0f, 0x01, 0xca }, 3 },
	{ "iretq to nowhere", { 0x6a, 0x00, 0x6a, 0x00, 0x48, 0xcf }, 6 },
};

KEEL_TEST("USER-025", user_privileged, "KEEL-USER-15", "neg ext=6 timeout=20", 0)
{
	u8 *code = kt_ram(KU_GPA);

	ku_needed();
	as = ku_make(KU_GPA, KU(syscalls));
	for (size_t i = 0; i < sizeof(privileged) / sizeof(privileged[0]); i++) {
		u64 d = kt_digest();

		memset(code, 0, 64);
		memcpy(code, privileged[i].bytes, privileged[i].n);
		code[privileged[i].n] = 0x0f; /* ud2 behind it */
		code[privileged[i].n + 1] = 0x0b;
		ku_context(&c, KU_CODE);
		c.u.rsp -= 64;
		c.u.rcx = 0xc0000080;
		if (ku_run(as, &c) != KEEL_USER_EXCEPTION || (c.u.vector != KEEL_VEC_GP && c.u.vector != KEEL_VEC_UD))
			KT_FAIL("%s: %s vector %u error %lx addr %lx", privileged[i].name, ku_reason(&c), c.u.vector,
				c.u.error, c.u.addr);
		else if (c.u.rip > KU_CODE + 4)
			KT_FAIL("%s: executed, vector %u rip + %lx", privileged[i].name, c.u.vector, c.u.rip - KU_CODE);
		CHECK_EQ(kt_digest(), d);
	}
}

KEEL_TEST("USER-026", user_vsyscall, "KEEL-USER-16 KEEL-USER-13", "neg ext=6", 0)
{
	static const u64 at[] = { 0xffffffffff600000, 0xffffffffff600400, 0xffffffffff600800,
				  0xffffffffff600c00, 0xffffffffff600008, 0xffffffffff600fff };

	ku_needed();
	as = ku_make(KU_GPA, KU(gate));
	for (size_t i = 0; i < sizeof(at) / 8; i++) {
		ku_context(&c, KU_CODE);
		c.u.rbx = at[i];
		c.u.rdi = KU_DATA; /* where gettimeofday or time would write */
		c.u.rsi = KU_DATA + 64;
		EXPECT_EXCEPTION(&c, KEEL_VEC_PF, KEEL_PF_U | KEEL_PF_X, at[i]);
		CHECK_EQ(c.u.rip, at[i]);
		CHECK_EQ(c.u.rsp, KU_STACK - 8); /* the return address is on the stack */
		CHECK_EQ(*(u64 *)kt_ram(KU_DATA_AT(KU_GPA)), 0);
		c.u.rip = KU_CODE; /* a jump is the same, but for the stack */
	}
	ku_code(KU_GPA, KU(access));
	for (size_t i = 0; i < sizeof(at) / 8; i++)
		for (u32 how = READ; how <= WRITE; how++)
			CHECK_EQ(user_access(at[i], how), KEEL_USER_EXCEPTION);
}

/* rdi: 0 = int 0x80, 1 = sysenter, 2 = syscall, 3 = on and on, 4 = a write to memory, in a 32-bit segment. */
USER_CODE(far32, "	pushq %rsi\n"
		 "	lea 1f(%rip), %rcx\n"
		 "	push %rcx\n"
		 "	lretq\n"
		 "	.code32\n"
		 "1:	cmp $1, %edi\n"
		 "	je 2f\n"
		 "	ja 3f\n"
		 "	int $0x80\n"
		 "	ud2\n"
		 "2:	mov %esp, %ebp\n"
		 "	sysenter\n"
		 "	ud2\n"
		 "3:	cmp $3, %edi\n"
		 "	je 4f\n"
		 "	ja 5f\n"
		 "	syscall\n"
		 "	ud2\n"
		 "4:	jmp 4b\n"
		 "5:	mov $0x2b, %ecx\n"
		 "	mov %ecx, %ds\n"
		 "	movl $0x1234, 0x10000\n"
		 "	ud2\n"
		 "	.code64\n");

KEEL_TEST("USER-027", user_far_32bit, "KEEL-USER-17 KEEL-USER-10 KEEL-USER-22", "neg ext=6 timeout=30", 0)
{
	static const u16 selector[] = { 0x23, 0x1b, 0x33, 0x2b, 0x10, 0x08, 0x07, 0x0f, 0, 0xfff3 };
	u32 timer = kt_bind(KEEL_SOURCE_TIMER, 0);

	ku_needed();
	as = ku_make(KU_GPA, KU(far32));
	OK(HC(KEEL_CALL_EVENT_UNMASK, timer));
	for (size_t s = 0; s < sizeof(selector) / 2; s++)
		for (u64 how = 0; how < 5; how++)
			for (u64 nr = 0; nr < 400; nr += how < 3 ? 37 : 400) {
				u64 d = kt_digest();
				u32 reason;

				ku_context(&c, KU_CODE);
				c.u.rsi = selector[s];
				c.u.rdi = how;
				c.u.rax = nr;
				if (how == 3)
					OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + 2 * MS));
				reason = ku_run(as, &c);
				if (reason == KEEL_USER_EVENT && how == 3) {
					kt_scan();
				} else if (reason == KEEL_USER_SYSCALL) {
					/* Where the selector is one of a 64-bit segment. */
					CHECK(c.u.rip >= KU_CODE && c.u.rip < KU_CODE + 128);
				} else if (reason != KEEL_USER_EXCEPTION) {
					KT_FAIL("selector %x how %lu: %s", selector[s], how, ku_reason(&c));
				}
				if (how == 3) {
					OK(HC(KEEL_CALL_TIME_SET_TIMER, KEEL_TIME_NEVER));
					kt_scan();
					d = kt_digest();
				}
				CHECK_EQ(kt_digest(), d);
			}
	/* The space and the way user code runs are as they were. */
	ku_code(KU_GPA, KU(syscalls));
	ku_context(&c, KU_CODE);
	EXPECT_SYSCALL(&c);
	CHECK_EQ(c.u.rip, KU_CODE + 2);
}

USER_CODE(step, "	nop\n"
		"	mov $5, %eax\n"
		"	push %rax\n"
		"	pop %rbx\n"
		"	mov %rbx, (%rdi)\n"
		"	jmp 1f\n"
		"	ud2\n"
		"1:	syscall\n"
		"	nop\n");

KEEL_TEST("USER-028", user_single_step, "KEEL-USER-19 KEEL-NORM-11", "ext=6", 0)
{
	static const u8 at[] = { 1, 6, 7, 8, 11, 15 };

	ku_needed();
	as = ku_make(KU_GPA, KU(step));
	for (int round = 0; round < 5; round++) {
		ku_context(&c, KU_CODE);
		c.u.rflags = 0x100;
		c.u.rdi = KU_DATA;
		*(u64 *)kt_ram(KU_DATA_AT(KU_GPA)) = 0;
		for (size_t i = 0; i < sizeof(at); i++) {
			EXPECT_EXCEPTION(&c, KEEL_VEC_DB, 0, 0);
			CHECK_EQ(c.u.rip, KU_CODE + at[i]);
			CHECK(c.u.rflags & 0x100);
			CHECK_EQ(*(u64 *)kt_ram(KU_DATA_AT(KU_GPA)), i >= 4 ? 5 : 0);
		}
		CHECK_EQ(c.u.rbx, 5);
		c.u.rflags = 0; /* and on without */
		EXPECT_SYSCALL(&c);
		CHECK_EQ(c.u.rip, KU_CODE + 17);
		kt_probe_ud();
		CHECK_EQ(kt_trap_frame.rflags & 0x100, 0);
	}
	/* Set by user code itself: after the instruction that follows popf. */
	ku_code(KU_GPA, KU(popflags));
	ku_context(&c, KU_CODE);
	c.u.rdi = 0x100;
	EXPECT_EXCEPTION(&c, KEEL_VEC_DB, 0, 0);
	CHECK(c.u.rip == KU_CODE + 3 || c.u.rip == KU_CODE + 2);
}

USER_CODE(store_all, "1:	mov %rax, (%rdi)\n	add $8, %rdi\n	cmp %rsi, %rdi\n	jb 1b\n	syscall\n");

KEEL_TEST("USER-029", user_context_copied, "KEEL-USER-06 KEEL-USER-07", "neg ext=6", 0)
{
	u64 page = kt_gpa(&c) & ~0xfffull;

	ku_needed();
	as = ku_make(KU_GPA, KU(store_all));
	ku_context(&c, KU_CODE);
	/* User code has its own context mapped and writes all over it: that is lost. */
	OK(KU_MAP(as, UVA, page, 0x8000, KU_RW));
	for (int i = 0; i < 10; i++) {
		ku_context(&c, KU_CODE);
		c.u.rax = 0xeeeeeeeeeeeeeeee;
		c.u.rdi = UVA + (kt_gpa(&c) & 0xfff);
		c.u.rsi = c.u.rdi + c.u.size / 8 * 8;
		c.u.r15 = i;
		EXPECT_SYSCALL(&c);
		CHECK_EQ(c.u.r15, i);
		CHECK_EQ(c.u.rip, KU_CODE + (u64)(ku_store_all_end - ku_store_all));
		CHECK_EQ(c.u.rflags & ~0x8d5ull, 0x202);
		CHECK_EQ(c.u.fs_base, 0);
		CHECK_EQ(c.xsave[0] | c.xsave[1] << 8, 0x37f);
		c.u.size = KEEL_USER_XSAVE +
			   ((const struct keel_cpu_info *)kt_chunk(KEEL_CHUNK_CPU, &(u32){ 0 }))->xsave_size;
	}
}

KEEL_TEST("USER-030", user_syscall_numbers, "KEEL-USER-10 KEEL-USER-22", "neg ext=6 timeout=60", 0)
{
	static const u64 odd[] = {
		512,	    547,	1023,	    4095,	65535,	    0x3fffffff,	      0x40000000, 0x40000009,
		0x40000027, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 32, 1ull << 32 | 231, 1ull << 63, ~0ull
	};
	u64 base = 0x7f0100000000;

	ku_needed();
	as = ku_make(KU_GPA, KU(syscalls));
	kt_poison(KU_DATA_AT(KU_GPA), KU_DATA_PAGES * 4096, 3);
	u64 h = kt_hash(1, kt_ram(KU_DATA_AT(KU_GPA)), KU_DATA_PAGES * 4096);

	for (u64 nr = 0; nr < 480 + sizeof(odd) / 8; nr++)
		for (int how = 0; how < 4; how++) {
			u64 n = nr < 480 ? nr : odd[nr - 480];

			ku_context(&c, KU_CODE);
			c.u.rax = n;
			/* As a host's own code may make them: in its window, on all, on nothing, on user memory. */
			c.u.rdi = how == 0 ? 0 : how == 1 ? base : how == 2 ? KU_DATA : ~0ull;
			c.u.rsi = how == 2 ? KU_DATA + 64 : how == 1 ? 4096 : 0;
			c.u.rdx = how == 3 ? ~0ull : 7;
			c.u.r10 = how == 1 ? 0x32 : 0;
			c.u.r8 = ~0ull;
			c.u.r9 = 0;
			other = c;
			if (ku_run(as, &c) != KEEL_USER_SYSCALL || c.u.rip != KU_CODE + 2 || c.u.rax != n) {
				KT_FAIL("system call %lx, arguments %d: %s vector %u rip %lx rax %lx", n, how,
					ku_reason(&c), c.u.vector, c.u.rip, c.u.rax);
				continue;
			}
			same(__LINE__, &c, &other, true);
		}
	CHECK_EQ(kt_hash(1, kt_ram(KU_DATA_AT(KU_GPA)), KU_DATA_PAGES * 4096), h);
}

/* Bytes that mean nothing, run as user code: whatever they do, user_enter returns. */
KEEL_TEST("USER-031", user_random_code, "KEEL-USER-22 KEEL-USER-09 KEEL-USER-11", "neg ext=6 timeout=120", 0)
{
	u32 timer = kt_bind(KEEL_SOURCE_TIMER, 0), n[4] = { 0 };
	u64 rounds = 500 / kt_scale + 60;
	u8 *code = kt_ram(KU_GPA);

	ku_needed();
	OK(HC(KEEL_CALL_EVENT_UNMASK, timer));
	as = ku_make(KU_GPA, KU(syscalls));
	for (u64 round = 0; round < rounds && !kt_fails; round++) {
		u64 d = kt_digest();

		for (u32 i = 0; i < 256; i += 8) {
			u64 v = kt_random();

			memcpy(code + i, &v, 8);
		}
		if (round % 3 == 0) { /* prefixes that lead somewhere */
			static const u8 start[][3] = { { 0x0f, 0x01 }, { 0x0f, 0xae }, { 0x0f, 0xc7 }, { 0x48, 0x0f },
						       { 0xc4, 0xe2 }, { 0x62, 0xf1 }, { 0xff },       { 0xcf } };

			memcpy(code, start[kt_random_below(8)], 2);
		}
		ku_context(&c, KU_CODE);
		fill(&c);
		for (u64 *r = &c.u.rax; r <= &c.u.r15; r++)
			if (kt_random_below(3))
				*r = kt_random_below(2) ? KU_DATA + kt_random_below(KU_DATA_PAGES * 4096)
							: 0x7f0000000000 + kt_random_below(0x1000000000);
		c.u.rsp = kt_random_below(4) ? KU_STACK - 2048 : kt_random();
		c.u.rflags = kt_random() & ~0x100ull;
		ku_fp_fill(c.xsave, kt_fp_mask(KU_XSAVE_MAX), round + 1);
		OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + 2 * MS));
		u32 reason = ku_run(as, &c);

		OK(HC(KEEL_CALL_TIME_SET_TIMER, KEEL_TIME_NEVER));
		kt_scan();
		if (!reason || reason > KEEL_USER_EVENT)
			KT_FAIL("round %lu: reason %u", round, reason);
		else
			n[reason]++;
		if (reason == KEEL_USER_EXCEPTION)
			CHECK(c.u.vector < 32);
		__atomic_store_n(&kt_vcpu->event_pending[0], 0, __ATOMIC_SEQ_CST);
		if (kt_digest() != d)
			KT_FAIL("round %lu: something of the kernel's changed", round);
	}
	kt_note("%u system calls, %u exceptions, %u stopped by the timer", n[1], n[2], n[3]);
}

KEEL_TEST("USER-032", user_not_of_kernel_traps, "KEEL-USER-23 KEEL-USER-11", "neg ext=6", 0)
{
	ku_needed();
	as = ku_make(KU_GPA, KU(access));
	/* The same address faults in the one and in the other, in turn, and each hears of its own only. */
	for (u64 i = 0; i < 200; i++) {
		u64 traps = kt_traps;

		CHECK(kt_probe_read(UVA + i * 8));
		CHECK_EQ(kt_traps, traps + 1);
		CHECK_EQ(kt_trap_frame.error, 0);
		CHECK_EQ(kt_trap_frame.mode, KEEL_MODE_KERNEL);
		PF(UVA + i * 8, READ, 0);
		CHECK_EQ(kt_traps, traps + 1);
		OK(MAP(UVA, G0, 4096, KU_RW)); /* the kernel's mapping is no help to user code */
		PF(UVA + i * 8, READ, 0);
		OK(UNMAP(UVA, 4096));
	}
}

KEEL_TEST("USER-033", user_no_batch, "KEEL-USER-02 KEEL-CALL-08", "neg ext=6", 0)
{
	static struct keel_multicall e __attribute__((aligned(64)));
	static struct keel_multicall_result res __attribute__((aligned(64)));

	ku_needed();
	as = ku_make(KU_GPA, KU(syscalls));
	ku_context(&c, KU_CODE);
	other = c;
	e = (struct keel_multicall){ .id = KEEL_CALL_USER_ENTER, .arg = { as, kt_gpa(&c), 0 } };
	OK_VALUE(HC(KEEL_CALL_MULTICALL, kt_gpa(&e), 1, kt_gpa(&res), 0), 1);
	CHECK_EQ(res.status, KEEL_STATUS(KEEL_E_CONTEXT, 0));
	CHECK(!memcmp(&c, &other, sizeof(c)));
	/* Calls on spaces are none of that. */
	e = (struct keel_multicall){ .id = KEEL_CALL_AS_INFO, .arg = { as, KEEL_AS_INFO_PAGES } };
	OK_VALUE(HC(KEEL_CALL_MULTICALL, kt_gpa(&e), 1, kt_gpa(&res), 0), 1);
	CHECK_EQ(res.status, 0);
	CHECK_EQ(res.value, 1 + KU_DATA_PAGES + 4);
}

static u32 dumped;

static void on_dump(struct keel_frame *f)
{
	(void)f;
	dumped++;
	/* User code runs under a dump handler as well. */
	CHECK_EQ(ku_run(as, &c), KEEL_USER_SYSCALL);
}

KEEL_TEST("USER-034", user_in_handlers, "KEEL-USER-02 KEEL-USER-09 KEEL-CTX-05", "ext=6", 0)
{
	ku_needed();
	as = ku_make(KU_GPA, KU(syscalls));
	ku_context(&c, KU_CODE);
	kt_on[KEEL_CLASS_DUMP] = on_dump;
	kt_set_entry(KEEL_CLASS_DUMP, 0);
	OK(HC(KEEL_CALL_EVENT_DUMP, 0));
	CHECK_EQ(dumped, 1);
	CHECK_EQ(c.u.rip, KU_CODE + 2);
}

KEEL_TEST("USER-035", user_alternating, "KEEL-USER-07 KEEL-USER-08 KEEL-AS-11", "ext=6 timeout=30", 0)
{
	static struct ku t[4];
	u64 space[4];

	ku_needed();
	/* Four contexts in four spaces, in turn, each counting in its own registers. */
	for (u32 i = 0; i < 4; i++) {
		space[i] = ku_make(KU_GPA + i * KU_PAGES * 4096, KU(syscalls));
		ku_context(&t[i], KU_CODE);
		t[i].u.r12 = i * 1000;
		ku_fp_fill(t[i].xsave, kt_fp_mask(KU_XSAVE_MAX), i + 1);
	}
	for (u64 round = 0; round < 4000 / kt_scale + 50 && !kt_fails; round++) {
		u64 i = kt_random_below(4);

		as = space[i];
		other = t[i];
		EXPECT_SYSCALL(&t[i]);
		same(__LINE__, &t[i], &other, true);
		ku_fp_normal(t[i].xsave, kt_fp_mask(KU_XSAVE_MAX));
		ku_fp_normal(other.xsave, kt_fp_mask(KU_XSAVE_MAX));
		if (!ku_fp_equal(t[i].xsave, other.xsave, kt_fp_mask(KU_XSAVE_MAX)))
			KT_FAIL("round %lu: context %lu has other extended state", round, i);
		t[i].u.r12++;
		t[i].u.r13 = t[i].u.r12 * 7;
		t[i].u.rip = KU_CODE;
	}
}
