// SPDX-License-Identifier: GPL-2.0-only
/*
 * User address spaces and user code. What arch/um calls a process of the host, by
 * its pid, is an address space here: the index in its handle, plus 1.
 */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/signal.h>
#include <linux/userfaultfd_k.h>
#include <asm/elf.h>
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
#define XSTATE_LEGACY 3
#define SPACES_MAX 4096
#define EFLAGS_TF 0x100
#define AHEAD_MAX 64  /* pages */
#define AHEAD_FILES 8 /* mappings of files */
#define AROUND 16     /* pages around a fault; a power of two */
#define HEAP_AHEAD 2  /* pages of a heap that grew */
#define STREAM_MAX 63 /* pages made beyond one that was written to, at most */

int userspace_pid[NR_CPUS];

static struct {
	u64 handle;	    /* 0 = none */
	bool touched;	    /* something was mapped in it */
	bool gaps;	    /* pages that Linux has and that have no right are not mapped */
	bool broken;	    /* an update failed */
	unsigned long next; /* where a page is written to for the first time next, if that goes on */
	unsigned int ahead; /* pages made beyond the last one that was */
	unsigned long brk;  /* the heap's end when that was last looked at; 0 = not yet */
} spaces[SPACES_MAX + 2];   /* by pid */

static keel_as_t space(int pid)
{
	return keel_as(spaces[pid].handle);
}

/*
 * Updates collect in a batch, which goes to the host when its space is entered, when
 * another space has something, or when it is full. A space that is not entered again
 * takes what is left with it.
 */
static struct keel_mmu_record records[64] __aligned(8);
static struct keel_batch batch;
static int batch_pid; /* whose; 0 = nobody's */

struct keel_mmu_stats keel_mmu_stats;

static struct keel_ret submit(void *ctx, keel_as_t as, keel_gpa_t gpa, u32 count, u64 flags)
{
	return keel_mmu_batch(as, gpa, count, flags);
}

static void close_batch(void)
{
	keel_mmu_stats.calls += batch.calls;
	keel_mmu_stats.records += batch.records;
	keel_mmu_stats.pages += batch.pages;
	batch_pid = 0;
}

/* What was collected is in force when this returns. */
static int send_batch(void)
{
	s64 status = keel_batch_flush(&batch);

	close_batch();
	return !status ? 0 : KEEL_STATUS_CODE(status) == KEEL_E_NOMEM ? -ENOMEM : -EINVAL;
}

/* The batch is this space's. An error is about another's, which is not run any more. */
static void collect(int pid)
{
	int other = batch_pid;

	if (other == pid)
		return;
	if (other && send_batch())
		spaces[other].broken = true;
	keel_batch_init(&batch, records, keel_gpa_of(records), ARRAY_SIZE(records), space(pid), submit, NULL);
	batch_pid = pid;
	spaces[pid].touched = true;
}

static void add_map(int pid, unsigned long addr, unsigned long gpa, unsigned long len, unsigned int prot)
{
	collect(pid);
	keel_batch_map(&batch, addr, keel_gpa(gpa), len, prot, 0);
}

/* Also what a page without any right is: the ABI has no such mapping. */
static void add_unmap(int pid, unsigned long addr, unsigned long len)
{
	unsigned long end = addr + len;

	addr = max_t(unsigned long, addr, KEEL_VA_MIN);
	if (addr >= end || !spaces[pid].touched)
		return;
	collect(pid);
	keel_batch_unmap(&batch, addr, end - addr);
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
	memset(&spaces[pid], 0, sizeof(spaces[pid]));
	spaces[pid].handle = ret.value;
	return pid;
}

/* The child's pages are mapped from its page tables: fork_handler() flushes them all. */
int copy_context_skas0(unsigned long stack, int pid)
{
	return start_userspace(stack);
}

void os_kill_ptraced_process(int pid, int reap_child)
{
	if (pid < 2 || pid > SPACES_MAX + 1 || !spaces[pid].handle)
		return;
	if (batch_pid == pid)
		close_batch();
	keel_must(keel_as_destroy_all(space(pid)), "as_destroy");
	spaces[pid].handle = 0;
}

void __switch_mm(struct mm_id *mm_idp)
{
	userspace_pid[0] = mm_idp->u.pid;
}

/* Nobody runs in an mm again that is on its way out, and its space goes as a whole. */
static bool dying(struct mm_id *id)
{
	return !atomic_read(&container_of(id, struct mm_struct, context.id)->mm_users);
}

int map(struct mm_id *id, unsigned long virt, unsigned long len, int prot, int phys_fd, unsigned long long offset,
	int done, void **data)
{
	if (dying(id)) {
		return 0;
	} else if (prot) {
		add_map(id->u.pid, virt, offset, len, prot);
	} else {
		spaces[id->u.pid].gaps = true;
		add_unmap(id->u.pid, virt, len);
	}
	return 0;
}

int unmap(struct mm_id *id, unsigned long addr, unsigned long len, int done, void **data)
{
	if (!dying(id))
		add_unmap(id->u.pid, addr, len);
	return 0;
}

int protect(struct mm_id *id, unsigned long addr, unsigned long len, unsigned int prot, int done, void **data)
{
	struct mm_struct *mm = container_of(id, struct mm_struct, context.id);
	unsigned long end = addr + len;
	int pid = id->u.pid;

	if (dying(id)) {
		return 0;
	} else if (!prot) {
		spaces[pid].gaps = true;
		add_unmap(pid, addr, len);
	} else if (!spaces[pid].gaps) {
		collect(pid);
		keel_batch_protect(&batch, addr, len, prot);
	} else {
		/* Pages that had no right are not mapped: each is mapped with those it has now. */
		for (; addr < end; addr += PAGE_SIZE) {
			pte_t *pte = virt_to_pte(mm, addr);

			if (pte && pte_present(*pte))
				add_map(pid, addr, pte_val(*pte) & PAGE_MASK, PAGE_SIZE, prot);
		}
	}
	return 0;
}

/* As tlb.c has it: the first access, and the first write, are to be seen. */
static unsigned int rights(pte_t pte)
{
	unsigned int prot = pte_exec(pte) ? KEEL_PROT_X : 0;

	if (pte_young(pte)) {
		prot |= pte_read(pte) ? KEEL_PROT_R : 0;
		prot |= pte_write(pte) && pte_dirty(pte) ? KEEL_PROT_W : 0;
	}
	return prot;
}

/* Pages in [start, end), all of one table, that the kernel has and the space has not. */
static void map_new(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	pte_t *pte = virt_to_pte(mm, start);

	for (; pte && start < end; start += PAGE_SIZE, pte++) {
		if (!pte_present(*pte) || !pte_newpage(*pte) || !rights(*pte))
			continue;
		add_map(mm->context.id.u.pid, start, pte_val(*pte) & PAGE_MASK, PAGE_SIZE, rights(*pte));
		*pte = pte_mkuptodate(*pte);
	}
}

/* A page that faulted is to be in the space with the rights it has, whatever was flushed when. */
static void map_faulted(struct mm_struct *mm, unsigned long addr)
{
	pte_t *pte = virt_to_pte(mm, addr);
	unsigned int i;

	if (!pte || !pte_present(*pte) || !rights(*pte))
		return;
	/* Most often it was added just now. */
	for (i = 0; batch_pid == mm->context.id.u.pid && i < batch.count; i++)
		if (records[i].op != KEEL_MMU_UNMAP && addr >= records[i].va && addr - records[i].va < records[i].len)
			return;
	addr &= PAGE_MASK;
	add_map(mm->context.id.u.pid, addr, pte_val(*pte) & PAGE_MASK, PAGE_SIZE, rights(*pte));
	*pte = pte_mkuptodate(*pte);
}

/*
 * Memory that is written to for the first time page after page, as a new heap is: the
 * longer that goes on, the more of what follows is made with the page, never more than
 * was used before. Returns where the next first write is expected, in the page's table
 * or at its end.
 */
static unsigned long stream(struct mm_struct *mm, unsigned long addr)
{
	typeof(*spaces) *s = &spaces[mm->context.id.u.pid];
	struct vm_area_struct *vma;
	unsigned long end = 0;

	s->ahead = addr == s->next ? min(2 * s->ahead + 1, STREAM_MAX) : 0;
	addr += PAGE_SIZE;
	s->next = addr;
	if (!s->ahead || !mmap_read_trylock(mm))
		return addr;
	vma = find_vma(mm, addr);
	if (vma && vma->vm_start < addr && vma_is_anonymous(vma) && !userfaultfd_armed(vma) &&
	    !(vma->vm_flags & (VM_RAND_READ | VM_SHARED)))
		end = min3(addr + s->ahead * PAGE_SIZE, vma->vm_end, pmd_addr_end(addr - 1, TASK_SIZE));
	mmap_read_unlock(mm);
	for (; addr < end && !fault_in_safe_writeable((const char __user *)addr, 1); addr += PAGE_SIZE)
		s->next = addr + PAGE_SIZE;
	return s->next;
}

/*
 * Behind a fault that was resolved. A fault costs what a few hundred updates cost, so
 * of a file all that is in the page cache comes with the page, as far as a page table
 * reaches: the kernel does the same, for a narrower range, where a fault is cheap.
 */
static void map_around(struct mm_struct *mm, unsigned long addr, bool write)
{
	unsigned long start = addr & ~(AROUND * PAGE_SIZE - 1), end = start + AROUND * PAGE_SIZE;
	struct vm_area_struct *vma;

	addr &= PAGE_MASK;
	if (!write && mmap_read_trylock(mm)) {
		vma = find_vma(mm, addr);
		/* There is a table, if only the fault's: that is what map_pages() fills. */
		if (vma && vma->vm_start <= addr && vma->vm_ops && vma->vm_ops->map_pages && virt_to_pte(mm, addr)) {
			struct vm_fault vmf = { .vma = vma, .address = addr, .pmd = pmd_off(mm, addr) };

			start = max(addr & PMD_MASK, vma->vm_start);
			end = min((addr & PMD_MASK) + PMD_SIZE, vma->vm_end);
			vma->vm_ops->map_pages(&vmf, linear_page_index(vma, start), linear_page_index(vma, end) - 1);
		}
		mmap_read_unlock(mm);
	}
	if (write)
		end = max(end, stream(mm, addr));
	map_new(mm, max(start, KEEL_VA_MIN), end);
}

/* As the first write to a page would: it is made, or copied. */
static void write_to(unsigned long addr)
{
	struct mm_struct *mm = current->mm;
	pte_t *pte;

	if (addr < KEEL_VA_MIN || addr >= TASK_SIZE)
		return;
	pte = virt_to_pte(mm, addr);
	if (!pte || !pte_present(*pte) || !pte_write(*pte))
		fault_in_safe_writeable((const char __user *)addr, 1);
	addr &= PAGE_MASK;
	map_new(mm, addr, addr + PAGE_SIZE);
}

enum side { PARENT, CHILD, PROGRAM };

/*
 * Making or copying a page costs little beside the fault that asks for it. So what is
 * about to be written to is, on either side of a fork and behind an exec: the stack and
 * the thread's own data, and all that is private and writable where that is little.
 * Of a new program that is its data and bss, there or not, and one more page of stack.
 */
static void write_ahead(const struct uml_pt_regs *regs, enum side side)
{
	unsigned long at[AHEAD_MAX] = { regs->gp[HOST_SP],
					side == PROGRAM ? regs->gp[HOST_SP] - PAGE_SIZE : regs->gp[HOST_FS_BASE] };
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	bool few = get_mm_counter(mm, MM_ANONPAGES) <= AHEAD_MAX;
	unsigned long file[AHEAD_FILES];
	unsigned int i, n = 2, files = 0;
	VMA_ITERATOR(vmi, mm, 0);

	mmap_read_lock(mm);
	for_each_vma(vmi, vma) {
		unsigned long addr = vma->vm_start;
		bool data = side == PROGRAM && addr < mm->brk && vma->vm_end > mm->start_data;

		if (side != PARENT && !(vma->vm_flags & VM_WRITE) && vma->vm_ops && vma->vm_ops->map_pages &&
		    files < AHEAD_FILES)
			file[files++] = addr;
		if (!few || (vma->vm_flags & (VM_WRITE | VM_SHARED)) != VM_WRITE)
			continue;
		for (; addr < vma->vm_end && n < AHEAD_MAX; addr += PAGE_SIZE) {
			pte_t *pte = virt_to_pte(mm, addr);

			if (data || (pte && pte_present(*pte) && !pte_write(*pte) && PageAnon(pte_page(*pte))))
				at[n++] = addr;
		}
	}
	mmap_read_unlock(mm);
	for (i = 0; i < n; i++)
		write_to(at[i]);
	/* In the page cache, most often; the child of a fork was not given it. */
	for (i = 0; i < files; i++)
		map_around(mm, file[i], false);
	/* Every program looks for functions in the vDSO. */
	if (side == PROGRAM) {
		mmap_read_lock(mm);
		if (!fixup_user_fault(mm, um_vdso_addr, 0, NULL))
			map_new(mm, um_vdso_addr, um_vdso_addr + PAGE_SIZE);
		mmap_read_unlock(mm);
	}
}

/* A heap that grew is written to at its old end first. */
static void heap_ahead(void)
{
	struct mm_struct *mm = current->mm;
	typeof(*spaces) *s = &spaces[mm->context.id.u.pid];
	unsigned long addr = PAGE_ALIGN(s->brk), end = min(addr + HEAP_AHEAD * PAGE_SIZE, mm->brk);

	for (; s->brk && addr < end; addr += PAGE_SIZE)
		write_to(addr);
	s->brk = mm->brk;
}

/* Behind a system call: is it a new process's parent, a new program, or more memory? */
static void look_ahead(const struct uml_pt_regs *regs)
{
	switch (UPT_SYSCALL_NR(regs)) {
	case __NR_fork:
	case __NR_vfork:
	case __NR_clone:
	case __NR_clone3:
		if ((long)regs->gp[HOST_AX] > 0)
			write_ahead(regs, PARENT);
		break;
	case __NR_execve:
	case __NR_execveat:
		if (regs->gp[HOST_AX])
			break;
		write_ahead(regs, PROGRAM);
		heap_ahead();
		break;
	case __NR_brk:
		heap_ahead();
		break;
	}
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
	return *(const u64 *)(area + 512) & ~(u64)XSTATE_LEGACY ? xsave_kept : KEEL_XSAVE_BASIC;
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
	if (fp_regs)
		keel_fp_init((u8 *)fp_regs);
}

/* Only ptrace() of arch/um calls them, and that is ours: see ptrace.c. */
int save_i387_registers(int pid, unsigned long *fp_regs)
{
	return -EIO;
}

int restore_i387_registers(int pid, unsigned long *fp_regs)
{
	return -EIO;
}

/* Of the task that runs; pid is its address space. */
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

static void fault_signal(const struct faultinfo *fi, int sig, int code, unsigned long addr)
{
	current->thread.arch.faultinfo = *fi;
	force_sig_fault(sig, code, (void __user *)addr);
}

/* One that comes from the kernel, with no address. */
static void plain_signal(const struct faultinfo *fi, int sig)
{
	current->thread.arch.faultinfo = *fi;
	force_sig(sig);
}

/* Of unmasked exceptions x87's status word and MXCSR say which. */
static int fpe_code(u32 flags, u32 masks)
{
	u32 e = flags & ~masks & 0x3f;

	return e & 1 ? FPE_FLTINV : e & 4 ? FPE_FLTDIV : e & 8 ? FPE_FLTOVF : e & 0x12 ? FPE_FLTUND : FPE_FLTRES;
}

static void exception(struct uml_pt_regs *regs)
{
	struct faultinfo *fi = UPT_FAULTINFO(regs);
	u32 mxcsr;

	fi->trap_no = context.u.vector;
	fi->error_code = context.u.error;
	fi->cr2 = context.u.addr;
	switch (context.u.vector) {
	case KEEL_VEC_DE:
		fault_signal(fi, SIGFPE, FPE_INTDIV, context.u.rip);
		break;
	case KEEL_VEC_DB:
		fault_signal(fi, SIGTRAP, TRAP_TRACE, context.u.rip);
		break;
	case KEEL_VEC_BP:
		plain_signal(fi, SIGTRAP);
		break;
	case KEEL_VEC_UD:
		fault_signal(fi, SIGILL, ILL_ILLOPN, context.u.rip);
		break;
	case KEEL_VEC_MF:
		fault_signal(fi, SIGFPE, fpe_code(*(u16 *)(context.xsave + 2), *(u16 *)context.xsave), context.u.rip);
		break;
	case KEEL_VEC_XM:
		mxcsr = *(u32 *)(context.xsave + 24);
		fault_signal(fi, SIGFPE, fpe_code(mxcsr, mxcsr >> 7), context.u.rip);
		break;
	case KEEL_VEC_AC:
		fault_signal(fi, SIGBUS, BUS_ADRALN, 0);
		break;
	case KEEL_VEC_PF:
		keel_mmu_stats.faults++;
		segv_handler(SIGSEGV, NULL, regs);
		if (fi->cr2 < TASK_SIZE) {
			map_around(current->mm, fi->cr2, FAULT_WRITE(*fi));
			map_faulted(current->mm, fi->cr2);
		}
		break;
	default:
		plain_signal(fi, SIGSEGV);
	}
}

void userspace(struct uml_pt_regs *regs, unsigned long *aux_fp_regs)
{
	struct keel_ret ret;
	int pid;

	if (!xsave_size) {
		xsave_size = keel_start_cpu(keel_start)->xsave_size;
		xsave_kept = min_t(u32, xsave_size, KEEL_FP_BYTES);
	}
	write_ahead(regs, CHILD);
	interrupt_end();
	for (;;) {
		pid = current->mm->context.id.u.pid;
		if (batch_pid == pid && send_batch())
			spaces[pid].broken = true;
		if (spaces[pid].broken || current->mm->context.id.kill) {
			force_sig(SIGKILL);
			interrupt_end();
		}
		/* Off until it stops: what comes meanwhile makes it stop, and is seen with its registers. */
		block_signals();
		load(regs);
		keel_mmu_stats.enters++;
		ret = keel_user_enter(space(pid), keel_gpa_of(&context), 0);
		if (ret.status) {
			unblock_signals();
			pr_warn_ratelimited("%s: user_enter: %lld\n", current->comm, ret.status);
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
			look_ahead(regs);
		} else if (ret.value == KEEL_USER_EXCEPTION) {
			exception(regs);
		}
		interrupt_end();
	}
}
