/* SPDX-License-Identifier: MIT */
/*
 * Answers of mappers on ring3: m_start(), m_wait() and give_up() of backend/ring3/k_user.c, the
 * end of m_work in u_entry.S, and died() and gone() of k_nursery.c. A vCPU of K has one descriptor, to
 * whose number each answer is added; whoever reads takes it all. K takes no answer for another's,
 * and waits for none that does not come.
 */
#define PAIRS 2
#define COMMANDS 4

#define LIVE 0 /* u_head.pair[].state */
#define KILL 1
#define DEAD 2
byte state[PAIRS];

#define NOBODY PAIRS
byte at_work = NOBODY;
byte waiting = NOBODY; /* u_head.waiting[] */

byte answers; /* the descriptor: UM_ANSWER_DONE so many times, */
bool death;   /* and UM_ANSWER_DEATH */
byte told[PAIRS]; /* commands, */
byte did[PAIRS];  /* those that were carried out, */
bool owes[PAIRS]; /* the last of them without an answer yet */

#ifdef BUG_GIVEN_UP_IS_GONE
#define GONE(p) (state[p] != LIVE)
#else
#define GONE(p) (state[p] == DEAD)
#endif

/* M: an answer to each command, until it is killed. */
proctype m(byte p)
{
end:	do
	:: d_step { state[p] != DEAD && did[p] < told[p] && !owes[p] -> did[p]++; owes[p] = true }
	:: d_step { owes[p] -> owes[p] = false; answers++ }
	od
}

/* N, one for each pair: nothing of it runs any more when it says so. */
proctype n(byte p)
{
end:	do
	:: d_step { state[p] == KILL -> state[p] = DEAD; owes[p] = false };
#ifndef BUG_DEATH_UNTOLD
		if
		:: waiting == p -> death = true
		:: else
		fi
#endif
	od
}

inline m_wait()
{
	if
	:: at_work != NOBODY ->
		seen = 0;
#ifndef BUG_WAITING_LATE
		waiting = at_work;
#endif
		do
		:: seen & 1 -> break
		:: !(seen & 1) && GONE(at_work) -> break
		:: else ->
#ifdef BUG_WAITING_LATE
			waiting = at_work;
#endif
			atomic { answers || death -> seen = answers; answers = 0; death = false }
		od;
		waiting = NOBODY;
		if
		:: seen & 1 -> assert(did[at_work] == told[at_work])
		:: else -> d_step { answers = 0; death = false }
		fi;
		at_work = NOBODY
	:: else
	fi
}

proctype k()
{
	byte seen, left = COMMANDS, p;

	do
	:: left ->
		left--;
		select(p : 0 .. PAIRS - 1);
		if
		:: state[p] == LIVE ->
			m_wait();		/* m_start() */
			at_work = p;
			told[p]++
		:: state[p] == DEAD ->		/* make_process() */
			if
			:: at_work == p -> m_wait()
			:: else
			fi;
			d_step { told[p] = 0; did[p] = 0; state[p] = LIVE }
		:: else
		fi;
		if				/* give_up(), or it dies */
		:: state[p] == LIVE -> state[p] = KILL
		:: true
		fi
	:: else -> break
	od;
	m_wait();
}

init {
	atomic { run m(0); run m(1); run n(0); run n(1); run k() }
}
