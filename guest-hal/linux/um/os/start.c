// SPDX-License-Identifier: GPL-2.0-only
/*
 * From the first instruction to linux_main(), and the ways out: power-off, restart,
 * crash. arch/um takes its command line as a program's arguments, so that is what
 * start info becomes.
 */
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/memblock.h>
#include <linux/notifier.h>
#include <linux/panic_notifier.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <linux/utsname.h>
#include <asm/cpufeature.h>
#include <asm/processor.h>

#include <hypercall/image.h>
#include <hypercall/status.h>

#include <as-layout.h>
#include <init.h>
#include <kern.h>
#include <os.h>

#include "keel_um.h"

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(MMU) | KEEL_NEEDS(TRAP) | KEEL_NEEDS(VCPU) | KEEL_NEEDS(EVENT) |
			 KEEL_NEEDS(TIME) | KEEL_NEEDS(CONSOLE) | KEEL_NEEDS(CRASH) | KEEL_NEEDS(AS) | KEEL_NEEDS(USER),
		 0, 0, KEEL_U64(1) << KEEL_F1_CLOCK_PAGE);

#define WANTED0                                                                                         \
	(KEEL_NEEDS(BASE) | KEEL_NEEDS(MMU) | KEEL_NEEDS(TRAP) | KEEL_NEEDS(VCPU) | KEEL_NEEDS(EVENT) | \
	 KEEL_NEEDS(TIME) | KEEL_NEEDS(CONSOLE) | KEEL_NEEDS(CRASH) | KEEL_NEEDS(AS) | KEEL_NEEDS(USER))
#define OPTIONAL0 (KEEL_NEEDS(STATS) | KEEL_NEEDS(DEVICE))
#define WANTED1 (KEEL_U64(1) << KEEL_F1_CLOCK_PAGE)

#define ARGS_MAX 256

extern int uml_exitcode;
int linux_main(int argc, char **argv);
asmlinkage void keel_linux_start(const struct keel_start *start);

/* linux_main() runs on it; tasks and interrupts have others. */
char keel_boot_stack[THREAD_SIZE] __aligned(THREAD_SIZE);

const struct keel_start *keel_start;
long elf_aux_hwcap;

void keel_die(const char *message)
{
	static char last_words[KEEL_CRASH_MESSAGE_MAX];
	size_t n;

	keel_irq_disable();
	strscpy(last_words, message, sizeof(last_words));
	n = strlen(last_words);
	for (;;)
		keel_crash(KEEL_CRASH_PANIC, keel_gpa_of(last_words), n, 0, 0);
}

u64 keel_must(struct keel_ret ret, const char *what)
{
	char text[160], status[64];

	if (!ret.status)
		return ret.value;
	keel_status_format(status, sizeof(status), ret.status);
	snprintf(text, sizeof(text), "%s: %s", what, status);
	keel_die(text);
}

void keel_entry_failed(unsigned int frame_class, keel_s64 status, const struct keel_frame *frame)
{
	char text[64];

	keel_status_format(text, sizeof(text), status);
	panic("a frame of class %u at %llx cannot be resumed: %s", frame_class, frame->rip, text);
}

static void shut_down(u32 how, int code)
{
	keel_must(keel_base_shutdown(how, min_t(u32, code, KEEL_SHUTDOWN_CODE_MAX)), "base_shutdown");
}

/* Words of the command line, in place, behind those that say what the partition is. */
static int __init make_args(char **argv)
{
	static char line[KEEL_CMDLINE_MAX] __initdata;
	static char mem[32] __initdata;
	bool has_console = false;
	int argc = 0;
	char *at = line, *word;

	strscpy(line, keel_start_cmdline(keel_start), sizeof(line));
	snprintf(mem, sizeof(mem), "mem=%llu", keel_start_ram(keel_start));
	argv[argc++] = "linux";
	argv[argc++] = mem;
	/* linux_main() adds ones that mean nothing here where these are missing. */
	argv[argc++] = "root=/dev/ram0";
	while ((word = strsep(&at, " \t\n")) && argc < ARGS_MAX - 2) {
		if (!*word)
			continue;
		has_console |= !strncmp(word, "console=", 8);
		argv[argc++] = word;
	}
	if (!has_console)
		argv[argc++] = "console=hvc0";
	argv[argc] = NULL;
	return argc;
}

asmlinkage void __init keel_linux_start(const struct keel_start *start)
{
	static char *argv[ARGS_MAX] __initdata;
	int restart;

	keel_start = start;
	if (keel_start_check(start, SIZE_MAX))
		keel_die("the start info is not well-formed");
	keel_must(keel_base_accept(0, WANTED0 | (keel_must(keel_base_features(0), "base_features") & OPTIONAL0)),
		  "base_accept");
	if (keel_must(keel_base_features(1), "base_features") & WANTED1)
		keel_must(keel_base_accept(1, WANTED1), "base_accept");
	keel_must(keel_base_freeze(), "base_freeze");
	keel_irq_init();
	restart = linux_main(make_args(argv), argv);
	shut_down(restart ? KEEL_SHUTDOWN_RESTART : KEEL_SHUTDOWN_POWEROFF, uml_exitcode);
}

/* What arch/um asks of its host early on. */

unsigned long os_get_top_address(void)
{
	/* Three levels of page tables; linux_main() takes off two pages, and rounds down to 1 GiB. */
	return 1UL << 39;
}

void os_early_checks(void)
{
}

void os_check_bugs(void)
{
}

void get_host_cpu_features(void (*flags_helper)(char *line), void (*cache_helper)(char *line))
{
	/* A feature of each word in keel_cpu_info stands for the word. */
	static const u16 leaf[] = { X86_FEATURE_XMM3 / 32,	 X86_FEATURE_FPU / 32,	    X86_FEATURE_FSGSBASE / 32,
				    X86_FEATURE_AVX512VBMI / 32, X86_FEATURE_MD_CLEAR / 32, X86_FEATURE_LAHF_LM / 32,
				    X86_FEATURE_SYSCALL / 32,	 X86_FEATURE_AVX_VNNI / 32 };
	const struct keel_cpu_info *cpu = keel_start_cpu(keel_start);
	unsigned int i;

	for (i = 0; i < 32 * ARRAY_SIZE(leaf); i++) {
		unsigned int cap = leaf[i / 32] * 32 + i % 32;

		if (cpu->cpuid[i / 32] >> (i % 32) & 1 && cap < 32 * NCAPINTS)
			set_cpu_cap(&boot_cpu_data, cap);
	}
	elf_aux_hwcap = cpu->cpuid[1]; /* leaf 1 edx, as on a PC */
	cache_helper("cache_alignment : 64");
}

void setup_machinename(char *machine_out)
{
	strcpy(machine_out, "x86_64");
}

void setup_hostinfo(char *buf, int len)
{
	char host[33] = "";
	u64 word;
	u32 i;

	for (i = 0; i < 4; i++) {
		word = keel_must(keel_base_host(i), "base_host");
		memcpy(host + 8 * i, &word, 8);
	}
	snprintf(buf, len, "%s", host);
}

ssize_t os_getrandom(void *buf, size_t len, unsigned int flags)
{
	static bool used;
	size_t n = min_t(size_t, len, KEEL_ENTROPY_SIZE);

	/* The same bytes twice are no entropy. */
	if (used)
		return -ENODATA;
	used = true;
	memcpy(buf, keel_start_entropy(keel_start), n);
	return n;
}

/* Messages before there is a console, and without one. */

void um_early_printk(const char *s, unsigned int n)
{
	keel_write_early(s, n);
}

static void say(const char *fmt, va_list args)
{
	char text[256];

	keel_write_early(text, vscnprintf(text, sizeof(text), fmt, args));
}

void os_info(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say(fmt, args);
	va_end(args);
}

void os_warn(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say(fmt, args);
	va_end(args);
}

int printf(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say(fmt, args);
	va_end(args);
	return 0;
}

void os_flush_stdout(void)
{
}

void exit(int code)
{
	for (;;)
		shut_down(KEEL_SHUTDOWN_POWEROFF, code);
}

void os_dump_core(void)
{
	keel_die("panic");
}

/* Before arch/um's own, which knows no message. */
static int end_with_message(struct notifier_block *self, unsigned long event, void *message)
{
	keel_die(message);
}

static struct notifier_block panic_block = {
	.notifier_call = end_with_message,
	.priority = INT_MAX,
};

static int __init take_panics(void)
{
	atomic_notifier_chain_register(&panic_notifier_list, &panic_block);
	return 0;
}
early_initcall(take_panics);
