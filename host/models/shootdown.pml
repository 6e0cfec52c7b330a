/* SPDX-License-Identifier: MIT */
/*
 * Shootdowns of the kvm backend's monitor: reductions of the guest kernel's space in
 * backend/kvm/pv_tlb.c. When mb_settle() is back no vCPU uses what was taken, a vCPU that
 * was quiet meanwhile does not when it is loud again, and vCPUs that shoot at each other
 * with interrupts off both come to an end.
 */
#define CPUS 2
#define CELLS 9
#include "tso.pml"

#define A 0 /* takes two pages, one after the other */
#define B 1 /* uses them, goes quiet, and shoots at A for something of its own */

#define PTE(page) (page) /* 1 = mapped */
#define GEN 2
#define FROM 3 /* the page of the last reduction */
#define QUIET_B 4
#define ASKED(cpu) (5 + (cpu))
#define ANSWERED(cpu) (7 + (cpu))

#define LOUD 0
#define QUIET 2

bool tlb[2]; /* B's */
byte seen;   /* B's PV_SLOT_SEEN */
bool irq[2];
bool taken[2]; /* mb_settle() is back */
bool shot, over;

inline flush_from(all)
{
	if
	:: all -> tlb[0] = false; tlb[1] = false
	:: else -> tlb[LOAD(B, FROM)] = false
	fi
}

inline catch_up(all)
{
	gen = LOAD(B, GEN);
	if
	:: gen != seen -> atomic { flush_from(all || seen + 1 != gen); seen = gen }
	:: else
	fi;
	gen = 0
}

inline pv_loud()
{
#ifdef BUG_LOUD_LATE
	catch_up(true);
	STORE_SC(B, QUIET_B, LOUD)
#elif defined(BUG_LOUD_PLAIN)
	STORE(B, QUIET_B, LOUD);
	catch_up(true)
#elif defined(BUG_LOUD_BLIND)
	STORE_SC(B, QUIET_B, LOUD)
#elif defined(BUG_LOUD_LAST)
	STORE_SC(B, QUIET_B, LOUD);
	catch_up(false)
#else
	STORE_SC(B, QUIET_B, LOUD);
	catch_up(true)
#endif
}

inline answer_a()
{
	if
	:: LOAD(A, ASKED(A)) != LOAD(A, ANSWERED(A)) ->
		asked = LOAD(A, ASKED(A));
		STORE_SC(A, ANSWERED(A), asked);
		asked = 0
	:: else
	fi
}

inline answer_b()
{
	if
	:: LOAD(B, ASKED(B)) != LOAD(B, ANSWERED(B)) ->
#ifndef BUG_ASKED_LATE
		asked = LOAD(B, ASKED(B));
#endif
		if
		:: LOAD(B, QUIET_B) == LOUD -> catch_up(false)
		:: else
		fi;
#ifdef BUG_ASKED_LATE
		asked = LOAD(B, ASKED(B));
#endif
		STORE_SC(B, ANSWERED(B), asked);
		asked = 0
	:: else
	fi
}

inline ask(cpu, to)
{
	atomic { FENCE(cpu); mem[ASKED(to)] = mem[ASKED(to)] + 1; ticket = mem[ASKED(to)] }
}

#define OWES_B (LOAD(A, QUIET_B) <= LOUD && LOAD(A, ANSWERED(B)) < ticket)
#define OWES_A (LOAD(B, ANSWERED(A)) < ticket)

proctype a()
{
	byte page, asked, ticket, gen;

	do
	:: page == 2 -> break
	:: page < 2 ->
		STORE(A, PTE(page), 0);			/* as_unmap() */
		STORE(A, FROM, page);			/* reduce() */
		gen++;
#ifdef BUG_GEN_LATE
		ask(A, B);
		STORE_SC(A, GEN, gen);
#else
		STORE_SC(A, GEN, gen);			/* mb_settle() */
		ask(A, B);				/* pv_shoot() */
#endif
		if
		:: OWES_B ->
#ifndef BUG_NO_IPI
			irq[B] = true
#endif
		:: !OWES_B ->
#ifndef BUG_LOUD_AWAITED
			goto settled			/* quiet: it catches up by itself, whatever it is next */
#endif
		fi;
		do					/* looks that find nothing are left out */
#ifndef BUG_NO_SERVICE
		:: OWES_B && LOAD(A, ASKED(A)) != LOAD(A, ANSWERED(A)) -> answer_a()
#endif
		:: !OWES_B -> break
		od;
settled:	atomic { taken[page] = true; ticket = 0; page++ }
	od;
	over = true;
end:	do						/* interrupts are on again */
	:: atomic { irq[A] -> irq[A] = false }; answer_a()
	od
}

/* The processor walks the tables when it likes to, and uses what it has found. */
inline walk(page)
{
	if
	:: mem[PTE(page)] -> tlb[page] = true
	:: else
	fi
}

proctype b()
{
	byte asked, ticket, gen;

	do
	:: tlb[0] -> assert(!taken[0])
	:: tlb[1] -> assert(!taken[1])
	:: !tlb[0] -> atomic { walk(0) }
	:: !tlb[1] -> atomic { walk(1) }
	:: atomic { irq[B] -> irq[B] = false }; answer_b()
	:: true -> irq[B] || over			/* for (;;) ; */
	:: !over ->					/* mb_wait(), mb_remote() */
		STORE_SC(B, QUIET_B, QUIET);
		if
		:: true
		:: atomic { irq[B] -> irq[B] = false }; answer_b()
		:: atomic { walk(0) }
		fi;
		pv_loud()
	:: atomic { !shot -> shot = true };		/* interrupts off */
		ask(B, A);
		if
		:: OWES_A -> irq[A] = true
		:: else
		fi;
		do
#ifndef BUG_NO_SERVICE
		:: OWES_A && LOAD(B, ASKED(B)) != LOAD(B, ANSWERED(B)) -> answer_b()
#endif
		:: !OWES_A -> break
		od;
		ticket = 0
	:: atomic { over && shot -> break }
	od
}

init {
	atomic {
		mem[PTE(0)] = 1;
		mem[PTE(1)] = 1;
		run drain(A); run drain(B); run a(); run b()
	}
}
