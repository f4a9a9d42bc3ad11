// SPDX-License-Identifier: GPL-2.0
/*
 * Power-off for a machine that has no way to: a QEMU microvm without ACPI.
 *
 * Such a machine can be reset, and QEMU's -no-reboot makes a reset its end. So PID 1 powers off on
 * every hypervisor, and need not know which one it is on.
 */
#include <linux/init.h>
#include <linux/reboot.h>

static int hyper_poweroff(struct sys_off_data *unused)
{
	emergency_restart();
	return NOTIFY_DONE;
}

static int __init hyper_poweroff_init(void)
{
	struct sys_off_handler *handler;

	/* Last of all: a machine that can really power off does. */
	handler = register_sys_off_handler(SYS_OFF_MODE_POWER_OFF, SYS_OFF_PRIO_LOW,
					   hyper_poweroff, NULL);
	return PTR_ERR_OR_ZERO(handler);
}
device_initcall(hyper_poweroff_init);
