#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mkroot DIR SELFTEST - a root of Debian's programs as DIR/root.cpio.gz
#
# Packages are fetched with apt and unpacked, nothing of them is changed or set up. In
# the root are the programs below, the libraries they name, and the tests beside this
# script. The packages stay in DIR/debs.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
dir=$1
selftest=$(realpath "$2")
mkdir -p "$dir/debs"
dir=$(cd "$dir" && pwd)

packages='dash coreutils perl-base busybox-static stress-ng
	python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libpython3.11-testsuite
	libc6 libgcc-s1 libacl1 libattr1 libapparmor1 libbsd0 libbz2-1.0 libcrypt1 libdrm2 libegl1 libexpat1 libffi8
	libgbm1 libgles2 libglvnd0 libgmp10 libipsec-mb1 libjpeg62-turbo libjudydebian1 libkmod2 liblzma5 libmd0
	libpcre2-8-0 libsctp1 libselinux1 libssl3 libuuid1 libwayland-server0 libxau6 libxcb-randr0 libxcb1 libxdmcp6
	libxxhash0 libzstd1 zlib1g'
# Of Python's testsuite, what suites/python runs and that imports.
python_tests=$(sed 's/#.*//' "$here/suites/python.list")

fail()
{
	echo "mkroot: $*" >&2
	exit 1
}

cd "$dir/debs"
for p in $packages; do
	set -- "$p"_*.deb
	[ -f "$1" ] && continue
	apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$p" >../apt.log 2>&1 ||
		{ cat ../apt.log >&2; fail "the package $p cannot be fetched"; }
done
cd "$dir"

if [ "$(cat all/packages 2>/dev/null)" != "$packages" ]; then
	rm -rf all
	mkdir -p all/coreutils
	for p in $packages; do
		to=all
		[ "$p" != coreutils ] || to=all/coreutils
		dpkg-deb -x debs/"$p"_*.deb $to
	done
	printf '%s\n' "$packages" >all/packages
fi

rm -rf root
mkdir root
cd root
mkdir -p bin lib64 lib usr/bin usr/lib/python3.11 coreutils dev proc sys tmp root etc suites
cp ../all/bin/dash ../all/bin/busybox bin/
cp ../all/usr/bin/perl ../all/usr/bin/stress-ng ../all/usr/bin/python3.11 usr/bin/
# Beside busybox's applets of the same names.
cp ../all/coreutils/bin/* ../all/coreutils/usr/bin/* coreutils/
cp -r ../all/usr/lib/x86_64-linux-gnu/perl-base lib/
mkdir -p usr/lib/x86_64-linux-gnu usr/share
ln -s ../../../lib/perl-base usr/lib/x86_64-linux-gnu/perl-base
(cd ../all/usr/lib/python3.11 && find . \( -name test -o -name idlelib -o -name lib2to3 -o -name tkinter -o -name ensurepip \
	-o -name __pycache__ \) -prune -o -type f -print | cpio -pdm --quiet ../../../../root/usr/lib/python3.11)
# What links with libraries of databases, terminals and directories is of no use here.
for m in _dbm readline _curses _curses_panel nis _sqlite3 _ssl; do
	rm -f usr/lib/python3.11/lib-dynload/$m.*
done
t=../all/usr/lib/python3.11/test
mkdir -p usr/lib/python3.11/test
cp -r $t/support $t/*_tests.py $t/*tester.py $t/__init__.py $t/*.txt $t/*.pck $t/subprocessdata $t/fork_wait.py \
	$t/test_grammar.py $t/ann_module*.py $t/typinganndata usr/lib/python3.11/test/
for m in $python_tests; do
	cp -r "$t/$m.py" usr/lib/python3.11/test/
done

# Libraries that programs name, and those that they name.
cp ../all/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 lib64/
while :; do
	new=
	for l in $(find . -type f \( -name '*.so*' -o -path '*bin/*' -o -path './coreutils/*' \) -exec readelf -d {} + 2>/dev/null |
		sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u); do
		[ -e "lib/$l" ] || [ -e "lib64/$l" ] && continue
		f=$(find ../all/lib/x86_64-linux-gnu ../all/usr/lib/x86_64-linux-gnu -maxdepth 1 -name "$l" | head -n 1)
		[ -n "$f" ] || fail "no package has the library $l"
		cp -L "$f" "lib/$l"
		new=$l
	done
	[ -n "$new" ] || break
done
ln -s ../lib lib/x86_64-linux-gnu

./bin/busybox --list | while read -r a; do
	[ -e "bin/$a" ] || ln -s busybox "bin/$a"
done
ln -sf dash bin/sh
echo 'root:x:0:0:root:/root:/bin/sh' >etc/passwd
echo 'root:x:0:' >etc/group
echo '127.0.0.1 localhost' >etc/hosts
cp "$selftest" bin/selftest
cp "$here"/suites/* suites/
cp "$here/init" init
find . | LC_ALL=C sort | cpio -o -H newc --quiet -R 0:0 | gzip -1 >../root.cpio.gz.new
mv ../root.cpio.gz.new ../root.cpio.gz
