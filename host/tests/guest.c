// SPDX-License-Identifier: MIT
/* The guest of run_test.py: does what the first word of its command line says. */
#include <hypercall/guest.h>
#include <hypercall/ring.h>

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(CONSOLE) | KEEL_NEEDS(TRAP) | KEEL_NEEDS(EVENT) | KEEL_NEEDS(VCPU),
		 KEEL_NEEDS(TIME) | KEEL_NEEDS(CRASH));

static struct keel_console_ring ring __attribute__((aligned(4096)));

/* A call chain whose names a backtrace must show. */
static __attribute__((noinline)) int fault_inner(volatile int *p)
{
	*p = 5;
	return *p + 1;
}

static __attribute__((noinline)) int fault_middle(unsigned long addr)
{
	return fault_inner((volatile int *)addr) + 1;
}

static int do_fault(const char *arg)
{
	(void)arg;
	return fault_middle(0x123450000) + 1;
}

static int do_panic(const char *arg)
{
	(void)arg;
	keel_panic("the test said so, with \033[31m in it");
}

static int do_syscall(const char *arg)
{
	long ret;

	(void)arg;
	__asm__ volatile("syscall" : "=a"(ret) : "a"(39) : "rcx", "r11", "memory");
	return (int)ret & 1;
}

static int do_jump(const char *arg)
{
	(void)arg;
	((void (*)(void))0x200000000)();
	return 0;
}

/* Loops of frame pointers, and frames nowhere: the report must end. */
static int do_frames(const char *arg)
{
	static keel_u64 loop[2];

	(void)arg;
	loop[0] = (keel_u64)(unsigned long)loop;
	loop[1] = (keel_u64)(unsigned long)do_frames;
	__asm__ volatile("mov %0, %%rbp\n\tud2" : : "r"(loop) : "memory");
	return 0;
}

static int do_exit(const char *arg)
{
	int code = 0;

	while (*arg >= '0' && *arg <= '9')
		code = code * 10 + *arg++ - '0';
	return code;
}

static int do_spin(const char *arg)
{
	(void)arg;
	keel_puts("spinning");
	for (;;)
		__asm__ volatile("pause");
	return 0;
}

static int do_idle(const char *arg)
{
	(void)arg;
	keel_puts("idle");
	for (;;)
		keel_vcpu_wait(KEEL_TIME_NEVER);
	return 0;
}

/* Early output without end. */
static int do_flood(const char *arg)
{
	(void)arg;
	for (;;)
		keel_puts("0123456789abcdefghijklmnopqrstuvwxyz");
	return 0;
}

static void numbers(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		keel_printf("line %u of the numbered lines\n", i);
}

/* Numbered lines by early output or through the ring, and nothing may be lost. */
static int do_lines(const char *arg)
{
	if (*arg == 'r' && keel_console_init())
		return 2;
	numbers(3000);
	return 0;
}

/* Output through the ring without end. */
static int do_ringflood(const char *arg)
{
	(void)arg;
	if (keel_console_init())
		return 2;
	for (;;)
		keel_puts("0123456789abcdefghijklmnopqrstuvwxyz");
}

static void ignore(void *arg, keel_u32 bit)
{
	(void)arg;
	(void)bit;
}

static keel_s64 await_input(void)
{
	keel_s64 status = keel_console_init();

	if (!status)
		status = keel_event_init();
	return status ? status : keel_console_on_input(ignore, NULL);
}

/* Echo input until a "q" or the given number of bytes. */
static int do_echo(const char *arg)
{
	unsigned int left = (unsigned int)do_exit(arg);
	char buf[64];

	if (await_input())
		return 2;
	keel_puts("echo");
	keel_irq_enable();
	for (;;) {
		size_t n = keel_read(buf, sizeof(buf));

		if (!n) {
			keel_vcpu_wait(KEEL_TIME_NEVER);
			continue;
		}
		keel_write(buf, n);
		for (size_t i = 0; i < n; i++)
			if (buf[i] == 'q' || (left && !--left))
				return 0;
	}
}

/* Registers a ring and writes an impossible index into it. */
static int do_badring(const char *arg)
{
	struct keel_ret r = keel_console_setup(keel_gpa_of(&ring), KEEL_CONSOLE_RING_SIZE);

	(void)arg;
	if (r.status)
		return 2;
	ring.out_prod = 0x80000000;
	keel_console_kick();
	/* The ring is gone once it can be registered again. */
	for (int i = 0; i < 100000; i++) {
		ring.out_prod = i == 0 ? ring.out_prod : 0x70000000;
		r = keel_console_setup(keel_gpa_of(&ring), KEEL_CONSOLE_RING_SIZE);
		if (!r.status)
			break;
		keel_base_ping(0);
	}
	keel_puts("still here");
	return r.status ? 3 : 0;
}

/* Prints the terminal's size whenever it changes. */
static int do_size(const char *arg)
{
	unsigned int rows = ~0u, cols = ~0u;

	(void)arg;
	if (keel_console_setup(keel_gpa_of(&ring), KEEL_CONSOLE_RING_SIZE).status)
		return 2;
	for (;;) {
		unsigned int r = *(volatile keel_u16 *)&ring.rows, c = *(volatile keel_u16 *)&ring.cols;

		if (r != rows || c != cols)
			keel_printf("size %ux%u\n", r, c);
		rows = r;
		cols = c;
		keel_vcpu_wait(keel_time() + 10000000);
	}
	return 0;
}

/* Sees the dump event. */
static void on_dump(struct keel_frame *frame)
{
	keel_printf("dump class %u\n", frame->class_);
	keel_exit(9);
}

static int do_dump(const char *arg)
{
	if (keel_entry_install(KEEL_CLASS_DUMP, on_dump, NULL))
		return 2;
	return do_idle(arg);
}

/* Restarts for ever. */
static int do_restart(const char *arg)
{
	(void)arg;
	keel_puts("life");
	keel_restart(7);
}

/* Crashes with much memory written, so that the core has something to leave out. */
static int do_big(const char *arg)
{
	(void)arg;
	static keel_u8 big[8 << 20] __attribute__((aligned(4096)));

	for (unsigned int i = 0; i < sizeof(big); i += 0x100000)
		big[i] = 1;
	__asm__ volatile("ud2" : : "r"(big) : "memory");
	return 0;
}

static const struct {
	const char *name;
	int (*run)(const char *arg);
} modes[] = {
	{ "fault", do_fault },	   { "panic", do_panic },	  { "syscall", do_syscall },
	{ "jump", do_jump },	   { "frames", do_frames },	  { "exit", do_exit },
	{ "spin", do_spin },	   { "idle", do_idle },		  { "flood", do_flood },
	{ "lines", do_lines },	   { "ringflood", do_ringflood }, { "echo", do_echo },
	{ "badring", do_badring }, { "restart", do_restart },	  { "big", do_big },
	{ "size", do_size },	   { "dump", do_dump },
};

int keel_main(const struct keel_start *start)
{
	const char *cmdline = keel_start_cmdline(start);

	for (unsigned int i = 0; i < keel_array_size(modes); i++) {
		const char *name = modes[i].name, *c = cmdline;

		while (*name && *name == *c) {
			name++;
			c++;
		}
		if (*name || (*c && *c != ' '))
			continue;
		while (*c == ' ')
			c++;
		return modes[i].run(c);
	}
	keel_puts("no such mode");
	return 1;
}
