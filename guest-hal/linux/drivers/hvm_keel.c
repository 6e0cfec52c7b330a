// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ABI for a kernel that owns its hardware: found by CPUID, the gate and the
 * vCPU's page named by MSRs, events told by an interrupt line of the machine's. What was
 * negotiated stays when the module goes: the next one has to do with it.
 */
#include <linux/acpi.h>
#include <linux/bitops.h>
#include <linux/export.h>
#include <linux/gfp.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/irq.h>
#include <linux/irqdomain.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/panic_notifier.h>
#include <linux/printk.h>
#include <linux/reboot.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#include <asm/asm.h>
#include <asm/msr.h>
#include <asm/processor.h>

#include <keel/hvm.h>
#include <hypercall/event.h>
#include <hypercall/status.h>

#include "keel_linux.h"

#define WANT(EXT) BIT_ULL(KEEL_EXT_##EXT)
#define WANTED (WANT(BASE) | WANT(EVENT) | WANT(TIME) | WANT(CONSOLE) | WANT(DEVICE) | WANT(CRASH) | WANT(STATS))
#define NEEDED (WANT(BASE) | WANT(EVENT))

/* Before ACPI's, which would do as well. */
#define POWER_OFF_PRIORITY (SYS_OFF_PRIO_FIRMWARE + 1)

static struct keel_vcpu *vcpu;
static struct irq_domain *domain;
static u32 gsi;
static int line; /* the GSI's interrupt; 0: none */
static char *last_words;
static struct sys_off_handler *off;
static bool has_console, has_time;

/* The gate uses the stack: there is no red zone in the kernel. */
struct keel_ret keel_gate(u64 a1, u64 a2, u64 a3, u64 a4, u64 a5, u64 id)
{
	register u64 r10 asm("r10") = a4;
	register u64 r8 asm("r8") = a5;
	struct keel_ret ret;

	asm volatile("call keel_gate_page"
		     : "=a"(ret.status), "=d"(ret.value), ASM_CALL_CONSTRAINT
		     : "0"(id), "D"(a1), "S"(a2), "1"(a3), "r"(r10), "r"(r8)
		     : "rcx", "r11", "memory", "cc");
	return ret;
}
EXPORT_SYMBOL_GPL(keel_gate);

keel_gpa_t keel_gpa_of(const void *p)
{
	return keel_gpa(virt_to_phys((void *)p));
}
EXPORT_SYMBOL_GPL(keel_gpa_of);

/* Discovery */

static bool is_ours(u32 leaf)
{
	u32 last, b, c, d;

	cpuid(leaf, &last, &b, &c, &d);
	return b == KEEL_CPUID_SIGNATURE && c == KEEL_CPUID_SIGNATURE && d == KEEL_CPUID_SIGNATURE &&
	       last >= leaf + KEEL_CPUID_MSRS;
}

/* The leaf, or 0. */
static u32 find(void)
{
	u32 leaf;

	if (!boot_cpu_has(X86_FEATURE_HYPERVISOR))
		return 0;
	for (leaf = KEEL_CPUID_FIRST; leaf <= KEEL_CPUID_LAST; leaf += KEEL_CPUID_STEP) {
		if (is_ours(leaf))
			return leaf;
	}
	return 0;
}

static int open_gate(u32 leaf)
{
	u32 msr, count, upcall_gsi, zero;
	u64 gpa = (u64)vmalloc_to_pfn(keel_gate_page) << PAGE_SHIFT;

	cpuid(leaf + KEEL_CPUID_MSRS, &msr, &count, &upcall_gsi, &zero);
	if (msr != KEEL_MSR_GATE || count < KEEL_MSR_COUNT)
		return -ENODEV;
	gsi = upcall_gsi;
	return wrmsrl_safe(KEEL_MSR_GATE, gpa | KEEL_MSR_ENABLE);
}

static int negotiate(void)
{
	struct keel_ret offered = keel_base_features(0), ret;
	int err = keel_errno(offered);

	if (err)
		return err;
	if (~offered.value & NEEDED)
		return -EOPNOTSUPP;
	ret = keel_base_accept(0, offered.value & WANTED);
	/* It has been done before; what came of it is what there is. */
	if (ret.status && KEEL_STATUS_CODE(ret.status) == KEEL_E_STATE)
		return keel_accepted(KEEL_EXT_BASE) && keel_accepted(KEEL_EXT_EVENT) ? 0 : -EOPNOTSUPP;
	err = keel_errno(ret);
	return err ?: keel_errno(keel_base_freeze());
}

/* Events */

int keel_irq_map(u32 bit)
{
	int irq = irq_create_mapping(domain, bit);

	return irq ?: -ENOSPC;
}

void keel_irq_unmap(int irq, u32 bit)
{
	irq_dispose_mapping(irq);
}

/* There may be nothing pending: that is not for the kernel to count. */
static irqreturn_t upcall(int irq, void *unused)
{
	int bit;

	while ((bit = keel_ev_next(keel_share(vcpu))) >= 0)
		generic_handle_domain_irq(domain, bit);
	return IRQ_HANDLED;
}

/* Chip and handler are given by whoever asks for a number: see irq_keel.c. */
static const struct irq_domain_ops domain_ops = {};

static void leave_events(void)
{
	wrmsrl_safe(KEEL_MSR_UPCALL, 0);
	wrmsrl_safe(KEEL_MSR_VCPU, 0);
	if (line > 0) {
		free_irq(line, &line);
		acpi_unregister_gsi(gsi);
	}
	if (domain)
		irq_domain_remove(domain);
	free_page((unsigned long)vcpu);
}

static int get_line(void)
{
	int irq = acpi_register_gsi(NULL, gsi, ACPI_EDGE_SENSITIVE, ACPI_ACTIVE_HIGH), err;

	if (irq < 0)
		return irq;
	err = request_irq(irq, upcall, IRQF_NO_THREAD | IRQF_NOBALANCING, "keel", &line);
	if (err)
		acpi_unregister_gsi(gsi);
	else
		line = irq;
	return err;
}

static int take_events(void)
{
	int err = -ENOMEM;

	vcpu = (struct keel_vcpu *)get_zeroed_page(GFP_KERNEL);
	domain = irq_domain_create_tree(NULL, &domain_ops, NULL);
	if (vcpu && domain)
		err = get_line();
	err = err ?: wrmsrl_safe(KEEL_MSR_VCPU, virt_to_phys(vcpu) | KEEL_MSR_ENABLE);
	err = err ?: wrmsrl_safe(KEEL_MSR_UPCALL, KEEL_UPCALL_GSI);
	if (err)
		leave_events();
	return err;
}

/* The ways out. A restart is the machine's: Linux asks nobody else on x86. */

static int power_off(struct sys_off_data *unused)
{
	keel_base_shutdown(KEEL_SHUTDOWN_POWEROFF, 0);
	return NOTIFY_DONE;
}

static int crash(struct notifier_block *self, unsigned long event, void *message)
{
	strscpy(last_words, message, KEEL_CRASH_MESSAGE_MAX);
	keel_crash(KEEL_CRASH_PANIC, keel_gpa_of(last_words), strlen(last_words), 0, 0);
	return NOTIFY_DONE;
}

/* Behind the others, which may have something to say. */
static struct notifier_block panic_block = {
	.notifier_call = crash,
	.priority = INT_MIN,
};

static void take_ends(void)
{
	last_words = keel_accepted(KEEL_EXT_CRASH) ? kmalloc(KEEL_CRASH_MESSAGE_MAX, GFP_KERNEL) : NULL;
	if (last_words)
		atomic_notifier_chain_register(&panic_notifier_list, &panic_block);
	off = register_sys_off_handler(SYS_OFF_MODE_POWER_OFF, POWER_OFF_PRIORITY, power_off, NULL);
	if (IS_ERR(off))
		pr_warn("keel: power-off is left to ACPI\n");
}

static void leave_ends(void)
{
	unregister_sys_off_handler(off);
	if (last_words)
		atomic_notifier_chain_unregister(&panic_notifier_list, &panic_block);
	kfree(last_words);
}

static int start(u32 leaf)
{
	int err = open_gate(leaf);

	err = err ?: negotiate();
	err = err ?: take_events();
	if (err)
		wrmsrl_safe(KEEL_MSR_GATE, 0);
	return err;
}

static int __init keel_init(void)
{
	u32 leaf = find(), major, minor, candidate, zero;
	int err;

	if (!leaf)
		return -ENODEV;
	if (num_present_cpus() > 1) {
		pr_err("keel: not made for more than one processor\n");
		return -EOPNOTSUPP;
	}
	cpuid(leaf + KEEL_CPUID_VERSION, &major, &minor, &candidate, &zero);
	if (major != KEEL_ABI_MAJOR) {
		pr_err("keel: the host's ABI is %u.%u\n", major, minor);
		return -EOPNOTSUPP;
	}
	err = start(leaf);
	if (err) {
		pr_err("keel: the ABI cannot be used: %d\n", err);
		return err;
	}
	pr_info("keel: ABI %u.%u, leaf %#x, upcalls by GSI %u\n", major, minor, leaf, gsi);
	take_ends();
	err = keel_hvc_init();
	has_console = !err;
	if (err)
		pr_warn("keel: no console: %d\n", err);
	err = keel_time_init();
	has_time = !err;
	if (err)
		pr_warn("keel: no clocksource: %d\n", err);
	return 0;
}
module_init(keel_init);

/* Ports are closed while the vCPU still has its page; the gate goes last. */
static void __exit keel_exit(void)
{
	if (has_time)
		keel_time_exit();
	if (has_console)
		keel_hvc_exit();
	leave_ends();
	leave_events();
	wrmsrl_safe(KEEL_MSR_GATE, 0);
}
module_exit(keel_exit);

MODULE_DESCRIPTION("Keel hypercall ABI: gate, events, console, time, ends");
MODULE_LICENSE("GPL");
