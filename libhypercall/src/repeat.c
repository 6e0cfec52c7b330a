// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Bounded calls, repeated; see hypercall/repeat.h. */
#include <hypercall/repeat.h>

struct range {
	keel_as_t as;
	keel_u64 at; /* guest-virtual or guest-physical, whichever the call takes */
	keel_u64 len;
	keel_u64 flags;
};

/* One call on what is left of a range; value: pages done. */
typedef struct keel_ret (*range_fn)(const struct range *r);

static struct keel_ret over_range(range_fn call, struct range r)
{
	struct keel_ret ret;
	keel_u64 done = 0;

	/* At least once: an empty range is for the host to reject. */
	do {
		ret = call(&r);
		if (ret.value > r.len >> KEEL_PAGE_SHIFT || (!ret.status && !ret.value))
			ret = (struct keel_ret){ KEEL_STATUS(KEEL_E_STATE, 0), 0 };
		done += ret.value;
		r.at += ret.value << KEEL_PAGE_SHIFT;
		r.len -= ret.value << KEEL_PAGE_SHIFT;
	} while (!ret.status && r.len);
	return (struct keel_ret){ ret.status, done };
}

static struct keel_ret release(const struct range *r)
{
	return keel_memory_release(keel_gpa(r->at), r->len);
}

static struct keel_ret populate(const struct range *r)
{
	return keel_memory_populate(keel_gpa(r->at), r->len);
}

static struct keel_ret start(const struct range *r)
{
	return keel_harvest_start(r->as, r->at, r->len, r->flags);
}

static struct keel_ret stop(const struct range *r)
{
	return keel_harvest_stop(r->as, r->at, r->len);
}

struct keel_ret keel_memory_release_all(keel_gpa_t gpa, keel_u64 len)
{
	return over_range(release, (struct range){ .at = gpa.v, .len = len });
}

struct keel_ret keel_memory_populate_all(keel_gpa_t gpa, keel_u64 len)
{
	return over_range(populate, (struct range){ .at = gpa.v, .len = len });
}

struct keel_ret keel_harvest_start_all(keel_as_t as, keel_u64 va, keel_u64 len, keel_u64 flags)
{
	return over_range(start, (struct range){ as, va, len, flags });
}

struct keel_ret keel_harvest_stop_all(keel_as_t as, keel_u64 va, keel_u64 len)
{
	return over_range(stop, (struct range){ as, va, len, 0 });
}

struct keel_ret keel_harvest_collect_all(keel_as_t as, keel_u64 va, keel_u64 len, keel_gpa_t bitmap)
{
	keel_u64 pages = 0, written = 0, done;
	struct keel_ret ret;

	do {
		ret = keel_harvest_collect(as, va, len, bitmap);
		done = KEEL_HARVEST_DONE_PAGES(ret.value);
		if (ret.status)
			break;
		/* Short of the end it stops at a whole word of the bitmap. */
		if (!done || done > len >> KEEL_PAGE_SHIFT || (done < len >> KEEL_PAGE_SHIFT && done % 64)) {
			ret.status = KEEL_STATUS(KEEL_E_STATE, 0);
			break;
		}
		pages += done;
		written += KEEL_HARVEST_WRITTEN(ret.value);
		va += done << KEEL_PAGE_SHIFT;
		len -= done << KEEL_PAGE_SHIFT;
		bitmap.v += done / 8;
	} while (len);
	return (struct keel_ret){ ret.status, pages | written << 32 };
}

struct keel_ret keel_event_batch_all(keel_gpa_t records, keel_u32 count)
{
	struct keel_ret ret;
	keel_u32 done = 0;

	do {
		ret = keel_event_batch(keel_gpa(records.v + done * sizeof(struct keel_event_record)), count - done, 0);
		if (ret.value > count - done || (!ret.status && !ret.value && count))
			ret = (struct keel_ret){ KEEL_STATUS(KEEL_E_STATE, 0), 0 };
		done += (keel_u32)ret.value;
	} while (!ret.status && done < count);
	return (struct keel_ret){ ret.status, done };
}

struct keel_ret keel_multicall_all(keel_gpa_t entries, keel_u32 count, keel_gpa_t results, keel_u64 flags,
				   const struct keel_multicall_result *result_va)
{
	bool stop_on_error = flags & KEEL_MULTICALL_STOP_ON_ERROR;
	struct keel_ret ret;
	keel_u32 done = 0;

	do {
		ret = keel_multicall(keel_gpa(entries.v + done * sizeof(struct keel_multicall)), count - done,
				     keel_gpa(results.v + done * sizeof(struct keel_multicall_result)), flags);
		if (ret.value > count - done || (!ret.status && !ret.value && count))
			ret = (struct keel_ret){ KEEL_STATUS(KEEL_E_STATE, 0), 0 };
		done += (keel_u32)ret.value;
		if (stop_on_error && done && result_va[done - 1].status < 0)
			break;
	} while (!ret.status && done < count);
	return (struct keel_ret){ ret.status, done };
}

struct keel_ret keel_as_clone_all(keel_as_t as, keel_u64 flags)
{
	struct keel_ret ret;

	do {
		ret = keel_as_clone(as, flags);
	} while (KEEL_STATUS_CODE(ret.status) == KEEL_E_AGAIN);
	return ret;
}

struct keel_ret keel_as_destroy_all(keel_as_t as)
{
	struct keel_ret ret;

	/* Whoever is to leave it may need this processor. */
	while (KEEL_STATUS_CODE((ret = keel_as_destroy(as)).status) == KEEL_E_AGAIN)
		keel_vcpu_yield(KEEL_VCPU_ANY);
	return ret;
}

struct keel_ret keel_user_run(keel_as_t as, keel_gpa_t context)
{
	struct keel_ret ret;

	do {
		ret = keel_user_enter(as, context, 0);
	} while (!ret.status && ret.value == KEEL_USER_EVENT && keel_irq_enabled());
	return ret;
}
