/* SPDX-License-Identifier: MIT */
/*
 * Kernels for HVM partitions: an ELF vmlinux with a PVH entry, alone or inside a
 * bzImage. The file is untrusted: sizes are checked before they are believed, and
 * what a bzImage unpacks to is bounded by what its header says and by a limit.
 *
 * What comes out is a struct image like a guest's, whose descriptor is the ELF
 * file, so that the services that look into images find its symbols too.
 */
#ifndef KEEL_HOST_HVMIMAGE_H
#define KEEL_HOST_HVMIMAGE_H

#include <stdint.h>

#include "image.h"
#include "log.h"

#define HVM_RAM_MAX (UINT64_C(3) << 30) /* above are the machine's own addresses */
#define HVM_LOW_END UINT64_C(0x100000)	/* below is the host's to lay out: start info and tables */
#define HVM_PACKED_MAX (UINT64_C(256) << 20)
#define HVM_UNPACKED_MAX (UINT64_C(512) << 20)

/* Open, unpack and check everything that does not depend on the partition. 0, or -1 with the reason. */
int hvmimage_open(struct image *img, const char *path, struct error *e);
/* The same for a descriptor the image takes over. */
int hvmimage_open_fd(struct image *img, int fd, const char *name, struct error *e);

/* Put the kernel into p->ram and set p->entry, a physical address. May be called again for a rebuilt partition. */
int hvmimage_load(struct image *img, struct partition *p, struct error *e);

#endif
