/* cgroup v2: one group for each container.  Without it, or without a controller, limits are refused. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define CGROUP_DIRECTORY "/run/hyper/cgroup"

struct cgroup_limits {
	uint64_t memory_bytes;
	uint32_t cpu_millis, pids; /* 0: none */
};

struct cgroup_usage {
	uint64_t memory_bytes; /* less what the page cache would give back at once, as Docker counts */
	uint64_t memory_limit_bytes; /* 0: none */
	uint64_t cpu_ns, cpu_user_ns, cpu_system_ns;
	uint64_t read_bytes, written_bytes; /* from and to block devices */
	uint64_t oom_kills;
	uint32_t pids;
};

int cgroup_open(void); /* mount the tree and turn the controllers on; guest.cgroup, or -1 */
int cgroup_make(const char *name, const struct cgroup_limits *limits); /* its directory, or -errno */
void cgroup_remove(const char *name);
int cgroup_kill(int cgroup); /* everything in it, at once */
int cgroup_signal(int cgroup, int number); /* everything in it; -ESRCH when that is nothing */
bool cgroup_is_empty(int cgroup);
uint64_t cgroup_oom_kills(int cgroup);
void cgroup_usage(int cgroup, struct cgroup_usage *usage);
