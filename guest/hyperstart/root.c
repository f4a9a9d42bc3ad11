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

/* --- The overlay --- */

/* NO_SLOT and no path: what is written is kept in memory, and goes with the container. */
static int open_writable(const struct msg_source *source)
{
	if (source->slot != NO_SLOT || source->path[0])
		return source_open(source, false);
	int result = mount_plain("tmpfs", MEMORY_DIRECTORY, 0, NULL);
	return result ? result : open_directory(MEMORY_DIRECTORY);
}

/* One of the overlay's two directories in the writable one.  What is new is a directory, and no link. */
struct layer {
	int fd; /* -1: it is new */
	char path[48];
};

static int make_layer(struct layer *layer, int parent, const char *name)
{
	*layer = (struct layer){ .fd = -1 };
	if (!mkdirat(parent, name, 0755)) {
		snprintf(layer->path, sizeof(layer->path), "%s/%s", fd_path(parent).text, name);
		return 0;
	}
	layer->fd = errno == EEXIST ? open_in_root(parent, name, O_PATH | O_DIRECTORY) : -errno;
	snprintf(layer->path, sizeof(layer->path), "%s", fd_path(layer->fd).text);
	return layer->fd < 0 ? failed_with(-layer->fd, "make directory", name) : 0;
}

static int mount_overlay(int lower, const struct layer *upper, const struct layer *work)
{
	/* whiteouts as attributes that a mapped root may set: overlayfs.rst, "User xattr" */
	const char *more = guest.is_mapped ? ",userxattr" : "";
	char options[256];

	snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%s,workdir=%s%s", fd_path(lower).text,
		 upper->path, work->path, more);
	int result = mount_plain("overlay", ROOT_DIRECTORY, 0, options);
	return result ? result : open_directory(ROOT_DIRECTORY);
}

static int build_overlay(const struct msg_create_container *message)
{
	cleanup_fd int lower = source_open(&message->image, true);
	cleanup_fd int writable = lower < 0 ? -1 : open_writable(&message->writable);

	if (lower < 0 || writable < 0)
		return -guest.failure.error;
	struct layer upper, work = { .fd = -1 };
	int result = make_layer(&upper, writable, "upper");
	if (!result)
		result = make_layer(&work, writable, "work");
	if (!result)
		result = mount_overlay(lower, &upper, &work);
	close_fd(&upper.fd);
	close_fd(&work.fd);
	return result;
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
	int result = mount_plain("tmpfs", DEVICES_DIRECTORY, MS_NOSUID, "mode=755,size=64k");
	cleanup_fd int dev = result ? -1 : open_directory(DEVICES_DIRECTORY);

	if (dev < 0)
		return -guest.failure.error;
	result = make_devices(dev);
	if (!result)
		result = mount_in_new(terminals, "", dev, "pts");
	if (!result)
		result = mount_in_new(AT_FDCWD, SHM_DIRECTORY, dev, "shm");
	if (!result)
		result = mount_in_new(AT_FDCWD, TEMPLATE_DIRECTORY "/mqueue", dev, "mqueue");
	return result ? result : mount_move(DEVICES_DIRECTORY, root, "/dev");
}

/* --- /sys --- */

/* The container's own group, where programs look for their limits: the job was born in it. */
static int build_sys(int root)
{
	const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY;
	int result = guest.cgroup < 0
			     ? 0
			     : mount_plain("cgroup2", TEMPLATE_DIRECTORY "/sys/fs/cgroup", flags, NULL);

	return result ? result : mount_move(TEMPLATE_DIRECTORY "/sys", root, "/sys");
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

/* A new file at `path`, with all that it is to be. */
static int write_file(int root, const char *path, const struct msg_file *file)
{
	cleanup_fd int fd =
		openat(AT_FDCWD, path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, file->mode & 0777);
	int result = fd < 0 ? -errno : write_all(fd, file->data.data, file->data.size);

	return result ? failed_with(-result, "write", file->path) : dress_file(root, fd, file);
}

static bool is_mount_target(const struct msg_create_container *message, const char *path)
{
	for (uint32_t i = 0; i < message->mounts_count; i++)
		if (!strcmp(message->mounts[i].target, path))
			return true;
	return false;
}

static int build_file(int root, uint32_t number, const struct msg_file *file)
{
	char path[sizeof(FILES_DIRECTORY) + 12];

	snprintf(path, sizeof(path), FILES_DIRECTORY "/%u", number);
	int result = write_file(root, path, file);
	return result ? result : mount_bind(path, root, file->path);
}

/* Binds of files in a memory file system of the container's own, as Docker has them. */
static int build_files(int root, const struct msg_create_container *message)
{
	int result = message->files_count ? mount_plain("tmpfs", FILES_DIRECTORY, 0, "mode=700,size=2m") : 0;

	for (uint32_t i = 0; !result && i < message->files_count; i++)
		if (!is_mount_target(message, message->files[i].path)) /* a volume there is the user's wish */
			result = build_file(root, i, &message->files[i]);
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
	if (fchdir(root) || sys_pivot_root(".", ".") || umount2(".", MNT_DETACH))
		return failed("pivot_root", "");
	return 0;
}

static int build_in(int root, const struct container *container, const struct msg_create_container *message)
{
	int result = mount_move(TEMPLATE_DIRECTORY "/proc", root, "/proc");

	if (!result)
		result = build_sys(root);
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
	const int namespaces = CLONE_NEWNS | (guest.cgroup < 0 ? 0 : CLONE_NEWCGROUP);
	int result = pod_join();

	if (!result) /* still in hyperstart's mount namespace: other containers share the disks */
		result = mount_sources(message);
	if (result)
		return result;
	if (unshare(namespaces)) /* hyperstart's mounts are private, and so are their copies */
		return failed("unshare", "mounts");
	/* a volume may need many, the locks of disks are let go, and what is open for writing cannot become read-only */
	close_later = !message->mounts_count && !message->read_only;
	cleanup_fd int root = build_overlay(message);
	if (root < 0)
		return root;
	for (uint32_t i = 0; !result && i < message->mounts_count; i++)
		result = volume_populate(root, &message->mounts[i]); /* before a mount is in the way */
	return result ? result : build_in(root, container, message);
}
