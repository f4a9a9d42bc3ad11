/* The machine itself, outside the pod, as a process with a container's programs sees it. */
#pragma once

#include "container.h"

/*
 * Called by a child of hyperstart: makes a mount namespace with the container's root at "/" and the
 * machine's own /proc, /sys, /dev and /run in it, and leaves the caller standing there.
 */
int machine_enter(const struct container *container);
