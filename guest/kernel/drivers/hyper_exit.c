// SPDX-License-Identifier: GPL-2.0
/*
 * Power-off of User-Mode Linux ends its process, at once and with status 0.
 *
 * User-Mode Linux goes back to its main function instead and there lets through what signals are
 * pending, after all that could handle them is gone: about one power-off in 500 on a busy host
 * ended in SIGABRT.
 */
#include <linux/init.h>
#include <linux/printk.h>
#include <linux/reboot.h>
#include <kern_util.h>

#include "hyper_exit.h"

static int hyper_exit(struct sys_off_data *unused)
{
	pr_emerg("hyper: power off\n");
	uml_cleanup();
	hyper_host_exit(0);
}

static int __init hyper_exit_init(void)
{
	struct sys_off_handler *handler;

	/* The last handler before the kernel's own: everything else is shut down. */
	handler = register_sys_off_handler(SYS_OFF_MODE_POWER_OFF_PREPARE, SYS_OFF_PRIO_LOW,
					   hyper_exit, NULL);
	return PTR_ERR_OR_ZERO(handler);
}
device_initcall(hyper_exit_init);
