// SPDX-License-Identifier: GPL-2.0-only
/* Kernel threads: a stack and a jmp_buf each. No call is made to switch them. */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/sched.h>

#include <as-layout.h>
#include <kern.h>
#include <kern_util.h>
#include <longjmp.h>
#include <os.h>
#include <registers.h>
#include <skas.h>

/* What the first thread, on the boot stack, is woken for. */
enum { START, CALLBACK, HALT, RESTART };

static jmp_buf boot;
static struct {
	void (*fn)(void *arg);
	void *arg;
	jmp_buf *back;
} callback;

static void prepare(jmp_buf *buf, void *stack, void (*handler)(void))
{
	(*buf)[0].JB_IP = (unsigned long)handler;
	(*buf)[0].JB_SP = (unsigned long)stack + THREAD_SIZE - sizeof(void *);
}

void new_thread(void *stack, jmp_buf *buf, void (*handler)(void))
{
	prepare(buf, stack, handler);
}

void switch_threads(jmp_buf *me, jmp_buf *you)
{
	if (!UML_SETJMP(me))
		UML_LONGJMP(you, 1);
}

/* Returns when the kernel is done: 1 to start again. */
int start_idle_thread(void *stack, jmp_buf *switch_buf)
{
	switch (setjmp(boot)) {
	case START:
		prepare(switch_buf, stack, uml_finishsetup);
		break;
	case CALLBACK:
		callback.fn(callback.arg);
		longjmp(*callback.back, 1);
		break;
	case HALT:
		kmalloc_ok = 0;
		return 0;
	case RESTART:
		kmalloc_ok = 0;
		return 1;
	}
	longjmp(*switch_buf, 1);
	return 0;
}

void initial_thread_cb_skas(void (*proc)(void *), void *arg)
{
	jmp_buf here;

	callback.fn = proc;
	callback.arg = arg;
	callback.back = &here;
	block_signals_trace();
	if (!UML_SETJMP(&here))
		longjmp(boot, CALLBACK);
	unblock_signals_trace();
}

void halt_skas(void)
{
	block_signals_trace();
	longjmp(boot, HALT);
}

void reboot_skas(void)
{
	block_signals_trace();
	longjmp(boot, RESTART);
}

unsigned long get_thread_reg(int reg, jmp_buf *buf)
{
	switch (reg) {
	case HOST_IP:
		return (*buf)[0].JB_IP;
	case HOST_SP:
		return (*buf)[0].JB_SP;
	case HOST_BP:
		return (*buf)[0].__rbp;
	default:
		return 0;
	}
}

/* Signals of a host that are not there: interrupts are events, and come on the stack they interrupt. */

void set_sigstack(void *sig_stack, int size)
{
}

void init_new_thread_signals(void)
{
}

void timer_set_signal_handler(void)
{
}

int os_is_signal_stack(void)
{
	return 0;
}

int os_getpid(void)
{
	return 1;
}
