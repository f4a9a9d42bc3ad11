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
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "log.h"
#include "mount.h"
#include "path.h"

/* virtio disks carry the slot as their serial number; others have it as the letter of their name. */
static bool is_slot(const char *device, uint8_t slot)
{
	char path[300], serial[32], expected[32];

	snprintf(path, sizeof(path), "/sys/block/%s/serial", device);
	/* ubd disks say "(null)" */
	if (!read_line(path, serial, sizeof(serial)) && !strncmp(serial, "slot", 4)) {
		snprintf(expected, sizeof(expected), "slot%u", slot);
		return !strcmp(serial, expected);
	}
	return (!strncmp(device, "ubd", 3) || !strncmp(device, "xvd", 3)) && device[3] == 'a' + slot &&
	       !device[4];
}

int disk_device(uint8_t slot, char name[DEVICE_NAME])
{
	DIR *devices = opendir("/sys/block");
	struct dirent *entry;
	bool is_found = false;

	while (devices && !is_found && (entry = readdir(devices))) {
		is_found = strlen(entry->d_name) < DEVICE_NAME && is_slot(entry->d_name, slot);
		if (is_found)
			memcpy(name, entry->d_name, strlen(entry->d_name) + 1);
	}
	if (devices)
		closedir(devices);
	if (is_found)
		return 0;
	char subject[16];
	snprintf(subject, sizeof(subject), "slot%u", slot);
	return failed_with(ENODEV, "find disk", subject);
}

static uint32_t little32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Magic numbers: fs/squashfs/squashfs_fs.h, fs/erofs/erofs_fs.h, fs/ext4/ext4.h. */
static const char *probe(const char *device)
{
	cleanup_fd int fd = open(device, O_RDONLY | O_CLOEXEC);
	uint8_t head[2048];

	if (fd < 0 || pread(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head))
		return NULL;
	if (!memcmp(head, "hsqs", 4))
		return "squashfs";
	if (little32(head + 1024) == 0xE0F5E1E2)
		return "erofs";
	if (head[1024 + 56] == 0x53 && head[1024 + 57] == 0xEF)
		return "ext4";
	return NULL;
}

static bool is_read_only(const char *device)
{
	char path[300], line[8];

	snprintf(path, sizeof(path), "/sys/block/%s/ro", device);
	return !read_line(path, line, sizeof(line)) && line[0] == '1';
}

void disk_path(uint8_t slot, char path[32])
{
	snprintf(path, 32, DISKS_DIRECTORY "/%u", slot);
}

static bool is_mounted(const char *path)
{
	struct stat here, above;

	return !stat(path, &here) && !stat(DISKS_DIRECTORY, &above) && here.st_dev != above.st_dev;
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
	cleanup_fd int fd = open(source, O_PATH | O_DIRECTORY | O_CLOEXEC);
	cleanup_fd int copy =
		fd < 0 ? failed_with(ENODEV, "find disk", source) : mount_copy(fd, source, false, 0);
	return copy < 0 ? copy : mount_at(copy, AT_FDCWD, path, true);
}

int disk_mount(uint8_t slot)
{
	char name[DEVICE_NAME], device[DEVICE_NAME + 8], path[32];
	const char *fstype;

	disk_path(slot, path);
	if (is_mounted(path))
		return 0;
	if (slot >= SLOTS)
		return failed_with(EINVAL, "find disk", path);
	if (guest.in_namespaces)
		return bind_slot(slot, path);
	int result = disk_device(slot, name);
	if (result)
		return result;
	snprintf(device, sizeof(device), "/dev/%s", name);
	fstype = probe(device);
	if (!fstype)
		return failed_with(EMEDIUMTYPE, "mount", device);
	cleanup_fd int mount = mount_new(fstype, device, NULL, is_read_only(name) ? MOUNT_RDONLY : 0);
	return mount < 0 ? mount : mount_at(mount, AT_FDCWD, path, true);
}

int disk_unmount(uint8_t slot)
{
	char path[32];

	disk_path(slot, path);
	if (!is_mounted(path))
		return 0;
	return umount2(path, UMOUNT_NOFOLLOW) ? failed("unmount", path) : 0;
}

void disks_make_read_only(void)
{
	char path[32];

	for (uint8_t slot = 0; slot < SLOTS; slot++) {
		disk_path(slot, path);
		if (is_mounted(path))
			mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL);
	}
}

/* "8:16" in the file "dev" of a block device's directory in /sys. */
static int read_number(const char *name, dev_t *number)
{
	char path[64], text[32], *minor_text;

	snprintf(path, sizeof(path), "/sys/block/%s/dev", name);
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
	char name[DEVICE_NAME];
	dev_t number = 0;

	for (uint8_t slot = 0; slot < SLOTS && !disk_device(slot, name); slot++) { /* slots have no gaps */
		int result = read_number(name, &number);
		if (result)
			return result;
		if (mknodat(dev, name, S_IFBLK | 0600, number))
			return failed("mknod", name);
	}
	return 0;
}
