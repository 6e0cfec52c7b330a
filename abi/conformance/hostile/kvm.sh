#!/bin/sh
# SPDX-License-Identifier: MIT
#
# kvm.sh KEEL IMAGE [SEEDS [SECONDS]] - guests at CPL 0 that mean harm (hostile-kvm.elf), each attack with as many seeds;
# KTAP on standard output. A guest that does not end is ended after so many seconds. For any shell, busybox's included.
#
# What must hold is the same for all: the host ends on its own, with the status of a guest that powered off, crashed or was
# timed out, says so in one line and, when it crashed, with registers, and leaves no process behind.
set -u
keel=$1
image=$2
seeds=${3:-2}
seconds=${4:-10}
n=0
bad=0
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

if ! { [ -c /dev/kvm ] && (: <>/dev/kvm) 2>/dev/null; }; then
	echo "KTAP version 1"
	echo "1..1"
	echo "ok 1 - guests at CPL 0 # SKIP /dev/kvm does not open"
	exit 0
fi

# Processes the run under this mark left behind.
left()
{
	grep -lF "KEEL_HOSTILE=$1" /proc/[0-9]*/environ 2>/dev/null | while IFS=/ read -r _ _ pid _; do
		echo "process $pid is left: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
	done
}

# attack EXITS ID ARGS: one guest; it must end with one of EXITS, and cleanly.
attack()
{
	want=$1 id=$2
	shift 2
	mark="$$ $id $*;"
	timeout -k 5 $((seconds * 4 + 60)) env "KEEL_HOSTILE=$mark" "$keel" run --backend kvm --core none --timeout "$seconds" \
		--cmdline "test=$id $*" "$image" >"$tmp/out" 2>"$tmp/err" </dev/null
	code=$?
	what="$id $*: ended with $code"
	case " $want " in
	*" $code "*) ;;
	*)
		echo "$what, expected $want"
		head -n 5 "$tmp/err"
		return 1
		;;
	esac
	if ! grep -aq '^KT begin' "$tmp/out" || grep -a '^KT fail' "$tmp/out"; then
		echo "$what, and it did not get as far as meant"
		head -n 5 "$tmp/out"
		return 1
	fi
	if [ "$code" = 125 ]; then
		if [ "$(grep -ac '^keel: crash: .' "$tmp/err")" != 1 ] || ! grep -aq 'rip' "$tmp/err"; then
			echo "$what without one clear line and registers"
			head -n 8 "$tmp/err"
			return 1
		fi
		grep -a '^keel: crash: ' "$tmp/err" >>"$tmp/crashes"
	fi
	if grep -aE 'Sanitizer|runtime error|core dumped|Assertion|seal: forbidden' "$tmp/err"; then
		echo "$what"
		return 1
	fi
	rest=$(left "$mark")
	[ -z "$rest" ] || {
		echo "$what; $rest"
		return 1
	}
}

# attacks NAME EXITS ID HOWS: every way there is, with every seed
attacks()
{
	name=$1 exits=$2 id=$3 hows=$4
	failed=0 seed=1
	: >"$tmp/said"
	: >"$tmp/crashes"
	while [ "$seed" -le "$seeds" ]; do
		i=0
		while [ "$i" -lt "$hows" ]; do
			attack "$exits" "$id" "how=$i" "seed=$seed" >>"$tmp/said" 2>&1 || failed=1
			i=$((i + 1))
		done
		seed=$((seed + 1))
	done
	n=$((n + 1))
	sort "$tmp/crashes" | uniq -c | sort -rn | head -n 4 | sed 's/^/# /'
	if [ "$failed" = 0 ]; then
		echo "ok $n - $name"
	else
		echo "not ok $n - $name"
		head -n 30 "$tmp/said" | cut -c1-300 | sed 's/^/# /'
		bad=1
	fi
}

echo "KTAP version 1"
echo "1..20"
attacks "one that means no harm" 0 HOSTILE-100 1
attacks "writes over the monitor's text, its IDT and the ABI pages, write protection off" "0 124 125" HOSTILE-101 4
attacks "page tables over everything, and writes through them" "0 124 125" HOSTILE-102 4
attacks "the monitor's page tables rewritten" "0 124 125" HOSTILE-103 4
attacks "a bad CR3" "0 124 125" HOSTILE-104 10
attacks "a triple fault" 125 HOSTILE-105 3
attacks "spins with interrupts off" 124 HOSTILE-106 3
attacks "a flood of doorbells" 0 HOSTILE-107 1
attacks "remote calls with anything in their slot" "0 124 125" HOSTILE-108 1
attacks "I/O on random ports" "0 124 125" HOSTILE-109 1
attacks "accesses of every kind where there is no memory" "0 124 125" HOSTILE-110 1
attacks "MSRs, read and written" "0 124 125" HOSTILE-111 1
attacks "jumps into the middle of the monitor" "0 124 125" HOSTILE-112 4
attacks "control registers" "0 124 125" HOSTILE-113 8
attacks "descriptor tables, CPL 3 and system calls from there" "0 124 125" HOSTILE-114 6
attacks "interrupts to itself: INIT, NMI, SMI, start-up" "0 124 125" HOSTILE-115 8
attacks "garbage in all the monitor knows" "0 124 125" HOSTILE-116 1
attacks "instructions KVM has to emulate or refuse" "0 124 125" HOSTILE-117 1
attacks "floods of what is dear" 0 HOSTILE-118 1
attacks "no stack, no GS, an interrupt stack that is something else" "0 124 125" HOSTILE-119 3
exit "$bad"
