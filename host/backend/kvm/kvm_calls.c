// SPDX-License-Identifier: MIT
/* What a host with a virtual machine asks of the kernel, beside what every host does. */
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "../../seal.h"
#include "kvm.h"

/* A partition that restarts is a new machine, so what makes one is here too. */
static const uint32_t process_ioctls[] = {
	KVM_RUN, /* the frequent one first */
	KVM_GET_API_VERSION,
	KVM_CHECK_EXTENSION,
	KVM_CREATE_VM,
	KVM_SET_TSS_ADDR,
	KVM_SET_IDENTITY_MAP_ADDR,
	KVM_CREATE_IRQCHIP,
	KVM_CREATE_PIT2,
	KVM_ENABLE_CAP,
	KVM_SET_USER_MEMORY_REGION,
	KVM_SET_GSI_ROUTING,
	KVM_IRQFD,
	KVM_IOEVENTFD,
	KVM_GET_SUPPORTED_CPUID,
	KVM_GET_VCPU_MMAP_SIZE,
	KVM_CREATE_VCPU,
	KVM_SET_CPUID2,
	KVM_SET_DEVICE_ATTR,
	KVM_GET_TSC_KHZ,
	KVM_SET_XCRS,
	KVM_GET_REGS,
	KVM_SET_REGS,
	KVM_GET_SREGS,
	KVM_SET_SREGS,
	KVM_SET_FPU,
	KVM_SET_MP_STATE,
	KVM_SET_MSRS, /* from here on for HVM */
	KVM_X86_SET_MSR_FILTER,
	KVM_IRQ_LINE,
	KVM_SIGNAL_MSI,
	KVM_GET_STATS_FD,
};

/* Once the guest runs. */
static const uint32_t vcpu_ioctls[] = {
	KVM_RUN, KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS, KVM_IRQ_LINE, KVM_SIGNAL_MSI
};

/* An upcall of an HVM guest; of others a descriptor is written to. */
static const uint32_t raise_ioctls[] = { KVM_IRQ_LINE, KVM_SIGNAL_MSI };

const struct seal_table kvm_calls = {
	.process = { .ioctls = process_ioctls, .ioctl_count = sizeof(process_ioctls) / sizeof(process_ioctls[0]) },
	.vcpu = { .ioctls = vcpu_ioctls, .ioctl_count = sizeof(vcpu_ioctls) / sizeof(vcpu_ioctls[0]) },
	.raise = { .ioctls = raise_ioctls, .ioctl_count = sizeof(raise_ioctls) / sizeof(raise_ioctls[0]) },
};
