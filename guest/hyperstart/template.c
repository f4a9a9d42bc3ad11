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
	unsigned long flags;
} mounts[] = {
	{ "proc", TEMPLATE_DIRECTORY "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "sysfs", TEMPLATE_DIRECTORY "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY },
	{ "mqueue", TEMPLATE_DIRECTORY "/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC },
};

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

static int mask(int root, const char *path, bool is_directory)
{
	if (faccessat(root, path, F_OK, 0))
		return 0; /* this kernel does not have it */
	/* of guest.null, which may be another namespace's, no copy could be made */
	cleanup_fd int cover = is_directory ? mount_new("tmpfs", NULL, NULL, MOUNT_RDONLY)
					    : sys_clone_tree(AT_FDCWD, "/dev/null", 0);
	if (cover < 0)
		return is_directory ? cover : failed("copy mount", "/dev/null");
	return sys_move_mount(cover, "", root, path) ? failed("mask", path) : 0;
}

static int freeze(int root, const char *path)
{
	struct mount_attributes change = { .set = MOUNT_RDONLY };
	cleanup_fd int copy = sys_clone_tree(root, path, 0);

	if (copy < 0)
		return errno == ENOENT ? 0 : failed("copy mount", path);
	if (sys_mount_setattr(copy, 0, &change) || sys_move_mount(copy, "", root, path))
		return failed("mount read-only", path);
	return 0;
}

/* The kernel keeps the one that it was first asked for, maybe in the template: each copy shows another. */
static int show_boot_id(int root)
{
	cleanup_fd int id = openat(AT_FDCWD, BOOT_ID_FILE, O_PATH | O_CLOEXEC);

	if (id < 0)
		return 0; /* this machine is no copy */
	cleanup_fd int target = open_in_root(root, BOOT_ID_SETTING, O_PATH | O_NOFOLLOW);
	cleanup_fd int copy = target < 0 ? target : mount_copy(id, BOOT_ID_FILE, false, MOUNT_RDONLY);
	if (copy < 0)
		return copy;
	return sys_move_mount(copy, "", target, "") ? failed("mount", BOOT_ID_SETTING) : 0;
}

static int restrict_all(int root)
{
	int result = 0;

	for (size_t i = 0; !result && i < LENGTH(masked); i++)
		result = mask(root, masked[i].path, masked[i].is_directory);
	for (size_t i = 0; !result && i < LENGTH(frozen); i++)
		result = freeze(root, frozen[i]);
	return result ? result : show_boot_id(root);
}

static int build(void)
{
	int result = 0;

	template_remove(); /* of a job that was killed on the way */
	for (size_t i = 0; !result && i < LENGTH(mounts); i++)
		result = mount_plain(mounts[i].fstype, mounts[i].path, mounts[i].flags, NULL);
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
	cleanup_fd int lock = openat(AT_FDCWD, "/run/hyper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
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
