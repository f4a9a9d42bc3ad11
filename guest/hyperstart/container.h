/* A container: a root of its own in a mount namespace of its own, and a cgroup. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "job.h"
#include "loop.h"
#include "protocol.gen.h"

#define TERMINALS_DIRECTORY "/run/hyper/terminals"
#define CONTAINER_NAME 128
#define CONTAINER_PATH 256

struct container {
	struct container *next;
	char name[CONTAINER_NAME + 1];
	bool is_ready; /* its mounts are made */
	bool has_run; /* something, since then */
	int mount_namespace;
	int terminals; /* its devpts: terminals are opened there, and named as its processes see them */
	int cgroup; /* -1: there are no cgroups */
	/*
	 * What is born in a cgroup that was killed once dies at birth: cgroup_css_set_fork() of Linux
	 * 6.12 compares the count of kills with that of the parent's cgroup.
	 */
	bool was_killed;
	uint64_t slots; /* those that it has mounts of, a bit for each */
	uint8_t writable_slot;
	char writable[CONTAINER_PATH]; /* the writable directory, below its slot */
	uint32_t request; /* who waits for the job */
	struct job job; /* building, then waiting; or erasing.  Its pid is 0 once reaped, or a process' */
	struct timer removal;
	unsigned int tries;
	bool erases;
};

struct container *container_find(const char *name);
int container_create(const struct msg_create_container *message, uint32_t request);
int container_remove(const struct msg_remove_container *message, uint32_t request);
/* SIGKILL to all in it. */
void container_kill(struct container *container);
int container_signal(struct container *container, int number);
/* Let go of the mounts of all in a list; their processes may have them yet. */
void containers_leave(struct container *list);
void containers_free(struct container **list); /* with nothing running any more */
bool containers_job_ended(pid_t pid);
void containers_look_again(void); /* something has ended: what a removal waits for may have */
bool containers_have_job(pid_t pid); /* one that builds, erases or waits: no process of theirs */
