/*
 * What would block or needs namespaces of its own is done by a child of hyperstart: a job.
 *
 * A job reports once through a pipe: that it is ready, or the failure.  Its end without a report is
 * a failure too (it was killed).
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
	struct watch watch; /* the pipe's end to read from; -1 when the job is done */
	pid_t pid;
	bool has_report;
	bool ends_ready; /* nothing that comes behind "ready" is waited for */
	struct report report;
	void (*done)(struct job *job, int result); /* 0 or -errno, with the failure noted; may free the job */
	struct timer deadline; /* a container could stop the child with a signal before its execve */
	int pipe; /* in the child: where it reports */
};

struct place {
	uint64_t namespaces; /* CLONE_NEW* to make */
	bool in_pod; /* in the pod's PID namespace */
	int cgroup; /* directory of the cgroup to be born in; -1: hyperstart's */
	bool moves; /* into it right after: slower, by milliseconds */
};

/* As fork(2): 0 in the child, which must end by execve or _exit.  -errno: nothing was started. */
pid_t job_start(struct job *job, const struct place *place, void (*done)(struct job *job, int result));
/* The same of a child that is there already; `read_end` is of the pipe that it reports through. */
void job_watch(struct job *job, pid_t pid, int read_end, void (*done)(struct job *job, int result));
/* From the child, with 0 or the -errno of the failure that was noted. */
void job_report(const struct job *job, int result);
/* The child has been reaped: whatever it had to report is there. */
void job_finish(struct job *job);
