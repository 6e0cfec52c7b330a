#!/bin/sh
# SPDX-License-Identifier: MIT
#
# modules.sh KDIR OUT [make argument...]: build the kernel modules for the
# kernel configured in KDIR, below OUT/modules/KVER.
#
# Kbuild writes beside the sources it is given, so it is given a mirror of
# links. The suites need KUnit: the kernel's own where it has it, else one
# built out of tree from the matching Debian source.
set -eu

# A kernel's make must not take O= and the rest of the caller's for its own.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES

die() {
	echo "modules.sh: $*" >&2
	exit 1
}

kdir=${1:?KDIR}
out=${2:?OUT}
shift 2
src=$(cd "$(dirname "$0")/.." && pwd)

if [ ! -e "$kdir/Makefile" ]; then
	others=$(find /usr/src -maxdepth 1 -name 'linux-headers-*' ! -name '*-common*' | sort |
		sed 's/^/  make modules KDIR=/')
	[ -n "$others" ] || die "KDIR=$kdir: no kernel build directory there; apt-get install linux-headers-cloud-amd64"
	die "KDIR=$kdir: no kernel build directory there, but there is one for:
$others"
fi
kver=$(sed -n 's/^#define UTS_RELEASE "\(.*\)"$/\1/p' "$kdir/include/generated/utsrelease.h") || true
[ -n "$kver" ] || die "KDIR=$kdir is not prepared: include/generated/utsrelease.h does not name the kernel"

mkdir -p "$out/modules/$kver"
out=$(cd "$out" && pwd)
dir=$out/modules/$kver
log=$dir/build.log
exec 9>"$dir/lock"
flock -w 600 9 || die "$dir is in use"

# run COMMAND...: show what it said only when it fails or is asked for
run() {
	if [ "${V:-0}" = 1 ]; then
		timeout 600 "$@"
	else
		timeout 600 "$@" >"$log" 2>&1 || {
			cat "$log" >&2
			return 1
		}
	fi
}

# links FILE...: exactly these files of the source tree, and no stale link, in the mirror
links() {
	find "$dir" -type l -delete
	for f in "$@"; do
		mkdir -p "$dir/$(dirname "$f")"
		ln -s "$src/$f" "$dir/$f"
	done
}

config() {
	sed -n "s/^$1=//p" "$kdir/.config" 2>/dev/null
}

symvers=
kunit=
case $(config CONFIG_KUNIT) in
y | m) kunit=kernel ;;
*)
	case $kver in
	6.1.*)
		# The module loader of a kernel without CONFIG_KUNIT does not collect suites and
		# task_struct has no kunit_test: drop both uses; kunit_oot.h registers instead.
		kunit=$dir/kunit
		tree=$("$src/kunit-tests/testhost/kernel.sh" source "$out/cache")
		mkdir -p "$kunit"
		for f in "$tree"/lib/kunit/*.[ch]; do
			sed -e '/^\tcurrent->kunit_test = /d' \
				-e '/^\t__kunit_test_suites_\(init\|exit\)(mod->/d' "$f" >"$kunit/new"
			cmp -s "$kunit/new" "$kunit/${f##*/}" || cp "$kunit/new" "$kunit/${f##*/}"
			rm "$kunit/new"
		done
		cat >"$kunit/Kbuild" <<-END
			obj-m := kunit.o
			kunit-y := test.o resource.o string-stream.o assert.o try-catch.o executor.o
			ccflags-y := -DCONFIG_KUNIT_DEFAULT_ENABLED=1
		END
		run make -C "$kdir" "M=$kunit" modules || die "KUnit does not build for $kver"
		symvers=$kunit/Module.symvers
		;;
	*)
		echo "modules.sh: $kver has no CONFIG_KUNIT and is not Debian's 6.1: building keel_core.ko without the suites" >&2
		;;
	esac
	;;
esac

# The console's: in a kernel's tree, not among its headers.
hvc=
for tree in "$kdir" "$kdir/source"; do
	[ ! -e "$tree/drivers/tty/hvc/hvc_console.h" ] || hvc=$tree/drivers/tty/hvc
done
case $hvc$kver in
6.1.*)
	tree=$("$src/kunit-tests/testhost/kernel.sh" source "$out/cache")
	hvc=$(cd "$tree/drivers/tty/hvc" && pwd)
	;;
esac
[ -n "$hvc" ] || echo "modules.sh: $kver has no drivers/tty/hvc/hvc_console.h and is not Debian's 6.1: no keel.ko" >&2

cd "$src"
# The names are a list of words without spaces by this project's own rules.
# shellcheck disable=SC2046
links Kbuild $(find abi/include libhypercall/include libhypercall/src kunit-tests guest-hal/linux/drivers -name '*.[chS]' | sort)
[ $# -gt 0 ] || set -- modules
run make -C "$kdir" "M=$dir" "KEEL_KUNIT=$kunit" "KEEL_HVC=$hvc" \
	"KBUILD_EXTRA_SYMBOLS=$symvers" "$@" ||
	die "the modules do not build for $kver"
