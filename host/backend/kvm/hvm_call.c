// SPDX-License-Identifier: MIT
/*
 * The ABI of an HVM guest: the monitor's core, in this process. What it runs on is
 * private memory; what it is given by the guest it copies and checks as always.
 */
#include "hvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../../console.h"
#include "../../devices/device.h"
#include "../../hvmboot.h"
#include "../../log.h"
#include "../../monitor/bugs.h"

/* endbr64; out %al, $HVM_GATE_PORT; ret */
static const uint8_t gate_code[] = { 0xf3, 0x0f, 0x1e, 0xfa, 0xe6, HVM_GATE_PORT, 0xc3 };

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define INT3 0xcc /* the rest of the gate's page */

static struct hvm *hvm_of(struct mvcpu *v)
{
	return (struct hvm *)v->backend[0];
}

static struct mvcpu *vcpu0(struct hvm *h)
{
	return monmem_vcpu(&h->mm, 0);
}

/* The page events are sent to while the guest has named none: all masked, so nothing is raised. */
static struct keel_vcpu *idle_page(struct hvm *h)
{
	return (struct keel_vcpu *)h->mm.mem;
}

uint64_t hvm_offered(void)
{
	/* From the list of calls this file is compiled with, kvm.mk's for HVM. */
	return 0
#define KEEL_EXT(NAME, number, served, summary) | (uint64_t)(served) << (number)
#define KEEL_CALL(...)
#include "hypercalls.def"
#undef KEEL_EXT
#undef KEEL_CALL
		;
}

void hvm_upcall(struct hvm *h)
{
	uint64_t how = __atomic_load_n(&h->upcall, __ATOMIC_ACQUIRE);

	if (how & KEEL_UPCALL_LAPIC) {
		struct kvm_msi msi = { .address_lo = HVM_LAPIC, .data = (uint32_t)(how & KEEL_UPCALL_VECTOR) };

		ioctl(h->k->vm_fd, KVM_SIGNAL_MSI, &msi);
	} else if (how & KEEL_UPCALL_GSI) {
		hvm_line(h, HVM_UPCALL_GSI, true);
		hvm_line(h, HVM_UPCALL_GSI, false);
	} else {
		return;
	}
	__atomic_add_fetch(&h->upcalls, 1, __ATOMIC_RELAXED);
}

static bool pending(struct hvm *h)
{
	return keel_ev_pending(keel_share(vcpu0(h)->page));
}

/*
 * After what may have sent events: raise the upcall if `pending` became non-zero by
 * it. Lock held. A send alone says so by `attn`; with calls, an unmask says it of what
 * was pending `before`, too, but during them the guest stands and clears nothing.
 */
static void tell(struct hvm *h, bool before)
{
	struct mvcpu *v = vcpu0(h);

	if ((v->attn && !before && pending(h)) || (KEEL_BUG(26) && pending(h)))
		hvm_upcall(h);
	v->attn = 0;
	v->dump_pending = 0; /* there is no dump entry to deliver it to */
}

enum kvm_next hvm_call(struct hvm *h)
{
	struct kvm_regs *r = &h->cpu->run->s.regs.regs;
	struct mvcpu *v = vcpu0(h);
	struct mon_trace *t;
	bool before;
	mret ret;

	pthread_mutex_lock(&h->lock);
	t = &v->trace[v->calls_made / MON_TRACE_SIZE % MON_TRACE];
	*t = (struct mon_trace){ .id = (uint32_t)r->rax, .arg = { r->rdi, r->rsi, r->rdx, r->r10, r->r8 } };
	before = pending(h);
	ret = mon_dispatch(r->rax, t->arg, v);
	if (ret.status < 0)
		mon_count_error((uint32_t)r->rax, v);
	tell(h, before);
	t->status = ret.status;
	t->value = ret.value;
	h->calls++;
	if (!h->ended) {
		t->returned = 1;
		v->calls_made += MON_TRACE_SIZE;
		r->rax = (uint64_t)ret.status;
		r->rdx = ret.value;
		h->cpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	}
	pthread_mutex_unlock(&h->lock);
	return h->ended ? KVM_NEXT_END : KVM_NEXT_RUN;
}

/* MSRs */

/* A page of RAM with its enable bit, or nothing. */
static bool page_valid(struct hvm *h, uint64_t value)
{
	uint64_t gpa = value & ~KEEL_MSR_ENABLE;

	return !value ||
	       (value & KEEL_MSR_ENABLE && (!(gpa % KEEL_PAGE_SIZE) || KEEL_BUG(25)) && gpa < h->k->p->ram_size);
}

static bool set_gate(struct hvm *h, uint64_t value)
{
	if (!page_valid(h, value))
		return false;
	if (value) {
		uint8_t *page = h->k->p->ram + (value & ~KEEL_MSR_ENABLE);

		memset(page, INT3, KEEL_PAGE_SIZE);
		memcpy(page, gate_code, sizeof(gate_code));
	}
	h->gate = value;
	return true;
}

static bool set_vcpu(struct hvm *h, uint64_t value)
{
	struct keel_vcpu *page = idle_page(h);
	struct partition *p = h->k->p;

	if (!page_valid(h, value))
		return false;
	if (value) {
		page = (struct keel_vcpu *)(p->ram + (value & ~KEEL_MSR_ENABLE));
		memset(page, 0, sizeof(*page));
		if (!KEEL_BUG(28))
			memset(page->event_mask, 0xff, sizeof(page->event_mask));
	}
	vcpu0(h)->page = page;
	__atomic_store_n(&p->vcpu[0], keel_share(page), __ATOMIC_SEQ_CST);
	mon_hold(monmem_mon(&h->mm), value || KEEL_BUG(27) ? 0 : KEEL_U64(1) << KEEL_EXT_EVENT);
	h->vcpu = value;
	/* The old page is the guest's from here on: whoever was sending to it has finished. */
	console_settle(p->console);
	return true;
}

static bool set_upcall(struct hvm *h, uint64_t value)
{
	uint64_t vector = value & KEEL_UPCALL_VECTOR;

	if (value && value != KEEL_UPCALL_GSI &&
	    (value != (KEEL_UPCALL_LAPIC | vector) || vector < KEEL_UPCALL_VECTOR_MIN))
		return false;
	__atomic_store_n(&h->upcall, value, __ATOMIC_RELEASE);
	return true;
}

static const struct {
	size_t place;
	bool (*set)(struct hvm *h, uint64_t value);
} msrs[KEEL_MSR_COUNT] = {
	[KEEL_MSR_GATE - KEEL_MSR_GATE] = { offsetof(struct hvm, gate), set_gate },
	[KEEL_MSR_VCPU - KEEL_MSR_GATE] = { offsetof(struct hvm, vcpu), set_vcpu },
	[KEEL_MSR_UPCALL - KEEL_MSR_GATE] = { offsetof(struct hvm, upcall), set_upcall },
};

bool hvm_rdmsr(struct hvm *h, uint32_t msr, uint64_t *value)
{
	uint32_t n = msr - KEEL_MSR_GATE;

	if (n >= KEEL_MSR_COUNT)
		return false;
	*value = *(const uint64_t *)((const uint8_t *)h + msrs[n].place);
	return true;
}

bool hvm_wrmsr(struct hvm *h, uint32_t msr, uint64_t value)
{
	uint32_t n = msr - KEEL_MSR_GATE;
	bool ok;

	if (n >= KEEL_MSR_COUNT)
		return false;
	pthread_mutex_lock(&h->lock);
	ok = msrs[n].set(h, value);
	pthread_mutex_unlock(&h->lock);
	return ok;
}

/* The timer: a thread that sleeps until the deadline. */

static void *timer_thread(void *arg)
{
	struct hvm *h = arg;

	pthread_mutex_lock(&h->lock);
	while (!h->quit) {
		const struct timespec at = { (time_t)(h->deadline / 1000000000), (long)(h->deadline % 1000000000) };

		if (h->deadline == KEEL_TIME_NEVER) {
			pthread_cond_wait(&h->timer_changed, &h->lock);
			continue;
		}
		if (pthread_cond_timedwait(&h->timer_changed, &h->lock, &at) != ETIMEDOUT)
			continue;
		h->deadline = KEEL_TIME_NEVER;
		mon_timer_fired(vcpu0(h));
		tell(h, false);
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

/* What the monitor asks of its backend. All on the vCPU's thread or the timer's, lock held. */

uint64_t mb_now(struct mvcpu *v)
{
	struct timespec ts;

	(void)v;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void mb_timer(struct mvcpu *v, uint64_t deadline)
{
	struct hvm *h = hvm_of(v);

	/* What no clock will show is never. */
	h->deadline = deadline > INT64_MAX ? KEEL_TIME_NEVER : deadline;
	pthread_cond_signal(&h->timer_changed);
}

mret mb_remote(struct mvcpu *v, uint32_t id, const uint64_t *arg)
{
	struct hvm *h = hvm_of(v);
	uint64_t value;
	int64_t status;

	status = partition_remote_call(h->k->p, 0, id, arg, &value);
	if (status == KEEL_OK && (id == KEEL_CALL_BASE_SHUTDOWN || id == KEEL_CALL_CRASH))
		h->ended = true;
	return MRET(status, value);
}

void mb_doorbell(struct mvcpu *v)
{
	uint64_t one = 1;

	/* It fails only when the counter is at its end: the wake-up is there already. */
	if (write(hvm_of(v)->k->p->doorbell_fd, &one, sizeof(one)) < 0)
		return;
}

void mb_device(struct mvcpu *v, uint32_t device)
{
	device_ring(hvm_of(v)->k->p->device[device]);
}

static bool advise(struct mvcpu *v, uint64_t gpa, uint64_t pages, int advice)
{
	return !madvise(hvm_of(v)->k->p->ram + gpa, pages * KEEL_PAGE_SIZE, advice);
}

bool mb_release(struct mvcpu *v, uint64_t gpa, uint64_t pages)
{
	return advise(v, gpa, pages, MADV_REMOVE);
}

bool mb_populate(struct mvcpu *v, uint64_t gpa, uint64_t pages)
{
	return advise(v, gpa, pages, MADV_POPULATE_WRITE);
}

/* What a guest does itself that owns its page tables, its interrupts and hlt: linked in, not served, never called. */

void mb_map(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint64_t gpa, uint32_t prot,
	    unsigned int flags)
{
	(void)v, (void)as, (void)va, (void)pages, (void)gpa, (void)prot, (void)flags;
}

void mb_unmap(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages)
{
	(void)v, (void)as, (void)va, (void)pages;
}

void mb_protect(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint32_t prot)
{
	(void)v, (void)as, (void)va, (void)pages, (void)prot;
}

bool mb_wait(struct mvcpu *v, uint32_t seq, uint64_t deadline)
{
	(void)v, (void)seq, (void)deadline;
	return false;
}

void mb_settle(struct mvcpu *v, struct as *as)
{
	(void)v, (void)as;
}

bool mb_as_create(struct mvcpu *v, struct as *as)
{
	(void)v, (void)as;
	return false;
}

void mb_as_destroy(struct mvcpu *v, struct as *as)
{
	(void)v, (void)as;
}

void mb_kick(struct mvcpu *v, struct mvcpu *to)
{
	(void)v, (void)to;
}

void mb_park(struct mvcpu *v)
{
	(void)v;
	abort();
}

void mb_yield(struct mvcpu *v, struct mvcpu *to)
{
	(void)v, (void)to;
}

/* Locks are between vCPUs, and there is one. */
void mb_relax(unsigned int round)
{
	(void)round;
}

/* Beginning and end */

int hvm_call_create(struct hvm *h)
{
	struct partition *p = h->k->p;
	pthread_condattr_t attr;
	struct mvcpu *v;
	struct mon *m;
	int err;

	h->deadline = KEEL_TIME_NEVER;
	pthread_mutex_init(&h->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* what guest time is */
	pthread_cond_init(&h->timer_changed, &attr);
	pthread_condattr_destroy(&attr);

	err = monmem_create(&h->mm, p, "kvm", 0);
	if (err)
		return err;
	/* The monitor is here and not in a window of the guest's. */
	m = monmem_mon(&h->mm);
	m->ram = p->ram;
	m->clock = (const struct keel_clock *)p->abi;
	m->arena = h->mm.mem + h->mm.arena_off;
	m->table_live = (uint32_t *)(h->mm.mem + ((uintptr_t)m->table_live - MON_VCPU_VA));
	m->hostlog = h->mm.mem + ((uintptr_t)m->hostlog - MON_VCPU_VA);
	m->space = NULL;
	m->spaces = 0;
	m->entry = m->start_va = m->gate_va = 0;
	memset(m->offered, 0, sizeof(m->offered));
	m->offered[0] = hvm_offered();
	mon_init(m);
	mon_hold(m, KEEL_U64(1) << KEEL_EXT_EVENT);
	v = vcpu0(h);
	mon_vcpu_init(m, v, idle_page(h), 0);
	v->backend[0] = (uint64_t)h;

	err = pthread_create(&h->timer_thread, NULL, timer_thread, h);
	h->timer_running = !err;
	if (err)
		host_say("kvm: starting the timer's thread: %s", strerror(err));
	return -err;
}

void hvm_call_destroy(struct hvm *h)
{
	if (h->timer_running) {
		pthread_mutex_lock(&h->lock);
		h->quit = true;
		pthread_cond_signal(&h->timer_changed);
		pthread_mutex_unlock(&h->lock);
		pthread_join(h->timer_thread, NULL);
	}
	if (h->mm.mem)
		monmem_destroy(&h->mm);
	pthread_cond_destroy(&h->timer_changed);
	pthread_mutex_destroy(&h->lock);
}
