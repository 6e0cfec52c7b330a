# SPDX-License-Identifier: MIT
#
# Everything below $(O) is made by this file and the fragments it includes, one
# per directory; nothing is written beside the sources. "make help" lists targets.
#
# A fragment adds products to ALL, stages of tests to CHECK_STAGES (or
# CHECK_LONG_STAGES), each with a rule check-NAME that prints KTAP, stages worth
# repeating with a host under ASan and UBSan to SAN_STAGES, and programs that only
# stages build to CHECK_PROGRAMS. CHECK_SECONDS_NAME bounds a stage; 300 unless said.

O ?= build
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
CC := gcc
CLANG ?= clang
AR := ar
PYTHON ?= python3 -B

# SAN=1 builds host programs with ASan and UBSan, SAN=thread with TSan; use it with an O of its own.
# gcc warns that TSan does not see fences. It need not: what they order is the guest's to read.
comma := ,
SANFLAGS_1 := -fsanitize=address$(comma)undefined -fno-sanitize-recover=all
SANFLAGS_thread := -fsanitize=thread $(if $(findstring clang,$(CC)),,-Wno-tsan)
SANFLAGS := $(SANFLAGS_$(SAN))
WARNINGS := -Wall -Wextra -Werror
HOSTCFLAGS := -std=gnu11 -O2 -g -fno-omit-frame-pointer $(WARNINGS) -Iabi/include -Ilibhypercall/include \
	$(SANFLAGS) $(EXTRA_HOSTCFLAGS)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += -r

# What the command line set is passed on by name, not by the environment: a
# stage may run a make of another project, whose O= is not ours.
overrides := $(MAKEOVERRIDES)
MAKEOVERRIDES :=

# What each goal needs of .ci/packages. run, check and bench install it, the
# others only say what to install; before anything is built in either case.
goals := $(or $(MAKECMDGOALS),all)
no_packages := help clean packages
installing := run check check-long bench bench-linux bench-net
checking := check% modules% sparse test-modules abi-update
package_set := $(if $(filter $(checking),$(goals)),check,$(if $(filter linux run bench-linux bench-net,$(goals)),linux,build))
ifneq (,$(filter-out $(no_packages),$(goals)))
  ifeq (,$(KEEL_PACKAGES))
    package_mode := $(if $(filter $(installing),$(goals)),,--check)
    package_mode := $(if $(findstring n,$(firstword -$(MAKEFLAGS))),--check,$(package_mode))
    $(foreach set,$(package_set) $(if $(filter bench bench-linux bench-net,$(goals)),bench),$(if \
      $(filter 0,$(shell .ci/install $(package_mode) $(set) >&2; echo $$?)),,$(error packages are missing, see above)))
    export KEEL_PACKAGES := have
  endif
endif

ALL :=
CHECK_STAGES := ci build style
CHECK_LONG_STAGES :=
CHECK_BESIDE :=
# Unit tests are always built with the sanitizers; here the host itself is.
SAN_STAGES := samples
# Stages worth repeating under TSan, which slows the host down most.
TSAN_STAGES := samples run
CHECK_PROGRAMS :=

include abi/abi.mk libhypercall/libhypercall.mk guest-hal/guest-hal.mk guest-hal/linux/linux.mk host/host.mk samples/samples.mk \
	abi/conformance/conformance.mk host/bench/bench.mk kunit-tests/kunit-tests.mk

CHECK_STAGES += clang sanitize tsan tree

# What was compiled under other rules or with another compiler is compiled again.
# The dependency files name what has been.
ifneq (,$(filter-out $(no_packages),$(goals)))
  rules := $(foreach v,CC SAN KEEL_BUGS EXTRA_HOSTCFLAGS,$(v)=$($(v))) \
    $(shell cat Makefile $(filter %.mk,$(MAKEFILE_LIST)) | cksum)
  $(shell mkdir -p $(O) && { echo '$(rules)' | cmp -s - $(O)/rules || echo '$(rules)' >$(O)/rules; })
  compiled := $(shell find $(O) \( -path $(O)/modules -o -path $(O)/linux \) -prune -o -type f -name '*.d' -print | \
    xargs -r sed -s -n '1s/:.*//p')
  $(filter $(O)/%,$(compiled)): $(O)/rules
  $(O)/rules: ;
endif

all: $(ALL) ## Build everything: keel, the library, the samples

RUN_ARGS ?=
run: all ## Boot Linux on the best backend, to a shell; without a terminal it says what it is
	$(Q)guest-hal/linux/run.sh $(O) "$(submake)" $(RUN_ARGS)

tour: all ## What the samples do: a scripted tour of the small kernel samples/shell
	$(Q)exec $(O)/keel run --cmdline tour $(RUN_ARGS) $(O)/samples/shell.elf </dev/null

# The runner starts a make of its own for each stage; not through $(MAKE), so
# that "make -n check" runs nothing.
submake = $(MAKE) --no-print-directory -j$(shell nproc) $(overrides)
# Those in CHECK_BESIDE use one processor for long: they run beside the others, the first of them behind `build`.
stages = $(foreach s,$(1),$(s)$(if $(CHECK_SECONDS_$(s)),:$(CHECK_SECONDS_$(s)))$(if $(filter $(s),$(CHECK_BESIDE)),+))
run_stages = $(Q)KEEL_WATCHDOG=$(abspath $(O))/ci/watchdog .ci/stage all $(O)/$@
STAGES ?= ci build $(CHECK_BESIDE) $(filter-out ci build $(CHECK_BESIDE),$(CHECK_STAGES))
CHECK_DEADLINE := 3900

check: $(O)/ci/watchdog ## Every gate, bounded tests (STAGES="a b" for some of them)
	$(run_stages) $(CHECK_DEADLINE) "$(submake)" $(call stages,$(STAGES))

check-long: $(O)/ci/watchdog ## Longer runs of the same kind
	$(run_stages) 14400 "$(submake)" $(call stages,$(CHECK_LONG_STAGES))

$(O)/ci/watchdog: .ci/watchdog.c
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -O2 $(WARNINGS) -o $@ $<

CHECK_SECONDS_ci := 120
check-ci: $(O)/ci/watchdog
	$(Q)KEEL_WATCHDOG=$(abspath $(O))/ci/watchdog .ci/selftest

CHECK_SECONDS_build := 900
check-build: all
	$(Q).ci/gates build $(O) $(ALL)

CHECK_SECONDS_style := 300
check-style:
	$(Q).ci/gates style $(O)

CHECK_SECONDS_clang := 900
check-clang:
	$(Q).ci/gates clang $(O) $(CLANG) $(CHECK_PROGRAMS)

CHECK_SECONDS_sanitize := 900
check-sanitize:
	$(Q).ci/gates sanitize $(O) $(SAN_STAGES)

CHECK_SECONDS_tsan := 600
check-tsan:
	$(Q).ci/gates tsan $(O) $(TSAN_STAGES)

check-tree:
	$(Q).ci/gates tree $(O)

packages: ## Install what the build and every gate need
	$(Q).ci/install check && .ci/install bench

clean: ## Remove the build directory
	$(Q)rm -rf $(O)

help: ## This list
	@awk -F ':[^#]*## ' '/^[a-z][a-z-]*:[^#]*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  make check-NAME     One stage, its KTAP on the terminal: $(sort $(CHECK_STAGES) $(CHECK_LONG_STAGES))"
	@echo "Variables: O=DIR build directory; V=1 show commands; CC=clang compiler; RUN_ARGS= more for keel run"

.PHONY: all run tour check check-long check-ci check-build check-style check-clang check-sanitize check-tsan check-tree packages clean help
