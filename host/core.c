// SPDX-License-Identifier: MIT
/*
 * Remote calls. The monitor that forwards them is inside the guest's context
 * and may be the guest's by now, so everything is checked here as if no one had.
 */
#include <string.h>

#include "calls.h"
#include "console.h"
#include "devices/device.h"
#include "log.h"
#include "partition.h"

struct remote_call {
	struct partition *p;
	unsigned int vcpu;
	const uint64_t *arg;
	uint64_t *value;
};

static int64_t base_shutdown(struct remote_call *c)
{
	static const enum outcome_kind kinds[] = {
		[KEEL_SHUTDOWN_POWEROFF] = OUTCOME_POWEROFF,
		[KEEL_SHUTDOWN_RESTART] = OUTCOME_RESTART,
	};
	struct outcome o = { .kind = OUTCOME_NONE };

	if (c->arg[0] >= sizeof(kinds) / sizeof(kinds[0]))
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(1));
	if (c->arg[1] > KEEL_SHUTDOWN_CODE_MAX)
		return KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_ARG(2));
	o.kind = kinds[c->arg[0]];
	o.code = (uint32_t)c->arg[1];
	partition_end(c->p, &o);
	return KEEL_OK;
}

static int64_t base_ping(struct remote_call *c)
{
	*c->value = c->arg[0];
	return KEEL_OK;
}

static int64_t console_write_call(struct remote_call *c)
{
	if (!c->arg[0] || c->arg[0] > KEEL_CONSOLE_WRITE_MAX)
		return KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_ARG(1));
	console_write(c->p->console, &c->arg[1], c->arg[0]);
	return KEEL_OK;
}

static int64_t console_setup_call(struct remote_call *c)
{
	uint64_t gpa = c->arg[0], size = c->arg[1];

	if (gpa % KEEL_PAGE_SIZE || (!size && gpa))
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(1));
	if (size && size != KEEL_CONSOLE_RING_SIZE)
		return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG(2));
	if (!size) {
		console_detach(c->p->console);
		return KEEL_OK;
	}
	if (gpa >= c->p->ram_size) /* a page at a page boundary: no more can be wrong */
		return KEEL_STATUS(KEEL_E_FAULT, KEEL_AT_ARG(1));
	if (!console_attach(c->p->console, (struct keel_console_ring __pvshared *)(c->p->ram + gpa)))
		return KEEL_STATUS(KEEL_E_EXIST, KEEL_AT_ARG(1));
	return KEEL_OK;
}

static int64_t crash(struct remote_call *c)
{
	struct outcome o = { .kind = OUTCOME_CRASH };
	uint64_t reason = c->arg[0], len = c->arg[2];

	if (reason > KEEL_CRASH_REASON_MAX)
		return KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_ARG(1));
	if (len > KEEL_CRASH_MESSAGE_MAX)
		return KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_ARG(3));
	if (len && !partition_copy_from(c->p, o.crash.message, c->arg[1], len))
		return KEEL_STATUS(KEEL_E_FAULT, KEEL_AT_ARG(2));
	o.crash.message[len] = '\0';
	/* A message may hold any bytes; a NUL shall not hide what follows it. */
	for (uint64_t i = 0; i < len; i++)
		if (!o.crash.message[i])
			o.crash.message[i] = ' ';
	o.crash.guest_call = true;
	o.crash.vcpu = c->vcpu;
	o.crash.guest_reason = (uint32_t)reason;
	o.crash.word[0] = c->arg[3];
	o.crash.word[1] = c->arg[4];
	strcpy(o.crash.reason, "the guest reported a fatal error");
	partition_end(c->p, &o);
	return KEEL_OK;
}

static int64_t vcpu_start(struct remote_call *c)
{
	if (c->arg[0] >= c->p->vcpus)
		return KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1));
	if (c->arg[1] < KEEL_VA_MIN || c->arg[1] >= KEEL_VA_END)
		return KEEL_STATUS(KEEL_E_RANGE, KEEL_AT_ARG(2));
	if (!c->p->ops->vcpu_start)
		return KEEL_STATUS(KEEL_E_NOTSUP, 0);
	return c->p->ops->vcpu_start(c->p, (unsigned int)c->arg[0], c->arg[1], c->arg[2]);
}

static int64_t vcpu_stop(struct remote_call *c)
{
	/* Itself: its monitor does that, in place. */
	if (c->arg[0] >= c->p->vcpus || c->arg[0] == c->vcpu)
		return KEEL_STATUS(KEEL_E_NOENT, KEEL_AT_ARG(1));
	if (!c->p->ops->vcpu_stop)
		return KEEL_STATUS(KEEL_E_NOTSUP, 0);
	return c->p->ops->vcpu_stop(c->p, (unsigned int)c->arg[0]);
}

#define DEVICE_CALL(name, NAME)                                               \
	static int64_t name(struct remote_call *c)                            \
	{                                                                     \
		return device_call(c->p, KEEL_CALL_##NAME, c->arg, c->value); \
	}
DEVICE_CALL(device_enum, DEVICE_ENUM)
DEVICE_CALL(device_status, DEVICE_STATUS)
DEVICE_CALL(device_accept, DEVICE_ACCEPT)
DEVICE_CALL(device_queue, DEVICE_QUEUE)
DEVICE_CALL(device_config_read, DEVICE_CONFIG_READ)
DEVICE_CALL(device_config_write, DEVICE_CONFIG_WRITE)

/* How many arguments each call takes, by its name. */
#define A(kind, name)
#define Z
#define KEEL_EXT(...)
#define KEEL_CALL(ext, fn, name, nargs, flags, a1, a2, a3, a4, a5, doc) ARGS_##name = nargs,
enum {
#include "../abi/hypercalls.def"
};
#undef A
#undef Z
#undef KEEL_EXT
#undef KEEL_CALL

/* The frequent ones first. */
static const struct {
	uint32_t id;
	unsigned int args;
	int64_t (*serve)(struct remote_call *c);
} served[] = {
	{ KEEL_CALL_BASE_PING, ARGS_base_ping, base_ping },
	{ KEEL_CALL_CONSOLE_WRITE, ARGS_console_write, console_write_call },
	{ KEEL_CALL_CONSOLE_SETUP, ARGS_console_setup, console_setup_call },
	{ KEEL_CALL_BASE_SHUTDOWN, ARGS_base_shutdown, base_shutdown },
	{ KEEL_CALL_CRASH, ARGS_crash, crash },
	{ KEEL_CALL_VCPU_START, ARGS_vcpu_start, vcpu_start },
	{ KEEL_CALL_VCPU_STOP, ARGS_vcpu_stop, vcpu_stop },
	{ KEEL_CALL_DEVICE_ENUM, ARGS_device_enum, device_enum },
	{ KEEL_CALL_DEVICE_STATUS, ARGS_device_status, device_status },
	{ KEEL_CALL_DEVICE_ACCEPT, ARGS_device_accept, device_accept },
	{ KEEL_CALL_DEVICE_QUEUE, ARGS_device_queue, device_queue },
	{ KEEL_CALL_DEVICE_CONFIG_READ, ARGS_device_config_read, device_config_read },
	{ KEEL_CALL_DEVICE_CONFIG_WRITE, ARGS_device_config_write, device_config_write },
};

int64_t partition_remote_call(struct partition *p, unsigned int vcpu, uint32_t id, const uint64_t arg[5],
			      uint64_t *value)
{
	struct remote_call c = { .p = p, .vcpu = vcpu, .arg = arg, .value = value };

	*value = 0;
	for (size_t i = 0; i < sizeof(served) / sizeof(served[0]); i++) {
		if (served[i].id != id)
			continue;
		for (unsigned int n = served[i].args; n < 5; n++)
			if (arg[n])
				return KEEL_STATUS(KEEL_E_INVAL, KEEL_AT_ARG((int)n + 1));
		return served[i].serve(&c);
	}
	return KEEL_STATUS(call_find(id) ? KEEL_E_NOTSUP : KEEL_E_NOSYS, 0);
}
