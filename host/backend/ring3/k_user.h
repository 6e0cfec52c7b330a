/* SPDX-License-Identifier: MIT */
/* The cache of a user address space: VMAs of a process that is not K. */
#ifndef KEEL_RING3_K_USER_H
#define KEEL_RING3_K_USER_H

#include "../../monitor/monitor.h"

/* mb_map() and its like, for address spaces other than the guest kernel's. */
void k_user_map(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint64_t gpa, uint32_t prot,
		unsigned int flags);
void k_user_unmap(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages);
void k_user_protect(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint32_t prot);
void k_user_settle(struct mvcpu *v, struct as *as);

#endif
