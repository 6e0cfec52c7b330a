#!/bin/sh
# SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
# golden.sh ABI OUT - describe what binaries can see of the ABI in directory ABI:
#
#   OUT/layout.txt     every structure: size, and offset and size of each field,
#                      taken from debug information, so from what the compiler did
#   OUT/numbers.txt    every call and every constant with its value; macros with
#                      arguments by their text, which is all there is of them
#   OUT/keel-abi.abi   the same types for abidiff
#
# The layout is described by four compilers; they must agree before there is one.
set -eu
abi=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
gcc=gcc clang=${CLANG:-clang}
structs=$(sed -nE 's/^(typedef )?struct (keel_[a-z0-9_]+) \{$/\2/p' "$abi"/include/keel/*.h | sort)

{
	echo '#include <keel/keel.h>'
	for s in $structs; do echo "struct $s abi_$s;"; done
} >"$out/types.c"

# layout OBJECT: DWARF to "struct NAME SIZE" and "  OFFSET SIZE FIELD" lines.
layout() {
	LC_ALL=C readelf -wi "$1" | LC_ALL=C awk '
	function value(   v) {
		v = $0; sub(/^[^:]*: */, "", v); sub(/^\(indirect [^)]*\): */, "", v); sub(/^\(alt indirect [^)]*\): */, "", v)
		sub(/[ \t]+$/, "", v); return v
	}
	function num(v) { sub(/ .*/, "", v); return v + 0 }
	function ref(v) { gsub(/[<>]|0x/, "", v); sub(/ .*/, "", v); return v }
	# Size in bytes of the type at die d; arrays multiply.
	function size(d,   n, i) {
		if (tag[d] == "DW_TAG_array_type") { n = size(type[d]); for (i = 1; i <= dims[d]; i++) n *= dim[d, i]; return n }
		if (d in bytes) return bytes[d]
		return size(type[d])
	}
	/^ *<[0-9]+><[0-9a-f]+>:/ {
		match($0, /<[0-9a-f]+>:/); die = substr($0, RSTART + 1, RLENGTH - 3)
		match($0, /DW_TAG_[a-z_]+/); tag[die] = substr($0, RSTART, RLENGTH)
		if (tag[die] == "DW_TAG_structure_type" || tag[die] == "DW_TAG_array_type") parent = die
		if (tag[die] == "DW_TAG_member") member[parent, ++members[parent]] = die
		next
	}
	/DW_AT_name/ { name[die] = value(); if (tag[die] == "DW_TAG_structure_type") order[++n] = die }
	/DW_AT_byte_size/ { bytes[die] = num(value()) }
	/DW_AT_type / { type[die] = ref(value()) }
	/DW_AT_data_member_location/ { offset[die] = num(value()) }
	/DW_AT_upper_bound/ { dim[parent, ++dims[parent]] = num(value()) + 1 }
	/DW_AT_count/ { dim[parent, ++dims[parent]] = num(value()) }
	END {
		for (i = 1; i <= n; i++) {
			d = order[i]
			printf "%s 0 struct %s %d\n", name[d], name[d], bytes[d]
			for (k = 1; k <= members[d]; k++) {
				m = member[d, k]
				printf "%s %d   0x%03x %4d %s\n", name[d], k, offset[m], size(type[m]), name[m]
			}
		}
	}' | LC_ALL=C sort -k1,1 -k2,2n | cut -d' ' -f3-
}

# Relative names: descriptions hold no path of a machine.
object() { (cd "$out" && "$@" -std=gnu11 -gdwarf-4 -O0 -ffreestanding -I"$abi/include" -c types.c); }
object $gcc -m64 -o types-gcc.o
object $gcc -m32 -o types-m32.o
object "$clang" -m64 -o types-clang.o
object "$clang" --target=powerpc64-linux-gnu -o types-be.o
layout "$out/types-gcc.o" >"$out/layout.txt"
for t in m32 clang be; do
	layout "$out/types-$t.o" >"$out/layout-$t.txt"
	diff -u "$out/layout.txt" "$out/layout-$t.txt" >&2 || { echo "golden.sh: the layout differs for $t" >&2; exit 1; }
done

# numbers.txt: the compiler evaluates, so that writing a value differently is no change.
$gcc -m64 -std=gnu11 -ffreestanding -I"$abi/include" -dM -E "$out/types.c" | LC_ALL=C sort >"$out/macros"
{
	printf '#include <stdio.h>\n#include <keel/keel.h>\nint main(void)\n{\n'
	sed -nE 's/^#define (KEEL_[A-Z0-9_]+) .+/\1/p' "$out/macros" |
		grep -v '^KEEL_NOTE_NAME$' |
		sed 's/.*/\tprintf("%s %#llx\\n", "&", (unsigned long long)(&));/'
	printf '\tprintf("KEEL_NOTE_NAME %%s\\n", KEEL_NOTE_NAME);\n\treturn 0;\n}\n'
} >"$out/numbers.c"
$gcc -m64 -std=gnu11 -I"$abi/include" -o "$out/numbers" "$out/numbers.c"
{
	echo "# calls"
	"$abi/gen-calls.sh" list <"$abi/hypercalls.def"
	echo "# constants"
	"$out/numbers"
	echo "# macros with arguments"
	sed -nE 's/^#define (KEEL_[A-Z0-9_]+\(.*)/\1/p' "$out/macros" |
		grep -vE '^KEEL_(ASSERT|ASSERT_AT|ASSERT_SIZE|CAT|CAT_|OFFSETOF)\('
} >"$out/numbers.txt"

abidw --no-corpus-path --no-comp-dir-path --no-show-locs --load-all-types --out-file "$out/keel-abi.abi" "$out/types-gcc.o"
