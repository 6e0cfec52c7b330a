// SPDX-License-Identifier: MIT
/* Kernels of HVM partitions: each check by name, every packing, damage anywhere; and what such a kernel is told. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "../hvmboot.h"
#include "../hvmimage.h"
#include "tests.h"

#define TEXT_GPA_ UINT64_C(0x200000)
#define DATA_GPA_ UINT64_C(0x202000)

struct kernel {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[3];
	struct {
		Elf64_Nhdr nh;
		char name[4];
		uint32_t desc;
	} other, entry;
	uint8_t text[64], data[64];
};

enum { K_TEXT, K_DATA, K_NOTES };

static struct keel_options options = {
	.mem = 4 << 20, .vcpus = 1, .cmdline = "console=ttyS0 a=b", .image = "KERNEL", .hvm = true
};

static void kernel_init(struct kernel *k)
{
	memset(k, 0, sizeof(*k));
	k->eh = (Elf64_Ehdr){ .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
			      .e_type = ET_EXEC,
			      .e_machine = EM_X86_64,
			      .e_phoff = offsetof(struct kernel, ph),
			      .e_phentsize = sizeof(Elf64_Phdr),
			      .e_phnum = 3 };
	k->ph[K_TEXT] = (Elf64_Phdr){ .p_type = PT_LOAD,
				      .p_offset = offsetof(struct kernel, text),
				      .p_vaddr = 0xffffffff81000000,
				      .p_paddr = TEXT_GPA_,
				      .p_filesz = sizeof(k->text),
				      .p_memsz = sizeof(k->text) };
	k->ph[K_DATA] = (Elf64_Phdr){ .p_type = PT_LOAD,
				      .p_offset = offsetof(struct kernel, data),
				      .p_paddr = DATA_GPA_,
				      .p_filesz = sizeof(k->data),
				      .p_memsz = 0x3001 };
	k->ph[K_NOTES] = (Elf64_Phdr){ .p_type = PT_NOTE,
				       .p_offset = offsetof(struct kernel, other),
				       .p_filesz = sizeof(k->other) + sizeof(k->entry),
				       .p_align = 4 };
	k->other.nh = (Elf64_Nhdr){ 4, 4, 5 };
	k->entry.nh = (Elf64_Nhdr){ 4, 4, 18 };
	memcpy(k->other.name, "Xen", 4);
	memcpy(k->entry.name, "Xen", 4);
	k->entry.desc = TEXT_GPA_ + 8;
	memset(k->text, 0x90, sizeof(k->text));
	memset(k->data, 0xdd, sizeof(k->data));
}

static int open_bytes(struct image *img, const void *bytes, size_t n, struct error *e)
{
	return hvmimage_open_fd(img, test_image_fd(bytes, n), "KERNEL", e);
}

static void test_valid(void **state)
{
	struct error e = { "" };
	struct partition p;
	struct kernel k;
	struct image img;

	(void)state;
	kernel_init(&k);
	if (open_bytes(&img, &k, sizeof(k), &e))
		fail_msg("%s", e.text);
	test_partition(&p, &options, &img);
	assert_int_equal(p.entry, TEXT_GPA_ + 8);
	assert_memory_equal(p.ram + TEXT_GPA_, k.text, sizeof(k.text));
	assert_memory_equal(p.ram + DATA_GPA_, k.data, sizeof(k.data));
	assert_int_equal(p.ram[DATA_GPA_ + sizeof(k.data)], 0);
	partition_destroy(&p);
	image_close(&img);
}

#define DAMAGE(name, statement)            \
	static void name(struct kernel *k) \
	{                                  \
		statement;                 \
	}

DAMAGE(bad_magic, k->eh.e_ident[0] = 'x')
DAMAGE(bad_class, k->eh.e_ident[EI_CLASS] = ELFCLASS32)
DAMAGE(bad_machine, k->eh.e_machine = EM_AARCH64)
DAMAGE(bad_type, k->eh.e_type = ET_REL)
DAMAGE(bad_phentsize, k->eh.e_phentsize = 32)
DAMAGE(no_phdrs, k->eh.e_phnum = 0)
DAMAGE(many_phdrs, k->eh.e_phnum = 0xffff)
DAMAGE(phdrs_beyond, k->eh.e_phoff = sizeof(*k) - 8)
DAMAGE(phdrs_wrap, k->eh.e_phoff = UINT64_MAX - 7)
DAMAGE(file_over_mem, k->ph[K_DATA].p_memsz = 1)
DAMAGE(offset_wraps, k->ph[K_DATA].p_offset = UINT64_MAX - 8)
DAMAGE(bytes_beyond, k->ph[K_DATA].p_offset = sizeof(*k) - 1)
DAMAGE(too_low, k->ph[K_DATA].p_paddr = 0xff000)
DAMAGE(too_high, k->ph[K_DATA].p_paddr = HVM_RAM_MAX - 0x3000)
DAMAGE(gpa_wraps, k->ph[K_DATA].p_paddr = UINT64_MAX - 0xfff)
DAMAGE(huge, k->ph[K_DATA].p_memsz = UINT64_MAX)
DAMAGE(overlap, k->ph[K_DATA].p_paddr = TEXT_GPA_ + sizeof(k->text) - 1)
DAMAGE(overlap_tail, k->ph[K_DATA].p_paddr = TEXT_GPA_ - 0x3000)
DAMAGE(nothing, {
	k->ph[K_TEXT].p_memsz = k->ph[K_TEXT].p_filesz = 0;
	k->ph[K_DATA].p_memsz = k->ph[K_DATA].p_filesz = 0;
})
DAMAGE(no_notes, k->ph[K_NOTES].p_type = PT_NULL)
DAMAGE(foreign_note, k->entry.name[0] = 'Y')
DAMAGE(notes_beyond, k->ph[K_NOTES].p_offset = sizeof(*k) - 4)
DAMAGE(notes_huge, k->ph[K_NOTES].p_filesz = 0x20000)
DAMAGE(note_desc_long, k->entry.nh.n_descsz = 0xfffffff0)
DAMAGE(note_desc_short, k->entry.nh.n_descsz = 2)
DAMAGE(note_twice, k->other.nh.n_type = 18)
DAMAGE(entry_nowhere, k->entry.desc = TEXT_GPA_ - 1)
DAMAGE(entry_behind, k->entry.desc = TEXT_GPA_ + sizeof(k->text))

static const struct {
	const char *says;
	void (*apply)(struct kernel *k);
} damages[] = {
	{ "neither an ELF kernel nor a bzImage", bad_magic },
	{ "ELF class 1", bad_class },
	{ "machine 183", bad_machine },
	{ "ELF type 1", bad_type },
	{ "program header size is 32", bad_phentsize },
	{ "no program headers", no_phdrs },
	{ "65535 program headers", many_phdrs },
	{ "3 program headers at", phdrs_beyond },
	{ "3 program headers at", phdrs_wrap },
	{ "program header 1: file size", file_over_mem },
	{ "program header 1: bytes", offset_wraps },
	{ "program header 1: bytes", bytes_beyond },
	{ "program header 1: physical address 0xff000: the first MiB", too_low },
	{ "beyond 3 GiB", too_high },
	{ "beyond 3 GiB", gpa_wraps },
	{ "beyond 3 GiB", huge },
	{ "overlap program header 0", overlap },
	{ "overlap program header 0", overlap_tail },
	{ "nothing to load", nothing },
	{ "no PVH entry", no_notes },
	{ "no PVH entry", foreign_note },
	{ "beyond the end of the file", notes_beyond },
	{ "beyond the end of the file", notes_huge },
	{ "reaches beyond its segment", note_desc_long },
	{ "PVH entry note of 2 bytes", note_desc_short },
	{ "a second PVH entry note", note_twice },
	{ "PVH entry 0x1fffff is in no segment", entry_nowhere },
	{ "PVH entry 0x200040 is in no segment", entry_behind },
};

static void test_refused(void **state)
{
	struct kernel k;
	struct image img;
	struct error e;

	(void)state;
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		kernel_init(&k);
		damages[i].apply(&k);
		if (!open_bytes(&img, &k, sizeof(k), &e))
			fail_msg("accepted: %s", damages[i].says);
		if (!strstr(e.text, damages[i].says) || strncmp(e.text, "KERNEL: ", 8))
			fail_msg("\"%s\" instead of \"%s\"", e.text, damages[i].says);
		assert_int_equal(img.fd, -1);
	}
	kernel_init(&k);
	for (size_t n = 0; n < sizeof(k); n += 7)
		assert_int_equal(open_bytes(&img, &k, n, &e), -1);
}

static void test_too_small(void **state)
{
	struct keel_options small = options;
	struct error e = { "" };
	struct partition p;
	struct kernel k;
	struct image img;

	(void)state;
	kernel_init(&k);
	small.mem = 2 << 20;
	assert_int_equal(open_bytes(&img, &k, sizeof(k), &e), 0);
	assert_int_equal(partition_create(&p, &small, &img, &e), -1);
	assert_non_null(strstr(e.text, "use a larger --mem"));
	image_close(&img);
}

/* A bzImage around it */

static size_t pack_gzip(uint8_t *out, size_t room, const void *in, size_t n)
{
	z_stream z = {
		.next_in = (Bytef *)(uintptr_t)in, .avail_in = (uInt)n, .next_out = out, .avail_out = (uInt)room
	};

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out; /* its last four bytes are the size already */
}

static size_t with_size(uint8_t *out, size_t packed, size_t n)
{
	uint32_t size = (uint32_t)n;

	memcpy(out + packed, &size, sizeof(size));
	return packed + sizeof(size);
}

static size_t pack_xz(uint8_t *out, size_t room, const void *in, size_t n)
{
	size_t at = 0;

	assert_int_equal(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, NULL, in, n, out, &at, room), LZMA_OK);
	return with_size(out, at, n);
}

static size_t pack_zstd(uint8_t *out, size_t room, const void *in, size_t n)
{
	return with_size(out, ZSTD_compress(out, room, in, n, 19), n);
}

/* Two blocks, as of a kernel that is longer than one may be. */
static size_t pack_lz4(uint8_t *out, size_t room, const void *in, size_t n)
{
	static const uint8_t magic[] = { 0x02, 0x21, 0x4c, 0x18 };
	size_t at = sizeof(magic), half = n / 2;

	memcpy(out, magic, sizeof(magic));
	for (unsigned int i = 0; i < 2; i++) {
		int len = LZ4_compress_default((const char *)in + i * half, (char *)out + at + 4,
					       (int)(i ? n - half : half), (int)(room - at - 4));

		assert_true(len > 0);
		memcpy(out + at, &len, 4);
		at += 4 + (size_t)len;
	}
	return with_size(out, at, n);
}

static const struct {
	const char *name;
	size_t (*pack)(uint8_t *out, size_t room, const void *in, size_t n);
} packings[] = { { "gzip", pack_gzip }, { "xz", pack_xz }, { "zstd", pack_zstd }, { "lz4", pack_lz4 } };

#define SETUP_SECTS 2
#define PAYLOAD 0x40
#define PAYLOAD_AT ((SETUP_SECTS + 1) * 512 + PAYLOAD)
#define BZIMAGE_MAX 8192

static void set32(uint8_t *at, size_t v)
{
	uint32_t word = (uint32_t)v;

	memcpy(at, &word, sizeof(word));
}

/* Returns its size. */
static size_t bzimage(uint8_t *b, unsigned int packing)
{
	struct kernel k;
	size_t n;

	kernel_init(&k);
	memset(b, 0, BZIMAGE_MAX);
	b[0x1f1] = SETUP_SECTS;
	memcpy(b + 0x202, "HdrS", 4);
	b[0x206] = 0x0f;
	b[0x207] = 2;
	n = packings[packing].pack(b + PAYLOAD_AT, BZIMAGE_MAX - PAYLOAD_AT - 4, &k, sizeof(k));
	set32(b + 0x248, PAYLOAD);
	set32(b + 0x24c, n);
	return PAYLOAD_AT + n;
}

static void test_bzimage(void **state)
{
	uint8_t b[BZIMAGE_MAX];
	struct error e = { "" };
	struct image img;
	struct kernel k, got;

	(void)state;
	kernel_init(&k);
	for (unsigned int i = 0; i < sizeof(packings) / sizeof(packings[0]); i++) {
		size_t n = bzimage(b, i);

		if (open_bytes(&img, b, n, &e))
			fail_msg("%s: %s", packings[i].name, e.text);
		assert_int_equal(img.size, sizeof(k));
		assert_true(image_read(&img, &got, sizeof(got), 0));
		assert_memory_equal(&got, &k, sizeof(k));
		assert_int_equal(img.entry, TEXT_GPA_ + 8);
		image_close(&img);
	}
}

static void expect(const uint8_t *b, size_t n, const char *says)
{
	struct image img;
	struct error e;

	if (!open_bytes(&img, b, n, &e))
		fail_msg("accepted: %s", says);
	if (!strstr(e.text, says))
		fail_msg("\"%s\" instead of \"%s\"", e.text, says);
}

static void test_bzimage_refused(void **state)
{
	static const uint8_t bzip2[] = { 'B', 'Z', 'h', '9' };
	uint8_t b[BZIMAGE_MAX];

	(void)state;
	for (unsigned int i = 0; i < sizeof(packings) / sizeof(packings[0]); i++) {
		const size_t real = sizeof(struct kernel);
		size_t n = bzimage(b, i);

		set32(b + n - 4, real - 1);
		expect(b, n, "bzImage payload (");
		set32(b + n - 4, real + 1);
		expect(b, n, i ? "less data than its size says" : "damaged data"); /* gzip's own size says so, too */
		set32(b + n - 4, 10);
		expect(b, n, "unpacked size 0xa is out of bounds");
		set32(b + n - 4, 0xffffffff);
		expect(b, n, "unpacked size 0xffffffff is out of bounds");
		n = bzimage(b, i);
		expect(b, n - 1, "truncated");
		set32(b + 0x24c, 40);
		expect(b, n, "bzImage payload"); /* cut inside: its size is nonsense, or its data ends */
		set32(b + 0x24c, 15);
		expect(b, n, "bzImage payload of 15 bytes");
		set32(b + 0x24c, 0xffffffff);
		expect(b, n, "beyond the end of the file");
		n = bzimage(b, i);
		set32(b + 0x248, 0xfffffff0);
		expect(b, n, "beyond the end of the file");
	}
	size_t n = bzimage(b, 0);

	memcpy(b + PAYLOAD_AT, bzip2, sizeof(bzip2));
	expect(b, n, "compressed with bzip2");
	memset(b + PAYLOAD_AT, 0xee, 8);
	expect(b, n, "no compression known here");
	b[0x206] = 7;
	expect(b, n, "boot protocol 2.7");
	b[0x202] = 'x';
	expect(b, n, "neither an ELF kernel nor a bzImage");
	expect(b, 0, "neither an ELF kernel nor a bzImage");
}

/* Whatever is done to one, it is taken or refused with a reason; the sanitizers see the rest. */
static void test_fuzz(void **state)
{
	unsigned int seed = 3;
	uint8_t whole[5][BZIMAGE_MAX], b[BZIMAGE_MAX];
	struct kernel k;
	size_t size[5] = { [4] = sizeof(k) };
	unsigned int refused = 0;

	(void)state;
	for (unsigned int i = 0; i < 4; i++) /* once: packing takes far longer than unpacking */
		size[i] = bzimage(whole[i], i);
	kernel_init(&k);
	memcpy(whole[4], &k, sizeof(k));
	for (unsigned int round = 0; round < 4000; round++) {
		unsigned int which = round % 5;
		struct error e = { "" };
		struct image img;
		size_t n = size[which];

		memcpy(b, whole[which], n);
		for (int i = rand_r(&seed) % 4; i >= 0; i--) {
			/* Mostly where it matters: headers and packed data. */
			size_t at = which == 4 ? (size_t)rand_r(&seed) % 0x120
					       : PAYLOAD_AT + (size_t)rand_r(&seed) % (n - PAYLOAD_AT);

			b[at] = (uint8_t)rand_r(&seed);
		}
		if (open_bytes(&img, b, n, &e)) {
			refused++;
			assert_int_not_equal(e.text[0], 0);
			assert_int_equal(img.fd, -1);
		} else {
			image_close(&img);
		}
	}
	assert_in_range(refused, 1000, 3999);
}

/* What it is told */

static uint8_t sum(const uint8_t *b, size_t n)
{
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + *b++);
	return s;
}

static uint64_t get(const uint8_t *b, size_t n)
{
	uint64_t v = 0;

	memcpy(&v, b, n);
	return v;
}

/* A table, its length and sum checked. */
static const uint8_t *table(const struct partition *p, uint64_t gpa, const char *signature)
{
	const uint8_t *t = p->ram + gpa;

	assert_in_range(gpa, 0xe0000, 0xfffff);
	assert_memory_equal(t, signature, 4);
	if (strcmp(signature, "FACS"))
		assert_int_equal(sum(t, get(t + 4, 4)), 0);
	return t;
}

static void test_start_info(void **state)
{
	static const char initrd[] = "what is in the initrd";
	struct keel_options opt = options;
	char path[] = "/tmp/keel-hvm-XXXXXX";
	int fd = mkstemp(path);
	const uint8_t *s, *map, *t, *dsdt;
	uint64_t at = 0;
	struct error e;
	struct partition p;
	struct kernel k;
	struct image img;

	(void)state;
	assert_int_equal(write(fd, initrd, sizeof(initrd)), sizeof(initrd));
	close(fd);
	opt.initrd = path;
	kernel_init(&k);
	assert_int_equal(open_bytes(&img, &k, sizeof(k), &e), 0);
	test_partition(&p, &opt, &img);
	unlink(path);

	s = p.ram + HVM_START;
	assert_int_equal(get(s, 4), 0x336ec578);
	assert_int_equal(get(s + 4, 4), 1);
	assert_string_equal((const char *)p.ram + get(s + 24, 8), options.cmdline);
	assert_int_equal(get(s + 12, 4), 1);
	t = p.ram + get(s + 16, 8);
	assert_int_equal(get(t + 8, 8), sizeof(initrd));
	assert_in_range(get(t, 8), DATA_GPA_ + 0x3001, p.ram_size - sizeof(initrd));
	assert_string_equal((const char *)p.ram + get(t, 8), initrd);

	/* The map: from 0 to the end of RAM without a gap, this block reserved. */
	map = p.ram + get(s + 40, 8);
	for (unsigned int i = 0; i < get(s + 48, 4); i++, map += 24) {
		assert_int_equal(get(map, 8), at);
		at += get(map + 8, 8);
		assert_int_equal(get(map + 16, 4), get(map, 8) <= HVM_START && at > HVM_START ? 2 : 1);
	}
	assert_int_equal(at, p.ram_size);

	/* ACPI, as a kernel goes through it. */
	t = p.ram + get(s + 32, 8);
	assert_memory_equal(t, "RSD PTR ", 8);
	assert_int_equal(sum(t, 20), 0);
	assert_int_equal(sum(t, 36), 0);
	t = table(&p, get(t + 24, 8), "XSDT");
	assert_int_equal(get(t + 4, 4), 36 + 2 * 8);
	{
		const uint8_t *madt = table(&p, get(t + 44, 8), "APIC");

		assert_int_equal(get(madt + 36, 4), HVM_LAPIC);
		assert_int_equal(get(madt + 44, 2), 0x0800); /* a LAPIC, 8 bytes, then an I/O APIC */
		assert_int_equal(get(madt + 52, 2), 0x0c01);
		assert_int_equal(get(madt + 56, 4), HVM_IOAPIC);
		assert_int_equal(get(madt + 4, 4), 64);
	}
	t = table(&p, get(t + 36, 8), "FACP");
	table(&p, get(t + 36, 4), "FACS");
	assert_int_equal(get(t + 36, 4) % 64, 0);
	assert_int_equal(get(t + 64, 4), HVM_PM_PORT + HVM_PM_CONTROL);
	assert_int_equal(get(t + 116 + 4, 8), HVM_RESET_PORT);
	assert_int_equal(get(t + 128, 1), HVM_RESET_VALUE);
	assert_int_equal(get(t + 40, 4), get(t + 140, 8));
	dsdt = table(&p, get(t + 40, 4), "DSDT");
	assert_int_equal(get(dsdt + 4, 4), 36 + 13);
	partition_destroy(&p);
	image_close(&img);
}

const struct CMUnitTest hvmimage_tests[] = {
	cmocka_unit_test(test_valid),	   cmocka_unit_test(test_refused),	   cmocka_unit_test(test_too_small),
	cmocka_unit_test(test_bzimage),	   cmocka_unit_test(test_bzimage_refused), cmocka_unit_test(test_fuzz),
	cmocka_unit_test(test_start_info),
};
DEFINE_TESTS(hvmimage);
