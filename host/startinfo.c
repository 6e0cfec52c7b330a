// SPDX-License-Identifier: MIT
#include "startinfo.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image.h"
#include "partition.h"

int module_load(struct module *m, struct partition *p, const char *path, struct error *e)
{
	uint64_t size, at = 0, pages, gpa;
	struct stat st;
	int fd;

	if (p->image->module_fd <= 0)
		p->image->module_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	fd = p->image->module_fd;
	if (fd < 0 || fstat(fd, &st))
		return error_set(e, "--initrd %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(e, "--initrd %s: not a regular file", path);
	size = (uint64_t)st.st_size;
	if (!size)
		return error_set(e, "--initrd %s: empty", path);
	if (size > p->ram_size)
		return error_set(e, "--initrd %s: %lu MiB do not fit into %lu MiB of memory: use a larger --mem", path,
				 (size + 0xfffff) >> 20, p->ram_size >> 20);
	pages = (size + KEEL_PAGE_SIZE - 1) & ~(KEEL_PAGE_SIZE - 1);
	gpa = p->ram_size - pages;
	for (unsigned int i = 0; i < p->image->segments; i++) {
		const struct image_segment *s = &p->image->segment[i];

		if (s->gpa + s->len > gpa)
			return error_set(
				e,
				"--initrd %s: %lu MiB and the image do not fit into %lu MiB of memory: use a larger --mem",
				path, (size + 0xfffff) >> 20, p->ram_size >> 20);
	}
	while (at < size) {
		ssize_t n = pread(fd, p->ram + gpa + at, size - at, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_set(e, "--initrd %s: %s", path, n ? strerror(errno) : "was cut while it was read");
		at += (uint64_t)n;
	}
	*m = (struct module){ gpa, size };
	return 0;
}

static void cpuid(unsigned int leaf, unsigned int sub, unsigned int r[4])
{
	if (!__get_cpuid_count(leaf, sub, &r[0], &r[1], &r[2], &r[3]))
		memset(r, 0, 4 * sizeof(r[0]));
}

#define BIT(n) (1u << (n))
#define XSAVE_LEGACY_SIZE (512 + 64) /* the legacy area and the XSAVE header */
#define XF_AVX KEEL_U64(0x4)
#define XF_AVX512 KEEL_U64(0xe0)

/*
 * Instructions that work at CPL 3 and touch nothing that is the host's. What is
 * not listed is hidden: a new feature is judged before it is offered. TSX is left
 * out, and so are protection keys, whose register the host's own code depends on.
 */
static const struct cpu_feature_word {
	unsigned int leaf, sub, reg; /* reg: 0 eax .. 3 edx */
	unsigned int always;
	unsigned int with_avx;	  /* only with XCR0's AVX state */
	unsigned int with_avx512; /* only with its AVX-512 state */
} cpu_words[8] = {
	/* sse3 pclmulqdq ssse3 cx16 sse4.1 sse4.2 movbe popcnt aes xsave osxsave rdrand hypervisor; fma avx f16c */
	{ 1, 0, 2,
	  BIT(0) | BIT(1) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(22) | BIT(23) | BIT(25) | BIT(26) | BIT(27) |
		  BIT(30) | BIT(31),
	  BIT(12) | BIT(28) | BIT(29), 0 },
	/* fpu tsc cx8 cmov clflush mmx fxsr sse sse2 ss htt */
	{ 1, 0, 3,
	  BIT(0) | BIT(4) | BIT(8) | BIT(15) | BIT(19) | BIT(23) | BIT(24) | BIT(25) | BIT(26) | BIT(27) | BIT(28), 0,
	  0 },
	/* fsgsbase bmi1 bmi2 erms rdseed adx clflushopt clwb sha; avx2; avx512 f dq ifma cd bw vl */
	{ 7, 0, 1, BIT(0) | BIT(3) | BIT(8) | BIT(9) | BIT(18) | BIT(19) | BIT(23) | BIT(24) | BIT(29), BIT(5),
	  BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31) },
	/* gfni rdpid movdiri movdir64b; vaes vpclmulqdq; avx512 vbmi vbmi2 vnni bitalg vpopcntdq */
	{ 7, 0, 2, BIT(8) | BIT(22) | BIT(27) | BIT(28), BIT(9) | BIT(10),
	  BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14) },
	/* fsrm serialize; avx512 vp2intersect fp16 */
	{ 7, 0, 3, BIT(4) | BIT(14), 0, BIT(8) | BIT(23) },
	/* lahf lzcnt sse4a prefetchw; xop fma4; tbm */
	{ 0x80000001, 0, 2, BIT(0) | BIT(5) | BIT(6) | BIT(8) | BIT(21), BIT(11) | BIT(16), 0 },
	/* mmxext rdtscp long mode; not syscall, which is forbidden to a guest kernel */
	{ 0x80000001, 0, 3, BIT(22) | BIT(27) | BIT(29), 0, 0 },
	/* fzrm fsrs fsrc; avx-vnni avx-ifma; avx512-bf16 */
	{ 7, 1, 0, BIT(10) | BIT(11) | BIT(12), BIT(4) | BIT(23), BIT(5) },
};

static uint64_t xcr0(void)
{
	uint32_t lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (uint64_t)hi << 32 | lo;
}

void startinfo_cpu(struct keel_cpu_info *cpu)
{
	unsigned int r[4];

	memset(cpu, 0, sizeof(*cpu));
	cpu->xfeatures = 3;
	cpu->xsave_size = XSAVE_LEGACY_SIZE;
	cpuid(1, 0, r);
	if (r[2] & BIT(27)) {
		cpu->xfeatures = (xcr0() & STARTINFO_XFEATURES) | 3;
		if ((cpu->xfeatures & XF_AVX512) != XF_AVX512 || !(cpu->xfeatures & XF_AVX))
			cpu->xfeatures &= ~XF_AVX512;
	}
	for (unsigned int i = 2; i < 16; i++) {
		if (!(cpu->xfeatures >> i & 1))
			continue;
		cpuid(0xd, i, r); /* eax size, ebx offset in the standard format */
		cpu->xsave_bytes[i] = r[0];
		cpu->xsave_offset[i] = r[1];
		if (r[0] + r[1] > cpu->xsave_size)
			cpu->xsave_size = r[0] + r[1];
	}
	for (unsigned int i = 0; i < 8; i++) {
		const struct cpu_feature_word *w = &cpu_words[i];
		unsigned int allowed = w->always;

		if (cpu->xfeatures & XF_AVX)
			allowed |= w->with_avx;
		if (cpu->xfeatures & XF_AVX512)
			allowed |= w->with_avx512;
		cpuid(w->leaf, w->sub, r);
		cpu->cpuid[i] = r[w->reg] & allowed;
	}
	/* FSGSBASE needs the kernel's consent as well as the processor's. */
	if (!(getauxval(AT_HWCAP2) & 2))
		cpu->cpuid[2] &= ~BIT(0);
}

/* Where the start info of a partition has its CPU chunk; NULL when it has none, as that of HVM guests. */
static uint8_t *find_cpu(const struct partition *p)
{
	uint8_t *at = p->abi + STARTINFO_OFFSET;
	struct keel_start head;
	struct keel_chunk c;

	memcpy(&head, at, sizeof(head));
	at += sizeof(head);
	for (uint32_t i = 0; i < head.chunks; i++, at += (c.size + 7u) & ~7u) {
		memcpy(&c, at, sizeof(c));
		if (c.type == KEEL_CHUNK_CPU)
			return at + sizeof(c);
	}
	return NULL;
}

uint64_t startinfo_xfeatures(const struct partition *p, uint32_t *size)
{
	const uint8_t *at = p->abi ? find_cpu(p) : NULL;
	struct keel_cpu_info cpu = { .xfeatures = 3, .xsave_size = XSAVE_LEGACY_SIZE };

	if (at)
		memcpy(&cpu, at, sizeof(cpu));
	*size = cpu.xsave_size;
	return cpu.xfeatures;
}

void startinfo_limit_cpu(struct partition *p, const uint32_t cpuid[8], uint64_t xfeatures)
{
	uint8_t *at = find_cpu(p);
	struct keel_cpu_info cpu;

	if (!at)
		return;
	memcpy(&cpu, at, sizeof(cpu));
	for (unsigned int w = 0; w < 8; w++)
		cpu.cpuid[w] &= cpuid[w];
	cpu.xfeatures &= xfeatures;
	cpu.xsave_size = XSAVE_LEGACY_SIZE;
	for (unsigned int x = 2; x < 16; x++) {
		if (!(cpu.xfeatures >> x & 1))
			cpu.xsave_bytes[x] = cpu.xsave_offset[x] = 0;
		if (cpu.xsave_offset[x] + cpu.xsave_bytes[x] > cpu.xsave_size)
			cpu.xsave_size = cpu.xsave_offset[x] + cpu.xsave_bytes[x];
	}
	memcpy(at, &cpu, sizeof(cpu));
}

struct builder {
	uint8_t *base;
	size_t size, at;
	unsigned int chunks;
	bool full;
};

/* Room for one chunk's payload, zeroed; NULL once it does not fit any more. */
static void *chunk(struct builder *b, uint32_t type, size_t payload)
{
	struct keel_chunk head = { type, (uint32_t)(sizeof(head) + payload) };
	size_t padded = (head.size + 7u) & ~(size_t)7;
	uint8_t *to = b->base + b->at;

	if (b->full || padded > b->size - b->at) {
		b->full = true;
		return NULL;
	}
	memcpy(to, &head, sizeof(head));
	b->at += padded;
	b->chunks++;
	return to + sizeof(head);
}

static void put(struct builder *b, uint32_t type, const void *payload, size_t n)
{
	void *to = chunk(b, type, n);

	if (to)
		memcpy(to, payload, n);
}

static int by_gpa(const void *a, const void *b)
{
	const struct keel_memmap_entry *x = a, *y = b;

	return x->gpa < y->gpa ? -1 : x->gpa > y->gpa;
}

/* What is not image or module of RAM is free; ABI pages follow above. */
static void put_memmap(struct builder *b, const struct partition *p, const struct module *m)
{
	struct keel_memmap_entry used[IMAGE_SEGMENTS_MAX + 1], map[2 * IMAGE_SEGMENTS_MAX + 4];
	unsigned int users = 0, n = 0;
	uint64_t at = 0;

	for (unsigned int i = 0; i < p->image->segments; i++)
		used[users++] = (struct keel_memmap_entry){ p->image->segment[i].gpa, p->image->segment[i].len,
							    KEEL_MEM_IMAGE, 0 };
	if (m->len)
		used[users++] = (struct keel_memmap_entry){ m->gpa, p->ram_size - m->gpa, KEEL_MEM_MODULE, 0 };
	qsort(used, users, sizeof(used[0]), by_gpa);
	for (unsigned int i = 0; i < users; i++) {
		if (used[i].gpa > at)
			map[n++] = (struct keel_memmap_entry){ at, used[i].gpa - at, KEEL_MEM_RAM, 0 };
		at = used[i].gpa + used[i].len;
		if (n && map[n - 1].type == used[i].type && map[n - 1].gpa + map[n - 1].len == used[i].gpa)
			map[n - 1].len += used[i].len;
		else
			map[n++] = used[i];
	}
	if (at < p->ram_size)
		map[n++] = (struct keel_memmap_entry){ at, p->ram_size - at, KEEL_MEM_RAM, 0 };
	map[n++] = (struct keel_memmap_entry){ p->abi_gpa, p->abi_size, KEEL_MEM_ABI, 0 };
	put(b, KEEL_CHUNK_MEMMAP, map, n * sizeof(map[0]));
}

int startinfo_build(struct partition *p, const struct module *m, uint64_t tsc_hz, struct error *e)
{
	struct builder b = { .base = p->abi + STARTINFO_OFFSET,
			     .size = STARTINFO_SIZE,
			     .at = sizeof(struct keel_start) };
	struct keel_abi_pages pages = { .clock_va = ABI_VA,
					.clock_gpa = p->abi_gpa,
					.start_gpa = p->abi_gpa + STARTINFO_OFFSET,
					.vcpu_va = VCPU_VA,
					.vcpu_stride = VCPU_STRIDE,
					.vcpus = p->vcpus };
	const char *cmdline = p->opt->cmdline ? p->opt->cmdline : "";
	struct keel_start head = { .magic = KEEL_START_MAGIC, .version = KEEL_START_VERSION };
	uint8_t entropy[KEEL_ENTROPY_SIZE];
	struct keel_cpu_info cpu;

	memset(b.base, 0, b.size);
	put_memmap(&b, p, m);
	if (m->len) {
		struct keel_module module = { m->gpa, m->len };

		put(&b, KEEL_CHUNK_MODULE, &module, sizeof(module));
	}
	put(&b, KEEL_CHUNK_CMDLINE, cmdline, strlen(cmdline) + 1);
	if (getrandom(entropy, sizeof(entropy), 0) != sizeof(entropy))
		return error_set(e, "no random bytes from the kernel: %s", strerror(errno));
	put(&b, KEEL_CHUNK_ENTROPY, entropy, sizeof(entropy));
	explicit_bzero(entropy, sizeof(entropy));
	startinfo_cpu(&cpu);
	cpu.tsc_hz = tsc_hz;
	put(&b, KEEL_CHUNK_CPU, &cpu, sizeof(cpu));
	put(&b, KEEL_CHUNK_ABI, &pages, sizeof(pages));
	if (p->image->linear) {
		struct keel_linear_map linear = { p->image->linear_va, p->ram_size };

		put(&b, KEEL_CHUNK_LINEAR, &linear, sizeof(linear));
	}
	if (b.full)
		return error_set(e, "the start info does not fit: use a shorter --cmdline");
	head.chunks = b.chunks;
	head.size = b.at;
	memcpy(b.base, &head, sizeof(head));
	return 0;
}
