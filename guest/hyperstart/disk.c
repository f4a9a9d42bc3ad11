/* See disk.h. */
#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "kernel.h"
#include "log.h"
#include "mount.h"
#include "path.h"

/* The beginning of a disk, with what tells its file system. */
#define HEAD 2048

/* "../../../0:0:3:0": host, channel, target, unit. */
static int scsi_target(const char *device)
{
	char path[300], link[128] = "";
	unsigned int target;

	snprintf(path, sizeof(path), "/sys/block/%s/device", device);
	if (readlink(path, link, sizeof(link) - 1) < 0)
		return -1;
	char *name = strrchr(link, '/');
	return name && sscanf(name, "/%*u:%*u:%u:", &target) == 1 && target < SLOTS ? (int)target : -1;
}

/* The slot is a SCSI disk's target, a virtio disk's serial number, and the letter of others' names; or -1. */
static int slot_of(const char *device)
{
	char path[300], serial[32];
	unsigned int slot;

	if (!strncmp(device, "sd", 2))
		return scsi_target(device);
	if (!strncmp(device, "ubd", 3) || !strncmp(device, "xvd", 3))
		return device[3] >= 'a' && device[3] <= 'z' && !device[4] ? device[3] - 'a' : -1;
	snprintf(path, sizeof(path), "/sys/block/%s/serial", device);
	if (read_line(path, serial, sizeof(serial)) || sscanf(serial, "slot%u", &slot) != 1)
		return -1;
	return slot < SLOTS ? (int)slot : -1;
}

void disks_find(char names[SLOTS][DEVICE_NAME])
{
	DIR *devices = opendir("/sys/block");
	struct dirent *entry;

	memset(names, 0, SLOTS * DEVICE_NAME);
	while (devices && (entry = readdir(devices))) {
		int slot = strlen(entry->d_name) < DEVICE_NAME ? slot_of(entry->d_name) : -1;
		if (slot >= 0)
			strcpy(names[slot], entry->d_name);
	}
	if (devices)
		closedir(devices);
}

/* What a job has found: it looks once, and again for a slot that had no disk then. */
static char found[SLOTS][DEVICE_NAME];
static bool has_looked;

static bool find_device(uint8_t slot, char name[DEVICE_NAME])
{
	if (!*found[slot])
		disks_find(found);
	has_looked = true;
	memcpy(name, found[slot], DEVICE_NAME);
	return *name;
}

/* --- SCSI: the controller says nothing of disks that come and go, so we look when one is wanted --- */

static void scsi_path(uint8_t slot, const char *name, char path[64])
{
	snprintf(path, 64, "/sys/bus/scsi/devices/0:0:%u:0/%s", slot, name);
}

/* The disk's driver is bound behind the scan's back, and there is a node before it can be opened. */
static bool await_device(uint8_t slot, char name[DEVICE_NAME])
{
	const struct timespec pause = { .tv_nsec = 200 * 1000 };
	char node[DEVICE_NAME + 8];

	for (int tries = 0; tries < 10000; tries++) {
		if (find_device(slot, name)) {
			snprintf(node, sizeof(node), "/dev/%s", name);
			cleanup_fd int fd = openat(AT_FDCWD, node, O_RDONLY | O_CLOEXEC);
			if (fd >= 0)
				return true;
		}
		nanosleep(&pause, NULL);
	}
	return false;
}

static bool has_controller(void)
{
	return !access("/sys/class/scsi_host/host0", F_OK);
}

static bool scan_slot(uint8_t slot, char name[DEVICE_NAME])
{
	char target[16], path[64];

	snprintf(target, sizeof(target), "0 %u 0", slot);
	scsi_path(slot, "", path);
	if (access("/sys/class/scsi_host/host0", F_OK))
		return false;
	write_text(AT_FDCWD, "/sys/class/scsi_host/host0/scan", target);
	return !access(path, F_OK) && await_device(slot, name);
}

/* Size and read-only flag, when hyperd may have put another disk there since we looked. */
static void look_again(uint8_t slot)
{
	char path[64];

	scsi_path(slot, "rescan", path);
	if (!access(path, F_OK))
		write_text(AT_FDCWD, path, "1");
}

static void forget_device(uint8_t slot)
{
	char path[64];

	scsi_path(slot, "delete", path);
	if (!access(path, F_OK))
		write_text(AT_FDCWD, path, "1");
}

static int attach(uint8_t slot, char name[DEVICE_NAME])
{
	char subject[16];

	if (find_device(slot, name)) {
		look_again(slot);
		return 0;
	}
	snprintf(subject, sizeof(subject), "slot%u", slot);
	/* Without a controller the kernel is told of disks, and makes one some time after hyperd plugged it. */
	bool is_found = has_controller() ? scan_slot(slot, name) : await_device(slot, name);
	return is_found ? 0 : failed_with(ENODEV, "find disk", subject);
}

/* --- File systems --- */

static uint32_t little32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Magic numbers and fields: fs/squashfs/squashfs_fs.h, fs/erofs/erofs_fs.h, fs/ext4/ext4.h. */
static const char *fstype_of(const uint8_t head[HEAD])
{
	if (!memcmp(head, "hsqs", 4))
		return "squashfs";
	if (little32(head + 1024) == 0xE0F5E1E2)
		return "erofs";
	if (head[1024 + 56] == 0x53 && head[1024 + 57] == 0xEF)
		return "ext4";
	return NULL;
}

/* Whether nobody has mounted this ext4 yet: s_mnt_count counts. */
static bool is_fresh(const uint8_t head[HEAD])
{
	return !head[1024 + 52] && !head[1024 + 53];
}

static const char *probe(const char *device, uint8_t head[HEAD])
{
	cleanup_fd int fd = openat(AT_FDCWD, device, O_RDONLY | O_CLOEXEC);

	return fd >= 0 && pread(fd, head, HEAD, 0) == HEAD ? fstype_of(head) : NULL;
}

static bool is_read_only(const char *device)
{
	char path[300], line[8];

	snprintf(path, sizeof(path), "/sys/block/%s/ro", device);
	return !read_line(path, line, sizeof(line)) && line[0] == '1';
}

/* A journal that was left to replay cannot be: what the file system held before is there to read. */
static int mount_read_only(const char *fstype, const char *device)
{
	const struct mount_option noload[] = { { "noload", NULL }, { NULL, NULL } };
	int mount = mount_new(fstype, device, NULL, MOUNT_RDONLY);

	if (mount >= 0 || guest.failure.error != EROFS || strcmp(fstype, "ext4") != 0)
		return mount;
	log_line("%s was not unmounted: its journal is not replayed", device);
	return mount_new(fstype, device, noload, MOUNT_RDONLY);
}

void disk_path(uint8_t slot, char path[32])
{
	snprintf(path, 32, DISKS_DIRECTORY "/%u", slot);
}

bool disk_is_mounted(uint8_t slot)
{
	char path[32];

	disk_path(slot, path);
	return is_mounted(path);
}

/* The driver of namespaces has mounted them already, below /disks. */
static int bind_slot(uint8_t slot, const char *path)
{
	char source[32];

	snprintf(source, sizeof(source), "/disks/%u", slot);
	cleanup_fd int fd = openat(AT_FDCWD, source, O_PATH | O_DIRECTORY | O_CLOEXEC);
	cleanup_fd int copy =
		fd < 0 ? failed_with(ENODEV, "find disk", source) : mount_copy(fd, source, false, 0);
	return copy < 0 ? copy : mount_at(copy, AT_FDCWD, path, true);
}

/*
 * A mount writes to its journal, and waits until the host has that on its disk.  Of a file system that
 * holds nothing there is nothing to lose: it waits from the first flush that a program asks for.
 */
static int mount_fresh(const char *device, const char *path)
{
	const struct mount_option nobarrier[] = { { "nobarrier", NULL }, { NULL, NULL } };
	cleanup_fd int mount_fd = mount_new("ext4", device, nobarrier, 0);

	if (mount_fd < 0)
		return mount_fd;
	int result = mount_at(mount_fd, AT_FDCWD, path, true);
	if (!result && mount(NULL, path, NULL, MS_REMOUNT, "barrier")) {
		result = failed("mount with barriers", device);
		umount2(path, UMOUNT_NOFOLLOW);
	}
	return result;
}

static int mount_device(const char *fstype, const char *device, const char *path, bool read_only)
{
	cleanup_fd int mount = read_only ? mount_read_only(fstype, device)
					 : mount_new(fstype, device, NULL, 0);

	return mount < 0 ? mount : mount_at(mount, AT_FDCWD, path, true);
}

int disk_mount(uint8_t slot)
{
	char name[DEVICE_NAME], device[DEVICE_NAME + 8], path[32];
	uint8_t head[HEAD];
	const char *fstype;

	disk_path(slot, path);
	if (is_mounted(path))
		return 0;
	if (slot >= SLOTS)
		return failed_with(EINVAL, "find disk", path);
	if (guest.in_namespaces)
		return bind_slot(slot, path);
	int result = attach(slot, name);
	if (result)
		return result;
	snprintf(device, sizeof(device), "/dev/%s", name);
	fstype = probe(device, head);
	if (!fstype)
		return failed_with(EMEDIUMTYPE, "mount", device);
	bool read_only = is_read_only(name);
	if (!read_only && !strcmp(fstype, "ext4") && is_fresh(head))
		return mount_fresh(device, path);
	return mount_device(fstype, device, path, read_only);
}

int disk_unmount(uint8_t slot)
{
	char path[32];

	disk_path(slot, path);
	if (!is_mounted(path))
		return 0;
	if (umount2(path, UMOUNT_NOFOLLOW))
		return failed("unmount", path);
	forget_device(slot);
	return 0;
}

void disk_let_go(uint8_t slot)
{
	char path[32];

	disk_path(slot, path);
	umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
}

void disks_forget(uint64_t slots)
{
	if (!slots || !has_controller())
		return;
	for (uint8_t slot = 0; slot < SLOTS; slot++)
		if (slots & slot_bit(slot))
			forget_device(slot);
}

/* By its node, or while there is none yet by "8:16" in the file "dev" of its directory in /sys. */
static int find_number(const char name[DEVICE_NAME], dev_t *number)
{
	char path[64], text[32], *minor_text;
	struct stat status;

	snprintf(path, sizeof(path), "/dev/%.*s", DEVICE_NAME, name);
	if (!stat(path, &status)) {
		*number = status.st_rdev;
		return 0;
	}
	snprintf(path, sizeof(path), "/sys/block/%.*s/dev", DEVICE_NAME, name);
	int result = read_line(path, text, sizeof(text));
	if (result)
		return failed_with(-result, "read", path);
	unsigned long major_number = strtoul(text, &minor_text, 10);
	if (*minor_text != ':')
		return failed_with(EINVAL, "read", path);
	*number = makedev((unsigned int)major_number, (unsigned int)strtoul(minor_text + 1, NULL, 10));
	return 0;
}

int disk_make_nodes(int dev)
{
	dev_t number = 0;

	if (!has_looked)
		disks_find(found);
	for (uint8_t slot = 0; slot < SLOTS; slot++) /* those that the machine started with have no gaps */
		if (!*found[slot] && !scan_slot(slot, found[slot]))
			break;
	for (uint8_t slot = 0; slot < SLOTS; slot++) {
		if (!*found[slot] || find_number(found[slot], &number)) /* one of the pod before may go just now */
			continue;
		if (mknodat(dev, found[slot], S_IFBLK | 0600, number))
			return failed("mknod", found[slot]);
	}
	return 0;
}
