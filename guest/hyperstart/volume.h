/* What a container was asked to have mounted in its root. */
#pragma once

#include "job.h"
#include "protocol.gen.h"

/*
 * Make the source of `mount` when it is to begin with what `root` has at the target, and is not there yet.
 * It is there as a whole or not at all, also after a power cut.
 */
int volume_populate(int root, const struct msg_mount *mount);
/* In the mount namespace of the root; `job` is told when it may have to end waiting for a server. */
int volume_mount(int root, const struct job *job, const struct msg_mount *mount);
