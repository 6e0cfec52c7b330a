#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mutants.sh MUTANTS ADAPTER - the faults of mutants.csv that the kvm backend shows, each of which its test must find; KTAP on
# standard output. Runs on the test host: KEEL_BACKEND says kvm, KEEL names a keel built with KEEL_BUGS=1, keel-conform is in PATH.
set -u
list=$(grep ',host/backend/kvm/' "$1")
adapter=$2
n=1
bad=0

# One test of either profile, or several separated by commas.
run()
{
	keel-conform --adapter "$adapter" --profile CORE,SMP,IO,HVM --rounds-scale 1000 --slow 5 --filter "$1"
}

echo "KTAP version 1"
echo "1..$(($(echo "$list" | wc -l) + 1))"
ids=$(echo "$list" | cut -d, -f4 | tr '\n' , | sed 's/,$//')
if said=$(KEEL_BUG=0 run "$ids" 2>&1); then
	echo "ok 1 - every named test passes without a fault"
else
	echo "$said" | sed 's/^/# /'
	echo "not ok 1 - every named test passes without a fault"
	bad=1
fi
while IFS=, read -r bug what where id; do
	n=$((n + 1))
	said=$(KEEL_BUG=$bug run "$id" 2>&1)
	case $? in
	5 | 6) echo "ok $n - fault $bug ($what, $where) is found by $id" ;;
	*)
		echo "$said" | sed 's/^/# /'
		echo "not ok $n - fault $bug ($what, $where) is found by $id"
		bad=1
		;;
	esac
done <<END
$list
END
exit $bad
