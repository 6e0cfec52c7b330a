/* SPDX-License-Identifier: MIT */
/*
 * keel probe: what this machine offers, and what --backend=auto would make of it.
 * One table (probe.c) says what is found out; text, JSON and help follow it.
 */
#ifndef KEEL_HOST_PROBE_H
#define KEEL_HOST_PROBE_H

#include <stdbool.h>
#include <stdio.h>

#include "backend/kvm/kvm_probe.h"

#define PROBE_SCHEMA 1
#define PROBE_LIST_MAX 24

/* A yes or no that may be unknown. */
enum probe_flag {
	FLAG_UNKNOWN,
	FLAG_NO,
	FLAG_YES,
};

struct probe_list {
	bool known; /* an empty one that is not is unknown */
	unsigned int count;
	const char *name[PROBE_LIST_MAX];
};

/* Numbers below 0 and empty texts are unknown. */
struct probe {
	struct {
		char backend[16]; /* "none": nothing here can run a guest */
		char why[500];
	} choice;
	struct {
		char verdict[16];
		char text[400];
		char flavour[64]; /* the module behind it */
		double api;
		enum probe_flag ept, npt;
		double slowdown; /* times native */
		enum probe_flag sse;
		double exit_us, doorbell_us, cpuid_us;
		struct probe_list capabilities, missing;
	} kvm;
	struct {
		enum probe_flag vmx, svm;
		double online, usable, spare; /* processors; spare ones beyond the guest's */
		char clocksource[32];
	} cpu;
	struct {
		char release[80];
		enum probe_flag seccomp_filter;
		struct probe_list seccomp_actions;
		enum probe_flag user_namespaces, userfaultfd, userfaultfd_wp_async, pagemap_scan, io_uring;
		double landlock; /* its version, 0 = none */
	} kernel;
	struct {
		struct probe_list held, refused;
		enum probe_flag memory_cgroup;
	} sandbox;
};

/**
 * probe_choose - what `auto` takes
 * @p: kvm and kernel.seccomp_filter are looked at; choice is filled in
 * @verdict: of kvm, whose text is in p->kvm.text
 */
void probe_choose(struct probe *p, enum kvm_verdict verdict);

/* Translate what the probe of KVM found. */
enum kvm_verdict probe_set_kvm(struct probe *p, const struct kvm_probe *facts);

void probe_print(const struct probe *p, FILE *f);
/* JSON text to be freed; NULL without memory. */
char *probe_json(const struct probe *p);

#endif
