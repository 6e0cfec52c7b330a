/* SPDX-License-Identifier: MIT */
/*
 * Processes, as small as they can be and still be some: static ELF programs out of
 * an archive, each in an address space of its own, its pages brought in when
 * they are touched, copied on write after a fork, with signals. Used by user.c and
 * shell.c; written to hal.h alone.
 *
 * Not reentrant: one thread of the kernel works on processes at a time.
 */
#ifndef SAMPLES_PROCESS_H
#define SAMPLES_PROCESS_H

#include <hal/hal.h>

#include "progs/abi.h"

#define PROCESSES 8
#define PROCESS_PAGES 512
#define PROCESS_SEGMENTS 4
#define PROCESS_NAME 16

enum process_state { PROCESS_NONE, PROCESS_READY, PROCESS_WAITING, PROCESS_ENDED };

/* Where memory of a process may be and what it begins as: file bytes, then zeroes. */
struct segment {
	uint64_t va, len;
	const char *file;
	uint64_t file_len;
	unsigned int prot;
};

struct process {
	enum process_state state;
	unsigned int pid, parent;
	char name[PROCESS_NAME];
	hal_space_t space;
	struct hal_user *user;
	struct segment segment[PROCESS_SEGMENTS + 2]; /* of the program, and heap and stack */
	/* The pages it has, the kernel's own record of what is mapped. */
	struct {
		uint64_t va;
		uint32_t frame;
	} page[PROCESS_PAGES];
	unsigned int pages;
	uint64_t handler;     /* of signals, 0 = none */
	unsigned int pending; /* signal that was sent to it, 0 = none */
	bool killed;
	int status; /* of one that has ended */
	unsigned int filled, copied, calls, events;
};

extern struct process processes[PROCESSES];

/* Set by an interrupt handler to have another process take its turn. */
extern volatile bool process_slice_over;

/* By all processes so far, for their first write after a fork. */
extern unsigned int process_pages_copied;

/* Memory for pages of processes; provided by the kernel. page_get() returns 0 when there is none. */
uint64_t page_get(void);
void page_put(uint64_t pa);

/**
 * process_archive - use an archive of programs: cpio, the "newc" format
 * @start: its first byte
 * @len: bytes
 *
 * Returns the number of files in it.
 */
unsigned int process_archive(const char *start, size_t len);

/* Name of file number `index`, NULL beyond the last. */
const char *process_program(unsigned int index);

/* Programs that are part of the image. */
extern const char process_builtin[], process_builtin_end[];

/**
 * process_start - a process that runs a program
 * @name: of the file
 * @argument: one word for its main()
 *
 * NULL when there is no such program, it is none, or there is no room for it.
 */
struct process *process_start(const char *name, uint64_t argument);

/* The next one that can run after the one that ran last, NULL when none can. */
struct process *process_next(void);

/**
 * process_step - run a process until it gives the processor up, waits, ends, or its slice is over
 * @p: READY
 */
void process_step(struct process *p);

/* Take what is left of a process that has ended; returns its exit status. */
int process_reap(struct process *p);

/* By number; NULL when there is none. */
struct process *process_find(unsigned int pid);

/* End it at its next step. */
void process_kill(struct process *p);

#endif
