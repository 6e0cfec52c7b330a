#!/bin/sh
# SPDX-License-Identifier: MIT
#
# initrd.sh OUT JOB [FILE...]: make the test host's initramfs.
#
# It holds busybox, ./init, JOB as /job, and each FILE: SRC=DST is copied as it
# is, a *.ko goes to /modules, any other is a program, which goes to /bin
# together with the shared libraries it needs.
set -eu

die() {
	echo "initrd.sh: $*" >&2
	exit 1
}

[ $# -ge 2 ] || die "usage: initrd.sh OUT JOB [FILE...]"
out=$1
job=$2
shift 2
for tool in busybox cpio gzip; do
	command -v $tool >/dev/null || die "$tool is not installed"
done

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
trap 'exit 1' HUP INT TERM

mkdir -p "$root/bin" "$root/modules" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/etc"
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$(dirname "$0")/init" "$root/init"
cp "$job" "$root/job"
chmod 755 "$root" "$root/init"
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
(cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$out"
