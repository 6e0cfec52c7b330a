#!/bin/sh
# SPDX-License-Identifier: MIT
#
# modules.sh KDIR OUT [make argument...]: build the kernel modules for the
# kernel configured in KDIR, below OUT/modules/KVER. STRICT=1: all of them, and
# without a warning, though it be one that only W=1 makes. SUITES=none: without
# the suites.
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
	status=0
	timeout 600 "$@" >"$log" 2>&1 || status=$?
	if [ "$status" != 0 ] || [ "${V:-0}" = 1 ]; then
		cat "$log" >&2
	fi
	return $status
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

# The console's, which a kernel's tree has and Debian's headers lack: 6.1's, from Debian's source, as it
# is or with what later kernels changed, whichever declares what this kernel's symbol versions say.
HVC_SYMBOLS=5
SINCE_6_8='
	/^\tchar \*outbuf;$/d
	/^\tstruct list_head next;$/,/^};$/s/^\tunsigned long flags;$/&\n\tu8 outbuf[] __aligned(sizeof(long));/
	s/^\tint (\*\(get\|put\)_chars)(uint32_t vtermno, \(const \)\?char \*buf, int count);$/\tssize_t (*\1_chars)(uint32_t vtermno, \2u8 *buf, size_t count);/
	s/^\(\tvoid (\*dtr_rts)(struct hvc_struct \*hp,\) int raise);$/\1 bool active);/
	s/^extern int hvc_remove/extern void hvc_remove/'

# hvc_fits HEADER: what of it is used has the versions that this kernel's symbols have
hvc_fits() {
	cp "$1" "$dir/hvc/new/hvc_console.h"
	cp "$src/kunit-tests/hvc_types.c" "$dir/hvc/new"
	echo 'ccflags-y := -D__GENKSYMS__' >"$dir/hvc/new/Kbuild"
	run make -C "$kdir" "M=$dir/hvc/new" hvc_types.i || die "the types of $1 do not preprocess for $kver"
	"$kdir/scripts/genksyms/genksyms" <"$dir/hvc/new/hvc_types.i" |
		sed -n 's/^#SYMVER \(.*\) \(0x.*\)$/\2\t\1\t/p' >"$dir/hvc/new/versions"
	[ "$(grep -cFf "$dir/hvc/new/versions" "$kdir/Module.symvers")" = $HVC_SYMBOLS ]
}

hvc=
for tree in "$kdir" "$kdir/source"; do
	[ ! -e "$tree/drivers/tty/hvc/hvc_console.h" ] || hvc=$tree/drivers/tty/hvc
done
if [ -z "$hvc" ] && tree=$("$src/kunit-tests/testhost/kernel.sh" source "$out/cache"); then
	hvc=$dir/hvc
	base=$tree/drivers/tty/hvc/hvc_console.h
	# Once for all of what it comes from.
	if [ -z "$(find "$hvc/hvc_console.h" -newer "$base" -newer "$kdir/Module.symvers" -newer "$0" \
		-newer "$src/kunit-tests/hvc_types.c" 2>/dev/null)" ]; then
		rm -rf "$hvc"
		mkdir -p "$hvc/new"
		sed "$SINCE_6_8" "$base" >"$hvc/since-6.8.h"
		for header in "$base" "$hvc/since-6.8.h"; do
			if hvc_fits "$header"; then
				cp "$header" "$hvc/hvc_console.h"
				break
			fi
		done
	fi
	[ -e "$hvc/hvc_console.h" ] || hvc=
fi
if [ -z "$hvc" ]; then
	none="no drivers/tty/hvc/hvc_console.h is known that is right for $kver: no keel.ko"
	[ -z "${STRICT-}" ] || die "$none"
	echo "modules.sh: $none" >&2
fi

symvers=
kunit=
case ${SUITES-}$(config CONFIG_KUNIT) in
none*) ;;
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

cd "$src"
# The names are a list of words without spaces by this project's own rules.
# shellcheck disable=SC2046
links Kbuild $(find abi/include libhypercall/include libhypercall/src kunit-tests guest-hal/linux/drivers -name '*.[chS]' | sort)
[ $# -gt 0 ] || set -- modules
[ -z "${STRICT-}" ] || set -- W=1 "$@"
run make "-j$(nproc)" -C "$kdir" "M=$dir" "KEEL_KUNIT=$kunit" "KEEL_HVC=$hvc" \
	"KBUILD_EXTRA_SYMBOLS=$symvers" "$@" ||
	die "the modules do not build for $kver"
if [ -n "${STRICT-}" ] && grep '\(warning\|WARNING\): ' "$log" >&2; then
	# The next time has to say it again.
	find "$dir" -name '*.o' -delete
	die "there are warnings for $kver"
fi
