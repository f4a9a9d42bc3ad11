/* See cgroup.h. */
#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "mount.h"
#include "path.h"

#define CPU_PERIOD_US 100000

static const char *const controllers[] = { "+memory", "+cpu", "+pids", "+io" };

/*
 * A group with controllers for its children may hold no processes itself, unless it is the root, as it
 * is in a machine.  There we save the move, which takes milliseconds.
 */
static int leave_root(int root)
{
	if (!guest.in_namespaces)
		return 0;
	if (mkdirat(root, "hyperstart", 0755)) /* the tree is not ours to write */
		return failed("make cgroup", "hyperstart");
	return write_text(root, "hyperstart/cgroup.procs", "0");
}

int cgroup_open(void)
{
	if (mount_plain("cgroup2", CGROUP_DIRECTORY, MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		return -1;
	cleanup_fd int root = openat(AT_FDCWD, CGROUP_DIRECTORY, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (root < 0 || leave_root(root))
		return -1;
	for (size_t i = 0; i < LENGTH(controllers); i++)
		write_text(root, "cgroup.subtree_control", controllers[i]); /* those that this kernel has */
	return steal_fd(&root);
}

static int limit(int cgroup, const char *file, const char *value)
{
	int result = write_text(cgroup, file, value);

	return result == -ENOENT ? failed_with(EOPNOTSUPP, "limit", file) : result;
}

static int limit_number(int cgroup, const char *file, uint64_t value)
{
	char text[24];

	if (!value)
		return 0;
	snprintf(text, sizeof(text), "%" PRIu64, value);
	return limit(cgroup, file, text);
}

static int limit_cpu(int cgroup, uint32_t millis)
{
	char text[40];

	if (!millis)
		return 0;
	snprintf(text, sizeof(text), "%" PRIu64 " %d", (uint64_t)millis * CPU_PERIOD_US / 1000,
		 CPU_PERIOD_US);
	return limit(cgroup, "cpu.max", text);
}

static int set_limits(int cgroup, const struct cgroup_limits *limits)
{
	int result = limit_number(cgroup, "memory.max", limits->memory_bytes);

	if (!result)
		result = limit_cpu(cgroup, limits->cpu_millis);
	if (!result)
		result = limit_number(cgroup, "pids.max", limits->pids);
	return result;
}

int cgroup_make(const char *name, const struct cgroup_limits *limits)
{
	if (guest.cgroup < 0)
		return limits->memory_bytes || limits->cpu_millis || limits->pids
			       ? failed_with(EOPNOTSUPP, "limit", name)
			       : 0;
	if (mkdirat(guest.cgroup, name, 0755) && errno != EEXIST)
		return failed("make cgroup", name);
	cleanup_fd int cgroup = openat(guest.cgroup, name, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	int result = cgroup < 0 ? failed("open cgroup", name) : set_limits(cgroup, limits);
	if (result) {
		cgroup_remove(name);
		return result;
	}
	return steal_fd(&cgroup);
}

void cgroup_remove(const char *name)
{
	if (guest.cgroup >= 0)
		unlinkat(guest.cgroup, name, AT_REMOVEDIR);
}

int cgroup_kill(int cgroup)
{
	return write_text(cgroup, "cgroup.kill", "1");
}

int cgroup_signal(int cgroup, int number)
{
	cleanup_fd int fd = openat(cgroup, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	FILE *list = fd < 0 ? NULL : fdopen(fd, "r");
	char line[24];
	int count = 0;

	if (!list)
		return failed("open", "cgroup.procs");
	fd = -1; /* the list's */
	while (fgets(line, sizeof(line), list)) {
		int pid = atoi(line);
		count += pid > 1 && !kill(pid, number);
	}
	fclose(list);
	return count ? 0 : failed_with(ESRCH, "kill", "container");
}

/* The number behind `key` in a file of "key number" lines; 0 when this kernel does not have it. */
static uint64_t read_key(int cgroup, const char *file, const char *key)
{
	char text[4096];

	read_text(cgroup, file, text, sizeof(text));
	char *rest = text;
	for (char *line; (line = strsep(&rest, "\n"));) {
		char *name = strsep(&line, " ");
		if (line && !strcmp(name, key))
			return strtoull(line, NULL, 10);
	}
	return 0;
}

static uint64_t read_number(int cgroup, const char *file)
{
	char line[32];

	return read_line_at(cgroup, file, line, sizeof(line)) ? 0 : strtoull(line, NULL, 10);
}

bool cgroup_is_empty(int cgroup)
{
	return read_key(cgroup, "cgroup.events", "populated") == 0;
}

uint64_t cgroup_oom_kills(int cgroup)
{
	return read_key(cgroup, "memory.events", "oom_kill");
}

/* "MAJOR:MINOR rbytes=N wbytes=N ..." for each device: the sum of what stands behind `key`. */
static uint64_t sum_devices(const char *text, const char *key)
{
	uint64_t sum = 0;

	for (const char *at = text; (at = strstr(at, key)); at += strlen(key))
		sum += strtoull(at + strlen(key), NULL, 10);
	return sum;
}

static void add_traffic(int cgroup, struct cgroup_usage *usage)
{
	char text[4096];

	read_text(cgroup, "io.stat", text, sizeof(text));
	usage->read_bytes = sum_devices(text, " rbytes=");
	usage->written_bytes = sum_devices(text, " wbytes=");
}

void cgroup_usage(int cgroup, struct cgroup_usage *usage)
{
	uint64_t memory = read_number(cgroup, "memory.current");
	uint64_t cache = read_key(cgroup, "memory.stat", "inactive_file");

	*usage = (struct cgroup_usage){
		.memory_bytes = memory > cache ? memory - cache : 0,
		.memory_limit_bytes = read_number(cgroup, "memory.max"), /* "max" is 0 */
		.cpu_ns = read_key(cgroup, "cpu.stat", "usage_usec") * 1000,
		.cpu_user_ns = read_key(cgroup, "cpu.stat", "user_usec") * 1000,
		.cpu_system_ns = read_key(cgroup, "cpu.stat", "system_usec") * 1000,
		.oom_kills = cgroup_oom_kills(cgroup),
		.pids = (uint32_t)read_number(cgroup, "pids.current"),
	};
	add_traffic(cgroup, usage);
}
