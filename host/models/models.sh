#!/bin/sh
# SPDX-License-Identifier: MIT
#
# models - check the models of what vCPUs, backends and the host do to memory they share; KTAP
#
#	models.sh CC MODEL.pml...
#
# A model holds when Spin has searched all of its states and found no error. Each BUG_* that
# it names is a variant with one fence, order or second look less, in which Spin must find one:
# a lost wake-up shows as an end state in which somebody still waits.
set -u

cc=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
# shellcheck source=abi/conformance/ktap.sh
. "$here/../../abi/conformance/ktap.sh"

# search MODEL OPTIMIZE [BUG]: all states, or until the first error
search()
{
	cpp -I "$here" ${3:+-D"$3"} "$1" >"$tmp/model.pml" &&
		(cd "$tmp" && spin -a model.pml && "$cc" -w "$2" -DSAFETY -DMEMLIM=1500 -o pan pan.c && ./pan -n -m200000)
}

whole()
{
	search "$1" -O2 && grep -q 'errors: 0$' "$tmp/said" && ! grep -qE '^Warning|^error|too small|not completed' "$tmp/said"
}

fails()
{
	search "$1" -O0 "$2" && grep -qE '^pan:1: (invalid end state|assertion violated)' "$tmp/said"
}

bugs()
{
	grep -oE '\<BUG_[A-Z_]*[A-Z]\>' "$1" | sort -u
}

total=0
for model; do
	total=$((total + 1 + $(bugs "$model" | wc -l)))
done
echo "1..$total"
for model; do
	title=$(basename "$model" .pml)
	gate "$title holds" whole "$model"
	for bug in $(bugs "$model"); do
		gate "$title fails with $bug" fails "$model" "$bug"
	done
done
exit "$bad"
