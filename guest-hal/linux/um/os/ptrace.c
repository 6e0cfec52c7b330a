// SPDX-License-Identifier: GPL-2.0-only
/*
 * Registers of another task. arch/um gets them from its host by a pid, which is an
 * address space here and the last one that ran there: by the linker's --wrap they come
 * from the task that is meant.
 */
#include <linux/elf.h>
#include <linux/kernel.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/uaccess.h>
#include <asm/prctl.h>
#define __FRAME_OFFSETS
#include <asm/ptrace-abi.h>

#include <os.h>
#include <registers.h>
#include <skas.h>

#include "keel_um.h"

#define EFLAGS_TRACER 0x44dd5 /* those that a tracer may change */

long __wrap_subarch_ptrace(struct task_struct *child, long request, unsigned long addr, unsigned long data);
int __wrap_putreg(struct task_struct *child, int regno, unsigned long value);
int __real_putreg(struct task_struct *child, int regno, unsigned long value);
int __wrap_poke_user(struct task_struct *child, long addr, long data);
int __real_poke_user(struct task_struct *child, long addr, long data);
int __wrap_elf_core_copy_fpregs(struct task_struct *t, elf_fpregset_t *to);

static u8 *fp_of(struct task_struct *t)
{
	return (u8 *)t->thread.regs.regs.fp;
}

static long base_of(struct task_struct *t, unsigned long option, unsigned long value)
{
	unsigned long *gp = t->thread.regs.regs.gp;

	switch (option) {
	case ARCH_SET_FS:
	case ARCH_SET_GS:
		if (value >= TASK_SIZE)
			return -EPERM;
		gp[option == ARCH_SET_FS ? HOST_FS_BASE : HOST_GS_BASE] = value;
		if (option == ARCH_SET_FS)
			t->thread.arch.fs = value;
		return 0;
	case ARCH_GET_FS:
		return put_user(gp[HOST_FS_BASE], (unsigned long __user *)value);
	case ARCH_GET_GS:
		return put_user(gp[HOST_GS_BASE], (unsigned long __user *)value);
	}
	return -EINVAL;
}

long __wrap_subarch_ptrace(struct task_struct *child, long request, unsigned long addr, unsigned long data)
{
	switch (request) {
	case PTRACE_GETFPREGS:
		keel_fp_spell_out(fp_of(child));
		return copy_to_user((void __user *)data, fp_of(child), sizeof(struct user_i387_struct)) ? -EFAULT : 0;
	case PTRACE_SETFPREGS:
		keel_fp_spell_out(fp_of(child));
		if (copy_from_user(fp_of(child), (void __user *)data, sizeof(struct user_i387_struct)))
			return -EFAULT;
		keel_fp_clean(fp_of(child), KEEL_FP_BYTES);
		return 0;
	case PTRACE_ARCH_PRCTL:
		return base_of(child, data, addr);
	}
	return -EIO;
}

static void set_eflags(struct task_struct *child, unsigned long value)
{
	unsigned long *flags = &child->thread.regs.regs.gp[HOST_EFLAGS];

	*flags = (*flags & ~(unsigned long)EFLAGS_TRACER) | (value & EFLAGS_TRACER);
}

/* arch/um's can set flags only; a base is no base of arch_switch_to()'s. */
int __wrap_putreg(struct task_struct *child, int regno, unsigned long value)
{
	if (regno == EFLAGS) {
		set_eflags(child, value);
		return 0;
	}
	if (regno == FS_BASE)
		return base_of(child, ARCH_SET_FS, value) ? -EIO : 0;
	if (regno == GS_BASE)
		return base_of(child, ARCH_SET_GS, value) ? -EIO : 0;
	return __real_putreg(child, regno, value);
}

int __wrap_poke_user(struct task_struct *child, long addr, long data)
{
	if (addr == EFLAGS || addr == FS_BASE || addr == GS_BASE)
		return __wrap_putreg(child, addr, data);
	return __real_poke_user(child, addr, data);
}

/* Of a thread in a core dump. */
int __wrap_elf_core_copy_fpregs(struct task_struct *t, elf_fpregset_t *to)
{
	keel_fp_spell_out(fp_of(t));
	memcpy(to, fp_of(t), sizeof(*to));
	return 1;
}
