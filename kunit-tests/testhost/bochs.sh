#!/bin/sh
# SPDX-License-Identifier: MIT
#
# bochs.sh VMLINUZ INITRD LOG SECONDS CPU: boot a kernel in Bochs, whose processor
# has VT-x and EPT, and leave its serial line in LOG. Exit status 0 says that the
# last line the guest is to write is there; what its tests said is for verdict.awk.
#
# Bochs is not told by its exit status: a guest that powers off and one that Bochs
# gives up on look the same.
set -eu

die() {
	echo "bochs.sh: $*" >&2
	exit 1
}

[ $# = 5 ] || die "usage: bochs.sh VMLINUZ INITRD LOG SECONDS CPU"
vmlinuz=$1
initrd=$2
log=$(realpath "$3")
seconds=$4
cpu=$5
share=/usr/share/bochs
for tool in bochs-bin grub-mkrescue xorriso mformat script; do
	command -v $tool >/dev/null || die "$tool is not installed"
done
for file in $share/BIOS-bochs-latest $share/VGABIOS-lgpl-latest /usr/lib/grub/i386-pc/cdboot.img; do
	[ -e "$file" ] || die "$file is not installed"
done

work=$(mktemp -d)
bochs=
cleanup() {
	if [ -n "$bochs" ]; then
		kill "$bochs" 2>/dev/null || true
		wait "$bochs" || true
	fi
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

mkdir -p "$work/iso/boot/grub"
cp "$vmlinuz" "$work/iso/boot/vmlinuz"
cp "$initrd" "$work/iso/boot/initrd"
append="console=ttyS0,115200 panic=-1 quiet printk.time=0 log_buf_len=4M no_timer_check tsc=reliable oops=panic panic_on_oops=1"
cat >"$work/iso/boot/grub/grub.cfg" <<END
set timeout=0
menuentry testhost {
	linux /boot/vmlinuz $append nokaslr random.trust_cpu=on
	initrd /boot/initrd
}
END
grub-mkrescue -o "$work/iso.img" "$work/iso" >"$work/said" 2>&1 || die "grub-mkrescue failed: $(cat "$work/said")"

# A second of the guest's is a fixed number of instructions, so its timeouts do not depend on how fast Bochs is here.
cat >"$work/bochsrc" <<END
config_interface: textconfig
display_library: term
plugin_ctrl: unmapped=0, biosdev=1, speaker=0, extfpuirq=0, parallel=0, serial=1, gameport=0, iodebug=0, e1000=0
cpu: model=$cpu, count=1, ips=400000000, reset_on_triple_fault=0, ignore_bad_msrs=1, cpuid_limit_winnt=0
megs: 512
romimage: file=$share/BIOS-bochs-latest
vgaromimage: file=$share/VGABIOS-lgpl-latest
vga: extension=vbe, update_freq=1
pci: enabled=1, chipset=i440fx
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$work/iso.img, status=inserted
boot: cdrom
clock: sync=none, time0=local
log: $work/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
com1: enabled=1, mode=file, dev=$log
END
# Debian's Bochs has the debugger, which waits to be told to go. Of its displays, rfb listens on
# the network and term wants a terminal, which script gives it.
echo c >"$work/rc"

: >"$log"
status=0
(cd "$work" && TERM=vt100 exec timeout -k 10 "$seconds" script -qec "exec bochs-bin -q -f bochsrc -rc rc" /dev/null) \
	</dev/null >"$work/said" 2>&1 &
bochs=$!
wait "$bochs" || status=$?
bochs=
grep -q '^@keel finish' "$log" || case $status in
124 | 137) die "the guest did not power off within $seconds s" ;;
*) die "bochs ended with status $status: $(tail -n 5 "$work/said" "$work/bochs.log" 2>/dev/null)" ;;
esac
