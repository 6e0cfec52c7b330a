// SPDX-License-Identifier: GPL-2.0-only
/*
 * mkimage - make an image for a Keel partition of a vmlinux of arch/um, in place
 *
 *	mkimage VMLINUX
 *
 * arch/um's linker script says nothing of where in RAM a segment goes: each goes where
 * its physical address, which is its distance from the first, says. And it lets
 * sections of code that is never run (.exit.text, .altinstr_replacement) lie among data,
 * which makes a segment writable and executable: that one is data.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(const char *file, const char *what)
{
	fprintf(stderr, "mkimage: %s: %s\n", file, what);
	return 1;
}

int main(int argc, char **argv)
{
	Elf64_Addr base = ~0ull;
	Elf64_Ehdr *e;
	Elf64_Phdr *p;
	struct stat st;
	int fd;

	if (argc != 2) {
		fprintf(stderr, "usage: mkimage VMLINUX\n");
		return 2;
	}
	fd = open(argv[1], O_RDWR);
	if (fd < 0 || fstat(fd, &st))
		return fail(argv[1], strerror(errno));
	e = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (e == MAP_FAILED)
		return fail(argv[1], strerror(errno));
	if (st.st_size < (off_t)sizeof(*e) || memcmp(e->e_ident, ELFMAG, SELFMAG) ||
	    e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_phentsize != sizeof(*p) || e->e_phoff > (Elf64_Off)st.st_size ||
	    e->e_phnum > ((Elf64_Off)st.st_size - e->e_phoff) / sizeof(*p))
		return fail(argv[1], "not a 64-bit ELF file with program headers");
	p = (Elf64_Phdr *)((char *)e + e->e_phoff);
	for (int i = 0; i < e->e_phnum; i++)
		if (p[i].p_type == PT_LOAD && p[i].p_vaddr < base)
			base = p[i].p_vaddr;
	for (int i = 0; i < e->e_phnum; i++) {
		if (p[i].p_type != PT_LOAD)
			continue;
		p[i].p_paddr = p[i].p_vaddr - base;
		if (p[i].p_flags & PF_W)
			p[i].p_flags &= ~PF_X;
	}
	if (munmap(e, st.st_size) || close(fd))
		return fail(argv[1], strerror(errno));
	return 0;
}
