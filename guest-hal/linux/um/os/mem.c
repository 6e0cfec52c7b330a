// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel's own address space. arch/um thinks of its memory as a file: here the
 * file is RAM, offset is GPA, and the image lies where it would lie in it, so that
 * physical address, offset and GPA are one.
 */
#include <linux/types.h>
#include <linux/init.h>
#include <linux/initrd.h>
#include <linux/kernel.h>
#include <linux/memblock.h>
#include <linux/mm.h>
#include <asm/page.h>

#include <as-layout.h>
#include <init.h>
#include <os.h>

#include "keel_um.h"

#define RAM_FD 1 /* what phys_mapping() calls RAM */

extern char _end[];

keel_gpa_t keel_gpa_of(const void *p)
{
	return keel_gpa(__pa(p));
}

static struct keel_ret submit(void *ctx, keel_as_t as, keel_gpa_t records, u32 count, u64 flags)
{
	return keel_mmu_batch(as, records, count, flags);
}

/* One record, now. The kernel's own space has no use for batches: vmalloc maps a page array at a time. */
static int update(u16 op, unsigned long va, u64 gpa, unsigned long len, u16 prot)
{
	static struct keel_mmu_record record;
	struct keel_batch batch;
	bool irq = keel_irq_save();
	s64 status;

	keel_batch_init(&batch, &record, keel_gpa_of(&record), 1, keel_as(0), submit, NULL);
	if (op == KEEL_MMU_MAP)
		keel_batch_map(&batch, va, keel_gpa(gpa), len, prot, 0);
	else
		keel_batch_unmap(&batch, va, len);
	status = keel_batch_flush(&batch);
	keel_irq_restore(irq);
	return !status ? 0 : KEEL_STATUS_CODE(status) == KEEL_E_NOMEM ? -ENOMEM : -EINVAL;
}

int os_map_memory(void *virt, int fd, unsigned long long off, unsigned long len, int r, int w, int x)
{
	/* Code outside the image is a module's, and modules are in vmalloc space. */
	u16 prot = KEEL_PROT_R | (w ? KEEL_PROT_W : 0);

	if (x && (unsigned long)virt >= start_vm)
		prot |= KEEL_PROT_X;
	return update(KEEL_MMU_MAP, (unsigned long)virt, off, len, prot);
}

int os_unmap_memory(void *addr, int len)
{
	return update(KEEL_MMU_UNMAP, (unsigned long)addr, 0, len, 0);
}

/* tlb.c asks for all rights, always, which is what is there. */
int os_protect_memory(void *addr, unsigned long len, int r, int w, int x)
{
	return 0;
}

int os_drop_memory(void *addr, int length)
{
	return -EOPNOTSUPP;
}

int can_drop_memory(void)
{
	return 0;
}

/* Before the first allocation: modules lie in RAM, the first of them is the initial file system. */
int __init create_mem_file(unsigned long long len)
{
	const struct keel_module *m;
	unsigned int i;

	for (i = 0; (m = keel_start_module(keel_start, i)); i++) {
		memblock_reserve(m->gpa, PAGE_ALIGN(m->len));
		if (i)
			continue;
		initrd_start = (unsigned long)__va(m->gpa);
		initrd_end = initrd_start + m->len;
	}
	return RAM_FD;
}

/* For a copy of the stub that user processes of other hosts have. It is in RAM as it is. */
int os_seek_file(int fd, unsigned long long offset)
{
	return 0;
}

int os_write_file(int fd, const void *buf, int count)
{
	return count;
}

int os_fsync_file(int fd)
{
	return 0;
}

/* Nothing is allocated behind the image before memblock does it. */
void *sbrk(long increment)
{
	return (void *)PAGE_ALIGN((unsigned long)_end);
}

void stack_protections(unsigned long address)
{
}
