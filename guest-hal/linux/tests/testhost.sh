#!/bin/sh
# SPDX-License-Identifier: MIT
#
# testhost.sh KEEL VMLINUX ROOT SHA256 BACKEND...	the very same image boots on each backend, told in KTAP
set -u
keel=$1 image=$2 root=$3 sum=$4
shift 4
n=1
failed=0

echo "KTAP version 1"
echo "1..$(($# + 1))"
if [ "$(sha256sum <"$image")" = "$sum  -" ]; then
	echo "ok 1 the image is the one that was built"
else
	echo "not ok 1 the image is the one that was built"
	failed=1
fi
for backend; do
	n=$((n + 1))
	timeout -k 5 200 "$keel" run --backend "$backend" --timeout 180 --core none --stats "$image" --initrd "$root" \
		--cmdline "quiet BACKEND=$backend keel.run=/test/boot" </dev/null >/tmp/linux.log 2>/tmp/linux.err
	status=$?
	tr -d '\r' </tmp/linux.log | sed 's/^/    /'
	if [ $status = 0 ] && [ "$(tr -d '\r' </tmp/linux.log | grep -c '^ok ')" = 12 ] &&
		awk '$2 == "mmu_batch" && $3 > 0 { found = 1 } END { exit !found }' /tmp/linux.err; then
		echo "ok $n Linux on $backend"
	else
		echo "# exit status $status"
		sed 's/^/# /' /tmp/linux.err
		echo "not ok $n Linux on $backend"
		failed=1
	fi
done
exit $failed
