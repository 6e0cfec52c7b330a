#!/bin/sh
# SPDX-License-Identifier: MIT
#
# test-audit.sh OUT CC "LDFLAGS" IMAGE...	does audit.sh find what it must, and nothing else?
#
# Plants the example of every row of privileged.tsv, each in a function of its
# own, and broken headers and notes; then wants the given images clean.
set -u
export LC_ALL=C

here=$(dirname "$0")
out=$1 cc=$2 ldflags=$3
shift 3
tests=0
failed=0
tab=$(printf '\t')

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

# link NAME FLAGS: NAME.S to NAME.elf, or stop: a broken toolchain is no test result.
link()
{
	# shellcheck disable=SC2086
	if ! $cc -c -o "$out/$1.o" "$out/$1.S" || ! $cc ${2-} $ldflags -o "$out/$1.elf" "$out/$1.o"; then
		echo "Bail out! cannot build $1"
		exit 1
	fi
}

notes='
	.section .note.Keel, "a", @note
	.balign 4
	.long 5, 8, 1; .asciz "Keel"; .balign 4; .long 1, 0
	.long 5, 16, 2; .asciz "Keel"; .balign 4; .quad 1, 0
'

rm -rf "$out"
mkdir -p "$out" || exit 1
rows=$(grep -v '^#' "$here/privileged.tsv")
examples=$(echo "$rows" | awk -F '\t' '$1 != "D" { print $1 "\t" $2 "\t" $4 }')
count=$(echo "$examples" | wc -l)
echo "KTAP version 1"
echo "1..$((count + 8 + $#))"

# One image with every example, each behind a symbol that says its row.
{
	echo "	.text"
	echo "	.globl _start"
	echo "_start: ret"
	n=0
	echo "$examples" | while IFS=$tab read -r _ example _; do
		n=$((n + 1))
		echo "planted_$n: $example"
		echo "	ret"
	done
	echo "$notes"
} > "$out/planted.S"
link planted
report=$("$here/audit.sh" "$out/planted.elf")
status=$?
ok $((status != 1)) "an image with planted instructions is refused"
n=0
while IFS=$tab read -r kind example _; do
	n=$((n + 1))
	hits=$(echo "$report" | grep -c ": planted_$n at ")
	case $kind in
	U) ok $((hits != 0)) "$example passes" ;;
	*) ok $((hits != 1)) "$example is found in the function it is in" ;;
	esac
done <<EOT
$examples
EOT
echo "$report" | grep -A 1 ': mov %rax,%cr3:' | grep -q 'hal_tlb_flush()'
ok $? "a planted mov to cr3 is answered with its HAL function"

{ printf '\t.text\n\t.globl _start\n_start: ret\n'; echo "$notes"; } > "$out/bare.S"
link bare
"$here/audit.sh" "$out/bare.elf" > /dev/null
ok $? "an image without any of them is clean"

sed 's/\.long 5, 8, 1/.long 5, 8, 77/' "$out/bare.S" > "$out/nonote.S"
link nonote
"$here/audit.sh" "$out/nonote.elf" | grep -q 'no note KEEL_NOTE_ABI'
ok $? "a missing note is found"

sed 's/\.long 1, 0$/.long 2, 0/' "$out/bare.S" > "$out/version.S"
link version
"$here/audit.sh" "$out/version.elf" | grep -q 'asks for another version'
ok $? "a note for another version is found"

# p_flags of the first program header: read, write, execute.
cp "$out/bare.elf" "$out/wx.elf"
printf '\007' | dd of="$out/wx.elf" bs=1 seek=68 conv=notrunc 2> /dev/null
"$here/audit.sh" "$out/wx.elf" | grep -q 'writable and executable'
ok $? "a writable and executable segment is found"

link bare "-Wl,--defsym=KEEL_VA=0x1000"
"$here/audit.sh" "$out/bare.elf" | grep -q "outside the guest's addresses"
ok $? "a segment below the guest's addresses is found"

# What PORTING.md shows between its markers is this very table.
"$here/audit.sh" --table > "$out/table.md"
sed -n '/<!-- privileged.tsv -->/,/<!-- end -->/p' "$here/PORTING.md" | sed '1d;$d' | cmp -s - "$out/table.md"
ok $? "PORTING.md shows the table of privileged.tsv"

for image; do
	"$here/audit.sh" "$image" | sed 's/^/# /' > "$out/log"
	grep -qx "# $image: clean" "$out/log"
	status=$?
	[ $status -eq 0 ] || cat "$out/log"
	ok $status "$image is clean"
done
exit $failed
