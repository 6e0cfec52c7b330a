/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * Start info: a read-only ABI area of tagged chunks. A guest skips chunks it
 * does not know (KEEL-START-03). Each chunk starts 8-byte aligned; `size`
 * includes the chunk header and excludes the padding up to the next one.
 */
#ifndef KEEL_START_H
#define KEEL_START_H

#include <keel/types.h>

#define KEEL_START_MAGIC KEEL_U64(0x54524154534c454b) /* "KELSTART", little-endian */
#define KEEL_START_VERSION 1

#define KEEL_CHUNK_MEMMAP 1  /* struct keel_memmap_entry[] */
#define KEEL_CHUNK_MODULE 2  /* struct keel_module; once per module */
#define KEEL_CHUNK_CMDLINE 3 /* NUL-terminated bytes */
#define KEEL_CHUNK_ENTROPY 4 /* 64 random bytes */
#define KEEL_CHUNK_CPU 5     /* struct keel_cpu_info */
#define KEEL_CHUNK_ABI 6     /* struct keel_abi_pages */
#define KEEL_CHUNK_LINEAR 7  /* struct keel_linear_map; only if the image asked */

/* struct keel_memmap_entry.type */
#define KEEL_MEM_RAM 1	  /* usable, starts at GPA 0 */
#define KEEL_MEM_IMAGE 2  /* RAM that holds the guest image */
#define KEEL_MEM_MODULE 3 /* RAM that holds a module */
#define KEEL_MEM_ABI 4	  /* ABI pages: mappable read-only, not RAM */

#define KEEL_CMDLINE_MAX 4096 /* bytes, terminating NUL included */
#define KEEL_ENTROPY_SIZE 64

#ifndef __ASSEMBLER__
/*
 * struct keel_start - header, followed by chunks.
 *
 *	 0  magic     OUT  KEEL_START_MAGIC
 *	 8  version   OUT  KEEL_START_VERSION
 *	12  chunks    OUT  number of chunks
 *	16  size      OUT  bytes, header and all chunks
 *	24  reserved  OUT  zero
 */
struct keel_start {
	keel_u64 magic;
	keel_u32 version;
	keel_u32 chunks;
	keel_u64 size;
	keel_u64 reserved;
};
KEEL_ASSERT_SIZE(struct keel_start, 32);
KEEL_ASSERT_AT(struct keel_start, magic, 0);
KEEL_ASSERT_AT(struct keel_start, version, 8);
KEEL_ASSERT_AT(struct keel_start, chunks, 12);
KEEL_ASSERT_AT(struct keel_start, size, 16);
KEEL_ASSERT_AT(struct keel_start, reserved, 24);

/* struct keel_chunk - 0 type OUT, 4 size OUT (bytes, this header included) */
struct keel_chunk {
	keel_u32 type;
	keel_u32 size;
};
KEEL_ASSERT_SIZE(struct keel_chunk, 8);
KEEL_ASSERT_AT(struct keel_chunk, type, 0);
KEEL_ASSERT_AT(struct keel_chunk, size, 4);

/*
 * struct keel_memmap_entry - sorted by gpa, not overlapping.
 *
 *	 0  gpa   OUT  first byte
 *	 8  len   OUT  bytes
 *	16  type  OUT  KEEL_MEM_*
 *	20  reserved OUT zero
 */
struct keel_memmap_entry {
	keel_u64 gpa;
	keel_u64 len;
	keel_u32 type;
	keel_u32 reserved;
};
KEEL_ASSERT_SIZE(struct keel_memmap_entry, 24);
KEEL_ASSERT_AT(struct keel_memmap_entry, gpa, 0);
KEEL_ASSERT_AT(struct keel_memmap_entry, len, 8);
KEEL_ASSERT_AT(struct keel_memmap_entry, type, 16);
KEEL_ASSERT_AT(struct keel_memmap_entry, reserved, 20);

/* struct keel_module - 0 gpa OUT, 8 len OUT (bytes) */
struct keel_module {
	keel_u64 gpa;
	keel_u64 len;
};
KEEL_ASSERT_SIZE(struct keel_module, 16);
KEEL_ASSERT_AT(struct keel_module, gpa, 0);
KEEL_ASSERT_AT(struct keel_module, len, 8);

/*
 * struct keel_cpu_info - what guest code may use on this vCPU. x86-64.
 *
 *	 0  cpuid[8]         OUT  leaf 1 ecx edx; leaf 7.0 ebx ecx edx; leaf 0x80000001 ecx edx; leaf 7.1 eax
 *	32  xfeatures        OUT  XCR0 components guest code may use
 *	40  xsave_size       OUT  bytes of a standard-format XSAVE area for xfeatures
 *	44  reserved0        OUT  zero
 *	48  tsc_hz           OUT  TSC ticks per second, 0 when unknown
 *	56  xsave_offset[16] OUT  offset of component i in the area, 0 = absent or legacy
 *	120 xsave_bytes[16]  OUT  size of component i
 */
struct keel_cpu_info {
	keel_u32 cpuid[8];
	keel_u64 xfeatures;
	keel_u32 xsave_size;
	keel_u32 reserved0;
	keel_u64 tsc_hz;
	keel_u32 xsave_offset[16];
	keel_u32 xsave_bytes[16];
};
KEEL_ASSERT_SIZE(struct keel_cpu_info, 184);
KEEL_ASSERT_AT(struct keel_cpu_info, cpuid, 0);
KEEL_ASSERT_AT(struct keel_cpu_info, xfeatures, 32);
KEEL_ASSERT_AT(struct keel_cpu_info, xsave_size, 40);
KEEL_ASSERT_AT(struct keel_cpu_info, reserved0, 44);
KEEL_ASSERT_AT(struct keel_cpu_info, tsc_hz, 48);
KEEL_ASSERT_AT(struct keel_cpu_info, xsave_offset, 56);
KEEL_ASSERT_AT(struct keel_cpu_info, xsave_bytes, 120);

/*
 * struct keel_abi_pages - where the ABI's own pages are.
 *
 *	 0  clock_va   OUT  struct keel_clock, mapped read-only in AS 0
 *	 8  clock_gpa  OUT  its page; may be mapped read-only to users
 *	16  start_gpa  OUT  the start info's first page
 *	24  vcpu_va    OUT  struct keel_vcpu of vCPU 0; vCPU n at + n * vcpu_stride
 *	32  vcpu_stride OUT bytes
 *	40  vcpus      OUT  vCPUs the partition may use
 *	44  reserved0  OUT  zero
 */
struct keel_abi_pages {
	keel_u64 clock_va;
	keel_u64 clock_gpa;
	keel_u64 start_gpa;
	keel_u64 vcpu_va;
	keel_u64 vcpu_stride;
	keel_u32 vcpus;
	keel_u32 reserved0;
};
KEEL_ASSERT_SIZE(struct keel_abi_pages, 48);
KEEL_ASSERT_AT(struct keel_abi_pages, clock_va, 0);
KEEL_ASSERT_AT(struct keel_abi_pages, clock_gpa, 8);
KEEL_ASSERT_AT(struct keel_abi_pages, start_gpa, 16);
KEEL_ASSERT_AT(struct keel_abi_pages, vcpu_va, 24);
KEEL_ASSERT_AT(struct keel_abi_pages, vcpu_stride, 32);
KEEL_ASSERT_AT(struct keel_abi_pages, vcpus, 40);
KEEL_ASSERT_AT(struct keel_abi_pages, reserved0, 44);

/* struct keel_linear_map - 0 va OUT, 8 len OUT: GPA g is mapped RW at va + g */
struct keel_linear_map {
	keel_u64 va;
	keel_u64 len;
};
KEEL_ASSERT_SIZE(struct keel_linear_map, 16);
KEEL_ASSERT_AT(struct keel_linear_map, va, 0);
KEEL_ASSERT_AT(struct keel_linear_map, len, 8);
#endif

#endif
