// SPDX-License-Identifier: MIT
/*
 * The guest of exits.c: "OPERATION:N ... warm" on its command line has each of the
 * operations done N times. Everything an operation touches is touched before, by doing
 * all of them twice in every run; so two runs differ in the repetitions and in nothing
 * else. Without "warm" nothing is done beforehand. "idle" says that it is ready and does nothing for ever.
 *
 * An operation named after a call makes that call; one with another name is made of
 * several or of none. Each leaves things as it found them.
 */
#include <hypercall/batch.h>
#include <hypercall/guest.h>
#include <hypercall/ring.h>
#include <hypercall/smp.h>

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(MULTICALL) | KEEL_NEEDS(MMU) | KEEL_NEEDS(AS) | KEEL_NEEDS(HARVEST) |
			 KEEL_NEEDS(TRAP) | KEEL_NEEDS(USER) | KEEL_NEEDS(VCPU) | KEEL_NEEDS(EVENT) | KEEL_NEEDS(TIME) |
			 KEEL_NEEDS(CONSOLE) | KEEL_NEEDS(MEMORY) | KEEL_NEEDS(STATS),
		 0, 0, KEEL_U64(1) << KEEL_F1_SMP);

#define PAGE KEEL_U64(4096)
#define MIB (KEEL_U64(1) << 20)
#define AREA_GPA (32 * MIB) /* in no image segment */
#define AREA_VA KEEL_U64(0x200000000)
#define AREA_PAGES 512
#define FRESH_GPA (40 * MIB) /* touched by "first_touch" only */
#define FRESH_PAGES 16
#define SCATTER_VA(i) (AREA_VA + (keel_u64)(i)*2 * PAGE)
#define SCATTER_GPA(i) (AREA_GPA + (keel_u64)((i)*37 % AREA_PAGES) * PAGE)
#define BATCH 64
#define USER_CODE_VA KEEL_U64(0x10000000)
#define USER_DATA_VA KEEL_U64(0x20000000)
#define USER_RFLAGS 0x202
#define AHEAD_NS 2000000
#define FAR_NS KEEL_U64(3600000000000)

static struct keel_mmu_record recs[AREA_PAGES] __attribute__((aligned(4096)));
static struct keel_batch batch;
static struct keel_mmu_record fault_rec __attribute__((aligned(64)));
static struct keel_multicall calls[BATCH] __attribute__((aligned(4096)));
static struct keel_multicall_result results[BATCH] __attribute__((aligned(4096)));
static struct keel_event_record events[BATCH] __attribute__((aligned(4096)));
static struct keel_stats_entry stats[8] __attribute__((aligned(4096)));
static keel_u64 bitmap[AREA_PAGES / 64] __attribute__((aligned(4096)));
static struct keel_console_ring ring __attribute__((aligned(4096)));
static struct keel_ring_end in;
static const struct keel_clock *clock_page;
static keel_port_t port;
static keel_as_t space;
static struct keel_mmu_record user_rec __attribute__((aligned(64)));
/* Of user code, with the largest XSAVE area there is. */
static union {
	struct keel_user user;
	keel_u8 bytes[PAGE];
} context __attribute__((aligned(4096)));
static volatile unsigned int taken, dumped, skipped, input;
static volatile bool fired;
static keel_u64 fresh = FRESH_GPA;
static bool warm;

static void must(keel_s64 status, keel_s64 want, const char *what)
{
	if (status != want)
		keel_panic("%s: status %#lx instead of %#lx", what, (unsigned long)status, (unsigned long)want);
}

#define OK(call) must((call).status, KEEL_OK, #call)
#define FAILS(call, code) must(KEEL_STATUS_CODE((call).status), code, #call)

static void nothing(void)
{
}

/* BASE, MULTICALL, STATS */

static void base_version(void)
{
	OK(keel_base_version());
}

static void base_host(void)
{
	OK(keel_base_host(0));
}

static void base_probe(void)
{
	OK(keel_base_probe(0));
}

static void base_features(void)
{
	OK(keel_base_features(0));
}

static void base_limit(void)
{
	OK(keel_base_limit(0));
}

static void base_nop(void)
{
	OK(keel_base_nop());
}

static void base_ping(void)
{
	if (keel_must(keel_base_ping(42)) != 42)
		keel_panic("base_ping answers something else");
}

static void multicall(void)
{
	OK(keel_multicall(keel_gpa_of(calls), BATCH, keel_gpa_of(results), 0));
}

static void stats_read(void)
{
	OK(keel_stats_read(keel_gpa_of(stats), sizeof(stats), 0));
}

/* AS, USER: code that makes system calls, and code that stores first */

__asm__(".pushsection .text.user, \"ax\", @progbits\n"
	".balign 4096\n"
	"user_code: syscall\n"
	"	jmp user_code\n"
	"user_store: mov %rax, (%rdi)\n"
	"	syscall\n"
	"user_divide: div %ecx\n"
	".balign 4096\n"
	".popsection\n");
extern char user_code[], user_store[], user_divide[];

/* Input may arrive meanwhile: then it goes on. */
static void user(const char *code, keel_u64 reason)
{
	keel_u64 why;

	context.user.rip = USER_CODE_VA + (keel_u64)(code - user_code);
	do
		why = keel_must(keel_user_enter(space, keel_gpa_of(&context), 0));
	while (why == KEEL_USER_EVENT);
	if (why != reason)
		keel_panic("user code stopped for another reason: vector %u", context.user.vector);
}

static void user_map(keel_u64 va, keel_gpa_t gpa, keel_u16 prot)
{
	user_rec = (struct keel_mmu_record){ .op = prot ? KEEL_MMU_MAP : KEEL_MMU_UNMAP, .prot = prot };
	user_rec.va = va;
	user_rec.gpa = prot ? gpa.v : 0;
	user_rec.len = PAGE;
	OK(keel_mmu_batch(space, keel_gpa_of(&user_rec), 1, 0));
}

static void user_init(const struct keel_cpu_info *cpu)
{
	space = keel_as(keel_must(keel_as_create(0)));
	user_map(USER_CODE_VA, keel_gpa_of(user_code), KEEL_PROT_R | KEEL_PROT_X);
	context.user.size = KEEL_USER_XSAVE + cpu->xsave_size;
	context.user.rflags = USER_RFLAGS;
	context.bytes[KEEL_USER_XSAVE] = 0x7f; /* FCW */
	context.bytes[KEEL_USER_XSAVE + 1] = 0x03;
	context.bytes[KEEL_USER_XSAVE + 24] = 0x80; /* MXCSR */
	context.bytes[KEEL_USER_XSAVE + 25] = 0x1f;
	context.user.rdi = USER_DATA_VA;
}

static void user_enter(void)
{
	user(user_code, KEEL_USER_SYSCALL);
}

static void user_exception(void)
{
	user(user_divide, KEEL_USER_EXCEPTION);
}

/* What the guest kernel does of a fault: it maps the page, and user code goes on. */
static void user_fault(void)
{
	user(user_store, KEEL_USER_EXCEPTION);
	if (context.user.vector != KEEL_VEC_PF || context.user.addr != USER_DATA_VA)
		keel_panic("user code did not fault");
	user_map(USER_DATA_VA, keel_gpa(AREA_GPA), KEEL_PROT_R | KEEL_PROT_W);
	user(user_store, KEEL_USER_SYSCALL);
	user_map(USER_DATA_VA, keel_gpa(0), 0);
}

static void as_create(void)
{
	OK(keel_as_destroy(keel_as(keel_must(keel_as_create(0)))));
}

static void as_clone(void)
{
	OK(keel_as_destroy(keel_as(keel_must(keel_as_clone(space, 0)))));
}

static void as_info(void)
{
	OK(keel_as_info(space, KEEL_AS_INFO_PAGES));
}

/* MMU: what a batch changes is used at once, or an exit could be only put off */

static void flush(const char *what)
{
	must(keel_batch_flush(&batch), KEEL_OK, what);
}

static void write_area(unsigned int pages, unsigned int stride)
{
	for (unsigned int i = 0; i < pages; i++)
		*(volatile keel_u64 *)(AREA_VA + (keel_u64)i * stride * PAGE) = i;
}

static void map(void)
{
	keel_batch_map(&batch, AREA_VA, keel_gpa(AREA_GPA), AREA_PAGES * PAGE, KEEL_PROT_R | KEEL_PROT_W, 0);
	flush("map");
	write_area(AREA_PAGES, 1);
}

static void unmap(void)
{
	keel_batch_unmap(&batch, AREA_VA, 2 * AREA_PAGES * PAGE);
	flush("unmap");
}

static void map_and_unmap(void)
{
	map();
	unmap();
}

static void map_populated(void)
{
	keel_batch_map(&batch, AREA_VA, keel_gpa(AREA_GPA), AREA_PAGES * PAGE, KEEL_PROT_R | KEEL_PROT_W,
		       KEEL_MMU_POPULATE);
	flush("map");
	unmap();
}

static void protect(void)
{
	map();
	keel_batch_protect(&batch, AREA_VA, AREA_PAGES * PAGE, KEEL_PROT_R);
	flush("protect");
	keel_batch_protect(&batch, AREA_VA, AREA_PAGES * PAGE, KEEL_PROT_R | KEEL_PROT_W);
	flush("protect");
	write_area(AREA_PAGES, 1);
	unmap();
}

static void scatter(void)
{
	for (unsigned int i = 0; i < AREA_PAGES; i++)
		keel_batch_map(&batch, SCATTER_VA(i), keel_gpa(SCATTER_GPA(i)), PAGE, KEEL_PROT_R | KEEL_PROT_W, 0);
	flush("map scattered");
	write_area(AREA_PAGES, 2);
	for (unsigned int i = 0; i < AREA_PAGES; i++)
		keel_batch_unmap(&batch, SCATTER_VA(i), PAGE);
	flush("unmap scattered");
}

static void mmu_batch(void)
{
	OK(keel_mmu_batch(keel_as(0), keel_gpa_of(&fault_rec), 1, 0));
	*(volatile keel_u64 *)AREA_VA = 1;
	unmap();
}

static void mmu_query(void)
{
	OK(keel_mmu_query(keel_as(0), (keel_u64)nothing & ~(PAGE - 1)));
}

static void harvest_stop(void)
{
	OK(keel_harvest_stop(keel_as(0), AREA_VA, AREA_PAGES * PAGE));
}

static void harvest_start(void)
{
	map();
	OK(keel_harvest_start(keel_as(0), AREA_VA, AREA_PAGES * PAGE, KEEL_HARVEST_DIRTY));
	harvest_stop();
	unmap();
}

static void harvest_collect(void)
{
	map();
	OK(keel_harvest_start(keel_as(0), AREA_VA, AREA_PAGES * PAGE, KEEL_HARVEST_DIRTY));
	write_area(AREA_PAGES / 2, 2);
	OK(keel_harvest_collect(keel_as(0), AREA_VA, AREA_PAGES * PAGE, keel_gpa_of(bitmap)));
	harvest_stop();
	unmap();
}

/* MEMORY */

static void memory_populate(void)
{
	OK(keel_memory_populate(keel_gpa(AREA_GPA), AREA_PAGES * PAGE));
}

static void memory_release(void)
{
	OK(keel_memory_release(keel_gpa(AREA_GPA + AREA_PAGES * PAGE), PAGE));
}

/* Each repetition has pages of its own; preparing does not use any up but the first. */
static void first_touch(void)
{
	OK(keel_memory_populate(keel_gpa(fresh), FRESH_PAGES * PAGE));
	if (warm)
		fresh += FRESH_PAGES * PAGE;
}

/* TRAP */

static void on_trap(struct keel_frame *f)
{
	if (f->vector == KEEL_VEC_UD || f->vector == KEEL_VEC_DE) {
		skipped++;
		f->rip += 2; /* ud2, divb of a low register */
		return;
	}
	if (f->vector != KEEL_VEC_PF || f->addr < AREA_VA || f->addr >= AREA_VA + 2 * AREA_PAGES * PAGE) {
		keel_print_frame(f);
		keel_panic("unexpected trap");
	}
	OK(keel_mmu_batch(keel_as(0), keel_gpa_of(&fault_rec), 1, 0));
}

static void trap(void)
{
	const unsigned int before = skipped;

	__asm__ volatile("divb %%cl" : : "c"(0), "a"(1) : "memory", "cc");
	if (skipped != before + 1)
		keel_panic("the trap did not arrive");
}

static void invalid_opcode(void)
{
	const unsigned int before = skipped;

	__asm__ volatile("ud2" : : : "memory");
	if (skipped != before + 1)
		keel_panic("the trap did not arrive");
}

static void page_fault(void)
{
	*(volatile keel_u64 *)AREA_VA = 1;
	unmap();
}

static void trap_set(void)
{
	OK(keel_trap_set(KEEL_CLASS_DOUBLE, 0, 0));
}

static void trap_deliver(void)
{
	OK(keel_trap_deliver());
}

/* EVENT, virtual interrupts */

static void on_event(void *arg, keel_u32 bit)
{
	(void)arg, (void)bit;
	taken++;
}

static void on_dump(struct keel_frame *f)
{
	(void)f;
	dumped++;
}

static void event_alloc(void)
{
	const keel_port_t p = keel_port((keel_u32)keel_must(keel_event_alloc(2)));

	OK(keel_event_close(p));
}

static void event_bind(void)
{
	FAILS(keel_event_bind(KEEL_SOURCE_TIMER, 3), KEEL_E_EXIST);
}

static void event_mask(void)
{
	OK(keel_event_mask(port));
	OK(keel_event_unmask(port));
}

static void mask_in_place(void)
{
	struct keel_vcpu *v = keel_vcpu_page();

	keel_ev_mask(v, KEEL_PORT_BIT(port.v));
	keel_ev_unmask(v, KEEL_PORT_BIT(port.v));
}

static void irq_off_on(void)
{
	keel_irq_disable();
	keel_irq_enable();
}

static void event_send(void)
{
	const unsigned int before = taken;

	OK(keel_event_send(port));
	if (taken != before + 1)
		keel_panic("the event did not arrive");
}

static void event_batch(void)
{
	const unsigned int before = taken;

	OK(keel_event_batch(keel_gpa_of(events), BATCH, 0));
	if (taken == before)
		keel_panic("no event of the batch arrived");
}

static void event_dump(void)
{
	const unsigned int before = dumped;

	OK(keel_event_dump(0));
	if (dumped != before + 1)
		keel_panic("the dump event did not arrive");
}

/* TIME, VCPU */

static void clock_read(void)
{
	keel_u64 ns;

	if (!keel_clock_read(clock_page, &ns))
		keel_panic("the clock page is not valid");
}

static void time_read(void)
{
	OK(keel_time_read());
}

static void on_timer(void *arg, keel_u32 bit)
{
	(void)arg, (void)bit;
	fired = true;
}

/* Another deadline each time: the same one need not be told to anybody again. */
static void time_set_timer(void)
{
	OK(keel_time_set_timer(keel_time() + FAR_NS));
}

static void timer_off(void)
{
	time_set_timer();
	OK(keel_time_set_timer(KEEL_TIME_NEVER));
}

/* Spinning is without a pause: what a processor makes of many is no exit of the timer's. */
static void timer_running(void)
{
	fired = false;
	OK(keel_time_set_timer(keel_time() + AHEAD_NS));
	while (!fired)
		;
}

static void timer_asleep(void)
{
	fired = false;
	OK(keel_time_set_timer(keel_time() + AHEAD_NS));
	keel_irq_disable();
	while (!fired) {
		keel_wait();
		keel_irq_disable();
	}
	keel_irq_enable();
}

/* Nothing to wait for: something is pending. */
static void vcpu_wait(void)
{
	keel_irq_disable();
	OK(keel_event_send(port));
	OK(keel_vcpu_wait(KEEL_TIME_NEVER));
	keel_irq_enable();
}

static void wait_until(void)
{
	keel_irq_disable();
	FAILS(keel_vcpu_wait(keel_time() + AHEAD_NS), KEEL_E_TIMEDOUT);
	keel_irq_enable();
}

static void vcpu_yield(void)
{
	OK(keel_vcpu_yield(~KEEL_U64(0)));
}

/* CONSOLE: input never ends, and there is room for more each time */

static void on_input(void *arg, keel_u32 bit)
{
	(void)arg, (void)bit;
	input++;
}

static void console_init(void)
{
	keel_u32 bit;

	keel_ring_attach(&in, &ring, KEEL_RING_GUEST_IN);
	OK(keel_console_setup(keel_gpa_of(&ring), sizeof(ring)));
	bit = KEEL_PORT_BIT((keel_u32)keel_must(keel_event_bind(KEEL_SOURCE_CONSOLE, 3)));
	keel_event_handler(bit, on_input, NULL);
	OK(keel_event_unmask(keel_port(bit)));
}

static void take_input(void)
{
	char c[64];
	int n;

	while ((n = keel_ring_pop(&in, c, sizeof(c))) > 0)
		;
	if (n < 0)
		keel_panic("the console ring is broken");
}

static void console_kick(void)
{
	OK(keel_console_kick());
}

static void kick_running(void)
{
	const unsigned int before = input;

	take_input();
	console_kick();
	while (input == before)
		;
}

static void kick_asleep(void)
{
	const unsigned int before = input;

	take_input();
	console_kick();
	keel_irq_disable();
	while (input == before) {
		keel_wait();
		keel_irq_disable();
	}
	keel_irq_enable();
}

/* vCPUs: another one that does as it is told. */

#define PEER 1

static char peer_stack[16384] __attribute__((aligned(4096)));
static enum does { STOPS, SPINS, SLEEPS } volatile peer_does;
static volatile unsigned int peer_taken, peer_starts;
static keel_port_t peer_port;

static void on_peer_event(void *arg, keel_u32 bit)
{
	(void)arg, (void)bit;
	peer_taken++;
}

static void peer(void *arg)
{
	(void)arg;
	must(keel_event_init(), KEEL_OK, "event_init");
	if (!peer_starts) {
		peer_port = keel_port((keel_u32)keel_must(keel_event_alloc(2)));
		keel_event_handler(KEEL_PORT_BIT(peer_port.v), on_peer_event, NULL);
		OK(keel_event_unmask(peer_port));
	}
	keel_irq_enable();
	peer_starts++;
	while (peer_does != STOPS) {
		keel_irq_disable();
		if (peer_does == SLEEPS)
			keel_wait();
		keel_irq_enable();
	}
}

static void peer_start_as(enum does does)
{
	const unsigned int before = peer_starts;

	peer_does = does;
	must(keel_smp_start(PEER, peer_stack + sizeof(peer_stack), peer, NULL, NULL), KEEL_OK, "vcpu_start");
	while (peer_starts == before)
		;
}

static void peer_send(void)
{
	const unsigned int before = peer_taken;

	OK(keel_event_send(peer_port));
	while (peer_taken == before)
		;
}

/* A peer that is asleep notices at its next event. */
static void peer_is(enum does does)
{
	if (peer_does == does)
		return;
	peer_does = does;
	peer_send();
}

static void peer_event(void)
{
	peer_is(SPINS);
	peer_send();
}

/* It falls asleep meanwhile, or it does not: then waking it costs less. */
static void peer_wake(void)
{
	peer_is(SLEEPS);
	for (int i = 0; i < 100000; i++)
		__asm__ volatile("");
	peer_send();
}

static void peer_start(void)
{
	peer_is(SPINS);
	peer_does = STOPS;
	while (keel_smp_running(PEER))
		;
	peer_start_as(SPINS);
}

static void peer_unmap(void)
{
	peer_is(SPINS);
	mmu_batch();
}

static void peer_yield(void)
{
	peer_is(SPINS);
	OK(keel_vcpu_yield(PEER));
}

static struct keel_vcpu_set self __attribute__((aligned(64))) = { 1, { 1 } };

static void vcpu_ipi(void)
{
	const unsigned int before = taken;

	OK(keel_vcpu_ipi(keel_gpa_of(&self), 16, KEEL_PORT_BIT(port.v)));
	while (taken == before)
		;
}

static void vcpu_info(void)
{
	OK(keel_vcpu_info(0, KEEL_VCPU_INFO_STATE));
}

/* What sleeps, or waits for the host, does not take the same number of exits each time: it is only prepared for itself. */
enum kind { STEADY, WAITS, CONSOLE, WITH_PEER };

static const struct op {
	const char *name;
	void (*run)(void);
	enum kind kind;
} ops[] = {
	{ "none", nothing, STEADY },
	{ "base_version", base_version, STEADY },
	{ "base_host", base_host, STEADY },
	{ "base_probe", base_probe, STEADY },
	{ "base_features", base_features, STEADY },
	{ "base_limit", base_limit, STEADY },
	{ "base_nop", base_nop, STEADY },
	{ "base_ping", base_ping, STEADY },
	{ "multicall", multicall, STEADY },
	{ "stats_read", stats_read, STEADY },
	{ "as_create", as_create, STEADY },
	{ "as_destroy", as_create, STEADY },
	{ "as_clone", as_clone, STEADY },
	{ "as_info", as_info, STEADY },
	{ "user_enter", user_enter, STEADY },
	{ "user_exception", user_exception, STEADY },
	{ "user_fault", user_fault, STEADY },
	{ "map", map_and_unmap, STEADY },
	{ "map_populated", map_populated, STEADY },
	{ "protect", protect, STEADY },
	{ "scatter", scatter, STEADY },
	{ "mmu_batch", mmu_batch, STEADY },
	{ "page_fault", page_fault, STEADY },
	{ "mmu_query", mmu_query, STEADY },
	{ "harvest_start", harvest_start, STEADY },
	{ "harvest_stop", harvest_start, STEADY },
	{ "harvest_collect", harvest_collect, STEADY },
	{ "memory_populate", memory_populate, STEADY },
	{ "memory_release", memory_release, STEADY },
	{ "first_touch", first_touch, STEADY },
	{ "trap", trap, STEADY },
	{ "trap_return", trap, STEADY },
	{ "invalid_opcode", invalid_opcode, STEADY },
	{ "trap_set", trap_set, STEADY },
	{ "trap_deliver", trap_deliver, STEADY },
	{ "event_alloc", event_alloc, STEADY },
	{ "event_close", event_alloc, STEADY },
	{ "event_bind", event_bind, STEADY },
	{ "event_mask", event_mask, STEADY },
	{ "event_unmask", event_mask, STEADY },
	{ "mask_in_place", mask_in_place, STEADY },
	{ "irq_off_on", irq_off_on, STEADY },
	{ "event_send", event_send, STEADY },
	{ "event_batch", event_batch, STEADY },
	{ "event_dump", event_dump, STEADY },
	{ "clock_read", clock_read, STEADY },
	{ "time_read", time_read, STEADY },
	{ "time_set_timer", time_set_timer, STEADY },
	{ "timer_off", timer_off, STEADY },
	{ "timer_running", timer_running, WAITS },
	{ "timer_asleep", timer_asleep, WAITS },
	{ "vcpu_wait", vcpu_wait, STEADY },
	{ "wait_until", wait_until, WAITS },
	{ "vcpu_yield", vcpu_yield, STEADY },
	{ "vcpu_ipi", vcpu_ipi, STEADY },
	{ "vcpu_info", vcpu_info, STEADY },
	{ "peer_event", peer_event, WITH_PEER },
	{ "peer_wake", peer_wake, WITH_PEER },
	{ "peer_start", peer_start, WITH_PEER },
	{ "peer_unmap", peer_unmap, WITH_PEER },
	{ "peer_yield", peer_yield, WITH_PEER },
	{ "console_kick", console_kick, CONSOLE },
	{ "kick_running", kick_running, CONSOLE },
	{ "kick_asleep", kick_asleep, CONSOLE },
};

#define OPS (sizeof(ops) / sizeof(ops[0]))

/* Calls that this host numbers and does not serve, and those negotiation is over for. */
static const struct refused {
	const char *name;
	keel_u64 id;
	keel_s64 code;
} refused[] = {
	{ "base_accept", KEEL_CALL_BASE_ACCEPT, KEEL_E_STATE },
	{ "base_freeze", KEEL_CALL_BASE_FREEZE, KEEL_E_STATE },
	{ "migrate_reason", KEEL_CALL_MIGRATE_REASON, KEEL_E_NOTSUP },
};

#define REFUSED (sizeof(refused) / sizeof(refused[0]))

static void refuse(const struct refused *r)
{
	FAILS(keel_call0(r->id), r->code);
}

static void setup(const struct keel_start *start)
{
	const struct keel_abi_pages *abi = keel_start_abi(start);
	const struct keel_cpu_info *cpu = keel_start_cpu(start);

	if (!abi || !cpu)
		keel_panic("no ABI pages or no processor in the start info");
	clock_page = (const struct keel_clock *)abi->clock_va;
	keel_batch_init(&batch, recs, keel_gpa_of(recs), AREA_PAGES, keel_as(0), keel_batch_submit, NULL);
	fault_rec.op = KEEL_MMU_MAP;
	fault_rec.prot = KEEL_PROT_R | KEEL_PROT_W;
	fault_rec.va = AREA_VA;
	fault_rec.gpa = AREA_GPA;
	fault_rec.len = PAGE;
	must(keel_trap_handler(on_trap), KEEL_OK, "trap_set");
	must(keel_entry_install(KEEL_CLASS_DUMP, on_dump, NULL), KEEL_OK, "trap_set");
	must(keel_event_init(), KEEL_OK, "event_init");
	must(keel_timer_init(on_timer, NULL), KEEL_OK, "timer_init");
	port = keel_port((keel_u32)keel_must(keel_event_alloc(1)));
	keel_event_handler(KEEL_PORT_BIT(port.v), on_event, NULL);
	OK(keel_event_unmask(port));
	for (int i = 0; i < BATCH; i++) {
		events[i] = (struct keel_event_record){ KEEL_EVENT_OP_SEND, port.v };
		calls[i].id = KEEL_CALL_BASE_NOP;
	}
	user_init(cpu);
	keel_irq_enable();
}

/* An operation or a call by the name that ends at a colon, how often behind it, and where the next one starts. */
struct job {
	const struct op *op;
	const struct refused *no;
	keel_u64 n;
};

static bool named(const char *word, const char *name)
{
	while (*name && *word == *name) {
		word++;
		name++;
	}
	return !*name && *word == ':';
}

static const char *read_job(const char *at, struct job *j)
{
	*j = (struct job){ 0 };
	for (size_t i = 0; i < OPS; i++)
		if (named(at, ops[i].name))
			j->op = &ops[i];
	for (size_t i = 0; i < REFUSED; i++)
		if (named(at, refused[i].name))
			j->no = &refused[i];
	if (!j->op && !j->no)
		keel_panic("there is no operation at \"%s\"", at);
	while (*at++ != ':')
		;
	for (; *at >= '0' && *at <= '9'; at++)
		j->n = j->n * 10 + (keel_u64)(*at - '0');
	while (*at == ' ')
		at++;
	return at;
}

static void prepare(const struct job *jobs, unsigned int count)
{
	for (size_t i = 0; i < OPS; i++)
		if (ops[i].kind == STEADY)
			ops[i].run();
	for (size_t i = 0; i < REFUSED; i++)
		refuse(&refused[i]);
	for (unsigned int i = 0; i < count; i++)
		if (jobs[i].op && jobs[i].op->kind != STEADY)
			jobs[i].op->run();
	/* It shall be no part of what is prepared next: no shootdown concerns who sleeps. */
	if (peer_does == SPINS)
		peer_is(SLEEPS);
}

static void idle(void)
{
	keel_puts("ready");
	for (;;)
		keel_vcpu_wait(KEEL_TIME_NEVER);
}

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

int keel_main(const struct keel_start *start)
{
	const char *at = keel_start_cmdline(start);
	static struct job jobs[OPS + REFUSED];
	unsigned int count = 0;
	bool console = false, with_peer = false;

	if (same(at, "idle"))
		idle();
	while (*at && !same(at, "warm") && count < OPS + REFUSED) {
		at = read_job(at, &jobs[count]);
		console |= jobs[count].op && jobs[count].op->kind == CONSOLE;
		with_peer |= jobs[count].op && jobs[count].op->kind == WITH_PEER;
		count++;
	}
	setup(start);
	if (console)
		console_init();
	if (with_peer)
		peer_start_as(SLEEPS); /* whom no shootdown concerns */
	if (*at) {
		prepare(jobs, count);
		prepare(jobs, count);
	}
	warm = true;
	fresh += FRESH_PAGES * PAGE;
	for (unsigned int i = 0; i < count; i++)
		for (keel_u64 n = 0; n < jobs[i].n; n++) {
			if (jobs[i].op)
				jobs[i].op->run();
			else
				refuse(jobs[i].no);
		}
	return 0;
}
