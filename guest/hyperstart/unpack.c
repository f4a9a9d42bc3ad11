/*
 * See archive.h: from a tar stream to a tree.
 *
 * The stream is anybody's.  A name is taken apart: its ".." may not lead above the target, and each
 * directory on its way is opened by itself.  Symbolic links that were there before are followed, inside
 * the root, as the container's own processes would; those that came with the stream are not, so that no
 * entry lands elsewhere than it says.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive.h"
#include "entry.h"
#include "fd.h"
#include "log.h"
#include "path.h"
#include "tar.h"
#include "user.h"

#define OPEN_DIRECTORIES 256 /* whose time is set again when all in them is unpacked */

struct source { /* stdin, in large pieces */
	size_t begin, end;
	uint8_t buffer[1u << 16];
};

struct link_id {
	dev_t device;
	ino_t inode;
};

/* The last name that was looked up; most entries have the same owner. */
struct owner {
	char name[256];
	uint32_t id;
	bool is_known;
};

struct directory {
	int fd;
	struct timespec modified;
	char *name;
};

struct unpacker {
	struct source source;
	struct tar_reader reader;
	int root, target;
	const char *path; /* of the target */
	bool keep_owners;
	struct stat owner; /* of the target */
	struct owner user, group;
	struct link_id *links; /* those that came with the stream; its size is a power of two */
	size_t links_count, links_size;
	struct directory open[OPEN_DIRECTORIES];
	size_t open_count;
};

static struct unpacker unpacker;

static int unpack_failed(int error, const char *name)
{
	return failed_with(error, "unpack", name);
}

/* --- The stream --- */

static ssize_t read_stdin(void *data, size_t size)
{
	ssize_t count;

	do
		count = read(STDIN_FILENO, data, size);
	while (count < 0 && errno == EINTR);
	return count < 0 ? -errno : count;
}

static ssize_t read_source(void *context, void *data, size_t size)
{
	struct source *source = context;

	if (source->begin == source->end && size >= sizeof(source->buffer))
		return read_stdin(data, size);
	if (source->begin == source->end) {
		ssize_t count = read_stdin(source->buffer, sizeof(source->buffer));
		if (count < 0)
			return count;
		source->begin = 0;
		source->end = (size_t)count;
	}
	size_t part = source->end - source->begin < size ? source->end - source->begin : size;
	memcpy(data, source->buffer + source->begin, part);
	source->begin += part;
	return (ssize_t)part;
}

/* --- Symbolic links of the stream --- */

static size_t link_place(const struct link_id *links, size_t size, const struct link_id *id)
{
	size_t at = (size_t)(id->inode * 2654435761u ^ id->device) % size;

	while (links[at].inode && (links[at].inode != id->inode || links[at].device != id->device))
		at = (at + 1) % size;
	return at;
}

static bool is_of_stream(const struct stat *status)
{
	const struct link_id id = { status->st_dev, status->st_ino };

	return unpacker.links_size &&
	       unpacker.links[link_place(unpacker.links, unpacker.links_size, &id)].inode;
}

static int grow_links(void)
{
	size_t size = unpacker.links_size ? 2 * unpacker.links_size : 256;
	struct link_id *links = calloc(size, sizeof(*links));

	if (!links)
		return -ENOMEM;
	for (size_t i = 0; i < unpacker.links_size; i++)
		if (unpacker.links[i].inode)
			links[link_place(links, size, &unpacker.links[i])] = unpacker.links[i];
	free(unpacker.links);
	unpacker.links = links;
	unpacker.links_size = size;
	return 0;
}

static int remember_link(int parent, const char *name)
{
	struct stat status;
	int result = unpacker.links_count >= unpacker.links_size / 2 ? grow_links() : 0;

	if (!result && fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW))
		result = -errno;
	if (result)
		return result;
	const struct link_id id = { status.st_dev, status.st_ino };
	unpacker.links[link_place(unpacker.links, unpacker.links_size, &id)] = id;
	unpacker.links_count++;
	return 0;
}

/* --- Names --- */

/* Without "", "." and "..": false when it leads above where it begins, or is too long. */
static bool clean_name(const char *name, char clean[PATH_MAX])
{
	size_t length = 0;

	while (*name) {
		size_t size = strcspn(name, "/");
		const char *next = name + size + (name[size] == '/');
		if (size == 2 && !memcmp(name, "..", 2)) {
			if (!length)
				return false;
			while (length && clean[--length] != '/')
				;
		} else if (size && !(size == 1 && *name == '.')) {
			if (length + size + 2 > PATH_MAX)
				return false;
			if (length)
				clean[length++] = '/';
			memcpy(clean + length, name, size);
			length += size;
		}
		name = next;
	}
	clean[length] = '\0';
	return true;
}

/* A link that was there before, at the end of `name`. */
static int follow(const char *name, int length)
{
	char path[2 * PATH_MAX];

	snprintf(path, sizeof(path), "%s/%.*s", unpacker.path, length, name);
	return open_in_root(unpacker.root, path, O_PATH | O_DIRECTORY);
}

static int make_parent(int directory, const char *name)
{
	if (mkdirat(directory, name, 0755))
		return -errno;
	int fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 &&
	    fchownat(directory, name, unpacker.owner.st_uid, unpacker.owner.st_gid, AT_SYMLINK_NOFOLLOW)) {
		/* a user namespace without that id; the directory is there */
	}
	return fd < 0 ? -errno : fd;
}

/* The directory that is `length` bytes of `name`; `component` is the last part of that. */
static int step(int directory, const char *component, const char *name, int length)
{
	struct stat status;
	cleanup_fd int fd = openat(directory, component, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		fd = make_parent(directory, component);
	else if (fd < 0)
		fd = -errno;
	if (fd < 0)
		return fd;
	if (fstat(fd, &status))
		return -errno;
	if (S_ISDIR(status.st_mode))
		return steal_fd(&fd);
	if (!S_ISLNK(status.st_mode))
		return -ENOTDIR;
	return is_of_stream(&status) ? -ELOOP : follow(name, length);
}

/* The directory of a clean name, made when absent, and what it is called there. */
static int open_parent(const char *name, const char **base)
{
	char component[NAME_MAX + 1];
	int directory = dup(unpacker.target);
	const char *at = name, *slash;

	while (directory >= 0 && (slash = strchr(at, '/'))) {
		cleanup_fd int above = directory;
		if (slash - at > NAME_MAX)
			return -ENAMETOOLONG;
		snprintf(component, sizeof(component), "%.*s", (int)(slash - at), at);
		directory = step(above, component, name, (int)(slash - name));
		at = slash + 1;
	}
	*base = at;
	return directory;
}

/* --- Owners --- */

/* The id of `name`, or when nobody has it the number beside it, unless that says that there is none. */
static int find_owner(struct owner *known, const char *name, uint32_t *id,
		      bool (*find)(int root, const char *name, uint32_t *id))
{
	if (!name[0])
		return 0;
	if (strlen(name) >= sizeof(known->name))
		return unpack_failed(ENAMETOOLONG, "an owner's name");
	if (strcmp(known->name, name) != 0) {
		strcpy(known->name, name);
		known->is_known = find(unpacker.root, name, &known->id);
	}
	if (known->is_known)
		*id = known->id;
	return *id == NO_OWNER ? failed_with(EINVAL, "find owner", name) : 0;
}

static int choose_owner(struct tar_entry *tar)
{
	struct entry *entry = &tar->entry;

	if (!unpacker.keep_owners) {
		entry->uid = unpacker.owner.st_uid;
		entry->gid = unpacker.owner.st_gid;
		return 0;
	}
	int result = find_owner(&unpacker.user, tar->user, &entry->uid, user_find_uid);
	return result ? result : find_owner(&unpacker.group, tar->group, &entry->gid, user_find_gid);
}

/* --- Directories --- */

static int close_directory(void)
{
	struct directory *directory = &unpacker.open[--unpacker.open_count];
	int result = entry_set_time(directory->fd, &directory->modified);

	close(directory->fd);
	free(directory->name);
	return result;
}

static bool is_below(const char *name, const char *directory)
{
	size_t length = strlen(directory);

	return !strncmp(name, directory, length) && name[length] == '/';
}

/* Those that nothing more goes into, as streams are in the order of the tree. */
static int close_directories(const char *name)
{
	int result = 0;

	while (!result && unpacker.open_count &&
	       !(name && is_below(name, unpacker.open[unpacker.open_count - 1].name)))
		result = close_directory();
	return result;
}

static void keep_directory(int fd, const char *name, const struct timespec *modified)
{
	char *copy = unpacker.open_count < OPEN_DIRECTORIES ? strdup(name) : NULL;

	if (copy)
		unpacker.open[unpacker.open_count++] = (struct directory){ fd, *modified, copy };
	else
		close(fd);
}

/* One that was there keeps its owner, unless the stream's are wanted. */
static int unpack_directory(int parent, const char *base, const char *name, struct entry *entry)
{
	struct stat before;
	bool was_there = !fstatat(parent, base, &before, AT_SYMLINK_NOFOLLOW);

	if (was_there && !unpacker.keep_owners) {
		entry->uid = before.st_uid;
		entry->gid = before.st_gid;
	}
	int fd = entry_make(parent, base, entry);
	int result = fd < 0 ? fd : entry_dress(fd, entry);
	if (fd >= 0)
		keep_directory(fd, name, &entry->modified);
	return result;
}

/* --- Entries --- */

/* What is there goes, and is never written through: other names of it keep what they have. */
static int make_room(int parent, const char *base)
{
	struct stat status;

	if (fstatat(parent, base, &status, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(status.st_mode))
		return -EISDIR;
	return unlinkat(parent, base, 0) ? -errno : 0;
}

static int unpack_hard_link(int parent, const char *base, const char *name, const struct tar_entry *tar)
{
	char clean[PATH_MAX];
	const char *link_base;

	if (!clean_name(tar->entry.link, clean) || !clean[0])
		return -EINVAL;
	if (!strcmp(clean, name))
		return 0;
	cleanup_fd int link_parent = open_parent(clean, &link_base);
	if (link_parent < 0)
		return link_parent;
	int result = make_room(parent, base);
	if (result)
		return result;
	return linkat(link_parent, link_base, parent, base, 0) ? -errno : 0;
}

static int unpack_content(int fd)
{
	static uint8_t data[1u << 16];
	ssize_t count;
	int result = 0;

	while (!result && (count = tar_read(&unpacker.reader, data, sizeof(data)))) {
		if (count < 0)
			return (int)count;
		result = write_all(fd, data, (size_t)count);
	}
	return result;
}

static int unpack_other(int parent, const char *base, const struct entry *entry)
{
	int result = make_room(parent, base);

	if (result)
		return result;
	cleanup_fd int fd = entry_make(parent, base, entry);
	if (fd == ENTRY_DONE)
		return S_ISLNK(entry->mode) ? remember_link(parent, base) : 0;
	result = fd < 0 ? fd : unpack_content(fd);
	return result ? result : entry_dress(fd, entry);
}

static int unpack_at(int parent, const char *base, const char *name, struct tar_entry *tar)
{
	if (tar->is_hard_link)
		return unpack_hard_link(parent, base, name, tar);
	if (S_ISDIR(tar->entry.mode))
		return unpack_directory(parent, base, name, &tar->entry);
	return unpack_other(parent, base, &tar->entry);
}

/* The target itself stays as it is: an archive of "." is no reason to close /tmp to others. */
static int unpack_entry(struct tar_entry *tar)
{
	char name[PATH_MAX];
	const char *base;

	if (!clean_name(tar->name, name))
		return unpack_failed(EINVAL, tar->name);
	if (!name[0])
		return S_ISDIR(tar->entry.mode) ? 0 : unpack_failed(EISDIR, tar->name);
	int result = choose_owner(tar);
	if (result)
		return result;
	result = close_directories(name);
	cleanup_fd int parent = result ? -1 : open_parent(name, &base);
	if (!result)
		result = parent < 0 ? parent : unpack_at(parent, base, name, tar);
	return result ? unpack_failed(-result, tar->name) : 0;
}

int unpack_find(int root, const struct msg_start_archive *message)
{
	int fd = open_in_root(root, message->path, O_RDONLY | O_DIRECTORY);

	if (fd < 0)
		return failed_with(-fd, "open", message->path);
	return fstat(fd, &unpacker.owner) ? failed("stat", message->path) : fd;
}

int unpack(int root, int target, const struct msg_start_archive *message)
{
	struct tar_entry entry;
	int result;

	unpacker.root = root;
	unpacker.target = target;
	unpacker.path = message->path;
	unpacker.keep_owners = message->keep_owners;
	unpacker.reader = (struct tar_reader){ .read = read_source, .context = &unpacker.source };
	while ((result = tar_next(&unpacker.reader, &entry)) == 1) {
		result = unpack_entry(&entry);
		if (result)
			return result;
	}
	int closed = close_directories(NULL);
	return result ? result : closed ? unpack_failed(-closed, message->path) : 0;
}
