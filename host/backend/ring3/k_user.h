/* SPDX-License-Identifier: MIT */
/*
 * Guest user code on ring3: what K, the nursery N, the user processes U and their
 * mappers M share (host/README.md, "ring3 user code").
 *
 * The arena is one file, made by K before it seals itself:
 *
 *	head                     K and N, read-write
 *	pair 0: commands         K read-write, U and M read-only
 *	        slot per vCPU    K and U read-write
 *	pair 1: ...
 *
 * K maps all of it; a U has the part of its own pair, at addresses that are the same
 * in every U. A slot is hand-off page, XSAVE area and signal stack of one U thread.
 */
#ifndef KEEL_RING3_K_USER_H
#define KEEL_RING3_K_USER_H

#define U_ARENA_VA 0x7f0400000000 /* in K and N */
#define U_ARENA_SPAN 0x10000000	  /* at least U_ARENA_SIZE; a power of two, for the filter */
#define U_PAIR_VA 0x7f0500000000  /* in U and M: commands, then slots */
#define U_PAIRS 256
#define K_PAIR_SIZE 512 /* what K knows of one, at the end of the monitor's memory */
#define K_PAIRS_SIZE (U_PAIRS * K_PAIR_SIZE)
#define U_HEAD_SIZE 0x10000
#define U_SLOT_SIZE 0x8000 /* a power of two: the stack pointer of a handler gives the slot */
#define U_CMD_SIZE U_SLOT_SIZE
#define U_PAIR_SPAN 0x100000 /* at least that; a power of two */
#define U_PAIR_SIZE (U_CMD_SIZE + 16 * U_SLOT_SIZE)
#define U_ARENA_SIZE (U_HEAD_SIZE + U_PAIRS * U_PAIR_SIZE)
#define U_SLOT_VA (U_PAIR_VA + U_CMD_SIZE)

#define U_XSAVE_OFF 0x1000
#define U_ALT_OFF 0x2000

/* A descriptor for each vCPU, by which M says that a command is done. A multiple of 16, for the filter. */
#define K_FD_DONE 16
#define K_FD_ARENA 15 /* closed once it is mapped */

#define U_SIG_KICK 10  /* SIGUSR1: hand over now */
#define U_SIG_RESET 12 /* SIGUSR2: forget what you do, and sleep */

/* No system call of user code has these as last arguments by chance; see filter.c. */
#define U_MAGIC 0x6b65656c

/* struct u_slot, for u_entry.S; asserted in k_user.c. */
#define US_TURN 0
#define US_K_ASLEEP 64
#define US_U_ASLEEP 68
#define US_FLAGS 128
#define US_KICK 132
#define US_SPIN 136
#define US_RFBM 144
#define US_FP 152
#define US_R8 160
#define US_R9 168
#define US_R10 176
#define US_R11 184
#define US_R12 192
#define US_R13 200
#define US_R14 208
#define US_R15 216
#define US_RDI 224
#define US_RSI 232
#define US_RBP 240
#define US_RBX 248
#define US_RDX 256
#define US_RAX 264
#define US_RCX 272
#define US_IRET 280
#define US_FS 320
#define US_GS 328
#define US_SIG 384
#define US_SELECTORS 388
#define US_U_FS 392
#define US_U_GS 400
#define US_STARTED 408
#define US_SIGSYS 416
#define US_REGS 448
#define US_X87 640
#define US_PROG 1216
#define US_ALT 1232
#define US_MASK 1256
#define US_M_PROG 1264
#define US_REGS_SIZE 192
#define US_X87_SIZE 576

#define US_SET_FS 1   /* flags: the FS base is another than it was */
#define US_SET_GS 2   /* the same of GS */
#define US_FSGSBASE 4 /* the instructions may be used */

/* struct u_cmd */
#define UM_SEQ 0
#define UM_N 4
#define UM_SPIN 8
#define UM_FD 16
#define UM_DONE 24
#define UM_FAILED 32
#define UM_OPS 64
#define UM_OP_SIZE 56

/* What is added to a vCPU's descriptor; never two of the first two at once. */
#define UM_ANSWER_DONE 1
#define UM_ANSWER_FAILED 0x10000
#define UM_ANSWER_DEATH 0x100000000

#ifndef __ASSEMBLER__
#include <stdint.h>

/*
 * What is spun for, what says who sleeps, what K writes and what U writes: each has cache
 * lines of its own, for they move between two processors at every hand-over.
 */
struct u_slot {
	uint32_t turn; /* 0 = K's; U's otherwise */
	uint32_t pad0[15];

	uint32_t k_asleep; /* set by K before it sleeps on turn */
	uint32_t u_asleep; /* the same by U */
	uint32_t pad1[14];

	/* K's */
	uint32_t flags;
	uint32_t kick; /* do not start user code */
	uint32_t spin; /* rounds U spins before it sleeps */
	uint32_t pad2;
	uint64_t rfbm; /* every component there is: what user code has no part in is reset, too */
	uint64_t fp;   /* where its x87, vector and mask state is */
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx;
	struct {
		uint64_t rip, cs, rflags, rsp, ss;
	} iret;
	uint64_t fs, gs;
	uint64_t pad3[6];

	/*
	 * U's. Copies of the signal's frame: were K to read the frame itself, the kernel
	 * would have to fetch its lines back from K's processor to write the next one.
	 */
	uint32_t sig;	    /* the signal that stopped user code, 0 = it did not start */
	uint32_t selectors; /* FS and GS << 16 */
	uint64_t u_fs, u_gs;
	uint32_t started; /* low half of the time stamp counter before user code runs */
	uint32_t pad4;
	struct {
		uint64_t call_addr;
		uint32_t nr, arch;
	} sigsys;
	uint64_t pad5[2];
	uint64_t regs[US_REGS_SIZE / 8]; /* struct sigcontext_64, up to fpstate */
	uint8_t x87[US_X87_SIZE];	 /* legacy area and header of the XSAVE area; fpstate has the rest */

	/* From here on only until the thread is sealed. */
	struct {
		uint64_t len, code;
	} prog;
	struct {
		uint64_t sp;
		uint64_t flags, size;
	} alt;
	uint64_t mask;
	struct {
		uint64_t len, code;
	} m_prog;
};

struct u_op {
	uint64_t nr, arg[6];
};

/* Read by M when seq moves. */
struct u_cmd {
	uint32_t seq;
	uint32_t n;
	uint32_t spin;
	uint32_t reserved;
	uint64_t fd;
	uint64_t done, failed; /* what M writes to fd */
	uint64_t pad[3];
	struct u_op op[];
};
#define U_OPS ((U_CMD_SIZE - UM_OPS) / UM_OP_SIZE)

enum u_state {
	U_NONE,
	U_WANTED, /* K: make it */
	U_LIVE,	  /* U, when it is ready */
	U_KILL,	  /* K: end it */
	U_DEAD,	  /* N: it is gone */
};

struct u_head {
	uint32_t seq; /* moves with every change of a state, by N and U */
	uint32_t made;
	uint32_t waiting[16]; /* by vCPU: pair + 1 whose M it waits for */
	struct {
		uint32_t state;
		uint32_t u, m;	  /* process ids */
		uint32_t tid[16]; /* of U's threads */
	} pair[U_PAIRS];
};

static inline struct u_cmd *u_cmd(unsigned int pair)
{
	return (struct u_cmd *)(U_ARENA_VA + U_HEAD_SIZE + (uint64_t)pair * U_PAIR_SIZE);
}

static inline struct u_slot *u_slot(unsigned int pair, unsigned int vcpu)
{
	return (struct u_slot *)((uint8_t *)u_cmd(pair) + U_CMD_SIZE + vcpu * U_SLOT_SIZE);
}

struct mvcpu;
struct as;

/* k_user.c */
long k_user_init(struct mvcpu *v, uint64_t minsig);
void k_user_kicked(struct mvcpu *v);
/* mb_map() and so on, of a space of user code. */
void k_user_map(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint64_t gpa, uint32_t prot,
		unsigned int flags);
void k_user_unmap(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages);
void k_user_protect(struct mvcpu *v, struct as *as, uint64_t va, uint64_t pages, uint32_t prot);
void k_user_settle(struct mvcpu *v, struct as *as);

/* k_nursery.c. Fork N; before K gives up what that takes. Its process id, or a negative errno. */
long k_nursery(void);
#endif

#endif
