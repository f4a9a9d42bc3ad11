/* See job.h. */

#include "job.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
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

	timer_disarm(&job->deadline);
	if (!job->has_report)
		result = failed_with(ECHILD, "wait for", "a job that was killed");
	else if (failure->error)
		result = failed_with(failure->error, failure->operation, failure->subject);
	job->is_over = true;
	if (result || !job->stays)
		watch_close(&job->watch);
	job->done(job, result);
}

/* Take what is there; true at the line's end: execve closed it, or the child has ended. */
static bool take_reports(struct job *job)
{
	struct report report;
	ssize_t count;

	/* after "ready" comes a failure when execve fails */
	while ((count = recv(job->watch.fd, &report, sizeof(report), MSG_DONTWAIT)) ==
	       (ssize_t)sizeof(report)) {
		job->report = report;
		job->has_report = true;
		if (job->stays && !report.failure.error)
			return true;
	}
	return count >= 0 || (errno != EAGAIN && errno != EINTR);
}

static void job_ready(struct watch *watch, uint32_t events)
{
	struct job *job = container_of(watch, struct job, watch);

	(void)events;
	if (job->is_over) /* that one waits no more is seen when it is needed, or reaped */
		watch_set(watch, 0);
	else if (take_reports(job))
		finish(job);
}

void job_finish(struct job *job)
{
	if (job->watch.fd < 0)
		return;
	if (job->is_over) {
		watch_close(&job->watch);
		return;
	}
	job->stays = false;
	take_reports(job);
	finish(job);
}

void job_report(const struct job *job, int result)
{
	struct report report = { .pid = guest.pid };

	if (result)
		report.failure = guest.failure;
	report.failure.error = -result;
	if (send(job->line, &report, sizeof(report), MSG_NOSIGNAL) != (ssize_t)sizeof(report))
		_exit(EXIT_REPORT_LOST);
}

static pid_t fork_into(const struct place *place)
{
	struct clone_arguments arguments = { .flags = place->namespaces | CLONE_CHILD_SETTID,
					     .child_tid = (uint64_t)(uintptr_t)&guest.pid,
					     .exit_signal = SIGCHLD };
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

/* Where children are born from now on: most are the pod's, one after the other. */
static int choose_namespace(bool in_pod)
{
	if (guest.pod.has_births == in_pod)
		return 0;
	if (setns(in_pod ? guest.pod.pid_namespace : guest.own_pid_namespace, CLONE_NEWPID))
		return failed("setns", "PID namespace");
	guest.pod.has_births = in_pod;
	return 0;
}

void jobs_leave_pod(void)
{
	if (choose_namespace(false))
		log_line("setns back: %s", strerror(guest.failure.error));
}

static void watch_line(struct job *job)
{
	watch_set(&job->watch, EPOLLIN);
	job->deadline.expired = job_is_late;
	timer_arm(&job->deadline, DEADLINE_MS);
}

void job_go_on(struct job *job, struct job *waiting, void (*done)(struct job *job, int result))
{
	*job = (struct job){ .done = done, .pid = waiting->pid, .line = -1 };
	waiting->pid = 0;
	watch_move(&job->watch, &waiting->watch);
	watch_line(job);
}

pid_t job_start(struct job *job, const struct place *place, void (*done)(struct job *job, int result))
{
	int ends[2];

	*job = (struct job){ .done = done, .watch = { .fd = -1 }, .line = -1 };
	int result = choose_namespace(place->in_pod);
	if (result)
		return result;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return failed("socketpair", "job");
	cleanup_fd int ours = ends[0], theirs = ends[1];
	job->pid = fork_into(place);
	if (job->pid < 0)
		return failed("clone", "job");
	pages_take();
	if (job->pid == 0) {
		pages_find();
		job->line = steal_fd(&theirs);
		return 0;
	}
	job->watch = (struct watch){ .fd = steal_fd(&ours), .ready = job_ready };
	watch_line(job);
	return job->pid;
}
