/* See volume.h. */
#include "volume.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "copy.h"
#include "fd.h"
#include "guest.h"
#include "kernel.h"
#include "mount.h"
#include "nfs.h"
#include "path.h"
#include "source.h"

/* --- Populating --- */

/* Under another name first, which only a whole copy loses. */
static int copy_whole(const struct item *from, int parent, const char *name)
{
	char partial[NAME_MAX + 8];

	snprintf(partial, sizeof(partial), ".%s.new", name);
	int result = remove_tree(parent, partial); /* of a machine whose power was cut */
	if (!result)
		result = copy_tree(from, parent, partial);
	if (result) {
		const struct failure failure = guest.failure;
		remove_tree(parent, partial);
		guest.failure = failure;
		return result;
	}
	if (syncfs(parent) || sys_rename_new(parent, partial, name))
		return failed("make volume", name);
	return 0;
}

/* One at a time for all containers of the machine, and only the first copies. */
static int populate(const struct item *from, int disk, const char *path)
{
	char above[PATH_MAX];
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	snprintf(above, sizeof(above), "%.*s", (int)(name - path), path);
	if (!name[0] || name[0] == '.' || strlen(name) > NAME_MAX - 5 || strlen(path) >= sizeof(above))
		return failed_with(EINVAL, "make volume", path);
	cleanup_fd int made = make_directory(disk, above);
	cleanup_fd int parent = made < 0 ? made : openat(made, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (made < 0)
		return made;
	if (parent < 0 || flock(parent, LOCK_EX))
		return failed("lock", path);
	cleanup_fd int there = open_in_root(parent, name, O_PATH);
	return there >= 0 ? 0 : copy_whole(from, parent, name);
}

int volume_populate(int root, const struct msg_mount *mount)
{
	const struct item from = { .parent = root, .name = mount->target, .follow = true };
	struct stat status;

	if (!mount->populate || strcmp(mount->fstype, "bind") || mount->source.slot == SHARE_SLOT)
		return 0;
	cleanup_fd int disk = source_root(&mount->source);
	if (disk < 0)
		return disk;
	cleanup_fd int there = open_in_root(disk, mount->source.path, O_PATH);
	cleanup_fd int model = open_in_root(root, mount->target, O_PATH);
	if (there >= 0 || model < 0 || fstat(model, &status) || !S_ISDIR(status.st_mode))
		return 0; /* then it is what any source is: there, or made and empty */
	return populate(&from, disk, mount->source.path);
}

/* --- Mounting --- */

static int bind_source(const struct msg_mount *mount, const struct mount_options *options, bool *is_directory)
{
	bool recursive = options->recursive || mount->source.slot == SHARE_SLOT;
	cleanup_fd int source = source_open(&mount->source, true);
	struct stat status;

	if (source < 0)
		return source;
	if (options->data[0].key)
		return failed_with(EINVAL, "mount option of a bind", options->data[0].key);
	if (fstat(source, &status))
		return failed("stat", mount->source.path);
	*is_directory = S_ISDIR(status.st_mode);
	return mount_copy(source, mount->source.path, recursive, options->attributes);
}

int volume_mount(int root, const struct job *job, const struct msg_mount *mount)
{
	struct mount_options options;
	bool is_directory = true;
	int result = mount_options_parse(mount->options, &options);

	if (result)
		return result;
	cleanup_fd int fd = !strcmp(mount->fstype, "bind") ? bind_source(mount, &options, &is_directory)
			    : !strcmp(mount->fstype, "nfs4")
				    ? nfs_mount(mount->source.path, &options, job)
				    : mount_new(mount->fstype, NULL, options.data, options.attributes);
	return fd < 0 ? fd : mount_at(fd, root, mount->target, is_directory);
}
