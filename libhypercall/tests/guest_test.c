// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/*
 * The guest side against a fake host: this process is the guest, its GS base
 * points at a vCPU page, and the gate is fake_gate.S. Runs the real stubs,
 * entry code and runtime.
 *
 * Built without -fsanitize=address, which does not know the stacks used here.
 */
#include <asm/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unwind.h>

#include <hypercall/batch.h>
#include <hypercall/guest.h>
#include <hypercall/repeat.h>
#include <hypercall/ring.h>
#include <hypercall/smp.h>

#include "unit.h"

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(CONSOLE) | KEEL_NEEDS(TRAP), KEEL_NEEDS(MMU) | KEEL_NEEDS(STATS), 0,
		 KEEL_U64(1) << KEEL_F1_CLOCK_PAGE | KEEL_U64(1) << KEEL_F1_SMP);

/* What keel.ld provides. VA and GPA of the image differ here, see KEEL_VA and KEEL_PA in the makefile. */
extern char __keel_va[], __keel_pa[];
char __keel_notes_start[100];
__asm__(".globl __keel_notes_end\n.set __keel_notes_end, __keel_notes_start + 100");
static void constructor(void);
void (*const __keel_init_start[])(void) = { constructor };
__asm__(".globl __keel_init_end\n.set __keel_init_end, __keel_init_start + 8");

void keel_guest_start(const struct keel_start *start);

/* fake_gate.S */
void fake_gate(void);
void fake_enter(keel_u64 entry, const void *slot, keel_u64 rsp);
void fake_resume(const struct keel_frame *frame) __attribute__((noreturn));
extern char fake_resumed[];
extern keel_u64 fake_regs[17];
extern keel_u8 fake_xmm[256];

struct fake_call {
	keel_u64 id;
	keel_u64 arg[5];
};

struct keel_ret fake_call(const struct fake_call *c);

#define LOG_MAX 256
static struct host {
	struct keel_vcpu page;
	struct keel_clock clock;
	struct {
		struct keel_start head;
		struct keel_chunk abi_head;
		struct keel_abi_pages abi;
	} start;

	struct fake_call log[LOG_MAX];
	unsigned int calls;
	struct keel_ret answer; /* to calls without an answer of their own */
	keel_u64 refuse_id;	/* this call gets refuse_status */
	keel_s64 refuse_status;
	keel_u64 offered[2];
	struct {
		keel_u64 entry, stack;
	} trap[KEEL_CLASS_COUNT];
	struct keel_frame returned; /* by the last trap_return */
	keel_u8 returned_if;	    /* IF when it was called */
	keel_u8 returned_state;
	keel_u64 now;
	keel_u64 bound;	     /* units of work one bounded call does */
	keel_u64 fail_at;    /* unit that fails with NOENT, counted from 1; 0 = none */
	keel_u64 worked;     /* units done so far */
	unsigned int again;  /* this many times a call that can be is AGAIN */
	unsigned int events; /* this many times user_enter comes back with one */
	keel_u64 nonsense;   /* a value to answer bounded calls with instead; 0 = none */

	char console[4096]; /* by console_write */
	size_t console_len;
	struct keel_console_ring *ring; /* by console_setup */
	struct keel_ring_end ring_out;
	char ring_text[8192];
	size_t ring_len;
	unsigned int yields;

	jmp_buf end; /* of the partition */
	struct fake_call last;
	char message[KEEL_CRASH_MESSAGE_MAX + 1];
} host __attribute__((aligned(4096)));

static void *va_of(keel_u64 gpa)
{
	return (void *)(gpa - (keel_u64)__keel_pa + (keel_u64)__keel_va);
}

static void drain_ring(void)
{
	int n = keel_ring_pop(&host.ring_out, host.ring_text + host.ring_len, sizeof(host.ring_text) - host.ring_len);

	assert_true(n >= 0);
	host.ring_len += (size_t)n;
}

static struct keel_ret trap_return(keel_u64 class)
{
	struct keel_frame *slot = &host.page.slot[class].frame;

	host.returned_if = host.page.if_enabled;
	host.returned_state = (keel_u8)slot->state;
	host.returned = *slot;
	if (slot->state != KEEL_SLOT_RETURN)
		return (struct keel_ret){ KEEL_STATUS(KEEL_E_STATE, KEEL_AT_FIELD(1)), 0 };
	if (slot->mode != KEEL_MODE_KERNEL)
		return (struct keel_ret){ KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(4)), 0 };
	slot->state = KEEL_SLOT_FREE;
	host.page.if_enabled = (host.returned.rflags & KEEL_RFLAGS_IF) != 0;
	fake_resume(&host.returned);
}

/* A call that does at most host.bound of `units`. */
static struct keel_ret bounded(keel_u64 units)
{
	keel_u64 n = units < host.bound ? units : host.bound;

	if (host.nonsense)
		return (struct keel_ret){ 0, host.nonsense - 1 };
	if (host.fail_at && host.worked + n >= host.fail_at) {
		n = host.fail_at - 1 - host.worked;
		host.worked += n;
		return (struct keel_ret){ KEEL_STATUS(KEEL_E_NOENT, 0), n };
	}
	host.worked += n;
	return (struct keel_ret){ 0, n };
}

static struct keel_ret multicall(const keel_u64 *a)
{
	struct keel_multicall_result *result = va_of(a[2]);
	const struct keel_multicall *entry = va_of(a[0]);
	keel_u64 i;

	for (i = 0; i < a[1] && i < host.bound; i++) {
		result[i].status = entry[i].id == 0xbad ? -KEEL_E_NOSYS : 0;
		result[i].cookie = entry[i].cookie;
		if (result[i].status && a[3] & KEEL_MULTICALL_STOP_ON_ERROR)
			return (struct keel_ret){ 0, i + 1 };
	}
	return (struct keel_ret){ 0, i };
}

/* Called by the gate, on the gate's stack. */
struct keel_ret fake_call(const struct fake_call *c)
{
	const keel_u64 *a = c->arg;
	struct keel_ret ok = { 0, 0 };

	if (host.calls < LOG_MAX)
		host.log[host.calls] = *c;
	host.calls++;
	if (c->id == host.refuse_id)
		return (struct keel_ret){ host.refuse_status, 0 };
	switch (c->id) {
	case KEEL_CALL_BASE_FEATURES:
		return (struct keel_ret){ 0, host.offered[a[0]] };
	case KEEL_CALL_BASE_ACCEPT:
	case KEEL_CALL_BASE_FREEZE:
	case KEEL_CALL_EVENT_UNMASK:
	case KEEL_CALL_CONSOLE_KICK:
		if (c->id == KEEL_CALL_CONSOLE_KICK)
			drain_ring();
		return ok;
	case KEEL_CALL_VCPU_YIELD:
		host.yields++;
		if (host.ring)
			drain_ring();
		return ok;
	case KEEL_CALL_TRAP_SET:
		host.trap[a[0]].entry = a[1];
		host.trap[a[0]].stack = a[2];
		return ok;
	case KEEL_CALL_TRAP_RETURN:
		assert_true(!a[1] && !a[2] && !a[3] && !a[4]);
		return trap_return(a[0]);
	case KEEL_CALL_EVENT_BIND:
		return (struct keel_ret){ 0, KEEL_PORT(3, 0, 1024 * a[1] + 10 + a[0]) };
	case KEEL_CALL_TIME_READ:
		return (struct keel_ret){ 0, host.now };
	case KEEL_CALL_CONSOLE_WRITE:
		assert_in_range(a[0], 1, 32);
		assert_true(host.console_len + a[0] < sizeof(host.console));
		memcpy(host.console + host.console_len, a + 1, a[0]);
		host.console_len += a[0];
		return ok;
	case KEEL_CALL_CONSOLE_SETUP:
		assert_int_equal(a[1], KEEL_CONSOLE_RING_SIZE);
		host.ring = va_of(a[0]);
		keel_ring_attach(&host.ring_out, host.ring, KEEL_RING_HOST_OUT);
		return ok;
	case KEEL_CALL_MEMORY_RELEASE:
	case KEEL_CALL_MEMORY_POPULATE:
		return bounded(a[1] / 4096);
	case KEEL_CALL_HARVEST_START:
	case KEEL_CALL_HARVEST_STOP:
		return bounded(a[2] / 4096);
	case KEEL_CALL_HARVEST_COLLECT: {
		struct keel_ret ret = bounded(a[2] / 4096);

		/* Each fourth page was written. */
		ret.value |= ret.value / 4 << 32;
		return ret;
	}
	case KEEL_CALL_EVENT_BATCH:
		return bounded(a[1]);
	case KEEL_CALL_AS_CLONE:
	case KEEL_CALL_AS_DESTROY:
		if (host.again) {
			host.again--;
			return (struct keel_ret){ -KEEL_E_AGAIN, 0 };
		}
		return host.answer;
	case KEEL_CALL_USER_ENTER:
		if (host.events) {
			host.events--;
			return (struct keel_ret){ 0, KEEL_USER_EVENT };
		}
		return host.answer;
	case KEEL_CALL_VCPU_STOP:
		if (a[0] == keel_vcpu_id()) {
			host.last = *c;
			longjmp(host.end, 1);
		}
		if (host.again) {
			host.again--;
			return (struct keel_ret){ -KEEL_E_AGAIN, 0 };
		}
		return host.answer;
	case KEEL_CALL_MULTICALL:
		return multicall(a);
	case KEEL_CALL_CRASH:
		if (a[2])
			memcpy(host.message, va_of(a[1]), a[2]);
		host.message[a[2]] = '\0';
		/* fallthrough */
	case KEEL_CALL_BASE_SHUTDOWN:
		host.last = *c;
		longjmp(host.end, 1);
	}
	return host.answer;
}

static int fresh(void **state)
{
	(void)state;
	memset(&host, 0, sizeof(host));
	host.page.self = (keel_u64)&host.page;
	host.page.gate = (keel_u64)fake_gate;
	host.start.head = (struct keel_start){ KEEL_START_MAGIC, KEEL_START_VERSION, 1, sizeof(host.start), 0 };
	host.start.abi_head =
		(struct keel_chunk){ KEEL_CHUNK_ABI, sizeof(host.start.abi) + sizeof(host.start.abi_head) };
	host.start.abi.clock_va = (keel_u64)&host.clock;
	host.page.start = (keel_u64)&host.start;
	host.offered[0] = (KEEL_U64(1) << KEEL_EXT_COUNT) - 1;
	host.offered[1] = 0xff;
	host.now = 12345;
	keel_entry_save_fp(0, 0);
	memcpy(__keel_notes_start, &keel_note_abi, 28);
	memcpy(__keel_notes_start + 28, &keel_note_required, 36);
	memcpy(__keel_notes_start + 64, &keel_note_optional, 36);
	return syscall(SYS_arch_prctl, ARCH_SET_GS, &host.page) ? -1 : 0;
}

/* Does the partition end in this statement? */
#define ENDS(statement)               \
	(setjmp(host.end) ? true : ({ \
		statement;            \
		false;                \
	}))

static void assert_call(unsigned int n, keel_u64 id, keel_u64 a1, keel_u64 a2, keel_u64 a3, keel_u64 a4, keel_u64 a5)
{
	const struct fake_call want = { id, { a1, a2, a3, a4, a5 } };

	assert_true(n < host.calls);
	assert_memory_equal(&host.log[n], &want, sizeof(want));
}

/* The gate */

static void calls_carry_id_and_arguments(void **state)
{
	(void)state;
	keel_call0(0xa0);
	keel_call1(0xa1, 1);
	keel_call2(0xa2, 1, 2);
	keel_call3(0xa3, 1, 2, 3);
	keel_call4(0xa4, 1, 2, 3, 4);
	keel_call5(KEEL_U64(0xf00000a5), 1, 2, 3, 4, KEEL_U64(0xffffffffffffffff));
	assert_call(0, 0xa0, 0, 0, 0, 0, 0);
	assert_call(1, 0xa1, 1, 0, 0, 0, 0);
	assert_call(2, 0xa2, 1, 2, 0, 0, 0);
	assert_call(3, 0xa3, 1, 2, 3, 0, 0);
	assert_call(4, 0xa4, 1, 2, 3, 4, 0);
	assert_call(5, KEEL_U64(0xf00000a5), 1, 2, 3, 4, KEEL_U64(0xffffffffffffffff));
}

static void wrappers_are_typed(void **state)
{
	(void)state;
	keel_mmu_batch(keel_as(7), keel_gpa(0x8000), 9, 10);
	keel_event_send(keel_port(0x12345678));
	keel_harvest_collect(keel_as(1), 2, 3, keel_gpa(4));
	keel_time_set_timer(KEEL_TIME_NEVER);
	keel_console_write(1, 2, 3, 4, 5);
	keel_stats_read(keel_gpa(1), 2, 3);
	assert_call(0, KEEL_CALL_MMU_BATCH, 7, 0x8000, 9, 10, 0);
	assert_call(1, KEEL_CALL_EVENT_SEND, 0x12345678, 0, 0, 0, 0);
	assert_call(2, KEEL_CALL_HARVEST_COLLECT, 1, 2, 3, 4, 0);
	assert_call(3, KEEL_CALL_TIME_SET_TIMER, KEEL_TIME_NEVER, 0, 0, 0, 0);
	assert_call(4, KEEL_CALL_CONSOLE_WRITE, 1, 2, 3, 4, 5);
	assert_call(5, KEEL_CALL_STATS_READ, 1, 2, 3, 0, 0);
}

static void status_and_value_come_back(void **state)
{
	struct keel_ret r;

	(void)state;
	host.answer = (struct keel_ret){ KEEL_STATUS_BIT(KEEL_E_INVAL, 2, 5), KEEL_U64(0xfedcba9876543210) };
	r = keel_base_nop();
	assert_int_equal(r.status, KEEL_STATUS_BIT(KEEL_E_INVAL, 2, 5));
	assert_int_equal(r.value, KEEL_U64(0xfedcba9876543210));
}

/* A leaf but for the call, with enough live locals that they would sit in the red zone. */
static __attribute__((noinline)) keel_u64 locals_around_a_call(volatile keel_u64 *in)
{
	volatile keel_u64 local[12];
	keel_u64 sum = 0;

	for (int i = 0; i < 12; i++)
		local[i] = in[i];
	keel_base_nop();
	for (int i = 0; i < 12; i++)
		sum = sum * 3 + local[i];
	return sum;
}

static void the_caller_s_stack_survives(void **state)
{
	volatile keel_u64 in[12];
	keel_u64 want = 0;

	(void)state;
	for (int i = 0; i < 12; i++) {
		in[i] = (keel_u64)i * 77;
		want = want * 3 + in[i];
	}
	assert_int_equal(locals_around_a_call(in), want);
}

static void the_vcpu_page_is_found(void **state)
{
	(void)state;
	assert_ptr_equal(keel_vcpu_page(), &host.page);
}

/* The virtual interrupt flag */

static void irq_flag(void **state)
{
	(void)state;
	keel_irq_enable();
	assert_int_equal(host.page.if_enabled, 1);
	assert_true(keel_irq_enabled());
	assert_true(keel_irq_save());
	assert_int_equal(host.page.if_enabled, 0);
	assert_false(keel_irq_save());
	keel_irq_restore(false);
	assert_false(keel_irq_enabled());
	keel_irq_restore(true);
	assert_true(keel_irq_enabled());
	keel_irq_disable();
	assert_false(keel_irq_enabled());
	assert_int_equal(host.calls, 0);
	host.page.pending = KEEL_U64(1) << 63;
	keel_irq_disable();
	keel_irq_restore(false);
	assert_int_equal(host.calls, 0);
	keel_irq_enable();
	assert_int_equal(host.calls, 1);
	assert_call(0, KEEL_CALL_TRAP_DELIVER, 0, 0, 0, 0, 0);
}

/* Entry stubs */

static keel_u8 guest_stack[65536] __attribute__((aligned(4096)));
static keel_u8 other_stack[65536] __attribute__((aligned(4096)));
#define GUEST_RSP ((keel_u64)guest_stack + 40008) /* not aligned to 16 */

/* Deliver a frame like the host, and run until it is resumed. Returns the stack pointer the stub got. */
static keel_u64 deliver(unsigned int class, keel_u64 rsp)
{
	struct keel_frame *f = &host.page.slot[class].frame;
	keel_u64 sp = host.trap[class].stack ? host.trap[class].stack & ~KEEL_U64(15) : (rsp - 128) & ~KEEL_U64(15);

	assert_int_equal(f->state, KEEL_SLOT_FREE);
	memset((void *)(rsp - 128), 0x77, 128);
	for (int i = 0; i < 15; i++)
		(&f->rax)[i] = KEEL_U64(0x1111111111111111) * (keel_u64)(i + 1);
	f->class_ = class;
	f->vector = class == KEEL_CLASS_TRAP ? KEEL_VEC_PF : 0;
	f->mode = KEEL_MODE_KERNEL;
	f->error = KEEL_PF_W;
	f->addr = 0xdead000;
	f->rip = (keel_u64)fake_resumed;
	f->rsp = rsp;
	f->rflags = 0x2 | KEEL_RFLAGS_IF | 0x8d5; /* CF PF AF ZF SF OF */
	f->reserved[0] = f->reserved[1] = 0;
	f->state = KEEL_SLOT_FULL;
	host.page.if_enabled = 0;
	fake_enter(host.trap[class].entry, f, sp);
	return sp;
}

/* Is what was resumed what was interrupted? */
static void assert_untouched(keel_u64 rsp)
{
	const keel_u8 *red = (const keel_u8 *)rsp - 128;

	assert_int_equal(fake_regs[0], rsp);
	assert_int_equal(fake_regs[1] & 0xcd5, 0x8d5);
	for (int i = 0; i < 15; i++)
		assert_int_equal(fake_regs[2 + i], KEEL_U64(0x1111111111111111) * (keel_u64)(i + 1));
	for (int i = 0; i < 128; i++)
		assert_int_equal(red[i], 0x77);
}

static struct {
	unsigned int calls, depth, deepest;
	struct keel_frame frame;
	const struct keel_frame *at;
	keel_u8 slot_state, irq;
} seen;

static void see(struct keel_frame *f)
{
	seen.calls++;
	seen.frame = *f;
	seen.at = f;
	seen.slot_state = (keel_u8)host.page.slot[f->class_].frame.state;
	seen.irq = host.page.if_enabled;
}

static void each_class_is_entered_and_resumed(void **state)
{
	(void)state;
	for (unsigned int class = 0; class < KEEL_CLASS_COUNT; class ++)
		for (int own_stack = 0; own_stack < 2; own_stack++) {
			memset(&seen, 0, sizeof(seen));
			assert_int_equal(keel_entry_install(class, see,
							    own_stack ? other_stack + sizeof(other_stack) : NULL),
					 0);
			deliver(class, GUEST_RSP);
			assert_int_equal(seen.calls, 1);
			assert_int_equal(seen.slot_state, KEEL_SLOT_FREE);
			assert_int_equal(seen.irq, 0);
			assert_int_equal(seen.frame.class_, class);
			assert_int_equal(seen.frame.addr, 0xdead000);
			assert_int_equal(seen.frame.error, KEEL_PF_W);
			assert_int_equal(seen.frame.r15, KEEL_U64(0xffffffffffffffff));
			assert_int_equal(seen.frame.rip, (keel_u64)fake_resumed);
			if (own_stack)
				assert_in_range((keel_u64)seen.at, (keel_u64)other_stack,
						(keel_u64)other_stack + sizeof(other_stack));
			else
				assert_in_range((keel_u64)seen.at, (keel_u64)guest_stack, GUEST_RSP - 128);
			assert_untouched(GUEST_RSP);
			assert_int_equal(host.returned_if, 0);
			assert_int_equal(host.page.if_enabled, 1); /* as in the frame */
		}
}

static void any_stack_alignment_will_do(void **state)
{
	(void)state;
	keel_entry_install(KEEL_CLASS_TRAP, see, NULL);
	for (keel_u64 off = 0; off < 16; off++) {
		deliver(KEEL_CLASS_TRAP, GUEST_RSP + off);
		assert_untouched(GUEST_RSP + off);
		assert_int_equal((keel_u64)seen.at % 16, 0);
	}
}

static void change(struct keel_frame *f)
{
	f->rax = 0xabc;
	f->rsp -= 0x1000;
	f->rflags &= ~(keel_u64)(KEEL_RFLAGS_IF | 1);
	keel_irq_enable(); /* a handler may; the way back is still made with IF off */
}

static void changes_to_the_frame_are_resumed(void **state)
{
	(void)state;
	keel_entry_install(KEEL_CLASS_TRAP, change, NULL);
	deliver(KEEL_CLASS_TRAP, GUEST_RSP);
	assert_int_equal(fake_regs[0], GUEST_RSP - 0x1000);
	assert_int_equal(fake_regs[1] & 1, 0);
	assert_int_equal(fake_regs[2], 0xabc);
	assert_int_equal(host.returned_if, 0);
	assert_int_equal(host.page.if_enabled, 0);
}

static void nest(struct keel_frame *f)
{
	struct keel_frame before = *f;

	if (++seen.depth > seen.deepest)
		seen.deepest = seen.depth;
	if (seen.depth < 8)
		deliver(KEEL_CLASS_TRAP, ((keel_u64)__builtin_frame_address(0) - 512) & ~KEEL_U64(7));
	seen.depth--;
	assert_memory_equal(f, &before, sizeof(before));
}

static void traps_nest_on_the_interrupted_stack(void **state)
{
	(void)state;
	memset(&seen, 0, sizeof(seen));
	keel_trap_handler(nest);
	deliver(KEEL_CLASS_TRAP, GUEST_RSP);
	assert_int_equal(seen.deepest, 8);
	assert_untouched(GUEST_RSP);
}

static void trap_in_event(struct keel_frame *f)
{
	(void)f;
	deliver(KEEL_CLASS_TRAP, ((keel_u64)__builtin_frame_address(0) - 512) & ~KEEL_U64(7));
	assert_int_equal(seen.calls, 1);
}

static void a_trap_within_an_event(void **state)
{
	(void)state;
	memset(&seen, 0, sizeof(seen));
	keel_entry_install(KEEL_CLASS_TRAP, see, NULL);
	keel_entry_install(KEEL_CLASS_EVENT, trap_in_event, NULL);
	deliver(KEEL_CLASS_EVENT, GUEST_RSP);
	assert_untouched(GUEST_RSP);
}

static void no_handler_no_entry(void **state)
{
	(void)state;
	keel_entry_install(KEEL_CLASS_TRAP, see, other_stack);
	assert_int_not_equal(host.trap[KEEL_CLASS_TRAP].entry, 0);
	assert_int_equal(keel_trap_handler(NULL), 0);
	assert_int_equal(host.trap[KEEL_CLASS_TRAP].entry, 0);
	assert_int_equal(host.trap[KEEL_CLASS_TRAP].stack, 0);
	assert_int_equal(keel_entry_install(KEEL_CLASS_COUNT, see, NULL), KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(1)));
	assert_int_equal(host.calls, 2);
}

static void a_refused_install_keeps_the_old_handler(void **state)
{
	(void)state;
	memset(&seen, 0, sizeof(seen));
	keel_entry_install(KEEL_CLASS_TRAP, see, NULL);
	host.refuse_id = KEEL_CALL_TRAP_SET;
	host.refuse_status = KEEL_STATUS(KEEL_E_RANGE, 3);
	assert_int_equal(keel_entry_install(KEEL_CLASS_TRAP, nest, NULL), KEEL_STATUS(KEEL_E_RANGE, 3));
	assert_int_equal(keel_entry_install(KEEL_CLASS_TRAP, NULL, NULL), KEEL_STATUS(KEEL_E_RANGE, 3));
	deliver(KEEL_CLASS_TRAP, GUEST_RSP);
	assert_int_equal(seen.calls, 1);
}

static void spoil(struct keel_frame *f)
{
	f->mode = KEEL_MODE_USER;
}

static void a_frame_that_cannot_be_resumed_is_a_crash(void **state)
{
	(void)state;
	keel_entry_install(KEEL_CLASS_TRAP, spoil, NULL);
	assert_true(ENDS(deliver(KEEL_CLASS_TRAP, GUEST_RSP)));
	assert_int_equal(host.last.id, KEEL_CALL_CRASH);
	assert_string_equal(host.message, "frame of class 0 cannot be resumed: INVAL (field 4)");
	assert_non_null(strstr(host.console, "trap vector 14 error 0x2 address 0xdead000"));
}

static __attribute__((target("sse2"))) void clobber_sse(struct keel_frame *f)
{
	(void)f;
	__asm__ volatile("pxor %%xmm0, %%xmm0; pxor %%xmm7, %%xmm7; pxor %%xmm15, %%xmm15"
			 :
			 :
			 : "xmm0", "xmm7", "xmm15");
}

static void fp_state_is_kept_on_request(void **state)
{
	keel_u8 want[256];
	keel_u32 a, b, c, d;

	(void)state;
	for (int i = 0; i < 256; i++)
		want[i] = (keel_u8)(i * 5 + 1);
	keel_entry_install(KEEL_CLASS_EVENT, clobber_sse, NULL);
	memcpy(fake_xmm, want, sizeof(want));
	deliver(KEEL_CLASS_EVENT, GUEST_RSP);
	assert_memory_not_equal(fake_xmm, want, sizeof(want));

	__asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(13), "c"(0));
	assert_true(b >= 576 && b < 16384);
	keel_entry_save_fp(((keel_u64)d << 32 | a) & 7, b);
	memcpy(fake_xmm, want, sizeof(want));
	deliver(KEEL_CLASS_EVENT, GUEST_RSP);
	assert_memory_equal(fake_xmm, want, sizeof(want));
	assert_untouched(GUEST_RSP);
	keel_entry_save_fp(0, 0);
}

/* Backtraces through a trap: by frame pointers and by the stubs' unwind rules. */

static keel_u64 trace[32];
static size_t traces;
static keel_u64 unwound_cfa, unwound_rbx, unwound_r9;

static _Unwind_Reason_Code step(struct _Unwind_Context *ctx, void *arg)
{
	(void)arg;
	if (_Unwind_GetIP(ctx) == (keel_u64)fake_resumed) {
		unwound_cfa = _Unwind_GetCFA(ctx);
		unwound_rbx = _Unwind_GetGR(ctx, 3);
		unwound_r9 = _Unwind_GetGR(ctx, 9);
		return _URC_END_OF_STACK;
	}
	return _URC_NO_REASON;
}

static void backtrace(struct keel_frame *f)
{
	/* The interrupted code's own frame: one caller, then the end. */
	static keel_u64 outer[2] = { 0, 0x4711 };

	f->rbp = (keel_u64)outer;
	/* The stub pushed it before; what it pushed is what a walk sees. */
	((keel_u64 *)f)[-2] = f->rbp;
	traces = keel_backtrace((keel_u64)__builtin_frame_address(0), trace, 32);
	_Unwind_Backtrace(step, NULL);
}

static void backtraces_pass_through_the_stub(void **state)
{
	static keel_u64 bad[2] = { 8, 1 };

	(void)state;
	unwound_cfa = 0;
	keel_entry_install(KEEL_CLASS_TRAP, backtrace, NULL);
	deliver(KEEL_CLASS_TRAP, GUEST_RSP);
	assert_int_equal(traces, 3); /* in the stub, interrupted, its caller */
	assert_int_equal(trace[1], (keel_u64)fake_resumed);
	assert_int_equal(trace[2], 0x4711);
	assert_int_equal(unwound_cfa, GUEST_RSP);
	assert_int_equal(unwound_rbx, KEEL_U64(0x2222222222222222));
	assert_int_equal(unwound_r9, KEEL_U64(0x9999999999999999));
	assert_int_equal(keel_backtrace(0, trace, 32), 0);
	assert_int_equal(keel_backtrace((keel_u64)bad, trace, 32), 1);
	assert_int_equal(keel_backtrace((keel_u64)bad | 1, trace, 32), 0);
	assert_int_equal(keel_backtrace(KEEL_VA_END, trace, 32), 0);
}

/* The runtime */

static bool constructed;
static int exit_code;
static void (*body)(void);

static void constructor(void)
{
	constructed = true;
}

int keel_main(const struct keel_start *start)
{
	assert_ptr_equal(start, &host.start);
	assert_ptr_equal(keel_start_info(), start);
	if (body)
		body();
	return exit_code;
}

static bool boot(void (*b)(void), int code)
{
	body = b;
	exit_code = code;
	return ENDS(keel_guest_start(&host.start.head));
}

static void start_negotiates_and_freezes(void **state)
{
	keel_u64 required = KEEL_NEEDS(BASE) | KEEL_NEEDS(CONSOLE) | KEEL_NEEDS(TRAP);

	(void)state;
	constructed = false;
	/* Of the optional ones MMU is offered, STATS is not. */
	host.offered[0] &= ~KEEL_NEEDS(STATS);
	assert_true(boot(NULL, 42));
	assert_true(constructed);
	assert_int_equal(host.calls, 6);
	assert_call(0, KEEL_CALL_BASE_FEATURES, 0, 0, 0, 0, 0);
	assert_call(1, KEEL_CALL_BASE_ACCEPT, 0, required | KEEL_NEEDS(MMU), 0, 0, 0);
	assert_call(2, KEEL_CALL_BASE_FEATURES, 1, 0, 0, 0, 0);
	assert_call(3, KEEL_CALL_BASE_ACCEPT, 1, KEEL_U64(1) << KEEL_F1_CLOCK_PAGE | KEEL_U64(1) << KEEL_F1_SMP, 0, 0,
		    0);
	assert_call(4, KEEL_CALL_BASE_FREEZE, 0, 0, 0, 0, 0);
	assert_call(5, KEEL_CALL_BASE_SHUTDOWN, KEEL_SHUTDOWN_POWEROFF, 42, 0, 0, 0);
	assert_true(keel_have(KEEL_EXT_MMU));
	assert_false(keel_have(KEEL_EXT_STATS));
	assert_false(keel_have(KEEL_EXT_USER));
	assert_false(keel_have(64));
	assert_true(keel_have_refinement(KEEL_F1_SMP));
	assert_false(keel_have_refinement(KEEL_F1_HARVEST_ACCESSED));
}

static void a_required_feature_is_missing(void **state)
{
	(void)state;
	host.offered[0] &= ~KEEL_NEEDS(TRAP);
	assert_true(boot(NULL, 0));
	assert_int_equal(host.last.id, KEEL_CALL_CRASH);
	assert_string_equal(host.message, "features 0x20 of word 0 are required and not offered");
}

static void a_bad_start_info_ends_it(void **state)
{
	(void)state;
	host.start.head.chunks = 2;
	assert_true(boot(NULL, 0));
	assert_int_equal(host.last.id, KEEL_CALL_CRASH);
	assert_string_equal(host.message, "start info: INVAL (field 3)");
}

static void a_refused_call_ends_it(void **state)
{
	(void)state;
	host.refuse_id = KEEL_CALL_BASE_FREEZE;
	host.refuse_status = KEEL_STATUS(KEEL_E_STATE, 0);
	assert_true(boot(NULL, 0));
	assert_string_equal(host.message, "keel_base_freeze(): STATE");
}

static void restart(void)
{
	keel_restart(7);
}

static void exit_codes(void **state)
{
	static const int code[][2] = { { 0, 0 }, { 1, 1 }, { 123, 123 }, { 124, 123 }, { 255, 123 }, { -1, 123 } };

	(void)state;
	for (size_t i = 0; i < keel_array_size(code); i++) {
		assert_true(boot(NULL, code[i][0]));
		assert_int_equal(host.last.id, KEEL_CALL_BASE_SHUTDOWN);
		assert_int_equal(host.last.arg[1], code[i][1]);
	}
	assert_true(boot(restart, 0));
	assert_int_equal(host.last.arg[0], KEEL_SHUTDOWN_RESTART);
	assert_int_equal(host.last.arg[1], 7);
}

static void panic(void)
{
	keel_irq_enable();
	keel_panic("%s is %d", "it", 5);
}

static void panic_leaves_last_words(void **state)
{
	(void)state;
	assert_true(boot(panic, 0));
	assert_int_equal(host.last.id, KEEL_CALL_CRASH);
	assert_int_equal(host.last.arg[0], KEEL_CRASH_PANIC);
	assert_int_equal(host.last.arg[2], 7);
	assert_string_equal(host.message, "it is 5");
	assert_string_equal(host.console, "panic: it is 5\n");
	assert_int_equal(host.page.if_enabled, 0);
}

static void addresses(void **state)
{
	static char here;

	(void)state;
	assert_int_equal(keel_gpa_of(&here).v, (keel_u64)&here - (keel_u64)__keel_va + (keel_u64)__keel_pa);
	assert_int_not_equal(keel_gpa_of(&here).v, (keel_u64)&here);
}

static void early_output_is_packed(void **state)
{
	char text[101];

	(void)state;
	for (int i = 0; i < 100; i++)
		text[i] = (char)('0' + i % 75);
	text[100] = '\0';
	keel_write(text, 100);
	assert_int_equal(host.calls, 4);
	assert_int_equal(host.log[3].arg[0], 4);
	assert_int_equal(host.log[3].arg[2], 0); /* nothing beyond the text */
	assert_string_equal(host.console, text);
	keel_write(text, 0);
	assert_int_equal(host.calls, 4);
	keel_irq_enable();
	keel_puts("x");
	assert_true(keel_irq_enabled());
}

/* Once on, the ring stays on: the last of the console tests. */
static void the_ring_takes_over(void **state)
{
	char big[5000];
	char in[8];
	struct keel_ring_end host_in;

	(void)state;
	assert_int_equal(keel_read(in, sizeof(in)), 0);
	host.refuse_id = KEEL_CALL_CONSOLE_SETUP;
	host.refuse_status = KEEL_STATUS(KEEL_E_NOTSUP, 0);
	assert_int_equal(keel_console_init(), KEEL_STATUS(KEEL_E_NOTSUP, 0));
	keel_write("early", 5);
	assert_string_equal(host.console, "early");
	host.refuse_id = 0;
	assert_int_equal(keel_console_init(), 0);
	assert_int_equal(keel_console_init(), 0);
	host.calls = 0;
	keel_write("hello ", 6);
	assert_int_equal(host.calls, 0); /* the host did not ask for kicks */
	host.ring->out_wake = 1;
	keel_write("world", 5);
	assert_int_equal(host.calls, 1);
	assert_call(0, KEEL_CALL_CONSOLE_KICK, 0, 0, 0, 0, 0);
	assert_int_equal(host.ring_len, 11);
	assert_memory_equal(host.ring_text, "hello world", 11);
	/* More than fits: waits for the host instead of dropping. */
	keel_ring_disarm(host.ring);
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)('a' + i % 26);
	host.ring_len = 0;
	keel_write(big, sizeof(big));
	drain_ring();
	assert_true(host.yields > 0);
	assert_int_equal(host.ring_len, sizeof(big));
	assert_memory_equal(host.ring_text, big, sizeof(big));
	/* Input. */
	keel_ring_attach(&host_in, host.ring, KEEL_RING_HOST_IN);
	keel_ring_push(&host_in, "abc", 3);
	assert_int_equal(keel_read(in, 2), 2);
	assert_int_equal(keel_read(in + 2, 6), 1);
	assert_memory_equal(in, "abc", 3);
	/* A host that breaks the ring loses it: output goes the early way. */
	host.console_len = 0;
	host.ring->out_cons += 0x10000;
	keel_write("still here", 10);
	assert_memory_equal(host.console, "still here", 10);
}

static unsigned int fired, fired_bit;
static void *fired_arg;

static void on_event(void *arg, keel_u32 bit)
{
	fired++;
	fired_bit = bit;
	fired_arg = arg;
	assert_false(keel_irq_enabled());
}

static void events_reach_their_handlers(void **state)
{
	static int cookie;
	keel_u64 spurious = keel_event_spurious();

	(void)state;
	fired = 0;
	assert_int_equal(keel_event_init(), 0);
	assert_int_equal(keel_timer_init(on_event, &cookie), 0);
	assert_int_equal(host.log[host.calls - 1].id, KEEL_CALL_EVENT_UNMASK);
	assert_int_equal(host.log[host.calls - 1].arg[0], KEEL_PORT(3, 0, 10)); /* the whole handle */
	assert_true(keel_ev_send(&host.page, 10));
	keel_ev_send(&host.page, 500);
	deliver(KEEL_CLASS_EVENT, GUEST_RSP);
	assert_untouched(GUEST_RSP);
	assert_int_equal(fired, 1);
	assert_int_equal(fired_bit, 10);
	assert_ptr_equal(fired_arg, &cookie);
	assert_int_equal(keel_event_spurious(), spurious + 1);
	assert_int_equal(host.page.pending, 0);
	keel_irq_disable();
	keel_event_handler(10, NULL, NULL);
	keel_ev_send(&host.page, 10);
	assert_int_equal(keel_event_dispatch(), 1);
	assert_int_equal(fired, 1);
	assert_int_equal(keel_timer_at(99), 0);
	assert_call(host.calls - 1, KEEL_CALL_TIME_SET_TIMER, 99, 0, 0, 0, 0);
	assert_int_equal(keel_console_on_input(on_event, NULL), 0);
	keel_ev_send(&host.page, 3 * 1024 + 11);
	keel_event_dispatch();
	assert_int_equal(fired_bit, 3 * 1024 + 11);
	host.refuse_id = KEEL_CALL_EVENT_BIND;
	host.refuse_status = KEEL_STATUS(KEEL_E_BUSY, 1);
	assert_int_equal(keel_timer_init(on_event, NULL), KEEL_STATUS(KEEL_E_BUSY, 1));
	assert_int_equal(keel_console_on_input(on_event, NULL), KEEL_STATUS(KEEL_E_BUSY, 1));
}

static void waiting_leaves_irqs_on(void **state)
{
	(void)state;
	keel_wait();
	assert_call(0, KEEL_CALL_VCPU_WAIT, KEEL_TIME_NEVER, 0, 0, 0, 0);
	assert_int_equal(host.calls, 1);
	assert_true(keel_irq_enabled());
	keel_irq_disable();
	host.page.pending = 1;
	keel_wait();
	assert_call(2, KEEL_CALL_TRAP_DELIVER, 0, 0, 0, 0, 0);
}

static keel_u64 time_in_guest, wall_in_guest;

static void read_time(void)
{
	time_in_guest = keel_time();
	wall_in_guest = keel_wall_time();
}

static void time_comes_from_the_page_or_a_call(void **state)
{
	(void)state;
	assert_true(boot(read_time, 0));
	assert_int_equal(time_in_guest, 12345);
	assert_int_equal(wall_in_guest, 0);
	host.clock = (struct keel_clock){
		.flags = KEEL_CLOCK_VALID, .base_tsc = ~KEEL_U64(0), .base_ns = 777, .wall_ns = 1000
	};
	host.refuse_id = KEEL_CALL_TIME_READ;
	assert_true(boot(read_time, 0));
	assert_int_equal(time_in_guest, 777);
	assert_int_equal(wall_in_guest, 1777);
}

static void batches_go_through_the_gate(void **state)
{
	static struct keel_mmu_record recs[4];
	struct keel_batch b;

	(void)state;
	keel_batch_init(&b, recs, keel_gpa_of(recs), 4, keel_as(0), keel_batch_submit, NULL);
	keel_batch_unmap(&b, 0x10000000, 4096);
	host.answer.value = 1;
	assert_int_equal(keel_batch_flush(&b), 0);
	assert_call(0, KEEL_CALL_MMU_BATCH, 0, keel_gpa_of(recs).v, 1, 0, 0);
}

/* Bounded calls, repeated */

static void assert_ret(struct keel_ret ret, keel_s64 status, keel_u64 value)
{
	assert_int_equal(ret.status, status);
	assert_int_equal(ret.value, value);
}

static void ranges_are_worked_off(void **state)
{
	(void)state;
	host.bound = 100;
	assert_ret(keel_memory_release_all(keel_gpa(0x200000), 250 * 4096), 0, 250);
	assert_int_equal(host.calls, 3);
	assert_call(0, KEEL_CALL_MEMORY_RELEASE, 0x200000, 250 * 4096, 0, 0, 0);
	assert_call(2, KEEL_CALL_MEMORY_RELEASE, 0x200000 + 200 * 4096, 50 * 4096, 0, 0, 0);
	assert_ret(keel_memory_populate_all(keel_gpa(0), 100 * 4096), 0, 100);
	assert_int_equal(host.calls, 4);
	assert_ret(keel_harvest_start_all(keel_as(3), 0x10000000, 150 * 4096, KEEL_HARVEST_DIRTY), 0, 150);
	assert_call(5, KEEL_CALL_HARVEST_START, 3, 0x10000000 + 100 * 4096, 50 * 4096, KEEL_HARVEST_DIRTY, 0);
	assert_ret(keel_harvest_stop_all(keel_as(3), 0x10000000, 150 * 4096), 0, 150);
	assert_call(7, KEEL_CALL_HARVEST_STOP, 3, 0x10000000 + 100 * 4096, 50 * 4096, 0, 0);
	/* An error in the middle says how far it came. */
	host.worked = 0;
	host.fail_at = 131;
	assert_ret(keel_memory_release_all(keel_gpa(0), 250 * 4096), KEEL_STATUS(KEEL_E_NOENT, 0), 130);
	/* An empty range is the host's to reject. */
	host.refuse_id = KEEL_CALL_MEMORY_RELEASE;
	host.refuse_status = KEEL_STATUS(KEEL_E_INVAL, 2);
	assert_ret(keel_memory_release_all(keel_gpa(0), 0), KEEL_STATUS(KEEL_E_INVAL, 2), 0);
}

static void a_bitmap_is_put_together(void **state)
{
	(void)state;
	host.bound = 128;
	assert_ret(keel_harvest_collect_all(keel_as(0), 0x10000000, 300 * 4096, keel_gpa(0x8000)), 0,
		   300 | KEEL_U64(75) << 32);
	assert_int_equal(host.calls, 3);
	assert_call(2, KEEL_CALL_HARVEST_COLLECT, 0, 0x10000000 + 256 * 4096, 44 * 4096, 0x8000 + 32, 0);
	/* To stop within a word of the bitmap is against the rules. */
	host.bound = 100;
	assert_ret(keel_harvest_collect_all(keel_as(0), 0x10000000, 300 * 4096, keel_gpa(0x8000)),
		   KEEL_STATUS(KEEL_E_STATE, 0), 0);
}

static void event_records_are_worked_off(void **state)
{
	(void)state;
	host.bound = 512;
	assert_ret(keel_event_batch_all(keel_gpa(0x8000), 1000), 0, 1000);
	assert_call(1, KEEL_CALL_EVENT_BATCH, 0x8000 + 512 * 8, 488, 0, 0, 0);
	assert_ret(keel_event_batch_all(keel_gpa(0x8000), 0), 0, 0);
	assert_int_equal(host.calls, 3);
	host.worked = 0;
	host.fail_at = 600;
	assert_ret(keel_event_batch_all(keel_gpa(0x8000), 1000), KEEL_STATUS(KEEL_E_NOENT, 0), 599);
}

static void multicalls_are_worked_off(void **state)
{
	static struct keel_multicall entry[150];
	static struct keel_multicall_result result[150];

	(void)state;
	for (keel_u64 i = 0; i < 150; i++)
		entry[i].cookie = i;
	host.bound = KEEL_MULTICALL_MAX;
	assert_ret(keel_multicall_all(keel_gpa_of(entry), 150, keel_gpa_of(result), 0, NULL), 0, 150);
	assert_int_equal(host.calls, 3);
	for (keel_u64 i = 0; i < 150; i++)
		assert_int_equal(result[i].cookie, i);
	entry[70].id = 0xbad;
	assert_ret(keel_multicall_all(keel_gpa_of(entry), 150, keel_gpa_of(result), 0, NULL), 0, 150);
	assert_int_equal(result[70].status, -KEEL_E_NOSYS);
	assert_ret(keel_multicall_all(keel_gpa_of(entry), 150, keel_gpa_of(result), KEEL_MULTICALL_STOP_ON_ERROR,
				      result),
		   0, 71);
	/* Right at the bound of one call: not taken for an early return. */
	entry[70].id = 0;
	entry[63].id = 0xbad;
	assert_ret(keel_multicall_all(keel_gpa_of(entry), 150, keel_gpa_of(result), KEEL_MULTICALL_STOP_ON_ERROR,
				      result),
		   0, 64);
}

static void no_progress_is_an_end(void **state)
{
	static const keel_u64 value[] = { 0, 11, 0xffffffff };

	(void)state;
	for (size_t i = 0; i < keel_array_size(value); i++) {
		host.nonsense = value[i] + 1;
		assert_int_equal(keel_memory_release_all(keel_gpa(0), 10 * 4096).status, KEEL_STATUS(KEEL_E_STATE, 0));
		assert_int_equal(keel_event_batch_all(keel_gpa(0), 10).status, KEEL_STATUS(KEEL_E_STATE, 0));
		assert_int_equal(keel_harvest_collect_all(keel_as(0), 0, 10 * 4096, keel_gpa(0)).status,
				 KEEL_STATUS(KEEL_E_STATE, 0));
	}
	assert_int_equal(host.calls, 9);
	host.bound = 0;
	assert_int_equal(keel_multicall_all(keel_gpa(0), 10, keel_gpa(0), 0, NULL).status,
			 KEEL_STATUS(KEEL_E_STATE, 0));
}

/* Address spaces and guest user code */

static void spaces_are_cloned_and_destroyed(void **state)
{
	(void)state;
	host.again = 3;
	host.answer = (struct keel_ret){ 0, KEEL_U64(0x500000002) };
	assert_ret(keel_as_clone_all(keel_as(KEEL_U64(0x100000001)), KEEL_AS_CLONE_SHARE), 0, KEEL_U64(0x500000002));
	assert_int_equal(host.calls, 4);
	assert_call(3, KEEL_CALL_AS_CLONE, KEEL_U64(0x100000001), KEEL_AS_CLONE_SHARE, 0, 0, 0);
	host.again = 2;
	host.answer = (struct keel_ret){ 0, 0 };
	assert_ret(keel_as_destroy_all(keel_as(9)), 0, 0);
	assert_int_equal(host.yields, 2);
	host.answer = (struct keel_ret){ KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1)), 0 };
	assert_int_equal(keel_as_destroy_all(keel_as(9)).status, KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1)));
	assert_int_equal(keel_as_clone_all(keel_as(9), 0).status, KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1)));
}

static void user_code_runs_through_events(void **state)
{
	(void)state;
	host.events = 5;
	host.answer = (struct keel_ret){ 0, KEEL_USER_SYSCALL };
	host.page.if_enabled = 1;
	assert_ret(keel_user_run(keel_as(7), keel_gpa(0x4000)), 0, KEEL_USER_SYSCALL);
	assert_int_equal(host.calls, 6);
	assert_call(5, KEEL_CALL_USER_ENTER, 7, 0x4000, 0, 0, 0);
	/* With IF off the event would stay where it is. */
	host.events = 5;
	host.page.if_enabled = 0;
	assert_ret(keel_user_run(keel_as(7), keel_gpa(0x4000)), 0, KEEL_USER_EVENT);
	assert_int_equal(host.calls, 7);
	host.page.if_enabled = 1;
	host.events = 0;
	host.answer = (struct keel_ret){ KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(28)), 0 };
	assert_int_equal(keel_user_run(keel_as(7), keel_gpa(0x4000)).status,
			 KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_FIELD(28)));
}

/* Several vCPUs */

static struct {
	void *arg;
	keel_u64 word0, rbp, rsp;
} started;

static void start_here(void *arg)
{
	started.arg = arg;
	started.word0 = keel_vcpu_word(0);
	started.rbp = *(keel_u64 *)__builtin_frame_address(0);
	started.rsp = (keel_u64)__builtin_frame_address(0);
}

static void a_vcpu_is_started_on_its_stack(void **state)
{
	const struct fake_call *c;

	(void)state;
	host.start.abi.vcpus = 2;
	host.start.abi.vcpu_va = (keel_u64)&host.page;
	host.start.abi.vcpu_stride = 4096;
	assert_true(ENDS(keel_guest_start(&host.start.head)));
	assert_int_equal(keel_vcpus(), 2);
	assert_ptr_equal(keel_vcpu_page_of(1), (char *)&host.page + 4096);
	assert_null(keel_vcpu_page_of(2));
	host.calls = 0;
	assert_int_equal(keel_smp_start(1, other_stack + sizeof(other_stack), start_here, &started, &host), 0);
	assert_int_equal(keel_smp_start(1, other_stack + 8, start_here, NULL, NULL),
			 KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2)));
	assert_int_equal(host.calls, 1);
	c = &host.log[0];
	assert_int_equal(c->id, KEEL_CALL_VCPU_START);
	assert_int_equal(c->arg[0], 1);
	assert_int_equal(c->arg[1], (keel_u64)keel_smp_entry);
	/* Become the vCPU: the entry runs the function on the stack, then stops itself. */
	host.page.id = 1;
	assert_true(ENDS(((void (*)(keel_u64))keel_smp_entry)(c->arg[2])));
	assert_ptr_equal(started.arg, &started);
	assert_int_equal(started.word0, (keel_u64)&host);
	assert_int_equal(started.rbp, 0);
	assert_int_equal(started.rsp % 16, 0);
	assert_in_range(started.rsp, (keel_u64)other_stack, (keel_u64)other_stack + sizeof(other_stack));
	assert_int_equal(host.last.id, KEEL_CALL_VCPU_STOP);
	assert_int_equal(host.last.arg[0], 1);
	host.page.id = 0;
}

static void a_vcpu_is_stopped(void **state)
{
	(void)state;
	host.again = 4;
	host.answer = (struct keel_ret){ 0, KEEL_VCPU_RUNNING };
	assert_int_equal(keel_smp_stop(1), 0);
	assert_int_equal(host.yields, 4);
	assert_int_equal(host.calls, 9);
	assert_true(ENDS(keel_guest_start(&host.start.head)));
	assert_true(keel_smp_running(1));
	host.answer.value = KEEL_VCPU_STOPPED;
	assert_false(keel_smp_running(1));
	host.answer.status = KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1));
	assert_int_equal(keel_smp_stop(9), KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1)));
	assert_false(keel_smp_running(9));
	/* Not accepted: there is this one, and it runs. */
	host.offered[1] = 0;
	assert_true(ENDS(keel_guest_start(&host.start.head)));
	assert_int_equal(keel_vcpus(), 1);
	assert_true(keel_smp_running(0));
	assert_false(keel_smp_running(1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(calls_carry_id_and_arguments, fresh),
		cmocka_unit_test_setup(wrappers_are_typed, fresh),
		cmocka_unit_test_setup(status_and_value_come_back, fresh),
		cmocka_unit_test_setup(the_caller_s_stack_survives, fresh),
		cmocka_unit_test_setup(the_vcpu_page_is_found, fresh),
		cmocka_unit_test_setup(irq_flag, fresh),
		cmocka_unit_test_setup(each_class_is_entered_and_resumed, fresh),
		cmocka_unit_test_setup(any_stack_alignment_will_do, fresh),
		cmocka_unit_test_setup(changes_to_the_frame_are_resumed, fresh),
		cmocka_unit_test_setup(traps_nest_on_the_interrupted_stack, fresh),
		cmocka_unit_test_setup(a_trap_within_an_event, fresh),
		cmocka_unit_test_setup(no_handler_no_entry, fresh),
		cmocka_unit_test_setup(a_refused_install_keeps_the_old_handler, fresh),
		cmocka_unit_test_setup(a_frame_that_cannot_be_resumed_is_a_crash, fresh),
		cmocka_unit_test_setup(fp_state_is_kept_on_request, fresh),
		cmocka_unit_test_setup(backtraces_pass_through_the_stub, fresh),
		cmocka_unit_test_setup(start_negotiates_and_freezes, fresh),
		cmocka_unit_test_setup(a_required_feature_is_missing, fresh),
		cmocka_unit_test_setup(a_bad_start_info_ends_it, fresh),
		cmocka_unit_test_setup(a_refused_call_ends_it, fresh),
		cmocka_unit_test_setup(exit_codes, fresh),
		cmocka_unit_test_setup(panic_leaves_last_words, fresh),
		cmocka_unit_test_setup(addresses, fresh),
		cmocka_unit_test_setup(early_output_is_packed, fresh),
		cmocka_unit_test_setup(events_reach_their_handlers, fresh),
		cmocka_unit_test_setup(waiting_leaves_irqs_on, fresh),
		cmocka_unit_test_setup(time_comes_from_the_page_or_a_call, fresh),
		cmocka_unit_test_setup(batches_go_through_the_gate, fresh),
		cmocka_unit_test_setup(ranges_are_worked_off, fresh),
		cmocka_unit_test_setup(a_bitmap_is_put_together, fresh),
		cmocka_unit_test_setup(event_records_are_worked_off, fresh),
		cmocka_unit_test_setup(multicalls_are_worked_off, fresh),
		cmocka_unit_test_setup(no_progress_is_an_end, fresh),
		cmocka_unit_test_setup(spaces_are_cloned_and_destroyed, fresh),
		cmocka_unit_test_setup(user_code_runs_through_events, fresh),
		cmocka_unit_test_setup(a_vcpu_is_started_on_its_stack, fresh),
		cmocka_unit_test_setup(a_vcpu_is_stopped, fresh),
		cmocka_unit_test_setup(the_ring_takes_over, fresh),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("guest", tests, NULL, NULL) ? 1 : 0;
}
