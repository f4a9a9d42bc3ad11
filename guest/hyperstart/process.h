/* Processes that hyperd started: their life, streams and end. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "container.h"
#include "job.h"
#include "stream.h"

struct process {
	struct process *next;
	uint32_t id;
	char container_name[CONTAINER_NAME + 1];
	struct container *container; /* NULL: none, or it is removed */
	pid_t pid; /* 0: it has been reaped */
	bool is_main;
	bool is_archive; /* hyperstart's own, and none of those that make the container run */
	bool is_starting; /* execve has not been heard of yet */
	bool exit_is_sent; /* on this connection */
	bool out_of_memory;
	int32_t status; /* as in Exited */
	uint64_t ended_ns;
	uint64_t oom_kills; /* of its container when it started */
	int terminal; /* the terminal's master, or -1 */
	uint32_t request; /* who waits for Started */
	struct job job;
	struct input input;
	struct output outputs[2];
};

struct process *process_find(uint32_t id);
int process_start(const struct msg_start_process *message, uint32_t request);
int process_start_archive(const struct msg_start_archive *message, uint32_t request);
int process_signal(const struct msg_signal_process *message);
int process_resize(const struct msg_resize_terminal *message);
void process_forget(uint32_t id);

/* Called with what waitpid(2) told; false when it is none of ours. */
bool processes_ended(pid_t pid, int wait_status);
size_t processes_count(void);
bool processes_are_running(void);
void processes_kill_all(void);
bool container_has_processes(const struct container *container);
/* Those that hyperd started in it: where there are no cgroups. */
int processes_signal(struct container *container, int number);
void processes_kill_archives(const struct container *container); /* before it is removed */
void processes_forget_container(const struct container *container);

/* One frame of one stream, taking turns: false when none has anything to send. */
bool processes_send(void);
void processes_forget_connection(void);
