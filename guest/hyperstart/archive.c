/*
 * See archive.h.
 *
 * The child is in the container's mount namespace and nothing else of it, so what runs there neither
 * sees it nor can touch it.  What it reads is hostile: it keeps no descriptor of hyperstart's, and of
 * its capabilities those for files.
 */
#include "archive.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "entry.h"
#include "fd.h"
#include "guest.h"
#include "kernel.h"

#define CAPABILITY(name) (UINT64_C(1) << (name))
#define LINE 3 /* the job's, in the child */

static const uint64_t capabilities = CAPABILITY(CAP_CHOWN) | CAPABILITY(CAP_DAC_OVERRIDE) |
				     CAPABILITY(CAP_DAC_READ_SEARCH) | CAPABILITY(CAP_FOWNER) |
				     CAPABILITY(CAP_FSETID) | CAPABILITY(CAP_MKNOD) | CAPABILITY(CAP_SETFCAP);

/* Streams, root and job's line stay, and nothing else. */
static int enter(struct job *job, const struct container *container, const struct stdio *stdio)
{
	int result = exec_take_streams(stdio);

	if (result)
		return result;
	if (setns(container->mount_namespace, CLONE_NEWNS))
		return failed("setns", "mounts");
	if (job->line != LINE && dup2(job->line, LINE) < 0)
		return failed("dup2", "");
	job->line = LINE;
	sys_close_range(LINE + 1, 0);
	result = exec_set_capabilities(capabilities);
	int root = result ? -1 : openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return result ? result : root < 0 ? failed("open", "/") : root;
}

static void take_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	signal(SIGPIPE, SIG_IGN); /* a reader that is gone is told by write(2) */
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int run(const struct job *job, int root, const struct msg_start_archive *message)
{
	struct item item = { .parent = -1 };
	int target = message->unpack ? unpack_find(root, message) : pack_find(root, message, &item);

	job_report(job, target < 0 ? target : 0);
	close(LINE);
	if (target < 0)
		return target;
	take_signals();
	return message->unpack ? unpack(root, target, message) : pack(root, &item, message->path);
}

_Noreturn void archive_run(const struct job *job, const struct container *container,
			   const struct stdio *stdio, const struct msg_start_archive *message)
{
	const struct failure *failure = &guest.failure;
	struct job mine = *job;
	int root = enter(&mine, container, stdio), result;

	if (root < 0) {
		job_report(&mine, root);
		_exit(1);
	}
	result = run(&mine, root, message);
	if (result < 0)
		dprintf(STDERR_FILENO, "%s%s%s: %s\n", failure->operation, failure->subject[0] ? " " : "",
			failure->subject, strerror(failure->error));
	_exit(result ? 1 : 0);
}
