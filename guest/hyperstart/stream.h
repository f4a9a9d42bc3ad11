/*
 * The bytes of a process: what it reads (input) and what it writes (outputs), by the rules of
 * "Streams" in protocol.py.  Kept until acknowledged, so that a new hyperd goes on where the old died.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loop.h"
#include "protocol.gen.h"
#include "queue.h"

struct process;

struct output {
	struct watch watch; /* the pipe or terminal; -1 once it has ended */
	struct process *process;
	uint8_t number; /* STREAM_STDOUT or STREAM_STDERR */
	struct queue kept; /* from `acknowledged` up to what was produced */
	uint64_t acknowledged; /* offsets */
	uint64_t sent, limit; /* on this connection */
	bool is_wanted, end_is_sent; /* on this connection */
	bool is_draining; /* the process is gone: */
	size_t left; /* so only what the pipe holds is read, and not what others go on to write */
};

struct input {
	struct watch watch; /* the pipe or terminal; -1: nobody reads */
	struct process *process;
	struct queue waiting; /* received, not written yet */
	uint64_t received; /* offsets */
	uint64_t end; /* UINT64_MAX: not known yet */
	uint64_t told_limit; /* in the last InputWindow */
	bool is_told; /* on this connection */
	bool is_terminal;
	uint8_t last; /* byte written, to know whether a terminal's line is begun */
};

/* Descriptors become the streams'; -1: there is none. */
void output_open(struct output *output, struct process *process, uint8_t number, int fd);
void output_close(struct output *output);
uint64_t output_produced(const struct output *output);
bool output_has_ended(const struct output *output); /* nothing more will come from the process */
void output_drain(struct output *output); /* the process is gone */
void output_window(struct output *output, const struct msg_output_window *window);
/* Put one frame of this stream into the session if there is something to send: true if it did. */
bool output_send(struct output *output);

void input_open(struct input *input, struct process *process, int fd, bool is_terminal);
void input_close(struct input *input);
void input_take(struct input *input, const struct msg_input *message);
void input_end(struct input *input, const struct msg_input_end *message);
bool input_send(struct input *input); /* an InputWindow when it is due */

/* What is only true of one connection. */
void output_forget_connection(struct output *output);
void input_forget_connection(struct input *input);
