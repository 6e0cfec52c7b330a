#!/bin/sh
# SPDX-License-Identifier: MIT
#
# debian.sh OUT KEEL VMLINUX	Linux on Keel on a disk with Debian on it, told in KTAP
#
# The root file system is made of Debian's packages by mmdebstrap, once: OUT keeps its archive. Each run has a fresh
# disk of it. Its first process is a script of ours, for a container of packages has no init; what it runs is Debian's.
set -u
export PATH="$PATH:/usr/sbin:/sbin"

out=$1 keel=$2 image=$3
# shellcheck source=guest-hal/linux/tests/ktap.sh
. "$(dirname "$0")/ktap.sh"
needs "$keel" "$image" -- mmdebstrap fakeroot mke2fs
mkdir -p "$out" || exit 1
tmp=$(mktemp -d "${TMPDIR:-/tmp}/keel-debian.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' HUP INT TERM

if [ ! -s "$out/root.tar" ]; then
	mmdebstrap --quiet --format=tar --variant=apt --include=python3-minimal,login,mount,util-linux,busybox-static bookworm "$out/root.tar.part" >"$out/mmdebstrap.log" 2>&1 ||
		{ sed 's/^/# /' "$out/mmdebstrap.log"; bail "mmdebstrap failed"; }
	mv "$out/root.tar.part" "$out/root.tar"
fi

cat >"$tmp/keel-init" <<'END'
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
mkdir -p /proc /sys
mount -t proc proc /proc && mount -t sysfs sys /sys
echo "BEGIN apt"
apt --version
apt-cache policy dpkg | head -n 3
dpkg -l | grep -c ^ii
echo "BEGIN python3"
python3 -c 'import sys; print("python", sum(range(10 ** 6)), sys.version_info[:2])'
echo "BEGIN login"
# What login does once the password is right; it wants a terminal of its own, which a test has not.
su -l root -c 'echo "user $(id -un) on $(cat /etc/debian_version), login shell $(shopt -q login_shell && echo yes)"'
echo "BEGIN disk"
dd if=/dev/urandom of=/var/tmp/data bs=64k count=256 2>/dev/null && sync && sha256sum /var/tmp/data
echo 3 >/proc/sys/vm/drop_caches
sha256sum /var/tmp/data
echo "BEGIN end"
sync
mount -o remount,ro /
exec busybox poweroff -f
END
chmod +x "$tmp/keel-init"
cat >"$tmp/mkdisk" <<'END'
set -e
mkdir "$1/root"
tar -C "$1/root" --exclude='./dev/*' -xf "$2"
cp "$1/keel-init" "$1/root/keel-init"
mke2fs -q -t ext4 -L debian -d "$1/root" "$1/disk" 700M
rm -rf "$1/root"
END
fakeroot sh "$tmp/mkdisk" "$tmp" "$out/root.tar" || bail "no disk could be made"

timeout -k 5 180 "$keel" run --timeout 170 --core none --mem 256M --disk "file=$tmp/disk" "$image" \
	--cmdline "quiet root=/dev/vda rw init=/keel-init" </dev/null >"$out/log" 2>"$out/err"
status=$?

# The checks are functions handed to check, which shellcheck cannot see:
# shellcheck disable=SC2317
says()
{
	tr -d '\r' <"$out/log" | grep -E "$1"
}

# shellcheck disable=SC2317
same_twice()
{
	[ "$(says '^[0-9a-f]{64}  /var/tmp/data$' | sort | uniq -c | awk '{ print $1 }')" = 2 ]
}

echo "KTAP version 1"
echo "1..6"
check "it boots from the disk and powers off" [ "$status" = 0 ]
check "apt says its version" says '^apt [0-9.]+ \(amd64\)'
check "dpkg knows what is installed" says '^[0-9]{2,}$'
check "python3 computes" says '^python 499999500000 \(3, 11\)'
check "a login shell of root's" says '^user root on 12.*login shell yes'
check "what was written is read back from the disk" same_twice
[ $failed = 0 ] || tail -n 20 "$out/log" "$out/err" | sed 's/^/# /'
exit $failed
