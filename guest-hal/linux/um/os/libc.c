// SPDX-License-Identifier: GPL-2.0-only
/*
 * Names that objects of arch/um refer to and that mean nothing here: files, helper
 * processes and terminals of a host, and its C library. Each fails as it does where the
 * thing is missing; arch/um's own console, the one that uses most of them, finds no
 * terminal to open.
 */
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/signal.h>
#include <linux/types.h>

#include <as-layout.h>
#include <os.h>
#include <registers.h>
#include <skas.h>

#include "libc.h"

/* Helper processes, and the registers of ptrace */

int run_helper_thread(int (*proc)(void *), void *arg, unsigned int flags, unsigned long *stack_out)
{
	return -ENOSYS;
}

void os_kill_process(int pid, int reap_child)
{
}

int is_skas_winch(int pid, int fd, void *data)
{
	return 0;
}

int save_registers(int pid, struct uml_pt_regs *regs)
{
	return 0;
}

int restore_pid_registers(int pid, struct uml_pt_regs *regs)
{
	return 0;
}

long ptrace(int request, ...)
{
	return -1;
}

/* System calls made in a user process of a host: for modify_ldt. */

long run_syscall_stub(struct mm_id *id, int syscall, unsigned long *args, long expected, void **addr, int done)
{
	return -ENOSYS;
}

long syscall_stub_data(struct mm_id *id, unsigned long *data, int data_count, void **addr, void **stub_addr)
{
	return -ENOSYS;
}

/* modify_ldt again, to read what is inherited: one entry, and that is empty. */
long syscall(long number, ...)
{
	return 8;
}

/* Files */

int os_open_file(const char *file, struct openflags flags, int mode)
{
	return -ENOENT;
}

void os_close_file(int fd)
{
}

int os_read_file(int fd, void *buf, int len)
{
	return -EBADF;
}

int os_file_size(const char *file, unsigned long long *size_out)
{
	return -ENOENT;
}

int os_pipe(int *fd, int stream, int close_on_exec)
{
	return -ENOSYS;
}

int os_set_fd_async(int fd)
{
	return -EBADF;
}

int os_set_fd_block(int fd, int blocking)
{
	return -EBADF;
}

int ignore_sigio_fd(int fd)
{
	return -EBADF;
}

void maybe_sigio_broken(int fd)
{
}

int parse_iomem(char *str, int *add)
{
	os_warn("iomem= is for files of a host\n");
	return 1;
}

int raw(int fd)
{
	return -EBADF;
}

/* Its name among others on a host. */

int set_umid(char *name)
{
	return 0;
}

char *get_umid(void)
{
	return "keel";
}

/* The C library */

static int errno_here;

int *__errno_location(void)
{
	errno_here = EBADF;
	return &errno_here;
}

int open64(const char *path, int flags, ...)
{
	return -1;
}

long read(int fd, void *buf, size_t n)
{
	return -1;
}

long write(int fd, const void *buf, size_t n)
{
	return -1;
}

int close(int fd)
{
	return -1;
}

int ioctl(int fd, unsigned long request, ...)
{
	return -1;
}

int isatty(int fd)
{
	return 0;
}

int tcgetattr(int fd, void *termios)
{
	return -1;
}

int tcsetattr(int fd, int actions, const void *termios)
{
	return -1;
}

int tcgetpgrp(int fd)
{
	return -1;
}

int tcsetpgrp(int fd, int pgrp)
{
	return -1;
}

int setsid(void)
{
	return -1;
}

int sigsuspend(const void *mask)
{
	return -1;
}

void *signal(int sig, void *handler)
{
	return (void *)-1L;
}

int libc_sigemptyset(void *set)
{
	return 0;
}

int libc_sigfillset(void *set)
{
	return 0;
}

int libc_sigaddset(void *set, int sig)
{
	return 0;
}

int libc_sigdelset(void *set, int sig)
{
	return 0;
}

int libc_sigprocmask(int how, const void *set, void *old)
{
	return -1;
}

unsigned long strtoul(const char *s, char **end, int base)
{
	return simple_strtoul(s, end, base);
}
