#!/bin/sh
# SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
# check.sh O - the `lib` stage: unit tests, builds of every kind, the SDK. Prints KTAP.
# CC, CLANG and MAKE come from the makefile. What the environment lacks is an error.
# shellcheck disable=SC2317 # functions are called through try
set -u

O=$(cd "$1" && pwd) || exit 2
top=$(cd "$(dirname "$0")/../.." && pwd) || exit 2
cd "$top" || exit 2
tests=$O/libhypercall/tests
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
trap 'exit 2' HUP INT TERM
export LC_ALL=C

number=0
failed=0
include="-Iabi/include -Ilibhypercall/include"
guest="-ffreestanding -fno-stack-protector -fno-pic -fno-pie -fno-omit-frame-pointer -O2 -Wall -Wextra -Werror"

# result STATUS NAME [FILE]: one line; a failure shows the file.
result()
{
	number=$((number + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $number - $2"
	else
		echo "not ok $number - $2"
		[ -n "${3-}" ] && sed 's/^/# /' "$3"
		failed=1
	fi
}

# try NAME COMMAND...: a test that is a command, silent when it works.
try()
{
	name=$1
	shift
	"$@" >"$tmp/out" 2>&1
	result $? "$name" "$tmp/out"
}

# group NAME PROGRAM...: a program that reports TAP itself.
group()
{
	name=$1
	shift
	"$@" >"$tmp/tap" 2>"$tmp/err"
	status=$?
	sed 's/^/    /' "$tmp/tap"
	# A program that dies has not said so in its TAP.
	grep -q '^ok ' "$tmp/tap" || status=1
	result $status "$name" "$tmp/err"
}

# Is the generated header what hypercalls.def says?
wrappers_current()
{
	libhypercall/gen-wrappers.sh <abi/hypercalls.def | diff -u libhypercall/include/hypercall/wrappers.h -
}

# Each header alone, and all of them twice. COMPILER STANDARD
headers_alone()
{
	case $2 in
	c++*) lang=c++ ;;
	*) lang=c ;;
	esac
	for h in libhypercall/include/hypercall/*.h; do
		# Part of call.h, and says so.
		[ "$(basename "$h")" = wrappers.h ] && continue
		printf '#include <hypercall/%s>\n#include <hypercall/%s>\n' "$(basename "$h")" "$(basename "$h")" >"$tmp/header.c"
		# shellcheck disable=SC2086
		$1 -x $lang -std="$2" -Wall -Wextra -Werror $include -fsyntax-only "$tmp/header.c" || return 1
	done
}

# library COMPILER FLAGS: build it, and look at what came out.
library()
{
	rm -rf "${tmp:?}/lib"
	mkdir "$tmp/lib" || return 1
	for f in libhypercall/src/*.[cS]; do
		# shellcheck disable=SC2086
		$1 -std=gnu11 $guest $2 $include -c -o "$tmp/lib/$(basename "$f").o" "$f" || return 1
	done
	# Nothing may be missing but what the image and the linker script bring.
	ld -r -o "$tmp/lib/all" "$tmp"/lib/*.o || return 1
	missing=$(nm -u "$tmp/lib/all" | awk '$2 !~ /^(keel_main|__keel_.*)$/ { print $2 }')
	[ -z "$missing" ] || { echo "undefined: $missing"; return 1; }
	# Code without SSE has no vector or x87 register; what the flags of the other kind do is the compiler's.
	case $2 in
	*-mgeneral-regs-only*)
		objdump -d "$tmp/lib/all" | grep -E '%(xmm|ymm|zmm|mm|st)' && return 1
		;;
	esac
	return 0
}

# The pure parts take nothing from their surroundings but memory functions.
pure_parts_alone()
{
	for f in batch event ring clock start status set user virtq; do
		for flags in "-mcmodel=kernel -mno-red-zone" "-O0" "-fsanitize=undefined -fsanitize-undefined-trap-on-error"; do
			# shellcheck disable=SC2086
			$CC -std=gnu11 $guest $include $flags -c -o "$tmp/pure.o" libhypercall/src/$f.c || return 1
			missing=$(nm -u "$tmp/pure.o" | awk '$2 !~ /^(memcpy|memset|memcmp)$/ { print $2 }')
			[ -z "$missing" ] || { echo "$f: undefined: $missing"; return 1; }
		done
	done
}

# unwind rules for the assembly: each function has a description that covers it.
unwind_info()
{
	for f in keel_gate keel_entry_trap keel_entry_event keel_entry_dump keel_entry_double entry_common keel_smp_entry; do
		at=$(nm "$sdk/hello.elf" | awk -v f="$f" '$3 == f { print $1 }')
		[ -n "$at" ] || { echo "$f is not in the image"; return 1; }
		readelf --debug-dump=frames "$sdk/hello.elf" 2>/dev/null | grep -q "FDE.*pc=$at\.\." ||
			{ echo "$f has no unwind information"; return 1; }
	done
}

# image FILE: is it one a host accepts?
image()
{
	readelf -hlnW "$1" >"$tmp/elf" || return 1
	awk '
	/^ *Type: / && $2 != "EXEC" { fail("type " $2) }
	/Machine:/ && !/X86-64/ { fail($0) }
	/Entry point/ { entry = $NF }
	/^ *LOAD/ {
		loads++
		flags = $7 $8
		sub(/0x[0-9a-f]*$/, "", flags)
		if (flags ~ /W/ && flags ~ /E/) fail("writable and executable: " $0)
		if ($3 !~ /000$/ || $4 !~ /000$/) fail("not page-aligned: " $0)
		if (flags ~ /E/ && !x) { x = $3; size = $6 }
	}
	/^ *NOTE/ { notes++ }
	/^ *Keel/ { keel++ }
	function fail(what) { print what; bad = 1 }
	END {
		if (loads < 3) fail(loads + 0 " segments")
		if (notes != 1 || keel < 3) fail(notes + 0 " note segments, " keel + 0 " notes")
		print entry, x, size
		exit bad
	}' "$tmp/elf" >"$tmp/facts" || { cat "$tmp/facts"; return 1; }
	read -r entry start size <"$tmp/facts"
	if [ $((entry)) -lt $((start)) ] || [ $((entry)) -ge $((start + size)) ]; then
		echo "entry $entry is outside of the code at $start, $size bytes"
		return 1
	fi
	# Payloads: the ABI version, and BASE and CONSOLE required.
	readelf -x .note.Keel "$1" | awk '/^ *0x/ { for (i = 2; i <= 5; i++) printf "%s", $i }' >"$tmp/hex"
	grep -q '0500000008000000010000004b65656c000000000100000000000000' "$tmp/hex" || { echo "no ABI note"; return 1; }
	grep -q '0500000010000000020000004b65656c000000000104000000000000' "$tmp/hex" || { echo "no REQUIRED note"; return 1; }
}

# The check above is one that can fail: p_flags of the first segment become RWX.
image_check_sees()
{
	cp "$sdk/hello.elf" "$sdk/planted.elf" &&
		printf '\007' | dd of="$sdk/planted.elf" bs=1 seek=68 conv=notrunc 2>/dev/null || return 1
	image "$sdk/planted.elf" && { echo "accepted"; return 1; }
	grep -q "writable and executable" "$tmp/facts"
}

# boot FILE: does it say what hello says?
boot()
{
	timeout 60 "$O/keel" run --mem 96M --cmdline "first second=2" "$1" </dev/null >"$tmp/said" 2>"$tmp/errors"
	status=$?
	tr -d '\r' <"$tmp/said" | sed 's/^\(ABI .* on \)..*/\1HOST/' >"$tmp/text"
	cat >"$tmp/want" <<-END
	Hello from a Keel guest.
	ABI 1.0 on HOST
	96 MiB of RAM, command line "first second=2"
	END
	[ "$status" -eq 0 ] || { echo "exit status $status"; cat "$tmp/said" "$tmp/errors"; return 1; }
	diff -u "$tmp/want" "$tmp/text"
}

# build COMPILER STANDARD OUTPUT [FLAGS]: hello, outside of the tree, by pkg-config alone.
build()
{
	case $2 in
	*++*) lang=c++ ;;
	*) lang=c ;;
	esac
	# shellcheck disable=SC2046,SC2086
	(cd "$sdk" && $1 -x $lang -std=$2 -Wall -Wextra -Werror hello.c -x none ${4-} \
		$(pkg-config --cflags --libs keel-guest) -o "$3")
}

cat >"$tmp/needs" <<END
$CC
$CLANG
g++
clang++
ld
nm
objdump
readelf
pkg-config
END
while read -r tool; do
	command -v "$tool" >/dev/null || { echo "Bail out! $tool is missing"; exit 2; }
done <"$tmp/needs"
[ -x "$O/keel" ] || { echo "Bail out! $O/keel is missing"; exit 2; }

echo "KTAP version 1"
unit_groups=$("$tests/unit") || { echo "Bail out! $tests/unit does not run"; exit 2; }
for g in $unit_groups; do
	group "unit: $g" "$tests/unit" "$g"
done
group "guest side against a fake host" "$tests/guest"

try "wrappers.h is what hypercalls.def says" wrappers_current
try "headers alone: $CC, C11" headers_alone "$CC" gnu11
try "headers alone: $CLANG, C11" headers_alone "$CLANG" gnu11
try "headers alone: g++, C++17" headers_alone g++ c++17
try "headers alone: clang++, C++17" headers_alone clang++ c++17
for compiler in "$CC" "$CLANG"; do
	for flags in "-mgeneral-regs-only" "-msse4.2" "-mavx2 -O3" "-mgeneral-regs-only -fcf-protection=none -O0"; do
		try "library: $compiler $flags" library "$compiler" "$flags"
	done
done
try "the pure parts need nothing" pure_parts_alone

sdk=$tmp/outside
mkdir "$sdk" && cp samples/hello.c "$sdk/hello.c" || exit 2
try "make install" "$MAKE" --no-print-directory O="$O" install DESTDIR="$tmp/dest" PREFIX=/opt/keel
export PKG_CONFIG_LIBDIR="$tmp/dest/opt/keel/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$tmp/dest"
try "pkg-config says a version" pkg-config --atleast-version=1.0 keel-guest
try "installed: the list of calls" test -s "$tmp/dest/opt/keel/include/keel/hypercalls.def"
try "installed: nothing names the tree" sh -c "! grep -rl '$top' '$tmp/dest'"
try "hello outside: $CC" build "$CC" gnu11 hello.elf
try "hello outside: $CLANG" build "$CLANG" gnu11 hello-clang.elf
try "hello outside: g++" build g++ gnu++17 hello-cxx.elf
try "hello outside: at other addresses" build "$CC" gnu11 hello-moved.elf \
	"-Wl,--defsym=KEEL_VA=0x40000000 -Wl,--defsym=KEEL_PA=0x200000 -Wl,--defsym=KEEL_STACK_SIZE=0x4000"
for i in hello hello-clang hello-cxx hello-moved; do
	try "$i is a sound image" image "$sdk/$i.elf"
	try "$i runs" boot "$sdk/$i.elf"
done
try "a writable and executable segment is seen" image_check_sees
try "assembly has unwind information" unwind_info

echo "1..$number"
exit $failed
