// SPDX-License-Identifier: MIT
/*
 * The guest under measurement: carries out the driver's lines (engine.h), one
 * operation of the ABI each. It drives the console ring itself, so that a test
 * can say what the host's wake-up flag shows.
 */
#include <hypercall/batch.h>
#include <hypercall/guest.h>
#include <hypercall/ring.h>
#include <hypercall/smp.h>

#include "engine.h"
#include "guest_user.h"

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(MULTICALL) | KEEL_NEEDS(MMU) | KEEL_NEEDS(TRAP) | KEEL_NEEDS(VCPU) |
			 KEEL_NEEDS(EVENT) | KEEL_NEEDS(TIME) | KEEL_NEEDS(CONSOLE) | KEEL_NEEDS(MEMORY) |
			 KEEL_NEEDS(STATS),
		 KEEL_NEEDS(AS) | KEEL_NEEDS(USER), 0, KEEL_U64(1) << KEEL_F1_SMP);
KEEL_IMAGE_MEMORY(BENCH_RAM);

#define BATCH 64 /* records or entries one call works off at most */

static struct keel_console_ring ring __attribute__((aligned(4096)));
static struct keel_ring_end out, in;

static struct keel_mmu_record recs[AREA_PAGES], fault_rec __attribute__((aligned(64)));
static struct keel_batch batch;
static struct keel_event_record events[BATCH];
static struct keel_multicall calls[BATCH];
static struct keel_multicall_result results[BATCH];
static struct keel_stats_entry stats[8];
static keel_port_t port;
static volatile unsigned int taken, skipped;
static volatile keel_u64 fired_late, deadline;

static void must(keel_s64 status, const char *what)
{
	keel_must_((struct keel_ret){ status, 0 }, what);
}

static void mark(void)
{
	keel_must(keel_memory_populate(keel_gpa(ENGINE_MARK_GPA), BENCH_PAGE));
}

/* BASE */

static uint64_t run_nop(void)
{
	for (int i = 0; i < PER_SHORT; i++)
		keel_base_nop();
	return 0;
}

static uint64_t run_ping(void)
{
	for (keel_u64 i = 0; i < PER_PING; i++)
		if (keel_must(keel_base_ping(i)) != i)
			keel_panic("base_ping answers something else");
	return 0;
}

static uint64_t run_multicall(void)
{
	keel_must(keel_multicall(keel_gpa_of(calls), BATCH, keel_gpa_of(results), 0));
	return 0;
}

static uint64_t run_stats(void)
{
	keel_must(keel_stats_read(keel_gpa_of(stats), sizeof(stats), 0));
	return 0;
}

/* MMU */

static uint64_t run_map(void)
{
	for (unsigned int i = 0; i < AREA_PAGES; i++)
		keel_batch_map(&batch, AREA_VA + i * BENCH_PAGE, keel_gpa(AREA_GPA + i * BENCH_PAGE), BENCH_PAGE,
			       KEEL_PROT_R | KEEL_PROT_W, KEEL_MMU_POPULATE);
	must(keel_batch_flush(&batch), "map");
	return 0;
}

static void unmap_area(void)
{
	keel_batch_unmap(&batch, AREA_VA, SCATTER_SPAN(AREA_PAGES));
	must(keel_batch_flush(&batch), "unmap");
}

static void scatter(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		keel_batch_map(&batch, SCATTER_VA(i), keel_gpa(SCATTER_GPA(i)), BENCH_PAGE, KEEL_PROT_R | KEEL_PROT_W,
			       0);
	must(keel_batch_flush(&batch), "map scattered");
}

static uint64_t run_scatter(void)
{
	scatter(AREA_PAGES);
	return 0;
}

static void gather(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		keel_batch_unmap(&batch, SCATTER_VA(i), BENCH_PAGE);
	must(keel_batch_flush(&batch), "unmap scattered");
}

static void prepare_unmap_few(void)
{
	scatter(RUNS_FEW);
}

static uint64_t run_unmap_few(void)
{
	gather(RUNS_FEW);
	return 0;
}

static uint64_t run_unmap_many(void)
{
	gather(AREA_PAGES);
	return 0;
}

static void prepare_unmap_many(void)
{
	scatter(AREA_PAGES);
}

static uint64_t run_protect(void)
{
	keel_batch_protect(&batch, AREA_VA, AREA_PAGES * BENCH_PAGE, KEEL_PROT_R);
	must(keel_batch_flush(&batch), "protect");
	return 0;
}

static void prepare_protect(void)
{
	run_map();
}

/* TRAP */

static void on_trap(struct keel_frame *f)
{
	if (f->vector == KEEL_VEC_UD) {
		skipped++;
		f->rip += 2; /* ud2 */
		return;
	}
	if (f->vector != KEEL_VEC_PF || f->addr < AREA_VA || f->addr >= AREA_VA + SCATTER_SPAN(AREA_PAGES)) {
		keel_print_frame(f);
		keel_panic("unexpected trap");
	}
	fault_rec.va = f->addr & ~(BENCH_PAGE - 1);
	fault_rec.gpa = AREA_GPA + (fault_rec.va - AREA_VA);
	must(keel_mmu_batch(keel_as(0), keel_gpa_of(&fault_rec), 1, 0).status, "map in the fault handler");
}

static uint64_t run_fault(void)
{
	for (unsigned int i = 0; i < PER_FAULT; i++)
		*(volatile keel_u64 *)SCATTER_VA(i) = i;
	return 0;
}

static uint64_t run_trap(void)
{
	unsigned int before = skipped;

	__asm__ volatile("ud2" : : : "memory");
	if (skipped != before + 1)
		keel_panic("the trap did not arrive");
	return 0;
}

/* EVENT */

static void on_event(void *arg, keel_u32 bit)
{
	(void)arg, (void)bit;
	taken++;
}

static void prepare_event(void)
{
	must(keel_event_mask(port).status, "event_mask");
	taken = 0;
}

static uint64_t run_mask(void)
{
	struct keel_vcpu *v = keel_vcpu_page();
	const keel_u32 bit = KEEL_PORT_BIT(port.v);

	for (int i = 0; i < PER_SHORT; i++) {
		keel_ev_mask(v, bit);
		keel_ev_unmask(v, bit);
	}
	return 0;
}

static uint64_t run_irq(void)
{
	for (int i = 0; i < PER_SHORT; i++) {
		keel_irq_disable();
		keel_irq_enable();
	}
	return 0;
}

/* Sent while IF is off, taken when it is on again. */
static uint64_t run_send(void)
{
	must(keel_event_unmask(port).status, "event_unmask");
	keel_irq_disable();
	for (int i = 0; i < BATCH; i++)
		must(keel_event_send(port).status, "event_send");
	keel_irq_enable();
	if (taken != 1)
		keel_panic("%u events taken instead of 1", taken);
	return 0;
}

static uint64_t run_event_batch(void)
{
	keel_must(keel_event_batch(keel_gpa_of(events), BATCH, 0));
	return 0;
}

/* TIME */

static uint64_t run_clock(void)
{
	for (int i = 0; i < PER_SHORT; i++)
		keel_time();
	return 0;
}

static void on_timer(void *arg, keel_u32 bit)
{
	(void)arg, (void)bit;
	fired_late = keel_time() - deadline + 1;
}

static void arm(void)
{
	fired_late = 0;
	deadline = keel_time() + TIMER_AHEAD_NS;
	must(keel_timer_at(deadline), "timer");
}

static uint64_t run_timer_idle(void)
{
	keel_irq_disable();
	arm();
	while (!fired_late) {
		keel_wait();
		keel_irq_disable();
	}
	keel_irq_enable();
	return fired_late;
}

static uint64_t run_timer_busy(void)
{
	arm();
	while (!fired_late)
		__asm__ volatile("pause");
	return fired_late;
}

static uint64_t run_timer_set(void)
{
	must(keel_timer_at(KEEL_TIME_NEVER - 1), "timer");
	return 0;
}

static void finish_timer_set(void)
{
	must(keel_timer_at(KEEL_TIME_NEVER), "timer");
}

/* CONSOLE */

static void put(const char *s, size_t n)
{
	bool kick = false;

	while (n) {
		int done = keel_ring_push(&out, s, n);

		if (done < 0)
			keel_panic("the console ring is broken");
		s += done;
		n -= (size_t)done;
		kick |= keel_ring_must_kick(&ring);
		if (kick || n)
			must(keel_console_kick().status, "console_kick");
		kick = false;
		if (n)
			keel_vcpu_yield(~KEEL_U64(0));
	}
}

static uint64_t run_doorbell(void)
{
	for (int i = 0; i < PER_PING; i++)
		must(keel_console_kick().status, "console_kick");
	return 0;
}

/* The host draining the ring has its flag down. */
static uint64_t run_ring(void)
{
	ring.out_wake = 0;
	put("# ring\n", 7);
	return 0;
}

static void finish_ring(void)
{
	must(keel_console_kick().status, "console_kick");
}

/* Input comes byte by byte and raises the same event each time, while IF is off. */
static void prepare_flood(void)
{
	keel_irq_disable();
}

static uint64_t run_flood(void)
{
	while (keel_ring_avail(&in) < ENGINE_FLOOD)
		__asm__ volatile("pause");
	return 0;
}

static void finish_flood(void)
{
	char c[ENGINE_FLOOD];

	keel_ring_pop(&in, c, sizeof(c));
	keel_irq_enable();
}

/* Native speed */

static uint64_t run_cpu(void)
{
	work_cpu(200000);
	return 0;
}

static uint64_t run_memory(void)
{
	work_memory((keel_u64 *)LOOP_VA, LOOP_BYTES / 8, 20000);
	return 0;
}

/* Other vCPUs sleep all the time. */
static void sleep_forever(void *arg)
{
	(void)arg;
	for (;;)
		keel_vcpu_wait(KEEL_TIME_NEVER);
}

static void start_others(void)
{
	static keel_u8 stack[16][4096] __attribute__((aligned(16)));

	for (keel_u32 i = 1; i < keel_vcpus() && i < sizeof(stack) / sizeof(stack[0]); i++)
		must(keel_smp_start(i, stack[i] + sizeof(stack[i]), sleep_forever, NULL, NULL), "start a vCPU");
}

static uint64_t run_nothing(void)
{
	return 0;
}

static const struct op ops[] = {
	{ "nop", NULL, run_nop, NULL },
	{ "ping", NULL, run_ping, NULL },
	{ "multicall", NULL, run_multicall, NULL },
	{ "stats", NULL, run_stats, NULL },
	{ "map", NULL, run_map, unmap_area },
	{ "scatter", NULL, run_scatter, unmap_area },
	{ "unmap_few", prepare_unmap_few, run_unmap_few, NULL },
	{ "unmap_many", prepare_unmap_many, run_unmap_many, NULL },
	{ "protect", prepare_protect, run_protect, unmap_area },
	{ "fault", NULL, run_fault, unmap_area },
	{ "trap", NULL, run_trap, NULL },
	{ "mask", prepare_event, run_mask, NULL },
	{ "irq", NULL, run_irq, NULL },
	{ "send", prepare_event, run_send, NULL },
	{ "event_batch", prepare_event, run_event_batch, NULL },
	{ "clock", NULL, run_clock, NULL },
	{ "timer_idle", NULL, run_timer_idle, NULL },
	{ "timer_busy", NULL, run_timer_busy, NULL },
	{ "timer_set", NULL, run_timer_set, finish_timer_set },
	{ "doorbell", NULL, run_doorbell, NULL },
	{ "ring", NULL, run_ring, finish_ring },
	{ "flood", prepare_flood, run_flood, finish_flood },
	{ "cpu", NULL, run_cpu, NULL },
	{ "memory", NULL, run_memory, NULL },
	{ "user_call", user_prepare, user_run_call, NULL },
	{ "user_fault", user_prepare, user_run_fault, user_forget },
	{ "user_refill", user_prepare_refill, user_run_refill, user_finish_refill },
	{ "user_spaces", user_prepare_spaces, user_run_spaces, NULL },
	{ "user_fork", user_prepare_family, user_run_fork, NULL },
	{ "user_cpu", user_prepare, user_run_cpu, NULL },
	{ "nothing", NULL, run_nothing, NULL },
	{ NULL, NULL, NULL, NULL },
};

static void setup(const struct keel_start *start)
{
	const struct keel_abi_pages *abi = keel_start_abi(start);

	if (!abi)
		keel_panic("no ABI pages in the start info");
	fault_rec.op = KEEL_MMU_MAP;
	fault_rec.prot = KEEL_PROT_R | KEEL_PROT_W;
	fault_rec.flags = KEEL_MMU_POPULATE;
	fault_rec.len = BENCH_PAGE;
	keel_batch_init(&batch, recs, keel_gpa_of(recs), AREA_PAGES, keel_as(0), keel_batch_submit, NULL);
	keel_must(keel_memory_populate(keel_gpa(AREA_GPA), 2 * AREA_PAGES * BENCH_PAGE));
	keel_must(keel_memory_populate(keel_gpa(LOOP_GPA), LOOP_BYTES));
	keel_batch_map(&batch, LOOP_VA, keel_gpa(LOOP_GPA), LOOP_BYTES, KEEL_PROT_R | KEEL_PROT_W, KEEL_MMU_POPULATE);
	must(keel_batch_flush(&batch), "map");

	must(keel_trap_handler(on_trap), "trap_set");
	must(keel_event_init(), "event_init");
	must(keel_timer_init(on_timer, NULL), "timer_init");
	port = keel_port((keel_u32)keel_must(keel_event_alloc(1)));
	keel_event_handler(KEEL_PORT_BIT(port.v), on_event, NULL);
	for (int i = 0; i < BATCH; i++) {
		events[i] = (struct keel_event_record){ KEEL_EVENT_OP_SEND, port.v };
		calls[i].id = KEEL_CALL_BASE_NOP;
	}

	user_setup(start);
	start_others();
	keel_ring_attach(&out, &ring, KEEL_RING_GUEST_OUT);
	keel_ring_attach(&in, &ring, KEEL_RING_GUEST_IN);
	must(keel_console_setup(keel_gpa_of(&ring), sizeof(ring)).status, "console_setup");
	must(keel_console_on_input(on_event, NULL), "console input");
}

int keel_main(const struct keel_start *start)
{
	char line[ENGINE_LINE], reply[ENGINE_LINE];
	size_t len = 0;

	setup(start);
	put("ready\n", 6);
	for (;;) {
		keel_irq_disable();
		if (keel_ring_pop(&in, line + len, 1) < 1) {
			keel_wait();
			continue;
		}
		keel_irq_enable();
		if (line[len] != '\n') {
			len += len < sizeof(line) - 1;
			continue;
		}
		line[len] = '\0';
		len = 0;
		if (line[0] == 'q')
			return 0;
		put(reply, engine_answer(ops, mark, line, reply));
	}
}
