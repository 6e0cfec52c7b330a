#!/bin/sh
# SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
# check.sh check|update ABI OUT - the gates of the ABI
#
#   check   KTAP on standard output: the sources agree with each other, every
#           header compiles alone wherever it may be used, what binaries see is
#           what golden/ says, SPEC.md and the tests name each other; then the
#           same gates again on copies of ABI with a planted fault each, which
#           they must find.
#   update  rewrite what is derived: calls.h, the tables in SPEC.md, golden/.
#           Read CHANGES.md before committing a change of golden/.
set -u
mode=$1 abi=$2 out=$3
gcc=gcc gxx=g++ clang=${CLANG:-clang}
# A directory of its own, so that two runs do not meet.
mkdir -p "$out" && out=$(cd "$out" && mktemp -d "$PWD/$mode.XXXXXX") || exit 2
trap 'rm -rf "$out"' EXIT
trap 'exit 130' INT TERM HUP

# tables SPEC: SPEC.md with the generated parts between their markers replaced.
tables()
{
	"$1/gen-calls.sh" table <"$1/hypercalls.def" >"$out/table.md" &&
		"$1/gen-calls.sh" contexts <"$1/hypercalls.def" >"$out/contexts.md" &&
		awk -v calls="$out/table.md" -v contexts="$out/contexts.md" '
		function put(file,   line) { while ((getline line <file) > 0) print line }
		/^<!-- (calls|contexts):end/ { skip = 0; ends++ }
		!skip { print }
		/^<!-- calls:begin/ { put(calls); skip = 1; begins++ }
		/^<!-- contexts:begin/ { put(contexts); skip = 1; begins++ }
		END { exit begins != 2 || ends != 2 }' "$1/SPEC.md"
}

gate_calls()
{
	"$1/gen-calls.sh" header <"$1/hypercalls.def" | diff -u "$1/include/keel/calls.h" -
}

gate_tables()
{
	tables "$1" >"$out/SPEC.md" && diff -u "$1/SPEC.md" "$out/SPEC.md"
}

# Numbers and names are given once, extensions are complete, calls ascend as dispatch and statistics expect.
gate_numbers()
{
	"$1/gen-calls.sh" list <"$1/hypercalls.def" | awk '
	$1 in id { print $2 " has the number of " id[$1]; bad = 1 }
	$2 in name { print $2 " is there twice"; bad = 1 }
	substr($1, 8) ~ /^f/ { print $2 ": number in the range for experiments"; bad = 1 }
	$1 <= last { print $2 ": numbers do not ascend"; bad = 1 }
	{ id[$1] = $2; name[$2] = 1; last = $1 }
	{ split($5, n, "="); if (NF - 5 != n[2]) { print $2 ": nargs is " n[2] ", arguments are " NF - 5; bad = 1 } }
	END { if (NR < 50) { print "only " NR " calls"; bad = 1 } exit bad }'
}

# alone ABI TAG COMPILER...: one translation unit per header and language, nothing before it.
alone()
{
	dir=$1 tag=$2
	shift 2
	mkdir -p "$out/alone" || return 1
	for h in "$dir"/include/keel/*.h; do
		b=${h##*/}
		case $tag in
		c++) printf 'extern "C" {\n#include <keel/%s>\n}\n#include <keel/%s>\n' "$b" "$b" >"$out/alone/${b%.h}.cc" ;;
		*) printf '#include <keel/%s>\n#include <keel/%s>\nextern int not_empty;\n' "$b" "$b" >"$out/alone/${b%.h}.c" ;;
		esac
	done
	case $tag in
	c++) "$@" -x c++ -std=c++17 "$out"/alone/*.cc ;;
	*) "$@" "-std=$tag" "$out"/alone/*.c ;;
	esac
}

headers()
{
	dir=$1 tag=$2
	shift 2
	rm -rf "$out/alone"
	alone "$dir" "$tag" "$@" -pedantic -Wall -Wextra -Wundef -Werror -fsyntax-only -I"$dir/include"
}

# As kernel code sees them: __KERNEL__, types from linux/types.h and no other header.
gate_kernel()
{
	rm -rf "$out/alone" "$out/kernel"
	mkdir -p "$out/kernel/linux" || return 1
	cat >"$out/kernel/linux/types.h" <<-'END'
	#ifndef MODEL_LINUX_TYPES_H
	#define MODEL_LINUX_TYPES_H
	typedef unsigned char __u8;
	typedef unsigned short __u16;
	typedef unsigned int __u32;
	typedef unsigned long long __u64;
	typedef signed long long __s64;
	#endif
	END
	alone "$1" gnu11 "$gcc" -D__KERNEL__ -nostdinc -ffreestanding -Wall -Wextra -Werror -Wredundant-decls -fsyntax-only \
		-I"$out/kernel" -I"$1/include"
}

# Every constant assembles from the header alone, and to the value C gives it.
gate_assembly()
{
	mkdir -p "$out/asm" || return 1
	for h in "$1"/include/keel/*.h; do
		b=$(basename "$h" .h)
		printf '#include <keel/%s.h>\n' "$b" >"$out/asm/$b.S"
		sed -nE 's/^#define (KEEL_[A-Z0-9_]+)[ \t].*/\1/p' "$h" | sort -u |
			grep -vE '^KEEL_(NOTE_NAME|[A-Z]*_H)$' >"$out/asm/$b.names"
		# Macros of C alone are not defined here.
		sed 's/.*/#ifdef &\n\t.ascii "& "\n\t.quad &\n\t.byte 10\n#endif/' "$out/asm/$b.names" >>"$out/asm/$b.S"
		for as in "$gcc" "$clang"; do
			"$as" -c -I"$1/include" -o "$out/asm/$b.o" "$out/asm/$b.S" || return 1
		done
	done
	# One unit with all of them, values printed by the assembler's own bytes.
	{
		echo '#include <keel/keel.h>'
		cat "$out"/asm/*.names | sort -u | sed 's/.*/#ifdef &\n\t.quad &\n#endif/'
	} >"$out/asm.S"
	{
		echo '#include <keel/keel.h>'
		cat "$out"/asm/*.names | sort -u | sed 's/.*/#ifdef &\nNAME: "&"\n#endif/'
	} >"$out/asm-names.S"
	"$gcc" -c -I"$1/include" -o "$out/asm.o" "$out/asm.S" || return 1
	objcopy -O binary -j .text "$out/asm.o" "$out/asm.bin" || return 1
	"$gcc" -E -P -I"$1/include" "$out/asm-names.S" | sed -nE 's/^NAME: "(.*)"/\1/p' >"$out/asm-order"
	od -An -v -tx8 -w8 "$out/asm.bin" | sed 's/^ *0*\(.\)/0x\1/; s/^0x0$/0/' | paste -d' ' "$out/asm-order" - | sort >"$out/asm-values"
	sed -n '/^# constants/,/^# macros/p' "$out/golden/numbers.txt" | grep -v '^#' | sort >"$out/c-values"
	[ "$(wc -l <"$out/asm-values")" -gt 150 ] || { echo "only $(wc -l <"$out/asm-values") constants"; return 1; }
	# C has more (those of C alone); every one of assembly must be among them, with its value.
	LC_ALL=C comm -23 "$out/asm-values" "$out/c-values" | sed 's/^/differs from C: /' | grep . && return 1
	return 0
}

# Each field of each structure, by debug information, has a KEEL_ASSERT_AT, each structure a KEEL_ASSERT_SIZE.
gate_asserts()
{
	cat "$1"/include/keel/*.h | sed -nE \
		-e 's/^KEEL_ASSERT_AT\(struct ([a-z0-9_]+), ([a-z0-9_]+), .*/\1 \2/p' \
		-e 's/^KEEL_ASSERT_SIZE\((struct )?([a-z0-9_]+), .*/\2 size/p' >"$out/asserted"
	awk 'NR == FNR { have[$0] = 1; next }
	/^struct/ { s = $2; n++; if (!((s " size") in have) && !((s "_t size") in have)) { print "struct " s ": size is not asserted"; bad = 1 }; next }
	# A structure of one field is asserted by its size.
	{ fields[s]++; last[s] = $3; if (!((s " " $3) in have)) missing[s] = missing[s] " " $3 }
	END {
		for (s in missing) if (fields[s] > 1) { print "struct " s ": not asserted:" missing[s]; bad = 1 }
		if (n < 15) { print "only " n " structures"; bad = 1 }
		exit bad
	}' "$out/asserted" "$out/golden/layout.txt"
}

gate_golden()
{
	diff -u "$1/golden/$2" "$out/golden/$2"
}

# What a release froze is there as it was, whatever came since. Names of reserved bytes may give way to fields; COUNT and ALL grow.
gate_frozen()
{
	for f in layout.txt numbers.txt; do
		awk '
		/^#/ || /^$/ { next }
		{ key = $1 }
		/^struct/ { key = "struct " $2; s = $2 }
		/^  / { key = "field " s "." $3 }
		/ served=/ { key = "call " $2 }
		NR == FNR { now[key] = $0; next }
		key ~ /[.](reserved|pad)[0-9]*$/ || key ~ /^KEEL_([A-Z0-9_]*_(COUNT|ALL)|ABI_(MINOR|RC|VERSION))$/ { next }
		{ n++ }
		!(key in now) { print "gone: " key; bad = 1; next }
		/ served=0 / { split(now[key], a); if (a[1] != $1) { print "changed: " $0; bad = 1 } next }
		now[key] != $0 { print "changed: " $0; bad = 1 }
		END { if (n < 100) { print "only " n " things"; bad = 1 } exit bad }' "$out/golden/$f" "$1/golden/1.0/$f" || return 1
	done
}

# abidiff: bit 0 error, bit 1 usage, bit 2 a change, bit 3 an incompatible one.
gate_abidiff()
{
	abidiff "$1/golden/keel-abi.abi" "$out/golden/keel-abi.abi"
	status=$?
	[ $((status & 3)) = 0 ] || echo "abidiff failed ($status)"
	[ $((status & 8)) = 0 ] || echo "an incompatible change"
	return $((status != 0))
}

gate_describe()
{
	rm -rf "$out/golden"
	CLANG=$clang "$1/golden.sh" "$1" "$out/golden"
}

# Clauses cited by sources exist. The sources beside ABI are the project's.
gate_citations()
{
	grep -oE '^\*\*KEEL-[A-Z]+-[0-9]+' "$1/SPEC.md" | tr -d '*' | sort -u >"$out/clauses"
	(cd "$1/.." && find abi libhypercall guest-hal host samples kunit-tests -type f \
		\( -name '*.[chS]' -o -name '*.def' -o -name '*.sh' -o -name '*.md' -o -name '*.csv' \) \
		-exec grep -HnoE 'KEEL-[A-Z]+-[0-9][0-9]+' {} +) >"$out/cited"
	[ "$(wc -l <"$out/cited")" -gt 200 ] || { echo "hardly anything is cited"; return 1; }
		awk -F: 'NR == FNR { have[$1] = 1; next } !($NF in have) { print; bad = 1 } END { exit bad }' "$out/clauses" "$out/cited"
}

n=0 bad=0
# t NAME COMMAND...: one result; what the command says becomes diagnostics when it fails.
t()
{
	name=$1
	shift
	n=$((n + 1))
	if "$@" >"$out/said" 2>&1; then
		echo "ok $n - $name"
	else
		echo "not ok $n - $name"
		head -n 40 "$out/said" | cut -c1-200 | sed 's/^/# /'
		bad=1
	fi
}

# planted GATE PATTERN EDIT: on a copy of the ABI with the edit made GATE must fail, and say PATTERN.
planted()
{
	gate=$1 pattern=$2 edit=$3 copy=$out/planted
	rm -rf "$copy"
	mkdir -p "$copy" && cp -R "$abi"/* "$copy" || return 1
	(cd "$copy" && eval "$edit") || { echo "the edit failed"; return 1; }
	diff -r "$abi" "$copy" >/dev/null && { echo "nothing was planted"; return 1; }
	case $gate in
	gate_golden* | gate_frozen | gate_abidiff | gate_asserts) gate_describe "$copy" || return 1 ;;
	esac
	# shellcheck disable=SC2086 # a gate and its further argument
	set -- $gate
	gate=$1
	shift
	"$gate" "$copy" "$@" >"$out/planted.said" 2>&1 && { echo "the gate passed"; return 1; }
	grep -q -- "$pattern" "$out/planted.said" || { echo "the gate failed otherwise:"; cat "$out/planted.said"; return 1; }
}

headers_c99() { headers "$1" c99 "$gcc"; }
crosscheck() { "$1/crosscheck.sh" check "$1"; }
swap_record="sed -i -e '/keel_u64 gpa;/{N;s/\\(.*\\)\\n\\(.*\\)/\\2\\n\\1/}' include/keel/mmu.h"
swap_asserts="sed -i -e 's/mmu_record, gpa, 16/mmu_record, gpa, 24/' -e 's/mmu_record, len, 24/mmu_record, len, 16/' include/keel/mmu.h"
regen="./gen-calls.sh header <hypercalls.def >include/keel/calls.h"

check()
{
	echo "KTAP version 1"
	t "calls.h is what hypercalls.def says" gate_calls "$abi"
	t "the tables in SPEC.md are what hypercalls.def says" gate_tables "$abi"
	t "call numbers are unique and ascend" gate_numbers "$abi"
	for std in c99 c11; do
		t "each header alone, gcc $std" headers "$abi" $std "$gcc"
		t "each header alone, clang $std" headers "$abi" $std "$clang"
	done
	t "each header alone, g++ c++17, both linkages" headers "$abi" c++ "$gxx"
	t "each header alone, clang++ c++17, both linkages" headers "$abi" c++ "$clang"
	t "each header alone, gcc -m32" headers "$abi" c99 "$gcc" -m32 -ffreestanding
	t "each header alone, clang -m32" headers "$abi" c99 "$clang" -m32 -ffreestanding
	t "each header alone, big-endian" headers "$abi" c99 "$clang" --target=powerpc64-linux-gnu -ffreestanding
	t "each header alone, kernel" gate_kernel "$abi"
	t "layout, numbers and types can be described, the same by four compilers" gate_describe "$abi"
	t "constants from assembly, gas and clang" gate_assembly "$abi"
	t "every field has a KEEL_ASSERT" gate_asserts "$abi"
	t "golden/layout.txt" gate_golden "$abi" layout.txt
	t "golden/numbers.txt" gate_golden "$abi" numbers.txt
	t "golden/keel-abi.abi by abidiff" gate_abidiff "$abi"
	t "golden/1.0 is all there" gate_frozen "$abi"
	t "clauses and tests name each other" crosscheck "$abi"
	t "clauses that sources cite exist" gate_citations "$abi"

	t "planted: a changed call number leaves calls.h stale" planted gate_calls "BASE_PING 0x0100000a" \
		"sed -i 's/0x009, base_ping/0x00a, base_ping/' hypercalls.def"
	t "planted: a changed call number is found" planted "gate_golden numbers.txt" "0x0100000a base_ping" \
		"sed -i 's/0x009, base_ping/0x00a, base_ping/' hypercalls.def && $regen"
	t "planted: a changed call flag is found" planted "gate_golden numbers.txt" "vcpu_yield served=1 flags=- " \
		"sed -i 's/vcpu_yield, 1, KEEL_CF_NODUMP/vcpu_yield, 1, 0/' hypercalls.def"
	t "planted: a number given twice is found" planted gate_numbers "has the number of base_limit" \
		"sed -i 's/0x009, base_ping/0x008, base_ping/' hypercalls.def"
	t "planted: a call among the experiments is found" planted gate_numbers "base_ping: number in the range" \
		"sed -i 's/0x009, base_ping/0xf09, base_ping/' hypercalls.def"
	t "planted: a changed constant is found" planted "gate_golden numbers.txt" "KEEL_CLOCK_VALID 0x2" \
		"sed -i 's/KEEL_CLOCK_VALID KEEL_U32(1)/KEEL_CLOCK_VALID KEEL_U32(2)/' include/keel/time.h"
	t "planted: a frozen constant that changed is found" planted gate_frozen "changed: KEEL_CLOCK_VALID 0x1" \
		"sed -i 's/KEEL_CLOCK_VALID KEEL_U32(1)/KEEL_CLOCK_VALID KEEL_U32(2)/' include/keel/time.h"
	t "planted: a frozen field that moved is found" planted gate_frozen "changed:   0x010    8 gpa" "$swap_record; $swap_asserts"
	t "planted: a frozen call with another number is found" planted gate_frozen "changed: 0x01000009 base_ping" \
		"sed -i 's/0x009, base_ping/0x00a, base_ping/' hypercalls.def && $regen"
	t "planted: an edited table is found" planted gate_tables "base_pong" \
		"sed -i '/^| .0x01000009/s/base_ping/base_pong/' SPEC.md"
	t "planted: a moved field does not compile" planted headers_c99 "size of array .keel_assert_" "$swap_record"
	t "planted: a moved field with its assertions is found" planted "gate_golden layout.txt" "+  0x010    8 len" \
		"$swap_record; $swap_asserts"
	t "planted: abidiff finds the moved field" planted gate_abidiff "keel_mmu_record" "$swap_record; $swap_asserts"
	t "planted: abidiff finds a changed type of the same size" planted gate_abidiff "keel_s64" \
		"sed -i 's/keel_u64 disruption;/keel_s64 disruption;/' include/keel/time.h"
	t "planted: a field without an assertion is found" planted gate_asserts "keel_frame: not asserted: r11" \
		"sed -i '/KEEL_ASSERT_AT(struct keel_frame, r11/d' include/keel/vcpu.h"
	t "planted: a header that needs another is found" planted headers_c99 "keel_u32" \
		"sed -i '/include <keel.types.h>/d' include/keel/time.h"
	t "planted: a clause without a test is found" planted crosscheck "KEEL-MMU-01 has no test" \
		"sed -i '/^\*\*KEEL-MMU-01/s/\[tests:[^]]*\]/[tests: ]/' SPEC.md"
	t "planted: a test without a row is found" planted crosscheck "KEEL-MMU-01 names MMU-999" \
		"sed -i '/^\*\*KEEL-MMU-01/s/\[tests:/[tests: MMU-999/' SPEC.md"
	t "planted: a row whose clause does not name it is found" planted crosscheck "KEEL-MMU-01, which does not name it back" \
		"sed -i '/^\*\*KEEL-MMU-01/s/\[tests: *[^] ]*/[tests:/' SPEC.md"
	echo "1..$n"
	return $bad
}

update()
{
	"$abi/gen-calls.sh" header <"$abi/hypercalls.def" >"$out/calls.h" && cp "$out/calls.h" "$abi/include/keel/calls.h" &&
		tables "$abi" >"$out/SPEC.md" && cp "$out/SPEC.md" "$abi/SPEC.md" && gate_describe "$abi" &&
		mkdir -p "$abi/golden" && for f in layout.txt numbers.txt keel-abi.abi; do
			cp "$out/golden/$f" "$abi/golden/$f" || return 1
		done
}

case $mode in
check | update) "$mode" ;;
*)
	echo "check.sh: check or update" >&2
	exit 2
	;;
esac
