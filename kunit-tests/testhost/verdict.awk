# SPDX-License-Identifier: MIT
#
# Turns the test host's serial log into KTAP. What is expected comes from the
# job (-v job=FILE), never from the log: a section that is missing, cut short,
# or whose plan and results disagree is a failure. Exit status 0 iff all is well.

function fail(why)
{
	if (problem[name] == "")
		problem[name] = why
}

function expect(section)
{
	order[++sections] = section
	known[section] = 1
}

function result_line(text)
{
	return text ~ /^(not )?ok [0-9]+/
}

function begin(section)
{
	if (name != "")
		fail("was not ended")
	name = section
	status[name] = ""
	if (!known[name])
		fail("is not in the job")
	seen[name]++
}

# one line of a section's output
function line(text)
{
	body[name, ++lines[name]] = text
	if (index(text, wanted))
		as_wanted = 1
	# At whatever depth: a parameter of a case, a step of a test.
	if (text ~ /^ *not ok/ && text !~ /# XFAIL|# TODO/)
		fail("failed: " text)
	if (known["kvm"] && text ~ /# SKIP.*\/dev\/kvm/)
		fail("skipped where there is a KVM: " text)
	if (kind[name] == "suite") {
		# KUnit nests the cases in the suite's own result
		if (text ~ /^(not )?ok [0-9]+ /) {
			suite_result[name]++
			if (text !~ /^ok / || text ~ /# SKIP/)
				fail("the suite says: " text)
			return
		}
		if (substr(text, 1, 4) != "    ")
			return
		text = substr(text, 5)
	}
	if (text ~ /^1\.\.[0-9]+$/) {
		plans[name]++
		plan[name] = substr(text, 4) + 0
	} else if (result_line(text)) {
		results[name]++
		if (text ~ /# SKIP/) {
			if (kind[name] == "suite" || text ~ /# SKIP *$/)
				fail("skipped without need: " text)
		}
		n = text
		sub(/^(not )?ok /, "", n)
		if (n + 0 != results[name])
			fail("results are out of order at: " text)
	}
}

BEGIN {
	# what the conformance suite must say it ran on
	wanted = "backend ring3, hardware virtualization not used"
	while ((getline text < job) > 0) {
		split(text, word, " ")
		if (word[1] == "load" || word[1] == "unload")
			expect(word[1] "-" word[2])
		else if (word[1] == "guests" || word[1] == "conformance" || word[1] == "kvm") {
			expect(word[1])
			kind[word[1]] = "program"
			if (word[1] == "kvm") {
				wanted = "backend kvm, hardware virtualization " (word[2] == "amd" ? "SVM" : "VT-x")
				expect("kvmcheck")
				kind["kvmcheck"] = "program"
				wanted = wanted (word[3] ~ /=1$/ ? word[2] == "amd" ? ", NPT" : ", EPT" : ", shadow paging")
			}
		} else if (word[1] == "suite" || word[1] == "program") {
			expect(word[2])
			kind[word[2]] = word[1]
		}
	}
	name = ""
	finish = ""
}

{
	sub(/\r+$/, "")
}

# A kernel message can end up in front of a report; a report never starts elsewhere on purpose.
match($0, /@keel /) {
	before = substr($0, 1, RSTART - 1)
	if (before != "")
		kernel[++kernel_lines] = before
	text = substr($0, RSTART + RLENGTH)
	if (substr(text, 1, 2) == "| ")
		line(substr(text, 3))
	else if (text == "|")
		line("")
	else {
		split(text, word, " ")
		if (word[1] == "begin")
			begin(word[2])
		else if (word[1] == "end") {
			if (word[2] != name)
				fail("ended as " word[2])
			status[name] = word[3]
			name = ""
		} else if (word[1] == "finish")
			finish = word[2]
		else if (word[1] == "boot")
			boot = word[2] ", " word[3] " CPUs"
	}
	next
}

{
	if ($0 ~ /Oops|BUG:|WARNING:|Call Trace|general protection|stall|lockup|Kernel panic/)
		bad = 1
	if ($0 != "")
		kernel[++kernel_lines] = $0
}

END {
	print "KTAP version 1"
	print "1.." sections + 1
	if (boot != "")
		print "# test host: " boot
	red = 0
	for (i = 1; i <= sections; i++) {
		name = order[i]
		if (!seen[name])
			fail("never started")
		else if (seen[name] > 1)
			fail("ran more than once")
		else if (status[name] == "")
			fail("did not end")
		else if (status[name] != 0)
			fail("status " status[name])
		else if (name == "conformance" && !as_wanted)
			fail("did not say: " wanted)
		else if (kind[name] != "") {
			if (plans[name] != 1)
				fail(plans[name] + 0 " plans instead of one")
			else if (plan[name] < 1 || plan[name] != results[name])
				fail(results[name] + 0 " results for a plan of " plan[name])
			else if (kind[name] == "suite" && suite_result[name] != 1)
				fail("the suite has no result")
		}
		for (n = 1; n <= lines[name]; n++)
			print "    " body[name, n]
		if (problem[name] != "") {
			red = 1
			print "# " name ": " problem[name]
			print "not ok " i " " name
		} else
			print "ok " i " " name
	}
	# taint: what unsigned test modules from outside the tree are allowed (bits 12, 13, 18), no oops, no warning
	name = "kernel"
	if (finish == "")
		fail("the job was not worked through")
	else {
		taint = finish - 0
		split("4096 8192 262144", allowed, " ")
		for (i = 3; i >= 1; i--)
			if (taint >= allowed[i] && int(taint / allowed[i]) % 2)
				taint -= allowed[i]
		if (taint)
			fail("tainted: " finish)
	}
	if (bad)
		fail("complained")
	if (problem[name] != "") {
		red = 1
		for (n = 1; n <= kernel_lines; n++)
			print "    # " kernel[n]
		print "# kernel: " problem[name]
		print "not ok " sections + 1 " kernel"
	} else
		print "ok " sections + 1 " kernel"
	exit red
}
