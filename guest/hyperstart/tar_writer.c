/* See tar.h: the writer. */
#include "tar.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "path.h"

static int flush(struct tar_writer *writer)
{
	int result = write_all(writer->fd, writer->buffer, writer->used);

	writer->used = 0;
	return result;
}

static int put(struct tar_writer *writer, const void *data, size_t size)
{
	const uint8_t *at = data;

	while (size) {
		size_t room = sizeof(writer->buffer) - writer->used;
		size_t part = size < room ? size : room;
		memcpy(writer->buffer + writer->used, at, part);
		writer->used += part;
		at += part;
		size -= part;
		int result = writer->used == sizeof(writer->buffer) ? flush(writer) : 0;
		if (result)
			return result;
	}
	return 0;
}

static int put_zeros(struct tar_writer *writer, uint64_t size)
{
	static const uint8_t zeros[TAR_BLOCK];
	int result = 0;

	while (!result && size) {
		size_t part = size < sizeof(zeros) ? (size_t)size : sizeof(zeros);
		result = put(writer, zeros, part);
		size -= part;
	}
	return result;
}

/* False when the field has no room for it; then it stays 0, and a record says it. */
static bool fill_number(char *field, size_t size, uint64_t number)
{
	uint64_t rest = number;

	for (size_t i = size - 1; i--; rest >>= 3)
		field[i] = (char)('0' + (rest & 7));
	if (!rest)
		return true;
	memset(field, '0', size - 1);
	return false;
}

static bool fill_text(char *field, size_t size, const char *text)
{
	size_t length = strlen(text);

	memcpy(field, text, length < size ? length : size);
	return length <= size;
}

static void fill_checksum(struct tar_header *header)
{
	const unsigned char *at = (const unsigned char *)header;
	unsigned int sum = 0;

	memset(header->checksum, ' ', sizeof(header->checksum));
	for (size_t i = 0; i < TAR_BLOCK; i++)
		sum += at[i];
	snprintf(header->checksum, sizeof(header->checksum), "%06o", sum & 0777777);
}

static char type_of(const struct tar_entry *entry)
{
	if (entry->is_hard_link)
		return '1';
	switch (entry->entry.mode & S_IFMT) {
	case S_IFLNK:
		return '2';
	case S_IFCHR:
		return '3';
	case S_IFBLK:
		return '4';
	case S_IFDIR:
		return '5';
	case S_IFIFO:
		return '6';
	default:
		return '0';
	}
}

static void fill_plain(struct tar_header *header, mode_t mode)
{
	memcpy(header->magic, "ustar", 6);
	memcpy(header->version, "00", 2);
	fill_number(header->mode, sizeof(header->mode), mode & 07777);
	fill_number(header->uid, sizeof(header->uid), 0);
	fill_number(header->gid, sizeof(header->gid), 0);
	fill_number(header->size, sizeof(header->size), 0);
	fill_number(header->mtime, sizeof(header->mtime), 0);
}

struct records {
	FILE *file;
	char *text;
	size_t size;
};

/* The length at the record's start counts its own digits. */
static void put_record(FILE *file, const char *prefix, const char *key, const void *value, size_t size)
{
	size_t rest = strlen(prefix) + strlen(key) + size + 3; /* blank, '=' and newline */
	size_t length = rest + (size_t)snprintf(NULL, 0, "%zu", rest);

	length = rest + (size_t)snprintf(NULL, 0, "%zu", length);
	fprintf(file, "%zu %s%s=", length, prefix, key);
	fwrite(value, 1, size, file);
	fputc('\n', file);
}

static void put_text_record(FILE *file, const char *key, const char *value)
{
	put_record(file, "", key, value, strlen(value));
}

static void put_number_record(FILE *file, const char *key, int64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, value);
	put_text_record(file, key, text);
}

/* The header, and in `file` the records of what it has no room for. */
static void fill_header(struct tar_header *header, FILE *file, const struct tar_entry *entry)
{
	const struct entry *inner = &entry->entry;
	const char *link = inner->link ? inner->link : "";
	int64_t seconds = (int64_t)inner->modified.tv_sec;

	fill_plain(header, inner->mode);
	header->type = type_of(entry);
	if (!fill_text(header->name, sizeof(header->name), entry->name))
		put_text_record(file, "path", entry->name);
	if (!fill_text(header->link, sizeof(header->link), link))
		put_text_record(file, "linkpath", link);
	if (!fill_number(header->uid, sizeof(header->uid), inner->uid))
		put_number_record(file, "uid", inner->uid);
	if (!fill_number(header->gid, sizeof(header->gid), inner->gid))
		put_number_record(file, "gid", inner->gid);
	if (!fill_number(header->size, sizeof(header->size), inner->size))
		put_number_record(file, "size", (int64_t)inner->size);
	if (seconds < 0 || !fill_number(header->mtime, sizeof(header->mtime), (uint64_t)seconds))
		put_number_record(file, "mtime", seconds);
	for (size_t i = 0; i < inner->attributes_count; i++)
		put_record(file, TAR_ATTRIBUTE, inner->attributes[i].name, inner->attributes[i].value,
			   inner->attributes[i].size);
	if (S_ISCHR(inner->mode) || S_ISBLK(inner->mode)) {
		fill_number(header->major, sizeof(header->major), major(inner->device));
		fill_number(header->minor, sizeof(header->minor), minor(inner->device));
	}
	fill_checksum(header);
}

static int put_extended(struct tar_writer *writer, const struct records *records)
{
	struct tar_header header = { .name = "PaxHeaders", .type = 'x' };
	int result;

	fill_plain(&header, 0644);
	fill_number(header.size, sizeof(header.size), records->size);
	fill_checksum(&header);
	result = put(writer, &header, sizeof(header));
	if (!result)
		result = put(writer, records->text, records->size);
	return result ? result : put_zeros(writer, tar_padding(records->size));
}

int tar_write_entry(struct tar_writer *writer, const struct tar_entry *entry)
{
	struct tar_header header = { 0 };
	struct records records = { 0 };
	int result = 0;

	records.file = open_memstream(&records.text, &records.size);
	if (!records.file)
		return -ENOMEM;
	fill_header(&header, records.file, entry);
	if (fclose(records.file))
		result = -ENOMEM;
	if (!result && records.size)
		result = put_extended(writer, &records);
	if (!result)
		result = put(writer, &header, sizeof(header));
	free(records.text);
	writer->left = S_ISREG(entry->entry.mode) && !entry->is_hard_link ? entry->entry.size : 0;
	writer->padding = tar_padding(writer->left);
	return result;
}

int tar_write(struct tar_writer *writer, const void *data, size_t size)
{
	size_t part = size < writer->left ? size : (size_t)writer->left;

	writer->left -= part;
	return put(writer, data, part);
}

int tar_write_rest(struct tar_writer *writer)
{
	int result = put_zeros(writer, writer->left + writer->padding);

	writer->left = writer->padding = 0;
	return result;
}

int tar_write_end(struct tar_writer *writer)
{
	int result = put_zeros(writer, 2u * TAR_BLOCK);

	return result ? result : flush(writer);
}
