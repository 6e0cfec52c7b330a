/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/*
 * AS: address spaces for guest user code. A handle is
 *
 *	generation[62:32] | index[31:0]      index 0 is the guest kernel's own, handle 0
 *
 * so that one kept after as_destroy names nothing any more (KEEL-AS-09).
 */
#ifndef KEEL_AS_H
#define KEEL_AS_H

#include <keel/types.h>

#define KEEL_AS_KERNEL KEEL_U64(0) /* the guest kernel's own */

/* as_create: flags; none are defined. as_clone: flags */
#define KEEL_AS_CLONE_SHARE KEEL_U64(1) /* writable pages stay writable in both: memory is shared */

/* as_info: what */
#define KEEL_AS_INFO_PAGES 0   /* pages mapped */
#define KEEL_AS_INFO_TABLES 1  /* page-table pages it uses of KEEL_LIMIT_AS_TABLES */
#define KEEL_AS_INFO_RUNNING 2 /* vCPUs that run guest user code in it now */
#define KEEL_AS_INFO_COUNT 3

#endif
