// SPDX-License-Identifier: GPL-2.0-only
/*
 * User address spaces and user code. What arch/um calls a process of the host, by
 * its pid, is an address space here: the index in its handle, plus 1.
 */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/signal.h>
#include <asm/mmu_context.h>
#include <asm/prctl.h>

#include <hypercall/repeat.h>

#include <as-layout.h>
#include <kern.h>
#include <kern_util.h>
#include <os.h>
#include <registers.h>
#include <skas.h>
#include <sysdep/ptrace.h>
#include <sysdep/ptrace_user.h>

#include "keel_um.h"

#define PID(handle) ((int)(u32)(handle) + 1)
#define FP_BYTES (sizeof(((struct uml_pt_regs *)0)->fp))
#define XSAVE_BASIC 576 /* legacy area and header */
#define XSTATE_LEGACY 3
#define SPACES_MAX 4096
#define EFLAGS_TF 0x100

int userspace_pid[NR_CPUS];
static int kill_mm;

static u64 handle_of[SPACES_MAX + 2]; /* by pid; 0 = none */
static bool touched[SPACES_MAX + 2];  /* something was mapped in it */

static keel_as_t space(int pid)
{
	return keel_as(handle_of[pid]);
}

/* Address spaces */

int start_userspace(unsigned long stub_stack)
{
	struct keel_ret ret = keel_as_create(0);
	int pid;

	if (ret.status)
		return -ENOMEM;
	pid = PID(ret.value);
	if (pid < 2 || pid > SPACES_MAX + 1) {
		keel_as_destroy_all(keel_as(ret.value));
		return -ENOMEM;
	}
	handle_of[pid] = ret.value;
	touched[pid] = false;
	return pid;
}

/* The child's pages are mapped from its page tables: fork_handler() flushes them all. */
int copy_context_skas0(unsigned long stack, int pid)
{
	return start_userspace(stack);
}

void os_kill_ptraced_process(int pid, int reap_child)
{
	if (pid < 2 || pid > SPACES_MAX + 1 || !handle_of[pid])
		return;
	keel_must(keel_as_destroy_all(space(pid)), "as_destroy");
	handle_of[pid] = 0;
}

void __switch_mm(struct mm_id *mm_idp)
{
	userspace_pid[0] = mm_idp->u.pid;
	kill_mm = mm_idp->kill;
}

/*
 * Updates. tlb.c hands over one operation at a time and says which is the last of a
 * flush; they collect here and go to the host together.
 */
static struct keel_mmu_record records[64] __aligned(8);
static struct keel_batch batch;

static struct keel_ret submit(void *ctx, keel_as_t as, keel_gpa_t gpa, u32 count, u64 flags)
{
	return keel_mmu_batch(as, gpa, count, flags);
}

static int finish(int done)
{
	s64 status;

	if (!done && !batch.status)
		return 0;
	status = keel_batch_flush(&batch);
	batch.recs = NULL;
	return !status ? 0 : KEEL_STATUS_CODE(status) == KEEL_E_NOMEM ? -ENOMEM : -EINVAL;
}

static struct keel_batch *collect(struct mm_id *id)
{
	if (!batch.recs)
		keel_batch_init(&batch, records, keel_gpa_of(records), ARRAY_SIZE(records), space(id->u.pid), submit,
				NULL);
	touched[id->u.pid] = true;
	return &batch;
}

/* The mm is on its way out: nobody runs in it again, and its space goes as a whole. */
static bool dying(struct mm_id *id)
{
	return !atomic_read(&container_of(id, struct mm_struct, context.id)->mm_users);
}

static void add_unmap(struct mm_id *id, unsigned long addr, unsigned long len)
{
	unsigned long end = addr + len;

	addr = max_t(unsigned long, addr, KEEL_VA_MIN);
	if (addr < end && touched[id->u.pid])
		keel_batch_unmap(collect(id), addr, end - addr);
}

int map(struct mm_id *id, unsigned long virt, unsigned long len, int prot, int phys_fd, unsigned long long offset,
	int done, void **data)
{
	/* Old pages have no right at all: the first access is to be seen. */
	if (!prot)
		add_unmap(id, virt, len);
	else
		keel_batch_map(collect(id), virt, keel_gpa(offset), len, prot, 0);
	return batch.recs ? finish(done) : 0;
}

int unmap(struct mm_id *id, unsigned long addr, unsigned long len, int done, void **data)
{
	if (!dying(id))
		add_unmap(id, addr, len);
	return batch.recs ? finish(done) : 0;
}

/* What had no right is not mapped, so pages are mapped with their new ones; runs become one record. */
int protect(struct mm_id *id, unsigned long addr, unsigned long len, unsigned int prot, int done, void **data)
{
	struct mm_struct *mm = container_of(id, struct mm_struct, context.id);
	unsigned long end = addr + len;

	if (!prot)
		add_unmap(id, addr, len);
	for (; prot && addr < end; addr += PAGE_SIZE) {
		pte_t *pte = virt_to_pte(mm, addr);

		if (pte && pte_present(*pte))
			keel_batch_map(collect(id), addr, keel_gpa(pte_val(*pte) & PAGE_MASK), PAGE_SIZE, prot, 0);
	}
	return batch.recs ? finish(done) : 0;
}

/* Registers */

static struct {
	struct keel_user u;
	u8 xsave[16384 - KEEL_USER_XSAVE];
} context __aligned(KEEL_USER_ALIGN);
static u32 xsave_size, xsave_kept;

/* Bytes of an XSAVE area that anything is in, as far as a task's registers reach. */
static size_t xsave_used(const u8 *area)
{
	return *(const u64 *)(area + 512) & ~(u64)XSTATE_LEGACY ? xsave_kept : XSAVE_BASIC;
}

static void load(const struct uml_pt_regs *r)
{
	struct keel_user *u = &context.u;
	const u8 *fp = (const u8 *)r->fp;

	u->size = KEEL_USER_XSAVE + xsave_size;
	u->rip = r->gp[HOST_IP];
	u->rsp = r->gp[HOST_SP];
	u->rflags = r->gp[HOST_EFLAGS];
	if (singlestepping(NULL))
		u->rflags |= EFLAGS_TF;
	u->rax = r->gp[HOST_AX];
	u->rbx = r->gp[HOST_BX];
	u->rcx = r->gp[HOST_CX];
	u->rdx = r->gp[HOST_DX];
	u->rsi = r->gp[HOST_SI];
	u->rdi = r->gp[HOST_DI];
	u->rbp = r->gp[HOST_BP];
	u->r8 = r->gp[HOST_R8];
	u->r9 = r->gp[HOST_R9];
	u->r10 = r->gp[HOST_R10];
	u->r11 = r->gp[HOST_R11];
	u->r12 = r->gp[HOST_R12];
	u->r13 = r->gp[HOST_R13];
	u->r14 = r->gp[HOST_R14];
	u->r15 = r->gp[HOST_R15];
	u->fs_base = r->gp[HOST_FS_BASE];
	u->gs_base = r->gp[HOST_GS_BASE];
	memcpy(context.xsave, fp, xsave_used(fp));
}

static void store(struct uml_pt_regs *r)
{
	const struct keel_user *u = &context.u;

	r->gp[HOST_IP] = u->rip;
	r->gp[HOST_SP] = u->rsp;
	r->gp[HOST_EFLAGS] = u->rflags;
	if (singlestepping(NULL))
		r->gp[HOST_EFLAGS] &= ~EFLAGS_TF;
	r->gp[HOST_AX] = u->rax;
	r->gp[HOST_BX] = u->rbx;
	r->gp[HOST_CX] = u->rcx;
	r->gp[HOST_DX] = u->rdx;
	r->gp[HOST_SI] = u->rsi;
	r->gp[HOST_DI] = u->rdi;
	r->gp[HOST_BP] = u->rbp;
	r->gp[HOST_R8] = u->r8;
	r->gp[HOST_R9] = u->r9;
	r->gp[HOST_R10] = u->r10;
	r->gp[HOST_R11] = u->r11;
	r->gp[HOST_R12] = u->r12;
	r->gp[HOST_R13] = u->r13;
	r->gp[HOST_R14] = u->r14;
	r->gp[HOST_R15] = u->r15;
	r->gp[HOST_FS_BASE] = u->fs_base;
	r->gp[HOST_GS_BASE] = u->gs_base;
	r->gp[HOST_CS] = 0x33;
	r->gp[HOST_SS] = 0x2b;
	r->gp[HOST_ORIG_AX] = -1;
	memcpy(r->fp, context.xsave, xsave_used(context.xsave));
}

void get_safe_registers(unsigned long *regs, unsigned long *fp_regs)
{
	memset(regs, 0, MAX_REG_NR * sizeof(*regs));
	regs[HOST_CS] = 0x33;
	regs[HOST_SS] = 0x2b;
	regs[HOST_EFLAGS] = 0x202;
	regs[HOST_ORIG_AX] = -1;
	if (!fp_regs)
		return;
	memset(fp_regs, 0, FP_BYTES);
	*(u16 *)fp_regs = 0x37f;
	*(u32 *)((u8 *)fp_regs + 24) = 0x1f80;
}

/* ptrace() of arch/um asks for those of the task that ran last; this is the tracer's. */
int save_i387_registers(int pid, unsigned long *fp_regs)
{
	memcpy(fp_regs, current->thread.regs.regs.fp, sizeof(struct user_i387_struct));
	return 0;
}

int restore_i387_registers(int pid, unsigned long *fp_regs)
{
	memcpy(current->thread.regs.regs.fp, fp_regs, sizeof(struct user_i387_struct));
	return 0;
}

int os_arch_prctl(int pid, int option, unsigned long *arg2)
{
	unsigned long *gp = current->thread.regs.regs.gp;
	unsigned long base = (unsigned long)arg2;

	switch (option) {
	case ARCH_SET_FS:
	case ARCH_SET_GS:
		if (base >= TASK_SIZE)
			return -EPERM;
		gp[option == ARCH_SET_FS ? HOST_FS_BASE : HOST_GS_BASE] = base;
		return 0;
	case ARCH_GET_FS:
		*arg2 = gp[HOST_FS_BASE];
		return 0;
	case ARCH_GET_GS:
		*arg2 = gp[HOST_GS_BASE];
		return 0;
	}
	return -EINVAL;
}

/* Running it */

void segv_handler(int sig, struct siginfo *unused_si, struct uml_pt_regs *regs);

static void raise(struct uml_pt_regs *regs, int sig, int code)
{
	struct siginfo si = { .si_signo = sig, .si_code = code };

	relay_signal(sig, &si, regs);
}

/* Of an unmasked SIMD exception MXCSR says which. */
static int simd_code(u32 mxcsr)
{
	u32 e = mxcsr & ~(mxcsr >> 7);

	return e & 1 ? FPE_FLTINV : e & 4 ? FPE_FLTDIV : e & 8 ? FPE_FLTOVF : e & 0x12 ? FPE_FLTUND : FPE_FLTRES;
}

static void exception(struct uml_pt_regs *regs)
{
	struct faultinfo *fi = UPT_FAULTINFO(regs);

	fi->trap_no = context.u.vector;
	fi->error_code = context.u.error;
	fi->cr2 = context.u.addr;
	switch (context.u.vector) {
	case KEEL_VEC_DE:
		fi->cr2 = context.u.rip;
		raise(regs, SIGFPE, FPE_INTDIV);
		break;
	case KEEL_VEC_DB:
		raise(regs, SIGTRAP, TRAP_TRACE);
		break;
	case KEEL_VEC_BP:
		raise(regs, SIGTRAP, SI_KERNEL);
		break;
	case KEEL_VEC_UD:
		fi->cr2 = context.u.rip;
		raise(regs, SIGILL, ILL_ILLOPN);
		break;
	case KEEL_VEC_MF:
	case KEEL_VEC_XM:
		fi->cr2 = context.u.rip;
		raise(regs, SIGFPE, context.u.vector == KEEL_VEC_XM ? simd_code(*(u32 *)(context.xsave + 24))
								   : FPE_FLTINV);
		break;
	case KEEL_VEC_AC:
		raise(regs, SIGBUS, BUS_ADRALN);
		break;
	default:
		/* A page fault to be resolved, or what is a SIGSEGV at once. */
		segv_handler(SIGSEGV, NULL, regs);
	}
}

void userspace(struct uml_pt_regs *regs, unsigned long *aux_fp_regs)
{
	struct keel_ret ret;

	if (!xsave_size) {
		xsave_size = keel_start_cpu(keel_start)->xsave_size;
		xsave_kept = min_t(u32, xsave_size, FP_BYTES);
	}
	interrupt_end();
	for (;;) {
		if (kill_mm)
			force_sig(SIGKILL);
		/* Off until it stops: what comes meanwhile makes it stop, and is seen with its registers. */
		block_signals();
		load(regs);
		ret = keel_user_enter(space(userspace_pid[0]), keel_gpa_of(&context), 0);
		if (ret.status) {
			unblock_signals();
			printk(KERN_ERR "user_enter: %lld\n", ret.status);
			force_sig(SIGSEGV);
			interrupt_end();
			continue;
		}
		store(regs);
		regs->is_user = 1;
		UPT_SYSCALL_NR(regs) = -1;
		if (ret.value == KEEL_USER_EVENT)
			keel_irq_dispatch(regs);
		unblock_signals();
		if (ret.value == KEEL_USER_SYSCALL) {
			PT_SYSCALL_NR(regs->gp) = context.u.rax;
			handle_syscall(regs);
		} else if (ret.value == KEEL_USER_EXCEPTION) {
			exception(regs);
		}
		interrupt_end();
	}
}
