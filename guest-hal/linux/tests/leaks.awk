# SPDX-License-Identifier: MIT
#
# leaks.awk -v rounds=N BEFORE AFTER: what grew by about one for each round between the two lists of hvm-init, and by
# more than grows and shrinks anyway: so few rounds show only what leaks much.
#
# What file systems keep of files is not judged: it goes when memory is short.
BEGIN { limit = rounds * 9 / 10 < 40 ? 40 : rounds * 9 / 10 }
$1 ~ /^dentry$|inode_cache$|^radix_tree_node$|^buffer_head$/ { next }
{ name = $1 " " $2 }
NR == FNR { before[name] = $3; next }
{
	grew = $3 - before[name]
	if (grew > 0 || $1 ~ /^(vmalloc|pages)$/)
		print "# " $1 ": " before[name] " " $2 ", then " $3
	if (grew >= limit)
		leaks = leaks " " $1
}
END {
	print "# " rounds " rounds"
	if (leaks)
		print "# leaks:" leaks
	exit leaks != ""
}
