/* See container.h. */

#include "container.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cgroup.h"
#include "disk.h"
#include "fd.h"
#include "guest.h"
#include "mount.h"
#include "path.h"
#include "root.h"
#include "starter.h"

#define REMOVAL_STEP_MS 2
#define REMOVAL_TRIES 2500
#define CONTAINERS 256
#define POPULATE_MS 1800000

struct container *container_find(const char *name)
{
	for (struct container *container = guest.containers; container; container = container->next)
		if (!strcmp(container->name, name))
			return container;
	return NULL;
}

static void let_go(struct container *container)
{
	close_fd(&container->mount_namespace);
	close_fd(&container->terminals);
}

static void container_free(struct container *container)
{
	struct container **at = &guest.containers;

	while (*at && *at != container)
		at = &(*at)->next;
	if (*at)
		*at = container->next;
	processes_forget_container(container);
	timer_disarm(&container->removal);
	let_go(container);
	watch_close(&container->job.watch); /* who waits there ends */
	close_fd(&container->cgroup);
	cgroup_remove(container->name);
	free(container);
}

/* Disks that no container is on any more can be swapped by hyperd. */
static void release_disks(uint64_t slots)
{
	for (struct container *other = guest.containers; other; other = other->next)
		slots &= ~other->slots;
	for (uint8_t slot = 0; slot < SLOTS; slot++)
		if (slots & slot_bit(slot) && disk_unmount(slot))
			log_line("unmount slot %u: %s", slot, strerror(guest.failure.error));
}

/* --- Creating --- */

/* The name becomes a directory's: of a cgroup. */
static bool is_good_name(const char *name)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
	size_t length = strlen(name);

	return length && length <= CONTAINER_NAME && strspn(name, good) == length && name[0] != '.' &&
	       strcmp(name, "hyperstart") != 0 && !strchr(name, '/') && strncmp(name, "cgroup.", 7) != 0;
}

static uint64_t slots_of(const struct msg_create_container *message)
{
	uint64_t slots = slot_bit(message->image.slot) | slot_bit(message->writable.slot);

	for (uint32_t i = 0; i < message->mounts_count; i++)
		slots |= slot_bit(message->mounts[i].source.slot);
	return slots;
}

static int check(const struct msg_create_container *message)
{
	size_t count = 0;

	if (!guest.pod.exists)
		return failed_with(ENOENT, "find", "pod");
	if (!is_good_name(message->container) || strlen(message->writable.path) >= CONTAINER_PATH)
		return failed_with(EINVAL, "create container", message->container);
	if (container_find(message->container))
		return failed_with(EEXIST, "create container", message->container);
	if (slots_of(message) & guest.teardown.unmounting)
		return failed_with(EBUSY, "create container", message->container);
	for (struct container *container = guest.containers; container; container = container->next)
		count++;
	return count < CONTAINERS ? 0 : failed_with(ENOSPC, "create container", message->container);
}

static struct container *container_new(const struct msg_create_container *message, uint32_t request)
{
	struct container *container = calloc(1, sizeof(*container));

	if (!container)
		return NULL;
	snprintf(container->name, sizeof(container->name), "%s", message->container);
	snprintf(container->writable, sizeof(container->writable), "%s", message->writable.path);
	container->mount_namespace = container->terminals = container->cgroup = -1;
	container->job.watch.fd = -1;
	container->slots = slots_of(message);
	container->writable_slot = message->writable.slot;
	container->request = request;
	container->next = guest.containers;
	guest.containers = container;
	return container;
}

static int open_resources(struct container *container, const struct msg_create_container *message)
{
	const struct cgroup_limits limits = { message->memory_bytes, message->cpu_millis, message->pids };
	const char *options = guest.is_mapped ? "mode=620,ptmxmode=666" : "mode=620,ptmxmode=666,gid=5";

	container->terminals = mount_detached("devpts", TERMINALS_DIRECTORY, MS_NOSUID | MS_NOEXEC, options);
	if (container->terminals < 0)
		return container->terminals;
	if (guest.cgroup < 0 && !limits.memory_bytes && !limits.cpu_millis && !limits.pids)
		return 0;
	container->cgroup = cgroup_make(container->name, &limits);
	return container->cgroup < 0 ? container->cgroup : 0;
}

static int take_namespace(struct container *container)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", container->job.pid);
	container->mount_namespace = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	return container->mount_namespace < 0 ? failed("open", path) : 0;
}

/* What could not be built is on no disk: hyperd may swap those that it had. */
static void give_up(struct container *container)
{
	const struct failure failure = guest.failure;
	uint64_t slots = container->slots;

	container_free(container);
	release_disks(slots);
	guest.failure = failure;
}

static void root_is_built(struct job *job, int result)
{
	struct container *container = container_of(job, struct container, job);
	uint32_t request = container->request;

	if (!result)
		result = take_namespace(container);
	if (result && job->pid)
		kill(job->pid, SIGKILL);
	container->is_ready = !result;
	mark("container", container->name);
	if (result)
		give_up(container);
	request_answer_created(request, result);
}

/* Reports, and waits to become the main process; a failure is told for good when the line ends. */
static _Noreturn void build(const struct container *container, const struct msg_create_container *message)
{
	int result = root_build(container, message);

	job_report(&container->job, result);
	if (!result)
		starter_wait(container);
	_exit(1);
}

/* Copying takes as long as there is to copy. */
static bool populates(const struct msg_create_container *message)
{
	bool found = false;

	for (uint32_t i = 0; i < message->mounts_count; i++)
		found |= message->mounts[i].populate;
	return found;
}

int container_create(const struct msg_create_container *message, uint32_t request)
{
	struct container *container;
	int result = check(message);

	if (result)
		return result;
	container = container_new(message, request);
	if (!container)
		return failed_with(ENOMEM, "create container", message->container);
	result = open_resources(container, message);
	const struct place place = { .in_pod = true, .cgroup = container->cgroup };
	pid_t pid = result ? result : job_start(&container->job, &place, root_is_built);
	if (pid == 0)
		build(container, message);
	if (pid > 0 && populates(message))
		timer_arm(&container->job.deadline, POPULATE_MS);
	container->job.stays = true;
	if (pid > 0)
		return CREATED_LATER;
	container_free(container);
	return pid;
}

/* --- Signals --- */

int container_signal(struct container *container, int number)
{
	if (container->cgroup >= 0)
		return cgroup_signal(container->cgroup, number);
	return processes_signal(container, number);
}

void container_kill(struct container *container)
{
	container->was_killed = true;
	if (container->job.pid) /* it has waited in vain */
		kill(container->job.pid, SIGKILL);
	if (container->cgroup < 0 || cgroup_kill(container->cgroup))
		container_signal(container, SIGKILL);
}

/* --- Removing --- */

static bool is_empty(const struct container *container)
{
	if (container->cgroup >= 0 && !cgroup_is_empty(container->cgroup))
		return false;
	return !container->job.pid && !container_has_processes(container);
}

static void finish_removal(struct container *container, int result)
{
	uint64_t slots = container->slots;
	uint32_t request = container->request;

	container_free(container);
	release_disks(slots);
	request_answer(request, result);
}

static void erased(struct job *job, int result)
{
	finish_removal(container_of(job, struct container, job), result);
}

static int erase_writable(const struct container *container)
{
	char disk[32] = "/";
	const char *name = strrchr(container->writable, '/');
	char parent[CONTAINER_PATH];

	if (container->writable_slot != NO_SLOT)
		disk_path(container->writable_slot, disk);
	snprintf(parent, sizeof(parent), "%.*s", name ? (int)(name - container->writable) : 0,
		 container->writable);
	cleanup_fd int root = openat(AT_FDCWD, disk, O_PATH | O_DIRECTORY | O_CLOEXEC);
	cleanup_fd int directory = root < 0 ? -1 : open_in_root(root, parent, O_RDONLY | O_DIRECTORY);
	name = name ? name + 1 : container->writable;
	if (directory < 0 || !name[0] || !strcmp(name, ".") || !strcmp(name, ".."))
		return failed_with(EINVAL, "erase", container->writable);
	return remove_tree(directory, name);
}

static void erase(struct container *container)
{
	const struct place place = { .cgroup = -1 };
	pid_t pid = job_start(&container->job, &place, erased);

	if (pid == 0) {
		job_report(&container->job, erase_writable(container));
		_exit(0);
	}
	if (pid < 0)
		finish_removal(container, pid);
}

static void try_removal(struct timer *timer)
{
	struct container *container = container_of(timer, struct container, removal);

	if (!is_empty(container)) {
		if (++container->tries < REMOVAL_TRIES) {
			timer_arm(timer, REMOVAL_STEP_MS);
			return;
		}
		request_answer(container->request, failed_with(EBUSY, "end", container->name));
		return;
	}
	let_go(container);
	if (container->erases && container->writable[0])
		erase(container);
	else
		finish_removal(container, 0);
}

int container_remove(const struct msg_remove_container *message, uint32_t request)
{
	struct container *container = container_find(message->container);

	if (!container)
		return failed_with(ENOENT, "find container", message->container);
	container->is_ready = false; /* nothing starts in it any more */
	container->request = request;
	container->erases = message->erase;
	container->tries = 0;
	container->removal.expired = try_removal;
	container_kill(container);
	processes_kill_archives(container);
	timer_arm(&container->removal, 0);
	return ANSWERED_LATER;
}

void containers_leave(struct container *list)
{
	for (struct container *container = list; container; container = container->next)
		let_go(container);
}

void containers_free(struct container **list)
{
	for (struct container *container; (container = *list);) {
		*list = container->next;
		container_free(container);
	}
}

bool containers_have_job(pid_t pid)
{
	for (struct container *container = guest.containers; container; container = container->next)
		if (container->job.pid == pid)
			return true;
	return false;
}

void containers_look_again(void)
{
	for (struct container *container = guest.containers; container; container = container->next)
		if (container->removal.at_ns)
			timer_arm(&container->removal, 0);
}

static bool job_ended(struct container *list, pid_t pid)
{
	for (struct container *container = list; container; container = container->next)
		if (container->job.pid == pid) {
			container->job.pid = 0;
			job_finish(&container->job);
			return true;
		}
	return false;
}

bool containers_job_ended(pid_t pid)
{
	return job_ended(guest.containers, pid) || job_ended(guest.teardown.containers, pid);
}
