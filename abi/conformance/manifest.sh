#!/bin/sh
# SPDX-License-Identifier: MIT
# manifest.sh DIR GROUP... - manifest.csv from the declarations in the images
# of DIR (section .keel.manifest) and from DIR/badimage.
set -eu
dir=$1
shift
rows=$(mktemp)
part=$(mktemp)
trap 'rm -f "$rows" "$part"' EXIT
for g; do
	objcopy --dump-section .keel.manifest="$part" "$dir/$g.elf" /dev/null
	tr -d '\0' <"$part" | sed "s|\$|,$g.elf|" >>"$rows"
done
"$dir/badimage" --manifest | sed 's|$|,|' >>"$rows"
echo "id,name,clauses,profile,ext,timeout,destructive,exit,negative,image,extra"
# The same order everywhere: by group as the images are listed, then by number.
awk -F, '{
	profile = "CORE"; ext = ""; timeout = 10; destructive = 0; code = 0; negative = 0; image = $5; extra = ""
	n = split($4, w, " ")
	for (i = 1; i <= n; i++) {
		key = w[i]; value = ""
		if (p = index(key, "=")) { value = substr(key, p + 1); key = substr(key, 1, p - 1) }
		if (key == "profile") profile = value
		else if (key == "ext") ext = value
		else if (key == "timeout") timeout = value
		else if (key == "destructive") destructive = 1
		else if (key == "exit") code = value
		else if (key == "neg") negative = 1
		else if (key == "image") image = value
		else extra = extra (extra == "" ? "" : " ") w[i]
	}
	print $1 "," $2 "," $3 "," profile "," ext "," timeout "," destructive "," code "," negative "," image "," extra
	if ($1 in seen) { print FILENAME ": " $1 " is declared twice" >"/dev/stderr"; exit 1 }
	seen[$1] = 1
}' "$rows"
