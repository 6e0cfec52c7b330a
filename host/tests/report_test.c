// SPDX-License-Identifier: MIT
/* Symbols, backtraces, the report's text and the ELF core, on what a hostile guest may leave behind. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <unistd.h>

#include "../report.h"
#include "../symbols.h"
#include "tests.h"

static struct keel_options options = { .mem = 4 << 20, .vcpus = 1, .cmdline = "", .image = "dir/IMAGE" };

struct fixture {
	struct partition p;
	struct image img;
	struct crash_info crash;
	struct backend_ops ops;
};

static void setup(struct fixture *f)
{
	struct test_image t;
	struct error e;

	memset(f, 0, sizeof(*f));
	test_image_init(&t);
	assert_int_equal(test_image_open(&f->img, &t, &e), 0);
	test_partition(&f->p, &options, &f->img);
	f->ops = test_backend;
	f->p.ops = &f->ops;
	f->crash.have_regs = true;
	f->crash.regs.rip = TEXT_VA + 0x25;
	strcpy(f->crash.reason, "trap 14");
}

static void teardown(struct fixture *f)
{
	partition_destroy(&f->p);
	image_close(&f->img);
}

static void test_symbols(void **state)
{
	static const struct {
		uint64_t addr;
		const char *name;
		uint64_t offset;
	} cases[] = {
		{ TEXT_VA, NULL, 0 },
		{ TEXT_VA + 0x0f, NULL, 0 },
		{ TEXT_VA + 0x10, "start", 0 },
		{ TEXT_VA + 0x1f, "start", 15 },
		{ TEXT_VA + 0x20, "middle", 0 },
		{ TEXT_VA + 0x2f, "middle", 15 },
		{ TEXT_VA + 0x30, NULL, 0 },
		{ TEXT_VA + 0x40, "end", 0 },
		{ TEXT_VA + 0x50, "end", 16 },
		{ TEXT_VA + 0x10000000, NULL, 0 },
		{ 0, NULL, 0 },
		{ UINT64_MAX, NULL, 0 },
	};
	struct fixture f;
	struct symbols s;

	(void)state;
	setup(&f);
	symbols_load(&s, &f.img);
	assert_int_equal(s.count, 3);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t offset = 0;
		const char *name = symbols_find(&s, cases[i].addr, &offset);

		if (!cases[i].name) {
			assert_null(name);
			continue;
		}
		assert_non_null(name);
		assert_string_equal(name, cases[i].name);
		assert_int_equal(offset, cases[i].offset);
	}
	symbols_free(&s);
	teardown(&f);
}

/* Section headers and tables with anything in them: no names, or some, and no harm. */
static void test_bad_symbols(void **state)
{
	uint64_t seed = 88172645463325252;

	(void)state;
	for (int round = 0; round < 3000; round++) {
		static const uint64_t edges[] = { 0,  1,      2,	  3,	      23,	24,
						  25, 0xffff, 0xffffffff, UINT64_MAX, 64 << 20, (64 << 20) + 1 };
		struct test_image t;
		struct symbols s;
		struct image img;
		struct error e;
		uint64_t offset, v;
		size_t at, size;

		test_image_init(&t);
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		v = edges[seed % (sizeof(edges) / sizeof(edges[0]))];
		at = offsetof(struct test_image, sh) +
		     seed / 16 % (offsetof(struct test_image, text) - offsetof(struct test_image, sh));
		size = seed >> 60 < 8 ? 8 : 4;
		memcpy((uint8_t *)&t + at / size * size, &v, size);
		if (!(round % 7))
			t.eh.e_shnum = (uint16_t)v;
		if (!(round % 11))
			t.eh.e_shoff = v;
		assert_int_equal(test_image_open(&img, &t, &e), 0);
		symbols_load(&s, &img);
		for (uint64_t a = TEXT_VA; a < TEXT_VA + 0x60; a += 8) {
			const char *name = symbols_find(&s, a, &offset);

			assert_true(!name || strlen(name) < sizeof(t.strings) + 1);
		}
		symbols_free(&s);
		image_close(&img);
	}
}

/* Frames in the data segment: return addresses from the innermost outwards. */
static void push_frame(struct fixture *f, uint64_t at, uint64_t next, uint64_t ret)
{
	memcpy(f->p.ram + DATA_GPA + (at - DATA_VA), &next, 8);
	memcpy(f->p.ram + DATA_GPA + (at - DATA_VA) + 8, &ret, 8);
}

static unsigned int backtrace(struct fixture *f, uint64_t *pc, unsigned int max)
{
	struct symbols s;
	unsigned int n;

	symbols_load(&s, &f->img);
	n = report_backtrace(&f->p, &f->crash, &s, pc, max);
	symbols_free(&s);
	return n;
}

static void test_backtrace(void **state)
{
	struct fixture f;
	uint64_t pc[64];

	(void)state;
	setup(&f);
	f.crash.regs.rbp = DATA_VA + 0x100;
	push_frame(&f, DATA_VA + 0x100, DATA_VA + 0x200, TEXT_VA + 0x15);
	push_frame(&f, DATA_VA + 0x200, 0, TEXT_VA + 0x16);
	assert_int_equal(backtrace(&f, pc, 64), 3);
	assert_int_equal(pc[0], TEXT_VA + 0x25);
	assert_int_equal(pc[1], TEXT_VA + 0x15);
	assert_int_equal(pc[2], TEXT_VA + 0x16);
	assert_int_equal(backtrace(&f, pc, 2), 2);
	assert_int_equal(backtrace(&f, pc, 0), 0);
	/* At a function's first instruction the caller is on top of the stack. */
	f.crash.regs.rip = TEXT_VA + 0x20;
	f.crash.regs.rsp = DATA_VA + 0x80;
	push_frame(&f, DATA_VA + 0x80, TEXT_VA + 0x1a, 0);
	assert_int_equal(backtrace(&f, pc, 64), 4);
	assert_int_equal(pc[1], TEXT_VA + 0x1a);
	f.crash.regs.rip = TEXT_VA + 0x25;
	/* Loops, frames that go back, that are misaligned, nowhere, or cut by the end of a segment. */
	push_frame(&f, DATA_VA + 0x200, DATA_VA + 0x100, TEXT_VA + 0x16);
	assert_int_equal(backtrace(&f, pc, 64), 3);
	push_frame(&f, DATA_VA + 0x200, DATA_VA + 0x200, TEXT_VA + 0x16);
	assert_int_equal(backtrace(&f, pc, 64), 3);
	push_frame(&f, DATA_VA + 0x200, DATA_VA + 0x301, TEXT_VA + 0x16);
	assert_int_equal(backtrace(&f, pc, 64), 3);
	push_frame(&f, DATA_VA + 0x200, UINT64_MAX - 7, TEXT_VA + 0x16);
	assert_int_equal(backtrace(&f, pc, 64), 3);
	f.crash.regs.rbp = DATA_VA + 0x4000 - 8;
	assert_int_equal(backtrace(&f, pc, 64), 1);
	f.crash.regs.rbp = LINEAR_VA + f.p.ram_size - 8;
	assert_int_equal(backtrace(&f, pc, 64), 1);
	f.crash.have_regs = false;
	assert_int_equal(backtrace(&f, pc, 64), 0);
	teardown(&f);
}

/* What a backend hands out when the guest has written to its tables. */
static struct mapping forged;
static unsigned int forged_left;

static bool forged_mapping(struct partition *p, uint64_t va, struct mapping *m)
{
	(void)p;
	(void)va;
	*m = forged;
	return forged_left && forged_left--;
}

static void test_forged_mappings(void **state)
{
	static const struct mapping bad[] = {
		{ DATA_VA, 0, 0, 1 },
		{ DATA_VA, 0, UINT64_MAX & ~UINT64_C(0xfff), 1 },
		{ DATA_VA + 1, 0, 0x1000, 1 },
		{ DATA_VA, 1, 0x1000, 1 },
		{ DATA_VA, 0, 0x1001, 1 },
		{ KEEL_VA_END, 0, 0x1000, 1 },
		{ 0x1000, 0, 0x1000, 1 },
		{ DATA_VA, UINT64_MAX & ~UINT64_C(0xfff), 0x1000, 1 },
		{ DATA_VA, UINT64_C(1) << 50, 0x1000, 1 },
		{ DATA_VA, 4 << 20, 0x1000, 1 },
	};
	struct fixture f;
	struct mapping m;
	uint8_t buf[0x2000];

	(void)state;
	setup(&f);
	f.ops.next_mapping = forged_mapping;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		forged = bad[i];
		forged_left = 3;
		assert_false(report_mapping(&f.p, 0x2000, &m));
		forged_left = 3;
		assert_false(report_read(&f.p, DATA_VA, buf, 8));
	}
	/* Cut to what is RAM, and to what was asked for. */
	forged = (struct mapping){ DATA_VA, (4 << 20) - 0x1000, 0x10000, 1 };
	forged_left = 1;
	assert_true(report_mapping(&f.p, 0, &m));
	assert_int_equal(m.len, 0x1000);
	forged = (struct mapping){ DATA_VA, 0, 0x10000, 1 };
	forged_left = 1;
	assert_true(report_mapping(&f.p, DATA_VA + 0x3000, &m));
	assert_int_equal(m.va, DATA_VA + 0x3000);
	assert_int_equal(m.gpa, 0x3000);
	assert_int_equal(m.len, 0xd000);
	/* ABI pages may be mapped too. */
	forged = (struct mapping){ DATA_VA, f.p.abi_gpa, 0x1000, 1 };
	forged_left = 1;
	assert_true(report_read(&f.p, DATA_VA, buf, 0x1000));
	assert_memory_equal(buf, f.p.abi, 0x40);
	teardown(&f);
}

static char *report_text(struct fixture *f, const char *core)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	report_crash(out, &f->p, &f->crash, core);
	fclose(out);
	return text;
}

static void expect(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("no \"%s\" in:\n%s", part, text);
}

static void test_report(void **state)
{
	struct fixture f;
	char *text;

	(void)state;
	setup(&f);
	f.crash.regs.vector = KEEL_VEC_PF;
	f.crash.regs.addr = 0x1234;
	f.crash.regs.r15 = 0xfeedface;
	f.crash.traces = 3;
	f.crash.trace[0] = (struct trace_entry){ KEEL_CALL_TRAP_SET, 1, { 0, 0x400000, 0 }, 0, 0 };
	f.crash.trace[1] =
		(struct trace_entry){ KEEL_CALL_MMU_QUERY, 1, { 0, 0x1000 }, KEEL_STATUS(KEEL_E_NOENT, 2), 0 };
	f.crash.trace[2] = (struct trace_entry){ 0xdeadbeef, 0, { 1, 2, 3, 4, 5 }, 0, 0 };
	text = report_text(&f, "x.core");
	expect(text, "keel: crash: trap 14\n");
	expect(text, "vector 14 (page fault)");
	expect(text, "r15 00000000feedface");
	expect(text, "trap_set(class=0, entry=0x400000, stack=0) = OK, value 0");
	expect(text, "mmu_query(as=0, va=0x1000) = NOENT (argument 2), value 0");
	expect(text, "call 0xdeadbeef(0x1, 0x2, 0x3, 0x4, 0x5), not returned");
	expect(text, "middle+0x5");
	expect(text, "gdb -ex bt IMAGE x.core");
	free(text);
	/* Numbers out of all bounds, and text that would drive a terminal. */
	f.crash.traces = UINT32_MAX;
	f.crash.regs.vector = UINT32_MAX;
	f.crash.trace[3].returned = 1;
	f.crash.trace[3].status = INT64_MIN;
	f.crash.guest_call = true;
	f.crash.guest_reason = UINT32_MAX;
	strcpy(f.crash.message, "line\n\033[2Jcleared\x9b");
	memset(f.crash.reason, '\033', sizeof(f.crash.reason));
	text = report_text(&f, NULL);
	assert_null(strchr(text, '\033'));
	assert_null(strchr(text, '\x9b'));
	expect(text, "keel:   line\nkeel:   .[2Jcleared.\n");
	expect(text, "addr2line -fpe IMAGE 0x400025");
	for (char *line = text; *line; line = strchr(line, '\n') + 1)
		assert_memory_equal(line, "keel:", 5);
	free(text);
	teardown(&f);
}

static Elf64_Phdr *find_load(Elf64_Phdr *ph, unsigned int n, uint64_t va)
{
	for (unsigned int i = 0; i < n; i++)
		if (ph[i].p_type == PT_LOAD && ph[i].p_vaddr == va)
			return &ph[i];
	fail_msg("no PT_LOAD at %#lx", va);
	return NULL;
}

static void test_core_file(void **state)
{
	char path[] = "/tmp/keel-core-XXXXXX";
	struct elf_prstatus status;
	struct user_regs_struct regs;
	struct keel_vcpu vcpu;
	struct fixture f;
	struct error e = { "" };
	struct stat st;
	Elf64_Ehdr eh;
	Elf64_Phdr ph[16], *data;
	Elf64_Nhdr nh;
	uint8_t buf[64];
	int fd;

	(void)state;
	setup(&f);
	memset(&vcpu, 0, sizeof(vcpu));
	f.p.vcpu[0] = &vcpu;
	f.crash.regs.r13 = 0x1313;
	fd = mkstemp(path);
	if (elfcore_write(elfcore_open(path, true), path, &f.p, &f.crash, &e))
		fail_msg("%s", e.text);
	assert_int_equal(pread(fd, &eh, sizeof(eh), 0), sizeof(eh));
	assert_memory_equal(eh.e_ident, ELFMAG, SELFMAG);
	assert_int_equal(eh.e_type, ET_CORE);
	assert_int_equal(eh.e_phnum, 1 + 3 + 2); /* notes; text, data, linear; ABI pages, vCPU page */
	assert_int_equal(pread(fd, ph, eh.e_phnum * sizeof(ph[0]), eh.e_phoff), eh.e_phnum * sizeof(ph[0]));
	assert_int_equal(ph[0].p_type, PT_NOTE);
	assert_int_equal(pread(fd, &nh, sizeof(nh), ph[0].p_offset), sizeof(nh));
	assert_int_equal(nh.n_type, NT_PRSTATUS);
	assert_int_equal(nh.n_descsz, sizeof(status));
	assert_int_equal(pread(fd, &status, sizeof(status), ph[0].p_offset + sizeof(nh) + 8), sizeof(status));
	memcpy(&regs, &status.pr_reg, sizeof(regs));
	assert_int_equal(regs.rip, TEXT_VA + 0x25);
	assert_int_equal(regs.r13, 0x1313);
	data = find_load(ph, eh.e_phnum, DATA_VA);
	assert_int_equal(data->p_flags, PF_R | PF_W);
	assert_int_equal(data->p_memsz, 0x4000);
	assert_int_equal(pread(fd, buf, sizeof(buf), data->p_offset), sizeof(buf));
	assert_int_equal(buf[0], 0xdd);
	/* The linear map shows the same bytes once more. */
	data = find_load(ph, eh.e_phnum, LINEAR_VA);
	assert_int_equal(data->p_memsz, f.p.ram_size);
	assert_int_equal(pread(fd, buf, sizeof(buf), data->p_offset + DATA_GPA), sizeof(buf));
	assert_int_equal(buf[0], 0xdd);
	/* Untouched memory takes no space, and was not touched by this. */
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_size > 4 << 20 && st.st_blocks * 512 < 200000);
	assert_int_equal(fstat(f.p.ram_fd, &st), 0);
	assert_true(st.st_blocks * 512 < 100000);
	close(fd);
	unlink(path);
	f.p.vcpu[0] = NULL;
	teardown(&f);
}

static void test_core_errors(void **state)
{
	struct fixture f;
	struct error e = { "" };
	char buf[64], link[] = "/tmp/keel-link-XXXXXX";
	int fd;

	(void)state;
	setup(&f);
	assert_int_equal(
		elfcore_write(elfcore_open("/nonexistent/core", true), "/nonexistent/core", &f.p, &f.crash, &e), -1);
	assert_string_equal(e.text, "cannot write the core /nonexistent/core: No such file or directory");
	assert_int_equal(elfcore_write(elfcore_open("/dev/null", true), "/dev/null", &f.p, &f.crash, &e), -1);
	assert_non_null(strstr(e.text, "not a regular file"));
	/* A name of our own is not followed through a link that somebody left there. */
	fd = mkstemp(link);
	close(fd);
	unlink(link);
	assert_int_equal(symlink("/tmp/keel-victim", link), 0);
	assert_int_equal(elfcore_write(elfcore_open(link, false), link, &f.p, &f.crash, &e), -1);
	assert_int_equal(access("/tmp/keel-victim", F_OK), -1);
	unlink(link);
	assert_string_equal(elfcore_path(&options, buf, sizeof(buf)), "IMAGE.core");
	options.core = "none";
	assert_null(elfcore_path(&options, buf, sizeof(buf)));
	options.core = "here";
	assert_string_equal(elfcore_path(&options, buf, sizeof(buf)), "here");
	options.core = NULL;
	teardown(&f);
}

/* All of RAM, mapped at every address there is. */
static bool endless_mapping(struct partition *p, uint64_t va, struct mapping *m)
{
	uint64_t at = (va + p->ram_size - 1) / p->ram_size * p->ram_size;

	*m = (struct mapping){ at, 0, p->ram_size, KEEL_PROT_R };
	return at < KEEL_VA_END - p->ram_size;
}

static void test_core_bounded(void **state)
{
	char path[] = "/tmp/keel-core-XXXXXX";
	struct fixture f;
	struct error e = { "" };
	struct stat st;
	int fd;

	(void)state;
	setup(&f);
	f.ops.next_mapping = endless_mapping;
	memset(f.p.ram, 0x11, f.p.ram_size);
	fd = mkstemp(path);
	if (elfcore_write(elfcore_open(path, true), path, &f.p, &f.crash, &e))
		fail_msg("%s", e.text);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true((uint64_t)st.st_blocks * 512 < 5 * f.p.ram_size + (80 << 20));
	close(fd);
	unlink(path);
	teardown(&f);
}

const struct CMUnitTest report_tests[] = {
	cmocka_unit_test(test_symbols),		cmocka_unit_test(test_bad_symbols),  cmocka_unit_test(test_backtrace),
	cmocka_unit_test(test_forged_mappings), cmocka_unit_test(test_report),	     cmocka_unit_test(test_core_file),
	cmocka_unit_test(test_core_errors),	cmocka_unit_test(test_core_bounded),
};
DEFINE_TESTS(report);
