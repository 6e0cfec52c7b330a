# SPDX-License-Identifier: MIT
# The conformance suite: runner, guest images, malformed images, manifest, stages.

CONF := abi/conformance
CONF_O := $(O)/conformance
CONF_GROUPS := init start base call ctx multi mmu as harvest trap norm user event vcpu smp console memory io hvm image
CONF_CFLAGS := -std=gnu11 -ffreestanding -fno-stack-protector -fno-pic -mgeneral-regs-only -fno-omit-frame-pointer \
	-fcf-protection=none -O2 -g -Wall -Wextra -Werror -Iabi/include -I$(CONF)/guest
CONF_IMAGES := $(CONF_GROUPS:%=$(CONF_O)/%.elf)
CONF_RUN = $(O)/keel-conform --adapter $(CONF)/adapters/keel --jobs 2

ALL += $(O)/keel-conform $(CONF_IMAGES) $(CONF_O)/image/made $(CONF_O)/manifest.csv $(CONF_O)/hostile.elf \
	$(CONF_O)/hostile-kvm.elf $(CONF_O)/hostile-user.elf

$(O)/keel-conform: $(CONF)/runner.c
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -D_GNU_SOURCE $(HOSTCFLAGS) -MMD -MP -MF $(CONF_O)/obj/runner.d -o $@ $< -lcjson

$(CONF_O)/badimage: $(CONF)/badimage.c
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -D_GNU_SOURCE $(HOSTCFLAGS) -MMD -MP -MF $(CONF_O)/obj/badimage.d -o $@ $<

$(CONF_O)/obj/%.o: $(CONF)/tests/%.c
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CONF_CFLAGS) -MMD -MP -c -o $@ $<
$(CONF_O)/obj/%.o: $(CONF)/guest/%.c
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CONF_CFLAGS) -MMD -MP -c -o $@ $<
$(CONF_O)/obj/hostile-%.o: $(CONF)/hostile/%.c
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CONF_CFLAGS) -MMD -MP -c -o $@ $<
$(CONF_O)/obj/%.o: $(CONF)/hostile/%.c
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CONF_CFLAGS) -MMD -MP -c -o $@ $<
$(CONF_O)/obj/%.o: $(CONF)/guest/%.S
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CONF_CFLAGS) -MMD -MP -c -o $@ $<

$(O)/keel-conform $(CONF_O)/badimage: | $(CONF_O)/obj/dir
$(CONF_O)/obj/dir:
	$(Q)mkdir -p $(@D)
	$(Q)touch $@

# A paravirtual image, and one that starts by PVH.
CONF_KT := $(addprefix $(CONF_O)/obj/,kt.o calls.o)
CONF_PV := $(addprefix $(CONF_O)/obj/,entry.o kt_pv.o) $(CONF_KT)
CONF_HVM := $(addprefix $(CONF_O)/obj/,hvm_entry.o kt_hvm.o) $(CONF_KT)
CONF_LINK = $(LD) -nostdlib -static $(CONF_LDFLAGS) -T $(CONF)/guest/image.ld --build-id=none -z max-page-size=4096 \
	-z noexecstack -o $@ $(filter %.o,$^)

# Those with address spaces, user code and other vCPUs.
CONF_KU := $(addprefix $(CONF_O)/obj/,kt_user.o kt_vcpu.o)
$(addprefix $(CONF_O)/,as.elf user.elf smp.elf io.elf hostile-user.elf): $(CONF_KU)

$(CONF_O)/%.elf: $(CONF_PV) $(CONF_O)/obj/%.o $(CONF)/guest/image.ld
	$(Q)$(CONF_LINK)
$(CONF_O)/hvm.elf: CONF_LDFLAGS := --defsym=KT_OFFSET=0
$(CONF_O)/hvm.elf: $(CONF_HVM) $(CONF_O)/obj/hvm.o $(CONF)/guest/image.ld
	$(Q)$(CONF_LINK)

# What the images declare, as CSV; see KEEL_TEST in guest/kt.h for the words.
$(CONF_O)/manifest.csv: $(CONF_IMAGES) $(CONF_O)/badimage $(CONF)/manifest.sh
	$(Q)sh $(CONF)/manifest.sh $(CONF_O) $(CONF_GROUPS) >$@

$(CONF_O)/image/made: $(CONF_O)/badimage $(CONF_O)/image.elf
	$(Q)mkdir -p $(@D)
	$(Q)$(CONF_O)/badimage $(CONF_O)/image.elf $(@D)
	$(Q)touch $@

# The differential run: one guest, and what runs it on two hosts.
ALL += $(O)/keel-diff $(CONF_O)/diff.elf
$(O)/keel-diff: $(CONF_O)/obj/host-diff.o $(CONF_O)/obj/host-ops.o
	$(Q)$(CC) $(HOSTCFLAGS) -o $@ $(filter %.o,$^)
$(CONF_O)/obj/host-%.o: $(CONF)/diff/%.c
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -D_GNU_SOURCE $(HOSTCFLAGS) -MMD -MP -c -o $@ $<
$(CONF_O)/obj/diff-%.o: $(CONF)/diff/%.c
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CONF_CFLAGS) -MMD -MP -c -o $@ $<
$(CONF_O)/obj/diff-%.o: $(CONF)/diff/%.S
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CONF_CFLAGS) -MMD -MP -c -o $@ $<
$(CONF_O)/diff.elf: $(CONF_PV) $(addprefix $(CONF_O)/obj/diff-,guest.o ops.o probes.o) $(CONF)/guest/image.ld
	$(Q)$(LD) -nostdlib -static -T $(CONF)/guest/image.ld --build-id=none -z max-page-size=4096 -z noexecstack \
		-o $@ $(filter %.o,$^)

.SECONDARY: $(CONF_GROUPS:%=$(CONF_O)/obj/%.o) $(CONF_PV) $(CONF_HVM) $(CONF_KU) $(addprefix $(CONF_O)/obj/hostile,.o -kvm.o -user.o)
-include $(wildcard $(CONF_O)/obj/*.d)

CHECK_STAGES += conform conform-kvm mutants hostile hostile-kvm
CHECK_LONG_STAGES += conform-long hostile-long

CHECK_SECONDS_conform := 600
check-conform: all
	$(Q)sh $(CONF)/stages.sh conform $(O)

# The same with few rounds, for hosts that are slow: sanitized ones.
CHECK_SECONDS_conform-quick := 600
SAN_STAGES += conform-quick
check-conform-quick: all
	$(Q)sh $(CONF)/stages.sh conform-quick $(O)

CHECK_SECONDS_conform-long := 3600
check-conform-long: all
	$(Q)sh $(CONF)/stages.sh conform-long $(O)

# On this machine's /dev/kvm, however slow: a selection, and HVM partitions. The test host runs all of it.
CHECK_SECONDS_conform-kvm := 900
check-conform-kvm: all
	$(Q)sh $(CONF)/stages.sh smoke $(O)

# On the test host, where KVM is a real one: HVM partitions, guests at CPL 0, and faults that only the kvm backend can have.
CHECK_STAGES += conform-npt
CHECK_LONG_STAGES += conform-npt-long
CHECK_SECONDS_conform-npt := 1000
CHECK_SECONDS_conform-npt-long := 2500
check-conform-npt check-conform-npt-long: all $(O)/testhost/kvmcheck
	$(Q)$(MAKE) --no-print-directory O=$(O)/mutants KEEL_BUGS=1 $(O)/mutants/keel >&2
	$(Q)$(if $(filter %-long,$@),LONG=1 SCALE=10) kunit-tests/testhost/run.sh $(CONF)/npt.job $(O) $(@:check-%=%)
.PHONY: check-conform-npt check-conform-npt-long

# The mutant host is built apart from the one that is shipped.
CHECK_SECONDS_mutants := 900
check-mutants: all
	$(Q)$(MAKE) --no-print-directory O=$(O)/mutants KEEL_BUGS=1 $(O)/mutants/keel >&2
	$(Q)sh $(CONF)/stages.sh mutants $(O)

CHECK_SECONDS_hostile := 600
check-hostile: all
	$(Q)sh $(CONF)/stages.sh hostile $(O) 25

CHECK_SECONDS_hostile-kvm := 600
check-hostile-kvm: all
	$(Q)sh $(CONF)/hostile/kvm.sh $(O)/keel $(CONF_O)/hostile-kvm.elf 1 5

CHECK_SECONDS_hostile-long := 1800
check-hostile-long: all
	$(Q)sh $(CONF)/stages.sh hostile $(O) 1000

CHECK_STAGES += diff
CHECK_LONG_STAGES += diff-long
CHECK_SECONDS_diff := 900
check-diff: all
	$(Q)$(MAKE) --no-print-directory O=$(O)/mutants KEEL_BUGS=1 $(O)/mutants/keel >&2
	$(Q)sh $(CONF)/diff/diff.sh check $(O)

CHECK_SECONDS_diff-long := 3600
check-diff-long: all
	$(Q)sh $(CONF)/diff/diff.sh long $(O)

# The same on the test host, where the backends must agree; the long run with other seeds, and on other hardware.
DIFF_JOBS := npt shadow ept
CHECK_STAGES += diff-npt
CHECK_LONG_STAGES += $(DIFF_JOBS:%=diff-%-long)
CHECK_SECONDS_diff-npt := 600
CHECK_SECONDS_diff-npt-long := 2700
CHECK_SECONDS_diff-shadow-long := 2700
CHECK_SECONDS_diff-ept-long := 2700
diff_checks := $(DIFF_JOBS:%=check-diff-%)
.PHONY: $(diff_checks) $(diff_checks:%=%-long)
$(diff_checks): check-diff-%: all $(O)/testhost/kvmcheck
	$(Q)kunit-tests/testhost/run.sh $(CONF)/diff/$*.job $(O) diff-$*
$(diff_checks:%=%-long): check-diff-%-long: all $(O)/testhost/kvmcheck
	$(Q)LONG=1 SEED=$$(date +%s) kunit-tests/testhost/run.sh $(CONF)/diff/$*.job $(O) diff-$*

fuzz-diff: all ## Run ring3 and kvm (or DIFF_A, DIFF_B) against each other until they differ
	$(Q)sh $(CONF)/diff/diff.sh fuzz $(O)

.PHONY: check-diff check-diff-long fuzz-diff
.PHONY: check-conform check-conform-kvm check-conform-quick check-conform-long check-mutants check-hostile check-hostile-kvm \
	check-hostile-long
