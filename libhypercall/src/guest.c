// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Start-up, shutdown, events and time of the small guest runtime; see hypercall/guest.h. */
#include <hypercall/batch.h>
#include <hypercall/guest.h>

/* From keel.ld. */
extern char __keel_va[], __keel_pa[];
extern const char __keel_notes_start[], __keel_notes_end[];
extern void (*const __keel_init_start[])(void), (*const __keel_init_end[])(void);

void keel_guest_start(const struct keel_start *start) __attribute__((noreturn));

static const struct keel_start *start_info;
static keel_u64 accepted[KEEL_FEATURE_WORDS];
static struct keel_event_action events[KEEL_EVENT_BITS];
static keel_u64 spurious;
static char double_stack[16384] __attribute__((aligned(4096)));

const struct keel_start *keel_start_info(void)
{
	return start_info;
}

bool keel_have(unsigned int ext)
{
	return ext < 64 && (accepted[0] >> ext & 1);
}

bool keel_have_refinement(unsigned int bit)
{
	return bit < 64 && (accepted[1] >> bit & 1);
}

keel_gpa_t keel_gpa_of(const void *p)
{
	return keel_gpa((keel_u64)p - (keel_u64)__keel_va + (keel_u64)__keel_pa);
}

/* Payload of the image's own note of a type, of at least `least` bytes. */
static const keel_u32 *find_note(keel_u32 type, keel_u32 least)
{
	const keel_u32 *n = (const keel_u32 *)__keel_notes_start;

	/* namesz, descsz, type, then name and payload, each padded to 4 bytes. */
	while ((const char *)n < __keel_notes_end) {
		const keel_u32 *desc = n + 3 + (n[0] + 3) / 4;

		if (n[2] == type && n[1] >= least)
			return desc;
		n = desc + (n[1] + 3) / 4;
	}
	return NULL;
}

static keel_u64 note_word(keel_u32 type, unsigned int word)
{
	const keel_u32 *desc = find_note(type, (word + 1) * 8);

	return desc ? (keel_u64)desc[2 * word + 1] << 32 | desc[2 * word] : 0;
}

/* Accept what the image's notes ask for and the host offers, then freeze. */
static void negotiate(void)
{
	unsigned int word;

	for (word = 0; word < KEEL_FEATURE_WORDS; word++) {
		keel_u64 required = note_word(KEEL_NOTE_REQUIRED, word);
		keel_u64 wanted = required | note_word(KEEL_NOTE_OPTIONAL, word);
		keel_u64 offered = keel_must(keel_base_features(word));

		/* The host refuses such an image; one that did not has no way to run it. */
		if (required & ~offered)
			keel_panic("features %#lx of word %u are required and not offered", (long)(required & ~offered),
				   word);
		accepted[word] = wanted & offered;
		if (accepted[word])
			keel_must(keel_base_accept(word, accepted[word]));
	}
	keel_must(keel_base_freeze());
}

void keel_guest_start(const struct keel_start *start)
{
	void (*const *init)(void);
	keel_s64 status;

	status = keel_start_check(start, SIZE_MAX);
	if (status)
		keel_must_((struct keel_ret){ status, 0 }, "start info");
	start_info = start;
	negotiate();
	for (init = __keel_init_start; init < __keel_init_end; init++)
		(*init)();
	keel_exit(keel_main(start));
}

static void shutdown(keel_u32 how, int code) __attribute__((noreturn));
static void shutdown(keel_u32 how, int code)
{
	keel_u32 c = (keel_u32)code <= KEEL_SHUTDOWN_CODE_MAX ? (keel_u32)code : KEEL_SHUTDOWN_CODE_MAX;

	keel_base_shutdown(how, c);
	/* Refused: there is no way on from here but to say so. */
	for (;;)
		keel_crash(KEEL_CRASH_PANIC, keel_gpa(0), 0, how, c);
}

void keel_exit(int code)
{
	shutdown(KEEL_SHUTDOWN_POWEROFF, code);
}

void keel_restart(int code)
{
	shutdown(KEEL_SHUTDOWN_RESTART, code);
}

void keel_panic(const char *fmt, ...)
{
	/* Static: the message is passed by GPA, and the stack may be anywhere. */
	static char message[KEEL_CRASH_MESSAGE_MAX];
	size_t len;
	va_list ap;
	int n;

	keel_irq_disable();
	va_start(ap, fmt);
	n = keel_vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	len = (size_t)n < sizeof(message) ? (size_t)n : sizeof(message) - 1;
	keel_write("panic: ", 7);
	keel_puts(message);
	for (;;)
		keel_crash(KEEL_CRASH_PANIC, keel_gpa_of(message), len, 0, 0);
}

keel_u64 keel_must_(struct keel_ret ret, const char *what)
{
	char text[64];

	if (ret.status) {
		keel_status_format(text, sizeof(text), ret.status);
		keel_panic("%s: %s", what, text);
	}
	return ret.value;
}

void keel_entry_failed(unsigned int frame_class, keel_s64 status, const struct keel_frame *frame)
{
	char text[64];

	keel_status_format(text, sizeof(text), status);
	keel_print_frame(frame);
	keel_panic("frame of class %u cannot be resumed: %s", frame_class, text);
}

keel_s64 keel_trap_handler(keel_entry_fn fn)
{
	return keel_entry_install(KEEL_CLASS_TRAP, fn, NULL);
}

keel_s64 keel_double_handler(keel_entry_fn fn)
{
	return keel_entry_install(KEEL_CLASS_DOUBLE, fn, double_stack + sizeof(double_stack));
}

void keel_print_frame(const struct keel_frame *f)
{
	static const char *const class_name[KEEL_CLASS_COUNT] = { "trap", "event", "dump", "double fault" };

	keel_printf("%s vector %u error %#lx address %#lx\n",
		    f->class_ < KEEL_CLASS_COUNT ? class_name[f->class_] : "frame", f->vector, (long)f->error,
		    (long)f->addr);
	keel_printf("rip %016lx rsp %016lx rflags %08lx\n", (long)f->rip, (long)f->rsp, (long)f->rflags);
	keel_printf("rax %016lx rbx %016lx rcx %016lx rdx %016lx\n", (long)f->rax, (long)f->rbx, (long)f->rcx,
		    (long)f->rdx);
	keel_printf("rsi %016lx rdi %016lx rbp %016lx r8  %016lx\n", (long)f->rsi, (long)f->rdi, (long)f->rbp,
		    (long)f->r8);
	keel_printf("r9  %016lx r10 %016lx r11 %016lx r12 %016lx\n", (long)f->r9, (long)f->r10, (long)f->r11,
		    (long)f->r12);
	keel_printf("r13 %016lx r14 %016lx r15 %016lx\n", (long)f->r13, (long)f->r14, (long)f->r15);
}

size_t keel_backtrace(keel_u64 rbp, keel_u64 *pc, size_t n)
{
	const keel_u64 *frame;
	size_t i;

	/* The chain ends with 0; a value that cannot be a frame pointer ends it as well. */
	for (i = 0; i < n && rbp >= KEEL_VA_MIN && rbp < KEEL_VA_END - 16 && !(rbp & 7); i++) {
		frame = (const keel_u64 *)rbp;
		pc[i] = frame[1];
		rbp = frame[0];
	}
	return i;
}

unsigned int keel_event_dispatch(void)
{
	return keel_ev_dispatch(keel_share(keel_vcpu_page()), events, &spurious);
}

keel_u64 keel_event_spurious(void)
{
	return spurious;
}

static void event_entry(struct keel_frame *frame)
{
	(void)frame;
	keel_event_dispatch();
}

keel_s64 keel_event_init(void)
{
	return keel_entry_install(KEEL_CLASS_EVENT, event_entry, NULL);
}

void keel_event_handler(keel_u32 bit, keel_event_fn fn, void *arg)
{
	bool irq = keel_irq_save();

	/* Two stores that the dispatcher must see together. */
	events[bit % KEEL_EVENT_BITS].fn = fn;
	events[bit % KEEL_EVENT_BITS].arg = arg;
	keel_irq_restore(irq);
}

keel_s64 keel_timer_init(keel_event_fn fn, void *arg)
{
	struct keel_ret ret = keel_event_bind(KEEL_SOURCE_TIMER, 0);

	if (ret.status)
		return ret.status;
	keel_event_handler(KEEL_PORT_BIT((keel_u32)ret.value), fn, arg);
	return keel_event_unmask(keel_port((keel_u32)ret.value)).status;
}

keel_s64 keel_timer_at(keel_u64 ns)
{
	return keel_time_set_timer(ns).status;
}

keel_u64 keel_time(void)
{
	const struct keel_abi_pages *abi = keel_start_abi(start_info);
	keel_u64 ns;

	if (abi && keel_clock_read((const struct keel_clock __pvshared *)abi->clock_va, &ns))
		return ns;
	return keel_must(keel_time_read());
}

keel_u64 keel_wall_time(void)
{
	const struct keel_abi_pages *abi = keel_start_abi(start_info);
	struct keel_clock_sample s = { 0 };

	if (!abi)
		return 0;
	/* Whether the page is valid does not matter here. */
	keel_clock_sample((const struct keel_clock __pvshared *)abi->clock_va, &s);
	return s.wall_ns ? s.wall_ns + keel_time() : 0;
}

void keel_wait(void)
{
	struct keel_ret ret = keel_vcpu_wait(KEEL_TIME_NEVER);

	if (ret.status)
		keel_must_(ret, "vcpu_wait");
	keel_irq_enable();
}

struct keel_ret keel_batch_submit(void *ctx, keel_as_t as, keel_gpa_t records, keel_u32 count, keel_u64 flags)
{
	(void)ctx;
	return keel_mmu_batch(as, records, count, flags);
}
