/* See queue.h. */
#include "queue.h"

#include <string.h>
#include <sys/mman.h>

#include "fd.h"

#define CHUNK_SIZE 32768u /* pages of it are touched only as it fills */
#define SPARE_CHUNKS 4u /* kept for the next that is needed: fresh pages cost a fault each */

struct chunk {
	struct chunk *next;
	uint32_t begin, end; /* what is used of data */
	uint8_t data[CHUNK_SIZE - 16];
};

static struct chunk *spare;
static unsigned int spare_count;

static struct chunk *chunk_new(void)
{
	struct chunk *chunk = spare;

	if (chunk) {
		spare = chunk->next;
		spare_count--;
	} else {
		chunk = mmap(NULL, sizeof(*chunk), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			     0);
		if (chunk == MAP_FAILED)
			return NULL;
	}
	chunk->next = NULL;
	chunk->begin = chunk->end = 0;
	return chunk;
}

static void chunk_free(struct chunk *chunk)
{
	if (spare_count >= SPARE_CHUNKS) {
		munmap(chunk, sizeof(*chunk));
		return;
	}
	chunk->next = spare;
	spare = chunk;
	spare_count++;
}

static size_t chunk_room(const struct chunk *chunk)
{
	return sizeof(chunk->data) - chunk->end;
}

static struct chunk *add_chunk(struct queue *queue)
{
	struct chunk *chunk = chunk_new();

	if (!chunk)
		return NULL;
	if (queue->last)
		queue->last->next = chunk;
	else
		queue->first = chunk;
	queue->last = chunk;
	return chunk;
}

static size_t add_room(struct iovec *room, struct chunk *chunk, size_t limit)
{
	size_t size = chunk_room(chunk) < limit ? chunk_room(chunk) : limit;

	*room = (struct iovec){ chunk->data + chunk->end, size };
	return size;
}

/* Of the two last chunks the first may have room: readv(2) fills it before the fresh one. */
int queue_room(struct queue *queue, size_t limit, struct iovec room[2])
{
	int count = 0;

	if (queue->last && chunk_room(queue->last))
		limit -= add_room(&room[count++], queue->last, limit);
	if (limit) {
		struct chunk *chunk = chunk_new();
		if (chunk) {
			add_room(&room[count++], chunk, limit);
			chunk->next = spare; /* queue_filled() takes it from there */
			spare = chunk;
			spare_count++;
		}
	}
	return count;
}

void queue_filled(struct queue *queue, size_t size)
{
	while (size) {
		struct chunk *chunk = queue->last && chunk_room(queue->last) ? queue->last : add_chunk(queue);
		size_t part = chunk_room(chunk) < size ? chunk_room(chunk) : size;
		chunk->end += (uint32_t)part;
		queue->size += part;
		size -= part;
	}
}

int queue_append(struct queue *queue, const uint8_t *data, size_t size)
{
	while (size) {
		struct chunk *chunk = queue->last && chunk_room(queue->last) ? queue->last : add_chunk(queue);
		if (!chunk)
			return -ENOMEM;
		size_t part = chunk_room(chunk) < size ? chunk_room(chunk) : size;
		memcpy(chunk->data + chunk->end, data, part);
		chunk->end += (uint32_t)part;
		queue->size += part;
		data += part;
		size -= part;
	}
	return 0;
}

size_t queue_peek(const struct queue *queue, size_t skip, const uint8_t **data)
{
	const struct chunk *chunk = queue->first;

	if (skip >= queue->size)
		return 0;
	while (skip >= chunk->end - chunk->begin) {
		skip -= chunk->end - chunk->begin;
		chunk = chunk->next;
	}
	*data = chunk->data + chunk->begin + skip;
	return chunk->end - chunk->begin - skip;
}

void queue_drop(struct queue *queue, size_t size)
{
	while (size) {
		struct chunk *chunk = queue->first;
		size_t part = chunk->end - chunk->begin < size ? chunk->end - chunk->begin : size;
		chunk->begin += (uint32_t)part;
		queue->size -= part;
		size -= part;
		if (chunk->begin < chunk->end)
			break;
		queue->first = chunk->next;
		if (!queue->first)
			queue->last = NULL;
		chunk_free(chunk);
	}
}
