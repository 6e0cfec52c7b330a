#!/bin/sh
# SPDX-License-Identifier: MIT
#
# devices.sh OUT KEEL VMLINUX ROOT	Linux and its devices, on ring3, told in KTAP. ROOT has the tests in it
#
# The guest tells its own part; what it cannot know is looked at here: whether a disk is what it should be, and
# what came through a network or a console. The checks are functions handed to check, which shellcheck cannot see:
# shellcheck disable=SC2317
set -u
export PATH="$PATH:/usr/sbin:/sbin"

out=$1 keel=$2 image=$3 root=$(realpath "$4")
# shellcheck source=guest-hal/linux/tests/ktap.sh
. "$(dirname "$0")/ktap.sh"
needs "$keel" "$image" "$root" -- mke2fs e2fsck debugfs busybox cpio gzip flock
begin

# run CMDLINE OPTION...
run()
{
	cmdline=$1
	shift
	timeout -k 5 60 "$keel" run --backend ring3 --timeout 50 --core none "$image" --cmdline "quiet $cmdline" "$@"
}

# guest NAME WHAT OPTION...: WHAT of tests/devices, which tells KTAP; the run is left in $out/WHAT.log and .err
guest()
{
	name=$1 what=$2
	shift 2
	n=$((n + 1))
	run "DO=$what keel.run=/test/devices $WORDS" "$@" </dev/null >"$out/$what.raw" 2>"$out/$what.err"
	status=$?
	tr -d '\r' <"$out/$what.raw" >"$out/$what.log"
	sed 's/^/    /' "$out/$what.log"
	planned=$(sed -n 's/^1\.\.//p' "$out/$what.log")
	if [ "$status" = 0 ] && [ "$(grep -c '^ok ' "$out/$what.log")" = "${planned:-none}" ]; then
		echo "ok $n $name"
	else
		echo "# exit status $status"
		sed 's/^/# /' "$out/$what.err"
		echo "not ok $n $name"
		failed=1
	fi
}

# disk FILE MIB DIRECTORY: an ext4 file system with the directory's files
disk()
{
	rm -f "$1"
	truncate -s "$2M" "$1" && mke2fs -q -t ext4 -E root_owner=0:0 -d "$3" "$1"
}

sum()
{
	sha256sum "$@" | cut -d ' ' -f 1
}

sectors()
{
	echo $(($(wc -c <"$1") / 512))
}

prepare()
{
	mkdir "$out/files" || return 1
	i=0
	while [ "$i" -lt 30 ]; do
		head -c $((i * 4001)) /dev/urandom >"$out/files/file$i"
		i=$((i + 1))
	done
	(cd "$out/files" && sha256sum file* >sums) && disk "$out/a.img" 64 "$out/files" && disk "$out/ro.img" 8 "$out/files" &&
		head -c 20000000 /dev/zero >"$out/b.img" && sum "$out/ro.img" >"$out/ro.sum"
}

# As another implementation of ext4 sees them.
intact()
{
	e2fsck -fn "$out/a.img" && debugfs -R 'cat /copy' "$out/a.img" 2>/dev/null | sha256sum >"$out/copy.sum" &&
		debugfs -R 'ls -l /written' "$out/a.img" && [ "$(debugfs -R 'cat /file29' "$out/a.img" 2>/dev/null | sha256sum)" = "$(sha256sum <"$out/files/file29")" ]
}

untouched()
{
	[ "$(sum "$out/ro.img")" = "$(cat "$out/ro.sum")" ]
}

# One that is open for writing has no room for a second partition.
one_at_a_time()
{
	run "DO=nothing" --initrd "$root" --disk "file=$out/a.img" --disk "file=$out/a.img" </dev/null
	[ $? = 126 ]
}

# released FILE: nobody has it open; what an io_uring held is let go of a moment after its process has ended
released()
{
	flock -w 5 "$1" true
}

# keel dies as a machine does whose power is cut.
power_cut()
{
	released "$out/a.img" || return 1
	"$keel" run --backend ring3 --timeout 50 --core none "$image" --initrd "$root" --disk "file=$out/a.img" \
		--cmdline "quiet DO=power_cut keel.run=/test/devices" </dev/null >"$out/cut.log" 2>&1 &
	pid=$!
	pids="$pids $pid"
	await "$out/cut.log" '^kept [0-9a-f]' || return 1
	sleep 0.5
	kill -9 "$pid"
	wait "$pid"
	released "$out/a.img" || return 1
	kept=$(tr -d '\r' <"$out/cut.log" | sed -n 's/^kept //p')
	e2fsck -fy "$out/a.img"
	e2fsck -fn "$out/a.img" && [ "$(debugfs -R 'cat /kept' "$out/a.img" 2>/dev/null | sum)" = "$kept" ]
}

root_disk()
{
	mkdir "$out/root" && (cd "$out/root" && gzip -dc "$root" | cpio -id --quiet) && disk "$out/root.img" 32 "$out/root"
}

# The file that the guest wrote into its root.
in_root()
{
	e2fsck -fn "$out/root.img" && [ "$(debugfs -R 'cat /etc/here' "$out/root.img" 2>/dev/null | wc -c)" = 102400 ]
}

# free_port: one on which nobody listens, to be tried
free_port()
{
	port=$((20000 + ($$ * 7 + $1 * 131) % 30000))
	while busybox nc -w 1 127.0.0.1 $port </dev/null >/dev/null 2>&1; do
		port=$((port + 1))
	done
	echo $port
}

# What the guest's server has, while it waits for the word: several at once, each whole.
fetch()
{
	await "$out/net.raw" '^serving' || return 1
	for i in 1 2 3; do
		timeout 20 busybox wget -q -O "$out/fetched$i" "http://127.0.0.1:$web/big" &
	done
	timeout 20 busybox wget -q -O "$out/fetched0" "http://127.0.0.1:$web/big"
	sleep 1
	echo over | timeout 5 busybox nc 127.0.0.1 "$word"
	for i in 0 1 2 3; do
		cmp "$out/fetched$i" "$out/www/big" || return 1
	done
}

network()
{
	serve=$(free_port 1) web=$(free_port 2) word=$(free_port 3)
	mkdir "$out/www"
	head -c 4000000 /dev/urandom >"$out/www/big"
	sum "$out/www/big" >"$out/www/sum"
	busybox httpd -f -p "127.0.0.1:$serve" -h "$out/www" &
	pids="$pids $!"
	fetch >"$out/fetch.log" 2>&1 &
	fetcher=$!
	pids="$pids $fetcher"
	WORDS="PORT=$serve"
	guest "a network card" net --initrd "$root" --net "user,hostfwd=tcp:127.0.0.1:$web-:80,hostfwd=tcp:127.0.0.1:$word-:81"
	wait "$fetcher"
	fetched=$?
	check "what the guest's server has is fetched through a forwarded port" shows "$fetched" "$out/fetch.log"
}

# shows STATUS FILE
shows()
{
	cat "$2"
	return "$1"
}

console_file()
{
	seq 3000 | sed 's/$/\r/' >"$out/expected"
	cmp "$out/expected" "$out/console"
}

# Both ways: the guest's shell is on the second console, which is a terminal of the host's.
console_terminal()
{
	run "keel.run=/test/terminal" --initrd "$root" --console pty </dev/null >"$out/terminal.log" 2>&1 &
	pid=$!
	pids="$pids $pid"
	await "$out/terminal.log" '^ready' || return 1
	terminal=$(sed -n 's/^keel: console .* is \(\/dev\/pts\/[0-9]*\).*/\1/p' "$out/terminal.log")
	exec 4<>"$terminal" || return 1
	echo "expr 6 '*' 7; exit" >&4
	timeout 20 sed '/^42/q' <&4
	found=$?
	exec 4>&-
	wait "$pid"
	status=$?
	cat "$out/terminal.log"
	echo "exit status $status"
	[ "$found" = 0 ] && [ "$status" = 0 ]
}

echo "KTAP version 1"
echo "1..14"
check "file systems are made" prepare
WORDS="SECTORS=$(sectors "$out/a.img"),$(sectors "$out/b.img"),$(sectors "$out/ro.img")"
guest "disks" disks --initrd "$root" --disk "file=$out/a.img" --disk "file=$out/b.img" --disk "file=$out/ro.img,ro" --rng
check "the file system is intact" intact
check "the read-only disk is as it was" untouched
check "a disk is one partition's" one_at_a_time
check "what was synced is there after the power was cut" power_cut
check "a root file system is made" root_disk
WORDS="root=/dev/vda rw init=/init"
guest "a root on a disk, without an initramfs" root --disk "file=$out/root.img"
check "what was written to the root is there" in_root
network
WORDS=
guest "consoles" consoles --initrd "$root" --console "file=$out/console"
check "what came to the second console" console_file
check "a shell on a terminal of its own" console_terminal
exit $failed
