/* See port.h. */
#include "port.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "path.h"

#define PORTS "/sys/class/virtio-ports"
#define DRIVER "/sys/bus/virtio/drivers/virtio_console"
#define NAME "hyper.channel"

struct port_name {
	char text[256]; /* as in a directory entry */
};

static bool is_channel(const char *port)
{
	char path[300], name[64];

	snprintf(path, sizeof(path), PORTS "/%s/name", port);
	return read_line(path, name, sizeof(name)) >= 0 && !strcmp(name, NAME);
}

static int port_find(struct port_name *port)
{
	DIR *ports = opendir(PORTS);
	struct dirent *entry;
	int result = -ENODEV;

	while (ports && result && (entry = readdir(ports)))
		if (is_channel(entry->d_name)) {
			snprintf(port->text, sizeof(port->text), "%s", entry->d_name);
			result = 0;
		}
	if (ports)
		closedir(ports);
	return result;
}

int port_open(void)
{
	struct port_name port;
	char path[300];

	if (port_find(&port))
		return -1;
	snprintf(path, sizeof(path), "/dev/%s", port.text);
	return openat(AT_FDCWD, path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

struct device {
	char path[256];
	const char *name; /* within it: what the bus calls it, as "virtio0" */
};

static int find_device(struct device *device)
{
	struct port_name port;
	char path[300];
	ssize_t length;

	if (port_find(&port))
		return failed_with(ENODEV, "find", NAME);
	snprintf(path, sizeof(path), PORTS "/%s/device", port.text);
	length = readlink(path, device->path, sizeof(device->path) - 1);
	if (length < 0)
		return failed("readlink", path);
	device->path[length] = '\0';
	const char *slash = strrchr(device->path, '/');
	device->name = slash ? slash + 1 : device->path;
	return 0;
}

int port_renew(void)
{
	struct device device;

	if (find_device(&device))
		return -ENODEV;
	int result = write_text(AT_FDCWD, DRIVER "/unbind", device.name);
	return result ? result : write_text(AT_FDCWD, DRIVER "/bind", device.name);
}
