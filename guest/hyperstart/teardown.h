/*
 * How a pod ends: its mounts are let go of, its processes are killed, and at last the machine's power goes, if asked.
 *
 * What a file system writes when it is unmounted waits for the host's disk.  hyperstart does not: who lets go of a
 * mount last is the last process of the container that has it, on its way out, and the next pod is set up beside it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "loop.h"

struct teardown {
	bool powers_off;
	uint32_t request;
	pid_t init; /* the pod's; 0: it has ended, and with it all that was in its namespace */
	struct container *containers;
	uint64_t unmounting, kept; /* slots that are let go of, and those that stay mounted */
	struct timer timer; /* armed until all has ended */
};

/* Unmount all but the slots `keep`, kill, answer Done; then also power off when `powers_off`. */
int teardown_begin(uint32_t request, uint64_t keep, bool powers_off);
void teardown_look_again(void); /* something has ended: what it waits for may have */
