// SPDX-License-Identifier: GPL-2.0-only
/*
 * keel_core.ko: the shared C of libhypercall, unchanged, for kernel code that
 * speaks the Keel ABI. The sources serve guests too and know nothing of
 * modules, so what they offer is exported here.
 */
#include <linux/module.h>

#include <hypercall/batch.h>
#include <hypercall/clock.h>
#include <hypercall/event.h>
#include <hypercall/ring.h>
#include <hypercall/set.h>
#include <hypercall/start.h>
#include <hypercall/status.h>
#include <hypercall/user.h>
#include <hypercall/virtq.h>

EXPORT_SYMBOL_GPL(keel_batch_clear);
EXPORT_SYMBOL_GPL(keel_batch_flush);
EXPORT_SYMBOL_GPL(keel_batch_init);
EXPORT_SYMBOL_GPL(keel_batch_map);
EXPORT_SYMBOL_GPL(keel_batch_protect);
EXPORT_SYMBOL_GPL(keel_batch_unmap);

EXPORT_SYMBOL_GPL(keel_clock_mult);
EXPORT_SYMBOL_GPL(keel_clock_ns);
EXPORT_SYMBOL_GPL(keel_clock_sample);
EXPORT_SYMBOL_GPL(keel_clock_scale);
EXPORT_SYMBOL_GPL(keel_clock_ticks);

EXPORT_SYMBOL_GPL(keel_ev_clear);
EXPORT_SYMBOL_GPL(keel_ev_dispatch);
EXPORT_SYMBOL_GPL(keel_ev_mask);
EXPORT_SYMBOL_GPL(keel_ev_next);
EXPORT_SYMBOL_GPL(keel_ev_pending);
EXPORT_SYMBOL_GPL(keel_ev_send);
EXPORT_SYMBOL_GPL(keel_ev_test);
EXPORT_SYMBOL_GPL(keel_ev_unmask);

EXPORT_SYMBOL_GPL(keel_ring_arm);
EXPORT_SYMBOL_GPL(keel_ring_attach);
EXPORT_SYMBOL_GPL(keel_ring_avail);
EXPORT_SYMBOL_GPL(keel_ring_disarm);
EXPORT_SYMBOL_GPL(keel_ring_must_kick);
EXPORT_SYMBOL_GPL(keel_ring_pop);
EXPORT_SYMBOL_GPL(keel_ring_push);
EXPORT_SYMBOL_GPL(keel_ring_space_wanted);
EXPORT_SYMBOL_GPL(keel_ring_unwant_space);
EXPORT_SYMBOL_GPL(keel_ring_want_space);

EXPORT_SYMBOL_GPL(keel_set_add);
EXPORT_SYMBOL_GPL(keel_set_clear);
EXPORT_SYMBOL_GPL(keel_set_count);
EXPORT_SYMBOL_GPL(keel_set_first);
EXPORT_SYMBOL_GPL(keel_set_has);
EXPORT_SYMBOL_GPL(keel_set_next);
EXPORT_SYMBOL_GPL(keel_set_remove);
EXPORT_SYMBOL_GPL(keel_set_size);

EXPORT_SYMBOL_GPL(keel_cmdline_get);
EXPORT_SYMBOL_GPL(keel_start_abi);
EXPORT_SYMBOL_GPL(keel_start_check);
EXPORT_SYMBOL_GPL(keel_start_cmdline);
EXPORT_SYMBOL_GPL(keel_start_cpu);
EXPORT_SYMBOL_GPL(keel_start_entropy);
EXPORT_SYMBOL_GPL(keel_start_find);
EXPORT_SYMBOL_GPL(keel_start_linear);
EXPORT_SYMBOL_GPL(keel_start_memmap);
EXPORT_SYMBOL_GPL(keel_start_module);
EXPORT_SYMBOL_GPL(keel_start_ram);

EXPORT_SYMBOL_GPL(keel_status_format);
EXPORT_SYMBOL_GPL(keel_status_name);
EXPORT_SYMBOL_GPL(keel_status_valid);

EXPORT_SYMBOL_GPL(keel_user_arg);
EXPORT_SYMBOL_GPL(keel_user_copy);
EXPORT_SYMBOL_GPL(keel_user_fault_needs);
EXPORT_SYMBOL_GPL(keel_user_init);
EXPORT_SYMBOL_GPL(keel_user_reason);
EXPORT_SYMBOL_GPL(keel_user_size);

EXPORT_SYMBOL_GPL(keel_virtq_add);
EXPORT_SYMBOL_GPL(keel_virtq_avail_gpa);
EXPORT_SYMBOL_GPL(keel_virtq_desc_gpa);
EXPORT_SYMBOL_GPL(keel_virtq_detach);
EXPORT_SYMBOL_GPL(keel_virtq_disable);
EXPORT_SYMBOL_GPL(keel_virtq_enable);
EXPORT_SYMBOL_GPL(keel_virtq_get);
EXPORT_SYMBOL_GPL(keel_virtq_init);
EXPORT_SYMBOL_GPL(keel_virtq_must_notify);
EXPORT_SYMBOL_GPL(keel_virtq_publish);
EXPORT_SYMBOL_GPL(keel_virtq_used_gpa);

MODULE_DESCRIPTION("Keel hypercall ABI: shared code");
MODULE_LICENSE("GPL");
