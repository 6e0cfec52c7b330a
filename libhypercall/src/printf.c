// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Formatting for guests without a C library; see keel_vsnprintf() for what is understood. */
#include <hypercall/guest.h>

/* Where text goes: into buf until it is full, or through it to the console. */
struct out {
	char *buf;
	size_t n, len, used;
	bool console;
};

struct spec {
	bool left, zero, plus, space, alt;
	int width, precision; /* precision < 0: not given */
};

static void put(struct out *o, char c)
{
	o->len++;
	if (o->console && o->used == o->n) {
		keel_write(o->buf, o->used);
		o->used = 0;
	}
	if (o->used < o->n)
		o->buf[o->used++] = c;
}

static int text_len(const char *s)
{
	int n = 0;

	while (s[n])
		n++;
	return n;
}

static void pad(struct out *o, int n, char c)
{
	while (n-- > 0)
		put(o, c);
}

/* prefix, zeros up to the precision, digits; padded to the width. */
static void put_field(struct out *o, const struct spec *s, const char *prefix, const char *body, int len, int zeros)
{
	int plen = text_len(prefix), fill;

	fill = s->width - plen - len - zeros;
	if (!s->left)
		pad(o, fill, ' ');
	while (*prefix)
		put(o, *prefix++);
	pad(o, zeros, '0');
	while (len--)
		put(o, *body++);
	if (s->left)
		pad(o, fill, ' ');
}

static void put_number(struct out *o, const struct spec *s, const char *prefix, uint64_t v, unsigned int base,
		       bool upper)
{
	const char *digit = upper ? "0123456789ABCDEF" : "0123456789abcdef";
	int at = 64, zeros, len;
	char text[64];

	for (; v; v /= base)
		text[--at] = digit[v % base];
	len = 64 - at;
	if (s->precision >= 0)
		zeros = s->precision - len;
	else if (s->zero && !s->left)
		zeros = s->width - text_len(prefix) - len;
	else
		zeros = 0;
	/* Zero has a digit, unless a precision of 0 says otherwise. */
	if (!len && zeros < 1 && s->precision != 0)
		zeros = 1;
	put_field(o, s, prefix, text + at, len, zeros > 0 ? zeros : 0);
}

static int number(const char **f, va_list *ap)
{
	int n = 0;

	if (**f == '*') {
		++*f;
		return va_arg(*ap, int);
	}
	for (; **f >= '0' && **f <= '9'; ++*f)
		n = n < 10000 ? n * 10 + (**f - '0') : n;
	return n;
}

/* Length modifiers as a rank: hh -2, h -1, none 0, l ll z t j 1. */
static int length(const char **f)
{
	int rank = 0;

	for (;; ++*f) {
		switch (**f) {
		case 'h':
			rank--;
			break;
		case 'l':
		case 'z':
		case 't':
		case 'j':
			rank = 1;
			break;
		default:
			return rank;
		}
	}
}

static uint64_t get_unsigned(va_list *ap, int rank)
{
	if (rank > 0)
		return va_arg(*ap, unsigned long);
	if (rank == 0)
		return va_arg(*ap, unsigned int);
	return rank == -1 ? (unsigned short)va_arg(*ap, unsigned int) : (unsigned char)va_arg(*ap, unsigned int);
}

static int64_t get_signed(va_list *ap, int rank)
{
	if (rank > 0)
		return va_arg(*ap, long);
	if (rank == 0)
		return va_arg(*ap, int);
	return rank == -1 ? (short)va_arg(*ap, int) : (signed char)va_arg(*ap, int);
}

static void convert(struct out *o, const char **f, va_list *ap)
{
	struct spec s = { .precision = -1 };
	const char *str;
	int rank, len;
	int64_t i;
	uint64_t u;
	char c;

	for (;; ++*f) {
		if (**f == '-')
			s.left = true;
		else if (**f == '0')
			s.zero = true;
		else if (**f == '+')
			s.plus = true;
		else if (**f == ' ')
			s.space = true;
		else if (**f == '#')
			s.alt = true;
		else
			break;
	}
	s.width = number(f, ap);
	if (s.width < 0) {
		s.left = true;
		s.width = -s.width;
	}
	if (**f == '.') {
		++*f;
		s.precision = number(f, ap);
	}
	rank = length(f);
	c = **f;
	if (c)
		++*f;
	switch (c) {
	case 'd':
	case 'i':
		i = get_signed(ap, rank);
		str = i < 0 ? "-" : s.plus ? "+" : s.space ? " " : "";
		put_number(o, &s, str, i < 0 ? -(uint64_t)i : (uint64_t)i, 10, false);
		break;
	case 'u':
		put_number(o, &s, "", get_unsigned(ap, rank), 10, false);
		break;
	case 'o':
		put_number(o, &s, "", get_unsigned(ap, rank), 8, false);
		break;
	case 'x':
	case 'X':
		u = get_unsigned(ap, rank);
		put_number(o, &s, !s.alt || !u ? "" : c == 'x' ? "0x" : "0X", u, 16, c == 'X');
		break;
	case 'p':
		put_number(o, &s, "0x", (uint64_t)va_arg(*ap, void *), 16, false);
		break;
	case 'c':
		c = (char)va_arg(*ap, int);
		put_field(o, &s, "", &c, 1, 0);
		break;
	case 's':
		str = va_arg(*ap, const char *);
		if (!str)
			str = "(null)";
		for (len = 0; (s.precision < 0 || len < s.precision) && str[len]; len++)
			;
		put_field(o, &s, "", str, len, 0);
		break;
	case '%':
		put(o, '%');
		break;
	default:
		/* Shown as it is: a wrong format is better seen than swallowed. */
		put(o, '%');
		if (c)
			put(o, c);
	}
}

static void format(struct out *o, const char *fmt, va_list args)
{
	va_list ap;

	va_copy(ap, args);
	while (*fmt) {
		if (*fmt != '%') {
			put(o, *fmt++);
			continue;
		}
		fmt++;
		convert(o, &fmt, &ap);
	}
	va_end(ap);
}

int keel_vsnprintf(char *buf, size_t n, const char *fmt, va_list ap)
{
	/* The last byte is the NUL's. */
	struct out o = { .buf = buf, .n = n ? n - 1 : 0 };

	format(&o, fmt, ap);
	if (n)
		buf[o.used] = '\0';
	return (int)o.len;
}

int keel_snprintf(char *buf, size_t n, const char *fmt, ...)
{
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = keel_vsnprintf(buf, n, fmt, ap);
	va_end(ap);
	return len;
}

void keel_vprintf(const char *fmt, va_list ap)
{
	char buf[128];
	struct out o = { .buf = buf, .n = sizeof(buf), .console = true };

	format(&o, fmt, ap);
	keel_write(o.buf, o.used);
}

void keel_printf(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	keel_vprintf(fmt, ap);
	va_end(ap);
}
