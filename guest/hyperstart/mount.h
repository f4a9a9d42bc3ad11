/* Mounts by descriptor: made detached, then put where a descriptor already points. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define MOUNT_RDONLY 0x01u
#define MOUNT_NOSUID 0x02u
#define MOUNT_NODEV 0x04u
#define MOUNT_NOEXEC 0x08u
#define MOUNT_NOATIME 0x10u

struct mount_option {
	const char *key;
	const char *value; /* NULL: a flag */
};

/*
 * By mount(2), with its flags and options: one call where descriptors take seven, and so for directories of our
 * own below /run/hyper, which lead nowhere else.  The directory is made when absent.
 */
int mount_plain(const char *fstype, const char *directory, unsigned long flags, const char *options);
/* The same, but then taken from there: its descriptor. */
int mount_detached(const char *fstype, const char *directory, unsigned long flags, const char *options);
/* A detached mount of a new file system; `options` end with a NULL key.  `source` may be NULL. */
int mount_new(const char *fstype, const char *source, const struct mount_option *options,
	      unsigned int attributes);
/*
 * A detached copy of the tree at `fd`, all of it or just its first mount.  It must be of our own mount
 * namespace: so opened after that was made.  `name` is for failures.
 */
int mount_copy(int fd, const char *name, bool recursive, unsigned int attributes);
/* Put a detached mount on `path` inside `root`, made when absent; `mount` stays open. */
int mount_at(int mount, int root, const char *path, bool is_directory);
/* Move what is mounted on `from` in this mount namespace, with all on it, to `path` inside `root`. */
int mount_move(const char *from, int root, const char *path);
/*
 * Put `mount`, detached, or what is mounted on `from` when that is not empty, on the directory `name`, which
 * is made in `parent`: of a file system that is our own yet, so nothing has to be resolved.
 */
int mount_in_new(int mount, const char *from, int parent, const char *name);
/* A bind of the file `from`, which is our own, on `path` inside `root`, made when absent. */
int mount_bind(const char *from, int root, const char *path);

bool is_mounted(const char *path); /* whether it is the root of a mount */

/* "ro,nosuid,size=64m" taken apart: `text` is changed, and options point into it. */
#define MOUNT_OPTIONS 32
struct mount_options {
	unsigned int attributes;
	bool recursive;
	struct mount_option data[MOUNT_OPTIONS + 1];
};
int mount_options_parse(char *text, struct mount_options *options);
