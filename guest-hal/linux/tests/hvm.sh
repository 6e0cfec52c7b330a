#!/bin/sh
# SPDX-License-Identifier: MIT
#
# hvm.sh KEEL VMLINUZ INITRD DISK SUMS	Debian's stock kernel in an HVM partition, with the modules, told in KTAP
#
# The checks are functions handed to check, which shellcheck cannot see:
# shellcheck disable=SC2317
set -u
keel=$1 image=$2 initrd=$3 disk=$4 sums=$5
PORT=8099 FORWARDED=8098
# The modules are taken out and in so many times.
rounds=${ROUNDS:-5} seconds=$((200 + ${ROUNDS:-5} * 6))
out=$(mktemp -d "${TMPDIR:-/tmp}/keel-hvm.XXXXXX") || exit 2
trap 'rm -rf "$out"' EXIT
trap 'exit 130' HUP INT TERM
# shellcheck source=guest-hal/linux/tests/ktap.sh
. "$(dirname "$0")/ktap.sh"

# run WORDS OPTION...
run()
{
	words=$1
	shift
	timeout -k 5 $((seconds + 20)) "$keel" run --hvm "$image" --initrd "$initrd" --mem 256M --timeout "$seconds" --core none --cmdline "console=ttyS0 quiet $words" \
		"$@"
}

# The guest's other side: one who types when asked to.
types()
{
	until grep -q 'through hvc0' "$out/log"; do
		sleep 0.5
	done
	echo "typed at the host"
	exec sleep 800
}

# One who asks the guest's server when there is one, through a forwarded port; the guest is told by a file of ours.
asks()
{
	until grep -q '# serving' "$out/log"; do
		sleep 0.5
	done
	busybox wget -O "$out/answer" "http://127.0.0.1:$FORWARDED/sums" && cmp "$out/answer" "$sums" && echo yes >"$out/www/answered"
	exec sleep 800
}

devices()
{
	mkdir "$out/www" && cp "$sums" "$out/www/sums"
	busybox httpd -f -p 127.0.0.1:$PORT -h "$out/www" &
	server=$!
	: >"$out/log"
	mkfifo "$out/keys"
	types >"$out/keys" &
	typist=$!
	asks >"$out/asked" 2>&1 &
	client=$!
	run "run=devices ROUNDS=$rounds PORT=$PORT SECTORS=$(($(wc -c <"$disk") / 512))" --disk "file=$disk" --rng --net "user,hostfwd=tcp:127.0.0.1:$FORWARDED-:80" \
		--console "file=$out/console" <"$out/keys" >"$out/log" 2>"$out/err"
	status=$?
	kill $server $typist $client
	seq 2000 | sed 's/$/\r/' >"$out/expected"
	tr -d '\r' <"$out/log" | sed 's/^/    /; s/xxxx*/x.../'
	echo "# exit status $status"
	sed 's/^/# /' "$out/err" "$out/asked"
	planned=$(tr -d '\r' <"$out/log" | sed -n 's/^1\.\.//p')
	[ "$status" = 0 ] && [ "$(tr -d '\r' <"$out/log" | grep -c '^ok ')" = "${planned:-none}" ] && [ "$(tr -cd x <"$out/log" | wc -c)" -ge 20000 ] &&
		grep -q '# hvc0 again' "$out/log" && cmp "$out/expected" "$out/console"
}

panic()
{
	run run=panic </dev/null >"$out/log" 2>"$out/err"
	status=$?
	cat "$out/log" "$out/err"
	echo "exit status $status"
	[ "$status" = 125 ] && grep -q 'sysrq triggered crash' "$out/err"
}

echo "KTAP version 1"
echo "1..2"
n=1
if devices; then
	echo "ok 1 devices"
else
	echo "not ok 1 devices"
	failed=1
fi
check "a panic is a crash with the kernel's message" panic
exit $failed
