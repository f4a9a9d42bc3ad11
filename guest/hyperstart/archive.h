/* Copying into and out of a container as tar streams: the child that does it. */
#pragma once

#include "container.h"
#include "exec.h"
#include "job.h"
#include "protocol.gen.h"

/* Reports ready when `path` is found; from then on what goes wrong stands on stderr, and the status is 1. */
_Noreturn void archive_run(const struct job *job, const struct container *container,
			   const struct stdio *stdio, const struct msg_start_archive *message);

/* pack.c: what `message` names, as a tar stream on stdout. */
struct item;
int pack_find(int root, const struct msg_start_archive *message, struct item *item);
int pack(int root, const struct item *item, const char *path);

/* unpack.c: the tar stream on stdin, into the directory `target`, which `message` names. */
int unpack_find(int root, const struct msg_start_archive *message);
int unpack(int root, int target, const struct msg_start_archive *message);
