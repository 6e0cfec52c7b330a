// SPDX-License-Identifier: MIT
/* The start info, read back by the guest's own parser. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <hypercall/clock.h>
#include <hypercall/start.h>

#include "../startinfo.h"
#include "tests.h"

static struct keel_options options = { .mem = 4 << 20, .vcpus = 1, .image = "IMAGE" };

static void make(struct partition *p, struct image *img)
{
	struct test_image t;
	struct error e;

	test_image_init(&t);
	assert_int_equal(test_image_open(img, &t, &e), 0);
	test_partition(p, &options, img);
}

static const struct keel_start *start_of(const struct partition *p)
{
	const struct keel_start *s = (const void *)(p->abi + STARTINFO_OFFSET);

	assert_int_equal(keel_start_check(s, STARTINFO_SIZE), 0);
	return s;
}

static unsigned int count_chunks(const struct keel_start *s, uint32_t type)
{
	const struct keel_chunk *c = NULL;
	unsigned int n = 0;

	while ((c = keel_start_find(s, type, c)))
		n++;
	return n;
}

/* KEEL-START-05 to 07. Returns the RAM the map covers. */
static uint64_t check_memmap(const struct partition *p, const struct keel_start *s)
{
	const struct keel_memmap_entry *m;
	uint64_t at = 0, ram = 0;
	size_t n;

	m = keel_start_memmap(s, &n);
	assert_non_null(m);
	for (size_t i = 0; i < n; i++) {
		assert_true(m[i].len && !((m[i].gpa | m[i].len) % KEEL_PAGE_SIZE) && !m[i].reserved);
		assert_true(m[i].gpa >= at);
		if (m[i].type == KEEL_MEM_ABI) {
			assert_true(m[i].gpa >= p->ram_size);
		} else {
			assert_int_equal(m[i].gpa, at);
			ram += m[i].len;
		}
		at = m[i].gpa + m[i].len;
	}
	return ram;
}

static bool covered(const struct keel_start *s, uint64_t gpa, uint64_t len, uint32_t type)
{
	const struct keel_memmap_entry *m;
	size_t n;

	m = keel_start_memmap(s, &n);
	for (size_t i = 0; i < n; i++)
		if (m[i].type == type && gpa >= m[i].gpa && gpa + len <= m[i].gpa + m[i].len)
			return true;
	return false;
}

static void test_chunks(void **state)
{
	const struct keel_start *s;
	const struct keel_abi_pages *abi;
	const struct keel_linear_map *linear;
	struct partition p;
	struct image img;

	(void)state;
	options.cmdline = "root=/dev/none quiet";
	make(&p, &img);
	s = start_of(&p);
	for (uint32_t type = 1; type <= 7; type++)
		assert_int_equal(count_chunks(s, type), type == KEEL_CHUNK_MODULE ? 0 : 1);
	assert_string_equal(keel_start_cmdline(s), "root=/dev/none quiet");
	assert_int_equal(check_memmap(&p, s), p.ram_size);
	assert_true(covered(s, TEXT_GPA, 0x1000, KEEL_MEM_IMAGE));
	assert_true(covered(s, DATA_GPA, 0x4000, KEEL_MEM_IMAGE));
	assert_true(covered(s, p.abi_gpa, p.abi_size, KEEL_MEM_ABI));
	abi = keel_start_abi(s);
	assert_int_equal(abi->clock_va, ABI_VA);
	assert_int_equal(abi->clock_gpa, p.abi_gpa);
	assert_int_equal(abi->start_gpa, p.abi_gpa + STARTINFO_OFFSET);
	assert_int_equal(abi->vcpu_va, VCPU_VA);
	assert_int_equal(abi->vcpus, 1);
	linear = keel_start_linear(s);
	assert_int_equal(linear->va, LINEAR_VA);
	assert_int_equal(linear->len, p.ram_size);
	partition_destroy(&p);
	image_close(&img);
	options.cmdline = "";
}

static void test_entropy(void **state)
{
	uint8_t first[KEEL_ENTROPY_SIZE];
	struct partition p;
	struct image img;

	(void)state;
	make(&p, &img);
	memcpy(first, keel_start_entropy(start_of(&p)), sizeof(first));
	partition_destroy(&p);
	image_close(&img);
	make(&p, &img);
	assert_memory_not_equal(first, keel_start_entropy(start_of(&p)), sizeof(first));
	partition_destroy(&p);
	image_close(&img);
}

static void test_longest_cmdline(void **state)
{
	static char longest[KEEL_CMDLINE_MAX];
	struct partition p;
	struct image img;

	(void)state;
	memset(longest, 'x', sizeof(longest) - 1);
	options.cmdline = longest;
	make(&p, &img);
	assert_string_equal(keel_start_cmdline(start_of(&p)), longest);
	partition_destroy(&p);
	image_close(&img);
	options.cmdline = "";
}

static char *temp_file(size_t size)
{
	static char path[] = "/tmp/keel-initrd-XXXXXX";
	uint8_t *bytes = malloc(size);
	int fd;

	strcpy(path + sizeof(path) - 7, "XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0 && bytes);
	memset(bytes, 0xab, size);
	assert_int_equal(write(fd, bytes, size), size);
	free(bytes);
	close(fd);
	return path;
}

static void test_initrd(void **state)
{
	const struct keel_module *m;
	struct partition p;
	struct image img;

	(void)state;
	options.initrd = temp_file(10000);
	make(&p, &img);
	m = keel_start_module(start_of(&p), 0);
	assert_non_null(m);
	assert_int_equal(m->len, 10000);
	assert_int_equal(m->gpa, p.ram_size - 3 * KEEL_PAGE_SIZE);
	assert_int_equal(p.ram[m->gpa], 0xab);
	assert_int_equal(p.ram[m->gpa + 9999], 0xab);
	assert_int_equal(p.ram[m->gpa + 10000], 0);
	assert_true(covered(start_of(&p), m->gpa, 3 * KEEL_PAGE_SIZE, KEEL_MEM_MODULE));
	assert_int_equal(check_memmap(&p, start_of(&p)), p.ram_size);
	partition_destroy(&p);
	image_close(&img);
	unlink(options.initrd);
	options.initrd = NULL;
}

static void refused_initrd(const char *path, const char *says)
{
	struct test_image t;
	struct partition p;
	struct image img;
	struct error e = { "" };

	test_image_init(&t);
	assert_int_equal(test_image_open(&img, &t, &e), 0);
	options.initrd = path;
	assert_int_equal(partition_create(&p, &options, &img, &e), -1);
	if (!strstr(e.text, says))
		fail_msg("\"%s\" instead of \"%s\"", e.text, says);
	image_close(&img);
	options.initrd = NULL;
}

static void test_bad_initrd(void **state)
{
	char *path;

	(void)state;
	refused_initrd("/nonexistent", "No such file");
	refused_initrd("/", "not a regular file");
	path = temp_file(0);
	refused_initrd(path, "empty");
	unlink(path);
	path = temp_file((4 << 20) + 1);
	refused_initrd(path, "do not fit");
	unlink(path);
	/* Fits into memory, but not beside the image. */
	path = temp_file((4 << 20) - DATA_GPA);
	refused_initrd(path, "and the image do not fit");
	unlink(path);
}

/* KEEL-START-11, against the processor. */
static void test_cpu(void **state)
{
	struct keel_cpu_info cpu;

	(void)state;
	startinfo_cpu(&cpu);
	assert_int_equal(cpu.xfeatures & 3, 3);
	assert_int_equal(cpu.xfeatures & ~UINT64_C(0xe7), 0);
	assert_true(cpu.xsave_size >= 576);
	assert_int_equal(cpu.reserved0, 0);
	for (unsigned int i = 0; i < 16; i++) {
		if (i >= 2 && cpu.xfeatures >> i & 1) {
			assert_true(cpu.xsave_bytes[i] && cpu.xsave_offset[i] >= 576);
			assert_true(cpu.xsave_offset[i] + cpu.xsave_bytes[i] <= cpu.xsave_size);
		} else {
			assert_int_equal(cpu.xsave_bytes[i] | cpu.xsave_offset[i], 0);
		}
	}
	assert_true(cpu.cpuid[1] >> 26 & 1);				    /* SSE2: this is x86-64 */
	assert_int_equal(cpu.cpuid[6] >> 11 & 1, 0);			    /* no syscall */
	assert_int_equal(cpu.cpuid[3] >> 3 & 3, 0);			    /* no protection keys */
	assert_int_equal(cpu.cpuid[4] >> 22 & 0xf, cpu.cpuid[4] >> 22 & 2); /* no AMX; avx512-fp16 is beside it */
}

/* The descriptors the backend passes on can do what they should, and no more. */
static void test_seals(void **state)
{
	struct partition p;
	struct image img;

	(void)state;
	make(&p, &img);
	assert_int_equal(ftruncate(p.ram_fd, 0), -1);
	assert_int_equal(ftruncate(p.ram_fd, p.ram_size + 4096), -1);
	assert_int_equal(ftruncate(p.abi_fd, 0), -1);
	assert_int_equal(pwrite(p.abi_fd, "x", 1, 0), -1);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, p.abi_fd, 0), MAP_FAILED);
	partition_destroy(&p);
	image_close(&img);
}

/* The clock page as the guest reads it. */
static void test_clock_page(void **state)
{
	struct keel_clock_sample c;
	struct partition p;
	struct image img;

	(void)state;
	make(&p, &img);
	if (!(p.offered[1] >> KEEL_F1_CLOCK_PAGE & 1)) {
		assert_false(keel_clock_sample((const void *)p.abi, &c));
	} else {
		const struct keel_cpu_info *cpu = keel_start_cpu(start_of(&p));

		assert_true(keel_clock_sample((const void *)p.abi, &c));
		assert_true(c.mult && cpu->tsc_hz);
		assert_true(llabs((long long)(c.mult - keel_clock_mult(cpu->tsc_hz))) <= (long long)(c.mult / 1000000));
	}
	partition_destroy(&p);
	image_close(&img);
}

const struct CMUnitTest startinfo_tests[] = {
	cmocka_unit_test(test_chunks), cmocka_unit_test(test_entropy),	  cmocka_unit_test(test_longest_cmdline),
	cmocka_unit_test(test_initrd), cmocka_unit_test(test_bad_initrd), cmocka_unit_test(test_cpu),
	cmocka_unit_test(test_seals),  cmocka_unit_test(test_clock_page),
};
DEFINE_TESTS(startinfo);
