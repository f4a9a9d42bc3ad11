/*
 * The C side of the protocol as a mirror: each frame on stdin is decoded, encoded anew and written to
 * stdout under its request id; a frame with a bad body is answered Failed with EBADMSG, as in hyperstart.
 * The arena and each body are heap blocks of the exact size, so that the sanitizers see each overrun.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol.gen.h"

static uint8_t assembled[FRAME_SIZE], out[FRAME_STUFFED(FRAME_SIZE)];

static size_t mirror(const struct frame *frame, uint8_t *body)
{
	struct arena arena = { .base = malloc(ARENA_SIZE), .size = ARENA_SIZE };
	struct reader reader = { .at = body, .end = body + frame->size, .arena = &arena, .ok = true, .exact = true };
	struct writer writer;
	union msg_any message;
	size_t size;

	if (!arena.base)
		abort();
	if (msg_read(&reader, frame->number, &message)) {
		frame_begin(&writer, out, sizeof(out), FRAME_SIZE, frame->number, frame->id);
		msg_write(&writer, frame->number, &message);
		size = frame_end(&writer);
	} else {
		static char operation[] = "decode", subject[] = "frame";
		struct msg_failed failed = { EBADMSG, operation, subject };
		size = msg_frame_failed(out, sizeof(out), frame->id, &failed);
	}
	free(arena.base);
	return size;
}

static void answer(const struct frame *frame)
{
	uint8_t *body = malloc(frame->size ? frame->size : 1);
	if (!body)
		abort();
	memcpy(body, frame->body, frame->size);
	size_t size = mirror(frame, body);
	free(body);
	if (!size) /* what was read can be written */
		abort();
	for (size_t at = 0; at < size;) {
		ssize_t count = write(STDOUT_FILENO, out + at, size - at);
		if (count <= 0)
			exit(1);
		at += (size_t)count;
	}
}

int main(void)
{
	static uint8_t in[65536];
	struct frame_parser parser;
	struct frame frame;
	ssize_t count;

	frame_parser_init(&parser, assembled, sizeof(assembled));
	while ((count = read(STDIN_FILENO, in, sizeof(in))) > 0) {
		const uint8_t *at = in;
		while (frame_parser_next(&parser, &at, in + count, &frame))
			answer(&frame);
	}
	return count < 0;
}
