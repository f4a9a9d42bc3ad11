/* See statistics.h. */
#include "statistics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cgroup.h"
#include "disk.h"
#include "fd.h"
#include "guest.h"
#include "path.h"

#define SECTOR 512 /* of /sys/block/NAME/stat, whatever the device's own: Documentation/block/stat.rst */
#define NICS 64

/* --- The machine --- */

/* The number in kB behind `key` of /proc/meminfo, in bytes. */
static uint64_t memory_field(const char *text, const char *key)
{
	const char *at = strstr(text, key);

	return at ? strtoull(at + strlen(key), NULL, 10) * 1024 : 0;
}

static void fill_memory(struct msg_statistics *statistics)
{
	char text[2048];

	read_text(AT_FDCWD, "/proc/meminfo", text, sizeof(text));
	statistics->memory_total_bytes = memory_field(text, "MemTotal:");
	statistics->memory_available_bytes = memory_field(text, "MemAvailable:");
	statistics->memory_used_bytes = statistics->memory_total_bytes - memory_field(text, "MemFree:") -
					memory_field(text, "Buffers:") - memory_field(text, "\nCached:") -
					memory_field(text, "SReclaimable:");
}

/* The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal (proc(5)). */
static void fill_cpu(struct msg_statistics *statistics)
{
	uint64_t ticks = (uint64_t)sysconf(_SC_CLK_TCK);
	uint64_t part[8] = { 0 }, busy = 0;
	char line[256] = "";

	read_line("/proc/stat", line, sizeof(line));
	sscanf(line,
	       "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
	       " %" SCNu64,
	       &part[0], &part[1], &part[2], &part[3], &part[4], &part[5], &part[6], &part[7]);
	for (size_t i = 0; i < LENGTH(part); i++)
		busy += i == 3 || i == 4 ? 0 : part[i];
	statistics->cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	statistics->cpu_ns = busy * (UINT64_C(1000000000) / ticks);
}

/* --- Containers --- */

static void fill_container(struct msg_container_statistics *statistics, struct container *container)
{
	struct cgroup_usage usage = { 0 };

	if (container->cgroup >= 0)
		cgroup_usage(container->cgroup, &usage);
	*statistics = (struct msg_container_statistics){
		.container = container->name,
		.memory_bytes = usage.memory_bytes,
		.memory_limit_bytes = usage.memory_limit_bytes,
		.cpu_ns = usage.cpu_ns,
		.cpu_user_ns = usage.cpu_user_ns,
		.cpu_system_ns = usage.cpu_system_ns,
		.pids = usage.pids,
		.read_bytes = usage.read_bytes,
		.written_bytes = usage.written_bytes,
		.out_of_memory_kills = (uint32_t)usage.oom_kills,
	};
}

static int fill_containers(struct msg_statistics *statistics)
{
	size_t count = 0;

	for (struct container *container = guest.containers; container; container = container->next)
		count++;
	statistics->containers = calloc(count + 1, sizeof(*statistics->containers));
	if (!statistics->containers)
		return failed_with(ENOMEM, "get", "statistics");
	for (struct container *container = guest.containers; container; container = container->next)
		if (container->is_ready)
			fill_container(&statistics->containers[statistics->containers_count++], container);
	return 0;
}

/* --- Disks --- */

/* Reads, merges, sectors, milliseconds; and the same of writes: Documentation/block/stat.rst. */
static void fill_traffic(struct msg_disk_statistics *disk, const char *device)
{
	char path[64], line[256] = "";
	uint64_t read_sectors = 0, written_sectors = 0;

	snprintf(path, sizeof(path), "/sys/block/%.*s/stat", DEVICE_NAME, device);
	read_line(path, line, sizeof(line));
	sscanf(line, "%" SCNu64 " %*u %" SCNu64 " %*u %" SCNu64 " %*u %" SCNu64, &disk->reads, &read_sectors,
	       &disk->writes, &written_sectors);
	disk->read_bytes = read_sectors * SECTOR;
	disk->written_bytes = written_sectors * SECTOR;
}

static void fill_space(struct msg_disk_statistics *disk)
{
	struct statvfs space;
	char path[32];

	disk_path(disk->slot, path);
	if (!disk_is_mounted(disk->slot) || statvfs(path, &space))
		return;
	disk->capacity_bytes = (uint64_t)space.f_blocks * space.f_frsize;
	disk->used_bytes = (uint64_t)(space.f_blocks - space.f_bfree) * space.f_frsize;
	disk->files = space.f_files - space.f_ffree;
}

static int fill_disks(struct msg_statistics *statistics)
{
	char names[SLOTS][DEVICE_NAME] = { "" };

	statistics->disks = calloc(SLOTS, sizeof(*statistics->disks));
	if (!statistics->disks)
		return failed_with(ENOMEM, "get", "statistics");
	if (!guest.in_namespaces)
		disks_find(names);
	for (uint8_t slot = 0; slot < SLOTS; slot++) {
		struct msg_disk_statistics *disk = &statistics->disks[statistics->disks_count];
		bool has_device = *names[slot];
		*disk = (struct msg_disk_statistics){ .slot = slot };
		if (has_device)
			fill_traffic(disk, names[slot]);
		fill_space(disk);
		statistics->disks_count += has_device || disk->capacity_bytes;
	}
	return 0;
}

/* --- NICs --- */

/* "eth0: BYTES PACKETS ERRS DROP FIFO FRAME COMPRESSED MULTICAST BYTES PACKETS ERRS DROP ..." */
static bool fill_nic(struct msg_nic_statistics *nic, char *line)
{
	char *name = line + strspn(line, " "), *colon = strchr(name, ':');

	if (!colon)
		return false; /* one of the two lines above the table */
	*colon = '\0';
	int count = sscanf(colon + 1,
			   "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %*u %*u %*u %*u %" SCNu64
			   " %" SCNu64 " %" SCNu64 " %" SCNu64,
			   &nic->received_bytes, &nic->received_packets, &nic->received_errors,
			   &nic->received_dropped, &nic->sent_bytes, &nic->sent_packets, &nic->sent_errors,
			   &nic->sent_dropped);
	if (count != 8 || !strcmp(name, "lo"))
		return false;
	nic->name = strdup(name);
	return nic->name != NULL;
}

/* Of the pod's network namespace: its init is in it. */
static int fill_nics(struct msg_statistics *statistics)
{
	char path[64], line[512];

	statistics->nics = calloc(NICS, sizeof(*statistics->nics));
	if (!statistics->nics)
		return failed_with(ENOMEM, "get", "statistics");
	snprintf(path, sizeof(path), "/proc/%d/net/dev", guest.pod.init);
	FILE *table = guest.pod.init ? fopen(path, "re") : NULL;
	while (table && statistics->nics_count < NICS && fgets(line, sizeof(line), table))
		statistics->nics_count += fill_nic(&statistics->nics[statistics->nics_count], line);
	if (table)
		fclose(table);
	return 0;
}

/* --- All of it --- */

int statistics_fill(struct msg_statistics *statistics)
{
	*statistics = (struct msg_statistics){ .uptime_ns = now_ns() };
	fill_memory(statistics);
	fill_cpu(statistics);
	int result = fill_containers(statistics);
	if (!result)
		result = fill_disks(statistics);
	return result ? result : fill_nics(statistics);
}

void statistics_free(struct msg_statistics *statistics)
{
	for (uint32_t i = 0; statistics->nics && i < NICS; i++)
		free(statistics->nics[i].name);
	free(statistics->nics);
	free(statistics->disks);
	free(statistics->containers);
}
