#!/bin/sh
# SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
# crosscheck.sh check|fill ABI - hold SPEC.md against the manifest of tests
#
#   check  every clause names a test or says how the host holds it; every test
#          named has a row in conformance/manifest.csv; every row names clauses
#          that exist and name it back; every call is named by a clause, and
#          every served one has a row of well-formed statuses.
#          Prints each fault; succeeds when there are none.
#   fill   rewrite the [tests: ...] of SPEC.md from the manifest.
#
# A clause is one line, "**KEEL-GROUP-nn** text [tests: ID ...]" or "... [host: how]" or
# both in this order, or "**KEEL-GROUP-nn** withdrawn". The manifest is comma-separated with a heading
# that has the columns `id` and `clauses`; several clauses stand in one cell
# separated by spaces. Lines that begin with # are comments.
set -eu
mode=$1 abi=$2
spec=$abi/SPEC.md manifest=$abi/conformance/manifest.csv
[ -f "$manifest" ] || { echo "$manifest is missing"; exit 1; }

# Both modes read the manifest first: of[clause] is the list of its tests.
# shellcheck disable=SC2016 # an awk program
manifest_awk='
FNR == NR {
	sub(/\r$/, ""); sub(/[ \t]+$/, "")
	if (/^#/ || /^$/) next
	n = split($0, cell, ",")
	for (i = 1; i <= n; i++) { sub(/^[ \t"]+/, "", cell[i]); sub(/[ \t"]+$/, "", cell[i]) }
	if (!heading) {
		for (i = 1; i <= n; i++) column[cell[i]] = i
		heading = 1
		if (column["clauses"]) column["clause"] = column["clauses"]
		if (!column["id"] || !column["clause"]) { fault("manifest: the heading has no columns id and clauses"); exit }
		next
	}
	id = cell[column["id"]]
	if (id !~ /^[A-Z][A-Z0-9]*-[0-9][0-9][0-9]$/) { fault("manifest: \"" id "\" is no test id"); next }
	if (id in row) fault("manifest: " id " has two rows")
	row[id] = cell[column["clause"]]
	if (split(row[id], c, " ") == 0) fault("manifest: " id " names no clause")
	for (i = 1; i in c; i++) of[c[i]] = of[c[i]] " " id
	split("", c)
	rows++
	next
}
function fault(what) { print what; faults++ }
'

case $mode in
fill)
	awk "$manifest_awk"'
	/^\*\*KEEL-[A-Z]+-[0-9][0-9]\*\* / && / \[tests:[^]]*\]/ {
		id = substr($0, 3, index(substr($0, 3), "*") - 1)
		sub(/\[tests:[^]]*\]/, "[tests:" (of[id] == "" ? " " : of[id]) "]")
		sub(/ \[tests: \] \[host:/, " [host:")
		print
		next
	}
	# Held by the host and by tests as well.
	/^\*\*KEEL-[A-Z]+-[0-9][0-9]\*\* .* \[host: [^]]*\]$/ {
		id = substr($0, 3, index(substr($0, 3), "*") - 1)
		if (of[id] != "") sub(/ \[host: /, " [tests:" of[id] "] [host: ")
	}
	{ print }
	END { exit faults != 0 }' "$manifest" "$spec" >"$spec.new" || { cat "$spec.new"; rm -f "$spec.new"; exit 1; }
	mv "$spec.new" "$spec"
	;;
check)
	# Calls by name; the third file is the list of calls.
	"$abi/gen-calls.sh" list <"$abi/hypercalls.def" | awk "$manifest_awk"'
	FILENAME == "-" { call[$2] = 1; served[$2] = $3 == "served=1"; next }
	/^\| call \| statuses/ { statuses = 1; next }
	statuses && /^\| `/ {
		split($0, cell, "|"); name = cell[2]; gsub(/[ `]/, "", name)
		if (name in status) fault("SPEC: two rows of statuses for " name)
		status[name] = cell[3]
		gsub(/; an? [a-z]+:/, "", cell[3])
		n = split(cell[3], st, " ")
		for (i = 1; i <= n; i++)
			if (st[i] != "none" && st[i] !~ /^[A-Z]+@F?[0-9]+(\+bit)?$/) fault("SPEC: \"" st[i] "\" of " name " is no status")
		split("", st)
		next
	}
	!/^\|/ { statuses = 0 }
	/^\*\*KEEL/ {
		if ($0 !~ /^\*\*KEEL-[A-Z]+-[0-9][0-9]\*\* [A-Z`]?/) { fault("SPEC: malformed clause: " substr($0, 1, 60)); next }
		id = substr($0, 3, index(substr($0, 3), "*") - 1)
		if (id in clause) fault("SPEC: " id " is there twice")
		clause[id] = 1
		clauses++
		text[clauses] = $0
		if ($0 ~ /^[^ ]+ withdrawn$/) next
		tests = ""
		if (match($0, / \[tests:[^]]*\]/)) { tests = substr($0, RSTART + 8, RLENGTH - 9); tagged = 1 } else tagged = 0
		host = $0 ~ / \[host: [^]]+\]$/
		if (!tagged && !host) fault("SPEC: " id " does not end with [tests: ...] or [host: ...]")
		n = split(tests, t, " ")
		if (tagged && n == 0 && !host) fault("SPEC: " id " has no test")
		for (i = 1; i <= n; i++) {
			if (!(t[i] in row)) fault("SPEC: " id " names " t[i] ", which is not in the manifest")
			else if ((" " row[t[i]] " ") !~ (" " id " ")) fault("SPEC: " id " names " t[i] ", whose row does not name it back")
			named[id, t[i]] = 1
		}
		split("", t)
	}
	/KEEL-[A-Z]+-[0-9][0-9]/ {
		rest = $0
		while (match(rest, /KEEL-[A-Z]+-[0-9][0-9]/)) {
			cited[substr(rest, RSTART, RLENGTH)] = 1
			rest = substr(rest, RSTART + RLENGTH)
		}
	}
	END {
		for (id in row) {
			n = split(row[id], c, " ")
			for (i = 1; i <= n; i++)
				if (!(c[i] in clause)) fault("manifest: " id " names " c[i] ", which is not in SPEC.md")
				else if (!((c[i], id) in named)) fault("manifest: " id " names " c[i] ", which does not name it back")
			split("", c)
		}
		for (id in cited) if (!(id in clause)) fault("SPEC: " id " is cited and is no clause")
		for (name in call) {
			for (i = 1; i <= clauses; i++) {
				group = name; sub(/_.*/, "_*", group)
				if (index(text[i], "`" name "`") || index(text[i], "`" name "(") || index(text[i], "`" group "`")) break
				# `partition_create`, `_start`: the name without its group.
				tail = name; sub(/^[a-z]+/, "", tail)
				if (tail != "" && index(text[i], "`" tail "`") && index(text[i], "`" substr(group, 1, length(group) - 1))) break
			}
			if (i > clauses) fault("SPEC: no clause names the call " name)
			if (served[name] && !(name in status)) fault("SPEC: no row of statuses for " name)
		}
		for (name in status) if (!(name in call)) fault("SPEC: a row of statuses for " name ", which is no call")
		if (!clauses || !rows) fault("nothing to check: " clauses + 0 " clauses, " rows + 0 " tests")
		exit faults != 0
	}' "$manifest" "$spec" -
	;;
*)
	echo "crosscheck.sh: check or fill" >&2
	exit 2
	;;
esac
