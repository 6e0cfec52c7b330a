#!/bin/sh
# SPDX-License-Identifier: MIT
#
# hostile.sh - the stage `hostile`, sourced by stages.sh: guests that mean harm,
# and K looked at from outside. Knows keel and its ring3 backend: this is about
# one host's walls, not about the ABI.
: "${out:?}" "${tmp:?}" "${rounds:?}"
hostile_flags=
hostile_image=hostile

# hostile_guest EXITS ID ARGS - run one; it must end with one of EXITS, let nothing through, say one line first.
hostile_guest()
{
	want=$1 id=$2
	shift 2
	# shellcheck disable=SC2086 # several words
	timeout -k 5 60 "$KEEL" run --backend ring3 --core none $hostile_flags --cmdline "test=$id $*" \
		"$out/conformance/$hostile_image.elf" >"$tmp/out" 2>"$tmp/err" </dev/null
	code=$?
	case " $want " in
	*" $code "*) ;;
	*)
		echo "$id $*: ended with $code, expected $want"
		head -n 3 "$tmp/err"
		return 1
		;;
	esac
	if grep -a '^KT fail' "$tmp/out"; then
		echo "$id $*: something got through"
		return 1
	fi
	if [ "$code" = 125 ] && { ! head -n 1 "$tmp/err" | grep -q '^keel: crash: .' || [ "$(grep -c '^keel: crash: ' "$tmp/err")" != 1 ]; }; then
		echo "$id $*: no clear line"
		head -n 5 "$tmp/err"
		return 1
	fi
	if grep -aE 'Sanitizer|runtime error|core dumped|Assertion' "$tmp/err"; then
		return 1
	fi
}

number()
{
	hostile_guest 0 "$1" >&2
	sed -n "s/^KT note $2 //p" "$tmp/out"
}

every_number()
{
	id=$1 step=$2 nr=0 failed=0
	while [ "$nr" -lt 475 ]; do
		# sched_yield has no argument that could be wrong: permitted. uprobe and uretprobe the kernel answers before
		# it asks any filter, with an error or a signal: they do nothing outside its own trampolines.
		case "$id $nr" in
		"HOSTILE-001 24" | "HOSTILE-001 335" | "HOSTILE-001 336") ;;
		*) hostile_guest "0 125" "$id" "nr=$nr" || failed=1 ;;
		esac
		nr=$((nr + step))
	done
	return "$failed"
}

# The one call that is permitted with any register is heard of: the others would be as well.
noticed()
{
	hostile_guest "0 125" HOSTILE-001 nr=24 >/dev/null
	[ $? = 1 ] && grep -q '^KT fail .*syscall 24 came back' "$tmp/out"
}

far_return()
{
	failed=0
	for how in 0 1 2; do
		for nr in 1 3 4 5 11 20 90 120 125 162 192 240; do
			hostile_guest "0 125" HOSTILE-004 "nr=$nr how=$how" || failed=1
		done
	done
	return "$failed"
}

# Numbers no kernel has. One by int 0x80 goes by the architecture, or is a trap of the guest's where the kernel has no such calls.
odd_numbers()
{
	failed=0
	for nr in 512 547 1023 4095 65535 1073741823 2147483648 4294967295 18446744073709551615; do
		hostile_guest 125 HOSTILE-001 "nr=$nr" || failed=1
		hostile_guest "0 125" HOSTILE-002 "nr=$nr" || failed=1
	done
	return "$failed"
}

x32_numbers()
{
	failed=0
	for nr in 0 1 9 10 11 13 15 24 39 56 59 60 101 202 231 512 520 547; do
		hostile_guest 125 HOSTILE-005 "nr=$nr" || failed=1
	done
	return "$failed"
}

vsyscalls()
{
	failed=0
	for nr in 0 1 2 3; do
		hostile_guest "0 125" HOSTILE-006 "nr=$nr" || failed=1
	done
	return "$failed"
}

attacks()
{
	count=$(number HOSTILE-000 attacks) i=0 failed=0
	[ "${count:-0}" -gt 100 ] || return 1
	while [ "$i" -lt "$count" ]; do
		hostile_guest "0 125" HOSTILE-007 "nr=$i" || failed=1
		i=$((i + 1))
	done
	return "$failed"
}

gadgets()
{
	count=$(number HOSTILE-008 gadgets) i=0 failed=0
	[ "${count:-0}" -gt 5 ] || { echo "${count:-0} system call instructions found"; return 1; }
	while [ "$i" -lt "$count" ]; do
		for how in 0 1 2 3 4 5; do
			hostile_guest 125 HOSTILE-009 "nr=$i how=$how" || failed=1
		done
		i=$((i + 1))
	done
	return "$failed"
}

scribbles()
{
	seed=1 failed=0
	while [ "$seed" -le "$1" ]; do
		hostile_flags="--timeout 5"
		hostile_guest "0 124 125" HOSTILE-016 "seed=$seed words=$((seed * 37 % 3000 + 20))" || failed=1
		hostile_guest "0 124 125" HOSTILE-017 "seed=$seed words=$((seed * 91 % 20000 + 20))" || failed=1
		hostile_flags=
		seed=$((seed + 1))
	done
	return "$failed"
}

spin_is_ended()
{
	hostile_flags="--timeout 1"
	hostile_guest 124 HOSTILE-018
	status=$?
	hostile_flags=
	return "$status"
}

# Bytes that are resident for the host at most, while ID runs.
host_memory()
{
	limit=$1
	shift
	"$KEEL" run --backend ring3 --core none --cmdline "test=$*" "$out/conformance/hostile.elf" >"$tmp/out" 2>"$tmp/err" </dev/null &
	pid=$!
	peak=0
	while kill -0 "$pid" 2>/dev/null; do
		now=$(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status" 2>/dev/null)
		[ "${now:-0}" -le "$peak" ] || peak=$now
		sleep 0.05
	done
	wait "$pid"
	code=$?
	echo "ended with $code, host memory of its own at most $peak kB"
	[ "$code" = 0 ] && [ "$peak" -le "$limit" ]
}

# Everything below PID, itself left out, by one look at all processes.
below()
{
	cat /proc/[0-9]*/stat 2>/dev/null | sed 's/^\([0-9]*\) (.*) . \([0-9]*\) .*/\1 \2/' | awk -v top="$1" '
		{ parent[$1] = $2 }
		END {
			for (p in parent)
				for (q = parent[p]; q > 1; q = parent[q])
					if (q == top) { print p; break }
		}'
}

# Not dead, and not only waiting for whoever inherited it to take notice.
alive()
{
	grep -q '^State:[[:space:]]*[^ZX]' "/proc/$1/status" 2>/dev/null
}

has_gate()
{
	grep -q '^7f0100000000-' "/proc/$1/maps" 2>/dev/null
}

# K from outside, while it sleeps.
outside()
{
	failed=0
	"$KEEL" run --backend ring3 --core none --cmdline test=HOSTILE-019 "$out/conformance/hostile.elf" >"$tmp/out" 2>"$tmp/err" </dev/null &
	pid=$!
	tries=0
	while ! grep -q asleep "$tmp/out"; do
		tries=$((tries + 1))
		[ "$tries" -lt 100 ] || { echo "the guest does not get to sleep"; kill -9 "$pid"; return 1; }
		sleep 0.1
	done
	# K is the process with the gate in its map whose parent has none: its nursery is a fork of it.
	k=
	for p in $(below "$pid"); do
		has_gate "$p" && ! has_gate "$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$p/status")" && k=$p
	done
	if [ -z "$k" ]; then
		echo "no process below $pid looks like K"
		kill -9 "$pid"
		return 1
	fi
	# need NAME PATTERN: a line of its status.
	need()
	{
		grep -qE "^$1:[[:space:]]*$2\$" "/proc/$k/status" || {
			echo "$1 is not $2: $(grep "^$1:" "/proc/$k/status")"
			failed=1
		}
	}
	need Seccomp 2
	need NoNewPrivs 1
	need CapEff 0+
	need CapPrm 0+
	need CapBnd '[0-9a-f]+'
	need Threads 1
	# Its own PID namespace: the last of its numbers there is not the one outside.
	if [ "$(readlink "/proc/$k/ns/pid")" = "$(readlink "/proc/$pid/ns/pid")" ] && ! grep -q 'namespace' "$tmp/err"; then
		echo "K shares the host's PID namespace"
		failed=1
	fi
	for ns in mnt net ipc uts user; do
		[ "$(readlink "/proc/$k/ns/$ns")" != "$(readlink "/proc/$pid/ns/$ns")" ] || {
			echo "K shares the host's $ns namespace"
			[ "${KEEL_HOSTILE_WEAK:-0}" = 1 ] || failed=1
		}
	done
	# Descriptors: RAM, the ABI pages, the doorbell and what user code's mapper answers by, and nothing else.
	fds=$(find "/proc/$k/fd" -type l -printf '%f\n' | sort -n | paste -sd' ' -)
	[ "$fds" = "3 4 6 16" ] || {
		echo "descriptors of K are $fds, not 3 4 6 16"
		ls -l "/proc/$k/fd"
		failed=1
	}
	# Mappings: memfds only; no heap, stack, vdso, library or file of the host.
	if awk '$6 !~ /^\/memfd:keel-/ && $6 != "[vsyscall]"' "/proc/$k/maps" | grep .; then
		echo "K maps something of the host"
		failed=1
	fi
	if [ -n "$(ls -A "/proc/$k/root" 2>/dev/null)" ]; then
		echo "K's root directory is not empty: $(find "/proc/$k/root" -maxdepth 1 | head -n 5 | paste -sd' ' -)"
		failed=1
	fi
	if tr '\0' '\n' <"/proc/$k/environ" 2>/dev/null | grep .; then
		echo "K has the host's environment"
		failed=1
	fi
	kill -TERM "$pid"
	wait "$pid"
	sleep 0.2
	if alive "$k"; then
		echo "K outlives the host"
		failed=1
	fi
	return "$failed"
}

# The host killed: K goes with it.
host_killed()
{
	"$KEEL" run --backend ring3 --core none --cmdline test=HOSTILE-019 "$out/conformance/hostile.elf" >"$tmp/out" 2>"$tmp/err" </dev/null &
	pid=$!
	sleep 0.5
	left=$(below "$pid")
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null
	[ -n "$left" ] || { echo "no process below $pid"; return 1; }
	for p in $left; do
		tries=0
		while alive "$p" && [ "$tries" -lt 30 ]; do
			tries=$((tries + 1))
			sleep 0.1
		done
		if alive "$p"; then
			grep -E 'State|PPid|Name' "/proc/$p/status"
			echo "process $p outlives the host that was killed"
			return 1
		fi
	done
}

litter()
{
	find "$tmp" /dev/shm -maxdepth 1 -name '*keel*' 2>/dev/null | sort
	# A memory cgroup is named after the process in it: left behind when that is gone.
	find /sys/fs/cgroup -maxdepth 4 -name 'keel.*' 2>/dev/null | while read -r dir; do
		[ -d "/proc/${dir##*.}" ] || echo "$dir"
	done | sort
}

# Many ends of every kind leave nothing behind; that no process stays is what .ci/stage looks for.
leaks()
{
	litter >"$tmp/before"
	i=0 failed=0
	while [ "$i" -lt "$rounds" ]; do
		case $((i % 5)) in
		0) hostile_guest 125 HOSTILE-001 nr=39 ;;
		1) hostile_guest "0 125" HOSTILE-002 nr=20 ;;
		2) hostile_guest 0 HOSTILE-000 ;;
		3) hostile_guest "0 125" HOSTILE-020 ;;
		4)
			hostile_flags="--timeout 5"
			hostile_guest "0 124 125" HOSTILE-016 "seed=$i words=100"
			status=$?
			hostile_flags=
			[ "$status" = 0 ]
			;;
		esac || failed=1
		i=$((i + 1))
	done
	litter >"$tmp/after"
	diff "$tmp/before" "$tmp/after" || failed=1
	return "$failed"
}

# Guest user code that means harm: its kernel says at the end that nothing else was harmed.
user_guest()
{
	hostile_image=hostile-user
	hostile_guest 0 "$@"
	status=$?
	hostile_image=hostile
	[ "$status" = 0 ] || return 1
	grep -a '^KT note' "$tmp/out" | sed 's/^KT note/#/' >&2
	grep -qax 'KT pass' "$tmp/out" || { tail -n 3 "$tmp/out"; return 1; }
}

# The same with so many vCPUs: its threads write over what the others use.
user_threads()
{
	hostile_flags="--vcpus 3"
	user_guest HOSTILE-105 "$@"
	status=$?
	hostile_flags=
	return "$status"
}

# seen PID: descriptors, files mapped and kinds of processes of a running host. Memory of its own comes and goes.
seen()
{
	find "/proc/$1/fd" -type l -printf '%f %l\n' | sort -n
	awk '$6 != "" { print $2, $6 }' "/proc/$1/maps" | sort
	for p in $(below "$1"); do
		cat "/proc/$p/comm"
	done | sort -u
}

# The host from outside, before and after all that user code can do.
user_outside()
{
	"$KEEL" run --backend ring3 --core none --cmdline test=HOSTILE-110 "$out/conformance/hostile-user.elf" >"$tmp/out" 2>"$tmp/err" </dev/null &
	pid=$!
	for when in before after; do
		tries=0
		while ! grep -qax "KT note $when" "$tmp/out"; do
			tries=$((tries + 1))
			[ "$tries" -lt 600 ] && kill -0 "$pid" 2>/dev/null || {
				echo "the guest does not come to '$when'"
				tail -n 3 "$tmp/out" "$tmp/err"
				kill -9 "$pid" 2>/dev/null
				return 1
			}
			sleep 0.1
		done
		seen "$pid" >"$tmp/$when"
	done
	wait "$pid"
	code=$?
	[ "$code" = 0 ] && grep -qax 'KT pass' "$tmp/out" && [ -s "$tmp/before" ] && diff "$tmp/before" "$tmp/after" || {
		echo "ended with $code"
		grep -a '^KT fail' "$tmp/out"
		return 1
	}
}

hostile()
{
	step=8
	[ "$rounds" -lt 1000 ] || step=1
	echo "KTAP version 1"
	echo "1..30"
	gate "K from outside: sealed, alone, with three descriptors" outside
	gate "K ends when its host is killed" host_killed
	gate "a call that is permitted would be noticed" noticed
	gate "every number by syscall ends the partition" every_number HOSTILE-001 1
	gate "numbers by int 0x80 end it" every_number HOSTILE-002 "$step"
	gate "numbers no kernel has end it" odd_numbers
	gate "sysenter ends it or is #UD" sysenters
	gate "32-bit code by far return ends it" far_return
	gate "x32 numbers end it" x32_numbers
	gate "vsyscall is a fault or ends it" vsyscalls
	gate "permitted calls with other arguments, and the classics, end it" attacks
	gate "so do jumps to the host's own system call instructions" gadgets
	gate "a call without a stack" hostile_guest "0 125" HOSTILE-020
	gate "page-table bomb" hostile_guest "0 125" HOSTILE-010
	gate "mapping bomb" hostile_guest "0 125" HOSTILE-011
	gate "all memory, released and touched again" host_memory 20000 HOSTILE-012
	gate "event flood: the host's memory stays flat" host_memory 20000 HOSTILE-013
	gate "console flood: the host's memory stays flat" host_memory 20000 HOSTILE-014
	gate "console ring flood" hostile_guest 0 HOSTILE-015
	gate "garbage in what the monitor shares with the host" scribbles "$((rounds / 5))"
	gate "user code: every attack is its kernel's system call" user_guest HOSTILE-101
	gate "user code: jumps to the host's system call instructions" user_guest HOSTILE-102
	gate "user code: jumps anywhere in the host's window" user_guest HOSTILE-103 "rounds=$((rounds * 20))"
	gate "user code: garbage over what it can write there" user_guest HOSTILE-104 "rounds=$((rounds * 8))"
	gate "user code: garbage over the frames of its other threads" user_threads "rounds=$((rounds * 8))"
	gate "user code: it cannot put off its preemption" user_guest HOSTILE-106 "rounds=$rounds"
	gate "user code: many spaces whose way of running it destroyed" user_guest HOSTILE-107 "rounds=$((rounds / 5))"
	gate "user code: it cannot go on after it stopped" user_guest HOSTILE-108 "rounds=$rounds"
	gate "user code: the host from outside, before and after" user_outside
	gate "a guest that spins ends in time, and nothing is left after $rounds runs" spins_and_leaks
}

sysenters()
{
	failed=0
	for nr in 1 4 11 20 120 125; do
		hostile_guest "0 125" HOSTILE-003 "nr=$nr" || failed=1
	done
	return "$failed"
}

spins_and_leaks()
{
	spin_is_ended && leaks
}
