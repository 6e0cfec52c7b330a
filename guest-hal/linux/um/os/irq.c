// SPDX-License-Identifier: GPL-2.0-only
/*
 * Interrupts are event ports, and signals_enabled is the vCPU's own flag: turning
 * interrupts off is a store, turning them on a store and a look. The timer, time,
 * idling, and faults of the kernel itself.
 */
#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/hardirq.h>
#include <linux/interrupt.h>
#include <linux/kernel.h>
#include <linux/math64.h>
#include <linux/sched.h>
#include <linux/sched/debug.h>

#include <hypercall/clock.h>
#include <hypercall/event.h>

#include <as-layout.h>
#include <irq_user.h>
#include <kern_util.h>
#include <os.h>
#include <skas.h>

#include "keel_um.h"

#define TIMER_PRIORITY 0
#define SIGNAL_OF_TIMER 14
#define CALIBRATION_RUNS 5
#define CALIBRATION_LOOPS 200000

/* Mirrors if_enabled: arch/um's irqflags.h reads it. */
int signals_enabled;

/* Linux interrupt of each port, by bit; 0, the timer's own, has a handler of its own. */
static s16 irq_of[KEEL_EVENT_BITS];
#define NO_IRQ -1
static DECLARE_BITMAP(irqs_taken, UM_LAST_SIGNAL_IRQ);

static u64 next_tick, period;
static const struct keel_clock *clock;

void timer_handler(int sig, struct siginfo *unused_si, struct uml_pt_regs *regs);
void segv_handler(int sig, struct siginfo *unused_si, struct uml_pt_regs *regs);

void block_signals(void)
{
	keel_irq_disable();
	signals_enabled = 0;
	barrier();
}

void unblock_signals(void)
{
	signals_enabled = 1;
	keel_irq_enable();
}

int um_set_signals(int enable)
{
	int was = signals_enabled;

	if (enable && !was)
		unblock_signals();
	else if (!enable && was)
		block_signals();
	return was;
}

int um_set_signals_trace(int enable)
{
	int was = signals_enabled;

	if (enable && !was)
		unblock_signals_trace();
	else if (!enable && was)
		block_signals_trace();
	return was;
}

/* Time */

static u64 rdtsc(void)
{
	u32 low, high;

	asm volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (u64)high << 32 | low;
}

static u64 now(void)
{
	struct keel_clock_sample s;

	if (keel_clock_sample(keel_share(clock), &s))
		return keel_clock_ns(&s, rdtsc());
	return keel_must(keel_time_read(), "time_read");
}

/*
 * arch/um's delays count loops. How many there are in a tick is measured, not waited
 * for: the fastest of a few short runs, so that no delay is too short.
 */
unsigned long calibrate_delay_is_known(void)
{
	u64 least = U64_MAX, begin;
	int i;

	for (i = 0; i < CALIBRATION_RUNS; i++) {
		begin = now();
		__delay(CALIBRATION_LOOPS);
		least = min(least, now() - begin);
	}
	return div64_u64((u64)CALIBRATION_LOOPS * (NSEC_PER_SEC / HZ), max_t(u64, least, 1));
}

long long os_nsecs(void)
{
	return now();
}

long long os_persistent_clock_emulation(void)
{
	struct keel_clock_sample s = { 0 };

	keel_clock_sample(keel_share(clock), &s);
	return s.wall_ns ? s.wall_ns + now() : 0;
}

static void arm(u64 deadline)
{
	next_tick = deadline;
	keel_must(keel_time_set_timer(deadline), "time_set_timer");
}

int os_timer_create(void)
{
	struct keel_ret ret = keel_event_bind(KEEL_SOURCE_TIMER, TIMER_PRIORITY);

	if (ret.status)
		return keel_errno(ret);
	irq_of[KEEL_PORT_BIT((u32)ret.value)] = TIMER_IRQ;
	keel_must(keel_event_unmask(keel_port(ret.value)), "event_unmask");
	return 0;
}

int os_timer_set_interval(unsigned long long nsecs)
{
	period = nsecs;
	arm(now() + nsecs);
	return 0;
}

int os_timer_one_shot(unsigned long long nsecs)
{
	period = 0;
	arm(now() + nsecs);
	return 0;
}

void os_timer_disable(void)
{
	period = 0;
	arm(KEEL_TIME_NEVER);
}

/* Events are looked at by whoever waits: nothing gets lost between the last look and the sleep. */
void os_idle_sleep(void)
{
	keel_irq_stats.waits++;
	keel_must(keel_vcpu_wait(KEEL_TIME_NEVER), "vcpu_wait");
}

void os_alarm_process(int pid)
{
}

/* Events */

static void timer_event(struct uml_pt_regs *regs)
{
	u64 time = now();

	/* One that was moved after it had gone off. */
	if (next_tick == KEEL_TIME_NEVER || time < next_tick)
		return;
	keel_irq_stats.late_ns += time - next_tick;
	if (period)
		arm(next_tick + period);
	else
		next_tick = KEEL_TIME_NEVER;
	timer_handler(SIGNAL_OF_TIMER, NULL, regs);
}

void keel_irq_dispatch(struct uml_pt_regs *regs)
{
	int bit;

	while ((bit = keel_ev_next(keel_share(keel_vcpu_page()))) >= 0) {
		if (irq_of[bit] == TIMER_IRQ)
			timer_event(regs);
		else if (irq_of[bit] > 0)
			do_IRQ(irq_of[bit], regs);
	}
}

/* Numbers that arch/um leaves to whoever asks for one. Nothing else here does. */
int keel_irq_map(u32 bit)
{
	int irq;

	for (irq = UM_FIRST_DYN_IRQ; irq < UM_LAST_SIGNAL_IRQ; irq++) {
		if (test_and_set_bit(irq, irqs_taken))
			continue;
		WRITE_ONCE(irq_of[bit], irq);
		return irq;
	}
	return -ENOSPC;
}

void keel_irq_unmap(int irq, u32 bit)
{
	WRITE_ONCE(irq_of[bit], NO_IRQ);
	clear_bit(irq, irqs_taken);
}

static void from_frame(struct uml_pt_regs *r, const struct keel_frame *f)
{
	memset(r, 0, sizeof(*r));
	r->gp[HOST_IP] = f->rip;
	r->gp[HOST_SP] = f->rsp;
	r->gp[HOST_EFLAGS] = f->rflags;
	r->gp[HOST_AX] = f->rax;
	r->gp[HOST_BX] = f->rbx;
	r->gp[HOST_CX] = f->rcx;
	r->gp[HOST_DX] = f->rdx;
	r->gp[HOST_SI] = f->rsi;
	r->gp[HOST_DI] = f->rdi;
	r->gp[HOST_BP] = f->rbp;
	r->gp[HOST_R8] = f->r8;
	r->gp[HOST_R9] = f->r9;
	r->gp[HOST_R10] = f->r10;
	r->gp[HOST_R11] = f->r11;
	r->gp[HOST_R12] = f->r12;
	r->gp[HOST_R13] = f->r13;
	r->gp[HOST_R14] = f->r14;
	r->gp[HOST_R15] = f->r15;
}

/* Registers of interrupted kernel code: handlers ask whose time it was, and where. */
static struct {
	struct uml_pt_regs regs;
} kernel_regs;

static void event_entry(struct keel_frame *f)
{
	signals_enabled = 0;
	keel_irq_stats.upcalls++;
	kernel_regs.regs.is_user = 0;
	kernel_regs.regs.gp[HOST_IP] = f->rip;
	kernel_regs.regs.gp[HOST_SP] = f->rsp;
	kernel_regs.regs.gp[HOST_BP] = f->rbp;
	trace_hardirqs_off();
	keel_irq_dispatch(&kernel_regs.regs);
	trace_hardirqs_on();
	/* The frame brings the other flag back. */
	signals_enabled = 1;
}

/* A fault of the kernel: at a page of vmalloc's that is not mapped yet, at a user's address, or a defect. */
static void trap_entry(struct keel_frame *f)
{
	struct uml_pt_regs regs;
	int enabled = signals_enabled;

	from_frame(&regs, f);
	regs.faultinfo.trap_no = f->vector;
	regs.faultinfo.error_code = f->error;
	regs.faultinfo.cr2 = f->addr;
	if (f->vector != KEEL_VEC_PF) {
		show_regs(container_of(&regs, struct pt_regs, regs));
		panic("trap %u of the kernel at %llx", f->vector, f->rip);
	}
	if (enabled)
		keel_irq_enable();
	segv_handler(11, NULL, &regs);
	block_signals();
	signals_enabled = enabled;
	f->rip = regs.gp[HOST_IP];
}

static void double_entry(struct keel_frame *f)
{
	panic("double fault of the kernel at %llx, address %llx", f->rip, f->addr);
}

void __init keel_irq_init(void)
{
	static char double_stack[THREAD_SIZE] __aligned(THREAD_SIZE);
	int i;

	for (i = 0; i < KEEL_EVENT_BITS; i++)
		irq_of[i] = NO_IRQ;
	next_tick = KEEL_TIME_NEVER;
	clock = (const struct keel_clock *)keel_start_abi(keel_start)->clock_va;
	if (keel_entry_install(KEEL_CLASS_EVENT, event_entry, NULL) ||
	    keel_entry_install(KEEL_CLASS_TRAP, trap_entry, NULL) ||
	    keel_entry_install(KEEL_CLASS_DOUBLE, double_entry, double_stack + sizeof(double_stack)))
		keel_die("trap_set failed");
}

/* arch/um's interrupts of file descriptors: there are none. */

int os_setup_epoll(void)
{
	return 0;
}

int os_waiting_for_events_epoll(void)
{
	return 0;
}

void *os_epoll_get_data_pointer(int index)
{
	return NULL;
}

int os_epoll_triggered(int index, int events)
{
	return 0;
}

int os_event_mask(enum um_irq_type irq_type)
{
	return 0;
}

int os_add_epoll_fd(int events, int fd, void *data)
{
	return -EINVAL;
}

int os_mod_epoll_fd(int events, int fd, void *data)
{
	return -EINVAL;
}

int os_del_epoll_fd(int fd)
{
	return -EINVAL;
}

void os_set_ioignore(void)
{
}

void os_close_epoll_fd(void)
{
}
