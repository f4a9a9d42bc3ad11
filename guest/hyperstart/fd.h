/*
 * File descriptors that close themselves at the end of their block.
 *
 * They are opened by openat(2): musl's open(2) asks for O_CLOEXEC twice.
 */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <unistd.h>

/* In a child that will close all that it has with one call: a call for each is half a millisecond under UML. */
extern bool close_later;

static inline void close_fd(int *fd)
{
	int saved = errno;

	if (*fd >= 0 && !close_later)
		close(*fd);
	*fd = -1;
	errno = saved;
}

static inline int steal_fd(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}

#define cleanup_fd __attribute__((cleanup(close_fd)))

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
/* clang-format off */
#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))
/* clang-format on */
