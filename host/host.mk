# SPDX-License-Identifier: MIT
# The host: the program keel, and its unit tests.

HOST_SRC := main run options log image startinfo partition core calls clock console symbols report elfcore
HOST_LIBH := ring event status
HOST_OBJS := $(addprefix $(O)/host/,$(HOST_SRC:=.o) $(HOST_LIBH:%=hc_%.o))
HOST_CFLAGS = $(HOSTCFLAGS) -D_GNU_SOURCE -MMD -MP

# Backends add their objects to HOST_BACKEND_OBJS. libseccomp compiles the filters of the sandbox.
HOST_BACKEND_OBJS :=
HOST_BACKEND_LIBS := -lseccomp
-include host/backend/ring3/ring3.mk

ALL += $(O)/keel

$(O)/host/%.o: host/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_CFLAGS) -c -o $@ $<

# Code the host shares with guests, as a host program's.
$(O)/host/hc_%.o: libhypercall/src/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_CFLAGS) -c -o $@ $<

$(O)/keel: $(HOST_OBJS) $(HOST_BACKEND_OBJS)
	$(Q)$(CC) $(HOSTCFLAGS) -Wl,-z,now,-z,relro -o $@ $^ $(HOST_BACKEND_LIBS) -lpthread

-include $(HOST_OBJS:.o=.d)
