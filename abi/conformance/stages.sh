#!/bin/sh
# SPDX-License-Identifier: MIT
#
# stages.sh conform|conform-quick|conform-long|smoke|mutants|hostile O [N] - the suite as stages of "make check"; KTAP on standard output
set -u

cd "$(dirname "$0")/../.." || exit 1
stage=$1
out=$2
rounds=${3:-50}
export rounds
here=abi/conformance
run="$out/keel-conform --adapter $here/adapters/keel --profile CORE,SMP,IO --jobs 2"
KEEL=${KEEL:-$out/keel}
export KEEL
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

# shellcheck source=abi/conformance/ktap.sh
. abi/conformance/ktap.sh

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

# The runner against adapters that behave in every way one can: FAKE says how, the exit status must be $2.
judged()
{
	FAKE=$1 "$out/keel-conform" --adapter "$tmp/fake" --filter "${3:-BASE-001}" --timeout 1 --out "$tmp/fake.json" >"$tmp/fake.out" 2>&1
	status=$?
	[ "$status" = "$2" ] || {
		echo "an adapter that says '$1': exit $status, expected $2"
		cat "$tmp/fake.out"
		return 1
	}
}

runner_judges()
{
	cat >"$tmp/fake" <<-'EOT'
		#!/bin/sh
		if [ "$1" = caps ]; then
			[ "$FAKE" != nocaps ] || exit 1
			printf 'host=fake\nbackend=none\nhw=none\nverbs=caps start\n'
			[ "$FAKE" != erratum ] || echo 'erratum=BASE-001 7'
			exit 0
		fi
		[ "$1" = start ] || exit 69
		case $FAKE in
		pass) printf 'KT begin BASE-001\nKT pass\n' ;;
		fail | erratum) printf 'KT begin BASE-001\nKT fail x.c:1 no\nKT failed\n' ;;
		passfail) printf 'KT begin BASE-001\nKT fail x.c:1 no\nKT pass\n' ;;
		skip) printf 'KT begin BASE-001\nKT skip 3 lazy\n' ;;
		silent) ;;
		half) printf 'KT begin BASE-001\n' ;;
		crash) printf 'KT begin BASE-001\n'; exit 125 ;;
		passcrash) printf 'KT begin BASE-001\nKT pass\n'; exit 125 ;;
		broken) exit 127 ;;
		hang) sleep 20 ;;
		restarts) printf 'KT begin BASE-021\nKT armed\nKT begin BASE-021\n'; sleep 20 ;;
		reports) printf 'KT begin BASE-021\nKT armed\n'; echo 'restart 5' >"$KEEL_CONFORM_DIR/end" ;;
		returns) printf 'KT begin BASE-018\nKT armed\nKT fail x.c:1 returned\nKT failed\n' ;;
		exit1) printf 'KT begin BASE-018\nKT armed\n'; exit 1 ;;
		exit2) printf 'KT begin BASE-018\nKT armed\n'; exit 2 ;;
		refuse) exit 126 ;;
		run) printf 'KT begin IMAGE-001\nKT pass\n' ;;
		esac
	EOT
	chmod +x "$tmp/fake"
	judged pass 0 && judged fail 5 && judged passfail 5 && judged skip 5 && judged silent 6 && judged half 6 &&
		judged crash 6 && judged passcrash 6 && judged broken 4 && judged nocaps 4 && judged hang 6 && judged erratum 0 &&
		judged refuse 5 && judged restarts 0 BASE-021 && judged reports 0 BASE-021 && judged pass 5 BASE-021 &&
		judged exit1 0 BASE-018 && judged exit2 5 BASE-018 && judged returns 5 BASE-018 &&
		judged refuse 0 IMAGE-001 && judged run 5 IMAGE-001 && judged pass 4 NOSUCH-001
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
	echo "1..5"
	gate "the manifest is what the images declare" manifest_current
	gate "at least half of the tests are negative" half_negative
	gate "the runner tells outcomes apart" runner_judges
	gate "two starts have different entropy" entropy_differs
	: >"$tmp/said"
	suite "$@"
	result $? "the host conforms"
}

# On this machine's KVM, however slow it is.
smoke()
{
	echo "KTAP version 1"
	echo "1..2"
	if ! { [ -c /dev/kvm ] && (: <>/dev/kvm) 2>/dev/null; }; then
		echo "ok 1 - the smoke set on kvm # SKIP /dev/kvm does not open"
		echo "ok 2 - HVM partitions # SKIP /dev/kvm does not open"
		return
	fi
	ids=$(grep -v '^#' "$here/smoke" | tr ' \n' ',,' | sed 's/,*$//')
	: >"$tmp/said"
	KEEL_BACKEND=kvm suite --rounds-scale 1000 --slow 20 --filter "$ids"
	result $? "the smoke set on kvm"
	suite --profile HVM --rounds-scale 1000 --slow 20
	result $? "HVM partitions"
}

# mutant BUG ID: is the planted fault found? The status goes to $tmp/BUG.status, what was said to $tmp/BUG.said.
mutant()
{
	if [ "$2" = '*' ]; then
		# A host that answers everything alike: nearly nothing may hold.
		KEEL_BUG=$1 KEEL=$keel $run --rounds-scale 1000 --timeout 2 --jobs 4 --filter "$everything" >"$tmp/$1.said" 2>&1
		good=$(grep -c '^    ok' "$tmp/$1.said")
		all=$(grep -cE '^    (not )?ok' "$tmp/$1.said")
		echo "$good of $all tests hold" >>"$tmp/$1.said"
		[ "$all" -gt 100 ] && [ "$((good * 5))" -lt "$all" ]
		echo $? >"$tmp/$1.status"
		return
	fi
	KEEL_BUG=$1 KEEL=$keel $run --rounds-scale 20 --filter "$2" >"$tmp/$1.said" 2>&1
	case $? in
	5 | 6) echo 0 ;;
	*) echo 1 ;;
	esac >"$tmp/$1.status"
}

# Each of those on standard input.
each_mutant()
{
	while IFS=, read -r bug _ _ id; do
		mutant "$bug" "$id"
	done
}

# With a fault planted its test must fail; without, all named tests pass.
mutants()
{
	keel=$out/mutants/keel
	# Those of the kvm backend are mutants.sh's, on the test host.
	grep -v '^#\|^n,\|,host/backend/kvm/' "$here/mutants.csv" >"$tmp/list"
	ids=$(awk -F, '$4 != "*" { print $4 }' "$tmp/list" | sort -u | paste -sd, -)
	echo "KTAP version 1"
	echo "1..$(($(wc -l <"$tmp/list") + 1))"
	KEEL_BUG=0 KEEL=$keel $run --rounds-scale 20 --filter "$ids" >"$tmp/said" 2>&1
	result $? "every named test passes without a fault"
	# One test at a time leaves a processor idle; but what two vCPUs do to each other takes two.
	grep -v ',SMP-' "$tmp/list" | awk 'NR % 2' | each_mutant &
	grep -v ',SMP-' "$tmp/list" | awk 'NR % 2 == 0' | each_mutant
	wait
	grep ',SMP-' "$tmp/list" | each_mutant
	while IFS=, read -r bug what where id; do
		mv "$tmp/$bug.said" "$tmp/said"
		name="fault $bug ($what, $where) is found by $id"
		[ "$id" != '*' ] || name="fault $bug ($what) fails nearly everything"
		result "$(cat "$tmp/$bug.status")" "$name"
	done <"$tmp/list"
}
# Images, start info and initial state come before the first call and say nothing about calls; EARLY calls are spared,
# so that verdicts can be heard.
everything='BASE-*,CALL-*,CTX-*,MULTI-*,MMU-*,AS-*,HARVEST-*,TRAP-*,NORM-*,USER-*,EVENT-*,VCPU-*,TIME-*,CONSOLE-*,MEMORY-*,STATS-*'

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
smoke) smoke ;;
*)
	echo "usage: $0 conform|conform-quick|conform-long|smoke|mutants|hostile O [N]" >&2
	exit 1
	;;
esac
exit "$bad"
