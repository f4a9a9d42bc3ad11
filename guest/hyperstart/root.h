/* A container's file system: what its processes see at "/". */
#pragma once

#include "container.h"

#define ROOT_DIRECTORY "/run/hyper/root" /* where a root is built before it becomes "/" */
#define FILES_DIRECTORY "/run/hyper/files"
#define DEVICES_DIRECTORY "/run/hyper/devices"

/*
 * Called by a job in the pod's PID namespace: makes the mount namespace and everything in it, and
 * leaves the job standing in the new root.
 */
int root_build(const struct container *container, const struct msg_create_container *message);
/* Make the mount behind `root` this process' "/", and let go of the old one. */
int root_enter(int root);
