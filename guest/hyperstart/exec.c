/*
 * See exec.h.
 *
 * From setns on, other processes of the container see this one; they cannot touch it, as it is not
 * dumpable until execve (ptrace(2)) and has more capabilities than they have.
 */

#include "exec.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "kernel.h"
#include "machine.h"
#include "mount.h"
#include "path.h"
#include "user.h"

#define NULL_MAJOR 1 /* Documentation/admin-guide/devices.txt */
#define NULL_MINOR 3
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* --- Streams --- */

int exec_take_streams(const struct stdio *stdio)
{
	for (int i = 0; i < 3; i++)
		if (dup2(stdio->fds[i], i) < 0) /* ours are above 2: main.c sees to that */
			return failed("dup2", "");
	if (setsid() < 0)
		return failed("setsid", "");
	if (stdio->is_terminal && ioctl(STDIN_FILENO, TIOCSCTTY, 0))
		return failed("set controlling", "terminal");
	return 0;
}

/* So that the user may open /dev/stdout, or its terminal, again. */
static void give_streams(const struct user *user)
{
	struct stat status;

	if (!user->uid) /* what hyperstart made is root's */
		return;
	for (int fd = 0; fd < 3; fd++)
		if (!fstat(fd, &status) && status.st_rdev != makedev(NULL_MAJOR, NULL_MINOR))
			fchown(fd, user->uid, (gid_t)-1); /* a mapped root may not: no harm */
}

/* As Docker: a container's console is the terminal of its main process. */
static int show_console(int root)
{
	cleanup_fd int copy = mount_copy(STDIN_FILENO, "terminal", false, 0);

	return copy < 0 ? copy : mount_at(copy, root, "/dev/console", false);
}

/* --- Namespaces and limits --- */

static int join(const struct container *container, bool in_machine)
{
	if (container->mount_namespace < 0) /* the one that built it stands there: starter.h */
		return 0;
	int result = in_machine ? machine_enter(container) : pod_join();
	if (result || in_machine)
		return result;
	if (unshare(CLONE_NEWCGROUP)) /* its own group is the root of what it sees: it was born there */
		return failed("unshare", "cgroups");
	return setns(container->mount_namespace, CLONE_NEWNS) ? failed("setns", "mounts") : 0;
}

static const struct {
	const char *name;
	int number;
} limit_names[] = {
	{ "as", RLIMIT_AS },	       { "core", RLIMIT_CORE },		{ "cpu", RLIMIT_CPU },
	{ "data", RLIMIT_DATA },       { "fsize", RLIMIT_FSIZE },	{ "locks", RLIMIT_LOCKS },
	{ "memlock", RLIMIT_MEMLOCK }, { "msgqueue", RLIMIT_MSGQUEUE }, { "nice", RLIMIT_NICE },
	{ "nofile", RLIMIT_NOFILE },   { "nproc", RLIMIT_NPROC },	{ "rss", RLIMIT_RSS },
	{ "rtprio", RLIMIT_RTPRIO },   { "rttime", RLIMIT_RTTIME },	{ "sigpending", RLIMIT_SIGPENDING },
	{ "stack", RLIMIT_STACK },
};

static int set_limit(const struct msg_resource_limit *limit)
{
	const struct rlimit value = { limit->soft, limit->hard };

	for (size_t i = 0; i < LENGTH(limit_names); i++)
		if (!strcmp(limit->name, limit_names[i].name))
			return syscall(SYS_prlimit64, 0, limit_names[i].number, &value, NULL)
				       ? failed("set limit", limit->name)
				       : 0;
	return failed_with(EINVAL, "set limit", limit->name);
}

/* As Docker: few descriptors unless asked for, as some programs close them all one by one. */
static void set_default_limit(void)
{
	const struct rlimit files = { 1024, 524288 };

	setrlimit(RLIMIT_NOFILE, &files);
}

static int set_limits(const struct msg_start_process *message)
{
	int result = 0;

	set_default_limit();
	for (uint32_t i = 0; !result && i < message->limits_count; i++)
		result = set_limit(&message->limits[i]);
	return result;
}

/* --- User and capabilities --- */

#define CAPABILITY(name) (UINT64_C(1) << (name))

/* What Docker gives to root in a container (moby, oci/caps/defaults.go). */
static const uint64_t default_capabilities =
	CAPABILITY(CAP_CHOWN) | CAPABILITY(CAP_DAC_OVERRIDE) | CAPABILITY(CAP_FSETID) |
	CAPABILITY(CAP_FOWNER) | CAPABILITY(CAP_MKNOD) | CAPABILITY(CAP_NET_RAW) | CAPABILITY(CAP_SETGID) |
	CAPABILITY(CAP_SETUID) | CAPABILITY(CAP_SETFCAP) | CAPABILITY(CAP_SETPCAP) |
	CAPABILITY(CAP_NET_BIND_SERVICE) | CAPABILITY(CAP_SYS_CHROOT) | CAPABILITY(CAP_KILL) |
	CAPABILITY(CAP_AUDIT_WRITE);

static uint64_t capabilities_for(const struct msg_start_process *message)
{
	return message->privileged || message->in_machine ? UINT64_MAX : default_capabilities;
}

int exec_set_capabilities(uint64_t wanted)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &head, data))
		return failed("capget", "");
	for (int i = 0; i < 2; i++) {
		data[i].effective = data[i].permitted &= (uint32_t)(wanted >> (32 * i));
		data[i].inheritable = 0;
	}
	return syscall(SYS_capset, &head, data) ? failed("capset", "") : 0;
}

static int bound_capabilities(uint64_t wanted)
{
	for (unsigned int capability = 0; capability < 64; capability++)
		if (!(wanted & CAPABILITY(capability)) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)) {
			if (errno == EINVAL)
				return 0; /* the kernel knows none beyond */
			return failed("drop capability", "");
		}
	return 0;
}

/* Root in no group is what we are.  With musl's own, all threads would be stopped first, and there is one. */
static int set_ids(const struct user *user)
{
	/* a mapped root may have no way to: its groups are nothing inside anyway */
	if (user->groups_count && syscall(SYS_setgroups, user->groups_count, user->groups) &&
	    !guest.is_mapped)
		return failed("setgroups", "");
	if (user->gid && syscall(SYS_setresgid, user->gid, user->gid, user->gid))
		return failed("setgid", "");
	if (user->uid && syscall(SYS_setresuid, user->uid, user->uid, user->uid))
		return failed("setuid", "");
	return 0;
}

static int become(const struct user *user, uint64_t capabilities)
{
	int result = bound_capabilities(capabilities);

	if (!result)
		result = set_ids(user);
	if (result)
		return result;
	return exec_set_capabilities(capabilities); /* for root; others have lost theirs with setresuid */
}

/* --- Environment and directory --- */

static const char *variable(char *const *environment, const char *name)
{
	size_t length = strlen(name);

	for (; *environment; environment++)
		if (!strncmp(*environment, name, length) && (*environment)[length] == '=')
			return *environment + length + 1;
	return NULL;
}

/* HOME from the container's passwd, unless it was given. */
static char **complete_environment(const struct msg_start_process *message, const struct user *user)
{
	static char home[USER_HOME + 8];
	size_t count = message->environment_count;
	char **environment = calloc(count + 2, sizeof(*environment));

	if (!environment)
		return NULL;
	for (size_t i = 0; i < count; i++)
		environment[i] = message->environment[i];
	if (!variable(environment, "HOME")) {
		snprintf(home, sizeof(home), "HOME=%s", user->home);
		environment[count] = home;
	}
	return environment;
}

/* From "/".  As root, which may make it; the user need not be able to go there itself. */
static int change_directory(int root, const char *path)
{
	if (!strcmp(path, "/"))
		return 0;
	cleanup_fd int directory = make_directory(root, path);
	if (directory < 0)
		return directory;
	return fchdir(directory) ? failed("change directory", path) : 0;
}

/* --- execve --- */

static int try_in_path(const char *search, char *const *argv, char *const *environment)
{
	bool was_denied = false;
	char path[PATH_MAX];

	while (*search) {
		size_t length = strcspn(search, ":");
		int size = snprintf(path, sizeof(path), "%.*s%s%s", (int)length, search, length ? "/" : "",
				    argv[0]);
		search += length + (search[length] == ':');
		if (size < 0 || (size_t)size >= sizeof(path))
			continue;
		execve(path, argv, environment);
		was_denied |= errno == EACCES; /* another directory may have one that runs: execvp(3) */
		if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
			return failed("execve", path);
	}
	return failed_with(was_denied ? EACCES : ENOENT, "execve", argv[0]);
}

static int try_exec(char *const *argv, char *const *environment)
{
	const char *search = variable(environment, "PATH");

	if (!argv[0][0])
		return failed_with(ENOENT, "execve", "");
	if (!strchr(argv[0], '/'))
		return try_in_path(search ? search : DEFAULT_PATH, argv, environment);
	execve(argv[0], argv, environment);
	return failed("execve", argv[0]);
}

static int prepare(const struct container *container, const struct stdio *stdio,
		   const struct msg_start_process *message, struct user *user)
{
	const int root = AT_FDCWD; /* "/", until change_directory() */
	int result = exec_take_streams(stdio);

	if (!result && container)
		result = join(container, message->in_machine);
	if (!result && container && message->is_main && stdio->is_terminal)
		result = show_console(root);
	if (!result)
		result = set_limits(message);
	if (!result)
		result = user_find(root, message->user, message->groups, message->groups_count, user);
	umask(022);
	return result ? result : change_directory(root, message->working_directory);
}

_Noreturn void exec_process(const struct job *job, const struct container *container,
			    const struct stdio *stdio, const struct msg_start_process *message)
{
	static struct user user;
	sigset_t none;
	int result = prepare(container, stdio, message, &user);
	char **environment = result ? NULL : complete_environment(message, &user);

	if (!result && !environment)
		result = failed_with(ENOMEM, "execve", message->argv[0]);
	if (!result) {
		give_streams(&user);
		result = become(&user, capabilities_for(message));
	}
	if (!result) {
		job_report(job, 0); /* our pid; and from here on only execve can fail */
		/* all of ours are marked already; what hyperstart was given itself may not be */
		sys_close_range(3, CLOSE_RANGE_CLOEXEC_);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		result = try_exec(message->argv, environment);
	}
	job_report(job, result);
	_exit(127);
}
