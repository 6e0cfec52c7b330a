// SPDX-License-Identifier: MIT OR BSD-2-Clause-Patent
/* Several vCPUs; see hypercall/smp.h. */
#include <hypercall/guest.h>
#include <hypercall/smp.h>

/* What keel_smp_entry finds at the end of its stack. */
struct boot {
	void (*fn)(void *arg);
	void *arg;
	void *word0;
	keel_u64 reserved;
};

keel_u32 keel_vcpus(void)
{
	const struct keel_abi_pages *abi = keel_start_abi(keel_start_info());

	return keel_have_refinement(KEEL_F1_SMP) && abi && abi->vcpus ? abi->vcpus : 1;
}

struct keel_vcpu *keel_vcpu_page_of(keel_u32 vcpu)
{
	const struct keel_abi_pages *abi = keel_start_abi(keel_start_info());

	if (!abi || vcpu >= abi->vcpus)
		return NULL;
	return (struct keel_vcpu *)(abi->vcpu_va + vcpu * abi->vcpu_stride);
}

keel_s64 keel_smp_start(keel_u32 vcpu, void *stack_top, void (*fn)(void *arg), void *arg, void *word0)
{
	struct boot *boot = (struct boot *)stack_top - 1;

	if ((keel_u64)stack_top % 16)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2));
	*boot = (struct boot){ fn, arg, word0, 0 };
	return keel_vcpu_start(vcpu, (keel_u64)keel_smp_entry, (keel_u64)boot).status;
}

keel_s64 keel_smp_stop(keel_u32 vcpu)
{
	keel_s64 status;

	while (KEEL_STATUS_CODE(status = keel_vcpu_stop(vcpu).status) == KEEL_E_AGAIN)
		keel_smp_relax();
	return status;
}

bool keel_smp_running(keel_u32 vcpu)
{
	struct keel_ret ret;

	if (!keel_have_refinement(KEEL_F1_SMP))
		return vcpu == 0;
	ret = keel_vcpu_info(vcpu, KEEL_VCPU_INFO_STATE);
	return !ret.status && ret.value == KEEL_VCPU_RUNNING;
}

void keel_smp_relax(void)
{
	/* A hint only: where it is not legal, as in a dump handler, spinning goes on. */
	for (int i = 0; i < 32; i++)
		__builtin_ia32_pause();
	keel_vcpu_yield(KEEL_VCPU_ANY);
}
