# SPDX-License-Identifier: MIT
# samples: small kernels, one idea each. HAL=native builds those that run on
# bare x86-64 too, into $(O)/samples/native; `all` builds both flavours.

HAL ?= pv
SAMPLES_BOTH := clock pages traps
SAMPLES_HAL := $(SAMPLES_BOTH) shell
SAMPLES_PV := $(SAMPLES_HAL:%=$(O)/samples/%.elf)
SAMPLES_NATIVE := $(patsubst %,$(O)/samples/native/%.elf,hello $(SAMPLES_HAL))

ALL += $(SAMPLES_PV) $(SAMPLES_NATIVE)

.PHONY: samples
samples: $(if $(filter native,$(HAL)),$(SAMPLES_NATIVE),$(SAMPLES_PV) $(O)/samples/hello.elf) ## The samples of one HAL flavour: HAL=pv or HAL=native

$(SAMPLES_PV): $(O)/samples/%.elf: samples/%.c $(O)/libkeelhal-pv.a $(GUEST_DEPS)
	@mkdir -p $(@D)
	$(Q)$(HAL_PV_LINK) $< $(HAL_PV_LIBS)

$(SAMPLES_NATIVE): $(O)/samples/native/%.elf: samples/%.c $(HAL_NATIVE_LIBS) $(HALDIR)/native/native.ld
	@mkdir -p $(@D)
	$(Q)$(HAL_NATIVE_LINK) $< $(HAL_NATIVE_LIBS)

-include $(SAMPLES_PV:.elf=.d) $(SAMPLES_NATIVE:.elf=.d)

CHECK_STAGES += samples samples-native
.PHONY: check-samples check-samples-native
check-samples: $(SAMPLES_PV) $(O)/samples/hello.elf $(O)/keel
	$(Q)samples/check.sh pv $(O)/check-samples $(O)/samples hello $(SAMPLES_HAL)

check-samples-native: $(SAMPLES_NATIVE)
	$(Q)samples/check.sh native $(O)/check-samples $(O)/samples/native hello $(SAMPLES_HAL)
