#!/bin/sh
# SPDX-License-Identifier: MIT
#
# auto.sh IMAGE: on a machine with hardware virtualization, what `keel probe` says and --backend auto takes. KTAP on
# stdout. For the test host, so nothing but a shell and a few plain tools.
set -u

n=0
bad=0

result()
{
	status=$1
	shift
	n=$((n + 1))
	if [ "$status" = 0 ]; then
		echo "ok $n - $*"
	else
		echo "not ok $n - $*"
		sed 's/^/# /' said
		bad=1
	fi
}

cd "${TMPDIR:-/tmp}" || exit 1
trap 'rm -f said' EXIT
echo "KTAP version 1"
echo "1..4"
keel probe --json >said 2>&1
result $? "keel probe works"
grep -q '"verdict":.*"hardware"' said && grep -q '"sse":.*true' said && grep -q '"missing":.*\[\]' said
result $? "KVM runs at hardware speed, with SSE and all that is needed"
tr -d '\n' <said | grep -q '"auto":[^}]*"backend":[^,]*"kvm"'
result $? "auto would take kvm"
# A machine this busy may not let the quick probe end in time now and then: once is proof.
taken=1
for _ in 1 2 3 4 5 6 7 8; do
	keel run --verbose "$1" >said 2>&1 </dev/null || break
	grep -q '^keel: backend kvm, chosen because kvm runs at hardware speed' said && grep -q 'on Keel (kvm)' said &&
		taken=0 && break
done
result "$taken" "auto takes kvm"
exit "$bad"
