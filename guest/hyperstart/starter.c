/* See starter.h. */
#include "starter.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "kernel.h"

#define FILES 4 /* the pipe to report through, and three streams */

bool close_later;

struct order {
	uint8_t is_alike; /* the peer's version, as the session has it */
	uint8_t is_terminal;
};

union files {
	struct cmsghdr head;
	char room[CMSG_SPACE(FILES * sizeof(int))];
};

int starter_open(struct container *container)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return failed("socketpair", "starter");
	container->orders = ends[0];
	return ends[1];
}

/* --- The child --- */

/* Nothing of hyperstart's, or the ends of its pipes would stay open: orders, and what is /dev/null. */
static void close_others(int orders)
{
	unsigned int low = (unsigned int)(orders < guest.null ? orders : guest.null);
	unsigned int high = (unsigned int)(orders < guest.null ? guest.null : orders);

	if (low > 3)
		sys_close_between(3, low - 1);
	if (high > low + 1)
		sys_close_between(low + 1, high - 1);
	sys_close_range(high + 1, 0);
}

static int take_files(const struct msghdr *message, struct job *job, struct stdio *stdio)
{
	const struct cmsghdr *head = CMSG_FIRSTHDR(message);
	int files[FILES];

	if (!head || head->cmsg_type != SCM_RIGHTS || head->cmsg_len != CMSG_LEN(sizeof(files)))
		return -1;
	memcpy(files, CMSG_DATA(head), sizeof(files));
	job->pipe = files[0];
	memcpy(stdio->fds, files + 1, sizeof(stdio->fds));
	return 0;
}

static int receive(int orders, struct job *job, struct stdio *stdio, struct reader *reader)
{
	static uint8_t frame[FRAME_SIZE];
	union files files;
	struct order order;
	struct iovec parts[] = { { &order, sizeof(order) }, { frame, sizeof(frame) } };
	struct msghdr message = { .msg_iov = parts,
				  .msg_iovlen = LENGTH(parts),
				  .msg_control = &files,
				  .msg_controllen = sizeof(files) };
	ssize_t size = recvmsg(orders, &message, MSG_CMSG_CLOEXEC);

	if (size < (ssize_t)sizeof(order))
		return -1;
	stdio->is_terminal = order.is_terminal;
	reader->at = frame;
	reader->end = frame + (size_t)size - sizeof(order);
	reader->exact = order.is_alike;
	return take_files(&message, job, stdio);
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

_Noreturn void starter_wait(const struct container *container, int orders)
{
	struct arena arena = { .base = calloc(1, ARENA_SIZE), .size = ARENA_SIZE };
	struct reader reader = { .arena = &arena, .ok = true };
	struct job job = { .pipe = -1 };
	struct stdio stdio = { 0 };
	union msg_any message;

	close_others(orders);
	prctl(PR_SET_NAME, "starter");
	if (!arena.base || receive(orders, &job, &stdio, &reader))
		_exit(EXIT_REPORT_LOST);
	close(orders);
	drop_signals();
	if (!msg_read(&reader, MSG_START_PROCESS, &message))
		_exit(EXIT_REPORT_LOST);
	exec_process(&job, container, &stdio, &message.start_process);
}

/* --- hyperstart --- */

static int send_order(int orders, int pipe, const struct stdio *stdio)
{
	const struct frame *frame = guest.requests.frame;
	struct order order = { guest.session.is_alike, stdio->is_terminal };
	int fds[FILES] = { pipe, stdio->fds[0], stdio->fds[1], stdio->fds[2] };
	union files files = { .head = {
				      .cmsg_len = (socklen_t)CMSG_LEN(sizeof(fds)),
				      .cmsg_level = SOL_SOCKET,
				      .cmsg_type = SCM_RIGHTS,
			      } };
	struct iovec parts[] = { { &order, sizeof(order) }, { (void *)(uintptr_t)frame->body, frame->size } };
	struct msghdr message = { .msg_iov = parts,
				  .msg_iovlen = LENGTH(parts),
				  .msg_control = &files,
				  .msg_controllen = sizeof(files) };

	memcpy(CMSG_DATA(&files.head), fds, sizeof(fds));
	return sendmsg(orders, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 0;
}

pid_t starter_start(struct container *container, struct job *job, const struct stdio *stdio,
		    void (*done)(struct job *job, int result))
{
	cleanup_fd int orders = container->orders;
	pid_t pid = container->job.pid;
	int ends[2];

	container->orders = -1;
	if (orders < 0 || !pid)
		return -ESRCH;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return failed("pipe", "job");
	cleanup_fd int read_end = ends[0], write_end = ends[1];
	if (send_order(orders, write_end, stdio)) { /* too large an order for a socket, or it was killed */
		kill(pid, SIGKILL);
		return -ESRCH;
	}
	container->job.pid = 0;
	job_watch(job, pid, steal_fd(&read_end), done);
	return pid;
}
