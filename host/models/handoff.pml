/* SPDX-License-Identifier: MIT */
/*
 * User code on ring3: what a thread of K and its thread of U do to their slot, in
 * mb_user(), hand_over(), await() and k_user_kicked() of backend/ring3/k_user.c, in u_entry.S and,
 * when U dies, in gone() of k_nursery.c. No hand-over is lost, and whoever makes an event
 * pending and kicks K ends user code that would run for ever; without the time limits that
 * await() has against a U that means harm. User code never runs with a page in reach that
 * was taken from it.
 *
 * A signal that K gets is a process of its own, which holds K up while it runs.
 */
#define CPUS 4
#define CELLS 7
#include "tso.pml"

#define K 0
#define U 1
#define N 2 /* the nursery */
#define S 3 /* who makes an event pending */

#define TURN 0 /* 0 = K's; U's otherwise */
#define K_ASLEEP 1
#define U_ASLEEP 2
#define KICK 3
#define EVENT 4 /* keel_vcpu.pending */
#define DEAD 5	/* u_head.pair[].state */
#define KICKED 6 /* mvcpu.kicked */

#define STOPS 2 /* system calls and faults of user code */

#ifdef BUG_TURN_PLAIN
#define GIVE STORE
#else
#define GIVE STORE_SC
#endif
#ifdef BUG_OVER_PLAIN
#define OVER STORE
#else
#define OVER STORE_SC
#endif

/* mon_listen(), in mon_user_event() */
#ifdef BUG_DEAF
#define LISTEN skip
#else
#define LISTEN STORE_SC(K, KICKED, 0)
#endif

bool k_signal; /* pending, for K and for U */
bool u_signal;
bool handler; /* K's runs */
byte seq;     /* mvcpu.kick_seq */
bool slot;    /* K_SLOT_USER is set */
bool ended;
bool m_works; /* M has a command that ends in waking U */
bool stale;   /* U has a page that was taken from its space; nobody ran in that then */

byte where; /* what U's signal finds: */
#define OWN 0
#define RANGE 1 /* from u_resume on: starts again there */
#define USER 2
bool restart, stopped;
bool ran; /* user code did, once */

proctype k() provided (!handler)
{
	byte seen, kicks, turn;
	bool kicked;

	do
	:: true ->
#ifndef BUG_SEEN_LATE
		seen = seq;				/* mb_user() */
#endif
#ifndef BUG_LISTEN_LATE
		LISTEN;
#endif
		if
		:: LOAD(K, EVENT) -> break
		:: else
		fi;
#ifdef BUG_LISTEN_LATE
		LISTEN;
#endif
#ifdef BUG_SEEN_LATE
		seen = seq;
#endif
		stale = true;				/* mmu_batch; catch_up(): K waits for M, */
#ifndef BUG_REPLACED_ON_THE_WAY
		stale = false;				/* what only adds is done on the way to U */
#endif
		STORE(K, KICK, 0);			/* run(): relaxed */
		slot = true;
		if					/* hand_over() */
		:: LOAD(K, U_ASLEEP) ->			/* M has something to do, then wakes U */
#ifdef BUG_M_FIRST
			atomic { FENCE(K); m_works = true };
			STORE_SC(K, TURN, 1)
#else
			STORE_SC(K, TURN, 1);
			atomic { FENCE(K); m_works = true }
#endif
		:: true ->
			stale = false;
			GIVE(K, TURN, 1);
			if
			:: LOAD(K, U_ASLEEP) -> FUTEX_WAKE(K, U)
			:: else
			fi
		fi;
		STORE_SC(K, K_ASLEEP, 1);		/* await(), done spinning */
		kicked = false;
		do
		:: turn = LOAD(K, TURN);
			if
			:: turn == 0 -> break
			:: else
			fi;
			kicks = seq;
			if
			:: !kicked && kicks != seen ->
				LISTEN;
				if
				:: LOAD(K, EVENT) ->
					kicked = true;
#ifdef BUG_KICK_LATE
					atomic { FENCE(K); u_signal = true };
					STORE_SC(K, KICK, 1)
#elif defined(BUG_KICK_BY_WORD)
					STORE_SC(K, KICK, 1)
#elif defined(BUG_KICK_BY_SIGNAL)
					atomic { FENCE(K); u_signal = true }
#else
					STORE_SC(K, KICK, 1);
					atomic { FENCE(K); u_signal = true }	/* tgkill() */
#endif
				:: else
				fi
			:: else
			fi;
			seen = kicks;
#ifdef BUG_WAIT_BLIND
			atomic { FENCE(K); asleep[K] = true };
#else
			FUTEX_WAIT(K, TURN, turn);
#endif
			SLEEP(K)
		od;
		STORE(K, K_ASLEEP, 0);
		slot = false;
		if
		:: LOAD(K, DEAD) -> break
		:: else
		fi
	od;
	ended = true
}

proctype m()
{
end:	do
	:: atomic { m_works -> m_works = false; stale = false; asleep[U] = false }
	od
}

/* A kick: k_signal(), k_user_kicked(). */
proctype k_handler()
{
	byte turn;

end:	do
	:: atomic { k_signal -> k_signal = false; handler = true };
		seq++;
		turn = (slot -> LOAD(K, TURN) : 0);
#ifndef BUG_KICKED_STILL
		if
		:: turn ->
			atomic {		/* compare and exchange */
				FENCE(K);
				if
#ifdef BUG_KICKED_BACK
				:: mem[TURN] == turn -> mem[TURN] = turn ^ 2
#else
				:: mem[TURN] == turn -> mem[TURN] = turn + 2
#endif
				:: else
				fi
			}
		:: else
		fi;
#endif
		atomic { asleep[K] = false; turn = 0; handler = false }	/* EINTR */
	od
}

proctype u()
{
	byte stops;

wait:	if						/* u_wait */
	:: LOAD(U, TURN) -> goto resume
	:: true						/* done spinning */
	fi;
	STORE_SC(U, U_ASLEEP, 1);
	do
	:: LOAD(U, TURN) -> break
	:: else ->
#ifdef BUG_U_WAIT_BLIND
		atomic { FENCE(U); asleep[U] = true };
#else
		FUTEX_WAIT(U, TURN, 0);
#endif
end_idle:	SLEEP(U)
	od;
	STORE(U, U_ASLEEP, 0);

resume:	atomic { where = RANGE; restart = false };
	if
	:: LOAD(U, KICK) -> where = OWN; goto over	/* u_not */
	:: else
	fi;
	if
	:: atomic { restart -> goto resume }
	:: atomic { !restart -> where = USER; ran = true; assert(!stale) }	/* iretq */
	fi;

	if
	:: atomic { stopped -> stopped = false }
	:: atomic { where == USER && stops < STOPS -> stops++; where = OWN }
	:: atomic { where == USER -> where = OWN; goto dead }
	:: true -> atomic { stopped -> stopped = false }	/* for (;;) ; */
	fi;
over:	OVER(U, TURN, 0);
	if
	:: LOAD(U, K_ASLEEP) -> FUTEX_WAKE(U, K)
	:: else
	fi;
	goto wait;

dead:	(FENCE(U));					/* N is told by SIGCHLD */
	STORE_SC(N, DEAD, 1);
#ifndef BUG_DEATH_BY_STATE
	STORE_SC(N, TURN, 0);
#endif
	FUTEX_WAKE(N, K)
}

/* SIG_KICK of U: u_kicked. */
proctype u_handler()
{
end:	do
	:: atomic {
		u_signal ->
		u_signal = false;
		asleep[U] = false;
		if
		:: where == USER -> where = OWN; stopped = true
		:: where == RANGE ->
#ifndef BUG_NO_RESTART
			restart = true
#endif
		:: where == OWN
		fi
	   }
	od
}

inline mon_kick(cpu)
{
	atomic {
		FENCE(cpu);
		if
		:: mem[KICKED] == 0 -> mem[KICKED] = 1; k_signal = true
		:: else
		fi
	}
}

/* An event for K's vCPU, sooner or later; a kick for nothing; and the timer, which is early. */
proctype sender()
{
	if				/* no kick makes up for a hand-over that is lost */
	:: true -> ran
	:: true
	fi;
	STORE_SC(S, EVENT, 1);
	mon_kick(S);
	ended					/* or else K waits for ever */
}

proctype timer()
{
	if
	:: atomic { !k_signal -> k_signal = true }
	:: mon_kick(N)
	fi
}

init {
	atomic {
		run drain(K); run drain(U);
		run k(); run m(); run k_handler(); run u(); run u_handler(); run sender(); run timer()
	}
}
