/*
 * What would block or needs namespaces of its own is done by a child of hyperstart: a job.
 *
 * Between them is a line, a socket: the job reports through it that it is ready, or the failure.  Its end
 * without a report is a failure too (it was killed).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "log.h"
#include "loop.h"

#define EXIT_REPORT_LOST 120

struct report {
	struct failure failure; /* error 0: ready */
	int32_t pid; /* as the job sees itself */
};

struct job {
	struct watch watch; /* our end of the line; -1: there is none */
	pid_t pid;
	bool has_report;
	bool stays; /* "ready" is not its end: it waits for an order, and the line stays */
	bool is_over; /* `done` has been called */
	struct report report;
	void (*done)(struct job *job, int result); /* 0 or -errno, with the failure noted; may free the job */
	struct timer deadline; /* a container could stop the child with a signal before its execve */
	int line; /* in the child: its end */
};

struct place {
	uint64_t namespaces; /* CLONE_NEW* to make */
	bool in_pod; /* in the pod's PID namespace */
	int cgroup; /* directory of the cgroup to be born in; -1: hyperstart's */
	bool moves; /* into it right after: slower, by milliseconds */
};

/* As fork(2): 0 in the child, which must end by execve or _exit.  -errno: nothing was started. */
pid_t job_start(struct job *job, const struct place *place, void (*done)(struct job *job, int result));
/* What was told to the child of `waiting`, which stayed, is a job of its own. */
void job_go_on(struct job *job, struct job *waiting, void (*done)(struct job *job, int result));
/* Before the pod's PID namespace goes. */
void jobs_leave_pod(void);
/* From the child, with 0 or the -errno of the failure that was noted. */
void job_report(const struct job *job, int result);
/* The child has been reaped: whatever it had to report is there. */
void job_finish(struct job *job);
