/* SPDX-License-Identifier: MIT */
/*
 * Events of one vCPU: libhypercall/src/event.c, monitor/event.c (vcpu_wait), trap.c
 * (mon_exit, mon_upcall) and the restartable ranges of gate.S. Whatever is sent and not
 * masked reaches the guest's handler without another call of the guest's, be it running
 * with interrupts on, with interrupts off for a while, or asleep.
 *
 * T is the thread of the vCPU, S and R are others that send to it; a signal or interrupt
 * of T is a process of its own, which holds T up while it runs (`provided`).
 */
#define CPUS 3
#define CELLS 6
#include "tso.pml"

#define T 0
#define S 1
#define R 2

#define PENDING 0 /* keel_vcpu.pending: a bit per word */
#define EVENTS(w) (1 + (w))
#define MASKS(w) (3 + (w))
#define KICKED 5 /* mvcpu.kicked */

/* Ports A and B are in word 0, C is in word 1: word and bit. */
#define A 0, 1
#define B 0, 2
#define C 1, 1

#ifndef OPS
#define OPS 2 /* things the guest does beside spinning */
#endif

bool kicked;	      /* a signal is pending for T */
bool moved;	      /* mvcpu.kick_seq is another than the one vcpu_wait() has seen */
bool attn, if_on = 1; /* mvcpu.attn, keel_vcpu.if_enabled: T's thread alone uses them */
bool entered;	      /* cur is the event entry, and its slot is full */
bool upcall;	      /* mon_resume and what follows until T goes on */
bool restart;	      /* the signal moved RIP back to the start of its range */
byte where;
#define GUEST 0
#define MONITOR 1
#define RANGE 2 /* in one of gate.S's restartable ranges */

byte due[2]; /* what was sent and no handler has seen, by word */
byte senders = 2;

#define QUIET (senders == 0 && due[0] == 0 && due[1] == 0)

/* keel_ev_send(), mon_send() and mb_kick(). */
inline raise(cpu, w)
{
	LOCK_OR(cpu, PENDING, 1 << w, was)
}

inline kick(cpu)
{
	atomic {			/* mon_kick() */
		FENCE(cpu);
		if
		:: mem[KICKED] == 0 -> mem[KICKED] = 1; kicked = true
		:: else
		fi
	}
}

/* mon_listen() */
#ifdef BUG_LISTEN_PLAIN
#define LISTEN STORE(T, KICKED, 0)
#else
#define LISTEN STORE_SC(T, KICKED, 0)
#endif

inline set_event(cpu, w, p)
{
#ifdef BUG_SEND_PLAIN
	atomic { due[w] = due[w] | p; was = LOAD(cpu, EVENTS(w)) | p; STORE(cpu, EVENTS(w), was) }
#else
	atomic { FENCE(cpu); due[w] = due[w] | p; mem[EVENTS(w)] = mem[EVENTS(w)] | p }
#endif
}

inline send(cpu, w, p)
{
#ifdef BUG_SEND_MASK_FIRST
	masked = LOAD(cpu, MASKS(w)) & p;
	set_event(cpu, w, p);
	if
	:: masked
#elif defined(BUG_SEND_WORD_FIRST)
	raise(cpu, w);
	set_event(cpu, w, p);
	if
	:: LOAD(cpu, MASKS(w)) & p
#else
	set_event(cpu, w, p);
	if
	:: LOAD(cpu, MASKS(w)) & p
#endif
	:: else ->
#ifndef BUG_SEND_WORD_FIRST
		raise(cpu, w);
#endif
#ifdef BUG_SEND_NO_KICK
		if
		:: was == 0 && if_on -> kick(cpu)
#else
		if
		:: was == 0 -> kick(cpu)
#endif
		:: else
		fi
	fi;
	atomic { was = 0; masked = 0 }
}

inline mask(cpu, w, p)
{
	atomic { LOCK_OR(cpu, MASKS(w), p, was); was = 0 }
}

/* `held`: something is to be delivered now. */
inline unmask(cpu, w, p)
{
#ifdef BUG_UNMASK_LOOK_FIRST
	held = LOAD(cpu, EVENTS(w)) & p;
	LOCK_ANDNOT(cpu, MASKS(w), p);
#elif defined(BUG_UNMASK_PLAIN)
	was = LOAD(cpu, MASKS(w)) & (255 - p);
	STORE(cpu, MASKS(w), was);
	held = LOAD(cpu, EVENTS(w)) & p;
#else
	LOCK_ANDNOT(cpu, MASKS(w), p);
	held = LOAD(cpu, EVENTS(w)) & p;
#endif
	if
	:: held -> atomic { raise(cpu, w); was = 0 }
	:: else
	fi
}

#define DELIVERABLE(w) (LOAD(T, EVENTS(w)) & (255 - LOAD(T, MASKS(w))))
#define ONE(bits) (((bits) & ((bits)-1)) == 0)
#define LOWEST(bits) ((bits) & (256 - (bits)))

/* The guest's handler: keel_ev_next() until there is nothing. */
inline dispatch()
{
	do
	:: words = LOAD(T, PENDING);
	   if
	   :: words == 0 -> break
	   :: else
	   fi;
	   w = (words & 1 -> 0 : 1);
	   bits = LOAD(T, EVENTS(w));
	   bits = bits & (255 - LOAD(T, MASKS(w)));
	   if
	   :: ONE(bits) ->
#ifdef BUG_NEXT_PLAIN
		was = LOAD(T, PENDING) & (255 - (1 << w));
		STORE(T, PENDING, was);
#elif !defined(BUG_NEXT_CLEAR_LATE)
		LOCK_ANDNOT(T, PENDING, 1 << w);
#endif
#ifndef BUG_NEXT_NO_RELOOK
		bits = LOAD(T, EVENTS(w));
		bits = bits & (255 - LOAD(T, MASKS(w)));
#endif
#ifdef BUG_NEXT_CLEAR_LATE
		LOCK_ANDNOT(T, PENDING, 1 << w);
#endif
		if
		:: bits == 0 -> goto next
		:: else
		fi;
#ifndef BUG_NEXT_NO_RAISE
		if
		:: !ONE(bits) -> raise(T, w)
		:: else
		fi
#endif
	   :: else
	   fi;
	   bits = LOWEST(bits);
	   atomic {
		FENCE(T);
		mem[EVENTS(w)] = mem[EVENTS(w)] & (255 - bits);
		due[w] = due[w] & (255 - bits)
	   };
next:	   atomic { bits = 0; w = 0; words = 0; was = 0 }
	od
}

/* A kick lands: k_signal() or the interrupt's handler, mon_upcall(). */
proctype signal()
{
end:	do
	:: atomic {
		kicked ->
		kicked = false;
		moved = where != GUEST;
		if
		:: where == GUEST && !upcall -> upcall = true
		:: where == GUEST && upcall /* in the event handler: IF is off */
		:: where == MONITOR -> attn = true
		:: where == RANGE ->
			attn = true;
#ifndef BUG_NO_RESTART
			restart = true
#endif
		fi
	   }
	od
}

/* mon_resume: the last look, and the guest's handler if there is reason to. */
proctype resume()
{
	byte was, words, w, bits;

end:	do
	:: upcall ->
look:		atomic { where = MONITOR; restart = false };
#ifdef BUG_EXIT_LISTENS_FIRST
		LISTEN;
#endif
#ifndef BUG_ATTN_LATE
		attn = false;					/* mon_exit() */
#endif
#if !defined(BUG_EXIT_DEAF) && !defined(BUG_EXIT_LISTENS_FIRST) && !defined(BUG_EXIT_LISTENS_LATE)
		LISTEN;
#endif
		if
		:: if_on && !entered ->
			if
			:: LOAD(T, PENDING) -> if_on = false; entered = true
			:: else
			fi
		:: else
		fi;
#ifdef BUG_ATTN_LATE
		attn = false;
#endif
#ifdef BUG_EXIT_LISTENS_LATE
		LISTEN;
#endif
		where = RANGE;					/* mon_resume_load */
		if
		:: attn -> goto look
		:: else
		fi;
		if
		:: atomic { restart -> goto look }
		:: atomic { !restart -> where = GUEST; upcall = entered }
		fi;
		if
		:: entered ->
			dispatch();
			/* trap_return(), which ends in ATTN_RESUME */
			atomic { where = MONITOR; if_on = true; entered = false; goto look }
		:: else						/* T goes on */
		fi
	od
}

/* The way back to the guest from a call that is done. */
#define SLOW atomic { where = MONITOR; restart = false; upcall = true }
inline gate_check()
{
	where = RANGE;
	do
	:: attn -> SLOW; break
	:: !attn ->
		if
		:: LOAD(T, PENDING) && if_on -> SLOW; break
		:: else ->
			if
			:: atomic { restart -> restart = false }
			:: atomic { !restart -> where = GUEST; break }	/* gate_ret */
			fi
		fi
	od
}

inline trap_deliver()
{
	atomic { where = MONITOR; attn = true };
	gate_check()
}

inline irq_enable()
{
	if_on = true;
#ifndef BUG_ENABLE_NO_TEST
	if
	:: LOAD(T, PENDING) -> trap_deliver()
	:: else
	fi
#endif
}

/* mon_vcpu_wait() and mb_wait(), without a deadline. */
inline vcpu_wait()
{
	where = MONITOR;
	do
	:: true ->
#ifndef BUG_SEQ_LATE
		moved = false;
#endif
#if !defined(BUG_WAIT_DEAF) && !defined(BUG_WAIT_LISTENS_LATE)
		LISTEN;
#endif
		if
		:: LOAD(T, PENDING) -> attn = true; break
		:: else
		fi;
#ifdef BUG_WAIT_LISTENS_LATE
		LISTEN;
#endif
#ifdef BUG_SEQ_LATE
		moved = false;
#endif
#ifdef BUG_WAIT_BLIND
		moved = false;
#endif
		if
		:: moved -> moved = false
		:: QUIET -> break		/* nobody will ever send: not lost, and not what is looked for */
		fi
	od;
	gate_check()
}

proctype guest() provided (!upcall)
{
	byte ops, was;
	byte held;

	do
	:: ops == OPS -> break
	:: atomic { ops < OPS -> ops++ };
		if
		:: true ->			/* idle: hal_wait() */
			if_on = false;
			vcpu_wait();
			irq_enable()
		:: true ->
			mask(T, A);
			unmask(T, A);
			if
			:: held && if_on -> held = 0; trap_deliver()
			:: else -> held = 0
			fi
		fi
	od;
	QUIET					/* for (;;) ; */
}

proctype sender()
{
	byte was;
	byte masked;

	send(S, A);
	send(S, B);
	senders--
}

/* Another one, that holds a port of T's back for a while. */
proctype masker()
{
	byte was;
	byte masked, held;

	mask(R, B);
	send(R, C);
	unmask(R, B);
	if
	:: held -> kick(R)
	:: else
	fi;
	senders--
}

init {
	atomic { run drain(T); run drain(S); run drain(R); run guest(); run sender(); run masker(); run signal(); run resume() }
}
