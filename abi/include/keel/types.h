/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Basic types of the Keel ABI. Everything shared between guest and host is
 * little-endian, naturally aligned and of fixed width; 64-bit fields are
 * 8-byte aligned on every target, 32-bit ones included (KEEL-TYPE-01).
 */
#ifndef KEEL_TYPES_H
#define KEEL_TYPES_H

#ifdef __ASSEMBLER__
#define KEEL_U32(x) x
#define KEEL_U64(x) x
#else

#ifdef __KERNEL__
#include <linux/types.h>
typedef __u8 keel_u8;
typedef __u16 keel_u16;
typedef __u32 keel_u32;
typedef __u64 keel_u64 __attribute__((aligned(8)));
typedef __s64 keel_s64 __attribute__((aligned(8)));
#else
#include <stdint.h>
typedef uint8_t keel_u8;
typedef uint16_t keel_u16;
typedef uint32_t keel_u32;
typedef uint64_t keel_u64 __attribute__((aligned(8)));
typedef int64_t keel_s64 __attribute__((aligned(8)));
#endif

#define KEEL_U32(x) ((keel_u32)x##u)
#define KEEL_U64(x) ((keel_u64)x##ull)

/*
 * __pvshared marks a pointer to memory another party can change at any time.
 * Under sparse it cannot be dereferenced: copy it once through the accessor
 * of your environment, check the copy, use the copy.
 */
#ifdef __CHECKER__
#define __pvshared __attribute__((noderef, address_space(__pvshared_as)))
#define keel_force __attribute__((force))
#else
#define __pvshared
#define keel_force
#endif

/*
 * A compile-time assertion in every language the headers compile as. C99 has
 * none: there an extern array stands in, which unlike a typedef may be declared
 * again when two headers assert on the same line number.
 */
#define KEEL_CAT_(a, b) a##b
#define KEEL_CAT(a, b) KEEL_CAT_(a, b)
#if defined(__cplusplus)
#define KEEL_ASSERT(cond) static_assert(cond, #cond)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define KEEL_ASSERT(cond) _Static_assert(cond, #cond)
#else
#define KEEL_ASSERT(cond) extern char KEEL_CAT(keel_assert_, __LINE__)[(cond) ? 1 : -1]
#endif
#define KEEL_OFFSETOF(type, field) __builtin_offsetof(type, field)
#define KEEL_ASSERT_AT(type, field, off) KEEL_ASSERT(KEEL_OFFSETOF(type, field) == (off))
#define KEEL_ASSERT_SIZE(type, size) KEEL_ASSERT(sizeof(type) == (size))

/*
 * Distinct types for things that are all numbers, so that mixing them up does
 * not compile. They are passed and stored like the number they hold.
 */
typedef struct keel_gpa {
	keel_u64 v; /* guest-physical byte address; RAM starts at 0 */
} keel_gpa_t;

typedef struct keel_port {
	keel_u32 v; /* event port handle, see event.h */
} keel_port_t;

typedef struct keel_as {
	keel_u64 v; /* address space handle; 0 is the guest kernel's own */
} keel_as_t;

KEEL_ASSERT_SIZE(keel_u64, 8);
KEEL_ASSERT_SIZE(keel_gpa_t, 8);
KEEL_ASSERT_SIZE(keel_port_t, 4);
KEEL_ASSERT_SIZE(keel_as_t, 8);

#endif /* !__ASSEMBLER__ */

#define KEEL_PAGE_SIZE KEEL_U64(4096)
#define KEEL_PAGE_SHIFT 12

/* Guest addresses: [KEEL_VA_MIN, KEEL_VA_END); the host's window is above (KEEL-AS-02). */
#define KEEL_VA_MIN KEEL_U64(0x10000)
#define KEEL_VA_END KEEL_U64(0x7f0000000000)

#endif
