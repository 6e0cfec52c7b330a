// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the sparse gate must catch: shared memory read without its accessor.
 * Built only by that gate, with and without the mistake, as a module and as a
 * program.
 */
#include <hypercall/compat.h>

#ifdef __KERNEL__
#include <linux/module.h>
MODULE_LICENSE("GPL");
#endif

keel_u32 planted(const keel_u32 __pvshared *word);
keel_u32 planted(const keel_u32 __pvshared *word)
{
#ifdef PLANT
	return *word;
#else
	return keel_shared_load32(word);
#endif
}
