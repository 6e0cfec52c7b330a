// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* The event map of one vCPU; see hypercall/event.h for the protocol. */
#include <hypercall/event.h>

#include "mutant.h"

#define WORD(bit) ((bit) / 64)
#define MASK(bit) (KEEL_U64(1) << ((bit) % 64))

/* Publish that a word has something. Returns true when nothing was pending on the vCPU before. */
static bool raise_word(struct keel_vcpu __pvshared *v, keel_u32 word)
{
	return keel_shared_or64(&v->pending, KEEL_U64(1) << word) == 0;
}

bool keel_ev_send(struct keel_vcpu __pvshared *v, keel_u32 bit)
{
	keel_u32 w = WORD(bit);

	keel_shared_or64(&v->event_pending[w], MASK(bit));
	/* Looked at after the store above: an unmask in between finds the event itself. */
	if (keel_shared_load64(&v->event_mask[w]) & MASK(bit) && !KEEL_MUTANT(7))
		return false;
	return raise_word(v, w);
}

void keel_ev_mask(struct keel_vcpu __pvshared *v, keel_u32 bit)
{
	keel_shared_or64(&v->event_mask[WORD(bit)], MASK(bit));
}

bool keel_ev_unmask(struct keel_vcpu __pvshared *v, keel_u32 bit)
{
	keel_u32 w = WORD(bit);

	keel_shared_andnot64(&v->event_mask[w], MASK(bit));
	if (!(keel_shared_load64(&v->event_pending[w]) & MASK(bit)))
		return false;
	raise_word(v, w);
	return true;
}

void keel_ev_clear(struct keel_vcpu __pvshared *v, keel_u32 bit)
{
	keel_u32 w = WORD(bit);

	/* The word's pending bit may stay: the dispatcher copes with a word that turns out empty. */
	keel_shared_or64(&v->event_mask[w], MASK(bit));
	if (!KEEL_MUTANT(8))
		keel_shared_andnot64(&v->event_pending[w], MASK(bit));
}

bool keel_ev_pending(const struct keel_vcpu __pvshared *v)
{
	return keel_shared_load64(&v->pending) != 0;
}

bool keel_ev_test(const struct keel_vcpu __pvshared *v, keel_u32 bit)
{
	return keel_shared_load64(&v->event_pending[WORD(bit)]) & MASK(bit);
}

static keel_u64 deliverable(const struct keel_vcpu __pvshared *v, keel_u32 word)
{
	return keel_shared_load64(&v->event_pending[word]) & ~keel_shared_load64(&v->event_mask[word]);
}

int keel_ev_next(struct keel_vcpu __pvshared *v)
{
	keel_u64 words, bits;
	keel_u32 w, b;

	while ((words = keel_shared_load64(&v->pending)) != 0) {
		w = (keel_u32)__builtin_ctzll(words);
		bits = deliverable(v, w);
		if (!(bits & (bits - 1))) {
			/*
			 * At most one: the word will be empty. Clear its bit first and
			 * look again, for a sender may have been between the two.
			 */
			keel_shared_andnot64(&v->pending, KEEL_U64(1) << w);
			bits = deliverable(v, w);
			if (!bits)
				continue;
			if (bits & (bits - 1))
				raise_word(v, w);
		}
		b = (keel_u32)__builtin_ctzll(bits);
		keel_shared_andnot64(&v->event_pending[w], KEEL_U64(1) << b);
		return (int)(w * 64 + b);
	}
	return -1;
}

unsigned int keel_ev_dispatch(struct keel_vcpu __pvshared *v, const struct keel_event_action *table, keel_u64 *spurious)
{
	unsigned int n = 0;
	int bit;

	while ((bit = keel_ev_next(v)) >= 0) {
		const struct keel_event_action *a = &table[bit];

		if (a->fn)
			a->fn(a->arg, (keel_u32)bit);
		else if (spurious)
			++*spurious;
		n++;
	}
	return n;
}
