# SPDX-License-Identifier: MIT
# The host: the program keel, and its unit tests.

HOST_SRC := main run options log image hvmimage hvmboot hvmserial startinfo partition core calls clock console symbols report elfcore keeper \
	seal
HOST_SRC += probe
HOST_DEVICES := device virtqueue block rng net netspec netuser nettap serial
HOST_SRC += $(HOST_DEVICES)
HOST_LIBH := ring event status
HOST_OBJS := $(addprefix $(O)/host/,$(HOST_SRC:=.o) $(HOST_LIBH:%=hc_%.o))
HOST_CFLAGS = $(HOSTCFLAGS) -D_GNU_SOURCE -MMD -MP

# Backends add their objects to HOST_BACKEND_OBJS. libseccomp compiles the filters of the sandbox.
HOST_BACKEND_OBJS := $(addprefix $(O)/host/,monmem.o v_as.o)
# liburing as an archive: the shared library of Debian 12 does not export all its header has.
HOST_BACKEND_LIBS := -lseccomp -l:liburing.a
# What kernels are compressed with, linked in: most runs never unpack one, and should not load four libraries.
HOST_UNPACK_LIBS := -Wl,-Bstatic -lzstd -llz4 -llzma -lz -Wl,-Bdynamic
BUGS := $(if $(KEEL_BUGS),-DKEEL_BUGS)
include host/backend/ring3/ring3.mk host/backend/kvm/kvm.mk
include host/tests/exits.mk host/models/models.mk

# The monitor's memory, and its tree code for reading a stopped partition's mappings.
$(O)/host/%.o: host/backend/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_CFLAGS) -Iabi $(BUGS) -c -o $@ $<
$(O)/host/v_as.o: host/monitor/as.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_CFLAGS) -Iabi $(BUGS) -c -o $@ $<

# The probe of /dev/kvm, with its guest. cJSON writes down what was found.
HOST_PROBE_OBJS := $(addprefix $(O)/host/,kvm_probe.o kvm_probe_guest.o)
HOST_BACKEND_OBJS += $(HOST_PROBE_OBJS)
HOST_BACKEND_LIBS += -lcjson
$(O)/host/%.o: host/backend/kvm/%.S
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_CFLAGS) -c -o $@ $<

ALL += $(O)/keel

# Names of system calls, for the line a forbidden one ends with.
$(O)/host/syscalls.h:
	@mkdir -p $(@D)
	$(Q)printf '#include <asm/unistd_64.h>\n' | $(CC) -E -dM -x c - | \
		sed -n 's/^#define __NR_\([a-z0-9_]*\) \([0-9]*\)$$/[\2] = "\1",/p' | sort >$@
$(O)/host/seal.o: $(O)/host/syscalls.h
$(O)/host/seal.o: HOST_CFLAGS += -I$(O)/host

$(O)/host/%.o: host/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_CFLAGS) -c -o $@ $<
# liburing's header, for sparse.
$(O)/host/block.o: HOST_CFLAGS += -DSPARSE_NO_BITWISE
$(O)/host/%.o: host/devices/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_CFLAGS) $(BUGS) -c -o $@ $<

# Code the host shares with guests, as a host program's.
$(O)/host/hc_%.o: libhypercall/src/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_CFLAGS) -c -o $@ $<

$(O)/keel: $(HOST_OBJS) $(HOST_BACKEND_OBJS)
	$(Q)$(CC) $(HOSTCFLAGS) -Wl,-z,now,-z,relro -o $@ $^ $(HOST_BACKEND_LIBS) $(HOST_UNPACK_LIBS) -lpthread

-include $(HOST_OBJS:.o=.d) $(HOST_PROBE_OBJS:.o=.d)

# Unit tests, always under ASan and UBSan. They bring a backend of their own.
HOST_TEST_SRC := unit image_test startinfo_test options_test console_test report_test core_test clock_test \
	as_test timer_test hvmimage_test hvmserial_test probe_test monmem_test driver net_test \
	virtqueue_test device_test serial_test block_test
HOST_TEST_LIBH := $(HOST_LIBH) clock start
HOST_TEST_OBJS := $(addprefix $(O)/host/tests/,$(HOST_TEST_SRC:=.o) $(filter-out main.o run.o keeper.o seal.o,$(HOST_SRC:=.o)) \
	$(HOST_TEST_LIBH:%=hc_%.o) as.o mon_event.o monmem.o kvm_probe.o kvm_probe_guest.o)
HOST_TEST_CFLAGS = $(HOST_CFLAGS) -fsanitize=address,undefined -fno-sanitize-recover=all

$(O)/host/tests/%.o: host/tests/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_TEST_CFLAGS) -c -o $@ $<
$(O)/host/tests/%.o: host/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_TEST_CFLAGS) -c -o $@ $<
$(O)/host/tests/%.o: host/devices/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_TEST_CFLAGS) -c -o $@ $<
# The monitor's code and its tests see the list of calls.
$(addprefix $(O)/host/tests/,as.o as_test.o mon_event.o timer_test.o monmem.o monmem_test.o): HOST_CFLAGS += -Iabi
$(O)/host/tests/%.o: host/backend/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_TEST_CFLAGS) -c -o $@ $<
$(O)/host/tests/mon_%.o: host/monitor/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_TEST_CFLAGS) -c -o $@ $<
$(O)/host/tests/%.o: host/monitor/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_TEST_CFLAGS) -c -o $@ $<
$(O)/host/tests/hc_%.o: libhypercall/src/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_TEST_CFLAGS) -c -o $@ $<
# The probe of /dev/kvm and its guest.
$(O)/host/tests/kvm_%.o: host/backend/kvm/kvm_%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_TEST_CFLAGS) -c -o $@ $<
$(O)/host/tests/%.o: host/backend/kvm/%.S
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_TEST_CFLAGS) -c -o $@ $<
$(O)/host/tests/unit: $(HOST_TEST_OBJS)
	$(Q)$(CC) $(HOST_TEST_CFLAGS) -o $@ $^ -lcmocka -lcjson -l:liburing.a $(HOST_UNPACK_LIBS) -lpthread

-include $(HOST_TEST_OBJS:.o=.d)

CHECK_PROGRAMS += $(O)/host/tests/unit

# The monitor's core as a whole, on a backend of its own.
MONITOR_TEST_OBJS := $(addprefix $(O)/host/tests/,monitor_test.o as.o hc_event.o hc_clock.o \
	$(addprefix mon_,core.o event.o mmu.o space.o trap.o user.o))
$(MONITOR_TEST_OBJS): HOST_CFLAGS += -Iabi
$(O)/host/tests/monitor: $(MONITOR_TEST_OBJS)
	$(Q)$(CC) $(HOST_TEST_CFLAGS) -o $@ $^ -lcmocka
-include $(MONITOR_TEST_OBJS:.o=.d)
CHECK_STAGES += monitor
CHECK_PROGRAMS += $(O)/host/tests/monitor
.PHONY: check-monitor
check-monitor: $(O)/host/tests/monitor
	$(Q)$(O)/host/tests/monitor

# A guest that misbehaves on request, for run_test.py. Tail calls would hide frames it looks for.
$(O)/host/tests/guest.elf: host/tests/guest.c $(GUEST_DEPS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) -fno-optimize-sibling-calls $(GUEST_LDFLAGS) -MMD -MP -MF $(@:.elf=.d) -o $@ $(GUEST_CRT0) $< \
		$(GUEST_LIBS)
# One of several vCPUs.
$(O)/host/tests/smp.elf: host/tests/smp_guest.c $(GUEST_DEPS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -MMD -MP -MF $(@:.elf=.d) -o $@ $(GUEST_CRT0) $< $(GUEST_LIBS)
# One with a network and a second console.
$(O)/host/tests/devices.elf: host/tests/devices_guest.c $(GUEST_DEPS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -MMD -MP -MF $(@:.elf=.d) -o $@ $(GUEST_CRT0) $< $(GUEST_LIBS)
-include $(O)/host/tests/guest.d $(O)/host/tests/smp.d $(O)/host/tests/devices.d

# One that runs user code, for bringing up a backend.
$(O)/host/tests/user_guest.elf: host/tests/user_guest.c $(GUEST_DEPS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -MMD -MP -MF $(@:.elf=.d) -o $@ $(GUEST_CRT0) $< $(GUEST_LIBS)
-include $(O)/host/tests/user_guest.d

CHECK_STAGES += host
CHECK_SECONDS_host := 480
CHECK_PROGRAMS += $(O)/host/tests/guest.elf $(O)/host/tests/user_guest.elf $(O)/host/tests/smp.elf
.PHONY: check-host
check-host: $(O)/host/tests/unit $(O)/host/tests/guest.elf $(O)/host/tests/smp.elf $(O)/host/tests/user_guest.elf $(O)/keel
	$(Q)$(O)/host/tests/unit && $(PYTHON) host/tests/run_test.py $(O)/keel $(O)/host/tests/guest.elf

# What run_test.py can ask of a host that is slow and large: all that neither measures it nor runs without a guest.
RUN_TESTS := exit_status crash_report crash_core core_option forbidden_system_call wild_jump_and_looping_frames guest_panic timeout \
	signals_end_everything killed_host_takes_guest_along killed_guest_is_reported output_is_whole slow_reader_loses_nothing \
	closed_stdout timeout_under_flood input_from_a_pipe input_is_left_alone bad_ring terminal_keys terminal_quit \
	terminal_restored terminal_dump terminal_size terminal_suspend
.PHONY: check-run
check-run: $(O)/host/tests/guest.elf $(O)/keel
	$(Q)$(PYTHON) host/tests/run_test.py $(O)/keel $(O)/host/tests/guest.elf $(RUN_TESTS)

# The seal: from inside, with the backends' own tables, and around a running host.
$(O)/host/tests/seal_test.o: HOST_TEST_CFLAGS := $(HOST_CFLAGS)
$(O)/host/tests/seal: $(O)/host/tests/seal_test.o $(filter-out %/main.o,$(HOST_OBJS)) $(HOST_BACKEND_OBJS)
	$(Q)$(CC) $(HOSTCFLAGS) -o $@ $^ $(HOST_BACKEND_LIBS) $(HOST_UNPACK_LIBS) -lpthread
-include $(O)/host/tests/seal_test.d

SEAL_TESTS := $(O)/host/tests/seal $(O)/host/tests/guest.elf
CHECK_STAGES += seal
CHECK_PROGRAMS += $(O)/host/tests/seal
.PHONY: check-seal
check-seal: $(O)/host/tests/seal $(O)/host/tests/guest.elf $(O)/keel
	$(Q)$(O)/host/tests/seal && SEAL=$(O)/host/tests/seal host/tests/seal.sh $(O)/keel \
		$(O)/host/tests/guest.elf $(O)/host/tests/sealed
	$(Q)if [ -c /dev/kvm ] && (: <>/dev/kvm) 2>/dev/null; then KEEL_TEST_BACKEND=kvm $(PYTHON) host/tests/run_test.py $(O)/keel \
		$(O)/host/tests/guest.elf terminal_keys terminal_quit terminal_restored terminal_size terminal_suspend; fi

# Networks and consoles, with a guest at one end and this machine at the other.
CHECK_STAGES += devices
CHECK_SECONDS_devices := 240
CHECK_PROGRAMS += $(O)/host/tests/devices.elf
.PHONY: check-devices
check-devices: $(O)/host/tests/devices.elf $(O)/keel
	$(Q)$(PYTHON) host/tests/devices_test.py $(O)/keel $(O)/host/tests/devices.elf

# The ring3 backend's guest process, interrupted at each instruction.
$(O)/host/tests/step: $(O)/host/tests/step.o
	$(Q)$(CC) $(HOST_TEST_CFLAGS) -o $@ $^
$(O)/host/tests/step.elf: host/tests/step_guest.c host/tests/step_round.S host/tests/step.h $(GUEST_DEPS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -o $@ $(GUEST_CRT0) $(filter %.c %.S,$^) $(GUEST_LIBS)
-include $(O)/host/tests/step.d

CHECK_STAGES += step
CHECK_SECONDS_step := 120
CHECK_PROGRAMS += $(O)/host/tests/step $(O)/host/tests/step.elf
.PHONY: check-step
check-step: $(O)/host/tests/step $(O)/host/tests/step.elf $(O)/keel
	$(Q)$(O)/host/tests/step $(O)/keel $(O)/host/tests/step.elf

# vCPUs against each other, from inside.
$(O)/host/tests/vcpus.elf: host/tests/vcpus_guest.c $(GUEST_DEPS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -MMD -MP -MF $(@:.elf=.d) -o $@ $(GUEST_CRT0) $< $(GUEST_LIBS)
-include $(O)/host/tests/vcpus.d

VCPUS_TESTS := $(O)/host/tests/vcpus.elf
CHECK_STAGES += vcpus
CHECK_SECONDS_vcpus := 240
CHECK_PROGRAMS += $(VCPUS_TESTS)
.PHONY: check-vcpus
check-vcpus: $(O)/host/tests/vcpus.elf $(O)/keel
	$(Q)host/tests/vcpus.sh $(O)/keel $(O)/host/tests/vcpus.elf ring3 1000

# Devices, from outside: what they keep, cost and hold. One test wants a host with planted bugs.
$(O)/host/tests/io.elf: host/tests/io_guest.c $(GUEST_DEPS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -MMD -MP -MF $(@:.elf=.d) -o $@ $(GUEST_CRT0) $< $(GUEST_LIBS)
-include $(O)/host/tests/io.d

CHECK_STAGES += io
CHECK_LONG_STAGES += io-long
CHECK_SECONDS_io := 480
CHECK_SECONDS_io-long := 900
CHECK_PROGRAMS += $(O)/host/tests/io.elf
.PHONY: check-io check-io-long
check-io check-io-long: $(O)/host/tests/io.elf $(O)/keel
	$(Q)$(MAKE) --no-print-directory O=$(O)/mutants KEEL_BUGS=1 $(O)/mutants/keel >&2
	$(Q)$(PYTHON) host/tests/io_test.py $(O)/keel $(O)/host/tests/io.elf $(O)/mutants/keel $(if $(findstring long,$@),long)

# Kernels that own their hardware, from outside.
$(O)/host/tests/hvm: $(O)/host/tests/hvm.o
	$(Q)$(CC) $(HOSTCFLAGS) -o $@ $^
$(O)/host/tests/hvm.o: HOST_TEST_CFLAGS := $(HOST_CFLAGS)
$(O)/host/tests/hvm_guest.elf: host/tests/hvm_guest.S
	@mkdir -p $(@D)
	$(Q)$(CC) -Iabi/include -nostdlib -static -no-pie -MMD -MP -MF $(@:.elf=.d) \
		-Wl,--build-id=none,-z,noexecstack,-z,max-page-size=4096,-Ttext-segment=0x100000,-e,start -o $@ $<
-include $(O)/host/tests/hvm.d $(O)/host/tests/hvm_guest.d
# What Debian's kernel boots into, on the test host: here a KVM may be too slow for one.
$(O)/host/tests/hvm_initrd.gz: host/tests/hvm_init.sh
	@rm -rf $(O)/host/tests/hvm_root && mkdir -p $(O)/host/tests/hvm_root/bin
	$(Q)cp $$(command -v busybox) $(O)/host/tests/hvm_root/bin/busybox && cp $< $(O)/host/tests/hvm_root/init
	$(Q)cd $(O)/host/tests/hvm_root && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1 >../$(@F)
HVM_TESTS := $(O)/host/tests/hvm $(O)/host/tests/hvm_guest.elf $(O)/host/tests/hvm_initrd.gz

CHECK_STAGES += hvm
SAN_STAGES += hvm
CHECK_SECONDS_hvm := 240
CHECK_PROGRAMS += $(HVM_TESTS)
.PHONY: check-hvm
check-hvm: $(O)/host/tests/hvm $(O)/host/tests/hvm_guest.elf $(O)/keel
	$(Q)$(O)/host/tests/hvm $(O)/keel $(O)/host/tests/hvm_guest.elf
