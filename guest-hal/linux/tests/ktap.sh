# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2034,SC2154 # out, pids and failed are the script's
#
# What tests of a Linux in a guest have in common. Sourced; $out is the script's directory, $pids are its processes
# that do not outlive it.
export LC_ALL=C
n=0
failed=0

bail()
{
	echo "Bail out! $*"
	exit 1
}

# needs FILE... -- TOOL...
needs()
{
	while [ "$1" != -- ]; do
		[ -r "$1" ] || bail "no $1"
		shift
	done
	shift
	for tool; do
		command -v "$tool" >/dev/null || bail "no $tool; it is in .ci/packages"
	done
}

# An empty $out, and an end to everything at the end.
begin()
{
	rm -rf "${out:?}"
	mkdir -p "$out" || exit 1
	pids=
	trap 'kill -9 $pids 2>/dev/null; wait; exit 1' HUP INT TERM
	trap 'kill -9 $pids 2>/dev/null' EXIT
}

# check NAME COMMAND...: what it prints is shown when it fails
check()
{
	name=$1
	shift
	n=$((n + 1))
	if "$@" >"$out/said" 2>&1; then
		echo "ok $n $name"
	else
		tail -n 60 "$out/said" | sed 's/^/# /'
		echo "not ok $n $name"
		failed=1
	fi
}

# await FILE PATTERN [TIMES]: until so many lines of it match
await()
{
	i=0
	while [ "$(grep -c -e "$2" "$1" 2>/dev/null)" -lt "${3:-1}" ]; do
		i=$((i + 1))
		[ "$i" -lt 600 ] || {
			echo "no '$2' in 60 s:"
			cat "$1"
			return 1
		}
		sleep 0.1
	done
}
