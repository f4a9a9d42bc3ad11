/* See stream.h. */
#include "stream.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysinfo.h>
#include <termios.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"

#define INPUT_WINDOW (4u * STREAM_CHUNK)
#define MEMORY_SHARE 8 /* all streams together keep at most this part of the machine's memory */
#define TERMINAL_DRAIN (1u << 20)

/* --- Output --- */

/* How much one stream may keep: with many processes in a small machine, less than the protocol allows. */
static size_t output_allowance(void)
{
	static uint64_t total;
	struct sysinfo info;

	if (!total && !sysinfo(&info))
		total = (uint64_t)info.totalram * info.mem_unit;
	uint64_t share = total / MEMORY_SHARE / (2 * processes_count() + 1);
	return share > STREAM_BUFFER ? STREAM_BUFFER : share < STREAM_CHUNK ? STREAM_CHUNK : (size_t)share;
}

static size_t output_room(const struct output *output)
{
	size_t allowance = output_allowance();

	return output->kept.size < allowance ? allowance - output->kept.size : 0;
}

/* A descriptor that is not to be read is taken out: epoll always reports a hang-up. */
static void output_listen(struct output *output)
{
	if (output->watch.fd >= 0)
		watch_set(&output->watch, output_room(output) ? EPOLLIN : 0);
}

/* Bytes read, 0 at the end, -1 with EAGAIN when there is nothing now. */
static ssize_t output_fill(struct output *output, size_t limit)
{
	struct iovec room[2];
	int count = queue_room(&output->kept, limit, room);
	ssize_t size;

	if (!count) {
		errno = EAGAIN; /* no memory: perhaps later */
		return -1;
	}
	do
		size = readv(output->watch.fd, room, count);
	while (size < 0 && errno == EINTR);
	queue_filled(&output->kept, size > 0 ? (size_t)size : 0);
	return size;
}

/* Read what there is room for.  EIO is how a terminal says that nobody has it open any more. */
static void output_read(struct output *output)
{
	size_t room = output_room(output);
	size_t limit = output->is_draining && output->left < room ? output->left : room;
	ssize_t size = limit ? output_fill(output, limit) : 0;
	bool has_ended = limit && (size == 0 || (size < 0 && errno != EAGAIN));

	if (output->is_draining) {
		output->left -= size > 0 ? (size_t)size : 0;
		has_ended |= !output->left || size < 0; /* all that it had written is read */
	}
	if (has_ended)
		watch_close(&output->watch);
	else
		output_listen(output);
}

static void output_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	output_read(container_of(watch, struct output, watch));
}

void output_open(struct output *output, struct process *process, uint8_t number, int fd)
{
	*output = (struct output){ .process = process,
				   .number = number,
				   .watch = { .fd = fd, .ready = output_ready } };
	output_listen(output);
}

void output_close(struct output *output)
{
	watch_close(&output->watch);
	queue_drop(&output->kept, output->kept.size);
}

uint64_t output_produced(const struct output *output)
{
	return output->acknowledged + output->kept.size;
}

bool output_has_ended(const struct output *output)
{
	return output->watch.fd < 0;
}

void output_drain(struct output *output)
{
	int held = 0;

	if (output->watch.fd < 0 || output->is_draining)
		return;
	output->is_draining = true;
	if (isatty(output->watch.fd))
		output->left = TERMINAL_DRAIN;
	else
		output->left = ioctl(output->watch.fd, FIONREAD, &held) ? 0 : (size_t)held;
	while (output->watch.fd >= 0 && (output_room(output) || !output->left))
		output_read(output);
	/* the rest is read when hyperd has taken what is kept */
}

static void output_acknowledge(struct output *output, uint64_t received)
{
	uint64_t produced = output_produced(output);

	if (received > produced)
		received = produced;
	if (received <= output->acknowledged)
		return;
	queue_drop(&output->kept, (size_t)(received - output->acknowledged));
	output->acknowledged = received;
	if (output->is_draining && output->watch.fd >= 0)
		output_read(output);
	else
		output_listen(output);
}

void output_window(struct output *output, const struct msg_output_window *window)
{
	output_acknowledge(output, window->received);
	output->limit = window->limit;
	if (!output->is_wanted) /* the first on this connection: from there on again */
		output->sent = window->received;
	output->is_wanted = true;
	if (output->sent < output->acknowledged)
		output->sent = output->acknowledged;
	if (output->sent > output_produced(output))
		output->sent = output_produced(output);
}

static bool output_send_end(struct output *output)
{
	const struct msg_output_end end = { output->process->id, output->number, output_produced(output) };

	if (!output_has_ended(output) || output->end_is_sent)
		return false;
	output->end_is_sent = true;
	SESSION_SEND(output_end, &end);
	return true;
}

bool output_send(struct output *output)
{
	struct msg_output message = { output->process->id, output->number, output->sent, { 0 } };
	uint64_t window = output->limit > output->sent ? output->limit - output->sent : 0;

	if (!output->is_wanted)
		return false;
	size_t size =
		queue_peek(&output->kept, (size_t)(output->sent - output->acknowledged), &message.data.data);
	if (!size)
		return output_send_end(output);
	size = size < STREAM_CHUNK ? size : STREAM_CHUNK;
	size = size < window ? size : (size_t)window;
	if (!size)
		return false;
	message.data.size = (uint32_t)size;
	output->sent += size;
	SESSION_SEND(output, &message);
	return true;
}

void output_forget_connection(struct output *output)
{
	output->is_wanted = output->end_is_sent = false;
	output->sent = output->acknowledged;
	output->limit = 0;
}

/* --- Input --- */

static void input_stop(struct input *input)
{
	watch_close(&input->watch);
	queue_drop(&input->waiting, input->waiting.size);
}

/*
 * Ctrl-D: a terminal's reader gets what stands in the line so far, and its end when that is nothing;
 * so a begun line takes two.
 */
static void input_end_terminal(struct input *input)
{
	struct termios settings;

	if (tcgetattr(input->watch.fd, &settings) || !(settings.c_lflag & ICANON))
		return;
	char end[2] = { (char)settings.c_cc[VEOF], (char)settings.c_cc[VEOF] };
	size_t count = input->last && input->last != '\n' ? 2 : 1;
	if (write(input->watch.fd, end, count) < 0)
		log_line("process %u: no room for the end of input", input->process->id);
}

static void input_finish(struct input *input)
{
	if (input->is_terminal)
		input_end_terminal(input); /* it stays open: its output comes through it */
	input_stop(input);
}

/* Write to the process until it takes no more; keep the rest. */
static size_t input_write(struct input *input, const uint8_t *data, size_t size)
{
	ssize_t count = write(input->watch.fd, data, size);

	if (count > 0) {
		input->last = data[count - 1];
		return (size_t)count;
	}
	if (count < 0 && errno != EAGAIN && errno != EINTR)
		input_stop(input); /* nobody reads any more */
	return 0;
}

static void input_flush(struct input *input)
{
	const uint8_t *data;
	size_t size;

	while (input->watch.fd >= 0 && (size = queue_peek(&input->waiting, 0, &data))) {
		size_t count = input_write(input, data, size);
		if (!count)
			break;
		queue_drop(&input->waiting, count);
	}
	if (input->watch.fd >= 0 && !input->waiting.size && input->received == input->end)
		input_finish(input);
	if (input->watch.fd >= 0) /* EPOLLERR comes unasked when a pipe's reader closes */
		watch_set(&input->watch, input->waiting.size ? EPOLLOUT : EPOLLERR);
}

static void input_ready(struct watch *watch, uint32_t events)
{
	struct input *input = container_of(watch, struct input, watch);

	if (events & EPOLLERR)
		input_stop(input);
	else
		input_flush(input);
}

void input_open(struct input *input, struct process *process, int fd, bool is_terminal)
{
	*input = (struct input){
		.process = process,
		.watch = { .fd = fd, .ready = input_ready },
		.end = UINT64_MAX,
		.is_terminal = is_terminal,
	};
	if (fd >= 0 && !is_terminal) /* a terminal's end is its output's */
		watch_set(&input->watch, EPOLLERR);
}

void input_close(struct input *input)
{
	input_stop(input);
}

void input_take(struct input *input, const struct msg_input *message)
{
	const uint8_t *data = message->data.data;
	size_t size = message->data.size;

	/* sent again after a new connection: the first part is here already */
	if (message->offset > input->received || message->offset + size < message->offset)
		return; /* a gap: hyperd's fault, and it will find it in the next InputWindow */
	if (message->offset + size <= input->received)
		return;
	data += input->received - message->offset;
	size -= (size_t)(input->received - message->offset);
	if (input->watch.fd >= 0 && input->waiting.size + size > INPUT_WINDOW)
		return;
	if (input->watch.fd >= 0 && queue_append(&input->waiting, data, size)) {
		log_line("process %u: no memory for its input", input->process->id);
		input_stop(input);
	}
	input->received += size;
	if (input->watch.fd >= 0)
		input_flush(input);
}

void input_end(struct input *input, const struct msg_input_end *message)
{
	input->end = message->offset;
	if (input->watch.fd >= 0)
		input_flush(input);
}

/* Tell again when half of what was promised is used up, so that hyperd need not stop. */
static bool input_is_due(const struct input *input, uint64_t limit)
{
	if (!input->is_told)
		return true;
	if (limit == input->told_limit)
		return false;
	return limit == UINT64_MAX || limit - input->told_limit >= INPUT_WINDOW / 2;
}

bool input_send(struct input *input)
{
	bool is_read = input->watch.fd >= 0;
	uint64_t limit = is_read ? input->received + INPUT_WINDOW - input->waiting.size : UINT64_MAX;
	const struct msg_input_window window = { input->process->id, input->received, limit };

	if (!input_is_due(input, limit))
		return false;
	input->is_told = true;
	input->told_limit = limit;
	SESSION_SEND(input_window, &window);
	return true;
}

void input_forget_connection(struct input *input)
{
	input->is_told = false;
}
