// SPDX-License-Identifier: MIT
/*
 * The image loader. Every check names the program header or note that failed,
 * in one line, because the reader of the message has the linker script in hand.
 */
#include "image.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "partition.h"

#define NOTES_MAX (64 * 1024) /* bytes of one PT_NOTE segment */
#define LINEAR_ALIGN KEEL_U64(0x200000)

/* What the checks pass around: the image, where to say why, and the name of the place looked at. */
struct check {
	struct image *img;
	struct error *e;
	unsigned int notes_seen; /* bit n: note type n was there */
};

#define fail(c, fmt, ...) error_set((c)->e, "%s: " fmt, (c)->img->name, ##__VA_ARGS__)

bool image_read(const struct image *img, void *dst, size_t len, uint64_t offset)
{
	uint8_t *to = dst;

	if (offset > img->size || len > img->size - offset)
		return false;
	while (len) {
		ssize_t n = pread(img->fd, to, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* an error, or the file was cut since it was opened */
			return false;
		to += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return true;
}

static int check_header(struct check *c, Elf64_Ehdr *eh)
{
	if (!image_read(c->img, eh, sizeof(*eh), 0)) {
		/* Tell a short file from one that is no ELF file at all. */
		char magic[SELFMAG] = { 0 };

		if (!image_read(c->img, magic, SELFMAG, 0) || memcmp(magic, ELFMAG, SELFMAG))
			return fail(c, "not an ELF file");
		return fail(c, "truncated: %llu bytes do not hold an ELF header", (unsigned long long)c->img->size);
	}
	if (memcmp(eh->e_ident, ELFMAG, SELFMAG))
		return fail(c, "not an ELF file");
	if (eh->e_ident[EI_CLASS] != ELFCLASS64)
		return fail(c, "ELF class %u: a guest is a 64-bit image", eh->e_ident[EI_CLASS]);
	if (eh->e_ident[EI_DATA] != ELFDATA2LSB)
		return fail(c, "ELF data encoding %u: a guest is little-endian", eh->e_ident[EI_DATA]);
	if (eh->e_ident[EI_VERSION] != EV_CURRENT || eh->e_version != EV_CURRENT)
		return fail(c, "unknown ELF version %u", eh->e_version);
	if (eh->e_machine != EM_X86_64)
		return fail(c, "ELF machine %u: a guest is for x86-64", eh->e_machine);
	if (eh->e_type == ET_DYN)
		return fail(c, "position independent or shared (ET_DYN): link with -no-pie -static");
	if (eh->e_type != ET_EXEC)
		return fail(c, "ELF type %u: a guest is an executable (ET_EXEC)", eh->e_type);
	if (eh->e_ehsize != sizeof(Elf64_Ehdr))
		return fail(c, "ELF header size is %u instead of %zu", eh->e_ehsize, sizeof(Elf64_Ehdr));
	if (!eh->e_phnum)
		return fail(c, "no program headers");
	if (eh->e_phentsize != sizeof(Elf64_Phdr))
		return fail(c, "program header size is %u instead of %zu", eh->e_phentsize, sizeof(Elf64_Phdr));
	if (eh->e_phnum > IMAGE_PHDRS_MAX)
		return fail(c, "%u program headers, more than %u", eh->e_phnum, IMAGE_PHDRS_MAX);
	return 0;
}

/* One PT_LOAD. Page numbers are compared with page numbers, so no sum here can wrap unnoticed. */
static int check_load(struct check *c, unsigned int n, const Elf64_Phdr *ph)
{
	struct image *img = c->img;
	struct image_segment *s;
	uint64_t len;

	if (ph->p_filesz > ph->p_memsz)
		return fail(c, "program header %u: file size %#lx exceeds memory size %#lx", n, ph->p_filesz,
			    ph->p_memsz);
	if (!ph->p_memsz)
		return 0; /* linkers leave empty ones behind */
	if (ph->p_offset > img->size || ph->p_filesz > img->size - ph->p_offset)
		return fail(c, "program header %u: bytes %#lx..+%#lx are beyond the end of the file (%#lx)", n,
			    ph->p_offset, ph->p_filesz, img->size);
	if (ph->p_vaddr % KEEL_PAGE_SIZE)
		return fail(c, "program header %u: address %#lx is not page-aligned", n, ph->p_vaddr);
	if (ph->p_paddr % KEEL_PAGE_SIZE)
		return fail(c, "program header %u: physical address %#lx is not page-aligned", n, ph->p_paddr);
	if (ph->p_memsz > KEEL_VA_END)
		return fail(c, "program header %u: memory size %#lx is out of bounds", n, ph->p_memsz);
	len = (ph->p_memsz + KEEL_PAGE_SIZE - 1) & ~(KEEL_PAGE_SIZE - 1);
	if (ph->p_vaddr < KEEL_VA_MIN || ph->p_vaddr >= KEEL_VA_END || len > KEEL_VA_END - ph->p_vaddr)
		return fail(c, "program header %u: addresses %#lx..+%#lx are outside the guest's range %#llx..%#llx", n,
			    ph->p_vaddr, ph->p_memsz, (unsigned long long)KEEL_VA_MIN, (unsigned long long)KEEL_VA_END);
	if (ph->p_paddr > UINT64_MAX - len)
		return fail(c, "program header %u: physical addresses %#lx..+%#lx wrap around", n, ph->p_paddr,
			    ph->p_memsz);
	if (ph->p_flags & PF_W && ph->p_flags & PF_X)
		return fail(c, "program header %u: writable and executable at once", n);
	if (!(ph->p_flags & (PF_R | PF_W | PF_X)))
		return fail(c, "program header %u: neither readable, writable nor executable", n);
	for (unsigned int i = 0; i < img->segments; i++) {
		const struct image_segment *o = &img->segment[i];

		if (ph->p_vaddr < o->va + o->len && o->va < ph->p_vaddr + len)
			return fail(c, "program header %u: addresses %#lx..+%#lx overlap program header %u", n,
				    ph->p_vaddr, len, o->phdr);
		if (ph->p_paddr < o->gpa + o->len && o->gpa < ph->p_paddr + len)
			return fail(c, "program header %u: physical addresses %#lx..+%#lx overlap program header %u", n,
				    ph->p_paddr, len, o->phdr);
	}
	if (img->segments == IMAGE_SEGMENTS_MAX)
		return fail(c, "program header %u: more than %u segments to load", n, IMAGE_SEGMENTS_MAX);
	s = &img->segment[img->segments++];
	*s = (struct image_segment){ .phdr = n,
				     .offset = ph->p_offset,
				     .filesz = ph->p_filesz,
				     .va = ph->p_vaddr,
				     .gpa = ph->p_paddr,
				     .len = len };
	/* W and X imply R in an address space; saying so here keeps mmu_query's answers plain. */
	s->prot = KEEL_PROT_R;
	if (ph->p_flags & PF_W)
		s->prot |= KEEL_PROT_W;
	if (ph->p_flags & PF_X)
		s->prot |= KEEL_PROT_X;
	return 0;
}

static int note_abi(struct check *c, unsigned int n, const void *desc)
{
	uint32_t v[2];

	memcpy(v, desc, sizeof(v));
	c->img->abi_major = v[0];
	c->img->abi_minor = v[1];
	if (v[0] != KEEL_ABI_MAJOR || v[1] > KEEL_ABI_MINOR)
		return fail(c, "program header %u: built for ABI %u.%u, this host has %u.%u", n, v[0], v[1],
			    KEEL_ABI_MAJOR, KEEL_ABI_MINOR);
	return 0;
}

static int note_required(struct check *c, unsigned int n, const void *desc)
{
	(void)n;
	memcpy(c->img->required, desc, sizeof(c->img->required));
	return 0;
}

static int note_optional(struct check *c, unsigned int n, const void *desc)
{
	(void)n;
	memcpy(c->img->optional, desc, sizeof(c->img->optional));
	return 0;
}

static int note_linear(struct check *c, unsigned int n, const void *desc)
{
	uint64_t va;

	memcpy(&va, desc, sizeof(va));
	if (va % LINEAR_ALIGN)
		return fail(c, "program header %u: linear map address %#lx is not 2 MiB aligned", n, va);
	if (va < KEEL_VA_MIN || va >= KEEL_VA_END)
		return fail(c, "program header %u: linear map address %#lx is outside the guest's range", n, va);
	c->img->linear = true;
	c->img->linear_va = va;
	return 0;
}

static int note_memory(struct check *c, unsigned int n, const void *desc)
{
	(void)n;
	memcpy(&c->img->min_mem, desc, sizeof(c->img->min_mem));
	return 0;
}

static const struct note_kind {
	const char *name;
	uint32_t size;
	int (*take)(struct check *c, unsigned int n, const void *desc);
} note_kinds[] = {
	[KEEL_NOTE_ABI] = { "ABI version", 8, note_abi },
	[KEEL_NOTE_REQUIRED] = { "required features", 8 * KEEL_FEATURE_WORDS, note_required },
	[KEEL_NOTE_OPTIONAL] = { "optional features", 8 * KEEL_FEATURE_WORDS, note_optional },
	[KEEL_NOTE_LINEAR] = { "linear map", 8, note_linear },
	[KEEL_NOTE_MEMORY] = { "least memory", 8, note_memory },
};

static int check_keel_note(void *to, const struct image_note *note)
{
	const struct note_kind *k;
	struct check *c = to;

	if (note->namesz != sizeof(KEEL_NOTE_NAME) || memcmp(note->name, KEEL_NOTE_NAME, sizeof(KEEL_NOTE_NAME)))
		return 0;
	/* A note of a later ABI may ask for something this host would not give. */
	if (note->type >= sizeof(note_kinds) / sizeof(note_kinds[0]) || !note_kinds[note->type].take)
		return fail(c, "program header %u: Keel note of unknown type %u", note->n, note->type);
	k = &note_kinds[note->type];
	if (note->size != k->size)
		return fail(c, "program header %u: Keel note \"%s\" has %u bytes instead of %u", note->n, k->name,
			    note->size, k->size);
	if (c->notes_seen & 1u << note->type)
		return fail(c, "program header %u: a second Keel note \"%s\"", note->n, k->name);
	c->notes_seen |= 1u << note->type;
	return k->take(c, note->n, note->desc);
}

static int walk_notes(struct check *c, unsigned int n, const uint8_t *buf, size_t size, size_t align,
		      int (*each)(void *to, const struct image_note *note), void *to)
{
	size_t at = 0;

	while (size - at >= sizeof(Elf64_Nhdr)) {
		struct image_note note = { .n = n };
		Elf64_Nhdr nh;
		size_t name, desc;

		memcpy(&nh, buf + at, sizeof(nh));
		/* Both sizes are 32 bits and the buffer is 64 KiB: these sums fit in size_t. */
		name = at + sizeof(nh);
		desc = (name + nh.n_namesz + align - 1) & ~(align - 1);
		if (nh.n_namesz > size - name || desc > size || nh.n_descsz > size - desc)
			return fail(c, "program header %u: note at offset %#zx reaches beyond its segment", n, at);
		note.name = (const char *)buf + name;
		note.namesz = nh.n_namesz;
		note.type = nh.n_type;
		note.desc = buf + desc;
		note.size = nh.n_descsz;
		if (each(to, &note))
			return -1;
		at = (desc + nh.n_descsz + align - 1) & ~(align - 1);
		if (at >= size)
			return 0; /* the last note's padding may be cut off */
	}
	for (; at < size; at++)
		if (buf[at])
			return fail(c, "program header %u: %zu stray bytes after the last note", n, size - at);
	return 0;
}

int image_notes(struct image *img, unsigned int n, const Elf64_Phdr *ph,
		int (*each)(void *to, const struct image_note *note), void *to, struct error *e)
{
	struct check c = { .img = img, .e = e };
	uint8_t *buf;
	int err;

	if (ph->p_offset > img->size || ph->p_filesz > img->size - ph->p_offset)
		return fail(&c, "program header %u: notes at %#lx..+%#lx are beyond the end of the file (%#lx)", n,
			    ph->p_offset, ph->p_filesz, img->size);
	if (ph->p_filesz > NOTES_MAX)
		return fail(&c, "program header %u: %lu bytes of notes, more than %u", n, ph->p_filesz, NOTES_MAX);
	if (!ph->p_filesz)
		return 0;
	buf = malloc(ph->p_filesz);
	if (!buf)
		return fail(&c, "out of memory");
	if (!image_read(img, buf, ph->p_filesz, ph->p_offset))
		err = fail(&c, "program header %u: cannot read the notes", n);
	else
		err = walk_notes(&c, n, buf, ph->p_filesz, ph->p_align == 8 ? 8 : 4, each, to);
	free(buf);
	return err;
}

static int check_notes(struct check *c, unsigned int n, const Elf64_Phdr *ph)
{
	return image_notes(c->img, n, ph, check_keel_note, c, c->e);
}

static int check_dynamic(struct check *c, unsigned int n, const Elf64_Phdr *ph)
{
	(void)ph;
	return fail(c, "program header %u: dynamically linked: link with -static", n);
}

static int check_phdrs(struct check *c, const Elf64_Ehdr *eh)
{
	static const struct {
		uint32_t type;
		int (*check)(struct check *c, unsigned int n, const Elf64_Phdr *ph);
	} kinds[] = {
		{ PT_LOAD, check_load },
		{ PT_NOTE, check_notes },
		{ PT_INTERP, check_dynamic },
		{ PT_DYNAMIC, check_dynamic },
	};
	Elf64_Phdr ph[IMAGE_PHDRS_MAX];

	if (!image_read(c->img, ph, eh->e_phnum * sizeof(*ph), eh->e_phoff))
		return fail(c, "%u program headers at %#lx are beyond the end of the file (%#lx)", eh->e_phnum,
			    eh->e_phoff, c->img->size);
	for (unsigned int i = 0; i < eh->e_phnum; i++)
		for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
			if (ph[i].p_type == kinds[k].type && kinds[k].check(c, i, &ph[i]))
				return -1;
	return 0;
}

static int check_image(struct check *c)
{
	struct image *img = c->img;
	Elf64_Ehdr eh;

	if (check_header(c, &eh) || check_phdrs(c, &eh))
		return -1;
	if (!img->segments)
		return fail(c, "nothing to load: no PT_LOAD segment with memory");
	if (!(c->notes_seen & 1u << KEEL_NOTE_ABI))
		return fail(c, "no Keel ABI note: not a Keel guest, or its notes were stripped");
	img->entry = eh.e_entry;
	for (unsigned int i = 0; i < img->segments; i++) {
		const struct image_segment *s = &img->segment[i];

		if (img->entry >= s->va && img->entry - s->va < s->len)
			return s->prot & KEEL_PROT_X
				       ? 0
				       : fail(c, "entry %#lx is in program header %u, which is not executable",
					      img->entry, s->phdr);
	}
	return fail(c, "entry %#lx is in no segment", img->entry);
}

int image_open_fd(struct image *img, int fd, const char *name, struct error *e)
{
	struct check c = { .img = img, .e = e };
	struct stat st;

	memset(img, 0, sizeof(*img));
	img->name = name;
	img->fd = fd;
	if (fstat(fd, &st)) {
		fail(&c, "%s", strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		fail(&c, "not a regular file");
	} else {
		img->size = (uint64_t)st.st_size;
		if (!check_image(&c))
			return 0;
	}
	image_close(img);
	return -1;
}

int image_open(struct image *img, const char *path, struct error *e)
{
	/* O_NONBLOCK: a FIFO is refused below instead of waited for. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return error_set(e, "%s: %s", path, strerror(errno));
	return image_open_fd(img, fd, path, e);
}

void image_close(struct image *img)
{
	if (img->fd >= 0)
		close(img->fd);
	if (img->module_fd > 0)
		close(img->module_fd);
	img->fd = -1;
	img->module_fd = 0;
}

static int check_features(struct check *c, const uint64_t *offered)
{
	static const char *const ext_name[] = {
#define KEEL_EXT(NAME, number, served, summary) [number] = #NAME,
#define KEEL_CALL(...)
#include "../abi/hypercalls.def"
#undef KEEL_EXT
#undef KEEL_CALL
	};

	for (unsigned int w = 0; w < KEEL_FEATURE_WORDS; w++) {
		uint64_t missing = c->img->required[w] & ~offered[w];
		unsigned int bit;

		if (!missing)
			continue;
		bit = (unsigned int)__builtin_ctzll(missing);
		if (w == 0 && bit < KEEL_EXT_COUNT)
			return fail(c, "requires the extension %s, which this host does not offer", ext_name[bit]);
		return fail(c, "requires feature bit %u of word %u, which this host does not offer", bit, w);
	}
	return 0;
}

static int check_linear(struct check *c, uint64_t ram)
{
	const struct image *img = c->img;

	if (ram > KEEL_VA_END - img->linear_va)
		return fail(c, "linear map of %lu MiB at %#lx reaches beyond the guest's range: use a smaller --mem",
			    ram >> 20, img->linear_va);
	for (unsigned int i = 0; i < img->segments; i++) {
		const struct image_segment *s = &img->segment[i];

		if (s->va < img->linear_va + ram && img->linear_va < s->va + s->len)
			return fail(c, "program header %u: addresses %#lx..+%#lx overlap the linear map at %#lx",
				    s->phdr, s->va, s->len, img->linear_va);
	}
	return 0;
}

int image_load(struct image *img, struct partition *p, struct error *e)
{
	struct check c = { .img = img, .e = e };
	struct keel_mmu_record *map;
	unsigned int n = 0;

	if (img->min_mem > p->ram_size)
		return fail(&c, "needs %lu MiB of memory: use --mem %luM", (img->min_mem - 1) / 0x100000 + 1,
			    ((img->min_mem - 1) / 0x200000 + 1) * 2);
	if (check_features(&c, p->offered) || (img->linear && check_linear(&c, p->ram_size)))
		return -1;
	map = calloc(img->segments + 1, sizeof(*map));
	if (!map)
		return fail(&c, "out of memory");
	for (unsigned int i = 0; i < img->segments; i++) {
		const struct image_segment *s = &img->segment[i];

		if (s->gpa >= p->ram_size || s->len > p->ram_size - s->gpa) {
			fail(&c,
			     "program header %u: physical addresses %#lx..+%#lx are beyond the memory of %lu MiB: use a larger --mem",
			     s->phdr, s->gpa, s->len, p->ram_size >> 20);
			goto out;
		}
		if (!image_read(img, p->ram + s->gpa, s->filesz, s->offset)) {
			fail(&c, "program header %u: cannot read %lu bytes at %#lx", s->phdr, s->filesz, s->offset);
			goto out;
		}
		map[n++] = (struct keel_mmu_record){
			.op = KEEL_MMU_MAP, .prot = (keel_u16)s->prot, .va = s->va, .gpa = s->gpa, .len = s->len
		};
	}
	if (img->linear)
		map[n++] = (struct keel_mmu_record){ .op = KEEL_MMU_MAP,
						     .prot = KEEL_PROT_R | KEEL_PROT_W,
						     .va = img->linear_va,
						     .gpa = 0,
						     .len = p->ram_size };
	free(p->boot_map);
	p->boot_map = map;
	p->boot_records = n;
	p->entry = img->entry;
	return 0;
out:
	free(map);
	return -1;
}
