#!/bin/sh
# SPDX-License-Identifier: MIT
#
# boot.sh VMLINUZ JOB LOG SECONDS [FILE...]: boot a kernel under QEMU's
# interpreter with an initramfs and leave its serial line in LOG.
#
# The initramfs holds busybox, ./init, JOB as /job, and each FILE: SRC=DST is
# copied as it is, a *.ko goes to /modules, any other is a program, which goes
# to /bin together with the shared libraries it needs. Exit status 0 says that
# the guest powered itself off; what its tests said is for verdict.awk.
#
# Without SMAP: QEMU 7.2 does an iret at CPL 3, by which the host's sandboxed
# process returns from its signal handlers, with the kernel's access rights, and
# SMAP turns that into a kernel oops. No processor does so.
set -eu

die() {
	echo "boot.sh: $*" >&2
	exit 1
}

[ $# -ge 4 ] || die "usage: boot.sh VMLINUZ JOB LOG SECONDS [FILE...]"
vmlinuz=$1
job=$2
log=$3
seconds=$4
shift 4
for tool in qemu-system-x86_64 busybox cpio gzip; do
	command -v $tool >/dev/null || die "$tool is not installed"
done

work=$(mktemp -d)
qemu=
cleanup() {
	[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

root=$work/root
mkdir -p "$root/bin" "$root/modules" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/etc"
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$(dirname "$0")/init" "$root/init"
cp "$job" "$root/job"
chmod 755 "$root/init"
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"

# library FILE...: with its path, so that the loader finds it where it did here
library() {
	for lib in "$@"; do
		[ -e "$root$lib" ] && continue
		mkdir -p "$root$(dirname "$lib")"
		cp -L "$lib" "$root$lib"
	done
}

for file in "$@"; do
	case $file in
	*=*)
		mkdir -p "$root$(dirname "${file#*=}")"
		cp -RL "${file%%=*}" "$root${file#*=}"
		;;
	*.ko) strip --strip-debug -o "$root/modules/${file##*/}" "$file" ;;
	*)
		cp -L "$file" "$root/bin/"
		# shellcheck disable=SC2046 # one word per library
		library $(ldd "$file" 2>/dev/null | grep -o '/[^ ]*')
		;;
	esac
done
(cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$work/initrd"

: >"$log"
append="console=ttyS0 panic=-1 quiet printk.time=0 log_buf_len=4M no_timer_check tsc=reliable oops=panic panic_on_oops=1"
timeout -k 10 "$seconds" qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max,smap=off -smp 2 -m 1024 \
	-nodefaults -no-user-config -display none -serial "file:$log" -no-reboot -kernel "$vmlinuz" \
	-initrd "$work/initrd" -append "$append" </dev/null >"$work/qemu.log" 2>&1 &
qemu=$!
status=0
wait "$qemu" || status=$?
qemu=
case $status in
0) ;;
124 | 137) die "the guest did not power off within $seconds s" ;;
*) die "qemu ended with status $status: $(cat "$work/qemu.log")" ;;
esac
