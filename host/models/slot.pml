/* SPDX-License-Identifier: MIT */
/*
 * A remote call of a ring3 guest: mb_remote() in backend/ring3/k_main.c, server() and
 * serve() in backend/ring3/ring3.c. Neither side sleeps through the other's turn, and
 * the words of the slot are never read before they are written.
 */
#define CPUS 2
#define CELLS 4
#include "tso.pml"

#define K 0 /* a vCPU's thread */
#define V 1 /* the host's thread for its slot */

#define TURN 0 /* 0 = the guest's, 1 = the host's */
#define HOST_ASLEEP 1
#define GUEST_ASLEEP 2
#define WORD 3

#define CALLS 3
#define ANSWER(n) (10 + (n))

#ifdef BUG_CALL_PLAIN
#define CALL STORE
#else
#define CALL STORE_SC
#endif
#ifdef BUG_REPLY_PLAIN
#define REPLY STORE
#else
#define REPLY STORE_SC
#endif

byte kicks = 1; /* signals that end K's sleep for nothing */

proctype guest()
{
	byte n;

	do
	:: n == CALLS -> break
	:: n < CALLS ->
		n++;
#ifdef BUG_CALL_EARLY
		CALL(K, TURN, 1);
		STORE(K, WORD, n);
#else
		STORE(K, WORD, n);		/* r->id, r->word[] */
		CALL(K, TURN, 1);
#endif
		if
		:: LOAD(K, HOST_ASLEEP) -> FUTEX_WAKE(K, V)
		:: else
		fi;
		if				/* it spins for a while */
		:: LOAD(K, TURN) == 0 -> goto answered
		:: true
		fi;
#ifdef BUG_GUEST_ASLEEP_LATE
		if
		:: LOAD(K, TURN) == 0 -> goto answered
		:: else
		fi;
		/* sleeps on what it saw, not on the word */
		asleep[K] = true;
		STORE_SC(K, GUEST_ASLEEP, 1);
		SLEEP(K);
		LOAD(K, TURN) == 0;
#else
		STORE_SC(K, GUEST_ASLEEP, 1);
		do
		:: LOAD(K, TURN) == 0 -> break
		:: else -> FUTEX_WAIT(K, TURN, 1); SLEEP(K)
		od;
#endif
		STORE(K, GUEST_ASLEEP, 0);	/* relaxed */
answered:
		assert(LOAD(K, WORD) == ANSWER(n))
	od
}

proctype server()
{
	byte served, turn;

	do
	:: LOAD(V, TURN) == 1 ->
		served++;
		assert(LOAD(V, WORD) == served);	/* fetch(), once */
		STORE(V, WORD, ANSWER(served));		/* monmem_answer() */
		REPLY(V, TURN, 0);
		if
		:: LOAD(V, GUEST_ASLEEP) -> FUTEX_WAKE(V, K)
		:: else
		fi
	:: LOAD(V, TURN) != 1 ->			/* spun long enough */
#ifndef BUG_HOST_NEVER_ASLEEP
		STORE_SC(V, HOST_ASLEEP, 1);
#endif
		turn = LOAD(V, TURN);
		if
		:: turn != 1 ->
#ifdef BUG_WAIT_BLIND
			atomic { FENCE(V); asleep[V] = true }
#else
			FUTEX_WAIT(V, TURN, turn);
#endif
end_idle:		SLEEP(V)
		:: else
		fi;
		STORE_SC(V, HOST_ASLEEP, 0)
	od
}

proctype kick()
{
end:	do
	:: atomic { kicks > 0 && asleep[K] -> kicks--; asleep[K] = false }
	od
}

init {
	atomic { run drain(K); run drain(V); run guest(); run server(); run kick() }
}
