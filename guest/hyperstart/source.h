/* Where mounts come from: a disk by its slot, the machine's share, or a directory of the guest. */
#pragma once

#include <stdbool.h>

#include "protocol.gen.h"

#define SHARE_DIRECTORY "/run/hyper/share"

/* The machine's share, once for each pod: `type` and `options` as in SetUpPod; empty: there is none. */
int share_mount(const char *type, const char *options);
void share_unmount(void);

/* Its disk, in hyperstart's mount namespace, which all containers' come from. */
int source_mount(const struct msg_source *source);
/* O_PATH of what `source.path` is below: -errno with the failure noted. */
int source_root(const struct msg_source *source);
/*
 * O_PATH of a directory, or with `may_be_file` of a file.  A directory is made when absent, but in the
 * share, which is the host's.
 */
int source_open(const struct msg_source *source, bool may_be_file);
