/* The standard streams of a new process: a terminal of its container, or pipes. */
#pragma once

#include "exec.h"
#include "process.h"
#include "protocol.gen.h"

/* Our ends go to `process`, its own to `stdio`; -errno with the failure noted, and what is open stays. */
int stdio_open(struct process *process, const struct msg_start_process *message, struct stdio *stdio);
void stdio_close(struct stdio *stdio); /* the child has them */
