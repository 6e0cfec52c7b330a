// SPDX-License-Identifier: MIT
/*
 * Several vCPUs against each other, from inside: KTAP on the console. The number on
 * the command line says how many rounds each test makes. Works with one vCPU too,
 * where most of it has nobody to do it with.
 */
#include <hypercall/guest.h>
#include <hypercall/smp.h>

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(MMU) | KEEL_NEEDS(HARVEST) | KEEL_NEEDS(TRAP) | KEEL_NEEDS(VCPU) |
			 KEEL_NEEDS(EVENT) | KEEL_NEEDS(TIME) | KEEL_NEEDS(CONSOLE),
		 0, 0, KEEL_U64(1) << KEEL_F1_SMP);

#define PAGE KEEL_U64(4096)
#define MIB (KEEL_U64(1) << 20)
#define VCPUS 16
#define STACK 16384
#define FREE_GPA (32 * MIB) /* in no image segment */
#define SHARED_VA KEEL_U64(0x300000000)
#define VIEW_VA KEEL_U64(0x400000000) /* where vCPU 0 sees the same pages */
#define OWN_VA(n) (KEEL_U64(0x500000000) + (keel_u64)(n)*64 * MIB)
#define OWN_GPA(n) (FREE_GPA + MIB + (keel_u64)(n)*MIB)
#define LIMIT_NS KEEL_U64(60000000000)
#define TRACKED 32 /* pages */

static char stack[VCPUS][STACK] __attribute__((aligned(4096)));
static struct keel_mmu_record record[VCPUS][4] __attribute__((aligned(4096)));
static struct keel_vcpu_set everyone __attribute__((aligned(4096)));
static keel_u64 bitmap[PAGE / 8] __attribute__((aligned(4096)));
static keel_u32 vcpus;
static keel_u64 rounds;
static unsigned int results, wrong;

static struct peer {
	keel_u64 id, word0, if_enabled, fp; /* what it found when it started */
	volatile keel_u64 starts, events, fired, dumps, faults, writes, errors;
	volatile keel_u64 fault_addr;
	volatile bool ready, held; /* held: it sits in a fault's handler */
	keel_u64 port;
} __attribute__((aligned(128))) peer[VCPUS];

static volatile bool release; /* who is held may go on */
static volatile bool finish;  /* a peer's loop shall end */
static keel_u32 event_bit;

static keel_u64 now(void)
{
	return keel_must(keel_time_read());
}

static void result(bool good, const char *what)
{
	keel_printf("%s %u %s\n", good ? "ok" : "not ok", ++results, what);
	wrong += !good;
}

/* Nothing here takes long; what does not come at all shall end the test. */
#define UNTIL(condition)                                                         \
	do {                                                                     \
		const keel_u64 until_ = now() + LIMIT_NS;                        \
		while (!(condition)) {                                           \
			keel_smp_relax();                                        \
			if (now() > until_)                                      \
				keel_panic("waited in vain for %s", #condition); \
		}                                                                \
	} while (0)

/* Asleep. What makes the condition true is an event of this vCPU's. */
#define SLEEP_UNTIL(condition)              \
	do {                                \
		keel_irq_disable();         \
		while (!(condition)) {      \
			keel_wait();        \
			keel_irq_disable(); \
		}                           \
		keel_irq_enable();          \
	} while (0)

#define EACH_PEER(n) for (keel_u32 n = 1; n < vcpus; n++)

static struct peer *me(void)
{
	return &peer[keel_vcpu_id()];
}

static keel_s64 mmu(keel_u32 op, keel_u64 va, keel_u64 gpa, keel_u64 pages, keel_u32 prot)
{
	struct keel_mmu_record *r = record[keel_vcpu_id()];

	r[0] = (struct keel_mmu_record){ .op = op, .prot = prot, .va = va, .gpa = gpa, .len = pages * PAGE };
	return keel_mmu_batch(keel_as(0), keel_gpa_of(r), 1, 0).status;
}

static void map(keel_u64 va, keel_u64 gpa, keel_u64 pages)
{
	if (mmu(KEEL_MMU_MAP, va, gpa, pages, KEEL_PROT_R | KEEL_PROT_W))
		keel_panic("map");
}

static void unmap(keel_u64 va, keel_u64 pages)
{
	if (mmu(KEEL_MMU_UNMAP, va, 0, pages, 0))
		keel_panic("unmap");
}

/* Handlers, of all vCPUs */

static void on_event(void *arg, keel_u32 bit)
{
	(void)arg, (void)bit;
	me()->events++;
}

static void on_dump(struct keel_frame *frame)
{
	(void)frame;
	me()->dumps++;
}

/* Sit in here until vCPU 0 has looked, and try again. */
static void on_trap(struct keel_frame *frame)
{
	struct peer *p = me();

	if (frame->vector != KEEL_VEC_PF)
		keel_panic("vector %u at %#lx", frame->vector, (unsigned long)frame->rip);
	p->fault_addr = frame->addr;
	p->faults++;
	p->held = true;
	while (!__atomic_load_n(&release, __ATOMIC_ACQUIRE))
		keel_smp_relax();
	p->held = false;
}

static void set_up(void)
{
	struct peer *p = me();
	keel_u64 port;

	if (keel_entry_install(KEEL_CLASS_TRAP, on_trap, NULL) || keel_entry_install(KEEL_CLASS_DUMP, on_dump, NULL) ||
	    keel_event_init())
		keel_panic("handlers");
	/* Ports outlive a stop. */
	if (!p->port) {
		port = keel_must(keel_event_alloc(1));
		p->port = port;
		if (p->id == 0)
			event_bit = KEEL_PORT_BIT(port);
		else if (KEEL_PORT_BIT(port) != event_bit)
			keel_panic("another bit");
		if (keel_event_unmask(keel_port((keel_u32)port)).status)
			keel_panic("unmask");
	}
	keel_irq_enable();
	p->ready = true;
}

/* x87, SSE: as a reset has them. */
static keel_u64 fp_state(void)
{
	keel_u64 low, high;
	keel_u32 mxcsr;
	keel_u16 fcw;

	__asm__ volatile("stmxcsr %0; fnstcw %1; movq %%xmm3, %2; movhlps %%xmm3, %%xmm3; movq %%xmm3, %3"
			 : "=m"(mxcsr), "=m"(fcw), "=r"(low), "=r"(high));
	return low | high | (mxcsr ^ 0x1f80) | (fcw ^ 0x37fu);
}

static void spoil_fp(void)
{
	const keel_u32 mxcsr = 0x1fa0;
	const keel_u16 fcw = 0x33f;

	__asm__ volatile("ldmxcsr %0; fldcw %1; fld1; pcmpeqd %%xmm3, %%xmm3" : : "m"(mxcsr), "m"(fcw));
}

static void arrive(void *arg)
{
	struct peer *p = arg;

	p->fp = fp_state();
	p->id = keel_vcpu_id();
	p->word0 = keel_vcpu_word(0);
	p->if_enabled = keel_irq_enabled();
	p->starts++;
	set_up();
}

static void start(keel_u32 n, void (*fn)(void *arg))
{
	keel_s64 status;

	peer[n].ready = false;
	status = keel_smp_start(n, stack[n] + STACK, fn, &peer[n], (void *)(keel_u64)(0x1000 + n));
	if (status)
		keel_panic("starting vCPU %u: %#lx", n, (unsigned long)status);
}

static void wait_stopped(keel_u32 n)
{
	UNTIL(!keel_smp_running(n));
}

/* Tests */

static void spin(void *arg)
{
	arrive(arg);
	while (!finish)
		__builtin_ia32_pause();
}

static void starts(void)
{
	bool good = true;

	EACH_PEER(n)
	{
		good &= !keel_smp_running(n);
		start(n, spin);
	}
	EACH_PEER(n)
	{
		UNTIL(peer[n].ready);
		good &= peer[n].id == n && peer[n].word0 == 0x1000 + n && !peer[n].if_enabled && !peer[n].fp;
		good &= keel_smp_running(n);
		good &= KEEL_STATUS_CODE(keel_vcpu_start(n, (keel_u64)keel_smp_entry, 0).status) ==
			(keel_have_refinement(KEEL_F1_SMP) ? KEEL_E_STATE : KEEL_E_NOTSUP);
	}
	result(good && keel_vcpu_id() == 0, "every vCPU starts, as it should");
}

static void ipis(void)
{
	bool good = true;

	for (keel_u64 i = 0; i < rounds; i++)
		EACH_PEER(n)
		{
			const keel_u64 before = peer[n].events;

			keel_must(keel_event_send(keel_port((keel_u32)peer[n].port)));
			UNTIL(peer[n].events == before + 1);
		}
	keel_set_first(&everyone, vcpus);
	for (keel_u64 i = 0; i < rounds && keel_have_refinement(KEEL_F1_SMP); i++) {
		keel_u64 before[VCPUS];

		for (keel_u32 n = 0; n < vcpus; n++)
			before[n] = peer[n].events;
		good &= !keel_vcpu_ipi(keel_gpa_of(&everyone), keel_set_size(&everyone), event_bit).status;
		for (keel_u32 n = 0; n < vcpus; n++)
			UNTIL(peer[n].events == before[n] + 1);
	}
	for (keel_u64 i = 0; i < rounds; i++)
		EACH_PEER(n)
		{
			const keel_u64 before = peer[n].dumps;

			good &= !keel_event_dump(n).status;
			UNTIL(peer[n].dumps > before);
		}
	finish = true;
	EACH_PEER(n) wait_stopped(n);
	finish = false;
	result(good, "events, IPIs and dumps reach vCPUs that run");
}

static void sleep(void *arg)
{
	struct peer *p = arg;

	arrive(p);
	SLEEP_UNTIL(finish);
}

static void wakes(void)
{
	EACH_PEER(n)
	{
		start(n, sleep);
		UNTIL(peer[n].ready);
	}
	for (keel_u64 i = 0; i < rounds; i++)
		EACH_PEER(n)
		{
			const keel_u64 before = peer[n].events;

			/* Sometimes it sleeps by now, sometimes it is about to. */
			for (keel_u64 k = 0; k < i % 64; k++)
				__builtin_ia32_pause();
			keel_must(keel_event_send(keel_port((keel_u32)peer[n].port)));
			UNTIL(peer[n].events == before + 1);
		}
	finish = true;
	EACH_PEER(n)
	{
		keel_must(keel_event_send(keel_port((keel_u32)peer[n].port)));
		wait_stopped(n);
	}
	finish = false;
	result(true, "no wake-up is lost");
}

/* Vcpu n wakes n + 1. */
static void relay(void *arg)
{
	struct peer *p = arg;
	keel_u64 seen;

	arrive(p);
	seen = p->events;
	while (!finish) {
		SLEEP_UNTIL(seen < p->events || finish);
		for (; seen < p->events; seen++)
			keel_must(keel_event_send(keel_port((keel_u32)peer[(p->id + 1) % vcpus].port)));
	}
}

static void relays(void)
{
	EACH_PEER(n)
	{
		start(n, relay);
		UNTIL(peer[n].ready);
	}
	for (keel_u64 i = 0; i < rounds; i++) {
		const keel_u64 before = peer[0].events;

		keel_must(keel_event_send(keel_port((keel_u32)peer[1 % vcpus].port)));
		SLEEP_UNTIL(peer[0].events > before);
	}
	finish = true;
	EACH_PEER(n)
	{
		keel_must(keel_event_send(keel_port((keel_u32)peer[n].port)));
		wait_stopped(n);
	}
	finish = false;
	result(true, "an event goes round, everyone asleep");
}

static void spoil(void *arg)
{
	arrive(arg);
	spoil_fp();
	while (!finish)
		__builtin_ia32_pause();
}

static void call(void *arg)
{
	arrive(arg);
	while (!finish)
		keel_base_nop();
}

static void leave(void *arg)
{
	arrive(arg);
}

static void stops(void)
{
	static void (*const what[])(void *arg) = { spoil, sleep, call, leave };
	bool good = true;

	for (keel_u64 i = 0; i < rounds; i++)
		EACH_PEER(n)
		{
			const keel_u64 before = peer[n].starts;

			start(n, what[(i + n) % 4]);
			UNTIL(peer[n].starts == before + 1);
			good &= !peer[n].fp;
			if (i % 3)
				UNTIL(peer[n].ready);
			good &= !keel_smp_stop(n) && !keel_smp_running(n);
		}
	result(good, "stopped wherever it is, started again");
}

/* Write a number that only grows to a page that comes and goes. */
static void write(void *arg)
{
	struct peer *p = arg;
	volatile keel_u64 *to = (volatile keel_u64 *)SHARED_VA + (p - peer);

	arrive(p);
	while (!finish) {
		*to = p->writes;
		p->writes++;
	}
}

static bool still(volatile keel_u64 *page)
{
	keel_u64 was[VCPUS];

	EACH_PEER(n) was[n] = page[n];
	for (int i = 0; i < 1000; i++)
		EACH_PEER(n) if (was[n] != page[n]) return false;
	return true;
}

static void unmaps(void)
{
	volatile keel_u64 *const page[2] = { (volatile keel_u64 *)VIEW_VA, (volatile keel_u64 *)(VIEW_VA + PAGE) };
	bool good = true;

	map(VIEW_VA, FREE_GPA, 2);
	map(SHARED_VA, FREE_GPA, 1);
	EACH_PEER(n)
	{
		start(n, write);
		UNTIL(peer[n].ready);
	}
	for (keel_u64 i = 0; i < rounds; i++) {
		const int way = (int)(i % 3);
		keel_u64 before[VCPUS];

		EACH_PEER(n)
		{
			before[n] = peer[n].writes;
			UNTIL(peer[n].writes > before[n]);
		}
		release = false;
		if (way == 0)
			unmap(SHARED_VA, 1);
		else if (way == 1)
			mmu(KEEL_MMU_PROTECT, SHARED_VA, 0, 1, KEEL_PROT_R);
		else
			map(SHARED_VA, FREE_GPA + PAGE, 1);
		good &= still(page[0]);
		EACH_PEER(n) if (way != 2)
		{
			UNTIL(peer[n].held);
			good &= peer[n].fault_addr == SHARED_VA + n * 8;
		}
		if (way == 1)
			mmu(KEEL_MMU_PROTECT, SHARED_VA, 0, 1, KEEL_PROT_R | KEEL_PROT_W);
		else
			map(SHARED_VA, FREE_GPA, 1);
		if (way == 2)
			good &= still(page[1]);
		release = true;
	}
	finish = true;
	EACH_PEER(n) wait_stopped(n);
	finish = false;
	unmap(SHARED_VA, 1);
	unmap(VIEW_VA, 2);
	result(good, "what is unmapped, write-protected or replaced is out of reach when the call returns");
}

/* Everyone changes mappings, of different tables and of the same one. */
static void churn_round(struct peer *p, keel_u64 i)
{
	const keel_u64 n = (keel_u64)(p - peer);
	const keel_u64 va = i % 2 ? OWN_VA(n) : OWN_VA(VCPUS) + n * 8 * PAGE;
	const keel_u64 pages = i % 2 && i % 8 == 1 ? 64 : 1 + i % 8;
	volatile keel_u64 *at = (volatile keel_u64 *)va;

	map(va, OWN_GPA(n), pages);
	for (keel_u64 k = 0; k < pages; k++)
		at[k * PAGE / 8] = i << 8 | n;
	mmu(KEEL_MMU_PROTECT, va, 0, pages, KEEL_PROT_R);
	for (keel_u64 k = 0; k < pages; k++)
		p->errors += at[k * PAGE / 8] != (i << 8 | n);
	unmap(va, pages);
	p->errors += KEEL_STATUS_CODE(keel_mmu_query(keel_as(0), va).status) != KEEL_E_NOENT;
}

static void churn(void *arg)
{
	struct peer *p = arg;

	arrive(p);
	for (keel_u64 i = 0; i < rounds; i++)
		churn_round(p, i);
}

static void churns(void)
{
	bool good = true;

	EACH_PEER(n) start(n, churn);
	for (keel_u64 i = 0; i < rounds; i++)
		churn_round(&peer[0], i);
	EACH_PEER(n) wait_stopped(n);
	for (keel_u32 n = 0; n < vcpus; n++)
		good &= !peer[n].errors;
	result(good, "mappings changed by all at once");
}

/* Write to one tracked page after the other. */
static void dirty(void *arg)
{
	struct peer *p = arg;
	keel_u64 i = 0;

	arrive(p);
	for (; !finish; i++) {
		volatile keel_u64 *page = (volatile keel_u64 *)(SHARED_VA + (i * 7 + p->id) % TRACKED * PAGE);

		page[p->id]++;
		if (i % 64 == 0)
			for (int k = 0; k < 50; k++)
				__builtin_ia32_pause();
	}
}

static keel_u64 sum(keel_u64 page)
{
	volatile keel_u64 *at = (volatile keel_u64 *)(VIEW_VA + page * PAGE);
	keel_u64 all = 0;

	for (keel_u32 n = 0; n < vcpus; n++)
		all += at[n];
	return all;
}

/*
 * What was read behind a harvest and differs from what was read behind the one before was
 * written in between: this harvest reports it, or the next one, when it came behind this.
 */
static void harvests(void)
{
	static keel_u64 last[TRACKED];
	static bool owed[TRACKED];
	bool good = true;

	map(VIEW_VA, FREE_GPA, TRACKED);
	map(SHARED_VA, FREE_GPA, TRACKED);
	keel_must(keel_harvest_start(keel_as(0), SHARED_VA, TRACKED * PAGE, KEEL_HARVEST_DIRTY));
	for (keel_u64 k = 0; k < TRACKED; k++) {
		last[k] = sum(k);
		owed[k] = false;
	}
	EACH_PEER(n) start(n, dirty);
	for (keel_u64 i = 0; i < rounds; i++) {
		keel_must(keel_harvest_collect(keel_as(0), SHARED_VA, TRACKED * PAGE, keel_gpa_of(bitmap)));
		for (keel_u64 k = 0; k < TRACKED; k++) {
			const bool reported = bitmap[0] >> k & 1;
			const keel_u64 is = sum(k);

			good &= reported || !owed[k];
			owed[k] = !reported && is != last[k];
			last[k] = is;
		}
	}
	finish = true;
	EACH_PEER(n) wait_stopped(n);
	finish = false;
	keel_must(keel_harvest_stop(keel_as(0), SHARED_VA, TRACKED * PAGE));
	unmap(SHARED_VA, TRACKED);
	unmap(VIEW_VA, TRACKED);
	result(good, "no write of another vCPU's is missing from a harvest");
}

static void on_timer(void *arg, keel_u32 bit)
{
	(void)arg, (void)bit;
	me()->fired++;
}

/* Each its own timer, and asleep until it fires. */
static void tick(void *arg)
{
	struct peer *p = arg;
	keel_u64 port;

	if (p != peer)
		arrive(p);
	port = keel_must(keel_event_bind(KEEL_SOURCE_TIMER, 2));
	keel_event_handler(KEEL_PORT_BIT(port), on_timer, NULL); /* the same bit everywhere */
	keel_must(keel_event_unmask(keel_port((keel_u32)port)));
	for (keel_u64 i = 0; i < rounds / 10 + 1; i++) {
		const keel_u64 before = p->fired, at = now() + 200000 + 10000 * p->id;

		keel_must(keel_time_set_timer(at));
		SLEEP_UNTIL(p->fired > before);
		p->errors += now() < at;
	}
	keel_must(keel_event_close(keel_port((keel_u32)port)));
}

static void ticks(void)
{
	bool good = true;

	EACH_PEER(n) start(n, tick);
	tick(&peer[0]);
	EACH_PEER(n) wait_stopped(n);
	for (keel_u32 n = 0; n < vcpus; n++)
		good &= !peer[n].errors && peer[n].fired == rounds / 10 + 1;
	result(good, "each has a timer of its own");
}

int keel_main(const struct keel_start *start_info)
{
	const char *at = keel_start_cmdline(start_info);

	for (; *at >= '0' && *at <= '9'; at++)
		rounds = rounds * 10 + (keel_u64)(*at - '0');
	if (!rounds)
		rounds = 100;
	vcpus = keel_vcpus();
	keel_printf("KTAP version 1\n1..9\n# %u vCPUs, %lu rounds\n", vcpus, (unsigned long)rounds);
	set_up();
	keel_event_handler(event_bit, on_event, NULL);
	starts();
	ipis();
	wakes();
	relays();
	stops();
	unmaps();
	churns();
	harvests();
	ticks();
	return wrong != 0;
}
