// SPDX-License-Identifier: MIT
/*
 * Paravirtual guests on kvm, host side: the machine pv.h describes, with the
 * monitor in it, and what its few exits mean.
 */
#include <cpuid.h>
#include <errno.h>
#include <asm/kvm_para.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../../devices/device.h"
#include "../../log.h"
#include "../../startinfo.h"
#include "../monmem.h"
#include "kvm.h"
#include "pv.h"

/* The monitor's image, linked by kvm.mk. */
extern const char kvm_pv_image[], kvm_pv_image_end[];

#define LARGE (UINT64_C(2) << 20)
#define GIB (UINT64_C(1) << 30)
#define MSI_ADDRESS(id) (0xfee00000u | (id) << 12) /* to this LAPIC, fixed */

/* Page-table entries of the window. */
#define PTE_G UINT64_C(0x100)
#define W_TABLE (PTE_P | PTE_W | PTE_A)
#define W_TEXT (PTE_P | PTE_A | PTE_D | PTE_G)
#define W_READ (W_TEXT | PTE_NX)
#define W_WRITE (W_READ | PTE_W)

#define CR0_GUEST 0x80010033u /* PG WP NE ET MP PE */
#define CR4_GUEST 0x6a0u      /* OSXMMEXCPT OSFXSR PGE PAE */
#define CR4_UMIP 0x800u
#define CR4_FSGSBASE 0x10000u
#define CR4_PCIDE 0x20000u
#define CR4_OSXSAVE 0x40000u
#define CR4_SMEP 0x100000u
#define CR4_SMAP 0x200000u
#define CPUID1_ECX_PCID (1u << 17)
#define CPUID7_EBX_INVPCID (1u << 10)
#define CPUIDD1_EAX_XSAVEOPT (1u << 0)
#define CPUID80000008_EBX_XSAVEERPTR (1u << 2)
#define VENDOR_HYGON_EBX 0x6f677948u
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_FMASK 0xc0000084
#define EFER_GUEST 0xd01u /* NXE LMA LME SCE */
#define APIC_X2 0xc00u	  /* enabled, in x2APIC mode */

struct pv {
	struct monmem mm;
	uint8_t *text;
	uint64_t text_size;
	uint64_t tables_off;	      /* the window's tables, in the monitor's memory */
	int kick_fd[PARTITION_VCPUS]; /* GSI n kicks vCPU n */
};

static struct pv *pv_of(struct kvm *k)
{
	return k->own;
}

static uint64_t round_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) / to * to;
}

/* The window's page tables: a root for the monitor's start, and below it what every root shares. */

enum {
	T_ROOT,
	T_UPPER,
	T_TEXT_DIR,
	T_TEXT,
	T_ABI_DIR,
	T_ABI,
	T_USER_UPPER,
	T_DOOR_DIR,
	T_DOOR,
	T_DATA_DIR = T_DOOR + MON_VCPU_SPAN / LARGE,
	T_RAM_DIR
};

static uint64_t *table(const struct pv *pv, unsigned int n)
{
	return (uint64_t *)(pv->mm.mem + pv->tables_off + n * KEEL_PAGE_SIZE);
}

static uint64_t table_entry(const struct pv *pv, unsigned int n)
{
	return (PV_DATA_GPA + pv->tables_off + n * KEEL_PAGE_SIZE) | W_TABLE;
}

static unsigned int index_at(uint64_t va, unsigned int level)
{
	return va >> (KEEL_PAGE_SHIFT + 9 * level) & 511;
}

static void map_small(const struct pv *pv, unsigned int dir, unsigned int leaves, uint64_t va, uint64_t gpa,
		      uint64_t len, uint64_t flags)
{
	table(pv, T_UPPER)[index_at(va, 2)] = table_entry(pv, dir);
	table(pv, dir)[index_at(va, 1)] = table_entry(pv, leaves);
	for (uint64_t i = 0; i < len / KEEL_PAGE_SIZE; i++)
		table(pv, leaves)[i] = (gpa + i * KEEL_PAGE_SIZE) | flags;
}

/* dir: the first of as many tables as the range has GiB. */
static void map_large(const struct pv *pv, unsigned int dir, uint64_t va, uint64_t gpa, uint64_t len, uint64_t flags)
{
	for (uint64_t at = 0; at < len; at += LARGE) {
		unsigned int t = dir + (unsigned int)(at / GIB);

		table(pv, T_UPPER)[index_at(va + at, 2)] = table_entry(pv, t);
		table(pv, t)[index_at(va + at, 1)] = (gpa + at) | flags | PTE_PS;
	}
}

static unsigned int tables_needed(const struct partition *p)
{
	return T_RAM_DIR + (unsigned int)((p->ram_size + GIB - 1) / GIB);
}

/*
 * What user code's page tables have of the window: the text and a door for each vCPU, and
 * nothing for a processor that speculates beyond the U bit to find.
 */
static void build_user_window(struct pv *pv)
{
	table(pv, T_USER_UPPER)[index_at(MON_GATE_VA, 2)] = table_entry(pv, T_TEXT_DIR);
	table(pv, T_USER_UPPER)[index_at(MON_VCPU_VA, 2)] = table_entry(pv, T_DOOR_DIR);
	for (unsigned int i = 0; i < pv->mm.p->vcpus; i++) {
		const uint64_t off = i * MON_BLOCK_SIZE + PV_DOOR_OFF, va = MON_VCPU_VA + off;
		const unsigned int t = T_DOOR + (unsigned int)(off / LARGE);

		table(pv, T_DOOR_DIR)[index_at(va, 1)] = table_entry(pv, t);
		table(pv, t)[index_at(va, 0)] = (PV_DATA_GPA + off) | (W_WRITE & ~PTE_G);
	}
}

/* Where there are PCIDs the TLB keeps the guest kernel's entries apart from user code's; otherwise global ones are kept. */
static void build_window(struct pv *pv, bool pcid)
{
	const struct partition *p = pv->mm.p;
	const uint64_t flags = pcid ? W_WRITE & ~PTE_G : W_WRITE;

	table(pv, T_ROOT)[index_at(KEEL_VA_END, 3)] = table_entry(pv, T_UPPER);
	map_small(pv, T_TEXT_DIR, T_TEXT, MON_GATE_VA, PV_TEXT_GPA, pv->text_size, W_TEXT);
	map_small(pv, T_ABI_DIR, T_ABI, MON_ABI_VA, PV_RAM_GPA + p->abi_gpa, p->abi_size, W_READ);
	/* The last large page may reach beyond the memory slot, where nothing is. */
	map_large(pv, T_DATA_DIR, MON_VCPU_VA, PV_DATA_GPA, pv->mm.size, flags);
	map_large(pv, T_RAM_DIR, MON_RAM_VA, PV_RAM_GPA, p->ram_size, flags);
	build_user_window(pv);
}

_Static_assert(PV_GDT_OFF + PV_TR(PARTITION_VCPUS) <= PV_TSS_OFF(0) && PV_TSS_OFF(PARTITION_VCPUS) <= PV_IDT_OFF,
	       "pv.h");

/* Descriptor tables, behind the monitor's text and as read-only: accessed and busy bits are set already. */
static void build_descriptors(struct pv *pv)
{
	uint8_t *at = pv->text + pv->text_size - PV_TABLES_SIZE;
	const uint64_t va = MON_GATE_VA + pv->text_size - PV_TABLES_SIZE;
	uint64_t *gdt = (uint64_t *)(at + PV_GDT_OFF), *idt = (uint64_t *)(at + PV_IDT_OFF);

	gdt[PV_CS / 8] = 0x00af9b000000ffff; /* 64-bit code, CPL 0 */
	gdt[PV_SS / 8] = 0x00cf93000000ffff;
	gdt[PV_USER_SS / 8] = 0x00cff3000000ffff;
	gdt[PV_USER_CS / 8] = 0x00affb000000ffff; /* 64-bit code, CPL 3; there is none of 32 bits */
	for (unsigned int n = 0; n < pv->mm.p->vcpus; n++) {
		const uint64_t tss = va + PV_TSS_OFF(n), ist = MON_VCPU_VA + n * MON_BLOCK_SIZE + PV_IST_TOP;

		gdt[PV_TR(n) / 8] = 0x00008b0000000067 | (tss & 0xffffff) << 16 | (tss >> 24 & 0xff) << 56;
		gdt[PV_TR(n) / 8 + 1] = tss >> 32;
		memcpy(at + PV_TSS_OFF(n) + 36, &ist, sizeof(ist));	 /* IST 1 */
		memcpy(at + PV_TSS_OFF(n) + 102, &(uint16_t){ 104 }, 2); /* no I/O bitmap */
	}
	for (unsigned int n = 0; n < 256; n++) {
		uint64_t to = MON_GATE_VA + PV_VECTORS_OFF + n * PV_VECTOR_SIZE;
		const uint64_t type = n == KEEL_VEC_BP ? 0xee : 0x8e; /* `int3` is user code's as well */

		/* Present interrupt gate, IST 1. */
		idt[2 * n] = (to & 0xffff) | PV_CS << 16 | UINT64_C(1) << 32 | type << 40 | (to >> 16 & 0xffff) << 48;
		idt[2 * n + 1] = to >> 32;
	}
}

/* What the monitor's code may use of this machine's processor. */
static void find_features(const struct kvm *k, struct pv_config *c)
{
	const struct kvm_cpuid_entry2 none = { 0 };
	const struct {
		uint32_t leaf, sub;
	} leaves[] = { { 0, 0 }, { 1, 0 }, { 7, 0 }, { 0xd, 1 }, { 0x80000008, 0 }, { KVM_CPUID_FEATURES, 0 } };
	enum { VENDOR, BASIC, EXTENDED, XSAVE, ADDRESSES, KVM, LEAVES };
	const struct kvm_cpuid_entry2 *e[LEAVES];

	for (unsigned int i = 0; i < LEAVES; i++) {
		e[i] = kvm_cpuid_find(k, leaves[i].leaf, leaves[i].sub);
		if (!e[i])
			e[i] = &none;
	}
	c->fsgsbase = !!(e[EXTENDED]->ebx & bit_FSGSBASE);
	c->xsave = !!(e[BASIC]->ecx & bit_XSAVE);
	c->xsaveopt = c->xsave && e[XSAVE]->eax & CPUIDD1_EAX_XSAVEOPT;
	c->pcid = !!(e[BASIC]->ecx & CPUID1_ECX_PCID);
	c->invpcid = c->pcid && e[EXTENDED]->ebx & CPUID7_EBX_INVPCID;
	c->fip_stays = (e[VENDOR]->ebx == signature_AMD_ebx || e[VENDOR]->ebx == VENDOR_HYGON_EBX) &&
		       !(e[ADDRESSES]->ebx & CPUID80000008_EBX_XSAVEERPTR);
	c->pv_eoi = !!(e[KVM]->eax & 1u << KVM_FEATURE_PV_EOI);
	/* KVM's own hypercall, where it offers that one; the instruction for it is the vendor's. */
	if (e[KVM]->eax & 1u << KVM_FEATURE_PV_SCHED_YIELD)
		c->yield = e[VENDOR]->ebx == signature_INTEL_ebx ? PV_YIELD_VMCALL
			   : e[VENDOR]->ebx == signature_AMD_ebx ? PV_YIELD_VMMCALL
								 : PV_YIELD_NONE;
}

static int build_memory(struct kvm *k)
{
	struct pv *pv = pv_of(k);
	struct partition *p = k->p;
	const size_t image = (size_t)(kvm_pv_image_end - kvm_pv_image);
	struct pv_config *c;
	struct mon *m;
	int err;

	err = monmem_create(&pv->mm, p, "kvm", tables_needed(p) * KEEL_PAGE_SIZE);
	if (err)
		return err;
	pv->tables_off = pv->mm.size - tables_needed(p) * KEEL_PAGE_SIZE;
	m = monmem_mon(&pv->mm);
	m->ram_base = PV_RAM_GPA;
	m->arena_base = PV_DATA_GPA + pv->mm.arena_off;

	pv->text_size = round_up(image, KEEL_PAGE_SIZE) + PV_TABLES_SIZE;
	pv->text = mmap(NULL, pv->text_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pv->text == MAP_FAILED) {
		pv->text = NULL;
		return -ENOMEM;
	}
	memcpy(pv->text, kvm_pv_image, image);
#ifdef KEEL_BUGS
	*(unsigned int *)(pv->text + PV_BUG_OFF) = getenv("KEEL_BUG") ? (unsigned int)atoi(getenv("KEEL_BUG")) : 0;
#endif
	build_descriptors(pv);

	c = (struct pv_config *)m->backend;
	_Static_assert(sizeof(*c) <= sizeof(m->backend), "mon.backend");
	find_features(k, c);
	build_window(pv, c->pcid);
	c->window = table_entry(pv, T_UPPER);
	c->user_window = table_entry(pv, T_USER_UPPER);
	{
		int khz = ioctl(k->vcpu[0].fd, KVM_GET_TSC_KHZ, 0);

		c->tsc_mult = (UINT64_C(1000000) << 32) / (khz > 0 ? (uint64_t)khz : 1000000);
	}

	/* Where the kernel gives large pages to those who ask: fewer misses in two dimensions. */
	madvise(p->ram, p->ram_size, MADV_HUGEPAGE);
	err = kvm_slot(k, KVM_SLOT_RAM, PV_RAM_GPA, p->ram_size, p->ram, 0);
	if (!err)
		err = kvm_slot(k, KVM_SLOT_ABI, PV_RAM_GPA + p->abi_gpa, p->abi_size, p->abi, KVM_MEM_READONLY);
	if (!err)
		err = kvm_slot(k, KVM_SLOT_TEXT, PV_TEXT_GPA, pv->text_size, pv->text, KVM_MEM_READONLY);
	if (!err)
		err = kvm_slot(k, KVM_SLOT_DATA, PV_DATA_GPA, pv->mm.size, pv->mm.mem, 0);
	if (err)
		host_say("kvm: giving the guest its memory: %s", strerror(-err));
	return err;
}

/* A doorbell each by what is written: 0 is the event loop's, 1 + n device n's. */
static int connect_bell(struct kvm *k, uint32_t value, int fd)
{
	struct kvm_ioeventfd bell = { .addr = PV_PORT_DOORBELL,
				      .len = 4,
				      .fd = fd,
				      .datamatch = value,
				      .flags = KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH };

	return ioctl(k->vm_fd, KVM_IOEVENTFD, &bell) ? -errno : 0;
}

/* Doorbells go to who waits on them, a kick comes as a message-signalled interrupt; neither leaves the kernel. */
static int connect(struct kvm *k)
{
	struct pv *pv = pv_of(k);
	union {
		struct kvm_irq_routing table;
		uint8_t room[sizeof(struct kvm_irq_routing) + PARTITION_VCPUS * sizeof(struct kvm_irq_routing_entry)];
	} route = { .table.nr = k->vcpus };
	int err = 0;

	for (unsigned int i = 0; i < k->vcpus; i++)
		route.table.entries[i] = (struct kvm_irq_routing_entry){ .gsi = i,
									 .type = KVM_IRQ_ROUTING_MSI,
									 .u.msi = { .address_lo = MSI_ADDRESS(i),
										    .data = PV_VECTOR_KICK } };
	if (ioctl(k->vm_fd, KVM_SET_GSI_ROUTING, &route.table))
		err = -errno;
	if (!err)
		err = connect_bell(k, 0, k->p->doorbell_fd);
	for (unsigned int i = 0; !err && i < k->p->devices; i++)
		err = connect_bell(k, 1 + i, device_bell(k->p->device[i]));
	for (unsigned int i = 0; !err && i < k->vcpus; i++) {
		struct kvm_irqfd kick = { .gsi = i };

		pv->kick_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		kick.fd = (uint32_t)pv->kick_fd[i];
		if (pv->kick_fd[i] < 0 || ioctl(k->vm_fd, KVM_IRQFD, &kick))
			err = -errno;
	}
	if (err)
		host_say("kvm: connecting doorbell and kicks: %s", strerror(-err));
	return err;
}

static void set_segment(struct kvm_segment *s, uint16_t selector, uint8_t type, bool code)
{
	*s = (struct kvm_segment){
		.limit = 0xffffffff, .selector = selector, .type = type, .present = 1, .s = 1, .g = 1
	};
	s->l = code;
	s->db = !code;
}

static int set_registers(struct kvm_vcpu *c)
{
	static const struct {
		uint32_t leaf, sub;
		bool ecx;
		uint32_t bit, cr4;
	} optional[] = {
		{ 1, 0, true, bit_XSAVE, CR4_OSXSAVE }, { 7, 0, false, bit_FSGSBASE, CR4_FSGSBASE },
		{ 7, 0, false, 1u << 7, CR4_SMEP },	{ 7, 0, false, 1u << 20, CR4_SMAP },
		{ 7, 0, true, 1u << 2, CR4_UMIP },	{ 1, 0, true, CPUID1_ECX_PCID, CR4_PCIDE },
	};
	struct pv *pv = pv_of(c->k);
	const uint64_t tables = MON_GATE_VA + pv->text_size - PV_TABLES_SIZE;
	const uint64_t block = MON_VCPU_VA + c->id * MON_BLOCK_SIZE;
	struct kvm_fpu fpu = { .fcw = 0x37f, .mxcsr = 0x1f80 };
	struct kvm_regs r = {
		.rip = MON_GATE_VA + PV_START_OFF, .rsp = block + MON_STACK_TOP, .rdi = block, .rflags = 0x202
	};
	struct kvm_sregs s;

	if (ioctl(c->fd, KVM_GET_SREGS, &s))
		return -errno;
	set_segment(&s.cs, PV_CS, 0xb, true);
	set_segment(&s.ss, PV_SS, 0x3, false);
	s.ds = s.es = s.fs = s.gs = s.ss;
	s.gs.base = block;
	s.tr = (struct kvm_segment){
		.base = tables + PV_TSS_OFF(c->id), .limit = 0x67, .selector = PV_TR(c->id), .type = 0xb, .present = 1
	};
	s.ldt = (struct kvm_segment){ .type = 0x2, .unusable = 1 };
	s.gdt.base = tables + PV_GDT_OFF;
	s.gdt.limit = PV_TR(c->k->vcpus) - 1;
	s.idt.base = tables + PV_IDT_OFF;
	s.idt.limit = 0xfff;
	s.cr0 = CR0_GUEST;
	s.cr3 = PV_DATA_GPA + pv->tables_off + T_ROOT * KEEL_PAGE_SIZE;
	s.cr4 = CR4_GUEST;
	for (size_t i = 0; i < sizeof(optional) / sizeof(optional[0]); i++) {
		const struct kvm_cpuid_entry2 *e = kvm_cpuid_find(c->k, optional[i].leaf, optional[i].sub);

		if (e && (optional[i].ecx ? e->ecx : e->ebx) & optional[i].bit)
			s.cr4 |= optional[i].cr4;
	}
	s.efer = EFER_GUEST;
	s.apic_base |= APIC_X2;
	if (ioctl(c->fd, KVM_SET_SREGS, &s) || ioctl(c->fd, KVM_SET_REGS, &r) || ioctl(c->fd, KVM_SET_FPU, &fpu)) {
		int err = -errno;

		host_say("kvm: setting a vCPU's registers: %s", strerror(errno));
		return err;
	}
	return 0;
}

/* What the start info says of the processor is what this machine shows of it. */
static void limit_cpu(struct kvm *k)
{
	static const struct {
		uint32_t leaf, sub;
		size_t reg;
	} words[8] = {
		{ 1, 0, offsetof(struct kvm_cpuid_entry2, ecx) },
		{ 1, 0, offsetof(struct kvm_cpuid_entry2, edx) },
		{ 7, 0, offsetof(struct kvm_cpuid_entry2, ebx) },
		{ 7, 0, offsetof(struct kvm_cpuid_entry2, ecx) },
		{ 7, 0, offsetof(struct kvm_cpuid_entry2, edx) },
		{ 0x80000001, 0, offsetof(struct kvm_cpuid_entry2, ecx) },
		{ 0x80000001, 0, offsetof(struct kvm_cpuid_entry2, edx) },
		{ 7, 1, offsetof(struct kvm_cpuid_entry2, eax) },
	};
	uint32_t word[8] = { 0 };

	for (unsigned int i = 0; i < 8; i++) {
		const struct kvm_cpuid_entry2 *e = kvm_cpuid_find(k, words[i].leaf, words[i].sub);

		if (e)
			memcpy(&word[i], (const uint8_t *)e + words[i].reg, sizeof(word[i]));
	}
	if (k->xfeatures)
		word[0] |= bit_OSXSAVE;
	startinfo_limit_cpu(k->p, word, k->xfeatures ? k->xfeatures : 3);
}

/* Where `syscall` goes. Here, for they are exits where the monitor would have to write them. */
static int set_msrs(const struct kvm_vcpu *c)
{
	const struct kvm_msr_entry entries[] = { { .index = MSR_STAR, .data = PV_STAR },
						 { .index = MSR_LSTAR, .data = MON_GATE_VA + PV_SYSCALL_OFF },
						 { .index = MSR_FMASK, .data = PV_FMASK } };
	union {
		struct kvm_msrs msrs;
		uint8_t room[sizeof(struct kvm_msrs) + sizeof(entries)];
	} set = { .msrs.nmsrs = sizeof(entries) / sizeof(entries[0]) };

	memcpy(set.msrs.entries, entries, sizeof(entries));
	if (ioctl(c->fd, KVM_SET_MSRS, &set) == (int)set.msrs.nmsrs)
		return 0;
	host_say("kvm: setting where system calls of user code go");
	return -EIO;
}

static int pv_create(struct kvm *k)
{
	struct pv *pv = calloc(1, sizeof(*pv));
	int err;

	if (!pv)
		return -ENOMEM;
	pv->mm.fd = -1;
	memset(pv->kick_fd, -1, sizeof(pv->kick_fd));
	k->own = pv;
	limit_cpu(k);
	err = build_memory(k);
	if (!err)
		err = connect(k);
	for (unsigned int i = 0; !err && i < k->vcpus; i++) {
		err = set_registers(&k->vcpu[i]);
		if (!err)
			err = set_msrs(&k->vcpu[i]);
	}
	return err;
}

/* Exits */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* The range was checked by the monitor, which is the guest's by now: once more. */
static int64_t release(struct partition *p, uint64_t gpa, uint64_t pages)
{
	if (gpa % KEEL_PAGE_SIZE || pages > p->ram_size / KEEL_PAGE_SIZE || gpa > p->ram_size - pages * KEEL_PAGE_SIZE)
		return KEEL_STATUS(KEEL_E_FAULT, KEEL_AT_ARG(1));
	if (!pages)
		return KEEL_OK;
	/* By address: the seal lets this thread do nothing with descriptors but running the guest. */
	return madvise(p->ram + gpa, pages * KEEL_PAGE_SIZE, MADV_REMOVE) ? KEEL_STATUS(KEEL_E_AGAIN, 0) : KEEL_OK;
}

static enum kvm_next remote(struct kvm_vcpu *c)
{
	struct pv *pv = pv_of(c->k);
	uint64_t arg[5];
	uint32_t id;

	switch (monmem_serve(&pv->mm, c->id, &id, arg)) {
	case MONMEM_ENDED:
		return KVM_NEXT_END;
	case MONMEM_ANSWERED:
		return KVM_NEXT_RUN;
	case MONMEM_OTHERS:
		break;
	}
	switch (id) {
	case MON_REMOTE_READY:
		if (c->id || __atomic_load_n(&c->k->state, __ATOMIC_SEQ_CST) != KVM_STARTING)
			break;
		if (arg[0])
			host_say("kvm: the guest could not be built: the image's first mappings: out of page tables");
		monmem_answer(&pv->mm, c->id, KEEL_OK, 0);
		return kvm_ready(c, arg[0] ? -ENOMEM : 0) ? KVM_NEXT_RUN : KVM_NEXT_END;
	case MON_REMOTE_PARKED:
		monmem_answer(&pv->mm, c->id, KEEL_OK, 0);
		return kvm_park(c) ? KVM_NEXT_RUN : KVM_NEXT_END;
	case PV_REMOTE_NOW:
		monmem_answer(&pv->mm, c->id, KEEL_OK, now_ns());
		return KVM_NEXT_RUN;
	case PV_REMOTE_RELEASE:
		monmem_answer(&pv->mm, c->id, release(c->k->p, arg[0], arg[1]), 0);
		return KVM_NEXT_RUN;
	}
	monmem_answer(&pv->mm, c->id, KEEL_STATUS(KEEL_E_NOSYS, 0), 0);
	return KVM_NEXT_RUN;
}

static enum kvm_next pv_exit(struct kvm_vcpu *c)
{
	const struct kvm_run *run = c->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		if (run->io.port == PV_PORT_REMOTE && run->io.direction == KVM_EXIT_IO_OUT)
			return remote(c);
		/* A doorbell that nobody has. */
		if (run->io.port == PV_PORT_DOORBELL && run->io.direction == KVM_EXIT_IO_OUT)
			return KVM_NEXT_RUN;
		return kvm_crash(c, "I/O port %#x: a paravirtual guest has none", run->io.port);
	case KVM_EXIT_MMIO:
		return kvm_crash(c, "%s physical address %#llx, where this guest has %s",
				 run->mmio.is_write ? "wrote to" : "read from", (unsigned long long)run->mmio.phys_addr,
				 run->mmio.is_write ? "nothing it may write" : "nothing");
	case KVM_EXIT_HLT:
		return kvm_crash(c, "halted for ever");
	default:
		return kvm_crash(c, "an exit nobody asked for: %u", run->exit_reason);
	}
}

static void pv_kick(struct kvm *k, unsigned int vcpu)
{
	const uint64_t one = 1;

	if (!monmem_kicks(&pv_of(k)->mm, vcpu))
		return;
	/* A counter that is full has been kicked. */
	if (write(pv_of(k)->kick_fd[vcpu], &one, sizeof(one)) < 0 && errno != EAGAIN)
		host_say("kvm: cannot kick a vCPU: %s", strerror(errno));
}

static int64_t pv_vcpu_start(struct kvm *k, unsigned int vcpu, uint64_t entry, uint64_t opaque)
{
	return monmem_start(&pv_of(k)->mm, vcpu, entry, opaque);
}

static int64_t pv_vcpu_stop(struct kvm *k, unsigned int vcpu)
{
	int64_t status = monmem_stop(&pv_of(k)->mm, vcpu);

	if (status != KEEL_OK)
		pv_kick(k, vcpu);
	return status;
}

static void pv_dump(struct kvm *k, unsigned int vcpu)
{
	__atomic_store_n(&monmem_vcpu(&pv_of(k)->mm, vcpu)->dump_pending, 1, __ATOMIC_SEQ_CST);
	pv_kick(k, vcpu);
}

/* Afterwards */

static bool pv_next_mapping(struct kvm *k, uint64_t va, struct mapping *m)
{
	return monmem_next_mapping(&pv_of(k)->mm, va, m);
}

static bool pv_snapshot(struct kvm *k, unsigned int vcpu, struct crash_info *c)
{
	struct pv *pv = pv_of(k);
	struct keel_frame *f = &pv->mm.seen[vcpu];

	/* Of one in user code the call that entered it is shown. */
	if (!(pv->mm.fatal.kind && pv->mm.fatal_vcpu == vcpu) && kvm_registers(&k->vcpu[vcpu], f) &&
	    f->mode == KEEL_MODE_KERNEL) {
		pv->mm.have_seen |= 1u << vcpu;
		f->addr = 0; /* CR2 of some fault long ago */
		f->rflags &= ~(uint64_t)KEEL_RFLAGS_IF;
		f->rflags |= keel_shared_load8(&k->p->vcpu[vcpu]->if_enabled) ? KEEL_RFLAGS_IF : 0;
	}
	return monmem_snapshot(&pv->mm, vcpu, c);
}

static unsigned int pv_counters(struct kvm *k, struct keel_stats_entry *e, unsigned int max)
{
	return monmem_counters(&pv_of(k)->mm, e, max);
}

static void pv_stats(struct kvm *k, FILE *f)
{
	monmem_stats(&pv_of(k)->mm, f);
}

static void pv_destroy(struct kvm *k)
{
	struct pv *pv = pv_of(k);

	if (!pv)
		return;
	monmem_destroy(&pv->mm);
	if (pv->text)
		munmap(pv->text, pv->text_size);
	for (unsigned int i = 0; i < PARTITION_VCPUS; i++)
		if (pv->kick_fd[i] >= 0)
			close(pv->kick_fd[i]);
	free(pv);
	k->own = NULL;
}

const struct kvm_flavour kvm_pv = {
	.boots = true,
	.max_vcpus = PARTITION_VCPUS,
	.create = pv_create,
	.exit = pv_exit,
	.vcpu_start = pv_vcpu_start,
	.vcpu_stop = pv_vcpu_stop,
	.kick = pv_kick,
	.dump = pv_dump,
	.destroy = pv_destroy,
	.next_mapping = pv_next_mapping,
	.snapshot = pv_snapshot,
	.stats = pv_stats,
	.counters = pv_counters,
};
