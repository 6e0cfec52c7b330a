# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2034,SC2154 # tmp and bad are the stage's
# KTAP lines of a stage. Sourced; $tmp is the stage's directory, n and bad are its counters.
n=0
bad=0

# result STATUS NAME - one line; what is in $tmp/said becomes diagnostics of a failure: of KTAP what failed, else how it begins.
result()
{
	n=$((n + 1))
	if [ "$1" = 0 ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		[ ! -s "$tmp/said" ] || { grep -B 12 '^ *not ok' "$tmp/said" || cat "$tmp/said"; } | head -n 60 | cut -c1-300 | sed 's/^#* */# /'
		bad=1
	fi
}

# gate NAME COMMAND... - one line, by the command's status
gate()
{
	name=$1
	shift
	"$@" >"$tmp/said" 2>&1
	result $? "$name"
}
