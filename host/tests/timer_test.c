// SPDX-License-Identifier: MIT
/*
 * The monitor's timer and wait against two clocks that disagree: the page the guest
 * reads, and the backend's own. The backend here is a record of what it was asked.
 */
#include <stdlib.h>

#include "tests.h"

#include "../monitor/monitor.h"

#define LAG UINT64_C(3000000) /* ns the page is behind, as after a slew of the host's clock */
#define PORT_BIT 70

static struct keel_vcpu page;
static struct keel_clock clock_page;
static struct mon m;
static struct mvcpu v;
static uint64_t backend_now, armed, waited;
static unsigned int arms, waits;

uint64_t mb_now(struct mvcpu *vcpu)
{
	(void)vcpu;
	return backend_now;
}

void mb_timer(struct mvcpu *vcpu, uint64_t deadline)
{
	(void)vcpu;
	armed = deadline;
	arms++;
}

/* Sleeps until the deadline by the backend's clock; the page's goes on as much. */
bool mb_wait(struct mvcpu *vcpu, uint32_t seq, uint64_t deadline)
{
	(void)vcpu;
	(void)seq;
	waited = deadline;
	assert_true(++waits < 10);
	if (deadline > backend_now) {
		clock_page.base_ns += deadline - backend_now;
		backend_now = deadline;
	}
	return false;
}

/* There is one vCPU here, which nobody kicks, stops or waits for. */
void mb_yield(struct mvcpu *vcpu, struct mvcpu *to)
{
	(void)vcpu, (void)to;
}

void mb_kick(struct mvcpu *vcpu, struct mvcpu *to)
{
	(void)vcpu, (void)to;
}

void mb_relax(unsigned int round)
{
	(void)round;
}

void mb_device(struct mvcpu *vcpu, uint32_t device)
{
	(void)vcpu;
	(void)device;
}

void mon_wrote(struct mon *mon, uint64_t gpa, uint64_t len)
{
	(void)mon;
	(void)gpa;
	(void)len;
}

mret mb_remote(struct mvcpu *vcpu, uint32_t id, const uint64_t *arg)
{
	(void)vcpu, (void)id, (void)arg;
	return MERR(KEEL_E_NOTSUP, 0);
}

void mon_stop(struct mvcpu *vcpu)
{
	(void)vcpu;
	abort();
}

/* event.c's batches are not what is tested here. */
bool mon_range_ok(const struct mon *mon, uint64_t gpa, uint64_t len)
{
	(void)mon, (void)gpa, (void)len;
	return false;
}

bool mon_copy_in(const struct mon *mon, void *dst, uint64_t gpa, uint64_t len)
{
	(void)mon, (void)dst, (void)gpa, (void)len;
	return false;
}

/* The page's time stands still at base_ns: a slope of 0. */
static void setup(uint64_t page_ns, uint64_t backend_ns)
{
	memset(&page, 0, sizeof(page));
	memset(&v, 0, sizeof(v));
	memset(&m, 0, sizeof(m));
	clock_page = (struct keel_clock){ .flags = KEEL_CLOCK_VALID, .base_ns = page_ns };
	m.clock = &clock_page;
	m.vcpus = 1;
	v.mon = &m;
	v.timer_port = PORT_BIT + 1;
	v.page = &page;
	v.timer_deadline = KEEL_TIME_NEVER;
	backend_now = backend_ns;
	armed = waited = 0;
	arms = waits = 0;
}

static bool fired(void)
{
	return page.event_pending[PORT_BIT / 64] >> PORT_BIT % 64 & 1;
}

static mret set_timer(uint64_t deadline)
{
	const uint64_t a[5] = { deadline };

	return mon_time_set_timer(&v, a);
}

static void test_lagging_page(void **state)
{
	const uint64_t now = 1000000000;

	(void)state;
	setup(now, now + LAG);
	assert_int_equal(set_timer(now + 1000).status, KEEL_OK);
	assert_int_equal(armed, now + 1000);
	/* It goes off at once, for the backend; by the page it is not time yet. */
	mon_timer_fired(&v);
	assert_false(fired());
	/* Armed in the backend's future by what is left, or its handlers would nest without end. */
	assert_int_equal(arms, 2);
	assert_int_equal(armed, now + LAG + 1000);
	backend_now += 1000;
	clock_page.base_ns += 999;
	mon_timer_fired(&v);
	assert_false(fired());
	assert_int_equal(armed, backend_now + 1);
	clock_page.base_ns++;
	mon_timer_fired(&v);
	assert_true(fired());
	/* Once. */
	page.event_pending[PORT_BIT / 64] = 0;
	mon_timer_fired(&v);
	assert_false(fired());
}

static void test_leading_page(void **state)
{
	const uint64_t now = 1000000000;

	(void)state;
	/* The page says it is time; the backend's clock has LAG to go and is not asked. */
	setup(now + LAG, now);
	assert_int_equal(set_timer(now + 1000).status, KEEL_OK);
	assert_true(fired());
	assert_int_equal(arms, 0);
}

static void test_disarm(void **state)
{
	(void)state;
	setup(5000, 5000);
	assert_int_equal(set_timer(9000).status, KEEL_OK);
	assert_int_equal(set_timer(KEEL_TIME_NEVER).status, KEEL_OK);
	assert_true(armed == KEEL_TIME_NEVER);
	clock_page.base_ns = 20000;
	mon_timer_fired(&v);
	assert_false(fired());
	v.timer_port = 0;
	assert_int_equal(set_timer(30000).status, KEEL_STATUS(KEEL_E_STATE, 0));
}

static void test_wait(void **state)
{
	const uint64_t now = 1000000000, a[5] = { now + 5000 };
	mret r;

	(void)state;
	/* Never TIMEDOUT before the deadline by the page, and not by asking over and over. */
	setup(now, now + LAG);
	r = mon_vcpu_wait(&v, a);
	assert_int_equal(r.status, KEEL_STATUS(KEEL_E_TIMEDOUT, 0));
	assert_true(clock_page.base_ns >= now + 5000);
	assert_true(waits <= 3);
	/* Something pending ends it whatever the clocks say. */
	setup(now, now);
	mon_send(&v, &v, PORT_BIT);
	page.pending = 2;
	r = mon_vcpu_wait(&v, a);
	assert_int_equal(r.status, KEEL_OK);
	assert_int_equal(waits, 0);
}

const struct CMUnitTest timer_tests[] = {
	cmocka_unit_test(test_lagging_page),
	cmocka_unit_test(test_leading_page),
	cmocka_unit_test(test_disarm),
	cmocka_unit_test(test_wait),
};
DEFINE_TESTS(timer);
