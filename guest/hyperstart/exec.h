/* The way from clone to execve: what the child of hyperstart does to become a process of a container. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "container.h"
#include "job.h"
#include "protocol.gen.h"

struct stdio {
	int fds[3]; /* for the child; all three may be the same terminal */
	bool is_terminal;
};

_Noreturn void exec_process(const struct job *job, const struct container *container,
			    const struct stdio *stdio, const struct msg_start_process *message);

/* Steps of it that other children of hyperstart need too: 0 or -errno. */
int exec_take_streams(const struct stdio *stdio); /* as 0, 1 and 2, in a session of its own */
int exec_set_capabilities(uint64_t wanted);
