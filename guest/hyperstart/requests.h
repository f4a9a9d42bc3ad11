/* What hyperd asks for: one request at a time, each answered once. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "protocol.gen.h"

struct requests {
	bool is_busy; /* one waits for its job */
};

enum {
	ANSWERED = 1, /* the handler has sent the reply */
	ANSWERED_LATER = 2, /* a job will */
};

void request_take(const struct frame *frame, struct arena *arena);
/* For what was answered later: 0 is Done, -errno is Failed with the failure that was noted. */
void request_answer(uint32_t id, int result);
void request_answer_started(uint32_t id, const struct msg_started *started);
