/* See path.h. */
#include "path.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "kernel.h"
#include "log.h"

#define LINKS_FOLLOWED 16 /* dangling ones, one after the other */
#define DEPTH 512 /* of a tree that is removed: each level keeps a descriptor open */

int open_in_root(int root, const char *path, int flags)
{
	struct open_how_args how = {
		.flags = (uint64_t)(unsigned int)(flags | O_CLOEXEC),
		.resolve = RESOLVE_IN_ROOT_ | RESOLVE_NO_MAGICLINKS_,
	};
	int fd, tries = 0;

	do /* a rename or mount elsewhere during a ".." gives EAGAIN: openat2(2) */
		fd = sys_openat2(root, path[0] ? path : ".", &how);
	while (fd < 0 && errno == EAGAIN && ++tries < 32);
	return fd < 0 ? -errno : fd;
}

int open_directory(const char *path)
{
	int fd = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? failed("open", path) : fd;
}

/* The two halves of `path`; false when it has no name at its end. */
static bool split(const char *path, char parent[PATH_MAX], const char **name)
{
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 0;

	*name = slash ? slash + 1 : path;
	if (length >= PATH_MAX || !**name || !strcmp(*name, ".") || !strcmp(*name, ".."))
		return false;
	memcpy(parent, path, length);
	parent[length] = '\0';
	return true;
}

/* A new file's descriptor; -EEXIST: there is something, or there is now. */
static int make_entry(int parent, const char *name, bool is_directory)
{
	int fd;

	if (is_directory)
		return mkdirat(parent, name, 0755) && errno != EEXIST ? -errno : -EEXIST;
	fd = openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_WRONLY, 0644);
	return fd < 0 ? -errno : fd;
}

/* In a directory that is there, as /etc mostly is. */
static int make_file(int root, const char *path)
{
	struct open_how_args how = {
		.flags = O_CREAT | O_EXCL | O_CLOEXEC | O_WRONLY,
		.mode = 0644,
		.resolve = RESOLVE_IN_ROOT_ | RESOLVE_NO_MAGICLINKS_,
	};
	int fd = sys_openat2(root, path, &how);

	return fd < 0 ? -errno : fd;
}

static int make_path(int root, const char *path, bool is_directory, int links);

/* `name` is there and leads nowhere: make what it points to. */
static int make_link_target(int root, int parent_fd, const char *parent, const char *name, bool is_directory,
			    int links)
{
	char target[PATH_MAX], path[PATH_MAX];
	ssize_t length = readlinkat(parent_fd, name, target, sizeof(target) - 1);
	int size;

	if (length < 0)
		return -errno;
	target[length] = '\0';
	size = target[0] == '/' ? snprintf(path, sizeof(path), "%s", target)
				: snprintf(path, sizeof(path), "%s/%s", parent, target);
	if (size < 0 || (size_t)size >= sizeof(path))
		return -ENAMETOOLONG;
	return links ? make_path(root, path, is_directory, links - 1) : -ELOOP;
}

static int make_path(int root, const char *path, bool is_directory, int links)
{
	int flags = O_PATH | (is_directory ? O_DIRECTORY : 0);
	int fd = open_in_root(root, path, flags);
	char parent[PATH_MAX];
	const char *name;

	if (fd == -ENOENT && !is_directory)
		fd = make_file(root, path);
	if (fd != -ENOENT && fd != -EEXIST && fd != -EAGAIN)
		return fd;
	if (!split(path, parent, &name))
		return -ENOENT;
	cleanup_fd int made = parent[0] ? make_path(root, parent, true, links) : -1;
	if (parent[0] && made < 0)
		return made;
	int above = parent[0] ? made : root;
	fd = make_entry(above, name, is_directory);
	if (fd != -EEXIST)
		return fd;
	fd = open_in_root(root, path, flags);
	return fd == -ENOENT ? make_link_target(root, above, parent, name, is_directory, links) : fd;
}

/* Bounded by PATH_MAX: each level of the recursion above has a shorter path. */
static int make_clean_path(int root, const char *path, bool is_directory)
{
	char clean[PATH_MAX];
	size_t length = 0;

	if (strlen(path) >= sizeof(clean))
		return failed_with(ENAMETOOLONG, "make", "path");
	for (const char *at = path; *at; at++) /* no empty names, so that split() sees each level */
		if (*at != '/' || (length && clean[length - 1] != '/'))
			clean[length++] = *at;
	while (length && clean[length - 1] == '/')
		length--;
	clean[length] = '\0';
	int fd = make_path(root, clean, is_directory, LINKS_FOLLOWED);
	return fd < 0 ? failed_with(-fd, is_directory ? "make directory" : "make file", path) : fd;
}

int make_directory(int root, const char *path)
{
	return make_clean_path(root, path, true);
}

int make_mount_point(int root, const char *path, bool is_directory)
{
	return make_clean_path(root, path, is_directory);
}

int read_text(int directory, const char *path, char *text, size_t size)
{
	cleanup_fd int fd = openat(directory, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t length = fd < 0 ? -1 : read(fd, text, size - 1);

	text[length < 0 ? 0 : length] = '\0';
	return length < 0 ? -errno : 0;
}

int read_line_at(int directory, const char *path, char *line, size_t size)
{
	int result = read_text(directory, path, line, size);

	line[strcspn(line, "\n")] = '\0';
	return result;
}

int read_line(const char *path, char *line, size_t size)
{
	return read_line_at(AT_FDCWD, path, line, size);
}

int write_all(int fd, const void *data, size_t size)
{
	const char *at = data;

	while (size) {
		ssize_t count = write(fd, at, size);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return -errno;
		at += count;
		size -= (size_t)count;
	}
	return 0;
}

int write_text(int directory, const char *path, const char *text)
{
	cleanup_fd int fd = openat(directory, path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return failed("open", path);
	/* one call: a value is not to be seen in halves */
	return write(fd, text, strlen(text)) < 0 ? failed("write", path) : 0;
}

struct proc_path fd_path(int fd)
{
	struct proc_path path;

	snprintf(path.text, sizeof(path.text), "/proc/self/fd/%d", fd);
	return path;
}

static int remove_entries(int directory, int depth);

static int remove_entry(int parent, const char *name, int depth)
{
	if (!unlinkat(parent, name, 0) || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	int directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (directory < 0)
		return -errno;
	int result = depth ? remove_entries(directory, depth - 1) : -ELOOP; /* closes it */
	if (result)
		return result;
	return unlinkat(parent, name, AT_REMOVEDIR) ? -errno : 0;
}

static int remove_entries(int directory, int depth)
{
	DIR *entries = fdopendir(directory);
	struct dirent *entry;
	int result = 0;

	if (!entries) {
		close(directory);
		return -ENOMEM;
	}
	while (!result && (entry = readdir(entries)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			result = remove_entry(directory, entry->d_name, depth);
	closedir(entries);
	return result;
}

int remove_tree(int parent, const char *name)
{
	int result = remove_entry(parent, name, DEPTH);

	return result ? failed_with(-result, "remove", name) : 0;
}
