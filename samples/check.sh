#!/bin/sh
# SPDX-License-Identifier: MIT
#
# check.sh pv|native OUT IMAGES NAME...	run samples and compare what they print
#
# A sample passes when it ends with status 0 in time and prints expected/NAME.txt.
# Lines that begin with "# " are measurements and left out of the comparison. In
# an expected line * stands for anything; the line ... for any number of lines.
set -u
export LC_ALL=C

here=$(dirname "$0")
flavour=$1 out=$2 images=$3
shift 3
keel=${KEEL:-$out/../keel}
qemu=${QEMU:-qemu-system-x86_64}
tests=0
failed=0

rm -rf "${out:?}/$flavour"
mkdir -p "$out/$flavour" || exit 1

ok()
{
	tests=$((tests + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $tests $2"
	else
		echo "not ok $tests $2"
		failed=1
	fi
}

bail()
{
	echo "Bail out! $*"
	exit 1
}

# run NAME CMDLINE LOG [INPUT [ARCHIVE]]: the exit status as the guest meant it.
run()
{
	cpus=1
	[ "$1" = smp ] && cpus=4
	if [ "$flavour" = pv ]; then
		timeout -k 5 60 "$keel" run --timeout 40 --vcpus $cpus --core none --cmdline "$2" ${5:+--initrd "$5"} \
			"$images/$1.elf" \
			< "${4:-/dev/null}" > "$3" 2> "$3.err"
		return
	fi
	timeout -k 5 60 "$qemu" -machine q35 -accel tcg -cpu max -smp $cpus -m 128 -nodefaults -display none -no-reboot -serial stdio \
		-device isa-debug-exit,iobase=0xf4,iosize=0x04 -kernel "$images/$1.elf" -append "hal.exit_port=0xf4 $2" \
		< "${4:-/dev/null}" > "$3" 2> "$3.err"
	status=$?
	# The guest writes its exit code to the device; QEMU ends with twice that plus 1.
	[ $((status & 1)) -eq 1 ] && return $((status / 2))
	return 124
}

# with OPTIONS NAME CMDLINE LOG: the same, of a sample that needs a device. OPTIONS are words.
with()
{
	# shellcheck disable=SC2086
	timeout -k 5 60 "$keel" run --timeout 40 --core none $1 --cmdline "$3" "$images/$2.elf" < /dev/null > "$4" 2> "$4.err"
}

# compare EXPECTED LOG: quiet when they agree, else where they part.
compare()
{
	tr -d '\r' < "$2" | grep -v '^# ' | awk -v expected="$1" '
	function pattern(s,   n, i, part, p) {
		n = split(s, part, "*")
		p = "^"
		for (i = 1; i <= n; i++) {
			gsub(/[][^$.()|+?\\{}\/]/, "[&]", part[i])
			gsub(/\[\^\]/, "\\^", part[i])
			gsub(/\[\\\]/, "\\\\", part[i])
			p = p (i > 1 ? ".*" : "") part[i]
		}
		return p "$"
	}
	BEGIN {
		while ((getline line < expected) > 0)
			want[++n] = line
		if (!n) {
			print "nothing expected in " expected
			exit bad = 1
		}
		at = 1
	}
	{
		if (want[at] == "...") {
			skipping = 1
			at++
		}
		if (at <= n && $0 ~ pattern(want[at])) {
			at++
			skipping = 0
		} else if (!skipping) {
			print "line " NR " is:    " $0
			print "and should be: " (at <= n ? want[at] : "the end")
			exit bad = 1
		}
	}
	END {
		if (bad)
			exit 1
		if (want[at] == "...")
			at++
		if (at <= n) {
			print "ends before:   " want[at]
			exit 1
		}
	}'
}

if [ "$flavour" = pv ]; then
	[ -x "$keel" ] || bail "no $keel"
	plan=$(($# + 12))
	mkfifo "$out/$flavour/input.fifo" || exit 1
else
	command -v "$qemu" > /dev/null || bail "no $qemu; it is in .ci/packages"
	plan=$(($# + 1))
fi
echo "KTAP version 1"
echo "1..$plan"

for name; do
	log=$out/$flavour/$name.log
	cmdline=
	[ "$name" = shell ] && cmdline=tour
	start=$(date +%s)
	run "$name" "$cmdline" "$log"
	status=$?
	seconds=$(($(date +%s) - start))
	if difference=$(compare "$here/expected/$name.txt" "$log") && [ $status -eq 0 ] && [ $seconds -lt 20 ]; then
		ok 0 "$name"
	else
		echo "$difference" | sed 's/^/# /'
		echo "# exit status $status after $seconds s, output in $log"
		tail -n 20 "$log.err" | sed 's/^/# /'
		ok 1 "$name"
	fi
	grep '^# ' "$log"
done

# The comparison itself can fail.
log=$out/$flavour/traps.log
sed '3d' "$log" > "$out/$flavour/shorter"
sed '$d' "$log" > "$out/$flavour/cut"
{ cat "$log"; echo "one more line"; } > "$out/$flavour/longer"
status=0
for wrong in shorter cut longer; do
	compare "$here/expected/traps.txt" "$out/$flavour/$wrong" > /dev/null && status=1
done
ok $status "output with a line too few or too many is told apart"

if [ "$flavour" = pv ]; then
	printf 'alloc 10\rxexit\001\033[3~\005 7\r' > "$out/$flavour/input"
	run shell "" "$out/$flavour/edit.log" "$out/$flavour/input"
	ok $(($? != 7)) "the shell takes input, edits a line and exits 7"

	printf 'crash\r' > "$out/$flavour/input"
	run shell "" "$out/$flavour/crash.log" "$out/$flavour/input"
	status=$?
	grep -q cmd_crash "$out/$flavour/crash.log.err"
	ok $(($? || status != 125)) "a crash ends with 125 and a backtrace that names the function"

	{ printf 'reboot\r'; sleep 1; printf 'exit 5\r'; } > "$out/$flavour/input.fifo" &
	run shell "" "$out/$flavour/reboot.log" "$out/$flavour/input.fifo"
	ok $(($? != 5 || $(grep -c '^Keel shell' "$out/$flavour/reboot.log") != 2)) "reboot starts the kernel again"
	wait

	"$here/mkcpio.sh" "$images/progs/spin" "$images/progs/count" > "$out/$flavour/programs"
	printf 'run\rrun count 2\rrun hello\rexit 3\r' > "$out/$flavour/input"
	run shell "" "$out/$flavour/initrd.log" "$out/$flavour/input" "$out/$flavour/programs"
	status=$?
	tr -d '\r' < "$out/$flavour/initrd.log" > "$out/$flavour/initrd.txt"
	grep -qx '  programs: spin count' "$out/$flavour/initrd.txt" && grep -qx 'count 2' "$out/$flavour/initrd.txt" &&
		grep -qx 'cannot run hello' "$out/$flavour/initrd.txt"
	ok $(($? || status != 3)) "the shell runs the programs of --initrd"

	{ printf 'run spin\r'; sleep 1; printf '\003'; sleep 1; printf 'exit 6\r'; } > "$out/$flavour/input.fifo" &
	run shell "" "$out/$flavour/ctrl-c.log" "$out/$flavour/input.fifo"
	ok $(($? != 6 || $(grep -c 'process 1 (spin) ended with 128' "$out/$flavour/ctrl-c.log") != 1)) "Ctrl-C ends a program"
	wait

	# Not a multiple of what is read at once, nor of a sector.
	image=$out/$flavour/disk.img
	head -c $(((8 << 20) + 5 * 512 + 100)) /dev/urandom > "$image"
	cp "$image" "$image.before"
	with "--disk file=$image" disk "" "$out/$flavour/disk.log" &&
		"$here/disk.py" "$image.before" "$image" > "$out/$flavour/disk.txt" &&
		difference=$(compare "$out/$flavour/disk.txt" "$out/$flavour/disk.log")
	status=$?
	[ $status -eq 0 ] || { echo "$difference"; cat "$out/$flavour/disk.log.err"; } | sed 's/^/# /'
	ok $status "disk rewrites a disk and knows its checksums"
	grep '^# ' "$out/$flavour/disk.log"

	with "--disk file=$image" disk depth=1 "$out/$flavour/disk-1.log" && cmp "$image" "$image.before" > /dev/null
	ok $? "and restores it, one request at a time"

	with "--disk file=$image,ro" disk "" "$out/$flavour/disk-ro.log" && cmp "$image" "$image.before" > /dev/null &&
		grep -q 'sectors, read-only$' "$out/$flavour/disk-ro.log" &&
		! grep -q rewritten "$out/$flavour/disk-ro.log"
	ok $? "a read-only disk is read"

	# One that is free now.
	port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	with "--net user,hostfwd=tcp:127.0.0.1:$port-:80" net once "$out/$flavour/net.log" &
	timeout 50 "$here/net.py" "$port" > "$out/$flavour/net.py.log" 2>&1
	fetched=$?
	wait $!
	status=$?
	difference=$(compare "$here/expected/net.txt" "$out/$flavour/net.log") && [ $fetched -eq 0 ] && [ $status -eq 0 ]
	status=$?
	[ $status -eq 0 ] || { echo "$difference"; cat "$out/$flavour/net.py.log" "$out/$flavour/net.log.err"; } | sed 's/^/# /'
	ok $status "net serves a page, piece by piece, through the user-mode network"

	with "" disk "" "$out/$flavour/no-disk.log"
	status=$?
	with "" net once "$out/$flavour/no-net.log"
	ok $((status != 1 || $? != 1)) "without a device the samples say so"

	lines=$(grep -cv '^$' "$here/hello.c")
	ok $((lines > 40)) "hello has $lines lines of its own, at most 40"
fi
exit $failed
