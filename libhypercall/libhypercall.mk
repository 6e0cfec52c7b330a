# SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
# libhypercall: the guest side of the ABI as a freestanding static library, with
# its SDK (make install) and the `lib` stage of tests.

LIBH := libhypercall
LIBH_PURE := batch event ring clock start status set user virtq
LIBH_DEVICES := device blk net rng vconsole
LIBH_SRC := $(addprefix $(LIBH)/src/,$(LIBH_PURE:=.c) $(LIBH_DEVICES:=.c) trap.c repeat.c guest.c smp.c console.c printf.c mem.c \
	gate.S entry.S)
LIBH_OBJ := $(LIBH_SRC:$(LIBH)/src/%=$(O)/libhypercall/%.o)

# How guest code is compiled. Without SSE, so that handlers need not save it.
GUEST_INCLUDES := -Iabi/include -Ilibhypercall/include
GUEST_CFLAGS := -std=gnu11 -ffreestanding -fno-stack-protector -fno-pic -fno-pie -mgeneral-regs-only -fcf-protection=branch \
	-fno-omit-frame-pointer -g -O2 -Wall -Wextra -Werror -ffile-prefix-map=$(CURDIR)=. $(GUEST_INCLUDES)
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

# The SDK: all that an image needs to be built outside of this tree.
PREFIX ?= /usr/local
SDK_LIB = $(DESTDIR)$(PREFIX)/lib
SDK_INCLUDE = $(DESTDIR)$(PREFIX)/include
# Major and minor of the ABI, and which release candidate if it is one, as base.h defines them.
SDK_VERSION = $(shell awk '/define KEEL_ABI_(MAJOR|MINOR|RC) /{ v[n++] = $$3 } END { print v[0] "." v[1] ".0" (v[2] ? "-rc" v[2] : "") }' \
	abi/include/keel/base.h)

.PHONY: install-sdk install
install: install-sdk ## Install the guest SDK below DESTDIR and PREFIX (/usr/local)
install-sdk: $(O)/libhypercall.a $(GUEST_CRT0)
	$(Q)install -d $(SDK_LIB)/keel $(SDK_LIB)/pkgconfig $(SDK_INCLUDE)/keel $(SDK_INCLUDE)/hypercall
	$(Q)install -m 644 $(O)/libhypercall.a $(SDK_LIB)
	$(Q)install -m 644 $(GUEST_CRT0) $(GUEST_LD) $(SDK_LIB)/keel
	$(Q)install -m 644 abi/include/keel/*.h abi/hypercalls.def $(SDK_INCLUDE)/keel
	$(Q)install -m 644 $(LIBH)/include/hypercall/*.h $(SDK_INCLUDE)/hypercall
	$(Q)sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(SDK_VERSION)|' $(LIBH)/keel-guest.pc.in >$(SDK_LIB)/pkgconfig/keel-guest.pc

# Tests: the pure parts under both sanitizers, the rest against a fake host in
# this process, builds of every kind, the SDK. ASan does not know the stacks
# that the fake host switches between.
LIBH_TEST := $(O)/libhypercall/tests
LIBH_UNIT_SRC := $(addprefix tests/,unit.c batch_test.c clock_test.c device_test.c event_test.c printf_test.c ring_test.c set_test.c \
	start_test.c status_test.c user_test.c virtq_test.c) $(addprefix src/,$(LIBH_PURE:=.c) $(LIBH_DEVICES:=.c) printf.c)
LIBH_UNIT_OBJ := $(LIBH_UNIT_SRC:%=$(LIBH_TEST)/%.o)
LIBH_GUEST_OBJ := $(LIBH_TEST)/guest_test.c.o $(LIBH_TEST)/fake_gate.S.o
LIBH_TEST_CFLAGS := -std=gnu11 -O2 -g -fno-omit-frame-pointer -fno-pie $(WARNINGS) -pthread $(GUEST_INCLUDES) -fno-sanitize-recover=all
LIBH_ASAN := -fsanitize=address,undefined

CHECK_PROGRAMS += $(LIBH_TEST)/unit $(LIBH_TEST)/guest
CHECK_STAGES += lib

$(LIBH_UNIT_OBJ): $(LIBH_TEST)/%.o: $(LIBH)/%
	@mkdir -p $(@D)
	$(Q)$(CC) $(LIBH_TEST_CFLAGS) $(LIBH_ASAN) -MMD -MP -c -o $@ $<

$(LIBH_TEST)/unit: $(LIBH_UNIT_OBJ)
	$(Q)$(CC) $(LIBH_TEST_CFLAGS) $(LIBH_ASAN) -no-pie -o $@ $^ -lcmocka

$(LIBH_GUEST_OBJ): $(LIBH_TEST)/%.o: $(LIBH)/tests/%
	@mkdir -p $(@D)
	$(Q)$(CC) $(LIBH_TEST_CFLAGS) -fsanitize=undefined -MMD -MP -c -o $@ $<

# keel.ld's symbols, with a GPA that is not the VA.
$(LIBH_TEST)/guest: $(LIBH_GUEST_OBJ) $(O)/libhypercall.a
	$(Q)$(CC) $(LIBH_TEST_CFLAGS) -fsanitize=undefined -no-pie -Wl,--defsym=__keel_va=0x10000 -Wl,--defsym=__keel_pa=0x50000 \
		-o $@ $^ -lcmocka

CHECK_SECONDS_lib := 300
check-lib: $(LIBH_TEST)/unit $(LIBH_TEST)/guest $(O)/libhypercall.a $(GUEST_CRT0) $(O)/keel
	$(Q)CC='$(CC)' CLANG='$(CLANG)' MAKE='$(MAKE)' $(LIBH)/tests/check.sh $(O)

.PHONY: check-lib

-include $(LIBH_OBJ:.o=.d) $(O)/libhypercall/crt0.S.d $(O)/samples/hello.d $(LIBH_UNIT_OBJ:.o=.d) $(LIBH_GUEST_OBJ:.o=.d)
