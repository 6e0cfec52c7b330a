#!/bin/sh
# SPDX-License-Identifier: MIT
#
# run.sh JOB OUT [NAME]: one job on the test host. Files of the run, among them
# the serial line, are left in OUT/testhost/NAME; KTAP goes to stdout.
#
# A job is a list of functions of ./init, one to a line; jobs/ has those of
# "make check". Three of them are read here and do nothing there:
#
#	machine qemu CPU	or: machine bochs CPU
#	limit SECONDS LONG	after which the run is given up; the second number is that of a long run
#	needs FILE...		SRC=DST copied as it is, *.ko a module, any other a program for /bin,
#				which brings its shared libraries; $O is the build directory,
#				$KERNEL the vmlinuz that the test host boots itself
#
# To have a program of yours run there, print KTAP, end with status 0, and add
# "needs $O/mine /some/data=/data" and "program mine SECONDS mine ARGUMENT..."
# to the job of each machine it is to run on, or to a job of its own.
#
# In the environment: LONG=1 for the long run of a job, SCALE, SEED.
set -eu

die() {
	echo "Bail out! run.sh: $*"
	exit 1
}

[ $# -ge 2 ] || die "usage: run.sh JOB OUT [NAME]"
host=$(dirname "$0")
job=$1
out=$2
name=${3:-$(basename "$job")}
dir=$out/testhost/$name
log=$dir/serial.log
[ -r "$job" ] || die "there is no job $job"
mkdir -p "$dir"
rm -f "$dir/serial.log" "$dir/job" "$dir/said" "$dir/initrd"

# arguments FUNCTION: of all its lines in the job
arguments() {
	sed -n "s/^$1 //p" "$job" | sed "s|[$]O\>|$out|g; s|[$]KERNEL\>|${vmlinuz-}|g"
}

{
	echo "LONG=${LONG-} SCALE=${SCALE-} SEED=${SEED-}"
	cat "$job"
} >"$dir/job"
read -r machine cpu <<END
$(arguments machine)
END
read -r short long <<END
$(arguments limit)
END
seconds=${LONG:+$long}
seconds=${seconds:-$short}
case $machine in
qemu) boot=$host/boot.sh ;;
bochs) boot=$host/bochs.sh ;;
*) die "$job: no machine '$machine'" ;;
esac
[ -n "$cpu" ] && [ -n "$seconds" ] || die "$job: machine or limit is missing"

vmlinuz=$("$host/kernel.sh" image "$out/cache" 2>&1) || die "$vmlinuz"
# shellcheck disable=SC2046 # one word per file, and patterns
set -- $(arguments needs)
vendor=$(arguments kvm | sed -n '1s/ .*//p')
if [ -n "$vendor" ]; then
	kvm=$("$host/kernel.sh" kvm "$out/cache" 2>&1) || die "$kvm"
	set -- "$@" "$kvm/irqbypass.ko" "$kvm/kvm.ko" "$kvm/kvm-$vendor.ko" "$out/testhost/kvmcheck"
fi
trap 'rm -f "$dir/initrd"' EXIT
trap 'exit 1' HUP INT TERM
"$host/initrd.sh" "$dir/initrd" "$dir/job" "$@" >"$dir/said" 2>&1 || {
	sed 's/^/# /' "$dir/said"
	die "cannot make the initramfs"
}
# In the background, so that a signal that ends this ends that.
"$boot" "$vmlinuz" "$dir/initrd" "$log" "$seconds" "$cpu" >"$dir/said" 2>&1 &
trap 'kill $!; wait; exit 1' HUP INT TERM
booted=1
wait $! || booted=
sed 's/^/# /' "$dir/said"
[ -e "$log" ] || die "nothing was booted"
awk -v "job=$dir/job" -f "$host/verdict.awk" "$log" || exit 1
[ -n "$booted" ] || die "all of the job ran, but the machine did not end as it should"
