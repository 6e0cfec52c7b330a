// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* AS: address spaces for guest user code. AS-001 and -002 are in mmu.c: of the guest kernel's own. */
#include "kt_user.h"

#define G0 (KT_SCRATCH_GPA + (2 << 20))
#define UVA KEEL_U64(0x123456789000)
#define INFO(as, what) HC(KEEL_CALL_AS_INFO, as, what)

/* Spaces whose state a refused call must leave alone, beside what kt_digest() covers. */
static u64 watched[4];
static u32 watching;

static u64 digest(void)
{
	u64 h = kt_digest();

	for (u32 i = 0; i <= watching; i++) {
		u64 as = i < watching ? watched[i] : KEEL_AS_KERNEL;

		for (u64 what = 0; what < KEEL_AS_INFO_COUNT; what++) {
			struct kt_ret r = INFO(as, what);

			h = kt_hash(h, &r, sizeof(r));
		}
		for (u64 p = 0; p < 8; p++) {
			u64 q = ku_query(as, UVA + p * KEEL_PAGE_SIZE);

			h = kt_hash(h, &q, sizeof(q));
		}
	}
	return h;
}

static void refused(int line, const char *what, struct kt_ret r, s64 status, u64 before)
{
	kt_check_ret("as.c", line, what, r, status, 0, false);
	if (digest() != before)
		kt_fail("as.c", line, "%s: observable state changed", what);
}
#define REFUSED_(call, status)                                     \
	do {                                                       \
		u64 before_ = digest();                            \
		refused(__LINE__, #call, (call), status, before_); \
	} while (0)
#define REFUSED(call, code, at) REFUSED_(call, KEEL_STATUS(code, at))
#define REFUSED_BIT(call, code, at, bit) REFUSED_(call, KEEL_STATUS_BIT(code, at, bit))

static u64 watch(u64 as)
{
	watched[watching++] = as;
	return as;
}

KEEL_TEST("AS-003", as_create, "KEEL-AS-08 KEEL-AS-09 KEEL-AS-07", "ext=6", 0)
{
	u64 as[8];

	ku_needed();
	for (u32 i = 0; i < 8; i++) {
		as[i] = ku_space();
		CHECK(as[i] && !(as[i] >> 63) && (u32)as[i]); /* index 0 is the kernel's */
		for (u32 k = 0; k < i; k++)
			CHECK((u32)as[i] != (u32)as[k]);
		OK_VALUE(INFO(as[i], KEEL_AS_INFO_PAGES), 0);
		OK_VALUE(INFO(as[i], KEEL_AS_INFO_RUNNING), 0);
		for (u64 va = 0x20000; va < KEEL_VA_END; va *= 2)
			CHECK_EQ(ku_query(as[i], va), 0);
		CHECK_EQ(ku_query(as[i], 0x400000), 0); /* the image is the kernel's alone */
		CHECK_EQ(ku_query(as[i], KT_LINEAR), 0);
		CHECK_EQ(ku_query(as[i], KEEL_VA_MIN), 0);
		CHECK_EQ(ku_query(as[i], KEEL_VA_END - 4096), 0);
	}
	for (u32 i = 0; i < 8; i++)
		ku_destroy(as[i]);
}

KEEL_TEST("AS-004", as_create_flags, "KEEL-AS-08 KEEL-CALL-07", "neg ext=6", 0)
{
	ku_needed();
	for (int b = 0; b < 64; b++)
		REFUSED_BIT(HC(KEEL_CALL_AS_CREATE, 1ull << b), KEEL_E_INVAL, ARG(1), b);
	REFUSED_BIT(HC(KEEL_CALL_AS_CREATE, ~0ull), KEEL_E_INVAL, ARG(1), 0);
	REFUSED_BIT(HC(KEEL_CALL_AS_CREATE, 0xff00), KEEL_E_INVAL, ARG(1), 8);
}

static struct ku context;
static struct keel_mmu_record rec __attribute__((aligned(32)));

/* NOENT@1 in every call that takes one; `zero` leaves out those that take the kernel's. */
static void no_such(u64 as, bool zero)
{
	if (!zero) {
		rec = (struct keel_mmu_record){ .op = KEEL_MMU_MAP, .prot = 3, .va = UVA, .gpa = G0, .len = 4096 };
		REFUSED(HC(KEEL_CALL_MMU_BATCH, as, kt_gpa(&rec), 1, 0), KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_MMU_BATCH, as, kt_gpa(&rec), 0, 0), KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_MMU_QUERY, as, UVA), KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_HARVEST_START, as, UVA, 4096, KEEL_HARVEST_DIRTY), KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_HARVEST_STOP, as, UVA, 4096), KEEL_E_NOENT, ARG(1));
		REFUSED(HC(KEEL_CALL_HARVEST_COLLECT, as, UVA, 4096, G0), KEEL_E_NOENT, ARG(1));
		for (u64 what = 0; what < KEEL_AS_INFO_COUNT; what++)
			REFUSED(INFO(as, what), KEEL_E_NOENT, ARG(1));
	}
	REFUSED(HC(KEEL_CALL_AS_CLONE, as, 0), KEEL_E_NOENT, ARG(1));
	REFUSED(HC(KEEL_CALL_AS_CLONE, as, KEEL_AS_CLONE_SHARE), KEEL_E_NOENT, ARG(1));
	REFUSED(HC(KEEL_CALL_AS_DESTROY, as), KEEL_E_NOENT, ARG(1));
	REFUSED(HC(KEEL_CALL_USER_ENTER, as, kt_gpa(&context), 0), KEEL_E_NOENT, ARG(1));
}

KEEL_TEST("AS-005", as_bad_handles,
	  "KEEL-AS-09 KEEL-AS-13 KEEL-AS-16 KEEL-AS-18 KEEL-MMU-09 KEEL-USER-03 KEEL-HARVEST-10", "neg ext=6", 0)
{
	u64 as;

	ku_needed();
	as = watch(ku_space());
	ku_context(&context, KU_CODE);
	OK(KU_MAP(as, UVA, G0, 4096, KU_RW));
	no_such(KEEL_AS_KERNEL, true);
	no_such(as ^ 1ull << 32, false);
	no_such(as ^ 1ull << 62, false);
	no_such(as | 1ull << 63, false);
	no_such((u32)as | ((as >> 32) + 1) << 32, false);
	no_such((u32)as | ((as >> 32) - 1) << 32, false);
	no_such(as + 1, false); /* another index of the same generation */
	no_such((as & ~0xffffffffull) | 0xffffffff, false);
	no_such(as & ~0xffffffffull ? as & ~0xffffffffull : 1ull << 32,
		false); /* index 0 of another generation than 0 */
	no_such((u32)as | 0x80000000, false);
	no_such(~0ull, false);
	no_such(1ull << 63, false);
	no_such(KT_LINEAR + G0, false);
	CHECK_EQ(ku_query(as, UVA), G0 | KU_RW);
}

KEEL_TEST("AS-006", as_stale, "KEEL-AS-09 KEEL-AS-16", "neg ext=6 timeout=20", 0)
{
	u64 old, first;
	u32 same = 0;
	u64 rounds;

	ku_needed();
	/* So often that every index is used again, if there are not very many. */
	rounds = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_SPACES).value + 300;
	ku_context(&context, KU_CODE);
	first = old = ku_space();
	OK(KU_MAP(old, UVA, G0, 4096, KU_RW));
	OK(HC(KEEL_CALL_AS_DESTROY, old));
	no_such(old, false);
	for (u64 i = 0; i < (rounds < 10000 ? rounds : 10000); i++) {
		u64 as = ku_space();

		CHECK(as != old && as != first);
		same += (u32)as == (u32)old;
		if ((u32)as == (u32)old)
			CHECK(as >> 32 != old >> 32);
		CHECK_EQ(ku_query(as, UVA), 0); /* nothing of the one before */
		OK_VALUE(INFO(as, KEEL_AS_INFO_PAGES), 0);
		ERR_VALUE(INFO(old, 0), KEEL_STATUS(KEEL_E_NOENT, 1), 0);
		OK(KU_MAP(as, UVA, G0, 4096, KU_RW));
		OK_VALUE(HC(KEEL_CALL_AS_DESTROY, as), 0);
		ERR_VALUE(HC(KEEL_CALL_AS_DESTROY, as), KEEL_STATUS(KEEL_E_NOENT, 1), 0);
		old = as;
	}
	kt_note("an index came back at once %u times", same);
	no_such(old, false);
}

/* The limit itself: one space in each, and every one of them works. */
static u64 all[8192];

KEEL_TEST("AS-007", as_limit_spaces, "KEEL-AS-10 KEEL-BASE-10 KEEL-CALL-20", "neg ext=6 timeout=60", 0)
{
	u64 limit, n = 0;
	struct kt_ret r;

	ku_needed();
	limit = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_SPACES).value;
	CHECK(limit >= 1);
	REQUIRE(limit < sizeof(all) / 8);
	while (!(r = HC(KEEL_CALL_AS_CREATE, 0)).status && n < sizeof(all) / 8 - 1)
		all[n++] = r.value;
	CHECK_EQ(r.status, KEEL_STATUS(KEEL_E_NOMEM, 0));
	CHECK_EQ(r.value, 0);
	CHECK(n >= limit);
	kt_note("%lu spaces, limit %lu", n, limit);
	REFUSED(HC(KEEL_CALL_AS_CREATE, 0), KEEL_E_NOMEM, 0);
	REFUSED(HC(KEEL_CALL_AS_CLONE, all[n / 2], 0), KEEL_E_NOMEM, 0);
	OK_VALUE(INFO(all[n / 2], KEEL_AS_INFO_PAGES), 0);
	for (u64 i = 0; i < n; i += 17) {
		OK(KU_MAP(all[i], UVA, G0 + i % 512 * 4096, 4096, KU_RW));
		CHECK_EQ(ku_query(all[i], UVA), (G0 + i % 512 * 4096) | KU_RW);
	}
	OK(HC(KEEL_CALL_AS_DESTROY, all[n - 1])); /* makes room for one */
	all[n - 1] = ku_space();
	REFUSED(HC(KEEL_CALL_AS_CREATE, 0), KEEL_E_NOMEM, 0);
	for (u64 i = 0; i < n; i++)
		OK(HC(KEEL_CALL_AS_DESTROY, all[i]));
	for (u64 i = 0; i < n; i++)
		all[i] = ku_space();
}

/* A page in every 2 MiB costs a table each. Until NOMEM; how many. */
static u64 fill_tables(u64 as, u64 most)
{
	u64 n = 0;
	struct kt_ret r = { 0, 0 };

	while (n < most && !(r = KU_MAP(as, KT_VA + n * (2ull << 20), G0, 4096, KU_RW)).status)
		n++;
	if (n < most)
		CHECK_EQ(r.status, KEEL_STATUS(KEEL_E_NOMEM, 0));
	return n;
}

KEEL_TEST("AS-008", as_limit_tables, "KEEL-AS-10 KEEL-AS-16 KEEL-MMU-26", "neg ext=6 timeout=60", 0)
{
	u64 tables, used = 0, a, b, n, m;

	ku_needed();
	tables = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_AS_TABLES).value;
	a = watch(ku_space());
	b = watch(ku_space());
	n = fill_tables(a, tables / 2);
	m = fill_tables(b, tables + 1);
	CHECK(m < tables); /* one limit for all */
	used = INFO(a, KEEL_AS_INFO_TABLES).value + INFO(b, KEEL_AS_INFO_TABLES).value +
	       INFO(0, KEEL_AS_INFO_TABLES).value;
	CHECK(used <= tables);
	CHECK(INFO(a, KEEL_AS_INFO_TABLES).value >= n && INFO(b, KEEL_AS_INFO_TABLES).value >= m);
	kt_note("%lu and %lu tables, %lu in use of %lu", n, m, used, tables);
	rec = (struct keel_mmu_record){
		.op = KEEL_MMU_MAP, .prot = 3, .va = KT_VA + (1ull << 44), .gpa = G0, .len = 4096
	};
	REFUSED(HC(KEEL_CALL_MMU_BATCH, b, kt_gpa(&rec), 1, 0), KEEL_E_NOMEM, 0);
	REFUSED(HC(KEEL_CALL_MMU_BATCH, a, kt_gpa(&rec), 1, 0), KEEL_E_NOMEM, 0);
	REFUSED(HC(KEEL_CALL_MMU_BATCH, 0, kt_gpa(&rec), 1, 0), KEEL_E_NOMEM, 0);
	/* What is mapped goes on working, and a page where a table is can be mapped. */
	CHECK_EQ(ku_query(a, KT_VA), G0 | KU_RW);
	CHECK_EQ(ku_query(b, KT_VA + (m - 1) * (2ull << 20)), G0 | KU_RW);
	OK(KU_MAP(a, KT_VA + 4096, G0, 4096, KU_RW));
	/* Destroying the one gives the other room at once. */
	OK(HC(KEEL_CALL_AS_DESTROY, a));
	watched[0] = b;
	for (u64 i = 0; i + 8 < n; i++)
		if (!OK(KU_MAP(b, KT_VA + (m + i) * (2ull << 20), G0, 4096, KU_RW)))
			break;
	ku_destroy(b);
	watching = 0;
	OK(MAP(KT_VA, G0, 4096, KU_RW));
	OK(UNMAP(KT_VA, 4096));
}

KEEL_TEST("AS-009", as_isolated, "KEEL-AS-11", "neg ext=6", 0)
{
	u64 as[3];

	ku_needed();
	for (u32 i = 0; i < 3; i++)
		as[i] = ku_space();
	for (u32 i = 0; i < 3; i++) {
		OK(KU_MAP(as[i], UVA + i * 8192, G0 + i * 4096, 4096, KU_RW));
		OK(KU_MAP(as[i], UVA + (1 << 20), G0 + i * 4096, 4096, i ? KEEL_PROT_R : KU_RX)); /* the same address */
	}
	for (u32 i = 0; i < 3; i++) {
		for (u32 k = 0; k < 3; k++)
			CHECK_EQ(ku_query(as[i], UVA + k * 8192), i == k ? (G0 + i * 4096) | KU_RW : 0);
		CHECK_EQ(ku_query(as[i], UVA + (1 << 20)), (G0 + i * 4096) | (i ? KEEL_PROT_R : KU_RX));
		OK_VALUE(INFO(as[i], KEEL_AS_INFO_PAGES), 2);
	}
	CHECK_EQ(kt_query(UVA), 0);
	CHECK(kt_probe_read(UVA)); /* nor does the kernel see any of it */
	CHECK(kt_probe_read(UVA + (1 << 20)));
	OK(KU_UNMAP(as[1], UVA, 2 << 20));
	OK_VALUE(INFO(as[1], KEEL_AS_INFO_PAGES), 0);
	CHECK_EQ(ku_query(as[0], UVA), G0 | KU_RW);
	CHECK_EQ(ku_query(as[2], UVA + 2 * 8192), (G0 + 2 * 4096) | KU_RW);
	OK(KU_PROTECT(as[0], UVA, 4096, KEEL_PROT_R));
	CHECK_EQ(ku_query(as[2], UVA + (1 << 20)), (G0 + 2 * 4096) | KEEL_PROT_R);
	/* What the kernel maps is not theirs. */
	OK(MAP(KT_VA, G0, 65536, KU_RW));
	for (u32 i = 0; i < 3; i++)
		CHECK_EQ(ku_query(as[i], KT_VA), 0);
}

KEEL_TEST("AS-010", as_whole_range, "KEEL-AS-11 KEEL-AS-01 KEEL-AS-03", "neg ext=6", 0)
{
	static const u64 in[] = { KEEL_VA_MIN, KEEL_VA_END - 4096, 0x400000, KT_LINEAR, 0x7fffff000, 0x8000000000 };
	static const u64 out[] = { 0,	    KEEL_VA_MIN - 4096, KEEL_VA_END, 0x7f0100000000, 0x7fffffffe000, 1ull << 47,
				   -4096ull };
	u64 as;

	ku_needed();
	as = watch(ku_space());
	for (size_t i = 0; i < sizeof(in) / 8; i++) {
		OK(KU_MAP(as, in[i], G0 + i * 4096, 4096, KU_RW));
		CHECK_EQ(ku_query(as, in[i]), (G0 + i * 4096) | KU_RW);
	}
	for (size_t i = 0; i < sizeof(out) / 8; i++) {
		rec = (struct keel_mmu_record){ .op = KEEL_MMU_MAP, .prot = 3, .va = out[i], .gpa = G0, .len = 4096 };
		REFUSED(HC(KEEL_CALL_MMU_BATCH, as, kt_gpa(&rec), 1, 0), KEEL_E_RANGE, FIELD(4));
		REFUSED(HC(KEEL_CALL_MMU_QUERY, as, out[i]), KEEL_E_RANGE, ARG(2));
		REFUSED(HC(KEEL_CALL_HARVEST_START, as, out[i], 4096, KEEL_HARVEST_DIRTY), KEEL_E_RANGE, ARG(2));
	}
	OK_VALUE(INFO(as, KEEL_AS_INFO_PAGES), sizeof(in) / 8);
}

USER_CODE(copy_words, "1:	mov (%rdi), %rax\n"
		      "	mov %rax, (%rsi)\n"
		      "	syscall\n"
		      "	jmp 1b\n");

/* User code reads the word at from and writes it to to. */
static u64 user_copy(u64 as, u64 from, u64 to)
{
	ku_context(&context, KU_CODE);
	context.u.rdi = from;
	context.u.rsi = to;
	if (!CHECK_EQ(ku_run(as, &context), KEEL_USER_SYSCALL))
		kt_note("vector %u error %lx addr %lx", context.u.vector, context.u.error, context.u.addr);
	return context.u.rax;
}

KEEL_TEST("AS-011", as_same_bytes, "KEEL-AS-12 KEEL-AS-11 KEEL-USER-12", "ext=6", 0)
{
	u64 as[16];

	ku_needed();
	for (u32 i = 0; i < 16; i++) {
		as[i] = ku_make(KU_GPA + i * KU_PAGES * 4096, KU(copy_words));
		OK(KU_MAP(as[i], UVA + i * 65536, G0, 4096, i & 1 ? KU_RW : KEEL_PROT_R));
	}
	for (u32 i = 0; i < 16; i++) {
		*(volatile u64 *)kt_ram(G0) = 0x1000 + i;
		for (u32 k = 0; k < 16; k++)
			CHECK_EQ(user_copy(as[k], UVA + k * 65536, KU_DATA), 0x1000 + i);
		/* One writes, all see it. */
		*(volatile u64 *)kt_ram(KU_DATA_AT(KU_GPA + (i | 1) * KU_PAGES * 4096)) = 0x2000 + i;
		user_copy(as[i | 1], KU_DATA, UVA + (i | 1) * 65536);
		CHECK_EQ(*(volatile u64 *)kt_ram(G0), 0x2000 + i);
		CHECK_EQ(user_copy(as[0], UVA, KU_DATA), 0x2000 + i);
	}
}

KEEL_TEST("AS-012", as_abi_pages, "KEEL-AS-12 KEEL-MMU-20 KEEL-MMU-31", "neg ext=6", 0)
{
	const struct keel_abi_pages *p;
	u64 as;
	u32 size;

	ku_needed();
	p = kt_chunk(KEEL_CHUNK_ABI, &size);
	REQUIRE(p);
	as = watch(ku_make(KU_GPA, KU(copy_words)));
	for (u32 prot = 2; prot <= 7; prot++) {
		rec = (struct keel_mmu_record){
			.op = KEEL_MMU_MAP, .prot = (u16)prot, .va = UVA, .gpa = p->clock_gpa, .len = 4096
		};
		REFUSED(HC(KEEL_CALL_MMU_BATCH, as, kt_gpa(&rec), 1, 0), KEEL_E_FAULT, FIELD(5));
	}
	OK(KU_MAP(as, UVA, p->start_gpa, 4096, KEEL_PROT_R));
	CHECK_EQ(user_copy(as, UVA, KU_DATA), *(const u64 *)kt_start);
	rec = (struct keel_mmu_record){ .op = KEEL_MMU_PROTECT, .prot = 3, .va = UVA, .len = 4096 };
	REFUSED(HC(KEEL_CALL_MMU_BATCH, as, kt_gpa(&rec), 1, 0), KEEL_E_FAULT, FIELD(2));
	/* Not to be written from there either. */
	ku_context(&context, KU_CODE);
	context.u.rdi = KU_DATA;
	context.u.rsi = UVA;
	CHECK_EQ(ku_run(as, &context), KEEL_USER_EXCEPTION);
	CHECK_EQ(context.u.vector, KEEL_VEC_PF);
	CHECK_EQ(context.u.error, KEEL_PF_P | KEEL_PF_W | KEEL_PF_U);
	CHECK_EQ(kt_start->magic, KEEL_START_MAGIC);
}

KEEL_TEST("AS-013", as_clone, "KEEL-AS-13 KEEL-AS-18", "ext=6", 0)
{
	static const u32 prot[] = { KEEL_PROT_R, KU_RW, KU_RX, KEEL_PROT_ALL, KEEL_PROT_W, KEEL_PROT_X };
	u64 a, b;
	struct kt_ret r;

	ku_needed();
	a = ku_make(KU_GPA, KU(copy_words));
	for (u32 i = 0; i < 6; i++)
		OK(KU_MAP(a, UVA + i * 4096, G0 + i * 4096, 4096, prot[i]));
	OK(KU_MAP(a, KEEL_VA_END - 4096, G0, 4096, KU_RW));
	OK(KU_MAP(a, KEEL_VA_MIN, G0 + 4096, 4096, KEEL_PROT_R));
	r = ku_clone(a, 0);
	if (!OK(r))
		return;
	b = r.value;
	CHECK(b && !(b >> 63) && (u32)b != (u32)a);
	for (u32 i = 0; i < 6; i++) {
		u64 want = (G0 + i * 4096) | ((prot[i] & ~(u32)KEEL_PROT_W) | KEEL_PROT_R);

		CHECK_EQ(ku_query(a, UVA + i * 4096), want);
		CHECK_EQ(ku_query(b, UVA + i * 4096), want);
	}
	CHECK_EQ(ku_query(b, KEEL_VA_END - 4096), G0 | KEEL_PROT_R);
	CHECK_EQ(ku_query(b, KEEL_VA_MIN), (G0 + 4096) | KEEL_PROT_R);
	CHECK_EQ(ku_query(b, UVA + 6 * 4096), 0);
	CHECK_EQ(ku_info(a, KEEL_AS_INFO_PAGES), ku_info(b, KEEL_AS_INFO_PAGES));
	/* Neither can write, in user code either; a write is a fault with P. */
	for (u32 i = 0; i < 2; i++) {
		ku_context(&context, KU_CODE);
		context.u.rdi = KU_DATA;
		context.u.rsi = KU_DATA + 8;
		CHECK_EQ(ku_run(i ? b : a, &context), KEEL_USER_EXCEPTION);
		CHECK_EQ(context.u.vector, KEEL_VEC_PF);
		CHECK_EQ(context.u.error, KEEL_PF_P | KEEL_PF_W | KEEL_PF_U);
		CHECK_EQ(context.u.addr, KU_DATA + 8);
	}
	/* From then on they are two: what is done to one is not done to the other. */
	OK(KU_PROTECT(b, KU_DATA, KU_DATA_PAGES * 4096, KU_RW));
	CHECK_EQ(ku_query(a, KU_DATA) & 7, KEEL_PROT_R);
	*(volatile u64 *)kt_ram(KU_DATA_AT(KU_GPA)) = 77;
	CHECK_EQ(user_copy(b, KU_DATA, KU_DATA + 8), 77);
	OK(KU_UNMAP(a, UVA, 6 * 4096));
	CHECK_EQ(ku_query(b, UVA), G0 | KEEL_PROT_R);
	ku_destroy(a);
	CHECK_EQ(user_copy(b, KU_DATA, KU_DATA + 8), 77);
	CHECK_EQ(ku_query(b, UVA), G0 | KEEL_PROT_R);
	/* An empty one, and a copy of a copy. */
	a = ku_space();
	r = ku_clone(a, 0);
	OK(r);
	OK_VALUE(INFO(r.value, KEEL_AS_INFO_PAGES), 0);
	r = ku_clone(b, 0);
	OK(r);
	CHECK_EQ(ku_query(r.value, UVA), G0 | KEEL_PROT_R);
	CHECK_EQ(ku_query(r.value, KU_DATA) & 7, KEEL_PROT_R);
}

KEEL_TEST("AS-014", as_clone_bad, "KEEL-AS-13 KEEL-CALL-07 KEEL-CALL-09", "neg ext=6", 0)
{
	u64 as;

	ku_needed();
	as = watch(ku_space());
	OK(KU_MAP(as, UVA, G0, 8 * 4096, KU_RW));
	for (int b = 1; b < 64; b++) {
		REFUSED_BIT(HC(KEEL_CALL_AS_CLONE, as, 1ull << b), KEEL_E_INVAL, ARG(2), b);
		REFUSED_BIT(HC(KEEL_CALL_AS_CLONE, as, 1 | 1ull << b), KEEL_E_INVAL, ARG(2), b);
	}
	REFUSED_BIT(HC(KEEL_CALL_AS_CLONE, 0, 2), KEEL_E_INVAL, ARG(2), 1); /* form before what it names */
	REFUSED(HC(KEEL_CALL_AS_CLONE, 0, 0), KEEL_E_NOENT, ARG(1));
	REFUSED(HC(KEEL_CALL_AS_CLONE, 0, 1), KEEL_E_NOENT, ARG(1));
	REFUSED(INFO(as, KEEL_AS_INFO_COUNT), KEEL_E_RANGE, ARG(2));
	REFUSED(INFO(as, 0x100000000), KEEL_E_RANGE, ARG(2));
	REFUSED(INFO(as, ~0ull), KEEL_E_RANGE, ARG(2));
	REFUSED(INFO(as + 1, KEEL_AS_INFO_COUNT), KEEL_E_RANGE, ARG(2));
	REFUSED(INFO(0, KEEL_AS_INFO_COUNT), KEEL_E_RANGE, ARG(2));
}

KEEL_TEST("AS-015", as_clone_share, "KEEL-AS-13 KEEL-AS-12", "ext=6", 0)
{
	u64 a, b;
	struct kt_ret r;

	ku_needed();
	a = ku_make(KU_GPA, KU(copy_words));
	OK(KU_MAP(a, UVA, G0, 4096, KEEL_PROT_R));
	OK(KU_MAP(a, UVA + 4096, G0 + 4096, 4096, KEEL_PROT_ALL));
	r = ku_clone(a, KEEL_AS_CLONE_SHARE);
	if (!OK(r))
		return;
	b = r.value;
	CHECK_EQ(ku_query(a, KU_DATA), KU_DATA_AT(KU_GPA) | KU_RW);
	CHECK_EQ(ku_query(b, KU_DATA), KU_DATA_AT(KU_GPA) | KU_RW);
	CHECK_EQ(ku_query(b, UVA), G0 | KEEL_PROT_R);
	CHECK_EQ(ku_query(b, UVA + 4096), (G0 + 4096) | KEEL_PROT_ALL);
	for (u64 i = 1; i < 50; i++) {
		u64 from = i & 1 ? a : b, to = i & 1 ? b : a;

		*(volatile u64 *)kt_ram(KU_DATA_AT(KU_GPA)) = i;
		CHECK_EQ(user_copy(from, KU_DATA, KU_DATA + 16), i);
		CHECK_EQ(user_copy(to, KU_DATA + 16, KU_DATA + 24), i);
	}
}

/* A space of very many mappings of little memory; returns how many pages. */
static u64 make_large(u64 as, u64 pages)
{
	u64 n = 0;

	for (; n < pages; n += 1024)
		if (!OK(KU_MAP(as, UVA + n * 4096, G0, 1024 * 4096, KU_RW)))
			break;
	return n;
}

KEEL_TEST("AS-016", as_clone_in_steps, "KEEL-AS-14 KEEL-AS-13 KEEL-CALL-17", "neg ext=6 timeout=30", 0)
{
	u64 a, b, pages, again = 0;
	struct kt_ret r;

	ku_needed();
	a = ku_space();
	pages = make_large(a, 256 * 1024 / (kt_scale > 100 ? 8 : 1));
	for (;;) {
		r = HC(KEEL_CALL_AS_CLONE, a, 0);
		if (r.status != KEEL_STATUS(KEEL_E_AGAIN, 0))
			break;
		CHECK_EQ(r.value, 0);
		if (again++ < 3) {
			/* Meanwhile the space is there, works, and cannot be copied in another way. */
			ERR_VALUE(HC(KEEL_CALL_AS_CLONE, a, KEEL_AS_CLONE_SHARE), KEEL_STATUS(KEEL_E_BUSY, 1), 0);
			OK_VALUE(INFO(a, KEEL_AS_INFO_PAGES), pages);
			CHECK_EQ(ku_query(a, UVA + 4096) & ~7ull, G0 + 4096);
		}
		if (again == 1) {
			/* Changed meanwhile: as it was or as it is. */
			OK(KU_UNMAP(a, UVA + (pages - 1) * 4096, 4096));
			pages--;
			OK(KU_MAP(a, UVA + (pages - 1) * 4096, G0 + 0x1000, 4096, KEEL_PROT_R));
		}
		REQUIRE(again < 1000000);
	}
	if (!OK(r))
		return;
	b = r.value;
	kt_note("%lu calls for %lu pages", again + 1, pages);
	for (u64 i = 0; i + 4 < pages; i += 97) {
		CHECK_EQ(ku_query(a, UVA + i * 4096), (G0 + i % 1024 * 4096) | KEEL_PROT_R);
		CHECK_EQ(ku_query(b, UVA + i * 4096), (G0 + i % 1024 * 4096) | KEEL_PROT_R);
	}
	r = HC(KEEL_CALL_MMU_QUERY, b, UVA + (pages - 1) * 4096);
	CHECK(r.value == ((G0 + (pages - 1) % 1024 * 4096) | KEEL_PROT_R) || r.value == ((G0 + 0x1000) | KEEL_PROT_R));
	ku_destroy(a);
	ku_destroy(b);
	/* One begun and given up by destroying its source leaves nothing. */
	for (int k = 0; k < 3; k++) {
		u64 before = ku_info(0, KEEL_AS_INFO_TABLES);

		a = ku_space();
		make_large(a, 64 * 1024);
		r = HC(KEEL_CALL_AS_CLONE, a, KEEL_AS_CLONE_SHARE);
		ku_destroy(a);
		if (!r.status)
			ku_destroy(r.value);
		CHECK_EQ(ku_info(0, KEEL_AS_INFO_TABLES), before);
	}
}

KEEL_TEST("AS-017", as_clone_no_tables, "KEEL-AS-15 KEEL-AS-10", "neg ext=6 timeout=60", 0)
{
	u64 tables, a, n, full, room = 0;
	struct kt_ret r;

	ku_needed();
	tables = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_AS_TABLES).value;
	a = ku_space();
	n = fill_tables(a, tables * 5 / 8);
	full = ku_info(a, KEEL_AS_INFO_TABLES);
	for (int k = 0; k < 4; k++) {
		r = ku_clone(a, 0);
		ERR_VALUE(r, KEEL_STATUS(KEEL_E_NOMEM, 0), 0);
		OK_VALUE(INFO(a, KEEL_AS_INFO_PAGES), n);
		OK_VALUE(INFO(a, KEEL_AS_INFO_TABLES), full);
		for (u64 i = 0; i < n; i += 37) {
			u64 q = ku_query(a, KT_VA + i * (2ull << 20));

			CHECK(q == (G0 | KU_RW) || q == (G0 | KEEL_PROT_R));
		}
	}
	/* Nothing of the copy remains: all its tables can be had again, and a source half the size can be copied. */
	u64 b = ku_space();

	room = fill_tables(b, tables);
	CHECK(room + full + ku_info(0, KEEL_AS_INFO_TABLES) + 64 > tables);
	kt_note("%lu tables of a space, %lu to be had beside", full, room);
	ku_destroy(b);
	OK(KU_UNMAP(a, KT_VA + n / 4 * (2ull << 20), n * (2ull << 20)));
	r = ku_clone(a, 0);
	OK(r);
	OK_VALUE(INFO(r.value, KEEL_AS_INFO_PAGES), n / 4);
}

KEEL_TEST("AS-018", as_destroy, "KEEL-AS-16 KEEL-CALL-17", "ext=6 timeout=60", 0)
{
	u64 tables, made = 0, as, small = ~0ull, large = 0;

	ku_needed();
	tables = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_AS_TABLES).value;
	kt_poison(G0, 1 << 20, 9);
	u64 h = kt_hash(1, kt_ram(G0), 1 << 20);

	/* Many times more tables than there are. */
	for (u64 round = 0; made < 3 * tables && round < 400; round++) {
		u64 begun, took;

		as = ku_space();
		made += fill_tables(as, round & 1 ? 2 : tables / 2);
		begun = kt_now();
		OK_VALUE(HC(KEEL_CALL_AS_DESTROY, as), 0); /* nobody runs in it: at once */
		took = kt_now() - begun;
		if (round & 1)
			small = took < small ? took : small;
		else
			large = took > large ? took : large;
	}
	kt_note("destroying a small space takes %lu ns, the largest %lu ns", small, large);
	CHECK(large < 100000000 * kt_slow());
	CHECK_EQ(kt_hash(1, kt_ram(G0), 1 << 20), h); /* RAM keeps its contents */
}

KEEL_TEST("AS-019", as_info, "KEEL-AS-18", "ext=6", 0)
{
	u64 as, t0, pages0;

	ku_needed();
	pages0 = ku_info(0, KEEL_AS_INFO_PAGES);
	CHECK(pages0 >= kt_ram_size() / 4096); /* the linear map */
	CHECK(ku_info(0, KEEL_AS_INFO_TABLES) >= 4);
	OK_VALUE(INFO(0, KEEL_AS_INFO_RUNNING), 0);
	OK(MAP(KT_VA, G0, 7 * 4096, KU_RW));
	OK_VALUE(INFO(0, KEEL_AS_INFO_PAGES), pages0 + 7);
	OK(UNMAP(KT_VA, 3 * 4096));
	OK_VALUE(INFO(0, KEEL_AS_INFO_PAGES), pages0 + 4);
	as = ku_space();
	t0 = ku_info(as, KEEL_AS_INFO_TABLES);
	OK(KU_MAP(as, UVA, G0, 10 * 4096, KU_RW));
	OK_VALUE(INFO(as, KEEL_AS_INFO_PAGES), 10);
	CHECK(ku_info(as, KEEL_AS_INFO_TABLES) > t0);
	OK(KU_MAP(as, UVA + 5 * 4096, G0, 10 * 4096, KEEL_PROT_R)); /* five replaced, five new */
	OK_VALUE(INFO(as, KEEL_AS_INFO_PAGES), 15);
	OK(KU_PROTECT(as, UVA, 15 * 4096, KEEL_PROT_R));
	OK_VALUE(INFO(as, KEEL_AS_INFO_PAGES), 15);
	OK(KU_UNMAP(as, UVA - 65536, 16 * 4096 + 2 * 4096));
	OK_VALUE(INFO(as, KEEL_AS_INFO_PAGES), 13);
	OK(KU_MAP(as, 0x40000000, 0, 4 << 20, KEEL_PROT_R)); /* may be kept as large entries */
	OK_VALUE(INFO(as, KEEL_AS_INFO_PAGES), 13 + 1024);
	OK(KU_UNMAP(as, 0x40000000 + 4096, 4096));
	OK_VALUE(INFO(as, KEEL_AS_INFO_PAGES), 13 + 1023);
	OK(KU_UNMAP(as, 0x40000000, 4 << 20));
	OK(KU_UNMAP(as, UVA, 1 << 20));
	OK_VALUE(INFO(as, KEEL_AS_INFO_PAGES), 0);
}

/* The bit of a page in what harvest_collect wrote. */
static u64 collect(u64 as, u64 va, u64 pages, u64 *bits)
{
	struct kt_ret r = HC(KEEL_CALL_HARVEST_COLLECT, as, va, pages * 4096, kt_gpa(bits));

	OK(r);
	CHECK_EQ(r.value & 0xffffffff, pages);
	return r.value >> 32;
}

KEEL_TEST("AS-020", as_harvest, "KEEL-AS-11 KEEL-HARVEST-13", "ext=6", 0)
{
	static u64 bits[1] __attribute__((aligned(8)));
	u64 as, other;

	ku_needed();
	as = ku_make(KU_GPA, KU(copy_words));
	other = ku_make(KU_GPA + KU_PAGES * 4096, KU(copy_words));
	user_copy(as, KU_DATA, KU_DATA + 4096);
	OK_VALUE(HC(KEEL_CALL_HARVEST_START, as, KU_DATA, KU_DATA_PAGES * 4096, KEEL_HARVEST_DIRTY), KU_DATA_PAGES);
	for (u64 i = 0; i < 30; i++) {
		u64 page = i % KU_DATA_PAGES;

		user_copy(as, KU_DATA, KU_DATA + page * 4096 + 64); /* no trap of it is seen */
		user_copy(other, KU_DATA, KU_DATA + (page + 1) % KU_DATA_PAGES * 4096);
		collect(as, KU_DATA, KU_DATA_PAGES, bits);
		if (!(bits[0] >> page & 1))
			KT_FAIL("page %lu was written by user code, harvest has %lx", page, bits[0]);
	}
	OK(HC(KEEL_CALL_HARVEST_STOP, as, KU_DATA, KU_DATA_PAGES * 4096));
	user_copy(as, KU_DATA, KU_DATA + 128);
}

KEEL_TEST("AS-021", as_clone_untracked, "KEEL-AS-19 KEEL-HARVEST-08", "ext=6", 0)
{
	static u64 bits[1] __attribute__((aligned(8)));
	struct kt_ret r;
	u64 as, copy;

	ku_needed();
	as = ku_make(KU_GPA, KU(copy_words));
	OK_VALUE(HC(KEEL_CALL_HARVEST_START, as, KU_DATA, KU_DATA_PAGES * 4096, KEEL_HARVEST_DIRTY), KU_DATA_PAGES);
	collect(as, KU_DATA, KU_DATA_PAGES, bits);
	r = ku_clone(as, KEEL_AS_CLONE_SHARE);
	if (!OK(r))
		return;
	copy = r.value;
	/* Not tracked in the copy: all of it reads as written the first time. */
	CHECK_EQ(collect(copy, KU_DATA, KU_DATA_PAGES, bits), KU_DATA_PAGES);
	CHECK_EQ(bits[0], (1 << KU_DATA_PAGES) - 1);
	/* Tracked in the source as before. */
	user_copy(as, KU_DATA, KU_DATA + 3 * 4096);
	collect(as, KU_DATA, KU_DATA_PAGES, bits);
	CHECK(bits[0] & 8);
	user_copy(copy, KU_DATA, KU_DATA + 5 * 4096);
	collect(copy, KU_DATA, KU_DATA_PAGES, bits);
	CHECK(bits[0] & 32);
}

/* Random operations on several spaces against a model: what is mapped where. */
#define SPACES 5
#define PAGES 48
static u64 model[SPACES][PAGES], handle[SPACES], stale[64];

KEEL_TEST("AS-022", as_random_model, "KEEL-AS-08 KEEL-AS-11 KEEL-AS-13 KEEL-AS-16 KEEL-AS-18 KEEL-USER-20",
	  "ext=6 timeout=60", 0)
{
	u64 rounds = 4000 / kt_scale + 200, stales = 0;

	ku_needed();
	kt_note("seed %lu", kt_seed);
	for (u64 g = 0; g < 64; g++)
		*(u64 *)kt_ram(G0 + g * 4096) = g ^ 0xabcdef;
	for (u64 round = 0; round < rounds && !kt_fails; round++) {
		u64 s = kt_random_below(SPACES), first = kt_random_below(PAGES), n = 1 + kt_random_below(PAGES - first);
		u64 va = UVA + first * 4096, gpa = G0 + kt_random_below(16) * 4096;
		u32 prot = 1 + (u32)kt_random_below(7), flags = (u32)kt_random_below(2);
		struct kt_ret r;
		u64 to;

		if (!handle[s]) {
			handle[s] = ku_space();
			ku_code(KU_GPA + s * KU_PAGES * 4096, KU(copy_words));
			OK(KU_MAP(handle[s], KU_CODE, KU_GPA + s * KU_PAGES * 4096, 4096, KU_RX));
			OK(KU_MAP(handle[s], KU_DATA, KU_DATA_AT(KU_GPA + s * KU_PAGES * 4096), 4096, KU_RW));
		}
		switch (kt_random_below(8)) {
		case 0:
			OK(KU_UNMAP(handle[s], va, n * 4096));
			memset(&model[s][first], 0, n * 8);
			break;
		case 1: {
			u64 k = 0;

			r = KU_PROTECT(handle[s], va, n * 4096, prot);
			for (; k < n && model[s][first + k]; k++)
				model[s][first + k] = (model[s][first + k] & ~7ull) | prot | KEEL_PROT_R;
			CHECK_EQ(r.status, k == n ? 0 : KEEL_STATUS(KEEL_E_NOENT, FIELD(4)));
			break;
		}
		case 2:
			ku_destroy(handle[s]);
			stale[stales++ % 64] = handle[s];
			handle[s] = 0;
			memset(model[s], 0, sizeof(model[s]));
			continue;
		case 3:
			to = (s + 1) % SPACES;
			if (handle[to])
				ku_destroy(handle[to]);
			r = ku_clone(handle[s], flags);
			if (!OK(r))
				return;
			handle[to] = r.value;
			for (u64 i = 0; i < PAGES; i++) {
				if (!flags)
					model[s][i] &= ~(u64)KEEL_PROT_W;
				model[to][i] = model[s][i];
			}
			if (!flags) {
				OK(KU_PROTECT(handle[s], KU_DATA, 4096, KU_RW));
				OK(KU_PROTECT(handle[to], KU_DATA, 4096, KU_RW));
			}
			break;
		default:
			OK(ku_mmu(handle[s], KEEL_MMU_MAP, va, gpa, n * 4096, prot, flags));
			for (u64 k = 0; k < n; k++)
				model[s][first + k] = (gpa + k * 4096) | prot | KEEL_PROT_R;
		}
		if (stales)
			ERR_VALUE(INFO(stale[kt_random_below(stales < 64 ? stales : 64)], 0),
				  KEEL_STATUS(KEEL_E_NOENT, 1), 0);
		for (u64 k = 0; k < SPACES; k++) {
			if (!handle[k])
				continue;
			for (u64 i = round % 3; i < PAGES; i += 3)
				if (ku_query(handle[k], UVA + i * 4096) != model[k][i])
					KT_FAIL("round %lu space %lu page %lu: %lx, the model has %lx", round, k, i,
						ku_query(handle[k], UVA + i * 4096), model[k][i]);
		}
		/* What user code sees agrees, for a page or two. */
		for (int k = 0; k < 2; k++) {
			u64 i = kt_random_below(PAGES), q = model[s][i];

			ku_context(&context, KU_CODE);
			context.u.rdi = k ? KU_DATA : UVA + i * 4096;
			context.u.rsi = k ? UVA + i * 4096 + 4000 : KU_DATA;
			u32 reason = ku_run(handle[s], &context);
			bool may = k ? q & KEEL_PROT_W : q != 0;

			if (reason != (may ? KEEL_USER_SYSCALL : KEEL_USER_EXCEPTION))
				KT_FAIL("round %lu space %lu page %lu is %lx: %s by user code is %s, vector %u error %lx addr %lx",
					round, s, i, q, k ? "writing" : "reading", ku_reason(&context),
					context.u.vector, context.u.error, context.u.addr);
			else if (may && !k && context.u.rax != (((q & ~7ull) - G0) / 4096 ^ 0xabcdef))
				KT_FAIL("round %lu space %lu page %lu: user code reads another page", round, s, i);
			else if (!may &&
				 context.u.error != (k ? KEEL_PF_W | KEEL_PF_U | (q ? KEEL_PF_P : 0) : KEEL_PF_U))
				KT_FAIL("round %lu page %lu is %lx: error %lx", round, i, q, context.u.error);
		}
	}
}

KEEL_TEST("AS-023", as_unaccepted, "KEEL-AS-07 KEEL-USER-01 KEEL-BASE-09", "neg ext=6", KT_EARLY)
{
	static const u64 id[] = { KEEL_CALL_AS_CREATE, KEEL_CALL_AS_CLONE, KEEL_CALL_AS_DESTROY, KEEL_CALL_AS_INFO,
				  KEEL_CALL_USER_ENTER };

	ku_needed();
	for (size_t i = 0; i < sizeof(id) / 8; i++) {
		NEG(HC(id[i]), KEEL_E_STATE, 0);
		NEG(HC(id[i], 1, 1, 1, 1, 1), KEEL_E_STATE, 0);
	}
	OK(HC(KEEL_CALL_BASE_ACCEPT, 0, 1 << KEEL_EXT_MMU));
	kt_freeze();
	for (size_t i = 0; i < sizeof(id) / 8; i++) {
		NEG(HC(id[i]), KEEL_E_NOTSUP, 0);
		NEG(HC(id[i], 1, 1, 1, 1, 1), KEEL_E_NOTSUP, 0);
	}
	NEG(HC(KEEL_CALL_MMU_QUERY, 1ull << 32 | 1, KT_VA), KEEL_E_NOENT, ARG(1));
}
