#!/bin/sh
# SPDX-License-Identifier: MIT
# mkcpio.sh FILE...	an archive of the files, by their base names, in cpio's "newc" format, on stdout
set -eu
export LC_ALL=C

# pad LENGTH: zeroes up to a multiple of 4.
pad()
{
	case $(($1 % 4)) in
	1) printf '\0\0\0' ;;
	2) printf '\0\0' ;;
	3) printf '\0' ;;
	esac
}

# entry NAME SIZE: the header; nothing in it depends on when or by whom it was made.
entry()
{
	printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\0' \
		0 $((0100755)) 0 0 1 0 "$2" 0 0 0 0 $((${#1} + 1)) 0 "$1"
	pad $((110 + ${#1} + 1))
}

for file; do
	size=$(wc -c <"$file")
	entry "$(basename "$file")" "$size"
	cat "$file"
	pad "$size"
done
entry 'TRAILER!!!' 0
