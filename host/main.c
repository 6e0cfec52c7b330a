// SPDX-License-Identifier: MIT
/* The program keel: a table of verbs, each in a file of its own. */
#include <stdio.h>
#include <string.h>

#include <keel/keel.h>

#include "verb.h"

static int verb_help(int argc, char **argv);
static int verb_version(int argc, char **argv);

static const struct verb verbs[] = {
	{ "run", "[OPTIONS] IMAGE", "run a guest image", verb_run, verb_run_help },
	{ "probe", "[--json]", "say what this machine offers and which backend it gets", verb_probe, verb_probe_help },
	{ "help", "[VERB]", "explain a verb", verb_help, NULL },
	{ "version", "", "print the versions of the host and the ABI", verb_version, NULL },
};

#define VERBS (sizeof(verbs) / sizeof(verbs[0]))

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < VERBS; i++)
		if (!strcmp(verbs[i].name, name))
			return &verbs[i];
	return NULL;
}

static void usage(FILE *f)
{
	fputs("usage: keel VERB [...]\n\nVerbs:\n", f);
	for (size_t i = 0; i < VERBS; i++) {
		char left[40];

		snprintf(left, sizeof(left), "%s %s", verbs[i].name, verbs[i].args);
		fprintf(f, "  %-24s %s\n", left, verbs[i].summary);
	}
	fputs("\nSee \"keel help VERB\".\n", f);
}

static int verb_help(int argc, char **argv)
{
	const struct verb *v;

	if (argc < 2) {
		usage(stdout);
		return 0;
	}
	v = find_verb(argv[1]);
	if (!v) {
		host_say("help: no verb \"%s\"; \"keel help\" lists them", argv[1]);
		return EXIT_USAGE;
	}
	printf("usage: keel %s %s\n\n%s.\n", v->name, v->args, v->summary);
	if (v->help) {
		putchar('\n');
		v->help(stdout);
	}
	return 0;
}

static int verb_version(int argc, char **argv)
{
	if (argc > 1) {
		host_say("version: takes no arguments: \"%s\"", argv[1]);
		return EXIT_USAGE;
	}
	printf("keel, ABI %u.%u\n", KEEL_ABI_MAJOR, KEEL_ABI_MINOR);
	return 0;
}

int main(int argc, char **argv)
{
	const struct verb *v;

	if (argc < 2) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return verb_help(1, argv);
	if (!strcmp(argv[1], "--version"))
		return verb_version(1, argv);
	v = find_verb(argv[1]);
	if (!v) {
		host_say("no verb \"%s\"; \"keel help\" lists them", argv[1]);
		return EXIT_USAGE;
	}
	return v->run(argc - 1, argv + 1);
}
