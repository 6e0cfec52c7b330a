#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mkhvm.sh OUT - what Debian's kernel boots into in an HVM partition, as OUT/linux/hvm/initrd.gz, and its disk, disk.img
#
# In the initramfs are busybox, hvm-init, this project's modules and the drivers of Debian's kernel that they serve.
set -eu

out=$1
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
dir=$out/linux/hvm
kdir=$("$top/kunit-tests/testhost/kernel.sh" headers)
drivers=$("$top/kunit-tests/testhost/kernel.sh" virtio "$out/cache")
STRICT=1 "$top/kunit-tests/modules.sh" "$kdir" "$out"
modules=$out/modules/${kdir#/usr/src/linux-headers-}

mkdir -p "$dir"
rm -rf "$dir/root" "$dir/files"
mkdir -p "$dir/root/bin" "$dir/root/modules" "$dir/root/etc" "$dir/files"
cp "$(command -v busybox)" "$dir/root/bin/busybox"
cp "$here/hvm-init" "$dir/root/init"
cp "$here/leaks.awk" "$dir/root/etc/leaks"
cp "$modules/keel_core.ko" "$modules/keel.ko" "$modules/virtio_keel.ko" "$drivers"/*.ko "$dir/root/modules"

i=0
while [ $i -lt 20 ]; do
	head -c $((i * 4001)) /dev/urandom >"$dir/files/file$i"
	i=$((i + 1))
done
(cd "$dir/files" && sha256sum file* >sums)
cp "$dir/files/sums" "$dir/root/etc"
cp "$dir/files/sums" "$dir/sums"
rm -f "$dir/disk.img"
truncate -s 16M "$dir/disk.img"
PATH=$PATH:/sbin:/usr/sbin mke2fs -q -t ext4 -d "$dir/files" "$dir/disk.img"

(cd "$dir/root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet -R 0:0) | gzip -1 >"$dir/initrd.new"
mv "$dir/initrd.new" "$dir/initrd.gz"
rm -rf "$dir/root" "$dir/files"
