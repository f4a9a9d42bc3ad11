/* See requests.h. */
#include "requests.h"

#include <errno.h>

#include "disk.h"
#include "fd.h"
#include "guest.h"
#include "statistics.h"
#include "table.h"

#define CREATING 16 /* containers at once */

/* --- Replies --- */

static void send_reply(uint32_t id, uint16_t number, const union msg_any *message)
{
	struct writer writer;

	if (!id)
		return;
	frame_begin(&writer, session_room(), session_room_size(), FRAME_SIZE, number, id);
	msg_write(&writer, number, message);
	size_t size = frame_end(&writer);
	if (!size)
		log_line("no room for the reply %s", msg_name(number));
	session_sent(size);
}

static void send_result(uint32_t id, int result)
{
	union msg_any message = { .done = { 0 } };

	if (result < 0)
		message.failed = (struct msg_failed){ .errno_ = -result,
						      .operation = guest.failure.operation,
						      .subject = guest.failure.subject };
	send_reply(id, result < 0 ? MSG_FAILED : MSG_DONE, &message);
}

void request_answer(uint32_t id, int result)
{
	guest.requests.is_busy = false;
	send_result(id, result);
}

void request_answer_created(uint32_t id, int result)
{
	guest.requests.creating--;
	send_result(id, result);
}

void request_answer_torn_down(uint32_t id, int result)
{
	guest.requests.is_tearing_down = false;
	send_result(id, result);
}

void request_answer_started(uint32_t id, const struct msg_started *started)
{
	const union msg_any message = { .started = *started };

	guest.requests.is_busy = false;
	send_reply(id, MSG_STARTED, &message);
}

/* --- Looking in --- */

static int get_statistics(const union msg_any *unused, uint32_t id)
{
	union msg_any message;
	int result = statistics_fill(&message.statistics);

	(void)unused;
	if (!result)
		send_reply(id, MSG_STATISTICS, &message);
	statistics_free(&message.statistics);
	return result ? result : ANSWERED;
}

static int get_processes(const union msg_any *request, uint32_t id)
{
	union msg_any message;
	int result = table_fill(request->get_processes.container, &message.processes);

	if (!result)
		send_reply(id, MSG_PROCESSES, &message);
	table_free(&message.processes);
	return result ? result : ANSWERED;
}

static int get_timeline(const union msg_any *unused, uint32_t id)
{
	struct timeline *timeline = &guest.timeline;
	size_t first = timeline->count > MARKS ? timeline->count - MARKS : 0;
	struct msg_mark marks[MARKS];
	union msg_any message = { .timeline = { .marks = marks } };

	(void)unused;
	for (size_t i = first; i < timeline->count; i++)
		marks[message.timeline.marks_count++] = (struct msg_mark){ timeline->marks[i % MARKS].name,
									   timeline->marks[i % MARKS].at_ns };
	send_reply(id, MSG_TIMELINE, &message);
	return ANSWERED;
}

/* --- Number to handler --- */

static int ping(const union msg_any *unused, uint32_t id)
{
	(void)unused;
	(void)id;
	return 0;
}

static int set_up_pod(const union msg_any *message, uint32_t id)
{
	return pod_set_up(&message->set_up_pod, id);
}

static int become_template(const union msg_any *unused, uint32_t id)
{
	(void)unused;
	(void)id;
	return clone_prepare();
}

static int tear_down_pod(const union msg_any *message, uint32_t id)
{
	const struct msg_tear_down_pod *wish = &message->tear_down_pod;
	uint64_t keep = 0;

	for (uint32_t i = 0; i < wish->keep_count; i++)
		keep |= slot_bit(wish->keep[i]);
	return teardown_begin(id, keep, false);
}

static int shut_down(const union msg_any *unused, uint32_t id)
{
	(void)unused;
	return teardown_begin(id, 0, true);
}

static int configure_nic(const union msg_any *message, uint32_t id)
{
	(void)id;
	return pod_configure_nic(&message->configure_nic);
}

static int set_services(const union msg_any *message, uint32_t id)
{
	(void)id;
	return pod_set_services(&message->set_services);
}

static int create_container(const union msg_any *message, uint32_t id)
{
	return container_create(&message->create_container, id);
}

static int remove_container(const union msg_any *message, uint32_t id)
{
	return container_remove(&message->remove_container, id);
}

static int start_process(const union msg_any *message, uint32_t id)
{
	return process_start(&message->start_process, id);
}

static int start_archive(const union msg_any *message, uint32_t id)
{
	return process_start_archive(&message->start_archive, id);
}

static int signal_process(const union msg_any *message, uint32_t id)
{
	(void)id;
	return process_signal(&message->signal_process);
}

static int resize_terminal(const union msg_any *message, uint32_t id)
{
	(void)id;
	return process_resize(&message->resize_terminal);
}

static int forget_process(const union msg_any *message, uint32_t id)
{
	(void)id;
	process_forget(message->forget_process.process);
	return 0;
}

/* Streams: of a process that is not there any more they are late, and no fault. */

static int take_input(const union msg_any *message, uint32_t id)
{
	struct process *process = process_find(message->input.process);

	(void)id;
	if (process)
		input_take(&process->input, &message->input);
	return 0;
}

static int take_input_end(const union msg_any *message, uint32_t id)
{
	struct process *process = process_find(message->input_end.process);

	(void)id;
	if (process)
		input_end(&process->input, &message->input_end);
	return 0;
}

static int take_output_window(const union msg_any *message, uint32_t id)
{
	const struct msg_output_window *window = &message->output_window;
	struct process *process = process_find(window->process);

	(void)id;
	if (window->stream != STREAM_STDOUT && window->stream != STREAM_STDERR)
		return failed_with(EBADMSG, "decode", "OutputWindow");
	if (process)
		output_window(&process->outputs[window->stream - STREAM_STDOUT], window);
	return 0;
}

static int (*const handlers[])(const union msg_any *message, uint32_t id) = {
	[MSG_PING] = ping,
	[MSG_SET_UP_POD] = set_up_pod,
	[MSG_BECOME_TEMPLATE] = become_template,
	[MSG_TEAR_DOWN_POD] = tear_down_pod,
	[MSG_CONFIGURE_NIC] = configure_nic,
	[MSG_SET_SERVICES] = set_services,
	[MSG_SHUT_DOWN] = shut_down,
	[MSG_CREATE_CONTAINER] = create_container,
	[MSG_REMOVE_CONTAINER] = remove_container,
	[MSG_START_PROCESS] = start_process,
	[MSG_START_ARCHIVE] = start_archive,
	[MSG_SIGNAL_PROCESS] = signal_process,
	[MSG_RESIZE_TERMINAL] = resize_terminal,
	[MSG_FORGET_PROCESS] = forget_process,
	[MSG_INPUT] = take_input,
	[MSG_INPUT_END] = take_input_end,
	[MSG_OUTPUT_WINDOW] = take_output_window,
	[MSG_GET_STATISTICS] = get_statistics,
	[MSG_GET_TIMELINE] = get_timeline,
	[MSG_GET_PROCESSES] = get_processes,
};

static int handle(const struct frame *frame, struct arena *arena)
{
	struct reader reader = { .at = frame->body,
				 .end = frame->body + frame->size,
				 .arena = arena,
				 .ok = true,
				 .exact = guest.session.is_alike };
	union msg_any message;

	if (frame->number >= LENGTH(handlers) || !handlers[frame->number])
		return failed_with(ENOSYS, "take", msg_name(frame->number));
	if (!msg_read(&reader, frame->number, &message))
		return failed_with(EBADMSG, "decode", msg_name(frame->number));
	guest.requests.frame = frame;
	return handlers[frame->number](&message, frame->id);
}

static bool waits_for_end(uint16_t number)
{
	switch (number) {
	case MSG_TEAR_DOWN_POD:
	case MSG_SHUT_DOWN:
	case MSG_BECOME_TEMPLATE:
	case MSG_REMOVE_CONTAINER:
	case MSG_START_PROCESS:
	case MSG_START_ARCHIVE:
		return true;
	default:
		return false;
	}
}

bool request_can_take(uint16_t number)
{
	const struct requests *requests = &guest.requests;

	if (requests->is_busy)
		return false;
	if (requests->is_tearing_down && waits_for_end(number))
		return false;
	return !requests->creating || (number == MSG_CREATE_CONTAINER && requests->creating < CREATING);
}

void request_take(const struct frame *frame, struct arena *arena)
{
	if (frame->number == MSG_HELLO) {
		session_hello(frame);
		return;
	}
	if (!guest.session.is_open)
		return; /* of a connection that is over, or that never began well */
	int result = handle(frame, arena);
	if (result == ANSWERED_LATER)
		guest.requests.is_busy = true;
	else if (result == CREATED_LATER)
		guest.requests.creating++;
	else if (result == TORN_DOWN_LATER)
		guest.requests.is_tearing_down = true;
	else if (result != ANSWERED)
		send_result(frame->id, result);
}
