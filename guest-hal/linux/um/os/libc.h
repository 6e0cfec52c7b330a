/* SPDX-License-Identifier: GPL-2.0-only */
/* Declarations of libc.c that no header of the kernel's has; some are of names that it uses otherwise. */
#ifndef KEEL_UM_LIBC_H
#define KEEL_UM_LIBC_H

#include <linux/types.h>

int libc_sigemptyset(void *set) __asm__("sigemptyset");
int libc_sigfillset(void *set) __asm__("sigfillset");
int libc_sigaddset(void *set, int sig) __asm__("sigaddset");
int libc_sigdelset(void *set, int sig) __asm__("sigdelset");
int libc_sigprocmask(int how, const void *set, void *old) __asm__("sigprocmask");
long ptrace(int request, ...);
int parse_iomem(char *str, int *add);
int *__errno_location(void);
int open64(const char *path, int flags, ...);
long read(int fd, void *buf, size_t n);
long write(int fd, const void *buf, size_t n);
int close(int fd);
int ioctl(int fd, unsigned long request, ...);
int isatty(int fd);
int tcgetattr(int fd, void *termios);
int tcsetattr(int fd, int actions, const void *termios);
int tcgetpgrp(int fd);
int tcsetpgrp(int fd, int pgrp);
int setsid(void);
int sigsuspend(const void *mask);
void *signal(int sig, void *handler);
unsigned long strtoul(const char *s, char **end, int base);
#endif
