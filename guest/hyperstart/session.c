/*
 * See session.h.
 *
 * Nothing here grows without bound: while more than OUT_HIGH waits to be written, no request is
 * taken, so that answers find room; and streams add to it only below OUT_LOW.
 */
#include "session.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>

#include "fd.h"
#include "guest.h"

#define IN_SIZE 65536u
#define OUT_LOW 65536u
#define OUT_HIGH (2u * OUT_LOW)
#define OUT_SIZE (OUT_HIGH + FRAME_STUFFED(FRAME_SIZE))
#define FRAMES_A_TURN 64
#define FLUSH_MS 2000

/* .bss: pages exist once they are touched */
static uint8_t in_buffer[IN_SIZE], out_buffer[OUT_SIZE], frame_buffer[FRAME_SIZE];
static uint8_t arena_memory[ARENA_SIZE] __attribute__((aligned(4096)));

#define ARENA_KEPT 65536u /* what a common request needs; more is given back */

void session_init(void)
{
	frame_parser_init(&guest.session.parser, frame_buffer, sizeof(frame_buffer));
}

/* --- Sending --- */

static size_t waiting(void)
{
	return guest.session.out_end - guest.session.out_begin;
}

void *session_room(void)
{
	struct session *session = &guest.session;

	if (session->out_begin && OUT_SIZE - session->out_end < FRAME_STUFFED(FRAME_SIZE)) {
		memmove(out_buffer, out_buffer + session->out_begin, waiting());
		session->out_end -= session->out_begin;
		session->out_begin = 0;
	}
	return out_buffer + session->out_end;
}

size_t session_room_size(void)
{
	return OUT_SIZE - guest.session.out_end;
}

void session_sent(size_t size)
{
	guest.session.out_end += size;
}

static void drop_output(void)
{
	guest.session.out_begin = guest.session.out_end = 0;
}

static void write_output(void)
{
	struct session *session = &guest.session;
	size_t count;

	while (waiting() && (count = channel_write(out_buffer + session->out_begin, waiting())))
		session->out_begin += count;
	if (!waiting())
		drop_output();
}

/* Streams fill the buffer again and again as far as the channel takes it. */
static bool send_streams(void)
{
	for (int i = 0; i < FRAMES_A_TURN; i++) {
		if (waiting() >= OUT_LOW)
			write_output();
		if (waiting() >= OUT_LOW || !processes_send())
			return false;
	}
	return true;
}

bool session_tell(char *line)
{
	const struct msg_diagnostic diagnostic = { line };

	if (!guest.session.is_open || guest.channel.has_ended || waiting() >= OUT_LOW)
		return false;
	SESSION_SEND(diagnostic, &diagnostic);
	return true;
}

void session_flush(void)
{
	uint64_t give_up = now_ns() + FLUSH_MS * UINT64_C(1000000);

	while (waiting() && now_ns() < give_up) {
		struct pollfd channel = { .fd = guest.channel.watch.fd, .events = POLLOUT };
		poll(&channel, 1, 10);
		guest.channel.writable = true;
		write_output();
	}
}

/* --- Hello --- */

static void fill_process_state(struct msg_process_state *state, struct process *process)
{
	state->process = process->id;
	state->container = process->container_name;
	state->is_running = process->pid != 0;
	state->status = process->status;
	state->stdin_received = process->input.received;
	state->stdout_produced = output_produced(&process->outputs[0]);
	state->stderr_produced = output_produced(&process->outputs[1]);
}

static void fill_containers(struct msg_welcome *welcome)
{
	size_t count = 0;

	for (struct container *container = guest.containers; container; container = container->next)
		count++;
	welcome->containers = calloc(count + 1, sizeof(*welcome->containers));
	for (struct container *container = guest.containers; container && welcome->containers;
	     container = container->next)
		if (container->is_ready)
			welcome->containers[welcome->containers_count++] = container->name;
}

static void fill_processes(struct msg_welcome *welcome)
{
	welcome->processes = calloc(processes_count() + 1, sizeof(*welcome->processes));
	for (struct process *process = guest.processes; process && welcome->processes;
	     process = process->next)
		if (!process->is_starting)
			fill_process_state(&welcome->processes[welcome->processes_count++], process);
}

static void send_welcome(const struct msg_hello *hello, uint32_t request)
{
	struct utsname name;
	struct msg_welcome welcome = {
		.version = PROTOCOL_VERSION,
		.session = hello->session,
		.kernel_release = uname(&name) ? NULL : name.release,
		.started_ns = guest.started_ns,
		.now_ns = now_ns(),
		.has_pod = guest.pod.exists,
	};

	fill_containers(&welcome);
	fill_processes(&welcome);
	session_sent(msg_frame_welcome(session_room(), session_room_size(), request, &welcome));
	free(welcome.containers);
	free(welcome.processes);
}

void session_hello(const struct frame *frame)
{
	struct reader reader = { .at = frame->body, .end = frame->body + frame->size, .ok = true };
	struct msg_hello hello;

	/* as of any version: this is where it is told */
	msg_read_hello(&reader, &hello);
	drop_output();
	clone_greeted();
	processes_forget_connection();
	channel_renew();
	guest.session.is_open = reader.ok && hello.version;
	guest.session.is_alike = hello.version == PROTOCOL_VERSION;
	send_welcome(&hello, frame->id);
	mark("welcome", "");
}

void session_disconnected(void)
{
	struct session *session = &guest.session;

	session->is_open = session->has_held = false;
	drop_output();
	frame_parser_reset(&session->parser);
	session->in = session->in_end = NULL;
}

/* --- Receiving --- */

static void take_frame(const struct frame *frame)
{
	struct arena arena = { .base = arena_memory, .size = sizeof(arena_memory) };

	request_take(frame, &arena);
	if (arena.used > ARENA_KEPT)
		madvise(arena_memory + ARENA_KEPT, sizeof(arena_memory) - ARENA_KEPT, MADV_DONTNEED);
}

void session_take_again(void)
{
	guest.requests.is_busy = false;
	take_frame(&guest.session.held); /* nothing is parsed while a request is under way */
}

static bool next_frame(struct frame *frame)
{
	struct session *session = &guest.session;

	while (!frame_parser_next(&session->parser, &session->in, session->in_end, frame)) {
		size_t size = channel_read(in_buffer, sizeof(in_buffer));
		if (!size)
			return false;
		session->in = in_buffer;
		session->in_end = in_buffer + size;
	}
	return true;
}

/* Requests run in order: while a job is at one, the next ones wait in the channel. */
static bool receive(void)
{
	struct session *session = &guest.session;

	for (int i = 0; i < FRAMES_A_TURN; i++) {
		if (guest.requests.is_busy || waiting() >= OUT_HIGH)
			return false;
		if (!session->has_held && !next_frame(&session->held))
			return false;
		session->has_held = !request_can_take(session->held.number);
		if (session->has_held)
			return false;
		take_frame(&session->held);
	}
	return true;
}

bool session_turn(void)
{
	bool has_more = receive();

	if (guest.session.is_open)
		has_more |= send_streams();
	write_output();
	return has_more;
}
