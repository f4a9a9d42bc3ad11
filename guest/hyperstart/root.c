/*
 * See root.h.
 *
 * The container's root is not trusted: its image, and what ran in it before, may hold any symbolic
 * link.  So each target is resolved inside it, once, to a descriptor that the mount is put on.
 */

#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "disk.h"
#include "fd.h"
#include "guest.h"
#include "kernel.h"
#include "mount.h"
#include "path.h"
#include "source.h"
#include "template.h"
#include "user.h"
#include "volume.h"

#define MEMORY_DIRECTORY "/run/hyper/memory"
#define FILES_DIRECTORY "/run/hyper/files"

/* --- The overlay --- */

/* NO_SLOT and no path: what is written is kept in memory, and goes with the container. */
static int open_writable(const struct msg_source *source)
{
	if (source->slot != NO_SLOT || source->path[0])
		return source_open(source, false);
	int result = mount_plain("tmpfs", MEMORY_DIRECTORY, NULL, 0);
	return result ? result : make_directory(AT_FDCWD, MEMORY_DIRECTORY);
}

/* In a directory that is new mostly: so it is made before it is looked for. */
static int make_inner(int parent, const char *name)
{
	if (mkdirat(parent, name, 0755) && errno != EEXIST)
		return failed("make directory", name);
	int fd = open_in_root(parent, name, O_PATH | O_DIRECTORY);
	return fd < 0 ? failed_with(-fd, "make directory", name) : fd;
}

static int mount_overlay(int lower, int upper, int work)
{
	const struct proc_path lower_path = fd_path(lower), upper_path = fd_path(upper),
			       work_path = fd_path(work);
	const struct mount_option options[] = {
		{ "lowerdir", lower_path.text },
		{ "upperdir", upper_path.text },
		{ "workdir", work_path.text },
		/* whiteouts as attributes that a mapped root may set: overlayfs.rst, "User xattr" */
		{ guest.is_mapped ? "userxattr" : NULL, NULL },
		{ NULL, NULL },
	};

	return mount_new("overlay", NULL, options, 0);
}

static int build_overlay(const struct msg_create_container *message)
{
	cleanup_fd int lower = source_open(&message->image, true);
	cleanup_fd int writable = lower < 0 ? -1 : open_writable(&message->writable);

	if (lower < 0 || writable < 0)
		return -guest.failure.error;
	cleanup_fd int upper = make_inner(writable, "upper");
	cleanup_fd int work = make_inner(writable, "work");
	if (upper < 0 || work < 0)
		return -guest.failure.error;
	return mount_overlay(lower, upper, work);
}

/* --- /dev --- */

static const struct {
	const char *name;
	unsigned int minor;
	unsigned int major;
} devices[] = {
	/* Documentation/admin-guide/devices.txt */
	{ "null", 3, 1 },   { "zero", 5, 1 },	 { "full", 7, 1 },
	{ "random", 8, 1 }, { "urandom", 9, 1 }, { "tty", 0, 5 },
};

static const struct {
	const char *name, *target;
} device_links[] = {
	{ "fd", "/proc/self/fd" },	 { "stdin", "/proc/self/fd/0" }, { "stdout", "/proc/self/fd/1" },
	{ "stderr", "/proc/self/fd/2" }, { "core", "/proc/kcore" },	 { "ptmx", "pts/ptmx" },
};

/* A mapped root may make no nodes, but may show those that there are. */
static int bind_device(int dev, const char *name)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/%s", name);
	cleanup_fd int node = openat(AT_FDCWD, path, O_PATH | O_CLOEXEC);
	cleanup_fd int copy = node < 0 ? failed("open", path) : mount_copy(node, path, false, 0);
	return copy < 0 ? copy : mount_at(copy, dev, name, false);
}

static int make_devices(int dev)
{
	for (size_t i = 0; i < LENGTH(devices); i++) {
		dev_t number = makedev(devices[i].major, devices[i].minor);
		int result = guest.is_mapped ? bind_device(dev, devices[i].name)
			     : mknodat(dev, devices[i].name, S_IFCHR | 0666, number)
				     ? failed("mknod", devices[i].name)
				     : 0;
		if (result)
			return result;
	}
	for (size_t i = 0; i < LENGTH(device_links); i++)
		if (symlinkat(device_links[i].target, dev, device_links[i].name))
			return failed("symlink", device_links[i].name);
	return guest.in_namespaces ? 0 : disk_make_nodes(dev);
}

static int build_dev(int root, int terminals)
{
	const struct mount_option options[] = { { "mode", "755" }, { "size", "64k" }, { NULL, NULL } };
	cleanup_fd int dev = mount_new("tmpfs", NULL, options, MOUNT_NOSUID);

	if (dev < 0)
		return dev;
	int result = mount_at(dev, root, "/dev", true);
	if (!result)
		result = make_devices(dev);
	if (!result)
		result = mount_in_new(terminals, "", dev, "pts");
	if (!result)
		result = mount_in_new(AT_FDCWD, SHM_DIRECTORY, dev, "shm");
	return result ? result : mount_in_new(AT_FDCWD, TEMPLATE_DIRECTORY "/mqueue", dev, "mqueue");
}

/* --- /sys/fs/cgroup --- */

/* The container's own group, where programs look for their limits; the job was born in it. */
static int build_cgroup(int root)
{
	if (guest.cgroup < 0)
		return 0;
	if (unshare(CLONE_NEWCGROUP))
		return failed("unshare", "cgroups");
	cleanup_fd int cgroup =
		mount_new("cgroup2", NULL, NULL, MOUNT_NOSUID | MOUNT_NODEV | MOUNT_NOEXEC | MOUNT_RDONLY);
	return cgroup < 0 ? cgroup : mount_at(cgroup, root, "/sys/fs/cgroup", true);
}

/* --- Files --- */

/* It is root's, and has its permissions, from the start; set-user-ID would not outlive a change of owner. */
static int dress_file(int root, int fd, const struct msg_file *file)
{
	static struct user owner;

	if (file->owner[0] && user_find(root, file->owner, NULL, 0, &owner))
		return -guest.failure.error;
	if (file->owner[0] && fchown(fd, owner.uid, owner.gid))
		return failed("chown", file->path);
	if (file->mode & 07000 && fchmod(fd, file->mode & 07777))
		return failed("chmod", file->path);
	return 0;
}

/* The descriptor of a new file, with all that it is to be. */
static int write_file(int root, int directory, const char *name, const struct msg_file *file)
{
	cleanup_fd int fd =
		openat(directory, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, file->mode & 0777);
	int result = fd < 0 ? -errno : write_all(fd, file->data.data, file->data.size);

	if (result)
		return failed_with(-result, "write", file->path);
	result = dress_file(root, fd, file);
	return result ? result : steal_fd(&fd);
}

static bool is_mount_target(const struct msg_create_container *message, const char *path)
{
	for (uint32_t i = 0; i < message->mounts_count; i++)
		if (!strcmp(message->mounts[i].target, path))
			return true;
	return false;
}

static int build_file(int root, int directory, const char *name, const struct msg_file *file)
{
	cleanup_fd int fd = write_file(root, directory, name, file);
	cleanup_fd int copy = fd < 0 ? fd : mount_copy(fd, file->path, false, 0);

	return copy < 0 ? copy : mount_at(copy, root, file->path, false);
}

/* Binds of files in a memory file system of the container's own, as Docker has them. */
static int build_files(int root, const struct msg_create_container *message)
{
	const struct mount_option options[] = { { "mode", "700" }, { "size", "2m" }, { NULL, NULL } };
	cleanup_fd int directory = message->files_count ? mount_new("tmpfs", NULL, options, 0) : -1;

	if (!message->files_count || directory < 0)
		return message->files_count ? directory : 0;
	int result = mount_at(directory, AT_FDCWD, FILES_DIRECTORY, true);
	for (uint32_t i = 0; !result && i < message->files_count; i++) {
		char name[16];
		snprintf(name, sizeof(name), "%u", i);
		if (!is_mount_target(message, message->files[i].path)) /* a volume there is the user's wish */
			result = build_file(root, directory, name, &message->files[i]);
	}
	return result;
}

/* --- All of it --- */

static int make_read_only(int root)
{
	struct mount_attributes change = { .set = MOUNT_RDONLY };

	return sys_mount_setattr(root, 0, &change) ? failed("mount read-only", "/") : 0;
}

/* The old root is put over the new one, and taken away: pivot_root(2), "pivot_root(".", ".")". */
int root_enter(int root)
{
	if (fchdir(root) || sys_pivot_root(".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
		return failed("pivot_root", "");
	return 0;
}

static int build_in(int root, const struct container *container, const struct msg_create_container *message)
{
	int result = mount_move(TEMPLATE_DIRECTORY "/proc", root, "/proc");

	if (!result)
		result = mount_move(TEMPLATE_DIRECTORY "/sys", root, "/sys");
	if (!result)
		result = build_cgroup(root);
	if (!result)
		result = build_dev(root, container->terminals);
	for (uint32_t i = 0; !result && i < message->mounts_count; i++)
		result = volume_mount(root, &container->job, &message->mounts[i]);
	if (!result)
		result = build_files(root, message);
	if (!result && message->read_only)
		result = make_read_only(root);
	return result ? result : root_enter(root);
}

/* In hyperstart's mount namespace. */
static int mount_sources(const struct msg_create_container *message)
{
	int result = source_mount(&message->image);

	if (!result)
		result = template_build();
	if (!result)
		result = source_mount(&message->writable);
	for (uint32_t i = 0; !result && i < message->mounts_count; i++)
		if (!strcmp(message->mounts[i].fstype, "bind"))
			result = source_mount(&message->mounts[i].source);
	return result;
}

int root_build(const struct container *container, const struct msg_create_container *message)
{
	int result = pod_join();

	umask(0);
	if (!result) /* still in hyperstart's mount namespace: other containers share the disks */
		result = mount_sources(message);
	if (result)
		return result;
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return failed("unshare", "mounts");
	/* a volume may need many, the locks of disks are let go, and what is open for writing cannot become read-only */
	close_later = !message->mounts_count && !message->read_only;
	cleanup_fd int root = build_overlay(message);
	if (root < 0)
		return root;
	result = mount_at(root, AT_FDCWD, ROOT_DIRECTORY, true);
	for (uint32_t i = 0; !result && i < message->mounts_count; i++)
		result = volume_populate(root, &message->mounts[i]); /* before a mount is in the way */
	return result ? result : build_in(root, container, message);
}
