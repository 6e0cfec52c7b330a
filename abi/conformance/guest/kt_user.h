/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * What tests of address spaces, guest user code and several vCPUs use beside
 * kt.h. User code is a few instructions between two labels, copied into a page
 * of RAM and mapped at KU_CODE: deliberately where the kernel has its own image.
 */
#ifndef KT_USER_H
#define KT_USER_H

#include "kt.h"

#define KU_CODE KEEL_U64(0x400000)
#define KU_STACK KEEL_U64(0x20000000) /* the top of four pages */
#define KU_DATA KEEL_U64(0x30000000)
#define KU_DATA_PAGES 8
#define KU_GPA \
	(KT_SCRATCH_GPA + 0x10000) /* code, data, stack: KU_PAGES for each space of ku_make(); beyond kt_digest() */
#define KU_PAGES KEEL_U64(16)
#define KU_DATA_AT(gpa) ((gpa) + KEEL_PAGE_SIZE)

#define KU_RW (KEEL_PROT_R | KEEL_PROT_W)
#define KU_RX (KEEL_PROT_R | KEEL_PROT_X)

/* A context and its XSAVE area. In the image, so that GPAs follow each other. */
#define KU_XSAVE_MAX 0x3f00
struct ku {
	struct keel_user u;
	u8 xsave[KU_XSAVE_MAX];
} __attribute__((aligned(64)));

/* Skip unless the host serves USER (and with it AS). */
void ku_needed(void);

/* Calls on an address space. */
u64 ku_space(void);
struct kt_ret ku_mmu(u64 as, u32 op, u64 va, u64 gpa, u64 len, u32 prot, u32 flags);
#define KU_MAP(as, va, gpa, len, prot) ku_mmu(as, KEEL_MMU_MAP, va, gpa, len, prot, 0)
#define KU_UNMAP(as, va, len) ku_mmu(as, KEEL_MMU_UNMAP, va, 0, len, 0, 0)
#define KU_PROTECT(as, va, len, prot) ku_mmu(as, KEEL_MMU_PROTECT, va, 0, len, prot, 0)
u64 ku_query(u64 as, u64 va); /* gpa | prot, 0 when unmapped */
u64 ku_info(u64 as, u32 what);
void ku_destroy(u64 as); /* until it is done */
struct kt_ret ku_clone(u64 as, u64 flags);

/* A space with code, data and stack in the KU_PAGES pages from gpa on; code is copied there. */
u64 ku_make(u64 gpa, const u8 *code, const u8 *end);
void ku_code(u64 gpa, const u8 *code, const u8 *end); /* other code in the same page */
void ku_context(struct ku *c, u64 rip);		      /* everything 0 or initial, rsp = KU_STACK */
struct kt_ret ku_enter(u64 as, struct ku *c);
/* Enter until there is a reason other than an event with nothing pending; the reason, 0 for an error. */
u32 ku_run(u64 as, struct ku *c);
const char *ku_reason(const struct ku *c);

/* USER_CODE(name, text): instructions that run anywhere; KU(name) are its two ends. */
#define USER_CODE(name, text)                                                                          \
	__asm__(".pushsection .rodata\n.globl ku_" #name "\nku_" #name ":\n" text "\n.globl ku_" #name \
		"_end\nku_" #name "_end:\n.popsection\n");                                             \
	extern const u8 ku_##name[], ku_##name##_end[]
#define KU(name) ku_##name, ku_##name##_end

/* XSAVE areas: fill one with a pattern of everything the mask has, and compare two. */
void ku_fp_fill(u8 *area, u64 mask, u64 seed);
void ku_fp_init(u8 *area); /* the initial configuration */
bool ku_fp_equal(const u8 *a, const u8 *b, u64 mask);
/* A component that is not in an area's xstate_bv is in its initial configuration: make that explicit. */
void ku_fp_normal(u8 *area, u64 mask);

/*
 * Other vCPUs. A test starts one with a function; what it finds wrong it keeps
 * for vCPU 0 to say. Handlers of traps and events are those of smp_on().
 */
#define KC_MAX 16
#define KC_STACK 16384
struct kc {
	u64 stack_top; /* these up to fx are entry.S's */
	u64 rsp;
	struct kt_regs regs; /* at its start */
	u64 self, if_enabled;
	u8 pad[0x60];
	u8 fx[512];
	void (*fn)(struct kc *c);
	u64 arg;
	u32 id;
	struct keel_vcpu *page;
	volatile u64 go, at, stop, count; /* for the tests */
	u64 fixup, fixup_rsp;
	volatile u64 traps, upcalls, dumps;
	struct keel_frame trap;
	volatile u32 seen[KEEL_EVENT_BITS];
	u64 random;
	volatile u64 failed; /* line */
	u64 got, want;
	struct ku user;
	u8 stack[KC_STACK] __attribute__((aligned(16)));
} __attribute__((aligned(4096)));
extern struct kc kc[KC_MAX];

void kc_needed(u32 vcpus); /* skip unless SMP is offered; REQUIREs that many */
struct kc *kc_self(void);
struct kt_ret kc_start(u32 id, void (*fn)(struct kc *c), u64 arg); /* fn's return stops it */
u64 kc_state(u32 id);
bool kc_stopped(u32 id, u64 ms);			    /* wait for it; yields meanwhile */
void kc_stop(u32 id);					    /* vcpu_stop until it is OK */
void kc_report(void);					    /* say what the others found wrong */
bool kc_until(const volatile u64 *word, u64 value, u64 ms); /* wait until *word >= value */
struct keel_vcpu *kc_page(u32 id);
u32 kc_port_at(struct kc *c, u32 bit); /* on its own vCPU: the port at that bit, 0 = none to be had */
u64 kc_random(struct kc *c);
void kc_scan(struct kc *c);
void kc_sti(struct kc *c);
int kc_read(struct kc *c, u64 va, u64 *value); /* 1 when it trapped; c->trap says how */
int kc_write(struct kc *c, u64 va, u64 value);
static inline void kc_pause(void)
{
	__asm__ volatile("pause" ::: "memory");
}
void kc_yield(void);

#define KC_CHECK(c, cond) kc_check(c, __LINE__, (u64) !!(cond), 1)
#define KC_EQ(c, a, b) kc_check(c, __LINE__, (u64)(a), (u64)(b))
bool kc_check(struct kc *c, u64 line, u64 got, u64 want);

#endif
