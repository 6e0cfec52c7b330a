# SPDX-License-Identifier: MIT
# guest-hal: one header, two flavours, each a static library.

HALDIR := guest-hal
HAL_CFLAGS := $(GUEST_CFLAGS) -I$(HALDIR)/include
HAL_COMMON := common/core.c common/context.S
# Bare hardware pushes onto the interrupted stack, so no red zone there.
HAL_NATIVE_CFLAGS := $(HAL_CFLAGS) -mno-red-zone
HAL_NATIVE_SRC := $(HAL_COMMON) $(addprefix native/,start.S mmu.c trap.c irq.c cpu.c platform.c guest.c)
# Pure parts of libhypercall that make sense without a host.
HAL_NATIVE_LIBH := printf.c mem.c start.c user.c
HAL_PV_SRC := $(HAL_COMMON) pv/pv.c

HAL_NATIVE_OBJ := $(HAL_NATIVE_SRC:%=$(O)/guest-hal/native/%.o) $(HAL_NATIVE_LIBH:%=$(O)/guest-hal/native/libh/%.o)
HAL_PV_OBJ := $(HAL_PV_SRC:%=$(O)/guest-hal/pv/%.o)

ALL += $(O)/libkeelhal-pv.a $(O)/libkeelhal-native.a

$(O)/guest-hal/native/libh/%.o: libhypercall/src/%
	@mkdir -p $(@D)
	$(Q)$(CC) $(HAL_NATIVE_CFLAGS) -MMD -MP -c -o $@ $<

$(O)/guest-hal/native/%.o: $(HALDIR)/%
	@mkdir -p $(@D)
	$(Q)$(CC) $(HAL_NATIVE_CFLAGS) -MMD -MP -c -o $@ $<

$(O)/guest-hal/pv/%.o: $(HALDIR)/%
	@mkdir -p $(@D)
	$(Q)$(CC) $(HAL_CFLAGS) -MMD -MP -c -o $@ $<

$(O)/libkeelhal-native.a: $(HAL_NATIVE_OBJ)
	$(Q)rm -f $@
	$(Q)$(AR) rcsD $@ $^

$(O)/libkeelhal-pv.a: $(HAL_PV_OBJ)
	$(Q)rm -f $@
	$(Q)$(AR) rcsD $@ $^

# A kernel of one file, for either flavour: LINK file.c LIBS
HAL_PV_LINK = $(CC) $(HAL_CFLAGS) $(GUEST_LDFLAGS) -MMD -MP -MF $(@:.elf=.d) -o $@ $(GUEST_CRT0)
HAL_PV_LIBS = -Wl,--start-group $(O)/libkeelhal-pv.a $(GUEST_LIBS) -Wl,--end-group
HAL_NATIVE_LINK = $(CC) $(HAL_NATIVE_CFLAGS) -nostdlib -static -Wl,-T,$(HALDIR)/native/native.ld \
	-Wl,-z,max-page-size=4096 -Wl,--build-id=none -Wl,-u,hal_pvh_entry -MMD -MP -MF $(@:.elf=.d) -o $@
HAL_NATIVE_LIBS = $(O)/libkeelhal-native.a

-include $(HAL_NATIVE_OBJ:.o=.d) $(HAL_PV_OBJ:.o=.d) $(O)/guest-hal/test-pv.d $(O)/guest-hal/test-native.d

# The HAL's own test, a kernel that reports in KTAP.
HAL_TESTS := $(O)/guest-hal/test-pv.elf $(O)/guest-hal/test-native.elf
CHECK_PROGRAMS += $(HAL_TESTS)

$(O)/guest-hal/test-pv.elf: $(HALDIR)/test.c $(O)/libkeelhal-pv.a $(GUEST_DEPS)
	@mkdir -p $(@D)
	$(Q)$(HAL_PV_LINK) $< $(HAL_PV_LIBS)

$(O)/guest-hal/test-native.elf: $(HALDIR)/test.c $(HAL_NATIVE_LIBS) $(HALDIR)/native/native.ld
	@mkdir -p $(@D)
	$(Q)$(HAL_NATIVE_LINK) $< $(HAL_NATIVE_LIBS)

CHECK_STAGES += hal
.PHONY: check-hal
check-hal: $(HAL_TESTS) $(O)/keel
	$(Q)$(HALDIR)/test-hal.sh $(O)/check-hal $(O)/keel $(HAL_TESTS)

.PHONY: audit check-audit
audit: ## List what in a guest image will not work on Keel: make audit IMAGE=x
	$(Q)$(if $(IMAGE),,$(error usage: make audit IMAGE=file))$(HALDIR)/audit.sh $(IMAGE)

CHECK_STAGES += audit
check-audit: $(SAMPLES_PV) $(O)/samples/hello.elf
	$(Q)$(HALDIR)/test-audit.sh $(O)/audit "$(CC)" "$(GUEST_LDFLAGS)" $(O)/samples/hello.elf $(SAMPLES_PV)
