/* See archive.h: from a tree to a tar stream. */
#include <dirent.h>
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
#include "links.h"
#include "log.h"
#include "path.h"
#include "tar.h"

#define DEPTH 512 /* each level keeps a descriptor open */
struct packer {
	struct tar_writer writer;
	struct stat hidden[3]; /* what the kernel shows in a container's tree, and is no file of it */
	char name[PATH_MAX];
	size_t length;
	struct links links;
	bool is_incomplete;
};

static struct packer packer; /* zeros: what is not used takes no memory */

/* --- Finding --- */

static const char *last_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* With "", "." or ".." at its end a path is what it leads to. */
static bool is_name(const char *name)
{
	return name[0] && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

int pack_find(int root, const struct msg_start_archive *message, struct item *item)
{
	const char *path = message->path, *name = last_name(path);
	char parent[PATH_MAX];

	if (strlen(path) >= sizeof(parent))
		return failed_with(ENAMETOOLONG, "open", path);
	*item = (struct item){ .parent = root, .name = path, .follow = true };
	if (!message->follow && is_name(name)) {
		snprintf(parent, sizeof(parent), "%.*s", (int)(name - path), path);
		int fd = open_in_root(root, parent, O_RDONLY | O_DIRECTORY);
		if (fd < 0)
			return failed_with(-fd, "open", path);
		*item = (struct item){ .parent = fd, .name = name };
	}
	cleanup_fd int there = item_open(item, O_PATH);
	return there < 0 ? failed_with(-there, "open", path) : 0;
}

/* --- Names --- */

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static void find_hidden(int root)
{
	static const char *const names[] = { "/proc", "/sys", "/dev" };

	for (size_t i = 0; i < LENGTH(names); i++) {
		cleanup_fd int fd = open_in_root(root, names[i], O_PATH);
		if (fd < 0 || fstat(fd, &packer.hidden[i]))
			packer.hidden[i] = (struct stat){ 0 };
	}
}

static bool is_hidden(const struct stat *status)
{
	return is_same(status, &packer.hidden[0]) || is_same(status, &packer.hidden[1]) ||
	       is_same(status, &packer.hidden[2]);
}

/* --- Packing --- */

/* The rest is packed nonetheless. */
static void complain(int error)
{
	dprintf(STDERR_FILENO, "pack %s: %s\n", packer.name, strerror(error));
	packer.is_incomplete = true;
}

static int write_failed(int result)
{
	return result ? failed_with(-result, "write", "stdout") : 0;
}

/* As long as the header says: of one that grows the rest is left out, one that shrank is filled up. */
static int pack_content(int fd)
{
	static uint8_t data[1u << 16];
	int result = 0;

	while (!result && packer.writer.left) {
		ssize_t count = read(fd, data, sizeof(data));
		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0) {
			complain(count ? errno : ENODATA);
			break;
		}
		result = tar_write(&packer.writer, data, (size_t)count);
	}
	return write_failed(result ? result : tar_write_rest(&packer.writer));
}

static int pack_file(const struct item *item, struct tar_entry *entry)
{
	cleanup_fd int fd = item_open(item, O_RDONLY | O_NONBLOCK);
	struct stat status;

	if (fd == -ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &status) || !S_ISREG(status.st_mode)) {
		complain(fd < 0 ? -fd : ESTALE);
		return 0;
	}
	entry->entry.size = (uint64_t)status.st_size;
	int result = write_failed(tar_write_entry(&packer.writer, entry));
	return result ? result : pack_content(fd);
}

static int pack_item(const struct item *item, int depth);

static int pack_named(int directory, const char *name, int depth)
{
	const struct item item = { .parent = directory, .name = name };
	size_t length = packer.length, more = strlen(name) + 1;

	if (length + more >= sizeof(packer.name)) {
		complain(ENAMETOOLONG);
		return 0;
	}
	packer.name[length] = '/';
	memcpy(packer.name + length + 1, name, more);
	packer.length += more;
	int result = pack_item(&item, depth);
	packer.length = length;
	packer.name[length] = '\0';
	return result;
}

static int pack_entries(int fd, int depth) /* takes the descriptor */
{
	DIR *entries = fdopendir(fd);
	struct dirent *entry;
	int result = 0;

	if (!entries) {
		close(fd);
		return failed_with(ENOMEM, "pack", packer.name);
	}
	while (!result && (entry = readdir(entries)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			result = pack_named(dirfd(entries), entry->d_name, depth);
	closedir(entries);
	return result;
}

/* The name of a directory ends in a slash. */
static int write_directory(const struct tar_entry *entry)
{
	size_t length = packer.length;

	if (length + 1 < sizeof(packer.name)) {
		packer.name[length] = '/';
		packer.name[length + 1] = '\0';
	}
	int result = write_failed(tar_write_entry(&packer.writer, entry));
	packer.name[length] = '\0';
	return result;
}

static int pack_directory(const struct item *item, const struct tar_entry *entry, bool is_empty, int depth)
{
	int result = write_directory(entry);

	if (result || is_empty)
		return result;
	int fd = depth ? item_open(item, O_RDONLY | O_DIRECTORY) : -ELOOP;
	if (fd >= 0)
		return pack_entries(fd, depth - 1);
	if (fd != -ENOENT)
		complain(-fd);
	return 0;
}

static int pack_item(const struct item *item, int depth)
{
	struct tar_entry entry = { .name = packer.name, .user = "", .group = "" };
	struct stat status;
	int result = entry_look(item, &entry.entry, &status);

	if (result) {
		if (result != -ENOENT) /* one that was removed meanwhile is none of the tree any more */
			complain(-result);
		return 0;
	}
	if (S_ISSOCK(status.st_mode))
		return 0; /* means nothing without the process that listens */
	const char *first = links_first_name(&packer.links, &status, packer.name);
	if (first) {
		entry.is_hard_link = true;
		entry.entry.size = 0;
		entry.entry.link = first;
		return write_failed(tar_write_entry(&packer.writer, &entry));
	}
	if (S_ISDIR(status.st_mode))
		return pack_directory(item, &entry, !item->follow && is_hidden(&status), depth);
	if (S_ISREG(status.st_mode))
		return pack_file(item, &entry);
	return write_failed(tar_write_entry(&packer.writer, &entry));
}

int pack(int root, const struct item *item, const char *path)
{
	const char *name = last_name(path);

	packer.writer.fd = STDOUT_FILENO;
	packer.length = (size_t)snprintf(packer.name, sizeof(packer.name), "%s", is_name(name) ? name : ".");
	find_hidden(root);
	int result = pack_item(item, DEPTH);
	if (!result)
		result = write_failed(tar_write_end(&packer.writer));
	return result ? result : packer.is_incomplete;
}
