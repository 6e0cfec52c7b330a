# SPDX-License-Identifier: MIT
# check-exits: exits per operation on KVM, held to exits.csv. The test host's jobs run the same program.

EXITS := $(O)/host/tests/exits
EXITS_GUEST := $(O)/host/tests/exits.elf

$(EXITS_GUEST): host/tests/exits_guest.c $(GUEST_DEPS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -MMD -MP -MF $(@:.elf=.elf.d) -o $@ $(GUEST_CRT0) $< $(GUEST_LIBS)

$(EXITS): host/tests/exits.c $(O)/bench/link.o
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOSTCFLAGS) -Iabi -MMD -MP -MF $@.d -o $@ $< $(O)/bench/link.o

CHECK_STAGES += exits
EXITS_TESTS := $(EXITS) $(EXITS_GUEST)
CHECK_PROGRAMS += $(EXITS_TESTS)
CHECK_SECONDS_exits := 240
.PHONY: check-exits
check-exits: $(O)/keel $(O)/samples/hello.elf $(EXITS_TESTS)
	$(Q)$(EXITS) $(O)/keel $(EXITS_GUEST) $(O)/samples/hello.elf host/tests/exits.csv

-include $(EXITS).d $(EXITS_GUEST).d
