// SPDX-License-Identifier: MIT
/* Option parsing from tables, and the options of `keel run`. */
#include "verb.h"

#include <stdlib.h>
#include <string.h>

#include "devices/device.h"
#include "hvmimage.h"
#include "partition.h"

int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
	uint64_t v = 0;

	if (!*text)
		return -1;
	for (; *text; text++) {
		if (*text < '0' || *text > '9' || __builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v))
			return -1;
	}
	if (v < min || v > max)
		return -1;
	*value = v;
	return 0;
}

int parse_size(const char *text, uint64_t *bytes)
{
	static const char suffixes[] = "KMGT";
	char digits[24];
	size_t len = strlen(text);
	unsigned int shift = 0;
	const char *suffix;
	uint64_t v;

	suffix = len ? strchr(suffixes, text[len - 1] & ~0x20) : NULL;
	if (suffix && *suffix) {
		shift = 10 * (unsigned int)(suffix - suffixes + 1);
		len--;
	}
	if (!len || len >= sizeof(digits))
		return -1;
	memcpy(digits, text, len);
	digits[len] = '\0';
	if (parse_number(digits, 0, UINT64_MAX, &v) || v > UINT64_MAX >> shift)
		return -1;
	*bytes = v << shift;
	return 0;
}

static const struct option_def *find(const struct option_def *defs, const char *name, size_t len)
{
	for (; defs->name; defs++)
		if (strlen(defs->name) == len && !memcmp(defs->name, name, len))
			return defs;
	return NULL;
}

int options_parse(const struct option_def *defs, int argc, char **argv, void *to, const char **operand, struct error *e)
{
	bool only_operands = false;

	*operand = NULL;
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i], *eq, *value = NULL;
		const struct option_def *d;

		if (only_operands || arg[0] != '-' || !arg[1]) {
			if (*operand)
				return error_set(e, "more than one image: \"%s\" and \"%s\"", *operand, arg);
			*operand = arg;
			continue;
		}
		if (!strcmp(arg, "--")) {
			only_operands = true;
			continue;
		}
		if (!strcmp(arg, "--help") || !strcmp(arg, "-h"))
			return 1;
		if (arg[1] != '-')
			return error_set(e, "unknown option %s", arg);
		eq = strchr(arg, '=');
		d = find(defs, arg + 2, eq ? (size_t)(eq - arg - 2) : strlen(arg + 2));
		if (!d)
			return error_set(e, "unknown option %.*s", (int)(eq ? eq - arg : (long)strlen(arg)), arg);
		if (!d->value && eq)
			return error_set(e, "--%s takes no value", d->name);
		if (d->value) {
			value = eq ? eq + 1 : i + 1 < argc ? argv[++i] : NULL;
			if (!value)
				return error_set(e, "--%s needs a value: --%s %s", d->name, d->name, d->value);
		}
		if (d->parse(to, value, e))
			return -1;
	}
	return 0;
}

void options_help(const struct option_def *defs, FILE *f)
{
	for (; defs->name; defs++) {
		char left[40];

		snprintf(left, sizeof(left), "--%s%s%s", defs->name, defs->value ? " " : "",
			 defs->value ? defs->value : "");
		fprintf(f, "  %-24s %s\n", left, defs->help);
	}
}

static int set_backend(void *to, const char *text, struct error *e)
{
	struct keel_options *o = to;

	if (strcmp(text, "auto") && strcmp(text, "kvm") && strcmp(text, "ring3"))
		return error_set(e, "--backend %s: there are auto, kvm and ring3", text);
	o->backend = text;
	return 0;
}

static int set_mem(void *to, const char *text, struct error *e)
{
	struct keel_options *o = to;
	uint64_t v;

	if (parse_size(text, &v))
		return error_set(e, "--mem %s: not a size; write for instance 64M or 2G", text);
	if (!v || v % MEM_UNIT)
		return error_set(e, "--mem %s: not a multiple of 2M", text);
	if (v > MEM_MAX)
		return error_set(e, "--mem %s: more than %luG", text, MEM_MAX >> 30);
	o->mem = v;
	return 0;
}

static int set_vcpus(void *to, const char *text, struct error *e)
{
	struct keel_options *o = to;
	uint64_t v;

	if (parse_number(text, 1, PARTITION_VCPUS, &v))
		return error_set(e, "--vcpus %s: not a number from 1 to %u", text, PARTITION_VCPUS);
	o->vcpus = (unsigned int)v;
	return 0;
}

static int set_initrd(void *to, const char *text, struct error *e)
{
	struct keel_options *o = to;

	if (!*text)
		return error_set(e, "--initrd: empty file name");
	o->initrd = text;
	return 0;
}

static int set_cmdline(void *to, const char *text, struct error *e)
{
	struct keel_options *o = to;

	if (strlen(text) >= KEEL_CMDLINE_MAX)
		return error_set(e, "--cmdline: %zu bytes, at most %u fit", strlen(text), KEEL_CMDLINE_MAX - 1);
	o->cmdline = text;
	return 0;
}

static int add_device(struct keel_options *o, const char *option, const struct device_kind *kind, const char *spec,
		      struct error *e)
{
	if (o->devices == PARTITION_DEVICES)
		return error_set(e, "--%s: more than %d devices", option, PARTITION_DEVICES);
	o->device[o->devices].kind = kind;
	o->device[o->devices++].spec = spec;
	return 0;
}

static int set_disk(void *to, const char *text, struct error *e)
{
	return add_device(to, "disk", &device_block, text, e);
}

static int set_net(void *to, const char *text, struct error *e)
{
	return add_device(to, "net", &device_net, text, e);
}

static int set_console(void *to, const char *text, struct error *e)
{
	return add_device(to, "console", &device_serial, text, e);
}

static int set_rng(void *to, const char *text, struct error *e)
{
	(void)text;
	return add_device(to, "rng", &device_rng, "", e);
}

static int set_timeout(void *to, const char *text, struct error *e)
{
	struct keel_options *o = to;
	uint64_t v;

	if (parse_number(text, 1, 1000000000, &v))
		return error_set(e, "--timeout %s: not a number of seconds from 1 to 1000000000", text);
	o->timeout = (unsigned int)v;
	return 0;
}

static int set_core(void *to, const char *text, struct error *e)
{
	struct keel_options *o = to;

	if (!*text)
		return error_set(e, "--core: empty file name; --core none writes no core");
	o->core = text;
	return 0;
}

static int set_stats(void *to, const char *text, struct error *e)
{
	(void)text;
	(void)e;
	((struct keel_options *)to)->stats = true;
	return 0;
}

static int set_verbose(void *to, const char *text, struct error *e)
{
	(void)text;
	(void)e;
	((struct keel_options *)to)->verbose = true;
	return 0;
}

static int set_hvm(void *to, const char *text, struct error *e)
{
	(void)text;
	(void)e;
	((struct keel_options *)to)->hvm = true;
	return 0;
}

static int set_require_sandbox(void *to, const char *text, struct error *e)
{
	(void)text;
	(void)e;
	((struct keel_options *)to)->require_sandbox = true;
	return 0;
}

static const struct option_def run_options[] = {
	{ "backend", "auto|kvm|ring3", "how to run the guest (default auto)", set_backend },
	{ "hvm", NULL, "IMAGE is a kernel with a PVH entry, vmlinux or bzImage, for a virtual machine", set_hvm },
	{ "mem", "SIZE", "memory, a multiple of 2M; suffixes K, M, G, T (default 64M; 256M with --hvm)", set_mem },
	{ "vcpus", "N", "virtual processors, 1 to 16; may be more than this machine has (default 1)", set_vcpus },
	{ "initrd", "FILE", "load FILE into memory for the guest", set_initrd },
	{ "cmdline", "STRING", "command line for the guest", set_cmdline },
	{ "disk", "file=FILE[,...]", "a disk: ,ro ,cache=writeback|none (past the host's page cache)", set_disk },
	{ "net", "user|tap=NAME[,...]", "a network card: user-mode, or a tap; ,hostfwd= ,mac= ,mtu=", set_net },
	{ "console", "pty|file=FILE", "a second console: on a terminal of its own, or output to a file", set_console },
	{ "rng", NULL, "a source of random numbers", set_rng },
	{ "timeout", "SECONDS", "end the guest after so long, exit status 124", set_timeout },
	{ "stats", NULL, "print counters per hypercall at the end", set_stats },
	{ "verbose", NULL, "say what is set up, and which sandbox layers hold", set_verbose },
	{ "require-sandbox", NULL, "refuse to run when a sandbox layer is missing", set_require_sandbox },
	{ "core", "FILE", "where a crash leaves an ELF core; none = nowhere (default NAME.core here)", set_core },
	{ NULL, NULL, NULL, NULL },
};

int run_options_parse(struct keel_options *opt, int argc, char **argv, struct error *e)
{
	int ret;

	*opt = (struct keel_options){ .backend = "auto", .cmdline = "", .vcpus = 1 };
	ret = options_parse(run_options, argc, argv, opt, &opt->image, e);
	if (!ret && !opt->image)
		return error_set(e, "no image given");
	if (!opt->mem)
		opt->mem = opt->hvm ? MEM_DEFAULT_HVM : MEM_DEFAULT;
	/* There is one that can; asked for by name it has nothing to be measured against. */
	if (opt->hvm && !strcmp(opt->backend, "auto"))
		opt->backend = "kvm";
	if (!ret && opt->hvm && opt->vcpus > 1)
		return error_set(e, "--vcpus: one, with --hvm");
	if (!ret && opt->hvm && opt->mem > HVM_RAM_MAX)
		return error_set(e, "--mem: more than %luG with --hvm", HVM_RAM_MAX >> 30);
	return ret;
}

void verb_run_help(FILE *f)
{
	fputs("Options:\n", f);
	options_help(run_options, f);
	fputs("\nOn a terminal, Ctrl-A x ends the guest and Ctrl-A h lists the other keys.\n"
	      "\nExit status:\n"
	      "  0        the guest powered off\n"
	      "  1-123    the guest's own\n"
	      "  124      --timeout passed\n"
	      "  125      the guest crashed, was killed or was stopped from outside\n"
	      "  126      bad usage or image\n"
	      "  127      the backend is not available\n",
	      f);
}
