// SPDX-License-Identifier: MIT
/* Processes; see process.h. */
#include "process.h"

#define RW (HAL_PROT_R | HAL_PROT_W)
#define FRAMES 2048
#define CONTEXT_SIZE 16384
#define HEAP_VA 0x100000000ull
#define HEAP_LEN 0x100000ull
#define STACK_TOP 0x7e0000000000ull
#define STACK_LEN 0x20000ull
#define RED_ZONE 128
#define USER_END HAL_VA_END

struct process processes[PROCESSES];
volatile bool process_slice_over;
unsigned int process_pages_copied;
static char contexts[PROCESSES][CONTEXT_SIZE] __attribute__((aligned(4096)));
static unsigned int last_pid, last_run;

/* Pages in use by processes, and by how many. */
static struct {
	uint64_t pa;
	unsigned int users;
} frames[FRAMES];

static const char *archive;
static size_t archive_len;

static void copy(void *to, const void *from, size_t n)
{
	char *t = to;
	const char *f = from;

	while (n--)
		*t++ = *f++;
}

static bool same_name(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* --------------------------------------------------------------- archive */

#define CPIO_HEADER 110
#define CPIO_SIZE 54 /* offset of the file's size, 8 hexadecimal digits */
#define CPIO_NAME_SIZE 94

struct file {
	const char *name, *data;
	size_t len;
};

/* Digits at p; -1 when they are none. */
static long hex8(const char *p)
{
	long v = 0;

	for (int i = 0; i < 8; i++) {
		int c = p[i] | 0x20;

		if (p[i] >= '0' && p[i] <= '9')
			v = v << 4 | (p[i] - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (c - 'a' + 10);
		else
			return -1;
	}
	return v;
}

/* The file at *at, and *at moved behind it. Whatever the archive says, nothing outside of it is looked at. */
static bool next_file(size_t *at, struct file *f)
{
	const char *h = archive + *at;
	long size, name_size;
	size_t left = archive_len - *at, data;

	if (left < CPIO_HEADER || h[0] != '0' || h[1] != '7' || h[2] != '0' || h[3] != '7' || h[4] != '0' ||
	    h[5] != '1')
		return false;
	size = hex8(h + CPIO_SIZE);
	name_size = hex8(h + CPIO_NAME_SIZE);
	if (size < 0 || name_size < 1 || (size_t)name_size > left - CPIO_HEADER || h[CPIO_HEADER + name_size - 1])
		return false;
	data = (CPIO_HEADER + (size_t)name_size + 3) & ~(size_t)3;
	if (data > left || (size_t)size > left - data)
		return false;
	*f = (struct file){ h + CPIO_HEADER, h + data, (size_t)size };
	data += ((size_t)size + 3) & ~(size_t)3;
	*at += data < left ? data : left;
	return !same_name(f->name, "TRAILER!!!");
}

unsigned int process_archive(const char *start, size_t len)
{
	unsigned int n = 0;

	archive = start;
	archive_len = len;
	while (process_program(n))
		n++;
	return n;
}

const char *process_program(unsigned int index)
{
	size_t at = 0;
	struct file f;

	while (next_file(&at, &f)) {
		if (!index--)
			return f.name;
	}
	return NULL;
}

static bool find_file(const char *name, struct file *f)
{
	size_t at = 0;

	while (next_file(&at, f)) {
		if (same_name(f->name, name))
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------- ELF */

struct elf {
	char ident[16];
	uint16_t type, machine;
	uint32_t version;
	uint64_t entry, phoff, shoff;
	uint32_t flags;
	uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};

struct elf_segment {
	uint32_t type, flags;
	uint64_t offset, vaddr, paddr, filesz, memsz, align;
};

#define ELF_EXEC 2
#define ELF_X86_64 62
#define ELF_LOAD 1

/* The program's segments, and where it begins; false when it is no program for us. */
static bool elf_segments(const struct file *f, struct process *p, uint64_t *entry)
{
	static const unsigned int prot_of[8] = {
		0,  HAL_PROT_X,	     HAL_PROT_W, HAL_PROT_W | HAL_PROT_X, HAL_PROT_R, HAL_PROT_R | HAL_PROT_X,
		RW, RW | HAL_PROT_X,
	};
	const struct elf *e = (const struct elf *)f->data;
	unsigned int n = 0;

	if (f->len < sizeof(*e) || e->ident[0] != 0x7f || e->ident[1] != 'E' || e->ident[2] != 'L' ||
	    e->ident[3] != 'F' || e->ident[4] != 2 || e->type != ELF_EXEC || e->machine != ELF_X86_64 ||
	    e->phentsize != sizeof(struct elf_segment) || e->phoff > f->len ||
	    e->phnum > (f->len - e->phoff) / sizeof(struct elf_segment))
		return false;
	for (unsigned int i = 0; i < e->phnum; i++) {
		const struct elf_segment *s = (const struct elf_segment *)(f->data + e->phoff) + i;

		if (s->type != ELF_LOAD || !s->memsz)
			continue;
		if (n == PROCESS_SEGMENTS || s->offset > f->len || s->filesz > f->len - s->offset ||
		    s->filesz > s->memsz || s->vaddr < HAL_VA_MIN || s->vaddr >= HEAP_VA ||
		    s->memsz > HEAP_VA - s->vaddr || !(s->flags & 7))
			return false;
		p->segment[n++] =
			(struct segment){ s->vaddr, s->memsz, f->data + s->offset, s->filesz, prot_of[s->flags & 7] };
	}
	p->segment[n++] = (struct segment){ HEAP_VA, HEAP_LEN, NULL, 0, RW };
	p->segment[n] = (struct segment){ STACK_TOP - STACK_LEN, STACK_LEN, NULL, 0, RW };
	*entry = e->entry;
	return true;
}

/* ---------------------------------------------------------------- memory */

static unsigned int frame_get(void)
{
	for (unsigned int i = 0; i < FRAMES; i++) {
		if (frames[i].users)
			continue;
		frames[i].pa = page_get();
		frames[i].users = frames[i].pa != 0;
		return frames[i].users ? i : FRAMES;
	}
	return FRAMES;
}

static void frame_put(unsigned int i)
{
	if (!--frames[i].users)
		page_put(frames[i].pa);
}

/* Number of the page a process has at va, p->pages when it has none. */
static unsigned int page_at(const struct process *p, uint64_t va)
{
	unsigned int i = 0;

	while (i < p->pages && p->page[i].va != va)
		i++;
	return i;
}

/* What may be at a page, of all segments that touch it. */
static unsigned int prot_at(const struct process *p, uint64_t va)
{
	unsigned int prot = 0;

	for (unsigned int i = 0; i < PROCESS_SEGMENTS + 2; i++) {
		const struct segment *s = &p->segment[i];

		if (s->len && va + HAL_PAGE_SIZE > s->va && va < s->va + s->len)
			prot |= s->prot;
	}
	return prot;
}

/* The first touch: zeroes and what the file has for it. */
static void fill(const struct process *p, uint64_t va, char *page)
{
	for (unsigned int i = 0; i < HAL_PAGE_SIZE; i++)
		page[i] = 0;
	for (unsigned int i = 0; i < PROCESS_SEGMENTS + 2; i++) {
		const struct segment *s = &p->segment[i];
		uint64_t from = s->va > va ? s->va : va, to = s->va + s->file_len;

		if (to > va + HAL_PAGE_SIZE)
			to = va + HAL_PAGE_SIZE;
		if (s->file_len && from < to)
			copy(page + (from - va), s->file + (from - s->va), to - from);
	}
}

/* Give the process a page it may have. False when it may not, or memory has run out. */
static bool bring_in(struct process *p, uint64_t va)
{
	unsigned int prot = prot_at(p, va), frame;

	if (!prot || p->pages == PROCESS_PAGES)
		return false;
	frame = frame_get();
	if (frame == FRAMES)
		return false;
	fill(p, va, hal_pa_to_va(frames[frame].pa));
	if (hal_space_map(p->space, va, frames[frame].pa, HAL_PAGE_SIZE, prot, 0)) {
		frame_put(frame);
		return false;
	}
	p->page[p->pages].va = va;
	p->page[p->pages++].frame = frame;
	p->filled++;
	return true;
}

/* A write to a page that became read-only by a fork: the last who has it may, any other gets a copy. */
static bool unshare(struct process *p, unsigned int page)
{
	uint64_t va = p->page[page].va;
	unsigned int prot = prot_at(p, va), old = p->page[page].frame, frame;

	if (frames[old].users == 1)
		return !hal_space_protect(p->space, va, HAL_PAGE_SIZE, prot);
	frame = frame_get();
	if (frame == FRAMES)
		return false;
	copy(hal_pa_to_va(frames[frame].pa), hal_pa_to_va(frames[old].pa), HAL_PAGE_SIZE);
	if (hal_space_map(p->space, va, frames[frame].pa, HAL_PAGE_SIZE, prot, 0)) {
		frame_put(frame);
		return false;
	}
	p->page[page].frame = frame;
	frame_put(old);
	p->copied++;
	process_pages_copied++;
	return true;
}

/* Can the access that faulted be made possible? */
static bool resolve(struct process *p, uint64_t addr, uint64_t error)
{
	unsigned int need = error & HAL_PF_X ? HAL_PROT_X : error & HAL_PF_W ? HAL_PROT_W : HAL_PROT_R;
	uint64_t va = addr & ~(HAL_PAGE_SIZE - 1);
	unsigned int page = page_at(p, va);

	if (addr >= USER_END || !(prot_at(p, va) & need))
		return false;
	if (page == p->pages)
		return bring_in(p, va);
	/* It is there: a write to a shared page, or another entry was quicker. */
	return !(error & HAL_PF_W) || unshare(p, page);
}

/* Bytes of a process, seen by the kernel; NULL when it may not access them itself. At most to the end of the page. */
static char *user_bytes(struct process *p, uint64_t addr, bool write, uint64_t *len)
{
	uint64_t va = addr & ~(HAL_PAGE_SIZE - 1), left = va + HAL_PAGE_SIZE - addr;
	unsigned int page = page_at(p, va);

	if (page == p->pages || write) {
		if (!resolve(p, addr, write ? HAL_PF_W : 0))
			return NULL;
		page = page_at(p, va);
	}
	if (*len > left)
		*len = left;
	return (char *)hal_pa_to_va(frames[p->page[page].frame].pa) + (addr - va);
}

static bool user_copy(struct process *p, uint64_t addr, void *bytes, uint64_t len, bool write)
{
	while (len) {
		uint64_t n = len;
		char *at = user_bytes(p, addr, write, &n);

		if (!at)
			return false;
		if (write)
			copy(at, bytes, n);
		else
			copy(bytes, at, n);
		bytes = (char *)bytes + n;
		addr += n;
		len -= n;
	}
	return true;
}

/* ------------------------------------------------------------- processes */

static struct process *process_new(unsigned int parent, const char *name)
{
	for (unsigned int i = 0; i < PROCESSES; i++) {
		struct process *p = &processes[i];

		if (p->state != PROCESS_NONE)
			continue;
		*p = (struct process){ .parent = parent, .user = (struct hal_user *)contexts[i] };
		for (unsigned int k = 0; k < PROCESS_NAME - 1 && name[k]; k++)
			p->name[k] = name[k];
		return hal_user_size() <= CONTEXT_SIZE ? p : NULL;
	}
	return NULL;
}

struct process *process_find(unsigned int pid)
{
	for (unsigned int i = 0; i < PROCESSES; i++) {
		if (processes[i].state != PROCESS_NONE && processes[i].pid == pid)
			return &processes[i];
	}
	return NULL;
}

struct process *process_start(const char *name, uint64_t argument)
{
	struct process *p = process_new(0, name);
	uint64_t entry;
	struct file f;

	if (!p || !find_file(name, &f) || !elf_segments(&f, p, &entry) || hal_space_create(&p->space))
		return NULL;
	hal_user_init(p->user, entry, STACK_TOP);
	p->user->rdi = argument;
	p->pid = ++last_pid;
	p->state = PROCESS_READY;
	return p;
}

struct process *process_next(void)
{
	for (unsigned int i = 1; i <= PROCESSES; i++) {
		struct process *p = &processes[(last_run + i) % PROCESSES];

		if (p->state != PROCESS_READY)
			continue;
		last_run = (unsigned int)(p - processes);
		return p;
	}
	return NULL;
}

static void process_end(struct process *p, int status)
{
	struct process *parent = process_find(p->parent);

	for (unsigned int i = 0; i < PROCESSES; i++) {
		if (processes[i].parent == p->pid)
			processes[i].parent = 0; /* the kernel's to reap from now on */
	}
	hal_space_destroy(p->space);
	for (unsigned int i = 0; i < p->pages; i++)
		frame_put(p->page[i].frame);
	p->pages = 0;
	p->status = status;
	p->state = PROCESS_ENDED;
	if (parent && parent->state == PROCESS_WAITING)
		parent->state = PROCESS_READY; /* its call is made again */
}

int process_reap(struct process *p)
{
	p->state = PROCESS_NONE;
	return p->status;
}

void process_kill(struct process *p)
{
	p->killed = true;
	if (p->state == PROCESS_WAITING)
		p->state = PROCESS_READY;
}

static struct process *process_fork(struct process *p)
{
	struct process *child = process_new(p->pid, p->name);

	if (!child || hal_space_clone(p->space, &child->space, 0))
		return NULL;
	copy(child->user, p->user, hal_user_size());
	copy(child->segment, p->segment, sizeof(p->segment));
	copy(child->page, p->page, sizeof(p->page));
	child->pages = p->pages;
	for (unsigned int i = 0; i < p->pages; i++)
		frames[p->page[i].frame].users++;
	child->handler = p->handler;
	child->user->rax = 0;
	child->pid = ++last_pid;
	child->state = PROCESS_READY;
	return child;
}

/* --------------------------------------------------------------- signals */

/* Go on in the handler, what was interrupted kept on the process's stack. */
static bool deliver(struct process *p, unsigned int signal, uint64_t addr)
{
	struct hal_user *u = p->user;
	uint64_t at = (u->rsp - RED_ZONE - sizeof(struct signal_frame)) & ~15ull;

	/* rip to r15 lie in the same order. */
	if (!p->handler || !user_copy(p, at, &u->rip, sizeof(struct signal_frame), true))
		return false;
	u->rsp = at - 8; /* as behind a call, with nowhere to return to */
	u->rip = p->handler;
	u->rflags = 0;
	u->rdi = signal;
	u->rsi = addr;
	u->rdx = at;
	return true;
}

/* ----------------------------------------------------------------- calls */

static int64_t call_exit(struct process *p, uint64_t code, uint64_t b)
{
	(void)b;
	process_end(p, (int)(code & 0xff));
	return 0;
}

static int64_t call_write(struct process *p, uint64_t addr, uint64_t len)
{
	for (uint64_t done = 0; done < len;) {
		uint64_t n = len - done;
		char *bytes = user_bytes(p, addr + done, false, &n);

		if (!bytes)
			return -1;
		hal_write(bytes, n);
		done += n;
	}
	return (int64_t)len;
}

static int64_t call_pid(struct process *p, uint64_t a, uint64_t b)
{
	(void)a;
	(void)b;
	return p->pid;
}

static int64_t call_fork(struct process *p, uint64_t a, uint64_t b)
{
	struct process *child = process_fork(p);

	(void)a;
	(void)b;
	return child ? (int64_t)child->pid : -1;
}

static int64_t call_wait(struct process *p, uint64_t a, uint64_t b)
{
	bool children = false;

	(void)a;
	(void)b;
	for (unsigned int i = 0; i < PROCESSES; i++) {
		struct process *c = &processes[i];

		if (c->state == PROCESS_NONE || c->parent != p->pid)
			continue;
		children = true;
		if (c->state == PROCESS_ENDED)
			return (int64_t)c->pid << 8 | process_reap(c);
	}
	if (children) {
		p->state = PROCESS_WAITING;
		p->user->rip -= 2; /* the syscall again, then */
		return CALL_WAIT;
	}
	return -1;
}

static int64_t call_yield(struct process *p, uint64_t a, uint64_t b)
{
	(void)p;
	(void)a;
	(void)b;
	return 0;
}

static int64_t call_handler(struct process *p, uint64_t addr, uint64_t b)
{
	(void)b;
	p->handler = addr;
	return 0;
}

static int64_t call_sigreturn(struct process *p, uint64_t addr, uint64_t b)
{
	(void)b;
	/* What cannot be resumed is found by hal_user_enter(). */
	if (!user_copy(p, addr, &p->user->rip, sizeof(struct signal_frame), false))
		process_kill(p);
	return (int64_t)p->user->rax;
}

static int64_t call_kill(struct process *p, uint64_t pid, uint64_t signal)
{
	struct process *to = process_find((unsigned int)pid);

	(void)p;
	if (!to || to->state == PROCESS_ENDED || !signal || signal >= SIGNAL_COUNT)
		return -1;
	if (signal == SIGNAL_KILL)
		process_kill(to);
	else
		to->pending = (unsigned int)signal;
	return 0;
}

static int64_t call_clock(struct process *p, uint64_t a, uint64_t b)
{
	(void)p;
	(void)a;
	(void)b;
	return (int64_t)hal_clock_ns();
}

static int64_t (*const calls[CALL_COUNT])(struct process *p, uint64_t a, uint64_t b) = {
	[CALL_EXIT] = call_exit,       [CALL_WRITE] = call_write,	  [CALL_PID] = call_pid,
	[CALL_FORK] = call_fork,       [CALL_WAIT] = call_wait,		  [CALL_YIELD] = call_yield,
	[CALL_HANDLER] = call_handler, [CALL_SIGRETURN] = call_sigreturn, [CALL_KILL] = call_kill,
	[CALL_CLOCK] = call_clock,
};

/* True when the process goes on at once. */
static bool system_call(struct process *p)
{
	uint64_t number = p->user->rax;
	int64_t result = -1;

	p->calls++;
	if (number < CALL_COUNT)
		result = calls[number](p, p->user->rdi, p->user->rsi);
	p->user->rax = (uint64_t)result;
	return p->state == PROCESS_READY && number != CALL_YIELD;
}

static void last_words(struct process *p, const char *what)
{
	hal_printf("process %u (%s): %s, address 0x%lx, error 0x%lx\n", p->pid, p->name, what, p->user->addr,
		   p->user->error);
	process_end(p, 128);
}

/* True when the process goes on at once. */
static bool exception(struct process *p)
{
	struct hal_user *u = p->user;

	if (u->vector == HAL_VEC_PF && resolve(p, u->addr, u->error))
		return true;
	if (deliver(p, SIGNAL_FAULT, u->addr))
		return true;
	switch (u->vector) {
	case HAL_VEC_PF:
		last_words(p, "page fault");
		break;
	case HAL_VEC_GP:
		last_words(p, "general protection");
		break;
	case HAL_VEC_UD:
		last_words(p, "invalid opcode");
		break;
	default:
		last_words(p, "exception");
		break;
	}
	return false;
}

void process_step(struct process *p)
{
	bool on = true;

	while (on) {
		unsigned int signal = p->pending;

		p->pending = 0;
		if (p->killed || (signal && !deliver(p, signal, 0))) {
			process_end(p, 128);
			return;
		}
		/* Looked at with interrupts off, so that no end of a slice is run past. */
		hal_irq_disable();
		if (process_slice_over) {
			process_slice_over = false;
			hal_irq_enable();
			return;
		}
		switch (hal_user_enter(p->space, p->user)) {
		case HAL_USER_SYSCALL:
			on = system_call(p);
			break;
		case HAL_USER_EXCEPTION:
			on = exception(p);
			break;
		case HAL_USER_EVENT:
			p->events++;
			break;
		default:
			last_words(p, "registers that cannot be");
			return;
		}
	}
}
