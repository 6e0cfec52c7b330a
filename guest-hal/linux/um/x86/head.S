/* SPDX-License-Identifier: GPL-2.0-only */
/* From the initial vCPU state (rdi = start info, everything else zero, no stack) to C. */
#include <linux/init.h>
#include <linux/linkage.h>

	__INIT
SYM_CODE_START(_start)
	movabsq	$keel_boot_stack + (4096 << CONFIG_KERNEL_STACK_ORDER), %rsp
	xorl	%ebp, %ebp
	movabsq	$keel_linux_start, %rax
	call	*%rax
	ud2
SYM_CODE_END(_start)

	.section .note.GNU-stack, "", @progbits
