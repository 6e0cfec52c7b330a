/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * What a conformance test is written with. A test is a function in a guest
 * image; one boot of the image runs one test, named on the command line
 * (test=ID), and ends in a power-off. It says its verdict on the console:
 *
 *	KT begin ID
 *	KT note TEXT            anything worth reading
 *	KT fail FILE:LINE TEXT  a check that did not hold; the test goes on
 *	KT armed                from here on the end the manifest names is due
 *	KT skip EXT REASON      optional extension EXT is not offered
 *	KT pass | KT failed     the last line
 *
 * The library under libhypercall/ is not used: what is tested is the ABI.
 */
#ifndef KT_H
#define KT_H

#include <stdbool.h>
#include <stddef.h>

#include <keel/keel.h>

typedef keel_u8 u8;
typedef keel_u16 u16;
typedef keel_u32 u32;
typedef uint64_t u64;
typedef int64_t s64;

/* Where things are. RAM is mapped linearly at KT_LINEAR by the image's note. */
#define KT_LINEAR KEEL_U64(0x100000000000)
#define KT_IMAGE_OFFSET KEEL_U64(0x300000)
#define KT_SCRATCH_GPA KEEL_U64(0x1000000) /* 16..28 MiB: the tests' own */
#define KT_SCRATCH_SIZE KEEL_U64(0xc00000)
#define KT_VA KEEL_U64(0x200000000000) /* nothing is mapped here at start */

/* Guest-side flags of a test. */
#define KT_EARLY 1 /* the runtime does not negotiate nor freeze */

struct kt_test {
	const char *id;
	void (*fn)(void);
	u64 flags;
} __attribute__((aligned(32))); /* an array in a section of its own: no padding of the compiler's choice */

/*
 * KEEL_TEST(id, name, clauses, options, guest flags) { body }
 *
 * Declares a test twice: for the image, and as a line of manifest.csv in a
 * section that is not loaded. `clauses` are SPEC clauses separated by spaces;
 * `options` of the manifest are words, all optional:
 *	neg          a negative test
 *	timeout=S    seconds, default 10
 *	exit=N       how the partition must end, default 0 (power-off); restart/N, any,
 *	             or stop: it goes on until the runner stops it
 *	ext=N        an optional extension the test needs, or feature bit N - 64 of word 1
 *	vcpus=N      started with so many, default 1
 *	devices=KINDS  with these, + between them: block and block-ro (1 MiB of zeros), rng,
 *	             net (a router at 10.0.2.2 answers ARP), console
 *	destructive  ends the partition in another way than a power-off
 *	stdin=TEXT   bytes for the console, escapes \n
 *	module=N     a module of N bytes, byte i = i * 7
 *	line=TEXT    console output must contain this line too
 *	args=TEXT    more words for the command line
 *	profile=P    default CORE
 *	image=F      another image than the one that declares the test
 * A space within TEXT is written as %20.
 */
#define KEEL_TEST(id_, name, clauses, options, flags_)                                                          \
	static void kt_test_##name(void);                                                                       \
	__asm__(".pushsection .keel.manifest,\"\",@progbits\n\t.ascii \"" id_ "," #name "," clauses "," options \
		"\\n\"\n\t.popsection");                                                                        \
	static const struct kt_test kt_entry_##name                                                             \
		__attribute__((section("kt_tests"), used)) = { id_, kt_test_##name, flags_ };                   \
	static void kt_test_##name(void)

/* Calls. */
struct kt_ret {
	s64 status;
	u64 value;
};
struct kt_ret kt_call(u64 id, u64 a1, u64 a2, u64 a3, u64 a4, u64 a5);
#define KT_CALL_(id, a, b, c, d, e, ...) kt_call(id, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e))
#define HC(...) KT_CALL_(__VA_ARGS__, 0, 0, 0, 0, 0, 0)

struct kt_regs {
	u64 rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rflags;
};
void kt_call_regs(struct kt_regs *r);
struct kt_ret kt_call_fp(const u64 call[6], const void *in, void *out, u64 mask);
struct kt_ret kt_call_tight(u64 id, u64 a1, u64 a2, u64 a3, void *stack);
int kt_spin_regs(const struct kt_regs *in, struct kt_regs *out);
void kt_spin_fp(const void *in, void *out, u64 mask);
void kt_save_fp(void *out, u64 mask);
u64 kt_fp_mask(size_t size); /* for these: what fits, 0 without XSAVE */
extern volatile u64 kt_spin_flag, kt_spin_save;

/* State recorded at entry. */
extern struct kt_regs kt_init;
extern u64 kt_init_rsp, kt_init_if;
extern u8 kt_init_fx[512];
extern struct keel_vcpu *kt_vcpu;
extern u8 kt_stack[], kt_stack_top[];
extern const u8 kt_code[], kt_code_end[];
extern u8 kt_image_end[];

/* Verdicts. */
extern int kt_fails;
void kt_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void kt_fail(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void kt_armed(void);
void kt_skip(u32 ext, const char *reason) __attribute__((noreturn));
void kt_finish(void) __attribute__((noreturn));
void kt_puts(const char *s);

#define KT_FAIL(...) kt_fail(__FILE_NAME__, __LINE__, __VA_ARGS__)
#define CHECK(cond)                           \
	do {                                  \
		if (!(cond))                  \
			KT_FAIL("%s", #cond); \
	} while (0)
#define REQUIRE(cond)                         \
	do {                                  \
		if (!(cond)) {                \
			KT_FAIL("%s", #cond); \
			kt_finish();          \
		}                             \
	} while (0)
#define CHECK_EQ(a, b) kt_check_eq(__FILE_NAME__, __LINE__, #a, (u64)(a), (u64)(b))
bool kt_check_eq(const char *file, int line, const char *what, u64 got, u64 want);

/* OK(call): succeeded. OK_VALUE: with this value. NEG: refused so, value 0, and nothing observable changed. */
bool kt_check_ret(const char *file, int line, const char *what, struct kt_ret r, s64 status, u64 value, bool any);
#define OK(call) kt_check_ret(__FILE_NAME__, __LINE__, #call, (call), 0, 0, true)
#define OK_VALUE(call, value) kt_check_ret(__FILE_NAME__, __LINE__, #call, (call), 0, (value), false)
#define ERR_VALUE(call, status, value) kt_check_ret(__FILE_NAME__, __LINE__, #call, (call), (status), (value), false)
#define NEG(call, code, at) NEG_STATUS(call, KEEL_STATUS(code, at))
#define NEG_BIT(call, code, at, bit) NEG_STATUS(call, KEEL_STATUS_BIT(code, at, bit))
#define NEG_STATUS(call, status)                                                          \
	do {                                                                              \
		u64 digest_ = kt_digest();                                                \
		kt_check_ret(__FILE_NAME__, __LINE__, #call, (call), (status), 0, false); \
		if (kt_digest() != digest_)                                               \
			KT_FAIL("%s: observable state changed", #call);                   \
	} while (0)
/* The same for a failure whose value counts what was done before it. */
#define NEG_VALUE(call, status, value)                                                          \
	do {                                                                                    \
		u64 digest_ = kt_digest();                                                      \
		kt_check_ret(__FILE_NAME__, __LINE__, #call, (call), (status), (value), false); \
		if (kt_digest() != digest_)                                                     \
			KT_FAIL("%s: observable state changed", #call);                         \
	} while (0)
#define ARG(n) KEEL_AT_ARG(n)
#define FIELD(n) KEEL_AT_FIELD(n)

/* A digest of all state a refused call could have changed: vCPU page, ports, mappings, scratch memory, features. */
u64 kt_digest(void);
u64 kt_hash(u64 h, const volatile void *p, size_t n);

/* Memory. */
void *kt_ram(u64 gpa);
u64 kt_gpa(const volatile void *image_object); /* of something in this image */
u64 kt_ram_size(void);
void kt_poison(u64 gpa, u64 len, u64 seed);
void *memset(void *d, int c, size_t n);
void *memcpy(void *d, const void *s, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);

/* MMU in one line: one record, expected to be done by resubmission. */
struct kt_ret kt_mmu(u32 op, u64 va, u64 gpa, u64 len, u32 prot, u32 flags);
#define MAP(va, gpa, len, prot) kt_mmu(KEEL_MMU_MAP, va, gpa, len, prot, 0)
#define UNMAP(va, len) kt_mmu(KEEL_MMU_UNMAP, va, 0, len, 0, 0)
#define PROTECT(va, len, prot) kt_mmu(KEEL_MMU_PROTECT, va, 0, len, prot, 0)
u64 kt_query(u64 va); /* gpa | prot, or 0 when unmapped */

/* Probes: 1 when the access trapped, kt_trap_frame says how. */
int kt_probe_read(u64 va);
int kt_probe_write(u64 va, u8 byte);
int kt_probe_exec(u64 va);
int kt_probe_ud(void);
int kt_probe_bp(void);
int kt_probe_gp(void);
int kt_probe_div(void);
int kt_probe_xm(void);
int kt_probe_mf(void);
int kt_probe_hlt(void);
int kt_probe_cli(void);
int kt_probe_cr3(void);
int kt_probe_rdmsr(void);
int kt_probe_in(void);
void kt_probe_step(void);
extern const u8 kt_probe_step_after[], kt_probe_div_insn[], kt_probe_gp_insn[];
extern struct keel_frame kt_trap_frame;
extern u64 kt_traps;

/* Entries, and what runs in them. A handler changes the frame to resume elsewhere. */
typedef void kt_handler(struct keel_frame *f);
extern kt_handler *kt_on[KEEL_CLASS_COUNT];
extern u64 kt_entry_flags, kt_entry_rsp;
void kt_entry_trap(void);
void kt_entry_event(void);
void kt_entry_dump(void);
void kt_entry_double(void);
void kt_set_entry(u32 class, u64 stack);

/* Events. kt_events_on() sets the EVENT entry; seen[] counts what the scan consumed. */
extern volatile u32 kt_seen[KEEL_EVENT_BITS];
extern volatile u64 kt_upcalls;
extern void (*kt_event_hook)(u32 bit);
void kt_events_on(void);
void kt_scan(void);
static inline void kt_cli(void)
{
	*(volatile u8 *)&kt_vcpu->if_enabled = 0;
	__asm__ volatile("" ::: "memory");
}
void kt_sti(void);
/* Sleep until an upcall made cond true: looked at with IF off, so that none comes between the look and the sleep. */
#define WAIT_UNTIL(cond)                                          \
	do {                                                      \
		for (;;) {                                        \
			kt_cli();                                 \
			if (cond)                                 \
				break;                            \
			HC(KEEL_CALL_VCPU_WAIT, KEEL_TIME_NEVER); \
			kt_sti();                                 \
		}                                                 \
		kt_sti();                                         \
	} while (0)
u64 kt_pending(void);
bool kt_port_pending(u32 port);
bool kt_port_masked(u32 port);
u32 kt_alloc(u32 priority);
u32 kt_bind(u32 source, u32 priority);

/* Time. */
u64 kt_now(void);
/* So many times slower than where the tests' windows of time were chosen, at least 1: they are stretched by it. */
u64 kt_slow(void);
static inline u64 kt_tsc(void)
{
	u32 lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (u64)hi << 32 | lo;
}
void kt_spin_ns(u64 ns);

/* Negotiation, for tests that do it themselves. */
void kt_accept_all(void);
void kt_freeze(void);

/* hypercalls.def as a table. kt_implemented(): by the host's own word, base_probe and feature word 1. */
struct kt_call_info {
	u32 id, flags, nargs;
	const char *name;
};
extern const struct kt_call_info kt_calls[KEEL_CALL_COUNT];
bool kt_implemented(const struct kt_call_info *c);

/* What kt_pv.c and kt_hvm.c do each their own way: before the first word, the command line, and before a test. */
void kt_setup(void);
const char *kt_cmdline(u32 *size);
void kt_prepare(const struct kt_test *t);

/* Start info. */
extern const struct keel_start *kt_start;
const void *kt_chunk(u32 type, u32 *size);	/* payload of the first of this type, or NULL */
u64 kt_option(const char *name, u64 otherwise); /* a number from the command line */

/* Random numbers from seed=, the same on every machine. */
u64 kt_random(void);
u64 kt_random_below(u64 n);
extern u64 kt_seed, kt_scale;

#endif
