/* See standard.h. */
#include "standard.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"

/* A terminal of the container's own devpts, so that ttyname(3) finds it there. */
static int open_terminal(struct process *process, const struct msg_start_process *message,
			 struct stdio *stdio)
{
	const struct winsize size = { .ws_row = message->rows, .ws_col = message->columns };
	bool is_inside = process->container && !message->in_machine;
	int directory = is_inside ? process->container->terminals : AT_FDCWD;
	const char *path = is_inside ? "ptmx" : "/dev/ptmx";
	int unlocked = 0;

	process->terminal = openat(directory, path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (process->terminal < 0 || ioctl(process->terminal, TIOCSPTLCK, &unlocked))
		return failed("open", "ptmx");
	int peer = ioctl(process->terminal, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (peer < 0)
		return failed("open", "terminal");
	if (size.ws_row || size.ws_col)
		ioctl(process->terminal, TIOCSWINSZ, &size);
	stdio->is_terminal = true;
	stdio->fds[0] = stdio->fds[1] = stdio->fds[2] = peer;
	/* epoll knows a descriptor once, and writing waits for other events than reading */
	input_open(&process->input, process, fcntl(process->terminal, F_DUPFD_CLOEXEC, 3), true);
	output_open(&process->outputs[0], process, STREAM_STDOUT,
		    fcntl(process->terminal, F_DUPFD_CLOEXEC, 3));
	return 0;
}

/* Our end does not block; the process' end is as it expects. */
static int open_pipe(int *ours, int *theirs, bool is_input)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return failed("pipe", "");
	*ours = is_input ? ends[1] : ends[0];
	*theirs = is_input ? ends[0] : ends[1];
	return fcntl(*ours, F_SETFL, O_NONBLOCK) ? failed("fcntl", "pipe") : 0;
}

static int open_pipes(struct process *process, bool has_stdin, struct stdio *stdio)
{
	int input = -1, result = 0;

	if (has_stdin)
		result = open_pipe(&input, &stdio->fds[0], true);
	else
		stdio->fds[0] = guest.null;
	input_open(&process->input, process, input, false);
	for (uint8_t i = 0; !result && i < 2; i++) {
		int ours = -1;
		result = open_pipe(&ours, &stdio->fds[i + 1], false);
		output_open(&process->outputs[i], process, (uint8_t)(i + STREAM_STDOUT), ours);
	}
	return result;
}

int stdio_open(struct process *process, const struct msg_start_process *message, struct stdio *stdio)
{
	return message->terminal ? open_terminal(process, message, stdio)
				 : open_pipes(process, message->stdin_, stdio);
}

void stdio_close(struct stdio *stdio)
{
	for (int i = 0; i < (stdio->is_terminal ? 1 : 3); i++)
		if (stdio->fds[i] != guest.null)
			close_fd(&stdio->fds[i]);
}
