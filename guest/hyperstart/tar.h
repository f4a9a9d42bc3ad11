/*
 * Tar streams: entries out of one, and into one.
 *
 * Read: v7, ustar, GNU long names and pax (POSIX.1-2017, pax, "ustar Interchange Format").  Written:
 * ustar, with pax records where that has no room.  The reader's bytes are anybody's: all is bounded.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "entry.h"

#define TAR_BLOCK 512u
#define TAR_EXTENDED (1u << 20) /* bytes of pax records, or of a long name */
#define TAR_ATTRIBUTE "SCHILY.xattr." /* star(1); GNU tar, Docker and others have taken it over */

struct tar_header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
	char magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct tar_header) == TAR_BLOCK, "a header is a block");

/* Content is followed by zeros up to the next block. */
static inline uint64_t tar_padding(uint64_t size)
{
	return (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK;
}

struct tar_entry {
	struct entry entry;
	const char *name;
	bool is_hard_link; /* to the earlier entry of the name entry.link */
	const char *user, *group; /* names of the owners; may be "" */
};

struct tar_reader {
	/* Bytes read, 0 at the end, or -errno. */
	ssize_t (*read)(void *context, void *data, size_t size);
	void *context;
	uint64_t left, padding; /* of the entry's content */
	char *pax, *long_name, *long_link; /* read for the entry, or NULL */
	size_t pax_size;
	/* the fields of the header, as strings */
	char name[257], link[101], user[33], group[33];
};

/* The next entry, good until the call after: 1, or 0 at the end, or -errno with the failure noted. */
int tar_next(struct tar_reader *reader, struct tar_entry *entry);
/* Content of the entry: bytes read, 0 at its end, or -errno with the failure noted. */
ssize_t tar_read(struct tar_reader *reader, void *data, size_t size);
void tar_reader_close(struct tar_reader *reader);

struct tar_writer {
	int fd;
	size_t used;
	uint64_t left, padding; /* of the entry's content */
	uint8_t buffer[1u << 16];
};

/* -errno, unnoted: only the descriptor can be the fault. */
int tar_write_entry(struct tar_writer *writer, const struct tar_entry *entry);
/* So many bytes of content as the entry's size says, in any number of calls. */
int tar_write(struct tar_writer *writer, const void *data, size_t size);
/* Zeros for content that did not come, and up to the next block. */
int tar_write_rest(struct tar_writer *writer);
int tar_write_end(struct tar_writer *writer);
