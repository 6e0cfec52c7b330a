// SPDX-License-Identifier: MIT
/*
 * One partition's memory and its way to the backend. RAM and ABI pages are
 * sealed memfds: RAM cannot shrink under the host's mapping, and nobody but
 * that mapping can write the ABI pages, whoever else gets the descriptor.
 */
#include "partition.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <hypercall/event.h>

#include "calls.h"
#include "clock.h"
#include "hvmboot.h"
#include "hvmimage.h"
#include "image.h"
#include "log.h"
#include "startinfo.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define ABI_SIZE (STARTINFO_OFFSET + STARTINFO_SIZE)
#define ABI_GAP (KEEL_U64(2) << 20) /* between RAM and the ABI pages, so that running off RAM faults */

static int memfd(const char *name, uint64_t size)
{
	int fd = (int)syscall(SYS_memfd_create, name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	/* Linux before 6.3 does not know the flag; there the file cannot be executed either, only not for good. */
	if (fd < 0 && errno == EINVAL)
		fd = (int)syscall(SYS_memfd_create, name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd >= 0 && ftruncate(fd, (off_t)size)) {
		int err = errno;

		close(fd);
		errno = err;
		return -1;
	}
	return fd;
}

static int make_ram(struct partition *p, struct error *e)
{
	uint64_t mib = p->ram_size >> 20;

	p->ram_fd = memfd("keel-ram", p->ram_size);
	if (p->ram_fd < 0)
		return error_set(e, "cannot make %lu MiB of memory: %s", mib, strerror(errno));
	p->ram = mmap(NULL, p->ram_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, p->ram_fd, 0);
	if (p->ram == MAP_FAILED) {
		p->ram = NULL;
		return error_set(e, "cannot map %lu MiB of memory: %s", mib, strerror(errno));
	}
	/* The dump of a crashing host shall not be the guest's. */
	madvise(p->ram, p->ram_size, MADV_DONTDUMP);
	if (fcntl(p->ram_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return error_set(e, "cannot seal memory: %s", strerror(errno));
	return 0;
}

static int make_abi(struct partition *p, struct error *e)
{
	p->abi_size = ABI_SIZE;
	p->abi_gpa = p->ram_size + ABI_GAP;
	p->abi_fd = memfd("keel-abi", p->abi_size);
	if (p->abi_fd < 0)
		return error_set(e, "cannot make ABI pages: %s", strerror(errno));
	p->abi = mmap(NULL, p->abi_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->abi_fd, 0);
	if (p->abi == MAP_FAILED) {
		p->abi = NULL;
		return error_set(e, "cannot map ABI pages: %s", strerror(errno));
	}
	if (fcntl(p->abi_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return error_set(e, "cannot seal ABI pages: %s", strerror(errno));
	return 0;
}

int partition_create(struct partition *p, const struct keel_options *opt, struct image *image, struct error *e)
{
	struct module module = { 0, 0 };

	memset(p, 0, sizeof(*p));
	p->opt = opt;
	p->image = image;
	p->ram_size = opt->mem;
	p->ram_fd = p->abi_fd = p->doorbell_fd = p->end_fd = -1;
	p->clock.source_fd = -1;
	p->vcpus = opt->vcpus;
	pthread_mutex_init(&p->lock, NULL);
	p->doorbell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->doorbell_fd < 0 || p->end_fd < 0) {
		error_set(e, "cannot make an eventfd: %s", strerror(errno));
		goto fail;
	}
	if (make_ram(p, e) || make_abi(p, e))
		goto fail;
	clock_init(&p->clock, (struct keel_clock *)p->abi);
	p->offered[0] = calls_offered();
	if (p->clock.page->flags & KEEL_CLOCK_VALID)
		p->offered[1] |= KEEL_U64(1) << KEEL_F1_CLOCK_PAGE;
	p->offered[1] |= KEEL_U64(1) << KEEL_F1_SMP;
	if (opt->hvm ? hvmimage_load(image, p, e) : image_load(image, p, e))
		goto fail;
	if (opt->initrd && module_load(&module, p, opt->initrd, e))
		goto fail;
	if (opt->hvm)
		hvmboot_build(p, &module, opt->cmdline);
	else if (startinfo_build(p, &module, p->clock.tsc_hz, e))
		goto fail;
	return 0;
fail:
	partition_destroy(p);
	return -1;
}

void partition_destroy(struct partition *p)
{
	const int fds[] = { p->ram_fd, p->abi_fd, p->doorbell_fd, p->end_fd };

	clock_fini(&p->clock);
	if (p->ram)
		munmap(p->ram, p->ram_size);
	if (p->abi)
		munmap(p->abi, p->abi_size);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(p->boot_map);
	pthread_mutex_destroy(&p->lock);
	memset(p, 0, sizeof(*p));
	p->ram_fd = p->abi_fd = p->doorbell_fd = p->end_fd = p->clock.source_fd = -1;
}

static bool in_ram(const struct partition *p, uint64_t gpa, size_t len)
{
	return gpa <= p->ram_size && len <= p->ram_size - gpa;
}

bool partition_copy_from(struct partition *p, void *dst, uint64_t gpa, size_t len)
{
	if (!in_ram(p, gpa, len))
		return false;
	memcpy(dst, p->ram + gpa, len);
	/* The compiler may not go back to the source: the guest changes it while we look at the copy. */
	__asm__ volatile("" : : : "memory");
	return true;
}

bool partition_copy_to(struct partition *p, uint64_t gpa, const void *src, size_t len)
{
	if (!in_ram(p, gpa, len))
		return false;
	memcpy(p->ram + gpa, src, len);
	return true;
}

void partition_wrote(struct partition *p, uint64_t gpa, size_t len)
{
	/* The fence: whoever starts tracking after this look finds the bytes written. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!p->tracking || !__atomic_load_n(p->tracking, __ATOMIC_RELAXED) || !len)
		return;
	for (uint64_t page = gpa >> KEEL_PAGE_SHIFT; page <= (gpa + len - 1) >> KEEL_PAGE_SHIFT; page++)
		__atomic_or_fetch(&p->hostlog[page / 8], (uint8_t)(1 << page % 8), __ATOMIC_SEQ_CST);
}

void partition_end(struct partition *p, const struct outcome *o)
{
	uint64_t one = 1;
	bool first;

	pthread_mutex_lock(&p->lock);
	first = p->outcome.kind == OUTCOME_NONE;
	if (first)
		p->outcome = *o;
	pthread_mutex_unlock(&p->lock);
	/* An eventfd that was never written cannot be full. */
	if (first && write(p->end_fd, &one, sizeof(one)) != sizeof(one))
		host_say("cannot signal the end of the partition: %s", strerror(errno));
}

void partition_raise(struct partition *p, const uint32_t *port)
{
	uint32_t to = port ? __atomic_load_n(port, __ATOMIC_ACQUIRE) - 1 : UINT32_MAX;
	unsigned int vcpu = KEEL_PORT_VCPU(to);

	if (to >> 24 || vcpu >= p->vcpus || !p->vcpu[vcpu])
		return;
	if (keel_ev_send(p->vcpu[vcpu], KEEL_PORT_BIT(to)))
		p->ops->kick(p, vcpu);
}
