// SPDX-License-Identifier: MIT
/*
 * The kvm backend: the virtual machine, its vCPUs' threads, and what is known of it
 * afterwards. What is inside the machine is the flavours' business (kvm.h).
 *
 * Each vCPU has a thread of its own, so that every register access but those before
 * its start and after its end happens there. It is stopped by a signal with an empty
 * handler: KVM_RUN returns, and immediate_exit keeps it from being entered again.
 * A vCPU that does not run is a thread that sleeps in kvm_park().
 */
#include "kvm.h"
#include "kvm_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../../log.h"
#include "../../seal.h"
#include "../../startinfo.h"

#define READY_TIMEOUT_S 60 /* a KVM that interprets is slow */
#define STOP_RETRY_US 200
#define CPUID_MAX 256

/* Three pages KVM needs for real mode on old processors, and one for its identity map; below the LAPIC. */
#define TSS_GPA 0xfeffd000
#define IDENTITY_GPA 0xfeffc000

#define CPUID1_ECX_VMX (1u << 5)
#define CPUID1_ECX_X2APIC (1u << 21)
#define CPUID1_ECX_TSC_DEADLINE (1u << 24)
#define CPUID1_ECX_XSAVE (1u << 26)
#define CPUID80000001_ECX_SVM (1u << 2)
#define CPUID7_EDX_AMX (1u << 22 | 1u << 24 | 1u << 25)
#define XFEATURES_AMX (3u << 17) /* asks the kernel for permission first */

static long futex(uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

static uint32_t state(const struct kvm *k)
{
	return __atomic_load_n(&k->state, __ATOMIC_SEQ_CST);
}

static void set_state(struct kvm *k, uint32_t s)
{
	__atomic_store_n(&k->state, s, __ATOMIC_SEQ_CST);
	futex(&k->state, FUTEX_WAKE, INT32_MAX, NULL);
}

static bool stopping(const struct kvm *k)
{
	return __atomic_load_n(&k->stopping, __ATOMIC_SEQ_CST);
}

/* Until the partition runs; from then on the thread is one that runs guest code. */
static bool wait_for_start(struct kvm_vcpu *c)
{
	uint32_t s;
	int err;

	while ((s = state(c->k)) < KVM_RUNNING)
		futex(&c->k->state, FUTEX_WAIT, s, NULL);
	if (s != KVM_RUNNING)
		return false;
	err = seal_vcpu();
	if (err)
		kvm_crash(c, "filtering the vCPU's thread: %s", strerror(-err));
	return !err;
}

bool kvm_ready(struct kvm_vcpu *c, int err)
{
	c->k->ready_err = err;
	set_state(c->k, KVM_READY);
	return wait_for_start(c);
}

bool kvm_park(struct kvm_vcpu *c)
{
	while (!__atomic_exchange_n(&c->go, 0, __ATOMIC_SEQ_CST))
		futex(&c->go, FUTEX_WAIT, 0, NULL);
	return !stopping(c->k);
}

static void go(struct kvm_vcpu *c)
{
	__atomic_store_n(&c->go, 1, __ATOMIC_SEQ_CST);
	futex(&c->go, FUTEX_WAKE, 1, NULL);
}

int kvm_slot(struct kvm *k, enum kvm_slot slot, uint64_t gpa, uint64_t len, void *host, uint32_t flags)
{
	struct kvm_userspace_memory_region r = { .slot = slot,
						 .flags = flags,
						 .guest_phys_addr = gpa,
						 .memory_size = len,
						 .userspace_addr = (uint64_t)host };

	return ioctl(k->vm_fd, KVM_SET_USER_MEMORY_REGION, &r) ? -errno : 0;
}

const struct kvm_cpuid_entry2 *kvm_cpuid_find(const struct kvm *k, uint32_t leaf, uint32_t sub)
{
	for (unsigned int i = 0; i < k->cpuid->nent; i++)
		if (k->cpuid->entries[i].function == leaf && k->cpuid->entries[i].index == sub)
			return &k->cpuid->entries[i];
	return NULL;
}

/* Where it is, and how it ended */

void kvm_frame(const struct kvm_regs *r, struct keel_frame *f)
{
	*f = (struct keel_frame){ .rip = r->rip,
				  .rsp = r->rsp,
				  .rflags = r->rflags,
				  .rax = r->rax,
				  .rbx = r->rbx,
				  .rcx = r->rcx,
				  .rdx = r->rdx,
				  .rsi = r->rsi,
				  .rdi = r->rdi,
				  .rbp = r->rbp,
				  .r8 = r->r8,
				  .r9 = r->r9,
				  .r10 = r->r10,
				  .r11 = r->r11,
				  .r12 = r->r12,
				  .r13 = r->r13,
				  .r14 = r->r14,
				  .r15 = r->r15 };
}

bool kvm_registers(struct kvm_vcpu *c, struct keel_frame *f)
{
	struct kvm_sregs s;
	struct kvm_regs r;

	memset(f, 0, sizeof(*f));
	if (ioctl(c->fd, KVM_GET_REGS, &r) || ioctl(c->fd, KVM_GET_SREGS, &s))
		return false;
	/* Where a reset leaves it, as SVM does with a triple fault: nothing of the guest's is left. */
	if (r.rip == 0xfff0 && s.cs.base == 0xffff0000)
		return false;
	kvm_frame(&r, f);
	f->addr = s.cr2;
	f->mode = s.cs.selector & 3 ? KEEL_MODE_USER : KEEL_MODE_KERNEL;
	return true;
}

enum kvm_next kvm_crash(struct kvm_vcpu *c, const char *fmt, ...)
{
	struct outcome o = { .kind = OUTCOME_CRASH };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(o.crash.reason, sizeof(o.crash.reason), fmt, ap);
	va_end(ap);
	o.crash.have_regs = kvm_registers(c, &o.crash.regs);
	partition_end(c->k->p, &o);
	return KVM_NEXT_END;
}

static enum kvm_next on_shutdown(struct kvm_vcpu *c)
{
	struct keel_frame f;

	if (!kvm_registers(c, &f))
		return kvm_crash(c, "triple fault; this processor keeps no registers of it: the last known follow");
	return kvm_crash(c, "triple fault at %#llx, address %#llx", (unsigned long long)f.rip,
			 (unsigned long long)f.addr);
}

static enum kvm_next on_fail_entry(struct kvm_vcpu *c)
{
	return kvm_crash(c, "the processor refused the guest's state (reason %#llx)",
			 (unsigned long long)c->run->fail_entry.hardware_entry_failure_reason);
}

static enum kvm_next on_internal_error(struct kvm_vcpu *c)
{
	uint32_t why = c->run->internal.suberror;

	return kvm_crash(c, "KVM could not go on: %s (%u)",
			 why == KVM_INTERNAL_ERROR_EMULATION	 ? "an instruction it cannot emulate"
			 : why == KVM_INTERNAL_ERROR_DELIVERY_EV ? "an event it could not deliver"
								 : "internal error",
			 why);
}

/* What ends every machine alike; the rest is the flavour's. */
static const struct {
	uint32_t reason;
	enum kvm_next (*handle)(struct kvm_vcpu *c);
} endings[] = {
	{ KVM_EXIT_SHUTDOWN, on_shutdown },
	{ KVM_EXIT_FAIL_ENTRY, on_fail_entry },
	{ KVM_EXIT_INTERNAL_ERROR, on_internal_error },
};

static enum kvm_next handle_exit(struct kvm_vcpu *c)
{
	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++)
		if (endings[i].reason == c->run->exit_reason)
			return endings[i].handle(c);
	return c->k->flavour->exit(c);
}

static void *vcpu_thread(void *arg)
{
	struct kvm_vcpu *c = arg;
	struct kvm *k = c->k;
	char name[16];
	enum kvm_next next = KVM_NEXT_RUN;
	uint32_t starting = KVM_STARTING;

	snprintf(name, sizeof(name), "vcpu%u", c->id); /* in lists of threads, and in traces */
	pthread_setname_np(pthread_self(), name);
	if (c->id ? !wait_for_start(c) || !kvm_park(c) : !k->flavour->boots && !kvm_ready(c, 0))
		return NULL;
	while (next == KVM_NEXT_RUN && !stopping(k)) {
		if (!ioctl(c->fd, KVM_RUN, 0)) {
			c->exits++;
			next = handle_exit(c);
		} else if (errno != EINTR && errno != EAGAIN) {
			next = kvm_crash(c,
					 errno == EFAULT || errno == ENOMEM
						 ? "the host has no memory left for a page of the guest (%s)"
						 : "running the guest: %s",
					 strerror(errno));
		}
	}
	/* It ended before it was built: nobody waits any longer. */
	if (__atomic_compare_exchange_n(&k->state, &starting, KVM_ENDED, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		futex(&k->state, FUTEX_WAKE, INT32_MAX, NULL);
	return NULL;
}

/* Only there to make KVM_RUN return. */
static void on_signal(int sig)
{
	(void)sig;
}

/* Building */

static int failed(const char *what)
{
	int err = -errno;

	host_say("kvm: %s: %s", what, strerror(errno));
	return err;
}

/* For all machines of this process: once it is sealed it opens nothing. */
static struct {
	int fd, err;
} device = { .fd = -1, .err = ENODEV };

static int kvm_prepare(void)
{
	device.fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	device.err = errno;
	return device.fd < 0 ? -device.err : 0;
}

static int make_vm(struct kvm *k)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP };
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	struct kvm_enable_cap no_pmu = { .cap = KVM_CAP_PMU_CAPABILITY, .args = { KVM_PMU_CAP_DISABLE } };
	uint64_t identity = IDENTITY_GPA;

	if (device.fd < 0) {
		errno = device.err;
		return failed("/dev/kvm");
	}
	k->kvm_fd = device.fd;
	if (ioctl(k->kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
		errno = EPROTO;
		return failed("the version of /dev/kvm");
	}
	for (unsigned int i = 0; i < kvm_probe_cap_count; i++)
		if (kvm_probe_caps[i].needed && ioctl(k->kvm_fd, KVM_CHECK_EXTENSION, kvm_probe_caps[i].cap) <= 0) {
			host_say("kvm: /dev/kvm lacks KVM_CAP_%s", kvm_probe_caps[i].name);
			return -ENODEV;
		}
	do
		k->vm_fd = ioctl(k->kvm_fd, KVM_CREATE_VM, 0);
	while (k->vm_fd < 0 && errno == EINTR);
	if (k->vm_fd < 0)
		return failed("making a virtual machine");
	/* Performance counters are the host's to hand out, and it does not. Older kernels hide them by CPUID only. */
	if (ioctl(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_PMU_CAPABILITY) & KVM_PMU_CAP_DISABLE &&
	    ioctl(k->vm_fd, KVM_ENABLE_CAP, &no_pmu))
		return failed("taking the performance counters out");
	if (ioctl(k->vm_fd, KVM_SET_TSS_ADDR, TSS_GPA) || ioctl(k->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity))
		return failed("preparing the virtual machine");
	if (k->flavour->full_irqchip ? ioctl(k->vm_fd, KVM_CREATE_IRQCHIP, 0) || ioctl(k->vm_fd, KVM_CREATE_PIT2, &pit)
				     : ioctl(k->vm_fd, KVM_ENABLE_CAP, &split))
		return failed("making the interrupt controller");
	return 0;
}

/* The features KVM supports, without what version 1 leaves out. */
static int find_cpuid(struct kvm *k)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + CPUID_MAX * sizeof(c->entries[0]));
	bool xsave = false;

	if (!c)
		return -ENOMEM;
	k->cpuid = c;
	c->nent = CPUID_MAX;
	if (ioctl(k->kvm_fd, KVM_GET_SUPPORTED_CPUID, c))
		return failed("asking for processor features");
	k->xfeatures = 0;
	for (unsigned int i = 0; i < c->nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[i];

		if (e->function == 1) {
			e->ecx |= CPUID1_ECX_X2APIC | CPUID1_ECX_TSC_DEADLINE;
			e->ecx &= ~CPUID1_ECX_VMX; /* no machines inside: KVM's largest surface */
			xsave = e->ecx & CPUID1_ECX_XSAVE;
		} else if (e->function == 0x80000001) {
			e->ecx &= ~CPUID80000001_ECX_SVM;
		} else if (e->function == 7 && !e->index) {
			e->edx &= ~CPUID7_EDX_AMX;
		} else if (e->function == 0xd && !e->index) {
			e->eax &= k->flavour->full_irqchip ? ~XFEATURES_AMX : STARTINFO_XFEATURES;
			e->edx = 0;
			k->xfeatures = e->eax | 3;
		} else if (e->function == 0xa) {
			e->eax = e->ebx = e->ecx = e->edx = 0;
		}
	}
	if (!xsave)
		k->xfeatures = 0;
	if (k->flavour->cpuid)
		k->flavour->cpuid(k, c, CPUID_MAX);
	return 0;
}

/* The leaves in which a processor finds its own LAPIC's id: it is the vCPU's number. */
static void set_lapic_id(struct kvm_cpuid_entry2 *e, unsigned int id)
{
	if (e->function == 1)
		e->ebx = (e->ebx & 0x00ffffff) | id << 24;
	else if (e->function == 0xb || e->function == 0x1f)
		e->edx = id;
	else if (e->function == 0x8000001e)
		e->eax = id;
}

static int set_cpuid(struct kvm_vcpu *c)
{
	struct kvm *k = c->k;
	struct kvm_xcrs xcrs = { .nr_xcrs = 1 };

	for (unsigned int i = 0; i < k->cpuid->nent; i++)
		set_lapic_id(&k->cpuid->entries[i], c->id);
	if (ioctl(c->fd, KVM_SET_CPUID2, k->cpuid))
		return failed("setting processor features");
	xcrs.xcrs[0].value = k->flavour->full_irqchip ? 1 : k->xfeatures;
	if (k->xfeatures && ioctl(c->fd, KVM_SET_XCRS, &xcrs))
		return failed("setting XCR0");
	return 0;
}

/* The guest's TSC is the host's, which is what the clock page is about. */
static void set_tsc(struct kvm_vcpu *c)
{
	struct partition *p = c->k->p;
	uint64_t zero = 0;
	const struct kvm_device_attr offset = { .group = KVM_VCPU_TSC_CTRL,
						.attr = KVM_VCPU_TSC_OFFSET,
						.addr = (uint64_t)&zero };

	if (ioctl(c->fd, KVM_SET_DEVICE_ATTR, &offset)) {
		host_verbose("kvm: this kernel cannot give the guest the host's TSC, so the clock page stays invalid");
		clock_invalidate(&p->clock);
		p->offered[1] &= ~(KEEL_U64(1) << KEEL_F1_CLOCK_PAGE);
	}
}

/* All but the first wait for INIT in KVM's eyes; here it is the host that starts them, at a place it knows. */
static int set_runnable(const struct kvm_vcpu *c)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };

	return c->id && ioctl(c->fd, KVM_SET_MP_STATE, &runnable) ? failed("making a vCPU runnable") : 0;
}

static int make_vcpu(struct kvm_vcpu *c)
{
	struct kvm *k = c->k;
	int err;

	c->fd = ioctl(k->vm_fd, KVM_CREATE_VCPU, c->id);
	if (c->fd < 0)
		return failed("making a vCPU");
	c->run = mmap(NULL, k->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (c->run == MAP_FAILED) {
		c->run = NULL;
		return failed("mapping a vCPU");
	}
	err = set_cpuid(c);
	if (!err)
		err = set_runnable(c);
	if (err)
		return err;
	set_tsc(c);
	if (ioctl(k->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_BINARY_STATS_FD) > 0)
		c->stats_fd = ioctl(c->fd, KVM_GET_STATS_FD, 0);
	return 0;
}

static int make_vcpus(struct kvm *k)
{
	int size = ioctl(k->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	int err = find_cpuid(k);

	k->run_size = size > 0 ? (size_t)size : 0;
	/* The first one last: what is left in k->cpuid is what it sees. */
	for (unsigned int i = k->vcpus; !err && i--;)
		err = make_vcpu(&k->vcpu[i]);
	if (!err && ioctl(k->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_BINARY_STATS_FD) > 0)
		k->stats_fd = ioctl(k->vm_fd, KVM_GET_STATS_FD, 0);
	return err;
}

static int start_threads(struct kvm *k)
{
	const struct sigaction sa = { .sa_handler = on_signal };
	const struct timespec left = { READY_TIMEOUT_S, 0 };

	sigaction(SIGRTMIN, &sa, NULL);
	for (unsigned int i = 0; i < k->vcpus; i++) {
		if (pthread_create(&k->vcpu[i].thread, NULL, vcpu_thread, &k->vcpu[i])) {
			errno = EAGAIN;
			return failed("starting a thread");
		}
		k->vcpu[i].threaded = true;
	}
	while (state(k) == KVM_STARTING)
		if (futex(&k->state, FUTEX_WAIT, KVM_STARTING, &left) && errno == ETIMEDOUT)
			return failed("building the guest");
	if (state(k) == KVM_ENDED) {
		host_say("kvm: the guest could not be built: %s", k->p->outcome.crash.reason);
		return -EIO;
	}
	return k->ready_err;
}

static void join(struct kvm_vcpu *c)
{
	if (!c->threaded)
		return;
	/* A signal that arrives just before KVM_RUN looks at immediate_exit is not lost: KVM_RUN sees the flag. */
	while (pthread_tryjoin_np(c->thread, NULL) == EBUSY) {
		pthread_kill(c->thread, SIGRTMIN);
		usleep(STOP_RETRY_US);
	}
	c->threaded = false;
}

static void kvm_stop(struct partition *p)
{
	struct kvm *k = p->backend;

	__atomic_store_n(&k->stopping, true, __ATOMIC_SEQ_CST);
	set_state(k, KVM_ENDED);
	for (unsigned int i = 0; i < k->vcpus; i++) {
		struct kvm_vcpu *c = &k->vcpu[i];

		if (c->run)
			__atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		go(c);
	}
	for (unsigned int i = 0; i < k->vcpus; i++)
		join(&k->vcpu[i]);
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void kvm_destroy(struct partition *p)
{
	struct kvm *k = p->backend;

	kvm_stop(p);
	if (k->flavour->destroy)
		k->flavour->destroy(k);
	for (unsigned int i = 0; i < k->vcpus; i++) {
		struct kvm_vcpu *c = &k->vcpu[i];

		if (c->run)
			munmap(c->run, k->run_size);
		close_fd(c->stats_fd);
		close_fd(c->fd);
	}
	close_fd(k->stats_fd);
	close_fd(k->vm_fd);
	free(k->cpuid);
	free(k);
	p->backend = NULL;
}

static int kvm_create(struct partition *p)
{
	const struct kvm_flavour *flavour = p->opt->hvm ? &kvm_hvm : &kvm_pv;
	struct kvm *k;
	int err;

	if (p->vcpus > flavour->max_vcpus) {
		host_say("kvm: %u vCPUs are more than such a guest can have (%u)", p->vcpus, flavour->max_vcpus);
		return -EINVAL;
	}
	k = calloc(1, sizeof(*k));
	if (!k)
		return -ENOMEM;
	*k = (struct kvm){ .p = p, .flavour = flavour, .kvm_fd = -1, .vm_fd = -1, .stats_fd = -1, .vcpus = p->vcpus };
	for (unsigned int i = 0; i < k->vcpus; i++)
		k->vcpu[i] = (struct kvm_vcpu){ .k = k, .id = i, .fd = -1, .stats_fd = -1 };
	p->backend = k;
	err = make_vm(k);
	if (!err)
		err = make_vcpus(k);
	if (!err)
		err = k->flavour->create(k);
	if (!err)
		err = start_threads(k);
	if (err)
		kvm_destroy(p);
	return err;
}

static int kvm_start(struct partition *p)
{
	set_state(p->backend, KVM_RUNNING);
	return 0;
}

static void kvm_kick(struct partition *p, unsigned int vcpu)
{
	struct kvm *k = p->backend;

	k->flavour->kick(k, vcpu);
}

static void kvm_dump(struct partition *p, unsigned int vcpu)
{
	struct kvm *k = p->backend;

	k->flavour->dump(k, vcpu);
}

static int64_t kvm_vcpu_start(struct partition *p, unsigned int vcpu, uint64_t entry, uint64_t opaque)
{
	struct kvm *k = p->backend;
	int64_t status = KEEL_STATUS(KEEL_E_NOTSUP, 0);

	if (k->flavour->vcpu_start)
		status = k->flavour->vcpu_start(k, vcpu, entry, opaque);
	if (status == KEEL_OK)
		go(&k->vcpu[vcpu]);
	return status;
}

static int64_t kvm_vcpu_stop(struct partition *p, unsigned int vcpu)
{
	struct kvm *k = p->backend;

	return k->flavour->vcpu_stop ? k->flavour->vcpu_stop(k, vcpu) : KEEL_STATUS(KEEL_E_NOTSUP, 0);
}

/* Afterwards */

static bool kvm_next_mapping(struct partition *p, uint64_t va, struct mapping *m)
{
	struct kvm *k = p->backend;

	return k->flavour->next_mapping && k->flavour->next_mapping(k, va, m);
}

static bool kvm_snapshot(struct partition *p, unsigned int vcpu, struct crash_info *c)
{
	struct kvm *k = p->backend;

	return vcpu < k->vcpus && k->flavour->snapshot && k->flavour->snapshot(k, vcpu, c);
}

static unsigned int kvm_counters(struct partition *p, struct keel_stats_entry *e, unsigned int max)
{
	struct kvm *k = p->backend;

	return k->flavour->counters ? k->flavour->counters(k, e, max) : 0;
}

static bool read_value(int fd, const struct kvm_stats_header *h, const struct kvm_stats_desc *d, uint64_t *value)
{
	return pread(fd, value, sizeof(*value), (off_t)(h->data_offset + d->offset)) == sizeof(*value);
}

/*
 * KVM's own counters: every value that is one number, as "kvm.NAME value". The sum over
 * descriptors of the same kind, which have the same layout.
 */
static void kernel_stats(const int *fd, unsigned int count, FILE *f)
{
	struct kvm_stats_header h;
	char desc[sizeof(struct kvm_stats_desc) + 256];
	struct kvm_stats_desc *d = (struct kvm_stats_desc *)desc;
	size_t each;

	if (fd[0] < 0 || pread(fd[0], &h, sizeof(h), 0) != sizeof(h) || h.name_size > 256)
		return;
	each = sizeof(*d) + h.name_size;
	for (uint32_t i = 0; i < h.num_desc; i++) {
		uint64_t value, sum = 0;
		bool known = true;

		if (pread(fd[0], desc, each, (off_t)(h.desc_offset + i * each)) != (ssize_t)each)
			return;
		for (unsigned int n = 0; d->size == 1 && n < count; n++) {
			known &= read_value(fd[n], &h, d, &value);
			sum += known ? value : 0;
		}
		if (d->size == 1 && known)
			fprintf(f, "kvm.%.*s %llu\n", (int)h.name_size, d->name, (unsigned long long)sum);
	}
}

static void kvm_stats(struct partition *p, void *f)
{
	struct kvm *k = p->backend;
	uint64_t exits = 0;
	int fd[PARTITION_VCPUS];

	for (unsigned int i = 0; i < k->vcpus; i++) {
		exits += k->vcpu[i].exits;
		fd[i] = k->vcpu[i].stats_fd;
	}
	fprintf(f, "kvm.userspace_exits %llu\n", (unsigned long long)exits);
	kernel_stats(&k->stats_fd, 1, f);
	kernel_stats(fd, k->vcpus, f);
	if (k->flavour->stats)
		k->flavour->stats(k, f);
}

const struct backend_ops kvm_backend = {
	.name = "kvm",
	.probe = &kvm_backend_probe,
	.prepare = kvm_prepare,
	.calls = &kvm_calls,
	.create = kvm_create,
	.start = kvm_start,
	.vcpu_start = kvm_vcpu_start,
	.vcpu_stop = kvm_vcpu_stop,
	.kick = kvm_kick,
	.dump = kvm_dump,
	.stop = kvm_stop,
	.destroy = kvm_destroy,
	.next_mapping = kvm_next_mapping,
	.snapshot = kvm_snapshot,
	.stats = kvm_stats,
	.counters = kvm_counters,
};
