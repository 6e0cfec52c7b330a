// SPDX-License-Identifier: GPL-2.0-only
/*
 * Signal frames, in the place of arch/um's by the linker's --wrap: those have room for
 * AVX only, so that a handler would change the registers of AVX-512 of what it
 * interrupts; they let it start with the direction flag and the control words it
 * happens to find, and take the alternate stack as it comes. This is the layout that
 * x86-64 promises its programs: a ucontext, and the XSAVE area with its size in it.
 */
#include <linux/kernel.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/signal.h>
#include <linux/syscalls.h>
#include <linux/uaccess.h>
#include <asm/ucontext.h>

#include <frame_kern.h>
#include <registers.h>

#include "keel_um.h"

#define RED_ZONE 128
#define XSAVE_HEADER 512
#define XSAVE_AVX sizeof(struct _xstate)
#define XSTATE_X87 1
#define XSTATE_SSE 2
#define XSTATE_AVX 7 /* and what it builds upon */
#define FCW 0	     /* offsets in an XSAVE area, and what is there in the beginning */
#define MXCSR 24
#define ST 32
#define XMM 160
#define FCW_INIT 0x37f
#define MXCSR_INIT 0x1f80
#define MXCSR_VALID 0xffff
#define EFLAGS_USER 0x250dd5 /* CF PF AF ZF SF TF DF OF RF AC ID */
#define EFLAGS_SET 0x202
#define EFLAGS_ON_ENTRY 0x10500 /* RF, DF and TF are clear in a handler */
#define UC_WITH_XSTATE 1

struct frame {
	char __user *restorer;
	struct ucontext uc;
	struct siginfo info;
};

int __wrap_setup_signal_stack_si(unsigned long top, struct ksignal *ksig, struct pt_regs *regs, sigset_t *set);
long __wrap_sys_rt_sigreturn(void);

/* Which register is where. A table: two ways through it. */
#define REG(here, there)                                        \
	{                                                       \
		HOST_##here, offsetof(struct sigcontext, there) \
	}
static const struct {
	u16 reg, offset;
} layout[] = {
	REG(R8, r8),   REG(R9, r9),   REG(R10, r10), REG(R11, r11), REG(R12, r12), REG(R13, r13),
	REG(R14, r14), REG(R15, r15), REG(DI, di),   REG(SI, si),   REG(BP, bp),   REG(BX, bx),
	REG(DX, dx),   REG(AX, ax),   REG(CX, cx),   REG(SP, sp),   REG(IP, ip),   REG(EFLAGS, flags),
};

static u64 *word(struct sigcontext *sc, size_t offset)
{
	return (u64 *)((u8 *)sc + offset);
}

/* XSAVE areas of tasks: the standard format, as far as struct uml_pt_regs reaches. */

static u64 *header_of(u8 *fp)
{
	return (u64 *)(fp + XSAVE_HEADER);
}

static size_t fp_size(void)
{
	return min_t(size_t, keel_start_cpu(keel_start)->xsave_size, KEEL_FP_BYTES);
}

void keel_fp_init(u8 *fp)
{
	memset(fp, 0, KEEL_XSAVE_BASIC);
	*(u16 *)(fp + FCW) = FCW_INIT;
	*(u32 *)(fp + MXCSR) = MXCSR_INIT;
}

void keel_fp_spell_out(u8 *fp)
{
	u64 *header = header_of(fp);

	if (!(header[0] & XSTATE_X87)) {
		memset(fp, 0, MXCSR);
		memset(fp + ST, 0, XMM - ST);
		*(u16 *)(fp + FCW) = FCW_INIT;
	}
	if (!(header[0] & XSTATE_SSE))
		memset(fp + XMM, 0, XSAVE_HEADER - XMM);
	header[0] |= XSTATE_X87 | XSTATE_SSE;
}

void keel_fp_clean(u8 *fp, size_t n)
{
	u64 *header = header_of(fp);

	*(u32 *)(fp + MXCSR) &= MXCSR_VALID;
	header[0] &= keel_start_cpu(keel_start)->xfeatures & (n > XSAVE_AVX ? ~0ULL : XSTATE_AVX);
	memset(header + 1, 0, KEEL_XSAVE_BASIC - XSAVE_HEADER - sizeof(*header));
}

/* A program that uses no more than AVX gets a small frame. */
static size_t frame_fp(u8 *fp)
{
	return *header_of(fp) & ~(u64)XSTATE_AVX ? fp_size() : min_t(size_t, fp_size(), XSAVE_AVX);
}

static int put_fp(u8 __user *to, u8 *fp, size_t n)
{
	struct _fpx_sw_bytes sw = {
		.magic1 = FP_XSTATE_MAGIC1,
		.extended_size = n + FP_XSTATE_MAGIC2_SIZE,
		.xfeatures = keel_start_cpu(keel_start)->xfeatures,
		.xstate_size = n,
	};

	if (n <= XSAVE_AVX)
		sw.xfeatures &= XSTATE_AVX;
	keel_fp_spell_out(fp);
	return copy_to_user(to, fp, n) || copy_to_user(to + XSAVE_HEADER - sizeof(sw), &sw, sizeof(sw)) ||
	       put_user(FP_XSTATE_MAGIC2, (u32 __user *)(to + n));
}

/* What a frame holds is a program's word: nothing of it reaches the processor unseen. */
static int get_fp(u8 *fp, const u8 __user *from)
{
	size_t n = XSAVE_HEADER;
	struct _fpx_sw_bytes sw;
	u32 magic;

	keel_fp_init(fp);
	if (!from)
		return 0;
	if (copy_from_user(&sw, from + XSAVE_HEADER - sizeof(sw), sizeof(sw)))
		return -EFAULT;
	if (sw.magic1 == FP_XSTATE_MAGIC1 && sw.xstate_size >= KEEL_XSAVE_BASIC && sw.xstate_size <= fp_size() &&
	    !get_user(magic, (const u32 __user *)(from + sw.xstate_size)) && magic == FP_XSTATE_MAGIC2)
		n = sw.xstate_size;
	if (copy_from_user(fp, from, n)) {
		keel_fp_init(fp);
		return -EFAULT;
	}
	if (n == XSAVE_HEADER)
		*header_of(fp) = XSTATE_X87 | XSTATE_SSE;
	keel_fp_clean(fp, n);
	return 0;
}

int __wrap_setup_signal_stack_si(unsigned long top, struct ksignal *ksig, struct pt_regs *regs, sigset_t *set)
{
	const struct faultinfo *fi = &current->thread.arch.faultinfo;
	unsigned long *gp = regs->regs.gp, old_sp = gp[HOST_SP], fp_at;
	struct sigcontext sc = { .cs = 0x33 };
	u8 *fp = (u8 *)regs->regs.fp;
	size_t n = frame_fp(fp);
	bool alternate = top != old_sp || on_sig_stack(old_sp);
	struct frame __user *frame;
	unsigned int i;

	/* A stack that is entered has no red zone. */
	if (top == old_sp)
		top -= RED_ZONE;
	fp_at = round_down(top - n - FP_XSTATE_MAGIC2_SIZE, 64);
	/* As after a call. */
	frame = (struct frame __user *)(round_down(fp_at - sizeof(*frame), 16) - 8);
	if (!access_ok(frame, top - (unsigned long)frame) || !(ksig->ka.sa.sa_flags & SA_RESTORER))
		return -EFAULT;
	/* One that does not fit would lie over something else. */
	if (alternate && !__on_sig_stack((unsigned long)frame))
		return -EFAULT;

	for (i = 0; i < ARRAY_SIZE(layout); i++)
		*word(&sc, layout[i].offset) = gp[layout[i].reg];
	sc.ss = 0x2b;
	sc.err = fi->error_code;
	sc.trapno = fi->trap_no;
	sc.cr2 = fi->cr2;
	sc.oldmask = set->sig[0];
	sc.fpstate = fp_at;
	if (put_fp((u8 __user *)fp_at, fp, n) || put_user((char __user *)ksig->ka.sa.sa_restorer, &frame->restorer) ||
	    put_user(UC_WITH_XSTATE, &frame->uc.uc_flags) || put_user(NULL, &frame->uc.uc_link) ||
	    __save_altstack(&frame->uc.uc_stack, old_sp) || copy_to_user(&frame->uc.uc_mcontext, &sc, sizeof(sc)) ||
	    copy_to_user(&frame->uc.uc_sigmask, set, sizeof(*set)) ||
	    (ksig->ka.sa.sa_flags & SA_SIGINFO && copy_siginfo_to_user(&frame->info, &ksig->info)))
		return -EFAULT;

	gp[HOST_SP] = (unsigned long)frame;
	gp[HOST_IP] = (unsigned long)ksig->ka.sa.sa_handler;
	gp[HOST_DI] = ksig->sig;
	gp[HOST_SI] = (unsigned long)&frame->info;
	gp[HOST_DX] = (unsigned long)&frame->uc;
	gp[HOST_AX] = 0;
	gp[HOST_EFLAGS] &= ~(unsigned long)EFLAGS_ON_ENTRY;
	keel_fp_init(fp);
	return 0;
}

long __wrap_sys_rt_sigreturn(void)
{
	struct pt_regs *regs = &current->thread.regs;
	unsigned long *gp = regs->regs.gp;
	struct frame __user *frame = (struct frame __user *)(gp[HOST_SP] - sizeof(long));
	struct sigcontext sc;
	unsigned int i;
	sigset_t set;

	/* Calls that were to go on after a signal do not after this one. */
	current->restart_block.fn = do_no_restart_syscall;
	if (copy_from_user(&set, &frame->uc.uc_sigmask, sizeof(set)) ||
	    copy_from_user(&sc, &frame->uc.uc_mcontext, sizeof(sc)))
		goto bad;
	set_current_blocked(&set);
	for (i = 0; i < ARRAY_SIZE(layout); i++)
		gp[layout[i].reg] = *word(&sc, layout[i].offset);
	gp[HOST_EFLAGS] = (sc.flags & EFLAGS_USER) | EFLAGS_SET;
	if (get_fp((u8 *)regs->regs.fp, (const u8 __user *)sc.fpstate) || restore_altstack(&frame->uc.uc_stack))
		goto bad;
	/* The result is RAX as it was, and no call to be made again. */
	PT_REGS_SYSCALL_NR(regs) = -1;
	return gp[HOST_AX];
bad:
	force_sig(SIGSEGV);
	return 0;
}
