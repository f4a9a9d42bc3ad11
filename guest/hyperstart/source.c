/* See source.h. */
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk.h"
#include "fd.h"
#include "log.h"
#include "mount.h"
#include "path.h"

/* --- The share --- */

/* Without a machine: a directory with all that is mounted in it. */
static int bind_share(const char *path)
{
	cleanup_fd int fd = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	cleanup_fd int copy = fd < 0 ? failed("open", path) : mount_copy(fd, path, true, 0);

	return copy < 0 ? copy : mount_at(copy, AT_FDCWD, SHARE_DIRECTORY, true);
}

int share_mount(const char *type, const char *options)
{
	if (!type[0])
		return 0;
	share_unmount(); /* of a pod whose set-up failed */
	if (!strcmp(type, "bind"))
		return bind_share(options);
	if (mkdir(SHARE_DIRECTORY, 0700) && errno != EEXIST)
		return failed("mkdir", SHARE_DIRECTORY);
	/* mount(2), as hostfs takes a bare path, which fsconfig(2) has no form for */
	return mount("share", SHARE_DIRECTORY, type, MS_NOSUID | MS_NODEV, options)
		       ? failed("mount the share, type", type)
		       : 0;
}

void share_unmount(void)
{
	while (!umount2(SHARE_DIRECTORY, MNT_DETACH | UMOUNT_NOFOLLOW))
		;
	rmdir(SHARE_DIRECTORY);
}

/* --- Any source --- */

/* What is written has a directory that is new mostly: a name by itself leads nowhere else, so it is made first. */
static int make_first(int root, const char *path)
{
	if (!strchr(path, '/'))
		mkdirat(root, path, 0755); /* what is in the way is found next */
	return make_directory(root, path);
}

/* Containers that are made side by side have disks in common: one at a time. */
int source_mount(const struct msg_source *source)
{
	if (source->slot == NO_SLOT || source->slot == SHARE_SLOT)
		return 0;
	if (disk_is_mounted(source->slot)) /* and stays so: a container that is being made has it already */
		return 0;
	cleanup_fd int lock = openat(AT_FDCWD, "/run/hyper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0 || flock(lock, LOCK_EX))
		return failed("lock", "/run/hyper");
	return disk_mount(source->slot);
}

int source_root(const struct msg_source *source)
{
	char path[32] = "/";

	if (source->slot == SHARE_SLOT)
		strcpy(path, SHARE_DIRECTORY);
	else if (source->slot != NO_SLOT)
		disk_path(source->slot, path);
	return open_directory(path);
}

int source_open(const struct msg_source *source, bool may_be_file)
{
	cleanup_fd int root = source_root(source);

	if (root < 0 || (!source->path[0] && may_be_file))
		return steal_fd(&root);
	if (source->slot != SHARE_SLOT && !may_be_file)
		return make_first(root, source->path);
	int fd = open_in_root(root, source->path, O_PATH);
	if (fd >= 0 && may_be_file)
		return fd;
	if (source->slot == SHARE_SLOT)
		return failed_with(fd < 0 ? -fd : ENOTDIR, "open in the share", source->path);
	close_fd(&fd);
	return make_directory(root, source->path);
}
