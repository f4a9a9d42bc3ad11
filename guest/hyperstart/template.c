/* See template.h. */
#include "template.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "kernel.h"
#include "mount.h"
#include "path.h"

#define SAFE (MS_NOSUID | MS_NODEV | MS_NOEXEC)
#define PROC TEMPLATE_DIRECTORY "/proc"
#define LAST TEMPLATE_DIRECTORY "/mqueue" /* is there when all the rest is */

/* As Docker: what tells too much of the machine, or would change it.  None is behind a symbolic link. */
static const struct {
	const char *path;
	bool is_directory;
} masked[] = {
	{ "proc/acpi", true },	       { "proc/asound", true },	 { "proc/interrupts", false },
	{ "proc/kcore", false },       { "proc/keys", false },	 { "proc/latency_stats", false },
	{ "proc/sched_debug", false }, { "proc/scsi", true },	 { "proc/timer_list", false },
	{ "proc/timer_stats", false }, { "sys/firmware", true }, { "sys/devices/virtual/powercap", true },
};
static const char *const frozen[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger" };

/*
 * By path, as nothing here is anybody else's: with descriptors it would be four system calls for one.  Some of
 * the paths a kernel does not have.
 */
static int mask(const char *name, bool is_directory)
{
	char path[64];

	snprintf(path, sizeof(path), TEMPLATE_DIRECTORY "/%s", name);
	int result = is_directory ? mount("tmpfs", path, "tmpfs", MS_RDONLY, NULL)
				  : mount("/dev/null", path, NULL, MS_BIND, NULL);
	return result && errno != ENOENT ? failed("mask", name) : 0;
}

static int freeze(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), TEMPLATE_DIRECTORY "/%s", name);
	if (mount(path, path, NULL, MS_BIND, NULL))
		return errno == ENOENT ? 0 : failed("copy mount", name);
	if (mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | SAFE, NULL))
		return failed("mount read-only", name);
	return 0;
}

/* The kernel keeps the one that it was first asked for, maybe in the template: each copy shows another. */
static int show_boot_id(void)
{
	cleanup_fd int id = openat(AT_FDCWD, BOOT_ID_FILE, O_PATH | O_CLOEXEC);

	if (id < 0)
		return 0; /* this machine is no copy */
	cleanup_fd int root = open_directory(TEMPLATE_DIRECTORY);
	cleanup_fd int target = open_in_root(root, BOOT_ID_SETTING, O_PATH | O_NOFOLLOW);
	cleanup_fd int copy = target < 0 ? target : mount_copy(id, BOOT_ID_FILE, false, MOUNT_RDONLY);
	if (copy < 0)
		return copy;
	return sys_move_mount(copy, "", target, "") ? failed("mount", BOOT_ID_SETTING) : 0;
}

static int restrict_all(void)
{
	int result = 0;

	for (size_t i = 0; !result && i < LENGTH(masked); i++)
		result = mask(masked[i].path, masked[i].is_directory);
	for (size_t i = 0; !result && i < LENGTH(frozen); i++)
		result = freeze(frozen[i]);
	return result ? result : show_boot_id();
}

static int build(void)
{
	if (is_mounted(PROC))
		template_remove(); /* of a job that was killed on the way */
	int result = mount_plain("proc", PROC, SAFE, NULL);
	if (!result)
		result = mount_plain("sysfs", TEMPLATE_DIRECTORY "/sys", SAFE | MS_RDONLY, NULL);
	if (!result)
		result = restrict_all();
	return result ? result : mount_plain("mqueue", LAST, SAFE, NULL);
}

int template_build(void)
{
	if (is_mounted(LAST))
		return 0;
	cleanup_fd int lock = openat(AT_FDCWD, "/run/hyper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0 || flock(lock, LOCK_EX))
		return failed("lock", "/run/hyper");
	return is_mounted(LAST) ? 0 : build();
}

void template_remove(void)
{
	static const char *const paths[] = { LAST, TEMPLATE_DIRECTORY "/sys", PROC };

	for (size_t i = 0; i < LENGTH(paths); i++)
		umount2(paths[i], MNT_DETACH | UMOUNT_NOFOLLOW);
}
