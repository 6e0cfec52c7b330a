# SPDX-License-Identifier: MIT
# User space that nobody here wrote, on Linux on Keel.

LINUX_TESTS := $(LINUX)/tests
LINUX_USER := $(LINUX_O)/user

# Static, and never instrumented: it runs in a guest, and on the host to see that it expects nothing of ours.
$(LINUX_USER)/selftest: $(LINUX_TESTS)/selftest.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -O2 $(WARNINGS) -static -o $@ $< -lpthread -lutil

$(LINUX_USER)/root.cpio.gz: $(LINUX_TESTS)/mkroot.sh $(LINUX_TESTS)/init $(wildcard $(LINUX_TESTS)/suites/*) $(LINUX_USER)/selftest
	$(Q)$(LINUX_TESTS)/mkroot.sh $(LINUX_USER) $(LINUX_USER)/selftest

CHECK_STAGES += linux-user
CHECK_LONG_STAGES += linux-user-long
CHECK_SECONDS_linux-user := 900
CHECK_SECONDS_linux-user-long := 7200

.PHONY: check-linux-user check-linux-user-long
check-linux-user check-linux-user-long: check-%: $(O)/keel $(LINUX_O)/vmlinux $(LINUX_USER)/root.cpio.gz
check-linux-user:
	$(Q)$(LINUX_USER)/selftest
	$(Q)SUITE_SECONDS=240 $(LINUX_TESTS)/user.sh $(O)/keel $(LINUX_O)/vmlinux $(LINUX_USER)/root.cpio.gz linux-user \
		selftest programs python stress:10

check-linux-user-long:
	$(Q)SUITE_SECONDS=3600 $(LINUX_TESTS)/user.sh $(O)/keel $(LINUX_O)/vmlinux $(LINUX_USER)/root.cpio.gz linux-user-long \
		stress:300 python:long

# Its devices, which the host's side made and looks at.
CHECK_STAGES += linux-devices
CHECK_SECONDS_linux-devices := 300
.PHONY: check-linux-devices
check-linux-devices: $(LINUX_BOOTS)
	$(Q)$(LINUX_TESTS)/devices.sh $(O)/check-linux-devices $(O)/keel $(LINUX_O)/vmlinux $(LINUX_O)/test.cpio.gz

# A root of Debian's packages on a disk.
CHECK_LONG_STAGES += linux-debian
CHECK_SECONDS_linux-debian := 900
.PHONY: check-linux-debian
check-linux-debian: $(O)/keel $(LINUX_O)/vmlinux
	$(Q)$(LINUX_TESTS)/debian.sh $(O)/check-linux-debian $(O)/keel $(LINUX_O)/vmlinux

# The modules and devices of Debian's own kernel, in an HVM partition on the test host.
LINUX_HVM := $(addprefix $(LINUX_O)/hvm/,initrd.gz disk.img sums)
$(LINUX_HVM) &: $(LINUX_TESTS)/mkhvm.sh $(LINUX_TESTS)/hvm-init $(LINUX_TESTS)/leaks.awk Kbuild \
		$(wildcard $(LINUX)/drivers/*) $(wildcard libhypercall/src/*.[ch]) $(wildcard libhypercall/include/hypercall/*.h) \
		$(wildcard abi/include/keel/*.h)
	$(Q)$(LINUX_TESTS)/mkhvm.sh $(O)

CHECK_STAGES += linux-hvm
CHECK_SECONDS_linux-hvm := 650
CHECK_LONG_STAGES += linux-hvm-long
CHECK_SECONDS_linux-hvm-long := 1300
.PHONY: check-linux-hvm check-linux-hvm-long
check-linux-hvm check-linux-hvm-long: $(LINUX_HVM) $(O)/keel $(O)/testhost/kvmcheck
check-linux-hvm-long:
	$(Q)LONG=1 kunit-tests/testhost/run.sh $(LINUX)/hvm.job $(O) linux-hvm-long
check-linux-hvm:
	$(Q)kunit-tests/testhost/run.sh $(LINUX)/hvm.job $(O) linux-hvm
