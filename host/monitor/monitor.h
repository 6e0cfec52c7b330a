/* SPDX-License-Identifier: MIT */
/*
 * The monitor: host-supplied code in the guest's own context that finishes
 * every partition-local hypercall in place. One source for all backends; what
 * differs is behind the mb_*() functions at the end, which each backend
 * implements.
 *
 * The monitor protects nothing: guest code in the same context can overwrite
 * it. The wall is the backend's (seccomp, EPT). Its checks exist so that a
 * correct guest gets errors instead of damage, and so that a wrong one is
 * reported well.
 *
 * Rules of execution (architecture decision 4):
 *  - it runs on its own stack, never nests and never touches FP state;
 *  - asynchronous upcalls never enter it: a signal or interrupt that lands in
 *    monitor text only sets `attn`, and the exit path looks again;
 *  - the exit sequences are restartable ranges (gate.S), so an upcall between
 *    the last look and the last instruction restarts the look.
 *
 * Several vCPUs (`--vcpus`): each has its own struct mvcpu, which only its own thread
 * writes, but for what is marked below. What they share is in struct mon, and each
 * part says what guards it. Locks are never held while guest code runs, and taken in
 * this order: an address space's, another one's (clone: source first), the arena's.
 */
#ifndef KEEL_MONITOR_H
#define KEEL_MONITOR_H

/* Where a vCPU's parts are, from the start of its VCPU_STRIDE block (%gs:0). */
#define MON_PRIVATE 0x1000    /* struct mvcpu */
#define MON_STACK_TOP 0x10000 /* grows down; struct mvcpu must end well below */
#define MON_ALT_BASE 0x20000  /* signal stack, up to the end of the block */
#define MON_BLOCK_SIZE 0x40000

/* struct mvcpu offsets for gate.S; asserted in core.c. */
#define MV_GUEST_RSP 0x00
#define MV_STACK 0x08
#define MV_ATTN 0x10
#define MV_GUEST_RBP 0x18
#define MV_IRET_CS 0x38
#define MV_IRET_SS 0x40
#define MV_CUR 0x48
#define MV_R9 0x108
#define MV_EVENT_ENTRY 0x120
#define MV_CALLS 0x150
#define MV_TRACE 0x180

/* struct mon_trace */
#define MON_TRACE 16 /* entries, a power of two */
#define MON_TRACE_SIZE 64
#define MT_ID 0
#define MT_RETURNED 4
#define MT_ARG 8
#define MT_STATUS 48
#define MT_VALUE 56

#define ATTN_LOOK 1   /* something may have become deliverable */
#define ATTN_RESUME 2 /* leave through `cur`, not through the caller's return address */

#ifndef __ASSEMBLER__

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <hypercall/event.h>
#include <keel/keel.h>

#define MON_MAX_CALLS 64
#define MON_MAX_VCPUS 16
#define MON_MAX_SPACES 1024 /* address spaces beside the guest kernel's */
/* Work bounds of one call (architecture decision 4); base_limit reports them. */
#define MON_BATCH 64
#define MON_MMU_PAGES 512
#define MON_BATCH_COUNT 65536
#define MON_HARVEST_PAGES 32768
#define MON_MEMORY_PAGES 32768
#define MON_CLONE_PAGES 2048

/* One remembered hypercall, layout shared with host/partition.h's trace_entry. */
struct mon_trace {
	uint32_t id;
	uint32_t returned;
	uint64_t arg[5];
	int64_t status;
	uint64_t value;
};

/*
 * The remote-call slot. turn: 0 = the guest's, 1 = the host's. Each side sets
 * its `asleep` before it blocks on turn and the other wakes it only then. One
 * cache line, so that a call moves one line each way.
 */
struct mon_remote {
	uint32_t turn;
	uint32_t host_asleep;
	uint32_t guest_asleep;
	uint32_t id;
	uint64_t word[5]; /* arguments; with the answer, status and value */
};
_Static_assert(sizeof(struct mon_remote) <= 64, "one cache line");

/* Pseudo call numbers of the remote slot: not hypercalls, a guest cannot reach them through the gate. */
#define MON_REMOTE_READY 0xff000000u  /* the context is built and sealed; arg0 = 0 or a negative errno, arg1 = step */
#define MON_REMOTE_FATAL 0xff000001u  /* mvcpu.fatal is filled in */
#define MON_REMOTE_PARKED 0xff000002u /* kvm: this vCPU stopped; returns when it is started */

enum mon_fatal_kind {
	MON_FATAL_NONE,
	MON_FATAL_TRAP,	   /* trap without an entry point; regs has vector, error, addr */
	MON_FATAL_DOUBLE,  /* double fault that could not be delivered */
	MON_FATAL_SYSCALL, /* forbidden system call; arg0 = number, arg1 = AUDIT_ARCH */
	MON_FATAL_MONITOR, /* a fault inside the monitor; arg0 = line or signal */
};

struct mon_fatal {
	uint32_t kind;
	uint32_t reserved;
	uint64_t arg[2];
	struct keel_frame regs;
};

struct mon_entry {
	uint64_t entry;
	uint64_t stack;
};

struct mon_count {
	uint64_t calls, errors, work;
};

/* mvcpu.run: what the vCPU does. KEEL_VCPU_STOPPED is the only state in which the host may write its `begin`. */
enum mon_run {
	MON_STOPPED = KEEL_VCPU_STOPPED,
	MON_RUNNING = KEEL_VCPU_RUNNING,
	MON_STARTING, /* set by the host, by exchange; the vCPU makes it RUNNING */
};

/* Private half of a vCPU, at MON_PRIVATE in its block. */
struct mvcpu {
	uint64_t guest_rsp;
	uint64_t stack;
	uint32_t attn;
	uint32_t dump_pending; /* set by the host, or any vCPU's event_dump */
	uint64_t guest_rbp;    /* with guest_rsp: where a backtrace of a calling guest starts */
	struct mon *mon;
	struct keel_vcpu *page;
	uint32_t id;
	uint32_t illegal;	   /* KEEL_CF_NOBATCH in a multicall, KEEL_CF_NODUMP in the dump handler */
	uint64_t iret_cs, iret_ss; /* selectors of guest-kernel mode on this backend */
	struct keel_frame cur;	   /* context the exit path resumes */
	uint64_t r9;		   /* the caller's */
	struct mon_entry entry[KEEL_CLASS_COUNT];
	uint32_t calls_made; /* times MON_TRACE_SIZE, wrapping: the place of the next trace entry */
	uint32_t kick_seq;   /* moves with every kick that lands; vcpu_wait blocks on it */
	uint32_t kicked; /* a kick is on its way, or has landed and nobody has looked since: another is not needed */
	uint64_t timer_deadline; /* guest ns, KEEL_TIME_NEVER = off */
	struct mon_trace trace[MON_TRACE] __attribute__((aligned(64)));
	struct mon_count count[MON_MAX_CALLS];
	uint32_t run;  /* enum mon_run; ring3 waits on it for its start */
	uint32_t stop; /* set by the host: stop at the next look */
	struct {
		uint64_t entry, opaque;
	} begin;	       /* set by the host, before run becomes STARTING */
	struct as *user_as;    /* where this vCPU runs user code; NULL = nowhere */
	uint64_t user_gpa;     /* of its context */
	struct keel_user user; /* copy of the context that runs */
	struct mon_fatal fatal;
	struct mon_remote remote __attribute__((aligned(64)));
	uint64_t backend[16];		   /* the backend's own */
	uint64_t mmu_records;		   /* of mmu_batch, completed */
	uint32_t timer_port;		   /* as mon.console_port */
	uint8_t port_gen[KEEL_EVENT_BITS]; /* under mon.ports, like the next one */
	uint64_t port_used[64];
	union {
		struct keel_mmu_record mmu[MON_BATCH];
		struct keel_event_record event[KEEL_EVENT_BATCH_MAX];
		struct keel_vcpu_set set;
		uint8_t bytes[4096];	     /* the XSAVE area of user code, too */
	} copy __attribute__((aligned(64))); /* where batches are copied to, once */
};

/*
 * A lock between vCPUs. Whoever waits for one yields now and then, for its holder may
 * need the processor; nobody waits for the host while holding one, M and the cache's
 * own work (mb_*) excepted.
 */
struct mon_lock {
	uint32_t taken;
};

enum as_state {
	AS_FREE,
	AS_LIVE,
	AS_COPY,  /* being made by as_clone: no handle names it yet */
	AS_DYING, /* its runners are leaving; only as_destroy finds it */
};

/* An address space; as.c keeps its tree, space.c its life. All under `lock` but what says otherwise. */
struct as {
	uint64_t *root;
	uint64_t tracked;     /* pages under HARVEST */
	bool counted;	      /* in mon.tracking, for it has some */
	uint64_t pages;	      /* mapped */
	uint32_t tables;      /* of the arena */
	uint32_t table_limbo; /* given back, and perhaps in some TLB: head of their list + 1 */
	uint32_t index;	      /* 0 = the guest kernel's */
	struct mon_lock lock;
	uint32_t state;	  /* enum as_state; from and to FREE under mon.spaces_lock */
	uint32_t gen;	  /* of its handle */
	uint32_t running; /* bit per vCPU that runs user code here. Set under the lock, cleared by the vCPU without */
	/* A clone under way. */
	struct as *copy;
	uint64_t copy_at; /* address it has come to */
	uint64_t copy_flags;
	uint64_t backend[24]; /* the backend's own; zero when the space is made */
};

#define MON_MAX_BOOT 64

/* Partition-wide state. The host fills the first part before the context is sealed. */
struct mon {
	uint64_t ram_size;
	uint64_t abi_gpa, abi_size;
	uint8_t *ram;			/* the monitor's own view of RAM */
	const struct keel_clock *clock; /* the monitor's view of the clock page */
	uint64_t offered[KEEL_FEATURE_WORDS];
	uint64_t entry, start_va, gate_va;
	uint32_t vcpus;
	uint32_t boot_records;
	struct keel_mmu_record boot_map[MON_MAX_BOOT];
	char host_id[32];
	uint32_t console_port; /* vcpu << 12 | bit, + 1; 0 = unbound. The host reads it; written under `ports` */
	uint64_t xfeatures;    /* XCR0 components of user code and what a context's XSAVE area is */
	uint32_t xsave_size;
	uint32_t devices; /* doorbells there are, one for each device */
	uint32_t spaces;  /* how many there may be: base_limit */
	struct as *space; /* [spaces], index - 1 */

	/* Page-table arena. */
	uint8_t *arena;
	uint64_t arena_pages;
	struct mon_lock arena_lock; /* guards the next five */
	uint32_t *table_live;	/* entries in use, by table (its address space's lock); free tables: next free + 1 */
	uint32_t table_free;	/* head of the free list + 1 */
	uint32_t table_dead[3]; /* heads of the lists of whole subtrees given up, by level, + 1; see table_new() */
	uint32_t table_used;	/* tables ever handed out */
	uint32_t tables;	/* tables in use */
	bool tables_walked;	/* processors walk them: one given back is used again when its space has settled */
	uint64_t ram_base;	/* what an entry holds of GPA 0: where the backend's address translation puts it */
	uint64_t arena_base;	/* what an entry holds of the arena's first table */
	uint8_t *hostlog;	/* one bit per RAM page the monitor wrote while pages are tracked */

	/* From here on the monitor's own. */
	uint64_t accepted[KEEL_FEATURE_WORDS];
	uint64_t callable; /* bit per extension that may be called now */
	uint64_t held;	   /* bit per extension that waits for something the guest has to set up: STATE */
	bool frozen;
	uint8_t legal[MON_MAX_CALLS]; /* by call: implemented, and callable since freeze or early */
	struct as as0;
	uint64_t console_gpa;	     /* registered ring, ~0 = none */
	uint32_t tracking;	     /* address spaces with pages under HARVEST; written under spaces_lock */
	struct mon_lock ports;	     /* allocation and binding of ports, every vCPU's */
	struct mon_lock spaces_lock; /* which of space[] are in use */
	uint32_t space_next;	     /* where to look for a free one */

	uint8_t backend[512]; /* the backend's own */
};

struct keel_ret_ {
	int64_t status;
	uint64_t value;
};
typedef struct keel_ret_ mret;

/* Bits set; the compiler's own is a call into its library, which is not there. */
static inline unsigned int mon_bits(uint64_t word)
{
	unsigned int n = 0;

	for (; word; word &= word - 1)
		n++;
	return n;
}

#define MRET(s, v) ((mret){ (s), (v) })
#define MERR(code, at) MRET(KEEL_STATUS(code, at), 0)

static inline struct mvcpu *mv_of(struct keel_vcpu *page)
{
	return (struct mvcpu *)((uint8_t *)page + MON_PRIVATE);
}

/* Another vCPU of the partition: blocks lie one after the other. id is below mon.vcpus. */
static inline struct mvcpu *mv_peer(struct mvcpu *v, uint32_t id)
{
	return (struct mvcpu *)((uint8_t *)v + ((int64_t)id - v->id) * MON_BLOCK_SIZE);
}

/* Between looks at something another vCPU is about to do, the n-th time: the backend's, gives the processor up now and then. */
void mb_relax(unsigned int round);

static inline void mon_lock(struct mon_lock *l)
{
	for (unsigned int n = 0; __atomic_exchange_n(&l->taken, 1, __ATOMIC_ACQUIRE); n++)
		mb_relax(n);
}

static inline void mon_unlock(struct mon_lock *l)
{
	__atomic_store_n(&l->taken, 0, __ATOMIC_RELEASE);
}

/* core.c */
struct keel_ret_ mon_dispatch(uint64_t id, const uint64_t *arg, struct mvcpu *v);
void mon_count_error(uint32_t id, struct mvcpu *v);
void mon_init(struct mon *m);
/* Which extensions are held from now on. */
void mon_hold(struct mon *m, uint64_t extensions);
void mon_vcpu_init(struct mon *m, struct mvcpu *v, struct keel_vcpu *page, uint32_t id);
bool mon_range_ok(const struct mon *m, uint64_t gpa, uint64_t len);
bool mon_copy_in(const struct mon *m, void *dst, uint64_t gpa, uint64_t len);
bool mon_copy_out(struct mon *m, uint64_t gpa, const void *src, uint64_t len);
/* Pages of RAM were written past the guest's mappings: HARVEST has to know. */
void mon_wrote(struct mon *m, uint64_t gpa, uint64_t len);

/* Places in hypercalls.def, for the counters. */
#define A(kind, name) 0
#define Z 0
#define KEEL_EXT(...)
#define KEEL_CALL(ext, fn, name, nargs, flags, a1, a2, a3, a4, a5, doc) MON_CALL_##name,
enum mon_call {
#include "hypercalls.def"
};
#undef KEEL_CALL

static inline void mon_work(struct mvcpu *v, enum mon_call call, uint64_t work)
{
	v->count[call].work += work;
}

/* One handler per served call, named after it; missing ones do not link. */
#define KEEL_CALL(ext, fn, name, nargs, flags, a1, a2, a3, a4, a5, doc) \
	mret mon_##name(struct mvcpu *v, const uint64_t *a);
#include "hypercalls.def"
#undef A
#undef Z
#undef KEEL_EXT
#undef KEEL_CALL

/* trap.c: what becomes of v->cur before it runs. Its rflags.IF is the hardware's, 1 in all guest-kernel code. */
void mon_exit(struct mvcpu *v);
/*
 * An asynchronous upcall landed at *ip. True when that is monitor text: it leaves a
 * mark, and goes on there as *ip and *flags then say.
 */
bool mon_upcall(struct mvcpu *v, uint64_t *ip, uint64_t *flags);
/* Deliver a trap to v->cur, or end the partition when there is nowhere to. */
void mon_trap(struct mvcpu *v, uint32_t vector, uint64_t error, uint64_t addr);

/* mmu.c */
int64_t mon_boot_map(struct mvcpu *v);

/* space.c. A live address space by its handle, with its lock taken; NULL = there is none. 0 is the guest kernel's. */
struct as *space_get(struct mvcpu *v, uint64_t handle);
void space_put(struct mvcpu *v, struct as *as);
/* Before the first page of an address space comes under HARVEST, its lock held. */
void space_track(struct mvcpu *v, struct as *as);

/* user.c: what the backend's mb_user() may need. */

/**
 * mon_user_event - is there a reason for user code to stop, or not to start?
 * @v: its vCPU, on its own thread
 *
 * An event or a dump to take, a stop, or an address space that is dying. Hears of every
 * kick from here on: mon_listen().
 */
bool mon_user_event(struct mvcpu *v);
/* The reason of a fault of user code, into v->user; false when the cache was behind and the access can be tried again. */
bool mon_user_fault(struct mvcpu *v, uint64_t va, bool write, bool fetch);
/* Any other exception, vector as the hardware has it. */
void mon_user_exception(struct mvcpu *v, uint32_t vector);

/* event.c */

/**
 * mon_kick - make another vCPU look, unless it is about to
 * @to: what it is to find is already where it looks
 *
 * Between two looks of a vCPU one kick lands, however many are sent: were each to
 * interrupt the handler of the one before, no stack would be deep enough.
 */
void mon_kick(struct mvcpu *v, struct mvcpu *to);

/* Before a vCPU looks: who comes too late for this look kicks it again. Every way on from a kick leads through one. */
static inline void mon_listen(struct mvcpu *v)
{
	__atomic_store_n(&v->kicked, 0, __ATOMIC_SEQ_CST);
}

/* Make a port pending on vCPU `to`, which may be v itself. */
void mon_send(struct mvcpu *v, struct mvcpu *to, uint32_t bit);
/* A vCPU's thread, before its first guest instruction and after each vcpu_start: v->cur becomes its start. */
void mon_begin(struct mvcpu *v);
/* Ports, masks and pending bits stay; the timer does not. Then mb_park(). */
void mon_stop(struct mvcpu *v) __attribute__((noreturn));
void mon_timer_fired(struct mvcpu *v);
void mon_timer_off(struct mvcpu *v);
uint64_t mon_now(struct mvcpu *v);

/* as.c: the tree is the authoritative page table (architecture decision 11). */
#define PTE_P KEEL_U64(0x001)
#define PTE_W KEEL_U64(0x002)
#define PTE_U KEEL_U64(0x004) /* in the tables and leaves of every space but the guest kernel's */
#define PTE_A KEEL_U64(0x020)
#define PTE_D KEEL_U64(0x040)
#define PTE_PS KEEL_U64(0x080)
#define PTE_TRACK KEEL_U64(0x200) /* under HARVEST; not writable in the cache until dirty */
#define PTE_NX (KEEL_U64(1) << 63)
#define PTE_ADDR KEEL_U64(0x000ffffffffff000)

/* mb_settle() is done: tables given back can be used again. */
void as_settled(struct mon *m, struct as *as);
bool as_init(struct mon *m, struct as *as); /* false: no table left */
void as_drop(struct mon *m, struct as *as); /* give up the whole tree, in one step whatever its size */
/* Copy up to `max` mapped pages' entries from *va on, tracking aside; *va moves. False: no table left. */
bool as_copy(struct mon *m, struct as *to, struct as *from, uint64_t *va, uint64_t max);
uint64_t as_lookup(struct mon *m, struct as *as, uint64_t va);
/*
 * Each returns the pages done; fewer than asked: NOMEM for map, a hole for protect.
 * *replaced becomes true when something was mapped there before.
 */
uint64_t as_map(struct mon *m, struct as *as, uint64_t va, uint64_t gpa, uint64_t pages, uint64_t pte_flags,
		bool *replaced);
uint64_t as_unmap(struct mon *m, struct as *as, uint64_t va, uint64_t pages, uint64_t *present, uint64_t *written);
uint64_t as_protect(struct mon *m, struct as *as, uint64_t va, uint64_t pages, uint64_t pte_flags);
/* Change flag bits of mapped 4 KiB pages of a range; splits large ones. Pages done, fewer = NOMEM. */
uint64_t as_flags(struct mon *m, struct as *as, uint64_t va, uint64_t pages, uint64_t set, uint64_t clear);
/*
 * Take PTE_D from tracked pages of a range; returns how many had it, and sets bit
 * at + i of `bits` for each such page i. One that is written just now keeps it or is told of.
 */
uint64_t as_take_dirty(struct mon *m, struct as *as, uint64_t va, uint64_t pages, uint8_t *bits, uint64_t at);
/*
 * Longest run from the first mapped page at or above va, before end, whose
 * pages continue each other (same flags, next GPA), at most max pages.
 * Returns pages, 0 = none; *va and *pte describe its first page.
 */
uint64_t as_run(struct mon *m, struct as *as, uint64_t *va, uint64_t end, uint64_t max, uint64_t *pte);

static inline uint64_t pte_user(const struct as *as)
{
	return as->index ? PTE_U : 0;
}

static inline uint32_t pte_prot(uint64_t pte)
{
	return KEEL_PROT_R | (pte & PTE_W ? KEEL_PROT_W : 0) | (pte & PTE_NX ? 0 : KEEL_PROT_X);
}

/* Protection the cache may have now: a tracked clean page must fault on write. */
static inline uint32_t pte_cache_prot(uint64_t pte)
{
	uint32_t prot = pte_prot(pte);

	return (pte & (PTE_TRACK | PTE_D)) == PTE_TRACK ? prot & ~KEEL_PROT_W : prot;
}

/*
 * mmu.c: a fault at va in an address space, whose lock it takes; true when the
 * cache was behind the tree (or the page was clean under HARVEST) and the access can
 * be retried. Sets *error to the normalised page-fault code otherwise.
 */
bool mon_fault(struct mvcpu *v, struct as *as, uint64_t va, bool write, bool fetch, uint64_t *error);

/* gate.S */
#define MON_SYMBOL __attribute__((visibility("hidden"))) /* same image: no GOT */
extern char mon_text_start[] MON_SYMBOL, mon_text_end[] MON_SYMBOL;
extern char gate_check[] MON_SYMBOL, gate_ret[] MON_SYMBOL, gate_ret_end[] MON_SYMBOL, gate_load_rip[] MON_SYMBOL;
extern char mon_resume[] MON_SYMBOL, mon_resume_load[] MON_SYMBOL, mon_resume_end[] MON_SYMBOL;

/*
 * What a backend gives the monitor. Map, unmap and protect act on the cache of an
 * address space (VMAs, TLB), whose lock is held; they cannot fail: a cache that is
 * full is emptied. For an address space of user code they may put it off until it is
 * entered where nobody runs in it, and otherwise until mb_settle(), which ends each
 * batch: then every reduction is in force on every vCPU.
 */
#define MB_POPULATE 1 /* bring the pages in now */
#define MB_REPLACED 2 /* the cache may hold something else for this range */
void mb_map(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint64_t gpa, uint32_t prot,
	    unsigned int flags);
void mb_unmap(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages);
void mb_protect(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint32_t prot);
void mb_settle(struct mvcpu *v, struct as *as);

/* A new address space's cache is empty; false: the backend has no room for one. Its lock is held or nobody knows it. */
bool mb_as_create(struct mvcpu *v, struct as *as);
/* Nobody runs in it any more, and its tree is as it was: let go of its cache. Its lock is held. */
void mb_as_destroy(struct mvcpu *v, struct as *as);

/**
 * mb_user - run user code until there is a reason to stop
 * @v: v->user holds the registers and v->user_as the address space; v->copy.bytes the XSAVE area, checked.
 *     v's bit in as->running is set
 *
 * On return v->user and v->copy.bytes hold what user code left, and vector, error and addr. Returns
 * KEEL_USER_*. Looks at mon_user_event() whenever the vCPU was kicked.
 */
uint32_t mb_user(struct mvcpu *v);

uint64_t mb_now(struct mvcpu *v);				/* guest ns without the clock page */
void mb_timer(struct mvcpu *v, uint64_t deadline);		/* guest ns; KEEL_TIME_NEVER disarms */
bool mb_wait(struct mvcpu *v, uint32_t seq, uint64_t deadline); /* until kick_seq != seq; false: deadline passed */
void mb_yield(struct mvcpu *v, struct mvcpu *to);		/* NULL = to anyone */
/* Make another vCPU look at what became pending, its dump or its stop; it may be anywhere, stopped included. See mon_kick(). */
void mb_kick(struct mvcpu *v, struct mvcpu *to);
void mb_park(struct mvcpu *v)
	__attribute__((noreturn)); /* v->run is STOPPED: until it is STARTING, then as at the first start */
mret mb_remote(struct mvcpu *v, uint32_t id, const uint64_t *arg);
void mb_doorbell(struct mvcpu *v);
void mb_device(struct mvcpu *v, uint32_t device); /* ring the doorbell of one; below mon.devices */
bool mb_release(struct mvcpu *v, uint64_t gpa, uint64_t pages);
bool mb_populate(struct mvcpu *v, uint64_t gpa, uint64_t pages);
void mb_fatal(struct mvcpu *v) __attribute__((noreturn)); /* report v->fatal and stop */

#endif /* !__ASSEMBLER__ */

#endif
