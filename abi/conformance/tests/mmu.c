// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* MMU, and AS: batched range updates of address space 0. */
#include "kt.h"

#define RW (KEEL_PROT_R | KEEL_PROT_W)
#define RX (KEEL_PROT_R | KEEL_PROT_X)
#define G0 KT_SCRATCH_GPA

static struct keel_mmu_record rec[512] __attribute__((aligned(4096)));
#define REC_GPA kt_gpa(rec)

static struct kt_ret batch(u64 n)
{
	return HC(KEEL_CALL_MMU_BATCH, 0, REC_GPA, n, 0);
}

static struct keel_mmu_record map(u64 va, u64 gpa, u64 len, u32 prot)
{
	return (struct keel_mmu_record){ .op = KEEL_MMU_MAP, .prot = (u16)prot, .va = va, .gpa = gpa, .len = len };
}

static struct keel_mmu_record unmap(u64 va, u64 len)
{
	return (struct keel_mmu_record){ .op = KEEL_MMU_UNMAP, .va = va, .len = len };
}

static struct keel_mmu_record protect(u64 va, u64 len, u32 prot)
{
	return (struct keel_mmu_record){ .op = KEEL_MMU_PROTECT, .prot = (u16)prot, .va = va, .len = len };
}

static u8 peek(u64 va)
{
	return *(volatile u8 *)va;
}

KEEL_TEST("MMU-001", mmu_map, "KEEL-MMU-01 KEEL-MMU-28 KEEL-NORM-10", "", 0)
{
	OK_VALUE(MAP(KT_VA, G0, 8 * 4096, RW), 1);
	for (u64 i = 0; i < 8; i++) {
		CHECK_EQ(kt_query(KT_VA + i * 4096), (G0 + i * 4096) | RW);
		*(volatile u64 *)(KT_VA + i * 4096 + 8) = i + 0x100;
		CHECK_EQ(*(u64 *)kt_ram(G0 + i * 4096 + 8), i + 0x100);
	}
	CHECK_EQ(kt_traps, 0);
	CHECK_EQ(kt_query(KT_VA + 8 * 4096), 0);
	CHECK_EQ(kt_query(KT_VA - 4096), 0);
	CHECK(kt_probe_read(KT_VA + 8 * 4096));
}

KEEL_TEST("MMU-002", mmu_map_replaces, "KEEL-MMU-01 KEEL-MMU-04", "", 0)
{
	kt_poison(G0, 65536, 1);
	kt_poison(G0 + 65536, 65536, 2);
	OK(MAP(KT_VA, G0, 65536, RW));
	CHECK(!memcmp((void *)KT_VA, kt_ram(G0), 65536));
	OK(MAP(KT_VA + 8192, G0 + 65536, 8192, KEEL_PROT_R));
	CHECK(!memcmp((void *)(KT_VA + 8192), kt_ram(G0 + 65536), 8192));
	CHECK(!memcmp((void *)KT_VA, kt_ram(G0), 8192));
	CHECK(!memcmp((void *)(KT_VA + 16384), kt_ram(G0 + 16384), 65536 - 16384));
	CHECK(kt_probe_write(KT_VA + 8192, 0));
	CHECK(!kt_probe_write(KT_VA, 0));
	CHECK(!kt_probe_write(KT_VA + 16384, 0));
	CHECK_EQ(kt_query(KT_VA + 8192), (G0 + 65536) | KEEL_PROT_R);
}

KEEL_TEST("MMU-003", mmu_unmap, "KEEL-MMU-02 KEEL-MMU-04 KEEL-AS-04", "neg", 0)
{
	OK(MAP(KT_VA, G0, 16 * 4096, RW));
	/* So that each is in the cache: what brings a page in may empty a TLB, so once more when all are there. */
	for (u64 i = 0; i < 32; i++)
		*(volatile u8 *)(KT_VA + i % 16 * 4096) = 1;
	OK_VALUE(UNMAP(KT_VA + 4096, 3 * 4096), 1);
	for (u64 i = 0; i < 16; i++) {
		bool gone = i >= 1 && i < 4;

		CHECK_EQ(kt_probe_read(KT_VA + i * 4096), gone);
		CHECK_EQ(kt_query(KT_VA + i * 4096), gone ? 0 : (G0 + i * 4096) | RW);
		if (gone) {
			CHECK_EQ(kt_trap_frame.vector, KEEL_VEC_PF);
			CHECK_EQ(kt_trap_frame.error, 0);
			CHECK_EQ(kt_trap_frame.addr, KT_VA + i * 4096);
		}
	}
	CHECK_EQ(*(u8 *)kt_ram(G0 + 4096), 1); /* the page itself stays */
}

KEEL_TEST("MMU-004", mmu_unmap_holes, "KEEL-MMU-02", "", 0)
{
	OK(UNMAP(KT_VA, 1 << 20)); /* nothing there at all */
	OK(MAP(KT_VA + 0x5000, G0, 4096, RW));
	OK(MAP(KT_VA + 0x9000, G0 + 4096, 4096, KEEL_PROT_R));
	OK(UNMAP(KT_VA, 0x20000));
	CHECK_EQ(kt_query(KT_VA + 0x5000), 0);
	CHECK_EQ(kt_query(KT_VA + 0x9000), 0);
	CHECK(kt_probe_read(KT_VA + 0x5000));
	CHECK(kt_probe_read(KT_VA + 0x9000));
}

KEEL_TEST("MMU-005", mmu_protect, "KEEL-MMU-03 KEEL-MMU-04 KEEL-NORM-02 KEEL-NORM-05", "", 0)
{
	OK(MAP(KT_VA, G0, 4 * 4096, RW));
	memcpy((void *)KT_VA, kt_code, (size_t)(kt_code_end - kt_code));
	for (u64 i = 1; i < 4; i++)
		*(volatile u8 *)(KT_VA + i * 4096) = (u8)i;
	OK_VALUE(PROTECT(KT_VA, 2 * 4096, KEEL_PROT_R), 1);
	CHECK_EQ(kt_query(KT_VA), G0 | KEEL_PROT_R);
	CHECK_EQ(kt_query(KT_VA + 8192), (G0 + 8192) | RW);
	CHECK(kt_probe_write(KT_VA, 0));
	CHECK_EQ(kt_trap_frame.error, KEEL_PF_P | KEEL_PF_W);
	CHECK(kt_probe_write(KT_VA + 4096, 0));
	CHECK(!kt_probe_write(KT_VA + 8192, 7));
	CHECK_EQ(peek(KT_VA + 4096), 1);
	CHECK(kt_probe_exec(KT_VA));
	CHECK_EQ(kt_trap_frame.error, KEEL_PF_P | KEEL_PF_X);
	OK(PROTECT(KT_VA, 4096, RX));
	CHECK(!kt_probe_exec(KT_VA));
	CHECK(kt_probe_write(KT_VA, 0));
	OK(PROTECT(KT_VA, 4096, RW));
	CHECK(!kt_probe_write(KT_VA, kt_code[0]));
	CHECK(kt_probe_exec(KT_VA));
}

KEEL_TEST("MMU-006", mmu_batch_order, "KEEL-MMU-01 KEEL-MMU-06 KEEL-MMU-07", "", 0)
{
	u32 n = 0;

	rec[n++] = map(KT_VA, G0, 4 * 4096, RW);
	rec[n++] = unmap(KT_VA + 4096, 4096);
	rec[n++] = map(KT_VA + 4096, G0 + 0x10000, 4096, KEEL_PROT_R);
	rec[n++] = protect(KT_VA, 2 * 4096, RX);
	rec[n++] = unmap(KT_VA + 3 * 4096, 4096);
	OK_VALUE(batch(n), n);
	CHECK_EQ(kt_query(KT_VA), G0 | RX);
	CHECK_EQ(kt_query(KT_VA + 4096), (G0 + 0x10000) | RX);
	CHECK_EQ(kt_query(KT_VA + 8192), (G0 + 8192) | RW);
	CHECK_EQ(kt_query(KT_VA + 3 * 4096), 0);
}

KEEL_TEST("MMU-007", mmu_record_bound, "KEEL-MMU-05 KEEL-MMU-06 KEEL-MMU-07 KEEL-CALL-17", "", 0)
{
	u64 limit = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_MMU_RECORDS).value;
	u64 done = 0, n = 300;

	for (u64 i = 0; i < n; i++)
		rec[i] = map(KT_VA + i * 8192, G0 + (i ^ 1) * 4096, 4096, RW);
	while (done < n) {
		struct kt_ret r = HC(KEEL_CALL_MMU_BATCH, 0, REC_GPA + done * sizeof(rec[0]), n - done, 0);

		if (!OK(r))
			break;
		CHECK(r.value > 0 && r.value <= limit);
		CHECK_EQ(KEEL_MMU_DONE_PAGES(r.value), 0); /* single pages are never split */
		done += r.value;
		CHECK_EQ(kt_query(KT_VA + (done - 1) * 8192), (G0 + ((done - 1) ^ 1) * 4096) | RW);
		if (done < n)
			CHECK_EQ(kt_query(KT_VA + done * 8192), 0);
		if (!r.value)
			break;
	}
	for (u64 i = 0; i < n; i++)
		CHECK_EQ(kt_query(KT_VA + i * 8192), (G0 + (i ^ 1) * 4096) | RW);
}

KEEL_TEST("MMU-008", mmu_page_bound, "KEEL-MMU-05 KEEL-MMU-06 KEEL-MMU-07", "", 0)
{
	u64 limit = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_MMU_PAGES).value;
	u64 pages = 2560, done = 0;
	struct keel_mmu_record all[3] = { map(KT_VA, G0, pages * 4096, RW), protect(KT_VA, pages * 4096, KEEL_PROT_R),
					  unmap(KT_VA, pages * 4096) };

	for (int k = 0; k < 3; k++) {
		for (done = 0; done < pages;) {
			struct kt_ret r;
			u64 step;

			rec[0] = all[k];
			rec[0].va += done * 4096;
			rec[0].len -= done * 4096;
			if (rec[0].op == KEEL_MMU_MAP)
				rec[0].gpa += done * 4096;
			r = batch(1);
			if (!OK(r))
				return;
			step = KEEL_MMU_DONE_RECORDS(r.value) ? pages - done : KEEL_MMU_DONE_PAGES(r.value);
			CHECK(step >= 1 && step <= limit);
			if (!step)
				return;
			done += step;
			/* The edge is where it was said to be. */
			if (done < pages) {
				u64 at = KT_VA + done * 4096, was = kt_query(at - 4096), next = kt_query(at);

				CHECK_EQ(was, k == 0   ? (G0 + (done - 1) * 4096) | RW
					      : k == 1 ? (G0 + (done - 1) * 4096) | KEEL_PROT_R
						       : 0);
				CHECK_EQ(next, k == 0 ? 0 : (G0 + done * 4096) | (k == 1 ? RW : KEEL_PROT_R));
			}
		}
		CHECK_EQ(done, pages);
	}
}

KEEL_TEST("MMU-009", mmu_page_bound_across, "KEEL-MMU-05 KEEL-MMU-06", "", 0)
{
	u64 limit = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_MMU_PAGES).value;
	struct kt_ret r;

	/* The bound falls into the third record. */
	rec[0] = map(KT_VA, G0, limit / 2 * 4096, RW);
	rec[1] = map(KT_VA + (1ull << 30), G0, limit / 4 * 4096, RW);
	rec[2] = map(KT_VA + (2ull << 30), G0, limit * 4096, RW);
	rec[3] = map(KT_VA + (3ull << 30), G0, 4096, RW);
	r = batch(4);
	OK(r);
	CHECK_EQ(KEEL_MMU_DONE_RECORDS(r.value), 2);
	u64 pages = KEEL_MMU_DONE_PAGES(r.value);

	CHECK(pages <= limit - limit / 2 - limit / 4);
	if (pages)
		CHECK_EQ(kt_query(KT_VA + (2ull << 30) + (pages - 1) * 4096), (G0 + (pages - 1) * 4096) | RW);
	CHECK_EQ(kt_query(KT_VA + (2ull << 30) + pages * 4096), 0);
	CHECK_EQ(kt_query(KT_VA + (3ull << 30)), 0);
}

KEEL_TEST("MMU-010", mmu_error_position, "KEEL-MMU-08", "neg", 0)
{
	rec[0] = map(KT_VA, G0, 4096, RW);
	rec[1] = map(KT_VA + 4096, G0, 4096, KEEL_PROT_R);
	rec[2] = map(KT_VA + 8192, G0, 4096, RW);
	rec[2].op = 77;
	rec[3] = map(KT_VA + 12288, G0, 4096, RW);
	ERR_VALUE(batch(4), KEEL_STATUS(KEEL_E_INVAL, FIELD(1)), 2);
	CHECK_EQ(kt_query(KT_VA), G0 | RW); /* what was done stays done */
	CHECK_EQ(kt_query(KT_VA + 4096), G0 | KEEL_PROT_R);
	CHECK_EQ(kt_query(KT_VA + 8192), 0);
	CHECK_EQ(kt_query(KT_VA + 12288), 0);
}

KEEL_TEST("MMU-011", mmu_as, "KEEL-MMU-09 KEEL-MMU-29 KEEL-AS-06", "neg", 0)
{
	/* None was made: nothing that looks like a handle is one. */
	static const u64 as[] = { 1, 2, 0x1000000, 0x100000000, 0x100000001, ~0ull, 1ull << 63 };

	rec[0] = map(KT_VA, G0, 4096, RW);
	for (size_t i = 0; i < sizeof(as) / 8; i++) {
		NEG(HC(KEEL_CALL_MMU_BATCH, as[i], REC_GPA, 1, 0), KEEL_E_NOENT, ARG(1));
		NEG(HC(KEEL_CALL_MMU_QUERY, as[i], 0x400000), KEEL_E_NOENT, ARG(1));
	}
}

KEEL_TEST("MMU-012", mmu_records_gpa, "KEEL-MMU-10 KEEL-TYPE-06", "neg", 0)
{
	u64 ram = kt_ram_size();

	rec[0] = map(KT_VA, G0, 4096, RW);
	for (u64 k = 1; k < 8; k++)
		NEG(HC(KEEL_CALL_MMU_BATCH, 0, REC_GPA + k, 1, 0), KEEL_E_INVAL, ARG(2));
	NEG(HC(KEEL_CALL_MMU_BATCH, 0, ram, 1, 0), KEEL_E_FAULT, ARG(2));
	NEG(HC(KEEL_CALL_MMU_BATCH, 0, ram - 24, 1, 0), KEEL_E_FAULT, ARG(2));
	NEG(HC(KEEL_CALL_MMU_BATCH, 0, ram - 32 * 65, 66, 0), KEEL_E_FAULT, ARG(2));
	NEG(HC(KEEL_CALL_MMU_BATCH, 0, -32ull, 2, 0), KEEL_E_FAULT, ARG(2));
	/* At the very end of RAM it is one record and legal. */
	*(struct keel_mmu_record *)kt_ram(ram - 32) = map(KT_VA, G0, 4096, RW);
	OK_VALUE(HC(KEEL_CALL_MMU_BATCH, 0, ram - 32, 1, 0), 1);
	CHECK_EQ(kt_query(KT_VA), G0 | RW);
}

KEEL_TEST("MMU-013", mmu_count, "KEEL-MMU-11", "neg", 0)
{
	u64 max = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_BATCH_COUNT).value;

	rec[0] = map(KT_VA, G0, 4096, RW);
	OK_VALUE(batch(0), 0);
	CHECK_EQ(kt_query(KT_VA), 0);
	NEG(batch(max + 1), KEEL_E_RANGE, ARG(3));
	NEG(batch(1ull << 59), KEEL_E_RANGE, ARG(3)); /* count * 32 wraps to 0 */
	NEG(batch(~0ull), KEEL_E_RANGE, ARG(3));
	for (u64 i = 0; i < max; i++)
		((struct keel_mmu_record *)kt_ram(G0))[i] = unmap(KT_VA, 4096);
	OK(HC(KEEL_CALL_MMU_BATCH, 0, G0, max, 0));
}

KEEL_TEST("MMU-014", mmu_flags, "KEEL-MMU-12 KEEL-CALL-07", "neg", 0)
{
	rec[0] = map(KT_VA, G0, 4096, RW);
	for (int b = 0; b < 64; b++)
		NEG_BIT(HC(KEEL_CALL_MMU_BATCH, 0, REC_GPA, 1, 1ull << b), KEEL_E_INVAL, ARG(4), b);
	NEG_BIT(HC(KEEL_CALL_MMU_BATCH, 0, REC_GPA, 1, 0xff0), KEEL_E_INVAL, ARG(4), 4);
}

KEEL_TEST("MMU-015", mmu_argument_order, "KEEL-CALL-09 KEEL-MMU-10 KEEL-MMU-12", "neg", 0)
{
	u64 ram = kt_ram_size();

	/* Form of each in order, then what they name. */
	NEG(HC(KEEL_CALL_MMU_BATCH, 0, REC_GPA + 1, ~0ull, 1), KEEL_E_INVAL, ARG(2));
	NEG(HC(KEEL_CALL_MMU_BATCH, 0, ram, ~0ull, 1), KEEL_E_RANGE, ARG(3));
	NEG_BIT(HC(KEEL_CALL_MMU_BATCH, 0, ram, 1, 1), KEEL_E_INVAL, ARG(4), 0);
	NEG_BIT(HC(KEEL_CALL_MMU_BATCH, 5, ram, 1, 1), KEEL_E_INVAL, ARG(4), 0);
	NEG(HC(KEEL_CALL_MMU_BATCH, 5, ram, 1, 0), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_MMU_QUERY, 5, KT_VA + 1), KEEL_E_INVAL, ARG(2));
}

/* One bad record: refused so, nothing done. */
static void bad(struct keel_mmu_record r, s64 status, int line)
{
	u64 before = kt_digest();
	struct kt_ret ret;

	rec[0] = r;
	ret = batch(1);
	kt_check_ret("mmu.c", line, "mmu_batch", ret, status, 0, false);
	if (kt_digest() != before)
		kt_fail("mmu.c", line, "a refused record changed something");
}
#define BAD(r, code, field) bad(r, KEEL_STATUS(code, FIELD(field)), __LINE__)
#define BAD_BIT(r, code, field, bit) bad(r, KEEL_STATUS_BIT(code, FIELD(field), bit), __LINE__)

static struct keel_mmu_record with(struct keel_mmu_record r, u32 op, u32 prot, u32 flags)
{
	r.op = (u16)op;
	r.prot = (u16)prot;
	r.flags = flags;
	return r;
}

KEEL_TEST("MMU-016", mmu_op, "KEEL-MMU-14", "neg", 0)
{
	static const u16 op[] = { 0, 4, 5, 0x101, 0x8001, 0xffff };

	for (size_t i = 0; i < sizeof(op) / 2; i++)
		BAD(with(map(KT_VA, G0, 4096, RW), op[i], RW, 0), KEEL_E_INVAL, 1);
}

KEEL_TEST("MMU-017", mmu_prot, "KEEL-MMU-15", "neg", 0)
{
	for (int b = 3; b < 16; b++) {
		BAD(with(map(KT_VA, G0, 4096, 0), KEEL_MMU_MAP, 1 | 1u << b, 0), KEEL_E_INVAL, 2);
		BAD(with(protect(0x400000, 4096, 0), KEEL_MMU_PROTECT, 1 | 1u << b, 0), KEEL_E_INVAL, 2);
	}
	for (int b = 0; b < 16; b++)
		BAD(with(unmap(KT_VA, 4096), KEEL_MMU_UNMAP, 1u << b, 0), KEEL_E_INVAL, 2);
	BAD(with(map(KT_VA, G0, 4096, 0), KEEL_MMU_MAP, 0xffff, 0), KEEL_E_INVAL, 2);
	BAD(map(KT_VA, G0, 4096, 0), KEEL_E_INVAL, 2);
	BAD(protect(KT_LINEAR, 4096, 0), KEEL_E_INVAL, 2);
}

KEEL_TEST("MMU-018", mmu_record_flags, "KEEL-MMU-16 KEEL-TYPE-04", "neg", 0)
{
	for (int b = 1; b < 32; b++)
		BAD_BIT(with(map(KT_VA, G0, 4096, 0), KEEL_MMU_MAP, RW, 1u << b), KEEL_E_INVAL, 3, b);
	for (int b = 0; b < 32; b++) {
		BAD_BIT(with(unmap(KT_LINEAR, 4096), KEEL_MMU_UNMAP, 0, 1u << b), KEEL_E_INVAL, 3, b);
		BAD_BIT(with(protect(KT_LINEAR, 4096, 1), KEEL_MMU_PROTECT, 1, 1u << b), KEEL_E_INVAL, 3, b);
	}
}

KEEL_TEST("MMU-019", mmu_va_form, "KEEL-MMU-17", "neg", 0)
{
	static const u64 off[] = { 1, 8, 0x800, 0xfff };

	for (size_t i = 0; i < 4; i++) {
		BAD(map(KT_VA + off[i], G0, 4096, RW), KEEL_E_INVAL, 4);
		BAD(unmap(KT_LINEAR + off[i], 4096), KEEL_E_INVAL, 4);
		BAD(protect(KT_LINEAR + off[i], 4096, 1), KEEL_E_INVAL, 4);
	}
}

KEEL_TEST("MMU-020", mmu_va_range, "KEEL-MMU-17 KEEL-AS-01 KEEL-AS-03 KEEL-AS-02", "neg", 0)
{
	static const struct {
		u64 va, len;
	} out[] = {
		{ 0, 4096 },
		{ KEEL_VA_MIN - 4096, 4096 },
		{ KEEL_VA_MIN - 4096, 8192 },
		{ KEEL_VA_END, 4096 },
		{ KEEL_VA_END - 4096, 8192 },
		{ KEEL_VA_MIN, KEEL_VA_END },
		{ 0x7f0100000000, 4096 },
		{ 0x7f0300000000, 4096 },
		{ 0x7fffffffe000, 4096 },
		{ 0x800000000000, 4096 },
		{ 0xffff800000000000, 4096 },
		{ -4096ull, 4096 },
		{ -4096ull, 8192 },
		{ KT_VA, -4096ull },
		{ KT_VA, 0 - KT_VA }, /* ends at 2^64 */
		{ KT_VA, 0x8000000000000000 },
	};

	for (size_t i = 0; i < sizeof(out) / sizeof(out[0]); i++) {
		BAD(map(out[i].va, G0, out[i].len, RW), KEEL_E_RANGE, 4);
		BAD(unmap(out[i].va, out[i].len), KEEL_E_RANGE, 4);
		BAD(protect(out[i].va, out[i].len, 1), KEEL_E_RANGE, 4);
	}
	OK(HC(KEEL_CALL_BASE_PING, 1)); /* the host's window is as it was */
}

KEEL_TEST("MMU-021", mmu_gpa_form, "KEEL-MMU-18", "neg", 0)
{
	BAD(map(KT_VA, G0 + 1, 4096, RW), KEEL_E_INVAL, 5);
	BAD(map(KT_VA, G0 + 0x800, 4096, RW), KEEL_E_INVAL, 5);
	BAD(map(KT_VA, ~0ull, 4096, RW), KEEL_E_INVAL, 5);
	struct keel_mmu_record u = unmap(KT_LINEAR, 4096), p = protect(KT_LINEAR, 4096, 1);

	u.gpa = 4096;
	p.gpa = G0;
	BAD(u, KEEL_E_INVAL, 5);
	BAD(p, KEEL_E_INVAL, 5);
	u.gpa = 1;
	BAD(u, KEEL_E_INVAL, 5);
}

KEEL_TEST("MMU-022", mmu_len_form, "KEEL-MMU-19", "neg", 0)
{
	static const u64 len[] = { 0, 1, 4095, 4097, 0x1800, ~0ull, 0x8000000000000001 };

	for (size_t i = 0; i < sizeof(len) / 8; i++) {
		BAD(map(KT_VA, G0, len[i], RW), KEEL_E_INVAL, 6);
		BAD(unmap(KT_LINEAR, len[i]), KEEL_E_INVAL, 6);
		BAD(protect(KT_LINEAR, len[i], 1), KEEL_E_INVAL, 6);
	}
}

KEEL_TEST("MMU-023", mmu_gpa_extent, "KEEL-MMU-20 KEEL-TYPE-06", "neg", 0)
{
	const struct keel_abi_pages *p;
	u64 ram = kt_ram_size();
	u32 size;

	p = kt_chunk(KEEL_CHUNK_ABI, &size);
	REQUIRE(p);
	BAD(map(KT_VA, ram, 4096, RW), KEEL_E_FAULT, 5);
	BAD(map(KT_VA, ram - 4096, 8192, RW), KEEL_E_FAULT, 5);
	BAD(map(KT_VA, 0, ram + 4096, RW), KEEL_E_FAULT, 5);
	BAD(map(KT_VA, -4096ull, 4096, RW), KEEL_E_FAULT, 5);
	BAD(map(KT_VA, -4096ull, 8192, RW), KEEL_E_FAULT, 5);
	BAD(map(KT_VA, 1ull << 52, 4096, KEEL_PROT_R), KEEL_E_FAULT, 5);
	BAD(map(KT_VA, 1ull << 63, 4096, KEEL_PROT_R), KEEL_E_FAULT, 5);
	for (u32 prot = 2; prot <= 7; prot++) {
		BAD(map(KT_VA, p->clock_gpa, 4096, prot), KEEL_E_FAULT, 5);
		BAD(map(KT_VA, p->start_gpa, 4096, prot), KEEL_E_FAULT, 5);
	}
	BAD(map(KT_VA, p->clock_gpa - 4096, 8192, KEEL_PROT_R), KEEL_E_FAULT, 5); /* half of it ABI pages, or none */
	OK(MAP(KT_VA, ram - 4096, 4096, RW));					  /* the last page of RAM */
	*(volatile u8 *)(KT_VA + 4095) = 1;
	CHECK_EQ(*(u8 *)kt_ram(ram - 1), 1);
}

KEEL_TEST("MMU-024", mmu_field_order, "KEEL-MMU-13", "neg", 0)
{
	struct keel_mmu_record r = { .op = 9, .prot = 0x10, .flags = 2, .va = 1, .gpa = 1, .len = 1 };

	BAD(r, KEEL_E_INVAL, 1);
	r.op = KEEL_MMU_MAP;
	BAD(r, KEEL_E_INVAL, 2);
	r.prot = 1;
	BAD_BIT(r, KEEL_E_INVAL, 3, 1);
	r.flags = 0;
	BAD(r, KEEL_E_INVAL, 4);
	r.va = 0;
	BAD(r, KEEL_E_INVAL, 5); /* every form before any range */
	r.gpa = 1ull << 63;
	BAD(r, KEEL_E_INVAL, 6);
	r.len = 4096;
	BAD(r, KEEL_E_RANGE, 4);
	r.va = KT_VA;
	BAD(r, KEEL_E_FAULT, 5);
}

KEEL_TEST("MMU-025", mmu_protect_hole, "KEEL-MMU-21", "neg", 0)
{
	OK(MAP(KT_VA, G0, 3 * 4096, RW));
	OK(MAP(KT_VA + 4 * 4096, G0, 4096, RW));
	NEG(PROTECT(KT_VA + 3 * 4096, 4096, 1), KEEL_E_NOENT, FIELD(4));
	rec[0] = map(KT_VA + (1 << 20), G0, 4096, RW);
	rec[1] = protect(KT_VA, 5 * 4096, KEEL_PROT_R);
	ERR_VALUE(batch(2), KEEL_STATUS(KEEL_E_NOENT, FIELD(4)), 1 | 3ull << 32);
	for (u64 i = 0; i < 3; i++) {
		CHECK_EQ(kt_query(KT_VA + i * 4096), (G0 + i * 4096) | KEEL_PROT_R);
		CHECK(kt_probe_write(KT_VA + i * 4096, 0));
	}
	CHECK_EQ(kt_query(KT_VA + 3 * 4096), 0);
	CHECK_EQ(kt_query(KT_VA + 4 * 4096), G0 | RW); /* beyond the hole: untouched */
	CHECK(!kt_probe_write(KT_VA + 4 * 4096, 0));
	NEG(PROTECT(KT_VA + (1ull << 40), 4096, 1), KEEL_E_NOENT, FIELD(4)); /* no table at all there */
}

KEEL_TEST("MMU-026", mmu_wx, "KEEL-MMU-22 KEEL-NORM-04", "", 0)
{
	OK(MAP(KT_VA, G0, 4096, KEEL_PROT_ALL));
	memcpy((void *)KT_VA, kt_code, (size_t)(kt_code_end - kt_code));
	CHECK(!kt_probe_exec(KT_VA));
	CHECK_EQ(((u64(*)(void))KT_VA)(), 0x2a);
	CHECK_EQ(kt_query(KT_VA), G0 | KEEL_PROT_ALL);
}

KEEL_TEST("MMU-027", mmu_implied_read, "KEEL-NORM-04 KEEL-NORM-05 KEEL-MMU-28", "", 0)
{
	memcpy(kt_ram(G0), kt_code, (size_t)(kt_code_end - kt_code));
	OK(MAP(KT_VA, G0, 4096, KEEL_PROT_W));
	OK(MAP(KT_VA + 4096, G0, 4096, KEEL_PROT_X));
	CHECK_EQ(kt_query(KT_VA), G0 | RW);
	CHECK_EQ(kt_query(KT_VA + 4096), G0 | RX);
	CHECK(!kt_probe_read(KT_VA));
	CHECK(!kt_probe_read(KT_VA + 4096));
	CHECK(!kt_probe_exec(KT_VA + 4096));
	CHECK(kt_probe_write(KT_VA + 4096, 0));
	CHECK_EQ(kt_trap_frame.error, KEEL_PF_P | KEEL_PF_W);
	CHECK(kt_probe_exec(KT_VA));
	CHECK_EQ(kt_trap_frame.error, KEEL_PF_P | KEEL_PF_X);
	OK(PROTECT(KT_VA, 8192, KEEL_PROT_W));
	CHECK_EQ(kt_query(KT_VA + 4096), G0 | RW);
}

KEEL_TEST("MMU-028", mmu_aliases, "KEEL-MMU-23", "", 0)
{
	for (u64 i = 0; i < 16; i++)
		OK(MAP(KT_VA + i * 0x10000, G0, 4096, i & 1 ? RW : KEEL_PROT_R));
	for (u64 i = 1; i < 16; i += 2) {
		*(volatile u64 *)(KT_VA + i * 0x10000) = i * 1000;
		for (u64 k = 0; k < 16; k++)
			CHECK_EQ(*(volatile u64 *)(KT_VA + k * 0x10000), i * 1000);
	}
	OK(PROTECT(KT_VA + 0x10000, 4096, KEEL_PROT_R)); /* one alias only */
	CHECK(kt_probe_write(KT_VA + 0x10000, 0));
	CHECK(!kt_probe_write(KT_VA + 0x30000, 0));
	OK(UNMAP(KT_VA + 0x30000, 4096));
	CHECK(!kt_probe_write(KT_VA + 0x50000, 0));
	/* Often enough that nothing else throws away what the processor may have kept of the last one. */
	for (u64 i = 0; i < 256; i++) {
		OK(MAP(KT_VA, G0 + i % 2 * 4096, 4096, RW));
		*(volatile u64 *)KT_VA = i;
		CHECK_EQ(*(volatile u64 *)kt_ram(G0 + i % 2 * 4096), i);
	}
}

KEEL_TEST("MMU-029", mmu_populate, "KEEL-MMU-24 KEEL-NORM-10", "", 0)
{
	kt_poison(G0, 1 << 20, 3);
	OK(kt_mmu(KEEL_MMU_MAP, KT_VA, G0, 1 << 20, RW, KEEL_MMU_POPULATE));
	OK(kt_mmu(KEEL_MMU_MAP, KT_VA + (1 << 20), G0, 1 << 20, RW, 0));
	CHECK(!memcmp((void *)KT_VA, kt_ram(G0), 1 << 20));
	CHECK(!memcmp((void *)(KT_VA + (1 << 20)), kt_ram(G0), 1 << 20));
	*(volatile u8 *)(KT_VA + 77777) = 1;
	CHECK_EQ(peek(KT_VA + (1 << 20) + 77777), 1);
	/* Read-only and executable ranges can be populated as well. */
	OK(kt_mmu(KEEL_MMU_MAP, KT_VA, G0, 65536, KEEL_PROT_R, KEEL_MMU_POPULATE));
	OK(kt_mmu(KEEL_MMU_MAP, KT_VA, G0, 65536, RX, KEEL_MMU_POPULATE));
	CHECK_EQ(kt_traps, 0);
}

KEEL_TEST("MMU-030", mmu_query_forms, "KEEL-MMU-28 KEEL-MMU-29", "neg", 0)
{
	NEG(HC(KEEL_CALL_MMU_QUERY, 0, KT_VA), KEEL_E_NOENT, ARG(2));
	NEG(HC(KEEL_CALL_MMU_QUERY, 0, KEEL_VA_MIN), KEEL_E_NOENT, ARG(2));
	NEG(HC(KEEL_CALL_MMU_QUERY, 0, KEEL_VA_END - 4096), KEEL_E_NOENT, ARG(2));
	NEG(HC(KEEL_CALL_MMU_QUERY, 0, KT_VA + 1), KEEL_E_INVAL, ARG(2));
	NEG(HC(KEEL_CALL_MMU_QUERY, 0, 0xfff), KEEL_E_INVAL, ARG(2));
	NEG(HC(KEEL_CALL_MMU_QUERY, 0, 0), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_MMU_QUERY, 0, KEEL_VA_MIN - 4096), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_MMU_QUERY, 0, KEEL_VA_END), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_MMU_QUERY, 0, -4096ull), KEEL_E_RANGE, ARG(2));
	NEG(HC(KEEL_CALL_MMU_QUERY, 0, (u64)kt_vcpu), KEEL_E_RANGE, ARG(2));
}

KEEL_TEST("MMU-031", mmu_edges_of_range, "KEEL-AS-01 KEEL-AS-03", "", 0)
{
	static const u64 va[] = { KEEL_VA_MIN,	KEEL_VA_END - 4096, 0x7fffffff000,
				  0x8000000000, 0x3ffffffff000,	    0x400000000000 };

	for (size_t i = 0; i < sizeof(va) / 8; i++) {
		OK(MAP(va[i], G0 + i * 4096, 4096, RW));
		*(volatile u64 *)va[i] = va[i];
		CHECK_EQ(*(u64 *)kt_ram(G0 + i * 4096), va[i]);
		CHECK_EQ(kt_query(va[i]), (G0 + i * 4096) | RW);
	}
	for (size_t i = 0; i < sizeof(va) / 8; i++) {
		OK(UNMAP(va[i], 4096));
		CHECK(kt_probe_read(va[i]));
	}
	/* The whole range at once, step by step around what is in use. */
	OK(UNMAP(KEEL_VA_END - (1ull << 30), 1ull << 30));
}

KEEL_TEST("MMU-032", mmu_below_minimum, "KEEL-AS-04 KEEL-NORM-02", "neg", 0)
{
	static const u64 va[] = { 0, 8, 0x1000, 0xf000, 0xffff };

	for (size_t i = 0; i < sizeof(va) / 8; i++) {
		CHECK(kt_probe_read(va[i]));
		CHECK_EQ(kt_trap_frame.vector, KEEL_VEC_PF);
		CHECK_EQ(kt_trap_frame.error, 0);
		CHECK_EQ(kt_trap_frame.addr, va[i]);
		CHECK(kt_probe_write(va[i], 0));
		CHECK_EQ(kt_trap_frame.error, KEEL_PF_W);
		CHECK(kt_probe_exec(va[i]));
		CHECK_EQ(kt_trap_frame.error, KEEL_PF_X);
	}
}

KEEL_TEST("MMU-033", mmu_records_untouched, "KEEL-MMU-27", "", 0)
{
	u64 h;

	for (u64 i = 0; i < 64; i++)
		rec[i] = i % 3 == 0   ? map(KT_VA + i * 4096, G0, 4096, RW)
			 : i % 3 == 1 ? unmap(KT_VA + i * 4096, 4096)
				      : protect(KT_VA, 4096, 1);
	h = kt_hash(1, rec, sizeof(rec));
	OK(batch(64));
	CHECK_EQ(kt_hash(1, rec, sizeof(rec)), h);
	/* Records in a read-only page, and in one that the batch unmaps. */
	OK(PROTECT((u64)rec, 4096, KEEL_PROT_R));
	OK(batch(64));
	OK(PROTECT((u64)rec, 4096, RW));
	rec[0] = unmap((u64)rec, 4096);
	rec[1] = map(KT_VA + (1 << 20), G0, 4096, RW);
	OK_VALUE(batch(2), 2);
	CHECK_EQ(kt_query(KT_VA + (1 << 20)), G0 | RW);
	CHECK(kt_probe_read((u64)rec));
}

KEEL_TEST("MMU-034", mmu_own_code, "KEEL-MMU-30", "neg", 0)
{
	u64 page = (u64)kt_probe_exec & ~0xfffull;

	/* Code that runs is remapped to a copy of itself, and goes on there. */
	memcpy(kt_ram(G0), (void *)page, 4096);
	OK(MAP(page, G0, 4096, RX));
	CHECK_EQ(kt_query(page), G0 | RX);
	OK(HC(KEEL_CALL_BASE_NOP));
	CHECK(kt_probe_ud());
	OK(MAP(page, page - KT_IMAGE_OFFSET, 4096, RX));
}

static void end_of_stack(struct keel_frame *f)
{
	CHECK_EQ(f->vector, KEEL_VEC_PF);
	CHECK_EQ(f->error & ~KEEL_PF_W, 0);
	CHECK(f->addr >= (u64)kt_stack && f->addr < (u64)kt_stack_top);
	CHECK(f->rip >= KEEL_VA_END); /* the gate could not return: what it has to pop is gone */
	/* With the stack back, the return is tried again and works. */
	OK(MAP((u64)kt_stack, kt_gpa(kt_stack), (u64)(kt_stack_top - kt_stack), RW));
	kt_traps++;
}

KEEL_TEST("MMU-035", mmu_own_stack, "KEEL-MMU-30 KEEL-TRAP-05 KEEL-CALL-14 KEEL-CALL-23", "neg", 0)
{
	static u8 other[8192] __attribute__((aligned(16)));

	kt_on[KEEL_CLASS_TRAP] = end_of_stack;
	kt_set_entry(KEEL_CLASS_TRAP, (u64)(other + sizeof(other)));
	rec[0] = unmap((u64)kt_stack, (u64)(kt_stack_top - kt_stack));
	/* The trap goes to a stack of its own. */
	OK_VALUE(batch(1), 1);
	CHECK_EQ(kt_traps, 1);
}

KEEL_TEST("MMU-036", mmu_table_quota, "KEEL-MMU-26 KEEL-CALL-20", "neg timeout=60", 0)
{
	u64 tables = HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_AS_TABLES).value, va = KT_VA, made = 0;
	struct kt_ret r = { 0, 0 };

	/* A page in every 2 MiB costs a table each: the quota ends it, not the host. */
	while (made <= tables + 64) {
		for (u32 i = 0; i < 64; i++)
			rec[i] = map(va + i * (2ull << 20), G0, 4096, RW);
		r = batch(64);
		made += KEEL_MMU_DONE_RECORDS(r.value);
		if (r.status)
			break;
		CHECK_EQ(r.value, 64);
		va += 64 * (2ull << 20);
	}
	CHECK_EQ(r.status, KEEL_STATUS(KEEL_E_NOMEM, 0));
	CHECK(made <= tables);
	CHECK_EQ(kt_query(KT_VA + (made - 1) * (2ull << 20)), G0 | RW); /* done before the error: done */
	CHECK_EQ(kt_query(KT_VA + made * (2ull << 20)), 0);
	CHECK_EQ(HC(KEEL_CALL_BASE_PING, 6).value, 6);
	/* Unmapping makes room again. */
	for (u64 k = 0; k < made; k++) {
		rec[k % 64] = unmap(KT_VA + k * (2ull << 20), 4096);
		if (k % 64 == 63)
			OK(batch(64));
	}
	OK(MAP(KT_VA + (1ull << 44), G0, 4096, RW));
	CHECK(!kt_probe_write(KT_VA + (1ull << 44), 1));
}

KEEL_TEST("MMU-037", mmu_many_pieces, "KEEL-NORM-10 KEEL-MMU-26 KEEL-CALL-20", "timeout=60", 0)
{
	u64 pieces = kt_scale > 100 ? 7000 : 70000, stride = 8192;

	/* More separate mappings than a process of the host can hold: they are refilled, never lost. */
	for (u64 i = 0; i < pieces; i += 64) {
		for (u64 k = 0; k < 64; k++)
			rec[k] = map(KT_VA + (i + k) * stride, G0 + ((i + k) % 1024) * 4096, 4096,
				     (i + k) & 1 ? RW : KEEL_PROT_R);
		OK_VALUE(batch(64), 64);
	}
	for (u64 i = 0; i < 1024; i++)
		*(u64 *)kt_ram(G0 + i * 4096) = i;
	for (u64 i = 0; i < pieces; i += 61)
		if (*(volatile u64 *)(KT_VA + i * stride) != i % 1024)
			KT_FAIL("page %lu reads %lu", i, *(volatile u64 *)(KT_VA + i * stride));
	CHECK_EQ(kt_traps, 0);
	for (u64 i = 0; i < pieces; i += 997)
		CHECK_EQ(kt_probe_write(KT_VA + i * stride, (u8)(i % 1024)), !(i & 1));
	OK(UNMAP(KT_VA, pieces * stride));
	CHECK(kt_probe_read(KT_VA));
}

KEEL_TEST("MMU-038", mmu_interrupted, "KEEL-MMU-25 KEEL-MMU-04 KEEL-CALL-14", "timeout=60", 0)
{
	u32 timer = kt_bind(KEEL_SOURCE_TIMER, 0);
	u64 rounds = 3000 / kt_scale + 200, upcalls;

	kt_events_on();
	OK(HC(KEEL_CALL_EVENT_UNMASK, timer));
	kt_sti();
	/* The timer sweeps over the batch: whenever it fires, the results are those without it. */
	for (u64 i = 0; i < rounds; i++) {
		struct kt_ret r;

		for (u64 k = 0; k < 32; k++)
			rec[k] = k & 1 ? unmap(KT_VA + (k / 2) * 8192 + 4096, 4096)
				       : map(KT_VA + (k / 2) * 8192, G0 + ((k + i) % 64) * 4096, 8192, RW);
		upcalls = kt_upcalls;
		OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + (i % 400) * 150 * kt_slow()));
		r = batch(32);
		if (!OK_VALUE(r, 32))
			break;
		for (u64 k = 0; k < 16; k++) {
			CHECK_EQ(kt_query(KT_VA + k * 8192), (G0 + ((2 * k + i) % 64) * 4096) | RW);
			CHECK_EQ(kt_query(KT_VA + k * 8192 + 4096), 0);
		}
		*(volatile u64 *)(KT_VA + (i % 16) * 8192) = i;
		CHECK_EQ(*(u64 *)kt_ram(G0 + ((2 * (i % 16) + i) % 64) * 4096), i);
		WAIT_UNTIL(kt_upcalls != upcalls);
	}
	CHECK_EQ(kt_traps, 0);
}

static u64 upcall_checks;

static void check_page_whole(u32 bit)
{
	/* Inside an upcall: the page is either of the two, never in between. */
	u64 q = kt_query(KT_VA);

	(void)bit;
	upcall_checks++;
	if (q != (G0 | RW) && q != ((G0 + 4096) | KEEL_PROT_R))
		KT_FAIL("an upcall saw the page as %lx", q);
	u64 v = *(volatile u64 *)KT_VA;

	if (v != 111 && v != 222)
		KT_FAIL("an upcall read %lx", v);
}

KEEL_TEST("MMU-039", mmu_atomic_in_upcall, "KEEL-MMU-25", "timeout=30", 0)
{
	u32 timer = kt_bind(KEEL_SOURCE_TIMER, 0);

	*(u64 *)kt_ram(G0) = 111;
	*(u64 *)kt_ram(G0 + 4096) = 222;
	OK(MAP(KT_VA, G0, 4096, RW));
	kt_events_on();
	kt_event_hook = check_page_whole;
	OK(HC(KEEL_CALL_EVENT_UNMASK, timer));
	kt_sti();
	for (u64 i = 0; i < 2000 / kt_scale + 200; i++) {
		u64 seen = upcall_checks;

		OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + kt_random_below(60000 * kt_slow())));
		while (upcall_checks == seen) {
			rec[0] = map(KT_VA, G0 + 4096, 4096, KEEL_PROT_R);
			rec[1] = map(KT_VA, G0, 4096, RW);
			OK_VALUE(batch(2), 2);
			CHECK_EQ(*(volatile u64 *)KT_VA, 111);
		}
	}
}

/* A random sequence against a model: an array of what each page should be. */
#define MODEL_PAGES 96
static u64 model[MODEL_PAGES];

static void model_apply(const struct keel_mmu_record *r, u64 pages)
{
	u64 first = (r->va - KT_VA) / 4096;

	for (u64 i = 0; i < pages; i++)
		model[first + i] = r->op == KEEL_MMU_MAP     ? (r->gpa + i * 4096) | r->prot | KEEL_PROT_R
				   : r->op == KEEL_MMU_UNMAP ? 0
							     : (model[first + i] & ~7ull) | r->prot | KEEL_PROT_R;
}

KEEL_TEST("MMU-040", mmu_random_model,
	  "KEEL-MMU-01 KEEL-MMU-02 KEEL-MMU-03 KEEL-MMU-04 KEEL-MMU-08 KEEL-MMU-21 KEEL-MMU-24", "timeout=60", 0)
{
	u64 rounds = 1500 / kt_scale + 150;

	kt_note("seed %lu", kt_seed);
	for (u64 g = 0; g < 64; g++)
		*(u64 *)kt_ram(G0 + g * 4096) = g ^ 0xabcdef;
	for (u64 round = 0; round < rounds && !kt_fails; round++) {
		u64 n = 1 + kt_random_below(12), k, pages = 0;
		struct kt_ret r;

		for (k = 0; k < n; k++) {
			u64 first = kt_random_below(MODEL_PAGES),
			    len = 1 + kt_random_below(MODEL_PAGES - first > 24 ? 24 : MODEL_PAGES - first);
			u64 va = KT_VA + first * 4096;

			switch (kt_random_below(4)) {
			case 0:
				rec[k] = unmap(va, len * 4096);
				break;
			case 1:
				rec[k] = protect(va, len * 4096, 1 + (u32)kt_random_below(7));
				break;
			default:
				rec[k] = map(va, G0 + kt_random_below(40) * 4096, len * 4096,
					     1 + (u32)kt_random_below(7));
				rec[k].flags = (u32)kt_random_below(2);
			}
		}
		/* The model runs the batch first and says where it must stop. */
		s64 expect = 0;

		for (k = 0; k < n && !expect; k++) {
			pages = rec[k].len / 4096;
			if (rec[k].op == KEEL_MMU_PROTECT)
				for (u64 i = 0; i < pages; i++)
					if (!model[(rec[k].va - KT_VA) / 4096 + i]) {
						pages = i;
						expect = KEEL_STATUS(KEEL_E_NOENT, FIELD(4));
					}
			model_apply(&rec[k], pages);
			if (expect)
				break;
		}
		r = batch(n);
		if (!ERR_VALUE(r, expect, expect ? k | pages << 32 : n)) {
			kt_note("round %lu, %lu records", round, n);
			for (u64 i = 0; i < n; i++)
				kt_note("op %u prot %u flags %u page %ld gpa %lx pages %lu", rec[i].op, rec[i].prot,
					rec[i].flags, (s64)(rec[i].va - KT_VA) / 4096, rec[i].gpa, rec[i].len / 4096);
			break;
		}
		for (u64 i = 0; i < MODEL_PAGES; i++)
			if (kt_query(KT_VA + i * 4096) != model[i])
				KT_FAIL("round %lu page %lu: %lx, the model has %lx", round, i,
					kt_query(KT_VA + i * 4096), model[i]);
		/* And what the processor sees agrees with what the query says. */
		for (u64 i = kt_random_below(7); i < MODEL_PAGES; i += 7) {
			u64 va = KT_VA + i * 4096;

			if (kt_probe_read(va) != !model[i])
				KT_FAIL("round %lu page %lu: reading %s", round, i, model[i] ? "traps" : "works");
			else if (model[i] && *(volatile u64 *)va != (((model[i] & ~7ull) - G0) / 4096 ^ 0xabcdef))
				KT_FAIL("round %lu page %lu: reads another page", round, i);
			if (kt_probe_write(va + 4000, 1) != !(model[i] & KEEL_PROT_W))
				KT_FAIL("round %lu page %lu: write protection differs", round, i);
		}
	}
}

KEEL_TEST("MMU-041", mmu_large_alignment, "KEEL-MMU-01 KEEL-MMU-03 KEEL-MMU-28", "", 0)
{
	/* 2 MiB ranges may be kept as one entry: splitting such a range must not show. */
	OK(MAP(KT_VA, 0x2000000, 4ull << 20, RW));
	OK(PROTECT(KT_VA + 4096, 4096, KEEL_PROT_R));
	OK(UNMAP(KT_VA + (2ull << 20) - 4096, 8192));
	for (u64 i = 0; i < 1024; i++) {
		u64 want = i == 511 || i == 512 ? 0 : (0x2000000 + i * 4096) | (i == 1 ? KEEL_PROT_R : RW);

		CHECK_EQ(kt_query(KT_VA + i * 4096), want);
	}
	CHECK(kt_probe_write(KT_VA + 4096, 1));
	CHECK(!kt_probe_write(KT_VA, 1));
	CHECK(!kt_probe_write(KT_VA + 8192, 1));
	CHECK(kt_probe_read(KT_VA + (2ull << 20)));
	/* The linear map is one such range, and every page of it can be taken out. */
	OK(UNMAP(KT_LINEAR + 0x2200000, 4096));
	CHECK(kt_probe_read(KT_LINEAR + 0x2200000));
	CHECK(!kt_probe_read(KT_LINEAR + 0x2201000));
	CHECK(!kt_probe_read(KT_LINEAR + 0x21ff000));
}

KEEL_TEST("AS-001", as_window, "KEEL-AS-02 KEEL-AS-03", "neg", 0)
{
	/* Unmapping or replacing the host's window is refused by every record that only touches it. */
	for (u64 va = KEEL_VA_END; va; va = va << 1 | va) {
		BAD(unmap(va & ~0xfffull, 4096), KEEL_E_RANGE, 4);
		if (va >> 63)
			break;
	}
	BAD(unmap(KEEL_VA_MIN, KEEL_VA_END - KEEL_VA_MIN + 4096), KEEL_E_RANGE, 4);
	BAD(unmap((u64)kt_vcpu, 4096), KEEL_E_RANGE, 4);
	BAD(map((u64)kt_vcpu, G0, 4096, RW), KEEL_E_RANGE, 4);
	BAD(map(kt_vcpu->gate & ~0xfffull, G0, 4096, RX), KEEL_E_RANGE, 4);
	BAD(protect((u64)kt_start, 4096, RW), KEEL_E_RANGE, 4);
	OK(HC(KEEL_CALL_BASE_PING, 2));
}

KEEL_TEST("AS-002", as_ram_from_zero, "KEEL-AS-05", "", 0)
{
	u64 ram = kt_ram_size();

	OK(MAP(KT_VA, 0, 4096, RW));
	*(volatile u64 *)KT_VA = 0x1234;
	CHECK_EQ(*(u64 *)kt_ram(0), 0x1234);
	for (u64 g = 0; g < ram; g += 1 << 20) {
		OK(MAP(KT_VA, g, 4096, KEEL_PROT_R));
		CHECK(!kt_probe_read(KT_VA));
	}
}

KEEL_TEST("MMU-042", mmu_empty_batch_checked, "KEEL-MMU-11 KEEL-MMU-12 KEEL-MMU-10", "neg", 0)
{
	u64 ram = kt_ram_size();

	NEG(HC(KEEL_CALL_MMU_BATCH, 0, REC_GPA + 4, 0, 0), KEEL_E_INVAL, ARG(2));
	NEG_BIT(HC(KEEL_CALL_MMU_BATCH, 0, REC_GPA, 0, 8), KEEL_E_INVAL, ARG(4), 3);
	NEG(HC(KEEL_CALL_MMU_BATCH, 7, REC_GPA, 0, 0), KEEL_E_NOENT, ARG(1));
	NEG(HC(KEEL_CALL_MMU_BATCH, 0, ram + 8, 0, 0), KEEL_E_FAULT, ARG(2));
	OK_VALUE(HC(KEEL_CALL_MMU_BATCH, 0, ram, 0, 0), 0); /* an empty range may begin where RAM ends */
}

KEEL_TEST("MMU-043", mmu_error_after_pages, "KEEL-MMU-08 KEEL-MMU-21 KEEL-MMU-13", "neg", 0)
{
	/* Records after a refused one are not even looked at, whatever is in them. */
	OK(MAP(KT_VA, G0, 8 * 4096, RW));
	for (u32 bad_at = 0; bad_at < 6; bad_at++) {
		for (u32 i = 0; i < 8; i++)
			rec[i] = protect(KT_VA + i * 4096, 4096, bad_at & 1 ? RW : KEEL_PROT_R);
		rec[bad_at].va = KT_VA + (1ull << 30);
		rec[bad_at + 1].op = 0xffff;
		ERR_VALUE(batch(8), KEEL_STATUS(KEEL_E_NOENT, FIELD(4)), bad_at);
		for (u32 i = 0; i < bad_at; i++)
			CHECK_EQ(kt_query(KT_VA + i * 4096) & 7, bad_at & 1 ? RW : KEEL_PROT_R);
	}
}

KEEL_TEST("MMU-044", mmu_protect_abi_pages, "KEEL-MMU-31 KEEL-MMU-08", "neg", 0)
{
	static const u32 bad[] = { RW, RX, KEEL_PROT_ALL, KEEL_PROT_W, KEEL_PROT_X };
	const struct keel_abi_pages *p;
	u32 size;

	p = kt_chunk(KEEL_CHUNK_ABI, &size);
	REQUIRE(p);
	/* An ABI page between two of RAM: the one before it is done, it and the one after it are not. */
	OK(MAP(KT_VA, G0, 3 * 4096, RW));
	OK(MAP(KT_VA + 4096, p->clock_gpa, 4096, KEEL_PROT_R));
	for (u32 i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		rec[0] = protect(KT_VA + 4096, 4096, bad[i]);
		NEG_VALUE(batch(1), KEEL_STATUS(KEEL_E_FAULT, FIELD(2)), 0);
		rec[0] = protect(KT_VA, 3 * 4096, bad[i]);
		ERR_VALUE(batch(1), KEEL_STATUS(KEEL_E_FAULT, FIELD(2)), 1ull << 32);
		CHECK_EQ(kt_query(KT_VA), G0 | bad[i] | KEEL_PROT_R);
		CHECK_EQ(kt_query(KT_VA + 4096), p->clock_gpa | KEEL_PROT_R);
		CHECK_EQ(kt_query(KT_VA + 2 * 4096), (G0 + 2 * 4096) | RW);
		CHECK(kt_probe_write(KT_VA + 4096, 0));
		CHECK_EQ(kt_trap_frame.error, KEEL_PF_P | KEEL_PF_W);
		CHECK(!kt_probe_read(KT_VA + 4096));
	}
	OK(PROTECT(KT_VA, 3 * 4096, KEEL_PROT_R)); /* which it has anyway */
	CHECK(kt_probe_exec(KT_VA + 4096));
	OK(UNMAP(KT_VA, 3 * 4096));
}
