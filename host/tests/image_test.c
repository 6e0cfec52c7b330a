// SPDX-License-Identifier: MIT
/* The image loader: each check by name, and thousands of damaged images. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests.h"

static struct keel_options options = { .mem = 4 << 20, .vcpus = 1, .cmdline = "", .image = "IMAGE" };

static void test_valid(void **state)
{
	struct test_image t;
	struct image img;
	struct partition p;
	struct error e = { "" };
	const struct keel_mmu_record *r;

	(void)state;
	test_image_init(&t);
	if (test_image_open(&img, &t, &e))
		fail_msg("%s", e.text);
	test_partition(&p, &options, &img);
	assert_int_equal(p.entry, TEXT_VA + 0x10);
	assert_int_equal(p.boot_records, 3);
	r = p.boot_map;
	assert_int_equal(r[0].op, KEEL_MMU_MAP);
	assert_int_equal(r[0].va, TEXT_VA);
	assert_int_equal(r[0].gpa, TEXT_GPA);
	assert_int_equal(r[0].len, 0x1000);
	assert_int_equal(r[0].prot, KEEL_PROT_R | KEEL_PROT_X);
	assert_int_equal(r[1].va, DATA_VA);
	assert_int_equal(r[1].len, 0x4000);
	assert_int_equal(r[1].prot, KEEL_PROT_R | KEEL_PROT_W);
	assert_int_equal(r[2].va, LINEAR_VA);
	assert_int_equal(r[2].gpa, 0);
	assert_int_equal(r[2].len, p.ram_size);
	assert_int_equal(r[2].prot, KEEL_PROT_R | KEEL_PROT_W);
	assert_memory_equal(p.ram + TEXT_GPA, t.text, sizeof(t.text));
	assert_memory_equal(p.ram + DATA_GPA, t.data, sizeof(t.data));
	assert_int_equal(p.ram[DATA_GPA + sizeof(t.data)], 0);
	partition_destroy(&p);
	image_close(&img);
}

/* Damage, and a part of the message it must lead to. */
struct damage {
	const char *says;
	void (*apply)(struct test_image *t);
};

#define DAMAGE(name, statement)                \
	static void name(struct test_image *t) \
	{                                      \
		statement;                     \
	}

DAMAGE(bad_magic, t->eh.e_ident[0] = 'x')
DAMAGE(bad_class, t->eh.e_ident[EI_CLASS] = ELFCLASS32)
DAMAGE(bad_data, t->eh.e_ident[EI_DATA] = ELFDATA2MSB)
DAMAGE(bad_machine, t->eh.e_machine = EM_AARCH64)
DAMAGE(bad_type_dyn, t->eh.e_type = ET_DYN)
DAMAGE(bad_type, t->eh.e_type = ET_REL)
DAMAGE(bad_phentsize, t->eh.e_phentsize = 55)
DAMAGE(no_phdrs, t->eh.e_phnum = 0)
DAMAGE(many_phdrs, t->eh.e_phnum = 0xffff)
DAMAGE(phdrs_beyond, t->eh.e_phoff = sizeof(*t) - 8)
DAMAGE(phdrs_wrap, t->eh.e_phoff = UINT64_MAX - 7)
DAMAGE(file_over_mem, t->ph[PH_DATA].p_memsz = t->ph[PH_DATA].p_filesz - 1)
DAMAGE(offset_wraps, t->ph[PH_DATA].p_offset = UINT64_MAX - 8)
DAMAGE(bytes_beyond, t->ph[PH_DATA].p_offset = sizeof(*t) - 1)
DAMAGE(va_unaligned, t->ph[PH_DATA].p_vaddr++)
DAMAGE(gpa_unaligned, t->ph[PH_DATA].p_paddr++)
DAMAGE(va_low, t->ph[PH_DATA].p_vaddr = KEEL_VA_MIN - 0x1000)
DAMAGE(va_high, t->ph[PH_DATA].p_vaddr = KEEL_VA_END - 0x1000)
DAMAGE(va_host, t->ph[PH_DATA].p_vaddr = KEEL_VA_END)
DAMAGE(va_wraps, t->ph[PH_DATA].p_vaddr = UINT64_MAX & ~UINT64_C(0xfff))
DAMAGE(memsz_huge, t->ph[PH_DATA].p_memsz = UINT64_MAX)
DAMAGE(memsz_rounds_to_zero, t->ph[PH_DATA].p_memsz = UINT64_MAX - 0xffe)
DAMAGE(gpa_wraps, t->ph[PH_DATA].p_paddr = UINT64_MAX & ~UINT64_C(0xfff))
DAMAGE(gpa_beyond, t->ph[PH_DATA].p_paddr = (4 << 20) - 0x3000)
DAMAGE(gpa_far, t->ph[PH_DATA].p_paddr = UINT64_C(1) << 60)
DAMAGE(writable_code, t->ph[PH_TEXT].p_flags |= PF_W)
DAMAGE(no_access, t->ph[PH_DATA].p_flags = 0)
DAMAGE(va_overlap, t->ph[PH_DATA].p_vaddr = TEXT_VA)
DAMAGE(va_overlap_tail, t->ph[PH_DATA].p_vaddr = TEXT_VA - 0x3000)
DAMAGE(gpa_overlap, t->ph[PH_DATA].p_paddr = TEXT_GPA - 0x3000)
DAMAGE(entry_outside, t->eh.e_entry = TEXT_VA - 1)
DAMAGE(entry_behind, t->eh.e_entry = TEXT_VA + 0x1000)
DAMAGE(entry_in_data, t->eh.e_entry = DATA_VA)
DAMAGE(nothing, t->ph[PH_TEXT].p_memsz = t->ph[PH_TEXT].p_filesz = t->ph[PH_DATA].p_memsz = t->ph[PH_DATA].p_filesz = 0)
DAMAGE(dynamic, t->ph[PH_NOTES].p_type = PT_DYNAMIC)
DAMAGE(interp, t->ph[PH_NOTES].p_type = PT_INTERP)
DAMAGE(no_notes, t->ph[PH_NOTES].p_type = PT_NULL)
DAMAGE(foreign_note, t->abi.name[0] = 'X')
DAMAGE(notes_beyond, t->ph[PH_NOTES].p_offset = sizeof(*t) - 4)
DAMAGE(notes_huge, t->ph[PH_NOTES].p_filesz = 0x20000)
DAMAGE(note_name_long, t->abi.nh.n_namesz = 0xffffffff)
DAMAGE(note_desc_long, t->abi.nh.n_descsz = 0xfffffff0)
DAMAGE(note_size, t->abi.nh.n_descsz = 4)
DAMAGE(note_twice, t->memory.nh.n_type = KEEL_NOTE_LINEAR)
DAMAGE(note_unknown, t->memory.nh.n_type = 999)
DAMAGE(abi_major, t->abi.desc[0] = 2)
DAMAGE(abi_minor, t->abi.desc[1] = KEEL_ABI_MINOR + 1)
DAMAGE(needs_share, t->required.desc[0] |= 1u << KEEL_EXT_SHARE)
DAMAGE(needs_unknown, t->required.desc[1] = 1u << 31)
DAMAGE(needs_word1, t->required.desc[2] = 1u << 20)
DAMAGE(linear_unaligned, t->linear.desc[0] = 0x1000)
DAMAGE(linear_host, t->linear.desc[1] = 0x7f00)
DAMAGE(linear_low, t->linear.desc[1] = 0)
DAMAGE(linear_top, {
	t->linear.desc[1] = 0x7eff;
	t->linear.desc[0] = 0xffe00000;
})
DAMAGE(linear_overlap, {
	t->linear.desc[1] = 0;
	t->linear.desc[0] = 0x400000;
})
DAMAGE(memory_huge, t->memory.desc[1] = 0xffffffff)

static const struct damage damages[] = {
	{ "not an ELF file", bad_magic },
	{ "ELF class 1", bad_class },
	{ "little-endian", bad_data },
	{ "machine 183", bad_machine },
	{ "ET_DYN", bad_type_dyn },
	{ "ELF type 1", bad_type },
	{ "program header size is 55", bad_phentsize },
	{ "no program headers", no_phdrs },
	{ "65535 program headers", many_phdrs },
	{ "3 program headers at", phdrs_beyond },
	{ "3 program headers at", phdrs_wrap },
	{ "program header 1: file size", file_over_mem },
	{ "program header 1: bytes", offset_wraps },
	{ "program header 1: bytes", bytes_beyond },
	{ "program header 1: address", va_unaligned },
	{ "program header 1: physical address", gpa_unaligned },
	{ "program header 1: addresses", va_low },
	{ "program header 1: addresses", va_high },
	{ "program header 1: addresses", va_host },
	{ "program header 1: addresses", va_wraps },
	{ "program header 1: memory size", memsz_huge },
	{ "program header 1: memory size", memsz_rounds_to_zero },
	{ "program header 1: physical addresses", gpa_wraps },
	{ "program header 1: physical addresses", gpa_beyond },
	{ "program header 1: physical addresses", gpa_far },
	{ "program header 0: writable and executable", writable_code },
	{ "program header 1: neither", no_access },
	{ "overlap program header 0", va_overlap },
	{ "overlap program header 0", va_overlap_tail },
	{ "overlap program header 0", gpa_overlap },
	{ "is in no segment", entry_outside },
	{ "is in no segment", entry_behind },
	{ "not executable", entry_in_data },
	{ "nothing to load", nothing },
	{ "dynamically linked", dynamic },
	{ "dynamically linked", interp },
	{ "no Keel ABI note", no_notes },
	{ "no Keel ABI note", foreign_note },
	{ "program header 2: notes", notes_beyond },
	{ "program header 2", notes_huge },
	{ "program header 2: note at offset 0 ", note_name_long },
	{ "program header 2: note at offset 0 ", note_desc_long },
	{ "\"ABI version\" has 4 bytes instead of 8", note_size },
	{ "a second Keel note \"linear map\"", note_twice },
	{ "Keel note of unknown type 999", note_unknown },
	{ "built for ABI 2.0", abi_major },
	{ "built for ABI 1.1", abi_minor },
	{ "requires the extension SHARE", needs_share },
	{ "requires feature bit 63 of word 0", needs_unknown },
	{ "requires feature bit 20 of word 1", needs_word1 },
	{ "is not 2 MiB aligned", linear_unaligned },
	{ "outside the guest's range", linear_host },
	{ "outside the guest's range", linear_low },
	{ "reaches beyond", linear_top },
	{ "overlap the linear map", linear_overlap },
	{ "use --mem", memory_huge },
};

/* One line, which names the image and says what the damage was. */
static void test_each_damage(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		struct test_image t;
		struct partition p;
		struct image img;
		struct error e = { "" };

		test_image_init(&t);
		damages[i].apply(&t);
		if (!test_image_open(&img, &t, &e)) {
			if (!partition_create(&p, &options, &img, &e))
				fail_msg("damage %zu: not refused, expected \"%s\"", i, damages[i].says);
			image_close(&img);
		}
		if (!strstr(e.text, damages[i].says))
			fail_msg("damage %zu: \"%s\" instead of \"%s\"", i, e.text, damages[i].says);
		assert_memory_equal(e.text, "IMAGE: ", 7);
		assert_null(strchr(e.text, '\n'));
	}
}

/* What looks odd and is right. */
static void test_accepted(void **state)
{
	struct test_image t;
	struct image img;
	struct error e = { "" };

	(void)state;
	test_image_init(&t);
	t.memory.name[0] = 'X'; /* somebody else's note */
	t.required.nh.n_type = KEEL_NOTE_OPTIONAL;
	t.required.desc[1] = 0xffffffff;
	t.ph[PH_DATA].p_flags = PF_W; /* implies R */
	if (test_image_open(&img, &t, &e))
		fail_msg("%s", e.text);
	assert_int_equal(img.segment[1].prot, KEEL_PROT_R | KEEL_PROT_W);
	assert_int_equal(img.min_mem, 0);
	image_close(&img);
}

static void test_truncated(void **state)
{
	struct test_image t;
	unsigned int good = 0;

	(void)state;
	test_image_init(&t);
	for (size_t size = 0; size < sizeof(t); size++) {
		struct image img;
		struct error e = { "" };

		if (!image_open_fd(&img, test_image_fd(&t, size), "IMAGE", &e)) {
			good++;
			image_close(&img);
			continue;
		}
		assert_true(strlen(e.text) > 10);
	}
	/* The data segment ends the file: no byte of it is spare. */
	assert_int_equal(good, 0);
}

/* The file shrinks between the checks and the loading. */
static void test_cut_later(void **state)
{
	struct test_image t;
	struct partition p;
	struct image img;
	struct error e = { "" };

	(void)state;
	test_image_init(&t);
	assert_int_equal(test_image_open(&img, &t, &e), 0);
	assert_int_equal(ftruncate(img.fd, sizeof(t) - 1), 0);
	assert_int_equal(partition_create(&p, &options, &img, &e), -1);
	assert_non_null(strstr(e.text, "program header 1: cannot read"));
	image_close(&img);
}

static void test_no_file(void **state)
{
	struct image img;
	struct error e;

	(void)state;
	assert_int_equal(image_open(&img, "/nonexistent/image", &e), -1);
	assert_string_equal(e.text, "/nonexistent/image: No such file or directory");
	assert_int_equal(image_open(&img, "/", &e), -1);
	assert_string_equal(e.text, "/: not a regular file");
}

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Values at the edges of what the loader compares. */
static uint64_t edge(void)
{
	static const uint64_t edges[] = {
		0,
		1,
		7,
		8,
		0xfff,
		0x1000,
		0x1001,
		0x7fffffff,
		0x80000000,
		0xffffffff,
		KEEL_VA_MIN - 1,
		KEEL_VA_MIN,
		KEEL_VA_END - 0x1000,
		KEEL_VA_END,
		0x7fffffffffffffff,
		0x8000000000000000,
		0xfffffffffffff000,
		0xffffffffffffffff,
		4 << 20,
		(4 << 20) - 0x1000,
		TEXT_VA,
		DATA_VA,
		TEXT_GPA,
		DATA_GPA,
		sizeof(struct test_image),
	};
	uint64_t v = edges[rnd() % (sizeof(edges) / sizeof(edges[0]))];

	return rnd() % 4 ? v : v + rnd() % 3 - 1;
}

/* What is accepted must be within bounds; ASan and UBSan watch the rest. */
static void check_accepted(const struct image *img, const struct partition *p)
{
	bool entry = false;

	for (unsigned int i = 0; i < p->boot_records; i++) {
		const struct keel_mmu_record *r = &p->boot_map[i];

		assert_true(r->len && !((r->va | r->gpa | r->len) % KEEL_PAGE_SIZE));
		assert_true(r->va >= KEEL_VA_MIN && r->va < KEEL_VA_END && r->len <= KEEL_VA_END - r->va);
		assert_true(r->gpa < p->ram_size && r->len <= p->ram_size - r->gpa);
		assert_true((r->prot & (KEEL_PROT_W | KEEL_PROT_X)) != (KEEL_PROT_W | KEEL_PROT_X));
		assert_true(r->prot & KEEL_PROT_R);
		entry |= r->prot & KEEL_PROT_X && p->entry >= r->va && p->entry - r->va < r->len;
		for (unsigned int k = 0; k < i; k++)
			assert_true(r->va >= p->boot_map[k].va + p->boot_map[k].len ||
				    p->boot_map[k].va >= r->va + r->len);
	}
	assert_true(entry);
	assert_true(img->min_mem <= p->ram_size);
}

static void test_mutations(void **state)
{
	unsigned int accepted = 0, refused = 0;
	struct test_image t;
	struct partition p;
	struct image img;
	struct error e = { "" };

	(void)state;
	test_image_init(&t);
	assert_int_equal(test_image_open(&img, &t, &e), 0);
	test_partition(&p, &options, &img);
	image_close(&img);
	for (int round = 0; round < 30000; round++) {
		size_t size = sizeof(t);

		test_image_init(&t);
		for (uint64_t n = 1 + rnd() % 3; n; n--) {
			uint8_t *bytes = (uint8_t *)&t;
			/* Headers and notes are where the decisions are. */
			size_t at = rnd() % offsetof(struct test_image, sh);
			uint64_t v = edge();

			switch (rnd() % 6) {
			case 0:
				bytes[at] ^= (uint8_t)(1u << rnd() % 8);
				break;
			case 1:
				bytes[at] = (uint8_t)v;
				break;
			case 2:
				memcpy(bytes + at / 4 * 4, &v, 4);
				break;
			case 3:
			case 4:
				memcpy(bytes + at / 8 * 8, &v, 8);
				break;
			case 5:
				size = rnd() % 8 ? size : rnd() % sizeof(t);
				break;
			}
		}
		if (image_open_fd(&img, test_image_fd(&t, size), "IMAGE", &e)) {
			refused++;
			assert_true(strlen(e.text) > 10 && !strchr(e.text, '\n'));
			continue;
		}
		memset(&e, 0, sizeof(e));
		if (image_load(&img, &p, &e)) {
			refused++;
			assert_true(strlen(e.text) > 10);
		} else {
			accepted++;
			check_accepted(&img, &p);
		}
		image_close(&img);
	}
	/* Damage that is harmless and damage that is not: both must have been tried. */
	assert_true(accepted > 1000 && refused > 1000);
	print_message("# %u damaged images accepted, %u refused\n", accepted, refused);
	partition_destroy(&p);
}

const struct CMUnitTest image_tests[] = {
	cmocka_unit_test(test_valid),	  cmocka_unit_test(test_each_damage), cmocka_unit_test(test_accepted),
	cmocka_unit_test(test_truncated), cmocka_unit_test(test_cut_later),   cmocka_unit_test(test_no_file),
	cmocka_unit_test(test_mutations),
};
DEFINE_TESTS(image);
