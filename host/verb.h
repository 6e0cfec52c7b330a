/* SPDX-License-Identifier: MIT */
/* Verbs of the program, their options, and the exit statuses every verb keeps to. */
#ifndef KEEL_HOST_VERB_H
#define KEEL_HOST_VERB_H

#include <stdint.h>
#include <stdio.h>

#include <keel/types.h>

#include "log.h"

/* 0..123 belong to the guest. */
#define EXIT_TIMEOUT 124    /* --timeout passed */
#define EXIT_CRASHED 125    /* the guest crashed or was killed */
#define EXIT_USAGE 126	    /* bad usage or a bad image */
#define EXIT_NO_BACKEND 127 /* nothing here can run it */

struct verb {
	const char *name;
	const char *args; /* for the usage line */
	const char *summary;
	int (*run)(int argc, char **argv); /* argv[0] is the verb; returns the exit status */
	void (*help)(FILE *f);		   /* details, NULL = none */
};

int verb_run(int argc, char **argv);
void verb_run_help(FILE *f);
int verb_probe(int argc, char **argv);
void verb_probe_help(FILE *f);

/*
 * One option of a verb. `parse` takes the text of the value, NULL for a flag, and
 * stores it in the verb's own structure; it names what is wrong in *e.
 */
struct option_def {
	const char *name;  /* without the dashes */
	const char *value; /* name of the value for help, NULL for a flag */
	const char *help;
	int (*parse)(void *to, const char *text, struct error *e);
};

/**
 * options_parse - go through argv[1..] of a verb
 * @defs: table, ended by a NULL name
 * @to: passed to parse functions
 * @operand: set to the one operand; NULL when there is none
 *
 * Takes --name value and --name=value; after -- nothing is an option. 0, 1 when
 * --help was asked for, or -1 with the reason.
 */
int options_parse(const struct option_def *defs, int argc, char **argv, void *to, const char **operand,
		  struct error *e);
void options_help(const struct option_def *defs, FILE *f);

/* Bytes with an optional suffix K, M, G or T (powers of 1024). 0, or -1 when malformed or over 2^64-1. */
int parse_size(const char *text, uint64_t *bytes);
/* A decimal number of [min, max]. */
int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *value);

struct keel_options;
/* Options of `keel run`; separate from running so that it can be tested. */
int run_options_parse(struct keel_options *opt, int argc, char **argv, struct error *e);

#define MEM_DEFAULT (KEEL_U64(64) << 20)
#define MEM_DEFAULT_HVM (KEEL_U64(256) << 20)
#define MEM_UNIT (KEEL_U64(2) << 20)
#define MEM_MAX (KEEL_U64(1) << 40)

#endif
