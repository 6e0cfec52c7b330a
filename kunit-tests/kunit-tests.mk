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
CHECK_BESIDE += checkpatch
CHECK_SECONDS_modules := 600
CHECK_SECONDS_sparse := 900
CHECK_SECONDS_test-modules := 1200
check-test-modules: all
.PHONY: check-modules check-sparse check-checkpatch check-test-modules
check-modules check-sparse check-checkpatch check-test-modules: check-%:
	$(Q)kunit-tests/check.sh $* $(O)
check-test-modules: $(O)/kunit/suites

# KVM on emulated hardware: AMD's in QEMU, Intel's in Bochs, each with and without nested paging.
$(O)/testhost/kvmcheck: kunit-tests/testhost/kvmcheck.c
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(HOSTCFLAGS) -static -o $@ $<

CHECK_PROGRAMS += $(O)/testhost/kvmcheck

# Bochs has one processor, so its two jobs run beside each other in one stage.
TESTHOST_npt := npt
TESTHOST_shadow := shadow
TESTHOST_ept := ept
TESTHOST_ept-shadow := ept-shadow
TESTHOST_bochs := ept ept-shadow
TESTHOST_STAGES := testhost-npt testhost-shadow testhost-bochs

CHECK_STAGES += $(TESTHOST_STAGES)
CHECK_LONG_STAGES += $(TESTHOST_STAGES:%=%-long)
CHECK_SECONDS_testhost-npt := 960
CHECK_SECONDS_testhost-shadow := 960
CHECK_SECONDS_testhost-bochs := 2400
# One processor's work for minutes, in a machine whose time is its own.
CHECK_BESIDE += testhost-bochs
CHECK_SECONDS_testhost-npt-long := 3000
CHECK_SECONDS_testhost-shadow-long := 3000
CHECK_SECONDS_testhost-bochs-long := 3600

.PHONY: testhost
testhost: $(O)/ci/watchdog ## The kvm backend on real KVM, AMD's in QEMU and Intel's in Bochs
	$(run_stages) $(CHECK_DEADLINE) "$(submake)" $(call stages,$(TESTHOST_STAGES))

testhost_checks := $(foreach s,npt shadow ept ept-shadow bochs,check-testhost-$(s))
.PHONY: $(testhost_checks) $(testhost_checks:%=%-long)
$(testhost_checks): check-testhost-%: all $(O)/testhost/kvmcheck $(HVM_TESTS) $(SEAL_TESTS) $(EXITS_TESTS) $(VCPUS_TESTS) $(BENCH_KVM)
	$(Q)kunit-tests/check.sh testhost $(O) $(TESTHOST_$*)
$(testhost_checks:%=%-long): check-testhost-%-long: all $(O)/testhost/kvmcheck $(HVM_TESTS) $(SEAL_TESTS) $(EXITS_TESTS) $(VCPUS_TESTS) $(BENCH_KVM)
	$(Q)LONG=1 kunit-tests/check.sh testhost $(O) $(TESTHOST_$*)

# The suites as a program, and once more with the planted faults of mutants.csv. The suites are the kernel's style:
# it compiles them without these three warnings.
KUNIT_CFLAGS := -std=gnu11 -O2 -g -fno-omit-frame-pointer $(WARNINGS) -Wno-sign-compare -Wno-unused-parameter \
	-Wno-missing-field-initializers -pthread -D_GNU_SOURCE -D__KERNEL__ -include kunit-tests/program.h \
	-Iabi/include -Ilibhypercall/include -fsanitize=address,undefined -fno-sanitize-recover=all
KUNIT_OBJ := $(patsubst %,kunit-tests/%.o,program $(LIBH_PURE:=_test)) $(LIBH_PURE:%=libhypercall/src/%.o)
KUNIT_PROGRAMS := $(O)/kunit/suites $(O)/kunit/mutants
KUNIT_VMLINUX := $(O)/linux/vmlinux

$(O)/kunit/suites.d/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(KUNIT_CFLAGS) -MMD -MP -c -o $@ $<

$(O)/kunit/mutants.d/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(KUNIT_CFLAGS) -DKEEL_MUTANTS -MMD -MP -c -o $@ $<

$(KUNIT_PROGRAMS): %: $(KUNIT_OBJ:%=\%.d/%)
	$(Q)$(CC) $(KUNIT_CFLAGS) -o $@ $^

-include $(foreach p,$(KUNIT_PROGRAMS),$(KUNIT_OBJ:%.o=$(p).d/%.d))

CHECK_PROGRAMS += $(KUNIT_PROGRAMS)
CHECK_STAGES += kunit
# Seconds, once there is a kernel.
CHECK_SECONDS_kunit := 1500
CHECK_LONG_STAGES += kunit-mutants
CHECK_SECONDS_kunit-mutants := 900
.PHONY: kunit check-kunit check-kunit-mutants
check-kunit: $(KUNIT_PROGRAMS) $(O)/keel $(KUNIT_VMLINUX)
	$(Q)kunit-tests/check.sh kunit $(O) $(KUNIT_PROGRAMS) $(KUNIT_VMLINUX)
kunit: $(O)/keel $(KUNIT_VMLINUX) ## The suites of the shared C in the port's kernel
	$(Q)kunit-tests/check.sh port $(O) $(KUNIT_VMLINUX)
# The kernel shows its faults one at a time too, but for that it has to be linked once more.
check-kunit-mutants: $(O)/keel $(KUNIT_VMLINUX)
	$(Q)V=$(V) $(LINUX)/build.sh $(O) mutants >&2
	$(Q)kunit-tests/check.sh port-mutants $(O) $(O)/linux/vmlinux-mutants
