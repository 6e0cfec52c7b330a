// SPDX-License-Identifier: MIT
/*
 * The machine of an HVM partition: as much of a PC as an unmodified Linux wants to
 * boot through PVH and to power off. Interrupt controllers and timers are KVM's;
 * here are a serial port, the ACPI power registers, ways to reset, Keel's CPUID
 * leaves and MSRs. Ports and addresses without a device read as ones, as on a bus.
 */
#include "hvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "../../console.h"
#include "../../hvmboot.h"
#include "../../log.h"

#define KVM_SIGNATURE_LEAF 0x40000000u
#define KEEL_LEAF (KVM_SIGNATURE_LEAF + KEEL_CPUID_STEP)

#define MSI_NMI 0x400 /* delivery mode */

#define MSR_MTRR_DEFAULT 0x2ff
#define MTRR_ENABLED_WRITE_BACK 0x806

void hvm_line(struct hvm *h, unsigned int gsi, bool level)
{
	struct kvm_irq_level irq = { .irq = gsi, .level = level };

	ioctl(h->k->vm_fd, KVM_IRQ_LINE, &irq);
}

static enum kvm_next end(struct hvm *h, enum outcome_kind kind)
{
	struct outcome o = { .kind = kind };

	partition_end(h->k->p, &o);
	return KVM_NEXT_END;
}

/* The serial port, wired to the partition's console */

static size_t receive(void *to, const uint8_t *bytes, size_t n)
{
	return serial_receive(to, bytes, n);
}

static void serial_line(void *to, bool level)
{
	hvm_line(to, HVM_SERIAL_GSI, level);
}

static void serial_transmit(void *to, uint8_t byte)
{
	struct hvm *h = to;
	uint64_t word = byte;

	console_write(h->k->p->console, &word, 1);
}

static void serial_room(void *to)
{
	struct hvm *h = to;

	/* The first time it is news that somebody listens; later it is that there is room. Input waits in the console. */
	console_receiver(h->k->p->console, receive, &h->serial);
}

static const struct serial_ops serial_ops = { serial_line, serial_transmit, serial_room };

static uint8_t serial_in(struct hvm *h, unsigned int reg)
{
	return serial_read(&h->serial, reg);
}

static enum kvm_next serial_out(struct hvm *h, unsigned int reg, uint8_t v)
{
	serial_write(&h->serial, reg, v);
	return KVM_NEXT_RUN;
}

/* ACPI PM1a: status and enable, of which nothing ever happens, and control, whose one command is to power off. */

#define PM_SCI_ENABLED 0x01 /* byte 0 of control: there is no other mode */
#define PM_SLEEP 0x20	    /* byte 1 */
#define PM_SLEEP_TYPE(v) ((v) >> 2 & 7)

static uint8_t pm_in(struct hvm *h, unsigned int reg)
{
	return h->pm[reg];
}

static enum kvm_next pm_out(struct hvm *h, unsigned int reg, uint8_t v)
{
	if (reg < 2) /* status: ones clear what is never set */
		return KVM_NEXT_RUN;
	if (reg == HVM_PM_CONTROL + 1 && v & PM_SLEEP && PM_SLEEP_TYPE(v) == HVM_PM_SLEEP_TYPE_OFF)
		return end(h, OUTCOME_POWEROFF);
	h->pm[reg] = reg == HVM_PM_CONTROL ? v | PM_SCI_ENABLED : reg > HVM_PM_CONTROL ? v & ~PM_SLEEP : v;
	return KVM_NEXT_RUN;
}

/* Ways to reset a PC */

#define KBD_COMMAND_RESET 0xfe
/*
 * The keyboard controller that is not there: its output is never empty, so that who
 * looks for one gives up at once, and it takes commands, so that who resets by it
 * does not wait.
 */
#define KBD_STATUS 0x01

static uint8_t kbd_in(struct hvm *h, unsigned int reg)
{
	(void)h, (void)reg;
	return KBD_STATUS;
}

static enum kvm_next kbd_out(struct hvm *h, unsigned int reg, uint8_t v)
{
	(void)reg;
	return v == KBD_COMMAND_RESET ? end(h, OUTCOME_RESTART) : KVM_NEXT_RUN;
}

static enum kvm_next reset_out(struct hvm *h, unsigned int reg, uint8_t v)
{
	(void)reg;
	return (v & HVM_RESET_VALUE) == HVM_RESET_VALUE ? end(h, OUTCOME_RESTART) : KVM_NEXT_RUN;
}

/* Ports: bytes, as on an ISA bus; wider accesses are several. */
static const struct ports {
	uint16_t first, count;
	uint8_t (*in)(struct hvm *h, unsigned int reg); /* NULL: ones */
	enum kvm_next (*out)(struct hvm *h, unsigned int reg, uint8_t v);
} ports[] = {
	{ 0x3f8, SERIAL_REGISTERS, serial_in, serial_out },
	{ HVM_PM_PORT, sizeof(((struct hvm *)0)->pm), pm_in, pm_out },
	{ 0x64, 1, kbd_in, kbd_out },
	{ HVM_RESET_PORT, 1, NULL, reset_out },
};

static enum kvm_next on_io(struct hvm *h)
{
	struct kvm_run *run = h->cpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	const bool out = run->io.direction == KVM_EXIT_IO_OUT;
	const struct ports *p = ports, *end = ports + sizeof(ports) / sizeof(ports[0]);
	enum kvm_next next = KVM_NEXT_RUN;

	if (run->io.port == HVM_GATE_PORT && out && run->io.size == 1 && run->io.count == 1 && h->gate)
		return hvm_call(h);
	/* An access belongs to the device it begins at: one to 0xcf8 asks for PCI, not for the reset at 0xcf9. */
	while (p < end && (run->io.port < p->first || run->io.port >= p->first + p->count))
		p++;
	for (uint32_t i = 0; i < run->io.count * run->io.size && next == KVM_NEXT_RUN; i++) {
		unsigned int reg = p < end ? run->io.port - p->first + i % run->io.size : 0;
		bool there = p < end && reg < p->count;

		if (!out)
			data[i] = there && p->in ? p->in(h, reg) : 0xff;
		else if (there)
			next = p->out(h, reg, data[i]);
	}
	return next;
}

static enum kvm_next on_mmio(struct hvm *h)
{
	struct kvm_run *run = h->cpu->run;

	if (!run->mmio.is_write)
		memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
	return KVM_NEXT_RUN;
}

static enum kvm_next on_rdmsr(struct hvm *h)
{
	uint64_t value = 0;

	h->cpu->run->msr.error = !hvm_rdmsr(h, h->cpu->run->msr.index, &value);
	h->cpu->run->msr.data = value;
	return KVM_NEXT_RUN;
}

static enum kvm_next on_wrmsr(struct hvm *h)
{
	h->cpu->run->msr.error = !hvm_wrmsr(h, h->cpu->run->msr.index, h->cpu->run->msr.data);
	return KVM_NEXT_RUN;
}

static const struct {
	uint32_t reason;
	enum kvm_next (*handle)(struct hvm *h);
} exits[] = {
	{ KVM_EXIT_IO, on_io },
	{ KVM_EXIT_MMIO, on_mmio },
	{ KVM_EXIT_X86_RDMSR, on_rdmsr },
	{ KVM_EXIT_X86_WRMSR, on_wrmsr },
};

static enum kvm_next hvm_exit(struct kvm_vcpu *c)
{
	struct hvm *h = c->k->own;

	h->last = c->run->s.regs.regs;
	for (size_t i = 0; i < sizeof(exits) / sizeof(exits[0]); i++)
		if (exits[i].reason == c->run->exit_reason)
			return exits[i].handle(h);
	return kvm_crash(c, "unexpected exit %u of the virtual machine", c->run->exit_reason);
}

/* Processor features */

/* Bits that do not come from what KVM supports, by leaf. */
static const struct {
	uint32_t leaf;
	struct {
		uint32_t keep, set;
	} reg[4]; /* eax ebx ecx edx */
} cpuid_edits[] = {
#define ALL            \
	{              \
		~0u, 0 \
	}
#define NONE         \
	{            \
		0, 0 \
	}
	/* one processor with APIC ID 0; TSC deadline, hypervisor; no HTT */
	{ 0x1, { ALL, { 0xffff, 1u << 16 }, { ~0u, 1u << 24 | 1u << 31 }, { ~(1u << 28), 0 } } },
	/* caches shared by one processor, one core */
	{ 0x4, { { 0x3fff, 0 }, ALL, ALL, ALL } },
	{ 0x8000001d, { { 0x3fff, 0 }, ALL, ALL, ALL } },
	/* no topology beyond that, no performance counters */
	{ 0xa, { NONE, NONE, NONE, NONE } },
	{ 0xb, { NONE, NONE, { 0xff, 0 }, NONE } },
	{ 0x1f, { NONE, NONE, { 0xff, 0 }, NONE } },
	{ 0x80000001, { ALL, ALL, { ~(1u << 22 | 1u << 23 | 1u << 28), 0 }, ALL } },
	{ 0x80000008, { ALL, ALL, { ~0xf0ffu, 0 }, ALL } },
	{ 0x8000001e, { NONE, { ~0xffffu, 0 }, { ~0x7ffu, 0 }, ALL } },
#undef ALL
#undef NONE
};

static void edit(struct kvm_cpuid_entry2 *c)
{
	uint32_t *reg[4] = { &c->eax, &c->ebx, &c->ecx, &c->edx };

	for (size_t i = 0; i < sizeof(cpuid_edits) / sizeof(cpuid_edits[0]); i++)
		for (unsigned int r = 0; r < 4 && cpuid_edits[i].leaf == c->function; r++)
			*reg[r] = (*reg[r] & cpuid_edits[i].reg[r].keep) | cpuid_edits[i].reg[r].set;
}

static void hvm_cpuid(struct kvm *k, struct kvm_cpuid2 *c, unsigned int max)
{
	const uint64_t features = hvm_offered();
	const struct kvm_cpuid_entry2 keel[KEEL_CPUID_LEAVES] = {
		[KEEL_CPUID_BASE] = { .eax = KEEL_LEAF + KEEL_CPUID_MSRS,
				      .ebx = KEEL_CPUID_SIGNATURE,
				      .ecx = KEEL_CPUID_SIGNATURE,
				      .edx = KEEL_CPUID_SIGNATURE },
		[KEEL_CPUID_VERSION] = { .eax = KEEL_ABI_MAJOR,
					 .ebx = KEEL_ABI_MINOR,
					 .ecx = KEEL_ABI_VERSION & 0xffff },
		[KEEL_CPUID_FEATURES] = { .eax = (uint32_t)features, .ebx = (uint32_t)(features >> 32) },
		[KEEL_CPUID_MSRS] = { .eax = KEEL_MSR_GATE, .ebx = KEEL_MSR_COUNT, .ecx = HVM_UPCALL_GSI },
	};

	(void)k;
	for (uint32_t i = 0; i < c->nent; i++)
		edit(&c->entries[i]);
	/* The empty ones too: what is missing, some processors answer with another leaf's values. */
	for (uint32_t i = 0; i < KEEL_CPUID_LEAVES && c->nent < max; i++) {
		c->entries[c->nent] = keel[i];
		c->entries[c->nent++].function = KEEL_LEAF + i;
	}
}

/* The machine */

/* PVH: 32-bit protected mode, flat segments, no paging, start info in ebx. */
static int set_registers(struct hvm *h)
{
	const struct kvm_segment data = {
		.limit = ~0u, .selector = 0x10, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1
	};
	struct kvm_segment code = data, task = { .limit = 0x67, .type = 11, .present = 1 };
	struct kvm_regs r = { .rip = h->k->p->entry, .rbx = HVM_START, .rflags = 2 };
	struct kvm_sregs s;

	code.selector = 0x08;
	code.type = 11;
	if (ioctl(h->cpu->fd, KVM_GET_SREGS, &s))
		return -errno;
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.tr = task;
	s.cr0 = 0x11; /* PE ET */
	s.cr3 = s.cr4 = s.efer = 0;
	if (ioctl(h->cpu->fd, KVM_SET_SREGS, &s) || ioctl(h->cpu->fd, KVM_SET_REGS, &r))
		return -errno;
	return 0;
}

/* Keel's MSRs leave the kernel for us; all others are KVM's. */
static int set_msrs(struct hvm *h)
{
	uint8_t none[(KEEL_MSR_LAST - KEEL_MSR_GATE + 1) / 8] = { 0 };
	struct kvm_enable_cap cap = { .cap = KVM_CAP_X86_USER_SPACE_MSR, .args = { KVM_MSR_EXIT_REASON_FILTER } };
	struct kvm_msr_filter filter = { .flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
					 .ranges = { { .flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
						       .nmsrs = KEEL_MSR_LAST - KEEL_MSR_GATE + 1,
						       .base = KEEL_MSR_GATE,
						       .bitmap = none } } };
	_Alignas(struct kvm_msrs) char room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)] = { 0 };
	struct kvm_msrs *mtrr = (struct kvm_msrs *)room;

	mtrr->nmsrs = 1;
	mtrr->entries[0] = (struct kvm_msr_entry){ .index = MSR_MTRR_DEFAULT, .data = MTRR_ENABLED_WRITE_BACK };
	/* Without firmware nobody else enables them; Linux then does without PAT. Not every KVM has them. */
	if (ioctl(h->cpu->fd, KVM_SET_MSRS, mtrr) != 1)
		host_verbose("kvm: memory types stay as they are");
	if (ioctl(h->k->vm_fd, KVM_ENABLE_CAP, &cap) || ioctl(h->k->vm_fd, KVM_X86_SET_MSR_FILTER, &filter))
		return -errno;
	return 0;
}

static int hvm_create(struct kvm *k)
{
	struct partition *p = k->p;
	struct hvm *h = calloc(1, sizeof(*h));
	int err;

	if (!h)
		return -ENOMEM;
	h->k = k;
	h->cpu = &k->vcpu[0];
	k->own = h;
	h->pm[HVM_PM_CONTROL] = PM_SCI_ENABLED;
	serial_init(&h->serial, &serial_ops, h);
	err = hvm_call_create(h);
	if (err)
		return err;
	err = kvm_slot(k, KVM_SLOT_RAM, 0, p->ram_size, p->ram, 0);
	if (!err)
		err = set_msrs(h);
	if (!err)
		err = set_registers(h);
	if (err)
		host_say("kvm: making the machine: %s", strerror(-err));
	h->cpu->run->kvm_valid_regs = KVM_SYNC_X86_REGS; /* hypercalls are answered in them */
	return err;
}

static void hvm_destroy(struct kvm *k)
{
	struct hvm *h = k->own;

	if (!h)
		return;
	if (k->p->console)
		console_receiver(k->p->console, NULL, NULL);
	hvm_call_destroy(h);
	serial_fini(&h->serial);
	free(h);
	k->own = NULL;
}

static void hvm_kick(struct kvm *k, unsigned int vcpu)
{
	(void)vcpu;
	hvm_upcall(k->own);
}

/* What a kernel knows as the button that asks for its state. Not by KVM_NMI, which waits for the vCPU to come out. */
static void hvm_dump(struct kvm *k, unsigned int vcpu)
{
	struct kvm_msi msi = { .address_lo = HVM_LAPIC, .data = MSI_NMI };

	(void)vcpu;
	ioctl(k->vm_fd, KVM_SIGNAL_MSI, &msi);
}

/* Reports see physical memory: whose page tables are valid only the guest knows. */
static bool hvm_next_mapping(struct kvm *k, uint64_t va, struct mapping *m)
{
	if (va >= k->p->ram_size)
		return false;
	*m = (struct mapping){ va, va, k->p->ram_size - va, KEEL_PROT_R | KEEL_PROT_W | KEEL_PROT_X };
	return true;
}

static bool hvm_snapshot(struct kvm *k, unsigned int vcpu, struct crash_info *c)
{
	struct hvm *h = k->own;

	monmem_snapshot(&h->mm, vcpu, c);
	c->have_regs = kvm_registers(h->cpu, &c->regs);
	if (!c->have_regs && h->last.rip) {
		/* A processor that kept nothing of a triple fault: where it was last seen. */
		kvm_frame(&h->last, &c->regs);
		c->have_regs = true;
	}
	return true;
}

static void hvm_stats(struct kvm *k, FILE *f)
{
	const struct hvm *h = k->own;

	fprintf(f, "hvm.calls %llu\n", (unsigned long long)h->calls);
	fprintf(f, "hvm.upcalls %llu\n", (unsigned long long)h->upcalls);
}

static unsigned int hvm_counters(struct kvm *k, struct keel_stats_entry *e, unsigned int max)
{
	return monmem_counters(&((struct hvm *)k->own)->mm, e, max);
}

const struct kvm_flavour kvm_hvm = {
	.full_irqchip = true,
	.max_vcpus = 1,
	.cpuid = hvm_cpuid,
	.create = hvm_create,
	.exit = hvm_exit,
	.kick = hvm_kick,
	.dump = hvm_dump,
	.destroy = hvm_destroy,
	.next_mapping = hvm_next_mapping,
	.snapshot = hvm_snapshot,
	.stats = hvm_stats,
	.counters = hvm_counters,
};
