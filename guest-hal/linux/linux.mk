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

# What its tests boot into.
LINUX_BOOT_FILES := $(addprefix $(LINUX)/tests/,boot devices idle reboot terminal)
$(LINUX_O)/test.cpio.gz: $(LINUX)/root/mkroot.sh $(LINUX)/root/init $(LINUX_BOOT_FILES)
	@mkdir -p $(@D)
	$(Q)$(LINUX)/root/mkroot.sh $@ $(LINUX_BOOT_FILES)

$(LINUX_O)/vmlinux.sha256: $(LINUX_O)/vmlinux
	$(Q)sha256sum $< | cut -d ' ' -f 1 >$@

# The first of these stages builds the kernel.
CHECK_STAGES += linux linux-npt linux-ring3
CHECK_SECONDS_linux := 1500
CHECK_SECONDS_linux-npt := 450
CHECK_SECONDS_linux-ring3 := 450
LINUX_BOOTS := $(addprefix $(LINUX_O)/,vmlinux vmlinux.sha256 test.cpio.gz) $(O)/keel
.PHONY: check-linux check-linux-npt check-linux-ring3
check-linux: $(LINUX_BOOTS)
	$(Q)O=$(O) $(LINUX)/test-linux.sh $(O)/check-linux $(O)/keel $(LINUX_O)/vmlinux $(LINUX_O)/test.cpio.gz

# The same image, on the test host.
check-linux-npt check-linux-ring3: check-linux-%: $(LINUX_BOOTS) $(O)/testhost/kvmcheck
	$(Q)kunit-tests/testhost/run.sh $(LINUX)/$*.job $(O) linux-$*

include $(LINUX)/tests/tests.mk
