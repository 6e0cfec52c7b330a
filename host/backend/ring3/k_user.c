/* SPDX-License-Identifier: MIT */
/* User code: none yet, so no address space for it can be made. */
#include "k_user.h"

bool mb_as_create(struct mvcpu *v, struct as *as)
{
	(void)v, (void)as;
	return false;
}

void mb_as_destroy(struct mvcpu *v, struct as *as)
{
	(void)v, (void)as;
}

uint32_t mb_user(struct mvcpu *v)
{
	(void)v;
	return KEEL_USER_EVENT;
}

void k_user_map(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint64_t gpa, uint32_t prot,
		unsigned int flags)
{
	(void)v, (void)as, (void)va, (void)pages, (void)gpa, (void)prot, (void)flags;
}

void k_user_unmap(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages)
{
	(void)v, (void)as, (void)va, (void)pages;
}

void k_user_protect(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint32_t prot)
{
	(void)v, (void)as, (void)va, (void)pages, (void)prot;
}

void k_user_settle(struct mvcpu *v, struct as *as)
{
	(void)v, (void)as;
}
