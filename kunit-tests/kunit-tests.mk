# SPDX-License-Identifier: MIT
# Kernel modules with the KUnit suites, the checks that need a kernel's tools, and the test host.

KDIR ?= /lib/modules/$(shell uname -r)/build

.PHONY: modules modules_install sparse checkpatch test-modules
modules modules_install: ## Build or install the kernel modules for KDIR, the running kernel's unless said
	$(Q)V=$(V) kunit-tests/modules.sh $(KDIR) $(O) $@

sparse: check-sparse ## Shared memory is touched only through its accessors, everywhere
checkpatch: check-checkpatch
test-modules: check-test-modules ## Modules, samples and conformance on Debian's stock kernel under QEMU

CHECK_STAGES += modules sparse checkpatch test-modules
CHECK_SECONDS_sparse := 900
CHECK_SECONDS_test-modules := 1200
check-test-modules: all
.PHONY: check-modules check-sparse check-checkpatch check-test-modules
check-modules check-sparse check-checkpatch check-test-modules: check-%:
	$(Q)kunit-tests/check.sh $* $(O)

# KVM on emulated hardware: AMD's in QEMU, Intel's in Bochs, each with and without nested paging.
$(O)/testhost/kvmcheck: kunit-tests/testhost/kvmcheck.c
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(HOSTCFLAGS) -static -o $@ $<

CHECK_PROGRAMS += $(O)/testhost/kvmcheck

TESTHOST_JOBS := npt shadow ept ept-shadow
TESTHOST_STAGES := $(TESTHOST_JOBS:%=testhost-%)
.PHONY: testhost $(TESTHOST_STAGES:%=check-%)
$(TESTHOST_STAGES:%=check-%): check-testhost-%: all $(O)/testhost/kvmcheck
	$(Q)kunit-tests/check.sh testhost $(O) $*
