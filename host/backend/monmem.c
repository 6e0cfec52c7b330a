// SPDX-License-Identifier: MIT
#include "monmem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../calls.h"
#include "../log.h"
#include "../startinfo.h"

#define TABLES_MIN 2048	    /* page-table pages any partition may have */
#define PAGES_PER_TABLE 128 /* one more table for so many pages of RAM */

static uint64_t align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) / to * to;
}

/* What the monitor keeps, which the guest may have changed: it would only mislead itself. */
static bool port_used(const struct partition *p, uint32_t port)
{
	const uint32_t vcpu = KEEL_PORT_VCPU(port), bit = KEEL_PORT_BIT(port);
	const struct mvcpu *v;

	if (vcpu >= p->vcpus)
		return false;
	v = (const struct mvcpu *)(p->ports + (uint64_t)vcpu * MON_BLOCK_SIZE);
	return __atomic_load_n(&v->port_used[bit / 64], __ATOMIC_ACQUIRE) >> bit % 64 & 1 &&
	       v->port_gen[bit] == KEEL_PORT_GEN(port);
}

int monmem_create(struct monmem *mm, struct partition *p, const char *backend, uint64_t extra)
{
	const uint64_t ram_pages = p->ram_size / KEEL_PAGE_SIZE;
	uint64_t live_off, log_off, space_off;
	struct mon *m;
	int err;

	*mm = (struct monmem){ .p = p, .backend = backend, .fd = -1 };
	if (p->ram_size > MON_RAM_MAX || p->boot_records > MON_MAX_BOOT) {
		host_say("%s: %s", backend,
			 p->boot_records > MON_MAX_BOOT ? "the image has too many segments"
							: "more than 64 GiB of RAM");
		return -E2BIG;
	}
	mm->arena_pages = TABLES_MIN + ram_pages / PAGES_PER_TABLE;
	live_off = MON_VCPU_SPAN + MON_DYNAMIC_OFF;
	log_off = live_off + mm->arena_pages * sizeof(uint32_t);
	space_off = align_up(log_off + ram_pages / 8 + 8, 64);
	mm->arena_off = align_up(space_off + MON_MAX_SPACES * sizeof(struct as), KEEL_PAGE_SIZE);
	mm->size = mm->arena_off + mm->arena_pages * KEEL_PAGE_SIZE + extra;

	mm->fd = memfd_create("keel-monitor", MFD_CLOEXEC);
	if (mm->fd < 0 || ftruncate(mm->fd, (off_t)mm->size))
		goto fail;
	mm->mem = mmap(NULL, mm->size, PROT_READ | PROT_WRITE, MAP_SHARED, mm->fd, 0);
	if (mm->mem == MAP_FAILED) {
		mm->mem = NULL;
		goto fail;
	}

	m = monmem_mon(mm);
	_Static_assert(sizeof(*m) <= MON_BACKEND_OFF, "struct mon overlaps the backend's data");
	m->ram_size = p->ram_size;
	m->abi_gpa = p->abi_gpa;
	m->abi_size = p->abi_size;
	m->ram = (uint8_t *)MON_RAM_VA;
	m->clock = (const struct keel_clock *)MON_ABI_VA;
	memcpy(m->offered, p->offered, sizeof(m->offered));
	m->devices = p->devices;
	m->entry = p->entry;
	m->start_va = MON_ABI_VA + KEEL_PAGE_SIZE;
	m->gate_va = MON_GATE_VA;
	m->vcpus = p->vcpus;
	m->boot_records = p->boot_records;
	if (p->boot_records) /* an HVM kernel has none */
		memcpy(m->boot_map, p->boot_map, p->boot_records * sizeof(m->boot_map[0]));
	snprintf(m->host_id, sizeof(m->host_id), "Keel (%s)", backend);
	m->arena = (uint8_t *)MON_VCPU_VA + mm->arena_off;
	m->arena_pages = mm->arena_pages;
	m->table_live = (uint32_t *)(MON_VCPU_VA + live_off);
	m->hostlog = (uint8_t *)MON_VCPU_VA + log_off;
	m->space = (struct as *)(MON_VCPU_VA + space_off);
	m->spaces = MON_MAX_SPACES;
	m->xfeatures = startinfo_xfeatures(p, &m->xsave_size);
	for (unsigned int i = 0; i < p->vcpus; i++)
		p->vcpu[i] = (struct keel_vcpu __pvshared *)(mm->mem + (uint64_t)i * MON_BLOCK_SIZE);
	p->console_port = &m->console_port;
	p->port_used = port_used;
	p->ports = mm->mem + MON_PRIVATE; /* not beside p->vcpu[], which may be a page of the guest's */
	p->tracking = &m->tracking;
	p->hostlog = mm->mem + log_off;
	return 0;
fail:
	err = -errno;
	host_say("%s: making the monitor's memory: %s", backend, strerror(errno));
	monmem_destroy(mm);
	return err;
}

void monmem_destroy(struct monmem *mm)
{
	if (!mm->p)
		return;
	for (unsigned int i = 0; i < mm->p->vcpus; i++)
		mm->p->vcpu[i] = NULL;
	mm->p->console_port = NULL;
	mm->p->port_used = NULL;
	mm->p->ports = NULL;
	mm->p->tracking = NULL;
	mm->p->hostlog = NULL;
	if (mm->mem)
		munmap(mm->mem, mm->size);
	if (mm->fd >= 0)
		close(mm->fd);
	*mm = (struct monmem){ .fd = -1 };
}

/* Copy from the guest's memory, once: the compiler may not go back to where the guest can change it. */
static void fetch(void *dst, const void *src, size_t n)
{
	memcpy(dst, src, n);
	__asm__ volatile("" : : "r"(dst) : "memory");
}

static void report_fatal(struct monmem *mm, unsigned int vcpu)
{
	static const char *const names[] = { "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "?",
					     "#TS", "#NP", "#SS", "#GP", "#PF", "?",   "#MF", "#AC", "#MC", "#XM" };
	struct outcome o = { .kind = OUTCOME_CRASH };
	struct mon_fatal f;
	const char *vec;
	char *why = o.crash.reason;
	const size_t n = sizeof(o.crash.reason);

	fetch(&f, &monmem_vcpu(mm, vcpu)->fatal, sizeof(f));
	vec = f.regs.vector < sizeof(names) / sizeof(names[0]) ? names[f.regs.vector] : "?";
	mm->fatal = f;
	mm->fatal_vcpu = vcpu;
	o.crash.vcpu = vcpu;
	o.crash.regs = f.regs;
	o.crash.have_regs = true;
	switch (f.kind) {
	case MON_FATAL_TRAP:
		snprintf(why, n, "trap %u (%s) at %#llx, address %#llx, error %#llx, and no trap entry is set",
			 f.regs.vector, vec, (unsigned long long)f.regs.rip, (unsigned long long)f.regs.addr,
			 (unsigned long long)f.regs.error);
		break;
	case MON_FATAL_DOUBLE:
		snprintf(why, n, "trap %u (%s) at %#llx, address %#llx, while a trap's slot was in use: double fault",
			 f.regs.vector, vec, (unsigned long long)f.regs.rip, (unsigned long long)f.regs.addr);
		break;
	case MON_FATAL_SYSCALL:
		snprintf(why, n, "forbidden system call %lld (arch %#llx) at %#llx", (long long)f.arg[0],
			 (unsigned long long)f.arg[1], (unsigned long long)f.regs.rip);
		break;
	default:
		if (f.arg[0])
			snprintf(why, n, "%s %llu in the monitor at %#llx, address %#llx: its state was overwritten",
				 f.regs.vector && f.arg[0] == f.regs.vector ? "trap" : "signal",
				 (unsigned long long)f.arg[0], (unsigned long long)f.regs.rip,
				 (unsigned long long)f.regs.addr);
		else
			snprintf(why, n, "the host's limits are exhausted (error %lld)", -(long long)f.arg[1]);
	}
	partition_end(mm->p, &o);
}

void monmem_answer(struct monmem *mm, unsigned int vcpu, int64_t status, uint64_t value)
{
	struct mon_remote *r = &monmem_vcpu(mm, vcpu)->remote;

	r->word[0] = (uint64_t)status;
	r->word[1] = value;
}

enum monmem_served monmem_serve(struct monmem *mm, unsigned int vcpu, uint32_t *id, uint64_t arg[5])
{
	const struct mon_remote *r = &monmem_vcpu(mm, vcpu)->remote;
	uint64_t value = 0;
	int64_t status;

	fetch(id, &r->id, sizeof(*id));
	fetch(arg, r->word, sizeof(r->word));
	__atomic_add_fetch(&mm->remote_calls, 1, __ATOMIC_RELAXED);
	if (*id == MON_REMOTE_FATAL) {
		report_fatal(mm, vcpu);
		return MONMEM_ENDED;
	}
	if (*id >= MON_REMOTE_READY)
		return MONMEM_OTHERS;
	status = partition_remote_call(mm->p, vcpu, *id, arg, &value);
	monmem_answer(mm, vcpu, status, value);
	/* The partition has ended: nothing may run on. */
	return status == KEEL_OK && (*id == KEEL_CALL_BASE_SHUTDOWN || *id == KEEL_CALL_CRASH) ? MONMEM_ENDED
											       : MONMEM_ANSWERED;
}

/* The words are the guest's to overwrite, too: then it harms its own vCPUs. */
int64_t monmem_start(struct monmem *mm, unsigned int vcpu, uint64_t entry, uint64_t opaque)
{
	struct mvcpu *v = monmem_vcpu(mm, vcpu);
	int64_t status = KEEL_OK;

	/* Two that start one vCPU at once: one of them finds it started. */
	pthread_mutex_lock(&mm->p->lock);
	if (__atomic_load_n(&v->run, __ATOMIC_ACQUIRE) != MON_STOPPED) {
		status = KEEL_STATUS(KEEL_E_STATE, KEEL_AT_ARG(1));
	} else {
		v->begin.entry = entry;
		v->begin.opaque = opaque;
		__atomic_store_n(&v->stop, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&v->run, MON_STARTING, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&mm->p->lock);
	return status;
}

bool monmem_kicks(struct monmem *mm, unsigned int vcpu)
{
	return !__atomic_exchange_n(&monmem_vcpu(mm, vcpu)->kicked, 1, __ATOMIC_SEQ_CST);
}

int64_t monmem_stop(struct monmem *mm, unsigned int vcpu)
{
	struct mvcpu *v = monmem_vcpu(mm, vcpu);
	int64_t status = KEEL_OK;

	pthread_mutex_lock(&mm->p->lock);
	if (__atomic_load_n(&v->run, __ATOMIC_SEQ_CST) != MON_STOPPED) {
		__atomic_store_n(&v->stop, 1, __ATOMIC_SEQ_CST);
		status = KEEL_STATUS(KEEL_E_AGAIN, 0);
	}
	pthread_mutex_unlock(&mm->p->lock);
	return status;
}

/* Offset of a table in the arena, from what refers to it; beyond the arena when it refers elsewhere. */
static uint64_t table_offset(const struct monmem *mm, uint64_t entry)
{
	return (entry & PTE_ADDR) - monmem_mon(mm)->arena_base;
}

/*
 * The tree is in the guest's reach. What a stopped guest left is walked only when it
 * is one: each table inside the arena and referred to once, so that a walk is bounded
 * by the arena's size. The root's last entries are the host's window, not the tree's.
 */
static bool sound(const struct monmem *mm, uint64_t table, unsigned int level, uint8_t *seen)
{
	const uint64_t *t;
	const unsigned int n = level == 3 ? KEEL_VA_END >> 39 : KEEL_PAGE_SIZE / sizeof(*t);

	/* arena_base is the guest's, too: a table that is not aligned could end behind the arena. */
	if (table % KEEL_PAGE_SIZE || table / KEEL_PAGE_SIZE >= mm->arena_pages || seen[table / KEEL_PAGE_SIZE])
		return false;
	seen[table / KEEL_PAGE_SIZE] = 1;
	t = (const uint64_t *)(mm->mem + mm->arena_off + table);
	for (unsigned int i = 0; level && i < n; i++)
		if (t[i] && !(level == 1 && t[i] & PTE_PS) &&
		    (t[i] & PTE_PS || !sound(mm, table_offset(mm, t[i]), level - 1, seen)))
			return false;
	return true;
}

static bool tree_sound(struct monmem *mm)
{
	uint64_t root = (uint64_t)monmem_mon(mm)->as0.root - (MON_VCPU_VA + mm->arena_off);
	uint8_t *seen;

	if (mm->tree == MONMEM_TREE_UNKNOWN) {
		seen = calloc(mm->arena_pages, 1);
		mm->tree = seen && sound(mm, root, 3, seen) ? MONMEM_TREE_SOUND : MONMEM_TREE_BROKEN;
		mm->tree_root = root;
		free(seen);
		if (mm->tree == MONMEM_TREE_BROKEN)
			host_say("%s: the guest overwrote its page tables; its memory cannot be shown", mm->backend);
	}
	return mm->tree == MONMEM_TREE_SOUND;
}

bool monmem_next_mapping(struct monmem *mm, uint64_t va, struct mapping *out)
{
	struct mon *m;
	uint64_t pte, n;

	if (!tree_sound(mm))
		return false;
	/* as.c wants a struct mon; only what its walk uses is filled in. */
	m = calloc(1, sizeof(*m));
	if (!m)
		return false;
	m->arena = mm->mem + mm->arena_off;
	m->arena_pages = mm->arena_pages;
	m->arena_base = monmem_mon(mm)->arena_base;
	m->ram_base = monmem_mon(mm)->ram_base;
	m->as0.root = (uint64_t *)(m->arena + mm->tree_root);
	if (va < KEEL_VA_MIN)
		va = KEEL_VA_MIN;
	n = as_run(m, &m->as0, &va, KEEL_VA_END, mm->p->ram_size / KEEL_PAGE_SIZE, &pte);
	free(m);
	if (!n)
		return false;
	out->va = va;
	out->gpa = pte & PTE_ADDR;
	out->len = n * KEEL_PAGE_SIZE;
	out->prot = pte_prot(pte);
	return true;
}

bool monmem_snapshot(struct monmem *mm, unsigned int vcpu, struct crash_info *c)
{
	const struct mvcpu *v;
	unsigned int next;

	if (vcpu >= mm->p->vcpus)
		return false;
	v = monmem_vcpu(mm, vcpu);
	/* The next entry to be used is the oldest one, or holds the call that has not returned. */
	next = v->calls_made / MON_TRACE_SIZE;
	c->traces = 0;
	for (unsigned int i = 0; i <= MON_TRACE && c->traces < TRACE_CALLS; i++) {
		struct trace_entry e;

		_Static_assert(sizeof(e) == sizeof(v->trace[0]) && TRACE_CALLS == MON_TRACE, "one layout");
		memcpy(&e, &v->trace[(next + i) % MON_TRACE], sizeof(e));
		if (e.id && !!e.returned == (i < MON_TRACE))
			c->trace[c->traces++] = e;
	}
	if (mm->fatal.kind && mm->fatal_vcpu == vcpu) {
		c->regs = mm->fatal.regs;
		c->have_regs = true;
	} else if (mm->have_seen >> vcpu & 1 && mm->seen[vcpu].rip < KEEL_VA_END) {
		c->regs = mm->seen[vcpu];
		c->have_regs = true;
	} else if (v->guest_rsp) {
		/* Inside the monitor the guest's own place is the call it made: its frame starts at the return address. */
		struct mapping map;
		uint64_t rsp = v->guest_rsp, rip = 0;

		if (monmem_next_mapping(mm, rsp & ~(KEEL_PAGE_SIZE - 1), &map) && map.va <= rsp &&
		    rsp + 8 <= map.va + map.len)
			partition_copy_from(mm->p, &rip, map.gpa + (rsp - map.va), 8);
		memset(&c->regs, 0, sizeof(c->regs));
		c->regs.rip = rip;
		c->regs.rsp = rsp + 8;
		c->regs.rbp = v->guest_rbp;
		c->have_regs = rip != 0;
	}
	return true;
}

unsigned int monmem_counters(struct monmem *mm, struct keel_stats_entry *e, unsigned int max)
{
	unsigned int n = max < KEEL_CALL_COUNT ? max : KEEL_CALL_COUNT;

	for (unsigned int i = 0; i < n; i++) {
		e[i] = (struct keel_stats_entry){ .id = call_table[i].id };
		for (unsigned int k = 0; k < mm->p->vcpus; k++) {
			const struct mon_count *c = &monmem_vcpu(mm, k)->count[i];

			e[i].calls += c->calls;
			e[i].errors += c->errors;
			e[i].work += c->work;
		}
	}
	return n;
}

void monmem_stats(struct monmem *mm, FILE *f)
{
	unsigned long long records = 0, calls = 0;

	for (unsigned int i = 0; i < mm->p->vcpus; i++) {
		const struct mvcpu *v = monmem_vcpu(mm, i);

		records += v->mmu_records;
		calls += v->count[MON_CALL_mmu_batch].calls;
	}
	fprintf(f, "%s.mmu_records %llu, %.1f per call\n", mm->backend, records,
		calls ? (double)records / (double)calls : 0);
	fprintf(f, "%s.remote_calls %llu\n", mm->backend, (unsigned long long)mm->remote_calls);
	fprintf(f, "%s.tables %u\n", mm->backend, monmem_mon(mm)->tables);
	fprintf(f, "%s.monitor_bytes %llu\n", mm->backend, (unsigned long long)mm->size);
}
