// SPDX-License-Identifier: MIT
#include "hvmimage.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "partition.h"

#define fail(img, e, fmt, ...) error_set(e, "%s: " fmt, (img)->name, ##__VA_ARGS__)

/* The setup header of a bzImage, as far as it is looked at (Linux, Documentation/x86/boot.rst). */
#define SETUP_SECTS 0x1f1
#define SETUP_MAGIC 0x202 /* "HdrS" */
#define SETUP_VERSION 0x206
#define SETUP_PAYLOAD 0x248 /* offset behind the setup sectors, and length */
#define SETUP_SIZE 0x250
#define SETUP_SECTS_DEFAULT 4
#define SECTOR 512
#define VERSION_WITH_PAYLOAD 0x0208

#define PVH_NOTE_NAME "Xen"
#define PVH_NOTE_ENTRY 18 /* XEN_ELFNOTE_PHYS32_ENTRY */

#define XZ_MEMORY (UINT64_C(128) << 20) /* of the decoder; the kernel's own takes a dictionary of 32 MiB */

struct packed {
	const uint8_t *in;
	size_t in_len;
	uint8_t *out;
	size_t out_len;
};

/* Each fills out completely, or says why not. What is behind the compressed data, the size, they do not need. */

static const char *unpack_gzip(const struct packed *p)
{
	z_stream z = { .next_in = (Bytef *)p->in, .avail_in = (uInt)p->in_len, .next_out = p->out };
	const char *why = NULL;

	z.avail_out = (uInt)p->out_len;
	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
		return "out of memory";
	if (inflate(&z, Z_FINISH) != Z_STREAM_END)
		why = z.avail_out ? "damaged data" : "more data than its size says";
	else if (z.avail_out)
		why = "less data than its size says";
	inflateEnd(&z);
	return why;
}

static const char *unpack_xz(const struct packed *p)
{
	uint64_t memory = XZ_MEMORY;
	size_t in = 0, out = 0;

	if (lzma_stream_buffer_decode(&memory, 0, NULL, p->in, &in, p->in_len - 4, p->out, &out, p->out_len) != LZMA_OK)
		return "damaged data, or more than its size says";
	return out == p->out_len ? NULL : "less data than its size says";
}

static const char *unpack_zstd(const struct packed *p)
{
	size_t n = ZSTD_decompress(p->out, p->out_len, p->in, p->in_len - 4);

	if (ZSTD_isError(n))
		return ZSTD_getErrorName(n);
	return n == p->out_len ? NULL : "less data than its size says";
}

/* The legacy frame: magic, then blocks, each behind its compressed size. */
static const char *unpack_lz4(const struct packed *p)
{
	size_t end = p->in_len - 4, in = 4, out = 0;

	while (in < end) {
		uint32_t size;
		int n;

		if (end - in < sizeof(size))
			return "a cut block";
		memcpy(&size, p->in + in, sizeof(size));
		in += sizeof(size);
		if (!size || size > end - in || size > INT_MAX)
			return "a block beyond the end";
		n = LZ4_decompress_safe((const char *)p->in + in, (char *)p->out + out, (int)size,
					(int)(p->out_len - out));
		if (n < 0)
			return "damaged data, or more than its size says";
		in += size;
		out += (size_t)n;
	}
	return out == p->out_len ? NULL : "less data than its size says";
}

static const struct {
	const char *name;
	size_t len;
	uint8_t magic[6];
	const char *(*unpack)(const struct packed *p); /* NULL: not here */
} packings[] = {
	{ "gzip", 2, { 0x1f, 0x8b }, unpack_gzip },
	{ "xz", 6, { 0xfd, '7', 'z', 'X', 'Z', 0 }, unpack_xz },
	{ "zstd", 4, { 0x28, 0xb5, 0x2f, 0xfd }, unpack_zstd },
	{ "lz4", 4, { 0x02, 0x21, 0x4c, 0x18 }, unpack_lz4 },
	{ "bzip2", 3, { 'B', 'Z', 'h' }, NULL },
	{ "lzma", 3, { 0x5d, 0, 0 }, NULL },
	{ "lzo", 6, { 0x89, 'L', 'Z', 'O', 0, 0x0d }, NULL },
};

/* The ELF file inside a bzImage takes the place of the file it was in. */
static int replace(struct image *img, const uint8_t *in, size_t in_len, struct error *e)
{
	struct packed p = { .in = in, .in_len = in_len };
	const char *why = NULL;
	uint32_t size;
	size_t k = 0;
	int fd;

	while (k < sizeof(packings) / sizeof(packings[0]) && memcmp(in, packings[k].magic, packings[k].len))
		k++;
	if (k == sizeof(packings) / sizeof(packings[0]))
		return fail(img, e, "bzImage payload begins with %02x %02x %02x %02x: no compression known here", in[0],
			    in[1], in[2], in[3]);
	if (!packings[k].unpack)
		return fail(img, e, "bzImage payload is compressed with %s: only gzip, xz, zstd and lz4 are unpacked",
			    packings[k].name);
	memcpy(&size, in + in_len - sizeof(size), sizeof(size));
	if (size < sizeof(Elf64_Ehdr) || size > HVM_UNPACKED_MAX)
		return fail(img, e, "bzImage payload: unpacked size %#x is out of bounds", size);
	p.out_len = size;
	fd = memfd_create("keel-kernel", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)p.out_len)) {
		fail(img, e, "cannot make %zu MiB to unpack it to: %s", p.out_len >> 20, strerror(errno));
		goto out;
	}
	p.out = mmap(NULL, p.out_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p.out == MAP_FAILED) {
		fail(img, e, "cannot map %zu MiB to unpack it to: %s", p.out_len >> 20, strerror(errno));
		goto out;
	}
	why = packings[k].unpack(&p);
	munmap(p.out, p.out_len);
	if (why) {
		fail(img, e, "bzImage payload (%s): %s", packings[k].name, why);
		goto out;
	}
	close(img->fd);
	img->fd = fd;
	img->size = p.out_len;
	return 0;
out:
	if (fd >= 0)
		close(fd);
	return -1;
}

static int unpack_bzimage(struct image *img, const uint8_t *setup, struct error *e)
{
	uint64_t sects = setup[SETUP_SECTS] ? setup[SETUP_SECTS] : SETUP_SECTS_DEFAULT, at;
	uint32_t payload[2];
	uint16_t version;
	uint8_t *in;
	int err;

	memcpy(&version, setup + SETUP_VERSION, sizeof(version));
	if (version < VERSION_WITH_PAYLOAD)
		return fail(img, e, "bzImage of boot protocol %u.%u: at least 2.8 tells where the kernel is",
			    version >> 8, version & 0xff);
	memcpy(payload, setup + SETUP_PAYLOAD, sizeof(payload));
	at = (sects + 1) * SECTOR + payload[0];
	if (payload[1] < 16)
		return fail(img, e, "bzImage payload of %u bytes", payload[1]);
	if (at > img->size || payload[1] > img->size - at)
		return fail(img, e, "bzImage payload %#lx..+%#x is beyond the end of the file (%#lx): truncated", at,
			    payload[1], img->size);
	if (payload[1] > HVM_PACKED_MAX)
		return fail(img, e, "bzImage payload of %u MiB, more than %lu", payload[1] >> 20,
			    (unsigned long)(HVM_PACKED_MAX >> 20));
	in = malloc(payload[1]);
	if (!in)
		return fail(img, e, "out of memory");
	if (!image_read(img, in, payload[1], at))
		err = fail(img, e, "cannot read the bzImage payload");
	else
		err = replace(img, in, payload[1], e);
	free(in);
	return err;
}

static int check_header(struct image *img, Elf64_Ehdr *eh, struct error *e)
{
	if (!image_read(img, eh, sizeof(*eh), 0))
		return fail(img, e, "truncated: %lu bytes do not hold an ELF header", img->size);
	if (memcmp(eh->e_ident, ELFMAG, SELFMAG))
		return fail(img, e, "what the bzImage holds is not an ELF file");
	if (eh->e_ident[EI_CLASS] != ELFCLASS64 || eh->e_ident[EI_DATA] != ELFDATA2LSB || eh->e_machine != EM_X86_64)
		return fail(img, e, "ELF class %u, data encoding %u, machine %u: not a 64-bit x86 kernel",
			    eh->e_ident[EI_CLASS], eh->e_ident[EI_DATA], eh->e_machine);
	if (eh->e_type != ET_EXEC && eh->e_type != ET_DYN)
		return fail(img, e, "ELF type %u: not an executable", eh->e_type);
	if (!eh->e_phnum)
		return fail(img, e, "no program headers");
	if (eh->e_phentsize != sizeof(Elf64_Phdr))
		return fail(img, e, "program header size is %u instead of %zu", eh->e_phentsize, sizeof(Elf64_Phdr));
	if (eh->e_phnum > IMAGE_PHDRS_MAX)
		return fail(img, e, "%u program headers, more than %u", eh->e_phnum, IMAGE_PHDRS_MAX);
	return 0;
}

static int check_load(struct image *img, unsigned int n, const Elf64_Phdr *ph, struct error *e)
{
	struct image_segment *s;

	if (ph->p_filesz > ph->p_memsz)
		return fail(img, e, "program header %u: file size %#lx exceeds memory size %#lx", n, ph->p_filesz,
			    ph->p_memsz);
	if (!ph->p_memsz)
		return 0;
	if (ph->p_offset > img->size || ph->p_filesz > img->size - ph->p_offset)
		return fail(img, e, "program header %u: bytes %#lx..+%#lx are beyond the end of the file (%#lx)", n,
			    ph->p_offset, ph->p_filesz, img->size);
	if (ph->p_paddr < HVM_LOW_END)
		return fail(img, e, "program header %u: physical address %#lx: the first MiB is the host's", n,
			    ph->p_paddr);
	if (ph->p_paddr >= HVM_RAM_MAX || ph->p_memsz > HVM_RAM_MAX - ph->p_paddr)
		return fail(img, e, "program header %u: physical addresses %#lx..+%#lx are beyond 3 GiB", n,
			    ph->p_paddr, ph->p_memsz);
	for (unsigned int i = 0; i < img->segments; i++) {
		const struct image_segment *o = &img->segment[i];

		if (ph->p_paddr < o->gpa + o->len && o->gpa < ph->p_paddr + ph->p_memsz)
			return fail(img, e,
				    "program header %u: physical addresses %#lx..+%#lx overlap program header %u", n,
				    ph->p_paddr, ph->p_memsz, o->phdr);
	}
	if (img->segments == IMAGE_SEGMENTS_MAX)
		return fail(img, e, "program header %u: more than %u segments to load", n, IMAGE_SEGMENTS_MAX);
	s = &img->segment[img->segments++];
	*s = (struct image_segment){ .phdr = n,
				     .offset = ph->p_offset,
				     .filesz = ph->p_filesz,
				     .va = ph->p_vaddr,
				     .gpa = ph->p_paddr,
				     .len = ph->p_memsz,
				     .prot = KEEL_PROT_R | KEEL_PROT_W | KEEL_PROT_X };
	return 0;
}

struct entry {
	struct image *img;
	struct error *e;
	bool found;
};

static int check_note(void *to, const struct image_note *note)
{
	struct entry *t = to;

	if (note->namesz != sizeof(PVH_NOTE_NAME) || memcmp(note->name, PVH_NOTE_NAME, sizeof(PVH_NOTE_NAME)) ||
	    note->type != PVH_NOTE_ENTRY)
		return 0;
	if (note->size != 4 && note->size != 8)
		return fail(t->img, t->e, "program header %u: PVH entry note of %u bytes", note->n, note->size);
	if (t->found)
		return fail(t->img, t->e, "program header %u: a second PVH entry note", note->n);
	t->found = true;
	memcpy(&t->img->entry, note->desc, note->size);
	return 0;
}

static int check_elf(struct image *img, struct error *e)
{
	struct entry entry = { .img = img, .e = e };
	Elf64_Phdr ph[IMAGE_PHDRS_MAX];
	Elf64_Ehdr eh;

	if (check_header(img, &eh, e))
		return -1;
	if (!image_read(img, ph, eh.e_phnum * sizeof(*ph), eh.e_phoff))
		return fail(img, e, "%u program headers at %#lx are beyond the end of the file (%#lx)", eh.e_phnum,
			    eh.e_phoff, img->size);
	for (unsigned int i = 0; i < eh.e_phnum; i++)
		if ((ph[i].p_type == PT_LOAD && check_load(img, i, &ph[i], e)) ||
		    (ph[i].p_type == PT_NOTE && image_notes(img, i, &ph[i], check_note, &entry, e)))
			return -1;
	if (!img->segments)
		return fail(img, e, "nothing to load: no PT_LOAD segment with memory");
	if (!entry.found)
		return fail(img, e, "no PVH entry: no note \"Xen\" of type 18; a Linux needs CONFIG_PVH");
	for (unsigned int i = 0; i < img->segments; i++)
		if (img->entry >= img->segment[i].gpa && img->entry - img->segment[i].gpa < img->segment[i].len)
			return 0;
	return fail(img, e, "PVH entry %#lx is in no segment", img->entry);
}

/* Which of the two it is. */
static int check_file(struct image *img, struct error *e)
{
	uint8_t head[SETUP_SIZE] = { 0 };
	struct stat st;

	if (fstat(img->fd, &st))
		return fail(img, e, "%s", strerror(errno));
	if (!S_ISREG(st.st_mode))
		return fail(img, e, "not a regular file");
	img->size = (uint64_t)st.st_size;
	if (!image_read(img, head, img->size < sizeof(head) ? img->size : sizeof(head), 0))
		return fail(img, e, "cannot read it");
	if (!memcmp(head, ELFMAG, SELFMAG))
		return check_elf(img, e);
	if (memcmp(head + SETUP_MAGIC, "HdrS", 4))
		return fail(img, e, "neither an ELF kernel nor a bzImage");
	return unpack_bzimage(img, head, e) ? -1 : check_elf(img, e);
}

int hvmimage_open_fd(struct image *img, int fd, const char *name, struct error *e)
{
	memset(img, 0, sizeof(*img));
	img->name = name;
	img->fd = fd;
	if (!check_file(img, e))
		return 0;
	image_close(img);
	return -1;
}

int hvmimage_open(struct image *img, const char *path, struct error *e)
{
	/* O_NONBLOCK: a FIFO is refused below instead of waited for. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return error_set(e, "%s: %s", path, strerror(errno));
	return hvmimage_open_fd(img, fd, path, e);
}

int hvmimage_load(struct image *img, struct partition *p, struct error *e)
{
	uint64_t end = 0;

	for (unsigned int i = 0; i < img->segments; i++)
		if (img->segment[i].gpa + img->segment[i].len > end)
			end = img->segment[i].gpa + img->segment[i].len;
	if (end > p->ram_size)
		return fail(img, e, "the kernel ends at %lu MiB, memory at %lu: use a larger --mem",
			    (end + 0xfffff) >> 20, p->ram_size >> 20);
	for (unsigned int i = 0; i < img->segments; i++) {
		const struct image_segment *s = &img->segment[i];

		if (!image_read(img, p->ram + s->gpa, s->filesz, s->offset))
			return fail(img, e, "program header %u: cannot read %lu bytes at %#lx", s->phdr, s->filesz,
				    s->offset);
	}
	p->entry = img->entry;
	return 0;
}
