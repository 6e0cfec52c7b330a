/* SPDX-License-Identifier: MIT */
/* What the unit tests of the host share. */
#ifndef KEEL_HOST_TESTS_H
#define KEEL_HOST_TESTS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <elf.h>

#include <keel/keel.h>

#include "../image.h"
#include "../partition.h"

/* A valid image, to be damaged: text, data with bss, a Keel note segment, and a symbol table. */
struct test_image {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[3];
	struct {
		Elf64_Nhdr nh;
		char name[8];
		uint32_t desc[2];
	} abi;
	struct {
		Elf64_Nhdr nh;
		char name[8];
		uint32_t desc[4];
	} required;
	struct {
		Elf64_Nhdr nh;
		char name[8];
		uint32_t desc[2];
	} linear, memory;
	Elf64_Shdr sh[3];
	Elf64_Sym sym[4];
	char strings[32];
	uint8_t text[64];
	uint8_t data[64];
};

enum { PH_TEXT, PH_DATA, PH_NOTES };

#define TEXT_VA UINT64_C(0x400000)
#define DATA_VA UINT64_C(0x402000)
#define TEXT_GPA UINT64_C(0x100000)
#define DATA_GPA UINT64_C(0x102000)
#define LINEAR_VA UINT64_C(0x100000000)

void test_image_init(struct test_image *t);
/* A sealed-off copy of the first `size` bytes as a file. */
int test_image_fd(const void *t, size_t size);
/* Open it as an image; 0 or -1 with the reason in e. */
int test_image_open(struct image *img, const struct test_image *t, struct error *e);

/* A partition with this image and a backend that knows its boot map only. */
struct keel_options;
void test_partition(struct partition *p, struct keel_options *opt, struct image *img);
extern const struct backend_ops test_backend;

/* The tests of each file, with their number. */
#define TESTS(name)                                    \
	extern const struct CMUnitTest name##_tests[]; \
	extern const size_t name##_count
TESTS(image);
TESTS(startinfo);
TESTS(options);
TESTS(console);
TESTS(report);
TESTS(core);
TESTS(clock);
TESTS(as);
TESTS(timer);
TESTS(hvmimage);
TESTS(hvmserial);
TESTS(probe);
TESTS(monmem);
TESTS(net);
TESTS(virtqueue);
TESTS(device);
TESTS(serial);
TESTS(block);

#define DEFINE_TESTS(name) const size_t name##_count = sizeof(name##_tests) / sizeof(name##_tests[0])

#endif
