// SPDX-License-Identifier: MIT
/*
 * The ELF core of a dead guest: AS 0 as gdb wants to see it. Memory that was
 * never touched, or is zero, is a hole in the file.
 */
#include "report.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <unistd.h>

#include "image.h"
#include "partition.h"

#define RUNS_MAX 60000 /* program headers; their count is 16 bits */

/* A piece of the guest's address space and where its bytes are in this process. */
struct piece {
	uint64_t va, len, at; /* at: in the file */
	uint32_t flags;	      /* PF_* */
	const uint8_t *mem;
	uint64_t ram_offset; /* UINT64_MAX: not RAM */
};

/* As in the file, where a note's parts are 4-byte aligned: packed, lest the compiler aligns them to 8. */
struct status {
	Elf64_Nhdr nh;
	char name[8];
	struct elf_prstatus desc;
} __attribute__((packed));

/* The order Linux has. Each vCPU that is known of is a thread to gdb, the one that crashed its current one. */
struct notes {
	struct status crashed;
	struct {
		Elf64_Nhdr nh;
		char name[8];
		struct elf_prpsinfo desc;
	} __attribute__((packed)) info;
	struct status other[PARTITION_VCPUS - 1];
} __attribute__((packed));

const char *elfcore_path(const struct keel_options *opt, char *buf, size_t n)
{
	const char *base = strrchr(opt->image, '/');

	if (opt->core)
		return strcmp(opt->core, "none") ? opt->core : NULL;
	snprintf(buf, n, "%s.core", base ? base + 1 : opt->image);
	return buf;
}

/* gdb wants a signal; this is the one Linux sends for the trap. Vector 0 is a trap too, or none: the reason tells. */
static int trap_signal(const struct crash_info *c)
{
	static const uint8_t signals[] = {
		[KEEL_VEC_DE] = 8,  [KEEL_VEC_DB] = 5,	[KEEL_VEC_BP] = 5, [KEEL_VEC_UD] = 4, [KEEL_VEC_DF] = 11,
		[KEEL_VEC_GP] = 11, [KEEL_VEC_PF] = 11, [KEEL_VEC_MF] = 8, [KEEL_VEC_AC] = 7, [KEEL_VEC_XM] = 8,
	};

	if (c->guest_call)
		return 6;
	if ((c->regs.vector || !strncmp(c->reason, "trap ", 5)) && c->regs.vector < sizeof(signals) &&
	    signals[c->regs.vector])
		return signals[c->regs.vector];
	return 11;
}

static void fill_status(struct status *n, const struct keel_frame *r, unsigned int vcpu, int signal)
{
	const struct user_regs_struct regs = {
		.r15 = r->r15,
		.r14 = r->r14,
		.r13 = r->r13,
		.r12 = r->r12,
		.rbp = r->rbp,
		.rbx = r->rbx,
		.r11 = r->r11,
		.r10 = r->r10,
		.r9 = r->r9,
		.r8 = r->r8,
		.rax = r->rax,
		.rcx = r->rcx,
		.rdx = r->rdx,
		.rsi = r->rsi,
		.rdi = r->rdi,
		.orig_rax = ~0ull,
		.rip = r->rip,
		.cs = 0x33,
		.eflags = r->rflags,
		.rsp = r->rsp,
		.ss = 0x2b,
		.gs_base = VCPU_VA + vcpu * VCPU_STRIDE,
	};

	n->nh = (Elf64_Nhdr){ 5, sizeof(n->desc), NT_PRSTATUS };
	memcpy(n->name, "CORE", 5);
	n->desc.pr_info.si_signo = n->desc.pr_cursig = (short)signal;
	n->desc.pr_pid = (pid_t)vcpu + 1;
	memcpy(&n->desc.pr_reg, &regs, sizeof(regs));
}

/* Returns how many bytes of it are used. */
static size_t fill_notes(struct notes *n, struct partition *p, const struct crash_info *c)
{
	const char *base = strrchr(p->image->name, '/');
	unsigned int threads = 0;
	struct crash_info other;

	memset(n, 0, sizeof(*n));
	fill_status(&n->crashed, &c->regs, c->vcpu, trap_signal(c));
	for (unsigned int i = 0; i < p->vcpus && threads < PARTITION_VCPUS - 1; i++) {
		other.have_regs = false;
		if (i != c->vcpu && p->ops->snapshot && p->ops->snapshot(p, i, &other) && other.have_regs)
			fill_status(&n->other[threads++], &other.regs, i, 0);
	}
	n->info.nh = (Elf64_Nhdr){ 5, sizeof(n->info.desc), NT_PRPSINFO };
	memcpy(n->info.name, "CORE", 5);
	n->info.desc.pr_sname = 'R';
	n->info.desc.pr_pid = 1;
	base = base ? base + 1 : p->image->name;
	/* Both fields may be full, without a NUL. */
	memcpy(n->info.desc.pr_fname, base, strnlen(base, sizeof(n->info.desc.pr_fname)));
	memcpy(n->info.desc.pr_psargs, p->image->name, strnlen(p->image->name, sizeof(n->info.desc.pr_psargs) - 1));
	return offsetof(struct notes, other[threads]);
}

static bool add_piece(struct piece **pieces, size_t *n, size_t *room, struct piece add)
{
	if (*n == *room) {
		size_t more = *room ? *room * 2 : 64;
		struct piece *grown = realloc(*pieces, more * sizeof(*grown));

		if (!grown)
			return false;
		*pieces = grown;
		*room = more;
	}
	(*pieces)[(*n)++] = add;
	return true;
}

static struct piece *collect(struct partition *p, size_t *n)
{
	struct piece *pieces = NULL;
	size_t room = 0;
	struct mapping m;
	uint64_t va = 0;

	*n = 0;
	while (*n < RUNS_MAX && report_mapping(p, va, &m)) {
		bool ram = m.gpa < p->ram_size;
		struct piece add = { .va = m.va, .len = m.len, .flags = PF_R };

		if (m.prot & KEEL_PROT_W)
			add.flags |= PF_W;
		if (m.prot & KEEL_PROT_X)
			add.flags |= PF_X;
		add.mem = ram ? p->ram + m.gpa : p->abi + (m.gpa - p->abi_gpa);
		add.ram_offset = ram ? m.gpa : UINT64_MAX;
		if (!add_piece(&pieces, n, &room, add))
			goto fail;
		va = m.va + m.len;
	}
	if (!add_piece(&pieces, n, &room, (struct piece){ ABI_VA, p->abi_size, 0, PF_R, p->abi, UINT64_MAX }))
		goto fail;
	for (unsigned int i = 0; i < p->vcpus; i++)
		if (p->vcpu[i] &&
		    !add_piece(&pieces, n, &room,
			       (struct piece){ VCPU_VA + i * VCPU_STRIDE, KEEL_VCPU_PAGE_SIZE, 0, PF_R | PF_W,
					       (const keel_force uint8_t *)p->vcpu[i], UINT64_MAX }))
			goto fail;
	return pieces;
fail:
	free(pieces);
	return NULL;
}

static int write_at(int fd, const void *buf, size_t n, uint64_t at)
{
	const uint8_t *from = buf;

	while (n) {
		ssize_t done = pwrite(fd, from, n, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return -1;
		from += done;
		at += (uint64_t)done;
		n -= (size_t)done;
	}
	return 0;
}

static bool is_zero(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, KEEL_PAGE_SIZE - 1);
}

/* Write the pages of [from, to) that are not zero, a run at a time. */
static int write_run(int fd, const struct piece *c, uint64_t from, uint64_t to, uint64_t *budget)
{
	uint64_t start = from;

	for (uint64_t at = from;; at += KEEL_PAGE_SIZE) {
		bool skip = at >= to || is_zero(c->mem + at);

		if (skip && at > start) {
			if (at - start > *budget)
				return 1;
			*budget -= at - start;
			if (write_at(fd, c->mem + start, at - start, c->at + start))
				return -1;
		}
		if (at >= to)
			return 0;
		if (skip)
			start = at + KEEL_PAGE_SIZE;
	}
}

/* RAM nobody touched is a hole of the memfd; reading it through the mapping would fill it. */
static int write_piece(int fd, const struct partition *p, const struct piece *c, uint64_t *budget)
{
	uint64_t at = 0;

	if (c->ram_offset == UINT64_MAX)
		return write_run(fd, c, 0, c->len, budget);
	while (at < c->len) {
		off_t data = lseek(p->ram_fd, (off_t)(c->ram_offset + at), SEEK_DATA);
		uint64_t from, to;
		off_t hole;
		int err;

		if (data < 0)
			return errno == ENXIO ? 0 : -1; /* no data up to the end of RAM */
		from = ((uint64_t)data & ~(KEEL_PAGE_SIZE - 1)) - c->ram_offset;
		if (from >= c->len)
			return 0;
		hole = lseek(p->ram_fd, data, SEEK_HOLE);
		if (hole < 0)
			return -1;
		to = (((uint64_t)hole + KEEL_PAGE_SIZE - 1) & ~(KEEL_PAGE_SIZE - 1)) - c->ram_offset;
		if (to > c->len)
			to = c->len;
		err = write_run(fd, c, from, to, budget);
		if (err)
			return err;
		at = to;
	}
	return 0;
}

static int write_core(int fd, struct partition *p, const struct crash_info *c, bool *cut)
{
	struct notes notes;
	struct piece *pieces;
	size_t n, head, notes_size;
	uint64_t at, budget = 3 * p->ram_size + (64u << 20); /* many mappings of one page must not fill the disk */
	Elf64_Phdr *ph = NULL;
	Elf64_Ehdr eh = { .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
			  .e_type = ET_CORE,
			  .e_machine = EM_X86_64,
			  .e_version = EV_CURRENT,
			  .e_phoff = sizeof(eh),
			  .e_ehsize = sizeof(eh),
			  .e_phentsize = sizeof(*ph) };
	int err = -1;

	pieces = collect(p, &n);
	if (!pieces)
		return -1;
	ph = calloc(n + 1, sizeof(*ph));
	if (!ph)
		goto out;
	notes_size = fill_notes(&notes, p, c);
	eh.e_phnum = (Elf64_Half)(n + 1);
	head = sizeof(eh) + (n + 1) * sizeof(*ph);
	ph[0] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_offset = head, .p_filesz = notes_size, .p_align = 4 };
	at = (head + notes_size + KEEL_PAGE_SIZE - 1) & ~(KEEL_PAGE_SIZE - 1);
	for (size_t i = 0; i < n; i++) {
		pieces[i].at = at;
		ph[i + 1] = (Elf64_Phdr){ .p_type = PT_LOAD,
					  .p_flags = pieces[i].flags,
					  .p_offset = at,
					  .p_vaddr = pieces[i].va,
					  .p_filesz = pieces[i].len,
					  .p_memsz = pieces[i].len,
					  .p_align = KEEL_PAGE_SIZE };
		at += pieces[i].len;
		if (at > INT64_MAX) { /* 60,000 mappings of much RAM; no file is that long */
			errno = EFBIG;
			goto out;
		}
	}
	if (ftruncate(fd, (off_t)at) || write_at(fd, &eh, sizeof(eh), 0) ||
	    write_at(fd, ph, (n + 1) * sizeof(*ph), sizeof(eh)) || write_at(fd, &notes, notes_size, head))
		goto out;
	for (size_t i = 0; i < n; i++) {
		err = write_piece(fd, p, &pieces[i], &budget);
		if (err)
			break;
	}
	*cut = err == 1;
	if (err > 0)
		err = 0;
out:
	free(ph);
	free(pieces);
	return err;
}

int elfcore_open(const char *path, bool explicit)
{
	/* A name we chose ourselves is not followed through somebody's symbolic link. */
	return open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK | (explicit ? 0 : O_NOFOLLOW), 0600);
}

int elfcore_write(int fd, const char *path, struct partition *p, const struct crash_info *c, struct error *e)
{
	struct stat st;
	bool cut = false;
	int err;

	if (fd < 0)
		return error_set(e, "cannot write the core %s: %s", path, strerror(errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return error_set(e, "cannot write the core %s: not a regular file", path);
	}
	/* Empty it first, so that holes read as zero. */
	err = ftruncate(fd, 0) || write_core(fd, p, c, &cut);
	if (err)
		error_set(e, "cannot write the core %s: %s", path, strerror(errno));
	close(fd);
	if (err)
		return -1;
	if (cut)
		host_say("the core %s is incomplete: the guest mapped the same memory too often", path);
	return 0;
}
