/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/* System calls with arguments, of a guest kernel or of guest user code: all must be refused. WINDOW is where the host's code is. */
#ifndef ATTACKS_H
#define ATTACKS_H

/* What is tried by name: calls a host may permit to itself, with arguments it may not; and the classics. */
static const struct {
	u64 nr, arg[6];
} attack[] = {
	{ 9, { KT_VA, 4096, 3, 0x32, ~0ull, 0 } }, /* mmap: private and anonymous */
	{ 9, { KT_VA, 4096, 3, 0x31, ~0ull, 0 } }, /* shared and anonymous */
	{ 9, { KT_VA, 4096, 3, 0x12, 3, 0 } },	   /* private of a file */
	{ 9, { KT_VA, 4096, 3, 0x11, 5, 0 } },	   /* other descriptors */
	{ 9, { KT_VA, 4096, 3, 0x11, 6, 0 } },
	{ 9, { KT_VA, 4096, 3, 0x11, 0, 0 } },
	{ 9, { KT_VA, 4096, 3, 0x01, 3, 0 } },	       /* not fixed */
	{ 9, { KT_VA, 4096, 3, 0x100011, 3, 0 } },     /* fixed, no replace */
	{ 9, { KT_VA, 4096, 3, 0x2011, 3, 0 } },       /* locked */
	{ 9, { KT_VA, 4096, 3, 0x4000011, 3, 0 } },    /* unknown flag */
	{ 9, { KT_VA, 4096, 0x1000003, 0x11, 3, 0 } }, /* growsdown */
	{ 9, { WINDOW, 4096, 7, 0x11, 3, 0 } },	       /* over the host's code */
	{ 9, { KEEL_VA_END, 4096, 7, 0x11, 3, 0 } },
	{ 9, { KT_VA, 0x100001000, 3, 0x11, 3, 0 } }, /* a length of more than 32 bits */
	{ 9, { KT_VA, 1ull << 63, 3, 0x11, 3, 0 } },
	{ 9, { KT_VA, 4096, 3, 0x11, 3, 1ull << 40 } },	 /* beyond RAM */
	{ 9, { KT_VA, 4096, 3, 0x11, 4, 0 } },		 /* the ABI pages, writable */
	{ 9, { KT_VA, 4096, 3, 0x11, 0x100000003, 0 } }, /* high half of a descriptor */
	{ 9, { KT_VA, 4096, 3, 0x100000011, 3, 0 } },
	{ 9, { 1ull << 63 | KT_VA, 4096, 3, 0x11, 3, 0 } },
	{ 10, { WINDOW, 4096, 7 } }, /* mprotect: the host's code writable */
	{ 10, { KEEL_VA_END, 4096, 7 } },
	{ 10, { KT_VA, 0x100001000, 7 } },
	{ 10, { KT_VA, 4096, 0x1000007 } },
	{ 11, { WINDOW, 4096 } }, /* munmap */
	{ 11, { 0x7f0300000000, 4096 } },
	{ 11, { KEEL_VA_END, 0x7f0000000000 } },
	{ 11, { KT_VA, 0x800000000000 } },
	{ 25, { KT_LINEAR, 4096, 8192, 1, 0 } }, /* mremap */
	{ 25, { WINDOW, 4096, 4096, 3, KT_VA } },
	{ 28, { KT_LINEAR, 4096, 9 } }, /* madvise: remove */
	{ 28, { KT_LINEAR, 4096, 4 } },
	{ 28, { 0x7f1000000000, 4096, 9 } },
	{ 28, { 0x7f1000000000, 4096, 100 } }, /* hwpoison */
	{ 1, { 1, 0x400000, 8 } },	       /* write: to the outside */
	{ 1, { 2, 0x400000, 8 } },
	{ 1, { 0, 0x400000, 8 } },
	{ 1, { 3, 0x400000, 8 } },
	{ 1, { 6, 0x400000, 8 } }, /* from memory that is not the vCPU's */
	{ 1, { 6, 0x7f0300000000, 16 } },
	{ 0, { 3, 0x400000, 8 } }, /* read */
	{ 0, { 0, KT_LINEAR, 8 } },
	{ 202, { KT_LINEAR, 9, 0, 0, 0, ~0u } },	     /* futex: not the vCPU's word */
	{ 202, { 0x7f0300000000, 3, 1, 1, KT_LINEAR, 0 } },  /* requeue */
	{ 202, { 0x7f0300000000, 5, 1, 1, KT_LINEAR, 0 } },  /* wake_op */
	{ 202, { 0x7f0300000000, 6, 0, 0, 0, 0 } },	     /* lock_pi */
	{ 202, { 0x7f0300000000, 1, 0x7fffffff, 0, 0, 0 } }, /* wake everyone */
	{ 223, { 1, 1, 0x7f0300000000, 0 } },		     /* timer_settime: another timer */
	{ 223, { 0, 0, 0x7f0300000000, 0 } },
	{ 223, { 0, 1, 0x7f0300000000, KT_LINEAR } },
	{ 223, { 0, 1, KT_LINEAR, 0 } },
	{ 228, { 0, 0x7f0300000000 } }, /* clock_gettime: another clock */
	{ 228, { 1, KT_LINEAR } },
	{ 228, { 0xfffffffe, 0x7f0300000000 } },
	{ 285, { 3, 0, 0, 4096 } }, /* fallocate: grow, or another file */
	{ 285, { 3, 3, 1ull << 40, 4096 } },
	{ 285, { 4, 3, 0, 4096 } },
	{ 285, { 3, 8, 0, 4096 } }, /* collapse */
	{ 77, { 3, 0 } },	    /* ftruncate the RAM file */
	{ 72, { 3, 1033, 0 } },	    /* fcntl: add seals */
	{ 32, { 3 } },		    /* dup, close */
	{ 3, { 3 } },
	{ 15, { 0 } },			 /* rt_sigreturn */
	{ 13, { 11, KT_LINEAR, 0, 8 } }, /* rt_sigaction */
	{ 14, { 0, KT_LINEAR, 0, 8 } },	 /* rt_sigprocmask */
	{ 131, { KT_LINEAR, 0 } },	 /* sigaltstack */
	{ 56, { 0x11, 0, 0, 0, 0 } },	 /* clone, fork, vfork, clone3 */
	{ 56, { 0x10900, KT_LINEAR, 0, 0, 0 } },
	{ 57, { 0 } },
	{ 58, { 0 } },
	{ 435, { KT_LINEAR, 88 } },
	{ 59, { 0x400000, 0, 0 } }, /* execve, execveat */
	{ 322, { 3, 0x400000, 0, 0, 0x1000 } },
	{ 60, { 0 } }, /* exit, exit_group */
	{ 231, { 0 } },
	{ 62, { 1, 9 } }, /* kill, tkill, tgkill, rt_sigqueueinfo, pidfd */
	{ 62, { ~0ull, 9 } },
	{ 200, { 1, 9 } },
	{ 234, { 1, 1, 9 } },
	{ 129, { 1, 9, KT_LINEAR } },
	{ 434, { 1, 0 } },
	{ 101, { 16, 1, 0, 0 } },		    /* ptrace */
	{ 310, { 1, KT_LINEAR, 1, KT_LINEAR, 1 } }, /* process_vm_readv, writev */
	{ 311, { 1, KT_LINEAR, 1, KT_LINEAR, 1 } },
	{ 2, { 0x400000, 0, 0 } }, /* open, openat, openat2 */
	{ 257, { 0xffffff9c, 0x400000, 0, 0 } },
	{ 437, { 0xffffff9c, 0x400000, KT_LINEAR, 24 } },
	{ 41, { 2, 1, 0 } }, /* socket, socketpair */
	{ 53, { 1, 1, 0, KT_LINEAR } },
	{ 425, { 8, KT_LINEAR } },   /* io_uring_setup */
	{ 323, { 0 } },		     /* userfaultfd */
	{ 319, { 0x400000, 0 } },    /* memfd_create */
	{ 157, { 38, 0, 0, 0, 0 } }, /* prctl: no_new_privs off, speculation, name */
	{ 157, { 4, 1, 0, 0, 0 } },
	{ 157, { 59, 0, 0, 0, 0 } },
	{ 317, { 1, 0, KT_LINEAR } },	/* seccomp */
	{ 158, { 0x1001, KT_LINEAR } }, /* arch_prctl: GS, FS */
	{ 158, { 0x1002, KT_LINEAR } },
	{ 154, { 1, KT_LINEAR, 16 } }, /* modify_ldt */
	{ 172, { 3 } },		       /* iopl, ioperm */
	{ 173, { 0, 100, 1 } },
	{ 135, { 0x0400000 } },	 /* personality */
	{ 272, { 0x10000000 } }, /* unshare, setns */
	{ 308, { 3, 0 } },
	{ 165, { 0x400000, 0x400000, 0x400000, 0, 0 } }, /* mount, chroot */
	{ 161, { 0x400000 } },
	{ 321, { 0, KT_LINEAR, 64 } }, /* bpf, perf_event_open, keyctl */
	{ 298, { KT_LINEAR, 0, ~0ull, ~0ull, 0 } },
	{ 250, { 0, 0 } },
	{ 334, { KT_LINEAR, 32, 0, 0x53053053 } }, /* rseq, membarrier, pkey_mprotect */
	{ 324, { 8, 0, 0 } },
	{ 329, { KT_LINEAR, 4096, 7, 0 } },
	{ 160, { 9, KT_LINEAR } }, /* setrlimit, prlimit */
	{ 302, { 0, 9, KT_LINEAR, 0 } },
	{ 203, { 0, 8, KT_LINEAR } }, /* sched_setaffinity, setscheduler, setpriority */
	{ 144, { 0, 1, KT_LINEAR } },
	{ 141, { 0, 0, -20ull } },
	{ 222, { 1, KT_LINEAR, KT_LINEAR } }, /* timer_create, timer_delete, setitimer */
	{ 226, { 0 } },
	{ 38, { 0, KT_LINEAR, 0 } },
	{ 12, { KT_VA } }, /* brk, mlock, shmat */
	{ 149, { KT_LINEAR, 4096 } },
	{ 30, { 0, KT_VA, 0 } },
	{ 16, { 3, 0x5421, KT_LINEAR } }, /* ioctl */
	{ 40, { 3, 4, 0, 4096 } },	  /* sendfile, splice */
	{ 275, { 3, 0, 4, 0, 4096, 0 } },
};

#define ATTACKS (sizeof(attack) / sizeof(attack[0]))

#endif
