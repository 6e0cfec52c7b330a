// SPDX-License-Identifier: MIT
/*
 * kvmcheck - does KVM itself work here?
 *
 * Static and without a line of keel's: when this fails, the test host is broken;
 * when this passes and keel does not, keel is. A guest in 64-bit mode runs
 * through what the kvm backend is built on, and each step is a result in KTAP.
 *
 * kvmcheck hold - be a user of KVM and of perf until killed
 *
 * The first and the last user of either make the kernel patch its code, the
 * scheduler's among it. QEMU 7.2 now and then goes on executing the breakpoint
 * that another processor has long replaced, and the machine hangs.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MEM_SIZE (16UL << 20)
#define TABLES_A 0x1000 /* maps VA n to GPA n, the first GiB in 2 MiB pages */
#define TABLES_B 0x4000 /* the same, but its second 2 MiB page is the third */
#define CODE 0x10000
#define STACK 0x20000
#define PROBE 0x200000 /* what differs between A and B */
#define OTHER 0x400000
#define TOUCHED 0x600000 /* pages the guest is the first to write */
#define TOUCHED_PAGES 64
#define PORT_STEP 0x10
#define PORT_DOORBELL 0x40
#define DOORBELLS 3
#define CR0_PE_NE_WP_PG 0x80010021
#define CR4_PAE 0x20
#define EFER_LME_LMA 0x500

extern const char guest_code[], guest_end[];

/* Each "out" to PORT_STEP hands EAX to the host. */
__asm__(".pushsection .rodata\n"
	"guest_code:\n"
	"	mov $0x1234567, %eax\n"
	"	out %eax, $0x10\n"
	"	xor %eax, %eax\n"
	"	cpuid\n"
	"	mov %ebx, %eax\n"
	"	out %eax, $0x10\n"
	"	mov (%rsi), %eax\n"
	"	out %eax, $0x10\n"
	"	mov %r10, %cr3\n"
	"	mov $0x200000, %esi\n"
	"	mov (%rsi), %eax\n"
	"	out %eax, $0x10\n"
	"1:	mov %ecx, (%rdi)\n"
	"	add $4096, %rdi\n"
	"	dec %r8\n"
	"	jnz 1b\n"
	"	mov %edi, %eax\n"
	"	out %eax, $0x10\n"
	"2:	out %al, $0x40\n"
	"	dec %r9\n"
	"	jnz 2b\n"
	"	hlt\n"
	"guest_end:\n"
	".popsection\n");

static int results;
static int failed;

static int result(int good, const char *what)
{
	printf("%s %d %s\n", good ? "ok" : "not ok", ++results, what);
	failed |= !good;
	return good;
}

static void broken(const char *what)
{
	printf("# %s: %s\n", what, strerror(errno));
}

static uint32_t *word(char *mem, unsigned long gpa)
{
	return (uint32_t *)(mem + gpa);
}

/* Three levels at root, with one 2 MiB page swapped for another. */
static void make_tables(char *mem, unsigned long root, unsigned long page, unsigned long is)
{
	uint64_t *level4 = (uint64_t *)(mem + root), *level3 = level4 + 512, *level2 = level3 + 512;

	level4[0] = (root + 0x1000) | 3;
	level3[0] = (root + 0x2000) | 3;
	for (unsigned long i = 0; i < 512; i++)
		level2[i] = (i == page >> 21 ? is : i << 21) | 0x83;
}

/* Run to the next exit, which must be EXIT; an interrupted run goes on. */
static int run_to(int vcpu, struct kvm_run *run, uint32_t exit)
{
	while (ioctl(vcpu, KVM_RUN, 0) < 0) {
		if (errno != EINTR && errno != EAGAIN) {
			broken("KVM_RUN");
			return 0;
		}
	}
	if (run->exit_reason == exit)
		return 1;
	printf("# exit %u where %u is due, detail %#llx\n", run->exit_reason, exit,
	       (unsigned long long)run->hw.hardware_exit_reason);
	return 0;
}

static int step(int vcpu, struct kvm_run *run, uint32_t *value)
{
	if (!run_to(vcpu, run, KVM_EXIT_IO) || run->io.port != PORT_STEP)
		return 0;
	memcpy(value, (char *)run + run->io.data_offset, sizeof(*value));
	return 1;
}

static int setup(int kvm, int vcpu, uint32_t *vendor)
{
	static uint64_t buffer[(sizeof(struct kvm_cpuid2) + 256 * sizeof(struct kvm_cpuid_entry2)) / 8];
	struct kvm_cpuid2 *cpuid = (struct kvm_cpuid2 *)buffer;
	struct kvm_segment code = { .limit = ~0U, .selector = 8, .present = 1, .type = 11, .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .limit = ~0U, .selector = 16, .present = 1, .type = 3, .s = 1, .db = 1, .g = 1 };
	struct kvm_regs regs = { .rip = CODE,
				 .rflags = 2,
				 .rsp = STACK,
				 .rsi = PROBE,
				 .r10 = TABLES_B,
				 .rdi = TOUCHED,
				 .r8 = TOUCHED_PAGES,
				 .r9 = DOORBELLS };
	struct kvm_sregs sregs;

	cpuid->nent = 256;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) || ioctl(vcpu, KVM_SET_CPUID2, cpuid) ||
	    ioctl(vcpu, KVM_GET_SREGS, &sregs))
		return 0;
	for (uint32_t i = 0; i < cpuid->nent; i++)
		if (!cpuid->entries[i].function)
			*vendor = cpuid->entries[i].ebx;
	sregs.cr0 = CR0_PE_NE_WP_PG;
	sregs.cr3 = TABLES_A;
	sregs.cr4 = CR4_PAE;
	sregs.efer = EFER_LME_LMA;
	sregs.cs = code;
	sregs.ds = data;
	sregs.es = data;
	sregs.fs = data;
	sregs.gs = data;
	sregs.ss = data;
	return !ioctl(vcpu, KVM_SET_SREGS, &sregs) && !ioctl(vcpu, KVM_SET_REGS, &regs);
}

/* One processor with a local APIC that is off, one without, and one event of a task. */
static int hold(void)
{
	struct perf_event_attr event = { .type = PERF_TYPE_SOFTWARE,
					 .size = sizeof(event),
					 .config = PERF_COUNT_SW_DUMMY,
					 .exclude_kernel = 1,
					 .exclude_hv = 1 };
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int with = ioctl(kvm, KVM_CREATE_VM, 0), without = ioctl(kvm, KVM_CREATE_VM, 0);

	if (ioctl(with, KVM_ENABLE_CAP, &split) || ioctl(with, KVM_CREATE_VCPU, 0) < 0 ||
	    ioctl(without, KVM_CREATE_VCPU, 0) < 0 || syscall(SYS_perf_event_open, &event, 0, -1, -1, 0) < 0) {
		broken("hold");
		return 1;
	}
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEM_SIZE };
	struct kvm_ioeventfd bell = { .addr = PORT_DOORBELL, .len = 1, .flags = KVM_IOEVENTFD_FLAG_PIO };
	uint32_t value = 0, vendor = 0;
	struct kvm_run *run;
	uint64_t rung = 0;
	int kvm, vm, vcpu, size, touched = 1;
	char *mem;

	setbuf(stdout, NULL);
	if (argc > 1 && !strcmp(argv[1], "hold"))
		return hold();
	printf("KTAP version 1\n1..11\n");
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (!result(kvm >= 0 && ioctl(kvm, KVM_GET_API_VERSION, 0) == 12, "/dev/kvm speaks version 12"))
		return 1;
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	region.userspace_addr = (uintptr_t)mem;
	if (!result(vm >= 0 && mem != MAP_FAILED && !ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000UL) &&
			    !ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region),
		    "a virtual machine with memory"))
		return 1;
	make_tables(mem, TABLES_A, 0, 0);
	make_tables(mem, TABLES_B, PROBE, OTHER);
	memcpy(mem + CODE, guest_code, guest_end - guest_code);
	*word(mem, PROBE) = 0xaaaa;
	*word(mem, OTHER) = 0xbbbb;

	bell.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	result(!ioctl(vm, KVM_IOEVENTFD, &bell), "a doorbell");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (!result(vcpu >= 0 && run != MAP_FAILED && setup(kvm, vcpu, &vendor), "a processor in 64-bit mode"))
		return 1;

	result(step(vcpu, run, &value) && value == 0x1234567, "the guest runs and hands over a word");
	result(step(vcpu, run, &value) && value == vendor, "CPUID is what was set");
	result(step(vcpu, run, &value) && value == 0xaaaa, "a load through the guest's page tables");
	result(step(vcpu, run, &value) && value == 0xbbbb, "a load through other page tables");
	result(step(vcpu, run, &value) && value == TOUCHED + TOUCHED_PAGES * 4096, "stores to fresh pages");
	for (int i = 0; i < TOUCHED_PAGES; i++)
		touched &= *word(mem, TOUCHED + i * 4096UL) == *word(mem, TOUCHED);
	result(run_to(vcpu, run, KVM_EXIT_HLT) && touched, "the stores arrived, the guest halts");
	result(read(bell.fd, &rung, sizeof(rung)) == sizeof(rung) && rung == DOORBELLS,
	       "the doorbell rang without an exit each");
	return failed;
}
