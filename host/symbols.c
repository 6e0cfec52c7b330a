// SPDX-License-Identifier: MIT
#include "symbols.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"

#define SECTIONS_MAX 4096
#define TABLE_MAX (64u << 20)	/* bytes of a symbol or string table */
#define REACH KEEL_U64(0x10000) /* how far a symbol without a size is believed to extend */

static int by_addr(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

/* Sections of a checked count; NULL when they are not in the file. */
static Elf64_Shdr *read_sections(const struct image *img, unsigned int *count)
{
	Elf64_Ehdr eh;
	Elf64_Shdr *sh;

	if (!image_read(img, &eh, sizeof(eh), 0) || eh.e_shentsize != sizeof(*sh) || !eh.e_shnum ||
	    eh.e_shnum > SECTIONS_MAX)
		return NULL;
	sh = calloc(eh.e_shnum, sizeof(*sh));
	if (sh && !image_read(img, sh, eh.e_shnum * sizeof(*sh), eh.e_shoff)) {
		free(sh);
		return NULL;
	}
	*count = eh.e_shnum;
	return sh;
}

static void *read_table(const struct image *img, const Elf64_Shdr *sh, size_t extra)
{
	char *buf;

	if (!sh->sh_size || sh->sh_size > TABLE_MAX)
		return NULL;
	buf = malloc(sh->sh_size + extra);
	if (buf && !image_read(img, buf, sh->sh_size, sh->sh_offset)) {
		free(buf);
		return NULL;
	}
	return buf;
}

static void take_symbols(struct symbols *s, const struct image *img, const Elf64_Shdr *table, const Elf64_Shdr *strings)
{
	size_t n = table->sh_size / sizeof(Elf64_Sym);
	Elf64_Sym *sym = read_table(img, table, 0);

	s->names = read_table(img, strings, 1);
	s->sym = sym ? calloc(n ? n : 1, sizeof(*s->sym)) : NULL; /* n is not believed before the table was read */
	if (!s->names || !s->sym) {
		free(sym);
		symbols_free(s);
		return;
	}
	s->names_size = strings->sh_size;
	s->names[s->names_size] = '\0';
	for (size_t i = 0; i < n; i++) {
		unsigned int type = ELF64_ST_TYPE(sym[i].st_info);

		/* Assembly often leaves labels without a type; section and file symbols name no code. */
		if ((type != STT_FUNC && type != STT_NOTYPE) || sym[i].st_shndx == SHN_UNDEF ||
		    sym[i].st_shndx == SHN_ABS || sym[i].st_name >= s->names_size || !s->names[sym[i].st_name])
			continue;
		s->sym[s->count++] = (struct symbol){ sym[i].st_value, sym[i].st_size, sym[i].st_name };
	}
	free(sym);
	qsort(s->sym, s->count, sizeof(*s->sym), by_addr);
}

void symbols_load(struct symbols *s, const struct image *img)
{
	unsigned int count;
	Elf64_Shdr *sh;

	memset(s, 0, sizeof(*s));
	sh = read_sections(img, &count);
	for (unsigned int i = 0; sh && i < count; i++) {
		if (sh[i].sh_type != SHT_SYMTAB || sh[i].sh_entsize != sizeof(Elf64_Sym) || sh[i].sh_link >= count ||
		    sh[sh[i].sh_link].sh_type != SHT_STRTAB)
			continue;
		take_symbols(s, img, &sh[i], &sh[sh[i].sh_link]);
		break;
	}
	free(sh);
}

void symbols_free(struct symbols *s)
{
	free(s->sym);
	free(s->names);
	memset(s, 0, sizeof(*s));
}

const char *symbols_find(const struct symbols *s, uint64_t addr, uint64_t *offset)
{
	size_t lo = 0, hi = s->count;

	/* The first symbol above addr; candidates are below it. */
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->sym[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	/* A sized symbol that covers the address beats a bare label in its middle; look back a little. */
	for (size_t i = lo, tries = 0; i-- > 0 && tries < 16; tries++) {
		uint64_t off = addr - s->sym[i].addr;

		if (off < s->sym[i].size) {
			*offset = off;
			return s->names + s->sym[i].name;
		}
	}
	if (lo && !s->sym[lo - 1].size && addr - s->sym[lo - 1].addr < REACH) {
		*offset = addr - s->sym[lo - 1].addr;
		return s->names + s->sym[lo - 1].name;
	}
	return NULL;
}
