/* The process table of the pod: what ps(1) would show from inside. */
#pragma once

#include "protocol.gen.h"

/*
 * The processes of `container`, or of the whole pod when it is "".  What `processes` points to is one's
 * to free with table_free().  -ENOENT when there is no such container, -ENOMEM, or 0.
 */
int table_fill(const char *container, struct msg_processes *processes);
void table_free(struct msg_processes *processes);
