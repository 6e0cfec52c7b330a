// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/*
 * A guest that means harm, for hosts that run guest code at CPL 0 of a virtual
 * machine. It owns the machine and uses that: nothing in it is the host's to
 * protect, only the host is. The command line says which way, with which seed,
 * and which of several: how=. It ends by being stopped, or powers off. Where
 * things are is taken from keel's layout; on another host these are just numbers.
 */
#include "kt.h"

extern u64 kt_fixup, kt_fixup_rsp;

#define TEXT KEEL_U64(0x7f0100000000) /* the monitor's, as guests see it */
#define TEXT_SIZE 0x10000
#define BLOCK KEEL_U64(0x7f0300000000) /* vCPU blocks, the monitor's data behind them */
#define BLOCK_SIZE 0x40000
#define DATA_SIZE 0x800000
#define TEXT_PA KEEL_U64(0x10000000)
#define DATA_PA KEEL_U64(0x20000000)
#define RAM_PA KEEL_U64(0x100000000)
#define PORT_REMOTE 0x4b45
#define PORT_DOORBELL 0x4b46

/* All physical addresses below 8 GiB, once map_everything() has run. */
#define EVERYTHING KEEL_U64(0x640000000000)
#define TABLES (KT_SCRATCH_GPA + KEEL_U64(0x100000))

static u64 how(u64 n)
{
	return kt_option("how", 0) % n;
}

static u64 one_of(const u64 *list, size_t n)
{
	return list[kt_random_below(n)];
}

#define ONE_OF(list) one_of(list, sizeof(list) / sizeof((list)[0]))

/* Whatever was done: is anybody there? The answer does not matter. */
static void use_it(void)
{
	for (u64 i = 0; i < 4; i++) {
		HC(KEEL_CALL_BASE_PING, i);
		MAP(KT_VA, KT_SCRATCH_GPA, 65536, 3);
		HC(KEEL_CALL_CONSOLE_KICK);
		HC(KEEL_CALL_EVENT_SEND, 0);
		HC(KEEL_CALL_TIME_SET_TIMER, 1000);
		HC(KEEL_CALL_VCPU_WAIT, kt_now() + 1000000);
	}
}

static void finish_here(struct keel_frame *f)
{
	(void)f;
	kt_finish();
}

/* What becomes of this guest is its own affair. */
static void let_it_end(void)
{
	kt_on[KEEL_CLASS_TRAP] = kt_on[KEEL_CLASS_DOUBLE] = finish_here;
	kt_armed();
}

static u64 read_cr0(void)
{
	u64 v;

	__asm__ volatile("mov %%cr0, %0" : "=r"(v));
	return v;
}

static u64 read_cr3(void)
{
	u64 v;

	__asm__ volatile("mov %%cr3, %0" : "=r"(v));
	return v;
}

static void write_cr0(u64 v)
{
	__asm__ volatile("mov %0, %%cr0" : : "r"(v) : "memory");
}

static void write_cr3(u64 v)
{
	__asm__ volatile("mov %0, %%cr3" : : "r"(v) : "memory");
}

static void out(u16 port, u32 value, u32 size)
{
	if (size == 1)
		__asm__ volatile("outb %b0, %w1" : : "a"(value), "Nd"(port) : "memory");
	else if (size == 2)
		__asm__ volatile("outw %w0, %w1" : : "a"(value), "Nd"(port) : "memory");
	else
		__asm__ volatile("outl %0, %w1" : : "a"(value), "Nd"(port) : "memory");
}

/* Page tables of our own: what there was, and all there is. */
static void map_everything(void)
{
	u64 *root = kt_ram(TABLES), *upper = root + 512, *dir = root + 1024;
	const u64 *was = (const u64 *)(BLOCK + (read_cr3() & 0xfffffffff000) - DATA_PA);

	memcpy(root, was, 4096);
	for (u64 i = 0; i < 8; i++)
		upper[i] = (RAM_PA + TABLES + 4096 * (2 + i)) | 3;
	for (u64 i = 0; i < 8 * 512; i++)
		dir[i] = i << 21 | 0x83;
	root[EVERYTHING >> 39] = (RAM_PA + TABLES + 4096) | 3;
	write_cr3(RAM_PA + TABLES);
}

static volatile u8 *physical(u64 pa)
{
	return (volatile u8 *)(EVERYTHING + pa);
}

/* An instruction with these in rax, rbx, rcx and rdx, in a probe. */
#define TRY(insn, a, b, c, d)                                                                                    \
	do {                                                                                                     \
		u64 a_ = (a), b_ = (b), c_ = (c), d_ = (d);                                                      \
		__asm__ volatile("lea 1f(%%rip), %%rdi\n\t"                                                      \
				 "mov %%rdi, kt_fixup(%%rip)\n\t"                                                \
				 "mov %%rsp, kt_fixup_rsp(%%rip)\n\t" insn "\n\t"                                \
				 "1: movq $0, kt_fixup(%%rip)"                                                   \
				 : "+a"(a_), "+b"(b_), "+c"(c_), "+d"(d_)                                        \
				 :                                                                               \
				 : "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", \
				   "cc");                                                                        \
	} while (0)

KEEL_TEST("HOSTILE-100", hostile_kvm_harmless, "", "", 0)
{
	OK_VALUE(HC(KEEL_CALL_BASE_PING, 5), 5);
}

KEEL_TEST("HOSTILE-101", hostile_kvm_write_text, "", "", 0)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) idt;

	let_it_end();
	write_cr0(read_cr0() & ~KEEL_U64(0x10000)); /* write protection off */
	switch (how(4)) {
	case 0:
		*(volatile u8 *)kt_vcpu->gate = 0xc3;
		break;
	case 1:
		memset((void *)TEXT, 0x90, 4096);
		break;
	case 2:
		__asm__ volatile("sidt %0" : "=m"(idt));
		memset((void *)idt.base, 0, 4096);
		break;
	case 3:
		*(volatile u64 *)((u64)kt_start & ~0xfffull) = 0; /* ABI pages */
		break;
	}
	use_it();
	kt_probe_ud();
}

KEEL_TEST("HOSTILE-102", hostile_kvm_write_everything, "", "", 0)
{
	let_it_end();
	map_everything();
	switch (how(4)) {
	case 0: /* through a mapping that is writable, to memory that is not */
		*physical(TEXT_PA + kt_random_below(TEXT_SIZE)) = 0xcc;
		break;
	case 1: /* all the monitor knows */
		for (u64 i = 0; i < 20000; i++)
			*(volatile u32 *)physical(DATA_PA + (kt_random_below(DATA_SIZE) & ~3ull)) = (u32)kt_random();
		break;
	case 2:
		for (u64 at = BLOCK_SIZE; at < 4 * BLOCK_SIZE; at++)
			*physical(DATA_PA + at) = 0xff;
		break;
	case 3: /* the ABI pages: where RAM ends */
		*physical(RAM_PA + kt_ram_size()) = 1;
		break;
	}
	use_it();
	kt_probe_read(KT_VA + 0x1000000);
}

KEEL_TEST("HOSTILE-103", hostile_kvm_page_tables, "", "", 0)
{
	static const u64 to[] = { 0,	      TEXT_PA,	  DATA_PA,	     RAM_PA,
				  0xfee00000, 0xfec00000, KEEL_U64(1) << 40, ~0ull >> 12 << 12 };
	volatile u64 *root;

	let_it_end();
	root = (volatile u64 *)(BLOCK + (read_cr3() & 0xfffffffff000) - DATA_PA);
	switch (how(4)) {
	case 0: /* itself, everywhere */
		for (u32 i = 0; i < 512; i++)
			if (i != TEXT >> 39)
				root[i] = (read_cr3() & ~0xfffull) | 3;
		break;
	case 1: /* the window is gone */
		root[TEXT >> 39] = 0;
		break;
	case 2:
		for (u32 i = 0; i < 512; i++)
			root[i] = kt_random();
		break;
	case 3:
		for (u32 i = 0; i < 64; i++)
			root[kt_random_below(512)] = ONE_OF(to) | 7 | (kt_random() & 0x80);
		break;
	}
	write_cr3(read_cr3());
	use_it();
}

KEEL_TEST("HOSTILE-104", hostile_kvm_bad_cr3, "", "", 0)
{
	static const u64 cr3[] = { 0,	       TEXT_PA,		  DATA_PA,	   0x30000000,		0xfee00000,
				   0xfec00000, KEEL_U64(1) << 40, (RAM_PA - 4096), RAM_PA + 0x40000000, RAM_PA };

	let_it_end();
	write_cr3(cr3[how(sizeof(cr3) / sizeof(cr3[0]))]);
	use_it();
}

KEEL_TEST("HOSTILE-105", hostile_kvm_triple_fault, "", "", 0)
{
	static const struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) none[] = { { 0, 0 }, { 0xfff, KT_VA }, { 0xfff, EVERYTHING } };

	kt_armed();
	__asm__ volatile("lidt %0" : : "m"(none[how(3)]));
	__asm__ volatile("ud2");
}

KEEL_TEST("HOSTILE-106", hostile_kvm_spin, "", "", 0)
{
	kt_armed();
	__asm__ volatile("cli");
	switch (how(3)) {
	case 0:
		for (;;)
			__asm__ volatile("pause");
	case 1:
		for (;;)
			__asm__ volatile("hlt");
	case 2:
		for (;;)
			out(PORT_DOORBELL, 0, 4);
	}
}

KEEL_TEST("HOSTILE-107", hostile_kvm_doorbells, "", "", 0)
{
	static const u8 text[64];
	const void *from = text;
	u64 n = sizeof(text) / 4;

	kt_armed();
	for (u64 i = 0; i < 3000; i++)
		out(PORT_DOORBELL, (u32)kt_random(), 4);
	__asm__ volatile("rep outsl" : "+S"(from), "+c"(n) : "d"(PORT_DOORBELL));
	OK_VALUE(HC(KEEL_CALL_BASE_PING, 5), 5);
}

/* Where the last remote call's argument lies in the vCPU's block: found by what it was. */
static volatile u64 *remote_slot(void)
{
	volatile u64 *w = (volatile u64 *)BLOCK;
	u64 cookie = 0x6b9d3f0517e2c8a4;

	HC(KEEL_CALL_BASE_PING, cookie);
	for (u64 i = 0x1000 / 8; i < BLOCK_SIZE / 8; i++)
		if (w[i] == cookie)
			return &w[i];
	return NULL;
}

KEEL_TEST("HOSTILE-108", hostile_kvm_remote_calls, "", "", 0)
{
	volatile u64 *slot = remote_slot();
	u64 ram = kt_ram_size();

	if (!slot)
		kt_note("no slot found");
	let_it_end();
	for (u64 i = 0; i < 400; i++) {
		for (s64 k = -8; slot && k < 12; k++) {
			volatile u32 *half = (volatile u32 *)&slot[k];

			switch (kt_random_below(8)) {
			case 0:
				slot[k] = kt_random();
				break;
			case 1:
				slot[k] = kt_random_below(8);
				break;
			case 2: /* a call, or what the host's own halves say to each other */
				half[kt_random_below(2)] = kt_random_below(2)
								   ? kt_calls[kt_random_below(KEEL_CALL_COUNT)].id
								   : 0xff000000 + (u32)kt_random_below(0x20);
				break;
			case 3:
				slot[k] = ram - kt_random_below(8192);
				break;
			case 4:
				slot[k] = ~kt_random_below(8192);
				break;
			}
		}
		out(PORT_REMOTE, (u32)kt_random(), 1u << kt_random_below(3));
	}
	use_it();
}

KEEL_TEST("HOSTILE-109", hostile_kvm_ports, "", "", 0)
{
	static const u64 known[] = { 0x20,  0x21,  0x40,  0x43,	 0x60,	0x61,  0x64,  0x70,   0x71,   0x80,   0x92,
				     0xcf8, 0xcfc, 0xcf9, 0x3f8, 0x510, 0x511, 0x600, 0x4b44, 0x4b45, 0x4b47, 0xffff };
	u8 buf[64];

	let_it_end();
	for (u64 i = 0; i < 2000; i++) {
		u16 port = (u16)(i || !kt_random_below(2) ? kt_random() : ONE_OF(known));
		void *at = buf;
		u64 n = kt_random_below(8) + 1;

		switch (kt_random_below(4)) {
		case 0:
			__asm__ volatile("inb %w1, %b0" : "=a"(n) : "Nd"(port));
			break;
		case 1:
			__asm__ volatile("rep insb" : "+D"(at), "+c"(n) : "d"(port) : "memory");
			break;
		case 2:
			__asm__ volatile("rep outsl" : "+S"(at), "+c"(n) : "d"(port) : "memory");
			break;
		default:
			out(port, (u32)kt_random(), 1u << kt_random_below(3));
		}
	}
}

KEEL_TEST("HOSTILE-110", hostile_kvm_mmio, "", "", 0)
{
	static const u64 at[] = {
		0,	    0xa0000,	 0xb8000,     0xfffff000, 0xfec00000,  0xfed00000,	    0xfee00000,
		0x30000000, DATA_PA - 8, TEXT_PA - 8, RAM_PA - 8, 0x1fffffff8, DATA_PA + 0x1ffffff8
	};

	let_it_end();
	map_everything();
	for (u64 i = 0; i < 200; i++) {
		volatile u8 *p = physical(ONE_OF(at) + kt_random_below(16));
		u64 v = kt_random();

		switch (kt_random_below(10)) {
		case 0:
			(void)*p;
			break;
		case 1:
			*(volatile u64 *)p = v;
			break;
		case 2:
			__asm__ volatile("lock xaddq %0, %1" : "+r"(v), "+m"(*(volatile u64 *)p));
			break;
		case 3:
			__asm__ volatile("lock cmpxchg16b %0"
					 : "+m"(*p)
					 : "a"(0), "d"(0), "b"(0), "c"(0)
					 : "cc", "memory");
			break;
		case 4:
			__asm__ volatile("push %0\n\tpop %0" : "+m"(*(volatile u64 *)p) : : "memory");
			break;
		case 5: {
			const volatile void *from = p;
			void *to = kt_ram(KT_SCRATCH_GPA);
			u64 n = 40;

			__asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
			break;
		}
		case 6:
			((void (*)(void))(u64)p)(); /* code from nowhere */
			break;
		case 7:
			__asm__ volatile("movups %%xmm0, %0" : "=m"(*p));
			break;
		case 8:
			__asm__ volatile("fxsave64 %0" : "=m"(*(volatile u8(*)[512])((u64)p & ~15ull)));
			break;
		case 9:
			__asm__ volatile("lgdt %0" : : "m"(*p));
			break;
		}
	}
}

KEEL_TEST("HOSTILE-111", hostile_kvm_msrs, "", "", 0)
{
	/* Where things start that a processor, KVM or Hyper-V keeps there. */
	static const u64 start[] = { 0,		 0x10,	     0x1b,	 0x3a,	     0x8b,	 0xc1,
				     0x174,	 0x186,	     0x1d9,	 0x200,	     0x277,	 0x2ff,
				     0x38d,	 0x480,	     0x6e0,	 0x800,	     0x830,	 0xc80,
				     0xda0,	 0x4b564d00, 0x40000000, 0x40000070, 0x40000100, 0xc0000080,
				     0xc0000100, 0xc0010000, 0xc0010114, 0x4b454c00, 0x11 };
	static const u64 value[] = { 0,		  1,	      3,	  ~0ull,      RAM_PA | 1,
				     DATA_PA | 1, 0xfee00000, 0xfee00c00, 0x30000001, 0x100000000 };

	kt_armed();
	for (u64 i = 0; i < 600; i++) {
		u32 msr = (u32)(kt_random_below(8) ? ONE_OF(start) + kt_random_below(16) : kt_random());
		u64 v = kt_random_below(4) ? ONE_OF(value) : kt_random() & kt_random();

		/* Most of them trap, and the trap is the guest's to survive. */
		TRY("rdmsr", 0, 0, msr, 0);
		TRY("wrmsr", (u32)v, 0, msr, v >> 32);
	}
	use_it();
}

void hostile_kvm_jump(u64 va, const u64 *regs);
__asm__(".text\n"
	"hostile_kvm_jump:\n"
	"	mov %rdi, %r15\n"
	"	mov 0(%rsi), %rax\n"
	"	mov 8(%rsi), %rbx\n"
	"	mov 16(%rsi), %rcx\n"
	"	mov 24(%rsi), %rdx\n"
	"	mov 40(%rsi), %rdi\n"
	"	mov 48(%rsi), %rbp\n"
	"	mov 56(%rsi), %r8\n"
	"	mov 64(%rsi), %r9\n"
	"	mov 72(%rsi), %r10\n"
	"	mov 80(%rsi), %r11\n"
	"	mov 88(%rsi), %r12\n"
	"	mov 96(%rsi), %r13\n"
	"	mov 104(%rsi), %r14\n"
	"	mov 32(%rsi), %rsi\n"
	"	jmp *%r15\n");

KEEL_TEST("HOSTILE-112", hostile_kvm_jump_inside, "", "", 0)
{
	u64 r[14];

	let_it_end();
	for (u32 i = 0; i < 14; i++)
		switch (kt_random_below(4)) {
		case 0:
			r[i] = kt_random();
			break;
		case 1:
			r[i] = BLOCK + kt_random_below(DATA_SIZE);
			break;
		case 2:
			r[i] = kt_random_below(16);
			break;
		default:
			r[i] = KT_LINEAR + KT_SCRATCH_GPA + kt_random_below(65536);
		}
	hostile_kvm_jump(TEXT + kt_random_below(TEXT_SIZE), r);
}

KEEL_TEST("HOSTILE-113", hostile_kvm_control_registers, "", "", 0)
{
	u64 cr0 = read_cr0(), cr4, efer;
	u32 lo, hi;

	__asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(0xc0000080));
	efer = (u64)hi << 32 | lo;
	let_it_end();
	switch (how(8)) {
	case 0:
		write_cr0(cr0 & ~KEEL_U64(0x80000000)); /* paging off */
		break;
	case 1:
		write_cr0(cr0 & ~KEEL_U64(0x80000001)); /* and protection */
		break;
	case 2:
		__asm__ volatile("mov %0, %%cr4" : : "r"(cr4 & ~KEEL_U64(0x20))); /* PAE off */
		break;
	case 3:
		__asm__ volatile("mov %0, %%cr4" : : "r"(kt_random()));
		break;
	case 4:
		write_cr0(kt_random());
		break;
	case 5: /* no no-execute, no system calls, no long mode */
		__asm__ volatile("wrmsr" : : "c"(0xc0000080), "a"((u32)efer & ~0x901u), "d"(0));
		break;
	case 6:
		__asm__ volatile("mov %0, %%cr8" : : "r"(kt_random() & 15)); /* every interrupt held off */
		break;
	case 7:
		write_cr0(cr0 | KEEL_U64(0x60000000)); /* caches off, task switched */
		write_cr0(cr0 | 8);
		break;
	}
	use_it();
	for (u64 i = 0; i < 20; i++) {
		write_cr0(cr0 ^ (KEEL_U64(1) << kt_random_below(32)));
		__asm__ volatile("mov %0, %%cr4" : : "r"(cr4 ^ (KEEL_U64(1) << kt_random_below(24))));
	}
	use_it();
}

KEEL_TEST("HOSTILE-114", hostile_kvm_descriptors, "", "", 0)
{
	static u64 gdt[64] __attribute__((aligned(64)));
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) pointer = { sizeof(gdt) - 1, (u64)gdt };

	let_it_end();
	for (u32 i = 0; i < 64; i++)
		gdt[i] = kt_random();
	gdt[1] = 0x00af9b000000ffff;
	gdt[2] = 0x00cf93000000ffff;
	gdt[5] = 0x00affb000000ffff; /* CPL 3 */
	gdt[6] = 0x00cff3000000ffff;
	gdt[7] = 0x00cf9b000000ffff; /* 32-bit code */
	__asm__ volatile("lgdt %0" : : "m"(pointer));
	switch (how(6)) {
	case 0: /* to CPL 3, and there a system call */
		__asm__ volatile("push $0x33\n\tpush %%rsp\n\tpush $0x202\n\tpush $0x2b\n\tlea 1f(%%rip), %%rax\n\t"
				 "push %%rax\n\tiretq\n1:\tsyscall\n\tint $0x80\n\tud2"
				 :
				 :
				 : "rax", "rcx", "r11", "memory");
		break;
	case 1:
		__asm__ volatile("ltr %w0" : : "r"((u32)kt_random_below(64) * 8));
		break;
	case 2:
		__asm__ volatile("lldt %w0" : : "r"((u32)kt_random_below(64) * 8));
		break;
	case 3: /* 32-bit code, where nothing is mapped at these addresses */
		__asm__ volatile("push $0x38\n\tlea 1f(%%rip), %%rax\n\tpush %%rax\n\tlretq\n1:\tud2"
				 :
				 :
				 : "rax", "memory");
		break;
	case 4:
		for (u32 i = 0; i < 64; i++)
			__asm__ volatile("mov %w0, %%fs\n\tmov %w0, %%gs" : : "r"((u32)kt_random_below(64) * 8));
		break;
	case 5:
		__asm__ volatile("swapgs");
		break;
	}
	use_it();
	kt_probe_ud();
}

KEEL_TEST("HOSTILE-115", hostile_kvm_lapic, "", "", 0)
{
	static const u32 icr[] = { 0x00000, 0x40000, 0x80000 }; /* to a number, self, all */
	u64 kind = how(8);

	let_it_end();
	/* Fixed, SMI, NMI, INIT, start-up and whatever else, by the x2APIC's registers or by the page. */
	for (u32 i = 0; i < 8; i++) {
		u32 lo = icr[kt_random_below(3)] | (u32)kind << 8 | 0x4000 | (u32)kt_random_below(256);

		TRY("wrmsr", lo, 0, 0x830, 0);
	}
	use_it();
	map_everything();
	for (u32 reg = 0x20; reg < 0x400; reg += 0x10)
		*(volatile u32 *)physical(0xfee00000 + reg) = (u32)kt_random();
	use_it();
}

KEEL_TEST("HOSTILE-116", hostile_kvm_scribble_monitor, "", "", 0)
{
	u64 words = kt_option("words", 1000);

	let_it_end();
	for (u64 i = 0; i < words; i++) {
		u64 at = kt_random_below(DATA_SIZE) & ~3ull;

		if (at < 0x40) /* the gate's address stays, so that calls go on being made */
			continue;
		*(volatile u32 *)(BLOCK + at) = kt_random_below(3) ? (u32)kt_random() : (u32)kt_random_below(4);
		if (!kt_random_below(50)) {
			HC(KEEL_CALL_BASE_PING, i);
			out(PORT_REMOTE, 0, 1);
			out(PORT_DOORBELL, 0, 4);
		}
	}
	use_it();
}

KEEL_TEST("HOSTILE-117", hostile_kvm_instructions, "", "", 0)
{
	kt_armed();
	for (u32 i = 0; i < 64; i++) {
		u64 nr = i < 20 ? i : kt_random(), arg = kt_random();

		TRY("vmcall", nr, arg, arg, arg);
		TRY("vmmcall", nr, arg, arg, arg);
		TRY("xsetbv", (u32)kt_random(), 0, kt_random_below(2), 0);
		TRY("invlpg (%%rax)", arg, 0, 0, 0);
		TRY("mov %%rax, %%dr7", (u32)arg, 0, 0, 0);
		TRY("mov %%rax, %%dr0", TEXT, 0, 0, 0);
		TRY("mov %%rax, %%dr7", 0x400, 0, 0, 0);
		TRY("clts", 0, 0, 0, 0);
		TRY("rdpmc", 0, 0, i, 0);
		TRY("cpuid", (u32)kt_random(), 0, (u32)kt_random(), 0);
	}
	for (u32 i = 0; i < 4; i++) {
		TRY("wbinvd", 0, 0, 0, 0);
		TRY("invd", 0, 0, 0, 0);
		TRY("rsm", 0, 0, 0, 0);
		TRY("vmxoff", 0, 0, 0, 0);
		TRY("vmrun", RAM_PA, 0, 0, 0);
		TRY("vmload", RAM_PA, 0, 0, 0);
		TRY("vmlaunch", 0, 0, 0, 0);
		TRY("clgi", 0, 0, 0, 0);
		TRY("skinit", 0, 0, 0, 0);
		TRY("monitor", KT_LINEAR, 0, 0, 0);
	}
	use_it();
}

KEEL_TEST("HOSTILE-118", hostile_kvm_floods, "", "", 0)
{
	u64 cr3 = read_cr3();

	kt_armed();
	/* What costs the host most for each: all of it bounded by the guest's own time. */
	for (u64 i = 0; i < 2000; i++) {
		write_cr3(cr3);
		if (!(i % 100))
			HC(KEEL_CALL_MEMORY_RELEASE, KT_SCRATCH_GPA, KT_SCRATCH_SIZE);
		if (!(i % 50))
			out(PORT_DOORBELL, 0, 4);
	}
	OK_VALUE(HC(KEEL_CALL_BASE_PING, 5), 5);
}

KEEL_TEST("HOSTILE-119", hostile_kvm_no_stack, "", "", 0)
{
	let_it_end();
	switch (how(3)) {
	case 0: /* a fault in the gate, with nowhere to go */
		__asm__ volatile("mov $0x10, %%rsp\n\tcall *%%gs:8" : : "a"(KEEL_CALL_BASE_PING), "D"(1) : "memory");
		break;
	case 1: /* GS, by which the gate finds its data */
		__asm__ volatile("wrmsr\n\tcall *%%rbx"
				 :
				 : "c"(0xc0000101), "a"(0), "d"(0), "b"(kt_vcpu->gate), "D"(1)
				 : "memory");
		break;
	case 2: /* the interrupt stack is somebody's page table */
		map_everything();
		memset((void *)physical(DATA_PA + 0x20000), 0xff, 0x10000);
		kt_probe_ud();
		break;
	}
	use_it();
}
