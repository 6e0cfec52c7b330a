// SPDX-License-Identifier: MIT
/* The serial port of HVM guests: registers, interrupts, and that no input is lost. */
#include "../hvmserial.h"
#include "tests.h"

enum { RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR };
#define FCR IIR
#define THR RBR

static struct {
	char sent[64];
	unsigned int n, edges, rooms;
	bool level;
} seen;

static void line(void *to, bool level)
{
	(void)to;
	assert_int_not_equal(level, seen.level); /* only changes are told */
	seen.level = level;
	seen.edges += level;
}

static void transmit(void *to, uint8_t byte)
{
	(void)to;
	assert_true(seen.n < sizeof(seen.sent));
	seen.sent[seen.n++] = (char)byte;
}

static void has_room(void *to)
{
	(void)to;
	seen.rooms++;
}

static const struct serial_ops ops = { line, transmit, has_room };

static void start(struct serial *s)
{
	memset(&seen, 0, sizeof(seen));
	serial_init(s, &ops, s);
}

static void test_registers(void **state)
{
	static const struct {
		unsigned int reg;
		uint8_t write, read;
	} kept[] = {
		{ IER, 0xff, 0x0f }, { LCR, 0x1b, 0x1b }, { MCR, 0xef, 0x0f }, { SCR, 0xa5, 0xa5 }, { LSR, 0xff, 0x60 },
	};
	struct serial s;

	(void)state;
	start(&s);
	assert_int_equal(serial_read(&s, LSR), 0x60);
	assert_int_equal(serial_read(&s, IIR), 0x01);
	assert_int_equal(serial_read(&s, MSR), 0xb0);
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		serial_write(&s, kept[i].reg, kept[i].write);
		assert_int_equal(serial_read(&s, kept[i].reg), kept[i].read);
	}
	serial_write(&s, IER, 0);
	/* Divisor latch: in front of data and IER, and not what they are. */
	serial_write(&s, LCR, 0x80);
	serial_write(&s, RBR, 0x12);
	serial_write(&s, IER, 0x34);
	assert_int_equal(serial_read(&s, RBR), 0x12);
	assert_int_equal(serial_read(&s, IER), 0x34);
	serial_write(&s, LCR, 0x03);
	assert_int_equal(serial_read(&s, IER), 0);
	assert_int_equal(serial_read(&s, RBR), 0);
	assert_int_equal(seen.n, 0);
	/* Loop mode, as drivers probe it: DTR RTS OUT1 OUT2 come back as DSR CTS RI DCD. */
	serial_write(&s, MCR, 0x10 | 0x0a);
	assert_int_equal(serial_read(&s, MSR), 0x90);
	serial_write(&s, MCR, 0x10 | 0x05);
	assert_int_equal(serial_read(&s, MSR), 0x60);
	serial_write(&s, THR, 'l');
	assert_int_equal(seen.n, 0);
	assert_int_equal(serial_read(&s, LSR), 0x61);
	assert_int_equal(serial_read(&s, RBR), 'l');
	/* No register number reads or writes beyond the structure. */
	for (unsigned int reg = SCR + 1; reg < 64; reg++) {
		serial_write(&s, reg, 0xff);
		assert_int_equal(serial_read(&s, reg), 0);
	}
	serial_fini(&s);
}

static void test_transmit(void **state)
{
	struct serial s;

	(void)state;
	start(&s);
	serial_write(&s, THR, 'a');
	assert_int_equal(seen.edges, 0);
	/* Enabling the interrupt of an empty transmitter raises it; IIR acknowledges; a byte raises it again. */
	serial_write(&s, IER, 0x02);
	assert_true(seen.level);
	assert_int_equal(serial_read(&s, IIR), 0x02);
	assert_false(seen.level);
	assert_int_equal(serial_read(&s, IIR), 0x01);
	serial_write(&s, THR, 'b');
	assert_true(seen.level);
	assert_int_equal(seen.edges, 2);
	serial_write(&s, THR, 'c');
	serial_write(&s, IER, 0);
	assert_false(seen.level);
	serial_write(&s, IER, 0x02);
	assert_true(seen.level); /* as drivers test for */
	assert_memory_equal(seen.sent, "abc", 3);
	serial_fini(&s);
}

static void test_receive(void **state)
{
	static const uint8_t text[] = "The quick brown fox jumps over it";
	const size_t n = sizeof(text) - 1;
	unsigned int at = 0, rooms;
	struct serial s;
	char got[64];

	(void)state;
	start(&s);
	/* Nobody listens: nothing is taken, and the guest's enabling asks for it. */
	assert_int_equal(serial_receive(&s, text, n), 0);
	serial_write(&s, FCR, 0x07);
	assert_int_equal(seen.rooms, 0);
	/* Nor does who only probes: IER without OUT2, or in loop mode. */
	serial_write(&s, IER, 0x0f);
	serial_write(&s, MCR, 0x18);
	assert_int_equal(serial_receive(&s, text, n), 0);
	serial_write(&s, IER, 0);
	serial_write(&s, MCR, 0x0b);
	assert_int_equal(seen.rooms, 0);
	serial_write(&s, IER, 0x01);
	assert_int_equal(seen.rooms, 1);
	assert_false(seen.level);
	for (size_t given = 0; at < n;) {
		given += serial_receive(&s, text + given, n - given);
		assert_true(seen.level);
		assert_int_equal(serial_read(&s, IIR), 0xc4);
		rooms = seen.rooms;
		while (serial_read(&s, LSR) & 1)
			got[at++] = (char)serial_read(&s, RBR);
		assert_false(seen.level);
		assert_int_equal(at, given);
		assert_int_equal(seen.rooms - rooms, given < n);
	}
	assert_memory_equal(got, text, n);
	rooms = seen.rooms;
	/* Without the FIFO one byte fits. Turning it on and off loses none. */
	serial_write(&s, FCR, 0);
	assert_int_equal(serial_receive(&s, text, n), 1);
	serial_write(&s, FCR, 1);
	serial_write(&s, FCR, 0);
	assert_int_equal(serial_receive(&s, text, n), 0);
	assert_int_equal(serial_read(&s, IIR), 0x04);
	assert_int_equal(serial_read(&s, RBR), 'T');
	assert_int_equal(seen.rooms, rooms + 1);
	/* Input comes before output in IIR. */
	serial_write(&s, IER, 0x03);
	assert_int_equal(serial_receive(&s, text, 1), 1);
	assert_int_equal(serial_read(&s, IIR), 0x04);
	serial_read(&s, RBR);
	assert_int_equal(serial_read(&s, IIR), 0x02);
	serial_fini(&s);
}

const struct CMUnitTest hvmserial_tests[] = {
	cmocka_unit_test(test_registers),
	cmocka_unit_test(test_transmit),
	cmocka_unit_test(test_receive),
};
DEFINE_TESTS(hvmserial);
