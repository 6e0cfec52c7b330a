#!/bin/sh
# SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
# gen-calls.sh header|table|contexts|list - derive from hypercalls.def (stdin)
# what cannot include it: constants usable from assembly, SPEC.md's tables of
# calls and of contexts, and a plain list for the golden files and cross-checks.
set -eu
exec awk -v mode="$1" '
# Join continuation lines into one record per macro call.
/^KEEL_(EXT|CALL)\(/ { rec = "" }
/^KEEL_(EXT|CALL)\(/, /\)$/ {
	sub(/^[ \t]+/, ""); rec = rec (rec == "" ? "" : " ") $0
	if ($0 ~ /"\)$/) { emit(rec); rec = "" }
}
function field(s, n,   i, c, depth, k, out, q) {
	depth = 0; k = 1; out = ""; q = 0
	for (i = 1; i <= length(s); i++) {
		c = substr(s, i, 1)
		if (c == "\"") q = !q
		if (!q && c == "(") depth++
		if (!q && c == ")") depth--
		if (!q && c == "," && depth == 0) { if (k == n) return trim(out); k++; out = ""; continue }
		out = out c
	}
	return k == n ? trim(out) : ""
}
function trim(s) { sub(/^[ \t]+/, "", s); sub(/[ \t]+$/, "", s); return s }
function emit(rec,   body, ext, name, i, a, args, kinds, flags, yes, id) {
	body = rec; sub(/^KEEL_(EXT|CALL)\(/, "", body); sub(/\)$/, "", body)
	if (rec ~ /^KEEL_EXT/) {
		exts[++next_ext] = sprintf("#define KEEL_EXT_%s %d", field(body, 1), field(body, 2))
		extnum[field(body, 1)] = field(body, 2) + 0
		served[field(body, 1)] = field(body, 3)
		return
	}
	ext = field(body, 1); name = toupper(field(body, 3))
	calls[++ncalls] = sprintf("#define KEEL_CALL_%s 0x%02x%03x%s", name, 1, extnum[ext], substr(field(body, 2), 3))
	if (mode == "header") return
	args = kinds = ""
	for (i = 6; i <= 10; i++) {
		a = field(body, i)
		if (a !~ /^A\(/) continue
		sub(/^A\(/, "", a); sub(/\)$/, "", a); gsub(/, */, ":", a); kinds = kinds " " a
		sub(/^[A-Z0-9]+:/, "", a); args = args (args == "" ? "" : ", ") a
	}
	flags = field(body, 5); gsub(/KEEL_CF_/, "", flags); gsub(/ *\| */, " ", flags); if (flags == "0") flags = ""
	yes = served[ext] == "1" && !has(flags, "SMP")
	id = sprintf("0x%02x%03x%s", 1, extnum[ext], substr(field(body, 2), 3))
	a = field(body, 11); gsub(/"/, "", a)
	if (mode == "list")
		rows[ncalls] = id " " field(body, 3) " served=" (yes ? 1 : 0) " flags=" (flags == "" ? "-" : joined(flags)) \
			" nargs=" field(body, 4) kinds
	else if (mode == "contexts")
		rows[ncalls] = sprintf("| `%s` | %s | yes | yes | %s | %s | %s |", field(body, 3), yn(has(flags, "EARLY")),
			yn(!has(flags, "NODUMP")), yn(!has(flags, "NOBATCH")), yn(has(flags, "EARLY")))
	else
		rows[ncalls] = sprintf("| `%s` | `%s(%s)` | %s | %s | %s |", id, field(body, 3), args, yn(yes), tolower(flags), a)
}
function has(flags, f) { return (" " flags " ") ~ (" " f " ") }
function yn(x) { return x ? "yes" : "no" }
function joined(flags) { gsub(/ /, "|", flags); return flags }
END {
	if (mode != "header") {
		if (mode == "table") { print "| id | call | served | flags | what |"; print "|---|---|---|---|---|" }
		if (mode == "contexts") { print "| call | boot | IF off | upcall | dump | batch | panic |"; print "|---|---|---|---|---|---|---|" }
		for (i = 1; i <= ncalls; i++) print rows[i]
		exit
	}
	print "/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */"
	print "/* Generated from hypercalls.def by gen-calls.sh; do not edit. */"
	print "#ifndef KEEL_CALLS_H\n#define KEEL_CALLS_H\n"
	print "/* id = call ABI 1 [31:24] | extension [23:12] | function [11:0]; bits 63:32 are zero. */"
	print "#define KEEL_CALL_ID(ext, fn) (0x01000000 | (ext) << 12 | (fn))"
	print "#define KEEL_CALL_EXT(id) ((id) >> 12 & 0xfff)\n#define KEEL_CALL_FN(id) ((id)&0xfff)\n"
	print "/* Flags of a call, see hypercalls.def. */"
	print "#define KEEL_CF_EARLY 1\n#define KEEL_CF_NOBATCH 2\n#define KEEL_CF_NORETURN 4\n#define KEEL_CF_NODUMP 8\n#define KEEL_CF_REMOTE 16\n#define KEEL_CF_SMP 32\n"
	for (i = 1; i <= next_ext; i++) print exts[i]
	printf "#define KEEL_EXT_COUNT %d\n\n", next_ext
	for (i = 1; i <= ncalls; i++) print calls[i]
	printf "#define KEEL_CALL_COUNT %d\n\n#endif\n", ncalls
}'
