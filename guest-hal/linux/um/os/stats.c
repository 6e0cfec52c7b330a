// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the port and its host count, in debugfs below keel/. `calls`: of each hypercall
 * that was made, its number of calls, of errors, and the work done, as the host counts.
 * `user`: what the port did for user code.
 */
#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "keel_um.h"

struct keel_irq_stats keel_irq_stats;

#define A(kind, name)
#define KEEL_EXT(...)
#define KEEL_CALL(ext, fn, name, ...) { KEEL_CALL_ID(KEEL_EXT_##ext, fn), #name },
static const struct {
	u32 id;
	const char *name;
} names[] = {
#include <hypercalls.def>
};

static const char *name_of(u32 id)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].id == id)
			return names[i].name;
	return "?";
}

static int calls_show(struct seq_file *m, void *unused)
{
	struct keel_stats_entry *e = (struct keel_stats_entry *)__get_free_page(GFP_KERNEL);
	struct keel_ret ret;
	u32 first, i;

	if (!e)
		return -ENOMEM;
	for (first = 0;; first += ret.value) {
		ret = keel_stats_read(keel_gpa_of(e), PAGE_SIZE, first);
		if (ret.status || !ret.value)
			break;
		for (i = 0; i < ret.value; i++) {
			if (e[i].calls)
				seq_printf(m, "%s %llu %llu %llu\n", name_of(e[i].id), e[i].calls, e[i].errors,
					   e[i].work);
		}
	}
	free_page((unsigned long)e);
	return ret.status ? -EOPNOTSUPP : 0;
}
DEFINE_SHOW_ATTRIBUTE(calls);

static int user_show(struct seq_file *m, void *unused)
{
	const struct keel_mmu_stats *s = &keel_mmu_stats;

	seq_printf(m, "enters %llu\nfaults %llu\nbatches %llu\nrecords %llu\npages %llu\n", s->enters, s->faults,
		   s->calls, s->records, s->pages);
	seq_printf(m, "upcalls %llu\nwaits %llu\nlate_ns %llu\n", keel_irq_stats.upcalls, keel_irq_stats.waits,
		   keel_irq_stats.late_ns);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(user);

static int __init keel_debugfs_init(void)
{
	struct dentry *dir = debugfs_create_dir("keel", NULL);

	debugfs_create_file("calls", 0444, dir, NULL, &calls_fops);
	debugfs_create_file("user", 0444, dir, NULL, &user_fops);
	return 0;
}
late_initcall(keel_debugfs_init);
