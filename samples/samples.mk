# SPDX-License-Identifier: MIT
# samples: small kernels, one idea each. HAL=native builds those that run on
# bare x86-64 too, into $(O)/samples/native; `all` builds both flavours.

HAL ?= pv
SAMPLES_BOTH := clock pages traps user smp
SAMPLES_HAL := $(SAMPLES_BOTH) shell
SAMPLES_PV := $(SAMPLES_HAL:%=$(O)/samples/%.elf)
SAMPLES_NATIVE := $(patsubst %,$(O)/samples/native/%.elf,hello $(SAMPLES_HAL))

# Those of the library alone, like hello: what they are about has no native side.
SAMPLES_DEVICES := disk net
SAMPLES_LIB := $(SAMPLES_DEVICES:%=$(O)/samples/%.elf)

ALL += $(SAMPLES_PV) $(SAMPLES_NATIVE) $(SAMPLES_LIB)

.PHONY: samples
samples: $(if $(filter native,$(HAL)),$(SAMPLES_NATIVE),$(SAMPLES_PV) $(SAMPLES_LIB) $(O)/samples/hello.elf) ## The samples of one HAL flavour: HAL=pv or HAL=native

# Programs for the kernels that run processes: static, as small as they get, in an archive that is part of the image.
PROGS := hello count spin fault own paging forks signals pry
PROG_FILES := $(PROGS:%=$(O)/samples/progs/%)
PROG_CFLAGS := -std=gnu11 -O2 -ffreestanding -fno-stack-protector -fno-pic -fno-pie -mgeneral-regs-only \
	-fno-asynchronous-unwind-tables -Wall -Wextra -Werror
PROG_LDFLAGS := -nostdlib -static -s -Wl,-z,max-page-size=4096 -Wl,-z,noexecstack -Wl,--build-id=none
PROG_ARCHIVE := $(O)/samples/progs.cpio

$(PROG_FILES): $(O)/samples/progs/%: samples/progs/%.c samples/progs/start.S
	@mkdir -p $(@D)
	$(Q)$(CC) $(PROG_CFLAGS) $(PROG_LDFLAGS) -MMD -MP -MF $@.d -o $@ samples/progs/start.S $<

$(PROG_ARCHIVE): $(PROG_FILES) samples/mkcpio.sh
	$(Q)samples/mkcpio.sh $(PROG_FILES) >$@

# What several samples share, once for each flavour.
SAMPLES_OBJ := process.c.o programs.S.o
SAMPLES_OBJ_PV := $(SAMPLES_OBJ:%=$(O)/samples/obj/%)
SAMPLES_OBJ_NATIVE := $(SAMPLES_OBJ:%=$(O)/samples/native/obj/%)
SAMPLES_WITH_PROCESSES := user shell

$(O)/samples/obj/programs.S.o $(O)/samples/native/obj/programs.S.o: $(PROG_ARCHIVE)

$(O)/samples/obj/%.o: samples/%
	@mkdir -p $(@D)
	$(Q)$(CC) $(HAL_CFLAGS) -DPROGRAMS='"$(PROG_ARCHIVE)"' -MMD -MP -c -o $@ $<

$(O)/samples/native/obj/%.o: samples/%
	@mkdir -p $(@D)
	$(Q)$(CC) $(HAL_NATIVE_CFLAGS) -DPROGRAMS='"$(PROG_ARCHIVE)"' -MMD -MP -c -o $@ $<

$(SAMPLES_WITH_PROCESSES:%=$(O)/samples/%.elf): $(SAMPLES_OBJ_PV)
$(SAMPLES_WITH_PROCESSES:%=$(O)/samples/native/%.elf): $(SAMPLES_OBJ_NATIVE)

$(SAMPLES_PV): $(O)/samples/%.elf: samples/%.c $(O)/libkeelhal-pv.a $(GUEST_DEPS)
	@mkdir -p $(@D)
	$(Q)$(HAL_PV_LINK) $< $(filter %.o,$(filter-out $(GUEST_DEPS),$^)) $(HAL_PV_LIBS)

$(SAMPLES_LIB): $(O)/samples/%.elf: samples/%.c $(GUEST_DEPS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -MMD -MP -MF $(@:.elf=.d) -o $@ $(GUEST_CRT0) $< $(GUEST_LIBS)

$(SAMPLES_NATIVE): $(O)/samples/native/%.elf: samples/%.c $(HAL_NATIVE_LIBS) $(HALDIR)/native/native.ld
	@mkdir -p $(@D)
	$(Q)$(HAL_NATIVE_LINK) $< $(filter %.o,$^) $(HAL_NATIVE_LIBS)

-include $(SAMPLES_PV:.elf=.d) $(SAMPLES_LIB:.elf=.d) $(SAMPLES_NATIVE:.elf=.d) $(PROG_FILES:=.d) $(SAMPLES_OBJ_PV:.o=.d) $(SAMPLES_OBJ_NATIVE:.o=.d)

CHECK_STAGES += samples samples-native
.PHONY: check-samples check-samples-native
check-samples: $(SAMPLES_PV) $(SAMPLES_LIB) $(O)/samples/hello.elf $(O)/keel
	$(Q)samples/check.sh pv $(O)/check-samples $(O)/samples hello $(SAMPLES_HAL)

check-samples-native: $(SAMPLES_NATIVE)
	$(Q)samples/check.sh native $(O)/check-samples $(O)/samples/native hello $(SAMPLES_HAL)
