/*
 * See table.h.
 *
 * Read from hyperstart's own /proc, which no process of the pod can put anything over.  A process may
 * end at any moment, and gives itself name and arguments: what cannot be read is left out, and what is
 * read is bounded.  A command line that is not there (a zombie's, an emptied one) is "[name]".
 */
#include "table.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "path.h"

#define ENTRIES 1000 /* as Processes promises */
#define COMMAND 4096
#define COMMANDS (48u * 1024) /* bytes of all command lines together: the reply must fit a frame */
#define PTS_MAJOR 136 /* of the first 256 pseudo terminals: Documentation/admin-guide/devices.txt */

struct table {
	struct msg_process_entry entries[ENTRIES];
	uint32_t count;
	struct row { /* what the entry of the same index points to */
		pid_t pid; /* as hyperstart counts */
		char state[2], terminal[16];
	} rows[ENTRIES];
	char commands[COMMANDS];
};

/* --- One process --- */

/* The pid in the pod's namespace, which is the second of them; 0 when it is not in the pod. */
static uint32_t pod_pid(const char *status)
{
	const char *line = strstr(status, "\nNSpid:");
	uint32_t pid = 0;

	return line && sscanf(line, " NSpid: %*u %" SCNu32, &pid) == 1 ? pid : 0;
}

static uint32_t pod_pid_of(pid_t pid)
{
	char path[32], status[4096];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	read_text(AT_FDCWD, path, status, sizeof(status));
	return pod_pid(status);
}

static uint32_t effective_user(const char *status)
{
	const char *line = strstr(status, "\nUid:");
	uint32_t user = 0;

	if (line)
		sscanf(line, " Uid: %*u %" SCNu32, &user);
	return user;
}

static uint64_t ticks_to_ns(uint64_t ticks)
{
	return ticks * (UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK));
}

static void name_terminal(struct row *row, int device)
{
	unsigned int number = major((unsigned int)device);

	if (number >= PTS_MAJOR && number < PTS_MAJOR + 8)
		snprintf(row->terminal, sizeof(row->terminal), "pts/%u",
			 (number - PTS_MAJOR) * 256 + minor((unsigned int)device));
}

/* "PID (NAME) STATE PPID PGRP SESSION TTY ...": the name may hold blanks and brackets (proc(5)). */
static bool read_stat(int process, struct msg_process_entry *entry, struct row *row)
{
	uint64_t user_ticks, system_ticks, start_ticks;
	char text[1024];
	int parent, device;
	long pages;

	read_text(process, "stat", text, sizeof(text));
	const char *rest = strrchr(text, ')');
	int count =
		rest ? sscanf(rest,
			      ") %1s %d %*d %*d %d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
			      " %*d %*d %*d %*d %*d %*d %" SCNu64 " %*u %ld",
			      row->state, &parent, &device, &user_ticks, &system_ticks, &start_ticks, &pages)
		     : 0;
	if (count != 7)
		return false;
	entry->parent = pod_pid_of(parent);
	name_terminal(row, device);
	entry->cpu_ns = ticks_to_ns(user_ticks + system_ticks);
	entry->started_ns = ticks_to_ns(start_ticks);
	entry->memory_bytes = pages > 0 ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
	return true;
}

/* By its mount namespace; NULL for the pod's init and for one that made a namespace of its own. */
static struct container *container_of_process(int process)
{
	struct stat theirs, its;

	if (fstatat(process, "ns/mnt", &theirs, 0))
		return NULL;
	for (struct container *container = guest.containers; container; container = container->next)
		if (container->mount_namespace >= 0 && !fstat(container->mount_namespace, &its) &&
		    its.st_ino == theirs.st_ino && its.st_dev == theirs.st_dev)
			return container;
	return NULL;
}

static bool read_process(int process, const struct container *wanted, struct msg_process_entry *entry,
			 struct row *row)
{
	struct container *container = container_of_process(process);
	char status[4096];

	read_text(process, "status", status, sizeof(status));
	entry->pid = pod_pid(status);
	if (!entry->pid || (wanted && container != wanted))
		return false;
	entry->container = container ? container->name : NULL;
	entry->user = effective_user(status);
	entry->state = row->state;
	entry->terminal = row->terminal;
	return read_stat(process, entry, row);
}

/* Arguments end with a NUL each; what is more than `size` holds is cut off. */
static void read_command(pid_t pid, char *text, size_t size)
{
	char path[32], name[32];

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	cleanup_fd int fd = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? 0 : read(fd, text, size - 1);
	while (length > 0 && !text[length - 1])
		length--;
	for (ssize_t i = 0; i < length; i++)
		text[i] = text[i] ? text[i] : ' ';
	if (length > 0) {
		text[length] = '\0';
		return;
	}
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	read_line(path, name, sizeof(name));
	snprintf(text, size, "[%s]", name);
}

/* --- All of them --- */

static void add_process(struct table *table, int proc, const char *name,
			const struct container *wanted)
{
	struct msg_process_entry *entry = &table->entries[table->count];
	struct row *row = &table->rows[table->count];
	cleanup_fd int process = openat(proc, name, O_PATH | O_DIRECTORY | O_CLOEXEC);

	memset(row, 0, sizeof(*row));
	memset(entry, 0, sizeof(*entry));
	row->pid = atoi(name);
	if (process >= 0 && read_process(process, wanted, entry, row))
		table->count++;
}

static void find_processes(struct table *table, const struct container *wanted)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	while (proc && table->count < ENTRIES && (entry = readdir(proc)))
		if (isdigit((unsigned char)entry->d_name[0]) && !containers_have_job(atoi(entry->d_name)))
			add_process(table, dirfd(proc), entry->d_name, wanted);
	if (proc)
		closedir(proc);
}

/* Now that all are known: each may have as much of the room as the others. */
static void add_commands(struct table *table)
{
	size_t share = table->count ? COMMANDS / table->count : 0;
	size_t size = share < COMMAND ? share : COMMAND;

	for (uint32_t i = 0; i < table->count; i++) {
		table->entries[i].command = table->commands + i * size;
		read_command(table->rows[i].pid, table->entries[i].command, size);
	}
}

int table_fill(const char *container, struct msg_processes *processes)
{
	const struct container *wanted = container[0] ? container_find(container) : NULL;

	*processes = (struct msg_processes){ 0 };
	if (container[0] && !wanted)
		return failed_with(ENOENT, "find container", container);
	struct table *table = calloc(1, sizeof(*table));
	if (!table)
		return failed_with(ENOMEM, "get", "processes");
	find_processes(table, wanted);
	add_commands(table);
	processes->processes = table->entries;
	processes->processes_count = table->count;
	return 0;
}

void table_free(struct msg_processes *processes)
{
	if (processes->processes)
		free(container_of(processes->processes, struct table, entries));
}
