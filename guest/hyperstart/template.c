/* See template.h. */
#include "template.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "kernel.h"
#include "mount.h"
#include "path.h"

#define WHOLE TEMPLATE_DIRECTORY "/whole" /* is there when all the rest is */

static const struct {
	const char *fstype, *path;
	unsigned int attributes;
} mounts[] = {
	{ "proc", TEMPLATE_DIRECTORY "/proc", MOUNT_NOSUID | MOUNT_NODEV | MOUNT_NOEXEC },
	{ "sysfs", TEMPLATE_DIRECTORY "/sys", MOUNT_NOSUID | MOUNT_NODEV | MOUNT_NOEXEC | MOUNT_RDONLY },
	{ "mqueue", TEMPLATE_DIRECTORY "/mqueue", MOUNT_NOSUID | MOUNT_NODEV | MOUNT_NOEXEC },
};

/* As Docker: what tells too much of the machine, or would change it. */
static const char *const masked[] = {
	"/proc/acpi",	    "/proc/asound",	   "/proc/interrupts",	"/proc/kcore",
	"/proc/keys",	    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
	"/proc/timer_list", "/proc/timer_stats",   "/sys/firmware",	"/sys/devices/virtual/powercap",
};
static const char *const frozen[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
				      "/proc/sysrq-trigger" };

/* A copy of this namespace's own: of guest.null, which may be another's, no copy could be made. */
static int copy_null(void)
{
	cleanup_fd int null = open("/dev/null", O_PATH | O_CLOEXEC);

	return null < 0 ? failed("open", "/dev/null") : mount_copy(null, "/dev/null", false, 0);
}

static int mask(int root, const char *path)
{
	cleanup_fd int target = open_in_root(root, path, O_PATH | O_NOFOLLOW);
	struct stat status;

	if (target < 0 || fstat(target, &status))
		return 0; /* this kernel does not have it */
	cleanup_fd int cover =
		S_ISDIR(status.st_mode) ? mount_new("tmpfs", NULL, NULL, MOUNT_RDONLY) : copy_null();
	if (cover < 0)
		return cover;
	return sys_move_mount(cover, target) ? failed("mask", path) : 0;
}

static int freeze(int root, const char *path)
{
	cleanup_fd int target = open_in_root(root, path, O_PATH | O_NOFOLLOW);

	if (target < 0)
		return 0;
	cleanup_fd int copy = mount_copy(target, path, false, MOUNT_RDONLY);
	if (copy < 0)
		return copy;
	return sys_move_mount(copy, target) ? failed("mount read-only", path) : 0;
}

/* The kernel made its own once, for the template: each copy shows another. */
static int show_boot_id(int root)
{
	cleanup_fd int id = open(BOOT_ID_FILE, O_PATH | O_CLOEXEC);

	if (id < 0)
		return 0; /* this machine is no copy */
	cleanup_fd int target = open_in_root(root, BOOT_ID_SETTING, O_PATH | O_NOFOLLOW);
	cleanup_fd int copy = target < 0 ? target : mount_copy(id, BOOT_ID_FILE, false, MOUNT_RDONLY);
	if (copy < 0)
		return copy;
	return sys_move_mount(copy, target) ? failed("mount", BOOT_ID_SETTING) : 0;
}

static int restrict_all(int root)
{
	int result = 0;

	for (size_t i = 0; !result && i < LENGTH(masked); i++)
		result = mask(root, masked[i]);
	for (size_t i = 0; !result && i < LENGTH(frozen); i++)
		result = freeze(root, frozen[i]);
	return result ? result : show_boot_id(root);
}

static int build(void)
{
	int result = 0;

	template_remove(); /* of a job that was killed on the way */
	for (size_t i = 0; !result && i < LENGTH(mounts); i++)
		result = mount_plain(mounts[i].fstype, mounts[i].path, NULL, mounts[i].attributes);
	cleanup_fd int root = result ? -1 : open(TEMPLATE_DIRECTORY, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (!result)
		result = root < 0 ? failed("open", TEMPLATE_DIRECTORY) : restrict_all(root);
	if (!result && mkdir(WHOLE, 0700))
		result = failed("mkdir", WHOLE);
	return result;
}

int template_build(void)
{
	if (!access(WHOLE, F_OK))
		return 0;
	cleanup_fd int lock = open("/run/hyper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0 || flock(lock, LOCK_EX))
		return failed("lock", "/run/hyper");
	return access(WHOLE, F_OK) ? build() : 0;
}

void template_remove(void)
{
	rmdir(WHOLE);
	for (size_t i = 0; i < LENGTH(mounts); i++)
		umount2(mounts[i].path, MNT_DETACH | UMOUNT_NOFOLLOW);
}
