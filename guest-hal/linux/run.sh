#!/bin/sh
# SPDX-License-Identifier: MIT
#
# run.sh OUT MAKE [ARG...]: boot Linux on Keel, as "make run" does
#
# On a terminal to a shell; otherwise to say what it is, with keel's statistics. ARGs are more for keel run. Where
# there is no kernel yet, "MAKE linux" makes one, and the samples' tour is to be seen meanwhile.
set -u

out=${1:?usage: run.sh OUT MAKE [ARG...]} make=${2:?}
shift 2
keel=$out/keel image=$out/linux/vmlinux root=$out/linux/root.cpio.gz
tty=
[ ! -t 0 ] || [ ! -t 1 ] || tty=1

first_build()
{
	said=$out/linux/first.log
	mkdir -p "$out/linux"
	echo "Linux is built once, which takes minutes; until then, this is what the samples do."
	echo
	$make linux </dev/null >"$said" 2>&1 &
	pid=$!
	trap 'kill $pid 2>/dev/null; wait; exit 1' HUP INT TERM
	"$keel" run --cmdline tour "$out/samples/shell.elf" </dev/null
	echo
	shown=
	while kill -0 $pid 2>/dev/null; do
		now=$(tail -n 1 "$said")
		[ "$now" = "$shown" ] || if [ -n "$tty" ]; then printf '\r\033[K%s' "$now"; else echo "$now"; fi
		shown=$now
		sleep 1
	done
	[ -z "$tty" ] || printf '\r\033[K'
	wait $pid || {
		cat "$said" >&2
		exit 1
	}
	trap - HUP INT TERM
}

if [ -e "$image" ]; then
	$make linux || exit 1
else
	first_build
fi
if [ -n "$tty" ]; then
	set -- "$image" --initrd "$root" --cmdline "quiet TERM=${TERM:-vt100}" "$@"
	echo "$keel run $image --initrd $root --cmdline '$5'"
	exec "$keel" run "$@"
fi
echo "$keel run $image --initrd $root --cmdline 'quiet keel.show' --stats"
exec "$keel" run "$image" --initrd "$root" --cmdline "quiet keel.show" --stats "$@" </dev/null
