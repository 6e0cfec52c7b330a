# SPDX-License-Identifier: MIT
# make bench: figures beside the raw primitives of the same run. check-counts:
# system calls and wake-ups per operation, counted from outside.

BENCH := $(O)/bench
BENCH_GUEST := $(BENCH)/guest.elf
# The program measured against is static, and never instrumented.
BENCH_RAW_CFLAGS := $(filter-out $(SANFLAGS),$(HOSTCFLAGS))

BENCH_BOTH := $(BENCH)/work.o $(BENCH)/user.o

$(BENCH)/work.o: host/bench/work.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) -MMD -MP -c -o $@ $<

$(BENCH)/user.o: host/bench/user.S
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) -MMD -MP -c -o $@ $<

$(BENCH)/guest_user.o: host/bench/guest_user.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) -MMD -MP -c -o $@ $<

$(BENCH_GUEST): host/bench/guest.c $(BENCH)/guest_user.o $(BENCH_BOTH) $(GUEST_DEPS)
	$(Q)$(CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -MMD -MP -MF $(@:.elf=.d) -o $@ $(GUEST_CRT0) $< $(BENCH)/guest_user.o \
		$(BENCH_BOTH) $(GUEST_LIBS)

$(BENCH)/rawuser.o: host/bench/rawuser.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(BENCH_RAW_CFLAGS) -fno-pie -MMD -MP -c -o $@ $<

$(BENCH)/raw: host/bench/raw.c $(BENCH)/rawuser.o $(BENCH_BOTH)
	$(Q)$(CC) $(BENCH_RAW_CFLAGS) -fno-pie -static -MMD -MP -MF $@.d -o $@ $< $(BENCH)/rawuser.o $(BENCH_BOTH)

$(BENCH)/rawkvm: host/bench/rawkvm.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(BENCH_RAW_CFLAGS) -static -MMD -MP -MF $@.d -o $@ $<

$(BENCH)/link.o: host/bench/link.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOSTCFLAGS) -MMD -MP -c -o $@ $<

BENCH_LIBS_bench := -lcjson
$(BENCH)/bench $(BENCH)/count $(BENCH)/linux $(BENCH)/net: $(BENCH)/%: host/bench/%.c $(BENCH)/link.o
	$(Q)$(CC) $(HOSTCFLAGS) -MMD -MP -MF $@.d -o $@ $< $(BENCH)/link.o $(BENCH_LIBS_$*)

BENCH_PROGRAMS := $(BENCH_GUEST) $(BENCH)/raw $(BENCH)/rawkvm $(BENCH)/bench $(BENCH)/count
# What the test host has to have.
BENCH_KVM := $(BENCH_GUEST) $(BENCH)/rawkvm $(BENCH)/bench
CHECK_PROGRAMS += $(BENCH_PROGRAMS)
CHECK_STAGES += counts

bench: all $(BENCH_PROGRAMS) ## Figures beside raw primitives and user-mode-linux: build/bench.json and a table
	$(Q)$(BENCH)/bench $(O)

# The same program as /init of the port and of user-mode-linux, and natively.
$(BENCH)/inlinux: host/bench/inlinux.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(BENCH_RAW_CFLAGS) -D_GNU_SOURCE -static -MMD -MP -MF $@.d -o $@ $< -luring

$(BENCH)/linux.cpio: $(BENCH)/inlinux
	$(Q)rm -rf $(BENCH)/linux.root && mkdir -p $(BENCH)/linux.root
	$(Q)cp $< $(BENCH)/linux.root/init && cp /bin/busybox $(BENCH)/linux.root/
	$(Q)(cd $(BENCH)/linux.root && printf '%s\n' . init busybox | cpio -o -H newc --quiet) >$@

bench-linux: all linux $(BENCH)/linux $(BENCH)/linux.cpio ## Linux on Keel beside user-mode-linux: build/bench-linux.json and a table
	$(Q)$(BENCH)/linux $(O)

# One end of streams, as /init of the port and natively.
$(BENCH)/stream: host/bench/stream.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(BENCH_RAW_CFLAGS) -D_GNU_SOURCE -static -MMD -MP -MF $@.d -o $@ $<

$(BENCH)/stream.cpio: $(BENCH)/stream
	$(Q)rm -rf $(BENCH)/stream.root && mkdir -p $(BENCH)/stream.root
	$(Q)cp $< $(BENCH)/stream.root/init
	$(Q)(cd $(BENCH)/stream.root && printf '%s\n' . init | cpio -o -H newc --quiet) >$@

bench-net: all linux $(BENCH)/net $(BENCH)/stream.cpio ## Streams of Linux on Keel beside a process's through slirp4netns: build/bench-net.json and a table
	$(Q)$(BENCH)/net $(O)

CHECK_SECONDS_counts := 120
check-counts: $(O)/keel $(BENCH_GUEST) $(BENCH)/count
	$(Q)$(BENCH)/count $(O)/keel $(BENCH_GUEST)

.PHONY: bench bench-linux bench-net check-counts

-include $(wildcard $(BENCH)/*.d)
