/* See machine.h. */
#include "machine.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "mount.h"
#include "root.h"

static const char *const shown[] = { "/proc", "/sys", "/dev", "/run" };
/* What the container has there is taken away, so that `mount` lists only what is seen. */
static const char *const hidden[] = { ROOT_DIRECTORY "/proc", ROOT_DIRECTORY "/sys", ROOT_DIRECTORY "/dev" };

static int copy_tree(const char *path)
{
	cleanup_fd int fd = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? failed("open", path) : mount_copy(fd, path, true, 0);
}

/* Trees can be copied only by who is in their mount namespace: so there and back again. */
static int copy_root(const struct container *container)
{
	cleanup_fd int own = openat(AT_FDCWD, "/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);

	if (own < 0 || setns(container->mount_namespace, CLONE_NEWNS))
		return failed("setns", "mounts");
	cleanup_fd int root = copy_tree("/");
	if (setns(own, CLONE_NEWNS))
		return failed("setns back", "mounts");
	return steal_fd(&root);
}

static void close_copies(int copies[LENGTH(shown)])
{
	for (size_t i = 0; i < LENGTH(shown); i++)
		close_fd(&copies[i]);
}

/* Before the root is mounted below /run: a copy of that would hold it once more. */
static int copy_shown(int copies[LENGTH(shown)])
{
	int result = 0;

	for (size_t i = 0; i < LENGTH(shown); i++) {
		copies[i] = result ? -1 : copy_tree(shown[i]);
		result = copies[i] < 0 ? copies[i] : result;
	}
	return result;
}

static int build(int root)
{
	int copies[LENGTH(shown)];
	int result = copy_shown(copies);

	if (!result)
		result = mount_at(root, AT_FDCWD, ROOT_DIRECTORY, true);
	for (size_t i = 0; !result && i < LENGTH(hidden); i++)
		umount2(hidden[i], MNT_DETACH | UMOUNT_NOFOLLOW);
	for (size_t i = 0; !result && i < LENGTH(shown); i++)
		result = mount_at(copies[i], root, shown[i], true);
	close_copies(copies);
	return result ? result : root_enter(root);
}

int machine_enter(const struct container *container)
{
	cleanup_fd int root = copy_root(container);

	if (root < 0)
		return root;
	if (unshare(CLONE_NEWNS)) /* hyperstart's mounts are private, and so are their copies */
		return failed("unshare", "mounts");
	return build(root);
}
