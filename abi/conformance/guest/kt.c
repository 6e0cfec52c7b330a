// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/*
 * The runtime of a conformance image: finds the test that the command line
 * names, has kt_pv.c or kt_hvm.c negotiate for it, runs it and says the
 * verdict. See kt.h.
 */
#include <stdarg.h>

#include "kt.h"

struct keel_vcpu *kt_vcpu;
int kt_fails;
u64 kt_seed = 1, kt_scale = 1;
u64 kt_fixup, kt_fixup_rsp;
volatile u64 kt_spin_flag, kt_spin_save;
volatile u32 kt_seen[KEEL_EVENT_BITS];
volatile u64 kt_upcalls;
void (*kt_event_hook)(u32 bit);

static u64 random_state;

extern const struct kt_test kt_tests_begin[], kt_tests_end[];

void *memset(void *d, int c, size_t n)
{
	void *r = d;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return r;
}

void *memcpy(void *d, const void *s, size_t n)
{
	void *r = d;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	return r;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *x = a, *y = b;

	for (; n--; x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

size_t strlen(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

int strcmp(const char *a, const char *b)
{
	for (; *a && *a == *b; a++, b++)
		;
	return (u8)*a - (u8)*b;
}

/* Console: packed into registers, so it works in every state of the partition. */
static void put(const char *s, size_t n)
{
	while (n) {
		u64 w[4] = { 0 };
		size_t k = n < 32 ? n : 32;

		memcpy(w, s, k);
		HC(KEEL_CALL_CONSOLE_WRITE, k, w[0], w[1], w[2], w[3]);
		s += k;
		n -= k;
	}
}

void kt_puts(const char *s)
{
	put(s, strlen(s));
}

struct line {
	char s[480];
	size_t n;
};

static void add(struct line *l, char c)
{
	if (l->n < sizeof(l->s) - 2)
		l->s[l->n++] = c;
}

/* %s %c %d %u %x %lx %ld %lu %llx %p: what the tests use. */
static void format(struct line *l, const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		int longs = 0, base = 10;
		char digits[24];
		int n = 0;
		u64 v;

		if (*fmt != '%') {
			add(l, *fmt);
			continue;
		}
		while (*++fmt == 'l')
			longs++;
		switch (*fmt) {
		case 's':
			for (const char *s = va_arg(ap, const char *); *s; s++)
				add(l, *s);
			continue;
		case 'c':
			add(l, (char)va_arg(ap, int));
			continue;
		case 'd':
			v = longs ? (u64)va_arg(ap, s64) : (u64)(s64)va_arg(ap, int);
			if ((s64)v < 0) {
				add(l, '-');
				v = -v;
			}
			break;
		case 'x':
		case 'p':
			base = 16;
			if (*fmt == 'p')
				longs = 1;
			/* fall through */
		case 'u':
			v = longs ? va_arg(ap, u64) : va_arg(ap, u32);
			break;
		default:
			add(l, *fmt);
			continue;
		}
		do {
			digits[n++] = "0123456789abcdef"[v % base];
			v /= base;
		} while (v);
		while (n)
			add(l, digits[--n]);
	}
}

static void vsay(const char *head, const char *fmt, va_list ap)
{
	struct line l = { .n = 0 };

	for (; *head; head++)
		add(&l, *head);
	format(&l, fmt, ap);
	l.s[l.n++] = '\n';
	put(l.s, l.n);
}

static void say(const char *head, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const char *head, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(head, fmt, ap);
	va_end(ap);
}

void kt_note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay("KT note ", fmt, ap);
	va_end(ap);
}

void kt_fail(const char *file, int line, const char *fmt, ...)
{
	struct line l = { .n = 0 };
	va_list ap;

	/* A loop that fails fails a thousand times: the first few say it all. */
	if (++kt_fails > 12)
		return;
	va_start(ap, fmt);
	format(&l, fmt, ap);
	va_end(ap);
	l.s[l.n] = 0;
	say("KT fail ", "%s:%d %s", file, line, l.s);
}

void kt_armed(void)
{
	kt_puts("KT armed\n");
}

static void power_off(void) __attribute__((noreturn));
static void power_off(void)
{
	HC(KEEL_CALL_BASE_SHUTDOWN, KEEL_SHUTDOWN_POWEROFF, 0);
	kt_puts("KT note shutdown returned\n");
	for (;;)
		__asm__ volatile("ud2");
}

void kt_skip(u32 ext, const char *reason)
{
	say("KT skip ", "%u %s", ext, reason);
	power_off();
}

void kt_finish(void)
{
	kt_puts(kt_fails ? "KT failed\n" : "KT pass\n");
	power_off();
}

bool kt_check_eq(const char *file, int line, const char *what, u64 got, u64 want)
{
	if (got == want)
		return true;
	kt_fail(file, line, "%s is %lx, expected %lx", what, got, want);
	return false;
}

static const char *const code_name[] = { "OK",	  "NOSYS", "NOTSUP", "PERM", "AGAIN",	"INVAL", "FAULT",   "RANGE",
					 "NOMEM", "NOENT", "EXIST",  "BUSY", "CONTEXT", "STATE", "TIMEDOUT" };

static void name_status(struct line *l, s64 status)
{
	u64 m = -status;
	int at = KEEL_STATUS_AT(status), bit = KEEL_STATUS_FLAGBIT(status);

	l->n = 0;
	if (status > 0 || m >> 24 || (m & 0xff) >= KEEL_E_COUNT) {
		const char *s = "malformed";

		while (*s)
			add(l, *s++);
	} else {
		for (const char *s = code_name[m & 0xff]; *s; s++)
			add(l, *s);
		if (at) {
			add(l, at >= 0x10 ? 'f' : 'a');
			add(l, (char)('0' + (at & 15)));
		}
		if (bit >= 0) {
			add(l, 'b');
			add(l, (char)('0' + bit / 10));
			add(l, (char)('0' + bit % 10));
		}
	}
	l->s[l->n] = 0;
}

bool kt_check_ret(const char *file, int line, const char *what, struct kt_ret r, s64 status, u64 value, bool any)
{
	struct line got, want;

	if (r.status == status && (any || r.value == value))
		return true;
	name_status(&got, r.status);
	name_status(&want, status);
	if (r.status != status)
		kt_fail(file, line, "%s: status %ld (%s), expected %ld (%s)", what, r.status, got.s, status, want.s);
	else
		kt_fail(file, line, "%s: %s with value %lx, expected %lx", what, got.s, r.value, value);
	return false;
}

/* Memory. */
void *kt_ram(u64 gpa)
{
	return (void *)(KT_LINEAR + gpa);
}

u64 kt_gpa(const volatile void *image_object)
{
	extern const u8 KT_OFFSET[]; /* a number, of the linker script */

	return (u64)image_object - (u64)KT_OFFSET;
}

void kt_poison(u64 gpa, u64 len, u64 seed)
{
	u64 *p = kt_ram(gpa);

	for (u64 i = 0; i < len / 8; i++)
		p[i] = (seed + i) * 0x9e3779b97f4a7c15;
}

u64 kt_hash(u64 h, const volatile void *p, size_t n)
{
	const volatile u8 *b = p;

	while (n--)
		h = (h ^ *b++) * 0x100000001b3;
	return h;
}

void kt_scan(void)
{
	struct keel_vcpu *v = kt_vcpu;
	u64 pending;

	while ((pending = __atomic_load_n(&v->pending, __ATOMIC_ACQUIRE))) {
		u32 w = (u32)__builtin_ctzll(pending);
		u64 bits;

		__atomic_fetch_and(&v->pending, ~(1ull << w), __ATOMIC_SEQ_CST);
		bits = __atomic_load_n(&v->event_pending[w], __ATOMIC_SEQ_CST) &
		       ~__atomic_load_n(&v->event_mask[w], __ATOMIC_SEQ_CST);
		for (; bits; bits &= bits - 1) {
			u32 bit = w * 64 + (u32)__builtin_ctzll(bits);

			__atomic_fetch_and(&v->event_pending[w], ~(1ull << (bit & 63)), __ATOMIC_SEQ_CST);
			kt_seen[bit]++;
			if (kt_event_hook)
				kt_event_hook(bit);
		}
	}
}

/* Enable as the ABI says: store, test, call. */
void kt_sti(void)
{
	__atomic_store_n(&kt_vcpu->if_enabled, 1, __ATOMIC_SEQ_CST);
	if (kt_pending())
		HC(KEEL_CALL_TRAP_DELIVER);
}

u64 kt_pending(void)
{
	return __atomic_load_n(&kt_vcpu->pending, __ATOMIC_SEQ_CST);
}

bool kt_port_pending(u32 port)
{
	u32 b = KEEL_PORT_BIT(port);

	return __atomic_load_n(&kt_vcpu->event_pending[b / 64], __ATOMIC_SEQ_CST) >> (b % 64) & 1;
}

bool kt_port_masked(u32 port)
{
	u32 b = KEEL_PORT_BIT(port);

	return __atomic_load_n(&kt_vcpu->event_mask[b / 64], __ATOMIC_SEQ_CST) >> (b % 64) & 1;
}

u32 kt_alloc(u32 priority)
{
	struct kt_ret r = HC(KEEL_CALL_EVENT_ALLOC, priority);

	if (!OK(r) || r.value >> 32)
		kt_finish();
	return (u32)r.value;
}

u32 kt_bind(u32 source, u32 priority)
{
	struct kt_ret r = HC(KEEL_CALL_EVENT_BIND, source, priority);

	if (!OK(r) || r.value >> 32)
		kt_finish();
	return (u32)r.value;
}

u64 kt_now(void)
{
	return HC(KEEL_CALL_TIME_READ).value;
}

u64 kt_slow(void)
{
	static u64 slow;
	u64 best = ~0ull;

	for (int i = 0; i < 8 && !slow; i++) {
		u64 before = kt_now(), took = kt_now() - before;

		best = took < best ? took : best;
	}
	if (!slow)
		slow = 1 + best / 400;
	return slow;
}

void kt_spin_ns(u64 ns)
{
	u64 end = kt_now() + ns;

	while (kt_now() < end)
		__asm__ volatile("pause");
}

void kt_accept_all(void)
{
	for (u64 w = 0; w < KEEL_FEATURE_WORDS; w++) {
		struct kt_ret f = HC(KEEL_CALL_BASE_FEATURES, w);

		if (OK(f))
			OK(HC(KEEL_CALL_BASE_ACCEPT, w, f.value));
	}
}

void kt_freeze(void)
{
	OK(HC(KEEL_CALL_BASE_FREEZE));
}

#define KEEL_EXT(...)
#define KEEL_CALL(ext, fn, name, nargs, flags, ...) { KEEL_CALL_ID(KEEL_EXT_##ext, fn), flags, nargs, #name },
const struct kt_call_info kt_calls[KEEL_CALL_COUNT] = {
#include "../../hypercalls.def"
};

bool kt_implemented(const struct kt_call_info *c)
{
	if (!(HC(KEEL_CALL_BASE_PROBE, KEEL_CALL_EXT(c->id)).value & KEEL_PROBE_IMPLEMENTED))
		return false;
	return !(c->flags & KEEL_CF_SMP) || HC(KEEL_CALL_BASE_FEATURES, 1).value >> KEEL_F1_SMP & 1;
}

/* The word NAME=... of the command line, or NULL. */
static const char *option(const char *name)
{
	u32 size;
	const char *s = kt_cmdline(&size), *end = s + size;
	size_t n = strlen(name);

	while (s && s < end && *s) {
		if ((size_t)(end - s) > n && !memcmp(s, name, n) && s[n] == '=')
			return s + n + 1;
		while (s < end && *s && *s != ' ')
			s++;
		while (s < end && *s == ' ')
			s++;
	}
	return NULL;
}

u64 kt_option(const char *name, u64 otherwise)
{
	const char *s = option(name);
	u64 v = 0;

	if (!s)
		return otherwise;
	for (; *s >= '0' && *s <= '9'; s++)
		v = v * 10 + (u64)(*s - '0');
	return v;
}

u64 kt_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * 0x2545f4914f6cdd1d;
}

u64 kt_random_below(u64 n)
{
	return kt_random() % n;
}

void kt_main(void);
void kt_main(void)
{
	static char id[32];
	const char *s;
	size_t n = 0;

	kt_setup();
	s = option("test");
	while (s && *s && *s != ' ' && n < sizeof(id) - 1)
		id[n++] = *s++;
	kt_seed = kt_option("seed", 1);
	kt_scale = kt_option("scale", 1);
	if (!kt_scale)
		kt_scale = 1;
	random_state = kt_seed * 0x9e3779b97f4a7c15 + 0x1234567;
	for (const struct kt_test *t = kt_tests_begin; t < kt_tests_end; t++) {
		if (strcmp(t->id, id))
			continue;
		kt_puts("KT begin ");
		kt_puts(id);
		kt_puts("\n");
		kt_prepare(t);
		if (!kt_fails)
			t->fn();
		kt_finish();
	}
	kt_note("no test '%s' in this image", id);
	power_off();
}
