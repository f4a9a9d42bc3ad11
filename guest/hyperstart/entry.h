/* A file, directory, link or device with all that describes it: as a tree has it, or a tar stream. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#define ENTRY_ATTRIBUTES 32

struct attribute { /* xattr(7) */
	const char *name;
	const uint8_t *value;
	size_t size;
};

struct entry {
	mode_t mode; /* the type too, as in struct stat */
	uid_t uid;
	gid_t gid;
	uint64_t size; /* of a regular file */
	dev_t device;
	struct timespec modified;
	const char *link; /* where a symbolic link leads */
	size_t attributes_count;
	struct attribute attributes[ENTRY_ATTRIBUTES];
};

/* Where an entry is: a name in a directory, not followed; or with `follow` a path inside a root. */
struct item {
	int parent;
	const char *name;
	bool follow;
};

int item_open(const struct item *item, int flags); /* -errno */

/*
 * What is there, without opening it: reading a FIFO or a device would do something.  What the entry
 * points to is good until the next call.  -errno; -ENOENT may only mean that it is gone by now.
 */
int entry_look(const struct item *item, struct entry *entry, struct stat *status);
/*
 * Make it, and return what its content can be written to: a descriptor of a file or directory, or
 * ENTRY_DONE.  Names that are there are not touched, but for directories: they are merged.
 */
#define ENTRY_DONE (-1000000)
int entry_make(int parent, const char *name, const struct entry *entry);
/* Owner, attributes, permissions and time, for what entry_make() gave a descriptor of. */
int entry_dress(int fd, const struct entry *entry);
int entry_set_time(int fd, const struct timespec *modified);
