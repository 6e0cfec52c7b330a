# SPDX-License-Identifier: MIT
# The ring3 backend: K, a program of its own without libc, linked at its base and
# carried inside keel; and the host side.

K_CFLAGS = -std=gnu11 -O2 -g -Wall -Wextra -Werror -ffreestanding -fpie -fvisibility=hidden -mgeneral-regs-only \
	-fno-stack-protector -fno-strict-aliasing -fcf-protection=none -fno-asynchronous-unwind-tables \
	-ffile-prefix-map=$(CURDIR)/= -Iabi -Iabi/include -Ilibhypercall/include -MMD -MP $(if $(KEEL_BUGS),-DKEEL_BUGS)
K_OBJS := $(addprefix $(O)/host/k/,gate.o core.o as.o mmu.o space.o user.o trap.o event.o k_entry.o k_main.o k_smp.o k_user.o k_nursery.o u_entry.o hc_event.o hc_clock.o hc_mem.o)

$(O)/host/k/%.o: host/monitor/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(K_CFLAGS) -c $< -o $@
$(O)/host/k/%.o: host/monitor/%.S
	@mkdir -p $(@D)
	$(Q)$(CC) $(K_CFLAGS) -c $< -o $@
$(O)/host/k/%.o: host/backend/ring3/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(K_CFLAGS) -c $< -o $@
$(O)/host/k/%.o: host/backend/ring3/%.S
	@mkdir -p $(@D)
	$(Q)$(CC) $(K_CFLAGS) -c $< -o $@
$(O)/host/k/hc_%.o: libhypercall/src/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(K_CFLAGS) -c $< -o $@
$(O)/host/k.elf: $(K_OBJS) host/backend/ring3/k.ld
	$(Q)$(CC) -nostdlib -static -Wl,--build-id=none,-z,noexecstack,-z,max-page-size=4096,--fatal-warnings \
		-T host/backend/ring3/k.ld -o $@ $(K_OBJS)
$(O)/host/k.stripped: $(O)/host/k.elf
	$(Q)objcopy --strip-all $< $@
$(O)/host/k_blob.o: $(O)/host/k.stripped
	$(Q)printf '%s\n' '.section .rodata' '.balign 64' '.globl ring3_k_image, ring3_k_image_end' 'ring3_k_image:' \
		'.incbin "$<"' 'ring3_k_image_end:' '.section .note.GNU-stack, "", @progbits' | $(CC) -c -x assembler - -o $@

HOST_BACKEND_OBJS += $(addprefix $(O)/host/,ring3.o filter.o sandbox.o k_blob.o)
$(O)/host/%.o: host/backend/ring3/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(HOSTCFLAGS) -Iabi $(if $(KEEL_BUGS),-DKEEL_BUGS) -MMD -MP -c $< -o $@

-include $(K_OBJS:.o=.d) $(HOST_BACKEND_OBJS:.o=.d)
