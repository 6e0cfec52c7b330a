// SPDX-License-Identifier: MIT
/*
 * The raw primitives of the kvm backend, in the smallest virtual machine that has
 * them: what an exit to user space costs, what an ioeventfd, and what a kernel's own
 * page-table writes cost that nobody checks. Same lines as guest.c, same addresses.
 *
 *	rawkvm CPU		answer lines
 *
 * The guest's code takes the time itself, between entry and exit.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine.h"

/* Guest-physical and, below AREA_VA, guest-virtual addresses. */
#define MEMORY (UINT64_C(40) << 20)
#define LARGE (UINT64_C(2) << 20)
#define CODE 0x1000
#define PML4 0x2000
#define PDPT 0x3000
#define PD_LOW 0x4000
#define PD_AREA 0x5000
#define PT_AREA 0x6000 /* as many tables as it takes, one behind the other */
#define SOURCE 0x20000 /* page-table entries to be written */
#define AREA_TABLES ((SCATTER_SPAN(AREA_PAGES) + LARGE - 1) / LARGE)

#define PTE_TABLE 0x27 /* present, writable, user, accessed */
#define PTE_LEAF 0x63  /* present, writable, accessed, dirty */
#define PTE_LARGE 0x80

#define PORT_DONE 0x10
#define PORT_EXIT 0x11
#define PORT_DOORBELL 0x12

/* Of write_entries, in r12. */
#define TOUCH 1
#define INVLPG 2
#define RELOAD 4

extern const char guest_code[], guest_entries[], guest_ports[], guest_end[];

__asm__(".pushsection .rodata\n"
	"guest_code:\n"
	/* rcx entries from rsi to rdi, rbx bytes apart; page r8, then r9 bytes further on, is touched or flushed */
	"guest_entries:\n"
	"	lfence\n"
	"	rdtsc\n"
	"	shl $32, %rdx\n"
	"	or %rdx, %rax\n"
	"	mov %rax, %r15\n"
	"1:	mov (%rsi), %rax\n"
	"	add $8, %rsi\n"
	"	mov %rax, (%rdi)\n"
	"	add %rbx, %rdi\n"
	"	test $1, %r12b\n"
	"	jz 2f\n"
	"	lock orb $0, (%r8)\n"
	"2:	test $2, %r12b\n"
	"	jz 3f\n"
	"	invlpg (%r8)\n"
	"3:	add %r9, %r8\n"
	"	dec %rcx\n"
	"	jnz 1b\n"
	"	test $4, %r12b\n"
	"	jz 4f\n"
	"	mov %cr3, %rax\n"
	"	mov %rax, %cr3\n"
	"4:	lfence\n"
	"	rdtsc\n"
	"	shl $32, %rdx\n"
	"	or %rdx, %rax\n"
	"	sub %r15, %rax\n"
	"	out %al, $0x10\n"
	/* rcx writes to port dx */
	"guest_ports:\n"
	"	mov %edx, %ebx\n"
	"	lfence\n"
	"	rdtsc\n"
	"	shl $32, %rdx\n"
	"	or %rdx, %rax\n"
	"	mov %rax, %r15\n"
	"	mov %ebx, %edx\n"
	"1:	out %eax, %dx\n"
	"	dec %rcx\n"
	"	jnz 1b\n"
	"	lfence\n"
	"	rdtsc\n"
	"	shl $32, %rdx\n"
	"	or %rdx, %rax\n"
	"	sub %r15, %rax\n"
	"	out %al, $0x10\n"
	"guest_end:\n"
	".popsection\n");

static int vcpu;
static struct kvm_run *machine;
static uint8_t *memory;

static _Noreturn void fail(const char *what)
{
	perror(what);
	_exit(1);
}

static uint64_t *entries(uint64_t at)
{
	return (uint64_t *)(memory + at);
}

/* Run from there to the end; the ticks it says it took. */
static uint64_t enter(struct kvm_regs r, const char *code)
{
	r.rip = CODE + (uint64_t)(code - guest_code);
	r.rflags = 2;
	if (ioctl(vcpu, KVM_SET_REGS, &r))
		fail("KVM_SET_REGS");
	do {
		if (ioctl(vcpu, KVM_RUN, 0) && errno != EINTR && errno != EAGAIN)
			fail("KVM_RUN");
		if (machine->exit_reason != KVM_EXIT_IO) {
			fprintf(stderr, "exit %u\n", machine->exit_reason);
			_exit(1);
		}
	} while (machine->io.port != PORT_DONE);
	if (ioctl(vcpu, KVM_GET_REGS, &r))
		fail("KVM_GET_REGS");
	return r.rax;
}

static uint64_t ports(uint16_t port)
{
	return enter((struct kvm_regs){ .rcx = PER_PING, .rdx = port }, guest_ports);
}

static uint64_t run_exit(void)
{
	return ports(PORT_EXIT);
}

static uint64_t run_doorbell(void)
{
	return ports(PORT_DOORBELL);
}

/* Entries for n pages, every one or every other of the address space; map false: clear them. */
static uint64_t write_entries(unsigned int n, unsigned int stride, bool map, uint64_t how)
{
	for (unsigned int i = 0; i < n; i++)
		entries(SOURCE)[i] = !map ? 0 : (stride == 1 ? AREA_GPA + i * BENCH_PAGE : SCATTER_GPA(i)) | PTE_LEAF;
	return enter((struct kvm_regs){ .rsi = SOURCE,
					.rdi = PT_AREA,
					.rcx = n,
					.rbx = 8 * stride,
					.r8 = AREA_VA,
					.r9 = stride * BENCH_PAGE,
					.r12 = how },
		     guest_entries);
}

static uint64_t run_map(void)
{
	return write_entries(AREA_PAGES, 1, true, TOUCH);
}

static void unmap_area(void)
{
	write_entries(2 * AREA_PAGES, 1, false, RELOAD);
}

static uint64_t run_scatter(void)
{
	return write_entries(AREA_PAGES, 2, true, 0);
}

static void prepare_unmap(void)
{
	write_entries(AREA_PAGES, 2, true, TOUCH);
}

static uint64_t run_unmap_few(void)
{
	return write_entries(RUNS_FEW, 2, false, INVLPG);
}

static uint64_t run_unmap_many(void)
{
	return write_entries(AREA_PAGES, 2, false, INVLPG);
}

static uint64_t run_reload_few(void)
{
	return write_entries(RUNS_FEW, 2, false, RELOAD);
}

static uint64_t run_reload_many(void)
{
	return write_entries(AREA_PAGES, 2, false, RELOAD);
}

static const struct op ops[] = {
	{ "exit", NULL, run_exit, NULL },
	{ "doorbell", NULL, run_doorbell, NULL },
	{ "map", NULL, run_map, unmap_area },
	{ "scatter", NULL, run_scatter, unmap_area },
	{ "unmap_few", prepare_unmap, run_unmap_few, unmap_area },
	{ "unmap_many", prepare_unmap, run_unmap_many, unmap_area },
	{ "reload_few", prepare_unmap, run_reload_few, unmap_area },
	{ "reload_many", prepare_unmap, run_reload_many, unmap_area },
	{ NULL, NULL, NULL, NULL },
};

static void set_state(void)
{
	const struct kvm_segment code = {
		.limit = ~0U, .selector = 8, .present = 1, .type = 11, .s = 1, .l = 1, .g = 1
	};
	const struct kvm_segment data = {
		.limit = ~0U, .selector = 16, .present = 1, .type = 3, .s = 1, .db = 1, .g = 1
	};
	struct kvm_sregs s;

	entries(PML4)[0] = PDPT | PTE_TABLE;
	entries(PDPT)[0] = PD_LOW | PTE_TABLE;
	entries(PDPT)[AREA_VA >> 30] = PD_AREA | PTE_TABLE;
	for (uint64_t i = 0; i < MEMORY / LARGE; i++)
		entries(PD_LOW)[i] = i * LARGE | PTE_LEAF | PTE_LARGE;
	for (uint64_t i = 0; i < AREA_TABLES; i++)
		entries(PD_AREA)[i] = (PT_AREA + i * BENCH_PAGE) | PTE_TABLE;
	memcpy(memory + CODE, guest_code, (size_t)(guest_end - guest_code));

	if (ioctl(vcpu, KVM_GET_SREGS, &s))
		fail("KVM_GET_SREGS");
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.cr0 = 0x80010033;
	s.cr3 = PML4;
	s.cr4 = 0x20;
	s.efer = 0x500;
	if (ioctl(vcpu, KVM_SET_SREGS, &s))
		fail("KVM_SET_SREGS");
}

static void setup(void)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY };
	struct kvm_ioeventfd bell = { .addr = PORT_DOORBELL, .len = 4, .flags = KVM_IOEVENTFD_FLAG_PIO };
	const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	const int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
	int size;

	if (vm < 0)
		fail("/dev/kvm");
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	region.userspace_addr = (uint64_t)memory;
	bell.fd = eventfd(0, EFD_CLOEXEC);
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) || ioctl(vm, KVM_IOEVENTFD, &bell))
		fail("memory and doorbell");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (vcpu < 0 || size <= 0)
		fail("KVM_CREATE_VCPU");
	machine = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (machine == MAP_FAILED)
		fail("mmap");
	set_state();
	/* First touches are not what is measured. */
	for (unsigned int i = 0; i < 2; i++) {
		run_map();
		unmap_area();
		prepare_unmap();
		unmap_area();
	}
}

int main(int argc, char **argv)
{
	char line[ENGINE_LINE], reply[ENGINE_LINE];
	cpu_set_t set;

	if (argc != 2) {
		fprintf(stderr, "usage: rawkvm CPU\n");
		return 126;
	}
	CPU_ZERO(&set);
	CPU_SET(atoi(argv[1]), &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("sched_setaffinity");
	setup();
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] == 'q')
			return 0;
		fwrite(reply, 1, engine_answer(ops, NULL, line, reply), stdout);
		fflush(stdout);
	}
	return 0;
}
