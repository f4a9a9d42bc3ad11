/* See process.h. */

#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "archive.h"
#include "cgroup.h"
#include "exec.h"
#include "fd.h"
#include "guest.h"
#include "standard.h"
#include "starter.h"

#define PROCESSES 1024 /* all of them fit a Welcome */

struct process *process_find(uint32_t id)
{
	for (struct process *process = guest.processes; process; process = process->next)
		if (process->id == id)
			return process;
	return NULL;
}

size_t processes_count(void)
{
	size_t count = 0;

	for (struct process *process = guest.processes; process; process = process->next)
		count++;
	return count;
}

static void process_free(struct process *process)
{
	struct process **at = &guest.processes;

	while (*at && *at != process)
		at = &(*at)->next;
	if (*at)
		*at = process->next;
	watch_close(&process->job.watch);
	input_close(&process->input);
	output_close(&process->outputs[0]);
	output_close(&process->outputs[1]);
	close_fd(&process->terminal);
	free(process);
}

/* --- Starting --- */

static int check(const struct msg_start_process *message, struct container *container)
{
	if (message->container[0] && (!container || !container->is_ready))
		return failed_with(ENOENT, "find container", message->container);
	if (!message->argv_count)
		return failed_with(EINVAL, "start process", "no argv");
	if (process_find(message->process))
		return failed_with(EEXIST, "start process", message->argv[0]);
	return processes_count() < PROCESSES ? 0 : failed_with(ENOSPC, "start process", message->argv[0]);
}

static struct process *process_new(const struct msg_start_process *message, struct container *container)
{
	struct process *process = calloc(1, sizeof(*process));

	if (!process)
		return NULL;
	process->id = message->process;
	process->container = container;
	snprintf(process->container_name, sizeof(process->container_name), "%s", message->container);
	process->is_main = message->is_main;
	process->is_starting = true;
	process->terminal = -1;
	process->job.watch.fd = -1;
	if (container && container->cgroup >= 0 && container->has_run)
		process->oom_kills = cgroup_oom_kills(container->cgroup);
	if (container)
		container->has_run = true;
	input_open(&process->input, process, -1, false);
	output_open(&process->outputs[0], process, STREAM_STDOUT, -1);
	output_open(&process->outputs[1], process, STREAM_STDERR, -1);
	process->next = guest.processes;
	guest.processes = process;
	return process;
}

static void end_process(struct process *process);

static void process_is_started(struct job *job, int result)
{
	struct process *process = container_of(job, struct process, job);
	uint32_t request = process->request;

	if (result) {
		process_free(process); /* and when it ends, it is nobody's */
		request_answer(request, result);
		return;
	}
	const struct msg_started started = { (uint32_t)job->report.pid, now_ns() };
	process->is_starting = false;
	mark("process", process->container_name);
	request_answer_started(request, &started);
	if (!process->pid)
		end_process(process);
}

/* One that was killed while it waited may not have seen its order: then another child gets it, once. */
static void starter_has_started(struct job *job, int result)
{
	if (job->has_report) {
		process_is_started(job, result);
		return;
	}
	process_free(container_of(job, struct process, job));
	session_take_again();
}

/* As job_start(): but the first main process of a container is the one that waits to become it. */
static pid_t begin(struct process *process, const struct place *place, const struct stdio *stdio,
		   bool is_inside)
{
	pid_t pid = -ESRCH;

	if (process->is_main && is_inside)
		pid = starter_start(process->container, &process->job, stdio, starter_has_started);
	return pid == -ESRCH ? job_start(&process->job, place, process_is_started) : pid;
}

/* An archive's child is in the container's mounts only: what runs there, and its end, is not its own. */
static int start(const struct msg_start_process *message, const struct msg_start_archive *archive,
		 uint32_t request)
{
	struct container *container = message->container[0] ? container_find(message->container) : NULL;
	bool is_inside = container && !archive;
	const struct place place = { .in_pod = is_inside && !message->in_machine,
				     .cgroup = is_inside ? container->cgroup : -1,
				     .moves = is_inside && container->was_killed };
	struct stdio stdio = { .fds = { -1, -1, -1 } };
	struct process *process;
	int result = check(message, container);

	if (result)
		return result;
	process = process_new(message, container);
	if (!process)
		return failed_with(ENOMEM, "start process", message->argv[0]);
	process->request = request;
	process->is_archive = archive != NULL;
	result = stdio_open(process, message, &stdio);
	pid_t pid = result ? result : begin(process, &place, &stdio, is_inside && !message->in_machine);
	if (pid == 0 && archive)
		archive_run(&process->job, container, &stdio, archive);
	if (pid == 0)
		exec_process(&process->job, container, &stdio, message);
	stdio_close(&stdio);
	if (pid < 0) {
		process_free(process);
		return pid;
	}
	process->pid = pid;
	return ANSWERED_LATER;
}

int process_start(const struct msg_start_process *message, uint32_t request)
{
	return start(message, NULL, request);
}

int process_start_archive(const struct msg_start_archive *message, uint32_t request)
{
	static char name[] = "archive";
	char *argv[] = { name, NULL };
	const struct msg_start_process process = {
		.process = message->process,
		.container = message->container,
		.argv = argv,
		.argv_count = 1,
		.stdin_ = message->unpack,
	};

	if (!message->container[0])
		return failed_with(ENOENT, "find container", "");
	return start(&process, message, request);
}

/* --- While it runs --- */

int process_signal(const struct msg_signal_process *message)
{
	struct process *process = process_find(message->process);

	if (!message->signal || message->signal > 64)
		return failed_with(EINVAL, "kill", "signal number");
	if (!process || (!process->pid && !message->whole_container))
		return failed_with(ESRCH, "kill", "process");
	if (!message->whole_container)
		return kill(process->pid, (int)message->signal) ? failed("kill", "process") : 0;
	if (!process->container)
		return failed_with(ESRCH, "kill", "container");
	return container_signal(process->container, (int)message->signal);
}

int process_resize(const struct msg_resize_terminal *message)
{
	const struct winsize size = { .ws_row = message->rows, .ws_col = message->columns };
	struct process *process = process_find(message->process);

	if (!process)
		return failed_with(ESRCH, "resize", "process");
	if (process->terminal < 0)
		return failed_with(ENOTTY, "resize", "process");
	return ioctl(process->terminal, TIOCSWINSZ, &size) ? failed("resize", "terminal") : 0;
}

/* --- Its end --- */

static void end_process(struct process *process)
{
	struct container *container = process->container;

	if (process->is_main && container)
		container_kill(container);
	output_drain(&process->outputs[0]);
	output_drain(&process->outputs[1]);
	input_close(&process->input);
	close_fd(&process->terminal);
}

static int32_t exit_status(int wait_status)
{
	return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

static bool was_out_of_memory(const struct process *process, int wait_status)
{
	const struct container *container = process->container;

	if (!WIFSIGNALED(wait_status) || WTERMSIG(wait_status) != SIGKILL || !container ||
	    container->cgroup < 0)
		return false;
	return cgroup_oom_kills(container->cgroup) > process->oom_kills;
}

bool processes_ended(pid_t pid, int wait_status)
{
	struct process *process = guest.processes;

	while (process && process->pid != pid)
		process = process->next;
	if (!process)
		return false;
	process->pid = 0;
	process->status = exit_status(wait_status);
	process->out_of_memory = was_out_of_memory(process, wait_status);
	process->ended_ns = now_ns();
	if (process->is_starting)
		job_finish(&process->job); /* goes on with end_process(), or frees it */
	else
		end_process(process);
	return true;
}

void process_forget(uint32_t id)
{
	struct process *process = process_find(id);

	if (process && !process->pid && !process->is_starting)
		process_free(process);
}

/* --- All of them --- */

bool processes_are_running(void)
{
	for (struct process *process = guest.processes; process; process = process->next)
		if (process->pid)
			return true;
	return false;
}

void processes_kill_all(void)
{
	for (struct process *process = guest.processes; process; process = process->next)
		if (process->pid)
			kill(process->pid, SIGKILL);
}

bool container_has_processes(const struct container *container)
{
	for (struct process *process = guest.processes; process; process = process->next)
		if (process->container == container && process->pid)
			return true;
	return false;
}

int processes_signal(struct container *container, int number)
{
	int count = 0;

	for (struct process *process = guest.processes; process; process = process->next)
		if (process->container == container && process->pid && !process->is_archive)
			count += !kill(process->pid, number);
	return count ? 0 : failed_with(ESRCH, "kill", "container");
}

void processes_kill_archives(const struct container *container)
{
	for (struct process *process = guest.processes; process; process = process->next)
		if (process->container == container && process->pid && process->is_archive)
			kill(process->pid, SIGKILL);
}

void processes_forget_container(const struct container *container)
{
	for (struct process *process = guest.processes; process; process = process->next)
		if (process->container == container)
			process->container = NULL;
}

/* --- Sending --- */

static bool send_exit(struct process *process)
{
	const struct msg_exited exited = { process->id, process->status, process->out_of_memory,
					   process->ended_ns };

	if (process->pid || process->is_starting || process->exit_is_sent ||
	    !process->outputs[0].end_is_sent || !process->outputs[1].end_is_sent)
		return false;
	process->exit_is_sent = true;
	SESSION_SEND(exited, &exited);
	return true;
}

static bool send_one(struct process *process)
{
	if (process->is_starting)
		return false;
	return input_send(&process->input) || output_send(&process->outputs[0]) ||
	       output_send(&process->outputs[1]) || send_exit(process);
}

/* The one that was served goes to the end of the list, so that a noisy one does not starve others. */
static void move_to_end(struct process **at)
{
	struct process *process = *at;

	*at = process->next;
	while (*at)
		at = &(*at)->next;
	process->next = NULL;
	*at = process;
}

bool processes_send(void)
{
	for (struct process **at = &guest.processes; *at; at = &(*at)->next)
		if (send_one(*at)) {
			move_to_end(at);
			return true;
		}
	return false;
}

void processes_forget_connection(void)
{
	for (struct process *process = guest.processes; process; process = process->next) {
		process->exit_is_sent = false;
		input_forget_connection(&process->input);
		output_forget_connection(&process->outputs[0]);
		output_forget_connection(&process->outputs[1]);
	}
}
