// SPDX-License-Identifier: MIT
/* Runs the unit tests of the host; KTAP on stdout. Also the fixtures they share. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../seal.h"
#include "tests.h"

static void note(Elf64_Nhdr *nh, char *name, uint32_t type, uint32_t size)
{
	*nh = (Elf64_Nhdr){ sizeof(KEEL_NOTE_NAME), size, type };
	memcpy(name, KEEL_NOTE_NAME, sizeof(KEEL_NOTE_NAME));
}

void test_image_init(struct test_image *t)
{
	static const char strings[] = "\0start\0middle\0end\0";

	memset(t, 0, sizeof(*t));
	t->eh = (Elf64_Ehdr){ .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
			      .e_type = ET_EXEC,
			      .e_machine = EM_X86_64,
			      .e_version = EV_CURRENT,
			      .e_entry = TEXT_VA + 0x10,
			      .e_phoff = offsetof(struct test_image, ph),
			      .e_shoff = offsetof(struct test_image, sh),
			      .e_ehsize = sizeof(Elf64_Ehdr),
			      .e_phentsize = sizeof(Elf64_Phdr),
			      .e_phnum = 3,
			      .e_shentsize = sizeof(Elf64_Shdr),
			      .e_shnum = 3 };
	t->ph[PH_TEXT] = (Elf64_Phdr){ .p_type = PT_LOAD,
				       .p_flags = PF_R | PF_X,
				       .p_offset = offsetof(struct test_image, text),
				       .p_vaddr = TEXT_VA,
				       .p_paddr = TEXT_GPA,
				       .p_filesz = sizeof(t->text),
				       .p_memsz = sizeof(t->text),
				       .p_align = 4096 };
	t->ph[PH_DATA] = (Elf64_Phdr){ .p_type = PT_LOAD,
				       .p_flags = PF_R | PF_W,
				       .p_offset = offsetof(struct test_image, data),
				       .p_vaddr = DATA_VA,
				       .p_paddr = DATA_GPA,
				       .p_filesz = sizeof(t->data),
				       .p_memsz = 0x3001,
				       .p_align = 4096 };
	t->ph[PH_NOTES] = (Elf64_Phdr){ .p_type = PT_NOTE,
					.p_flags = PF_R,
					.p_offset = offsetof(struct test_image, abi),
					.p_filesz = offsetof(struct test_image, sh) - offsetof(struct test_image, abi),
					.p_align = 4 };
	note(&t->abi.nh, t->abi.name, KEEL_NOTE_ABI, sizeof(t->abi.desc));
	t->abi.desc[0] = KEEL_ABI_MAJOR;
	note(&t->required.nh, t->required.name, KEEL_NOTE_REQUIRED, sizeof(t->required.desc));
	t->required.desc[0] = 1u << KEEL_EXT_BASE | 1u << KEEL_EXT_CONSOLE;
	note(&t->linear.nh, t->linear.name, KEEL_NOTE_LINEAR, sizeof(t->linear.desc));
	t->linear.desc[1] = LINEAR_VA >> 32;
	note(&t->memory.nh, t->memory.name, KEEL_NOTE_MEMORY, sizeof(t->memory.desc));
	t->memory.desc[0] = 2 << 20;
	t->sh[1] = (Elf64_Shdr){ .sh_type = SHT_SYMTAB,
				 .sh_offset = offsetof(struct test_image, sym),
				 .sh_size = sizeof(t->sym),
				 .sh_entsize = sizeof(Elf64_Sym),
				 .sh_link = 2 };
	t->sh[2] = (Elf64_Shdr){ .sh_type = SHT_STRTAB,
				 .sh_offset = offsetof(struct test_image, strings),
				 .sh_size = sizeof(t->strings) };
	memcpy(t->strings, strings, sizeof(strings));
	/* In no order, as linkers leave them; "end" has no size. */
	t->sym[1] = (Elf64_Sym){ 14, ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE), 0, 1, TEXT_VA + 0x40, 0 };
	t->sym[2] = (Elf64_Sym){ 1, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC), 0, 1, TEXT_VA + 0x10, 0x10 };
	t->sym[3] = (Elf64_Sym){ 7, ELF64_ST_INFO(STB_LOCAL, STT_FUNC), 0, 1, TEXT_VA + 0x20, 0x10 };
	memset(t->text, 0x90, sizeof(t->text));
	memset(t->data, 0xdd, sizeof(t->data));
}

int test_image_fd(const void *t, size_t size)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, t, size), size);
	return fd;
}

int test_image_open(struct image *img, const struct test_image *t, struct error *e)
{
	return image_open_fd(img, test_image_fd(t, sizeof(*t)), "IMAGE", e);
}

/* The boot map, as the monitor would have applied it. */
static bool next_mapping(struct partition *p, uint64_t va, struct mapping *m)
{
	const struct keel_mmu_record *best = NULL;

	for (unsigned int i = 0; i < p->boot_records; i++) {
		const struct keel_mmu_record *r = &p->boot_map[i];

		if (r->va + r->len > va && (!best || r->va < best->va))
			best = r;
	}
	if (best)
		*m = (struct mapping){ best->va, best->gpa, best->len, best->prot };
	return best != NULL;
}

static unsigned int kicks;

static void kick(struct partition *p, unsigned int vcpu)
{
	(void)p;
	(void)vcpu;
	kicks++;
}

const struct backend_ops test_backend = { .name = "test", .kick = kick, .next_mapping = next_mapping };

void test_partition(struct partition *p, struct keel_options *opt, struct image *img)
{
	struct error e = { "" };

	if (partition_create(p, opt, img, &e))
		fail_msg("%s", e.text);
	p->ops = &test_backend;
}

/* Threads of devices are not sealed here: the sanitizers could not work. */
int seal_thread_filter(const struct seal_table *table, const struct seal_calls *calls, struct sock_fprog *prog,
		       struct error *e)
{
	(void)table;
	(void)calls;
	(void)prog;
	(void)e;
	return 0;
}

int seal_thread(const struct sock_fprog *prog)
{
	(void)prog;
	return 0;
}

/* Runs all, or those whose name matches a pattern with * and ? in it. */
int main(int argc, char **argv)
{
	static const struct {
		const struct CMUnitTest *tests;
		const size_t *count;
	} files[] = {
		{ image_tests, &image_count },	       { startinfo_tests, &startinfo_count },
		{ options_tests, &options_count },     { console_tests, &console_count },
		{ report_tests, &report_count },       { core_tests, &core_count },
		{ clock_tests, &clock_count },	       { as_tests, &as_count },
		{ timer_tests, &timer_count },	       { hvmimage_tests, &hvmimage_count },
		{ hvmserial_tests, &hvmserial_count }, { probe_tests, &probe_count },
		{ monmem_tests, &monmem_count },       { virtqueue_tests, &virtqueue_count },
		{ device_tests, &device_count },       { net_tests, &net_count },
		{ serial_tests, &serial_count },       { block_tests, &block_count },
	};
	struct CMUnitTest all[160];
	size_t n = 0;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		for (size_t k = 0; k < *files[i].count; k++) {
			if (n == sizeof(all) / sizeof(all[0])) {
				fprintf(stderr, "more tests than the table holds\n");
				return 1;
			}
			all[n++] = files[i].tests[k];
		}
	signal(SIGPIPE, SIG_IGN); /* as keel run does */
	puts("KTAP version 1");
	fflush(stdout);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return _cmocka_run_group_tests("host", all, n, NULL, NULL) ? 1 : 0;
}
