# SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
# libhypercall: the guest side of the ABI as a freestanding static library.

LIBH := libhypercall
LIBH_PURE := batch event ring clock start status
LIBH_SRC := $(addprefix $(LIBH)/src/,$(LIBH_PURE:=.c) trap.c guest.c console.c printf.c mem.c gate.S entry.S)
LIBH_OBJ := $(patsubst $(LIBH)/src/%,$(O)/libhypercall/%.o,$(LIBH_SRC))

# How guest code is compiled. Without SSE, so that handlers need not save it.
GUEST_INCLUDES := -Iabi/include -Ilibhypercall/include
GUEST_CFLAGS := -std=gnu11 -ffreestanding -fno-stack-protector -fno-pic -fno-pie -mgeneral-regs-only -fcf-protection=branch \
	-fno-omit-frame-pointer -g -O2 -Wall -Wextra -Werror $(GUEST_INCLUDES)
# How guest images are linked: $(CC) $(GUEST_LDFLAGS) -o x.elf $(GUEST_CRT0) x.o $(GUEST_LIBS)
GUEST_LD := $(LIBH)/keel.ld
GUEST_LDFLAGS := -nostdlib -static -Wl,-T,$(GUEST_LD) -Wl,-z,max-page-size=4096 -Wl,--build-id=none
GUEST_CRT0 := $(O)/keel-crt0.o
GUEST_LIBS := $(O)/libhypercall.a
GUEST_DEPS := $(GUEST_LD) $(GUEST_CRT0) $(GUEST_LIBS)

ALL += $(O)/libhypercall.a $(GUEST_CRT0) $(O)/samples/hello.elf

$(O)/libhypercall/%.o: $(LIBH)/src/%
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) -MMD -MP -c -o $@ $<

$(O)/libhypercall.a: $(LIBH_OBJ)
	$(Q)rm -f $@
	$(Q)$(AR) rcsD $@ $^

$(GUEST_CRT0): $(O)/libhypercall/crt0.S.o
	$(Q)cp $< $@

$(O)/samples/hello.elf: samples/hello.c $(GUEST_DEPS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -MMD -MP -MF $(@:.elf=.d) -o $@ $(GUEST_CRT0) $< $(GUEST_LIBS)

-include $(LIBH_OBJ:.o=.d) $(O)/libhypercall/crt0.S.d $(O)/samples/hello.d
