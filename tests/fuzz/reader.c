/*
 * Any body under any message number.  Invariants: nothing outside the body, the arena and the message is
 * touched; what was read writes back as the same bytes, so there is one form for each message.
 */
#include <stdlib.h>
#include <string.h>

#include "protocol.gen.h"

static void must(bool claim)
{
	if (!claim)
		abort();
}

static void write_back(uint16_t number, const union msg_any *message, const uint8_t *body, size_t size)
{
	static uint8_t out[FRAME_STUFFED(FRAME_SIZE)], assembled[FRAME_SIZE];
	struct frame_parser parser;
	struct frame frame;
	struct writer writer;

	frame_begin(&writer, out, sizeof(out), FRAME_SIZE, number, 7);
	msg_write(&writer, number, message);
	size_t length = frame_end(&writer);
	must(length > 0);
	frame_parser_init(&parser, assembled, sizeof(assembled));
	const uint8_t *at = out;
	must(frame_parser_next(&parser, &at, out + length, &frame) && at == out + length);
	must(frame.number == number && frame.id == 7 && frame.size == size);
	must(size == 0 || memcmp(frame.body, body, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t memory[ARENA_SIZE];
	union msg_any message;

	if (size < 2 || size > FRAME_SIZE - FRAME_HEAD - FRAME_TAIL)
		return -1;
	uint16_t number = (uint16_t)(data[0] | data[1] << 8);
	struct arena arena = { .base = memory, .size = sizeof(memory) };
	struct reader reader = {
		.at = data + 2, .end = data + size, .arena = &arena, .ok = true, .exact = true
	};
	memset(&message, 0xAA, sizeof(message));
	if (msg_read(&reader, number, &message))
		write_back(number, &message, data + 2, size - 2);
	must(arena.used <= arena.size);
	/* as of another version: there are more forms, and no more room is needed */
	arena.used = 0;
	reader = (struct reader){ .at = data + 2, .end = data + size, .arena = &arena, .ok = true };
	if (msg_read(&reader, number, &message))
		msg_write(&(struct writer){ .counts = true, .ok = true, .raw_limit = SIZE_MAX }, number, &message);
	must(arena.used <= arena.size);
	return 0;
}
