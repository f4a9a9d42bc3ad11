/*
 * Any bytes as a tar stream.  Invariants: nothing outside what was read is touched; a content is as long
 * as its entry says or the stream is damaged; what was read, and written again, reads as the same.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "log.h"
#include "path.h"
#include "tar.h"

#define CONTENT (1u << 16)

struct input {
	const uint8_t *at, *end;
};

/* The reader's only ties to the rest of hyperstart. */
int failed_with(int error, const char *operation, const char *subject)
{
	return operation && subject ? -error : 0;
}

int write_all(int fd, const void *data, size_t size)
{
	return write(fd, data, size) == (ssize_t)size ? 0 : -EIO;
}

static void must(bool claim)
{
	if (!claim)
		abort();
}

static ssize_t read_input(void *context, void *data, size_t size)
{
	struct input *input = context;
	size_t part = (size_t)(input->end - input->at) < size ? (size_t)(input->end - input->at) : size;

	part = part > 700 ? 700 : part; /* a pipe gives what it has */
	if (part)
		memcpy(data, input->at, part);
	input->at += part;
	return (ssize_t)part;
}

static ssize_t read_content(struct tar_reader *reader, uint8_t *data)
{
	size_t size = 0;
	ssize_t count;

	while ((count = tar_read(reader, data + size, CONTENT - size)) > 0)
		size += (size_t)count;
	return count < 0 ? count : (ssize_t)size;
}

static bool is_same_text(const char *a, const char *b)
{
	return !strcmp(a ? a : "", b ? b : "");
}

static void compare(const struct tar_entry *a, const struct tar_entry *b)
{
	must(is_same_text(a->name, b->name) && is_same_text(a->entry.link, b->entry.link));
	must(a->is_hard_link == b->is_hard_link && a->entry.mode == b->entry.mode);
	must(a->entry.uid == b->entry.uid && a->entry.gid == b->entry.gid);
	must(a->entry.size == b->entry.size && a->entry.modified.tv_sec == b->entry.modified.tv_sec);
	must(a->entry.attributes_count == b->entry.attributes_count);
	for (size_t i = 0; i < a->entry.attributes_count; i++) {
		const struct attribute *x = &a->entry.attributes[i], *y = &b->entry.attributes[i];
		must(!strcmp(x->name, y->name) && x->size == y->size);
		must(!x->size || !memcmp(x->value, y->value, x->size));
	}
}

/* `entry`, written into `fd` and read back from there. */
static void write_back(int fd, const struct tar_entry *entry, const uint8_t *content, size_t size)
{
	static struct tar_writer writer;
	static uint8_t copy[1u << 22], other[CONTENT];
	struct tar_entry again;

	must(!ftruncate(fd, 0) && !lseek(fd, 0, SEEK_SET));
	writer.fd = fd;
	writer.used = 0;
	must(!tar_write_entry(&writer, entry) && !tar_write(&writer, content, size));
	must(!tar_write_rest(&writer) && !tar_write_end(&writer));
	ssize_t length = pread(fd, copy, sizeof(copy), 0);
	must(length > 0 && length % TAR_BLOCK == 0);
	struct input input = { copy, copy + length };
	struct tar_reader reader = { .read = read_input, .context = &input };
	must(tar_next(&reader, &again) == 1);
	compare(entry, &again);
	must(read_content(&reader, other) == (ssize_t)size && !memcmp(content, other, size));
	must(tar_next(&reader, &again) == 0);
	tar_reader_close(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t content[CONTENT];
	static int fd = -1;
	struct input input = { data, data + size };
	struct tar_reader reader = { .read = read_input, .context = &input };
	struct tar_entry entry;

	if (fd < 0)
		fd = memfd_create("again", 0);
	while (tar_next(&reader, &entry) == 1) {
		if (entry.entry.size > CONTENT)
			break;
		ssize_t count = read_content(&reader, content);
		if (count < 0)
			break;
		must((uint64_t)count == entry.entry.size);
		write_back(fd, &entry, content, (size_t)count);
	}
	tar_reader_close(&reader);
	return 0;
}
