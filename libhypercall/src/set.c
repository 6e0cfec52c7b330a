// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Sets of vCPUs; see hypercall/set.h. */
#include <hypercall/set.h>

#include "mutant.h"

/* Bit by bit, and not by an instruction or a library call that not every builder of this file has. */
static keel_u32 ones(keel_u64 v)
{
	keel_u32 n = 0;

	for (; v; v &= v - 1)
		n++;
	return n;
}

/* Where a bank's word is, or would be. */
static keel_u32 place(const struct keel_vcpu_set *set, keel_u32 bank)
{
	return ones(set->banks & ((KEEL_U64(1) << bank) - 1));
}

static bool has_bank(const struct keel_vcpu_set *set, keel_u32 bank)
{
	return set->banks >> bank & 1;
}

void keel_set_clear(struct keel_vcpu_set *set)
{
	keel_memset(set, 0, sizeof(*set));
}

void keel_set_first(struct keel_vcpu_set *set, keel_u32 n)
{
	keel_u32 i;

	keel_set_clear(set);
	for (i = 0; i < KEEL_VCPU_SET_BANKS && n > 64 * i; i++) {
		set->banks |= KEEL_U64(1) << i;
		set->bank[i] = n - 64 * i < 64 ? (KEEL_U64(1) << (n - 64 * i)) - 1 : ~KEEL_U64(0);
	}
}

bool keel_set_add(struct keel_vcpu_set *set, keel_u32 vcpu)
{
	keel_u32 bank = vcpu / 64, at, i;

	if (vcpu >= KEEL_SET_VCPUS)
		return false;
	at = place(set, bank);
	if (!has_bank(set, bank)) {
		for (i = ones(set->banks); i > at; i--)
			set->bank[i] = set->bank[i - 1];
		set->bank[at] = 0;
		set->banks |= KEEL_U64(1) << bank;
	}
	set->bank[at] |= KEEL_U64(1) << vcpu % 64;
	return true;
}

void keel_set_remove(struct keel_vcpu_set *set, keel_u32 vcpu)
{
	keel_u32 bank = vcpu / 64, at, count;

	if (!keel_set_has(set, vcpu))
		return;
	at = place(set, bank);
	set->bank[at] &= ~(KEEL_U64(1) << vcpu % 64);
	if (set->bank[at])
		return;
	/* A bank without members has no word. */
	count = ones(set->banks);
	for (; at + 1 < count; at++)
		set->bank[at] = set->bank[at + 1];
	set->bank[at] = 0;
	if (!KEEL_MUTANT(11))
		set->banks &= ~(KEEL_U64(1) << bank);
}

bool keel_set_has(const struct keel_vcpu_set *set, keel_u32 vcpu)
{
	keel_u32 bank = vcpu / 64;

	return vcpu < KEEL_SET_VCPUS && has_bank(set, bank) && set->bank[place(set, bank)] >> vcpu % 64 & 1;
}

keel_u32 keel_set_count(const struct keel_vcpu_set *set)
{
	keel_u32 words = ones(set->banks), n = 0, i;

	for (i = 0; i < words; i++)
		n += ones(set->bank[i]);
	return n;
}

keel_u32 keel_set_next(const struct keel_vcpu_set *set, keel_u32 from)
{
	for (; from < KEEL_SET_VCPUS; from++) {
		if (!has_bank(set, from / 64))
			from |= 63;
		else if (keel_set_has(set, from))
			return from;
	}
	return KEEL_SET_END;
}

keel_u32 keel_set_size(const struct keel_vcpu_set *set)
{
	return 8 + 8 * ones(set->banks);
}
