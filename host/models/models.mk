# SPDX-License-Identifier: MIT
# Models of the protocols on shared memory, searched whole by Spin.

CHECK_STAGES += models
CHECK_BESIDE += models
# A minute on a processor of its own; many compilers.
CHECK_SECONDS_models := 900
.PHONY: check-models
check-models:
	$(Q)host/models/models.sh $(CC) $(sort $(filter-out %/tso.pml,$(wildcard host/models/*.pml)))
