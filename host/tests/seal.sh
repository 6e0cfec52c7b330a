#!/bin/sh
# SPDX-License-Identifier: MIT
#
# A sealed host from outside: what each of its threads is left with when its guest
# speaks for the first time, and that all it has to do later still works. KTAP on
# stdout. For dash and busybox: it also runs on the test host.
#
# usage: seal.sh KEEL GUEST DIR [BACKEND...]
#
# SEAL in the environment is the program seal, for what it can arrange.

keel=$1 guest=$2 dir=$3
case $keel in /*) ;; *) keel=$PWD/$keel ;; esac
case ${SEAL-} in /* | "") ;; *) SEAL=$PWD/$SEAL ;; esac
case $guest in /*) ;; *) guest=$PWD/$guest ;; esac
shift 3
[ $# -gt 0 ] || set -- ring3 kvm
mkdir -p "$dir" && cd "$dir" || exit 2

number=0 failed=0

# result STATUS NAME
result() {
	number=$((number + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $number $2"
	else
		failed=1
		sed 's/^/# /' out err 2>/dev/null
		echo "not ok $number $2"
	fi
}

run() {
	mode=$1
	shift
	"$keel" run --backend "$backend" --cmdline "$mode" "$@" "$guest" >out 2>err </dev/null
}

# begin MODE: the same in the background, as $host
begin() {
	rm -f out err # of the run before: a file that was not made yet says nothing
	"$keel" run --backend "$backend" --cmdline "$1" "$guest" >out 2>err </dev/null &
	host=$!
}

# finish SIGNAL: its exit status in $ended
finish() {
	kill -"$1" $host
	wait $host 2>/dev/null
	ended=$?
}

# until_said TEXT COUNT: half a minute at most
until_said() {
	tries=0
	until [ "$(grep -c "^$1" out 2>/dev/null)" -ge "$2" ] 2>/dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 300 ] || return 1
		sleep 0.1
	done
}

until_gone() {
	tries=0
	while kill -0 "$1" 2>/dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 300 ] || return 1
		sleep 0.1
	done
}

# The value of a line of a status file.
field() {
	sed -n "s/^$2:[[:space:]]*//p" "$1"
}

# thread STATUS_FILE: nothing is left to it
thread() {
	for cap in CapInh CapPrm CapEff CapAmb; do
		[ "$(field "$1" $cap)" = 0000000000000000 ] || { echo "# $1: $cap $(field "$1" $cap)"; return 1; }
	done
	# Who was not root keeps a bounding set that no_new_privs makes useless.
	[ "$(id -u)" -ne 0 ] || [ "$(field "$1" CapBnd)" = 0000000000000000 ] || { echo "# $1: CapBnd"; return 1; }
	[ "$(field "$1" NoNewPrivs)" = 1 ] || { echo "# $1: no_new_privs is off"; return 1; }
	[ "$(field "$1" Seccomp)" = 2 ] || { echo "# $1: no filter"; return 1; }
}

# Every thread of the host; the vCPU's, where there is one, is behind two filters.
threads() {
	seen=0 twice=0
	for task in /proc/"$1"/task/*; do
		thread "$task/status" || return 1
		seen=$((seen + 1))
		[ "$(field "$task/status" Seccomp_filters)" != 2 ] || twice=$((twice + 1))
	done
	case $backend in
	kvm) [ $seen -ge 2 ] && [ $twice -eq 1 ] ;;
	*) [ $seen -ge 3 ] && [ $twice -eq 0 ] && guest_process "$1" ;;
	esac || { echo "# $seen threads, $twice with a second filter"; return 1; }
}

# children_of PID: where one is expected, one
children_of() {
	tr -d ' ' <"/proc/$1/task/$1/children"
}

# The guest's own process, ring3's: behind the filter it was born with and the one that is its wall.
guest_process() {
	keeper=$(children_of "$1")
	k=$(children_of "$keeper")
	[ -n "$k" ] || { echo "# no guest process"; return 1; }
	[ "$(field "/proc/$k/status" Seccomp_filters)" = 2 ] && thread "/proc/$k/status"
}

each_thread() {
	begin idle
	children=
	if until_said idle 1; then
		threads $host
		result $? "$backend: every thread is sealed when the guest speaks"
		children=$(cat /proc/$host/task/$host/children)
	else
		result 1 "$backend: every thread is sealed when the guest speaks"
	fi
	# As a service is stopped: all of its processes are told, and only the host shall mind.
	for child in $children; do
		kill -TERM "$child"
	done
	finish TERM
	bad=0
	if [ $ended -ne 143 ] || [ -z "$children" ] || grep -q "crash" err; then
		echo "# status $ended, keeper \"$children\""
		bad=1
	fi
	for child in $children; do
		until_gone "$child" || bad=1
	done
	result $bad "$backend: SIGTERM ends it, and the keeper with it"
}

# A host that is killed leaves nobody behind either.
killed() {
	begin idle
	until_said idle 1
	bad=$?
	children=$(cat /proc/$host/task/$host/children)
	for child in $children; do
		children="$children $(cat "/proc/$child/task/$child/children")"
	done
	finish KILL
	[ $ended -eq 137 ] || bad=1
	for child in $children; do
		until_gone "$child" || bad=1
	done
	result $bad "$backend: a killed host takes the keeper and its guest along"
}

crash() {
	core=$(basename "$guest").core
	rm -f "$core" none
	run fault
	code=$?
	[ $code -eq 125 ] && grep -q "^keel: crash: .*0x123450000" err && grep -q "do_fault" err &&
		grep -q "^keel: next: gdb" err && [ "$(dd if="$core" bs=1 skip=1 count=3 2>/dev/null)" = ELF ]
	result $? "$backend: a crash leaves report and core"
	rm -f "$core"
	# In a directory that is another user's, as with sudo: root writes there, the sealed host could not.
	mkdir -p other
	[ "$(id -u)" -ne 0 ] || chown 65534 other
	run fault --core other/core
	code=$?
	run fault --core none
	[ $? -eq 125 ] && [ $code -eq 125 ] && [ -s other/core ] && ! [ -e "$core" ] && ! [ -e none ]
	result $? "$backend: --core names the file"
	rm -rf other
}

stats() {
	run lines --stats && grep -q "^keel: console_write  *[1-9]" err && grep -q "^$backend\\." err
	result $? "$backend: --stats"
}

# Lives of one process: memory, threads, machine or guest process made anew behind the seal.
restart() {
	begin restart
	until_said life 4
	bad=$?
	finish TERM
	[ $bad -eq 0 ] && [ $ended -eq 143 ] && ! grep -q "seal:" err
	result $? "$backend: restart"
}

# Who gave up CAP_KILL and has no namespace of his own below cannot signal another user: the keeper does.
wakes() {
	(sleep 1 && printf hello) | "$SEAL" --no-user-namespace "$keel" run --backend ring3 --cmdline "echo 5" "$guest" >out 2>err &&
		grep -q '^hello$' out && grep -q "refused: .*user namespace" err
	result $? "ring3: input wakes a guest that is another user's process"
}

required() {
	run "exit 7" --require-sandbox --verbose
	code=$?
	if grep -q "layers this machine refused" err; then
		[ $code -eq 127 ]
	else
		[ $code -eq 7 ] && grep -q "^keel: seal: no new privileges" err
	fi
	result $? "$backend: --require-sandbox refuses what is not whole"
}

kvm_opens() {
	[ -c /dev/kvm ] && (: <>/dev/kvm) 2>/dev/null
}

tests=0
for backend; do
	if [ "$backend" = kvm ] && ! kvm_opens; then
		tests=$((tests + 1))
	else
		tests=$((tests + 8))
	fi
	[ "$backend" != ring3 ] || [ -z "${SEAL-}" ] || tests=$((tests + 1))
done
echo "KTAP version 1"
echo "1..$tests"
for backend; do
	if [ "$backend" = kvm ] && ! kvm_opens; then
		number=$((number + 1))
		echo "ok $number kvm: a sealed host of a virtual machine # SKIP no /dev/kvm to open"
		continue
	fi
	each_thread
	killed
	crash
	stats
	restart
	[ "$backend" != ring3 ] || [ -z "${SEAL-}" ] || wakes
	required
done
cd / && rm -rf "$dir"
exit $failed
