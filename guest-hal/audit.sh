#!/bin/sh
# SPDX-License-Identifier: MIT
#
# audit.sh IMAGE	What in a guest image will not work on Keel: instructions left
#			over from bare hardware, by symbol and with their replacement;
#			program headers that are not W^X or out of place; missing notes.
# audit.sh --table	privileged.tsv as the Markdown table of PORTING.md.
#
# Exit status: 0 clean, 1 something was found, 2 the image cannot be read.
set -u
export LC_ALL=C

table=$(dirname "$0")/privileged.tsv
objdump=${OBJDUMP:-objdump}
readelf=${READELF:-readelf}

if [ "${1-}" = --table ]; then
	awk -F '\t' '
	BEGIN {
		kind["P"] = "faults"; kind["S"] = "runs, not as meant"; kind["U"] = "works"; kind["D"] = ""
		print "| instruction or idiom | unchanged, it | HAL | on Keel |"
		print "|---|---|---|---|"
	}
	/^#/ { next }
	{
		for (i = 4; i <= 6; i++)
			if ($i == "-")
				$i = ""
		print "| " $4 " | " kind[$1] " | " $5 " | " $6 " |"
	}' "$table"
	exit
fi
if [ $# -ne 1 ] || [ ! -r "$1" ]; then
	echo "usage: audit.sh IMAGE | --table" >&2
	exit 2
fi
image=$1
found=0
say()
{
	echo "$image: $*"
	found=1
}

header=$($readelf -hW "$image" 2>/dev/null) || { echo "$image: not an ELF file" >&2; exit 2; }
segments=$($readelf -lW "$image" 2>/dev/null) || exit 2
notes=$($readelf -nW "$image" 2>/dev/null) || exit 2
code=$($objdump -d --no-show-raw-insn -w "$image" 2>/dev/null) || { echo "$image: cannot be disassembled" >&2; exit 2; }

# Headers: the the loader's rules, as far as they do not depend on the amount of RAM.
echo "$header" | grep -q 'Type: *EXEC ' || say "not a static executable (ET_EXEC)"
echo "$header" | grep -q 'Machine: .*X86-64' || say "not for x86-64"
entry=$(echo "$header" | sed -n 's/.*Entry point address: *//p')
entry_ok=0
loads=$(echo "$segments" | awk '$1 == "LOAD" {
	flags = ""
	for (i = 7; i < NF; i++)
		flags = flags $i
	print $3, $4, $6, flags
}')
[ -n "$loads" ] || say "no PT_LOAD segment"
while read -r va pa len flags; do
	[ -n "$va" ] && [ $((len)) -ne 0 ] || continue # an empty one maps nothing
	end=$((va + len))
	case $flags in
	*W*E*) say "segment at $va is writable and executable" ;;
	esac
	[ $(((va | pa) & 4095)) -eq 0 ] || say "segment at $va (physical $pa) is not page-aligned"
	if [ $((va)) -lt 65536 ] || [ $end -gt $((0x7f0000000000)) ]; then
		say "segment at $va is outside the guest's addresses"
	fi
	case $flags in
	*E*) [ $((entry)) -ge $((va)) ] && [ $((entry)) -lt $end ] && entry_ok=1 ;;
	esac
done <<EOT
$loads
EOT
[ $entry_ok -eq 1 ] || say "entry point $entry is not in an executable segment"
case $segments in
*INTERP*|*DYNAMIC*) say "wants a dynamic linker" ;;
esac

# Notes: readelf knows other owners' names for the first types.
note()
{
	echo "$notes" | grep -E "^ *Keel .*($1|$2)" | sed 's/.*data: *//'
}
abi=$(note '\(0x0*1\)' NT_VERSION)
case $abi in
"01 00 00 00 "*) ;;
"") say "no note KEEL_NOTE_ABI" ;;
*) say "note KEEL_NOTE_ABI asks for another version: $abi" ;;
esac
[ -n "$(note '\(0x0*2\)' NT_ARCH)" ] || say "no note KEEL_NOTE_REQUIRED"

# Code: every instruction against every pattern of the table.
echo "$code" | awk -F '\t' -v image="$image" -v table="$table" '
BEGIN {
	while ((getline row < table) > 0) {
		if (row ~ /^#/ || split(row, f, "\t") < 6 || f[1] !~ /[PS]/)
			continue
		pattern[++n] = f[3]
		kind[n] = f[1] == "P" ? "faults" : "runs, but not as meant"
		hal[n] = f[5]
		keel[n] = f[6]
		gsub(/`/, "", hal[n])
		gsub(/`/, "", keel[n])
	}
	if (!n) {
		print "no table " table > "/dev/stderr"
		exit 2
	}
}
/^[0-9a-f]+ <.*>:$/ {
	symbol = $0
	sub(/^[0-9a-f]+ </, "", symbol)
	sub(/>:$/, "", symbol)
	next
}
/^ *[0-9a-f]+:\t/ {
	insn = $2
	sub(/ *#.*/, "", insn)
	sub(/ *<.*/, "", insn)
	gsub(/ +/, " ", insn)
	sub(/ $/, "", insn)
	instructions++
	# The same instruction is decided once.
	if (!(insn in which)) {
		which[insn] = 0
		for (i = 1; i <= n && !which[insn]; i++)
			if (insn ~ pattern[i])
				which[insn] = i
	}
	i = which[insn]
	if (!i)
		next
	address = $1
	gsub(/[ :]/, "", address)
	printf "%s: %s at 0x%s: %s: %s\n", image, symbol, address, insn, kind[i]
	printf "\tuse %s%s\n", hal[i], keel[i] == "-" ? "" : "; on Keel: " keel[i]
	hits++
}
END {
	if (!instructions) {
		print image ": no code to look at"
		exit 1
	}
	exit hits != 0
}'
case $? in
0) ;;
1) found=1 ;;
*) exit 2 ;;
esac
[ $found -eq 0 ] && echo "$image: clean"
exit $found
