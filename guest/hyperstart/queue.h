/* A queue of bytes in chunks of memory that exist only while bytes are in them. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct chunk;

struct queue {
	struct chunk *first, *last;
	size_t size; /* bytes in it */
};

/* Room for at most `limit` more bytes: the number of entries of `room` that readv(2) may fill; 0: no memory. */
int queue_room(struct queue *queue, size_t limit, struct iovec room[2]);
void queue_filled(struct queue *queue, size_t size); /* so many bytes of that room were filled, or none */
int queue_append(struct queue *queue, const uint8_t *data, size_t size);
/* What stands `skip` bytes behind the queue's head, as far as it stands in one piece. */
size_t queue_peek(const struct queue *queue, size_t skip, const uint8_t **data);
void queue_drop(struct queue *queue, size_t size); /* from the head */
