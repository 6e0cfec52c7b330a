#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mkroot.sh OUT [FILE...]: the initramfs of Linux on Keel, from Debian's busybox-static and ./init; FILEs go to /test
set -eu

die()
{
	echo "mkroot.sh: $*" >&2
	exit 1
}

out=${1:?usage: mkroot.sh OUT [FILE...]}
shift
for tool in busybox cpio gzip; do
	command -v $tool >/dev/null || die "$tool is not installed"
done
busybox=$(command -v busybox)
! ldd "$busybox" >/dev/null 2>&1 || die "$busybox is not static; install busybox-static"

root=$(mktemp -d)
trap 'rm -rf "$root" "$out.new"' EXIT
trap 'exit 1' HUP INT TERM

mkdir -p "$root/bin" "$root/dev" "$root/etc/udhcpc" "$root/mnt" "$root/proc" "$root/root" "$root/sbin" "$root/sys" \
	"$root/test" "$root/tmp" "$root/usr/bin"
cp "$busybox" "$root/bin/busybox"
cp "$(dirname "$0")/init" "$root/init"
[ $# -eq 0 ] || cp "$@" "$root/test"
for applet in $("$busybox" --list); do
	[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
ln -s ../bin/busybox "$root/sbin/init"

echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
cat >"$root/etc/inittab" <<'END'
hvc0::once:/etc/session
END
cat >"$root/etc/session" <<'END'
#!/bin/sh
echo
echo "$(uname -sr) on $(sed -n 's/^host[	 ]*: //p' /proc/cpuinfo), busybox's shell. exit powers off; on a terminal Ctrl-A x ends at once."
sh -l
exec poweroff -f
END
cat >"$root/etc/udhcpc/default.script" <<'END'
#!/bin/sh
case $1 in
bound | renew)
	ip addr flush dev "$interface"
	ip addr add "$ip/$mask" dev "$interface"
	[ -z "$router" ] || ip route replace default via "${router%% *}"
	for server in $dns; do
		echo "nameserver $server"
	done >/etc/resolv.conf
	;;
esac
END
cat >"$root/etc/profile" <<'END'
PS1='keel:\w# '
cd
END
chmod 755 "$root" "$root/init" "$root/etc/session" "$root/etc/udhcpc/default.script"
# Names in order, without a time or an owner of this machine: the same input makes the same archive.
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --reproducible --quiet) | gzip -9n >"$out.new"
mv "$out.new" "$out"
