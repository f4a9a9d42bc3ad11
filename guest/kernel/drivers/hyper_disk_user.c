// SPDX-License-Identifier: GPL-2.0
/*
 * Reads of a disk whose data the host has in memory.  User-Mode Linux gives each request to a thread, and hears
 * of its end by a signal: two switches of the host, and some fifty microseconds, for a copy that takes one.
 * So it is asked first for what takes no waiting; what the host has to fetch goes to the thread as ever.
 */
#define _GNU_SOURCE
#include <sys/uio.h>

#include "hyper_disk.h"

_Static_assert(sizeof(struct hyper_part) == sizeof(struct iovec), "parts are the host's");

int hyper_read_cached(int fd, const struct hyper_part *parts, int count, unsigned long long offset,
		      unsigned long length)
{
	return preadv2(fd, (const struct iovec *)parts, count, (off_t)offset, RWF_NOWAIT) == (ssize_t)length;
}
