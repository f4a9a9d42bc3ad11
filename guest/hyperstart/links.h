/* Files of several names in a tree that is walked: each is taken once, and linked from then on. */
#pragma once

#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

#define LINKS (1u << 16) /* a power of two; half of them are remembered */
#define LINKS_MEMORY (8u << 20) /* bytes of names; beyond, files come more than once */

struct links {
	size_t count, memory;
	struct {
		dev_t device;
		ino_t inode;
		char *name;
	} known[LINKS];
};

/* The first name that the file had, or NULL: it is `name`, which is remembered, or has no others. */
const char *links_first_name(struct links *links, const struct stat *status, const char *name);
