/* A directory of a file server, by NFS version 4. */
#pragma once

#include "job.h"
#include "mount.h"

/*
 * A detached mount of `source`, "ADDRESS:/PATH" with an IPv6 address in brackets, in the network namespace
 * of the process: the job `job`.  A server that does not answer ends it, in NFS_TIMEOUT_S at most: the job
 * has reported that before.
 */
#define NFS_TIMEOUT_S 15
int nfs_mount(const char *source, const struct mount_options *options, const struct job *job);
