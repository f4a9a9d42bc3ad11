/* See job.h. */

#include "job.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "kernel.h"
#include "pages.h"
#include "path.h"

#define DEADLINE_MS 60000

static void job_is_late(struct timer *timer)
{
	kill(container_of(timer, struct job, deadline)->pid, SIGKILL);
}

/* What `done` is called for may free the job. */
static void finish(struct job *job)
{
	struct failure *failure = &job->report.failure;
	int result = 0;

	watch_close(&job->watch);
	timer_disarm(&job->deadline);
	if (!job->has_report)
		result = failed_with(ECHILD, "wait for", "a job that was killed");
	else if (failure->error)
		result = failed_with(failure->error, failure->operation, failure->subject);
	job->done(job, result);
}

/* Take what is in the pipe; true at its end: execve closed it, or the job is over. */
static bool take_reports(struct job *job)
{
	struct report report;
	ssize_t count;

	/* after "ready" comes a failure when execve fails */
	while ((count = read(job->watch.fd, &report, sizeof(report))) == (ssize_t)sizeof(report)) {
		job->report = report;
		job->has_report = true;
		if (job->ends_ready && !report.failure.error)
			return true;
	}
	return count >= 0 || (errno != EAGAIN && errno != EINTR);
}

static void job_ready(struct watch *watch, uint32_t events)
{
	struct job *job = container_of(watch, struct job, watch);

	(void)events;
	if (take_reports(job))
		finish(job);
}

void job_finish(struct job *job)
{
	if (job->watch.fd < 0)
		return;
	take_reports(job);
	finish(job);
}

void job_report(const struct job *job, int result)
{
	struct report report = { .pid = getpid() };

	if (result)
		report.failure = guest.failure;
	report.failure.error = -result;
	if (write(job->pipe, &report, sizeof(report)) != (ssize_t)sizeof(report))
		_exit(EXIT_REPORT_LOST);
}

static pid_t fork_into(const struct place *place)
{
	struct clone_arguments arguments = { .flags = place->namespaces, .exit_signal = SIGCHLD };
	pid_t pid = -1;

	if (place->cgroup >= 0 && !place->moves) {
		arguments.flags |= CLONE_INTO_CGROUP_;
		arguments.cgroup = (uint64_t)place->cgroup;
		pid = sys_clone3(&arguments);
		if (pid >= 0 || errno != EAGAIN)
			return pid;
		/* Full: but one must get into a container that a fork bomb filled, to look. */
		arguments.flags &= ~CLONE_INTO_CGROUP_;
	}
	pid = sys_clone3(&arguments);
	if (pid == 0 && place->cgroup >= 0 && write_text(place->cgroup, "cgroup.procs", "0"))
		_exit(EXIT_REPORT_LOST);
	return pid;
}

static pid_t fork_at(const struct place *place)
{
	pid_t pid;

	if (!place->in_pod)
		return fork_into(place);
	if (setns(guest.pod.pid_namespace, CLONE_NEWPID))
		return -1;
	pid = fork_into(place);
	if (pid != 0 && setns(guest.own_pid_namespace, CLONE_NEWPID))
		log_line("setns back: %s", strerror(errno));
	return pid;
}

void job_watch(struct job *job, pid_t pid, int read_end, void (*done)(struct job *job, int result))
{
	*job = (struct job){ .done = done, .pid = pid, .pipe = -1 };
	job->watch = (struct watch){ .fd = read_end, .ready = job_ready };
	watch_set(&job->watch, EPOLLIN);
	job->deadline.expired = job_is_late;
	timer_arm(&job->deadline, DEADLINE_MS);
}

pid_t job_start(struct job *job, const struct place *place, void (*done)(struct job *job, int result))
{
	int ends[2];

	*job = (struct job){ .done = done, .watch = { .fd = -1 } };
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return failed("pipe", "job");
	cleanup_fd int read_end = ends[0], write_end = ends[1];
	pid_t pid = fork_at(place);
	if (pid < 0)
		return failed("clone", "job");
	pages_take();
	if (pid == 0) {
		pages_find();
		job->pipe = steal_fd(&write_end);
		return 0;
	}
	job_watch(job, pid, steal_fd(&read_end), done);
	return pid;
}
