# SPDX-License-Identifier: MIT
# Linux (arch/um) on Keel. Not part of `all`: building a kernel takes minutes.

LINUX := guest-hal/linux
LINUX_O := $(O)/linux

.PHONY: linux
linux: $(LINUX_O)/vmlinux $(LINUX_O)/root.cpio.gz ## Linux 6.1 on the ABI, from Debian's linux-source-6.1

$(LINUX_O)/mkimage: $(LINUX)/um/mkimage.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOSTCFLAGS) -o $@ $<

# The kernel's make knows better what to do, but takes seconds to find that there is nothing.
LINUX_PORT := $(shell find $(LINUX)/um $(LINUX)/drivers libhypercall/src libhypercall/include abi/include -type f) \
	abi/hypercalls.def $(wildcard kunit-tests/*_test.c kunit-tests/keel_test.h) kunit-tests/.kunitconfig
$(LINUX_O)/vmlinux: $(LINUX)/build.sh $(LINUX_O)/mkimage $(LINUX_PORT)
	$(Q)V=$(V) $(LINUX)/build.sh $(O)

$(LINUX_O)/root.cpio.gz: $(LINUX)/root/mkroot.sh $(LINUX)/root/init
	@mkdir -p $(@D)
	$(Q)$(LINUX)/root/mkroot.sh $@

CHECK_STAGES += linux
CHECK_SECONDS_linux := 1500
.PHONY: check-linux
check-linux: $(LINUX_O)/vmlinux $(LINUX_O)/root.cpio.gz $(O)/keel
	$(Q)O=$(O) $(LINUX)/test-linux.sh $(O)/check-linux $(O)/keel $(LINUX_O)/vmlinux $(LINUX_O)/root.cpio.gz

include $(LINUX)/tests/tests.mk
