/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */
/* The whole Keel ABI. SPEC.md is normative; hypercalls.def is the list of calls. */
#ifndef KEEL_KEEL_H
#define KEEL_KEEL_H

#include <keel/as.h>
#include <keel/base.h>
#include <keel/calls.h>
#include <keel/console.h>
#include <keel/device.h>
#include <keel/event.h>
#include <keel/hvm.h>
#include <keel/mmu.h>
#include <keel/note.h>
#include <keel/start.h>
#include <keel/stats.h>
#include <keel/status.h>
#include <keel/time.h>
#include <keel/types.h>
#include <keel/user.h>
#include <keel/vcpu.h>

#endif
