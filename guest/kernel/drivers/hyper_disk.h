/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HYPER_DISK_H
#define HYPER_DISK_H

/* A stretch of memory, laid out as struct iovec of the host. */
struct hyper_part {
	void *start;
	unsigned long length;
};

/* Whether the host had all `length` bytes from `offset` on in its memory, and they are in `parts` now. */
int hyper_read_cached(int fd, const struct hyper_part *parts, int count, unsigned long long offset,
		      unsigned long length);

#endif
