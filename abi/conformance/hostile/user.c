// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/*
 * Guest user code that means harm, under a guest kernel that does not. Whatever
 * is in the host's window where user code runs is found by looking; it is jumped
 * into and written over. The kernel must survive, say so, and find everything
 * else as it was: other spaces, its own memory, the way user code runs.
 */
#include "../guest/kt_user.h"

#define MS KEEL_U64(1000000)
#define WINDOW KEEL_U64(0x7f0100000000)
#define WINDOW_END KEEL_U64(0x7ffffffff000)

#include "attacks.h"

static struct ku x, w;
static u64 victim, witness, witness_hash, kernel_hash;
static u32 timer;

USER_CODE(call, "	syscall\n");
USER_CODE(sum, "	xor %eax, %eax\n"
	       "1:	add (%rdi), %rax\n"
	       "	add $8, %rdi\n"
	       "	cmp %rsi, %rdi\n"
	       "	jb 1b\n"
	       "	syscall\n");
USER_CODE(peek, "	mov (%rdi), %rax\n	syscall\n");
USER_CODE(touch, "	lock addl $0, (%rdi)\n	syscall\n");
USER_CODE(loop, "1:	jmp 1b\n");
/* The next system call instruction in [rdi, rsi). */
USER_CODE(gadget, "1:	cmp %rsi, %rdi\n"
		  "	jae 2f\n"
		  "	cmpw $0x050f, (%rdi)\n"
		  "	je 3f\n"
		  "	inc %rdi\n"
		  "	jmp 1b\n"
		  "2:	xor %edi, %edi\n"
		  "3:	syscall\n");
/* rcx random words over [rdi, rdi + rsi), then whatever r8 says: 0 = a system call, 1 = ud2, 2 = a loop. */
USER_CODE(scribble, "1:	mov %rdx, %rax\n"
		    "	shl $13, %rax\n"
		    "	xor %rax, %rdx\n"
		    "	mov %rdx, %rax\n"
		    "	shr $7, %rax\n"
		    "	xor %rax, %rdx\n"
		    "	mov %rdx, %rax\n"
		    "	shl $17, %rax\n"
		    "	xor %rax, %rdx\n"
		    "	mov %rdx, %rbx\n"
		    "	push %rdx\n"
		    "	mov %rbx, %rax\n"
		    "	xor %edx, %edx\n"
		    "	div %rsi\n"
		    "	and $-4, %rdx\n"
		    "	mov %ebx, (%rdi, %rdx)\n"
		    "	pop %rdx\n"
		    "	dec %rcx\n"
		    "	jnz 1b\n"
		    "	cmp $1, %r8\n"
		    "	je 2f\n"
		    "	ja 3f\n"
		    "	syscall\n"
		    "2:	ud2\n"
		    "3:	jmp 3b\n");

/* Pages of the host's window that user code can read, and which of them it can write. */
#define REACH_MAX 4096
static u64 reach[REACH_MAX];
static bool reach_w[REACH_MAX];
static u32 reached, writable;

static void arm(u64 ns)
{
	OK(HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + ns));
}

static void disarm(void)
{
	OK(HC(KEEL_CALL_TIME_SET_TIMER, KEEL_TIME_NEVER));
	kt_scan();
}

static u64 kernel_state(void)
{
	extern const u8 kt_tests_begin[];

	return kt_hash(kt_hash(1, (const void *)0x400000, (u64)kt_tests_begin - 0x400000), kt_ram(KT_SCRATCH_GPA),
		       8 * 4096);
}

static void prepare(void)
{
	ku_needed();
	timer = kt_bind(KEEL_SOURCE_TIMER, 0);
	OK(HC(KEEL_CALL_EVENT_UNMASK, timer));
	victim = ku_make(KU_GPA, KU(call));
	witness = ku_make(KU_GPA + KU_PAGES * 4096, KU(sum));
	kt_poison(KU_DATA_AT(KU_GPA + KU_PAGES * 4096), KU_DATA_PAGES * 4096, 77);
	witness_hash = kt_hash(1, kt_ram(KU_GPA + KU_PAGES * 4096), KU_PAGES * 4096);
	kernel_hash = kernel_state();
}

/* Everything that is not the victim's is as it was, and user code runs: elsewhere, and in the victim's space again. */
static bool unharmed(const char *what, u64 n)
{
	const u64 *data = kt_ram(KU_DATA_AT(KU_GPA + KU_PAGES * 4096));
	u64 want = 0;

	disarm();
	for (u64 i = 0; i < KU_DATA_PAGES * 512; i++)
		want += data[i];
	ku_context(&w, KU_CODE);
	w.u.rdi = KU_DATA;
	w.u.rsi = KU_DATA + KU_DATA_PAGES * 4096;
	if (ku_run(witness, &w) != KEEL_USER_SYSCALL || w.u.rax != want)
		KT_FAIL("%s %lu: another space: %s vector %u, sum %lx, expected %lx", what, n, ku_reason(&w),
			w.u.vector, w.u.rax, want);
	if (kt_hash(1, kt_ram(KU_GPA + KU_PAGES * 4096), KU_PAGES * 4096) != witness_hash)
		KT_FAIL("%s %lu: another space's memory changed", what, n);
	if (kernel_state() != kernel_hash)
		KT_FAIL("%s %lu: the kernel's memory changed", what, n);
	ku_code(KU_GPA, KU(call));
	ku_context(&w, KU_CODE);
	/* That its way of running is destroyed may be found out now: it is a #GP, and the next time there is another. */
	for (int i = 0; i < 2; i++) {
		ku_context(&w, KU_CODE);
		w.u.r13 = n;
		if (ku_run(victim, &w) == KEEL_USER_SYSCALL)
			break;
	}
	if (w.u.reason != KEEL_USER_SYSCALL || w.u.r13 != n || w.u.rip != KU_CODE + 2)
		KT_FAIL("%s %lu: its own space does not run any more: %s vector %u rip %lx", what, n, ku_reason(&w),
			w.u.vector, w.u.rip);
	OK_VALUE(HC(KEEL_CALL_BASE_PING, n), n);
	return !kt_fails;
}

static u32 access(u64 va, const u8 *code, const u8 *end)
{
	static const u8 *now;

	if (now != code)
		ku_code(KU_GPA, code, end);
	now = code;
	ku_context(&x, KU_CODE);
	x.u.rdi = va;
	return ku_run(victim, &x);
}

static void look_around(void)
{
	u64 edge = KEEL_U64(0x10000000);

	ku_code(KU_GPA, KU(peek));
	for (u64 va = KEEL_VA_END; va < WINDOW_END && reached < REACH_MAX; va += edge)
		/* Where there is something, and behind every 4 GiB, some way beyond gaps. */
		for (u64 at = va, gap = 0, most = va & 0xffffffff ? 1 : 128;
		     gap < most && at < va + edge && at < WINDOW_END && reached < REACH_MAX; at += 4096) {
			if (access(at, KU(peek)) != KEEL_USER_SYSCALL) {
				gap++;
				continue;
			}
			gap = 0;
			most = 128;
			reach[reached++] = at;
		}
	for (u32 i = 0; i < reached; i++) {
		reach_w[i] = access(reach[i], KU(touch)) == KEEL_USER_SYSCALL;
		writable += reach_w[i];
	}
	kt_note("%u pages of the host's window can be read, %u written", reached, writable);
	for (u32 i = 0; i < reached && i < 4000; i++)
		if (!i || reach[i] != reach[i - 1] + 4096)
			kt_note("from %lx%s", reach[i], reach_w[i] ? ", writable" : "");
	ku_code(KU_GPA, KU(call));
}

static void load(struct ku *c, u64 nr, const u64 *arg)
{
	c->u.rax = nr;
	c->u.rdi = arg[0];
	c->u.rsi = arg[1];
	c->u.rdx = arg[2];
	c->u.r10 = arg[3];
	c->u.r8 = arg[4];
	c->u.r9 = arg[5];
}

static void all_attacks(void)
{
	static const u64 of_fd[] = { 0,	 1,  3,	 5,  8,	 9,  16,  17,  18,  19,	 20,  32,
				     33, 72, 73, 74, 77, 78, 217, 281, 285, 291, 292, 326 };

	for (u64 i = 0; i < ATTACKS; i++) {
		ku_context(&x, KU_CODE);
		load(&x, attack[i].nr, attack[i].arg);
		if (ku_run(victim, &x) != KEEL_USER_SYSCALL || x.u.rax != attack[i].nr || x.u.rip != KU_CODE + 2)
			KT_FAIL("attack %lu, call %lu: %s vector %u rax %lx", i, attack[i].nr, ku_reason(&x),
				x.u.vector, x.u.rax);
	}
	for (u64 fd = 0; fd < 32; fd++)
		for (size_t i = 0; i < sizeof(of_fd) / 8; i++) {
			const u64 arg[6] = {
				of_fd[i] == 9 ? KU_DATA : fd, of_fd[i] == 9 ? 4096 : KU_DATA, 3, 0x11, fd, 0
			};

			ku_context(&x, KU_CODE);
			load(&x, of_fd[i], arg);
			if (ku_run(victim, &x) != KEEL_USER_SYSCALL || x.u.rax != of_fd[i])
				KT_FAIL("call %lu of descriptor %lu: %s rax %lx", of_fd[i], fd, ku_reason(&x), x.u.rax);
		}
	unharmed("attacks", ATTACKS);
}

KEEL_TEST("HOSTILE-101", hostile_user_attacks, "", "", 0)
{
	prepare();
	all_attacks();
}

/* The reasons there are. One that fails says where. */
static void any_reason(const char *what, u64 n)
{
	struct kt_ret r;
	u64 tries = 0;

	do {
		r = ku_enter(victim, &x);
	} while (!r.status && r.value == KEEL_USER_EVENT && !kt_pending() && ++tries < 1000000);
	if (r.status || r.value < KEEL_USER_SYSCALL || r.value > KEEL_USER_EVENT)
		KT_FAIL("%s %lu: status %ld reason %lu", what, n, r.status, r.value);
}

static u64 jumps(u64 every)
{
	u64 n = 0;

	for (u32 i = 0; i < reached; i++) {
		u64 at = reach[i];

		for (;;) {
			u64 end = i + 1 < reached && reach[i + 1] == reach[i] + 4096 ? reach[i] + 4096
										     : reach[i] + 4095;

			ku_code(KU_GPA, KU(gadget));
			ku_context(&x, KU_CODE);
			x.u.rdi = at;
			x.u.rsi = end;
			if (ku_run(victim, &x) != KEEL_USER_SYSCALL || !x.u.rdi)
				break;
			at = x.u.rdi;
			ku_code(KU_GPA, KU(call));
			for (u64 k = 0; k < ATTACKS && !kt_fails; k += every, n++) {
				ku_context(&x, at);
				load(&x, attack[k].nr, attack[k].arg);
				arm(MS);
				any_reason("jump to a system call instruction", at);
				disarm();
			}
			if (!unharmed("jumps", at))
				return n;
			at++;
		}
	}
	return n;
}

KEEL_TEST("HOSTILE-102", hostile_user_gadgets, "", "", 0)
{
	prepare();
	look_around();
	kt_note("%lu jumps", jumps(1));
}

KEEL_TEST("HOSTILE-103", hostile_user_jump_anywhere, "", "", 0)
{
	u64 rounds = kt_option("rounds", 2000), n[4] = { 0 };

	prepare();
	look_around();
	for (u64 i = 0; i < rounds && reached && !kt_fails; i++) {
		u32 p = (u32)kt_random_below(reached);

		ku_context(&x, reach[p] + kt_random_below(4096));
		for (u64 *r = &x.u.rax; r <= &x.u.r15; r++)
			switch (kt_random_below(5)) {
			case 0:
				*r = kt_random();
				break;
			case 1:
				*r = kt_random_below(512);
				break;
			case 2:
				*r = KU_DATA + kt_random_below(KU_DATA_PAGES * 4096);
				break;
			default:
				*r = reach[kt_random_below(reached)] + (kt_random_below(4096) & ~7ull);
			}
		x.u.rsp = kt_random_below(2) ? reach[kt_random_below(reached)] + (kt_random_below(4096) & ~7ull)
					     : KU_STACK - 512;
		arm(kt_random_below(MS));
		any_reason("jump", x.u.rip);
		disarm();
		n[x.u.reason & 3]++;
		if (i % 16 == 15)
			unharmed("jumps", i);
	}
	unharmed("jumps", rounds);
	kt_note("%lu system calls, %lu exceptions, %lu events", n[1], n[2], n[3]);
}

/* Over what it can write of the host's, then each way of stopping. */
static void scribbles(u64 rounds)
{
	for (u64 i = 0; i < rounds && writable && !kt_fails; i++) {
		u32 p = (u32)kt_random_below(reached);
		u64 span = 4096;

		if (!reach_w[p])
			continue;
		while (p + span / 4096 < reached && reach[p + span / 4096] == reach[p] + span &&
		       reach_w[p + span / 4096] && span < 65536)
			span += 4096;
		ku_code(KU_GPA, KU(scribble));
		ku_context(&x, KU_CODE);
		x.u.rdi = reach[p];
		x.u.rsi = span;
		x.u.rdx = kt_random() | 1;
		x.u.rcx = 1 + kt_random_below(i % 3 ? 20 : 5000);
		x.u.r8 = kt_random_below(3);
		arm(2 * MS);
		any_reason("scribble", i);
		disarm();
		if (i % 8 == 7)
			unharmed("scribbles", i);
	}
	unharmed("scribbles", rounds);
}

KEEL_TEST("HOSTILE-104", hostile_user_scribbles, "", "", 0)
{
	prepare();
	look_around();
	scribbles(kt_option("rounds", 600));
}

/* From other threads of the same space, all the time. */
static void scribbler(struct kc *c)
{
	struct ku *u = &c->user;

	HC(KEEL_CALL_EVENT_UNMASK, HC(KEEL_CALL_EVENT_BIND, KEEL_SOURCE_TIMER, 0).value);
	__atomic_store_n(&c->go, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE)) {
		u32 p = (u32)(kc_random(c) % reached);

		if (!reach_w[p])
			continue;
		ku_context(u, KU_CODE);
		u->u.rdi = reach[p];
		u->u.rsi = 4096;
		u->u.rdx = kc_random(c) | 1;
		u->u.rcx = 1000000;
		u->u.r8 = 2;
		HC(KEEL_CALL_TIME_SET_TIMER, kt_now() + kc_random(c) % (2 * MS));
		for (u64 k = 0; k < 100000; k++) {
			struct kt_ret r = ku_enter(victim, u);

			if (r.status || r.value != KEEL_USER_EVENT || c->page->pending)
				break;
		}
		kc_scan(c);
		c->count++;
	}
}

KEEL_TEST("HOSTILE-105", hostile_user_second_thread, "", "", 0)
{
	u64 rounds = kt_option("rounds", 400), n[4] = { 0 };

	kc_needed(3);
	prepare();
	look_around();
	if (!writable)
		return;
	ku_code(KU_GPA, KU(scribble));
	for (u32 i = 1; i < 3; i++) {
		OK(kc_start(i, scribbler, 0));
		REQUIRE(kc_until(&kc[i].go, 1, 5000));
	}
	/* Meanwhile this one calls, faults, loops: its frames are written over as they are made. */
	for (u64 i = 0; i < rounds && !kt_fails; i++) {
		ku_context(&x, KU_CODE);
		x.u.rdi = KU_DATA;
		x.u.rsi = 4096;
		x.u.rdx = i + 1;
		x.u.rcx = 1;
		x.u.r8 = i % 3;
		arm(kt_random_below(MS));
		any_reason("beside scribblers", i);
		disarm();
		n[x.u.reason & 3]++;
		if (i % 32 == 31) {
			const u64 *data = kt_ram(KU_DATA_AT(KU_GPA + KU_PAGES * 4096));

			(void)data;
			if (kt_hash(1, kt_ram(KU_GPA + KU_PAGES * 4096), KU_PAGES * 4096) != witness_hash)
				KT_FAIL("round %lu: another space's memory changed", i);
			if (kernel_state() != kernel_hash)
				KT_FAIL("round %lu: the kernel's memory changed", i);
		}
	}
	for (u32 i = 1; i < 3; i++)
		kc[i].stop = 1;
	for (u32 i = 1; i < 3; i++)
		if (!kc_stopped(i, 15000))
			KT_FAIL("vCPU %u does not come out of user code", i);
	unharmed("second threads", rounds);
	kt_note("%lu system calls, %lu exceptions, %lu events; %lu and %lu runs beside", n[1], n[2], n[3], kc[1].count,
		kc[2].count);
}

/* Preemption cannot be disarmed: endless code that keeps all it can write of the host's at one value. */
USER_CODE(overwrite, "1:	mov %rdi, %rbx\n"
		     "2:	mov %rax, (%rbx)\n"
		     "	add $8, %rbx\n"
		     "	cmp %rsi, %rbx\n"
		     "	jb 2b\n"
		     "	jmp 1b\n");

KEEL_TEST("HOSTILE-106", hostile_user_unstoppable, "", "", 0)
{
	u64 worst = 0, rounds = kt_option("rounds", 100);

	prepare();
	look_around();
	for (u64 i = 0; i < rounds && writable && !kt_fails; i++) {
		static const u64 value[] = { 0, 1, ~0ull, 0x7f0000000000, KU_CODE };
		u32 p = (u32)kt_random_below(reached);
		u64 begun, took;

		if (!reach_w[p])
			continue;
		ku_code(KU_GPA, KU(overwrite));
		ku_context(&x, KU_CODE);
		x.u.rdi = reach[p];
		x.u.rsi = reach[p] + 4096;
		x.u.rax = value[i % 5];
		x.u.rsp = i & 1 ? reach[p] + 4096 : KU_STACK;
		begun = kt_now();
		arm(2 * MS);
		any_reason("endless", i);
		took = kt_now() - begun;
		worst = took > worst ? took : worst;
		disarm();
		unharmed("endless", i);
	}
	kt_note("out of it after %lu ns at most", worst);
	CHECK(worst < 3000 * MS * kt_slow());
}

/* A space whose way of running is destroyed again and again, among many others. */
KEEL_TEST("HOSTILE-107", hostile_user_many, "", "", 0)
{
	u64 rounds = kt_option("rounds", 40), space[24];

	prepare();
	look_around();
	for (u64 round = 0; round < rounds && !kt_fails; round++) {
		u64 first = victim;

		for (u32 i = 0; i < 24; i++)
			space[i] = ku_make(KU_GPA + (2 + i) * KU_PAGES * 4096, KU(call));
		for (u32 i = 0; i < 24 && reached; i++) {
			u32 p = (u32)kt_random_below(reached);

			victim = space[i];
			ku_code(KU_GPA + (2 + i) * KU_PAGES * 4096, KU(overwrite));
			ku_context(&x, KU_CODE);
			x.u.rdi = reach[p];
			x.u.rsi = reach[p] + 4096;
			x.u.rax = kt_random();
			arm(MS / 2);
			any_reason("one of many", i);
			disarm();
		}
		victim = first;
		for (u32 i = 0; i < 24; i++)
			ku_destroy(space[i]);
		unharmed("many", round);
	}
}

/*
 * User code that claims to have stopped: it writes what it can over where it says
 * so, and goes on writing to a page. Its kernel takes that page away, from it and
 * with the space it is in: not one write may arrive after the call.
 */
USER_CODE(lie, "	mov %rdi, %rbx\n"
	       "1:	mov %rax, (%rbx)\n"
	       "	add $8, %rbx\n"
	       "	cmp %rsi, %rbx\n"
	       "	jb 1b\n"
	       "2:	inc %rcx\n"
	       "	mov %rcx, (%rdx)\n"
	       "	jmp 2b\n");
#define LIE_VA KEEL_U64(0x50000000)
#define LIE_GPA (KT_SCRATCH_GPA + (8 << 20))

KEEL_TEST("HOSTILE-108", hostile_user_lies, "", "", 0)
{
	static const u64 value[] = { 0, 1, ~0ull, 0x7f0000000000, KU_CODE, 1ull << 32, 2 };
	u64 rounds = kt_option("rounds", 60), late = 0;
	volatile u64 *word = kt_ram(LIE_GPA);

	prepare();
	look_around();
	for (u64 i = 0; i < rounds && writable && !kt_fails; i++) {
		u32 p = (u32)(i % reached);

		if (!reach_w[p])
			continue;
		if (i % 3 == 2) {
			ku_destroy(victim);
			victim = ku_make(KU_GPA, KU(call));
		}
		ku_code(KU_GPA, KU(lie));
		OK(KU_MAP(victim, LIE_VA, LIE_GPA, 4096, KU_RW));
		ku_context(&x, KU_CODE);
		x.u.rdi = reach[p];
		x.u.rsi = reach[p] + 4096;
		x.u.rax = i % 2 ? value[i % 7] : kt_random_below(64) | kt_random_below(64) << 32;
		x.u.rdx = LIE_VA;
		arm(MS / 2);
		any_reason("lie", i);
		disarm();
		switch (i % 3) {
		case 0:
			OK(KU_UNMAP(victim, LIE_VA, 4096));
			break;
		case 1:
			OK(KU_PROTECT(victim, LIE_VA, 4096, KEEL_PROT_R));
			break;
		default:
			ku_destroy(victim);
			victim = ku_make(KU_GPA, KU(call));
		}
		*word = 0x5eed;
		kt_spin_ns(3 * MS);
		if (*word != 0x5eed) {
			late++;
			KT_FAIL("page %lx, round %lu: user code that had stopped writes on (%lx)", reach[p], i, *word);
		}
		unharmed("lies", i);
	}
	kt_note("%lu late writes", late);
}

/* All of it, with quiet before and after in which the host is looked at from outside. */
static void quiet(const char *what)
{
	u64 end = kt_now() + 1500 * MS;

	disarm();
	kt_note("%s", what);
	while (kt_now() < end)
		HC(KEEL_CALL_VCPU_WAIT, end);
}

KEEL_TEST("HOSTILE-110", hostile_user_all, "", "", 0)
{
	prepare();
	look_around();
	unharmed("nothing yet", 0);
	quiet("before");
	all_attacks();
	kt_note("%lu jumps", jumps(11));
	scribbles(100);
	quiet("after");
}
