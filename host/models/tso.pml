/* SPDX-License-Identifier: MIT */
/*
 * What the models are made of: memory as x86 processors see it (x86-TSO), and futexes.
 *
 * A processor's stores go through a buffer of its own, in order, and reach memory later;
 * its own loads see them at once, those of others do not. A locked instruction, or a
 * fence, waits until the buffer is empty: that is what a seq_cst store or an exchange
 * compiles to. A model defines CPUS and CELLS first; BUG_* variants of it take one
 * fence, order or second look away, and must fail.
 */

byte mem[CELLS];

typedef buffer {
	byte n;
	byte cell0, value0; /* the older */
	byte cell1, value1
};
buffer sb[CPUS];

#define FENCE(cpu) (sb[cpu].n == 0)

#define LOAD(cpu, cell)                                          \
	(sb[cpu].n == 2 && sb[cpu].cell1 == (cell) -> sb[cpu].value1 : \
	 (sb[cpu].n >= 1 && sb[cpu].cell0 == (cell) -> sb[cpu].value0 : mem[cell]))

inline STORE(cpu, cell, word)
{
	atomic {
		sb[cpu].n < 2;
		if
		:: sb[cpu].n == 0 -> sb[cpu].cell0 = cell; sb[cpu].value0 = word
		:: else -> sb[cpu].cell1 = cell; sb[cpu].value1 = word
		fi;
		sb[cpu].n++
	}
}

/* xchg, or a store and a fence: __ATOMIC_SEQ_CST */
inline STORE_SC(cpu, cell, word)
{
	atomic { FENCE(cpu); mem[cell] = word }
}

/* lock or, lock and-not. `was` gets what was there before. */
inline LOCK_OR(cpu, cell, bits, was)
{
	atomic { FENCE(cpu); was = mem[cell]; mem[cell] = was | (bits) }
}

inline LOCK_ANDNOT(cpu, cell, bits)
{
	atomic { FENCE(cpu); mem[cell] = mem[cell] & (255 - (bits)) }
}

/* Buffers empty themselves whenever they like. */
proctype drain(byte cpu)
{
end:	do
	:: d_step {
		sb[cpu].n > 0 ->
		mem[sb[cpu].cell0] = sb[cpu].value0;
		sb[cpu].cell0 = sb[cpu].cell1;
		sb[cpu].value0 = sb[cpu].value1;
		sb[cpu].cell1 = 0;
		sb[cpu].value1 = 0;
		sb[cpu].n--;
		if
		:: sb[cpu].n == 0 -> sb[cpu].cell0 = 0; sb[cpu].value0 = 0
		:: else
		fi
	   }
	od
}

/*
 * futex(2). The kernel compares and goes to sleep under a lock, and both it and the waker
 * pass a full barrier before they look. SLEEP is the rest of a wait; it stands apart so
 * that a model can label it as a place to end in.
 */
bool asleep[CPUS];

inline FUTEX_WAIT(cpu, cell, word)
{
	atomic { FENCE(cpu); asleep[cpu] = mem[cell] == (word) }
}

#define SLEEP(cpu) (!asleep[cpu])

inline FUTEX_WAKE(cpu, other)
{
	atomic { FENCE(cpu); asleep[other] = false }
}
