#!/bin/sh
# SPDX-License-Identifier: MIT
#
# diff.sh check|long|fuzz O - the differential run as stages of "make check"; KTAP on standard output
#
#	check	keel-diff itself, ring3 against ring3 and against planted faults, ring3 against kvm where /dev/kvm opens
#	long	more rounds of other seeds
#	fuzz	until a difference is found; DIFF_A and DIFF_B in the environment name other hosts, DIFF_AVOID is --avoid
set -u

cd "$(dirname "$0")/../../.." || exit 1
stage=$1
out=$2
ops=${OPS:-10000}
keel=${KEEL:-$out/keel}
ring3="$keel run --core none --backend ring3"
kvm="$keel run --core none --backend kvm"
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

compare()
{
	"$out/keel-diff" --image "$out/conformance/diff.elf" "$@"
}

# shellcheck source=abi/conformance/ktap.sh
. abi/conformance/ktap.sh

# expect STATUS PATTERN COMMAND...: ends so, and says so
expect()
{
	want=$1 pattern=$2
	shift 2
	"$@" >"$tmp/one" 2>&1
	got=$?
	[ "$got" = "$want" ] && grep -q "$pattern" "$tmp/one" && return
	echo "$*: status $got, expected $want and '$pattern'"
	cat "$tmp/one"
	return 1
}

# Hosts that answer each operation with its own word, and in a way of their own
# once the 41st of the seed's comes after the 11th.
judges()
{
	compare --print --ops 400 | awk '{ print $2 }' >"$tmp/words"
	cat >"$tmp/fake" <<-'EOT'
		#!/bin/sh
		# fake MODE WORDS ...
		mode=$1
		words=$2
		[ "$mode" != nohost ] || exit 127
		case $CMDLINE in
		*list=*) echo "${CMDLINE##*list=}" | tr , '\n' ;;
		*ops=0) echo 'KT note features 0 fff' ;;
		*ops=*) head -n "${CMDLINE##*ops=}" "$words" ;;
		*) od -An -v -t x8 -w8 "$MODULE" | tr -d ' ' ;;
		esac | awk -v mode="$mode" -v first="$(sed -n 11p "$words")" -v second="$(sed -n 41p "$words")" '
			/features/ { print; next }
			{ while (length($0) < 16) $0 = "0" $0 }
			$0 == first { armed = 1 }
			$0 == second && armed && mode == "pair" { print "0123456789abcdef"; next }
			$0 == second && armed && mode == "ring" { print "~more" }
			$0 == second && armed && (mode == "crash" || mode == "early") { fell = 1; exit 125 }
			$0 == second && armed && mode == "hang" { fflush(); system("sleep 30") }
			{ print }
			END { if (!fell) print "KT note end 0" }'
		status=$?
		case $mode in
		status) exit 3 ;;
		crash) exit $status ;;
		esac
	EOT
	chmod +x "$tmp/fake"
	expect 0 '^ok 1 - seed 1: 400 operations alike' fake_run same &&
		expect 5 '^# shrunk to 2 of 41 operations' fake_run pair &&
		expect 6 '^# shrunk to 2 of 4[01] operations' fake_run crash &&
		expect 6 '^# shrunk to 2 of 4[01] operations' fake_run early &&
		expect 6 'said nothing for 1 s' fake_run hang --shrink 0 &&
		expect 5 'console ring of host b: ~more' fake_run ring --shrink 5 &&
		expect 4 'before the first operation' fake_run nohost &&
		expect 4 'before the first operation' fake_run status
}

fake_run()
{
	mode=$1
	shift
	compare --ops 400 --timeout 1 --a "$tmp/fake same $tmp/words" --b "$tmp/fake $mode $tmp/words" "$@"
}

# A list over the command line's room goes as a module, and says the same as the seed it is from.
lists_alike()
{
	for ops_here in 100 1000; do
		compare --print --ops "$ops_here" --seed 5 | awk '{ print $2 }' >"$tmp/list"
		compare --a "$ring3" --b "$ring3" --replay "$tmp/list" || return
	done
}

# Digests that say nothing would be alike, too.
digests_tell()
{
	for seed in 1 2; do
		$keel run --core none --backend ring3 --cmdline "test=DIFF seed=$seed ops=1000" "$out/conformance/diff.elf" \
			</dev/null | grep -xE '[0-9a-f]{16}' >"$tmp/digests$seed"
	done
	[ "$(wc -l <"$tmp/digests1")" = 1000 ] && [ "$(sort -u "$tmp/digests1" | wc -l)" -ge 990 ] &&
		[ "$(comm -12 "$tmp/digests1" "$tmp/digests2" 2>/dev/null | wc -l)" -le 10 ]
}

# Several at a time, one of each pair last in line for the processor.
in_disorder()
{
	pids=
	for seed in 11 12 13; do
		compare --seed "$seed" --ops 3000 --timeout 120 --a "$ring3" --b "nice -n 19 $ring3" >"$tmp/disorder$seed" 2>&1 &
		pids="$pids $!"
	done
	fine=0
	for pid in $pids; do
		wait "$pid" || fine=1
	done
	cat "$tmp"/disorder*
	return "$fine"
}

# fault NUMBER: found within 3000 operations, and shrunk to 10 at most.
fault()
{
	compare --ops 3000 --timeout 20 --a "env KEEL_BUG=0 $mutant" --b "env KEEL_BUG=$1 $mutant" --shrink 60
	status=$?
	[ $status = 5 ] || [ $status = 6 ]
}

faults()
{
	# n what: rows of ../mutants.csv that one vCPU can see without a clock
	while read -r bug what; do
		fault "$bug" >"$tmp/said" 2>&1
		status=$?
		size=$(sed -n 's/^# shrunk to \([0-9]*\) of .*/\1/p' "$tmp/said")
		[ "${size:-99}" -le 10 ] || status=1
		[ $status != 0 ] || sed -n 's/^# shrunk to/# '"fault $bug:"' shrunk to/p' "$tmp/said"
		result $status "fault $bug ($what) is found and shrunk to a few operations"
	done <<-EOT
		1 NOBATCH is not checked
		3 unused arguments are ignored
		6 a reserved field is ignored
		7 a batch does not stop at the first error
		8 an unmapped page stays in the cache
		9 a page made read-only stays writable
		10 unknown protection bits are taken
		12 the number of records done is one too small
		13 page faults never say that the page is mapped
		14 collecting does not start afresh
		15 released memory keeps its contents
		16 a delivery leaves interrupts enabled
		17 the red zone of an interrupted stack is used
		18 trap_return does not look at the slot's state
		19 stale port handles work
		20 closing a port leaves its event pending
	EOT
}
faults_count=16

# Exceptions this machine's KVM says it cannot carry out: one that interprets ring 0 may lack int3. On others there are none.
cannot()
{
	mask=0
	i=1
	for what in ud2 int3 'div by zero' '#GP' '#SS' 'single step'; do
		compare --print --ops 4000 | grep " trap: $what\$" | head -n 1 | awk '{ print $2 }' >"$tmp/list"
		if ! compare --a "$ring3" --b "$kvm" --replay "$tmp/list" >"$tmp/one" 2>&1 && grep -q 'cannot emulate' "$tmp/one"; then
			echo "# this machine's KVM cannot carry out: $what" >&2
			mask=$((mask + i))
		fi
		i=$((i * 2))
	done
	echo $mask
}

# against_kvm ARGUMENT...: keel-diff's own KTAP, one level down; on standard output.
against_kvm()
{
	name="ring3 and kvm agree"
	if ! { [ -c /dev/kvm ] && (: <>/dev/kvm) 2>/dev/null; }; then
		n=$((n + 1))
		echo "ok $n - $name # SKIP /dev/kvm cannot be opened"
		return
	fi
	avoid=$(cannot)
	: >"$tmp/said"
	compare --a "$ring3" --b "$kvm" --avoid "$avoid" --timeout 120 "$@" >"$tmp/ktap"
	status=$?
	sed 's/^/    /' "$tmp/ktap"
	result $status "$name"
}

[ "$stage" = fuzz ] || echo "KTAP version 1"
case $stage in
check)
	mutant="$out/mutants/keel run --core none --backend ring3"
	echo "1..$((6 + faults_count))"
	gate "keel-diff tells hosts apart" judges
	gate "digests tell operations apart" digests_tell
	gate "a list says the same as its seed" lists_alike
	gate "a host agrees with itself, $ops operations" compare --a "$ring3" --b "$ring3" --ops "$ops"
	gate "a host agrees with itself in disorder" in_disorder
	faults
	against_kvm --ops "$ops"
	;;
long)
	echo "1..2"
	seed=$(date +%s)
	gate "a host agrees with itself, 20 rounds from seed $seed" compare --a "$ring3" --b "$ring3" --seed "$seed" --rounds 20
	against_kvm --seed "$seed" --rounds 10
	;;
fuzz)
	# What an interpreting KVM lacks is no difference of hosts; DIFF_AVOID says what another lacks.
	avoid=${DIFF_AVOID:-0}
	[ -n "${DIFF_B:-}" ] || avoid=$(cannot)
	compare --a "${DIFF_A:-$ring3}" --b "${DIFF_B:-$kvm}" --seed "$(date +%s)" --rounds 0 --timeout 120 --avoid "$avoid"
	bad=$?
	;;
*)
	sed -n 's/^#	//p' "$0" >&2
	exit 1
	;;
esac
exit "$bad"
