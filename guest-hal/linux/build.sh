#!/bin/sh
# SPDX-License-Identifier: MIT
#
# build.sh OUT: Linux on Keel from Debian's kernel source, below OUT/linux
#
#	src/		the source, unpacked once for each version of the package, with the port linked in
#	obj/		the kernel's own build directory
#	build.log	what its make last said
#	vmlinux		the image
#
# build.sh OUT sparse: the port's files through sparse, as the kernel's make does it
# build.sh OUT mutants: vmlinux, and vmlinux-mutants, in which keel_mutant=N on the command line breaks something
#
# In the environment: V=1 shows the commands.
set -eu

pkg=linux-source-6.1
tarball=/usr/src/$pkg.tar.xz
keel=$(cd "$(dirname "$0")/../.." && pwd)
port=$keel/guest-hal/linux
o=$(realpath -m "${1:?usage: build.sh OUT [sparse]}")
out=$o/linux
src=$out/src
obj=$out/obj
log=$out/build.log

die()
{
	echo "build.sh: $*" >&2
	exit 1
}

version=$(dpkg-query -W -f '${Version}' $pkg 2>/dev/null) || version=$(cksum <$tarball) ||
	die "$tarball is missing; it is in Debian's package $pkg"

# Large parts that nothing here compiles stay packed: that halves time and space. Kconfig and make want to see
# every directory, so what is left out is the code in them.
unpack()
{
	[ "$(cat "$src/.keel" 2>/dev/null)" != "$version" ] || return 0
	echo "Linux: unpacking $pkg $version"
	rm -rf "$src" "$obj" "$src.new"
	mkdir -p "$src.new"
	tar -x -C "$src.new" -f $tarball --strip-components=1 --anchored --wildcards \
		--exclude="$pkg/Documentation/*/*" --exclude="$pkg/tools/[!ai]*/*" --exclude="$pkg/arch/[!ux]*/*.[chS]" \
		--exclude="$pkg/arch/*.dts*" \
		--exclude="$pkg/drivers/gpu/*.[chS]" --exclude="$pkg/drivers/infiniband/*.[chS]" \
		--exclude="$pkg/drivers/media/*.[chS]" --exclude="$pkg/drivers/net/*/*.[chS]" \
		--exclude="$pkg/drivers/scsi/*.[chS]" --exclude="$pkg/drivers/staging/*.[chS]" \
		--exclude="$pkg/drivers/usb/*.[chS]" --exclude="$pkg/sound/*.[chS]"
	echo "$version" >"$src.new/.keel"
	mv "$src.new" "$src"
}

# All of the port is files of its own; no file of the kernel's changes.
link_port()
{
	os=$src/arch/um/os-Keel
	rm -rf "$os"
	mkdir -p "$os/hypercall" "$os/kunit"
	ln -sfn "$port/um/Makefile-os-Keel" "$src/arch/um/Makefile-os-Keel"
	ln -sfn "$port/um/x86" "$src/arch/x86/um/os-Keel"
	ln -s "$port"/um/os/* "$port"/drivers/*.[ch] "$os"
	ln -s "$port"/um/hypercall/* "$keel"/libhypercall/src/*.[chS] "$os/hypercall"
	ln -s "$port"/um/kunit/* "$keel"/kunit-tests/*_test.c "$os/kunit"
}

# Our make's flags are not for the kernel's.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES GNUMAKEFLAGS
kmake()
{
	make -j"$(nproc)" -C "$src" "O=$obj" ARCH=um OS=Keel "KEEL=$keel" "V=${V:-0}" \
		KBUILD_BUILD_USER=keel KBUILD_BUILD_HOST=keel KBUILD_BUILD_VERSION=1 \
		"KBUILD_BUILD_TIMESTAMP=$(date -u -r "$src/Makefile")" "$@"
}

# A line of the fragment that did not take is an error: it says what the port relies on.
configure()
{
	fragment=$out/keel.config
	cat "$port/um/keel.config" "$keel/kunit-tests/.kunitconfig" >"$fragment"
	! cmp -s "$fragment" "$obj/.keel.config" || return 0
	mkdir -p "$obj"
	kmake -s "KCONFIG_ALLCONFIG=$fragment" allnoconfig >"$log" 2>&1 || {
		tail -n 20 "$log" >&2
		die "the kernel cannot be configured"
	}
	lost=$(grep -E '^(# )?CONFIG_' "$fragment" | while IFS= read -r line; do
		case $line in
		'# '*)
			name=${line#\# }
			! grep -q "^${name%% *}=" "$obj/.config" || echo "    $line"
			;;
		*) grep -qxF "$line" "$obj/.config" || echo "    $line" ;;
		esac
	done)
	[ -z "$lost" ] || {
		echo "$lost" >&2
		die "these lines of $fragment did not take"
	}
	cp "$fragment" "$obj/.keel.config"
}

# One line that counts on a terminal, one for each twenty files elsewhere.
progress()
{
	awk -v tty="$([ -t 1 ] && echo 1)" '
	/^  (CC|AS) / {
		n++
		if (tty)
			printf "\r\033[KLinux: %4d files compiled, %.40s", n, $NF
		else if (n % 20 == 0)
			print "Linux: " n " files compiled"
		fflush()
	}
	END {
		if (tty && n)
			printf "\r\033[K"
		if (n)
			print "Linux: " n " files compiled"
	}'
}

build()
{
	if [ "${V:-0}" = 1 ]; then
		kmake vmlinux
	else
		{ kmake vmlinux 2>&1 || echo "build.sh: failed"; } | tee "$log" | progress
		[ "$(tail -n 1 "$log")" != "build.sh: failed" ] || {
			grep -nE -A 5 'error:|warning:|undefined reference|\*\*\*|Error [0-9]' "$log" | head -n 60 >&2
			die "the kernel was not built; all of it is in $log"
		}
	fi
	image "$obj" vmlinux
}

# image OBJ NAME: what the host runs, from a build directory
image()
{
	cp "$1/vmlinux" "$out/$2.new"
	"$out/mkimage" "$out/$2.new"
	mv "$out/$2.new" "$out/$2"
}

# The same kernel but for the shared C, which is compiled with the faults of kunit-tests/mutants.csv.
mutants()
{
	rm -rf "$obj.mutants"
	cp -a "$obj" "$obj.mutants"
	kmake "O=$obj.mutants" KEEL_MUTANTS=1 vmlinux >"$log" 2>&1 || {
		tail -n 20 "$log" >&2
		die "the kernel with planted faults was not built; all of it is in $log"
	}
	image "$obj.mutants" vmlinux-mutants
	rm -rf "$obj.mutants"
}

mkdir -p "$out"
# Two at a time would unpack over each other.
exec 9>"$out/lock"
flock 9
unpack
link_port
configure
case ${2-} in
'') build ;;
mutants) build && mutants ;;
# What assembly and the linker refer to has no declaration.
sparse) kmake -s -k C=2 CF="-D__CHECK_ENDIAN__ -Wsparse-error -Wno-decl" arch/um/os-Keel/ ;;
*) die "there is no '$2'" ;;
esac
