/* See tar.h: the reader. */
#include "tar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "fd.h"
#include "log.h"

/* Types of POSIX but for hard links and directories, which need more than a mode. */
static const struct {
	char type;
	mode_t mode;
} types[] = {
	{ '0', S_IFREG }, { '\0', S_IFREG }, { '7', S_IFREG }, { '2', S_IFLNK },
	{ '3', S_IFCHR }, { '4', S_IFBLK },  { '5', S_IFDIR }, { '6', S_IFIFO },
};

/* --- Reading blocks --- */

static int bad(const char *what)
{
	return failed_with(EBADMSG, "read tar", what);
}

/* All of `size`, or what there is before the end. */
static ssize_t read_full(struct tar_reader *reader, void *data, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t count = reader->read(reader->context, (char *)data + done, size - done);
		if (count < 0)
			return failed_with((int)-count, "read tar", "");
		if (!count)
			break;
		done += (size_t)count;
	}
	return (ssize_t)done;
}

static int skip(struct tar_reader *reader, uint64_t size)
{
	uint8_t block[4096];

	while (size) {
		size_t part = size < sizeof(block) ? (size_t)size : sizeof(block);
		ssize_t count = read_full(reader, block, part);
		if (count < 0)
			return (int)count;
		if ((size_t)count < part)
			return bad("its end is missing");
		size -= part;
	}
	return 0;
}

/* --- Reading numbers and records --- */

/* Octal, or with the first bit set big-endian: GNU's form for what is larger. */
static bool parse_number(const char *field, size_t size, uint64_t *number)
{
	const uint8_t *at = (const uint8_t *)field, *end = at + size;
	uint64_t value = 0;

	if (*at & 0x80) {
		if (*at & 0x40) /* negative */
			return false;
		value = *at++ & 0x3F;
		while (at < end && value <= UINT64_MAX >> 8)
			value = value << 8 | *at++;
		*number = value;
		return at == end && value <= INT64_MAX;
	}
	while (at < end && *at == ' ')
		at++;
	while (at < end && *at >= '0' && *at <= '7')
		value = value << 3 | (uint64_t)(*at++ - '0');
	*number = value;
	return at == end || !*at || *at == ' ';
}

static bool parse_decimal(const char *text, uint64_t *number)
{
	char *end;

	errno = 0;
	*number = strtoull(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && !*end && !errno && *number <= INT64_MAX;
}

/* "-1.25" is a quarter after two seconds before 1970. */
static bool parse_time(const char *text, struct timespec *time)
{
	char *end;
	long scale = 100000000;

	errno = 0;
	*time = (struct timespec){ .tv_sec = (time_t)strtoll(text, &end, 10) };
	if (errno || end == text)
		return false;
	if (*end == '.')
		for (end++; *end >= '0' && *end <= '9'; end++, scale /= 10)
			time->tv_nsec += (*end - '0') * scale;
	if (text[0] == '-' && time->tv_nsec) {
		time->tv_sec--;
		time->tv_nsec = 1000000000 - time->tv_nsec;
	}
	return !*end;
}

static bool parse_id(const char *text, uint32_t *id)
{
	uint64_t number;
	bool is_good = parse_decimal(text, &number) && number < UINT32_MAX;

	*id = is_good ? (uint32_t)number : 0;
	return is_good;
}

static bool take_attribute(struct tar_entry *entry, const char *name, const char *value, size_t size)
{
	struct entry *inner = &entry->entry;

	if (inner->attributes_count < ENTRY_ATTRIBUTES)
		inner->attributes[inner->attributes_count++] =
			(struct attribute){ name, (const uint8_t *)value, size };
	return true;
}

static bool take_record(struct tar_entry *entry, const char *key, const char *value, size_t size)
{
	struct entry *inner = &entry->entry;

	if (!strncmp(key, TAR_ATTRIBUTE, sizeof(TAR_ATTRIBUTE) - 1))
		return take_attribute(entry, key + sizeof(TAR_ATTRIBUTE) - 1, value, size);
	if (!size) /* "as if it were not there" */
		return true;
	if (!strncmp(key, "GNU.sparse.", 11) || strlen(value) != size)
		return false;
	if (!strcmp(key, "path"))
		entry->name = value;
	else if (!strcmp(key, "linkpath"))
		inner->link = value;
	else if (!strcmp(key, "uname"))
		entry->user = value;
	else if (!strcmp(key, "gname"))
		entry->group = value;
	else if (!strcmp(key, "size"))
		return parse_decimal(value, &inner->size);
	else if (!strcmp(key, "uid"))
		return parse_id(value, &inner->uid);
	else if (!strcmp(key, "gid"))
		return parse_id(value, &inner->gid);
	else if (!strcmp(key, "mtime"))
		return parse_time(value, &inner->modified);
	return true;
}

/* "LENGTH KEY=VALUE\n", and the length counts all of it; the newline becomes the value's NUL. */
static bool parse_records(char *text, size_t size, struct tar_entry *entry)
{
	while (size) {
		char *key, *value;
		errno = 0;
		unsigned long length = strtoul(text, &key, 10);
		if (text[0] < '1' || text[0] > '9' || errno || length > size || *key++ != ' ')
			return false;
		char *end = text + length - 1;
		if (key >= end || *end != '\n')
			return false;
		*end = '\0';
		value = memchr(key, '=', (size_t)(end - key));
		if (!value || value == key)
			return false;
		*value++ = '\0';
		if (!take_record(entry, key, value, (size_t)(end - value)))
			return false;
		text += length;
		size -= length;
	}
	return true;
}

/* --- Reading headers --- */

static bool is_zero(const struct tar_header *header)
{
	const char *at = (const char *)header;

	return !at[0] && !memcmp(at, at + 1, TAR_BLOCK - 1);
}

/* Some old writers summed signed bytes. */
static bool has_good_checksum(const struct tar_header *header)
{
	const unsigned char *at = (const unsigned char *)header;
	size_t field = offsetof(struct tar_header, checksum);
	int64_t sum = 0, signed_sum = 0;
	uint64_t expected;

	for (size_t i = 0; i < TAR_BLOCK; i++) {
		unsigned char byte = i >= field && i < field + sizeof(header->checksum) ? ' ' : at[i];
		sum += byte;
		signed_sum += (signed char)byte;
	}
	if (!parse_number(header->checksum, sizeof(header->checksum), &expected))
		return false;
	return (int64_t)expected == sum || (int64_t)expected == signed_sum;
}

/* 1: there is one; 0: the end. */
static int read_header(struct tar_reader *reader, struct tar_header *header)
{
	ssize_t count = read_full(reader, header, sizeof(*header));

	if (count < 0)
		return (int)count;
	if (!count)
		return 0;
	if ((size_t)count < sizeof(*header))
		return bad("its end is missing");
	if (is_zero(header))
		return 0;
	return has_good_checksum(header) ? 1 : bad("this is no tar archive, or it is damaged");
}

/* The content of a header that describes the next one. */
static int read_extended(struct tar_reader *reader, uint64_t size, char **text)
{
	free(*text);
	*text = NULL;
	if (size > TAR_EXTENDED)
		return bad("an extended header is too long");
	*text = calloc(1, (size_t)size + 1);
	if (!*text)
		return failed_with(ENOMEM, "read tar", "");
	ssize_t count = read_full(reader, *text, (size_t)size);
	if (count < 0)
		return (int)count;
	return (uint64_t)count < size ? bad("its end is missing") : skip(reader, tar_padding(size));
}

static void take_text(const char *field, size_t size, char *text)
{
	size_t length = strnlen(field, size);

	memcpy(text, field, length);
	text[length] = '\0';
}

/* POSIX has room for a prefix where GNU keeps other things. */
static void take_name(const struct tar_header *header, char *name)
{
	bool is_posix = !memcmp(header->magic, "ustar", 6);

	name[0] = '\0';
	if (is_posix && header->prefix[0]) {
		take_text(header->prefix, sizeof(header->prefix), name);
		name[strlen(name) + 1] = '\0';
		name[strlen(name)] = '/';
	}
	take_text(header->name, sizeof(header->name), name + strlen(name));
}

static bool take_numbers(const struct tar_header *header, struct entry *entry)
{
	uint64_t mode, uid, gid, seconds, major_number, minor_number;

	/* a time before 1970 or a large id stands in the records, which come later */
	if (!parse_number(header->mode, sizeof(header->mode), &mode) ||
	    !parse_number(header->size, sizeof(header->size), &entry->size) ||
	    !parse_number(header->uid, sizeof(header->uid), &uid) || uid >= UINT32_MAX ||
	    !parse_number(header->gid, sizeof(header->gid), &gid) || gid >= UINT32_MAX)
		return false;
	if (!parse_number(header->mtime, sizeof(header->mtime), &seconds))
		seconds = 0;
	if (!parse_number(header->major, sizeof(header->major), &major_number) ||
	    !parse_number(header->minor, sizeof(header->minor), &minor_number))
		major_number = minor_number = 0;
	entry->mode = (mode_t)(mode & 07777);
	entry->uid = (uid_t)uid;
	entry->gid = (gid_t)gid;
	entry->modified.tv_sec = (time_t)seconds;
	entry->device = makedev((unsigned int)major_number, (unsigned int)minor_number);
	return true;
}

static bool take_type(char type, struct tar_entry *entry)
{
	size_t length = strlen(entry->name);

	entry->is_hard_link = type == '1';
	if (entry->is_hard_link)
		return true;
	for (size_t i = 0; i < LENGTH(types); i++)
		if (types[i].type == type) {
			entry->entry.mode |= types[i].mode;
			if (S_ISREG(entry->entry.mode) && length && entry->name[length - 1] == '/')
				entry->entry.mode = (entry->entry.mode & 07777) | S_IFDIR; /* v7 */
			return true;
		}
	return false;
}

static int take_header(struct tar_reader *reader, const struct tar_header *header, struct tar_entry *entry)
{
	struct entry *inner = &entry->entry;

	take_name(header, reader->name);
	take_text(header->link, sizeof(header->link), reader->link);
	take_text(header->user, sizeof(header->user), reader->user);
	take_text(header->group, sizeof(header->group), reader->group);
	*entry =
		(struct tar_entry){ .entry = { .link = reader->long_link ? reader->long_link : reader->link },
				    .name = reader->long_name ? reader->long_name : reader->name,
				    .user = reader->user,
				    .group = reader->group };
	if (!take_numbers(header, inner))
		return bad("a number in a header is damaged");
	if (reader->pax && !parse_records(reader->pax, reader->pax_size, entry))
		return bad("an extended header is damaged, or of a sparse file");
	if (!take_type(header->type, entry))
		return failed_with(EOPNOTSUPP, "read tar: a type of its own", entry->name);
	if (entry->is_hard_link || !S_ISREG(inner->mode))
		inner->size = 0; /* whatever it says, no content follows */
	reader->left = inner->size;
	reader->padding = tar_padding(inner->size);
	return 1;
}

/* Of the headers that are no entries, those that say something about the next one: true. */
static bool is_extension(char type)
{
	return type && strchr("xgLKVAX", type);
}

static int take_extension(struct tar_reader *reader, const struct tar_header *header)
{
	uint64_t size;
	int result;

	if (!parse_number(header->size, sizeof(header->size), &size))
		return bad("a number in a header is damaged");
	switch (header->type) {
	case 'x':
	case 'X': /* Solaris, before POSIX */
		result = read_extended(reader, size, &reader->pax);
		reader->pax_size = result ? 0 : (size_t)size;
		return result;
	case 'L':
		return read_extended(reader, size, &reader->long_name);
	case 'K':
		return read_extended(reader, size, &reader->long_link);
	default: /* for all that follow: comments; labels; access lists of Solaris */
		return size > INT64_MAX - TAR_BLOCK ? bad("a size is damaged")
						    : skip(reader, size + tar_padding(size));
	}
}

void tar_reader_close(struct tar_reader *reader)
{
	free(reader->pax);
	free(reader->long_name);
	free(reader->long_link);
	reader->pax = reader->long_name = reader->long_link = NULL;
	reader->pax_size = 0;
}

int tar_next(struct tar_reader *reader, struct tar_entry *entry)
{
	struct tar_header header;
	int result = skip(reader, reader->left + reader->padding);

	reader->left = reader->padding = 0;
	tar_reader_close(reader);
	while (!result && (result = read_header(reader, &header)) == 1) {
		if (!is_extension(header.type))
			return take_header(reader, &header, entry);
		result = take_extension(reader, &header);
	}
	if (!result && (reader->pax || reader->long_name || reader->long_link))
		return bad("its end is missing");
	return result;
}

ssize_t tar_read(struct tar_reader *reader, void *data, size_t size)
{
	ssize_t count = read_full(reader, data, size < reader->left ? size : (size_t)reader->left);

	if (count < 0)
		return count;
	if (!count && size && reader->left)
		return bad("its end is missing");
	reader->left -= (uint64_t)count;
	return count;
}
