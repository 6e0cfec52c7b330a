#!/bin/sh
# SPDX-License-Identifier: MIT
#
# boot.sh VMLINUZ INITRD LOG SECONDS CPU: boot a kernel under QEMU's interpreter
# and leave its serial line in LOG. Exit status 0 says that the guest powered
# itself off; what its tests said is for verdict.awk.
set -eu

die() {
	echo "boot.sh: $*" >&2
	exit 1
}

[ $# = 5 ] || die "usage: boot.sh VMLINUZ INITRD LOG SECONDS CPU"
vmlinuz=$1
initrd=$2
log=$3
seconds=$4
cpu=$5
command -v qemu-system-x86_64 >/dev/null || die "qemu-system-x86_64 is not installed"

said=$(mktemp)
qemu=
cleanup() {
	[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
	rm -f "$said"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

: >"$log"
append="console=ttyS0 panic=-1 quiet printk.time=0 log_buf_len=4M no_timer_check tsc=reliable oops=panic panic_on_oops=1"
timeout -k 10 "$seconds" qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu "$cpu" -smp 2 -m 1024 \
	-nodefaults -no-user-config -display none -serial "file:$log" -no-reboot -kernel "$vmlinuz" \
	-initrd "$initrd" -append "$append" </dev/null >"$said" 2>&1 &
qemu=$!
status=0
wait "$qemu" || status=$?
qemu=
case $status in
0) ;;
124 | 137) die "the guest did not power off within $seconds s" ;;
*) die "qemu ended with status $status: $(cat "$said")" ;;
esac
