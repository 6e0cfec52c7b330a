#!/bin/sh
# SPDX-License-Identifier: MIT
#
# test-linux.sh OUT KEEL VMLINUX ROOT	Linux boots and behaves, on ring3, told in KTAP. ROOT has the tests in it
# O in the environment is the build directory, for looking at the port's sources.
# The checks are functions handed to check, which shellcheck cannot see:
# shellcheck disable=SC2317
set -u

out=$1 keel=$2 image=$3 root=$4
here=$(dirname "$0")
# shellcheck source=guest-hal/linux/tests/ktap.sh
. "$here/tests/ktap.sh"
needs "$keel" "$image" "$root" -- strace script objdump readelf
begin

# run CMDLINE OPTION...: boots with the shell's standard input
run()
{
	cmdline=$1
	shift
	timeout -k 5 120 "$keel" run --backend ring3 --timeout 100 --core none "$image" --initrd "$root" --cmdline "$cmdline" "$@"
}

# As the kernel's own make compiles each file.
sparse()
{
	"$here/build.sh" "$O" sparse
}

# Instructions that enter another kernel: none in the code that runs as this one. .syscall_stub is arch/um's, for
# processes of another host, and never mapped; the vDSO, for user code, is data here.
no_system_calls()
{
	objdump -d "$image" | awk '
	/^Disassembly of section/ { section = $4; sections++ }
	/\t(syscall|sysenter|int +\$0x80)/ {
		if (section == ".syscall_stub:")
			stub++
		else {
			print section, $0
			bad++
		}
	}
	END {
		print sections + 0, "sections,", stub + 0, "in .syscall_stub"
		exit bad || sections < 2 || !stub
	}'
}

# A segment that can be written is never executed, and each lies in RAM where its address says.
segments()
{
	readelf -lW "$image" | awk '
	$1 == "LOAD" {
		flags = ""
		for (i = 7; i < NF; i++)
			flags = flags $i
		n++
		if (flags ~ /W/ && flags ~ /E/)
			bad++
		if (n == 1 && $4 !~ /^0x0+$/)
			bad++
		print $3, $4, flags
	}
	END { exit bad || n < 2 }'
}

stats()
{
	cat "$out/boot.err"
	awk '$2 == "mmu_batch" { calls = $3; errors = $4; work = $5 } $2 == "as_create" { spaces = $3 } $2 == "as_destroy" { gone = $3 }
	END { exit !(calls > 0 && !errors && work > calls && spaces > 50 && spaces == gone) }' "$out/boot.err"
}

# Commands come in by a pipe; the guest's terminal is hvc0, where they have a shell with job control. It takes a
# while until the new process heeds SIGTERM: ash ignores it, and so does its child at first, anywhere.
jobs_by_pipe()
{
	printf '%s\n' 'tty' 'sleep 1000 &' 'sleep 1' 'jobs' 'kill %1' 'wait' 'echo one-$((1 + 1))' 'exit' | run quiet >"$out/jobs.log" 2>&1
	status=$?
	cat "$out/jobs.log"
	[ "$status" = 0 ] && grep -q '^/dev/hvc0' "$out/jobs.log" && grep -q 'Running.*sleep 1000' "$out/jobs.log" &&
		grep -q 'Terminated.*sleep 1000' "$out/jobs.log" && grep -q '^one-2' "$out/jobs.log" &&
		! grep -q "can't access tty" "$out/jobs.log"
}

# type TEXT: as if at the keyboard
type()
{
	printf %b "$1" >&3
}

# The same on a terminal of 33 rows: keys that are signals, and the window's size.
jobs_by_terminal()
{
	log=$out/terminal.log
	mkfifo "$out/keys" || return 1
	: >"$log"
	script -qefc "stty rows 33 cols 77; exec $keel run --backend ring3 --timeout 100 --core none $image --initrd $root --cmdline quiet" \
		"$out/typescript" <"$out/keys" >"$log" 2>&1 &
	pids="$pids $!"
	pid=$!
	exec 3>"$out/keys"
	await "$log" 'keel:' && type 'sleep 1000\r' && sleep 1 && type '\0032' && await "$log" 'Stopped.*sleep 1000' &&
		type 'echo size $(stty size)\r' && await "$log" '^size 33 77' &&
		type 'fg\r' && await "$log" 'fg' && sleep 1 && type '\0003' && type 'echo status-$?\r' && await "$log" '^status-130' &&
		type 'jobs; echo none-left\r' && await "$log" '^none-left' && type 'poweroff -f\r'
	result=$?
	[ "$result" = 0 ] || kill -9 "$pid"
	wait "$pid"
	status=$?
	exec 3>&-
	cat "$log"
	echo "exit status $status"
	[ "$result" = 0 ] && [ "$status" = 0 ]
}

# It boots again in the same host: with a run that always reboots, until three are seen.
restarts()
{
	"$keel" run --backend ring3 --timeout 100 --core none "$image" --initrd "$root" --cmdline "keel.run=/test/reboot" \
		</dev/null >"$out/restart.log" 2>&1 &
	pids="$pids $!"
	pid=$!
	await "$out/restart.log" 'Linux version 6\.1' 3
	result=$?
	kill "$pid"
	wait "$pid"
	[ "$result" = 0 ] && grep -q 'reboot: Restarting system' "$out/restart.log"
}

# panic PATTERN CMDLINE: a crash, and the kernel's own words for it in the host's report
panics()
{
	run "quiet $2" </dev/null >"$out/panic.log" 2>"$out/panic.err"
	status=$?
	cat "$out/panic.log" "$out/panic.err"
	echo "exit status $status"
	[ "$status" = 125 ] && grep -q "$1" "$out/panic.err"
}

# All processes of the host and its guest, followed from the first: threads were traced, and none called ptrace.
no_ptrace()
{
	timeout -k 5 200 strace -f -qq -e trace=ptrace,execve,exit_group -o "$out/strace.log" "$keel" run --backend ring3 --timeout 150 --core none \
		"$image" --initrd "$root" --cmdline "quiet keel.show" </dev/null >"$out/strace.out" 2>&1
	status=$?
	cat "$out/strace.out"
	tail -n 20 "$out/strace.log"
	echo "exit status $status"
	[ "$status" = 0 ] && grep -q 'execve(' "$out/strace.log" && ! grep -q 'ptrace(' "$out/strace.log" &&
		grep -q '^host.*Keel (ring3)' "$out/strace.out"
}

# family PID: it and all that came from it
family()
{
	echo "$1"
	cat /proc/"$1"/task/*/children 2>/dev/null | tr ' ' '\n' | while read -r child; do
		[ -z "$child" ] || family "$child"
	done
}

wakeups()
{
	for member in $(family "$1"); do
		cat /proc/"$member"/task/*/status 2>/dev/null
	done | awk '/^voluntary_ctxt_switches/ { s += $2 } END { print s + 0 }'
}

# Of 6 of the guest's 8 idle seconds. Each timer of its own is allowed a wake-up of the vCPU and one of its timer.
idles()
{
	run "quiet keel.run=/test/idle" </dev/null >"$out/idle.log" 2>&1 &
	pids="$pids $!"
	pid=$!
	await "$out/idle.log" '^idle' || return 1
	sleep 1
	before=$(wakeups "$pid")
	sleep 6
	after=$(wakeups "$pid")
	wait "$pid"
	timers=$(sed -n 's/^timers \([0-9]*\).*/\1/p' "$out/idle.log")
	cat "$out/idle.log"
	echo "$((after - before)) wake-ups in 6 s, ${timers:=none} timers of the guest"
	[ "$before" -gt 0 ] && [ "$timers" != none ] && [ $((after - before)) -le $((6 + 2 * timers)) ]
}

echo "KTAP version 1"
echo "1..12"
check "sparse finds nothing in the port" sparse
check "no system call in the kernel's code" no_system_calls
check "segments" segments

n=$((n + 1))
run "quiet BACKEND=ring3 keel.run=/test/boot" --stats </dev/null >"$out/boot.log" 2>"$out/boot.err"
status=$?
tr -d '\r' <"$out/boot.log" | sed 's/^/    /'
if [ "$status" = 0 ] && [ "$(tr -d '\r' <"$out/boot.log" | grep -c '^ok ')" = 12 ]; then
	echo "ok $n boots, runs processes and powers off with status 0"
else
	echo "# exit status $status"
	sed 's/^/# /' "$out/boot.err"
	echo "not ok $n boots, runs processes and powers off with status 0"
	failed=1
fi
check "statistics" stats
check "job control by a pipe" jobs_by_pipe
check "job control on a terminal" jobs_by_terminal
check "reboot boots again" restarts
check "a panic is a crash: no init" panics 'Unable to mount root fs' 'rdinit=/none'
check "a panic is a crash: init ends" panics 'Attempted to kill init!' 'rdinit=/bin/true'
check "no ptrace" no_ptrace
check "an idle guest sleeps" idles
exit $failed
