/* See entry.h. */
#include "entry.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "path.h"

#define ATTRIBUTES_MEMORY (1u << 17) /* XATTR_LIST_MAX and XATTR_SIZE_MAX are half of it */

int item_open(const struct item *item, int flags)
{
	if (item->follow)
		return open_in_root(item->parent, item->name, flags);
	int fd = openat(item->parent, item->name, flags | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* --- Looking --- */

/* Not those of the kernel's own: trusted.overlay.* would change what the overlay shows. */
static bool is_kept(const char *name)
{
	return !strncmp(name, "user.", 5) || !strcmp(name, "security.capability") ||
	       !strncmp(name, "system.posix_acl_", 17);
}

/* File systems without attributes have none; one that is gone or too large is left out. */
static void look_at_attributes(int fd, struct entry *entry)
{
	static char names[ATTRIBUTES_MEMORY / 2];
	static uint8_t memory[ATTRIBUTES_MEMORY];
	ssize_t length = flistxattr(fd, names, sizeof(names));
	size_t used = 0;

	for (char *name = names; length > 0 && name < names + length; name += strlen(name) + 1) {
		if (entry->attributes_count == ENTRY_ATTRIBUTES || !is_kept(name))
			continue;
		ssize_t size = fgetxattr(fd, name, memory + used, sizeof(memory) - used);
		if (size < 0)
			continue;
		entry->attributes[entry->attributes_count++] =
			(struct attribute){ name, memory + used, (size_t)size };
		used += (size_t)size;
	}
}

static int look_at_link(int fd, struct entry *entry)
{
	static char target[PATH_MAX];
	ssize_t length = readlinkat(fd, "", target, sizeof(target) - 1);

	if (length < 0)
		return -errno;
	target[length] = '\0';
	entry->link = target;
	return 0;
}

static int look_inside(const struct item *item, struct entry *entry)
{
	int flags = O_RDONLY | O_NONBLOCK | (S_ISDIR(entry->mode) ? O_DIRECTORY : 0);
	cleanup_fd int fd = item_open(item, flags);

	if (fd < 0)
		return fd;
	look_at_attributes(fd, entry);
	return 0;
}

int entry_look(const struct item *item, struct entry *entry, struct stat *status)
{
	cleanup_fd int fd = item_open(item, O_PATH);

	if (fd < 0)
		return fd;
	if (fstat(fd, status))
		return -errno;
	*entry = (struct entry){
		.mode = status->st_mode,
		.uid = status->st_uid,
		.gid = status->st_gid,
		.size = S_ISREG(status->st_mode) ? (uint64_t)status->st_size : 0,
		.device = status->st_rdev,
		.modified = status->st_mtim,
	};
	if (S_ISLNK(status->st_mode))
		return look_at_link(fd, entry);
	return S_ISREG(status->st_mode) || S_ISDIR(status->st_mode) ? look_inside(item, entry) : 0;
}

/* --- Making --- */

static int make_file(int parent, const char *name)
{
	int fd = openat(parent, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : fd;
}

static int make_or_open_directory(int parent, const char *name)
{
	if (mkdirat(parent, name, 0700) && errno != EEXIST)
		return -errno;
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* A user namespace has no ids but those that are mapped to it. */
static int own(int result)
{
	return result && !guest.is_mapped ? -errno : 0;
}

/* By its name: a descriptor of it would take opening it.  Permissions are there from the start. */
static int dress_node(int parent, const char *name, const struct entry *entry)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, entry->modified };
	int result = own(fchownat(parent, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW));

	if (result)
		return result;
	return utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

int entry_make(int parent, const char *name, const struct entry *entry)
{
	int result;

	if (S_ISREG(entry->mode))
		return make_file(parent, name);
	if (S_ISDIR(entry->mode))
		return make_or_open_directory(parent, name);
	if (S_ISLNK(entry->mode))
		result = symlinkat(entry->link, parent, name);
	else
		result = mknodat(parent, name, entry->mode, entry->device);
	result = result ? -errno : dress_node(parent, name, entry);
	return result ? result : ENTRY_DONE;
}

static int set_attributes(int fd, const struct entry *entry)
{
	for (size_t i = 0; i < entry->attributes_count; i++) {
		const struct attribute *attribute = &entry->attributes[i];
		if (is_kept(attribute->name) &&
		    fsetxattr(fd, attribute->name, attribute->value, attribute->size, 0) &&
		    errno != ENOTSUP && errno != EPERM)
			return -errno;
	}
	return 0;
}

int entry_set_time(int fd, const struct timespec *modified)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, *modified };

	return futimens(fd, times) ? -errno : 0;
}

/* In this order: a change of the owner takes capabilities and set-user-ID away. */
int entry_dress(int fd, const struct entry *entry)
{
	int result = own(fchown(fd, entry->uid, entry->gid));

	if (!result)
		result = set_attributes(fd, entry);
	if (!result && fchmod(fd, entry->mode & 07777))
		result = -errno;
	return result ? result : entry_set_time(fd, &entry->modified);
}
