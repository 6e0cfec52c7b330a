#!/bin/sh
# SPDX-License-Identifier: MIT
#
# test-hal.sh OUT KEEL PV-IMAGE NATIVE-IMAGE	the HAL's test on both flavours
set -u
export LC_ALL=C

out=$1 keel=$2 pv=$3 native=$4
qemu=${QEMU:-qemu-system-x86_64}
failed=0

bail()
{
	echo "Bail out! $*"
	exit 1
}

[ -x "$keel" ] || bail "no $keel"
command -v "$qemu" > /dev/null || bail "no $qemu; it is in .ci/packages"
rm -rf "${out:?}"
mkdir -p "$out" || exit 1
awk 'BEGIN { for (i = 0; i < 5000; i++) printf "%c", i * 7 % 256 }' > "$out/module"
[ "$(wc -c < "$out/module")" -eq 5000 ] || bail "this awk cannot write binary files"

# result N NAME STATUS LOG: the kernel's own KTAP as a subtest, which must have kept its plan.
result()
{
	tr -d '\r' < "$4" | sed 's/^/    /'
	last=$(grep '^ok\|^not ok' "$4" | tail -n 1 | tr -dc '0-9 ' | awk '{ print $1 }')
	if [ "$3" -eq 0 ] && [ -n "$last" ] && grep -q "^1\\.\\.$last" "$4"; then
		echo "ok $1 $2"
	else
		echo "# exit status $3"
		sed 's/^/# /' "$4.err"
		echo "not ok $1 $2"
		failed=1
	fi
}

# run FLAVOUR LOG CMDLINE: the exit status as the kernel meant it.
run()
{
	if [ "$1" = pv ]; then
		timeout -k 5 60 "$keel" run --timeout 40 --vcpus 4 --core none --cmdline "$3" --initrd "$out/module" "$pv" \
			< /dev/null > "$2" 2> "$2.err"
		return
	fi
	timeout -k 5 60 "$qemu" -machine q35 -accel tcg -cpu max -smp 4 -m 128 -nodefaults -display none -no-reboot -serial stdio \
		-device isa-debug-exit,iobase=0xf4,iosize=0x04 -kernel "$native" -initrd "$out/module" \
		-append "hal.exit_port=0xf4 $3" < /dev/null > "$2" 2> "$2.err"
	status=$?
	# QEMU ends with twice what was written to the device plus 1.
	[ $((status & 1)) -eq 1 ] && return $((status / 2))
	return 124
}

# death N FLAVOUR CMDLINE MESSAGE: exit status 125, and the message among the last words.
death()
{
	run "$2" "$out/$2-$3.log" "$3"
	if [ $? -eq 125 ] && grep -q "$4" "$out/$2-$3.log"; then
		echo "ok $1 $2: $3"
	else
		sed 's/^/# /' "$out/$2-$3.log"
		echo "not ok $1 $2: $3"
		failed=1
	fi
}

echo "KTAP version 1"
echo "1..6"
n=0
for flavour in pv native; do
	run $flavour "$out/$flavour.log" "one word"
	result $((n + 1)) $flavour $? "$out/$flavour.log"
	death $((n + 2)) $flavour panic '^panic: asked to panic, 1 times'
	death $((n + 3)) $flavour trap '^panic: unhandled invalid opcode (vector 6, error 0x0, address 0x0) at rip 0x40'
	n=$((n + 3))
done
exit $failed
