// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* INIT: the state a vCPU starts in. All of it was recorded by _start before anything was touched. */
#include "kt.h"

KEEL_TEST("INIT-001", init_registers, "KEEL-INIT-01", "", KT_EARLY)
{
	CHECK(kt_init.rdi >= KEEL_VA_END);
	CHECK_EQ(kt_init.rax, 0);
	CHECK_EQ(kt_init.rbx, 0);
	CHECK_EQ(kt_init.rcx, 0);
	CHECK_EQ(kt_init.rdx, 0);
	CHECK_EQ(kt_init.rsi, 0);
	CHECK_EQ(kt_init.rbp, 0);
	CHECK_EQ(kt_init.r8, 0);
	CHECK_EQ(kt_init.r9, 0);
	CHECK_EQ(kt_init.r10, 0);
	CHECK_EQ(kt_init.r11, 0);
	CHECK_EQ(kt_init.r12, 0);
	CHECK_EQ(kt_init.r13, 0);
	CHECK_EQ(kt_init.r14, 0);
	CHECK_EQ(kt_init.r15, 0);
	CHECK_EQ(kt_init_rsp, 0);
}

KEEL_TEST("INIT-002", init_flags, "KEEL-INIT-01", "", KT_EARLY)
{
	/* Arithmetic flags, TF, DF, NT, AC; IF may show as set (KEEL-NORM-09). */
	CHECK_EQ(kt_init.rflags & ~KEEL_U64(0x200), 2);
}

KEEL_TEST("INIT-003", init_fp_control, "KEEL-INIT-03", "", KT_EARLY)
{
	u16 fcw, fsw;
	u32 mxcsr;

	memcpy(&fcw, kt_init_fx, 2);
	memcpy(&fsw, kt_init_fx + 2, 2);
	memcpy(&mxcsr, kt_init_fx + 24, 4);
	CHECK_EQ(fcw, 0x37f);
	CHECK_EQ(fsw, 0);
	CHECK_EQ(kt_init_fx[4], 0); /* every x87 register empty */
	CHECK_EQ(mxcsr, 0x1f80);
}

KEEL_TEST("INIT-004", init_vectors_zero, "KEEL-INIT-03", "", KT_EARLY)
{
	static u8 area[16384] __attribute__((aligned(64)));
	const struct keel_cpu_info *cpu;
	u32 size;

	for (int i = 32; i < 160; i++)
		if (kt_init_fx[i] && (i - 32) % 16 < 10)
			KT_FAIL("x87 register byte %d is %x", i, kt_init_fx[i]);
	for (int i = 160; i < 416; i++)
		if (kt_init_fx[i])
			KT_FAIL("XMM byte %d is %x", i, kt_init_fx[i]);
	cpu = kt_chunk(KEEL_CHUNK_CPU, &size);
	REQUIRE(cpu && cpu->xsave_size <= sizeof(area));
	if (cpu->xfeatures >> 2) {
		/* Nothing here has used them since the start: the runtime is built without them. */
		__asm__ volatile("xsave64 (%0)"
				 :
				 : "r"(area), "a"((u32)cpu->xfeatures), "d"(cpu->xfeatures >> 32)
				 : "memory");
		for (u32 c = 2; c < 9; c++)
			for (u32 i = 0; cpu->xfeatures >> c & 1 && i < cpu->xsave_bytes[c]; i++)
				if (area[cpu->xsave_offset[c] + i]) {
					KT_FAIL("component %u byte %u is %x", c, i, area[cpu->xsave_offset[c] + i]);
					break;
				}
	}
}

KEEL_TEST("INIT-005", init_vcpu_page, "KEEL-INIT-04 KEEL-INIT-02 KEEL-TYPE-03 KEEL-TYPE-08", "", KT_EARLY)
{
	const volatile u64 *w = (const volatile u64 *)kt_vcpu;

	CHECK_EQ(kt_vcpu->self, (u64)kt_vcpu);
	CHECK(kt_vcpu->gate >= KEEL_VA_END);
	CHECK_EQ(kt_vcpu->start, kt_init.rdi);
	CHECK_EQ(kt_vcpu->id, 0);
	CHECK_EQ(kt_init_if, 0);
	CHECK_EQ(kt_vcpu->if_enabled, 0);
	for (u32 off = 0x18; off < KEEL_VCPU_EVENT_MASK; off += 8)
		if (w[off / 8])
			KT_FAIL("vCPU page offset %x is %lx", off, w[off / 8]);
	for (u32 w64 = 0; w64 < 64; w64++)
		CHECK_EQ(kt_vcpu->event_mask[w64], ~0ull);
	for (u32 off = 0xc00; off < 0x1000; off += 8)
		if (w[off / 8])
			KT_FAIL("vCPU page offset %x is %lx", off, w[off / 8]);
}

KEEL_TEST("INIT-006", init_fs_base, "KEEL-INIT-02", "", KT_EARLY)
{
	const struct keel_cpu_info *cpu;
	u64 fs = 1;
	u32 size;

	cpu = kt_chunk(KEEL_CHUNK_CPU, &size);
	REQUIRE(cpu);
	if (cpu->cpuid[2] & 1) { /* FSGSBASE; without it only a load can tell */
		__asm__ volatile("rdfsbase %0" : "=r"(fs));
		CHECK_EQ(fs, 0);
	}
	__asm__ volatile("mov %%fs:(%1), %0" : "=r"(fs) : "r"(KT_LINEAR + KT_SCRATCH_GPA));
	CHECK_EQ(fs, *(u64 *)kt_ram(KT_SCRATCH_GPA));
}

KEEL_TEST("INIT-007", init_ram_zero, "KEEL-INIT-06 KEEL-START-06", "timeout=30", KT_EARLY)
{
	const struct keel_memmap_entry *m;
	u64 bad = 0, seen = 0, step = kt_scale > 100 ? 127 * 8 : 8; /* scaled: other places in every page */
	u32 size;

	for (m = kt_chunk(KEEL_CHUNK_MEMMAP, &size); size >= sizeof(*m); m++, size -= sizeof(*m)) {
		if (m->type != KEEL_MEM_RAM)
			continue;
		for (u64 a = m->gpa; a < m->gpa + m->len; a += step, seen += step)
			if (*(u64 *)kt_ram(a) && !bad++)
				KT_FAIL("RAM at %lx is %lx", a, *(u64 *)kt_ram(a));
	}
	CHECK(seen > 16 << 20);
}

KEEL_TEST("INIT-008", init_as_exact, "KEEL-INIT-05 KEEL-IMAGE-09 KEEL-IMAGE-13 KEEL-AS-06", "", 0)
{
	u64 text = 0x400000, end = (u64)kt_image_end;
	u64 ram = kt_ram_size();

	CHECK_EQ(kt_query(text), (text - KT_IMAGE_OFFSET) | KEEL_PROT_R | KEEL_PROT_X);
	CHECK_EQ(kt_query((u64)&kt_code & ~0xfffull), kt_gpa((void *)((u64)&kt_code & ~0xfffull)) | KEEL_PROT_R);
	CHECK_EQ(kt_query((u64)kt_stack), kt_gpa(kt_stack) | KEEL_PROT_R | KEEL_PROT_W);
	for (u64 va = text; va < end; va += 4096)
		CHECK_EQ(kt_query(va) & ~7ull, va - KT_IMAGE_OFFSET);
	CHECK_EQ(kt_query(end), 0);
	CHECK_EQ(kt_query(text - 4096), 0);
	CHECK_EQ(kt_query(KEEL_VA_MIN), 0);
	CHECK_EQ(kt_query(KEEL_VA_END - 4096), 0);
	CHECK_EQ(kt_query(KT_LINEAR - 4096), 0);
	CHECK_EQ(kt_query(KT_LINEAR + ram), 0);
	for (u64 g = 0; g < ram; g += 4096)
		if (kt_query(KT_LINEAR + g) != (g | KEEL_PROT_R | KEEL_PROT_W))
			KT_FAIL("linear map of %lx is %lx", g, kt_query(KT_LINEAR + g));
	for (u64 va = 0x20000; va < KEEL_VA_END; va *= 2)
		if (va != text && va != KT_LINEAR)
			CHECK_EQ(kt_query(va), 0);
}

KEEL_TEST("INIT-009", init_protections_hold, "KEEL-IMAGE-09 KEEL-NORM-05 KEEL-INIT-05", "neg", 0)
{
	CHECK(kt_probe_write(0x400000, 0));
	CHECK_EQ(kt_trap_frame.error, KEEL_PF_P | KEEL_PF_W);
	CHECK(kt_probe_write((u64)kt_code, 0));
	CHECK(kt_probe_exec((u64)kt_code));
	CHECK_EQ(kt_trap_frame.error, KEEL_PF_P | KEEL_PF_X);
	CHECK(kt_probe_exec((u64)kt_stack));
	CHECK(kt_probe_exec(KT_LINEAR + KT_SCRATCH_GPA));
	CHECK(!kt_probe_write(KT_LINEAR + KT_SCRATCH_GPA, 1));
	CHECK(kt_probe_read((u64)kt_image_end));
	CHECK_EQ(kt_trap_frame.error, 0);
}

KEEL_TEST("INIT-010", init_bss, "KEEL-IMAGE-09", "", KT_EARLY)
{
	static u8 zeros[3 * 4096 + 5];
	static u64 value = 0x1122334455667788;
	static const char text[] = "constant";
	volatile u64 *v = &value;
	u64 tail = (u64)kt_image_end;

	for (size_t i = 0; i < sizeof(zeros); i++)
		CHECK(!zeros[i]);
	CHECK_EQ(*v, 0x1122334455667788);
	CHECK(!strcmp(text, "constant"));
	CHECK_EQ(tail & 0xfff, 0);
}

KEEL_TEST("INIT-011", init_abi_pages, "KEEL-INIT-07 KEEL-START-15 KEEL-TIME-07", "neg", 0)
{
	const struct keel_abi_pages *p;
	u32 size;

	p = kt_chunk(KEEL_CHUNK_ABI, &size);
	REQUIRE(p);
	CHECK(kt_vcpu->gate >= KEEL_VA_END && (u64)kt_vcpu >= KEEL_VA_END);
	CHECK((u64)kt_start >= KEEL_VA_END && p->clock_va >= KEEL_VA_END);
	CHECK(!kt_probe_read(p->clock_va));
	CHECK(kt_probe_write(p->clock_va, 0));
	CHECK_EQ(kt_trap_frame.error, KEEL_PF_P | KEEL_PF_W);
	CHECK_EQ(kt_trap_frame.addr, p->clock_va);
	CHECK(kt_probe_write((u64)kt_start, 0));
	CHECK_EQ(kt_trap_frame.error, KEEL_PF_P | KEEL_PF_W);
	CHECK_EQ(kt_trap_frame.addr, (u64)kt_start);
	CHECK_EQ(kt_start->magic, KEEL_START_MAGIC);
	CHECK(!kt_probe_write((u64)&kt_vcpu->guest[7], 9));
	CHECK_EQ(kt_vcpu->guest[7], 9);
}

KEEL_TEST("INIT-012", init_nothing_set, "KEEL-INIT-08", "", KT_EARLY)
{
	for (u32 e = 1; e < KEEL_EXT_COUNT; e++)
		CHECK_EQ(HC(KEEL_CALL_BASE_PROBE, e).value & KEEL_PROBE_ACCEPTED, 0);
	kt_accept_all();
	OK(HC(KEEL_CALL_BASE_FREEZE)); /* so nothing was frozen */
	NEG(HC(KEEL_CALL_TIME_SET_TIMER, 0), KEEL_E_STATE, 0);
	NEG(HC(KEEL_CALL_EVENT_SEND, 0), KEEL_E_NOENT, ARG(1));
	OK(HC(KEEL_CALL_CONSOLE_SETUP, KT_SCRATCH_GPA, KEEL_CONSOLE_RING_SIZE)); /* EXIST if there were one */
	OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
	kt_bind(KEEL_SOURCE_TIMER, 0);
	kt_bind(KEEL_SOURCE_CONSOLE, 0);
}
