/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * The little that the pure parts of libhypercall need from their environment,
 * so that the same source builds for a guest, for user space and inside the
 * Linux kernel. Nothing here calls into a C library.
 */
#ifndef HYPERCALL_COMPAT_H
#define HYPERCALL_COMPAT_H

#include <keel/types.h>

#ifdef __KERNEL__
#include <linux/stddef.h>
#else
#include <stdbool.h>
#include <stddef.h>
#endif

#ifdef __cplusplus
#define KEEL_BEGIN_C extern "C" {
#define KEEL_END_C }
#else
#define KEEL_BEGIN_C
#define KEEL_END_C
#endif

#define keel_memcpy(dst, src, n) __builtin_memcpy(dst, src, n)
#define keel_memset(dst, c, n) __builtin_memset(dst, c, n)
#define keel_array_size(a) (sizeof(a) / sizeof((a)[0]))

/**
 * struct keel_ret - what a hypercall answers
 * @status: KEEL_OK or a negative number, see keel/status.h
 * @value: what the call documents, else 0
 *
 * Its layout is that of rax:rdx in the System V calling convention, so the gate's
 * two results are a C function's result without a move.
 */
struct keel_ret {
	keel_s64 status;
	keel_u64 value;
};

/*
 * Memory that another party may change at any time is touched through these
 * only: each is exactly one access, which the compiler neither repeats nor
 * tears. sparse rejects a plain dereference of a __pvshared pointer.
 * keel_share() turns a pointer to one's own memory that is shared into one.
 */
#define keel_share(p) ((keel_force __typeof__(*(p)) __pvshared *)(p))

static inline keel_u8 keel_shared_load8(const keel_u8 __pvshared *p)
{
	return __atomic_load_n((const keel_force keel_u8 *)p, __ATOMIC_RELAXED);
}

static inline keel_u16 keel_shared_load16(const keel_u16 __pvshared *p)
{
	return __atomic_load_n((const keel_force keel_u16 *)p, __ATOMIC_RELAXED);
}

static inline keel_u16 keel_shared_load16_acquire(const keel_u16 __pvshared *p)
{
	return __atomic_load_n((const keel_force keel_u16 *)p, __ATOMIC_ACQUIRE);
}

static inline keel_u32 keel_shared_load32(const keel_u32 __pvshared *p)
{
	return __atomic_load_n((const keel_force keel_u32 *)p, __ATOMIC_RELAXED);
}

static inline keel_u32 keel_shared_load32_acquire(const keel_u32 __pvshared *p)
{
	return __atomic_load_n((const keel_force keel_u32 *)p, __ATOMIC_ACQUIRE);
}

static inline keel_u64 keel_shared_load64(const keel_u64 __pvshared *p)
{
	return __atomic_load_n((const keel_force keel_u64 *)p, __ATOMIC_RELAXED);
}

static inline void keel_shared_store16(keel_u16 __pvshared *p, keel_u16 v)
{
	__atomic_store_n((keel_force keel_u16 *)p, v, __ATOMIC_RELAXED);
}

static inline void keel_shared_store16_release(keel_u16 __pvshared *p, keel_u16 v)
{
	__atomic_store_n((keel_force keel_u16 *)p, v, __ATOMIC_RELEASE);
}

static inline void keel_shared_store32(keel_u32 __pvshared *p, keel_u32 v)
{
	__atomic_store_n((keel_force keel_u32 *)p, v, __ATOMIC_RELAXED);
}

static inline void keel_shared_store32_release(keel_u32 __pvshared *p, keel_u32 v)
{
	__atomic_store_n((keel_force keel_u32 *)p, v, __ATOMIC_RELEASE);
}

/* Atomic or, and-not: sequentially consistent, answer the value before. */
static inline keel_u64 keel_shared_or64(keel_u64 __pvshared *p, keel_u64 bits)
{
	return __atomic_fetch_or((keel_force keel_u64 *)p, bits, __ATOMIC_SEQ_CST);
}

static inline keel_u64 keel_shared_andnot64(keel_u64 __pvshared *p, keel_u64 bits)
{
	return __atomic_fetch_and((keel_force keel_u64 *)p, ~bits, __ATOMIC_SEQ_CST);
}

/* Copy bytes out of or into shared memory, once. */
static inline void keel_shared_read(void *dst, const void __pvshared *src, size_t n)
{
	keel_memcpy(dst, (const keel_force void *)src, n);
}

static inline void keel_shared_write(void __pvshared *dst, const void *src, size_t n)
{
	keel_memcpy((keel_force void *)dst, src, n);
}

/* A full fence: store-then-look protocols (wake flags) need one between the two. */
static inline void keel_full_fence(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#endif
