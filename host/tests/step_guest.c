// SPDX-License-Identifier: MIT
/*
 * The guest of step.c: rounds of calls, traps and upcalls (step_round.S) with
 * interrupts on, and nothing else. Without a tracer it runs on for ever.
 */
#include <hypercall/guest.h>

#include "step.h"

KEEL_IMAGE_NOTES(KEEL_NEEDS(BASE) | KEEL_NEEDS(TRAP) | KEEL_NEEDS(EVENT) | KEEL_NEEDS(CONSOLE), 0);

struct step_state step_state;

/* Read and written by step_round(). */
keel_u64 step_pattern[16][4] __attribute__((aligned(64))), step_seen[16][4] __attribute__((aligned(64)));
extern keel_u32 step_mxcsr, step_mxcsr_seen;
extern keel_u16 step_fcw, step_fcw_seen;
extern keel_u64 step_bad;
keel_u32 step_avx, step_port;
void step_round(void);

static void on_trap(struct keel_frame *f)
{
	if (f->vector == KEEL_VEC_UD)
		f->rip += 2;
	else if (f->vector != KEEL_VEC_BP) /* nobody traces us yet */
		keel_panic("trap %u at %#lx", f->vector, (unsigned long)f->rip);
}

static void count(void *arg, keel_u32 bit)
{
	(void)bit;
	++*(uint64_t *)arg;
}

static keel_u32 port(uint64_t *counter)
{
	keel_u32 p = (keel_u32)keel_must(keel_event_alloc(0));

	keel_event_handler(KEEL_PORT_BIT(p), count, counter);
	keel_must(keel_event_unmask(keel_port(p)));
	return p;
}

static bool same(void)
{
	const unsigned int words = step_avx ? 4 : 2;

	for (unsigned int i = 0; i < 16; i++)
		for (unsigned int k = 0; k < words; k++)
			if (step_pattern[i][k] != step_seen[i][k])
				return false;
	return true;
}

int keel_main(const struct keel_start *start)
{
	const struct keel_chunk *c = keel_start_find(start, KEEL_CHUNK_CPU, NULL);
	const struct keel_cpu_info *cpu = c ? keel_chunk_data(c) : NULL;
	struct step_state *s = &step_state;

	step_avx = cpu && cpu->xfeatures & 4;
	for (unsigned int i = 0; i < 64; i++)
		step_pattern[i / 4][i % 4] = 0x3ff0a5a500000000 + i;
	keel_assert(!keel_trap_handler(on_trap));
	keel_assert(!keel_event_init());
	step_port = port(&s->own);
	s->bit = KEEL_PORT_BIT(port(&s->taken));
	s->vcpu = (uint64_t)keel_vcpu_page();
	keel_puts("ready");
	keel_irq_enable();
	while (!*(volatile uint32_t *)&s->stop) {
		step_round();
		s->rounds++;
		s->bad = step_bad;
		if (!s->bad && !same())
			s->bad = 0x701;
		if (!s->bad && (step_mxcsr_seen != step_mxcsr || step_fcw_seen != step_fcw))
			s->bad = 0x702;
		if (!s->bad && *(volatile uint64_t *)&s->own != s->rounds)
			s->bad = 0x703;
		if (!s->bad && !keel_irq_enabled())
			s->bad = 0x704;
	}
	return s->bad ? 1 : 0;
}
