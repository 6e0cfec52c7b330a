// SPDX-License-Identifier: GPL-2.0-only
/* What needs no more than the gate. */
#include <linux/errno.h>
#include <linux/export.h>
#include <linux/minmax.h>
#include <linux/string.h>

#include "keel_linux.h"

#define PROBE_ACCEPTED 4

int keel_errno(struct keel_ret ret)
{
	if (!ret.status)
		return 0;
	switch (KEEL_STATUS_CODE(ret.status)) {
	case KEEL_E_NOENT:
		return -ENOENT;
	case KEEL_E_NOMEM:
		return -ENOMEM;
	case KEEL_E_INVAL:
	case KEEL_E_RANGE:
	case KEEL_E_FAULT:
		return -EINVAL;
	case KEEL_E_NOTSUP:
	case KEEL_E_NOSYS:
		return -EOPNOTSUPP;
	case KEEL_E_PERM:
		return -EPERM;
	case KEEL_E_BUSY:
	case KEEL_E_EXIST:
	case KEEL_E_STATE:
		return -EBUSY;
	default:
		return -EIO;
	}
}
EXPORT_SYMBOL_GPL(keel_errno);

bool keel_accepted(unsigned int ext)
{
	struct keel_ret ret = keel_base_probe(ext);

	return !ret.status && ret.value & PROBE_ACCEPTED;
}
EXPORT_SYMBOL_GPL(keel_accepted);

void keel_write_early(const void *s, size_t n)
{
	while (n) {
		u64 w[KEEL_CONSOLE_WRITE_MAX / 8] = { 0 };
		u32 part = min_t(size_t, n, KEEL_CONSOLE_WRITE_MAX);

		memcpy(w, s, part);
		if (keel_console_write(part, w[0], w[1], w[2], w[3]).status)
			return;
		s += part;
		n -= part;
	}
}
