#!/bin/sh
# SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
# gen-wrappers.sh - typed C wrappers for the calls of every served extension,
# from hypercalls.def on stdin. The result is kept as
# include/hypercall/wrappers.h; the `lib` check stage fails when it is stale.
set -eu
exec awk '
function trim(s) { sub(/^[ \t]+/, "", s); sub(/[ \t]+$/, "", s); return s }
# n-th comma-separated field at depth 0, outside strings.
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
function param(kind, name) {
	if (kind == "GPA") return "keel_gpa_t " name
	if (kind == "AS") return "keel_as_t " name
	if (kind == "PORT") return "keel_port_t " name
	if (kind == "U32") return "keel_u32 " name
	return "keel_u64 " name
}
function value(kind, name) { return kind == "GPA" || kind == "AS" || kind == "PORT" ? name ".v" : name }
function call(body,   name, nargs, i, a, kind, params, values) {
	if (!served[field(body, 1)]) return
	name = field(body, 3); nargs = field(body, 4); params = values = ""
	for (i = 1; i <= nargs; i++) {
		a = field(body, 5 + i); sub(/^A\(/, "", a); sub(/\)$/, "", a)
		kind = field(a, 1); a = field(a, 2)
		# A field name of the def may be a keyword of C++.
		if (a == "class") a = "frame_class"
		params = params (i > 1 ? ", " : "") param(kind, a)
		values = values ", " value(kind, a)
	}
	a = field(body, 11); gsub(/"/, "", a)
	printf "\n/* %s */\n", a
	printf "static inline struct keel_ret keel_%s(%s)\n{\n", name, params == "" ? "void" : params
	printf "\treturn keel_call%d(KEEL_CALL_%s%s);\n}\n", nargs, toupper(name), values
}
function emit(rec,   body) {
	body = rec; sub(/^KEEL_(EXT|CALL)\(/, "", body); sub(/\)$/, "", body)
	if (rec ~ /^KEEL_EXT/) served[field(body, 1)] = field(body, 3) == "1"; else call(body)
}
BEGIN {
	print "/* SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent */"
	print "/* Generated from abi/hypercalls.def by gen-wrappers.sh; do not edit. Included by call.h. */"
	print "#ifndef HYPERCALL_WRAPPERS_H\n#define HYPERCALL_WRAPPERS_H\n"
	print "/* clang-format off */\nKEEL_BEGIN_C"
}
/^KEEL_(EXT|CALL)\(/ { rec = "" }
/^KEEL_(EXT|CALL)\(/, /\)$/ {
	sub(/^[ \t]+/, ""); rec = rec (rec == "" ? "" : " ") $0
	if ($0 ~ /"\)$/) { emit(rec); rec = "" }
}
END { print "\nKEEL_END_C\n/* clang-format on */\n\n#endif" }
'
