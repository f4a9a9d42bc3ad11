/* Frames on the channel: taken apart and handed on, and put together to be sent. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol.gen.h"

struct session {
	bool is_alike; /* hyperd speaks the same version */
	bool is_open; /* a Hello was answered, and the connection did not end since */
	struct frame_parser parser;
	struct frame held; /* taken from the parser, and not begun yet */
	bool has_held;
	const uint8_t *in, *in_end; /* read and not parsed yet */
	size_t out_begin, out_end; /* framed and not written yet */
};

void session_init(void);
/* Read, answer and send what can be now; true when there is more to do at once. */
bool session_turn(void);
void session_hello(const struct frame *frame);
void session_disconnected(void);
void session_take_again(void); /* the request that is under way, as if it had just come */
/* A line for hyperd's log; false when it cannot take one. */
bool session_tell(char *line);
void session_flush(void); /* wait until all is written, or hyperd is too slow */

void *session_room(void);
size_t session_room_size(void);
void session_sent(size_t size);
/* Frame a message of no request, as SESSION_SEND(exited, &exited). */
#define SESSION_SEND(kind, message) \
	session_sent(msg_frame_##kind(session_room(), session_room_size(), 0, message))
