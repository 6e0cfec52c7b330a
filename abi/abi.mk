# SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
# The ABI builds nothing; it is held by its gates.
CHECK_STAGES += abi

.PHONY: check-abi abi-update
check-abi:
	$(Q)CLANG=$(CLANG) abi/check.sh check abi $(O)/abi

abi-update: ## Regenerate calls.h, SPEC.md's tables and abi/golden
	$(Q)CLANG=$(CLANG) abi/check.sh update abi $(O)/abi
