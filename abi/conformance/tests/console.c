// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* CONSOLE: early output and the ring. */
#include "kt.h"

#define G0 (KT_SCRATCH_GPA + 0x100000) /* not in what kt_digest() looks at: the host writes there in its own time */
#define MS KEEL_U64(1000000)
static volatile struct keel_console_ring *const ring = (struct keel_console_ring *)(KT_LINEAR + G0);

static void setup(void)
{
	memset((void *)ring, 0, 4096);
	OK_VALUE(HC(KEEL_CALL_CONSOLE_SETUP, G0, KEEL_CONSOLE_RING_SIZE), 0);
}

static void publish(const char *s, size_t n)
{
	u32 prod = ring->out_prod;

	for (size_t i = 0; i < n; i++)
		ring->out[(prod + i) % KEEL_CONSOLE_OUT_SIZE] = (u8)s[i];
	__atomic_store_n(&ring->out_prod, prod + (u32)n, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&ring->out_wake, __ATOMIC_SEQ_CST))
		OK_VALUE(HC(KEEL_CALL_CONSOLE_KICK), 0);
}

/* Until everything published was taken. */
static void flush(void)
{
	u64 end = kt_now() + 5000 * MS;

	while (__atomic_load_n(&ring->out_cons, __ATOMIC_ACQUIRE) != ring->out_prod) {
		if (kt_now() > end) {
			KT_FAIL("the host took %u of %u bytes", ring->out_cons, ring->out_prod);
			return;
		}
		HC(KEEL_CALL_VCPU_WAIT, kt_now() + MS);
	}
}

KEEL_TEST("CONSOLE-001", console_write, "KEEL-CONSOLE-01", "line=0123456789abcdefghijklmnopqrstu", KT_EARLY)
{
	u64 w[4];

	for (u64 n = 1; n <= 31; n++) {
		memset(w, '#', sizeof(w)); /* bytes beyond count are ignored */
		((char *)w)[0] = "0123456789abcdefghijklmnopqrstu"[n - 1];
		OK_VALUE(HC(KEEL_CALL_CONSOLE_WRITE, 1, w[0], w[1], w[2], w[3]), 0);
	}
	OK(HC(KEEL_CALL_CONSOLE_WRITE, 1, '\n'));
}

KEEL_TEST("CONSOLE-002", console_write_full, "KEEL-CONSOLE-01", "line=ABCDEFGHIJKLMNOPQRSTUVWXYZ12345", 0)
{
	u64 w[4];

	memcpy(w, "ABCDEFGHIJKLMNOPQRSTUVWXYZ12345\n", 32);
	OK_VALUE(HC(KEEL_CALL_CONSOLE_WRITE, 32, w[0], w[1], w[2], w[3]), 0);
}

KEEL_TEST("CONSOLE-003", console_write_count, "KEEL-CONSOLE-02 KEEL-CALL-06", "neg", 0)
{
	NEG(HC(KEEL_CALL_CONSOLE_WRITE, 0, 'x'), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_CONSOLE_WRITE, 33, 'x'), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_CONSOLE_WRITE, ~0ull, 'x'), KEEL_E_RANGE, ARG(1));
	NEG(HC(KEEL_CALL_CONSOLE_WRITE, 1ull << 32, 'x'), KEEL_E_RANGE, ARG(1));
}

KEEL_TEST("CONSOLE-004", console_setup_bad, "KEEL-CONSOLE-04 KEEL-TYPE-06", "neg", 0)
{
	u64 ram = kt_ram_size();

	NEG(HC(KEEL_CALL_CONSOLE_SETUP, G0 + 8, 4096), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_CONSOLE_SETUP, G0, 0), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_CONSOLE_SETUP, G0, 4095), KEEL_E_INVAL, ARG(2));
	NEG(HC(KEEL_CALL_CONSOLE_SETUP, G0, 8192), KEEL_E_INVAL, ARG(2));
	NEG(HC(KEEL_CALL_CONSOLE_SETUP, G0, ~0ull), KEEL_E_INVAL, ARG(2));
	NEG(HC(KEEL_CALL_CONSOLE_SETUP, ram, 4096), KEEL_E_FAULT, ARG(1));
	NEG(HC(KEEL_CALL_CONSOLE_SETUP, -4096ull, 4096), KEEL_E_FAULT, ARG(1));
	OK_VALUE(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0), 0); /* none there */
	setup();
	NEG(HC(KEEL_CALL_CONSOLE_SETUP, G0 + 4096, 4096), KEEL_E_EXIST, ARG(1));
	NEG(HC(KEEL_CALL_CONSOLE_SETUP, G0, 4096), KEEL_E_EXIST, ARG(1));
	OK_VALUE(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0), 0);
	setup();
	OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
	OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
}

KEEL_TEST("CONSOLE-005", console_ring_output, "KEEL-CONSOLE-05 KEEL-CONSOLE-11 KEEL-CONSOLE-03",
	  "line=early%2c%20then%20the%20ring%2c%20in%20order", 0)
{
	setup();
	kt_puts("early, ");
	publish("then the ring, ", 15);
	publish("in order\n", 9);
	flush();
	OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
}

KEEL_TEST("CONSOLE-006", console_ring_wraps, "KEEL-CONSOLE-05", "line=ring%20checksum%20is%20printed%20last timeout=30",
	  0)
{
	/* Many times the ring's size, in pieces of every length; nothing is lost and nothing is put out twice. */
	setup();
	for (u32 i = 0; i < 300; i++) {
		char text[80];
		u32 n = i % 78;

		memset(text, '.', sizeof(text));
		text[n] = '\n';
		while (KEEL_CONSOLE_OUT_SIZE - (ring->out_prod - __atomic_load_n(&ring->out_cons, __ATOMIC_ACQUIRE)) <
		       n + 1)
			HC(KEEL_CALL_VCPU_WAIT, kt_now() + MS / 10);
		publish(text, n + 1);
	}
	flush(); /* room for the last line, too */
	publish("ring checksum is printed last\n", 30);
	flush();
	OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
}

KEEL_TEST("CONSOLE-007", console_host_fields, "KEEL-CONSOLE-10 KEEL-TYPE-03", "", 0)
{
	setup();
	for (int i = 0; i < 20; i++)
		publish("this is some output\n", 20);
	flush();
	for (u32 i = 0; i < 12; i++)
		CHECK_EQ(ring->reserved1[i], 0);
	for (u32 i = 0; i < 13; i++)
		CHECK_EQ(ring->reserved0[i], 0);
	for (u32 i = 0; i < sizeof(ring->reserved2); i++)
		CHECK_EQ(ring->reserved2[i], 0);
	CHECK_EQ(ring->out_prod, 400);
	CHECK_EQ(ring->in_cons, 0);
	CHECK_EQ(ring->in_wake, 0);
	CHECK(ring->out_wake <= 1);
	OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
	/* Taken back: the host keeps its hands off the page. */
	u64 h = kt_hash(1, (void *)ring, 4096);

	ERR_VALUE(HC(KEEL_CALL_CONSOLE_KICK), KEEL_STATUS(KEEL_E_STATE, 0), 0);
	kt_puts("after the ring\n");
	kt_spin_ns(3 * MS);
	CHECK_EQ(kt_hash(1, (void *)ring, 4096), h);
}

KEEL_TEST("CONSOLE-008", console_kick_alone, "KEEL-CONSOLE-06", "neg", 0)
{
	for (int i = 0; i < 20; i++)
		NEG(HC(KEEL_CALL_CONSOLE_KICK), KEEL_E_STATE, 0); /* no ring */
	setup();
	for (int i = 0; i < 100; i++)
		OK_VALUE(HC(KEEL_CALL_CONSOLE_KICK), 0);
	OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
}

static char got[4096];
static u32 ngot;

static void take_input(void)
{
	u32 prod = __atomic_load_n(&ring->in_prod, __ATOMIC_ACQUIRE), cons = ring->in_cons;

	CHECK(prod - cons <= KEEL_CONSOLE_IN_SIZE);
	for (; cons != prod && ngot < sizeof(got) - 1; cons++)
		got[ngot++] = (char)ring->in[cons % KEEL_CONSOLE_IN_SIZE];
	__atomic_store_n(&ring->in_cons, cons, __ATOMIC_SEQ_CST);
}

KEEL_TEST("CONSOLE-009", console_input, "KEEL-CONSOLE-07", "stdin=hello%20host%0aand%20more%0a", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_CONSOLE, 1), bit = KEEL_PORT_BIT(port);
	u64 end = kt_now() + 5000 * MS;

	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	setup();
	while (ngot < 20 && kt_now() < end) {
		HC(KEEL_CALL_VCPU_WAIT, end);
		kt_scan();
		take_input();
	}
	CHECK_EQ(ngot, 20);
	CHECK(!memcmp(got, "hello host\nand more\n", 20));
	CHECK(kt_seen[bit] >= 1);
	OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
}

KEEL_TEST("CONSOLE-010", console_input_backlog, "KEEL-CONSOLE-07 KEEL-CONSOLE-10", "stdin=@3000", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_CONSOLE, 1);
	u64 end = kt_now() + 5000 * MS;

	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	setup();
	/* Three thousand bytes do not fit: what finds no room waits outside, and comes in order. */
	kt_spin_ns(50 * MS);
	CHECK(ring->in_prod - ring->in_cons <= KEEL_CONSOLE_IN_SIZE);
	while (ngot < 3000 && kt_now() < end) {
		take_input();
		kt_scan();
		HC(KEEL_CALL_CONSOLE_KICK);
		HC(KEEL_CALL_VCPU_WAIT, kt_now() + MS);
	}
	CHECK_EQ(ngot, 3000);
	for (u32 i = 0; i < ngot; i++)
		if (got[i] != (char)('a' + i % 26)) {
			KT_FAIL("input byte %u is %c", i, got[i]);
			break;
		}
	OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
}

KEEL_TEST("CONSOLE-011", console_want_space, "KEEL-CONSOLE-08", "", 0)
{
	u32 port = kt_bind(KEEL_SOURCE_CONSOLE, 1), bit = KEEL_PORT_BIT(port);
	static char text[KEEL_CONSOLE_OUT_SIZE];
	u64 end = kt_now() + 5000 * MS;

	OK(HC(KEEL_CALL_EVENT_UNMASK, port));
	setup();
	memset(text, '.', sizeof(text));
	text[sizeof(text) - 1] = '\n';
	ring->in_wake = KEEL_CONSOLE_WANT_SPACE;
	publish(text, sizeof(text)); /* the ring is full */
	while (!kt_seen[bit] && kt_now() < end) {
		HC(KEEL_CALL_VCPU_WAIT, end);
		kt_scan();
	}
	CHECK(kt_seen[bit] >= 1);
	CHECK(ring->out_prod - ring->out_cons < KEEL_CONSOLE_OUT_SIZE);
	flush();
	OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
}

static void broken_index(u32 out_prod, u32 in_cons)
{
	u64 end;

	setup();
	ring->in_cons = in_cons;
	__atomic_store_n(&ring->out_prod, out_prod, __ATOMIC_SEQ_CST);
	OK(HC(KEEL_CALL_CONSOLE_KICK));
	OK(HC(KEEL_CALL_BASE_PING, 1));
	kt_puts("console_write still works\n");
	/* Dropped: another can be registered, once the host has noticed. */
	for (end = kt_now() + 2000 * MS; kt_now() < end;) {
		struct kt_ret r = HC(KEEL_CALL_CONSOLE_SETUP, G0 + 4096, 4096);

		if (!r.status) {
			OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
			return;
		}
		CHECK_EQ(r.status, KEEL_STATUS(KEEL_E_EXIST, 1));
		HC(KEEL_CALL_VCPU_WAIT, kt_now() + MS);
	}
	KT_FAIL("a ring with out_prod %x in_cons %x is not dropped", out_prod, in_cons);
	HC(KEEL_CALL_CONSOLE_SETUP, 0, 0);
}

KEEL_TEST("CONSOLE-012", console_index_jump, "KEEL-CONSOLE-09", "neg timeout=20", 0)
{
	memset(kt_ram(G0 + 4096), 0, 4096);
	broken_index(KEEL_CONSOLE_OUT_SIZE + 1, 0);
	broken_index(0x80000000, 0);
	broken_index(0xffffffff, 0);
	broken_index(0, 1); /* more taken in than was put in */
	broken_index(0, 0x80000000);
	OK(HC(KEEL_CALL_BASE_PING, 2));
}

KEEL_TEST("CONSOLE-013", console_ring_reset, "KEEL-CONSOLE-03", "", 0)
{
	for (int i = 0; i < 50; i++) {
		setup();
		publish("one more.\n", 10);
		flush();
		OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
	}
}

KEEL_TEST("CONSOLE-014", console_setup_order, "KEEL-CALL-09 KEEL-CONSOLE-04", "neg", 0)
{
	u64 ram = kt_ram_size();

	NEG(HC(KEEL_CALL_CONSOLE_SETUP, ram + 1, 1), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_CONSOLE_SETUP, ram, 1), KEEL_E_INVAL, ARG(2));
	setup();
	NEG(HC(KEEL_CALL_CONSOLE_SETUP, G0 + 1, 4096), KEEL_E_INVAL, ARG(1));
	NEG(HC(KEEL_CALL_CONSOLE_SETUP, G0, 1), KEEL_E_INVAL, ARG(2));
	NEG(HC(KEEL_CALL_CONSOLE_SETUP, 4096, 0), KEEL_E_INVAL, ARG(1));
	publish("the ring is still there, whole.\n", 32);
	flush();
	OK(HC(KEEL_CALL_CONSOLE_SETUP, 0, 0));
}
