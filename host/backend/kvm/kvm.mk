# SPDX-License-Identifier: MIT
# The kvm backend: the monitor's image for guests at CPL 0, carried inside keel, and the host side.

PV_CFLAGS = $(K_CFLAGS) -mno-red-zone
PV_OBJS := $(addprefix $(O)/host/pv/,gate.o core.o as.o mmu.o space.o user.o trap.o event.o pv_entry.o pv_main.o \
	pv_tlb.o pv_user.o pv_switch.o hc_event.o hc_clock.o hc_mem.o)

$(O)/host/pv/%.o: host/monitor/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(PV_CFLAGS) -c $< -o $@
$(O)/host/pv/%.o: host/monitor/%.S
	@mkdir -p $(@D)
	$(Q)$(CC) $(PV_CFLAGS) -c $< -o $@
$(O)/host/pv/%.o: host/backend/kvm/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(PV_CFLAGS) -c $< -o $@
$(O)/host/pv/%.o: host/backend/kvm/%.S
	@mkdir -p $(@D)
	$(Q)$(CC) $(PV_CFLAGS) -c $< -o $@
$(O)/host/pv/hc_%.o: libhypercall/src/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(PV_CFLAGS) -c $< -o $@
$(O)/host/pv.elf: $(PV_OBJS) host/backend/kvm/pv.ld
	$(Q)$(CC) -nostdlib -static -Wl,--build-id=none,-z,noexecstack,-z,max-page-size=4096,--fatal-warnings \
		-T host/backend/kvm/pv.ld -o $@ $(PV_OBJS)
$(O)/host/pv.bin: $(O)/host/pv.elf
	$(Q)objcopy -O binary $< $@
$(O)/host/pv_blob.o: $(O)/host/pv.bin
	$(Q)printf '%s\n' '.section .rodata' '.balign 64' '.globl kvm_pv_image, kvm_pv_image_end' 'kvm_pv_image:' \
		'.incbin "$<"' 'kvm_pv_image_end:' '.section .note.GNU-stack, "", @progbits' | $(CC) -c -x assembler - -o $@

HOST_BACKEND_OBJS += $(addprefix $(O)/host/,kvm.o kvm_calls.o pv.o pv_blob.o)
$(O)/host/%.o: host/backend/kvm/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_CFLAGS) -Iabi $(BUGS) -c -o $@ $<

# HVM: the monitor's core as a part of keel, with the list of calls such guests are offered.
HVM_OFFERED := BASE MULTICALL EVENT TIME CONSOLE MEMORY DEVICE CRASH STATS
HVM_OBJS := $(addprefix $(O)/host/,hvm_call.o hvm_mon_core.o hvm_mon_event.o hvm_mon_mmu.o hvm_mon_space.o)
HOST_BACKEND_OBJS += $(HVM_OBJS) $(addprefix $(O)/host/,hvm.o hc_clock.o)
$(O)/host/hvm/hypercalls.def: abi/hypercalls.def host/backend/kvm/kvm.mk
	@mkdir -p $(@D)
	$(Q)awk -v offered=" $(HVM_OFFERED) " '/^KEEL_EXT\(/ { split($$0, w, /[(,]/); \
		if (!index(offered, " " w[2] " ")) sub(/, 1, "/, ", 0, \"") } { print }' $< >$@
$(HVM_OBJS): $(O)/host/hvm/hypercalls.def
$(HVM_OBJS): HOST_CFLAGS += -I$(O)/host/hvm -fno-strict-aliasing
$(O)/host/hvm_mon_%.o: host/monitor/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOST_CFLAGS) -Iabi -c -o $@ $<

-include $(PV_OBJS:.o=.d) $(HOST_BACKEND_OBJS:.o=.d)
