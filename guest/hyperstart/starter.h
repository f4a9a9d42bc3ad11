/*
 * The job that built a container's root stays, and becomes the container's main process: it stands in all
 * the namespaces already, and another fork is saved, which costs milliseconds where there is no hardware
 * that helps.
 *
 * It waits on its line for one order: the frame of the StartProcess, with the streams.  From here to execve
 * it is what exec.h tells of any child: not dumpable, and without hyperstart's files.
 */
#pragma once

#include "container.h"
#include "exec.h"

/* In the child, when the root is built: never returns. */
_Noreturn void starter_wait(const struct container *container);
/* As job_start(), but for the child: pid or -errno.  Where there is no starter (any more), -ESRCH. */
pid_t starter_start(struct container *container, struct job *job, const struct stdio *stdio,
		    void (*done)(struct job *job, int result));
