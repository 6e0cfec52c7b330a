#!/bin/sh
# SPDX-License-Identifier: MIT
#
# vcpus.sh KEEL IMAGE BACKEND ROUNDS: vcpus_guest.c on one, two and four vCPUs, whatever
# processors there are. KTAP on stdout.
set -u

[ $# = 4 ] || {
	echo "Bail out! usage: vcpus.sh KEEL IMAGE BACKEND ROUNDS"
	exit 2
}
said=$(mktemp)
trap 'rm -f "$said"' EXIT
trap 'exit 1' HUP INT TERM

n=0
bad=0
echo "KTAP version 1"
echo "1..3"
for vcpus in 1 2 4; do
	n=$((n + 1))
	"$1" run --backend "$3" --vcpus "$vcpus" --timeout 200 --core none --cmdline "$4" "$2" >"$said" 2>&1 </dev/null
	status=$?
	sed 's/^/    /' "$said"
	if [ $status = 0 ] && [ "$(grep -c '^ok' "$said")" = "$(sed -n 's/^1\.\.//p' "$said")" ]; then
		echo "ok $n $vcpus vCPUs"
	else
		echo "# status $status"
		echo "not ok $n $vcpus vCPUs"
		bad=1
	fi
done
exit "$bad"
