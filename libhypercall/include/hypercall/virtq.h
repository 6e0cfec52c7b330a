/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * The driver's side of a split virtqueue (virtio 2.7), in memory the caller brings.
 * Pure operations on that memory: addresses come as GPAs, notifications are left
 * to the caller, nothing is allocated and nothing waits.
 *
 * The device is not trusted. What the driver needs later stands in slots the
 * device cannot see; of what the device writes only the used ring is read, each field
 * once. A used entry that cannot be breaks the queue, which stays so until
 * it is set up again: nothing else is given back, because a device that lies
 * about one buffer may be writing to any.
 *
 *	keel_virtq_add() ...			some buffers
 *	keel_virtq_publish()			the device may take them
 *	if (keel_virtq_must_notify())		ring its doorbell
 *	...
 *	while (keel_virtq_get() == 1)		what it is done with
 *	if (!keel_virtq_enable())		nothing since: wait for its event
 *
 * One caller at a time.
 */
#ifndef HYPERCALL_VIRTQ_H
#define HYPERCALL_VIRTQ_H

#include <hypercall/compat.h>
#include <keel/status.h>

KEEL_BEGIN_C

/* Of every device; bits of feature word 0, virtio 6. */
#define KEEL_VIRTIO_F_INDIRECT_DESC KEEL_U64(0x10000000)
#define KEEL_VIRTIO_F_EVENT_IDX KEEL_U64(0x20000000)
#define KEEL_VIRTIO_F_VERSION_1 KEEL_U64(0x100000000)

#define KEEL_VIRTQ_MAX 32768 /* entries, a power of two */

/* struct keel_virtq_desc.flags */
#define KEEL_VIRTQ_DESC_NEXT 1
#define KEEL_VIRTQ_DESC_WRITE 2
#define KEEL_VIRTQ_DESC_INDIRECT 4

/* Flags of the two rings, each a wish of its writer not to be told; zero with EVENT_IDX. */
#define KEEL_VIRTQ_AVAIL_NO_INTERRUPT 1
#define KEEL_VIRTQ_USED_NO_NOTIFY 1

/* A descriptor, in the table and in indirect tables. */
struct keel_virtq_desc {
	keel_u64 addr;
	keel_u32 len;
	keel_u16 flags;
	keel_u16 next;
};

struct keel_virtq_used_elem {
	keel_u32 id;
	keel_u32 len;
};
KEEL_ASSERT_SIZE(struct keel_virtq_desc, 16);
KEEL_ASSERT_SIZE(struct keel_virtq_used_elem, 8);

/*
 * Where the parts of a queue of n entries stand in its ring memory, and how much that is:
 *
 *	available ring	flags, idx, ring[n], used_event		u16
 *	used ring	flags, idx, n elements, avail_event	u16 but for the elements
 */
#define KEEL_VIRTQ_AVAIL_AT(n) (16 * (n))
#define KEEL_VIRTQ_USED_AT(n) ((18 * (n) + 6 + 3) & ~3u)
#define KEEL_VIRTQ_BYTES(n) (KEEL_VIRTQ_USED_AT(n) + 6 + 8 * (n))

/* Part of a buffer. */
struct keel_virtq_seg {
	keel_u64 gpa;
	keel_u32 len;
};

/*
 * What the driver knows of a descriptor. next: of its chain, or the next free one. cookie, lent, descs
 * and told are those of the chain that begins here, where descs is not 0. listed has nothing to do
 * with all that: it is the driver's copy of the available ring, which the device could overwrite.
 */
struct keel_virtq_slot {
	void *cookie;
	keel_u32 lent; /* bytes the device may write */
	keel_u16 next;
	keel_u16 descs; /* of the table in use */
	keel_u16 listed;
	bool told; /* published */
};

/**
 * struct keel_virtq_memory - what a queue of n entries lives in
 * @ring: KEEL_VIRTQ_BYTES(n) bytes of RAM, 16-byte aligned
 * @ring_gpa: where that is
 * @slots: n of them, the driver's own
 * @indirect: n tables of @indirect_each descriptors, 16-byte aligned; NULL for none
 * @indirect_gpa: where that is
 * @indirect_each: the most segments a buffer with a table of its own can have
 */
struct keel_virtq_memory {
	void *ring;
	keel_u64 ring_gpa;
	struct keel_virtq_slot *slots;
	struct keel_virtq_desc *indirect;
	keel_u64 indirect_gpa;
	keel_u16 indirect_each;
};

struct keel_virtq {
	struct keel_virtq_memory mem;
	struct keel_virtq_desc __pvshared *desc;
	keel_u16 __pvshared *avail;
	keel_u16 __pvshared *used;
	keel_u32 entries;
	keel_u32 unannounced; /* published since keel_virtq_must_notify() looked */
	keel_u16 free_head;
	keel_u16 free;	    /* descriptors */
	keel_u16 in_flight; /* chains the device was told of */
	keel_u16 added;	    /* index behind the last buffer added */
	keel_u16 published; /* what the device was told of that */
	keel_u16 taken;	    /* index of the next used entry */
	bool event_idx;
	bool broken;
};

/**
 * keel_virtq_init - an empty queue, and the rings of one
 * @q: queue
 * @entries: a power of two, at most KEEL_VIRTQ_MAX
 * @mem: copied
 * @features: those accepted; EVENT_IDX and INDIRECT_DESC matter
 *
 * The device must not be using the memory: before it is told of it, or after a reset.
 * It is asked for an event with the first used buffer. Returns a status.
 */
keel_s64 keel_virtq_init(struct keel_virtq *q, keel_u32 entries, const struct keel_virtq_memory *mem,
			 keel_u64 features);

/* GPAs of the parts, for device_queue. */
keel_u64 keel_virtq_desc_gpa(const struct keel_virtq *q);
keel_u64 keel_virtq_avail_gpa(const struct keel_virtq *q);
keel_u64 keel_virtq_used_gpa(const struct keel_virtq *q);

/**
 * keel_virtq_add - lend a buffer to the device
 * @q: queue
 * @seg: segments, none empty: first those the device reads, then those it writes
 * @out: how many it reads
 * @in: how many it writes
 * @cookie: comes back with the buffer
 *
 * The device sees it after keel_virtq_publish(). A buffer of more than one segment takes
 * one descriptor where there are indirect tables, else one for each. Returns a status:
 * AGAIN when the queue is full for now, INVAL for what it can never take, STATE when broken.
 */
keel_s64 keel_virtq_add(struct keel_virtq *q, const struct keel_virtq_seg *seg, unsigned int out, unsigned int in,
			void *cookie);

/* Let the device see everything added. */
void keel_virtq_publish(struct keel_virtq *q);

/*
 * After keel_virtq_publish(): does the device want to be told of what was published since this was
 * last asked?
 */
bool keel_virtq_must_notify(struct keel_virtq *q);

/**
 * keel_virtq_get - take back a buffer the device is done with
 * @q: queue
 * @cookie: as it was added
 * @len: bytes the device says it wrote, at most what it was lent; may be NULL
 *
 * Returns 1, 0 when there is none, -1 when the queue is broken.
 */
int keel_virtq_get(struct keel_virtq *q, void **cookie, keel_u32 *len);

/* Ask for no events. A hint: one may come all the same. */
void keel_virtq_disable(struct keel_virtq *q);

/*
 * Ask for an event with the next used buffer; with EVENT_IDX with that one only. Returns true
 * when there is a buffer already (or the queue is broken): no event may come for it.
 */
bool keel_virtq_enable(struct keel_virtq *q);

/**
 * keel_virtq_detach - take back a buffer the device has not returned
 * Only when the device is reset. Returns false when there is none left; the cookie comes back
 * as from keel_virtq_get(). What is left of the queue is good for keel_virtq_init() alone.
 */
bool keel_virtq_detach(struct keel_virtq *q, void **cookie);

KEEL_END_C

#endif
