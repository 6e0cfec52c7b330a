// SPDX-License-Identifier: MIT
/*
 * badimage GOOD.elf DIR - write a variant of a good image for each row of the
 * table below: malformed ones that a host must refuse, and odd ones that it
 * must run. badimage --manifest prints the manifest rows of the former.
 */
#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <keel/keel.h>

struct image {
	uint8_t *data;
	size_t size;
	Elf64_Ehdr *eh;
	Elf64_Phdr *ph;
};

/* Program header i of a type, or the first spare one turned into that type. */
static Elf64_Phdr *nth(struct image *m, uint32_t type, int i)
{
	for (int k = 0; k < m->eh->e_phnum; k++)
		if (m->ph[k].p_type == type && !i--)
			return &m->ph[k];
	fprintf(stderr, "badimage: no program header %d of type %u\n", i, type);
	exit(1);
}

#define LOAD(i) nth(m, PT_LOAD, i)

/* The Keel note of a type. */
static Elf64_Nhdr *note(struct image *m, uint32_t type)
{
	Elf64_Phdr *n = nth(m, PT_NOTE, 0);
	size_t at = 0;

	while (at < n->p_filesz) {
		Elf64_Nhdr *h = (Elf64_Nhdr *)(m->data + n->p_offset + at);

		if (h->n_type == type)
			return h;
		at += sizeof(*h) + ((h->n_namesz + 3) & ~3u) + ((h->n_descsz + 3) & ~3u);
	}
	fprintf(stderr, "badimage: no note %u\n", type);
	exit(1);
}

static void *desc(Elf64_Nhdr *h)
{
	return (uint8_t *)(h + 1) + ((h->n_namesz + 3) & ~3u);
}

static void set64(void *p, uint64_t v)
{
	memcpy(p, &v, 8);
}

/* Add a program header after the last one; the linker leaves room up to the first page. */
static Elf64_Phdr *extra(struct image *m)
{
	Elf64_Phdr *p = &m->ph[m->eh->e_phnum++];

	if ((uint8_t *)(p + 1) > m->data + LOAD(0)->p_offset) {
		fprintf(stderr, "badimage: no room for a program header\n");
		exit(1);
	}
	*p = (Elf64_Phdr){ .p_type = PT_LOAD,
			   .p_flags = PF_R,
			   .p_vaddr = 0x7000000,
			   .p_paddr = 0x700000,
			   .p_filesz = 64,
			   .p_memsz = 64,
			   .p_align = 4096 };
	return p;
}

#define CHANGE(name, body)                \
	static void name(struct image *m) \
	{                                 \
		body;                     \
	}

CHANGE(magic, m->data[1] = 'L')
CHANGE(empty, m->size = 0)
CHANGE(short_header, m->size = 40)
CHANGE(short_phdrs, m->size = m->eh->e_phoff + 80)
CHANGE(short_contents, m->size = LOAD(2)->p_offset + LOAD(2)->p_filesz - 1)
CHANGE(class32, m->eh->e_ident[EI_CLASS] = ELFCLASS32)
CHANGE(big_endian, m->eh->e_ident[EI_DATA] = ELFDATA2MSB)
CHANGE(dynamic, m->eh->e_type = ET_DYN)
CHANGE(relocatable, m->eh->e_type = ET_REL)
CHANGE(machine, m->eh->e_machine = EM_AARCH64)
CHANGE(no_load, LOAD(0)->p_type = LOAD(1)->p_type = LOAD(2)->p_type = PT_NULL)
CHANGE(no_phdrs, m->eh->e_phnum = 0)
CHANGE(many_phdrs, m->eh->e_phnum = 0xffff)
CHANGE(phentsize, m->eh->e_phentsize = 32)
CHANGE(phoff_far, m->eh->e_phoff = ~UINT64_C(0) - 100)
CHANGE(offset_far, LOAD(2)->p_offset = ~UINT64_C(0) - 0xfff)
CHANGE(offset_beyond, LOAD(2)->p_offset = m->size + 4096)
CHANGE(va_low, LOAD(1)->p_vaddr = KEEL_VA_MIN - 4096)
CHANGE(va_high, LOAD(1)->p_vaddr = KEEL_VA_END)
CHANGE(va_window, LOAD(1)->p_vaddr = KEEL_VA_END + 0x100000000)
CHANGE(va_kernel, LOAD(1)->p_vaddr = UINT64_C(0xffffffff80000000))
CHANGE(past_va_end, Elf64_Phdr *p = extra(m); p->p_vaddr = KEEL_VA_END - 4096; p->p_memsz = 8192)
CHANGE(va_unaligned, LOAD(1)->p_vaddr += 0x10)
CHANGE(pa_unaligned, LOAD(1)->p_paddr += 0x10)
CHANGE(filesz, LOAD(1)->p_filesz = LOAD(1)->p_memsz + 1)
CHANGE(pa_beyond, LOAD(1)->p_paddr = UINT64_C(1) << 40)
CHANGE(pa_wraps, LOAD(1)->p_paddr = -UINT64_C(4096))
CHANGE(too_large, LOAD(2)->p_memsz = UINT64_C(1) << 36)
CHANGE(wraps, LOAD(2)->p_memsz = ~UINT64_C(0) - 8)
CHANGE(overlap_va, extra(m)->p_vaddr = LOAD(0)->p_vaddr)
CHANGE(overlap_pa, extra(m)->p_paddr = LOAD(0)->p_paddr)
/* The same page, though not the same bytes. */
CHANGE(overlap_page, Elf64_Phdr *p = extra(m); p->p_vaddr = (LOAD(1)->p_vaddr + LOAD(1)->p_memsz - 1) & ~UINT64_C(4095))
CHANGE(write_exec, LOAD(2)->p_flags |= PF_X)
CHANGE(exec_write, LOAD(0)->p_flags |= PF_W)
CHANGE(entry_nowhere, m->eh->e_entry = 0x10000000)
CHANGE(entry_data, m->eh->e_entry = LOAD(2)->p_vaddr)
CHANGE(entry_zero, m->eh->e_entry = 0)
CHANGE(entry_end, m->eh->e_entry = (LOAD(0)->p_vaddr + LOAD(0)->p_memsz + 4095) & ~UINT64_C(4095))
CHANGE(no_abi_note, ((char *)(note(m, KEEL_NOTE_ABI) + 1))[0] = 'X')
CHANGE(no_note_segment, nth(m, PT_NOTE, 0)->p_type = PT_NULL)
CHANGE(abi_major, *(uint32_t *)desc(note(m, KEEL_NOTE_ABI)) = KEEL_ABI_MAJOR + 1)
CHANGE(abi_major_zero, *(uint32_t *)desc(note(m, KEEL_NOTE_ABI)) = 0)
CHANGE(abi_minor, ((uint32_t *)desc(note(m, KEEL_NOTE_ABI)))[1] = KEEL_ABI_MINOR + 1)
CHANGE(note_twice, note(m, KEEL_NOTE_MEMORY)->n_type = KEEL_NOTE_LINEAR)
CHANGE(note_size, Elf64_Nhdr *h = note(m, KEEL_NOTE_MEMORY); h->n_type = KEEL_NOTE_ABI;
       note(m, KEEL_NOTE_ABI)->n_type = 99; h->n_descsz = 4)
CHANGE(note_beyond, note(m, KEEL_NOTE_ABI)->n_descsz = 0x7fffffff)
CHANGE(note_name_beyond, note(m, KEEL_NOTE_ABI)->n_namesz = 0xfffffff0)
CHANGE(note_segment_beyond, nth(m, PT_NOTE, 0)->p_offset = m->size + 1)
CHANGE(required_ext, set64(desc(note(m, KEEL_NOTE_REQUIRED)), UINT64_C(1) << 40))
CHANGE(required_unserved, set64(desc(note(m, KEEL_NOTE_REQUIRED)), UINT64_C(1) << 63))
CHANGE(required_word1, set64((uint8_t *)desc(note(m, KEEL_NOTE_REQUIRED)) + 8, UINT64_C(1) << 50))
CHANGE(linear_unaligned, set64(desc(note(m, KEEL_NOTE_LINEAR)), UINT64_C(0x100000001000)))
CHANGE(linear_low, set64(desc(note(m, KEEL_NOTE_LINEAR)), 0))
CHANGE(linear_high, set64(desc(note(m, KEEL_NOTE_LINEAR)), KEEL_VA_END))
CHANGE(linear_end, set64(desc(note(m, KEEL_NOTE_LINEAR)), KEEL_VA_END - 0x200000))
CHANGE(linear_overlaps, set64(desc(note(m, KEEL_NOTE_LINEAR)), 0x200000))
CHANGE(memory_more, set64(desc(note(m, KEEL_NOTE_MEMORY)), UINT64_C(1) << 40))
CHANGE(memory_most, set64(desc(note(m, KEEL_NOTE_MEMORY)), ~UINT64_C(0)))
CHANGE(elf_version, m->eh->e_version = 7)
CHANGE(no_access, LOAD(1)->p_flags = 0)
CHANGE(interpreter, extra(m)->p_type = PT_INTERP)
CHANGE(dynamic_section, extra(m)->p_type = PT_DYNAMIC)
CHANGE(all_empty, for (int i = 0; i < 3; i++) LOAD(i)->p_memsz = LOAD(i)->p_filesz = 0)

CHANGE(unknown_note, note(m, KEEL_NOTE_MEMORY)->n_type = 77)
CHANGE(optional_unknown, memset(desc(note(m, KEEL_NOTE_OPTIONAL)), 0xff, 16))
CHANGE(empty_segment, Elf64_Phdr *p = extra(m); p->p_filesz = p->p_memsz = 0; p->p_vaddr = 0x7000001)
CHANGE(no_linear, ((char *)(note(m, KEEL_NOTE_LINEAR) + 1))[3] = 'P')
CHANGE(other_name, memcpy(note(m, KEEL_NOTE_MEMORY) + 1, "Leek", 4); note(m, KEEL_NOTE_MEMORY)->n_descsz = 8)
CHANGE(memory_exact, set64(desc(note(m, KEEL_NOTE_MEMORY)), 0x2000000))
CHANGE(segment_far, Elf64_Phdr *p = extra(m); p->p_vaddr = KEEL_VA_END - 4096; p->p_paddr = 0x800000)

static const struct variant {
	const char *id, *file, *clauses;
	void (*change)(struct image *m);
} variants[] = {
	{ "IMAGE-001", "not-elf", "KEEL-IMAGE-01", magic },
	{ "IMAGE-002", "empty", "KEEL-IMAGE-02", empty },
	{ "IMAGE-003", "short-header", "KEEL-IMAGE-02", short_header },
	{ "IMAGE-004", "short-phdrs", "KEEL-IMAGE-02", short_phdrs },
	{ "IMAGE-005", "short-contents", "KEEL-IMAGE-02", short_contents },
	{ "IMAGE-006", "class32", "KEEL-IMAGE-01", class32 },
	{ "IMAGE-007", "big-endian", "KEEL-IMAGE-01", big_endian },
	{ "IMAGE-008", "dynamic", "KEEL-IMAGE-01", dynamic },
	{ "IMAGE-009", "relocatable", "KEEL-IMAGE-01", relocatable },
	{ "IMAGE-010", "machine", "KEEL-IMAGE-01", machine },
	{ "IMAGE-011", "no-load", "KEEL-IMAGE-15 KEEL-IMAGE-08", no_load },
	{ "IMAGE-012", "no-phdrs", "KEEL-IMAGE-02 KEEL-IMAGE-11", no_phdrs },
	{ "IMAGE-013", "many-phdrs", "KEEL-IMAGE-02", many_phdrs },
	{ "IMAGE-014", "phentsize", "KEEL-IMAGE-02", phentsize },
	{ "IMAGE-015", "phoff-far", "KEEL-IMAGE-02", phoff_far },
	{ "IMAGE-016", "offset-far", "KEEL-IMAGE-02", offset_far },
	{ "IMAGE-017", "offset-beyond", "KEEL-IMAGE-02", offset_beyond },
	{ "IMAGE-018", "va-low", "KEEL-IMAGE-03 KEEL-AS-03", va_low },
	{ "IMAGE-019", "va-high", "KEEL-IMAGE-03 KEEL-AS-03", va_high },
	{ "IMAGE-020", "va-window", "KEEL-IMAGE-03 KEEL-AS-02", va_window },
	{ "IMAGE-021", "va-kernel", "KEEL-IMAGE-03", va_kernel },
	{ "IMAGE-022", "va-end", "KEEL-IMAGE-03 KEEL-AS-03", past_va_end },
	{ "IMAGE-023", "va-unaligned", "KEEL-IMAGE-04", va_unaligned },
	{ "IMAGE-024", "pa-unaligned", "KEEL-IMAGE-04", pa_unaligned },
	{ "IMAGE-025", "filesz", "KEEL-IMAGE-04", filesz },
	{ "IMAGE-026", "pa-beyond", "KEEL-IMAGE-05", pa_beyond },
	{ "IMAGE-027", "pa-wraps", "KEEL-IMAGE-05", pa_wraps },
	{ "IMAGE-028", "too-large", "KEEL-IMAGE-05", too_large },
	{ "IMAGE-029", "wraps", "KEEL-IMAGE-03 KEEL-IMAGE-05", wraps },
	{ "IMAGE-030", "overlap-va", "KEEL-IMAGE-06", overlap_va },
	{ "IMAGE-031", "overlap-pa", "KEEL-IMAGE-06", overlap_pa },
	{ "IMAGE-032", "overlap-page", "KEEL-IMAGE-06", overlap_page },
	{ "IMAGE-033", "write-exec", "KEEL-IMAGE-07", write_exec },
	{ "IMAGE-034", "exec-write", "KEEL-IMAGE-07", exec_write },
	{ "IMAGE-035", "entry-nowhere", "KEEL-IMAGE-08", entry_nowhere },
	{ "IMAGE-036", "entry-data", "KEEL-IMAGE-08", entry_data },
	{ "IMAGE-037", "entry-zero", "KEEL-IMAGE-08", entry_zero },
	{ "IMAGE-038", "entry-end", "KEEL-IMAGE-08", entry_end },
	{ "IMAGE-039", "no-abi-note", "KEEL-IMAGE-11", no_abi_note },
	{ "IMAGE-040", "no-note-segment", "KEEL-IMAGE-11", no_note_segment },
	{ "IMAGE-041", "abi-major", "KEEL-VER-04", abi_major },
	{ "IMAGE-042", "abi-major-zero", "KEEL-VER-04", abi_major_zero },
	{ "IMAGE-043", "abi-minor", "KEEL-VER-04", abi_minor },
	{ "IMAGE-044", "note-twice", "KEEL-IMAGE-10", note_twice },
	{ "IMAGE-045", "note-size", "KEEL-IMAGE-10", note_size },
	{ "IMAGE-046", "note-beyond", "KEEL-IMAGE-02 KEEL-IMAGE-10", note_beyond },
	{ "IMAGE-047", "note-name-beyond", "KEEL-IMAGE-02 KEEL-IMAGE-10", note_name_beyond },
	{ "IMAGE-048", "note-segment-beyond", "KEEL-IMAGE-02", note_segment_beyond },
	{ "IMAGE-049", "required-ext", "KEEL-IMAGE-12", required_ext },
	{ "IMAGE-050", "required-unserved", "KEEL-IMAGE-12", required_unserved },
	{ "IMAGE-051", "required-word1", "KEEL-IMAGE-12", required_word1 },
	{ "IMAGE-052", "linear-unaligned", "KEEL-IMAGE-13", linear_unaligned },
	{ "IMAGE-053", "linear-low", "KEEL-IMAGE-13", linear_low },
	{ "IMAGE-054", "linear-high", "KEEL-IMAGE-13", linear_high },
	{ "IMAGE-055", "linear-end", "KEEL-IMAGE-13", linear_end },
	{ "IMAGE-056", "linear-overlaps", "KEEL-IMAGE-13", linear_overlaps },
	{ "IMAGE-057", "memory-more", "KEEL-IMAGE-14", memory_more },
	{ "IMAGE-058", "memory-most", "KEEL-IMAGE-14", memory_most },
	{ "IMAGE-059", "elf-version", "KEEL-IMAGE-01", elf_version },
	{ "IMAGE-060", "unknown-note", "KEEL-IMAGE-10", unknown_note },
	{ "IMAGE-061", "no-access", "KEEL-IMAGE-04", no_access },
	{ "IMAGE-062", "interpreter", "KEEL-IMAGE-15", interpreter },
	{ "IMAGE-063", "dynamic-section", "KEEL-IMAGE-15", dynamic_section },
	{ "IMAGE-064", "all-empty", "KEEL-IMAGE-15", all_empty },

	/* These run; tests/image.c declares the tests. */
	{ NULL, "optional-unknown", NULL, optional_unknown },
	{ NULL, "empty-segment", NULL, empty_segment },
	{ NULL, "no-linear", NULL, no_linear },
	{ NULL, "other-name", NULL, other_name },
	{ NULL, "memory-exact", NULL, memory_exact },
	{ NULL, "segment-far", NULL, segment_far },
};

#define VARIANTS (sizeof(variants) / sizeof(variants[0]))

static void print_manifest(void)
{
	for (size_t i = 0; i < VARIANTS; i++) {
		char name[64];

		if (!variants[i].id)
			continue;
		snprintf(name, sizeof(name), "image_%s", variants[i].file);
		for (char *p = name; *p; p++)
			if (*p == '-')
				*p = '_';
		printf("%s,%s,%s,neg exit=126 destructive image=image/%s.elf\n", variants[i].id, name,
		       variants[i].clauses, variants[i].file);
	}
}

static void write_variant(const struct variant *v, const uint8_t *good, size_t size, const char *dir)
{
	struct image m = { .size = size, .data = malloc(size) };
	char path[4096];
	FILE *f;

	if (!m.data) {
		perror("badimage");
		exit(1);
	}
	memcpy(m.data, good, size);
	m.eh = (Elf64_Ehdr *)m.data;
	m.ph = (Elf64_Phdr *)(m.data + m.eh->e_phoff);
	v->change(&m);
	snprintf(path, sizeof(path), "%s/%s.elf", dir, v->file);
	f = fopen(path, "we");
	if (!f || fwrite(m.data, 1, m.size, f) != m.size || fclose(f)) {
		fprintf(stderr, "badimage: %s: %s\n", path, strerror(errno));
		exit(1);
	}
	free(m.data);
}

int main(int argc, char **argv)
{
	struct stat st;
	uint8_t *good;
	FILE *f;

	if (argc == 2 && !strcmp(argv[1], "--manifest")) {
		print_manifest();
		return 0;
	}
	if (argc != 3) {
		fprintf(stderr, "usage: badimage GOOD.elf DIR | badimage --manifest\n");
		return 1;
	}
	f = fopen(argv[1], "re");
	if (!f || fstat(fileno(f), &st) || !(good = malloc((size_t)st.st_size)) ||
	    fread(good, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
		fprintf(stderr, "badimage: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	fclose(f);
	for (size_t i = 0; i < VARIANTS; i++)
		write_variant(&variants[i], good, (size_t)st.st_size, argv[2]);
	free(good);
	return 0;
}
