// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* START: the chunks of the start info. */
#include "kt.h"

static u32 count_chunks(u32 type)
{
	const u8 *p = (const u8 *)(kt_start + 1);
	u32 n = 0;

	for (u32 i = 0; i < kt_start->chunks; i++) {
		const struct keel_chunk *c = (const struct keel_chunk *)p;

		n += c->type == type;
		p += (c->size + 7) & ~7u;
	}
	return n;
}

KEEL_TEST("START-001", start_header, "KEEL-START-01 KEEL-TYPE-03", "", KT_EARLY)
{
	const volatile u8 *p = (const volatile u8 *)kt_start;
	u64 sum = 0;

	CHECK_EQ(kt_start->magic, KEEL_START_MAGIC);
	CHECK_EQ(kt_start->version, KEEL_START_VERSION);
	CHECK_EQ(kt_start->reserved, 0);
	CHECK(kt_start->size >= sizeof(*kt_start) && kt_start->size < 1 << 20);
	for (u64 i = 0; i < kt_start->size; i++)
		sum += p[i];
	CHECK(sum != 0);
}

KEEL_TEST("START-002", start_chunks, "KEEL-START-02", "", KT_EARLY)
{
	const u8 *base = (const u8 *)kt_start;
	u64 at = sizeof(*kt_start);

	for (u32 i = 0; i < kt_start->chunks; i++) {
		const struct keel_chunk *c = (const struct keel_chunk *)(base + at);

		CHECK_EQ(at % 8, 0);
		REQUIRE(at + sizeof(*c) <= kt_start->size);
		REQUIRE(c->size >= sizeof(*c) && at + c->size <= kt_start->size);
		for (u64 k = at + c->size; k % 8 && k < kt_start->size; k++)
			CHECK_EQ(base[k], 0);
		at = (at + c->size + 7) & ~7ull;
	}
	for (; at < kt_start->size; at++)
		CHECK_EQ(base[at], 0);
}

KEEL_TEST("START-003", start_chunk_set, "KEEL-START-04", "", KT_EARLY)
{
	CHECK_EQ(count_chunks(KEEL_CHUNK_MEMMAP), 1);
	CHECK_EQ(count_chunks(KEEL_CHUNK_CMDLINE), 1);
	CHECK_EQ(count_chunks(KEEL_CHUNK_ENTROPY), 1);
	CHECK_EQ(count_chunks(KEEL_CHUNK_CPU), 1);
	CHECK_EQ(count_chunks(KEEL_CHUNK_ABI), 1);
	CHECK_EQ(count_chunks(KEEL_CHUNK_LINEAR), 1);
	CHECK_EQ(count_chunks(KEEL_CHUNK_MODULE), 0);
}

KEEL_TEST("START-004", start_memmap, "KEEL-START-05 KEEL-START-06 KEEL-AS-05 KEEL-TYPE-03", "", KT_EARLY)
{
	const struct keel_memmap_entry *m;
	u64 last = 0, ram = 0;
	u32 size, abi = 0;

	m = kt_chunk(KEEL_CHUNK_MEMMAP, &size);
	REQUIRE(m && size % sizeof(*m) == 0);
	for (; size; m++, size -= sizeof(*m)) {
		CHECK(m->gpa >= last);
		CHECK(m->len && m->gpa % 4096 == 0 && m->len % 4096 == 0 && m->gpa + m->len > m->gpa);
		CHECK_EQ(m->reserved, 0);
		last = m->gpa + m->len;
		if (m->type == KEEL_MEM_ABI) {
			abi++;
			CHECK(m->gpa >= ram);
		} else {
			CHECK(m->type >= KEEL_MEM_RAM && m->type <= KEEL_MEM_MODULE);
			CHECK_EQ(m->gpa, ram); /* without a hole, from 0 */
			CHECK(!abi);
			ram = last;
		}
	}
	CHECK(ram >= 32 << 20);
	CHECK(abi);
}

static u32 type_at(u64 gpa)
{
	const struct keel_memmap_entry *m;
	u32 size;

	for (m = kt_chunk(KEEL_CHUNK_MEMMAP, &size); size >= sizeof(*m); m++, size -= sizeof(*m))
		if (gpa >= m->gpa && gpa - m->gpa < m->len)
			return m->type;
	return 0;
}

KEEL_TEST("START-005", start_memmap_image, "KEEL-START-07 KEEL-IMAGE-05", "", KT_EARLY)
{
	u64 end = kt_gpa(kt_image_end);

	for (u64 g = 0x400000 - KT_IMAGE_OFFSET; g < end; g += 4096)
		CHECK_EQ(type_at(g), KEEL_MEM_IMAGE);
	CHECK_EQ(type_at(end), KEEL_MEM_RAM);
	CHECK_EQ(type_at(0), KEEL_MEM_RAM);
	CHECK_EQ(type_at(0x400000 - KT_IMAGE_OFFSET - 1), KEEL_MEM_RAM);
}

KEEL_TEST("START-006", start_cmdline, "KEEL-START-08", "args=one%20%20two=2", KT_EARLY)
{
	const char *s;
	u32 size;
	size_t n;

	s = kt_chunk(KEEL_CHUNK_CMDLINE, &size);
	REQUIRE(s && size && size <= KEEL_CMDLINE_MAX);
	CHECK_EQ(s[size - 1], 0);
	n = strlen(s);
	CHECK_EQ(n, size - 1);
	CHECK(!memcmp(s, "test=START-006 seed=", 20));
	CHECK(n > 12 && !strcmp(s + n - 11, " one  two=2"));
}

KEEL_TEST("START-007", start_entropy, "KEEL-START-09", "", KT_EARLY)
{
	const u8 *p;
	u32 size, zeros = 0;

	p = kt_chunk(KEEL_CHUNK_ENTROPY, &size);
	REQUIRE(p);
	CHECK_EQ(size, KEEL_ENTROPY_SIZE);
	for (u32 i = 0; i < size; i++) {
		u32 same = 0;

		zeros += !p[i];
		for (u32 k = 0; k < size; k++)
			same += p[k] == p[i];
		CHECK(same < 8);
	}
	CHECK(zeros < 8);
	kt_note("entropy %lx", kt_hash(1, p, size)); /* the stage compares two starts */
}

KEEL_TEST("START-008", start_cpu, "KEEL-START-11 KEEL-TYPE-03", "", KT_EARLY)
{
	const struct keel_cpu_info *cpu;
	u32 size, lo, hi, r[4];

	cpu = kt_chunk(KEEL_CHUNK_CPU, &size);
	REQUIRE(cpu && size >= sizeof(*cpu));
	CHECK_EQ(cpu->reserved0, 0);
	CHECK_EQ(cpu->xfeatures & 3, 3);
	CHECK_EQ(cpu->xfeatures & (3ull << 17), 0); /* no AMX */
	CHECK(cpu->xsave_size >= 576);
	for (u32 c = 0; c < 16; c++) {
		if (!(cpu->xfeatures >> c & 1)) {
			CHECK_EQ(cpu->xsave_offset[c], 0);
			CHECK_EQ(cpu->xsave_bytes[c], 0);
			continue;
		}
		CHECK(cpu->xsave_offset[c] + cpu->xsave_bytes[c] <= cpu->xsave_size);
		if (c >= 2)
			CHECK(cpu->xsave_offset[c] >= 576 && cpu->xsave_bytes[c]);
	}
	__asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(1), "c"(0));
	CHECK_EQ(cpu->cpuid[0] & ~r[2], 0);
	CHECK_EQ(cpu->cpuid[1] & ~r[3], 0);
	CHECK(cpu->cpuid[1] & (1u << 26)); /* SSE2 belongs to x86-64 */
	if (r[2] & (1u << 27)) {
		__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
		CHECK_EQ(cpu->xfeatures & ~((u64)hi << 32 | lo), 0);
	}
	__asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(7), "c"(0));
	CHECK_EQ(cpu->cpuid[2] & ~r[1], 0);
	CHECK_EQ(cpu->cpuid[3] & ~r[2], 0);
	CHECK_EQ(cpu->cpuid[4] & ~r[3], 0);
}

KEEL_TEST("START-009", start_tsc_hz, "KEEL-START-12", "", KT_EARLY)
{
	const struct keel_cpu_info *cpu;
	const struct keel_abi_pages *p;
	const struct keel_clock *clock;
	u32 size;

	cpu = kt_chunk(KEEL_CHUNK_CPU, &size);
	p = kt_chunk(KEEL_CHUNK_ABI, &size);
	REQUIRE(cpu && p);
	clock = (const struct keel_clock *)p->clock_va;
	if (cpu->tsc_hz && clock->flags & KEEL_CLOCK_VALID) {
		/* mult = 2^32 * 1e9 / hz; compare in parts per million. */
		u64 hz = (u64)((((unsigned __int128)1000000000 << 32) / clock->mult));
		u64 diff = hz > cpu->tsc_hz ? hz - cpu->tsc_hz : cpu->tsc_hz - hz;

		CHECK(diff < cpu->tsc_hz / 1000);
		CHECK(cpu->tsc_hz > 1000000);
	}
}

KEEL_TEST("START-010", start_abi_chunk, "KEEL-START-13 KEEL-TYPE-03", "", KT_EARLY)
{
	const struct keel_abi_pages *p;
	u32 size;

	p = kt_chunk(KEEL_CHUNK_ABI, &size);
	REQUIRE(p && size >= sizeof(*p));
	CHECK_EQ(p->vcpu_va, kt_vcpu->self);
	CHECK_EQ(p->vcpus, HC(KEEL_CALL_BASE_LIMIT, KEEL_LIMIT_VCPUS).value);
	CHECK_EQ(p->reserved0, 0);
	CHECK(p->vcpus == 1 || p->vcpu_stride >= KEEL_VCPU_PAGE_SIZE);
	CHECK_EQ(type_at(p->clock_gpa), KEEL_MEM_ABI);
	CHECK_EQ(type_at(p->start_gpa), KEEL_MEM_ABI);
	CHECK(p->clock_va && p->clock_gpa % 4096 == 0 && p->start_gpa % 4096 == 0);
}

KEEL_TEST("START-011", start_abi_gpas, "KEEL-START-13 KEEL-MMU-20", "", 0)
{
	const struct keel_abi_pages *p;
	const struct keel_start *s = (const struct keel_start *)KT_VA;
	const struct keel_clock *c = (const struct keel_clock *)(KT_VA + 0x10000);
	u32 size;

	p = kt_chunk(KEEL_CHUNK_ABI, &size);
	REQUIRE(p);
	OK(MAP(KT_VA, p->start_gpa, 4096, KEEL_PROT_R));
	OK(MAP(KT_VA + 0x10000, p->clock_gpa, 4096, KEEL_PROT_R));
	CHECK_EQ(s->magic, KEEL_START_MAGIC);
	CHECK(!memcmp(s, kt_start, kt_start->size < 4096 ? kt_start->size : 4096));
	CHECK_EQ(c->wall_ns, ((const struct keel_clock *)p->clock_va)->wall_ns);
	CHECK(kt_probe_write(KT_VA, 0));
	CHECK(kt_probe_write(KT_VA + 0x10000, 0));
}

KEEL_TEST("START-012", start_linear, "KEEL-START-14 KEEL-IMAGE-13 KEEL-START-04", "", KT_EARLY)
{
	const struct keel_linear_map *l;
	u32 size;

	l = kt_chunk(KEEL_CHUNK_LINEAR, &size);
	REQUIRE(l && size >= sizeof(*l));
	CHECK_EQ(l->va, KT_LINEAR);
	CHECK_EQ(l->len, kt_ram_size());
	*(volatile u64 *)kt_ram(l->len - 8) = 77;
	CHECK_EQ(*(volatile u64 *)(l->va + l->len - 8), 77);
	CHECK_EQ(*(volatile u64 *)kt_ram(kt_gpa(&kt_seed)), kt_seed);
}

KEEL_TEST("START-013", start_module, "KEEL-START-10 KEEL-START-07 KEEL-START-04", "module=10007", KT_EARLY)
{
	const struct keel_module *m;
	const u8 *b;
	u32 size;

	CHECK_EQ(count_chunks(KEEL_CHUNK_MODULE), 1);
	m = kt_chunk(KEEL_CHUNK_MODULE, &size);
	REQUIRE(m && size >= sizeof(*m));
	CHECK_EQ(m->gpa % 4096, 0);
	REQUIRE(m->len == 10007 && m->gpa + m->len <= kt_ram_size());
	b = kt_ram(m->gpa);
	for (u32 i = 0; i < 12288; i++)
		if (b[i] != (i < 10007 ? (u8)(i * 7) : 0)) {
			KT_FAIL("module byte %u is %x", i, b[i]);
			break;
		}
	for (u64 g = m->gpa; g < m->gpa + m->len; g += 4096)
		CHECK_EQ(type_at(g), KEEL_MEM_MODULE);
	CHECK_EQ(type_at(m->gpa - 1), KEEL_MEM_RAM);
	CHECK_EQ(kt_query(KT_LINEAR), 0); /* STATE before the freeze */
}

KEEL_TEST("START-014", start_immutable, "KEEL-START-15", "neg", 0)
{
	u64 h = kt_hash(1, kt_start, kt_start->size);

	for (u64 i = 0; i < kt_start->size; i += 509)
		CHECK(kt_probe_write((u64)kt_start + i, 0x55));
	CHECK_EQ(kt_trap_frame.vector, KEEL_VEC_PF);
	CHECK_EQ(kt_trap_frame.error, KEEL_PF_P | KEEL_PF_W);
	for (int i = 0; i < 100; i++)
		HC(KEEL_CALL_BASE_PING, i);
	CHECK_EQ(kt_hash(1, kt_start, kt_start->size), h);
}
