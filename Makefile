# SPDX-License-Identifier: MIT
O ?= build
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
CC := gcc
CLANG ?= clang
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
ALL :=
CHECK_STAGES :=
-include abi/abi.mk libhypercall/libhypercall.mk guest-hal/guest-hal.mk host/host.mk samples/samples.mk \
	abi/conformance/conformance.mk kunit-tests/kunit-tests.mk
all: $(ALL)
check: $(addprefix check-,$(CHECK_STAGES))
clean:
	rm -rf $(O)
.PHONY: all check clean
