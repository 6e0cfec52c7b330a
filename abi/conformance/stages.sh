#!/bin/sh
# SPDX-License-Identifier: MIT
#
# stages.sh conform|conform-quick|conform-long|mutants|hostile O [N] - the suite as stages of "make check"; KTAP on standard output
set -u

cd "$(dirname "$0")/../.." || exit 1
stage=$1
out=$2
rounds=${3:-50}
export rounds
here=abi/conformance
run="$out/keel-conform --adapter $here/adapters/keel --jobs 2"
KEEL=${KEEL:-$out/keel}
export KEEL
n=0
bad=0
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

# result STATUS NAME - one line; what is in $tmp/said becomes diagnostics of a failure.
result()
{
	n=$((n + 1))
	if [ "$1" = 0 ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		[ ! -s "$tmp/said" ] || head -n 40 "$tmp/said" | cut -c1-300 | sed 's/^/# /'
		bad=1
	fi
}

gate()
{
	name=$1
	shift
	"$@" >"$tmp/said" 2>&1
	result $? "$name"
}

# Images that were built say the same as the manifest that is committed.
manifest_current()
{
	diff "$here/manifest.csv" "$out/conformance/manifest.csv" ||
		{ echo "cp $out/conformance/manifest.csv $here/manifest.csv"; return 1; }
}

half_negative()
{
	awk -F, 'NR > 1 { all++; negative += $9 } END { print negative " of " all " tests are negative"; exit negative * 2 < all }' \
		"$here/manifest.csv"
}

# Two starts have different entropy.
entropy_differs()
{
	for i in 1 2; do
		$run --filter START-007 2>/dev/null | sed -n 's/.*entropy //p' >"$tmp/entropy$i"
	done
	[ -s "$tmp/entropy1" ] && ! cmp "$tmp/entropy1" "$tmp/entropy2"
}

# The runner's own KTAP, one level down; its table stays on standard error.
suite()
{
	$run --out "$out/conformance/results" "$@" >"$tmp/ktap"
	status=$?
	sed 's/^/    /' "$tmp/ktap"
	return "$status"
}

conform()
{
	echo "KTAP version 1"
	echo "1..4"
	gate "the manifest is what the images declare" manifest_current
	gate "at least half of the tests are negative" half_negative
	gate "two starts have different entropy" entropy_differs
	: >"$tmp/said"
	suite "$@"
	result $? "the host conforms"
}

# With a fault planted its test must fail; without, all named tests pass.
mutants()
{
	keel=$out/mutants/keel
	ids=$(awk -F, '!/^#/ && $1 != "n" && $4 != "*" { print $4 }' "$here/mutants.csv" | sort -u | paste -sd, -)
	echo "KTAP version 1"
	echo "1..$(($(grep -cv '^#' "$here/mutants.csv")))"
	KEEL_BUG=0 KEEL=$keel $run --rounds-scale 20 --filter "$ids" >"$tmp/said" 2>&1
	result $? "every named test passes without a fault"
	grep -v '^#\|^n,' "$here/mutants.csv" >"$tmp/list"
	while IFS=, read -r bug what where id; do
		if [ "$id" = '*' ]; then
			# A host that answers everything alike: nearly nothing may hold.
			KEEL_BUG=$bug KEEL=$keel $run --rounds-scale 1000 --timeout 2 --jobs 4 --filter "$everything" >"$tmp/said" 2>&1
			good=$(grep -c '^    ok' "$tmp/said")
			all=$(grep -cE '^    (not )?ok' "$tmp/said")
			[ "$all" -gt 100 ] && [ "$((good * 5))" -lt "$all" ]
			status=$?
			echo "# $good of $all tests hold on a host that is $what"
			result "$status" "fault $bug ($what) fails nearly everything"
			continue
		fi
		KEEL_BUG=$bug KEEL=$keel $run --rounds-scale 20 --filter "$id" >"$tmp/said" 2>&1
		case $? in
		5 | 6) status=0 ;;
		*) status=1 ;;
		esac
		result "$status" "fault $bug ($what, $where) is found by $id"
	done <"$tmp/list"
}
# Images, start info and initial state come before the first call and say nothing about calls; EARLY calls are spared,
# so that verdicts can be heard.
everything='BASE-*,CALL-*,CTX-*,MULTI-*,MMU-*,AS-*,HARVEST-*,TRAP-*,NORM-*,EVENT-*,VCPU-*,TIME-*,CONSOLE-*,MEMORY-*,STATS-*'

# shellcheck source=abi/conformance/hostile/hostile.sh
. "$here/hostile/hostile.sh"

case $stage in
conform) conform ;;
conform-quick) conform --rounds-scale 50 ;;
conform-long)
	seed=$(date +%s)
	conform --seed "$seed"
	;;
mutants) mutants ;;
hostile) hostile ;;
*)
	echo "usage: $0 conform|conform-quick|conform-long|mutants|hostile O [N]" >&2
	exit 1
	;;
esac
exit "$bad"
