/* See copy.h. */
#include "copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "links.h"
#include "log.h"
#include "path.h"

#define DEPTH 512 /* each level keeps two descriptors open */

struct copier {
	struct links links;
	int root; /* the new directory */
	char name[PATH_MAX]; /* below it */
	size_t length;
};

static struct copier copier; /* zeros: what is not used takes no memory */

static int copy_failed(int error)
{
	return failed_with(error, "copy", copier.name);
}

static int copy_content(const struct item *item, int to)
{
	cleanup_fd int from = item_open(item, O_RDONLY | O_NONBLOCK);
	ssize_t count;

	if (from < 0)
		return from;
	do
		count = sendfile(to, from, NULL, 1u << 24);
	while (count > 0 || (count < 0 && errno == EINTR));
	return count < 0 ? -errno : 0;
}

static int copy_file(const struct item *item, const struct entry *entry, int parent, const char *name)
{
	cleanup_fd int to = entry_make(parent, name, entry);
	int result = to < 0 ? to : 0;

	if (to == ENTRY_DONE) /* it has no content */
		return 0;
	if (!result)
		result = copy_content(item, to);
	return result ? result : entry_dress(to, entry);
}

static int copy_item(const struct item *item, int parent, const char *name, int depth);

static int copy_named(int from, int to, const char *name, int depth)
{
	const struct item item = { .parent = from, .name = name };
	size_t length = copier.length, more = strlen(name) + 1;

	if (length + more >= sizeof(copier.name))
		return copy_failed(ENAMETOOLONG);
	snprintf(copier.name + length, sizeof(copier.name) - length, "%s%s", length ? "/" : "", name);
	copier.length = strlen(copier.name);
	int result = copy_item(&item, to, name, depth);
	copier.length = length;
	copier.name[length] = '\0';
	return result;
}

static int copy_entries(const struct item *item, int to, int depth)
{
	int fd = depth ? item_open(item, O_RDONLY | O_DIRECTORY) : -ELOOP;
	DIR *entries = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int result = 0;

	if (!entries)
		return copy_failed(fd < 0 ? -fd : ENOMEM);
	while (!result && (entry = readdir(entries)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			result = copy_named(dirfd(entries), to, entry->d_name, depth - 1);
	closedir(entries);
	return result;
}

/* Its time is set at the end: what is made in it changes it. */
static int copy_directory(const struct item *item, const struct entry *entry, int parent, const char *name,
			  int depth)
{
	struct timespec modified = entry->modified;
	cleanup_fd int to = entry_make(parent, name, entry);
	int result = to < 0 ? to : entry_dress(to, entry);

	if (result)
		return copy_failed(-result);
	if (copier.root < 0)
		copier.root = to;
	result = copy_entries(item, to, depth);
	if (!result && (result = entry_set_time(to, &modified)))
		result = copy_failed(-result);
	return result;
}

static int copy_item(const struct item *item, int parent, const char *name, int depth)
{
	struct entry entry;
	struct stat status;
	int result = entry_look(item, &entry, &status);

	if (!result && S_ISDIR(status.st_mode))
		return copy_directory(item, &entry, parent, name, depth);
	if (!result && !S_ISSOCK(status.st_mode)) { /* a socket means nothing without who listens */
		const char *first = links_first_name(&copier.links, &status, copier.name);
		if (first)
			result = linkat(copier.root, first, parent, name, 0) ? -errno : 0;
		else
			result = copy_file(item, &entry, parent, name);
	}
	return result ? copy_failed(-result) : 0;
}

int copy_tree(const struct item *from, int parent, const char *name)
{
	copier.root = -1;
	copier.length = 0;
	return copy_item(from, parent, name, DEPTH);
}
