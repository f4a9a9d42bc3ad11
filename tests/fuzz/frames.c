/*
 * Any stream of bytes, the first of which says how it is cut.  Invariants: the cut does not matter; a frame
 * that passes, encoded again, passes again as the same; after anything the next good frame is found.
 */
#include <stdlib.h>
#include <string.h>

#include "protocol.gen.h"

#define ROOM 4096u /* small, so that too long frames are met */

struct seen {
	uint64_t frames, dropped;
	uint32_t sum;
};

static void must(bool claim)
{
	if (!claim)
		abort();
}

static void count(const struct frame *frame, struct seen *seen)
{
	must(frame->size <= ROOM - FRAME_HEAD - FRAME_TAIL);
	seen->frames++;
	seen->sum = crc32_update(seen->sum, frame->body, frame->size);
	seen->sum = seen->sum * 31 + frame->number + frame->id;
}

static struct seen parse(const uint8_t *data, size_t size, size_t chunk)
{
	static const uint8_t end = 0xC0;
	uint8_t *assembled = malloc(ROOM);
	struct frame_parser parser;
	struct seen seen = { 0 };
	struct frame frame;

	must(assembled != NULL);
	frame_parser_init(&parser, assembled, ROOM);
	for (size_t at = 0; at < size; at += chunk) {
		const uint8_t *from = data + at, *to = data + (size - at < chunk ? size : at + chunk);
		while (frame_parser_next(&parser, &from, to, &frame))
			count(&frame, &seen);
		must(from == to);
	}
	uint8_t ping[64];
	const uint8_t *from = &end;
	if (frame_parser_next(&parser, &from, &end + 1, &frame))
		count(&frame, &seen);
	size_t length = msg_frame_ping(ping, sizeof(ping), 9, &(struct msg_ping){ 0 });
	from = ping;
	must(frame_parser_next(&parser, &from, ping + length, &frame));
	must(frame.number == MSG_PING && frame.id == 9 && frame.size == 0);
	seen.dropped = parser.dropped;
	free(assembled);
	return seen;
}

static void send_back(const uint8_t *data, size_t size)
{
	static uint8_t out[FRAME_STUFFED(FRAME_SIZE)], assembled[FRAME_SIZE];
	struct bytes raw = { .data = data, .size = (uint32_t)size };
	struct frame_parser parser;
	struct frame frame;
	struct writer writer;

	frame_begin(&writer, out, FRAME_STUFFED(FRAME_HEAD + 4 + size + FRAME_TAIL), FRAME_SIZE, 1, 2);
	write_bytes(&writer, &raw);
	size_t length = frame_end(&writer);
	must(length > 0);
	frame_parser_init(&parser, assembled, sizeof(assembled));
	const uint8_t *at = out;
	must(frame_parser_next(&parser, &at, out + length, &frame));
	must(frame.size == size + 4 && memcmp(frame.body + 4, data, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > FRAME_SIZE / 2)
		return -1;
	struct seen whole = parse(data + 1, size - 1, size), cut = parse(data + 1, size - 1, data[0] + 1u);
	must(whole.frames == cut.frames && whole.sum == cut.sum && whole.dropped == cut.dropped);
	send_back(data, size);
	return 0;
}
