// SPDX-License-Identifier: MIT
#include "report.h"

#include <inttypes.h>
#include <string.h>

#include <hypercall/status.h>

#include "calls.h"
#include "image.h"
#include "partition.h"
#include "symbols.h"

#define FRAMES_MAX 64

bool report_mapping(struct partition *p, uint64_t va, struct mapping *m)
{
	uint64_t space, skip;

	/* The backend's idea of the address space lives in memory the guest can reach: each run is checked anew. */
	while (va < KEEL_VA_END && p->ops->next_mapping && p->ops->next_mapping(p, va, m)) {
		uint64_t end = m->va + m->len;

		if (!m->len || end < m->va || end <= va || (m->va | m->gpa | m->len) % KEEL_PAGE_SIZE ||
		    end > KEEL_VA_END)
			return false;
		if (m->va < va) {
			skip = va - m->va;
			m->va += skip;
			m->gpa += skip;
			m->len -= skip;
		}
		if (m->gpa < p->ram_size)
			space = p->ram_size - m->gpa;
		else if (m->gpa >= p->abi_gpa && m->gpa < p->abi_gpa + p->abi_size)
			space = p->abi_gpa + p->abi_size - m->gpa;
		else
			space = 0;
		va = end;
		if (!space)
			continue;
		if (m->len > space)
			m->len = space;
		return true;
	}
	return false;
}

bool report_read(struct partition *p, uint64_t va, void *dst, size_t len)
{
	uint8_t *to = dst;

	while (len) {
		struct mapping m;
		uint64_t n;
		const uint8_t *from;

		if (!report_mapping(p, va & ~(KEEL_PAGE_SIZE - 1), &m) || m.va > va)
			return false;
		n = m.va + m.len - va;
		if (n > len)
			n = len;
		from = m.gpa < p->ram_size ? p->ram + m.gpa : p->abi + (m.gpa - p->abi_gpa);
		memcpy(to, from + (va - m.va), n);
		to += n;
		va += n;
		len -= n;
	}
	return true;
}

unsigned int report_backtrace(struct partition *p, const struct crash_info *c, const struct symbols *s, uint64_t *pc,
			      unsigned int max)
{
	uint64_t frame[2] = { c->regs.rbp, 0 }, offset = 0;
	unsigned int n = 0;

	if (!c->have_regs || !max)
		return 0;
	pc[n++] = c->regs.rip;
	/*
	 * Before a function has set up its frame its caller's address is on top of the
	 * stack: at its first instruction, behind endbr64, and behind a wild jump.
	 */
	if (n < max &&
	    ((symbols_find(s, c->regs.rip, &offset) && (offset == 0 || offset == 4)) || c->regs.rip == c->regs.addr) &&
	    report_read(p, c->regs.rsp, &frame[1], sizeof(frame[1])) && frame[1])
		pc[n++] = frame[1];
	while (n < max) {
		uint64_t at = frame[0];

		if (!at || at % 8 || at > KEEL_VA_END || !report_read(p, at, frame, sizeof(frame)) || !frame[1])
			break;
		pc[n++] = frame[1];
		/* Callers' frames lie above; anything else is a loop or no frame. */
		if (frame[0] <= at)
			break;
	}
	return n;
}

/*
 * back: 1 for a return address, which may be the next function's first byte; the call
 * it belongs to is before it.
 */
static void print_place(FILE *f, const struct symbols *s, uint64_t addr, unsigned int back)
{
	uint64_t offset;
	const char *name = symbols_find(s, addr - back, &offset);

	fprintf(f, "%#018" PRIx64, addr);
	if (name) {
		/* The image's bytes, shown as text whatever they are. */
		fputs("  ", f);
		for (int i = 0; name[i] && i < 120; i++)
			fputc(name[i] > ' ' && name[i] < 0x7f ? name[i] : '?', f);
		fprintf(f, "+%#" PRIx64, offset + back);
	}
	fputc('\n', f);
}

static const char *trap_name(uint32_t vector)
{
	static const char *const names[] = {
		[KEEL_VEC_DE] = "divide error",	   [KEEL_VEC_DB] = "debug exception",
		[KEEL_VEC_BP] = "breakpoint",	   [KEEL_VEC_UD] = "invalid opcode",
		[KEEL_VEC_DF] = "double fault",	   [KEEL_VEC_GP] = "general protection fault",
		[KEEL_VEC_PF] = "page fault",	   [KEEL_VEC_MF] = "x87 exception",
		[KEEL_VEC_AC] = "alignment check", [KEEL_VEC_XM] = "SIMD exception",
	};

	return vector < sizeof(names) / sizeof(names[0]) && names[vector] ? names[vector] : "trap";
}

static void print_registers(FILE *f, const struct keel_frame *r)
{
	const struct {
		const char *name;
		uint64_t value;
	} regs[] = {
		{ "rax", r->rax }, { "rbx", r->rbx }, { "rcx", r->rcx }, { "rdx", r->rdx },
		{ "rsi", r->rsi }, { "rdi", r->rdi }, { "rbp", r->rbp }, { "rsp", r->rsp },
		{ "r8", r->r8 },   { "r9", r->r9 },   { "r10", r->r10 }, { "r11", r->r11 },
		{ "r12", r->r12 }, { "r13", r->r13 }, { "r14", r->r14 }, { "r15", r->r15 },
	};

	fprintf(f, "keel:   rip %016" PRIx64 "  rflags %08" PRIx64 "  IF %u", (uint64_t)r->rip, (uint64_t)r->rflags,
		r->rflags & KEEL_RFLAGS_IF ? 1 : 0);
	if (!r->vector && !r->error && r->addr) /* no trap of its own: the last one's */
		fprintf(f, "  cr2 %016" PRIx64, (uint64_t)r->addr);
	else if (r->vector || r->error)
		fprintf(f, "  vector %u (%s)  error %#" PRIx64 "  addr %016" PRIx64, r->vector, trap_name(r->vector),
			(uint64_t)r->error, (uint64_t)r->addr);
	for (size_t i = 0; i < sizeof(regs) / sizeof(regs[0]); i++)
		fprintf(f, "%s%-3s %016" PRIx64, i % 4 ? "  " : "\nkeel:   ", regs[i].name, regs[i].value);
	fputc('\n', f);
}

static void print_calls(FILE *f, const struct crash_info *c)
{
	unsigned int n = c->traces < TRACE_CALLS ? c->traces : TRACE_CALLS;

	if (!n)
		return;
	fprintf(f, "keel: last %u hypercall%s, oldest first:\n", n, n == 1 ? "" : "s");
	for (unsigned int i = 0; i < n; i++) {
		const struct trace_entry *t = &c->trace[i];
		char call[256], status[64];

		call_format(call, sizeof(call), t->id, t->arg);
		if (!t->returned) {
			fprintf(f, "keel:   %s, not returned\n", call);
			continue;
		}
		keel_status_format(status, sizeof(status), t->status);
		fprintf(f, "keel:   %s = %s, value %#" PRIx64 "\n", call, status, t->value);
	}
}

static void print_backtrace(FILE *f, struct partition *p, const struct crash_info *c)
{
	uint64_t pc[FRAMES_MAX];
	struct symbols s;
	unsigned int n;

	symbols_load(&s, p->image);
	n = report_backtrace(p, c, &s, pc, FRAMES_MAX);
	if (n)
		fputs("keel: backtrace:\n", f);
	for (unsigned int i = 0; i < n; i++) {
		fprintf(f, "keel:   #%-2u ", i);
		print_place(f, &s, pc[i], i ? 1 : 0);
	}
	if (n && !s.count)
		fputs("keel:   (no names: the image has no symbol table)\n", f);
	symbols_free(&s);
}

static void print_message(FILE *f, const struct crash_info *c)
{
	static const char *const reasons[] = {
		[KEEL_CRASH_PANIC] = "panic",
		[KEEL_CRASH_ASSERT] = "failed assertion",
		[KEEL_CRASH_TRAP] = "trap it could not handle",
	};

	fprintf(f, "keel: the guest says: %s (reason %u), words %#" PRIx64 " %#" PRIx64 "\n",
		c->guest_reason < sizeof(reasons) / sizeof(reasons[0]) ? reasons[c->guest_reason] : "its own reason",
		c->guest_reason, c->word[0], c->word[1]);
	if (!c->message[0])
		return;
	fputs("keel:   ", f);
	for (const char *m = c->message; *m; m++) {
		if (*m == '\n' && m[1])
			fputs("\nkeel:   ", f);
		else if (*m != '\n')
			fputc((*m >= ' ' && *m < 0x7f) || *m == '\t' ? *m : '.', f);
	}
	fputc('\n', f);
}

static void print_next_step(FILE *f, struct partition *p, const struct crash_info *c, const char *core)
{
	/* A core of physical memory: which page tables are valid only such a guest knows. */
	if (p->opt->hvm && core)
		fprintf(f, "keel: next: gdb -c %s; addresses in it are physical\n", core);
	else if (p->opt->hvm)
		fputs("keel: next: --core FILE keeps the guest's memory, by physical address\n", f);
	else if (core)
		fprintf(f, "keel: next: gdb -ex bt %s %s\n", p->image->name, core);
	else
		fprintf(f, "keel: next: addr2line -fpe %s %#" PRIx64 "\n", p->image->name, (uint64_t)c->regs.rip);
	if (c->guest_call)
		return;
	if (strstr(c->reason, "system call"))
		fputs("keel:       a guest kernel reaches its host through the gate only; \"make audit IMAGE=...\" lists what is left\n",
		      f);
	else if (c->have_regs && c->regs.vector)
		fputs("keel:       to handle it in the guest, register an entry with trap_set(KEEL_CLASS_TRAP, ...)\n",
		      f);
}

static void print_vcpu(FILE *f, struct partition *p, const struct symbols *s, const struct crash_info *c,
		       unsigned int vcpu)
{
	if (!c->have_regs)
		return;
	fprintf(f, "keel: vCPU %u was at ", vcpu);
	print_place(f, s, c->regs.rip, 0);
	/* Nobody else can tell: there is no process to look into. */
	if (p->opt->hvm)
		print_registers(f, &c->regs);
}

void report_place(FILE *f, struct partition *p, const struct crash_info *c)
{
	struct crash_info other;
	struct symbols s;

	symbols_load(&s, p->image);
	for (unsigned int i = 0; i < p->vcpus; i++) {
		other.have_regs = false;
		if (i == c->vcpu)
			print_vcpu(f, p, &s, c, i);
		else if (p->ops->snapshot && p->ops->snapshot(p, i, &other))
			print_vcpu(f, p, &s, &other, i);
	}
	symbols_free(&s);
}

void report_crash(FILE *f, struct partition *p, const struct crash_info *c, const char *core)
{
	fputs("keel: crash: ", f);
	for (size_t i = 0; i < sizeof(c->reason) && c->reason[i]; i++)
		fputc(c->reason[i] >= ' ' && c->reason[i] < 0x7f ? c->reason[i] : '.', f);
	fputc('\n', f);
	if (p->vcpus > 1)
		fprintf(f, "keel:   on vCPU %u of %u\n", c->vcpu, p->vcpus);
	if (c->guest_call)
		print_message(f, c);
	if (c->have_regs)
		print_registers(f, &c->regs);
	print_calls(f, c);
	print_backtrace(f, p, c);
	print_next_step(f, p, c, core);
}
