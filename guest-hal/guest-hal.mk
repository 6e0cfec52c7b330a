# SPDX-License-Identifier: MIT
# guest-hal: one header, two flavours, each a static library.

HALDIR := guest-hal
HAL_CFLAGS := $(GUEST_CFLAGS) -I$(HALDIR)/include
HAL_COMMON := common/core.c common/context.S
# Bare hardware pushes onto the interrupted stack, so no red zone there.
HAL_NATIVE_CFLAGS := $(HAL_CFLAGS) -mno-red-zone
HAL_NATIVE_SRC := $(HAL_COMMON) $(addprefix native/,start.S mmu.c trap.c irq.c platform.c guest.c)
# Pure parts of libhypercall that make sense without a host.
HAL_NATIVE_LIBH := printf.c mem.c start.c
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

-include $(HAL_NATIVE_OBJ:.o=.d) $(HAL_PV_OBJ:.o=.d)

.PHONY: audit check-audit
audit: ## List what in a guest image will not work on Keel: make audit IMAGE=x
	$(Q)$(if $(IMAGE),,$(error usage: make audit IMAGE=file))$(HALDIR)/audit.sh $(IMAGE)

CHECK_STAGES += audit
check-audit: $(SAMPLES_PV) $(O)/samples/hello.elf
	$(Q)$(HALDIR)/test-audit.sh $(O)/audit "$(CC)" "$(GUEST_LDFLAGS)" $(O)/samples/hello.elf $(SAMPLES_PV)
