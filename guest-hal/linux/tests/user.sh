#!/bin/sh
# SPDX-License-Identifier: MIT
#
# user KEEL VMLINUX ROOT STAGE SUITE[:ARG[,ARG...]]... - Debian's programs on the port
#
# Each suite is run in a guest of its own, bounded in time, and its results are one group
# of KTAP. What is known to fail stands in the list of skips as
#
#	STAGE/SUITE TEST # fails: why
#
# and is reported as that; one of these that passes is an error, so the list only shrinks.
set -u

keel=$1 vmlinux=$2 root=$3 stage=$4
shift 4
skips=${KEEL_SKIPS-$(cd "$(dirname "$0")" && pwd)/../../../.ci/skips}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/keel-user.XXXXXX") || exit 2
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP

echo "KTAP version 1"
echo "1..$#"
n=0
result=0
for item; do
	n=$((n + 1))
	suite=${item%%:*}
	args=
	case $item in *:*) args=suite_args=${item#*:} ;; esac
	timeout -k 5 "${SUITE_SECONDS:-120}" "$keel" run --mem 768M "$vmlinux" --initrd "$root" \
		--cmdline "quiet suite=$suite $args" </dev/null >"$tmp/out" 2>&1
	status=$?
	echo "# $suite: keel run ended with $status"
	awk -v stage="$stage" -v suite="$suite" -v skips="$skips" '
	BEGIN {
		while ((getline line <skips) > 0) {
			if (line !~ /# fails: /)
				continue
			name = why = line
			sub(/[ \t]+#.*/, "", name)
			sub(/.*# fails: /, "", why)
			if (index(name, stage "/" suite " ") == 1)
				known[substr(name, length(stage "/" suite " ") + 1)] = why
		}
	}
	{ sub(/\r$/, "") }
	/^=== begin/ { on = 1; next }
	/^=== end/ { on = 0; ended = $3; next }
	!on { print "# " $0; next }
	/^KTAP/ || /^1\.\./ { print "    " $0; next }
	/^(not )?ok / {
		name = $0
		sub(/^(not )?ok [0-9]+ /, "", name)
		sub(/ # .*/, "", name)
		line = $0
		sub(/ [0-9]+ /, "&" suite " ", line)
		if (!(name in known))
			print "    " line
		else if (/^not/)
			print "    " line " # XFAIL " known[name]
		else
			print "    not " line "\n# " name " is listed as failing, and passes"
		next
	}
	{ print "# " $0 }
	END {
		if (ended != "0") {
			print "# the suite did not come to its end"
			exit 1
		}
	}' "$tmp/out" && [ $status = 0 ] && echo "ok $n $suite" && continue
	echo "not ok $n $suite"
	result=1
done
exit $result
