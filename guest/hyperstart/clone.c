/*
 * See clone.h.
 *
 * A virtio NIC has its own address, and what its backend can, from its reset on, which is the first thing that
 * the driver of its transport does.  A template's NICs have none, so each copy's are met anew.
 */
#include "clone.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "mount.h"
#include "path.h"

#define NIC_DRIVER "/sys/bus/virtio/drivers/virtio_net"
#define TRANSPORT_DRIVER "/sys/bus/platform/drivers/virtio-mmio"
#define UUID_SIZE 16

/* --- NICs --- */

static bool begins_with(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

/* Do `act` with the name of each entry of `directory` that begins with `prefix`; an absent one has none. */
static int for_each(const char *directory, const char *prefix, int (*act)(const char *name))
{
	DIR *listing = opendir(directory);
	int result = 0;

	if (!listing)
		return errno == ENOENT ? 0 : failed("open", directory);
	for (struct dirent *entry; !result && (entry = readdir(listing));)
		if (begins_with(entry->d_name, prefix))
			result = act(entry->d_name);
	closedir(listing);
	return result;
}

/* ".../virtio-mmio.5/virtio5": the transport is the device's parent. */
static int release_nic(const char *name)
{
	char path[128], target[256];

	snprintf(path, sizeof(path), NIC_DRIVER "/%s", name);
	ssize_t size = readlink(path, target, sizeof(target) - 1);
	if (size < 0)
		return failed("read link", path);
	target[size] = 0;
	*strrchr(target, '/') = 0;
	return write_text(AT_FDCWD, TRANSPORT_DRIVER "/unbind", strrchr(target, '/') + 1);
}

/* One that has its driver keeps it (bus_rescan_devices_helper() of the kernel). */
static int take_transport(const char *name)
{
	return write_text(AT_FDCWD, "/sys/bus/platform/drivers_probe", name);
}

/* --- The boot's id --- */

/* A random UUID as RFC 9562 says (version 4), in the kernel's form. */
static int write_boot_id(void)
{
	static const char format[] = "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x\n";
	uint8_t id[UUID_SIZE];

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return failed("getrandom", "boot id");
	id[6] = (uint8_t)(0x40 | (id[6] & 0x0f));
	id[8] = (uint8_t)(0x80 | (id[8] & 0x3f));
	cleanup_fd int fd = openat(AT_FDCWD, BOOT_ID_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0444);
	if (fd < 0 || dprintf(fd, format, id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7], id[8],
			      id[9], id[10], id[11], id[12], id[13], id[14], id[15]) < 0)
		return failed("write", BOOT_ID_FILE);
	return 0;
}

/* --- */

int clone_prepare(void)
{
	if (guest.pod.exists)
		return failed_with(EBUSY, "become template with", "pod");
	int result = guest.in_namespaces ? 0 : for_each(NIC_DRIVER, "virtio", release_nic);

	guest.clone = (struct clone){ .is_template = !result };
	guest.timeline.count = 0;
	return result;
}

void clone_greeted(void)
{
	if (guest.clone.is_template && !guest.clone.is_greeted)
		guest.started_ns = now_ns();
	guest.clone.is_greeted = true;
}

int clone_begin(void)
{
	if (!guest.clone.is_template)
		return 0;
	int result = write_boot_id();

	/* hyperstart's own view, which privileged processes may be shown; containers have theirs */
	if (!result && !guest.in_namespaces && mount(BOOT_ID_FILE, BOOT_ID_SETTING, NULL, MS_BIND, NULL))
		result = failed("mount", BOOT_ID_SETTING);
	if (!result && !guest.in_namespaces)
		result = for_each("/sys/bus/platform/devices", "virtio-mmio.", take_transport);
	guest.clone.is_template = result != 0;
	return result;
}
