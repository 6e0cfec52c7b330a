/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/* Generated from abi/hypercalls.def by gen-wrappers.sh; do not edit. Included by call.h. */
#ifndef HYPERCALL_WRAPPERS_H
#define HYPERCALL_WRAPPERS_H

/* clang-format off */
KEEL_BEGIN_C

/* ABI version: major << 32 | minor << 16 | release candidate */
static inline struct keel_ret keel_base_version(void)
{
	return keel_call0(KEEL_CALL_BASE_VERSION);
}

/* host identity: 8 ASCII bytes of a 32-byte string, word 0..3 */
static inline struct keel_ret keel_base_host(keel_u32 word)
{
	return keel_call1(KEEL_CALL_BASE_HOST, word);
}

/* is an extension implemented (bit 0), granted (bit 1), accepted (bit 2) */
static inline struct keel_ret keel_base_probe(keel_u32 ext)
{
	return keel_call1(KEEL_CALL_BASE_PROBE, ext);
}

/* feature bits the host offers */
static inline struct keel_ret keel_base_features(keel_u32 word)
{
	return keel_call1(KEEL_CALL_BASE_FEATURES, word);
}

/* accept a subset of the offered bits of one word */
static inline struct keel_ret keel_base_accept(keel_u32 word, keel_u64 bits)
{
	return keel_call2(KEEL_CALL_BASE_ACCEPT, word, bits);
}

/* end negotiation; accepted extensions become callable */
static inline struct keel_ret keel_base_freeze(void)
{
	return keel_call0(KEEL_CALL_BASE_FREEZE);
}

/* power off or restart, with a reason or exit code */
static inline struct keel_ret keel_base_shutdown(keel_u32 how, keel_u32 code)
{
	return keel_call2(KEEL_CALL_BASE_SHUTDOWN, how, code);
}

/* nothing; the cost of the gate */
static inline struct keel_ret keel_base_nop(void)
{
	return keel_call0(KEEL_CALL_BASE_NOP);
}

/* a numeric limit of this host (KEEL_LIMIT_*) */
static inline struct keel_ret keel_base_limit(keel_u32 limit)
{
	return keel_call1(KEEL_CALL_BASE_LIMIT, limit);
}

/* round trip to the host, which answers the cookie; the cost of a remote call */
static inline struct keel_ret keel_base_ping(keel_u64 cookie)
{
	return keel_call1(KEEL_CALL_BASE_PING, cookie);
}

/* execute entries in order; value = entries done */
static inline struct keel_ret keel_multicall(keel_gpa_t entries, keel_u32 count, keel_gpa_t results, keel_u64 flags)
{
	return keel_call4(KEEL_CALL_MULTICALL, entries.v, count, results.v, flags);
}

/* execute range records in order; value = records | pages of the next one << 32 */
static inline struct keel_ret keel_mmu_batch(keel_as_t as, keel_gpa_t records, keel_u32 count, keel_u64 flags)
{
	return keel_call4(KEEL_CALL_MMU_BATCH, as.v, records.v, count, flags);
}

/* what a page is mapped to: gpa | KEEL_PROT_*, NOENT when unmapped */
static inline struct keel_ret keel_mmu_query(keel_as_t as, keel_u64 va)
{
	return keel_call2(KEEL_CALL_MMU_QUERY, as.v, va);
}

/* new empty address space */
static inline struct keel_ret keel_as_create(keel_u64 flags)
{
	return keel_call1(KEEL_CALL_AS_CREATE, flags);
}

/* copy an address space, writable pages made read-only in both */
static inline struct keel_ret keel_as_clone(keel_as_t as, keel_u64 flags)
{
	return keel_call2(KEEL_CALL_AS_CLONE, as.v, flags);
}

/* destroy; AGAIN while more work is left */
static inline struct keel_ret keel_as_destroy(keel_as_t as)
{
	return keel_call1(KEEL_CALL_AS_DESTROY, as.v);
}

/* a number about an address space */
static inline struct keel_ret keel_as_info(keel_as_t as, keel_u32 what)
{
	return keel_call2(KEEL_CALL_AS_INFO, as.v, what);
}

/* begin to track writes to a range; value = pages done */
static inline struct keel_ret keel_harvest_start(keel_as_t as, keel_u64 va, keel_u64 len, keel_u64 flags)
{
	return keel_call4(KEEL_CALL_HARVEST_START, as.v, va, len, flags);
}

/* end tracking; value = pages done */
static inline struct keel_ret keel_harvest_stop(keel_as_t as, keel_u64 va, keel_u64 len)
{
	return keel_call3(KEEL_CALL_HARVEST_STOP, as.v, va, len);
}

/* write a bitmap of written pages and re-arm; value = pages done | written << 32 */
static inline struct keel_ret keel_harvest_collect(keel_as_t as, keel_u64 va, keel_u64 len, keel_gpa_t bitmap)
{
	return keel_call4(KEEL_CALL_HARVEST_COLLECT, as.v, va, len, bitmap.v);
}

/* entry point and optional stack top of a frame class */
static inline struct keel_ret keel_trap_set(keel_u32 frame_class, keel_u64 entry, keel_u64 stack)
{
	return keel_call3(KEEL_CALL_TRAP_SET, frame_class, entry, stack);
}

/* resume the context in the class's save slot */
static inline struct keel_ret keel_trap_return(keel_u32 frame_class)
{
	return keel_call1(KEEL_CALL_TRAP_RETURN, frame_class);
}

/* deliver pending events now if IF is set */
static inline struct keel_ret keel_trap_deliver(void)
{
	return keel_call0(KEEL_CALL_TRAP_DELIVER);
}

/* run guest user code; value = reason it came back */
static inline struct keel_ret keel_user_enter(keel_as_t as, keel_gpa_t context, keel_u64 flags)
{
	return keel_call3(KEEL_CALL_USER_ENTER, as.v, context.v, flags);
}

/* sleep until an event is pending or the deadline; ~0 = none */
static inline struct keel_ret keel_vcpu_wait(keel_u64 deadline)
{
	return keel_call1(KEEL_CALL_VCPU_WAIT, deadline);
}

/* give the processor to another vCPU, ~0 = anyone */
static inline struct keel_ret keel_vcpu_yield(keel_u64 target)
{
	return keel_call1(KEEL_CALL_VCPU_YIELD, target);
}

/* start a stopped vCPU */
static inline struct keel_ret keel_vcpu_start(keel_u64 vcpu, keel_u64 entry, keel_u64 opaque)
{
	return keel_call3(KEEL_CALL_VCPU_START, vcpu, entry, opaque);
}

/* stop a vCPU */
static inline struct keel_ret keel_vcpu_stop(keel_u64 vcpu)
{
	return keel_call1(KEEL_CALL_VCPU_STOP, vcpu);
}

/* raise one event bit on a set of vCPUs */
static inline struct keel_ret keel_vcpu_ipi(keel_gpa_t set, keel_u64 size, keel_u32 bit)
{
	return keel_call3(KEEL_CALL_VCPU_IPI, set.v, size, bit);
}

/* a number about a vCPU: 0 = its state */
static inline struct keel_ret keel_vcpu_info(keel_u64 vcpu, keel_u32 what)
{
	return keel_call2(KEEL_CALL_VCPU_INFO, vcpu, what);
}

/* new masked port of a priority 0 (most urgent) .. 3; value = port */
static inline struct keel_ret keel_event_alloc(keel_u32 priority)
{
	return keel_call1(KEEL_CALL_EVENT_ALLOC, priority);
}

/* new masked port bound to a source (KEEL_SOURCE_*); value = port */
static inline struct keel_ret keel_event_bind(keel_u32 source, keel_u32 priority)
{
	return keel_call2(KEEL_CALL_EVENT_BIND, source, priority);
}

/* free a port; nothing is delivered for it afterwards */
static inline struct keel_ret keel_event_close(keel_port_t port)
{
	return keel_call1(KEEL_CALL_EVENT_CLOSE, port.v);
}

/* hold delivery */
static inline struct keel_ret keel_event_mask(keel_port_t port)
{
	return keel_call1(KEEL_CALL_EVENT_MASK, port.v);
}

/* allow delivery; a held event becomes pending */
static inline struct keel_ret keel_event_unmask(keel_port_t port)
{
	return keel_call1(KEEL_CALL_EVENT_UNMASK, port.v);
}

/* make a port pending */
static inline struct keel_ret keel_event_send(keel_port_t port)
{
	return keel_call1(KEEL_CALL_EVENT_SEND, port.v);
}

/* mask, unmask and send in order; value = records done */
static inline struct keel_ret keel_event_batch(keel_gpa_t records, keel_u32 count, keel_u64 flags)
{
	return keel_call3(KEEL_CALL_EVENT_BATCH, records.v, count, flags);
}

/* raise the non-maskable dump event */
static inline struct keel_ret keel_event_dump(keel_u64 vcpu)
{
	return keel_call1(KEEL_CALL_EVENT_DUMP, vcpu);
}

/* guest time in ns, for when the clock page is not valid */
static inline struct keel_ret keel_time_read(void)
{
	return keel_call0(KEEL_CALL_TIME_READ);
}

/* arm the vCPU's one-shot timer; ~0 disarms */
static inline struct keel_ret keel_time_set_timer(keel_u64 deadline)
{
	return keel_call1(KEEL_CALL_TIME_SET_TIMER, deadline);
}

/* early output: 1..32 bytes packed in registers */
static inline struct keel_ret keel_console_write(keel_u32 count, keel_u64 bytes0, keel_u64 bytes8, keel_u64 bytes16, keel_u64 bytes24)
{
	return keel_call5(KEEL_CALL_CONSOLE_WRITE, count, bytes0, bytes8, bytes16, bytes24);
}

/* register (size != 0) or take back (0, 0) the console ring */
static inline struct keel_ret keel_console_setup(keel_gpa_t ring, keel_u64 size)
{
	return keel_call2(KEEL_CALL_CONSOLE_SETUP, ring.v, size);
}

/* tell the host that the ring changed */
static inline struct keel_ret keel_console_kick(void)
{
	return keel_call0(KEEL_CALL_CONSOLE_KICK);
}

/* give the host's memory behind a range back; it reads as zero afterwards */
static inline struct keel_ret keel_memory_release(keel_gpa_t gpa, keel_u64 len)
{
	return keel_call2(KEEL_CALL_MEMORY_RELEASE, gpa.v, len);
}

/* have memory behind a range now; value = pages done */
static inline struct keel_ret keel_memory_populate(keel_gpa_t gpa, keel_u64 len)
{
	return keel_call2(KEEL_CALL_MEMORY_POPULATE, gpa.v, len);
}

/* describe device number index */
static inline struct keel_ret keel_device_enum(keel_u32 index, keel_gpa_t info)
{
	return keel_call2(KEEL_CALL_DEVICE_ENUM, index, info.v);
}

/* write the virtio status; value = what it is now */
static inline struct keel_ret keel_device_status(keel_u64 device, keel_u32 status)
{
	return keel_call2(KEEL_CALL_DEVICE_STATUS, device, status);
}

/* accept virtio features */
static inline struct keel_ret keel_device_accept(keel_u64 device, keel_u32 word, keel_u64 bits)
{
	return keel_call3(KEEL_CALL_DEVICE_ACCEPT, device, word, bits);
}

/* set up a virtqueue; value = its doorbell */
static inline struct keel_ret keel_device_queue(keel_u64 device, keel_u32 queue, keel_gpa_t setup)
{
	return keel_call3(KEEL_CALL_DEVICE_QUEUE, device, queue, setup.v);
}

/* read config space; value = its generation */
static inline struct keel_ret keel_device_config_read(keel_u64 device, keel_u32 offset, keel_gpa_t buf, keel_u64 len)
{
	return keel_call4(KEEL_CALL_DEVICE_CONFIG_READ, device, offset, buf.v, len);
}

/* write config space */
static inline struct keel_ret keel_device_config_write(keel_u64 device, keel_u32 offset, keel_gpa_t buf, keel_u64 len)
{
	return keel_call4(KEEL_CALL_DEVICE_CONFIG_WRITE, device, offset, buf.v, len);
}

/* report a fatal error with a message of at most 1024 bytes */
static inline struct keel_ret keel_crash(keel_u32 reason, keel_gpa_t message, keel_u64 len, keel_u64 word0, keel_u64 word1)
{
	return keel_call5(KEEL_CALL_CRASH, reason, message.v, len, word0, word1);
}

/* copy out per-call counters from entry first on; value = entries written */
static inline struct keel_ret keel_stats_read(keel_gpa_t buf, keel_u64 len, keel_u32 first)
{
	return keel_call3(KEEL_CALL_STATS_READ, buf.v, len, first);
}

KEEL_END_C
/* clang-format on */

#endif
