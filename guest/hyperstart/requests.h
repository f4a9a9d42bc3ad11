/* What hyperd asks for: one request at a time, each answered once. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "protocol.gen.h"
#include "wire.h"

struct requests {
	const struct frame *frame; /* that is handled now */
	bool is_busy; /* one waits for its job */
	bool is_tearing_down; /* a pod is ending: beside it the next one is set up, but no process started */
	unsigned int
		creating; /* CreateContainers whose jobs run side by side: they mostly wait for the kernel */
};

enum {
	ANSWERED = 1, /* the handler has sent the reply */
	ANSWERED_LATER = 2, /* a job will */
	CREATED_LATER = 3, /* a container's job will */
	TORN_DOWN_LATER = 4, /* what was killed must have ended */
};

bool request_can_take(uint16_t number); /* else what runs must end first */
void request_take(const struct frame *frame, struct arena *arena);
/* For what was answered later: 0 is Done, -errno is Failed with the failure that was noted. */
void request_answer(uint32_t id, int result);
void request_answer_created(uint32_t id, int result);
void request_answer_torn_down(uint32_t id, int result);
void request_answer_started(uint32_t id, const struct msg_started *started);
