// SPDX-License-Identifier: GPL-2.0-only
/*
 * What hvc_keel.c uses of hvc_console.h, as modules.sh has genksyms see it: where types are
 * the kernel's, so are the symbol versions that come of them. Among the types are those of
 * what drivers/tty/hvc/hvc_console.c includes, so that has to be the same here.
 */
#include <linux/console.h>
#include <linux/cpumask.h>
#include <linux/init.h>
#include <linux/kbd_kern.h>
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/major.h>
#include <linux/atomic.h>
#include <linux/sysrq.h>
#include <linux/tty.h>
#include <linux/tty_flip.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/delay.h>
#include <linux/freezer.h>
#include <linux/slab.h>
#include <linux/serial_core.h>
#include <linux/uaccess.h>

#include "hvc_console.h"

EXPORT_SYMBOL_GPL(hvc_alloc);
EXPORT_SYMBOL_GPL(hvc_remove);
EXPORT_SYMBOL_GPL(hvc_poll);
EXPORT_SYMBOL_GPL(hvc_kick);
EXPORT_SYMBOL_GPL(__hvc_resize);
