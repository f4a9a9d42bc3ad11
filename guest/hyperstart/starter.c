/* See starter.h. */
#include "starter.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "kernel.h"

#define STREAMS 3

bool close_later;

struct order {
	uint8_t is_alike; /* the peer's version, as the session has it */
	uint8_t is_terminal;
};

union streams {
	struct cmsghdr head;
	char room[CMSG_SPACE(STREAMS * sizeof(int))];
};

/* --- The child --- */

/* Nothing of hyperstart's but the line, or the ends of its pipes would stay open. */
static void close_others(int line)
{
	if (line > 3)
		sys_close_between(3, (unsigned int)line - 1);
	sys_close_range((unsigned int)line + 1, 0);
}

static int take_streams(const struct msghdr *message, struct stdio *stdio)
{
	const struct cmsghdr *head = CMSG_FIRSTHDR(message);

	if (!head || head->cmsg_type != SCM_RIGHTS || head->cmsg_len != CMSG_LEN(sizeof(stdio->fds)))
		return -1;
	memcpy(stdio->fds, CMSG_DATA(head), sizeof(stdio->fds));
	return 0;
}

static int receive(int line, struct stdio *stdio, struct reader *reader)
{
	static uint8_t frame[FRAME_SIZE];
	union streams streams;
	struct order order;
	struct iovec parts[] = { { &order, sizeof(order) }, { frame, sizeof(frame) } };
	struct msghdr message = { .msg_iov = parts,
				  .msg_iovlen = LENGTH(parts),
				  .msg_control = &streams,
				  .msg_controllen = sizeof(streams) };
	ssize_t size = recvmsg(line, &message, MSG_CMSG_CLOEXEC);

	if (size < (ssize_t)sizeof(order))
		return -1;
	stdio->is_terminal = order.is_terminal;
	reader->at = frame;
	reader->end = frame + (size_t)size - sizeof(order);
	reader->exact = order.is_alike;
	return take_streams(&message, stdio);
}

/* What others of the pod sent to it while it waited is not for the process that it becomes. */
static void drop_signals(void)
{
	const struct timespec at_once = { 0 };
	sigset_t all;

	sigfillset(&all);
	while (sigtimedwait(&all, NULL, &at_once) > 0)
		;
}

_Noreturn void starter_wait(const struct container *container)
{
	static uint8_t memory[ARENA_SIZE] __attribute__((aligned(sizeof(max_align_t))));
	struct arena arena = { .base = memory, .size = sizeof(memory) };
	struct reader reader = { .arena = &arena, .ok = true };
	struct stdio stdio = { 0 };
	union msg_any message;

	close_others(container->job.line);
	prctl(PR_SET_NAME, "starter");
	if (receive(container->job.line, &stdio, &reader))
		_exit(EXIT_REPORT_LOST);
	drop_signals();
	if (!msg_read(&reader, MSG_START_PROCESS, &message))
		_exit(EXIT_REPORT_LOST);
	exec_process(&container->job, container, &stdio, &message.start_process);
}

/* --- hyperstart --- */

static int send_order(int line, const struct stdio *stdio)
{
	const struct frame *frame = guest.requests.frame;
	struct order order = { guest.session.is_alike, stdio->is_terminal };
	union streams streams = { .head = {
					  .cmsg_len = (socklen_t)CMSG_LEN(sizeof(stdio->fds)),
					  .cmsg_level = SOL_SOCKET,
					  .cmsg_type = SCM_RIGHTS,
				  } };
	struct iovec parts[] = { { &order, sizeof(order) }, { (void *)(uintptr_t)frame->body, frame->size } };
	struct msghdr message = { .msg_iov = parts,
				  .msg_iovlen = LENGTH(parts),
				  .msg_control = &streams,
				  .msg_controllen = sizeof(streams) };

	memcpy(CMSG_DATA(&streams.head), stdio->fds, sizeof(stdio->fds));
	return sendmsg(line, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 0;
}

pid_t starter_start(struct container *container, struct job *job, const struct stdio *stdio,
		    void (*done)(struct job *job, int result))
{
	struct job *waiting = &container->job;

	if (waiting->watch.fd < 0 || !waiting->pid)
		return -ESRCH;
	if (send_order(waiting->watch.fd, stdio)) { /* too large an order for a socket, or it was killed */
		watch_close(&waiting->watch);
		kill(waiting->pid, SIGKILL);
		return -ESRCH;
	}
	job_go_on(job, waiting, done);
	return job->pid;
}
