/* See mount.h. */
#include "mount.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "fd.h"
#include "kernel.h"
#include "log.h"
#include "path.h"

static int configure(int fs, const struct mount_option *option)
{
	return sys_fsconfig(fs, option->value ? FSCONFIG_SET_STRING_ : FSCONFIG_SET_FLAG_, option->key,
			    option->value);
}

int mount_new(const char *fstype, const char *source, const struct mount_option *options,
	      unsigned int attributes)
{
	cleanup_fd int fs = sys_fsopen(fstype);
	int mount;

	if (fs < 0)
		return failed("fsopen", fstype);
	/* any name will do for file systems without a device; it is what /proc/mounts shows */
	if (sys_fsconfig(fs, FSCONFIG_SET_STRING_, "source", source ? source : fstype))
		return failed("mount source", source ? source : fstype);
	if (attributes & MOUNT_RDONLY && sys_fsconfig(fs, FSCONFIG_SET_FLAG_, "ro", NULL))
		return failed("mount read-only", fstype);
	for (; options && options->key; options++)
		if (configure(fs, options))
			return failed("mount option", options->key);
	if (sys_fsconfig(fs, FSCONFIG_CMD_CREATE_, NULL, NULL))
		return failed("mount", source ? source : fstype);
	mount = sys_fsmount(fs, attributes);
	return mount < 0 ? failed("fsmount", fstype) : mount;
}

int mount_copy(int fd, const char *name, bool recursive, unsigned int attributes)
{
	struct mount_attributes change = { .set = attributes };
	unsigned int depth = recursive ? AT_RECURSIVE_ : 0;
	cleanup_fd int mount = sys_clone_tree(fd, "", depth);

	if (mount < 0)
		return failed("copy mount", name);
	if (attributes && sys_mount_setattr(mount, depth, &change))
		return failed("change mount", name);
	return steal_fd(&mount);
}

bool is_mounted(const char *path)
{
	struct extended_status status;

	return !sys_statx(AT_FDCWD, path, &status) && status.attributes & STATX_ATTR_MOUNT_ROOT_;
}

int mount_at(int mount, int root, const char *path, bool is_directory)
{
	cleanup_fd int target = make_mount_point(root, path, is_directory);

	if (target < 0)
		return target;
	return sys_move_mount(mount, "", target, "") ? failed("mount on", path) : 0;
}

int mount_bind(const char *from, int root, const char *path)
{
	cleanup_fd int target = make_mount_point(root, path, false);

	if (target < 0)
		return target;
	return mount(from, fd_path(target).text, NULL, MS_BIND, NULL) ? failed("mount on", path) : 0;
}

int mount_move(const char *from, int root, const char *path)
{
	cleanup_fd int target = make_mount_point(root, path, true);

	if (target < 0)
		return target;
	return sys_move_mount(AT_FDCWD, from, target, "") ? failed("mount on", path) : 0;
}

int mount_in_new(int mount, const char *from, int parent, const char *name)
{
	if (mkdirat(parent, name, 0755))
		return failed("make directory", name);
	return sys_move_mount(mount, from, parent, name) ? failed("mount on", name) : 0;
}

int mount_plain(const char *fstype, const char *directory, unsigned long flags, const char *options)
{
	if (!mount(fstype, directory, fstype, flags, options))
		return 0;
	if (errno != ENOENT)
		return failed("mount", directory);
	cleanup_fd int made = make_directory(AT_FDCWD, directory);
	if (made < 0)
		return made;
	return mount(fstype, directory, fstype, flags, options) ? failed("mount", directory) : 0;
}

int mount_detached(const char *fstype, const char *directory, unsigned long flags, const char *options)
{
	int result = mount_plain(fstype, directory, flags, options);

	if (result)
		return result;
	cleanup_fd int copy = sys_clone_tree(AT_FDCWD, directory, 0);
	if (copy < 0 || umount2(directory, MNT_DETACH))
		return failed("copy mount", directory);
	return steal_fd(&copy);
}

/* mount(8)'s words for a mount's attributes; the rest is for the file system. */
static const struct {
	const char *word;
	unsigned int set, clear;
} words[] = {
	{ "ro", MOUNT_RDONLY, 0 },
	{ "rw", 0, MOUNT_RDONLY },
	{ "nosuid", MOUNT_NOSUID, 0 },
	{ "suid", 0, MOUNT_NOSUID },
	{ "nodev", MOUNT_NODEV, 0 },
	{ "dev", 0, MOUNT_NODEV },
	{ "noexec", MOUNT_NOEXEC, 0 },
	{ "exec", 0, MOUNT_NOEXEC },
	{ "noatime", MOUNT_NOATIME, 0 },
	{ "relatime", 0, MOUNT_NOATIME }, /* the kernel's own way */
	/* each container's mounts are private, and these are the words for that */
	{ "private", 0, 0 },
	{ "rprivate", 0, 0 },
	{ "bind", 0, 0 },
	{ "defaults", 0, 0 },
};

static bool take_word(struct mount_options *options, const char *word)
{
	for (size_t i = 0; i < LENGTH(words); i++)
		if (!strcmp(word, words[i].word)) {
			options->attributes = (options->attributes | words[i].set) & ~words[i].clear;
			return true;
		}
	if (strcmp(word, "rbind"))
		return false;
	options->recursive = true;
	return true;
}

int mount_options_parse(char *text, struct mount_options *options)
{
	size_t count = 0;
	char *rest = text;

	*options = (struct mount_options){ 0 };
	for (char *word; (word = strsep(&rest, ","));) {
		if (!*word || take_word(options, word))
			continue;
		if (count == MOUNT_OPTIONS)
			return failed_with(E2BIG, "mount option", word);
		options->data[count].key = strsep(&word, "=");
		options->data[count++].value = word;
	}
	return 0;
}
