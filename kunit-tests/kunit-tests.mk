# SPDX-License-Identifier: MIT
# Kernel modules with the KUnit suites, and the checks that need a kernel's tools.

KDIR ?= /lib/modules/$(shell uname -r)/build

.PHONY: modules modules_install sparse checkpatch test-modules
modules modules_install:
	$(Q)V=$(V) kunit-tests/modules.sh $(KDIR) $(O) $@

sparse checkpatch test-modules: %: check-%

CHECK_STAGES += modules sparse checkpatch test-modules
.PHONY: check-modules check-sparse check-checkpatch check-test-modules
check-modules check-sparse check-checkpatch check-test-modules: check-%:
	$(Q)kunit-tests/check.sh $* $(O)
