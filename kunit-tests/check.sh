#!/bin/sh
# SPDX-License-Identifier: MIT
#
# check.sh STAGE OUT [JOB...]: one stage of `make check`, as KTAP on stdout.
#
#	modules       the kernel modules build for Debian's kernels, without a warning
#	sparse        no sparse finding in modules, library, samples and host
#	checkpatch    kernel-style code passes the kernel's own style checker
#	test-modules  modules and programs work on Debian's stock kernel under QEMU;
#		      SEED=N repeats the suites' random sequences, SCALE=N divides the
#		      rounds of the conformance suite's stress tests (200)
#	kunit PROGRAM MUTANTS VMLINUX
#		      the suites as a program and in the port's kernel, and that they notice
#		      the faults of mutants.csv; SEED=N as above
#	port VMLINUX  the suites in the port's kernel alone
#	port-mutants VMLINUX
#		      the faults of mutants.csv in a port's kernel built with KEEL_MUTANTS=1
#	testhost JOB...	jobs of testhost/jobs, beside each other, each on a machine of its own
#
# The checks are functions handed to must and refuses, which shellcheck cannot see:
# shellcheck disable=SC2317
set -u

# The makes started here are not part of the one that started this.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES
cd "$(dirname "$0")/.." || exit 1
stage=${1:?STAGE}
out=${2:?OUT}
shift 2
host=kunit-tests/testhost
mkdir -p "$out"
work=$(mktemp -d) || exit 1
jobs=
cleanup() {
	# shellcheck disable=SC2086 # one word per process
	[ -z "$jobs" ] || kill $jobs 2>/dev/null
	wait
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

count=0
red=0

# result STATUS NAME: the command's output, if any, is in $work/said
result() {
	count=$((count + 1))
	if [ "$1" = 0 ]; then
		echo "ok $count $2"
	else
		[ ! -s "$work/said" ] || sed 's/^/# /' "$work/said"
		echo "not ok $count $2"
		red=1
	fi
	: >"$work/said"
}

plan() {
	echo "KTAP version 1"
	echo "1..$1"
}

# must NAME COMMAND...
must() {
	name=$1
	shift
	"$@" >"$work/said" 2>&1 </dev/null
	result $? "$name"
}

# refuses NAME PATTERN COMMAND...: the command must fail and say PATTERN
refuses() {
	name=$1
	pattern=$2
	shift 2
	if "$@" >"$work/said" 2>&1 </dev/null; then
		echo "(succeeded)" >>"$work/said"
		result 1 "$name"
	else
		grep -q -- "$pattern" "$work/said"
		result $? "$name"
	fi
}

CF="-D__CHECK_ENDIAN__ -Wsparse-error"
# Nor does a warning pass; all that builds modules says so, or they would be built again.
export STRICT=1

modules() {
	kdir=$($host/kernel.sh headers) && kunit-tests/modules.sh "$kdir" "$out" "$@"
}

install_modules() {
	modules modules_install "INSTALL_MOD_PATH=$work/root" DEPMOD=true &&
		find "$work/root/lib/modules" -name keel_core.ko | grep -q .
}

# The build writes only below $out: no object, and no file Git would see, appears beside the sources.
clean_tree() {
	find . -path "./$out" -prune -o -path ./build -prune -o \( -name '*.ko' -o -name '*.mod' -o -name '.*.cmd' -o \
		-name modules.order -o -name Module.symvers \) -print >"$work/litter"
	cat "$work/litter"
	[ ! -s "$work/litter" ]
}

# for_kernel KDIR: all three modules of a guest's kernel, by gcc with W=1 and by sparse; the suites are built once
for_kernel() {
	SUITES=none kunit-tests/modules.sh "$1" "$out" C=2 "CF=$CF" &&
		dir=$out/modules/$(sed -n 's/^#define UTS_RELEASE "\(.*\)"$/\1/p' "$1/include/generated/utsrelease.h") &&
		ls "$dir/keel_core.ko" "$dir/keel.ko" "$dir/virtio_keel.ko"
}

other_kernels() {
	"$host/kernel.sh" others "$out/cache" >"$work/others" && [ "$(wc -l <"$work/others")" = 2 ]
}

# other_console KDIR: that kernel, with another version of one symbol
other_console() {
	mkdir -p "$work/kernel" "$work/out" && ln -s "$1"/* "$1"/.[a-z]* "$work/kernel" && ln -s "$(cd "$out/cache" && pwd)" "$work/out" &&
		rm "$work/kernel/Module.symvers" &&
		sed 's/^0x[0-9a-f]*\(\thvc_remove\t\)/0x01234567\1/' "$1/Module.symvers" >"$work/kernel/Module.symvers" &&
		kunit-tests/modules.sh "$work/kernel" "$work/out"
}

check_modules() {
	plan 8
	must "modules build" modules
	must "there are headers of other kernels" other_kernels
	must "for Debian's other flavour" for_kernel "$(sed -n 1p "$work/others")"
	must "for Debian's newest kernel" for_kernel "$(sed -n 2p "$work/others")"
	refuses "a kernel with another console than is known is noticed" "no keel.ko" other_console "$(sed -n 1p "$work/others")"
	must "modules_install" install_modules
	must "nothing is written beside the sources" clean_tree
	refuses "a missing KDIR is refused and names an installed one" "KDIR=/usr/src/linux-headers-" \
		kunit-tests/modules.sh "$work/none" "$out"
}

# Everything the build compiles, as it compiles it. Always anew: a finding stops a build only once.
sparse_programs() {
	rm -rf "$out/sparse"
	timeout 800 make -j"$(nproc)" --no-print-directory "O=$out/sparse" "CC=$PWD/$host/sparse-cc" all
}

# plant_module FLAG, plant_program FLAG: the same checks over kunit-tests/planted.c
plant_module() {
	kdir=$("$host/kernel.sh" headers) || return
	rm -rf "$work/plant"
	mkdir "$work/plant"
	cp kunit-tests/testhost/planted.c "$work/plant/"
	echo "obj-m := planted.o" >"$work/plant/Kbuild"
	echo "ccflags-y := -I$PWD/abi/include -I$PWD/libhypercall/include $1" >>"$work/plant/Kbuild"
	timeout 300 make -C "$kdir" "M=$work/plant" C=2 "CF=$CF" modules
}

plant_program() {
	"$host/sparse-cc" -std=gnu11 -Wall -Wextra -Werror -Iabi/include -Ilibhypercall/include ${1:+"$1"} -c \
		-o "$work/planted.o" "$host/planted.c"
}

check_sparse() {
	plan 6
	must "modules" modules modules C=2 "CF=$CF"
	must "all that is built for guests and host" sparse_programs
	must "reading shared memory through its accessor passes in a module" plant_module ""
	refuses "a planted dereference of shared memory fails in a module" "dereference of noderef" \
		plant_module -DPLANT
	must "reading shared memory through its accessor passes in a program" plant_program ""
	refuses "a planted dereference of shared memory fails in a program" "dereference of noderef" \
		plant_program -DPLANT
}

# Message types that are off. In the suites:
#   MACRO_WITH_FLOW_CONTROL	kunit_oot.h's macro defines functions, and these return
#   EXPORT_SYMBOL	core.c exports what the shared sources, which know nothing of modules, define
# and in code that is written in kernel style but also, or only, builds outside the kernel:
#   SPDX_LICENSE_TAG	the place of the tag is held by the licence gate
#   PREFER_DEFINED_ATTRIBUTE_MACRO, VOLATILE, ARRAY_SIZE, UNSPECIFIED_INT	the kernel's words are not there
#   NEW_TYPEDEFS	GPAs, ports and AS handles are types of their own, so that mixing them does not compile
#   COMPLEX_MACRO, BRACKET_SPACE, MULTISTATEMENT_MACRO_USE_DO_WHILE, TRAILING_SEMICOLON
#	tables and assembly made by macros, from hypercalls.def for one
#   AVOID_EXTERNS, WEAK_DECLARATION	symbols that the linker script, assembly or the guest defines
#   EMBEDDED_FUNCTION_NAME	a message that says what the user called, not where it was printed
#   ENOSYS	what a kernel or a filter answers to a call it does not have, which is what is meant
#   SUSPECT_COMMA_SEMICOLON, STATIC_CONST	misread: (void)a, (void)b; and static inline const struct call *f()
IGNORE_SUITES=MACRO_WITH_FLOW_CONTROL,EXPORT_SYMBOL
IGNORE_OTHERS=SPDX_LICENSE_TAG,PREFER_DEFINED_ATTRIBUTE_MACRO,VOLATILE,ARRAY_SIZE,UNSPECIFIED_INT,NEW_TYPEDEFS
IGNORE_OTHERS=$IGNORE_OTHERS,COMPLEX_MACRO,BRACKET_SPACE,MULTISTATEMENT_MACRO_USE_DO_WHILE,TRAILING_SEMICOLON
IGNORE_OTHERS=$IGNORE_OTHERS,AVOID_EXTERNS,WEAK_DECLARATION,EMBEDDED_FUNCTION_NAME,ENOSYS
IGNORE_OTHERS=$IGNORE_OTHERS,SUSPECT_COMMA_SEMICOLON,STATIC_CONST

# In the Linux port, which has no other place for what arch/um declares nowhere and calls by a C library's names:
#   AVOID_EXTERNS, ENOSYS, CONSIDER_KSTRTO
#   LINE_SPACING	misread: VMA_ITERATOR() is a declaration
# and in its drivers, which are also modules of kernels older and newer than its own:
#   LINUX_VERSION_CODE, CONSTANT_COMPARISON
IGNORE_PORT=AVOID_EXTERNS,ENOSYS,CONSIDER_KSTRTO,LINE_SPACING,LINUX_VERSION_CODE,CONSTANT_COMPARISON

# checkpatch OPTION...: over the files listed in $work/files, all of which it must say it has read
checkpatch() {
	tree=$("$host/kernel.sh" source "$out/cache") || return
	# shellcheck disable=SC2046 # no name here has a space
	"$tree/scripts/checkpatch.pl" --no-tree --emacs --show-types --max-line-length=120 \
		--typedefsfile "$work/typedefs" "$@" --file $(cat "$work/files") >"$work/report" 2>&1
	status=$?
	grep -E '^[^ ]*:[0-9]+: ' "$work/report"
	read=$(grep -c '^total: .* lines checked$' "$work/report")
	listed=$(grep -c . "$work/files")
	if [ "$listed" = 0 ] || [ "$read" != "$listed" ]; then
		cat "$work/report"
		echo "$read of $listed files were checked"
		return 1
	fi
	return "$status"
}

suites_style() {
	{ echo Kbuild && find kunit-tests -name '*.[ch]' ! -name kvmcheck.c ! -name 'program.[ch]'; } >"$work/files"
	checkpatch --strict --ignore "$IGNORE_SUITES"
}

others_style() {
	find abi/include libhypercall/include libhypercall/src guest-hal host kunit-tests/testhost/kvmcheck.c kunit-tests/program.[ch] \
		guest-hal/linux/um/mkimage.c \
		\( -path host/tests -o -path host/bench -o -path guest-hal/linux \) -prune -o -name '*.[ch]' -print >"$work/files"
	checkpatch --ignore "$IGNORE_OTHERS"
}

port_style() {
	find guest-hal/linux/um guest-hal/linux/drivers -name '*.[ch]' ! -name mkimage.c >"$work/files"
	checkpatch --strict --ignore "$IGNORE_PORT"
}

bad_style() {
	printf '%s\n' '// SPDX-License-Identifier: GPL-2.0-only' 'int f( int a )' '{' '  return(a);' '}' >"$work/bad.c"
	echo "$work/bad.c" >"$work/files"
	checkpatch --strict --ignore "$IGNORE_SUITES"
}

check_checkpatch() {
	plan 4
	# The ABI's types, with the address space that may follow one: checkpatch takes patterns.
	printf '%s\n' 'keel_[us](?:8|16|32|64)(?:\s+__pvshared)?' 'keel_(?:gpa|port|as)_t' \
		'(?:void|struct\s+keel_\w+)\s+__pvshared' mret >"$work/typedefs"
	must "suites, strictly" suites_style
	must "ABI, library, HAL, host" others_style
	must "the Linux port" port_style
	refuses "badly styled code is refused" "ERROR:SPACING" bad_style
}

# cases LOG: SUITE:CASE and SUITE:CASE:PARAMETER of each result in KUnit's KTAP, however it is wrapped
cases() {
	sed 's/\r$//; s/^@keel | //' "$1" | awk '
		/^ *# Subtest: / {
			level = match($0, /#/) > 5
			name[level] = $3
		}
		/^ *(not )?ok [0-9]+ / {
			depth = match($0, /[no]/) - 1
			text = $0
			sub(/^ *(not )?ok [0-9]+ /, "", text)
			sub(/ # .*/, "", text)
			if (depth == 4)
				print name[0] ":" text
			else if (depth == 8)
				print name[0] ":" name[1] ":" text
		}' | sort
}

# same LOG LOG: the same cases in both, and some
same() {
	cases "$1" >"$work/cases1"
	cases "$2" >"$work/cases2"
	[ -s "$work/cases1" ] || echo "no case has run"
	diff "$work/cases1" "$work/cases2" && [ -s "$work/cases1" ]
}

# A list that lacks a case, or a parameter, is another list.
other_lists_differ() {
	for script in '0,/^    ok 2 /{/^    ok 2 /d}' '0,/^        ok 2 /{/^        ok 2 /d}' 's/^\( *# Subtest: keel_\)set/\1sets/' d; do
		sed "$script" "$1" >"$work/other"
		if same "$work/other" "$1" >"$work/difference"; then
			echo "the lists are said to be the same after: $script"
			return 1
		fi
	done
}

# group STATUS NAME LOG: a result with the KTAP of a log that reports by itself
group() {
	sed 's/^/    /' "$3"
	grep -q '^ok ' "$3" || set -- 1 "$2"
	result "$1" "$2"
}

program() {
	"$@" >"$work/program" 2>&1 </dev/null
}

# Boot the port without a user space: it powers off behind the place where suites run. KTAP is not indented
# there and everything else is a kernel message.
boot_port() {
	image=$1
	shift
	timeout 120 "$out/keel" run --backend ring3 --core none --mem 128M "$image" --cmdline "printk.time=0 kunit_shutdown=poweroff $*" \
		</dev/null >"$work/console" 2>&1
	status=$?
	tr -d '\r' <"$work/console" | awk '
		/^ *(KTAP version|1\.\.|ok [0-9]|not ok [0-9]|# )/ { print; next }
		{ print "# " $0 }' >"$work/port"
	if [ $status != 0 ]; then
		echo "keel run ended with $status"
	elif grep -nE 'Oops|BUG:|WARNING:|Call Trace|stall|lockup|Kernel panic' "$work/console"; then
		status=1
	fi
	return $status
}

port() {
	suites=$(cd kunit-tests && echo *_test.c | sed 's/\.c//g')
	boot_port "$1" kunit.enable=1 "$(for s in $suites; do printf '%s.seed=%s ' "$s" "${SEED:-0}"; done)" >"$work/said" || return
	sed -n 's/^1\.\.//p' "$work/port" >"$work/planned"
	grep -c '^ok [0-9]' "$work/port" | cmp -s "$work/planned" - || {
		echo "not all of the suites have passed" >"$work/said"
		return 1
	}
}

# Nobody waits for tests who has not asked for them.
not_unless_asked() {
	boot_port "$1" || return
	grep -q 'kunit: disabled' "$work/console" && ! grep -q 'Subtest' "$work/console" || {
		cat "$work/console"
		return 1
	}
}

# fault RUN...: of what RUN prints for the faults in stdin, the named case must be "not ok"
faults() {
	grep -v '^#\|^n,' kunit-tests/mutants.csv >"$work/mutants"
	count=0
	plan $(($(wc -l <"$work/mutants") + 1))
	: >"$work/said"
	"$@" 0 >"$work/tap" 2>&1
	status=$?
	! grep -q '^ *not ok' "$work/tap" || status=1
	while IFS=, read -r n what where case; do
		grep -q "^    ok [0-9]* ${case#*:}\$" "$work/tap" || status=1
	done <"$work/mutants"
	[ $status = 0 ] || cp "$work/tap" "$work/said"
	result $status "every named case passes without a fault"
	while IFS=, read -r n what where case; do
		"$@" "$n" "${case%%:*}" >"$work/tap" 2>&1 </dev/null
		grep -q "^    not ok [0-9]* ${case#*:}\$" "$work/tap"
		status=$?
		[ $status = 0 ] || cp "$work/tap" "$work/said"
		result $status "fault $n ($what, $where) is found by $case"
	done <"$work/mutants"
}

mutant_program() {
	MUTANT=$2 "$1" ${3:+"$3"}
}

mutant_port() {
	boot_port "$1" kunit.enable=1 "keel_mutant=$2" ${3:+"kunit.filter_glob=$3"}
	cat "$work/port"
}

check_kunit() {
	plan 6
	program "$1"
	group $? "as a program" "$work/program"
	port "$3"
	group $? "in the port's kernel" "$work/port"
	must "program and port run the same cases" same "$work/program" "$work/port"
	must "lists that differ are seen to differ" other_lists_differ "$work/program"
	must "no suite runs in the port unless asked for" not_unless_asked "$3"
	(faults mutant_program "$2") >"$work/faults"
	group $? "planted faults" "$work/faults"
}

# The suites, then the ring3 backend on the stock kernel, where interpreted code is slow.
#
# Without SMAP: QEMU 7.2 does an iret at CPL 3, by which ring3's sandboxed process
# returns from its signal handlers, with the kernel's access rights, and SMAP turns
# that into a kernel oops. No processor does so.
check_test_modules() {
	kdir=$($host/kernel.sh headers) && modules || exit 1
	dir=$out/modules/${kdir#/usr/src/linux-headers-}
	{
		echo "machine qemu max,smap=off"
		echo "limit 1000 1000"
		echo "needs $dir/kunit/kunit.ko $dir/keel_*.ko"
		echo "load kunit"
		echo "load keel_core"
		for suite in "$dir"/keel_*_test.ko; do
			echo "suite $(basename "$suite" .ko) ${SEED:+seed=$SEED}"
		done
		echo "unload keel_core"
		echo "unload kunit"
		grep '^[^#]' $host/jobs/ring3
	} >"$work/test-modules"
	program "$out/kunit/suites"
	$host/run.sh "$work/test-modules" "$out" && judge_the_judge "$out/testhost/test-modules" || exit 1
	# The suites alone: what else ran there reports in KTAP too.
	sed '/@keel begin unload/,$d' "$out/testhost/test-modules/serial.log" >"$work/suites"
	plan 1
	must "modules and program run the same cases" same "$work/program" "$work/suites"
}

# The subset is what it says it is: names of tests, and enough of them.
subset_names_tests() {
	sed 's/#.*//; /^ *$/d' $host/subset >"$work/ids"
	while read -r id; do
		grep -q "^$id," abi/conformance/manifest.csv || echo "$host/subset: there is no test $id"
	done <"$work/ids"
	[ "$(sort -u "$work/ids" | wc -l)" -ge 40 ] || echo "$host/subset: fewer than 40 tests"
}

# Several jobs run beside each other: in Bochs, each has but one processor.
check_testhost() {
	wrong=$(subset_names_tests)
	[ -z "$wrong" ] || {
		echo "Bail out! $wrong"
		exit 1
	}
	if [ $# = 1 ]; then
		$host/run.sh "$host/jobs/$1" "$out" && judge_the_kvm_judge "$out/testhost/$1"
		exit $?
	fi
	for job in "$@"; do
		$host/run.sh "$host/jobs/$job" "$out" >"$work/$job" 2>&1 &
		jobs="$jobs $!"
	done
	plan $#
	# shellcheck disable=SC2086 # one word per process
	for pid in $jobs; do
		wait "$pid"
		status=$?
		sed 's/^/    /' "$work/$1"
		result $status "$1"
		shift
	done
	jobs=
}

# The verdict over a good log is worth something only if a bad one gets another: break the
# log of the run in $1 in each way that stdin lists.
judged() {
	log=$1/serial.log
	while IFS='|' read -r how script; do
		sed "$script" "$log" >"$work/log"
		if cmp -s "$log" "$work/log"; then
			echo "Bail out! the log could not be broken by: $how"
			return 1
		fi
		if awk -v "job=$1/job" -f $host/verdict.awk "$work/log" >/dev/null; then
			echo "Bail out! a bad log passes: $how"
			return 1
		fi
	done
}

judge_the_judge() {
	judged "$1" <<-END
		a failed parameter|0,/|  *ok 2 /s//|             not ok 2 /
		a failed case|0,/| \\{5\\}ok 2 /s//|     not ok 2 /
		a missing result|0,/| \\{5\\}ok 2 /{/| \\{5\\}ok 2 /d}
		a missing plan|0,/    1\.\./{/    1\.\./d}
		a failed suite|0,/| ok 1 /s//| not ok 1 /
		a skipped case|0,/| \\{5\\}ok 2 .*/s//& # SKIP/
		a suite that never ran|/begin keel_batch_test/,/end keel_batch_test/d
		a module that did not unload|s/\(end unload-keel_core\) 0/\1 1/
		a cut log|/@keel finish/d
		a kernel warning|s/\(@keel finish\).*/\1 275456/
	END
}

judge_the_kvm_judge() {
	judged "$1" <<-END
		KVM in another mode|s/| ok 1 kvm-/| not ok 1 kvm-/
		KVM that does not work|/begin kvmcheck/,/end kvmcheck/d
		a test that found no KVM|s/| ok 2 hvm: .*/& # SKIP no \/dev\/kvm to use here/
		tests that ran on something else|s/backend kvm, hardware virtualization/backend ring3, hardware virtualization/
		a kernel that complained|s/@keel finish.*/WARNING: CPU: 0\n&/
	END
}

case $stage in
modules) check_modules ;;
sparse) check_sparse ;;
checkpatch) check_checkpatch ;;
test-modules) check_test_modules ;;
kunit) check_kunit "$@" ;;
port)
	plan 1
	port "$1"
	group $? "in the port's kernel" "$work/port"
	;;
port-mutants) faults mutant_port "$1" ;;
testhost) check_testhost "$@" ;;
*)
	echo "check.sh: no stage $stage" >&2
	exit 1
	;;
esac
exit $red
