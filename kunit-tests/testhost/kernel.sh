#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Finds Debian's cloud kernel for the test host, and headers of others. Prints one path:
#
#	kernel.sh headers          build directory of the installed headers
#	kernel.sh others CACHE     two lines, build directories: of the amd64 flavour's headers, and of the newest kernel's,
#				   downloaded and unpacked, since that package would install a kernel
#	kernel.sh image CACHE      vmlinuz of exactly that version, downloaded and unpacked, never installed
#	kernel.sh kvm CACHE        directory with the KVM modules of that image
#	kernel.sh virtio CACHE     directory with its drivers of virtio devices
#	kernel.sh source CACHE     the parts of the kernel source used here: lib/kunit, checkpatch.pl, hvc_console.h
#
# Names carry an ABI number that moves with security updates, so they are
# taken from what the installed metapackage depends on and never written down.
set -eu

META=linux-headers-cloud-amd64
META_AMD64=linux-headers-amd64
META_NEWEST=linux-headers-6.12-cloud-amd64

die() {
	echo "kernel.sh: $*" >&2
	exit 1
}

# read_depends META DEPENDS: sets $headers (package), $version (Debian), $release (uname -r)
read_depends() {
	headers=$(echo "$2" | tr ',' '\n' | sed -n 's/^ *\(linux-headers-[^ ]*\) (= .*)$/\1/p')
	version=$(echo "$2" | tr ',' '\n' | sed -n 's/^ *linux-headers-[^ ]* (= \(.*\))$/\1/p')
	if [ -z "$headers" ] || [ -z "$version" ]; then
		die "cannot read the dependencies of $1: $2"
	fi
	release=${headers#linux-headers-}
}

# resolve META: the same, of an installed one
resolve() {
	depends=$(dpkg-query -W -f '${Depends}' "$1" 2>/dev/null) ||
		die "$1 is not installed: apt-get install $1 linux-source-6.1"
	read_depends "$1" "$depends"
	[ -d "/usr/src/$headers" ] || die "$headers is not installed, though $1 wants it: apt-get -f install"
}

# part CACHE NAME: sets $tmp, where something is put together before it has its place
part() {
	mkdir -p "$1"
	tmp=$(mktemp -d "$1/$2.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 1' HUP INT TERM
}

# download PACKAGE=VERSION...: into $tmp
download() {
	(cd "$tmp" && timeout 300 apt-get -q download "$@") >"$tmp/log" 2>&1 || {
		cat "$tmp/log" >&2
		die "cannot download $*; try apt-get update, then make packages"
	}
}

headers() {
	resolve "$1"
	echo "/usr/src/$headers"
}

# newest CACHE: what the registry has last, as apt's lists say; they may be older than it
newest() {
	depends=$(apt-cache show --no-all-versions "$META_NEWEST" 2>/dev/null | sed -n 's/^Depends: //p')
	[ -n "$depends" ] || die "apt knows no $META_NEWEST: apt-get update"
	read_depends "$META_NEWEST" "$depends"
	dir=$1/$headers-$version
	if [ ! -d "$dir" ]; then
		part "$1" headers
		series=${release%-cloud-amd64}
		download "$headers=$version" "linux-headers-$series-common=$version" "linux-kbuild-$series=$version"
		mkdir "$tmp/new"
		for package in "$tmp"/*.deb; do
			dpkg-deb -x "$package" "$tmp/new"
		done
		# The one path that is not relative; and a file that only a tool that is not needed reads.
		echo "include ../linux-headers-$series-common/Makefile" >"$tmp/new/usr/src/$headers/Makefile"
		rm -f "$tmp/new/usr/src/$headers/vmlinux"
		rm -rf "$dir"
		mv -T "$tmp/new" "$dir" 2>/dev/null || [ -d "$dir" ] || die "cannot create $dir"
	fi
	dir=$(cd "$dir" && pwd)
	echo "$dir/usr/src/$headers"
}

image() {
	resolve "$META"
	dir=$1/linux-image-$release-$version
	if [ ! -e "$dir/boot/vmlinuz-$release" ] || [ ! -d "$dir/kvm" ] || [ ! -d "$dir/virtio" ]; then
		part "$1" image
		download "linux-image-$release=$version"
		kernel=./lib/modules/$release/kernel
		kvm='arch/x86/kvm/kvm arch/x86/kvm/kvm-amd arch/x86/kvm/kvm-intel virt/lib/irqbypass'
		virtio='drivers/virtio/virtio drivers/virtio/virtio_ring drivers/block/virtio_blk net/core/failover
			drivers/net/net_failover drivers/net/virtio_net drivers/char/virtio_console
			drivers/char/hw_random/virtio-rng'
		# shellcheck disable=SC2046,SC2086 # one word per module
		dpkg-deb --fsys-tarfile "$tmp"/*.deb | tar -x -C "$tmp" ./boot $(printf "$kernel/%s.ko " $kvm $virtio) ||
			die "linux-image-$release has not all of the modules"
		[ -e "$tmp/boot/vmlinuz-$release" ] || die "linux-image-$release has no vmlinuz-$release"
		mkdir "$tmp/new" "$tmp/new/kvm" "$tmp/new/virtio"
		mv "$tmp/boot" "$tmp/new"
		for module in $kvm; do
			mv "$tmp/$kernel/$module.ko" "$tmp/new/kvm"
		done
		for module in $virtio; do
			mv "$tmp/$kernel/$module.ko" "$tmp/new/virtio"
		done
		rm -rf "$dir"
		mv -T "$tmp/new" "$dir"
	fi
}

source_tree() {
	pkg=linux-source-6.1
	version=$(dpkg-query -W -f '${Version}' $pkg 2>/dev/null) || die "$pkg is not installed: apt-get install $pkg"
	dir=$1/$pkg-$version
	if [ ! -e "$dir/drivers/tty/hvc/hvc_console.h" ]; then
		part "$1" source
		timeout 300 tar -x -C "$tmp" -f /usr/src/$pkg.tar.xz --strip-components=1 --wildcards \
			"$pkg/lib/kunit/*" $pkg/scripts/checkpatch.pl $pkg/scripts/spelling.txt \
			$pkg/scripts/const_structs.checkpatch $pkg/drivers/tty/hvc/hvc_console.h
		chmod 755 "$tmp"
		# One of an older list.
		[ -e "$dir/drivers" ] || rm -rf "$dir"
		mv -T "$tmp" "$dir" 2>/dev/null || [ -d "$dir" ] || die "cannot create $dir"
	fi
	echo "$dir"
}

case ${1-} in
headers) headers "$META" ;;
others)
	headers "$META_AMD64"
	newest "${2:?CACHE}"
	;;
image)
	image "${2:?CACHE}"
	echo "$dir/boot/vmlinuz-$release"
	;;
kvm)
	image "${2:?CACHE}"
	echo "$dir/kvm"
	;;
virtio)
	image "${2:?CACHE}"
	echo "$dir/virtio"
	;;
source) source_tree "${2:?CACHE}" ;;
*) die "usage: kernel.sh headers | others CACHE | image CACHE | kvm CACHE | virtio CACHE | source CACHE" ;;
esac
