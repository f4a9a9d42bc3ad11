/* See pod.h. */

#include "pod.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/random.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "disk.h"
#include "fd.h"
#include "guest.h"
#include "kernel.h"
#include "mount.h"
#include "net.h"
#include "netlink.h"
#include "path.h"
#include "source.h"
#include "template.h"

#define ENTROPY_LIMIT 512 /* bytes */

/* --- Before the namespaces --- */

static int set_clock(uint64_t clock_ns)
{
	struct timespec now = { .tv_sec = (time_t)(clock_ns / 1000000000),
				.tv_nsec = (long)(clock_ns % 1000000000) };

	if (!clock_ns || guest.in_namespaces)
		return 0;
	return clock_settime(CLOCK_REALTIME, &now) ? failed("clock_settime", "") : 0;
}

static int add_entropy(const struct bytes *entropy)
{
	struct {
		int entropy_count, buf_size;
		uint8_t bytes[ENTROPY_LIMIT];
	} pool = { .entropy_count = (int)entropy->size * 8,
		   .buf_size = (int)entropy->size }; /* rand_pool_info */
	cleanup_fd int fd = openat(AT_FDCWD, "/dev/urandom", O_WRONLY | O_CLOEXEC);

	if (!entropy->size || guest.in_namespaces)
		return 0;
	if (entropy->size > ENTROPY_LIMIT)
		return failed_with(E2BIG, "add entropy", "");
	memcpy(pool.bytes, entropy->data, entropy->size);
	if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool))
		return failed("add entropy", "/dev/urandom");
	/* a machine from a template would go on with the template's numbers until the next reseed */
	ioctl(fd, RNDRESEEDCRNG);
	return 0;
}

static int mount_shm(uint64_t bytes)
{
	char options[48] = "mode=1777";

	if (bytes)
		snprintf(options, sizeof(options), "mode=1777,size=%" PRIu64, bytes);
	return mount_plain("tmpfs", SHM_DIRECTORY, MS_NOSUID | MS_NODEV | MS_NOEXEC, options);
}

/* --- Its init: the child --- */

/* In a test's namespaces, a sysctl that is not the pod's own would be the host's. */
static bool is_namespaced(const char *name)
{
	static const char *const prefixes[] = { "net/", "kernel/shm", "kernel/msg", "kernel/sem",
						"fs/mqueue/" };

	for (size_t i = 0; i < LENGTH(prefixes); i++)
		if (!strncmp(name, prefixes[i], strlen(prefixes[i])))
			return true;
	return false;
}

static int set_sysctl(const struct msg_setting *setting)
{
	char name[256];
	bool has_slashes = strchr(setting->name, '/');
	size_t length = strlen(setting->name);

	if (length >= sizeof(name) || strstr(setting->name, ".."))
		return failed_with(EINVAL, "set sysctl", setting->name);
	memcpy(name, setting->name, length + 1);
	for (char *at = name; !has_slashes && *at; at++)
		if (*at == '.')
			*at = '/';
	if (guest.in_namespaces && !is_namespaced(name))
		return failed_with(EPERM, "set sysctl", setting->name);
	cleanup_fd int directory = openat(AT_FDCWD, "/proc/sys", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return write_text(directory, name[0] == '/' ? name + 1 : name, setting->value);
}

/* A disk that has stayed mounted would be in use as long as we live. */
static void let_go_of_disks(void)
{
	for (uint8_t slot = 0; slot < SLOTS; slot++)
		if (guest.teardown.kept & slot_bit(slot))
			disk_let_go(slot);
}

static int init_set_up(const struct msg_set_up_pod *message)
{
	int result = 0;

	prctl(PR_SET_NAME, "hyperstart");
	if (!guest.in_namespaces) /* with it the kernel would end the whole pod */
		write_text(AT_FDCWD, "/proc/self/oom_score_adj", "-1000");
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return failed("mount private", "/");
	let_go_of_disks();
	if (message->hostname[0] && sethostname(message->hostname, strlen(message->hostname)))
		return failed("sethostname", message->hostname);
	for (uint32_t i = 0; !result && i < message->sysctls_count; i++)
		result = set_sysctl(&message->sysctls[i]);
	return result;
}

/* No handlers, so the kernel drops what the pod's processes send to their init; only we can kill it. */
static _Noreturn void init_reap(void)
{
	sigset_t child;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	for (;;) {
		int number;
		sigwait(&child, &number);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}

static _Noreturn void init_main(const struct msg_set_up_pod *message, const struct job *job)
{
	int result = init_set_up(message);

	job_report(job, result);
	if (result)
		_exit(1);
	sys_close_range(3, 0); /* the channel and all streams are hyperstart's */
	init_reap();
}

/* --- Setting up --- */

static int open_namespaces(struct pod *pod)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", pod->init);
	pod->pid_namespace = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/ns/net", pod->init);
	pod->net_namespace = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	pod->init_pidfd = sys_pidfd_open(pod->init);
	if (pod->pid_namespace < 0 || pod->net_namespace < 0 || pod->init_pidfd < 0)
		return failed("open", "namespaces of the pod");
	if (setns(pod->net_namespace, CLONE_NEWNET))
		return failed("setns", "network");
	pod->net = netlink_open(NETLINK_ROUTE);
	if (setns(guest.own_net_namespace, CLONE_NEWNET))
		log_line("setns back: %s", strerror(errno));
	return pod->net < 0 ? pod->net : net_loopback_up(pod->net);
}

static void close_namespaces(struct pod *pod)
{
	jobs_leave_pod();
	close_fd(&pod->pid_namespace);
	close_fd(&pod->net_namespace);
	close_fd(&pod->init_pidfd);
	close_fd(&pod->net);
	services_forget(&pod->services);
}

/* It is alone in its namespace, so its death takes no time. */
static void end_init(struct pod *pod)
{
	if (!pod->init)
		return;
	kill(pod->init, SIGKILL);
	waitpid(pod->init, NULL, 0);
	pod->init = 0;
}

void pod_unmount(void)
{
	umount2(SHM_DIRECTORY, MNT_DETACH);
	template_remove();
	share_unmount();
}

static void undo_set_up(struct pod *pod)
{
	end_init(pod);
	close_namespaces(pod);
	pod_unmount();
}

static void init_is_ready(struct job *job, int result)
{
	struct pod *pod = container_of(job, struct pod, job);

	if (!result)
		result = open_namespaces(pod);
	if (result)
		undo_set_up(pod);
	pod->exists = !result;
	mark("pod", "");
	request_answer(pod->request, result);
}

int pod_set_up(const struct msg_set_up_pod *message, uint32_t request)
{
	struct pod *pod = &guest.pod;
	const struct place place = {
		.namespaces = CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWNET,
		.cgroup = -1,
	};
	int result;

	if (pod->exists)
		return failed_with(EEXIST, "set up", "pod");
	result = set_clock(message->clock_ns);
	if (!result)
		result = add_entropy(&message->entropy);
	if (!result)
		result = clone_begin();
	if (!result)
		result = share_mount(message->share_type, message->share_options);
	if (!result)
		result = mount_shm(message->shm_bytes);
	if (result)
		return result;
	pid_t pid = job_start(&pod->job, &place, init_is_ready);
	if (pid == 0)
		init_main(message, &pod->job);
	if (pid < 0) {
		umount2(SHM_DIRECTORY, MNT_DETACH);
		return pid;
	}
	pod->init = pid;
	pod->request = request;
	return ANSWERED_LATER;
}

/* The report is a single message: what is behind it in the pipe is only the end. */
void pod_init_ended(void)
{
	struct pod *pod = &guest.pod;

	pod->init = 0;
	job_finish(&pod->job);
	if (pod->exists)
		log_line("the pod's init was killed, and with it every process of the pod");
}

int pod_join(void)
{
	if (setns(guest.pod.init_pidfd, CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS))
		return failed("setns", "pod");
	return 0;
}

int pod_configure_nic(const struct msg_configure_nic *message)
{
	struct pod *pod = &guest.pod;

	if (!pod->exists)
		return failed_with(ENOENT, "find", "pod");
	pod->has_nics = true;
	cleanup_fd int own = netlink_open(NETLINK_ROUTE);
	return own < 0 ? own : net_configure(own, pod->net, pod->net_namespace, message);
}

int pod_set_services(const struct msg_set_services *message)
{
	struct pod *pod = &guest.pod;

	if (!pod->exists)
		return failed_with(ENOENT, "find", "pod");
	return services_set(&pod->services, pod->net, pod->net_namespace, message);
}

/* --- Its end --- */

pid_t pod_kill(void)
{
	struct pod *pod = &guest.pod;
	pid_t init = pod->init;

	if (pod->has_nics)
		net_return(pod->net, guest.own_net_namespace);
	if (init)
		kill(init, SIGKILL);
	close_namespaces(pod);
	pod->init = 0;
	pod->exists = pod->has_nics = false;
	return init;
}
